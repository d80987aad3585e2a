"""One volume in two, with a gap between the sides: along which axis, and where."""

from __future__ import annotations

from dataclasses import dataclass

from volprep.errors import ConfigError, PlanError
from volprep.geometry import Box, Shape3, three

__all__ = ["AXES", "Cut", "Division", "Draw", "along", "divide", "slab"]

AXES = "zyx"


@dataclass(frozen=True, slots=True)
class Draw:
    """What share is held out, and which of the possible draws."""

    fraction: float
    folds: int | None
    fold: int
    seed: int

    def check(self) -> None:
        """Refuse shares and folds that do not exist."""
        if not 0 <= self.fraction < 1:
            raise ConfigError(f"split.fraction: {self.fraction} is not from 0 up to below 1")
        if self.folds is not None and self.folds < 2:
            raise ConfigError(f"split.folds: {self.folds} is below 2")
        if self.folds is not None and not 0 <= self.fold < self.folds:
            raise ConfigError(f"split.fold: {self.fold} is not one of 0 to {self.folds - 1}")


@dataclass(frozen=True, slots=True)
class Cut:
    """The patch that blocks must hold, and the gap between them where it is given."""

    patch: Shape3 | None
    halo: Shape3
    gap: Shape3 | None
    reach: Shape3 = (0, 0, 0)

    def gap_along(self, axis: int, patch: int) -> int:
        """The gap for a patch of so many voxels along an axis.

        What a voxel of one side was made of may lie `reach` voxels away, so these come on
        top of any gap, of one of 0, too.
        """
        gap = patch + 2 * self.halo[axis] if self.gap is None else self.gap[axis]
        return gap + self.reach[axis]


@dataclass(frozen=True, slots=True)
class Division:
    """An axis of one volume in two: intervals of voxels, and the patch they were made for."""

    axis: int
    patch: int
    gap: int
    val: tuple[int, int]
    train: tuple[tuple[int, int], ...]

    @property
    def fits(self) -> bool:
        """Whether both sides hold a patch."""
        return bool(self.train) and self.val[1] - self.val[0] >= self.patch

    @property
    def trained(self) -> int:
        """Voxels along the axis that are for training."""
        return sum(stop - start for start, stop in self.train)

    @property
    def kept(self) -> int:
        """Voxels along the axis that are not lost to the gap."""
        return self.val[1] - self.val[0] + self.trained


def divide(name: str, shape: Shape3, draw: Draw, cut: Cut, at_end: bool) -> Division:
    """Choose the axis that loses the smallest share to the gap, and cut there.

    Where no axis holds two patches and a gap, the patch is shrunk along the
    axis that keeps most of it.

    Raises
    ------
    PlanError
        If not even three voxels lie along any axis.
    """
    if cut.patch is not None:
        wanted = [_division(shape, a, cut.patch[a], draw, cut, at_end) for a in range(3)]
        fitting = [division for division in wanted if division.fits]
        if fitting:
            return max(fitting, key=lambda division: division.kept / shape[division.axis])
    shrunk = [_largest(shape, axis, draw, cut, at_end) for axis in range(3)]
    reduced = [division for division in shrunk if division is not None]
    if not reduced:
        raise PlanError(
            f"split: {name} of {shape} is too small to hold out a block; "
            "add another case, make split.gap smaller, or set split.fraction to 0"
        )
    aim = cut.patch or (1, 1, 1)
    return max(reduced, key=lambda division: division.patch / aim[division.axis])


def _largest(shape: Shape3, axis: int, draw: Draw, cut: Cut, at_end: bool) -> Division | None:
    """The division for the largest patch that fits along an axis, by bisection."""
    best, low, high = None, 1, shape[axis] if cut.patch is None else cut.patch[axis]
    while low <= high:
        patch = (low + high) // 2
        division = _division(shape, axis, patch, draw, cut, at_end)
        if division.fits:
            best, low = division, patch + 1
        else:
            high = patch - 1
    return best


def _division(shape: Shape3, axis: int, patch: int, draw: Draw, cut: Cut, at_end: bool) -> Division:
    length, gap = shape[axis], cut.gap_along(axis, patch)
    if draw.folds:
        start, stop = (length * i // draw.folds for i in (draw.fold, draw.fold + 1))
    else:
        usable = length - gap
        size = max(patch, min(round(draw.fraction * usable), usable - patch))
        start, stop = (length - size, length) if at_end else (0, size)
    pieces = ((0, start - gap), (stop + gap, length))
    train = tuple((a, b) for a, b in pieces if b - a >= patch)
    return Division(axis, patch, gap, (start, stop), train)


def slab(shape: Shape3, axis: int, start: int, stop: int) -> Box:
    """The box of an interval along one axis."""
    return Box(along((0, 0, 0), axis, start), along(shape, axis, stop))


def along(values: Shape3, axis: int, value: int) -> Shape3:
    """`values` with another one along an axis."""
    changed = list(values)
    changed[axis] = value
    return three(changed)
