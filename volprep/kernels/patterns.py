"""Local patterns of planes that stay the same when they are moved, turned, cut or rescaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = ["USUAL", "list_patterns"]

# The 24 voxels around one, by rows, and where each comes from when the square is turned or
# mirrored, in eight ways.
_STEPS = np.array([(y, x) for y in range(-2, 3) for x in range(-2, 3) if (y, x) != (0, 0)])
_PLACES = {(y, x): place for place, (y, x) in enumerate(_STEPS.tolist())}
_WAYS = np.array(
    [
        [_PLACES[a * v[swap], b * v[1 - swap]] for v in _STEPS.tolist()]
        for a in (1, -1)
        for b in (1, -1)
        for swap in (0, 1)
    ]
)
_LEVELS = 64.0
_DISTINCT = 8  # levels among the 24, at least: flat and coarse places look alike everywhere
#: The hashes of patterns that are not rare lie above this.
USUAL = np.uint64(1 << 63)


@kernel()
def list_patterns(
    planes: npt.NDArray[Any], rare_only: bool, below: np.uint64, out: npt.NDArray[np.uint64]
) -> int:
    """Hash the 5x5 voxels around each place that is brighter than all of them.

    Each of the 24 is taken as the share of the way from the brightest to the darkest of
    them, in 64 levels, which neither another type nor another scale or offset changes.

    A place is rare where all four voxels at its corners are darker than all four at its sides
    (1 of 70 in noise). The hashes of rare ones are below 2**63 and those of others above, so
    that whoever wants the least hashes need not have the others hashed.

    Parameters
    ----------
    planes : array, shape (Z, Y, X)
        C-contiguous; each plane is looked at by itself.
    rare_only : bool
        Whether only rare places are hashed.
    below : uint64
        Greater hashes are left out.
    out : array, shape (N,), uint64
        Written; room for a ninth of the voxels is enough.

    Returns
    -------
    int
        How many there are.
    """
    count = 0
    depth, height, width = planes.shape
    levels = np.empty(24, np.int64)
    seen = np.zeros(int(_LEVELS) + 1, np.uint8)
    tall = np.empty((2, width), planes.dtype)
    hits = np.zeros((width + 7) // 8 * 8, np.uint8)
    eights = hits.view(np.uint64)
    for z in range(depth):
        plane = planes[z]
        for y in range(2, height - 2):
            _mark_tops(plane, y, rare_only, tall, hits)
            for word in range(eights.size):
                if eights[word] == 0:
                    continue
                for x in range(8 * word, 8 * word + 8):
                    if hits[x] == 0 or not _levels_of(plane, y, x, levels):
                        continue
                    seen[:] = 0
                    distinct = 0
                    for k in range(24):
                        distinct += 1 - seen[levels[k]]
                        seen[levels[k]] = 1
                    if distinct < _DISTINCT:
                        continue
                    found = _least_hash(levels) >> np.uint64(1)
                    if not (rare_only or _is_rare(plane, y, x)):
                        found |= USUAL
                    if found < below and count < len(out):
                        out[count] = found
                        count += 1
    return count


@part()
def _tall(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    c: npt.NDArray[Any],
    d: npt.NDArray[Any],
    e: npt.NDArray[Any],
    out: npt.NDArray[Any],
) -> None:
    """The greatest of each five above one another."""
    for x in range(out.size):
        out[x] = max(max(max(a[x], b[x]), max(d[x], e[x])), c[x])


@part()
def _five(a: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """The greatest of each five in a row."""
    a0, a1, a2, a3, a4 = a[:-4], a[1:-3], a[2:-2], a[3:-1], a[4:]
    for x in range(out.size):
        out[x] = max(max(max(a0[x], a1[x]), max(a3[x], a4[x])), a2[x])


@part()
def _rare(
    b: npt.NDArray[Any], c: npt.NDArray[Any], d: npt.NDArray[Any], hits: npt.NDArray[np.uint8]
) -> None:
    """Unmark what is not rare."""
    b0, b1, b2 = b[:-2], b[1:-1], b[2:]
    c0, c2 = c[:-2], c[2:]
    d0, d1, d2 = d[:-2], d[1:-1], d[2:]
    for x in range(hits.size):
        corners = max(max(b0[x], b2[x]), max(d0[x], d2[x]))
        hits[x] &= corners < min(min(b1[x], d1[x]), min(c0[x], c2[x]))


@part()
def _same(a: npt.NDArray[Any], b: npt.NDArray[Any], hits: npt.NDArray[np.uint8]) -> None:
    for x in range(hits.size):
        hits[x] = a[x] == b[x]


@part()
def _mark_tops(
    plane: npt.NDArray[Any],
    y: int,
    rare_only: bool,
    tall: npt.NDArray[Any],
    hits: npt.NDArray[np.uint8],
) -> None:
    """Mark the places of a row that may be brightest, at 0.4 ns a voxel of 8 bits.

    Each loop is over slices of its own and without a branch, so that it is vectorised: one
    with indices beside the loop's (x - 2, say) is not, and takes ten times as long.
    """
    a, b, c, d, e = plane[y - 2], plane[y - 1], plane[y], plane[y + 1], plane[y + 2]
    width = plane.shape[1]
    _tall(a, b, c, d, e, tall[0])
    _five(tall[0], tall[1, : width - 4])
    inner = hits[2 : width - 2]
    _same(c[2 : width - 2], tall[1], inner)
    if rare_only:
        _rare(b[1:-1], c[1:-1], d[1:-1], inner)


@part()
def _is_rare(plane: npt.NDArray[Any], y: int, x: int) -> bool:
    corners = max(
        max(plane[y - 1, x - 1], plane[y - 1, x + 1]), max(plane[y + 1, x - 1], plane[y + 1, x + 1])
    )
    sides = min(min(plane[y - 1, x], plane[y + 1, x]), min(plane[y, x - 1], plane[y, x + 1]))
    return bool(corners < sides)


@part()
def _levels_of(plane: npt.NDArray[Any], y: int, x: int, levels: npt.NDArray[np.int64]) -> bool:
    """Take the levels around a place; False where it is not brighter than all of them."""
    top = float(plane[y, x])
    low = top
    for k in range(24):
        value = plane[y + _STEPS[k, 0], x + _STEPS[k, 1]]
        if not value < plane[y, x]:  # NaN is no less either
            return False
        low = min(low, float(value))
    if not np.isfinite(top - low):
        return False
    for k in range(24):
        value = float(plane[y + _STEPS[k, 0], x + _STEPS[k, 1]])
        levels[k] = int((top - value) / (top - low) * _LEVELS + 0.5)
    return True


@part()
def _least_hash(levels: npt.NDArray[np.int64]) -> np.uint64:
    """The least of the hashes of the eight ways to turn and mirror a pattern."""
    least = ~np.uint64(0)
    for way in range(8):
        value = np.uint64(0xCBF29CE484222325)
        for k in range(24):
            value ^= np.uint64(levels[_WAYS[way, k]] + 1)
            value *= np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(29)
        least = min(least, value)
    return least
