"""Scratch space: arrays in unnamed files of the temporary folder, for what memory should not hold.

A file is allocated before it is mapped. To write through a map where the disk has no room is
a bus error, which ends the process without a word; to allocate fails with an error that can
be told.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError

__all__ = ["SCRATCH", "Scratch", "scratch_array"]

Array = npt.NDArray[Any]
Key = tuple[int, tuple[int, ...]]

_MIB = 2**20
#: Of the free space of the temporary folder, how much blocks of all volumes may take.
_SHARE = 0.5


def scratch_array(name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """A mapped array of zeros in the temporary folder; its space goes back with the array.

    Parameters
    ----------
    name : str
        The volume that needs it, for messages.
    shape, dtype
        Of the array.

    Raises
    ------
    SourceError
        If the temporary folder has no room; with the bytes needed and the bytes free.
    """
    kind = np.dtype(dtype)
    size = max(1, math.prod(shape) * kind.itemsize)
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(prefix="volprep-", dir=folder) as file:
            _allocate(file.fileno(), size)
            return np.memmap(file, kind, "r+", shape=tuple(shape))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(folder).free
        raise SourceError(
            name,
            f"needs {size} bytes of scratch space in {folder}, where {free} are free",
            "free some space, or set TMPDIR to a folder with more",
        ) from error


def _allocate(descriptor: int, size: int) -> None:
    """Give a file its blocks now, not when they are first written to."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(2**20)  # macOS and Windows
    for start in range(0, size, len(zeros)):
        os.write(descriptor, zeros[: size - start])


class Scratch:
    """Blocks that are too large for memory, kept on disk; the least recently used dropped first.

    Parameters
    ----------
    max_bytes : int or None
        What they may take together; None takes half of what is free when the first is kept.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[Key, Array] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, owner: int, index: tuple[int, ...]) -> Array | None:
        """The block, or None where it is not kept."""
        with self._lock:
            block = self._blocks.get((owner, index))
            if block is not None:
                self._blocks.move_to_end((owner, index))
            return block

    def make(
        self, volume: Any, index: tuple[int, ...], shape: Sequence[int], dtype: npt.DTypeLike
    ) -> Array:
        """Room for a block of a volume, to be filled by the caller and then `put`."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            if self.max_bytes is None:
                self.max_bytes = int(_SHARE * shutil.disk_usage(tempfile.gettempdir()).free)
            while self._blocks and size + self.nbytes > self.max_bytes:
                self._blocks.popitem(last=False)
            try:
                return scratch_array(volume.name, shape, dtype)
            except SourceError:
                if not self._blocks:
                    raise
                self._blocks.clear()  # what others keep can be decoded again
                return scratch_array(volume.name, shape, dtype)

    def put(self, volume: Any, index: tuple[int, ...], block: Array) -> None:
        """Keep a block; it goes with its volume at the latest."""
        with self._lock:
            owner = volume.serial
            if not any(key[0] == owner for key in self._blocks):
                weakref.finalize(volume, self.drop, owner)
                _tell(volume.name, block.nbytes)
            self._blocks[(owner, index)] = block

    @property
    def nbytes(self) -> int:
        """What all kept blocks take."""
        return sum(block.nbytes for block in self._blocks.values())

    def drop(self, owner: int) -> None:
        """Forget the blocks of one volume."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == owner]:
                del self._blocks[key]

    def clear(self) -> None:
        """Forget everything, as a forked process must: another thread may hold the lock."""
        self._lock = threading.RLock()
        self._blocks.clear()


def _tell(name: str, size: int) -> None:
    import logging  # 6 ms that nobody else here waits for

    logging.getLogger("volprep.sources").warning(
        "%s: chunks of %d MiB are decoded into scratch files in %s; smaller ones are faster",
        name, size // _MIB, tempfile.gettempdir(),
    )  # fmt: skip


SCRATCH = Scratch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SCRATCH.clear)
