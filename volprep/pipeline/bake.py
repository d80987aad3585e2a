"""`volprep bake-skeletons`: skeletons of whole volumes, and what is baked from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volprep.cases import Case, FileRef
from volprep.compute import Engine
from volprep.config import SkeletonConfig, parse_spacing
from volprep.errors import ConfigError, DataCheckError
from volprep.geometry import Spacing3
from volprep.ledger import Ledger
from volprep.pipeline.baked import BakedCase, BakeOptions, BakeSummary
from volprep.pipeline.inputs import compute_with, engine_of, list_cases, load_target
from volprep.pipeline.told import Reporter, silent
from volprep.places import path_of
from volprep.sources import stem_of

__all__ = ["bake_skeletons", "case_of_labels", "run_bake"]


def case_of_labels(path: Path, key: str | None, spacing: Spacing3 | None) -> Case:
    """A case that is a label volume alone."""
    ref = FileRef(path, key)
    return Case(stem_of(path), (ref,), label=ref, spacing=spacing)


def run_bake(
    config: Path | None,
    *,
    labels: Path | None = None,
    key: str | None = None,
    spacing: str | None = None,
    anisotropy: str | None = None,
    out: Path,
    workers: int | None = None,
    executor: str | None = None,
    scheduler: str | None = None,
    changes: Sequence[str] = (),
    reporter: Reporter = silent,
    **asked: Any,
) -> list[BakeSummary]:
    """`bake_skeletons` for a config (whose ``skeletons:`` it follows) or one label volume.

    What is `asked` by the names of `BakeOptions` wins over the config; None asks for nothing.

    Raises
    ------
    ConfigError
        If a word is none of those that an option takes.
    """
    section, compute = SkeletonConfig.model_validate({}), None
    if labels is not None:
        cases: Sequence[Case] = [case_of_labels(path_of(labels), key, _lengths("spacing", spacing))]
    elif config is not None:
        settings = load_target(config, changes=changes)
        section, cases = settings.skeletons, list_cases(settings).items
        compute = settings.compute
    compute = compute_with(compute, workers=workers, executor=executor, scheduler=scheduler)
    asked["anisotropy"] = _lengths("anisotropy", anisotropy)
    wanted = {name: value for name, value in asked.items() if value is not None}
    options = BakeOptions(**{**section.model_dump(exclude={"enabled"}), **wanted})
    for name, value, known in (
        ("method", options.method, ("lee", "teasar")),
        ("target", options.target, ("offset", "position")),
        ("format", options.form, ("zarr", "tiff")),
    ):
        if value not in known:
            raise ConfigError(f"--{name}: found {value!r}; give {' or '.join(known)}")
    with engine_of(compute) as engine:
        return bake_skeletons(
            cases, out, options, workers=compute.workers, engine=engine, reporter=reporter
        )


def _lengths(option: str, text: str | None) -> Spacing3 | None:
    try:
        return parse_spacing(text)
    except ValueError as error:
        raise ConfigError(f"--{option}: found {text!r}, which {error}") from None


def bake_skeletons(
    cases: Sequence[Case],
    out: Path,
    options: BakeOptions,
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    reporter: Reporter = silent,
) -> list[BakeSummary]:
    """Make the skeletons of every labelled case, and the fields and masks asked for.

    Parameters
    ----------
    cases : sequence of Case
    out : Path
        Folder of ``NAME.skeletons.npz``, ``NAME.offset.ome.zarr``, ...
    options : BakeOptions
    workers : int or None
        Threads; None takes every processor.
    engine : Engine or None
        What traces skeletons, and bakes the blocks of fields and masks, instead of threads.

    Raises
    ------
    DataCheckError
        If no case has labels.
    SourceError
        If a label cannot be read.

    Notes
    -----
    Larger than memory: labels are read block by block. What an earlier run has
    finished of the same file and options is not made again.
    """
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        raise DataCheckError(["no case has labels; skeletons are made from instance labels"])
    for case in labelled:
        case.open_label()  # what cannot be read is told before a folder is made
    if engine is not None and not out.exists():
        engine.reach()  # likewise
    with Ledger(out, own=False) as ledger:
        summaries = [
            BakedCase(
                case, ledger, options, workers=workers, engine=engine, reporter=reporter
            ).make()
            for case in labelled
        ]
        ledger.settle()
    return summaries
