"""Zarr arrays of both versions: metadata, chunks, shards.

Common codecs are decoded here, straight from the chunk's file into place; zarr-python
decodes the rest, chunk by chunk.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from volprep.codecs import CRC_BYTES, MISSING, Codecs, decode_shard_index, inner_chunk
from volprep.errors import SourceError
from volprep.findings import Note
from volprep.sources.axes import Layout
from volprep.sources.base import Array, reading
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.metadata import (
    check_codecs,
    member,
    named,
    number_type,
    read_json,
    sizes_of,
    unusable,
)
from volprep.sources.place import entries, is_stored, read_range, state

__all__ = ["ZarrArray", "ZarrVolume", "read_array", "read_attributes"]

_SHARDS_KEPT = 128
_BLOSC_BYTES = 16  # of the header of a blosc chunk
_CLAIM_BYTES = 2**34  # a volume beyond this must have some of its chunks stored
_CLAIM_SHARE = 1000


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
    notes : tuple of Note
        What its metadata leave open.
    blosc : bool
        Whether zarr-python decodes, and a chunk's file is what blosc has written.
    version : int
        Of the format: 2 or 3.
    by_library : mapping of str to str
        The codecs where zarr-python decodes, and what each is; see `check_codecs`.
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
    notes: tuple[Note, ...] = ()
    blosc: bool = False
    version: int = 2
    by_library: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[int, ...]:
        """How many chunk files there would be along each axis."""
        chunk = self.shard or self.block
        return tuple(-(-n // c) for n, c in zip(self.shape, chunk, strict=True))

    def file(self, index: Index) -> Path:
        """The file of a chunk."""
        prefix, separator = self.key
        name = separator.join(map(str, index)) or "0"
        return self.path / (f"{prefix}{separator}{name}" if prefix else name)

    def stored(self) -> Iterator[Index]:
        """The chunks that are there as files, in no order, from the listing of the folders."""
        prefix, separator = self.key
        root = self.path / prefix if prefix and separator == "/" else self.path
        lead = f"{prefix}{separator}" if prefix and separator != "/" else ""
        depth = len(self.shape) if separator == "/" else 1
        for parts in _names(root, max(1, depth)):
            name = ".".join(parts) if separator == "/" else parts[0].removeprefix(lead)
            index = _index(name, "." if separator == "/" else separator, self.files)
            if index is not None and (not lead or parts[0].startswith(lead)):
                yield index

    def check_codecs(self, place: str) -> None:
        """Refuse codecs that nothing here decodes."""
        if not self.by_library:
            return
        check_codecs(place, self.by_library)
        import zarr

        try:
            zarr.open_array(str(self.path), mode="r")
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise SourceError(
                place, f"its metadata cannot be used ({reason})", "correct them, or save it again"
            ) from error

    def check_claim(self, place: str) -> None:
        """Refuse a size that the metadata claim and hardly a chunk stands behind.

        What was never written is the fill value: two kilobytes can stand for 10**18 voxels,
        and whoever walks through them does not come to an end.
        """
        if math.prod(self.shape) * self.dtype.itemsize <= _CLAIM_BYTES:
            return
        needed = -(-math.prod(self.files) // _CLAIM_SHARE)
        there = sum(1 for _ in islice(self.stored(), needed))
        if there < needed:
            raise SourceError(
                place,
                f"claims {math.prod(self.shape)} voxels, and {there} of the"
                f" {math.prod(self.files)} chunks of it are there",
                "its metadata are wrong, or it was never filled; save the part that holds data",
            )


class ZarrVolume(ChunkedVolume):
    """One Zarr array; chunks are read and decoded when a box touches them."""

    def __init__(self, path: Path, layout: Layout, array: ZarrArray, **rest: Any) -> None:
        super().__init__(path, layout, array.dtype, block=array.block, **rest)
        self._meta = array

    def missing_chunks(self) -> tuple[int, int]:
        """As `Volume.missing_chunks`; of shards the inner chunks are counted."""
        with reading(self.name):
            total = math.prod(self._meta.files)
            if self._meta.shard is None:
                return total - sum(1 for _ in self._meta.stored()), total
            ratio = self._ratio
            grid = [-(-n // b) for n, b in zip(self._meta.shape, self._block, strict=True)]
            there = 0
            for shard in self._meta.stored():
                table = self._read_index(shard, ratio)
                # Beyond the end of the array shards have places that nothing belongs to.
                cut = tuple(slice(n - i * r) for i, r, n in zip(shard, ratio, grid, strict=True))
                if table is not None:
                    there += int(np.count_nonzero(table[cut][..., 0] != np.uint64(MISSING)))
            return math.prod(grid) - there, math.prod(grid)

    def _open(self) -> Any:
        if self._meta.codecs is not None:
            return OrderedDict()
        import zarr

        return zarr.open_array(str(self._meta.path), mode="r")

    def _decode(self, index: Index, out: Array | None) -> Array:
        meta = self._meta
        if meta.codecs is None:
            start = [i * b for i, b in zip(index, self._block, strict=True)]
            cut = tuple(slice(a, a + b) for a, b in zip(start, self._block, strict=True))
            if meta.blosc:
                self._check_blosc(index)
            return np.asarray(self._opened()[cut])
        fits = out is not None and out.shape == self._block
        block = out if fits and out is not None else np.empty(self._block, meta.dtype)
        data = self._chunk(index) if meta.shard is None else self._inner_chunk(index)
        if data is None:
            block[...] = meta.fill
        else:
            meta.codecs.decode(data, block.reshape(-1).view(np.uint8))
        return block

    def _block_name(self, index: Index) -> str:
        meta, ratio = self._meta, self._ratio
        file = meta.file(tuple(i // r for i, r in zip(index, ratio, strict=True)))
        name = file.relative_to(meta.path).as_posix()
        return f"chunk {name}" if meta.shard is None else f"{super()._block_name(index)} in {name}"

    def _check_blosc(self, index: Index) -> None:
        """Refuse a chunk that ends before its header says: the library's decoder reads on."""
        file = self._meta.file(index)
        head, told = read_range(file, 0, _BLOSC_BYTES), state(file)
        if head is None or told is None:
            return
        if len(head) < _BLOSC_BYTES or int.from_bytes(bytes(head[12:16]), "little") > told.size:
            raise EOFError("it is cut short")

    def _chunk(self, index: Index) -> bytes | Array | None:
        return read_range(self._meta.file(index))

    @property
    def _ratio(self) -> tuple[int, ...]:
        """Inner chunks of a shard along each axis."""
        shard = self._meta.shard or self._block
        return tuple(s // b for s, b in zip(shard, self._block, strict=True))

    def _inner_chunk(self, index: Index) -> bytes | Array | None:
        ratio = self._ratio
        shard = tuple(i // r for i, r in zip(index, ratio, strict=True))
        table = self._shard_index(shard, ratio)
        if table is None:
            return None
        file = self._meta.file(shard)
        told = state(file)
        entry = table[tuple(i % r for i, r in zip(index, ratio, strict=True))]
        place = None if told is None else inner_chunk(entry, told.size)
        return None if place is None else read_range(file, *place)

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
        first = 0 if self._meta.index_first else -size
        data = read_range(self._meta.file(shard), first, size)
        if data is None:
            return None
        return decode_shard_index(bytes(data), ratio, codecs)


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
        _check_format(folder, document, 3)
        return _version_3(folder, document) if document.get("node_type") == "array" else None
    document = read_json(folder / ".zarray")
    if document is None:
        return None
    _check_format(folder, document, 2)
    return _version_2(folder, document)


def _check_format(folder: Path, document: Mapping[str, Any], known: int) -> None:
    """A version that is not known may mean anything by the keys that are."""
    if document.get("zarr_format", known) != known:
        raise SourceError(
            folder,
            f"has zarr_format {document['zarr_format']!r}, which is not known",
            "save it as Zarr version 2 or 3",
        )


def _version_2(folder: Path, meta: Mapping[str, Any]) -> ZarrArray:
    shape, block = _sizes(folder, meta, "chunks", member(folder, meta, "chunks"))
    if not isinstance(member(folder, meta, "dtype"), str):
        raise SourceError(folder, "holds records, not numbers", "give an array of numbers")
    dtype = number_type(folder, meta["dtype"])
    order, told = meta.get("order", "C"), meta.get("dimension_separator")
    if order not in ("C", "F"):
        raise unusable(folder, "order", order, "C and F are known")
    if told not in (None, ".", "/"):
        raise unusable(folder, "dimension_separator", told, '"." and "/" are known')
    compressor = meta.get("compressor")
    chain = _chain_2(folder, meta)
    codecs = None
    if "filter" not in chain.values() and order == "C":
        codecs = Codecs.of(list(chain), checked=False)
    array = ZarrArray(
        path=folder,
        shape=shape,
        dtype=dtype,
        fill=_fill(folder, meta.get("fill_value"), dtype),
        block=block,
        shard=None,
        key=("", str(told or ".")),
        codecs=codecs,
        index_codecs=None,
        index_first=False,
        names=_axis_names(read_attributes(folder).get("_ARRAY_DIMENSIONS")),
        blosc=codecs is None and compressor is not None and compressor["id"] == "blosc",
        by_library={} if codecs is not None else chain,
    )
    return _as_stored(array, told)


def _chain_2(folder: Path, meta: Mapping[str, Any]) -> dict[str, str]:
    """The codecs of version 2 by name, and what each is."""
    filters, compressor = meta.get("filters") or [], meta.get("compressor")
    if not isinstance(filters, list):
        raise unusable(folder, "filters", filters, "give a list of codecs, or null")
    chain = {}
    last = [] if compressor is None else [("compressor", compressor)]
    for what, entry in [*(("filter", each) for each in filters), *last]:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise unusable(folder, what, entry, 'give an object with its name as "id"')
        chain[entry["id"]] = what
    return chain


def _as_stored(array: ZarrArray, told: str | None) -> ZarrArray:
    """The array with the separator that its chunks are stored with.

    Stores written before ``dimension_separator`` was invented may nest their chunks and say
    nothing; read as they say, every voxel of them would be the fill value.
    """
    if len(array.shape) < 2 or is_stored(array.path) or next(array.stored(), None) is not None:
        return array  # what lies in a store has no folders that a separator could hide
    other = "/" if array.key[1] == "." else "."
    turned = replace(array, key=("", other))
    if next(turned.stored(), None) is None:
        return array
    said = "does not say" if told is None else f"says {told!r}"
    text = f"its chunks are separated by {other!r}, and its metadata {said}: read as stored"
    if array.codecs is None:
        raise SourceError(
            array.path,
            f"its chunks are separated by {other!r}, and its metadata {said}",
            f'write "dimension_separator": "{other}" into its .zarray',
        )
    return replace(turned, notes=(Note("chunks-nested", text),))


#: What the metadata of an array may hold beside attributes (Zarr 3, "Array metadata").
_MEMBERS = {
    "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs",
    "fill_value", "attributes", "dimension_names", "storage_transformers", "consolidated_metadata",
}  # fmt: skip


def _version_3(folder: Path, meta: Mapping[str, Any]) -> ZarrArray:
    _refuse_extensions(folder, meta)
    grid, layout = named(folder, "chunk_grid", member(folder, meta, "chunk_grid"))
    if grid != "regular":
        raise SourceError(folder, f"has a {grid} chunk grid", "store it in regular chunks")
    shape, block = _sizes(folder, meta, "chunk_shape", member(folder, layout, "chunk_shape"))
    word, options = named(folder, "data_type", member(folder, meta, "data_type"))
    if options:
        raise SourceError(folder, f"holds {word}, no plain numbers", "give an array of numbers")
    entries = member(folder, meta, "codecs")
    if not isinstance(entries, list):
        raise unusable(folder, "codecs", entries, "give a list of codecs")
    chain = [named(folder, "codecs", entry) for entry in entries]
    told = dict.fromkeys((name for name, _ in chain), "codec")
    shard, index_codecs, first = None, None, False
    if len(chain) == 1 and chain[0][0] == "sharding_indexed":
        setup = chain[0][1]
        inner = member(folder, setup, "chunk_shape")
        shard, (_, block) = block, _sizes(folder, meta, "chunk_shape of its shards", inner)
        if any(s % b for s, b in zip(shard, block, strict=True)):
            raise unusable(folder, "chunk_shape of its shards", inner, f"it must divide {shard}")
        chain, index = (
            [named(folder, f"{key} of its shards", entry) for entry in member(folder, setup, key)]
            for key in ("codecs", "index_codecs")
        )
        first = setup.get("index_location", "end") == "start"
        told |= dict.fromkeys((n for n, _ in (*chain, *index)), "codec")
        index_codecs, swapped = _chain(index)
        if index_codecs is None or index_codecs.names or swapped:
            chain = []
    codecs, big = _chain(chain)
    dtype = number_type(folder, word).newbyteorder(">" if big else "<")
    return ZarrArray(
        path=folder,
        shape=shape,
        dtype=dtype,
        fill=_fill(folder, meta.get("fill_value"), dtype),
        block=block,
        shard=shard if codecs is not None else None,
        key=_chunk_names(folder, meta),
        codecs=codecs,
        index_codecs=index_codecs,
        index_first=first,
        names=_axis_names(meta.get("dimension_names")),
        blosc=codecs is None and chain[-1:] != [] and chain[-1][0] == "blosc",
        version=3,
        by_library={} if codecs is not None else told,
    )


def _refuse_extensions(folder: Path, meta: Mapping[str, Any]) -> None:
    """What is not known must not be passed over, unless it says so itself (Zarr 3)."""
    transformers = meta.get("storage_transformers")
    if transformers:
        raise unusable(
            folder, "storage_transformers", transformers, "none is known: save it without"
        )
    for key in meta.keys() - _MEMBERS:
        value = meta[key]
        if not isinstance(value, dict) or value.get("must_understand") is not False:
            raise unusable(folder, key, value, "it is an extension that is not known here")


def _chunk_names(folder: Path, meta: Mapping[str, Any]) -> tuple[str, str]:
    """Prefix and separator of the names of chunks."""
    name, setup = named(folder, "chunk_key_encoding", member(folder, meta, "chunk_key_encoding"))
    if name not in ("default", "v2"):
        raise unusable(folder, "chunk_key_encoding", name, "default and v2 are known")
    separator = setup.get("separator", "." if name == "v2" else "/")
    if separator not in (".", "/"):
        raise unusable(folder, "chunk_key_encoding.separator", separator, '"." and "/" are known')
    return "" if name == "v2" else "c", separator


def _chain(chain: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Codecs | None, bool]:
    """The codecs of a version 3 chain and whether its numbers are big-endian; None if unknown."""
    if not chain or chain[0][0] != "bytes":
        return None, False
    big = chain[0][1].get("endian", "little") == "big"
    names = [name for name, _ in chain[1:]]
    checked = names[-1:] == ["crc32c"]
    return Codecs.of(names[:-1] if checked else names, checked=checked), big


def _names(folder: Path, depth: int) -> Iterator[tuple[str, ...]]:
    """The names of files so many folders down, with those of the folders between."""
    for entry in entries(folder):
        if depth == 1:
            yield (entry.name,)
        elif entry.name.isdecimal():
            for below in _names(folder / entry.name, depth - 1):
                yield (entry.name, *below)


def _index(name: str, separator: str, grid: Sequence[int]) -> Index | None:
    """The chunk of a file's name; None for a name that belongs to none."""
    parts = name.split(separator) if len(grid) > 1 else [name]
    if len(parts) != max(1, len(grid)) or not all(p.isdecimal() and p.isascii() for p in parts):
        return None
    index = tuple(map(int, parts))[: len(grid)]
    return index if all(i < n for i, n in zip(index, grid, strict=True)) else None


def _sizes(
    folder: Path, meta: Mapping[str, Any], key: str, chunks: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the array, and that of its chunks."""
    whole = sizes_of(folder, "shape", member(folder, meta, "shape"))
    block = sizes_of(folder, key, chunks, least=1)
    if len(whole) != len(block):
        raise unusable(folder, key, chunks, f"give {len(whole)} numbers, as in its shape")
    return whole, block


_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _fill(folder: Path, value: Any, dtype: np.dtype[Any]) -> Any:
    """The value of voxels that were never written, as metadata spell it."""
    if value is None or dtype.kind not in "biuf":
        return 0
    try:
        if isinstance(value, str) and value.startswith("0x"):
            bits = np.array(int(value, 16), f"u{dtype.itemsize}")
            return bits.view(dtype.newbyteorder("=")).item()
        if isinstance(value, str) and dtype.kind == "f":
            return _SPECIAL[value]
        return dtype.type(value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise unusable(folder, "fill_value", value, f"give one of {dtype}") from error


def _axis_names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, list) and all(isinstance(n, str) for n in names):
        return tuple(names)
    return None
