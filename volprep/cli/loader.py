"""`volprep bench-loader`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from volprep.cli.app import app
from volprep.cli.console import print_json, print_table, say
from volprep.errors import ConfigError

__all__ = ["bench_loader"]


_MOST_THREADS = 1024


@app.command("bench-loader")
def bench_loader(
    out: Annotated[
        Path, typer.Argument(readable=False, help="The folder that volprep prepare wrote.")
    ],
    threads: Annotated[
        str, typer.Option("--threads", help="Numbers of threads to try, such as 1,2,4.")
    ] = "1,2",
    step_ms: Annotated[
        float | None,
        typer.Option(
            "--step-ms", min=0.001, max=600_000, help="Time that your device needs for one batch."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, max=65536, help="The plan's if not given.")
    ] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.1, max=3600, help="To measure each number of threads for."),
    ] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure how fast training batches come, and which stage takes the time."""
    counts = _numbers(threads)
    from volprep.loader import PatchDataset, measure_loader, measure_stages

    dataset = PatchDataset(out, "train", augment=True)
    size = batch_size or dataset.batch_size
    if not as_json:
        say("compiling what is not compiled yet, then measuring")
    found = [measure_loader(dataset, size, count, seconds=seconds) for count in counts]
    stages = measure_stages(dataset)
    if as_json:
        speeds = [
            {**asdict(s), "keeps_busy": None if step_ms is None else s.keeps_busy(step_ms, size)}
            for s in found
        ]
        print_json({"batch_size": size, "step_ms": step_ms, "speeds": speeds, "stages": stages})
        return
    rows: list[list[object]] = []
    for speed in found:
        row: list[object] = [
            speed.threads, f"{speed.patches_per_second:.1f}", f"{speed.megabytes_per_second:.0f}",
            f"{speed.cpu_ms:.2f}", f"{speed.first_batch_s:.1f}",
        ]  # fmt: skip
        if step_ms is not None:
            row.append("yes" if speed.keeps_busy(step_ms, size) else "no")
        rows.append(row)
    header = ["threads", "patches/s", "MB/s", "CPU ms a patch", "first batch s"]
    if step_ms is not None:
        header.append(f"keeps up with {step_ms:g} ms a batch of {size}")
    print_table("batches", header, rows)
    print_table("one patch", ["stage", "CPU ms"], [[n, f"{ms:.2f}"] for n, ms in stages.items()])


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= _MOST_THREADS for part in parts):
        wanted = f"numbers from 1 to {_MOST_THREADS}, such as 1,2,4"
        raise ConfigError(f"--threads: found {text!r}; wanted {wanted}")
    return [int(part) for part in parts]
