"""The memory planner: as wide a field as the budget allows, near to a cube in micrometres."""

from __future__ import annotations

import math

from volprep.autoconfig.network import UNet, design_network, network_for
from volprep.autoconfig.task import (
    OVERHANG,
    RESERVE,
    Choice,
    Task,
    check_divides,
    given_batch,
    padded_axes,
)
from volprep.errors import PlanError
from volprep.files import format_bytes, format_memory
from volprep.geometry import Shape3, three

__all__ = ["plan_by_memory"]

#: A patch this wide (in voxels of the finest axis) must fit, or there is no plan.
SMALLEST_FIELD = 16
#: One batch sees at most this share of the voxels of the data set.
BATCH_SHARE = 0.05


def plan_by_memory(task: Task) -> Choice:
    """The largest patch that fits with the smallest batch, then the largest batch.

    Raises
    ------
    PlanError
        If nothing fits, or given values contradict each other.
    """
    least = task.batch_size or task.min_batch
    if task.patch_size is None:
        patch, network = _largest_patch(task, least)
        why = _patch_reason(task, patch, network, least)
    else:
        patch, network = task.patch_size, _network_of_given_patch(task)
        why = "given" + padded_axes(task, patch)
    if task.bytes(network, patch, least) > task.usable:
        raise _too_large(task, patch, network, least)
    batch, batch_why = _largest_batch(task, patch, network)
    reasons = {
        "patch_size": why,
        "pool": "given" if task.pool else _pool_reason(task),
        "kernel_sizes": "1 along an axis while its spacing is twice the finest or more, else 3",
        "batch_size": batch_why,
    }
    return Choice(patch, network, batch, reasons)


def _largest_patch(task: Task, batch: int) -> tuple[Shape3, UNet]:
    """The widest cube in micrometres, clipped to the image, that fits; then what is left over."""
    thick = [s for s, n in zip(task.steps, task.room, strict=True) if n > 1]
    finest = min(thick, default=1.0)
    low = SMALLEST_FIELD * finest
    high = max(low, max(n * s for n, s in zip(task.room, task.steps, strict=True)))
    patch, network = _cut(task, low)
    if task.bytes(network, patch, batch) > task.usable:
        raise _too_large(task, patch, network, batch)
    widest = _cut(task, high)
    if task.bytes(widest[1], widest[0], batch) <= task.usable:
        return _grown(task, *widest, batch)
    while high - low > finest:
        middle = (low + high) / 2
        wider = _cut(task, middle)
        if task.bytes(wider[1], wider[0], batch) <= task.usable:
            low, (patch, network) = middle, wider
        else:
            high = middle
    return _grown(task, patch, network, batch)


def _cut(task: Task, field: float) -> tuple[Shape3, UNet]:
    """The patch whose sides are `field` long or the whole image, cut to what pooling divides."""
    return _divisible(
        task,
        three([
            max(1, min(n, int(field / s))) for n, s in zip(task.room, task.steps, strict=True)
        ]),
    )  # fmt: skip


def _divisible(task: Task, patch: Shape3) -> tuple[Shape3, UNet]:
    if task.pool is None:
        network = design_network(
            patch, task.spacing, max_pool=task.max_pool,
            n_channels=task.n_channels, n_classes=task.n_classes,
        )  # fmt: skip
        return three([n >> k << k for n, k in zip(patch, network.pool, strict=True)]), network
    for axis, (n, k) in enumerate(zip(task.shape, task.pool, strict=True)):
        if 2**k > OVERHANG * n:
            raise PlanError(
                f"pool {list(task.pool)}: {k} poolings need {2**k} voxels along {'zyx'[axis]}, "
                f"where the median shape has {n}; give at most {int(OVERHANG * n).bit_length() - 1}"
            )
    patch = three([max(1, n >> k) << k for n, k in zip(patch, task.pool, strict=True)])
    return patch, network_for(
        task.pool, patch, task.spacing, n_channels=task.n_channels, n_classes=task.n_classes
    )


def _grown(task: Task, patch: Shape3, network: UNet, batch: int) -> tuple[Shape3, UNet]:
    """Lengthen the side that is shortest in micrometres, again and again, while it fits."""
    while True:
        order = sorted(range(3), key=lambda i: patch[i] * task.steps[i])
        for axis in order:
            wider = _lengthened(task, patch, network, axis)
            if wider and task.bytes(wider[1], wider[0], batch) <= task.usable:
                patch, network = wider
                break
        else:
            return patch, network


def _lengthened(task: Task, patch: Shape3, network: UNet, axis: int) -> tuple[Shape3, UNet] | None:
    """The patch with one step more along an axis, unless that leaves the image too far behind."""
    whole, side = task.room[axis], patch[axis]
    longer = side + 2 ** network.pool[axis]
    over = longer - whole
    if over > 0 and (task.limit or over >= whole - side or longer > OVERHANG * whole):
        return None
    wanted = three([longer if i == axis else n for i, n in enumerate(patch)])
    wider = _divisible(task, wanted)
    return wider if math.prod(wider[0]) > math.prod(patch) else None


def _network_of_given_patch(task: Task) -> UNet:
    assert task.patch_size is not None
    if task.pool is not None:
        check_divides(task.patch_size, task.pool)
        return network_for(
            task.pool, task.patch_size, task.spacing,
            n_channels=task.n_channels, n_classes=task.n_classes,
        )  # fmt: skip
    return design_network(
        task.patch_size, task.spacing, max_pool=task.max_pool, divide=True,
        n_channels=task.n_channels, n_classes=task.n_classes,
    )  # fmt: skip


def _largest_batch(task: Task, patch: Shape3, network: UNet) -> tuple[int, str]:
    if task.batch_size:
        return task.batch_size, given_batch(task)
    batch = task.min_batch
    while batch < task.max_batch and task.bytes(network, patch, batch + 1) <= task.usable:
        batch += 1
    why = "the largest allowed" if batch == task.max_batch else "the most patches that fit"
    if task.n_images is None:
        return batch, why
    seen = BATCH_SHARE * task.n_images * math.prod(task.shape) / math.prod(patch)
    if batch > max(task.min_batch, int(seen)):
        batch = max(task.min_batch, int(seen))
        images = "1 image" if task.n_images == 1 else f"{task.n_images} images"
        share = f"{BATCH_SHARE:.0%} of the voxels of {images}"
        why = f"a batch shall see at most {share}"
        if batch > seen:
            why = f"the smallest allowed, since more would see over {share}"
    return batch, why


def _too_large(task: Task, patch: Shape3, network: UNet, batch: int) -> PlanError:
    needed = math.ceil(task.bytes(network, patch, batch) / (1 - RESERVE))
    changes = [f"give memory {_enough(needed)}"]
    fewer = next(
        (b for b in range(batch - 1, 0, -1) if task.bytes(network, patch, b) <= task.usable), None
    )
    if fewer:
        changes.append(f"{'batch_size' if task.batch_size else 'min_batch'} {fewer}")
    if task.precision == "fp32":
        changes.append("precision mixed")
    return PlanError(
        f"memory {format_memory(task.memory)}: {batch} patches of {'x'.join(map(str, patch))} "
        f"need {format_bytes(needed)}; {', or '.join(changes)}"
    )


def _enough(needed: int) -> str:
    """The next round size above: tenths of a GiB, or whole MiB."""
    if needed >= 2**30:
        return f"{math.ceil(needed / 2**30 * 10) / 10:g}GiB"
    return f"{math.ceil(needed / 2**20)}MiB"


def _patch_reason(task: Task, patch: Shape3, network: UNet, batch: int) -> str:
    unit = "µm" if task.spacing else "voxels"
    field = max(n * s for n, s in zip(patch, task.steps, strict=True))
    whole = all(side + 2**k > n for side, k, n in zip(patch, network.pool, task.shape, strict=True))
    text = (
        f"the largest that {batch} of fit in {format_bytes(task.usable)}, "
        f"as near to a cube of {field:.3g} {unit} as the volumes allow"
    )
    if whole:
        text = f"a whole median volume, {batch} of which fit in {format_bytes(task.usable)}"
    if not task.spacing:
        text += "; the spacing is unknown, voxels are taken as cubes"
    return text + padded_axes(task, patch)


def _pool_reason(task: Task) -> str:
    return (
        f"an axis is halved, at most {task.max_pool} times, while it has 8 voxels"
        + (" and is less than twice as coarse as the finest" if task.spacing else "")
    )  # fmt: skip
