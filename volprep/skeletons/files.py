"""Skeletons on disk: volprep's ``.npz``, SKOOTS' ``.trch`` and ``.tif``, SWC for viewers."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.geometry import Spacing3
from volprep.skeletons.points import Skeletons

__all__ = ["find_skeleton_file", "read_arrays", "read_skeletons", "write_skeletons", "write_swc"]

_ARRAYS = ("ids", "offsets", "points", "edges", "radii")
_TO_SKOOTS = [1, 2, 0]  # SKOOTS reads a page (Z, X, Y) and stores (X, Y, Z)
_FROM_SKOOTS = [2, 0, 1]


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
    path = Path(path)
    if not path.exists():
        raise SourceError(path, "no such file", "check the path")
    reader = {".npz": _read_npz, ".trch": _read_trch}.get(path.suffix.lower())
    if reader is not None:
        return reader(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        return _read_tif(path, labels)
    raise SourceError(path, f"{path.suffix or 'no'} ending", "give .npz, .trch or .tif")


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
    path = Path(path)
    writer = {".npz": _write_npz, ".trch": _write_trch}.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: skeletons are written to .npz or .trch")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        writer(skeletons, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


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


def read_arrays(
    path: Path, names: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of numbers from an ``.npz`` file, each checked against what is stored.

    Raises
    ------
    SourceError
        If the file is damaged, or one that is not optional is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            wanted = [name for name in names if name not in optional or f"{name}.npy" in there]
            return {name: _read_array(path, archive, name) for name in wanted}
    except zipfile.BadZipFile:
        raise SourceError(path, "not an .npz file", "write it again") from None


def _read_npz(path: Path) -> Skeletons:
    arrays = read_arrays(path, _ARRAYS, optional=("radii",))
    try:
        return Skeletons(**cast("dict[str, Any]", arrays))
    except ValueError as error:
        raise SourceError(path, str(error), "write it again") from None


def _read_array(path: Path, archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """One array, once its header has proven to fit what is stored."""
    member = f"{name}.npy"
    if member not in archive.namelist():
        raise SourceError(path, f"has no {name}", "give a file that volprep wrote")
    with archive.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0
            shape, fortran, dtype = (read if version == (1, 0) else _newer_header)(stream)
        except ValueError as error:
            raise SourceError(path, f"{name}: {error}", "write it again") from None
        stored = archive.getinfo(member).file_size - stream.tell()
        if (
            dtype.hasobject
            or fortran
            or dtype.itemsize * int(np.prod(shape, dtype=object)) != stored
        ):
            raise SourceError(path, f"{name}: {dtype} {shape} in {stored} bytes", "write it again")
        return np.frombuffer(stream.read(), dtype).reshape(shape).copy()


def _newer_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_2_0(stream)


def _write_npz(skeletons: Skeletons, path: Path) -> None:
    arrays = {name: getattr(skeletons, name) for name in _ARRAYS}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{k: a for k, a in arrays.items() if a is not None})


def _read_trch(path: Path) -> Skeletons:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own kinds for each sort of damage
        raise SourceError(
            path, f"cannot be loaded as tensors ({type(error).__name__})", "write it again"
        ) from None
    if not isinstance(content, Mapping) or not all(
        isinstance(key, int) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise SourceError(path, "not a dict of id to tensor", "give SKOOTS' .skeletons.trch")
    points = {key: value.numpy() for key, value in content.items() if key != -1}
    try:
        for key, array in points.items():
            if array.ndim != 2 or array.shape[1] != 3:
                raise ValueError(f"instance {key}: points are {array.shape}, wanted (N, 3)")
        return Skeletons.from_points({key: a[:, _FROM_SKOOTS] for key, a in points.items()})
    except ValueError as error:
        raise SourceError(path, str(error), "write it again") from None


def _write_trch(skeletons: Skeletons, path: Path) -> None:
    import torch

    torch.save(
        {
            instance: torch.from_numpy(skeletons[instance][:, _TO_SKOOTS].copy())
            for instance in skeletons
        },
        path,
    )


def _read_tif(path: Path, labels: npt.NDArray[Any] | None) -> Skeletons:
    import tifffile

    try:
        marks = np.asarray(tifffile.imread(path))
    except (tifffile.TiffFileError, ValueError) as error:
        raise SourceError(path, f"not a TIFF file ({error})", "give a TIFF volume") from None
    marks = marks[None] if marks.ndim == 2 else marks
    if marks.ndim != 3 or marks.dtype.kind not in "uib":
        raise SourceError(path, f"{marks.dtype} {marks.shape}", "give integers in (Z, Y, X)")
    if labels is not None and labels.shape != marks.shape:
        raise SourceError(path, f"shape {marks.shape}", f"the labels are {labels.shape}")
    places = np.argwhere(marks)
    ids = (marks if labels is None else labels)[tuple(places.T)]
    if (ids <= 0).any():
        lost = tuple(int(n) for n in places[np.argmax(ids <= 0)])
        raise SourceError(path, f"voxel {lost} lies in no instance", "skeletonise again")
    order = np.argsort(ids, kind="stable")
    unique, counts = np.unique(ids, return_counts=True)
    return Skeletons(
        unique.astype(np.uint64),
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        places[order].astype(np.float32),
        np.empty((0, 2), np.int64),
    )


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
