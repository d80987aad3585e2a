"""TIFF: plain, ImageJ, OME, BigTIFF; mapped where the file allows it, else block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.sources.array import FileVolume
from volprep.sources.axes import Layout, fitting_axes
from volprep.sources.base import Volume, reading
from volprep.sources.tiff.headers import read_pages, spacing_of
from volprep.sources.tiff.pages import Pages
from volprep.sources.tiff.volumes import TiffBlocks, TiffMappedPages

__all__ = ["open_source", "read_pages", "spacing_of"]

_UNSAID = "QI"  # tifffile's letters for an axis that the file does not name


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open the first image series of a TIFF file."""
    if key is not None:
        raise SourceError(path, f"holds pages, not a dataset {key!r}", "leave out the key")
    with reading(path, "TIFF file"):
        pages = read_pages(path)
    if axes is None:
        letters, notes = _depth_axis(path, pages)
    else:
        letters, notes = fitting_axes(axes, pages.axes), ()
    layout = Layout.of(path, letters, pages.shape)
    with reading(path, "TIFF file"):
        spacing, doubts = spacing_of(pages, flat=layout.ndim_spatial == 2)
    rest: dict[str, Any] = {"spacing": spacing, "notes": (*pages.notes, *notes, *doubts)}
    if pages.mappable:
        if pages.consecutive:
            rest |= {"offset": int(pages.offsets[0, 0]), "chunks": (1, *layout.shape[2:])}
            return FileVolume(path, layout, pages.dtype, **rest)
        if len(pages.files) == 1:
            return TiffMappedPages(path, layout, pages, **rest)
    return TiffBlocks(path, layout, pages, **rest)


def _depth_axis(path: Path, pages: Pages) -> tuple[str, tuple[Note, ...]]:
    """The axes of a file; the one axis that it does not name is read as depth, and noted."""
    unsaid = [a for a in pages.axes if a in _UNSAID]
    if len(unsaid) > 1:
        raise SourceError(
            path,
            f"has shape {'×'.join(map(str, pages.shape))} and does not name its axes",
            "say which they are, such as `axes: CZYX` or `axes: ZCYX`",
        )
    if not unsaid or "Z" in pages.axes:
        return pages.axes, ()
    note = Note("axis-guessed", f"page axis {unsaid[0]} read as Z")
    return pages.axes.replace(unsaid[0], "Z"), (note,)
