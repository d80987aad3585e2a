"""Volumes made of volumes: on another grid, or a box of one, read where it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from volprep.errors import PlanError
from volprep.geometry import Box, Chunked, Spacing3, VolumeLike
from volprep.preprocess.grid import (
    Order,
    axis_maps,
    axis_orders,
    resampled_shape,
    separate_axis,
)
from volprep.preprocess.resample import (
    resample_along_z,
    resample_in_plane,
    vote_in,
    working_type,
)

__all__ = [
    "LAYERS",
    "CroppedVolume",
    "ResampledVolume",
    "Sections",
    "Walkable",
    "chunk_layers",
    "is_sequential",
    "slab_boxes",
]

Array = npt.NDArray[Any]


@runtime_checkable
class Walkable(VolumeLike, Protocol):
    """A volume that can be walked from its first section to its last, decoding each once."""

    @property
    def sequential(self) -> bool:
        """Whether a single box costs as much as the whole, as in a compressed stream."""
        ...

    def slabs(self, depth: int) -> Iterator[tuple[Box, Array]]:
        """Slabs of whole sections in order of z, each valid until the next is asked for."""
        ...


def is_sequential(volume: VolumeLike) -> bool:
    """Whether a volume is read cheaply from its beginning only."""
    return isinstance(volume, Walkable) and volume.sequential


def slab_boxes(box: Box, depth: int) -> list[Box]:
    """The slabs of `depth` sections that make up `box`, the last one thinner where it must be."""
    return [
        Box((z, *box.start[1:]), (min(z + depth, box.stop[0]), *box.stop[1:]))
        for z in range(box.start[0], box.stop[0], depth)
    ]


#: Chunks may be so many times deeper than what is read at once.
LAYERS = 4


class Sections:
    """The sections of a part of a volume, asked for in order of z, none of them decoded twice.

    Parameters
    ----------
    volume : VolumeLike
    part : Box
        Of the volume.
    depth : int
        Sections to read at once.
    forward : bool
        Walk the whole volume, as it does so itself where it is `Walkable`: for files that
        can only be decompressed from the beginning. Otherwise only `part` is read.
    """

    def __init__(self, volume: VolumeLike, part: Box, depth: int, *, forward: bool) -> None:
        self._volume, self._part, self._depth = volume, part, depth
        self._walk: Iterator[tuple[Box, Array]] | None = None
        if forward and isinstance(volume, Walkable):
            self._walk = volume.slabs(depth)
        # Layers of chunks are read whole, each once, and not those that `depth` cuts through.
        self._layer, self._before = chunk_layers(volume, most=LAYERS * depth)
        self._start, self._held = 0, np.empty((0, 0, 0, 0))

    def take(self, first: int, last: int) -> Iterator[tuple[int, int, Array]]:
        """Sections `first` to `last` in pieces: (start, stop, (C, stop - start, Y, X))."""
        while first < last:
            while first - self._start >= self._held.shape[1]:
                self._advance(first)
            offset = first - self._start
            stop = min(last, self._start + self._held.shape[1])
            yield first, stop, self._held[:, offset : stop - self._start]
            first = stop

    def _advance(self, first: int) -> None:
        _, y, x = self._part.slices
        if self._walk is not None:
            box, voxels = next(self._walk)
            self._start, self._held = box.start[0], voxels[:, :, y, x]
        else:
            last = first + self._before + max(self._depth, self._layer)
            last = min(last // self._layer * self._layer - self._before, self._part.stop[0])
            box = Box((first, *self._part.start[1:]), (last, *self._part.stop[1:]))
            self._start, self._held = first, self._volume.read(box)


def chunk_layers(volume: VolumeLike, *, most: int) -> tuple[int, int]:
    """How deep the chunks of a volume are, and how far before its first section one begins.

    (1, 0) where it has none to follow, or such that are deeper than `most`.
    """
    if isinstance(volume, ResampledVolume):
        return chunk_layers(volume.source, most=most)
    if isinstance(volume, CroppedVolume):
        depth, before = chunk_layers(volume.source, most=most)
        return depth, (before + volume.box.start[0]) % depth
    if not isinstance(volume, Chunked) or volume.chunks == volume.shape[1:]:
        return 1, 0
    return (volume.chunks[0], 0) if volume.chunks[0] <= most else (1, 0)


class CroppedVolume:
    """A box of a volume as a volume of its own; `read` shifts, nothing is copied."""

    def __init__(self, volume: VolumeLike, box: Box) -> None:
        self._source, self._box = volume, box

    @property
    def source(self) -> VolumeLike:
        """What it is a box of."""
        return self._source

    @property
    def box(self) -> Box:
        """The box, in the source."""
        return self._box

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X) of the box."""
        return self._source.shape[0], *self._box.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the source."""
        return self._source.dtype

    @property
    def spacing(self) -> Spacing3 | None:
        """Of the source."""
        return self._source.spacing

    @property
    def sequential(self) -> bool:
        """Whether a single box costs as much as the whole."""
        return is_sequential(self._source)

    def read(self, box: Box | None = None) -> Array:
        """The voxels of `box`, counted from the corner of the crop."""
        return self._source.read(self._box if box is None else box.shift(self._box.start))

    def slabs(self, depth: int) -> Iterator[tuple[Box, Array]]:
        """The crop from its first section to its last, the source being walked where it can be."""
        sections = Sections(self._source, self._box, depth, forward=True)
        for box in slab_boxes(Box.whole(self.shape), depth):
            first, last = (z + self._box.start[0] for z in (box.start[0], box.stop[0]))
            for start, stop, voxels in sections.take(first, last):
                z0, z1 = (z - self._box.start[0] for z in (start, stop))
                yield Box((z0, 0, 0), (z1, *box.stop[1:])), voxels


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

    Attributes
    ----------
    separate : int or None
        The axis apart, as given or as decided.

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
        self.separate: int | None = separate
        orders = axis_orders(1, separate, 0) if labels else axis_orders(
            order, separate, order_separate
        )  # fmt: skip
        self._maps = axis_maps(volume.shape[1:], shape, orders)
        wanted = volume.dtype if dtype is None or labels else dtype
        self._dtype = np.dtype(wanted).newbyteorder("=")
        self._working = working_type(np.dtype(volume.dtype))

    @property
    def source(self) -> VolumeLike:
        """What is resampled."""
        return self._source

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

    @property
    def sequential(self) -> bool:
        """Whether a single box costs as much as the whole."""
        return is_sequential(self._source)

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
        source, out = self.source_box(box), self._empty(box)
        voxels = self._source.read(source)
        if self._labels:
            self._vote(voxels, box, source.start, out)
            return out
        sections = np.empty((*voxels.shape[:2], *box.shape[1:]), self._working)
        resample_in_plane(voxels, self._maps, box, source.start[1:], sections)
        self._along_z(sections, box, source.start[0], out)
        return out

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
        whole = Box.whole(self.shape)
        part = whole if within is None else within
        if not part.size:
            return
        source = self.source_box(part)
        sections = Sections(self._source, source, depth, forward=part == whole)
        # A few sections at a time, so that little more than the spline's reach is held.
        steps = [step for box in slab_boxes(part, depth) for step in slab_boxes(box, _STEP)]
        windows = self._windows(steps, sections)
        for box in slab_boxes(part, depth):
            out = self._empty(box)
            for step in slab_boxes(box, _STEP):
                ring, held = next(windows)
                first, last = step.start[0] - box.start[0], step.stop[0] - box.start[0]
                if self._labels:
                    self._vote(ring, step, (held, *source.start[1:]), out[:, first:last])
                else:
                    self._along_z(ring, step, held, out[:, first:last])
            yield box, out

    def _windows(self, boxes: Sequence[Box], sections: Sections) -> Iterator[tuple[Array, Array]]:
        """For each box in turn: a ring of the source sections that it needs, and their places.

        The sections of an image lie in the ring as resampled in-plane.
        """
        needs = [self.source_box(box) for box in boxes]
        room = max(need.shape[0] for need in needs)
        plane = needs[0].shape[1:] if self._labels else boxes[0].shape[1:]
        ring = np.empty((self.shape[0], room, *plane), self._ring_type)
        loaded = 0
        for need, box in zip(needs, boxes, strict=True):
            first, last = max(need.start[0], loaded), need.stop[0]
            for start, stop, voxels in sections.take(first, last):
                for a, b in _unwrapped(start, stop, room):
                    part = voxels[:, a - start : b - start]
                    self._keep(part, need, box, ring[:, a % room : a % room + b - a])
            loaded = max(last, loaded)
            yield ring, np.arange(need.start[0], need.stop[0]) % room

    def _empty(self, box: Box) -> Array:
        return np.empty((self.shape[0], *box.shape), self._dtype)

    @property
    def _ring_type(self) -> np.dtype[Any]:
        return self._dtype if self._labels else self._working

    def _keep(self, voxels: Array, source: Box, box: Box, out: Array) -> None:
        if self._labels:
            out[...] = voxels
        else:
            resample_in_plane(voxels, self._maps, box, source.start[1:], out)

    def _vote(self, voxels: Array, box: Box, held: Sequence[int | Array], out: Array) -> None:
        for channel, result in zip(voxels, out, strict=True):
            vote_in(channel, self._maps, box, held, result)

    def _along_z(self, sections: Array, box: Box, held: int | Array, out: Array) -> None:
        resample_along_z(sections, self._maps[0], box.start[0], box.stop[0], held, out)


_STEP = 8


def _unwrapped(start: int, stop: int, room: int) -> Iterator[tuple[int, int]]:
    """The runs of start to stop that lie side by side in a ring of `room` places."""
    while start < stop:
        end = min(stop, start + room - start % room)
        yield start, end
        start = end


def _new_spacing(volume: VolumeLike, shape: Sequence[int]) -> Spacing3 | None:
    if volume.spacing is None:
        return None
    z, y, x = (s * n / m for s, n, m in zip(volume.spacing, volume.shape[1:], shape, strict=True))
    return z, y, x
