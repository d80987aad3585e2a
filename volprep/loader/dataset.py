"""What every data set has in common whose samples are a function of (seed, epoch, index)."""

from __future__ import annotations

import operator
from abc import abstractmethod
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from volprep.loader.recipe import Arrays

__all__ = ["EpochDataset", "Sample", "empty_numbers"]

Sample = dict[str, Any]
#: What every sample says of itself, beside its voxels: name and shape, all of them int64.
_NUMBERS: dict[str, tuple[int, ...]] = {"case": (), "start": (3,), "pad": (3, 2), "index": ()}


class EpochDataset(Dataset[Sample]):
    """A map-style data set with an epoch.

    ``dataset[index]`` is ``dataset[epoch, index]`` of the epoch given by `set_epoch`, which
    lies in shared memory, so that worker processes that live on see it, too.
    """

    seed: int

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch that plain indices mean."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that plain indices mean, here and in every worker process."""
        self._epoch.fill_(epoch)

    @abstractmethod
    def __len__(self) -> int:
        """Samples of one epoch."""

    def __getitem__(self, index: SupportsIndex | tuple[SupportsIndex, SupportsIndex]) -> Sample:
        if isinstance(index, tuple):
            epoch, number = (operator.index(part) for part in index)
        else:
            epoch, number = self.epoch, operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        room = self.room(epoch, number % len(self))
        self.fill(epoch, number % len(self), room)
        return {name: torch.from_numpy(a) if a.ndim else a.item() for name, a in room.items()}

    @abstractmethod
    def room(self, epoch: int = 0, index: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Arrays for one sample, as `fill` takes them; they are of the same shapes for all."""

    @abstractmethod
    def fill(self, epoch: int, index: int, out: Arrays) -> None:
        """Write the sample ``dataset[epoch, index]`` to arrays of its shapes and dtypes.

        Any number of threads may do so at once.
        """

    @abstractmethod
    def where(self, epoch: int, index: int) -> str:
        """In words, where a sample comes from."""


def empty_numbers() -> dict[str, npt.NDArray[Any]]:
    """Room for what a sample says of itself."""
    return {name: np.empty(shape, np.int64) for name, shape in _NUMBERS.items()}
