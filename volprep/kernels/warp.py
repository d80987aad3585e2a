"""Reading an output through a coordinate map, tile by tile: a table of positions, then the gathers.

A table says for every voxel of a tile where the lowest of its neighbours lies in
the flattened source, how far it is from there to the next one along each axis,
and which neighbour is the nearest. The axes are (Y, X) where output sections come
from source sections, and (Z, Y, X) elsewhere. Positions are float32 counted from
a voxel near the patch, exact to some 1e-5 voxel in a source of any size.

A turned tile meets the lines of the cache in an order that no prefetcher
foresees, so each gather first touches the box that it will read, row by row.

All the tiles of a thread are one call, so that threads do not wait for each other at the
interpreter's lock between tiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "CLAMP",
    "FILL",
    "REFLECT",
    "Layers",
    "Positions",
    "Sections",
    "read_planes",
    "read_volume",
]

Array = npt.NDArray[Any]

CLAMP, FILL, REFLECT = 0, 1, 2

# Nothing that rounds otherwise (no fused multiply-add, no other order of sums): copies must be
# exact, and a sample the same bits whether its code was compiled here or came from the cache.
_FAST = {"nsz"}


class Positions(NamedTuple):
    """How positions in the source follow from positions in the output, along A axes.

    Fields
    ------
    matrices : float64, shape (S, A + 1, 3)
        Take (row, column, 1) of S sections to A positions and the divisor. No position
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
    steps : int64, shape (A,)
        To the next neighbour: the strides, 0 on an axis of one voxel.
    border : int
        CLAMP, FILL or REFLECT.
    """

    matrices: Array
    first_divided: int
    fields: Array
    lookups: Array
    bounds: Array
    strides: Array
    steps: Array
    border: int


class Sections(NamedTuple):
    """Which source sections D output sections come from.

    Fields
    ------
    members : int64, shape (D,)
        Output sections, those that share a matrix side by side.
    about : int64, shape (3, D)
        The source sections below, above and nearest to each output section.
    depth : float32, shape (D,)
        How far from the lower to the upper one.
    lost : bool, shape (D,)
        Sections that are filled.
    """

    members: Array
    about: Array
    depth: Array
    lost: Array


class Layers(NamedTuple):
    """What is read together; there may be no channel of either.

    Fields
    ------
    image : shape (C, Z, Y, X); image_out : float32, shape (C, D, H, W)
    label : unsigned integers, shape (L, Z, Y, X); label_out : alike, shape (L, D, H, W)
        All C-contiguous.
    image_fill, label_fill : of the dtypes of the outputs
    """

    image: Array
    image_out: Array
    image_fill: float
    label: Array
    label_out: Array
    label_fill: Any


# Touching more voxels than this for each one that is wanted costs more than it brings.
_WORTH_TOUCHING = 12


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _table(
    positions: Positions,
    first: int,
    last: int,
    corner: Array,
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
    positions : Positions
    first, last : int
        The matrices of the tile's sections.
    corner : int64, shape (2,)
        First row and column of the tile in its sections.
    height : int
        How many rows it has.
    index, near : uint32, shape (S * H * W,)
    fraction : float32, shape (A, S * H * W)
    outside : bool, shape (S * H * W,)
        Written for FILL alone.
    reach : int64, shape (A, 3)
        First and last voxel of the source among the neighbours, and the step to the
        next neighbour.
    """
    bounds, border, strides = positions.bounds, positions.border, positions.strides
    sections, axes = last - first, len(fraction)
    voxels = index.size // sections
    width = voxels // height
    left, part = np.zeros(width, np.int64), np.zeros(width, np.float32)
    wide = np.zeros((2, width), np.float32)
    for s in range(sections):
        lookup, field = positions.lookups[first + s], positions.fields[first + s]
        matrix = positions.matrices[first + s]
        straight = lookup[0, 1] == 0 and lookup[1, 0] == 0
        if field.shape[1] > 0 and straight:
            _columns(lookup[1], corner[1], field.shape[2], left, part)
        for axis in range(axes):
            at = fraction[axis, s * voxels : (s + 1) * voxels].reshape(height, width)
            _lines(matrix[axis], corner, at)
            if axis >= positions.first_divided:
                _divide(matrix[axes], corner, at)
            if field.shape[1] > 0 and straight:
                _displace_rows(field[axis], lookup[0], corner[0], left, part, wide, at)
            elif field.shape[1] > 0:
                _displace(field[axis], lookup, corner, at)
    count = _mark(fraction, bounds, outside) if border == FILL else 0
    origin = np.uint32(-np.sum(bounds[0] * strides))
    index[:] = origin
    near[:] = origin
    for axis in range(axes):
        start, stop = bounds[0, axis], bounds[1, axis]
        if border == REFLECT and stop > start:
            _reflect(fraction[axis], start, stop)
        low, high, step = _find(fraction[axis], start, stop, strides[axis], index, near)
        reach[axis, 0] = low - start
        reach[axis, 1] = min(high + step, stop) - start
        reach[axis, 2] = step * positions.steps[axis]
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
) -> tuple[int, int, int]:
    """Clamp positions along one axis, add what they are to the indices, leave the fraction.

    As no position inside is negative, cutting the decimals off is rounding down, and
    a position half way between two voxels is nearest to the higher one. Returns the
    lowest and the highest voxel below a position, and 0 where all positions are whole
    numbers, so that no neighbour takes part: nan and inf times 0 are nan, and must not
    spread to the voxels beside those that are copied.
    """
    low, high, half = np.float32(max(first, 0)), np.float32(last), np.float32(0.5)
    whole = _are_whole(at, low, high)
    top = np.int32(last if whole else max(last - 1, first))
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
    return int(lowest), int(highest), 0 if whole else 1


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _are_whole(at: Array, low: float, high: float) -> bool:
    """Whether all positions, once clamped, are whole numbers; mostly the first one tells."""
    for i in range(at.size):
        position = at[i]
        position = low if position < low else position
        position = high if position > high else position
        if position != np.float32(np.int32(position)):
            return False
    return True


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
def _linear_plane(
    near: Array,
    far: Array,
    depth: float,
    pitch: int,
    reach: Array,
    index: Array,
    fraction: Array,
    line: Array,
) -> int:
    """Interpolate within a flattened section, and towards the next one if `depth` is above 0."""
    x, y = np.uint32(reach[1, 2]), np.uint32(reach[0, 2])
    yx = y + x
    one, tz = np.float32(1), np.float32(depth)
    touched: int = _touch(near, reach[0], reach[1], pitch, index.size)
    for i in range(index.size):
        p, ty, tx = index[i], fraction[0, i], fraction[1, i]
        ux, uy = one - tx, one - ty
        upper = np.float32(near[p]) * ux + np.float32(near[p + x]) * tx
        lower = np.float32(near[p + y]) * ux + np.float32(near[p + yx]) * tx
        line[i] = upper * uy + lower * ty
    if tz > 0:
        touched += _touch(far, reach[0], reach[1], pitch, index.size)
        for i in range(index.size):
            p, ty, tx = index[i], fraction[0, i], fraction[1, i]
            ux, uy = one - tx, one - ty
            upper = np.float32(far[p]) * ux + np.float32(far[p + x]) * tx
            lower = np.float32(far[p + y]) * ux + np.float32(far[p + yx]) * tx
            line[i] = line[i] * (one - tz) + (upper * uy + lower * ty) * tz
    return touched


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _linear_pair(
    first: Array,
    second: Array,
    pitch: int,
    reach: Array,
    index: Array,
    fraction: Array,
    line: Array,
    other: Array,
) -> int:
    """Interpolate within two flattened sections, so that the table is read once for both."""
    x, y = np.uint32(reach[1, 2]), np.uint32(reach[0, 2])
    one = np.float32(1)
    touched: int = _touch(first, reach[0], reach[1], pitch, index.size)
    touched += _touch(second, reach[0], reach[1], pitch, index.size)
    for i in range(index.size):
        p, ty, tx = index[i], fraction[0, i], fraction[1, i]
        px, py, pyx = p + x, p + y, p + y + x
        ux, uy = one - tx, one - ty
        upper = np.float32(first[p]) * ux + np.float32(first[px]) * tx
        lower = np.float32(first[py]) * ux + np.float32(first[pyx]) * tx
        upper_other = np.float32(second[p]) * ux + np.float32(second[px]) * tx
        lower_other = np.float32(second[py]) * ux + np.float32(second[pyx]) * tx
        line[i] = upper * uy + lower * ty
        other[i] = upper_other * uy + lower_other * ty
    return touched


@njit(cache=True, nogil=True)
def _nearest_plane(plane: Array, pitch: int, reach: Array, near: Array, line: Array) -> int:
    touched: int = _touch(plane, reach[0], reach[1], pitch, near.size)
    for i in range(near.size):
        line[i] = plane[near[i]]
    return touched


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def _linear_volume(
    image: Array,
    strides: Array,
    reach: Array,
    index: Array,
    fraction: Array,
    out: Array,
) -> int:
    """Interpolate a tile, whose rows may lie anywhere, from a flattened volume."""
    z, y, x = np.uint32(reach[0, 2]), np.uint32(reach[1, 2]), np.uint32(reach[2, 2])
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
def _nearest_volume(label: Array, strides: Array, reach: Array, near: Array, out: Array) -> int:
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


@njit(cache=True, nogil=True)
def _fill_outside(line: Array, outside: Array, fill: float) -> None:
    for i in range(line.size):
        if outside[i]:
            line[i] = fill


@njit(cache=True, nogil=True)
def read_planes(tiles: Array, positions: Positions, sections: Sections, layers: Layers) -> int:
    """Read tiles whose sections come from source sections; tables have the axes (Y, X).

    Parameters
    ----------
    tiles : int64, shape (T, 7)
        Which matrix; from where to where in the members of `sections`; first and last
        but one row; first and last but one column, which are all of them.
    positions : Positions
        One matrix, field and lookup for sections that move alike.
    sections : Sections
    layers : Layers

    Returns
    -------
    int
        Without meaning.
    """
    image, image_out, image_fill = layers.image, layers.image_out, layers.image_fill
    label, label_out, label_fill = layers.label, layers.label_out, layers.label_fill
    members, about = sections.members, sections.about
    depth, lost = sections.depth, sections.lost
    index, near, fraction, outside, reach = _room(tiles, len(positions.strides), False)
    corner, pitch = np.empty(2, np.int64), positions.strides[0]
    touched = 0
    for t in range(len(tiles)):
        m, a, b, y0, y1, x0, x1 = tiles[t]
        start, stop = y0 * (x1 - x0), y1 * (x1 - x0)
        n = stop - start
        at = fraction[: len(positions.strides) * n].reshape(len(positions.strides), n)
        corner[0], corner[1] = y0, x0
        count = _table(
            positions, m, m + 1, corner, y1 - y0, index[:n], near[:n], at, outside[:n], reach
        )
        copied = reach[0, 2] == 0 and reach[1, 2] == 0
        for c in range(len(image)):
            k = a
            while k < b:
                section, follower = members[k], members[min(k + 1, b - 1)]
                line = image_out[c, section].reshape(-1)[start:stop]
                below = image[c, about[0, section]].reshape(-1)
                k += 1
                if lost[section]:
                    line[:] = image_fill
                    continue
                single = follower == section or lost[follower]
                if copied and depth[section] == 0:
                    touched += _nearest_plane(below, pitch, reach, near[:n], line)
                elif single or depth[section] > 0 or depth[follower] > 0:
                    above = image[c, about[1, section]].reshape(-1)
                    touched += _linear_plane(
                        below, above, depth[section], pitch, reach, index[:n], at, line
                    )
                else:
                    k += 1
                    other = image_out[c, follower].reshape(-1)[start:stop]
                    touched += _linear_pair(
                        below, image[c, about[0, follower]].reshape(-1), pitch, reach,
                        index[:n], at, line, other,
                    )  # fmt: skip
                    if count:
                        _fill_outside(other, outside, image_fill)
                if count:
                    _fill_outside(line, outside, image_fill)
        for c in range(len(label)):
            for section in members[a:b]:
                line_ids = label_out[c, section].reshape(-1)[start:stop]
                if lost[section]:
                    line_ids[:] = label_fill
                    continue
                ids = label[c, about[2, section]].reshape(-1)
                touched += _nearest_plane(ids, pitch, reach, near[:n], line_ids)
                if count:
                    _fill_outside(line_ids, outside, label_fill)
    return touched


@njit(cache=True, nogil=True)
def read_volume(tiles: Array, positions: Positions, layers: Layers) -> int:
    """Read tiles whose voxels come from anywhere; tables have the axes (Z, Y, X).

    Parameters
    ----------
    tiles : int64, shape (T, 7)
        As in `read_planes`, but the sections themselves, each with its own matrix.
    positions, layers
        As in `read_planes`, with one more axis.
    """
    image, image_out, image_fill = layers.image, layers.image_out, layers.image_fill
    label, label_out, label_fill = layers.label, layers.label_out, layers.label_fill
    strides = positions.strides
    index, near, fraction, outside, reach = _room(tiles, len(strides), True)
    corner = np.empty(2, np.int64)
    touched = 0
    for t in range(len(tiles)):
        _, a, b, y0, y1, x0, x1 = tiles[t]
        n = (b - a) * (y1 - y0) * (x1 - x0)
        at = fraction[: len(strides) * n].reshape(len(strides), n)
        corner[0], corner[1] = y0, x0
        count = _table(
            positions, a, b, corner, y1 - y0, index[:n], near[:n], at, outside[:n], reach
        )
        for c in range(len(image)):
            target = image_out[c, a:b, y0:y1, x0:x1]
            voxels = image[c].reshape(-1)
            if reach[0, 2] == 0 and reach[1, 2] == 0 and reach[2, 2] == 0:
                touched += _nearest_volume(voxels, strides, reach, near[:n], target)
            else:
                touched += _linear_volume(voxels, strides, reach, index[:n], at, target)
            if count:
                _fill_tile(target, outside, image_fill)
        for c in range(len(label)):
            target_ids = label_out[c, a:b, y0:y1, x0:x1]
            ids = label[c].reshape(-1)
            touched += _nearest_volume(ids, strides, reach, near[:n], target_ids)
            if count:
                _fill_tile(target_ids, outside, label_fill)
    return touched


@njit(cache=True, nogil=True)
def _fill_tile(target: Array, outside: Array, fill: float) -> None:
    depth, height, width = target.shape
    for k in range(depth):
        for j in range(height):
            first = (k * height + j) * width
            _fill_outside(target[k, j], outside[first : first + width], fill)


@njit(cache=True, nogil=True)
def _room(tiles: Array, axes: int, deep: bool) -> tuple[Array, Array, Array, Array, Array]:
    """Tables for the largest tile."""
    voxels = 0
    for t in range(len(tiles)):
        _, a, b, y0, y1, x0, x1 = tiles[t]
        voxels = max(voxels, ((b - a) if deep else 1) * (y1 - y0) * (x1 - x0))
    return (
        np.empty(voxels, np.uint32),
        np.empty(voxels, np.uint32),
        np.empty(axes * voxels, np.float32),
        np.empty(voxels, np.bool_),
        np.empty((axes, 3), np.int64),
    )
