"""Labels that are stored as numbers of ids."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from volprep.kernels.compiling import kernel

__all__ = ["take_ids"]


@kernel()
def take_ids(table: npt.NDArray[Any], numbers: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """The id of each number; 0 for a number that is beyond the table.

    Parameters
    ----------
    table : array, shape (N,)
    numbers : array of unsigned integers, shape (Z, Y, X)
    out : array, shape (Z, Y, X)
    """
    for z in range(numbers.shape[0]):
        for y in range(numbers.shape[1]):
            for x in range(numbers.shape[2]):
                number = numbers[z, y, x]
                # Two stores, not one of either: an id of 64 bits and a 0 together are a float.
                if number < table.size:
                    out[z, y, x] = table[number]
                else:
                    out[z, y, x] = 0
