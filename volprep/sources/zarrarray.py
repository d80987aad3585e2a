"""Zarr arrays of both versions: metadata, chunks, shards.

Common codecs are decoded here, straight from the chunk's file into place; zarr-python
decodes the rest, chunk by chunk.
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volprep.codecs import CRC_BYTES, Codecs, decode_shard_index, inner_chunk
from volprep.errors import SourceError
from volprep.sources.axes import Layout
from volprep.sources.base import Array
from volprep.sources.chunked import ChunkedVolume, Index

__all__ = ["ZarrArray", "ZarrVolume", "read_array", "read_attributes", "read_json"]

_SHARDS_KEPT = 128


@dataclass(frozen=True)
class ZarrArray:
    """The metadata of one array.

    Attributes
    ----------
    path : Path
        Folder of the array.
    shape, dtype, fill
        Of the whole array; `dtype` in the byte order that is stored.
    block : tuple of int
        Shape of the chunks that are decoded at once: inner ones where there are shards.
    shard : tuple of int or None
        Shape of the chunks that are files, where they hold inner chunks.
    key : tuple of str
        Prefix and separator of the names of chunk files.
    codecs : Codecs or None
        None where zarr-python must decode.
    index_codecs : Codecs or None
        Of the index of a shard, and whether it comes first.
    names : tuple of str or None
        The names of the axes, where the array has them.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    block: tuple[int, ...]
    shard: tuple[int, ...] | None
    key: tuple[str, str]
    codecs: Codecs | None
    index_codecs: Codecs | None
    index_first: bool
    names: tuple[str, ...] | None


class ZarrVolume(ChunkedVolume):
    """One Zarr array; chunks are read and decoded when a box touches them."""

    def __init__(self, path: Path, layout: Layout, array: ZarrArray, **rest: Any) -> None:
        super().__init__(path, layout, array.dtype, block=array.block, **rest)
        self._meta = array

    def _open(self) -> Any:
        if self._meta.codecs is not None:
            return OrderedDict()
        import zarr

        return zarr.open_array(self._meta.path, mode="r")

    def _decode(self, index: Index, out: Array | None) -> Array:
        meta = self._meta
        if meta.codecs is None:
            start = [i * b for i, b in zip(index, self._block, strict=True)]
            cut = tuple(slice(a, a + b) for a, b in zip(start, self._block, strict=True))
            return np.asarray(self._opened()[cut])
        fits = out is not None and out.shape == self._block
        block = out if fits and out is not None else np.empty(self._block, meta.dtype)
        data = self._chunk(index) if meta.shard is None else self._inner_chunk(index)
        if data is None:
            block[...] = meta.fill
        else:
            meta.codecs.decode(data, block.reshape(-1).view(np.uint8))
        return block

    def _chunk(self, index: Index) -> bytes | None:
        try:
            return self._file(index).read_bytes()
        except FileNotFoundError:
            return None

    def _file(self, index: Index) -> Path:
        prefix, separator = self._meta.key
        name = separator.join(map(str, index)) or "0"
        return self._meta.path / (f"{prefix}{separator}{name}" if prefix else name)

    def _inner_chunk(self, index: Index) -> bytes | None:
        shard_shape = self._meta.shard or self._block
        ratio = [s // b for s, b in zip(shard_shape, self._block, strict=True)]
        shard = tuple(i // r for i, r in zip(index, ratio, strict=True))
        table = self._shard_index(shard, ratio)
        if table is None:
            return None
        with self._file(shard).open("rb") as file:
            entry = table[tuple(i % r for i, r in zip(index, ratio, strict=True))]
            place = inner_chunk(entry, os.fstat(file.fileno()).st_size)
            if place is None:
                return None
            file.seek(place[0])
            return file.read(place[1])

    def _shard_index(self, shard: Index, ratio: Sequence[int]) -> Array | None:
        """Offset and size of every inner chunk of a shard; None for a shard never written."""
        known: OrderedDict[Index, Array] = self._opened()
        table = known.get(shard)
        if table is None:
            table = self._read_index(shard, ratio)
            if table is not None:
                with self._lock:
                    known[shard] = table
                    while len(known) > _SHARDS_KEPT:
                        known.popitem(last=False)
        return table

    def _read_index(self, shard: Index, ratio: Sequence[int]) -> Array | None:
        codecs = self._meta.index_codecs or Codecs((), False)
        size = 16 * math.prod(ratio) + CRC_BYTES * codecs.checked
        try:
            with self._file(shard).open("rb") as file:
                file.seek(*((0, os.SEEK_SET) if self._meta.index_first else (-size, os.SEEK_END)))
                data = file.read(size)
        except FileNotFoundError:
            return None
        return decode_shard_index(data, ratio, codecs)


def read_json(path: Path) -> dict[str, Any] | None:
    """A metadata document; None where there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(document, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return document


def read_attributes(folder: Path) -> dict[str, Any]:
    """The attributes of a group or array of either version."""
    document = read_json(folder / "zarr.json")
    if document is not None:
        attributes = document.get("attributes", {})
        return attributes if isinstance(attributes, dict) else {}
    return read_json(folder / ".zattrs") or {}


def read_array(folder: Path) -> ZarrArray | None:
    """The metadata of the array in a folder; None where it holds a group or nothing."""
    document = read_json(folder / "zarr.json")
    if document is not None:
        return _version_3(folder, document) if document.get("node_type") == "array" else None
    document = read_json(folder / ".zarray")
    return None if document is None else _version_2(folder, document)


def _version_2(folder: Path, meta: Mapping[str, Any]) -> ZarrArray:
    shape, block = _sizes(meta["shape"], meta["chunks"])
    if not isinstance(meta["dtype"], str):
        raise SourceError(folder, "holds records, not numbers", "give an array of numbers")
    codecs = None
    compressor = meta.get("compressor")
    if not meta.get("filters") and meta.get("order", "C") == "C":
        name = None if compressor is None else str(compressor.get("id"))
        codecs = Codecs.of([] if name is None else [name], checked=False)
    dtype = np.dtype(meta["dtype"])
    return ZarrArray(
        path=folder,
        shape=shape,
        dtype=dtype,
        fill=_fill(meta.get("fill_value"), dtype),
        block=block,
        shard=None,
        key=("", str(meta.get("dimension_separator", "."))),
        codecs=codecs,
        index_codecs=None,
        index_first=False,
        names=_axis_names(read_attributes(folder).get("_ARRAY_DIMENSIONS")),
    )


def _version_3(folder: Path, meta: Mapping[str, Any]) -> ZarrArray:
    grid, encoding = meta["chunk_grid"], meta["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise SourceError(folder, f"has a {grid['name']} chunk grid", "store it in regular chunks")
    shape, block = _sizes(meta["shape"], grid["configuration"]["chunk_shape"])
    if not isinstance(meta["data_type"], str):
        raise SourceError(folder, "holds no plain numbers", "give an array of numbers")
    chain, shard, index_codecs, first = list(meta["codecs"]), None, None, False
    if len(chain) == 1 and chain[0]["name"] == "sharding_indexed":
        setup = chain[0]["configuration"]
        shard, (_, block) = block, _sizes(meta["shape"], setup["chunk_shape"])
        chain, first = list(setup["codecs"]), setup.get("index_location", "end") == "start"
        index_codecs, swapped = _chain(setup.get("index_codecs", []))
        if index_codecs is None or index_codecs.names or swapped:
            chain = []
    codecs, big = _chain(chain)
    dtype = np.dtype(meta["data_type"]).newbyteorder(">" if big else "<")
    default = "." if encoding["name"] == "v2" else "/"
    separator = str(encoding.get("configuration", {}).get("separator", default))
    return ZarrArray(
        path=folder,
        shape=shape,
        dtype=dtype,
        fill=_fill(meta.get("fill_value"), dtype),
        block=block,
        shard=shard if codecs is not None else None,
        key=("" if encoding["name"] == "v2" else "c", separator),
        codecs=codecs,
        index_codecs=index_codecs,
        index_first=first,
        names=_axis_names(meta.get("dimension_names")),
    )


def _chain(chain: Sequence[Mapping[str, Any]]) -> tuple[Codecs | None, bool]:
    """The codecs of a version 3 chain and whether its numbers are big-endian; None if unknown."""
    if not chain or chain[0]["name"] != "bytes":
        return None, False
    big = chain[0].get("configuration", {}).get("endian", "little") == "big"
    names = [str(codec["name"]) for codec in chain[1:]]
    checked = names[-1:] == ["crc32c"]
    return Codecs.of(names[:-1] if checked else names, checked=checked), big


def _sizes(shape: Any, chunks: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    whole, block = tuple(int(n) for n in shape), tuple(int(n) for n in chunks)
    if len(whole) != len(block) or min(block, default=1) < 1 or min(whole, default=0) < 0:
        raise ValueError(f"its metadata give shape {whole} and chunks {block}")
    if math.prod(block) > 2**40:
        raise ValueError(f"its metadata give chunks of {block} voxels")
    return whole, block


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    """The value of voxels that were never written, as metadata spell it."""
    if value is None or dtype.kind not in "biuf":
        return 0
    if isinstance(value, str):
        special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
        if value not in special and not value.startswith("0x"):
            raise ValueError(f"its metadata give the fill value {value!r}")
        if value.startswith("0x"):
            return (
                np.array(int(value, 16), f"u{dtype.itemsize}").view(dtype.newbyteorder("=")).item()
            )
        return special[value]
    return dtype.type(value)


def _axis_names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, list) and all(isinstance(n, str) for n in names):
        return tuple(names)
    return None
