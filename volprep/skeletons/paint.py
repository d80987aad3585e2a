"""The skeleton mask: a disc at every point."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, whole
from volprep.kernels.discs import paint_discs
from volprep.skeletons.points import Skeletons
from volprep.skeletons.table import PointTable

if TYPE_CHECKING:
    import torch

__all__ = ["paint_block", "skeleton_to_mask"]


def skeleton_to_mask(
    skeletons: Mapping[int, Any],
    shape: Sequence[int],
    device: str | torch.device | None = None,
    radius: float = 7,
    flank_radius: float = 3,
    *,
    dtype: npt.DTypeLike = np.float32,
    slice_axis: int = -1,
) -> npt.NDArray[Any] | torch.Tensor:
    """Paint a disc at every skeleton point, and a smaller one on the slices beside it.

    Parameters
    ----------
    skeletons : Skeletons, or mapping of int to array or tensor of shape (N, 3)
        Points by instance id, in voxels, in the axis order of `shape`. They are
        rounded to the nearest voxel, halves up; discs are cut at the faces.
    shape : sequence of int
        (X, Y, Z) of the mask, or another order of the axes; see `slice_axis`.
    device : str or torch.device or None
        Where the mask goes, as a tensor. None is the device of the points; arrays
        give an array.
    radius : float
        Of the discs, in voxels: those whose centres lie at most so far are painted.
    flank_radius : float
        Of the discs on the slice before and after.
    dtype : dtype
        ``float32``, which a loss takes, ``uint8``, or any other kind of number.
    slice_axis : int
        The axis that counts slices: the last in SKOOTS' order, 0 for (Z, Y, X).

    Returns
    -------
    array or tensor, shape (1, X, Y, Z), `dtype`
        1 on the skeletons, 0 elsewhere.

    Raises
    ------
    ValueError
        If points are not (N, 3), or a radius is negative.

    Notes
    -----
    After SKOOTS' `skeleton_to_mask`. Differs: discs are centred on the point; SKOOTS'
    lie half a radius beside it.
    """
    place = _device_of(skeletons) if device is None else device
    mask = np.zeros(whole(shape), dtype)
    if mask.ndim != 3:
        raise ValueError(f"shape is {tuple(shape)}, wanted three axes")
    points = all_points(skeletons)
    paint_block(
        points, Box.whole(mask.shape), mask,
        radius=radius, flank_radius=flank_radius, slice_axis=slice_axis,
    )  # fmt: skip
    if place is None:
        return mask[None]
    import torch

    return torch.from_numpy(mask[None]).to(place)


def paint_block(
    points: npt.NDArray[np.float32],
    box: Box,
    out: npt.NDArray[Any],
    *,
    radius: float = 7,
    flank_radius: float = 3,
    slice_axis: int = 0,
) -> None:
    """Paint the discs that reach into one block of a volume.

    Parameters
    ----------
    points : array, shape (N, 3)
        Of any instances, in the volume's voxels.
    box : Box
        The block, in the axes of the points.
    out : array of the shape of `box`
        Painted with ones.
    radius, flank_radius, slice_axis
        As for `skeleton_to_mask`.
    """
    if min(radius, flank_radius) < 0:
        raise ValueError(f"radii are {radius} and {flank_radius}, wanted 0 or more")
    reach = math.floor(max(radius, flank_radius))
    offset = np.arange(-reach, reach + 1)
    square = np.array([radius, flank_radius], np.float64)[:, None] ** 2 - offset**2
    halves = np.where(square >= 0, np.floor(np.sqrt(np.maximum(square, 0))), -1).astype(np.int64)
    near = (points >= np.array(box.start) - reach - 2) & (points < np.array(box.stop) + reach + 2)
    centres = np.floor(points[near.all(axis=1)].astype(np.float64) + 0.5).astype(np.int64)
    axes = [slice_axis % 3, *(axis for axis in range(3) if axis != slice_axis % 3)]
    paint_discs((centres - box.start)[:, axes], halves, out.transpose(axes))


def all_points(skeletons: Mapping[int, Any]) -> npt.NDArray[np.float32]:
    """The points of all instances, (N, 3)."""
    if isinstance(skeletons, Skeletons):
        return skeletons.points
    return PointTable.of(skeletons).points.T


def _device_of(skeletons: Mapping[int, Any]) -> torch.device | None:
    loaded = sys.modules.get("torch")  # who has a tensor has imported it
    for points in () if isinstance(skeletons, Skeletons) else skeletons.values():
        if loaded is not None and isinstance(points, loaded.Tensor):
            device: torch.device = points.device
            return device
    return None
