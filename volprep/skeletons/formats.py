"""The files that hold skeletons: volprep's ``.npz``, SKOOTS' ``.trch`` and ``.tif``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.files import NewFile

__all__ = ["ARRAYS", "read_arrays", "read_npz", "read_tif", "read_trch", "write_npz", "write_trch"]

Arrays = dict[str, npt.NDArray[Any]]
Points = dict[int, npt.NDArray[Any]]

ARRAYS = ("ids", "offsets", "points", "edges", "radii")
_TO_SKOOTS = [1, 2, 0]  # SKOOTS reads a page (Z, X, Y) and stores (X, Y, Z)
_FROM_SKOOTS = [2, 0, 1]


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


def read_npz(path: Path) -> Arrays:
    """The arrays of a file that volprep wrote."""
    return read_arrays(path, ARRAYS, optional=("radii",))


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
        except (ValueError, TokenError) as error:  # NumPy tokenises what it cannot parse
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


def write_npz(arrays: Mapping[str, npt.NDArray[Any] | None], path: Path) -> None:
    """Write arrays that are there to one file."""
    with NewFile(path) as new:
        np.savez(new.file, allow_pickle=False, **{k: a for k, a in arrays.items() if a is not None})


def read_trch(path: Path) -> Points:
    """Points (Z, Y, X) by id, of a file as SKOOTS writes it."""
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
    for key, array in points.items():
        if array.ndim != 2 or array.shape[1] != 3:
            found = f"instance {key}: points are {array.shape}"
            raise SourceError(path, found, "wanted (N, 3); write it again")
    return {key: array[:, _FROM_SKOOTS] for key, array in points.items()}


def write_trch(points: Mapping[int, npt.NDArray[np.float32]], path: Path) -> None:
    """Write points (Z, Y, X) by id as SKOOTS reads them."""
    import torch

    content = {i: torch.from_numpy(p[:, _TO_SKOOTS].copy()) for i, p in points.items()}
    # Into an open file: given a path, torch writes the path's name into the file.
    with NewFile(path) as new:
        torch.save(content, new.file)


def read_tif(path: Path, labels: npt.NDArray[Any] | None) -> Arrays:
    """The non-zero voxels of a volume, by their values or by the labels there."""
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
    return {
        "ids": unique.astype(np.uint64),
        "offsets": np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        "points": places[order].astype(np.float32),
        "edges": np.empty((0, 2), np.int64),
    }
