"""Volumes that are made from other volumes of the same grid, block by block, when they are read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from volprep.geometry import Box, Shape3
from volprep.sources import SLAB_BYTES, Array, Layout, Volume

__all__ = ["DerivedVolume"]


class DerivedVolume(Volume):
    """A volume whose voxels in a box follow from those of its parts in the same box.

    Parameters
    ----------
    parts : sequence of Volume
        All of one (Z, Y, X); the first one gives path, key and axes.
    channels : int
        Of what is made.
    dtype : dtype-like
        Of what is made.
    **rest
        As for `Volume`; spacing, chunks and notes of the parts where not given.
    """

    def __init__(
        self, parts: Sequence[Volume], channels: int, dtype: npt.DTypeLike, **rest: Any
    ) -> None:
        first = parts[0]
        flat = max(part.ndim_spatial for part in parts) == 2
        axes, stored = ("CYX", first.shape[2:]) if flat else ("CZYX", first.shape[1:])
        options = {
            "key": first.key,
            "spacing": first.spacing,
            "chunks": _coarsest(parts),
            "notes": [note for part in parts for note in part.notes],
            "placement": first.placement,
        }
        super().__init__(first.path, Layout(axes, (channels, *stored)), dtype, **(options | rest))
        self.parts = tuple(parts)

    @property
    def sequential(self) -> bool:
        """Whether one of the parts can only be read from its beginning."""
        return any(part.sequential for part in self.parts)

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`; all parts are walked through side by side."""
        boxes = self.slab_boxes(depth, max_bytes=max_bytes)
        if boxes[0].shape[1:] != self.shape[2:]:
            yield from super().slabs(depth, max_bytes=max_bytes)
            return
        walks = [part.slabs(boxes[0].shape[0]) for part in self.parts]
        for box, *blocks in zip(boxes, *walks, strict=True):
            yield box, self._made([block for _, block in blocks], box)

    def missing_chunks(self) -> tuple[int, int]:
        """Of all parts together."""
        counts = [part.missing_chunks() for part in self.parts]
        return sum(absent for absent, _ in counts), sum(total for _, total in counts)

    def holes(self) -> Volume | None:
        """Of the only part; several have none in common."""
        return self.parts[0].holes() if len(self.parts) == 1 else None

    def close(self) -> None:
        """Let go of the open files."""
        for part in self.parts:
            part.close()

    @abstractmethod
    def _made(self, blocks: Sequence[Array], box: Box) -> Array:
        """The voxels of a box in `dtype`, from those of each part as (C, Z, Y, X)."""

    def _read(self, box: Box) -> Array:
        return self._made([part.read(box) for part in self.parts], box)


def _coarsest(parts: Sequence[Volume]) -> Shape3:
    z, y, x = (max(part.chunks[axis] for part in parts) for axis in range(3))
    return z, y, x
