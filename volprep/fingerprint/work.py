"""Sharing out the parts of all cases among workers, and putting each case together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from volprep.compute import default_workers, run_units
from volprep.fingerprint.facts import (
    CaseFacts,
    Distribution,
    Histogram,
    Region,
    Statistics,
    Weighting,
)
from volprep.fingerprint.walk import FingerprintInput, Opened, opened
from volprep.geometry import Box

__all__ = ["Job", "Measured", "measured_in_parts"]

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """One case to measure.

    Attributes
    ----------
    item : FingerprintInput
        What to open.
    head : CaseFacts
        What its headers say.
    regions : sequence of Box
        The parts of it, along z.
    label_dtype : numpy.dtype or None
        Of its labels; None where it has none.
    kept : Opened or None
        What was opened for the headers, where keeping it holds no voxels.
    """

    item: FingerprintInput
    head: CaseFacts
    regions: Sequence[Box]
    label_dtype: np.dtype[Any] | None
    kept: Opened | None = None

    def opened(self, region: Box) -> Opened:
        """The image and its labels, and the region that counts."""
        if self.kept is None:
            return opened(self.item, region)
        return replace(self.kept, region=region)


@dataclass(frozen=True)
class Measured:
    """What is known of all images together.

    Attributes
    ----------
    cases : sequence of CaseFacts
        In the order of the jobs.
    pooled, histograms, labelled
        As in `Fingerprint`.
    sizes : sequence of ndarray
        Voxels of each id, for each labelled case.
    """

    cases: Sequence[CaseFacts]
    pooled: dict[Weighting, dict[Region, tuple[Statistics, ...]]]
    histograms: tuple[Histogram, ...]
    labelled: tuple[Distribution, ...]
    sizes: Sequence[Counts]


class _Mergeable(Protocol):
    def merge(self, other: Self) -> None: ...


Result = TypeVar("Result", bound=_Mergeable)


def measured_in_parts(
    function: Callable[[int, Box], Result],
    regions: Sequence[Sequence[Box]],
    *,
    workers: int | None,
    ahead: bool = True,
) -> Iterator[Result]:
    """Measure every part of every case, and merge the parts of each in order.

    Parameters
    ----------
    function : callable
        Of the number of a case and a region of it.
    regions : sequence of sequence of Box
        The parts of each case.
    workers : int or None
        Threads; None takes every processor.
    ahead : bool
        Workers may run ahead of what is merged; False where results are large.

    Yields
    ------
    Result
        One for each case, in order.
    """
    units = [(number, region) for number, parts in enumerate(regions) for region in parts]
    threads = default_workers() if workers is None else max(1, workers)
    stride = len(units) if ahead else threads
    whole: Result | None = None
    left = len(regions[0]) if regions else 0
    for start in range(0, len(units), max(1, stride)):
        some = units[start : start + stride]
        results = run_units(lambda unit: function(*unit), some, workers=threads)
        for (number, _), result in zip(some, results, strict=True):
            if whole is None:
                whole, left = result, len(regions[number])
            else:
                whole.merge(result)
            left -= 1
            if not left:
                yield whole
                whole = None
