"""Volumes that hand on the voxels of another: as labels, turned, or shifted in value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.findings import Note
from volprep.geometry import Box
from volprep.sources.axes import Layout
from volprep.sources.base import SLAB_BYTES, Array, Volume

__all__ = ["SignedVolume", "WrappedVolume"]


class WrappedVolume(Volume):
    """Another volume, read in another way.

    Parameters
    ----------
    volume : Volume
        What holds the voxels.
    layout : Layout
        Of what is handed on; its axes are the volume's where voxels keep their places.
    dtype : dtype
        Of what is handed on.
    **rest
        What differs from `volume` of spacing, chunks, notes and placement.
    """

    def __init__(self, volume: Volume, layout: Layout, dtype: npt.DTypeLike, **rest: Any) -> None:
        own: dict[str, Any] = {
            "key": volume.key, "spacing": volume.spacing, "chunks": volume.chunks,
            "notes": volume.notes, "placement": volume.placement,
        }  # fmt: skip
        super().__init__(volume.path, layout, dtype, **{**own, **rest})
        self.axes = volume.axes
        self.volume = volume

    @property
    def ndim_spatial(self) -> int:
        """2 where there is one plane only, else 3."""
        return self.volume.ndim_spatial

    @property
    def times(self) -> int:
        """As the volume that holds the voxels."""
        return self.volume.times

    @property
    def sequential(self) -> bool:
        """As the volume that holds the voxels."""
        return self.volume.sequential

    @property
    def mapped(self) -> bool:
        """As the volume that holds the voxels."""
        return self.volume.mapped

    def missing_chunks(self) -> tuple[int, int]:
        """As the volume that holds the voxels."""
        return self.volume.missing_chunks()

    def holes(self) -> Volume | None:
        """As the volume that holds the voxels."""
        return self.volume.holes()

    def close(self) -> None:
        """Let go of the open file."""
        self.volume.close()


class SignedVolume(WrappedVolume):
    """Signed integers that are stored shifted by half their range, as ImageJ keeps them."""

    def __init__(self, volume: Volume, note: Note) -> None:
        layout = Layout("CZYX", volume.shape)
        dtype = np.dtype(f"i{volume.dtype.itemsize}")
        super().__init__(volume, layout, dtype, notes=(*volume.notes, note))

    @property
    def mapped(self) -> bool:
        """Never: what is handed on is new memory."""
        return False

    def slab_boxes(self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES) -> list[Box]:
        """As `Volume.slab_boxes`."""
        return self.volume.slab_boxes(depth, max_bytes=max_bytes)

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`."""
        for box, block in self.volume.slabs(depth, max_bytes=max_bytes):
            yield box, self._shifted(block)

    def _read(self, box: Box) -> Array:
        return self._shifted(self.volume.read(box))

    def _shifted(self, block: Array) -> Array:
        # Taking half the range away is turning the highest bit over.
        half = block.dtype.type(1 << (8 * block.dtype.itemsize - 1))
        shifted: Array = np.bitwise_xor(block, half)
        return shifted.view(self.dtype)
