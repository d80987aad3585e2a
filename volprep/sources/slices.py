"""A folder of pictures, one for each section, in the order of the numbers in their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources import tiff
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume, reading
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.keys import refuse_key
from volprep.sources.names import SUFFIXES, slice_files
from volprep.sources.pictures import PictureHeader, decode_picture, picture_header
from volprep.sources.sniff import content_error
from volprep.sources.tiff.headers import read_pages, spacing_of

__all__ = ["open_source", "plane_header", "read_plane"]


class SliceStack(ChunkedVolume):
    """A folder of 2D files of one size and type; a file is decoded when a box touches it."""

    def __init__(
        self,
        path: Path,
        layout: Layout,
        files: Sequence[Path],
        header: PictureHeader,
        *,
        labels: bool,
        **rest: Any,
    ) -> None:
        block = (1, *layout.stored[1:])
        super().__init__(path, layout, header.dtype, block=block, **rest)
        self._files = [file.name for file in files]
        self._header, self._labels = header, labels

    def _decode(self, index: Index, out: Array | None) -> Array:
        file = self.path / self._files[index[0]]
        target = None if out is None else out[0]
        plane = read_plane(file, self._header, labels=self._labels, out=target)
        return out if out is not None and np.shares_memory(plane, out) else plane[None]


def read_plane(
    file: Path, header: PictureHeader, *, labels: bool, out: Array | None = None
) -> Array:
    """The pixels of one picture, which must be as its header said; decoded into `out` if it can."""
    if _is_tiff(file):
        return _tiff_plane(file, header)
    return decode_picture(file, header, labels=labels, out=out)


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open a folder of slices; the headers of all of them are read."""
    refuse_key(path, key, "slices")
    files = slice_files(path)
    if not files:
        raise SourceError(path, "holds no PNG, JPEG or TIFF slices", "give a file, or their folder")
    suffixes = sorted({file.suffix.lower() for file in files})
    if len({SUFFIXES[s] for s in suffixes}) > 1 or {".png"} < set(suffixes):
        raise SourceError(
            path, f"holds slices of several kinds ({', '.join(suffixes)})", "keep one kind in it"
        )
    header, spacing, notes = plane_header(files[0], labels=labels)
    for file in files[1:]:
        other = plane_header(file, labels=labels)[0]
        if (other.shape, other.dtype) != (header.shape, header.dtype):
            raise SourceError(
                file,
                f"is {_size(other)}, and {files[0].name} is {_size(header)}",
                "all slices of a stack must have one size and type",
            )
    layout = Layout.of(path, axes or "Z" + header.axes, (len(files), *header.shape))
    flat = layout.ndim_spatial == 2
    if spacing is not None and not flat:
        _, y, x = spacing
        part = f"only part of the spacing is stored: y {y:g} µm, x {x:g} µm"
        notes = (*notes, Note("unknown-spacing", part))
        spacing = None
    return SliceStack(path, layout, files, header, labels=labels, spacing=spacing, notes=notes)


def plane_header(
    file: Path, *, labels: bool
) -> tuple[PictureHeader, Spacing3 | None, tuple[Note, ...]]:
    """The header of one picture, and what it says of spacing.

    Raises
    ------
    SourceError
        If it cannot be read; a file that is something else is named as that.
    """
    try:
        return _header(file, labels=labels)
    except SourceError as error:
        raise content_error(file, SUFFIXES[file.suffix.lower()], error) from error


def _header(file: Path, *, labels: bool) -> tuple[PictureHeader, Spacing3 | None, tuple[Note, ...]]:
    """The header of one slice, and what it says of spacing."""
    if not _is_tiff(file):
        header = picture_header(file, labels=labels)
        return header, None, (*header.notes, Note("unknown-spacing", "no spacing stored"))
    with reading(file, "TIFF file"):
        pages = read_pages(file)
    planes = len(pages.offsets) if pages.page == pages.shape else 0
    if planes != 1 or len(pages.shape) - pages.interleaved != 2:
        raise SourceError(
            file,
            f"holds more than one plane ({'×'.join(map(str, pages.shape))})",
            "a folder of slices has one plane in each file; open multi-page files by themselves",
        )
    y, x = pages.shape[:2]
    samples = pages.shape[2] if pages.interleaved else 1
    spacing, notes = spacing_of(pages, flat=True)
    return PictureHeader(y, x, samples, pages.dtype.newbyteorder("=")), spacing, notes


def _tiff_plane(file: Path, header: PictureHeader) -> Array:
    with tiff.open_source(file, None, None, labels=False) as volume:
        plane = volume.read()[:, 0]
    pixels = plane[0] if header.samples == 1 else np.moveaxis(plane, 0, -1)
    if pixels.shape != header.shape or pixels.dtype != header.dtype:
        raise SourceError(file, f"is {pixels.shape} {pixels.dtype}", f"must be {_size(header)}")
    return pixels


def _is_tiff(file: Path) -> bool:
    return SUFFIXES[file.suffix.lower()] == "tiff"


def _size(header: PictureHeader) -> str:
    return f"{'×'.join(map(str, header.shape))} {header.dtype}"
