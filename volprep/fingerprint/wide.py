"""Measuring images of floating point or wide integers: passes until every percentile is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.fingerprint.counts import histogram, pool_images
from volprep.fingerprint.facts import (
    CaseFacts,
    Distribution,
    Histogram,
    Region,
    Statistics,
    Weighting,
)
from volprep.fingerprint.floats import (
    COARSE_BITS,
    FINE_BITS,
    Moments,
    Search,
    exact_sums,
    key_values,
)
from volprep.fingerprint.labels import LabelCount, as_ids, as_mask
from volprep.fingerprint.walk import closing
from volprep.fingerprint.work import Job, Measured, measured_in_parts
from volprep.geometry import Box

__all__ = ["measure_wide"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

#: An image block and its label block together; the float64 copies come on top.
BLOCK_BYTES = 4 * 2**20

_BACKGROUND, _FOREGROUND = 0, 1
_ALL = 0
_REGIONS: tuple[Region, Region] = ("all", "foreground")


@dataclass
class _FirstPass:
    """Moments and counts by the first bits; lists are by channel, then by row."""

    counts: Counts
    moments: list[list[Moments]]
    labels: LabelCount | None
    used_bits: int

    def merge(self, other: _FirstPass) -> None:
        """Add the part that comes next along z."""
        self.counts += other.counts
        for mine, theirs in zip(self.moments, other.moments, strict=True):
            for row, moments in zip(mine, theirs, strict=True):
                row.merge(moments)
        if self.labels is not None and other.labels is not None:
            self.labels.merge(other.labels)
        self.used_bits |= other.used_bits


@dataclass
class _FineCounts:
    """Counts by the next bits at the prefixes of each channel; by row, then by prefix."""

    counts: list[Counts]

    def merge(self, other: _FineCounts) -> None:
        """Add the part that comes next along z."""
        for mine, theirs in zip(self.counts, other.counts, strict=True):
            mine += theirs


@dataclass
class _Case:
    """One image on its way; lists are by channel, then by region."""

    job: Job
    labels: LabelCount | None
    moments: list[list[Moments]]
    searches: list[list[Search]]
    used_bits: int

    @property
    def regions(self) -> range:
        return range(1 if self.labels is None else 2)


def measure_wide(
    jobs: Sequence[Job],
    *,
    percentiles: Sequence[float],
    workers: int | None,
    progress: Callable[[int], None],
) -> Measured:
    """Measure images whose values are too many to count one by one.

    Parameters
    ----------
    jobs : sequence of Job
        Of any dtype.
    percentiles, workers, progress
        As for `compute_fingerprint`; progress is that of the first pass.
    """
    regions = [job.regions for job in jobs]
    found, pools = [], _Pools(percentiles)

    def begin(number: int, region: Box) -> _FirstPass:
        return _first_pass(jobs[number], region, progress)

    first = measured_in_parts(begin, regions, workers=workers, ahead=False)
    for job, result in zip(jobs, first, strict=True):
        found.append(_begun(job, result, percentiles))
        pools.add_coarse(found[-1], result.counts)
    pools.start()
    bits, needed = COARSE_BITS, _bits_in_use(found)
    while bits < needed:
        width = min(FINE_BITS, 64 - bits)
        pools.begin(width)
        wanted = [pools.wanted(case) for case in found]
        refine = partial(_refine, found, wanted, 64 - bits - width, width)
        fine = measured_in_parts(refine, regions, workers=workers, ahead=False)
        for case, prefixes, refined in zip(found, wanted, fine, strict=True):
            for c, counts in enumerate(refined.counts):
                counts[_ALL] += counts[_FOREGROUND]
                for search, of_region in zip(case.searches[c], counts, strict=True):
                    search.step(prefixes[c], of_region, width)
            pools.add(case, prefixes, refined.counts)
        pools.step(width)
        bits += width
    facts = [_facts(case, percentiles) for case in found]
    return Measured(
        cases=facts,
        pooled=pools.statistics(found, facts),
        histograms=pools.histograms(found),
        labelled=pools.labelled(found),
        sizes=[case.labels.sizes() for case in found if case.labels is not None],
    )


class _Pools:
    """The counts of all images together, for the searches that are under way."""

    def __init__(self, percentiles: Sequence[float]) -> None:
        self.percentiles = percentiles
        self.regions = range(1)
        self.prefixes: list[Keys] = []
        self._coarse: list[list[tuple[Counts, Array]]] = []
        self._fine: list[list[tuple[Counts, Array]]] = []
        self._searches: list[list[tuple[Search, Search]]] = []

    def add_coarse(self, case: _Case, counts: Counts) -> None:
        """Add the first counts of an image, each voxel alike and each image alike."""
        if not self._coarse:
            self._coarse = [
                [(np.zeros(2**COARSE_BITS, np.int64), np.zeros(2**COARSE_BITS)) for _ in _REGIONS]
                for _ in counts
            ]
        self.regions = range(max(len(self.regions), len(case.regions)))
        for c, of_channel in enumerate(counts):
            for r in case.regions:
                bins = np.flatnonzero(of_channel[r])
                often = of_channel[r][bins]
                by_voxel, by_image = self._coarse[c][r]
                by_voxel[bins] += often
                by_image[bins] += often / max(1, case.moments[c][r].count)

    def start(self) -> None:
        """Begin the searches."""
        self._searches = [
            [
                (Search(self.percentiles), Search(self.percentiles, shared=True))
                for _ in self.regions
            ]
            for _ in self._coarse
        ]
        for c, regions in enumerate(self._searches):
            for r, searches in enumerate(regions):
                for search, counts in zip(searches, self._coarse[c][r], strict=True):
                    search.start(counts)

    def begin(self, width: int) -> None:
        """Make ready to count the next `width` bits."""
        self.prefixes = [
            np.unique(np.concatenate([s.prefixes for region in channel for s in region]))
            for channel in self._searches
        ]
        shapes = [(len(prefixes), 2**width) for prefixes in self.prefixes]
        self._fine = [
            [(np.zeros(shape, np.int64), np.zeros(shape)) for _ in self.regions] for shape in shapes
        ]

    def wanted(self, case: _Case) -> list[Keys]:
        """The prefixes to count for an image: those of its own searches, and the shared ones."""
        return [
            np.unique(np.concatenate([shared, *(s.prefixes for s in own)]))
            for shared, own in zip(self.prefixes, case.searches, strict=True)
        ]

    def add(self, case: _Case, prefixes: Sequence[Keys], counts: Sequence[Counts]) -> None:
        """Add the counts of an image at its prefixes."""
        for c, of_channel in enumerate(counts):
            rows = np.searchsorted(prefixes[c], self.prefixes[c])
            for r in case.regions:
                often = of_channel[r][rows]
                by_voxel, by_image = self._fine[c][r]
                by_voxel += often
                by_image += often / max(1, case.moments[c][r].count)

    def step(self, width: int) -> None:
        """Go on with the searches by those bits."""
        for c, regions in enumerate(self._searches):
            for r, searches in enumerate(regions):
                for search, counts in zip(searches, self._fine[c][r], strict=True):
                    search.step(self.prefixes[c], counts, width)

    def statistics(
        self, cases: Sequence[_Case], facts: Sequence[CaseFacts]
    ) -> dict[Weighting, dict[Region, tuple[Statistics, ...]]]:
        """Both ways of pooling, in each region, for each channel."""
        by_voxel: dict[Region, tuple[Statistics, ...]] = {}
        by_image: dict[Region, tuple[Statistics, ...]] = {}
        for r in self.regions:
            of_case = [f.everywhere if r == _ALL else f.foreground for f in facts]
            voxels, images = [], []
            for c, regions in enumerate(self._searches):
                moments = Moments()
                for case in cases:
                    if r in case.regions:
                        moments.merge(case.moments[c][r])
                voxels.append(moments.statistics(self.percentiles, regions[r][0].values()))
                images.append(
                    pool_images(
                        [s[c] for s in of_case if s], self.percentiles, regions[r][1].values()
                    )
                )
            by_voxel[_REGIONS[r]], by_image[_REGIONS[r]] = tuple(voxels), tuple(images)
        return {"voxel": by_voxel, "image": by_image}

    def histograms(self, cases: Sequence[_Case]) -> tuple[Histogram, ...]:
        """For drawing, from the first counts, which are known to 1/256 of a value."""
        drawn = []
        for c, regions in enumerate(self._coarse):
            bins = np.flatnonzero(regions[_ALL][0])
            values = key_values(bins.astype(np.uint64), COARSE_BITS)
            if bins.size:
                values[0] = min(case.moments[c][_ALL].minimum for case in cases)
                values[-1] = max(case.moments[c][_ALL].maximum for case in cases)
            drawn.append(histogram(values, regions[_ALL][0][bins]))
        return tuple(drawn)

    def labelled(self, cases: Sequence[_Case]) -> tuple[Distribution, ...]:
        """How the labelled voxels are spread, from the first counts; empty without labels."""
        if _FOREGROUND not in self.regions:
            return ()
        spread = []
        for c, regions in enumerate(self._coarse):
            moments = [case.moments[c][_FOREGROUND] for case in cases]
            least = min(m.minimum for m in moments)
            greatest = max(m.maximum for m in moments)
            bins = np.flatnonzero(regions[_FOREGROUND][0])
            first, last = (np.clip(ends, least, greatest) for ends in _ends(bins))
            spread.append(Distribution.of(first, last, regions[_FOREGROUND][0][bins]))
        return tuple(spread)


def _ends(bins: Counts) -> tuple[Array, Array]:
    """The values between which those of each first count lie; away from 0 a bin grows."""
    values = key_values(bins.astype(np.uint64), COARSE_BITS)
    with np.errstate(invalid="ignore"):  # beyond the largest number there is none
        after = key_values(bins.astype(np.uint64) + np.uint64(1), COARSE_BITS)
        before = key_values(bins.astype(np.uint64) - np.uint64(1), COARSE_BITS)
    negative = bins < 2 ** (COARSE_BITS - 1)
    first = np.where(negative, before, values)
    last = np.where(negative, values, after)
    return np.nan_to_num(first, nan=-np.inf), np.nan_to_num(last, nan=np.inf)


def _first_pass(job: Job, region: Box, progress: Callable[[int], None]) -> _FirstPass:
    """Moments, labels, and counts by the first bits of one part of an image."""
    from volprep.kernels.histogram import measure_floats

    pair = job.opened(region)
    channels = range(pair.image.shape[0])
    counts = np.zeros((len(channels), 2, 2**COARSE_BITS), np.int64)
    moments = [[Moments(), Moments()] for _ in channels]
    labels = None if pair.label is None else LabelCount(pair.region)
    used = np.zeros(1, np.uint64)
    with closing(pair.image), closing(pair.label):
        for box, block, ids in pair.blocks(BLOCK_BYTES):
            if labels is not None and ids is not None:
                labels.add(box, as_ids(ids))
            for c in channels:
                found = np.tile([0, 0, 0, np.inf, -np.inf], (2, 1))
                measure_floats(_floats(block[c]), _mask(ids), counts[c], found, used)
                sums = _sums(block[c], ids)
                for row in range(2):
                    moments[c][row].merge(
                        Moments.of(found[row], None if sums is None else sums[row])
                    )
            progress(box.size)
    return _FirstPass(counts, moments, labels, int(used[0]))


def _begun(job: Job, first: _FirstPass, percentiles: Sequence[float]) -> _Case:
    """A case whose own searches have begun; background becomes all voxels on the way."""
    first.counts[:, _ALL] += first.counts[:, _FOREGROUND]
    searches = []
    for moments, counts in zip(first.moments, first.counts, strict=True):
        moments[_BACKGROUND].merge(moments[_FOREGROUND])
        own = [Search(percentiles) for _ in _REGIONS]
        for search, of_region in zip(own, counts, strict=True):
            search.start(of_region)
        searches.append(own)
    return _Case(job, first.labels, first.moments, searches, first.used_bits)


def _refine(
    cases: Sequence[_Case],
    wanted: Sequence[Sequence[Keys]],
    shift: int,
    width: int,
    number: int,
    region: Box,
) -> _FineCounts:
    """Count the next bits of one part of an image where a search asks for them."""
    from volprep.kernels.histogram import refine_keys

    prefixes = wanted[number]
    begun = [_begun_by(p, 64 - shift - width) for p in prefixes]
    pair = cases[number].job.opened(region)
    counts = [np.zeros((2, len(p), 2**width), np.int64) for p in prefixes]
    with closing(pair.image), closing(pair.label):
        for _, block, ids in pair.blocks(BLOCK_BYTES):
            for c, channel in enumerate(block):
                refine_keys(
                    _floats(channel), _mask(ids), prefixes[c], begun[c], shift, width, counts[c]
                )
    return _FineCounts(counts)


def _floats(channel: Array) -> npt.NDArray[np.float64]:
    """The voxels in a row."""
    return np.ascontiguousarray(channel, np.float64).reshape(-1)


def _mask(ids: Array | None) -> npt.NDArray[np.uint8]:
    """Where a label is, in a row; nothing without labels."""
    return np.zeros(0, np.uint8) if ids is None else np.ascontiguousarray(as_mask(ids)).reshape(-1)


def _sums(channel: Array, ids: Array | None) -> list[tuple[int, int]] | None:
    """Exact sums of integers and of their squares, by row; None for other numbers."""
    from volprep.kernels.histogram import sum_integers

    if channel.dtype.kind not in "iu":
        return None
    signed = channel.dtype.kind == "i"
    wide = np.ascontiguousarray(channel, np.int64 if signed else np.uint64).reshape(-1)
    sums = np.zeros((2, 9), np.uint64)
    flipped = wide.view(np.uint64) ^ np.uint64(1 << 63) if signed else wide
    sum_integers(flipped, _mask(ids), sums)
    return [exact_sums(row, -(2**63) if signed else 0) for row in sums]


def _begun_by(prefixes: Keys, bits: int) -> npt.NDArray[np.bool_]:
    """For each choice of the first bits, whether one of the prefixes of `bits` begins with it."""
    begun = np.zeros(2**COARSE_BITS, np.bool_)
    begun[prefixes >> np.uint64(bits - COARSE_BITS)] = True
    return begun


def _bits_in_use(cases: Sequence[_Case]) -> int:
    """How many leading bits tell all values apart."""
    used = 0
    for case in cases:
        used |= case.used_bits
    return 64 - ((used & -used).bit_length() - 1) if used else 0


def _facts(case: _Case, percentiles: Sequence[float]) -> CaseFacts:
    regions = [
        tuple(
            moments[r].statistics(percentiles, searches[r].values())
            for moments, searches in zip(case.moments, case.searches, strict=True)
        )
        for r in case.regions
    ]
    head, dtype = case.job.head, case.job.label_dtype
    if case.labels is None or dtype is None:
        return replace(head, everywhere=regions[_ALL])
    return replace(
        head,
        everywhere=regions[_ALL],
        foreground=regions[_FOREGROUND],
        labels=case.labels.facts(dtype),
    )
