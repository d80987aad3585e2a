"""A place that data are read from: a path, or a URL that fsspec knows.

What readers of chunked formats ask of a place stands here: read all of it, read a range, list
it, and say what state it is in. Formats that go through these functions read from object
stores as they read from a disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volprep.errors import MissingDependencyError
from volprep.sources.base import stored_bytes

__all__ = ["Entry", "Place", "RemotePlace", "State", "entries", "place_of", "read", "read_range",
           "state"]  # fmt: skip

Bytes = bytes | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RemotePlace:
    """A file or folder behind a URL, with as much of a path's manners as readers need."""

    url: str

    def __truediv__(self, name: str | PurePosixPath) -> RemotePlace:
        """What lies below."""
        text = str(name).strip("/")
        return RemotePlace(f"{self.url.rstrip('/')}/{text}") if text not in ("", ".") else self

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def parents(self) -> tuple[RemotePlace, ...]:
        """The folders above, the nearest first."""
        protocol, _, rest = self.url.rstrip("/").partition("://")
        parts = rest.split("/")
        above = ["/".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
        return tuple(RemotePlace(f"{protocol}://{text}") for text in above)

    def relative_to(self, other: RemotePlace) -> PurePosixPath:
        """The way from a folder above."""
        return PurePosixPath(self.url.removeprefix(f"{other.url.rstrip('/')}/"))

    def resolve(self) -> RemotePlace:
        """Itself: object stores have no links."""
        return self

    @cached_property
    def store(self) -> Any:
        """The file system of fsspec."""
        try:
            import fsspec
        except ImportError as error:
            raise MissingDependencyError("fsspec", "remote") from error
        return fsspec.core.url_to_fs(self.url)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}


Place = Path | RemotePlace


class Entry(NamedTuple):
    """What a folder holds."""

    name: str
    is_folder: bool


class State(NamedTuple):
    """By what a change is seen: the size, and when or as what it was written last."""

    size: int
    version: str


def place_of(text: str | Path) -> Place:
    """The place that a path or URL means."""
    return RemotePlace(str(text)) if "://" in str(text) else Path(text)


def read(place: Place) -> bytes | None:
    """All bytes of a file; None where there is none."""
    try:
        if isinstance(place, Path):
            return place.read_bytes()
        data: bytes = place.store.cat_file(place.url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data


def read_range(place: Place, start: int = 0, size: int | None = None) -> Bytes | None:
    """Some bytes of a file, fewer at its end; None where there is no such file.

    Parameters
    ----------
    place : Path or RemotePlace
        The file.
    start : int
        Where they begin; negative from the end.
    size : int or None
        How many; None takes what is left.
    """
    try:
        if isinstance(place, Path):
            with place.open("rb") as file:
                whole = os.fstat(file.fileno()).st_size
                first = max(0, whole + start) if start < 0 else min(start, whole)
                left = whole - first
                return stored_bytes(file.fileno(), left if size is None else min(size, left), first)
        end = None if size is None or (start < 0 and start + size >= 0) else start + size
        data: bytes = place.store.cat_file(place.url, start=start, end=end)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data


def entries(place: Place) -> Iterator[Entry]:
    """What a folder holds, in no order; nothing where there is no such folder."""
    try:
        if isinstance(place, Path):
            with os.scandir(place) as found:
                for entry in found:
                    yield Entry(entry.name, entry.is_dir())
            return
        for told in place.store.ls(place.url, detail=True):
            name = told["name"].rstrip("/").rpartition("/")[2]
            yield Entry(name, told["type"] == "directory")
    except (FileNotFoundError, NotADirectoryError):
        return


def state(place: Place) -> State | None:
    """Size and version of a file; None where there is none."""
    try:
        if isinstance(place, Path):
            found = place.stat()
            return State(found.st_size, str(found.st_mtime_ns))
        told = place.store.info(place.url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    version = next((told[k] for k in ("ETag", "etag", "mtime", "LastModified", "created")
                    if k in told), "")  # fmt: skip
    return State(int(told.get("size") or 0), str(version))
