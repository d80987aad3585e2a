"""Whole commands on a cluster, one worker of it lost in the middle: the bytes of a serial run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dask_cluster import Cluster, cluster
from test_repair import CONFIG, configure, tree, write_cases

from volprep import pipeline
from volprep.compute import Engine
from volprep.pipeline.bake import bake_skeletons, case_of_labels
from volprep.pipeline.baked import BakeOptions

__all__ = ["cluster"]  # a fixture


def killing(
    cluster: Cluster, title: str
) -> Callable[..., contextlib.AbstractContextManager[object]]:
    """A reporter that kills a worker when the first units of a stage are done."""

    @contextlib.contextmanager
    def reporter(name: str, total: int, what: str = "") -> Iterator[Callable[[int], object]]:
        def advance(count: int) -> None:
            if name.startswith(title) and cluster.workers[0].poll() is None:
                cluster.workers[0].kill()
                cluster.workers[0].wait()

        yield advance

    return reporter


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    volume = np.zeros((70, 140, 150), np.uint16)
    for number in range(6):
        z, y = 11 * number, 22 * number
        volume[z : z + 5, y : y + 5, 5 : 140 - 9 * number] = number + 1
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, volume)
    return path


@pytest.mark.parametrize("stage", ["skeletons", "offset"])
def test_bake_survives_a_lost_worker(
    cluster: Cluster, labels: Path, tmp_path: Path, stage: str
) -> None:
    case = case_of_labels(labels, None, (1.0, 1.0, 1.0))
    options = BakeOptions(field=True, mask=True)
    bake_skeletons([case], tmp_path / "serial", options, workers=1)
    with Engine("dask", scheduler=cluster.address) as engine:
        bake_skeletons(
            [case], tmp_path / "dask", options, engine=engine, reporter=killing(cluster, stage)
        )
    assert cluster.workers[0].poll() is not None
    assert cluster.workers[1].poll() is None
    assert tree(tmp_path / "dask") == tree(tmp_path / "serial")


def test_prepare_survives_a_lost_worker(cluster: Cluster, tmp_path: Path) -> None:
    write_cases(tmp_path)
    pipeline.prepare(configure(tmp_path, CONFIG.replace("dir: out", "dir: serial")))
    text = f"compute: {{executor: dask, scheduler: '{cluster.address}'}}\n"
    config = configure(tmp_path, CONFIG + text)
    pipeline.prepare(config, reporter=killing(cluster, "preprocess"))
    assert cluster.workers[0].poll() is not None
    assert cluster.workers[1].poll() is None
    assert tree(tmp_path / "out") == tree(tmp_path / "serial")


def test_the_scheduler_of_the_command_line_is_used(cluster: Cluster, tmp_path: Path) -> None:
    write_cases(tmp_path)
    configure(tmp_path)
    command = [sys.executable, "-m", "volprep", "prepare", "c.yaml", "--scheduler"]
    subprocess.run([*command, cluster.address], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        [*command, "tcp://127.0.0.1:1", "--out", "other"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Dask scheduler answers" in done.stderr


def test_a_lost_scheduler_is_said_and_what_is_done_is_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_cases(tmp_path)
    pipeline.prepare(configure(tmp_path, CONFIG.replace("dir: out", "dir: serial")))
    configure(tmp_path)
    command = [sys.executable, "-m", "volprep", "prepare", "c.yaml"]
    with subprocess.Popen(
        [*command, "--scheduler", cluster.address],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as going:  # fmt: skip
        while going.poll() is None and not list((tmp_path / "out.partial/volumes").glob("*")):
            time.sleep(0.01)
        scheduler = cluster.processes[0]
        scheduler.kill()
        scheduler.wait()
        told = going.communicate(timeout=120)[1]
    assert going.returncode == 1, told
    last = told.splitlines()[-1]
    assert last.startswith("error: tcp://127.0.0.1:"), told
    assert "the Dask scheduler was lost; what is done is kept: start one, then run" in last
    assert "Traceback" not in told
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "serial")


MANY = """
import contextlib, json, pathlib, re, sys, time
from empty_unit import nothing
from volprep.compute import Engine, cluster
from volprep.config import Config
from volprep.ledger import Ledger, Unit, key_of
from volprep.pipeline import prepare
from volprep.pipeline.run import Run

folder, address, many = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
flying = []

@contextlib.contextmanager
def reporter(*_):
    yield lambda _count: None

class Flight(cluster._Flight):
    def launch(self):
        going = super().launch()
        flying.append((len(self._flying), sum(len(b.units) for b in self._flying.values())))
        return going

cluster._Flight = Flight
config = Config.model_validate({"data": {"root": str(folder)}})
units = [Unit("patches/train", n, key_of("x", n)) for n in range(many)]
with Engine("dask", scheduler=address) as engine, Ledger(folder / "run") as ledger:
    began = time.perf_counter()
    run = Run(config, None, reporter, folder=ledger.folder, ledger=ledger, engine=engine)
    run.all("patches/train", units, nothing, title="", what="")
    ledger.publish(folder / "out", run.wanted, {})
    took = time.perf_counter() - began
    status = pathlib.Path("/proc/self/status").read_text()  # getrusage also tells of the parent
    json.dump(
        {
            "done": len(ledger.records),
            "batches": max(batches for batches, _ in flying),
            "units": max(units for _, units in flying),
            "MB": int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1000,
            "ms": took / many * 1000,
        },
        sys.stdout,
    )
"""


@pytest.mark.parametrize("many", [20_000, pytest.param(10**6, marks=pytest.mark.slow)])
def test_units_without_work_take_little_of_the_driver(
    cluster: Cluster, tmp_path: Path, many: int
) -> None:
    """The stage of a run, by batches on a real scheduler, into a ledger that is published."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path), cluster.address, str(many)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["done"] == many
    assert found["batches"] <= 2 * len(cluster.workers)
    assert found["units"] <= 2 * len(cluster.workers) * 10_000
    assert found["MB"] < 500
    assert len((tmp_path / "out" / "ledger.jsonl").read_bytes().splitlines()) == many


@pytest.mark.slow
def test_the_script_for_slurm_prepares_the_set(tmp_path: Path) -> None:
    """With a sbatch that runs the jobs of an array here, one after the other."""
    write_cases(tmp_path)
    pipeline.prepare(configure(tmp_path, CONFIG.replace("dir: out", "dir: serial")))
    configure(tmp_path)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        "#!/usr/bin/env bash\n"
        'for a in "$@"; do case $a in --array=*) last=${a##*-};; esac; job=$a; done\n'
        'for n in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID=$n bash -c "$job" || exit 1; done\n'
    )
    sbatch.chmod(0o755)
    script = Path(__file__).parents[1] / "scripts/slurm_prepare.sh"
    environment = {
        **os.environ,
        "CONFIG": "c.yaml",
        "JOBS": "2",
        "SBATCH": str(sbatch),
        "VOLPREP": f"{sys.executable} -m volprep",
    }
    done = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "serial")
