"""One coordinate map after another, as one coordinate map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3
from volprep.warp.positions import Floats, lookup, nearest_section

if TYPE_CHECKING:
    from volprep.warp.map import CoordinateMap

__all__ = ["join"]


def join(first: CoordinateMap, second: CoordinateMap) -> CoordinateMap:
    """Through `first`, and from there through `second`; see `CoordinateMap.then`."""
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
