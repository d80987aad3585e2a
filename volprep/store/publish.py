"""A finished set copied to a store: file by file, its manifest last."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from volprep import objects
from volprep.errors import SourceError, StoreError
from volprep.files import File, remove, temporary, temporary_of
from volprep.ledger import LEDGER, MANIFEST, Ledger, Made, Record, Records, Unit, key_of, run
from volprep.places import is_in_bucket
from volprep.store.mirror import AT_ONCE, fetch, ledger_entry, remote_names

__all__ = ["Published", "check_url", "publish"]


@dataclass(frozen=True, slots=True)
class Published:
    """What was done: files that were copied, that were there already, and that were removed."""

    copied: int
    kept: int
    removed: int


def check_url(url: Path) -> None:
    """Ask a store for what lies at a URL, so that a wrong one is told before anything is made.

    Raises
    ------
    StoreError
        If it cannot be written to, or cannot be reached.
    """
    if not is_in_bucket(url):
        raise StoreError(f"{url}: sets are written to s3://BUCKET/NAME or gs://BUCKET/NAME")
    if fetch(url / MANIFEST) is None:
        probe = temporary(url / MANIFEST)  # to a store a bucket that is not there is an empty one
        _asked(objects.write, probe, b"")
        _asked(objects.remove, probe)


def publish(
    folder: Path,
    url: Path,
    *,
    overwrite: bool = False,
    again: bool = False,
    costly: Collection[str] = (),
    progress: Callable[[int], object] | None = None,
) -> Published | None:
    """Copy a finished set to a store.

    Parameters
    ----------
    folder : Path
        The set.
    url : Path
        ``s3://`` or ``gs://``.
    overwrite : bool
        Whether a set there may be replaced whose work is not that of this one, and whether what
        is no whole set may be written over.
    again : bool
        Compare every object that is there already by its content.
    costly : collection of str
        Stages whose work nobody wants to lose.
    progress : callable or None
        Told of the bytes of each file that is there.

    Returns
    -------
    Published or None
        None where exactly this set is there already.

    Raises
    ------
    StoreError
        If there is something else, or the store fails; a second call goes on from there.

    Notes
    -----
    Every object is read back and compared. While a set is replaced its manifest is gone, and the
    new one is written last, so that what is not whole never looks like a set. What was copied is
    noted beside the set (``FOLDER.upload``) until all of it is.
    """
    manifest = (folder / MANIFEST).read_bytes()
    files = [file for record in Records(folder / LEDGER) for file in record.files]
    there = fetch(url / MANIFEST)
    journal = folder.with_name(folder.name + ".upload")
    if there == manifest and not again:
        remove(journal)
        return None
    with Ledger(journal) as ledger:
        if there is not None:  # whole, so that none of it is from a copying of ours that broke off
            ledger.forget(ledger.records.units("upload"))
        old = _old_records(url, there, ledger)
        if not overwrite:
            _refuse(folder, url, there, old, costly=costly, begun=bool(len(ledger.records)))
        units = {file.path: _unit(url, file) for file in files}
        known = {file.path: file for record in old for file in record.files}
        for file in files:
            if known.get(file.path) == file and not ledger.has(units[file.path]) and not again:
                ledger.done(units[file.path])
        if there is not None and there != manifest:
            _asked(objects.remove, url / MANIFEST)
        kept = sum(map(ledger.has, units.values()))
        sizes = {file.path: file.size for file in files}
        made = partial(_copy, folder=folder, url=url, files={f.path: f for f in files})
        run(
            ledger, made, units.values(), workers=AT_ONCE,
            progress=lambda unit: progress and progress(sizes[str(unit.index)]),
        )  # fmt: skip
        present = set(remote_names(url) or ())
        ledger.forget(unit for name, unit in units.items() if name not in present)
        run(ledger, made, units.values(), workers=AT_ONCE)
        gone = sorted(known.keys() - units.keys())
        for name in gone:
            _asked(objects.remove, url / name)
        for name in (LEDGER, MANIFEST):
            _put(url / name, (folder / name).read_bytes())
    remove(journal)
    return Published(len(files) - kept, kept, len(gone))


def _unit(url: Path, file: File) -> Unit:
    return Unit("upload", file.path, key_of(str(url), file.size, file.checksum))


def _old_records(url: Path, manifest: bytes | None, ledger: Ledger) -> list[Record]:
    """What the set that lies there is made of, or did before it began to be replaced."""
    noted = ledger.records.find("replaced", str(url))
    if manifest is None and noted is None:
        return []
    data = fetch(url / LEDGER)
    if data is None:
        return []
    digest = hashlib.sha256(data).hexdigest()
    if manifest is not None:
        try:
            whole = ledger_entry(url, manifest).checksum == digest
        except StoreError:
            whole = False
        if not whole:
            return []  # damaged: nothing that it says is believed
        ledger.done(Unit("replaced", str(url), digest))
    elif noted is None or noted.unit.key != digest:
        return []
    lines = map(Record.parse, data.splitlines(keepends=True))
    return [record for record in lines if record is not None]


def _refuse(
    folder: Path,
    url: Path,
    there: bytes | None,
    old: Collection[Record],
    *,
    costly: Collection[str],
    begun: bool,
) -> None:
    """Keep what is there from being lost without being asked."""
    if there is None:
        every = [] if begun else remote_names(url) or []
        names = [name for name in every if temporary_of(name) is None]
        if names:
            raise StoreError(
                f"{url}: holds {len(names)} objects and is no finished set ({names[0]}); add "
                "--overwrite to write over them, or choose another output.url"
            )
        return
    own = Records(folder / LEDGER)
    lost = Counter(r.unit.stage for r in old if r.unit.stage in costly and not own.has(r.unit))
    if not old:
        raise StoreError(f"{url}: holds a set that is damaged; add --overwrite to replace it")
    if lost:
        what = ", ".join(f"{stage}: {count}" for stage, count in lost.items())
        raise StoreError(
            f"{url}: holds a patch set of another config or of other files ({what} of its units "
            "are not those of this one); add --overwrite to replace it, or choose another "
            "output.url"
        )


def _copy(unit: Unit, *, folder: Path, url: Path, files: Mapping[str, File]) -> Made:
    file = files[str(unit.index)]
    place, data = url / file.path, (folder / file.path).read_bytes()
    if hashlib.sha256(data).hexdigest() != file.checksum:
        raise StoreError(f"{folder / file.path}: damaged; mend it with: volprep repair {folder}")
    if fetch(place) != data:
        _put(place, data)
    return (), {}


def _put(place: Path, data: bytes) -> None:
    """Write an object, and read it back."""
    _asked(objects.write, place, data)
    if fetch(place) != data:
        raise StoreError(f"{place}: the store gives back something else than was written")


def _asked(ask: Callable[..., None], *arguments: Any) -> None:
    try:
        ask(*arguments)
    except SourceError as error:
        raise StoreError(
            f"{arguments[0]}: cannot be written ({error.found}); what is done is kept: run the "
            "same command again"
        ) from error
