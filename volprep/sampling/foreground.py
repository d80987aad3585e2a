"""Where the foreground of a volume lies, so that patches around it are drawn, not searched for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.errors import PlanError
from volprep.geometry import Box, Chunked, Shape3, VolumeLike, aligned_blocks
from volprep.kernels.foreground import gather_runs, group_runs, hash_ids, thin_runs
from volprep.kernels.runs import count_runs, find_runs, join_runs

__all__ = ["ForegroundIndex", "Per"]

Per = Literal["class", "instance", "voxel"]
Int64s = npt.NDArray[np.int64]
MAX_RUNS = 2**23
SLAB_BYTES = 64 * 2**20
#: A row of chunks along x may be so many slabs, since decoding chunks again costs more.
_ROW_OF_CHUNKS = 4


class ForegroundIndex:
    """Every labelled voxel of a volume as runs along x, by id; draws one in O(log n).

    Made by `build` or `load`. The runs of an id are a uniform draw of its voxels
    away: their lengths are summed up, so a number between 0 and the sum names a
    voxel. 16 bytes a run are kept, whatever the number of voxels.

    Attributes
    ----------
    box : Box
        The part of the volume that was indexed.
    per : {'class', 'instance', 'voxel'}
        What `draw` draws evenly, unless told otherwise.
    ids : array of uint64
        The label of each thing that can be drawn; ascending. Where connected
        components were wanted, a label is there once for each of its components.
    counts : array of int64
        Voxels of each.
    exact : bool
        Whether every voxel can be drawn. False where an id had so many runs that
        only a random part of them was kept; see `build`.
    """

    def __init__(
        self,
        box: Box,
        per: Per,
        ids: npt.NDArray[np.uint64],
        counts: Int64s,
        runs: Int64s,
        starts: Int64s,
        ends: Int64s,
    ) -> None:
        self.box, self.per, self.ids, self.counts = box, per, ids, counts
        self._runs = runs  # of each id
        self._starts = starts  # flat index in the box of each run's first voxel
        self._ends = ends  # voxels up to each run's end, over all ids
        self._first_voxel = np.append(0, ends[np.cumsum(runs) - 1])
        self._counted = np.cumsum(counts)
        self.exact = bool(np.array_equal(np.diff(self._first_voxel), counts))

    @classmethod
    def build(
        cls,
        labels: VolumeLike,
        *,
        box: Box | None = None,
        per: Per = "instance",
        ignore: Iterable[int] = (),
        connected: bool = False,
        boxes: Iterable[Box] | None = None,
        max_runs: int = MAX_RUNS,
        progress: Callable[[int], None] | None = None,
    ) -> ForegroundIndex:
        """Index a label volume, slab by slab.

        Parameters
        ----------
        labels : VolumeLike
            One channel of integers; 0 is background.
        box : Box or None
            Only what lies here is indexed (such as a split's block); None is all of it.
        per : {'class', 'instance', 'voxel'}
            What is drawn evenly: ``class`` and ``instance`` draw an id first, each as
            likely as any other, so that small ones are seen (the ids of a class map are
            its classes); ``voxel`` draws each voxel as likely as any other.
        ignore : iterable of int
            Labels that are not drawn either, such as one for "not annotated".
        connected : bool
            Take each connected component (26 neighbours) for a thing of its own: the
            instances of a map that has classes only. It is 6 bytes more a run while
            building.
        boxes : iterable of Box or None
            What to read at once, such as `Volume.slab_boxes()`: disjoint, covering the
            volume; what lies outside `box` is cut off. None takes slabs of whole planes, or,
            of a volume in chunks, rows of whole chunks. The index does not depend on it.
        max_runs : int
            The most runs to keep: at 16 bytes each 134 MB if not given, and about
            four times as much while building. Where there are more, ids with many are
            thinned to one number of runs, chosen by a hash of their place: those ids
            then draw from a random part of their voxels.
        progress : callable or None
            Told how many voxels were read.

        Raises
        ------
        ValueError
            If `labels` has several channels or no integers, `box` reaches beyond it, or
            there are more ids than `max_runs`.
        PlanError
            If connected components are wanted of more runs than `max_runs`.
        """
        _check_labels(labels)
        whole = Box.whole(labels.shape)
        box = whole if box is None else box
        if not whole.contains(box):
            raise ValueError(f"{box} reaches beyond labels of shape {labels.shape[1:]}")
        if per not in ("class", "instance", "voxel"):
            raise ValueError(f"per {per!r}: wanted class, instance or voxel")
        ignored = list(ignore)
        runs = _ConnectedRuns(box, max_runs) if connected else _Runs(box, max_runs)
        for part in _slabs(labels, box) if boxes is None else boxes:
            part = part.common(box)
            if part.size:
                ids, found = _find(labels.read(part)[0], part, box)
                if ignored:
                    kept = ~np.isin(ids, np.array(ignored, np.uint64))
                    ids, found = ids[kept], found[kept]
                runs.add(ids, found)
                if progress is not None:
                    progress(part.size)
        return cls(box, per, *runs.finish())

    def __len__(self) -> int:
        """How many things can be drawn: ids, or connected components."""
        return len(self.ids)

    @property
    def n_voxels(self) -> int:
        """How many foreground voxels there are."""
        return int(self._counted[-1]) if len(self) else 0

    @property
    def nbytes(self) -> int:
        """Memory that the index takes."""
        arrays = (self.ids, self.counts, self._runs, self._starts, self._ends)
        more = (self._first_voxel, self._counted)
        return sum(a.nbytes for a in arrays + more)

    def draw(self, rng: np.random.Generator, per: Per | None = None) -> tuple[int, Shape3]:
        """Draw a foreground voxel.

        Parameters
        ----------
        rng : numpy.random.Generator
        per : {'class', 'instance', 'voxel'} or None
            None is what the index was built for.

        Returns
        -------
        label : int
            Its id.
        voxel : tuple of int
            (Z, Y, X) in the volume.

        Raises
        ------
        ValueError
            If there is no foreground.
        """
        if not len(self):
            raise ValueError(f"no foreground in {self.box}; leave its patches to chance")
        if (per or self.per) == "voxel":
            place = int(rng.random() * self.n_voxels)
            thing = int(np.searchsorted(self._counted, place, side="right"))
        else:
            thing = int(rng.random() * len(self))
        first, stop = int(self._first_voxel[thing]), int(self._first_voxel[thing + 1])
        voxel = first + int(rng.random() * (stop - first))
        run = int(np.searchsorted(self._ends, voxel, side="right"))
        flat = int(self._starts[run]) + voxel - (int(self._ends[run - 1]) if run else 0)
        _, ny, nx = self.box.shape
        (line, x), (a, b, c) = divmod(flat, nx), self.box.start
        return int(self.ids[thing]), (line // ny + a, line % ny + b, x + c)

    def patch_start(
        self, rng: np.random.Generator, patch_size: Sequence[int], per: Per | None = None
    ) -> Shape3:
        """Draw a patch that holds a foreground voxel and lies in the box.

        Parameters
        ----------
        rng : numpy.random.Generator
        patch_size : sequence of int
            (Z, Y, X) in voxels.
        per : {'class', 'instance', 'voxel'} or None
            None is what the index was built for.

        Returns
        -------
        tuple of int
            The patch's first voxel in the volume. All places that hold the drawn voxel
            and keep inside the box are as likely. On an axis where the box is smaller
            than the patch, the patch sticks out on both sides, first by half.

        Raises
        ------
        ValueError
            If there is no foreground.
        """
        _, voxel = self.draw(rng, per)
        start = []
        for v, p, a, b in zip(voxel, patch_size, self.box.start, self.box.stop, strict=True):
            low, high = max(a, v - p + 1), min(v, b - p)
            place = low + int(rng.random() * (high - low + 1))
            start.append(place if b - a >= p else a - (p - (b - a)) // 2)
        return start[0], start[1], start[2]

    def thinned(self, max_runs: int) -> ForegroundIndex:
        """The same with about `max_runs` runs at most: of ids with many a random part is kept.

        Each id keeps one run at least, and is drawn as often as before; which of its voxels can
        be drawn is chosen by a hash of their place.
        """
        if len(self._starts) <= max_runs:
            return self
        cap = max(1.0, _cap(self._runs, max_runs))
        of = np.repeat(np.arange(len(self.ids)), self._runs)
        # Fibonacci hashing: neighbours are as far apart as can be.
        chance = self._starts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        order = np.lexsort((chance, of))
        first = np.repeat(_before(self._runs)[:-1], self._runs)
        kept = np.sort(order[np.arange(len(of)) - first < cap])
        lengths = np.diff(self._ends, prepend=0)[kept]
        runs = np.bincount(of[kept], minlength=len(self.ids)).astype(np.int64)
        return ForegroundIndex(
            self.box, self.per, self.ids, self.counts, runs, self._starts[kept], np.cumsum(lengths)
        )

    def packed(self) -> Int64s:
        """All of the index but its box and `per`, in one array."""
        sizes = np.array([len(self.ids), len(self._starts)], np.int64)
        ids = self.ids.view(np.int64)
        return np.concatenate([sizes, ids, self.counts, self._runs, self._starts, self._ends])

    @classmethod
    def unpacked(cls, box: Box, per: Per, packed: Int64s) -> ForegroundIndex:
        """The index that `packed` was taken of."""
        things, runs = packed[:2].tolist()
        parts = np.split(packed[2:], np.cumsum([things, things, things, runs]))
        return cls(box, per, parts[0].view(np.uint64), *parts[1:])

    def save(self, path: str | Path) -> None:
        """Write the index to an .npz file."""
        np.savez(
            path,
            box=np.array([self.box.start, self.box.stop]),
            per=np.array(self.per),
            ids=self.ids,
            counts=self.counts,
            runs=self._runs,
            starts=self._starts,
            ends=self._ends,
        )

    @classmethod
    def load(cls, path: str | Path) -> ForegroundIndex:
        """Read an index that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            start, stop = file["box"].tolist()
            per = str(file["per"])
            names = ("ids", "counts", "runs", "starts", "ends")
            arrays = [file[name] for name in names]
        return cls(Box(tuple(start), tuple(stop)), per, *arrays)  # type: ignore[arg-type]


class _Runs:
    """Gathers runs by id; beyond `max_runs` those whose hash is highest are let go, id by id."""

    def __init__(self, box: Box, max_runs: int) -> None:
        self._plane, self._max_runs = box.shape[1:], max_runs
        room = max_runs + max_runs // 4 + 1
        # Memory is taken by the system as these are filled, not here.
        self._codes, self._lengths = np.empty(room, np.int32), np.empty(room, np.int32)
        self._starts = np.empty(room, np.int64)
        self._used = np.zeros(2, np.int64)  # ids, runs
        self._ids, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._limits, self._lowest = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self._grow(1024)

    def add(self, ids: npt.NDArray[np.uint64], runs: npt.NDArray[np.int32]) -> None:
        """Take runs (z, y, x, stop) in the box, and their ids."""
        done = 0
        while True:
            done = gather_runs(
                ids, runs, done, self._plane, self._slots, self._ids, self._counts,
                self._limits, self._lowest, self._used, self._codes, self._starts, self._lengths,
            )  # fmt: skip
            if done == len(ids):
                return
            if self._used[0] == len(self._ids):
                self._grow(2 * len(self._ids))
            else:
                self._thin()

    def finish(self) -> tuple[Any, ...]:
        """The ids ascending, their voxels and numbers of runs; the runs' starts and ends."""
        if self._used[1] > self._max_runs:
            self._thin()
        n_ids, n_runs = self._used.tolist()
        # In the order of their places, in whatever order the blocks came.
        if (np.diff(self._starts[:n_runs]) < 0).any():
            placed = np.argsort(self._starts[:n_runs], kind="stable")
            for array in (self._codes, self._starts, self._lengths):
                array[:n_runs] = array[:n_runs][placed]
        codes = self._codes[:n_runs]
        order = np.argsort(self._ids[:n_ids])
        runs = np.bincount(codes, minlength=n_ids).astype(np.int64)[order]
        rows = np.empty(n_ids, np.int64)
        rows[order] = _before(runs)[:-1]
        starts, lengths = np.empty(n_runs, np.int64), np.empty(n_runs, np.int64)
        group_runs(codes, self._starts[:n_runs], self._lengths[:n_runs], rows, starts, lengths)
        ends = np.cumsum(lengths, out=lengths)
        return self._ids[order], self._counts[order], runs, starts, ends

    def _grow(self, room: int) -> None:
        """Make room for more ids."""
        more, highest = room - len(self._ids), np.iinfo(np.uint64).max
        self._ids = np.append(self._ids, np.zeros(more, np.uint64))
        self._counts = np.append(self._counts, np.zeros(more, np.int64))
        self._limits = np.append(self._limits, np.full(more, highest, np.uint64))
        self._lowest = np.append(self._lowest, np.full(more, highest, np.uint64))
        self._slots = np.full(2 ** (2 * room - 1).bit_length(), -1, np.int32)
        hash_ids(self._ids, int(self._used[0]), self._slots)

    def _thin(self) -> None:
        """Lower the limits of ids with many runs until about `max_runs` are left."""
        n_ids, n_runs = self._used.tolist()
        if n_ids > self._max_runs:
            raise ValueError(
                f"labels hold over {self._max_runs} ids; they are no instances, or raise max_runs"
            )
        runs = np.bincount(self._codes[:n_runs], minlength=n_ids)
        share = np.minimum(1, _cap(runs, self._max_runs) / np.maximum(runs, 1))
        cut = np.flatnonzero(share < 1)
        self._limits[cut] = (self._limits[cut] * share[cut]).astype(np.uint64)
        self._used[1] = thin_runs(
            self._limits, self._lowest, n_runs, self._codes, self._starts, self._lengths
        )


class _ConnectedRuns:
    """Collects all runs, and gives those that touch an id of their own."""

    def __init__(self, box: Box, max_runs: int) -> None:
        self._box, self._max_runs = box, max_runs
        self._parts: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]] = []

    def add(self, ids: npt.NDArray[np.uint64], runs: npt.NDArray[np.int32]) -> None:
        """Take runs (z, y, x, stop) in the box, and their ids."""
        self._parts.append((ids, runs))
        if sum(len(runs) for _, runs in self._parts) > self._max_runs:
            raise PlanError(
                f"labels have over {self._max_runs} runs, too many to find connected components "
                f"in memory; set patching.foreground.per to class"
            )

    def finish(self) -> tuple[Any, ...]:
        """As `_Runs.finish`, the components of an id one after the other."""
        ids = np.concatenate([np.zeros(0, np.uint64), *[ids for ids, _ in self._parts]])
        runs = np.concatenate([np.zeros((0, 4), np.int32), *[runs for _, runs in self._parts]])
        in_order = np.lexsort((runs[:, 2], runs[:, 1], runs[:, 0]))
        ids, runs = ids[in_order], np.ascontiguousarray(runs[in_order])
        components = np.zeros(len(runs), np.int32)
        count = join_runs(runs, ids, True, components)
        lengths = (runs[:, 3] - runs[:, 2]).astype(np.int64)
        labels = np.zeros(count, np.uint64)
        labels[components] = ids
        order = np.argsort(labels, kind="stable")
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        codes = rank[components]
        by_thing = np.argsort(codes, kind="stable")
        return (
            labels[order],
            np.bincount(codes, lengths, count).astype(np.int64),
            np.bincount(codes, minlength=count).astype(np.int64),
            _flat(runs, self._box.shape)[by_thing],
            np.cumsum(lengths[by_thing]),
        )


def _check_labels(labels: VolumeLike) -> None:
    if labels.shape[0] != 1 or labels.dtype.kind not in "biu":
        raise ValueError(
            f"labels: {labels.shape} of {labels.dtype}; wanted one channel of integers"
        )


def _slabs(labels: VolumeLike, box: Box) -> Iterator[Box]:
    """Whole lines together: planes, rows of one where it is too large, or layers of chunks.

    What lies beyond the box is not cut off.
    """
    voxels = max(1, SLAB_BYTES // labels.dtype.itemsize)
    deep, high = _chunks(labels, _ROW_OF_CHUNKS * voxels)
    first = (box.start[0] // deep * deep, box.start[1] // high * high, box.start[2])
    within = Box(first, box.stop)
    _, ny, nx = within.shape
    rows = max(1, min(-(-ny // high), voxels // max(1, deep * high * nx))) * high
    planes = max(1, voxels // max(1, deep * rows * nx)) * deep if rows >= ny else deep
    for part in aligned_blocks(within.shape, (planes, rows, max(1, nx))):
        yield part.shift(first)


def _chunks(labels: VolumeLike, most: int) -> tuple[int, int]:
    """Planes and rows that are decoded together; 1 where a row of chunks is too much to hold."""
    if not isinstance(labels, Chunked) or labels.chunks == labels.shape[1:]:
        return 1, 1
    deep, high, _ = labels.chunks
    return (deep, high) if deep * high * labels.shape[3] <= most else (1, 1)


def _find(
    block: npt.NDArray[Any], part: Box, box: Box
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
    """The ids and runs of a block, counted from the start of the box."""
    block = np.ascontiguousarray(block)
    if block.dtype.kind != "u":
        block = block.view(f"u{block.dtype.itemsize}")
    count = count_runs(block)
    ids, runs = np.empty(count, np.uint64), np.empty((count, 4), np.int32)
    find_runs(block, ids, runs)
    z, y, x = (a - b for a, b in zip(part.start, box.start, strict=True))
    runs += np.array([z, y, x, x], np.int32)
    return ids, runs


def _flat(runs: npt.NDArray[np.int32], shape: Shape3) -> Int64s:
    z, y, x = runs[:, :3].T.astype(np.int64)
    flat: Int64s = (z * shape[1] + y) * shape[2] + x
    return flat


def _cap(runs: Int64s, total: int) -> float:
    """The number of runs to which ids must be cut so that about `total` are left."""
    ascending = np.sort(runs)
    below = _before(ascending)[:-1]  # runs of all smaller ids
    caps = (total - below) / np.arange(len(runs), 0, -1)
    fits = caps <= ascending
    return float(caps[np.argmax(fits)]) if fits.any() else math.inf


def _before(counts: Int64s) -> Int64s:
    return np.append(0, np.cumsum(counts)).astype(np.int64)
