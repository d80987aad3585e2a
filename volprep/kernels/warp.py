"""Reading sections through a coordinate map: a table of positions first, then the gathers.

A table says for every voxel of a band of output rows where the lowest of its
neighbours lies in the flattened source, how far it is from there to the next
one along each axis, and which neighbour is the nearest. The axes are (Y, X)
where output sections come from source sections, and (Z, Y, X) elsewhere.
Positions are float32 counted from a voxel near the patch, exact to some 1e-5
voxel in a source of any size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["CLAMP", "FILL", "REFLECT", "linear_plane", "linear_volume", "nearest", "table"]

Array = npt.NDArray[Any]

CLAMP, FILL, REFLECT = 0, 1, 2

# No reordering of sums: a + (b - a) * t would not give b at t = 1, and copies must be exact.
_FAST = {"contract", "nsz", "arcp"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def table(
    matrix: Array,
    first_divided: int,
    field: Array,
    lookup: Array,
    bounds: Array,
    strides: Array,
    border: int,
    index: Array,
    near: Array,
    fraction: Array,
    outside: Array,
) -> int:
    """Fill the table of a band of rows; the number of voxels that lie outside.

    Parameters
    ----------
    matrix : float64, shape (A + 1, 3)
        Takes (row, column, 1) to A positions and the divisor.
    first_divided : int
        The axis from which on positions are divided; A for none.
    field : float32, shape (A, gy, gx)
        Control points to add, or no rows at all.
    lookup : float64, shape (2, 3)
        Takes (row, column, 1) to a position among the control points.
    bounds : float64, shape (2, A)
        First and last voxel of the source, in the frame of `matrix`.
    strides : int64, shape (A,)
        Of the flattened source, in voxels.
    border : int
        CLAMP, FILL or REFLECT.
    index, near : uint32, shape (H, W)
    fraction : float32, shape (A, H, W)
    outside : bool, shape (H, W)
        Written for FILL alone.
    """
    axes, height, width = fraction.shape
    at = np.empty((axes, width), np.float32)
    knots = np.empty((axes, max(field.shape[2], 1)), np.float32)
    count = 0
    for j in range(height):
        for axis in range(axes):
            _line(matrix[axis], j, at[axis])
        if first_divided < axes:
            _divide(matrix[axes], j, at[first_divided:])
        if field.shape[1] > 0:
            if lookup[0, 1] == 0:
                _displace_row(field, lookup, j, knots, at)
            else:
                _displace(field, lookup, j, at)
        if border == FILL:
            count += _mark(at, bounds, outside[j])
        _find(at, bounds, strides, border, index[j], near[j], fraction[:, j])
    return count


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _line(row: Array, j: int, at: Array) -> None:
    start, step = np.float32(row[0] * j + row[2]), np.float32(row[1])
    for i in range(at.size):
        at[i] = start + step * np.float32(i)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _divide(row: Array, j: int, at: Array) -> None:
    start, step = np.float32(row[0] * j + row[2]), np.float32(row[1])
    for i in range(at.shape[1]):
        inverse = np.float32(1) / (start + step * np.float32(i))
        for axis in range(at.shape[0]):
            at[axis, i] *= inverse


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _displace_row(field: Array, lookup: Array, j: int, knots: Array, at: Array) -> None:
    """Where the row runs along a row of control points: join the two nearest rows first."""
    axes, rows, columns = field.shape
    v = min(max(lookup[0, 0] * j + lookup[0, 2], 0.0), rows - 1.0)
    low = min(int(v), max(rows - 2, 0))
    high = min(low + 1, rows - 1)
    ty = np.float32(v - low)
    for axis in range(axes):
        for k in range(columns):
            knots[axis, k] = field[axis, low, k] + (field[axis, high, k] - field[axis, low, k]) * ty
    start = np.float32(lookup[1, 0] * j + lookup[1, 2])
    step = np.float32(lookup[1, 1])
    last, top = np.float32(columns - 1), np.int32(max(columns - 2, 0))
    ahead = np.int32(min(1, columns - 1))
    for axis in range(axes):
        line, knot = at[axis], knots[axis]
        for i in range(line.size):
            u = min(max(start + step * np.float32(i), np.float32(0)), last)
            left = min(np.int32(u), top)
            line[i] += knot[left] + (knot[left + ahead] - knot[left]) * (u - np.float32(left))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _displace(field: Array, lookup: Array, j: int, at: Array) -> None:
    axes, rows, columns = field.shape
    for i in range(at.shape[1]):
        v = min(max(lookup[0, 0] * j + lookup[0, 1] * i + lookup[0, 2], 0.0), rows - 1.0)
        u = min(max(lookup[1, 0] * j + lookup[1, 1] * i + lookup[1, 2], 0.0), columns - 1.0)
        y, x = min(int(v), max(rows - 2, 0)), min(int(u), max(columns - 2, 0))
        y1, x1 = min(y + 1, rows - 1), min(x + 1, columns - 1)
        ty, tx = np.float32(v - y), np.float32(u - x)
        for axis in range(axes):
            knot = field[axis]
            upper = knot[y, x] + (knot[y, x1] - knot[y, x]) * tx
            lower = knot[y1, x] + (knot[y1, x1] - knot[y1, x]) * tx
            at[axis, i] += upper + (lower - upper) * ty


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _mark(at: Array, bounds: Array, outside: Array) -> int:
    outside[:] = False
    for axis in range(at.shape[0]):
        low, high = np.float32(bounds[0, axis] - 0.5), np.float32(bounds[1, axis] + 0.5)
        for i in range(outside.size):
            outside[i] |= (at[axis, i] < low) | (at[axis, i] >= high)
    count = 0
    for i in range(outside.size):
        count += outside[i]
    return count


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _find(
    at: Array,
    bounds: Array,
    strides: Array,
    border: int,
    index: Array,
    near: Array,
    fraction: Array,
) -> None:
    index[:] = 0
    near[:] = 0
    for axis in range(at.shape[0]):
        line, part = at[axis], fraction[axis]
        low, high = np.float32(bounds[0, axis]), np.float32(bounds[1, axis])
        if border == REFLECT and high > low:
            _reflect(line, low, high)
        top = max(high - np.float32(1), low)
        stride = np.int32(strides[axis])
        first = np.int32(bounds[0, axis])
        for i in range(line.size):
            position = min(max(line[i], low), high)
            floor = min(np.floor(position), top)
            part[i] = position - floor
            below = np.int32(floor) - first
            index[i] += np.uint32(below * stride)
            nearer = below + np.int32(part[i] >= np.float32(0.5))
            near[i] += np.uint32(nearer * stride)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _reflect(line: Array, low: float, high: float) -> None:
    """Mirror what is beyond; what is inside stays as it is, to the last bit."""
    width = high - low
    for i in range(line.size):
        position = line[i]
        position = low + low - position if position < low else position
        position = high + high - position if position > high else position
        if position < low:
            t = abs(line[i] - low)
            t -= np.floor(t / (width + width)) * (width + width)
            position = low + (width - abs(t - width))
        line[i] = position


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def linear_plane(
    image: Array,
    planes: Array,
    depth: Array,
    steps: Array,
    index: Array,
    fraction: Array,
    sections: Array,
    start: int,
    out: Array,
) -> None:
    """Interpolate bands of sections that share a table.

    Parameters
    ----------
    image : shape (Z, Y * X)
    planes : int64, shape (2, S)
        The source sections below and above.
    depth : float32, shape (S,)
        How far from the lower to the upper one.
    steps : int64, shape (2,)
        To the next neighbour along (Y, X): the strides, 0 on an axis of one voxel.
    index : uint32, shape (N,)
    fraction : float32, shape (2, N)
    sections : int64, shape (S,)
        Where in `out`.
    start : int
        The first voxel in each section of `out`.
    out : float32, shape (D, H * W)
    """
    x, y = np.uint32(steps[1]), np.uint32(steps[0])
    yx = y + x
    one = np.float32(1)
    for s in range(sections.size):
        line = out[sections[s], start : start + index.size]
        f = image[planes[0, s]]
        tz = depth[s]
        for i in range(index.size):
            p, ty, tx = index[i], fraction[0, i], fraction[1, i]
            upper = np.float32(f[p]) * (one - tx) + np.float32(f[p + x]) * tx
            lower = np.float32(f[p + y]) * (one - tx) + np.float32(f[p + yx]) * tx
            line[i] = upper * (one - ty) + lower * ty
        if tz > 0:
            g = image[planes[1, s]]
            for i in range(index.size):
                p, ty, tx = index[i], fraction[0, i], fraction[1, i]
                upper = np.float32(g[p]) * (one - tx) + np.float32(g[p + x]) * tx
                lower = np.float32(g[p + y]) * (one - tx) + np.float32(g[p + yx]) * tx
                line[i] = line[i] * (one - tz) + (upper * (one - ty) + lower * ty) * tz


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def linear_volume(image: Array, steps: Array, index: Array, fraction: Array, out: Array) -> None:
    """Interpolate a band of one section from a flattened volume.

    Parameters
    ----------
    image : shape (Z * Y * X,)
    steps : int64, shape (3,)
        To the next neighbour along (Z, Y, X): the strides, 0 on an axis of one voxel.
    index : uint32, shape (N,)
    fraction : float32, shape (3, N)
    out : float32, shape (N,)
    """
    z, y, x = np.uint32(steps[0]), np.uint32(steps[1]), np.uint32(steps[2])
    yx, zx, zy, zyx = y + x, z + x, z + y, z + y + x
    one = np.float32(1)
    for i in range(index.size):
        p, tz, ty, tx = index[i], fraction[0, i], fraction[1, i], fraction[2, i]
        ux, uy = one - tx, one - ty
        a = np.float32(image[p]) * ux + np.float32(image[p + x]) * tx
        b = np.float32(image[p + y]) * ux + np.float32(image[p + yx]) * tx
        c = np.float32(image[p + z]) * ux + np.float32(image[p + zx]) * tx
        d = np.float32(image[p + zy]) * ux + np.float32(image[p + zyx]) * tx
        out[i] = (a * uy + b * ty) * (one - tz) + (c * uy + d * ty) * tz


@njit(cache=True, nogil=True)
def nearest(
    label: Array, planes: Array, near: Array, sections: Array, start: int, out: Array
) -> None:
    """Copy the nearest voxels of bands of sections that share a table.

    Parameters
    ----------
    label : unsigned integers, shape (Z, M)
    planes : int64, shape (S,)
        Which row of `label` each section reads.
    near : uint32, shape (N,)
    sections : int64, shape (S,)
        Where in `out`.
    start : int
        The first voxel in each section of `out`.
    out : as label, shape (D, H * W)
    """
    for s in range(sections.size):
        line = out[sections[s], start : start + near.size]
        f = label[planes[s]]
        for i in range(near.size):
            line[i] = f[near[i]]
