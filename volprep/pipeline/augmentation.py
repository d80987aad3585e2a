"""Which augmentations a config means, and what they need: its own list, or a preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from volprep.augment import Preset, choose_preset, needs_histogram, required_shape
from volprep.augment import transforms_from_config as transforms_of
from volprep.autoconfig import Plan
from volprep.cases import Cases
from volprep.config import Config
from volprep.errors import ConfigError, did_you_mean
from volprep.fingerprint import CaseFacts
from volprep.geometry import Box, Spacing3
from volprep.splits import SplitPart

__all__ = [
    "Look",
    "check_augment",
    "listed_augment",
    "look_into",
    "preset_of",
    "starting_augment",
    "with_augment",
]

#: The 1st, 50th and 99th percentile of some voxels of a part.
Look = Callable[[SplitPart], tuple[float, float, float]]

#: What a sample holds that a transform may skip.
TARGETS = ("image", "label", "mask", "skeletons")

# A glance at the middle of a part: enough for three percentiles, little to decode.
_GLANCE = (8, 192, 192)


def check_augment(config: Config, where: str = "augment") -> None:
    """Refuse a list with a mistake in it before anything is read."""
    if config.augment == "auto":
        return
    for transform in transforms_of(config.augment, where=where):
        known = (*TARGETS, *(transform.additional_targets or ()), *_named(config.augment))
        for name in transform.skip_targets:
            if name not in known:
                found = f"{where}: {transform.name}.skip_targets: {name!r} is no target"
                raise ConfigError(found + did_you_mean(name, known))


def _named(augment: Sequence[Any] | Mapping[str, Any]) -> Sequence[str]:
    """The targets that the block form names."""
    block = augment.get("AUGMENTOR", augment) if isinstance(augment, Mapping) else {}
    return block.get("ADDITIONAL_TARGETS_NAME") or ()


def look_into(cases: Cases) -> Look:
    """A glance at a part of some cases."""

    def look(part: SplitPart) -> tuple[float, float, float]:
        image = cases.named(part.case).open_image()
        box = part.box or Box.whole(image.shape)
        size = [min(n, g) for n, g in zip(box.shape, _GLANCE, strict=True)]
        start = [a + (n - s) // 2 for a, n, s in zip(box.start, box.shape, size, strict=True)]
        voxels = image.read(Box.at(start, size))[0]
        low, middle, high = np.nanpercentile(voxels, (1, 50, 99)).tolist()
        return low, middle, high

    return look


def preset_of(config: Config, facts: CaseFacts, look: Look, part: SplitPart) -> Preset:
    """The preset for data like those of one case, of which `part` is trained on."""
    modality, shape = config.data.modality, facts.shape
    if config.patching.do_2d is not None:
        shape = (shape[0], 1, *shape[2:])
    asks = needs_histogram(shape=shape, spacing=facts.spacing, modality=modality)
    return choose_preset(
        shape=shape,
        spacing=facts.spacing,
        dtype=facts.dtype,
        histogram=look(part) if asks else None,
        modality=modality,
    )


def listed_augment(
    config: Config, facts: CaseFacts, look: Look, part: SplitPart
) -> tuple[Sequence[Any] | Mapping[str, Any], str]:
    """The list that trains, and why it is that one."""
    if config.augment != "auto":
        return config.augment, "given" if config.augment else "given: nothing"
    preset = preset_of(config, facts, look, part)
    return preset.augment, f"preset {preset.name}: {preset.reason}"


def starting_augment(cases: Cases, spacing: Spacing3 | None) -> list[str]:
    """The lines of a first config: the list of the preset, so that it can be changed."""
    case = next((case for case in cases if case.label is not None), next(iter(cases)))
    image = case.open_image()
    step = image.spacing if spacing is None else spacing
    asks = needs_histogram(shape=image.shape, spacing=step)
    preset = choose_preset(
        shape=image.shape,
        spacing=step,
        dtype=image.dtype,
        histogram=look_into(cases)(SplitPart(case.name)) if asks else None,
    )
    return [
        f"augment:  # preset {preset.name}: {preset.reason}; auto for it, [] for none",
        *(f"  - {_flow(section)}" for section in preset.augment),
    ]


def _flow(section: Mapping[str, Mapping[str, Any]]) -> str:
    """One section on one line."""
    ((name, parameters),) = section.items()
    inside = ", ".join(f"{key}: {_word(value)}" for key, value in parameters.items())
    return f"{name}: {{{inside}}}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def with_augment(
    plan: Plan, augment: Sequence[Any] | Mapping[str, Any], reason: str, *, size_given: bool
) -> Plan:
    """The plan with the list and with the stored size that holds all that it may read."""
    reasons = {**plan.reasons, "augment": reason}
    kept = augment if isinstance(augment, Mapping) else tuple(augment)
    if size_given:
        return dataclasses.replace(plan, augment=kept, reasons=reasons)
    transforms = transforms_of(augment)
    names = ", ".join(transform.name for transform in transforms if transform.kind == "spatial")
    reasons["aug_patch_size"] = (
        f"holds all that these may read, so that none is weakened: {names}"
        if names
        else "the patch: nothing moves"
    )
    size = required_shape(transforms, plan.patch_size, plan.spacing)
    return dataclasses.replace(plan, augment=kept, aug_patch_size=size, reasons=reasons)
