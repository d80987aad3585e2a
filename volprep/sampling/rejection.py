"""Which drawn patches are kept, and drawing until one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from volprep.errors import PlanError

__all__ = ["Rejection", "draw_accepted"]

Patch = TypeVar("Patch")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Throws back patches with too little in them.

    Attributes
    ----------
    size_thres : int
        A patch with fewer foreground voxels is thrown back with probability `p`;
        0 and less is off.
    diversity : int
        A patch with fewer distinct ids, the background counted, is thrown back with
        probability `p`; 0 and less is off.
    p : float
        From 0 to 1.
    valid_ratio : float
        With a valid mask, a patch is kept only if more than this share of it is valid.

    Raises
    ------
    ValueError
        If `p` or `valid_ratio` is not from 0 to 1.

    Notes
    -----
    After PyTorch Connectomics' rejection sampling and valid masks. Differs: labels
    are not copied or cast, and chance comes from the argument.
    """

    size_thres: int = -1
    diversity: int = -1
    p: float = 0.95
    valid_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.p <= 1 and 0 <= self.valid_ratio <= 1):
            raise ValueError(f"{self}: p and valid_ratio must lie from 0 to 1")

    @property
    def reads_labels(self) -> bool:
        """Whether labels matter at all."""
        return self.p > 0 and (self.size_thres > 0 or self.diversity > 0)

    def accepts(
        self,
        label: npt.NDArray[Any] | None,
        rng: np.random.Generator,
        valid: npt.NDArray[Any] | None = None,
    ) -> bool:
        """Whether a patch is kept.

        Parameters
        ----------
        label : array or None
            Of the patch, any shape; None has no say.
        rng : numpy.random.Generator
        valid : array or None
            The valid mask of the patch: non-zero voxels are valid.
        """
        if valid is not None and np.count_nonzero(valid) <= self.valid_ratio * valid.size:
            return False
        if label is None:
            return True
        sparse = self.size_thres > 0 and np.count_nonzero(label) < self.size_thres
        if sparse and rng.random() < self.p:
            return False
        plain = self.diversity > 0 and len(np.unique(label)) < self.diversity
        return not (plain and rng.random() < self.p)


def draw_accepted(
    draw: Callable[[], Patch],
    accepts: Callable[[Patch], bool],
    *,
    where: object,
    max_draws: int = 100,
) -> Patch:
    """Draw until something is accepted.

    Parameters
    ----------
    draw : callable
        Gives another candidate each time.
    accepts : callable
        Whether a candidate is kept.
    where : object
        What is drawn from, for the message.
    max_draws : int
        Draws at the most.

    Returns
    -------
    object
        The first candidate that is accepted.

    Raises
    ------
    PlanError
        If none of `max_draws` candidates is.
    """
    for _ in range(max_draws):
        candidate = draw()
        if accepts(candidate):
            return candidate
    raise PlanError(
        f"{where}: none of {max_draws} patches drawn was accepted; lower patching.reject "
        f"(size_thres, diversity, valid_ratio) or raise patching.foreground.p"
    )
