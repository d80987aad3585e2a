"""Where the voxels of samples come from: patches that were cut once, or places drawn anew."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, overload

import numpy as np
import numpy.typing as npt

from volprep.cutting import (
    PadMode,
    PreparedCase,
    Site,
    TrainingPlaces,
    pad_of,
    read_block,
)
from volprep.geometry import Box, Shape3, three
from volprep.loader.dataset import EpochDataset, empty_numbers
from volprep.loader.recipe import Arrays, Cut, Recipe, Stored
from volprep.loader.scratch import Scratch
from volprep.randomness import sample_generator
from volprep.skeletons import Skeletons, present_ids
from volprep.store import PatchReader, PatchStore

__all__ = [
    "PLACES",
    "Block",
    "BlockDataset",
    "CutBlocks",
    "PlacedBlocks",
    "SetCases",
    "set_blocks",
    "stored_arrays",
]

#: The streams of places are none of those that samples draw from.
PLACES = 2**61


@dataclass(frozen=True, slots=True)
class Block:
    """The voxels that a sample is made from: a block, or a part of it.

    Attributes
    ----------
    case : int
    voxels : mapping of str to ndarray
    start : (Z, Y, X)
        Of the first one, in the prepared case.
    """

    case: int
    voxels: Arrays
    start: Shape3


class Part(NamedTuple):
    """What of a block is wanted.

    Attributes
    ----------
    box : Box
        In the block.
    room : mapping of str to ndarray
        Where arrays may be written at once, of its size and of a dtype that holds their values;
        whoever cannot do so leaves them alone.
    """

    box: Box
    room: Arrays


class Blocks(Protocol):
    """A block for every sample of every epoch."""

    @property
    def stored(self) -> Stored:
        """The arrays of a block: their axes before (Z, Y, X), and their dtype."""
        ...

    @property
    def size(self) -> Shape3:
        """Of every block."""
        ...

    def __len__(self) -> int:
        """Samples of an epoch."""
        ...

    def read(
        self, epoch: int, index: int, names: Sequence[str], part_of: Callable[[Box, Shape3], Part]
    ) -> Block:
        """Some arrays of a part of a block, in memory that this thread uses for the next, too.

        The part is asked for once it is known what of the block is data, and not filled in, and
        where in it that begins which its place was drawn for.
        """
        ...

    def place(self, epoch: int, index: int) -> tuple[int, Sequence[int]]:
        """The case and the first voxel of a block."""
        ...


class CutBlocks:
    """Patches that lie in a set."""

    def __init__(self, reader: PatchReader) -> None:
        self._reader, self._scratch = reader, Scratch()
        specs = [reader.spec(name) for name in reader.names]
        self.stored: Stored = {s.name: (s.patch_shape[:-3], s.dtype) for s in specs}
        self.size = three(reader.spec("image").patch_shape[1:])

    def __len__(self) -> int:
        return len(self._reader)

    def read(
        self, epoch: int, index: int, names: Sequence[str], part_of: Callable[[Box, Shape3], Part]
    ) -> Block:
        """As of `Blocks`; all of a patch is decoded."""
        case, *row = self._reader.index[index].tolist()
        part = part_of(_data(self.size, row[3:6], row[6:9]), three(row[10:13])).box
        voxels = {}
        for name in names:
            spec = self._reader.spec(name)
            room = self._scratch.array(name, spec.patch_shape, spec.dtype)
            voxels[name] = self._reader.read(name, index, room)[..., *part.slices]
        return Block(case, voxels, part.shift(row[:3]).start)

    def place(self, epoch: int, index: int) -> tuple[int, Sequence[int]]:
        """As of `Blocks`."""
        case, *row = self._reader.index[index].tolist()
        return case, row[:3]


class PlacedBlocks:
    """Blocks of volumes, each where a function of the epoch and the index says.

    Parameters
    ----------
    cases : sequence of PreparedCase
    size : (Z, Y, X)
    stored : mapping
        As `stored_arrays` gives it.
    count : int
        Samples of an epoch.
    site : callable
        ``site(epoch, index)``: a pure function.
    mode : {'reflect', 'edge', 'constant'}
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        size: Shape3,
        stored: Stored,
        *,
        count: int,
        site: Callable[[int, int], Site],
        mode: PadMode,
    ) -> None:
        self._cases, self.size, self.stored = cases, size, stored
        self._count, self.site, self._mode = count, site, mode
        self._scratch = Scratch()

    def __len__(self) -> int:
        return self._count

    def read(
        self, epoch: int, index: int, names: Sequence[str], part_of: Callable[[Box, Shape3], Part]
    ) -> Block:
        """As of `Blocks`; nothing but the part is read."""
        site = self.site(epoch, index)
        whole = Box.at(site.start, self.size)
        data = _data(self.size, *pad_of(site.region, whole))
        part = part_of(data, site.shown)
        box = part.box.shift(site.start)

        def room(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
            if name in part.room:
                return part.room[name].reshape(shape)
            return self._scratch.array(name, shape, dtype)

        voxels = read_block(self._cases[site.case], site.region, box, names, self._mode, room)
        return Block(site.case, voxels, box.start)

    def place(self, epoch: int, index: int) -> tuple[int, Sequence[int]]:
        """As of `Blocks`."""
        site = self.site(epoch, index)
        return site.case, list(site.start)


def _data(size: Shape3, before: Sequence[int], after: Sequence[int]) -> Box:
    """What of a block is data, where so many voxels are filled in before and after it."""
    return Box(three(before), three(n - b for n, b in zip(size, after, strict=True)))


class SetCases(Sequence[PreparedCase]):
    """The cases of a set of volumes, each opened when it is first asked for."""

    def __init__(self, store: PatchStore) -> None:
        self._store, self._names = store, store.manifest["cases"]
        self._opened: dict[int, PreparedCase] = {}

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> PreparedCase: ...
    @overload
    def __getitem__(self, index: slice) -> list[PreparedCase]: ...
    def __getitem__(self, index: int | slice) -> PreparedCase | list[PreparedCase]:
        if isinstance(index, slice):
            return [self[n] for n in range(len(self))[index]]
        if index not in self._opened:  # two threads may both open it, which does no harm
            name = self._names[index]
            kept = self._store.case(name)
            self._opened[index] = PreparedCase(name, kept.image, kept.label, kept.mask)
        return self._opened[index]


def set_blocks(store: PatchStore, split: Literal["train", "val"], seed: int) -> Blocks:
    """The blocks of one split of a set: its patches, or places in its volumes.

    Places for training are drawn anew in every epoch, as the set's plan says; those for
    validation are a fixed tiling.
    """
    if store.kind == "patches":
        return CutBlocks(store.split(split))
    training, arrays = store.manifest["training"], store.manifest["arrays"]
    cases = SetCases(store)
    stored = {name: (tuple(lead), np.dtype(dtype)) for name, (lead, dtype) in arrays.items()}
    drawn = split == "train" and store.places.exists()
    return PlacedBlocks(
        cases,
        three(training["stored_patch_size" if split == "train" else "patch_size"]),
        stored,
        count=training["n_patches"][split],
        site=_Drawn(store, cases, seed) if drawn else _Listed(store, split),
        mode=store.manifest["pad_mode"],
    )


class _Drawn:
    """Places drawn anew in every epoch; what that takes is read for the first of them."""

    def __init__(self, store: PatchStore, cases: Sequence[PreparedCase], seed: int) -> None:
        self._store, self._cases, self._seed = store, cases, seed
        self._places: TrainingPlaces | None = None

    def __call__(self, epoch: int, index: int) -> Site:
        if self._places is None:
            self._places = TrainingPlaces.load(
                self._store.places, self._cases, key=self._store.manifest["places"]
            )
        return self._places.draw(index, sample_generator(self._seed, epoch, PLACES + index))


class _Listed:
    """The same places in every epoch."""

    def __init__(self, store: PatchStore, split: str) -> None:
        self._rows = store.sites(split)

    def __call__(self, epoch: int, index: int) -> Site:
        return Site.of_row(self._rows[index].tolist())


def stored_arrays(cases: Sequence[PreparedCase]) -> Stored:
    """The arrays that all cases have, in the one dtype that holds every case's values.

    Raises
    ------
    ValueError
        If some have labels, or channels, that others have not.
    """
    channels = {case.image.shape[0] for case in cases}
    if len(channels) > 1:
        raise ValueError(f"volumes: images of {sorted(channels)} channels; wanted one number")
    labelled = {case.label is not None for case in cases}
    if len(labelled) > 1:
        raise ValueError("volumes: some have a label and others do not; leave these out")
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "image": (tuple(channels), np.result_type(*(case.image.dtype for case in cases)))
    }
    labels = [case.label.dtype for case in cases if case.label is not None]
    if labels:
        found["label"] = ((), np.result_type(*labels))
        if found["label"][1].kind == "f":
            raise ValueError(f"volumes: labels are {sorted(map(str, labels))}; wanted integers")
    if any(case.mask is not None for case in cases):
        found["mask"] = ((), np.dtype(bool))
    return found


class BlockDataset(EpochDataset):
    """A data set whose samples are made from blocks by a recipe."""

    cases: list[str]
    seed: int
    patch_size: Shape3
    _blocks: Blocks
    _recipe: Recipe
    _shift: bool = True
    #: Samples in which augmentation comes in, from none of them to all.
    warm_up: int = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def room(self, epoch: int = 0, index: int = 0) -> dict[str, npt.NDArray[Any]]:
        """As of `EpochDataset`."""
        return {**self._recipe.room(), **empty_numbers()}

    def fill(self, epoch: int, index: int, out: Arrays) -> None:
        """As of `EpochDataset`."""
        rng, whole = sample_generator(self.seed, epoch, index), self._blocks.size
        share = 1.0 if not self.warm_up else min(1.0, epoch * len(self) / self.warm_up)
        cuts: list[Cut] = []

        def part_of(inside: Box, shown: Shape3) -> Part:
            wanted = self._recipe.place(whole, shown, rng if self._shift else None)
            cuts.append(self._recipe.cut(whole, wanted, inside, rng, share))
            return Part(cuts[0].part, self._recipe.as_stored(cuts[0], out))

        block = self._blocks.read(epoch, index, self._recipe.reads, part_of)
        cut = cuts[0]
        points = None
        if self._recipe.needs_points:
            points = self._points(block.case).only(present_ids(block.voxels["label"]))
            points = points.shift([-n for n in block.start])
        offset = self._recipe.fill(self.cases[block.case], block.voxels, points, rng, out, cut)
        out["case"][...], out["index"][...] = block.case, index
        for axis, first in enumerate(offset):
            out["start"][axis] = block.start[axis] - cut.part.start[axis] + first
            out["pad"][axis, 0] = max(0, cut.data.start[axis] - first)
            out["pad"][axis, 1] = max(0, first + self.patch_size[axis] - cut.data.stop[axis])

    def where(self, epoch: int, index: int) -> str:
        """The case and the first voxel of what is read for a sample, in words."""
        case, start = self._blocks.place(epoch, index)
        return f"{self.cases[case]} at {list(start)}"

    @abstractmethod
    def _points(self, case: int) -> Skeletons:
        """The skeletons of a case, where the recipe needs points."""
