"""Local patterns of a plane that stay the same when it is moved, turned, cut or rescaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["list_patterns"]

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


@njit(cache=True, nogil=True)
def list_patterns(plane: npt.NDArray[Any], out: npt.NDArray[np.uint64]) -> int:
    """Hash the 5x5 voxels around each place that is brighter than all of them.

    Each of the 24 is taken as the share of the way from the brightest to the darkest of
    them, in 64 levels, which neither another type nor another scale or offset changes.

    Parameters
    ----------
    plane : array, shape (Y, X)
    out : array, shape (N,), uint64
        Written; room for a ninth of the voxels is enough.

    Returns
    -------
    int
        How many there are.
    """
    count = 0
    levels = np.empty(24, np.int64)
    seen = np.zeros(int(_LEVELS) + 1, np.uint8)
    for y in range(2, plane.shape[0] - 2):
        for x in range(2, plane.shape[1] - 2):
            centre = plane[y, x]
            if not (plane[y, x - 1] < centre and plane[y, x + 1] < centre):
                continue
            top = float(centre)
            low = top
            is_top = True
            for k in range(24):
                value = plane[y + _STEPS[k, 0], x + _STEPS[k, 1]]
                if not value < centre:  # NaN is no less either
                    is_top = False
                    break
                low = min(low, float(value))
            if not is_top or not np.isfinite(top - low):
                continue
            seen[:] = 0
            distinct = 0
            for k in range(24):
                value = float(plane[y + _STEPS[k, 0], x + _STEPS[k, 1]])
                levels[k] = int((top - value) / (top - low) * _LEVELS + 0.5)
                distinct += 1 - seen[levels[k]]
                seen[levels[k]] = 1
            if distinct >= _DISTINCT and count < len(out):
                out[count] = _least_hash(levels)
                count += 1
    return count


@njit(cache=True, nogil=True)
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
