"""The spacing that volumes are brought to, and the shapes they then have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal, NamedTuple

from volprep.errors import PlanError
from volprep.geometry import Shape3, Spacing3
from volprep.preprocess import resampled_shape

__all__ = [
    "ResampledCase",
    "SpacingRule",
    "choose_target_spacing",
    "resampled_cases",
    "resampled_shape",
]

SpacingRule = Literal["none", "median", "finest"]

#: More voxels than this many times those of the file are no resampling that anyone wants.
MOST_GROWTH = 64


def choose_target_spacing(
    spacings: Sequence[Spacing3 | None], rule: SpacingRule | Sequence[float]
) -> Spacing3 | None:
    """The spacing that all volumes shall have.

    Parameters
    ----------
    spacings : sequence of (float, float, float) or None
        Of each volume, (Z, Y, X) in micrometres; None where unknown.
    rule : {'none', 'median', 'finest'} or (float, float, float)
        ``median`` and ``finest`` go axis by axis; three numbers are taken as they are.

    Returns
    -------
    tuple of float or None
        None for ``none``: nothing is resampled.

    Raises
    ------
    PlanError
        If a volume has no spacing and the rule asks for resampling.
    """
    if rule == "none":
        return None
    unknown = sum(s is None for s in spacings)
    if unknown or not spacings:
        raise PlanError(
            f"target_spacing {rule}: {unknown} of {len(spacings)} volumes carry no spacing; "
            "state theirs in the config, or set target_spacing to none"
        )
    if not isinstance(rule, str):
        z, y, x = (float(s) for s in rule)
        return z, y, x
    if rule not in ("median", "finest"):
        raise PlanError(f"target_spacing {rule!r}: not known; give none, median, finest or (z,y,x)")
    choose = median if rule == "median" else min
    z, y, x = (float(choose(axis)) for axis in zip(*(s for s in spacings if s), strict=True))
    return z, y, x


class ResampledCase(NamedTuple):
    """A case before and after resampling.

    Attributes
    ----------
    name : str
    shape : (C, Z, Y, X)
        Of the file.
    spacing : (Z, Y, X) in micrometres
        Of the file.
    itemsize : int
        Bytes of a voxel of one channel of the image.
    label_itemsize : int
        And of the labels; 0 where there are none.
    """

    name: str
    shape: tuple[int, int, int, int]
    spacing: Spacing3
    itemsize: int
    label_itemsize: int = 0

    def resampled(self, target: Spacing3) -> tuple[str, Shape3, int]:
        """The name, the new (Z, Y, X), and the bytes of image and labels."""
        shape = resampled_shape(self.shape, self.spacing, target)
        voxel = self.shape[0] * self.itemsize + self.label_itemsize
        return self.name, shape, math.prod(shape) * voxel


def resampled_cases(
    cases: Sequence[ResampledCase], target: Spacing3, *, room: int | None = None
) -> tuple[tuple[str, Shape3, int], ...]:
    """The shape and the bytes of every case once it is resampled, before any work is done.

    Parameters
    ----------
    cases : sequence of ResampledCase
    target : (Z, Y, X) in micrometres
    room : int or None
        Free bytes of the disk that takes them all; None does not ask.

    Returns
    -------
    tuple of (str, (int, int, int), int)
        For each case: name, (Z, Y, X), bytes of image and labels.

    Raises
    ------
    PlanError
        If a case would become one voxel along an axis that has several, or have more than
        64 times its voxels, or if all of them do not fit into `room`: mostly a spacing in
        nanometres where micrometres are meant.
    """
    results = tuple(case.resampled(target) for case in cases)
    for case, (name, shape, _) in zip(cases, results, strict=True):
        before = case.shape[1:]
        what = (
            f"{name}: {_times(before)} voxels of {_um(case.spacing)} would become {_times(shape)}"
        )
        if any(n > 1 and m == 1 for n, m in zip(before, shape, strict=True)):
            raise PlanError(_absurd(target, f"{what}, a single voxel along an axis"))
        growth = math.prod(shape) // math.prod(before)  # of whole numbers, which have no end
        if math.prod(shape) > MOST_GROWTH * math.prod(before):
            raise PlanError(_absurd(target, f"{what}, {growth} times as many"))
    total = sum(size for _, _, size in results)
    if room is not None and total > room:
        what = (
            f"the {len(cases)} resampled volumes may take {total} bytes "
            f"({total / 2**30:.1f} GiB), and the disk has {room} for them"
        )
        raise PlanError(_absurd(target, what) + ", or free some space")
    return results


def _absurd(target: Spacing3, what: str) -> str:
    return (
        f"target_spacing {_um(target)}: {what}; nm or µm? "
        "Give it and the spacing of the files in one unit, such as '50, 4, 4 nm'"
    )


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _um(spacing: Sequence[float]) -> str:
    return " x ".join(f"{s:g}" for s in spacing) + " µm"
