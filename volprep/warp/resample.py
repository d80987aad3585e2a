"""Read image and labels through one coordinate map, each once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box
from volprep.warp.map import Border, CoordinateMap, check_inside

__all__ = ["resample"]

Array = npt.NDArray[Any]


def resample(
    coordinates: CoordinateMap,
    out_shape: Sequence[int],
    image: Array | None = None,
    labels: Sequence[Array] = (),
    *,
    origin: Sequence[int] = (0, 0, 0),
    border: Border = "raise",
    fill: float = 0.0,
    label_fill: int = 0,
    out: tuple[npt.NDArray[np.float32] | None, Sequence[Array]] | None = None,
    threads: int = 1,
) -> tuple[npt.NDArray[np.float32] | None, list[Array]]:
    """Read an image and its labels through one map: linear for images, nearest for labels.

    Parameters
    ----------
    coordinates : CoordinateMap
        From output voxels to source voxels.
    out_shape : sequence of three ints
        (Z, Y, X) of the result.
    image : array, shape (C, Z, Y, X), or None
        The block of the source that was read, of any real dtype.
    labels : sequence of arrays, shape (Z, Y, X) or (C, Z, Y, X) each
        Integers or booleans, over the same voxels as the image.
    origin : sequence of three ints
        Where the block begins in the source.
    border : {'raise', 'fill', 'reflect'}
        What lies beyond the block: an error, `fill` and `label_fill`, or the
        block mirrored about its outermost voxels. Read the block that
        `CoordinateMap.source_block` names, and this is the source's own border.
    fill, label_fill : float, int
        For the voxels whose nearest source voxel does not exist.
    out : (array of float32 or None, sequence of arrays), optional
        Where to write, C-contiguous, as returned.
    threads : int
        1 inside a loader's worker.

    Returns
    -------
    image : array of float32, shape (C, Z, Y, X), or None
    labels : list of arrays
        In their own dtypes, every id exact.

    Raises
    ------
    WarpingOOBError
        If `border` is ``raise`` and the map reaches outside the block.
    ValueError
        If shapes do not agree, or a label is not of integers.
    """
    from scipy.ndimage import map_coordinates

    z, y, x = (int(n) for n in out_shape)
    shape = next(a.shape[-3:] for a in ([] if image is None else [image]) + list(labels))
    if border == "raise":
        check_inside(coordinates.source_box(out_shape), Box.at(origin, shape))
    grid = np.stack(np.meshgrid(*map(np.arange, (z, y, x)), indexing="ij"), -1).reshape(-1, 3)
    at = coordinates.relative_to(origin).source_points(grid)
    last = np.array(shape) - 1
    outside = np.any((at < -0.5) | (at > last + 0.5), 1) if border == "fill" else None
    if border == "reflect":
        at = np.abs(at - 2 * np.maximum(last, 1) * np.round(at / (2 * np.maximum(last, 1))))
    at = np.clip(at, 0, last)
    result = None
    if image is not None:
        result = np.stack(
            [map_coordinates(c.astype(np.float32), at.T, order=1, mode="nearest") for c in image]
        )
        if outside is not None:
            result[:, outside] = fill
        result = result.reshape(-1, z, y, x)
    nearest = tuple(np.floor(at + 0.5).astype(int).T)
    found = []
    for label in labels:
        moved = label[..., *nearest]
        if outside is not None:
            moved[..., outside] = label_fill
        found.append(moved.reshape(*label.shape[:-3], z, y, x))
    if out is not None:
        if result is not None and out[0] is not None:
            out[0][...] = result
            result = out[0]
        for target, source in zip(out[1], found, strict=True):
            target[...] = source
        found = list(out[1])
    return result, found
