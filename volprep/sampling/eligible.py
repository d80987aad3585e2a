"""Where patches may lie that hold enough: counted once, so that none has to be searched for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.sampling.rejection import Rejection

__all__ = ["Places", "find_places"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Places are counted at steps of this part of a patch; between them a draw is checked.
STEPS = 4
SLAB_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a block at which a patch may lie, and how likely each is drawn.

    Attributes
    ----------
    block : Box
        What patches may see; one that is smaller than the patch has one place on that axis.
    patch_size : (Z, Y, X)
    rejection : Rejection
        With a valid ratio that is a number.
    valid : float
        The share of the block that is annotated; 1 without a mask.
    best_valid : float
        The largest share of one patch that is annotated.
    best_size : int
        The most foreground voxels in one patch that is annotated enough; -1 where foreground
        does not matter.
    share : float
        Of the places, those that qualify.
    """

    block: Box
    patch_size: Shape3
    rejection: Rejection
    valid: float
    best_valid: float
    best_size: int
    share: float
    _starts: tuple[Ints, Ints, Ints]
    _ends: Floats  # cumulative weight of each place, in C order

    def __len__(self) -> int:
        """How many places can be drawn."""
        return int(np.count_nonzero(np.diff(self._ends, prepend=0.0)))

    def facts(self) -> dict[str, Any]:
        """All but the numbers of each place, as plain values for JSON."""
        return {
            "valid_ratio": self.rejection.valid_ratio,
            "valid": self.valid,
            "best_valid": self.best_valid,
            "best_size": self.best_size,
            "share": self.share,
        }

    def packed(self) -> Floats:
        """The numbers of each place, in one array."""
        sizes = [len(starts) for starts in self._starts]
        return np.concatenate([np.array(sizes, np.float64), *self._starts, self._ends])

    @classmethod
    def unpacked(
        cls,
        block: Box,
        patch_size: Shape3,
        rejection: Rejection,
        facts: Mapping[str, Any],
        packed: Floats,
    ) -> Places:
        """What `facts` and `packed` were taken of."""
        ends = np.cumsum([3, *packed[:3].astype(int)])
        starts = [packed[a:b].astype(np.int64) for a, b in itertools.pairwise(ends)]
        known = {name: value for name, value in facts.items() if name != "valid_ratio"}
        return cls(
            block, patch_size, rejection.with_ratio(facts["valid_ratio"]), **known,
            _starts=_axes(starts), _ends=packed[ends[-1] :],
        )  # fmt: skip

    def draw(self, rng: np.random.Generator) -> tuple[Shape3, Shape3]:
        """The first voxel of a place that qualifies, and of a patch anywhere up to the next place.

        The second one qualifies mostly, but must be looked at.
        """
        if not len(self):
            raise ValueError("no place qualifies")
        at = int(np.searchsorted(self._ends, rng.random() * self._ends[-1], side="right"))
        shape = three(len(starts) for starts in self._starts)
        index = np.unravel_index(min(at, len(self._ends) - 1), shape)
        sure, near = [], []
        for axis, (starts, i) in enumerate(zip(self._starts, index, strict=True)):
            first = int(starts[i])
            following = int(starts[i + 1]) if i + 1 < len(starts) else first + 1
            n, p = self.block.shape[axis], self.patch_size[axis]
            origin = self.block.start[axis] - (max(0, p - n) // 2)
            sure.append(origin + first)
            near.append(origin + int(rng.integers(first, following)))
        return three(sure), three(near)


def find_places(
    label: VolumeLike | None,
    mask: VolumeLike | None,
    block: Box,
    patch_size: Shape3,
    rejection: Rejection,
) -> Places:
    """Count the annotated and the foreground voxels of every patch on a lattice.

    Parameters
    ----------
    label : VolumeLike or None
        Read only if `rejection` has a size.
    mask : VolumeLike or None
        Non-zero where the label is annotated; None is everywhere.
    block : Box
        Inside the volumes.
    patch_size : (Z, Y, X)
    rejection : Rejection
        Without a valid ratio, one is chosen: a half, if patches of which more than that is
        annotated show at least half of what is annotated; else 0 (sparse slices, scribbles),
        and places are drawn in proportion to what is annotated in them.

    Notes
    -----
    Each volume is walked through once. Counts are exact at every place of the lattice, whose
    steps are a quarter of the patch: voxels are summed in cells between all first and last
    voxels of places, and cells into patches by cumulative sums. 8 bytes a cell are held.
    """
    grid = _Grid.of(block, patch_size)
    inside = int(np.prod([min(n, p) for n, p in zip(block.shape, patch_size, strict=True)]))
    cells = None if mask is None else _count(mask, block, grid)
    valid = np.ones(grid.shape) if cells is None else grid.patches(cells) / inside
    ratio = rejection.valid_ratio
    if ratio is None:
        ratio = 0.0 if cells is not None and _shown(grid, valid > 0.5, cells) < 0.5 else 0.5
    enough = valid > ratio if cells is not None else np.ones(grid.shape, bool)
    weights, best_size = enough.astype(np.float64), -1
    if cells is not None and ratio == 0:
        weights *= valid
    if rejection.size_thres > 0 and label is not None:
        sizes = grid.patches(_count(label, block, grid))
        weights[sizes < rejection.size_thres] *= 1 - rejection.p
        best_size = int(sizes[enough].max(initial=0))
    return Places(
        block,
        patch_size,
        rejection.with_ratio(ratio),
        1.0 if cells is None else int(cells.sum()) / block.size,
        float(valid.max()),
        best_size,
        float(np.count_nonzero(weights) / weights.size),
        grid.starts,
        np.cumsum(weights.reshape(-1)),
    )


@dataclass(frozen=True, slots=True)
class _Grid:
    """Places along each axis, and the edges of the cells between all their ends; from 0."""

    starts: tuple[Ints, Ints, Ints]
    edges: tuple[Ints, Ints, Ints]
    first: tuple[Ints, Ints, Ints]  # cell of each place's first voxel
    last: tuple[Ints, Ints, Ints]  # cell after its last

    @classmethod
    def of(cls, block: Box, patch_size: Shape3) -> _Grid:
        starts, edges, first, last = [], [], [], []
        for n, p in zip(block.shape, patch_size, strict=True):
            end = max(0, n - p)
            own = np.unique(np.append(np.arange(0, end, max(1, p // STEPS)), end))
            stops = np.minimum(own + p, n)
            borders = np.unique(np.concatenate([[0, n], own, stops]))
            starts.append(own)
            edges.append(borders)
            first.append(np.searchsorted(borders, own))
            last.append(np.searchsorted(borders, stops))
        return cls(_axes(starts), _axes(edges), _axes(first), _axes(last))

    @property
    def shape(self) -> Shape3:
        """Places along each axis."""
        return three(len(starts) for starts in self.starts)

    def patches(self, cells: Ints) -> Ints:
        """The sum of the cells of each place."""
        return _windows(cells, self.first, self.last)

    def shown_by(self, places: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The cells that any of some places shows."""
        begin, end = [], []
        for first, last, edges in zip(self.first, self.last, self.edges, strict=True):
            cell = np.arange(len(edges) - 1)
            # Places are in order: those from `begin` on end after the cell, those before `end`
            # begin at it or before.
            begin.append(np.searchsorted(last, cell, side="right"))
            end.append(np.searchsorted(first, cell, side="right"))
        return _windows(places.astype(np.int64), _axes(begin), _axes(end)) > 0


def _shown(grid: _Grid, places: npt.NDArray[np.bool_], cells: Ints) -> float:
    """The share of what is annotated that some places show together."""
    total = int(cells.sum())
    return int(cells[grid.shown_by(places)].sum()) / total if total else 0.0


def _windows(values: Ints, first: Sequence[Ints], last: Sequence[Ints]) -> Ints:
    """Sums over windows along each axis, by cumulative sums."""
    for axis in range(3):
        padding = [(1, 0) if a == axis else (0, 0) for a in range(3)]
        sums = np.pad(np.cumsum(values, axis=axis), padding)
        values = sums.take(last[axis], axis) - sums.take(first[axis], axis)
    return values


def _count(volume: VolumeLike, block: Box, grid: _Grid) -> Ints:
    """The non-zero voxels of each cell."""
    cells = np.zeros([len(edges) - 1 for edges in grid.edges], np.int64)
    for part in _slabs(volume, block):
        marked = (volume.read(part)[0] != 0).view(np.uint8)
        rows = np.add.reduceat(marked, grid.edges[2][:-1], axis=2, dtype=np.int64)
        planes = np.add.reduceat(rows, grid.edges[1][:-1], axis=1)
        z = np.arange(part.start[0], part.stop[0]) - block.start[0]
        np.add.at(cells, np.searchsorted(grid.edges[0], z, side="right") - 1, planes)
    return cells


def _slabs(volume: VolumeLike, block: Box) -> Iterator[Box]:
    _, ny, nx = block.shape
    depth = max(1, SLAB_BYTES // max(1, volume.dtype.itemsize * ny * nx))
    for z in range(block.start[0], block.stop[0], depth):
        stop = min(z + depth, block.stop[0])
        yield Box((z, *block.start[1:]), (stop, *block.stop[1:]))


def _axes(values: Sequence[Any]) -> tuple[Any, Any, Any]:
    z, y, x = values
    return z, y, x
