"""Preprocessed volumes on disk, written box by box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Spacing3

__all__ = ["StoredVolume", "create_case_array"]


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
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")],
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
        """Set the voxels of `box` from (C, Z, Y, X)."""
        self._array[(slice(None), *box.slices)] = array
