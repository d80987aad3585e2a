"""Strategies around a strategy: in blocks of volumes, around foreground, in epochs of any length.

They stack: ``EpochPatching(BlockPatching(ForegroundPatching(base, ...), ...), ...)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3
from volprep.patching.samples import SampleTable, TabledPatching, pad_to_patch
from volprep.patching.specs import Patching, PatchSpecs

__all__ = ["BlockPatching", "EpochPatching", "ForegroundPatching", "StartSource", "block_shapes"]


class StartSource(Protocol):
    """Draws starts of patches that hold something; `volprep.sampling.ForegroundIndex` is one."""

    @property
    def box(self) -> Box:
        """The part of the volume that it draws from."""
        ...

    def __len__(self) -> int:
        """How many things there are to draw; 0 for nothing."""
        ...

    def patch_start(self, rng: np.random.Generator, patch_size: Sequence[int]) -> Shape3:
        """The first voxel of a patch, in the volume's own (Z, Y, X)."""
        ...


def block_shapes(
    blocks: Sequence[tuple[int, Box]], patch_size: Sequence[int]
) -> list[tuple[int, ...]]:
    """Shapes to make a strategy on whose samples are blocks, padded to a patch where smaller.

    Parameters
    ----------
    blocks : sequence of (int, Box)
        The volume's number and the part of it that patches may come from.
    patch_size : sequence of int
        (Z, Y, X) in voxels.

    Returns
    -------
    list of tuple of int
        (1, 1, Z, Y, X) for each block.
    """
    return [(1, 1, *pad_to_patch(box.shape, patch_size)[0]) for _, box in blocks]


class BlockPatching:
    """Moves the patches of a strategy on blocks to where the blocks lie in their volumes.

    Parameters
    ----------
    inner : Patching
        Made on `block_shapes`: its stacks are the blocks.
    blocks : sequence of (int, Box)
        The volume's number, which becomes `data_idx`, and the block in it.
    patch_size : sequence of int
        (Z, Y, X) in voxels.

    Notes
    -----
    A patch stays inside its block. Where the block is smaller than the patch, the
    patch sticks out on both sides, by half the difference and by the rest: `coords`
    are then less than the block's start and may be negative.
    """

    def __init__(
        self, inner: Patching, blocks: Sequence[tuple[int, Box]], patch_size: Sequence[int]
    ) -> None:
        self.inner, self.blocks = inner, list(blocks)
        self._of_volume: dict[int, list[int]] = {}
        for block, (volume, _) in enumerate(self.blocks):
            self._of_volume.setdefault(volume, []).append(block)
        pads = [pad_to_patch(box.shape, patch_size)[1] for _, box in self.blocks]
        self._origins = [
            tuple(a - b for a, b in zip(box.start, pad, strict=True))
            for (_, box), pad in zip(self.blocks, pads, strict=True)
        ]

    @property
    def n_patches(self) -> int:
        """How many patches there are."""
        return self.inner.n_patches

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """The patch of `index` in its volume's voxels.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        specs = self.inner.get_patch_spec(index, rng)
        block = specs["data_idx"]
        origin = self._origins[block]
        return {
            "data_idx": self.blocks[block][0],
            "sample_idx": specs["sample_idx"],
            "coords": tuple([a + c for a, c in zip(origin, specs["coords"], strict=True)]),
            "patch_size": specs["patch_size"],
        }

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """The indices of all patches that come from one volume, from any of its blocks."""
        return [
            index
            for block in self._of_volume.get(data_idx, ())
            for index in self.inner.get_patch_indices(block)
        ]


class ForegroundPatching:
    """Draws some patches of another strategy around foreground instead, without rejection.

    Parameters
    ----------
    base : Patching
        With one sample for each stack (such as made on `block_shapes`).
    sources : sequence of (StartSource or None)
        One for each stack of `base`, such as a `ForegroundIndex`; coordinates of its
        box become coordinates of the stack. None or an empty one leaves the base's
        patches.
    p : float
        The share of patches around foreground, from 0 to 1.
    seed : int or None
        Of the strategy's own generator, which draws when `get_patch_spec` gets none.

    Raises
    ------
    ValueError
        If `p` is not from 0 to 1.

    Notes
    -----
    An index keeps the stack that the base gives it. Its first draw decides between
    foreground and base, so `p` holds on average over indices and epochs.
    """

    def __init__(
        self,
        base: Patching,
        sources: Sequence[StartSource | None],
        p: float,
        seed: int | None = None,
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"foreground p = {p}: wanted 0 to 1")
        self.base, self.sources, self.p = base, list(sources), p
        self.rng = np.random.default_rng(seed)

    @property
    def n_patches(self) -> int:
        """How many patches there are."""
        return self.base.n_patches

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """The patch of `index`, around foreground with probability `p`.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        rng = self.rng if rng is None else rng
        forced = rng.random() < self.p
        specs = self.base.get_patch_spec(index, rng)
        source = self.sources[specs["data_idx"]]
        if not forced or source is None or not len(source):
            return specs
        box, patch = source.box, specs["patch_size"]
        start, pad = source.patch_start(rng, patch), pad_to_patch(box.shape, patch)[1]
        coords = [s - a + b for s, a, b in zip(start, box.start, pad, strict=True)]
        return {**specs, "coords": tuple(coords)}

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """The indices of all patches that come from one stack."""
        return self.base.get_patch_indices(data_idx)


class EpochPatching(TabledPatching):
    """Makes an epoch as long as wanted, with as many patches of each stack as wanted.

    Parameters
    ----------
    base : Patching
        Names the patches.
    n_stacks : int
        How many stacks it has.
    n_patches : int or None
        Patches in an epoch, shared out by weight; None if `per_stack` is given.
    weights : sequence of float or None
        Of each stack, 0 or more; None weighs each by its patches in `base`.
    per_stack : int or None
        Patches of each stack instead ("samples per image").
    seed : int or None
        Of the strategy's own generator, which draws when `get_patch_spec` gets none.

    Raises
    ------
    ValueError
        If not exactly one of `n_patches` and `per_stack` is given, or weights are
        negative, all zero, or not one for each stack.

    Notes
    -----
    The stacks' shares are whole numbers, rounded so that they add up and the largest
    remainders win. Among the patches of its stack an index draws one from its own
    equal part of the base's indices: fewer than the base has are spread over all of
    them, more go round evenly.
    """

    def __init__(
        self,
        base: Patching,
        n_stacks: int,
        *,
        n_patches: int | None = None,
        weights: Sequence[float] | None = None,
        per_stack: int | None = None,
        seed: int | None = None,
    ) -> None:
        if (n_patches is None) == (per_stack is None):
            raise ValueError("give either n_patches or per_stack")
        self.base = base
        self.rng = np.random.default_rng(seed)
        self._indices = [base.get_patch_indices(i) for i in range(n_stacks)]
        available = np.array([len(indices) for indices in self._indices], np.int64)
        if per_stack is not None:
            shares = np.where(available > 0, per_stack, 0)
        else:
            wanted = available if weights is None else np.asarray(weights)
            shares = _apportion(n_patches or 0, wanted, available > 0)
        self._shares = shares.tolist()
        self._table = SampleTable([1] * n_stacks, self._shares)

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """A patch of the stack of `index`.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        rng = self.rng if rng is None else rng
        stack, _, number = self._table.find(index)
        indices = self._indices[stack]
        place = (number + rng.random()) * len(indices) / self._shares[stack]
        return self.base.get_patch_spec(indices[min(int(place), len(indices) - 1)], rng)


def _apportion(
    total: int, weights: npt.NDArray[Any], possible: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Whole shares of `total` in proportion to `weights`; the largest remainders are rounded up."""
    if weights.shape != possible.shape or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"weights: wanted {len(possible)}, each 0 or more")
    weights = np.where(possible, weights, 0).astype(np.float64)
    if weights.sum() == 0:
        raise ValueError("weights: no stack that has patches weighs more than 0")
    exact = weights * (total / weights.sum())
    shares: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]] += 1
    return shares
