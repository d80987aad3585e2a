"""A whole patch set: built under another name, published at once, opened only when whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volprep.errors import StoreError
from volprep.store.files import load_json, write_json
from volprep.store.shards import FORMAT, PatchReader

__all__ = ["PatchStore", "publish"]


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
                f"{FORMAT!r}; prepare the set again"
            )

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


def publish(partial: Path, final: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, and give the finished set its name; an older set there goes."""
    write_json(partial / "manifest.json", {"format": FORMAT, **manifest})
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
