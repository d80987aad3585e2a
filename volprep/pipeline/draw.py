"""Which patches are worth drawing: around foreground, out of some regions, not thrown back."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from volprep.config import (
    Config,
)
from volprep.errors import PlanError
from volprep.geometry import Box, Shape3, VolumeLike
from volprep.patching import Patching, StratifiedPatching
from volprep.patching.compose import StartSource
from volprep.pipeline.cut import PreparedCase, Site, read_patch
from volprep.sampling import (
    FilteredRegions,
    ForegroundIndex,
    PatchFilter,
    Rejection,
    create_patch_filter,
    filter_patches,
)

__all__ = ["acceptance", "filtering", "foreground", "patch_filter"]

log = logging.getLogger(__name__)


class _ForegroundLater:
    """A foreground index that is built when it is first asked, and let go when others are."""

    def __init__(self, number: int, box: Box, built: Callable[[int], ForegroundIndex]) -> None:
        self.number, self.box, self._built = number, box, built

    def __len__(self) -> int:
        return len(self._built(self.number))

    def patch_start(self, rng: np.random.Generator, patch_size: Sequence[int]) -> Shape3:
        return self._built(self.number).patch_start(rng, patch_size)


def foreground(
    config: Config,
    prepared: Sequence[PreparedCase],
    blocks: Sequence[tuple[int, Box]],
    progress: Callable[[int], None],
) -> list[StartSource | None]:
    """Where patches around foreground may be drawn, for each block; None without labels.

    Sites are drawn block by block, so that the indices of two blocks at a time suffice.
    """
    section = config.patching.foreground
    if section.p == 0 or config.patching.name == "sequential":
        return [None] * len(blocks)

    @functools.lru_cache(maxsize=2)
    def built(place: int) -> ForegroundIndex:
        number, box = blocks[place]
        label = prepared[number].label
        if label is None:
            raise ValueError(f"case {number} has no label")
        index = _foreground_of(label, box, section.per, config.data.label_kind)
        progress(1)
        return index

    return [
        None if prepared[number].label is None else _ForegroundLater(place, box, built)
        for place, (number, box) in enumerate(blocks)
    ]


def _foreground_of(
    label: VolumeLike, box: Box, per: Literal["class", "instance", "voxel"], kind: str
) -> ForegroundIndex:
    """The index of a block. Instances of a class map are its connected components."""
    if kind == "classes" and per == "instance":
        try:
            return ForegroundIndex.build(label, box=box, per=per, connected=True)
        except PlanError as error:
            log.warning("%s", error)
            per = "class"
    return ForegroundIndex.build(label, box=box, per=per)


def filtering(
    config: Config, prepared: Sequence[PreparedCase], blocks: Sequence[tuple[int, Box]]
) -> Callable[[Patching], list[FilteredRegions]] | None:
    """Makes patches rarer where the config's filter leaves regions out, and gives what it saw.

    None where nothing is filtered. Cases without a mask are kept as a whole by a mask filter.
    """
    section = config.patching.filter
    chosen = patch_filter(config)
    if chosen is None:
        return None
    volumes = [
        prepared[case].mask if section.name == "mask" else prepared[case].image
        for case, _ in blocks
    ]

    def adapt(patching: Patching) -> list[FilteredRegions]:
        if not isinstance(patching, StratifiedPatching):
            raise TypeError(f"{type(patching).__name__} has no regions to filter")
        return filter_patches(
            patching,
            volumes,
            chosen,
            boxes=[box for _, box in blocks],
            ref_channel=0 if section.name == "mask" else section.ref_channel,
            filtered_patch_prob=section.filtered_patch_prob,
        )

    return adapt


def patch_filter(config: Config) -> PatchFilter | None:
    """The filter of a config, None where it asks for none."""
    section = config.patching.filter
    if section.name == "none":
        return None
    return create_patch_filter(section.name, **section.parameters)


def acceptance(
    config: Config, prepared: Sequence[PreparedCase], size: Shape3
) -> Callable[[Site, np.random.Generator], bool] | None:
    """Which drawn sites are kept; None where every one is."""
    section = config.patching.reject
    rejection = Rejection(section.size_thres, section.diversity, section.p, section.valid_ratio)
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
