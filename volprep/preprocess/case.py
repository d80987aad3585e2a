"""One case from its files to its place in the store: cropped, resampled, slab by slab."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.compute import run_units
from volprep.geometry import Box, Spacing3, VolumeLike
from volprep.preprocess.resample import Order, ResampledVolume, label_ids

__all__ = [
    "CaseLayout",
    "CroppedVolume",
    "PreparedCase",
    "Preprocessing",
    "case_key",
    "case_layout",
    "nonzero_box",
    "preprocess_case",
]

Array = npt.NDArray[Any]
Write = Callable[[Box, Array], object]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every case before patches are cut; normalisation is not among it.

    Parameters
    ----------
    target : (Z, Y, X) in micrometres, or None
        The spacing to resample to; None resamples nothing. See `target_spacing`.
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
class CaseLayout:
    """What a case will be, known before its voxels are resampled.

    Parameters
    ----------
    shape : (C, Z, Y, X)
        Of the result.
    dtype, label_dtype : numpy.dtype, and numpy.dtype or None
        Of the result: the files' own.
    spacing : (Z, Y, X) in micrometres, or None
        Of the result.
    crop : Box or None
        The part of the source that is kept; None keeps all.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    label_dtype: np.dtype[Any] | None
    spacing: Spacing3 | None
    crop: Box | None


@dataclass(frozen=True)
class PreparedCase:
    """A case that has been written: its layout, and the ids that vanished on the way."""

    layout: CaseLayout
    lost_ids: tuple[int, ...]


class CroppedVolume:
    """A box of a volume as a volume of its own; `read` shifts, nothing is copied."""

    def __init__(self, volume: VolumeLike, box: Box) -> None:
        self._source, self._box = volume, box

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

    def read(self, box: Box | None = None) -> Array:
        """The voxels of `box`, counted from the corner of the crop."""
        return self._source.read(self._box if box is None else box.shift(self._box.start))


def case_key(settings: Preprocessing, inputs: Mapping[str, Any]) -> str:
    """The hash of everything that a prepared case is made from.

    Parameters
    ----------
    settings : Preprocessing
    inputs : mapping
        What identifies the files and how they are read: path, size, mtime or checksum,
        axes, spacing, the version of the program. Plain JSON values.

    Returns
    -------
    str
        SHA-256 in hexadecimal. A case whose mark holds another key is made again.
    """
    text = json.dumps(
        {"settings": asdict(settings), "inputs": dict(inputs)},
        sort_keys=True, separators=(",", ":"), allow_nan=False,
    )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()


def nonzero_box(volume: VolumeLike, *, depth: int = 32) -> Box | None:
    """The smallest box that holds every voxel that is not zero in some channel.

    Parameters
    ----------
    volume : VolumeLike
        Read once, `depth` sections at a time.

    Returns
    -------
    Box or None
        None where every voxel is zero.
    """
    low, high = [np.iinfo(np.int64).max] * 3, [-1] * 3
    for slab in _slabs_of(Box.whole(volume.shape), depth):
        filled: Array = np.any(volume.read(slab), axis=0)
        for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
            found = np.flatnonzero(filled.any(axis=others))
            if found.size:
                low[axis] = min(low[axis], slab.start[axis] + int(found[0]))
                high[axis] = max(high[axis], slab.start[axis] + int(found[-1]))
    if high[0] < 0:
        return None
    return Box((low[0], low[1], low[2]), (high[0] + 1, high[1] + 1, high[2] + 1))


def case_layout(
    image: VolumeLike, labels: VolumeLike | None, settings: Preprocessing
) -> CaseLayout:
    """Decide what a case will be, so that its arrays can be made before they are filled.

    Parameters
    ----------
    image : VolumeLike
        Only read where the case is to be cropped.
    labels : VolumeLike or None
        One channel, with the (Z, Y, X) of the image.
    settings : Preprocessing

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
    # An image of zeros alone has nothing to crop to and stays whole.
    crop = nonzero_box(image) if settings.crop else None
    if crop == Box.whole(image.shape):
        crop = None
    result = _prepared(image, crop, settings)
    return CaseLayout(
        shape=result.shape,
        dtype=np.dtype(result.dtype),
        label_dtype=None if labels is None else np.dtype(labels.dtype),
        spacing=result.spacing,
        crop=crop,
    )


def preprocess_case(
    image: VolumeLike,
    labels: VolumeLike | None,
    *,
    settings: Preprocessing,
    write_image: Write,
    write_labels: Write | None = None,
    layout: CaseLayout | None = None,
    depth: int = 32,
    memory: int = 256 * 2**20,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> PreparedCase:
    """Crop and resample one case, handing it on slab by slab.

    Parameters
    ----------
    image, labels : VolumeLike, and VolumeLike or None
        Labels have one channel and the (Z, Y, X) of the image.
    settings : Preprocessing
    write_image, write_labels : callable
        ``write(box, array)``: `box` in the result, `array` (C, Z, Y, X) of `layout.dtype`
        or, for labels, (Z, Y, X) of `layout.label_dtype`. Boxes are disjoint and start at
        multiples of `depth` along Z; with several workers calls come from several threads.
    layout : CaseLayout, optional
        As `case_layout` gave it; reckoned here otherwise.
    depth : int
        Sections a slab; make it a multiple of the store's chunks along Z.
    memory : int
        Bytes that the sections held by one worker should fit in. Where whole sections do
        not, the volume is walked in strips along Y, multiples of 128 rows.
    workers : int
        Threads for this one case. Each takes a band of slabs, so several suit sources
        that can be read from the middle; for others, run cases side by side.
    progress : callable, optional
        Called with the number of result voxels done since the last call.

    Returns
    -------
    PreparedCase
        With the ids that the source has and the result has not, sorted.

    Notes
    -----
    Every result voxel is a function of the source alone, so the bytes written do not
    depend on `depth`, `memory` or `workers`.
    """
    layout = case_layout(image, labels, settings) if layout is None else layout
    work = [(_prepared(image, layout.crop, settings), write_image)]
    noted: list[_Noted] = []
    if labels is not None and write_labels is not None:
        resampled = settings.target is not None
        source, result = _Noted(labels), _Ids()
        work.append(
            (
                _prepared(source if resampled else labels, layout.crop, settings, labels=True),
                _flat(write_labels, result if resampled else None),
            )
        )
        noted = [source] if resampled else []
    units = [
        (volume, write, part)
        for volume, write in work
        for part in _parts(volume, depth, memory, workers)
    ]

    def walk(unit: tuple[ResampledVolume | _Plain, Write, Box]) -> None:
        volume, write, part = unit
        for box, array in volume.slabs(depth, within=part):
            write(box, array)
            if progress is not None:
                progress(box.size)

    for _ in run_units(walk, units, backend="threads", workers=workers):
        pass
    lost = np.setdiff1d(noted[0].ids.all(), result.all()) if noted else ()
    return PreparedCase(layout, tuple(int(i) for i in lost))


class _Plain:
    """A volume that keeps its grid, walked as a `ResampledVolume` is."""

    def __init__(self, volume: VolumeLike) -> None:
        self._source = volume
        self.shape, self.dtype, self.spacing = volume.shape, volume.dtype, volume.spacing

    def slabs(self, depth: int, *, within: Box) -> Iterator[tuple[Box, Array]]:
        for box in _slabs_of(within, depth):
            yield box, self._source.read(box)


class _Ids:
    """The distinct ids of arrays that come one after the other, from any thread."""

    def __init__(self) -> None:
        self._found: list[Array] = []

    def add(self, array: Array) -> None:
        self._found.append(label_ids(array))

    def all(self) -> Array:
        return np.unique(np.concatenate(self._found))


class _Noted(CroppedVolume):
    """A label volume that remembers the ids of what was read from it."""

    def __init__(self, volume: VolumeLike) -> None:
        super().__init__(volume, Box.whole(volume.shape))
        self.ids = _Ids()

    def read(self, box: Box | None = None) -> Array:
        voxels = super().read(box)
        self.ids.add(voxels)
        return voxels


def _prepared(
    volume: VolumeLike, crop: Box | None, settings: Preprocessing, *, labels: bool = False
) -> ResampledVolume | _Plain:
    kept = volume if crop is None else CroppedVolume(volume, crop)
    if settings.target is None:
        return _Plain(kept)
    return ResampledVolume(
        kept,
        settings.target,
        labels=labels,
        order=settings.order,
        separate=settings.separate,
        order_separate=settings.order_separate,
    )


def _flat(write: Write, ids: _Ids | None) -> Write:
    """Hand on labels as (Z, Y, X), noting their ids."""

    def write_flat(box: Box, array: Array) -> None:
        if ids is not None:
            ids.add(array)
        write(box, array[0])

    return write_flat


def _slabs_of(box: Box, depth: int) -> Iterator[Box]:
    for z in range(box.start[0], box.stop[0], depth):
        yield Box((z, *box.start[1:]), (min(z + depth, box.stop[0]), *box.stop[1:]))


_STRIP = 128


def _parts(
    volume: ResampledVolume | _Plain, depth: int, memory: int, workers: int
) -> Iterator[Box]:
    """The columns that are walked apart: bands of slabs, and strips where sections are large."""
    channels, sections, rows, width = volume.shape
    # A slab, the sections beside it that the spline needs, as float32, and the result.
    row = channels * width * ((depth + 24) * 4 + depth * 6)
    strip = max(1, memory // (row * _STRIP)) * _STRIP
    slabs = -(-sections // depth)
    band = -(-slabs // max(1, workers)) * depth
    for z in range(0, sections, band):
        for y in range(0, rows, strip):
            yield Box((z, y, 0), (min(z + band, sections), min(y + strip, rows), width))
