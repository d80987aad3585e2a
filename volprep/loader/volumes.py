"""Samples straight from volumes: a new place for each of every epoch, and nothing prepared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.augment import Compose
from volprep.cutting import Block, Drawing, PadMode, PreparedCase, Site, TrainingPlaces
from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.loader.recipe import LabelDtype, Recipe, SampleTransform
from volprep.loader.voxels import PLACES, BlockDataset, PlacedBlocks, stored_arrays
from volprep.preprocess import Normalisation
from volprep.randomness import sample_generator
from volprep.skeletons import Skeletons
from volprep.targets import Target

__all__ = ["VolumeDataset"]


class VolumeDataset(BlockDataset):
    """Patches drawn from volumes that are read while training goes on.

    Parameters
    ----------
    volumes : sequence of mapping, or of `volprep.cutting.PreparedCase`
        Each with ``image`` and, as it has them, ``label`` and ``mask``: what
        `volprep.open_volume` opens, or arrays (C, Z, Y, X) or (Z, Y, X). Chunks that were
        decoded are kept in a cache that all threads share.
    patch_size : (Z, Y, X)
    length : int
        Samples of one epoch.
    drawing : Drawing
        How places are drawn: at random or by strata, around foreground, by what is annotated.
    blocks : sequence of (int, Box), optional
        The number of a volume and the region of it that may be seen; None takes all.
    weights : sequence of float, optional
        How often each volume is drawn, against the others; None goes by size.
    read_size : (Z, Y, X), optional
        What is read for one sample, so that a rotation has something to turn; None reads what
        `augment` asks for, or a patch.
    augment : callable, optional
        `volprep.augment.Compose` or a callable, as of `PatchDataset`.
    normalisation : Normalisation, optional
        None gives images as they are stored.
    targets : sequence of Target
    spacing : (Z, Y, X), optional
        Of the voxels, for targets that measure distances.
    pad_mode : {'reflect', 'edge', 'constant'}
        What lies beyond a region.
    label_dtype : {'int64', 'int32', 'stored'}
    seed : int

    Raises
    ------
    ValueError
        If there is no volume, or some have labels (masks, channels) and others do not.
    PlanError
        If no place qualifies.

    Notes
    -----
    ``dataset[epoch, index]`` depends on (seed, epoch, index) alone, so the batches of a
    `PatchLoader` do, too. Keys are those of `PatchDataset`. After PyTorch Connectomics'
    `VolumeDataset`, which loads every volume into memory and gives up after 100 rejections.
    For 2D patches (``do_2d`` there, across z alone) give `volprep.sliced` volumes, and a
    `patch_size` of (1, Y, X).
    """

    def __init__(
        self,
        volumes: Sequence[Mapping[str, Any] | PreparedCase],
        patch_size: Sequence[int],
        *,
        length: int = 1000,
        drawing: Drawing | None = None,
        blocks: Sequence[Block] | None = None,
        weights: Sequence[float] | None = None,
        read_size: Sequence[int] | None = None,
        augment: SampleTransform | None = None,
        normalisation: Normalisation | None = None,
        targets: Sequence[Target] = (),
        spacing: Sequence[float] | None = None,
        pad_mode: PadMode = "reflect",
        label_dtype: LabelDtype = "int64",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not volumes:
            raise ValueError("volumes: none given; wanted one at least")
        if length < 1:
            raise ValueError(f"length: found {length}; wanted 1 or more")
        self._cases = [_case(number, volume) for number, volume in enumerate(volumes)]
        self.cases = [case.name for case in self._cases]
        self.patch_size, self.seed = three(patch_size), seed
        size = self._checked_read_size(read_size, augment)
        stored = stored_arrays(self._cases)
        self._blocks = PlacedBlocks(
            self._cases, size, stored, count=length, site=self.site, mode=pad_mode
        )
        self._recipe = Recipe(
            _training(self.patch_size, normalisation, targets, spacing),
            stored,
            self.patch_size,
            augment=augment or False,
            normalise=normalisation is not None,
            class_index=False,
            label_dtype=label_dtype,
        )
        if self._recipe.needs_points and any(case.skeletons is None for case in self._cases):
            raise ValueError("targets: skeleton is made from points; give cases with skeletons")
        how = drawing or Drawing()
        every = [(n, Box.whole(case.image.shape)) for n, case in enumerate(self._cases)]
        self._places = TrainingPlaces(
            every if blocks is None else blocks,
            size,
            how if how.shown else dataclasses.replace(how, shown=self.patch_size),
            self._cases,
            weights=[1.0] * len(self._cases) if weights is None else weights,
            held=None,
        )

    def site(self, epoch: int, index: int) -> Site:
        """Where a sample is read: a function of the seed, the epoch and the index alone."""
        rng = sample_generator(self.seed, epoch, PLACES + index)
        return self._places.draw(int(rng.integers(len(self._places))), rng)

    def _points(self, case: int) -> Skeletons:
        return self._cases[case].skeletons or Skeletons.from_points({})

    def _checked_read_size(
        self, wanted: Sequence[int] | None, augment: SampleTransform | None
    ) -> Shape3:
        """What is read for a sample, never less than a patch."""
        if wanted is None:
            asked = augment.required_shape if isinstance(augment, Compose) else self.patch_size
        else:
            asked = three(wanted)
        return three(max(a, p) for a, p in zip(asked, self.patch_size, strict=True))


def _case(number: int, volume: Mapping[str, Any] | PreparedCase) -> PreparedCase:
    if isinstance(volume, PreparedCase):
        return volume
    strange = set(volume) - {"image", "label", "mask", "name"}
    if strange or "image" not in volume:
        raise ValueError(
            f"volumes[{number}]: found {sorted(volume)}; wanted image, and label and mask at most"
        )
    label, mask = volume.get("label"), volume.get("mask")
    case = PreparedCase(
        str(volume.get("name", number)),
        _opened(volume["image"]),
        None if label is None else _opened(label),
        None if mask is None else _opened(mask),
    )
    for name, other in (("label", case.label), ("mask", case.mask)):
        if other is not None and other.shape[1:] != case.image.shape[1:]:
            raise ValueError(
                f"volumes[{number}]: {name} is {other.shape[1:]}, image {case.image.shape[1:]}; "
                "wanted one shape (Z, Y, X)"
            )
    return case


def _opened(volume: Any) -> VolumeLike:
    if not isinstance(volume, np.ndarray):
        opened: VolumeLike = volume
        return opened
    if volume.ndim not in (3, 4):
        raise ValueError(f"an array of shape {volume.shape}; wanted (Z, Y, X) or (C, Z, Y, X)")
    return _Held(volume if volume.ndim == 4 else volume[None])


class _Held:
    """An array as a volume."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.shape: tuple[int, int, int, int] = (
            array.shape[0], array.shape[1], array.shape[2], array.shape[3]
        )  # fmt: skip
        self.dtype, self.spacing = array.dtype, None

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        """The voxels of `box`, as (C, Z, Y, X)."""
        return self._array if box is None else self._array[(slice(None), *box.slices)]


def _training(
    patch_size: Shape3,
    normalisation: Normalisation | None,
    targets: Sequence[Target],
    spacing: Sequence[float] | None,
) -> dict[str, Any]:
    """What a `Recipe` takes from a training config."""
    return {
        "patch_size": patch_size,
        "normalisation": (normalisation or Normalisation("none")).to_dict(),
        "case_normalisation": {},
        "class_values": None,
        "augment": [],
        "targets": [target.to_dict() for target in targets],
        "stored_targets": [],
        "spacing": spacing,
    }
