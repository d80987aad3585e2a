"""What `bake-skeletons` makes of one case: each file is a unit of the folder's ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from volprep.cases import Case
from volprep.compute import Engine
from volprep.files import File, describe, files_below, remove, temporary
from volprep.geometry import Box, Spacing3
from volprep.ledger import Ledger, Unit, key_of
from volprep.outputs import BlockOutput, Format
from volprep.pipeline.identity import Inputs
from volprep.pipeline.told import Reporter
from volprep.skeletons import (
    Skeletons,
    TraceJournal,
    count_traces,
    field_blocks,
    gather,
    mask_blocks,
    trace_volume,
    write_swc,
)
from volprep.sources import Volume

__all__ = ["BakeOptions", "BakeSummary", "BakedCase"]

#: Of what is made here; another one makes it anew.
VERSION = 2


@dataclass(frozen=True, slots=True)
class BakeOptions:
    """What is made beside the skeletons, and how."""

    method: Literal["lee", "teasar"] = "lee"
    field: bool = False
    mask: bool = False
    target: Literal["position", "offset"] = "offset"
    form: Format = "zarr"
    trch: bool = False
    swc: bool = False
    anisotropy: Spacing3 | None = None
    average: bool = True
    radius: float = 7
    flank_radius: float = 3


@dataclass(frozen=True, slots=True)
class BakeSummary:
    """What was made of one label volume.

    Attributes
    ----------
    case : str
    instances, components, points : int
        Each component of an instance has a skeleton of its own.
    smallest : int
        Voxels of the smallest component; 0 where there is none.
    fell_back : int
        Components whose only point is one of their deepest voxels.
    resumed : bool
        Whether skeletons were there already, all or some, made from the same file.
    files : tuple of str
    """

    case: str
    instances: int
    components: int
    points: int
    smallest: int
    fell_back: int
    resumed: bool
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "files": list(self.files)}


class BakedCase:
    """The files of one case.

    Parameters
    ----------
    case : Case
        With a label.
    ledger : Ledger
        Of the folder that they go to.
    options : BakeOptions
    workers : int or None
        Threads; None takes every processor.
    engine : Engine or None
        What traces skeletons and bakes the blocks of volumes, instead of threads.
    reporter : callable
    """

    def __init__(
        self,
        case: Case,
        ledger: Ledger,
        options: BakeOptions,
        *,
        workers: int | None,
        engine: Engine | None = None,
        reporter: Reporter,
    ) -> None:
        labels = case.open_label()
        if labels is None or case.label is None:
            raise ValueError(f"{case.name} has no label")
        self.case, self.ledger, self.options = case, ledger, options
        self.workers, self.engine, self.reporter = workers, engine, reporter
        self.labels: Volume = labels
        self.inputs = Inputs.of([labels.path], workers)
        how = {name: value for name, value in case.label.to_dict().items() if name != "path"}
        source = [self.inputs.content, how, list(case.ignore), labels.spacing]
        self.key = key_of("skeletons", VERSION, source, options.method)

    def make(self) -> BakeSummary:
        """Everything that the options ask for."""
        resumed = self._make_skeletons()
        skeletons = Skeletons.from_file(self._path("skeletons.npz"))
        for made in (self._trch, self._swc, self._field, self._mask):
            made(skeletons)
        facts = self.ledger.facts(self._unit("skeletons.npz", self.key))
        return BakeSummary(
            case=self.case.name,
            instances=len(skeletons),
            points=len(skeletons.points),
            resumed=resumed,
            files=tuple(str(self._path(name)) for name in self._names()),
            **facts,
        )

    def _make_skeletons(self) -> bool:
        """Trace every component; returns whether some were there already."""
        unit = self._unit("skeletons.npz", self.key)
        journal = TraceJournal(self.ledger, str(unit.index), self.key)
        if self.ledger.has(unit):
            journal.remove()
            return True
        traces = journal.read()
        known = len(traces)
        voxels = 2 * math.prod(self.labels.shape)
        with self.reporter(f"skeletons {self.case.name}", voxels, "voxels") as advance:
            walk = trace_volume(
                self.labels,
                method=self.options.method,
                workers=self.workers,
                engine=self.engine,
                progress=advance,
                skip=known,
            )
            traces += journal.keep(walk)
        self._one_file(unit, gather(traces).to_file, count_traces(traces))
        journal.remove()
        return known > 0

    def _trch(self, skeletons: Skeletons) -> None:
        if self.options.trch:
            unit = self._unit("skeletons.trch", key_of(self.key, "trch"))
            if not self.ledger.has(unit):
                self._one_file(unit, skeletons.to_file)

    def _swc(self, skeletons: Skeletons) -> None:
        """One file for each instance; a folder of older ones is replaced as a whole."""
        unit = self._unit("swc", key_of(self.key, "swc"))
        if not self.options.swc or self.ledger.has(unit):
            return
        folder = self._path("swc")
        new, old = temporary(folder), temporary(folder)
        write_swc(skeletons, new, spacing=self.labels.spacing)
        self.ledger.forget([unit])
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
        remove(old)
        self._done(unit, files_below(folder))

    def _field(self, skeletons: Skeletons) -> None:
        o = self.options
        if o.field:
            how = {"anisotropy": o.anisotropy, "average": o.average, "target": o.target}
            blocks = field_blocks(
                self.labels, skeletons,
                anisotropy=o.anisotropy, average=o.average, target=o.target,
            )  # fmt: skip
            self._volume(o.target, 3, "float32", how, blocks)

    def _mask(self, skeletons: Skeletons) -> None:
        o = self.options
        if o.mask:
            how = {"radius": o.radius, "flank_radius": o.flank_radius}
            blocks = mask_blocks(skeletons, radius=o.radius, flank_radius=o.flank_radius)
            self._volume("skeleton_mask", 1, "uint8", how, blocks)

    def _volume(
        self,
        name: str,
        channels: int,
        dtype: str,
        how: dict[str, Any],
        blocks: Callable[[Box], Any],
    ) -> None:
        shape = self.labels.shape[1:]
        output = BlockOutput(
            self.ledger,
            self._file(f"{name}.{self._suffix}"),
            (channels, *shape),
            dtype,
            spacing=self.labels.spacing,
            key=key_of(self.key, name, how),
        )
        title = f"{name} {self.case.name}"
        with self.reporter(title, math.prod(shape), "voxels") as advance:
            output.fill(
                blocks,
                workers=self.workers,
                engine=self.engine,
                progress=advance,
                check=self.inputs.check,
            )

    def _one_file(
        self,
        unit: Unit,
        write: Callable[[Path], object],
        facts: dict[str, int] | None = None,
    ) -> None:
        """Write a file of its own, once the older one of its name has lost its record."""
        path = self.ledger.folder / str(unit.index)
        self.ledger.forget([unit])
        write(path)
        self._done(unit, [path], facts)

    def _done(self, unit: Unit, paths: Iterable[Path], facts: dict[str, int] | None = None) -> None:
        self.inputs.check()
        files: list[File] = [describe(path, self.ledger.folder) for path in paths]
        self.ledger.done(unit, files, facts)

    def _names(self) -> list[str]:
        o, suffix = self.options, self._suffix
        asked = [
            (True, "skeletons.npz"),
            (o.trch, "skeletons.trch"),
            (o.swc, "swc"),
            (o.field, f"{o.target}.{suffix}"),
            (o.mask, f"skeleton_mask.{suffix}"),
        ]
        return [name for wanted, name in asked if wanted]

    @property
    def _suffix(self) -> str:
        return "ome.zarr" if self.options.form == "zarr" else "ome.tif"

    def _unit(self, name: str, key: str) -> Unit:
        return Unit("skeletons", self._file(name), key)

    def _file(self, name: str) -> str:
        return f"{self.case.name}.{name}"

    def _path(self, name: str) -> Path:
        return self.ledger.folder / self._file(name)
