"""A volume of which a walk keeps what will be asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from volprep.geometry import Box, Spacing3
from volprep.sources.base import Array, Volume

__all__ = ["KeptVolume"]


@dataclass(slots=True)
class _Part:
    """A box, its voxels, and how many of them are not there yet."""

    box: Box
    voxels: Array
    missing: int


@dataclass(slots=True)
class KeptVolume:
    """A volume, and some boxes of it that are remembered from a walk over it.

    What lies in a box that was walked through is read without decoding it again, or, of a
    stream, without beginning it again; anything else is read from the volume.

    Attributes
    ----------
    volume : Volume
    boxes : sequence of Box
        Inside the volume. Those that overlap are kept as one where that takes less room;
        nothing is kept of a mapped file, which lies in the system's cache.
    """

    volume: Volume
    boxes: Sequence[Box]
    _parts: list[_Part] = field(init=False, default_factory=list)
    _lock: Any = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        for box in [] if self.volume.mapped else _joined(self.boxes):
            voxels = np.empty((self.volume.shape[0], *box.shape), self.volume.dtype)
            self._parts.append(_Part(box, voxels, box.size))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X)."""
        return self.volume.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the volume."""
        return self.volume.dtype

    @property
    def spacing(self) -> Spacing3 | None:
        """Of the volume."""
        return self.volume.spacing

    def keep(self, box: Box, voxels: Array) -> None:
        """Remember what is wanted of a block (C, Z, Y, X); each voxel comes once, in any thread."""
        for part in self._parts:
            common = part.box.common(box)
            if common.size:
                inside = common.shift([-n for n in box.start]).slices
                part.voxels[:, *common.shift([-n for n in part.box.start]).slices] = voxels[
                    :, *inside
                ]
                with self._lock:
                    part.missing -= common.size

    def read(self, box: Box | None = None) -> Array:
        """As `Volume.read`."""
        wanted = Box.whole(self.shape) if box is None else box
        for part in self._parts:
            if not part.missing and part.box.common(wanted) == wanted:
                return part.voxels[:, *wanted.shift([-n for n in part.box.start]).slices]
        return self.volume.read(wanted)


def _joined(boxes: Sequence[Box]) -> list[Box]:
    """The boxes, those in one that take no more room together than apart."""
    joined: list[Box] = []
    for box in boxes:
        whole = box
        for other in list(joined):
            both = whole.around(other)
            if both.size <= whole.size + other.size:
                joined.remove(other)
                whole = both
        joined.append(whole)
    return joined
