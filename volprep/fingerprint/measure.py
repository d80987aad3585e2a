"""Measuring cases: every voxel once, in blocks, several cases at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.compute import run_units
from volprep.errors import DataCheckError
from volprep.fingerprint.counts import (
    histogram,
    pool_images,
    statistics_of_counts,
    weighted_percentiles,
)
from volprep.fingerprint.facts import PERCENTILES, CaseFacts, Fingerprint, Statistics
from volprep.fingerprint.labels import LabelCount, as_ids, as_mask, size_percentiles
from volprep.fingerprint.walk import FingerprintInput, closing, opened
from volprep.fingerprint.wide import Measured, measure_wide

__all__ = ["compute_fingerprint"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

#: An image block and its label block together, for each worker.
BLOCK_BYTES = 4 * 2**20
#: Every integer of 16 bits, with a sign or without, in one histogram.
_LOWEST, _SPAN = -(2**15), 2**15 + 2**16

_ALL, _FOREGROUND = 0, 1


def compute_fingerprint(
    cases: Sequence[FingerprintInput],
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    headers_only: bool = False,
    percentiles: Sequence[float] = PERCENTILES,
) -> Fingerprint:
    """Measure shapes, spacings, intensities and labels of a data set.

    Parameters
    ----------
    cases : sequence of FingerprintInput
        Opened one by one, several at a time; never held as a whole.
    workers : int or None
        Threads; None takes every processor.
    progress : callable or None
        Called with 1 whenever a case has been measured.
    headers_only : bool, default False
        Read no voxel: shapes, dtypes and spacings only.
    percentiles : sequence of float
        Of the intensities, 0 to 100.

    Returns
    -------
    Fingerprint

    Raises
    ------
    DataCheckError
        If there is no case, cases differ in channels, or labels do not fit their image.
    SourceError
        If a file cannot be read.

    Notes
    -----
    Every voxel counts. Integers of up to 16 bits are counted by value in one pass, and
    every figure is exact; others take two to four passes, see `volprep.fingerprint.floats`.
    biom3d draws 10000 voxels of each image instead, nnU-Net as many.
    """
    if not cases:
        raise DataCheckError(["no case to measure; give at least one image"])
    heads = [_head(case) for case in cases]
    _check_channels(heads)
    if headers_only:
        return Fingerprint(tuple(heads))
    narrow = all(_is_narrow(np.dtype(head.dtype)) for head in heads)
    # The largest first, so that no worker is left alone with one at the end.
    order = sorted(range(len(cases)), key=lambda i: -int(np.prod(heads[i].shape, dtype=object)))
    measure = _measure_narrow if narrow else measure_wide
    found = measure(
        [cases[i] for i in order],
        percentiles=percentiles, workers=workers, progress=progress or (lambda _count: None),
    )  # fmt: skip
    facts = dict(zip(order, found.cases, strict=True))
    return Fingerprint(
        cases=tuple(
            replace(
                head, everywhere=facts[i].everywhere, foreground=facts[i].foreground,
                labels=facts[i].labels,
            )
            for i, head in enumerate(heads)
        ),
        pooled=found.pooled,
        histograms=found.histograms,
        sizes=size_percentiles(found.sizes),
    )  # fmt: skip


def _head(case: FingerprintInput) -> CaseFacts:
    volume = case.image()
    with closing(volume):
        box = case.box and case.box.clip(volume.shape)
        return CaseFacts(
            name=case.name,
            shape=volume.shape,
            dtype=str(volume.dtype),
            spacing=volume.spacing,
            box=(box.start, box.stop) if box else None,
        )


def _check_channels(heads: Sequence[CaseFacts]) -> None:
    first = heads[0]
    wrong = [
        f"{head.name}: {head.shape[0]} channels, where {first.name} has {first.shape[0]}; "
        "give images with the same channels"
        for head in heads
        if head.shape[0] != first.shape[0]
    ]
    if wrong:
        raise DataCheckError(wrong)


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iub" and dtype.itemsize <= 2


@dataclass(frozen=True)
class _Counted:
    """What a worker brings back of one image of small integers."""

    facts: CaseFacts
    counts: Counts
    lowest: int
    sizes: Counts | None


def _measure_narrow(
    cases: Sequence[FingerprintInput],
    *,
    percentiles: Sequence[float],
    workers: int | None,
    progress: Callable[[int], None],
) -> Measured:
    """Count every value, and keep the counts of all images together."""
    facts, sizes = [], []
    voxels: Counts | None = None
    images = None
    for counted in run_units(partial(_count_case, percentiles=percentiles), cases, workers=workers):
        if voxels is None or images is None:
            voxels = np.zeros((*counted.counts.shape[:2], _SPAN), np.int64)
            images = np.zeros(voxels.shape)
        first = counted.lowest - _LOWEST
        place = slice(first, first + counted.counts.shape[2])
        voxels[..., place] += counted.counts
        total = counted.counts.sum(axis=2, keepdims=True)
        images[..., place] += counted.counts / np.maximum(total, 1)
        facts.append(counted.facts)
        if counted.sizes is not None:
            sizes.append(counted.sizes)
        progress(1)
    assert voxels is not None
    assert images is not None
    return Measured(
        cases=facts,
        pooled=_pooled(facts, voxels, images, percentiles),
        histograms=tuple(
            histogram(np.flatnonzero(channel[_ALL]) + _LOWEST, channel[_ALL][channel[_ALL] > 0])
            for channel in voxels
        ),
        sizes=sizes,
    )


def _pooled(
    facts: Sequence[CaseFacts], voxels: Counts, images: Array, percentiles: Sequence[float]
) -> dict[Any, Any]:
    """Both ways of pooling, in both regions, for each channel."""
    labelled = any(case.foreground for case in facts)
    regions = {"all": _ALL, "foreground": _FOREGROUND} if labelled else {"all": _ALL}
    by_voxel, by_image = {}, {}
    for region, row in regions.items():
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


def _count_case(case: FingerprintInput, *, percentiles: Sequence[float]) -> _Counted:
    """Count one image and its labels, block by block."""
    from volprep.kernels.histogram import count_intensities

    pair = opened(case)
    with closing(pair.image), closing(pair.label):
        dtype = pair.image.dtype
        counts = np.zeros((pair.image.shape[0], 2, 2 ** (8 * dtype.itemsize)), np.int64)
        labels = None if pair.label is None else LabelCount(pair.region)
        for box, block, ids in pair.blocks(BLOCK_BYTES):
            mask = np.zeros(0, np.uint8)
            if labels is not None and ids is not None:
                ids = as_ids(ids)
                labels.add(box, ids)
                mask = np.ascontiguousarray(as_mask(ids)).reshape(-1)
            for channel, count in zip(block, counts, strict=True):
                count_intensities(_unsigned(channel), mask, count)
    lowest = 0
    if dtype.kind == "i":
        lowest = -counts.shape[2] // 2
        counts = np.roll(counts, counts.shape[2] // 2, axis=2)
    counts[:, 0] += counts[:, 1]

    def channels(row: int) -> tuple[Statistics, ...]:
        return tuple(statistics_of_counts(count[row], lowest, percentiles) for count in counts)

    facts = CaseFacts(
        name=case.name,
        shape=pair.image.shape,
        dtype=str(dtype),
        spacing=pair.image.spacing,
        everywhere=channels(_ALL),
        foreground=None if labels is None else channels(_FOREGROUND),
        labels=None if labels is None else labels.facts(pair.label_dtype),
    )
    return _Counted(facts, counts, lowest, None if labels is None else labels.sizes())


def _unsigned(channel: Array) -> Array:
    """The voxels of a channel in a row, their bits read without a sign."""
    return np.ascontiguousarray(channel).reshape(-1).view(f"u{channel.dtype.itemsize}")
