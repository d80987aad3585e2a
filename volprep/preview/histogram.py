"""Intensities before and after, as two curves in one small picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_histogram"]

_BINS = 64
_BEFORE, _AFTER, _TEXT = (190, 196, 204), (196, 57, 43), (90, 96, 104)


def draw_histogram(
    before: npt.NDArray[Any],
    after: Sequence[npt.NDArray[Any]],
    *,
    size: tuple[int, int] = (200, 120),
) -> Image.Image:
    """Draw the share of voxels over the intensity: filled before, a line after.

    Parameters
    ----------
    before : array
        Of any shape.
    after : sequence of arrays
        Counted together.
    size : (width, height)
        In pixels.
    """
    pooled = np.concatenate([a.ravel() for a in after]) if after else before.ravel()
    edges = _edges(before, pooled)
    low, high = float(edges[0]), float(edges[-1])
    width, height = size
    picture = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    floor, left, right = height - 16, 4, width - 4
    curves = [_shares(values, edges) for values in (before.ravel(), pooled)]
    # The peak of what was there sets the scale, so that one clipped bin does not flatten it.
    top = max(float(np.sort(curve)[-min(3, len(curve))]) for curve in curves) or 1.0
    across = np.linspace(left, right, len(edges))
    heights = [floor - np.minimum(curve / top, 1.0) * (floor - 6) for curve in curves]
    for n, y in enumerate(heights[0]):
        pen.rectangle((across[n], y, across[n + 1] - 1, floor), fill=_BEFORE)
    line = [(x, y) for n, y in enumerate(heights[1]) for x in (across[n], across[n + 1])]
    pen.line(line, fill=_AFTER, width=2)
    pen.line((left, floor, right, floor), fill=_TEXT)
    font = ImageFont.load_default(size=10)
    pen.text((left, floor + 2), f"{low:.4g}", fill=_TEXT, font=font)
    pen.text((right, floor + 2), f"{high:.4g}", fill=_TEXT, font=font, anchor="ra")
    return picture


def _edges(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Up to some 64 bins over all values; whole numbers wide where values were whole numbers."""
    first = before[np.isfinite(before)].astype(np.float64)
    both = np.concatenate([first, after[np.isfinite(after)]])
    if not both.size:
        return np.linspace(0, 1, _BINS + 1)
    low, high = float(both.min()), float(both.max())
    if np.array_equal(first, np.round(first)) and high - low >= 2:
        low = np.floor(low) - 0.5
        width = max(1.0, np.ceil((high - low) / _BINS))
        return np.asarray(low + width * np.arange(np.ceil((high - low) / width) + 1))
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _shares(values: npt.NDArray[Any], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    return np.asarray(counts / max(1, counts.sum()))
