"""Skeletons of the cases of a config, and what is baked from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from volprep.cases import Case
from volprep.files import describe
from volprep.findings import Finding
from volprep.geometry import VolumeLike
from volprep.ledger import Made, Unit, key_of
from volprep.pipeline.identity import Inputs
from volprep.pipeline.run import Run
from volprep.pipeline.volumes import PreparedRef
from volprep.preprocess import CaseLayout
from volprep.skeletons import (
    Skeletons,
    count_traces,
    gather,
    read_skeletons,
    trace_volume,
)

__all__ = ["fallen_back", "prepare_skeletons"]


def prepare_skeletons(
    run: Run, refs: Sequence[PreparedRef], inputs: Inputs
) -> tuple[list[PreparedRef], dict[str, dict[str, int]]]:
    """The cases with the skeletons of their instances, and what is worth telling of new ones."""
    section = run.config.skeletons
    units, found = [], []
    for ref in refs:
        if ref.case.label is None:
            found.append(ref)
            continue
        key = key_of("skeletons", 1, ref.key, None if ref.case.skeletons else section.method)
        units.append(Unit("skeletons", ref.case.name, key))
        path = run.folder / "skeletons" / f"{ref.case.name}.npz"
        found.append(replace(ref, skeletons=path, skeletons_key=key))
    volumes = {f"case {ref.case.name}": ref.key for ref in refs}
    run.made_from("skeletons", {"skeletons.method": section.method, **volumes})
    by_name = {ref.case.name: ref for ref in refs}
    run.all(
        "skeletons", units,
        partial(
            _make, refs=by_name, inputs=inputs, method=section.method, folder=run.folder,
            workers=run.config.compute.workers,
        ),
        title="skeletons", what="cases", workers=1,
    )  # fmt: skip
    counts = {str(u.index): dict(run.facts(u)["counts"]) for u in units if run.has(u)}
    return found, {name: some for name, some in counts.items() if some}


def _make(
    unit: Unit,
    *,
    refs: Mapping[str, PreparedRef],
    inputs: Inputs,
    method: Literal["lee", "teasar"],
    folder: Path,
    workers: int | None,
) -> Made:
    ref = refs[str(unit.index)]
    label = ref.open().label
    if label is None:
        raise ValueError(f"{ref.case.name} has no label")
    skeletons, counts = make_skeletons(label, ref.case, ref.layout, method=method, workers=workers)
    path = folder / "skeletons" / f"{unit.index}.npz"
    skeletons.to_file(path)
    inputs.check([ref.case])
    return [describe(path, folder)], {"counts": counts}


def make_skeletons(
    label: VolumeLike,
    case: Case,
    layout: CaseLayout,
    *,
    method: Literal["lee", "teasar"],
    workers: int | None,
) -> tuple[Skeletons, dict[str, int]]:
    """The skeletons of a case, in voxels of the prepared case: those it brings, or new ones.

    With them comes what is worth telling of new ones: `count_traces`.
    """
    if case.skeletons is None:
        traces = list(trace_volume(label, method=method, workers=workers))
        return gather(traces), count_traces(traces)
    found = read_skeletons(case.skeletons, labels=_marked_labels(case))
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
