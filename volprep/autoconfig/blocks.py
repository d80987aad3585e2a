"""The patch of a single volume, a block of which is held out: smaller, but of the same form."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from volprep.geometry import Shape3, three

__all__ = ["BlockFit", "fit_patch"]

#: How much more one side of the patch may shrink than another.
DEFORMATION = 1.5
#: Of a single volume, the share that should be left for training.
TRAINED = 0.5
#: And the share at least, while the patch keeps somewhat to its form.
LEAST_TRAINED = 0.2
#: Places that a patch should be able to take in the training blocks.
POSITIONS = 64
#: The patch is not made shorter than this, in voxels, where the planner's is longer.
SHORTEST = 16
#: A side that the planner makes longer than `LONG` should stay so, in voxels: below, a network
#: sees little more than the border of a patch.
LONG, STILL_LONG = 48, 32
#: What is wanted, in the order in which it is given up: deformation, share, positions, and
#: whether long sides stay long.
_WISHES = (
    (DEFORMATION, TRAINED, POSITIONS, True),
    (DEFORMATION, 0.35, POSITIONS, True),
    (DEFORMATION, TRAINED, POSITIONS, False),
    (DEFORMATION, 0.35, POSITIONS, False),
    (DEFORMATION, LEAST_TRAINED, POSITIONS, False),
    (2 * DEFORMATION, LEAST_TRAINED, POSITIONS, False),
    (math.inf, 0.0, POSITIONS, False),
    (math.inf, 0.0, 1, False),
)


@dataclass(frozen=True, slots=True)
class BlockFit:
    """A patch, and what blocks that hold it leave for training.

    Attributes
    ----------
    patch : (Z, Y, X)
        In voxels.
    trained : float
        Share of the volumes that is for training.
    positions : int
        Places of the patch in the training blocks.
    deformation : float
        How much more one side was shortened than another, 1 where the form is kept.
    """

    patch: Shape3
    trained: float
    positions: int
    deformation: float


def fit_patch(
    forms: Iterable[tuple[Shape3, Shape3]],
    divided: Callable[[Shape3], tuple[float, Sequence[Shape3]] | None],
) -> BlockFit | None:
    """The largest patch that leaves enough for training and keeps the planner's proportions.

    Parameters
    ----------
    forms : iterable of ((Z, Y, X), (Z, Y, X))
        The planner's patches for the whole volumes, and their poolings: that of the memory at
        hand, then those of less memory, which are taken where the first cannot be kept in form.
    divided : callable
        Of a patch: the share of the volumes that is for training, and the shapes of the
        training blocks; None where the volumes cannot be divided for it.

    Returns
    -------
    BlockFit or None
        None where no patch can be divided.

    Notes
    -----
    The gap between the blocks is a patch, so that a patch as long as the volume leaves
    nothing. Shortening it along the cut alone would make it flat; here the other sides
    follow, up to a factor of 1.5. Half of the volume should be left for training, a third
    where else a side of 48 voxels and more would become shorter than 32. Where that is not
    possible, the training share is given up first, then the form, then the number of places.
    """
    divided = functools.cache(divided)
    first = None
    for patch, pool in forms:
        fit = _fit(patch, pool, divided)
        if fit is None:
            continue
        if (
            fit.deformation <= 2 * DEFORMATION
            and fit.trained >= LEAST_TRAINED
            and fit.positions >= POSITIONS
        ):
            return fit
        first = first or fit
    return first


def _fit(
    patch: Shape3,
    pool: Shape3,
    divided: Callable[[Shape3], tuple[float, Sequence[Shape3]] | None],
) -> BlockFit | None:
    """The same of one form."""
    fits = []
    for candidate in dict.fromkeys(_candidates(patch, pool)):
        division = divided(candidate)
        if division is None:
            continue
        trained, blocks = division
        ratios = [n / whole for n, whole in zip(candidate, patch, strict=True)]
        fits.append(
            BlockFit(candidate, trained, _places(blocks, candidate), max(ratios) / min(ratios))
        )
    for deformation, share, positions, long in _WISHES:
        good = [
            fit
            for fit in fits
            if fit.deformation <= deformation
            and fit.trained >= share
            and fit.positions >= positions
            and not (long and _is_short(fit.patch, patch))
        ]
        if good:
            return max(good, key=lambda fit: (math.prod(fit.patch), fit.trained))
    return None


def _candidates(patch: Shape3, pool: Shape3) -> Iterator[Shape3]:
    """Patches with one side shortened, and the others as little as the form allows."""
    for deformation in (DEFORMATION, 2 * DEFORMATION, math.inf):
        for axis in range(3):
            for side in range(patch[axis], 0, -1):
                share = side / patch[axis] * deformation
                limit = [max(1, min(n, math.floor(n * min(1.0, share)))) for n in patch]
                limit[axis] = side
                smaller = _divisible(three(limit), pool)
                if all(n >= min(SHORTEST, whole) for n, whole in zip(smaller, patch, strict=True)):
                    yield smaller
    # Where the volume is smaller than that, any patch is better than none.
    for side in range(min(SHORTEST, max(patch)), 0, -1):
        yield _divisible(three([min(n, side) for n in patch]), pool)


def _is_short(patch: Shape3, planned: Shape3) -> bool:
    pairs = zip(patch, planned, strict=True)
    return any(n < STILL_LONG for n, whole in pairs if whole >= LONG)


def _places(blocks: Sequence[Shape3], patch: Shape3) -> int:
    return sum(
        math.prod(max(0, b - p + 1) for b, p in zip(block, patch, strict=True)) for block in blocks
    )


def _divisible(limit: Shape3, pool: Shape3) -> Shape3:
    """The largest patch within `limit` that can be pooled, up to `pool` times, down to 4 voxels."""
    steps = [
        2 ** max(k for k in range(p + 1) if k == 0 or n >= 4 * 2**k)
        for n, p in zip(limit, pool, strict=True)
    ]
    return three([n // step * step for n, step in zip(limit, steps, strict=True)])
