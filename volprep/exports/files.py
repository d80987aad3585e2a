"""The files of an export: what each is made from, and how it is written, slab by slab."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.exports.given import ExportCase, slabs
from volprep.exports.labels import Ids, LabelForm, ids_of
from volprep.files import allocate, require_room
from volprep.geometry import Box
from volprep.preprocess import Normalisation

__all__ = [
    "Array",
    "ExportFile",
    "Read",
    "hdf5_image",
    "hdf5_labels",
    "id_table",
    "json_file",
    "npy_image",
    "npy_labels",
    "section_image",
    "section_labels",
    "text_file",
    "tiff_bytes",
    "tiff_image",
    "tiff_labels",
    "yaml_file",
]

Array = npt.NDArray[Any]
#: Gives the voxels of a box, (Z, Y, X) or (C, Z, Y, X).
Read = Callable[[Box], Array]


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file that is yet to be written.

    Attributes
    ----------
    path : str
        Relative to the export, with ``/``.
    made_of : sequence
        Plain JSON values that say everything that its content depends on.
    write : callable
        Writes it to a path; whoever calls it renames that when it is whole.
    voxels : int
        That it holds, for a progress bar.
    """

    path: str
    made_of: Sequence[Any]
    write: Callable[[Path], None]
    voxels: int = 0

    @property
    def is_text(self) -> bool:
        """Whether it is a short text, such as a config or a script, and holds no data of a case."""
        return bool(self.made_of[0] == "text")


def text_file(path: str, text: str) -> ExportFile:
    """A text, in UTF-8."""

    def write(to: Path) -> None:
        to.write_text(text, encoding="utf-8", newline="\n")

    return ExportFile(path, ["text", text], write)


def json_file(path: str, content: Any) -> ExportFile:
    """A JSON document."""
    return text_file(
        path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def yaml_file(path: str, content: Mapping[str, Any], comment: str = "") -> ExportFile:
    """A YAML document, under lines of comment."""
    import yaml

    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return text_file(path, head + yaml.safe_dump(dict(content), sort_keys=False))


def id_table(path: str, case: ExportCase, form: Ids) -> Iterator[ExportFile]:
    """The table from the ids of a file to those of the case, where they were renumbered."""
    if not form.renumbers(case):
        return

    def write(to: Path) -> None:
        rows = (f"{new},{old}\n" for new, old in enumerate(ids_of(case), start=1))
        to.write_text("id,original\n" + "".join(rows), encoding="ascii", newline="\n")

    yield ExportFile(path, ["ids", *case.made_of, *form.made_of], write)


def tiff_image(
    path: str, case: ExportCase, channels: Sequence[int] | None = None, *, squeeze: bool = False
) -> ExportFile:
    """A TIFF of the image.

    Parameters
    ----------
    path : str
    case : ExportCase
    channels : sequence of int or None
        One makes a (Z, Y, X) file, several (Z, C, Y, X) as ImageJ has them; None takes all.
    squeeze : bool
        Whether a single section is written as (Y, X).
    """
    chosen = list(range(case.image.shape[0])) if channels is None else list(channels)

    def read(box: Box) -> Array:
        return case.image.read(box)[chosen]

    made_of = ["tiff", *case.made_of, chosen, squeeze]
    return _tiff(path, case, np.dtype(case.image.dtype), read, made_of, squeeze, len(chosen))


def tiff_labels(
    path: str, case: ExportCase, form: LabelForm, *, squeeze: bool = False
) -> ExportFile:
    """A (Z, Y, X) TIFF of the labels; (Y, X) for a single section where `squeeze` asks for it."""

    def read(box: Box) -> Array:
        return form.read(case, box)[None]

    made_of = ["tiff", *case.made_of, *form.made_of, squeeze]
    return _tiff(path, case, lambda: form.dtype(case), read, made_of, squeeze, 1)


def section_image(path: str, case: ExportCase, z: int, channels: Sequence[int]) -> ExportFile:
    """A TIFF of one section, (Y, X), or (C, Y, X) of several channels."""
    return tiff_image(path, _section(case, z), channels, squeeze=True)


def section_labels(path: str, case: ExportCase, z: int, form: LabelForm) -> ExportFile:
    """A (Y, X) TIFF of the labels of one section, with ids as in the whole case."""

    def read(box: Box) -> Array:
        return form.read(case, box)[None]

    part = _section(case, z)
    made_of = ["tiff", *part.made_of, *case.made_of, *form.made_of]
    return _tiff(path, part, lambda: form.dtype(case), read, made_of, True, 1)


def _section(case: ExportCase, z: int) -> ExportCase:
    (first, top, left), (_, bottom, right) = case.box.start, case.box.stop
    return replace(case, box=Box((first + z, top, left), (first + z + 1, bottom, right)))


def tiff_bytes(
    path: str,
    case: ExportCase,
    channels: int,
    bounds: Sequence[tuple[float, float]] | None,
) -> ExportFile:
    """A TIFF of the first channels in 8 bits, (Z, Y, X) or (Z, Y, X, C).

    `bounds` are the values that become 0 and 255, for each channel; None keeps bytes as they are.
    Channels that the image does not have are 0.
    """

    def read(box: Box) -> Array:
        voxels = case.image.read(box)[:channels]
        if bounds is not None:
            low, high = (np.array(ends).reshape(-1, 1, 1, 1) for ends in zip(*bounds, strict=True))
            low, high = low[:channels], high[:channels]
            share = (np.clip(voxels, low, high) - low) / np.maximum(high - low, 1e-12)
            voxels = np.rint(255 * share).astype(np.uint8)
        return np.pad(voxels, [(0, channels - len(voxels)), (0, 0), (0, 0), (0, 0)])

    def write(to: Path) -> None:
        pages = (page for voxels in map(read, slabs(case.box)) for page in _last(voxels))
        shape = case.shape if channels == 1 else (*case.shape, channels)
        _write_tiff(to, pages, shape, np.dtype(np.uint8), "ZYXC"[: len(shape)])

    made_of = ["tiff bytes", *case.made_of, channels, bounds]
    return ExportFile(path, made_of, write, case.box.size * channels)


def _last(voxels: Array) -> Iterator[Array]:
    """(C, Z, Y, X) section by section, with the channels last where there are several."""
    for z in range(voxels.shape[1]):
        section = voxels[:, z]
        yield section[0] if len(section) == 1 else np.ascontiguousarray(np.moveaxis(section, 0, -1))


def _tiff(
    path: str,
    case: ExportCase,
    dtype: np.dtype[Any] | Callable[[], np.dtype[Any]],
    read: Read,
    made_of: Sequence[Any],
    squeeze: bool,
    channels: int,
) -> ExportFile:
    shape = case.shape[1:] if squeeze and case.shape[0] == 1 else case.shape
    axes = "ZYX"[-len(shape) :]
    if channels > 1:
        shape, axes = (*shape[:-2], channels, *shape[-2:]), axes[:-2] + "CYX"

    def write(to: Path) -> None:
        kind = dtype() if callable(dtype) else dtype
        pages = (page for voxels in map(read, slabs(case.box)) for page in _pages(voxels))
        _write_tiff(to, pages, shape, kind, axes)

    return ExportFile(path, made_of, write, case.box.size * channels)


#: Bytes that a TIFF holds which is no BigTIFF; less some for what zlib cannot make smaller.
_CLASSIC = 2**32 - 2**26


def _write_tiff(
    to: Path, pages: Iterator[Array], shape: tuple[int, ...], dtype: np.dtype[Any], axes: str
) -> None:
    """Pages of an array of `shape`, one after another; `axes` end in C where channels are last."""
    import tifffile

    data: Any = (np.ascontiguousarray(page, dtype) for page in pages)
    if shape[-1] == 1:  # tifffile makes one page of images one voxel wide
        data = np.stack(list(data)).reshape(shape)
    tifffile.imwrite(
        to, data, shape=shape, dtype=dtype, photometric="minisblack", compression="zlib",
        planarconfig="contig" if axes.endswith("C") else None, metadata={"axes": axes},
        # Of an iterator tifffile does not know how long it is, and would end in the middle.
        bigtiff=math.prod(shape) * dtype.itemsize > _CLASSIC,
    )  # fmt: skip


def _pages(voxels: Array) -> Iterator[Array]:
    """(C, Z, Y, X) page by page, the channels of a section one after another."""
    for z in range(voxels.shape[1]):
        for channel in voxels:
            yield channel[z]


def hdf5_image(path: str, case: ExportCase, key: str = "main") -> ExportFile:
    """An HDF5 file with one dataset (Z, Y, X), or (C, Z, Y, X) where there are channels."""
    c = case.image.shape[0]

    def read(box: Box) -> Array:
        voxels = case.image.read(box)
        return voxels[0] if c == 1 else voxels

    return _hdf5(path, case, key, lambda: np.dtype(case.image.dtype), read, c, case.made_of)


def hdf5_labels(path: str, case: ExportCase, form: LabelForm, key: str = "main") -> ExportFile:
    """An HDF5 file with one dataset (Z, Y, X)."""

    def read(box: Box) -> Array:
        return form.read(case, box)

    made_of = [*case.made_of, *form.made_of]
    return _hdf5(path, case, key, lambda: form.dtype(case), read, 1, made_of)


#: HDF5 ends the process on a full disk, so that there must be room for a block before it is
#: written; one at a time, so that the room is still there.
_HDF5 = threading.Lock()
#: What HDF5 writes beside a block: headers and indices.
_BESIDE_BLOCK = 64 * 1024


def _hdf5(
    path: str,
    case: ExportCase,
    key: str,
    dtype: Callable[[], np.dtype[Any]],
    read: Read,
    channels: int,
    made_of: Sequence[Any],
) -> ExportFile:
    shape = case.shape if channels == 1 else (channels, *case.shape)
    chunk = tuple(min(n, 64) for n in case.shape)

    def write(to: Path) -> None:
        import h5py

        with h5py.File(to, "w") as file:
            array = file.create_dataset(
                key, shape, dtype(), chunks=(*shape[:-3], *chunk), compression="gzip",
                compression_opts=4, shuffle=True,
            )  # fmt: skip
            if case.spacing is not None:
                array.attrs["element_size_um"] = case.spacing
            for box in slabs(case.box):
                where = box.shift([-n for n in case.box.start]).slices
                voxels = read(box)
                with _HDF5:
                    require_room(to, voxels.nbytes + _BESIDE_BLOCK)
                    array[(..., *where)] = voxels
                    file.flush()

    return ExportFile(path, ["hdf5", key, case.spacing, *made_of], write, case.box.size * channels)


def npy_image(path: str, case: ExportCase, rule: Normalisation) -> ExportFile:
    """A ``.npy`` of the normalised image: (C, Z, Y, X), float32."""

    def read(box: Box) -> Array:
        return rule.apply(case.image.read(box))

    made_of = [*case.made_of, rule.to_dict()]
    dtype = np.dtype(np.float32)
    return _npy(path, case, lambda: dtype, read, case.image.shape[0], made_of)


def npy_labels(path: str, case: ExportCase, form: LabelForm) -> ExportFile:
    """A ``.npy`` of the labels: (1, Z, Y, X)."""

    def read(box: Box) -> Array:
        return form.read(case, box)[None]

    return _npy(path, case, lambda: form.dtype(case), read, 1, [*case.made_of, *form.made_of])


def _npy(
    path: str,
    case: ExportCase,
    dtype: Callable[[], np.dtype[Any]],
    read: Read,
    channels: int,
    made_of: Sequence[Any],
) -> ExportFile:
    def write(to: Path) -> None:
        array = np.lib.format.open_memmap(to, "w+", dtype(), (channels, *case.shape))
        allocate(to)
        for box in slabs(case.box):
            where = box.shift([-n for n in case.box.start]).slices
            array[(slice(None), *where)] = read(box)
        array.flush()

    return ExportFile(path, ["npy", *made_of], write, case.box.size * channels)
