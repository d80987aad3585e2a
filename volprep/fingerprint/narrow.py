"""Measuring images of integers up to 16 bits: every value is counted, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.fingerprint.counts import (
    histogram,
    pool_images,
    statistics_of_counts,
    weighted_percentiles,
)
from volprep.fingerprint.facts import (
    CaseFacts,
    Distribution,
    LabelFacts,
    Region,
    Statistics,
    Weighting,
)
from volprep.fingerprint.labels import LabelCount, as_ids
from volprep.fingerprint.walk import closing
from volprep.fingerprint.work import Job, Measured, measured_in_parts
from volprep.geometry import Box, VolumeLike

__all__ = ["Counted", "Counting", "is_narrow", "measure_narrow"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

#: An image block and its label block together, for each worker.
BLOCK_BYTES = 4 * 2**20
#: Voxels that are counted in 32 bits.
_MOST = 2**32 - 1
#: Every integer of 16 bits, with a sign or without, in one histogram.
_LOWEST, _SPAN = -(2**15), 2**15 + 2**16

_ALL, _FOREGROUND = 0, 1


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether every value of a dtype can have a bin of its own."""
    return dtype.kind in "iub" and dtype.itemsize <= 2


def measure_narrow(
    jobs: Sequence[Job],
    *,
    percentiles: Sequence[float],
    workers: int | None,
    progress: Callable[[int], None],
    known: Mapping[str, Counted],
) -> Measured:
    """Count every value, and keep the counts of all images together.

    Parameters
    ----------
    jobs : sequence of Job
        Of images whose dtype `is_narrow`.
    percentiles, workers, progress, known
        As for `compute_fingerprint`.
    """
    facts, sizes = [], []
    shape = (jobs[0].head.shape[0], 2, _SPAN)
    voxels, images = np.zeros(shape, np.int64), np.zeros(shape)
    unknown = [job for job in jobs if job.head.name not in known]

    def count(number: int, region: Box) -> Counting:
        return _count_part(unknown[number], region, progress)

    parts = measured_in_parts(count, [job.regions for job in unknown], workers=workers)
    for job in jobs:
        counted = known.get(job.head.name)
        if counted is None:
            counted = next(parts).counted()
        else:
            progress(sum(region.size for region in job.regions))
        counts, lowest = counted.dense()
        place = slice(lowest - _LOWEST, lowest - _LOWEST + counts.shape[2])
        voxels[..., place] += counts
        images[..., place] += counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
        facts.append(_facts(job, counted, counts, lowest, percentiles))
        if counted.labels is not None:
            sizes.append(counted.sizes)
    drawn = [(np.flatnonzero(channel[_ALL]), channel[_ALL]) for channel in voxels]
    return Measured(
        cases=facts,
        pooled=_pooled(facts, voxels, images, percentiles),
        histograms=tuple(histogram(bins + _LOWEST, counts[bins]) for bins, counts in drawn),
        labelled=_labelled(voxels) if sizes else (),
        sizes=sizes,
    )


def _labelled(voxels: Counts) -> tuple[Distribution, ...]:
    """How the labelled voxels of each channel are spread."""
    rows = [channel[_FOREGROUND] for channel in voxels]
    bins = [np.flatnonzero(row) for row in rows]
    return tuple(
        Distribution.of(b + _LOWEST, b + _LOWEST, row[b]) for b, row in zip(bins, rows, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """How often each value occurs in an image and in its foreground, and what its labels are.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the image.
    values : ndarray of int64
        Those that occur, ascending.
    counts : ndarray of int64, shape (C, 2, values)
        Of all voxels, and of the foreground.
    labels : LabelFacts or None
    sizes : ndarray of int64
        Voxels of each id.
    """

    dtype: np.dtype[Any]
    values: Counts
    counts: Counts
    labels: LabelFacts | None
    sizes: Counts

    def dense(self) -> tuple[Counts, int]:
        """The counts of every value that the dtype has, and the least of them."""
        least = int(np.iinfo(self.dtype).min)
        counts = np.zeros((*self.counts.shape[:2], 2 ** (8 * self.dtype.itemsize)), np.int64)
        counts[..., self.values - least] = self.counts
        return counts, least


class Counting:
    """Counts an image and its labels; blocks come in the order z, y, x and cover a region.

    Parameters
    ----------
    image : Volume
        Of a dtype that `is_narrow`.
    label : Volume or None
    region : Box
    ids : LabelCount or None
        Counts the labels of the region already, and is fed and merged by whoever made it.
    """

    def __init__(
        self,
        image: VolumeLike,
        label: VolumeLike | None,
        region: Box,
        *,
        ids: LabelCount | None = None,
    ) -> None:
        self._dtype = image.dtype
        self._label_dtype = None if label is None else label.dtype
        # By channel, by whether they are foreground, and by the bits of their value; what is
        # counted in 32 bits is added before it is too much for them.
        kinds = 2 ** (8 * image.dtype.itemsize)
        self._counts: Counts = np.zeros((image.shape[0], 2, kinds), np.int64)
        self._recent = np.zeros((image.shape[0], 4 if kinds == 256 else 2, 2 * kinds), np.uint32)
        self._left = _MOST
        self._labels = LabelCount(region) if label is not None and ids is None else ids
        self._own = ids is None

    def add(self, box: Box, image: Array, label: Array | None) -> None:
        """Count a block: (C, Z, Y, X) of the image, (Z, Y, X) of the labels."""
        from volprep.kernels import histogram as kernels

        count = kernels.count_bytes if self._dtype.itemsize == 1 else kernels.count_words
        ids = np.zeros(0, np.uint8)
        if self._labels is not None and label is not None:
            ids = as_ids(label)
            if self._own:
                self._labels.add(box, ids)
            ids = np.ascontiguousarray(ids).reshape(-1)
        for first in range(0, box.size, _MOST):
            last = min(box.size, first + _MOST)
            if self._left < last - first:
                self._sum_up()
            self._left -= last - first
            for channel, tables in zip(image, self._recent, strict=True):
                count(_unsigned(channel)[first:last], ids[first:last], tables)

    def _sum_up(self) -> None:
        self._counts += self._recent.sum(axis=1, dtype=np.int64).reshape(self._counts.shape)
        self._recent[...] = 0
        self._left = _MOST

    def merge(self, other: Counting) -> None:
        """Add the region that comes next along z."""
        other._sum_up()
        self._counts += other._counts
        if self._own and self._labels is not None and other._labels is not None:
            self._labels.merge(other._labels)

    def counted(self) -> Counted:
        """What was counted, in little memory."""
        self._sum_up()
        counts, least = self._counts, 0
        if self._dtype.kind == "i":
            half = counts.shape[2] // 2
            counts, least = np.roll(counts, half, axis=2), -half
        (values,) = np.nonzero(counts.any(axis=(0, 1)))
        found = counts[..., values]
        labels, sizes = None, np.zeros(0, np.int64)
        if self._labels is not None and self._label_dtype is not None:
            labels, sizes = self._labels.facts(self._label_dtype), self._labels.sizes()
        both = np.stack([found[:, 0] + found[:, 1], found[:, 1]], axis=1)
        return Counted(self._dtype, values + least, both, labels, sizes)


def _count_part(job: Job, region: Box, progress: Callable[[int], None]) -> Counting:
    """Count one part of an image and its labels, block by block."""
    pair = job.opened(region)
    with closing(pair.image), closing(pair.label):
        counting = Counting(pair.image, pair.label, pair.region)
        for box, block, ids in pair.blocks(BLOCK_BYTES):
            counting.add(box, block, ids)
            progress(box.size)
    return counting


def _facts(
    job: Job, counted: Counted, counts: Counts, lowest: int, percentiles: Sequence[float]
) -> CaseFacts:
    def channels(row: int) -> tuple[Statistics, ...]:
        return tuple(statistics_of_counts(count[row], lowest, percentiles) for count in counts)

    if counted.labels is None:
        return replace(job.head, everywhere=channels(_ALL))
    return replace(
        job.head,
        everywhere=channels(_ALL),
        foreground=channels(_FOREGROUND),
        labels=counted.labels,
    )


def _pooled(
    facts: Sequence[CaseFacts], voxels: Counts, images: Array, percentiles: Sequence[float]
) -> dict[Weighting, dict[Region, tuple[Statistics, ...]]]:
    """Both ways of pooling, in both regions, for each channel."""
    by_voxel: dict[Region, tuple[Statistics, ...]] = {}
    by_image: dict[Region, tuple[Statistics, ...]] = {}
    rows: dict[Region, int] = {"all": _ALL}
    if any(case.foreground for case in facts):
        rows["foreground"] = _FOREGROUND
    for region, row in rows.items():
        of_case = [case.everywhere if row == _ALL else case.foreground for case in facts]
        by_voxel[region] = tuple(
            statistics_of_counts(channel[row], _LOWEST, percentiles) for channel in voxels
        )
        by_image[region] = tuple(
            pool_images(
                [statistics[c] for statistics in of_case if statistics],
                percentiles,
                weighted_percentiles(channel[row], _LOWEST, percentiles),
            )
            for c, channel in enumerate(images)
        )
    return {"voxel": by_voxel, "image": by_image}


def _unsigned(channel: Array) -> Array:
    """The voxels of a channel in a row, their bits read without a sign."""
    return np.ascontiguousarray(channel).reshape(-1).view(f"u{channel.dtype.itemsize}")
