"""Runs of labels gathered by id, with as many as there is room for.

The hash of a run is splitmix64 of its place, so which runs are kept where there
are too many depends on the volume alone. Ids are found in a table with open
addressing: `slots` holds the code of an id at the first free slot from its hash
on, -1 where a slot is free.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel

__all__ = ["gather_runs", "group_runs", "hash_ids", "slot_of", "splitmix64", "thin_runs"]

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]


@kernel()
def splitmix64(value: np.uint64) -> np.uint64:
    """A hash of 64 bits (Steele, Lea and Flood, 2014)."""
    x = value + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel()
def slot_of(label: np.uint64, ids: UInt64s, slots: Int32s) -> int:
    """Where the label's code is, or the free slot for it."""
    mask = np.uint64(len(slots) - 1)
    slot = splitmix64(label) & mask
    while slots[slot] >= 0 and ids[slots[slot]] != label:
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@kernel()
def hash_ids(ids: UInt64s, count: int, slots: Int32s) -> None:
    """Enter the first `count` ids into `slots`: all free, a power of two, twice as many."""
    for code in range(count):
        slots[slot_of(ids[code], ids, slots)] = code


@kernel()
def gather_runs(
    labels: UInt64s,
    found: Int32s,
    first: int,
    plane: tuple[int, int],
    slots: Int32s,
    ids: UInt64s,
    counts: Int64s,
    limits: UInt64s,
    lowest: UInt64s,
    used: Int64s,
    codes: Int32s,
    starts: Int64s,
    lengths: Int32s,
) -> int:
    """Take runs (z, y, x, stop) from number `first` on, until there is no room.

    `used` holds how many ids and how many runs there are. A run is kept if its hash
    is no higher than its id's limit, or the lowest of its id so far. Returns the
    number of the first run that was not taken.
    """
    ny, nx = plane
    for i in range(first, len(labels)):
        if used[0] == len(ids) or used[1] == len(codes):
            return i
        slot = slot_of(labels[i], ids, slots)
        code = slots[slot]
        if code < 0:
            code = np.int32(used[0])
            slots[slot] = code
            ids[code] = labels[i]
            used[0] += 1
        start = (np.int64(found[i, 0]) * ny + found[i, 1]) * nx + found[i, 2]
        length = found[i, 3] - found[i, 2]
        place = splitmix64(np.uint64(start))
        counts[code] += length
        lowest[code] = min(lowest[code], place)
        if place <= limits[code] or place == lowest[code]:
            n = used[1]
            codes[n], starts[n], lengths[n] = code, start, length
            used[1] += 1
    return len(labels)


@kernel()
def thin_runs(
    limits: UInt64s, lowest: UInt64s, count: int, codes: Int32s, starts: Int64s, lengths: Int32s
) -> int:
    """Move the runs that are still kept to the front; returns how many they are."""
    n = 0
    for i in range(count):
        place = splitmix64(np.uint64(starts[i]))
        if place <= limits[codes[i]] or place == lowest[codes[i]]:
            codes[n], starts[n], lengths[n] = codes[i], starts[i], lengths[i]
            n += 1
    return n


@kernel()
def group_runs(
    codes: Int32s,
    starts: Int64s,
    lengths: Int32s,
    next_row: Int64s,
    out_starts: Int64s,
    out_lengths: Int64s,
) -> None:
    """Write the runs of each code together; `next_row`, each code's first row, is used up."""
    for i in range(len(codes)):
        row = next_row[codes[i]]
        next_row[codes[i]] += 1
        out_starts[row] = starts[i]
        out_lengths[row] = lengths[i]
