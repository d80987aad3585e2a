"""Where the voxels of a volume lie in the world, and how two volumes lie to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, Spacing3, three

__all__ = ["Difference", "Move", "Placed", "Placement", "Vector", "difference"]

Vector = tuple[float, float, float]

_AXES = "zyx"
#: Voxels by which a grid may be off and still be the same: writers round.
_OFF = 0.1
#: Angles (radians) by which directions may differ beside what carries the far end of a volume
#: off. A quaternion in float32 is uncertain by the root of its precision where it turns by
#: about 180 degrees, since its fourth number is left out of the header.
_BY_MATRIX, _BY_QUATERNION = 1e-4, 1e-3
#: How much two steps may differ: more is told as another spacing, and then only directions
#: are compared.
_SIZE = 0.01


@dataclass(frozen=True)
class Placement:
    """The grid of a volume in the world of its file.

    Attributes
    ----------
    steps : tuple of three vectors
        From one voxel to the next along z, y and x.
    origin : vector
        The centre of the first voxel.
    unit : str
        Of the vectors: ``µm``, or what else the file's numbers are. Placements are compared
        in one unit only.
    said_by : str
        The part of the header that says so: ``sform``, ``translation``, ...
    certain : bool
        False where the unit is unknown: such a place is compared, and nothing is moved by it.
    """

    steps: tuple[Vector, Vector, Vector]
    origin: Vector
    unit: str
    said_by: str
    certain: bool = True

    @classmethod
    def upright(
        cls,
        spacing: Spacing3,
        origin: Vector,
        *,
        unit: str = "µm",
        said_by: str,
        certain: bool = True,
    ) -> Placement:
        """A grid whose axes are those of the world, in the order z, y, x."""
        z, y, x = spacing
        return cls(((z, 0.0, 0.0), (0.0, y, 0.0), (0.0, 0.0, x)), origin, unit, said_by, certain)

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The steps as columns."""
        return np.array(self.steps, np.float64).T

    @property
    def plain(self) -> bool:
        """Whether it says no more than a spacing: from the corner of the world, along its axes."""
        matrix = self.matrix
        return not any(self.origin) and bool((matrix == np.diag(np.abs(np.diag(matrix)))).all())

    @property
    def regular(self) -> bool:
        """Whether every voxel has a place of its own: finite, and no direction flat."""
        matrix = self.matrix
        lengths = np.linalg.norm(matrix, axis=0)
        if not (np.isfinite(matrix).all() and np.isfinite(self.origin).all() and lengths.all()):
            return False
        return bool(abs(np.linalg.det(matrix / lengths)) > 1e-3)


@dataclass(frozen=True)
class Move:
    """How voxels come from one grid to another where none is interpolated.

    Attributes
    ----------
    order : tuple of int
        For each axis of the wanted grid the axis of the stored one.
    flipped : tuple of bool
        Whether it runs backwards, for each axis of the wanted grid.
    first : tuple of int
        The place of the wanted grid's first voxel, counted from the stored end that is
        nearer to it.
    shape : tuple of int
        Of the wanted grid.
    """

    order: Shape3
    flipped: tuple[bool, bool, bool]
    first: Shape3
    shape: Shape3


@dataclass(frozen=True)
class Difference:
    """How a volume lies to the image that it belongs to.

    Attributes
    ----------
    what : str
        In words: ``mirrored in x, shifted by 20 voxels in z``.
    move : Move or None
        What brings it to the image's grid; None where that would interpolate, or where it
        does not cover the image.
    """

    what: str
    move: Move | None


class Placed(Protocol):
    """What is compared: a shape, and where it lies."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X)."""
        ...

    @property
    def placement(self) -> Placement | None:
        """None where the file does not say."""
        ...


def difference(image: Placed, other: Placed) -> Difference | None:
    """Compare where two volumes lie.

    Parameters
    ----------
    image, other : Volume
        `other` is the label, the mask, or another channel of `image`.

    Returns
    -------
    Difference or None
        None where they lie alike, or where a file does not say.
    """
    one, two = image.placement, other.placement
    if one is None or two is None or one.unit != two.unit:
        return None
    if not (one.regular and two.regular):
        return None
    wanted, stored = three(image.shape[1:]), three(other.shape[1:])
    slack = _BY_QUATERNION if "qform" in (one.said_by, two.said_by) else _BY_MATRIX
    turn = _turn(one.matrix, two.matrix, 2 * _OFF / max(*wanted, *stored) + slack)
    if turn is None:
        return Difference(f"rotated by {_angle(one.matrix, two.matrix):.3g}°", None)
    order, signs = turn
    # A mirrored axis of one voxel is the same axis.
    flipped = [s < 0 and stored[a] > 1 for a, s in zip(order, signs, strict=True)]
    said = _turned(order, flipped)
    if not _sizes_agree(one, two, order):
        return Difference(", ".join(said), None) if said else None
    shift = _shift(one, two, order, flipped, stored)
    whole = [round(s) for s in shift]
    exact = all(abs(s - w) <= _OFF for s, w in zip(shift, whole, strict=True))
    said += _shifted(shift)
    if not said and wanted == stored:
        return None
    if not (one.certain and two.certain):
        return Difference(f"its {two.said_by} is {two.origin}, the image's {one.origin}", None)
    if not exact:
        return Difference(", ".join(said), None)
    first = three(-w for w in whole)
    ends = [f + n for f, n in zip(first, wanted, strict=True)]
    covered = min(first) >= 0 and all(
        end <= stored[axis] for end, axis in zip(ends, order, strict=True)
    )
    if not covered:
        return Difference(", ".join([*said, "it does not cover the image"]), None)
    if not said:
        said = [f"larger than the image ({_times(stored)} voxels against {_times(wanted)})"]
    z, y, x = flipped
    return Difference(", ".join(said), Move(three(order), (z, y, x), first, wanted))


def _turn(
    one: npt.NDArray[np.float64], two: npt.NDArray[np.float64], slack: float
) -> tuple[list[int], list[int]] | None:
    """For each axis of `one` that of `two`, and its sign; None where no two are parallel."""
    turn = np.linalg.solve(_unit(one), _unit(two))
    order = [int(a) for a in np.argmax(np.abs(turn), axis=1)]
    if sorted(order) != [0, 1, 2]:
        return None
    signs = [1 if turn[row, axis] > 0 else -1 for row, axis in enumerate(order)]
    plain = np.zeros((3, 3))
    plain[range(3), order] = signs
    if np.abs(turn - plain).max() > slack:
        return None
    return order, signs


def _angle(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    """By how much two frames are turned, in degrees, up to mirroring and order of the axes."""
    turn = np.abs(np.linalg.solve(_unit(one), _unit(two)))
    best = max(turn[range(3), list(p)].sum() for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0),
                                                       (2, 0, 1), (2, 1, 0)))  # fmt: skip
    return math.degrees(math.acos(min(1.0, max(-1.0, (best - 1) / 2))))


def _unit(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = matrix / np.linalg.norm(matrix, axis=0)
    return unit


def _sizes_agree(one: Placement, two: Placement, order: Sequence[int]) -> bool:
    theirs = np.linalg.norm(two.matrix, axis=0)[list(order)]
    return bool(np.allclose(np.linalg.norm(one.matrix, axis=0), theirs, rtol=_SIZE, atol=0))


def _shift(
    one: Placement,
    two: Placement,
    order: Sequence[int],
    flipped: Sequence[bool],
    stored: Shape3,
) -> list[float]:
    """Where the corner of `two` that answers to the first voxel of `one` lies, in its voxels.

    Measured at that corner, so that the rounding of a spacing does not add up along a
    mirrored axis.
    """
    corner = [0] * 3
    for axis, back in zip(order, flipped, strict=True):
        corner[axis] = stored[axis] - 1 if back else 0
    place = two.matrix @ np.array(corner) + np.array(two.origin)
    found = np.linalg.solve(one.matrix, place - np.array(one.origin))
    return [float(s) for s in found]


def _turned(order: Sequence[int], flipped: Sequence[bool]) -> list[str]:
    said = []
    if list(order) != [0, 1, 2]:
        names = "".join(_AXES[axis] for axis in order)
        said.append(f"its axes are in another order ({names} for zyx)")
    mirrored = [_AXES[axis] for axis, back in enumerate(flipped) if back]
    if mirrored:
        said.append(f"mirrored in {' and '.join(mirrored)}")
    return said


def _shifted(shift: Sequence[float]) -> list[str]:
    parts = [
        f"{abs(s):.3g} voxel{'s' if abs(s) >= 1.005 else ''} {'up' if s > 0 else 'down'} in {axis}"
        for s, axis in zip(shift, _AXES, strict=True)
        if abs(s) > _OFF
    ]
    return [f"shifted by {', '.join(parts)}"] if parts else []


def _times(shape: Sequence[Any]) -> str:
    return "×".join(map(str, shape))
