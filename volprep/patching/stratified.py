"""Patches that chance places and that still cover each sample evenly in every epoch.

A patch is named by its first voxel, its start. The starts of a sample lie in cells
of one patch each; cell by cell they are laid out along a line, each start as long
as its weight. With n patches the line is cut into n equal pieces and index k draws
its start from piece k. So every start is drawn n / (length of the line) times its
weight in an epoch, exactly, and no part of the sample waits long for its turn.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from volprep.patching.samples import SampleTable, TabledPatching
from volprep.patching.specs import PatchSpecs

__all__ = ["SampleStrata", "StratifiedPatching", "sample_axes"]

Cell = tuple[int, ...]
ROUNDING = 1e-9  # sums of probabilities just above a whole number do not make another patch


class StratifiedPatching(TabledPatching):
    """Draws patches evenly over each sample; cells of a grid can be excluded or made rarer.

    Parameters
    ----------
    data_shapes : sequence of (sequence of int)
        Shapes of the image stacks, SC(Z)YX.
    patch_size : sequence of int
        Voxels along (Z)YX; also the spacing of the grid.
    seed : int or None
        Of the strategy's own generator, which draws when `get_patch_spec` gets none.
    uniform : bool
        False: every start is equally likely and there are as many patches as would
        tile the sample, so that voxels near its border are seen less and the
        others more often. True: see Notes.

    Attributes
    ----------
    image_patching : list of list of SampleStrata
        The grid of each sample of each stack.

    Raises
    ------
    ValueError
        If lengths do not go together or the patch is larger than a sample.

    Notes
    -----
    With ``uniform=True`` the patch slides over every position that touches the
    sample and is pushed back inside where it sticks out, and the number of patches
    is the smallest with which an inner voxel is seen at least once in an epoch. A
    voxel that lies at least a patch from the border (of the sample, or of any
    excluded cell) on every axis is then seen c times on average, the same for all of
    them: ``c = n_patches * prod(patch) / W`` with W the number of positions, weighted
    by their probabilities, and ``1 <= c < 1 + prod(patch) / W``. Nearer to the sample's
    border, far from excluded cells, it is seen at least c times and at most, for each
    axis, twice as often near one face and three times near both. `expected_coverage`
    computes the map.

    After CAREamics' `StratifiedPatching`: the same grid, the same numbers of patches,
    starts with the same probabilities. Differs: the pieces of a line take the place of
    regions packed into bins, so that what an index draws is near to what it drew
    before, whatever the probabilities; unknown grid coordinates and probabilities
    outside 0 to 1 are errors; a negative number of patches is none.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        seed: int | None = None,
        *,
        uniform: bool = False,
    ) -> None:
        self.uniform = uniform
        self.rng = np.random.default_rng(seed)
        shapes, patch = self._accept(data_shapes, patch_size)
        axes = {shape[2:]: sample_axes(shape[2:], patch, uniform=uniform) for shape in shapes}
        self.image_patching = [
            [SampleStrata(axes[shape[2:]], uniform=uniform) for _ in range(shape[0])]
            for shape in shapes
        ]
        self._count()

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """Draw a patch from the part of a sample that belongs to `index`.

        Parameters
        ----------
        index : int
            From 0 to `n_patches` - 1.
        rng : numpy.random.Generator or None
            Given one, the patch is a function of `index` and its state.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        data_idx, sample_idx, number = self._table.find(index)
        u = (self.rng if rng is None else rng).random()
        strata = self.image_patching[data_idx][sample_idx]
        return self._specs(data_idx, sample_idx, strata.start_at(number, u))

    def exclude_patches(
        self, data_idx: int, sample_idx: int, grid_coords: Sequence[tuple[int, ...]]
    ) -> None:
        """Never draw a patch that touches one of these cells, and count the patches anew.

        Parameters
        ----------
        data_idx, sample_idx : int
            The sample.
        grid_coords : sequence of (tuple of int)
            Cells of the grid; cell g covers the voxels from g * `patch_size` on, one
            patch of them.

        Raises
        ------
        ValueError
            If a cell is not on the grid.
        """
        self.image_patching[data_idx][sample_idx].exclude(grid_coords)
        self._count()

    def set_region_probs(
        self, data_idx: int, sample_idx: int, probs: Mapping[tuple[int, ...], float]
    ) -> None:
        """Draw the patches that start in these cells less often, and count the patches anew.

        Parameters
        ----------
        data_idx, sample_idx : int
            The sample.
        probs : mapping of (tuple of int) to float
            The share, from 0 to 1, that is kept of the patches that start in a cell.
            Cells that are not named stay as they are.

        Raises
        ------
        ValueError
            If a cell is not on the grid or a probability not from 0 to 1.
        """
        self.image_patching[data_idx][sample_idx].set_probs(probs)
        self._count()

    def get_all_grid_coords(self) -> dict[tuple[int, int], Sequence[tuple[int, ...]]]:
        """Every cell of every sample, by (data_idx, sample_idx)."""
        return {
            key: list(itertools.product(*map(range, strata.grid_shape)))
            for key, strata in self._strata()
        }

    def get_included_grid_coords(self) -> dict[tuple[int, int], list[tuple[int, ...]]]:
        """Every cell that is not excluded, by (data_idx, sample_idx)."""
        return {key: strata.included_cells() for key, strata in self._strata()}

    def _strata(self) -> Iterable[tuple[tuple[int, int], SampleStrata]]:
        for data_idx, stack in enumerate(self.image_patching):
            for sample_idx, strata in enumerate(stack):
                yield (data_idx, sample_idx), strata

    def _count(self) -> None:
        counts = [strata.n_patches for stack in self.image_patching for strata in stack]
        self._table = SampleTable([len(stack) for stack in self.image_patching], counts)


class _Axis:
    """The starts along one axis of a sample, in segments.

    Each cell has two segments: its first start, whose patch lies in this cell alone,
    and all others, whose patches reach into the next one. Where chance is uniform a
    start at the sample's border stands for all positions that are pushed to it.
    """

    def __init__(self, size: int, patch: int, uniform: bool) -> None:
        self.size, self.patch, self.last = size, patch, size - patch
        self.cells = (size + 1) // patch
        self.first_position = 1 - patch if uniform else 0
        self.positions = size + patch - 1 if uniform else self.last + 1
        cell = np.arange(self.cells, dtype=np.int64) * patch
        bounds = np.append(np.stack([cell, cell + 1], axis=1), self.cells * patch)
        bounds = np.where(bounds > self.last, self.first_position + self.positions, bounds)
        bounds[0] = self.first_position
        self.bounds = bounds
        self.lengths = np.diff(bounds)
        self.cell_bounds: list[int] = bounds[::2].tolist()

    def start(self, position: int) -> int:
        """The start of a patch at `position`, pushed into the sample."""
        return min(max(position, 0), self.last)

    def coverage(self, voxels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """How many positions of each segment show each voxel, as (voxels, segments)."""
        end = self.first_position + self.positions
        # Every position before the first inner one shows the voxel if start 0 does.
        low = np.where(voxels < self.patch, self.first_position, voxels - self.patch + 1)
        high = np.where(voxels >= self.last, end, voxels + 1)
        inside = np.minimum(high[:, None], self.bounds[1:]) - np.maximum(
            low[:, None], self.bounds[:-1]
        )
        seen: npt.NDArray[np.float64] = np.maximum(inside, 0).astype(np.float64)
        return seen


def sample_axes(shape: Sequence[int], patch_size: Sequence[int], *, uniform: bool) -> list[_Axis]:
    """The starts along each axis of a sample of `shape`, (Z)YX."""
    return [_Axis(n, p, uniform) for n, p in zip(shape, patch_size, strict=True)]


class SampleStrata:
    """One sample's starts, laid out along a line and cut into as many pieces as patches.

    Parameters
    ----------
    axes : sequence of _Axis
        Along (Z)YX, from `sample_axes`; shared between samples of one shape.
    uniform : bool
        How the patches are counted; see `StratifiedPatching`.

    Attributes
    ----------
    grid_shape : tuple of int
        Cells along (Z)YX.
    n_patches : int
        Pieces of the line.
    """

    def __init__(self, axes: Sequence[_Axis], *, uniform: bool) -> None:
        self._axes, self._uniform = axes, uniform
        self.grid_shape = tuple(axis.cells for axis in axes)
        self._excluded: npt.NDArray[np.bool_] | None = None
        self._probs: npt.NDArray[np.float64] | None = None
        # Without exclusions and probabilities the line needs no table; see _plain_start.
        self._ends: npt.NDArray[np.float64] | None = None
        self._length: float = math.prod(axis.positions for axis in axes)
        self.n_patches = self._count()

    def start_at(self, number: int, u: float) -> tuple[int, ...]:
        """The start that lies the share `u` along piece `number` of the line."""
        where = (number + u) * self._length / self.n_patches
        if self._ends is None:
            return self._plain_start(min(int(where), int(self._length) - 1))
        return self._table_start(where, self._ends)

    def exclude(self, cells: Iterable[Cell]) -> None:
        """Allow no start whose patch touches one of `cells`."""
        excluded = np.zeros(self.grid_shape, bool) if self._excluded is None else self._excluded
        excluded[self._index(list(cells))] = True
        self._excluded = excluded
        self._lay_out()

    def set_probs(self, probs: Mapping[Cell, float]) -> None:
        """Weigh the starts of each cell by its probability."""
        values = np.fromiter(probs.values(), np.float64, len(probs))
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("region probabilities must lie from 0 to 1")
        weights = np.ones(self.grid_shape) if self._probs is None else self._probs
        weights[self._index(list(probs))] = values
        self._probs = weights
        self._lay_out()

    def included_cells(self) -> list[Cell]:
        """Every cell that is not excluded."""
        if self._excluded is None:
            return list(itertools.product(*map(range, self.grid_shape)))
        return [tuple(cell) for cell in np.argwhere(~self._excluded).tolist()]

    def coverage(self, voxels: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        """How often each voxel of the grid of `voxels` along (Z)YX is seen in an epoch."""
        if self.n_patches == 0:
            return np.zeros([len(v) for v in voxels])
        seen = [axis.coverage(v) for axis, v in zip(self._axes, voxels, strict=True)]
        if self._ends is None:
            result = np.ones(())
            for axis_seen in seen:
                result = np.multiply.outer(result, axis_seen.sum(axis=1))
        else:
            result = self._density()
            for axis_seen in seen:  # one axis after the other moves to the end
                result = np.tensordot(result, axis_seen, axes=([0], [1]))
        return result * (self.n_patches / self._length)

    def _index(self, cells: list[Cell]) -> tuple[npt.NDArray[np.int64], ...]:
        for cell in cells:
            fits = len(cell) == len(self.grid_shape) and all(
                0 <= c < n for c, n in zip(cell, self.grid_shape, strict=True)
            )
            if not fits:
                raise ValueError(f"cell {tuple(cell)} is not on the grid of {self.grid_shape}")
        return tuple(np.array(cells, np.int64).reshape(-1, len(self.grid_shape)).T)

    def _count(self) -> int:
        if self._length <= 0:
            return 0
        if self._uniform:
            patches = self._length / math.prod(axis.patch for axis in self._axes)
        else:  # in floating point, as CAREamics counts
            patches = math.prod(axis.size / axis.patch for axis in self._axes)
            patches -= 0 if self._excluded is None else int(self._excluded.sum())
        if self._probs is not None:
            patches -= 0 if self._uniform else float((1 - self._probs).sum())
            patches -= ROUNDING
        return max(0, math.ceil(patches))

    def _density(self) -> npt.NDArray[np.float64]:
        """The weight of a start in each segment of the sample: its probability, 0 where illegal."""
        ndim = len(self._axes)
        shape = [axis.cells * 2 for axis in self._axes]
        density = np.ones(shape)
        if self._probs is not None:
            weights = self._probs
            for axis in range(ndim):
                weights = weights.repeat(2, axis=axis)
            density *= weights
        if self._excluded is not None:
            # A start in a second segment reaches into the next cell on that axis.
            padded = np.pad(self._excluded, [(0, 1)] * ndim)
            for step in itertools.product((0, 1), repeat=ndim):
                for reach in itertools.product(*[range(s + 1) for s in step]):
                    touched = padded[
                        tuple(slice(r, r + n) for r, n in zip(reach, self.grid_shape, strict=True))
                    ]
                    density[tuple(slice(s, None, 2) for s in step)][touched] = 0
        return density

    def _lay_out(self) -> None:
        """Build the table of the line: the end of every segment, the segments cell by cell."""
        ndim = len(self._axes)
        weights = self._density()
        for axis, strip in enumerate(self._axes):
            weights *= strip.lengths.reshape([-1 if i == axis else 1 for i in range(ndim)])
        paired = weights.reshape([n for cells in self.grid_shape for n in (cells, 2)])
        order = [*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2)]
        self._ends = np.cumsum(paired.transpose(order).ravel())
        self._length = float(self._ends[-1])
        self.n_patches = self._count()

    def _plain_start(self, where: int) -> tuple[int, ...]:
        """The start at a place on a line whose cells all count in full, by division alone."""
        starts, extents, inner = [], [], 1
        rest = math.prod(axis.positions for axis in self._axes)
        for axis in self._axes:
            rest //= axis.positions
            bounds = axis.cell_bounds
            position = axis.first_position + where // (inner * rest)
            cell = bisect_right(bounds, position) - 1
            where -= (bounds[cell] - axis.first_position) * inner * rest
            extent = bounds[cell + 1] - bounds[cell]
            inner *= extent
            starts.append(bounds[cell])
            extents.append(extent)
        return self._inside(where, starts, extents)

    def _table_start(self, where: float, ends: npt.NDArray[np.float64]) -> tuple[int, ...]:
        segment = int(np.searchsorted(ends, where, side="right"))
        if segment == len(ends):  # rounding at the line's very end
            segment = int(np.searchsorted(ends, ends[-1], side="left"))
        before = ends[segment - 1] if segment else 0.0
        share = (where - before) / (ends[segment] - before)
        ndim = len(self._axes)
        cell, part = divmod(segment, 2**ndim)
        starts, extents = [], []
        for number, axis in reversed(list(enumerate(self._axes))):
            cell, place = divmod(cell, axis.cells)
            strip = 2 * place + (part >> (ndim - 1 - number) & 1)
            starts.append(int(axis.bounds[strip]))
            extents.append(int(axis.lengths[strip]))
        volume = math.prod(extents)
        inside = min(int(share * volume), volume - 1)
        return self._inside(inside, starts[::-1], extents[::-1])

    def _inside(self, where: int, starts: list[int], extents: list[int]) -> tuple[int, ...]:
        """The start at place `where` of a box of positions, counted in C order."""
        result = []
        for axis, start, extent in zip(
            reversed(self._axes), reversed(starts), reversed(extents), strict=True
        ):
            where, offset = divmod(where, extent)
            result.append(axis.start(start + offset))
        return tuple(result[::-1])
