"""What becomes of labels: classes as the target counts them, ids as its type holds them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from volprep.exports.given import ExportCase, slabs
from volprep.geometry import Box, three

__all__ = ["BorderCore", "Classes", "Ids", "LabelForm", "Valid", "highest_id", "ids_of"]

Array = npt.NDArray[Any]


class LabelForm(Protocol):
    """How the labels of a case are written."""

    @property
    def made_of(self) -> list[Any]:
        """All that it depends on beside the voxels, in plain values."""
        ...

    def dtype(self, case: ExportCase) -> np.dtype[Any]:
        """Of what is written."""
        ...

    def read(self, case: ExportCase, box: Box) -> Array:
        """(Z, Y, X) of a box in the voxels of the case."""
        ...


@dataclass(frozen=True)
class Classes:
    """Classes counted from 0, as volprep's own loader gives them.

    Parameters
    ----------
    values : sequence of int or None
        The label value of each class; None makes one class of every id.
    first : int
        What the first class is called.
    ignore : int or None
        What is written where nothing is annotated; None writes 0.
    """

    values: tuple[int, ...] | None
    first: int = 0
    ignore: int | None = None

    @property
    def made_of(self) -> list[Any]:
        """Its values."""
        return ["classes", self.values, self.first, self.ignore]

    def dtype(self, case: ExportCase) -> np.dtype[Any]:
        """The smallest that holds them."""
        highest = max(self.first + len(self.values or (0, 1)), self.ignore or 0)
        return np.dtype(np.uint8 if highest < 256 else np.uint16)

    def read(self, case: ExportCase, box: Box) -> Array:
        """Class by class; a value that is no class counts as not annotated."""
        label, nothing = _label(case, box), self.ignore or 0
        if self.values is None:
            found: Array = (label != 0).astype(self.dtype(case))
        else:
            values = np.array(self.values, np.int64)
            place = np.minimum(np.searchsorted(values, label), len(values) - 1)
            known = values[place] == label
            found = np.where(known, place + self.first, nothing).astype(self.dtype(case))
        if case.mask is not None:
            found[case.mask.read(box)[0] == 0] = nothing
        return found


@dataclass(frozen=True)
class BorderCore:
    """Instances as two classes: 1 their core, 2 the border of one voxel around it.

    A voxel is of the border where a face neighbour has another id or none. Beyond the volume
    nothing is known, so its faces make no border.

    Parameters
    ----------
    in_plane : bool
        Whether only neighbours of the same section count.
    ignore : int or None
        What is written where nothing is annotated; None writes 0.
    """

    in_plane: bool
    ignore: int | None = None

    @property
    def made_of(self) -> list[Any]:
        """Its values."""
        return ["border-core", self.in_plane, self.ignore]

    def dtype(self, case: ExportCase) -> np.dtype[Any]:
        """Always bytes."""
        return np.dtype(np.uint8)

    def read(self, case: ExportCase, box: Box) -> Array:
        """1 and 2 where there are ids."""
        around = box.grow(1).common(case.box)
        label = _label(case, around)
        border = np.zeros(label.shape, bool)
        for axis in range(1 if self.in_plane else 0, 3):
            differs = np.diff(label.astype(np.int64, copy=False), axis=axis) != 0
            one, other = [slice(None)] * 3, [slice(None)] * 3
            one[axis], other[axis] = slice(None, -1), slice(1, None)
            border[tuple(one)] |= differs
            border[tuple(other)] |= differs
        inside = box.shift(three([-n for n in around.start])).slices
        found: Array = np.where(border, 2, 1).astype(np.uint8)[inside]
        found[label[inside] == 0] = 0
        if case.mask is not None and self.ignore is not None:
            found[case.mask.read(box)[0] == 0] = self.ignore
        return found


@dataclass(frozen=True)
class Ids:
    """Ids of instances, or values of classes, as they are; renumbered where they do not fit.

    Parameters
    ----------
    dtypes : sequence of str
        What the target reads, the smallest first.
    ignore : int or None
        What is written where nothing is annotated; None writes 0.
    highest : int or None
        The highest id that the target keeps exact, where that is less than its type holds.
    """

    dtypes: tuple[str, ...] = ("uint8", "uint16", "uint32", "uint64")
    ignore: int | None = None
    highest: int | None = None

    @property
    def limit(self) -> int:
        """The highest id that the target can hold."""
        return self.highest or int(np.iinfo(self.dtypes[-1]).max)

    @property
    def made_of(self) -> list[Any]:
        """Its values."""
        return ["ids", self.dtypes, self.ignore, self.highest]

    def renumbers(self, case: ExportCase) -> bool:
        """Whether ids of the case are beyond what the target holds."""
        return highest_id(case) > self.limit

    def dtype(self, case: ExportCase) -> np.dtype[Any]:
        """The smallest that holds the ids of the case."""
        highest = len(ids_of(case)) if self.renumbers(case) else highest_id(case)
        fits = (np.dtype(name) for name in self.dtypes if np.iinfo(name).max >= highest)
        return next(fits, np.dtype(self.dtypes[-1]))

    def read(self, case: ExportCase, box: Box) -> Array:
        """Ids, or their places in the table (from 1) where they are renumbered."""
        label = _label(case, box)
        if self.renumbers(case):
            ids = ids_of(case)
            place = np.searchsorted(ids, label.astype(np.uint64)) + 1
            label = np.where(label == 0, 0, place)
        found = label.astype(self.dtype(case))
        if case.mask is not None:
            found[case.mask.read(box)[0] == 0] = self.ignore or 0
        return found


@dataclass(frozen=True)
class Valid:
    """The valid mask: 1 where the label is annotated, everywhere for a case that has none."""

    @property
    def made_of(self) -> list[Any]:
        """It depends on nothing else."""
        return ["valid"]

    def dtype(self, case: ExportCase) -> np.dtype[Any]:
        """Always bytes."""
        return np.dtype(np.uint8)

    def read(self, case: ExportCase, box: Box) -> Array:
        """0 and 1."""
        if case.mask is None:
            return np.ones(box.shape, np.uint8)
        found: Array = (case.mask.read(box)[0] != 0).astype(np.uint8)
        return found


def _label(case: ExportCase, box: Box) -> Array:
    if case.label is None:
        raise ValueError(f"{case.name} has no label")
    label: Array = case.label.read(box)[0]
    return label


def highest_id(case: ExportCase) -> int:
    """The highest id of a case, or one that none can exceed where that is small enough to know."""
    if case.label is None:
        return 0
    bound = int(np.iinfo(case.label.dtype).max)
    return bound if bound < 256 else int(max(ids_of(case), default=0))


@functools.lru_cache(maxsize=64)
def ids_of(case: ExportCase) -> Sequence[int]:
    """Every id of a case but 0, ascending; its label is read for it once."""
    found = np.zeros(0, np.uint64)
    for box in slabs(case.box):
        found = np.union1d(found, np.unique(_label(case, box)).astype(np.uint64))
    ids: Sequence[int] = found[found != 0]
    return ids
