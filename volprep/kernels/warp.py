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
    height: int,
    index: Array,
    near: Array,
    fraction: Array,
    outside: Array,
) -> int:
    """Fill the table of a band of `height` rows; the number of voxels that lie outside.

    Parameters
    ----------
    matrix : float64, shape (A + 1, 3)
        Takes (row, column, 1) to A positions and the divisor. No position
        inside the source may be negative.
    first_divided : int
        The axis from which on positions are divided; A for none.
    field : float32, shape (A, gy, gx)
        Control points to add, or no rows at all.
    lookup : float64, shape (2, 3)
        Takes (row, column, 1) to a position among the control points.
    bounds : int64, shape (2, A)
        First and last voxel of the source, in the frame of `matrix`.
    strides : int64, shape (A,)
        Of the flattened source, in voxels.
    border : int
        CLAMP, FILL or REFLECT.
    index, near : uint32, shape (H * W,)
    fraction : float32, shape (A, H * W)
    outside : bool, shape (H * W,)
        Written for FILL alone.
    """
    axes, width = len(fraction), index.size // height
    straight = lookup[0, 1] == 0 and lookup[1, 0] == 0
    wide = np.zeros((axes, field.shape[1], width if straight else 0), np.float32)
    for axis in range(axes):
        for y in range(wide.shape[1]):
            _interpolate(field[axis, y], lookup[1], wide[axis, y])
    for j in range(height):
        start, stop = j * width, (j + 1) * width
        for axis in range(axes):
            at = fraction[axis, start:stop]
            _line(matrix[axis], j, at)
            if axis >= first_divided:
                _divide(matrix[axes], j, at)
            if field.shape[1] > 0 and straight:
                _displace_row(wide[axis], lookup[0], j, at)
            elif field.shape[1] > 0:
                _displace(field[axis], lookup, j, at)
    count = _mark(fraction, bounds, outside) if border == FILL else 0
    origin = np.uint32(-np.sum(bounds[0] * strides))
    index[:] = origin
    near[:] = origin
    for axis in range(axes):
        first, last = bounds[0, axis], bounds[1, axis]
        if border == REFLECT and last > first:
            _reflect(fraction[axis], first, last)
        _find(fraction[axis], first, last, strides[axis], index, near)
    return count


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _line(matrix: Array, j: int, at: Array) -> None:
    start, step = np.float32(matrix[0] * j + matrix[2]), np.float32(matrix[1])
    for i in range(at.size):
        at[i] = start + step * np.float32(i)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _divide(matrix: Array, j: int, at: Array) -> None:
    start, step = np.float32(matrix[0] * j + matrix[2]), np.float32(matrix[1])
    for i in range(at.size):
        at[i] /= start + step * np.float32(i)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _interpolate(knots: Array, lookup: Array, out: Array) -> None:
    """Widen a row of control points to one value a column."""
    last = knots.size - 1
    for i in range(out.size):
        u = min(max(lookup[1] * i + lookup[2], 0.0), float(last))
        x = min(int(u), max(last - 1, 0))
        x1 = min(x + 1, last)
        out[i] = knots[x] + (knots[x1] - knots[x]) * np.float32(u - x)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _displace_row(wide: Array, lookup: Array, j: int, at: Array) -> None:
    """Where rows run along the control points: between two rows that are wide already."""
    last = len(wide) - 1
    v = min(max(lookup[0] * j + lookup[2], 0.0), float(last))
    y = min(int(v), max(last - 1, 0))
    upper, lower, t = wide[y], wide[min(y + 1, last)], np.float32(v - y)
    for i in range(at.size):
        at[i] += upper[i] + (lower[i] - upper[i]) * t


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _displace(field: Array, lookup: Array, j: int, at: Array) -> None:
    rows, columns = field.shape
    for i in range(at.size):
        v = min(max(lookup[0, 0] * j + lookup[0, 1] * i + lookup[0, 2], 0.0), rows - 1.0)
        u = min(max(lookup[1, 0] * j + lookup[1, 1] * i + lookup[1, 2], 0.0), columns - 1.0)
        y, x = min(int(v), max(rows - 2, 0)), min(int(u), max(columns - 2, 0))
        y1, x1 = min(y + 1, rows - 1), min(x + 1, columns - 1)
        ty, tx = np.float32(v - y), np.float32(u - x)
        upper = field[y, x] + (field[y, x1] - field[y, x]) * tx
        lower = field[y1, x] + (field[y1, x1] - field[y1, x]) * tx
        at[i] += upper + (lower - upper) * ty


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _mark(at: Array, bounds: Array, outside: Array) -> int:
    outside[:] = False
    for axis in range(len(at)):
        line = at[axis]
        low, high = np.float32(bounds[0, axis] - 0.5), np.float32(bounds[1, axis] + 0.5)
        for i in range(outside.size):
            outside[i] |= (line[i] < low) | (line[i] >= high)
    count = 0
    for i in range(outside.size):
        count += outside[i]
    return count


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _reflect(at: Array, first: int, last: int) -> None:
    """Mirror what is beyond; what is inside stays as it is, to the last bit."""
    low, high = np.float32(first), np.float32(last)
    width = high - low
    for i in range(at.size):
        position = at[i]
        position = low + low - position if position < low else position
        position = high + high - position if position > high else position
        if position < low:
            t = abs(at[i] - low)
            t -= np.floor(t / (width + width)) * (width + width)
            position = low + (width - abs(t - width))
        at[i] = position


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _find(at: Array, first: int, last: int, stride: int, index: Array, near: Array) -> None:
    """Clamp positions along one axis, add what they are to the indices, leave the fraction.

    As no position inside is negative, cutting the decimals off is rounding down.
    """
    low, high, half = np.float32(max(first, 0)), np.float32(last), np.float32(0.5)
    top = np.int32(max(last - 1, first))
    pitch = np.uint32(stride)
    for i in range(at.size):
        position = at[i]
        position = low if position < low else position
        position = high if position > high else position
        floor = np.int32(position)
        floor = top if floor > top else floor
        at[i] = position - np.float32(floor)
        index[i] = np.uint32(index[i] + np.uint32(np.uint32(floor) * pitch))
        closest = np.uint32(np.int32(position + half))
        near[i] = np.uint32(near[i] + np.uint32(closest * pitch))


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
