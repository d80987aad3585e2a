"""The doctor's report on a config: its cases, and the split that it asks for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from volprep.cases import Cases
from volprep.checks import Report, examine_cases
from volprep.config import (
    Config,
)
from volprep.errors import DataCheckError, PlanError, SourceError
from volprep.findings import Finding
from volprep.geometry import Shape3
from volprep.pipeline.decide import plan_blocks, split_cases
from volprep.pipeline.inputs import without_duplicates
from volprep.pipeline.measure import clip_warnings, headers_of, measure
from volprep.pipeline.reporting import silent
from volprep.splits import SplitPart, Splits, splits_blocks

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
    """
    splits: Splits | None = None
    impossible: tuple[Finding, ...] = ()
    distinct = cases
    if not headers_only:
        with contextlib.suppress(SourceError):  # which the report names
            distinct = without_duplicates(config, cases)
    patch: Shape3 | None = None
    try:
        if not splits_blocks(distinct.items, kind=config.split.kind):
            splits = split_cases(config, distinct, None, None)
        elif not headers_only:
            with contextlib.suppress(SourceError, DataCheckError):
                plan, splits = plan_blocks(config, distinct, headers_of(distinct), None)
                patch = plan.patch_size
    except PlanError as error:
        impossible = (Finding("error", "split-impossible", str(error)),)
    report = examine_cases(
        cases,
        headers_only=headers_only,
        label_kind=config.data.label_kind,
        splits=splits,
        patch=patch,
        workers=config.compute.workers,
        progress=progress,
    )
    clips = _clips(config, distinct) if intensities and not headers_only else []
    return dataclasses.replace(report, findings=(*impossible, *report.findings, *clips))


def _clips(config: Config, cases: Cases) -> list[Finding]:
    """What the user's own bounds cut; measured only where they gave some."""
    if config.preprocess.clip in (None, "auto"):
        return []
    try:
        parts = [SplitPart(case.name) for case in cases]
        return clip_warnings(config, measure(config, cases, parts, silent, "fingerprint"))
    except (DataCheckError, SourceError):
        return []  # the report names what cannot be measured
