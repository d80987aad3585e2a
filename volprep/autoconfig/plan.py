"""The plan: what was decided for training, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from volprep.autoconfig.memory import PARTS, Precision
from volprep.files import format_bytes, format_memory
from volprep.geometry import Shape3, Spacing3

__all__ = ["Plan"]

#: Resampled cases that are listed one by one.
_MOST_SHOWN = 8


@dataclass(frozen=True)
class Plan:
    """Patch, pooling, batch and augmentation patch for one data set.

    Attributes
    ----------
    planner : str
        ``memory`` or ``biom3d``.
    precision : str
        ``mixed`` or ``fp32``.
    median_shape : tuple of int
        (Z, Y, X) of the volumes as the network sees them, resampled if they are.
    spacing : tuple of float or None
        (Z, Y, X) in micrometres of those voxels.
    target_spacing : tuple of float or None
        What volumes are resampled to; None where they are not.
    n_channels, n_classes : int
        Of the network's input and output.
    patch_size, aug_patch_size : tuple of int
        (Z, Y, X) in voxels.
    pool : tuple of int
        Poolings along (Z, Y, X).
    strides, kernel_sizes : tuple of (int, int, int)
        Of each stage of the network, outermost first.
    features : tuple of int
        Feature maps of each stage.
    batch_size : int
        Patches in a batch.
    memory : dict of str to int
        Bytes of a training step by part, the reserve included.
    memory_budget : int
        What they were to fit into.
    augment : tuple or mapping
        The augmentations that train, as a config has them.
    steps : int or None
        Batches of an epoch; None where no data is known, as for the next three.
    n_positions : int or None
        Distinct places of a patch in the training data.
    cover, n_patches : int or None
        How often the stored patches cover the training voxels, and how many they are.
    store : {'patches', 'volumes'} or None
        What the set keeps: patches that are cut once, or volumes to draw from.
    resampled : tuple of (str, (int, int, int), int)
        Of each case that is resampled: its name, its new shape, and the bytes of its image
        and its labels.
    given : tuple of str
        The values that the user gave.
    reasons : dict of str to str
        One sentence for each value.
    """

    planner: str
    precision: Precision
    median_shape: Shape3
    spacing: Spacing3 | None
    target_spacing: Spacing3 | None
    n_channels: int
    n_classes: int
    patch_size: Shape3
    pool: Shape3
    strides: tuple[Shape3, ...]
    kernel_sizes: tuple[Shape3, ...]
    features: tuple[int, ...]
    batch_size: int
    aug_patch_size: Shape3
    memory: Mapping[str, int]
    memory_budget: int
    augment: tuple[Any, ...] | Mapping[str, Any] = ()
    steps: int | None = None
    n_positions: int | None = None
    cover: int | None = None
    n_patches: int | None = None
    store: str | None = None
    resampled: tuple[tuple[str, Shape3, int], ...] = ()
    given: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """All parts together."""
        return sum(self.memory.values())

    def to_dict(self) -> dict[str, Any]:
        """Lists, numbers and strings only, for YAML or JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The plan that `to_dict` was called on.

        Raises
        ------
        ValueError
            If a key is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if set(data) != known:
            wrong = sorted(set(data) ^ known)
            raise ValueError(f"not a plan: {', '.join(wrong)} missing or unknown")
        return cls(**{name: _frozen(value) for name, value in data.items()})

    def explain(self) -> list[str]:
        """The reasoning as lines of text: each value with its reason, then the bytes by part."""
        lines = []
        for name, reason in self.reasons.items():
            mark = " (given)" if name in self.given else ""
            lines.append(f"{name} = {_short(getattr(self, name))}{mark}")
            lines.append(f"    {reason}")
        for case, shape, size in self.resampled[:_MOST_SHOWN]:
            lines.append(f"resampled {case} = {_short(shape)}, {format_bytes(size)}")
        if len(self.resampled) > 1:
            rest = len(self.resampled) - _MOST_SHOWN
            total = format_bytes(sum(size for _, _, size in self.resampled))
            more = f"... and {rest} more; " if rest > 0 else ""
            lines.append(f"    {more}{total} together")
        lines.append(
            f"memory = {format_bytes(self.memory_bytes)} of {format_memory(self.memory_budget)}"
        )
        width = max(map(len, self.memory))
        for part, count in self.memory.items():
            meaning = PARTS.get(part, "left free for the driver, workspaces and fragmentation")
            lines.append(f"    {part:<{width}}  {format_bytes(count):>9}  {meaning}")
        return lines


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(map(str, value)) or "none"
    if value == () or (isinstance(value, tuple) and isinstance(value[0], Mapping | str)):
        return ", ".join(_short(v) for v in value) or "none"
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return " ".join("x".join(map(str, v)) for v in value)
    if isinstance(value, tuple):
        return " x ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)
