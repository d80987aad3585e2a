"""From the axes a file has to (C, Z, Y, X)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from volprep.errors import SourceError
from volprep.geometry import Box

__all__ = ["Layout", "fitting_axes", "time_point"]

_CHANNELS = "CS"
_SPACE = "ZYX"
_TIME = -2  # in place of the number of an axis of space
#: The time point that is asked for, if any: readers make layouts deep inside of them.
_wanted_time: ContextVar[int | None] = ContextVar("time", default=None)


@contextmanager
def time_point(time: int | None) -> Iterator[None]:
    """Let layouts that are made inside have time points, and read one of them."""
    token = _wanted_time.set(time)
    try:
        yield
    finally:
        _wanted_time.reset(token)


@dataclass(frozen=True)
class Layout:
    """How a stored array of `axes` and `stored` shape becomes (C, Z, Y, X).

    Parameters
    ----------
    axes : str
        One letter for each stored axis: Z, Y, X, C or S (samples) for channels; any
        other letter (T, ...) may only stand for an axis of length 1.
    stored : tuple of int
        The shape of the stored array.
    time : int
        The time point that is read, where T is longer than 1.
    """

    axes: str
    stored: tuple[int, ...]
    time: int = 0
    shape: tuple[int, int, int, int] = field(init=False)
    _order: tuple[int, ...] = field(init=False, repr=False)
    _axes: tuple[tuple[int, int], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        spare = [i for i, a in enumerate(self.axes) if a not in _CHANNELS + _SPACE]
        channels = [i for i, a in enumerate(self.axes) if a in _CHANNELS]
        space = [self.axes.index(a) for a in _SPACE if a in self.axes]
        axes = [
            (_TIME if a == "T" else _SPACE.find(a), n)
            for a, n in zip(self.axes, self.stored, strict=True)
        ]
        object.__setattr__(self, "_axes", tuple(axes))
        object.__setattr__(self, "_order", (*spare, *channels, *space))
        z = self.stored[self.axes.index("Z")] if "Z" in self.axes else 1
        y, x = self.stored[space[-2]], self.stored[space[-1]]
        shape = (math.prod(self.stored[i] for i in channels), z, y, x)
        object.__setattr__(self, "shape", shape)

    @classmethod
    def of(cls, path: str | Path, axes: str, stored: Sequence[int]) -> Layout:
        """Check `axes` against a stored shape.

        Raises
        ------
        SourceError
            Where the letters do not fit the array, or it has time points.
        """
        letters, sizes = axes.upper(), tuple(int(n) for n in stored)
        found = f"has {len(sizes)} axes, shape {_times(sizes)}"
        if len(letters) != len(sizes):
            raise SourceError(
                path,
                f"{found}, but axes {letters!r} names {len(letters)}",
                f"give one letter for each axis, such as `axes: {_example(len(sizes))}`",
            )
        if len(set(letters)) != len(letters) or not {"Y", "X"} <= set(letters):
            raise SourceError(
                path,
                f"axes {letters!r} cannot be used",
                "each letter once, Y and X among them; Z for depth, C for channels",
            )
        if 0 in sizes:
            raise SourceError(path, f"{found}: it is empty", "give a file that holds voxels")
        for letter, size in zip(letters, sizes, strict=True):
            if letter == "T" and _wanted_time.get() is not None:
                continue
            if letter not in _CHANNELS + _SPACE and size > 1:
                raise SourceError(
                    path,
                    f"{found}, axes {letters}: {letter} has {size} entries",
                    _what_to_do(letter, letters),
                )
        layout = cls(letters, sizes, _wanted_time.get() or 0)
        if layout.time >= layout.times:
            raise SourceError(
                path, f"has {layout.times} time points, not one number {layout.time}", "check it"
            )
        return layout

    @property
    def times(self) -> int:
        """How many time points are stored."""
        return self.stored[self.axes.index("T")] if "T" in self.axes else 1

    @property
    def ndim_spatial(self) -> int:
        """2 where there is one plane only, else 3."""
        return 2 if self.shape[1] == 1 else 3

    def select(self, box: Box) -> tuple[slice, ...]:
        """Index of a box in the stored array: every channel, the box along z, y and x."""
        start, stop = box.start, box.stop
        return tuple(
            slice(self.time, self.time + 1)
            if axis == _TIME
            else slice(0, size)
            if axis < 0
            else slice(start[axis], stop[axis])
            for axis, size in self._axes
        )

    def arrange(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A block with the stored axes, as (C, Z, Y, X); a view wherever there can be one."""
        turned = block.transpose(self._order)
        y, x = turned.shape[-2:]
        z = turned.shape[-3] if "Z" in self.axes else 1
        return turned.reshape(self.shape[0], z, y, x)

    def spatial(self, sizes: Sequence[int]) -> tuple[int, int, int]:
        """The z, y and x entries of a value for each stored axis (1 where there is no z)."""
        z = int(sizes[self.axes.index("Z")]) if "Z" in self.axes else 1
        return z, int(sizes[self.axes.index("Y")]), int(sizes[self.axes.index("X")])


def fitting_axes(said: str, own: str) -> str:
    """The user's axes, but for those of length 1 that a file which names its axes leaves out."""
    rest = iter(said.upper())
    leaves_out = len(own) < len(said) and all(letter in rest for letter in own)
    return own if leaves_out else said


def _what_to_do(letter: str, letters: str) -> str:
    meanings = {"C": "channels", "Z": "depth"}
    says = [
        f"if {letter} is {what}, say `axes: {letters.replace(letter, a)}`"
        for a, what in meanings.items()
        if a not in letters
    ]
    if letter == "T":
        says.insert(0, "make a case of each time point with `data.time: cases`")
    return "; ".join(says) or "save it with the axes C, Z, Y and X only"


def _example(ndim: int) -> str:
    return {2: "YX", 3: "ZYX", 4: "CZYX"}.get(ndim, "TCZYX")


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape)
