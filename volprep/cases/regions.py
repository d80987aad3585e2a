"""Regions: boxes of volumes that alone are used, from the YAML, JSON, CSV or webKnossos."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from volprep.errors import ConfigError, SourceError
from volprep.geometry import Box, Spacing3, three
from volprep.sources import Array, Layout, Volume, WrappedVolume

__all__ = ["Region", "RegionVolume", "read_regions", "regions_from"]

Side = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Region:
    """A box that is used, of one case or of every one.

    Attributes
    ----------
    start, stop : tuple of float
        (Z, Y, X); `stop` is the first voxel after it.
    case : str or None
        None is every case.
    name : str or None
        What the case that it becomes is called, after the volume.
    unit : {'voxels', 'um'}
    side : {'train', 'val'} or None
        Which side of the split it is on; None leaves it to the split.
    """

    start: tuple[float, float, float]
    stop: tuple[float, float, float]
    case: str | None = None
    name: str | None = None
    unit: Literal["voxels", "um"] = "voxels"
    side: Side | None = None

    def box(self, name: str, shape: Sequence[int], spacing: Spacing3 | None) -> Box:
        """Its voxels in a volume, borders rounded to whole voxels.

        Raises
        ------
        ConfigError
            If it does not lie in the volume, or is in micrometres and the spacing is unknown.
        """
        start, stop = self.start, self.stop
        if self.unit == "um":
            if spacing is None:
                raise ConfigError(
                    f"data.regions: {name}: in µm, but the spacing is unknown; give it as "
                    "`spacing:`, or the region in voxels"
                )
            start = _divided(start, spacing)
            stop = _divided(stop, spacing)
        first, last = [round(n) for n in start], [round(n) for n in stop]
        size = three(shape[-3:])
        fits = all(0 <= a < b <= n for a, b, n in zip(first, last, size, strict=True))
        if not fits:
            raise ConfigError(
                f"data.regions: {name}: {first} to {last} is no box inside the volume of {size} "
                "(z, y, x)"
            )
        return Box(three(first), three(last))


class RegionVolume(WrappedVolume):
    """A box of a volume, as a volume of its own.

    Parameters
    ----------
    volume : Volume
    box : Box
        Inside the volume.
    """

    def __init__(self, volume: Volume, box: Box) -> None:
        layout = Layout("CZYX", (volume.shape[0], *box.shape))
        super().__init__(volume, layout, volume.dtype)
        self._box = box

    def _read(self, box: Box) -> Array:
        return self.volume.read(box.shift(self._box.start))


def regions_from(given: Sequence[Mapping[str, Any]] | Path) -> tuple[Region, ...]:
    """Regions that stand in the config, or in a file.

    Raises
    ------
    ConfigError
        If one of those in the config is no region.
    SourceError
        If the file cannot be understood.
    """
    if isinstance(given, Path):
        return read_regions(given)
    try:
        return tuple(_region(values) for values in given)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"data.regions: {error}") from None


def read_regions(path: Path) -> tuple[Region, ...]:
    """Regions of a JSON, CSV, or webKnossos NML file.

    Parameters
    ----------
    path : Path
        ``.json``: a list of objects (or one under ``regions``) with ``start``, ``stop`` (or
        ``size``), and any of ``case``, ``name``, ``unit``, ``side``. ``.csv``: the same with
        the columns ``z0, y0, x0, z1, y1, x1``. ``.nml``: the bounding boxes of the user (or,
        without any, of the task), in voxels.

    Raises
    ------
    SourceError
        If the file cannot be read or holds no region.
    """
    readers = {".json": _of_json, ".csv": _of_csv, ".nml": _of_nml, ".xml": _of_nml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SourceError(path, "holds no regions", "give a .json, .csv or .nml file")
    try:
        found = tuple(_region(values) for values in reader(path))
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except (KeyError, TypeError, ValueError, ElementTree.ParseError) as error:
        raise SourceError(path, f"cannot be read as regions ({error})", "mend it") from error
    if not found:
        raise SourceError(path, "holds no region", "add one, or leave out data.regions")
    return found


def parsed_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file; one that declares entities of its own is refused.

    Raises
    ------
    SourceError
        If it declares a document type: entities can grow without bound, and read other files.
    """
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise SourceError(path, "declares a document type", "save it as plain XML")
    return ElementTree.fromstring(text)


def _region(values: Mapping[str, Any]) -> Region:
    known = {"case", "name", "start", "stop", "size", "unit", "side"}
    strange = sorted(set(values) - known)
    if strange:
        raise ValueError(f"unknown key {strange[0]!r}; known are {', '.join(sorted(known))}")
    if ("stop" in values) == ("size" in values):
        raise ValueError("a region needs start and stop, or start and size")
    start = _numbers(values["start"])
    if "stop" in values:
        stop = _numbers(values["stop"])
    else:
        stop = _numbers([a + b for a, b in zip(start, _numbers(values["size"]), strict=True)])
    unit = {"": "voxels", "voxels": "voxels", "voxel": "voxels", "um": "um", "µm": "um"}.get(
        str(values.get("unit") or "")
    )
    side = values.get("side") or None
    if unit is None or side not in (None, "train", "val"):
        raise ValueError("`unit` is voxels or um, and `side` is train or val")
    case, name = values.get("case") or None, values.get("name") or None
    return Region(start, stop, case, name, "um" if unit == "um" else "voxels", side)


def _of_json(path: Path) -> Iterable[Mapping[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    found = content.get("regions") if isinstance(content, dict) else content
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("it holds no list of regions")
    return found


def _of_csv(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    for row in rows:
        values = {(key or "").strip().lower(): value for key, value in row.items()}
        yield {
            "start": [values.pop(f"{axis}0") for axis in "zyx"],
            "stop": [values.pop(f"{axis}1") for axis in "zyx"],
            **{key: value for key, value in values.items() if value},
        }


def _of_nml(path: Path) -> Iterable[Mapping[str, Any]]:
    """webKnossos counts in x, y, z, and gives the size of a box, not its end."""
    root = parsed_xml(path)
    boxes = list(root.iter("userBoundingBox")) or list(root.iter("boundingBox"))
    for box in boxes:
        yield {
            "start": [box.attrib[f"topLeft{axis}"] for axis in "ZYX"],
            "size": [box.attrib[key] for key in ("depth", "height", "width")],
            "name": box.attrib.get("name"),
        }


def _numbers(values: Any) -> tuple[float, float, float]:
    if isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{values!r} is not three numbers (z, y, x)")
    z, y, x = (float(value) for value in values)
    return z, y, x


def _divided(values: Sequence[float], spacing: Spacing3) -> tuple[float, float, float]:
    return _numbers([value / step for value, step in zip(values, spacing, strict=True)])
