"""Skeletons on disk: one file of a volume, found beside its labels, or SWC for viewers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Spacing3
from volprep.skeletons.points import Skeletons

__all__ = ["find_skeleton_file", "read_skeletons", "write_skeletons", "write_swc"]


def read_skeletons(path: str | Path, *, labels: npt.NDArray[Any] | None = None) -> Skeletons:
    """Read the skeletons of a volume.

    Parameters
    ----------
    path : path-like
        ``.npz`` (volprep), ``.trch`` (SKOOTS: a dict of id to points in (X, Y, Z), where
        X counts the rows of a slice) or ``.tif`` (a volume (Z, Y, X) whose non-zero
        voxels are points). ``.trch`` needs torch.
    labels : array of int, shape (Z, Y, X), or None
        For ``.tif``: the instances, if the file only marks where the skeletons are.
        None takes the file's own values for ids.

    Returns
    -------
    Skeletons
        In (Z, Y, X).

    Raises
    ------
    SourceError
        If the file is missing, damaged, or holds something else. Nothing in it is
        executed: no pickled object is loaded but tensors.
    """
    return Skeletons.from_file(path, labels=labels)


def write_skeletons(skeletons: Skeletons, path: str | Path) -> Path:
    """Write skeletons to one file, under a temporary name until it is whole.

    Parameters
    ----------
    skeletons : Skeletons
        In (Z, Y, X).
    path : path-like
        ``.npz``, which keeps everything, or ``.trch``, which SKOOTS reads and which keeps
        ids and points (needs torch).

    Returns
    -------
    pathlib.Path
        The file.
    """
    skeletons.to_file(path)
    return Path(path)


def write_swc(
    skeletons: Skeletons, folder: str | Path, *, spacing: Spacing3 | None = None
) -> list[Path]:
    """Write one SWC file for each instance: ``<folder>/<id>.swc``.

    Parameters
    ----------
    skeletons : Skeletons
        In (Z, Y, X).
    folder : path-like
        Made if it is not there.
    spacing : tuple of float or None
        (Z, Y, X) size of a voxel in micrometres, which the file's lengths then are.
        None writes voxels.

    Returns
    -------
    list of pathlib.Path
        The files, by ascending id.

    Notes
    -----
    SWC holds trees: of a loop one edge is left out. Each connected component has a root
    of its own. A radius that nobody measured is written as 0.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scale = np.asarray((1.0, 1.0, 1.0) if spacing is None else spacing)
    paths = []
    for instance in skeletons:
        points = skeletons[instance] * scale
        radii = skeletons.radii_of(instance)
        order, parents = _grow_tree(len(points), skeletons.edges_of(instance))
        lines = [f"# instance {instance}, lengths in {'voxels' if spacing is None else 'um'}"]
        for number, (row, parent) in enumerate(zip(order, parents, strict=True), start=1):
            z, y, x = points[row]
            radius = 0.0 if radii is None else radii[row]
            lines.append(f"{number} 0 {x:.6g} {y:.6g} {z:.6g} {radius:.6g} {parent}")
        paths.append(folder / f"{instance}.swc")
        paths[-1].write_text("\n".join(lines) + "\n", encoding="ascii")
    return paths


def find_skeleton_file(labels: str | Path) -> Path | None:
    """The skeleton file beside ``X.labels.tif`` (or any label file), or None.

    Looks for ``X.skeletons.npz``, ``X.skeletons.trch``, the name that SKOOTS' own command
    writes (``X.labels.tif.skeletons.trch``) and ``X.skeletons.tif``, in this order.
    """
    labels = Path(labels)
    stem = labels.name.split(".labels.")[0] if ".labels." in labels.name else labels.stem
    names = (
        f"{stem}.skeletons.npz",
        f"{stem}.skeletons.trch",
        f"{labels.name}.skeletons.trch",
        f"{stem}.skeletons.tif",
    )
    found = (labels.with_name(name) for name in names)
    return next((path for path in found if path.exists()), None)


def _grow_tree(count: int, edges: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Rows in an order in which parents come first, and the parent's place (from 1; -1: none)."""
    near: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges.tolist():
        near[a].append(b)
        near[b].append(a)
    places = [0] * count
    order: list[int] = []
    parents: list[int] = []
    for start in range(count):
        stack = [(start, -1)]
        while stack:
            row, parent = stack.pop()
            if places[row]:
                continue
            order.append(row)
            parents.append(parent)
            places[row] = len(order)
            stack.extend((other, places[row]) for other in reversed(near[row]))
    return order, parents
