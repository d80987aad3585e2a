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
from volprep.pipeline.measure import headers_of
from volprep.splits import Splits, splits_blocks

__all__ = ["check"]


def check(
    config: Config,
    cases: Cases,
    *,
    headers_only: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Everything that is wrong or doubtful about the cases, and about their split."""
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
    return dataclasses.replace(report, findings=(*impossible, *report.findings))
