"""Measuring images of floating point or wide integers: passes until every percentile is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.compute import default_workers, run_units
from volprep.fingerprint.counts import histogram, pool_images
from volprep.fingerprint.facts import CaseFacts, Histogram, Region, Statistics, Weighting
from volprep.fingerprint.floats import (
    COARSE_BITS,
    FINE_BITS,
    Moments,
    Search,
    finite_values,
    key_values,
)
from volprep.fingerprint.labels import LabelCount, as_ids
from volprep.fingerprint.walk import FingerprintInput, Opened, closing, opened

__all__ = ["Measured", "measure_wide"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

#: An image block and its label block together; the float64 copies come on top.
BLOCK_BYTES = 4 * 2**20

_BACKGROUND, _FOREGROUND = 0, 1
_ALL = 0
_REGIONS: tuple[Region, Region] = ("all", "foreground")


@dataclass(frozen=True)
class Measured:
    """What is known of all images together.

    Attributes
    ----------
    cases : sequence of CaseFacts
        In the order of the cases.
    pooled, histograms
        As in `Fingerprint`.
    sizes : sequence of ndarray
        Voxels of each id, for each labelled case.
    """

    cases: Sequence[CaseFacts]
    pooled: dict[Weighting, dict[Region, tuple[Statistics, ...]]]
    histograms: tuple[Histogram, ...]
    sizes: Sequence[Counts]


@dataclass
class _Case:
    """One image on its way; lists are by channel, then by region."""

    item: FingerprintInput
    facts: CaseFacts
    sizes: Counts | None
    moments: list[list[Moments]]
    searches: list[list[Search]]
    coarse: list[tuple[Array, Counts]]
    used_bits: int

    @property
    def regions(self) -> range:
        return range(1 if self.sizes is None else 2)


def measure_wide(
    cases: Sequence[FingerprintInput],
    *,
    percentiles: Sequence[float],
    workers: int | None,
    progress: Callable[[int], None],
) -> Measured:
    """Measure images whose values are too many to count one by one.

    Parameters
    ----------
    cases, percentiles, workers, progress
        As for `compute_fingerprint`.

    Returns
    -------
    Measured
    """
    threads = default_workers() if workers is None else max(1, workers)
    found, pools = [], _Pools(percentiles)
    for case in _in_turn(partial(_first_pass, percentiles=percentiles), cases, threads):
        pools.add_coarse(case)
        case.coarse = []
        found.append(case)
        progress(1)
    pools.start()
    bits, needed = COARSE_BITS, _bits_in_use(found)
    while bits < needed:
        width = min(FINE_BITS, 64 - bits)
        pools.begin(width)
        refine = partial(_refine, pools=pools, shift=64 - bits - width, width=width)
        for case, counts in zip(found, _in_turn(refine, found, threads), strict=True):
            pools.add(case, counts)
        pools.step(width)
        bits += width
    facts = [_facts(case, percentiles) for case in found]
    return Measured(
        cases=facts,
        pooled=pools.statistics(found, facts),
        histograms=pools.histograms(found),
        sizes=[case.sizes for case in found if case.sizes is not None],
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

    def add_coarse(self, case: _Case) -> None:
        """Add the first counts of an image, to each voxel alike and to each image alike."""
        if not self._coarse:
            self._coarse = [
                [(np.zeros(2**COARSE_BITS, np.int64), np.zeros(2**COARSE_BITS)) for _ in _REGIONS]
                for _ in case.coarse
            ]
        self.regions = range(max(len(self.regions), len(case.regions)))
        for c, (bins, counts) in enumerate(case.coarse):
            for r in case.regions:
                by_voxel, by_image = self._coarse[c][r]
                by_voxel[bins] += counts[r]
                by_image[bins] += counts[r] / max(1, case.moments[c][r].count)

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

    def add(self, case: _Case, counts: Sequence[Counts]) -> None:
        """Add the counts of an image at `prefixes`."""
        for c, of_channel in enumerate(counts):
            for r in case.regions:
                by_voxel, by_image = self._fine[c][r]
                by_voxel += of_channel[r]
                by_image += of_channel[r] / max(1, case.moments[c][r].count)

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


def _first_pass(item: FingerprintInput, *, percentiles: Sequence[float]) -> _Case:
    """Moments, labels, and counts by the first bits; the image's own searches begin."""
    from volprep.kernels.histogram import count_keys

    pair = opened(item)
    channels = range(pair.image.shape[0])
    counts = np.zeros((len(channels), 2, 2**COARSE_BITS), np.int64)
    moments = [[Moments(), Moments()] for _ in channels]
    labels = None if pair.label is None else LabelCount(pair.region)
    used = np.uint64(0)
    with closing(pair.image), closing(pair.label):
        for box, block, ids in pair.blocks(BLOCK_BYTES):
            if labels is not None and ids is not None:
                labels.add(box, as_ids(ids))
            for c in channels:
                for row, values in _parts(block[c], ids):
                    own, floats = finite_values(values)
                    bits = floats.view(np.uint64)
                    moments[c][row].add(own, floats)
                    count_keys(bits, counts[c, row])
                    used |= np.bitwise_or.reduce(bits)
    searches = []
    for c in channels:
        counts[c, _ALL] += counts[c, _FOREGROUND]
        background = moments[c][_BACKGROUND]
        background.merge(moments[c][_FOREGROUND])
        own_searches = [Search(percentiles) for _ in _REGIONS]
        for search, of_region in zip(own_searches, counts[c], strict=True):
            search.start(of_region)
        searches.append(own_searches)
    facts = CaseFacts(
        name=item.name,
        shape=pair.image.shape,
        dtype=str(pair.image.dtype),
        spacing=pair.image.spacing,
        labels=None if labels is None else labels.facts(pair.label_dtype),
    )
    sizes = None if labels is None else labels.sizes()
    return _Case(item, facts, sizes, moments, searches, [_sparse(c) for c in counts], int(used))


def _refine(case: _Case, *, pools: _Pools, shift: int, width: int) -> list[Counts]:
    """Count the next bits where a search asks for them; the image's own searches go on."""
    wanted = [
        np.unique(np.concatenate([shared, *(s.prefixes for s in own)]))
        for shared, own in zip(pools.prefixes, case.searches, strict=True)
    ]
    counts = _fine_counts(opened(case.item), wanted, shift, width)
    shared_counts = []
    for c, prefixes in enumerate(wanted):
        counts[c][_ALL] += counts[c][_FOREGROUND]
        for search, of_region in zip(case.searches[c], counts[c], strict=True):
            search.step(prefixes, of_region, width)
        rows = np.searchsorted(prefixes, pools.prefixes[c])
        shared_counts.append(counts[c][:, rows])
    return shared_counts


def _fine_counts(pair: Opened, prefixes: Sequence[Keys], shift: int, width: int) -> list[Counts]:
    from volprep.kernels.histogram import refine_keys

    counts = [np.zeros((2, len(p), 2**width), np.int64) for p in prefixes]
    with closing(pair.image), closing(pair.label):
        for _, block, ids in pair.blocks(BLOCK_BYTES):
            for c, channel in enumerate(block):
                for row, values in _parts(channel, ids):
                    _, floats = finite_values(values)
                    refine_keys(floats.view(np.uint64), prefixes[c], shift, width, counts[c][row])
    return counts


def _parts(channel: Array, ids: Array | None) -> Iterator[tuple[int, Array]]:
    """Background and foreground, each in a row."""
    if ids is None:
        yield _BACKGROUND, channel.reshape(-1)
        return
    inside = ids != 0
    yield _BACKGROUND, channel[~inside]
    yield _FOREGROUND, channel[inside]


def _sparse(counts: Counts) -> tuple[Array, Counts]:
    """The bins that are not empty in both regions, with their counts."""
    bins = np.flatnonzero(counts[_ALL])
    return bins, counts[:, bins]


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
    known = case.facts
    return CaseFacts(
        name=known.name,
        shape=known.shape,
        dtype=known.dtype,
        spacing=known.spacing,
        everywhere=regions[_ALL],
        foreground=regions[_FOREGROUND] if len(regions) > 1 else None,
        labels=known.labels,
    )


def _in_turn(function: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """As many at a time as there are workers, so that few results wait in memory."""
    for start in range(0, len(items), workers):
        yield from run_units(function, items[start : start + workers], workers=workers)
