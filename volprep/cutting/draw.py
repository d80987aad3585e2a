"""How places are drawn: around foreground, out of some regions, not thrown back."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.cutting.patches import PreparedCase, Site
from volprep.errors import PlanError
from volprep.geometry import Box, Shape3, VolumeLike
from volprep.patching import Patching, StartSource, StratifiedPatching
from volprep.sampling import (
    FilteredRegions,
    ForegroundIndex,
    PatchFilter,
    Places,
    Rejection,
    filter_patches,
    find_places,
)

__all__ = ["Acceptance", "Drawing", "ForegroundLater", "filtering", "foreground"]

log = logging.getLogger(__name__)

Patch = npt.NDArray[Any]
#: Places that are looked at for enough distinct ids.
DRAWS = 100


@dataclass(frozen=True)
class Drawing:
    """How the places of training patches are drawn.

    Attributes
    ----------
    name : {'random', 'sequential', 'stratified'}
    seed : int
    uniform : bool
        As `StratifiedPatching`'s.
    shown : (Z, Y, X) or None
        What a network sees of what is cut around it; None is all. Places are drawn for it.
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
    shown: Shape3 | None = None
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


class ForegroundLater:
    """A foreground index that is built when it is first asked, and let go when others are."""

    def __init__(self, number: int, box: Box, built: Callable[[int], ForegroundIndex]) -> None:
        self.number, self.box, self._built = number, box, built

    def index(self) -> ForegroundIndex:
        """The index itself."""
        return self._built(self.number)

    def __len__(self) -> int:
        return len(self.index())

    def patch_start(self, rng: np.random.Generator, patch_size: Sequence[int]) -> Shape3:
        return self.index().patch_start(rng, patch_size)


def foreground(
    drawing: Drawing,
    prepared: Sequence[PreparedCase],
    blocks: Sequence[tuple[int, Box]],
    progress: Callable[[int], None],
    *,
    held: int | None = 2,
) -> list[StartSource | None]:
    """Where patches around foreground may be drawn, for each block; None without labels.

    Where sites are drawn block by block, the indices of two blocks at a time suffice.
    """
    if drawing.foreground == 0 or drawing.name == "sequential":
        return [None] * len(blocks)

    @functools.lru_cache(maxsize=held)
    def built(place: int) -> ForegroundIndex:
        number, box = blocks[place]
        label = prepared[number].label
        if label is None:
            raise ValueError(f"case {number} has no label")
        index = _foreground_of(label, box, drawing)
        progress(1)
        return index

    return [
        None if prepared[number].label is None else ForegroundLater(place, box, built)
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


class Acceptance:
    """Which places of patches are kept, and others in their stead.

    Parameters
    ----------
    drawing : Drawing
    prepared : sequence of PreparedCase
        Their masks, and where it matters their labels, are walked through once.
    blocks : sequence of (int, Box)
    size : (Z, Y, X)
        Of the patches.
    rejected : list or None
        What was thrown back is added to it.
    places : mapping or None
        As the attribute, where it is known: nothing is walked through then.

    Attributes
    ----------
    blocks : list of (int, Box)
        Those in which some place qualifies.
    places : dict of (int, Box) to Places
        Of the blocks where not every place does.

    Raises
    ------
    PlanError
        If no place at all qualifies; the message says what the best one holds.
    """

    def __init__(
        self,
        drawing: Drawing,
        prepared: Sequence[PreparedCase],
        blocks: Sequence[tuple[int, Box]],
        size: Shape3,
        rejected: list[Site] | None = None,
        *,
        places: Mapping[tuple[int, Box], Places] | None = None,
    ) -> None:
        self._prepared, self.size, self._rejected = prepared, size, rejected
        self._reads_labels = drawing.rejection.reads_labels
        self.places: dict[tuple[int, Box], Places] = dict(places or {})
        for number, box in () if places is not None else blocks:
            case = prepared[number]
            if case.mask is not None or (self._reads_labels and case.label is not None):
                self.places[number, box] = find_places(
                    case.label if self._reads_labels else None,
                    case.mask, box, size, drawing.rejection,
                )  # fmt: skip
        self.blocks = [block for block in blocks if self.places.get(block, True)]
        if blocks and not self.blocks:
            if not any(each.valid for each in self.places.values()):
                raise PlanError(_bare(blocks, prepared))
            raise PlanError(_nowhere(list(self.places.values())))
        barren = {
            prepared[number].name for number, box in blocks if (number, box) not in self.blocks
        }
        if barren:
            names = ", ".join(sorted(barren)[:5])
            log.warning("no patch is drawn where no place for one qualifies: %s", names)

    def __call__(self, site: Site, rng: np.random.Generator) -> bool:
        """Whether a site is kept."""
        places = self.places.get((site.case, site.region))
        if places is None:
            return True
        label, valid = self._read(site)
        kept = places.rejection.accepts(label, rng, valid)
        if not kept and self._rejected is not None:
            self._rejected.append(site)
        return kept

    def instead(self, site: Site, rng: np.random.Generator) -> Site:
        """A site of the same block that qualifies.

        Notes
        -----
        Places that qualify are known beforehand, so one draw is enough, but for distinct ids:
        for these `DRAWS` places are looked at.

        Raises
        ------
        PlanError
            If none of them holds enough distinct ids.
        """
        places = self.places[site.case, site.region]
        for _ in range(DRAWS):
            sure, near = places.draw(rng)
            wanted = places.rejection
            for start in (near, sure):
                found = Site(site.case, site.region, start)
                label, valid = self._read(found)
                enough = valid is None or wanted.is_annotated(valid)
                # At a place that holds too little and was drawn by chance, that is no reason.
                full = start == sure or label is None or wanted.is_full(label)
                if enough and full:
                    break
            if label is None or wanted.is_diverse(label) or rng.random() >= wanted.p:
                return found
        name = self._prepared[site.case].name
        raise PlanError(
            f"{name}: none of {DRAWS} places holds {places.rejection.diversity} distinct ids; "
            "lower patching.reject.diversity"
        )

    def _read(self, site: Site) -> tuple[Patch | None, Patch | None]:
        """The label, where it matters, and the valid mask of a patch, inside its region."""
        case = self._prepared[site.case]
        box = site.region.common(Box.at(site.start, self.size))
        labels = case.label if self._reads_labels else None
        label = None if labels is None else labels.read(box)
        return label, None if case.mask is None else case.mask.read(box)


def _bare(blocks: Sequence[tuple[int, Box]], prepared: Sequence[PreparedCase]) -> str:
    """That nothing of what trains is annotated, and where that lies."""
    parts = []
    for number, box in blocks[:3]:
        ends = zip("zyx", box.start, box.stop, strict=True)
        parts.append(f"{prepared[number].name}, {', '.join(f'{a} {b} to {e}' for a, b, e in ends)}")
    more = ", ..." if len(blocks) > 3 else ""
    return (
        f"nothing is annotated in what is to train ({'; '.join(parts)}{more}): hold out another "
        "part (another seed, split.fraction: 0, or data.regions with a side each)"
    )


def _nowhere(places: Sequence[Places]) -> str:
    """Why nothing can be drawn, and what the best place holds."""
    best = max(places, key=lambda each: (each.best_valid, each.best_size))
    size = " x ".join(map(str, best.patch_size))
    reasons = []
    ratio = best.rejection.valid_ratio or 0.0
    if best.best_valid <= ratio:
        reasons.append(
            f"more than {ratio:.0%} of a patch must be annotated (patching.reject.valid_ratio), "
            f"{best.valid:.1%} of the volume is, and at best {best.best_valid:.1%} of a patch"
        )
    most = max(each.best_size for each in places)
    if 0 <= most < best.rejection.size_thres:
        reasons.append(
            f"{best.rejection.size_thres} foreground voxels are wanted "
            f"(patching.reject.size_thres), and no patch holds more than {most}"
        )
    return (
        f"no place for a patch of {size} qualifies: {'; '.join(reasons) or 'nothing is annotated'}"
        "; lower these, or set plan.patch_size smaller"
    )
