"""The doctor's report on a config: its cases, and the split that it asks for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from volprep.cases import Cases
from volprep.checks import Report, examine_cases
from volprep.config import Config
from volprep.errors import DataCheckError, PlanError, SourceError
from volprep.findings import Finding, by_level
from volprep.geometry import Shape3
from volprep.pipeline.decide import plan_blocks, split_cases
from volprep.pipeline.inputs import labelled_only, without_duplicates
from volprep.pipeline.measure import clip_warnings, headers_of, measure
from volprep.pipeline.reporting import silent
from volprep.pipeline.told import rules_of
from volprep.splits import SplitPart, Splits, audit_splits, splits_blocks

__all__ = ["check"]


def check(
    config: Config,
    cases: Cases,
    *,
    headers_only: bool = False,
    intensities: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Everything that is wrong or doubtful about the cases, and about their split.

    `intensities` asks what the user's own bounds of clipping would cut, where there are any;
    `prepare` asks itself, of the training voxels alone.

    Notes
    -----
    Headers are looked at first, and no voxel is read of a case whose header shows an
    error. What a wrong case leads to further on (that what is left cannot be divided) is
    told after it, or in one breath with it.
    """
    sound = _without_errors(config, cases)
    chosen = sound
    if not headers_only:
        with contextlib.suppress(SourceError):  # which the report names
            chosen = without_duplicates(config, sound)
    chosen = labelled_only(chosen)
    splits, patch, impossible = _divided(config, chosen, headers_only=headers_only)
    report = examine_cases(
        cases,
        headers_only=headers_only,
        label_kind=cases.label_kind,
        workers=config.compute.workers,
        progress=progress,
    )
    told = chosen.findings[len(cases.findings) :]
    findings = [*(f for f in report.findings if f.name != "duplicate-image"), *told]
    if splits is not None:
        findings += audit_splits(
            splits, chosen.items, patch=patch, content=not headers_only, hashes=report.hashes
        )
    if intensities and not headers_only:
        findings += _clips(config, chosen)
    if impossible is not None and len(sound) == len(cases):
        findings.append(_because(impossible, cases, chosen))
    return dataclasses.replace(report, findings=tuple(by_level(rules_of(config).apply(findings))))


def _without_errors(config: Config, cases: Cases) -> Cases:
    """The cases whose headers show no error."""
    heads = examine_cases(cases, headers_only=True, workers=config.compute.workers)
    wrong = {finding.case for finding in heads.findings if finding.level == "error"}
    sound = tuple(case for case in cases if case.name not in wrong)
    return dataclasses.replace(cases, items=() if None in wrong else sound)


def _divided(
    config: Config, chosen: Cases, *, headers_only: bool
) -> tuple[Splits | None, Shape3 | None, PlanError | None]:
    """The split that the config asks for and its patch, or why there is none."""
    if not chosen.items:
        return None, None, None
    try:
        if not splits_blocks(chosen.items, kind=config.split.kind, listed=chosen.folds):
            return split_cases(config, chosen, None, None), None, None
        if headers_only:
            return None, None, None
        with contextlib.suppress(SourceError, DataCheckError):
            plan, splits = plan_blocks(config, chosen, headers_of(chosen), None)
            return splits, plan.patch_size, None
    except PlanError as error:
        return None, None, error
    return None, None, None


def _because(error: PlanError, cases: Cases, chosen: Cases) -> Finding:
    """Why nothing can be divided: the labels that are missing, where that is the cause."""
    missing = [case.name for case in cases if case.label is None]
    if not missing or len(chosen) == len(cases):
        return Finding("split-impossible", str(error))
    names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    found = (
        f"{len(missing)} of {len(cases)} cases have no label and are left out ({names}), and "
        f"what is left cannot be divided ({error})"
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
