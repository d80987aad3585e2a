"""Random numbers that depend on nothing but (seed, epoch, index)."""

from __future__ import annotations

import numpy as np

__all__ = ["sample_generator"]


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
    key = np.array([seed & mask, epoch & mask], np.uint64)
    counter = np.array([0, 0, 0, index & mask], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
