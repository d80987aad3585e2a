"""N5 arrays, on a disk and in stores.

N5 writes sizes with the axis first that runs fastest; here, as in NumPy, it comes last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3, to_micrometres
from volprep.sources.array import default_axes
from volprep.sources.axes import Layout
from volprep.sources.base import Volume, reading
from volprep.sources.cloud import StoreVolume
from volprep.sources.keys import choose_key
from volprep.sources.metadata import number_type, read_json, sizes_of, unusable
from volprep.sources.multiscales import clean_key
from volprep.sources.place import entries
from volprep.sources.placement import Placement

__all__ = ["datasets", "open_source"]

_KNOWN = 4  # the version that N5 is at
_MEMBERS = {"dimensions", "blockSize", "dataType"}
_DEEPEST = 2  # how far above an array what is said of its image may lie


class _Array(NamedTuple):
    key: str
    shape: tuple[int, ...]  # C order, as all here
    block: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]


class _World(NamedTuple):
    """What the attributes say of the place of the voxels, for z, y and x."""

    spacing: Spacing3 | None
    origin: tuple[float, float, float] | None
    notes: tuple[Note, ...]


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open an array; of a pyramid (``s0``, ``s1``, ...) the finest where no key is given."""
    with reading(path, "N5 container"):
        array = _find(path, key, labels=labels)
        place = f"{path}::{array.key}" if array.key else str(path)
        own = _own_axes(array.attributes, len(array.shape))
        letters = axes or own or default_axes(place, array.shape, "the array")
        layout = Layout.of(place, letters, array.shape)
        world = _world(path, array, layout)
        volume = StoreVolume(
            path,
            layout,
            array.dtype,
            place=path / array.key,
            driver="n5",
            reversed_axes=True,
            key=array.key or None,
            chunks=layout.spatial(array.block),
            spacing=world.spacing,
            placement=None
            if world.spacing is None or world.origin is None
            else Placement.upright(world.spacing, world.origin, said_by="N5 attributes"),
            notes=world.notes,
        )
        volume.check_claim()
        return volume


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The arrays of at least two axes; of a pyramid its finest level."""
    with reading(path, "N5 container"):
        found = [array for array in _arrays(path) if len(array.shape) > 1]
    return [(array.key, array.shape, array.dtype) for array in found]


def _find(path: Path, key: str | None, *, labels: bool) -> _Array:
    _check_version(path)
    name = "" if key is None else clean_key(path, key)
    for inside in (name, _join(name, "s0"), _join(name, "0")):
        array = _read(path, inside)
        if array is not None:
            return array
    found = {array.key: array for array in _arrays(path)}
    shapes = {k: array.shape for k, array in found.items()}
    return found[choose_key(path, shapes, key, labels=labels)]


def _read(path: Path, key: str) -> _Array | None:
    """The array of a key; None where there is a group or nothing."""
    attributes = read_json(path / key / "attributes.json")
    if attributes is None or not attributes.keys() >= _MEMBERS:
        return None
    place = f"{path}::{key}" if key else path
    shape = sizes_of(place, "dimensions", attributes["dimensions"])[::-1]
    block = sizes_of(place, "blockSize", attributes["blockSize"], least=1)[::-1]
    if len(shape) != len(block):
        raise unusable(place, "blockSize", attributes["blockSize"], f"give {len(shape)} numbers")
    return _Array(key, shape, block, number_type(place, attributes["dataType"]), attributes)


def _check_version(path: Path) -> None:
    told = (read_json(path / "attributes.json") or {}).get("n5")
    major = str(told).split(".")[0]
    if told is not None and not (major.isdecimal() and int(major) <= _KNOWN):
        raise unusable(path, "n5", told, f"versions up to {_KNOWN} are known")


def _arrays(path: Path) -> list[_Array]:
    """All arrays that can be read; the error of the first where none can."""
    refused: list[SourceError] = []
    found = _walk(path, "", refused)
    if refused and not any(len(array.shape) > 1 for array in found):
        raise refused[0]
    return found


def _walk(path: Path, key: str, refused: list[SourceError]) -> list[_Array]:
    try:
        array = _read(path, key)
    except SourceError as error:
        refused.append(error)
        return []
    if array is not None:
        return [array]
    names = sorted(e.name for e in entries(path / key) if e.is_folder and e.name[:1] != ".")
    finest: Sequence[str] = ("s0", "0")
    names = [n for n in finest if n in names and _is_array(path, _join(key, n))][:1] or names
    return [found for name in names for found in _walk(path, _join(key, name), refused)]


def _is_array(path: Path, key: str) -> bool:
    return (read_json(path / key / "attributes.json") or {}).keys() >= _MEMBERS


def _join(key: str, name: str) -> str:
    return f"{key}/{name}" if key else name


def _own_axes(attributes: Mapping[str, Any], count: int) -> str | None:
    """The letters that the array's own attributes give, the slowest first."""
    named = attributes.get("axes")
    if isinstance(named, list) and len(named) == count:
        letters = "".join(str(n)[:1].upper() for n in named[::-1])
        if len(set(letters)) == count and {"Y", "X"} <= set(letters):
            return letters
    return None


def _world(path: Path, array: _Array, layout: Layout) -> _World:
    """Spacing and origin by the first of the conventions that is followed.

    ``transform`` (axes, scale, translate and units by name, as OpenOrganelle has it),
    ``pixelResolution`` (BigDataViewer and Paintera) and ``resolution``, of the array or of
    the groups above it, those with the ``downsamplingFactors`` of the array.
    """
    above = [array.attributes]
    for parent in list(PurePosixPath(array.key).parents)[:_DEEPEST] if array.key else []:
        found = read_json(path / str(parent) / "attributes.json")
        above += [] if found is None else [found]
    if "Z" not in layout.axes:
        return _World(None, None, (Note("unknown-spacing", "no spacing stored"),))
    transform = array.attributes.get("transform")
    if isinstance(transform, dict):
        return _by_transform(transform)
    for number, attributes in enumerate(above):
        told: Any = attributes.get("pixelResolution", attributes.get("resolution"))
        unit: Any = attributes.get("units", attributes.get("unit"))
        if isinstance(told, Mapping):
            told, unit = told.get("dimensions"), told.get("unit", unit)
        if not isinstance(told, list) or len(told) != 3:
            continue
        unit = unit[0] if isinstance(unit, list) and unit else unit
        factors = array.attributes.get("downsamplingFactors", [1, 1, 1]) if number else [1, 1, 1]
        steps = [float(n) * float(f) for n, f in zip(told, factors, strict=True)]
        if unit is None:
            unread = f"the resolution ({', '.join(f'{s:g}' for s in steps)}) has no unit"
            return _World(None, None, (Note("spacing-unread", unread),))
        return _in_micrometres(steps[::-1], None, [str(unit)] * 3)
    return _World(None, None, (Note("unknown-spacing", "no spacing stored"),))


def _by_transform(transform: Mapping[str, Any]) -> _World:
    names = [str(n)[:1].upper() for n in transform.get("axes", ())]
    scale, offset = transform.get("scale", ()), transform.get("translate", [0.0] * len(names))
    units = transform.get("units", ())
    if sorted(names) != ["X", "Y", "Z"] or not len(names) == len(scale) == len(offset) == len(
        units
    ):
        return _World(None, None, (Note("spacing-unread", "its transform is not understood"),))
    order = [names.index(letter) for letter in "ZYX"]
    return _in_micrometres(
        [float(scale[i]) for i in order],
        [float(offset[i]) for i in order],
        [str(units[i]) for i in order],
    )


def _in_micrometres(
    steps: Sequence[float], origin: Sequence[float] | None, units: Sequence[str]
) -> _World:
    z, y, x = (to_micrometres(s, u) or 0.0 for s, u in zip(steps, units, strict=True))
    if not all(math.isfinite(n) and n > 0 for n in (z, y, x)):
        unread = f"the resolution ({', '.join(f'{s:g}' for s in steps)} {units[0]}) is no length"
        return _World(None, None, (Note("spacing-unread", unread),))
    if origin is None:
        return _World((z, y, x), None, ())
    oz, oy, ox = (to_micrometres(o, u) or 0.0 for o, u in zip(origin, units, strict=True))
    return _World((z, y, x), (oz, oy, ox), ())
