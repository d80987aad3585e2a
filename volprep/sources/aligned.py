"""Volumes with their axes in another order: on the grid of another, or seen along another axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from volprep.errors import SourceError
from volprep.geometry import Box, three
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume
from volprep.sources.placement import Move, Placement, difference
from volprep.sources.wrapped import WrappedVolume

__all__ = ["MovedVolume", "PlaneAxis", "aligned", "sliced"]

#: The axis that planes lie across.
PlaneAxis = Literal["z", "y", "x"]
#: Axes of the volume that become z, y and x, by the axis that planes lie across.
_SLICED = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 0, 1)}


def aligned(volume: Volume, image: Volume) -> Volume:
    """The volume on the grid of the image: mirrored, its axes in order, cut by whole voxels.

    Parameters
    ----------
    volume : Volume
        A label, a mask, or a channel.
    image : Volume
        What it belongs to.

    Returns
    -------
    Volume
        `volume` itself where both lie alike or a header does not say.

    Raises
    ------
    SourceError
        If it would have to be interpolated, or does not cover the image.
    """
    found = difference(image, volume)
    if found is None:
        return volume
    if found.move is None:
        raise SourceError(
            volume.name,
            f"lies otherwise than the image {image.name}: {found.what}",
            "resample it onto the image's grid, or take the voxels as they are stored with"
            " `data.geometry: stored`",
        )
    return MovedVolume(volume, found.move, image.placement)


def sliced(volume: Volume, axis: PlaneAxis) -> Volume:
    """The volume as a stack of its planes across an axis: that axis becomes z.

    Parameters
    ----------
    volume : Volume
        (C, Z, Y, X).
    axis : {'z', 'y', 'x'}
        Planes across y have z as rows and x as columns, those across x have z and y.

    Returns
    -------
    Volume
        (C, Z, Y, X), (C, Y, Z, X) or (C, X, Z, Y), its spacing in that order; `volume` itself
        for z. Nothing is copied: what a box touches is read.

    Raises
    ------
    ValueError
        If the axis is another.
    """
    if axis not in _SLICED:
        raise ValueError(f"axis: found {axis!r}; wanted one of {', '.join(get_args(PlaneAxis))}")
    order = _SLICED[axis]
    if axis == "z":
        return volume
    placed = volume.placement
    if placed is not None:
        z, y, x = (placed.steps[own] for own in order)
        placed = replace(placed, steps=(z, y, x))
    shape = three(volume.shape[1 + own] for own in order)
    return MovedVolume(volume, Move(order, (False,) * 3, (0, 0, 0), shape), placed)


class MovedVolume(WrappedVolume):
    """A volume of which axes are swapped, reversed and cut."""

    def __init__(self, volume: Volume, move: Move, placement: Placement | None) -> None:
        layout = Layout("CZYX", (volume.shape[0], *move.shape))
        own = volume.spacing
        super().__init__(
            volume,
            layout,
            volume.dtype,
            spacing=None if own is None else tuple(own[axis] for axis in move.order),
            chunks=three(volume.chunks[axis] for axis in move.order),
            placement=placement,
        )
        self._move = move

    @property
    def ndim_spatial(self) -> int:
        """2 where there is one plane only, else 3."""
        return 2 if self.shape[1] == 1 else 3

    @property
    def sequential(self) -> bool:
        """Never: slabs are read as boxes; a stream is inflated once."""
        return False

    def holes(self) -> Volume | None:
        """As the volume that holds the voxels, moved likewise."""
        found = self.volume.holes()
        return None if found is None else MovedVolume(found, self._move, self.placement)

    def _read(self, box: Box) -> Array:
        move, stored = self._move, self.volume.shape[1:]
        start, stop = [0] * 3, [0] * 3
        for axis, own in enumerate(move.order):
            a, b = (move.first[axis] + edge for edge in (box.start[axis], box.stop[axis]))
            if move.flipped[axis]:
                a, b = stored[own] - b, stored[own] - a
            start[own], stop[own] = a, b
        block = self.volume.read(Box(three(start), three(stop)))
        turned = block.transpose(0, *(own + 1 for own in move.order))
        back = (slice(None, None, -1 if flipped else 1) for flipped in move.flipped)
        return turned[:, *back]
