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

from volprep.kernels.compiling import kernel, part

__all__ = [
    "CLAMP",
    "FILL",
    "REFLECT",
    "Layers",
    "Positions",
    "Room",
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
    image : float32, shape (C, Z, Y * X); image_out : float32, shape (C, D, H * W)
    label : unsigned integers, shape (L, Z, Y * X); label_out : alike, shape (L, D, H * W)
        All C-contiguous. For `read_volume` the sections of a source lie one after the other,
        as one: shape (C, 1, Z * Y * X).
    image_fill, label_fill : of the dtypes of the outputs
    image_bytes, label_bytes : uint8
        The same memory, the last axis as many times longer as a voxel has bytes.
    width : int
        W.
    """

    image: Array
    image_out: Array
    image_fill: float
    label: Array
    label_out: Array
    label_fill: Any
    image_bytes: Array
    label_bytes: Array
    width: int


class Room(NamedTuple):
    """Memory to work in, for the N voxels of the largest tile, of rows of W.

    What numba allocates, slices or reshapes within a kernel costs a tenth of a second of
    compiling each time, so tables are handed in whole and indexed.

    Fields
    ------
    lowest, near : uint32, shape (N,)
        Where the lowest and the nearest of a voxel's neighbours lie.
    fraction : float32, shape (3, N)
        A position, then its decimals.
    outside : bool, shape (N,)
        Written for FILL alone.
    reach : int64, shape (3, 3)
        Of each axis: first and last voxel of the source among the neighbours, and the step to
        the next neighbour.
    left : int64, shape (W,)
        The control point before each column.
    wide : float32, shape (3, W)
        Two rows of control points made as wide as the tile, and how far a column is from its
        control point.
    """

    lowest: Array
    near: Array
    fraction: Array
    outside: Array
    reach: Array
    left: Array
    wide: Array


# Touching more voxels than this for each one that is wanted costs more than it brings.
_WORTH_TOUCHING = 12


@part(error_model="numpy", fastmath=_FAST)
def _table(
    positions: Positions, first: int, last: int, y: int, x: int, height: int, width: int, room: Room
) -> int:
    """Fill the table of a tile; how many of its voxels lie outside.

    Parameters
    ----------
    positions : Positions
    first, last : int
        The matrices of the tile's sections.
    y, x : int
        First row and column of the tile in its sections.
    height, width : int
    room : Room
    """
    bounds, border, strides = positions.bounds, positions.border, positions.strides
    matrices, lookups, fields = positions.matrices, positions.lookups, positions.fields
    axes, rows, columns = strides.size, fields.shape[2], fields.shape[3]
    voxels = height * width
    for s in range(first, last):
        base = (s - first) * voxels
        straight = lookups[s, 0, 1] == 0 and lookups[s, 1, 0] == 0
        if rows > 0 and straight:
            _columns(lookups, s, x, columns, width, room.left, room.wide)
        for axis in range(axes):
            _lines(matrices, s, axis, y, x, height, width, room.fraction, base)
            if axis >= positions.first_divided:
                _divide(matrices, s, axes, axis, y, x, height, width, room.fraction, base)
            if rows > 0 and straight:
                _displace_rows(
                    fields, lookups, s, axis, y, height, width, room.left, room.wide,
                    room.fraction, base,
                )  # fmt: skip
            elif rows > 0:
                _displace(fields, lookups, s, axis, y, x, height, width, room.fraction, base)
    voxels *= last - first
    count = _mark(room.fraction, axes, voxels, bounds, room.outside) if border == FILL else 0
    start = 0
    for axis in range(axes):
        start -= bounds[0, axis] * strides[axis]
    origin = np.uint32(start)
    for i in range(voxels):
        room.lowest[i] = origin
        room.near[i] = origin
    for axis in range(axes):
        start, stop = bounds[0, axis], bounds[1, axis]
        if border == REFLECT and stop > start:
            _reflect(room.fraction, axis, voxels, start, stop)
        low, high, step = _find(room, axis, voxels, start, stop, strides[axis])
        room.reach[axis, 0] = low - start
        room.reach[axis, 1] = min(high + step, stop) - start
        room.reach[axis, 2] = step * positions.steps[axis]
    return count


@part(error_model="numpy", fastmath=_FAST)
def _lines(
    matrices: Array, s: int, axis: int, y: int, x: int, height: int, width: int, out: Array,
    base: int,
) -> None:  # fmt: skip
    step = np.float32(matrices[s, axis, 1])
    for j in range(height):
        start = matrices[s, axis, 0] * (y + j) + matrices[s, axis, 1] * x + matrices[s, axis, 2]
        first = np.float32(start)
        for i in range(width):
            out[axis, base + j * width + i] = first + step * np.float32(i)


@part(error_model="numpy", fastmath=_FAST)
def _divide(
    matrices: Array, s: int, row: int, axis: int, y: int, x: int, height: int, width: int,
    out: Array, base: int,
) -> None:  # fmt: skip
    step = np.float32(matrices[s, row, 1])
    for j in range(height):
        start = matrices[s, row, 0] * (y + j) + matrices[s, row, 1] * x + matrices[s, row, 2]
        first = np.float32(start)
        for i in range(width):
            out[axis, base + j * width + i] /= first + step * np.float32(i)


@part(error_model="numpy", fastmath=_FAST)
def _columns(
    lookups: Array, s: int, first: int, points: int, width: int, left: Array, wide: Array
) -> None:
    """Between which control points each column of a tile lies."""
    for i in range(width):
        u = min(max(lookups[s, 1, 1] * (first + i) + lookups[s, 1, 2], 0.0), points - 1.0)
        left[i] = min(int(u), max(points - 2, 0))
        wide[2, i] = u - left[i]


@part(error_model="numpy", fastmath=_FAST)
def _displace_rows(
    fields: Array, lookups: Array, s: int, axis: int, first: int, height: int, width: int,
    left: Array, wide: Array, out: Array, base: int,
) -> None:  # fmt: skip
    """Where rows run along the control points: two rows of those are made wide, then joined."""
    last, ahead = fields.shape[2] - 1, min(1, fields.shape[3] - 1)
    held = -1
    for j in range(height):
        v = min(max(lookups[s, 0, 0] * (first + j) + lookups[s, 0, 2], 0.0), float(last))
        y = min(int(v), max(last - 1, 0))
        if y != held:
            held = y
            for row in range(2):
                below = min(y + row, last)
                for i in range(width):
                    near = fields[s, axis, below, left[i]]
                    beside = fields[s, axis, below, left[i] + ahead]
                    wide[row, i] = near + (beside - near) * wide[2, i]
        t = np.float32(v - y)
        for i in range(width):
            out[axis, base + j * width + i] += wide[0, i] + (wide[1, i] - wide[0, i]) * t


@part(error_model="numpy", fastmath=_FAST)
def _displace(
    fields: Array, lookups: Array, s: int, axis: int, y0: int, x0: int, height: int, width: int,
    out: Array, base: int,
) -> None:  # fmt: skip
    rows, columns = fields.shape[2], fields.shape[3]
    for j in range(height):
        for i in range(width):
            y, x = y0 + j, x0 + i
            v = lookups[s, 0, 0] * y + lookups[s, 0, 1] * x + lookups[s, 0, 2]
            u = lookups[s, 1, 0] * y + lookups[s, 1, 1] * x + lookups[s, 1, 2]
            v, u = min(max(v, 0.0), rows - 1.0), min(max(u, 0.0), columns - 1.0)
            top, left = min(int(v), max(rows - 2, 0)), min(int(u), max(columns - 2, 0))
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            ty, tx = np.float32(v - top), np.float32(u - left)
            a, b = fields[s, axis, top, left], fields[s, axis, top, right]
            c, d = fields[s, axis, bottom, left], fields[s, axis, bottom, right]
            upper = a + (b - a) * tx
            lower = c + (d - c) * tx
            out[axis, base + j * width + i] += upper + (lower - upper) * ty


@part(error_model="numpy", fastmath=_FAST)
def _mark(at: Array, axes: int, voxels: int, bounds: Array, outside: Array) -> int:
    for i in range(voxels):
        outside[i] = False
    for axis in range(axes):
        low, high = np.float32(bounds[0, axis] - 0.5), np.float32(bounds[1, axis] + 0.5)
        for i in range(voxels):
            outside[i] |= (at[axis, i] < low) | (at[axis, i] >= high)
    count = 0
    for i in range(voxels):
        count += outside[i]
    return count


@part(error_model="numpy", fastmath=_FAST)
def _reflect(at: Array, axis: int, voxels: int, first: int, last: int) -> None:
    """Mirror what is beyond; what is inside stays as it is, to the last bit."""
    low, high = np.float32(first), np.float32(last)
    width = high - low
    for i in range(voxels):
        position = at[axis, i]
        position = low + low - position if position < low else position
        position = high + high - position if position > high else position
        if position < low:
            t = abs(at[axis, i] - low)
            t -= np.floor(t / (width + width)) * (width + width)
            position = low + (width - abs(t - width))
        at[axis, i] = position


@part(error_model="numpy", fastmath=_FAST)
def _find(
    room: Room, axis: int, voxels: int, first: int, last: int, stride: int
) -> tuple[int, int, int]:
    """Clamp positions along one axis, add what they are to the indices, leave the fraction.

    As no position inside is negative, cutting the decimals off is rounding down, and
    a position half way between two voxels is nearest to the higher one. Returns the
    lowest and the highest voxel below a position, and 0 where all positions are whole
    numbers, so that no neighbour takes part: nan and inf times 0 are nan, and must not
    spread to the voxels beside those that are copied.
    """
    at, index, near = room.fraction, room.lowest, room.near
    low, high, half = np.float32(max(first, 0)), np.float32(last), np.float32(0.5)
    whole = _are_whole(at, axis, voxels, low, high)
    top = np.int32(last if whole else max(last - 1, first))
    pitch = np.uint32(stride)
    lowest, highest = top, np.int32(first)
    for i in range(voxels):
        position = at[axis, i]
        position = low if position < low else position
        position = high if position > high else position
        floor = np.int32(position)
        floor = top if floor > top else floor
        lowest = floor if floor < lowest else lowest
        highest = floor if floor > highest else highest
        at[axis, i] = position - np.float32(floor)
        index[i] = np.uint32(index[i] + np.uint32(np.uint32(floor) * pitch))
        closest = np.uint32(np.int32(position + half))
        near[i] = np.uint32(near[i] + np.uint32(closest * pitch))
    return int(lowest), int(highest), 0 if whole else 1


@part(error_model="numpy", fastmath=_FAST)
def _are_whole(at: Array, axis: int, voxels: int, low: float, high: float) -> bool:
    """Whether all positions, once clamped, are whole numbers; mostly the first one tells."""
    for i in range(voxels):
        position = at[axis, i]
        position = low if position < low else position
        position = high if position > high else position
        if position != np.float32(np.int32(position)):
            return False
    return True


@part()
def _touch(
    memory: Array, c: int, z: int, size: int, start: int, pitch: int, reach: Array, axis: int,
    wanted: int,
) -> int:  # fmt: skip
    """Read one byte of every cache line of a box of a section, whose voxels have `size` bytes.

    The section begins at voxel `start`; its rows are those of `axis` of `reach`, its columns
    those of the next one. Returns a number that means nothing, so that no compiler drops the
    reading.
    """
    total = 0
    top, bottom = reach[axis, 0], reach[axis, 1]
    left, right = reach[axis + 1, 0], reach[axis + 1, 1]
    if (bottom - top + 1) * (right - left + 1) <= _WORTH_TOUCHING * wanted:
        for y in range(top, bottom + 1):
            first = np.uint64((start + y * pitch + left) * size)
            last = np.uint64((start + y * pitch + right) * size)
            while first < last:
                total += memory[c, z, first]
                first += np.uint64(64)
            total += memory[c, z, last]
    return total


@part(error_model="numpy", fastmath=_FAST)
def _linear_plane(
    image: Array, c: int, below: int, above: int, depth: float, room: Room, count: int,
    out: Array, section: int, start: int,
) -> None:  # fmt: skip
    """Interpolate within a section, and towards the next one if `depth` is above 0."""
    index, fraction = room.lowest, room.fraction
    x, y = np.uint32(room.reach[1, 2]), np.uint32(room.reach[0, 2])
    yx = y + x
    one, tz = np.float32(1), np.float32(depth)
    for i in range(count):
        p, ty, tx = index[i], fraction[0, i], fraction[1, i]
        ux, uy = one - tx, one - ty
        upper = image[c, below, p] * ux + image[c, below, p + x] * tx
        lower = image[c, below, p + y] * ux + image[c, below, p + yx] * tx
        out[c, section, start + i] = upper * uy + lower * ty
    if tz > 0:
        for i in range(count):
            p, ty, tx = index[i], fraction[0, i], fraction[1, i]
            ux, uy = one - tx, one - ty
            upper = image[c, above, p] * ux + image[c, above, p + x] * tx
            lower = image[c, above, p + y] * ux + image[c, above, p + yx] * tx
            value = out[c, section, start + i]
            out[c, section, start + i] = value * (one - tz) + (upper * uy + lower * ty) * tz


@part(error_model="numpy", fastmath=_FAST)
def _linear_pair(
    image: Array, c: int, first: int, second: int, room: Room, count: int, out: Array,
    section: int, follower: int, start: int,
) -> None:  # fmt: skip
    """Interpolate within two sections, so that the table is read once for both."""
    index, fraction = room.lowest, room.fraction
    x, y = np.uint32(room.reach[1, 2]), np.uint32(room.reach[0, 2])
    one = np.float32(1)
    for i in range(count):
        p, ty, tx = index[i], fraction[0, i], fraction[1, i]
        px, py, pyx = p + x, p + y, p + y + x
        ux, uy = one - tx, one - ty
        upper = image[c, first, p] * ux + image[c, first, px] * tx
        lower = image[c, first, py] * ux + image[c, first, pyx] * tx
        upper_other = image[c, second, p] * ux + image[c, second, px] * tx
        lower_other = image[c, second, py] * ux + image[c, second, pyx] * tx
        out[c, section, start + i] = upper * uy + lower * ty
        out[c, follower, start + i] = upper_other * uy + lower_other * ty


@part(error_model="numpy", fastmath=_FAST)
def _linear_volume(
    image: Array, c: int, room: Room, first: int, count: int, out: Array, section: int, start: int
) -> None:
    """Interpolate a row of a tile from a volume, whose rows may lie anywhere."""
    index, fraction, reach = room.lowest, room.fraction, room.reach
    z, y, x = np.uint32(reach[0, 2]), np.uint32(reach[1, 2]), np.uint32(reach[2, 2])
    yx, zx, zy, zyx = y + x, z + x, z + y, z + y + x
    one = np.float32(1)
    for i in range(count):
        n = first + i
        p, tz, ty, tx = index[n], fraction[0, n], fraction[1, n], fraction[2, n]
        ux, uy = one - tx, one - ty
        a = image[c, 0, p] * ux + image[c, 0, p + x] * tx
        b = image[c, 0, p + y] * ux + image[c, 0, p + yx] * tx
        e = image[c, 0, p + z] * ux + image[c, 0, p + zx] * tx
        d = image[c, 0, p + zy] * ux + image[c, 0, p + zyx] * tx
        value = (a * uy + b * ty) * (one - tz) + (e * uy + d * ty) * tz
        out[c, section, start + i] = value


@part()
def _copy(
    source: Array, c: int, z: int, near: Array, first: int, count: int, out: Array, section: int,
    start: int,
) -> None:  # fmt: skip
    """The nearest voxel of each."""
    for i in range(count):
        out[c, section, start + i] = source[c, z, near[first + i]]


@part()
def _fill(
    outside: Array, first: int, count: int, value: Any, out: Array, c: int, section: int, start: int
) -> None:
    """One value where a voxel lies outside."""
    for i in range(count):
        if outside[first + i]:
            out[c, section, start + i] = value


@part()
def _fill_all(count: int, value: Any, out: Array, c: int, section: int, start: int) -> None:
    for i in range(count):
        out[c, section, start + i] = value


@kernel()
def read_planes(
    tiles: Array, positions: Positions, sections: Sections, layers: Layers, room: Room
) -> int:
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
    room : Room

    Returns
    -------
    int
        Without meaning.
    """
    image, image_out, image_fill = layers.image, layers.image_out, layers.image_fill
    label, label_out, label_fill = layers.label, layers.label_out, layers.label_fill
    members, about, reach = sections.members, sections.about, room.reach
    depth, lost, pitch = sections.depth, sections.lost, positions.strides[0]
    size = layers.label_bytes.shape[2] // max(1, label.shape[2])
    # Not 4, for which numba would compile what touches once more.
    wide = layers.image_bytes.shape[2] // max(1, image.shape[2])
    touched = 0
    for t in range(tiles.shape[0]):
        m, a, b = tiles[t, 0], tiles[t, 1], tiles[t, 2]
        y, x, width = tiles[t, 3], tiles[t, 5], tiles[t, 6] - tiles[t, 5]
        start, n = y * width, (tiles[t, 4] - y) * width
        outside = _table(positions, m, m + 1, y, x, tiles[t, 4] - y, width, room)
        copied = reach[0, 2] == 0 and reach[1, 2] == 0
        for c in range(image.shape[0]):
            k = a
            while k < b:
                section, follower = members[k], members[min(k + 1, b - 1)]
                below, above = about[0, section], about[1, section]
                k += 1
                if lost[section]:
                    _fill_all(n, image_fill, image_out, c, section, start)
                    continue
                touched += _touch(layers.image_bytes, c, below, wide, 0, pitch, reach, 0, n)
                single = follower == section or lost[follower]
                if copied and depth[section] == 0:
                    _copy(image, c, below, room.near, 0, n, image_out, section, start)
                elif single or depth[section] > 0 or depth[follower] > 0:
                    if depth[section] > 0:
                        touched += _touch(layers.image_bytes, c, above, wide, 0, pitch, reach, 0, n)
                    _linear_plane(
                        image, c, below, above, depth[section], room, n, image_out, section, start
                    )
                else:
                    k += 1
                    other = about[0, follower]
                    touched += _touch(layers.image_bytes, c, other, wide, 0, pitch, reach, 0, n)
                    _linear_pair(
                        image, c, below, other, room, n, image_out, section, follower, start
                    )
                    if outside:
                        _fill(room.outside, 0, n, image_fill, image_out, c, follower, start)
                if outside:
                    _fill(room.outside, 0, n, image_fill, image_out, c, section, start)
        for c in range(label.shape[0]):
            for k in range(a, b):
                section = members[k]
                if lost[section]:
                    _fill_all(n, label_fill, label_out, c, section, start)
                    continue
                z = about[2, section]
                touched += _touch(layers.label_bytes, c, z, size, 0, pitch, reach, 0, n)
                _copy(label, c, z, room.near, 0, n, label_out, section, start)
                if outside:
                    _fill(room.outside, 0, n, label_fill, label_out, c, section, start)
    return touched


@part()
def _touch_volume(memory: Array, c: int, size: int, strides: Array, reach: Array, n: int) -> int:
    total, sections = 0, reach[0, 1] - reach[0, 0] + 1
    for z in range(reach[0, 0], reach[0, 1] + 1):
        total += _touch(memory, c, 0, size, z * strides[0], strides[1], reach, 1, n // sections)
    return total


@kernel()
def read_volume(tiles: Array, positions: Positions, layers: Layers, room: Room) -> int:
    """Read tiles whose voxels come from anywhere; tables have the axes (Z, Y, X).

    Parameters
    ----------
    tiles : int64, shape (T, 7)
        As in `read_planes`, but the sections themselves, each with its own matrix.
    positions, layers, room
        As in `read_planes`, with one more axis.
    """
    image, image_out, image_fill = layers.image, layers.image_out, layers.image_fill
    label, label_out, label_fill = layers.label, layers.label_out, layers.label_fill
    strides, reach = positions.strides, room.reach
    size = layers.label_bytes.shape[2] // max(1, label.shape[2])
    touched = 0
    for t in range(tiles.shape[0]):
        a, b, y, x = tiles[t, 1], tiles[t, 2], tiles[t, 3], tiles[t, 5]
        height, width = tiles[t, 4] - y, tiles[t, 6] - x
        n = (b - a) * height * width
        outside = _table(positions, a, b, y, x, height, width, room)
        copied = reach[0, 2] == 0 and reach[1, 2] == 0 and reach[2, 2] == 0
        for c in range(image.shape[0]):
            touched += _touch_volume(layers.image_bytes, c, 4, strides, reach, n)
            for row in range((b - a) * height):
                section, start = a + row // height, (y + row % height) * layers.width + x
                if copied:
                    _copy(image, c, 0, room.near, row * width, width, image_out, section, start)
                else:
                    _linear_volume(image, c, room, row * width, width, image_out, section, start)
                if outside:
                    _fill(
                        room.outside, row * width, width, image_fill, image_out, c, section, start
                    )
        for c in range(label.shape[0]):
            touched += _touch_volume(layers.label_bytes, c, size, strides, reach, n)
            for row in range((b - a) * height):
                section, start = a + row // height, (y + row % height) * layers.width + x
                _copy(label, c, 0, room.near, row * width, width, label_out, section, start)
                if outside:
                    _fill(
                        room.outside, row * width, width, label_fill, label_out, c, section, start
                    )
    return touched
