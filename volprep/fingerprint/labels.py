"""Label ids of a volume, their sizes and their neighbours, met block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.fingerprint.facts import LabelFacts
from volprep.geometry import Box

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
    """

    def __init__(self, region: Box) -> None:
        self._region = region
        self._table = np.zeros(_SMALLEST_TABLE, np.uint64)
        self._counts = np.zeros(_SMALLEST_TABLE, np.int64)
        self._touching = np.zeros(_SMALLEST_TABLE, np.bool_)
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
        from volprep.kernels.histogram import count_labels

        before_z, before_y, before_x = self._before(box, block.dtype)
        block = np.ascontiguousarray(block)
        lines = block.shape[0] * block.shape[1]
        self._state[0] = 0
        while True:
            count_labels(
                block, before_z, before_y, before_x,
                self._state, self._table, self._counts, self._touching,
            )  # fmt: skip
            if self._state[0] == lines:
                break
            self._enlarge(block.shape[2])
        self._remember(box, block)

    def merge(self, other: LabelCount) -> None:
        """Add the labels of the region that comes next along z."""
        from volprep.kernels.histogram import add_table, mark_planes

        if self._room < self._ids + other._ids:
            self._enlarge(other._ids)
        add_table(*other._tables, *self._tables)
        if self._plane is not None and other._first is not None:
            mark_planes(self._plane, other._first, self._table, self._touching)
        self._plane = other._plane
        self._region = Box(self._region.start, other._region.stop)
        self._state[1] = np.count_nonzero(self._table)
        self._state[2] = np.count_nonzero(self._touching)

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
            touching=int(np.count_nonzero(self._touching)),
        )

    def listed(self) -> tuple[npt.NDArray[np.uint64], Counts]:
        """Every id above 0, ascending, and its voxels."""
        (filled,) = np.nonzero(self._table)
        order = filled[np.argsort(self._table[filled])]
        return self._table[order], self._counts[order]

    @property
    def _tables(self) -> tuple[Array, Array, Array]:
        return self._table, self._counts, self._touching

    @property
    def _ids(self) -> int:
        return int(self._state[1])

    @property
    def _room(self) -> int:
        """Ids that the table takes, as `count_labels` sees it."""
        return self._table.size * 3 // 4

    def _enlarge(self, more: int) -> None:
        from volprep.kernels.histogram import add_table

        size = 2 * self._table.size
        while size * 3 // 4 < 2 * (self._ids + more):
            size *= 2
        larger = np.zeros(size, np.uint64), np.zeros(size, np.int64), np.zeros(size, np.bool_)
        add_table(*self._tables, *larger)
        self._table, self._counts, self._touching = larger

    def _before(self, box: Box, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
        """The voxels just before a block along each axis; empty at the edge of the region."""
        none = np.empty((0, 0), dtype)
        (z, y, x), origin = box.start, self._region.start
        _, rows, columns = self._within(box)
        plane = none if z == origin[0] or self._plane is None else self._plane[rows, columns]
        lines = none if y == origin[1] or self._lines is None else self._lines[:, columns]
        column = none if x == origin[2] or self._column is None else self._column
        return (
            np.ascontiguousarray(plane), np.ascontiguousarray(lines), np.ascontiguousarray(column),
        )  # fmt: skip

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
