"""How much may be read for the pictures of a page."""

from __future__ import annotations

import math

import numpy as np

from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.sources import Volume

__all__ = ["ALL_PICTURES", "PICTURED", "affordable", "spread"]

# What may be decoded for the pictures of cases: of one slice of a case, and of all of them.
_SLICE, ALL_PICTURES = 2**23, 2**27
#: Cases that are pictured.
PICTURED = 40


def affordable(volume: VolumeLike) -> tuple[Shape3 | None, int]:
    """How much of each axis can be shown for a bounded work, and what three slices then decode.

    None where even the middle costs too much: a compressed stream is read from its start.
    """
    shape = Box.whole(volume.shape).shape
    channels = volume.shape[0]
    if isinstance(volume, Volume) and volume.sequential:
        cost = math.prod(volume.shape)
        return (None if cost > 8 * _SLICE else shape), cost
    chunks = volume.chunks if isinstance(volume, Volume) else (1, 1, 1)
    counts = list(shape)
    while True:
        covered = [
            min(n, -(-count // c) * c + (c if count < n else 0))
            for n, count, c in zip(shape, counts, chunks, strict=True)
        ]
        costs = [
            channels * min(chunks[cut], shape[cut])
            * math.prod(covered[axis] for axis in range(3) if axis != cut)
            for cut in range(3)
        ]  # fmt: skip
        worst = int(np.argmax(costs))
        widest = max((axis for axis in range(3) if axis != worst), key=lambda axis: counts[axis])
        if costs[worst] <= _SLICE or counts[widest] <= 32:
            return three(counts), sum(costs)
        counts[widest] //= 2


def spread(count: int, most: int) -> list[int]:
    """At most so many of some numbers, evenly spaced."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(count, most)).tolist()})
