"""What a patch may fill in a single volume, of which a block is held out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from volprep.geometry import Shape3, Spacing3, three

__all__ = ["DEFORMATION", "Division", "places_in", "room_for_planes", "rooms_for_patches"]

#: How much longer than the side along the cut another may be, in micrometres.
DEFORMATION = 1.5
#: Places that a patch should be able to take in the training blocks.
POSITIONS = 64
#: A side of a patch so short, in voxels, is worth more of the volume: with less a network sees
#: little more than the border of a patch.
SMALL = 40
#: Shares of the volume that should be left for training, each with the side along the cut up to
#: which a patch may grow at that price.
_SHARES = ((0.5, math.inf), (1 / 3, SMALL), (0.2, 16))
#: Places along the longer and the shorter axis that are not cut, as many as need be, where they
#: have so many voxels.
_PLACES, _LONG = ((1, 1), (4, 1), (4, 4)), 32

#: Of a patch: the share of the volumes that is for training, and the shapes of the training
#: blocks; None where the volumes cannot be divided for it.
Division = Callable[[Shape3], "tuple[float, Sequence[Shape3]] | None"]


def rooms_for_patches(shape: Shape3, spacing: Spacing3 | None, divided: Division) -> list[Shape3]:
    """The boxes that a patch may fill, if a block of its size is to be held out of one volume.

    Parameters
    ----------
    shape : (Z, Y, X)
        Of the volume, in voxels.
    spacing : (Z, Y, X) or None
        In micrometres; None takes cubes.
    divided : callable

    Returns
    -------
    list of (Z, Y, X)
        One for each axis along which the volume can be cut. The planner's patch for the larger
        of them is the one to take. None of them depends on the memory, so that more of it never
        gives a smaller patch.

    Notes
    -----
    The gap between the blocks is a patch, so that a patch as long as the volume leaves nothing.
    Shortening it along the cut alone would make it flat, so the other sides follow, and are at
    most `DEFORMATION` times as long, of a flat volume twice that. Half of the volume should be
    left for training; a third where a patch would have less than 40 voxels along the cut, a
    fifth where it would have less than 16.
    """
    divided = functools.cache(divided)
    for positions in (POSITIONS, 1):
        rooms = []
        for axis in range(3):
            cuts = [_Cut(axis, n, shape, spacing or (1.0, 1.0, 1.0)) for n in _PLACES]
            sides = [cut.longest_side(divided, positions) for cut in cuts]
            if max(sides):
                best = sides.index(max(sides))  # the first: no more places than need be
                rooms.append(cuts[best].box(_poolable(sides[best])))
        if rooms:
            return rooms
    return []


def room_for_planes(shape: Shape3, divided: Division) -> Shape3 | None:
    """What a patch of one plane may fill, if planes are held out of one volume; None if nothing.

    Parameters
    ----------
    shape : (1, Y, X)
        Of a plane, in voxels.
    divided : callable

    Notes
    -----
    Planes are held out whole, so that the cut takes nothing of a plane; a patch is less than that
    only for it to have places enough, and half of the volume is left for training.
    """
    for positions in (POSITIONS, 1):
        for places in _PLACES:
            box = three(_Cut(0, places, shape, (1.0, 1.0, 1.0)).room)
            trained, blocks = divided(box) or (0.0, ())
            if trained >= _SHARES[0][0] and places_in(blocks, box) >= positions:
                return box
    return None


def places_in(blocks: Sequence[Shape3], patch: Shape3) -> int:
    """In how many places a patch can lie in blocks, all of it."""
    return sum(
        math.prod(max(0, b - p + 1) for b, p in zip(block, patch, strict=True)) for block in blocks
    )


@dataclass(frozen=True)
class _Cut:
    """A volume that is cut along one axis, and the places that a patch has along the others."""

    axis: int
    places: tuple[int, int]
    shape: Shape3
    steps: Spacing3

    def longest_side(self, divided: Division, positions: int) -> int:
        """Of a patch, along the cut; 0 where there is none."""
        best = 0
        for share, enough in (*_SHARES, (0.0, 1)):
            if best < enough:
                most = int(min(self.shape[self.axis] // 3, enough))
                fits = functools.partial(self._fits, divided, positions, share)
                best = max(best, _largest(most, fits))
        return best

    def _fits(self, divided: Division, positions: int, share: float, side: int) -> bool:
        box = self.box(side)
        division = divided(box)
        if division is None:
            return False
        trained, blocks = division
        return trained >= share and places_in(blocks, box) >= positions

    @property
    def room(self) -> list[int]:
        """What a patch may fill, for its places along the axes that are not cut."""
        longer = max((i for i in range(3) if i != self.axis), key=lambda i: self.shape[i])
        left = [self.places[i != longer] - 1 for i in range(3)]
        return [n - more if n >= _LONG else n for n, more in zip(self.shape, left, strict=True)]

    def box(self, side: int) -> Shape3:
        """What a patch may fill that is `side` long along the cut."""
        longest = self._longest(side)
        box = [max(1, min(n, longest(s))) for n, s in zip(self.room, self.steps, strict=True)]
        box[self.axis] = side
        return self._as_long(three(box))

    def _longest(self, side: int) -> Callable[[float], int]:
        """How many voxels of a spacing another side may have at most."""
        length = side * self.steps[self.axis]
        thick = (n * s for n, s in zip(self.shape, self.steps, strict=True) if n > 1)
        if length < min(thick, default=length + 1):
            return lambda step: int(DEFORMATION * length / step)
        # Of a flat volume, where an undivided patch of as many voxels is 1.5 times less long; a
        # small one fits into any memory, so that the undivided patch is all of the volume.
        most = DEFORMATION * (2 if side <= SMALL else DEFORMATION)
        return lambda step: -_poolable(-math.ceil(most * length / step))

    def _as_long(self, box: Shape3) -> Shape3:
        """The box with one side shortened by a third at most, if that keeps a long volume's form.

        A volume that is cut across its length would else have a patch that is hardly long.
        """
        whole, found = (
            [n * s for n, s in zip(size, self.steps, strict=True) if n > 1]
            for size in (self.shape, box)
        )
        others = [i for i in range(3) if i != self.axis and box[i] > 1]
        if not others:
            return box
        wanted = max(found) / (max(whole) / min(whole) / DEFORMATION)
        last = min(others, key=lambda i: (box[i] * self.steps[i], -i))
        shorter = _poolable(int(wanted / self.steps[last]))
        cut = box[self.axis] * self.steps[self.axis]
        if not wanted < cut <= min(found) or shorter * DEFORMATION < _poolable(box[last]):
            return box
        return three(shorter if i == last else n for i, n in enumerate(box))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest side that fits, if all shorter ones do; 0 where none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _poolable(side: int) -> int:
    """The side, towards minus infinity, as what poolings down to 4 voxels divide."""
    step = 1 << max(0, side.bit_length() - 3)
    return side // min(step, 32) * min(step, 32)
