"""The patches of one split: Zarr v3 shards that are written patch by patch and read by map.

One patch is one inner chunk and 64 patches are one shard, so a random patch is
one read and two writers never meet in one file. The arrays are plain Zarr v3:
any reader opens them. `PatchReader` reads them faster, by mapping each shard
into memory and decoding straight from the map.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import StoreError
from volprep.store.files import load_json

__all__ = [
    "FORMAT",
    "INDEX_COLUMNS",
    "PATCHES_PER_SHARD",
    "ArraySpec",
    "PatchReader",
    "PatchWriter",
]

FORMAT = "volprep patch set 1"
PATCHES_PER_SHARD = 64
INDEX_COLUMNS = (
    "case", "z", "y", "x",
    "pad_z_before", "pad_y_before", "pad_x_before",
    "pad_z_after", "pad_y_after", "pad_x_after",
    "foreground_voxels",
)  # fmt: skip
_EMPTY = 2**64 - 1
_AGAIN = "prepare it again with --overwrite"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a patch set: the shape of a patch, its dtype and its compression."""

    name: str
    patch_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: str = "lz4"


class PatchWriter:
    """Writes one split, shard by shard.

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

    Notes
    -----
    A shard is written to a temporary name and renamed, its index rows first, so
    a shard that exists is whole and is not made again: that is what resumes.
    """

    def __init__(
        self,
        path: Path,
        specs: Sequence[ArraySpec],
        n_patches: int,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec

        self.path, self.specs, self.n_patches = path, tuple(specs), n_patches
        group = zarr.open_group(str(path), mode="a", zarr_format=3)
        group.attrs.update({"volprep": FORMAT, **(attributes or {})})
        for spec in specs:
            if spec.name in group:
                continue
            group.create_array(
                spec.name,
                shape=(n_patches, *spec.patch_shape),
                chunks=(1, *spec.patch_shape),
                shards=(PATCHES_PER_SHARD, *spec.patch_shape),
                dtype=spec.dtype,
                compressors=[*_zarr_blosc(spec), Crc32cCodec()],
                dimension_names=("patch", *("c", "z", "y", "x")[-len(spec.patch_shape) :]),
            )
        (path / ".rows").mkdir(exist_ok=True)

    @property
    def n_shards(self) -> int:
        """How many shards hold all patches."""
        return -(-self.n_patches // PATCHES_PER_SHARD)

    def patches_of(self, shard: int) -> range:
        """The patch numbers of one shard."""
        start = shard * PATCHES_PER_SHARD
        return range(start, min(start + PATCHES_PER_SHARD, self.n_patches))

    def has(self, shard: int) -> bool:
        """Whether the shard is on disk already, whole."""
        return all(self._shard_path(spec, shard).exists() for spec in self.specs) and (
            self._rows_path(shard).exists()
        )

    def write(
        self,
        shard: int,
        patches: Iterable[tuple[Mapping[str, npt.NDArray[Any]], Sequence[int]]],
    ) -> None:
        """Write one shard from an iterable of (arrays by name, index row), one at a time.

        Raises
        ------
        StoreError
            If the disk is full or cannot be written.
        ValueError
            If a patch has another shape or dtype than announced, or there are
            not as many as the shard holds.
        """
        try:
            self._write(shard, patches)
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be written ({error.strerror or error}); "
                "free some space or choose another output folder, then run again"
            ) from error

    def _write(
        self, shard: int, patches: Iterable[tuple[Mapping[str, npt.NDArray[Any]], Sequence[int]]]
    ) -> None:
        rows: list[Sequence[int]] = []
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(_ShardFile(self._shard_path(spec, shard), spec))
                for spec in self.specs
            ]
            for arrays, row in patches:
                for file in files:
                    file.append(arrays[file.spec.name])
                rows.append(row)
            if len(rows) != len(self.patches_of(shard)):
                raise ValueError(f"shard {shard} got {len(rows)} patches")
            _save_rows(self._rows_path(shard), rows)
            for file in files:
                file.finish()

    def finish(self) -> None:
        """Gather the index rows of all shards into the `index` array; call once, at the end."""
        import zarr

        rows = [np.load(self._rows_path(s), allow_pickle=False) for s in range(self.n_shards)]
        index = np.concatenate(rows) if rows else np.empty((0, len(INDEX_COLUMNS)), np.int64)
        group = zarr.open_group(str(self.path), mode="a", zarr_format=3)
        array = group.create_array(
            "index",
            shape=index.shape,
            chunks=(max(1, len(index)), len(INDEX_COLUMNS)),
            dtype="int64",
            overwrite=True,
            config={"write_empty_chunks": True},  # an index of zeros is one, too
            dimension_names=("patch", "column"),
        )
        array[:] = index
        array.attrs["columns"] = list(INDEX_COLUMNS)
        shutil.rmtree(self.path / ".rows")

    def _shard_path(self, spec: ArraySpec, shard: int) -> Path:
        tail = "/".join("0" for _ in spec.patch_shape)
        return self.path / spec.name / "c" / str(shard) / tail

    def _rows_path(self, shard: int) -> Path:
        return self.path / ".rows" / f"{shard}.npy"


class _ShardFile:
    """A shard that grows by one encoded patch at a time, and appears when it is finished."""

    def __init__(self, path: Path, spec: ArraySpec) -> None:
        self.path, self.spec = path, spec
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.{id(self)}")
        self.index: list[tuple[int, int]] = []
        self.offset = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.partial.open("wb")

    def __enter__(self) -> _ShardFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.partial.unlink(missing_ok=True)

    def append(self, patch: npt.NDArray[Any]) -> None:
        if patch.shape != self.spec.patch_shape or patch.dtype != self.spec.dtype:
            raise ValueError(
                f"{self.spec.name}: a patch of {patch.shape} {patch.dtype}, "
                f"announced {self.spec.patch_shape} {self.spec.dtype}"
            )
        data = _encode(patch, self.spec)
        self.file.write(data)
        self.index.append((self.offset, len(data)))
        self.offset += len(data)

    def finish(self) -> None:
        import google_crc32c

        missing = PATCHES_PER_SHARD - len(self.index)
        table = np.array(self.index + [(_EMPTY, _EMPTY)] * missing, "<u8").tobytes()
        self.file.write(table + struct.pack("<I", google_crc32c.value(table)))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.partial.replace(self.path)


def _encode(patch: npt.NDArray[Any], spec: ArraySpec) -> bytes:
    import google_crc32c
    import imagecodecs

    raw = np.ascontiguousarray(patch, spec.dtype.newbyteorder("<"))
    data: bytes | bytearray = raw.tobytes()
    if spec.compression != "none":
        # The array and not its bytes: of bytes the codec takes the type size to be 1.
        encode: Any = imagecodecs.blosc_encode
        data = encode(
            raw,
            level=5 if spec.compression == "lz4" else 3,
            compressor=spec.compression,
            shuffle="shuffle",
            typesize=spec.dtype.itemsize,
            numthreads=1,
        )
    return bytes(data) + struct.pack("<I", google_crc32c.value(bytes(data)))


def _zarr_blosc(spec: ArraySpec) -> list[Any]:
    if spec.compression == "none":
        return []
    from zarr.codecs import BloscCodec

    level = 5 if spec.compression == "lz4" else 3
    cname: Any = spec.compression
    return [BloscCodec(cname=cname, clevel=level, shuffle="shuffle", typesize=spec.dtype.itemsize)]


def _save_rows(path: Path, rows: Sequence[Sequence[int]]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, np.array(rows, np.int64).reshape(len(rows), len(INDEX_COLUMNS)))
    partial.replace(path)


class PatchReader:
    """Random access to the patches of one split; safe in threads, picklable for workers.

    Parameters
    ----------
    path : Path
        The ``.zarr`` group.

    Raises
    ------
    StoreError
        If it is not there, or was not written by volprep.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        group = load_json(path / "zarr.json")
        if group.get("attributes", {}).get("volprep") != FORMAT:
            raise StoreError(f"{path}: no volprep patch set; make one with: volprep prepare")
        self.attributes: dict[str, Any] = group["attributes"]
        self._arrays: dict[str, _ShardedArray] = {}
        for entry in sorted(path.iterdir()):
            if entry.name != "index" and (entry / "zarr.json").exists():
                self._arrays[entry.name] = _ShardedArray(entry)
        self.index = _read_index(path / "index")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays of a patch."""
        return tuple(self._arrays)

    def spec(self, name: str) -> ArraySpec:
        """Shape and dtype of one array's patches."""
        return self._arrays[name].spec

    def read(self, name: str, number: int) -> npt.NDArray[Any]:
        """One array of one patch, freshly allocated.

        Raises
        ------
        IndexError
            If there is no such patch.
        StoreError
            If its bytes are damaged: the checksum is compared at every read.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"patch {number} of {len(self)}")
        return self._arrays[name].read(number)

    def damaged(self) -> Iterator[str]:
        """Read every patch, and name what cannot be read."""
        for name, array in self._arrays.items():
            for number in range(len(self)):
                try:
                    array.read(number)
                except StoreError as error:
                    yield f"{name}[{number}]: {error}"


class _ShardedArray:
    """One array of a split, read through memory-mapped shards."""

    def __init__(self, path: Path) -> None:
        meta = load_json(path / "zarr.json")
        shape = meta["shape"]
        codecs = meta["codecs"][0]["configuration"]["codecs"]
        blosc = [c["configuration"]["cname"] for c in codecs if c["name"] == "blosc"]
        self.path = path
        self.spec = ArraySpec(
            path.name, tuple(shape[1:]), np.dtype(meta["data_type"]), blosc[0] if blosc else "none"
        )
        self._shards: dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "spec": self.spec, "_shards": {}}

    def read(self, number: int) -> npt.NDArray[Any]:
        shard, place = divmod(number, PATCHES_PER_SHARD)
        if shard not in self._shards:
            self._shards[shard] = self._open(shard)
        data, table = self._shards[shard]
        offset, size = int(table[place, 0]), int(table[place, 1])
        if offset + size > len(data) or size < 4:
            raise StoreError(f"{self.path}: patch {number} is not in its shard; {_AGAIN}")
        return self._decode(data[offset : offset + size], number)

    def _decode(self, chunk: npt.NDArray[np.uint8], number: int) -> npt.NDArray[Any]:
        import google_crc32c
        import imagecodecs

        payload = chunk[:-4]
        if google_crc32c.value(payload) != struct.unpack("<I", chunk[-4:].tobytes())[0]:
            raise StoreError(f"{self.path}: patch {number} is damaged (checksum); {_AGAIN}")
        out = np.empty(self.spec.patch_shape, self.spec.dtype.newbyteorder("<"))
        flat = out.reshape(-1).view(np.uint8)
        if self.spec.compression == "none":
            flat[:] = payload
        else:
            decode: Any = imagecodecs.blosc_decode
            decode(payload, numthreads=1, out=flat)
        return out.astype(self.spec.dtype, copy=False)

    def _open(self, shard: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
        import google_crc32c

        path = self.path / "c" / str(shard) / "/".join("0" for _ in self.spec.patch_shape)
        tail = 16 * PATCHES_PER_SHARD + 4
        try:
            with path.open("rb") as file:
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: shard cannot be read ({error}); {_AGAIN}") from error
        table = data[-tail:-4]
        if (
            len(data) < tail
            or google_crc32c.value(table) != struct.unpack("<I", data[-4:].tobytes())[0]
        ):
            raise StoreError(f"{path}: shard is damaged (its index); {_AGAIN}")
        return data, np.frombuffer(table.tobytes(), "<u8").reshape(PATCHES_PER_SHARD, 2)


def _read_index(path: Path) -> npt.NDArray[np.int64]:
    """The index array, without importing zarr: one zstd-compressed chunk."""
    meta = load_json(path / "zarr.json")
    if meta["shape"][0] == 0:
        return np.empty((0, len(INDEX_COLUMNS)), np.int64)
    try:
        import imagecodecs

        data = imagecodecs.zstd_decode((path / "c" / "0" / "0").read_bytes())
        return np.frombuffer(data, "<i8").reshape(meta["shape"]).astype(np.int64)
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{path}: the index is damaged ({error}); {_AGAIN}") from error
