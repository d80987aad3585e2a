"""`volprep prepare`, `inspect`, `verify` and `repair`; `units` and `work` of many machines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from volprep.cli.app import Executor, Scheduler, Set, app
from volprep.cli.completion import one_of
from volprep.cli.console import (
    amount,
    print_json,
    print_table,
    say,
    shape_text,
    spacing_text,
    stage,
    told,
)
from volprep.errors import ConfigError
from volprep.places import is_remote, path_of

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


Config = Annotated[
    Path, typer.Argument(readable=False, help="The YAML, as volprep init writes it.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", readable=False, help="Folder of the patch set, over the YAML's."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", min=1, max=1024, help="Threads or processes, over the YAML's."),
]


@app.command()
def prepare(
    config: Config,
    changes: Set = None,
    out: Out = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Make again what another config or other files make different."
        ),
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make again what is damaged of a finished set.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is kept and what is made; make nothing.")
    ] = False,
    trust: Annotated[
        str,
        typer.Option(
            help="How files are known again: hash, or mtime for huge data.",
            autocompletion=one_of("hash", "mtime"),
        ),
    ] = "hash",
    workers: Workers = None,
    executor: Executor = None,
    scheduler: Scheduler = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit 4 on warnings, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the patch set: check, fingerprint, plan, split, cut, and a generated train.yaml."""
    from volprep import pipeline

    settings = _settings(config, changes, out, workers, executor, scheduler)
    if trust not in ("hash", "mtime"):
        raise ConfigError(f"--trust: found {trust!r}; give hash or mtime")
    how: Any = {"trust": trust, "reporter": stage}
    begin, before = time.monotonic(), _written(settings.output.dir)
    if dry_run:
        seen = pipeline.foresee(settings, **how)
        needs = None if seen.complete else pipeline.foresee_needs(settings)
        _show_foreseen(seen, needs, as_json=as_json)
        return
    store = pipeline.prepare(
        settings, overwrite=overwrite, repair=repair, strict=strict, tell=say, **how
    )
    if settings.exports:
        pipeline.export_all(
            settings, overwrite=overwrite, workers=workers, reporter=stage, tell=say
        )
    if as_json:
        print_json({"path": str(store.path), "training": store.manifest["training"]})
        return
    _show(store.path, store.manifest)
    took = time.monotonic() - begin if _written(store.path) != before else None
    for line in _closing(store.path, store.manifest, took):
        say(line)


def _written(path: Path) -> int | None:
    """When a finished set was written; None where there is none."""
    manifest = path / "manifest.json"
    return manifest.stat().st_mtime_ns if manifest.exists() else None


def _closing(path: Path, manifest: dict[str, Any], seconds: float | None) -> Iterator[str]:
    """What was made, or is there where that took no `seconds`, what is doubtful, what is next."""
    from volprep.store import load_json

    name = _short(path)
    patches = " and ".join(
        f"{count} {split}" for split, count in manifest["training"]["n_patches"].items()
    )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    kind = "samples an epoch" if manifest["training"]["store"] == "volumes" else "patches"
    took = "" if seconds is None else f", {seconds:.1f} s"
    done = "there are" if seconds is None else "made     "
    yield f"{done} {patches} {kind} in {name}: {amount(size, 'bytes')}{took}"
    found = load_json(path / "findings.json")["findings"]
    doubts = [each["name"] for each in found if each["level"] == "warning"]
    if doubts:
        names = list(dict.fromkeys(doubts))
        counted = f"{told('warning', len(doubts))}: {', '.join(names)}"
        yield f"doubtful  {counted}; what it means: volprep explain {names[0]}"
        if len(found) > len(doubts):
            notes = told("note", len(found) - len(doubts))
            yield f"          {notes} besides: volprep inspect {name}"
    else:
        notes = f"; {told('note', len(found))}: volprep inspect {name}" if found else ""
        yield f"doubtful  nothing{notes}"
    yield f"next      look:  {name}/report.html, in a browser"
    yield f"          train: volprep.dataloader({str(path)!r}), in Python"


def _short(path: Path) -> str:
    """A path as one types it from here."""
    import shlex

    near = os.path.relpath(path)
    return shlex.quote(str(path) if near.startswith("..") else near)


def _show_foreseen(seen: Any, needs: Any, *, as_json: bool) -> None:
    """What a run would keep and make."""
    if as_json:
        changes = [
            {"stage": c.stage, "kept": c.kept, "to_do": c.redone, "why": c.why}
            for c in seen.changes
        ]
        needed = None if needs is None else needs.to_dict()
        print_json({
            "complete": seen.complete, "changes": changes, "unknown_after": seen.open,
            "needs": needed,
        })  # fmt: skip
        return
    rows = [[c.stage, c.kept, c.redone, ", ".join(c.why) if c.redone else ""] for c in seen.changes]
    print_table("what prepare would do", ["stage", "kept", "to do", "why"], rows)
    for line in () if needs is None else needs.lines():
        say(line)
    if seen.open is not None:
        say(f"what follows is known once this is done: {seen.open}")
    elif seen.complete:
        say("complete already")
    if seen.finished and seen.costly:
        stages = ", ".join(change.stage for change in seen.costly)
        say(f"{stages} of a finished set would be made again: prepare needs --overwrite")


@app.command()
def units(
    config: Config,
    changes: Set = None,
    out: Out = None,
    workers: Workers = None,
    count: Annotated[
        bool, typer.Option("--count", help="Print the stage, its units and those left, in a line.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Do what one process must do, and count the units that volprep work can share out next."""
    from volprep import pipeline

    found = pipeline.next_units(_settings(config, changes, out, workers), reporter=stage)
    name, total, left = ("-", 0, 0) if found is None else (found.name, found.units, found.left)
    if as_json:
        print_json({"stage": None if found is None else name, "units": total, "left": left})
    elif count:
        print(name, total, left)
    else:
        rows = [] if found is None else [[name, total, left]]
        print_table("units", ["stage", "units", "left"], rows)
        if left:
            say(f"next: volprep work {config} --units 0:{total}")
        else:
            say(f"nothing is left to share out; next: volprep prepare {config}")


@app.command()
def work(
    config: Config,
    numbers: Annotated[str, typer.Option("--units", help="Which ones, such as 0:1000.")],
    changes: Set = None,
    out: Out = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Make some of the units that volprep units counted, from any machine that sees the files."""
    from volprep import pipeline

    chosen = _range(numbers)
    found = pipeline.make_units(_settings(config, changes, out, workers), chosen, reporter=stage)
    if as_json:
        made = None if found is None else found.made
        print_json({"stage": None if found is None else found.name, "made": made})
    elif found is None:
        say("every unit is done already")
    else:
        some = range(found.units)[chosen.start : chosen.stop]
        say(f"{found.name}: {found.made} of the {len(some)} units {numbers} made")


def _range(text: str) -> range:
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ConfigError(f"--units: found {text!r}; give a first and a last one, such as 0:1000")
    return range(int(first), int(last))


def _settings(
    config: Path,
    changes: list[str] | None,
    out: Path | None,
    workers: int | None,
    executor: str | None = None,
    scheduler: str | None = None,
) -> Any:
    """The config, with what the command line says of it."""
    from volprep import pipeline
    from volprep.config import with_values

    if not pipeline.is_config(config):
        kind = "a folder" if config.is_dir() else "no YAML"
        raise ConfigError(
            f"{config}: {kind}, where a YAML is wanted; write one with: volprep init {config}"
        )
    settings = pipeline.load_target(config, changes=changes or ())
    compute = pipeline.compute_with(
        settings.compute, workers=workers, executor=executor, scheduler=scheduler
    )
    output = settings.output
    if out is not None:
        output = with_values(output, {"dir": out, "url": None}, "--out")
        output = output.model_copy(update={"dir": output.dir.resolve()})
    return settings.model_copy(update={"output": output, "compute": compute})


@app.command()
def inspect(
    out: Annotated[
        Path, typer.Argument(readable=False, help="The folder that volprep prepare wrote.")
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file, as volprep verify does.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a patch set holds: sizes, splits, cases, files."""
    from volprep.findings import Finding, in_short
    from volprep.store import PatchStore, load_json

    store = PatchStore(out)
    damaged = _faults(out) if verify else []
    rows = _patches_by_case(store) if store.kind == "patches" else _samples_by_case(store)
    if as_json:
        print_json(
            {
                "path": str(store.place),
                "training": store.manifest["training"],
                "splits": load_json(store.path / "splits.json"),
                "cases": [
                    dict(zip(("split", "case", "patches", "foreground", "padded"), r, strict=True))
                    for r in rows
                ],
                "inputs": store.manifest["inputs"],
                "versions": store.manifest["versions"],
                **load_json(store.path / "findings.json"),
                "damaged": [str(fault) for fault in damaged],
            }
        )
    else:
        _show(store.place, store.manifest)
        heads = ["split", "case", "patches", "foreground", "padded"]
        if store.kind == "volumes":
            heads, rows = ["split", "case", "samples of an epoch"], [row[:3] for row in rows]
        print_table("cases", heads, rows)
        listed = load_json(store.path / "findings.json")["findings"]
        found = [Finding.from_dict(each) for each in listed]
        if found:
            print_table(
                "findings", ["level", "finding"], [[f.level, str(f)] for f in in_short(found)]
            )
    _end_at(out, damaged)


@app.command()
def verify(
    out: Annotated[
        Path,
        typer.Argument(
            readable=False, help="The folder that volprep prepare or volprep export wrote."
        ),
    ],
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Metadata, indexes and sizes; not the voxels of patches."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every file of a patch set with what was written, and say what is not whole."""
    faults = _faults(out, quick=quick)
    if as_json:
        print_json({"path": str(out), "faults": [fault.to_dict() for fault in faults]})
    _end_at(out, faults)
    if quick:
        say(f"{out}: metadata, indexes and sizes are as they were written (voxels not looked at)")
    else:
        say(f"{out} is as it was written")


@app.command()
def repair(
    out: Annotated[
        Path, typer.Argument(readable=False, help="The folder that volprep prepare wrote.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(readable=False, help="The YAML, where the set's own copy is damaged."),
    ] = None,
    changes: Set = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Make again what is damaged of a patch set, and give it back as it was written."""
    from volprep import pipeline

    if config is None and changes:
        raise ConfigError("repair: --set goes with --config; a set is mended as it was made")
    settings = None if config is None else pipeline.load_target(config, changes=changes or ())
    mended = pipeline.repair(out, settings, workers=workers, reporter=stage, tell=say)
    if as_json:
        print_json({"path": str(out), "mended": [fault.to_dict() for fault in mended]})
        return
    for fault in mended:
        say(f"mended: {fault}")
    say(f"{out} is as it was written")


def _end_at(out: Path, faults: list[Any]) -> None:
    """Exit 6 where there are faults."""
    from volprep.errors import StoreError
    from volprep.pipeline import is_export

    if faults:
        what = "\n".join(map(str, faults))
        files = "1 file is" if len(faults) == 1 else f"{len(faults)} files are"
        mend = f"volprep repair {out}"
        if is_remote(path_of(out)):
            mend = "volprep prepare CONFIG --repair"
        elif is_export(out):
            mend = "the same volprep export again"
        raise StoreError(f"{what}\n{out}: {files} not as written; mend it with: {mend}")


def _faults(out: Path, *, quick: bool = False) -> list[Any]:
    """What is not as it was written; what else lies in an export is told alone."""
    from volprep.pipeline import is_export
    from volprep.store import bytes_of, verify_set

    if quick:
        faults = list(verify_set(out, quick=True))
    else:
        with stage("verify", bytes_of(out), "bytes") as advance:
            faults = list(verify_set(out, progress=advance))
    if not is_export(out):
        return faults
    for fault in faults:
        if fault.found == "not of the set":
            say(f"{fault.path}: is not of the export (of a trainer, or yours); left as it is")
    return [fault for fault in faults if fault.found != "not of the set"]


def _patches_by_case(store: Any) -> list[list[Any]]:
    """Of each split and case: patches, the share that is foreground, and those that are padded."""
    rows: list[list[Any]] = []
    for split in store.manifest["training"]["patches"]:
        reader = store.split(split)
        for number, name in enumerate(store.manifest["cases"]):
            mine = reader.index[reader.index[:, 0] == number]
            if len(mine):
                voxels = len(mine) * _voxels(reader.spec("image").patch_shape[1:])
                padded = int((mine[:, 4:10].sum(axis=1) > 0).sum())
                rows.append([split, name, len(mine), f"{mine[:, 10].sum() / voxels:.1%}", padded])
    return rows


def _samples_by_case(store: Any) -> list[list[Any]]:
    """Of each split and case: samples of an epoch; where they lie is drawn when they are wanted."""
    names = store.manifest["cases"]
    return [
        [split, names[number], count, None, None]
        for split, counts in store.manifest["samples"].items()
        for number, count in enumerate(counts)
        if count
    ]


def _voxels(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _show(path: Path, manifest: dict[str, Any]) -> None:
    training = manifest["training"]
    patches = ", ".join(f"{n} {split}" for split, n in training["n_patches"].items())
    rows: list[list[object]] = [
        ["patch set", path],
        ["samples of an epoch" if training["store"] == "volumes" else "patches", patches],
        ["patch size", f"{shape_text(training['patch_size'])} voxels (z y x)"],
        ["read for training", f"{shape_text(training['stored_patch_size'])} voxels"]
        if training["store"] == "volumes"
        else ["stored for training", f"{shape_text(training['stored_patch_size'])} voxels"],
        ["batch size", training["batch_size"]],
        ["pooling", shape_text(training["pool"])],
        ["spacing", spacing_text(training["spacing"])],
        ["channels", training["n_channels"]],
        ["labels", training["label_kind"] or "none"],
        ["normalisation", training["normalisation"]["kind"]],
        *_skeletons(manifest["skeletons"]),
        ["training config", path / "train.yaml"],
    ]
    print_table("volprep", ["what", "value"], rows)


def _skeletons(counts: dict[str, dict[str, int]]) -> list[list[object]]:
    """How many skeletons were made, and how many of them are one point; no row without any."""
    made = sum(found.get("components", 0) for found in counts.values())
    fell_back = sum(found.get("fell_back", 0) for found in counts.values())
    text = f"{made} components, {fell_back} of them fell back to one point"
    return [["skeletons", text]] if made else []
