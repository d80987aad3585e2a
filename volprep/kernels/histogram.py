"""Counting intensities and label ids, one block of voxels after another."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = [
    "Before",
    "Planes",
    "Tally",
    "add_table",
    "count_bytes",
    "count_labels",
    "count_words",
    "mark_planes",
    "measure_floats",
    "refine_keys",
    "sum_integers",
]

Array = npt.NDArray[Any]

#: The leading bits of a key that `measure_floats` tells apart.
COARSE_BITS = 20
#: Voxels whose deviations `measure_floats` sums up before it merges them.
BRIEF = 512
#: Voxels that `count_bytes` takes at once, so that what it knows of them stays at hand.
_STRETCH = 2048

_SIGN = np.uint64(1 << 63)
_COARSE_SHIFT = np.uint64(64 - COARSE_BITS)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@kernel()
def count_bytes(values: Array, labels: Array, tables: Array) -> None:
    """Count every value, background and foreground apart.

    Parameters
    ----------
    values : ndarray of uint8, shape (n,)
        The voxels.
    labels : ndarray of unsigned, shape (n,) or (0,)
        Not zero in the foreground. Empty: all is background.
    tables : ndarray of uint32, shape (4, 512)
        Added to, each voxel to one of them: the background first, then the foreground.
    """
    # Four tables: voxels side by side are often equal, and to count one value twice in a row
    # waits for the first count to be stored (1.5 ns a voxel of dark images instead of 0.3).
    one, two, three, four = tables[0], tables[1], tables[2], tables[3]
    # Where to count is found first, in a vectorised loop: 0.22 ns a voxel with that, not 0.27.
    places = np.empty(_STRETCH, np.uint32)
    for start in range(0, values.size, _STRETCH):
        some = values[start : start + _STRETCH]
        if labels.size:
            _places(some, labels[start : start + _STRETCH], places)
        else:
            for i in range(some.size):
                places[i] = some[i]
        fours = some.size // 4 * 4
        for i in range(0, fours, 4):
            one[places[i]] += 1
            two[places[i + 1]] += 1
            three[places[i + 2]] += 1
            four[places[i + 3]] += 1
        for i in range(fours, some.size):
            one[places[i]] += 1


@part()
def _places(values: Array, labels: Array, places: Array) -> None:
    for i in range(values.size):
        places[i] = np.uint32(values[i]) + (np.uint32(256) if labels[i] != 0 else np.uint32(0))


@kernel()
def count_words(values: Array, labels: Array, tables: Array) -> None:
    """As `count_bytes`, of uint16 into tables (2, 131072): of more, a cache holds too little."""
    one, two = tables[0], tables[1]
    none, kinds = np.uint32(0), np.uint32(1 << 16)
    if labels.size == 0:
        for i in range(0, values.size - 1, 2):
            one[values[i]] += 1
            two[values[i + 1]] += 1
        if values.size % 2:
            one[values[-1]] += 1
        return
    for i in range(0, values.size - 1, 2):
        one[np.uint32(values[i]) + (kinds if labels[i] != 0 else none)] += 1
        two[np.uint32(values[i + 1]) + (kinds if labels[i + 1] != 0 else none)] += 1
    if values.size % 2:
        one[np.uint32(values[-1]) + (kinds if labels[-1] != 0 else none)] += 1


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


class Tally(NamedTuple):
    """A table of labels, by open addressing, and what is counted of each at its slot.

    Attributes
    ----------
    labels : ndarray of uint64, shape (2**k,)
        0 where empty.
    counts : ndarray of int64, shape (2**k,)
        Voxels.
    touching, outer : ndarray of bool, shape (2**k,)
        Whether a label shares a face with another one, and touches a face of the volume.
    """

    labels: Array
    counts: Array
    touching: Array
    outer: Array

    @classmethod
    def empty(cls, size: int) -> Tally:
        """Of `size` slots, a power of two."""
        flags = np.zeros((2, size), np.bool_)
        return cls(np.zeros(size, np.uint64), np.zeros(size, np.int64), flags[0], flags[1])


class Planes(NamedTuple):
    """What is found in each plane along z.

    Attributes
    ----------
    labelled : ndarray of int64, shape (Z,)
        Voxels that are not 0.
    tops : ndarray of uint64, shape (Z,)
        The largest label.
    apart : ndarray of bool, shape (1,)
        Whether no plane has two labels beside 0.
    """

    labelled: Array
    tops: Array
    apart: Array


class Before(NamedTuple):
    """The voxels just before a block, of its dtype; an array is empty where there are none.

    Attributes
    ----------
    plane : ndarray, shape (Y, X)
    lines : ndarray, shape (Z, X)
        The line before each plane.
    column : ndarray, shape (Z, Y)
        The voxel before each line.
    """

    plane: Array
    lines: Array
    column: Array


@kernel()
def count_labels(
    labels: Array, before: Before, ends: Array, state: Array, tally: Tally, planes: Planes
) -> None:
    """Count the voxels of every label of a block, and mark labels that share a face.

    Where labels change in a line, and where they meet those of the lines beside it, is marked
    in vectorised loops; then there is a step for each run of one label and for each meeting.

    Parameters
    ----------
    labels : ndarray of unsigned, shape (Z, Y, X)
        The block; 0 is the background.
    before : Before
    ends : ndarray of bool, shape (3, 2)
        Whether the block begins, and ends, at a face of the volume, along each axis.
    state : ndarray of int64, shape (3,)
        The line (z * Y + y) to go on from, the labels in the table, and those that touch.
        Updated: less than Z * Y lines are done where the table must grow first.
    tally : Tally
        Added to.
    planes : Planes
        Of the planes of the block. Added to.
    """
    nz, ny, nx = labels.shape
    table, counts, touching = tally.labels, tally.counts, tally.touching
    room = table.size * 3 // 4
    changes = np.zeros((nx + 7) // 8 * 8, np.bool_)
    meetings = np.zeros(changes.size, np.bool_)
    eights = changes.view(np.uint64)  # the first voxel in the lowest byte: numba runs on no other
    for line in range(state[0], nz * ny):
        state[0] = line
        if state[1] + nx > room:
            return
        z, y = line // ny, line % ny
        at_face = (ends[0, 0] and z == 0) or (ends[0, 1] and z == nz - 1)
        at_face |= (ends[1, 0] and y == 0) or (ends[1, 1] and y == ny - 1)
        row = labels[z, y]
        label = before.column[z, y] if before.column.size else row[0]
        slot = _slot(table, np.uint64(label))
        if label != 0 and table[slot] == 0:
            table[slot] = np.uint64(label)
            state[1] += 1
        if label != 0 and row[0] == label:
            _note(np.uint64(label), z, planes)
            tally.outer[slot] |= at_face
        since, labelled = 0, 0
        _mark_changes(row, label, changes)
        for word in range(eights.size):
            left = eights[word]
            while left != 0:
                x = 8 * word + _first_of(left)
                left &= left - np.uint64(1)
                new = row[x]
                if label != 0:
                    counts[slot] += x - since
                    labelled += x - since
                since = x
                if new != 0:
                    slot = _slot(table, np.uint64(new))
                    if table[slot] == 0:
                        table[slot] = np.uint64(new)
                        state[1] += 1
                    _note(np.uint64(new), z, planes)
                    if at_face:
                        tally.outer[slot] = True
                    if label != 0:
                        state[2] += _touch(np.uint64(new), np.uint64(label), table, touching)
                label = new
        if label != 0:
            counts[slot] += nx - since
            labelled += nx - since
            tally.outer[slot] |= ends[2, 1]
        if ends[2, 0] and row[0] != 0:
            tally.outer[_slot(table, np.uint64(row[0]))] = True
        planes.labelled[z] += labelled
        if state[2] == state[1]:
            continue
        above = labels[z, y - 1] if y > 0 else before.lines[z] if before.lines.size else row[:0]
        behind = labels[z - 1, y] if z > 0 else before.plane[y] if before.plane.size else row[:0]
        if above.size:
            state[2] += _touch_beside(row, above, meetings, table, touching)
        if behind.size:
            state[2] += _touch_beside(row, behind, meetings, table, touching)
    state[0] = nz * ny


@part()
def _note(label: np.uint64, z: int, planes: Planes) -> None:
    """That a label lies in a plane."""
    top = planes.tops[z]
    if label != top:
        planes.apart[0] &= top == 0
        planes.tops[z] = max(top, label)


@kernel()
def add_table(tally: Tally, larger: Tally) -> None:
    """Add the labels of one table to another, which has room for them."""
    for i in range(tally.labels.size):
        if tally.labels[i] != 0:
            slot = _slot(larger.labels, tally.labels[i])
            larger.labels[slot] = tally.labels[i]
            larger.counts[slot] += tally.counts[i]
            larger.touching[slot] |= tally.touching[i]
            larger.outer[slot] |= tally.outer[i]


@kernel()
def mark_planes(plane: Array, beside: Array, tally: Tally) -> None:
    """Mark the labels of two neighbouring planes (Y, X) that share a face; all are in the table."""
    meetings = np.zeros((plane.shape[1] + 7) // 8 * 8, np.bool_)
    for y in range(plane.shape[0]):
        _touch_beside(plane[y], beside[y], meetings, tally.labels, tally.touching)
