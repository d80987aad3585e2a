"""Large volumes in chunks: one is trained on while the next one is read."""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy.typing as npt

from volprep.cutting import PadMode, read_patch
from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.loader.dataset import EpochDataset
from volprep.loader.recipe import Arrays
from volprep.loader.volumes import VolumeDataset
from volprep.randomness import sample_generator

__all__ = ["TileDataset", "chunk_boxes"]

Voxels = dict[str, npt.NDArray[Any]]
#: Chunks in memory: the one that is used, the one that is read, and one that threads finish.
_HELD = 3
_ORDER = 2**60


def chunk_boxes(
    region: Box, chunk_num: Sequence[int], *, pad: Sequence[int] = (0, 0, 0), overlap: bool = False
) -> list[Box]:
    """The chunks of a region, in the order of (z, y, x).

    Parameters
    ----------
    region : Box
    chunk_num : (Z, Y, X)
        Into how many each axis is divided.
    pad : (Z, Y, X)
        Voxels that each chunk has on all sides, beyond the region, too: coordinates may be
        negative, or larger than the volume.
    overlap : bool
        Whether each chunk reaches over half of its neighbour, so that no seam is left out.
        Without, the chunks cover every voxel of the region once, remainders included.

    Raises
    ------
    ValueError
        If an axis is to be divided into more chunks than it has voxels.
    """
    counts, margin = three(chunk_num), three(pad)
    if min(counts) < 1 or min(margin) < 0:
        raise ValueError(f"chunk_num {counts}, pad {margin}; wanted 1 or more, and 0 or more")
    if any(n > size for n, size in zip(counts, region.shape, strict=True)):
        raise ValueError(f"chunk_num {counts} is more than the voxels of {region.shape}")
    step = 2 if overlap else 1
    ranges = [
        [
            (low + i * size // (n + step - 1) - p, low + (i + step) * size // (n + step - 1) + p)
            for i in range(n)
        ]
        for n, size, low, p in zip(counts, region.shape, region.start, margin, strict=True)
    ]
    return [
        Box((z0, y0, x0), (z1, y1, x1))
        for z0, z1 in ranges[0]
        for y0, y1 in ranges[1]
        for x0, x1 in ranges[2]
    ]


class TileDataset(EpochDataset):
    """Patches from a volume that is read chunk by chunk, such as one of tiles.

    Parameters
    ----------
    volume : mapping of str to VolumeLike
        ``image``, and ``label`` and ``mask`` as there are.
    patch_size : (Z, Y, X)
    chunk_num : (Z, Y, X)
        Into how many chunks the volume is divided (``DATA_CHUNK_NUM``).
    chunk_iter : int
        Samples that are drawn from a chunk before the next one (``DATA_CHUNK_ITER``).
    chunk_ind : sequence of int, optional
        The chunks that are used; None takes all.
    chunk_ind_split : (int, int) or str, optional
        ``(rank, world)`` or ``"rank-world"``: this process takes an equal part of the chunks,
        the last one what remains.
    chunk_stride : bool
        Whether chunks overlap in training, each by half of its neighbour.
    coord_range : (z0, z1, y0, y1, x0, x1), optional
        The part of the volume that is used.
    pad_size : (Z, Y, X)
        Voxels that each chunk has on all sides.
    pad_mode : {'reflect', 'edge', 'constant'}
        What lies beyond the volume.
    mode : {'train', 'test'}
        In ``test`` chunks do not overlap, and come in order: `chunks` gives each voxel once.
    seed : int
    **options
        Of `VolumeDataset`, such as `augment`, `drawing` and `normalisation`.

    Notes
    -----
    After PyTorch Connectomics' `TileDataset`. The same ranges: axis range i of n is
    ``floor([i, i + s] / (n + s - 1) * length)``, where s is 2 in training with
    `chunk_stride`, else 1. Differs: the next chunk is read in the background; sample
    ``[epoch, index]`` is a function of the seed alone, whoever asks for it; samples run
    through the chunks in an order that is drawn anew in each epoch, so read them in order
    (`PatchLoader` with ``shuffle=False``).
    """

    def __init__(
        self,
        volume: Mapping[str, VolumeLike],
        patch_size: Sequence[int],
        *,
        chunk_num: Sequence[int] = (2, 2, 2),
        chunk_iter: int = 1000,
        chunk_ind: Sequence[int] | None = None,
        chunk_ind_split: tuple[int, int] | str | None = None,
        chunk_stride: bool = True,
        coord_range: Sequence[int] | None = None,
        pad_size: Sequence[int] = (0, 0, 0),
        pad_mode: PadMode = "reflect",
        mode: Literal["train", "test"] = "train",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if mode not in ("train", "test"):
            raise ValueError(f"mode: found {mode!r}; wanted train or test")
        if chunk_iter < 1:
            raise ValueError(f"chunk_iter: found {chunk_iter}; wanted 1 or more")
        self._volume, self.mode, self.seed = dict(volume), mode, seed
        self.patch_size, self.chunk_iter = three(patch_size), chunk_iter
        self._pad_mode, self._options = pad_mode, options
        whole = Box.whole(self._volume["image"].shape)
        region = whole if coord_range is None else _region(coord_range, whole)
        overlap = mode == "train" and chunk_stride
        every = chunk_boxes(region, chunk_num, pad=pad_size, overlap=overlap)
        self.boxes = [every[i] for i in _chosen(len(every), chunk_ind, chunk_ind_split)]
        self._held: OrderedDict[int, Future[VolumeDataset]] = OrderedDict()
        self._lock = threading.Lock()
        self._reading: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the chunks that this process holds."""
        return self.__dict__ | {"_held": None, "_lock": None, "_reading": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_held": OrderedDict(), "_lock": threading.Lock()}

    def __len__(self) -> int:
        return self.chunk_iter * len(self.boxes)

    def room(self, epoch: int = 0, index: int = 0) -> dict[str, npt.NDArray[Any]]:
        """As of `EpochDataset`."""
        return self._part(epoch, index)[0].room()

    def fill(self, epoch: int, index: int, out: Arrays) -> None:
        """As of `EpochDataset`."""
        part, within, chunk = self._part(epoch, index)
        part.fill(epoch, within, out)
        out["start"][...] += self.boxes[chunk].start
        out["case"][...], out["index"][...] = chunk, index

    def where(self, epoch: int, index: int) -> str:
        """The chunk of a sample, in words."""
        return f"chunk {self.order(epoch)[index // self.chunk_iter]} of {len(self.boxes)}"

    def order(self, epoch: int) -> list[int]:
        """The chunks of an epoch, one after the other."""
        if self.mode == "test":
            return list(range(len(self.boxes)))
        rng = sample_generator(self.seed, epoch, _ORDER)
        return [int(chunk) for chunk in rng.permutation(len(self.boxes))]

    def read_chunk(self, number: int) -> Voxels:
        """The voxels of a chunk, beyond the volume filled by `pad_mode`."""
        return {
            name: read_patch(volume, Box.whole(volume.shape), self.boxes[number], self._pad_mode)
            for name, volume in self._volume.items()
        }

    def chunks(self) -> Iterator[tuple[Box, Voxels]]:
        """Every chunk with its place, the next one read while this one is used.

        Yields
        ------
        box : Box
            In voxels of the volume, the padding included.
        voxels : dict of ndarray
            (C, Z, Y, X) each, of the box's shape.
        """
        with ThreadPoolExecutor(1, "volprep-chunks") as reading:
            coming = reading.submit(self.read_chunk, 0)
            for number, box in enumerate(self.boxes):
                voxels = coming.result()
                if number + 1 < len(self.boxes):
                    coming = reading.submit(self.read_chunk, number + 1)
                yield box, voxels

    def _part(self, epoch: int, index: int) -> tuple[VolumeDataset, int, int]:
        """The data set of the chunk that a sample is of, its number there, the chunk's number."""
        order = self.order(epoch)
        turn, within = divmod(index, self.chunk_iter)
        with self._lock:
            now = self._coming(order[turn])
            if turn + 1 < len(order):
                self._coming(order[turn + 1])
        return now.result(), within, order[turn]

    def _coming(self, number: int) -> Future[VolumeDataset]:
        """A chunk that is read, or is being read; the lock is held."""
        if self._reading is None:
            self._reading = ThreadPoolExecutor(1, "volprep-chunks")
        if number not in self._held:
            self._held[number] = self._reading.submit(self._opened, number)
        self._held.move_to_end(number)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
        return self._held[number]

    def _opened(self, number: int) -> VolumeDataset:
        options = {"seed": self.seed + number, "pad_mode": self._pad_mode, **self._options}
        return VolumeDataset(
            [{"name": f"chunk {number}", **self.read_chunk(number)}],
            self.patch_size,
            length=self.chunk_iter,
            **options,
        )


def _region(coordinates: Sequence[int], whole: Box) -> Box:
    if len(coordinates) != 6:
        raise ValueError(f"coord_range: found {coordinates}; wanted (z0, z1, y0, y1, x0, x1)")
    start: Shape3 = three(coordinates[::2])
    stop: Shape3 = three(coordinates[1::2])
    inside = all(0 <= a < b <= n for a, b, n in zip(start, stop, whole.shape, strict=True))
    if not inside:
        raise ValueError(f"coord_range: found {coordinates}; wanted a part of {whole.shape}")
    return Box(start, stop)


def _chosen(
    count: int, wanted: Sequence[int] | None, split: tuple[int, int] | str | None
) -> list[int]:
    """The chunks of this process."""
    chosen = list(range(count)) if wanted is None else [operator.index(n) for n in wanted]
    if any(not 0 <= n < count for n in chosen):
        raise ValueError(f"chunk_ind: found {chosen}; there are {count} chunks, from 0")
    if split is None:
        return chosen
    try:
        rank, world = (
            int(part) for part in (split.split("-") if isinstance(split, str) else split)
        )
    except ValueError:
        rank, world = -1, 0
    if not 0 <= rank < world <= len(chosen):
        raise ValueError(
            f"chunk_ind_split: found {split!r} for {len(chosen)} chunks; "
            "wanted rank-world, such as 0-4"
        )
    size = len(chosen) // world
    return chosen[rank * size : None if rank == world - 1 else (rank + 1) * size]
