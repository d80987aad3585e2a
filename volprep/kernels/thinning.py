"""Thin one object to its skeleton, link the voxels that are left, measure how thick it was.

Volumes are flat: one byte a voxel, zero around the object on every side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = ["link_voxels", "measure_clearance", "thin"]

Mask = npt.NDArray[np.uint8]
Voxels = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int32]

# The 27 voxels around one, as bits: 9 (dz + 1) + 3 (dy + 1) + (dx + 1).
_CENTRE = 1 << 13
_ALL = (1 << 27) - 1
_FIRST_X = sum(1 << n for n in range(27) if n % 3 == 0)
_LAST_X = sum(1 << n for n in range(27) if n % 3 == 2)
_FIRST_Y = sum(1 << n for n in range(27) if n // 3 % 3 == 0)
_LAST_Y = sum(1 << n for n in range(27) if n // 3 % 3 == 2)
_FACES = sum(1 << n for n in (4, 10, 12, 14, 16, 22))
_CORNERS = sum(1 << n for n in (0, 2, 6, 8, 18, 20, 24, 26))
_FACES_AND_EDGES = _ALL & ~_CORNERS & ~_CENTRE

# What a voxel of the object is; 0 is free. A settled one was found to be needed, and nothing near
# it changed since. A marked one is up for removal in the peeling under way.
_LIVE, _SETTLED, _MARKED = 1, 2, 4
_NEAR_SETTLED = 1 << 27

# Multiplied with a power of two, the top six bits of this number tell which power it was.
_SPREAD = np.uint64(0x03F79D71B4CB0A89)
_POWER = np.zeros(64, np.int64)
for _n in range(64):
    _POWER[int(_SPREAD) * 2**_n % 2**64 >> 58] = _n


@kernel()
def is_one_piece(code: int) -> bool:
    """Whether there are neighbours, and all touch one another by faces, edges or corners."""
    piece = code & -code
    while True:
        grown = piece | ((piece & ~_LAST_X) << 1) | ((piece & ~_FIRST_X) >> 1)
        grown |= ((grown & ~_LAST_Y) << 3) | ((grown & ~_FIRST_Y) >> 3)
        grown = (grown | (grown << 9) | (grown >> 9)) & code
        if grown == piece:
            return piece == code and code != 0
        piece = grown


@kernel()
def is_simple(code: int) -> bool:
    """Whether taking the centre away changes no connection among its neighbours.

    The object is 26-connected, the background 6-connected: the neighbours must be
    one object piece, and the free voxels by the faces one background piece.
    """
    if not is_one_piece(code):
        return False
    free = ~code & _FACES_AND_EDGES
    piece = free & _FACES
    piece &= -piece
    while True:
        grown = piece | ((piece & ~_LAST_X) << 1) | ((piece & ~_FIRST_X) >> 1)
        grown |= ((piece & ~_LAST_Y) << 3) | ((piece & ~_FIRST_Y) >> 3)
        grown = (grown | (piece << 9) | (piece >> 9)) & free
        if grown == piece:
            break
        piece = grown
    return piece != 0 and free & _FACES & ~piece == 0


@part()
def _look_around(mask: Mask, voxel: int, stride_z: int, stride_y: int) -> int:
    """The 26 neighbours as bits, and bit 27 where one of them is settled."""
    code = 0
    seen = 0
    bit = 0
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            line = voxel + dz * stride_z + dy * stride_y
            for dx in range(-1, 2):
                value = int(mask[line + dx])
                code |= (value & 1) << bit
                seen |= value
                bit += 1
    return (code & ~_CENTRE) | ((seen & _SETTLED) << 26)


@part()
def _is_removable(code: int) -> bool:
    return code & (code - 1) != 0 and is_simple(code)  # an end has one neighbour and stays


@part()
def _lowest_bit(word: np.uint64) -> int:
    low = word & (~word + np.uint64(1))
    return int(_POWER[(low * _SPREAD) >> np.uint64(58)])


@part()
def _watch(bits: Bits, index: Bits, voxel: int) -> None:
    """Put the voxel among those to look at: one bit for it, one for its word of 64."""
    word = voxel >> 6
    bits[word] |= np.uint64(1) << np.uint64(voxel & 63)
    index[word >> 6] |= np.uint64(1) << np.uint64(word & 63)


@part()
def _watch_border(
    mask: Mask, runs: IntArray, stride_z: int, stride_y: int, bits: Bits, index: Bits
) -> None:
    for i in range(len(runs)):
        line = runs[i, 0] * stride_z + runs[i, 1] * stride_y
        for voxel in range(line + runs[i, 2], line + runs[i, 3]):
            inside = mask[voxel - 1] & mask[voxel + 1]
            inside &= mask[voxel - stride_y] & mask[voxel + stride_y]
            if inside & mask[voxel - stride_z] & mask[voxel + stride_z] == 0:
                _watch(bits, index, voxel)


@kernel()
def thin(
    mask: Mask,
    runs: IntArray,
    stride_z: int,
    stride_y: int,
    sides: npt.NDArray[np.int64],
    ways: npt.NDArray[np.int64],
) -> None:
    """Peel the object from one side after the other until nothing more can go.

    Parameters
    ----------
    mask : array of uint8, flat
        One on the `runs` of the object and zero elsewhere; what is left of it stays
        above zero.
    runs : array of int32, shape (R, 4)
    stride_z, stride_y : int
    sides : array of int64
        Steps to the neighbour by a face that must be free, in the order of the peeling.
    ways : array of int64
        Steps to all the neighbours, those by faces first, then by edges and by corners.

    Notes
    -----
    After Lee, Kashyap and Chu (1994), as ITK and scikit-image have it. There all voxels
    that are free on a side are peeled one by one, each while its neighbours hold together,
    and where a part is two voxels thick both layers are free on the same side: a rod of two
    by two voxels is eaten up from one end to the other. Here a voxel is peeled only beside
    one that this peeling cannot remove, which in such a part none is. What is put off so
    is peeled at the end of the round along a `way` on which a voxel of the object lies
    behind it, of two layers one.
    """
    bits = np.zeros((len(mask) >> 6) + 1, np.uint64)
    index = np.zeros((len(bits) >> 6) + 1, np.uint64)
    _watch_border(mask, runs, stride_z, stride_y, bits, index)
    peel = np.empty(1024, np.int64)
    late = np.empty(1024, np.int64)
    removed = 1
    while removed > 0:
        removed = 0
        n_late = 0
        for side in sides:
            found = 0
            for block in range(len(index)):
                words = index[block]
                while words != 0:
                    word = (block << 6) + _lowest_bit(words)
                    words &= words - np.uint64(1)
                    if found + 64 > len(peel):
                        peel = np.concatenate((peel, np.empty_like(peel)))
                    found = _find_removable(mask, bits, word, side, stride_z, stride_y, peel, found)
                    if bits[word] == 0:
                        index[block] &= ~(np.uint64(1) << np.uint64(word & 63))
            while n_late + found > len(late):
                late = np.concatenate((late, np.empty_like(late)))
            put_off = late[n_late:]
            left = _peel(mask, peel[:found], side, stride_z, stride_y, bits, index, put_off)
            removed += found - left[0]
            n_late += left[1]
        removed += _peel_late(mask, late[:n_late], ways, stride_z, stride_y, bits, index)


@part()
def _find_removable(
    mask: Mask, bits: Bits, word: int, side: int, stride_z: int, stride_y: int,
    peel: Voxels, found: int,
) -> int:  # fmt: skip
    """List the voxels of one word that are free on `side` and may go; settle the others."""
    watched = bits[word]
    while watched != 0:
        bit = _lowest_bit(watched)
        watched &= watched - np.uint64(1)
        voxel = (word << 6) + bit
        if mask[voxel + side] != 0:
            continue
        if _is_removable(_look_around(mask, voxel, stride_z, stride_y) & _ALL):
            peel[found] = voxel
            found += 1
        else:
            mask[voxel] |= _SETTLED
            bits[word] &= ~(np.uint64(1) << np.uint64(bit))
    return found


@part()
def _peel(
    mask: Mask,
    voxels: Voxels,
    side: int,
    stride_z: int,
    stride_y: int,
    bits: Bits,
    index: Bits,
    late: Voxels,
) -> tuple[int, int]:
    """Remove voxels one by one, each only if it lies beside a firm one and is not needed.

    Returns how many are left, and how many of these were put off, which `late` then lists.
    """
    for voxel in voxels:
        mask[voxel] |= _MARKED
    n_late = 0
    left = 0
    for voxel in voxels:
        # What lies behind is not free on this side, and so firm: the usual case.
        if mask[voxel - side] == 0 and not _is_beside_firm(mask, voxel, stride_z, stride_y):
            late[n_late] = voxel
            n_late += 1
            left += 1
        elif not _remove(mask, voxel, stride_z, stride_y, bits, index):
            left += 1
    for voxel in voxels:
        mask[voxel] &= ~_MARKED
    return left, n_late


@part()
def _peel_late(
    mask: Mask, voxels: Voxels, ways: Voxels, stride_z: int, stride_y: int, bits: Bits, index: Bits
) -> int:
    """Remove what was put off, on one way after the other: free before, the object behind."""
    removed = 0
    peel = np.empty_like(voxels)
    for way in ways:
        found = 0
        for voxel in voxels:
            if mask[voxel] == 0 or mask[voxel + way] != 0 or mask[voxel - way] == 0:
                continue
            if _is_removable(_look_around(mask, voxel, stride_z, stride_y) & _ALL):
                peel[found] = voxel
                found += 1
        for voxel in peel[:found]:
            removed += _remove(mask, voxel, stride_z, stride_y, bits, index)
    return removed


@part()
def _is_beside_firm(mask: Mask, voxel: int, stride_z: int, stride_y: int) -> bool:
    """Whether one of the 26 neighbours is of the object and not marked."""
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            line = voxel + dz * stride_z + dy * stride_y
            for near in range(line - 1, line + 2):
                if mask[near] & (_LIVE | _MARKED) == _LIVE:
                    return True
    return False


@part()
def _remove(mask: Mask, voxel: int, stride_z: int, stride_y: int, bits: Bits, index: Bits) -> bool:
    """Remove a voxel if its neighbours hold together without it; watch them, or settle it."""
    code = _look_around(mask, voxel, stride_z, stride_y)
    bits[voxel >> 6] &= ~(np.uint64(1) << np.uint64(voxel & 63))
    if not is_one_piece(code & _ALL):
        mask[voxel] |= _SETTLED
        return False
    mask[voxel] = 0
    for step in (1, -1, stride_y, -stride_y, stride_z, -stride_z):
        if mask[voxel + step] & (_LIVE | _SETTLED) == _LIVE:
            _watch(bits, index, voxel + step)
    if code & _NEAR_SETTLED:
        _wake(mask, voxel, stride_z, stride_y, bits, index)
    return True


@part()
def _wake(mask: Mask, voxel: int, stride_z: int, stride_y: int, bits: Bits, index: Bits) -> None:
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            line = voxel + dz * stride_z + dy * stride_y
            for near in range(line - 1, line + 2):
                if mask[near] & _SETTLED:
                    mask[near] &= ~_SETTLED
                    _watch(bits, index, near)


@kernel()
def link_voxels(
    mask: Mask, voxels: Voxels, stride_z: int, stride_y: int, links: npt.NDArray[np.int64]
) -> int:
    """List the pairs of voxels that touch, as places in `voxels` (ascending, one in `mask`).

    Returns how many there are; writes as many as `links` has room for.
    """
    steps = np.empty(13, np.int64)
    n = 0
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                if dz * stride_z + dy * stride_y + dx > 0:  # each pair once
                    steps[n] = dz * stride_z + dy * stride_y + dx
                    n += 1
    count = 0
    for i in range(len(voxels)):
        for step in steps:
            if mask[voxels[i] + step] == 0:
                continue
            if count < len(links):
                links[count, 0] = i
                links[count, 1] = np.searchsorted(voxels, voxels[i] + step)
            count += 1
    return count


@kernel()
def measure_clearance(
    mask: npt.NDArray[np.uint8],
    points: Voxels,
    links: npt.NDArray[np.int64],
    spacing: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
) -> None:
    """Distance from each point (N, 3) to the nearest voxel centre outside the object.

    `mask` is (Z, Y, X), zero along its faces. Where a link leads to a point that is
    measured already, only the shell that its distance leaves open is searched.
    """
    guides = np.full(len(points), -1, np.int64)
    for k in range(len(links)):
        guides[max(links[k, 0], links[k, 1])] = min(links[k, 0], links[k, 1])
    weights = spacing * spacing
    for i in range(len(points)):
        clear, best = 0.0, np.inf
        if guides[i] >= 0:
            way = 0.0
            for a in range(3):
                way += (points[i, a] - points[guides[i], a]) ** 2 * weights[a]
            way = np.sqrt(way)
            clear = max(0.0, (out[guides[i]] - way) * (1 - 1e-6)) ** 2
            best = ((out[guides[i]] + way) * (1 + 1e-6)) ** 2
        out[i] = np.sqrt(_search_outside(mask, points[i], weights, clear, best))


@part()
def _search_outside(
    mask: npt.NDArray[np.uint8],
    point: Voxels,
    weights: npt.NDArray[np.float64],
    clear: float,
    best: float,
) -> float:
    """Squared distance to the nearest free voxel, known to lie between `clear` and `best`."""
    z, y, x = point
    dz = 0
    while dz * dz * weights[0] < best:
        dy = 0
        while dz * dz * weights[0] + dy * dy * weights[1] < best:
            far = dz * dz * weights[0] + dy * dy * weights[1]
            first = int(np.sqrt(max(0.0, clear - far) / weights[2]))
            for line_z in (z - dz, z + dz):
                for line_y in (y - dy, y + dy):
                    line = mask[line_z, line_y]
                    dx = first
                    while far + dx * dx * weights[2] < best:
                        if line[x - dx] == 0 or line[x + dx] == 0:
                            best = far + dx * dx * weights[2]
                            break
                        dx += 1
            dy += 1
        dz += 1
    return best
