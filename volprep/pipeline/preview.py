"""`volprep preview-augment`: one patch of one case, as training would see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from volprep.augment import Compose, compose_from_config
from volprep.cases import Case, Cases
from volprep.config import Config
from volprep.cutting import PreparedCase, blocks_of, read_patch, stored_patch_size
from volprep.errors import ConfigError
from volprep.geometry import Box, Shape3, Spacing3, three
from volprep.pipeline.augmentation import look_into, preset_of
from volprep.pipeline.decide import Decision, decide, survey
from volprep.pipeline.inputs import chosen_cases
from volprep.pipeline.skeletons import make_skeletons
from volprep.pipeline.told import silent
from volprep.pipeline.volumes import prepared_case
from volprep.randomness import sample_generator
from volprep.report import Page, render_preview
from volprep.sampling import ForegroundIndex
from volprep.skeletons import Skeletons, skeletonize

__all__ = ["preview_augment"]

# Places that are looked at until one shows labels; then labels are looked for.
_TRIES = 16


def preview_augment(
    config: Config,
    *,
    case: str | None = None,
    index: int = 0,
    seed: int | None = None,
    n: int = 8,
    only: Sequence[str] = (),
) -> Page:
    """Draw the augmentations of a config, or its preset, on a patch of its own data.

    Parameters
    ----------
    config : Config
    case : str or None
        Name of the case; None takes the first one with labels.
    index : int
        Another index shows another place of the case.
    seed : int or None
        Of place and augmentations; None takes the config's.
    n : int
        Draws in each row.
    only : sequence of str
        Names of transforms to show alone; all of them for none.

    Returns
    -------
    Page

    Raises
    ------
    ConfigError
        If `only` names a transform that is not listed, or there is no such case.

    Notes
    -----
    The patch is one that training could store: of the planned size, from the part of
    the case that trains, cropped and resampled as `prepare` does it. Intensities are shown
    as they are in the file: amounts are measured by the patch itself, so that
    normalising first gives the same pictures, but for what is clipped.
    """
    cases = chosen_cases(config)
    decision = decide(config, cases, survey(config, cases, silent))
    chosen = _chosen(cases, case)
    notes = [f"Augmentations: {decision.plan.reasons['augment']}."]
    augment = decision.plan.augment
    if not augment:
        facts = next(f for f in survey(config, cases, silent).heads.cases if f.name == chosen.name)
        preset = preset_of(config, facts, look_into(cases), decision.measured[0])
        augment = tuple(preset.augment)
        notes = [
            f"The config lists no augmentation, and none trains; shown is the preset "
            f"{preset.name} ({preset.reason}), which augment: auto takes."
        ]
    prepared, block = _prepared(chosen, decision)
    skeletons = chosen.skeletons is not None or config.skeletons.enabled
    compose = _compose(augment, decision, prepared, skeletons)
    start = config.seed if seed is None else seed
    size = decision.plan.aug_patch_size if decision.plan.augment else compose.required_shape
    size = stored_patch_size(decision.plan.patch_size, size, [(0, block)])
    sample = _sample(config, chosen, prepared, block, size, decision, compose, (start, index))
    try:
        return render_preview(
            sample,
            compose,
            n=n,
            seed=start,
            spacing=_spacing(decision, prepared),
            only=only,
            title=f"Augmentation preview: {chosen.name}",
            notes=notes,
            points="skeletons",
        )
    except ValueError as error:
        if not str(error).startswith("only:"):
            raise
        raise ConfigError(f"--{error}") from None


def _chosen(cases: Cases, name: str | None) -> Case:
    if name is None:
        return next((case for case in cases if case.label), next(iter(cases)))
    try:
        return cases.named(name)
    except KeyError as error:
        raise ConfigError(f"--case: {error.args[0]}") from None


def _spacing(decision: Decision, prepared: PreparedCase) -> Spacing3 | None:
    return decision.plan.spacing or prepared.image.spacing


def _prepared(case: Case, decision: Decision) -> tuple[PreparedCase, Box]:
    """The case on the grid of the patch set, and its part that trains, or all of it."""
    prepared = prepared_case(case, decision.layouts[case.name])
    parts = [part for part in decision.splits.train if part.case == case.name]
    trained = blocks_of(parts, [prepared])
    return prepared, trained[0][1] if trained else Box.whole(prepared.image.shape)


def _compose(augment: Any, decision: Decision, prepared: PreparedCase, skeletons: bool) -> Compose:
    targets: dict[str, Any] = {}
    if prepared.label is not None:
        targets["label"] = "mask"
    if prepared.mask is not None:
        targets["mask"] = "mask"
    if skeletons and prepared.label is not None:
        targets["skeletons"] = "points"
    return compose_from_config(
        augment,
        decision.plan.patch_size,
        targets,
        spacing=decision.plan.spacing,
    )


def _sample(
    config: Config,
    case: Case,
    prepared: PreparedCase,
    block: Box,
    size: Shape3,
    decision: Decision,
    compose: Compose,
    draw: tuple[int, int],
) -> dict[str, Any]:
    box = _place(prepared, block, size, decision.plan.patch_size, draw)
    volumes = {"image": prepared.image, "label": prepared.label, "mask": prepared.mask}
    sample: dict[str, Any] = {
        name: read_patch(volume, block, box)
        for name, volume in volumes.items()
        if volume is not None
    }
    sample = {name: a if name == "image" else a[0] for name, a in sample.items()}
    if "skeletons" in compose.targets:
        sample["skeletons"] = _skeletons(config, case, prepared, decision, sample["label"], box)
    return sample


def _place(
    prepared: PreparedCase, block: Box, size: Shape3, shown: Shape3, draw: tuple[int, int]
) -> Box:
    """A place that shows labels, if there are any."""
    rng = sample_generator(draw[0], 0, draw[1])
    room = [max(0, n - s) for n, s in zip(block.shape, size, strict=True)]
    short = [max(0, s - n) // 2 for n, s in zip(block.shape, size, strict=True)]
    margin = three((s - p) // 2 for s, p in zip(size, shown, strict=True))
    box, label = block, prepared.label

    def at(offset: Sequence[int]) -> Box:
        start = [a + o - b for a, o, b in zip(block.start, offset, short, strict=True)]
        return Box.at(start, size)

    for _ in range(_TRIES):
        box = at([int(rng.integers(r + 1)) for r in room])
        inside = Box.at([a + m for a, m in zip(box.start, margin, strict=True)], shown)
        if label is None or label.read(inside.common(block)).any():
            return box
    # Few labels: the index of them, which reads them all, knows where they are.
    found = ForegroundIndex.build(label, box=block, per="voxel") if label is not None else ()
    if isinstance(found, ForegroundIndex) and len(found):
        inner = found.patch_start(rng, shown)
        wanted = [i - a - m for i, a, m in zip(inner, block.start, margin, strict=True)]
        box = at([min(max(0, w), r) for w, r in zip(wanted, room, strict=True)])
    return box


def _skeletons(
    config: Config,
    case: Case,
    prepared: PreparedCase,
    decision: Decision,
    label: Any,
    box: Box,
) -> Skeletons:
    """Those that the case brings, as `prepare` reads them, or made from what the patch shows."""
    if case.skeletons is None or prepared.label is None:
        return skeletonize(label, spacing=decision.plan.spacing)
    layout, method = decision.layouts[case.name], config.skeletons.method
    read, _ = make_skeletons(prepared.label, case, layout, method=method, workers=1)
    return read.crop(box, np.asarray(label))
