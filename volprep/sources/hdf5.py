"""HDF5: one dataset of a file, given by its key or found by its name."""

from __future__ import annotations

import json
import math
import os
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources.array import FileVolume, default_axes
from volprep.sources.axes import Layout
from volprep.sources.base import (
    Array,
    Volume,
    open_descriptor,
    reading,
    stored_bytes,
)
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.external import External, may_follow, refuse_foreign
from volprep.sources.hdf5contents import Contents, contents_of, virtual_files
from volprep.sources.keys import is_image_key, is_label_key
from volprep.sources.placement import Placement
from volprep.sources.scratch import scratch_array

__all__ = ["check_claim", "datasets", "filters_of", "open_source"]

_DEFLATE, _SHUFFLE = 1, 2  # H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE
#: Registered filters (github.com/HDFGroup/hdf5_plugins) that a plain HDF5 cannot decode.
_FILTERS = {
    4: "szip", 307: "bzip2", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "ZFP",
    32015: "Zstandard", 32017: "SZ", 32024: "SZ3", 32026: "Blosc2", 32028: "SPERR",
}  # fmt: skip
_CLAIM_BYTES = 2**34  # a volume beyond this must have some of its chunks stored
_CLAIM_SHARE = 1000
_FEW = 4  # so few sections look like channels
_BLOCK_VOXELS = 2**22  # of the blocks that an unmappable dataset without chunks is read in
_OFFSETS = ("offset", "origin")
_OTHER_SPACINGS = ("resolution", "spacing", "voxel_size", "pixel_size", "scale")


class _Stored:
    """Where the chunks of a dataset lie, looked up once for all of them.

    The library finds one chunk in time that grows with their number; its iterator hands out
    all of them in one pass.
    """

    def __init__(self, dataset: Any) -> None:
        self._grid = tuple(-(-n // b) for n, b in zip(dataset.shape, dataset.chunks, strict=True))
        self._block = dataset.chunks
        rows: list[tuple[int, int, int, int]] = []

        def visit(info: Any) -> None:
            index = [o // b for o, b in zip(info.chunk_offset, self._block, strict=True)]
            rows.append((self._number(index), info.byte_offset, info.size, info.filter_mask))

        dataset.id.chunk_iter(visit)
        rows.sort()
        columns = zip(*rows, strict=True) if rows else ((),) * 4
        self._numbers, *self._places = (array("Q", column) for column in columns)

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, index: Index) -> tuple[int, int, int] | None:
        """Offset, size and filter mask of a chunk; None for one that was never written."""
        number = self._number(index)
        row = bisect_left(self._numbers, number)
        if row == len(self._numbers) or self._numbers[row] != number:
            return None
        offset, size, mask = (column[row] for column in self._places)
        return offset, size, mask

    def _number(self, index: Sequence[int]) -> int:
        number = 0
        for i, n in zip(index, self._grid, strict=True):
            number = number * n + i
        return number


class _File:
    """An open dataset and a descriptor of its file, for reads that need no HDF5 lock."""

    def __init__(self, path: Path, key: str | None) -> None:
        import h5py

        self.descriptor = -1
        self.stored: _Stored | None = None
        try:
            self.file = h5py.File(path, "r", locking="best-effort")
            self.dataset = self.file[key]
            self.descriptor = open_descriptor(self.dataset.file.filename)  # a link may lead there
            if self.dataset.chunks is not None and not self.dataset.is_virtual:
                self.stored = _Stored(self.dataset)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close both; again does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        if "file" in self.__dict__:
            self.file.close()

    def __del__(self) -> None:
        if "descriptor" in self.__dict__:
            self.close()


class Hdf5Volume(ChunkedVolume):
    """A dataset in chunks.

    Deflated chunks, shuffled or not, are read past the HDF5 library (which lets one
    thread in at a time) and inflated in place; for other filters the library decodes.
    """

    def __init__(self, path: Path, layout: Layout, filters: Sequence[int], **rest: Any) -> None:
        super().__init__(path, layout, **rest)
        self._direct = set(filters) <= {_DEFLATE, _SHUFFLE}
        self._shuffled = _SHUFFLE in filters and self._stored_dtype.itemsize > 1
        self._deflated = _DEFLATE in filters

    def _open(self) -> _File:
        return _File(self.path, self.key)

    def missing_chunks(self) -> tuple[int, int]:
        """As `Volume.missing_chunks`."""
        handle: _File = self._opened()
        if handle.stored is not None:
            grid = zip(self._layout.stored, self._block, strict=True)
            total = math.prod(-(-n // b) for n, b in grid)
            return total - len(handle.stored), total
        plain = not (handle.dataset.is_virtual or handle.dataset.external)
        return int(plain and not handle.dataset.id.get_storage_size()), 1

    def _decode(self, index: Index, out: Array | None) -> Array:
        handle: _File = self._opened()
        place = None if handle.stored is None else handle.stored.find(index)
        if handle.stored is not None and place is None:
            return np.full(self._block, handle.dataset.fillvalue, self._stored_dtype)
        if place is None or not self._direct or place[2]:  # a mask: some filter was left out
            pairs = zip(index, self._block, strict=True)
            cut = tuple(slice(i * b, (i + 1) * b) for i, b in pairs)
            block: Array = handle.dataset[cut]
            return block
        packed = stored_bytes(handle.descriptor, place[1], place[0])
        fits = out is not None and out.shape == self._block
        target = out if fits and out is not None else np.empty(self._block, self._stored_dtype)
        self._unpack(packed, target)
        return target

    def _unpack(self, packed: bytes | Array, target: Array) -> None:
        from imagecodecs import deflate_decode

        flat: Any = target.reshape(-1).view(np.uint8)
        if self._deflated:
            raw = flat
            if self._shuffled:
                room = scratch_array if self._large else _in_memory
                raw = room(self.name, flat.shape, np.uint8)
            size = len(deflate_decode(packed, out=raw))  # type: ignore[arg-type]
            if size != len(flat):
                raise EOFError("it is cut short")
        else:
            raw = np.frombuffer(packed, np.uint8)
            if len(raw) != len(flat):
                raise EOFError("it is cut short")
        if self._shuffled:
            flat.reshape(-1, target.itemsize)[...] = raw.reshape(target.itemsize, -1).T
        elif raw is not flat:
            flat[...] = raw


def _in_memory(name: str, shape: Sequence[int], dtype: Any) -> Array:
    return np.empty(shape, dtype)


def open_source(
    path: Path,
    key: str | None,
    axes: str | None,
    *,
    labels: bool,
    allow_external: External = None,
) -> Volume:
    """Open a dataset of an HDF5 file."""
    import h5py

    with reading(path, "HDF5 file"), h5py.File(path, "r", locking="best-effort") as file:
        contents = contents_of(path, file, allow_external)
        name = contents.choose(path, key, labels=labels)
        dataset = file[name]
        place = f"{path}::{name}"
        _check_files(path, dataset, allow_external)
        letters, notes = _axes(place, dataset, axes)
        layout = Layout.of(place, letters, dataset.shape)
        spacing, doubts = _spacing(dataset.attrs, layout)
        rest: dict[str, Any] = {
            "dtype": dataset.dtype, "key": name, "spacing": spacing, "notes": (*notes, *doubts),
            "placement": _placement(dataset.attrs, layout),
        }  # fmt: skip
        if dataset.external:
            return _external(path, dataset, layout, rest)
        filters = filters_of(place, dataset)
        here = not (dataset.is_virtual or _elsewhere(path, dataset))
        offset = dataset.id.get_offset() if here else None
        if dataset.chunks is None and not filters and offset is not None:
            _check_size(path, offset + dataset.nbytes)
            return FileVolume(path, layout, offset=offset, **rest)
        check_claim(place, dataset)
        plain = dataset.chunks is None
        block = _rows(dataset.shape) if plain else dataset.chunks
        return Hdf5Volume(path, layout, [-1] if plain else filters, block=block, **rest)


def datasets(
    path: Path, allow_external: External = None
) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The arrays of at least two axes in a file.

    Raises
    ------
    SourceError
        Where a link may not be followed that stands for its only array, or is called as
        images or labels are; or where what alone is called so is no array of numbers.
    """
    import h5py

    with reading(path, "HDF5 file"), h5py.File(path, "r", locking="best-effort") as file:
        contents = contents_of(path, file, allow_external)
        found = [(k, shape, dtype) for k, (shape, dtype) in contents.arrays.items()]
        volumes = [entry for entry in found if len(entry[1]) > 1]
        for link, target in contents.foreign.items():
            if not volumes or is_image_key(link) or is_label_key(link):
                refuse_foreign(path, f"{link!r} is a link to", target)
        _refuse_named(path, contents, [name for name, _, _ in volumes])
        return volumes


def _refuse_named(path: Path, contents: Contents, volumes: Sequence[str]) -> None:
    """Refuse a file whose only image or label by its name is none: a link to nowhere, texts."""
    for called in (is_image_key, is_label_key):
        if not any(map(called, [*volumes, *contents.aliases])):
            for name, what in contents.unusable.items():
                if called(name):
                    raise SourceError(
                        f"{path}::{name}", f"is {what}", "mend it, or remove or rename it"
                    )


def _elsewhere(path: Path, dataset: Any) -> bool:
    """Whether a link has led to a dataset of another file."""
    return not os.path.samefile(path, dataset.file.filename)


def _check_files(path: Path, dataset: Any, allow: External) -> None:
    """Refuse data that lie in other files, where that is not allowed or they are not there.

    The library reads what is missing there as the fill value, without a word.
    """
    for target, what in virtual_files(dataset).items():
        if not may_follow(path, target, allow) or (dataset.external and not allow):
            refuse_foreign(path, f"{dataset.name!r} {what}", target)
        if not target.exists() and "%" not in target.name:  # %b counts blocks of an open end
            raise SourceError(
                path, f"{dataset.name!r} {what} {target}, which is not there", "bring it there"
            )


def _external(path: Path, dataset: Any, layout: Layout, rest: dict[str, Any]) -> Volume:
    """Voxels in another file, mapped there, where they lie in one piece.

    The library would look for the file in the folder that a command is given in; here it lies
    beside the one that names it, as linked files do.
    """
    name, offset, _ = dataset.external[0]
    if len(dataset.external) > 1:
        raise SourceError(
            path,
            f"{dataset.name!r} keeps its voxels in {len(dataset.external)} pieces of other files",
            "copy it into one file with h5repack",
        )
    target = Path(dataset.file.filename).parent / name
    _check_size(target, offset + dataset.nbytes)
    return FileVolume(target, layout, offset=offset, **rest)


def filters_of(place: str, dataset: Any) -> list[int]:
    """The filters of a dataset; one that cannot be decoded is named with the package for it."""
    from importlib import import_module
    from importlib.util import find_spec

    import h5py

    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    missing = [code for code in filters if not h5py.h5z.filter_avail(code)]
    if missing and find_spec("hdf5plugin") is not None:
        import_module("hdf5plugin")  # registers its filters
        missing = [code for code in filters if not h5py.h5z.filter_avail(code)]
    if missing:
        name = _FILTERS.get(missing[0], "an unknown method")
        tried = find_spec("hdf5plugin") is not None
        raise SourceError(
            place,
            f"is compressed with {name} (HDF5 filter {missing[0]}), which "
            + ("neither h5py nor hdf5plugin can decode" if tried else "h5py alone cannot decode"),
            "write it again with gzip, where it can be read"
            if tried
            else "install the filters with: pip install hdf5plugin",
        )
    return filters


def check_claim(place: str, dataset: Any) -> None:
    """Refuse a size that a header claims and hardly a stored chunk stands behind.

    What was never written is the fill value: two kilobytes can stand for 10**18 voxels, and
    whoever walks through them does not come to an end.
    """
    if dataset.nbytes <= _CLAIM_BYTES or dataset.is_virtual or dataset.external:
        return
    stored = dataset.id.get_storage_size()
    if dataset.chunks is not None:
        stored = dataset.id.get_num_chunks() * math.prod(dataset.chunks) * dataset.dtype.itemsize
    if stored * _CLAIM_SHARE < dataset.nbytes:
        raise SourceError(
            place,
            f"claims {math.prod(dataset.shape)} voxels, of which {stored // dataset.dtype.itemsize}"
            " are stored",
            "its header is wrong, or it was never filled; save the part that holds data",
        )


def _axes(place: str, dataset: Any, axes: str | None) -> tuple[str, tuple[Note, ...]]:
    """Axes as the user, ilastik's ``axistags`` or HDF5 dimension labels say; else ZYX or YX."""
    if axes is not None:
        return axes, ()
    named = _axistags(dataset.attrs.get("axistags")) or "".join(d.label for d in dataset.dims)
    if len(named) == dataset.ndim and {"y", "x"} <= set(named.lower()):
        return named, ()
    letters = default_axes(place, tuple(dataset.shape), "the dataset")
    few = dataset.shape[0]
    if letters == "ZYX" and few <= _FEW:
        doubt = f"first axis ({few}) read as Z"
        return letters, (Note("axis-guessed", doubt, todo="if it is channels, say `axes: CYX`"),)
    return letters, ()


def _axistags(text: Any) -> str:
    try:
        return "".join(axis["key"] for axis in json.loads(text)["axes"])
    except (TypeError, ValueError, KeyError):
        return ""


def _spacing(attributes: Any, layout: Layout) -> tuple[Spacing3 | None, tuple[Note, ...]]:
    """The spacing from ``element_size_um``, which is (Z, Y, X)."""
    if "element_size_um" not in attributes:
        for name in _OTHER_SPACINGS:
            if name in attributes:
                value = np.asarray(attributes[name]).tolist()
                doubt = f"attribute {name!r} ({value}) names no unit: not read as spacing"
                return None, (Note("spacing-unread", doubt),)
        return None, (Note("unknown-spacing", "no spacing stored"),)
    try:
        sizes = [float(s) for s in np.ravel(attributes["element_size_um"])]
    except (TypeError, ValueError):
        sizes = []
    flat = "Z" not in layout.axes
    if flat and len(sizes) == 2:
        sizes = [sizes[0], *sizes]
    if len(sizes) != 3 or not all(math.isfinite(s) and s > 0 for s in sizes):
        doubt = f"element_size_um cannot be read as (z, y, x): {sizes}"
        return None, (Note("spacing-unread", doubt),)
    z, y, x = sizes
    two = len(np.ravel(attributes["element_size_um"])) == 2
    doubt = "element_size_um has 3 entries for a 2D array: read as (z, y, x)"
    return (z, y, x), ((Note("unit-guessed", doubt),) if flat and not two else ())


def _placement(attributes: Any, layout: Layout) -> Placement | None:
    """Where an ``offset`` says that the voxels lie, in the unit of ``resolution``.

    As CREMI and its kin have it: both are (z, y, x) in the world. Without a resolution the
    unit is unknown: offsets can then be compared, and nothing be moved by them.
    """
    name = next((n for n in _OFFSETS if n in attributes), None)
    if name is None:
        return None
    offset = _triple(attributes[name], layout)
    steps = _triple(attributes["resolution"], layout) if "resolution" in attributes else None
    if offset is None or (steps is not None and min(steps) <= 0):
        return None
    known = steps is not None
    return Placement.upright(
        steps or (1.0, 1.0, 1.0),
        offset,
        unit="the unit of its resolution" if known else f"the unit of its {name}",
        said_by=name,
        certain=known,
    )


def _triple(value: Any, layout: Layout) -> tuple[float, float, float] | None:
    try:
        numbers = [float(v) for v in np.ravel(value)]
    except (TypeError, ValueError):
        return None
    if len(numbers) == 2 and "Z" not in layout.axes:
        numbers = [numbers[0], *numbers]
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        return None
    z, y, x = numbers
    return z, y, x


def _check_size(path: Path, wanted: int) -> None:
    size = path.stat().st_size
    if wanted > size:
        raise SourceError(
            path,
            f"is cut short: a dataset reaches to byte {wanted}, the file has {size}",
            "copy or save the file again",
        )


def _rows(shape: Sequence[int]) -> tuple[int, ...]:
    """A block of some rows along the last axes, for data that has no chunks of its own."""
    block = [1] * len(shape)
    room = _BLOCK_VOXELS
    for axis in reversed(range(len(shape))):
        block[axis] = max(1, min(shape[axis], room))
        room //= block[axis]
    return tuple(block)
