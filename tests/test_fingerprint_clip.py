"""Where intensities are clipped, and what that cuts of the labelled voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fingerprint import of_arrays

from volprep.fingerprint import Distribution, Fingerprint, clip_bounds, clip_findings, clip_table

Array = npt.NDArray[Any]
SHAPE = (40, 60, 60)


def background(seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(100, 5, SHAPE)


def spots(image: Array, share: float, value: float = 3000) -> Array:
    """Bright voxels in a share of the volume; the mask of them."""
    rng = np.random.default_rng(1)
    at = rng.permutation(image.size)[: round(share * image.size)]
    image.reshape(-1)[at] = rng.normal(value, 50, at.size)
    mask = np.zeros(image.size, np.uint16)
    mask[at] = 1 + np.arange(at.size) % 7
    return mask.reshape(image.shape)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int64])
@pytest.mark.parametrize("share", [0.05, 0.003, 0.0005])
@pytest.mark.parametrize("labelled", [True, False])
def test_bright_signal_is_kept_with_labels_and_without(
    dtype: type, share: float, labelled: bool
) -> None:
    image = background()
    mask = spots(image, share)
    found = of_arrays([image.astype(dtype)], [mask] if labelled else None)
    (bounds,) = clip_bounds(found, "auto")
    assert bounds.high > 2900
    assert bounds.low > 70
    assert labelled == (bounds.cut is not None)
    assert not labelled or (bounds.cut is not None and bounds.cut <= 0.02)


def test_a_dark_labelled_signal_is_kept_as_well() -> None:
    image = background() + 500
    mask = spots(image, 0.003, value=20)
    (bounds,) = clip_bounds(of_arrays([image.astype(np.float32)], [mask]), "auto")
    assert bounds.low < 20
    assert 610 < bounds.high < 640


def test_broken_pixels_are_cut() -> None:
    image = background()
    image[3, 3, 3] = image[9, 9, 9] = 65535
    (bounds,) = clip_bounds(of_arrays([image.astype(np.uint16)]), "auto")
    assert bounds.high < 130


@pytest.mark.parametrize("share", [0.3, 0.006, 0.003, 0.00005])
def test_a_channel_that_is_mostly_zero_keeps_its_signal(share: float) -> None:
    image = np.zeros(SHAPE, np.uint16)
    at = np.random.default_rng(0).permutation(image.size)[: round(share * image.size)]
    image.reshape(-1)[at] = np.linspace(100, 1000, at.size)
    (bounds,) = clip_bounds(of_arrays([image]), "auto")
    assert bounds.low == 0
    assert bounds.high > 950


def test_a_rare_class_among_common_ones_is_kept() -> None:
    image = background()
    mask = spots(image, 0.001)
    mask[:20][mask[:20] == 0] = 8
    (bounds,) = clip_bounds(of_arrays([image.astype(np.uint16)], [mask]), "auto")
    assert bounds.high > 2900


def test_ordinary_intensities_are_cut_at_the_inner_percentiles() -> None:
    image = background().astype(np.float32)
    (bounds,) = clip_bounds(of_arrays([image]), "auto")
    assert (bounds.low, bounds.high) == tuple(np.percentile(image.astype(float), (0.5, 99.5)))
    assert "0.5% of all voxels" in bounds.reason


def test_each_channel_has_its_own_bounds() -> None:
    image = np.stack([background(), np.zeros(SHAPE)])
    mask = spots(image[1], 0.002)
    first, second = clip_bounds(of_arrays([image.astype(np.float32)], [mask]), "auto")
    assert first.high < 150
    assert second.high > 2900


def labelled_tail(share: float = 0.02) -> Fingerprint:
    image = background()
    mask = spots(image, share)
    return of_arrays([image.astype(np.uint16)], [mask])


def test_bounds_that_cut_labelled_signal_are_warned_of() -> None:
    found = labelled_tail()
    (bounds,) = clip_bounds(found, (0.5, 99.5))
    assert bounds.cut == pytest.approx(0.25, abs=0.01)
    (finding,) = clip_findings([bounds])
    assert "channel 0" in str(finding)
    assert "clip: auto" in str(finding)
    assert not clip_findings(clip_bounds(found, "auto"))


def test_bounds_of_one_value_are_warned_of() -> None:
    image = np.zeros(SHAPE, np.uint8)
    image[0, 0, :20] = 200
    (finding,) = clip_findings(clip_bounds(of_arrays([image]), (0.5, 99.5)))
    assert "one value" in str(finding)
    constant = of_arrays([np.full(SHAPE, 7, np.uint8)])
    assert not clip_findings(clip_bounds(constant, "auto"))


def test_the_table_has_every_pair_of_percentiles() -> None:
    (rows,) = clip_table(labelled_tail())
    assert [row["clip"] for row in rows] == ["auto", [0.01, 99.99], [0.5, 99.5], [1, 99], [5, 95]]
    cuts = [row["cut"] for row in rows]
    assert cuts[1:] == sorted(cuts[1:])  # type: ignore[type-var]
    assert [row["cut"] for row in clip_table(of_arrays([background()]))[0]] == [None] * 5


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.integers(0, 40), min_size=1, max_size=300),
    low=st.integers(-1, 41),
    high=st.integers(-1, 41),
)
def test_what_lies_outside_is_counted(values: list[int], low: int, high: int) -> None:
    low, high = min(low, high), max(low, high)
    array = np.array(values)
    singles, counts = np.unique(array, return_counts=True)
    spread = Distribution.of(singles, singles, counts)
    outside = np.mean((array < low) | (array > high))
    assert spread.outside(low, high) == pytest.approx(outside, abs=0.011)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_distribution_knows_shares_to_half_a_percent(dtype: type, sign: int) -> None:
    if sign < 0 and np.dtype(dtype).kind == "u":
        pytest.skip("has no sign")
    rng = np.random.default_rng(0)
    image = (sign * np.clip(rng.lognormal(3, 1, SHAPE), 0, 250)).astype(dtype)
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :20] = 0
    inside = image[mask > 0].astype(float)
    (spread,) = of_arrays([image], [mask]).labelled
    assert sum(spread.counts) == inside.size
    for low, high in [(5, 60), (20.5, 21.5), (0, 250), (100, 1000)]:
        a, b = sorted((sign * low, sign * high))
        outside = np.mean((inside < a) | (inside > b))
        assert spread.outside(a, b) == pytest.approx(outside, abs=0.011)


def test_a_fingerprint_with_labelled_voxels_is_read_back() -> None:
    found = labelled_tail()
    assert Fingerprint.from_dict(found.to_dict()) == found
