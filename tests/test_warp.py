"""One map for all arrays: the kernels against a slow reading, points against the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from volprep.geometry import Box
from volprep.warp import Border, CoordinateMap, WarpingOOBError, resample

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


@given(maps(), st.integers(2, 5))
def test_threads_change_nothing(coordinates: CoordinateMap, threads: int) -> None:
    image, label = volumes()
    one, (ids,) = resample(coordinates, PATCH, image, [label], border="reflect")
    more, (same,) = resample(coordinates, PATCH, image, [label], border="reflect", threads=threads)
    np.testing.assert_array_equal(more, one)
    np.testing.assert_array_equal(same, ids)


def test_bands_of_a_large_patch_join_without_a_seam() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, 300, 310), dtype=np.float32)
    label = rng.integers(0, 99, (3, 300, 310))
    grid = rng.normal(0, 1, (3, 2, 5, 5)) * [[[[0.1]]], [[[3]]], [[[3]]]]
    coordinates = CoordinateMap.elastic(grid, (2, 70, 70)).then(
        CoordinateMap.linear(turn(0.3), output_centre=(1, 150, 150), source_centre=(1, 150, 150))
    )
    found, (ids,) = resample(coordinates, (3, 290, 280), image, [label], border="fill")
    wanted, wanted_ids = slow_resample(coordinates, (3, 290, 280), image, label, "fill")
    at = coordinates.source_points(np.array(list(np.ndindex(3, 290, 280)), float))
    clear = np.all(np.abs(at % 1 - 0.5) > 1e-3, 1).reshape(3, 290, 280)
    assert found is not None
    np.testing.assert_allclose(found[0][clear], wanted[0][clear], atol=2e-4)
    np.testing.assert_array_equal(ids[clear], wanted_ids[clear])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", ">u2", "uint32", "float64", "bool"])
@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_images_of_any_dtype_become_float32(dtype: str, tilt: float) -> None:
    image = (volumes()[0] * 250).astype(dtype)
    label = volumes()[1]
    coordinates = CoordinateMap.linear(
        turn(0.4) @ turn(tilt, (0, 1)), output_centre=(3, 6, 7), source_centre=(6, 17, 18)
    )
    found, _ = resample(coordinates, PATCH, image, [label])
    wanted, _ = slow_resample(coordinates, PATCH, image, label)
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=5e-3)


@pytest.mark.parametrize(
    "linear", [np.eye(3), np.diag([-1, -1, 1]), np.eye(3)[[0, 2, 1]], np.eye(3)[[1, 2, 0]]]
)
def test_flips_and_swaps_copy_every_bit(linear: Array) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1e3, (1, 9, 9, 9)).astype(np.float32)
    label = rng.integers(0, 2**64 - 1, (9, 9, 9), np.uint64)
    coordinates = CoordinateMap.linear(linear, output_centre=(4, 4, 4), source_centre=(4, 4, 4))
    found, (ids,) = resample(coordinates, (9, 9, 9), image, [label])
    at = tuple(coordinates.source_points(np.array(list(np.ndindex(9, 9, 9)))).astype(int).T)
    assert found is not None
    np.testing.assert_array_equal(found.ravel(), image[0][at])
    np.testing.assert_array_equal(ids.ravel(), label[at])


def test_a_single_section_can_be_warped() -> None:
    image, label = volumes()
    flat, ids = image[:, :1], label[:1]
    coordinates = CoordinateMap.linear(
        turn(0.4), output_centre=(0, 5, 5), source_centre=(0, 17, 18)
    )
    found, (some,) = resample(coordinates, (1, 12, 12), flat, [ids])
    wanted, wanted_ids = slow_resample(coordinates, (1, 12, 12), flat, ids)
    assert found is not None
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(some, wanted_ids)


def test_labels_of_several_widths_and_channels_go_together() -> None:
    image, label = volumes()
    masks = np.stack([label > 2**63, label < 2**62])
    coordinates = CoordinateMap.linear(turn(0.4), source_centre=(2, 8, 9))
    _, (ids, several) = resample(coordinates, PATCH, None, [label, masks])
    _, (same,) = resample(coordinates, PATCH, image, [label])
    np.testing.assert_array_equal(ids, same)
    np.testing.assert_array_equal(several, np.stack([ids > 2**63, ids < 2**62]))


def test_results_can_go_where_the_caller_says() -> None:
    image, label = volumes()
    coordinates = CoordinateMap.linear(turn(0.4), source_centre=(2, 8, 9))
    wanted, (ids,) = resample(coordinates, PATCH, image, [label])
    into = (np.empty((2, *PATCH), np.float32), [np.empty(PATCH, np.uint64)])
    found, labels = resample(coordinates, PATCH, image, [label], out=into)
    assert found is into[0]
    assert labels[0] is into[1][0]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(labels[0], ids)
    with pytest.raises(ValueError, match=r"out: .* for the label"):
        resample(coordinates, PATCH, image, [label], out=(into[0], [np.empty(PATCH, np.int64)]))
    with pytest.raises(ValueError, match="contiguous"):
        resample(
            coordinates, PATCH, image, out=(np.empty((2, 7, 12, 30), np.float32)[..., ::2], [])
        )


def test_a_fill_value_takes_the_label_s_own_dtype() -> None:
    image, label = volumes()
    signed = (label % 100).astype(np.int16)
    coordinates = CoordinateMap.linear(np.eye(3), source_centre=(-3, 0, 0))
    found, (ids,) = resample(
        coordinates, PATCH, image, [signed], border="fill", fill=0.5, label_fill=-1
    )
    assert found is not None
    assert np.all(found[:, :3] == 0.5)
    assert np.all(ids[:3] == -1)
    np.testing.assert_array_equal(ids[3:], signed[:4, :12, :15])


def test_reading_outside_is_refused() -> None:
    image, label = volumes()
    for shift in ((-1, 0, 0), (0, 23, 0), (0, 0, 22.5)):
        coordinates = CoordinateMap.linear(np.eye(3), source_centre=shift)
        with pytest.raises(WarpingOOBError, match="the source holds"):
            resample(coordinates, PATCH, image, [label])
        with pytest.raises(WarpingOOBError):
            coordinates.source_block(PATCH, SOURCE)


@pytest.mark.parametrize(
    ("first", "second"),
    [("linear", "elastic"), ("elastic", "linear"), ("sections", "linear"), ("flip", "sections"),
     ("sections", "sections"), ("plane", "sections"), ("perspective", "plane")],
)  # fmt: skip
def test_one_map_after_another_is_their_composition(first: str, second: str) -> None:
    rng = np.random.default_rng(0)
    tilted = np.eye(4)
    tilted[3, 1:3] = 0.002, -0.001
    kinds = {
        "linear": CoordinateMap.linear(turn(0.3) @ turn(0.2, (0, 1)), source_centre=(2, 3, 4)),
        "plane": CoordinateMap.linear(
            turn(0.3) * [1, 1.1, 0.9], output_centre=(3, 5, 7), source_centre=(3, 5, 7)
        ),
        "flip": CoordinateMap.linear(
            np.diag([-1, 1, -1]), output_centre=(3, 5, 7), source_centre=(3, 5, 7)
        ),
        "perspective": CoordinateMap(tilted, lock_z=True),
        "elastic": CoordinateMap.elastic(rng.normal(0, 0.3, (3, 4, 5, 5)), (4, 6, 6)),
        "sections": CoordinateMap.sections(
            shifts=rng.normal(0, 2, (7, 2)), angles=rng.normal(0, 0.1, 7),
            index=[0, 1, 2, 4, 5, 6, 7], centre=(5.5, 7),
        ),
    }  # fmt: skip
    one, two = kinds[first], kinds[second]
    points = rng.uniform(0, 1, (60, 3)) * (np.array(PATCH) - 1)
    points[:, 0] = np.rint(points[:, 0])
    exact = two.source_points(one.source_points(points))
    # A displacement that is turned is sampled anew, between control points only.
    bound = 0.25 if second == "elastic" else 1e-6
    np.testing.assert_allclose(one.then(two).source_points(points), exact, atol=bound)


def test_maps_that_no_single_map_can_join_are_refused() -> None:
    sections = CoordinateMap.sections(angles=[0, 0.1, 0.1])
    tilt = CoordinateMap.linear(turn(0.2, (0, 1)))
    with pytest.raises(ValueError, match="put the map with sections first"):
        tilt.then(sections)
    elastic = CoordinateMap.elastic(np.ones((3, 1, 2, 2)) * [[[[0]]], [[[1]]], [[[1]]]], (1, 9, 9))
    with pytest.raises(ValueError, match="without a displacement"):
        elastic.then(sections)
    locked = np.eye(4)
    locked[3, 1] = 0.001
    with pytest.raises(ValueError, match="locks z"):
        CoordinateMap(locked, lock_z=True).then(tilt)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrix": np.eye(3)}, r"wanted \(4, 4\)"),
        ({"matrix": np.full((4, 4), np.nan)}, "nan"),
        ({"matrix": CoordinateMap.linear(turn(0.1, (0, 1))).matrix, "lock_z": True}, "mixes z"),
        ({"matrix": np.eye(4), "displacement": np.zeros((2, 1, 1, 1))}, "displacement: shape"),
        ({"matrix": np.eye(4), "displacement": np.full((3, 1, 1, 1), np.inf)}, "inf"),
        (
            {
                "matrix": np.eye(4),
                "displacement": np.zeros((3, 1, 1, 1)),
                "grid_spacing": (0, 1, 1),
            },
            "positive",
        ),
        ({"matrix": np.eye(4), "section_moves": np.zeros((3, 2, 2))}, "section_moves: shape"),
        ({"matrix": np.eye(4), "section_index": np.array([0, 2, 1])}, "one direction"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoordinateMap(**arguments)


def test_a_perspective_through_infinity_is_refused() -> None:
    matrix = np.eye(4)
    matrix[3, 2] = -0.1
    with pytest.raises(ValueError, match="infinity"):
        CoordinateMap(matrix).source_box(PATCH)


def test_points_on_deleted_sections_fall_between_their_neighbours() -> None:
    coordinates = CoordinateMap.sections(index=[0, 1, 4, 5], shifts=np.eye(4, 2) * 3)
    found = coordinates.inverse_points([[1, 5, 5], [4, 5, 5], [2.5, 5, 5], [7, 5, 5]])
    np.testing.assert_allclose(found[:, 0], [1, 2, 1.5, 5])
    np.testing.assert_allclose(found[0], [1, 5, 2])


def test_arrays_of_different_shapes_are_refused() -> None:
    image, label = volumes()
    with pytest.raises(ValueError, match="wanted one shape"):
        resample(CoordinateMap.identity(), PATCH, image, [label[1:]])
    with pytest.raises(ValueError, match=r"wanted \(C, Z, Y, X\)"):
        resample(CoordinateMap.identity(), PATCH, label)


def test_memory_maps_are_read_like_arrays(tmp_path: Path) -> None:
    image, label = volumes()
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "label.npy", label)
    coordinates = CoordinateMap.linear(turn(0.4), source_centre=(2, 8, 9))
    wanted, (ids,) = resample(coordinates, PATCH, image, [label])
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "label")]
    found, (same,) = resample(coordinates, PATCH, mapped[0], [mapped[1]])
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(same, ids)


def test_nothing_cannot_be_read() -> None:
    image, _ = volumes()
    with pytest.raises(ValueError, match="holds no voxel"):
        resample(CoordinateMap.identity(), PATCH, image[:, :0], border="fill")
    with pytest.raises(ValueError, match="out_shape"):
        resample(CoordinateMap.identity(), (0, 4, 4), image)
    with pytest.raises(ValueError, match="1, 2, 4 or 8 bytes"):
        resample(CoordinateMap.identity(), PATCH, None, [np.zeros(SOURCE, np.complex128)])


@pytest.mark.parametrize("kind", ["shift", "flip", "swap", "sections"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_stays_one_voxel_where_voxels_are_copied(kind: str, value: float) -> None:
    image = np.random.default_rng(0).random((1, 7, 9, 9)).astype(np.float32)
    for at in ((3, 4, 5), (0, 0, 0), (6, 8, 8), (5, 7, 7)):
        image[(0, *at)] = value
    flip, swap = np.eye(4), np.eye(4)[[0, 2, 1, 3]]
    flip[2, 2], flip[2, 3], flip[0, 0], flip[0, 3] = -1, 8, -1, 6
    maps = {
        "shift": CoordinateMap.linear(np.eye(3), source_centre=(1, 2, 1)),
        "flip": CoordinateMap(flip),
        "swap": CoordinateMap(swap),
        "sections": CoordinateMap.sections(shifts=[[0, n % 2] for n in range(6)]),
    }
    wanted = {
        "shift": image[:, 1:, 2:, 1:],
        "flip": image[:, ::-1, :, ::-1],
        "swap": image.swapaxes(2, 3),
        "sections": np.stack(
            [image[:, n, :, n % 2 : n % 2 + 8] for n in range(6)], 1
        ),
    }[kind]  # fmt: skip
    found, _ = resample(maps[kind], wanted.shape[1:], image)
    np.testing.assert_array_equal(found, wanted)
    # The general kernel, which reads neighbours along z too.
    tilted = CoordinateMap.elastic(np.zeros((3, 2, 2, 2)), (6, 8, 8))
    found, _ = resample(tilted, image.shape[1:], image)
    np.testing.assert_array_equal(found, image)


@given(st.integers(-3, 3), st.integers(0, 2))
def test_labels_half_way_take_the_higher_voxel_wherever_they_are(start: int, axis: int) -> None:
    label = np.arange(6 * 6 * 6, dtype=np.uint16).reshape(6, 6, 6)
    linear, centre = np.eye(3), np.zeros(3)
    centre[axis] = 0.5
    shape = [6, 6, 6]
    shape[axis] = 5
    coordinates = CoordinateMap.linear(linear, source_centre=centre)
    _, (found,) = resample(coordinates, shape, labels=[label])
    np.testing.assert_array_equal(found, np.take(label, range(1, 6), axis))
    _, (moved,) = resample(
        coordinates.relative_to([-start * (a == axis) for a in range(3)]), shape, labels=[label],
        origin=[start * (a == axis) for a in range(3)],
    )  # fmt: skip
    np.testing.assert_array_equal(moved, found)
