"""How often each voxel is seen in an epoch: computed where the odds are known, else counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from volprep.patching.random import RandomPatching
from volprep.patching.specs import PatchSpecs
from volprep.patching.stratified import SampleStrata, StratifiedPatching, sample_axes

__all__ = ["count_coverage", "expected_coverage"]


def expected_coverage(
    patching: RandomPatching | StratifiedPatching,
    data_idx: int = 0,
    sample_idx: int = 0,
    at: Sequence[npt.ArrayLike] | None = None,
) -> npt.NDArray[np.float64]:
    """How often each voxel of a sample is expected in the patches of one epoch.

    Parameters
    ----------
    patching : RandomPatching or StratifiedPatching
        With its exclusions and probabilities.
    data_idx, sample_idx : int
        The sample.
    at : sequence of array of int or None
        The voxels to look at, as indices along each of (Z)YX, of which the map is the
        grid; None looks at every voxel.

    Returns
    -------
    array of float64
        (Z)YX, or as long as `at` on each axis. Exact, not drawn.
    """
    shape = [int(n) for n in patching.data_shapes[data_idx][2:]]
    voxels = [
        np.arange(n, dtype=np.int64) if at is None else np.asarray(at[axis], np.int64)
        for axis, n in enumerate(shape)
    ]
    if isinstance(patching, StratifiedPatching):
        return patching.image_patching[data_idx][sample_idx].coverage(voxels)
    # Even chances for every start are those of strata without exclusions or probabilities.
    strata = SampleStrata(sample_axes(shape, patching.patch_size, uniform=False), uniform=False)
    per_sample = len(patching.get_patch_indices(data_idx)) / int(patching.data_shapes[data_idx][0])
    return strata.coverage(voxels) * (per_sample / strata.n_patches)


def count_coverage(
    specs: Iterable[PatchSpecs],
    shape: Sequence[int],
    *,
    data_idx: int = 0,
    sample_idx: int = 0,
    step: int = 1,
) -> npt.NDArray[np.int64]:
    """Count the patches that show each voxel of a sample, such as those drawn in some epochs.

    Parameters
    ----------
    specs : iterable of PatchSpecs
        Of any strategy; those of other samples are left out.
    shape : sequence of int
        Of the sample, (Z)YX.
    data_idx, sample_idx : int
        The sample.
    step : int
        Look at every `step`-th voxel along each axis only.

    Returns
    -------
    array of int64
        Number of patches at each voxel looked at, ``ceil(shape / step)``.

    Notes
    -----
    A patch is added as the signs at its corners and all are summed up at the end, so
    the work does not depend on the size of the patches. `patching.n_patches` draws
    with a generator each are one epoch.
    """
    size = [-(-int(n) // step) for n in shape]
    counts = np.zeros([n + 1 for n in size], np.int64)
    corners = np.indices((2,) * len(size)).reshape(len(size), -1)
    signs = np.where(corners.sum(axis=0) % 2, -1, 1)
    limit = np.array(size)[:, None]
    for spec in specs:
        if (spec["data_idx"], spec["sample_idx"]) != (data_idx, sample_idx):
            continue
        start = np.array(spec["coords"])[:, None]
        ends = start + corners * np.array(spec["patch_size"])[:, None]
        np.add.at(counts, tuple(np.clip(-(-ends // step), 0, limit)), signs)
    for axis in range(len(size)):
        np.cumsum(counts, axis=axis, out=counts)
    inner: npt.NDArray[np.int64] = counts[tuple(slice(0, n) for n in size)]
    return inner
