"""How many files, and how much inflated data, the volumes of a process keep open together."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import OrderedDict
from typing import Protocol

__all__ = ["OPEN", "Holder", "OpenFiles", "next_serial"]

next_serial = itertools.count().__next__


class Holder(Protocol):
    """What holds an open handle: a volume."""

    @property
    def serial(self) -> int:
        """Its own number in this process."""
        ...

    def let_go(self) -> None:
        """Close the handle; it is opened again when it is needed."""
        ...


class OpenFiles:
    """Volumes with an open handle; when they are too many, the least recently used let go.

    Parameters
    ----------
    max_files : int
        Handles open at once.
    max_bytes : int
        Memory that handles may hold together (streams that were inflated); the newest
        stays even if it is larger.
    """

    def __init__(self, max_files: int, max_bytes: int) -> None:
        self.max_files, self.max_bytes = max_files, max_bytes
        self._open: OrderedDict[int, tuple[weakref.ref[Holder], int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def touch(self, volume: Holder) -> None:
        """Mark a volume as just used."""
        with self._lock:
            if volume.serial in self._open:
                self._open.move_to_end(volume.serial)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more would push no other volume's out."""
        with self._lock:
            return self._bytes + size <= self.max_bytes

    def add(self, volume: Holder, size: int) -> None:
        """A volume has opened a handle that holds `size` bytes of memory."""
        dropped = []
        with self._lock:
            self._remove(volume.serial)
            self._open[volume.serial] = weakref.ref(volume), size
            self._bytes += size
            while len(self._open) > 1 and (
                len(self._open) > self.max_files or self._bytes > self.max_bytes
            ):
                serial = next(iter(self._open))
                dropped.append(self._open[serial][0])
                self._remove(serial)
        for reference in dropped:
            old = reference()
            if old is not None:
                old.let_go()

    def remove(self, volume: Holder) -> None:
        """A volume has let go of its handle."""
        with self._lock:
            self._remove(volume.serial)

    def clear(self) -> None:
        """Forget everything, as a forked process must: another thread may hold the lock."""
        self._lock = threading.Lock()
        self._open.clear()
        self._bytes = 0

    def _remove(self, serial: int) -> None:
        _, size = self._open.pop(serial, (None, 0))
        self._bytes -= size


OPEN = OpenFiles(256, 2**28)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=OPEN.clear)
