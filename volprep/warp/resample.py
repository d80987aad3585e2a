"""Read image and labels through one coordinate map, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.compute import run_units
from volprep.geometry import Box, Shape3
from volprep.kernels import warp as kernels
from volprep.warp.map import TOLERANCE, Border, CoordinateMap, check_inside, clipped, mirrored

__all__ = ["resample"]

Array = npt.NDArray[Any]

_BORDERS: dict[Border, int] = {
    "raise": kernels.CLAMP,
    "fill": kernels.FILL,
    "reflect": kernels.REFLECT,
}

# A band's tables and the rows it reads should stay in the second-level cache.
_BAND_VOXELS = 16384

_IMAGE_DTYPES = (np.uint8, np.uint16, np.float32)


def resample(
    coordinates: CoordinateMap,
    out_shape: Sequence[int],
    image: Array | None = None,
    labels: Sequence[Array] = (),
    *,
    origin: Sequence[int] = (0, 0, 0),
    border: Border = "raise",
    fill: float = 0.0,
    label_fill: int = 0,
    out: tuple[npt.NDArray[np.float32] | None, Sequence[Array]] | None = None,
    threads: int = 1,
) -> tuple[npt.NDArray[np.float32] | None, list[Array]]:
    """Read an image and its labels through one map: linear for images, nearest for labels.

    Parameters
    ----------
    coordinates : CoordinateMap
        From output voxels to source voxels.
    out_shape : sequence of three ints
        (Z, Y, X) of the result.
    image : array, shape (C, Z, Y, X), or None
        The block of the source that was read, of any real dtype; a whole
        volume will do, only what is needed is touched.
    labels : sequence of arrays, shape (Z, Y, X) or (C, Z, Y, X) each
        Over the same voxels as the image, of any dtype of 1, 2, 4 or 8 bytes.
    origin : sequence of three ints
        Where the block begins in the source.
    border : {'raise', 'fill', 'reflect'}
        What lies beyond the block: an error, `fill` and `label_fill`, or the
        block mirrored about its outermost voxels. Read the block that
        `CoordinateMap.source_block` names, and this is the source's own border.
    fill, label_fill : float, int
        For the voxels whose nearest source voxel does not exist.
    out : (array of float32 or None, sequence of arrays), optional
        Where to write, C-contiguous, of the shapes and dtypes that are returned.
    threads : int
        1 inside a loader's worker.

    Returns
    -------
    image : array of float32, shape (C, Z, Y, X), or None
    labels : list of arrays
        In their own dtypes and number of axes, every id exact.

    Raises
    ------
    WarpingOOBError
        If `border` is ``raise`` and the map reaches outside the block.
    ValueError
        If the shapes of the arrays do not agree.

    Notes
    -----
    Positions are exact to some 1e-5 voxel; where they are whole numbers (flips,
    swaps, shifts) the values are copied unchanged. A position half way between
    two voxels takes the label of the higher one.
    """
    shape = _three(out_shape)
    block = Box.at(origin, _common_shape(image, labels))
    if border == "raise":
        check_inside(coordinates.source_box(shape), block)
    image, labels, block = _readable(coordinates, shape, image, labels, block, border)
    reader = _Reader(coordinates, shape, block, border)
    image_out, labels_out = _targets(image, labels, shape, out)

    def read(band: _Band) -> None:
        table = reader.table(band)
        if image is not None and image_out is not None:
            reader.read_image(band, table, image, image_out, fill)
        for label, label_out in zip(labels, labels_out, strict=True):
            reader.read_label(band, table, label, label_out, label_fill)

    for _ in run_units(read, reader.bands(threads), workers=threads):
        pass
    return image_out, labels_out


@dataclass(frozen=True)
class _Band:
    """Rows of some sections, all of which are read through one table."""

    sections: npt.NDArray[np.int64]
    rows: range


@dataclass(frozen=True)
class _Table:
    """What `volprep.kernels.warp.table` fills, flat, and how many voxels lie outside."""

    index: npt.NDArray[np.uint32]
    near: npt.NDArray[np.uint32]
    fraction: npt.NDArray[np.float32]
    outside: npt.NDArray[np.bool_]
    count: int


class _Reader:
    """One map over one block: which bands there are, and how each is read."""

    def __init__(
        self, coordinates: CoordinateMap, shape: Shape3, block: Box, border: Border
    ) -> None:
        frame = coordinates.source_box(shape).start
        self.map = coordinates.relative_to(frame)
        self.shape, self.border = shape, border
        self.first = np.subtract(block.start, frame)
        self.last = self.first + block.shape - 1
        _, y, x = block.shape
        self.strides = np.array([y * x, x, 1])
        self.steps = np.where(np.array(block.shape) > 1, self.strides, 0)
        self.flat = coordinates.keeps_sections
        self.axes = slice(1, 3) if self.flat else slice(0, 3)
        self.depth = coordinates.section_depths(shape[0])
        if self.flat:
            self.planes, self.between, self.plane, self.lost = self._find_planes()

    def _find_planes(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64], Array]:
        """For each section the source sections about it, how far between, the nearest, if none."""
        z = self.map.matrix[0, 0] * self.depth + self.map.matrix[0, 3] - self.first[0]
        z = np.where(np.abs(z - np.rint(z)) < TOLERANCE, np.rint(z), z)
        last = float(self.last[0] - self.first[0])
        lost = (z < -0.5) | (z >= last + 0.5) if self.border == "fill" else np.zeros(z.shape, bool)
        if self.border == "reflect" and last > 0:
            z = last - np.abs(np.abs(z) % (2 * last) - last)
        z = np.clip(z, 0, last)
        low = np.floor(z).astype(np.int64)
        planes = np.stack([low, np.minimum(low + 1, int(last))])
        return planes, (z - low).astype(np.float32), np.floor(z + 0.5).astype(np.int64), lost

    def bands(self, threads: int) -> list[_Band]:
        """All the work, in at least `threads` pieces where there is as much."""
        height, width = self.shape[1:]
        step = max(1, _BAND_VOXELS // width)
        rows = [range(height)[start : start + step] for start in range(0, height, step)]
        groups = list(self._groups())
        if len(groups) * len(rows) < threads:
            pieces = -(-threads // len(rows))
            groups = [part for g in groups for part in np.array_split(g, pieces) if part.size]
        return [_Band(group, band) for group in groups for band in rows]

    def _groups(self) -> Iterator[npt.NDArray[np.int64]]:
        """Sections that share their in-plane positions."""
        every = np.arange(self.shape[0])
        grid, moves = self.map.displacement, self.map.section_moves
        if not self.flat or (grid is not None and grid.shape[1] > 1):
            yield from every[:, None]
        elif moves is None:
            yield every
        else:
            own = moves[np.minimum(every, len(moves) - 1)].reshape(len(every), -1)
            _, number = np.unique(own, axis=0, return_inverse=True)
            for n in range(number.max() + 1):
                yield np.flatnonzero(number.ravel() == n)

    def table(self, band: _Band) -> _Table:
        """Where the voxels of a band lie."""
        section = int(band.sections[0])
        move = np.eye(3)
        if self.map.section_moves is not None:
            moves = self.map.section_moves
            move[:2] = moves[min(section, len(moves) - 1)]
        move[:, 2] += move[:, 0] * band.rows.start
        full = self.map.matrix
        plane = np.stack([full[:, 1], full[:, 2], full[:, 0] * self.depth[section] + full[:, 3]], 1)
        axes = self.axes.stop - self.axes.start
        height, width = len(band.rows), self.shape[2]
        made = _Table(
            index=np.empty((height, width), np.uint32),
            near=np.empty((height, width), np.uint32),
            fraction=np.empty((axes, height, width), np.float32),
            outside=np.empty((height, width), np.bool_),
            count=0,
        )
        count = kernels.table(
            np.ascontiguousarray((plane @ move)[self.axes.start :]),
            axes if self.map.is_affine else int(self.map.lock_z and not self.flat),
            self._field(self.depth[section])[self.axes],
            move[:2] / np.array(self.map.grid_spacing)[1:, None],
            np.stack([self.first, self.last])[:, self.axes].astype(np.float64),
            self.strides[self.axes],
            _BORDERS[self.border],
            made.index,
            made.near,
            made.fraction,
            made.outside,
        )
        return replace(
            made,
            index=made.index.reshape(-1),
            near=made.near.reshape(-1),
            fraction=made.fraction.reshape(axes, -1),
            outside=made.outside.reshape(-1),
            count=count,
        )

    def _field(self, depth: float) -> npt.NDArray[np.float32]:
        """The control points of one section."""
        grid = self.map.displacement
        if grid is None:
            return np.empty((3, 0, 1), np.float32)
        last = grid.shape[1] - 1
        z = min(max(depth / self.map.grid_spacing[0], 0.0), float(last))
        low = min(int(z), max(last - 1, 0))
        part = np.float32(z - low)
        return grid[:, low] * (1 - part) + grid[:, min(low + 1, last)] * part

    def read_image(
        self,
        band: _Band,
        table: _Table,
        image: Array,
        out: npt.NDArray[np.float32],
        fill: float,
    ) -> None:
        """Interpolate a band of every channel."""
        start = band.rows.start * self.shape[2]
        stop = start + table.index.size
        for source, target in zip(image, out.reshape(len(image), self.shape[0], -1), strict=True):
            if self.flat:
                kernels.linear_plane(
                    source.reshape(len(source), -1),
                    self.planes[:, band.sections],
                    self.between[band.sections],
                    self.steps[1:],
                    table.index,
                    table.fraction,
                    band.sections,
                    start,
                    target,
                )
            else:
                kernels.linear_volume(
                    source.reshape(-1),
                    self.steps,
                    table.index,
                    table.fraction,
                    target[band.sections[0], start:stop],
                )
            self._fill(band, table, target[:, start:stop], fill)

    def read_label(self, band: _Band, table: _Table, label: Array, out: Array, fill: int) -> None:
        """Copy a band of the nearest voxels, as bits."""
        start = band.rows.start * self.shape[2]
        width = f"u{label.dtype.itemsize}"
        flat = (
            -1,
            label.shape[-3] if self.flat else 1,
            self.strides[0] * (1 if self.flat else label.shape[-3]),
        )
        sources, targets = (
            label.reshape(flat),
            out.reshape(-1, self.shape[0], self.shape[1] * self.shape[2]),
        )
        planes = self.plane[band.sections] if self.flat else np.zeros(1, np.int64)
        for source, target in zip(sources, targets, strict=True):
            kernels.nearest(
                source.view(width), planes, table.near, band.sections, start, target.view(width)
            )
            self._fill(band, table, target[:, start : start + table.near.size], fill)

    def _fill(self, band: _Band, table: _Table, target: Array, fill: float) -> None:
        if table.count:
            for section in band.sections:
                target[section, table.outside] = fill
        if self.flat and self.lost[band.sections].any():
            target[band.sections[self.lost[band.sections]]] = fill


def _common_shape(image: Array | None, labels: Sequence[Array]) -> Shape3:
    if image is not None and image.ndim != 4:
        raise ValueError(f"image: shape {image.shape}, wanted (C, Z, Y, X)")
    for label in labels:
        if label.ndim not in (3, 4):
            raise ValueError(f"label: shape {label.shape}, wanted (Z, Y, X) or (C, Z, Y, X)")
    shapes = {_three(array.shape[-3:]) for array in (image, *labels) if array is not None}
    if len(shapes) != 1:
        raise ValueError(f"image and labels: wanted one shape (Z, Y, X), found {sorted(shapes)}")
    return shapes.pop()


def _readable(
    coordinates: CoordinateMap,
    shape: Shape3,
    image: Array | None,
    labels: Sequence[Array],
    block: Box,
    border: Border,
) -> tuple[Array | None, list[Array], Box]:
    """Arrays that the kernels take; where one must be copied, only what is read is."""
    kept = [array.flags.c_contiguous and array.size < 2**31 for array in labels]
    if image is not None:
        known = image.dtype in _IMAGE_DTYPES and image.dtype.isnative
        kept.append(known and image.flags.c_contiguous and image[0].size < 2**31)
    if all(kept):
        return image, list(labels), block
    wanted = coordinates.source_box(shape).shift([-n for n in block.start])
    part = clipped(wanted, block.shape) if border == "fill" else mirrored(wanted, block.shape)
    labels = [np.ascontiguousarray(label[..., *part.slices]) for label in labels]
    if image is not None:
        dtype = image.dtype.newbyteorder("=") if image.dtype in _IMAGE_DTYPES else np.float32
        image = np.ascontiguousarray(image[..., *part.slices], dtype)
    return image, labels, part.shift(block.start)


def _targets(
    image: Array | None,
    labels: Sequence[Array],
    shape: Shape3,
    out: tuple[npt.NDArray[np.float32] | None, Sequence[Array]] | None,
) -> tuple[npt.NDArray[np.float32] | None, list[Array]]:
    """Where results go: new arrays, or `out` once it is of the right kind."""
    image_out, labels_out = (None, []) if out is None else (out[0], list(out[1]))
    if image is not None:
        wanted = (len(image), *shape)
        image_out = np.empty(wanted, np.float32) if out is None else image_out
        _check_target("image", image_out, wanted, np.dtype(np.float32))
    if out is None:
        labels_out = [np.empty((*label.shape[:-3], *shape), label.dtype) for label in labels]
    if len(labels_out) != len(labels):
        raise ValueError(f"out: {len(labels_out)} labels, wanted {len(labels)}")
    for label, target in zip(labels, labels_out, strict=True):
        _check_target("label", target, (*label.shape[:-3], *shape), label.dtype)
    return (image_out if image is not None else None), labels_out


def _check_target(
    name: str, target: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    if target is None or target.shape != shape or target.dtype != dtype:
        found = "nothing" if target is None else f"{target.shape} {target.dtype}"
        raise ValueError(f"out: {found} for the {name}, wanted {shape} {dtype}")
    if not target.flags.c_contiguous:
        raise ValueError(f"out: the {name} is not C-contiguous; hand in a whole array")


def _three(values: Sequence[int]) -> Shape3:
    z, y, x = (int(v) for v in values)
    return z, y, x
