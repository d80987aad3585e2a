"""Volumes behind one compressed stream: walked forward, or inflated once for random boxes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources.array import MappedVolume
from volprep.sources.axes import Layout
from volprep.sources.base import SLAB_BYTES, Array, forget, reading
from volprep.sources.openfiles import OPEN
from volprep.sources.scratch import scratch_array

__all__ = ["HELD_BYTES", "StreamVolume"]

#: Voxels of one volume that stay in memory once inflated; a larger one goes to a mapped
#: temporary file.
HELD_BYTES = 128 * 2**20

_DEFLATE_RATIO = 1032  # no deflate stream expands further
_PIECE = 16 * 2**20
_GIVE_BACK = 128 * 2**20


class StreamVolume(MappedVolume):
    """A stored array that can only be read from its beginning.

    `slabs` walks forward and holds one slab. The first `read` inflates everything: up
    to `HELD_BYTES` into memory, while that has room for it, else into an unnamed temporary
    file (in ``TMPDIR``) that is mapped. `close` lets go of both, and so does the process where
    its volumes hold too much together.
    """

    def __init__(
        self, path: str | Path, layout: Layout, dtype: npt.DTypeLike, *, packed: int, **rest: Any
    ) -> None:
        super().__init__(path, layout, dtype, **rest)
        self._in_memory = True
        size = math.prod(layout.stored) * self._stored_dtype.itemsize
        if size > packed * _DEFLATE_RATIO:
            raise SourceError(
                self.name,
                f"is cut short: the header promises {size} bytes of voxels, and {packed}"
                " compressed bytes cannot hold them",
                "copy or save the file again",
            )

    @property
    def sequential(self) -> bool:
        """Until it has been inflated as a whole."""
        return self._forward and self._handle is None

    @abstractmethod
    def _stream(self) -> IO[bytes]:
        """A new stream that stands at the first voxel."""

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`; walks forward where z is the slowest axis in the file."""
        if self._handle is not None or not self._forward:
            yield from super().slabs(depth, max_bytes=max_bytes)
            return
        with reading(self.name):
            stream = self._stream()
        with stream:
            for box in self.slab_boxes(depth, max_bytes=max_bytes):
                with reading(self.name):
                    block = self._next(stream, box)
                yield box, block

    @property
    def _forward(self) -> bool:
        axes = self._layout.axes
        before = self._layout.stored[: axes.index("Z") if "Z" in axes else 0]
        return math.prod(before) == 1

    def _next(self, stream: IO[bytes], box: Box) -> Array:
        cut = self._layout.select(box)
        block = np.empty([len(range(*c.indices(c.stop))) for c in cut], self._stored_dtype)
        _fill(stream, block)
        if box.stop[0] == self.shape[1]:
            stream.read(1)  # lets the format compare its checksum
        return self._native(self._layout.arrange(block))

    def _held_bytes(self) -> int:
        return self.nbytes if self._in_memory else 0

    def _open(self) -> Array:
        shape, dtype = self._layout.stored, self._stored_dtype
        size = math.prod(shape) * dtype.itemsize
        # In memory while there is room for it: what would push others out, only to be
        # inflated again when its own turn comes back, is better off in a file.
        self._in_memory = size <= HELD_BYTES and OPEN.has_room(size)
        array: Array
        if self._in_memory:
            array = np.empty(shape, dtype)
        else:
            array = scratch_array(self.name, shape, dtype)
        with self._stream() as stream:
            _fill(stream, array, spilt=not self._in_memory)
            stream.read(1)
        array.flags.writeable = False
        return np.asarray(array)


def _fill(stream: IO[bytes], array: Array, *, spilt: bool = False) -> None:
    """Read exactly as many bytes as the array holds; a mapped one is given back on the way."""
    view = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = stream.readinto(view[done : done + _PIECE])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"it ends after {done} of {len(view)} bytes")
        done += count
        if spilt and done // _GIVE_BACK > (done - count) // _GIVE_BACK:
            forget(array)
