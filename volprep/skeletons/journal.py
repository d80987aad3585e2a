"""The components that an interrupted run had thinned, kept until their walk is whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from volprep.files import NewFile, describe, remove, sweep
from volprep.ledger import Ledger, Unit
from volprep.skeletons.formats import read_arrays
from volprep.skeletons.make import Trace

__all__ = ["TraceJournal"]

_ARRAYS = (
    "instances", "voxels", "fell_back", "point_counts", "edge_counts", "points", "edges", "radii",
)  # fmt: skip
#: Seconds of work that a killed walk loses at most.
EVERY = 20.0


class TraceJournal:
    """Finished components of one volume on disk, in the order of the walk, in parts.

    Parameters
    ----------
    ledger : Ledger
        Of the folder of the skeletons; each part is a unit of it.
    name : str
        Of the file that the skeletons will be.
    key : str
        What the components are made from; parts of another key are forgotten.
    """

    def __init__(self, ledger: Ledger, name: str, key: str) -> None:
        self.ledger, self.stage, self.key = ledger, f"parts/{name}", key
        self.path = ledger.folder / f"{name}.partial"
        self._parts = 0

    def read(self) -> list[Trace]:
        """The components that are there, up to the first part that is missing or damaged."""
        found: list[Trace] = []
        if self.path.is_dir():
            sweep(self.path)
        while self._is_whole(self._unit(self._parts)):
            found += _read(self.path / _file(self._parts))
            self._parts += 1
        stale = self.ledger.records.units(self.stage)
        self.ledger.forget(u for u in stale if u.key != self.key or int(u.index) >= self._parts)
        if not found:
            remove(self.path)
        return found

    def keep(self, traces: Iterable[Trace]) -> Iterator[Trace]:
        """Hand components on and write them down, the last ones when the walk breaks off."""
        waiting: list[Trace] = []
        began = time.monotonic()
        try:
            for trace in traces:
                waiting.append(trace)
                if time.monotonic() - began > EVERY:
                    self._write(waiting)
                    waiting, began = [], time.monotonic()
                yield trace
        except BaseException:
            if waiting:
                self._write(waiting)
            raise

    def remove(self) -> None:
        """Forget all parts: the skeletons are whole, in a file of their own."""
        remove(self.path)
        self.ledger.forget(self.ledger.records.units(self.stage))

    def _unit(self, number: int) -> Unit:
        return Unit(self.stage, number, self.key)

    def _is_whole(self, unit: Unit) -> bool:
        record = self.ledger.records.find(unit.stage, unit.index)
        return (
            record is not None
            and self.ledger.has(unit)
            and list(record.files)
            == [describe(self.path / _file(int(unit.index)), self.ledger.folder)]
        )

    def _write(self, traces: Sequence[Trace]) -> None:
        part = self.path / _file(self._parts)
        with NewFile(part) as new:
            np.savez(
                new.file,
                instances=np.array([t.instance for t in traces], np.uint64),
                voxels=np.array([t.voxels for t in traces], np.int64),
                fell_back=np.array([t.fell_back for t in traces], np.bool_),
                point_counts=np.array([len(t.points) for t in traces], np.int64),
                edge_counts=np.array([len(t.edges) for t in traces], np.int64),
                points=np.concatenate([t.points for t in traces]),
                edges=np.concatenate([t.edges for t in traces]),
                radii=np.concatenate([t.radii for t in traces]),
            )
        self.ledger.done(self._unit(self._parts), [describe(part, self.ledger.folder)])
        self._parts += 1


def _file(number: int) -> str:
    return f"{number:05}.npz"


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
