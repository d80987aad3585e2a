"""How much larger than the patch to cut, so that a rotation has something to turn in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, steps

__all__ = ["augmentation_patch", "default_rotation"]

#: Beyond this ratio of spacings, or of the sides of a patch, rotations stay in the plane.
ANISOTROPIC = 3.0
#: How densely combined rotations are tried, in degrees.
STEP = 5.0

Floats = npt.NDArray[np.float64]


def augmentation_patch(
    patch_size: Sequence[int],
    spacing: Sequence[float] | None = None,
    *,
    rotation: Sequence[float] = (180.0, 0.0, 0.0),
    scale: Sequence[float] = (1.0, 1.0),
) -> Shape3:
    """The patch that holds every rotated and scaled patch.

    Parameters
    ----------
    patch_size : sequence of int
        (Z, Y, X) in voxels.
    spacing : sequence of float or None
        (Z, Y, X), in any unit; None takes cubes.
    rotation : sequence of float
        Largest angle either way about the (Z, Y, X) axis, in degrees.
    scale : sequence of float
        Smallest and largest magnification; 0.8 shows 1.25 times the field.

    Returns
    -------
    tuple of int
        (Z, Y, X) in voxels, never under the patch, and larger by an even number, so
        that the patch has a centred place in it. An axis of one voxel stays one.

    Raises
    ------
    ValueError
        If the smallest magnification is not positive.

    Notes
    -----
    Exact for rotations about one axis, or freely about all. Otherwise angles are
    tried every 5 degrees, in every order of the axes; the result is then short by
    at most a hundredth of the diagonal.
    """
    if not scale[0] > 0:
        raise ValueError(f"scale {list(scale)}: the smallest magnification must be positive")
    step = steps(spacing)
    half = np.array([n * s / 2 for n, s in zip(patch_size, step, strict=True)])
    turning = [n > 1 for n in patch_size]
    reach = _reach(half, _angles(rotation, turning)) / min(1.0, float(scale[0]))
    z, y, x = (
        _evenly_larger(n, 2 * r / s) if t else n
        for n, r, s, t in zip(patch_size, reach.tolist(), step, turning, strict=True)
    )
    return z, y, x


def default_rotation(
    patch_size: Sequence[int], spacing: Sequence[float] | None
) -> tuple[float, float, float]:
    """Angles where none are configured: any in the plane, or 30 degrees about all axes.

    The plane where voxels are anisotropic or the patch is flat, beyond a ratio of 3.
    """
    step = steps(spacing)
    sides = [n * s for n, s in zip(patch_size, step, strict=True)]
    flat = max(step) > ANISOTROPIC * min(step) or max(sides) > ANISOTROPIC * min(sides)
    return (180.0, 0.0, 0.0) if flat or min(patch_size) == 1 else (30.0, 30.0, 30.0)


def _angles(rotation: Sequence[float], turning: Sequence[bool]) -> list[float]:
    """Angles in radians, up to a right one; about an axis whose plane is flat, none."""
    return [
        math.radians(min(90.0, abs(float(degrees))))
        if all(t for i, t in enumerate(turning) if i != axis)
        else 0.0
        for axis, degrees in enumerate(rotation)
    ]


def _reach(half: Floats, angles: Sequence[float]) -> Floats:
    """Half the box around a box of half sides `half` over all its rotations."""
    axes = [axis for axis, angle in enumerate(angles) if angle]
    if not axes:
        return half
    if len(axes) == 1:
        return _reach_about(half, axes[0], angles[axes[0]])
    if min(angles) >= math.pi / 2:
        return np.full(3, math.hypot(*half))
    turns = [_rotations(axis, angles[axis], both_ways=axis == axes[0]) for axis in axes]
    best = half
    for first, *others in permutations(turns):
        combined = first
        for turn in others:
            combined = np.einsum("aij,bjk->abik", combined, turn).reshape(-1, 3, 3)
        best = np.maximum(best, (np.abs(combined) @ half).max(axis=0))
    return best


def _reach_about(half: Floats, axis: int, angle: float) -> Floats:
    """The same for one axis: the diagonal of the plane, or less where the angle is less."""
    reach = half.copy()
    a, b = (i for i in range(3) if i != axis)
    for along, across in ((a, b), (b, a)):
        best = min(angle, math.atan2(half[across], half[along]))
        reach[along] = half[along] * math.cos(best) + half[across] * math.sin(best)
    return reach


def _rotations(axis: int, angle: float, *, both_ways: bool) -> Floats:
    """Matrices for angles from zero (or from minus the angle), shape (n, 3, 3).

    Turning two axes the other way only mirrors the box, so one axis needs both ways.
    """
    count = math.ceil(math.degrees(angle) / STEP) + 1
    values = np.linspace(0, angle, count)
    if both_ways:
        values = np.concatenate([-values[:0:-1], values])
    a, b = (i for i in range(3) if i != axis)
    turns = np.zeros((len(values), 3, 3))
    turns[:, axis, axis] = 1
    turns[:, a, a] = turns[:, b, b] = np.cos(values)
    turns[:, a, b], turns[:, b, a] = -np.sin(values), np.sin(values)
    return turns


def _evenly_larger(side: int, wanted: float) -> int:
    return side + 2 * max(0, math.ceil((wanted - side) / 2 - 1e-9))
