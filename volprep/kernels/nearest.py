"""The nearest point of its own instance for every voxel of a block, and its mean.

Instances come as rows: `rows` is int32, 0 is background, and the points of row
``r`` are ``points[:, offsets[r - 1]:offsets[r]]``. Axes are those of the block.

Rows of few points are tried along lines (`bake_lines`), the others in leaves, small
boxes to which only the points that matter come down (`bake_leaves`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = [
    "average_instances",
    "bake_leaves",
    "bake_lines",
    "index_ids",
    "list_leaves",
    "measure_distances",
]

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Field = npt.NDArray[np.float32]

_LEAF = 4  # voxels along each axis of the smallest box
_BOXES = (32, 16, 8)  # of the boxes around it
_FEW = 8  # points that are sooner tried than selected from
_LINE_POINTS = 16  # rows of no more points are tried along lines, without leaves
_KNOWN = 64  # ids whose rows are remembered
_LOOSE = {"nnan", "ninf", "nsz", "reassoc", "contract"}  # for sums that have slack


@part()
def _find_row(
    label: np.uint64, ids: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64], known_rows: Rows
) -> int:
    """``k + 1`` for ``ids[k]``, 0 for what is not among the (ascending) ids."""
    slot = label % np.uint64(_KNOWN)
    if known[slot] != label:
        k = int(np.searchsorted(ids, label))
        known[slot] = label
        known_rows[slot] = k + 1 if k < len(ids) and ids[k] == label else 0
    return int(known_rows[slot])


@kernel()
def index_ids(labels: npt.NDArray[Any], ids: npt.NDArray[np.uint64], out: Rows) -> np.uint64:
    """Write the row of every label: 0 for 0, ``k + 1`` for ``ids[k]``.

    Returns a label that is not among the (ascending) ids, or 0.
    """
    known, known_rows = np.zeros(_KNOWN, np.uint64), np.zeros(_KNOWN, np.int32)
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
                        row = _find_row(label, ids, known, known_rows)
                        missing = missing if row else label
                out[z, y, x] = row
    return missing


@part(error_model="numpy")
def _try_line(
    points: Field, first: int, count: int, z: float, y: float, x: float, weights: Floats,
    rest: Floats, places: Floats, nearest: npt.NDArray[np.int64],
) -> None:  # fmt: skip
    """Try some points on the voxels from (z, y, x) on, along x; the first nearest one wins.

    Four voxels at a time, without branches and in variables: that is what registers hold.
    """
    for j in range(count):
        a, b = (z - points[0, first + j]) * weights[0], (y - points[1, first + j]) * weights[1]
        rest[j], places[j] = a * a + b * b, points[2, first + j]
    w = weights[2]
    for i in range(0, nearest.size, 4):
        x0, x1, x2, x3 = x + i, x + i + 1.0, x + i + 2.0, x + i + 3.0
        best0 = best1 = best2 = best3 = np.inf
        near0 = near1 = near2 = near3 = 0
        for j in range(count):
            s, r = places[j], rest[j]
            c0, c1, c2, c3 = (x0 - s) * w, (x1 - s) * w, (x2 - s) * w, (x3 - s) * w
            d0, d1, d2, d3 = r + c0 * c0, r + c1 * c1, r + c2 * c2, r + c3 * c3
            near0, best0 = (j, d0) if d0 < best0 else (near0, best0)
            near1, best1 = (j, d1) if d1 < best1 else (near1, best1)
            near2, best2 = (j, d2) if d2 < best2 else (near2, best2)
            near3, best3 = (j, d3) if d3 < best3 else (near3, best3)
        nearest[i], nearest[i + 1], nearest[i + 2], nearest[i + 3] = near0, near1, near2, near3


@kernel(error_model="numpy")
def bake_lines(
    labels: npt.NDArray[Any], shift: tuple[int, int, int], ids: npt.NDArray[np.uint64],
    points: Field, offsets: npt.NDArray[np.int64], origin: Floats, weights: Floats,
    rows: Rows, out: Field,
) -> tuple[np.uint64, bool]:  # fmt: skip
    """Find the rows of a block, and the nearest points for the voxels of rows of few points.

    Parameters
    ----------
    labels : array of unsigned integers, shape (Z, Y, X), contiguous
    shift : tuple of three ints
        Where the labels lie in the block.
    ids : array, shape (K,)
        Ascending; the id of row ``k + 1`` is ``ids[k]``.
    points, offsets
        Of all rows; see the module. Shape (3, N).
    origin : array, shape (3,)
        Where the block begins.
    weights : array, shape (3,)
        Differences are multiplied with these before they are squared.
    rows : array, shape of the block
        Written; 0 where there are no labels, too.
    out : array, shape (3, ...)
        The coordinates of the nearest point, of several the first; 0 in the background.
        Not written where there are more points than a few.

    Returns
    -------
    missing : int
        A label that is not among the ids, or 0.
    more : bool
        Whether there are voxels left for `bake_leaves`.
    """
    rows[:], out[:] = 0, 0
    known, known_rows = np.zeros(_KNOWN, np.uint64), np.zeros(_KNOWN, np.int32)
    rest, places = np.empty(_LINE_POINTS), np.empty(_LINE_POINTS)
    missing, more = np.uint64(0), False
    nz, ny, nx = labels.shape
    nearest = np.empty(nx + 4, np.int64)
    # Flat, and with indices that cannot be negative: lines are short.
    flat, flat_rows = labels.reshape(-1), rows.reshape(-1)
    out0, out1, out2 = out[0].reshape(-1), out[1].reshape(-1), out[2].reshape(-1)
    for z in range(nz):
        for y in range(ny):
            x, stop = np.uint64((z * ny + y) * nx), np.uint64((z * ny + y + 1) * nx)
            line = ((z + shift[0]) * rows.shape[1] + y + shift[1]) * rows.shape[2] + shift[2]
            ahead = np.uint64(line) - x  # from a label to its place in the block
            z0, y0, x0 = origin[0] + shift[0] + z, origin[1] + shift[1] + y, origin[2] + shift[2]
            while x < stop:
                label = flat[x]
                if label == 0:
                    x += np.uint64(1)
                    continue
                start = x
                x += np.uint64(1)
                while x < stop and flat[x] == label:
                    x += np.uint64(1)
                row = _find_row(np.uint64(label), ids, known, known_rows)
                if row == 0:
                    missing = np.uint64(label)
                    continue
                first, count = offsets[row - 1], offsets[row] - offsets[row - 1]
                if count == 1:
                    p0, p1, p2 = points[0, first], points[1, first], points[2, first]
                    for i in range(start + ahead, x + ahead):
                        flat_rows[i], out0[i], out1[i], out2[i] = row, p0, p1, p2
                elif count <= _LINE_POINTS:
                    n = np.int64(x - start)
                    place = x0 + np.int64(start + ahead) - line
                    some = nearest[: (n + 3) // 4 * 4]
                    _try_line(points, first, count, z0, y0, place, weights, rest, places, some)
                    for i in range(n):
                        j, to = np.uint64(first + some[i]), start + ahead + np.uint64(i)
                        flat_rows[to] = row
                        out0[to], out1[to], out2[to] = points[0, j], points[1, j], points[2, j]
                else:
                    flat_rows[start + ahead : x + ahead] = row
                    more = True
    return missing, more


@part(error_model="numpy", fastmath=_LOOSE)
def _select(
    source: Floats, count: int, low: Floats, high: Floats, weights: Floats, scores: Floats,
    out: Floats,
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
    for j in range(count):  # without a branch: every point is written, those that go, over
        out[0, kept], out[1, kept], out[2, kept] = source[0, j], source[1, j], source[2, j]
        kept += scores[j] <= 0.0
    return kept


@kernel()
def list_leaves(shape: tuple[int, int, int]) -> tuple[Rows, Rows]:
    """Cut a block into nested boxes: the corner (L, 3) of each leaf, and its boxes' numbers (L, 3).

    The leaves come in such an order that those of one box follow one another.
    """
    grid = [-(-n // _LEAF) for n in shape]
    corners = np.empty((grid[0] * grid[1] * grid[2], 3), np.int32)
    groups = np.empty((len(corners), len(_BOXES)), np.int32)
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
    return corners, groups


@part()
def _list_entries(
    rows: Rows, offsets: npt.NDArray[np.int64], corners: Rows, slot_rows: Rows, heads: Rows,
    leaves: Rows, after: Rows,
) -> int:  # fmt: skip
    """Link, for each row of many points in the block, its leaves; returns how many rows they are.

    An entry is a leaf of one row: its leaf is ``leaves[e]``, the next entry of the row
    ``after[e]`` (-1 ends), the first ``heads[slot]``.
    """
    slots = np.full(len(offsets), -1, np.int32)
    tails = np.empty(len(heads), np.int32)
    n_slots = n = 0
    for leaf in range(len(corners)):
        z0, y0, x0 = corners[leaf]
        last = 0
        for z in range(z0, min(z0 + _LEAF, rows.shape[0])):
            for y in range(y0, min(y0 + _LEAF, rows.shape[1])):
                for x in range(x0, min(x0 + _LEAF, rows.shape[2])):
                    row = rows[z, y, x]
                    if row == last:
                        continue
                    last = row
                    if row == 0 or offsets[row] - offsets[row - 1] <= _LINE_POINTS:
                        continue
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


@part()
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


@part()
def _search_leaf(
    source: Floats, count: int, places: Floats, weights: Floats,
    best: Floats, nearest: npt.NDArray[np.int64],
) -> None:  # fmt: skip
    """Try every point on every voxel of a leaf; the first of several nearest ones wins."""
    nearest[:] = 0
    if count == 1:
        return
    w0, w1, w2 = weights[0], weights[1], weights[2]
    best[:] = np.inf
    for j in range(count):
        s0, s1, s2 = source[0, j], source[1, j], source[2, j]
        for v in range(_LEAF**3):
            a, b, c = (places[0, v] - s0) * w0, (places[1, v] - s1) * w1, (places[2, v] - s2) * w2
            d = a * a + b * b + c * c
            closer = d < best[v]
            best[v] = d if closer else best[v]
            nearest[v] = j if closer else nearest[v]


@part()
def _write_leaf(
    rows: Rows, row: int, corner: Rows, source: Floats, nearest: npt.NDArray[np.int64], out: Field
) -> None:
    z0, y0, x0 = corner
    width = min(_LEAF, rows.shape[2] - x0)
    for z in range(min(_LEAF, rows.shape[0] - z0)):
        for y in range(min(_LEAF, rows.shape[1] - y0)):
            own = rows[z0 + z, y0 + y, x0 : x0 + width]
            near = nearest[(z * _LEAF + y) * _LEAF : (z * _LEAF + y + 1) * _LEAF]
            for axis in range(3):
                line = out[axis, z0 + z, y0 + y, x0 : x0 + width]
                if width == _LEAF:
                    for x in range(_LEAF):  # chosen: a branch would be guessed wrong too often
                        point = np.float32(source[axis, near[x]])
                        line[x] = point if own[x] == row else line[x]
                    continue
                for x in range(width):
                    if own[x] == row:
                        line[x] = source[axis, near[x]]


@kernel()
def bake_leaves(
    rows: Rows, corners: Rows, groups: Rows, points: Field, offsets: npt.NDArray[np.int64],
    origin: Floats, weights: Floats, leaves: Rows, after: Rows, out: Field,
) -> None:  # fmt: skip
    """For every voxel of rows of many points, the nearest of its row's points.

    Parameters
    ----------
    rows : array, shape (Z, Y, X)
        Axes as those of the points.
    corners, groups : array, shape (L, 3) and (L, 3)
        Of `list_leaves` for this shape.
    points, offsets, origin, weights
        As in `bake_lines`.
    leaves, after : array, shape (Z * Y * X,)
        Room to work in.
    out : array, shape (3, Z, Y, X)
        The coordinates of the point, of several the first; other voxels stay as they are.
    """
    room = min(len(offsets), rows.size)
    slot_rows, heads = np.empty(room, np.int32), np.empty(room, np.int32)
    n_slots = _list_entries(rows, offsets, corners, slot_rows, heads, leaves, after)
    most = 0
    for slot in range(n_slots):
        most = max(most, offsets[slot_rows[slot]] - offsets[slot_rows[slot] - 1])
    depth = len(_BOXES)
    near = np.empty((depth + 2, 3, most + 1))
    counts, current = np.zeros(depth + 2, np.int64), np.empty(depth, np.int32)
    held = np.zeros(depth + 2, np.int64)  # which of `near` holds the points of a level
    squares, scores, low, high = weights * weights, np.empty(most), np.empty(3), np.empty(3)
    places, within = np.empty((3, _LEAF**3)), np.empty((3, _LEAF**3))
    best, nearest = np.empty(_LEAF**3), np.empty(_LEAF**3, np.int64)
    for v in range(_LEAF**3):
        within[0, v], within[1, v], within[2, v] = v // _LEAF**2, v // _LEAF % _LEAF, v % _LEAF
    for slot in range(n_slots):
        row, entry = slot_rows[slot], heads[slot]
        first, stop = offsets[row - 1], offsets[row]
        _bound(entry, -1, leaves, after, corners, groups, origin, low, high)
        own = points[:, first:stop]
        counts[0] = _select(own, stop - first, low, high, squares, scores, near[0])
        current[:] = -1
        while entry >= 0:
            leaf = leaves[entry]
            for level in range(depth):
                if groups[leaf, level] == current[level]:
                    continue
                current[level] = groups[leaf, level]
                counts[level + 1] = counts[level]
                held[level + 1] = source = held[level]
                if counts[level] > _FEW:
                    _bound(entry, level, leaves, after, corners, groups, origin, low, high)
                    held[level + 1] = level + 1
                    counts[level + 1] = _select(
                        near[source], counts[level], low, high, squares, scores, near[level + 1]
                    )
            for a in range(3):
                low[a] = origin[a] + corners[leaf, a]
                high[a] = low[a] + _LEAF - 1
            source, count = held[depth], counts[depth]
            if count > _FEW:
                count = _select(near[source], count, low, high, squares, scores, near[depth + 1])
                source = depth + 1
            if count > 1:
                for a in range(3):
                    for v in range(_LEAF**3):
                        places[a, v] = within[a, v] + low[a]
            _search_leaf(near[source], count, places, weights, best, nearest)
            _write_leaf(rows, row, corners[leaf], near[source], nearest, out)
            entry = after[entry]


@kernel()
def measure_distances(
    rows: Rows, field: Field, origin: Floats, weights: Floats, out: Field
) -> None:
    """Write each voxel's weighted distance to its point in the field; 0 in the background."""
    nz, ny, nx = rows.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                a = (origin[0] + z - field[0, z, y, x]) * weights[0]
                b = (origin[1] + y - field[1, z, y, x]) * weights[1]
                c = (origin[2] + x - field[2, z, y, x]) * weights[2]
                length = np.sqrt(a * a + b * b + c * c)
                out[z, y, x] = length if rows[z, y, x] != 0 else 0.0


@part()
def _count_own(other: Rows, own: Rows, width: int, count: Field) -> None:
    """Count those of three lines, one above the other, that have the own row."""
    above, here, below = other, other[width:], other[2 * width :]
    for i in range(len(count)):
        up, mid, down = above[i] == own[i], here[i] == own[i], below[i] == own[i]
        count[i] += np.float32(up) + np.float32(mid) + np.float32(down)


@part()
def _add_own(other: Rows, own: Rows, near: Field, here: Field, width: int, total: Field) -> None:
    """Add the differences of those of three lines that have the own row."""
    zero = np.float32(0)
    rows1, rows2, near1, near2 = other[width:], other[2 * width :], near[width:], near[2 * width :]
    for i in range(len(total)):
        # All is computed and then chosen from: without branches the loop becomes vectors.
        up, mid, down = near[i] - here[i], near1[i] - here[i], near2[i] - here[i]
        up = up if other[i] == own[i] else zero
        mid = mid if rows1[i] == own[i] else zero
        down = down if rows2[i] == own[i] else zero
        total[i] += up + mid + down


@part(error_model="numpy")
def _add_sides(own: Rows, here: Field, columns: Field, counts: Field, total: Field) -> None:
    """Add to each column those beside it that have its row, measured from its own value."""
    zero = np.float32(0)
    for i in range(len(total)):
        left = columns[i] + counts[i] * (here[i] - here[i + 1])
        right = columns[i + 2] + counts[i + 2] * (here[i + 2] - here[i + 1])
        left = left if own[i] == own[i + 1] else zero
        right = right if own[i + 2] == own[i + 1] else zero
        total[i] = columns[i + 1] + left + right


@part()
def _count_sides(own: Rows, counts: Field, count: Field) -> None:
    zero = np.float32(0)
    for i in range(len(count)):
        left, right = counts[i], counts[i + 2]
        left = left if own[i] == own[i + 1] else zero
        right = right if own[i + 2] == own[i + 1] else zero
        count[i] = counts[i + 1] + left + right


@part()
def _add_across(
    rows: Rows, field: Field, z: int, start: int, width: int, total: Field, count: Field
) -> None:
    """Where two rows meet along x, look through the other's column for voxels of the own row."""
    line = rows[z]
    for i in range(-1, len(count)):
        if line[start + i] == line[start + i + 1]:
            continue
        for side in range(2):
            voxel, column = start + i + side, start + i + 1 - side
            own, k = line[voxel], i + side
            if own == 0 or k < 0 or k == len(count):
                continue
            for dz in range(-1, 2):
                for j in (column - width, column, column + width):
                    if rows[z + dz, j] == own:
                        count[k] += np.float32(1)
                        for axis in range(3):
                            total[axis, k] += field[axis, z + dz, j] - field[axis, z, voxel]


@part(error_model="numpy")
def _add_mean(own: Rows, here: Field, count: Field, total: Field) -> None:
    for i in range(len(total)):
        mean = here[i] + total[i] / count[i]
        total[i] = mean if own[i] != 0 else np.float32(0)


@kernel()
def average_instances(rows: Rows, field: Field, out: Field) -> None:
    """Mean of the field over the 3x3x3 voxels around each one that are of its own row.

    `rows` (Z + 2, Y + 2, X + 2) and `field` (3, Z + 2, Y + 2, X + 2), both contiguous,
    have one voxel more than `out` (3, Z, Y, X) on every side. The background of `out`
    becomes zero.

    Some lines are worked on at a time, as one long line. Columns of 3x3 are summed
    first, each over the voxels that have the row of its middle; then a voxel takes the
    columns beside it where their middles have its row, and looks through the others.
    Differences to the middle are summed, so that large coordinates lose nothing.
    """
    _, nz, ny, nx = out.shape
    width = nx + 2
    flat_rows, flat_field = rows.reshape(nz + 2, -1), field.reshape(3, nz + 2, -1)
    some = 16  # lines at a time: what they need stays in the fastest cache
    columns, counts = np.empty((3, some * width), np.float32), np.empty(some * width, np.float32)
    total, count = np.empty((3, some * width), np.float32), np.empty(some * width, np.float32)
    for z in range(1, nz + 1):
        for y in range(0, ny, some):
            lines = min(some, ny - y)
            n = lines * width - 2  # from the first voxel of the first line to the last of the last
            first = (y + 1) * width + 1
            own = flat_rows[z, first - 1 : first + n + 1]
            if not own[1:-1].any():
                out[:, z - 1, y : y + lines] = 0
                continue
            columns[:], counts[:] = 0, 0
            for dz in range(-1, 2):
                start = first - width - 1
                other = flat_rows[z + dz, start:]
                _count_own(other, own, width, counts[: n + 2])
                for axis in range(3):
                    near = flat_field[axis, z + dz, start:]
                    here = flat_field[axis, z, first - 1 : first + n + 1]
                    _add_own(other, own, near, here, width, columns[axis, : n + 2])
            _count_sides(own, counts, count[:n])
            for axis in range(3):
                here = flat_field[axis, z, first - 1 : first + n + 1]
                _add_sides(own, here, columns[axis], counts, total[axis, :n])
            _add_across(flat_rows, flat_field, z, first, width, total, count[:n])
            for axis in range(3):
                here = flat_field[axis, z, first : first + n]
                _add_mean(own[1:], here, count, total[axis, :n])
                for line in range(lines):
                    i = line * width
                    out[axis, z - 1, y + line] = total[axis, i : i + nx]
