"""Files of microscopes that bioio's plugins read: scenes of planes, decoded when touched.

One adapter file stands for each plugin; what they have in common is here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError, did_you_mean
from volprep.findings import Note
from volprep.geometry import Box, Spacing3
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume, reading

__all__ = ["SceneVolume", "datasets_of", "open_scene"]

#: Opens a file with a plugin.
Opener = Callable[[Path], Any]


class SceneVolume(Volume):
    """One scene of a file; planes are decoded when a box touches them."""

    def __init__(
        self, path: Path, layout: Layout, dtype: Any, *, opener: Opener, scene: str, **rest: Any
    ) -> None:
        self._opener, self._scene = opener, scene
        super().__init__(path, layout, dtype, **rest)

    def _open(self) -> Any:
        reader = self._opener(self.path)
        reader.set_scene(self._scene)
        return _planes(reader)

    def _read(self, box: Box) -> Array:
        planes = self._opened()[self._layout.select(box)]
        # Plane after plane in this thread: the plugins' files are not meant for several.
        with self._lock:
            block = np.asarray(planes.compute(scheduler="synchronous"))
        return self._layout.arrange(block)


def open_scene(
    path: Path, key: str | None, axes: str | None, *, opener: Opener, what: str
) -> Volume:
    """Open a scene; the key is its name, and not needed where there is one only."""
    with reading(path, what):
        reader = opener(path)
        scene = _scene(path, list(reader.scenes), key)
        reader.set_scene(scene)
        planes = _planes(reader)
        letters = axes or "".join(reader.dims.order)
        if len(letters) != planes.ndim:  # of a mosaic the tiles are put together
            letters = letters.replace("M", "")
        layout = Layout.of(path, letters, planes.shape)
        spacing = _spacing(reader)
        notes = () if spacing else (Note("unknown-spacing", "no spacing stored"),)
        return SceneVolume(
            path,
            layout,
            planes.dtype,
            opener=opener,
            scene=scene,
            key=scene if key is not None else None,
            spacing=spacing,
            chunks=layout.spatial(planes.chunksize),
            notes=notes,
        )


def datasets_of(path: Path, opener: Opener) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The scenes of a file."""
    found = []
    with reading(path):
        reader = opener(path)
        for scene in reader.scenes:
            reader.set_scene(scene)
            found.append((str(scene), tuple(reader.shape), np.dtype(reader.dtype)))
    return found


def _planes(reader: Any) -> Any:
    """The scene as a lazy array; the tiles of a mosaic at their places."""
    tiles = getattr(reader.dims, "M", 1)
    with redirect_stdout(StringIO()):  # what plugins say goes to nobody
        return reader.mosaic_dask_data if tiles > 1 else reader.dask_data


def _scene(path: Path, scenes: list[str], key: str | None) -> str:
    if key is None:
        if len(scenes) == 1:
            return scenes[0]
        listed = ", ".join(scenes[:20])
        raise SourceError(path, f"holds {len(scenes)} scenes", f"give the key of one: {listed}")
    if key in scenes:
        return key
    if key.isdecimal() and int(key) < len(scenes):
        return scenes[int(key)]
    raise SourceError(path, f"has no scene {key!r}", f"it holds {', '.join(scenes[:20])}"
                      f"{did_you_mean(key, scenes)}")  # fmt: skip


def _spacing(reader: Any) -> Spacing3 | None:
    """(Z, Y, X) in µm, which is what bioio gives; None where the file leaves y or x out."""
    sizes = None
    with suppress(Exception):  # plugins fail in many ways where metadata are absent
        sizes = reader.physical_pixel_sizes
    if sizes is None or not sizes.Y or not sizes.X:
        return None
    y, x = float(sizes.Y), float(sizes.X)
    if not (np.isfinite([y, x]).all() and min(y, x) > 0):
        return None
    return (float(sizes.Z) if sizes.Z and sizes.Z > 0 else y, y, x)
