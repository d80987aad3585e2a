"""What the voxels of an image and of its labels say, gathered in one streamed pass each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box
from volprep.sources import Volume
from volprep.splits import ContentHash, SketchMaker

__all__ = ["CheckedLabel", "ImageFacts", "Progress", "measure_image", "measure_labels"]

Progress = Callable[[int], None] | None
Array = npt.NDArray[Any]


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
    def foreground(self) -> float:
        """The share of voxels that are not 0."""
        return int(self.sizes.sum()) / self.size


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
    digest = ContentHash(volume)
    low = np.full(volume.shape[:2], np.inf)
    high = np.full(volume.shape[:2], -np.inf)
    not_finite = 0
    sketch = SketchMaker(volume.shape)
    for box, voxels in volume.slabs():
        digest.add(box, voxels)
        for index in range(voxels.shape[1]):
            plane = np.ascontiguousarray(voxels[:, index])
            sketch.add(plane[0], box.start[0] + index)
            smallest, largest, bad = _range(plane.reshape(len(plane), -1))
            z = box.start[0] + index
            low[:, z] = np.minimum(low[:, z], smallest)
            high[:, z] = np.maximum(high[:, z], largest)
            not_finite += bad
        if progress is not None:
            progress(box.size)
    flat = (low >= high).all(axis=0)
    blank = np.flatnonzero(flat) if not (low.min(axis=1) >= high.max(axis=1)).all() else ()
    return ImageFacts(
        low=tuple(low.min(axis=1).tolist()),
        high=tuple(high.max(axis=1).tolist()),
        not_finite=not_finite,
        blank_planes=tuple(int(z) for z in blank),
        content=digest.hexdigest(),
        sketch=sketch.sketch(),
    )


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
    totals: dict[int, int] = {}
    faces: set[int] = set()
    planes = np.zeros(volume.shape[1], np.int64)
    tops = np.zeros(volume.shape[1], np.uint64)
    apart = True
    for box, block in volume.slabs():
        voxels = block[0]
        for label, count in zip(*_runs(voxels), strict=True):
            totals[label] = totals.get(label, 0) + count
        planes[box.slices[0]] += np.count_nonzero(voxels, axis=(1, 2))
        highest = voxels.max(axis=(1, 2))
        before = tops[box.slices[0]].copy()
        np.maximum(tops[box.slices[0]], highest, out=tops[box.slices[0]])
        apart = apart and _apart(voxels, highest, before)
        faces |= _on_faces(voxels, box, volume.shape[1:])
        if progress is not None:
            progress(box.size)
    totals.pop(0, None)
    ids = sorted(totals)
    return CheckedLabel(
        ids=np.array(ids, np.uint64),
        sizes=np.array([totals[label] for label in ids], np.int64),
        size=int(np.prod(volume.shape[1:], dtype=np.int64)),
        planes=planes,
        tops=tops,
        apart=apart,
        cut=len(faces - {0}),
    )


def _apart(voxels: Array, highest: Array, before: Array) -> bool:
    """Whether each plane of a slab, and what was read of it before, holds one value beside 0."""
    if any(h and b and h != b for h, b in zip(highest.tolist(), before.tolist(), strict=True)):
        return False
    return bool(((voxels == 0) | (voxels == highest[:, None, None])).all())


def _range(values: Array) -> tuple[Array, Array, int]:
    """Smallest and largest finite value of each row, and how many are not finite."""
    low, high = values.min(axis=1), values.max(axis=1)
    if values.dtype.kind != "f" or np.isfinite(low + high).all():
        return low, high, 0
    good = np.isfinite(values)
    low = np.min(values, axis=1, initial=np.inf, where=good)
    high = np.max(values, axis=1, initial=-np.inf, where=good)
    return low, high, values.size - int(np.count_nonzero(good))


def _runs(voxels: Array) -> tuple[list[int], list[int]]:
    """Ids and their voxels, from the runs of equal ids in memory order."""
    flat = np.ascontiguousarray(voxels).reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    ids, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse.reshape(-1), weights=lengths)  # exact: below 2**53
    return ids.tolist(), counts.astype(np.int64).tolist()


def _on_faces(voxels: Array, box: Box, shape: tuple[int, ...]) -> set[int]:
    """The values of a slab on the outer faces of the volume; a single plane has no faces in z."""
    found: set[int] = set()
    for axis in range(3):
        if shape[axis] == 1:
            continue
        for edge, at in ((0, box.start[axis]), (-1, box.stop[axis] - shape[axis])):
            if at == 0:
                found.update(np.unique(voxels.take(edge, axis=axis)).tolist())
    return found
