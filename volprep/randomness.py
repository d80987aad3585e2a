"""Random numbers that depend on nothing but (seed, epoch, index)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

__all__ = ["sample_generator"]


class _Key(ISeedSequence):
    """Seeds Philox with its key itself; handed a key, it would ask the system for entropy, too."""

    def __init__(self, seed: int, epoch: int) -> None:
        self._words = np.array([seed, epoch], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> npt.NDArray[Any]:
        """The key."""
        if n_words != 2 or np.dtype(dtype) != np.uint64:
            raise ValueError(f"asked for {n_words} words of {np.dtype(dtype)}, wanted 2 of uint64")
        return self._words


def sample_generator(seed: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """The generator of one sample, the same in every worker and every run.

    Parameters
    ----------
    seed : int
        Of the experiment, 0 or more; 64 bits are used.
    epoch, index : int
        Of the sample, 0 or more.

    Returns
    -------
    numpy.random.Generator
        Philox keyed on (seed, epoch) with the counter set to `index`; streams
        of different samples do not overlap for 2**64 draws each.
    """
    mask = 2**64 - 1
    key: Any = _Key(seed & mask, epoch & mask)  # numpy's stubs do not know that it will do
    counter = np.array([0, 0, 0, index & mask], np.uint64)
    return np.random.Generator(np.random.Philox(key, counter=counter))
