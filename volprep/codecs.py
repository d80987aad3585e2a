"""Compressed bytes and their checksums, as the chunks and shards of Zarr hold them.

What readers of foreign files and the patch set's own store share. A decoder here never
leaves a byte of its output unset and never reads beyond its input, whatever that holds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CRC_BYTES",
    "MISSING",
    "CodecError",
    "Codecs",
    "blosc_encode",
    "crc32c",
    "decode_shard_index",
    "encode_shard_index",
    "inner_chunk",
    "with_crc32c",
    "without_crc32c",
]

Bytes = npt.NDArray[np.uint8]
#: Offset and size of an inner chunk that was never written (Zarr v3, ``sharding_indexed``).
MISSING = 2**64 - 1
CRC_BYTES = 4
_BLOSC_HEADER = struct.Struct("<4B3I")  # versions, flags, type size; nbytes, block size, cbytes


class CodecError(ValueError):
    """Bytes that are not what their header, their checksum or their place say."""


@dataclass(frozen=True)
class Codecs:
    """How the bytes of a chunk become voxels.

    Attributes
    ----------
    names : tuple of str
        The compressor, of ``blosc, zstd, gzip, zlib, lz4``; empty for none.
    checked : bool
        Whether a CRC-32C follows the compressed bytes.
    """

    names: tuple[str, ...]
    checked: bool

    @classmethod
    def of(cls, names: Sequence[str], *, checked: bool) -> Codecs | None:
        """None where a chain has a codec that is not decoded here, or several."""
        if len(names) > 1 or not set(names) <= _DECODERS.keys():
            return None
        return cls(tuple(names), checked)

    def decode(self, data: bytes | Bytes, out: Bytes) -> None:
        """Decode a chunk into a flat array of bytes, all of which it must fill.

        Raises
        ------
        CodecError
            If the checksum differs, the bytes are not of that compressor, or they hold
            more or fewer bytes than `out`.
        """
        packed = without_crc32c(data) if self.checked else _flat(data)
        if not self.names:
            if len(packed) != len(out):
                raise CodecError(f"a chunk has {len(packed)} bytes, not {len(out)}")
            out[...] = packed
            return
        name = self.names[0]
        try:
            size = _DECODERS[name](packed, out)
        except (RuntimeError, ValueError) as error:  # of imagecodecs, which has one for each codec
            raise CodecError(f"a chunk is no {name} data of {len(out)} bytes ({error})") from error
        if size != len(out):
            raise CodecError(f"a chunk holds {size} bytes, not {len(out)}")


def crc32c(data: bytes | Bytes, value: int = 0) -> int:
    """CRC-32C (Castagnoli) of contiguous bytes, going on from `value`."""
    return int(_extend_crc32c()(value, data))


@cache
def _extend_crc32c() -> Callable[..., int]:
    """Looked up once: an import in a function that is called for each chunk takes 1 µs of 6."""
    import google_crc32c

    found: Callable[..., int] = google_crc32c.extend
    return found


def with_crc32c(data: bytes) -> bytes:
    """The bytes with their CRC-32C behind them, as Zarr's ``crc32c`` codec writes it."""
    return data + struct.pack("<I", crc32c(data))


def without_crc32c(data: bytes | Bytes) -> Bytes:
    """The bytes before a CRC-32C that follows them.

    Raises
    ------
    CodecError
        If it is another one.
    """
    flat = _flat(data)
    if len(flat) < CRC_BYTES:
        raise CodecError("a chunk is cut short")
    payload = flat[:-CRC_BYTES]
    if crc32c(payload) != int.from_bytes(flat[-CRC_BYTES:].tobytes(), "little"):
        raise CodecError("a checksum differs")
    return payload


def blosc_encode(array: npt.NDArray[Any], *, cname: str, level: int, shuffle: str) -> bytes:
    """One blosc chunk of a C-contiguous array, made by the calling thread alone.

    Parameters
    ----------
    array : ndarray
        Not its bytes: of bytes the codec would take the type size to be 1.
    cname : {'lz4', 'zstd', ...}
    level : int
    shuffle : {'noshuffle', 'shuffle', 'bitshuffle'}
    """
    import imagecodecs

    encode: Any = imagecodecs.blosc_encode
    data: bytes = encode(
        array,
        level=level,
        compressor=cname,
        shuffle=shuffle,
        typesize=array.dtype.itemsize,
        numthreads=1,
    )
    return data


def encode_shard_index(table: npt.NDArray[np.uint64]) -> bytes:
    """The index of a shard as its tail: offset and size of each inner chunk, and their CRC-32C."""
    return with_crc32c(table.astype("<u8").tobytes())


def decode_shard_index(
    data: bytes, shape: Sequence[int], codecs: Codecs | None = None
) -> npt.NDArray[np.uint64]:
    """Offset and size of every inner chunk of a shard.

    Parameters
    ----------
    data : bytes
        As long as the index is.
    shape : sequence of int
        Inner chunks along each axis.
    codecs : Codecs or None
        Of the index; None for a CRC-32C alone, which is the common one.

    Returns
    -------
    ndarray, shape (*shape, 2), uint64

    Raises
    ------
    CodecError
        If it is damaged or cut short.
    """
    table = np.empty((*shape, 2), "<u8")
    (codecs or Codecs((), True)).decode(data, table.reshape(-1).view(np.uint8))
    return table.astype(np.uint64, copy=False)


def inner_chunk(entry: npt.NDArray[np.uint64], size: int) -> tuple[int, int] | None:
    """Offset and size of one inner chunk in a shard of `size` bytes; None if never written.

    Raises
    ------
    CodecError
        If it does not lie in the shard.
    """
    offset, length = int(entry[0]), int(entry[1])
    if offset == length == MISSING:
        return None
    if offset + length > size:
        raise CodecError("a chunk lies beyond the end of its shard")
    return offset, length


def _flat(data: bytes | Bytes) -> Bytes:
    return np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data


def _blosc(data: Bytes, out: Bytes) -> int:
    """Blosc believes its header: bytes that are cut short make it read beyond their end."""
    if len(data) < _BLOSC_HEADER.size:
        raise CodecError("cut short")
    *_, size, _, packed = _BLOSC_HEADER.unpack_from(data.data)
    if packed != len(data) or size != len(out):
        raise CodecError(f"its header says {packed} bytes for {size}, there are {len(data)}")
    return len(_decoder("blosc_decode")(data, numthreads=1, out=out))


@cache
def _decoder(name: str) -> Callable[..., Any]:
    """One of imagecodecs', looked up once, as for checksums."""
    import imagecodecs

    found: Callable[..., Any] = getattr(imagecodecs, name)
    return found


def _simple(name: str, **options: Any) -> Callable[[Bytes, Bytes], int]:
    def decode(data: Bytes, out: Bytes) -> int:
        return len(_decoder(f"{name}_decode")(data, out=out, **options))

    return decode


_DECODERS: dict[str, Callable[[Bytes, Bytes], int]] = {
    "blosc": _blosc,
    "zstd": _simple("zstd"),
    "gzip": _simple("gzip"),
    "zlib": _simple("deflate"),
    "lz4": _simple("lz4", header=True),
}
