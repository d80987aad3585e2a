"""The biom3d planner: its patch, pooling and batch, with the user's own values kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from volprep.autoconfig.biom3d import find_patch_pool_batch
from volprep.autoconfig.network import network_for
from volprep.autoconfig.task import Choice, Task, check_divides, given_batch, halvings, padded_axes
from volprep.files import format_bytes
from volprep.geometry import Shape3, three

__all__ = ["plan_by_biom3d"]

#: biom3d allows a batch of one patch for this many images.
IMAGES_PER_PATCH = 20


def plan_by_biom3d(task: Task) -> Choice:
    """Plan as biom3d does; memory and spacing are not heeded, but reported."""
    found, poolings, _ = find_patch_pool_batch(task.room, task.max_dims, task.max_pool)
    patch, pool = three(found.tolist()), three(poolings.tolist())
    if task.patch_size:
        patch = task.patch_size
        pool = task.pool or _poolings(task, patch)
        check_divides(patch, pool)
    elif task.pool:
        pool = task.pool
        patch = three([max(1, n >> k) << k for n, k in zip(patch, pool, strict=True)])
    network = network_for(pool, patch, None, n_channels=task.n_channels, n_classes=task.n_classes)
    batch, why = _batch(task, patch)
    needed = task.bytes(network, patch, batch)
    if needed > task.usable:
        why += (
            f"; a plain U-Net needs {format_bytes(needed)} for it, more than "
            f"{format_bytes(task.usable)}, which this planner does not heed"
        )
    return Choice(patch, network, batch, {**_reasons(task, patch), "batch_size": why})


def _poolings(task: Task, patch: Sequence[int]) -> Shape3:
    smallest = max(1, min(task.max_dims) >> task.max_pool)
    return three([
        min(task.max_pool, max(0, (n // smallest).bit_length() - 1), halvings(n)) for n in patch
    ])  # fmt: skip


def _batch(task: Task, patch: Sequence[int]) -> tuple[int, str]:
    if task.batch_size:
        return task.batch_size, given_batch(task)
    fitting = 2 * (math.prod(task.max_dims) // math.prod(patch))
    most = task.max_batch
    if task.n_images is not None:
        most = min(most, task.n_images // IMAGES_PER_PATCH)
    most = max(task.min_batch, most)
    return max(task.min_batch, min(most, fitting)), (
        f"twice the patches that fit in {_bound(task)} voxels, "
        f"at least {task.min_batch} and at most {most}"
    )


def _reasons(task: Task, patch: Shape3) -> dict[str, str]:
    smallest = min(task.max_dims) >> task.max_pool
    return {
        "patch_size": (
            "given" if task.patch_size
            else f"the median shape, shrunk evenly to the volume of {_bound(task)} voxels"
        ) + padded_axes(task, patch),
        "pool": "given" if task.pool
        else f"halvings down to {smallest} voxels, at most {task.max_pool}",
        "kernel_sizes": "3, and 1 along an axis of one voxel",
    }  # fmt: skip


def _bound(task: Task) -> str:
    return "x".join(map(str, task.max_dims))
