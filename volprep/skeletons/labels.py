"""Labels as the kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_unsigned"]


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
