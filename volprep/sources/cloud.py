"""Chunked volumes in object stores, behind web servers and in zip archives, over tensorstore.

`volprep.objects` asks the stores; `StoreVolume` hands voxels on. Only what the store says is
absent counts as absent and is read as the fill value.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep import objects
from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Box
from volprep.objects import answer, batches, open_array, read, split
from volprep.places import ARCHIVES
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume

__all__ = ["StoreVolume", "metadata_of"]

_CLAIM_BYTES = 2**34  # a volume beyond this must have some of its chunks stored
_CLAIM_LOOKS = 1000


def metadata_of(place: Path) -> list[tuple[str, str]]:
    """The metadata of a container by name and hash, those that are reached without a listing."""
    folders, found = ["", "0", "s0", "labels"], []
    for folder in folders:
        for name in ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info"):
            key = f"{folder}/{name}".lstrip("/")
            data = read(place / key)
            if data is not None:
                found.append((key, hashlib.sha256(data).hexdigest()))
    return found


class StoreVolume(Volume):
    """One array of a store, as tensorstore reads it; chunks that a box touches are fetched at once.

    Parameters
    ----------
    path : Path
        As the user gave it.
    layout : Layout
        Of the array in C order (the last axis is the one that runs fastest).
    dtype : dtype-like
    place : Path
        Where the array, or for precomputed volumes its ``info``, lies.
    driver : str
        Of tensorstore.
    reversed_axes : bool
        Whether tensorstore gives the axes in the opposite order (N5, precomputed).
    options : dict
        More for tensorstore: ``scale_index``.
    **rest
        As for `Volume`.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        dtype: Any,
        *,
        place: Path,
        driver: str,
        reversed_axes: bool = False,
        options: dict[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        self._place, self._driver, self._reversed = place, driver, reversed_axes
        self._options = dict(options or {})
        root, _ = split(place)
        if root.parts[0] in ("http:", "https:") and root.suffix.lower() not in ARCHIVES:
            text = "lies on a web server, which lists nothing: its voxels are not known again"
            rest["notes"] = (*rest.get("notes", ()), Note("chunks-unlisted", text))
        super().__init__(path, layout, dtype, **rest)

    def missing_chunks(self) -> tuple[int, int]:
        """As `Volume.missing_chunks`.

        The store is asked for each chunk; of more than 20,000 for as many that lie evenly
        among them, and the second number is how many were asked for.
        """
        array = self._opened()
        grid = _grid(array)
        total = math.prod(grid)
        looks = min(total, objects.MOST_ASKED)
        return looks - self._there(array, grid, looks), looks

    def check_claim(self) -> None:
        """Refuse a size that the metadata claim and hardly a chunk stands behind."""
        if self.nbytes <= _CLAIM_BYTES:
            return
        array = self._opened()
        grid = _grid(array)
        looks = min(math.prod(grid), _CLAIM_LOOKS)
        if self._there(array, grid, looks):
            return
        raise SourceError(
            self.name,
            f"claims {math.prod(self.shape)} voxels, and none of {looks} of its chunks is there",
            "its metadata are wrong, or it was never filled; save the part that holds data",
        )

    def _there(self, array: Any, grid: Sequence[int], looks: int) -> int:
        """How many of some chunks, evenly chosen, are stored."""
        total, there = math.prod(grid), 0
        size = array.chunk_layout.read_chunk.shape
        for some in batches(range(looks)):
            waiting = []
            for n in some:
                index = np.unravel_index(n * total // looks, grid)
                start = [int(i) * c for i, c in zip(index, size, strict=True)]
                cut = tuple(
                    slice(a, min(a + c, full))
                    for a, c, full in zip(start, size, array.shape, strict=True)
                )
                waiting.append(array[cut].storage_statistics(query_not_stored=True))
            there += sum(not answer(self.name, w).not_stored for w in waiting)
        return there

    def _open(self) -> Any:
        array = open_array(self.name, self._place, self._driver, self._options)
        array = array.T if self._reversed else array
        if tuple(array.shape) != self._layout.stored:
            raise SourceError(
                self.name,
                f"is {array.shape} in the store and {self._layout.stored} by its metadata",
                "it was changed while it was read: run again",
            )
        return array

    def _read(self, box: Box) -> Array:
        cut = self._layout.select(box)
        size = math.prod(c.stop - c.start for c in cut) * self._stored_dtype.itemsize
        block = answer(self.name, self._opened()[cut].read(order="C"), size)
        return self._layout.arrange(np.asarray(block))


def _grid(array: Any) -> tuple[int, ...]:
    size = array.chunk_layout.read_chunk.shape
    return tuple(-(-n // c) for n, c in zip(array.shape, size, strict=True))
