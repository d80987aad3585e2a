"""Kills a command at one of its steps on the disk, again and again, in forks of one process.

Run as ``python crashes.py FOLDER POINTS COMMAND``: COMMAND is the body of a function of
``out``, POINTS ``all`` or a number of places to choose among all steps. Prints as JSON what went
wrong: trees that are not those of a run that nobody killed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}


class Countdown:
    """Ends the process at its n-th step on the disk below a folder; halves what it writes there."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last, self.count = str(folder), last, 0
        self.lock = threading.Lock()
        self.write = os.write
        sys.addaudithook(self.hook)
        os.write = self.torn  # type: ignore[assignment]
        os.fsync = lambda _descriptor: None  # a killed process loses nothing that it wrote

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and self.folder in str(arguments[0]) and self.is_last():
            os.kill(os.getpid(), signal.SIGKILL)

    def torn(self, descriptor: int, data: Any) -> int:
        if self.is_last():
            self.write(descriptor, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return self.write(descriptor, data)

    def is_last(self) -> bool:
        with self.lock:
            self.count += 1
            return self.count == self.last


def run(command: Callable[[Path], object], out: Path, last: int) -> tuple[bool, int]:
    """Run the command in a fork; whether it came to its end, and how many steps it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        countdown = Countdown(out, last)
        try:
            command(out)
        except BaseException as error:
            print(f"{out.name} at {last}: {error!r}", file=sys.stderr)
            os._exit(1)
        countdown.write(writing, str(countdown.count).encode())
        os._exit(0)
    os.close(writing)
    steps = os.read(reading, 100)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(1)
    return not os.WIFSIGNALED(status), int(steps or 0)


def tree(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): hash(path.read_bytes()) if path.is_file() else 0
        for path in sorted(folder.rglob("*"))
    }


def main(folder: Path, points: str, body: str) -> None:
    names: dict[str, Any] = {}
    exec(f"def command(out):\n    {body}", names)
    command = names["command"]
    _, steps = run(command, folder / "whole", 0)
    whole = tree(folder / "whole")
    places = range(1, steps + 1)
    if points != "all":
        places = sorted(random.Random(0).sample(places, min(int(points), steps)))
    wrong = []
    for place in places:
        out = folder / f"at{place}"
        ended, _ = run(command, out, place)
        if not ended:
            run(command, out, 0)
        found = tree(out)
        if found != whole:
            differing = sorted(k for k in found.keys() | whole if found.get(k) != whole.get(k))
            wrong.append([place, differing])
        shutil.rmtree(out)
    print(json.dumps({"steps": steps, "killed": len(places), "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3])
