"""PNG and JPEG: one file is one plane."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.sources.array import MappedVolume
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume, reading
from volprep.sources.keys import refuse_key

__all__ = ["PictureHeader", "decode_picture", "open_source", "picture_header"]

_PNG = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_PALETTE = 3
_FACTOR = {1: 255, 2: 85, 4: 17}  # by which grey of few bits comes out stretched
_HEAD = 64 * 2**10
#: Pictures beyond this size must have some of it stored: sections of electron microscopes
#: shrink by a factor of 2 to 20, a picture that was made to fill memory by 1,000.
_LARGE_BYTES, _LARGE_RATIO = 256 * 2**20, 200


@dataclass(frozen=True)
class PictureHeader:
    """What a picture holds, without its pixels."""

    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    notes: tuple[Note, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """(Y, X), or (Y, X, S) with more than one sample."""
        plane = (self.height, self.width)
        return plane if self.samples == 1 else (*plane, self.samples)

    @property
    def axes(self) -> str:
        """Of `shape`."""
        return "YX" if self.samples == 1 else "YXS"


class Picture(MappedVolume):
    """A single PNG or JPEG file; decoded once."""

    def __init__(self, path: Path, layout: Layout, header: PictureHeader, *, labels: bool) -> None:
        notes = (*header.notes, Note("unknown-spacing", "no spacing stored"))
        super().__init__(path, layout, header.dtype, notes=notes)
        self._labels, self._header = labels, header

    def _held_bytes(self) -> int:
        return self.nbytes

    def _open(self) -> Array:
        return decode_picture(self.path, self._header, labels=self._labels)


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open a PNG or JPEG file as a 2D volume."""
    refuse_key(path, key, "one picture")
    header = picture_header(path, labels=labels)
    layout = Layout.of(path, axes or header.axes, header.shape)
    return Picture(path, layout, header, labels=labels)


def picture_header(path: Path, *, labels: bool) -> PictureHeader:
    """Read the size and type of a PNG or JPEG file.

    Parameters
    ----------
    path : Path
        The file.
    labels : bool
        A palette is colour in an image, but its indices are what labels are.

    Raises
    ------
    SourceError
        If it is neither, or larger than its bytes can hold.
    """
    with reading(path, "picture"):
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_PNG):
            header = _png_header(head, labels=labels)
        elif head.startswith(b"\xff\xd8"):
            header = _jpeg_header(path.read_bytes() if len(head) == _HEAD else head)
        elif not head:
            raise EOFError("it is empty")
        else:
            raise ValueError("it is neither PNG nor JPEG")
        size = path.stat().st_size
        raw = header.height * header.width * header.samples * header.dtype.itemsize
        if raw > 8 * 1032 * size:
            raise EOFError(f"{size} bytes cannot hold {header.height}×{header.width} pixels")
        if raw > _LARGE_BYTES and raw > _LARGE_RATIO * size:
            raise SourceError(
                path,
                f"is {header.height}×{header.width} pixels in {size} bytes: a picture can only be"
                f" decoded as a whole, and takes {raw // 2**20} MiB of memory",
                "save it as a tiled TIFF or as Zarr, which are read in blocks",
            )
    return header


def decode_picture(
    path: Path, header: PictureHeader, *, labels: bool, out: Array | None = None
) -> Array:
    """The pixels of a PNG or JPEG file, in the shape of its header.

    Parameters
    ----------
    path : Path
        The file.
    header : PictureHeader
        What it must hold.
    labels : bool
        As for `picture_header`.
    out : ndarray or None
        C-contiguous array of that shape and type to decode into.

    Raises
    ------
    SourceError
        If it is damaged, cut short, or holds something else.
    """
    from imagecodecs import jpeg8_decode, png_decode

    with reading(path, "picture"):
        data = path.read_bytes()
        if data.startswith(_PNG):
            plain, depth = _plain_png(data, labels=labels)
            pixels: Array = png_decode(plain, out=out if depth >= 8 else None)
            if depth < 8 and pixels.ndim == 2:
                pixels = pixels // np.uint8(_FACTOR[depth])
        else:
            _check_jpeg_end(data)
            pixels = jpeg8_decode(data, out=out)
        if pixels.shape != header.shape or pixels.dtype != header.dtype:
            raise ValueError(f"it holds {pixels.shape} {pixels.dtype}, not {header.shape}")
    return pixels


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks before the pixels, as (name, content)."""
    at = len(_PNG)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        if name == b"IDAT":
            return
        yield name, data[at + 8 : at + 8 + size]
        at += 12 + size


def _png_header(head: bytes, *, labels: bool) -> PictureHeader:
    width, height, depth, colour = struct.unpack_from(">IIBB", head, 16)
    if colour not in _SAMPLES or head[12:16] != b"IHDR" or 0 in (width, height):
        raise ValueError("its PNG header is damaged")
    samples = _SAMPLES[colour]
    notes: list[Note] = []
    if colour == _PALETTE and labels:
        samples = 1
        notes.append(Note("palette-read", "palette PNG: its indices are read as labels"))
    elif colour == _PALETTE:
        notes.append(Note("palette-read", "palette PNG: read as red, green and blue"))
    if colour in (4, 6):
        notes.append(Note("alpha-channel", f"channel {samples - 1} is transparency"))
    dtype = np.dtype(np.uint16 if depth == 16 else np.uint8)
    return PictureHeader(height, width, samples, dtype, tuple(notes))


def _plain_png(data: bytes, *, labels: bool) -> tuple[bytes, int]:
    """The PNG without transparency colours, a label palette taken as grey; and its bit depth."""
    depth, colour = data[24], data[25]
    names = {name for name, _ in _png_chunks(data)}
    indices = labels and colour == _PALETTE
    if not indices and b"tRNS" not in names:
        return data, depth if colour != _PALETTE else 8
    kept = [_PNG]
    end = len(_PNG)
    for name, content in _png_chunks(data):
        end += 12 + len(content)
        if name == b"tRNS" or (indices and name == b"PLTE"):
            continue
        if indices and name == b"IHDR":
            content = content[:9] + b"\x00" + content[10:]
        body = name + content
        kept.append(struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body)))
    return b"".join([*kept, data[end:]]), depth if indices or colour != _PALETTE else 8


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of its content) up to the first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("its JPEG header is damaged")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        yield marker, at + 4
        if marker == 0xDA:
            return
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])


def _jpeg_header(data: bytes) -> PictureHeader:
    for marker, at in _jpeg_markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, samples = struct.unpack_from(">BHHB", data, at)
            if bits != 8 or samples not in (1, 3, 4) or 0 in (height, width):
                raise ValueError(f"JPEG of {bits} bits and {samples} components")
            notes = (Note("image-lossy", "JPEG is lossy: values are not what they were"),)
            return PictureHeader(height, width, samples, np.dtype(np.uint8), notes)
    raise EOFError("it is cut short before its size")


def _check_jpeg_end(data: bytes) -> None:
    """Refuse a JPEG whose scan does not end; decoders fill the rest with grey."""
    scan = next((at for marker, at in _jpeg_markers(data) if marker == 0xDA), None)
    if scan is None or data.rfind(b"\xff\xd9", scan) < 0:
        raise EOFError("the picture is cut short")
