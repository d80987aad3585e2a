"""Skeletons of volumes that are larger than memory: a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.compute import Engine, run_units
from volprep.geometry import Box, Shape3, Spacing3, VolumeLike, aligned_blocks
from volprep.skeletons.bake import bake_box
from volprep.skeletons.labels import list_runs
from volprep.skeletons.make import (
    Component,
    Method,
    Trace,
    check_method,
    gather,
    split_runs,
    trace_component,
)
from volprep.skeletons.paint import paint_block
from volprep.skeletons.points import Skeletons
from volprep.skeletons.table import PointTable, Target, check_anisotropy

__all__ = [
    "bake_volume",
    "field_blocks",
    "mask_blocks",
    "paint_volume",
    "skeletonize_volume",
    "trace_volume",
]

Progress = Callable[[int], None]
Make = Callable[[Box], npt.NDArray[Any]]
Write = Callable[[Box, npt.NDArray[Any]], None]

_RUNS = 1 << 23  # runs of labels in memory at a time: 24 bytes each, and as much to sort them
_PACK = 1 << 15  # runs that are sent to another process at a time: half a megabyte


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass over the blocks tells of the instances, by ascending id.

    Attributes
    ----------
    ids : array, shape (K,), uint64
    runs, voxels : array, shape (K,), int64
        How many runs along x and how many voxels an instance has.
    low, high : array, shape (K, 3), int64
        The box around it, `high` exclusive.
    """

    ids: npt.NDArray[np.uint64]
    runs: npt.NDArray[np.int64]
    voxels: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    def box(self, rows: npt.NDArray[np.intp]) -> Box:
        """The box around some instances."""
        return Box(
            tuple(self.low[rows].min(axis=0).tolist()), tuple(self.high[rows].max(axis=0).tolist())
        )


def skeletonize_volume(
    volume: VolumeLike,
    *,
    spacing: Spacing3 | None = None,
    method: Method = "lee",
    block: Shape3 = (256, 256, 256),
    workers: int | None = 1,
    progress: Progress | None = None,
) -> Skeletons:
    """Make the skeletons of a volume of labels without loading it whole.

    Parameters
    ----------
    volume : VolumeLike
        Instance ids in one channel.
    spacing : tuple of float or None
        (Z, Y, X) size of a voxel. None takes the volume's own, or else measures in voxels.
    method : {'lee', 'teasar'}
        As for `skeletonize`.
    block : tuple of int
        (Z, Y, X) voxels to read at a time.
    workers : int or None
        Threads; None takes every processor.
    progress : callable or None
        Called with the number of voxels done since the last call; they add up to twice
        the volume, once for finding the objects and once for thinning them.

    Returns
    -------
    Skeletons
        The same as `skeletonize` gives for the whole array, whatever the blocks: a
        component that crosses blocks is one component.

    Notes
    -----
    One pass over the blocks finds the box and the size of every instance. Then the
    instances are taken in groups: the blocks that a group touches are read again, its
    runs of labels are joined to components, and the components are thinned one by one.
    Memory holds a group's runs and, for each thread, one byte for each voxel of the box
    around one component.
    """
    return gather(
        trace_volume(
            volume,
            spacing=spacing,
            method=method,
            block=block,
            workers=workers,
            progress=progress,
        )
    )


def trace_volume(
    volume: VolumeLike,
    *,
    spacing: Spacing3 | None = None,
    method: Method = "lee",
    block: Shape3 = (256, 256, 256),
    workers: int | None = 1,
    engine: Engine | None = None,
    progress: Progress | None = None,
    runs_at_once: int = _RUNS,
    skip: int = 0,
) -> Iterator[Trace]:
    """Walk the skeletons of a volume's components; parameters as for `skeletonize_volume`.

    All the components of one instance come in one group, which has at most
    `runs_at_once` runs (or one instance). The order is always the same, whatever `engine`
    finds the objects and thins them (None takes threads), so that an interrupted walk can go
    on: the first `skip` components are found, but not thinned.
    """
    check_method(method)
    report = progress or (lambda _count: None)
    shape = _label_shape(volume)
    engine = engine or Engine(workers=workers)
    survey = survey_volume(volume, block=block, engine=engine, progress=report)
    if method == "teasar" and engine.kind == "threads":
        engine = Engine("serial")  # it holds the interpreter's lock
    trace = partial(
        trace_component,
        spacing=volume.spacing if spacing is None else spacing,
        method=method,
    )
    left = int(np.prod(shape))
    for rows in _group(survey, runs_at_once):
        components = _read_group(
            volume, survey.ids[np.sort(rows)], survey.box(rows), block, workers
        )
        for known in islice(components, skip):
            report(known.voxels)
            left -= known.voxels
            skip -= 1
        for found in _traced(trace, components, engine):
            report(found.voxels)
            left -= found.voxels
            yield found
    report(left)


def _traced(
    trace: Callable[[Component], Trace], components: Iterable[Component], engine: Engine
) -> Iterator[Trace]:
    """The traces in order; what goes to another process goes in packs, for each has its price."""
    if engine.kind in ("serial", "threads"):
        yield from engine.in_order(trace, components)
    else:
        for traces in engine.in_order(partial(_trace_all, trace), _packs(components)):
            yield from traces


def _trace_all(trace: Callable[[Component], Trace], components: Sequence[Component]) -> list[Trace]:
    return [trace(component) for component in components]


def _packs(components: Iterable[Component]) -> Iterator[list[Component]]:
    pack: list[Component] = []
    runs = 0
    for component in components:
        pack.append(component)
        runs += len(component.runs)
        if runs >= _PACK:
            yield pack
            pack, runs = [], 0
    if pack:
        yield pack


def survey_volume(
    volume: VolumeLike,
    *,
    block: Shape3 = (256, 256, 256),
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Find the size of every instance and the box around it, in one pass over the blocks."""
    parts: list[Survey] = []
    boxes = aligned_blocks(_label_shape(volume), block)
    engine = engine or Engine("serial")
    for part, size in engine.in_order(partial(_look, volume), boxes):
        parts.append(part)
        if sum(len(p.ids) for p in parts) > 4 * len(parts[0].ids) + 1_000_000:
            parts = [_merge(parts)]
        if progress is not None:
            progress(size)
    return _merge(parts)


def _look(volume: VolumeLike, box: Box) -> tuple[Survey, int]:
    ids, runs = list_runs(volume.read(box)[0])
    return _survey_runs(ids, runs, box.start), box.size


def bake_volume(
    labels: VolumeLike,
    skeletons: Skeletons,
    write: Write,
    *,
    anisotropy: Spacing3 | None = None,
    average: bool = True,
    target: Target = "position",
    block: Shape3 = (128, 128, 128),
    workers: int | None = 1,
    progress: Progress | None = None,
) -> None:
    """Bake a volume of labels block by block; see `bake_skeleton`.

    Parameters
    ----------
    labels : VolumeLike
        Instance ids in one channel; a block is read with one voxel around it.
    skeletons : Skeletons
        Of every instance, in the volume's voxels.
    write : callable
        Takes a block's `Box` and its field (3, Z, Y, X) float32. It is called in one
        thread, in the order of the blocks.
    anisotropy : tuple of float or None
        (Z, Y, X). None takes the volume's spacing, or else (1, 1, 1).
    average, target
        As for `bake_skeleton`.
    block : tuple of int
        (Z, Y, X) voxels to bake at a time.
    workers : int or None
        Threads; None takes every processor.
    progress : callable or None
        Called with the number of voxels done since the last call.

    Raises
    ------
    ValueError
        If an instance has no skeleton; the message names it.
    """
    bake = field_blocks(labels, skeletons, anisotropy=anisotropy, average=average, target=target)
    _write_blocks(bake, _label_shape(labels), block, write, workers, progress)


def field_blocks(
    labels: VolumeLike,
    skeletons: Skeletons,
    *,
    anisotropy: Spacing3 | None = None,
    average: bool = True,
    target: Target = "position",
) -> Make:
    """What gives the field (3, Z, Y, X) of any box of a volume; as for `bake_volume`.

    It can be pickled, if the labels can.
    """
    weights = check_anisotropy(anisotropy or labels.spacing or (1.0, 1.0, 1.0))
    return _FieldBlocks(labels, PointTable.of(skeletons), weights, average, target)


@dataclass(frozen=True, eq=False)
class _FieldBlocks:
    labels: VolumeLike
    table: PointTable
    weights: npt.NDArray[np.float64]
    average: bool
    target: Target

    def __call__(self, box: Box) -> npt.NDArray[Any]:
        read = (box.grow(1) if self.average else box).clip(_label_shape(self.labels))
        out = np.empty((3, *box.shape), np.float32)
        bake_box(
            self.labels.read(read)[0],
            read,
            box,
            self.table,
            weights=self.weights,
            average=self.average,
            target=self.target,
            out=out,
        )
        return out


def paint_volume(
    shape: Shape3,
    skeletons: Skeletons,
    write: Write,
    *,
    radius: float = 7,
    flank_radius: float = 3,
    dtype: npt.DTypeLike = np.uint8,
    block: Shape3 = (128, 128, 128),
    workers: int | None = 1,
    progress: Progress | None = None,
) -> None:
    """Paint the skeleton mask of a volume (Z, Y, X) block by block; see `skeleton_to_mask`.

    `write` takes a block's `Box` and its mask (1, Z, Y, X); the other parameters are
    those of `skeleton_to_mask` and `bake_volume`.
    """
    paint = mask_blocks(skeletons, radius=radius, flank_radius=flank_radius, dtype=dtype)
    _write_blocks(paint, shape, block, write, workers, progress)


def mask_blocks(
    skeletons: Skeletons,
    *,
    radius: float = 7,
    flank_radius: float = 3,
    dtype: npt.DTypeLike = np.uint8,
) -> Make:
    """What gives the skeleton mask (1, Z, Y, X) of any box; as for `paint_volume`."""
    points = skeletons.points[np.argsort(skeletons.points[:, 0], kind="stable")]
    return _MaskBlocks(points, radius, flank_radius, np.dtype(dtype))


@dataclass(frozen=True, eq=False)
class _MaskBlocks:
    points: npt.NDArray[np.float32]  # by ascending z
    radius: float
    flank_radius: float
    dtype: np.dtype[Any]

    def __call__(self, box: Box) -> npt.NDArray[Any]:
        reach = max(self.radius, self.flank_radius) + 2
        ends = (box.start[0] - reach, box.stop[0] + reach)
        first, last = np.searchsorted(self.points[:, 0], ends)
        out = np.zeros(box.shape, self.dtype)
        paint_block(
            self.points[first:last], box, out,
            radius=self.radius, flank_radius=self.flank_radius,
        )  # fmt: skip
        return out[None]


def _write_blocks(
    make: Make,
    shape: Shape3,
    block: Shape3,
    write: Write,
    workers: int | None,
    progress: Progress | None,
) -> None:
    def one(box: Box) -> tuple[Box, npt.NDArray[Any]]:
        return box, make(box)

    for box, field in run_units(one, aligned_blocks(shape, block), workers=workers):
        write(box, field)
        if progress is not None:
            progress(box.size)


def _label_shape(volume: VolumeLike) -> Shape3:
    channels, z, y, x = volume.shape
    if channels != 1:
        raise ValueError(f"labels have {channels} channels, wanted one")
    return z, y, x


def _survey_runs(ids: npt.NDArray[np.uint64], runs: npt.NDArray[np.int32], start: Shape3) -> Survey:
    wide = runs.astype(np.int64)
    low = wide[:, :3] + start
    high = wide[:, [0, 1, 3]] + start + (1, 1, 0)
    return _reduce(ids, np.ones(len(ids), np.int64), high[:, 2] - low[:, 2], low, high)


def _merge(parts: list[Survey]) -> Survey:
    return _reduce(
        np.concatenate([p.ids for p in parts] or [np.empty(0, np.uint64)]),
        np.concatenate([p.runs for p in parts] or [np.empty(0, np.int64)]),
        np.concatenate([p.voxels for p in parts] or [np.empty(0, np.int64)]),
        np.concatenate([p.low for p in parts] or [np.empty((0, 3), np.int64)]),
        np.concatenate([p.high for p in parts] or [np.empty((0, 3), np.int64)]),
    )


def _reduce(
    ids: npt.NDArray[np.uint64],
    runs: npt.NDArray[np.int64],
    voxels: npt.NDArray[np.int64],
    low: npt.NDArray[np.int64],
    high: npt.NDArray[np.int64],
) -> Survey:
    """Put rows of the same id together."""
    if len(ids) == 0:
        return Survey(ids, runs, voxels, low, high)
    order = np.argsort(ids, kind="stable")
    unique, first = np.unique(ids[order], return_index=True)
    return Survey(
        unique,
        np.add.reduceat(runs[order], first),
        np.add.reduceat(voxels[order], first),
        np.minimum.reduceat(low[order], first),
        np.maximum.reduceat(high[order], first),
    )


def _group(survey: Survey, most: int) -> Iterator[npt.NDArray[np.intp]]:
    """Rows of the survey, those that begin near one another together, `most` runs at a time."""
    order = np.lexsort(survey.low.T[::-1])
    group: list[int] = []
    held = 0
    for row in order:
        if group and held + survey.runs[row] > most:
            yield np.array(group)
            group, held = [], 0
        group.append(int(row))
        held += int(survey.runs[row])
    if group:
        yield np.array(group)


def _read_group(
    volume: VolumeLike,
    ids: npt.NDArray[np.uint64],
    within: Box,
    block: Shape3,
    workers: int | None,
) -> Iterator[Component]:
    """The components of some instances, from the blocks that touch the box around them."""

    def read(box: Box) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
        found, runs = list_runs(volume.read(box)[0])
        place = np.searchsorted(ids, found)
        mine = ids[np.minimum(place, len(ids) - 1)] == found
        z, y, x = box.start
        return found[mine], runs[mine] + np.array([z, y, x, x], np.int32)

    boxes = (b for b in aligned_blocks(volume.shape, block) if b.overlaps(within))
    parts = list(run_units(read, boxes, workers=workers))
    labels = np.concatenate([part[0] for part in parts])
    runs = np.concatenate([part[1] for part in parts])
    del parts
    order = np.lexsort((runs[:, 2], runs[:, 1], runs[:, 0]))
    return split_runs(labels[order], runs[order])
