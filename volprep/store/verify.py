"""Whether a patch set is as it was written: every file, and what it means where one is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volprep.errors import StoreError
from volprep.files import File
from volprep.ledger import (
    LEDGER,
    MANIFEST,
    Damage,
    Found,
    Record,
    Unit,
    differs,
    size_differs,
    verify,
)
from volprep.places import is_remote, path_of
from volprep.store.mirror import remote_damage
from volprep.store.reader import PatchReader

__all__ = ["Fault", "verify_set"]

_TABLES = ("index", "units")
_BESIDE = {
    "config.resolved.yaml": "the config that made the set; repair needs it whole or given anew",
    "fingerprint.json": "what was measured; nothing reads it for training",
    "plan.yaml": "the plan and its reasons; nothing reads it for training",
    "splits.json": "which cases are for validation; nothing reads it for training",
    "findings.json": "what was found in the data; nothing reads it for training",
    "report.html": "the page to look at; nothing reads it for training",
    "train.yaml": "what other trainers read; volprep's own loader does not",
    MANIFEST: "what the loader reads first: normalisation, sizes, cases",
    LEDGER: "what the other files are compared with; those whose entry is lost cannot be",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One file of a set that is not as it was written.

    Attributes
    ----------
    path : Path
    found : {'missing', 'truncated', 'longer', 'changed', 'not of the set'}
    meaning : str
        What depends on the file.
    unit : Unit or None
        What `repair` makes again.
    """

    path: Path
    found: Found
    meaning: str
    unit: Unit | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.found}: {self.meaning}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        unit = None if self.unit is None else [self.unit.stage, self.unit.index]
        return {
            "path": str(self.path), "found": self.found, "meaning": self.meaning, "unit": unit,
        }  # fmt: skip


def verify_set(
    folder: str | Path, *, quick: bool = False, progress: Callable[[int], object] | None = None
) -> Iterator[Fault]:
    """Compare every file of a patch set with what was written.

    Parameters
    ----------
    folder : path-like
        Or a URL, of which every object is read (nothing of a mirror).
    quick : bool
        Of patches and volumes compare sizes, headers and indexes, not every voxel; all
        metadata are read in any case.
    progress : callable or None
        Told of the bytes of each file that has been looked at.

    Yields
    ------
    Fault
        Of each file that is missing, changed, of another size, or not of the set.

    Raises
    ------
    StoreError
        If there is no patch set, or a file cannot be read for a reason that is no damage.
    """
    folder = path_of(folder)
    if is_remote(folder):
        for damage in remote_damage(folder, quick=quick, progress=progress):
            yield Fault(
                damage.path, damage.found, _meaning(folder, damage, _Splits(folder)), damage.unit
            )
        return
    if not (folder / LEDGER).exists() and not (folder / MANIFEST).exists():
        raise StoreError(f"{folder}: no patch set; make one with: volprep prepare CONFIG")
    splits = _Splits(folder)

    def look(path: Path, file: File, record: Record) -> Found | None:
        found = size_differs(path, file)
        if found is None and not quick:
            found = differs(path, file)
        elif found is None:
            found = _glance(path, file, record, splits)
        if progress is not None:
            progress(file.size)
        return found

    for damage in verify(folder, look):
        yield Fault(damage.path, damage.found, _meaning(folder, damage, splits), damage.unit)


def _glance(path: Path, file: File, record: Record, splits: _Splits) -> Found | None:
    """A file by its metadata: whole where it is small, by header and index where it is a shard."""
    place = _place(file.path)
    if place is not None:
        if place.array in _TABLES or place.shard is None:
            return differs(path, file)
        return splits.shard(place)
    return None if record.unit.stage == "volumes" and "/c/" in file.path else (differs(path, file))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the patches a file lies: ``patches/SPLIT.zarr/ARRAY/c/SHARD/...``."""

    split: str
    array: str
    shard: int | None


def _place(path: str) -> _Place | None:
    parts = path.split("/")
    if parts[0] != "patches" or len(parts) < 3:
        return None
    shard = int(parts[4]) if len(parts) > 4 and parts[3] == "c" and parts[4].isdigit() else None
    return _Place(parts[1].removesuffix(".zarr"), parts[2] if len(parts) > 3 else "", shard)


class _Splits:
    """The readers of a set's splits, as far as they can be opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readers: dict[str, PatchReader | None] = {}

    def reader(self, split: str) -> PatchReader | None:
        """None where the metadata or the index are damaged, which is told of their files."""
        if split not in self._readers:
            try:
                self._readers[split] = PatchReader(self._folder / "patches" / f"{split}.zarr")
            except StoreError:
                self._readers[split] = None
        return self._readers[split]

    def shard(self, place: _Place) -> Found | None:
        """What a shard's header and index say of it."""
        reader = self.reader(place.split)
        if reader is None or place.array not in reader.names or place.shard is None:
            return None
        return None if reader.holds(place.array, place.shard) else "changed"


def _meaning(folder: Path, damage: Damage, splits: _Splits) -> str:
    name = damage.path.relative_to(folder).as_posix()
    if damage.found == "not of the set":
        return "volprep did not write it; move it away"
    place = _place(name)
    if place is not None:
        return _of_patches(place, damage, splits)
    if name.startswith("skeletons/"):
        return f"the skeletons of {damage.path.stem}, which augmentation moves"
    if name.startswith("volumes/"):
        case = "" if damage.unit is None else f" of {damage.unit.index}"
        return f"the preprocessed volume{case}, which patches are cut from"
    if name.startswith("sites/"):
        return "where the patches are cut; the patches themselves do not need it"
    return _BESIDE.get(name, "written by volprep")


def _of_patches(place: _Place, damage: Damage, splits: _Splits) -> str:
    if place.array == "index":
        return f"which case and place each patch of {place.split} is of"
    if place.array == "units":
        return f"by what the shards of {place.split} are known; none of them can be read"
    if place.shard is None:
        what = f"the {place.array} of " if place.array else ""
        return f"shape, dtype and compression of {what}{place.split}; none of it can be read"
    reader = splits.reader(place.split)
    if reader is None or place.array not in reader.names:
        return f"patches of {place.split} ({place.array}), shard {place.shard}"
    numbers = reader.patches_of(place.array, place.shard)
    # Of a shard that is no file any more, no patch is left.
    damaged = reader.damaged_patches(place.array, place.shard) if damage.path.is_file() else ()
    if not damaged or len(damaged) == len(numbers) or len(damaged) > 9:
        which = f"patches {numbers.start} to {numbers.stop - 1}"
    else:
        which = f"patch{'es' if len(damaged) > 1 else ''} {', '.join(map(str, damaged))}"
    return f"{which} of {place.split} ({place.array})"
