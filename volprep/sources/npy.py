"""NumPy files: `.npy` mapped, `.npz` mapped where it is stored and inflated once where not."""

from __future__ import annotations

import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.sources.array import FileVolume, default_axes
from volprep.sources.axes import Layout
from volprep.sources.base import Volume, reading
from volprep.sources.keys import choose_key, refuse_key
from volprep.sources.stream import StreamVolume

__all__ = ["datasets", "open_source"]

_LOCAL_HEADER = 30  # bytes of a zip entry before its name and extra field
# NumPy parses headers with `ast`, of which Python 3.11 keeps one depth for all threads: several
# at once end now and then in a SystemError (python/cpython#106905), and sound files look damaged.
_PARSING = Lock()


class _PickledError(SourceError):
    """An array of Python objects."""


@dataclass(frozen=True)
class _Header:
    """Where the voxels of one array begin, and what they are."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape in the order of the bytes."""
        return self.shape[::-1] if self.fortran else self.shape


class NpzVolume(StreamVolume):
    """A deflated array inside a `.npz`."""

    def __init__(self, path: Path, key: str, layout: Layout, header: _Header, packed: int) -> None:
        notes = (Note("unknown-spacing", "no spacing stored"),)
        super().__init__(path, layout, header.dtype, packed=packed, key=key, notes=notes)
        self._header = header

    def _stream(self) -> IO[bytes]:
        with zipfile.ZipFile(self.path) as archive:
            stream = archive.open(f"{self.key}.npy")
        stream.read(self._header.offset)
        return stream


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open a `.npy` or `.npz` file."""
    if path.suffix.lower() == ".npy":
        refuse_key(path, key)
        with reading(path, "NumPy file"), path.open("rb") as stream:
            header = _read_header(path, stream, path.stat().st_size)
        return _mapped(path, None, _layout(path, header, axes), header, header.offset)
    with reading(path, "NumPy archive"), zipfile.ZipFile(path) as archive:
        headers = _headers(path, archive, None if key is None else key.strip("/"))
        name = choose_key(path, {k: h.shape for k, h in headers.items()}, key, labels=labels)
        header, entry = headers[name], archive.getinfo(f"{name}.npy")
    layout = _layout(path, header, axes)
    if entry.compress_type != zipfile.ZIP_STORED:
        return NpzVolume(path, name, layout, header, entry.compress_size)
    return _mapped(path, name, layout, header, _data_start(path, entry) + header.offset)


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The arrays of a `.npz`; none for a `.npy`."""
    if path.suffix.lower() == ".npy":
        return []
    with reading(path, "NumPy archive"), zipfile.ZipFile(path) as archive:
        found = _headers(path, archive)
    return [(k, h.shape, h.dtype) for k, h in found.items() if len(h.shape) > 1]


def _mapped(
    path: Path, key: str | None, layout: Layout, header: _Header, offset: int
) -> FileVolume:
    notes = (Note("unknown-spacing", "no spacing stored"),)
    return FileVolume(path, layout, header.dtype, offset=offset, key=key, notes=notes)


def _headers(path: Path, archive: zipfile.ZipFile, wanted: str | None = None) -> dict[str, _Header]:
    """The arrays of numbers in an archive; what is pickled is an error where nothing else is."""
    found, pickled = {}, None
    for entry in archive.infolist():
        if entry.filename.endswith(".npy"):
            key = entry.filename.removesuffix(".npy")
            try:
                with archive.open(entry) as stream:
                    found[key] = _read_header(path, stream, entry.file_size)
            except _PickledError as error:
                if key == wanted:
                    raise
                pickled = error
    if pickled is not None and not found:
        raise pickled
    return found


def _read_header(path: Path, stream: IO[bytes], size: int) -> _Header:
    """Parse a header; a pickled array, or one larger than its file, is refused."""
    version = npy_format.read_magic(stream)
    read = (
        npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    )
    with _PARSING:
        shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise _PickledError(
            path, "holds pickled Python objects, which are never loaded", "save plain numbers"
        )
    header = _Header(tuple(shape), fortran, dtype, stream.tell())
    if header.offset + header.nbytes > size:
        raise SourceError(
            path,
            f"is cut short: the header promises {header.nbytes} bytes of voxels,"
            f" {max(0, size - header.offset)} are there",
            "copy or save the file again",
        )
    return header


def _layout(path: Path, header: _Header, axes: str | None) -> Layout:
    letters = axes or default_axes(path, header.shape, "the array")
    layout = Layout.of(path, letters, header.shape)
    return Layout(layout.axes[::-1], header.stored, layout.time) if header.fortran else layout


def _data_start(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of a zip entry begin in its file."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        name, extra = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
    return entry.header_offset + _LOCAL_HEADER + int(name) + int(extra)
