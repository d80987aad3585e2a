"""A Dask scheduler and two workers on this machine, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Cluster:
    """A scheduler and workers in processes of their own, on loopback."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.file = folder / "scheduler.json"
        self._environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        self.processes = [self._start("scheduler", "--port", "0", "--no-dashboard")]
        self.workers = [
            self._start(
                "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard",
                "--local-directory", str(folder / f"w{n}"), "--death-timeout", "60",
            )
            for n in range(workers)
        ]  # fmt: skip
        self.processes += self.workers

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, *options]
        command += ["--scheduler-file", str(self.file), "--host", "127.0.0.1"]
        return subprocess.Popen(
            command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=(self.file.parent / f"{what}.log").open("ab"),
        )

    @property
    def address(self) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                return str(json.loads(self.file.read_text())["address"])
            except (OSError, ValueError):
                time.sleep(0.1)
        raise TimeoutError("no scheduler")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed")
    folder = tmp_path / "cluster"
    folder.mkdir()
    with Cluster(folder, 2) as running:
        yield running
