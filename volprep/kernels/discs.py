"""Discs around points, painted slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel

__all__ = ["paint_discs"]


@kernel()
def paint_discs(
    centres: npt.NDArray[np.int64], halves: npt.NDArray[np.int64], out: npt.NDArray[Any]
) -> None:
    """Set one disc on the slice of each centre and one on the slice before and after it.

    Parameters
    ----------
    centres : array, shape (N, 3)
        (slice, row, column); what lies outside `out` is left out.
    halves : array, shape (2, 2 R + 1)
        How far the disc reaches along a row, by the row's distance to the centre plus R:
        first on the centre's slice, then on the two beside it. Below 0 the disc has no
        voxel in that row.
    out : array, shape (slices, rows, columns)
        Painted with ones.
    """
    n_slices, n_rows, n_columns = out.shape
    reach = halves.shape[1] // 2
    for i in range(len(centres)):
        z, y, x = centres[i]
        for slice_ in range(max(0, z - 1), min(n_slices, z + 2)):
            half = halves[0 if slice_ == z else 1]
            for row in range(max(0, y - reach), min(n_rows, y + reach + 1)):
                width = half[row - y + reach]
                for column in range(max(0, x - width), min(n_columns, x + width + 1)):
                    out[slice_, row, column] = 1
