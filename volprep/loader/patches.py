"""A patch set as a torch dataset, and as batches."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from volprep.errors import did_you_mean
from volprep.geometry import Shape3, three
from volprep.loader.batches import PatchLoader
from volprep.loader.dataset import Sample
from volprep.loader.order import EpochSampler
from volprep.loader.recipe import LabelDtype, Recipe, SampleTransform
from volprep.loader.voxels import BlockDataset, set_blocks
from volprep.skeletons import Skeletons
from volprep.store import PatchStore

__all__ = ["PatchDataset", "dataloader"]


class PatchDataset(BlockDataset):
    """The patches of one split of a patch set, whether it keeps them or the volumes.

    Parameters
    ----------
    path : path-like or PatchStore
        The folder that `volprep prepare` wrote, or the set in it.
    split : {'train', 'val'}
    patch_size : 'plan', None or (Z, Y, X)
        What a sample is cut to: the plan's patch size, nothing (the stored
        patch, which for training is larger, so that rotations have something to
        turn), or a size. Training patches are cut at random, others centred.
    augment : bool or callable
        True applies the augmentations that the training config lists, to whole
        stored patches, of which it cuts what it needs. A callable is called as
        ``augment(sample, generator)`` on numpy arrays; `volprep.augment.Compose`
        is one.
    normalise : bool
        Whether the image comes as the training config says (float32), or as it
        is stored (in its own dtype).
    class_index : bool or None
        Labels as 0 to K - 1 in the order of ``class_values``, and as ``ignore_index``
        where a value is none of them or the valid mask is False; otherwise the stored
        values. None does so wherever labels are classes.
    label_dtype : {'int64', 'int32', 'stored'}
        What labels come as: what torch's losses take, or narrower.
    seed : int or None
        Of cutting and transforming; the patch set's own for None.
    warm_up : int
        Samples in which augmentation comes in: of those of epoch e a share of
        min(1, e * len(dataset) / `warm_up`) is augmented. A network that has seen few patches
        cannot know them by heart; EfficientNetV2 (Tan and Le, 2021) raises its augmentation
        in steps for that reason, here it is the share that rises. Give it only where epochs are
        told: `dataloader` takes the training config's ``augment_warm_up``.

    Raises
    ------
    StoreError
        If there is no complete patch set, or no such split.
    ValueError
        If a patch size is larger than the stored patch.

    Notes
    -----
    ``dataset[index]`` is ``dataset[epoch, index]`` of the epoch given by
    `set_epoch` (0 at first). A sample depends on (seed, epoch, index) alone, so
    any number of workers, forked or spawned, gives the same samples.

    Of a set of volumes (``output.store: volumes``) each epoch draws its training places anew, as
    the plan says; the place is a function of (seed, epoch, index), too. Each block is as large
    as a stored patch would be. Validation is the same fixed tiling in both.

    Keys: ``image`` float32 (C, Z, Y, X); ``label`` int64 (Z, Y, X), ids as in the file, classes
    as 0 to K - 1; ``mask`` bool (Z, Y, X) where the cases have valid masks; ``offset``
    float32 (3, Z, Y, X) and ``skeleton_mask`` uint8 (Z, Y, X) where skeletons were asked
    for, baked anew from the points after an augmentation; ``case`` number of the case in
    `cases`; ``start`` int64 (3,), the sample's first voxel in the preprocessed case (negative
    where it is padded), of an augmented one the first that it would have had; ``pad`` int64
    (3, 2), voxels of the sample before and after the case; ``index``. Without labels there
    is no ``label``.
    """

    def __init__(
        self,
        path: str | Path | PatchStore,
        split: Literal["train", "val"] = "train",
        *,
        patch_size: Literal["plan"] | Sequence[int] | None = "plan",
        augment: bool | SampleTransform = False,
        normalise: bool = True,
        class_index: bool | None = None,
        label_dtype: LabelDtype = "int64",
        seed: int | None = None,
        warm_up: int = 0,
    ) -> None:
        super().__init__()
        self.store = path if isinstance(path, PatchStore) else PatchStore(path)
        self.training: dict[str, Any] = self.store.manifest["training"]
        self.cases: list[str] = self.store.manifest["cases"]
        self.split = split
        self.seed = self.training["seed"] if seed is None else seed
        self.warm_up = warm_up
        self.batch_size: int = self.training["batch_size"]
        self._shift = split == "train"
        self._blocks = set_blocks(self.store, split, self.seed)
        self.patch_size = self._checked_size(patch_size)
        self._recipe = Recipe(
            self.training,
            self._blocks.stored,
            self.patch_size,
            augment=augment,
            normalise=normalise,
            class_index=class_index,
            label_dtype=label_dtype,
        )
        self._skeletons: dict[int, Skeletons] = {}

    @property
    def stored_size(self) -> Shape3:
        """(Z, Y, X) of what samples are made from."""
        return self._blocks.size

    def place(self, epoch: int, index: int) -> tuple[int, Sequence[int]]:
        """The number of the case and the first voxel of what a sample is made from."""
        return self._blocks.place(epoch, index)

    def where(self, epoch: int, index: int) -> str:
        """The case and the first voxel of what a sample is made from, in words."""
        what = "patch" if self.store.kind == "patches" else "place"
        case, start = self.place(epoch, index)
        place = f"{self.cases[case]} at {list(start)}"
        return f"{self.store.path}: {self.split} {what} {index}, of {place}"

    def _points(self, case: int) -> Skeletons:
        if case not in self._skeletons:
            path = self.store.path / "skeletons" / f"{self.cases[case]}.npz"
            held_out = path.with_name("val") / path.name  # of a volume with blocks on both sides
            path = held_out if self.split == "val" and held_out.exists() else path
            found = Skeletons.from_file(path) if path.exists() else Skeletons.from_points({})
            self._skeletons[case] = found
        return self._skeletons[case]

    def _checked_size(self, size: Literal["plan"] | Sequence[int] | None) -> Shape3:
        wanted: Any = self._blocks.size if size is None else size
        if isinstance(size, str):
            if size != "plan":
                raise ValueError(f"patch_size: found {size!r}; wanted 'plan', None or (Z, Y, X)")
            wanted = self.training["patch_size"]
        try:
            checked = three(operator.index(n) for n in wanted)
        except (TypeError, ValueError):
            raise ValueError(
                f"patch_size: found {size!r}; wanted three whole numbers (Z, Y, X)"
            ) from None
        if min(checked) < 1:
            raise ValueError(f"patch_size: found {size!r}; wanted numbers of 1 or more")
        if any(w > s for w, s in zip(checked, self._blocks.size, strict=True)):
            raise ValueError(f"patch_size {checked} is larger than the stored {self._blocks.size}")
        return checked


def dataloader(
    path: str | Path,
    split: Literal["train", "val"] = "train",
    *,
    batch_size: int | None = None,
    steps: int | Literal["plan"] | None = "plan",
    shuffle: bool | None = None,
    augment: bool | SampleTransform | None = None,
    start_epoch: int = 0,
    threads: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    prefetch: int = 2,
    pin_memory: bool = False,
    device: torch.device | str | None = None,
    num_workers: int = 0,
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
    **options: Any,
) -> PatchLoader | DataLoader[Sample]:
    """Batches of a patch set, of the plan's batch size, made by threads.

    Parameters
    ----------
    path : path-like
        The folder that `volprep prepare` wrote.
    split : {'train', 'val'}
    batch_size : int or None
        The plan's for None.
    steps : int, 'plan' or None
        Batches of an epoch; ``plan`` takes the training config's for training, and one pass
        over the patches for validation, as None does for both.
    shuffle : bool or None
        None shuffles training patches only.
    augment : bool, callable or None
        As of `PatchDataset`; None applies the training config's list to training
        patches only. That list comes in over the first epochs, as ``augment_warm_up`` says.
    start_epoch : int
        Each pass over the loader is one epoch, counted from here.
    threads, rank, world_size, prefetch, pin_memory, device
        As of `PatchLoader`.
    num_workers : int
        Asks for torch's DataLoader with so many processes instead: the same samples in the
        same order, at several times the CPU time.
    multiprocessing_context
        As torch's, for processes.
    **options
        Of `PatchDataset`.

    Returns
    -------
    PatchLoader, or torch.utils.data.DataLoader
        Of batches: a dict of tensors with a leading batch axis. Those of a `PatchLoader` stay
        valid until the one after the next is asked for.
    """
    _refuse_unknown(options)
    chosen = split == "train" if augment is None else augment
    dataset = PatchDataset(path, split, augment=chosen, **options)
    shuffled = split == "train" if shuffle is None else shuffle
    size = dataset.batch_size if batch_size is None else batch_size
    if chosen is True and "warm_up" not in options:
        epochs = dataset.training.get("augment_warm_up", 0)
        dataset.warm_up = epochs * dataset.training["steps_per_epoch"] * dataset.batch_size
    if steps == "plan":
        steps = dataset.training["steps_per_epoch"] if split == "train" else None
    if num_workers:
        length = None if steps is None else steps * size
        return DataLoader(
            dataset,
            batch_size=size,
            sampler=EpochSampler(dataset, shuffled, start_epoch, length),
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=True,
            multiprocessing_context=multiprocessing_context,
        )
    return PatchLoader(
        dataset, size, threads=threads, steps=steps, shuffle=shuffled, rank=rank,
        world_size=world_size, epoch=start_epoch, prefetch=prefetch, pin_memory=pin_memory,
        device=device,
    )  # fmt: skip


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    """An option that neither the loader nor the data set has is the caller's slip of the pen."""
    known = {**signature(dataloader).parameters, **signature(PatchDataset).parameters}
    for name in options.keys() - (known.keys() - {"options"}):
        raise TypeError(f"dataloader has no option {name!r}{did_you_mean(name, known)}")
