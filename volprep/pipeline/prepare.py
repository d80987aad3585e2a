"""`volprep prepare`: from a config to a published patch set."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from volprep.autoconfig import Plan, few_positions
from volprep.cases import Cases
from volprep.checks import Report
from volprep.compute import default_workers, run_units
from volprep.config import Config, TrainingConfig, canonical_json, dump_yaml
from volprep.cutting import (
    PreparedCase,
    Site,
    blocks_of,
    cut_patches,
    grid_sites,
    stored_patch_size,
    training_sites,
)
from volprep.errors import DataCheckError, PlanError, StoreError, VolprepError
from volprep.findings import Finding
from volprep.fingerprint import Fingerprint
from volprep.geometry import Box, Shape3, three
from volprep.pipeline.augmentation import check_augment
from volprep.pipeline.check import check, values_of
from volprep.pipeline.decide import decide, drawing, survey
from volprep.pipeline.inputs import chosen_cases, list_cases, load_target, voxel_count
from volprep.pipeline.measure import clip_warnings, measure, normalisations
from volprep.pipeline.reporting import Reporter, silent
from volprep.pipeline.skeletons import (
    fallen_back,
    make_skeletons,
    skeleton_voxels,
)
from volprep.pipeline.targets import stored_targets, targets_of
from volprep.pipeline.told import Told, refuse_warnings, rules_of
from volprep.pipeline.training import training_suggestions
from volprep.pipeline.volumes import file_states, lost_ids_of, prepare_volumes
from volprep.preprocess import CaseLayout, Normalisation
from volprep.skeletons import Skeletons
from volprep.splits import Splits, audit_splits
from volprep.store import (
    ArraySpec,
    PatchStore,
    PatchWriter,
    WorkingFolder,
    content_hash,
    describe_file,
    load_json,
    publish,
    write_json,
    write_text,
)
from volprep.targets import Skeleton, Target
from volprep.version import __version__

__all__ = ["prepare"]

log = logging.getLogger(__name__)

#: The files beside the patches, but for the manifest.
_BESIDE = (
    "config.resolved.yaml", "findings.json", "fingerprint.json", "plan.yaml", "splits.json",
    "train.yaml",
)  # fmt: skip

SplitName = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class _Decisions:
    """Everything that is known before the first patch is cut."""

    config: Config
    cases: Cases
    fingerprint: Fingerprint
    plan: Plan
    splits: Splits
    audit: tuple[Finding, ...]
    layouts: Mapping[str, CaseLayout]
    normalisation: Normalisation
    of_case: Mapping[str, Normalisation]
    classes: tuple[int, ...] | None
    targets: list[Target]
    skeletons: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


def prepare(
    config: Config,
    *,
    overwrite: bool = False,
    strict: bool = False,
    reporter: Reporter = silent,
) -> PatchStore:
    """Make the patch set that a config describes.

    Parameters
    ----------
    config : Config
        As `volprep.load_config` reads it, or the path of its YAML.
    overwrite : bool
        Whether a patch set that is there already is made anew, and replaced at
        the very end.
    strict : bool
        Whether a warning ends the run, as an error does.
    reporter : callable
        Told of every long stage.

    Returns
    -------
    PatchStore
        The finished set. If it was there already, made of the same config and
        the same files, nothing is done.

    Raises
    ------
    VolprepError
        Of the family of what is wrong. Nothing half-written stays behind; after
        an interruption (Ctrl-C, a lost machine) a second call goes on where the
        first one was.
    """
    if not isinstance(config, Config):
        config = load_target(Path(config))
    out = config.output.dir
    check_augment(config)  # a mistake there is told before anything is read
    cases = list_cases(config)
    key = _run_key(config, cases)
    done = _already_there(out, key, overwrite=overwrite)
    if done is not None:
        if strict:
            refuse_warnings(load_json(out / "findings.json")["findings"])
        return done
    told = Told(rules_of(config), strict=strict)
    report = _checked(config, cases, told, reporter)
    cases = chosen_cases(config, cases, report.hashes)
    with WorkingFolder(out, key) as partial:
        try:
            manifest = _build(config, cases, report, partial, told, reporter)
        except VolprepError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        publish(partial, out, {"key": key, **manifest})
    return PatchStore(out)


def _checked(config: Config, cases: Cases, told: Told, reporter: Reporter) -> Report:
    """What the doctor says: errors of the data end it here, warnings are told."""
    with reporter("check", voxel_count(cases), "voxels") as advance:
        report = check(config, cases, intensities=False, progress=advance)
    told.tell(report.findings)
    return report


def _build(
    config: Config,
    cases: Cases,
    report: Report,
    partial: Path,
    told: Told,
    reporter: Reporter,
) -> dict[str, Any]:
    """Everything of the set but its name."""
    decided = _decide(config, cases, report, told, reporter)
    prepared = prepare_volumes(
        decided.cases.items, decided.layouts, partial / "volumes",
        workers=config.compute.workers, reporter=reporter,
    )  # fmt: skip
    prepared = _skeletons(decided, prepared, partial, told, reporter)
    told.tell(_vanished(lost_ids_of(cases.items, partial / "volumes")))
    counts, stored = _write_patches(decided, prepared, partial, told, reporter)
    return _describe(decided, counts, stored, partial, told, reporter)


def _vanished(lost: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    for case, ids in lost.items():
        if ids:
            some = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            found = f"{len(ids)} label ids vanished in preprocessing: {some}"
            yield Finding("vanished-ids", found, case=case)


def _decide(
    config: Config, cases: Cases, report: Report, told: Told, reporter: Reporter
) -> _Decisions:
    known = survey(config, cases, reporter, values_of(report, cases))
    decision = decide(config, cases, known)
    plan, splits = decision.plan, decision.splits
    fingerprint = measure(config, cases, decision.measured, reporter, "fingerprint")
    audit = audit_splits(splits, cases.items, patch=plan.patch_size, hashes=report.hashes)
    told.tell(audit)
    told.tell(notice.about() for notice in splits.notices)
    told.tell(clip_warnings(config, fingerprint))
    few = few_positions(plan.n_positions)
    told.tell([Finding("few-positions", few)] if few else [])
    common, of_case = normalisations(config, cases, fingerprint, reporter)
    return _Decisions(
        config, cases, fingerprint, plan, splits, tuple(audit),
        decision.layouts, common, of_case, decision.classes,
        targets_of(config, cases, plan),
    )  # fmt: skip


def _skeletons(
    decided: _Decisions,
    prepared: list[PreparedCase],
    partial: Path,
    told: Told,
    reporter: Reporter,
) -> list[PreparedCase]:
    """The cases with the skeletons of their instances, which are kept in the patch set."""
    if all(target.name != Skeleton.name for target in decided.targets):
        return prepared
    folder = partial / "skeletons"
    folder.mkdir(exist_ok=True)
    section, cases = decided.config.skeletons, []
    counts: dict[str, dict[str, int]] = {}
    with reporter("skeletons", skeleton_voxels(prepared), "voxels") as advance:
        for case, source in zip(prepared, decided.cases, strict=True):
            path = folder / f"{case.name}.npz"
            if case.label is not None and not path.exists():
                found, counts[case.name] = make_skeletons(
                    case, source, decided.layouts[case.name], section,
                    workers=decided.config.compute.workers, progress=advance,
                )  # fmt: skip
                found.to_file(path)
            cases.append(dataclasses.replace(case, skeletons=_read_skeletons(path)))
    told.tell(fallen_back(counts))
    decided.skeletons.update(counts)
    return cases


def _read_skeletons(path: Path) -> Skeletons | None:
    return Skeletons.from_file(path) if path.exists() else None


def _write_patches(
    decided: _Decisions,
    prepared: Sequence[PreparedCase],
    partial: Path,
    told: Told,
    reporter: Reporter,
) -> tuple[dict[SplitName, int], Shape3]:
    plan = decided.plan
    stored = stored_patch_size(
        plan.patch_size, plan.aug_patch_size, blocks_of(decided.splits.train, prepared)
    )
    dtypes = _dtypes(prepared)
    _check_memory(stored, dtypes, prepared[0].image.shape[0], decided.config)
    sizes: dict[SplitName, Shape3] = {"train": stored, "val": decided.plan.patch_size}
    sites: dict[SplitName, list[Site]] = {
        "train": _training_sites(decided, prepared, stored, reporter),
        "val": grid_sites(
            blocks_of(decided.splits.val, prepared), sizes["val"], decided.config.patching.overlap
        ),
    }
    if not sites["train"]:
        raise DataCheckError(["no training patch: every case was held out or rejected"])
    for split, size in sizes.items():
        told.tell(_padding(split, sites[split], size))
        specs = _specs(dtypes, prepared[0].image.shape[0], size, decided.config.output.compression)
        specs += _target_specs(decided, size)
        _write_split(decided, prepared, partial, split, sites[split], specs, reporter)
    return {split: len(found) for split, found in sites.items()}, stored


def _padding(split: SplitName, sites: Sequence[Site], size: Shape3) -> Iterator[Finding]:
    """Patches that are mostly not data."""
    inside = sum(site.region.common(Box.at(site.start, size)).size for site in sites)
    every = math.prod(size) * len(sites)
    if every and inside < every / 2:
        found = (
            f"{split}: {1 - inside / every:.0%} of the voxels of the patches lie beyond their "
            "regions and are filled in"
        )
        todo = f"set plan.patch_size smaller than {' x '.join(map(str, size))}"
        yield Finding("patches-padded", found, todo=todo)


def _write_split(
    decided: _Decisions,
    prepared: Sequence[PreparedCase],
    partial: Path,
    split: SplitName,
    sites: Sequence[Site],
    specs: Sequence[ArraySpec],
    reporter: Reporter,
) -> None:
    writer = PatchWriter(
        partial / "patches" / f"{split}.zarr",
        specs,
        len(sites),
        {"cases": [case.name for case in prepared], "split": split},
    )
    size = three(specs[0].patch_shape[1:])
    dtypes = {spec.name: spec.dtype for spec in specs}
    mode = decided.config.patching.pad_mode
    targets = stored_targets(decided.config, decided.targets)
    run = load_json(partial / "state.json")["key"]
    keys = [content_hash(run, split, shard) for shard in range(writer.n_shards)]
    done = partial / ".done"
    done.mkdir(exist_ok=True)
    with reporter(f"patches ({split})", len(sites), "patches") as advance:

        def write(shard: int) -> None:
            numbers, mark = writer.patches_of(shard), done / f"{split}.{shard}.json"
            if not mark.exists():
                chosen = sites[numbers.start : numbers.stop]
                patches = cut_patches(
                    prepared, chosen, size, dtypes, mode, targets, decided.plan.spacing
                )
                write_json(mark, writer.write(shard, keys[shard], patches)[1])
            advance(len(numbers))

        workers = decided.config.compute.workers
        for _ in run_units(write, range(writer.n_shards), workers=workers):
            pass
    facts = [load_json(done / f"{split}.{shard}.json") for shard in range(writer.n_shards)]
    writer.finish([row for fact in facts for row in fact["rows"]], keys)


def _training_sites(
    decided: _Decisions, prepared: Sequence[PreparedCase], stored: Shape3, reporter: Reporter
) -> list[Site]:
    config = decided.config
    blocks = blocks_of(decided.splits.train, prepared)
    with reporter("choose patches", len(blocks), "cases") as advance:
        return training_sites(
            blocks,
            stored,
            drawing(config, decided.cases.label_kind, decided.plan),
            prepared,
            weights=[case.weight for case in decided.cases],
            progress=advance,
        )


def _dtypes(prepared: Sequence[PreparedCase]) -> dict[str, np.dtype[Any]]:
    """The one dtype of each array that holds every case's values exactly."""
    found = {"image": [case.image.dtype for case in prepared]}
    labels = [case.label.dtype for case in prepared if case.label is not None]
    if labels:
        found["label"] = labels
    dtypes: dict[str, np.dtype[Any]] = {
        name: np.dtype(np.result_type(*kinds)) for name, kinds in found.items()
    }
    if any(case.mask is not None for case in prepared):
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


def _target_specs(decided: _Decisions, size: Shape3) -> list[ArraySpec]:
    stored = stored_targets(decided.config, decided.targets)
    return [
        ArraySpec(array.name, array.shape(size), array.dtype, decided.config.output.compression)
        for target in stored
        for array in target.arrays(size)
    ]


def _check_memory(
    size: Shape3, dtypes: Mapping[str, np.dtype[Any]], channels: int, config: Config
) -> None:
    """A patch, its padding and its encoding must fit, for every worker at once."""
    specs = _specs(dtypes, channels, size, "none")
    patch = sum(math.prod(spec.patch_shape) * spec.dtype.itemsize for spec in specs)
    workers = config.compute.workers or default_workers()
    need = 4 * patch * workers
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        raise PlanError(
            f"a stored patch of {' x '.join(map(str, size))} voxels needs about "
            f"{need / 2**30:.1f} GiB with {workers} workers, this machine has "
            f"{have / 2**30:.1f} GiB; set plan.patch_size or plan.aug_patch_size smaller, "
            "or compute.workers to fewer"
        )


def _describe(
    decided: _Decisions,
    counts: Mapping[SplitName, int],
    stored: Shape3,
    partial: Path,
    told: Told,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write everything that stands beside the patches, and give the manifest."""
    config = decided.config
    training = _training_config(decided, counts, stored)
    write_text(partial / "config.resolved.yaml", dump_yaml(config))
    write_json(partial / "fingerprint.json", decided.fingerprint.to_dict())
    write_text(partial / "plan.yaml", dump_yaml(decided.plan.to_dict()))
    audit = [finding.to_dict() for finding in decided.audit]
    write_json(partial / "splits.json", {**decided.splits.to_dict(), "audit": audit})
    write_text(partial / "train.yaml", dump_yaml(training))
    write_json(partial / "findings.json", told.to_dict())
    shutil.rmtree(partial / ".done")
    lost = lost_ids_of(decided.cases.items, partial / "volumes")
    shutil.rmtree(partial / "volumes", ignore_errors=True)
    files = sorted({path for case in decided.cases for path in case.paths()})
    with reporter("hash inputs", len(files), "files") as advance:
        inputs = []
        for described in run_units(describe_file, files, workers=config.compute.workers):
            inputs.append(described)
            advance(1)
    return {
        "config_hash": content_hash(canonical_json(config)),
        "cases": [case.name for case in decided.cases],
        "files": [case.to_dict() for case in decided.cases],
        "inputs": inputs,
        "lost_ids": lost,
        "skeletons": decided.skeletons,
        "label_repairs": {c.name: done for c in decided.cases if (done := c.repaired())},
        "versions": _versions(),
        "training": training.model_dump(mode="json"),
        "written": {name: describe_file(partial / name)["sha256"] for name in _BESIDE},
    }


def _training_config(
    decided: _Decisions, counts: Mapping[SplitName, int], stored: Shape3
) -> TrainingConfig:
    plan, config = decided.plan, decided.config
    labelled = any(case.label is not None for case in decided.cases)
    return TrainingConfig.model_validate(
        {
            "volprep_version": __version__,
            "patches": {split: f"patches/{split}.zarr" for split in counts},
            "n_patches": dict(counts),
            "patch_size": plan.patch_size,
            "stored_patch_size": stored,
            "batch_size": plan.batch_size,
            "pool": plan.pool,
            "strides": plan.strides,
            "kernel_sizes": plan.kernel_sizes,
            "spacing": plan.spacing,
            "n_channels": plan.n_channels,
            "label_kind": decided.cases.label_kind if labelled else None,
            "n_classes": plan.n_classes if decided.classes is not None else None,
            "class_values": decided.classes,
            **training_suggestions(
                config,
                plan,
                decided.fingerprint,
                decided.classes,
                names=decided.cases.class_names,
            ),
            "normalisation": decided.normalisation.to_dict(),
            "case_normalisation": {n: rule.to_dict() for n, rule in decided.of_case.items()},
            "augment": plan.augment,
            "targets": [target.to_dict() for target in decided.targets],
            "stored_targets": [t.name for t in stored_targets(config, decided.targets)],
            "splits": "splits.json",
            "seed": config.seed,
            "precision": plan.precision,
            "memory_bytes": plan.memory_bytes,
        }
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "zarr", "tifffile", "imagecodecs", "h5py", "nibabel", "scipy", "numba")
    return {"volprep": __version__, **{name: version(name) for name in names}}


def _run_key(config: Config, cases: Cases) -> str:
    """What a patch set is made from: the config but for the machine, the files, the version."""
    states = [state for case in cases for state in file_states(case)]
    relevant = config.model_copy(
        update={
            "output": config.output.model_copy(update={"dir": Path()}),
            "compute": config.compute.model_copy(update={"workers": None}),
        }
    )
    return content_hash(canonical_json(relevant), states, __version__)


def _already_there(out: Path, key: str, *, overwrite: bool) -> PatchStore | None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / "manifest.json").exists():
        raise StoreError(
            f"{out}: exists and is no patch set; choose another output.dir or move it away"
        )
    store = PatchStore(out)
    if store.manifest.get("key") == key and not overwrite:
        log.info("%s is complete already", out)
        return store
    if not overwrite:
        raise StoreError(
            f"{out}: holds a patch set of another config or of other files; "
            "add --overwrite to replace it, or choose another output.dir"
        )
    return None
