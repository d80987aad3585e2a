"""Volumes in compressed blocks: decode what a box touches, keep what the next box may need."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.cache import CACHE, BlockCache, Index
from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources.axes import Layout
from volprep.sources.base import SLAB_BYTES, Array, Volume, forget
from volprep.sources.scratch import SCRATCH

__all__ = ["CACHE", "LARGE_BYTES", "BlockCache", "ChunkedVolume", "Index"]

_LAYER_BYTES = CACHE.max_bytes
#: A block larger than this is decoded into a scratch file, so that memory holds several of
#: those that it keeps.
LARGE_BYTES = CACHE.max_bytes // 4


class ChunkedVolume(Volume):
    """A stored array that is cut into a regular grid of blocks, each decoded as a whole.

    A box is put together from the blocks it touches. A block of which only a part was
    wanted is kept, as the next box may want more of it: in `CACHE`, or in `SCRATCH` where it
    is large. However large a chunk is, it is decoded once and not for every box.
    """

    def __init__(
        self,
        path: str | Path,
        layout: Layout,
        dtype: npt.DTypeLike,
        *,
        block: Sequence[int],
        **rest: Any,
    ) -> None:
        self._block = tuple(int(b) for b in block)
        super().__init__(path, layout, dtype, chunks=layout.spatial(self._block), **rest)

    def close(self) -> None:
        """Let go of the open file and of decoded blocks."""
        super().close()
        CACHE.drop(self.serial)
        SCRATCH.drop(self.serial)

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`; no block is decoded twice, whatever the depth.

        Where slabs do not follow the blocks, one layer of blocks is held beside them.
        """
        _, nz, ny, nx = self.shape
        layer = self.chunks[0]
        layer_bytes = self.shape[0] * layer * ny * nx * self.dtype.itemsize
        aligned = depth is None or depth % layer == 0 or layer >= nz <= depth
        if aligned or layer_bytes > _LAYER_BYTES:
            yield from super().slabs(depth, max_bytes=max_bytes)
            return
        first, held = nz, np.empty(0, self.dtype)
        for box in self.slab_boxes(depth):
            parts = []
            z, stop = box.start[0], box.stop[0]
            while z < stop:
                if not first <= z < first + layer:
                    first = z // layer * layer
                    del held
                    held = self.read(Box((first, 0, 0), (min(first + layer, nz), ny, nx)))
                end = min(stop, first + layer)
                parts.append(held[:, z - first : end - first])
                z = end
            yield box, parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    @abstractmethod
    def _decode(self, index: Index, out: Array | None) -> Array:
        """Decode one block.

        Parameters
        ----------
        index : tuple of int
            Of the block in the grid.
        out : ndarray or None
            C-contiguous, in the volume's dtype and exactly the part of the block that
            lies inside the array: may be decoded into and returned.

        Returns
        -------
        ndarray
            With the stored axes; may reach beyond the end of the array.
        """

    def _block_name(self, index: Index) -> str:
        """What a block is called in an error."""
        return f"chunk {', '.join(map(str, index))}"

    def _decoded(self, index: Index, out: Array | None) -> Array:
        """As `_decode`, and which block it was that could not be decoded."""
        try:
            return self._decode(index, out)
        except (EOFError, OSError, RuntimeError, ValueError) as error:
            limit = isinstance(error, OSError) and error.errno is not None
            if limit and not isinstance(error, IsADirectoryError):
                raise  # a limit of the machine is no damage
            said = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
            raise SourceError(
                self.name,
                f"{self._block_name(index)} cannot be read: {said.splitlines()[0][:200]}",
                "the file is damaged or cut short: copy or convert it again",
            ) from error

    def _read(self, box: Box) -> Array:
        cut = self._layout.select(box)
        ranges = [
            range(c.start // b, -(-c.stop // b)) for c, b in zip(cut, self._block, strict=True)
        ]
        if all(len(r) == 1 for r in ranges):
            return self._layout.arrange(self._part(tuple(r.start for r in ranges), cut))
        out = np.empty([c.stop - c.start for c in cut], self._stored_dtype.newbyteorder("="))
        for index in itertools.product(*ranges):
            self._place(index, cut, out)
        return self._layout.arrange(out)

    def _part(self, index: Index, cut: tuple[slice, ...]) -> Array:
        """What lies in `cut` of the one block that holds all of it."""
        inner = []
        whole = True
        for i, b, c, n in zip(index, self._block, cut, self._layout.stored, strict=True):
            inner.append(slice(c.start - i * b, c.stop - i * b))
            whole &= c.stop - c.start == min(b, n - i * b)
        block = self._kept(index, keep=not whole)
        return block[tuple(inner)]

    def _place(self, index: Index, cut: tuple[slice, ...], out: Array) -> None:
        """Bring the part of one block that lies in `cut` to its place in `out`."""
        source, target, whole = [], [], True
        for i, b, c, n in zip(index, self._block, cut, self._layout.stored, strict=True):
            first, last = max(i * b, c.start), min((i + 1) * b, c.stop)
            source.append(slice(first - i * b, last - i * b))
            target.append(slice(first - c.start, last - c.start))
            whole &= last - first == min(b, n - i * b)
        place = out[tuple(target)]
        if whole and not (self._large and SCRATCH.get(self.serial, index) is not None):
            block = CACHE.get(self.serial, index)
            if block is None:
                direct = place.flags.c_contiguous and out.dtype == self._stored_dtype
                block = self._decoded(index, place if direct else None)
                if block is place:
                    return
        else:
            block = self._kept(index)
        place[...] = block[tuple(source)]

    def _kept(self, index: Index, *, keep: bool = True) -> Array:
        block = CACHE.get(self.serial, index)
        if block is not None:
            return block
        if keep and self._large:
            return self._on_disk(index)
        block = self._decoded(index, None)
        if keep:
            block.flags.writeable = False
            CACHE.put(self.serial, index, block)
        return block

    @property
    def _large(self) -> bool:
        """Whether memory should not hold a block, let alone several."""
        return math.prod(self._block) * self._stored_dtype.itemsize > LARGE_BYTES

    def _on_disk(self, index: Index) -> Array:
        """A block in a scratch file, decoded by the first who wants it."""
        with self._lock:  # others wait: to decode it twice would take the room twice
            block = SCRATCH.get(self.serial, index)
            if block is None:
                pairs = zip(index, self._block, self._layout.stored, strict=True)
                inside = [min(b, n - i * b) for i, b, n in pairs]
                dtype = self._stored_dtype.newbyteorder("=")
                block = SCRATCH.make(self, index, inside, dtype)
                decoded = self._decoded(index, block if dtype == self._stored_dtype else None)
                if decoded is not block:
                    block[...] = decoded[tuple(map(slice, inside))]
                block.flags.writeable = False
                forget(block)
                SCRATCH.put(self, index, block)
            return block
