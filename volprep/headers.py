"""Shapes and spacings of a folder of images, from their headers: no voxel is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from volprep.errors import DataCheckError, SourceError
from volprep.geometry import Spacing3
from volprep.sources import Volume, is_volume_path, natural_key, open_volume

__all__ = [
    "Header",
    "MixedShapesError",
    "NoMedianError",
    "compute_median",
    "header_of",
    "list_volumes",
    "median_shape",
    "median_spacing",
    "read_headers",
]


class MixedShapesError(DataCheckError, AssertionError, ValueError):
    """Images of one folder have no shape in common: 2D beside 3D, or other channels.

    Also an AssertionError and a ValueError, which is what biom3d documents.
    """


class NoMedianError(SourceError, AssertionError):
    """There is no image to take the median of, or its shape cannot be read.

    Also an AssertionError, which is what biom3d documents.
    """


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    shape : tuple of int
        (C, Z, Y, X).
    ndim : int
        3 where the file has a z axis, else 2.
    dtype : str
        Of its voxels.
    spacing : tuple of float or None
        (Z, Y, X) in micrometres.
    """

    path: Path
    shape: tuple[int, int, int, int]
    ndim: int
    dtype: str
    spacing: Spacing3 | None


def list_volumes(folder: str | Path) -> list[Path]:
    """The volumes in a folder and below it, in natural order.

    Parameters
    ----------
    folder : path-like
        A folder, in which every file is one volume; or one volume.

    Raises
    ------
    SourceError
        If it does not exist, or holds no volume.
    """
    root = Path(folder)
    if not root.exists():
        raise SourceError(root, "does not exist", "check the path")
    if is_volume_path(root):
        return [root]
    found = sorted(_below(root), key=natural_key) if root.is_dir() else []
    if not found:
        raise SourceError(
            root, "no image in it", "give a folder of TIFF, NIfTI, HDF5, Zarr, NumPy or PNG files"
        )
    return found


def read_headers(paths: Sequence[str | Path]) -> list[Header]:
    """What each file says of itself.

    Raises
    ------
    SourceError
        If a file cannot be read.
    """
    headers = []
    for path in paths:
        with open_volume(path) as volume:
            headers.append(header_of(volume))
    return headers


def header_of(volume: Volume) -> Header:
    """What an opened volume says of itself."""
    return Header(volume.path, volume.shape, volume.ndim_spatial, str(volume.dtype), volume.spacing)


def compute_median(
    path: str | Path, return_spacing: bool = False
) -> npt.NDArray[np.int64] | tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Median shape of the images in a folder, and on request their median spacing.

    Parameters
    ----------
    path : path-like
        A folder of images, searched with its subfolders.
    return_spacing : bool, default False
        Return the spacing as well.

    Returns
    -------
    median : ndarray of int
        (Z, Y, X) in voxels, Z being 1 for 2D images; (C, Z, Y, X) where the images
        have several channels. Axis by axis, rounded down.
    spacing : ndarray of float
        Median spacing, (Z, Y, X) in micrometres, over the images that state one;
        empty where none does. Only with `return_spacing`.

    Raises
    ------
    NoMedianError
        If there is no image at `path`, or one cannot be read.
    MixedShapesError
        If 2D images lie beside 3D ones, or the numbers of channels differ.

    Notes
    -----
    After biom3d `compute_median`. Differs: only headers are read; spacing is known
    for every format that carries it, not NIfTI alone; it is in micrometres and in
    the order of the shape, where biom3d gives (X, Y, Z) in the file's own unit.
    """
    try:
        headers = read_headers(list_volumes(path))
    except SourceError as error:
        raise NoMedianError(error.path, error.found, error.wanted) from error
    median = median_shape(headers)
    if not return_spacing:
        return median
    spacing = median_spacing(headers)
    if spacing is None:
        import logging  # 6 ms that nobody else here waits for

        log = logging.getLogger("volprep.headers")
        log.warning("%s: no image states its spacing; the median spacing is empty", path)
    return median, np.array([] if spacing is None else spacing, np.float64)


def median_shape(headers: Sequence[Header]) -> npt.NDArray[np.int64]:
    """Axis by axis; without C where every image has one channel."""
    _check_alike(headers)
    shapes = np.array([h.shape for h in headers])
    if shapes[0, 0] == 1:
        shapes = shapes[:, 1:]
    middle: npt.NDArray[np.float64] = np.median(shapes, axis=0)
    return middle.astype(np.int64)


def median_spacing(headers: Sequence[Header]) -> Spacing3 | None:
    """Axis by axis, over the images that state one."""
    known = [h.spacing for h in headers if h.spacing is not None]
    if not known:
        return None
    z, y, x = np.median(known, axis=0).tolist()
    return z, y, x


def _below(folder: Path) -> list[Path]:
    found = []
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if is_volume_path(entry):
            found.append(entry)
        elif entry.is_dir():
            found += _below(entry)
    return found


def _check_alike(headers: Sequence[Header]) -> None:
    first = headers[0]
    for other in headers[1:]:
        if other.ndim != first.ndim:
            raise MixedShapesError([
                f"{other.path}: a {other.ndim}D image, where {first.path} is {first.ndim}D; "
                "keep 2D and 3D images in folders of their own"
            ])  # fmt: skip
        if other.shape[0] != first.shape[0]:
            raise MixedShapesError([
                f"{other.path}: {other.shape[0]} channels, where {first.path} has "
                f"{first.shape[0]}; give images with the same channels"
            ])  # fmt: skip
