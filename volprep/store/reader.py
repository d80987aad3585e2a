"""The patches of one split, read at random by any number of threads and processes."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.codecs import (
    CRC_BYTES,
    CodecError,
    Codecs,
    decode_shard_index,
    inner_chunk,
    without_crc32c,
)
from volprep.errors import StoreError
from volprep.files import NOT_THERE, REOPEN, REPAIR, load_json, unreadable
from volprep.store.mirror import fetched
from volprep.store.shards import (
    FORMAT,
    HEADER_BYTES,
    INDEX_COLUMNS,
    KEY_BYTES,
    ArraySpec,
    shard_header,
    shard_path,
)

__all__ = [
    "OPEN",
    "Metadata",
    "OpenShard",
    "OpenShards",
    "PatchReader",
    "close_shards",
    "next_serial",
    "read_table",
    "scratch",
]

_MOST_TABLE = 2**36  # more is no table of patches but a damaged number
_TABLES = ("index", "units")


class PatchReader:
    """Random access to the patches of one split; safe in threads, picklable for workers.

    Parameters
    ----------
    path : Path
        The ``.zarr`` group.

    Raises
    ------
    StoreError
        If it is not there, was not written by volprep, or its metadata or its index
        are damaged.

    Notes
    -----
    Shards are read by position and not mapped: a file that shrinks under a map ends the
    process without a word. A few of them are held open, see `OpenShards`. A shard that
    is not the one this set was opened with, because it lies in another's place or the
    set has been made anew meanwhile, is an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        group = load_json(path / "zarr.json")
        attributes = group.get("attributes")
        if not isinstance(attributes, dict) or attributes.get("volprep") != FORMAT:
            raise StoreError(f"{path}: no volprep patch set; make one with: volprep prepare")
        self.attributes: dict[str, Any] = attributes
        table = read_table(path / "index", "<i8", len(INDEX_COLUMNS))
        self.index = table.astype(np.int64, copy=False)
        digits = read_table(path / "units", "|u1", KEY_BYTES).tobytes().hex()
        keys = [digits[n : n + 2 * KEY_BYTES] for n in range(0, len(digits), 2 * KEY_BYTES)]
        self._arrays = {
            entry.name: _ShardedArray(entry, keys, len(self.index))
            for entry in sorted(path.iterdir())
            if entry.name not in _TABLES and (entry / "zarr.json").exists()
        }

    def __len__(self) -> int:
        return len(self.index)

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays of a patch."""
        return tuple(self._arrays)

    def spec(self, name: str) -> ArraySpec:
        """Shape and dtype of one array's patches."""
        return self._arrays[name].spec

    def read(self, name: str, number: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """One array of one patch.

        Parameters
        ----------
        name : str
        number : int
        out : ndarray or None
            C-contiguous, of the patch's shape and dtype: is filled and returned. A new
            array for None.

        Raises
        ------
        IndexError
            If there is no such patch.
        StoreError
            If its bytes are damaged: the checksum is compared at every read.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"patch {number} of {len(self)}")
        return self._arrays[name].read(number, out)

    def holds(self, name: str, shard: int) -> bool:
        """Whether a shard is the one of this set, by its header, and its index is whole.

        Raises
        ------
        StoreError
            If it cannot be read for a reason that is no damage.
        """
        return self._arrays[name].holds(shard)

    def patches_of(self, name: str, shard: int) -> range:
        """The patch numbers of a shard of one array."""
        return self._arrays[name].patches_of(shard)

    def damaged_patches(self, name: str, shard: int) -> list[int]:
        """The patches of a shard that cannot be read, of one array."""
        array = self._arrays[name]
        if not array.holds(shard):
            return list(array.patches_of(shard))
        return [number for number in array.patches_of(shard) if not array.reads(number)]


class OpenShards:
    """The open shards of this process; the least recently used is closed first.

    Parameters
    ----------
    limit : int or None
        Files; None takes a quarter of what the system lets this process have open.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._shards: OrderedDict[tuple[int, int], OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def limit(self) -> int:
        """How many are held open; asked of the system once."""
        if self._limit is None:
            self._limit = max(4, min(1024, _open_files_limit() // 4))
        return self._limit

    def get(self, name: tuple[int, int], open_shard: Callable[[], OpenShard]) -> OpenShard:
        """The shard of that name, opened if it is not held."""
        with self._lock:
            shard = self._shards.get(name)
            if shard is not None:
                self._shards.move_to_end(name)
                return shard
        shard = self._opened(open_shard)
        with self._lock:
            self._shards[name] = shard
            while len(self._shards) > self.limit:
                self._shards.popitem(last=False)
        return shard

    def _opened(self, open_shard: Callable[[], OpenShard]) -> OpenShard:
        try:
            return open_shard()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
        # The rest of the program holds more files than was left to it: hold fewer here.
        with self._lock:
            self._limit = max(4, self.limit // 2)
            self._shards.clear()
        return open_shard()

    def forget(self) -> None:
        """Close all; a forked process does so, as another thread may hold the lock."""
        self._lock = threading.Lock()
        self._shards.clear()

    def close(self) -> None:
        """Close all; one that is read again is opened again."""
        with self._lock:
            self._shards.clear()


OPEN = OpenShards()


def close_shards() -> None:
    """Close all shards that readers of this process hold open for their next reads."""
    OPEN.close()


_SERIAL = itertools.count()


def next_serial() -> int:
    """A number for a reader by which its shards are held open; no other has it."""
    return next(_SERIAL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=OPEN.forget)


class OpenShard:
    """An open file and its index; closed when the last thread lets go of it."""

    def __init__(self, path: Path, header: bytes, per_shard: int) -> None:
        self._file = -1
        flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait
        self._file = os.open(path, os.O_RDONLY | flags)
        self.size = os.fstat(self._file).st_size
        tail = 16 * per_shard + CRC_BYTES
        if self.size < HEADER_BYTES + tail:
            raise CodecError("the shard is cut short")
        found = self.read(HEADER_BYTES, 0)
        if found != header:
            without_crc32c(found)  # else its header is damaged, and says nothing
            raise CodecError(f"the shard is of another set, or in another's place; {REOPEN}")
        self.index = decode_shard_index(self.read(tail, self.size - tail), (per_shard,))

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def read(self, size: int, offset: int) -> bytes:
        """Bytes at an offset."""
        data = bytearray(size)
        self.read_into(memoryview(data), offset)
        return bytes(data)

    def read_into(self, out: memoryview, offset: int) -> None:
        """Fill `out` from an offset; any thread may do so."""
        done = 0
        while done < len(out):
            count = _read_at(self._file, out[done:], offset + done)
            if count == 0:
                raise CodecError("the shard became shorter")
            done += count


class _ShardedArray:
    """One array of a split."""

    def __init__(self, path: Path, keys: list[str], count: int) -> None:
        self.path, self._keys, self._count = path, keys, count
        with Metadata(path) as meta:
            shape, sharding = meta["shape"], meta["codecs"][0]["configuration"]
            chain = {codec["name"]: codec.get("configuration") for codec in sharding["codecs"]}
            packed = "blosc" in chain
            self._per_shard: int = meta["chunk_grid"]["configuration"]["chunk_shape"][0]
            self.spec = ArraySpec(
                path.name,
                tuple(int(n) for n in shape[1:]),
                np.dtype(meta["data_type"]),
                chain["blosc"]["cname"] if packed else "none",
            )
            wanted = ["bytes", *(["blosc"] if packed else []), "crc32c"]
            if (
                list(chain) != wanted
                or shape[0] != count
                or len(keys) != -(-count // self._per_shard)
                or sharding["chunk_shape"] != [1, *shape[1:]]
            ):
                raise ValueError("what it says does not fit together")
        self._codecs = Codecs(("blosc",) if packed else (), True)
        self._serial = next_serial()  # a reader of a set made anew never gets a shard of the old

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_serial": next_serial()}

    def read(self, number: int, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if out is None:
            out = np.empty(self.spec.patch_shape, self.spec.dtype)
        elif (
            out.shape != self.spec.patch_shape
            or out.dtype != self.spec.dtype
            or not out.flags.c_contiguous
        ):
            raise ValueError(f"out must be {self.spec.patch_shape} {self.spec.dtype}, contiguous")
        shard, place = divmod(number, self._per_shard)
        try:
            self._fill(OPEN.get((self._serial, shard), lambda: self._open(shard)), place, out)
        except CodecError as error:
            path = shard_path(self.path, self.spec, shard)
            raise StoreError(f"{path}: patch {number} is damaged: {error}; {REPAIR}") from error
        except OSError as error:
            raise unreadable(shard_path(self.path, self.spec, shard), error) from error
        return out

    def holds(self, shard: int) -> bool:
        """Whether the shard on the disk is this set's, and its index is whole."""
        try:
            self._open(shard)
        except (CodecError, *NOT_THERE):
            return False
        except OSError as error:
            raise unreadable(shard_path(self.path, self.spec, shard), error) from error
        return True

    def reads(self, number: int) -> bool:
        """Whether a patch is whole."""
        try:
            self.read(number, None)
        except StoreError as error:
            if isinstance(error.__cause__, CodecError):
                return False
            raise
        return True

    def patches_of(self, shard: int) -> range:
        """The patch numbers of one shard."""
        start = shard * self._per_shard
        return range(start, min(start + self._per_shard, self._count))

    def _fill(self, shard: OpenShard, place: int, out: npt.NDArray[Any]) -> None:
        found = inner_chunk(shard.index[place], shard.size)
        if found is None:
            raise CodecError("it was never written")
        packed = scratch("packed", found[1])
        shard.read_into(packed.data, found[0])
        self._codecs.decode(packed, out.reshape(-1).view(np.uint8))
        if sys.byteorder == "big":
            out.byteswap(inplace=True)

    def _open(self, shard: int) -> OpenShard:
        count = min(self._per_shard, self._count - shard * self._per_shard)
        header = shard_header(self._keys[shard], self.spec, shard, count)
        path = fetched(shard_path(self.path, self.spec, shard))
        return OpenShard(path, header, self._per_shard)


class Metadata:
    """The ``zarr.json`` of an array; whatever it lacks or has in another form is damage."""

    def __init__(self, path: Path) -> None:
        self.path = path / "zarr.json"

    def __enter__(self) -> Mapping[str, Any]:
        return load_json(self.path)

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, (LookupError, TypeError, ValueError, AttributeError)):
            raise StoreError(
                f"{self.path}: damaged ({type(error).__name__}: {error}); {REPAIR}"
            ) from error


def read_table(path: Path, dtype: str, columns: int) -> npt.NDArray[Any]:
    """A small array of one compressed chunk, without importing zarr."""
    with Metadata(path) as meta:
        count, width = meta["shape"]
        if width != columns or [c["name"] for c in meta["codecs"]] != ["bytes", "zstd", "crc32c"]:
            raise ValueError("what it says does not fit together")
        if count < 0 or count * width > _MOST_TABLE:
            raise ValueError(f"a table of {count} rows")
    chunk = path / "c" / "0" / "0"
    table = np.empty((count, columns), dtype)
    try:
        if count:
            packed = chunk.read_bytes()
            Codecs(("zstd",), True).decode(packed, table.reshape(-1).view(np.uint8))
    except CodecError as error:
        raise StoreError(f"{chunk}: damaged ({error}); {REPAIR}") from error
    except OSError as error:
        raise unreadable(chunk, error) from error
    return table


def _open_files_limit() -> int:
    try:
        import resource
    except ImportError:  # Windows: C's own limit of open files
        return 512
    soft: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if soft == resource.RLIM_INFINITY else soft


_LOCAL = threading.local()


def scratch(name: str, size: int) -> npt.NDArray[np.uint8]:
    """Bytes of this thread alone, used again under the same name: no page is new."""
    held: dict[str, npt.NDArray[np.uint8]] = _LOCAL.__dict__
    kept = held.get(name)
    if kept is None or len(kept) < size:
        kept = held[name] = np.empty(size + size // 4, np.uint8)
    return kept[:size]


_SEEK = threading.Lock()


def _read_at(file: int, out: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file, [out], offset)
    with _SEEK:
        os.lseek(file, offset, os.SEEK_SET)
        data = os.read(file, len(out))
    out[: len(data)] = data
    return len(data)
