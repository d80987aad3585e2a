"""Points as annotation: each becomes a ball of a given radius, an object of its own."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import ParseError

import numpy as np
import numpy.typing as npt

from volprep.cases.regions import parsed_xml
from volprep.errors import ConfigError, SourceError
from volprep.findings import Note
from volprep.geometry import Box
from volprep.sources import Array, Layout, Volume

__all__ = ["PointLabels", "PointRules", "Points", "is_points", "read_points"]

_AXES = {
    "z": "z", "axis-0": "z", "pos_z": "z", "markerz": "z",
    "y": "y", "axis-1": "y", "pos_y": "y", "markery": "y",
    "x": "x", "axis-2": "x", "pos_x": "x", "markerx": "x",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PointRules:
    """How points become labels.

    Attributes
    ----------
    radius : float or None
        Of the balls; it must be given where labels are points.
    unit : {'um', 'voxels'}
        Of the radius. A ball in µm is flat where voxels are.
    offset : tuple of float
        (Z, Y, X) in voxels, added to every point: of a part of a volume, where points count
        from the whole.
    ids : {'points', 'types'}
        Whether each point is an object, or all of one type are one class.
    """

    radius: float | None = None
    unit: Literal["um", "voxels"] = "um"
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ids: Literal["points", "types"] = "points"

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON and YAML."""
        return {
            "radius": self.radius, "unit": self.unit, "offset": list(self.offset), "ids": self.ids
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PointRules:
        """The inverse of `to_dict`."""
        return cls(**{**values, "offset": tuple(values.get("offset", (0.0, 0.0, 0.0)))})


@dataclass(frozen=True, slots=True)
class Points:
    """Places and types of marked cells.

    Attributes
    ----------
    places : ndarray, shape (N, 3), float64
        (Z, Y, X) in voxels, centres at whole numbers.
    types : ndarray, shape (N,), int64
        1 where the file has no types.
    """

    places: npt.NDArray[np.float64]
    types: npt.NDArray[np.int64]


def is_points(path: Path) -> bool:
    """Whether a label file holds points, not voxels."""
    return path.suffix.lower() in (".csv", ".xml")


def read_points(path: Path) -> Points:
    """Read the points of a CSV, or of an XML file of ImageJ's Cell Counter.

    Parameters
    ----------
    path : Path
        ``.csv`` with the columns z, y, x (napari's axis-0, axis-1, axis-2 too), and perhaps
        type; or ``.xml`` with Marker elements, as cellfinder and the Cell Counter write.

    Raises
    ------
    SourceError
        If the file holds no points, or something else.
    """
    try:
        rows = list(_of_csv(path) if path.suffix.lower() == ".csv" else _of_xml(path))
        places = np.array([row[:3] for row in rows], np.float64).reshape(-1, 3)
        types = np.array([row[3] for row in rows], np.int64)
    except SourceError:
        raise
    except (OSError, KeyError, TypeError, ValueError, ParseError) as error:
        raise SourceError(
            path, f"cannot be read as points ({error})", "give columns or elements z, y, x"
        ) from error
    if not len(places) or not np.isfinite(places).all():
        raise SourceError(path, "holds no points, or places that are no numbers", "mend it")
    if types.min() < 1:
        raise SourceError(path, f"holds the type {types.min()}", "types count from 1")
    return Points(places, types)


class PointLabels(Volume):
    """Labels that are balls around points, painted where a box is read.

    Parameters
    ----------
    path : Path
        For messages.
    points : Points
    image : Volume
        Whose grid and spacing the labels have.
    rules : PointRules

    Raises
    ------
    ConfigError
        If there is no radius, or it is in µm and the spacing is unknown.

    Notes
    -----
    A voxel in several balls belongs to the nearest point, of equally near ones to the first.
    Radius 0 marks the nearest voxel alone.
    """

    def __init__(self, path: Path, points: Points, image: Volume, rules: PointRules) -> None:
        if rules.radius is None:
            raise ConfigError(f"data.points.radius: missing; {path.name} holds points: give one")
        if rules.unit == "um" and image.spacing is None:
            raise ConfigError(
                "data.points.radius: in µm, but the spacing is unknown; give it as `spacing:`, or "
                "set data.points.unit: voxels"
            )
        step = image.spacing if rules.unit == "um" and image.spacing else (1.0, 1.0, 1.0)
        shape = image.shape[1:]
        places = points.places + rules.offset
        inside = ((places > -0.5) & (places < np.array(shape) - 0.5)).all(axis=1)
        ids = points.types if rules.ids == "types" else np.arange(1, len(places) + 1)
        flat = image.ndim_spatial == 2
        notes = []
        if not inside.all():
            found = f"{int((~inside).sum())} of {len(places)} points lie outside of the volume"
            notes.append(Note("points-outside", found))
        super().__init__(
            path,
            Layout("CYX" if flat else "CZYX", (1, *(shape[1:] if flat else shape))),
            np.uint32,
            spacing=image.spacing,
            chunks=image.chunks,
            notes=notes,
        )
        self._places, self._ids = places[inside], ids[inside]
        self._step = np.array(step, np.float64)
        self._radius = float(rules.radius)

    def _read(self, box: Box) -> Array:
        labels = np.zeros(box.shape, np.uint32)
        nearest = np.full(box.shape, np.inf)
        reach = np.maximum(self._radius / self._step, 0.5)
        near = (self._places + reach >= box.start) & (
            self._places - reach <= np.array(box.stop) - 1
        )
        for place, label in zip(
            self._places[near.all(axis=1)], self._ids[near.all(axis=1)], strict=True
        ):
            self._paint(place, int(label), box, labels, nearest)
        return labels[None]

    def _paint(self, place: Array, label: int, box: Box, labels: Array, nearest: Array) -> None:
        reach = np.maximum(self._radius / self._step, 0.5)
        first = np.maximum(np.ceil(place - reach).astype(int), box.start)
        last = np.minimum(np.floor(place + reach).astype(int) + 1, box.stop)
        if (first >= last).any():
            return
        axes = [
            ((np.arange(a, b) - p) * s) ** 2
            for a, b, p, s in zip(first, last, place, self._step, strict=True)
        ]
        distance = axes[0][:, None, None] + axes[1][:, None] + axes[2]
        part = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, box.start, strict=True))
        own = np.floor(place + 0.5).astype(int)  # the voxel that holds the point is always its own
        inside = distance <= self._radius**2
        if ((own >= first) & (own < last)).all():
            inside[tuple(own - first)] = True
        closer = inside & (distance < nearest[part])
        labels[part][closer] = label
        nearest[part][closer] = distance[closer]


def _of_csv(path: Path) -> Iterable[Sequence[float]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        names = {_AXES.get(name.strip().lower(), name.strip().lower()): name
                 for name in reader.fieldnames or ()}  # fmt: skip
        for row in reader:
            z = float(row[names["z"]]) if "z" in names else 0.0
            kind = float(row[names["type"]]) if "type" in names else 1
            yield z, float(row[names["y"]]), float(row[names["x"]]), kind


def _of_xml(path: Path) -> Iterable[Sequence[float]]:
    for kind in parsed_xml(path).iter("Marker_Type"):
        number = float(kind.findtext("Type") or 1)
        for marker in kind.iter("Marker"):
            z, y, x = (float(marker.findtext(f"Marker{axis}") or "nan") for axis in "ZYX")
            yield z, y, x, number
