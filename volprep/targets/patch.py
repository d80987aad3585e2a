"""A patch of labels, and what several targets need of it, made once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, Spacing3, three
from volprep.kernels.distance import along_runs, by_envelopes, by_rows
from volprep.kernels.targets import code_labels

__all__ = ["LabelPatch"]

# With fewer voxels a run than this, distances are short, and rows ever farther away are faster
# than envelopes (7 against 16 ms for dense nuclei, 9 against 17 for 40 neurons that fill
# 32 x 128 x 128); with more, envelopes are (8 against 23 ms for two neurons). Both take the
# same 13 ms here.
_SHORT_RUNS = 38


class LabelPatch:
    """The labels of one patch as targets see them.

    Parameters
    ----------
    label : ndarray, shape (Z, Y, X)
        Integers; 0 is background, and so is whatever is negative (ignored voxels).
    size : (Z, Y, X)
        Of a voxel, in any unit: distances are in units of its finest axis, and lengths that a
        target takes in that of `size`.
    skeletons : mapping of int to array, shape (N, 3)
        Points of each instance in voxels of the patch; for the targets that need them.
    """

    def __init__(
        self,
        label: npt.NDArray[Any],
        size: Spacing3 = (1.0, 1.0, 1.0),
        skeletons: Mapping[int, Any] | None = None,
    ) -> None:
        self.label = label
        self.skeletons: Mapping[int, Any] = {} if skeletons is None else skeletons
        self.voxel = size
        self.size = np.array(size, np.float32) / np.float32(min(size))

    @property
    def shape(self) -> Shape3:
        """(Z, Y, X)."""
        return three(self.label.shape)

    @cached_property
    def _coded(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        labels = np.ascontiguousarray(_unsigned(self.label))
        codes = np.empty(labels.shape, np.int32)
        room = 1024
        while True:
            ids, counts = np.empty(room, np.uint64), np.zeros(room + 1, np.int64)
            found = code_labels(labels, np.full(4 * room, -1, np.int32), ids, counts, codes)
            if found >= 0:
                return codes, counts[: found + 1]
            room *= 8

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        """(Z, Y, X): 0 in the background, 1, 2, ... for the instances as they come."""
        return self._coded[0]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Voxels of each code."""
        return self._coded[1]

    @cached_property
    def depth(self) -> npt.NDArray[np.float32]:
        """Distance (Z, Y, X) from each voxel to the nearest voxel of another label.

        In units of the finest axis, huge where the patch holds no other. The faces of the
        patch are no borders.
        """
        nz, ny, nx = self.shape
        squares, other = np.empty((2, nz, ny, nx), np.float32)
        runs = along_runs(self.codes, self.size[2], squares)
        through = by_rows if self.codes.size < _SHORT_RUNS * runs else by_envelopes
        for z in range(nz):
            through(self.codes[z], squares[z], self.size[1], other[z])
        through(
            self.codes.reshape(nz, -1), other.reshape(nz, -1), self.size[0],
            squares.reshape(nz, -1),
        )  # fmt: skip
        return np.sqrt(squares, out=squares)


def _unsigned(label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels as uint32 or uint64, so that kernels are compiled for two dtypes only."""
    if label.dtype.kind == "i":
        label = label if label.size == 0 or label.min() >= 0 else np.maximum(label, 0)
        wide = np.int64 if label.dtype.itemsize == 8 else np.int32
        return label.astype(wide, copy=False).view(np.uint64 if wide is np.int64 else np.uint32)
    return label.astype(np.uint64 if label.dtype.itemsize == 8 else np.uint32, copy=False)
