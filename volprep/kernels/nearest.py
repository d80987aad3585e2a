"""The nearest point of its own instance for every voxel of a block, and its mean.

Instances come as rows: `rows` is int32, 0 is background, and the points of row
``r`` are ``points[offsets[r - 1]:offsets[r]]``. Axes are those of the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["average_instances", "find_nearest", "index_ids"]

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Field = npt.NDArray[np.float32]

_LEAF = 4  # voxels along each axis of the smallest box
_BOXES = (32, 16, 8)  # of the boxes around it
_LOOSE = {"nnan", "ninf", "nsz", "reassoc", "contract"}  # for sums that have slack


@njit(cache=True, nogil=True)
def index_ids(labels: npt.NDArray[Any], ids: npt.NDArray[np.uint64], out: Rows) -> np.uint64:
    """Write the row of every label: 0 for 0, ``k + 1`` for ``ids[k]``.

    Returns a label that is not among the (ascending) ids, or 0.
    """
    missing = np.uint64(0)
    last, row = np.uint64(0), 0
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = np.uint64(labels[z, y, x])
                if label != last:
                    last, row = label, 0
                    if label != 0:
                        k = int(np.searchsorted(ids, label))
                        if k < len(ids) and ids[k] == label:
                            row = k + 1
                        else:
                            missing = label
                out[z, y, x] = row
    return missing


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_LOOSE)
def _select(
    source: Floats, count: int, low: Floats, high: Floats, weights: Floats,
    scores: Floats, out: Floats,
) -> int:  # fmt: skip
    """Copy the points that can be the nearest one to some voxel of a box; returns how many.

    The box reaches from `low` to `high`. Against the point ``s`` nearest to its centre
    ``c``, a point ``p`` is further from every voxel where
    ``d(c, p) - d(c, s) > 2 sum(half * weight * |p - s|)``, d being squared distances.
    """
    c0, c1, c2 = 0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), 0.5 * (low[2] + high[2])
    w0, w1, w2 = weights
    best = np.inf
    for j in range(count):
        a, b, c = source[0, j] - c0, source[1, j] - c1, source[2, j] - c2
        score = w0 * a * a + w1 * b * b + w2 * c * c
        scores[j] = score
        best = min(best, score)
    near = 0
    while scores[near] > best and near < count - 1:
        near += 1
    s0, s1, s2 = source[0, near], source[1, near], source[2, near]
    h0, h1, h2 = (high[0] - low[0]) * w0, (high[1] - low[1]) * w1, (high[2] - low[2]) * w2
    limit = best + 1e-9 * (1.0 + best)
    for j in range(count):
        reach = (
            h0 * abs(source[0, j] - s0) + h1 * abs(source[1, j] - s1) + h2 * abs(source[2, j] - s2)
        )
        scores[j] -= limit + reach * (1.0 + 1e-9)
    kept = 0
    for j in range(count):
        out[0, kept], out[1, kept], out[2, kept] = source[0, j], source[1, j], source[2, j]
        kept += scores[j] <= 0.0
    return kept


@njit(cache=True, nogil=True)
def _list_leaves(shape: tuple[int, int, int], corners: Rows, groups: Rows) -> None:
    """Cut a block into nested boxes; write each leaf's corner and the numbers of its boxes.

    The leaves come in such an order that those of one box follow one another.
    """
    n = 0
    depth = len(_BOXES)
    numbers = np.full(depth, -1, np.int32)
    side = _LEAF << depth  # of a box that holds the largest ones, along each axis two
    steps = (side // _LEAF) ** 3
    for z0 in range(0, shape[0], side):
        for y0 in range(0, shape[1], side):
            for x0 in range(0, shape[2], side):
                for step in range(steps):
                    z, y, x = z0, y0, x0
                    for bit in range(depth):
                        z += (step >> (3 * bit + 2) & 1) * (_LEAF << bit)
                        y += (step >> (3 * bit + 1) & 1) * (_LEAF << bit)
                        x += (step >> (3 * bit) & 1) * (_LEAF << bit)
                    for level in range(depth):
                        if step % (_BOXES[level] // _LEAF) ** 3 == 0:
                            numbers[level] += 1
                    if z < shape[0] and y < shape[1] and x < shape[2]:
                        corners[n] = z, y, x
                        groups[n] = numbers
                        n += 1


@njit(cache=True, nogil=True)
def _list_entries(
    rows: Rows, corners: Rows, slots: Rows, slot_rows: Rows, heads: Rows, leaves: Rows, after: Rows
) -> int:
    """Link, for each row in the block, the leaves that hold it; returns how many rows there are.

    An entry is a leaf of one row: its leaf is ``leaves[e]``, the next entry of the row
    ``after[e]`` (-1 ends), the first ``heads[slot]``.
    """
    tails = np.empty(len(heads), np.int32)
    n_slots = n = 0
    for leaf in range(len(corners)):
        z0, y0, x0 = corners[leaf]
        last = 0
        for z in range(z0, min(z0 + _LEAF, rows.shape[0])):
            for y in range(y0, min(y0 + _LEAF, rows.shape[1])):
                for x in range(x0, min(x0 + _LEAF, rows.shape[2])):
                    row = rows[z, y, x]
                    if row == last or row == 0:
                        continue
                    last = row
                    slot = slots[row]
                    if slot < 0:
                        slot = n_slots
                        slots[row], slot_rows[slot], heads[slot] = slot, row, n
                        n_slots += 1
                    elif leaves[tails[slot]] == leaf:
                        continue
                    else:
                        after[tails[slot]] = n
                    leaves[n], after[n], tails[slot] = leaf, -1, n
                    n += 1
    return n_slots


@njit(cache=True, nogil=True)
def _bound(
    entry: int, level: int, leaves: Rows, after: Rows, corners: Rows, groups: Rows,
    origin: Floats, low: Floats, high: Floats,
) -> None:  # fmt: skip
    """The box around the leaves that follow in the same group (of all, for a level below 0)."""
    first = entry
    for a in range(3):
        low[a] = high[a] = corners[leaves[entry], a]
    while entry >= 0 and (
        level < 0 or groups[leaves[entry], level] == groups[leaves[first], level]
    ):
        for a in range(3):
            low[a] = min(low[a], corners[leaves[entry], a])
            high[a] = max(high[a], corners[leaves[entry], a])
        entry = after[entry]
    for a in range(3):
        low[a] += origin[a]
        high[a] += origin[a] + _LEAF - 1


@njit(cache=True, nogil=True)
def _search_leaf(
    source: Floats, count: int, places: Floats, weights: Floats,
    best: Floats, index: npt.NDArray[np.int64],
) -> None:  # fmt: skip
    """Try every point on every voxel of a leaf; the first of several nearest ones wins."""
    w0, w1, w2 = weights[0], weights[1], weights[2]
    best[:] = np.inf
    index[:] = 0
    for j in range(count):
        s0, s1, s2 = source[0, j], source[1, j], source[2, j]
        for v in range(_LEAF**3):
            a, b, c = (places[0, v] - s0) * w0, (places[1, v] - s1) * w1, (places[2, v] - s2) * w2
            d = a * a + b * b + c * c
            closer = d < best[v]
            best[v] = d if closer else best[v]
            index[v] = j if closer else index[v]


@njit(cache=True, nogil=True)
def _write_leaf(
    rows: Rows, row: int, corner: Rows, source: Floats,
    best: Floats, index: npt.NDArray[np.int64], out: Field, distance: Field,
) -> None:  # fmt: skip
    z0, y0, x0 = corner
    for z in range(min(_LEAF, rows.shape[0] - z0)):
        for y in range(min(_LEAF, rows.shape[1] - y0)):
            for x in range(min(_LEAF, rows.shape[2] - x0)):
                if rows[z0 + z, y0 + y, x0 + x] == row:
                    v = (z * _LEAF + y) * _LEAF + x
                    for axis in range(3):
                        out[axis, z0 + z, y0 + y, x0 + x] = source[axis, index[v]]
                    if distance.size:
                        distance[z0 + z, y0 + y, x0 + x] = np.sqrt(best[v])


@njit(cache=True, nogil=True)
def find_nearest(
    rows: Rows, origin: Floats, points: Field, offsets: npt.NDArray[np.int64], weights: Floats,
    out: Field, distance: Field,
) -> None:  # fmt: skip
    """For every voxel of the block, the nearest of its row's points, the first of several.

    Parameters
    ----------
    rows : array, shape (Z, Y, X)
        Axes as those of the points.
    origin : array, shape (3,)
        Where the block begins.
    points : array, shape (3, N)
        Of all rows; see the module.
    weights : array, shape (3,)
        Differences are multiplied with these before they are squared.
    out : array, shape (3, Z, Y, X)
        The point; zero in the background.
    distance : array, shape (Z, Y, X) or of no size
        The weighted distance to it, if it is asked for.
    """
    leaf_grid = [-(-n // _LEAF) for n in rows.shape]
    n_leaves = leaf_grid[0] * leaf_grid[1] * leaf_grid[2]
    corners = np.empty((n_leaves, 3), np.int32)
    groups = np.empty((n_leaves, len(_BOXES)), np.int32)
    _list_leaves(rows.shape, corners, groups)
    slots = np.full(len(offsets), -1, np.int32)
    room = min(len(offsets), rows.size)
    slot_rows, heads = np.empty(room, np.int32), np.empty(room, np.int32)
    leaves, after = np.empty(rows.size, np.int32), np.empty(rows.size, np.int32)
    n_slots = _list_entries(rows, corners, slots, slot_rows, heads, leaves, after)
    out[:] = 0
    if distance.size:
        distance[:] = 0
    most = 0
    for slot in range(n_slots):
        most = max(most, offsets[slot_rows[slot]] - offsets[slot_rows[slot] - 1])
    depth = len(_BOXES)
    scores, near = np.empty(most), np.empty((depth + 2, 3, most + 1))
    counts, current = np.zeros(depth + 2, np.int64), np.empty(depth, np.int32)
    squares, low, high = weights * weights, np.empty(3), np.empty(3)
    places, within, best = np.empty((3, _LEAF**3)), np.empty((3, _LEAF**3)), np.empty(_LEAF**3)
    for v in range(_LEAF**3):
        within[0, v], within[1, v], within[2, v] = v // _LEAF**2, v // _LEAF % _LEAF, v % _LEAF
    index = np.empty(_LEAF**3, np.int64)
    for slot in range(n_slots):
        row, entry = slot_rows[slot], heads[slot]
        own = points[:, offsets[row - 1] : offsets[row]]
        _bound(entry, -1, leaves, after, corners, groups, origin, low, high)
        counts[0] = _select(own, own.shape[1], low, high, squares, scores, near[0])
        current[:] = -1
        while entry >= 0:
            leaf = leaves[entry]
            for level in range(depth):
                if groups[leaf, level] != current[level]:
                    current[level] = groups[leaf, level]
                    _bound(entry, level, leaves, after, corners, groups, origin, low, high)
                    counts[level + 1] = _select(
                        near[level], counts[level], low, high, squares, scores, near[level + 1]
                    )
            for a in range(3):
                low[a] = origin[a] + corners[leaf, a]
                high[a] = low[a] + _LEAF - 1
            last = near[depth + 1]
            count = _select(near[depth], counts[depth], low, high, squares, scores, last)
            for a in range(3):
                for v in range(_LEAF**3):
                    places[a, v] = within[a, v] + low[a]
            _search_leaf(last, count, places, weights, best, index)
            _write_leaf(rows, row, corners[leaf], last, best, index, out, distance)
            entry = after[entry]


@njit(cache=True, nogil=True)
def _count_own(other: Rows, own: Rows, count: Field) -> None:
    """Count, of three neighbours along x, those of the own row."""
    for i in range(len(count)):
        left, mid, right = other[i] == own[i], other[i + 1] == own[i], other[i + 2] == own[i]
        count[i] += np.float32(left) + np.float32(mid) + np.float32(right)


@njit(cache=True, nogil=True)
def _add_own(other: Rows, own: Rows, near: Field, here: Field, total: Field) -> None:
    """Add, of three neighbours along x, the differences of those of the own row."""
    zero = np.float32(0)
    for i in range(len(total)):
        # All is computed and then chosen from: without branches the loop becomes vectors.
        left, mid, right = near[i] - here[i], near[i + 1] - here[i], near[i + 2] - here[i]
        left = left if other[i] == own[i] else zero
        mid = mid if other[i + 1] == own[i] else zero
        right = right if other[i + 2] == own[i] else zero
        total[i] += left + mid + right


@njit(cache=True, nogil=True, error_model="numpy")
def _add_mean(own: Rows, here: Field, total: Field, count: Field, out: Field) -> None:
    for i in range(len(out)):
        mean = here[i] + total[i] / count[i]
        out[i] = mean if own[i] != 0 else np.float32(0)


@njit(cache=True, nogil=True)
def average_instances(rows: Rows, field: Field, out: Field) -> None:
    """Mean of the field over the 3x3x3 voxels around each one that are of its own row.

    `rows` (Z + 2, Y + 2, X + 2) and `field` (3, Z + 2, Y + 2, X + 2), both contiguous,
    have one voxel more than `out` (3, Z, Y, X) on every side. The background of `out`
    becomes zero. Differences are summed, so that large coordinates lose nothing.
    """
    _, nz, ny, nx = out.shape
    width = nx + 2
    flat_rows, flat_field = rows.reshape(nz + 2, -1), field.reshape(3, nz + 2, -1)
    some = 16  # lines at a time: what they need stays in the fastest cache
    total = np.empty((3, some * width), np.float32)
    count = np.empty(some * width, np.float32)
    for z in range(nz):
        for y in range(0, ny, some):
            lines = min(some, ny - y)
            n = lines * width - 2  # from the first voxel of the first line to the last of the last
            first = (y + 1) * width + 1
            own = flat_rows[z + 1, first : first + n]
            if not own.any():
                out[:, z, y : y + lines] = 0
                continue
            total[:] = 0
            count[:] = 0
            for dz in range(3):
                for dy in range(-1, 2):
                    start = first + dy * width - 1
                    other = flat_rows[z + dz, start : start + n + 2]
                    _count_own(other, own, count[:n])
                    for axis in range(3):
                        near = flat_field[axis, z + dz, start : start + n + 2]
                        here = flat_field[axis, z + 1, first : first + n]
                        _add_own(other, own, near, here, total[axis, :n])
            for axis in range(3):
                for line in range(lines):
                    i = line * width
                    here = flat_field[axis, z + 1, first + i : first + i + nx]
                    _add_mean(own[i:], here, total[axis, i:], count[i:], out[axis, z, y + line])
