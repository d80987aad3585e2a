"""Where the voxels of a TIFF file lie, and what its headers call them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources.tiff.voxelsize import Resolution, imagej_fields

__all__ = ["DEFLATE", "NO_PREDICTOR", "PLAIN", "Pages", "check_planes"]

PLAIN, DEFLATE = 1, (8, 32946)
NO_PREDICTOR = 1


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
    notes: tuple[Note, ...]

    @property
    def page_bytes(self) -> int:
        """Of one decoded page."""
        return math.prod(self.page) * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks a page has along each of its axes."""
        return tuple(-(-n // b) for n, b in zip(self.page, self.block, strict=True))

    @property
    def mappable(self) -> bool:
        """Whether each page lies in its file as it is, in one piece."""
        if not self.regular or (self.compression, self.predictor) != (PLAIN, NO_PREDICTOR):
            return False
        if self.tiled and self.block[-1 - self.interleaved] != self.page[-1 - self.interleaved]:
            return False
        joined = self.offsets[:, :-1] + self.counts[:, :-1] == self.offsets[:, 1:]
        return bool(joined.all() and (self.counts.sum(axis=1) == self.page_bytes).all())

    @property
    def consecutive(self) -> bool:
        """Whether all pages lie in one file, one right after the other."""
        steps = np.diff(self.offsets[:, 0])
        return len(self.files) == 1 and bool((steps == self.page_bytes).all())


def check_planes(path: Path, description: str, there: int) -> None:
    """Refuse an ImageJ file that holds fewer planes than it says (tifffile reads what is left)."""
    fields = imagej_fields(description) or {}
    told = math.prod(
        int(fields[name])
        for name in ("channels", "slices", "frames")
        if fields.get(name, "").isdecimal()
    )
    if told > there:
        raise SourceError(
            path, f"is cut short: {there} of {told} planes are there", "copy or save it again"
        )
