"""What readers of chunked formats ask of a place: read a file, list a folder.

A place is a path. What lies behind a URL or in a zip archive is asked of its store
(`volprep.objects`), all else of the disk, so that formats that go through these
functions are read from object stores as from a disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from volprep import objects
from volprep.errors import SourceError
from volprep.places import ARCHIVES, is_remote
from volprep.sources.base import stored_bytes

__all__ = ["Entry", "State", "entries", "is_stored", "read", "read_range", "state"]

Bytes = bytes | npt.NDArray[np.uint8]
_GONE = (FileNotFoundError, NotADirectoryError)
#: To open a pipe without waiting for who writes to it; Windows has no such pipes.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)


class Entry(NamedTuple):
    """What a folder holds."""

    name: str
    is_folder: bool


class State(NamedTuple):
    """By what a change is seen: the size, and when or as what it was written last."""

    size: int
    version: str


def is_stored(place: Path) -> bool:
    """Whether a place lies in a store: behind a URL, or in a zip archive."""
    if is_remote(place):
        return True
    return any(
        folder.suffix.lower() in ARCHIVES and folder.is_file() for folder in (place, *place.parents)
    )


def read(place: Path) -> bytes | None:
    """All bytes of a file; None where there is none."""
    if is_stored(place):
        return objects.read(place)
    try:
        with _opened(place) as stream:
            return stream.read()
    except (*_GONE, IsADirectoryError):
        return None


def _opened(file: Path) -> BinaryIO:
    """A file of a disk, open: a pipe in its place would be waited for without end."""
    stream = open(file, "rb", opener=lambda path, how: os.open(path, how | _AT_ONCE))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise SourceError(file, "is a pipe or a device and no file", "copy the data again")
    return stream


def read_range(file: Path, start: int = 0, size: int | None = None) -> Bytes | None:
    """Some bytes of a file on a disk, fewer at its end; None where there is no such file.

    Parameters
    ----------
    file : Path
    start : int
        Where they begin; negative from the end.
    size : int or None
        How many; None takes what is left.
    """
    try:
        with _opened(file) as stream:
            whole = os.fstat(stream.fileno()).st_size
            first = max(0, whole + start) if start < 0 else min(start, whole)
            left = whole - first
            return stored_bytes(stream.fileno(), left if size is None else min(size, left), first)
    except _GONE:
        return None


def entries(place: Path) -> Iterator[Entry]:
    """What a folder holds, in no order; nothing where there is no such folder.

    Raises
    ------
    SourceError
        If it lies in a store that does not list what it holds: a web server.
    """
    if is_stored(place):
        for name, is_folder in objects.entries(place):
            yield Entry(name, is_folder)
        return
    try:
        with os.scandir(place) as found:
            for entry in found:
                yield Entry(entry.name, entry.is_dir())
    except _GONE:
        return


def state(file: Path) -> State | None:
    """Size and version of a file on a disk; None where there is none."""
    try:
        found = file.stat()
    except _GONE:
        return None
    return State(found.st_size, str(found.st_mtime_ns))
