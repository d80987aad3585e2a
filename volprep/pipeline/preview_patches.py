"""`volprep preview-patches`: where `prepare` would cut its patches, drawn and not cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from volprep.config import Config
from volprep.cutting import (
    Block,
    Drawing,
    PreparedCase,
    Site,
    annotated_sites,
    blocks_of,
    grid_sites,
    stored_patch_size,
    training_sites,
)
from volprep.errors import ConfigError
from volprep.geometry import Box, Shape3
from volprep.pipeline.decide import decide, drawing, survey
from volprep.pipeline.inputs import chosen_cases
from volprep.pipeline.told import Reporter, silent
from volprep.pipeline.volumes import prepared_case
from volprep.report import Page, PatchMap, RegionMap, coverage_facts, render_patches
from volprep.sampling import FilteredRegions, PatchFilter

__all__ = ["PatchPage", "patch_maps", "preview_patches"]


@dataclass(frozen=True, slots=True)
class PatchPage:
    """The patches of one case, in boxes and in pictures."""

    patches: PatchMap
    page: Page

    @property
    def facts(self) -> dict[str, Any]:
        """How many patches there are, and how often voxels are seen, as plain values."""
        found, shape = self.patches, self.patches.shape
        train = coverage_facts(shape, found.train_blocks, found.train_patches)
        val = coverage_facts(shape, found.val_blocks, found.val_patches)
        return {
            "train": {"patches": len(found.train_patches), **asdict(train)},
            "val": {"patches": len(found.val_patches), **asdict(val)},
            "rejected": len(found.rejected),
            "filtered": sum(int((~region.kept).sum()) for region in found.regions),
        }


def preview_patches(
    config: Config, *, cases: Sequence[str] = (), reporter: Reporter = silent
) -> Iterator[tuple[str, PatchPage]]:
    """Draw the blocks, patches and coverage of each case, as `prepare` would choose them.

    Parameters
    ----------
    config : Config
    cases : sequence of str
        Names of cases to draw; all for none.
    reporter : callable
        Told of every long stage.

    Yields
    ------
    name : str
        Of the case.
    drawn : PatchPage

    Raises
    ------
    VolprepError
        As `prepare`, before the first page; ConfigError if there is no such case.

    Notes
    -----
    The same plan, splits and generators as in `prepare` give the same patches.
    Cases that are resampled are read through the resampling, so foreground and
    slices are those of the patch set.
    """
    for drawn in patch_maps(config, cases=cases, reporter=reporter):
        yield drawn.name, PatchPage(drawn, render_patches(drawn))


def patch_maps(
    config: Config, *, cases: Sequence[str] = (), reporter: Reporter = silent
) -> Iterator[PatchMap]:
    """The volumes, blocks and patches of each case, as `preview_patches` draws them."""
    found = chosen_cases(config)
    for name in cases:
        if name not in {case.name for case in found}:
            raise ConfigError(f"--case: there is no case {name!r}")
    decision = decide(config, found, survey(config, found, reporter))
    plan, splits = decision.plan, decision.splits
    prepared = [prepared_case(case, decision.layouts[case.name]) for case in found]
    train, val = (blocks_of(parts, prepared) for parts in (splits.train, splits.val))
    size = stored_patch_size(plan.patch_size, plan.aug_patch_size, train)
    rejected: list[Site] = []
    filtered: list[FilteredRegions] = []
    how = drawing(config, found.label_kind, plan)
    with reporter("choose patches", len(train), "cases") as advance:
        chosen = training_sites(
            train,
            size,
            how,
            prepared,
            weights=[case.weight for case in found],
            progress=advance,
            rejected=rejected,
            filtered=filtered,
        )
    # What is thrown back is what a network would have seen; a grid is one of what is cut.
    judged = size if how.name == "sequential" else plan.patch_size
    chosen = sorted(chosen, key=lambda site: (site.case, site.start))  # as they are cut
    every = grid_sites(val, plan.patch_size, config.patching.overlap)
    held = annotated_sites(every, plan.patch_size, prepared)
    for number, case in enumerate(prepared):
        if cases and case.name not in cases:
            continue
        yield PatchMap(
            case.name,
            case.image,
            plan.spacing or case.image.spacing,
            train_blocks=_blocks(train, number),
            val_blocks=_blocks(val, number),
            train_patches=_boxes(chosen, number, size),
            val_patches=_boxes(held, number, plan.patch_size),
            rejected=_boxes(rejected, number, judged),
            regions=_regions(how.filter, train, filtered, number, judged),
            notes=_notes(how, case),
            label=case.label,
        )


def _blocks(blocks: Sequence[Block], number: int) -> list[Box]:
    return [box for case, box in blocks if case == number]


def _boxes(sites: Sequence[Site], number: int, size: Shape3) -> list[Box]:
    """The patches of a case in the order in which `prepare` numbers them."""
    return [Box.at(start, size) for start in sorted(s.start for s in sites if s.case == number)]


def _regions(
    chosen: PatchFilter | None,
    blocks: Sequence[Block],
    filtered: Sequence[FilteredRegions],
    number: int,
    size: Shape3,
) -> list[RegionMap]:
    if chosen is None:
        return []
    return [
        RegionMap(block, size, found.kept, found.values, chosen.names, chosen.thresholds)
        for (case, block), found in zip(blocks, filtered, strict=True)
        if case == number
    ]


def _notes(how: Drawing, case: PreparedCase) -> list[str]:
    words = [f"{how.name} patches, seed {how.seed}"]
    if case.label is not None and how.name != "sequential" and how.foreground:
        words.append(f"{how.foreground:.0%} around foreground, per {how.per}")
    return [", ".join(words)]
