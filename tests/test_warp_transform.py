"""Random warps: that they fit at once, where they look, and that turns are uniform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from volprep.geometry import Box
from volprep.randomness import sample_generator
from volprep.warp import (
    draw_displacement,
    draw_warp,
    get_warped_coord_transform,
    map_of_transform,
    rotate_x,
    rotate_y,
    rotate_z,
    warp_slice,
    warp_source_shape,
)
from volprep.warp.transform import _draw_rotation

SOURCE, PATCH = (80, 260, 260), (32, 128, 128)


@given(st.integers(0, 2**32), st.booleans(), st.booleans(), st.booleans(), st.floats(0, 1))
def test_every_draw_fits_its_source_and_its_target(
    seed: int, lock_z: bool, perspective: bool, sample_aniso: bool, amount: float
) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers((20, 60, 60), (40, 90, 90)).tolist()
    inner = (np.array(source) - 2 * rng.integers(0, 4, 3)).tolist()
    draw = draw_warp(
        rng,
        source,
        (12, 32, 40),
        lock_z=lock_z,
        perspective=perspective,
        sample_aniso=sample_aniso,
        warp_amount=amount,
        target_src_shape=inner,
        target_patch_shape=(8, 24, 30),
    )
    assert Box.whole(source).contains(draw.map.source_box((12, 32, 40)))
    assert draw.shrunk == (draw.amount < amount)
    ids = np.zeros(inner, np.uint8)
    warp_slice(np.zeros(source, np.float32), (12, 32, 40), draw.matrix, ids, (8, 24, 30))


def test_one_draw_a_patch_is_enough_where_there_is_room() -> None:
    rng = np.random.default_rng(0)
    for lock_z, perspective in ((True, False), (True, True), (False, False)):
        draws = [
            draw_warp(
                rng, (300, 400, 400), PATCH, lock_z=lock_z, perspective=perspective, aniso_factor=1
            )
            for _ in range(100)
        ]
        assert sum(draw.attempts for draw in draws) == 100
        assert not any(draw.shrunk for draw in draws)


def test_a_thin_source_ends_the_search_with_a_weaker_warp() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_warp(rng, (32, 128, 128), PATCH, lock_z=False, redraws=3) for _ in range(20)]
    assert all(draw.shrunk and draw.attempts <= 15 for draw in draws)
    assert all(Box.whole(PATCH) == draw.map.source_box(PATCH) for draw in draws)


@pytest.mark.parametrize(
    ("source", "least"), [((40, 160, 160), 0.8), ((64, 256, 256), 1.0), ((48, 160, 160), 0.95)]
)
def test_warps_are_drawn_among_those_that_fit(source: tuple[int, ...], least: float) -> None:
    rng = np.random.default_rng(0)
    draws = [draw_warp(rng, source, PATCH, lock_z=False, aniso_factor=1) for _ in range(60)]
    assert np.mean([draw.strength for draw in draws]) >= least
    assert all(Box.whole(source).contains(draw.map.source_box(PATCH)) for draw in draws)
    assert max(draw.attempts for draw in draws) <= 1 + 4096 + 10 * 64 + 1


def test_what_is_drawn_is_as_uniform_as_the_source_allows() -> None:
    """Against the obvious way: draw from fresh, throw away what does not fit."""
    source, patch = (20, 40, 40), (16, 24, 24)
    corners = (np.array(list(np.ndindex(2, 2, 2))) - 0.5) * (np.array(patch) - 1)

    def tilt(matrix: np.ndarray) -> float:
        """Where the patch's z axis points in the source."""
        return float(np.linalg.inv(matrix[:3, :3])[0, 0])

    rng, wanted = np.random.default_rng(1), []
    while len(wanted) < 1500:
        turn = _draw_rotation(rng, 1.0, False)[:3, :3]
        reach = np.ptp(corners @ turn, axis=0)
        if (reach <= np.array(source) - 1).all():
            wanted.append(abs(turn[0, 0]))
    shear = pytest.MonkeyPatch()
    shear.setattr("volprep.warp.transform._SHEAR", 0.0)
    with shear.context():
        found = [
            abs(tilt(draw_warp(rng, source, patch, lock_z=False, aniso_factor=1).matrix))
            for _ in range(1500)
        ]
    shear.undo()
    assert kstest(found, wanted).pvalue > 0.001


@given(
    st.tuples(st.integers(2, 40), st.integers(2, 60), st.integers(2, 60)),
    st.booleans(),
    st.sampled_from([1.0, 2.0, 5.0]),
    st.booleans(),
)
def test_the_source_for_a_patch_holds_every_warp(
    patch: tuple[int, int, int], lock_z: bool, aniso: float, sample_aniso: bool
) -> None:
    options = {"aniso_factor": aniso, "sample_aniso": sample_aniso, "lock_z": lock_z}
    source = warp_source_shape(patch, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    draws = [draw_warp(rng, source, patch, **options) for _ in range(20)]  # type: ignore[arg-type]
    if not lock_z or aniso == 1.0 or sample_aniso:
        assert [draw.attempts for draw in draws] == [1] * 20


def test_warps_that_become_weak_are_told_once_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        draw_warp(rng, (9, 17, 17), (9, 17, 17), lock_z=False, redraws=0)
    told = [record for record in caplog.records if "strength" in record.message]
    assert len(told) == 2
    assert "larger source" in told[0].message


def test_a_patch_larger_than_its_source_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit into a source"):
        get_warped_coord_transform((31, 300, 300), PATCH, rng=np.random.default_rng(0))


def test_locations_are_uniform_up_to_the_faces() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_warp(rng, SOURCE, PATCH, warp_amount=0).map for _ in range(2000)]
    starts = [coordinates.source_box(PATCH).start for coordinates in draws]
    assert set(np.array(starts)[:, 0]) == set(range(SOURCE[0] - PATCH[0] + 1))
    fractions = (np.array(starts)[:, 1] + rng.random(2000)) / (SOURCE[1] - PATCH[1] + 1)
    assert kstest(fractions, "uniform").pvalue > 1e-3


def test_without_strength_flips_swaps_and_place_remain() -> None:
    rng = np.random.default_rng(1)
    volume = np.random.default_rng(2).random((9, 20, 20), dtype=np.float32)
    kinds = set()
    for _ in range(200):
        matrix = get_warped_coord_transform(volume.shape, (4, 8, 8), warp_amount=0, rng=rng)
        found, _ = warp_slice(volume, (4, 8, 8), matrix)
        assert np.isin(found, volume).all()
        kinds.add(tuple(np.rint(matrix[:3, :3]).astype(int).ravel()))
    assert len(kinds) == 16
    kept = {
        tuple(
            get_warped_coord_transform(
                volume.shape, (4, 8, 8), warp_amount=0, no_x_flip=True, rng=rng
            )[2, :3]
        )
        for _ in range(50)
    }
    assert kept == {(0, 0, 1)}


def test_a_locked_z_lies_on_whole_sections() -> None:
    rng = np.random.default_rng(1)
    for aniso in (1, 2.24, 3):
        draw = draw_warp(rng, SOURCE, PATCH, aniso_factor=aniso, perspective=True)
        z = draw.map.source_points(np.array(list(np.ndindex(5, 3, 3)), float))[:, 0]
        np.testing.assert_allclose(z, np.rint(z), atol=1e-9)
        assert draw.map.keeps_sections


def test_angles_are_uniform_over_the_circle_and_orientations_over_so3() -> None:
    rng = np.random.default_rng(0)
    flat = [_draw_rotation(rng, 1.0, True) for _ in range(2000)]
    angle = np.array([np.arctan2(m[2, 1], m[1, 1]) for m in flat])
    assert kstest(angle / (2 * np.pi) + 0.5, "uniform").pvalue > 1e-3
    free = np.array([_draw_rotation(rng, 1.0, False)[:3, :3] for _ in range(2000)])
    np.testing.assert_allclose(
        free @ free.swapaxes(1, 2), np.tile(np.eye(3), (2000, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(free), 1)
    for i in range(3):
        for j in range(3):
            # Every component of a uniform direction is uniform (Archimedes).
            assert kstest((free[:, i, j] + 1) / 2, "uniform").pvalue > 1e-3
    weak = np.array([_draw_rotation(rng, 0.1, False)[:3, :3] for _ in range(500)])
    assert np.arccos((np.trace(weak, axis1=1, axis2=2) - 1) / 2).max() <= 0.1 * np.pi + 1e-9
    assert abs((weak - weak.swapaxes(1, 2)).mean()) < 0.02


def test_each_rotation_leaves_the_axis_of_its_name() -> None:
    z, y, x = np.eye(4)[:3]
    for turn, axis, source, towards in (
        (rotate_z, z, y, x),
        (rotate_y, y, x, z),
        (rotate_x, x, z, y),
    ):
        np.testing.assert_allclose(turn(0.7) @ axis, axis)
        np.testing.assert_allclose(turn(np.pi / 2) @ source, towards, atol=1e-15)


def test_the_same_generator_draws_the_same_warp() -> None:
    first, second = (draw_warp(sample_generator(7, 1, 3), SOURCE, PATCH) for _ in range(2))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    other = draw_warp(sample_generator(7, 1, 4), SOURCE, PATCH)
    assert np.any(other.matrix != first.matrix)


def test_a_matrix_and_its_map_undo_each_other() -> None:
    rng = np.random.default_rng(3)
    for lock_z in (True, False):
        for perspective in (True, False):
            draw = draw_warp(rng, SOURCE, PATCH, lock_z=lock_z, perspective=perspective)
            points = rng.uniform(0, 30, (20, 3))
            there = draw.map.source_points(points)
            np.testing.assert_allclose(draw.map.inverse_points(there), points, atol=1e-4)
            if not (lock_z and perspective):
                back = np.c_[there, np.ones(20)] @ draw.matrix.T
                np.testing.assert_allclose(back[:, :3] / back[:, 3:], points, atol=1e-6)
            again = map_of_transform(draw.matrix.astype(np.float32))
            assert again.lock_z == (lock_z and perspective)


def test_a_displacement_gets_the_room_it_needs() -> None:
    rng = np.random.default_rng(0)
    grid = draw_displacement(rng, PATCH, magnitude=(1, 4, 4))
    assert grid.shape == (3, 3, 9, 9)
    draw = draw_warp(rng, SOURCE, PATCH, displacement=grid, grid_spacing=(16, 16, 16))
    assert Box.whole(SOURCE).contains(draw.map.source_box(PATCH))
    with pytest.raises(ValueError, match="displacement"):
        draw_warp(rng, PATCH, PATCH, displacement=grid, grid_spacing=(16, 16, 16))


def test_displacements_have_no_preferred_direction() -> None:
    rng = np.random.default_rng(0)
    grid = draw_displacement(rng, (64, 1024, 1024), magnitude=(0, 2, 2))
    assert grid.shape == (3, 1, 65, 65)
    assert not grid[0].any()
    assert abs(grid[1:].mean()) < 0.1
    assert np.abs(grid).max() <= 4
