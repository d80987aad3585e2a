"""Volumes that hand on the voxels of another: as labels, turned, or shifted in value."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from volprep.sources.axes import Layout
from volprep.sources.base import Volume

__all__ = ["WrappedVolume"]


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

    def close(self) -> None:
        """Let go of the open file."""
        self.volume.close()
