"""The components that an interrupted run had thinned, kept until their walk is whole."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from volprep.errors import SourceError
from volprep.skeletons.formats import read_arrays
from volprep.skeletons.make import Trace

__all__ = ["TraceJournal"]

_ARRAYS = (
    "instances", "voxels", "fell_back", "point_counts", "edge_counts", "points", "edges", "radii",
)  # fmt: skip


class TraceJournal:
    """Finished components of one volume on disk, in the order of the walk.

    They lie in parts in ``NAME.skeletons.KEY.partial``; those of another key, of a file that
    has changed since, are removed.

    Parameters
    ----------
    folder : Path
    name : str
        Of the case.
    key : str
        What the components are made from.
    every : float
        Seconds between two parts.
    """

    def __init__(self, folder: Path, name: str, key: str, *, every: float = 20.0) -> None:
        self.path = folder / f"{name}.skeletons.{key[:16]}.partial"
        self.every = every
        self._parts = 0
        for old in folder.glob("*.partial"):
            if old.name.startswith(f"{name}.skeletons.") and old != self.path:
                shutil.rmtree(old)

    def read(self) -> list[Trace]:
        """The components that are there, up to the first part that is damaged."""
        found: list[Trace] = []
        while (part := self._part(self._parts)).exists():
            try:
                found += _read(part)
            except SourceError:
                break
            self._parts += 1
        return found

    def keep(self, traces: Iterable[Trace]) -> Iterator[Trace]:
        """Hand components on and write them down, the last ones when the walk breaks off."""
        waiting: list[Trace] = []
        began = time.monotonic()
        try:
            for trace in traces:
                waiting.append(trace)
                if time.monotonic() - began > self.every:
                    self._write(waiting)
                    waiting, began = [], time.monotonic()
                yield trace
        except BaseException:
            if waiting:
                self._write(waiting)
            raise

    def remove(self) -> None:
        """Forget all parts: the skeletons are whole, in a file of their own."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _part(self, number: int) -> Path:
        return self.path / f"{number:05}.npz"

    def _write(self, traces: Sequence[Trace]) -> None:
        self.path.mkdir(exist_ok=True)
        part = self._part(self._parts)
        partial = part.with_name(f".{part.name}.{os.getpid()}")
        with partial.open("wb") as file:
            np.savez(
                file,
                instances=np.array([t.instance for t in traces], np.uint64),
                voxels=np.array([t.voxels for t in traces], np.int64),
                fell_back=np.array([t.fell_back for t in traces], np.bool_),
                point_counts=np.array([len(t.points) for t in traces], np.int64),
                edge_counts=np.array([len(t.edges) for t in traces], np.int64),
                points=np.concatenate([t.points for t in traces]),
                edges=np.concatenate([t.edges for t in traces]),
                radii=np.concatenate([t.radii for t in traces]),
            )
        partial.replace(part)
        self._parts += 1


def _read(part: Path) -> Iterator[Trace]:
    arrays = read_arrays(part, _ARRAYS)
    points, edges, radii = (
        np.split(arrays[name], np.cumsum(arrays[counts])[:-1])
        for name, counts in (
            ("points", "point_counts"), ("edges", "edge_counts"), ("radii", "point_counts"),
        )
    )  # fmt: skip
    facts = (arrays[name].tolist() for name in ("instances", "voxels", "fell_back"))
    for instance, voxels, fell_back, p, e, r in zip(*facts, points, edges, radii, strict=True):
        yield Trace(instance, p, e, r, voxels, fell_back)
