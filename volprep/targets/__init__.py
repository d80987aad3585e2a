"""What networks learn of labels and points: a family, each made last, after augmentation."""

from volprep.targets.patch import LabelPatch
from volprep.targets.skeletons import Skeleton
from volprep.targets.table import (
    TARGETS,
    empty_targets,
    make_targets,
    targets_from_config,
    targets_margin,
)
from volprep.targets.target import Target, TargetArray

__all__ = [
    "TARGETS",
    "LabelPatch",
    "Skeleton",
    "Target",
    "TargetArray",
    "empty_targets",
    "make_targets",
    "targets_from_config",
    "targets_margin",
]
