"""What the benchmarks share: environments for peers, paired runs, and the copy bandwidth."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"


@dataclass(frozen=True)
class Run:
    """One whole process: CPU seconds (user and system), wall seconds, peak resident MB."""

    cpu: float
    wall: float
    peak_mb: float
    output: str


def peer_python(name: str, *packages: str) -> Path:
    """The interpreter of the peer's own environment, made on first use from PyPI."""
    home = BENCH / "envs" / name
    python = home / "bin" / "python"
    done = home / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # The CPU build of torch first: a peer that asks for any torch is then content with it.
        torch = [p for p in packages if p.startswith("torch==")]
        for group in (torch, [p for p in packages if p not in torch]):
            if group:
                subprocess.run([*pip, *group], check=True)
        done.touch()
    return python


def run(command: Sequence[str], *, threads: int | None = None, cwd: Path | None = None) -> Run:
    """Run one command to its end and account for it; raises if it fails."""
    env = dict(os.environ)
    if threads is not None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        env.update(dict.fromkeys(names, str(threads)))
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, cwd=cwd)
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} exited {process.returncode}\n{output}")
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, output)


def alternate(
    commands: Mapping[str, Sequence[str]], rounds: int = 5, *, threads: int | None = None
) -> dict[str, list[Run]]:
    """Run the commands in turn, A B A B ..., after one round that is not counted."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            result = run(command, threads=threads)
            if number:
                runs[name].append(result)
    return runs


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def two_threads(work: Callable[[range], object], count: int, rounds: int = 5) -> float:
    """How many times faster two threads get through `count` pieces of work than one (wall).

    Each thread has its own pieces, as the threads of a loader do; medians of rounds in turn.
    """
    walls: dict[int, list[float]] = {1: [], 2: []}
    for threads in (1, 2) * rounds:
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            list(pool.map(work, [range(n, count, threads) for n in range(threads)]))
            walls[threads].append(time.perf_counter() - start)
    return median(walls[1]) / median(walls[2])


def copy_bandwidth(megabytes: int = 512) -> float:
    """Bytes a second that one thread copies from one array into another."""
    source = np.ones(megabytes * 2**20, np.uint8)
    target = np.empty_like(source)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return source.nbytes / min(times)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain text columns, numbers to three significant digits."""
    text = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    width = [max(len(row[i]) for row in [list(header), *text]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) for row in
             [list(header), ["-" * w for w in width], *text]]  # fmt: skip
    return "\n".join(lines)
