"""The ledger of a run: which units are done, from what they were made, and whether they are whole.

A run is cut into units: a case to resample, a shard of patches to write. A unit that is done has
a record, one line of ``ledger.jsonl`` with a checksum of its own, written when all its files
are on the disk under their final names. Nothing else is ever written down: a run that ends,
however it ends, leaves records of what is done, and the next one does the rest.

    with Ledger(folder) as ledger:
        run(ledger, make, [Unit("volumes", case.name, key_of(...)) for case in cases])
        ledger.publish(final, units, {"format": ...})

One process holds the ledger and writes it. Threads, processes and other machines give it
(unit, files, facts) of what they made, or leave them in record files of their own (`aside`)
that the next holder collects.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from volprep.compute import Engine, default_workers
from volprep.errors import StoreError
from volprep.files import (
    File,
    NewFile,
    describe,
    files_below,
    flush,
    load_json,
    remove,
    sweep,
    temporary,
    temporary_of,
    unreadable,
    write_text,
)

__all__ = [
    "LEDGER",
    "MANIFEST",
    "Damage",
    "Found",
    "Ledger",
    "Look",
    "Made",
    "Record",
    "Records",
    "Unit",
    "differs",
    "key_of",
    "ledger_damage",
    "left_over",
    "load_manifest",
    "remove_left_over",
    "run",
    "size_differs",
    "verify",
]

log = logging.getLogger(__name__)

LEDGER = "ledger.jsonl"
MANIFEST = "manifest.json"
#: Seconds between two times that records are brought to the disk; a killed process loses none.
_FLUSH_EVERY = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True, init=False)
class Unit:
    """One piece of work.

    Parameters
    ----------
    stage : str
    index : int or str
    key : str
        In hexadecimal, as `key_of` gives it.

    Attributes
    ----------
    stage : str
        Such as ``volumes`` or ``patches/train``.
    index : int or str
        Which one of its stage: a shard's number, a case's name.
    key : str
        Of everything that it is made from: what matters of the config to this
        stage, the keys of its inputs, the stage's version. Never the whole config.
    digest : bytes
        The key as it is held: a run has a million of them.
    """

    stage: str
    index: int | str
    digest: bytes

    def __init__(self, stage: str, index: int | str, key: str) -> None:
        object.__setattr__(self, "stage", stage)
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "digest", bytes.fromhex(key))

    @property
    def key(self) -> str:
        """Of everything that it is made from, in hexadecimal."""
        return self.digest.hex()

    def __str__(self) -> str:
        return f"{self.stage} {self.index}"


@dataclass(frozen=True, slots=True)
class Record:
    """A unit that is done: its files, and what is worth knowing of it, in plain JSON values."""

    unit: Unit
    files: tuple[File, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """As one line of JSON that ends in its own checksum."""
        body = {
            "unit": [self.unit.stage, self.unit.index],
            "key": self.unit.key,
            "files": [list(file) for file in self.files],
            "facts": self.facts,
        }
        text = json.dumps(body, separators=(",", ":"), allow_nan=False)
        return f'{text[:-1]},"crc32":"{zlib.crc32(text.encode()):08x}"}}\n'

    @classmethod
    def parse(cls, line: bytes) -> Record | None:
        """The inverse of `line`; None for a line that is torn or damaged."""
        text, _, crc = line.rpartition(b',"crc32":"')
        if crc != b'%08x"}\n' % zlib.crc32(text + b"}"):
            return None
        body = json.loads(text + b"}")
        stage, index = body["unit"]
        files = tuple(File(*file) for file in body["files"])
        return cls(Unit(stage, index, body["key"]), files, body["facts"])


Facts = Mapping[str, Any]
Found = Literal["missing", "truncated", "longer", "changed", "not of the set"]
#: What is found of a file (its path, as it was written, the record that claims it).
Look = Callable[[Path, File, Record], Found | None]
#: What a unit gives when it is made: its files, and its facts.
Made = tuple[Collection[File], Facts]
#: Units that a process makes together: few enough that little is lost with it.
_NEIGHBOURS = 4


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not as it was written; `unit` is None where no unit claims the file."""

    path: Path
    found: Found
    unit: Unit | None = None

    def __str__(self) -> str:
        of = "" if self.unit is None else f" (of {self.unit.stage} {self.unit.index})"
        return f"{self.path}: {_WORDS[self.found]}{of}"


_WORDS = {
    "missing": "missing",
    "truncated": "damaged: it was cut short",
    "longer": "damaged: it has grown",
    "changed": "damaged: its content is another than was written",
    "not of the set": "not of the set",
}


def left_over(final: Path) -> list[Path]:
    """What was replaced by a published folder and could not be removed in time."""
    if not final.parent.is_dir():
        return []
    beside = (p for p in final.parent.iterdir() if p.name.startswith(f".{final.name}."))
    return [path for path in beside if temporary_of(path.name) == final.name]


def remove_left_over(final: Path) -> None:
    """Remove what `left_over` finds; two processes may do so at once."""
    for old in left_over(final):
        remove(old)


def key_of(*parts: object) -> str:
    """The hash of what a unit is made from: plain JSON values, in order.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _Places:
    """Where the records of a stage lie in their file: the key of each unit, and its offset.

    Shards are numbered from 0, and may be a million: theirs are the rows of one array, 41 bytes
    each, where a dictionary takes 200. All else has a name.
    """

    _ROW = 41  # one more than the key's bytes (0: no unit), the key in 32, the offset in 8
    _MOST = 1 << 24  # a number beyond is taken for a name: the array reaches to the highest one

    def __init__(self) -> None:
        self._rows, self._named, self._count = bytearray(), dict[int | str, bytes](), 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int | str, str, int]]:
        """Every index with its key and offset: by number, then names as they came."""
        for index in range(len(self._rows) // self._ROW):
            found = self.get(index)
            if found is not None:
                yield index, *found
        for name, row in list(self._named.items()):
            yield name, *_unpacked(row)

    def get(self, index: int | str) -> tuple[str, int] | None:
        """The key and the offset of a unit; None where it has none."""
        if not self._is_row(index):
            row = self._named.get(index)
            return None if row is None else _unpacked(row)
        start = int(index) * self._ROW
        if start >= len(self._rows) or not self._rows[start]:
            return None
        return _unpacked(self._rows[start : start + self._ROW])

    def note(self, unit: Unit, offset: int) -> None:
        """The last one counts."""
        row = bytes([1 + len(unit.digest)]) + unit.digest.ljust(32) + offset.to_bytes(8, "little")
        self._count += self.get(unit.index) is None
        if not self._is_row(unit.index):
            self._named[unit.index] = row
            return
        start = int(unit.index) * self._ROW
        missing = start + self._ROW - len(self._rows)
        if missing > 0:
            self._rows.extend(bytes(missing))
        self._rows[start : start + self._ROW] = row

    def _is_row(self, index: int | str) -> bool:
        return isinstance(index, int) and 0 <= index < self._MOST


def _unpacked(row: bytes | bytearray) -> tuple[str, int]:
    return row[1 : row[0]].hex(), int.from_bytes(row[-8:], "little")


class Records:
    """The records of a file, the last one of each unit; facts are read when they are asked for.

    Parameters
    ----------
    path : Path
        Nothing needs to be there. Lines that are torn or damaged are passed over, and
        counted in `damaged`.

    Notes
    -----
    Of each unit only the key and its place in the file are held: a million numbered ones take
    41 MB.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.end, self.damaged = path, 0, 0
        self._places: dict[str, _Places] = {}
        if not path.is_file():
            return
        with path.open("rb") as file:
            for line in file:
                record = Record.parse(line)
                if record is None:
                    self.damaged += 1
                else:
                    self._note(record.unit, self.end)
                self.end += len(line)

    def __len__(self) -> int:
        return sum(len(stage) for stage in self._places.values())

    def clear(self) -> None:
        """Forget all records; the file stays."""
        self._places.clear()

    def __iter__(self) -> Iterator[Record]:
        """Every record, stage after stage: by number, then names in the order of their first."""
        if not self._places:
            return
        with self.path.open("rb") as file:
            for places in list(self._places.values()):
                for _, _, offset in places:
                    yield self._read(file, offset)

    @property
    def claimed(self) -> set[str]:
        """The paths of all files of all units, below the folder."""
        return {file.path for record in self for file in record.files}

    def key(self, stage: str, index: int | str) -> str | None:
        """The key that a unit was made with; None where it has no record."""
        place = self._place(stage, index)
        return None if place is None else place[0]

    def units(self, stage: str) -> list[Unit]:
        """The units of a stage that have a record."""
        return [Unit(stage, index, key) for index, key, _ in self._places.get(stage, ())]

    @property
    def stages(self) -> list[str]:
        """Every stage that has a record."""
        return list(self._places)

    def find(self, stage: str, index: int | str) -> Record | None:
        """The record of a unit, whatever its key."""
        place = self._place(stage, index)
        if place is None:
            return None
        with self.path.open("rb") as file:
            return self._read(file, place[1])

    def has(self, unit: Unit) -> bool:
        """Whether a unit has a record of its key."""
        return self.key(unit.stage, unit.index) == unit.key

    def whole(self, unit: Unit) -> bool:
        """Whether a unit has a record of its key, and its files are there with their sizes."""
        record = self.find(unit.stage, unit.index) if self.has(unit) else None
        return record is not None and not any(
            size_differs(self.path.parent / file.path, file) for file in record.files
        )

    def facts(self, unit: Unit) -> Mapping[str, Any] | None:
        """The facts of a unit; None where it is not done with this key."""
        record = self.find(unit.stage, unit.index) if self.has(unit) else None
        return None if record is None else record.facts

    def damage(self, look: Look | None = None) -> Iterator[Damage]:
        """The files that are not as they were written; `look` compares one, whole for None."""
        for record in self:
            for file in record.files:
                path = self.path.parent / file.path
                found = differs(path, file) if look is None else look(path, file, record)
                if found:
                    yield Damage(path, found, record.unit)

    def _place(self, stage: str, index: int | str) -> tuple[str, int] | None:
        places = self._places.get(stage)
        return None if places is None else places.get(index)

    def _read(self, file: IO[bytes], offset: int) -> Record:
        file.seek(offset)
        record = Record.parse(file.readline())
        if record is None:
            raise StoreError(f"{self.path}: changed while it was in use")
        return record

    def _note(self, unit: Unit, offset: int) -> None:
        if unit.stage not in self._places:
            self._places[unit.stage] = _Places()
        self._places[unit.stage].note(unit, offset)


class Ledger:
    """The records of the units that are done in a folder, held by one process at a time.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    own : bool
        Whether all that lies in the folder is the ledger's: then it is swept to its depths of
        what killed processes left, and `publish` removes what no unit claims. A folder that
        the user chose (`own` False) is swept on its own level alone.
    aside : bool
        Hold it beside others: records go to a file of their own, which the next sole holder
        collects. For work on parts of one run from many machines.

    Raises
    ------
    StoreError
        If another process holds it, or the folder cannot be written.

    Notes
    -----
    The lock is the system's, on the folder itself, so it ends with the process, however
    that ends, and leaves no file. Where the system does not lock folders (NFS, Windows)
    there is none, which is told.
    """

    def __init__(self, folder: Path, *, own: bool = True, aside: bool = False) -> None:
        self.folder, self._own, self._aside = folder, own, aside
        self._writing = threading.Lock()
        self._flushed = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder, shared=aside)
            try:
                if not aside:
                    sweep(folder, deep=own)
                    self._collect()
                self.records = Records(folder / LEDGER)
                name = f"ledger.{secrets.token_hex(4)}.jsonl" if aside else LEDGER
                self._file = (folder / name).open("ab", buffering=0)
            except BaseException:
                self._unlock()
                raise
        except OSError as error:
            if error.errno in _FULL:
                raise StoreError(_cannot_write(folder, error)) from error
            raise StoreError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another folder"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, OSError) and error.errno in _FULL:  # whatever was being written
            raise StoreError(_cannot_write(self.folder, error)) from error

    def close(self) -> None:
        """Bring the records to the disk, and let go of the folder."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()
        if self._own and not self._aside and not len(self.records):
            self._leave_nothing()
        self._unlock()

    def has(self, unit: Unit) -> bool:
        """Whether a unit is done, and its files are there with their sizes."""
        return self.records.whole(unit)

    def facts(self, unit: Unit) -> Mapping[str, Any]:
        """The facts of a unit that is done.

        Raises
        ------
        KeyError
            If it is not.
        """
        facts = self.records.facts(unit)
        if facts is None:
            raise KeyError(unit)
        return facts

    def todo(
        self, units: Iterable[Unit], progress: Callable[[Unit], object] | None = None
    ) -> list[Unit]:
        """The units that are not done, in order; `progress` is told of the others.

        Records of the same units that were made from something else are forgotten here, on
        the disk, before any of their files is replaced: a run with the old config would
        otherwise take new files for its own.
        """
        missing = []
        for unit in units:
            if not self.has(unit):
                missing.append(unit)
            elif progress is not None:
                progress(unit)
        self.forget(missing)
        return missing

    def done(self, unit: Unit, files: Collection[File] = (), facts: Facts | None = None) -> None:
        """Note that a unit is done; all its files must be on the disk under their names.

        Raises
        ------
        StoreError
            If the disk is full. What was noted before stays.
        """
        line = Record(unit, tuple(files), facts or {}).line().encode()
        with self._writing:
            descriptor = self._file.fileno()
            offset = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                os.ftruncate(descriptor, offset)  # half a line would spoil the next one
                raise StoreError(_cannot_write(self.folder, error, len(line))) from error
            if not self._aside:
                self.records._note(unit, offset)
            if time.monotonic() - self._flushed > _FLUSH_EVERY:
                os.fsync(descriptor)
                self._flushed = time.monotonic()

    def forget(self, units: Iterable[Unit]) -> None:
        """Forget that units are done, whatever they were made from; their files stay."""
        gone = {(unit.stage, unit.index) for unit in units if self._knows(unit)}
        if not gone:
            return
        if self._aside:
            stage, index = min(gone, key=str)
            raise StoreError(
                f"{self.folder}: {stage} {index} was made from something else; "
                "run volprep units first, which makes room for it"
            )
        self._rewrite(r for r in self.records if (r.unit.stage, r.unit.index) not in gone)

    def settle(self) -> None:
        """Put the records of a folder that stays where it is into one order, once all is done.

        By stage and index, so that the ledger does not tell how often, in what order or by
        how many it was written.
        """
        self._rewrite(sorted(self.records, key=lambda r: (r.unit.stage, str(r.unit.index))))

    def publish(self, final: Path, units: Iterable[Unit], head: Mapping[str, Any]) -> None:
        """Give the folder its final name, with a manifest that covers every file in it.

        Parameters
        ----------
        final : Path
            A folder that is there is replaced, and removed at the very end.
        units : iterable of Unit
            All of them must be done. They stand in the ledger in this order, so that it does
            not tell how often or by how many it was written.
        head : mapping
            What else stands in the manifest; JSON values.

        Notes
        -----
        A process that is killed in here leaves either a folder that the same call finishes,
        or the final one with a temporary folder beside it that the next holder sweeps.
        """
        self._rewrite(self._wanted(units))
        self._remove_others()
        write_manifest(self.folder, head)
        final.parent.mkdir(parents=True, exist_ok=True)
        flush(self.folder)
        if final.exists():
            final.replace(temporary(final))
        self.folder.replace(final)
        flush(final.parent)
        self.folder = final
        self.records.path = final / LEDGER
        remove_left_over(final)

    def take_over(self, folder: Path, *, quick: bool = False) -> None:
        """Have what is done in a published folder done in this one, too, without a copy.

        Files are linked (copied where links cannot be made). A unit that is done here
        already, or whose files are damaged there, is left alone; `quick` compares sizes alone.
        """
        look = size_differs if quick else differs
        for record in Records(folder / LEDGER):
            if self._knows(record.unit):
                continue
            if any(look(folder / file.path, file) for file in record.files):
                continue
            for file in record.files:
                _link(folder / file.path, self.folder / file.path)
            self.done(record.unit, record.files, record.facts)

    def _leave_nothing(self) -> None:
        """Remove the folder with its file of no records, unless there is more in it: a full disk
        may have taken the first file and not its record, and the next run is to go on."""
        with contextlib.suppress(OSError):
            if any(path.name != LEDGER for path in self.folder.iterdir()):
                return
            (self.folder / LEDGER).unlink(missing_ok=True)
            self.folder.rmdir()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def _knows(self, unit: Unit) -> bool:
        return self.records.key(unit.stage, unit.index) is not None

    def _wanted(self, units: Iterable[Unit]) -> Iterator[Record]:
        for unit in units:
            record = self.records.find(unit.stage, unit.index)
            if record is None or record.unit != unit:
                raise ValueError(f"{unit} is not done")
            yield record

    def _rewrite(self, records: Iterable[Record]) -> None:
        path = self.folder / LEDGER
        try:
            with NewFile(path) as new:
                for record in records:
                    new.write(record.line().encode())
        except OSError as error:
            raise StoreError(_cannot_write(self.folder, error)) from error
        self._file.close()
        self._file = path.open("ab", buffering=0)
        self.records.clear()  # a million of them are not held twice
        self.records = Records(path)

    def _collect(self) -> None:
        """Bring the records that others left aside into the one file; drop its torn last line."""
        path = self.folder / LEDGER
        if path.exists():
            _drop_torn_line(path)
        for aside in sorted(self.folder.glob("ledger.*.jsonl")):
            with path.open("ab") as file:
                file.writelines(record.line().encode() for record in Records(aside))
                file.flush()
                os.fsync(file.fileno())
            aside.unlink()

    def _remove_others(self) -> None:
        """Remove every file that no unit claims, and the folders that are empty then."""
        kept = self.records.claimed | {LEDGER}
        for path in files_below(self.folder):
            if path.relative_to(self.folder).as_posix() not in kept:
                path.unlink()
        for parent, _, _ in os.walk(self.folder, topdown=False):
            if Path(parent) != self.folder and not os.listdir(parent):
                os.rmdir(parent)


def run(
    ledger: Ledger,
    make: Callable[..., Any],
    units: Iterable[Unit],
    *,
    workers: int | None = None,
    engine: Engine | None = None,
    progress: Callable[[Unit], object] | None = None,
    together: bool = False,
) -> None:
    """Make the units that are not done yet, and note each when it is.

    Parameters
    ----------
    ledger : Ledger
    make : callable
        Writes the files of a unit under their final names, and gives them with the unit's
        facts. Picklable where the engine's workers are other processes.
    units : iterable of Unit
    workers : int or None
        Threads; None takes every processor.
    engine : Engine or None
        What runs them, instead of threads.
    progress : callable or None
        Told of every unit that is done, those from before included.
    together : bool
        Whether `make` takes a sequence of units in order, which share what they read, and
        yields each with what was made of it. In this process it gets all of them and sees to
        its own threads; other processes get a few neighbours each.

    Raises
    ------
    Exception
        The first error of a unit, once those under way are noted. A full disk is a StoreError.
    """
    queue = deque(ledger.todo(units, progress))
    left = Counter(unit.stage for unit in queue)
    engine = engine or Engine(workers=workers)
    make = _There(make, ledger.folder)
    try:
        for unit, (files, facts) in _made(make, queue, engine, together=together):
            ledger.done(unit, files, facts)
            left[unit.stage] -= 1
            if progress is not None:
                progress(unit)
    except OSError as error:
        if error.errno in _FULL:
            wanted = _bytes_of(left, ledger.records)
            raise StoreError(_cannot_write(ledger.folder, error, wanted)) from error
        raise


def _bytes_of(left: Mapping[str, int], records: Records) -> int:
    """What units that are not done will take, if they are like those of their stage that are."""
    done, taken = Counter[str](), Counter[str]()
    for record in records:
        done[record.unit.stage] += 1
        taken[record.unit.stage] += sum(file.size for file in record.files)
    return sum(count * taken[stage] // max(1, done[stage]) for stage, count in left.items())


def _made(
    make: Callable[..., Any], queue: deque[Unit], engine: Engine, *, together: bool
) -> Iterator[tuple[Unit, Made]]:
    if not together:
        yield from engine.run(partial(_make, make), _taken(queue), count=len(queue))
    elif engine.kind in ("serial", "threads"):
        yield from make(list(queue)) if queue else ()
    else:
        workers = engine.workers or default_workers()
        few = max(1, min(_NEIGHBOURS, len(queue) // workers))
        runs = [list(islice(queue, n, n + few)) for n in range(0, len(queue), few)]
        for made in engine.run(partial(_make_all, make), runs, count=len(runs)):
            yield from made


@dataclass(frozen=True, slots=True)
class _There:
    """Makes units as long as the folder of their run is there.

    A worker of a cluster goes on for a while after the run that sent its units was killed;
    once another has published the folder, it must not make a new one of the old name.
    """

    make: Callable[..., Any]
    folder: Path

    def __call__(self, units: Any) -> Any:
        if not self.folder.is_dir():
            raise StoreError(f"{self.folder}: is gone; another run has finished it, or removed it")
        return self.make(units)


def _make(make: Callable[[Unit], Made], unit: Unit) -> tuple[Unit, Made]:
    return unit, make(unit)


def _make_all(
    make: Callable[[Sequence[Unit]], Iterator[tuple[Unit, Made]]], units: Sequence[Unit]
) -> list[tuple[Unit, Made]]:
    return list(make(units))


def _taken(queue: deque[Unit]) -> Iterator[Unit]:
    """The units of a queue, which forgets each as it goes: a million of them weigh something."""
    while queue:
        yield queue.popleft()


def verify(folder: Path, look: Look | None = None) -> Iterator[Damage]:
    """Compare every file of a published folder with what was written.

    Parameters
    ----------
    folder : Path
    look : callable or None
        Of the path of a file, what it was as it was written, and the record: what is found of
        it. None reads it whole, `size_differs` and `differs` are the parts.

    Yields
    ------
    Damage
        What is missing, changed, of another size, or not of the set.
    """
    records = Records(folder / LEDGER)
    claimed = records.claimed | {MANIFEST, LEDGER}
    strange = [
        path
        for path in files_below(folder, empty=True)
        if path.relative_to(folder).as_posix() not in claimed
    ]
    found = list(records.damage(look))
    unlike = ledger_damage(folder)
    if unlike is not None and unlike.path.name == MANIFEST and (records.damaged or not records):
        yield unlike
        unlike = Damage(folder / LEDGER, "changed")
    if unlike is not None and unlike.path.name == LEDGER:
        # Where the ledger speaks truly of all files, and other records than those the manifest
        # knows, either may have come from elsewhere. The same records were moved or doubled.
        sound = not (found or strange or records.damaged or unlike.found == "missing")
        if sound and load_manifest(folder)["ledger"].get("records") != _unordered(records):
            yield Damage(folder / MANIFEST, "changed")
        strange = []  # a ledger that is not the set's cannot tell what is not of the set
    yield from [unlike] if unlike else []
    yield from found
    yield from (Damage(path, "not of the set") for path in strange)


def write_manifest(folder: Path, head: Mapping[str, Any]) -> None:
    """Write the manifest of a folder: it covers the ledger, which covers the rest, and itself."""
    ledger = describe(folder / LEDGER, folder)
    entry = {
        "size": ledger.size, "sha256": ledger.checksum,
        "records": _unordered(Records(folder / LEDGER)),
    }  # fmt: skip
    write_text(folder / MANIFEST, _sealed({**head, "ledger": entry}))


def _unordered(records: Iterable[Record]) -> str:
    """A checksum of some records, whatever their order: the sum of those of their lines."""
    digests = (hashlib.sha256(record.line().encode()).digest() for record in records)
    return f"{sum(int.from_bytes(each, 'big') for each in digests) % 2**256:064x}"


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder, its own checksum compared.

    Raises
    ------
    StoreError
        If it is missing or damaged.
    """
    path = folder / MANIFEST
    content = load_json(path)
    if _sealed({k: v for k, v in content.items() if k != "sha256"}).encode() != path.read_bytes():
        raise StoreError(f"{path}: damaged (checksum); mend it with: volprep repair {folder}")
    return content


def _sealed(body: Mapping[str, Any]) -> str:
    """A mapping as JSON whose last entry is the checksum of all before it."""
    text = json.dumps(body, indent=2, allow_nan=False, ensure_ascii=False)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return (
        json.dumps({**body, "sha256": seal}, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    )


def ledger_damage(folder: Path) -> Damage | None:
    """What is wrong with the manifest, or with the ledger by the word of the manifest.

    Raises
    ------
    StoreError
        If the manifest cannot be read for a reason that is no damage.
    """
    path = folder / MANIFEST
    try:
        if path.is_file():  # a pipe would be waited for
            path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        entry = load_manifest(folder).get("ledger", {})
    except StoreError:
        return Damage(path, "changed" if path.exists() else "missing")
    if path.is_symlink():
        return Damage(path, "changed")
    wanted = File(LEDGER, entry.get("size", -1), entry.get("sha256", ""))
    found = differs(folder / LEDGER, wanted)
    return None if found is None else Damage(folder / LEDGER, found)


def size_differs(path: Path, file: File) -> Found | None:
    """Whether a file is missing or of another size than it was written."""
    try:
        state = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if not stat.S_ISREG(state.st_mode):
        return "changed"  # a folder, or a link
    if state.st_size != file.size:
        return "truncated" if state.st_size < file.size else "longer"
    return None


def differs(path: Path, file: File) -> Found | None:
    """How a file is not as it was written; None where it is."""
    found = size_differs(path, file)
    try:
        if found is None and describe(path, path.parent).checksum != file.checksum:
            found = "changed"
    except OSError as error:
        raise unreadable(path, error) from error
    return found


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(target)
    try:
        os.link(source, part)
    except OSError:
        shutil.copy2(source, part)
    part.replace(target)


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line without its end, which would join the next one."""
    with path.open("r+b") as file:
        end = keep = file.seek(0, os.SEEK_END)
        while keep:
            first = max(0, keep - 4096)
            file.seek(first)
            newline = file.read(keep - first).rfind(b"\n")
            keep = first + newline + 1 if newline >= 0 else first
            if newline >= 0:
                break
        if keep != end:
            file.truncate(keep)


def _locked(folder: Path, *, shared: bool) -> int | None:
    """A descriptor that holds the lock of a folder for as long as it is open."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        # Whoever held it before may have given the folder its final name meanwhile.
        if folder.exists() and os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    except BlockingIOError:
        pass
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _NO_FOLDER_LOCKS:
            raise
        log.warning("%s: folders cannot be locked here; run one command at a time", folder)
        return None
    os.close(descriptor)
    raise StoreError(
        f"{folder}: another process is writing there; wait for it, or choose another folder"
    )


def _cannot_write(folder: Path, error: OSError, wanted: int = 0) -> str:
    found = error.strerror or str(error)
    if error.errno in _FULL:
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free
            found += (
                f": about {wanted} bytes are needed, {free} are free"
                if wanted > free
                else f": more bytes are needed than the {free} that are free"
            )
    return (
        f"{folder}: cannot be written ({found}); what is done is kept: "
        "free some space, then run the same command again"
    )
