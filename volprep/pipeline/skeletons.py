"""Skeletons of the cases of a config, and what is baked from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.cases import Case
from volprep.files import describe
from volprep.findings import Finding
from volprep.geometry import Box, VolumeLike
from volprep.ledger import Made, Unit, key_of
from volprep.pipeline.identity import Inputs
from volprep.pipeline.run import Run
from volprep.pipeline.volumes import PreparedRef
from volprep.preprocess import CaseLayout, CroppedVolume
from volprep.skeletons import (
    Skeletons,
    Trace,
    count_traces,
    gather,
    read_skeletons,
    trace_volume,
)
from volprep.splits import Splits

__all__ = ["fallen_back", "prepare_skeletons"]


Boxes = tuple[Box, ...]
#: Where skeletons of held-out blocks lie, below those of what trains.
HELD_OUT = "val"


def prepare_skeletons(
    run: Run, refs: Sequence[PreparedRef], splits: Splits, inputs: Inputs
) -> tuple[dict[str, list[PreparedRef]], dict[str, dict[str, int]]]:
    """The cases of each side with their skeletons, and what is worth telling of new ones.

    A volume of which both sides have blocks gets skeletons of each side's blocks alone, so
    that no point of what trains comes from what is held out.
    """
    section = run.config.skeletons
    boxes = _boxes(splits)
    made: dict[Unit, tuple[PreparedRef, Boxes]] = {}
    sides: dict[str, list[PreparedRef]] = {"train": [], "val": []}
    for ref in refs:
        divided = any((ref.case.name, side) in boxes for side in sides)
        for side, found in sides.items():
            own = boxes.get((ref.case.name, side), ())
            apart = f"{HELD_OUT}/" if own and side == "val" else ""
            if ref.case.label is None or (divided and not own):
                found.append(ref)
                continue
            method = None if ref.case.skeletons else section.method
            where = [[box.start, box.stop] for box in own]
            key = key_of("skeletons", 3, ref.labels, method, where)
            made[Unit("skeletons", f"{apart}{ref.case.name}", key)] = (ref, own)
            path = run.folder / "skeletons" / f"{apart}{ref.case.name}.npz"
            found.append(replace(ref, skeletons=path, skeletons_key=key))
    labels = {f"case {ref.case.name}": ref.labels for ref in refs}
    held = {name: [[b.start, b.stop] for b in own] for (name, _), own in sorted(boxes.items())}
    run.made_from("skeletons", {"skeletons.method": section.method, "split": held, **labels})
    run.all(
        "skeletons", list(made),
        partial(
            _make, parts={unit.index: part for unit, part in made.items()}, inputs=inputs,
            method=section.method, folder=run.folder, workers=run.config.compute.workers,
        ),
        title="skeletons", what="cases", workers=1,
    )  # fmt: skip
    counts = {str(u.index): dict(run.facts(u)["counts"]) for u in made if run.has(u)}
    return sides, {name: some for name, some in counts.items() if some}


def _boxes(splits: Splits) -> dict[tuple[str, str], Boxes]:
    """The blocks of each side, of the cases that are divided, by name and side."""
    found: dict[tuple[str, str], Boxes] = {}
    for side, parts in (("train", splits.train), ("val", splits.val)):
        for part in parts:
            if part.box is not None:
                found[part.case, side] = (*found.get((part.case, side), ()), part.box)
    return found


def _make(
    unit: Unit,
    *,
    parts: Mapping[int | str, tuple[PreparedRef, Boxes]],
    inputs: Inputs,
    method: Literal["lee", "teasar"],
    folder: Path,
    workers: int | None,
) -> Made:
    ref, boxes = parts[unit.index]
    label = ref.open().label
    if label is None:
        raise ValueError(f"{ref.case.name} has no label")
    skeletons, counts = make_skeletons(
        label, ref.case, ref.layout, boxes=boxes, method=method, workers=workers
    )
    path = folder / "skeletons" / f"{unit.index}.npz"
    skeletons.to_file(path)
    inputs.check([ref.case])
    return [describe(path, folder)], {"counts": counts}


def make_skeletons(
    label: VolumeLike,
    case: Case,
    layout: CaseLayout,
    *,
    boxes: Boxes = (),
    method: Literal["lee", "teasar"],
    workers: int | None,
) -> tuple[Skeletons, dict[str, int]]:
    """The skeletons of a case, in voxels of the prepared case: those it brings, or new ones.

    With them comes what is worth telling of new ones: `count_traces`. Where there are
    `boxes`, nothing beyond them is looked at, and brought points beyond them are left out.
    """
    if case.skeletons is None:
        traces = list(_traces(label, boxes, method, workers))
        return gather(traces), count_traces(traces)
    found = read_skeletons(case.skeletons, labels=_marked_labels(case))
    found = found if layout.unchanged else found.transform(layout.to_prepared)
    return (_within(found, label, boxes, method, workers) if boxes else found), {}


def _traces(
    label: VolumeLike, boxes: Boxes, method: Literal["lee", "teasar"], workers: int | None
) -> Iterator[Trace]:
    """The skeletons of what is in the boxes, each taken for a volume of its own."""
    for box in boxes or (Box.whole(label.shape),):
        for trace in trace_volume(CroppedVolume(label, box), method=method, workers=workers):
            yield replace(trace, points=trace.points + np.array(box.start))


def _within(
    found: Skeletons,
    label: VolumeLike,
    boxes: Boxes,
    method: Literal["lee", "teasar"],
    workers: int | None,
) -> Skeletons:
    """The points in the boxes; what has labels there and no point gets a skeleton of its own."""
    points: dict[int, npt.NDArray[Any]] = {}
    for instance, every in found.items():
        inside = np.zeros(len(every), bool)
        for box in boxes:
            low, high = np.array(box.start) - 0.5, np.array(box.stop) - 0.5
            inside |= ((every >= low) & (every < high)).all(axis=1)
        if inside.any():
            points[instance] = every[inside]
    brought = set(points)
    for trace in _traces(label, boxes, method, workers):
        if trace.instance not in brought:
            known = points.get(trace.instance, np.empty((0, 3), np.float32))
            points[trace.instance] = np.concatenate((known, trace.points.astype(np.float32)))
    return Skeletons.from_points(points)


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
