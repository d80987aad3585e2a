"""`volprep prepare`: from a config to a published patch set."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.autoconfig import few_positions
from volprep.cases import Cases
from volprep.checks import Along, CheckedCase, Report
from volprep.config import Config
from volprep.errors import PlanError, SourceError, StoreError, within_memory
from volprep.files import load_json, neighbour
from volprep.findings import Finding
from volprep.fingerprint import Counted, Fingerprint
from volprep.geometry import Box, three
from volprep.ledger import (
    LEDGER,
    MANIFEST,
    Ledger,
    Made,
    Records,
    Unit,
    key_of,
    ledger_damage,
    left_over,
    remove_left_over,
)
from volprep.pipeline.augmentation import check_augment
from volprep.pipeline.check import check, class_voxels_of, look_at_headers, values_of
from volprep.pipeline.costs import Timed, keep_costs
from volprep.pipeline.decide import (
    Decision,
    Known,
    decide,
    foreseen,
    foreseen_parts,
    refuse_impossible,
    survey,
)
from volprep.pipeline.describe import CONFIG, Intensities, describe, manifest, training_config
from volprep.pipeline.identity import (
    Hashing,
    Inputs,
    Trust,
    paths_of,
    read_inputs,
    size_of,
)
from volprep.pipeline.inputs import chosen_cases, engine_of, list_cases, load_target, voxel_count
from volprep.pipeline.measure import (
    clip_warnings,
    crop_box,
    measure,
    normalisations,
    percentiles_of,
    sample_told,
    sampled_values,
)
from volprep.pipeline.needs import Needs, needs_of
from volprep.pipeline.patches import make_patches
from volprep.pipeline.publish import look_at_url, publish_set
from volprep.pipeline.report import Gathered, add_report
from volprep.pipeline.run import (
    COSTLY,
    Change,
    NotDoneError,
    OpenStage,
    OpenStageError,
    Run,
    stock_of,
)
from volprep.pipeline.skeletons import fallen_back, prepare_skeletons
from volprep.pipeline.targets import targets_of
from volprep.pipeline.told import Reporter, Told, refuse_warnings, rules_of, silent
from volprep.pipeline.training import one_sided
from volprep.pipeline.volumes import Prepared, PreparedRef, prepare_volumes, vanished
from volprep.sources import changed_meanwhile
from volprep.splits import SplitPart, audit_splits, splits_blocks
from volprep.store import PatchStore
from volprep.targets import Skeleton

__all__ = [
    "Foreseen",
    "foresee",
    "foresee_needs",
    "make_units",
    "next_units",
    "prepare",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What `prepare` would do.

    Attributes
    ----------
    changes : tuple of Change
        By stage, in order.
    finished : bool
        Whether a whole set is there already.
    complete : bool
        Whether it is exactly what the config describes.
    open : str or None
        The stage that must be made before more can be said.
    inputs : Inputs or None
        The files of the cases, as they were read.
    """

    changes: tuple[Change, ...]
    finished: bool
    complete: bool
    open: str | None = None
    inputs: Inputs | None = None

    @property
    def costly(self) -> list[Change]:
        """What would have to be made again, of what nobody wants to lose."""
        return [c for c in self.changes if c.stage in COSTLY and c.redone and c.known]


def prepare(
    config: Config | str | Path,
    *,
    overwrite: bool = False,
    repair: bool = False,
    strict: bool = False,
    trust: Trust = "hash",
    reporter: Reporter = silent,
    tell: Callable[[str], object] = log.info,
) -> PatchStore:
    """Make the patch set that a config describes.

    Parameters
    ----------
    config : Config
        As `volprep.load_config` reads it, or the path of its YAML.
    overwrite : bool
        Whether patches, volumes and skeletons of a finished set may be made again where the
        config or the files are others than those it was made from, or where it is damaged.
        What stays the same is kept, and the set is replaced at the very end.
    repair : bool
        Read every file of a finished set, and make again what is damaged.
    strict : bool
        Whether a warning ends the run, as an error does.
    trust : {'hash', 'mtime'}
        How inputs are known again: by their content, or by size and time of change, where
        reading them all would take too long.
    reporter : callable
        Told of every long stage.
    tell : callable
        Told in words what is kept of an earlier run, what is made again, and why.

    Returns
    -------
    PatchStore
        The finished set. If it was there already, made of the same config and
        the same files, nothing is done; if only what describes it is another (augmentation,
        clipping), it is brought up to date.

    Raises
    ------
    VolprepError
        Of the family of what is wrong. What was finished before an error or an interruption
        (Ctrl-C, a lost machine, a full disk) is kept, and a second call goes on from there.
    """
    if not isinstance(config, Config):
        config = load_target(Path(config))
    out, reporter = config.output.dir, Timed(reporter)
    check_augment(config)  # a mistake there is told before anything is read
    _look_at(out)
    look_at_url(config)
    publishing: Any = {
        "overwrite": overwrite, "repair": repair, "reporter": reporter, "tell": tell,
    }  # fmt: skip
    inputs: Inputs | None = None
    if _finished(out) and not left_over(out):
        if not (overwrite or repair):
            _refuse_broken(out)
        seen = foresee(config, trust=trust, reporter=reporter)
        inputs = seen.inputs
        if seen.complete and not repair:
            tell(f"{out} is complete already")
            if strict:
                refuse_warnings(load_json(out / "findings.json")["findings"])
            store = PatchStore(out)
            publish_set(config, store, **publishing)
            return store
        if not (overwrite or repair):
            _refuse(out, seen)
    with Ledger(partial_of(out)) as ledger:
        remove_left_over(out)
        kept = len(ledger.records)
        if _finished(out):
            ledger.take_over(out, quick=not (overwrite or repair))
        if len(ledger.records):
            where = f"{ledger.folder}" if kept else f"{out}"
            tell(f"going on from what is done in {where}")
        told = Told(rules_of(config), strict=strict)
        engine = engine_of(config.compute)
        run = Run(config, told, reporter, folder=ledger.folder, ledger=ledger, engine=engine)
        try:
            with engine, within_memory("prepare"):
                head = _build(run, inputs, trust, tell=tell)
        finally:
            PreparedRef.close_all()
            for change in run.changes.values():
                if change.known and change.redone + change.kept:
                    tell(str(change))
        ledger.publish(out, run.wanted, head)
    keep_costs(out, reporter.costs)
    store = PatchStore(out)
    publish_set(config, store, **publishing)
    return store


def next_units(
    config: Config, *, trust: Trust = "hash", reporter: Reporter = silent
) -> OpenStage | None:
    """Do what cannot be shared, and see which units of `prepare` can be shared out next.

    Parameters
    ----------
    config : Config
    trust, reporter
        As for `prepare`.

    Returns
    -------
    OpenStage or None
        None where all are done, so that `prepare` has little left to do.

    Raises
    ------
    VolprepError
        As `prepare` does.
    """
    out = config.output.dir
    check_augment(config)
    _look_at(out)
    if _finished(out) and not left_over(out):
        _refuse_broken(out)
        seen = foresee(config, trust=trust, reporter=reporter)
        if seen.complete:
            return None
        _refuse(out, seen)
    with Ledger(partial_of(out)) as ledger:
        if _finished(out):
            ledger.take_over(out, quick=True)
        return _shared(config, ledger, range(0), trust, reporter)


def make_units(config: Config, units: range, *, reporter: Reporter = silent) -> OpenStage | None:
    """Make some units of the stage that `next_units` found, beside other processes.

    Parameters
    ----------
    config : Config
    units : range
        Numbers of units; those beyond the last are none, and those that are done are kept.
        Two processes may make the same ones.
    reporter : callable

    Returns
    -------
    OpenStage or None
        None where every stage was done already.

    Raises
    ------
    StoreError
        If what all processes need is not there yet.
    """
    partial = partial_of(config.output.dir)
    if not (partial / LEDGER).exists():
        if _finished(config.output.dir):
            return None
        raise StoreError(f"{partial}: nothing is there to be shared; run volprep units first")
    with Ledger(partial, aside=True) as ledger:
        return _shared(config, ledger, units, "mtime", reporter)


def _shared(
    config: Config, ledger: Ledger, share: range, trust: Trust, reporter: Reporter
) -> OpenStage | None:
    engine = engine_of(config.compute)
    run = Run(
        config, Told(rules_of(config), quiet=bool(share)), reporter,
        folder=ledger.folder, ledger=ledger, engine=engine, share=share,
    )  # fmt: skip
    try:
        with engine:
            _build(run, None, trust)
    except OpenStageError as error:
        return error.stage
    finally:
        PreparedRef.close_all()
    return None


def foresee(config: Config, *, trust: Trust = "hash", reporter: Reporter = silent) -> Foreseen:
    """What `prepare` would keep, and what it would make; nothing is written.

    Parameters
    ----------
    config : Config
    trust, reporter
        As for `prepare`. Files are identified, and labels read where their classes decide.
    """
    out = config.output.dir
    _look_at(out)
    stock = stock_of(partial_of(out), out)
    run = Run(
        config, Told(rules_of(config), quiet=True), reporter, folder=partial_of(out), stock=stock
    )
    stopped = None
    trust = "state" if config.data.read == "sample" else trust
    inputs = _inputs(run, list_cases(config), trust)
    try:
        _build(run, inputs, trust)
    except NotDoneError as error:
        stopped = str(error)
    finished, old = _finished(out), Records(out / LEDGER)
    complete = finished and stopped is None and len(old) == len(run.wanted)
    complete = complete and all(old.whole(unit) for unit in run.wanted)
    complete = complete and ledger_damage(out) is None
    return Foreseen(tuple(run.changes.values()), finished, complete, stopped, inputs)


def foresee_needs(config: Config) -> Needs | None:
    """What `prepare` would read, write and need; None where headers do not tell."""
    known = foreseen(config, list_cases(config))
    return None if known is None else needs_of(config, *known, there=partial_of(config.output.dir))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the one walk over all voxels has shown.

    Attributes
    ----------
    report : Report
    parts : mapping of str to Box or None
        What was counted of which case.
    """

    report: Report
    parts: Mapping[str, Box | None]

    @property
    def ids(self) -> dict[str, npt.NDArray[np.uint64]]:
        """Every value of the labels of each case, ascending."""
        return {f.case.name: f.labels.values for f in self.report.facts if f.labels is not None}

    def counted(self, parts: Sequence[SplitPart]) -> dict[str, Counted]:
        """The counts of those of some parts that were foreseen."""
        once = Counter(part.case for part in parts)
        wanted = {part.case: part.box for part in parts if once[part.case] == 1}
        return {
            facts.case.name: facts.counted
            for facts in self.report.facts
            if facts.counted is not None
            and facts.case.name in wanted
            and self.parts[facts.case.name] == wanted[facts.case.name]
        }


def _build(
    run: Run,
    inputs: Inputs | None,
    trust: Trust,
    tell: Callable[[str], object] = log.info,
) -> dict[str, Any]:
    """Everything of the set but its name; what else stands in its manifest."""
    config, told = run.config, run.told
    listed = list_cases(config)
    heads, idle = look_at_headers(config, listed)
    refuse_impossible(config, listed, heads)
    told.tell(idle)
    seen: _Seen | None = None
    if config.data.read == "sample":
        trust = "state"
    elif inputs is None and _is_new(run, listed):
        guess = foreseen(config, listed)
        if guess is not None:
            with contextlib.suppress(SourceError):  # which the check tells, of all cases
                _refuse_needs(run, guess, tell)
        inputs, seen = _walk(run, listed, heads, guess)
    if inputs is None:
        inputs = _inputs(run, listed, trust)
    cases, hashes, values, voxels = _checked(run, listed, heads, inputs, seen)
    known = _known(run, cases, inputs, values, seen)
    decision = decide(config, cases, known)
    audit = audit_splits(
        decision.splits, cases.items, patch=decision.plan.patch_size, hashes=hashes,
        content=config.data.read == "all",
    )  # fmt: skip
    told.tell(audit)
    told.tell(notice.about() for notice in decision.splits.notices)
    few = few_positions(decision.plan.n_positions)
    told.tell([Finding("few-positions", few)] if few else [])
    targets = targets_of(config, cases, decision.plan)
    intensities = _intensities(run, cases, decision, inputs, seen)
    if intensities is not None:
        train = intensities.fingerprint
        told.tell(one_sided(decision.classes, cases.class_names, decision.splits, train, voxels))
    refs, lost = prepare_volumes(run, cases, decision, inputs, {} if seen is None else seen.ids)
    told.tell(vanished(lost))
    counts: dict[str, dict[str, int]] = {}
    sides = {"train": refs, "val": refs}
    if any(target.name == Skeleton.name for target in targets):
        sides, counts = prepare_skeletons(run, refs, decision.splits, inputs)
        told.tell(fallen_back(counts))
    patches = make_patches(run, cases, decision, sides, targets, inputs)
    if intensities is None or hashes is None:
        raise NotDoneError("check" if hashes is None else "fingerprint")
    training = training_config(config, cases, decision, intensities, patches, targets)
    describe(run, decision, intensities, audit, training)
    head = manifest(
        cases, inputs, training, lost_ids=lost, skeletons=counts, patches=patches,
        pad_mode=config.patching.pad_mode,
    )  # fmt: skip
    found = Gathered(
        config, cases, known, decision, intensities.fingerprint, intensities.common,
        told.findings, Prepared(refs),
    )  # fmt: skip
    add_report(run, found, head)
    inputs.check(cases)
    return head


def _refuse_needs(run: Run, guess: tuple[Cases, Decision], tell: Callable[[str], object]) -> None:
    """Tell what a long run takes, and end one that cannot fit."""
    config = run.config
    with within_memory("estimate"):
        needs = needs_of(config, *guess, there=run.folder)
    if needs.long:
        for line in needs.lines():
            tell(line)
    # Of a small set it is not known to some 100 KB what it takes.
    if needs.long or config.compute.memory or config.compute.disk:
        needs.refuse(config.output.dir)


def _inputs(run: Run, listed: Cases, trust: Trust) -> Inputs:
    """Every file of the cases that the config lists."""

    def known(path: str) -> Mapping[str, Any] | None:
        noted = run.noted("inputs", path)
        return None if noted is None else {**noted, "sha256": noted["key"]}

    workers = run.config.compute.workers
    return read_inputs(paths_of(listed), known, trust=trust, workers=workers, reporter=run.reporter)


def _is_new(run: Run, listed: Cases) -> bool:
    """Whether every voxel must be looked at, whatever the files turn out to be."""
    if run.ledger is None:
        return False
    noted = run.noted("check", "cases")
    if noted is None or noted.get("asked") != _asked(run.config, listed):
        return True
    for path in paths_of(listed):
        before = run.noted("inputs", str(path))
        if before is None or before.get("size") != size_of(path):
            return True
    return False


def _asked(config: Config, listed: Cases) -> str:
    """All that the check depends on beside the files and their headers.

    Where volumes are divided, the blocks follow from the plan.
    """
    asked = config.model_dump(mode="json", include={"data", "split", "seed"})
    asked["data"] = {k: v for k, v in asked["data"].items() if k not in ("root", "cases")}
    labelled, divided = chosen_cases(config, listed, {}), False
    with contextlib.suppress(PlanError):  # which is told in its place
        divided = splits_blocks(labelled.items, kind=config.split.kind, listed=listed.folds)
    if divided:
        asked["plan"] = config.plan.model_dump(mode="json")
        asked["target_spacing"] = config.preprocess.target_spacing
        asked["crop_nonzero"] = config.preprocess.crop_nonzero
    told = [finding.to_dict() for finding in listed.findings]
    return key_of("asked", 1, asked, _placeless(told))


def _walk(
    run: Run, listed: Cases, heads: Report, known: tuple[Cases, Decision] | None
) -> tuple[Inputs, _Seen]:
    """Check the cases, measure what will train and identify all files, in one walk over them."""
    config = run.config
    parts = {} if known is None else foreseen_parts(config, *known)
    before: tuple[Path, Report] | None = None
    while True:
        hashing = Hashing(paths_of(listed))
        along = Along(parts, crop=config.preprocess.crop_nonzero, pace=hashing.pace)
        with run.reporter("check", voxel_count(listed), "voxels") as advance:
            report = check(config, listed, heads=heads, progress=advance, along=along)
        inputs = hashing.finish(config.compute.workers)
        changed = hashing.changed()
        # Of a file that is another than when the walk began it is not known which voxels were
        # seen. Touched alone, it shows the same ones once more.
        if before is not None and (changed or _voxels(before[1]) != _voxels(report)):
            raise changed_meanwhile(before[0])
        if changed is None:
            run.told.tell(report.findings)
            return inputs, _Seen(report, parts)
        before = changed, report


def _voxels(report: Report) -> list[Any]:
    """What tells whether voxels are the same: hashes of images, and counts of labels."""
    labels = [(f.labels.ids.tolist(), f.labels.sizes.tolist()) for f in report.facts if f.labels]
    return [report.hashes, labels]


def _checked(
    run: Run, listed: Cases, heads: Report, inputs: Inputs, seen: _Seen | None
) -> tuple[
    Cases, Mapping[str, str] | None, frozenset[int] | None, dict[str, dict[int, int]] | None
]:
    """The cases, the hashes of their images, the values of labels, and the voxels of each.

    Errors of the data end it here, warnings are told.
    """
    config = run.config
    asked = _asked(config, listed)
    keys = [[case.name, inputs.key(case), case.group, case.weight] for case in listed]
    unit = Unit("check", "cases", key_of("check", 3, asked, keys))

    paths = {case.name: list(map(str, case.paths())) for case in listed}
    # Files by number, so that a data set that was moved is told of where it is now.
    numbers = {name: {path: n for n, path in enumerate(own)} for name, own in paths.items()}
    places = {name: dict(enumerate(own)) for name, own in paths.items()}

    def look() -> Report:
        with run.reporter("check", voxel_count(listed), "voxels") as advance:
            return check(config, listed, heads=heads, progress=advance)

    def make() -> Made:
        report = look() if seen is None else seen.report
        run.told.tell(report.findings)
        inputs.check(listed)
        chosen = chosen_cases(config, listed, report.hashes)
        values, voxels = values_of(report, chosen), class_voxels_of(report, chosen)
        if config.data.read == "sample" and values is not None:
            values, voxels = sampled_values(config, chosen, run.reporter), None
        return (), {
            "asked": asked,
            "findings": [_moved(finding.to_dict(), numbers) for finding in report.findings],
            "hashes": report.hashes,
            "values": None if values is None else sorted(values),
            "voxels": None if voxels is None else {n: list(v.items()) for n, v in voxels.items()},
        }

    try:
        facts = run.once(unit, make)
    except NotDoneError:
        return (
            chosen_cases(config, listed, {} if config.data.read == "sample" else None),
            None,
            None,
            None,
        )
    run.told.tell(Finding.from_dict(_moved(found, places)) for found in facts["findings"])
    for found in inputs.by_path.values():
        run.note(found.unit, found.facts)
    values, voxels = facts["values"], facts["voxels"]
    return (
        chosen_cases(config, listed, facts["hashes"]),
        facts["hashes"],
        None if values is None else frozenset(values),
        None if voxels is None else {name: dict(counted) for name, counted in voxels.items()},
    )


def _moved(finding: Mapping[str, Any], names: Mapping[str, Mapping[Any, Any]]) -> dict[str, Any]:
    """A finding that calls the file of its case by another name."""
    path = finding["path"]
    return {**finding, "path": names.get(finding["case"] or "", {}).get(path, path)}


def _placeless(findings: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Findings by what they say, wherever the files lie."""
    return [[finding["name"], finding["case"]] for finding in findings]


def _known(
    run: Run, cases: Cases, inputs: Inputs, values: frozenset[int] | None, seen: _Seen | None
) -> Known:
    crops: dict[str, Box] = {}
    if run.config.preprocess.crop_nonzero:
        units = [Unit("crop", case.name, key_of("crop", 1, inputs.key(case))) for case in cases]
        filled = {} if seen is None else {f.case.name: f for f in seen.report.facts if f.voxels}
        make = partial(_crop, cases=cases, inputs=inputs, seen=filled)
        run.all("crop", units, make, title="crop", what="cases")
        found = ((str(unit.index), run.facts(unit)) for unit in units)
        crops = {name: Box(three(box["start"]), three(box["stop"])) for name, box in found}
    return survey(run.config, cases, run.reporter, values, crops)


def _crop(unit: Unit, *, cases: Cases, inputs: Inputs, seen: Mapping[str, CheckedCase]) -> Made:
    case = cases.named(str(unit.index))
    known = seen.get(case.name)
    if known is None or known.image is None:
        box = crop_box(case)
    else:
        box = known.filled or Box.whole(known.image.shape)
    inputs.check([case])
    return (), {"start": box.start, "stop": box.stop}


def _intensities(
    run: Run, cases: Cases, decision: Decision, inputs: Inputs, seen: _Seen | None
) -> Intensities | None:
    """Measure what trains, and decide how intensities are brought to one scale.

    None where nothing is to be measured now.
    """
    config = run.config

    def measured(name: str, parts: Sequence[SplitPart]) -> Fingerprint:
        boxes = [
            [p.case, inputs.key(cases.named(p.case)), p.box and [p.box.start, p.box.stop]]
            for p in parts
        ]
        how = [percentiles_of(config), *(["sample"] if config.data.read == "sample" else [])]
        unit = Unit("fingerprint", name, key_of("fingerprint", 1, boxes, *how))

        def make() -> Made:
            known = {} if seen is None else seen.counted(parts)
            found = measure(config, cases, parts, run.reporter, "fingerprint", known=known)
            inputs.check(cases.named(part.case) for part in parts)
            return (), found.to_dict()

        return Fingerprint.from_dict(run.once(unit, make))

    others: tuple[Any, ...] = ()
    try:
        train = measured("train", decision.measured)
        if config.preprocess.scope == "case":
            named = {part.case for part in decision.measured}
            rest = [SplitPart(case.name) for case in cases if case.name not in named]
            others = measured("val", rest).cases if rest else ()
    except NotDoneError:
        return None
    run.told.tell(clip_warnings(config, train))
    run.told.tell(sample_told(config, cases, decision.measured))
    return Intensities(train, *normalisations(config, train, others))


def partial_of(out: Path) -> Path:
    """Where a set is made before it has its name."""
    return neighbour(out, ".partial")


def _finished(out: Path) -> bool:
    """Whether a set is there, be it damaged: without a manifest its ledger tells of one."""
    if (out / MANIFEST).exists():
        return True
    return Records(out / LEDGER).key("describe", CONFIG) is not None


def _look_at(out: Path) -> None:
    """Refuse to write where something else lies."""
    if out.exists() and not _finished(out) and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out}: exists and is no patch set; choose another output.dir (--out)")
    partial = partial_of(out)
    if partial.exists() and not list(partial.glob("ledger*.jsonl")) and any(partial.iterdir()):
        raise StoreError(f"{partial}: is in the way and not volprep's; move it away")


def _refuse_broken(out: Path) -> None:
    """Refuse a set of another form, or one of which it is not known what it holds."""
    if (out / MANIFEST).exists():
        PatchStore(out)
    found = ledger_damage(out)
    if found is not None:
        raise StoreError(f"{found}; mend the set with: volprep repair {out}")


def _refuse(out: Path, seen: Foreseen) -> None:
    """Keep a finished set from having its work made again without being asked to."""
    if not seen.costly:
        return
    what = "; ".join(map(str, seen.costly))
    if all(not change.why for change in seen.costly):
        raise StoreError(f"{out}: is damaged ({what}); mend it with: volprep repair {out}")
    raise StoreError(
        f"{out}: holds a patch set of another config or of other files ({what}); "
        "add --overwrite to make that again and keep the rest, or choose another output.dir"
    )
