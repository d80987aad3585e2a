"""What the report tells, gathered: of a set that is being described, or of a config alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.autoconfig import few_positions
from volprep.cases import Cases
from volprep.config import Config, with_values
from volprep.cutting import (
    Block,
    PreparedCase,
    annotated_sites,
    blocks_of,
    grid_sites,
    stored_patch_size,
)
from volprep.cutting import training_sites as draw_sites
from volprep.errors import PlanError, StoreError
from volprep.findings import Finding
from volprep.fingerprint import Fingerprint
from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.ledger import LEDGER, Records, differs
from volprep.pipeline.check import check, class_voxels_of, values_of
from volprep.pipeline.costs import costs_of
from volprep.pipeline.decide import Decision, Known, decide, drawing, survey
from volprep.pipeline.describe import config_text
from volprep.pipeline.inputs import chosen_cases, list_cases, voxel_count
from volprep.pipeline.measure import measure, normalisations
from volprep.pipeline.pictures import ALL_PICTURES, PICTURED, affordable, spread
from volprep.pipeline.refused import refused_page
from volprep.pipeline.run import Run
from volprep.pipeline.told import Reporter, Told, rules_of, silent
from volprep.pipeline.training import one_sided
from volprep.pipeline.volumes import prepared_case
from volprep.preprocess import Normalisation
from volprep.report import (
    CaseView,
    Choice,
    Overview,
    PatchMap,
    SampleView,
    around,
    draw_case,
    labelled_place,
    render_report,
    with_costs,
    with_names,
)
from volprep.store import PatchStore

__all__ = ["REPORT", "Gathered", "add_report", "report_of_config", "report_of_set", "samples_of"]

#: The name of the page in a set.
REPORT = "report.html"
#: Of another form of the page: one that is there is made again.
_VERSION = 2
#: Stages that are notes and no work.
_SILENT = ("made from",)

#: Cases whose patches are mapped, and samples that are drawn.
_MAPPED, _SAMPLES, _WITH_TARGETS = 3, 8, 4
#: Voxels of all samples together; fewer are drawn of large patches.
_SAMPLED = 2**25
#: What else a memory is tried with.
_MEMORIES = (0.25, 0.5, 2.0, 4.0)
_NUMBERS = ("case", "start", "pad", "index")

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Gathered:
    """What stages of `prepare` (or of looking at a config) have found.

    Attributes
    ----------
    config : Config
    cases : Cases
    known : Known
    decision : Decision
    fingerprint : Fingerprint
    normalisation : Normalisation
    findings : sequence of Finding
    prepared : sequence of PreparedCase
        On the grid of the set, each opened when it is asked for.
    """

    config: Config
    cases: Cases
    known: Known
    decision: Decision
    fingerprint: Fingerprint
    normalisation: Normalisation
    findings: Sequence[Finding]
    prepared: Sequence[PreparedCase]


@dataclass(frozen=True)
class _Places:
    """Where the patches of a split are: case and first voxel, and what is labelled of each."""

    size: Shape3
    rows: Rows
    foreground: npt.NDArray[np.float64] | None = None

    def boxes(self, case: int) -> list[Box]:
        """Those of a case."""
        return [Box.at(row[1:4], self.size) for row in self.rows[self.rows[:, 0] == case].tolist()]


def add_report(run: Run, found: Gathered, head: dict[str, Any]) -> None:
    """Write the page of a set that is whole but for it; `head` is what its manifest will say."""
    units = [[unit.stage, unit.index, unit.key] for unit in run.wanted]

    def make() -> str:
        with run.reporter("report", 1, "pages") as advance:
            store = PatchStore(run.folder, head)
            text = render(found, store, versions=head["versions"], stages=_stages(run))
            advance(1)
        return text

    run.page(REPORT, [_VERSION, head["versions"], units], make)


def report_of_config(
    config: Config, reporter: Reporter = silent, tell: Callable[[str], None] = lambda _: None
) -> str:
    """The page of a config: what is found, planned and divided, before anything is made.

    Data that `prepare` would refuse has a page, too: with what is wrong, and what can be read.

    Parameters
    ----------
    config : Config
    reporter : callable
        Told of every long stage.
    tell : callable
        Told in a line where the data is refused.

    Raises
    ------
    ConfigError, SourceError
        If the config does not fit the data, or there is no data to look at.
    """
    listed = list_cases(config)
    with reporter("check", voxel_count(listed), "voxels") as advance:
        report = check(config, listed, progress=advance)
    errors = [finding for finding in report.findings if finding.level == "error"]
    if errors:
        tell(f"{_errors(len(errors))}: prepare refuses this data, and the page says why")
        return refused_page(_called(config, listed), config, report)
    cases = chosen_cases(config, listed, report.hashes)
    known = survey(config, cases, reporter, values_of(report, cases))
    decision = decide(config, cases, known)
    measured = measure(config, cases, decision.measured, reporter, "fingerprint")
    common, _, _ = normalisations(config, measured)
    few = few_positions(decision.plan.n_positions)
    told = Told(rules_of(config), quiet=True)
    told.tell([*report.findings, *(notice.about() for notice in decision.splits.notices)])
    told.tell([Finding("few-positions", few)] if few else [])
    told.tell(
        one_sided(
            decision.classes,
            cases.class_names,
            decision.splits,
            measured,
            class_voxels_of(report, cases),
        )
    )
    prepared = [prepared_case(case, decision.layouts[case.name]) for case in cases]
    return render(
        Gathered(config, cases, known, decision, measured, common, told.findings, prepared)
    )


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count} errors"


def _stages(run: Run) -> list[tuple[str, int, int]]:
    """How many units each stage has, and the bytes of their files."""
    found: dict[str, list[int]] = {}
    for unit in run.wanted:
        if unit.stage not in _SILENT:
            counts = found.setdefault(unit.stage, [0, 0])
            counts[0] += 1
            counts[1] += sum(file.size for file in run.files(unit))
    return [(stage, units, size) for stage, (units, size) in found.items()]


def render(
    found: Gathered,
    store: PatchStore | None = None,
    *,
    versions: Mapping[str, str] | None = None,
    stages: Sequence[tuple[str, int, int]] = (),
) -> str:
    """The page of a set, or of a config for which there is none yet."""
    decision, config = found.decision, found.config
    plan, splits = decision.plan, decision.splits
    train, val = (blocks_of(parts, found.prepared) for parts in (splits.train, splits.val))
    stored = stored_patch_size(plan.patch_size, plan.aug_patch_size, train)
    places = _drawn(found, train, val, stored) if store is None else _cut(store)
    n = {split: len(p.rows) for split, p in places.items()}
    labelled = any(case.label is not None for case in found.cases)
    samples = {} if store is None else {split: samples_of(store, split) for split in places}
    told = Overview(
        name=_called(config, found.cases),
        made=store is not None,
        findings=found.findings,
        cases=_views(found, places),
        fingerprint=found.fingerprint,
        normalisation=found.normalisation.to_dict(),
        classes=_names(found),
        label_kind=found.cases.label_kind if labelled else None,
        plan=plan,
        choices=_choices(found),
        splits=splits,
        counts=n,
        stored=stored,
        maps=_maps(found, train, val, places),
        train=samples.get("train", ()),
        val=samples.get("val", ()),
        inputs=() if store is None else _inputs(store),
        versions=versions or {},
        config=config_text(config),
        stages=stages,
    )
    return render_report(told).html()


def _called(config: Config, cases: Cases) -> str:
    """What the data is called: as its folder, or as its first case where cases are listed."""
    root = config.data.root
    return (None if root is None else root.name) or cases.items[0].name


def samples_of(store: PatchStore, split: str) -> list[SampleView]:
    """Some samples of epoch 0, as `volprep.dataloader` gives them."""
    from volprep.loader import PatchDataset  # torch takes a second to load

    train = split == "train"
    dataset = PatchDataset(store, "train" if train else "val", augment=train)
    labelled = None if store.kind == "volumes" else store.split(split).index[:, 10] > 0
    voxels = math.prod(dataset.stored_size)
    numbers = _chosen(len(dataset), labelled, voxels, targets=bool(dataset.training["targets"]))
    found = []
    for number in numbers:
        arrays = dataset.room(0, number)
        dataset.fill(0, number, arrays)
        start = arrays["start"].tolist()
        found.append(
            SampleView(
                f"{dataset.cases[int(arrays['case'])]}, {'patch' if train else 'tile'} {number}",
                {name: array for name, array in arrays.items() if name not in _NUMBERS},
                [f"from z {start[0]}, y {start[1]}, x {start[2]}"],
            )
        )
    return found


def _chosen(
    count: int, labelled: npt.NDArray[np.bool_] | None, voxels: int, *, targets: bool
) -> list[int]:
    """Samples that are drawn: evenly spaced among those with labels, so that cases take turns."""
    most = max(2, min(_WITH_TARGETS if targets else _SAMPLES, _SAMPLED // voxels))
    among = np.arange(count)
    if labelled is not None and labelled.any():
        among = np.flatnonzero(labelled)
    if not len(among):
        return []
    return sorted(set(among[np.linspace(0, len(among) - 1, most).round().astype(int)].tolist()))


def _cut(store: PatchStore) -> dict[str, _Places]:
    """The places of the patches of a set; of a set of volumes those of epoch 0."""
    found = {}
    for split in ("train", "val"):
        if store.kind == "volumes":
            found[split] = _placed(store, split)
            continue
        reader = store.split(split)
        size = three(reader.spec("image").patch_shape[1:])
        share = reader.index[:, 10] / math.prod(size)
        found[split] = _Places(size, reader.index[:, :4], share)
    return found


def _placed(store: PatchStore, split: str) -> _Places:
    from volprep.loader import PatchDataset

    dataset = PatchDataset(store, "train" if split == "train" else "val")
    places = [dataset.place(0, number) for number in range(len(dataset))]
    rows = np.array([[case, *start] for case, start in places], np.int64)
    return _Places(dataset.stored_size, rows.reshape(len(places), 4))


def _drawn(
    found: Gathered, train: Sequence[Block], val: Sequence[Block], stored: Shape3
) -> dict[str, _Places]:
    """The places of the patches that `prepare` would cut."""
    plan, config = found.decision.plan, found.config
    sites = {
        "train": draw_sites(
            train, stored, drawing(config, found.cases.label_kind, plan), found.prepared,
            weights=[case.weight for case in found.cases],
        ),
        "val": annotated_sites(
            grid_sites(val, plan.patch_size, config.patching.overlap), plan.patch_size,
            found.prepared,
        ),
    }  # fmt: skip
    sizes = {"train": stored, "val": plan.patch_size}
    return {
        split: _Places(
            sizes[split],
            np.array([[s.case, *s.start] for s in of], np.int64).reshape(len(of), 4),
        )
        for split, of in sites.items()
    }


def _names(found: Gathered) -> dict[int, str] | None:
    classes = found.decision.classes
    if classes is None:
        return None
    named = found.cases.class_names
    return {v: named.get(v, "background" if v == 0 else f"class {v}") for v in classes}


def _choices(found: Gathered) -> list[Choice]:
    """What other memories would give."""
    config = found.config
    choices = []
    for factor in _MEMORIES:
        memory = int(config.plan.memory * factor)
        section = with_values(config.plan, {"memory": memory})
        other = config.model_copy(update={"plan": section})
        try:
            plan = decide(other, found.cases, found.known).plan
        except PlanError as error:
            choices.append(Choice(memory, None, str(error)))
        else:
            choices.append(Choice(memory, plan))
    return choices


def _views(found: Gathered, places: Mapping[str, _Places]) -> list[CaseView]:
    sides = _sides(found)
    pictured = set(spread(len(found.cases), PICTURED))
    room = ALL_PICTURES
    views = []
    for number, case in enumerate(found.cases):
        layout = found.decision.layouts[case.name]
        mine = {split: p.rows[:, 0] == number for split, p in places.items()}
        shares = [
            p.foreground[mine[split]] for split, p in places.items() if p.foreground is not None
        ]
        shares = [share for share in shares if len(share)]
        picture, lines, partial = None, list[str](), False
        if number in pictured:
            prepared = found.prepared[number]
            most, cost = affordable(prepared.image)
            if most is not None and cost <= room:
                room -= cost
                at = _look_at(prepared, [(p, mine[split]) for split, p in places.items()])
                picture, lines, partial = draw_case(
                    three(layout.shape[1:]), layout.spacing, prepared.image.read,
                    None if prepared.label is None else _first(prepared.label), at=at, most=most,
                    valid=None if prepared.mask is None else _first(prepared.mask),
                )  # fmt: skip
        views.append(
            CaseView(
                case.name,
                sides[case.name],
                (layout.shape[0], *three(layout.shape[1:])),
                layout.spacing,
                str(layout.dtype),
                case.label is not None,
                (int(mine["train"].sum()), int(mine["val"].sum())),
                float(np.mean([share.mean() for share in shares]))
                if shares and case.label is not None
                else None,
                picture,
                lines,
                partial,
            )
        )
    return views


def _sides(found: Gathered) -> dict[str, str]:
    splits = found.decision.splits
    train, val = ({part.case for part in parts} for parts in (splits.train, splits.val))
    words = {
        (True, False): "training", (False, True): "validation", (True, True): "divided",
        (False, False): "not used",
    }  # fmt: skip
    return {c.name: words[c.name in train, c.name in val] for c in found.cases}


def _first(volume: VolumeLike) -> Any:
    return lambda box: volume.read(box)[0]


def _look_at(
    prepared: PreparedCase, places: Sequence[tuple[_Places, npt.NDArray[np.bool_]]]
) -> Shape3:
    """The middle, or where a patch holds most labels if the middle slice has none."""
    if prepared.label is None:
        return three(n // 2 for n in Box.whole(prepared.image.shape).shape)
    shape = Box.whole(prepared.image.shape).shape
    middle = three(n // 2 for n in shape)
    best, patch = 0.0, None
    for of, mine in places:
        if not mine.any():
            continue
        shares = np.zeros(len(mine)) if of.foreground is None else of.foreground
        number = int(np.flatnonzero(mine)[shares[mine].argmax()])
        if patch is None or shares[number] > best:
            best = float(shares[number])
            patch = Box.at(of.rows[number, 1:4].tolist(), of.size).common(Box((0, 0, 0), shape))
    most, _ = affordable(prepared.label)
    if most is None or patch is None:
        return middle
    box = around(middle, shape, (1, most[1], most[2]))
    if prepared.label.read(box).any():
        return middle
    return labelled_place(prepared.label, [patch]) or middle


def _maps(
    found: Gathered,
    train: Sequence[Block],
    val: Sequence[Block],
    places: Mapping[str, _Places],
) -> list[PatchMap]:
    """Of some cases where patches come from: those that are divided, else of both sides."""
    sides = _sides(found)
    both = [n for n, case in enumerate(found.cases) if sides[case.name] == "divided"]
    chosen = both[:_MAPPED]
    if not both:
        of = {
            side: [n for n, case in enumerate(found.cases) if sides[case.name] == side]
            for side in ("training", "validation")
        }
        chosen = of["training"][: _MAPPED - 1] + of["validation"][:1]
    maps = []
    for number in chosen:
        prepared = found.prepared[number]
        most, _ = affordable(prepared.image)
        maps.append(
            PatchMap(
                prepared.name,
                prepared.image,
                found.decision.layouts[prepared.name].spacing,
                train_blocks=[box for case, box in train if case == number],
                val_blocks=[box for case, box in val if case == number],
                train_patches=places["train"].boxes(number),
                val_patches=places["val"].boxes(number),
                label=prepared.label,
                most=most or (1, 1, 1),
            )
        )
    return maps


def _inputs(store: PatchStore) -> list[tuple[str, int, str]]:
    return [(each["path"], each["size"], each["sha256"]) for each in store.manifest["inputs"]]


def report_of_set(out: Path) -> str:
    """The page of a finished set, with the times and the memory of its making where they are known.

    Raises
    ------
    StoreError
        If there is no set, or its page is missing or damaged.
    """
    out = PatchStore(out).path
    record = Records(out / LEDGER).find("describe", REPORT)
    if record is None:
        raise StoreError(
            f"{out}: was prepared without a report; volprep prepare CONFIG adds one and keeps the "
            "rest"
        )
    for file in record.files:
        found = differs(out / file.path, file)
        if found is not None:
            raise StoreError(
                f"{out / file.path}: damaged ({found}); mend the set with: volprep repair {out}"
            )
    html = (out / REPORT).read_text(encoding="utf-8")
    return with_names(with_costs(html, costs_of(out)), PATCHES=out)
