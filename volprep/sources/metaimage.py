"""MetaImage files (``.mha``, ``.mhd``), over SimpleITK."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import MissingDependencyError, SourceError
from volprep.findings import Note
from volprep.geometry import Box
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume, reading
from volprep.sources.external import External, may_follow, refuse_foreign
from volprep.sources.keys import refuse_key
from volprep.sources.metadata import unusable
from volprep.sources.placement import Placement, Vector

__all__ = ["named_files", "open_source"]

_MILLIMETRE = 1000.0  # ITK's lengths, in µm
_MOST_HEADER = 1 << 16
_DEFLATE_RATIO = 1032  # no deflate stream expands further


class MetaImageVolume(Volume):
    """A MetaImage; a box is read alone where the file is raw, else all of it once."""

    def __init__(
        self, path: Path, layout: Layout, dtype: Any, *, packed: bool, **rest: Any
    ) -> None:
        self._packed = packed
        super().__init__(path, layout, dtype, **rest)

    def _open(self) -> Any:
        itk = _library()
        if not self._packed:
            return self  # each box has a reader of its own
        return itk.GetArrayFromImage(itk.ReadImage(str(self.path), imageIO="MetaImageIO"))

    def _held_bytes(self) -> int:
        return self.nbytes if self._packed else 0

    def _read(self, box: Box) -> Array:
        cut = self._layout.select(box)
        if self._packed:
            return self._layout.arrange(self._opened()[cut])
        self._opened()
        space = [c for c, a in zip(cut, self._layout.axes, strict=True) if a in "ZYX"]
        itk = _library()
        reader = itk.ImageFileReader()
        reader.SetImageIO("MetaImageIO")
        reader.SetFileName(str(self.path))
        reader.SetExtractIndex([c.start for c in space[::-1]])
        reader.SetExtractSize([c.stop - c.start for c in space[::-1]])
        return self._layout.arrange(itk.GetArrayFromImage(reader.Execute()))


def open_source(
    path: Path,
    key: str | None,
    axes: str | None,
    *,
    labels: bool,
    allow_external: External = None,
) -> Volume:
    """Open a `.mha` or `.mhd` file."""
    refuse_key(path, key)
    itk = _library()
    with reading(path, "MetaImage file"):
        header = _fields(path)
        for data in _data_files(path, header):
            if not may_follow(path, data, allow_external):
                refuse_foreign(path, "keeps its voxels in", data)
        reader = itk.ImageFileReader()
        reader.SetImageIO("MetaImageIO")
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:  # its first lines name places in the library's own source
            reason = str(error).strip().split("\n")[-1].strip()[:200]
            raise SourceError(
                path, f"its header cannot be used ({reason})", "correct it, or save it again"
            ) from error
        sizes = [int(n) for n in reader.GetSize()[::-1]]
        channels = int(reader.GetNumberOfComponents())
        stored = (*sizes, channels) if channels > 1 else tuple(sizes)
        own = "ZYX"[-len(sizes) :] if len(sizes) < 4 else "TZYX"[-len(sizes) :]
        own += "C" if channels > 1 else ""
        layout = Layout.of(path, axes or own, stored)
        dtype = itk.GetArrayFromImage(
            itk.Image([1] * len(sizes), reader.GetPixelID(), channels if channels > 1 else 0)
        ).dtype
        packed = header.get("CompressedData", "False").lower() == "true"
        _check_bytes(path, header, math.prod(stored) * dtype.itemsize, packed=packed)
        _check_spacing(path, header)
        rest = _world(reader, len(sizes)) if "ElementSpacing" in header else {
            "notes": (Note("unknown-spacing", "no spacing stored"),)
        }  # fmt: skip
        return MetaImageVolume(path, layout, dtype, packed=packed, **rest)


def named_files(path: Path) -> list[Path]:
    """The file of voxels that a detached header names."""
    return _data_files(path, _fields(path))


def _library() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingDependencyError("SimpleITK", "bio") from error
    return SimpleITK


def _fields(path: Path) -> dict[str, str]:
    """The fields of the header, which ITK tells in parts only; ElementDataFile is its last."""
    with path.open("rb") as file:
        text = file.read(_MOST_HEADER).decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if not equals:
            break
        fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            break
    return fields


def _data_files(path: Path, header: dict[str, str]) -> list[Path]:
    name = header.get("ElementDataFile", "LOCAL")
    if name.upper() == "LOCAL":
        return []
    if name.upper().startswith("LIST") or "%" in name:
        raise SourceError(path, "keeps its voxels in several files", "save it as one file")
    return [path.parent / name]


def _check_spacing(path: Path, header: dict[str, str]) -> None:
    """ITK refuses to read a file without lengths, and says so in words of its own."""
    told = header.get("ElementSpacing")
    if told is None:
        return
    try:
        lengths = [float(word) for word in told.split()]
    except ValueError:
        lengths = [math.nan]
    if not all(math.isfinite(n) and n != 0 for n in lengths):
        raise unusable(path, "ElementSpacing", told, "give the lengths of a voxel")


def _check_bytes(path: Path, header: dict[str, str], needed: int, *, packed: bool) -> None:
    """Refuse a header that promises more voxels than its file can hold."""
    data = (_data_files(path, header) or [path])[0]
    there = data.stat().st_size
    if data == path:
        with path.open("rb") as file:
            head = file.read(_MOST_HEADER)
        there -= head.find(b"\n", head.find(b"ElementDataFile")) + 1
    if needed > there * (_DEFLATE_RATIO if packed else 1):
        raise SourceError(
            path,
            f"is cut short: the header promises {needed} bytes of voxels, {there} are there",
            "copy or save the file again",
        )


def _world(reader: Any, ndim: int) -> dict[str, Any]:
    """Spacing and place, in ITK's millimetres."""
    if ndim not in (2, 3):
        return {"notes": (Note("unknown-spacing", "no spacing of z, y and x stored"),)}
    spacing = [float(s) * _MILLIMETRE for s in reader.GetSpacing()[::-1]]
    if min(spacing) <= 0:
        listed = ", ".join(f"{length:g}" for length in reader.GetSpacing())
        return {"notes": (Note("spacing-unread", f"its ElementSpacing ({listed}) is no length"),)}
    sizes = (spacing[0], *spacing) if ndim == 2 else tuple(spacing)
    if ndim == 2:
        return {"spacing": sizes}
    turn = np.asarray(reader.GetDirection(), np.float64).reshape(3, 3)
    # Columns are the steps along x, y and z; here z comes first, of axes and of coordinates.
    steps = [turn[::-1, axis] * reader.GetSpacing()[axis] * _MILLIMETRE for axis in (2, 1, 0)]
    origin = np.asarray(reader.GetOrigin(), np.float64)[::-1] * _MILLIMETRE
    place = Placement(
        (_vector(steps[0]), _vector(steps[1]), _vector(steps[2])),
        _vector(origin),
        "µm",
        "TransformMatrix",
    )
    return {"spacing": sizes, "placement": place}


def _vector(values: Any) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
