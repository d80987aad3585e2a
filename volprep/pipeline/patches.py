"""The cutting stage: which places become patches, and the shards that hold them."""

from __future__ import annotations

import functools
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.autoconfig import Plan
from volprep.cases import Cases
from volprep.compute import default_workers, memory_limit, threads
from volprep.config import ComputeConfig, Config
from volprep.cutting import (
    Block,
    Drawing,
    PadMode,
    Site,
    TrainingPlaces,
    annotated_sites,
    cut_patches,
    grid_sites,
    stored_patch_size,
    training_sites,
)
from volprep.errors import DataCheckError, PlanError
from volprep.files import File, NewFile, describe
from volprep.findings import Finding
from volprep.geometry import Box, Shape3, Spacing3, three
from volprep.ledger import Made, Unit, key_of
from volprep.pipeline.decide import Decision, drawing
from volprep.pipeline.identity import Inputs
from volprep.pipeline.run import Run
from volprep.pipeline.targets import stored_targets
from volprep.pipeline.volumes import Prepared, PreparedRef
from volprep.splits import SplitPart
from volprep.store import ArraySpec, PatchWriter
from volprep.targets import Target

__all__ = ["Patches", "make_patches"]

log = logging.getLogger(__name__)

SplitName = Literal["train", "val"]
_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Patches:
    """What was cut.

    Attributes
    ----------
    counts : dict
        Patches of each split; of volumes, the samples of an epoch.
    stored : (Z, Y, X)
        The size of those for training.
    metadata : dict
        The files of each split that say how its patches are read.
    volumes : dict
        The keys of the volumes that the set keeps, by case.
    arrays : dict
        Of a set of volumes: axes before (Z, Y, X) and dtype of what is read from them.
    samples : dict
        Of a set of volumes: samples of an epoch, by split and by the case's number.
    places : str or None
        The key of what training places are drawn by, where they are drawn by the loader.
    """

    counts: dict[SplitName, int]
    stored: Shape3
    metadata: dict[SplitName, tuple[File, ...]]
    volumes: dict[str, str]
    arrays: dict[str, tuple[list[int], str]]
    samples: dict[SplitName, list[int]]
    places: str | None = None


@dataclass(frozen=True, slots=True)
class _Cutting:
    """All that a process needs to cut shards of a split."""

    writer: PatchWriter
    sites: Path
    refs: tuple[PreparedRef, ...]
    mode: PadMode
    targets: tuple[Target, ...]
    spacing: Spacing3 | None
    inputs: Inputs
    threads: int

    def __call__(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, Made]]:
        """Cut the patches of neighbouring shards in one pass over each case."""
        rows, specs = _load(self.sites), self.writer.specs
        numbers = [self.writer.patches_of(int(unit.index)) for unit in units]
        places = (rows[n.start : n.stop] for n in numbers)
        with threads(self.threads) as pool:
            patches = cut_patches(
                Prepared(self.refs), (Site.of_row(row) for own in places for row in own.tolist()),
                three(specs[0].patch_shape[1:]), {spec.name: spec.dtype for spec in specs},
                self.mode, self.targets, self.spacing, pool=pool, finish=self.writer.encode,
            )  # fmt: skip
            for unit, own in zip(units, numbers, strict=True):
                made = self.writer.write(int(unit.index), unit.key, islice(patches, len(own)))
                used = np.unique(rows[own.start : own.stop, 0]).tolist()
                self.inputs.check(self.refs[number].case for number in used)
                yield unit, made


def make_patches(
    run: Run,
    cases: Cases,
    decision: Decision,
    sides: Mapping[str, Sequence[PreparedRef]],
    targets: Sequence[Target],
    inputs: Inputs,
) -> Patches:
    """Choose the places of the patches and cut them, shard by shard.

    `sides` are the same cases twice: as training may see them, and as validation may.
    """
    refs = sides["train"]
    config, plan, prepared = run.config, decision.plan, Prepared(refs)
    drawn = plan.store == "volumes"
    blocks = {
        "train": _blocks(decision.splits.train, refs),
        "val": _blocks(decision.splits.val, refs),
    }
    stored = stored_patch_size(plan.patch_size, plan.aug_patch_size, blocks["train"])
    dtypes, stored_too = _dtypes(refs), stored_targets(config, targets)
    channels = refs[0].layout.shape[0]
    _check_memory(stored, dtypes, channels, config)
    how = drawing(config, cases.label_kind, plan)
    where = _drawn_by(config, cases.label_kind, plan)
    seen = [ref.key if config.patching.filter.name not in ("none", "mask") else ref.labels
            for ref in refs]  # fmt: skip
    sources = [[ref.case.name, key, ref.case.weight] for ref, key in zip(refs, seen, strict=True)]

    def choose(split: SplitName, key: str) -> Made:
        if split == "train" and drawn and how.name != "sequential":
            return _draw_later(run, blocks["train"], stored, how, prepared, key)
        if split == "val":
            every = grid_sites(blocks["val"], plan.patch_size, config.patching.overlap)
            found = annotated_sites(every, plan.patch_size, prepared)
            if len(found) < len(every):
                log.info("%d of %d validation patches hold nothing annotated: left out",
                         len(every) - len(found), len(every))  # fmt: skip
        else:
            with run.reporter("choose patches", len(blocks["train"]), "cases") as advance:
                found = training_sites(
                    blocks["train"], stored, how, prepared,
                    weights=[ref.case.weight for ref in refs], progress=advance,
                )  # fmt: skip
            if not found:
                raise DataCheckError(["no training patch: every case was held out or rejected"])
        return _save(found, run.folder, split)

    sizes: dict[SplitName, Shape3] = {"train": stored, "val": plan.patch_size}
    held = decision.splits.to_dict()
    run.made_from(
        "sites",
        {
            **where,
            "patching.overlap": config.patching.overlap,
            "plan.aug_patch_size": plan.aug_patch_size,
            "split": [held["train"], held["val"]],
            "output.store": plan.store,
            **{f"case {name}": key for name, key, _ in sources},
        },
    )
    metadata: dict[SplitName, tuple[File, ...]] = {}
    counts: dict[SplitName, int] = {}
    samples: dict[SplitName, list[int]] = {}
    places, units = None, dict[SplitName, Unit]()
    for split, size in sizes.items():
        by = where if split == "train" else {"overlap": config.patching.overlap}
        regions = [[number, box.start, box.stop] for number, box in blocks[split]]
        key = key_of("sites", 4, size, by, regions, sources, plan.store)
        units[split] = Unit("sites", split, key)
        _choose(run, units[split], partial(choose, split, key))
    for split, size in sizes.items():
        unit = units[split]
        if split == "train" and drawn and how.name != "sequential":
            facts = run.facts(unit)
            counts[split], samples[split] = facts["patches"], facts["cases"]
            metadata[split], places = (), unit.key
            continue
        rows = _load(run.path(unit, f"sites/{split}.npy"))
        counts[split] = len(rows)
        run.told.tell(_padding(split, rows, size))
        if drawn:
            samples[split] = np.bincount(rows[:, 0], minlength=len(refs)).tolist()
            metadata[split] = run.files(unit)
            continue
        specs = _specs(dtypes, channels, size, config.output.compression)
        specs += [
            ArraySpec(array.name, array.shape(size), array.dtype, config.output.compression)
            for target in stored_too
            for array in target.arrays(size)
        ]
        metadata[split] = _write_split(
            run, split, rows, specs, sides[split], stored_too, plan.spacing, inputs
        )
    kept = {ref.case.name: ref.key for ref in refs if ref.arrays is not None}
    arrays = _arrays(run, dtypes, channels, refs) if drawn else {}
    return Patches(counts, stored, metadata, kept, arrays, samples, places)


def _drawn_by(config: Config, kind: str, plan: Plan) -> dict[str, Any]:
    """What of the config decides where training patches lie, by name."""
    section = config.patching.model_dump(mode="json")
    idle = {"pad_mode"}  # which moves no place
    if config.patching.name == "sequential":
        idle |= {"foreground", "patches_per_case"}
    else:
        idle |= {"overlap"}
    return {
        "seed": config.seed,
        "cover": plan.cover,
        "plan.patch_size": plan.patch_size,
        "kind": kind,
        **{f"patching.{name}": value for name, value in section.items() if name not in idle},
    }


def _draw_later(
    run: Run,
    blocks: Sequence[Block],
    stored: Shape3,
    how: Drawing,
    prepared: Prepared,
    key: str,
) -> Made:
    """Find what it takes to draw training places, for a loader that draws them anew."""
    with run.reporter("choose places", len(blocks), "cases") as advance:
        places = TrainingPlaces(
            blocks, stored, how, prepared,
            weights=[ref.case.weight for ref in prepared.refs], progress=advance, held=1,
        )  # fmt: skip
        path = run.folder / "sites" / "train.npz"
        places.save(path, key)
    of_case = np.bincount(places.cases, minlength=len(prepared)).tolist()
    return [describe(path, run.folder)], {"patches": len(places), "cases": of_case}


def _arrays(
    run: Run, dtypes: Mapping[str, np.dtype[Any]], channels: int, refs: Sequence[PreparedRef]
) -> dict[str, tuple[list[int], str]]:
    """What a loader reads from the volumes; labels are as wide as the widest of them."""
    found = dict(dtypes)
    if "label" in found:
        made = (run.facts(Unit("volumes", ref.case.name, ref.key)) for ref in refs)
        found["label"] = np.result_type(*(facts["label"] for facts in made if facts["label"]))
    return {
        name: ([channels] if name == "image" else [], dtype.name) for name, dtype in found.items()
    }


def _choose(run: Run, unit: Unit, choose: Any) -> None:
    """Choose the places of a split, if they are not on the disk."""
    change = run.changes["sites"]
    if run.has(unit):
        change.kept += 1
    else:
        change.redone += 1
    run.make(unit, choose)


def _save(sites: Sequence[Site], folder: Path, split: SplitName) -> Made:
    """Write the places, those of a case by z, y and x: so one pass over its files cuts them all."""
    rows = sorted(site.row() for site in sites)
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows, np.int64).reshape(len(rows), 13), allow_pickle=False)
    with NewFile(folder / "sites" / f"{split}.npy") as new:
        new.write(buffer.getvalue())
    return [new.described(folder)], {"patches": len(rows)}


def _load(path: Path) -> _Rows:
    rows: _Rows = _loaded(path, path.stat().st_mtime_ns)
    return rows


@functools.lru_cache(maxsize=4)
def _loaded(path: Path, _mtime: int) -> _Rows:
    rows: _Rows = np.load(path, allow_pickle=False)
    return rows


def _padding(split: SplitName, rows: _Rows, size: Shape3) -> Iterator[Finding]:
    """Patches that are mostly not data."""
    first = np.maximum(rows[:, 1:4], rows[:, 4:7])
    last = np.minimum(rows[:, 1:4] + size, rows[:, 7:10])
    inside = int(np.maximum(last - first, 0).prod(axis=1).sum())
    every = math.prod(size) * len(rows)
    if every and inside < every / 2:
        found = (
            f"{split}: {1 - inside / every:.0%} of the voxels of the patches lie beyond their "
            "regions and are filled in"
        )
        todo = f"set plan.patch_size smaller than {' x '.join(map(str, size))}"
        yield Finding("patches-padded", found, todo=todo)


def _write_split(
    run: Run,
    split: SplitName,
    rows: _Rows,
    specs: Sequence[ArraySpec],
    refs: Sequence[PreparedRef],
    targets: Sequence[Target],
    spacing: Spacing3 | None,
    inputs: Inputs,
) -> tuple[File, ...]:
    stage, mode = f"patches/{split}", run.config.patching.pad_mode
    attributes = {"cases": [ref.case.name for ref in refs], "split": split}
    writer = PatchWriter(
        run.folder / "patches" / f"{split}.zarr", specs, len(rows), attributes, root=run.folder
    )
    form = {
        "arrays": [[s.name, s.patch_shape, s.dtype.str, s.compression] for s in specs],
        "patching.pad_mode": mode,
        "targets": [target.to_dict() for target in targets],
        "spacing": spacing if targets else None,
        "shard": writer.per_shard,
    }
    run.made_from(
        stage,
        {
            **form,
            "places": key_of(rows.tolist()) if len(rows) < 10**6 else len(rows),
            **{f"case {ref.case.name}": [ref.key, ref.skeletons_key] for ref in refs},
        },
    )
    common = key_of("patches", 2, form)

    def unit_of(shard: int) -> Unit:
        numbers = writer.patches_of(shard)
        own = rows[numbers.start : numbers.stop]
        used = [
            [refs[n].case.name, refs[n].key, refs[n].skeletons_key]
            for n in np.unique(own[:, 0]).tolist()
        ]
        return Unit(stage, shard, key_of(common, split, shard, own.tolist(), used))

    units = [unit_of(shard) for shard in range(writer.n_shards)]
    cutting = _Cutting(
        writer,
        run.folder / "sites" / f"{split}.npy",
        tuple(refs),
        mode,
        tuple(targets),
        spacing,
        inputs,
        _threads(run.config.compute),
    )
    run.all(
        stage, units, cutting, together=True,
        title=f"patches ({split})", what="patches",
        sizes=lambda unit: len(writer.patches_of(int(unit.index))),
    )  # fmt: skip

    def finish() -> Made:
        facts = (run.facts(unit) for unit in units)
        found = [row for fact in facts for row in fact["rows"]]
        return writer.finish(found, [unit.key for unit in units])

    keys = [unit.key for unit in units]
    unit = Unit(stage, "index", key_of("index", 1, common, attributes, len(rows), keys))
    run.make(unit, finish)
    return run.files(unit)


def _threads(compute: ComputeConfig) -> int:
    """How many a process may use of its own."""
    return (compute.workers or default_workers()) if compute.executor == "threads" else 1


def _blocks(parts: Sequence[SplitPart], refs: Sequence[PreparedRef]) -> list[Block]:
    """The regions of one side of the splits, by the numbers of the cases; nothing is opened."""
    numbers = {ref.case.name: number for number, ref in enumerate(refs)}
    found = ((numbers[part.case], part.box) for part in parts)
    return [(n, box or Box.whole(refs[n].layout.shape)) for n, box in found]


def _dtypes(refs: Sequence[PreparedRef]) -> dict[str, np.dtype[Any]]:
    """The one dtype of each array that holds every case's values exactly."""
    images, labels, masked = set(), set(), False
    for ref in refs:
        images.add(ref.layout.dtype)
        label = ref.case.open_label()
        if label is not None:
            labels.add(np.dtype(label.dtype))
        masked = masked or ref.case.open_mask() is not None
    dtypes: dict[str, np.dtype[Any]] = {"image": np.dtype(np.result_type(*images))}
    if labels:
        dtypes["label"] = np.dtype(np.result_type(*labels))
    if masked:
        dtypes["mask"] = np.dtype(bool)
    return dtypes


def _specs(
    dtypes: Mapping[str, np.dtype[Any]], channels: int, size: Shape3, compression: str
) -> list[ArraySpec]:
    leading = {"image": (channels,)}
    return [
        ArraySpec(name, (*leading.get(name, ()), *size), dtype, compression)
        for name, dtype in dtypes.items()
    ]


def _check_memory(
    size: Shape3, dtypes: Mapping[str, np.dtype[Any]], channels: int, config: Config
) -> None:
    """A patch, its padding and its encoding must fit, for every worker at once."""
    specs = _specs(dtypes, channels, size, "none")
    patch = sum(math.prod(spec.patch_shape) * spec.dtype.itemsize for spec in specs)
    workers = config.compute.workers or default_workers()
    need = 4 * patch * workers
    have = memory_limit()
    if have is not None and need > have:
        raise PlanError(
            f"a stored patch of {' x '.join(map(str, size))} voxels needs about "
            f"{need / 2**30:.1f} GiB with {workers} workers, this machine has "
            f"{have / 2**30:.1f} GiB; set plan.patch_size or plan.aug_patch_size smaller, "
            "or compute.workers to fewer"
        )
