"""Volumes from files: one interface over TIFF, NIfTI, HDF5, Zarr, NumPy and folders of slices.

    with open_volume("brain.ome.tif") as volume:
        patch = volume.read(Box((0, 64, 64), (32, 192, 192)))    # (C, 32, 128, 128)

Every volume is (C, Z, Y, X) with spacing in micrometres; this family is the one
place where files' own axes and units are read.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from volprep import objects
from volprep.errors import SourceError
from volprep.places import ARCHIVES, is_remote, path_of
from volprep.sources.aligned import PlaneAxis, aligned, sliced
from volprep.sources.array import ArrayVolume
from volprep.sources.axes import Layout, time_point
from volprep.sources.base import SLAB_BYTES, Array, Volume, changed_meanwhile
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.formats import FORMATS, Format
from volprep.sources.kept import KeptVolume
from volprep.sources.keys import is_image_key, is_label_key
from volprep.sources.labels import LabelVolume
from volprep.sources.named import files_of
from volprep.sources.names import (
    SUFFIXES,
    is_volume_folder,
    is_volume_path,
    kind_of,
    natural_key,
    slice_files,
    stem_of,
)
from volprep.sources.passes import HELD_BYTES, gather, walk
from volprep.sources.placement import Difference, Placement, difference
from volprep.sources.sniff import check_place, content_error, stored_kind
from volprep.sources.wrapped import WrappedVolume

__all__ = [
    "FORMATS",
    "HELD_BYTES",
    "SLAB_BYTES",
    "SUFFIXES",
    "Array",
    "ArrayVolume",
    "ChunkedVolume",
    "Dataset",
    "Difference",
    "Format",
    "Index",
    "KeptVolume",
    "LabelVolume",
    "Layout",
    "Placement",
    "PlaneAxis",
    "Volume",
    "WrappedVolume",
    "aligned",
    "changed_meanwhile",
    "describe_tiles",
    "difference",
    "files_of",
    "gather",
    "is_image_key",
    "is_label_key",
    "is_volume_folder",
    "is_volume_path",
    "list_datasets",
    "natural_key",
    "open_labels",
    "open_volume",
    "slice_files",
    "sliced",
    "stem_of",
    "stored_objects",
    "tile_files",
    "walk",
]


_LINKING = (
    "hdf5",
    "tiff",
    "tiles",
    "nrrd",
    "metaimage",
)  # the formats whose files name other files


#: The formats of files that hold several volumes.
_CONTAINERS = ("hdf5", "zarr", "npy", "n5", "precomputed", "czi", "nd2", "lif", "imaris")


class Dataset(NamedTuple):
    """One array inside a container."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype


def open_volume(
    path: str | Path,
    key: str | None = None,
    axes: str | None = None,
    *,
    allow_external: bool | None = None,
    time: int | None = None,
) -> Volume:
    """Open an image volume; only headers are read.

    Parameters
    ----------
    path : path-like
        A TIFF, NIfTI, HDF5, Zarr, N5, precomputed, ``.npy``, ``.npz``, PNG or JPEG file, a
        folder of slices, or the JSON of a tiled volume; of Zarr, N5 and precomputed volumes
        also a URL: ``s3://``, ``gs://``, ``https://``, ``http://``.
    key : str or None
        The dataset inside an HDF5, Zarr or ``.npz`` container. None takes the only one,
        or the one that is called as images are (``raw``, ``image``, ``main``, ...).
    axes : str or None
        One letter for each stored axis (``"CZYX"``), over what the file says.
    allow_external : bool or None
        Whether other files may be read that the file names (links of HDF5, parts of an
        OME-TIFF): any, none, or (None) those in the file's own folder or below it.
    time : int or None
        The time point to read, where a file holds several; None refuses those that do.

    Returns
    -------
    Volume
        Lazy, picklable, a context manager.

    Raises
    ------
    SourceError
        If the file is missing, damaged, of no known format, has several datasets to choose
        from, or axes that cannot be told.
    """
    with time_point(time):
        return _open(path, key, axes, allow_external, labels=False)


def open_labels(
    path: str | Path,
    key: str | None = None,
    axes: str | None = None,
    *,
    allow_external: bool | None = None,
    time: int | None = None,
) -> Volume:
    """Open a label volume: one channel of unsigned integers, every id as it is in the file.

    Parameters
    ----------
    path, key, axes, allow_external, time
        As for `open_volume`; without a key, the dataset is taken that is called as labels
        are (``label``, ``mask``, ``segmentation``, ...), or the ``labels`` of an OME-Zarr.

    Returns
    -------
    Volume
        Its `dtype` is unsigned and as wide as the file's.

    Raises
    ------
    SourceError
        As for `open_volume`, for labels of several channels, and when a value is read that
        is negative, has a fraction or is no number.
    """
    with time_point(time):
        return LabelVolume(_open(path, key, axes, allow_external, labels=True))


def list_datasets(path: str | Path, *, allow_external: bool | None = None) -> list[Dataset]:
    """The arrays of at least two axes inside an HDF5, Zarr or ``.npz`` container.

    Parameters
    ----------
    path : path-like
        The container.
    allow_external : bool or None
        As for `open_volume`.

    Returns
    -------
    list of Dataset
        (key, shape, dtype), by key in natural order; empty for other formats.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    place = path_of(path)
    kind, place = _kind(place, None)
    if kind not in _CONTAINERS:
        return []
    options = {"allow_external": allow_external} if kind in _LINKING else {}
    try:
        found = import_module(f"volprep.sources.{kind}").datasets(place, **options)
    except SourceError as error:
        raise content_error(place, kind, error) from error
    return sorted((Dataset(*entry) for entry in found), key=lambda d: natural_key(d.key))


def stored_objects(path: Path) -> list[tuple[str, str]]:
    """What lies behind a URL: names, and what the store calls the present content of each.

    Parameters
    ----------
    path : RemotePath
        A container or an array.

    Returns
    -------
    list of (str, str)
        The second is the store's own mark (an ETag of S3, a generation of Google's). Where the
        store lists what it holds, every object; of more than 20,000 only as many and the
        metadata have a mark, and the others an empty one. A web server lists nothing: of the
        metadata there is their content, and of the voxels nothing, so that a chunk that is
        exchanged there is not noticed.

    Raises
    ------
    SourceError
        If nothing is there, or it cannot be reached.
    """
    found = objects.contents(path)
    if found is None:
        from volprep.sources.cloud import metadata_of

        return metadata_of(path)
    if not found:
        raise SourceError(path, "does not exist", "check the URL")
    return [(name, mark) for name, mark in found]


def tile_files(path: Path) -> list[Path]:
    """The tiles that the JSON of a tiled volume names and that are there; none of other files."""
    if path.suffix.lower() != ".json":
        return []
    found: list[Path] = import_module("volprep.sources.tiles").named_files(path)
    return found


def describe_tiles(root: Path, *, missing: str = "error") -> tuple[dict[str, Any], list[str]]:
    """The JSON of a tiled volume; see `volprep.sources.tilefolder.describe_tiles`."""
    found: tuple[dict[str, Any], list[str]] = import_module(
        "volprep.sources.tilefolder"
    ).describe_tiles(root, missing=missing)
    return found


def _open(
    given: str | Path,
    key: str | None,
    axes: str | None,
    allow_external: bool | None,
    *,
    labels: bool,
) -> Volume:
    kind, path = _kind(path_of(given), key)
    reader = import_module(f"volprep.sources.{kind}")
    options = {"allow_external": allow_external} if kind in _LINKING else {}
    try:
        volume: Volume = reader.open_source(path, key, axes, labels=labels, **options)
    except SourceError as error:
        raise content_error(path, kind, error) from error
    if path != path_of(given):
        volume.path = path_of(given)  # of an archive the file, not the folder in it
    return volume


def _kind(path: Path, key: str | None) -> tuple[str, Path]:
    """The module that reads a path, and where in it the volume begins."""
    if is_remote(path):
        return stored_kind(path, key)
    check_place(path)
    kind = kind_of(path)
    if path.suffix.lower() in ARCHIVES and path.is_file() and kind is not None:
        return stored_kind(path, key)
    if kind is None:
        known = ", ".join(sorted({s for s in SUFFIXES if s.count(".") == 1}))
        raise SourceError(path, "is of no known format", f"give one of {known}, or a folder")
    return kind, path
