"""What of a label is annotated: the valid mask made of ignored values and a mask file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volprep.cases.derived import DerivedVolume
from volprep.cases.repair import ignored
from volprep.geometry import Box
from volprep.sources import Array, Volume

__all__ = ["ValidMask"]


class ValidMask(DerivedVolume):
    """1 where a label may be believed: not one of the ignored values, and inside the mask.

    Parameters
    ----------
    labels : Volume or None
        As in the file, the ignored values still in it.
    ignore : sequence of int
        Values that stand for "not annotated".
    masks : sequence of Volume
        Non-zero where the label is annotated.
    """

    def __init__(
        self, labels: Volume | None, ignore: Sequence[int], masks: Sequence[Volume]
    ) -> None:
        super().__init__([*([] if labels is None else [labels]), *masks], 1, np.uint8)
        self._ignore = None if labels is None else ignored(ignore, labels.dtype)

    def _made(self, blocks: Sequence[Array], box: Box) -> Array:
        masks = list(blocks)
        valid = np.ones(blocks[0].shape, bool)
        if self._ignore is not None:
            valid &= ~np.isin(masks.pop(0), self._ignore)
        for mask in masks:
            valid &= mask != 0
        return valid.view(np.uint8)
