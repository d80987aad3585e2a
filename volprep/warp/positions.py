"""The arithmetic of positions and boxes under `CoordinateMap`; arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box

__all__ = [
    "TOLERANCE",
    "Border",
    "Floats",
    "WarpingOOBError",
    "check_inside",
    "clipped",
    "divide",
    "homogeneous",
    "interpolate",
    "lookup",
    "mirrored",
    "nearest_section",
    "solve",
]

Border = Literal["raise", "fill", "reflect"]
Floats = npt.NDArray[np.float64]

# A coordinate this far beyond the last voxel is rounding, not out of bounds.
TOLERANCE = 1e-5


class WarpingOOBError(ValueError):
    """A map reaches outside the source; raised before any data is read."""


def check_inside(box: Box, whole: Box) -> None:
    """Refuse a box that reaches outside `whole`.

    Raises
    ------
    WarpingOOBError
        With both boxes.
    """
    if not whole.contains(box):
        raise WarpingOOBError(
            f"the warp reads {box.start} to {box.stop} (Z, Y, X) and the source holds "
            f"{whole.start} to {whole.stop}; draw another warp, or set border='fill' or 'reflect'"
        )


def clipped(box: Box, limit: Sequence[int]) -> Box:
    """The part of a box in a source of shape `limit`, or its nearest voxel where there is none."""
    inside = box.clip(limit)
    start = [min(a, n - 1) for a, n in zip(inside.start, limit, strict=True)]
    return Box.at(start, [max(n, 1) for n in inside.shape])


def mirrored(box: Box, limit: Sequence[int]) -> Box:
    """The voxels of a source of shape `limit` that a mirrored reading of `box` comes from."""
    start, stop = [], []
    for low, high, n in zip(box.start, box.stop, limit, strict=True):
        a, b = max(low, 0), min(high, n)
        if low < 0:
            a, b = 0, max(b, min(n, 1 - low))
        if high > n:
            a, b = min(a, max(0, 2 * n - 1 - high)), n
        start.append(a)
        stop.append(b)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def homogeneous(matrix: Floats, points: Floats) -> Floats:
    return points @ matrix[:, :3].T + matrix[:, 3]


def divide(homogeneous: Floats, lock_z: bool) -> Floats:
    moved: Floats = homogeneous[:, :3] / homogeneous[:, 3:]
    if lock_z:
        moved[:, 0] = homogeneous[:, 0]
    return moved


def nearest_section(z: Floats, depth: int) -> npt.NDArray[np.int64]:
    section = np.minimum(np.maximum(np.floor(z + 0.5), 0), depth - 1)
    return section.astype(np.int64)


def lookup(values: Floats, known: Floats, result: Floats) -> Floats:
    """Linear between the known values (ascending), one for one beyond them."""
    inside = np.minimum(np.maximum(values, known[0]), known[-1])
    forward = -1.0 if result[-1] < result[0] else 1.0
    found: Floats = np.interp(inside, known, result) + forward * (values - inside)
    return found


def interpolate(
    grid: npt.NDArray[np.float32], spacing: Sequence[float], points: Floats
) -> tuple[Floats, Floats]:
    """A control grid (3, gz, gy, gx) at points (N, 3), and its derivative (N, 3, 3)."""
    last = np.array(grid.shape[1:]) - 1
    position = points / np.asarray(spacing)
    inside = (position >= 0) & (position <= last)
    position = np.clip(position, 0, last)
    low = np.minimum(np.floor(position).astype(int), np.maximum(last - 1, 0))
    high = np.minimum(low + 1, last)
    knots = np.moveaxis(grid, 0, -1).astype(np.float64)
    z, y, x = (np.stack([low[:, axis], high[:, axis]]) for axis in range(3))
    corners = knots[z[:, None, None], y[None, :, None], x[None, None]]
    tz, ty, tx = ((position - low)[:, axis, None] for axis in range(3))
    along_x = corners[:, :, 1] - corners[:, :, 0]
    rows = corners[:, :, 0] + along_x * tx
    along_y = rows[:, 1] - rows[:, 0]
    planes = rows[:, 0] + along_y * ty
    along_z = planes[1] - planes[0]
    along_x = along_x[:, 0] + (along_x[:, 1] - along_x[:, 0]) * ty
    slope = np.stack(
        [
            along_z,
            along_y[0] + (along_y[1] - along_y[0]) * tz,
            along_x[0] + (along_x[1] - along_x[0]) * tz,
        ],
        -1,
    )
    return planes[0] + along_z * tz, slope * (inside / np.asarray(spacing))[:, None]


def solve(slope: Floats, residual: Floats) -> Floats:
    """One step of Newton's iteration for each point; the shortest one where the map is flat."""
    try:
        step = np.linalg.solve(slope, residual[..., None])
    except np.linalg.LinAlgError:
        step = np.linalg.pinv(slope) @ residual[..., None]
    return np.asarray(step[..., 0], np.float64)
