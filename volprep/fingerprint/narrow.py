"""Measuring images of integers up to 16 bits: every value is counted, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from volprep.fingerprint.facts import CaseFacts, Distribution, Region, Statistics, Weighting
from volprep.fingerprint.labels import LabelCount, as_ids, as_mask
from volprep.fingerprint.walk import closing
from volprep.fingerprint.work import Job, Measured, measured_in_parts
from volprep.geometry import Box

__all__ = ["is_narrow", "measure_narrow"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

#: An image block and its label block together, for each worker.
BLOCK_BYTES = 4 * 2**20
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
) -> Measured:
    """Count every value, and keep the counts of all images together.

    Parameters
    ----------
    jobs : sequence of Job
        Of images whose dtype `is_narrow`.
    percentiles, workers, progress
        As for `compute_fingerprint`.
    """
    facts, sizes = [], []
    shape = (jobs[0].head.shape[0], 2, _SPAN)
    voxels, images = np.zeros(shape, np.int64), np.zeros(shape)

    def count(number: int, region: Box) -> _Counted:
        return _count_part(jobs[number], region, progress)

    parts = measured_in_parts(count, [job.regions for job in jobs], workers=workers)
    for job, counted in zip(jobs, parts, strict=True):
        counts, lowest = counted.by_region(np.dtype(job.head.dtype))
        place = slice(lowest - _LOWEST, lowest - _LOWEST + counts.shape[2])
        voxels[..., place] += counts
        images[..., place] += counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
        facts.append(_facts(job, counted, counts, lowest, percentiles))
        if counted.labels is not None:
            sizes.append(counted.labels.sizes())
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


@dataclass
class _Counted:
    """Voxels by channel, by whether they are foreground, and by the bits of their value."""

    counts: Counts
    labels: LabelCount | None

    def merge(self, other: _Counted) -> None:
        """Add the part that comes next along z."""
        self.counts += other.counts
        if self.labels is not None and other.labels is not None:
            self.labels.merge(other.labels)

    def by_region(self, dtype: np.dtype[Any]) -> tuple[Counts, int]:
        """Counts of all voxels and of the foreground, and the value of the first bin."""
        counts, lowest = self.counts, 0
        if dtype.kind == "i":
            half = counts.shape[2] // 2
            counts, lowest = np.roll(counts, half, axis=2), -half
        return np.stack([counts[:, 0] + counts[:, 1], counts[:, 1]], axis=1), lowest


def _count_part(job: Job, region: Box, progress: Callable[[int], None]) -> _Counted:
    """Count one part of an image and its labels, block by block."""
    from volprep.kernels.histogram import count_intensities

    pair = job.opened(region)
    with closing(pair.image), closing(pair.label):
        bins = 2 ** (8 * pair.image.dtype.itemsize)
        counts = np.zeros((pair.image.shape[0], 2, bins), np.int64)
        labels = None if pair.label is None else LabelCount(pair.region)
        for box, block, ids in pair.blocks(BLOCK_BYTES):
            mask = np.zeros(0, np.uint8)
            if labels is not None and ids is not None:
                ids = as_ids(ids)
                labels.add(box, ids)
                mask = np.ascontiguousarray(as_mask(ids)).reshape(-1)
            for channel, count in zip(block, counts, strict=True):
                count_intensities(_unsigned(channel), mask, count)
            progress(box.size)
    return _Counted(counts, labels)


def _facts(
    job: Job, counted: _Counted, counts: Counts, lowest: int, percentiles: Sequence[float]
) -> CaseFacts:
    def channels(row: int) -> tuple[Statistics, ...]:
        return tuple(statistics_of_counts(count[row], lowest, percentiles) for count in counts)

    if counted.labels is None or job.label_dtype is None:
        return replace(job.head, everywhere=channels(_ALL))
    return replace(
        job.head,
        everywhere=channels(_ALL),
        foreground=channels(_FOREGROUND),
        labels=counted.labels.facts(job.label_dtype),
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
