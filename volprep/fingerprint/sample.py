"""Some places of a volume, evenly spread, in place of all of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.sources import Volume

__all__ = ["SampledVolume", "sampled"]

#: Places in a volume, and voxels of one: 2^28 voxels are enough for a percentile of 0.01.
_PLACES, _VOXELS = 256, 2**20
#: Powers of the inverse of the root of x^4 = x + 1: multiples of them fill space evenly, and
#: fall in step with no grid (Roberts' R3 sequence).
_STEPS = tuple(1.2207440846057596**-n for n in (1, 2, 3))


class SampledVolume:
    """Boxes of one shape, one behind the other along z, as if they were a volume.

    Parameters
    ----------
    volume : VolumeLike
        Read where a place is asked for, and nowhere else.
    places : sequence of Box
        Of one shape.
    """

    def __init__(self, volume: VolumeLike, places: Sequence[Box]) -> None:
        depth, height, width = places[0].shape
        self.volume, self.places = volume, tuple(places)
        self.shape = (volume.shape[0], depth * len(places), height, width)
        self.dtype, self.spacing = volume.dtype, volume.spacing

    def read(self, box: Box | None = None) -> npt.NDArray[np.generic]:
        """The voxels of a box of what the places make up, (C, Z, Y, X)."""
        wanted = Box.whole(self.shape) if box is None else box
        depth = self.places[0].shape[0]
        first, last = wanted.start[0], wanted.stop[0]
        parts = []
        for n in range(first // depth, -(-last // depth)):
            start, (_, y0, x0) = n * depth, self.places[n].start
            z0 = self.places[n].start[0] - start
            parts.append(
                self.volume.read(
                    Box(
                        (max(first, start) + z0, wanted.start[1] + y0, wanted.start[2] + x0),
                        (min(last, start + depth) + z0, wanted.stop[1] + y0, wanted.stop[2] + x0),
                    )
                )
            )
        return np.concatenate(parts, axis=1)


def sampled(
    volume: VolumeLike, region: Box | None = None, *, places: Sequence[Box] | None = None
) -> SampledVolume:
    """The volume at some of its chunks, evenly spread over a region.

    Parameters
    ----------
    volume : VolumeLike
    region : Box or None
        None takes all of it; a region of few chunks is taken whole.
    places : sequence of Box, optional
        Those of another volume of the same shape.
    """
    within = Box.whole(volume.shape) if region is None else region.clip(volume.shape)
    return SampledVolume(volume, places or _places(within, _chunks(volume)))


def _chunks(volume: VolumeLike) -> tuple[int, int, int]:
    return volume.chunks if isinstance(volume, Volume) else three(volume.shape[1:])


def _places(region: Box, chunks: Sequence[int]) -> list[Box]:
    size = [min(c, n) for c, n in zip(chunks, region.shape, strict=True)]
    while math.prod(size) > _VOXELS:
        longest = size.index(max(size))
        size[longest] = -(-size[longest] // 2)
    if region.size <= _PLACES * math.prod(size):
        return [region]
    steps = [c if c == s else s for c, s in zip(chunks, size, strict=True)]
    found: dict[Shape3, None] = {}
    for n in range(_PLACES):
        start = []
        for axis, (first, last, step, length) in enumerate(
            zip(region.start, region.stop, steps, size, strict=True)
        ):
            # On the grid of the file's chunks, so that a place is one of them.
            low, cells = first // step, -(-last // step) - first // step
            cell = low + int((0.5 + n * _STEPS[axis]) % 1 * cells)
            start.append(min(max(cell * step, first), last - length))
        found[three(start)] = None
    return [Box.at(start, size) for start in sorted(found)]
