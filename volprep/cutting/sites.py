"""From splits to sites: which patch of which case is number i of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from volprep.cutting.draw import Acceptance, Drawing, filtering, foreground
from volprep.cutting.patches import PreparedCase, Site
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
from volprep.randomness import sample_generator
from volprep.sampling import FilteredRegions
from volprep.splits import SplitPart

__all__ = [
    "Block",
    "TrainingPlaces",
    "blocks_of",
    "grid_sites",
    "stored_patch_size",
    "training_sites",
]

Block = tuple[int, Box]


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
        sites = grid_sites(accept.blocks, patch_size, drawing.overlap)
        streams = _streams(drawing.seed, names, [site.case for site in sites])
        return [site for site, rng in zip(sites, streams, strict=True) if accept(site, rng)]
    places = TrainingPlaces(
        blocks, patch_size, drawing, prepared,
        weights=weights, progress=progress, rejected=rejected, filtered=filtered,
    )  # fmt: skip
    streams = _streams(drawing.seed, names, places.cases)
    return [places.draw(number, rng) for number, rng in enumerate(streams)]


class TrainingPlaces:
    """The places of training patches, of which any is drawn when it is wanted.

    Parameters
    ----------
    blocks, patch_size, drawing, prepared, weights, progress, rejected, filtered
        As of `training_sites`; not ``sequential``.
    held : int or None
        How many blocks' foreground is held at once; None holds all. Sites in order need two,
        sites at random all.

    Raises
    ------
    PlanError
        As `training_sites`.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        patch_size: Shape3,
        drawing: Drawing,
        prepared: Sequence[PreparedCase],
        *,
        weights: Sequence[float],
        progress: Callable[[int], None] = lambda _: None,
        rejected: list[Site] | None = None,
        filtered: list[FilteredRegions] | None = None,
        held: int | None = 2,
    ) -> None:
        self._accept = Acceptance(drawing, prepared, blocks, patch_size, rejected)
        blocks = self._accept.blocks
        base = create_patching(block_shapes(blocks, patch_size), _parameters(drawing, patch_size))
        adapt = filtering(drawing, prepared, blocks)
        if adapt is not None:
            found = adapt(base)
            if filtered is not None:
                filtered.extend(found)
        if base.n_patches == 0:
            raise PlanError(
                "patching.filter leaves no patch; loosen it or raise filtered_patch_prob"
            )
        sources = foreground(drawing, prepared, blocks, progress, held=held)
        placed = BlockPatching(
            ForegroundPatching(base, sources, drawing.foreground), blocks, patch_size
        )
        self._strategy = _epoch(placed, blocks, drawing, weights)
        self._regions = _regions(blocks)
        self._n_cases = len(weights)

    def __len__(self) -> int:
        """Sites of one epoch."""
        return self._strategy.n_patches

    @property
    def cases(self) -> list[int]:
        """The case of each site of an epoch."""
        indices = self._strategy.get_patch_indices
        return [case for case in range(self._n_cases) for _ in indices(case)]

    def draw(self, number: int, rng: np.random.Generator) -> Site:
        """The strategy's own site, or, if it is thrown back, one that is known to qualify."""
        site = _site(self._strategy.get_patch_spec(number, rng), self._regions)
        return site if self._accept(site, rng) else self._accept.instead(site, rng)


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
    placed, regions = BlockPatching(grid, blocks, patch_size), _regions(blocks)
    return [_site(placed.get_patch_spec(i), regions) for i in range(placed.n_patches)]


def _parameters(drawing: Drawing, patch_size: Shape3) -> dict[str, Any]:
    """Of the strategy on the blocks; its own generator is never used."""
    common = {"name": drawing.name, "patch_size": patch_size, "seed": 0}
    return common | ({"uniform": drawing.uniform} if drawing.name == "stratified" else {})


def _epoch(
    placed: Patching, blocks: Sequence[Block], drawing: Drawing, weights: Sequence[float]
) -> Patching:
    present, total = {case for case, _ in blocks}, drawing.patches_per_case
    count = placed.n_patches * drawing.cover if total is None else total * len(present)
    tiles = [len(placed.get_patch_indices(i)) if total is None else 1 for i in range(len(weights))]
    shares = [
        w * t if i in present else 0.0 for i, (w, t) in enumerate(zip(weights, tiles, strict=True))
    ]
    return EpochPatching(placed, len(weights), n_patches=count, weights=shares)


def _regions(blocks: Sequence[Block]) -> dict[int, list[Box]]:
    """The blocks of each case."""
    regions: dict[int, list[Box]] = {}
    for case, box in blocks:
        regions.setdefault(case, []).append(box)
    return regions


def _site(spec: PatchSpecs, regions: Mapping[int, Sequence[Box]]) -> Site:
    z, y, x = spec["coords"]
    box = Box.at((z, y, x), spec["patch_size"])
    case = spec["data_idx"]
    region = max(regions[case], key=lambda block: block.common(box).size)
    return Site(case, region, (z, y, x))
