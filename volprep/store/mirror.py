"""Patch sets behind URLs: read through a mirror on this machine's disk.

Opening a set fetches its manifest, its ledger and everything small. Shards of patches and volumes
are fetched when they are first touched, each whole and compared with the ledger, and lie in
the mirror from then on, so that an epoch over a network costs what one over a disk does. Mirrors
that nobody opened for a month go when another one is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from volprep import objects
from volprep.compute import run_units
from volprep.errors import SourceError, StoreError
from volprep.files import REOPEN, File, cache_folder, write_bytes, write_json
from volprep.ledger import (
    LEDGER,
    MANIFEST,
    Damage,
    Found,
    Records,
    Unit,
    load_manifest,
    size_differs,
)
from volprep.places import is_remote, path_of

__all__ = [
    "bytes_of",
    "fetch",
    "fetched",
    "is_set",
    "ledger_entry",
    "local_folder",
    "mirrored",
    "remote_damage",
    "remote_names",
]

_SOURCE = "source.json"
#: Seconds after which a mirror that nobody opened is removed.
_KEPT_FOR = 30 * 24 * 3600
#: Requests at once: what waits for a network takes no processor.
AT_ONCE = 8


def local_folder(path: str | Path) -> Path:
    """The folder of a set on this machine's disk: `path` itself, or the mirror of a URL."""
    place = path_of(path)
    return mirrored(place) if is_remote(place) else place


def is_set(path: str | Path) -> bool:
    """Whether a finished set lies at a path or a URL."""
    place = path_of(path)
    if not is_remote(place):
        return (place / MANIFEST).is_file()
    with contextlib.suppress(StoreError):  # what is not there is refused, in some buckets
        return fetch(place / MANIFEST) is not None
    return False


def bytes_of(path: str | Path) -> int:
    """What the files of a set take, here or behind a URL; 0 of what is no set."""
    place = path_of(path)
    folder = mirrored(place) if is_remote(place) else place
    listed = (folder / LEDGER).is_file()
    return sum(file.size for file in _files(folder).values()) if listed else 0


def mirrored(url: Path) -> Path:
    """The folder that a set behind a URL is read through; made of what is needed to open it.

    A set that is made anew behind the URL gets a folder of its own, since the name follows
    from its manifest, too.

    Raises
    ------
    StoreError
        If there is no finished set, it is damaged, or cannot be reached.
    """
    manifest = fetch(url / MANIFEST)
    if manifest is None:
        raise StoreError(
            f"{url}: no finished patch set (manifest.json is missing); a set that is being copied "
            "there gets it last"
        )
    name = hashlib.sha256(str(url).encode() + b"\n" + manifest).hexdigest()[:24]
    folder = cache_folder() / "sets" / name / (url.name or "set")
    if (folder / MANIFEST).is_file():
        with contextlib.suppress(OSError):  # a cache that is read only is none that we clean
            os.utime(folder.parent / _SOURCE)
        return folder
    _forget_old(folder.parents[1])
    write_json(folder.parent / _SOURCE, {"url": str(url)})
    _fill(folder, url, manifest)
    write_bytes(folder / MANIFEST, manifest)  # last, since a folder that has it counts as whole
    return folder


def _forget_old(mirrors: Path) -> None:
    """Remove the mirrors that nobody opened for long; what is wanted again is fetched again."""
    for source in mirrors.glob(f"*/{_SOURCE}"):
        with contextlib.suppress(OSError):  # gone already, or not ours
            if time.time() - source.stat().st_mtime > _KEPT_FOR:
                shutil.rmtree(source.parent, ignore_errors=True)


def _fill(folder: Path, url: Path, manifest: bytes) -> None:
    """Fetch the ledger, and of the set what is small."""
    entry = ledger_entry(url, manifest)
    _get(url / LEDGER, folder / LEDGER, entry)
    small = [file for file in _files(folder).values() if not _is_shard(file.path)]
    list(
        run_units(
            lambda file: _get(url / file.path, folder / file.path, file), small, workers=AT_ONCE
        )
    )


def ledger_entry(url: Path, manifest: bytes) -> File:
    """What the manifest of a set says of its ledger; StoreError where that is none."""
    try:
        entry = json.loads(manifest)["ledger"]
        return File(LEDGER, int(entry["size"]), str(entry["sha256"]))
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError(f"{url / MANIFEST}: no manifest of a patch set ({error})") from error


def _is_shard(path: str) -> bool:
    """Whether a file holds voxels; tables of an index are small."""
    parts = path.split("/")
    return "c" in parts[2:] and not {"index", "units", "ids"} & set(parts)


def fetched(path: Path) -> Path:
    """A file of a set, fetched first where it belongs to a mirror and is not there whole.

    Raises
    ------
    StoreError
        If it cannot be fetched, or the set behind the URL is another by now.
    """
    mirrors = cache_folder() / "sets"
    if not str(path).startswith(f"{mirrors}{os.sep}"):  # asked for each shard of every set
        return path
    folder = mirrors.joinpath(*path.relative_to(mirrors).parts[:2])
    file = _files(folder).get(path.relative_to(folder).as_posix())
    if file is not None and size_differs(path, file) is not None:
        url = path_of(json.loads((folder.parent / _SOURCE).read_bytes())["url"])
        _get(url / file.path, path, file)
    return path


def fetch(place: Path) -> bytes | None:
    """An object; None where there is none.

    A process that was forked from one that has used the library of stores cannot use it (its
    threads did not come along): there a new process fetches it.

    Raises
    ------
    StoreError
        If it cannot be had.
    """
    try:
        return _fetch_apart(place) if objects.is_forked() else objects.read(place)
    except SourceError as error:
        raise StoreError(str(error)) from error


def _fetch_apart(place: Path) -> bytes | None:
    code = (
        "import sys; from volprep.objects import read; from volprep.places import path_of\n"
        "found = read(path_of(sys.argv[1]))\n"
        "sys.stdout.buffer.write(b'-' if found is None else b'+' + found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(place)], capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise StoreError(f"{place}: cannot be fetched ({said[-1] if said else done.returncode})")
    return None if done.stdout[:1] == b"-" else done.stdout[1:]


def _get(place: Path, path: Path, file: File) -> None:
    """Fetch an object to a path, if it is what was written."""
    data = fetch(place)
    found = _differs(data, file)
    if data is None or found is not None:
        raise StoreError(f"{place}: {found}; {REOPEN}, else look at it with: volprep verify URL")
    write_bytes(path, data)


def _differs(data: bytes | None, file: File) -> Found | None:
    if data is None:
        return "missing"
    if len(data) != file.size:
        return "truncated" if len(data) < file.size else "longer"
    return None if hashlib.sha256(data).hexdigest() == file.checksum else "changed"


def _size_differs(place: Path, file: File) -> Found | None:
    """Whether an object is missing or of another size; two of its bytes are asked for."""
    try:
        if objects.read(place, file.size - 1, file.size) is None:
            return "missing" if objects.read(place, 0, 1) is None else "truncated"
        return None if objects.read(place, file.size, file.size + 1) is None else "longer"
    except SourceError as error:
        raise StoreError(str(error)) from error


def _files(folder: Path) -> dict[str, File]:
    """The files of a set, by their names."""
    path = folder / LEDGER
    return _listed_files(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _listed_files(path: Path, _mtime: int) -> dict[str, File]:
    return {file.path: file for record in Records(path) for file in record.files}


def remote_names(url: Path) -> list[str] | None:
    """The names of all objects below a URL; None where the store does not list them."""
    try:
        return objects.listed(url)
    except SourceError as error:
        if objects.lists_nothing(error):
            return None
        raise StoreError(str(error)) from error


def remote_damage(
    url: Path, *, quick: bool = False, progress: Callable[[int], object] | None = None
) -> Iterator[Damage]:
    """Compare every object of a published set with what was written.

    Parameters
    ----------
    url : Path
    quick : bool
        Of patches and volumes compare sizes alone.
    progress : callable or None
        Told of the bytes of each object that has been looked at.

    Yields
    ------
    Damage
        Of each that is missing, changed, of another size, or not of the set.

    Raises
    ------
    StoreError
        If there is no finished set, or it cannot be reached.
    """
    manifest = fetch(url / MANIFEST)
    if manifest is None:
        raise StoreError(f"{url}: no finished patch set (manifest.json is missing)")
    with tempfile.TemporaryDirectory(prefix="volprep-verify-") as scratch:
        yield from _damage(url, Path(scratch), manifest, quick=quick, progress=progress)


def _damage(
    url: Path,
    scratch: Path,
    manifest: bytes,
    *,
    quick: bool,
    progress: Callable[[int], object] | None,
) -> Iterator[Damage]:
    write_bytes(scratch / MANIFEST, manifest)
    try:
        load_manifest(scratch)
    except StoreError:
        yield Damage(url / MANIFEST, "changed")
        return
    ledger = fetch(url / LEDGER)
    found = _differs(ledger, ledger_entry(url, manifest))
    if ledger is None or found is not None:
        yield Damage(url / LEDGER, found or "missing")
        return
    write_bytes(scratch / LEDGER, ledger)
    claimed = {MANIFEST, LEDGER}
    names = remote_names(url)
    there = None if names is None else set(names)

    def look(item: tuple[Unit, File]) -> tuple[Unit, File, Found | None]:
        unit, file = item
        if quick and _is_shard(file.path):
            found: Found | None = _size_differs(url / file.path, file)
        else:
            found = _differs(fetch(url / file.path), file)
        if progress is not None:
            progress(file.size)
        return unit, file, found

    every = [(record.unit, file) for record in Records(scratch / LEDGER) for file in record.files]
    claimed |= {file.path for _, file in every}
    for unit, file, differs in run_units(look, every, workers=AT_ONCE):
        if differs is not None:
            yield Damage(url / file.path, differs, unit)
    for name in sorted((there or claimed) - claimed):
        yield Damage(url / name, "not of the set")
