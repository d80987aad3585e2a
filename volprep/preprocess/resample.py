"""Resampling: images by a separable cubic B-spline, labels by a vote, whole or by the box.

The centre of voxel i lies at i + 1/2 of a grid that spans the volume, so that a
volume keeps its physical extent whatever its number of voxels: output voxel i of m
lies at (i + 1/2) * n / m - 1/2 of the n input voxels. This is what
``scipy.ndimage.zoom(..., grid_mode=True, mode="nearest")`` and
``skimage.transform.resize(..., mode="edge", anti_aliasing=False)`` do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.errors import PlanError
from volprep.geometry import Box, Shape3, Spacing3, VolumeLike

__all__ = [
    "ResampledVolume",
    "label_ids",
    "lost_ids",
    "resample_image",
    "resample_labels",
    "resampled_shape",
    "separate_axis",
    "target_spacing",
]

Order = Literal[0, 1, 3]
Array = npt.NDArray[Any]

# The spline's weights fall by 3.7 a sample: ten samples a side leave out less than 1e-5.
_REACH = 10
_POLE = sqrt(3.0) - 2.0


# --- the rules -------------------------------------------------------------------------


def target_spacing(
    kind: Literal["median", "finest"] | Spacing3 | None,
    spacings: Sequence[Spacing3 | None] = (),
) -> Spacing3 | None:
    """Decide the spacing that every case is resampled to.

    Parameters
    ----------
    kind : {'median', 'finest'} or (Z, Y, X) or None
        ``median`` and ``finest`` are taken per axis over the cases; a triple is in
        micrometres; None leaves every case as it is.
    spacings : sequence of (Z, Y, X) or None
        Of the cases, in micrometres; None where a file does not say.

    Returns
    -------
    (Z, Y, X) in micrometres, or None
        None where nothing is to be resampled, which is also so if no case has a spacing.

    Raises
    ------
    PlanError
        If some cases have a spacing and others have none, so that these cannot follow.
    ValueError
        For an unknown kind or a spacing that is not positive.
    """
    if kind is None:
        return None
    if not isinstance(kind, str):
        return _positive(kind)
    if kind not in ("median", "finest"):
        raise ValueError(f"unknown target spacing {kind!r}; known: median, finest, (z, y, x), None")
    known = [s for s in spacings if s is not None]
    if not known:
        return None
    if len(known) < len(spacings):
        raise PlanError(
            f"target spacing {kind}: {len(spacings) - len(known)} of {len(spacings)} cases "
            "have no spacing; give their spacing, or set the target spacing to none"
        )
    choose = np.median if kind == "median" else np.min
    return _positive(tuple(choose(np.array(known, float), axis=0)))


def separate_axis(
    spacing: Spacing3, target: Spacing3 | None = None, *, ratio: float = 3.0
) -> int | None:
    """The one axis that is so much coarser than the others that it is treated apart.

    Parameters
    ----------
    spacing, target : (Z, Y, X) in micrometres
        Of the volume and of the result; the volume decides, then the result.
    ratio : float
        How many times the finest spacing an axis must have.

    Returns
    -------
    int or None
        0 for Z, 1 for Y, 2 for X; None where no axis, or more than one, is that coarse.

    Notes
    -----
    nnU-Net's rule (its ``> 3`` is ``>= 3`` here). biom3d looks at the numbers of voxels
    instead, which takes a thin isotropic volume for an anisotropic one.
    """
    for candidate in (spacing, target):
        if candidate is None:
            continue
        coarse = [a for a, s in enumerate(candidate) if s >= ratio * min(candidate) * (1 - 1e-6)]
        if coarse:
            return coarse[0] if len(coarse) == 1 else None
    return None


def resampled_shape(shape: Sequence[int], spacing: Spacing3, target: Spacing3) -> Shape3:
    """The number of voxels that keeps the physical extent best; at least 1 along each axis.

    A flat axis (one voxel, as in 2D data) stays flat.
    """
    z, y, x = (
        1 if n == 1 else max(1, round(n * s / t))
        for n, s, t in zip(shape[-3:], _positive(spacing), _positive(target), strict=True)
    )
    return z, y, x


# --- arrays ----------------------------------------------------------------------------


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
    maps = _axis_maps(_four(image).shape[1:], new_shape, _orders(order, separate, order_separate))
    result_type = np.dtype(image.dtype if dtype is None else dtype)
    working = _working_type(image.dtype)
    box = Box.whole(new_shape)
    sections = np.empty((*image.shape[:2], *box.shape[1:]), working)
    _in_plane(image, maps, box, (0, 0), sections)
    return _as_type(_along_z(sections, maps[0], 0, box.shape[0], 0), result_type)


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
    orders = _orders(1, separate, 0)
    maps = _axis_maps(labels.shape, new_shape, orders)
    return _vote_in(labels, maps, Box.whole(new_shape), (0, 0, 0))


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


# --- volumes ---------------------------------------------------------------------------


class ResampledVolume:
    """A volume on another grid, read by the box: only the voxels that a box needs are read.

    Parameters
    ----------
    volume : VolumeLike
        The source; nothing is read from it yet.
    target : (Z, Y, X) in micrometres, or None
        The spacing wanted; None with `shape`.
    shape : (Z, Y, X) or None
        The shape wanted instead; exactly one of the two is given.
    labels : bool
        Resample as ids (`resample_labels`) and not as intensities.
    order, order_separate : {3, 1, 0}
        For images, as in `resample_image`.
    separate : int or None or 'auto'
        The axis apart; ``auto`` asks `separate_axis`.
    dtype : data type, optional
        Of what `read` returns, for images; the volume's own by default.

    Raises
    ------
    PlanError
        If a target spacing is wanted of a volume whose own spacing is unknown.

    Notes
    -----
    What `read` returns does not depend on the box: a region is bit for bit the same
    region of the whole, for images and for labels.
    """

    def __init__(
        self,
        volume: VolumeLike,
        target: Spacing3 | None = None,
        *,
        shape: Sequence[int] | None = None,
        labels: bool = False,
        order: Order = 3,
        separate: int | Literal["auto"] | None = "auto",
        order_separate: Order = 0,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        if (target is None) == (shape is None):
            raise ValueError("give the target spacing or the new shape, and not both")
        if target is not None and volume.spacing is None:
            raise PlanError(
                f"cannot resample to {target} µm: the volume's own spacing is unknown; "
                "give its spacing, or set the target spacing to none"
            )
        if shape is None:
            assert target is not None
            assert volume.spacing is not None
            shape = resampled_shape(volume.shape, volume.spacing, target)
        self._source = volume
        self._labels = labels
        self._spacing = _new_spacing(volume, shape)
        if separate == "auto":
            known = volume.spacing
            separate = None if known is None else separate_axis(known, self._spacing)
        self._orders = _orders(1, separate, 0) if labels else _orders(
            order, separate, order_separate
        )  # fmt: skip
        self._maps = _axis_maps(volume.shape[1:], shape, self._orders)
        self._dtype = np.dtype(volume.dtype if dtype is None or labels else dtype)
        self._working = _working_type(np.dtype(volume.dtype))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X) after resampling."""
        z, y, x = (axis.target for axis in self._maps)
        return self._source.shape[0], z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array that `read` returns."""
        return self._dtype

    @property
    def spacing(self) -> Spacing3 | None:
        """(Z, Y, X) in micrometres: the extent over the voxels, so near the target, not it."""
        return self._spacing

    def source_box(self, box: Box) -> Box:
        """The voxels of the source that `box` depends on."""
        ranges = [
            axis.source_range(a, b)
            for axis, a, b in zip(self._maps, box.start, box.stop, strict=True)
        ]
        (z0, z1), (y0, y1), (x0, x1) = ranges
        return Box((z0, y0, x0), (z1, y1, x1))

    def read(self, box: Box | None = None) -> Array:
        """The voxels of `box` (the whole volume for None), as (C, Z, Y, X)."""
        box = Box.whole(self.shape) if box is None else box
        if box.clip(self.shape) != box:
            raise ValueError(f"box {box} reaches beyond the volume of shape {self.shape}")
        if not box.size:
            return np.empty((self.shape[0], *box.shape), self.dtype)
        source = self.source_box(box)
        voxels = self._source.read(source)
        if self._labels:
            return self._vote(voxels, box, source.start)
        sections = np.empty((*voxels.shape[:2], *box.shape[1:]), self._working)
        _in_plane(voxels, self._maps, box, source.start[1:], sections)
        out = _along_z(sections, self._maps[0], box.start[0], box.stop[0], source.start[0])
        return _as_type(out, self._dtype)

    def slabs(self, depth: int = 32, *, within: Box | None = None) -> Iterator[tuple[Box, Array]]:
        """Walk the volume along Z, `depth` sections at a time; no source voxel is read twice.

        Parameters
        ----------
        depth : int
            Sections in a slab, 1 or more; the last one may be thinner.
        within : Box or None
            The part to walk; the whole volume by default.

        Yields
        ------
        box : Box
        array : ndarray, shape (C, *box.shape)
            What `read` would return for `box`.
        """
        whole = Box.whole(self.shape) if within is None else within
        along_z = self._maps[0]
        ends = range(whole.start[0], whole.stop[0], depth)
        boxes = [
            Box((a, *whole.start[1:]), (min(a + depth, whole.stop[0]), *whole.stop[1:]))
            for a in ends
        ]
        origin = self.source_box(whole).start[1:] if whole.size else (0, 0)
        for box, (sections, held) in zip(boxes, self._windows(boxes), strict=True):
            if self._labels:
                yield box, self._vote(sections, box, (held, *origin))
            else:
                out = _along_z(sections, along_z, box.start[0], box.stop[0], held)
                yield box, _as_type(out, self._dtype)

    def _windows(self, boxes: Sequence[Box]) -> Iterator[tuple[Array, Array]]:
        """For each box in turn: a ring of the source sections that it needs, and their places."""
        needs = [self.source_box(box) for box in boxes]
        room = max((need.shape[0] for need in needs), default=0)
        ring: Array | None = None
        loaded = 0
        for need, box in zip(needs, boxes, strict=True):
            if ring is None:
                plane = need.shape[1:] if self._labels else box.shape[1:]
                dtype = self._dtype if self._labels else self._working
                ring = np.empty((self.shape[0], room, *plane), dtype)
            first = max(need.start[0], loaded)
            while first < need.stop[0]:
                place = first % room
                last = min(need.stop[0], first + room - place)
                part = Box((first, *need.start[1:]), (last, *need.stop[1:]))
                self._load(part, box, ring[:, place : place + last - first])
                first = last
            loaded = max(need.stop[0], loaded)
            yield ring, np.arange(need.start[0], need.stop[0]) % room

    def _load(self, source: Box, box: Box, out: Array) -> None:
        """Read source sections; resample them to the plane of `box` where they are an image."""
        voxels = self._source.read(source)
        if self._labels:
            out[...] = voxels
        else:
            _in_plane(voxels, self._maps, box, source.start[1:], out)

    def _vote(self, voxels: Array, box: Box, held: Sequence[int | Array]) -> Array:
        return np.stack([_vote_in(channel, self._maps, box, held) for channel in voxels])


# --- one axis --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    """How `target` voxels lie on `source` voxels along one axis."""

    source: int
    target: int
    order: Order

    @property
    def unchanged(self) -> bool:
        return self.source == self.target

    def position(self, lo: int, hi: int) -> tuple[Array, Array]:
        """Of outputs lo to hi: the sample at or before each, and the rest in 1/(2 target)."""
        i = np.arange(lo, hi, dtype=np.int64)
        return np.divmod((2 * i + 1) * self.source - self.target, 2 * self.target)

    def nearest(self, lo: int, hi: int) -> Array:
        """The sample nearest to each of the outputs lo to hi; the later one of two."""
        i = np.arange(lo, hi, dtype=np.int64)
        return (2 * i + 1) * self.source // (2 * self.target)

    def taps(self, lo: int, hi: int) -> Array:
        """The samples that outputs lo to hi are made of, shape (hi - lo, K)."""
        if self.unchanged:
            return np.arange(lo, hi, dtype=np.int64)[:, None]
        if self.order == 0:
            return self.nearest(lo, hi)[:, None]
        before, _ = self.position(lo, hi)
        reach = _REACH if self.order == 3 else 1
        steps = np.arange(1 - reach, 1 + reach, dtype=np.int64)
        taps: Array = np.clip(before[:, None] + steps, 0, self.source - 1)
        return taps

    def weights(self, lo: int, hi: int) -> npt.NDArray[np.float64]:
        """The weights of `taps`; each row sums to 1."""
        _, rest = self.position(lo, hi)
        t = rest[:, None] / (2 * self.target)
        if self.order == 1:
            return np.concatenate([1 - t, t], axis=1)
        weights = _cardinal_spline(t - np.arange(1 - _REACH, 1 + _REACH))
        weights /= weights.sum(axis=1, keepdims=True)
        return weights

    def pairs(self, lo: int, hi: int) -> tuple[Array, Array]:
        """The two samples beside each output and their weights as whole numbers, (hi - lo, 2)."""
        if self.unchanged or self.order == 0:
            place = self.nearest(lo, hi)
            return np.stack([place, place], 1), np.stack(
                [np.zeros_like(place), np.ones_like(place)], 1
            )
        before, rest = self.position(lo, hi)
        both = np.stack([before, before + 1], 1)
        # A sample of no weight is never looked at, so that it need not be read.
        both[rest == 0, 1] = before[rest == 0]
        weights = np.stack([2 * self.target - rest, rest], 1)
        return np.clip(both, 0, self.source - 1), weights

    def source_range(self, lo: int, hi: int) -> tuple[int, int]:
        """The samples that outputs lo to hi need, as start and stop."""
        ends = [self.taps(i, i + 1) for i in (lo, hi - 1)]
        return int(ends[0].min()), int(ends[1].max()) + 1


def _cardinal_spline(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The cubic spline that is 1 at zero and 0 at every other whole number."""
    total: npt.NDArray[np.float64] = np.zeros_like(x)
    for shift in range(-_REACH - 4, _REACH + 5):
        d = np.abs(x - shift)
        bump = np.where(d < 1, (4 - 6 * d**2 + 3 * d**3) / 6, np.clip(2 - d, 0, None) ** 3 / 6)
        total += _POLE ** abs(shift) * bump
    total *= -6 * _POLE / (1 - _POLE**2)
    return total


def _axis_maps(
    shape: Sequence[int], new_shape: Sequence[int], orders: Sequence[Order]
) -> tuple[_Axis, _Axis, _Axis]:
    if len(new_shape) != 3 or min(*shape, *new_shape) < 1:
        raise ValueError(
            f"cannot resample {tuple(shape)} to {tuple(new_shape)}: (Z, Y, X), all 1 or more"
        )
    z, y, x = (
        _Axis(int(n), int(m), order) for n, m, order in zip(shape, new_shape, orders, strict=True)
    )
    return z, y, x


# --- images ----------------------------------------------------------------------------


def _in_plane(
    voxels: Array, maps: Sequence[_Axis], box: Box, origin: Sequence[int], out: Array
) -> None:
    """Resample sections (C, N, y, x) along Y and X into `out`, a few at a time.

    `origin` is the (Y, X) of the first voxel; `out` has the planes of `box`.
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
            part = _combine_middle(part, along_y)
            result[first : first + step] = _combine_last(part, along_x)


def _along_z(sections: Array, axis: _Axis, lo: int, hi: int, held: int | Array) -> Array:
    """Resample (C, N, y, x) along Z to the outputs lo to hi.

    `held` says where the source sections from the first that is needed lie in `sections`:
    one place for each, or just which section the first one is.
    """
    table = _table(axis, lo, hi, held, sections.dtype)
    channels, count, y, x = sections.shape
    out = _combine_middle(sections.reshape(channels, count, y * x), table)
    return out.reshape(channels, hi - lo, y, x)


_WORKING_SET = 1 << 19  # voxels of an intermediate that is meant to stay in the cache

_Table = tuple[Array, Array | None]


def _table(axis: _Axis, lo: int, hi: int, held: int | Array, dtype: np.dtype[Any]) -> _Table:
    """Where to find the samples of the outputs lo to hi, and their weights (None: just one)."""
    taps = axis.taps(lo, hi)
    taps = _places(taps, axis, lo, hi, held)
    if taps.shape[1] == 1:
        return taps, None
    return taps, np.ascontiguousarray(axis.weights(lo, hi), dtype)


def _places(taps: Array, axis: _Axis, lo: int, hi: int, held: int | Array) -> Array:
    if isinstance(held, int):
        return taps - held
    places: Array = held[taps - axis.source_range(lo, hi)[0]]
    return places


def _combine_middle(source: Array, table: _Table) -> Array:
    from volprep.kernels.resample import combine_rows

    taps, weights = table
    if weights is None:
        return _taken(source, taps[:, 0], 1)
    out = np.empty((source.shape[0], len(taps), source.shape[2]), source.dtype)
    combine_rows(source, taps, weights, out)
    return out


def _combine_last(source: Array, table: _Table) -> Array:
    from volprep.kernels.resample import combine_columns

    taps, weights = table
    if weights is None:
        return _taken(source, taps[:, 0], 2)
    out = np.empty((*source.shape[:2], len(taps)), source.dtype)
    combine_columns(source.reshape(-1, source.shape[2]), taps, weights, out.reshape(-1, len(taps)))
    return out


def _taken(source: Array, places: Array, axis: int) -> Array:
    """The samples at `places`; the array itself where that is all of it, in order."""
    if np.array_equal(places, np.arange(source.shape[axis])):
        return source
    return np.take(source, places, axis=axis)


def _as_type(values: Array, dtype: np.dtype[Any]) -> Array:
    """Floating values as `dtype`, rounded and cut to its range where it is an integer type."""
    from volprep.kernels.resample import round_saturated

    if dtype.kind not in "iu":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    out = np.empty(values.shape, dtype.newbyteorder("="))
    flat = np.ascontiguousarray(values).reshape(-1)
    round_saturated(flat, out.dtype.type(limits.min), out.dtype.type(limits.max), out.reshape(-1))
    return out


def _working_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32 where it holds every value of `dtype`, else float64."""
    exact = dtype.kind == "b" or (dtype.kind in "iuf" and np.can_cast(dtype, np.float32))
    return np.dtype(np.float32 if exact else np.float64)


# --- labels ----------------------------------------------------------------------------


def _vote_in(labels: Array, maps: Sequence[_Axis], box: Box, held: Sequence[int | Array]) -> Array:
    """The labels of `box` from a part of the source that lies as `held` says, along each axis."""
    from volprep.kernels.resample import majority_labels

    if all(axis.unchanged for axis in maps) and box.shape == labels.shape:
        return labels.copy()
    tables: list[Array] = []
    for axis, lo, hi, place in zip(maps, box.start, box.stop, held, strict=True):
        both, weights = axis.pairs(lo, hi)
        tables += [_places(both, axis, lo, hi, place), weights]
    out = np.empty(box.shape, labels.dtype.newbyteorder("="))
    majority_labels(np.ascontiguousarray(_unsigned(labels)), *tables, _unsigned(out))
    return out


def _unsigned(labels: Array) -> Array:
    """The same bits as unsigned integers: one kernel a width, and no id is changed."""
    if labels.dtype.kind not in "iub":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    native = labels if labels.dtype.isnative else labels.astype(labels.dtype.newbyteorder("="))
    return native.view(f"u{native.dtype.itemsize}")


# --- checks at the door ----------------------------------------------------------------


def _orders(order: Order, separate: int | None, order_separate: Order) -> tuple[Order, ...]:
    if order not in (0, 1, 3) or order_separate not in (0, 1, 3):
        raise ValueError(f"order must be 0, 1 or 3, got {order} and {order_separate}")
    if separate not in (None, 0, 1, 2):
        raise ValueError(f"separate must be an axis 0, 1 or 2, or None, got {separate}")
    return tuple(order_separate if axis == separate else order for axis in range(3))


def _positive(spacing: Sequence[float]) -> Spacing3:
    values = [float(s) for s in spacing]
    if len(values) != 3 or not all(0 < s < float("inf") for s in values):
        raise ValueError(f"a spacing is (Z, Y, X), positive, in micrometres; got {spacing}")
    z, y, x = values
    return z, y, x


def _new_spacing(volume: VolumeLike, shape: Sequence[int]) -> Spacing3 | None:
    if volume.spacing is None:
        return None
    z, y, x = (s * n / m for s, n, m in zip(volume.spacing, volume.shape[1:], shape, strict=True))
    return z, y, x


def _four(image: Array) -> Array:
    if image.ndim != 4:
        raise ValueError(f"an image must be (C, Z, Y, X), got shape {image.shape}")
    return image
