"""A sketch of an image by which a copy is known that was cut, moved, turned or rescaled."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.patterns import list_patterns

__all__ = ["SKETCH", "SketchMaker", "near_copies"]

Sketch = npt.NDArray[np.uint64]

#: Patterns that a sketch holds at most.
SKETCH = 512
#: Voxels of an image that patterns are looked for in, at most; planes are left out beyond.
_VOXELS = 1 << 25
#: Patterns that two images must share, and of the smaller sketch the share.
_SHARED, _SHARE = 6, 0.04
#: A pattern that so many images hold says nothing about two of them.
_COMMON = 16


class SketchMaker:
    """Gathers the sketch of an image from its planes, in any order.

    Parameters
    ----------
    shape : (C, Z, Y, X)
        Of the image. Of more than 2**25 voxels a channel, every second, third, ... plane is
        looked at.

    Notes
    -----
    A sketch is the `SKETCH` least hashes of all local patterns (`volprep.kernels.patterns`) of
    the first channel. A pattern does not know where it lies, so that what two images have in
    common shows in the least hashes of both (Broder's bottom-k sketch), wherever it lies in each.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        _, depth, height, width = shape
        self._step = max(1, -(-depth * height * width // _VOXELS))
        self._found: list[Sketch] = []

    def add(self, plane: npt.NDArray[Any], z: int) -> None:
        """Look at a plane (Y, X) of the first channel, or at some rows of it."""
        if z % self._step or min(plane.shape) < 5:
            return
        out = np.empty(plane.size // 9 + 16, np.uint64)
        count = list_patterns(_plain(plane), out)
        self._found.append(np.unique(out[:count])[:SKETCH])
        if len(self._found) > 64:
            self._found = [self.sketch()]

    def merge(self, other: SketchMaker) -> None:
        """Add the planes that another one of the same image has seen."""
        self._found = [np.unique(np.concatenate([self.sketch(), other.sketch()]))[:SKETCH]]

    def sketch(self) -> Sketch:
        """What was found so far: at most `SKETCH` hashes, ascending."""
        if not self._found:
            return np.empty(0, np.uint64)
        return np.unique(np.concatenate(self._found))[:SKETCH]


def near_copies(sketches: Mapping[str, Sketch]) -> dict[tuple[str, str], float]:
    """Pairs of images that have some of their voxels in common, and how much of the smaller.

    Parameters
    ----------
    sketches : mapping of str to array
        By name.

    Notes
    -----
    The patterns of all images are sorted once, so that time grows with their number and not
    with that of the pairs; patterns that many images hold are passed over.
    """
    names = list(sketches)
    every = np.concatenate([sketches[name] for name in names] or [np.empty(0, np.uint64)])
    owner = np.repeat(np.arange(len(names)), [len(sketches[name]) for name in names])
    order = np.argsort(every, kind="stable")
    every, owner = every[order], owner[order]
    starts = np.flatnonzero(np.concatenate(([True], every[1:] != every[:-1])))
    counts = np.diff(starts, append=len(every))
    shared: dict[tuple[int, int], int] = {}
    for start, count in zip(starts[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        if count <= _COMMON:
            for pair in combinations(owner[start : start + count].tolist(), 2):
                shared[pair] = shared.get(pair, 0) + 1
    found = {}
    for (one, other), count in shared.items():
        share = count / min(len(sketches[names[one]]), len(sketches[names[other]]))
        if count >= _SHARED and share >= _SHARE:
            found[names[one], names[other]] = share
    return found


def _plain(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The plane in a type that the kernel is compiled for, with the same order of its values."""
    if plane.dtype.kind == "f":
        return np.ascontiguousarray(plane, np.float64 if plane.dtype.itemsize == 8 else np.float32)
    if plane.dtype.itemsize <= 2 or plane.dtype.kind == "b":
        return np.ascontiguousarray(plane, np.int32)
    return np.ascontiguousarray(plane, np.float64)
