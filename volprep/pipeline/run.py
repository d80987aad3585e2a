"""One run of `prepare`: what is asked of the ledger, stage after stage, or only foreseen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volprep.compute import Engine
from volprep.config import Config
from volprep.errors import StoreError
from volprep.files import File, NewFile
from volprep.ledger import LEDGER, Ledger, Made, Records, Unit, key_of, run
from volprep.pipeline.told import Reporter, Told

__all__ = ["COSTLY", "Change", "NotDoneError", "OpenStage", "OpenStageError", "Run", "stock_of"]

#: Stages whose work nobody wants to lose; the others only describe, and are made in moments.
COSTLY = ("volumes", "skeletons", "sites", "patches/train", "patches/val")
#: Stages whose units several processes may share.
_DIVIDED = ("volumes", "skeletons", "patches/train", "patches/val")


#: Stages that read every voxel, and leave what was found in their records alone.
_LOOKS = ("check", "fingerprint")


class NotDoneError(Exception):
    """Something must be made before more can be foreseen."""


@dataclass(frozen=True, slots=True)
class OpenStage:
    """A stage that is not done: how many units it has, how many are left, and were made now."""

    name: str
    units: int
    left: int
    made: int = 0


class OpenStageError(Exception):
    """A shared run has come to a stage that is not done."""

    def __init__(self, stage: OpenStage) -> None:
        self.stage = stage
        super().__init__(stage.name)


@dataclass(slots=True)
class Change:
    """What happens to a stage.

    Attributes
    ----------
    stage : str
    kept, redone : int
        Units.
    known : bool
        Whether an earlier run got to the stage.
    why : list of str
        What changed of what it is made from.
    """

    stage: str
    kept: int = 0
    redone: int = 0
    known: bool = False
    why: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        reasons = self.why[:4] + (["..."] if len(self.why) > 4 else [])
        why = f": {', '.join(reasons)}" if reasons and self.redone else ""
        return f"{self.stage}: {self.kept} kept, {self.redone} to do{why}"


class Run:
    """The units of a run.

    Parameters
    ----------
    config : Config
    told : Told
    reporter : callable
    ledger : Ledger or None
        None makes nothing: what is missing is noted in `changes`.
    folder : Path
        Where files are written.
    stock : sequence of Records
        Where an earlier run left its records; the first that knows a unit counts.
    engine : Engine or None
        What runs the units of a stage; None takes threads.
    share : range or None
        Make only these units of the first stage that is not done and can be shared, and stop
        there; with none in it, only see which stage that is.

    Attributes
    ----------
    wanted : list of Unit
        Every unit of the set, in order.
    changes : dict of str to Change
    """

    def __init__(
        self,
        config: Config,
        told: Told,
        reporter: Reporter,
        *,
        folder: Path,
        ledger: Ledger | None = None,
        stock: Sequence[Records] = (),
        engine: Engine | None = None,
        share: range | None = None,
    ) -> None:
        self._engine, self._share = engine or Engine(workers=config.compute.workers), share
        self.config, self.told, self.reporter = config, told, reporter
        self.folder, self.ledger = folder, ledger
        self._stock = list(stock)
        self.wanted: list[Unit] = []
        self.changes: dict[str, Change] = {}

    @property
    def stock(self) -> list[Records]:
        """Where records are looked for."""
        return self._stock if self.ledger is None else [self.ledger.records]

    def has(self, unit: Unit) -> bool:
        """Whether a unit is done and whole."""
        if self.ledger is not None:
            return self.ledger.has(unit)
        return any(records.whole(unit) for records in self.stock)

    def facts(self, unit: Unit) -> Mapping[str, Any]:
        """The facts of a unit that is done.

        Raises
        ------
        NotDoneError
            If it is not, and nothing is to be made.
        """
        if self.ledger is not None:
            return self.ledger.facts(unit)
        for records in self.stock:
            found = records.facts(unit)
            if found is not None:
                return found
        raise NotDoneError(unit.stage)

    def files(self, unit: Unit) -> tuple[File, ...]:
        """The files of a unit that is done."""
        found = (records.find(unit.stage, unit.index) for records in self.stock)
        return next((r.files for r in found if r is not None and r.unit == unit), ())

    def path(self, unit: Unit, name: str) -> Path:
        """A file of a unit that is done; NotDoneError if it is not."""
        if self.ledger is not None:
            return self.folder / name
        for records in self.stock:
            if records.whole(unit):
                return records.path.parent / name
        raise NotDoneError(unit.stage)

    def noted(self, stage: str, index: int | str) -> Mapping[str, Any] | None:
        """The facts of a unit whatever it was made from, with its ``key``."""
        for records in self.stock:
            found = records.find(stage, index)
            if found is not None:
                return {**found.facts, "key": found.unit.key}
        return None

    def made_from(self, stage: str, parts: Mapping[str, Any]) -> None:
        """Note what a stage is made from, by name, so that a later run can say what changed."""
        unit = Unit("made from", stage, key_of("made from", stage, parts))
        before = self.noted("made from", stage)
        change = self.changes.setdefault(stage, Change(stage))
        if before is not None:
            change.known = True
            old, new = before["parts"], _plain(parts)
            change.why = [
                f"{name} {'changed' if name in old and name in new else word}"
                for name in sorted({*old, *new})
                if old.get(name) != new.get(name)
                for word in ("is gone" if name in old else "is new",)
            ]
        self.note(unit, {"parts": parts})

    def note(self, unit: Unit, facts: Mapping[str, Any]) -> None:
        """A unit that has no files and is known already."""
        self.wanted.append(unit)
        if self.ledger is not None and not self._share and not self.ledger.has(unit):
            self.ledger.forget([unit])
            self.ledger.done(unit, (), facts)

    def once(self, unit: Unit, make: Callable[[], Made]) -> Mapping[str, Any]:
        """The facts of one unit, made here if it is not done."""
        self.make(unit, make)
        return self.facts(unit)

    def make(self, unit: Unit, make: Callable[[], Made]) -> None:
        """Make one unit here, if it is not done and things are to be made."""
        self.wanted.append(unit)
        if unit.stage in _LOOKS:
            change, done = self.changes.setdefault(unit.stage, Change(unit.stage)), self.has(unit)
            change.kept, change.redone = change.kept + done, change.redone + (not done)
            change.known |= self.noted(unit.stage, unit.index) is not None
        if self.ledger is not None and not self.ledger.has(unit):
            self._alone(unit.stage)
            self.ledger.forget([unit])
            files, facts = make()
            self.ledger.done(unit, files, facts)

    def all(
        self,
        stage: str,
        units: Sequence[Unit],
        make: Callable[..., Any],
        *,
        title: str,
        what: str,
        sizes: Callable[[Unit], int] = lambda _: 1,
        workers: int | None = None,
        together: bool = False,
    ) -> None:
        """Make the units of a stage that are not done; `sizes` is what the bar counts.

        With `together`, `make` takes a sequence of units and yields each with what was made.
        """
        self.wanted += units
        change = self.changes.setdefault(stage, Change(stage))
        kept = sum(map(self.has, units))
        change.kept, change.redone = change.kept + kept, change.redone + len(units) - kept
        if self.ledger is None:
            return
        shared = self._share is not None and stage in _DIVIDED and kept < len(units)
        if not shared and kept < len(units):
            self._alone(stage)
        todo = [units[i] for i in self._share or () if i < len(units)] if shared else units
        before = sum(map(self.has, todo))
        engine = self._engine
        if engine.kind != "dask":
            engine = Engine(engine.kind, workers=workers or self.config.compute.workers)
        with self.reporter(title, sum(map(sizes, todo)), what) as advance:
            run(
                self.ledger, make, todo, engine=engine, together=together,
                progress=lambda unit: advance(sizes(unit)),
            )  # fmt: skip
        if shared:
            if not self._share:
                self.ledger.todo(units)  # forgets what was made from something else
            made = len(todo) - before
            raise OpenStageError(OpenStage(stage, len(units), len(units) - kept - made, made))

    def _alone(self, stage: str) -> None:
        """One that shares a run with others must not make what all of them need."""
        if self._share:
            raise StoreError(
                f"{self.folder}: {stage} is not done, which cannot be shared; run volprep units "
                "first"
            )

    def text(self, name: str, text: str) -> None:
        """A small file that describes the set."""
        self.page(name, text, lambda: text)

    def page(self, name: str, made_from: object, text: Callable[[], str]) -> None:
        """One whose text is only made if what it is made from is another."""

        def make() -> Made:
            with NewFile(self.folder / name) as new:
                new.write(text().encode())
            return [new.described(self.folder)], {}

        unit = Unit("describe", name, key_of("describe", name, made_from))
        change = self.changes.setdefault("describe", Change("describe"))
        done = self.has(unit)
        change.kept, change.redone = change.kept + done, change.redone + (not done)
        self.make(unit, make)


def stock_of(*folders: Path) -> list[Records]:
    """The records of the folders that have some."""
    return [Records(folder / LEDGER) for folder in folders if (folder / LEDGER).exists()]


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))
