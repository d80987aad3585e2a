"""A patch set as a torch dataset: read, normalise, cut or augment; nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from volprep.augment import compose_from_config
from volprep.errors import StoreError
from volprep.preprocess import Normalisation
from volprep.randomness import sample_generator
from volprep.skeletons import Skeletons, SkeletonTargets
from volprep.store import PatchStore

__all__ = ["PatchDataset", "dataloader"]

Sample = dict[str, Any]
SampleTransform = Callable[[Sample, np.random.Generator], Sample]


class PatchDataset(Dataset[Sample]):
    """The patches of one split of a patch set.

    Parameters
    ----------
    path : path-like
        The folder that `volprep prepare` wrote.
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
    seed : int or None
        Of cutting and transforming; the patch set's own for None.

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
    any number of workers, forked or spawned, gives the same samples. Keys:

    ``image`` float32 (C, Z, Y, X); ``label`` int64 (Z, Y, X), ids as in the file, classes
    as 0 to K - 1;
    ``mask`` bool (Z, Y, X) where the cases have valid masks; ``offset`` float32
    (3, Z, Y, X) and ``skeleton_mask`` uint8 (Z, Y, X) where skeletons were asked for,
    baked anew from the points after an augmentation; ``case`` number of the
    case in `cases`; ``start`` int64 (3,), the sample's first voxel in the
    preprocessed case (negative where it is padded); ``pad`` int64 (3, 2), voxels of
    the sample before and after the case; ``index``. Without labels there is no ``label``.
    """

    def __init__(
        self,
        path: str | Path,
        split: Literal["train", "val"] = "train",
        *,
        patch_size: Literal["plan"] | Sequence[int] | None = "plan",
        augment: bool | SampleTransform = False,
        normalise: bool = True,
        class_index: bool | None = None,
        seed: int | None = None,
    ) -> None:
        self.store = PatchStore(path)
        self.training: Mapping[str, Any] = self.store.manifest["training"]
        self.cases: list[str] = self.store.manifest["cases"]
        self.split = split
        self.normalise = normalise
        self.epoch = 0
        self.seed = self.training["seed"] if seed is None else seed
        self.batch_size: int = self.training["batch_size"]
        self._reader = self.store.split(split)
        self.patch_size = self._checked_size(patch_size)
        self._common = Normalisation.from_dict(self.training["normalisation"])
        self._of_case = {
            name: Normalisation.from_dict(values)
            for name, values in self.training["case_normalisation"].items()
        }
        self._classes = self._class_values(class_index)
        self._augment = self._compose() if augment is True else augment or None
        baked = self.training["skeletons"]
        self._targets = None if baked is None else SkeletonTargets.from_dict(baked)
        self._skeletons: dict[int, Skeletons] = {}

    def __len__(self) -> int:
        return len(self._reader)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that plain integer indices mean."""
        self.epoch = epoch

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        epoch, number = (self.epoch, index) if isinstance(index, int) else index
        if number < 0:
            number += len(self)
        rng = sample_generator(self.seed, epoch, number)
        sample = self._read(number)
        if self._augment is not None:
            sample |= self._augmented(sample, rng)
        sample = self._cut(sample, rng)
        return {name: _tensor(value) for name, value in sample.items()}

    def _read(self, number: int) -> Sample:
        baked = SkeletonTargets.NAMES if self._augment is not None else ()
        names = [name for name in self._reader.names if name not in baked]
        arrays = {name: self._reader.read(name, number) for name in names}
        row = self._reader.index[number]
        if self.normalise:
            rule = self._of_case.get(self.cases[int(row[0])], self._common)
            arrays["image"] = rule.apply(arrays["image"])
        if "label" in arrays:
            arrays["label"] = self._integers(arrays["label"], number)
            if self._classes is not None and "mask" in arrays:
                arrays["label"][~arrays["mask"]] = self.training["ignore_index"]
        return {
            **arrays,
            "case": int(row[0]),
            "start": row[1:4].copy(),
            "pad": np.stack([row[4:7], row[7:10]], axis=1),
            "index": number,
        }

    def _augmented(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The arrays augmented; skeletons move as points and are baked last."""
        arrays: Sample = {n: sample[n] for n in ("image", "label", "mask") if n in sample}
        if self._augment is None:
            return arrays
        if self._targets is None:
            return self._augment(arrays, rng)
        points = self._points(sample["case"]).only(np.unique(arrays["label"]))
        points = points.shift(-sample["start"])
        moved = self._augment({**arrays, "skeletons": points}, rng)
        skeletons = moved.pop("skeletons")
        return {**moved, **self._targets.bake(moved["label"], skeletons)}

    def _points(self, case: int) -> Skeletons:
        if case not in self._skeletons:
            path = self.store.path / "skeletons" / f"{self.cases[case]}.npz"
            found = Skeletons.from_file(path) if path.exists() else Skeletons.from_points({})
            self._skeletons[case] = found
        return self._skeletons[case]

    def _compose(self) -> SampleTransform | None:
        """The augmentations of the training config; None where it lists none."""
        if not self.training["augment"]:
            return None
        size = self.patch_size or self._reader.spec("image").patch_shape[1:]
        targets: dict[str, Literal["img", "mask", "points"]] = {
            name: "mask" for name in self._reader.names if name in ("label", "mask")
        }
        if self.training["skeletons"] is not None:
            targets["skeletons"] = "points"
        return compose_from_config(
            self.training["augment"],
            size,
            targets,
            spacing=self.training["spacing"],
            value_range=self._value_range(),
        )

    def _value_range(self) -> list[tuple[float, float]] | None:
        """What the clip bounds become, so that amounts mean the same in every patch."""
        rule = self._common
        if not self.normalise or self._of_case or rule.clip is None or not rule.scale:
            return None
        bounds = np.array(rule.clip, np.float64)
        scaled = (bounds - np.array(rule.offset)[:, None]) / np.array(rule.scale)[:, None]
        return [(float(low), float(high)) for low, high in scaled]

    def _integers(self, label: npt.NDArray[Any], number: int) -> npt.NDArray[np.int64]:
        if label.dtype == np.uint64 and label.size and label.max() > np.iinfo(np.int64).max:
            raise StoreError(
                f"{self.store.path}: patch {number}: label id {label.max()} does not fit torch's "
                "int64; relabel the volumes below 2**63"
            )
        wide = label.astype(np.int64)
        if self._classes is None:
            return wide
        place = np.minimum(np.searchsorted(self._classes, wide), len(self._classes) - 1)
        ignored = self.training["ignore_index"]
        return np.where(self._classes[place] == wide, place, ignored)

    def _cut(self, sample: Sample, rng: np.random.Generator) -> Sample:
        shape = sample["image"].shape[1:]
        if self.patch_size is None or shape == self.patch_size:
            return sample
        room = [n - p for n, p in zip(shape, self.patch_size, strict=True)]
        if self.split == "train":
            offset = [int(rng.integers(r + 1)) for r in room]
        else:
            offset = [r // 2 for r in room]
        where = tuple(slice(o, o + p) for o, p in zip(offset, self.patch_size, strict=True))
        cut = {
            name: value[(..., *where)] if name in self._reader.names else value
            for name, value in sample.items()
        }
        after = [n - p - o for n, p, o in zip(shape, self.patch_size, offset, strict=True)]
        removed = np.stack([offset, after], axis=1)
        cut["start"] = sample["start"] + offset
        cut["pad"] = np.maximum(sample["pad"] - removed, 0)
        return cut

    def _checked_size(
        self, size: Literal["plan"] | Sequence[int] | None
    ) -> tuple[int, int, int] | None:
        if size is None:
            return None
        wanted = self.training["patch_size"] if isinstance(size, str) else size
        z, y, x = (int(n) for n in wanted)
        stored = self._reader.spec("image").patch_shape[1:]
        if any(w > s for w, s in zip((z, y, x), stored, strict=True)):
            raise ValueError(f"patch_size {(z, y, x)} is larger than the stored {stored}")
        return z, y, x

    def _class_values(self, wanted: bool | None) -> npt.NDArray[np.int64] | None:
        """The label value of each class, ascending; None where stored values are wanted."""
        values = self.training["class_values"]
        if values is None and wanted:
            raise ValueError("class_index needs labels that are classes; these are instances")
        return None if values is None or wanted is False else np.array(values, np.int64)


class _EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs, shuffled anew in each epoch, the same for any workers."""

    def __init__(self, dataset: PatchDataset, shuffle: bool) -> None:
        self.dataset, self.shuffle = dataset, shuffle
        self.epoch = dataset.epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, count = self.epoch, len(self.dataset)
        self.epoch += 1
        rng = sample_generator(self.dataset.seed, epoch, 2**63)
        order = rng.permutation(count) if self.shuffle else np.arange(count)
        return ((epoch, int(number)) for number in order)


def dataloader(
    path: str | Path,
    split: Literal["train", "val"] = "train",
    *,
    batch_size: int | None = None,
    num_workers: int = 0,
    shuffle: bool | None = None,
    augment: bool | SampleTransform | None = None,
    start_epoch: int = 0,
    pin_memory: bool = False,
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
    **options: Any,
) -> DataLoader[Sample]:
    """A torch DataLoader over a patch set, with the plan's batch size.

    Parameters
    ----------
    path : path-like
        The folder that `volprep prepare` wrote.
    split : {'train', 'val'}
    batch_size : int or None
        The plan's for None.
    num_workers : int
        Processes; the batches are the same for any number.
    shuffle : bool or None
        None shuffles training patches only.
    augment : bool, callable or None
        As of `PatchDataset`; None applies the training config's list to training
        patches only.
    start_epoch : int
        Each pass over the loader is one epoch, counted from here.
    pin_memory, multiprocessing_context
        As torch's.
    **options
        Of `PatchDataset`.

    Returns
    -------
    torch.utils.data.DataLoader
        Of batches: a dict of tensors with a leading batch axis.
    """
    chosen = split == "train" if augment is None else augment
    dataset = PatchDataset(path, split, augment=chosen, **options)
    dataset.set_epoch(start_epoch)
    return DataLoader(
        dataset,
        batch_size=batch_size or dataset.batch_size,
        sampler=_EpochSampler(dataset, split == "train" if shuffle is None else shuffle),
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        multiprocessing_context=multiprocessing_context if num_workers else None,
    )


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return value
