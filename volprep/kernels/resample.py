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

from volprep.kernels.compiling import kernel, part

__all__ = [
    "combine_columns",
    "combine_rows",
    "majority_labels",
    "round_saturated",
    "unseen_ids",
]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

_LANES = 64
_BLOCK = 512


@part(inline="always")
def _weighted_sum(
    rows: Floats, index: Ints, weight: Floats, start: int, stop: int, out: Floats
) -> None:
    """The sum of columns start to stop of the `rows` named by `index`: two of them, or 4n."""
    if index.size == 2:
        a, b = rows[index[0], start:stop], rows[index[1], start:stop]
        wa, wb = weight[0], weight[1]
        for j in range(out.size):
            out[j] = wa * a[j] + wb * b[j]
        return
    for k in range(0, index.size, 4):
        # Slices of one row each are known to be contiguous, so the loops become vectors.
        a, b = rows[index[k], start:stop], rows[index[k + 1], start:stop]
        c, d = rows[index[k + 2], start:stop], rows[index[k + 3], start:stop]
        wa, wb, wc, wd = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        if k == 0:
            for j in range(out.size):
                out[j] = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
        else:
            for j in range(out.size):
                out[j] += wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]


@kernel()
def combine_rows(source: Floats, taps: Ints, weights: Floats, begin: int, out: Floats) -> None:
    """Resample the middle axis: out[o, i] = sum over k of weights[i, k] * source[o, taps[i, k]].

    Parameters
    ----------
    source : ndarray, shape (O, N, I), float32 or float64
        Contiguous.
    taps : ndarray, shape (M, K), int64
        Indices into the middle axis of `source`; K is 2 or a multiple of 4.
    weights : ndarray, shape (M, K), of `source`'s type
    begin : int
        The column of `source` that the first column of `out` comes from.
    out : ndarray, shape (O, M, J), of `source`'s type
    """
    columns = out.shape[2]
    for o in range(source.shape[0]):
        rows = source[o]
        for start in range(0, columns, _BLOCK):
            stop = min(start + _BLOCK, columns)
            for i in range(taps.shape[0]):
                _weighted_sum(
                    rows, taps[i], weights[i], begin + start, begin + stop, out[o, i, start:stop]
                )


@kernel()
def combine_columns(source: Floats, taps: Ints, weights: Floats, out: Floats) -> None:
    """Resample the last axis: out[r, i] = sum over k of weights[i, k] * source[r, taps[i, k]].

    Parameters
    ----------
    source : ndarray, shape (R, N), float32 or float64
        Contiguous.
    taps : ndarray, shape (M, K), int64
        Indices into the last axis of `source`; K is 2 or a multiple of 4.
    weights : ndarray, shape (M, K), of `source`'s type
    out : ndarray, shape (R, M), of `source`'s type

    Notes
    -----
    Rows are turned upright, 64 at a time, so that the sum runs over vectors.
    """
    rows, length = source.shape
    upright = np.zeros((length, _LANES), source.dtype)
    sums = np.empty((taps.shape[0], _LANES), source.dtype)
    for start in range(0, rows, _LANES):
        count = min(_LANES, rows - start)
        for j in range(count):
            row = source[start + j]
            for i in range(length):
                upright[i, j] = row[i]
        for i in range(taps.shape[0]):
            _weighted_sum(upright, taps[i], weights[i], 0, _LANES, sums[i])
        for j in range(count):
            result = out[start + j]
            for i in range(taps.shape[0]):
                result[i] = sums[i, j]


@kernel()
def round_saturated(source: Floats, low: Any, high: Any, begin: int, out: npt.NDArray[Any]) -> None:
    """Round to the nearest integer (a half to the even one), cut to [low, high].

    Parameters
    ----------
    source : ndarray, shape (M, J), float32 or float64
    low, high : integers of the type of `out`
    begin : int
        The column of `out` that the first column of `source` goes to.
    out : ndarray, shape (M, I), integer
        NaN becomes `low`.
    """
    floor, ceiling = float(low), float(high)
    for m in range(source.shape[0]):
        values, row = source[m], out[m, begin : begin + source.shape[1]]
        for i in range(values.size):
            value = np.rint(values[i])
            if value >= ceiling:
                row[i] = high
            elif value > floor:
                row[i] = out.dtype.type(value)
            else:
                row[i] = low


@part()
def _weight_of(label: Any, ids: Any, weights: Any) -> Any:
    total = np.int64(0)
    for corner in range(8):
        total += weights[corner] if ids[corner] == label else np.int64(0)
    return total


@part()
def _vote(ids: Any, weights: Any, nearest: int, total: int) -> Any:
    """The id with the largest sum of weights; of equal ones, the nearest corner's first."""
    winner = ids[nearest]
    best = _weight_of(winner, ids, weights)
    if 2 * best >= total:
        return winner
    for flip in range(1, 8):
        label = ids[nearest ^ flip]
        weight = _weight_of(label, ids, weights)
        if weight > best:
            best, winner = weight, label
            if 2 * best > total:
                return winner
    return winner


@part()
def _agree(a: Any, b: Any, c: Any, d: Any, flat: Any) -> None:
    """flat[x]: whether the samples x and x + 1 of four rows all have one id."""
    last = flat.size - 1
    for x in range(last):
        first = a[x]
        flat[x] = (
            (first == b[x]) & (first == c[x]) & (first == d[x])
            & (first == a[x + 1]) & (first == b[x + 1])
            & (first == c[x + 1]) & (first == d[x + 1])
        )  # fmt: skip
    flat[last] = (a[last] == b[last]) & (a[last] == c[last]) & (a[last] == d[last])


@kernel()
def majority_labels(
    labels: npt.NDArray[Any],
    iz: Ints, wz: Ints, iy: Ints, wy: Ints, ix: Ints, wx: Ints,
    out: npt.NDArray[Any],
) -> None:  # fmt: skip
    """Give every output voxel the id that has most of the linear weights around it.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), unsigned
        Contiguous.
    iz, iy, ix : ndarray, shape (M, 2), int64
        The two samples beside each output along each axis, as indices into `labels`:
        along X the second is the first, or the next.
    wz, wy, wx : ndarray, shape (M, 2), int64
        Their weights as whole numbers, so that sums and ties are exact.
    out : ndarray, shape (MZ, MY, MX), of the type of `labels`
    """
    flat = np.empty(labels.shape[2], np.bool_)
    total = (wz[0, 0] + wz[0, 1]) * (wy[0, 0] + wy[0, 1]) * (wx[0, 0] + wx[0, 1])
    for z in range(out.shape[0]):
        z0, z1 = iz[z, 0], iz[z, 1]
        near_z = 4 if wz[z, 1] >= wz[z, 0] else 0
        y0, y1 = np.int64(-1), np.int64(-1)
        for y in range(out.shape[1]):
            known = iy[y, 0] == y0 and iy[y, 1] == y1
            y0, y1 = iy[y, 0], iy[y, 1]
            a, b, c, d = labels[z0, y0], labels[z0, y1], labels[z1, y0], labels[z1, y1]
            if not known:
                _agree(a, b, c, d, flat)
            near_zy = near_z + (2 if wy[y, 1] >= wy[y, 0] else 0)
            wa, wb = wz[z, 0] * wy[y, 0], wz[z, 0] * wy[y, 1]
            wc, wd = wz[z, 1] * wy[y, 0], wz[z, 1] * wy[y, 1]
            row = out[z, y]
            for x in range(row.size):
                x0 = ix[x, 0]
                if flat[x0]:
                    row[x] = a[x0]
                    continue
                x1, w0, w1 = ix[x, 1], wx[x, 0], wx[x, 1]
                ids = (a[x0], a[x1], b[x0], b[x1], c[x0], c[x1], d[x0], d[x1])
                weights = (wa * w0, wa * w1, wb * w0, wb * w1, wc * w0, wc * w1, wd * w0, wd * w1)
                row[x] = _vote(ids, weights, near_zy + (1 if w1 >= w0 else 0), total)


@kernel()
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
