"""One coordinate map over one block, cut into tiles: what `resample` works through."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3
from volprep.kernels import warp as kernels
from volprep.warp.map import CoordinateMap
from volprep.warp.positions import TOLERANCE, Border, Floats

__all__ = ["TileReader"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_BORDERS: dict[Border, int] = {
    "raise": kernels.CLAMP,
    "fill": kernels.FILL,
    "reflect": kernels.REFLECT,
}

# A tile's table and what it reads should stay in the second-level cache.
_TILE_VOXELS = 16384

_NO_MOVE = np.eye(3)[None]

# Tiles of a volume are compact, so that what they read is.
_TILE_SECTIONS = 16


def _layers(
    flat: bool,
    image: Array,
    image_out: npt.NDArray[np.float32],
    image_fill: float,
    label: Array,
    label_out: Array,
    label_fill: np.uint64,
) -> kernels.Layers:
    """What is read together, in the form that the kernels take.

    Sources are marked read-only, so that kernels are compiled for one kind of array.
    """
    sources = []
    for source in (image, label):
        channels, depth, height, width = source.shape
        sections = depth if flat else 1
        flattened = source.reshape(channels, sections, depth // sections * height * width)
        flattened.flags.writeable = False
        sources += [flattened, flattened.view(np.uint8)]
    targets = [
        out.reshape(*out.shape[:2], out.shape[2] * out.shape[3]) for out in (image_out, label_out)
    ]
    return kernels.Layers(
        sources[0], targets[0], float(image_fill), sources[2], targets[1], label_fill,
        sources[1], sources[3], max(image_out.shape[3], label_out.shape[3]),
    )  # fmt: skip


_LOCAL = threading.local()


def _room(voxels: int, width: int) -> kernels.Room:
    """Memory for a tile, which a thread uses for all of them."""
    kept: tuple[int, int, kernels.Room] = _LOCAL.__dict__.get("room", (0, 0, None))
    if kept[0] < voxels or kept[1] < width:
        voxels, width = max(voxels, kept[0]), max(width, kept[1])
        kept = (voxels, width, kernels.Room(
            np.empty(voxels, np.uint32), np.empty(voxels, np.uint32),
            np.empty((3, voxels), np.float32), np.empty(voxels, np.bool_),
            np.empty((3, 3), np.int64), np.empty(width, np.int64), np.empty((3, width), np.float32),
        ))  # fmt: skip
        _LOCAL.room = kept
    return kept[2]


class TileReader:
    """Which tiles there are, and how they are read.

    Where the map keeps sections, a table has the axes (Y, X) and serves all
    sections that move alike; elsewhere it has (Z, Y, X) and each voxel its own.

    Parameters
    ----------
    coordinates : CoordinateMap
    shape : tuple of three ints
        (Z, Y, X) of the output.
    reached : Box
        Its `CoordinateMap.source_box`.
    block : Box
        The voxels of the source that are at hand.
    border : {'raise', 'fill', 'reflect'}
    """

    def __init__(
        self, coordinates: CoordinateMap, shape: Shape3, reached: Box, block: Box, border: Border
    ) -> None:
        self.map, self.shape, self.border = coordinates, shape, border
        self.flat = coordinates.keeps_sections
        # A frame in which no position inside the block is negative.
        frame = [min(a, b - 1) for a, b in zip(reached.start, block.stop, strict=True)]
        self.matrix = coordinates.matrix_from(frame)
        self.depth = coordinates.section_depths(shape[0])
        self.members, self.ends = self._group()
        every = self.members.tolist()
        leaders = [every[n] for n in self.ends[:-1].tolist()] if self.flat else every
        first = [a - f for a, f in zip(block.start, frame, strict=True)]
        last = [b - f - 1 for b, f in zip(block.stop, frame, strict=True)]
        _, height, width = block.shape
        strides = (height * width, width, 1)
        steps = [s * (a < b) for s, a, b in zip(strides, first, last, strict=True)]
        axes = slice(1 if self.flat else 0, 3)
        moves = self._find_moves(leaders)
        self.sections = self._find_sections(first[0], last[0]) if self.flat else None
        # A locked z is not divided; where sections are kept a table has no z.
        divided = int(coordinates.lock_z and not self.flat)
        self.positions = kernels.Positions(
            matrices=np.ascontiguousarray(self._find_matrices(leaders, moves)[:, axes.start :]),
            first_divided=3 - axes.start if coordinates.is_affine else divided,
            fields=np.ascontiguousarray(self._find_fields(leaders)[:, axes]),
            lookups=moves[:, :2] / np.array(coordinates.grid_spacing)[1:, None],
            bounds=np.array([first[axes], last[axes]]),
            strides=np.array(strides[axes]),
            steps=np.array(steps[axes]),
            border=_BORDERS[border],
        )

    def _group(self) -> tuple[Ints, Ints]:
        """Output sections, those that one table serves side by side, and where groups end."""
        grid = self.map.displacement
        if not self.flat or (grid is not None and grid.shape[1] > 1):
            return np.arange(self.shape[0]), np.arange(self.shape[0] + 1)
        groups = self.map.alike_sections(self.shape[0])
        members = np.array([n for group in groups for n in group])
        return members, np.array([0, *accumulate(map(len, groups))])

    def _find_moves(self, sections: Sequence[int]) -> Floats:
        """The in-plane motion of some sections, (N, 3, 3)."""
        moves = np.repeat(_NO_MOVE, len(sections), 0)
        if self.map.section_moves is not None:
            for move, section in zip(moves, sections, strict=True):
                move[:2] = self.map.section_move(section)
        return moves

    def _depths(self, sections: Sequence[int]) -> Floats:
        """The depth of some sections; indexing with a list would let another thread go first."""
        depths = self.depth.tolist()
        return np.array([depths[section] for section in sections], np.float64)

    def _find_matrices(self, sections: Sequence[int], moves: Floats) -> Floats:
        """What takes (row, column, 1) of each section to (z, y, x, divisor), (N, 4, 3)."""
        planes = np.repeat(self.matrix[None, :, 1:], len(sections), 0)
        planes[:, :, 2] += self.matrix[:, 0] * self._depths(sections)[:, None]
        return planes if self.map.section_moves is None else planes @ moves

    def _find_fields(self, sections: Sequence[int]) -> npt.NDArray[np.float32]:
        """The control points that hold for each section, (N, 3, gy, gx)."""
        grid = self.map.displacement
        if grid is None:
            return np.empty((len(sections), 3, 0, 1), np.float32)
        layers = grid.swapaxes(0, 1)
        last = len(layers) - 1
        if not last:
            return np.repeat(layers, len(sections), 0)
        z = np.clip(self._depths(sections) / self.map.grid_spacing[0], 0, last)
        low = np.minimum(z.astype(int), last - 1)
        part = (z - low).astype(np.float32)[:, None, None, None]
        fields: npt.NDArray[np.float32] = layers[low] * (1 - part) + layers[low + 1] * part
        return fields

    def _find_sections(self, first: int, last: int) -> kernels.Sections:
        """Where each output section lies in a block of the sections `first` to `last`."""
        z = self.matrix[0, 0] * self.depth + (self.matrix[0, 3] - first)
        whole = np.rint(z)
        z = np.where(np.abs(z - whole) < TOLERANCE, whole, z)
        far = last - first
        lost = np.zeros(len(z), np.bool_)
        if self.border == "fill":
            lost = (z < -0.5) | (z >= far + 0.5)
        elif self.border == "reflect" and far > 0:
            z = far - np.abs(np.abs(z) % (2 * far) - far)
        z = np.minimum(np.maximum(z, 0), far)
        about = np.empty((3, len(z)), np.int64)
        about[0] = z
        np.minimum(about[0] + 1, far, out=about[1])
        about[2] = z + 0.5
        depth = (z - about[0]).astype(np.float32)
        return kernels.Sections(self.members, about, depth, lost)

    def shares(self, threads: int) -> list[Ints]:
        """All the tiles, (T, 7) as kernels take them, in at most one share a thread."""
        sections, height, width = self._tile_shape
        _, rows, columns = self.shape
        groups = list(self._stretches(sections, threads, -(-rows // height)))
        tiles = np.array(
            [
                (number, a, b, y, min(y + height, rows), x, min(x + width, columns))
                for number, a, b in groups
                for y in range(0, rows, height)
                for x in range(0, columns, width)
            ]
        )
        if threads == 1:
            return [tiles]
        ends = np.linspace(0, len(tiles), threads + 1).astype(int)
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

    def _stretches(self, step: int, threads: int, rows: int) -> Iterator[tuple[int, int, int]]:
        """Number of the matrix, first and last but one of the members of each column of tiles."""
        if not self.flat:
            for start in range(0, self.shape[0], step):
                yield start, start, min(start + step, self.shape[0])
            return
        # Few tables are cut among threads, each of which then fills them again.
        pieces = max(1, threads // ((len(self.ends) - 1) * rows))
        for number, (a, b) in enumerate(pairwise(self.ends.tolist())):
            cuts = [a + (b - a) * n // pieces for n in range(pieces + 1)]
            yield from ((number, c, d) for c, d in pairwise(cuts) if d > c)

    def read(
        self,
        tiles: Ints,
        image: tuple[Array, npt.NDArray[np.float32], float],
        label: tuple[Array, Array, np.uint64],
    ) -> None:
        """Read some tiles of an image and a label.

        Each is a source and a target (C, Z, Y, X), C-contiguous, maybe of no channel, and what
        is filled in; images are float32, labels unsigned.
        """
        together = _layers(self.flat, *image, *label)
        depth, height, width = self._tile_shape
        room = _room(depth * height * width, width)
        if self.sections is None:
            kernels.read_volume(tiles, self.positions, together, room)
        else:
            kernels.read_planes(tiles, self.positions, self.sections, together, room)
