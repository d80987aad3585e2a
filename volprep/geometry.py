"""Boxes, axes, spacing and units: the arithmetic that every room shares.

Boxes and shapes are (Z, Y, X) in voxels; spacing is (Z, Y, X) in micrometres.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Box",
    "Chunked",
    "Shape3",
    "Spacing3",
    "VolumeLike",
    "aligned_blocks",
    "grid_shape",
    "steps",
    "three",
    "to_micrometres",
    "whole",
]

Shape3 = tuple[int, int, int]
Spacing3 = tuple[float, float, float]

_MICROMETRES: dict[str, float] = {
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0,
    "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6,
    "å": 1e-4, "Å": 1e-4, "angstrom": 1e-4,
    "inch": 25400.0, "in": 25400.0,
}  # fmt: skip


def to_micrometres(value: float, unit: str) -> float | None:
    """Convert a length to micrometres.

    Parameters
    ----------
    value : float
        The length.
    unit : str
        Its unit as files spell it (``nm``, ``micrometer``, ``µm``, ``\\u00B5m``, ...).

    Returns
    -------
    float or None
        None where the unit is not one of length (``pixel``, an empty string).
    """
    name = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    name = name if name in _MICROMETRES else name.lower()
    factor = _MICROMETRES.get(name, _MICROMETRES.get(name.removesuffix("s")))
    return None if factor is None else value * factor


@dataclass(frozen=True, slots=True)
class Box:
    """A block of voxels: `start` inclusive, `stop` exclusive, both (Z, Y, X).

    A box may reach beyond a volume (negative starts included); `clip` cuts it
    to what is there.
    """

    start: Shape3
    stop: Shape3

    def __post_init__(self) -> None:
        if len(self.start) != 3 or len(self.stop) != 3:
            raise ValueError(f"a box needs (Z, Y, X) twice, got {self.start} and {self.stop}")
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"a box cannot stop before it starts: {self.start} to {self.stop}")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """The box of a whole volume of `shape` (its last three axes)."""
        z, y, x = (int(n) for n in shape[-3:])
        return cls((0, 0, 0), (z, y, x))

    @classmethod
    def at(cls, start: Sequence[int], shape: Sequence[int]) -> Box:
        """The box of `shape` that begins at `start`."""
        first, size = three(start), three(shape)
        return cls(first, three([a + n for a, n in zip(first, size, strict=True)]))

    @property
    def shape(self) -> Shape3:
        """Voxels along (Z, Y, X)."""
        return three([b - a for a, b in zip(self.start, self.stop, strict=True)])

    @property
    def size(self) -> int:
        """The number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index for an array in (Z, Y, X)."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def shift(self, offset: Sequence[int]) -> Box:
        """The same box moved by `offset`."""
        return Box.at([a + d for a, d in zip(self.start, offset, strict=True)], self.shape)

    def grow(self, halo: int | Sequence[int]) -> Box:
        """The box with `halo` voxels more on every side."""
        h = (halo,) * 3 if isinstance(halo, int) else halo
        return Box(
            three([a - n for a, n in zip(self.start, h, strict=True)]),
            three([b + n for b, n in zip(self.stop, h, strict=True)]),
        )

    def clip(self, shape: Sequence[int]) -> Box:
        """The part of the box that lies in a volume of `shape`; empty where nothing does."""
        limit = three(shape[-3:])
        start = [min(max(a, 0), n) for a, n in zip(self.start, limit, strict=True)]
        stop = [min(max(b, a), n) for a, b, n in zip(start, self.stop, limit, strict=True)]
        return Box(three(start), three(stop))

    def common(self, other: Box) -> Box:
        """The voxels that lie in both; an empty box where none do."""
        start = [max(a, b) for a, b in zip(self.start, other.start, strict=True)]
        stop = [max(a, min(b, c)) for a, b, c in zip(start, self.stop, other.stop, strict=True)]
        return Box(three(start), three(stop))

    def around(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(three(map(min, self.start, other.start)), three(map(max, self.stop, other.stop)))

    def nearest(self, start: Sequence[int], size: Sequence[int]) -> Shape3:
        """The start nearest to `start` of a patch in the box; in the middle of a smaller box."""
        ends = zip(start, size, self.start, self.stop, strict=True)
        z, y, x = (
            min(max(at, low), high - n) if high - low >= n else low - (n - high + low) // 2
            for at, n, low, high in ends
        )
        return z, y, x

    def overlaps(self, other: Box) -> bool:
        """Whether at least one voxel lies in both."""
        return all(
            max(a, c) < min(b, d)
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies in this box."""
        return all(
            a <= c and d <= b
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )


@runtime_checkable
class VolumeLike(Protocol):
    """What the domain rooms ask of a volume: its shape, and any box of its voxels.

    `volprep.sources.Volume` is one; so is anything with the same four members.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array that `read` returns."""
        ...

    @property
    def spacing(self) -> Spacing3 | None:
        """(Z, Y, X) in micrometres, or None where the file does not say."""
        ...

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        """The voxels of `box` (the whole volume for None), as (C, Z, Y, X)."""
        ...


@runtime_checkable
class Chunked(VolumeLike, Protocol):
    """What is decoded in chunks, each as a whole: work that follows them decodes them once."""

    @property
    def chunks(self) -> Shape3:
        """(Z, Y, X); all of the volume where nothing is gained by following them."""
        ...


def grid_shape(shape: Sequence[int], block: Sequence[int]) -> Shape3:
    """How many blocks of `block` cover `shape`, along (Z, Y, X)."""
    return three([-(-n // b) for n, b in zip(shape[-3:], block, strict=True)])


def aligned_blocks(shape: Sequence[int], block: Sequence[int]) -> Iterator[Box]:
    """Walk a volume of `shape` in blocks of `block`, in C order, the last ones cut to fit."""
    gz, gy, gx = grid_shape(shape, block)
    for z in range(gz):
        for y in range(gy):
            for x in range(gx):
                start = [i * b for i, b in zip((z, y, x), block, strict=True)]
                yield Box.at(start, block).clip(shape)


def three(values: Iterable[int]) -> Shape3:
    """Three whole numbers as a tuple, in (Z, Y, X)."""
    z, y, x = values
    if not type(z) is type(y) is type(x) is int:  # boxes make nothing else, and many of them
        z, y, x = whole((z, y, x))
    return z, y, x


def steps(spacing: Iterable[float] | None) -> Spacing3:
    """A spacing (Z, Y, X) as a tuple; one for each axis where it is not known."""
    z, y, x = (1.0, 1.0, 1.0) if spacing is None else (float(value) for value in spacing)
    return z, y, x


def whole(values: Iterable[Any]) -> tuple[int, ...]:
    """Whole numbers as a tuple of int; 4.7 is an error, and so is 4.0, never 4.

    Raises
    ------
    TypeError
        If one is of no integer type (NumPy's and tensors' own are).
    """
    given = tuple(values)
    try:
        return tuple(index(value) for value in given)
    except TypeError:
        raise TypeError(f"{given}: wanted whole numbers") from None
