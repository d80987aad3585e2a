"""Which parts of a volume are worth drawing patches from, by what the voxels look like.

A filter looks at regions of two patches a side, one for each cell of a grid of
patches: all that patches which start in the cell can show.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, VolumeLike

__all__ = [
    "MaskPatchFilter",
    "MaxPatchFilter",
    "MeanStdPatchFilter",
    "PatchFilter",
    "RegionPatching",
    "ShannonPatchFilter",
    "create_patch_filter",
    "filter_patches",
    "region_values",
    "spread_regions",
]

Patch = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Measure = Callable[[Patch], Sequence[float]]
Cell = tuple[int, ...]


class PatchFilter(Protocol):
    """Judges a region by one or more values, each of which must reach its threshold."""

    def values(self, patch: Patch) -> tuple[float, ...]:
        """What is compared with the thresholds."""
        ...

    def filter_out(self, patch: Patch) -> bool:
        """Whether a region, of any number of axes, is left out."""
        ...


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
class MaxPatchFilter:
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

    def values(self, patch: Patch) -> tuple[float]:
        """The highest threshold that the region does not exceed enough."""
        return (_covered_value(patch, self.coverage),)

    def filter_out(self, patch: Patch) -> bool:
        """Whether a region is left out."""
        wide = _maximum((patch > self.threshold).astype(np.uint8))
        return bool(np.count_nonzero(wide) < _share(patch, self.coverage))

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
        return _map(image, patch_size, lambda patch: [_covered_value(patch, coverage)])

    @staticmethod
    def apply_filter(filter_map: Floats, threshold: float) -> npt.NDArray[np.bool_]:
        """Where regions are kept: True above `threshold`."""
        return filter_map > threshold


@dataclass
class MeanStdPatchFilter:
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

    def __post_init__(self) -> None:
        if self.mean_threshold < 0 or (self.std_threshold or 0) < 0:
            raise ValueError(f"{self}: thresholds must be 0 or more")

    def values(self, patch: Patch) -> tuple[float, float]:
        """Mean and standard deviation."""
        return _mean_std(patch)

    def filter_out(self, patch: Patch) -> bool:
        """Whether a region is left out."""
        kept = self.apply_filter(
            np.array(_mean_std(patch)), self.mean_threshold, self.std_threshold
        )
        return not kept

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
        return _map(image, patch_size, _mean_std)

    @staticmethod
    def apply_filter(
        filter_map: Floats, mean_threshold: float, std_threshold: float | None = None
    ) -> npt.NDArray[np.bool_]:
        """Where regions are kept: True where both values reach their thresholds."""
        kept: npt.NDArray[np.bool_] = filter_map[0] >= mean_threshold
        return kept if std_threshold is None else kept & (filter_map[1] >= std_threshold)


@dataclass
class ShannonPatchFilter:
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

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise ValueError(f"{self}: the threshold must be 0 or more")

    def values(self, patch: Patch) -> tuple[float]:
        """The entropy in bits."""
        return (_entropy(patch),)

    def filter_out(self, patch: Patch) -> bool:
        """Whether a region is left out."""
        return _entropy(patch) < self.threshold

    @staticmethod
    def filter_map(image: Patch, patch_size: Sequence[int]) -> Floats:
        """The largest entropy of the regions around each voxel, as `MaxPatchFilter.filter_map`."""
        return _map(image, patch_size, lambda patch: [_entropy(patch)])

    @staticmethod
    def apply_filter(filter_map: Floats, threshold: float) -> npt.NDArray[np.bool_]:
        """Where regions are kept: True from `threshold` on."""
        return filter_map >= threshold


@dataclass
class MaskPatchFilter:
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

    def __post_init__(self) -> None:
        if not 0 <= self.coverage <= 1:
            raise ValueError(f"{self}: the coverage must lie from 0 to 1")

    def values(self, patch: Patch) -> tuple[float]:
        """The share of voxels that are not zero."""
        return (_covered(patch),)

    def filter_out(self, patch: Patch) -> bool:
        """Whether a region is left out."""
        return _covered(patch) < self.coverage

    @staticmethod
    def filter_map(image: Patch, patch_size: Sequence[int]) -> Floats:
        """The largest share of the regions around each voxel, as `MaxPatchFilter.filter_map`."""
        return _map(image, patch_size, lambda patch: [_covered(patch)])

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
) -> list[npt.NDArray[np.bool_]]:
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
    list of array of bool
        For each stack: the regions that are kept, one for each cell of its grid.

    Notes
    -----
    After CAREamics' `filter_background`: regions are judged once, before any patch is
    drawn, and in full resolution. Memory is that of one row of regions along x.
    """
    kept = []
    for (stack, sample), cells in patching.get_all_grid_coords().items():
        if sample:
            raise ValueError(f"stack {stack}: filters look at stacks of one sample")
        grid, volume = tuple(n + 1 for n in cells[-1]), volumes[stack]
        if volume is None:
            kept.append(np.ones(grid, bool))
            continue
        out = _look(
            volume,
            grid,
            patching.patch_size,
            lambda patch: [float(patch_filter.filter_out(patch))],
            box=None if boxes is None else boxes[stack],
            channel=ref_channel,
            progress=progress,
        )[0].astype(bool)
        probs = {cell: filtered_patch_prob for cell in cells if out[cell]}
        patching.set_region_probs(stack, sample, probs)
        kept.append(~out)
    return kept


def region_values(
    volume: VolumeLike,
    patch_size: Sequence[int],
    measure: Measure,
    *,
    box: Box | None = None,
    channel: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Floats:
    """Measure every region of a volume: the numbers to choose a filter's thresholds from.

    Parameters
    ----------
    volume : VolumeLike
    patch_size : sequence of int
        (Z, Y, X), or (Y, X) for one plane.
    measure : callable
        Of a region as (Z, Y, X), such as `PatchFilter.values`; gives a sequence of float.
    box : Box or None
        The part of the volume to look at; None is all of it.
    channel : int
    progress : callable or None
        Told how many regions were looked at.

    Returns
    -------
    array of float64
        (values, then one region for each cell along (Z)YX); as of `StratifiedPatching`
        the cells of an axis are ``(size + 1) // patch``.
    """
    shape = (box or Box.whole(volume.shape)).shape
    grid = tuple((n + 1) // p for n, p in zip(shape[-len(patch_size) :], patch_size, strict=True))
    return _look(volume, grid, patch_size, measure, box=box, channel=channel, progress=progress)


def spread_regions(
    values: Floats, patch_size: Sequence[int], at: Sequence[npt.ArrayLike]
) -> Floats:
    """Give each voxel the largest value of the regions that hold it.

    Parameters
    ----------
    values : array
        One for each cell along (Z)YX; other axes come first.
    patch_size : sequence of int
        (Z)YX.
    at : sequence of array of int
        The voxels to look at, as indices along each axis, of which the result is the grid.

    Returns
    -------
    array of float64
        The leading axes of `values`, then as long as `at` on each axis.
    """
    lead = values.ndim - len(patch_size)
    result = np.asarray(values, np.float64)
    for axis, (patch, voxels) in enumerate(zip(patch_size, at, strict=True), start=lead):
        # A voxel lies in the region of its own cell and in that of the one before.
        cell, last = np.asarray(voxels, np.int64) // patch, result.shape[axis] - 1
        before, own = np.clip(cell - 1, 0, last), np.clip(cell, 0, last)
        result = np.maximum(result.take(before, axis=axis), result.take(own, axis=axis))
    return result


def _look(
    volume: VolumeLike,
    grid: tuple[int, ...],
    patch_size: Sequence[int],
    measure: Measure,
    *,
    box: Box | None,
    channel: int,
    progress: Callable[[int], None] | None,
) -> Floats:
    """Measure the regions of a grid, reading two patches' rows and planes at a time."""
    box = box or Box.whole(volume.shape)
    flat = (1,) * (3 - len(grid))
    cells, patch = (*flat, *grid), (*flat, *patch_size)
    values: list[Sequence[float]] = []
    # Where patches are one voxel thick the grid has a cell after the last voxel: look at that.
    starts = [
        [min(cell * p, n - 1) for cell in range(count)]
        for count, p, n in zip(cells, patch, box.shape, strict=True)
    ]
    for z, y in itertools.product(*starts[:2]):
        size = (2 * patch[0], 2 * patch[1], box.shape[2])
        rows = volume.read(Box.at((z, y, 0), size).clip(box.shape).shift(box.start))[channel]
        values += [measure(rows[..., x : x + 2 * patch[2]]) for x in starts[2]]
        if progress is not None:
            progress(cells[2])
    return np.array(values, np.float64).T.reshape(-1, *grid)


@dataclass(frozen=True)
class _Image:
    """An array as a volume."""

    voxels: Patch
    spacing: None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        z, y, x = (1,) * (3 - self.voxels.ndim) + self.voxels.shape
        return 1, z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.voxels.dtype

    def read(self, box: Box | None = None) -> Patch:
        whole = self.voxels.reshape(self.shape)
        return whole if box is None else whole[(slice(None), *box.slices)]


def _map(image: Patch, patch_size: Sequence[int], measure: Measure) -> Floats:
    if len(patch_size) != image.ndim:
        raise ValueError(f"patch_size {patch_size}: the image has {image.ndim} axes")
    values = region_values(_Image(image), patch_size, measure)
    spread = spread_regions(values, patch_size, [np.arange(n) for n in image.shape])
    return spread if len(spread) > 1 else spread.reshape(image.shape)


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
