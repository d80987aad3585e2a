"""One coordinate map for a whole sample: where every output voxel is read from.

A map takes an output voxel (z, y, x) to a source position in three steps:

1. its section, for artefacts of single sections: the section that is read
   (`section_index`) and an in-plane motion of its own (`section_moves`);
2. one 4x4 matrix with its homogeneous divide;
3. a smooth displacement, read from a coarse control grid at the position that
   step 1 gave, added to the result of step 2.

Images and labels go through the map once (`volprep.warp.resample`); points go
through its inverse (`CoordinateMap.inverse_points`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3
from volprep.warp.positions import (
    TOLERANCE,
    Border,
    Floats,
    check_inside,
    clipped,
    divide,
    homogeneous,
    interpolate,
    lookup,
    mirrored,
    nearest_section,
    solve,
)

__all__ = ["CoordinateMap"]

# Newton's iteration for points ends with all of them this close in the source (voxels), with
# steps that have become this short, or after so many.
_CLOSE_ENOUGH, _SHORTEST, _ITERATIONS = 1e-6, 1e-4, 100
# What is farther off then is searched for among positions all around, at most so many on an axis,
# and from the best of them.
_LOST, _WIDEST, _STARTS = 1e-3, 33, 16


@dataclass(frozen=True, eq=False)
class CoordinateMap:
    """Where each output voxel lies in the source, both in voxels (Z, Y, X).

    Parameters
    ----------
    matrix : array of float64, shape (4, 4)
        Takes output (z, y, x, 1) to source, before the homogeneous divide.
    lock_z : bool
        Leave z out of the divide: an in-plane perspective then keeps every
        section whole. Needs a matrix that does not mix z with y and x.
    displacement : array of float32, shape (3, gz, gy, gx), or None
        Added after the matrix, in source voxels, components (z, y, x). Control
        point n of an axis lies at n times `grid_spacing`; linear in between,
        constant beyond. One control point along an axis means constant there.
    grid_spacing : tuple of three floats
        Output voxels between control points.
    section_moves : array of float64, shape (D, 2, 3), or None
        In-plane affine motion (y, x, 1) -> (y, x) of each output section;
        sections beyond the last move like the last.
    section_index : array of int64, shape (D,), or None
        The section that each output section stands for, monotonic; deleted
        sections are the numbers that are absent. Goes on in steps of one
        beyond the last.

    Raises
    ------
    ValueError
        If a shape is wrong, or `lock_z` is set on a matrix that moves z.
    """

    matrix: Floats
    lock_z: bool = False
    displacement: npt.NDArray[np.float32] | None = None
    grid_spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    section_moves: Floats | None = None
    section_index: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"matrix: shape {matrix.shape}, wanted (4, 4)")
        if not np.isfinite(matrix).all():
            raise ValueError("matrix: holds nan or inf")
        object.__setattr__(self, "matrix", matrix)
        if self.lock_z and not _separates_z(matrix):
            raise ValueError("lock_z: the matrix mixes z with y and x; leave lock_z False")
        if self.displacement is not None:
            grid = np.ascontiguousarray(self.displacement, np.float32)
            if grid.ndim != 4 or grid.shape[0] != 3 or 0 in grid.shape:
                raise ValueError(f"displacement: shape {grid.shape}, wanted (3, gz, gy, gx)")
            if not np.isfinite(grid).all():
                raise ValueError("displacement: holds nan or inf")
            if min(self.grid_spacing) <= 0:
                raise ValueError(f"grid_spacing: {self.grid_spacing}, wanted positive numbers")
            object.__setattr__(self, "displacement", grid)
        self._check_sections()

    def _check_sections(self) -> None:
        if self.section_moves is not None:
            moves = np.array(self.section_moves, np.float64)
            if moves.ndim != 3 or moves.shape[1:] != (2, 3):
                raise ValueError(f"section_moves: shape {moves.shape}, wanted (D, 2, 3)")
            object.__setattr__(self, "section_moves", moves)
        if self.section_index is not None:
            index = np.array(self.section_index, np.int64)
            if index.ndim != 1 or not index.size:
                raise ValueError(f"section_index: shape {index.shape}, wanted (D,)")
            steps = np.diff(index)
            if (steps < 0).any() and (steps > 0).any():
                raise ValueError("section_index: goes up and down; wanted one direction")
            object.__setattr__(self, "section_index", index)
            if self.section_moves is not None and len(self.section_moves) != len(index):
                raise ValueError(
                    f"section_moves has {len(self.section_moves)} sections, "
                    f"section_index {len(index)}; give both the same"
                )

    @classmethod
    def identity(cls) -> CoordinateMap:
        """The map that reads every voxel where it is."""
        return cls(np.eye(4))

    @classmethod
    def linear(
        cls,
        linear: npt.ArrayLike,
        *,
        output_centre: Sequence[float] = (0, 0, 0),
        source_centre: Sequence[float] = (0, 0, 0),
    ) -> CoordinateMap:
        """Read around `source_centre` what is written around `output_centre`.

        Parameters
        ----------
        linear : array, shape (3, 3)
            Takes a step in the output to a step in the source, (Z, Y, X).
        output_centre, source_centre : sequence of float
            Voxels (Z, Y, X); the centre of n voxels is (n - 1) / 2.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(linear, np.float64)
        matrix[:3, 3] = np.asarray(source_centre) - matrix[:3, :3] @ np.asarray(output_centre)
        return cls(matrix)

    @classmethod
    def elastic(cls, displacement: npt.NDArray[Any], spacing: Sequence[float]) -> CoordinateMap:
        """Displace every voxel by a coarse grid of (3, gz, gy, gx), `spacing` voxels apart."""
        z, y, x = (float(s) for s in spacing)
        return cls(np.eye(4), displacement=displacement, grid_spacing=(z, y, x))

    @classmethod
    def sections(
        cls,
        *,
        shifts: npt.ArrayLike | None = None,
        angles: npt.ArrayLike | None = None,
        index: npt.ArrayLike | None = None,
        centre: Sequence[float] = (0.0, 0.0),
    ) -> CoordinateMap:
        """Move, turn and delete whole sections: misalignment and missing sections.

        Parameters
        ----------
        shifts : array, shape (D, 2), or None
            How far (y, x) from its own place each output section reads.
        angles : array, shape (D,), or None
            Radians by which each output section is turned about `centre`;
            positive turns y towards x where it reads.
        index : array of int, shape (D,), or None
            The section that each output section stands for.
        centre : sequence of two floats
            (y, x) in voxels.
        """
        if shifts is None and angles is None:
            moves = None
        else:
            shift = 0.0 if shifts is None else np.asarray(shifts, np.float64)
            angle = np.zeros(len(np.asarray(shifts))) if angles is None else np.asarray(angles)
            cos, sin = np.cos(angle), np.sin(angle)
            moves = np.empty((len(angle), 2, 3))
            moves[:, 0, 0] = moves[:, 1, 1] = cos
            moves[:, 0, 1], moves[:, 1, 0] = -sin, sin
            middle = np.asarray(centre, np.float64)
            moves[:, :, 2] = shift + middle - moves[:, :, :2] @ middle
        wanted = None if index is None else np.asarray(index, np.int64)
        return cls(np.eye(4), section_moves=moves, section_index=wanted)

    @property
    def is_affine(self) -> bool:
        """Whether the matrix has no perspective."""
        last: list[float] = self.matrix[3].tolist()
        return last == [0, 0, 0, 1]

    @property
    def keeps_sections(self) -> bool:
        """Whether every output section comes from one z of the source."""
        flat = self.displacement is None or not self.displacement[0].any()
        return self.matrix_keeps_sections and flat

    @property
    def matrix_keeps_sections(self) -> bool:
        """Whether the matrix alone, displacement aside, takes sections to sections."""
        return _separates_z(self.matrix) and (self.lock_z or self.is_affine)

    def then(self, other: CoordinateMap) -> CoordinateMap:
        """The map that goes through this one, and from there through `other`.

        Parameters
        ----------
        other : CoordinateMap
            Takes what this map calls the source to the source of the result.

        Returns
        -------
        CoordinateMap
            Exact for matrices and sections, and for a displacement of this map
            followed by an affine one. Where `other` displaces, the sum is
            sampled on a control grid at half the spacing, and the result is
            the map of that grid.

        Raises
        ------
        ValueError
            If `other` moves single sections and this map does not take whole
            sections to whole sections or displaces, or a perspective that locks
            z meets a matrix that moves z. Put maps of single sections first.
        """
        return _join(self, other)

    def relative_to(self, origin: Sequence[float]) -> CoordinateMap:
        """The same map with source positions counted from `origin`."""
        return self.with_parts(matrix=self.matrix_from(origin))

    def with_parts(self, **parts: Any) -> CoordinateMap:
        """The same with some parts, arrays that are known to be valid, in place of others."""
        other = object.__new__(CoordinateMap)
        other.__dict__.update(self.__dict__, **parts)
        return other

    def matrix_from(self, origin: Sequence[float]) -> Floats:
        """The matrix with source positions counted from `origin`."""
        matrix = self.matrix.copy()
        z, y, x = origin
        if self.lock_z:
            matrix[0, 3] -= z
        else:
            matrix[0] -= z * matrix[3]
        matrix[1] -= y * matrix[3]
        matrix[2] -= x * matrix[3]
        return matrix

    def source_points(self, points: npt.ArrayLike) -> Floats:
        """Where output positions lie in the source.

        Parameters
        ----------
        points : array, shape (N, 3)
            Output voxels (Z, Y, X); need not be whole numbers.

        Returns
        -------
        array of float64, shape (N, 3)
        """
        return self._warp(self._place(_points(points)))

    def inverse_points(self, points: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Where source positions appear in the output: how skeletons move along.

        Parameters
        ----------
        points : array, shape (N, 3)
            Source voxels (Z, Y, X).

        Returns
        -------
        array of float32, shape (N, 3)
            Output voxels, outside the patch included. A point on a deleted
            section lies between the sections that stayed.

        Notes
        -----
        Closed form for matrix and sections; with a displacement, Newton's
        iteration to 1e-5 voxel. Where the displacement folds space several
        positions are right, and one of them is returned.
        """
        return self._unplace(self._unwarp(_points(points))).astype(np.float32)

    def source_box(self, out_shape: Sequence[int]) -> Box:
        """The source voxels that interpolation may read for an output of `out_shape`.

        Returns
        -------
        Box
            Exact without a displacement; with one, large enough for its largest
            control point anywhere. May reach beyond the source.

        Raises
        ------
        ValueError
            If a perspective sends a part of the output through infinity.
        """
        low, high = self.source_extent(out_shape)
        start = np.floor(low + TOLERANCE).astype(int)
        stop = np.ceil(high - TOLERANCE).astype(int) + 1
        return Box.at(start.tolist(), np.maximum(stop - start, 1).tolist())

    def source_extent(self, out_shape: Sequence[int]) -> tuple[Floats, Floats]:
        """The lowest and highest source position of an output, (Z, Y, X) each, before rounding."""
        z, y, x = (int(n) for n in out_shape[-3:])
        depths, corners = self.section_depths(z).tolist(), []
        for alike in self.alike_sections(z):
            (yy, yx, y0), (xy, xx, x0) = self.section_move(alike[0]).tolist()
            # Depths are monotonic: of sections that move alike, the first and the last will do.
            corners += [
                (depths[n], yy * j + yx * i + y0, xy * j + xx * i + x0)
                for n in (alike[0], alike[-1])
                for j in (0, y - 1)
                for i in (0, x - 1)
            ]
        moved = homogeneous(self.matrix, np.array(corners, np.float64))
        if (moved[:, 3] <= 0).any():
            raise ValueError("matrix: the perspective sends a part of the output through infinity")
        reached = divide(moved, self.lock_z)
        low, high = reached.min(0), reached.max(0)
        if self.displacement is not None:
            low = low + self.displacement.min((1, 2, 3))
            high = high + self.displacement.max((1, 2, 3))
        return low, high

    def source_block(
        self, out_shape: Sequence[int], source_shape: Sequence[int], border: Border = "raise"
    ) -> Box:
        """The block of a source of `source_shape` to read before `resample`.

        Raises
        ------
        WarpingOOBError
            If `border` is ``raise`` and the map reaches outside, or if no voxel
            of the source is reached at all and the border is ``reflect``.
        """
        box = self.source_box(out_shape)
        limit = tuple(int(n) for n in source_shape[-3:])
        if border == "raise":
            check_inside(box, Box.whole(limit))
            return box
        if border == "fill":
            return clipped(box, limit)
        return mirrored(box, limit)

    def section_depths(self, depth: int) -> Floats:
        """The z that each of `depth` output sections stands for, before the matrix."""
        if self.section_index is None:
            return np.array(range(depth), np.float64)
        own = self.section_index.tolist()
        step = -1 if own[-1] < own[0] else 1
        beyond = [own[-1] + step * (n + 1) for n in range(depth - len(own))]
        return np.array(own[:depth] + beyond, np.float64)

    def alike_sections(self, depth: int) -> list[list[int]]:
        """The numbers of `depth` output sections, those with one in-plane motion together."""
        if self.section_moves is None:
            return [list(range(depth))]
        groups: dict[bytes, list[int]] = {}
        for section in range(depth):
            groups.setdefault(self.section_move(section).tobytes(), []).append(section)
        return list(groups.values())

    def section_move(self, section: int) -> Floats:
        """The in-plane motion of one output section, (2, 3)."""
        own = self.section_moves
        return np.eye(2, 3) if own is None else own[min(section, len(own) - 1)]

    @property
    def described_sections(self) -> int:
        """How many output sections have a place or a motion of their own; 0 for none."""
        tables = (self.section_index, self.section_moves)
        return max((len(table) for table in tables if table is not None), default=0)

    def _place(self, points: Floats) -> Floats:
        """Step 1: output position to the position that matrix and displacement work on."""
        if not self.described_sections:
            return points
        placed = points.copy()
        if self.section_moves is not None:
            move = self.section_moves[nearest_section(points[:, 0], len(self.section_moves))]
            placed[:, 1:] = np.einsum("nij,nj->ni", move[:, :, :2], points[:, 1:]) + move[:, :, 2]
        if self.section_index is not None:
            own = np.arange(len(self.section_index), dtype=np.float64)
            placed[:, 0] = lookup(points[:, 0], own, self.section_index.astype(np.float64))
        return placed

    def _unplace(self, points: Floats) -> Floats:
        if not self.described_sections:
            return points
        output = points.copy()
        if self.section_index is not None:
            number, first = np.unique(self.section_index, return_index=True)
            output[:, 0] = lookup(points[:, 0], number.astype(float), first.astype(float))
        if self.section_moves is not None:
            move = self.section_moves[nearest_section(output[:, 0], len(self.section_moves))]
            back = np.linalg.inv(move[:, :, :2])
            output[:, 1:] = np.einsum("nij,nj->ni", back, points[:, 1:] - move[:, :, 2])
        return output

    def _project(self, points: Floats) -> Floats:
        """Step 2."""
        return divide(homogeneous(self.matrix, points), self.lock_z)

    def _unproject(self, points: Floats) -> Floats:
        if not self.lock_z:
            inverse = np.asarray(np.linalg.inv(self.matrix), np.float64)
            return divide(homogeneous(inverse, points), False)
        inverse = np.eye(4)
        inverse[1:, 1:] = np.linalg.inv(self.matrix[1:, 1:])
        flat = divide(homogeneous(inverse, points), True)
        flat[:, 0] = (points[:, 0] - self.matrix[0, 3]) / self.matrix[0, 0]
        return flat

    def _warp(self, placed: Floats) -> Floats:
        """Steps 2 and 3."""
        moved = self._project(placed)
        if self.displacement is not None:
            moved += interpolate(self.displacement, self.grid_spacing, placed)[0]
        return moved

    def _unwarp(self, source: Floats) -> Floats:
        """Undo steps 2 and 3: by Newton's iteration, and by a search where it is led astray."""
        found = self._unproject(source)
        if self.displacement is None or not len(source):
            return found
        residual = self._iterate(found, source)
        (lost,) = np.nonzero(np.abs(residual).max(1) > _LOST)
        if lost.size:
            for n in lost.tolist():
                # A continuous map that is straight far away reaches every position somewhere,
                # though it may fold.
                near = self._around(source[n])
                distance = np.abs(self._warp(near) - source[n]).max(1)
                starts = near[np.argsort(distance, kind="stable")[:_STARTS]]
                wanted = np.repeat(source[n : n + 1], len(starts), 0)
                rest = np.abs(self._iterate(starts, wanted)).max(1)
                if rest.min() < np.abs(residual[n]).max():
                    found[n] = starts[rest.argmin()]
        return found

    def _iterate(self, found: Floats, source: Floats) -> Floats:
        """Move `found` to where the map gives `source`; shorter steps where one was no gain.

        Returns what is left, (N, 3) in source voxels.
        """
        left = np.arange(len(source))
        rest_of_all = residual = self._warp(found) - source
        length = np.ones(len(source))
        for _ in range(_ITERATIONS):
            rest_of_all[left] = residual
            going = (np.abs(residual).max(1, initial=0) > _CLOSE_ENOUGH) & (length > _SHORTEST)
            left, residual, length = left[going], residual[going], length[going]
            if not left.size:
                break
            step = solve(self._slope(found[left]), residual)
            trial = found[left] - step * length[:, None]
            rest = self._warp(trial) - source[left]
            better = np.abs(rest).max(1) < np.abs(residual).max(1)
            found[left[better]], residual[better] = trial[better], rest[better]
            length = np.where(better, np.minimum(2 * length, 1), length / 2)
        rest_of_all[left] = residual
        return rest_of_all

    def _around(self, source: Floats) -> Floats:
        """Output positions, a voxel or so apart, among which one that gives `source` must be."""
        middle = self._unproject(source[None])[0]
        grid = np.zeros((3, 1, 1, 1)) if self.displacement is None else self.displacement
        most = np.abs(grid).max((1, 2, 3))
        inverse = np.abs(np.linalg.inv(self._project_slope(middle[None])[0]))
        reach = inverse @ most
        axes = [np.linspace(-r, r, min(2 * int(np.ceil(r)) + 1, _WIDEST)) for r in reach]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        return np.asarray(middle + offsets, np.float64)

    def _project_slope(self, placed: Floats) -> Floats:
        """The derivative of step 2, (N, 3, 3)."""
        before = homogeneous(self.matrix, placed)
        moved = divide(before, self.lock_z)
        slope = self.matrix[None, :3, :3] - moved[:, :, None] * self.matrix[None, 3:, :3]
        slope /= before[:, 3, None, None]
        if self.lock_z:
            slope[:, 0] = self.matrix[0, :3]
        return slope

    def _slope(self, placed: Floats) -> Floats:
        """The derivative of steps 2 and 3, (N, 3, 3)."""
        slope = self._project_slope(placed)
        if self.displacement is not None:
            slope += interpolate(self.displacement, self.grid_spacing, placed)[1]
        return slope


def _points(points: npt.ArrayLike) -> Floats:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"points: shape {array.shape}, wanted (N, 3) in (Z, Y, X)")
    return array


def _separates_z(matrix: Floats) -> bool:
    (_, zy, zx, _), (yz, *_), (xz, *_), (wz, *_) = matrix.tolist()
    return not any((zy, zx, yz, xz, wz))


def _join(first: CoordinateMap, second: CoordinateMap) -> CoordinateMap:
    """Through `first`, and from there through `second`."""
    matrix, lock_z = _join_matrices(first, second)
    index, moves = _join_sections(first, second)
    grid, spacing = _join_displacements(first, second, matrix, lock_z)
    return first.with_parts(
        matrix=matrix,
        lock_z=lock_z,
        displacement=grid,
        grid_spacing=spacing,
        section_index=index,
        section_moves=moves,
    )


def _join_matrices(first: CoordinateMap, second: CoordinateMap) -> tuple[Floats, bool]:
    product: Floats = second.matrix @ first.matrix
    if first.is_affine and second.is_affine:
        return product, first.lock_z and second.lock_z
    if not (first.lock_z or second.lock_z):
        return product, False
    if not (first.matrix_keeps_sections and second.matrix_keeps_sections):
        raise ValueError("a perspective that locks z cannot join a matrix that moves z")
    locked = np.zeros((4, 4))
    locked[1:, 1:] = second.matrix[1:, 1:] @ first.matrix[1:, 1:]
    locked[0, 0] = second.matrix[0, 0] * first.matrix[0, 0]
    locked[0, 3] = second.matrix[0, 0] * first.matrix[0, 3] + second.matrix[0, 3]
    return locked, True


def _join_sections(
    first: CoordinateMap, second: CoordinateMap
) -> tuple[npt.NDArray[np.int64] | None, Floats | None]:
    if not second.described_sections:
        return first.section_index, first.section_moves
    z_step, z_start = first.matrix[0, 0], first.matrix[0, 3]
    if (
        not (first.matrix_keeps_sections and first.is_affine and abs(z_step) == 1)
        or z_start != np.rint(z_start)
        or first.displacement is not None
    ):
        raise ValueError(
            "single sections can be moved only after a map that takes whole sections to whole "
            "sections, without a displacement; put the map with sections first"
        )
    depth = first.described_sections
    if not depth:
        depth = max(1, int(second.described_sections - z_start if z_step == 1 else z_start + 1))
    through = first.section_depths(depth)
    between = through * z_step + z_start
    index, moves = first.section_index, first.section_moves
    if second.section_index is not None:
        number = np.arange(len(second.section_index), dtype=np.float64)
        reached = lookup(between, number, second.section_index.astype(np.float64))
        index = np.rint((reached - z_start) / z_step).astype(np.int64)
    if second.section_moves is not None:
        own = second.section_moves[nearest_section(between, len(second.section_moves))]
        plane = _square(first.matrix[None, 1:3, 1:])
        moved = np.linalg.inv(plane) @ _square(own) @ plane
        moves = (moved if moves is None else moved @ _square(moves))[:, :2]
    return index, moves


def _square(moves: Floats) -> Floats:
    bottom = np.broadcast_to(np.array([0, 0, 1.0]), (len(moves), 1, 3))
    return np.concatenate([moves, bottom], 1)


def _join_displacements(
    first: CoordinateMap, second: CoordinateMap, matrix: Floats, lock_z: bool
) -> tuple[npt.NDArray[np.float32] | None, tuple[float, float, float]]:
    """The control grid of both over the joined matrix, and its spacing."""
    if second.displacement is None:
        if first.displacement is None:
            return None, first.grid_spacing
        if second.is_affine:
            z, y, x = first.displacement
            turned = [a * z + b * y + c * x for a, b, c in second.matrix[:3, :3].tolist()]
            return np.array(turned, np.float32), first.grid_spacing
    spacing, shape = _common_grid(first, second)
    nodes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    placed = nodes * np.asarray(spacing)
    reached = _whole(second).source_points(_whole(first).source_points(placed))
    plain = _whole(first).with_parts(matrix=matrix, lock_z=lock_z, displacement=None)
    moved = reached - plain.source_points(placed)
    return moved.T.reshape(3, *shape).astype(np.float32), spacing


def _whole(coordinates: CoordinateMap) -> CoordinateMap:
    """The map without what it does to single sections."""
    return coordinates.with_parts(section_index=None, section_moves=None)


def _common_grid(
    first: CoordinateMap, second: CoordinateMap
) -> tuple[tuple[float, float, float], Shape3]:
    """Spacing and shape of a control grid that is fine enough for the displacements of both."""
    spacing, reach, flat = np.full(3, np.inf), np.ones(3), True
    if first.displacement is not None:
        spacing = np.asarray(first.grid_spacing, np.float64)
        reach = np.maximum(reach, (np.array(first.displacement.shape[1:]) - 1) * spacing)
        flat = first.displacement.shape[1] == 1
    if second.displacement is not None:
        step = np.asarray(second.grid_spacing)
        far = (np.array(second.displacement.shape[1:]) - 1) * step
        before = _whole(first).with_parts(displacement=None)
        corners = np.array(list(np.ndindex(2, 2, 2))) * far
        reach = np.maximum(reach, before.inverse_points(corners).max(0))
        steps = np.abs(first.matrix[:3, :3]) / step[:, None]
        spacing = np.minimum(spacing, 0.5 / np.maximum(steps.max(0), 1e-9))
        flat &= second.displacement.shape[1] == 1 and first.keeps_sections
    shape = np.ceil(reach / spacing - 1e-9).astype(int) + 1
    if flat:
        shape[0] = 1
    z, y, x = spacing.tolist()
    return (z, y, x), tuple(shape.tolist())
