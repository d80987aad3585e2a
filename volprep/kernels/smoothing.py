"""Smooth the outlines of many objects at once, section by section."""

from __future__ import annotations

import numpy as np

from volprep.kernels.compiling import kernel, part

__all__ = ["smooth_sections"]


@part()
def _near_an_outline(section, radius, near):  # type: ignore[no-untyped-def]
    """Mark every voxel whose window of `radius` holds more than one id."""
    height, width = section.shape
    near[:] = 0
    for j in range(height):
        for i in range(width):
            own = section[j, i]
            right = i + 1 < width and section[j, i + 1] != own
            below = j + 1 < height and section[j + 1, i] != own
            if right or below:
                for y in range(max(0, j - radius), min(height, j + radius + 2)):
                    near[y, max(0, i - radius) : min(width, i + radius + 2)] = 1


@part()
def _heaviest(section, j, i, kernel, ids, weights):  # type: ignore[no-untyped-def]
    """The id with the largest weight in the window about (j, i); its own id wins a tie."""
    radius = kernel.shape[0] // 2
    height, width = section.shape
    ids[0], weights[0] = section[j, i], 0.0
    count = 1
    for y in range(max(0, j - radius), min(height, j + radius + 1)):
        for x in range(max(0, i - radius), min(width, i + radius + 1)):
            own = section[y, x]
            n = 0
            while n < count and ids[n] != own:
                n += 1
            if n == count:
                ids[n], weights[n] = own, 0.0
                count += 1
            weights[n] += kernel[y - j + radius, x - i + radius]
    best = 0
    for n in range(1, count):
        if weights[n] > weights[best]:
            best = n
    return ids[best]


@kernel()
def smooth_sections(labels, kernel, out):  # type: ignore[no-untyped-def]
    """Give every voxel the id that weighs most around it.

    Parameters
    ----------
    labels : int32 (D, H, W)
    kernel : float64 (2r + 1, 2r + 1)
        Weight of each voxel of the window, cut off at the section's border.
    out : int32 (D, H, W)
    """
    depth, height, width = labels.shape
    near = np.empty((height, width), np.uint8)
    ids = np.empty(kernel.size + 1, np.int32)
    weights = np.empty(kernel.size + 1, np.float64)
    for z in range(depth):
        section = labels[z]
        _near_an_outline(section, kernel.shape[0] // 2, near)
        for j in range(height):
            for i in range(width):
                if near[j, i]:
                    out[z, j, i] = _heaviest(section, j, i, kernel, ids, weights)
                else:
                    out[z, j, i] = section[j, i]
