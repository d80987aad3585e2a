"""The intensity kernels against slow and obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from volprep.augment.program import (
    Band,
    Program,
    cell_means,
    gaussian,
    low_resolution,
    moving_mean,
)
from volprep.augment.scale import Scale
from volprep.geometry import Box

SHAPE = (5, 24, 31)
UNIT = Scale(0, 1, 0.5)


def volume(low: float = 0.0, high: float = 1.0, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(SHAPE, np.float32)
    return (low + (high - low) * drawn).astype(np.float32)


def dense(band: Band) -> np.ndarray:
    length = len(band.starts)
    matrix = np.zeros((length, length))
    for i in range(length):
        for q, weight in enumerate(band.weights[:, i]):
            if weight:
                matrix[i, band.starts[i] + q] += weight
    return matrix


@given(
    contrast=st.floats(0.2, 3),
    brightness=st.floats(0.5, 2),
    gamma=st.one_of(st.just(1.0), st.floats(0.3, 3)),
    inverted=st.booleans(),
    clip=st.booleans(),
    low=st.sampled_from([0.0, -3.0, 100.0]),
    span=st.sampled_from([1.0, 8.0, 60000.0]),
)
def test_levels_follow_the_formula_in_any_range(
    contrast: float, brightness: float, gamma: float, inverted: bool, clip: bool,
    low: float, span: float,
) -> None:  # fmt: skip
    image = volume(low - 0.2 * span, low + 1.4 * span)
    mean = float(image.mean())
    program = Program(SHAPE)
    program.levels(
        contrast=contrast, brightness=brightness, gamma=gamma, inverted=inverted, clip=clip
    )
    changed = image.copy()
    program.run(changed, Scale(low, low + span, mean))
    unit, middle = (image.astype(np.float64) - low) / span, (mean - low) / span
    unit = ((unit - middle) * contrast + middle) * brightness
    if clip:
        unit = np.clip(unit, 0, 1)
    inside = np.clip(unit, 0, 1) ** gamma
    unit = np.where(unit <= 0, unit, np.where(unit < 1, inside, 1 + gamma * (unit - 1)))
    expected = low + span * (1 - unit if inverted else unit)
    np.testing.assert_allclose(changed, expected, atol=1e-3 * span)


def test_levels_of_nothing_change_no_bit() -> None:
    image = volume(-7, 1234)
    program = Program(SHAPE)
    program.levels()
    changed = image.copy()
    program.run(changed, Scale(13, 900, 333.3))
    np.testing.assert_array_equal(changed, image)


@given(gamma=st.floats(0.3, 3), inverted=st.booleans())
def test_gamma_keeps_the_order_of_all_values(gamma: float, inverted: bool) -> None:
    image = np.linspace(-2, 5, 64, dtype=np.float32).reshape(1, 8, 8)
    program = Program((1, 8, 8))
    program.levels(gamma=gamma, inverted=inverted)
    program.run(image, UNIT)
    steps = np.diff(image.ravel())
    assert (steps < 0).all() if inverted else (steps > 0).all()


def test_levels_touch_only_their_sections() -> None:
    image = volume()
    program = Program(SHAPE)
    program.levels((1, 3), brightness=0.5)
    changed = image.copy()
    program.run(changed, UNIT)
    np.testing.assert_array_equal(changed[[0, 3, 4]], image[[0, 3, 4]])
    np.testing.assert_allclose(changed[1:3], image[1:3] * 0.5, atol=1e-6)


def test_a_constant_image_stays_as_it_is() -> None:
    image = np.full(SHAPE, 7, np.float32)
    program = Program(SHAPE)
    program.levels(contrast=2, brightness=0.3, gamma=0.5)
    program.noise(program.whole, "normal", 0.5, (1, 2))
    program.noise(program.whole, "poisson", 10, (1, 2))
    program.run(image, Scale(7, 7, 0.5))
    assert np.all(image == 7)


def test_not_a_number_does_not_spread() -> None:
    image = volume()
    image[2, 3, 4] = np.nan
    program = Program(SHAPE)
    program.levels(contrast=1.1, gamma=1.7)
    program.noise(program.whole, "normal", 0.1, (1, 2))
    program.run(image, UNIT)
    others = np.ones(SHAPE, bool)
    others[2, 3, 4] = False
    assert np.isfinite(image[others]).all()


@pytest.mark.parametrize(("kind", "spread"), [("uniform", 0.1 / np.sqrt(3)), ("normal", 0.1)])
def test_noise_has_the_spread_it_says(kind: str, spread: float) -> None:
    shape = (16, 128, 128)
    image = np.full(shape, 0.5, np.float32)
    program = Program(shape)
    program.noise(program.whole, kind, 0.1, (12345, 678))  # type: ignore[arg-type]
    program.run(image, UNIT)
    assert image.mean() == pytest.approx(0.5, abs=1e-3)
    assert image.std() == pytest.approx(spread, rel=0.01)
    flat = (image - 0.5).ravel()
    for lag in (1, 128, 128 * 128):
        assert abs(np.corrcoef(flat[lag:], flat[:-lag])[0, 1]) < 0.01
    if kind == "normal":
        assert np.mean((flat / spread) ** 4) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("photons", [4.0, 40.0, 400.0])
def test_photons_have_poisson_mean_and_variance(photons: float) -> None:
    shape = (16, 128, 128)
    image = np.full(shape, 0.5, np.float32)
    program = Program(shape)
    program.noise(program.whole, "poisson", photons, (3, 4))
    program.run(image, Scale(0, 4, 0.5))
    counts = image / 4 * photons
    assert counts.mean() == pytest.approx(photons / 8, rel=0.02)
    assert counts.var() == pytest.approx(photons / 8, rel=0.02)
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)


def test_noise_depends_on_the_seed_and_on_nothing_else() -> None:
    def noisy(seed: tuple[int, int], box: Box) -> np.ndarray:
        image = np.full(SHAPE, 0.5, np.float32)
        program = Program(SHAPE)
        program.noise(box, "normal", 0.1, seed)
        program.run(image, UNIT)
        return image

    whole, part = Box.whole(SHAPE), Box((1, 2, 3), (4, 20, 30))
    np.testing.assert_array_equal(noisy((1, 2), whole), noisy((1, 2), whole))
    np.testing.assert_array_equal(
        noisy((1, 2), whole)[part.slices], noisy((1, 2), part)[part.slices]
    )
    assert np.mean(noisy((1, 2), whole) == noisy((1, 3), whole)) < 0.01
    assert np.mean(noisy((1, 2), whole) == noisy((2, 2), whole)) < 0.01


@given(
    axis=st.integers(0, 2),
    start=st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)),
    size=st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 20)),
    maker=st.sampled_from(["mean", "gaussian", "cells", "low"]),
    amount=st.floats(1.0, 6.0),
)
def test_a_filter_is_its_matrix_inside_its_box(
    axis: int, start: tuple[int, ...], size: tuple[int, ...], maker: str, amount: float
) -> None:
    box = Box.at(start, size)
    length = box.shape[axis]
    band = {
        "mean": lambda: moving_mean(length, int(amount)),
        "gaussian": lambda: gaussian(length, amount / 2),
        "cells": lambda: cell_means(length, amount),
        "low": lambda: low_resolution(length, amount),
    }[maker]()
    matrix = dense(band)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    image = volume()
    program = Program(SHAPE)
    program.filter(box, axis, band)
    changed = image.copy()
    program.run(changed, UNIT)
    expected = image.astype(np.float64)
    inside = np.moveaxis(expected[box.slices], axis, 0)
    expected[box.slices] = np.moveaxis(np.tensordot(matrix, inside, 1), 0, axis)
    np.testing.assert_allclose(changed, expected, atol=1e-5)


@given(length=st.integers(1, 40), sigma=st.floats(0.3, 4), size=st.integers(1, 15))
def test_filters_mirror_at_the_borders_as_scipy_does(length: int, sigma: float, size: int) -> None:
    line = np.random.default_rng(length).random(length)
    radius = max(1, int(np.ceil(3 * sigma)))
    smoothed = ndimage.gaussian_filter1d(line, sigma, mode="mirror", radius=radius)
    np.testing.assert_allclose(dense(gaussian(length, sigma)) @ line, smoothed, atol=1e-5)
    mean = ndimage.correlate1d(line, np.ones(size) / size, mode="mirror")
    np.testing.assert_allclose(dense(moving_mean(length, size)) @ line, mean, atol=1e-5)


@given(
    normal=st.tuples(st.floats(-2, 2), st.floats(-2, 2)).filter(lambda n: any(n)),
    offset=st.floats(-20, 50),
    width=st.floats(0, 12),
)
def test_a_band_is_every_voxel_near_its_line(
    normal: tuple[float, float], offset: float, width: float
) -> None:
    image = volume()
    program = Program(SHAPE)
    program.band(2, normal, offset, width)
    changed = image.copy()
    program.run(changed, UNIT)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    distance = np.abs(normal[0] * y + normal[1] * x - offset)
    clear = np.abs(distance - width) > 1e-6
    mean = image[2].mean(dtype=np.float64)
    expected = np.where(distance <= width, np.float32(mean), image[2])
    np.testing.assert_allclose(changed[2][clear], expected[clear], atol=1e-6)
    np.testing.assert_array_equal(changed[[0, 1, 3, 4]], image[[0, 1, 3, 4]])


def test_steps_run_in_their_order_across_filters_through_sections() -> None:
    image = volume()
    together, apart = image.copy(), image.copy()
    band = gaussian(SHAPE[0], 0.8)
    program = Program(SHAPE)
    program.levels(contrast=1.2, brightness=0.9)
    program.filter(program.whole, 0, band)
    program.filter(program.whole, 2, gaussian(SHAPE[2], 1.0))
    program.levels(gamma=0.6)
    program.fill(Box((0, 0, 0), (1, 4, 5)), 0.25)
    program.run(together, UNIT)
    for build in (
        lambda p: p.levels(contrast=1.2, brightness=0.9),
        lambda p: p.filter(p.whole, 0, band),
        lambda p: p.filter(p.whole, 2, gaussian(SHAPE[2], 1.0)),
        lambda p: p.levels(gamma=0.6),
        lambda p: p.fill(Box((0, 0, 0), (1, 4, 5)), 0.25),
    ):
        single = Program(SHAPE)
        build(single)
        single.run(apart, UNIT)
    np.testing.assert_array_equal(together, apart)
    assert np.all(together[0, :4, :5] == 0.25)


def test_a_filter_of_the_wrong_length_is_refused() -> None:
    program = Program(SHAPE)
    with pytest.raises(ValueError, match="wanted 24 along axis 1"):
        program.filter(program.whole, 1, gaussian(10, 1.0))
    program.levels()
    with pytest.raises(ValueError, match="wanted float32"):
        program.run(np.zeros((2, 2, 2), np.float32), UNIT)
