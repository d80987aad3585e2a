"""Statistics from how often each integer occurs: exact, whatever the number of voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.fingerprint.facts import Histogram, Statistics

__all__ = [
    "BINS",
    "EMPTY",
    "TIE",
    "histogram",
    "interpolate",
    "pool_images",
    "ranks",
    "statistics_of_counts",
    "weighted_percentiles",
]

Counts = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]

#: Of all voxels. A share that images of equal weight reach exactly is a sum of fractions, which
#: roundings must not miss: they are far smaller than this, and one voxel of an image is larger.
TIE = 1e-10

#: Bins of a histogram that is kept for drawing.
BINS = 1024

EMPTY = Statistics(0, 0.0, 0.0, 0.0, 0.0, {})


def statistics_of_counts(counts: Counts, lowest: int, percentiles: Sequence[float]) -> Statistics:
    """Statistics of integers from their counts.

    Parameters
    ----------
    counts : ndarray of int64
        ``counts[i]`` voxels have the value ``lowest + i``.
    lowest : int
        The value of the first bin.
    percentiles : sequence of float
        0 to 100.

    Returns
    -------
    Statistics
        The mean is the exact sum over the count, rounded once; so is the variance, of
        which the standard deviation is the root. Percentiles are numpy's to the bit.
    """
    (bins,) = np.nonzero(counts)
    n = int(counts.sum())
    if n == 0:
        return EMPTY
    values, often = bins + lowest, counts[bins]
    total, squares = _exact_sums(values, often)
    cumulative = np.cumsum(often)

    def at_rank(rank: Counts) -> Weights:
        return values[np.searchsorted(cumulative, rank, side="right")].astype(np.float64)

    low, high, share = ranks(n, percentiles)
    found = interpolate(at_rank(low), at_rank(high), share)
    return Statistics(
        count=n,
        mean=total / n,
        std=math.sqrt((n * squares - total * total) / (n * n)),
        minimum=float(values[0]),
        maximum=float(values[-1]),
        percentiles=named(percentiles, found),
    )


def pool_images(
    images: Sequence[Statistics], percentiles: Sequence[float], found: Weights
) -> Statistics:
    """Statistics of the mixture in which each image has the same weight.

    Parameters
    ----------
    images : sequence of Statistics
        Of each image; those without voxels do not count.
    percentiles : sequence of float
        0 to 100.
    found : ndarray of float64
        Their values in the mixture.
    """
    used = [s for s in images if s.count]
    if not used:
        return EMPTY
    mean = math.fsum(s.mean for s in used) / len(used)
    variance = math.fsum(s.std**2 + (s.mean - mean) ** 2 for s in used) / len(used)
    return Statistics(
        count=sum(s.count for s in used),
        mean=mean,
        std=math.sqrt(variance),
        minimum=min(s.minimum for s in used),
        maximum=max(s.maximum for s in used),
        percentiles=named(percentiles, found),
    )


def weighted_percentiles(weights: Weights, lowest: int, percentiles: Sequence[float]) -> Weights:
    """The smallest integers up to which the weights reach each percentile of their sum.

    Shares that differ by less than `TIE` are equal.
    """
    (bins,) = np.nonzero(weights)
    if not bins.size:
        return np.zeros(0)
    cumulative = np.cumsum(weights[bins])
    wanted = np.array(percentiles) / 100 * cumulative[-1] - TIE * cumulative[-1]
    place = np.searchsorted(cumulative, wanted, side="left")
    found: Weights = (bins[np.minimum(place, bins.size - 1)] + lowest).astype(np.float64)
    return found


def ranks(n: int, percentiles: Sequence[float]) -> tuple[Counts, Counts, Weights]:
    """The two places in n sorted values that each percentile lies between, and how far along."""
    place = np.array(percentiles, np.float64) / 100 * (n - 1)
    low = np.floor(place)
    share = place - low
    first = low.astype(np.int64)
    return first, np.minimum(first + 1, n - 1), share


def interpolate(low: Weights, high: Weights, share: Weights) -> Weights:
    """Between two values, in the very steps that numpy takes."""
    gap = high - low
    values: Weights = np.where(share >= 0.5, high - gap * (1 - share), low + gap * share)
    return values


def named(percentiles: Sequence[float], values: npt.NDArray[Any]) -> dict[str, float]:
    """Values by the text of their percentile."""
    return {f"{q:g}": float(v) for q, v in zip(percentiles, values, strict=True)}


def histogram(values: npt.NDArray[Any], counts: Counts) -> Histogram:
    """Bins of one width over ascending values."""
    if not values.size:
        return Histogram(0.0, 0.0, ())
    start, stop = float(values[0]), float(values[-1])
    bins = BINS
    if np.issubdtype(values.dtype, np.integer):
        width = math.ceil((stop + 1 - start) / BINS)  # as many values in each bin
        bins = math.ceil((stop + 1 - start) / width)
        stop = start + width * bins
    if stop <= start:
        return Histogram(start, stop, (int(counts.sum()),))
    place = ((values - start) * (bins / (stop - start))).astype(np.int64)
    filled = np.zeros(bins, np.int64)
    np.add.at(filled, np.minimum(place, bins - 1), counts)
    return Histogram(start, stop, tuple(filled.tolist()))


def _exact_sums(values: Counts, often: Counts) -> tuple[int, int]:
    """Sum and sum of squares of integers of at most 17 bits, beyond 64 bits where need be."""
    squares = values * values
    high, low = squares >> 16, squares & 0xFFFF
    total = int((values * often).sum())
    return total, (int((high * often).sum()) << 16) + int((low * often).sum())
