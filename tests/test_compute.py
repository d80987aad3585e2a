"""Units run in any engine: each once; what fails is named, what is lost is redone."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask_cluster import Cluster, cluster

from volprep.compute import Engine, EngineKind, run_units
from volprep.errors import MissingDependencyError, VolprepError

__all__ = ["cluster"]  # a fixture

KINDS: list[EngineKind] = ["serial", "threads", "processes"]


def square(number: int) -> int:
    return number * number


def fail_at_seven(number: int) -> int:
    if number == 7:
        raise ZeroDivisionError("seven")
    return number


def fail_first(number: int, *, folder: Path) -> int:
    """Of every third unit the first two tries fail."""
    tries = len(list(folder.glob(f"{number}.*")))
    (folder / f"{number}.{tries}").touch()
    if number % 3 == 0 and tries < 2:
        raise OSError("not yet")
    return number


def die_at_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def touch_slowly(number: int, *, folder: Path) -> int:
    time.sleep(0.05)
    (folder / f"{number}.{os.getpid()}.{time.monotonic_ns()}").touch()
    return number


def append_slowly(number: int, file: Path) -> None:
    time.sleep(0.05)
    with file.open("a") as notes:
        notes.write(f"{os.getpid()}\n")


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    code = (
        "import functools, pathlib, sys\n"
        "from test_compute import append_slowly\n"
        "from volprep.compute import Engine\n"
        "if __name__ == '__main__':\n"
        "    work = functools.partial(append_slowly, file=pathlib.Path(sys.argv[1]))\n"
        "    list(Engine('processes', workers=2).run(work, range(10_000)))\n"
    )
    (tmp_path / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, str(tmp_path / "main.py"), str(notes)]
    with subprocess.Popen(command, env=environment) as process:
        while not notes.exists() or len(notes.read_text().splitlines()) < 10:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    workers = {int(line) for line in notes.read_text().splitlines()}
    deadline = time.monotonic() + 20
    while any(map(runs, workers)):
        assert time.monotonic() < deadline, "they are there for ever"
        time.sleep(0.02)


def runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().split()[2]
    except OSError:
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_every_unit_runs_once(kind: EngineKind) -> None:
    with Engine(kind, workers=2) as engine:
        assert sorted(engine.run(square, range(50))) == [n * n for n in range(50)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_unit_reaches_the_caller(kind: EngineKind) -> None:
    with Engine(kind, workers=2) as engine, pytest.raises(ZeroDivisionError, match="seven"):
        list(engine.run(fail_at_seven, range(50)))


def test_a_process_that_ends_without_a_word_is_an_error_that_says_so() -> None:
    with Engine("processes", workers=2) as engine, pytest.raises(VolprepError, match="memory"):
        list(engine.run(die_at_seven, range(50)))


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_units_are_taken_lazily(kind: EngineKind) -> None:
    taken = []

    def units() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = Engine(kind, workers=2).run(square, units())
    next(results)
    assert len(taken) < 20
    results.close()  # type: ignore[attr-defined]


def test_results_keep_the_order_where_it_is_asked_for() -> None:
    assert list(run_units(square, range(40), workers=3)) == [n * n for n in range(40)]


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="serial, threads, processes, dask"):
        Engine("cloud")  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with Engine("dask") as engine, pytest.raises(MissingDependencyError, match=r"volprep\[cluster"):
        list(engine.run(square, range(3)))


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("volprep.compute.cluster.ANSWER_SECONDS", 1.0)
    engine = Engine("dask", scheduler="tcp://127.0.0.1:1")
    with engine, pytest.raises(VolprepError, match=r"127\.0\.0\.1:1: no Dask"):
        list(engine.run(square, range(3)))


def test_a_queueing_system_gets_its_options() -> None:
    """No job is sent here: what would be is looked at."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    script = jobqueue.SLURMCluster(
        queue="normal", cores=4, memory="8GB", walltime="01:00:00", interface="lo"
    ).job_script()
    assert "#SBATCH -p normal" in script
    from volprep.compute import cluster

    with pytest.raises(VolprepError, match="slurm does not take it"):
        cluster.connect(None, {"kind": "slurm", "interface": "lo"}, None)


def test_a_cluster_runs_every_unit_and_tries_again(cluster: Cluster, tmp_path: Path) -> None:
    with Engine("dask", scheduler=cluster.address) as engine:
        assert sorted(engine.run(square, range(3000), count=3000)) == [n * n for n in range(3000)]
        tried = functools.partial(fail_first, folder=tmp_path)
        assert sorted(engine.run(tried, range(20))) == list(range(20))
        with pytest.raises(VolprepError, match=r"^7: failed three times \(ZeroDivisionError: sev"):
            list(engine.run(fail_at_seven, range(50)))
        assert sorted(engine.run(square, range(9))) == [n * n for n in range(9)]


def test_units_of_a_lost_worker_run_again(cluster: Cluster, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    results: list[int] = []
    with Engine("dask", scheduler=cluster.address) as engine:
        for result in engine.run(functools.partial(touch_slowly, folder=done), range(120)):
            results.append(result)
            if len(results) == 40:
                cluster.workers[0].kill()
    assert sorted(results) == list(range(120))
    assert {int(path.name.split(".")[0]) for path in done.iterdir()} == set(range(120))


def describe_failure(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def test_errors_that_cannot_be_sent_arrive_as_words(cluster: Cluster) -> None:
    with Engine("dask", scheduler=cluster.address) as engine:
        with pytest.raises(VolprepError, match="Unsendable") as caught:
            list(engine.run(raise_unsendable, range(3)))
        assert "three times" in describe_failure(caught.value)


class Unsendable(Exception):
    def __init__(self, lock: Any) -> None:
        super().__init__("no")
        self.lock = lock


def raise_unsendable(number: int) -> int:
    import threading

    raise Unsendable(threading.Lock())
