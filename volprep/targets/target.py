"""What every target has in common: its arrays, its needs, how it is made of one patch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3
from volprep.targets.patch import LabelPatch

__all__ = ["Need", "Target", "TargetArray"]

Need = Literal["label", "skeletons"]


@dataclass(frozen=True, slots=True)
class TargetArray:
    """One array of a target: its name, its leading axis (None for none) and its dtype."""

    name: str
    channels: int | None
    dtype: np.dtype[Any]

    def shape(self, size: Shape3) -> tuple[int, ...]:
        """Of a patch of `size`: (channels, Z, Y, X), or (Z, Y, X)."""
        return size if self.channels is None else (self.channels, *size)


@dataclass(frozen=True)
class Target:
    """Something that a network learns, made from the labels of one patch.

    Targets are the last thing that is done to a sample: labels and points move, what is
    made from them never does. The fields of a subclass are its parameters, which a config
    may give.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset({"label"})

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """The arrays that `make` gives for a patch of `size`."""
        raise NotImplementedError

    def make(self, patch: LabelPatch, out: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill the target's arrays in `out`, whatever they hold, from one patch."""
        raise NotImplementedError

    def margin(self, size: Shape3) -> Shape3:
        """Voxels around a patch of `size` of which its outermost voxels depend."""
        return 0, 0, 0

    def to_dict(self) -> dict[str, Any]:
        """The target as a section of a config: its name with all parameters."""
        return {self.name: dataclasses.asdict(self)}
