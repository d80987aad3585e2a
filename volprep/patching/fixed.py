"""Patches from a list, and whole samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volprep.geometry import whole
from volprep.patching.samples import SampleTable, TabledPatching
from volprep.patching.specs import PatchSpecs

__all__ = ["FixedPatching", "WholeSamplePatching"]


class FixedPatching:
    """Gives the patches of a list, in its order.

    Parameters
    ----------
    fixed_patch_specs : sequence of PatchSpecs
        The list, such as a split's validation patches.
    """

    def __init__(self, fixed_patch_specs: Sequence[PatchSpecs]) -> None:
        self.fixed_patch_specs = fixed_patch_specs

    @property
    def n_patches(self) -> int:
        """How many patches there are."""
        return len(self.fixed_patch_specs)

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """The patch of `index`; `rng` is not used.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        if not 0 <= index < self.n_patches:
            raise IndexError(f"patch index {index} is out of range: there are {self.n_patches}")
        return self.fixed_patch_specs[index]

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """The indices of all patches that come from one image stack."""
        return [i for i, s in enumerate(self.fixed_patch_specs) if s["data_idx"] == data_idx]


class WholeSamplePatching(TabledPatching):
    """Gives each sample as one patch.

    Parameters
    ----------
    data_shapes : sequence of (sequence of int)
        Shapes of the image stacks, SC(Z)YX.

    Raises
    ------
    ValueError
        If a shape has not four or five sizes of 1 or more.
    """

    def __init__(self, data_shapes: Sequence[Sequence[int]]) -> None:
        self.data_shapes = data_shapes
        self._shapes = [whole(shape) for shape in data_shapes]
        for data_idx, shape in enumerate(self._shapes):
            if len(shape) not in (4, 5) or min(shape) < 1:
                raise ValueError(
                    f"data_shapes[{data_idx}] = {shape}: wanted SC(Z)YX, every size 1 or more"
                )
        samples = [shape[0] for shape in self._shapes]
        self._table = SampleTable(samples, [1] * sum(samples))

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """The whole sample of `index`; `rng` is not used.

        Raises
        ------
        IndexError
            If `index` is out of range.
        """
        data_idx, sample_idx, _ = self._table.find(index)
        size = self._shapes[data_idx][2:]
        return {
            "data_idx": data_idx,
            "sample_idx": sample_idx,
            "coords": (0,) * len(size),
            "patch_size": size,
        }
