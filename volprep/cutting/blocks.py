"""Blocks of a case read into memory that is there already, for those who cut without end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from volprep.cutting.patches import PadMode, PreparedCase, pad_of
from volprep.geometry import Box, Shape3, VolumeLike

__all__ = ["Room", "read_block"]

#: Gives the memory for an array of a name, by its shape and dtype.
Room = Callable[[str, tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]


@runtime_checkable
class _Fills(Protocol):
    """A volume that writes a box where it is wanted."""

    def read_into(self, box: Box, out: npt.NDArray[Any]) -> None:
        """Write the voxels of `box` to `out`, (C, Z, Y, X)."""


def read_block(
    case: PreparedCase, region: Box, box: Box, names: Iterable[str], mode: PadMode, room: Room
) -> dict[str, npt.NDArray[Any]]:
    """What a case holds in a box, as `cut_voxels` gives it.

    Parameters
    ----------
    case, region, box, names, mode
        As of `cut_voxels`.
    room : callable
        ``room(name, shape, dtype)`` gives the memory of an array; what it holds is overwritten.
    """
    arrays = {}
    for name in names:
        if name == "image":
            shape = (case.image.shape[0], *box.shape)
            arrays[name] = room(name, shape, case.image.dtype)
            _fill(case.image, region, box, mode, arrays[name])
        elif name == "label":
            arrays[name] = _plane(case.label, region, box, mode, room, name)
        else:
            arrays[name] = _valid(case.mask, region, box, room)
    return arrays


def _plane(
    volume: VolumeLike | None, region: Box, box: Box, mode: PadMode, room: Room, name: str
) -> npt.NDArray[Any]:
    if volume is None:
        absent = room(name, box.shape, np.uint8)
        absent[...] = 0
        return absent
    plane = room(name, (1, *box.shape), volume.dtype)
    _fill(volume, region, box, mode, plane)
    first: npt.NDArray[Any] = plane[0]
    return first


def _valid(volume: VolumeLike | None, region: Box, box: Box, room: Room) -> npt.NDArray[np.bool_]:
    """Where labels are to be believed: nowhere beyond the region."""
    inner = region.common(box)
    where = inner.shift([-n for n in box.start]).slices
    valid: npt.NDArray[np.bool_] = room("mask", box.shape, bool)
    if inner != box:
        valid[...] = False
    if volume is None:
        valid[where] = True
        return valid
    found = room("mask as stored", (1, *inner.shape), volume.dtype)
    _read(volume, inner, found)
    np.not_equal(found[0], 0, out=valid[where])
    return valid


def _fill(volume: VolumeLike, region: Box, box: Box, mode: PadMode, out: npt.NDArray[Any]) -> None:
    inner = region.common(box)
    _read(volume, inner, out[(slice(None), *inner.shift([-n for n in box.start]).slices)])
    before, after = pad_of(region, box)
    if any(before) or any(after):
        _pad(out, before, after, mode)


def _read(volume: VolumeLike, box: Box, out: npt.NDArray[Any]) -> None:
    if _fills(volume):
        volume.read_into(box, out)
    else:
        out[...] = volume.read(box)


def _fills(volume: VolumeLike) -> TypeGuard[_Fills]:
    return _is_filling(type(volume))


@cache
def _is_filling(kind: type) -> bool:
    """To ask a protocol takes 50 µs, as long as to read some chunks."""
    return issubclass(kind, _Fills)


def _pad(out: npt.NDArray[Any], before: Shape3, after: Shape3, mode: PadMode) -> None:
    """Fill the border of an array (C, Z, Y, X) from what is inside, axis by axis: `numpy.pad`."""
    for axis, (b, a) in enumerate(zip(before, after, strict=True), start=1):
        if not b and not a:
            continue
        lines, size = np.moveaxis(out, axis, 0), out.shape[axis]
        if mode == "constant":
            lines[:b] = 0
            lines[size - a :] = 0
            continue
        # NumPy itself says which line goes where, however far the border reaches.
        source = np.pad(np.arange(b, size - a), (b, a), mode=mode)
        for line in (*range(b), *range(size - a, size)):
            lines[line] = lines[source[line]]
