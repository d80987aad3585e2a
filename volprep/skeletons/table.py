"""Points by id as the kernels take them, and the checks at the door of baking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.geometry import whole
from volprep.skeletons.labels import as_array
from volprep.skeletons.points import Skeletons

__all__ = ["PointTable", "Target", "check_anisotropy", "check_masks", "missing_skeletons"]

Target = Literal["position", "offset"]
Field = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PointTable:
    """Points by id, laid out for the kernels.

    Attributes
    ----------
    ids, offsets : array, shape (K,) and (K + 1,)
        As in `Skeletons`.
    points : array, shape (3, N), float32
    empty : frozenset of int
        Ids that were given without a point: an error once a voxel needs them.
    """

    ids: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.int64]
    points: Field
    empty: frozenset[int] = frozenset()

    @classmethod
    def of(cls, skeletons: Mapping[int, Any]) -> PointTable:
        """Lay out skeletons given by id, as `Skeletons` or as a dict of arrays or tensors."""
        empty: set[int] = set()
        if not isinstance(skeletons, Skeletons):
            given = {
                i: as_array(p) for i, p in zip(whole(skeletons), skeletons.values(), strict=True)
            }
            given.pop(-1, None)
            empty = {i for i, points in given.items() if points.size == 0}
            skeletons = Skeletons.from_points({i: p for i, p in given.items() if i not in empty})
        points = np.array(skeletons.points.T, np.float32, order="C")
        # Copies: arrays that may not be written would be compiled for once more.
        ids, offsets = np.array(skeletons.ids), np.array(skeletons.offsets)
        return cls(ids, offsets, points, frozenset(empty))


def check_masks(masks: Any) -> npt.NDArray[Any]:
    """The labels as an array of three axes."""
    labels = as_array(masks)
    if labels.ndim == 4 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.ndim != 3:
        raise ValueError(f"masks are {labels.shape}, wanted (1, X, Y, Z) or (X, Y, Z)")
    if labels.dtype.kind not in "uib":
        raise TypeError(f"masks are {labels.dtype}, wanted integers")
    return labels


def check_anisotropy(anisotropy: Sequence[float]) -> npt.NDArray[np.float64]:
    """The anisotropy as an array (3,)."""
    weights = np.asarray(anisotropy, np.float64)
    if weights.shape != (3,) or not np.isfinite(weights).all() or (weights <= 0).any():
        raise ValueError(f"anisotropy is {anisotropy}, wanted three positive numbers")
    return weights


def missing_skeletons(labels: npt.NDArray[Any], table: PointTable) -> str:
    """Which labels the table lacks, for an error."""
    known = set(map(int, table.ids))
    lacking = [int(i) for i in np.unique(labels) if i != 0 and int(i) not in known]
    without = [i for i in lacking if i in table.empty]
    if without:
        return f"skeleton of instance {without[0]} has no point"
    more = f" (and of {len(lacking) - 1} more)" if len(lacking) > 1 else ""
    return f"masks hold instance {lacking[0]}, but there is no skeleton of it{more}"
