"""What TIFF files say of their voxel size: OME-XML, ImageJ, tifffile's JSON and the tags."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from volprep.findings import Note
from volprep.geometry import Spacing3, to_micrometres
from volprep.sources.placement import Placement

__all__ = ["Resolution", "imagej_fields", "read_placement", "read_spacing", "shaped_fields"]

_PRINT = 50.0  # µm: a coarser pixel from a resolution tag is a print size (72 dpi is 353)
_CENTIMETRE = 3
_LONG_XML = 4 * 2**20
_OME_PLANE = re.compile(r"<(?:\w+:)?Plane\b([^>]*)>")
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
_ATTRIBUTE = re.compile(r"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")

Step = float | None


@dataclass(frozen=True)
class Resolution:
    """The resolution tags: pixels for each unit along x and y; unit as in tag 296."""

    x: float
    y: float
    unit: int


def read_spacing(
    description: str, resolution: Resolution | None, *, flat: bool
) -> tuple[Spacing3 | None, tuple[Note, ...]]:
    """Spacing of a TIFF file.

    Parameters
    ----------
    description : str
        The ImageDescription tag of the first page.
    resolution : Resolution or None
        The resolution tags of the first page.
    flat : bool
        Whether the image has one plane only: a missing z step is then that of y.

    Returns
    -------
    spacing : tuple of float or None
        (Z, Y, X) in micrometres.
    notes : tuple of Note
        What is missing or doubtful.
    """
    if "<OME" in description:
        (z, y, x), notes = _ome_steps(description)
    elif (fields := imagej_fields(description)) is not None:
        (z, y, x), notes = _imagej_steps(fields, resolution, flat=flat)
    elif (shaped := shaped_fields(description)) is not None:
        (z, y, x), notes = _shaped_steps(shaped, resolution)
    else:
        (z, y, x), notes = _tag_steps(resolution)
    z, y, x = (s if s is not None and math.isfinite(s) and s > 0 else None for s in (z, y, x))
    if z is None and flat:
        z = y
    if z is not None and y is not None and x is not None:
        return (z, y, x), notes
    known = [f"{a} {s:g} µm" for a, s in (("z", z), ("y", y), ("x", x)) if s is not None]
    if known:
        part = f"only part of the spacing is stored: {', '.join(known)}"
        return None, (*notes, Note("unknown-spacing", part))
    return None, (*notes, Note("unknown-spacing", "no spacing stored"))


def read_placement(description: str, spacing: Spacing3 | None) -> Placement | None:
    """Where a TIFF file says that its voxels lie.

    OME-XML gives the place of each plane on the stage, which counts where it is a length;
    ImageJ gives the voxel that is the origin.
    """
    if "<OME" in description:
        return _ome_placement(description, spacing)
    fields = imagej_fields(description) or {}
    origin = [_number(fields.get(f"{axis}origin")) for axis in "zyx"]
    if all(place is None for place in origin):
        return None
    z, y, x = (0.0 if place is None else -place for place in origin)
    return Placement.upright((1, 1, 1), (z, y, x), unit="voxels of ImageJ", said_by="origin")


def _ome_placement(description: str, spacing: Spacing3 | None) -> Placement | None:
    plane = _OME_PLANE.search(description)
    if plane is None or spacing is None:
        return None
    values = _attributes(plane.group(1))
    places: dict[str, float | None] = {}
    for axis in "ZYX":
        place, unit = _number(values.get(f"Position{axis}")), values.get(f"Position{axis}Unit", "")
        places[axis] = None if place is None else to_micrometres(place, unit)
    y, x = places["Y"], places["X"]
    if y is None or x is None:
        return None
    return Placement.upright(spacing, (places["Z"] or 0.0, y, x), said_by="OME plane position")


def _attributes(text: str) -> dict[str, str]:
    """The attributes of an XML element."""
    return {
        name: html.unescape(double or single) for name, double, single in _ATTRIBUTE.findall(text)
    }


def _well_formed(text: str) -> bool:
    """Whether XML ends as it began; a long text is taken at its last word."""
    if len(text) > _LONG_XML:
        return text.rstrip().endswith("OME>")
    from xml.etree import ElementTree

    try:
        ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return False
    return True


def imagej_fields(description: str) -> dict[str, str] | None:
    """The lines of an ImageJ description; None for any other."""
    if not description.startswith("ImageJ="):
        return None
    lines = (line.partition("=") for line in description.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def shaped_fields(description: str) -> dict[str, object] | None:
    """The JSON that tifffile writes; None for any other description."""
    if not description.startswith("{") or '"shape"' not in description:
        return None
    try:
        fields = json.loads(description)
    except ValueError:
        return None
    # Where in it the shape stands depends on the release that wrote it.
    return fields if isinstance(fields, dict) and "shape" in fields else None


def _ome_steps(description: str) -> tuple[tuple[Step, Step, Step], tuple[Note, ...]]:
    if not _well_formed(description):
        broken = "its OME-XML is broken off or no XML: spacing not read"
        return (None, None, None), (Note("spacing-unread", broken),)
    found = _OME_PIXELS.search(description)
    values = _attributes(found.group(1) if found else "")
    notes: list[Note] = []

    def step(axis: str) -> Step:
        size = _number(values.get(f"PhysicalSize{axis}"))
        unit = values.get(f"PhysicalSize{axis}Unit", "µm")
        if size is None:
            return None
        length = to_micrometres(size, unit)
        if length is None or length <= 0:
            unread = f"PhysicalSize{axis} is {size:g} in {unit!r}: not read as spacing"
            notes.append(Note("spacing-unread", unread))
        return length

    return (step("Z"), step("Y"), step("X")), tuple(notes)


def _imagej_steps(
    fields: Mapping[str, str], resolution: Resolution | None, *, flat: bool = False
) -> tuple[tuple[Step, Step, Step], tuple[Note, ...]]:
    unit = _length_unit(fields.get("unit", ""))
    if not unit or to_micrometres(1.0, unit) is None:
        doubt = Note("spacing-unread", f"ImageJ unit {unit!r} is no length: spacing not read")
        return (None, None, None), (doubt,) if unit else ()
    notes = []
    y = x = None
    if resolution is not None and resolution.x > 0 and resolution.y > 0:
        y = to_micrometres(1 / resolution.y, _length_unit(fields.get("yunit", unit)))
        x = to_micrometres(1 / resolution.x, unit)
    if unit in ("inch", "in"):
        inch = f"ImageJ unit is inch ({x or 0:g} µm): taken as a print size, not as spacing"
        notes.append(Note("spacing-unread", inch))
        return (None, None, None), tuple(notes)
    depth = _number(fields.get("spacing"))
    z = None if depth is None else to_micrometres(depth, _length_unit(fields.get("zunit", unit)))
    if z is not None and z <= 0 and not flat:
        notes.append(Note("spacing-unread", f"ImageJ spacing is {depth:g}: no length, not read"))
    return (z, y, x), tuple(notes)


def _length_unit(unit: str) -> str:
    """A unit as it was meant: the sign for micro is often lost between two encodings."""
    return unit.strip().replace("\ufffd", "µ").replace("Âµ", "µ")


def _shaped_steps(
    fields: Mapping[str, object], resolution: Resolution | None
) -> tuple[tuple[Step, Step, Step], tuple[Note, ...]]:
    if any(f"PhysicalSize{a}" in fields for a in "ZYX"):
        steps = []
        for axis in "ZYX":
            size = _number(fields.get(f"PhysicalSize{axis}"))
            unit = str(fields.get(f"PhysicalSize{axis}Unit", "µm"))
            steps.append(None if size is None else to_micrometres(size, unit))
        return (steps[0], steps[1], steps[2]), ()
    named, depth = fields.get("unit"), _number(fields.get("spacing"))
    if isinstance(named, str) and to_micrometres(1.0, named) is not None:
        as_imagej = {"unit": named, "spacing": "" if depth is None else str(depth)}
        return _imagej_steps(as_imagej, resolution)
    steps_xy, notes = _tag_steps(resolution)
    if depth is not None:
        unread = f"a z step of {depth:g} is stored without a unit: not read"
        notes = (*notes, Note("spacing-unread", unread))
    return steps_xy, notes


def _tag_steps(resolution: Resolution | None) -> tuple[tuple[Step, Step, Step], tuple[Note, ...]]:
    """XY from pixels per centimetre where that is a microscope's, not a printer's."""
    if resolution is None or resolution.unit != _CENTIMETRE:
        return (None, None, None), ()
    if not (resolution.x > 0 and resolution.y > 0):
        return (None, None, None), ()
    y, x = 1e4 / resolution.y, 1e4 / resolution.x
    if max(y, x) > _PRINT:
        text = f"{resolution.x:g} pixels/cm are taken as a print size, not as spacing"
        doubt = Note("spacing-unread", text, level="info")
        return (None, None, None), (doubt,) if resolution.x != 1 else ()
    return (None, y, x), ()


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
