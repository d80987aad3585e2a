"""What the voxels of an image, its labels and its mask say, gathered in one pass over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.compute import run_units
from volprep.fingerprint import Counting, LabelCount, is_narrow
from volprep.geometry import Box, three
from volprep.preprocess import NonzeroBox
from volprep.sources import KeptVolume, Volume, walk
from volprep.splits import ContentHash, SketchMaker

__all__ = [
    "CheckedLabel",
    "ImageFacts",
    "Progress",
    "Walked",
    "measure_case",
    "measure_image",
    "measure_labels",
]

Progress = Callable[[int], None] | None
Array = npt.NDArray[Any]

#: Of image, labels and mask together, for each thread.
_BLOCK_BYTES = 8 * 2**20
#: Voxels that a thread walks through in one go.
_STRETCH = 2**26
#: Stretches that each thread gets, at least, where there are layers enough.
_SHARES = 4


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The voxels of an image.

    Attributes
    ----------
    low, high : tuple of float
        Smallest and largest finite value of each channel.
    not_finite : int
        Voxels that are NaN or infinite.
    blank_planes : tuple of int
        Planes along z that hold one value in every channel, where the image as
        a whole does not.
    content : str
        `volprep.splits.content_hash`.
    sketch : ndarray of uint64
        `volprep.splits.SketchMaker.sketch`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    not_finite: int
    blank_planes: tuple[int, ...]
    content: str
    sketch: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class CheckedLabel:
    """The voxels of a label.

    Attributes
    ----------
    ids : ndarray of uint64
        Every value but 0, ascending.
    sizes : ndarray of int64
        Voxels of each.
    size : int
        Voxels of the whole volume.
    planes : ndarray of int64
        Labelled voxels in each plane along z.
    tops : ndarray of uint64
        The largest value of each plane along z.
    apart : bool
        Whether every plane holds one value beside 0 at most.
    cut : int
        Ids that touch a face of the volume (in 2D, a border of the image).
    """

    ids: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int64]
    size: int
    planes: npt.NDArray[np.int64]
    tops: npt.NDArray[np.uint64]
    apart: bool
    cut: int

    @property
    def values(self) -> npt.NDArray[np.uint64]:
        """Every value, ascending, 0 among them where it occurs."""
        if int(self.sizes.sum()) == self.size:
            return self.ids
        return np.concatenate([np.zeros(1, np.uint64), self.ids])

    @property
    def foreground(self) -> float:
        """The share of voxels that are not 0."""
        return int(self.sizes.sum()) / self.size


class ImageMeasure:
    """Gathers what the voxels of an image say; blocks may come in any order.

    Parameters
    ----------
    volume : Volume
    crop : bool
        Whether the box of the voxels that are not zero is wanted.
    """

    def __init__(self, volume: Volume, *, crop: bool = False) -> None:
        self._digest, self._sketch = ContentHash(volume), SketchMaker(volume.shape)
        self._low = np.full(volume.shape[:2], np.inf)
        self._high = np.full(volume.shape[:2], -np.inf)
        self._not_finite = 0
        self._filled = NonzeroBox() if crop else None

    def add(self, box: Box, voxels: Array) -> None:
        """A block (C, Z, Y, X)."""
        self._digest.add(box, voxels)
        if self._filled is not None:
            self._filled.add(box, voxels)
        self._sketch.add(voxels[0], box.start[0])
        sections = box.slices[0]
        smallest, largest, bad = _range(voxels.reshape(*voxels.shape[:2], -1))
        np.minimum(self._low[:, sections], smallest, out=self._low[:, sections])
        np.maximum(self._high[:, sections], largest, out=self._high[:, sections])
        self._not_finite += bad

    def merge(self, other: ImageMeasure) -> None:
        """Add what was gathered of other blocks."""
        self._digest.merge(other._digest)
        self._sketch.merge(other._sketch)
        np.minimum(self._low, other._low, out=self._low)
        np.maximum(self._high, other._high, out=self._high)
        self._not_finite += other._not_finite
        if self._filled is not None and other._filled is not None:
            self._filled.merge(other._filled)

    @property
    def filled(self) -> Box | None:
        """The box of the voxels that are not zero; None where all are, or it is not wanted."""
        return None if self._filled is None else self._filled.box

    def facts(self) -> ImageFacts:
        """What was gathered of all blocks."""
        low, high = self._low, self._high
        flat = (low >= high).all(axis=0)
        blank = np.flatnonzero(flat) if not (low.min(axis=1) >= high.max(axis=1)).all() else ()
        return ImageFacts(
            low=tuple(low.min(axis=1).tolist()),
            high=tuple(high.max(axis=1).tolist()),
            not_finite=self._not_finite,
            blank_planes=tuple(int(z) for z in blank),
            content=self._digest.hexdigest(),
            sketch=self._sketch.sketch(),
        )


class LabelMeasure:
    """Gathers what labels say; blocks come in the order z, y, x and cover a region.

    Parameters
    ----------
    volume : Volume
        From `open_labels`.
    region : Box
        Whole planes.

    Attributes
    ----------
    count : LabelCount
        Of the ids of the region.
    """

    def __init__(self, volume: Volume, region: Box) -> None:
        self._shape = three(volume.shape[1:])
        self.count = LabelCount(region, self._shape)

    def add(self, box: Box, voxels: Array) -> None:
        """A block (Z, Y, X)."""
        self.count.add(box, voxels)

    def merge(self, other: LabelMeasure) -> None:
        """Add the region that comes next along z."""
        self.count.merge(other.count)

    def facts(self) -> CheckedLabel:
        """What was gathered of all blocks."""
        ids, sizes = self.count.listed()
        labelled, tops, apart = self.count.planes
        return CheckedLabel(
            ids=ids,
            sizes=sizes,
            size=math.prod(self._shape),
            planes=labelled,
            tops=tops,
            apart=bool(apart[0]),
            cut=self.count.cut,
        )


@dataclass(slots=True)
class Walked:
    """What one walk over the volumes of a case gathers; each where there is one.

    Attributes
    ----------
    image : ImageMeasure or None
    label, mask : LabelMeasure or None
    counting : Counting or None
        For the fingerprint, and the box it covers.
    """

    image: ImageMeasure | None
    label: LabelMeasure | None
    mask: LabelMeasure | None
    counting: Counting | None = None

    def merge(self, other: Walked) -> None:
        """Add the region that comes next along z."""
        for name in ("image", "label", "mask", "counting"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is None:
                setattr(self, name, theirs)
            elif theirs is not None:
                mine.merge(theirs)


def measure_case(
    volumes: Sequence[Volume | None],
    *,
    counted: Box | None = None,
    crop: bool = False,
    kept: Sequence[KeptVolume | None] = (),
    workers: int = 1,
    progress: Progress = None,
) -> Walked:
    """Read the volumes of a case together, once.

    Parameters
    ----------
    volumes : (Volume or None, Volume or None, Volume or None)
        Image, labels and mask, of one shape.
    counted : Box or None
        What is counted for the fingerprint, where the image's dtype `is_narrow`.
    crop : bool
        As for `ImageMeasure`.
    kept : sequence of KeptVolume or None
        Of the same volumes: what they keep is brought to them.
    workers : int
        Threads, a stretch of planes each, where the volumes can be read from their middle.
    progress : callable or None
        Told how many voxels were read, of images, labels and masks alike.

    Raises
    ------
    SourceError
        If a file cannot be read to its end, or a value is no id.
    """
    there = [volume for volume in volumes if volume is not None]
    part = partial(_measure_part, volumes, counted=counted, crop=crop, kept=kept, progress=progress)
    regions = _stretches(there, workers) if workers > 1 else [Box.whole(there[0].shape)]
    parts = run_units(part, regions, workers=workers)
    walked = next(parts)
    for other in parts:
        walked.merge(other)
    return walked


def _stretches(volumes: Sequence[Volume], workers: int) -> list[Box]:
    """The planes of volumes cut into what one thread walks through, whole layers of chunks.

    Some for each thread, so that none waits long for the last one.
    """
    whole = Box.whole(volumes[0].shape)
    _, height, width = whole.shape
    layer = max(1 if v.chunks == v.shape[1:] else v.chunks[0] for v in volumes)
    voxels = min(_STRETCH, whole.size // (_SHARES * workers))
    depth = -(-max(1, voxels // (height * width)) // layer) * layer
    if any(volume.sequential for volume in volumes) or depth >= whole.stop[0]:
        return [whole]
    starts = range(0, whole.stop[0], depth)
    return [Box((z, 0, 0), (z + depth, height, width)).clip(whole.shape) for z in starts]


def _measure_part(
    volumes: Sequence[Volume | None],
    region: Box,
    *,
    counted: Box | None,
    crop: bool,
    kept: Sequence[KeptVolume | None],
    progress: Progress,
) -> Walked:
    image, label, mask = volumes
    walked = Walked(
        None if image is None else ImageMeasure(image, crop=crop),
        None if label is None else LabelMeasure(label, region),
        None if mask is None else LabelMeasure(mask, region),
    )
    inner = None if counted is None else counted.common(region)
    if image is not None and inner is not None and inner.size and is_narrow(image.dtype):
        ids = walked.label.count if walked.label is not None and inner == region else None
        walked.counting = Counting(image, label, inner, ids=ids)
    for box, arrays in walk(volumes, region, max_bytes=_BLOCK_BYTES):
        voxels, labels, valid = arrays
        for keeping, array in zip(kept, arrays, strict=False):
            if keeping is not None and array is not None:
                keeping.keep(box, array)
        if walked.image is not None and voxels is not None:
            walked.image.add(box, voxels)
        if walked.label is not None and labels is not None:
            walked.label.add(box, labels[0])
        if walked.mask is not None and valid is not None:
            walked.mask.add(box, valid[0])
        part = box if inner is None else box.common(inner)
        if walked.counting is not None and voxels is not None and part.size:
            inside = part.shift([-n for n in box.start]).slices
            seen = None if labels is None else labels[0][inside]
            walked.counting.add(part, voxels[:, *inside], seen)
        if progress is not None:
            progress(box.size * sum(volume is not None for volume in volumes))
    return walked


def measure_image(volume: Volume, progress: Progress = None) -> ImageFacts:
    """Read an image once.

    Parameters
    ----------
    volume : Volume
    progress : callable or None
        Told how many voxels were read.

    Raises
    ------
    SourceError
        If the file cannot be read to its end.
    """
    found = measure_case([volume, None, None], progress=progress).image
    assert found is not None
    return found.facts()


def measure_labels(volume: Volume, progress: Progress = None) -> CheckedLabel:
    """Read labels once, counting runs of equal ids along x instead of voxels.

    Parameters
    ----------
    volume : Volume
        From `open_labels`.
    progress : callable or None
        Told how many voxels were read.

    Raises
    ------
    SourceError
        If the file cannot be read to its end, or a value is no id.
    """
    found = measure_case([None, volume, None], progress=progress).label
    assert found is not None
    return found.facts()


def _range(values: Array) -> tuple[Array, Array, int]:
    """Smallest and largest finite value along the last axis, and how many are not finite."""
    low, high = values.min(axis=-1), values.max(axis=-1)
    if values.dtype.kind != "f" or np.isfinite(low + high).all():
        return low, high, 0
    good = np.isfinite(values)
    low = np.min(values, axis=-1, initial=np.inf, where=good)
    high = np.max(values, axis=-1, initial=-np.inf, where=good)
    return low, high, values.size - int(np.count_nonzero(good))
