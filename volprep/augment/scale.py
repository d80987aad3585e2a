"""What the amounts of intensity changes are measured by: one rule for every caller.

A patch gives its own scale, so that the loader, `Compose` and the preview agree
without a word between them, and so that normalising first or last makes no
difference: every number here follows a shift and a stretch of the intensities.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Scale", "measure_scale"]

#: Which percentiles are the low and the high end.
PERCENTILES = (1.0, 99.0)

# Percentiles are those of so many voxels, spread evenly; a percentile of all takes 50 times longer.
_VOXELS = 16384


@dataclass(frozen=True)
class Scale:
    """The scale of one channel of one patch, in the patch's own units.

    Attributes
    ----------
    low, high : float
        The ends of its range, outliers aside; brightness turns about the low one.
    mean : float
        What contrast turns about.
    """

    low: float
    high: float
    mean: float

    @property
    def span(self) -> float:
        """From the low to the high end: what amounts are fractions of; 0 changes nothing."""
        return max(self.high - self.low, 0.0)


def measure_scale(
    channel: npt.NDArray[Any], value_range: tuple[float, float] | None = None
) -> Scale:
    """The scale of one channel.

    Parameters
    ----------
    channel : array of float, any shape
        Voxels that are nan or infinite do not count.
    value_range : pair of floats, optional
        A low and a high end that hold instead of those measured.

    Returns
    -------
    Scale
        From the 1st to the 99th percentile, of 16384 voxels spread evenly where
        there are more, so that a hot voxel counts for nothing. Where those two are
        one value, as in a patch that is empty but for a few voxels, the range is
        four mean absolute deviations wide instead.

    Notes
    -----
    nnU-Net adds noise of a part of the standard deviation of the whole image and
    takes the patch's own extremes for gamma; PyTorch Connectomics scales every
    volume to 0 to 1 first. Both let one hot voxel decide.
    """
    flat = channel.reshape(-1)
    mean = float(flat.mean(dtype=np.float64)) if flat.size else 0.0
    if value_range is not None:
        if not np.isfinite(mean):
            mean = float(_finite(flat).mean(dtype=np.float64)) if _finite(flat).size else 0.0
        return Scale(float(value_range[0]), float(value_range[1]), mean)
    some = flat if flat.size <= _VOXELS else flat[_places(flat.size)]
    if not np.isfinite(mean):
        some, flat = _finite(some), _finite(flat)
        mean = float(flat.mean(dtype=np.float64)) if flat.size else 0.0
    if not some.size:
        return Scale(mean, mean, mean)
    below, above = (round(p / 100 * (some.size - 1)) for p in PERCENTILES)
    ordered = np.partition(some, (below, above))
    low, high = float(ordered[below]), float(ordered[above])
    if low == high:
        high = low + 4 * float(np.abs(flat - low).mean(dtype=np.float64))
    return Scale(low, high, mean)


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    kept: npt.NDArray[Any] = values[np.isfinite(values)]
    return kept


@lru_cache(maxsize=8)
def _places(size: int) -> npt.NDArray[np.int64]:
    """Positions among `size` voxels, without the regular steps that lines and sections have."""
    return np.random.default_rng(size).choice(size, _VOXELS, replace=False, shuffle=False)
