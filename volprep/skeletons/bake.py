"""The baked skeleton: at every voxel, the nearest point of its own instance's skeleton."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from volprep.compute import run_units
from volprep.geometry import Box, Shape3, aligned_blocks
from volprep.kernels import nearest
from volprep.skeletons.labels import as_unsigned
from volprep.skeletons.table import (
    PointTable,
    Target,
    check_anisotropy,
    check_masks,
    missing_skeletons,
)

if TYPE_CHECKING:
    import torch

__all__ = ["bake_box", "bake_skeleton"]

Field = npt.NDArray[np.float32]
Volume = TypeVar("Volume", npt.NDArray[Any], "torch.Tensor")

_BLOCK = 64  # voxels along each axis that are baked at once, about: they stay in the cache


def bake_skeleton(
    masks: Volume,
    skeletons: Mapping[int, Any],
    anisotropy: Sequence[float] = (1.0, 1.0, 1.0),
    average: bool = True,
    device: str | torch.device = "cpu",
    return_distance: bool = False,
    *,
    target: Target = "position",
    workers: int | None = 1,
) -> Volume | tuple[Volume, Volume]:
    """Give every voxel the nearest point of its own instance's skeleton.

    Parameters
    ----------
    masks : array or tensor of int, shape (1, X, Y, Z) or (X, Y, Z)
        Instance ids, 0 is background. The axes may have any order.
    skeletons : Skeletons, or mapping of int to array or tensor of shape (N, 3)
        Points by instance id, in voxels, in the axis order of `masks`. They may lie
        between voxels and outside the volume. Ids that `masks` does not hold are
        passed over, and so is SKOOTS' key -1 ("no object").
    anisotropy : sequence of float
        Size of a voxel along each axis of `masks`, in any unit: distances are taken
        after every coordinate is multiplied with it.
    average : bool
        Replace each voxel's point by the mean over the 3x3x3 voxels around it that are
        of the same instance.
    device : str or torch.device
        Where to calculate. On ``cpu`` compiled code does it, elsewhere torch; the
        numbers are the same.
    return_distance : bool
        Return the weighted distance of each voxel to its nearest point, too.
    target : {'position', 'offset'}
        The point's coordinates, or its coordinates minus the voxel's. Offsets stay the
        same when the volume is cropped.
    workers : int or None
        Threads for ``cpu``; None takes every processor.

    Returns
    -------
    baked : array or tensor, shape (3, X, Y, Z), float32
        Coordinates along the axes of `masks`; 0 in the background. Where several
        points are equally near, it is the first of them. Tensors, on `device`, for a
        tensor; arrays for an array.
    distance : array or tensor, shape (1, X, Y, Z), float32
        Only with `return_distance`; before averaging; 0 in the background.

    Raises
    ------
    ValueError
        If an instance has no skeleton or no point, if points are not (N, 3), or a
        shape is wrong. The message names the id.
    TypeError
        If `masks` does not hold integers.

    Notes
    -----
    After SKOOTS' `bake_skeleton`, whose document gives the points as (3, N) in one place
    and (N, 3) in another: here they are (N, 3). Differs: distances are the same on every
    device (SKOOTS weights squared distances with the square of the anisotropy on the CPU,
    with the anisotropy itself on a GPU), in float64, and given on every device; the mean
    does not reach into other instances nor leave out coordinates that are 0; results are
    float32, so that coordinates above 2048 stay exact; memory does not grow with the
    number of points times the number of voxels.
    """
    weights = check_anisotropy(anisotropy)
    if target not in get_args(Target):
        raise ValueError(f"target is {target!r}, wanted one of {', '.join(get_args(Target))}")
    labels = check_masks(masks)
    table = PointTable.of(skeletons)
    results: tuple[Any, Any]
    if str(device) == "cpu":
        results = _bake_array(labels, table, weights, average, target, return_distance, workers)
    else:
        from volprep.skeletons.device import bake_tensor

        results = bake_tensor(labels, table, weights, average, target, device)
    baked: Volume = _like(masks, results[0], device)
    return (baked, _like(masks, results[1][None], device)) if return_distance else baked


def _bake_array(
    labels: npt.NDArray[Any],
    table: PointTable,
    weights: npt.NDArray[np.float64],
    average: bool,
    target: Target,
    with_distance: bool,
    workers: int | None,
) -> tuple[Field, Field]:
    out = np.empty((3, *labels.shape), np.float32)
    distance = np.empty(labels.shape if with_distance else (0, 0, 0), np.float32)
    whole = Box.whole(labels.shape)
    bake_box(
        labels,
        whole,
        whole,
        table,
        weights=weights,
        average=average,
        target=target,
        out=out,
        distance=distance if with_distance else None,
        workers=workers,
    )
    return out, distance


def bake_box(
    labels: npt.NDArray[Any],
    read: Box,
    box: Box,
    table: PointTable,
    *,
    weights: npt.NDArray[np.float64],
    average: bool,
    target: Target,
    out: Field,
    distance: Field | None = None,
    workers: int | None = 1,
) -> None:
    """Bake a box of a volume, in blocks that stay in the cache.

    Parameters
    ----------
    labels : array of int, shape of `read`
        Of the box and, for the mean, of one voxel around it where there is one.
    read, box : Box
        Where the labels lie, and what is baked, in the axes of the points.
    table : PointTable
        Must hold every label.
    weights : array, shape (3,)
        The anisotropy.
    average, target, workers
        As for `bake_skeleton`.
    out : array, shape (3, ...), float32
        Of the box; written.
    distance : array of the shape of `box`, float32, or None
        Written if it is given.
    """

    def bake(local: Box) -> None:
        block = local.shift(box.start)
        around = block.grow(1) if average else block
        given = around.common(read)
        given_labels = labels[given.shift([-a for a in read.start]).slices]
        part = out[(slice(None), *local.slices)]
        whole = part if part.flags.c_contiguous else _kept.take("part", part.shape, np.float32)
        field = _kept.take("field", (3, *around.shape), np.float32) if average else whole
        rows = _bake_block(given_labels, given, around, table, weights, field)
        inner = block.shift([-a for a in around.start]).slices
        if distance is not None:
            lengths = _kept.take("lengths", around.shape, np.float32)
            origin = np.array(around.start, np.float64)
            nearest.measure_distances(rows, field, origin, weights, lengths)
            distance[local.slices] = lengths[inner]
        if average:
            nearest.average_instances(rows, field, whole)
        if target == "offset":
            _subtract_places(whole, block, rows[inner] != 0)
        if whole is not part:
            part[...] = whole

    for _ in run_units(bake, aligned_blocks(box.shape, _even(box.shape)), workers=workers):
        pass


def _even(shape: Sequence[int]) -> Shape3:
    """The size of the blocks that cut each axis into as few equal parts as `_BLOCK` allows."""
    z, y, x = (-(-n // -(-n // _BLOCK)) if n else 1 for n in shape)
    return z, y, x


def _bake_block(
    labels: npt.NDArray[Any],
    given: Box,
    around: Box,
    table: PointTable,
    weights: npt.NDArray[np.float64],
    field: Field,
) -> npt.NDArray[np.int32]:
    """Write the positions of a block around the given labels; return the rows of the table.

    The array that is returned is the thread's own, until its next block.
    """
    rows = _kept.take("rows", around.shape, np.int32)
    origin = np.array(around.start, np.float64)
    shift = given.shift([-a for a in around.start]).start
    ids = np.ascontiguousarray(as_unsigned(labels))
    places = (table.points, table.offsets, origin, weights)
    missing, more = nearest.bake_lines(ids, shift, table.ids, *places, rows, field)
    if missing:
        raise ValueError(missing_skeletons(labels, table))
    if more:
        leaves, after = (_kept.take(name, (rows.size,), np.int32) for name in ("leaves", "after"))
        nearest.bake_leaves(rows, *_leaves(around.shape), *places, leaves, after, field)
    return rows


@lru_cache(maxsize=64)
def _leaves(shape: Shape3) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    corners, groups = nearest.list_leaves(shape)
    return corners, groups


class _Kept(threading.local):
    """Arrays that a thread keeps from block to block: new memory costs more than the work in it."""

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def take(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A contiguous array of this shape, holding anything."""
        size = math.prod(shape)
        array = self._arrays.get(name)
        if array is None or array.size < size:
            array = self._arrays[name] = np.empty(size, dtype)
        return array[:size].reshape(shape)


_kept = _Kept()


def _subtract_places(field: Field, box: Box, where: npt.NDArray[np.bool_]) -> None:
    """Take each voxel's coordinates away from the field (3, ...), in place."""
    for axis in range(3):
        place = np.arange(box.start[axis], box.stop[axis], dtype=np.float32)
        place = place.reshape([-1 if a == axis else 1 for a in range(3)])
        np.subtract(field[axis], place, out=field[axis], where=where)


def _like(given: Any, result: Any, device: str | torch.device) -> Any:
    """The result as what was given: an array, or a tensor on the device."""
    if isinstance(given, np.ndarray):
        return result if isinstance(result, np.ndarray) else result.cpu().numpy()
    import torch

    return torch.as_tensor(result, device=device)
