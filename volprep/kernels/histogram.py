"""Counting intensities and label ids, one block of voxels after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "add_table",
    "count_intensities",
    "count_labels",
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
#: Voxels that `count_labels` looks at in one go.
STRETCH = 32

_SIGN = np.uint64(1 << 63)
_COARSE_SHIFT = np.uint64(64 - COARSE_BITS)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
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
    if mask.size == 0:
        for i in range(values.size):
            counts[0, values[i]] += 1
    else:
        for i in range(values.size):
            counts[1 if mask[i] != 0 else 0, values[i]] += 1


@njit(cache=True, nogil=True)
def _key(bits: np.uint64) -> np.uint64:
    """The bits of a float64 as an unsigned number in the same order."""
    if bits & _SIGN:
        return ~bits
    return bits | _SIGN


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _slot(table: Array, label: np.uint64) -> np.uint64:
    """Where a label stands in the table, or the empty place where it belongs."""
    mask = np.uint64(table.size - 1)
    place = ((label * _SPREAD) >> np.uint64(20)) & mask
    while table[place] != label and table[place] != 0:
        place = (place + np.uint64(1)) & mask
    return place


@njit(cache=True, nogil=True)
def _is_all(stretch: Array, label: Any) -> bool:
    """Whether a stretch holds one label only. Without an early exit, so that it is vectorised."""
    other = False
    for x in range(stretch.size):
        other |= stretch[x] != label
    return not other


@njit(cache=True, nogil=True)
def _mark_changes(stretch: Array, label: Any, changes: Array) -> None:
    """Mark where another label begins than that of the voxel before, which for the first is given.

    Without an exit, so that it is vectorised; what lies beyond the stretch is not marked.
    """
    changes[0] = stretch[0] != label
    for x in range(1, stretch.size):
        changes[x] = stretch[x] != stretch[x - 1]
    for x in range(stretch.size, changes.size):
        changes[x] = False


@njit(cache=True, nogil=True)
def _meet(stretch: Array, beside: Array) -> bool:
    """Whether two labels lie side by side somewhere."""
    found = False
    for x in range(stretch.size):
        found |= (stretch[x] != beside[x]) & (stretch[x] != 0) & (beside[x] != 0)
    return found


@njit(cache=True, nogil=True)
def _mark(stretch: Array, beside: Array, table: Array, touching: Array) -> int:
    """Mark the labels that lie side by side; say how many were not marked before."""
    fresh = 0
    last, last_beside = stretch[0], stretch[0]
    for x in range(stretch.size):
        label, other = stretch[x], beside[x]
        if label == other or label == 0 or other == 0:
            continue
        if label == last and other == last_beside:
            continue
        last, last_beside = label, other
        fresh += _touch(np.uint64(label), np.uint64(other), table, touching)
    return fresh


@njit(cache=True, nogil=True)
def _touch(label: np.uint64, other: np.uint64, table: Array, touching: Array) -> int:
    """Mark two labels of the table; say how many were not marked before."""
    a, b = _slot(table, label), _slot(table, other)
    fresh = (0 if touching[a] else 1) + (0 if touching[b] else 1)
    touching[a] = True
    touching[b] = True
    return fresh


@njit(cache=True, nogil=True)
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

    Lines are walked in stretches of 32 voxels; those of one label, which are most, cost
    no more than a vectorised comparison, others two and a step for each change.

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
    changes = np.zeros(STRETCH, np.bool_)
    eights = changes.view(np.uint64)  # the first voxel in the lowest byte: numba runs on no other
    for line in range(state[0], nz * ny):
        state[0] = line
        if state[1] + nx > room:
            return
        z, y = line // ny, line % ny
        row = labels[z, y]
        above = labels[z, y - 1] if y > 0 else before_y[z] if before_y.size else row[:0]
        behind = labels[z - 1, y] if z > 0 else before_z[y] if before_z.size else row[:0]
        label = before_x[z, y] if before_x.size else row[0]
        slot = _slot(table, np.uint64(label))
        if label != 0 and table[slot] == 0:
            table[slot] = np.uint64(label)
            state[1] += 1
        since = 0
        for start in range(0, nx, STRETCH):
            stop = min(nx, start + STRETCH)
            stretch = row[start:stop]
            if not _is_all(stretch, label):
                _mark_changes(stretch, label, changes)
                for word in range(eights.size):
                    left = eights[word]
                    while left != 0:
                        lowest = left & (~left + np.uint64(1))
                        left ^= lowest
                        # The power of two is the exponent of the number; eight bits a voxel.
                        power = (np.float64(lowest).view(np.int64) >> 52) - 1023
                        x = int(start + 8 * word + (power >> 3))
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
                                a, b = np.uint64(new), np.uint64(label)
                                state[2] += _touch(a, b, table, touching)
                        label = new
            elif label == 0:
                continue
            if state[2] == state[1]:
                continue
            if above.size and _meet(stretch, above[start:stop]):
                state[2] += _mark(stretch, above[start:stop], table, touching)
            if behind.size and _meet(stretch, behind[start:stop]):
                state[2] += _mark(stretch, behind[start:stop], table, touching)
        if label != 0:
            counts[slot] += nx - since
    state[0] = nz * ny


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def mark_planes(plane: Array, beside: Array, table: Array, touching: Array) -> None:
    """Mark the labels of two neighbouring planes (Y, X) that share a face; all are in the table."""
    for y in range(plane.shape[0]):
        if _meet(plane[y], beside[y]):
            _mark(plane[y], beside[y], table, touching)
