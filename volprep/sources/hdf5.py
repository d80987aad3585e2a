"""HDF5: one dataset of a file, given by its key or found by its name."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.geometry import Spacing3
from volprep.sources.array import FileVolume, default_axes
from volprep.sources.axes import Layout
from volprep.sources.base import (
    Array,
    Volume,
    open_descriptor,
    read_at,
    reading,
)
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.keys import choose_key

__all__ = ["datasets", "open_source"]

_DEFLATE, _SHUFFLE = 1, 2  # H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE
_FEW = 4  # so few sections look like channels
_BLOCK_VOXELS = 2**22  # of the blocks that an unmappable dataset without chunks is read in
_OTHER_SPACINGS = ("resolution", "spacing", "voxel_size", "pixel_size", "scale")


class _File:
    """An open dataset and a descriptor of its file, for reads that need no HDF5 lock."""

    def __init__(self, path: Path, key: str | None) -> None:
        import h5py

        self.descriptor = open_descriptor(path)
        try:
            self.file = h5py.File(path, "r", locking="best-effort")
            self.dataset = self.file[key]
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

    def _decode(self, index: Index, out: Array | None) -> Array:
        handle: _File = self._opened()
        start = [i * b for i, b in zip(index, self._block, strict=True)]
        place = self._where(handle, start) if self._direct else None
        if place is None:
            cut = tuple(slice(a, a + b) for a, b in zip(start, self._block, strict=True))
            block: Array = handle.dataset[cut]
            return block
        packed = read_at(handle.descriptor, place[1], place[0])
        target = np.empty(self._block, self._stored_dtype)
        if out is not None and out.shape == self._block:
            target = out
        self._unpack(packed, target)
        return target

    def _where(self, handle: _File, start: Sequence[int]) -> tuple[int, int] | None:
        """Offset and size of a chunk that went through every filter; None for any other."""
        try:
            info = handle.dataset.id.get_chunk_info_by_coord(tuple(start))
        except (ValueError, RuntimeError):  # never written: the library knows the fill value
            return None
        if info.byte_offset is None or info.filter_mask:
            return None
        return int(info.byte_offset), int(info.size)

    def _unpack(self, packed: bytes, target: Array) -> None:
        from imagecodecs import deflate_decode

        flat: Any = target.reshape(-1).view(np.uint8)
        if self._deflated:
            raw = np.empty_like(flat) if self._shuffled else flat
            if len(deflate_decode(packed, out=raw)) != len(flat):
                raise EOFError("a chunk is cut short")
        else:
            raw = np.frombuffer(packed, np.uint8)
            if len(raw) != len(flat):
                raise EOFError("a chunk is cut short")
        if self._shuffled:
            flat.reshape(-1, target.itemsize)[...] = raw.reshape(target.itemsize, -1).T
        elif raw is not flat:
            flat[...] = raw


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open a dataset of an HDF5 file."""
    import h5py

    with reading(path, "HDF5 file"), h5py.File(path, "r", locking="best-effort") as file:
        found = {k: shape for k, shape, _ in _walk(file)}
        name = choose_key(path, found, key, labels=labels)
        dataset = file[name]
        place = f"{path}::{name}"
        letters, notes = _axes(place, dataset, axes)
        layout = Layout.of(place, letters, dataset.shape)
        spacing, doubts = _spacing(dataset.attrs, layout)
        rest: dict[str, Any] = {
            "dtype": dataset.dtype, "key": name, "spacing": spacing, "notes": (*notes, *doubts),
        }  # fmt: skip
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        offset = None if dataset.is_virtual or dataset.external else dataset.id.get_offset()
        if dataset.chunks is None and not filters and offset is not None:
            _check_size(path, offset + dataset.nbytes)
            return FileVolume(path, layout, offset=offset, **rest)
        plain = dataset.chunks is None
        block = _rows(dataset.shape) if plain else dataset.chunks
        return Hdf5Volume(path, layout, [-1] if plain else filters, block=block, **rest)


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The arrays of at least two axes in a file."""
    import h5py

    with reading(path, "HDF5 file"), h5py.File(path, "r", locking="best-effort") as file:
        return [entry for entry in _walk(file) if len(entry[1]) > 1]


def _walk(file: Any) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    import h5py

    found: list[tuple[str, tuple[int, ...], np.dtype[Any]]] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and item.dtype.kind in "biuf":
            found.append((name, tuple(item.shape), item.dtype))

    file.visititems(visit)
    return found


def _axes(place: str, dataset: Any, axes: str | None) -> tuple[str, tuple[str, ...]]:
    """Axes as the user, ilastik's ``axistags`` or HDF5 dimension labels say; else ZYX or YX."""
    if axes is not None:
        return axes, ()
    named = _axistags(dataset.attrs.get("axistags")) or "".join(d.label for d in dataset.dims)
    if len(named) == dataset.ndim and {"y", "x"} <= set(named.lower()):
        return named, ()
    letters = default_axes(place, tuple(dataset.shape), "the dataset")
    few = dataset.shape[0]
    if letters == "ZYX" and few <= _FEW:
        doubt = f"first axis ({few}) read as Z; if it is channels, say `axes: CYX`"
        return letters, (doubt,)
    return letters, ()


def _axistags(text: Any) -> str:
    try:
        return "".join(axis["key"] for axis in json.loads(text)["axes"])
    except (TypeError, ValueError, KeyError):
        return ""


def _spacing(attributes: Any, layout: Layout) -> tuple[Spacing3 | None, tuple[str, ...]]:
    """The spacing from ``element_size_um``, which is (Z, Y, X)."""
    if "element_size_um" not in attributes:
        for name in _OTHER_SPACINGS:
            if name in attributes:
                value = np.asarray(attributes[name]).tolist()
                return None, (f"attribute {name!r} ({value}) names no unit: not read as spacing",)
        return None, ("no spacing stored",)
    try:
        sizes = [float(s) for s in np.ravel(attributes["element_size_um"])]
    except (TypeError, ValueError):
        sizes = []
    flat = "Z" not in layout.axes
    if flat and len(sizes) == 2:
        sizes = [sizes[0], *sizes]
    if len(sizes) != 3 or not all(math.isfinite(s) and s > 0 for s in sizes):
        return None, (f"element_size_um cannot be read as (z, y, x): {sizes}",)
    z, y, x = sizes
    two = len(np.ravel(attributes["element_size_um"])) == 2
    doubt = "element_size_um has 3 entries for a 2D array: read as (z, y, x)"
    return (z, y, x), ((doubt,) if flat and not two else ())


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
