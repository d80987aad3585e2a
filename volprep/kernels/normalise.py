"""Clip, shift and scale a volume in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel

__all__ = ["clip_shift_scale"]


@kernel()
def clip_shift_scale(
    source: npt.NDArray[Any],
    low: float,
    high: float,
    offset: float,
    factor: float,
    out: npt.NDArray[np.float32],
) -> None:
    """out = (min(max(source, low), high) - offset) * factor, reckoned in float64.

    Parameters
    ----------
    source : ndarray, shape (N,), any real type
    low, high : float
        Infinite where there is nothing to cut.
    offset, factor : float
        In the units of `source`, and one over them.
    out : ndarray, shape (N,), float32
    """
    for i in range(source.size):
        value = float(source[i])
        value = low if value < low else value
        value = high if value > high else value
        out[i] = np.float32((value - offset) * factor)
