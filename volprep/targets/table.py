"""Targets by name: what a config says, as objects; and the arrays of several at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import ConfigError, did_you_mean
from volprep.geometry import Shape3
from volprep.targets.labels import (
    Affinities,
    Binary,
    Blobs,
    Boundary,
    Flow,
    InstanceDistance,
    OneHot,
    SignedDistance,
    SizeWeight,
)
from volprep.targets.patch import LabelPatch
from volprep.targets.skeletons import Skeleton
from volprep.targets.target import Target

__all__ = ["TARGETS", "empty_targets", "make_targets", "targets_from_config", "targets_margin"]

#: Every target that a config may name.
TARGETS: dict[str, type[Target]] = {
    kind.name: kind
    for kind in (
        Binary, Affinities, Boundary, SignedDistance, InstanceDistance, Flow, SizeWeight, OneHot,
        Blobs, Skeleton,
    )
}  # fmt: skip


def targets_from_config(spec: Sequence[Any], *, where: str = "targets") -> list[Target]:
    """The targets that a config lists.

    Parameters
    ----------
    spec : list
        Of names (``boundary``) and of named sections (``affinities: {offsets: [...]}``).
    where : str
        What to call the list in errors.

    Raises
    ------
    ConfigError
        For unknown names and parameters, with the nearest right one, for values that make
        no sense, and for a target that is listed twice.
    """
    targets = [_from_section(section, f"{where}[{n}]") for n, section in enumerate(spec)]
    names = [target.name for target in targets]
    for n, name in enumerate(names):
        if name in names[:n]:
            raise ConfigError(f"{where}[{n}]: {name} is listed twice; leave one out")
    return targets


def empty_targets(targets: Iterable[Target], size: Shape3) -> dict[str, npt.NDArray[Any]]:
    """Room for the arrays of all targets of a patch of `size`, by name."""
    arrays = [array for target in targets for array in target.arrays(size)]
    return {array.name: np.empty(array.shape(size), array.dtype) for array in arrays}


def make_targets(
    targets: Sequence[Target],
    patch: LabelPatch,
    out: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Mapping[str, npt.NDArray[Any]]:
    """The arrays of all targets of one patch.

    Parameters
    ----------
    targets : sequence of Target
    patch : LabelPatch
    out : mapping of str to ndarray, optional
        Where they go, as `empty_targets` gives it; None makes room.
    """
    made = empty_targets(targets, patch.shape) if out is None else out
    for target in targets:
        target.make(patch, made)
    return made


def targets_margin(targets: Iterable[Target], size: Shape3) -> Shape3:
    """Voxels around a patch of `size` on which its outermost voxels depend in any target."""
    margins = [target.margin(size) for target in targets]
    z, y, x = (max((m[axis] for m in margins), default=0) for axis in range(3))
    return z, y, x


def _from_section(section: Any, where: str) -> Target:
    if isinstance(section, Mapping) and len(section) == 1:
        name, parameters = next(iter(section.items()))
    elif isinstance(section, str):
        name, parameters = section, None
    else:
        raise ConfigError(
            f"{where}: found {section!r}; wanted a name, or one name with its parameters, "
            "such as signed_distance: {scale: 8}"
        )
    if name not in TARGETS:
        raise ConfigError(f"{where}.{name}: unknown target{did_you_mean(str(name), TARGETS)}")
    kind, parameters = TARGETS[name], {} if parameters is None else parameters
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"{where}.{name}: found {parameters!r}; wanted parameters by name")
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for key, value in parameters.items():
        if key not in defaults:
            raise ConfigError(
                f"{where}.{name}.{key}: unknown parameter{did_you_mean(str(key), defaults)}"
            )
        wanted = _not_of_the_kind(value, defaults[key])
        if wanted:
            raise ConfigError(f"{where}.{name}.{key}: found {value!r}; wanted {wanted}")
    try:
        return kind(**parameters)
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from error


def _not_of_the_kind(value: Any, default: Any) -> str | None:
    """What a parameter should be, where its value is of another kind than its default."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        allowed = (int,) if type(default) is int else (int, float)
        ok = isinstance(value, allowed) and not isinstance(value, bool)
        return None if ok else "a whole number" if allowed == (int,) else "a number"
    return None
