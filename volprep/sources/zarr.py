"""Zarr and OME-Zarr, in folders, archives and stores: which array is meant, axes, spacing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.objects import lists_nothing
from volprep.sources.array import default_axes
from volprep.sources.axes import Layout, fitting_axes
from volprep.sources.base import Volume, native_dtype, reading
from volprep.sources.keys import choose_key
from volprep.sources.metadata import read_json
from volprep.sources.multiscales import (
    Level,
    clean_key,
    levels_of,
    ome_attributes,
    placement_of,
    spacing_of,
)
from volprep.sources.place import entries, is_stored
from volprep.sources.zarrarray import ZarrArray, ZarrVolume, read_array, read_attributes

__all__ = ["datasets", "open_source"]

_FEW = 4  # so few sections look like channels
_DEEPEST = 3  # how many folders a level may lie below its image


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open an array of a Zarr folder, level 0 where it is an OME-Zarr image."""
    with reading(path, "Zarr folder"):
        name, level = _find(path, key, labels=labels)
        place = f"{path}::{name}" if name else str(path)
        array = read_array(path / name)
        if array is None and level is not None:
            raise SourceError(
                place,
                f"is no Zarr array, but {level.where}.path names it",
                "the image is not whole: copy or save it again",
            )
        if array is None:
            raise SourceError(place, "is no Zarr array", "give the key of an array or an image")
        stored = is_stored(path)
        if not stored:
            array.check_codecs(place)
            array.check_claim(place)
        letters, notes = _axes(place, array, level, axes)
        layout = Layout.of(place, letters, array.shape)
        fits = level is not None and level.axes == layout.axes
        spacing, doubts = spacing_of(level if fits else None, layout)
        rest: dict[str, Any] = {
            "key": name or None,
            "spacing": spacing,
            "placement": placement_of(level) if fits else None,
            "notes": (*array.notes, *(level.notes if level else ()), *notes, *doubts),
        }
        return _in_store(path, layout, array, rest) if stored else ZarrVolume(
            path, layout, array, **rest
        )  # fmt: skip


def _in_store(path: Path, layout: Layout, array: ZarrArray, rest: Mapping[str, Any]) -> Volume:
    """The array over tensorstore."""
    from volprep.sources.cloud import StoreVolume

    volume = StoreVolume(
        path,
        layout,
        array.dtype,
        place=array.path,
        driver="zarr3" if array.version == 3 else "zarr",
        chunks=layout.spatial(array.block),
        **rest,
    )
    volume.check_claim()
    return volume


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The arrays of at least two axes below a folder; of an image only its first level."""
    with reading(path, "Zarr folder"):
        found = [(key, array) for key, array in _arrays(path) if len(array.shape) > 1]
    return [(key, array.shape, array.dtype) for key, array in found]


def _arrays(path: Path) -> list[tuple[str, ZarrArray]]:
    """All arrays of a container that can be read; the error of the first where none can."""
    refused: list[SourceError] = []
    found = _walk(path, "", refused)
    if refused and not any(len(array.shape) > 1 for _, array in found):
        raise refused[0]
    return found


def _find(path: Path, key: str | None, *, labels: bool) -> tuple[str, Level | None]:
    """Key of the array that is meant, and its level where it belongs to an image."""
    if key is not None:
        return _named(path, clean_key(path, key))
    if read_array(path) is not None:
        return "", _level_of(path, "")
    if labels and (inside := _label_group(path)) is not None:
        return _named(path, inside)
    levels = levels_of(path)
    if levels:
        return levels[0].path, levels[0]
    if "bioformats2raw.layout" in ome_attributes(
        path
    ) or "bioformats2raw.layout" in read_attributes(path):
        images = [c for c in _children(path, "") if levels_of(path / c)]
        if len(images) == 1:
            return _named(path, images[0])
    found = {k: array.shape for k, array in _arrays(path)}
    return _named(path, choose_key(path, found, None, labels=labels))


def _named(path: Path, key: str) -> tuple[str, Level | None]:
    """An array, or the first level of the image, of that key."""
    if read_array(path / key) is not None:
        return key, _level_of(path, key)
    levels = levels_of(path / key)
    if levels:
        return f"{key}/{levels[0].path}" if key else levels[0].path, levels[0]
    found = {k: array.shape for k, array in _arrays(path)}
    return choose_key(path, found, key or ".", labels=False), None


def _label_group(path: Path) -> str | None:
    """The one label image of an OME-Zarr image; None where it has none."""
    folder = path / "labels"
    names = ome_attributes(folder).get("labels", read_attributes(folder).get("labels"))
    if not isinstance(names, list) or not names:
        return None
    if len(names) > 1:
        listed = ", ".join(f"labels/{name}" for name in names)
        raise SourceError(path, f"has {len(names)} label images", f"give the key of one: {listed}")
    return clean_key(path, f"labels/{names[0]}")


def _level_of(path: Path, key: str) -> Level | None:
    """What the image that an array belongs to says of it; the array may be opened by itself."""
    folder = path / key
    above: Sequence[Path] = folder.parents
    for image in list(above)[:_DEEPEST]:
        name = folder.relative_to(image).as_posix()
        for level in levels_of(image):
            if level.path == name:
                return level
    return None


def _axes(
    place: str, array: ZarrArray, level: Level | None, axes: str | None
) -> tuple[str, tuple[Note, ...]]:
    own = "" if level is None else level.axes
    if not own and array.names is not None:
        own = "".join(n[:1].upper() for n in array.names)
    known = len(own) == len(array.shape) and {"Y", "X"} <= set(own) and len(set(own)) == len(own)
    if axes is not None:
        return fitting_axes(axes, own) if known else axes, ()
    if known:
        return own, ()
    if level is not None and len(own) != len(array.shape):
        raise SourceError(
            place,
            f"its OME metadata name {len(own)} axes ({own}), and the array has"
            f" {len(array.shape)} (see the axes of multiscales[0])",
            "correct them, or say what the axes are, such as `axes: CZYX`",
        )
    letters = default_axes(place, array.shape, "the array")
    few = array.shape[0]
    if letters == "ZYX" and few <= _FEW:
        read = f"first axis ({few}) read as Z"
        return letters, (Note("axis-guessed", read, todo="if it is channels, say `axes: CYX`"),)
    return letters, ()


def _children(root: Path, key: str) -> list[str]:
    """The folders in a group; where the store lists nothing, those that its metadata name."""
    try:
        found = [e.name for e in entries(root / key) if e.is_folder]
    except SourceError as error:
        if not lists_nothing(error):
            raise
        found = _named_children(root, key)
    return sorted(name for name in found if not name.startswith("."))


def _named_children(root: Path, key: str) -> list[str]:
    """What consolidated metadata and those of images say of the folders in a group."""
    folder, lead = root / key, f"{key}/" if key else ""
    old = (read_json(root / ".zmetadata") or {}).get("metadata", {})
    new = (read_json(root / "zarr.json") or {}).get("consolidated_metadata") or {}
    every = [*(n.rpartition("/")[0] for n in old), *new.get("metadata", {})]
    found = {n.removeprefix(lead).split("/")[0] for n in every if n.startswith(lead)} - {""}
    found |= {level.path.split("/")[0] for level in levels_of(folder)}
    labels = ome_attributes(folder).get("labels")
    found |= set(map(str, labels)) if isinstance(labels, list) else set()
    inside = folder / "labels"
    if any(read_json(inside / name) is not None for name in ("zarr.json", ".zgroup")):
        found.add("labels")
    return sorted(found)


def _walk(
    root: Path, key: str, refused: list[SourceError], seen: frozenset[Path] = frozenset()
) -> list[tuple[str, ZarrArray]]:
    """All arrays below a group; of a multiscale image its first level alone.

    What cannot be used (a table of texts beside the images) goes to `refused`. `seen` are the
    folders above: a link that leads back to one of them is not followed.
    """
    folder = root / key
    place = folder.resolve()
    if place in seen:
        return []
    try:
        array = read_array(folder)
        if array is not None:
            native_dtype(folder, array.dtype)
            return [(key, array)]
        if read_json(folder / "zarr.json") is None and read_json(folder / ".zgroup") is None:
            return []
        levels = levels_of(folder)
    except SourceError as error:
        refused.append(error)
        return []
    later = {level.path.split("/")[0] for level in levels[1:]}
    found: list[tuple[str, ZarrArray]] = []
    for child in _children(root, key):
        if child not in later:
            found += _walk(root, f"{key}/{child}" if key else child, refused, seen | {place})
    return found
