"""Labels: any volume handed on as unsigned integers, or refused where that would lose something."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NoReturn

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Box
from volprep.sources.axes import Layout
from volprep.sources.base import SLAB_BYTES, Array, Volume
from volprep.sources.wrapped import WrappedVolume

__all__ = ["LabelVolume"]


class LabelVolume(WrappedVolume):
    """A volume of label ids: one channel, an unsigned integer dtype, no id changed.

    Unsigned integers pass as they are. Signed ones are checked for negative values
    and handed on in the unsigned type of the same width. Floating point is checked for
    whole numbers from 0 up and handed on as unsigned integers of the same width.

    Parameters
    ----------
    volume : Volume
        What holds the labels.

    Raises
    ------
    SourceError
        If it has more than one channel; from `read`, at the first value that is no id.
    """

    def __init__(self, volume: Volume) -> None:
        if volume.shape[0] != 1:
            raise SourceError(
                volume.name,
                f"labels have {volume.shape[0]} channels (axes {volume.axes})",
                "give labels with one id for each voxel, one file for each channel; if the"
                " first axis is depth, say so with `axes: ZYX`",
            )
        held = volume.dtype
        notes = volume.notes
        if held.kind == "f":
            text = f"labels are stored as {held}: read as whole numbers"
            notes = (*notes, Note("labels-from-float", text))
        layout = Layout("CZYX", volume.shape)
        super().__init__(volume, layout, np.dtype(f"u{held.itemsize}"), notes=notes)
        if held.kind == "f":
            import logging  # nobody else here waits 6 ms for it

            log = logging.getLogger("volprep.sources")
            log.info("%s: labels are stored as %s, read as %s", self.name, held, self.dtype)

    @property
    def mapped(self) -> bool:
        """As the volume that holds the labels; what must be converted is new memory."""
        return self.volume.mapped and self.volume.dtype.kind != "f"

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`."""
        for box, block in self.volume.slabs(depth, max_bytes=max_bytes):
            yield box, self._ids(block, box)

    def slab_boxes(self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES) -> list[Box]:
        """As `Volume.slab_boxes`."""
        return self.volume.slab_boxes(depth, max_bytes=max_bytes)

    def _read(self, box: Box) -> Array:
        return self._ids(self.volume.read(box), box)

    def _ids(self, block: Array, box: Box) -> Array:
        if block.dtype.kind == "u":
            return block
        if block.dtype.kind == "i":
            if block.min() < 0:
                self._refuse(block, box, block < 0)
            return block.view(self.dtype)
        with np.errstate(invalid="ignore"):
            ids = block.astype(self.dtype)
        # What is no id does not survive the cast; the limit is exact in every float type.
        if not (float(block.max()) < self._limit and (ids == block).all()):
            self._refuse(block, box, (ids != block) | (block.astype(np.float64) >= self._limit))
        return ids

    @property
    def _limit(self) -> float:
        """The first whole number that is too large."""
        return 2.0 ** (8 * self.dtype.itemsize)

    def _refuse(self, block: Array, box: Box, bad: Array) -> NoReturn:
        _, z, y, x = (int(i[0]) for i in np.nonzero(bad))
        value = block[0, z, y, x].item()
        todo = "give whole numbers from 0 up, one for each object or class"
        if not math.isfinite(value):
            what = "a label that is no number"
        elif value < 0:
            what = "a negative label"
        elif value >= self._limit:
            what = f"a label beyond {self.dtype}"
        else:
            what = "a label with a fraction"
            todo += (
                "; of a soft mask or a probability, `labels: {threshold: 0.5}` makes a mask"
                " (128 where it goes to 255)"
            )
        start = box.start
        raise SourceError(
            self.name,
            f"holds {what}: {value!r} at z={start[0] + z}, y={start[1] + y}, x={start[2] + x}",
            todo,
        )
