"""Memory that each thread uses again for every sample."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Scratch"]


class Scratch:
    """Arrays by name, one set for each thread; what is in them is lost at the next sample.

    Fresh memory costs a page fault for each 4 kB, which takes as long as filling it.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        """An empty one: memory is not handed to other processes."""
        return Scratch, ()

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of that shape, C-contiguous, with anything in it."""
        held: dict[str, npt.NDArray[np.uint8]] = self._local.__dict__
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = held.get(name)
        if memory is None or len(memory) < size:
            memory = held[name] = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)
