"""One coordinate map over one block, cut into bands of rows: what `resample` works through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3
from volprep.kernels import warp as kernels
from volprep.warp.map import TOLERANCE, Border, CoordinateMap, Floats

__all__ = ["Band", "BandReader", "Layer", "Table"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_BORDERS: dict[Border, int] = {
    "raise": kernels.CLAMP,
    "fill": kernels.FILL,
    "reflect": kernels.REFLECT,
}

# A band's table and the rows it reads should stay in the second-level cache.
_BAND_VOXELS = 16384


@dataclass(frozen=True)
class Layer:
    """One channel to read: `source` (Z, Y, X) in the block, `target` (Z, Y, X) of the output."""

    source: Array
    target: Array
    linear: bool
    fill: Any


@dataclass(frozen=True)
class Band:
    """Rows of some sections, all of which are read through one table."""

    sections: Ints
    rows: range


@dataclass(frozen=True)
class Table:
    """What `volprep.kernels.warp.table` fills; `count` voxels are outside."""

    index: npt.NDArray[np.uint32]
    near: npt.NDArray[np.uint32]
    fraction: npt.NDArray[np.float32]
    outside: npt.NDArray[np.bool_]
    count: int = 0


@dataclass(frozen=True)
class _Planes:
    """The source sections that each output section lies between, where sections are kept."""

    about: Ints
    part: npt.NDArray[np.float32]
    nearest: Ints
    lost: npt.NDArray[np.bool_]


class BandReader:
    """Which bands there are, and how each is read.

    Where the map keeps sections, a table has the axes (Y, X) and serves all
    sections that move alike; elsewhere it has (Z, Y, X) and serves one.
    """

    def __init__(
        self, coordinates: CoordinateMap, shape: Shape3, block: Box, border: Border
    ) -> None:
        # A frame in which no position inside the block is negative.
        frame = np.minimum(coordinates.source_box(shape).start, np.subtract(block.stop, 1))
        self.map = coordinates.relative_to(frame.tolist())
        self.shape, self.border = shape, border
        self.flat = coordinates.keeps_sections
        self.depth = coordinates.section_depths(shape[0])
        self.moves = self._find_moves()
        axes = slice(1 if self.flat else 0, 3)
        first = np.subtract(block.start, frame)
        bounds = np.stack([first, first + block.shape - 1])
        strides = np.array([block.shape[1] * block.shape[2], block.shape[2], 1])
        self.planes = self._find_planes(bounds[:, 0])
        self.matrices = self._find_matrices()[:, axes.start :]
        self.fields = self._find_fields()[:, axes]
        self.bounds = np.ascontiguousarray(bounds[:, axes])
        self.strides = strides[axes]
        self.steps = np.where(np.array(block.shape) > 1, strides, 0)[axes]
        self.first_divided = int(coordinates.lock_z and not self.flat)
        if coordinates.is_affine:
            self.first_divided = len(self.strides)

    def _find_moves(self) -> Floats:
        """The in-plane motion of each section, (D, 3, 3)."""
        moves = np.tile(np.eye(3), (self.shape[0], 1, 1))
        own = self.map.section_moves
        if own is not None:
            moves[:, :2] = own[np.minimum(np.arange(len(moves)), len(own) - 1)]
        return moves

    def _find_matrices(self) -> Floats:
        """What takes (row, column, 1) of each section to (z, y, x, divisor), (D, 4, 3)."""
        planes = np.repeat(self.map.matrix[None, :, 1:], self.shape[0], 0)
        planes[:, :, 2] += self.map.matrix[:, 0] * self.depth[:, None]
        return planes @ self.moves

    def _find_fields(self) -> npt.NDArray[np.float32]:
        """The control points that hold for each section, (D, 3, gy, gx)."""
        grid = self.map.displacement
        if grid is None:
            return np.empty((self.shape[0], 3, 0, 1), np.float32)
        last = grid.shape[1] - 1
        z = np.clip(self.depth / self.map.grid_spacing[0], 0, last)
        low = np.minimum(z.astype(int), max(last - 1, 0))
        part = (z - low).astype(np.float32)[:, None, None, None]
        layers = grid.swapaxes(0, 1)
        fields: npt.NDArray[np.float32] = layers[low]
        if last:
            fields = fields * (1 - part) + layers[low + 1] * part
        return fields

    def _find_planes(self, bounds: Ints) -> _Planes:
        z = self.map.matrix[0, 0] * self.depth + self.map.matrix[0, 3] - bounds[0]
        whole = np.rint(z)
        z = np.where(np.abs(z - whole) < TOLERANCE, whole, z)
        last = int(bounds[1] - bounds[0])
        lost = ((z < -0.5) | (z >= last + 0.5)) & (self.border == "fill")
        if self.border == "reflect" and last > 0:
            z = last - np.abs(np.abs(z) % (2 * last) - last)
        z = np.clip(z, 0, last)
        low = z.astype(np.int64)
        about = np.stack([low, np.minimum(low + 1, last)])
        return _Planes(about, (z - low).astype(np.float32), (z + 0.5).astype(np.int64), lost)

    def shares(self, threads: int) -> list[list[Band]]:
        """All the bands, in at most one share a thread."""
        height, step = self.shape[1], self._rows_per_band()
        rows = [range(height)[start : start + step] for start in range(0, height, step)]
        groups = list(self._groups())
        pieces = max(1, threads // (len(groups) * len(rows)))
        if pieces > 1:
            groups = [part for g in groups for part in np.array_split(g, pieces) if part.size]
        bands = [Band(group, band) for group in groups for band in rows]
        ends = np.linspace(0, len(bands), max(1, threads) + 1).astype(int)
        return [bands[a:b] for a, b in pairwise(ends) if b > a]

    def _rows_per_band(self) -> int:
        return min(self.shape[1], max(1, _BAND_VOXELS // self.shape[2]))

    def _groups(self) -> Iterator[Ints]:
        """Sections that share their in-plane positions."""
        every = np.arange(self.shape[0])
        grid = self.map.displacement
        if not self.flat or (grid is not None and grid.shape[1] > 1):
            yield from every[:, None]
        elif self.map.section_moves is None:
            yield every
        else:
            moves = self.moves.reshape(len(every), -1)
            number = np.unique(moves, axis=0, return_inverse=True)[1].ravel()
            for n in range(number.max() + 1):
                yield np.flatnonzero(number == n)

    def new_table(self) -> Table:
        """Room for the table of any band."""
        voxels = self._rows_per_band() * self.shape[2]
        return Table(
            np.empty(voxels, np.uint32),
            np.empty(voxels, np.uint32),
            np.empty(voxels * len(self.strides), np.float32),
            np.empty(voxels, np.bool_),
        )

    def fill(self, room: Table, band: Band) -> Table:
        """The table of a band, written into `room`."""
        section = int(band.sections[0])
        matrix, lookup = self.matrices[section].copy(), self.moves[section, :2].copy()
        for affine in (matrix, lookup):
            affine[:, 2] += affine[:, 0] * band.rows.start
        lookup /= np.array(self.map.grid_spacing)[1:, None]
        voxels, axes = len(band.rows) * self.shape[2], len(self.strides)
        index, near, outside = room.index[:voxels], room.near[:voxels], room.outside[:voxels]
        fraction = room.fraction[: axes * voxels].reshape(axes, voxels)
        count = kernels.table(
            matrix,
            self.first_divided,
            self.fields[section],
            lookup,
            self.bounds,
            self.strides,
            _BORDERS[self.border],
            len(band.rows),
            index,
            near,
            fraction,
            outside,
        )
        return Table(index, near, fraction, outside, count)

    def read(self, band: Band, table: Table, layer: Layer) -> None:
        """Read a band of one channel."""
        start = band.rows.start * self.shape[2]
        target = layer.target.reshape(self.shape[0], -1)
        source = layer.source.reshape(layer.source.shape[0] if self.flat else 1, -1)
        if not layer.linear:
            planes = self.planes.nearest[band.sections] if self.flat else np.zeros(1, np.int64)
            kernels.nearest(source, planes, table.near, band.sections, start, target)
        elif self.flat:
            kernels.linear_plane(
                source,
                np.ascontiguousarray(self.planes.about[:, band.sections]),
                self.planes.part[band.sections],
                self.steps,
                table.index,
                table.fraction,
                band.sections,
                start,
                target,
            )
        else:
            line = target[band.sections[0], start : start + table.index.size]
            kernels.linear_volume(source[0], self.steps, table.index, table.fraction, line)
        self._fill_outside(band, table, target[:, start : start + table.index.size], layer.fill)

    def _fill_outside(self, band: Band, table: Table, target: Array, fill: Any) -> None:
        if table.count:
            for section in band.sections:
                np.copyto(target[section], fill, where=table.outside)
        if self.flat:
            target[band.sections[self.planes.lost[band.sections]]] = fill
