"""The one interface of every volume, whatever file it lies in."""

from __future__ import annotations

import math
import mmap
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import eq, gt
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError, VolprepError
from volprep.findings import Note
from volprep.geometry import Box, Shape3, Spacing3
from volprep.places import path_of, what_is_there
from volprep.sources.axes import Layout
from volprep.sources.openfiles import OPEN, next_serial
from volprep.sources.placement import Placement

__all__ = [
    "SLAB_BYTES",
    "Array",
    "Volume",
    "changed_meanwhile",
    "forget",
    "forget_block",
    "map_file",
    "map_of",
    "native_dtype",
    "open_descriptor",
    "read_at",
    "read_pieces",
    "reading",
    "still_whole",
    "stored_bytes",
]

Array = npt.NDArray[Any]

#: How much of a volume `Volume.slabs` holds at once unless told otherwise.
SLAB_BYTES = 16 * 2**20
_HUGE = 4  # times the size of a slab, for a chunk that slabs need not hold whole


@contextmanager
def reading(path: object, what: str = "volume") -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a SourceError that names it."""
    try:
        yield
    except VolprepError:
        raise
    except Exception as error:
        raise as_source_error(path, error, what) from error


def as_source_error(path: object, error: Exception, what: str = "volume") -> SourceError:
    """What an error means for the user whose file it is."""
    if isinstance(error, FileNotFoundError):
        return SourceError(path, "does not exist", what_is_there(Path(str(path))))
    if isinstance(error, PermissionError):
        return SourceError(path, "may not be read", "check its permissions")
    if isinstance(error, MemoryError):
        return SourceError(
            path,
            "does not fit into memory while it is read, or its header gives a size that is wrong",
            "use fewer workers, or store it in smaller chunks",
        )
    reason = str(error).strip().splitlines()
    return SourceError(
        path,
        f"cannot be read as a {what} ({type(error).__name__}"
        + (f": {reason[0][:200]})" if reason else ")"),
        "the file is damaged, cut short, or of another format",
    )


def native_dtype(path: str | Path, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype in this machine's byte order, bool as uint8; what is no number is refused."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.dtype(np.uint8)
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise SourceError(
            path, f"holds {kind}", "give integers or floating point numbers up to 64 bits"
        )
    return kind.newbyteorder("=")


def open_descriptor(path: str | Path) -> int:
    """Open a file for `read_at`."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


_SEEK = threading.Lock()
_MAPPED_BYTES = 64 * 2**20
#: What is read of a file that could be mapped: blocks up to so many bytes, in pieces of so many.
_READ_BYTES, _PIECE_BYTES = 64 * 2**20, 16 * 2**10


def stored_bytes(descriptor: int, size: int, offset: int) -> bytes | Array:
    """As `read_at`; so many that memory should not hold them are mapped."""
    if size < _MAPPED_BYTES or offset + size > os.fstat(descriptor).st_size:
        return read_at(descriptor, size, offset)
    view = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    return np.frombuffer(view, np.uint8, size, offset)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """The `size` bytes at an offset of an open file, fewer at its end; any thread may do so."""
    data = _read_at(descriptor, size, offset)
    while 0 < len(data) < size:  # one call reads 2 GiB at most
        more = _read_at(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _SEEK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file, read-only and fetched when they are touched."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def still_whole(path: Path, view: mmap.mmap) -> None:
    """Refuse to read on from the map of a file that has become shorter meanwhile.

    The system ends a process that reads from a map where the file is no more. It is asked
    before each block (2 µs), so that only a file that shrinks within one still ends it; see
    `read_pieces`.
    """
    if path.stat().st_size < len(view):
        raise changed_meanwhile(path)


def changed_meanwhile(path: Path) -> SourceError:
    """What is said of an input that another program writes at the same time."""
    return SourceError(path, "changed while it was being used", "leave it alone and run again")


def read_pieces(
    path: Path, offset: int, stored: Sequence[int], dtype: np.dtype[Any], cut: Sequence[slice]
) -> Array | None:
    """A part of an array in a file, read piece by piece; None where a map serves it better.

    That is where it is larger than what is walked through at once, or its pieces are small. What
    is read is worked on for longer than it takes to read, and while one works on a map, a program
    that writes the file anew ends the process.

    Parameters
    ----------
    path : Path
    offset : int
        Of the array.
    stored, dtype
        Its shape and dtype.
    cut : sequence of slice
        One for each axis, with start and stop.

    Raises
    ------
    SourceError
        If the file ends before the part does.
    """
    shape = [c.stop - c.start for c in cut]
    whole = len(shape)  # from this axis on all is wanted
    while whole and shape[whole - 1] == stored[whole - 1]:
        whole -= 1
    lead = shape[: max(0, whole - 1)]
    count = math.prod(lead)
    size = math.prod(shape) * dtype.itemsize
    if not 0 < size <= _READ_BYTES or (count > 1 and size // count < _PIECE_BYTES):
        return None
    block = np.empty(shape, dtype)
    pieces = block.reshape(-1).view(np.uint8).data
    steps = [math.prod(stored[n + 1 :]) * dtype.itemsize for n in range(len(stored))]
    first = offset + sum(c.start * step for c, step in zip(cut, steps, strict=True))
    descriptor = open_descriptor(path)
    try:
        for number, place in enumerate(np.ndindex(*lead)):
            at = first + sum(n * step for n, step in zip(place, steps, strict=False))
            piece = pieces[number * (size // count) : (number + 1) * (size // count)]
            if _read_into(descriptor, piece, at) < len(piece):
                raise changed_meanwhile(path)
    finally:
        os.close(descriptor)
    block.flags.writeable = False  # as a map is
    return block


def _read_into(descriptor: int, piece: memoryview, offset: int) -> int:
    """Fill memory from an offset of a file; how many bytes there were."""
    if not hasattr(os, "preadv"):
        data = read_at(descriptor, len(piece), offset)
        piece[: len(data)] = data
        return len(data)
    done = 0
    while done < len(piece) and (got := os.preadv(descriptor, [piece[done:]], offset + done)):
        done += got
    return done


def forget(view: mmap.mmap | Array) -> None:
    """Give the memory of a mapped file back; what is touched again is fetched again.

    Parameters
    ----------
    view : mmap or ndarray
        An array is given back whole where it is one of a mapped file, and left where not.
    """
    while isinstance(view, np.ndarray):
        if view.base is None:
            return
        view = view.base
    if not isinstance(view, mmap.mmap):
        return
    if hasattr(view, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        view.madvise(mmap.MADV_DONTNEED)


def map_of(block: Array) -> mmap.mmap | None:
    """The map that an array is a view of; None of any other."""
    owner: Any = block
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None


def forget_block(block: Array) -> None:
    """Give the memory of a part of a mapped file back; any other array is left alone.

    Without this, walking through a mapped volume ends with all of it in memory.
    """
    owner = map_of(block)
    if owner is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = block.ctypes.data - np.frombuffer(owner, np.uint8, 1).ctypes.data
    # Of an axis that is mirrored the first voxel lies last.
    spans = [(n - 1) * step for n, step in zip(block.shape, block.strides, strict=True)]
    first += sum(span for span in spans if span < 0)
    reach = sum(map(abs, spans))
    start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (first + reach + block.itemsize - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if size > 0:
        owner.madvise(mmap.MADV_DONTNEED, start, size)


class Volume(ABC):
    """One image or label volume in a file, read only where it is asked for.

    Opening reads headers; `read` touches no more of the file than the box needs.
    The file itself is opened at the first read, again after `close`, and anew in
    every process: a volume may be pickled or forked at any time. Reading from
    several threads at once is safe.

    Attributes
    ----------
    path : Path
        The file or folder.
    key : str or None
        The dataset inside it.
    axes : str
        The stored axes, as the file or the user says: ``"ZYX"``, ``"YXC"``, ...
    shape : tuple of int
        (C, Z, Y, X); Z is 1 for a 2D file.
    dtype : numpy.dtype
        Of what `read` returns, in native byte order.
    spacing : tuple of float or None
        (Z, Y, X) in micrometres; None where the file does not give all of it.
        A 2D file that says nothing of z has its y spacing there.
    chunks : tuple of int
        (Z, Y, X): the block that is read at once; boxes that follow it are cheap.
    notes : tuple of Note
        What was read with doubt.
    placement : Placement or None
        Where the file says that its voxels lie; None where it does not.
    """

    def __init__(
        self,
        path: str | Path,
        layout: Layout,
        dtype: npt.DTypeLike,
        *,
        key: str | None = None,
        spacing: Spacing3 | None = None,
        chunks: Shape3 | None = None,
        notes: Sequence[Note] = (),
        placement: Placement | None = None,
    ) -> None:
        self.path = path_of(path)
        self.key = key
        self.axes = layout.axes
        self.shape = layout.shape
        self.dtype = native_dtype(path, dtype)
        self._stored_dtype = np.dtype(dtype)
        self.spacing = spacing
        self.chunks: Shape3 = Box.whole(chunks or self.shape[1:]).clip(self.shape).stop
        self.notes = tuple(notes)
        self.placement = placement
        self._layout = layout
        self._prepare()

    def _prepare(self) -> None:
        """What a volume has anew in each process."""
        self._handle: Any = None
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self.serial = next_serial()

    @property
    def ndim_spatial(self) -> int:
        """2 where there is one plane only, else 3."""
        return self._layout.ndim_spatial

    @property
    def times(self) -> int:
        """How many time points the file holds, of which this is one."""
        return self._layout.times

    @property
    def sequential(self) -> bool:
        """Whether only `slabs` reads it cheaply: a single box costs as much as the whole."""
        return False

    @property
    def mapped(self) -> bool:
        """Whether `read` gives views of a mapped file: large blocks cost no memory of their own."""
        return False

    @property
    def name(self) -> str:
        """The file, and the dataset in it: ``a.h5::raw``."""
        return str(self.path) if self.key is None else f"{self.path}::{self.key}"

    @property
    def nbytes(self) -> int:
        """The size of the whole volume once read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, box: Box | None = None) -> Array:
        """The voxels of a box.

        Parameters
        ----------
        box : Box or None
            Must lie inside the volume; None reads all of it.

        Returns
        -------
        ndarray
            (C, Z, Y, X) in `dtype`. It may be a read-only view into a mapped file.

        Raises
        ------
        ValueError
            If the box reaches beyond the volume.
        SourceError
            If the file cannot be read there.
        """
        wanted = Box.whole(self.shape) if box is None else box
        if min(wanted.start) < 0 or any(map(gt, wanted.stop, self.shape[1:])):
            raise ValueError(f"{wanted} is not inside {self.name} of shape {self.shape[1:]}")
        if any(map(eq, wanted.start, wanted.stop)):
            return np.empty((self.shape[0], *wanted.shape), self.dtype)
        try:
            return self._native(self._read(wanted))
        except VolprepError:
            raise
        except Exception as error:
            raise as_source_error(self.name, error) from error

    def slabs(
        self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES
    ) -> Iterator[tuple[Box, Array]]:
        """Walk the whole volume once, in order of z, without holding much of it.

        Parameters
        ----------
        depth : int or None
            Planes in each slab (fewer in the last). None takes what suits the file:
            as many layers of chunks as fit in `max_bytes`; a layer that does not fit
            is itself cut along y and, if need be, x.
        max_bytes : int
            The size of a slab where `depth` is None; at least one chunk is read.

        Yields
        ------
        box : Box
            Where the slab lies. Boxes are disjoint and cover the volume.
        voxels : ndarray
            (C, Z, Y, X), valid until the next slab is asked for.
        """
        for box in self.slab_boxes(depth, max_bytes=max_bytes):
            yield box, self.read(box)

    def slab_boxes(self, depth: int | None = None, *, max_bytes: int = SLAB_BYTES) -> list[Box]:
        """The boxes that `slabs` walks through."""
        if depth is not None and depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        block = _slab_shape(self, max_bytes) if depth is None else (depth, *self.shape[2:])
        return [
            Box((z, y, x), (z + block[0], y + block[1], x + block[2])).clip(self.shape)
            for z in range(0, self.shape[1], block[0])
            for y in range(0, self.shape[2], block[1])
            for x in range(0, self.shape[3], block[2])
        ]

    def missing_chunks(self) -> tuple[int, int]:
        """How many chunks were never written, and how many there would be.

        Such chunks read as a fill value, mostly 0: a transfer that broke off and a volume that
        is empty there look alike. (0, 1) where the format stores every voxel.

        Raises
        ------
        SourceError
            If the file cannot be read.
        """
        return 0, 1

    def holes(self) -> Volume | None:
        """A volume of 1 where the file holds data and 0 where it has none; None if nowhere.

        What is read there is a fill value, which is no annotation.
        """
        return None

    def close(self) -> None:
        """Let go of the open file; a later read opens it again."""
        OPEN.remove(self)
        self.let_go()

    def let_go(self) -> None:
        """Drop the handle; a read that is under way keeps it to its end."""
        self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.axes} {self.shape} {self.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        here = ("_handle", "_owner", "_lock", "serial")
        return {k: v for k, v in self.__dict__.items() if k not in here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @abstractmethod
    def _read(self, box: Box) -> Array:
        """The voxels of a box that lies inside and is not empty, as (C, Z, Y, X)."""

    def _open(self) -> Any:
        """Open the file for reading; what comes back is kept as the handle."""
        return None

    def _held_bytes(self) -> int:
        """The memory that the handle takes."""
        return 0

    def _opened(self) -> Any:
        """The handle, opened on first use, after `close`, and anew in a forked process."""
        if self._owner != os.getpid():
            self._prepare()
        handle = self._handle
        if handle is not None:
            OPEN.touch(self)
            return handle
        with self._lock:
            handle = self._handle
            if handle is None:
                handle = self._handle = self._open()
                OPEN.add(self, self._held_bytes())
        return handle

    def _native(self, block: Array) -> Array:
        """The block in `dtype`; what is so already is not copied."""
        if block.dtype.kind == "b":
            return block.view(np.uint8)
        if block.dtype == self.dtype and block.dtype.isnative and block.flags.aligned:
            return block
        return block.astype(self.dtype)


def _slab_shape(volume: Volume, max_bytes: int) -> Shape3:
    """The largest block of whole chunks that fits: whole planes, else rows, else a run of them."""
    channels, nz, ny, nx = volume.shape
    cz, cy, cx = volume.chunks
    voxels = max(1, max_bytes // (channels * volume.dtype.itemsize))
    if cz * ny * nx <= voxels:
        return min(nz, voxels // (cz * ny * nx) * cz), ny, nx
    if volume.chunks == (nz, ny, nx) or cz * cy * cx > _HUGE * voxels:
        # No chunks to respect, or such that memory cannot hold one (it is kept elsewhere):
        # whole planes of them come cheapest, else rows.
        if cy * cx <= voxels:
            return voxels // (cy * cx), cy, cx
        return 1, max(1, voxels // cx), cx
    if cz * cy * nx <= voxels:
        return cz, min(ny, voxels // (cz * cy * nx) * cy), nx
    return cz, cy, min(nx, max(1, voxels // (cz * cy * cx)) * cx)
