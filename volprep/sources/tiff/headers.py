"""The headers of a TIFF file, checked against the file.

The common kinds (plain, tifffile's own, ImageJ, OME in one file; pages alike, no
pyramid) are read from the directories directly; everything else as tifffile sees it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources.placement import Placement
from volprep.sources.tiff.bytifffile import pages_by_tifffile
from volprep.sources.tiff.direct import direct_pages
from volprep.sources.tiff.directories import Directories
from volprep.sources.tiff.pages import DEFLATE, PLAIN, Pages, check_planes
from volprep.sources.tiff.voxelsize import read_placement, read_spacing

__all__ = ["placement_of", "read_pages", "spacing_of"]

_BOUNDED = (PLAIN, 5, *DEFLATE, 32773)  # none, LZW, deflate, PackBits
_MOST = 1500  # times that these can shrink a block


def read_pages(path: Path, allow_external: bool | None = None) -> Pages:
    """Read and check the headers of a TIFF file: the first image series in it.

    Raises
    ------
    SourceError
        If pages are missing, differ, or lie beyond the end of the file.
    """
    with path.open("rb") as file:
        pages = _read(path, Directories(path, file.fileno()), allow_external)
    _check_bytes(path, pages)
    return pages


def _read(path: Path, directories: Directories, allow_external: bool | None) -> Pages:
    if len(directories) > 1 or directories.first(259) not in ((), (PLAIN,)):
        samples = max(directories.first(277), default=1)
        check_planes(path, directories.text(270), len(directories) * samples)
    return direct_pages(path, directories) or pages_by_tifffile(path, allow_external)


def placement_of(pages: Pages, spacing: Spacing3 | None) -> Placement | None:
    """Where the headers say that the voxels lie; None where they do not."""
    return read_placement(pages.description, spacing)


def spacing_of(pages: Pages, *, flat: bool) -> tuple[Spacing3 | None, tuple[Note, ...]]:
    """What the headers say of the voxel size, and what is doubtful about it."""
    if pages.spacing is not None:
        return pages.spacing, ()
    return read_spacing(pages.description, pages.resolution, flat=flat)


def _check_bytes(path: Path, pages: Pages) -> None:
    """Refuse blocks that lie beyond their file, or could not hold what the header promises."""
    sizes = np.array([file.stat().st_size for file in pages.files], np.int64)
    size = sizes[0] if pages.file_of is None else sizes[pages.file_of][:, None]
    beyond = (pages.offsets + pages.counts > size) & (pages.counts > 0)
    if beyond.any() or (pages.offsets < 0).any() or (pages.counts < 0).any():
        page = int(np.argmax(beyond.any(axis=1)))
        raise SourceError(
            path,
            f"is cut short: page {page} of {len(pages.offsets)} lies beyond its end",
            "copy or save it again",
        )
    held = pages.counts.sum(axis=1)
    wanted = pages.page_bytes if pages.regular else 0
    if pages.compression in _BOUNDED and ((held > 0) & (held < wanted // _MOST)).any():
        raise SourceError(
            path,
            f"a page of {wanted} bytes cannot come from the {int(held.min())} bytes stored",
            "its header or its data are damaged; save it again",
        )
