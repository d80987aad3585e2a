"""Images, instance masks and skeletons from a folder, for models that train on skeletons."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from volprep.errors import SourceError
from volprep.geometry import whole
from volprep.skeletons import Skeletons, find_skeleton_file, read_skeletons, skeleton_to_mask
from volprep.sources import natural_key, open_labels, open_volume

__all__ = ["MultiDataset", "SkeletonDataset", "collate_skeletons"]

DataDict = dict[str, Any]
Transform = Callable[[DataDict], DataDict]
Points = dict[int, torch.Tensor]

_KEYS = ("image", "masks", "skeletons", "skele_masks", "background")
_TO_SKOOTS = [1, 2, 0]  # (Z, Y, X) of a file becomes (X, Y, Z), X counting rows
_SOME = 1 << 24  # voxels at a time, for sums in float64


@dataclass
class _Entry:
    """What is kept of one file; axes are (C, X, Y, Z)."""

    image: torch.Tensor
    masks: torch.Tensor
    skeletons: Points
    mirror: float  # an inverted voxel is this minus the voxel
    skele_masks: torch.Tensor | None = field(default=None)

    def replace_image(self, image: torch.Tensor) -> None:
        """Take another image, and learn from two voxels how its values follow the old ones."""
        before, after = self.image.reshape(-1), image.reshape(-1)
        if len(before) == 0 or len(after) == 0:
            self.image = image
            return
        ends = (before.argmin(), before.argmax())
        old = [before[end].item() for end in ends]
        if len(after) == len(before):
            new = [after[end].item() for end in ends]
        else:  # cut, or scaled: the least value is taken for that of the least
            new = [after.min().item(), after.max().item()]
        slope = (new[1] - new[0]) / (old[1] - old[0]) if old[1] != old[0] else 1.0
        self.mirror = slope * self.mirror + 2 * (new[0] - slope * old[0])
        self.image = image


def _unchanged(data: DataDict) -> DataDict:
    return data


class SkeletonDataset(Dataset[DataDict]):
    """Whole images with their instance masks and skeletons, as SKOOTS' `dataset` has them.

    A folder holds, for each image ``X``::

        X.tif              image
        X.labels.tif       instance ids
        X.skeletons.npz    skeletons (or .trch, or .tif: see `volprep.skeletons`)

    Parameters
    ----------
    path : str, path-like, or a sequence of them
        Folders.
    transforms : callable
        Takes and returns a dict; see `__getitem__`.
    pad_size : int or tuple of int
        Voxels of zeros that are put on both sides of every image along X and Y, or
        along (X, Y, Z). Skeletons move with the image.
    device : str or torch.device
        Where samples are put.
    sample_per_image : int
        How often each image comes in one pass over the dataset.
    axes : str or None
        The axes of the image files, such as ``ZCYX`` or ``CZYX``, where they do not say
        them themselves; see `volprep.open_volume`.

    Raises
    ------
    SourceError
        If a file is missing or damaged, if an instance has no skeleton, or if a folder
        holds no ``*.labels.tif``.

    Notes
    -----
    After SKOOTS' `dataset`. Axes are SKOOTS': a file (Z, Y, X) becomes (C, X, Y, Z), where
    X counts rows. Differs: images keep their values (SKOOTS takes 8 bits only), all their
    channels and, if they have more than 8 bits, the narrowest type that torch calculates
    with; files are in natural order; `pad_size` does what its document says; a labelled
    image without skeletons is an error; `map` and `std` do what they are called.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        transforms: Transform = _unchanged,
        pad_size: int | tuple[int, int, int] = 100,
        device: str | torch.device = "cpu",
        sample_per_image: int = 1,
        *,
        axes: str | None = None,
    ) -> None:
        (sample_per_image,) = whole((sample_per_image,))
        if sample_per_image < 1:
            raise ValueError(f"sample_per_image is {sample_per_image}, wanted 1 or more")
        self.pad_size = _padding(pad_size)
        self.transforms = transforms
        self.device = torch.device(device)
        self.sample_per_image = sample_per_image
        folders = [path] if isinstance(path, str | Path) else path
        self.files = [labels for folder in folders for labels in _find_labels(Path(folder))]
        self._entries = [_read_entry(labels, axes) for labels in self.files]

    def __len__(self) -> int:
        return len(self._entries) * self.sample_per_image

    def __getitem__(self, item: int) -> DataDict:
        """One sample.

        Returns
        -------
        dict
            ``image`` (C, X, Y, Z); ``masks`` (1, X, Y, Z), integers; ``skeletons``, a dict
            of id to points (N, 3) float32 in (X, Y, Z); ``baked_skeleton``, None, for a
            transform to fill; and ``skele_masks`` (1, X, Y, Z) once `map` has made them.
            All this goes through `transforms` and then to `device`.
        """
        item = _place(item, len(self))
        entry = self._entries[item // self.sample_per_image]
        shift = torch.tensor(self.pad_size, dtype=torch.float32, device=entry.masks.device)
        data: DataDict = {
            "image": _pad(entry.image, self.pad_size),
            "masks": _pad(entry.masks, self.pad_size),
            "skeletons": {i: points + shift for i, points in entry.skeletons.items()},
            "baked_skeleton": None,
        }
        if entry.skele_masks is not None:
            data["skele_masks"] = _pad(entry.skele_masks, self.pad_size)
        with torch.no_grad():
            data = self.transforms(data)
        return {key: _move(value, self.device) for key, value in data.items()}

    @property
    def image(self) -> list[torch.Tensor]:
        """The images as they are kept, without padding."""
        return [entry.image for entry in self._entries]

    @property
    def masks(self) -> list[torch.Tensor]:
        """The instance masks as they are kept."""
        return [entry.masks for entry in self._entries]

    @property
    def skeletons(self) -> list[Points]:
        """The skeletons as they are kept."""
        return [entry.skeletons for entry in self._entries]

    def map(self, fn: Callable[[Any], Any], key: str) -> Self:
        """Replace what is kept under `key` by what `fn` makes of it, image by image.

        Parameters
        ----------
        fn : callable
            Takes a tensor; for ``skeletons``, the dict of an image.
        key : str
            ``image``, ``masks``, ``skeletons``; ``skele_masks``, which are painted as
            `skeleton_to_mask` does when they are first asked for; or ``background``, the
            images that hold no instance.
        """
        if key not in _KEYS:
            raise ValueError(f"key is {key!r}, wanted one of {', '.join(_KEYS)}")
        for entry in self._entries:
            if key == "background":
                if not entry.masks.any():
                    entry.replace_image(fn(entry.image))
                continue
            if key == "image":
                entry.replace_image(fn(entry.image))
                continue
            if key == "skele_masks" and entry.skele_masks is None:
                painted = skeleton_to_mask(
                    entry.skeletons, entry.masks.shape[1:], device=entry.masks.device
                )
                entry.skele_masks = torch.as_tensor(painted)
            setattr(entry, key, fn(getattr(entry, key)))
        return self

    def to(self, device: str | torch.device) -> Self:
        """Move what is kept, and with it the samples to come."""
        self.device = torch.device(device)
        return self._apply(lambda tensor: tensor.to(self.device))

    def cuda(self) -> Self:
        """The same as ``to("cuda:0")``."""
        return self.to("cuda:0")

    def cpu(self) -> Self:
        """The same as ``to("cpu")``."""
        return self.to("cpu")

    def pin_memory(self) -> Self:
        """Pin what is kept, for faster transfer to a GPU; without one, nothing changes."""
        return self._apply(torch.Tensor.pin_memory) if torch.cuda.is_available() else self

    def numel(self, with_invert: bool = False) -> int:
        """Voxels of all images, all channels; twice as many with their inverted images."""
        return sum(entry.image.numel() for entry in self._entries) * (2 if with_invert else 1)

    def sum(self, with_invert: bool = False) -> float:
        """Sum of all images.

        Parameters
        ----------
        with_invert : bool
            Count every image a second time with its values subtracted from the largest
            of its type (255, 65535; 1 for floating point), for training that inverts
            images. What `map` did to the image is done to the inverted one, too, as far
            as it is a change of scale and offset: divided by 255, it is subtracted from 1.
        """
        return math.fsum(part.sum().item() for part in self._parts(with_invert))

    def mean(self, with_invert: bool = False) -> float:
        """Mean over all voxels; `with_invert` as for `sum`."""
        return self.sum(with_invert) / _some(self.numel(with_invert))

    def subtract_square_sum(self, other: float, with_invert: bool = False) -> float:
        """Sum of the squared differences of all voxels to `other`."""
        parts = self._parts(with_invert)
        return math.fsum(part.sub_(other).square_().sum().item() for part in parts)

    def std(self, with_invert: bool = False) -> float:
        """Standard deviation over all voxels; `with_invert` as for `sum`."""
        squares = self.subtract_square_sum(self.mean(with_invert), with_invert)
        return math.sqrt(squares / self.numel(with_invert))

    def _parts(self, with_invert: bool) -> Iterator[torch.Tensor]:
        for entry in self._entries:
            for part in torch.split(entry.image.reshape(-1), _SOME):
                yield part.to(torch.float64, copy=True)
                if with_invert:
                    yield entry.mirror - part.to(torch.float64)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        for entry in self._entries:
            entry.image, entry.masks = fn(entry.image), fn(entry.masks)
            entry.skeletons = {i: fn(points) for i, points in entry.skeletons.items()}
            if entry.skele_masks is not None:
                entry.skele_masks = fn(entry.skele_masks)
        return self


class MultiDataset(Dataset[Any]):
    """Several datasets, one after the other, as one.

    Parameters
    ----------
    *datasets : torch.utils.data.Dataset
        With a length.

    Raises
    ------
    TypeError
        If one is no dataset (SKOOTS leaves it out).
    """

    def __init__(self, *datasets: Dataset[Any]) -> None:
        for dataset in datasets:
            if not isinstance(dataset, Dataset):
                raise TypeError(f"{type(dataset).__name__} is no torch Dataset")
        self.datasets: list[Any] = list(datasets)
        self._ends = list(accumulate(len(dataset) for dataset in self.datasets))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, item: int) -> Any:
        item = _place(item, len(self))
        which = bisect_right(self._ends, item)
        return self.datasets[which][item - (self._ends[which - 1] if which else 0)]

    def map(self, fn: Callable[[Any], Any], key: str) -> Self:
        """`SkeletonDataset.map` of every dataset."""
        return self._each(lambda dataset: dataset.map(fn, key))

    def to(self, device: str | torch.device) -> Self:
        """`SkeletonDataset.to` of every dataset."""
        return self._each(lambda dataset: dataset.to(device))

    def cuda(self) -> Self:
        """The same as ``to("cuda:0")``."""
        return self.to("cuda:0")

    def cpu(self) -> Self:
        """The same as ``to("cpu")``."""
        return self.to("cpu")

    def pin_memory(self) -> Self:
        """`SkeletonDataset.pin_memory` of every dataset."""
        return self._each(lambda dataset: dataset.pin_memory())

    def numel(self, with_invert: bool = False) -> int:
        """Voxels of all datasets."""
        return sum(dataset.numel(with_invert) for dataset in self.datasets)

    def sum(self, with_invert: bool = False) -> float:
        """Sum over all voxels of all datasets."""
        return math.fsum(dataset.sum(with_invert) for dataset in self.datasets)

    def mean(self, with_invert: bool = False) -> float:
        """Mean over all voxels of all datasets; ValueError where there is none."""
        return self.sum(with_invert) / _some(self.numel(with_invert))

    def subtract_square_sum(self, other: float, with_invert: bool = False) -> float:
        """Sum of the squared differences of all voxels to `other`."""
        parts = (dataset.subtract_square_sum(other, with_invert) for dataset in self.datasets)
        return math.fsum(parts)

    def std(self, with_invert: bool = False) -> float:
        """Standard deviation over all voxels of all datasets."""
        squares = self.subtract_square_sum(self.mean(with_invert), with_invert)
        return math.sqrt(squares / self.numel(with_invert))

    def _each(self, fn: Callable[[Any], Any]) -> Self:
        for dataset in self.datasets:
            fn(dataset)
        return self


def collate_skeletons(
    batch: Sequence[Mapping[str, Any]],
) -> tuple[torch.Tensor, torch.Tensor, list[Points], torch.Tensor | None, torch.Tensor | None]:
    """Put samples into a batch; skeletons, which differ in length, stay a list.

    Parameters
    ----------
    batch : sequence of dict
        Samples of `SkeletonDataset`; not edited.

    Returns
    -------
    images, masks : tensor, shape (B, C, X, Y, Z) and (B, 1, X, Y, Z)
    skeletons : list of dict
    skele_masks, baked_skeleton : tensor, shape (B, 1 or 3, X, Y, Z), or None
        None where no transform made them.

    Raises
    ------
    ValueError
        If shapes differ, or only some samples have a key.
    """
    return (
        _stack(batch, "image"),
        _stack(batch, "masks"),
        [sample["skeletons"] for sample in batch],
        _stack(batch, "skele_masks") if _has(batch, "skele_masks") else None,
        _stack(batch, "baked_skeleton") if _has(batch, "baked_skeleton") else None,
    )


def _has(batch: Sequence[Mapping[str, Any]], key: str) -> bool:
    here = [sample.get(key) is not None for sample in batch]
    if any(here) and not all(here):
        raise ValueError(f"sample {here.index(False)} of the batch has no {key}, others have")
    return all(here)


def _stack(batch: Sequence[Mapping[str, Any]], key: str) -> torch.Tensor:
    shapes = {tuple(sample[key].shape) for sample in batch}
    if len(shapes) > 1:
        raise ValueError(f"{key} differ in shape: {sorted(shapes)}; crop them in a transform")
    return torch.stack([sample[key] for sample in batch])


def _find_labels(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(folder, "no such folder", "check the path")
    found = [path for end in ("tif", "tiff") for path in folder.glob(f"*.labels.{end}")]
    if not found:
        raise SourceError(folder, "no *.labels.tif in it", "name masks X.labels.tif beside X.tif")
    return sorted(found, key=lambda path: natural_key(path.name))


def _read_entry(labels: Path, axes: str | None) -> _Entry:
    stem = labels.name.split(".labels.")[0]
    candidates = (labels.with_name(f"{stem}.{end}") for end in ("tif", "tiff"))
    image = next((path for path in candidates if path.exists()), None)
    if image is None:
        raise SourceError(labels.with_name(f"{stem}.tif"), "no such file", "put the image there")
    with open_volume(image, axes=axes) as volume:
        voxels = volume.read()
    with open_labels(labels) as volume:
        masks = volume.read()[0]
    if voxels.shape[1:] != masks.shape:
        raise SourceError(labels, f"shape {masks.shape}", f"{image.name} is {voxels.shape[1:]}")
    skeletons = _read_own_skeletons(labels, masks)
    return _Entry(
        _as_tensor(voxels.transpose(0, 2, 3, 1)),
        _as_tensor(_narrow(masks).transpose(1, 2, 0)[None]),
        {i: torch.from_numpy(skeletons[i][:, _TO_SKOOTS].copy()) for i in skeletons},
        float(np.iinfo(voxels.dtype).max) if voxels.dtype.kind in "ui" else 1.0,
    )


def _read_own_skeletons(labels: Path, masks: npt.NDArray[Any]) -> Skeletons:
    """The skeletons of the instances in `masks`, all of them."""
    ids = [int(i) for i in np.unique(masks) if i != 0]
    path = find_skeleton_file(labels)
    if path is None:
        if not ids:
            return Skeletons.from_points({})
        raise SourceError(
            labels,
            f"no skeletons of its {len(ids)} instances beside it",
            f"make them: volprep bake-skeletons --labels {labels} --out {labels.parent}",
        )
    skeletons = read_skeletons(path)
    if path.suffix == ".tif" and not set(ids) <= set(skeletons):
        skeletons = read_skeletons(path, labels=masks)  # it marks voxels and names no ids
    lacking = [i for i in ids if i not in skeletons]
    if lacking:
        raise SourceError(path, f"no skeleton of instance {lacking[0]}", f"{labels.name} has it")
    return skeletons


def _narrow(masks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ids in a type that torch calculates with, if one holds them."""
    top = int(masks.max()) if masks.size else 0
    return masks.astype(np.int32 if top < 2**31 else np.int64 if top < 2**63 else np.uint64)


def _as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    wider = {"uint16": np.int32, "uint32": np.int64, "float16": np.float32}
    return torch.from_numpy(np.array(array, wider.get(array.dtype.name, array.dtype), order="C"))


def _padding(pad_size: int | tuple[int, int, int]) -> tuple[int, int, int]:
    sizes = whole(pad_size if isinstance(pad_size, Sequence) else (pad_size, pad_size, 0))
    if len(sizes) != 3 or min(sizes) < 0:
        raise ValueError(f"pad_size is {pad_size}, wanted 0 or more, once or for (X, Y, Z)")
    x, y, z = sizes
    return x, y, z


def _place(item: int, size: int) -> int:
    """An index counted from 0; those below 0 count from the end."""
    (number,) = whole((item,))
    if not -size <= number < size:
        raise IndexError(f"sample {number} of {size}")
    return number % size


def _some(count: int) -> int:
    if count == 0:
        raise ValueError("there is no image: nothing has no mean")
    return count


def _pad(tensor: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
    """A copy with zeros around it."""
    shape = [n + 2 * pad for n, pad in zip(tensor.shape[1:], sizes, strict=True)]
    padded = tensor.new_zeros((tensor.shape[0], *shape))
    inner = [slice(pad, pad + n) for n, pad in zip(tensor.shape[1:], sizes, strict=True)]
    padded[(slice(None), *inner)] = tensor
    return padded


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _move(part, device) for key, part in value.items()}
    return value
