"""`volprep explain`, `schema` and `doctor-env`: what may be written, and what it runs on."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from volprep.cli.app import app
from volprep.cli.completion import topics
from volprep.cli.console import print_json, print_table, print_text, say
from volprep.version import __version__

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A key such as plan.patch_size, a transform, a target or a finding.",
            autocompletion=topics,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain a key of the YAML: meaning, values, default, example; without a name all of them."""
    from volprep.config import every_key, known_key

    if name is None:
        keys = list(every_key())
        if as_json:
            print_json([_facts(key) for key in keys])
            return
        from volprep.config import on_one_line

        rows = [[key.name, _default_of(key, on_one_line), key.meaning] for key in keys]
        print_table("keys of the YAML", ["key", "default", "meaning"], rows, most=None)
        say("more on one, on a transform, a target or a finding: volprep explain NAME")
        return
    if as_json:
        print_json([_facts(key) for key in known_key(name)])
        return
    from volprep import pipeline

    print_text(pipeline.explain(name))


def _default_of(key: Any, spelled: Callable[[Any], str]) -> str:
    if key.required:
        return "required"
    return "" if key.is_section else spelled(key.default)


def _facts(key: Any) -> dict[str, Any]:
    from volprep.config import plain

    return {
        "key": key.name,
        "meaning": key.meaning,
        "takes": key.wanted,
        "default": plain(key.default),
        "required": key.required,
        "example": plain(key.example),
    }


@app.command()
def schema(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", readable=False, help="Write it there instead of printing."),
    ] = None,
) -> None:
    """Print the JSON Schema of the YAML: every key with its meaning, for editors."""
    from volprep.config import json_schema

    if out is None:
        print_json(json_schema())
        return
    import json

    from volprep.store import write_text

    write_text(out, json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
    say(f"wrote {out}")


@app.command("doctor-env")
def doctor_env(
    folder: Annotated[
        Path,
        typer.Argument(readable=False, help="Where patch sets will lie: its disk is looked at."),
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Show versions, cores, memory, disk, limits and GPU, and which extras are missing."""
    from volprep import pipeline

    found = pipeline.environment(folder)
    if as_json:
        print_json(found.to_dict())
        return
    machine = found.machine
    share = "" if machine.core_share is None else f", time for {machine.core_share:g} granted"
    limited = machine.memory_limit is not None and machine.memory_limit < (machine.memory or 0)
    group = f"; this process may use {_size(machine.memory_limit)}" if limited else ""
    rows: list[list[object]] = [
        ["volprep", __version__],
        ["Python", f"{platform.python_version()} ({sys.executable})"],
        ["system", platform.platform()],
        ["cores", f"{machine.usable_cores} of {machine.cores}{share}"],
        ["memory", f"{_size(machine.free_memory)} free of {_size(machine.memory)}{group}"],
        ["disk", f"{_size(machine.free_disk)} free of {_size(machine.disk)} at {machine.folder}"],
        ["open files", machine.open_files if machine.open_files is not None else "not known"],
        ["GPU", "; ".join(found.devices) or "none that torch can use"],
    ]
    print_table("machine", ["what", "found"], rows)
    rows = [[name, version or "missing"] for name, version in found.packages.items()]
    print_table("packages", ["package", "version"], rows)
    rows = [
        [extra.name, *_state(extra), "" if extra.complete else extra.install]
        for extra in found.extras
    ]
    print_table("extras", ["extra", "state", "packages", "to install"], rows)


def _state(extra: Any) -> list[object]:
    some = [f"{name} {version or 'missing'}" for name, version in extra.packages.items()]
    return ["complete" if extra.complete else "missing", ", ".join(some)]


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
