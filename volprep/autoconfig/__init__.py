"""Decisions: target spacing, patch, pooling, batch and augmentation patch, each with its reason.

    plan = make_plan((96, 512, 512), spacing=(0.3, 0.1, 0.1), memory=8 * 2**30)
    plan.patch_size, plan.pool, plan.batch_size, plan.reasons["patch_size"]

Nothing here opens a file but `auto_config`, which may be given a folder.
"""

from __future__ import annotations

from volprep.autoconfig.augmentation import augmentation_patch
from volprep.autoconfig.biom3d import (
    UnfitShapeError,
    auto_config,
    display_info,
    find_patch_pool_batch,
    get_aug_patch,
    parameters_return,
)
from volprep.autoconfig.blocks import places_in, room_for_planes, rooms_for_patches
from volprep.autoconfig.epoch import (
    EpochPlan,
    Store,
    choose_store,
    distinct_positions,
    few_positions,
    plan_epoch,
    stored_size,
)
from volprep.autoconfig.memory import training_bytes
from volprep.autoconfig.network import UNet, design_network
from volprep.autoconfig.plan import Plan
from volprep.autoconfig.planner import make_plan
from volprep.autoconfig.recipe import Recipe, training_recipe
from volprep.autoconfig.spacing import (
    ResampledCase,
    choose_target_spacing,
    resampled_cases,
    resampled_shape,
)

__all__ = [
    "EpochPlan",
    "Plan",
    "Recipe",
    "ResampledCase",
    "Store",
    "UNet",
    "UnfitShapeError",
    "augmentation_patch",
    "auto_config",
    "choose_store",
    "choose_target_spacing",
    "design_network",
    "display_info",
    "distinct_positions",
    "few_positions",
    "find_patch_pool_batch",
    "get_aug_patch",
    "make_plan",
    "parameters_return",
    "places_in",
    "plan_epoch",
    "resampled_cases",
    "resampled_shape",
    "room_for_planes",
    "rooms_for_patches",
    "stored_size",
    "training_bytes",
    "training_recipe",
]
