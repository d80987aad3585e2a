"""What files a run is made from, and whether they are still the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from volprep.cases import Case
from volprep.compute import run_units
from volprep.errors import SourceError
from volprep.ledger import Unit, key_of
from volprep.pipeline.told import Reporter, silent
from volprep.places import is_remote
from volprep.sources import changed_meanwhile, files_of, natural_key, stored_objects

__all__ = [
    "Hashing",
    "Input",
    "Inputs",
    "Trust",
    "paths_of",
    "read_inputs",
    "size_of",
]

#: ``hash`` reads every input; ``mtime`` takes the hash of a file of the same size and time;
#: ``state`` reads none: names, sizes and times of change are all that is known of them.
Trust = Literal["hash", "mtime", "state"]
#: Name, size, time of change of the content and of the entry, number of the file.
_State = tuple[str, int, int, int, int]
_PIECE = 1 << 22


@dataclass(frozen=True, slots=True)
class Input:
    """A file, or a folder of files, or a JSON and its tiles, as it was when it was read.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the content; of several files (a folder, the JSON of a tiled volume and its tiles) of
        the names of all of them and of the SHA-256 of each, by name: so that they may be read
        in any order. Of what lies behind a URL, of the names of all its objects and what the
        store calls their present content (`stored_objects`). Of what is known by its state, of
        names, sizes and times of change.
    states : tuple
        Of each file, as the system tells.
    by_state : bool
        Whether the content was not read.
    """

    path: Path
    sha256: str
    states: tuple[_State, ...]
    by_state: bool = False

    @property
    def unit(self) -> Unit:
        """Its record; the time of change is a fact, so that `touch` makes nothing stale."""
        return Unit("inputs", str(self.path), self.sha256)

    @property
    def facts(self) -> dict[str, Any]:
        """Size and time of change, in nanoseconds."""
        mtime = max((state[2] for state in self.states), default=0)
        return {"size": sum(state[1] for state in self.states), "mtime_ns": mtime}

    def to_dict(self) -> dict[str, Any]:
        """As the manifest lists it."""
        known = {"known_by": "state"} if self.by_state else {}
        return {"path": str(self.path), **self.facts, "sha256": self.sha256, **known}

    def check(self) -> None:
        """Look whether it is what it was.

        Raises
        ------
        SourceError
            If its content is another, or it is gone.
        """
        try:
            states = _states(self.path)
            if states == self.states or self._identify(states) == self.sha256:
                return
        except OSError:
            pass
        raise changed_meanwhile(self.path)

    def _identify(self, states: tuple[_State, ...]) -> str:
        return _hash_of_states(states) if self.by_state else _hash(self.path, states)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All files of the cases of a run."""

    by_path: Mapping[Path, Input]

    @classmethod
    def of(cls, paths: Iterable[Path], workers: int | None = None) -> Inputs:
        """Read every file once; of a folder, all that is in it. SourceError if one cannot be."""
        return read_inputs(paths, lambda _: None, trust="hash", workers=workers, reporter=silent)

    @property
    def content(self) -> list[list[str]]:
        """What keys are made of: names and contents, not places and times."""
        return [[path.name, found.sha256] for path, found in self.by_path.items()]

    def key(self, case: Case) -> str:
        """What the voxels of a case are: the content of its files, and how they are read."""
        how = {k: v for k, v in case.to_dict().items() if k not in ("group", "weight")}
        contents = {str(path): self.by_path[path].sha256 for path in case.paths()}
        return key_of("case", 1, _replaced(how, contents))

    def check(self, cases: Iterable[Case] | None = None) -> None:
        """Look whether the files, those of some cases or all, are what they were.

        Raises
        ------
        SourceError
            If one is another now: what was made of it is of neither.
        """
        paths = self.by_path if cases is None else paths_of(cases)
        for path in paths:
            self.by_path[path].check()


def paths_of(cases: Iterable[Case]) -> list[Path]:
    """Every file of some cases, once."""
    return list(dict.fromkeys(path for case in cases for path in case.paths()))


def read_inputs(
    paths: Iterable[Path],
    known: Callable[[str], Mapping[str, Any] | None],
    *,
    trust: Trust,
    workers: int | None,
    reporter: Reporter,
) -> Inputs:
    """Identify files.

    Parameters
    ----------
    paths : iterable of Path
        Files, and folders that stand for all files in them.
    known : callable
        What an earlier run noted of a path: ``size``, ``mtime_ns`` and ``sha256``, and
        ``known_by`` where that was its state, by which it is known again then.
    trust : {'hash', 'mtime', 'state'}
    workers : int or None
        Threads.
    reporter : callable

    Raises
    ------
    SourceError
        If a file is not there or cannot be read.
    """
    paths = list(paths)
    with reporter("identify files", len(paths), "files") as advance:

        def read(path: Path) -> tuple[Path, Input]:
            with _reading(path):
                states = _states(path)
                found = Input(path, "", states)
                # What lies behind a URL has no time here; to look at it is to identify it.
                noted = None if is_remote(path) else known(str(path))
                stated = trust == "state" or (noted or {}).get("known_by") == "state"
                if stated and not is_remote(path):
                    advance(1)
                    return path, Input(path, _hash_of_states(states), states, by_state=True)
                noted = noted if trust == "mtime" else None
                if noted is None or found.facts != {k: noted.get(k) for k in found.facts}:
                    noted = {"sha256": _hash(path, states)}
            advance(1)
            return path, Input(path, noted["sha256"], states)

        return Inputs(dict(run_units(read, paths, workers=workers)))


def size_of(path: Path) -> int:
    """Bytes of all files that a path stands for; SourceError if they are not there."""
    with _reading(path):
        return sum(state[1] for state in _states(path))


class Hashing:
    """Identifies files beside those who read voxels from them.

    A file is hashed as far as it was walked through: its bytes are in the system's cache then,
    and come from the disk once.

    Parameters
    ----------
    paths : iterable of Path
        As for `read_inputs`. Their states are taken at once, before anything is read.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._digests: dict[Path, _Digest] = {}
        self._states: dict[Path, tuple[_State, ...]] = {}
        for path in paths:
            with _reading(path):
                self._states[path] = _states(path)
                self._digests[path] = _Digest(path, self._states[path])

    def pace(self, case: Case, share: float) -> None:
        """A share of the voxels of a case was read; any thread may say so."""
        for path in case.paths():
            self._digests[path].reach(share)

    def finish(self, workers: int | None) -> Inputs:
        """Read the rest.

        Raises
        ------
        SourceError
            If a file cannot be read, or is another now.
        """

        def read(path: Path) -> tuple[Path, Input]:
            with _reading(path):
                return path, Input(path, self._digests[path].finish(), self._states[path])

        return Inputs(dict(run_units(read, self._digests, workers=workers)))

    def changed(self) -> Path | None:
        """A file that is not as it was when this was made, if there is one; None if all are."""
        for path, states in self._states.items():
            with _reading(path):
                if _states(path) != states:
                    return path
        return None


class _Digest:
    """The hash of a file or folder, a stretch at a time.

    The files of a folder are read in the order of the numbers in their names, as chunks and
    sections are walked through.
    """

    def __init__(self, path: Path, states: Iterable[_State]) -> None:
        self._path = path
        # What lies behind a URL is identified by what the store says of it.
        self._told = [state[0] for state in states] if is_remote(path) else []
        files = [] if is_remote(path) else list(files_of(path))
        start = os.fspath(path if path.is_dir() else path.parent)
        self._names = {file: _name(file, start) for file in files}
        self._left = deque(sorted(files, key=lambda file: natural_key(self._names[file])))
        self._total = sum(file.stat().st_size for file in files)
        self._done, self._offset = 0, 0
        self._digests: dict[Path, str] = {}
        self._digest = hashlib.sha256()
        self._lock = Lock()

    def reach(self, share: float) -> None:
        """Read up to a share of the bytes; where another thread does so, it is left to that."""
        whole = share >= 1
        if not whole and share * self._total - self._done < _PIECE:
            return
        if not self._lock.acquire(blocking=whole):
            return
        try:
            while self._left and (whole or self._done + _PIECE <= share * self._total):
                self._step()
        except OSError:
            pass  # `finish` meets it again
        finally:
            self._lock.release()

    def finish(self) -> str:
        """Read the rest, and give the hash."""
        with self._lock:
            while self._left:
                self._step()
        if list(self._digests) == [self._path]:
            return self._digests[self._path]
        digest = hashlib.sha256()
        for name in self._told:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        for file, name in sorted(self._names.items(), key=lambda item: item[1]):
            line = f"{name}\0{self._digests[file]}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _step(self) -> None:
        """Read a piece of the file that is next."""
        file = self._left[0]
        piece = _piece(file, self._offset)
        if len(piece):
            self._digest.update(piece)
            self._offset += len(piece)
            self._done += len(piece)
        if len(piece) < _PIECE:
            self._digests[file] = self._digest.hexdigest()
            self._digest, self._offset = hashlib.sha256(), 0
            self._left.popleft()


def _piece(file: Path, offset: int) -> bytes:
    """Some bytes of a file; read, since one that shrinks under a map ends the process."""
    with file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        return stream.read(_PIECE)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(path, error.strerror or str(error), "check the file") from None


def _states(path: Path) -> tuple[_State, ...]:
    if is_remote(path):
        return tuple((f"{name} {version}", 0, 0, 0, 0) for name, version in stored_objects(path))
    states = []
    start = os.fspath(path if path.is_dir() else path.parent)
    for file in files_of(path):
        found = file.stat()
        name = _name(file, start)
        times = (found.st_mtime_ns, found.st_ctime_ns)
        states.append((name, found.st_size, *times, found.st_ino))
    return tuple(states)


def _hash_of_states(states: Iterable[_State]) -> str:
    """Of names, sizes and times of change of the content."""
    digest = hashlib.sha256()
    for name, size, changed, *_ in sorted(states):
        digest.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _hash(path: Path, states: Iterable[_State]) -> str:
    return _Digest(path, states).finish()


def _name(file: Path, start: str) -> str:
    """Of one of its files, seen from the input, so that a set that is moved is known again."""
    text = os.fspath(file)
    within = text.startswith(start + os.sep) and os.pardir not in text
    name = text[len(start) + 1 :] if within else os.path.relpath(text, start)
    return name.replace(os.sep, "/")


def _replaced(value: Any, contents: Mapping[str, str]) -> Any:
    """A plain value with every path replaced by the hash of what is there."""
    if isinstance(value, dict):
        return {key: _replaced(item, contents) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, contents) for item in value]
    return contents.get(value, value) if isinstance(value, str) else value
