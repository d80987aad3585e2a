"""Exact squared distances to the nearest voxel of another label.

One pass along each axis: along x by runs, then along y and z either by trying
rows ever farther away, which the processor does for a whole row at once and which
ends where nothing nearer can come, or by the lower envelope of parabolas
(Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", 2012),
whose time does not grow with the distances. Nothing beyond the array is known, so
its faces are no borders.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = ["along_runs", "by_envelopes", "by_rows"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]

#: Where no other label is in sight.
FAR = np.float32(1e30)


@kernel()
def along_runs(codes: Codes, size: np.float32, out: Floats) -> int:
    """Squared distances along x within each line, `FAR` where it is one run; how many runs."""
    nz, ny, nx = codes.shape
    runs = 0
    for z in range(nz):
        for y in range(ny):
            line, row = codes[z, y], out[z, y]
            start = 0
            while start < nx:
                stop = start + 1
                while stop < nx and line[stop] == line[start]:
                    stop += 1
                runs += 1
                for x in range(start, stop):
                    before = FAR if start == 0 else np.float32(x - start + 1) * size
                    after = FAR if stop == nx else np.float32(stop - x) * size
                    nearest = min(before, after)
                    row[x] = FAR if nearest == FAR else nearest * nearest
                start = stop
    return runs


@part(fastmath={"nnan", "nsz"})
def _try_rows(
    out: Floats, codes: Codes, first: Floats, here: int, low: int, high: int, count: int,
    square: np.float32,
) -> None:  # fmt: skip
    """Lower a stretch of `out` to what comes by the same place of two rows at one distance.

    `here`, `low` and `high` are where the stretches begin in arrays of one axis. A voxel of
    another label there is a border itself; of one of the same label the border nearest to it
    counts. Whether other labels lie between need not be asked: one that does has been tried
    already, and was nearer. Without branches, and with unsigned places that are never looked at
    for being negative, so that it runs in vectors.
    """
    h, lo, hi = np.uintp(here), np.uintp(low), np.uintp(high)
    for x in range(np.uintp(count)):
        own = codes[h + x]
        a = first[lo + x] if codes[lo + x] == own else np.float32(0)
        b = first[hi + x] if codes[hi + x] == own else np.float32(0)
        out[h + x] = min(out[h + x], min(a, b) + square)


@part(fastmath={"nnan", "nsz"})
def _highest(row: Floats, start: int, count: int) -> np.float32:
    top, first = np.float32(0), np.uintp(start)
    for x in range(np.uintp(count)):
        top = max(top, row[first + x])
    return top


#: Voxels of a row that are tried together: a deep place keeps only so many others waiting.
_STRETCH = 64


@kernel()
def by_rows(codes: Codes, first: Floats, size: np.float32, out: Floats) -> None:
    """The pass along axis 0 of (N, M) by rows ever farther away."""
    n, m = codes.shape
    flat_codes, flat_first, flat = codes.reshape(-1), first.reshape(-1), out.reshape(-1)
    for x in range(n * m):  # a loop, since numba compiles an array that is set for three seconds
        flat[x] = flat_first[x]
    for a in range(0, m, _STRETCH):
        count = min(_STRETCH, m - a)
        for y in range(n):
            here = y * m + a
            top = _highest(flat, here, count)
            for k in range(1, n):
                square = np.float32(k) * size * (np.float32(k) * size)
                low, high = y - k, y + k
                if square >= top or (low < 0 and high >= n):
                    break
                low = high if low < 0 else low
                high = low if high >= n else high
                _try_rows(
                    flat, flat_codes, flat_first, here, low * m + a, high * m + a, count, square
                )
                if k == 2 or k % 4 == 0:  # looked at rarely: it costs half of a try
                    top = _highest(flat, here, count)


@kernel()
def by_envelopes(codes: Codes, first: Floats, size: np.float32, out: Floats) -> None:
    """The pass along axis 0 of (N, M) by lower envelopes, one for each run of a column."""
    n, m = codes.shape
    at, floor = np.empty(n + 2, np.int64), np.empty(n + 2, np.float32)
    begin = np.empty(n + 2, np.float64)  # single precision would shift ties of long columns
    weight = np.float64(size) * np.float64(size)
    for x in range(m):
        start = 0
        while start < n:
            stop = start + 1
            while stop < n and codes[stop, x] == codes[start, x]:
                stop += 1
            last = -1
            for q in range(start - 1, stop + 1):
                if q < 0 or q >= n:
                    continue
                height = first[q, x] if start <= q < stop else np.float32(0)
                if height >= FAR:
                    continue
                here = 0.0
                while last >= 0:
                    p = at[last]
                    here = 0.5 * ((height - floor[last]) / (weight * (q - p)) + (q + p))
                    if here > begin[last]:
                        break
                    last -= 1
                last += 1
                at[last], floor[last] = q, height
                begin[last] = here if last > 0 else -1.0e30
            which = 0
            for q in range(start, stop):
                if last < 0:
                    out[q, x] = FAR
                    continue
                while which < last and begin[which + 1] < q:
                    which += 1
                away = np.float32(q - at[which]) * size
                out[q, x] = floor[which] + away * away
            start = stop
