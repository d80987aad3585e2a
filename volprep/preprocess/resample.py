"""Resampling arrays: images by a separable cubic B-spline, labels by a vote.

The centre of voxel i lies at i + 1/2 of a grid that spans the volume, so that a
volume keeps its physical extent whatever its number of voxels: output voxel i of m
lies at (i + 1/2) * n / m - 1/2 of the n input voxels. This is what
``scipy.ndimage.zoom(..., grid_mode=True, mode="nearest")`` and
``skimage.transform.resize(..., mode="edge", anti_aliasing=False)`` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box
from volprep.preprocess.grid import AxisMap, Order, axis_maps, axis_orders

__all__ = [
    "label_ids",
    "lost_ids",
    "resample_along_z",
    "resample_image",
    "resample_in_plane",
    "resample_labels",
    "vote_in",
    "working_type",
]

Array = npt.NDArray[Any]


def resample_image(
    image: Array,
    new_shape: Sequence[int],
    *,
    order: Order = 3,
    separate: int | None = None,
    order_separate: Order = 0,
    dtype: npt.DTypeLike | None = None,
) -> Array:
    """Resample an image to a new shape.

    Parameters
    ----------
    image : ndarray, shape (C, Z, Y, X)
        Any real type.
    new_shape : sequence of int
        (Z, Y, X) of the result.
    order : {3, 1, 0}
        Cubic B-spline, linear or nearest.
    separate : int or None
        The axis (0 for Z) that takes `order_separate` instead, see `separate_axis`.
    order_separate : {0, 1, 3}
        Nearest by default, as in nnU-Net.
    dtype : data type, optional
        Of the result; the image's own by default. An integer type is rounded to the
        nearest value (a half to the even one) and cut to its range.

    Returns
    -------
    ndarray, shape (C, *new_shape)

    Raises
    ------
    ValueError
        If `image` is not (C, Z, Y, X), or a size is not positive.

    Notes
    -----
    Equal to ``scipy.ndimage.zoom(channel, zoom, order=order, mode="nearest",
    grid_mode=True)`` within 1e-4 of the image's range: the spline's weights are cut off
    ten samples away, which leaves out less than 1e-5 an axis. The image is held at its
    edge value beyond the border. Fewer voxels are samples of the same spline; nothing
    is blurred first, as in nnU-Net and biom3d.
    """
    maps = axis_maps(
        _four(image).shape[1:], new_shape, axis_orders(order, separate, order_separate)
    )
    box = Box.whole(new_shape)
    sections = np.empty((*image.shape[:2], *box.shape[1:]), working_type(image.dtype))
    resample_in_plane(image, maps, box, (0, 0), sections)
    result_type = np.dtype(image.dtype if dtype is None else dtype).newbyteorder("=")
    out = np.empty((image.shape[0], *box.shape), result_type)
    resample_along_z(sections, maps[0], 0, box.shape[0], 0, out)
    return out


def resample_labels(
    labels: Array, new_shape: Sequence[int], *, separate: int | None = None
) -> Array:
    """Resample a label volume to a new shape in one pass, however many ids it has.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X)
        Integers of any width, or bool.
    new_shape : sequence of int
        (Z, Y, X) of the result.
    separate : int or None
        The axis (0 for Z) along which the nearest sample is taken instead.

    Returns
    -------
    ndarray, shape `new_shape`, of the type of `labels`

    Raises
    ------
    ValueError
        If `labels` is not (Z, Y, X), or a size is not positive.
    TypeError
        If `labels` does not hold integers.

    Notes
    -----
    Each voxel takes the id with the largest sum of linear weights among the eight
    samples around it, background being one id like another; where sums are equal the
    nearest sample decides. Weights are whole numbers, so a tie is a tie. nnU-Net and
    biom3d resample each id apart and keep what reaches one half, which leaves background
    where three objects meet and costs a pass an id.

    An id of fewer voxels than the new grid can show may vanish: see `lost_ids`.
    """
    if labels.ndim != 3:
        raise ValueError(f"labels must be (Z, Y, X), got shape {labels.shape}")
    orders = axis_orders(1, separate, 0)
    maps = axis_maps(labels.shape, new_shape, orders)
    out = np.empty(tuple(new_shape), labels.dtype.newbyteorder("="))
    vote_in(labels, maps, Box.whole(new_shape), (0, 0, 0), out)
    return out


def label_ids(labels: Array) -> Array:
    """The distinct ids in a label volume, sorted, background included.

    Parameters
    ----------
    labels : ndarray, any shape
        Integers of any width, or bool.

    Returns
    -------
    ndarray, shape (N,), of the type of `labels`

    Notes
    -----
    ``numpy.unique`` without sorting the voxels: repetitions are dropped on the way.
    """
    from volprep.kernels.resample import unseen_ids

    flat = np.ascontiguousarray(_unsigned(labels)).reshape(-1)
    if not flat.size:
        return np.empty(0, labels.dtype)
    found = [flat[:1].copy()]
    recent = np.full(4096, flat[0])
    note = np.empty(min(flat.size, 1 << 18), flat.dtype)
    for start in range(0, flat.size, note.size):
        count = unseen_ids(flat[start : start + note.size], recent, note)
        if count:
            found.append(np.unique(note[:count]))
    ids = np.concatenate(found).view(labels.dtype)
    return np.unique(ids)


def lost_ids(before: Array, after: Array) -> Array:
    """The ids of one label volume that another no longer holds, sorted.

    Parameters
    ----------
    before, after : ndarray
        Labels, as they were and as resampled.

    Returns
    -------
    ndarray, shape (N,), of the type of `before`
    """
    return np.setdiff1d(label_ids(before), label_ids(after), assume_unique=True)


def resample_in_plane(
    voxels: Array, maps: Sequence[AxisMap], box: Box, origin: Sequence[int], out: Array
) -> None:
    """Resample sections (C, N, y, x) along Y and X into `out`, a few at a time.

    `origin` is the (Y, X) of the first voxel; `out` is (C, N, *box.shape[1:]), each channel
    contiguous, float32 or float64.
    """
    _, y_axis, x_axis = maps
    if y_axis.unchanged and x_axis.unchanged:
        out[...] = voxels
        return
    along_y = _table(y_axis, box.start[1], box.stop[1], origin[0], out.dtype)
    along_x = _table(x_axis, box.start[2], box.stop[2], origin[1], out.dtype)
    step = max(1, _WORKING_SET // (voxels.shape[2] * voxels.shape[3]))
    for channel, result in zip(voxels, out, strict=True):
        for first in range(0, len(channel), step):
            part = channel[first : first + step].astype(out.dtype, order="C")
            _combine_last(_combine_middle(part, along_y), along_x, result[first : first + step])


def resample_along_z(
    sections: Array, axis: AxisMap, lo: int, hi: int, held: int | Array, out: Array
) -> None:
    """Resample (C, N, y, x) along Z into the outputs lo to hi, `out` being (C, hi - lo, y, x).

    `held` says where the source sections from the first that is needed lie in `sections`:
    one place for each, or just which section the first one is. `out` has the type wanted
    at last; an integer type is rounded to the nearest value and cut to its range.
    """
    taps, weights = _table(axis, lo, hi, held, sections.dtype)
    columns = sections.shape[2] * sections.shape[3]
    step = max(1, _WORKING_SET // len(taps))
    for source, result in zip(sections, out, strict=True):
        rows, target = source.reshape(1, -1, columns), result.reshape(-1, columns)
        if weights is None:
            for place, row in zip(taps[:, 0], target, strict=True):
                _store(rows[0, place : place + 1], 0, row[None])
            continue
        for first in range(0, columns, step):
            part = _combine(rows, taps, weights, first, min(first + step, columns))
            _store(part[0], first, target)


_WORKING_SET = 1 << 19  # voxels of an intermediate that is meant to stay in the cache

_Table = tuple[Array, Array | None]


def _table(axis: AxisMap, lo: int, hi: int, held: int | Array, dtype: np.dtype[Any]) -> _Table:
    """Where to find the samples of the outputs lo to hi, and their weights (None: just one)."""
    taps = axis.taps(lo, hi)
    taps = _places(taps, axis, lo, hi, held)
    if taps.shape[1] == 1:
        return taps, None
    return taps, np.ascontiguousarray(axis.weights(lo, hi), dtype)


def _places(taps: Array, axis: AxisMap, lo: int, hi: int, held: int | Array) -> Array:
    if isinstance(held, int):
        return taps - held
    places: Array = held[taps - axis.source_range(lo, hi)[0]]
    return places


def _combine_middle(source: Array, table: _Table) -> Array:
    taps, weights = table
    if weights is None:
        return _taken(source, taps[:, 0], 1)
    return _combine(source, taps, weights, 0, source.shape[2])


def _combine(source: Array, taps: Array, weights: Array, first: int, last: int) -> Array:
    from volprep.kernels.resample import combine_rows

    out = np.empty((source.shape[0], len(taps), last - first), source.dtype)
    combine_rows(source, taps, weights, first, out)
    return out


def _combine_last(source: Array, table: _Table, out: Array) -> None:
    from volprep.kernels.resample import combine_columns

    taps, weights = table
    if weights is None:
        out[...] = _taken(source, taps[:, 0], 2)
    else:
        rows = source.reshape(-1, source.shape[2])
        combine_columns(rows, taps, weights, out.reshape(len(rows), -1))


def _taken(source: Array, places: Array, axis: int) -> Array:
    """The samples at `places`; the array itself where that is all of it, in order."""
    if np.array_equal(places, np.arange(source.shape[axis])):
        return source
    return np.take(source, places, axis=axis)


def _store(values: Array, first: int, out: Array) -> None:
    """Put floating `values` (M, J) into `out` (M, I) from column `first` on, rounded and cut."""
    from volprep.kernels.resample import round_saturated

    if out.dtype.kind in "iu":
        limits, of_type = np.iinfo(out.dtype), out.dtype.type
        round_saturated(values, of_type(limits.min), of_type(limits.max), first, out)
    else:
        out[:, first : first + values.shape[1]] = values


def working_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32 where it holds every value of `dtype`, else float64."""
    exact = dtype.kind == "b" or (dtype.kind in "iuf" and np.can_cast(dtype, np.float32))
    return np.dtype(np.float32 if exact else np.float64)


def vote_in(
    labels: Array, maps: Sequence[AxisMap], box: Box, held: Sequence[int | Array], out: Array
) -> None:
    """The labels of `box`, into `out`.

    `labels` is a part of the source, (z, y, x), that lies as `held` says along each axis.
    """
    from volprep.kernels.resample import majority_labels

    tables: list[Array] = []
    for axis, lo, hi, place in zip(maps, box.start, box.stop, held, strict=True):
        both, weights = axis.pairs(lo, hi)
        tables += [_places(both, axis, lo, hi, place), weights]
    majority_labels(np.ascontiguousarray(_unsigned(labels)), *tables, _unsigned(out))


def _unsigned(labels: Array) -> Array:
    """The same bits as unsigned integers: one kernel a width, and no id is changed."""
    if labels.dtype.kind not in "iub":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    native = labels if labels.dtype.isnative else labels.astype(labels.dtype.newbyteorder("="))
    return native.view(f"u{native.dtype.itemsize}")


def _four(image: Array) -> Array:
    if image.ndim != 4:
        raise ValueError(f"an image must be (C, Z, Y, X), got shape {image.shape}")
    return image
