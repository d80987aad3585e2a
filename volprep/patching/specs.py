"""What a patch is called, and the one interface of every strategy that names patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypedDict, TypeGuard, TypeVar, overload, runtime_checkable

import numpy as np

__all__ = ["PatchSpecs", "Patching", "SpecSequence", "TileSpecs", "is_tile_specs"]


class PatchSpecs(TypedDict):
    """One patch in a series of image stacks.

    Attributes
    ----------
    data_idx : int
        The image stack, within the series.
    sample_idx : int
        The sample, within the stack (axis S of SC(Z)YX).
    coords : sequence of int
        The first voxel of the patch along (Z)YX.
    patch_size : sequence of int
        Voxels along (Z)YX.
    """

    data_idx: int
    sample_idx: int
    coords: Sequence[int]
    patch_size: Sequence[int]


class TileSpecs(PatchSpecs):
    """One tile, and which part of it goes where when the tiles are put together again.

    Attributes
    ----------
    crop_coords : sequence of int
        The first voxel that is kept, counted from the tile's first voxel.
    crop_size : sequence of int
        How many voxels are kept.
    stitch_coords : sequence of int
        Where the kept part begins in the image.
    total_tiles : int
        Tiles of the same `data_idx`, all samples together.
    """

    crop_coords: Sequence[int]
    crop_size: Sequence[int]
    stitch_coords: Sequence[int]
    total_tiles: int


@runtime_checkable
class Patching(Protocol):
    """Names patches by index.

    Every index belongs to one image stack, whatever is drawn. Given the same
    `rng` in the same state, `get_patch_spec` gives the same patch: with a
    generator keyed on (seed, epoch, index) a patch depends on nothing else.
    """

    @property
    def n_patches(self) -> int:
        """How many patches there are; indices run from 0 to one less."""
        ...

    def get_patch_spec(self, index: int, rng: np.random.Generator | None = None) -> PatchSpecs:
        """The patch of `index`; without `rng`, strategies that draw use their own generator."""
        ...

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """The indices of all patches that come from one image stack."""
        ...


def is_tile_specs(specs: PatchSpecs) -> TypeGuard[TileSpecs]:
    """Whether `specs` says how to stitch.

    Parameters
    ----------
    specs : PatchSpecs
        Of any strategy.

    Returns
    -------
    bool
        True where it carries the crop and the place to stitch it to.
    """
    return {"crop_coords", "crop_size", "stitch_coords"} <= specs.keys()


Specs = TypeVar("Specs", bound=PatchSpecs)


class SpecSequence(Sequence[Specs], Generic[Specs]):
    """The patches of a strategy as a read-only sequence that makes each one when it is asked for.

    Parameters
    ----------
    count : int
        Its length.
    make : callable
        The specs of an index from 0 to `count` - 1.
    """

    def __init__(self, count: int, make: Callable[[int], Specs]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Specs: ...

    @overload
    def __getitem__(self, index: slice) -> list[Specs]: ...

    def __getitem__(self, index: int | slice) -> Specs | list[Specs]:
        chosen = range(self._count)[index]
        return self._make(chosen) if isinstance(chosen, int) else [self._make(i) for i in chosen]
