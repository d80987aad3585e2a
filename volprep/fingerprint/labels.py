"""Label ids of a volume, their sizes and their neighbours, met block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from volprep.fingerprint.facts import LabelFacts
from volprep.geometry import Box, Shape3

if TYPE_CHECKING:
    from volprep.kernels.histogram import Before

__all__ = ["SIZES", "LabelCount", "as_ids", "as_mask", "size_percentiles"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

#: Percentiles of the sizes of objects.
SIZES = (0.0, 5.0, 50.0, 95.0, 100.0)

_SMALLEST_TABLE = 1 << 12


class LabelCount:
    """Counts the labels of one volume; blocks come in the order z, y, x and cover `region`.

    Memory grows with the number of ids, not with the volume: beside the table there are
    two planes of labels, so that neighbours are seen across blocks and regions.

    Parameters
    ----------
    region : Box
        What the blocks cover together.
    shape : (Z, Y, X) or None
        Of the volume whose faces matter; None where they do not.

    Attributes
    ----------
    planes : Planes
        Of the planes of the region.
    """

    def __init__(self, region: Box, shape: Shape3 | None = None) -> None:
        from volprep.kernels.histogram import Planes, Tally

        self._region, self._shape = region, shape
        self._tally = Tally.empty(_SMALLEST_TABLE)
        depth = region.shape[0]
        self.planes = Planes(
            np.zeros(depth, np.int64), np.zeros(depth, np.uint64), np.ones(1, np.bool_)
        )
        self._state = np.zeros(3, np.int64)
        self._first: Array | None = None
        self._plane: Array | None = None
        self._lines: Array | None = None
        self._column: Array | None = None

    def add(self, box: Box, block: Array) -> None:
        """Count one block.

        Parameters
        ----------
        box : Box
            Where it lies.
        block : ndarray of an unsigned dtype, shape (Z, Y, X)
            Its labels.
        """
        from volprep.kernels.histogram import Planes, count_labels

        before, ends = self._before(box, block.dtype), self._ends(box)
        block = np.ascontiguousarray(block)
        lines = block.shape[0] * block.shape[1]
        labelled, tops, apart = self.planes
        inside = self._within(box)[0]
        planes = Planes(labelled[inside], tops[inside], apart)
        self._state[0] = 0
        while True:
            count_labels(block, before, ends, self._state, self._tally, planes)
            if self._state[0] == lines:
                break
            self._enlarge(block.shape[2])
        self._remember(box, block)

    def merge(self, other: LabelCount) -> None:
        """Add the labels of the region that comes next along z."""
        from volprep.kernels.histogram import Planes, add_table, mark_planes

        if self._room < self._ids + other._ids:
            self._enlarge(other._ids)
        add_table(other._tally, self._tally)
        if self._plane is not None and other._first is not None:
            mark_planes(self._plane, other._first, self._tally)
        self._plane = other._plane
        self._region = Box(self._region.start, other._region.stop)
        labelled, tops = (
            np.concatenate(pair) for pair in zip(self.planes[:2], other.planes[:2], strict=True)
        )
        self.planes = Planes(labelled, tops, self.planes.apart & other.planes.apart)
        self._state[1] = np.count_nonzero(self._tally.labels)
        self._state[2] = np.count_nonzero(self._tally.touching)

    def sizes(self) -> Counts:
        """Voxels of each id, by ascending id."""
        return self.listed()[1]

    def facts(self, dtype: np.dtype[Any]) -> LabelFacts:
        """What was counted."""
        ids, counts = self.listed()
        voxels = None
        if ids.size <= LabelFacts.MOST_LISTED:
            voxels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        return LabelFacts(
            dtype=str(dtype),
            n_ids=ids.size,
            smallest_id=int(ids[0]) if ids.size else None,
            largest_id=int(ids[-1]) if ids.size else None,
            voxels=voxels,
            foreground=int(counts.sum()) / max(1, self._region.size),
            background=self._region.size - int(counts.sum()),
            voxel_count=self._region.size,
            sizes=size_percentiles([counts]),
            touching=int(np.count_nonzero(self._tally.touching)),
        )

    @property
    def cut(self) -> int:
        """Ids that touch a face of the volume; a single plane has no faces in z."""
        return int(np.count_nonzero(self._tally.outer))

    def listed(self) -> tuple[npt.NDArray[np.uint64], Counts]:
        """Every id above 0, ascending, and its voxels."""
        (filled,) = np.nonzero(self._tally.labels)
        order = filled[np.argsort(self._tally.labels[filled])]
        return self._tally.labels[order], self._tally.counts[order]

    @property
    def _ids(self) -> int:
        return int(self._state[1])

    @property
    def _room(self) -> int:
        """Ids that the table takes, as `count_labels` sees it."""
        return self._tally.labels.size * 3 // 4

    def _enlarge(self, more: int) -> None:
        from volprep.kernels.histogram import Tally, add_table

        size = 2 * self._tally.labels.size
        while size * 3 // 4 < 2 * (self._ids + more):
            size *= 2
        larger = Tally.empty(size)
        add_table(self._tally, larger)
        self._tally = larger

    def _ends(self, box: Box) -> npt.NDArray[np.bool_]:
        """Whether a block begins and ends at a face of the volume, along each axis."""
        if self._shape is None:
            return np.zeros((3, 2), np.bool_)
        sides = zip(box.start, box.stop, self._shape, strict=True)
        return np.array([(n > 1 and a == 0, n > 1 and b == n) for a, b, n in sides])

    def _before(self, box: Box, dtype: np.dtype[Any]) -> Before:
        """The voxels just before a block along each axis; empty at the edge of the region."""
        from volprep.kernels.histogram import Before

        none = np.empty((0, 0), dtype)
        (z, y, x), origin = box.start, self._region.start
        _, rows, columns = self._within(box)
        plane = none if z == origin[0] or self._plane is None else self._plane[rows, columns]
        lines = none if y == origin[1] or self._lines is None else self._lines[:, columns]
        column = none if x == origin[2] or self._column is None else self._column
        return Before(*map(np.ascontiguousarray, (plane, lines, column)))

    def _remember(self, box: Box, block: Array) -> None:
        height, width = self._region.shape[1:]
        _, rows, columns = self._within(box)
        if self._first is None:
            self._first = np.zeros((height, width), block.dtype)
            self._plane = self._first.copy()
        if box.start[0] == self._region.start[0]:
            self._first[rows, columns] = block[0]
        assert self._plane is not None
        self._plane[rows, columns] = block[-1]
        if box.shape[1:] == (height, width):
            return
        if self._lines is None or len(self._lines) != len(block):
            self._lines = np.zeros((len(block), width), block.dtype)
        self._lines[:, columns] = block[:, -1]
        self._column = block[:, :, -1].copy()

    def _within(self, box: Box) -> tuple[slice, slice, slice]:
        return box.shift([-n for n in self._region.start]).slices


def as_ids(block: Array) -> Array:
    """Labels as unsigned integers of their own width, without a copy.

    Raises
    ------
    ValueError
        If a label is negative or no integer.
    """
    kind = block.dtype.kind
    if kind == "u":
        return block
    if kind == "b":
        return block.view(np.uint8)
    if kind != "i":
        raise ValueError(f"labels must be integers, got {block.dtype}; open them as labels")
    if block.min(initial=0) < 0:
        raise ValueError(f"labels must be 0 or more, found {int(block.min())}")
    return block.view(f"u{block.dtype.itemsize}")


def as_mask(ids: Array) -> npt.NDArray[np.uint8]:
    """Bytes that are not zero where a label is."""
    return ids if ids.dtype == np.uint8 else (ids != 0).view(np.uint8)


def size_percentiles(sizes: Sequence[Counts]) -> dict[str, float]:
    """Percentiles of the voxels of an id."""
    every = np.concatenate(sizes) if sizes else np.zeros(0, np.int64)
    if not every.size:
        return {}
    return {f"{q:g}": float(v) for q, v in zip(SIZES, np.percentile(every, SIZES), strict=True)}
