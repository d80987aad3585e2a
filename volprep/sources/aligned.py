"""A volume brought to the grid of another by what its header says, without interpolating."""

from __future__ import annotations

from volprep.errors import SourceError
from volprep.geometry import Box, three
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume
from volprep.sources.placement import Move, difference
from volprep.sources.wrapped import WrappedVolume

__all__ = ["AlignedVolume", "aligned"]


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
    return AlignedVolume(volume, image, found.move)


class AlignedVolume(WrappedVolume):
    """A volume of which axes are swapped, reversed and cut."""

    def __init__(self, volume: Volume, image: Volume, move: Move) -> None:
        layout = Layout("CZYX", (volume.shape[0], *move.shape))
        own = volume.spacing
        super().__init__(
            volume,
            layout,
            volume.dtype,
            spacing=None if own is None else tuple(own[axis] for axis in move.order),
            chunks=three(volume.chunks[axis] for axis in move.order),
            placement=image.placement,
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
