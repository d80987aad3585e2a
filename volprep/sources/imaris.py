"""Imaris files (``.ims``): HDF5 of a fixed layout, one dataset for each channel and time point."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Box, Shape3, Spacing3, to_micrometres
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume, reading
from volprep.sources.hdf5 import check_claim, filters_of
from volprep.sources.placement import Placement

__all__ = ["datasets", "open_source"]

_LEVEL = "ResolutionLevel {}"


class ImarisVolume(Volume):
    """One resolution level; the chunks that a box touches are read.

    The stored arrays are filled up to whole chunks: `shape` is that of the image.
    """

    def __init__(self, path: Path, layout: Layout, dtype: Any, *, level: int, **rest: Any) -> None:
        self._level = level
        super().__init__(path, layout, dtype, **rest)

    def _open(self) -> Any:
        return h5py.File(self.path, "r")

    def _read(self, box: Box) -> Array:
        time, channels, *space = self._layout.select(box)
        file = self._opened()
        out = np.empty((1, self.shape[0], *box.shape), self.dtype)
        for channel in range(channels.stop):
            out[0, channel] = _data(file, self._level, time.start, channel)[tuple(space)]
        return self._layout.arrange(out)


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open a resolution level by its number; the finest (0) where no key is given."""
    if axes is not None and axes.upper().replace("T", "") not in ("ZYX", "CZYX"):
        raise SourceError(path, f"axes {axes!r} are not those of Imaris", "leave `axes` out")
    with reading(path, "Imaris file"), h5py.File(path, "r") as file:
        if "DataSet" not in file or "DataSetInfo/Image" not in file:
            raise SourceError(path, "holds no Imaris image", "rename it to .h5 if it is HDF5")
        levels = sum(name.startswith("ResolutionLevel") for name in file["DataSet"])
        level = 0 if key is None else _number(path, key, levels)
        first = file["DataSet"][_LEVEL.format(level)]
        times = len(first)
        channels = sum(name.startswith("Channel") for name in first["TimePoint 0"])
        data = _data(file, level, 0, 0)
        filters_of(str(path), data)
        check_claim(str(path), data)
        shape = _shape(file, level, data.shape)
        layout = Layout.of(path, "TCZYX", (times, channels, *shape))
        spacing, origin = _world(file, shape)
        notes = () if spacing else (Note("unknown-spacing", "no spacing stored"),)
        placement = None
        if spacing is not None:
            placement = Placement.upright(spacing, origin, said_by="extent")
        return ImarisVolume(
            path,
            layout,
            data.dtype,
            level=level,
            key=None if key is None else str(level),
            spacing=spacing,
            placement=placement,
            chunks=data.chunks or shape,
            notes=notes,
        )


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The finest level."""
    with open_source(path, None, None, labels=False) as volume:
        return [("0", volume.shape, volume.dtype)]


def _number(path: Path, key: str, levels: int) -> int:
    name = key.removeprefix("ResolutionLevel").strip(" /")
    if name.isdecimal() and int(name) < levels:
        return int(name)
    raise SourceError(path, f"has no resolution level {key!r}", f"give a number below {levels}")


def _data(file: Any, level: int, time: int, channel: int) -> Any:
    return file[f"DataSet/{_LEVEL.format(level)}/TimePoint {time}/Channel {channel}/Data"]


def _shape(file: Any, level: int, stored: tuple[int, ...]) -> Shape3:
    """(Z, Y, X) without what fills up the chunks."""
    channel = file[f"DataSet/{_LEVEL.format(level)}/TimePoint 0/Channel 0"]
    said = [_text(channel.attrs.get(f"ImageSize{a}")) for a in "ZYX"]
    if None in said and level == 0:
        said = [_text(file["DataSetInfo/Image"].attrs.get(a)) for a in "ZYX"]
    sizes = [s if t is None else min(s, int(t)) for s, t in zip(stored, said, strict=True)]
    return sizes[0], sizes[1], sizes[2]


def _world(file: Any, shape: Shape3) -> tuple[Spacing3 | None, tuple[float, float, float]]:
    """Spacing and the centre of the first voxel, from the extent of the image."""
    about = file["DataSetInfo/Image"].attrs
    unit = _text(about.get("Unit")) or "um"
    steps, origin = [], []
    for axis, size in zip((2, 1, 0), shape, strict=True):
        low, high = (_text(about.get(f"Ext{end}{axis}")) for end in ("Min", "Max"))
        if low is None or high is None:
            return None, (0.0, 0.0, 0.0)
        step = to_micrometres((float(high) - float(low)) / size, unit)
        start = to_micrometres(float(low), unit)
        if step is None or start is None or not math.isfinite(step) or step <= 0:
            return None, (0.0, 0.0, 0.0)
        steps.append(step)
        origin.append(start + step / 2)
    return (steps[0], steps[1], steps[2]), (origin[0], origin[1], origin[2])


def _text(value: Any) -> str | None:
    """An attribute, which Imaris stores as an array of single characters."""
    if value is None:
        return None
    return b"".join(np.atleast_1d(value).astype("S1").tolist()).decode("utf-8", "replace").strip()
