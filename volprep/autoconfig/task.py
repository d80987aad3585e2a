"""What a planner decides for, what it decides, and the checks that both planners share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from volprep.autoconfig.memory import Precision, training_bytes
from volprep.autoconfig.network import UNet
from volprep.errors import PlanError
from volprep.geometry import Shape3, Spacing3

__all__ = ["OVERHANG", "Choice", "Task", "check_divides", "given_batch", "halvings", "padded_axes"]

#: Of the budget, kept free for the driver, workspaces and fragmentation.
RESERVE = 0.1
#: A patch is at most this many times the median shape on every axis.
OVERHANG = 1.25


@dataclass(frozen=True, slots=True)
class Task:
    """What the planners decide for."""

    shape: Shape3
    spacing: Spacing3 | None
    n_channels: int
    n_classes: int
    memory: int
    precision: Precision
    max_dims: Shape3
    max_pool: int
    min_batch: int
    max_batch: int
    n_images: int | None
    patch_size: Shape3 | None
    batch_size: int | None
    pool: Shape3 | None
    #: The box that a patch may fill, where that is less than the volume.
    limit: Shape3 | None = None

    @property
    def room(self) -> Shape3:
        """What a patch that is chosen may fill."""
        return self.limit or self.shape

    @property
    def usable(self) -> int:
        """Bytes of the budget without the reserve."""
        return int(self.memory * (1 - RESERVE))

    @property
    def steps(self) -> Spacing3:
        """The spacing, or cubes where it is unknown."""
        return self.spacing or (1.0, 1.0, 1.0)

    def bytes(self, network: UNet, patch: Sequence[int], batch: int) -> int:
        """Of a training step, all parts together."""
        return sum(training_bytes(network, patch, batch, self.precision).values())


@dataclass(frozen=True, slots=True)
class Choice:
    """What a planner decided."""

    patch: Shape3
    network: UNet
    batch: int
    reasons: dict[str, str]


def check_divides(patch: Shape3, pool: Shape3) -> None:
    """Refuse a given patch that given poolings do not divide."""
    if any(n % 2**k for n, k in zip(patch, pool, strict=True)):
        near = [max(1, round(n / 2**k)) * 2**k for n, k in zip(patch, pool, strict=True)]
        most = [min(k, halvings(n)) for n, k in zip(patch, pool, strict=True)]
        raise PlanError(
            f"patch_size {list(patch)}: not divisible by 2**pool for pool {list(pool)}; "
            f"give patch_size {near} or pool {most}"
        )


def given_batch(task: Task) -> str:
    """The reason of the user's own batch size, with the bounds that it sets aside."""
    if task.batch_size is not None and task.batch_size > task.max_batch:
        return f"given, over max_batch {task.max_batch}, which bounds what is chosen alone"
    if task.batch_size is not None and task.batch_size < task.min_batch:
        return f"given, under min_batch {task.min_batch}, which bounds what is chosen alone"
    return "given"


def padded_axes(task: Task, patch: Shape3) -> str:
    """What to add to the reason of a patch that is larger than the median volume."""
    axes = [a for a, p, n in zip("zyx", patch, task.shape, strict=True) if p > n]
    text = f"; reaches beyond the median volume along {', '.join(axes)}, which is padded"
    return text if axes else ""


def halvings(n: int) -> int:
    """How often `n` is divisible by 2."""
    return (n & -n).bit_length() - 1
