"""A whole patch set: opened only when it is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.errors import StoreError
from volprep.files import REOPEN, REPAIR, File, neighbour, unreadable
from volprep.ledger import differs, load_manifest
from volprep.places import path_of
from volprep.store.mirror import fetched, local_folder
from volprep.store.reader import PatchReader
from volprep.store.shards import FORMAT
from volprep.store.volumes import StoredCase, volume_path

__all__ = ["PatchStore"]


class PatchStore:
    """A finished patch set.

    Parameters
    ----------
    path : path-like
        The folder that `volprep prepare` wrote, or the URL that it was copied to.
    manifest : dict or None
        Of a set that is being made and whose own is not written yet; None reads it.

    Attributes
    ----------
    path : Path
        The folder, of a URL that of its mirror: what is not there yet is fetched when it is read.
    place : Path
        As it was given.
    manifest : dict
        Inputs with sizes and hashes, versions, the config's hash, counts, and
        under ``training`` what `train.yaml` holds.

    Raises
    ------
    StoreError
        If nothing is there, or the set is incomplete.
    """

    def __init__(self, path: str | Path, manifest: dict[str, Any] | None = None) -> None:
        self.place = path_of(path)
        self.path = local_folder(path)
        if manifest is not None:
            self.manifest: dict[str, Any] = manifest
            return
        if not (self.path / "manifest.json").exists():
            raise StoreError(f"{self.path}: {_what_is_there(self.path)}")
        self.manifest = load_manifest(self.path)
        if self.manifest.get("format") != FORMAT:
            raise StoreError(
                f"{self.path}: written as {self.manifest.get('format')!r}, this volprep reads "
                f"{FORMAT!r}; prepare it again with --overwrite"
            )

    @property
    def kind(self) -> Literal["patches", "volumes"]:
        """Whether the set keeps patches that were cut once, or volumes to draw from."""
        kind: Literal["patches", "volumes"] = self.manifest.get("store", "patches")
        return kind

    @property
    def places(self) -> Path:
        """What training places of a set of volumes are drawn by, where they are drawn."""
        return fetched(self.path / "sites" / "train.npz")

    def case(self, name: str) -> StoredCase:
        """A prepared case, as a set of volumes keeps it; of one of patches, those resampled.

        Raises
        ------
        StoreError
            If the set does not keep it, or it is damaged or of another set.
        """
        keys: dict[str, str] = self.manifest.get("volumes", {})
        if name not in keys:
            raise StoreError(
                f"{self.path}: keeps no volume of {name!r}; those of every case are kept with "
                "output.store: volumes"
            )
        case = StoredCase.open(volume_path(self.path, name))
        if case.image.form.key != keys[name]:
            raise StoreError(f"{case.path}: is of another set; {REOPEN}")
        return case

    def sites(self, split: str) -> npt.NDArray[np.int64]:
        """Where the patches of a split lie.

        Returns
        -------
        ndarray, shape (N, 13), int64
            Case, first voxel, start and stop of the region that may be seen, and where in the
            patch that begins which a network is to see.
        """
        self._compare(split)
        path = self.path / "sites" / f"{split}.npy"
        try:
            rows: npt.NDArray[np.int64] = np.load(path, allow_pickle=False)
        except OSError as error:
            raise unreadable(path, error) from error
        except ValueError as error:
            raise StoreError(f"{path}: damaged ({error}); {REPAIR}") from error
        return rows

    def split(self, name: str) -> PatchReader:
        """The patches of ``train`` or ``val``.

        Raises
        ------
        StoreError
            If the set keeps no patches, has no such split, or its metadata or index are not as
            written.
        """
        if self.kind == "volumes":
            raise StoreError(f"{self.path}: keeps volumes and no patches; read them with `case`")
        self._compare(name)
        return PatchReader(self.path / "patches" / f"{name}.zarr")

    def _compare(self, split: str) -> None:
        """Look whether the files that say how a split is read are as they were written."""
        known: dict[str, list[Any]] = self.manifest["metadata"]
        if split not in known:
            raise StoreError(f"{self.path}: no split {split!r}; there are {', '.join(known)}")
        for file in (File(*entry) for entry in known[split]):
            path = self.path / file.path
            found = differs(path, file)
            if found is not None:
                raise StoreError(f"{path}: damaged ({found}); {REPAIR}")


def _what_is_there(path: Path) -> str:
    partial = neighbour(path, ".partial")
    if partial.exists():
        return "the patch set is incomplete; run volprep prepare again to finish it"
    if not path.exists():
        return "no such folder; make a patch set with: volprep prepare CONFIG"
    return "no volprep patch set (manifest.json is missing); make one with: volprep prepare CONFIG"
