"""A whole patch set: built under another name, published at once, opened only when whole."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from volprep.errors import StoreError
from volprep.files import load_json, write_json
from volprep.store.files import describe_file
from volprep.store.reader import PatchReader
from volprep.store.shards import FORMAT

__all__ = ["PatchStore", "WorkingFolder", "publish"]

log = logging.getLogger(__name__)


class PatchStore:
    """A finished patch set.

    Parameters
    ----------
    path : path-like
        The folder that `volprep prepare` wrote.

    Attributes
    ----------
    manifest : dict
        Inputs with sizes and hashes, versions, the config's hash, counts, and
        under ``training`` what `train.yaml` holds.

    Raises
    ------
    StoreError
        If nothing is there, or the set is incomplete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").exists():
            raise StoreError(f"{self.path}: {_what_is_there(self.path)}")
        self.manifest: dict[str, Any] = load_json(self.path / "manifest.json")
        if self.manifest.get("format") != FORMAT:
            raise StoreError(
                f"{self.path}: written as {self.manifest.get('format')!r}, this volprep reads "
                f"{FORMAT!r}; prepare it again with --overwrite"
            )

    def damaged(self) -> Iterator[str]:
        """Read every patch and every file beside them, and name what is not as it was written."""
        for name, digest in self.manifest["written"].items():
            path = self.path / name
            if not path.exists():
                yield f"{path}: missing"
            elif describe_file(path)["sha256"] != digest:
                yield f"{path}: changed since the set was prepared"
        for split in self.manifest["training"]["patches"]:
            try:
                yield from _damaged(self.split(split))
            except StoreError as error:
                yield str(error)

    def split(self, name: str) -> PatchReader:
        """The patches of ``train`` or ``val``.

        Raises
        ------
        StoreError
            If the set has no such split.
        """
        path = self.path / "patches" / f"{name}.zarr"
        if not (path / "zarr.json").exists():
            raise StoreError(f"{self.path}: no split {name!r}; there are train and val")
        return PatchReader(path)


def _damaged(reader: PatchReader) -> Iterator[str]:
    for name in reader.names:
        for number in range(len(reader)):
            try:
                reader.read(name, number)
            except StoreError as error:
                yield f"{name}[{number}]: {error}"


class WorkingFolder:
    """``OUT.partial``, where a set is built, held by one process at a time.

    Parameters
    ----------
    final : Path
        The folder that the set will have.
    key : str
        The hash of everything that it is made from. What an interrupted run of the
        same key left is taken over; anything else of volprep's is made anew.

    Raises
    ------
    StoreError
        If another process builds there, something else lies there, or it cannot be
        written.

    Notes
    -----
    The lock is the system's: it ends with the process, however that ends.
    """

    def __init__(self, final: Path, key: str) -> None:
        self.path = final.with_name(final.name + ".partial")
        self._lock = final.with_name(final.name + ".lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._lock.open("w")
            self._hold()
            self._claim(key)
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be written ({error.strerror or error}); "
                "choose another output.dir"
            ) from error

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self._lock.unlink(missing_ok=True)
        self._file.close()

    def _hold(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: an open file there cannot be removed, which is a lock
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.fstat(self._file.fileno()).st_ino == self._lock.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:
            self._file.close()
            raise StoreError(
                f"{self.path}: another prepare is building this set; wait for it, "
                "or choose another output.dir"
            )

    def _claim(self, key: str) -> None:
        state = self.path / "state.json"
        if self.path.exists():
            if not state.exists() and any(self.path.iterdir()):
                raise StoreError(f"{self.path}: is in the way and not volprep's; move it away")
            if state.exists() and load_json(state).get("key") == key:
                log.info("going on in %s", self.path)
                return
            shutil.rmtree(self.path)
        self.path.mkdir()
        write_json(state, {"key": key})


def publish(partial: Path, final: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, and give the finished set its name; an older set there goes."""
    write_json(partial / "manifest.json", {"format": FORMAT, **manifest})
    (partial / "state.json").unlink(missing_ok=True)
    if final.exists():
        old = final.with_name(f"{final.name}.old.{os.getpid()}")
        final.replace(old)
        partial.replace(final)
        shutil.rmtree(old)
    else:
        final.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(final)


def _what_is_there(path: Path) -> str:
    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        return "the patch set is incomplete; run volprep prepare again to finish it"
    if not path.exists():
        return "no such folder; make a patch set with: volprep prepare CONFIG"
    return "no volprep patch set (manifest.json is missing); make one with: volprep prepare CONFIG"
