"""Prepared cases on disk: each an OME-Zarr of its own, written shard by shard, read by boxes.

    NAME.ome.zarr/0                    the image (C, Z, Y, X), in its own dtype
    NAME.ome.zarr/labels/label/0       ids (Z, Y, X), as narrow as they can be
    NAME.ome.zarr/labels/label/ids     where that took renumbering: the id of each number
    NAME.ome.zarr/labels/mask/0        1 where the label is to be believed

Any reader of OME-Zarr opens them. A shard is one layer of chunks deep, so that whoever walks
through a case slab by slab writes each file once; its first bytes say of which unit of work
it is, as those of patches do.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.cache import CACHE
from volprep.codecs import (
    MISSING,
    CodecError,
    Codecs,
    blosc_encode,
    encode_shard_index,
    inner_chunk,
    with_crc32c,
)
from volprep.errors import StoreError
from volprep.files import REPAIR, File, NewFile, unreadable
from volprep.geometry import Box, Shape3, Spacing3, three
from volprep.store.mirror import fetched
from volprep.store.reader import OPEN, Metadata, OpenShard, next_serial, read_table, scratch
from volprep.store.shards import file_header, write_table

__all__ = [
    "ArrayForm",
    "CaseWriter",
    "StoredCase",
    "StoredVolume",
    "fitted_chunks",
    "narrowest",
    "packed_often",
    "volume_path",
]

#: Voxels of a shard along y. Cases are written in strips of as many rows.
ROWS = 128
#: Voxels of a fitted chunk: what an inner cache of a processor holds.
_MOST = 2**16
#: Of ids, which are packed once and unpacked for every sample, LZ4HC makes 0.4 of what LZ4 does, at
#: 3.5 times its time; they are unpacked in 0.4 of the time (15 µs for 128 kB of EM neurons).
_LEVEL = {"lz4": 5, "lz4hc": 3, "zstd": 3}
_IMAGE, _LABEL, _MASK = "0", "labels/label/0", "labels/mask/0"
_IDS = "labels/label/ids"
_KEY = "volprep"
#: Stands for a chunk that is zero everywhere.
_NONE = np.empty(0, np.uint8)


def volume_path(folder: Path, case: str) -> Path:
    """Where a set keeps a case."""
    return folder / "volumes" / f"{case}.ome.zarr"


def fitted_chunks(patch_size: Sequence[int]) -> Shape3:
    """The chunks (Z, Y, X) from which patches of a size are cut with the least work.

    Half a patch along each axis: of larger chunks more is decoded and thrown away, and the
    work that each chunk takes whatever its size outweighs what smaller ones save.
    """
    size = [1 if n < 4 else 2 ** int(math.log2(n) - 1) for n in patch_size]
    size[1] = min(size[1], ROWS)
    while math.prod(size) > _MOST:
        size[max(range(3), key=size.__getitem__)] //= 2
    return three(size)


def narrowest(ids: npt.NDArray[Any]) -> tuple[np.dtype[Any], npt.NDArray[np.uint64] | None]:
    """How labels of these ids are stored.

    Parameters
    ----------
    ids : array of unsigned integers
        Every one that there is.

    Returns
    -------
    dtype : numpy.dtype
        The narrowest that holds as many numbers as there are ids, and 0.
    table : array of uint64 or None
        The id of each number, ascending from 0; None where ids fit as they are.
    """
    table = np.unique(np.append(ids.astype(np.uint64), np.uint64(0)))
    dtype = np.dtype(np.min_scalar_type(len(table) - 1))
    return dtype, None if int(table[-1]) <= np.iinfo(dtype).max else table


def packed_often(compression: str) -> str:
    """How labels are compressed from which samples are drawn, which unpacks them again and again.

    Parameters
    ----------
    compression : {'lz4', 'zstd', 'none'}
        Of the set.
    """
    return "lz4hc" if compression == "lz4" else compression


@dataclass(frozen=True, slots=True)
class ArrayForm:
    """How one array of a case lies on the disk.

    Attributes
    ----------
    shape : (C, Z, Y, X)
        Labels and masks have one channel.
    dtype : numpy.dtype
        Of what is stored.
    chunks : (Z, Y, X)
        A chunk holds all channels of such a block.
    compression : {'lz4', 'lz4hc', 'zstd', 'none'}
    key : str
        Of the unit of work that the array belongs to.
    name : str
        Of the array in the case's folder.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    chunks: Shape3
    compression: str
    key: str
    name: str

    @property
    def grid(self) -> Shape3:
        """Chunks of a shard: one along Z, some along Y, and all along X."""
        _, rows, width = self.chunks
        return 1, max(1, ROWS // rows), -(-self.shape[3] // width)

    @property
    def chunk_shape(self) -> tuple[int, int, int, int]:
        """Of the array that a chunk holds."""
        return self.shape[0], *self.chunks

    def shard(self, z: int, y: int) -> tuple[str, bytes]:
        """File and first bytes of a shard."""
        lead = "0/" if self.name == _IMAGE else ""
        said = f"{self.key}|{self.name}|{self.shape}|{self.dtype.name}|{self.chunks}|{z}|{y}"
        header = file_header(f"{said}|{self.compression}", math.prod(self.grid))
        return f"{self.name}/c/{lead}{z}/{y}/0", header

    def metadata(self) -> dict[str, Any]:
        """The document ``zarr.json`` of the array."""
        axes = 4 if self.name == _IMAGE else 3
        shard = [n * c for n, c in zip(self.grid, self.chunks, strict=True)]
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        packing = []
        if self.compression != "none":
            setup = {
                "typesize": self.dtype.itemsize, "cname": self.compression,
                "clevel": _LEVEL[self.compression], "shuffle": self.shuffle, "blocksize": 0,
            }  # fmt: skip
            packing = [{"name": "blosc", "configuration": setup}]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape[-axes:]),
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.shape[0], *shard][-axes:]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0 if self.dtype.kind == "f" else 0,
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": list(self.chunk_shape[-axes:]),
                        "codecs": [little, *packing, {"name": "crc32c"}],
                        "index_codecs": [little, {"name": "crc32c"}],
                        "index_location": "end",
                    },
                }
            ],
            "attributes": {_KEY: self.key},
            "dimension_names": ["c", "z", "y", "x"][-axes:],
        }

    @property
    def shuffle(self) -> str:
        """Bits of wide images, where it saves 8% more than bytes; nothing of ids and bytes.

        Runs of one id are shorter when they are torn apart: unshuffled, ids take a third less
        room and are decoded in two thirds of the time. Noise of 8 bits does not shrink at all.
        """
        return "bitshuffle" if self.name == _IMAGE and self.dtype.itemsize > 1 else "noshuffle"

    @classmethod
    def load(cls, case: Path, name: str) -> ArrayForm:
        """The form of an array that volprep wrote; StoreError where it is damaged."""
        with Metadata(case / name) as meta:
            sharding = meta["codecs"][0]["configuration"]
            shape, chunk = meta["shape"], sharding["chunk_shape"]
            chain = {codec["name"]: codec.get("configuration") for codec in sharding["codecs"]}
            lead = [] if name == _IMAGE else [1]
            c, z, y, x = (*lead, *(int(n) for n in shape))
            form = cls(
                (c, z, y, x),
                np.dtype(meta["data_type"]),
                three(chunk[-3:]),
                chain["blosc"]["cname"] if "blosc" in chain else "none",
                meta["attributes"][_KEY],
                name,
            )
            if form.metadata() != dict(meta):
                raise ValueError("what it says does not fit together")
        return form


class CaseWriter:
    """Writes one case.

    Parameters
    ----------
    path : Path
        Of the OME-Zarr; nothing may be there.
    key : str
        Of the unit of work.
    chunks : (Z, Y, X)
        Y at most `ROWS`, and a power of two.
    compression : {'lz4', 'zstd', 'none'}
    ids : {'lz4', 'lz4hc', 'zstd', 'none'} or None
        How labels are compressed; None is as everything.
    spacing : (Z, Y, X) or None
        In µm.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        *,
        chunks: Shape3,
        compression: str = "lz4",
        ids: str | None = None,
        spacing: Spacing3 | None = None,
    ) -> None:
        if ROWS % chunks[1]:
            raise ValueError(f"chunks {chunks}: {ROWS} rows hold no whole number of them")
        self.path, self._key, self._chunks = path, key, chunks
        self._compression, self._ids, self._spacing = compression, ids or compression, spacing
        self._files: list[File] = []
        self._labels: list[str] = []
        self._lock = threading.Lock()

    def image(self, shape: Sequence[int], dtype: npt.DTypeLike) -> ArrayWriter:
        """Of the image, (C, Z, Y, X)."""
        self._put("zarr.json", _group(_multiscales(self._spacing, 4)))
        return self._array(_IMAGE, shape, dtype)

    def label(
        self, shape: Sequence[int], dtype: npt.DTypeLike, table: npt.NDArray[np.uint64] | None
    ) -> ArrayWriter:
        """Of the labels, (1, Z, Y, X), in the dtype and with the table of `narrowest`."""
        writer = self._array(_LABEL, shape, dtype)
        writer.table = table
        if table is not None:
            for name, data in write_table(table[:, None], ("number", "id"), {}).items():
                self._put(f"{_IDS}/{name}", data)
        return writer

    def mask(self, shape: Sequence[int]) -> ArrayWriter:
        """Of the valid mask, (1, Z, Y, X): zero and not zero."""
        return self._array(_MASK, shape, np.uint8)

    def finish(self) -> list[File]:
        """The files, once all arrays are written, by their names below the case's folder."""
        if self._labels:
            self._put("labels/zarr.json", _group({"version": "0.5", "labels": self._labels}))
        return sorted(self._files)

    def _array(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> ArrayWriter:
        c, z, y, x = shape
        how = self._ids if name == _LABEL else self._compression
        form = ArrayForm((c, z, y, x), np.dtype(dtype), self._chunks, how, self._key, name)
        if name != _IMAGE:
            image, self._labels = name.split("/")[1], [*self._labels, name.split("/")[1]]
            said = {"image-label": {"source": {"image": "../../"}}}
            self._put(f"labels/{image}/zarr.json", _group(_multiscales(self._spacing, 3) | said))
        self._put(f"{name}/zarr.json", _json(form.metadata()))
        return ArrayWriter(self, form)

    def _put(self, name: str, data: bytes) -> None:
        with NewFile(self.path / name) as new:
            new.write(data)
        self.add(new.described(self.path))

    def add(self, file: File) -> None:
        """Note a file that was written; any thread may do so."""
        with self._lock:
            self._files.append(file)


@dataclass
class ArrayWriter:
    """Writes one array of a case by boxes, from any number of threads."""

    case: CaseWriter
    form: ArrayForm
    table: npt.NDArray[np.uint64] | None = None

    def write(self, box: Box, array: npt.NDArray[Any]) -> None:
        """Write the shards of a box.

        Parameters
        ----------
        box : Box
            Of whole shards: whole sections along X, from a multiple of `ROWS` along Y and of the
            chunks along Z, up to another or to the end.
        array : ndarray, shape (C, Z, Y, X)
            What is in it; of labels the ids themselves.
        """
        steps = (self.form.chunks[0], max(ROWS, self.form.chunks[1]), self.form.shape[3])
        ends = zip(box.start, box.stop, steps, self.form.shape[1:], strict=True)
        if not all(a % s == 0 and (b % s == 0 or b == n) for a, b, s, n in ends):
            raise ValueError(f"{box} cuts through the shards of {self.form.name}")
        for z in range(box.start[0], box.stop[0], steps[0]):
            for y in range(box.start[1], box.stop[1], steps[1]):
                part = array[
                    :,
                    z - box.start[0] : z - box.start[0] + steps[0],
                    y - box.start[1] : y - box.start[1] + steps[1],
                ]
                self._shard(z // steps[0], y // steps[1], self._numbers(part))

    def write_plane(self, box: Box, array: npt.NDArray[Any]) -> None:
        """As `write`, of an array (Z, Y, X)."""
        self.write(box, array[None])

    def _numbers(self, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Voxels as they are stored."""
        if self.form.name == _MASK:
            return np.asarray(part != 0).view(np.uint8)
        if self.table is not None:
            return np.asarray(np.searchsorted(self.table, part.astype(np.uint64)))
        return np.asarray(part)

    def _shard(self, z: int, y: int, part: npt.NDArray[Any]) -> None:
        form = self.form
        name, header = form.shard(z, y)
        chunk = np.empty(form.chunk_shape, form.dtype.newbyteorder("<"))
        index = []
        with NewFile(self.case.path / name) as new:
            new.write(header)
            for row, column in np.ndindex(form.grid[1:]):
                voxels = part[
                    :, :,
                    row * form.chunks[1] : (row + 1) * form.chunks[1],
                    column * form.chunks[2] : (column + 1) * form.chunks[2],
                ]  # fmt: skip
                if not voxels.any():  # what is zero everywhere takes no room
                    index.append((MISSING, MISSING))
                    continue
                if voxels.shape != chunk.shape:
                    chunk[...] = 0
                chunk[tuple(map(slice, voxels.shape))] = voxels
                data = with_crc32c(self._encoded(chunk))
                index.append((new.size, len(data)))
                new.write(data)
            new.write(encode_shard_index(np.array(index, np.uint64)))
        self.case.add(new.described(self.case.path))

    def _encoded(self, chunk: npt.NDArray[Any]) -> bytes:
        form = self.form
        if form.compression == "none":
            return chunk.tobytes()
        return blosc_encode(
            chunk, cname=form.compression, level=_LEVEL[form.compression], shuffle=form.shuffle
        )


class StoredVolume:
    """One array of a case, read by boxes; safe in threads, picklable for workers.

    Parameters
    ----------
    case : Path
        The OME-Zarr.
    form : ArrayForm
    table : array of uint64 or None
        The id of each number that is stored.
    dtype : dtype or None
        Of the ids; what is stored for None.
    spacing : (Z, Y, X) or None
        In µm.
    """

    def __init__(
        self,
        case: Path,
        form: ArrayForm,
        *,
        table: npt.NDArray[Any] | None = None,
        spacing: Spacing3 | None = None,
    ) -> None:
        self.path, self.form, self.spacing = case, form, spacing
        self._table = None if table is None else table.astype(np.min_scalar_type(table[-1]))
        self._codecs = Codecs(() if form.compression == "none" else ("blosc",), True)
        self._serial = next_serial()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_serial": next_serial()}

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X)."""
        return self.form.shape

    @property
    def chunks(self) -> Shape3:
        """(Z, Y, X): what is decoded at once."""
        return self.form.chunks

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels, as `read` gives them."""
        return self.form.dtype if self._table is None else self._table.dtype

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        """The voxels of `box`, as (C, Z, Y, X).

        Raises
        ------
        StoreError
            If they are damaged, or the set is another one by now.
        """
        box = Box.whole(self.shape) if box is None else box
        out = np.empty((self.shape[0], *box.shape), self.dtype)
        self.read_into(box, out)
        return out

    def read_into(self, box: Box, out: npt.NDArray[Any]) -> None:
        """Write the voxels of `box` to `out`, (C, Z, Y, X) of `dtype` in any order."""
        if self._table is None:
            self._fill(box, out)
            return
        from volprep.kernels.labels import take_ids

        numbers = scratch("numbers", math.prod(box.shape) * self.form.dtype.itemsize)
        narrow = numbers.view(self.form.dtype).reshape(1, *box.shape)
        self._fill(box, narrow)
        take_ids(self._table, narrow[0], out[0])

    def _fill(self, box: Box, out: npt.NDArray[Any]) -> None:
        """The stored numbers of a box, chunk by chunk."""
        (z0, y0, x0), (z1, y1, x1), (d, h, w) = box.start, box.stop, self.form.chunks
        _, rows, columns = self.form.grid
        # Where chunks meet the box, along each axis: in the chunk, and in the box.
        lines, widths = _cuts(y0, y1, h), _cuts(x0, x1, w)
        for z, of_chunk_z, of_box_z in _cuts(z0, z1, d):
            for y, of_chunk_y, of_box_y in lines:
                shard, row = divmod(y, rows)
                names = [(z, shard, row * columns + x) for x, _, _ in widths]
                line = out[:, of_box_z, of_box_y]
                for chunk, (_, of_chunk_x, of_box_x) in zip(
                    self._chunks(names), widths, strict=True
                ):
                    part = chunk[:, of_chunk_z, of_chunk_y, of_chunk_x] if chunk.size else 0
                    line[..., of_box_x] = part

    def _chunks(self, names: Sequence[tuple[int, int, int]]) -> list[npt.NDArray[Any]]:
        """Decoded chunks of one line along X, kept for others that touch them.

        Empty arrays where they are zero everywhere.
        """
        # Owners with numbers below zero are none of those of other rooms, which share the cache.
        found = CACHE.get_all(~self._serial, names)
        chunks = [_NONE if chunk is None else chunk for chunk in found]
        missing = [place for place, chunk in enumerate(found) if chunk is None]
        if not missing:
            return chunks
        z, y, _ = names[0]
        try:
            shard = OPEN.get((self._serial, z << 32 | y), partial(self._open, z, y))
            entries = [(p, inner_chunk(shard.index[names[p][2]], shard.size)) for p in missing]
            stored = [(place, *entry) for place, entry in entries if entry is not None]
            for run in _runs(stored):
                start = run[0][1]
                packed = scratch("packed", run[-1][1] + run[-1][2] - start)
                shard.read_into(packed.data, start)
                for place, offset, size in run:
                    chunk = np.empty(self.form.chunk_shape, self.form.dtype)
                    data = packed[offset - start : offset - start + size]
                    self._codecs.decode(data, chunk.reshape(-1).view(np.uint8))
                    if sys.byteorder == "big":
                        chunk.byteswap(inplace=True)
                    CACHE.put(~self._serial, names[place], chunk)
                    chunks[place] = chunk
        except CodecError as error:
            raise StoreError(f"{self._path(z, y)}: damaged: {error}; {REPAIR}") from error
        except OSError as error:
            raise unreadable(self._path(z, y), error) from error
        return chunks

    def _path(self, z: int, y: int) -> Path:
        return self.path / self.form.shard(z, y)[0]

    def _open(self, z: int, y: int) -> OpenShard:
        header = self.form.shard(z, y)[1]
        return OpenShard(fetched(self._path(z, y)), header, math.prod(self.form.grid))


def _runs(stored: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Chunks (place, offset, size) that lie behind one another in a shard, to be read at once."""
    runs: list[list[tuple[int, int, int]]] = []
    for chunk in stored:
        if runs and runs[-1][-1][1] + runs[-1][-1][2] == chunk[1]:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def _cuts(start: int, stop: int, size: int) -> list[tuple[int, slice, slice]]:
    """The chunks along an axis that a range meets: number, and where, in the chunk and in it."""
    found = []
    for number in range(start // size, -(-stop // size)):
        first = number * size
        low, high = max(start, first), min(stop, first + size)
        found.append((number, slice(low - first, high - first), slice(low - start, high - start)))
    return found


@dataclass(frozen=True)
class StoredCase:
    """A prepared case as it lies in a set.

    Attributes
    ----------
    path : Path
        The OME-Zarr.
    image, label, mask : StoredVolume
        The last two None where the case has none.
    """

    path: Path
    image: StoredVolume
    label: StoredVolume | None
    mask: StoredVolume | None
    spacing: Spacing3 | None = field(default=None)

    @classmethod
    def open(cls, path: Path) -> StoredCase:
        """Open what a `CaseWriter` wrote; only metadata are read.

        Raises
        ------
        StoreError
            If they are missing or damaged.
        """
        with Metadata(path) as meta:
            ome = meta["attributes"]["ome"]["multiscales"][0]
            scale = ome["datasets"][0]["coordinateTransformations"][0]["scale"]
            known = "unit" in ome["axes"][-1]
            spacing = (float(scale[-3]), float(scale[-2]), float(scale[-1])) if known else None
        image, label, mask = (
            cls._array(path, name, spacing) if (path / name).exists() else None
            for name in (_IMAGE, _LABEL, _MASK)
        )
        if image is None:
            raise StoreError(f"{path / _IMAGE}: missing; {REPAIR}")
        return cls(path, image, label, mask, spacing)

    @staticmethod
    def _array(path: Path, name: str, spacing: Spacing3 | None) -> StoredVolume:
        table = None
        if name == _LABEL and (path / _IDS).exists():
            table = read_table(path / _IDS, "<u8", 1)[:, 0]
        return StoredVolume(path, ArrayForm.load(path, name), table=table, spacing=spacing)


def _multiscales(spacing: Spacing3 | None, axes: int) -> dict[str, Any]:
    """OME-Zarr's description of an image of one level."""
    unit = {} if spacing is None else {"unit": "micrometer"}
    space = [{"name": name, "type": "space", **unit} for name in "zyx"]
    lead: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if axes == 4 else []
    scale = [1.0] * len(lead) + list(spacing or (1.0, 1.0, 1.0))
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"version": "0.5", "multiscales": [{"axes": lead + space, "datasets": [level]}]}


def _group(ome: Mapping[str, Any]) -> bytes:
    return _json({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
