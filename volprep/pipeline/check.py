"""The doctor's report on a config: its cases, and the split that it asks for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from volprep.cases import Cases
from volprep.checks import Along, Report, examine_cases
from volprep.config import Config
from volprep.errors import DataCheckError, PlanError, SourceError
from volprep.findings import Finding, by_level
from volprep.geometry import Shape3
from volprep.pipeline.asked import idle_keys, idle_values, refuse_misfits
from volprep.pipeline.decide import decide, split_cases, survey, uncropped
from volprep.pipeline.inputs import chosen_cases
from volprep.pipeline.measure import clip_warnings, measure
from volprep.pipeline.told import rules_of, silent
from volprep.splits import SplitPart, Splits, audit_splits, splits_blocks

__all__ = ["check", "class_voxels_of", "look_at_headers", "values_of"]


def check(
    config: Config,
    cases: Cases,
    *,
    headers_only: bool = False,
    heads: Report | None = None,
    progress: Callable[[int], None] | None = None,
    along: Along | None = None,
) -> Report:
    """Everything that is wrong or doubtful about the cases, and about their split.

    `along` is what the walk over the voxels serves beside. `heads` are given by who has looked
    at the headers (`look_at_headers`), and plans and measures next: then it is not asked here
    whether there is a plan, nor what the user's own bounds of clipping would cut, and all
    findings are told, whatever the user's rules.

    Notes
    -----
    Headers are looked at first, and no voxel is read of a case whose header shows an
    error. What a wrong case leads to further on (that what is left cannot be divided) is
    told after it, or in one breath with it.
    """
    headers_only = headers_only or config.data.read == "sample"
    by_itself, idle = heads is None, list[Finding]()
    if heads is None:
        heads, idle = look_at_headers(config, cases)
    sound = _without_errors(cases, heads)
    report = examine_cases(
        cases,
        headers_only=headers_only,
        label_kind=cases.label_kind,
        workers=config.compute.workers,
        progress=progress,
        along=along,
    )
    report = dataclasses.replace(report, findings=tuple(_answered(config, report.findings)))
    chosen = sound
    with contextlib.suppress(SourceError):  # which the report names
        chosen = chosen_cases(config, sound, report.hashes)
    splits, patch, impossible = _divided(config, chosen, report, headers_only=headers_only)
    told = chosen.findings[len(cases.findings) :]
    anew = {"duplicate-image", *(finding.name for finding in told)}
    findings = [*(f for f in report.findings if f.name not in anew), *told]
    if splits is not None:
        findings += audit_splits(
            splits,
            chosen.items,
            patch=patch,
            content=not headers_only,
            hashes=report.hashes,
            sketches=report.sketches,
        )
    findings += [*idle, *idle_values(config, report), *_unnamed(cases, report)]
    if by_itself and not headers_only:
        findings += _clips(config, chosen)
    if chosen.items and not headers_only and (by_itself or impossible is not None):
        unplanned = _unplanned(config, chosen, report)
        impossible = impossible if unplanned is None else None
        findings += [unplanned] if by_itself and unplanned is not None else []
    if impossible is not None and len(sound) == len(cases):
        findings.append(_because(impossible, cases, chosen))
    findings = rules_of(config).apply(findings) if by_itself else findings
    return dataclasses.replace(report, findings=tuple(by_level(findings)))


def look_at_headers(config: Config, cases: Cases) -> tuple[Report, list[Finding]]:
    """The headers of the cases, and what is asked for that does nothing with them.

    Raises
    ------
    ConfigError
        With all values that fit the schema and not the data, before any voxel is read.
    """
    heads = examine_cases(cases, headers_only=True, workers=config.compute.workers)
    refuse_misfits(config, cases, heads)
    return heads, list(idle_keys(config, cases, heads))


def values_of(report: Report, cases: Cases) -> frozenset[int] | None:
    """Every value of the labels of some cases, where they are classes."""
    if cases.label_kind != "classes":
        return None
    names = {case.name for case in cases}
    labels = [f.labels for f in report.facts if f.labels and f.case.name in names]
    background = any(int(found.sizes.sum()) < found.size for found in labels)
    values = {value for found in labels for value in found.ids.tolist()}
    return frozenset(values | ({0} if background else set()))


def class_voxels_of(report: Report, cases: Cases) -> dict[str, dict[int, int]] | None:
    """Voxels of each value of the labels of each case, where they are classes."""
    if cases.label_kind != "classes":
        return None
    names = {case.name for case in cases}
    return {
        found.case.name: {
            0: labels.size - int(labels.sizes.sum()),
            **dict(zip(labels.ids.tolist(), labels.sizes.tolist(), strict=True)),
        }
        for found in report.facts
        if found.case.name in names and (labels := found.labels) is not None
    }


def _answered(config: Config, findings: Iterable[Finding]) -> Iterator[Finding]:
    """What differs between cases needs no care where the config makes it alike."""
    section = config.preprocess
    answers = {}
    if section.resamples:
        answers["mixed-spacings"] = "all are brought to preprocess.target_spacing"
    if section.scope == "case":
        answers["mixed-dtypes"] = "each case is normalised by its own grey values"
    for finding in findings:
        if finding.name in answers:
            todo = f"nothing: {answers[finding.name]}"
            finding = dataclasses.replace(finding, level="info", todo=todo)
        yield finding


def _unnamed(cases: Cases, report: Report) -> Iterator[Finding]:
    """Label values that a data set does not name, although it names its classes."""
    known = set(cases.class_names)
    for facts in report.facts if known else ():
        ids = [] if facts.labels is None else facts.labels.ids.tolist()
        strange = [value for value in ids if value not in known]
        if strange:
            listed = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
            todo = "name them in dataset.json, or mend the label"
            found = f"the label holds {listed}, which dataset.json does not name"
            path = None if facts.label is None else Path(facts.label.name)
            yield Finding("dataset-json", found, todo=todo, case=facts.case.name, path=path)


def _without_errors(cases: Cases, heads: Report) -> Cases:
    """The cases whose headers show no error."""
    wrong = {finding.case for finding in heads.findings if finding.level == "error"}
    sound = tuple(case for case in cases if case.name not in wrong)
    return dataclasses.replace(cases, items=() if None in wrong else sound)


def _divided(
    config: Config, chosen: Cases, report: Report, *, headers_only: bool
) -> tuple[Splits | None, Shape3 | None, Finding | None]:
    """The split that the config asks for and its patch, or why there is none."""
    if not chosen.items:
        return None, None, None
    try:
        if not splits_blocks(chosen.items, kind=config.split.kind, listed=chosen.folds):
            return split_cases(config, chosen, None, None), None, None
        if headers_only:
            return None, None, None
        with contextlib.suppress(SourceError, DataCheckError):
            known = survey(config, chosen, silent, values_of(report, chosen))
            decision = decide(config, chosen, known)
            return decision.splits, decision.plan.patch_size, None
    except PlanError as error:
        return None, None, _of_plan("split-impossible", error)
    return None, None, None


def _unplanned(config: Config, chosen: Cases, report: Report) -> Finding | None:
    """Why there is no plan, whatever the split: a memory that nothing fits in, say."""
    whole = config.split.model_copy(update={"fraction": 0.0, "kind": "cases"})
    undivided = uncropped(config.model_copy(update={"split": whole}))
    try:
        with contextlib.suppress(SourceError, DataCheckError):
            known = survey(undivided, chosen, silent, values_of(report, chosen))
            decide(undivided, chosen, known)
    except PlanError as error:
        return _of_plan("plan-impossible", error)
    return None


def _of_plan(name: str, error: PlanError) -> Finding:
    """A finding that says what the error says, with the error's own advice."""
    found, _, todo = str(error).rpartition("; ")
    return Finding(name, found or todo, todo=todo if found else None)


def _because(impossible: Finding, cases: Cases, chosen: Cases) -> Finding:
    """Why nothing can be divided: the labels that are missing, where that is the cause."""
    missing = [case.name for case in cases if case.label is None]
    if not missing or len(chosen) == len(cases):
        return impossible
    names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    found = (
        f"{len(missing)} of {len(cases)} cases have no label and are left out ({names}), and "
        f"what is left cannot be divided ({impossible.found})"
    )
    return Finding("unlabelled-images", found, level="error")


def _clips(config: Config, cases: Cases) -> list[Finding]:
    """What the user's own bounds cut; measured only where they gave some."""
    if config.preprocess.clip in (None, "auto"):
        return []
    try:
        parts = [SplitPart(case.name) for case in cases]
        return clip_warnings(config, measure(config, cases, parts, silent, "fingerprint"))
    except (DataCheckError, SourceError):
        return []  # the report names what cannot be measured
