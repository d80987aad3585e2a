"""One coordinate map over one block, cut into tiles: what `resample` works through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3
from volprep.kernels import warp as kernels
from volprep.warp.map import CoordinateMap
from volprep.warp.positions import TOLERANCE, Border, Floats

__all__ = ["Layer", "Table", "Tile", "TileReader"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_BORDERS: dict[Border, int] = {
    "raise": kernels.CLAMP,
    "fill": kernels.FILL,
    "reflect": kernels.REFLECT,
}

# A tile's table and what it reads should stay in the second-level cache.
_TILE_VOXELS = 16384

# Tiles of a volume are compact, so that what they read is.
_TILE_SECTIONS = 16


@dataclass(frozen=True)
class Layer:
    """One channel to read: `source` (Z, Y, X) in the block, `target` (Z, Y, X) of the output."""

    source: Array
    target: Array
    linear: bool
    fill: Any


@dataclass(frozen=True)
class Tile:
    """A part of the output that is read through one table."""

    sections: Ints
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Table:
    """What `volprep.kernels.warp.table` fills; `count` voxels are outside."""

    index: npt.NDArray[np.uint32]
    near: npt.NDArray[np.uint32]
    fraction: npt.NDArray[np.float32]
    outside: npt.NDArray[np.bool_]
    reach: Ints
    count: int = 0


@dataclass(frozen=True)
class _Planes:
    """The source sections that each output section lies between, where sections are kept."""

    about: Ints
    part: npt.NDArray[np.float32]
    nearest: Ints
    lost: npt.NDArray[np.bool_]


class TileReader:
    """Which tiles there are, and how each is read.

    Where the map keeps sections, a table has the axes (Y, X) and serves all
    sections that move alike; elsewhere it has (Z, Y, X) and each voxel its own.
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
        self.matrices = np.ascontiguousarray(self._find_matrices()[:, axes.start :])
        self.fields = np.ascontiguousarray(self._find_fields()[:, axes])
        self.lookups = self.moves[:, :2] / np.array(self.map.grid_spacing)[1:, None]
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

    def shares(self, threads: int) -> list[list[Tile]]:
        """All the tiles, in at most one share a thread."""
        height, width = self._tile_shape[1:]
        rows = [slice(a, min(a + height, self.shape[1])) for a in range(0, self.shape[1], height)]
        columns = [slice(a, min(a + width, self.shape[2])) for a in range(0, self.shape[2], width)]
        groups = list(self._groups())
        pieces = max(1, threads // (len(groups) * len(rows)))
        if pieces > 1 and self.flat:
            groups = [part for g in groups for part in np.array_split(g, pieces) if part.size]
        tiles = [Tile(g, row, column) for g in groups for row in rows for column in columns]
        ends = np.linspace(0, len(tiles), max(1, threads) + 1).astype(int)
        return [tiles[a:b] for a, b in pairwise(ends) if b > a]

    @property
    def _tile_shape(self) -> Shape3:
        """Sections, rows and columns of a table."""
        depth, height, width = self.shape
        if self.flat:
            return 1, min(height, max(1, _TILE_VOXELS // width)), width
        sections = min(depth, _TILE_SECTIONS)
        side = int((_TILE_VOXELS / sections) ** 0.5)
        return sections, min(height, side), min(width, side)

    def _groups(self) -> Iterator[Ints]:
        """Sections that share their in-plane positions."""
        every = np.arange(self.shape[0])
        grid = self.map.displacement
        if not self.flat:
            step = self._tile_shape[0]
            yield from (every[start : start + step] for start in range(0, len(every), step))
        elif grid is not None and grid.shape[1] > 1:
            yield from every[:, None]
        elif self.map.section_moves is None:
            yield every
        else:
            moves = self.moves.reshape(len(every), -1)
            number = np.unique(moves, axis=0, return_inverse=True)[1].ravel()
            for n in range(number.max() + 1):
                yield np.flatnonzero(number == n)

    def new_table(self) -> Table:
        """Room for the table of any tile."""
        voxels = int(np.prod(self._tile_shape))
        return Table(
            np.empty(voxels, np.uint32),
            np.empty(voxels, np.uint32),
            np.empty(voxels * len(self.strides), np.float32),
            np.empty(voxels, np.bool_),
            np.empty((len(self.strides), 2), np.int64),
        )

    def fill(self, room: Table, tile: Tile) -> Table:
        """The table of a tile, written into `room`."""
        first = int(tile.sections[0])
        sections = slice(first, first + (1 if self.flat else len(tile.sections)))
        height, width = (part.stop - part.start for part in (tile.rows, tile.columns))
        voxels = (sections.stop - first) * height * width
        axes = len(self.strides)
        index, near, outside = room.index[:voxels], room.near[:voxels], room.outside[:voxels]
        fraction = room.fraction[: axes * voxels].reshape(axes, voxels)
        count = kernels.table(
            self.matrices[sections],
            self.first_divided,
            self.fields[sections],
            self.lookups[sections],
            self.bounds,
            self.strides,
            _BORDERS[self.border],
            tile.rows.start,
            tile.columns.start,
            height,
            index,
            near,
            fraction,
            outside,
            room.reach,
        )
        return Table(index, near, fraction, outside, room.reach, count)

    def read(self, tile: Tile, table: Table, layer: Layer) -> None:
        """Read a tile of one channel."""
        if self.flat:
            self._read_plane(tile, table, layer)
        else:
            self._read_volume(tile, table, layer)

    def _read_plane(self, tile: Tile, table: Table, layer: Layer) -> None:
        source = layer.source.reshape(len(layer.source), -1)
        target = layer.target.reshape(self.shape[0], -1)
        start = tile.rows.start * self.shape[2]
        if layer.linear:
            kernels.linear_plane(
                source,
                np.ascontiguousarray(self.planes.about[:, tile.sections]),
                self.planes.part[tile.sections],
                self.steps,
                table.reach,
                table.index,
                table.fraction,
                tile.sections,
                start,
                target,
            )
        else:
            kernels.nearest_plane(
                source,
                self.planes.nearest[tile.sections],
                self.strides[0],
                table.reach,
                table.near,
                tile.sections,
                start,
                target,
            )
        part = target[:, start : start + table.index.size]
        if table.count:
            for section in tile.sections:
                np.copyto(part[section], layer.fill, where=table.outside)
        part[tile.sections[self.planes.lost[tile.sections]]] = layer.fill

    def _read_volume(self, tile: Tile, table: Table, layer: Layer) -> None:
        source = layer.source.reshape(-1)
        sections = slice(tile.sections[0], tile.sections[-1] + 1)
        target = layer.target[sections, tile.rows, tile.columns]
        if layer.linear:
            kernels.linear_volume(
                source,
                self.strides,
                self.steps,
                table.reach,
                table.index,
                table.fraction,
                target,
            )
        else:
            kernels.nearest_volume(source, self.strides, table.reach, table.near, target)
        if table.count:
            np.copyto(target, layer.fill, where=table.outside.reshape(target.shape))
