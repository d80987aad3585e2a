"""Statistics of floating point and wide integer intensities, in a few passes of fixed memory.

A float64 read as its bits (the sign turned) is a whole number in the same order.
The first pass counts values by the first 20 of those bits, each further pass by
the next 15, only inside the bins that hold a wanted percentile. float32 takes two
passes, integers of up to 22 bits as well, float64 four. Nothing is approximated, but that
percentiles of integers beyond 2**53 are those of the float64 nearest to each, as numpy's are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from volprep.fingerprint.counts import EMPTY, TIE, interpolate, named, ranks
from volprep.fingerprint.facts import Statistics

__all__ = ["COARSE_BITS", "FINE_BITS", "Moments", "Search", "exact_sums", "key_values"]

Array = npt.NDArray[Any]
Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Bits told apart in the first pass, as in `volprep.kernels.histogram`, and in each further
#: one: together those of a float32.
COARSE_BITS, FINE_BITS = 20, 15


@dataclass
class Moments:
    """Count, mean, spread and range of values that come in parts.

    Means and squared deviations of the parts are merged as Chan, Golub and LeVeque do;
    of integers the exact sums are kept as well and win: `total` and `squares`, None where
    there are none.
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: int | None = 0
    squares: int | None = 0

    @classmethod
    def of(cls, moments: Floats, sums: tuple[int, int] | None) -> Self:
        """What `volprep.kernels.histogram.measure_floats` leaves of one part."""
        count, mean, deviations, least, greatest = moments.tolist()
        if not count:
            return cls()
        total, squares = (None, None) if sums is None else sums
        return cls(int(count), mean, deviations, least, greatest, total, squares)

    def merge(self, other: Moments) -> None:
        """Take in what others are the moments of."""
        if not other.count:
            return
        n = self.count + other.count
        gap = other.mean - self.mean
        self.mean += gap * (other.count / n)
        self.deviations += other.deviations + gap * gap * (self.count / n) * other.count
        self.count = n
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.total = _added(self.total, other.total)
        self.squares = _added(self.squares, other.squares)

    def statistics(self, percentiles: Sequence[float], found: Floats) -> Statistics:
        """The moments as facts, with the percentiles that were searched for."""
        n = self.count
        if not n:
            return EMPTY
        mean, variance = self.mean, self.deviations / n
        if self.total is not None and self.squares is not None:
            mean = self.total / n
            variance = (n * self.squares - self.total * self.total) / (n * n)
        return Statistics(
            n, mean, math.sqrt(variance), self.minimum, self.maximum, named(percentiles, found)
        )


@dataclass
class Search:
    """The values at given places among values that can be counted, but not kept.

    Parameters
    ----------
    percentiles : sequence of float
        0 to 100.
    shared : bool
        The counts are weights that add up over images; places are shares of their sum,
        and a percentile is the smallest value that reaches its share. Otherwise
        percentiles lie between two ranks, as numpy's do.
    """

    percentiles: Sequence[float]
    shared: bool = False
    prefixes: Keys = field(default_factory=lambda: np.zeros(0, np.uint64))
    bits: int = 0
    _rest: Array = field(default_factory=lambda: np.zeros(0))
    _share: Floats = field(default_factory=lambda: np.zeros(0))
    _slack: float = 0.0

    def start(self, counts: Array) -> None:
        """Choose bins by the counts of the first bits of the keys."""
        (bins,) = np.nonzero(counts)
        if not bins.size:
            return
        often = counts[bins]
        if self.shared:
            self._rest = np.array(self.percentiles) / 100 * often.sum()
            self._slack = TIE * float(often.sum())
        else:
            low, high, self._share = ranks(int(often.sum()), self.percentiles)
            self._rest = np.concatenate([low, high])
        place = self._descend(np.broadcast_to(often, (self._rest.size, often.size)))
        self.prefixes = bins[place].astype(np.uint64)
        self.bits = COARSE_BITS

    def step(self, prefixes: Keys, counts: Array, width: int) -> None:
        """Go on by the counts of the next `width` bits, for each of the ascending `prefixes`."""
        if not self.prefixes.size:
            return
        rows = np.searchsorted(prefixes, self.prefixes)
        place = self._descend(counts[rows])
        self.prefixes = (self.prefixes << np.uint64(width)) | place.astype(np.uint64)
        self.bits += width

    def values(self) -> Floats:
        """The percentiles, once every bit in use is known."""
        if not self.prefixes.size:
            return np.zeros(0)
        found = key_values(self.prefixes, self.bits)
        if self.shared:
            return found
        low, high = np.split(found, 2)
        return interpolate(low, high, self._share)

    def _descend(self, counts: Array) -> Counts:
        """For each row of counts the bin that holds its place; the rest is what lies before."""
        places = np.empty(len(counts), np.int64)
        for i, row in enumerate(counts):
            cumulative = np.cumsum(row)
            if self.shared:
                wanted = max(self._rest[i] - self._slack, np.finfo(float).tiny)
                place = int(np.searchsorted(cumulative, wanted, side="left"))
                place = min(place, int(np.flatnonzero(row)[-1]))
            else:
                place = int(np.searchsorted(cumulative, self._rest[i], side="right"))
            places[i] = place
            if place:
                self._rest[i] -= cumulative[place - 1]
        return places


def exact_sums(sums: npt.NDArray[np.uint64], origin: int) -> tuple[int, int]:
    """Sum and sum of squares from a row of `volprep.kernels.histogram.sum_integers`.

    `origin` is the integer that its values are counted from.
    """
    n, high, low, *products = (int(v) for v in sums)
    hh, hl, ll = ((up << 32) + down for up, down in zip(products[::2], products[1::2], strict=True))
    total, squares = (high << 32) + low, (hh << 64) + (hl << 33) + ll
    return total + n * origin, squares + 2 * origin * total + n * origin * origin


def key_values(prefixes: Keys, bits: int) -> Floats:
    """The values whose keys begin with `bits` given bits, the others being those of no use."""
    shift = 64 - bits
    keys = prefixes << np.uint64(shift)
    positive = (keys >> np.uint64(63)).astype(bool)
    unused = np.uint64((1 << shift) - 1)
    raw = np.where(positive, keys ^ np.uint64(1 << 63), ~(keys | unused))
    return raw.view(np.float64)


def _added(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
