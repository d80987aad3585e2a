"""TIFF: plain, ImageJ, OME, BigTIFF; mapped where the file allows it, else block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.sources.array import FileVolume
from volprep.sources.axes import Layout, fitting_axes
from volprep.sources.base import Volume, reading
from volprep.sources.keys import refuse_key
from volprep.sources.tiff.headers import placement_of, read_pages, spacing_of
from volprep.sources.tiff.pages import Pages
from volprep.sources.tiff.volumes import TiffBlocks, TiffMappedPages
from volprep.sources.tiff.voxelsize import imagej_fields
from volprep.sources.wrapped import SignedVolume

__all__ = ["open_source", "read_pages", "spacing_of"]

_SHIFTED = Note("value-offset", "ImageJ's calibration says that values are stored shifted")
_MOST_CHANNELS = 4  # more of them, and no depth, are rather slices
_UNSAID = "QI"  # tifffile's letters for an axis that the file does not name


def open_source(
    path: Path,
    key: str | None,
    axes: str | None,
    *,
    labels: bool,
    allow_external: bool | None = None,
) -> Volume:
    """Open the image of a TIFF file: its first series, or the stack that its pages are."""
    refuse_key(path, key, "pages")
    with reading(path, "TIFF file"):
        pages = read_pages(path, allow_external)
    if axes is None:
        letters, notes = _depth_axis(path, pages)
    else:
        letters, notes = fitting_axes(axes, pages.axes), ()
    layout = Layout.of(path, letters, pages.shape)
    with reading(path, "TIFF file"):
        spacing, doubts = spacing_of(pages, flat=layout.ndim_spatial == 2)
        placement = placement_of(pages, spacing)
    rest: dict[str, Any] = {
        "spacing": spacing, "placement": placement, "notes": (*pages.notes, *notes, *doubts),
    }  # fmt: skip
    volume = _volume(path, layout, pages, rest)
    return SignedVolume(volume, _SHIFTED) if _is_shifted(pages) else volume


def _volume(path: Path, layout: Layout, pages: Pages, rest: dict[str, Any]) -> Volume:
    """Mapped where pages lie as they are, else in blocks."""
    if pages.mappable:
        if pages.consecutive:
            rest |= {"offset": int(pages.offsets[0, 0]), "chunks": (1, *layout.shape[2:])}
            return FileVolume(path, layout, pages.dtype, **rest)
        if len(pages.files) == 1:
            return TiffMappedPages(path, layout, pages, **rest)
    return TiffBlocks(path, layout, pages, **rest)


def _is_shifted(pages: Pages) -> bool:
    """Whether ImageJ's calibration is that of signed numbers: the value less half the range."""
    fields = imagej_fields(pages.description) or {}
    if pages.dtype.kind != "u" or pages.dtype.itemsize > 2 or fields.get("cf") not in (None, "0"):
        return False
    try:
        first, slope = float(fields["c0"]), float(fields["c1"])
    except (KeyError, ValueError):
        return False
    return slope == 1 and first == -(2 ** (8 * pages.dtype.itemsize - 1))


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
        return pages.axes, _many_channels(pages)
    note = Note("axis-guessed", f"page axis {unsaid[0]} read as Z")
    return pages.axes.replace(unsaid[0], "Z"), (note,)


def _many_channels(pages: Pages) -> tuple[Note, ...]:
    """A stack that was written without axes: ImageJ's form then calls its slices channels."""
    count = pages.shape[pages.axes.index("C")] if "C" in pages.axes else 1
    if count <= _MOST_CHANNELS or "Z" in pages.axes or imagej_fields(pages.description) is None:
        return ()
    return (Note("channels-or-slices", f"its {count} planes are read as channels, and no depth"),)
