"""Targets made from the skeleton points of instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, Spacing3
from volprep.skeletons import bake_skeleton, skeleton_to_mask
from volprep.targets.patch import LabelPatch
from volprep.targets.target import Need, Target, TargetArray

__all__ = ["Skeleton"]

#: No disc is wider than a patch.
_WIDEST = 1000


@dataclass(frozen=True)
class Skeleton(Target):
    """Where each voxel's own skeleton lies, and where skeletons run (SKOOTS' two targets).

    Parameters
    ----------
    anisotropy : (Z, Y, X)
        Size of a voxel, in any unit; distances are weighted with it.
    average : bool
        Whether the field is smoothed within each instance.
    radius, flank_radius : float
        Of the discs of the skeleton mask, on the point's slice and beside it, in voxels.

    Notes
    -----
    ``offset`` float32 (3, Z, Y, X): from each voxel to the nearest point of its own
    skeleton, 0 in the background; it stays right when the patch is cut. ``skeleton_mask``
    uint8 (Z, Y, X).
    """

    name: ClassVar[str] = "skeleton"
    needs: ClassVar[frozenset[Need]] = frozenset({"label", "skeletons"})

    anisotropy: Spacing3 = (1.0, 1.0, 1.0)
    average: bool = True
    radius: float = 7.0
    flank_radius: float = 3.0

    def __post_init__(self) -> None:
        sizes = self.anisotropy
        three = isinstance(sizes, list | tuple) and len(sizes) == 3
        if not three or not all(isinstance(n, int | float) and n > 0 for n in sizes):
            raise ValueError(
                f"skeleton.anisotropy: found {sizes!r}; wanted three numbers above 0, such as "
                "[3, 1, 1]"
            )
        for name in ("radius", "flank_radius"):
            length = getattr(self, name)
            if not isinstance(length, int | float) or not 0 <= length <= _WIDEST:
                raise ValueError(
                    f"skeleton.{name}: found {length!r}; wanted a number from 0 to {_WIDEST}"
                )
        z, y, x = (float(n) for n in sizes)
        object.__setattr__(self, "anisotropy", (z, y, x))

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """The field and the mask."""
        return (
            TargetArray("offset", 3, np.dtype(np.float32)),
            TargetArray("skeleton_mask", None, np.dtype(np.uint8)),
        )

    def make(self, patch: LabelPatch, out: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill both."""
        out["offset"][:] = bake_skeleton(
            patch.label, patch.skeletons, self.anisotropy, self.average, target="offset"
        )
        mask = skeleton_to_mask(
            patch.skeletons, patch.shape, None, self.radius, self.flank_radius,
            dtype=np.uint8, slice_axis=0,
        )  # fmt: skip
        out["skeleton_mask"][:] = np.asarray(mask)[0]
