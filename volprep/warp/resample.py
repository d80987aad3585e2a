"""Read image and labels through one coordinate map, each once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.compute import run_shares
from volprep.geometry import Box, Shape3, three
from volprep.warp.map import CoordinateMap
from volprep.warp.positions import Border, check_inside, clipped, mirrored
from volprep.warp.tiles import TileReader

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
        The block of the source that was read, of any real dtype; a whole
        volume will do, only what is needed is touched.
    labels : sequence of arrays, shape (Z, Y, X) or (C, Z, Y, X) each
        Over the same voxels as the image, of any dtype of 1, 2, 4 or 8 bytes.
    origin : sequence of three ints
        Where the block begins in the source.
    border : {'raise', 'fill', 'reflect'}
        What lies beyond the block: an error, `fill` and `label_fill`, or the
        block mirrored about its outermost voxels. Read the block that
        `CoordinateMap.source_block` names, and this is the source's own border.
    fill, label_fill : float, int
        For the voxels whose nearest source voxel does not exist.
    out : (array of float32 or None, sequence of arrays), optional
        Where to write, C-contiguous, of the shapes and dtypes that are returned.
    threads : int
        1 inside a loader's worker.

    Returns
    -------
    image : array of float32, shape (C, Z, Y, X), or None
    labels : list of arrays
        In their own dtypes and number of axes, every id exact.

    Raises
    ------
    WarpingOOBError
        If `border` is ``raise`` and the map reaches outside the block.
    ValueError
        If the shapes of the arrays do not agree.

    Notes
    -----
    Positions are exact to some 1e-5 voxel; where they are whole numbers (flips,
    swaps, shifts) the values are copied unchanged. A position half way between
    two voxels takes the label of the higher one, the same along every axis and at every
    place, so that a shift of whole voxels never changes a label; elektronn3 rounds to the
    even one, and its document does not say. A nan stays where it is under such shifts,
    flips and swaps, and else spreads to the voxels that are interpolated from it.
    """
    shape = three(out_shape)
    if min(shape) < 1:
        raise ValueError(f"out_shape: {shape}, wanted three positive sizes (Z, Y, X)")
    # A memory map is an array here too: numba knows subclasses only by a slow way.
    image = None if image is None else np.asarray(image)
    labels = [np.asarray(label) for label in labels]
    block = Box.at(origin, _common_shape(image, labels))
    reached = coordinates.source_box(shape)
    if border == "raise":
        check_inside(reached, block)
    image, labels, block = _readable(reached, image, labels, block, border)
    image_out, labels_out = _targets(image, labels, shape, out)
    reader = TileReader(coordinates, shape, reached, block, border)
    together = list(_layers(image, image_out, fill, labels, labels_out, label_fill))

    def read(tiles: npt.NDArray[np.int64]) -> None:
        for part in together:
            reader.read(tiles, *part)

    run_shares(read, reader.shares(threads))
    return image_out, labels_out


_Picture = tuple[Array, npt.NDArray[np.float32], float]
_Ids = tuple[Array, Array, np.uint64]
_NO_IMAGE = np.empty((0, 1, 1, 1), np.float32)
_NO_LABEL = np.empty((0, 1, 1, 1), np.uint8)


def _layers(
    image: Array | None,
    image_out: npt.NDArray[np.float32] | None,
    fill: float,
    labels: Sequence[Array],
    labels_out: Sequence[Array],
    label_fill: int,
) -> Iterator[tuple[_Picture, _Ids]]:
    """The image with the first label; every further label by itself."""
    nothing = (_NO_IMAGE, _NO_IMAGE, 0.0)
    pictures = nothing
    if image is not None and image_out is not None:
        pictures = (image, image_out, float(fill))
    if not labels:
        yield pictures, (_NO_LABEL, _NO_LABEL, np.uint64(0))
    for label, label_out in zip(labels, labels_out, strict=True):
        # Unsigned integers of the same bits.
        bits = np.dtype(f"u{label.dtype.itemsize}")
        value = np.uint64(np.asarray(label_fill, label.dtype).view(bits)[()])
        ids, ids_out = (a.reshape(-1, *a.shape[-3:]).view(bits) for a in (label, label_out))
        yield pictures, (ids, ids_out, value)
        pictures = nothing


def _common_shape(image: Array | None, labels: Sequence[Array]) -> Shape3:
    if image is not None and image.ndim != 4:
        raise ValueError(f"image: shape {image.shape}, wanted (C, Z, Y, X)")
    for label in labels:
        if label.ndim not in (3, 4):
            raise ValueError(f"label: shape {label.shape}, wanted (Z, Y, X) or (C, Z, Y, X)")
        if label.dtype.itemsize not in (1, 2, 4, 8):
            raise ValueError(f"label: dtype {label.dtype}, wanted one of 1, 2, 4 or 8 bytes")
    shapes = {three(array.shape[-3:]) for array in (image, *labels) if array is not None}
    if len(shapes) != 1:
        raise ValueError(f"image and labels: wanted one shape (Z, Y, X), found {sorted(shapes)}")
    shape = shapes.pop()
    if min(shape) < 1:
        raise ValueError(f"image and labels: shape {shape} holds no voxel")
    return shape


def _readable(
    reached: Box,
    image: Array | None,
    labels: Sequence[Array],
    block: Box,
    border: Border,
) -> tuple[Array | None, list[Array], Box]:
    """Arrays that the kernels take; where one must be copied, only what is read is.

    Kernels index 32 bits wide, whole arrays, in native byte order. Images are float32: to
    interpolate between bytes takes twice as long as to make float32 of them first.
    """
    kept = [array.flags.c_contiguous and array.size < 2**31 for array in labels]
    if image is not None:
        known = image.dtype == np.float32
        kept.append(known and image.flags.c_contiguous and image[0].size < 2**31)
    if all(kept):
        return image, list(labels), block
    wanted = reached.shift([-n for n in block.start])
    part = clipped(wanted, block.shape) if border == "fill" else mirrored(wanted, block.shape)
    labels = [np.ascontiguousarray(label[..., *part.slices]) for label in labels]
    if image is not None:
        image = _as_floats(image[..., *part.slices])
    return image, labels, part.shift(block.start)


_LOCAL = threading.local()
#: Bytes of a copy that a thread keeps the memory of: new memory is a page fault each 4 kB.
_KEPT = 2**25


def _as_floats(image: Array) -> npt.NDArray[np.float32]:
    """A copy that is valid until this thread makes the next one."""
    size = image.size
    if 4 * size > _KEPT:
        return np.ascontiguousarray(image, np.float32)
    memory: npt.NDArray[np.float32] | None = _LOCAL.__dict__.get("memory")
    if memory is None or memory.size < size:
        memory = _LOCAL.memory = np.empty(size, np.float32)
    floats = memory[:size].reshape(image.shape)
    np.copyto(floats, image, casting="unsafe")
    return floats


def _targets(
    image: Array | None,
    labels: Sequence[Array],
    shape: Shape3,
    out: tuple[npt.NDArray[np.float32] | None, Sequence[Array]] | None,
) -> tuple[npt.NDArray[np.float32] | None, list[Array]]:
    """Where results go: new arrays, or `out` once it is of the right kind."""
    image_out, labels_out = (None, []) if out is None else (out[0], list(out[1]))
    if image is not None:
        wanted = (len(image), *shape)
        image_out = np.empty(wanted, np.float32) if out is None else image_out
        _check_target("image", image_out, wanted, np.dtype(np.float32))
    if out is None:
        labels_out = [np.empty((*label.shape[:-3], *shape), label.dtype) for label in labels]
    if len(labels_out) != len(labels):
        raise ValueError(f"out: {len(labels_out)} labels, wanted {len(labels)}")
    for label, target in zip(labels, labels_out, strict=True):
        _check_target("label", target, (*label.shape[:-3], *shape), label.dtype)
    return (image_out if image is not None else None), labels_out


def _check_target(
    name: str, target: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    if target is None or target.shape != shape or target.dtype != dtype:
        found = "nothing" if target is None else f"{target.shape} {target.dtype}"
        raise ValueError(f"out: {found} for the {name}, wanted {shape} {dtype}")
    if not target.flags.c_contiguous:
        raise ValueError(f"out: the {name} is not C-contiguous; hand in a whole array")
