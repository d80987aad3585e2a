"""Zarr and OME-Zarr folders: which array is meant, its axes and its spacing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.geometry import Spacing3, to_micrometres
from volprep.sources.array import default_axes
from volprep.sources.axes import Layout, fitting_axes
from volprep.sources.base import Volume, reading
from volprep.sources.keys import choose_key
from volprep.sources.zarrarray import (
    ZarrArray,
    ZarrVolume,
    read_array,
    read_attributes,
    read_json,
)

__all__ = ["datasets", "open_source"]

_FEW = 4  # so few sections look like channels
_OLD_AXES = "tczyx"  # of OME-Zarr 0.1 and 0.2, which do not name them
_DEEPEST = 3  # how many folders a level may lie below its image
_LETTERS = {"time": "T", "channel": "C"}


@dataclass(frozen=True)
class Level:
    """One array of a multiscale image, with what the image says of its axes."""

    path: str
    axes: str
    scale: tuple[float, ...] | None
    units: tuple[str | None, ...]


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open an array of a Zarr folder, level 0 where it is an OME-Zarr image."""
    with reading(path, "Zarr folder"):
        name, level = _find(path, key, labels=labels)
        place = f"{path}::{name}" if name else str(path)
        array = read_array(path / name)
        if array is None:
            raise SourceError(place, "is no Zarr array", "give the key of an array or an image")
        letters, notes = _axes(place, array, level, axes)
        layout = Layout.of(place, letters, array.shape)
        spacing, doubts = _spacing(level, layout)
        rest: dict[str, Any] = {"key": name or None, "spacing": spacing}
        return ZarrVolume(path, layout, array, notes=(*notes, *doubts), **rest)


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The arrays of at least two axes below a folder; of an image only its first level."""
    with reading(path, "Zarr folder"):
        found = [(key, array) for key, array in _walk(path, "") if len(array.shape) > 1]
    return [(key, array.shape, array.dtype) for key, array in found]


def _find(path: Path, key: str | None, *, labels: bool) -> tuple[str, Level | None]:
    """Key of the array that is meant, and its level where it belongs to an image."""
    if key is not None:
        return _named(path, _clean(path, key))
    if read_array(path) is not None:
        return "", _level_of(path, "")
    if labels and (inside := _label_group(path)) is not None:
        return _named(path, inside)
    levels = _levels(path)
    if levels:
        return levels[0].path, levels[0]
    if "bioformats2raw.layout" in _ome(path) or "bioformats2raw.layout" in read_attributes(path):
        images = [c for c in _children(path) if _levels(path / c)]
        if len(images) == 1:
            return _named(path, images[0])
    found = {k: array.shape for k, array in _walk(path, "")}
    return _named(path, choose_key(path, found, None, labels=labels))


def _named(path: Path, key: str) -> tuple[str, Level | None]:
    """An array, or the first level of the image, of that key."""
    if read_array(path / key) is not None:
        return key, _level_of(path, key)
    levels = _levels(path / key)
    if levels:
        return f"{key}/{levels[0].path}" if key else levels[0].path, levels[0]
    found = {k: array.shape for k, array in _walk(path, "")}
    return choose_key(path, found, key or ".", labels=False), None


def _clean(path: Path, key: str) -> str:
    parts = PurePosixPath(key.strip("/")).parts
    if ".." in parts:
        raise SourceError(path, f"key {key!r} leads out of the folder", "give a key inside it")
    return "/".join(parts)


def _label_group(path: Path) -> str | None:
    """The one label image of an OME-Zarr image; None where it has none."""
    folder = path / "labels"
    names = _ome(folder).get("labels", read_attributes(folder).get("labels"))
    if not isinstance(names, list) or not names:
        return None
    if len(names) > 1:
        listed = ", ".join(f"labels/{name}" for name in names)
        raise SourceError(path, f"has {len(names)} label images", f"give the key of one: {listed}")
    return _clean(path, f"labels/{names[0]}")


def _level_of(path: Path, key: str) -> Level | None:
    """What the image that an array belongs to says of it; the array may be opened by itself."""
    folder = path / key
    for image in list(folder.parents)[:_DEEPEST]:
        name = folder.relative_to(image).as_posix()
        for level in _levels(image):
            if level.path == name:
                return level
    return None


def _ome(folder: Path) -> Mapping[str, Any]:
    """The OME metadata of a group: version 0.5 keeps them under ``ome``."""
    attributes = read_attributes(folder)
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def _levels(folder: Path) -> list[Level]:
    """The levels of the first multiscale image of a group, the finest first."""
    images = _ome(folder).get("multiscales")
    if not isinstance(images, list) or not images:
        return []
    image = images[0]
    named = image.get("axes")
    if named is None:
        named = list(_OLD_AXES)
    axes: list[dict[str, Any]] = [{"name": a} if isinstance(a, str) else a for a in named]
    letters, units = "".join(map(_letter, axes)), tuple(axis.get("unit") for axis in axes)
    overall = _scale(image.get("coordinateTransformations"))
    levels = []
    for entry in image["datasets"]:
        scale = _scale(entry.get("coordinateTransformations"))
        if scale is not None and overall is not None:
            scale = tuple(a * b for a, b in zip(scale, overall, strict=True))
        path = _clean(folder, str(entry["path"]))
        levels.append(Level(path, letters, scale or overall, units))
    return levels


def _letter(axis: Mapping[str, Any]) -> str:
    kind = str(axis.get("type", ""))
    return _LETTERS.get(kind) or str(axis["name"]).upper()[:1]


def _scale(transformations: Any) -> tuple[float, ...] | None:
    """The product of the scales in a list of transformations."""
    scales = [
        tuple(float(s) for s in t["scale"])
        for t in transformations or []
        if t.get("type") == "scale" and "scale" in t
    ]
    if not scales:
        return None
    return tuple(math.prod(s) for s in zip(*scales, strict=True))


def _axes(
    place: str, array: ZarrArray, level: Level | None, axes: str | None
) -> tuple[str, tuple[str, ...]]:
    own = "" if level is None else level.axes
    if not own and array.names is not None:
        own = "".join(n[:1].upper() for n in array.names)
    known = len(own) == len(array.shape) and {"Y", "X"} <= set(own) and len(set(own)) == len(own)
    if axes is not None:
        return fitting_axes(axes, own) if known else axes, ()
    if known:
        return own, ()
    letters = default_axes(place, array.shape, "the array")
    few = array.shape[0]
    if letters == "ZYX" and few <= _FEW:
        return letters, (f"first axis ({few}) read as Z; if it is channels, say `axes: CYX`",)
    return letters, ()


def _spacing(level: Level | None, layout: Layout) -> tuple[Spacing3 | None, tuple[str, ...]]:
    if level is None or level.scale is None or len(level.scale) != len(level.axes):
        return None, ("no spacing stored",)
    steps: dict[str, float] = {}
    for letter, size, unit in zip(level.axes, level.scale, level.units, strict=True):
        if letter not in "ZYX":
            continue
        if unit is None:
            listed = ", ".join(f"{s:g}" for s in level.scale)
            return None, (f"the scale ({listed}) has no unit: not read as spacing",)
        length = to_micrometres(size, unit)
        if length is None or not math.isfinite(length) or length <= 0:
            return None, (f"the scale along {letter.lower()} ({size:g} {unit}) is no length",)
        steps[letter] = length
    steps.setdefault("Z", steps["Y"])
    return (steps["Z"], steps["Y"], steps["X"]), ()


def _children(folder: Path) -> list[str]:
    return sorted(c.name for c in folder.iterdir() if c.is_dir() and not c.name.startswith("."))


def _walk(root: Path, key: str) -> list[tuple[str, ZarrArray]]:
    """All arrays below a group; of a multiscale image its first level alone."""
    folder = root / key
    array = read_array(folder)
    if array is not None:
        return [(key, array)]
    if read_json(folder / "zarr.json") is None and read_json(folder / ".zgroup") is None:
        return []
    levels = _levels(folder)
    later = {level.path.split("/")[0] for level in levels[1:]}
    found: list[tuple[str, ZarrArray]] = []
    for child in _children(folder):
        if child not in later:
            found += _walk(root, f"{key}/{child}" if key else child)
    return found
