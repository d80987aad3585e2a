"""`volprep export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volprep.cli.app import Set, Threads, app
from volprep.cli.completion import export_targets
from volprep.cli.console import local, print_json, print_table, say, shape_text, stage
from volprep.errors import ConfigError


@app.command()
def export(
    target: Annotated[
        Path,
        typer.Argument(
            readable=False, help="A finished set, or its YAML (whose exports: are made then)."
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            help="The trainer, such as nnunet; without it, what the YAML lists as exports. All "
            "trainers: volprep explain exports.",
            autocompletion=export_targets,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", readable=False, help="Folder of the export.")
    ] = None,
    plans: Annotated[
        bool | None, typer.Option("--plans", help="nnunet: hand over our plan, too.")
    ] = None,
    border_core: Annotated[
        bool,
        typer.Option("--border-core", help="nnunet: instances become their cores and borders."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is lost and what is written; write nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what differs of an export that is there.")
    ] = False,
    workers: Threads = None,
    changes: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the prepared volumes, the split and the plan in the form of another trainer."""
    from volprep import pipeline

    how: dict[str, Any] = {
        "dry_run": dry_run, "overwrite": overwrite, "workers": workers,
        "reporter": stage, "tell": say,
    }  # fmt: skip
    if (to is None) != (out is None):
        raise ConfigError("export: --to and --out go together; the YAML's exports: need neither")
    source: Any = target
    if changes:
        if not pipeline.is_config(target):
            raise ConfigError("--set: changes a YAML, and what is given is a set")
        source = pipeline.load_target(target, changes=changes)
    if to is None or out is None:
        made = pipeline.export_all(source, **how)
    else:
        instances = "border-core" if border_core else None
        made = [
            pipeline.export(
                source, to, local(out, "--out"), plans=plans, instances=instances, **how
            )
        ]
    if as_json:
        print_json([each.to_dict() for each in made])
        return
    for each in made:
        _show(each, written=not dry_run)


def _show(made: Any, *, written: bool) -> None:
    rows = [
        [case["name"], case["side"], case["case"], shape_text(_shape(case["box"]))]
        for case in made.cases
    ]
    print_table(f"{made.to} in {made.path}", ["volume", "split", "case", "voxels (z y x)"], rows)
    if written:
        say(f"next: {made.path / 'README.md'} says how to train there")
    else:
        say(f"{len(made.files)} files would be written to {made.path}")


def _shape(box: Any) -> list[int]:
    return [b - a for a, b in zip(*box, strict=True)]
