"""Which regions are worth drawing patches from, by what their voxels look like."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, VolumeLike
from volprep.sampling.regions import Floats, Patch, image_map, region_values

__all__ = [
    "FilteredRegions",
    "MaskPatchFilter",
    "MaxPatchFilter",
    "MeanStdPatchFilter",
    "PatchFilter",
    "RegionPatching",
    "ShannonPatchFilter",
    "create_patch_filter",
    "filter_patches",
]

Cell = tuple[int, ...]


class PatchFilter(ABC):
    """Judges a region, of any number of axes, by one or more values.

    Attributes
    ----------
    names : tuple of str
        What each value is.
    thresholds : tuple of (float or None)
        What each value must reach; None is no matter.
    """

    names: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def thresholds(self) -> tuple[float | None, ...]: ...

    @abstractmethod
    def values(self, patch: Patch) -> tuple[float, ...]:
        """What is compared with the thresholds."""

    @abstractmethod
    def keeps(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Where regions of these values, along the first axis, are kept."""

    def filter_out(self, patch: Patch) -> bool:
        """Whether a region is left out."""
        return not self.keeps(np.array(self.values(patch)))


@dataclass(frozen=True)
class FilteredRegions:
    """What a filter made of the regions of one stack.

    Attributes
    ----------
    kept : array of bool
        One for each cell of the grid.
    values : array of float64
        By the filter's names, then the grid; no names where nothing was looked at.
    """

    kept: npt.NDArray[np.bool_]
    values: Floats


class RegionPatching(Protocol):
    """What `filter_patches` asks of a strategy; `StratifiedPatching` is one."""

    @property
    def patch_size(self) -> Sequence[int]:
        """(Z)YX."""
        ...

    def get_all_grid_coords(self) -> Mapping[tuple[int, int], Sequence[Cell]]:
        """Cells by (data_idx, sample_idx)."""
        ...

    def set_region_probs(self, data_idx: int, sample_idx: int, probs: Mapping[Cell, float]) -> None:
        """Make patches that start in these cells rarer."""
        ...


@dataclass
class MaxPatchFilter(PatchFilter):
    """Leaves out regions in which too little is near a bright voxel.

    Parameters
    ----------
    threshold : float
        What is brighter is bright.
    coverage : float or None
        The share of the region, from 0 to 1, that must lie within a quarter of its
        side of a bright voxel; None is a half to the power of its dimensions.

    Notes
    -----
    After CAREamics' `MaxPatchFilter` (and CSBDeep): a maximum filter as wide as half
    the region. Differs: the default coverage is an eighth in 3D, where CAREamics'
    class has a quarter and its map an eighth.
    """

    threshold: float
    coverage: float | None = None
    names: ClassVar[tuple[str, ...]] = ("brightness that enough is near to",)

    @property
    def thresholds(self) -> tuple[float]:
        """The one that is given."""
        return (self.threshold,)

    def values(self, patch: Patch) -> tuple[float]:
        """The highest threshold that the region does not exceed enough."""
        return (_covered_value(patch, self.coverage),)

    def keeps(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Above the threshold."""
        return self.apply_filter(values[0], self.threshold)

    @staticmethod
    def filter_map(
        image: Patch, patch_size: Sequence[int], coverage: float | None = None
    ) -> Floats:
        """At each voxel the threshold below which a region that holds it is kept.

        Parameters
        ----------
        image : array
            (Z)YX.
        patch_size : sequence of int
            As many as `image` has axes.
        coverage : float or None
            As for the class.
        """
        return image_map(image, patch_size, lambda patch: [_covered_value(patch, coverage)])

    @staticmethod
    def apply_filter(filter_map: Floats, threshold: float) -> npt.NDArray[np.bool_]:
        """Where regions are kept: True above `threshold`."""
        return filter_map > threshold


@dataclass
class MeanStdPatchFilter(PatchFilter):
    """Leaves out regions that are too dark or too flat.

    Parameters
    ----------
    mean_threshold : float
        The least mean, 0 or more.
    std_threshold : float or None
        The least standard deviation, 0 or more; None asks for none.

    Raises
    ------
    ValueError
        If a threshold is negative.

    Notes
    -----
    After CAREamics' `MeanStdPatchFilter`: either is enough to leave a region out
    (its documentation says both).
    """

    mean_threshold: float
    std_threshold: float | None = None
    names: ClassVar[tuple[str, ...]] = ("mean", "standard deviation")

    def __post_init__(self) -> None:
        if self.mean_threshold < 0 or (self.std_threshold or 0) < 0:
            raise ValueError(f"{self}: thresholds must be 0 or more")

    @property
    def thresholds(self) -> tuple[float, float | None]:
        """Those that are given."""
        return self.mean_threshold, self.std_threshold

    def values(self, patch: Patch) -> tuple[float, float]:
        """Mean and standard deviation."""
        return _mean_std(patch)

    def keeps(self, values: Floats) -> npt.NDArray[np.bool_]:
        """Where both reach their thresholds."""
        return self.apply_filter(values, self.mean_threshold, self.std_threshold)

    @staticmethod
    def filter_map(image: Patch, patch_size: Sequence[int]) -> Floats:
        """The largest mean and the largest deviation of the regions around each voxel.

        Parameters
        ----------
        image : array
            (Z)YX.
        patch_size : sequence of int
            As many as `image` has axes.

        Returns
        -------
        array
            (2, (Z)YX).
        """
        return image_map(image, patch_size, _mean_std)

    @staticmethod
    def apply_filter(
        filter_map: Floats, mean_threshold: float, std_threshold: float | None = None
    ) -> npt.NDArray[np.bool_]:
        """Where regions are kept: True where both values reach their thresholds."""
        kept: npt.NDArray[np.bool_] = filter_map[0] >= mean_threshold
        return kept if std_threshold is None else kept & (filter_map[1] >= std_threshold)


@dataclass
class ShannonPatchFilter(PatchFilter):
    """Leaves out regions whose grey values say too little.

    Parameters
    ----------
    threshold : float
        The least entropy of the grey values in bits, 0 or more.

    Raises
    ------
    ValueError
        If the threshold is negative.

    Notes
    -----
    After CAREamics' `ShannonPatchFilter`; every distinct value counts, so it is for
    images of integers.
    """

    threshold: float
    names: ClassVar[tuple[str, ...]] = ("entropy in bits",)

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise ValueError(f"{self}: the threshold must be 0 or more")

    @property
    def thresholds(self) -> tuple[float]:
        """The one that is given."""
        return (self.threshold,)

    def values(self, patch: Patch) -> tuple[float]:
        """The entropy in bits."""
        return (_entropy(patch),)

    def keeps(self, values: Floats) -> npt.NDArray[np.bool_]:
        """From the threshold on."""
        return self.apply_filter(values[0], self.threshold)

    @staticmethod
    def filter_map(image: Patch, patch_size: Sequence[int]) -> Floats:
        """The largest entropy of the regions around each voxel, as `MaxPatchFilter.filter_map`."""
        return image_map(image, patch_size, lambda patch: [_entropy(patch)])

    @staticmethod
    def apply_filter(filter_map: Floats, threshold: float) -> npt.NDArray[np.bool_]:
        """Where regions are kept: True from `threshold` on."""
        return filter_map >= threshold


@dataclass
class MaskPatchFilter(PatchFilter):
    """Leaves out regions with too little of a mask in them.

    Parameters
    ----------
    coverage : float
        The least share of the region, from 0 to 1, that must not be zero.

    Raises
    ------
    ValueError
        If the coverage is not from 0 to 1.
    """

    coverage: float
    names: ClassVar[tuple[str, ...]] = ("share of the mask",)

    def __post_init__(self) -> None:
        if not 0 <= self.coverage <= 1:
            raise ValueError(f"{self}: the coverage must lie from 0 to 1")

    @property
    def thresholds(self) -> tuple[float]:
        """The coverage."""
        return (self.coverage,)

    def values(self, patch: Patch) -> tuple[float]:
        """The share of voxels that are not zero."""
        return (_covered(patch),)

    def keeps(self, values: Floats) -> npt.NDArray[np.bool_]:
        """From the coverage on."""
        return self.apply_filter(values[0], self.coverage)

    @staticmethod
    def filter_map(image: Patch, patch_size: Sequence[int]) -> Floats:
        """The largest share of the regions around each voxel, as `MaxPatchFilter.filter_map`."""
        return image_map(image, patch_size, lambda patch: [_covered(patch)])

    @staticmethod
    def apply_filter(filter_map: Floats, threshold: float) -> npt.NDArray[np.bool_]:
        """Where regions are kept: True from `threshold` on."""
        return filter_map >= threshold


_FILTERS: dict[str, Callable[..., PatchFilter]] = {
    "max": MaxPatchFilter,
    "mean_std": MeanStdPatchFilter,
    "shannon": ShannonPatchFilter,
    "mask": MaskPatchFilter,
}


def create_patch_filter(name: str, **parameters: float | None) -> PatchFilter:
    """Make a filter by its name.

    Parameters
    ----------
    name : {'max', 'mean_std', 'shannon', 'mask'}
    **parameters : float or None
        Of that filter.

    Raises
    ------
    ValueError
        If there is no such filter, or the parameters are not its own.
    """
    if name not in _FILTERS:
        raise ValueError(f"patch filter {name!r}: wanted one of {', '.join(_FILTERS)}")
    try:
        return _FILTERS[name](**parameters)
    except TypeError as error:
        raise ValueError(f"patch filter {name}: {error}") from None


def filter_patches(
    patching: RegionPatching,
    volumes: Sequence[VolumeLike | None],
    patch_filter: PatchFilter,
    *,
    boxes: Sequence[Box] | None = None,
    ref_channel: int = 0,
    filtered_patch_prob: float = 0.1,
    progress: Callable[[int], None] | None = None,
) -> list[FilteredRegions]:
    """Make patches rarer where a filter leaves the region out.

    Parameters
    ----------
    patching : StratifiedPatching or alike
        Changed: gets the probabilities. Of one sample a stack.
    volumes : sequence of (VolumeLike or None)
        What the filter looks at (images, or masks), one for each stack; all of a stack
        without one is kept.
    patch_filter : PatchFilter
    boxes : sequence of Box or None
        The part of each volume that the stack is; None is all of each.
    ref_channel : int
        The channel that the filter looks at.
    filtered_patch_prob : float
        The share of patches, from 0 to 1, that stays where regions are left out.
    progress : callable or None
        Told how many regions were looked at.

    Returns
    -------
    list of FilteredRegions
        One for each stack.

    Notes
    -----
    After CAREamics' `filter_background`: regions are judged once, before any patch is
    drawn, and in full resolution. Memory is that of one row of regions along x.
    """
    found = []
    for (stack, sample), cells in patching.get_all_grid_coords().items():
        if sample:
            raise ValueError(f"stack {stack}: filters look at stacks of one sample")
        grid, volume = tuple(n + 1 for n in cells[-1]), volumes[stack]
        if volume is None:
            found.append(FilteredRegions(np.ones(grid, bool), np.empty((0, *grid))))
            continue
        values = region_values(
            volume,
            patching.patch_size,
            patch_filter.values,
            grid=grid,
            box=None if boxes is None else boxes[stack],
            channel=ref_channel,
            progress=progress,
        )
        kept = patch_filter.keeps(values)
        probs = {cell: filtered_patch_prob for cell in cells if not kept[cell]}
        patching.set_region_probs(stack, sample, probs)
        found.append(FilteredRegions(kept, values))
    return found


def _maximum(patch: Patch) -> Patch:
    """The maximum filter that is half as wide as the patch, nothing being beyond the border."""
    from scipy.ndimage import maximum_filter

    wide: Patch = maximum_filter(patch, [max(1, n // 2) for n in patch.shape], mode="constant")
    return wide


def _share(patch: Patch, coverage: float | None) -> int:
    """How many voxels a coverage is, one at the least."""
    if coverage is None:
        coverage = 0.5 ** sum(n > 1 for n in patch.shape)
    return max(1, math.ceil(coverage * patch.size - 1e-9))


def _covered_value(patch: Patch, coverage: float | None) -> float:
    wide = _maximum(patch).ravel()
    place = wide.size - _share(patch, coverage)
    return float(np.partition(wide, place)[place])


def _mean_std(patch: Patch) -> tuple[float, float]:
    return float(patch.mean(dtype=np.float64)), float(patch.std(dtype=np.float64))


def _entropy(patch: Patch) -> float:
    counts = np.unique(patch, return_counts=True)[1]
    share = counts / patch.size
    return max(0.0, float(-(share * np.log2(share)).sum()))


def _covered(patch: Patch) -> float:
    return np.count_nonzero(patch) / patch.size
