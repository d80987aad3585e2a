"""Passes: many boxes of one or several volumes, with each chunk of their files decoded once.

Whoever wants boxes that cut through the chunks of a file, or boxes of several files whose
chunks differ, decodes chunks again and again, or holds many of them. A pass goes the other way
about: it sweeps each file layer of chunks by layer of chunks, decodes a chunk that some box
wants, brings its parts to all boxes that want them, and lets go of it. What is held are the
boxes that are begun and not finished, however large the chunks are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Chunked, VolumeLike
from volprep.sources.base import SLAB_BYTES, Array, Volume, forget_block, map_of
from volprep.sources.chunked import LARGE_BYTES
from volprep.sources.scratch import scratch_array

__all__ = ["HELD_BYTES", "gather", "groups", "walk"]

#: What the boxes of a pass that are begun and not finished may take of the memory.
HELD_BYTES = 256 * 2**20
#: What is read in one go, where a layer is wanted in wide parts.
_READ_BYTES = 4 * 2**20
#: The largest block of what is read from its beginning: such blocks come in new memory,
#: which the allocator hands out again only where it is small.
_STREAM_BYTES = 2**20
#: Reads that wait for a thread: enough that none is idle while boxes are handed out.
_AHEAD = 32


def gather(
    volumes: Sequence[VolumeLike | None],
    boxes: Sequence[Box],
    *,
    held: int = HELD_BYTES,
    spill: bool = False,
    pool: Executor | None = None,
) -> Iterator[tuple[Array | None, ...]]:
    """The voxels of many boxes, in their order.

    Parameters
    ----------
    volumes : sequence of VolumeLike or None
        Of one shape along (Z, Y, X), such as an image, its labels and its mask; None gives None.
    boxes : sequence of Box
        Inside the volumes and not empty. Where they ascend in z, few are open at once.
    held : int
        Bytes that boxes may take which are begun and not finished. Where they would take more,
        the boxes are gone through in several passes, and a chunk that two of those want is
        decoded twice; one box may always be open.
    spill : bool
        Whether what is more goes to scratch files instead, so that there is one pass.
    pool : Executor or None
        Threads that read; None reads in the calling one.

    Yields
    ------
    tuple of ndarray (C, Z, Y, X) or None
        One for each volume; of a mapped file a copy.

    Raises
    ------
    SourceError
        If a file cannot be read.

    Notes
    -----
    Mapped files, files that are read from their beginning, and those whose chunks are so large
    that they are decoded into scratch files, are read box by box: their parts are at hand.
    """
    swept = [n for n, volume in enumerate(volumes) if _is_swept(volume)]
    if not swept or len(boxes) < 2:
        for box in boxes:
            arrays = tuple(None if volume is None else _own(volume, box) for volume in volumes)
            yield arrays
        return
    for first, last in groups(volumes, boxes, None if spill else held):
        yield from _Pass(volumes, swept, boxes[first:last], held if spill else None, pool).run()


def walk(
    volumes: Sequence[VolumeLike | None],
    region: Box | None = None,
    *,
    max_bytes: int = SLAB_BYTES,
) -> Iterator[tuple[Box, tuple[Array | None, ...]]]:
    """Volumes of one shape together, each voxel once, in the order z, y, x.

    Parameters
    ----------
    volumes : sequence of VolumeLike or None
        Such as an image, its labels and its mask; None gives None. Not all are None.
    region : Box or None
        What is walked through; None takes all.
    max_bytes : int
        The size of a block of all volumes together; at least one chunk is read.

    Yields
    ------
    box : Box
        Boxes are disjoint and cover the region. Where chunks differ they follow those of the
        volume that has the most bytes in a voxel, since what is open is of the others.
    arrays : tuple of ndarray (C, Z, Y, X) or None
        Valid until the next is asked for, and read-only, mapped or not: kernels are compiled for
        one kind of array, and not for two.
    """
    for box, arrays in _walked(volumes, region, max_bytes):
        views = tuple(None if array is None else array.view() for array in arrays)
        for view in views:
            if view is not None:
                view.flags.writeable = False
        yield box, views


def _walked(
    volumes: Sequence[VolumeLike | None], region: Box | None, max_bytes: int
) -> Iterator[tuple[Box, tuple[Array | None, ...]]]:
    """As `walk`; maybe writeable."""
    there = [volume for volume in volumes if volume is not None]
    within = Box.whole(there[0].shape) if region is None else region
    if any(isinstance(v, Volume) and v.sequential for v in there):
        yield from _walk_streams(volumes, within, min(max_bytes, _STREAM_BYTES))
        return
    boxes = [box.common(within) for box in _boxes(there, max_bytes)]
    boxes = [box for box in boxes if box.size]
    if all(_is_aligned(box, volume) for volume in there if _is_swept(volume) for box in boxes):
        # No chunk lies in two boxes: nothing is to be put together, nor copied.
        for box in boxes:
            arrays = tuple(None if volume is None else volume.read(box) for volume in volumes)
            yield box, arrays
            for array in arrays:
                if array is not None:  # or all that is walked through stays in memory
                    forget_block(array)
        return
    yield from zip(boxes, gather(volumes, boxes, spill=True), strict=True)


def _is_aligned(box: Box, volume: Chunked) -> bool:
    """Whether a box consists of whole chunks."""
    starts = all(a % c == 0 for a, c in zip(box.start, volume.chunks, strict=True))
    ends = zip(box.stop, volume.chunks, volume.shape[1:], strict=True)
    return starts and all(b % c == 0 or b == n for b, c, n in ends)


def _walk_streams(
    volumes: Sequence[VolumeLike | None], region: Box, max_bytes: int
) -> Iterator[tuple[Box, tuple[Array | None, ...]]]:
    """Whole planes, of what can only be read from its beginning, and of what goes with it."""
    streams = {
        n: v for n, v in enumerate(volumes) if isinstance(v, Volume) and v.sequential
    }  # fmt: skip
    others = [None if n in streams else volume for n, volume in enumerate(volumes)]
    first = next(iter(streams.values()))
    plane = sum(_voxel_bytes(v) for v in volumes if v is not None) * first.shape[2] * first.shape[3]
    depth = max(1, max_bytes // max(1, plane))
    boxes = first.slab_boxes(depth)
    slabs = {n: volume.slabs(depth) for n, volume in streams.items()}
    for box, found in zip(boxes, gather(others, boxes, spill=True), strict=True):
        arrays = list(found)
        for n, stream in slabs.items():
            arrays[n] = next(stream)[1]
        part = box.common(region)
        if part.size:
            inside = part.shift([-n for n in box.start]).slices
            yield part, tuple(None if a is None else a[:, *inside] for a in arrays)
        if box.stop[0] >= region.stop[0]:
            return


def _boxes(volumes: Sequence[VolumeLike], max_bytes: int) -> list[Box]:
    """Blocks of some volumes that follow the chunks of one of them."""
    swept = [volume for volume in volumes if _is_swept(volume)]
    lead = max(swept, key=_voxel_bytes) if swept else volumes[0]
    share = max_bytes * _voxel_bytes(lead) // sum(map(_voxel_bytes, volumes))
    if isinstance(lead, Volume):
        return lead.slab_boxes(max_bytes=share)
    _, nz, ny, nx = lead.shape
    depth = max(1, share // max(1, _voxel_bytes(lead) * ny * nx))
    return [Box((z, 0, 0), (z + depth, ny, nx)).clip(lead.shape) for z in range(0, nz, depth)]


def _voxel_bytes(volume: VolumeLike) -> int:
    """Of all channels."""
    return int(volume.dtype.itemsize) * int(volume.shape[0])


def _own(volume: VolumeLike, box: Box) -> Array:
    """A box, in memory of its own where the file is mapped.

    Boxes wait for a thread, and a program that writes the file anew meanwhile would end the
    process that reads from the map; see `volprep.sources.base.read_pieces`.
    """
    found = volume.read(box)
    if map_of(found) is None:
        return found
    own = np.array(found, order="C")
    forget_block(found)
    return own


def groups(
    volumes: Sequence[VolumeLike | None], boxes: Sequence[Box], held: int | None
) -> list[tuple[int, int]]:
    """First and last (exclusive) of the boxes of each pass; None of `held` makes it one."""
    if held is None:
        return [(0, len(boxes))]
    swept = [volume for volume in volumes if _is_swept(volume)]
    cost = sum(v.dtype.itemsize * v.shape[0] for v in swept)
    depth = max((v.chunks[0] for v in swept), default=1)
    cuts, open_, taken, reach = [0], deque[tuple[int, int]](), 0, 0
    for number, box in enumerate(boxes):
        start, size = box.start[0] // depth * depth, box.size * cost
        while open_ and open_[0][0] <= start:
            taken -= open_.popleft()[1]
        backwards = number > cuts[-1] and box.start[0] < boxes[number - 1].start[0]
        if backwards or (open_ and taken + size > held):
            cuts.append(number)
            open_.clear()
            taken = reach = 0
        # A box is handed out when those before it are.
        reach = max(reach, -(-box.stop[0] // depth) * depth)
        open_.append((reach, size))
        taken += size
    return list(pairwise([*cuts, len(boxes)]))


def _is_swept(volume: VolumeLike | None) -> TypeGuard[Chunked]:
    """Whether boxes of a volume are put together from chunks that memory can hold."""
    if not isinstance(volume, Chunked) or volume.chunks == volume.shape[1:]:
        return False
    if isinstance(volume, Volume) and (volume.mapped or volume.sequential):
        return False
    size = volume.shape[0] * volume.dtype.itemsize * Box.whole(volume.chunks).size
    return size <= LARGE_BYTES


@dataclass(slots=True)
class _Request:
    """A box, and what is there of it of each volume."""

    box: Box
    arrays: list[Array | None]


class _Pass:
    """One pass over boxes that ascend in z, or of which all may be open at once."""

    def __init__(
        self,
        volumes: Sequence[VolumeLike | None],
        swept: Sequence[int],
        boxes: Sequence[Box],
        held: int | None,
        pool: Executor | None,
    ) -> None:
        self._volumes = volumes
        self._requests = [_Request(box, [None] * len(volumes)) for box in boxes]
        room = _Room(held)
        self._sweeps = [_Sweep(n, volumes[n], self._requests, room, pool) for n in swept]
        self._room = room

    def run(self) -> Iterator[tuple[Array | None, ...]]:
        """Each box when it is whole."""
        try:
            for number, request in enumerate(self._requests):
                for sweep in self._sweeps:
                    sweep.reach(request.box.stop[0])
                arrays = list(request.arrays)
                for place, volume in enumerate(self._volumes):
                    if arrays[place] is None and volume is not None:
                        arrays[place] = _own(volume, request.box)
                request.arrays.clear()
                yield tuple(arrays)
                self._room.give_back(number)
        finally:
            for sweep in self._sweeps:
                sweep.stop()


class _Room:
    """Where open boxes are put together: in memory as long as they fit, else in scratch files."""

    def __init__(self, held: int | None) -> None:
        self._held, self._taken = held, 0
        self._of: dict[int, int] = {}

    def make(self, number: int, volume: Chunked, box: Box) -> Array:
        shape = (volume.shape[0], *box.shape)
        size = box.size * volume.shape[0] * volume.dtype.itemsize
        if self._held is not None and self._taken + size > self._held and self._taken:
            return scratch_array("a pass over chunks that differ", shape, volume.dtype)
        self._taken += size
        self._of[number] = self._of.get(number, 0) + size
        return np.empty(shape, volume.dtype)

    def give_back(self, number: int) -> None:
        self._taken -= self._of.pop(number, 0)


@dataclass(slots=True)
class _Sweep:
    """The layers of chunks of one volume, from the first that a box wants to the last."""

    place: int
    volume: Any
    requests: Sequence[_Request]
    room: _Room
    pool: Executor | None
    _starts: npt.NDArray[np.int64] = field(init=False)
    _stops: npt.NDArray[np.int64] = field(init=False)
    _order: npt.NDArray[np.int64] = field(init=False)
    _layer: int = field(init=False)
    _waiting: deque[tuple[int, Future[None]]] = field(init=False, default_factory=deque)

    def __post_init__(self) -> None:
        self._starts = np.array([r.box.start for r in self.requests])
        self._stops = np.array([r.box.stop for r in self.requests])
        self._order = np.argsort(self._starts[:, 0], kind="stable")
        self._layer = int(self._starts[:, 0].min()) // self.volume.chunks[0]

    def reach(self, z: int) -> None:
        """Bring everything before plane `z` to the boxes that want it."""
        depth = self.volume.chunks[0]
        while self._layer * depth < z:
            self._sweep()
        last = int(self._stops[:, 0].max())
        while self.pool is not None and len(self._waiting) < _AHEAD and self._layer * depth < last:
            self._sweep()  # so that threads read while boxes are handed out
        while self._waiting and self._waiting[0][0] * depth < z:
            self._waiting.popleft()[1].result()

    def stop(self) -> None:
        """Let nothing run on."""
        for _, future in self._waiting:
            future.cancel()

    def _sweep(self) -> None:
        """Read one layer, or have it read."""
        depth, layer = self.volume.chunks[0], self._layer
        self._layer += 1
        starts = self._starts[self._order, 0]
        begun = self._order[: np.searchsorted(starts, (layer + 1) * depth)]
        active = begun[self._stops[begun, 0] > layer * depth]
        for number in active.tolist():
            request = self.requests[number]
            if request.arrays[self.place] is None:
                room = self.room.make(number, self.volume, request.box)
                request.arrays[self.place] = room
        for box in self._wanted(layer, active):
            if self.pool is None:
                self._bring(box, active)
            else:
                self._waiting.append((layer, self.pool.submit(self._bring, box, active)))

    def _wanted(self, layer: int, active: npt.NDArray[np.int64]) -> Iterator[Box]:
        """The parts of a layer that some box wants, whole chunks."""
        if not active.size:
            return
        chunks, shape = self.volume.chunks, self.volume.shape[1:]
        first = self._starts[active, 1:] // chunks[1:]
        last = -(-self._stops[active, 1:] // chunks[1:])
        low, high = first.min(axis=0), last.max(axis=0)
        wanted = np.zeros(high - low, bool)
        for (a, b), (c, d) in zip((first - low).tolist(), (last - low).tolist(), strict=True):
            wanted[a:c, b:d] = True
        voxel = self.volume.shape[0] * self.volume.dtype.itemsize
        most = max(1, _READ_BYTES // (voxel * Box.whole(chunks).size))
        for rows, columns in _rectangles(wanted, most):
            start = (layer, rows.start + int(low[0]), columns.start + int(low[1]))
            stop = (layer + 1, rows.stop + int(low[0]), columns.stop + int(low[1]))
            yield Box(
                (start[0] * chunks[0], start[1] * chunks[1], start[2] * chunks[2]),
                (stop[0] * chunks[0], stop[1] * chunks[1], stop[2] * chunks[2]),
            ).clip(shape)

    def _bring(self, box: Box, active: npt.NDArray[np.int64]) -> None:
        block = self.volume.read(box)
        # All boxes at once, and plain numbers from there on: as `Box`es, what they have in common
        # takes as long as half of the copies.
        low = np.maximum(self._starts[active], box.start)
        size = np.minimum(self._stops[active], box.stop) - low
        meets = (size > 0).all(axis=1)
        numbers, low, size = active[meets], low[meets], size[meets]
        to, of = low - self._starts[numbers], low - box.start
        for number, *ends in zip(
            numbers.tolist(), to.tolist(), (to + size).tolist(), of.tolist(), (of + size).tolist(),
            strict=True,
        ):  # fmt: skip
            target = self.requests[number].arrays[self.place]
            if target is not None:
                (z, y, x), (dz, dy, dx), (sz, sy, sx), (ez, ey, ex) = ends
                target[:, z:dz, y:dy, x:dx] = block[:, sz:ez, sy:ey, sx:ex]


def _rectangles(wanted: npt.NDArray[np.bool_], most: int) -> Iterator[tuple[slice, slice]]:
    """Disjoint rectangles of at most so many cells (a row at least in part) that cover a mask."""
    begun: dict[tuple[int, int], int] = {}
    for row in range(len(wanted) + 1):
        runs: set[tuple[int, int]] = set()
        if row < len(wanted):
            edges = np.flatnonzero(np.diff(wanted[row], prepend=False, append=False))
            for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                runs.update((c, min(b, c + most)) for c in range(a, b, most))
        for run, first in list(begun.items()):
            if run not in runs or (row - first + 1) * (run[1] - run[0]) > most:
                yield slice(begun.pop(run), row), slice(*run)
        for run in runs:
            begun.setdefault(run, row)
