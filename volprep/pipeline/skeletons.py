"""Skeletons of the cases of a config, and what is baked from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from volprep.cases import Case
from volprep.config import SkeletonConfig
from volprep.cutting import PreparedCase
from volprep.findings import Finding
from volprep.preprocess import CaseLayout
from volprep.skeletons import (
    Skeletons,
    count_traces,
    gather,
    read_skeletons,
    trace_volume,
)

__all__ = ["fallen_back", "make_skeletons", "skeleton_voxels"]


def make_skeletons(
    prepared: PreparedCase,
    case: Case,
    layout: CaseLayout,
    section: SkeletonConfig,
    *,
    workers: int | None,
    progress: Callable[[int], None],
) -> tuple[Skeletons, dict[str, int]]:
    """The skeletons of a case, in voxels of the prepared case: those it brings, or new ones.

    With them comes what is worth telling of new ones: `count_traces`.
    """
    if prepared.label is None:
        raise ValueError(f"{case.name} has no label")
    if case.skeletons is None:
        walk = trace_volume(
            prepared.label, method=section.method, workers=workers, progress=progress
        )
        traces = list(walk)
        return gather(traces), count_traces(traces)
    found = read_skeletons(case.skeletons, labels=_marked_labels(case))
    progress(2 * math.prod(prepared.label.shape))
    return (found if layout.unchanged else found.transform(layout.to_prepared)), {}


def _marked_labels(case: Case) -> npt.NDArray[Any] | None:
    """The labels of a case whose skeletons are marks in a volume; else they are not needed."""
    if case.skeletons is None or case.skeletons.suffix.lower() not in (".tif", ".tiff"):
        return None
    labels = case.open_label()
    return None if labels is None else labels.read()[0]


def fallen_back(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """What is said of skeletons that are one point, by the counts of each case."""
    for case, found in counts.items():
        if found.get("fell_back"):
            text = (
                f"{found['fell_back']} of {found['components']} components have no skeleton longer "
                "than one point, the deepest of their voxels"
            )
            yield Finding("skeleton-point", text, case=case)


def skeleton_voxels(prepared: Sequence[PreparedCase]) -> int:
    """What `make_skeletons` counts up to over all cases."""
    return sum(2 * math.prod(case.label.shape) for case in prepared if case.label is not None)
