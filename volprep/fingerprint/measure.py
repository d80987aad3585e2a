"""Measuring a data set: every voxel, in blocks, several parts of it at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from volprep.errors import DataCheckError
from volprep.fingerprint.facts import PERCENTILES, CaseFacts, Fingerprint
from volprep.fingerprint.labels import size_percentiles
from volprep.fingerprint.narrow import Counted, is_narrow, measure_narrow
from volprep.fingerprint.walk import FingerprintInput, closing, opened
from volprep.fingerprint.work import Job
from volprep.geometry import VolumeLike

__all__ = ["compute_fingerprint"]


def compute_fingerprint(
    cases: Sequence[FingerprintInput],
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    headers_only: bool = False,
    percentiles: Sequence[float] = PERCENTILES,
    known: Mapping[str, Counted] | None = None,
) -> Fingerprint:
    """Measure shapes, spacings, intensities and labels of a data set.

    Parameters
    ----------
    cases : sequence of FingerprintInput
        Opened one by one, several at a time; never held as a whole.
    workers : int or None
        Threads; None takes every processor. A large volume is shared among them, unless
        it can only be read from its beginning.
    progress : callable or None
        Called from any thread with the voxels (of one channel) that have been measured;
        in the end their sum is that of all shapes or boxes.
    headers_only : bool, default False
        Read no voxel: shapes, dtypes and spacings only.
    percentiles : sequence of float
        Of the intensities, 0 to 100.
    known : mapping of str to Counted, or None
        What was counted already, by case, in another pass over the same box. It spares
        reading where all images are integers of up to 16 bits.

    Returns
    -------
    Fingerprint
        The same for any number of workers.

    Raises
    ------
    DataCheckError
        If there is no case, cases differ in channels, or labels do not fit their image:
        all that is wrong.
    SourceError
        If a file cannot be read.

    Notes
    -----
    Every voxel counts. Integers of up to 16 bits are counted by value in one pass, and
    every figure is exact; others take two to four passes, see `volprep.fingerprint.floats`.
    Means and deviations of integers of any width are exact sums, rounded once.
    biom3d draws 10000 voxels of each image instead, nnU-Net as many.
    """
    if not cases:
        raise DataCheckError(["no case to measure; give at least one image"])
    if headers_only:
        heads = [_head(case) for case in cases]
        _check_channels(heads)
        return Fingerprint(tuple(heads))
    jobs = _jobs(cases)
    _check_channels([job.head for job in jobs])
    # The largest first, so that no worker is left alone with one at the end.
    order = sorted(range(len(jobs)), key=lambda i: -sum(r.size for r in jobs[i].regions))
    measure = partial(measure_narrow, known=known or {})
    if not all(is_narrow(np.dtype(job.head.dtype)) for job in jobs):
        from volprep.fingerprint.wide import measure_wide

        measure = partial(measure_wide)
    found = measure(
        [jobs[i] for i in order],
        percentiles=percentiles,
        workers=workers,
        progress=progress or (lambda _voxels: None),
    )
    facts = dict(zip(order, found.cases, strict=True))
    return Fingerprint(
        cases=tuple(facts[i] for i in range(len(jobs))),
        pooled=found.pooled,
        histograms=found.histograms,
        labelled=found.labelled,
        sizes=size_percentiles(found.sizes),
    )


def _head(case: FingerprintInput) -> CaseFacts:
    volume = case.image()
    with closing(volume):
        return _head_of(case, volume)


def _head_of(case: FingerprintInput, volume: VolumeLike) -> CaseFacts:
    """What the headers say of a case."""
    box = case.box and case.box.clip(volume.shape)
    return CaseFacts(
        name=case.name,
        shape=volume.shape,
        dtype=str(volume.dtype),
        spacing=volume.spacing,
        box=(box.start, box.stop) if box else None,
    )


def _jobs(cases: Sequence[FingerprintInput]) -> list[Job]:
    """Each case with its headers and its parts; every pair that does not fit is named."""
    jobs, findings = [], []
    for case in cases:
        try:
            pair = opened(case)
        except DataCheckError as error:
            findings += error.findings
            continue
        with closing(pair.image), closing(pair.label):
            label_dtype = None if pair.label is None else pair.label.dtype
            head = _head_of(case, pair.image)
            kept = pair if pair.is_on_disk else None
            jobs.append(Job(case, head, pair.regions(), label_dtype, kept))
    if findings:
        raise DataCheckError(findings)
    return jobs


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
