"""Transforms by name: what a config says, as objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from volprep.augment.artefacts import CutBlur, CutNoise, MissingParts, MotionBlur
from volprep.augment.compose import Compose
from volprep.augment.intensity import (
    BrightnessContrast,
    ChannelDropout,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Invert,
    LowResolution,
    PoissonNoise,
)
from volprep.augment.objects import CopyPaste
from volprep.augment.spatial import (
    Elastic,
    Flip,
    MisAlignment,
    MissingSection,
    Rescale,
    Rotate,
)
from volprep.augment.transform import TargetType, Transform
from volprep.errors import ConfigError, did_you_mean

__all__ = ["TRANSFORMS", "compose_from_config", "transforms_from_config"]

#: Every transform that a config may name.
TRANSFORMS: dict[str, type[Transform]] = {
    kind.name: kind
    for kind in (
        Rotate, Rescale, Flip, Elastic, MisAlignment, MissingSection,
        Grayscale, BrightnessContrast, Gamma, Invert, GaussianNoise, PoissonNoise,
        GaussianBlur, LowResolution, ChannelDropout,
        MissingParts, MotionBlur, CutBlur, CutNoise, CopyPaste,
    )
}  # fmt: skip

# PyTorch Connectomics' block: section -> (transform, its config defaults), in the order in which
# its Compose applies them: the list that it builds backwards, and the flips at the end.
_BLOCK: dict[str, tuple[type[Transform], dict[str, Any]]] = {
    "COPYPASTE": (CopyPaste, {"ENABLED": False, "AUG_THRES": 0.7, "P": 0.8}),
    "CUTNOISE": (CutNoise, {"LENGTH_RATIO": 0.4, "SCALE": 0.3, "P": 0.75}),
    "CUTBLUR": (
        CutBlur,
        {
            "LENGTH_RATIO": 0.4, "DOWN_RATIO_MIN": 2.0, "DOWN_RATIO_MAX": 8.0,
            "DOWNSAMPLE_Z": False, "P": 0.5,
        },
    ),
    "MOTIONBLUR": (MotionBlur, {"SECTIONS": 2, "KERNEL_SIZE": 11, "P": 0.5}),
    "MISALIGNMENT": (MisAlignment, {"DISPLACEMENT": 16, "ROTATE_RATIO": 0.5, "P": 0.5}),
    "MISSINGSECTION": (MissingSection, {"NUM_SECTION": 2, "P": 0.5}),
    "MISSINGPARTS": (MissingParts, {"ITER": 64, "P": 0.9}),
    "GRAYSCALE": (Grayscale, {"P": 0.75}),
    "ELASTIC": (Elastic, {"ALPHA": 16.0, "SIGMA": 4.0, "P": 0.75}),
    "RESCALE": (Rescale, {"FIX_ASPECT": False, "P": 0.5}),
    "ROTATE": (Rotate, {"ROT90": True, "P": 1.0}),
    "FLIP": (Flip, {"DO_ZTRANS": 0, "P": 1.0}),
}  # fmt: skip
_COMMON = ("ENABLED", "SMOOTH", "ADDITIONAL_TARGETS_NAME", "ADDITIONAL_TARGETS_TYPE")
_RENAMED = {"ITER": "iterations", "NUM_SECTION": "num_sections", "SKIP": "skip_targets"}


def transforms_from_config(
    spec: Sequence[Any] | Mapping[str, Any] | None, *, where: str = "augment"
) -> list[Transform]:
    """The transforms that a config lists.

    Parameters
    ----------
    spec : list or dict or None
        A list of names (``flip``), of named sections (``rotate: {p: 0.5}``),
        or of sections with a name (``{name: rotate, p: 0.5}``); each may say
        ``enabled: false``. Or PyTorch Connectomics' block, with or without
        ``AUGMENTOR`` around it, in which every section that is not named is on
        with that system's defaults.
    where : str
        What to call the spec in errors.

    Returns
    -------
    list of Transform
        In the order in which they act. Those of a block are in the order in
        which PyTorch Connectomics applies them; its ``ENABLED: false`` gives
        none. What a block says of targets and of smoothing is for the
        `Compose`: see `compose_from_config`.

    Raises
    ------
    ConfigError
        For unknown names and parameters, with the nearest right one, and for
        values that make no sense.
    """
    if spec is None:
        return []
    if isinstance(spec, Mapping):
        block = _block(spec, where)
        return _from_block(block, where) if block.get("ENABLED", True) else []
    if isinstance(spec, str) or not isinstance(spec, Sequence):
        raise ConfigError(f"{where}: found {spec!r}; wanted a list such as [flip, rotate]")
    return [_from_section(section, f"{where}[{n}]") for n, section in enumerate(spec)]


def compose_from_config(
    spec: Sequence[Any] | Mapping[str, Any] | None,
    input_size: Sequence[int],
    additional_targets: Mapping[str, TargetType] | None = None,
    *,
    where: str = "augment",
    **options: Any,
) -> Compose:
    """A `Compose` of what a config says.

    Parameters
    ----------
    spec, where
        As in `transforms_from_config`; ``SMOOTH`` of a block counts too.
    input_size, **options
        Of `Compose`.
    additional_targets : dict of str to {'img', 'mask', 'points'}, optional
        Of `Compose`. None takes those that a block names, ``label`` if it names
        none; given ones win.

    Raises
    ------
    ConfigError
        As `transforms_from_config`.
    """
    transforms = transforms_from_config(spec, where=where)
    if isinstance(spec, Mapping):
        block = _block(spec, where)
        options = {"smooth": bool(block.get("SMOOTH", False)), **options}
        if additional_targets is None:
            additional_targets = _block_targets(block, where)
    return Compose(transforms, input_size, additional_targets, **options)


def _from_section(section: Any, where: str) -> Transform:
    """One entry of a list: a name, a named section, or a section with a name."""
    if isinstance(section, str):
        name, parameters = section, {}
    elif isinstance(section, Mapping) and "name" in section:
        name = str(section["name"])
        parameters = {k: v for k, v in section.items() if k != "name"}
    elif isinstance(section, Mapping) and len(section) == 1:
        name, parameters = next(iter(section.items()))
        parameters = {} if parameters is None else parameters
    else:
        raise ConfigError(
            f"{where}: found {section!r}; wanted a name, or one name with its parameters, "
            "such as rotate: {p: 0.5}"
        )
    kind = _transform(str(name), where)
    if not isinstance(parameters, Mapping):
        raise ConfigError(
            f"{where}.{name}: found {parameters!r}; wanted parameters, such as p: 0.5"
        )
    return _made(kind, parameters, f"{where}.{name}")


def _transform(name: str, where: str) -> type[Transform]:
    plain = {_plain(known): kind for known, kind in TRANSFORMS.items()}
    if _plain(name) in plain:
        return plain[_plain(name)]
    if _plain(name) == "mixup":
        raise ConfigError(
            f"{where}.{name}: acts on batches, not on samples; "
            "call volprep.augment.Mixup on the batch in the training loop"
        )
    raise ConfigError(f"{where}.{name}: unknown transform{did_you_mean(name, TRANSFORMS)}")


def _made(kind: type[Transform], parameters: Mapping[str, Any], where: str) -> Transform:
    known = [field.name for field in dataclasses.fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            raise ConfigError(
                f"{where}.{parameter}: unknown parameter{did_you_mean(parameter, known)}"
            )
    try:
        return kind(**parameters)
    except ValueError as error:
        own = f"{kind.name}."
        raise ConfigError(f"{where}.{str(error).removeprefix(own)}") from error


def _block(spec: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The inside of PyTorch Connectomics' block."""
    block = spec.get("AUGMENTOR", spec) if len(spec) == 1 else spec
    if not isinstance(block, Mapping):
        raise ConfigError(f"{where}.AUGMENTOR: found {block!r}; wanted sections")
    known = [*_BLOCK, *_COMMON]
    for key in block:
        if key not in known:
            lower = " (a list of named sections begins each with a dash)" * str(key).islower()
            raise ConfigError(f"{where}.{key}: unknown section{did_you_mean(key, known)}{lower}")
    return block


def _from_block(block: Mapping[str, Any], where: str) -> list[Transform]:
    _block_targets(block, where)  # wrong ones are told here already
    transforms = []
    for name, (kind, defaults) in _BLOCK.items():
        own = block.get(name) or {}
        if not isinstance(own, Mapping):
            raise ConfigError(f"{where}.{name}: found {own!r}; wanted keys, such as P: 0.5")
        allowed = ["ENABLED", "SKIP", *(k for k in defaults if k != "ENABLED")]
        for key in own:
            if key not in allowed:
                raise ConfigError(f"{where}.{name}.{key}: unknown key{did_you_mean(key, allowed)}")
        values = {**defaults, **own}
        parameters = {_RENAMED.get(key, key.lower()): value for key, value in values.items()}
        made = _made(kind, parameters, f"{where}.{name}")
        if made.enabled:
            transforms.append(made)
    return transforms


def _block_targets(block: Mapping[str, Any], where: str) -> dict[str, TargetType]:
    names = block.get("ADDITIONAL_TARGETS_NAME", ["label"])
    kinds = block.get("ADDITIONAL_TARGETS_TYPE", ["mask"])
    if names is None:
        return {}
    if not isinstance(names, list) or not isinstance(kinds, list) or len(names) != len(kinds):
        raise ConfigError(
            f"{where}.ADDITIONAL_TARGETS_TYPE: found {kinds!r} for the names {names!r}; "
            "wanted one type, img or mask, for each name"
        )
    for kind in kinds:
        if kind not in ("img", "mask", "points"):
            raise ConfigError(
                f"{where}.ADDITIONAL_TARGETS_TYPE: found {kind!r}; wanted img, mask or points"
            )
    return dict(zip(names, kinds, strict=True))


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
