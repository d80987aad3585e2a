"""Decoders fill their output whole or say why not, whatever bytes they get."""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volprep.codecs import (
    MISSING,
    CodecError,
    Codecs,
    blosc_encode,
    crc32c,
    decode_shard_index,
    encode_shard_index,
    inner_chunk,
    with_crc32c,
    without_crc32c,
)

RAW = (np.arange(4096, dtype=np.uint16) // 7).view(np.uint8)
ENCODERS: dict[str, Any] = {
    "blosc": lambda raw: blosc_encode(raw, cname="lz4", level=5, shuffle="shuffle"),
    "zstd": imagecodecs.zstd_encode,
    "gzip": imagecodecs.gzip_encode,
    "zlib": imagecodecs.deflate_encode,
    "lz4": lambda raw: imagecodecs.lz4_encode(raw, header=True),
}


def slow_crc32c(data: bytes) -> int:
    """Bit by bit, with the reflected polynomial of Castagnoli."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=60))
def test_crc32c_is_castagnolis(data: bytes) -> None:
    assert crc32c(data) == slow_crc32c(data)
    assert crc32c(data[7:], crc32c(data[:7])) == slow_crc32c(data)


def test_crc32c_of_the_standards_example() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("name", ["", *ENCODERS])
@pytest.mark.parametrize("checked", [False, True])
def test_chunks_come_back(name: str, checked: bool) -> None:
    packed = bytes(ENCODERS[name](RAW)) if name else RAW.tobytes()
    codecs = Codecs.of([name] if name else [], checked=checked)
    assert codecs is not None
    out = np.full_like(RAW, 77)
    codecs.decode(with_crc32c(packed) if checked else packed, out)
    np.testing.assert_array_equal(out, RAW)


@pytest.mark.parametrize("name", ["", *ENCODERS])
def test_a_chunk_of_another_size_is_refused(name: str) -> None:
    codecs = Codecs((name,) if name else (), False)
    for held in (RAW[:-1], np.append(RAW, np.uint8(1)), RAW[:1]):
        packed = bytes(ENCODERS[name](held)) if name else held.tobytes()
        with pytest.raises(CodecError):
            codecs.decode(packed, np.empty_like(RAW))


@pytest.mark.parametrize("name", ["", *ENCODERS])
@pytest.mark.parametrize("cut", [0, 1, 4, 15, 16, 20, -1])
def test_a_chunk_cut_short_is_refused(name: str, cut: int) -> None:
    packed = bytes(ENCODERS[name](RAW)) if name else RAW.tobytes()
    with pytest.raises(CodecError):
        Codecs((name,) if name else (), False).decode(packed[:cut], np.empty_like(RAW))


@pytest.mark.parametrize("name", list(ENCODERS))
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80))
def test_noise_is_refused(name: str, data: bytes) -> None:
    with pytest.raises(CodecError):
        Codecs((name,), False).decode(data, np.empty_like(RAW))


def test_every_flipped_bit_under_a_checksum_is_noticed() -> None:
    packed = with_crc32c(bytes(range(40)))
    for bit in range(8 * len(packed)):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            without_crc32c(bytes(flipped))


def test_unknown_chains_are_left_to_others() -> None:
    assert Codecs.of(["zstd", "blosc"], checked=False) is None
    assert Codecs.of(["pcodec"], checked=False) is None


def test_a_shards_index_comes_back_and_damage_is_noticed() -> None:
    table = np.array([[0, 10], [MISSING, MISSING], [10, 5]], np.uint64)
    data = encode_shard_index(table)
    assert data[:-4] == table.astype("<u8").tobytes()
    assert struct.unpack("<I", data[-4:]) == (slow_crc32c(data[:-4]),)
    np.testing.assert_array_equal(decode_shard_index(data, (3,)), table)
    for broken in (data[:-1], data[1:], b"", bytes([data[0] ^ 1]) + data[1:]):
        with pytest.raises(CodecError):
            decode_shard_index(broken, (3,))
    assert inner_chunk(table[0], 15) == (0, 10)
    assert inner_chunk(table[1], 15) is None
    with pytest.raises(CodecError, match="beyond"):
        inner_chunk(table[2], 14)


def test_flipped_bits_of_compressed_bytes_never_leave_a_byte_unset() -> None:
    """Without a checksum a flip may go unseen; it may not give memory that nobody wrote."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 9, 4096).astype(np.uint8)
    for name, encode in ENCODERS.items():
        packed = bytes(encode(raw))
        for place in rng.integers(0, 8 * len(packed), 300):
            flipped = bytearray(packed)
            flipped[place // 8] ^= 1 << int(place) % 8
            first, second = np.full_like(raw, 1), np.full_like(raw, 2)
            try:
                Codecs((name,), False).decode(bytes(flipped), first)
                Codecs((name,), False).decode(bytes(flipped), second)
            except CodecError:
                continue
            np.testing.assert_array_equal(first, second)
