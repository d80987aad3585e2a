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

__all__ = ["open_source"]

_HEADER_BYTES = 1024
_ANGSTROM = 1e-4  # µm
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files lack marks that nothing here depends on
            file = mrcfile.open(path, header_only=True, permissive=True)
        with file:
            header = file.header
            dtype = np.dtype(utils.data_dtype_from_header(header))
            shape = tuple(int(n) for n in utils.data_shape_from_header(header))
            offset = _HEADER_BYTES + int(header.nsymbt)
            sizes = _spacing(header)
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
        return FileVolume(path, layout, dtype, offset=offset, spacing=sizes, notes=notes)


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


def _unsigned_bytes(header: Any) -> bool:
    extra = bytes(header.extra2)[_IMOD_AT : _IMOD_AT + 8]
    stamp, flags = np.frombuffer(extra, header.mode.dtype)
    return int(stamp) == _IMOD_STAMP and not int(flags) & _SIGNED
