"""From a median shape, a spacing and a memory budget to a plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from volprep.autoconfig.augmentation import augmentation_patch, default_rotation
from volprep.autoconfig.by_biom3d import plan_by_biom3d
from volprep.autoconfig.by_memory import plan_by_memory
from volprep.autoconfig.memory import Precision, training_bytes
from volprep.autoconfig.plan import Plan
from volprep.autoconfig.spacing import resampled_shape
from volprep.autoconfig.task import Choice, Task
from volprep.errors import PlanError
from volprep.geometry import Shape3, Spacing3, three

__all__ = ["make_plan"]

_PLANNERS: dict[str, Callable[[Task], Choice]] = {
    "memory": plan_by_memory,
    "biom3d": plan_by_biom3d,
}


def make_plan(
    median_shape: Sequence[int],
    *,
    spacing: Sequence[float] | None = None,
    target_spacing: Sequence[float] | None = None,
    n_channels: int = 1,
    n_classes: int = 2,
    planner: Literal["memory", "biom3d"] = "memory",
    memory: int = 8 * 2**30,
    precision: Precision = "mixed",
    max_dims: Sequence[int] = (128, 128, 128),
    max_pool: int = 5,
    min_batch: int = 2,
    max_batch: int = 16,
    n_images: int | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    pool: Sequence[int] | None = None,
    limit: Sequence[int] | None = None,
    aug_patch_size: Sequence[int] | None = None,
) -> Plan:
    """Decide patch, pooling, batch and augmentation patch; the disk is not touched.

    Parameters
    ----------
    median_shape : sequence of int
        (Z, Y, X), or (C, Z, Y, X) of which C is ignored, in voxels.
    spacing : sequence of float or None
        (Z, Y, X) in micrometres of the volumes; None where unknown, which is taken
        as cubes.
    target_spacing : sequence of float or None
        What volumes are resampled to before patches are cut; the median shape is
        converted. Needs `spacing`.
    n_channels, n_classes : int
        Of the network's input and output.
    planner : {'memory', 'biom3d'}
        ``memory``: the patch comes near to a cube in micrometres and is as large as
        the budget allows with `min_batch` patches; an axis is pooled while it is
        less than twice as coarse as the finest. ``biom3d``: `find_patch_pool_batch`.
    memory : int
        Bytes of the device that trains.
    precision : {'mixed', 'fp32'}
        Of the training step.
    max_dims : sequence of int
        ``biom3d`` only: the bound of the patch's volume.
    max_pool : int
        Most poolings along an axis.
    min_batch, max_batch : int
        Range of the batch size.
    n_images : int or None
        Volumes in the data set, so that a batch of few volumes stays small.
    patch_size, batch_size, pool, aug_patch_size : optional
        The user's own values; the rest is solved around them.
    limit : sequence of int or None
        (Z, Y, X) that a patch which is chosen must not exceed; None is the median shape.

    Returns
    -------
    Plan
        2**pool divides the patch on every axis. With the memory planner the patch is
        at most 1.25 times the median shape (unless given) and all parts fit the budget.

    Raises
    ------
    PlanError
        If nothing fits, or given values contradict each other; the message names
        the smallest change that helps.
    """
    shape, step, target = _volumes(median_shape, spacing, target_spacing)
    if planner not in _PLANNERS:
        raise PlanError(f"planner {planner!r}: not known; give {' or '.join(_PLANNERS)}")
    if not 1 <= min_batch <= max_batch:
        raise PlanError(f"min_batch {min_batch}, max_batch {max_batch}: give 1 <= min <= max")
    task = Task(
        shape=shape,
        spacing=step,
        n_channels=_positive("n_channels", n_channels),
        n_classes=_positive("n_classes", n_classes),
        memory=_positive("memory", memory),
        precision=precision,
        max_dims=_sizes("max_dims", max_dims),
        max_pool=max_pool,
        min_batch=min_batch,
        max_batch=max_batch,
        n_images=n_images,
        patch_size=None if patch_size is None else _sizes("patch_size", patch_size),
        batch_size=None if batch_size is None else _positive("batch_size", batch_size),
        pool=None if pool is None else _sizes("pool", pool, least=0),
        limit=None if limit is None else _sizes("limit", limit),
    )
    choice = _PLANNERS[planner](task)
    larger, larger_why = (
        _aug_patch(task, choice.patch)
        if aug_patch_size is None
        else _given_aug_patch(choice.patch, aug_patch_size)
    )
    given = {
        "target_spacing": target_spacing, "patch_size": patch_size, "batch_size": batch_size,
        "pool": pool, "aug_patch_size": aug_patch_size,
    }  # fmt: skip
    parts = training_bytes(choice.network, choice.patch, choice.batch, precision)
    return Plan(
        planner=planner,
        precision=precision,
        median_shape=shape,
        spacing=step,
        target_spacing=target,
        n_channels=n_channels,
        n_classes=n_classes,
        patch_size=choice.patch,
        pool=choice.network.pool,
        strides=choice.network.strides,
        kernel_sizes=choice.network.kernels,
        features=choice.network.widths,
        batch_size=choice.batch,
        aug_patch_size=larger,
        memory={**parts, "reserve": memory - task.usable},
        memory_budget=memory,
        given=tuple(name for name, value in given.items() if value is not None),
        reasons={
            "median_shape": "the median of the volumes" + (", once resampled" if target else ""),
            **({"target_spacing": "volumes are resampled to it first"} if target else {}),
            **choice.reasons,
            "aug_patch_size": larger_why,
        },
    )


def _aug_patch(task: Task, patch: Shape3) -> tuple[Shape3, str]:
    """For any turn in the plane of flat or anisotropic patches, 30 degrees about each axis else."""
    angles = default_rotation(patch, task.spacing)
    turns = " x ".join(f"{a:g}" for a in angles)
    larger = augmentation_patch(patch, task.spacing, rotation=angles)
    return larger, f"holds the patch turned by up to {turns} degrees about z, y, x"


def _given_aug_patch(patch: Shape3, wanted: Sequence[int]) -> tuple[Shape3, str]:
    larger = _sizes("aug_patch_size", wanted)
    if any(a < p for a, p in zip(larger, patch, strict=True)):
        raise PlanError(
            f"aug_patch_size {list(larger)}: smaller than the patch {list(patch)}; "
            "make it at least as large, or leave it out"
        )
    return larger, "given"


def _volumes(
    median_shape: Sequence[int],
    spacing: Sequence[float] | None,
    target: Sequence[float] | None,
) -> tuple[Shape3, Spacing3 | None, Spacing3 | None]:
    """Shape and spacing as the network sees them, and the target spacing."""
    if len(median_shape) not in (3, 4) or min(median_shape[-3:]) < 1:
        raise PlanError(
            f"median_shape {[int(n) for n in median_shape]}: "
            "give (Z, Y, X) or (C, Z, Y, X), each at least 1"
        )
    shape = three(median_shape[-3:])
    step = None if spacing is None else _lengths("spacing", spacing)
    if target is None:
        return shape, step, None
    wanted = _lengths("target_spacing", target)
    if step is None:
        raise PlanError(
            "target_spacing: the spacing of the volumes is unknown; give spacing, or leave it out"
        )
    return resampled_shape(shape, step, wanted), wanted, wanted


def _lengths(name: str, values: Sequence[float]) -> Spacing3:
    lengths = [float(v) for v in values]
    if len(lengths) != 3 or not all(0 < v < math.inf for v in lengths):
        raise PlanError(f"{name} {lengths}: give three positive lengths (Z, Y, X)")
    z, y, x = lengths
    return z, y, x


def _sizes(name: str, values: Sequence[int], least: int = 1) -> Shape3:
    if len(values) != 3 or min(values) < least:
        raise PlanError(
            f"{name} {[int(v) for v in values]}: give three numbers (Z, Y, X) of at least {least}"
        )
    return three(values)


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise PlanError(f"{name} {value}: give at least 1")
    return int(value)
