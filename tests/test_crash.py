"""Killed at any moment, the same command ends in the same bytes, and no file more."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs  # noqa: F401  once here, so that not every child imports it
import numba  # noqa: F401
import numpy as np
import pytest
import tifffile
import zarr  # noqa: F401

from volprep.config import load_config
from volprep.errors import StoreError
from volprep.pipeline.prepare import prepare

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills need fork")

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
        if "data" not in path.relative_to(folder).parts[:1]
    }


def make_data(folder: Path) -> None:
    for number in range(3):
        rng = np.random.default_rng(number)
        label = np.zeros((6, 24, 24), np.uint16)
        for instance in range(1, 4):
            z, y, x = rng.integers(0, 3), *rng.integers(0, 18, 2)
            label[z : z + 3, y : y + 5, x : x + 5] = instance
        image = (rng.integers(0, 90, label.shape) + 400 * (label > 0)).astype(np.uint16)
        for name, array in (("images", image), ("labels", label)):
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / "data" / name / f"c{number}.tif", array)


PLAIN = "{}"
FULL = "{target_spacing: [0.2, 0.1, 0.1], crop_nonzero: true}"


def configure(folder: Path, *, preprocess: str, skeletons: bool, seed: int, workers: int) -> Any:
    path = folder / "c.yaml"
    path.write_text(
        "data: {root: data, spacing: [0.3, 0.1, 0.12], label_kind: instances}\n"
        f"seed: {seed}\naugment: []\n"
        "plan: {patch_size: [4, 8, 8], aug_patch_size: [4, 8, 8], batch_size: 2}\n"
        f"preprocess: {preprocess}\npatching: {{patches_per_case: 50}}\n"
        f"skeletons: {{enabled: {str(skeletons).lower()}, average: false}}\n"
        f"compute: {{workers: {workers}}}\n"
    )
    return load_config(path)


def in_child(work: Callable[[], object], kill_at: Callable[[], None] | None = None) -> int:
    """Run something in a forked process; the status that it ended with."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            if kill_at is not None:
                kill_at()
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def states(root: str) -> Iterator[tuple[str, int, int]]:
    """What lies below a folder, but for the data: names, sizes, times."""
    for place, folders, files in os.walk(root):
        if place == root:
            folders.remove("data")
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):  # another thread has renamed it
                found = os.lstat(f"{place}/{name}")
                yield f"{place}/{name}", found.st_size, found.st_mtime_ns


def counting(folder: Path, report: int, at: int | None) -> Callable[[], None]:
    """Counts the events of the file system below a folder, and kills the process at one.

    Where it kills at none, it reports those before which the disk was another than before the
    last: between two changes it does not matter when a process is killed.
    """

    def install() -> None:
        root, seen, changes, before = str(folder), 0, 0, -1

        def event() -> None:
            nonlocal seen, changes, before
            seen += 1
            if at is not None and seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            if at is None and (now := hash(tuple(states(root)))) != before:
                os.pwrite(report, b"%8d\n" % seen, 9 * changes)
                changes, before = changes + 1, now

        def hook(name: str, args: tuple[Any, ...]) -> None:
            if name == "open" and not args[2] & WRITING:
                return  # between two changes the disk is the same, wherever the kill falls
            if name in EVENTS and isinstance(args[0], str | os.PathLike | int):
                place = "" if isinstance(args[0], int) else os.fspath(args[0])
                if isinstance(place, str) and place.startswith(root) and "/data/" not in place:
                    event()

        def told(original: Any) -> Any:  # the interpreter does not tell of these
            def call(*args: Any) -> Any:
                event()
                return original(*args)

            return call

        # What a killed process has written stays: fsync changes nothing that a kill could show.
        os.write = told(os.write)  # type: ignore[misc]
        sys.addaudithook(hook)

    return install


class Trial:
    """One command, as often as wanted from the same state."""

    def __init__(self, folder: Path, *, overwrite: bool, **settings: Any) -> None:
        self.folder, self.overwrite, self.settings = folder, overwrite, settings
        make_data(folder)
        if overwrite:
            assert in_child(lambda: prepare(configure(folder, **{**settings, "seed": 7}))) == 0
            shutil.copytree(folder / "patches", folder / "data" / "before")
        self.reset()
        with (folder / "data" / "count").open("w+") as file:
            assert in_child(self.command, counting(folder, file.fileno(), None)) == 0
            self.events = [int(line) for line in file]
        self.wanted = tree(folder)
        self.settled()

    def command(self) -> None:
        prepare(configure(self.folder, **self.settings), overwrite=self.overwrite)

    def reset(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in ("data", "c.yaml"):
                shutil.rmtree(path)
        if self.overwrite:
            shutil.copytree(self.folder / "data" / "before", self.folder / "patches")

    def settled(self) -> None:
        names = sorted(path.name for path in self.folder.iterdir())
        assert names == ["c.yaml", "data", "patches"]

    def killed_at(self, event: int) -> None:
        self.reset()
        status = in_child(self.command, counting(self.folder, 0, event))
        assert status in (0, -signal.SIGKILL)
        self.finish(f"event {event} of {self.events[-1]}")

    def finish(self, where: str) -> None:
        assert in_child(self.command) == 0, where
        found = tree(self.folder)
        assert found == self.wanted, (
            where,
            {k: (found.get(k), self.wanted.get(k)) for k in {*found, *self.wanted}
             if found.get(k) != self.wanted.get(k)},
        )  # fmt: skip
        self.settled()


#: The exhaustive trials come in so many tests, which may run one after the other or not.
SHARES = 4

WAYS = [
    pytest.param({"preprocess": p, "skeletons": s, "seed": 1, "workers": w, "overwrite": o}, id=i)
    for p, s, w, o, i in (
        (PLAIN, False, 1, False, "plain"),
        (FULL, True, 2, False, "resampled-skeletons-2"),
        (FULL, True, 1, True, "overwrite"),
    )
]


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_some_events_of_the_file_system(tmp_path: Path, way: dict[str, Any]) -> None:
    trial = Trial(tmp_path, **way)
    rng = random.Random(0)
    early, late = trial.events[:-12], trial.events[-12:]  # where the set gets its name
    for event in sorted({*rng.sample(early, 3), *rng.sample(late, 3)}):
        trial.killed_at(event)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_every_event_of_the_file_system(
    tmp_path: Path, way: dict[str, Any], share: int
) -> None:
    trial = Trial(tmp_path, **way)
    for event in trial.events[share::SHARES]:
        trial.killed_at(event)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_random_moments(tmp_path: Path, way: dict[str, Any]) -> None:
    trial = Trial(tmp_path, **way)
    trial.reset()
    began = time.monotonic()
    assert in_child(trial.command) == 0
    length = time.monotonic() - began
    rng = random.Random(1)
    for _ in range(20):
        trial.reset()
        moment = rng.uniform(0, length)

        def timed(moment: float = moment) -> None:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, max(0.001, moment))

        in_child(trial.command, timed)
        trial.finish(f"after {moment:.3f} s")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_command_ends_with_its_own_status_and_goes_on(
    tmp_path: Path, number: int, status: int
) -> None:
    import subprocess

    make_data(tmp_path)
    configure(tmp_path, preprocess=PLAIN, skeletons=False, seed=1, workers=2)
    config = tmp_path / "c.yaml"
    config.write_text(config.read_text().replace("patches_per_case: 50", "patches_per_case: 20000"))
    args = [sys.executable, "-m", "volprep", "prepare", str(config)]
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        shards = tmp_path / "patches.partial" / "patches" / "train.zarr" / "image" / "c"
        while not shards.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(timeout=20) == status
    assert (tmp_path / "patches.partial" / "ledger.jsonl").exists()
    assert not (tmp_path / "patches").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", ["main", "invoke"])
def test_interrupted_before_the_command_begins_it_ends_with_the_same_status(
    where: str, number: int, status: int
) -> None:
    import subprocess

    before = {"main": "app.app", "invoke": "typer.core.TyperGroup.make_context"}[where]
    code = (
        "import importlib, os, time, typer.core\n"
        "app = importlib.import_module('volprep.cli.app')\n"
        f"def come(*_, **__): os.kill(os.getpid(), {int(number)}); time.sleep(30)\n"
        f"{before} = come\n"
        "app.main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert run.returncode == status
    assert b"Traceback" not in run.stderr


def test_full_disk_keeps_what_is_done(tmp_path: Path) -> None:
    import resource

    way = {"preprocess": PLAIN, "skeletons": False, "seed": 1, "workers": 2}
    trial = Trial(tmp_path, overwrite=False, **way)
    largest = max(p.stat().st_size for p in (tmp_path / "patches").rglob("*") if p.is_file())
    trial.reset()

    def narrow() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))

    assert in_child(trial.command, narrow) == 1
    assert (tmp_path / "patches.partial" / "ledger.jsonl").exists()
    trial.finish("after a full disk")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A real file system of so many KiB; another number gives it another size."""
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()

    def sized(kib: int) -> Path:
        option = ("remount," if os.path.ismount(disk) else "") + f"size={kib}k"
        try:
            args = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(disk)]
            done = subprocess.run(args, capture_output=True)
        except OSError:
            pytest.skip("no file systems can be mounted here")
        if done.returncode:
            pytest.skip("no file systems can be mounted here")
        return disk

    yield sized
    if os.path.ismount(disk):
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("skeletons", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_a_disk_that_is_full_says_how_much_and_goes_on_with_more(
    tmp_path: Path, small_disk: Callable[[int], Path], share: float, skeletons: bool
) -> None:
    make_data(tmp_path)
    way = {"preprocess": PLAIN, "skeletons": skeletons, "seed": 1, "workers": 2}
    config = configure(tmp_path, **way)
    prepare(config)
    wanted = tree(tmp_path / "patches")
    files = [p for p in (tmp_path / "patches").rglob("*") if p.is_file()]
    blocks = sum(-(-path.stat().st_size // 4096) for path in files)
    disk = small_disk(int(4 * blocks * share))
    elsewhere = config.model_copy(
        update={"output": config.output.model_copy(update={"dir": disk / "patches"})}
    )
    with pytest.raises(StoreError, match=r"bytes are needed.* free") as error:
        prepare(elsewhere)
    assert str(disk / "patches.partial") in str(error.value)
    small_disk(8 * blocks)
    prepare(elsewhere)
    assert tree(disk / "patches") == wanted
    assert sorted(p.name for p in disk.iterdir()) == ["patches"]


def test_a_finished_set_on_a_disk_without_room_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path)
    config = configure(tmp_path, preprocess=FULL, skeletons=False, seed=1, workers=1)
    prepare(config)
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
    told: list[str] = []
    prepare(config, tell=told.append)
    assert told == [f"{config.output.dir} is complete already"]
