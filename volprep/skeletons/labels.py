"""Labels as the kernels take them."""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from volprep.kernels.runs import count_runs, find_runs

__all__ = ["as_array", "as_unsigned", "list_runs", "present_ids"]


def as_array(values: Any) -> npt.NDArray[Any]:
    """An array from an array or from a tensor on any device."""
    loaded = sys.modules.get("torch")  # who has a tensor has imported it
    if loaded is not None and isinstance(values, loaded.Tensor):
        return cast("npt.NDArray[Any]", values.detach().cpu().numpy())
    return np.asarray(values)


def as_unsigned(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The labels (Z, Y, X) as uint32 or uint64, whichever holds them; no id changes.

    Raises
    ------
    ValueError, TypeError
        If there are not three axes, an id is negative, or they are not integers.
    """
    if labels.ndim != 3:
        raise ValueError(f"labels are {labels.shape}, wanted (Z, Y, X)")
    if labels.dtype.kind in "ub":
        return labels.astype(np.uint64 if labels.dtype.itemsize == 8 else np.uint32, copy=False)
    if labels.dtype.kind != "i":
        raise TypeError(f"labels are {labels.dtype}, wanted integers")
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels hold {labels.min()}; instance ids are 1 and above")
    wide = labels.dtype.itemsize == 8
    return labels.astype(np.int64 if wide else np.int32, copy=False).view(
        np.uint64 if wide else np.uint32
    )


def list_runs(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
    """Every run of one label along x: its id (R,), and ``(z, y, x, stop)`` (R, 4)."""
    unsigned = np.ascontiguousarray(as_unsigned(labels))
    count = count_runs(unsigned)
    ids, runs = np.empty(count, np.uint64), np.empty((count, 4), np.int32)
    find_runs(unsigned, ids, runs)
    return ids, runs


def present_ids(labels: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """The ids in an array of labels (Z, Y, X), ascending, without 0."""
    return np.unique(list_runs(labels)[0])
