"""A sketch of an image by which a copy is known that was cut, moved, turned or rescaled."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.patterns import USUAL, list_patterns

__all__ = ["SKETCH", "SketchMaker", "near_copies"]

Sketch = npt.NDArray[np.uint64]

#: Patterns that a sketch holds at most.
SKETCH = 512
#: Voxels of an image that patterns are looked for in, about; planes are left out beyond.
_VOXELS = 1 << 25
_EVERY = 1 << 32
#: Patterns that two images must share, and of the smaller sketch the share.
_SHARED, _SHARE = 6, 0.04
#: A pattern that so many images hold says nothing about two of them.
_COMMON = 16


class SketchMaker:
    """Gathers the sketch of an image from its planes, in any order.

    Parameters
    ----------
    shape : (C, Z, Y, X)
        Of the image. Of more than 2**25 voxels a channel, some of the planes are looked at.

    Notes
    -----
    A sketch is the `SKETCH` least hashes of all local patterns (`volprep.kernels.patterns`) of
    the first channel. A pattern does not know where it lies, so that what two images have in
    common shows in the least hashes of both (Broder's bottom-k sketch), wherever it lies in each.
    Rare patterns have the least hashes: once there are enough of them no others are hashed.

    Planes are left out by a hash of their place, and not every second or third, of which a
    copy that is moved by one plane would share none.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        _, depth, height, width = shape
        share = min(1.0, _VOXELS / max(1, depth * height * width))
        places = np.arange(depth, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        places ^= places >> np.uint64(32)
        scattered = (places * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(32)
        most = max(round(share * _EVERY), int(scattered.min(initial=_EVERY)) + 1)
        self._looked = scattered < np.uint64(most)
        self._sketch: Sketch = np.empty(0, np.uint64)
        self._below = ~np.uint64(0)

    def add(self, planes: npt.NDArray[Any], z: int) -> None:
        """Look at planes (Z, Y, X) of the first channel from z on, or at some rows of them."""
        (chosen,) = np.nonzero(self._looked[z : z + len(planes)])
        if not chosen.size or min(planes.shape[1:]) < 5:
            return
        plain = _plain(planes if chosen.size == len(planes) else planes[chosen]).view()
        plain.flags.writeable = False  # as what is mapped: one kind of array to compile for
        first = 0
        while first < len(plain) and not self._rare_only:  # plane by plane, until there are enough
            self._list(plain[first : first + 1])
            first += 1
        if first < len(plain):
            self._list(plain[first:])

    @property
    def _rare_only(self) -> bool:
        """Whether there are enough rare patterns, so that no other can be among the least."""
        return bool(self._below < USUAL)

    def _list(self, planes: npt.NDArray[Any]) -> None:
        out = np.empty(planes.size // 9 + 16, np.uint64)
        count = list_patterns(planes, self._rare_only, self._below, out)
        self._keep(out[:count])

    def _keep(self, found: Sketch) -> None:
        if found.size:
            self._sketch = np.unique(np.concatenate([self._sketch, found]))[:SKETCH]
        if len(self._sketch) == SKETCH:
            self._below = self._sketch[-1]

    def merge(self, other: SketchMaker) -> None:
        """Add the planes that another one of the same image has seen."""
        self._keep(other.sketch())

    def sketch(self) -> Sketch:
        """What was found so far: at most `SKETCH` hashes, ascending."""
        return self._sketch


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


def _plain(planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The planes in a type that the kernel is compiled for, with the same order of its values."""
    dtype = planes.dtype
    if dtype.kind == "f" or dtype.itemsize > 2:
        return np.ascontiguousarray(planes, np.float32)
    bits: npt.NDArray[Any] = np.ascontiguousarray(planes).view(f"u{dtype.itemsize}")
    if dtype.kind == "i":  # counted from the least integer on
        bits = np.bitwise_xor(bits, bits.dtype.type(1 << (8 * dtype.itemsize - 1)))
    return bits
