"""Augmentations that bring objects from elsewhere: within a patch, or across a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from volprep.augment.transform import Generator, Transform, Values, between
from volprep.geometry import Box, Shape3

__all__ = ["CopyPaste", "Mixup", "Pasted"]

Array = npt.NDArray[Any]
Batch = TypeVar("Batch")

# How many places are tried for a copy.
_TRIES = 8


@dataclass(frozen=True)
class Pasted:
    """Where a copy of an object went.

    Parameters
    ----------
    source, target : int
        The id of the object and the id of its copy.
    linear : array, shape (3, 3)
        Takes a step in the object to a step in its copy, (Z, Y, X).
    offset : array, shape (3,)
        A voxel v of the object lies at ``linear @ v + offset`` in the copy.
    """

    source: int
    target: int
    linear: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]

    def move(self, points: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The object's points (N, 3) at the copy's place."""
        moved = np.asarray(points, np.float64).reshape(-1, 3) @ self.linear.T + self.offset
        return moved.astype(np.float32)


@dataclass(frozen=True)
class CopyPaste(Transform):
    """Copy one object of the patch, turned and mirrored, to a free place.

    Parameters
    ----------
    aug_thres : float
        Patches with more foreground than this fraction stay as they are.
    p : float
        Probability.
    instances : bool
        Copies get an id that the patch does not have. False keeps the id, for
        labels that are classes.
    label : str
        The target that holds the objects.
    border : int
        Voxels that stay free between a copy and other objects.

    Notes
    -----
    After PyTorch Connectomics' `CopyPasteAugmentor`. Differs: it returns the
    whole sample (there the image alone, which breaks `Compose`), with the copy
    in the labels too; one object is copied, not all of the foreground at once;
    quarter turns and mirrors, which interpolate nothing.
    """

    aug_thres: float = 0.7
    p: float = 0.8
    instances: bool = True
    label: str = "label"
    border: int = 3

    kind: ClassVar[Literal["spatial", "intensity", "objects"]] = "objects"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.aug_thres <= 1, "aug_thres", "0 to 1")
        self.require(self.border >= 0, "border", "0 or more")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """Which object, and some places: mirrored, quarter turns, position."""
        places = [
            [bool(rng.random() < 0.5), int(rng.integers(0, 4)), *rng.random(3).tolist()]
            for _ in range(_TRIES)
        ]
        return {"object": float(rng.random()), "places": places}

    def paste(
        self, values: Values, images: Mapping[str, npt.NDArray[np.float32]], label: Array
    ) -> Pasted | None:
        """Copy the object into fresh arrays, which are changed.

        Parameters
        ----------
        values : dict
            As drawn.
        images : dict of arrays, shape (C, Z, Y, X)
            Changed where the copy lies.
        label : array of integers, shape (Z, Y, X)
            Changed where the copy lies.

        Returns
        -------
        Pasted or None
            None where there is nothing to copy, or no place for it.
        """
        if np.count_nonzero(label) > self.aug_thres * label.size:
            return None
        ids = np.unique(label[label != 0])
        if not ids.size:
            return None
        source = ids[int(values["object"] * ids.size)]
        target = _free_id(ids, label.dtype) if self.instances else source
        if target is None:
            return None
        box = _bounding_box(label == source)
        mask = label[box.slices] == source
        taken = _grown(label != 0, self.border)
        best = _best_place(values["places"], mask, taken)
        if best is None:
            return None
        place, mirrored, turns = best
        free = _turned(mask, mirrored, turns) & ~taken[place.slices]
        label[place.slices][free] = target
        for image in images.values():
            copy = _turned(image[(slice(None), *box.slices)], mirrored, turns)
            image[(slice(None), *place.slices)][:, free] = copy[:, free]
        linear = _linear(mirrored, turns)
        middle = (np.array(box.start) + np.array(box.stop) - 1) / 2
        offset = (np.array(place.start) + np.array(place.stop) - 1) / 2 - linear @ middle
        return Pasted(int(source), int(target), linear, offset)

    def describe(self, values: Values) -> str:
        """What it does; the object depends on the patch."""
        return "copy-paste of one object, where there is room"


@dataclass(frozen=True)
class Mixup:
    """Blend some samples of a batch with others.

    Parameters
    ----------
    min_ratio, max_ratio : float
        Share of the sample itself, drawn evenly.
    num_aug : int
        How many samples of the batch are blended.
    p : float
        Probability that a batch is changed at all.
    enabled : bool
        False leaves every batch as it is.

    Notes
    -----
    After PyTorch Connectomics' `MixupAugmentor`. Differs: it draws from the
    generator handed in, leaves the batch that it is given alone, and blends
    with what the batch held before, whatever the order.
    """

    min_ratio: float = 0.7
    max_ratio: float = 0.9
    num_aug: int = 2
    p: float = field(default=1.0, kw_only=True)
    enabled: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"mixup.p: found {self.p!r}; wanted a probability, 0 to 1")
        if not 0 <= self.min_ratio <= self.max_ratio <= 1:
            raise ValueError(
                f"mixup: min_ratio {self.min_ratio}, max_ratio {self.max_ratio}; "
                "wanted 0 to 1, in this order"
            )
        if self.num_aug < 0:
            raise ValueError(f"mixup.num_aug: {self.num_aug}; wanted 0 or more")

    def draw(self, rng: Generator, batch_size: int) -> list[tuple[int, int, float]]:
        """Triples: sample, its partner, share of the sample."""
        if not self.enabled or rng.random() >= self.p or batch_size < 2:
            return []
        chosen = rng.choice(batch_size, min(self.num_aug, batch_size), replace=False).tolist()
        partners = [(n + int(rng.integers(1, batch_size))) % batch_size for n in chosen]
        bounds = (self.min_ratio, self.max_ratio)
        return [(n, m, between(rng, bounds)) for n, m in zip(chosen, partners, strict=True)]

    def __call__(
        self,
        batch: Batch,
        rng: Generator | None = None,
        *,
        replay: list[tuple[int, int, float]] | None = None,
    ) -> Batch:
        """Blend a batch.

        Parameters
        ----------
        batch : array or tensor of floats, shape (B, C, Z, Y, X)
        rng : numpy.random.Generator
            Where the draw comes from.
        replay : list, optional
            What `draw` gave, instead of `rng`.

        Returns
        -------
        array or tensor
            A new batch of the same kind.

        Raises
        ------
        TypeError
            If neither `rng` nor `replay` is given, or the batch holds integers.
        """
        volumes: Any = batch
        if "float" not in str(volumes.dtype):
            raise TypeError(f"mixup: a batch of {volumes.dtype}; wanted floats")
        if replay is None:
            if rng is None:
                raise TypeError("mixup: hand in rng=, a numpy.random.Generator")
            replay = self.draw(rng, len(volumes))
        mixed = volumes * 1
        for n, m, ratio in replay:
            mixed[n] = volumes[n] * ratio + volumes[m] * (1 - ratio)
        return mixed  # type: ignore[no-any-return]


def _free_id(ids: Array, dtype: np.dtype[Any]) -> int | None:
    """The id after the largest, or the smallest free one where the dtype ends there."""
    if dtype == np.bool_:
        return 1
    largest = int(ids[-1])
    if largest < np.iinfo(dtype).max:
        return largest + 1
    positive = ids[ids > 0]
    gaps = np.flatnonzero(positive != np.arange(1, len(positive) + 1, dtype=positive.dtype))
    candidate = int(gaps[0]) + 1 if gaps.size else len(positive) + 1
    return candidate if candidate <= np.iinfo(dtype).max else None


def _bounding_box(mask: npt.NDArray[np.bool_]) -> Box:
    spans = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(tuple(n for n in range(3) if n != axis)))
        spans.append((int(filled[0]), int(filled[-1]) + 1))
    (z0, z1), (y0, y1), (x0, x1) = spans
    return Box((z0, y0, x0), (z1, y1, x1))


def _grown(mask: npt.NDArray[np.bool_], border: int) -> npt.NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation, generate_binary_structure

    if not border:
        return mask
    return binary_dilation(mask, generate_binary_structure(3, 3), iterations=border)


def _turned(block: Array, mirrored: bool, turns: int) -> Array:
    flat = block[..., ::-1, :, :] if mirrored else block
    return np.rot90(flat, turns, axes=(-2, -1))


def _linear(mirrored: bool, turns: int) -> npt.NDArray[np.float64]:
    """What `_turned` does to a step from the middle: rot90 takes (y, x) to (-x, y)."""
    turn = np.linalg.matrix_power(np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), turns)
    return (turn @ np.diag([-1 if mirrored else 1, 1, 1])).astype(np.float64)


def _best_place(
    places: list[list[Any]], mask: npt.NDArray[np.bool_], taken: npt.NDArray[np.bool_]
) -> tuple[Box, bool, int] | None:
    """The place with the most room for the copy, None where nowhere is any."""
    best, most = None, 0
    for mirrored, turns, *position in places:
        copy = _turned(mask, mirrored, turns)
        room = [n - m for n, m in zip(taken.shape, copy.shape, strict=True)]
        if min(room) < 0:
            continue
        place = Box.at([int(u * (r + 1)) for u, r in zip(position, room, strict=True)], copy.shape)
        free = int(np.count_nonzero(copy & ~taken[place.slices]))
        if free > most:
            best, most = (place, mirrored, turns), free
    return best
