"""Pages of a TIFF file as volumes: mapped one by one, or decoded block by block."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from volprep.geometry import Box
from volprep.sources.axes import Layout
from volprep.sources.base import (
    SLAB_BYTES,
    Array,
    Volume,
    forget,
    map_file,
    open_descriptor,
    read_pieces,
    reading,
    still_whole,
    stored_bytes,
)
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.tiff.pages import DEFLATE, NO_PREDICTOR, Pages

__all__ = ["TiffBlocks", "TiffMappedPages"]

_HORIZONTAL = 2


class TiffMappedPages(Volume):
    """Uncompressed pages, each in one piece, scattered over one file."""

    def __init__(self, path: Path, layout: Layout, pages: Pages, **rest: Any) -> None:
        super().__init__(path, layout, pages.dtype, chunks=(1, *layout.shape[2:]), **rest)
        self._page = pages.page
        self._starts = pages.offsets[:, 0].copy()

    def _open(self) -> Any:
        return map_file(self.path)

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`; gives the memory of each slab back before the next."""
        with reading(self.name):
            view = self._opened()
        for slab in super().slabs(depth, max_bytes=max_bytes):
            yield slab
            forget(view)

    def _read(self, box: Box) -> Array:
        view = self._opened()
        still_whole(self.path, view)
        cut = self._layout.select(box)
        lead = len(cut) - len(self._page)
        numbers = np.arange(len(self._starts)).reshape(self._layout.stored[:lead])[cut[:lead]]
        shape = [c.stop - c.start for c in cut]
        if numbers.size == 1:
            return self._layout.arrange(self._plane(view, numbers.item(), cut[lead:], shape))
        out = np.empty(shape, self._stored_dtype.newbyteorder("="))
        for where, number in zip(np.ndindex(*numbers.shape), numbers.ravel().tolist(), strict=True):
            out[where] = self._plane(view, number, cut[lead:], shape[lead:])
        return self._layout.arrange(out)

    def _plane(
        self, view: mmap.mmap, number: int, cut: tuple[slice, ...], shape: Sequence[int]
    ) -> Array:
        start = int(self._starts[number])
        read = read_pieces(self.path, start, self._page, self._stored_dtype, cut)
        if read is not None:
            return read.reshape(shape)
        page: Array = np.ndarray(self._page, self._stored_dtype, buffer=view, offset=start)
        return page[cut].reshape(shape)


class _Reader:
    """Descriptors of the files of a series, and tifffile's decoder for their blocks."""

    def __init__(self, pages: Pages) -> None:
        self.descriptors: list[int] = []
        self._pages = pages
        self._decode: Callable[..., Any] | None = None
        for file in pages.files:
            self.descriptors.append(open_descriptor(file))

    def __del__(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def fetch(self, number: int, segment: int) -> bytes | Array:
        """The stored bytes of a strip or tile; none for one that was never written."""
        pages = self._pages
        size, start = int(pages.counts[number, segment]), int(pages.offsets[number, segment])
        file = 0 if pages.file_of is None else int(pages.file_of[number])
        data = stored_bytes(self.descriptors[file], size, start)
        if len(data) < size:
            raise EOFError(f"page {number} is cut short")
        return data

    def decode(self, data: bytes | Array, segment: int) -> Array:
        """Any strip or tile, as (depth, length, width, samples)."""
        if self._decode is None:
            from tifffile import TiffFile

            with TiffFile(self._pages.files[0]) as file:
                page = file.pages[self._pages.keyframe]
                tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
                self._decode = partial(page.decode, **tables)
        decoded: Array = self._decode(bytes(data), segment)[0]
        return decoded


class TiffBlocks(ChunkedVolume):
    """Pages in strips or tiles, compressed or not; only those that a box touches are decoded."""

    def __init__(self, path: Path, layout: Layout, pages: Pages, **rest: Any) -> None:
        self._lead = len(layout.stored) - len(pages.page)
        block = (*(1,) * self._lead, *pages.block)
        super().__init__(path, layout, pages.dtype, block=block, **rest)
        self._pages = pages
        coded = pages.predictor == NO_PREDICTOR or (
            pages.predictor == _HORIZONTAL and pages.dtype.kind in "iu" and pages.dtype.isnative
        )
        self._simple = pages.regular and pages.compression in DEFLATE and coded

    def missing_chunks(self) -> tuple[int, int]:
        """As `Volume.missing_chunks`: writers leave out tiles by a size of 0."""
        return int(np.count_nonzero(self._pages.counts == 0)), self._pages.counts.size

    def _open(self) -> _Reader:
        return _Reader(self._pages)

    def _decode(self, index: Index, out: Array | None) -> Array:
        reader, pages = self._opened(), self._pages
        segment = _ravel(index[self._lead :], pages.grid)
        data = reader.fetch(_ravel(index[: self._lead], pages.shape[: self._lead]), segment)
        if not len(data):
            return np.zeros(self._inside(index), self.dtype)
        if self._simple:
            block = self._inflate(data, index, out)
            if block is not None:
                return block
        return self._shaped(reader.decode(data, segment))

    def _inflate(self, data: bytes | Array, index: Index, out: Array | None) -> Array | None:
        """Inflate a block in place; None where it does not hold what it should."""
        from imagecodecs import DeflateError, deflate_decode, delta_decode

        pages = self._pages
        shape = self._block if pages.tiled else self._inside(index)
        target = (
            out if out is not None and out.shape == shape else np.empty(shape, self._pages.dtype)
        )
        flat: Any = target.reshape(-1).view(np.uint8)
        try:
            size = len(deflate_decode(data, out=flat))  # type: ignore[arg-type]
        except DeflateError:
            return None
        if size != len(flat):
            return None
        if pages.predictor == _HORIZONTAL:
            samples = shape[-1] if pages.interleaved else 1
            rows = target.reshape(-1, shape[-1 - pages.interleaved], samples)
            delta_decode(rows, axis=-2, out=rows)
        return target

    def _shaped(self, decoded: Array) -> Array:
        """A decoded (depth, length, width, samples) with the stored axes of this volume."""
        depth, length, width, samples = decoded.shape
        last = (samples,) if self._pages.interleaved else ()
        first = len(self._layout.stored) - 2 - len(last)
        ones = (1,) * max(0, first - 1)
        return decoded.reshape(*ones, *((depth,) if first else ()), length, width, *last)

    def _inside(self, index: Index) -> tuple[int, ...]:
        """The shape of the part of a block that lies inside the array."""
        sizes = zip(index, self._block, self._layout.stored, strict=True)
        return tuple(min(b, n - i * b) for i, b, n in sizes)


def _ravel(index: Sequence[int], shape: Sequence[int]) -> int:
    flat = 0
    for i, n in zip(index, shape, strict=True):
        flat = flat * n + i
    return flat
