"""Which drawn patches are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Rejection"]


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
    valid_ratio : float or None
        With a valid mask, a patch is kept only if more than this share of it is valid; None
        leaves the choice to `find_places`, which knows the mask, and is a half until then.

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
    valid_ratio: float | None = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.p <= 1 and 0 <= (self.valid_ratio or 0) <= 1):
            raise ValueError(f"{self}: p and valid_ratio must lie from 0 to 1")

    @property
    def reads_labels(self) -> bool:
        """Whether labels matter at all."""
        return self.p > 0 and (self.size_thres > 0 or self.diversity > 0)

    def with_ratio(self, valid_ratio: float) -> Rejection:
        """The same with another valid ratio."""
        return replace(self, valid_ratio=valid_ratio)

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
        if valid is not None and not self.is_annotated(valid):
            return False
        if label is None:
            return True
        if not self.is_full(label) and rng.random() < self.p:
            return False
        return self.is_diverse(label) or rng.random() >= self.p

    def is_annotated(self, valid: npt.NDArray[Any]) -> bool:
        """Whether more than the wanted share of a valid mask is non-zero."""
        ratio = 0.5 if self.valid_ratio is None else self.valid_ratio
        return int(np.count_nonzero(valid)) > ratio * valid.size

    def is_full(self, label: npt.NDArray[Any]) -> bool:
        """Whether a patch holds enough foreground."""
        return self.size_thres <= 0 or int(np.count_nonzero(label)) >= self.size_thres

    def is_diverse(self, label: npt.NDArray[Any]) -> bool:
        """Whether a patch holds enough distinct ids."""
        return self.diversity <= 0 or len(np.unique(label)) >= self.diversity
