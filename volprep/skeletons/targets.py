"""What a network learns of skeletons, baked from the points of one patch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from volprep.geometry import Spacing3
from volprep.skeletons.bake import bake_skeleton
from volprep.skeletons.paint import skeleton_to_mask

__all__ = ["SkeletonTargets"]


@dataclass(frozen=True)
class SkeletonTargets:
    """How the targets of a patch are made from its labels and its skeleton points.

    Attributes
    ----------
    anisotropy : (Z, Y, X)
        Size of a voxel, in any unit; distances are weighted with it.
    average : bool
        Whether the field is smoothed within each instance.
    radius, flank_radius : float
        Of the discs of the skeleton mask, on the point's slice and beside it, in voxels.
    """

    NAMES = ("offset", "skeleton_mask")

    anisotropy: Spacing3 = (1.0, 1.0, 1.0)
    average: bool = True
    radius: float = 7
    flank_radius: float = 3

    def bake(
        self, label: npt.NDArray[Any], skeletons: Mapping[int, Any]
    ) -> dict[str, npt.NDArray[Any]]:
        """The targets of one patch; the last thing that is done to it.

        Parameters
        ----------
        label : ndarray, shape (Z, Y, X)
            Instance ids.
        skeletons : mapping of int to array, shape (N, 3)
            All the points of each id of the patch, in its own voxels.

        Returns
        -------
        dict of ndarray
            ``offset`` float32 (3, Z, Y, X): from each voxel to the nearest point of its
            own skeleton, 0 in the background; it stays right when the patch is cut.
            ``skeleton_mask`` uint8 (Z, Y, X).
        """
        offset = bake_skeleton(label, skeletons, self.anisotropy, self.average, target="offset")
        mask = skeleton_to_mask(
            skeletons, label.shape, None, self.radius, self.flank_radius,
            dtype=np.uint8, slice_axis=0,
        )  # fmt: skip
        return {"offset": np.asarray(offset), "skeleton_mask": np.asarray(mask)[0]}

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "anisotropy": list(self.anisotropy)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        z, y, x = (float(v) for v in values["anisotropy"])
        return cls(**{**values, "anisotropy": (z, y, x)})
