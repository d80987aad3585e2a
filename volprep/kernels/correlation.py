"""Sums from which the correlation of two blocks follows, in one pass and without copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = ["add_products"]

Array = npt.NDArray[Any]
#: Sums may be taken in another order, so that they are vectorised: at most `BRIEF` products
#: are summed up in float32, which changes a correlation by less than a millionth.
_FAST = {"reassoc", "contract", "nsz"}
BRIEF = 256


@kernel()
def add_products(
    one: Array, start: tuple[int, int, int], other: Array, axis: int, out: Array
) -> None:
    """Sum up a block, another one, their squares and their product.

    Parameters
    ----------
    one : ndarray of uint8, shape (Z, Y, X)
        C-contiguous.
    start : tuple of int
        Where in `one` the block lies, which has the shape of `other`.
    other : ndarray of float32, shape (z, y, x)
        C-contiguous.
    axis : int
        Take differences of neighbours along this axis instead; -1 takes values.
    out : ndarray of float64, shape (5,)
        Added to: sums of `one`, of `other`, of their squares, and of their product.
    """
    depth, height, width = other.shape
    depth -= axis == 0
    height -= axis == 1
    x = start[2]
    for z in range(depth):
        for y in range(height):
            a, b = one[start[0] + z, start[1] + y, x : x + width], other[z, y]
            if axis < 0:
                for k in range(0, width, BRIEF):
                    _add(a[k : k + BRIEF], b[k : k + BRIEF], out)
            elif axis == 2:
                for k in range(0, width - 1, BRIEF):
                    m = min(width - 1, k + BRIEF)
                    _add_steps(a[k:m], a[k + 1 : m + 1], b[k:m], b[k + 1 : m + 1], out)
            else:
                down, below = (1, 0) if axis == 0 else (0, 1)
                c = one[start[0] + z + down, start[1] + y + below, x : x + width]
                d = other[z + down, y + below]
                for k in range(0, width, BRIEF):
                    m = min(width, k + BRIEF)
                    _add_steps(a[k:m], c[k:m], b[k:m], d[k:m], out)


@part(fastmath=_FAST)
def _add(a: Array, b: Array, out: Array) -> None:
    zero = np.float32(0)
    one, other, ones, others, product = zero, zero, zero, zero, zero
    for x in range(b.size):
        s = np.float32(a[x])
        one += s
        other += b[x]
        ones += s * s
        others += b[x] * b[x]
        product += s * b[x]
    _bring(one, other, ones, others, product, out)


@part(fastmath=_FAST)
def _add_steps(a: Array, c: Array, b: Array, d: Array, out: Array) -> None:
    zero = np.float32(0)
    one, other, ones, others, product = zero, zero, zero, zero, zero
    for x in range(b.size):
        s, t = np.float32(c[x]) - np.float32(a[x]), d[x] - b[x]
        one += s
        other += t
        ones += s * s
        others += t * t
        product += s * t
    _bring(one, other, ones, others, product, out)


@part()
def _bring(
    one: float, other: float, ones: float, others: float, product: float, out: Array
) -> None:
    out[0] += one
    out[1] += other
    out[2] += ones
    out[3] += others
    out[4] += product
