"""How places are drawn: around foreground, out of some regions, not thrown back."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from volprep.cutting.patches import PreparedCase, Site, read_patch
from volprep.errors import PlanError
from volprep.geometry import Box, Shape3, VolumeLike
from volprep.patching import Patching, StartSource, StratifiedPatching
from volprep.sampling import (
    FilteredRegions,
    ForegroundIndex,
    PatchFilter,
    Rejection,
    filter_patches,
)

__all__ = ["Drawing", "acceptance", "filtering", "foreground"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawing:
    """How the places of training patches are drawn.

    Attributes
    ----------
    name : {'random', 'sequential', 'stratified'}
    seed : int
    uniform : bool
        As `StratifiedPatching`'s.
    overlap : (Z, Y, X)
        Of neighbours on a grid.
    patches_per_case : int or None
        None takes as many as tile the case, `cover` times over.
    cover : int
    foreground : float
        The share of patches drawn around foreground, 0 to 1.
    per : {'class', 'instance', 'voxel'}
        What is drawn evenly of the foreground.
    connected : bool
        Whether the instances are the connected components of the labels, which are classes.
    rejection : Rejection
    filter : PatchFilter or None
        Of regions, for stratified patches.
    filters_mask : bool
        Whether `filter` looks at the valid mask, and not at the image.
    ref_channel : int
        The channel of the image that `filter` looks at.
    filtered_patch_prob : float
        The share of the patches that stays where regions are left out.
    """

    name: Literal["random", "sequential", "stratified"] = "random"
    seed: int = 0
    uniform: bool = False
    overlap: Shape3 = (0, 0, 0)
    patches_per_case: int | None = None
    cover: int = 2
    foreground: float = 0.33
    per: Literal["class", "instance", "voxel"] = "instance"
    connected: bool = False
    rejection: Rejection = field(default_factory=Rejection)
    filter: PatchFilter | None = None
    filters_mask: bool = False
    ref_channel: int = 0
    filtered_patch_prob: float = 0.1


class _ForegroundLater:
    """A foreground index that is built when it is first asked, and let go when others are."""

    def __init__(self, number: int, box: Box, built: Callable[[int], ForegroundIndex]) -> None:
        self.number, self.box, self._built = number, box, built

    def __len__(self) -> int:
        return len(self._built(self.number))

    def patch_start(self, rng: np.random.Generator, patch_size: Sequence[int]) -> Shape3:
        return self._built(self.number).patch_start(rng, patch_size)


def foreground(
    drawing: Drawing,
    prepared: Sequence[PreparedCase],
    blocks: Sequence[tuple[int, Box]],
    progress: Callable[[int], None],
) -> list[StartSource | None]:
    """Where patches around foreground may be drawn, for each block; None without labels.

    Sites are drawn block by block, so that the indices of two blocks at a time suffice.
    """
    if drawing.foreground == 0 or drawing.name == "sequential":
        return [None] * len(blocks)

    @functools.lru_cache(maxsize=2)
    def built(place: int) -> ForegroundIndex:
        number, box = blocks[place]
        label = prepared[number].label
        if label is None:
            raise ValueError(f"case {number} has no label")
        index = _foreground_of(label, box, drawing)
        progress(1)
        return index

    return [
        None if prepared[number].label is None else _ForegroundLater(place, box, built)
        for place, (number, box) in enumerate(blocks)
    ]


def _foreground_of(label: VolumeLike, box: Box, drawing: Drawing) -> ForegroundIndex:
    """The index of a block. Instances of a class map are its connected components."""
    per = drawing.per
    if drawing.connected and per == "instance":
        try:
            return ForegroundIndex.build(label, box=box, per=per, connected=True)
        except PlanError as error:
            log.warning("%s", error)
            per = "class"
    return ForegroundIndex.build(label, box=box, per=per)


def filtering(
    drawing: Drawing, prepared: Sequence[PreparedCase], blocks: Sequence[tuple[int, Box]]
) -> Callable[[Patching], list[FilteredRegions]] | None:
    """Makes patches rarer where the filter leaves regions out, and gives what it saw.

    None where nothing is filtered. Cases without a mask are kept as a whole by a mask filter.
    """
    chosen = drawing.filter
    if chosen is None:
        return None
    volumes = [
        prepared[case].mask if drawing.filters_mask else prepared[case].image for case, _ in blocks
    ]

    def adapt(patching: Patching) -> list[FilteredRegions]:
        if not isinstance(patching, StratifiedPatching):
            raise TypeError(f"{type(patching).__name__} has no regions to filter")
        return filter_patches(
            patching,
            volumes,
            chosen,
            boxes=[box for _, box in blocks],
            ref_channel=0 if drawing.filters_mask else drawing.ref_channel,
            filtered_patch_prob=drawing.filtered_patch_prob,
        )

    return adapt


def acceptance(
    drawing: Drawing, prepared: Sequence[PreparedCase], size: Shape3
) -> Callable[[Site, np.random.Generator], bool] | None:
    """Which drawn sites are kept; None where every one is."""
    rejection = drawing.rejection
    masked = any(case.mask is not None for case in prepared)
    if not rejection.reads_labels and not masked:
        return None

    def accept(site: Site, rng: np.random.Generator) -> bool:
        case, box = prepared[site.case], Box.at(site.start, size)
        label = valid = None
        if case.label is not None and rejection.reads_labels:
            label = read_patch(case.label, site.region, box)
        if case.mask is not None:
            valid = case.mask.read(site.region.common(box))
        return rejection.accepts(label, rng, valid)

    return accept
