"""`volprep export`: a finished set in the form that another trainer reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from volprep.config import Config, load_yaml
from volprep.errors import ConfigError, SourceError, StoreError
from volprep.exports import (
    TABLE,
    ExportFile,
    ExportSet,
    PreparedVolumes,
    Side,
    create_exporter,
    cut_cases,
)
from volprep.files import describe, load_json, neighbour, temporary
from volprep.findings import Finding, by_level, raise_on_errors
from volprep.geometry import three
from volprep.ledger import (
    LEDGER,
    MANIFEST,
    Ledger,
    Made,
    Records,
    Unit,
    key_of,
    load_manifest,
    remove_left_over,
    run,
    verify,
)
from volprep.pipeline.identity import Trust
from volprep.pipeline.inputs import is_config, load_target
from volprep.pipeline.prepare import foresee
from volprep.pipeline.told import Reporter, silent
from volprep.pipeline.volumes import keyed_cases
from volprep.splits import SplitPart, Splits
from volprep.store import PatchStore, close_shards, verify_set

__all__ = ["FORMAT", "Exported", "export", "export_all", "is_export"]

log = logging.getLogger(__name__)

FORMAT = "volprep-export-1"
#: Of what is written; another one writes it anew.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """What was handed over, or would be.

    Attributes
    ----------
    to : str
        The target.
    path : Path
    cases : tuple of dict
        Name, case, box, side and spacing of each volume.
    findings : tuple of Finding
        What the target cannot express, warnings first.
    files : tuple of str
        Relative to `path`.
    made : int
        Files that were written now.
    """

    to: str
    path: Path
    cases: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]
    files: tuple[str, ...]
    made: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "to": self.to,
            "path": str(self.path),
            "cases": list(self.cases),
            "findings": [finding.to_dict() for finding in self.findings],
            "files": list(self.files),
            "made": self.made,
        }


def export_all(target: Path | Config, **how: Any) -> list[Exported]:
    """Every export that a config lists under ``exports:``, as `export` makes one.

    Raises
    ------
    ConfigError
        If it lists none, or is no config.
    """
    if isinstance(target, Path) and not is_config(target):
        listed = []
    else:
        config = target if isinstance(target, Config) else load_target(target)
        listed = config.exports
    if not listed:
        raise ConfigError(
            f"{'exports' if isinstance(target, Config) else target}: lists no exports; say which: "
            f"--to NAME --out DIR, where NAME is one of {', '.join(TABLE)}"
        )
    return [export(target, entry.to, entry.dir, **entry.options, **how) for entry in listed]


def export(
    target: Path | Config,
    to: str,
    out: Path,
    *,
    plans: bool | None = None,
    instances: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    trust: Trust = "mtime",
    workers: int | None = None,
    reporter: Reporter = silent,
    tell: Callable[[str], object] = log.info,
) -> Exported:
    """Hand the prepared volumes, the plan and the split of a set over to another trainer.

    Parameters
    ----------
    target : Path or Config
        A finished set, the YAML that it was made by, or what that says.
    to : str
        One of `volprep.exports.TABLE`.
    out : Path
        The folder to write; it appears under its name when it is whole.
    plans, instances : optional
        As the target takes them; None takes its default.
    overwrite : bool
        Whether a finished export of something else may be replaced; what stays is kept.
    dry_run : bool
        Say what would be lost and written, and write nothing.
    trust : {'hash', 'mtime'}
        How inputs are known to be those that the set was made from.
    workers : int or None
        Threads; None takes every processor.
    reporter, tell : callable
        As for `prepare`. `tell` is told of every finding before anything is written.

    Raises
    ------
    ConfigError
        If there is no such target, or it has no such option.
    DataCheckError
        If the target cannot train on the set at all.
    StoreError
        If the set is not finished, damaged, or not what the given config says any more; if it
        keeps no whole volumes and its inputs are gone; or if `out` holds something else. What
        was written before an error or an interruption is kept.
    SourceError
        If a file that is still read for the voxels changed since the set was made.
    """
    exporter = create_exporter(to, folder=out.name, plans=plans, instances=instances)
    store = _open(target, trust, reporter)
    if store.path.absolute() in out.absolute().parents:
        raise StoreError(f"{out}: lies in the set itself, which holds nothing else; choose another")
    try:
        given = _given(store, trust, reporter, out.name)
        findings = by_level(exporter.losses(given))
        for finding in findings:
            if finding.level != "error":
                tell(f"{to}: {finding}")
        raise_on_errors(findings)
        files = list(exporter.files(given))
        cases = tuple(case.to_dict() for case in given.cases)
        made = 0
        if not dry_run:
            head = {
                "format": FORMAT,
                "to": to,
                "accepted_by": {"peer": TABLE[to].peer, "version": TABLE[to].accepted},
                "findings": [finding.to_dict() for finding in findings],
                "cases": list(cases),
            }
            made = _write(
                out, files, head,
                overwrite=overwrite, workers=workers, reporter=reporter, tell=tell,
            )  # fmt: skip
        names = tuple(file.path for file in files)
        return Exported(to, out, cases, tuple(findings), names, made)
    finally:
        close_shards()


def _open(target: Path | Config, trust: Trust, reporter: Reporter) -> PatchStore:
    """The set that a user points at, known to be whole, and of a config what that says now."""
    if not isinstance(target, Config) and not is_config(target):
        if is_export(target):
            raise StoreError(f"{target}: is an export; give the set that it was made from")
        store = PatchStore(target)
        for fault in verify_set(target, quick=True):
            if fault.found != "not of the set":
                raise StoreError(f"{fault}; mend it with: volprep repair {target}")
        return store
    config = target if isinstance(target, Config) else load_target(target)
    out, again = config.output.dir, "CONFIG" if isinstance(target, Config) else str(target)
    if not out.exists():
        raise StoreError(f"{out}: is not there yet; make it with: volprep prepare {again}")
    store = PatchStore(out)
    try:
        seen = foresee(config, trust=trust, reporter=reporter)
    except SourceError as error:
        raise StoreError(
            f"{error}; whether {out} is what its config says cannot be told without the inputs: "
            f"bring them back, or hand over the set as it is: volprep export {out} --to NAME"
        ) from error
    if not seen.complete:
        what = "; ".join(str(change) for change in seen.changes if change.redone)
        raise StoreError(
            f"{out}: is not what its config and files say now ({what or seen.open}); "
            f"bring it up to date with: volprep prepare {again}"
        )
    return store


def _given(store: PatchStore, trust: Trust, reporter: Reporter, name: str) -> ExportSet:
    """The set as exporters see it: volumes and plain values, all from the set itself."""
    splits = Splits.from_dict(load_json(store.path / "splits.json"))
    sides: dict[Side, Sequence[SplitPart]] = {"train": splits.train, "val": splits.val}
    opened = {
        case.name: PreparedVolumes(key, case.image.spacing, case.image, case.label, case.mask)
        for key, case in keyed_cases(store, trust=trust, reporter=reporter)
    }
    cases, renamed = cut_cases(opened, sides)
    plan = load_yaml(store.path / "plan.yaml")
    return ExportSet(name, cases, store.manifest["training"], three(plan["median_shape"]), renamed)


def _unit(to: str, file: ExportFile) -> Unit:
    return Unit("export", file.path, key_of("export", _VERSION, to, file.path, file.made_of))


def _write(
    out: Path,
    files: Sequence[ExportFile],
    head: Mapping[str, Any],
    *,
    overwrite: bool,
    workers: int | None,
    reporter: Reporter,
    tell: Callable[[str], object],
) -> int:
    """Write what is not there, and give the folder its name; how many files were written."""
    units = [_unit(head["to"], file) for file in files]
    texts = {file.path for file in files if file.is_text}
    finished = _look_at(out, units, texts, overwrite=overwrite)
    if finished:
        remove_left_over(out)  # of an export that was replaced by a process killed at its end
        tell(f"{out} is complete already")
        return 0
    with Ledger(neighbour(out, ".partial")) as ledger:
        remove_left_over(out)
        if (out / MANIFEST).exists():
            ledger.take_over(out)
        kept = sum(map(ledger.has, units))
        if kept:
            tell(f"going on: {kept} of {len(units)} files are there")
        by_path = {file.path: file for file in files}
        voxels = sum(file.voxels for file in files)
        with reporter(f"export {head['to']}", voxels, "voxels") as advance:
            run(
                ledger,
                partial(_make, by_path=by_path, folder=ledger.folder),
                units,
                workers=workers,
                progress=lambda unit: advance(by_path[str(unit.index)].voxels),
            )
        ledger.publish(out, units, head)
    return len(units) - kept


def _make(unit: Unit, *, by_path: Mapping[str, ExportFile], folder: Path) -> Made:
    path = folder / str(unit.index)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(path)
    try:
        by_path[str(unit.index)].write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return [describe(path, folder)], {}


def _look_at(out: Path, units: Sequence[Unit], texts: Set[str], *, overwrite: bool) -> bool:
    """Whether the export is there already, whole; refuse where something else is in its place.

    A user may well have changed one of the `texts`, such as the config of a trainer.
    """
    beside = neighbour(out, ".partial")
    ours = not beside.exists() or list(beside.glob("ledger*.jsonl"))
    if not ours and (not beside.is_dir() or any(beside.iterdir())):
        raise StoreError(f"{beside}: is in the way and not volprep's; move it away")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not is_export(out):
        raise StoreError(
            f"{out}: exists and is no export of volprep; choose another --out or move it away"
        )
    found = list(verify(out))
    damage = [each for each in found if each.found != "not of the set"]
    strange = [each for each in found if each.found == "not of the set"]
    records = Records(out / LEDGER)
    if not damage and len(records) == len(units) and all(map(records.has, units)):
        return True
    if strange:
        raise StoreError(
            f"{strange[0].path}: is not of the export, which would be replaced; move it away"
        )
    there = (d.path for d in damage if d.found != "missing")
    edited = [path for path in there if path.relative_to(out).as_posix() in texts]
    if edited and not overwrite:
        raise StoreError(
            f"{edited[0]}: was changed since it was exported; keep a copy under another name where "
            "it is wanted, and add --overwrite to have it as it was written"
        )
    if not (overwrite or damage):
        raise StoreError(
            f"{out}: holds an export of something else; add --overwrite to replace what differs, "
            "or choose another --out"
        )
    return False


def is_export(folder: Path) -> bool:
    """Whether a folder is a finished export."""
    try:
        return load_manifest(folder).get("format") == FORMAT
    except StoreError:
        return False
