"""The patches of one split on disk: Zarr v3 shards that are written patch by patch.

One patch is one inner chunk and some patches are one shard, so a random patch is one
read and two writers never meet in one file. The arrays are plain Zarr v3: any reader
opens them. What volprep adds lies where other readers do not look: the first bytes of
a shard say of which unit of work it is, so that one in another's place is noticed.

    header | patch, CRC-32C | patch, CRC-32C | ... | offset and size of each, CRC-32C
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volprep.codecs import MISSING, blosc_encode, crc32c, encode_shard_index
from volprep.files import File, NewFile, remove

__all__ = [
    "FORMAT",
    "HEADER_BYTES",
    "INDEX_COLUMNS",
    "KEY_BYTES",
    "PATCHES_PER_SHARD",
    "ArraySpec",
    "Encoded",
    "PatchWriter",
    "encoded_size",
    "file_header",
    "shard_header",
    "shard_path",
    "write_table",
]

FORMAT = "volprep patch set 3"
PATCHES_PER_SHARD = 64
INDEX_COLUMNS = (
    "case", "z", "y", "x",
    "pad_z_before", "pad_y_before", "pad_x_before",
    "pad_z_after", "pad_y_after", "pad_x_after",
    "foreground_voxels",
    "shown_z", "shown_y", "shown_x",
)  # fmt: skip
KEY_BYTES = 32
_MAGIC = b"volprep2"
_HEADER = struct.Struct("<8s32sI")
HEADER_BYTES = _HEADER.size + 4


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a patch set: the shape of a patch, its dtype and its compression."""

    name: str
    patch_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: str = "lz4"


class Encoded(NamedTuple):
    """One array of one patch as it lies in a shard, and its CRC-32C."""

    data: bytes | npt.NDArray[np.uint8]
    checksum: int


def shard_header(key: str, spec: ArraySpec, shard: int, count: int) -> bytes:
    """The first bytes of a shard: of which unit and array it is, and where in it.

    Parameters
    ----------
    key : str
        The hash of everything that the unit is made from, so that a shard of a set
        that was made anew differs from its predecessor exactly where its patches do.
    spec : ArraySpec
    shard : int
    count : int
        Patches in it.
    """
    parts = f"{key}|{spec.name}|{spec.patch_shape}|{spec.dtype.name}|{spec.compression}|{shard}"
    return file_header(parts, count)


def file_header(parts: str, count: int) -> bytes:
    """The first bytes of a shard of `count` chunks, by the words that tell it from all others."""
    head = _HEADER.pack(_MAGIC, hashlib.sha256(parts.encode()).digest(), count)
    return head + struct.pack("<I", crc32c(head))


def shard_path(array: Path, spec: ArraySpec, shard: int) -> Path:
    """The file of one shard, as Zarr names it."""
    return array / "c" / str(shard) / "/".join("0" for _ in spec.patch_shape)


class PatchWriter:
    """Writes one split, shard by shard; picklable, and nothing is written before it is asked.

    Parameters
    ----------
    path : Path
        The ``.zarr`` group.
    specs : sequence of ArraySpec
        What each patch consists of.
    n_patches : int
        How many there will be.
    attributes : mapping or None
        Kept with the group; JSON values.
    root : Path or None
        The folder that the paths of written files are relative to; `path` for None.
    per_shard : int
        Patches a shard.

    Notes
    -----
    Every file is written to a temporary name and renamed, so one that exists is whole, and an
    older one that another set shares (a hard link) is not touched.
    """

    def __init__(
        self,
        path: Path,
        specs: Sequence[ArraySpec],
        n_patches: int,
        attributes: Mapping[str, Any] | None = None,
        *,
        root: Path | None = None,
        per_shard: int = PATCHES_PER_SHARD,
    ) -> None:
        self.path, self.specs, self.n_patches = path, tuple(specs), n_patches
        self.root, self.per_shard = root or path, per_shard
        self._attributes = {"volprep": FORMAT, **(attributes or {})}

    @property
    def n_shards(self) -> int:
        """How many shards hold all patches."""
        return -(-self.n_patches // self.per_shard)

    def patches_of(self, shard: int) -> range:
        """The patch numbers of one shard."""
        start = shard * self.per_shard
        return range(start, min(start + self.per_shard, self.n_patches))

    def encode(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Encoded]:
        """The arrays of one patch as `write` takes them; any thread may do so.

        Raises
        ------
        ValueError
            If one has another shape or dtype than announced.
        """
        return {spec.name: _encoded(arrays[spec.name], spec) for spec in self.specs}

    def write(
        self,
        shard: int,
        key: str,
        patches: Iterable[tuple[Mapping[str, Encoded], Sequence[int]]],
    ) -> tuple[list[File], dict[str, Any]]:
        """Write one shard from an iterable of (what `encode` gave, index row), one at a time.

        Parameters
        ----------
        shard : int
        key : str
            Of the unit, as `shard_header` takes it.
        patches : iterable

        Returns
        -------
        files : list of File
        facts : dict
            ``rows``, the index row of each patch, and ``crc32c`` of the stored bytes of
            each patch, by array.

        Raises
        ------
        OSError
            If the disk is full or cannot be written.
        ValueError
            If there are not as many as the shard holds.
        """
        count = len(self.patches_of(shard))
        rows: list[list[int]] = []
        with ExitStack() as stack:
            files = []
            for spec in self.specs:
                new = NewFile(shard_path(self.path / spec.name, spec, shard))
                stack.enter_context(new)
                files.append(_ShardFile(new, spec, shard_header(key, spec, shard, count)))
            for arrays, row in patches:
                for file in files:
                    file.append(arrays[file.spec.name])
                rows.append([int(value) for value in row])
            if len(rows) != count:
                raise ValueError(f"shard {shard} got {len(rows)} patches, wanted {count}")
            for file in files:
                file.finish(self.per_shard)
        return (
            [file.new.described(self.root) for file in files],
            {"rows": rows, "crc32c": {file.spec.name: file.checksums for file in files}},
        )

    def finish(
        self, rows: Iterable[Sequence[int]], keys: Sequence[str]
    ) -> tuple[list[File], dict[str, Any]]:
        """Write all metadata, the `index` of all patches and the keys of all shards.

        Arrays that an earlier run with another config has left are removed.

        Parameters
        ----------
        rows : iterable of sequence of int
            The index row of every patch, in order.
        keys : sequence of str
            The key (hexadecimal SHA-256) of every shard's unit.

        Returns
        -------
        files : list of File
        facts : dict
            Nothing.
        """
        index = np.array(list(rows), np.int64).reshape(-1, len(INDEX_COLUMNS))
        units = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, KEY_BYTES)
        if len(index) != self.n_patches or len(units) != self.n_shards:
            raise ValueError(f"{len(index)} rows and {len(units)} keys of {self.n_patches} patches")
        columns = {"columns": list(INDEX_COLUMNS)}
        tables = {
            "index": write_table(index, ("patch", "column"), columns),
            "units": write_table(units, ("shard", "byte"), {}),
        }
        contents = {name: data.to_bytes() for name, data in self._metadata().items()}
        for table, found in tables.items():
            contents |= {f"{table}/{name}": data for name, data in found.items()}
        files = [self._put(name, contents[name]) for name in sorted(contents)]
        known = {*tables, *(spec.name for spec in self.specs)}
        for entry in list(self.path.iterdir()):
            if entry.is_dir() and entry.name not in known:
                remove(entry)  # of an earlier run: a reader would take it for an array of this one
        return files, {}

    def _metadata(self) -> dict[str, Any]:
        """The group and its arrays, made in memory: on disk, zarr would write into old files."""
        import zarr
        from zarr.codecs import Crc32cCodec

        contents: dict[str, Any] = {}
        group = zarr.open_group(zarr.storage.MemoryStore(contents), mode="w", zarr_format=3)
        group.attrs.update(self._attributes)
        for spec in self.specs:
            group.create_array(
                spec.name,
                shape=(self.n_patches, *spec.patch_shape),
                chunks=(1, *spec.patch_shape),
                shards=(self.per_shard, *spec.patch_shape),
                dtype=spec.dtype,
                compressors=[*_zarr_blosc(spec), Crc32cCodec()],
                dimension_names=("patch", *("c", "z", "y", "x")[-len(spec.patch_shape) :]),
            )
        return contents

    def _put(self, name: str, data: bytes) -> File:
        with NewFile(self.path / name) as new:
            new.write(data)
        return new.described(self.root)


def write_table(
    table: npt.NDArray[Any], axes: Sequence[str], attributes: dict[str, Any]
) -> dict[str, bytes]:
    """The files of a small array of one chunk, by name."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    contents: dict[str, Any] = {}
    array: Any = zarr.create_array(
        zarr.storage.MemoryStore(contents),
        shape=table.shape,
        chunks=(max(1, len(table)), table.shape[1]),
        dtype=table.dtype,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        config={"write_empty_chunks": True},  # an index of zeros is one, too
        dimension_names=axes,
        attributes=attributes,
        zarr_format=3,
    )
    array[:] = table
    return {name: data.to_bytes() for name, data in contents.items()}


class _ShardFile:
    """A shard that grows by one encoded patch at a time."""

    def __init__(self, new: NewFile, spec: ArraySpec, header: bytes) -> None:
        self.new, self.spec = new, spec
        self.index: list[tuple[int, int]] = []
        self.checksums: list[int] = []
        new.write(header)

    def append(self, patch: Encoded) -> None:
        start = self.new.size
        self.checksums.append(patch.checksum)
        self.new.write(patch.data if isinstance(patch.data, bytes) else patch.data.data)
        self.new.write(struct.pack("<I", patch.checksum))
        self.index.append((start, self.new.size - start))

    def finish(self, per_shard: int) -> None:
        missing = [(MISSING, MISSING)] * (per_shard - len(self.index))
        self.new.write(encode_shard_index(np.array(self.index + missing, np.uint64)))


def _encoded(patch: npt.NDArray[Any], spec: ArraySpec) -> Encoded:
    if patch.shape != spec.patch_shape or patch.dtype != spec.dtype:
        raise ValueError(
            f"{spec.name}: a patch of {patch.shape} {patch.dtype}, "
            f"announced {spec.patch_shape} {spec.dtype}"
        )
    raw = np.ascontiguousarray(patch, spec.dtype.newbyteorder("<"))
    data: bytes | npt.NDArray[np.uint8] = raw.reshape(-1).view(np.uint8)
    if spec.compression != "none":
        data = blosc_encode(raw, cname=spec.compression, level=_level(spec), shuffle=_shuffle(spec))
    return Encoded(data, crc32c(data))


def encoded_size(array: npt.NDArray[Any], compression: str) -> int:
    """Bytes of an array as a patch of a set."""
    return len(_encoded(array, ArraySpec("", array.shape, array.dtype, compression)).data)


def _level(spec: ArraySpec) -> int:
    return 5 if spec.compression == "lz4" else 3


def _shuffle(spec: ArraySpec) -> Any:
    """Ids as they are: bytes torn apart, their runs take half as much room again to store."""
    return "noshuffle" if spec.name == "label" else "shuffle"


def _zarr_blosc(spec: ArraySpec) -> list[Any]:
    if spec.compression == "none":
        return []
    from zarr.codecs import BloscCodec

    name: Any = spec.compression
    size = spec.dtype.itemsize
    return [BloscCodec(cname=name, clevel=_level(spec), shuffle=_shuffle(spec), typesize=size)]
