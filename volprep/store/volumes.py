"""Preprocessed volumes on disk, written box by box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.codecs import blosc_encode
from volprep.files import write_bytes
from volprep.geometry import Box, Spacing3, aligned_blocks

__all__ = ["StoredVolume", "create_case_array"]

# Blosc-lz4 with bits shuffled: 8 % smaller than with bytes on 12-bit images, 40 % on masks.
_LEVEL = 5


def create_case_array(
    path: Path,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    *,
    chunks: Sequence[int],
    spacing: Spacing3 | None = None,
) -> StoredVolume:
    """A new (C, Z, Y, X) Zarr v3 array for a preprocessed volume, to be written box by box.

    Parameters
    ----------
    path : Path
        Of the array; nothing may be there.
    shape : (C, Z, Y, X)
    dtype : dtype
    chunks : (Z, Y, X)
        One chunk holds all channels of such a block.
    spacing : (Z, Y, X) or None
        In µm, kept in the attributes.
    """
    import zarr
    from zarr.codecs import BloscCodec

    size = tuple(min(c, n) for c, n in zip(chunks, shape[1:], strict=True))
    zarr.create_array(
        str(path),
        shape=tuple(shape),
        chunks=(shape[0], *size),
        dtype=np.dtype(dtype),
        compressors=[BloscCodec(cname="lz4", clevel=_LEVEL, shuffle="bitshuffle")],
        attributes={"spacing": list(spacing) if spacing else None},
        dimension_names=("c", "z", "y", "x"),
        zarr_format=3,
    )
    return StoredVolume(path)


class StoredVolume:
    """A (C, Z, Y, X) Zarr array that volprep wrote, readable and writable by boxes."""

    def __init__(self, path: Path) -> None:
        import zarr

        self.path = path
        self._array: Any = zarr.open_array(str(path), mode="r+")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X)."""
        c, z, y, x = self._array.shape
        return c, z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels."""
        dtype: np.dtype[Any] = np.dtype(self._array.dtype)
        return dtype

    @property
    def spacing(self) -> Spacing3 | None:
        """(Z, Y, X) in µm."""
        value: Any = self._array.attrs.get("spacing")
        return None if value is None else (float(value[0]), float(value[1]), float(value[2]))

    @property
    def chunks(self) -> tuple[int, int, int]:
        """(Z, Y, X): blocks that different workers may write at once."""
        _, z, y, x = self._array.chunks
        return z, y, x

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        """The voxels of `box`, as (C, Z, Y, X)."""
        where = (slice(None), *(box or Box.whole(self.shape)).slices)
        return np.asarray(self._array[where])

    def write(self, box: Box, array: npt.NDArray[Any]) -> None:
        """Set the voxels of `box` from (C, Z, Y, X).

        A box that ends where chunks end (or the volume) is encoded here, in the calling
        thread and several times faster than zarr-python does; any other goes through it.
        """
        edges = zip(box.start, box.stop, self.chunks, self.shape[1:], strict=True)
        if not all(a % c == 0 and (b % c == 0 or b == n) for a, b, c, n in edges):
            self._array[(slice(None), *box.slices)] = array
            return
        for block in aligned_blocks(box.shape, self.chunks):
            index = [
                (a + b) // c for a, b, c in zip(box.start, block.start, self.chunks, strict=True)
            ]
            self._write_chunk(index, array[(slice(None), *block.slices)])

    def _write_chunk(self, index: Sequence[int], part: npt.NDArray[Any]) -> None:
        chunk = np.zeros((self.shape[0], *self.chunks), self.dtype.newbyteorder("<"))
        chunk[tuple(slice(n) for n in part.shape)] = part
        data = blosc_encode(chunk, cname="lz4", level=_LEVEL, shuffle="bitshuffle")
        write_bytes(self.path.joinpath("c", "0", *map(str, index)), data)
