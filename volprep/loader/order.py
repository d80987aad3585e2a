"""Which sample comes when: one endless order that no worker, thread or rank changes."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from volprep.randomness import sample_generator

__all__ = ["EpochSampler", "SampleOrder", "Seeded"]

#: No sample has this index, so that the order is drawn from a stream of its own.
_ORDER = 2**63


class Seeded(Sized, Protocol):
    """A data set whose samples are drawn from a seed."""

    seed: int


@dataclass
class SampleOrder:
    """The samples of a data set in passes, each a permutation of its own.

    Parameters
    ----------
    count : int
        Samples of one pass.
    seed : int
    shuffle : bool
        False lists every pass in the order of the data set.
    """

    count: int
    seed: int
    shuffle: bool
    _held: tuple[int, npt.NDArray[np.int64]] | None = field(default=None, repr=False)

    def at(self, place: int) -> tuple[int, int]:
        """The pass and the index of the sample at one place of the endless order.

        The pass is what random draws of a sample take as its epoch, so no two places ever
        give the same sample.
        """
        number, within = divmod(place, self.count)
        return number, int(self.of(number)[within])

    def of(self, number: int) -> npt.NDArray[np.int64]:
        """All indices of one pass."""
        held = self._held
        if held is None or held[0] != number:
            rng = sample_generator(self.seed, number, _ORDER)
            order = rng.permutation(self.count) if self.shuffle else np.arange(self.count)
            held = self._held = (number, order)
        return held[1]


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs for torch's DataLoader, the same for any number of workers.

    Parameters
    ----------
    dataset : sized, with a seed
        Whose ``dataset[epoch, index]`` is asked for.
    shuffle : bool
    epoch : int
        The first one; each pass over the sampler is one, unless `set_epoch` is called
        (Lightning and training loops for DistributedSampler do so).
    length : int or None
        Samples of an epoch, which goes on where the one before ended; None takes the whole
        data set.
    """

    def __init__(
        self, dataset: Seeded, shuffle: bool, epoch: int = 0, length: int | None = None
    ) -> None:
        self.order = SampleOrder(len(dataset), dataset.seed, shuffle)
        self.epoch, self.length = epoch, self.order.count if length is None else length

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.epoch * self.length
        self.epoch += 1
        return map(self.order.at, range(first, first + self.length))
