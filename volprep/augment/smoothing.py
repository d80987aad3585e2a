"""Smooth the outlines of labels without losing an object."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["smooth_labels"]


def smooth_labels(
    label: npt.NDArray[Any], *, sigma: float = 2.0, rounds: int = 2
) -> npt.NDArray[Any]:
    """Smooth object outlines in each section.

    Parameters
    ----------
    label : array of integers, shape (Z, Y, X)
        Ids of any width; 0 is background and is smoothed like an object.
    sigma : float
        Of the Gaussian window, in voxels.
    rounds : int
        How often.

    Returns
    -------
    array, shape (Z, Y, X)
        Of the same dtype, with exactly the same ids.

    Notes
    -----
    Every voxel takes the id with the largest Gaussian weight around it. For
    one object this is the rule of PyTorch Connectomics (filter the mask,
    threshold at one half). Differs: touching objects share the plane between
    them, whatever their ids, where there the last one wins; an object that
    would vanish from the patch keeps its voxels as they were.
    """
    from volprep.kernels.smoothing import smooth_sections

    ids, flat = np.unique(label, return_inverse=True)
    before = np.ascontiguousarray(flat.reshape(label.shape), np.int32)
    kernel = _window(sigma)
    current = before
    for _ in range(rounds):
        smoothed = np.empty_like(before)
        smooth_sections(current, kernel, smoothed)
        current = smoothed
    current = _with_lost_ids(before, current, len(ids))
    return ids[current]


def _window(sigma: float) -> npt.NDArray[np.float64]:
    radius = max(1, int(np.ceil(3 * sigma)))
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    window: npt.NDArray[np.float64] = np.outer(line, line) / line.sum() ** 2
    return window


def _with_lost_ids(
    before: npt.NDArray[np.int32], after: npt.NDArray[np.int32], count: int
) -> npt.NDArray[np.int32]:
    """Put vanished ids back; that may cover another small one, so look again until none is lost."""
    restored = np.zeros(count, bool)
    while True:
        lost = (np.bincount(after.ravel(), minlength=count) == 0) & ~restored
        if not lost.any():
            return after
        restored |= lost
        after = np.where(restored[before], before, after)
