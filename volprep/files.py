"""Files that appear whole or not at all, under one scheme of temporary names.

Whatever is being written lies beside its final name as ``.NAME.XXXXXXXX.volprep`` until it is
whole. Nothing else has such a name, so what a killed process leaves is known by it, and the
next holder of the folder's lock (`volprep.ledger`) removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from volprep.errors import StoreError

__all__ = [
    "NOT_THERE",
    "REOPEN",
    "REPAIR",
    "File",
    "NewFile",
    "allocate",
    "cache_folder",
    "describe",
    "files_below",
    "flush",
    "format_bytes",
    "format_memory",
    "load_json",
    "neighbour",
    "remove",
    "replace_folder",
    "require_room",
    "sweep",
    "temporary",
    "temporary_of",
    "unreadable",
    "write_bytes",
    "write_json",
    "write_text",
]

_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{8}\.volprep", re.DOTALL)
_PIECE = 1 << 22
#: No file is there.
NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
#: What helps against damage.
REPAIR = "find out more with: volprep verify OUT; mend it with: volprep repair OUT"
#: What is to be done where another set has taken the place of one that is open.
REOPEN = "if the set was made anew meanwhile, open it again"
_LIMITS = {
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free some memory",
    errno.ENOSPC: "free some space",
}


class File(NamedTuple):
    """A file as it was written.

    Attributes
    ----------
    path : str
        Relative to the folder of the ledger, with ``/``.
    size : int
        In bytes.
    checksum : str
        SHA-256 in hexadecimal. A CRC-32C would not do for Zarr: each chunk ends in its own,
        so that the CRC-32C of a whole shard depends on the sizes of its chunks alone.
    """

    path: str
    size: int
    checksum: str


def cache_folder() -> Path:
    """Where this user's programs keep what they can get again: ``~/.cache/volprep``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volprep"


def neighbour(path: Path, ending: str) -> Path:
    """``OUT.partial`` beside ``OUT``; beside ``.`` and ``..``, too, by what they stand for."""
    named = path if path.name not in ("", "..") else path.resolve()
    return named.parent / f"{named.name}{ending}"


def format_bytes(count: float) -> str:
    """A size for people: ``7.21 GiB``, ``310 MiB``."""
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            number = count / size
            return f"{number:.3g} {unit}" if number < 999.5 else f"{number:.0f} {unit}"
    return f"{count:.0f} B"


def format_memory(count: int) -> str:
    """A size that was given, in the unit in which it was: ``24 GiB``, ``24 GB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count and count % size == 0 and count % 2**20:
            return f"{count // size:,} {unit}"
    return format_bytes(count)


def temporary(path: Path) -> Path:
    """A name beside `path` for what will be renamed to it; no two calls give the same."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.volprep")


def temporary_of(name: str) -> str | None:
    """The name that a temporary one stands for; None where it is no temporary one."""
    match = _TEMPORARY.fullmatch(name)
    return None if match is None else match[1]


def sweep(folder: Path, *, deep: bool = True) -> None:
    """Remove what killed processes left unfinished in a folder.

    Parameters
    ----------
    folder : Path
        Nobody else may be writing in it.
    deep : bool
        Whether to look into its folders, too.
    """
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if temporary_of(entry.name) is not None:
                remove(Path(entry.path))
            elif deep and entry.is_dir(follow_symlinks=False):
                sweep(Path(entry.path))


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing where nothing is there."""
    while path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # another process removes it, too
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def replace_folder(new: Path, path: Path) -> None:
    """Give a folder its name; an older one goes, even where others do the same at once."""
    while True:
        old = temporary(path)
        with contextlib.suppress(FileNotFoundError):
            path.replace(old)
        try:
            new.replace(path)
            break
        except OSError as error:  # another process was faster, and its name is taken again
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            remove(old)


def flush(folder: Path) -> None:
    """Bring the names of a folder to the disk, where the system knows how."""
    with contextlib.suppress(OSError):  # folders cannot be opened everywhere
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _require_no_other_kind(path: Path) -> None:
    """A StoreError where a file would take the place of a folder, a device or a pipe.

    A rename replaces devices without a word: a root who writes to ``/dev/null`` would have
    a file in its place.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # nothing is there, or what is wrong is told when it is opened
        return
    if stat.S_ISDIR(mode):
        raise StoreError(f"{path}: a folder, where a file is to be written; give a name in it")
    if not stat.S_ISREG(mode):
        what = "pipe" if stat.S_ISFIFO(mode) else "device"
        raise StoreError(f"{path}: a {what}, and no file; give another name")


class NewFile:
    """A file that appears under its name when the ``with`` ends well, and leaves nothing else.

    Parameters
    ----------
    path : Path
        Folders are made. An older file of the name is replaced, never written into: it may be
        the same file as that of another set (a hard link).

    Attributes
    ----------
    file : binary file
        What `write` writes to; whoever writes to it directly must not ask for `described`.
    size : int
        Bytes written so far.
    """

    def __init__(self, path: Path) -> None:
        _require_no_other_kind(path)
        self.path, self.size = path, 0
        self.partial = temporary(path)
        self._digest = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.file: IO[bytes] = self.partial.open("wb")
        except OSError as error:
            error.filename = str(path)
            raise

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        self.file.write(data)
        self._digest.update(data)
        self.size += memoryview(data).nbytes

    def described(self, folder: Path) -> File:
        """The file by its path in `folder`, with its size and checksum."""
        return File(self.path.relative_to(folder).as_posix(), self.size, self._digest.hexdigest())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                self.partial.replace(self.path)
        except OSError as failed:
            error = failed
            raise
        finally:
            own = (None, str(self.partial))
            if isinstance(error, OSError) and error.errno and error.filename in own:
                error.filename = str(self.path)  # a full disk names none
            with contextlib.suppress(OSError):  # a full disk, which the first error has told
                self.file.close()
            self.partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with NewFile(path) as new:
        new.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all; numbers stay exact, NaN is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def load_json(path: Path) -> dict[str, Any]:
    """A JSON mapping that volprep wrote; StoreError where it is missing or damaged."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise StoreError(f"{path}: damaged (no file); {REPAIR}")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged ({error}); {REPAIR}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: damaged (no mapping); {REPAIR}")
    return content


def unreadable(path: Path, error: OSError) -> StoreError:
    """What it means that a file of a set cannot be read: a limit of the machine is no damage."""
    if isinstance(error, NOT_THERE):
        return StoreError(f"{path}: missing; {REPAIR}")
    what = error.strerror or str(error)
    todo = _LIMITS.get(error.errno or 0, "look at its rights, the disk and the network")
    return StoreError(f"{path}: cannot be read ({what}); {todo}")


def describe(path: Path, folder: Path) -> File:
    """A file of a folder as it is on the disk, with its size and checksum."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return File(path.relative_to(folder).as_posix(), size, digest.hexdigest())


def files_below(folder: Path, *, empty: bool = False) -> Iterator[Path]:
    """Every file below a folder, links that lead nowhere included, in order of their paths.

    With `empty` also every folder that nothing is in.
    """
    entries = sorted(os.scandir(folder), key=lambda found: found.name)
    if empty and not entries:
        yield folder
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path), empty=empty)
        else:
            yield Path(entry.path)


def require_room(path: Path, size: int) -> None:
    """An OSError where so many bytes more do not fit on the disk of a file."""
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def allocate(path: Path) -> None:
    """Take the space of all of a sparse file from the disk.

    A file that is mapped into memory with holes in it ends the process (SIGBUS) when the disk
    is full at the moment of writing; this is an OSError while it can still be told.
    """
    size = path.stat().st_size
    if not hasattr(os, "posix_fallocate"):  # macOS and Windows do not leave holes to be mapped
        require_room(path, size)
        return
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
