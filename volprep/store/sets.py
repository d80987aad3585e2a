"""A whole patch set: opened only when it is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volprep.errors import StoreError
from volprep.files import REPAIR, File
from volprep.ledger import differs, load_manifest
from volprep.store.reader import PatchReader
from volprep.store.shards import FORMAT

__all__ = ["PatchStore"]


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
        self.manifest: dict[str, Any] = load_manifest(self.path)
        if self.manifest.get("format") != FORMAT:
            raise StoreError(
                f"{self.path}: written as {self.manifest.get('format')!r}, this volprep reads "
                f"{FORMAT!r}; prepare it again with --overwrite"
            )

    def split(self, name: str) -> PatchReader:
        """The patches of ``train`` or ``val``.

        Raises
        ------
        StoreError
            If the set has no such split, or its metadata or index are not as written.
        """
        known: dict[str, list[Any]] = self.manifest["metadata"]
        if name not in known:
            raise StoreError(f"{self.path}: no split {name!r}; there are {', '.join(known)}")
        for file in (File(*entry) for entry in known[name]):
            path = self.path / file.path
            found = differs(path, file)
            if found is not None:
                raise StoreError(f"{path}: damaged ({found}); {REPAIR}")
        return PatchReader(self.path / "patches" / f"{name}.zarr")


def _what_is_there(path: Path) -> str:
    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        return "the patch set is incomplete; run volprep prepare again to finish it"
    if not path.exists():
        return "no such folder; make a patch set with: volprep prepare CONFIG"
    return "no volprep patch set (manifest.json is missing); make one with: volprep prepare CONFIG"
