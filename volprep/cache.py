"""Decoded blocks of everything that is read in blocks: one cache, one limit, for all threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

__all__ = ["CACHE", "BlockCache", "Index"]

Array = npt.NDArray[Any]
Index = tuple[int, ...]


class BlockCache:
    """Decoded blocks of all volumes of this process, the least recently used dropped first.

    Parameters
    ----------
    max_bytes : int
        What the kept blocks may take together; a larger block is not kept at all.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[tuple[int, Index], Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, owner: int, index: Index) -> Array | None:
        """The block, or None where it is not kept."""
        with self._lock:
            block = self._blocks.get((owner, index))
            if block is not None:
                self._blocks.move_to_end((owner, index))
            return block

    def get_all(self, owner: int, indices: Sequence[Index]) -> list[Array | None]:
        """As `get`, of several blocks of one volume."""
        found = []
        with self._lock:
            for index in indices:
                block = self._blocks.get((owner, index))
                if block is not None:
                    self._blocks.move_to_end((owner, index))
                found.append(block)
        return found

    def put(self, owner: int, index: Index, block: Array) -> None:
        """Keep a block; it must not be written to any more."""
        if block.nbytes > self.max_bytes:
            return
        with self._lock:
            if (owner, index) in self._blocks:
                return
            self._blocks[(owner, index)] = block
            self._bytes += block.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._blocks.popitem(last=False)[1].nbytes

    def drop(self, owner: int) -> None:
        """Forget the blocks of one volume."""
        with self._lock:
            for name in [name for name in self._blocks if name[0] == owner]:
                self._bytes -= self._blocks.pop(name).nbytes

    def clear(self) -> None:
        """Forget everything; a forked process does so, as another thread may hold the lock."""
        self._lock = threading.Lock()
        self._blocks.clear()
        self._bytes = 0


CACHE = BlockCache(256 * 2**20)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CACHE.clear)
