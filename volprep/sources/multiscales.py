"""What OME-Zarr metadata say: versions 0.1 to 0.5, and of 0.6 the axes, scales and translations.

An image's ``multiscales`` lists its levels, each with transformations from voxels to the
world; what holds for all levels is applied after them. Whatever does not fit is an error
that names the key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3, to_micrometres
from volprep.sources.axes import Layout
from volprep.sources.placement import Placement
from volprep.sources.zarrarray import read_attributes

__all__ = ["Level", "clean_key", "levels_of", "ome_attributes", "placement_of", "spacing_of"]

_OLD_AXES = "tczyx"  # of OME-Zarr 0.1 and 0.2, which do not name them
_LETTERS = {"time": "T", "channel": "C"}
_KNOWN = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")


@dataclass(frozen=True)
class Level:
    """One array of a multiscale image, with what the image says of its axes.

    Attributes
    ----------
    path : str
        Of the array, below the image.
    where : str
        The key that names it, for messages.
    axes : str
        A letter for each axis.
    scale, offset : tuple of float or None
        From voxels to the world, for each axis; None where nothing is said.
    units : tuple of str or None
        Of each axis.
    notes : tuple of Note
    """

    path: str
    where: str
    axes: str
    scale: tuple[float, ...] | None
    offset: tuple[float, ...] | None
    units: tuple[str | None, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class _Transform:
    """Scales and translations of a list, joined; what is neither is named in `other`."""

    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    other: tuple[str, ...] = ()

    def then(self, after: _Transform) -> _Transform:
        """This one, and then another."""
        scale, offset = self.scale, self.offset
        if after.scale is not None:
            scale = _times(scale, after.scale)
            offset = None if offset is None else _times(offset, after.scale)
        if after.offset is not None:
            offset = after.offset if offset is None else _plus(offset, after.offset)
        return _Transform(scale, offset, (*self.other, *after.other))


def ome_attributes(folder: Path) -> Mapping[str, Any]:
    """The OME metadata of a group: from version 0.5 on they lie under ``ome``."""
    attributes = read_attributes(folder)
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def clean_key(path: Path, key: str) -> str:
    """A key without slashes around it; one that leads out of the folder is refused."""
    parts = PurePosixPath(key.strip("/")).parts
    if ".." in parts:
        raise SourceError(path, f"key {key!r} leads out of the folder", "give a key inside it")
    return "/".join(parts)


def levels_of(folder: Path) -> list[Level]:
    """The levels of the first multiscale image of a group, the finest first.

    Raises
    ------
    SourceError
        If its metadata cannot be understood; the message names the key.
    """
    ome = ome_attributes(folder)
    images = ome.get("multiscales")
    if not isinstance(images, list) or not images:
        return []
    image, where = images[0], "multiscales[0]"
    if not isinstance(image, dict) or not isinstance(image.get("datasets"), list):
        raise _bad(folder, f"{where}.datasets", "is no list of levels")
    version = str(image.get("version", ome.get("version", "0.4")))
    notes: list[Note] = []
    if not version.startswith(_KNOWN):
        text = f"OME-Zarr version {version!r} is not known: read as far as axes and scale go"
        notes.append(Note("ome-version-unknown", text))
    if len(images) > 1:
        notes.append(Note("images-left-out", f"holds {len(images)} images: the first is read"))
    levels = []
    overall = image.get("coordinateTransformations")
    for number, entry in enumerate(image["datasets"]):
        here = f"{where}.datasets[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise _bad(folder, f"{here}.path", "is missing")
        own = entry.get("coordinateTransformations")
        letters, units = _axes(folder, where, image, own)
        count = len(letters)
        key = "coordinateTransformations"
        joined = _transform(folder, f"{here}.{key}", own, count).then(
            _transform(folder, f"{where}.{key}", overall, count)
        )
        doubts = [*notes]
        if joined.other:
            kinds = " and ".join(dict.fromkeys(joined.other))
            doubts.append(Note("spacing-unread", f"{here}.{key}: {kinds} is not read"))
            joined = _Transform()
        path = clean_key(folder, entry["path"])
        scale, offset = joined.scale, joined.offset
        levels.append(Level(path, here, letters, scale, offset, units, tuple(doubts)))
    return levels


def spacing_of(level: Level | None, layout: Layout) -> tuple[Spacing3 | None, tuple[Note, ...]]:
    """The spacing of a level, and what is doubtful about it."""
    if level is None or level.scale is None:
        return None, (Note("unknown-spacing", "no spacing stored"),)
    steps: dict[str, float] = {}
    for letter, size, unit in zip(level.axes, level.scale, level.units, strict=True):
        if letter not in "ZYX":
            continue
        if unit is None:
            listed = ", ".join(f"{s:g}" for s in level.scale)
            unread = f"the scale ({listed}) has no unit: not read as spacing"
            return None, (Note("spacing-unread", unread),)
        length = to_micrometres(size, unit)
        if length is None or not math.isfinite(length) or length <= 0:
            unread = f"the scale along {letter.lower()} ({size:g} {unit}) is no length"
            return None, (Note("spacing-unread", unread),)
        steps[letter] = length
    if not {"Y", "X"} <= steps.keys():
        return None, (Note("unknown-spacing", "no spacing stored"),)
    steps.setdefault("Z", steps["Y"])
    return (steps["Z"], steps["Y"], steps["X"]), ()


def placement_of(level: Level | None) -> Placement | None:
    """Where the voxels of a level lie; in µm where every axis has a unit of length."""
    if level is None or (level.scale is None and level.offset is None):
        return None
    count = len(level.axes)
    scale, offset = level.scale or (1.0,) * count, level.offset or (0.0,) * count
    space = [i for i, letter in enumerate(level.axes) if letter in "ZYX"]
    factors = {i: to_micrometres(1.0, level.units[i] or "") for i in space}
    known = all(factors.values())
    steps, origin = {"Z": 1.0}, {"Z": 0.0}
    for i in space:
        factor = (factors[i] or 1.0) if known else 1.0
        steps[level.axes[i]], origin[level.axes[i]] = factor * scale[i], factor * offset[i]
    if not {"Y", "X"} <= steps.keys():
        return None
    z, y, x = (steps[a] for a in "ZYX")
    start = (origin["Z"], origin.get("Y", 0.0), origin.get("X", 0.0))
    unit = "µm" if known else "the file's own unit"
    return Placement.upright((z, y, x), start, unit=unit, said_by="OME-Zarr transformations")


def _axes(
    folder: Path, where: str, image: Mapping[str, Any], own: Any
) -> tuple[str, tuple[str | None, ...]]:
    """Letters and units of the axes: of the image, or of the system that a level leads to."""
    named, key = image.get("axes"), "axes"
    systems = image.get("coordinateSystems")
    if named is None and isinstance(systems, list) and systems:
        outputs = [t.get("output") for t in own or [] if isinstance(t, dict)]
        wanted = outputs[-1] if outputs else None
        wanted = wanted.get("name") if isinstance(wanted, dict) else wanted
        rows = [s for s in systems if isinstance(s, dict)]
        system = next((s for s in rows if s.get("name") == wanted), rows[0] if rows else {})
        named, key = system.get("axes"), f"coordinateSystems[{wanted!r}].axes"
    if named is None:
        named = list(_OLD_AXES)
    axes = [{"name": a} if isinstance(a, str) else a for a in named]
    if not all(isinstance(a, dict) and str(a.get("name", "")) for a in axes):
        raise _bad(folder, f"{where}.{key}", "names no axes")
    names = [str(axis["name"]) for axis in axes]
    if len(set(names)) < len(names):
        raise _bad(folder, f"{where}.{key}", f"names an axis twice ({', '.join(names)})")
    units = [axis.get("unit") for axis in axes]
    return "".join(map(_letter, axes)), tuple(u if isinstance(u, str) else None for u in units)


def _letter(axis: Mapping[str, Any]) -> str:
    kind = str(axis.get("type", ""))
    return _LETTERS.get(kind) or str(axis["name"]).upper()[:1]


def _transform(folder: Path, where: str, entries: Any, count: int) -> _Transform:
    """A list of transformations, one after the other."""
    found = _Transform()
    for entry in entries or []:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if kind == "sequence":
            found = found.then(_transform(folder, where, entry.get("transformations"), count))
        elif kind == "scale" and "scale" in entry:
            found = found.then(_Transform(scale=_vector(folder, where, kind, entry, count)))
        elif kind == "translation" and "translation" in entry:
            found = found.then(_Transform(offset=_vector(folder, where, kind, entry, count)))
        elif kind != "identity":
            found = found.then(_Transform(other=(f"a transformation of type {kind!r}",)))
    return found


def _vector(
    folder: Path, where: str, kind: str, entry: Mapping[str, Any], count: int
) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in entry[kind])
    except (TypeError, ValueError) as error:
        raise _bad(folder, where, f"has a {kind} that is no list of numbers") from error
    if len(values) != count:
        raise _bad(folder, where, f"has a {kind} of {len(values)} numbers for {count} axes")
    return values


def _bad(folder: Path, key: str, what: str) -> SourceError:
    return SourceError(folder, f"its OME metadata cannot be used: {key} {what}", "correct the key")


def _times(one: Sequence[float] | None, two: Sequence[float]) -> tuple[float, ...]:
    return tuple(two) if one is None else tuple(a * b for a, b in zip(one, two, strict=True))


def _plus(one: Sequence[float], two: Sequence[float]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, two, strict=True))
