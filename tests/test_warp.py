"""One map for all arrays: the kernels against a slow reading, points against the map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from volprep.geometry import Box
from volprep.warp import Border, CoordinateMap, resample

Array = npt.NDArray[Any]

SOURCE = (13, 34, 37)
PATCH = (7, 12, 15)


def turn(angle: float, axes: tuple[int, int] = (1, 2)) -> Array:
    """A rotation of the plane of two axes."""
    matrix = np.eye(3)
    a, b = axes
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[b, a] = np.sin(angle)
    matrix[a, b] = -matrix[b, a]
    return matrix


def slow_resample(
    coordinates: CoordinateMap,
    out_shape: tuple[int, int, int],
    image: Array,
    label: Array,
    border: Border = "raise",
    fill: float = 0,
) -> tuple[Array, Array]:
    """Every voxel by itself, in float64."""
    voxels = np.array(list(np.ndindex(out_shape)), float)
    at = coordinates.source_points(voxels)
    last = np.array(label.shape) - 1
    outside = np.any((at < -0.5) | (at >= last + 0.5), 1) & (border == "fill")
    if border == "reflect":
        period = 2 * np.maximum(last, 1)
        at = np.abs(at - period * np.rint(at / period))
    at = np.clip(at, 0, last)
    values = np.stack(
        [map_coordinates(c.astype(float), at.T, order=1, mode="nearest") for c in image]
    )
    ids = label[tuple(np.floor(at + 0.5).astype(int).T)]
    values[:, outside], ids[outside] = fill, fill
    return values.reshape(-1, *out_shape), ids.reshape(out_shape)


@st.composite
def maps(draw: st.DrawFn) -> CoordinateMap:
    """Any map whose patch lies inside the source or not far from it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    centre = {"output_centre": (3, 5.5, 7), "source_centre": rng.uniform((5, 14, 15), (7, 19, 21))}
    linear = turn(rng.uniform(0, 7)) @ (np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3)))
    flat = draw(st.booleans())
    if flat:
        linear[0], linear[:, 0] = 0, 0
        linear[0, 0] = draw(st.sampled_from([1.0, -1.0, 0.7]))
        if draw(st.booleans()):
            centre["source_centre"][0] = 6
    else:
        linear = linear @ turn(rng.uniform(0, 7), (0, 1))
    found = CoordinateMap.linear(linear, **centre)
    if draw(st.booleans()):
        matrix = found.matrix.copy()
        matrix[3, 1:3] = rng.uniform(-0.005, 0.005, 2)
        if not flat:
            matrix[3, 0] = rng.uniform(-0.005, 0.005)
        found = CoordinateMap(matrix, lock_z=flat)
    if draw(st.booleans()):
        grid = rng.normal(0, 0.4, (3, draw(st.sampled_from([1, 3])), 3, 4))
        if draw(st.booleans()):
            grid[0] = 0
        found = CoordinateMap(
            found.matrix, found.lock_z, displacement=grid, grid_spacing=(3.5, 6, 4.5)
        )
    if draw(st.booleans()):
        sections = CoordinateMap.sections(
            shifts=rng.integers(-2, 3, (7, 2)) if draw(st.booleans()) else None,
            angles=rng.choice([0, 0.1], 7) if draw(st.booleans()) else None,
            index=[0, 1, 2, 3, 5, 6, 7] if draw(st.booleans()) else None,
            centre=(5.5, 7),
        )
        found = sections.then(found)
    return found


def volumes(seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    image = rng.random((2, *SOURCE), dtype=np.float32)
    return image, rng.integers(0, 2**64 - 1, SOURCE, np.uint64)


def agree(coordinates: CoordinateMap, border: Border, fill: float = 0) -> None:
    image, label = volumes()
    found, (ids,) = resample(coordinates, PATCH, image, [label], border=border, fill=fill,
                             label_fill=int(fill))  # fmt: skip
    wanted, wanted_ids = slow_resample(coordinates, PATCH, image, label, border, fill)
    at = coordinates.source_points(np.array(list(np.ndindex(PATCH)), float))
    # Half way between two voxels, or on the border, rounding decides.
    clear = np.all(np.abs(at % 1 - 0.5) > 1e-4, 1).reshape(PATCH)
    assert found is not None
    np.testing.assert_allclose(found[:, clear], wanted[:, clear], atol=1e-4)
    np.testing.assert_array_equal(ids[clear], wanted_ids[clear])


@given(maps())
def test_every_map_reads_what_a_slow_reading_gives(coordinates: CoordinateMap) -> None:
    agree(coordinates, "fill", 7)
    agree(coordinates, "reflect")
    if Box.whole(SOURCE).contains(coordinates.source_box(PATCH)):
        agree(coordinates, "raise")


@given(maps())
def test_points_come_back_to_within_a_ten_thousandth_of_a_voxel(coordinates: CoordinateMap) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, np.array(PATCH) - 1, (50, 3))
    points[:, 0] = np.rint(points[:, 0])
    there = coordinates.source_points(points)
    back = coordinates.inverse_points(there)
    np.testing.assert_allclose(coordinates.source_points(back), there, atol=1e-4)


@given(maps(), st.sampled_from(["fill", "reflect"]))
def test_the_block_that_is_named_is_all_that_is_needed(
    coordinates: CoordinateMap, border: Border
) -> None:
    image, label = volumes()
    whole, (ids,) = resample(coordinates, PATCH, image, [label], border=border)
    block = coordinates.source_block(PATCH, SOURCE, border)
    part, (some,) = resample(
        coordinates,
        PATCH,
        image[:, *block.slices],
        [label[block.slices]],
        origin=block.start,
        border=border,
    )
    np.testing.assert_array_equal(part, whole)
    np.testing.assert_array_equal(some, ids)
