"""From stored voxels to what a network gets: the same for patches and for volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.augment import Compose, Drawn, compose_from_config
from volprep.errors import StoreError
from volprep.geometry import Box, Shape3, three
from volprep.loader.scratch import Scratch
from volprep.preprocess import Normalisation
from volprep.skeletons import Skeletons
from volprep.targets import LabelPatch, Target, make_targets, targets_from_config

__all__ = ["Arrays", "Cut", "LabelDtype", "Recipe", "SampleTransform", "Stored", "number_classes"]

Arrays = Mapping[str, npt.NDArray[Any]]
LabelDtype = Literal["int64", "int32", "stored"]
SampleTransform = Callable[[dict[str, Any], np.random.Generator], Mapping[str, Any]]
#: (leading axes, dtype) of each array of voxels, by name.
Stored = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]

_AUGMENTED = ("image", "label", "mask")


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a block a sample is made from.

    Attributes
    ----------
    part : Box
        All of the block that is read.
    start : (Z, Y, X)
        Where in the block the sample begins; augmented, the place from which it would have
        been cut.
    data : Box
        What of the block is data, and not filled in.
    drawn : Drawn or None
        Of a `Compose`.
    centre : sequence of float or None
        The voxel of the part that the middle of what was drawn shows.
    augmented : bool
        Whether it is augmented at all.
    """

    part: Box
    start: Shape3
    data: Box
    drawn: Drawn | None = None
    centre: Sequence[float] | None = None
    augmented: bool = True


class Recipe:
    """Normalise, cut or augment, number classes, make targets; drawn from one generator.

    Parameters
    ----------
    training : mapping
        As `train.yaml`.
    stored : mapping of str to (shape, dtype)
        The arrays that voxels come in: their axes before (Z, Y, X), and their dtype.
    size : (Z, Y, X)
        Of a sample.
    augment : bool or callable
        True takes the augmentations of `training`.
    normalise : bool
    class_index : bool or None
    label_dtype : {'int64', 'int32', 'stored'}
        As of `PatchDataset`.
    """

    def __init__(
        self,
        training: Mapping[str, Any],
        stored: Stored,
        size: Shape3,
        *,
        augment: bool | SampleTransform,
        normalise: bool,
        class_index: bool | None,
        label_dtype: LabelDtype,
    ) -> None:
        self.training, self.stored, self.size = training, stored, size
        self.normalise = normalise
        self._common = Normalisation.from_dict(training["normalisation"])
        self._of_case = {
            name: Normalisation.from_dict(values)
            for name, values in training["case_normalisation"].items()
        }
        self.classes = _class_values(training["class_values"], class_index)
        self._label = _label_dtype(label_dtype, stored)
        augmentation = augment or None
        self._listed = targets_from_config(training["targets"], where="train.yaml: targets")
        self.augment = self._compose() if augmentation is True else augmentation
        self.targets = self._targets_to_make()
        self._scratch = Scratch()
        composed = self.augment if isinstance(self.augment, Compose) else None
        if composed is not None and self.needs_points and "skeletons" not in composed.targets:
            raise ValueError(
                "augment: skeleton targets are made from points that move with the image; "
                "add 'skeletons': 'points' to its additional_targets"
            )

    @property
    def needs_points(self) -> bool:
        """Whether a target is made from skeleton points."""
        return any("skeletons" in target.needs for target in self.targets)

    @property
    def reads(self) -> tuple[str, ...]:
        """The stored arrays that samples are made from."""
        made = {array.name for target in self.targets for array in target.arrays(self.size)}
        return tuple(name for name in self.stored if name not in made)

    def room(self, size: Shape3 | None = None) -> dict[str, npt.NDArray[Any]]:
        """Fresh arrays of a sample; where `size` is given, of that size and without targets."""
        room = {
            name: np.empty((*self.stored[name][0], *(size or self.size)), self._dtype(name))
            for name in self.reads
        }
        if size is None:
            made = [array for target in self.targets for array in target.arrays(self.size)]
            room |= {array.name: np.empty(array.shape(self.size), array.dtype) for array in made}
        return room

    def cut(
        self,
        found: Shape3,
        wanted: Shape3,
        data: Box,
        rng: np.random.Generator,
        share: float = 1.0,
    ) -> Cut:
        """What of a block is read for a sample.

        Parameters
        ----------
        found : (Z, Y, X)
            Of the block.
        wanted : (Z, Y, X)
            Where in the block the sample is to begin, as `place` gives it. Augmented, it lies as
            near to that as what was drawn fits into the data.
        data : Box
            What of the block is data, and not filled in.
        rng : numpy.random.Generator
            What is drawn of an augmentation is drawn before anything is read.
        share : float
            Of the samples that is augmented; the others are cut as they are.
        """
        if self.augment is None or (share < 1 and rng.random() >= share):
            start = self.nearest(wanted, data)
            return Cut(Box.at(start, self.size), start, data, augmented=False)
        if not isinstance(self.augment, Compose):
            return Cut(Box((0, 0, 0), found), wanted, data)
        drawn = self.augment.draw(rng)
        middle = three((n - p) // 2 for n, p in zip(found, self.size, strict=True))
        lowest, highest = self.augment.freedom(drawn, found, data)
        move = three(
            min(max(a - b, low), high)
            for a, b, low, high in zip(wanted, middle, lowest, highest, strict=True)
        )
        centre = [(n - 1) / 2 + m for n, m in zip(found, move, strict=True)]
        part = self.augment.source_block(drawn, centre, found)
        centre = [c - a for c, a in zip(centre, part.start, strict=True)]
        start = three(a + b for a, b in zip(middle, move, strict=True))
        return Cut(part, start, data, drawn, centre)

    def as_stored(self, cut: Cut, out: Arrays) -> Arrays:
        """What of a sample may be written as its block is read, since nothing is done to it.

        Ids that are as wide as they are stored, or wider: to write them narrow first, and then
        again, takes an eighth of the time that a sample takes from volumes.
        """
        plain = self.augment is None or not cut.augmented
        if not plain or self.classes is not None or self.needs_points or "label" not in self.reads:
            return {}
        fits = _highest(self.stored["label"][1]) <= _highest(out["label"].dtype)
        return {"label": out["label"]} if fits else {}

    def fill(
        self,
        case: str,
        voxels: Arrays,
        points: Skeletons | None,
        rng: np.random.Generator,
        out: Arrays,
        cut: Cut,
    ) -> Shape3:
        """Make a sample of a part of a block of voxels.

        Parameters
        ----------
        case : str
            Where it is from.
        voxels : mapping of str to ndarray
            The arrays of `reads`, of the part; nothing is changed in them.
        points : Skeletons or None
            In voxels of the part, where `needs_points`.
        rng : numpy.random.Generator
        out : mapping of str to ndarray
            As `room` gives it.
        cut : Cut

        Returns
        -------
        (Z, Y, X)
            Where in the block the sample begins; of a block that was augmented, the place
            from which it would have been cut.
        """
        offset = cut.start
        if self.augment is None or not cut.augmented:
            self._convert(case, voxels, out)
        elif isinstance(self.augment, Compose):
            points = self._augmented(self.augment, cut, case, voxels, points, out)
        else:
            offset, points = self._called(self.augment, case, voxels, points, rng, out, cut.data)
        if self.targets:
            make_targets(self.targets, LabelPatch(out["label"], self._voxel(), points), out)
        return offset

    def place(self, found: Shape3, shown: Shape3, rng: np.random.Generator | None) -> Shape3:
        """Where in a block a sample is to begin.

        Parameters
        ----------
        found : (Z, Y, X)
            Of the block.
        shown : (Z, Y, X)
            Where in it the patch of the plan begins that its place was drawn for.
        rng : numpy.random.Generator or None
            Moves the sample by up to a quarter of it, so that every epoch shows another; a
            place that was chosen for what is annotated in it stays. None moves nothing.
        """
        planned = zip(shown, self.training["patch_size"], self.size, strict=True)
        starts = [at + (q - p) // 2 for at, q, p in planned]
        if rng is not None and "mask" not in self.stored:
            reach = [p // 4 for p in self.size]
            starts = [a + int(rng.integers(-r, r + 1)) for a, r in zip(starts, reach, strict=True)]
        room = (n - p for n, p in zip(found, self.size, strict=True))
        return three(min(max(0, a), r) for a, r in zip(starts, room, strict=True))

    def nearest(self, wanted: Shape3, data: Box) -> Shape3:
        """The nearest place for a sample that is all data, as far as there is one."""
        return three(max(0, start) for start in data.nearest(wanted, self.size))

    def _convert(self, case: str, parts: Arrays, out: Arrays) -> None:
        """Stored voxels in the dtypes of a sample; what is not annotated is ignored."""
        for name, part in parts.items():
            if name == "image":
                self._normalised(case, part, out["image"])
            elif name == "label":
                if not np.may_share_memory(part, out["label"]):
                    self._integers(part, out["label"])
            elif part is not out[name]:
                out[name][...] = part
        self._ignore(out)

    def _ignore(self, out: Arrays) -> None:
        """Give voxels that are not annotated the class that is ignored."""
        if self.classes is not None and "mask" in self.reads:
            np.copyto(out["label"], self.training["ignore_index"], where=~out["mask"])

    def _normalised(self, case: str, part: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        if not self.normalise:
            out[...] = part
            return
        whole = part
        if not part.flags.c_contiguous:
            whole = self._scratch.array("part", part.shape, part.dtype)
            whole[...] = part
        self._of_case.get(case, self._common).apply(whole, out)

    def _integers(self, label: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        if self.classes is not None:
            number_classes(label, self.classes, self.training["ignore_index"], out)
            return
        most = _highest(out.dtype)
        if _highest(label.dtype) > most and label.size and label.max() > most:
            raise StoreError(
                f"label id {label.max()} does not fit {out.dtype}; renumber the ids with "
                "labels: {relabel: true}, or take label_dtype='stored'"
            )
        np.copyto(out, label, casting="unsafe")

    def _augmented(
        self,
        augment: Compose,
        cut: Cut,
        case: str,
        voxels: Arrays,
        points: Skeletons | None,
        out: Arrays,
    ) -> Skeletons | None:
        """A part of the block augmented into `out`, and the points that moved with it."""
        names = self.reads  # all of them: the Compose refuses what it was not told to move
        sample: dict[str, Any] = {name: voxels[name] for name in names}
        if self.normalise:
            image = voxels["image"]
            sample["image"] = self._scratch.array("normalised", image.shape, np.float32)
            self._normalised(case, image, sample["image"])
        if points is not None:
            sample["skeletons"] = points
        room = {name: out[name] for name in names}
        if room["image"].dtype != np.float32:
            room["image"] = self._scratch.array("moved", room["image"].shape, np.float32)
        if "label" in names:
            room["label"] = self._scratch.array("moved label", self.size, voxels["label"].dtype)
        moved = augment(sample, replay=cut.drawn, centre=cut.centre, out=room)
        for name in names:
            if name == "label":
                self._integers(moved["label"], out["label"])
            elif moved[name] is not out[name]:
                np.copyto(out[name], moved[name], casting="unsafe")
        self._ignore(out)
        found: Skeletons | None = moved.get("skeletons")
        return found

    def _called(
        self,
        augment: SampleTransform,
        case: str,
        voxels: Arrays,
        points: Skeletons | None,
        rng: np.random.Generator,
        out: Arrays,
        data: Box,
    ) -> tuple[Shape3, Skeletons | None]:
        """A callable of the user's gets the whole block, in the dtypes of a sample."""
        before = three(voxels["image"].shape[-3:])
        whole = self.room(before)
        self._convert(case, voxels, whole)
        sample: dict[str, Any] = {n: whole[n] for n in _AUGMENTED if n in whole}
        if points is not None:
            sample["skeletons"] = points
        moved = {**whole, **sample, **augment(sample, rng)}
        found = three(moved["image"].shape[-3:])
        data = data if found == before else Box((0, 0, 0), found)
        if any(n < p for n, p in zip(found, self.size, strict=True)):
            raise ValueError(f"augment gave {found} voxels, fewer than patch_size {self.size}")
        room = (n - p for n, p in zip(found, self.size, strict=True))
        offset = self.nearest(three(int(rng.integers(r + 1)) for r in room), data)
        part = Box.at(offset, self.size).slices
        for name in whole:
            out[name][...] = moved[name][..., *part]
        if points is None:
            return offset, None
        return offset, moved["skeletons"].shift([-n for n in offset])

    def _dtype(self, name: str) -> np.dtype[Any]:
        if name == "image" and self.normalise:
            return np.dtype(np.float32)
        return self._label if name == "label" and self._label is not None else self.stored[name][1]

    def _compose(self) -> Compose | None:
        """The augmentations of the training config; None where it lists none."""
        if not self.training["augment"]:
            return None
        targets: dict[str, Literal["img", "mask", "points"]] = {
            name: "mask" for name in ("label", "mask") if name in self.stored
        }
        if any("skeletons" in target.needs for target in self._listed):
            targets["skeletons"] = "points"
        return compose_from_config(
            self.training["augment"],
            self.size,
            targets,
            spacing=self.training["spacing"],
            ignore=self._unused_value(),
        )

    def _unused_value(self) -> int | None:
        """A stored label that is no class, and so becomes the one that is ignored."""
        if self.classes is None or "label" not in self.stored:
            return None
        dtype = self.stored["label"][1]
        most = 1 if dtype == np.bool_ else int(np.iinfo(dtype).max)
        used = set(self.classes.tolist())
        return next((n for n in range(min(most, len(used)) + 1) if n not in used), None)

    def _targets_to_make(self) -> list[Target]:
        """Those that are stored are made anew after an augmentation."""
        stored = self.training["stored_targets"] if self.augment is None else ()
        return [target for target in self._listed if target.name not in stored]

    def _voxel(self) -> tuple[float, float, float]:
        spacing: Sequence[float] = self.training["spacing"] or (1.0, 1.0, 1.0)
        z, y, x = spacing
        return z, y, x


@cache
def _highest(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).max)


def _class_values(
    values: Sequence[int] | None, wanted: bool | None
) -> npt.NDArray[np.int64] | None:
    """The label value of each class, ascending; None where stored values are wanted."""
    if values is None and wanted:
        raise ValueError("class_index needs labels that are classes; these are instances")
    return None if values is None or wanted is False else np.array(values, np.int64)


def _label_dtype(name: LabelDtype, stored: Stored) -> np.dtype[Any] | None:
    if name not in ("int64", "int32", "stored"):
        raise ValueError(f"label_dtype: found {name!r}; wanted int64, int32 or stored")
    if name != "stored":
        return np.dtype(name)
    return stored["label"][1] if "label" in stored else None


def number_classes(
    label: npt.NDArray[Any],
    values: npt.NDArray[np.int64],
    ignored: int,
    out: npt.NDArray[Any],
) -> None:
    """The place of each label among the class values, `ignored` where it has none."""
    if label.dtype.itemsize <= 2:  # a table of all labels there can be, which is ten times faster
        bounds = np.iinfo(label.dtype)
        table = np.full(bounds.max - bounds.min + 1, ignored, out.dtype)
        inside = [v for v in values.tolist() if bounds.min <= v <= bounds.max]
        table[inside] = [np.searchsorted(values, v) for v in inside]  # negative ones from the end
        np.take(table, label, out=out, mode="wrap")
        return
    place = np.minimum(np.searchsorted(values, label), len(values) - 1)
    out[...] = np.where(values[place] == label, place, ignored)
