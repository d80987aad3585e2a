"""Reading an output tile through a coordinate map: a table of positions first, then the gathers.

A table says for every voxel of a tile where the lowest of its neighbours lies in
the flattened source, how far it is from there to the next one along each axis,
and which neighbour is the nearest. The axes are (Y, X) where output sections come
from source sections, and (Z, Y, X) elsewhere. Positions are float32 counted from
a voxel near the patch, exact to some 1e-5 voxel in a source of any size.

A turned tile meets the lines of the cache in an order that no prefetcher
foresees, so each gather first touches the box that it will read, row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "CLAMP",
    "FILL",
    "REFLECT",
    "linear_plane",
    "linear_volume",
    "nearest_plane",
    "nearest_volume",
    "table",
]

Array = npt.NDArray[Any]

CLAMP, FILL, REFLECT = 0, 1, 2

# Nothing that rounds otherwise (no fused multiply-add, no other order of sums): copies must be
# exact, and a sample the same bits whether its code was compiled here or came from the cache.
_FAST = {"nsz"}

# Touching more voxels than this for each one that is wanted costs more than it brings.
_WORTH_TOUCHING = 12


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def table(
    matrices: Array,
    first_divided: int,
    fields: Array,
    lookups: Array,
    bounds: Array,
    strides: Array,
    border: int,
    first_row: int,
    first_column: int,
    height: int,
    index: Array,
    near: Array,
    fraction: Array,
    outside: Array,
    reach: Array,
) -> int:
    """Fill the table of a tile of S sections of `height` rows; how many voxels lie outside.

    Parameters
    ----------
    matrices : float64, shape (S, A + 1, 3)
        Take (row, column, 1) to A positions and the divisor. No position
        inside the source may be negative.
    first_divided : int
        The axis from which on positions are divided; A for none.
    fields : float32, shape (S, A, gy, gx)
        Control points to add, or no rows at all.
    lookups : float64, shape (S, 2, 3)
        Take (row, column, 1) to a position among the control points.
    bounds : int64, shape (2, A)
        First and last voxel of the source, in the frame of `matrices`.
    strides : int64, shape (A,)
        Of the flattened source, in voxels.
    border : int
        CLAMP, FILL or REFLECT.
    first_row, first_column, height : int
        Where the tile begins in its sections, and how many rows it has.
    index, near : uint32, shape (S * H * W,)
    fraction : float32, shape (A, S * H * W)
    outside : bool, shape (S * H * W,)
        Written for FILL alone.
    reach : int64, shape (A, 2)
        First and last voxel of the source among the neighbours.
    """
    sections, axes = len(matrices), len(fraction)
    voxels = index.size // sections
    width = voxels // height
    corner = np.array([first_row, first_column], np.int64)
    left, part = np.zeros(width, np.int64), np.zeros(width, np.float32)
    wide = np.zeros((2, width), np.float32)
    for s in range(sections):
        lookup = lookups[s]
        straight = lookup[0, 1] == 0 and lookup[1, 0] == 0
        if fields.shape[2] > 0 and straight:
            _columns(lookup[1], first_column, fields.shape[3], left, part)
        for axis in range(axes):
            at = fraction[axis, s * voxels : (s + 1) * voxels].reshape(height, width)
            _lines(matrices[s, axis], corner, at)
            if axis >= first_divided:
                _divide(matrices[s, axes], corner, at)
            if fields.shape[2] > 0 and straight:
                _displace_rows(fields[s, axis], lookup[0], first_row, left, part, wide, at)
            elif fields.shape[2] > 0:
                _displace(fields[s, axis], lookup, corner, at)
    count = _mark(fraction, bounds, outside) if border == FILL else 0
    origin = np.uint32(-np.sum(bounds[0] * strides))
    index[:] = origin
    near[:] = origin
    for axis in range(axes):
        first, last = bounds[0, axis], bounds[1, axis]
        if border == REFLECT and last > first:
            _reflect(fraction[axis], first, last)
        low, high = _find(fraction[axis], first, last, strides[axis], index, near)
        reach[axis, 0] = low - first
        reach[axis, 1] = min(high + 1, last) - first
    return count


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _lines(matrix: Array, corner: Array, out: Array) -> None:
    step = np.float32(matrix[1])
    for j in range(out.shape[0]):
        start = matrix[0] * (corner[0] + j) + matrix[1] * corner[1] + matrix[2]
        first = np.float32(start)
        for i in range(out.shape[1]):
            out[j, i] = first + step * np.float32(i)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _divide(matrix: Array, corner: Array, out: Array) -> None:
    step = np.float32(matrix[1])
    for j in range(out.shape[0]):
        start = matrix[0] * (corner[0] + j) + matrix[1] * corner[1] + matrix[2]
        first = np.float32(start)
        for i in range(out.shape[1]):
            out[j, i] /= first + step * np.float32(i)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _columns(lookup: Array, first: int, points: int, left: Array, part: Array) -> None:
    """Between which control points each column of a tile lies."""
    for i in range(left.size):
        u = min(max(lookup[1] * (first + i) + lookup[2], 0.0), points - 1.0)
        left[i] = min(int(u), max(points - 2, 0))
        part[i] = u - left[i]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _displace_rows(
    field: Array, lookup: Array, first: int, left: Array, part: Array, wide: Array, out: Array
) -> None:
    """Where rows run along the control points: two rows of those are made wide, then joined."""
    last, ahead = len(field) - 1, min(1, field.shape[1] - 1)
    held = -1
    for j in range(out.shape[0]):
        v = min(max(lookup[0] * (first + j) + lookup[2], 0.0), float(last))
        y = min(int(v), max(last - 1, 0))
        if y != held:
            held = y
            for row in range(2):
                below = min(y + row, last)
                for i in range(left.size):
                    near = field[below, left[i]]
                    wide[row, i] = near + (field[below, left[i] + ahead] - near) * part[i]
        t = np.float32(v - y)
        for i in range(out.shape[1]):
            out[j, i] += wide[0, i] + (wide[1, i] - wide[0, i]) * t


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _displace(field: Array, lookup: Array, corner: Array, out: Array) -> None:
    rows, columns = field.shape
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            y, x = corner[0] + j, corner[1] + i
            v = lookup[0, 0] * y + lookup[0, 1] * x + lookup[0, 2]
            u = lookup[1, 0] * y + lookup[1, 1] * x + lookup[1, 2]
            v, u = min(max(v, 0.0), rows - 1.0), min(max(u, 0.0), columns - 1.0)
            top, left = min(int(v), max(rows - 2, 0)), min(int(u), max(columns - 2, 0))
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            ty, tx = np.float32(v - top), np.float32(u - left)
            upper = field[top, left] + (field[top, right] - field[top, left]) * tx
            lower = field[bottom, left] + (field[bottom, right] - field[bottom, left]) * tx
            out[j, i] += upper + (lower - upper) * ty


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
def _find(
    at: Array, first: int, last: int, stride: int, index: Array, near: Array
) -> tuple[int, int]:
    """Clamp positions along one axis, add what they are to the indices, leave the fraction.

    As no position inside is negative, cutting the decimals off is rounding
    down. Returns the lowest and the highest voxel below a position.
    """
    low, high, half = np.float32(max(first, 0)), np.float32(last), np.float32(0.5)
    top = np.int32(max(last - 1, first))
    pitch = np.uint32(stride)
    lowest, highest = top, np.int32(first)
    for i in range(at.size):
        position = at[i]
        position = low if position < low else position
        position = high if position > high else position
        floor = np.int32(position)
        floor = top if floor > top else floor
        lowest = floor if floor < lowest else lowest
        highest = floor if floor > highest else highest
        at[i] = position - np.float32(floor)
        index[i] = np.uint32(index[i] + np.uint32(np.uint32(floor) * pitch))
        closest = np.uint32(np.int32(position + half))
        near[i] = np.uint32(near[i] + np.uint32(closest * pitch))
    return int(lowest), int(highest)


@njit(cache=True, nogil=True)
def _touch(plane: Array, rows: Array, columns: Array, pitch: int, wanted: int) -> int:
    """Read one voxel of every cache line of a box of a flattened plane.

    Returns a number that means nothing, so that no compiler drops the reading.
    """
    total = 0
    if (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1) <= _WORTH_TOUCHING * wanted:
        line = 64 // plane.itemsize
        for y in range(rows[0], rows[1] + 1):
            start, stop = y * pitch + columns[0], y * pitch + columns[1]
            for i in range(np.uint64(start), np.uint64(stop), np.uint64(line)):
                total += int(plane[i])
            total += int(plane[np.uint64(stop)])
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def linear_plane(
    image: Array,
    planes: Array,
    depth: Array,
    steps: Array,
    reach: Array,
    index: Array,
    fraction: Array,
    sections: Array,
    start: int,
    out: Array,
) -> int:
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
    reach : int64, shape (2, 2)
    index : uint32, shape (N,)
    fraction : float32, shape (2, N)
    sections : int64, shape (S,)
        Where in `out`.
    start : int
        The first voxel in each section of `out`.
    out : float32, shape (D, H * W)

    Returns
    -------
    int
        Without meaning.
    """
    x, y = np.uint32(steps[1]), np.uint32(steps[0])
    yx = y + x
    one = np.float32(1)
    touched = 0
    for s in range(sections.size):
        line = out[sections[s], start : start + index.size]
        f = image[planes[0, s]]
        tz = depth[s]
        touched += _touch(f, reach[0], reach[1], steps[0], index.size)
        for i in range(index.size):
            p, ty, tx = index[i], fraction[0, i], fraction[1, i]
            ux, uy = one - tx, one - ty
            upper = np.float32(f[p]) * ux + np.float32(f[p + x]) * tx
            lower = np.float32(f[p + y]) * ux + np.float32(f[p + yx]) * tx
            line[i] = upper * uy + lower * ty
        if tz > 0:
            g = image[planes[1, s]]
            touched += _touch(g, reach[0], reach[1], steps[0], index.size)
            for i in range(index.size):
                p, ty, tx = index[i], fraction[0, i], fraction[1, i]
                ux, uy = one - tx, one - ty
                upper = np.float32(g[p]) * ux + np.float32(g[p + x]) * tx
                lower = np.float32(g[p + y]) * ux + np.float32(g[p + yx]) * tx
                line[i] = line[i] * (one - tz) + (upper * uy + lower * ty) * tz
    return touched


@njit(cache=True, nogil=True)
def nearest_plane(
    label: Array,
    planes: Array,
    pitch: int,
    reach: Array,
    near: Array,
    sections: Array,
    start: int,
    out: Array,
) -> int:
    """Copy the nearest voxels of bands of sections that share a table.

    Parameters
    ----------
    label : unsigned integers, shape (Z, Y * X)
    planes : int64, shape (S,)
        Which source section each section reads.
    pitch : int
        Voxels in a row of the source.
    reach : int64, shape (2, 2)
    near : uint32, shape (N,)
    sections : int64, shape (S,)
        Where in `out`.
    start : int
        The first voxel in each section of `out`.
    out : as label, shape (D, H * W)

    Returns
    -------
    int
        Without meaning.
    """
    touched = 0
    for s in range(sections.size):
        line = out[sections[s], start : start + near.size]
        f = label[planes[s]]
        touched += _touch(f, reach[0], reach[1], pitch, near.size)
        for i in range(near.size):
            line[i] = f[near[i]]
    return touched


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def linear_volume(
    image: Array,
    strides: Array,
    steps: Array,
    reach: Array,
    index: Array,
    fraction: Array,
    out: Array,
) -> int:
    """Interpolate a tile from a flattened volume.

    Parameters
    ----------
    image : shape (Z * Y * X,)
    strides, steps : int64, shape (3,)
        Along (Z, Y, X); the steps to the next neighbour are 0 on an axis of one voxel.
    reach : int64, shape (3, 2)
    index : uint32, shape (N,)
    fraction : float32, shape (3, N)
    out : float32, shape (D, H, W)
        The tile; its rows may lie anywhere.

    Returns
    -------
    int
        Without meaning.
    """
    z, y, x = np.uint32(steps[0]), np.uint32(steps[1]), np.uint32(steps[2])
    yx, zx, zy, zyx = y + x, z + x, z + y, z + y + x
    one = np.float32(1)
    touched: int = _touch_volume(image, strides, reach, index.size)
    depth, height, width = out.shape
    first = 0
    for k in range(depth):
        for j in range(height):
            line = out[k, j]
            for i in range(width):
                n = first + i
                p, tz, ty, tx = index[n], fraction[0, n], fraction[1, n], fraction[2, n]
                ux, uy = one - tx, one - ty
                a = np.float32(image[p]) * ux + np.float32(image[p + x]) * tx
                b = np.float32(image[p + y]) * ux + np.float32(image[p + yx]) * tx
                c = np.float32(image[p + z]) * ux + np.float32(image[p + zx]) * tx
                d = np.float32(image[p + zy]) * ux + np.float32(image[p + zyx]) * tx
                line[i] = (a * uy + b * ty) * (one - tz) + (c * uy + d * ty) * tz
            first += width
    return touched


@njit(cache=True, nogil=True)
def nearest_volume(label: Array, strides: Array, reach: Array, near: Array, out: Array) -> int:
    """Copy the nearest voxels of a tile from a flattened volume; arguments as `linear_volume`."""
    touched: int = _touch_volume(label, strides, reach, near.size)
    depth, height, width = out.shape
    first = 0
    for k in range(depth):
        for j in range(height):
            line = out[k, j]
            for i in range(width):
                line[i] = label[near[first + i]]
            first += width
    return touched


@njit(cache=True, nogil=True)
def _touch_volume(volume: Array, strides: Array, reach: Array, wanted: int) -> int:
    sections = reach[0, 1] - reach[0, 0] + 1
    total = 0
    for z in range(reach[0, 0], reach[0, 1] + 1):
        plane = volume[z * strides[0] :]
        total += _touch(plane, reach[1], reach[2], strides[1], wanted // sections)
    return total
