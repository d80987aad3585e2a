"""Volumes that volprep makes, written block by block and resumable: OME-Zarr or OME-TIFF."""

from __future__ import annotations

import errno
import math
import shutil
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.codecs import blosc_encode
from volprep.compute import Engine
from volprep.errors import StoreError
from volprep.files import File, NewFile, allocate, describe, files_below, remove, sweep, temporary
from volprep.geometry import Box, Shape3, Spacing3, aligned_blocks
from volprep.ledger import Ledger, Made, Unit, run

__all__ = ["BLOCK", "BlockOutput", "Format"]

Format = Literal["zarr", "tiff"]
Array = npt.NDArray[Any]
#: (Z, Y, X) voxels written at once, and a chunk of the Zarr array.
BLOCK: Shape3 = (64, 128, 128)
_LEVEL = 5


class BlockOutput:
    """A (C, Z, Y, X) volume that appears under its name when all its blocks are there.

    Parameters
    ----------
    ledger : Ledger
        Of the folder that the volume lies in. It has a record of every block that is
        done, in ``NAME.partial``, and then one of the volume.
    name : str
        Of the finished volume, such as ``a.offset.ome.zarr`` or ``a.offset.ome.tif``.
    shape : (C, Z, Y, X)
    dtype : dtype
    spacing : (Z, Y, X) in µm, or None
    key : str
        The hash of everything that the blocks are made from (`volprep.ledger.key_of`).
    """

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        *,
        spacing: Spacing3 | None,
        key: str,
    ) -> None:
        c, z, y, x = (int(n) for n in shape)
        self.ledger, self.path = ledger, ledger.folder / name
        self.unit = Unit("volumes", name, key)
        self.stage = f"blocks/{name}"
        self.boxes = list(aligned_blocks((z, y, x), BLOCK))
        partial = self.path.with_name(f"{name}.partial")
        form = _Tiff if name.endswith((".tif", ".tiff")) else _Zarr
        self._form: _Zarr | _Tiff = form(partial, (c, z, y, x), np.dtype(dtype), spacing)

    def fill(
        self,
        make: Callable[[Box], Array],
        *,
        workers: int | None = 1,
        engine: Engine | None = None,
        progress: Callable[[int], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the blocks that are not there, and give the volume its name.

        Parameters
        ----------
        make : callable
            Gives the voxels (C, Z, Y, X) of a `Box`.
        workers : int or None
            Threads; None takes every processor.
        engine : Engine or None
            What makes them, instead of threads.
        progress : callable or None
            Called with the number of voxels done since the last call.
        check : callable
            Called when a block is made, before it counts as done: raises where what it was
            made from has changed.

        Raises
        ------
        StoreError
            If the volume cannot be written. What is done stays.
        """
        report = progress or (lambda _count: None)
        if self.ledger.has(self.unit):
            blocks = self.ledger.records.units(self.stage)
            self.ledger.forget(u for u in blocks if u.key == self.unit.key)
            report(sum(box.size for box in self.boxes))
            return
        units = [Unit(self.stage, i, self.unit.key) for i in range(len(self.boxes))]
        self._resume(units)

        run(
            self.ledger,
            _Writer(self._form, self.boxes, make, check),
            units,
            workers=workers,
            engine=engine,
            progress=lambda unit: report(self.boxes[int(unit.index)].size),
        )
        self._finish(units)

    def _resume(self, units: Sequence[Unit]) -> None:
        """Keep the blocks that are as they were recorded, and forget all others."""
        recorded = [unit for unit in units if self.ledger.records.has(unit)]
        partial = self._form.path
        if partial.is_dir():
            sweep(partial)
        if len(recorded) == len(units) and not partial.exists() and self.path.exists():
            self.path.replace(partial)  # killed between the name and the record of the volume
        try:
            facts = [self.ledger.records.find(unit.stage, unit.index) for unit in recorded]
            good = [
                unit
                for unit, record in zip(recorded, facts, strict=True)
                if record is not None
                and self._form.holds(self.boxes[int(unit.index)], record.files, record.facts)
            ]
            if not good:
                remove(partial)
                self._form.create()
            self._form.open()
        except OSError as error:
            raise _not_written(self.path, error, self._form.bytes) from error
        kept = {unit.index for unit in good}
        stale = self.ledger.records.units(self.stage)
        self.ledger.forget(u for u in stale if u.index not in kept or u.key != self.unit.key)

    def _finish(self, units: Sequence[Unit]) -> None:
        try:
            self._form.close()
            if self._form.path.is_dir():
                sweep(self._form.path)  # of what workers left that ended in this run
            self.ledger.forget([self.unit])  # an older volume of this name, which goes now
            old = temporary(self.path)
            if self.path.exists():
                self.path.replace(old)
            self._form.path.replace(self.path)
            remove(old)
        except OSError as error:
            raise _not_written(self.path, error, self._form.bytes) from error
        folder = self.ledger.folder
        below = files_below(self.path) if self.path.is_dir() else [self.path]
        self.ledger.done(self.unit, [describe(path, folder) for path in below])
        self.ledger.forget(units)


@dataclass(frozen=True)
class _Writer:
    """Makes a block and writes it, here or in another process."""

    form: _Zarr | _Tiff
    boxes: Sequence[Box]
    make: Callable[[Box], Array]
    check: Callable[[], None]

    def __call__(self, unit: Unit) -> Made:
        box = self.boxes[int(unit.index)]
        made = self.form.write(box, self.make(box))
        self.check()
        return made


class _Zarr:
    """The folder of an OME-Zarr: a file for each block, and what describes them, written last."""

    def __init__(
        self, path: Path, shape: Sequence[int], dtype: np.dtype[Any], spacing: Spacing3 | None
    ) -> None:
        self.path, self.shape, self.dtype, self.spacing = path, tuple(shape), dtype, spacing
        self.chunk = (shape[0], *(min(b, n) for b, n in zip(BLOCK, shape[1:], strict=True)))
        self.bytes = math.prod(shape) * dtype.itemsize

    def create(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)

    def open(self) -> None:
        """Nothing has to be open: each block is a file."""

    def write(self, box: Box, array: Array) -> Made:
        """Write one block as the chunk that it is."""
        chunk = np.zeros(self.chunk, self.dtype.newbyteorder("<"))
        chunk[tuple(slice(n) for n in array.shape)] = array
        with NewFile(self._chunk_of(box)) as new:
            new.write(blosc_encode(chunk, cname="lz4", level=_LEVEL, shuffle="shuffle"))
        return [new.described(self.path.parent)], {}

    def holds(self, box: Box, files: Sequence[File], _: Mapping[str, Any]) -> bool:
        """Whether a block is there as it was written."""
        path = self._chunk_of(box)
        return path.exists() and list(files) == [describe(path, self.path.parent)]

    def close(self) -> None:
        """Write what describes the array, so that the folder is one."""
        for name, content in self._metadata().items():
            with NewFile(self.path / name) as new:
                new.write(content)

    def _chunk_of(self, box: Box) -> Path:
        place = (a // b for a, b in zip(box.start, BLOCK, strict=True))
        return self.path.joinpath("0", "c", "0", *map(str, place))

    def _metadata(self) -> dict[str, bytes]:
        """The files of the group and its array, made in memory: zarr has its own partial names."""
        import zarr
        from zarr.codecs import BloscCodec

        contents: dict[str, Any] = {}
        group = zarr.open_group(zarr.storage.MemoryStore(contents), mode="w", zarr_format=3)
        group.attrs["ome"] = self._multiscales()
        group.create_array(
            "0",
            shape=self.shape,
            chunks=self.chunk,
            dtype=self.dtype,
            compressors=[BloscCodec(cname="lz4", clevel=_LEVEL, shuffle="shuffle")],
            dimension_names=("c", "z", "y", "x"),
        )
        return {name: content.to_bytes() for name, content in contents.items()}

    def _multiscales(self) -> dict[str, Any]:
        unit = {"unit": "micrometer"} if self.spacing else {}
        scale = [1.0, *(self.spacing or (1.0, 1.0, 1.0))]
        return {
            "version": "0.5",
            "multiscales": [
                {
                    "name": self.path.name.split(".")[0],
                    "axes": [
                        {"name": "c", "type": "channel"},
                        *({"name": a, "type": "space", **unit} for a in "zyx"),
                    ],
                    "datasets": [
                        {
                            "path": "0",
                            "coordinateTransformations": [{"type": "scale", "scale": scale}],
                        }
                    ],
                }
            ],
        }


class _Tiff:
    """One OME-TIFF, allocated as a whole and filled in place.

    A block has no file of its own, so its record holds a checksum of its voxels.
    """

    def __init__(
        self, path: Path, shape: Sequence[int], dtype: np.dtype[Any], spacing: Spacing3 | None
    ) -> None:
        self.path, self.shape, self.dtype, self.spacing = path, tuple(shape), dtype, spacing
        self.bytes = math.prod(shape) * dtype.itemsize
        self._pages: Any = None  # a map of the file, while it is open

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pages": None}  # another process maps the file itself

    def create(self) -> None:
        """Write the headers, and take the space of the voxels from the disk."""
        import tifffile

        units = {f"PhysicalSize{a}Unit": "µm" for a in "ZYX"} if self.spacing else {}
        sizes = dict(zip(("Z", "Y", "X"), self.spacing or (), strict=False))
        metadata = {
            "axes": "CZYX",
            # tifffile would draw one, and the same volume would be other bytes each time.
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"volprep:{self.path.name}")),
            **{f"PhysicalSize{a}": s for a, s in sizes.items()},
            **units,
        }
        part = temporary(self.path)
        try:
            with tifffile.TiffWriter(part, bigtiff=True, ome=True) as writer:
                writer.write(shape=self.shape, dtype=self.dtype, metadata=metadata,
                             photometric="minisblack", contiguous=True)  # fmt: skip
            allocate(part)
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)

    def open(self) -> None:
        """Map the pages into memory."""
        import tifffile

        if self._pages is None:
            self._pages = tifffile.memmap(self.path, mode="r+").reshape(self.shape)

    def write(self, box: Box, array: Array) -> Made:
        """Write one block into its pages."""
        self.open()
        block = np.ascontiguousarray(array, self.dtype)
        self._pages[(slice(None), *box.slices)] = block
        return [], {"crc32": zlib.crc32(block.data)}

    def holds(self, box: Box, _: Sequence[File], facts: Mapping[str, Any]) -> bool:
        """Whether a block is there as it was written."""
        if not self.path.exists():
            return False
        self.open()
        block = np.ascontiguousarray(self._pages[(slice(None), *box.slices)])
        return zlib.crc32(block.data) == facts.get("crc32")

    def close(self) -> None:
        """Bring the voxels to the disk."""
        self._pages.flush()
        self._pages = None


def _not_written(path: Path, error: OSError, wanted: int) -> StoreError:
    found = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        found += f": {wanted} bytes are needed, {free} are free"
    return StoreError(
        f"{path}: cannot be written ({found}); what is done is kept: free some space or choose "
        "another folder, then run the same command again"
    )
