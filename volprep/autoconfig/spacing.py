"""The spacing that volumes are brought to, and the shapes they then have."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from volprep.errors import PlanError
from volprep.geometry import Spacing3
from volprep.preprocess import resampled_shape

__all__ = ["SpacingRule", "choose_target_spacing", "resampled_shape"]

SpacingRule = Literal["none", "median", "finest"]


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
