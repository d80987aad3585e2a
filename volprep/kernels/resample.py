"""Resampling along one axis as a banded sum of samples, and labels by a vote of eight.

A cubic B-spline that interpolates is a fixed, fast decaying weight on the samples
around a point (the cardinal spline), so that filtering and evaluation are one sum
of `taps` samples: each result depends on its own neighbourhood alone, in a fixed
order, whatever region is asked for. Unser, Aldroubi and Eden, "B-spline signal
processing: part I - theory", IEEE Trans. Signal Process. 41 (1993), 821-833.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "combine_columns",
    "combine_rows",
    "majority_labels",
    "round_saturated",
    "unseen_ids",
]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

_LANES = 32
_BLOCK = 512


@njit(cache=True, nogil=True, fastmath={"contract"}, inline="always")
def _weighted_sum(
    rows: Floats, index: Ints, weight: Floats, start: int, stop: int, out: Floats
) -> None:
    """out[0:stop-start] = the weighted sum of the `rows` named by `index`, two or 4n of them."""
    first, second = rows[index[0]], rows[index[1]]
    wa, wb = weight[0], weight[1]
    if index.size == 2:
        for j in range(start, stop):
            out[j - start] = wa * first[j] + wb * second[j]
        return
    third, fourth = rows[index[2]], rows[index[3]]
    wc, wd = weight[2], weight[3]
    for j in range(start, stop):
        out[j - start] = wa * first[j] + wb * second[j] + wc * third[j] + wd * fourth[j]
    for k in range(4, index.size, 4):
        ra, rb, rc, rd = rows[index[k]], rows[index[k + 1]], rows[index[k + 2]], rows[index[k + 3]]
        wa, wb, wc, wd = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        for j in range(start, stop):
            out[j - start] += wa * ra[j] + wb * rb[j] + wc * rc[j] + wd * rd[j]


@njit(cache=True, nogil=True, fastmath={"contract"})
def combine_rows(source: Floats, taps: Ints, weights: Floats, out: Floats) -> None:
    """Resample the middle axis: out[o, i] = sum over k of weights[i, k] * source[o, taps[i, k]].

    Parameters
    ----------
    source : ndarray, shape (O, N, I), float32 or float64
        Contiguous along its last axis.
    taps : ndarray, shape (M, K), int64
        Indices into the middle axis of `source`; K is 2 or a multiple of 4.
    weights : ndarray, shape (M, K), of `source`'s type
    out : ndarray, shape (O, M, I), of `source`'s type
    """
    inner = source.shape[2]
    for o in range(source.shape[0]):
        for start in range(0, inner, _BLOCK):
            stop = min(start + _BLOCK, inner)
            for i in range(taps.shape[0]):
                _weighted_sum(source[o], taps[i], weights[i], start, stop, out[o, i, start:stop])


@njit(cache=True, nogil=True, fastmath={"contract"})
def combine_columns(source: Floats, taps: Ints, weights: Floats, out: Floats) -> None:
    """Resample the last axis: out[r, i] = sum over k of weights[i, k] * source[r, taps[i, k]].

    Parameters
    ----------
    source : ndarray, shape (R, N), float32 or float64
    taps : ndarray, shape (M, K), int64
        Indices into the last axis of `source`; K is 2 or a multiple of 4.
    weights : ndarray, shape (M, K), of `source`'s type
    out : ndarray, shape (R, M), of `source`'s type

    Notes
    -----
    Rows are turned upright, 32 at a time, so that the sum runs over vectors.
    """
    rows, length = source.shape
    upright = np.zeros((length, _LANES), source.dtype)
    total = np.empty(_LANES, source.dtype)
    for start in range(0, rows, _LANES):
        count = min(_LANES, rows - start)
        for j in range(count):
            for i in range(length):
                upright[i, j] = source[start + j, i]
        for i in range(taps.shape[0]):
            _weighted_sum(upright, taps[i], weights[i], 0, _LANES, total)
            for j in range(count):
                out[start + j, i] = total[j]


@njit(cache=True, nogil=True)
def round_saturated(source: Floats, low: Any, high: Any, out: npt.NDArray[Any]) -> None:
    """Round to the nearest integer (a half to the even one), cut to [low, high].

    Parameters
    ----------
    source : ndarray, shape (N,), float32 or float64
    low, high : integers of the type of `out`
    out : ndarray, shape (N,), integer
        NaN becomes `low`.
    """
    floor, ceiling = float(low), float(high)
    for i in range(source.size):
        value = np.rint(source[i])
        if value >= ceiling:
            out[i] = high
        elif value > floor:
            out[i] = out.dtype.type(value)
        else:
            out[i] = low


@njit(cache=True, nogil=True)
def _vote(ids: Any, weights: Any, nearest: int) -> Any:
    """The id with the largest sum of weights; of equal ones, the nearest corner's first."""
    best, winner = np.int64(-1), ids[nearest]
    for flip in range(8):
        corner = nearest ^ flip
        total = np.int64(0)
        for other in range(8):
            if ids[other] == ids[corner]:
                total += weights[other]
        if total > best:
            best, winner = total, ids[corner]
    return winner


@njit(cache=True, nogil=True)
def majority_labels(
    labels: npt.NDArray[Any],
    iz: Ints, wz: Ints, iy: Ints, wy: Ints, ix: Ints, wx: Ints,
    out: npt.NDArray[Any],
) -> None:  # fmt: skip
    """Give every output voxel the id that has most of the linear weights around it.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), unsigned
    iz, iy, ix : ndarray, shape (M, 2), int64
        The two samples beside each output along each axis, as indices into `labels`.
    wz, wy, wx : ndarray, shape (M, 2), int64
        Their weights as whole numbers, so that sums and ties are exact.
    out : ndarray, shape (MZ, MY, MX), of the type of `labels`
    """
    width = labels.shape[2]
    same = np.empty(width, np.bool_)
    for z in range(out.shape[0]):
        z0, z1 = iz[z, 0], iz[z, 1]
        near_z = 4 if wz[z, 1] >= wz[z, 0] else 0
        y0, y1 = np.int64(-1), np.int64(-1)
        for y in range(out.shape[1]):
            if iy[y, 0] != y0 or iy[y, 1] != y1:
                y0, y1 = iy[y, 0], iy[y, 1]
                for x in range(width):
                    a = labels[z0, y0, x]
                    same[x] = (
                        (a == labels[z0, y1, x])
                        & (a == labels[z1, y0, x])
                        & (a == labels[z1, y1, x])
                    )
            near_y = 2 if wy[y, 1] >= wy[y, 0] else 0
            for x in range(out.shape[2]):
                x0, x1 = ix[x, 0], ix[x, 1]
                a, b = labels[z0, y0, x0], labels[z0, y0, x1]
                if a == b and same[x0] and same[x1]:
                    out[z, y, x] = a
                    continue
                ids = (
                    a, b, labels[z0, y1, x0], labels[z0, y1, x1],
                    labels[z1, y0, x0], labels[z1, y0, x1], labels[z1, y1, x0], labels[z1, y1, x1],
                )  # fmt: skip
                zy00, zy01 = wz[z, 0] * wy[y, 0], wz[z, 0] * wy[y, 1]
                zy10, zy11 = wz[z, 1] * wy[y, 0], wz[z, 1] * wy[y, 1]
                wx0, wx1 = wx[x, 0], wx[x, 1]
                weights = (
                    zy00 * wx0, zy00 * wx1, zy01 * wx0, zy01 * wx1,
                    zy10 * wx0, zy10 * wx1, zy11 * wx0, zy11 * wx1,
                )  # fmt: skip
                nearest = near_z + near_y + (1 if wx1 >= wx0 else 0)
                out[z, y, x] = _vote(ids, weights, nearest)


@njit(cache=True, nogil=True)
def unseen_ids(labels: npt.NDArray[Any], recent: npt.NDArray[Any], out: npt.NDArray[Any]) -> int:
    """List the ids of `labels`, each at least once, most repetitions left out.

    Parameters
    ----------
    labels : ndarray, shape (N,), unsigned
    recent : ndarray, shape (2**n,), of the type of `labels`
        The id last met at each hash; the caller fills it with one id that it has noted.
    out : ndarray, shape (N,), of the type of `labels`

    Returns
    -------
    int
        How many ids stand in `out`.
    """
    count = 0
    mask = np.uint64(recent.size - 1)
    last = recent[0]
    for i in range(labels.size):
        value = labels[i]
        if value == last:
            continue
        last = value
        slot = (np.uint64(value) ^ (np.uint64(value) >> np.uint64(12))) & mask
        if recent[slot] != value:
            recent[slot] = value
            out[count] = value
            count += 1
    return count
