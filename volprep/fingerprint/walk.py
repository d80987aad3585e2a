"""Walking through an image and its labels together, in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import DataCheckError
from volprep.geometry import Box, VolumeLike
from volprep.sources import ArrayVolume, Volume, walk

__all__ = ["FingerprintInput", "Opened", "closing", "opened"]

Array = npt.NDArray[Any]

#: What one worker measures in one go, where a volume can be read from its middle.
PART_VOXELS = 2**26
#: How many times larger blocks of mapped files are: they cost no memory, only fewer calls.
MAPPED_TIMES = 4


@dataclass(frozen=True)
class FingerprintInput:
    """One image to measure, opened only when its turn comes.

    Attributes
    ----------
    name : str
        Of the case.
    image : callable
        Opens the image; called anew by every worker that measures a part of it.
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
            The size of an image block and its label block together; some times more
            where both are mapped.

        Yields
        ------
        box : Box
            Blocks are disjoint and cover the region.
        image : ndarray, shape (C, Z, Y, X)
        label : ndarray, shape (Z, Y, X), or None
        """
        limit = max_bytes * (MAPPED_TIMES if self._mapped else 1)
        for box, (image, label) in walk([self.image, self.label], self.region, max_bytes=limit):
            if image is not None:
                yield box, image, None if label is None else label[0]

    def regions(self) -> list[Box]:
        """The region cut along z into what one worker measures, whole layers of chunks."""
        _, height, width = self.region.shape
        depth = max(1, PART_VOXELS // max(1, self.image.shape[0] * height * width))
        layers = max(_chunk_depth(self.image), _chunk_depth(self.label))
        step = -(-depth // layers) * layers
        (first, *start), (last, *stop) = self.region.start, self.region.stop
        if self._sequential or last - first <= step:
            return [self.region]
        cuts = [first, *range((first // step + 1) * step, last, step), last]
        return [Box((a, start[0], start[1]), (b, stop[0], stop[1])) for a, b in pairwise(cuts)]

    @property
    def is_on_disk(self) -> bool:
        """Whether image and labels are files of ours, which hold no voxels between reads."""
        return all(isinstance(v, Volume) and not isinstance(v, ArrayVolume) for v in self._volumes)

    @property
    def _volumes(self) -> list[VolumeLike]:
        return [self.image] if self.label is None else [self.image, self.label]

    @property
    def _sequential(self) -> bool:
        return any(isinstance(v, Volume) and v.sequential for v in self._volumes)

    @property
    def _mapped(self) -> bool:
        return all(isinstance(v, Volume) and v.mapped for v in self._volumes)


def opened(item: FingerprintInput, region: Box | None = None) -> Opened:
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
    wanted = region or item.box or Box.whole(image.shape)
    return Opened(image, label, wanted.clip(image.shape))


def closing(volume: VolumeLike | None) -> AbstractContextManager[Any]:
    """Close a volume of ours after use; leave any other alone."""
    return volume if isinstance(volume, Volume) else nullcontext()


def _chunk_depth(volume: VolumeLike | None) -> int:
    """Planes that are read together; 1 where a volume is not stored in chunks."""
    if not isinstance(volume, Volume) or volume.chunks == volume.shape[1:]:
        return 1
    return volume.chunks[0]


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(int(n)) for n in shape)
