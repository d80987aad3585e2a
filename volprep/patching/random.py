"""Patches anywhere, as many as would tile each sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from volprep.patching.samples import SampleTable, TabledPatching
from volprep.patching.specs import PatchSpecs, SpecSequence

__all__ = ["FixedRandomPatching", "RandomPatching"]


class RandomPatching(TabledPatching):
    """Draws each patch anew, evenly over all places in its sample.

    Parameters
    ----------
    data_shapes : sequence of (sequence of int)
        Shapes of the image stacks, SC(Z)YX.
    patch_size : sequence of int
        Voxels along (Z)YX.
    seed : int or None
        Of the strategy's own generator, which draws when `get_patch_spec` gets none.

    Raises
    ------
    ValueError
        If lengths do not go together or the patch is larger than a sample.

    Notes
    -----
    After CAREamics' `RandomPatching`: the index decides the stack and the sample,
    chance the place; a sample gets as many indices as patches tile it. Differs: a
    patch larger than its sample is an error, and `get_patch_spec` takes a generator.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        seed: int | None = None,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        shapes, patch = self._accept(data_shapes, patch_size)
        self._table = _count_table(shapes, patch)
        self._places = [_places(shape, patch) for shape in shapes]

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """Draw a patch from the sample of `index`.

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
        data_idx, sample_idx, _ = self._table.find(index)
        draw = (self.rng if rng is None else rng).random
        coords = tuple([int(draw() * n) for n in self._places[data_idx]])
        return self._specs(data_idx, sample_idx, coords)


class FixedRandomPatching(TabledPatching):
    """Random patches that are drawn once, for validation.

    Parameters
    ----------
    data_shapes, patch_size, seed
        As for `RandomPatching`.

    Raises
    ------
    ValueError
        If lengths do not go together or the patch is larger than a sample.

    Notes
    -----
    After CAREamics' `FixedRandomPatching`; the numbers drawn for a seed are others.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        seed: int | None = None,
    ) -> None:
        shapes, patch = self._accept(data_shapes, patch_size)
        self._table = _count_table(shapes, patch)
        patches = [shape[0] * _tiles(shape, patch) for shape in shapes]
        places = np.array([_places(shape, patch) for shape in shapes]).reshape(-1, len(patch))
        draws = np.random.default_rng(seed).random((self.n_patches, len(patch)))
        self._coords = (draws * places.repeat(patches, axis=0)).astype(np.int64)

    @property
    def fixed_patch_specs(self) -> Sequence[PatchSpecs]:
        """All patches in order."""
        return SpecSequence(self.n_patches, self.get_patch_spec)

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """The patch of `index`, always the same; `rng` is not used.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        data_idx, sample_idx, _ = self._table.find(index)
        return self._specs(data_idx, sample_idx, tuple(self._coords[index].tolist()))


def _tiles(shape: Sequence[int], patch: Sequence[int]) -> int:
    """How many patches side by side cover one sample."""
    return math.prod(-(-n // p) for n, p in zip(shape[2:], patch, strict=True))


def _places(shape: Sequence[int], patch: Sequence[int]) -> list[int]:
    """How many places a patch has along each axis."""
    return [n - p + 1 for n, p in zip(shape[2:], patch, strict=True)]


def _count_table(shapes: Sequence[Sequence[int]], patch: Sequence[int]) -> SampleTable:
    counts = [tiles for shape in shapes for tiles in [_tiles(shape, patch)] * shape[0]]
    return SampleTable([shape[0] for shape in shapes], counts)
