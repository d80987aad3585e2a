"""Walking through an image and its labels together, in blocks that fit into memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import DataCheckError
from volprep.geometry import Box, VolumeLike
from volprep.sources import Volume

__all__ = ["FingerprintInput", "Opened", "closing", "opened"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FingerprintInput:
    """One image to measure, opened only when its turn comes.

    Attributes
    ----------
    name : str
        Of the case.
    image : callable
        Opens the image.
    label : callable or None
        Opens the labels: one channel, integers from 0 up.
    box : Box or None
        The block to measure; None measures all of it.
    """

    name: str
    image: Callable[[], VolumeLike]
    label: Callable[[], VolumeLike] | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Opened:
    """An image, its labels, and the block of them that counts."""

    image: VolumeLike
    label: VolumeLike | None
    region: Box

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """Of the labels; of a mask where there are none."""
        return np.dtype(np.uint8) if self.label is None else self.label.dtype

    def blocks(self, max_bytes: int) -> Iterator[tuple[Box, Array, Array | None]]:
        """Blocks of the region with their voxels, in the order z, y, x.

        Parameters
        ----------
        max_bytes : int
            The size of an image block and its label block together.

        Yields
        ------
        box : Box
            Blocks are disjoint and cover the region.
        image : ndarray, shape (C, Z, Y, X)
        label : ndarray, shape (Z, Y, X), or None
        """
        for box, image, label in self._covering(max_bytes):
            part = _common(box, self.region)
            if part is None:
                continue
            inside = part.shift([-n for n in box.start]).slices
            yield part, image[:, *inside], None if label is None else label[0][inside]
            let_go(image)
            if label is not None:
                let_go(label)
            if part.stop == self.region.stop:
                return

    def _covering(self, max_bytes: int) -> Iterator[tuple[Box, Array, Array | None]]:
        """Blocks of the whole volume, some of those outside the region left out."""
        image, label = self.image, self.label
        own = image.dtype.itemsize * image.shape[0]
        share = own / (own + (0 if label is None else label.dtype.itemsize))
        boxes = _boxes(image, int(max_bytes * share))
        planes = boxes[0].shape[1:] == image.shape[2:]
        if planes and isinstance(image, Volume) and (label is None or isinstance(label, Volume)):
            depth = boxes[0].shape[0]
            if label is None:
                yield from ((box, block, None) for box, block in image.slabs(depth))
                return
            for (box, block), (_, ids) in zip(image.slabs(depth), label.slabs(depth), strict=True):
                yield box, block, ids
            return
        for box in boxes:
            if _common(box, self.region) is not None:
                yield box, image.read(box), None if label is None else label.read(box)


def opened(item: FingerprintInput) -> Opened:
    """Open image and labels of a case, and check that they belong together.

    Raises
    ------
    DataCheckError
        If the labels have another shape than the image, or several channels.
    SourceError
        If a file cannot be read.
    """
    image = item.image()
    label = None if item.label is None else item.label()
    if label is not None and label.shape != (1, *image.shape[1:]):
        raise DataCheckError([
            f"{item.name}: the labels are {_times(label.shape)}, the image is "
            f"{_times(image.shape)}; give labels of one channel and the shape of the image"
        ])  # fmt: skip
    region = Box.whole(image.shape) if item.box is None else item.box.clip(image.shape)
    return Opened(image, label, region)


def let_go(block: Array) -> None:
    """Give back the memory of a block that is mapped from a file; the file's cache stays.

    Without this, walking through a mapped volume ends with all of it in memory.
    """
    owner: Any = block
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = block.ctypes.data - np.frombuffer(owner, np.uint8, 1).ctypes.data
    reach = sum((n - 1) * step for n, step in zip(block.shape, block.strides, strict=True))
    start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (first + reach + block.itemsize - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if size > 0:
        owner.madvise(mmap.MADV_DONTNEED, start, size)


def closing(volume: VolumeLike | None) -> AbstractContextManager[Any]:
    """Close a volume of ours after use; leave any other alone."""
    return volume if isinstance(volume, Volume) else nullcontext()


def _boxes(image: VolumeLike, max_bytes: int) -> list[Box]:
    if isinstance(image, Volume):
        return image.slab_boxes(max_bytes=max_bytes)
    channels, nz, ny, nx = image.shape
    depth = max(1, max_bytes // max(1, channels * ny * nx * image.dtype.itemsize))
    return [Box((z, 0, 0), (z + depth, ny, nx)).clip(image.shape) for z in range(0, nz, depth)]


def _common(a: Box, b: Box) -> Box | None:
    start = [max(p, q) for p, q in zip(a.start, b.start, strict=True)]
    stop = [min(p, q) for p, q in zip(a.stop, b.stop, strict=True)]
    if any(q <= p for p, q in zip(start, stop, strict=True)):
        return None
    return Box.at(start, [q - p for p, q in zip(start, stop, strict=True)])


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, np.array(shape).tolist()))
