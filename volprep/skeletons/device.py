"""Baking with torch, for tensors that live on an accelerator."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from volprep.kernels.nearest import index_ids
from volprep.skeletons.labels import as_unsigned
from volprep.skeletons.table import PointTable, Target, missing_skeletons

if TYPE_CHECKING:
    import torch

__all__ = ["bake_tensor"]

_PAIRS = 1 << 23  # voxel-point pairs at a time: 64 MB of float64 for each of a few tensors


def bake_tensor(
    labels: npt.NDArray[Any],
    table: PointTable,
    weights: npt.NDArray[np.float64],
    average: bool,
    target: Target,
    device: str | torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `bake_skeleton` gives, calculated by torch: (3, X, Y, Z) and (X, Y, Z) on `device`.

    Tries every point of an instance on each of its voxels, some millions of pairs at a
    time, with the same float64 operations in the same order as the compiled code; the
    mean is summed in another order.
    """
    import torch

    found = np.empty(labels.shape, np.int32)
    if index_ids(np.ascontiguousarray(as_unsigned(labels)), table.ids, found):
        raise ValueError(missing_skeletons(labels, table))
    rows = torch.from_numpy(found).to(device)
    baked = torch.zeros((3, *rows.shape), dtype=torch.float32, device=device)
    distance = torch.zeros(rows.shape, dtype=torch.float32, device=device)
    flat, lengths = baked.view(3, -1), distance.view(-1)
    points = torch.from_numpy(table.points.T.copy()).to(device)
    scale = torch.from_numpy(weights).to(device)
    for row, voxels in _voxels_by_row(rows):
        own = points[int(table.offsets[row - 1]) : int(table.offsets[row])]
        for some in torch.split(voxels, max(1, _PAIRS // len(own))):
            places = torch.stack(torch.unravel_index(some, rows.shape), dim=1)
            squares = _squared_distances(places, own, scale)
            near = squares.argmin(dim=1)
            flat[:, some] = own[near].T
            lengths[some] = squares.gather(1, near[:, None])[:, 0].sqrt().float()
    if average:
        baked = _average(rows, baked)
    if target == "offset":
        baked -= torch.stack(_grid(rows)) * (rows != 0)
    return baked, distance


def _voxels_by_row(rows: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """The flat indices of the voxels of each row, ascending."""
    import torch

    voxels = rows.view(-1).nonzero()[:, 0]
    order = torch.argsort(rows.view(-1)[voxels], stable=True)
    found, counts = torch.unique_consecutive(rows.view(-1)[voxels[order]], return_counts=True)
    parts = torch.split(voxels[order], counts.tolist())
    return list(zip(found.tolist(), parts, strict=True))


def _squared_distances(
    places: torch.Tensor, points: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    total = None
    for axis in range(3):
        step = places[:, axis, None].double() - points[None, :, axis].double()
        step *= scale[axis]
        step *= step
        total = step if total is None else total.add_(step)
    assert total is not None
    return total


def _average(rows: torch.Tensor, baked: torch.Tensor) -> torch.Tensor:
    """Mean over the neighbours of the own row: the own value and the mean difference to it."""
    import torch

    shape = rows.shape
    around = torch.nn.functional.pad(rows, (1, 1) * 3)
    field = torch.nn.functional.pad(baked, (1, 1) * 3)
    total, count = torch.zeros_like(baked), torch.zeros_like(baked[0])
    for dz, dy, dx in product(range(3), repeat=3):
        cut = tuple(slice(d, d + n) for d, n in zip((dz, dy, dx), shape, strict=True))
        same = around[cut] == rows
        total += torch.where(same, field[(slice(None), *cut)] - baked, 0.0)
        count += same
    return torch.where(rows != 0, baked + total / count, 0.0)


def _grid(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    import torch

    places = [torch.arange(n, device=rows.device, dtype=torch.float32) for n in rows.shape]
    return torch.meshgrid(*places, indexing="ij")
