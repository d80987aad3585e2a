"""What of a label is annotated: the valid mask made of ignored values and a mask file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from volprep.cases.derived import DerivedVolume
from volprep.geometry import Box
from volprep.sources import Array, Volume

__all__ = ["AnnotatedLabels", "ValidMask"]


class AnnotatedLabels(DerivedVolume):
    """Labels in which the values that stand for "not annotated" are 0.

    Parameters
    ----------
    labels : Volume
        From `open_labels`.
    ignore : sequence of int
        The values.
    """

    def __init__(self, labels: Volume, ignore: Sequence[int]) -> None:
        super().__init__([labels], 1, labels.dtype)
        self._ignore = _known(ignore, labels.dtype)

    def _made(self, blocks: Sequence[Array], box: Box) -> Array:
        left_out = np.isin(blocks[0], self._ignore)
        return np.where(left_out, self.dtype.type(0), blocks[0]) if left_out.any() else blocks[0]


class ValidMask(DerivedVolume):
    """1 where a label may be believed: not one of the ignored values, and inside the mask.

    Parameters
    ----------
    labels : Volume or None
        As in the file, the ignored values still in it.
    ignore : sequence of int
        Values that stand for "not annotated".
    mask : Volume or None
        Non-zero where the label is annotated.
    """

    def __init__(self, labels: Volume | None, ignore: Sequence[int], mask: Volume | None) -> None:
        super().__init__([part for part in (labels, mask) if part is not None], 1, np.uint8)
        self._ignore = None if labels is None else _known(ignore, labels.dtype)

    def _made(self, blocks: Sequence[Array], box: Box) -> Array:
        masks = list(blocks)
        valid = np.ones(blocks[0].shape, bool)
        if self._ignore is not None:
            valid &= ~np.isin(masks.pop(0), self._ignore)
        for mask in masks:
            valid &= mask != 0
        return valid.view(np.uint8)


def _known(ignore: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """The values that a dtype can hold; the others cannot occur."""
    top = int(np.iinfo(dtype).max)
    return np.array([value for value in ignore if 0 <= value <= top], dtype)
