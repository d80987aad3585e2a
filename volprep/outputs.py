"""Volumes that volprep makes, written block by block and resumable: OME-Zarr or OME-TIFF."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.errors import StoreError
from volprep.geometry import Box, Shape3, Spacing3

__all__ = ["BLOCK", "BlockOutput", "Format"]

Format = Literal["zarr", "tiff"]
Array = npt.NDArray[Any]
#: (Z, Y, X) voxels written at once, and a chunk of the Zarr array.
BLOCK: Shape3 = (64, 128, 128)


class BlockOutput:
    """A (C, Z, Y, X) volume that appears under its name when all its blocks are there.

    Parameters
    ----------
    path : Path
        Of the finished volume, such as ``a.offset.ome.zarr`` or ``a.offset.ome.tif``.
    shape : (C, Z, Y, X)
    dtype : dtype
    spacing : (Z, Y, X) in µm, or None
    key : str
        The hash of everything that the blocks are made from. What an interrupted
        run left is taken over if its key is the same, and made anew otherwise.

    Notes
    -----
    Beside the unfinished volume stands a journal that names each block once it has
    been written; `has` reads it.
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        *,
        spacing: Spacing3 | None,
        key: str,
    ) -> None:
        self.path, self.spacing, self.key = path, spacing, key
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        self._partial = path.with_name(f"{path.name}.partial")
        self._journal = path.with_name(f"{path.name}.journal")
        self._made: set[tuple[int, ...]] = set()
        self._tiff = path.name.endswith((".tif", ".tiff"))
        self._write: Callable[[Box, Array], None] | None = None
        self._lock = threading.Lock()

    def has(self, box: Box) -> bool:
        """Whether a block has been written."""
        self._opened()
        return box.start in self._made

    def write(self, box: Box, array: Array) -> None:
        """Write the block (C, Z, Y, X) of `box`, which starts at a multiple of `BLOCK`."""
        try:
            self._opened()(box, array.astype(self.dtype, copy=False))
            with self._journal.open("a", encoding="ascii") as journal:
                journal.write(" ".join(map(str, box.start)) + "\n")
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be written ({error.strerror or error}); free some space "
                "or choose another folder, then run again to go on"
            ) from error
        self._made.add(box.start)

    def finish(self) -> None:
        """Give the volume its name."""
        self._opened()
        self._write = None
        if self.path.is_dir():
            shutil.rmtree(self.path)
        self._partial.replace(self.path)
        self._journal.unlink()

    def _opened(self) -> Callable[[Box, Array], None]:
        with self._lock:
            if self._write is None:
                fresh = not self._taken_over()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._write = self._open_tiff(fresh) if self._tiff else self._open_zarr(fresh)
                if fresh:
                    self._journal.write_text(self.key + "\n", encoding="ascii")
            return self._write

    def _taken_over(self) -> bool:
        if not (self._journal.exists() and self._partial.exists()):
            self._clear()
            return False
        key, *lines = self._journal.read_text(encoding="ascii").split("\n")
        if key != self.key:
            self._clear()
            return False
        whole = lines[:-1]  # the last line ends in a newline, or was cut off by the interruption
        self._made = {tuple(map(int, line.split())) for line in whole}
        return True

    def _clear(self) -> None:
        self._journal.unlink(missing_ok=True)
        if self._partial.is_dir():
            shutil.rmtree(self._partial)
        self._partial.unlink(missing_ok=True)

    def _open_tiff(self, fresh: bool) -> Callable[[Box, Array], None]:
        import tifffile

        if fresh:
            units = {f"PhysicalSize{a}Unit": "µm" for a in "ZYX"} if self.spacing else {}
            sizes = dict(zip(("Z", "Y", "X"), self.spacing or (), strict=False))
            view = tifffile.memmap(
                self._partial, shape=self.shape, dtype=self.dtype, bigtiff=True, ome=True,
                metadata={"axes": "CZYX", **{f"PhysicalSize{a}": s for a, s in sizes.items()},
                          **units},
            )  # fmt: skip
        else:
            view = tifffile.memmap(self._partial, mode="r+")
        pages: Array = view.reshape(self.shape)

        def write(box: Box, array: Array) -> None:
            pages[(slice(None), *box.slices)] = array
            view.flush()

        return write

    def _open_zarr(self, fresh: bool) -> Callable[[Box, Array], None]:
        import zarr
        from zarr.codecs import BloscCodec

        if fresh:
            channels, *shape = self.shape
            group = zarr.open_group(str(self._partial), mode="w", zarr_format=3)
            group.attrs["ome"] = self._multiscales()
            group.create_array(
                "0",
                shape=self.shape,
                chunks=(channels, *(min(b, n) for b, n in zip(BLOCK, shape, strict=True))),
                dtype=self.dtype,
                compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")],
                dimension_names=("c", "z", "y", "x"),
            )
        array: Any = zarr.open_array(str(self._partial / "0"), mode="r+")

        def write(box: Box, block: Array) -> None:
            array[(slice(None), *box.slices)] = block

        return write

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
