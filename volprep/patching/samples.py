"""Which sample a patch index belongs to, and the checks that every strategy makes at its door."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from volprep.geometry import Shape3, whole
from volprep.patching.specs import PatchSpecs

__all__ = ["SampleTable", "TabledPatching", "check_overlaps", "check_patch", "pad_to_patch"]


class SampleTable:
    """Finds the stack and the sample of a patch index by bisection.

    Parameters
    ----------
    samples : sequence of int
        Samples of each image stack.
    counts : sequence of int
        Patches of each sample, all stacks one after the other.
    """

    def __init__(self, samples: Sequence[int], counts: Sequence[int]) -> None:
        self._first_sample = [0, *np.cumsum(samples, dtype=np.int64).tolist()]
        self._ends: list[int] = np.cumsum(counts, dtype=np.int64).tolist()
        self.n_patches = self._ends[-1] if self._ends else 0

    def find(self, index: int) -> tuple[int, int, int]:
        """Stack, sample in the stack, and number in the sample, of a patch index.

        Raises
        ------
        IndexError
            If `index` is not from 0 to `n_patches` - 1.
        TypeError
            If it is no whole number.
        """
        (index,) = whole((index,))
        if not 0 <= index < self.n_patches:
            raise IndexError(f"patch index {index} is out of range: there are {self.n_patches}")
        sample = bisect_right(self._ends, index)
        data_idx = bisect_right(self._first_sample, sample) - 1
        before = self._ends[sample - 1] if sample else 0
        return data_idx, sample - self._first_sample[data_idx], index - before

    def indices(self, data_idx: int) -> list[int]:
        """Every patch index of one stack.

        Raises
        ------
        IndexError
            If there is no such stack.
        """
        if not 0 <= data_idx < len(self._first_sample) - 1:
            count = len(self._first_sample) - 1
            raise IndexError(f"data_idx {data_idx} is out of range: there are {count} stacks")
        first, last = self._first_sample[data_idx : data_idx + 2]
        bounds = (self._ends[n - 1] if n else 0 for n in (first, last))
        return list(range(*bounds))


class TabledPatching:
    """What strategies share whose indices a `SampleTable` hands to the samples of their stacks."""

    data_shapes: Sequence[Sequence[int]]
    patch_size: Sequence[int]
    _table: SampleTable

    def _accept(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        *,
        fits: bool = True,
    ) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
        """Keep what was given, as it was given; return it as `check_patch` does."""
        self.data_shapes, self.patch_size = data_shapes, patch_size
        return check_patch(data_shapes, patch_size, fits=fits)

    @property
    def n_patches(self) -> int:
        """How many patches there are."""
        return self._table.n_patches

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """The indices of all patches that come from one image stack."""
        return self._table.indices(data_idx)

    def _specs(self, data_idx: int, sample_idx: int, coords: Sequence[int]) -> PatchSpecs:
        return {
            "data_idx": data_idx,
            "sample_idx": sample_idx,
            "coords": coords,
            "patch_size": self.patch_size,
        }


def check_patch(
    data_shapes: Sequence[Sequence[int]], patch_size: Sequence[int], *, fits: bool = True
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """The shapes and the patch as tuples of int, once they go together.

    Parameters
    ----------
    data_shapes : sequence of (sequence of int)
        Shapes of the image stacks, SC(Z)YX.
    patch_size : sequence of int
        Voxels along (Z)YX.
    fits : bool
        Whether the patch must fit into every sample.

    Raises
    ------
    ValueError, TypeError
        If lengths do not go together, a size is no whole number or below 1, or the patch
        does not fit.
    """
    patch = whole(patch_size)
    if len(patch) not in (2, 3) or min(patch) < 1:
        raise ValueError(f"patch_size {list(patch)}: wanted 2 or 3 sizes, each 1 or more")
    shapes = [whole(shape) for shape in data_shapes]
    for data_idx, shape in enumerate(shapes):
        where = f"data_shapes[{data_idx}] = {shape}"
        if len(shape) != len(patch) + 2:
            axes = "SCYX" if len(patch) == 2 else "SCZYX"
            raise ValueError(f"{where}: a patch of {patch} needs the axes {axes}")
        if min(shape) < 1:
            raise ValueError(f"{where}: every size must be 1 or more")
        if fits and any(n < p for n, p in zip(shape[2:], patch, strict=True)):
            raise ValueError(
                f"{where}: the patch {patch} is larger than the sample {shape[2:]}; "
                f"make the patch smaller or pad the sample (see pad_to_patch)"
            )
    return shapes, patch


def check_overlaps(overlaps: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """The overlaps as a tuple of int, once they go with the patch.

    Raises
    ------
    ValueError
        If there are not as many as patch sizes, or one is negative or not smaller
        than the patch.
    """
    values = whole(overlaps)
    if len(values) != len(patch_size):
        raise ValueError(f"overlaps {values}: wanted one for each axis of the patch {patch_size}")
    if any(not 0 <= o < p for o, p in zip(values, patch_size, strict=True)):
        raise ValueError(
            f"overlaps {values}: each must be 0 or more and smaller than the patch {patch_size}"
        )
    return values


def pad_to_patch(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[Shape3, Shape3]:
    """The smallest shape that holds a patch, and how much of the padding comes first.

    Parameters
    ----------
    shape, patch_size : sequence of int
        (Z, Y, X) in voxels; of a longer shape the last three axes are used.

    Returns
    -------
    padded_shape : tuple of int
        The larger of the two on each axis.
    pad_before : tuple of int
        Voxels of padding before the first voxel on each axis, half of them all. A
        patch at `start` of the padded volume begins at ``start - pad_before``.
    """
    sizes = whole(shape[-3:])
    z, y, x = (max(n, p) for n, p in zip(sizes, whole(patch_size), strict=True))
    a, b, c = ((m - n) // 2 for m, n in zip((z, y, x), sizes, strict=True))
    return (z, y, x), (a, b, c)
