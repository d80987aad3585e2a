"""One case from its files to its place in the store: cropped, resampled, slab by slab."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.compute import run_units
from volprep.geometry import Box, Shape3, Spacing3, VolumeLike, three
from volprep.preprocess.grid import Order, axis_maps, axis_orders
from volprep.preprocess.resample import label_ids
from volprep.preprocess.volume import (
    LAYERS,
    CroppedVolume,
    ResampledVolume,
    Sections,
    chunk_layers,
    is_sequential,
    slab_boxes,
)

__all__ = [
    "CaseLayout",
    "Header",
    "NonzeroBox",
    "Preprocessing",
    "case_layout",
    "nonzero_box",
    "preprocess_case",
    "volume_ids",
]

Array = npt.NDArray[Any]
Write = Callable[[Box, Array], object]
Progress = Callable[[int], None]

_AT_ONCE = 16 * 2**20  # bytes to read where voxels are only looked at


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every case before patches are cut; normalisation is not among it.

    Parameters
    ----------
    target : (Z, Y, X) in micrometres, or None
        The spacing to resample to; None resamples nothing.
    order : {3, 1, 0}
        Of images: cubic B-spline, linear, nearest.
    separate : int or None or 'auto'
        The axis that takes `order_separate`; ``auto`` decides by spacing.
    order_separate : {0, 1, 3}
        Nearest by default, as in nnU-Net.
    crop : bool
        Crop to the box of non-zero intensities first.
    """

    target: Spacing3 | None = None
    order: Order = 3
    separate: int | Literal["auto"] | None = "auto"
    order_separate: Order = 0
    crop: bool = False


@dataclass(frozen=True)
class Header:
    """A volume of which only the header is known."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    spacing: Spacing3 | None

    def read(self, box: Box | None = None) -> Array:
        """Nothing: there are no voxels."""
        raise ValueError(f"{box}: only the header of this volume is known")


@dataclass(frozen=True)
class CaseLayout:
    """What a case will be, known before its voxels are resampled, and the way there and back.

    Parameters
    ----------
    source : (C, Z, Y, X)
        Of the files.
    shape : (C, Z, Y, X)
        Of the result.
    dtype : numpy.dtype
        Of the result: the file's own.
    spacing : (Z, Y, X) in micrometres, or None
        Of the result: the extent over the voxels, so near the target, not it.
    crop : Box or None
        The part of the source that is kept; None keeps all.
    separate : int or None
        The axis that takes its own order of interpolation.
    settings : Preprocessing
    """

    source: tuple[int, int, int, int]
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    spacing: Spacing3 | None
    crop: Box | None
    separate: int | None
    settings: Preprocessing

    @property
    def kept(self) -> Box:
        """The part of the source that is kept."""
        return Box.whole(self.source) if self.crop is None else self.crop

    @property
    def unchanged(self) -> bool:
        """Whether the result is the source, voxel for voxel."""
        return self.shape == self.source

    def open(self, volume: VolumeLike, *, labels: bool = False) -> VolumeLike:
        """A volume of the case as it will be, nothing of it read yet.

        Parameters
        ----------
        volume : VolumeLike
            The image, the labels or a mask: on the grid of the image's file.
        labels : bool
            For labels and masks.

        Returns
        -------
        VolumeLike
            The volume itself where nothing is to be done.
        """
        kept = volume if self.crop is None else CroppedVolume(volume, self.crop)
        if kept.shape[1:] == self.shape[1:]:
            return kept
        return ResampledVolume(
            kept,
            shape=self.shape[1:],
            labels=labels,
            order=self.settings.order,
            separate=self.separate,
            order_separate=self.settings.order_separate,
        )

    @property
    def reach(self) -> Shape3:
        """How far away, in voxels of the result, lie source voxels that a voxel depends on."""
        if self.unchanged:
            return 0, 0, 0
        orders = axis_orders(self.settings.order, self.separate, self.settings.order_separate)
        votes = axis_orders(1, self.separate, 0)  # of labels and masks
        maps = [axis_maps(self.kept.shape, self.shape[1:], kind) for kind in (orders, votes)]
        return three([max(a.reach, b.reach) for a, b in zip(*maps, strict=True)])

    def to_prepared(self, points: Array) -> Array:
        """Points of the source in voxels of the result.

        Parameters
        ----------
        points : array, shape (N, 3)
            (Z, Y, X); centres of voxels are whole numbers.
        """
        scale = np.array(self.shape[1:]) / np.array(self.kept.shape)
        moved: Array = (points - self.kept.start + 0.5) * scale - 0.5
        return moved

    def to_source(self, box: Box) -> Box:
        """A box of the result in voxels of the source, rounded inwards to whole voxels.

        Where none lies wholly in the box, it is the one that the box begins in.
        """
        if self.unchanged:
            return box
        scale = [a / b for a, b in zip(self.kept.shape, self.shape[1:], strict=True)]
        start = [math.ceil(n * s) for n, s in zip(box.start, scale, strict=True)]
        stop = [math.floor(n * s) for n, s in zip(box.stop, scale, strict=True)]
        for axis, step in enumerate(scale):
            if start[axis] >= stop[axis]:
                start[axis] = math.floor(box.start[axis] * step)
                stop[axis] = start[axis] + 1
        return Box(three(start), three(stop)).shift(self.kept.start)


def nonzero_box(volume: VolumeLike, *, memory: int = _AT_ONCE) -> Box | None:
    """The smallest box that holds every voxel that is not zero in some channel.

    Parameters
    ----------
    volume : VolumeLike
        Read once, from its first section to its last.
    memory : int
        Bytes to read at a time; one section at least.

    Returns
    -------
    Box or None
        None where every voxel is zero.
    """
    found, whole = NonzeroBox(), Box.whole(volume.shape)
    sections = Sections(volume, whole, _depth_within(volume, memory), forward=True)
    for first, last, voxels in sections.take(0, whole.stop[0]):
        found.add(Box((first, 0, 0), (last, *whole.stop[1:])), voxels)
    return found.box


class NonzeroBox:
    """Gathers the smallest box that holds every voxel that is not zero in some channel."""

    def __init__(self) -> None:
        self._low, self._high = [np.iinfo(np.int64).max] * 3, [-1] * 3

    def add(self, box: Box, voxels: Array) -> None:
        """A block (C, Z, Y, X); they may come in any order."""
        filled: Array = np.any(voxels, axis=0)
        for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
            found = np.flatnonzero(filled.any(axis=others))
            if found.size:
                first = box.start[axis]
                self._low[axis] = min(self._low[axis], first + int(found[0]))
                self._high[axis] = max(self._high[axis], first + int(found[-1]))

    def merge(self, other: NonzeroBox) -> None:
        """Add the blocks that another one has seen."""
        self._low = list(map(min, self._low, other._low))
        self._high = list(map(max, self._high, other._high))

    @property
    def box(self) -> Box | None:
        """None where every voxel is zero."""
        if self._high[0] < 0:
            return None
        return Box(three(self._low), three([n + 1 for n in self._high]))


def case_layout(
    image: VolumeLike,
    labels: VolumeLike | None,
    settings: Preprocessing,
    *,
    crop: Box | None = None,
) -> CaseLayout:
    """Decide what a case will be, so that its arrays can be made before they are filled.

    Parameters
    ----------
    image : VolumeLike
        Only read where the case is to be cropped. Its spacing is that of the case.
    labels : VolumeLike or None
        One channel, with the (Z, Y, X) of the image.
    settings : Preprocessing
    crop : Box or None
        What `nonzero_box` found, where the case is to be cropped and it is known.

    Returns
    -------
    CaseLayout

    Raises
    ------
    ValueError
        If the labels do not have the image's shape, or more than one channel.
    PlanError
        If the case is to be resampled and its spacing is unknown.
    """
    if labels is not None and labels.shape != (1, *image.shape[1:]):
        raise ValueError(
            f"labels have shape {labels.shape}, the image {image.shape}: "
            "both need the same (Z, Y, X), and labels one channel"
        )
    if not settings.crop:
        crop = None
    elif crop is None:
        crop = nonzero_box(image)
    # An image of zeros alone has nothing to crop to and stays whole.
    if crop == Box.whole(image.shape):
        crop = None
    kept = image if crop is None else CroppedVolume(image, crop)
    separate: int | None = None
    if settings.target is not None:
        result = ResampledVolume(kept, settings.target, separate=settings.separate)
        kept, separate = result, result.separate
    return CaseLayout(
        source=image.shape,
        shape=kept.shape,
        dtype=np.dtype(image.dtype),
        spacing=kept.spacing,
        crop=crop,
        separate=separate,
        settings=settings,
    )


def preprocess_case(
    image: VolumeLike,
    labels: VolumeLike | None,
    layout: CaseLayout,
    *,
    write_image: Write,
    write_labels: Write | None = None,
    mask: VolumeLike | None = None,
    write_mask: Write | None = None,
    ids: Array | None = None,
    depth: int = 32,
    memory: int = 256 * 2**20,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[int, ...]:
    """Crop and resample one case, handing it on slab by slab.

    Parameters
    ----------
    image, labels : VolumeLike, and VolumeLike or None
        Labels have one channel and the (Z, Y, X) of the image.
    layout : CaseLayout
    mask : VolumeLike or None
        Valid where it is not zero; of the labels' form.
    ids : ndarray or None
        The ids of `labels`, sorted, where they are known; else they are read once more.
    write_image, write_labels, write_mask : callable
        ``write(box, array)``: `box` in the result, `array` (C, Z, Y, X) of `layout.dtype`
        or, for labels and masks, (Z, Y, X) of their own, valid until the call returns.
        Boxes are disjoint and start at multiples of `depth` along Z and of 128 along Y;
        with several workers calls come from several threads.
    depth : int
        Sections a slab; make it a multiple of the store's chunks along Z.
    memory : int
        Bytes that the sections held by one worker should fit in. Where whole sections do
        not, the volume is walked in strips along Y.
    workers : int
        Threads for this one case. Each takes a band of slabs; but one alone walks a file
        that can only be decompressed from its beginning.
    progress : callable, optional
        Called with the number of result voxels done since the last call, of the image and
        of the labels.

    Returns
    -------
    tuple of int
        The ids that the source has and the result has not, sorted.

    Notes
    -----
    Every result voxel is a function of the source alone, so the bytes written do not
    depend on `depth`, `memory` or `workers`.
    """
    before, after = _Ids(), _Ids()
    walks = [(layout.open(image), write_image)]
    units: list[Callable[[], None]] = []
    if labels is not None and write_labels is not None:
        prepared = layout.open(labels, labels=True)
        if prepared is not labels:
            # A pass of its own: resampling may skip voxels, and the only ones of an id.
            if ids is None:
                units.append(partial(before.add_all, labels))
            else:
                before.add(ids)
            write_labels = _noting(write_labels, after)
        walks.append((prepared, _without_channel(write_labels)))
    if mask is not None and write_mask is not None:
        walks.append((layout.open(mask, labels=True), _without_channel(write_mask)))
    units += [
        partial(_walk, volume, depth, part, write, progress)
        for volume, write in walks
        for part in _parts(volume, depth, memory, workers)
    ]
    for _ in run_units(_call, units, backend="threads", workers=workers):
        pass
    return before.missing_from(after)


def volume_ids(labels: VolumeLike) -> Array:
    """The distinct ids of a label volume, sorted, background included; it is read once."""
    found = _Ids()
    found.add_all(labels)
    return found.all()


def _call(unit: Callable[[], None]) -> None:
    unit()


def _walk(
    volume: VolumeLike, depth: int, part: Box, write: Write, progress: Progress | None
) -> None:
    for box, array in _slabs(volume, depth, part):
        write(box, array)
        if progress is not None:
            progress(box.size)


class _Ids:
    """The distinct ids of arrays that come one after the other, from any thread."""

    def __init__(self) -> None:
        self._found: list[Array] = []

    def add(self, array: Array) -> None:
        self._found.append(label_ids(array))

    def add_all(self, volume: VolumeLike) -> None:
        whole = Box.whole(volume.shape)
        sections = Sections(volume, whole, _depth_within(volume, _AT_ONCE), forward=True)
        for _, _, voxels in sections.take(0, whole.stop[0]):
            self.add(voxels)

    def all(self) -> Array:
        """Every id, sorted."""
        return np.unique(np.concatenate(self._found))

    def missing_from(self, other: _Ids) -> tuple[int, ...]:
        if not self._found:
            return ()
        mine, theirs = self.all(), other.all()
        return tuple(int(i) for i in np.setdiff1d(mine, theirs, assume_unique=True))


def _noting(write: Write, ids: _Ids) -> Write:
    def write_noting(box: Box, array: Array) -> None:
        ids.add(array)
        write(box, array)

    return write_noting


def _without_channel(write: Write) -> Write:
    return lambda box, array: write(box, array[0])


def _slabs(volume: VolumeLike, depth: int, part: Box) -> Iterator[tuple[Box, Array]]:
    """Walk a part of a prepared volume in slabs that start at multiples of `depth`."""
    if isinstance(volume, ResampledVolume):
        yield from volume.slabs(depth, within=part)
        return
    sections = Sections(volume, part, depth, forward=part == Box.whole(volume.shape))
    for box in slab_boxes(part, depth):
        pieces = [piece for _, _, piece in sections.take(box.start[0], box.stop[0])]
        yield box, pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)


def _depth_within(volume: VolumeLike, memory: int) -> int:
    """How many sections of a volume fit in `memory` bytes; 1 at least."""
    channels, sections, rows, width = volume.shape
    section = channels * rows * width * volume.dtype.itemsize
    return max(1, min(sections, memory // max(1, section)))


_STRIP = 128


def _parts(volume: VolumeLike, depth: int, memory: int, workers: int) -> Iterator[Box]:
    """The columns that are walked apart: bands of slabs, and strips where sections are large."""
    channels, sections, rows, width = volume.shape
    # A slab as read and as written, and the sections that the spline needs, as float32.
    read = max(depth, chunk_layers(volume, most=LAYERS * depth)[0])
    row = channels * width * ((depth + read) * volume.dtype.itemsize + 28 * 4)
    strip = max(1, memory // (row * _STRIP)) * _STRIP
    slabs = -(-sections // depth)
    bands = 1 if is_sequential(volume) else max(1, workers)
    band = -(-slabs // bands) * depth
    for z in range(0, sections, band):
        for y in range(0, rows, strip):
            yield Box((z, y, 0), (min(z + band, sections), min(y + strip, rows), width))
