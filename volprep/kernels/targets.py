"""What networks learn of labels, voxel by voxel, from codes: 0 background, 1, 2, ... instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part
from volprep.kernels.foreground import slot_of

__all__ = [
    "code_labels",
    "deepest",
    "mark_boundaries",
    "mark_connected",
    "point_inwards",
    "spread",
    "spread_times",
]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]


@kernel()
def code_labels(
    labels: npt.NDArray[Any],
    slots: Codes,
    ids: npt.NDArray[np.uint64],
    counts: npt.NDArray[np.int64],
    out: Codes,
) -> int:
    """Number the ids as they come; how many there are, or -1 where `ids` has no room.

    `slots` is all -1, a power of two, at least twice as long as `ids`; ``counts[code]`` gets
    the voxels of a code, ``ids[code - 1]`` its id. One look-up a run, not a voxel.
    """
    nz, ny, nx = labels.shape
    found = 0
    for z in range(nz):
        for y in range(ny):
            line, row = labels[z, y], out[z, y]
            start = 0
            while start < nx:
                value = line[start]
                stop = start + 1
                while stop < nx and line[stop] == value:
                    stop += 1
                code = np.int32(0)
                if value != 0:
                    slot = slot_of(np.uint64(value), ids, slots)
                    if slots[slot] < 0:
                        if found == len(ids):
                            return -1
                        ids[found] = value
                        slots[slot] = found
                        found += 1
                    code = slots[slot] + np.int32(1)
                counts[code] += stop - start
                row[start:stop] = code
                start = stop
    return found


@part()
def _same(codes: Codes, other: Codes, out: Bytes) -> None:
    for x in range(out.shape[0]):
        out[x] = (codes[x] == other[x]) & (codes[x] != 0)


@kernel()
def mark_connected(codes: Codes, offset: tuple[int, int, int], out: Bytes) -> None:
    """1 where a voxel and the one at `offset` from it are of one instance, 0 elsewhere."""
    nz, ny, nx = codes.shape
    dz, dy, dx = offset
    first, last = max(0, -dx), min(nx, nx - dx)
    for z in range(nz):
        for y in range(ny):
            row = out[z, y]
            row[:] = 0
            if 0 <= z + dz < nz and 0 <= y + dy < ny and first < last:
                other = codes[z + dz, y + dy]
                _same(codes[z, y, first:last], other[first + dx : last + dx], row[first:last])


@part()
def _differs(codes: Codes, other: Codes, out: Bytes) -> None:
    for x in range(out.shape[0]):
        out[x] |= codes[x] != other[x]


@part()
def _clear_background(codes: Codes, out: Bytes) -> None:
    for x in range(out.shape[0]):
        out[x] &= codes[x] != 0


@kernel()
def mark_boundaries(codes: Codes, flat: bool, inner: bool, out: Bytes) -> None:
    """1 where a face neighbour has another code; `flat`: in the plane; `inner`: not background."""
    nz, ny = codes.shape[:2]
    for z in range(nz):
        for y in range(ny):
            line, row = codes[z, y], out[z, y]
            row[:] = 0
            _differs(line[1:], line[:-1], row[1:])
            _differs(line[:-1], line[1:], row[:-1])
            if y > 0:
                _differs(line, codes[z, y - 1], row)
            if y + 1 < ny:
                _differs(line, codes[z, y + 1], row)
            if not flat and z > 0:
                _differs(line, codes[z - 1, y], row)
            if not flat and z + 1 < nz:
                _differs(line, codes[z + 1, y], row)
            if inner:
                _clear_background(line, row)


@part()
def _slopes(
    low: Floats, low_codes: Codes, here: Floats, codes: Codes, high: Floats, high_codes: Codes,
    size: np.float32, apart: int, out: Floats,
) -> None:  # fmt: skip
    """Slopes of a row from the two beside it, of which those of another code do not count.

    `apart` is how far the two are from each other, 1 where one of them is the row itself.

    Without branches, and in single precision throughout, so that it runs in vectors.
    """
    one = np.float32(1) / size
    half = one / np.float32(apart)
    for x in range(out.shape[0]):
        before, after = low_codes[x] == codes[x], high_codes[x] == codes[x]
        rise = (high[x] if after else here[x]) - (low[x] if before else here[x])
        rise = rise * (half if before and after else one)
        out[x] = rise if codes[x] != 0 else np.float32(0)


@part(error_model="numpy")
def _to_length_one(a: Floats, b: Floats, c: Floats) -> None:
    for x in range(a.shape[0]):
        square = a[x] * a[x] + b[x] * b[x] + c[x] * c[x]
        scale = np.float32(1) / np.sqrt(square) if square > 0 else np.float32(0)
        a[x] *= scale
        b[x] *= scale
        c[x] *= scale


@kernel()
def point_inwards(codes: Codes, depth: Floats, size: Floats, out: Floats) -> None:
    """Unit vectors (3, Z, Y, X) up the slope of `depth` within each instance, else 0."""
    nz, ny, nx = codes.shape
    for z in range(nz):
        for y in range(ny):
            here, line = depth[z, y], codes[z, y]
            for axis in range(2):
                # At a face of the array a row is its own neighbour.
                low_z = max(z - (axis == 0), 0)
                low_y = max(y - (axis == 1), 0)
                high_z = min(z + (axis == 0), nz - 1)
                high_y = min(y + (axis == 1), ny - 1)
                _slopes(
                    depth[low_z, low_y], codes[low_z, low_y], here, line,
                    depth[high_z, high_y], codes[high_z, high_y], size[axis],
                    max(1, high_z - low_z + high_y - low_y), out[axis, z, y],
                )  # fmt: skip
            row = out[2, z, y]
            row[:] = 0
            if nx > 2:
                _slopes(
                    here[:-2], line[:-2], here[1:-1], line[1:-1], here[2:], line[2:],
                    size[2], 2, row[1:-1],
                )  # fmt: skip
            if nx > 1:
                for x, beside in ((0, 1), (nx - 1, nx - 2)):
                    if line[x] != 0 and line[x] == line[beside]:
                        row[x] = (here[max(x, beside)] - here[min(x, beside)]) / size[2]
            _to_length_one(out[0, z, y], out[1, z, y], row)


@kernel()
def deepest(codes: Codes, depth: Floats, out: Floats) -> None:
    """The greatest depth of each code, into `out`, which holds zeros; one visit a run."""
    flat, deep = codes.reshape(-1), depth.reshape(-1)
    start = 0
    while start < len(flat):
        code, top = flat[start], deep[start]
        start += 1
        while start < len(flat) and flat[start] == code:
            top = max(top, deep[start])
            start += 1
        out[code] = max(out[code], top)


@kernel()
def spread(codes: Codes, values: Floats, out: Floats) -> None:
    """The value of each voxel's code."""
    flat, wide = codes.reshape(-1), out.reshape(-1)
    for i in range(len(flat)):
        wide[i] = values[flat[i]]


@kernel()
def spread_times(codes: Codes, values: Floats, factors: Floats, out: Floats) -> None:
    """The value of each voxel's code times the voxel's factor."""
    flat, wide, by = codes.reshape(-1), out.reshape(-1), factors.reshape(-1)
    for i in range(len(flat)):
        wide[i] = values[flat[i]] * by[i]
