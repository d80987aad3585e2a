"""Hollow objects: a skeleton is made of the object filled up, and led around its cavities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, dijkstra
from scipy.spatial import cKDTree

from volprep.geometry import Shape3
from volprep.kernels import runs as run_kernels
from volprep.kernels import thinning

__all__ = ["find_cavities", "lead_around", "link"]

IntArray = npt.NDArray[np.int32]
Mask = npt.NDArray[np.uint8]
Voxels = npt.NDArray[np.int64]


def find_cavities(runs: IntArray, shape: Shape3) -> IntArray:
    """Runs of the free voxels that no path by faces leads out from."""
    gaps = np.empty((shape[0] * shape[1] + len(runs), 4), np.int32)
    gaps = gaps[: run_kernels.find_gaps(runs, shape, gaps)]
    number = np.empty(len(gaps), np.int32)
    run_kernels.join_runs(gaps, np.zeros(len(gaps), np.uint64), False, number)
    return np.asarray(gaps[number != 0])  # the first gap lies in the margin


def lead_around(
    voxels: Voxels, edges: Voxels, mask: Mask, cavities: IntArray, scale: npt.NDArray[np.float64]
) -> tuple[Voxels, Voxels]:
    """Replace what lies in a cavity by the shortest ways along its shore.

    Parameters
    ----------
    voxels, edges : array, shape (N, 3) and (E, 2)
        Of the object filled up.
    mask : array of uint8, shape (Z, Y, X)
        The object, zero in its cavities.
    cavities : array, shape (R, 4)
        Runs of the cavities.
    scale : array, shape (3,)
        Size of a voxel, for the lengths of the ways.

    Returns
    -------
    voxels, edges
        All in the object; what was connected still is, and each new edge links voxels
        that touch.

    Notes
    -----
    The shore, the object's voxels that touch a cavity, holds together around each cavity, so
    there always is a way. A loop that lies in a cavity as a whole is opened.
    """
    lost = mask[tuple(voxels.T)] == 0
    if not lost.any():
        return voxels, edges
    shore, ways = _shore(mask, cavities, scale)
    tree = cKDTree(shore * scale)
    links = _graph(edges, np.ones(len(edges)), len(voxels))
    inside = lost[edges].all(axis=1)
    _, groups = connected_components(_graph(edges[inside], np.ones(inside.sum()), len(voxels)))
    parts, new = [voxels[~lost]], []
    order = np.flatnonzero(lost)[np.argsort(groups[lost], kind="stable")]
    for group in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        for way in _ways_around(group, lost, voxels, links, tree, ways, scale):
            parts.append(shore[way])
            new.append(np.stack((shore[way[:-1]], shore[way[1:]]), axis=1))
    kept = edges[~lost[edges].any(axis=1)]
    return _renumber(np.concatenate(parts), np.concatenate((voxels[kept], *new)), mask.shape)


def _ways_around(
    group: Voxels,
    lost: npt.NDArray[np.bool_],
    voxels: Voxels,
    links: csr_array,
    tree: cKDTree,
    ways: csr_array,
    scale: npt.NDArray[np.float64],
) -> list[Voxels]:
    """Ways along the shore (rows of it) that link what one lost piece of skeleton linked."""
    near = np.unique(links[group].indices)
    held = near[~lost[near]]
    tips = group[np.diff(links.indptr)[group] == 1]
    if len(held) == 0:
        tips = tips if len(tips) else breadth_first_order(links, group[0])[0][[0, -1]]
        # The whole skeleton moves to one side of the cavity, rather than each point to its own.
        _, first = tree.query(voxels[tips[0]] * scale)
        offset = tree.data[first] - voxels[tips[0]] * scale
    else:
        offset = np.zeros(3)
    places = np.concatenate((voxels[held] * scale, voxels[tips] * scale + offset))
    _, ends = tree.query(places)
    start, *others = np.unique(ends).tolist()
    _, before = dijkstra(ways, indices=start, return_predecessors=True)
    return [_walk(before, start, end) for end in others] or [np.array([start])]


def _walk(before: npt.NDArray[np.int32], start: int, end: int) -> Voxels:
    way = [end]
    while way[-1] != start:
        way.append(int(before[way[-1]]))
    return np.array(way)


def _shore(
    mask: Mask, cavities: IntArray, scale: npt.NDArray[np.float64]
) -> tuple[Voxels, csr_array]:
    """The voxels of the object that touch a cavity, and the lengths of the steps between them."""
    length = (cavities[:, 3] - cavities[:, 2]).astype(np.int64)
    line = np.repeat(cavities[:, :3].astype(np.int64), length, axis=0)
    line[:, 2] += np.arange(len(line)) - np.repeat(np.cumsum(length) - length, length)
    around = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    near = (line[:, None] + around).reshape(-1, 3)
    flat = np.unique(np.ravel_multi_index(tuple(near.T), mask.shape))
    flat = flat[mask.ravel()[flat] != 0]
    marks = np.zeros(mask.size, np.uint8)
    marks[flat] = 1
    shore = np.stack(np.unravel_index(flat, mask.shape), axis=1)
    pairs = link(marks, flat, mask.shape)
    steps = np.linalg.norm((shore[pairs[:, 0]] - shore[pairs[:, 1]]) * scale, axis=1)
    return shore, _graph(pairs, steps, len(shore))


def link(marks: Mask, voxels: Voxels, shape: Shape3) -> Voxels:
    """The pairs (E, 2) of voxels that touch; `voxels` are flat, ascending, and set in `marks`."""
    strides = shape[1] * shape[2], shape[2]
    count = thinning.link_voxels(marks, voxels, *strides, np.empty((0, 2), np.int64))
    pairs = np.empty((count, 2), np.int64)
    thinning.link_voxels(marks, voxels, *strides, pairs)
    return pairs


def _graph(edges: Voxels, lengths: npt.NDArray[np.float64], size: int) -> csr_array:
    both = np.concatenate((edges, edges[:, ::-1]))
    return csr_array((np.tile(lengths, 2), both.T), shape=(size, size))


def _renumber(voxels: Voxels, ends: Voxels, shape: Shape3) -> tuple[Voxels, Voxels]:
    """Each voxel once, in the order of the volume, and the edges between their rows."""
    flat = np.unique(np.ravel_multi_index(tuple(voxels.T), shape))
    rows = np.searchsorted(flat, np.ravel_multi_index(tuple(np.moveaxis(ends, 2, 0)), shape))
    pairs = np.unique(np.sort(rows, axis=1), axis=0)
    return np.stack(np.unravel_index(flat, shape), axis=1), pairs
