"""Killed at any moment, the same command ends in the same bytes, and no file more."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
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

from volprep import pipeline
from volprep.config import load_config
from volprep.errors import StoreError
from volprep.files import temporary_of
from volprep.pipeline.export import export
from volprep.pipeline.prepare import prepare
from volprep.pipeline.repair import repair

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


def make_data(folder: Path, depth: int = 6) -> None:
    for number in range(3):
        rng = np.random.default_rng(number)
        label = np.zeros((depth, 24, 24), np.uint16)
        for instance in range(1, 4):
            z, y, x = rng.integers(0, 3), *rng.integers(0, 18, 2)
            label[z : z + 3, y : y + 5, x : x + 5] = instance
        image = (rng.integers(0, 90, label.shape) + 400 * (label > 0)).astype(np.uint16)
        for name, array in (("images", image), ("labels", label)):
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / "data" / name / f"c{number}.tif", array)


PLAIN = "{}"
FULL = "{target_spacing: [0.2, 0.1, 0.1], crop_nonzero: true}"


def configure(
    folder: Path,
    *,
    preprocess: str,
    skeletons: bool,
    seed: int,
    workers: int,
    store: str = "patches",
    out: str = "patches",
) -> Any:
    path = folder / "c.yaml"
    path.write_text(
        "data: {root: data, spacing: [0.3, 0.1, 0.12], label_kind: instances}\n"
        f"seed: {seed}\naugment: []\n"
        "plan: {patch_size: [4, 8, 8], aug_patch_size: [4, 8, 8], batch_size: 2}\n"
        f"preprocess: {preprocess}\npatching: {{patches_per_case: 50}}\n"
        f"skeletons: {{enabled: {str(skeletons).lower()}, average: false}}\n"
        f"compute: {{workers: {workers}}}\noutput: {{dir: {out}, store: {store}}}\n"
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


State = dict[str, str | None]  # of a path below the folder: its content's name; None is a folder


def read_state(root: Path, contents: Path) -> State:
    """What lies below a folder, but for the data and the config; contents are kept aside, once."""
    found: State = {}
    for place, folders, files in os.walk(root):
        if place == str(root):
            folders.remove("data")
            files.remove("c.yaml")
        below = Path(place).relative_to(root)
        found.update({(below / name).as_posix(): None for name in folders})
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # another thread has renamed it
                content = Path(place, name).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                found[(below / name).as_posix()] = digest
                if not (contents / digest).exists():
                    (contents / digest).write_bytes(content)
    return found


def likeness(state: State) -> str:
    """The same of states that only differ in what unfinished files are called and hold."""
    named = [("/".join(temporary_of(p) or p for p in path.split("/")), path, content)
             for path, content in state.items()]  # fmt: skip
    told = {(name, content if name == path else "unfinished") for name, path, content in named}
    return repr(sorted(told, key=str))


class Watch:
    """Looks at every event of the file system below a folder, in one process and its threads.

    Parameters
    ----------
    folder : Path
    at : int or None
        The event at which the process is killed. None writes down the events before which the
        disk was another than at any other: where it is the same it does not matter when a
        process is killed. The threads wait meanwhile, so that there is one state to see.
    """

    def __init__(self, folder: Path, at: int | None = None) -> None:
        self.folder, self.root, self.at = folder, str(folder), at
        self.seen, self.known = 0, set[str]()
        self.lock = threading.RLock()

    def install(self) -> None:
        def told(original: Any) -> Any:  # the interpreter does not tell of these
            def call(*args: Any) -> Any:
                self.event()
                return original(*args)

            return call

        # What a killed process has written stays: fsync changes nothing that a kill could show.
        os.write = told(os.write)  # type: ignore[misc]
        sys.addaudithook(self.hook)

    def hook(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "open" and not args[2] & WRITING:
            return  # between two changes the disk is the same, wherever the kill falls
        if name in EVENTS and isinstance(args[0], str | os.PathLike | int):
            place = "" if isinstance(args[0], int) else os.fspath(args[0])
            if isinstance(place, str) and place.startswith(self.root) and "/data/" not in place:
                self.event()

    def event(self) -> None:
        with self.lock:
            self.seen += 1
            if self.at is not None and self.seen == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.at is None:
                self.note()

    def note(self) -> None:
        state = read_state(self.folder, self.folder / "data" / "contents")
        like = likeness(state)
        if like not in self.known:
            self.known.add(like)
            with (self.folder / "data" / "states").open("a") as file:
                file.write(json.dumps([self.seen, state]) + "\n")


class Trial:
    """One command, as often as wanted from the same state."""

    def __init__(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        export: bool = False,
        repair: bool = False,
        **settings: Any,
    ) -> None:
        self.folder, self.overwrite, self.export, self.repair = folder, overwrite, export, repair
        self.settings = settings
        make_data(folder)
        (folder / "data" / "contents").mkdir()
        if export:
            assert in_child(lambda: prepare(configure(folder, **settings, out="data/set"))) == 0
        if overwrite:
            assert in_child(lambda: prepare(configure(folder, **{**settings, "seed": 7}))) == 0
            shutil.copytree(folder / "patches", folder / "data" / "before")
        if repair:
            assert in_child(lambda: prepare(configure(folder, **settings))) == 0
            whole = tree(folder)
            shutil.copytree(folder / "patches", folder / "data" / "before")
            for name in ("patches/train.zarr/image/c/0/0/0/0/0", "volumes/c1.ome.zarr/zarr.json",
                         "report.html", "plan.yaml"):  # fmt: skip
                path = folder / "data" / "before" / name
                path.write_bytes(path.read_bytes()[:-7] + b"damaged")
        configure(folder, **settings)
        self.reset()
        assert in_child(self.command, Watch(folder).install) == 0
        with (folder / "data" / "states").open() as file:
            self.states: list[tuple[int, State]] = [json.loads(line) for line in file]
        self.wanted = tree(folder)
        self.settled()
        if repair:
            assert self.wanted == whole

    def command(self) -> None:
        if self.export:
            export(self.folder / "data" / "set", "monai", self.folder / "patches", workers=2)
        elif self.repair:
            repair(self.folder / "patches")
        else:
            prepare(configure(self.folder, **self.settings), overwrite=self.overwrite)

    def clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in ("data", "c.yaml"):
                shutil.rmtree(path)

    def reset(self) -> None:
        self.clear()
        if self.overwrite or self.repair:
            shutil.copytree(self.folder / "data" / "before", self.folder / "patches")

    def settled(self) -> None:
        names = sorted(path.name for path in self.folder.iterdir())
        assert names == ["c.yaml", "data", "patches"]

    def killed_at(self, event: int) -> None:
        """The process itself is killed, there."""
        self.reset()
        status = in_child(self.command, Watch(self.folder, event).install)
        assert status in (0, -signal.SIGKILL)
        self.finish(f"event {event} of {self.states[-1][0]}")

    def left_as(self, event: int, state: State) -> None:
        """What the process would have left if it had been killed before that event."""
        self.clear()
        for path, content in state.items():
            if content is None:
                (self.folder / path).mkdir(parents=True, exist_ok=True)
        for path, content in state.items():
            if content is not None:
                shutil.copyfile(self.folder / "data" / "contents" / content, self.folder / path)
        self.finish(f"event {event} of {self.states[-1][0]}")

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
    pytest.param({"preprocess": p, "skeletons": s, "seed": 1, "workers": w, **more}, id=i)
    for p, s, w, more, i in (
        (PLAIN, False, 1, {}, "plain"),
        (FULL, True, 2, {}, "resampled-skeletons-2"),
        (FULL, True, 1, {"overwrite": True}, "overwrite"),
        (FULL, False, 2, {"store": "volumes"}, "volumes-2"),
        (PLAIN, False, 1, {"export": True}, "export"),
        (FULL, False, 1, {"repair": True}, "repair"),
    )
]


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_some_events_of_the_file_system(tmp_path: Path, way: dict[str, Any]) -> None:
    trial = Trial(tmp_path, **way)
    rng = random.Random(0)
    events = [event for event, _ in trial.states]
    early, late = events[:-12], events[-12:]  # where the set gets its name
    for event in sorted({*rng.sample(early, 2), *rng.sample(late, 2)}):
        trial.killed_at(event)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_every_event_of_the_file_system(
    tmp_path: Path, way: dict[str, Any], share: int
) -> None:
    trial = Trial(tmp_path, **way)
    for event, state in trial.states[share::SHARES]:
        trial.left_as(event, state)


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
@pytest.mark.parametrize("where", ["import", "import later", "main", "invoke"])
def test_interrupted_before_the_command_begins_it_ends_with_the_same_status(
    where: str, number: int, status: int
) -> None:
    come = f"def come(*_, **__): os.kill(os.getpid(), {int(number)}); time.sleep(30)\n"
    if where.startswith("import"):
        room = "pipeline" if where == "import later" else "cli"
        code = (
            "import os, sys, time\n"
            "sys.argv = ['volprep', 'prepare', 'none.yaml']\n"
            "class Finder:\n"
            f"    def find_spec(self, name, *_): name == 'volprep.{room}' and come()\n"
            f"{come}sys.meta_path.insert(0, Finder())\n"
            "from volprep.__main__ import main\nmain()\n"
        )
    else:
        before = {"main": "app.app", "invoke": "typer.core.TyperGroup.make_context"}[where]
        code = (
            "import importlib, os, time, typer.core\n"
            "app = importlib.import_module('volprep.cli.app')\n"
            f"{come}{before} = come\napp.main()\n"
        )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert run.returncode == status
    assert b"Traceback" not in run.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("late", ["atexit.register(come)", "last = Late()"])
def test_a_command_that_is_done_keeps_its_status(late: str, number: int) -> None:
    code = (
        "import atexit, os, sys\n"
        f"def come(kill=os.kill, own=os.getpid()): kill(own, {int(number)})\n"
        "class Late:\n    def __del__(self, come=come): come()\n"
        f"{late}\nsys.argv = ['volprep', '--version']\n"
        "from volprep.__main__ import main\nmain()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, b"")


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


@pytest.mark.parametrize("to", ["connectomics", "careamics", "nnunet", "cellpose"])
def test_an_export_onto_a_full_disk_says_so_and_goes_on_with_more(
    tmp_path: Path, small_disk: Callable[[int], Path], to: str
) -> None:
    """HDF5, mapped npy, gzip and TIFF: each writer meets the end of the disk in its own way."""
    make_data(tmp_path, depth=9)
    store = prepare(configure(tmp_path, preprocess=PLAIN, skeletons=False, seed=1, workers=1))
    name = "Dataset001_cells"
    pipeline.export(store.path, to, tmp_path / "whole" / name)
    wanted = tree(tmp_path / "whole")
    files = [p for p in (tmp_path / "whole").rglob("*") if p.is_file()]
    blocks = sum(-(-path.stat().st_size // 4096) for path in files)
    out = small_disk(4 * max(2, blocks // 3)) / name
    command = [sys.executable, "-m", "volprep", "export", str(store.path), "--to", to]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == StoreError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert "free" in done.stderr
    small_disk(16 * blocks)
    pipeline.export(store.path, to, out)
    assert tree(out.parent) == wanted
