"""Volumes whose voxels lie in one array: in memory, or mapped from a file."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.geometry import Box, Spacing3
from volprep.sources.axes import Layout
from volprep.sources.base import (
    SLAB_BYTES,
    Array,
    Volume,
    changed_meanwhile,
    forget,
    map_file,
    read_pieces,
    reading,
    still_whole,
)

__all__ = ["ArrayVolume", "FileVolume", "MappedVolume", "default_axes"]

_BY_NDIM = {2: "YX", 3: "ZYX"}


def default_axes(path: object, shape: tuple[int, ...], what: str) -> str:
    """YX or ZYX for an array that says nothing of its axes; with more of them, refuse."""
    if len(shape) in _BY_NDIM:
        return _BY_NDIM[len(shape)]
    size = "×".join(map(str, shape)) or "no axes"
    if len(shape) == 4:
        wanted = "say which they are: `axes: CZYX` or `axes: ZYXC`"
    else:
        wanted = "give an array of 2 to 4 axes, or one letter for each, such as `axes: TCZYX`"
    raise SourceError(path, f"{what} has shape {size} and does not name its axes", wanted)


class MappedVolume(Volume):
    """A volume of which any part is at hand at once, as an array."""

    def _read(self, box: Box) -> Array:
        return self._layout.arrange(self._opened()[self._layout.select(box)])

    @abstractmethod
    def _open(self) -> Array:
        """The stored array, mapped or in memory."""


class FileVolume(MappedVolume):
    """Uncompressed voxels in one piece of a file, mapped into memory.

    `data` is the file of the voxels where they have one of their own.

    Walking through one in slabs gives the memory of each slab back before the next.
    """

    def __init__(
        self, path: str | Path, layout: Layout, dtype: npt.DTypeLike, *, offset: int,
        data: Path | None = None, **rest: Any,
    ) -> None:  # fmt: skip
        super().__init__(path, layout, dtype, **rest)
        self._offset, self._data = offset, data or Path(path)

    @property
    def mapped(self) -> bool:
        """As `Volume.mapped`."""
        return True

    def _read(self, box: Box) -> Array:
        layout, dtype = self._layout, self._stored_dtype
        block = read_pieces(self._data, self._offset, layout.stored, dtype, layout.select(box))
        if block is not None:
            return layout.arrange(block)
        still_whole(self._data, self._opened().base)
        return super()._read(box)

    def _open(self) -> Array:
        view = map_file(self._data)
        if len(view) < self._offset + math.prod(self._layout.stored) * self._stored_dtype.itemsize:
            raise changed_meanwhile(self._data)
        return np.ndarray(self._layout.stored, self._stored_dtype, view, self._offset)

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """As `Volume.slabs`."""
        with reading(self.name):
            view = self._opened().base
        for slab in super().slabs(depth, max_bytes=max_bytes):
            yield slab
            forget(view)


class ArrayVolume(MappedVolume):
    """An array in memory as a volume.

    Parameters
    ----------
    array : ndarray
        Not copied.
    axes : str or None
        One letter for each axis. None reads 2 axes as YX, 3 as ZYX and 4 as CZYX,
        which is what every array inside volprep is.
    spacing : tuple of float or None
        (Z, Y, X) in micrometres.
    name : str
        Stands for the path in messages.
    """

    def __init__(
        self,
        array: npt.NDArray[Any],
        axes: str | None = None,
        spacing: Spacing3 | None = None,
        name: str = "array",
    ) -> None:
        stored = np.asarray(array)
        own = "CZYX" if stored.ndim == 4 else None
        letters = axes or own or default_axes(name, stored.shape, "the array")
        layout = Layout.of(name, letters, stored.shape)
        super().__init__(name, layout, stored.dtype, spacing=spacing)
        self._array = stored

    def _open(self) -> Array:
        return self._array
