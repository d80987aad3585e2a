"""What the commands print: tables and progress for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from volprep.errors import ConfigError
from volprep.places import is_remote, path_of

__all__ = ["local", "print_json", "print_table", "say", "shape_text", "spacing_text", "stage"]


def local(path: Path, option: str) -> Path:
    """What a command writes to; ConfigError where that is a URL."""
    if is_remote(path_of(path)):
        raise ConfigError(
            f"{option}: {path_of(path)} is a URL, and what is written goes to a disk of this "
            "machine; give a folder, and copy it to the store when it is done"
        )
    return path


def print_json(content: object) -> None:
    """One JSON document on stdout, and nothing else."""
    json.dump(content, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        for row in [header, *rows]:
            print("\t".join("" if cell is None else str(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console().print(table)


def say(message: str) -> None:
    """A line for the person who waits; on stderr, so that stdout stays results."""
    print(message, file=sys.stderr)


@contextmanager
def stage(title: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
    """A long stage: a bar with rate and time left on a terminal, one line at its end elsewhere.

    Yields
    ------
    callable
        ``advance(n)``, from any thread.
    """
    if total == 1:
        unit = {"patches": "patch"}.get(unit, unit.removesuffix("s"))
    if not sys.stderr.isatty():
        yield lambda _: None
        say(f"{title}: {total} {unit}".rstrip())
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]} {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, unit=unit, rate="")

        def advance(count: int) -> None:
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            progress.update(task, rate="" if speed is None else f"{speed:,.1f}/s")

        yield advance


def shape_text(shape: Sequence[int] | None) -> str:
    """``96 x 512 x 512``."""
    return "-" if shape is None else " x ".join(str(n) for n in shape)


def spacing_text(spacing: Sequence[float] | None) -> str:
    """``0.3 x 0.1 x 0.1 µm``, or that it is not known."""
    return "unknown" if spacing is None else " x ".join(f"{s:.4g}" for s in spacing) + " µm"
