"""Regions of two patches a side, one for each cell of a grid of patches.

A region is all that patches which start in its cell can show.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, VolumeLike

__all__ = ["Floats", "Measure", "Patch", "image_map", "region_values", "spread_regions"]

Patch = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Measure = Callable[[Patch], Sequence[float]]


def region_values(
    volume: VolumeLike,
    patch_size: Sequence[int],
    measure: Measure,
    *,
    grid: Sequence[int] | None = None,
    box: Box | None = None,
    channel: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Floats:
    """Measure every region of a volume: the numbers to choose a filter's thresholds from.

    Parameters
    ----------
    volume : VolumeLike
    patch_size : sequence of int
        (Z, Y, X), or (Y, X) for one plane.
    measure : callable
        Of a region as (Z, Y, X), such as `PatchFilter.values`; gives a sequence of float.
    grid : sequence of int or None
        Cells along each axis; None is that of `StratifiedPatching`,
        ``(size + 1) // patch``.
    box : Box or None
        The part of the volume to look at; None is all of it.
    channel : int
    progress : callable or None
        Told how many regions were looked at.

    Returns
    -------
    array of float64
        (values, then one region for each cell along (Z)YX).

    Notes
    -----
    Two patches' rows and planes are read at a time, whole along x: most voxels are
    read four times, and memory is that of one row of regions.
    """
    box = box or Box.whole(volume.shape)
    sizes = box.shape[-len(patch_size) :]
    counts = grid or [(n + 1) // p for n, p in zip(sizes, patch_size, strict=True)]
    flat = (1,) * (3 - len(counts))
    patch = (*flat, *patch_size)
    # Where patches are one voxel thick the grid has a cell after the last voxel: look at that.
    starts = [
        [min(cell * p, n - 1) for cell in range(count)]
        for count, p, n in zip((*flat, *counts), patch, box.shape, strict=True)
    ]
    values: list[Sequence[float]] = []
    for z, y in itertools.product(*starts[:2]):
        size = (2 * patch[0], 2 * patch[1], box.shape[2])
        rows = volume.read(Box.at((z, y, 0), size).clip(box.shape).shift(box.start))[channel]
        values += [measure(rows[..., x : x + 2 * patch[2]]) for x in starts[2]]
        if progress is not None:
            progress(len(starts[2]))
    return np.array(values, np.float64).T.reshape(-1, *counts)


def spread_regions(
    values: Floats, patch_size: Sequence[int], at: Sequence[npt.ArrayLike]
) -> Floats:
    """Give each voxel the largest value of the regions that hold it.

    Parameters
    ----------
    values : array
        One for each cell along (Z)YX; other axes come first.
    patch_size : sequence of int
        (Z)YX.
    at : sequence of array of int
        The voxels to look at, as indices along each axis, of which the result is the grid.

    Returns
    -------
    array of float64
        The leading axes of `values`, then as long as `at` on each axis.
    """
    lead = values.ndim - len(patch_size)
    result = np.asarray(values, np.float64)
    for axis, (patch, voxels) in enumerate(zip(patch_size, at, strict=True), start=lead):
        # A voxel lies in the region of its own cell and in that of the one before.
        cell, last = np.asarray(voxels, np.int64) // patch, result.shape[axis] - 1
        before, own = np.clip(cell - 1, 0, last), np.clip(cell, 0, last)
        result = np.maximum(result.take(before, axis=axis), result.take(own, axis=axis))
    return result


def image_map(image: Patch, patch_size: Sequence[int], measure: Measure) -> Floats:
    """At each voxel of an image (Z)YX the largest value of the regions that hold it.

    Returns
    -------
    array of float64
        Of the image's shape; several values come first.

    Raises
    ------
    ValueError
        If `patch_size` has not as many sizes as the image has axes.
    """
    if len(patch_size) != image.ndim:
        raise ValueError(f"patch_size {patch_size}: the image has {image.ndim} axes")
    values = region_values(_Image(image), patch_size, measure)
    spread = spread_regions(values, patch_size, [np.arange(n) for n in image.shape])
    return spread if len(spread) > 1 else spread.reshape(image.shape)


@dataclass(frozen=True)
class _Image:
    """An array as a volume."""

    voxels: Patch
    spacing: None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        z, y, x = (1,) * (3 - self.voxels.ndim) + self.voxels.shape
        return 1, z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.voxels.dtype

    def read(self, box: Box | None = None) -> Patch:
        whole = self.voxels.reshape(self.shape)
        return whole if box is None else whole[(slice(None), *box.slices)]
