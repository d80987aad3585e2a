"""Counting intensities and label ids, one block of voxels after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["count_intensities", "count_keys", "count_labels", "refine_keys", "regroup"]

Array = npt.NDArray[Any]

#: The leading bits of a key that `count_keys` tells apart.
COARSE_BITS = 20

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
def count_keys(bits: Array, counts: Array) -> None:
    """Count floating point values by the leading bits of their keys.

    Parameters
    ----------
    bits : ndarray of uint64, shape (n,)
        Finite float64 values, viewed as their bits; no negative zero.
    counts : ndarray of int64, shape (2**COARSE_BITS,)
        Added to.
    """
    for i in range(bits.size):
        counts[_key(bits[i]) >> _COARSE_SHIFT] += 1


@njit(cache=True, nogil=True)
def refine_keys(bits: Array, prefixes: Array, shift: int, width: int, counts: Array) -> None:
    """Count the next bits of those values whose keys begin as one of `prefixes` does.

    Parameters
    ----------
    bits : ndarray of uint64, shape (n,)
        As for `count_keys`.
    prefixes : ndarray of uint64, shape (m,)
        Ascending; a key's prefix is all above bit `shift` + `width`.
    shift, width : int
        The lowest bit that is counted, and how many are.
    counts : ndarray of int64, shape (m, 2**width)
        Added to.
    """
    top = np.uint64(shift + width)
    last = np.uint64((1 << width) - 1)
    for i in range(bits.size):
        key = _key(bits[i])
        prefix = key >> top
        low, high = 0, prefixes.size
        while low < high:
            middle = (low + high) >> 1
            if prefixes[middle] < prefix:
                low = middle + 1
            else:
                high = middle
        if low < prefixes.size and prefixes[low] == prefix:
            counts[low, (key >> np.uint64(shift)) & last] += 1


@njit(cache=True, nogil=True)
def _slot(table: Array, label: np.uint64) -> np.uint64:
    """Where a label stands in the table, or the empty place where it belongs."""
    mask = np.uint64(table.size - 1)
    place = ((label * _SPREAD) >> np.uint64(20)) & mask
    while table[place] != label and table[place] != 0:
        place = (place + np.uint64(1)) & mask
    return place


@njit(cache=True, nogil=True)
def _touch_across(
    label: Any, line: Array, start: int, stop: int, table: Array, touching: Array
) -> bool:
    """Mark the other labels in a stretch of the neighbouring line; say whether there is one."""
    last = label
    found = False
    for x in range(start, stop):
        other = line[x]
        if other != last:
            last = other
            if other != 0 and other != label:
                touching[_slot(table, np.uint64(other))] = True
                found = True
    return found


@njit(cache=True, nogil=True)
def count_labels(
    labels: Array,
    before_z: Array,
    before_y: Array,
    before_x: Array,
    first_line: int,
    used: int,
    table: Array,
    counts: Array,
    touching: Array,
) -> tuple[int, int]:
    """Count the voxels of every label of a block, and mark labels that share a face.

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
    first_line : int
        The line (z * Y + y) to go on from.
    used : int
        Labels in the table.
    table : ndarray of uint64, shape (2**k,)
        Open addressing: a label at its slot, 0 where empty.
    counts, touching : ndarray of int64, of bool, shape (2**k,)
        Voxels by slot, and whether the label shares a face with another one. Added to.

    Returns
    -------
    line : int
        Where it stopped: Z * Y at the end, less where the table must grow first.
    used : int
        Labels in the table.
    """
    nz, ny, nx = labels.shape
    room = table.size * 3 // 4
    for line in range(first_line, nz * ny):
        if used + nx > room:
            return line, used
        z, y = line // ny, line % ny
        row = labels[z, y]
        left = np.uint64(0)
        if before_x.size and before_x[z, y] != 0:
            left = np.uint64(before_x[z, y])
        x = 0
        while x < nx:
            label = row[x]
            stop = x + 1
            while stop < nx and row[stop] == label:
                stop += 1
            if label == 0:
                left = np.uint64(0)
                x = stop
                continue
            slot = _slot(table, np.uint64(label))
            if table[slot] == 0:
                table[slot] = np.uint64(label)
                used += 1
            counts[slot] += stop - x
            if left != 0 and left != np.uint64(label):
                touching[slot] = True
                touching[_slot(table, left)] = True
            if y > 0:
                if _touch_across(label, labels[z, y - 1], x, stop, table, touching):
                    touching[slot] = True
            elif before_y.size and _touch_across(label, before_y[z], x, stop, table, touching):
                touching[slot] = True
            if z > 0:
                if _touch_across(label, labels[z - 1, y], x, stop, table, touching):
                    touching[slot] = True
            elif before_z.size and _touch_across(label, before_z[y], x, stop, table, touching):
                touching[slot] = True
            left = np.uint64(label)
            x = stop
    return nz * ny, used


@njit(cache=True, nogil=True)
def regroup(
    table: Array, counts: Array, touching: Array, larger: Array, counted: Array, touched: Array
) -> None:
    """Copy a table into a larger, empty one."""
    for i in range(table.size):
        if table[i] != 0:
            slot = _slot(larger, table[i])
            larger[slot] = table[i]
            counted[slot] = counts[i]
            touched[slot] = touching[i]
