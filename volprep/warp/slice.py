"""Read a warped patch straight from a large source: only the block that is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.warp.map import CoordinateMap
from volprep.warp.resample import resample
from volprep.warp.transform import centred_start, map_of_transform

__all__ = ["ArrayLike3D", "Source", "warp_slice"]

Array = npt.NDArray[Any]


class ArrayLike3D(Protocol):
    """What is sliced like an array: numpy arrays, HDF5 and Zarr datasets."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(Z, Y, X) or (C, Z, Y, X)."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


Source: TypeAlias = VolumeLike | ArrayLike3D


def warp_slice(
    inp_src: Source,
    patch_shape: Sequence[int],
    M: npt.ArrayLike,
    target_src: Source | None = None,
    target_patch_shape: Sequence[int] | None = None,
    target_discrete_ix: Sequence[int] | None = None,
    input_discrete_ix: Sequence[int] | None = None,
    debug: bool = False,
    *,
    target_src_start: Sequence[int] | None = None,
    target_patch_start: Sequence[int] | None = None,
    threads: int = 1,
) -> tuple[Array, Array | None]:
    """Cut a warped patch out of an image, and out of a target beside it.

    Parameters
    ----------
    inp_src : array, Volume, HDF5 or Zarr dataset
        (Z, Y, X) or (C, Z, Y, X).
    patch_shape : sequence of three ints
        (Z, Y, X).
    M : array, shape (4, 4)
        Takes source voxels to patch voxels; `get_warped_coord_transform` draws one.
    target_src : as `inp_src`, optional
        Labels or other targets.
    target_patch_shape : sequence of three ints, optional
        `patch_shape` where it is not given.
    target_discrete_ix, input_discrete_ix : sequence of int, optional
        Channels that hold ids or classes, read as nearest neighbours; the
        others are interpolated. By default every channel of a target, and none
        of an image.
    debug : bool
        Check the result: no nan that was not read, no id that was not there.
    target_src_start, target_patch_start : sequence of three ints, optional
        Where the target begins in the source, and its patch in the patch. By
        default their centres agree.
    threads : int
        1 inside a loader's worker.

    Returns
    -------
    inp : array, shape (C, Z, Y, X)
        float32; in the dtype of the source where every channel is discrete.
    target : array, shape (C, Z, Y, X), or None
        Likewise: by default in the dtype of the source, to the last bit.

    Raises
    ------
    WarpingOOBError
        If the patch reaches outside a source; raised before anything is read.
    ValueError
        If a source has other than 3 or 4 axes, target and image have no common
        centre, or a source mixes interpolated channels with ids that float32
        cannot hold.

    Notes
    -----
    After elektronn3's function of this name, and equal to it for one `M`, but
    for this: ids keep their dtype (there they pass through float32, and
    16777217 becomes 16777216); a perspective drawn with `lock_z` leaves z
    alone (there the divide moves it by up to 15 voxels inside one section);
    a patch may touch the last two voxels of an axis (there out of bounds);
    the target has its channel axis also where the source has three axes, as
    there.
    """
    coordinates = map_of_transform(M)
    patch = _sizes("patch_shape", patch_shape)
    image = _Opened("inp_src", inp_src)
    box = coordinates.source_block(patch, image.shape)
    if target_src is None:
        return image.warp(coordinates, patch, box, input_discrete_ix or (), debug, threads), None
    target = _Opened("target_src", target_src)
    inner = (
        patch if target_patch_shape is None else _sizes("target_patch_shape", target_patch_shape)
    )
    outer_start = target_src_start or centred_start("target_src", image.shape, target.shape)
    inner_start = target_patch_start or centred_start("target_patch_shape", patch, inner)
    there = CoordinateMap.linear(np.eye(3), source_centre=inner_start).then(coordinates)
    there = there.relative_to(outer_start)
    target_box = there.source_block(inner, target.shape)
    discrete = range(target.channels) if target_discrete_ix is None else target_discrete_ix
    return (
        image.warp(coordinates, patch, box, input_discrete_ix or (), debug, threads),
        target.warp(there, inner, target_box, discrete, debug, threads),
    )


class _Opened:
    """A source of any kind: its shape, and its blocks as (C, Z, Y, X)."""

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source
        if len(source.shape) not in (3, 4):
            raise ValueError(
                f"{name}: shape {tuple(source.shape)}, wanted (Z, Y, X) or (C, Z, Y, X)"
            )
        self.channels = int(source.shape[0]) if len(source.shape) == 4 else 1
        self.shape: Shape3 = three(source.shape[-3:])

    def read(self, box: Box) -> Array:
        if isinstance(self.source, VolumeLike):
            return self.source.read(box)
        every = (slice(None),) * (len(self.source.shape) - 3)
        block = np.asarray(self.source[(*every, *box.slices)])
        return block if block.ndim == 4 else block[None]

    def warp(
        self,
        coordinates: CoordinateMap,
        patch: Shape3,
        box: Box,
        discrete: Sequence[int],
        debug: bool,
        threads: int,
    ) -> Array:
        nearest = sorted({self._channel(index) for index in discrete})
        linear = [index for index in range(self.channels) if index not in nearest]
        block = self.read(box)
        image, labels = resample(
            coordinates,
            patch,
            block[linear] if nearest and linear else (block if linear else None),
            [block[nearest] if linear else block] if nearest else [],
            origin=box.start,
            threads=threads,
        )
        if debug:
            self._check(block, linear, nearest, image, labels)
        if image is None:
            return labels[0]
        if not nearest:
            return image
        result = np.empty((self.channels, *patch), np.float32)
        result[linear], result[nearest] = image, labels[0]
        if not np.array_equal(result[nearest].astype(labels[0].dtype), labels[0]):
            raise ValueError(
                f"{self.name}: discrete channels {nearest} hold ids that float32 cannot; "
                "read them from a source of their own"
            )
        return result

    def _channel(self, index: int) -> int:
        if not -self.channels <= index < self.channels:
            raise ValueError(f"{self.name}: no channel {index}, there are {self.channels}")
        return index % self.channels

    def _check(
        self,
        block: Array,
        linear: list[int],
        nearest: list[int],
        image: Array | None,
        labels: list[Array],
    ) -> None:
        if image is not None and np.isnan(image).any() and not np.isnan(block[linear]).any():
            raise RuntimeError(f"{self.name}: the warp made nan where there was none")
        if labels and not np.isin(labels[0], block[nearest]).all():
            raise RuntimeError(f"{self.name}: the warp made ids that were not there")


def _sizes(name: str, values: Sequence[int]) -> Shape3:
    if len(values) != 3 or min(values) < 1:
        raise ValueError(f"{name}: {tuple(values)}, wanted three positive sizes (Z, Y, X)")
    return three(values)
