"""Runs of one label along x, and their connected components.

A run is ``(z, y, x, stop)``: the voxels ``x <= i < stop`` of line ``(z, y)``.
Runs are listed line by line, ascending; a component costs as many steps as it
has runs, however large the box around it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.compiling import kernel, part

__all__ = ["count_runs", "find_gaps", "find_runs", "join_runs", "paint_runs"]

IntArray = npt.NDArray[np.int32]


@kernel()
def count_runs(labels: npt.NDArray[Any]) -> int:
    """How many runs of one non-zero label the volume (Z, Y, X) has."""
    nz, ny, nx = labels.shape
    count = 0
    for z in range(nz):
        for y in range(ny):
            last = labels.dtype.type(0)
            for x in range(nx):
                value = labels[z, y, x]
                count += value != last and value != 0
                last = value
    return count


@kernel()
def find_runs(labels: npt.NDArray[Any], ids: npt.NDArray[np.uint64], out: IntArray) -> None:
    """Write every run of the volume and its label; both arrays hold `count_runs` rows."""
    nz, ny, nx = labels.shape
    n = -1
    for z in range(nz):
        for y in range(ny):
            last = labels.dtype.type(0)
            for x in range(nx):
                value = labels[z, y, x]
                if value == last:
                    continue
                if last != 0:
                    out[n, 3] = x
                if value != 0:
                    n += 1
                    ids[n] = value
                    out[n, 0] = z
                    out[n, 1] = y
                    out[n, 2] = x
                last = value
            if last != 0:
                out[n, 3] = nx


@part()
def _root(parents: IntArray, run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@part()
def _unite(parents: IntArray, a: int, b: int) -> None:
    a, b = _root(parents, a), _root(parents, b)
    if a < b:
        parents[b] = a
    else:
        parents[a] = b


@part()
def _unite_lines(
    runs: IntArray, ids: npt.NDArray[np.uint64], dz: int, dy: int, reach: int, parents: IntArray
) -> None:
    """Unite each run with those that it touches on the line `dz` and `dy` before its own."""
    first = 0
    for i in range(len(runs)):
        z, y = runs[i, 0] - dz, runs[i, 1] - dy
        start, stop = runs[i, 2] - reach, runs[i, 3] + reach
        while first < i and (
            runs[first, 0] < z
            or (runs[first, 0] == z and runs[first, 1] < y)
            or (runs[first, 0] == z and runs[first, 1] == y and runs[first, 3] <= start)
        ):
            first += 1
        j = first
        while j < i and runs[j, 0] == z and runs[j, 1] == y and runs[j, 2] < stop:
            if ids[i] == ids[j]:
                _unite(parents, i, j)
            j += 1


@kernel()
def join_runs(
    runs: IntArray, ids: npt.NDArray[np.uint64], diagonal: bool, components: IntArray
) -> int:
    """Number the connected components of the runs, in the order of their first runs.

    With `diagonal` voxels touch by faces, edges and corners (26-connectivity),
    without it by faces alone (6). Returns how many components there are.
    """
    for i in range(len(runs)):
        components[i] = i
    _unite_lines(runs, ids, 0, 1, int(diagonal), components)
    _unite_lines(runs, ids, 1, 0, int(diagonal), components)
    if diagonal:
        _unite_lines(runs, ids, 1, 1, 1, components)
        _unite_lines(runs, ids, 1, -1, 1, components)
    _unite_lines(runs, ids, 0, 0, 1, components)
    count = 0
    for i in range(len(runs)):  # a parent comes before its runs, so it is numbered already
        if components[i] == i:
            components[i] = count
            count += 1
        else:
            components[i] = components[components[i]]
    return count


@kernel()
def find_gaps(runs: IntArray, shape: tuple[int, int, int], out: IntArray) -> int:
    """Write the runs that `runs`, all of one object, leave free in a volume of `shape`.

    `out` holds a row for each line of the volume and each run. Returns how many it wrote.
    """
    nz, ny, nx = shape
    n = k = 0
    for z in range(nz):
        for y in range(ny):
            x = 0
            while k < len(runs) and runs[k, 0] == z and runs[k, 1] == y:
                if runs[k, 2] > x:
                    out[n, 0], out[n, 1], out[n, 2], out[n, 3] = z, y, x, runs[k, 2]
                    n += 1
                x = runs[k, 3]
                k += 1
            if x < nx:
                out[n, 0], out[n, 1], out[n, 2], out[n, 3] = z, y, x, nx
                n += 1
    return n


@kernel()
def paint_runs(runs: IntArray, out: npt.NDArray[np.uint8]) -> None:
    """Set the voxels of the runs to one."""
    for i in range(len(runs)):
        out[runs[i, 0], runs[i, 1], runs[i, 2] : runs[i, 3]] = 1
