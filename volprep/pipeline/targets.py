"""What networks are to learn, as a config lists it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volprep.autoconfig import Plan
from volprep.cases import Cases
from volprep.config import Config
from volprep.errors import ConfigError
from volprep.targets import Skeleton, Target, targets_from_config

__all__ = ["stored_targets", "targets_of"]


def targets_of(config: Config, cases: Cases, plan: Plan) -> list[Target]:
    """The targets of a config, skeletons first, with what the plan knows filled in.

    Raises
    ------
    ConfigError
        For wrong names and parameters, and where there are no labels to make them from.
    """
    listed = targets_from_config([_known(section, plan) for section in config.targets])
    labelled = any(case.label for case in cases)
    if listed and not labelled:
        raise ConfigError(f"targets: {listed[0].name} is made from labels, and no case has one")
    if any(target.name == Skeleton.name for target in listed):
        raise ConfigError("targets: skeleton comes with skeletons: {enabled: true}; write that")
    section = config.skeletons
    if not section.enabled:
        return listed
    if cases.label_kind != "instances" or not labelled:
        raise ConfigError("skeletons.enabled: needs labels, with data.label_kind: instances")
    size = section.anisotropy or plan.spacing or (1.0, 1.0, 1.0)
    if section.anisotropy is None:
        finest = min(size)
        size = (size[0] / finest, size[1] / finest, size[2] / finest)
    skeleton = Skeleton(size, section.average, float(section.radius), float(section.flank_radius))
    return [skeleton, *listed]


def stored_targets(config: Config, targets: Sequence[Target]) -> list[Target]:
    """Those that are kept in the set: skeletons always, the others where it is asked for."""
    every = config.output.targets == "store"
    return [target for target in targets if every or target.name == Skeleton.name]


def _known(section: Any, plan: Plan) -> Any:
    """A section of the list; the classes of `one_hot` are the plan's where it gives none."""
    name, given = next(iter(section.items())) if isinstance(section, dict) else (section, None)
    if name == "one_hot" and not (given or {}).get("classes"):
        return {name: {"classes": plan.n_classes}}
    return section
