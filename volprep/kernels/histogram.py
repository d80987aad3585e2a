"""Counting intensities and label ids, one block of voxels after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = [
    "add_table",
    "count_intensities",
    "count_labels",
    "mark_planes",
    "measure_floats",
    "refine_keys",
    "sum_integers",
    "survey_planes",
]

Array = npt.NDArray[Any]

#: The leading bits of a key that `measure_floats` tells apart.
COARSE_BITS = 20
#: Voxels whose deviations `measure_floats` sums up before it merges them.
BRIEF = 512
#: Voxels that `count_intensities` counts in 32 bits before it adds them up.
LONGEST = 1 << 31

_SIGN = np.uint64(1 << 63)
_COARSE_SHIFT = np.uint64(64 - COARSE_BITS)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@kernel()
def count_intensities(values: Array, mask: Array, counts: Array) -> None:
    """Count every value, background and foreground apart.

    Parameters
    ----------
    values : ndarray of uint8 or uint16, shape (n,)
        The voxels.
    mask : ndarray of uint8, shape (n,) or (0,)
        Not zero in the foreground. Empty: all is background.
    counts : ndarray of int64, shape (2, 256 or 65536)
        Added to: row 0 the background, row 1 the foreground.
    """
    # Four tables: voxels side by side are often equal, and to count one value twice in a row
    # waits for the first count to be stored (1.5 ns a voxel of dark images instead of 0.4).
    kinds = counts.shape[1]
    tables = np.zeros((4, 2 * kinds), np.uint32)
    one, two, three, four = tables[0], tables[1], tables[2], tables[3]
    for start in range(0, values.size, LONGEST):
        stop = min(values.size, start + LONGEST)
        some = values[start:stop]
        fours = some.size // 4 * 4
        if mask.size == 0:
            for i in range(0, fours, 4):
                one[some[i]] += 1
                two[some[i + 1]] += 1
                three[some[i + 2]] += 1
                four[some[i + 3]] += 1
            for i in range(fours, some.size):
                one[some[i]] += 1
        else:
            fore = mask[start:stop]
            for i in range(0, fours, 4):
                one[some[i] + kinds * (fore[i] != 0)] += 1
                two[some[i + 1] + kinds * (fore[i + 1] != 0)] += 1
                three[some[i + 2] + kinds * (fore[i + 2] != 0)] += 1
                four[some[i + 3] + kinds * (fore[i + 3] != 0)] += 1
            for i in range(fours, some.size):
                one[some[i] + kinds * (fore[i] != 0)] += 1
        for value in range(kinds):
            for table in range(4):
                counts[0, value] += tables[table, value]
                counts[1, value] += tables[table, kinds + value]
        if stop < values.size:
            tables[:] = 0


@part()
def _key(bits: np.uint64) -> np.uint64:
    """The bits of a float64 as an unsigned number in the same order."""
    if bits & _SIGN:
        return ~bits
    return bits | _SIGN


@kernel()
def measure_floats(values: Array, mask: Array, counts: Array, moments: Array, used: Array) -> None:
    """Take moments, and count values by the leading bits of their keys, in one pass.

    Values that are not finite are left out; a negative zero counts as zero.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        The voxels.
    mask : ndarray of uint8, shape (n,) or (0,)
        Not zero in the foreground. Empty: all is background.
    counts : ndarray of int64, shape (2, 2**COARSE_BITS)
        Added to: row 0 the background, row 1 the foreground.
    moments : ndarray of float64, shape (2, 5)
        Number, mean, sum of squared deviations, least and greatest, by row. Updated;
        stretches of 512 voxels are merged as Chan, Golub and LeVeque do.
    used : ndarray of uint64, shape (1,)
        Or-ed with the bits of every value.
    """
    bits = values.view(np.uint64)
    masked = mask.size > 0
    for start in range(0, values.size, BRIEF):
        stop = min(values.size, start + BRIEF)
        for row in range(2 if masked else 1):
            n, total, origin = 0, 0.0, 0.0
            least, greatest = np.inf, -np.inf
            for i in range(start, stop):
                value = values[i] + 0.0
                if not np.isfinite(value) or (masked and (mask[i] != 0) != (row == 1)):
                    continue
                # From the first value on, so that the mean of equal values is that very value.
                if n == 0:
                    origin = value
                n += 1
                total += value - origin
                least = min(least, value)
                greatest = max(greatest, value)
            if n == 0:
                continue
            mean, deviations = origin + total / n, 0.0
            for i in range(start, stop):
                value = values[i] + 0.0
                if not np.isfinite(value) or (masked and (mask[i] != 0) != (row == 1)):
                    continue
                deviations += (value - mean) ** 2
                raw = bits[i] if bits[i] != _SIGN else np.uint64(0)
                used[0] |= raw
                counts[row, _key(raw) >> _COARSE_SHIFT] += 1
            _merge_moments(moments[row], n, mean, deviations, least, greatest)


@part()
def _merge_moments(
    moments: Array, n: int, mean: float, deviations: float, least: float, greatest: float
) -> None:
    before = moments[0]
    after = before + n
    gap = mean - moments[1]
    moments[0] = after
    moments[1] += gap * (n / after)
    moments[2] += deviations + gap * gap * (before / after) * n
    moments[3] = min(moments[3], least)
    moments[4] = max(moments[4], greatest)


@kernel()
def sum_integers(values: Array, mask: Array, sums: Array) -> None:
    """Sum integers of 64 bits and their squares without a rounding.

    Parameters
    ----------
    values : ndarray of uint64, shape (n,), n < 2**31
        The voxels; with a sign, counted up from the least integer.
    mask : ndarray of uint8, shape (n,) or (0,)
        As for `measure_floats`.
    sums : ndarray of uint64, shape (2, 9)
        Added to, background and foreground apart. With v = 2**32 h + l: how many, the sums
        of h and of l, and those of the upper and the lower 32 bits of h * h, h * l, l * l.
    """
    half, lower = np.uint64(32), np.uint64(0xFFFFFFFF)
    masked = mask.size > 0
    for i in range(values.size):
        row = sums[1 if masked and mask[i] != 0 else 0]
        high, low = values[i] >> half, values[i] & lower
        row[0] += np.uint64(1)
        row[1] += high
        row[2] += low
        # Each product fits into 64 bits, their sum does not: its halves are summed apart.
        row[3] += (high * high) >> half
        row[4] += (high * high) & lower
        row[5] += (high * low) >> half
        row[6] += (high * low) & lower
        row[7] += (low * low) >> half
        row[8] += (low * low) & lower


@kernel()
def refine_keys(
    values: Array,
    mask: Array,
    prefixes: Array,
    begun: Array,
    shift: int,
    width: int,
    counts: Array,
) -> None:
    """Count the next bits of those values whose keys begin as one of `prefixes` does.

    Parameters
    ----------
    values, mask : ndarray
        As for `measure_floats`.
    prefixes : ndarray of uint64, shape (m,)
        Ascending; a key's prefix is all above bit `shift` + `width`.
    begun : ndarray of bool, shape (2**COARSE_BITS,)
        Whether a prefix begins with these bits, so that most values need no search.
    shift, width : int
        The lowest bit that is counted, and how many are.
    counts : ndarray of int64, shape (2, m, 2**width)
        Added to, background and foreground apart.
    """
    bits = values.view(np.uint64)
    masked = mask.size > 0
    top = np.uint64(shift + width)
    last = np.uint64((1 << width) - 1)
    for i in range(values.size):
        raw = bits[i] if bits[i] != _SIGN else np.uint64(0)
        key = _key(raw)
        if not begun[key >> _COARSE_SHIFT] or not np.isfinite(values[i]):
            continue
        prefix = key >> top
        low, high = 0, prefixes.size
        while low < high:
            middle = (low + high) >> 1
            if prefixes[middle] < prefix:
                low = middle + 1
            else:
                high = middle
        if low < prefixes.size and prefixes[low] == prefix:
            row = 1 if masked and mask[i] != 0 else 0
            counts[row, low, (key >> np.uint64(shift)) & last] += 1


@part()
def _slot(table: Array, label: np.uint64) -> np.uint64:
    """Where a label stands in the table, or the empty place where it belongs."""
    mask = np.uint64(table.size - 1)
    place = ((label * _SPREAD) >> np.uint64(20)) & mask
    while table[place] != label and table[place] != 0:
        place = (place + np.uint64(1)) & mask
    return place


@part()
def _mark_changes(row: Array, before: Any, changes: Array) -> None:
    """Mark where another label begins than that of the voxel before, which for the first is given.

    Without an exit, and over slices whose every index is that of the loop, so that it is
    vectorised; what lies beyond the row is not marked.
    """
    changes[0] = row[0] != before
    ones, others, marks = row[:-1], row[1:], changes[1 : row.size]
    for x in range(marks.size):
        marks[x] = ones[x] != others[x]


@part()
def _mark_meetings(row: Array, beside: Array, meetings: Array) -> bool:
    """Mark where two labels lie side by side; say whether they do anywhere. Vectorised."""
    found = False
    for x in range(row.size):
        meets = (row[x] != beside[x]) & (row[x] != 0) & (beside[x] != 0)
        meetings[x] = meets
        found |= meets
    return found


@part()
def _first_of(eight: np.uint64) -> int:
    """The first marked of eight voxels, a byte each: the lowest is the first."""
    lowest = eight & (~eight + np.uint64(1))
    # The power of two is the exponent of the number.
    return int(((np.float64(lowest).view(np.int64) >> 52) - 1023) >> 3)


@part()
def _touch_beside(row: Array, beside: Array, meetings: Array, table: Array, touching: Array) -> int:
    """Mark the labels that lie side by side; say how many were not marked before."""
    if not _mark_meetings(row, beside, meetings):
        return 0
    fresh = 0
    last, last_beside = row[0], row[0]
    eights = meetings.view(np.uint64)
    for word in range(eights.size):
        left = eights[word]
        while left != 0:
            x = 8 * word + _first_of(left)
            left &= left - np.uint64(1)
            label, other = row[x], beside[x]
            if label == last and other == last_beside:
                continue
            last, last_beside = label, other
            fresh += _touch(np.uint64(label), np.uint64(other), table, touching)
    return fresh


@part()
def _touch(label: np.uint64, other: np.uint64, table: Array, touching: Array) -> int:
    """Mark two labels of the table; say how many were not marked before."""
    a, b = _slot(table, label), _slot(table, other)
    fresh = (0 if touching[a] else 1) + (0 if touching[b] else 1)
    touching[a] = True
    touching[b] = True
    return fresh


@kernel()
def count_labels(
    labels: Array,
    before_z: Array,
    before_y: Array,
    before_x: Array,
    state: Array,
    table: Array,
    counts: Array,
    touching: Array,
) -> None:
    """Count the voxels of every label of a block, and mark labels that share a face.

    Where labels change in a line, and where they meet those of the lines beside it, is marked
    in vectorised loops; then there is a step for each run of one label and for each meeting.

    Parameters
    ----------
    labels : ndarray of unsigned, shape (Z, Y, X)
        The block; 0 is the background.
    before_z : ndarray, shape (Y, X) or (0, 0)
        The plane before the block, of the same dtype; empty where there is none.
    before_y : ndarray, shape (Z, X) or (0, 0)
        The line before each plane.
    before_x : ndarray, shape (Z, Y) or (0, 0)
        The voxel before each line.
    state : ndarray of int64, shape (3,)
        The line (z * Y + y) to go on from, the labels in the table, and those marked.
        Updated: less than Z * Y lines are done where the table must grow first.
    table : ndarray of uint64, shape (2**k,)
        Open addressing: a label at its slot, 0 where empty.
    counts, touching : ndarray of int64, of bool, shape (2**k,)
        Voxels by slot, and whether the label shares a face with another one. Added to.
    """
    nz, ny, nx = labels.shape
    room = table.size * 3 // 4
    changes = np.zeros((nx + 7) // 8 * 8, np.bool_)
    meetings = np.zeros(changes.size, np.bool_)
    eights = changes.view(np.uint64)  # the first voxel in the lowest byte: numba runs on no other
    for line in range(state[0], nz * ny):
        state[0] = line
        if state[1] + nx > room:
            return
        z, y = line // ny, line % ny
        row = labels[z, y]
        label = before_x[z, y] if before_x.size else row[0]
        slot = _slot(table, np.uint64(label))
        if label != 0 and table[slot] == 0:
            table[slot] = np.uint64(label)
            state[1] += 1
        since = 0
        _mark_changes(row, label, changes)
        for word in range(eights.size):
            left = eights[word]
            while left != 0:
                x = 8 * word + _first_of(left)
                left &= left - np.uint64(1)
                new = row[x]
                if label != 0:
                    counts[slot] += x - since
                since = x
                if new != 0:
                    slot = _slot(table, np.uint64(new))
                    if table[slot] == 0:
                        table[slot] = np.uint64(new)
                        state[1] += 1
                    if label != 0:
                        state[2] += _touch(np.uint64(new), np.uint64(label), table, touching)
                label = new
        if label != 0:
            counts[slot] += nx - since
        if state[2] == state[1]:
            continue
        above = labels[z, y - 1] if y > 0 else before_y[z] if before_y.size else row[:0]
        behind = labels[z - 1, y] if z > 0 else before_z[y] if before_z.size else row[:0]
        if above.size:
            state[2] += _touch_beside(row, above, meetings, table, touching)
        if behind.size:
            state[2] += _touch_beside(row, behind, meetings, table, touching)
    state[0] = nz * ny


@kernel()
def add_table(
    table: Array, counts: Array, touching: Array, larger: Array, counted: Array, touched: Array
) -> None:
    """Add the labels of one table to another, which has room for them.

    Parameters
    ----------
    table, counts, touching : ndarray
        As of `count_labels`.
    larger, counted, touched : ndarray
        The same of the other table. Added to.
    """
    for i in range(table.size):
        if table[i] != 0:
            slot = _slot(larger, table[i])
            larger[slot] = table[i]
            counted[slot] += counts[i]
            touched[slot] |= touching[i]


@kernel()
def mark_planes(plane: Array, beside: Array, table: Array, touching: Array) -> None:
    """Mark the labels of two neighbouring planes (Y, X) that share a face; all are in the table."""
    meetings = np.zeros((plane.shape[1] + 7) // 8 * 8, np.bool_)
    for y in range(plane.shape[0]):
        _touch_beside(plane[y], beside[y], meetings, table, touching)


@kernel()
def survey_planes(labels: Array, labelled: Array, tops: Array, apart: Array) -> None:
    """Look at each plane of a block by itself.

    Parameters
    ----------
    labels : ndarray of unsigned, shape (Z, Y, X)
    labelled : ndarray of int64, shape (Z,)
        Added to: the voxels that are not 0.
    tops : ndarray of uint64, shape (Z,)
        Updated: the largest value.
    apart : ndarray of bool, shape (1,)
        Set to False where a plane, with what `tops` held of it, has two values beside 0.
    """
    for z in range(labels.shape[0]):
        total, top = 0, labels[z, 0, 0]
        for y in range(labels.shape[1]):
            count, highest = _survey(labels[z, y])
            total += count
            top = max(top, highest)
        before = tops[z]
        labelled[z] += total
        tops[z] = max(before, np.uint64(top))
        if apart[0] and top != 0:
            apart[0] = before == 0 or before == np.uint64(top)
            for y in range(labels.shape[1]):
                apart[0] &= _is_mask(labels[z, y], top)


@part()
def _survey(row: Array) -> tuple[int, Any]:
    count, highest = np.uint32(0), row[0]
    for x in range(row.size):
        count += np.uint32(row[x] != 0)
        highest = max(highest, row[x])
    return int(count), highest


@part()
def _is_mask(row: Array, value: Any) -> bool:
    """Whether a row holds one value and 0 only. Without an early exit, so it is vectorised."""
    other = False
    for x in range(row.size):
        other |= (row[x] != 0) & (row[x] != value)
    return not other
