"""TIFF: plain, ImageJ, OME, BigTIFF; mapped where the file allows it, else block by block."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.geometry import Box, Spacing3
from volprep.sources.array import MappedVolume
from volprep.sources.axes import Layout, fitting_axes
from volprep.sources.base import Array, Volume, map_file, reading
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.tiffmeta import Resolution, read_spacing

__all__ = ["Pages", "open_source", "read_pages", "spacing_of"]

_PLAIN, _DEFLATE = 1, (8, 32946)
_NO_PREDICTOR, _HORIZONTAL = 1, 2
_UNSAID = "QI"  # tifffile's letters for an axis that the file does not name
_MOST = 1500  # times that deflate, LZW and PackBits can shrink a block
_BOUNDED = (_PLAIN, 5, *_DEFLATE, 32773)


@dataclass(frozen=True)
class Pages:
    """Pages of one shape and coding, in the order of the leading axes of a stored array.

    Attributes
    ----------
    axes, shape, dtype
        Of the stored array, in the byte order of the file.
    page : tuple of int
        Shape of one page: the last axes of `shape`.
    block : tuple of int
        Shape of one strip or tile, with the axes of a page.
    offsets, counts : ndarray, int64, shape (pages, blocks)
        Where each strip or tile lies in its file; a count of 0 is a block of zeros.
    files : tuple of Path
        All files of the series; most have one.
    file_of : ndarray or None
        For each page the index of its file; None where there is one.
    keyframe : int
        Index of a page that all others are coded like.
    compression, predictor : int
        As in the TIFF tags.
    tiled, interleaved : bool
        Whether blocks are tiles, and samples the last axis of a page.
    regular : bool
        Whether a decompressed block is its voxels, in the byte order of the file.
    description, resolution, spacing, notes
        What is said of the voxel size, and what was doubtful.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    page: tuple[int, ...]
    block: tuple[int, ...]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    files: tuple[Path, ...]
    file_of: npt.NDArray[np.int64] | None
    keyframe: int
    compression: int
    predictor: int
    tiled: bool
    interleaved: bool
    regular: bool
    description: str
    resolution: Resolution | None
    spacing: Spacing3 | None
    notes: tuple[str, ...]

    @property
    def page_bytes(self) -> int:
        """Of one decoded page."""
        return math.prod(self.page) * self.dtype.itemsize

    @property
    def mappable(self) -> bool:
        """Whether each page lies in its file as it is, in one piece."""
        if not self.regular or (self.compression, self.predictor) != (_PLAIN, _NO_PREDICTOR):
            return False
        if self.tiled and self.block[-1 - self.interleaved] != self.page[-1 - self.interleaved]:
            return False
        joined = self.offsets[:, :-1] + self.counts[:, :-1] == self.offsets[:, 1:]
        return bool(joined.all() and (self.counts.sum(axis=1) == self.page_bytes).all())

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks a page has along each of its axes."""
        return tuple(-(-n // b) for n, b in zip(self.page, self.block, strict=True))


class TiffMapped(MappedVolume):
    """Uncompressed pages that follow each other in one file."""

    def __init__(self, path: Path, layout: Layout, pages: Pages, **rest: Any) -> None:
        chunks = (1, *layout.shape[2:])
        super().__init__(path, layout, pages.dtype, chunks=chunks, **rest)
        self._offset = int(pages.offsets[0, 0])

    def _open(self) -> Array:
        return map_file(self.path, self._stored_dtype, self._layout.stored, self._offset)


class TiffMappedPages(Volume):
    """Uncompressed pages, each in one piece, scattered over one file."""

    def __init__(self, path: Path, layout: Layout, pages: Pages, **rest: Any) -> None:
        super().__init__(path, layout, pages.dtype, chunks=(1, *layout.shape[2:]), **rest)
        self._page = pages.page
        self._starts = pages.offsets[:, 0].copy()

    def _open(self) -> Any:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _read(self, box: Box) -> Array:
        view = self._opened()
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
        page: Array = np.ndarray(self._page, self._stored_dtype, buffer=view, offset=start)
        return page[cut].reshape(shape)


class _Reader:
    """Descriptors of the files of a series, and tifffile's decoder for their blocks."""

    def __init__(self, pages: Pages) -> None:
        self.descriptors = [os.open(file, os.O_RDONLY) for file in pages.files]
        self._pages = pages
        self._decode: Callable[..., Any] | None = None

    def __del__(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def fetch(self, number: int, segment: int) -> bytes:
        """The stored bytes of a strip or tile; none for one that was never written."""
        pages = self._pages
        size, start = int(pages.counts[number, segment]), int(pages.offsets[number, segment])
        file = 0 if pages.file_of is None else int(pages.file_of[number])
        data = os.pread(self.descriptors[file], size, start)
        if len(data) < size:
            raise EOFError(f"page {number} is cut short")
        return data

    def decode(self, data: bytes, segment: int) -> Array:
        """Any strip or tile, as (depth, length, width, samples)."""
        if self._decode is None:
            from tifffile import TiffFile

            with TiffFile(self._pages.files[0]) as file:
                page = file.pages[self._pages.keyframe]
                tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
                self._decode = partial(page.decode, **tables)
        decoded: Array = self._decode(data, segment)[0]
        return decoded


class TiffBlocks(ChunkedVolume):
    """Pages in strips or tiles, compressed or not; only those that a box touches are decoded."""

    def __init__(self, path: Path, layout: Layout, pages: Pages, **rest: Any) -> None:
        self._lead = len(layout.stored) - len(pages.page)
        block = (*(1,) * self._lead, *pages.block)
        super().__init__(path, layout, pages.dtype, block=block, **rest)
        self._pages = pages
        coded = pages.predictor == _NO_PREDICTOR or (
            pages.predictor == _HORIZONTAL and pages.dtype.kind in "iu" and pages.dtype.isnative
        )
        self._simple = pages.regular and pages.compression in _DEFLATE and coded

    def _open(self) -> _Reader:
        return _Reader(self._pages)

    def _decode(self, index: Index, out: Array | None) -> Array:
        reader, pages = self._opened(), self._pages
        segment = _ravel(index[self._lead :], pages.grid)
        data = reader.fetch(_ravel(index[: self._lead], pages.shape[: self._lead]), segment)
        if not data:
            return np.zeros(self._inside(index), self.dtype)
        if self._simple:
            block = self._inflate(data, index, out)
            if block is not None:
                return block
        return self._shaped(reader.decode(data, segment))

    def _inflate(self, data: bytes, index: Index, out: Array | None) -> Array | None:
        """Inflate a block in place; None where it does not hold what it should."""
        from imagecodecs import DeflateError, deflate_decode, delta_decode

        pages = self._pages
        shape = self._block if pages.tiled else self._inside(index)
        target = (
            out if out is not None and out.shape == shape else np.empty(shape, self._pages.dtype)
        )
        flat: Any = target.reshape(-1).view(np.uint8)
        try:
            if len(deflate_decode(data, out=flat)) != len(flat):
                return None
        except DeflateError:
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


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open the first image series of a TIFF file."""
    if key is not None:
        raise SourceError(path, f"holds pages, not a dataset {key!r}", "leave out the key")
    with reading(path, "TIFF file"):
        pages = read_pages(path)
    own, unsaid = _depth_axis(pages.axes)
    letters = own if axes is None else fitting_axes(axes, pages.axes)
    notes = unsaid if axes is None else ()
    layout = Layout.of(path, letters, pages.shape)
    with reading(path, "TIFF file"):
        spacing, doubts = spacing_of(pages, flat=layout.ndim_spatial == 2)
    rest: dict[str, Any] = {"spacing": spacing, "notes": (*pages.notes, *notes, *doubts)}
    if pages.mappable:
        if _consecutive(pages):
            return TiffMapped(path, layout, pages, **rest)
        if len(pages.files) == 1:
            return TiffMappedPages(path, layout, pages, **rest)
    return TiffBlocks(path, layout, pages, **rest)


def spacing_of(pages: Pages, *, flat: bool) -> tuple[Spacing3 | None, tuple[str, ...]]:
    """What the headers say of the voxel size, and what is doubtful about it."""
    if pages.spacing is not None:
        return pages.spacing, ()
    return read_spacing(pages.description, pages.resolution, flat=flat)


def read_pages(path: Path) -> Pages:
    """Read and check the headers of a TIFF file: the first image series in it.

    Raises
    ------
    SourceError
        If pages are missing, differ, or lie beyond the end of the file.
    """
    pages = _pages_by_tifffile(path)
    _check_bytes(path, pages)
    return pages


def _pages_by_tifffile(path: Path) -> Pages:
    from tifffile import TiffFile

    with TiffFile(path) as file:
        series = file.series[0]
        keyframe = series.keyframe
        if series.dtype is None:
            raise SourceError(path, "holds voxels of an unknown type", "save integers or floats")
        dtype = np.dtype(file.byteorder + series.dtype.char)
        shape, axes = _without_ones(series.shape, series.axes, keep=len(keyframe.shape))
        if shape[len(shape) - len(keyframe.shape) :] != tuple(keyframe.shape):
            raise SourceError(
                path, f"pages of {keyframe.shape} do not make {shape}", "save it anew"
            )
        _check_planes(path, file, shape)
        files: tuple[Path, ...] = (path,)
        file_of = None
        start = series.dataoffset
        if start is not None:
            count = math.prod(shape[: len(shape) - len(keyframe.shape)])
            size = math.prod(keyframe.shape) * dtype.itemsize
            offsets = (start + size * np.arange(count, dtype=np.int64))[:, None]
            counts = np.full_like(offsets, size)
            block = tuple(keyframe.shape)
        else:
            frames = _frames(path, series, keyframe)
            offsets = np.array([frame.dataoffsets for frame in frames], np.int64)
            counts = np.array([frame.databytecounts for frame in frames], np.int64)
            files, file_of = _files(path, frames)
            block = (*(1,) * (len(keyframe.chunked) - len(keyframe.chunks)), *keyframe.chunks)
        return Pages(
            axes=axes,
            shape=shape,
            dtype=dtype,
            page=tuple(keyframe.shape),
            block=block,
            offsets=offsets,
            counts=counts,
            files=files,
            file_of=file_of,
            keyframe=keyframe.index,
            compression=int(keyframe.compression),
            predictor=int(keyframe.predictor),
            tiled=keyframe.is_tiled,
            interleaved=keyframe.planarconfig == 1 and keyframe.samplesperpixel > 1,
            regular=_regular(keyframe),
            description=file.ome_metadata or keyframe.description or file.pages[0].description,
            resolution=_resolution(keyframe),
            spacing=_lsm_spacing(file),
            notes=_doubts(file, series),
        )


def _without_ones(shape: Sequence[int], axes: str, keep: int) -> tuple[tuple[int, ...], str]:
    """Shape and axes without leading axes of length 1, but for Z and those of a page."""
    first = len(shape) - keep
    kept = [i for i, a in enumerate(axes) if i >= first or shape[i] > 1 or a == "Z"]
    return tuple(int(shape[i]) for i in kept), "".join(axes[i] for i in kept)


def _check_planes(path: Path, file: Any, shape: Sequence[int]) -> None:
    """Refuse an ImageJ file that holds fewer planes than it says (tifffile reads what is left)."""
    fields = file.imagej_metadata or {}
    told = math.prod(int(fields.get(name, 1)) for name in ("channels", "slices", "frames"))
    there = math.prod(shape) // math.prod(file.pages[0].shape[:2])
    if told > there:
        raise SourceError(
            path, f"is cut short: {there} of {told} planes are there", "copy or save it again"
        )


def _frames(path: Path, series: Any, keyframe: Any) -> list[Any]:
    """The pages of a series; refused where some are missing or coded otherwise."""
    frames = list(series)
    missing = [i for i, frame in enumerate(frames) if frame is None]
    if missing:
        raise SourceError(
            path,
            f"{len(missing)} of {len(frames)} pages are missing, the first is page {missing[0]}",
            "give the file whole, with the files beside it that it names",
        )
    if any(frame.keyframe.hash != keyframe.hash for frame in frames):
        raise SourceError(path, "its pages differ in size or coding", "save them as one stack")
    return frames


def _files(path: Path, frames: Sequence[Any]) -> tuple[tuple[Path, ...], Any]:
    """The files that the pages lie in, and for each page which one."""
    names = [frame.parent.filehandle.path for frame in frames]
    if len(set(names)) == 1 and Path(names[0]) == path.absolute():
        return (path,), None
    unique = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return tuple(map(Path, unique)), np.array([unique[name] for name in names], np.int64)


def _regular(keyframe: Any) -> bool:
    """Whether a decompressed block is its voxels, in the byte order of the file."""
    return (
        keyframe.bitspersample in (8, 16, 32, 64)
        and keyframe.sampleformat in (1, 2, 3)
        and keyframe.fillorder == 1
        and not keyframe.is_subsampled
    )


def _resolution(keyframe: Any) -> Resolution | None:
    if 282 not in keyframe.tags or 283 not in keyframe.tags:
        return None
    x, y = keyframe.resolution
    return Resolution(float(x), float(y), int(keyframe.resolutionunit))


def _lsm_spacing(file: Any) -> Spacing3 | None:
    """Zeiss LSM files give metres."""
    if not file.is_lsm:
        return None
    fields = file.lsm_metadata or {}
    z, y, x = (1e6 * float(fields.get(f"VoxelSize{a}", 0)) for a in "ZYX")
    return (z, y, x) if min(z, y, x) > 0 else None


def _doubts(file: Any, series: Any) -> tuple[str, ...]:
    notes = []
    if len(file.series) > 1:
        notes.append(f"holds {len(file.series)} images: the first is read")
    if file.is_ome and series.kind != "ome":
        notes.append("its OME metadata do not fit its pages: pages are read in their order")
    return tuple(notes)


def _depth_axis(axes: str) -> tuple[str, tuple[str, ...]]:
    """Read the one axis that a file does not name as depth, and say so."""
    unsaid = [a for a in axes if a in _UNSAID]
    if len(unsaid) != 1 or "Z" in axes:
        return axes, ()
    return axes.replace(unsaid[0], "Z"), (f"page axis {unsaid[0]} read as Z",)


def _check_bytes(path: Path, pages: Pages) -> None:
    """Refuse blocks that lie beyond their file, or could not hold what the header promises."""
    sizes = np.array([file.stat().st_size for file in pages.files], np.int64)
    size = sizes[0] if pages.file_of is None else sizes[pages.file_of][:, None]
    beyond = (pages.offsets + pages.counts > size) & (pages.counts > 0)
    if beyond.any() or (pages.offsets < 0).any() or (pages.counts < 0).any():
        page = int(np.argmax(beyond.any(axis=1)))
        raise SourceError(
            path,
            f"is cut short: page {page} of {len(pages.offsets)} lies beyond the end of the file",
            "copy or save it again",
        )
    most = pages.counts.sum(axis=1) * _MOST
    wanted = pages.page_bytes if pages.regular else 0
    if pages.compression in _BOUNDED and ((most > 0) & (most < wanted)).any():
        raise SourceError(
            path,
            f"a page of {wanted} bytes cannot come from {int(most.min()) // _MOST} bytes",
            "its header or its data are damaged; save it again",
        )


def _consecutive(pages: Pages) -> bool:
    """Whether all pages lie in one file, one right after the other."""
    starts = pages.offsets[:, 0]
    return len(pages.files) == 1 and bool((np.diff(starts) == pages.page_bytes).all())


def _ravel(index: Sequence[int], shape: Sequence[int]) -> int:
    flat = 0
    for i, n in zip(index, shape, strict=True):
        flat = flat * n + i
    return flat
