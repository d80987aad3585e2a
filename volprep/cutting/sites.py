"""From splits to sites: which patch of which case is number i of a split."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np

from volprep.cutting.draw import Acceptance, Drawing
from volprep.cutting.patches import PreparedCase, Site
from volprep.cutting.places import Block, TrainingPlaces, regions_of, shown_of, site_of
from volprep.geometry import Box, Shape3, three
from volprep.patching import BlockPatching, block_shapes, create_patching
from volprep.randomness import sample_generator
from volprep.sampling import FilteredRegions
from volprep.splits import SplitPart

__all__ = [
    "annotated_sites",
    "blocks_of",
    "grid_sites",
    "stored_patch_size",
    "training_sites",
]


def blocks_of(parts: Sequence[SplitPart], prepared: Sequence[PreparedCase]) -> list[Block]:
    """The regions of one side of the splits, by the numbers of the cases."""
    numbers = {case.name: number for number, case in enumerate(prepared)}
    return [
        (numbers[part.case], part.box or Box.whole(prepared[numbers[part.case]].image.shape))
        for part in parts
    ]


def stored_patch_size(patch: Shape3, augmented: Shape3, blocks: Sequence[Block]) -> Shape3:
    """The augmentation patch, but nowhere beyond the largest region and the patch itself."""
    widest = [max(axis) for axis in zip(*(box.shape for _, box in blocks), strict=True)]
    return three([max(p, min(a, w)) for p, a, w in zip(patch, augmented, widest, strict=True)])


def training_sites(
    blocks: Sequence[Block],
    patch_size: Shape3,
    drawing: Drawing,
    prepared: Sequence[PreparedCase],
    *,
    weights: Sequence[float],
    progress: Callable[[int], None] = lambda _: None,
    rejected: list[Site] | None = None,
    filtered: list[FilteredRegions] | None = None,
) -> list[Site]:
    """The sites of the training split, in order.

    Parameters
    ----------
    blocks : sequence of (int, Box)
        The case's number and the region that its patches may see.
    patch_size : (Z, Y, X)
        Of the stored patches.
    drawing : Drawing
    prepared : sequence of PreparedCase
        Labels are read where foreground is looked for, images where regions are filtered.
    weights : sequence of float
        Of each case, by number.
    progress : callable
        Told of each block whose foreground is known.
    rejected, filtered : list or None
        What was thrown back, and what the filter saw of each block, is added to them.

    Raises
    ------
    PlanError
        If no place for a patch qualifies, or the filter leaves none.

    Notes
    -----
    A site is a function of the seed, the case's name and the site's number among those of
    its case, so that another case beside it moves none of them.
    """
    names = [case.name for case in prepared]
    if drawing.name == "sequential":
        accept = Acceptance(drawing, prepared, blocks, patch_size, rejected)
        shown = shown_of(drawing, patch_size)
        middle = three((n - p) // 2 for n, p in zip(patch_size, shown, strict=True))
        grid = grid_sites(accept.blocks, patch_size, drawing.overlap)
        sites = [dataclasses.replace(site, shown=middle) for site in grid]
        streams = _streams(drawing.seed, names, [site.case for site in sites])
        return [site for site, rng in zip(sites, streams, strict=True) if accept(site, rng)]
    places = TrainingPlaces(
        blocks, patch_size, drawing, prepared,
        weights=weights, progress=progress, rejected=rejected, filtered=filtered,
    )  # fmt: skip
    streams = _streams(drawing.seed, names, places.cases)
    return [places.draw(number, rng) for number, rng in enumerate(streams)]


def _streams(
    seed: int, names: Sequence[str], cases: Sequence[int]
) -> Iterator[np.random.Generator]:
    """The generator of each site: of its case's name, and its number among that case's sites."""
    count: Counter[int] = Counter()
    for case in cases:
        own = int.from_bytes(blake2b(names[case].encode(), digest_size=4).digest(), "big")
        yield sample_generator(seed, 0, (own << 32) + count[case])
        count[case] += 1


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
    placed, regions = BlockPatching(grid, blocks, patch_size), regions_of(blocks)
    return [site_of(placed.get_patch_spec(i), regions) for i in range(placed.n_patches)]


def annotated_sites(
    sites: Sequence[Site], patch_size: Shape3, prepared: Sequence[PreparedCase]
) -> list[Site]:
    """The sites of which at least one voxel is annotated; of cases without a mask all.

    A patch that holds nothing annotated says nothing of a network; all of them are kept where
    none would be left.
    """
    kept = [site for site in sites if _is_annotated(site, patch_size, prepared[site.case])]
    return kept or list(sites)


def _is_annotated(site: Site, patch_size: Shape3, case: PreparedCase) -> bool:
    if case.mask is None:
        return True
    return bool(np.any(case.mask.read(site.region.common(Box.at(site.start, patch_size)))))
