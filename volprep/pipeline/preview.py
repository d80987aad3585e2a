"""`volprep preview-augment`: one patch of one case, as training would see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from volprep.augment import Compose, compose_from_config
from volprep.autoconfig import Plan
from volprep.cases import Case, Cases
from volprep.config import Config
from volprep.cutting import read_patch
from volprep.errors import ConfigError
from volprep.geometry import Box, Shape3, VolumeLike
from volprep.pipeline.decide import plan_of
from volprep.pipeline.inputs import list_cases
from volprep.preprocess import ResampledVolume
from volprep.preview import Page, render_preview
from volprep.randomness import sample_generator
from volprep.skeletons import Skeletons, skeletonize

__all__ = ["preview_augment"]

# Places that are looked at until one holds labels.
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
    """Draw the augmentations that a config lists, on a patch of its own data.

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
        If the config lists no augmentation, `only` names one that it does not
        list, or there is no such case.

    Notes
    -----
    Intensities are shown as they are in the file: amounts are fractions of the
    value range, so that normalising first would give the same pictures.
    """
    if not config.augment:
        raise ConfigError("augment: nothing is listed; add for example [flip, rotate, grayscale]")
    cases = list_cases(config)
    chosen = _chosen(cases, case)
    plan = plan_of(config)
    start = config.seed if seed is None else seed
    volumes = _volumes(chosen, plan)
    skeletons = chosen.skeletons is not None or config.skeletons.enabled
    compose = _compose(config, plan, volumes, skeletons and "label" in volumes)
    sample = _sample(chosen, volumes, compose, plan, start, index)
    try:
        return render_preview(
            sample,
            compose,
            n=n,
            seed=start,
            spacing=plan.spacing,
            only=only,
            title=f"Augmentation preview: {chosen.name}",
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


def _volumes(case: Case, plan: Plan) -> dict[str, VolumeLike]:
    """What the case has, on the grid that training sees."""
    opened: dict[str, VolumeLike | None] = {
        "image": case.open_image(),
        "label": case.open_label(),
        "mask": case.open_mask(),
    }
    found = {name: volume for name, volume in opened.items() if volume is not None}
    if plan.target_spacing is None:
        return found
    return {
        name: ResampledVolume(volume, plan.target_spacing, labels=name != "image")
        for name, volume in found.items()
    }


def _compose(
    config: Config, plan: Plan, volumes: dict[str, VolumeLike], skeletons: bool
) -> Compose:
    targets: dict[str, Any] = {name: "mask" for name in volumes if name != "image"}
    if skeletons:
        targets["skeleton"] = "points"
    return compose_from_config(config.augment, plan.patch_size, targets, spacing=plan.spacing)


def _sample(
    case: Case,
    volumes: dict[str, VolumeLike],
    compose: Compose,
    plan: Plan,
    seed: int,
    index: int,
) -> dict[str, Any]:
    whole = Box.whole(volumes["image"].shape)
    box = _place(volumes, compose.required_shape, whole, sample_generator(seed, 0, index))
    sample: dict[str, Any] = {
        name: read_patch(volume, whole, box) for name, volume in volumes.items()
    }
    sample = {name: a if name == "image" else a[0] for name, a in sample.items()}
    if "skeleton" in compose.targets:
        sample["skeleton"] = _skeletons(case, sample["label"], box, plan)
    return sample


def _place(
    volumes: dict[str, VolumeLike], size: Shape3, whole: Box, rng: np.random.Generator
) -> Box:
    """A place with labels in its middle, if a few tries find one."""
    box = whole
    for _ in range(_TRIES):
        room = [max(0, n - s) for n, s in zip(whole.shape, size, strict=True)]
        start = [int(rng.integers(r + 1)) for r in room]
        short = [max(0, s - n) // 2 for n, s in zip(whole.shape, size, strict=True)]
        box = Box.at([a - b for a, b in zip(start, short, strict=True)], size)
        if "label" not in volumes or volumes["label"].read(box.clip(whole.shape)).any():
            return box
    return box


def _skeletons(case: Case, label: Any, box: Box, plan: Plan) -> Skeletons:
    """Those of the file, or made from what the patch shows of each instance."""
    if case.skeletons is None:
        return skeletonize(label, spacing=plan.spacing)
    read = Skeletons.from_file(case.skeletons)
    image = case.open_image()
    if plan.target_spacing is not None and image.spacing is not None:
        scale = np.asarray(image.spacing) / np.asarray(plan.target_spacing)
        read = read.transform(lambda points: (points + 0.5) * scale - 0.5)
    return read.crop(box, label)
