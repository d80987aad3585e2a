"""From splits to sites: which patch of which case is number i of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from volprep.autoconfig import Plan
from volprep.config import PatchingConfig
from volprep.errors import PlanError
from volprep.geometry import Box, Shape3, three
from volprep.patching import (
    BlockPatching,
    EpochPatching,
    ForegroundPatching,
    Patching,
    PatchSpecs,
    block_shapes,
    create_patching,
)
from volprep.patching.compose import StartSource
from volprep.pipeline.cut import PreparedCase, Site
from volprep.randomness import sample_generator
from volprep.sampling import draw_accepted
from volprep.splits import SplitPart

__all__ = ["Block", "blocks_of", "grid_sites", "stored_patch_size", "training_sites"]

Block = tuple[int, Box]
#: How often random patches cover a case, on average, where the config gives no number.
COVERAGE = 2


def blocks_of(parts: Sequence[SplitPart], prepared: Sequence[PreparedCase]) -> list[Block]:
    """The regions of one side of the splits, by the numbers of the cases."""
    numbers = {case.name: number for number, case in enumerate(prepared)}
    return [
        (numbers[part.case], part.box or Box.whole(prepared[numbers[part.case]].image.shape))
        for part in parts
    ]


def stored_patch_size(plan: Plan, blocks: Sequence[Block]) -> Shape3:
    """The augmentation patch, but nowhere beyond the largest region and the patch itself."""
    widest = [max(axis) for axis in zip(*(box.shape for _, box in blocks), strict=True)]
    return three(
        [
            max(p, min(a, w))
            for p, a, w in zip(plan.patch_size, plan.aug_patch_size, widest, strict=True)
        ]
    )


def training_sites(
    blocks: Sequence[Block],
    patch_size: Shape3,
    patching: PatchingConfig,
    *,
    foreground: Sequence[StartSource | None],
    weights: Sequence[float],
    seed: int,
    accept: Callable[[Site, np.random.Generator], bool] | None = None,
    adapt: Callable[[Patching], object] | None = None,
) -> list[Site]:
    """The sites of the training split, in order.

    Parameters
    ----------
    blocks : sequence of (int, Box)
        The case's number and the region that its patches may see.
    patch_size : (Z, Y, X)
        Of the stored patches.
    patching : PatchingConfig
    foreground : sequence of (StartSource or None)
        One for each block.
    weights : sequence of float
        Of each case, by number.
    seed : int
    accept : callable or None
        Whether a drawn site is kept; others are drawn anew.
    adapt : callable or None
        Changes the strategy on the blocks before anything is drawn, as a filter does.

    Raises
    ------
    PlanError
        If no patch is accepted, however often one is drawn, or `adapt` leaves none.
    """
    if patching.name == "sequential":
        sites = grid_sites(blocks, patch_size, patching.overlap)
        return [
            site
            for number, site in enumerate(sites)
            if accept is None or accept(site, sample_generator(seed, 0, number))
        ]
    base = create_patching(block_shapes(blocks, patch_size), _parameters(patching, patch_size))
    if adapt is not None:
        adapt(base)
    if base.n_patches == 0:
        raise PlanError("patching.filter leaves no patch; loosen it or raise filtered_patch_prob")
    around = ForegroundPatching(base, foreground, patching.foreground.p)
    placed = BlockPatching(around, blocks, patch_size)
    strategy = _epoch(placed, blocks, patching.patches_per_case, weights)
    return [_draw(strategy, number, seed, blocks, accept) for number in range(strategy.n_patches)]


def _draw(
    strategy: Patching,
    number: int,
    seed: int,
    blocks: Sequence[Block],
    accept: Callable[[Site, np.random.Generator], bool] | None,
) -> Site:
    rng = sample_generator(seed, 0, number)

    def draw() -> Site:
        return _site(strategy.get_patch_spec(number, rng), blocks)

    if accept is None:
        return draw()
    return draw_accepted(draw, lambda site: accept(site, rng), where=f"training patch {number}")


def grid_sites(
    blocks: Sequence[Block], patch_size: Shape3, overlap: Sequence[int] = (0, 0, 0)
) -> list[Site]:
    """Sites on a grid that covers every block, the last ones aligned to its end."""
    if not blocks:
        return []
    grid = create_patching(
        block_shapes(blocks, patch_size),
        {"name": "sequential", "patch_size": patch_size, "overlaps": tuple(overlap)},
    )
    placed = BlockPatching(grid, blocks, patch_size)
    return [_site(placed.get_patch_spec(i), blocks) for i in range(placed.n_patches)]


def _parameters(patching: PatchingConfig, patch_size: Shape3) -> dict[str, Any]:
    """Of the strategy on the blocks; its own generator is never used."""
    common = {"name": patching.name, "patch_size": patch_size, "seed": 0}
    return common | ({"uniform": patching.uniform} if patching.name == "stratified" else {})


def _epoch(
    placed: Patching, blocks: Sequence[Block], total: int | None, weights: Sequence[float]
) -> Patching:
    count = placed.n_patches * COVERAGE if total is None else total * len({c for c, _ in blocks})
    tiles = [len(placed.get_patch_indices(i)) if total is None else 1 for i in range(len(weights))]
    present = {case for case, _ in blocks}
    shares = [
        w * t if i in present else 0.0 for i, (w, t) in enumerate(zip(weights, tiles, strict=True))
    ]
    return EpochPatching(placed, len(weights), n_patches=count, weights=shares)


def _site(spec: PatchSpecs, blocks: Sequence[Block]) -> Site:
    z, y, x = spec["coords"]
    box = Box.at((z, y, x), spec["patch_size"])
    case = spec["data_idx"]
    region = max(
        (block for number, block in blocks if number == case),
        key=lambda block: block.common(box).size,
    )
    return Site(case, region, (z, y, x))
