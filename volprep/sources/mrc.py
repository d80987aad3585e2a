"""MRC files of electron microscopes, mapped; headers by mrcfile."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import MissingDependencyError, SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources.array import FileVolume
from volprep.sources.axes import Layout
from volprep.sources.base import Volume, reading
from volprep.sources.keys import refuse_key
from volprep.sources.metadata import unusable
from volprep.sources.placement import Placement

__all__ = ["open_source"]

_HEADER_BYTES = 1024
_ANGSTROM = 1e-4  # µm
_MODES = 200  # by which the byte order of a header is told
# IMOD stores bytes without a sign under the mode of bytes with one, and says so in its own part
# of the header: a stamp, and flags of which the lowest says that the sign is meant.
_IMOD_STAMP, _IMOD_AT, _SIGNED = 1146047817, 40, 1


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open an MRC file: a volume, a tomogram or a stack of sections."""
    refuse_key(path, key)
    try:
        import mrcfile
        from mrcfile import utils
    except ImportError as error:
        raise MissingDependencyError("mrcfile", "bio") from error
    with reading(path, "MRC file"):
        _check_extension(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files lack marks that nothing here depends on
            file = mrcfile.open(path, header_only=True, permissive=True)
        with file:
            header = file.header
            _check(path, header, utils)
            dtype = np.dtype(utils.data_dtype_from_header(header))
            shape = tuple(int(n) for n in utils.data_shape_from_header(header))
            offset = _HEADER_BYTES + int(header.nsymbt)
            sizes = _spacing(header)
            placement = _placement(header, sizes)
            order = _order(header)
            if dtype == np.int8 and _unsigned_bytes(header):
                dtype = np.dtype(np.uint8)
        own = "".join(order[-len(shape) :]) if len(shape) <= 3 else None
        if own is None and axes is None:
            raise SourceError(
                path, f"is a stack of volumes {shape}", "say what its axes are: `axes: TZYX`"
            )
        layout = Layout.of(path, axes or str(own), shape)
        needed = offset + math.prod(shape) * dtype.itemsize
        there = path.stat().st_size
        if there < needed:
            raise SourceError(
                path,
                f"is cut short: the header promises {needed} bytes, {there} are there",
                "copy or save the file again",
            )
        notes = () if sizes else (Note("unknown-spacing", "no spacing stored"),)
        return FileVolume(
            path, layout, dtype, offset=offset, spacing=sizes, notes=notes, placement=placement
        )


def _check_extension(path: Path) -> None:
    """Refuse an extended header of less than no bytes, which mrcfile would try to read."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    for order in ("<", ">"):
        modes = np.frombuffer(head[12:16], f"{order}i4")
        size = np.frombuffer(head[92:96], f"{order}i4")
        if len(size) and 0 <= modes[0] < _MODES and size[0] < 0:
            raise unusable(path, "nsymbt", int(size[0]), "give a number from 0 on")


def _check(path: Path, header: Any, utils: Any) -> None:
    """Refuse a header that cannot be, with the field that is wrong."""
    for name in ("nx", "ny", "nz"):
        if int(header[name]) < 1:
            raise unusable(path, name, int(header[name]), "give a number from 1 on")
    try:
        utils.data_dtype_from_header(header)
    except ValueError as error:
        raise SourceError(
            path,
            f"has MRC mode {int(header.mode)}, which is not known here",
            "save it as mode 0, 1, 2, 6 or 12",
        ) from error


def _order(header: Any) -> tuple[str, ...]:
    """The letters of the stored axes, the slowest first."""
    letters = {1: "X", 2: "Y", 3: "Z"}
    found = tuple(letters.get(int(n), "") for n in (header.maps, header.mapr, header.mapc))
    return found if sorted(found) == ["X", "Y", "Z"] else ("Z", "Y", "X")


def _spacing(header: Any) -> Spacing3 | None:
    """Cell lengths over the numbers of intervals, in Å; None where either is not there."""
    steps = []
    for axis, count in (("z", header.mz), ("y", header.my), ("x", header.mx)):
        length = float(header.cella[axis])
        if not (math.isfinite(length) and length > 0 and int(count) > 0):
            return None
        steps.append(length / int(count) * _ANGSTROM)
    return steps[0], steps[1], steps[2]


def _placement(header: Any, sizes: Spacing3 | None) -> Placement | None:
    """Where the origin (in Å) or else the first indices say that the voxels lie.

    Most writers leave both at 0, which says nothing: a file without either is not compared.
    """
    if sizes is None:
        return None
    told = "origin"
    z, y, x = (float(header.origin[axis]) * _ANGSTROM for axis in "zyx")
    if not any((z, y, x)):
        told = "nstart"
        first = dict(
            zip(_order(header), (header.nzstart, header.nystart, header.nxstart), strict=True)
        )
        z, y, x = (int(first[a]) * s for a, s in zip("ZYX", sizes, strict=True))
    if not any((z, y, x)) or not all(map(math.isfinite, (z, y, x))):
        return None
    return Placement.upright(sizes, (z, y, x), said_by=told)


def _unsigned_bytes(header: Any) -> bool:
    extra = bytes(header.extra2)[_IMOD_AT : _IMOD_AT + 8]
    stamp, flags = np.frombuffer(extra, header.mode.dtype)
    return int(stamp) == _IMOD_STAMP and not int(flags) & _SIGNED
