"""NRRD files, attached or detached: mapped where raw, inflated once where gzipped; by pynrrd."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np

from volprep.errors import MissingDependencyError, SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3, to_micrometres
from volprep.sources.array import FileVolume, default_axes
from volprep.sources.axes import Layout
from volprep.sources.base import Volume, native_dtype, reading
from volprep.sources.external import External, may_follow, refuse_foreign
from volprep.sources.keys import refuse_key
from volprep.sources.metadata import member, number_type, unusable
from volprep.sources.placement import Placement, Vector
from volprep.sources.stream import StreamVolume

__all__ = ["named_files", "open_source"]

_SPACE = ("domain", "space")


class NrrdStream(StreamVolume):
    """A gzipped NRRD."""

    def __init__(self, path: Path, layout: Layout, dtype: Any, *, data: Path, offset: int,
                 skip: int, **rest: Any) -> None:  # fmt: skip
        self._data, self._offset, self._skip = data, offset, skip
        super().__init__(path, layout, dtype, packed=data.stat().st_size - offset, **rest)

    def _stream(self) -> IO[bytes]:
        file = self._data.open("rb")
        file.seek(self._offset)
        stream: Any = gzip.GzipFile(fileobj=file)
        stream.read(self._skip)
        inflated: IO[bytes] = stream
        return inflated


def open_source(
    path: Path,
    key: str | None,
    axes: str | None,
    *,
    labels: bool,
    allow_external: External = None,
) -> Volume:
    """Open a `.nrrd` or `.nhdr` file."""
    refuse_key(path, key)
    with reading(path, "NRRD file"):
        header, offset = _header(path)
        dtype = _dtype(path, header)
        sizes = _sizes(path, header)
        layout = Layout.of(path, axes or _letters(path, header, sizes), sizes)
        spacing, placement, notes = _world(path, header, layout)
        data = _data_file(path, header, allow_external)
        rest: dict[str, Any] = {"spacing": spacing, "placement": placement, "notes": notes}
        start, skip = (0 if data != path else offset), int(header.get("byte skip", 0))
        start += _after_lines(data, start, int(header.get("line skip", 0)))
        encoding = str(member(path, header, "encoding")).lower()
        if skip < -1:
            raise unusable(path, "byte skip", skip, "give bytes to pass over, or -1")
        if encoding in ("gzip", "gz"):
            return NrrdStream(
                path, layout, dtype, data=data, offset=start, skip=max(0, skip), **rest
            )
        if encoding != "raw":
            raise SourceError(
                path, f"is encoded as {encoding}", "save it as raw or gzip, or as TIFF"
            )
        needed, there = math.prod(sizes) * dtype.itemsize, data.stat().st_size
        start = there - needed if skip == -1 else start + skip
        if start < 0 or start + needed > there:
            raise SourceError(
                path,
                f"is cut short: the header promises {needed} bytes of voxels,"
                f" {max(0, there - max(0, start))} are there",
                "copy or save the file again",
            )
        return FileVolume(path, layout, dtype, data=data, offset=start, **rest)


def named_files(path: Path) -> list[Path]:
    """The file of voxels that a detached header names."""
    header, _ = _header(path)
    name = header.get("data file", header.get("datafile"))
    return [] if not isinstance(name, str) or " " in name.strip() else [path.parent / name]


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """The header, and where what follows it begins."""
    try:
        import nrrd
    except ImportError as error:
        raise MissingDependencyError("pynrrd", "bio") from error
    with path.open("rb") as file:
        try:
            header = nrrd.read_header(file)
        except (nrrd.NRRDError, ValueError) as error:
            raise SourceError(
                path, f"its header cannot be used ({error})", "correct it, or save it again"
            ) from error
        return header, file.tell()


def _sizes(path: Path, header: Mapping[str, Any]) -> tuple[int, ...]:
    """The lengths of the axes, the slowest first."""
    sizes = [int(n) for n in header["sizes"]]
    if len(sizes) != int(header["dimension"]) or min(sizes, default=0) < 0:
        raise unusable(path, "sizes", sizes, f"give {header['dimension']} lengths")
    return tuple(sizes[::-1])


def _dtype(path: Path, header: Mapping[str, Any]) -> np.dtype[Any]:
    dtype = number_type(
        path, _TYPES.get(str(member(path, header, "type")).lower(), str(header["type"]))
    )
    native_dtype(path, dtype)
    big = str(header.get("endian", "little")).lower() == "big"
    return dtype.newbyteorder(">" if big else "<")


_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
    "float": "f4", "double": "f8",
}  # fmt: skip


def _letters(path: Path, header: Mapping[str, Any], sizes: Sequence[int]) -> str:
    """The letters of the stored axes, the slowest first: by their kinds, else by their number."""
    kinds = [str(k).lower() for k in header.get("kinds", ())]
    directions = header.get("space directions")
    if len(kinds) != len(sizes) and directions is not None:
        kinds = ["list" if np.isnan(row).all() else "domain" for row in directions]
    if len(kinds) != len(sizes):
        return default_axes(path, tuple(sizes), "the array")
    space = iter("XYZ")
    letters = ["T" if k == "time" else next(space, "?") if k in _SPACE else "C" for k in kinds]
    return "".join(letters[::-1])


def _data_file(path: Path, header: Mapping[str, Any], allow: External) -> Path:
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return path
    if not isinstance(name, str) or name.upper().startswith("LIST") or " " in name.strip():
        raise SourceError(path, "keeps its voxels in several files", "save it as one file")
    data = path.parent / name
    if not data.exists() and data.resolve().is_relative_to(path.parent.resolve()):
        raise SourceError(path, f"keeps its voxels in {name}, which is not there", "copy it, too")
    if not may_follow(path, data, allow):
        refuse_foreign(path, "keeps its voxels in", data)
    if not data.is_file():
        raise SourceError(path, f"keeps its voxels in {name}, which is not there", "copy it, too")
    return data


def _after_lines(data: Path, start: int, lines: int) -> int:
    """The bytes of some lines that are to be left out."""
    if lines <= 0:
        return 0
    with data.open("rb") as file:
        file.seek(start)
        # A line of no bytes is the end: a header may ask for more lines than there are.
        return sum(map(len, takewhile(bool, (file.readline() for _ in range(lines)))))


def _world(
    path: Path, header: Mapping[str, Any], layout: Layout
) -> tuple[Spacing3 | None, Placement | None, tuple[Note, ...]]:
    """Spacing, place and doubts, from `space directions` or `spacings` with their unit."""
    order = [layout.axes[::-1].find(letter) for letter in "ZYX"]
    directions: Any = header.get("space directions")
    spacings: Any = header.get("spacings")
    if "Z" not in layout.axes or (directions is None and spacings is None):
        return None, None, (Note("unknown-spacing", "no spacing stored"),)
    units = header.get("space units") if directions is not None else header.get("units")
    unit, notes = _unit(header, units)
    factor = None if unit is None else to_micrometres(1.0, unit)
    if factor is None:
        unread = f"its spacing has no unit of length ({unit or 'none'})"
        return None, None, (Note("spacing-unread", unread),)
    if directions is None:
        if len(spacings) != len(layout.axes):
            raise unusable(path, "spacings", list(spacings), "give one for each axis")
        sizes = [float(s) * factor for s in np.asarray(spacings, np.float64)[order]]
        if not all(math.isfinite(s) and s > 0 for s in sizes):
            return None, None, (_no_lengths("spacings", spacings),)
        return (sizes[0], sizes[1], sizes[2]), None, notes
    if len(directions) != len(layout.axes):
        raise unusable(path, "space directions", len(directions), "give one for each axis")
    rows = [np.asarray(directions[i], np.float64)[::-1] * factor for i in order]  # x, y, z: z first
    lengths = [float(np.linalg.norm(row)) for row in rows]
    if not all(math.isfinite(n) and n > 0 for n in lengths):
        return None, None, (_no_lengths("space directions", lengths[::-1]),)
    start = np.asarray(header.get("space origin", np.zeros(3)), np.float64)[::-1] * factor
    steps = (_vector(rows[0]), _vector(rows[1]), _vector(rows[2]))
    place = Placement(steps, _vector(start), "µm", "space directions")
    return (lengths[0], lengths[1], lengths[2]), place, notes


def _no_lengths(what: str, values: Sequence[float]) -> Note:
    listed = ", ".join(f"{float(value):g}" for value in values)
    return Note("spacing-unread", f"its {what} ({listed}) are no lengths")


def _unit(header: Mapping[str, Any], units: Any) -> tuple[str | None, tuple[Note, ...]]:
    """The unit of lengths; where an anatomical space says none, millimetres are meant by all."""
    named = [str(u) for u in units if str(u).strip('" ')] if units is not None else []
    if named:
        return named[0].strip('"'), ()
    if header.get("space") is not None:
        text = "its space has no unit: read as millimetres, as ITK and 3D Slicer do"
        return "mm", (Note("unit-guessed", text),)
    return None, ()


def _vector(values: Any) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
