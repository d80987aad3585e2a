"""Patches and tiles on a grid: the places along each axis are enough to name every one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from volprep.patching.samples import SampleTable, TabledPatching, check_overlaps
from volprep.patching.specs import PatchSpecs, SpecSequence, TileSpecs

__all__ = ["SequentialPatching", "TiledPatching"]


class SequentialPatching(TabledPatching):
    """Covers each sample with a grid of patches; the last one on each axis ends with the sample.

    Parameters
    ----------
    data_shapes : sequence of (sequence of int)
        Shapes of the image stacks, SC(Z)YX.
    patch_size : sequence of int
        Voxels along (Z)YX.
    overlaps : sequence of int or None
        Voxels that neighbours share on each axis; None is none.

    Raises
    ------
    ValueError
        If lengths do not go together, the patch is larger than a sample, or an
        overlap is not smaller than the patch.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        overlaps: Sequence[int] | None = None,
    ) -> None:
        shapes, patch = self._accept(data_shapes, patch_size)
        self.overlaps = check_overlaps([0] * len(patch) if overlaps is None else overlaps, patch)
        self._axes = [
            [_grid_starts(*axis) for axis in zip(shape[2:], patch, self.overlaps, strict=True)]
            for shape in shapes
        ]
        self._table = _grid_table(shapes, self._axes)

    @property
    def patch_specs(self) -> Sequence[PatchSpecs]:
        """All patches in order."""
        return SpecSequence(self.n_patches, self.get_patch_spec)

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """The patch of `index`, the last axis counting fastest; `rng` is not used.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        data_idx, sample_idx, number = self._table.find(index)
        axes = self._axes[data_idx]
        places = _unravel(number, [len(axis) for axis in axes])
        coords = tuple([axis[i] for axis, i in zip(axes, places, strict=True)])
        return self._specs(data_idx, sample_idx, coords)


class TiledPatching(TabledPatching):
    """Cuts each sample into overlapping tiles that say how they are put together again.

    Parameters
    ----------
    data_shapes : sequence of (sequence of int)
        Shapes of the image stacks, SC(Z)YX.
    patch_size : sequence of int
        Of a tile, in voxels along (Z)YX. A sample that is smaller on an axis gives
        one tile there, of which the sample's own size is kept.
    overlaps : sequence of int
        Voxels that neighbours share on each axis; half is cut from either.

    Raises
    ------
    ValueError
        If lengths do not go together or an overlap is not smaller than the tile.

    Notes
    -----
    After CAREamics' `TiledPatching`, tile for tile. Of an odd overlap, the first
    tile keeps one voxel that the second one keeps as well; both are the same voxel.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        overlaps: Sequence[int],
    ) -> None:
        shapes, patch = self._accept(data_shapes, patch_size, fits=False)
        self.overlaps = check_overlaps(overlaps, patch)
        self._axes = [
            [_tile_axis(*axis) for axis in zip(shape[2:], patch, self.overlaps, strict=True)]
            for shape in shapes
        ]
        self._table = _grid_table(shapes, self._axes)
        self._totals = [
            shape[0] * math.prod(map(len, axes))
            for shape, axes in zip(shapes, self._axes, strict=True)
        ]

    @property
    def tile_specs(self) -> Sequence[TileSpecs]:
        """All tiles in order."""
        return SpecSequence(self.n_patches, self.get_patch_spec)

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> TileSpecs:
        """The tile of `index`, the last axis counting fastest; `rng` is not used.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        data_idx, sample_idx, number = self._table.find(index)
        axes = self._axes[data_idx]
        places = _unravel(number, [len(axis) for axis in axes])
        coords, stitch, crop, size = zip(
            *[axis[i] for axis, i in zip(axes, places, strict=True)], strict=True
        )
        return {
            **self._specs(data_idx, sample_idx, coords),
            "crop_coords": crop,
            "crop_size": size,
            "stitch_coords": stitch,
            "total_tiles": self._totals[data_idx],
        }


def _grid_starts(size: int, patch: int, overlap: int) -> list[int]:
    starts = list(range(0, size - patch + 1, patch - overlap))
    return starts if starts[-1] == size - patch else [*starts, size - patch]


def _tile_axis(size: int, patch: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """(start, place in the image, first kept voxel, kept voxels) of each tile along an axis."""
    if size <= patch:
        return [(0, 0, 0, size)]
    half, step = overlap // 2, patch - overlap
    tiles = [(0, 0, 0, patch - half)]
    tiles += [(i, i + half, half, step) for i in range(step, size - patch, step)]
    end = tiles[-1][1] + tiles[-1][3]
    return [*tiles, (size - patch, end, end - (size - patch), size - end)]


def _grid_table(
    shapes: Sequence[Sequence[int]], axes: Sequence[Sequence[Sequence[object]]]
) -> SampleTable:
    counts = [math.prod(map(len, axis)) for axis in axes]
    samples = [shape[0] for shape in shapes]
    return SampleTable(samples, [c for c, n in zip(counts, samples, strict=True) for _ in range(n)])


def _unravel(number: int, counts: Sequence[int]) -> list[int]:
    places = []
    for count in reversed(counts):
        number, place = divmod(number, count)
        places.append(place)
    return places[::-1]
