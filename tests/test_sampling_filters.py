"""Patch filters: what they leave out, their maps, and how they make patches rarer."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from volprep.geometry import Box
from volprep.patching import StratifiedPatching, expected_coverage
from volprep.sampling import (
    MaskPatchFilter,
    MaxPatchFilter,
    MeanStdPatchFilter,
    ShannonPatchFilter,
    create_patch_filter,
    filter_patches,
    region_values,
    spread_regions,
)


class Image:
    """(C, Z, Y, X) in memory."""

    spacing = None

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def read(self, box=None):
        return self.array if box is None else self.array[(slice(None), *box.slices)]


def slow_map(image, patch_size, value):
    """The largest value of the regions that hold each voxel, region by region."""
    result = np.full(image.shape, -math.inf)
    grid = [(n + 1) // p for n, p in zip(image.shape, patch_size, strict=True)]
    for cell in np.ndindex(*grid):
        region = tuple(slice(c * p, (c + 2) * p) for c, p in zip(cell, patch_size, strict=True))
        if image[region].size:
            result[region] = np.maximum(result[region], value(image[region]))
    return result


@given(st.integers(0, 2**32), st.integers(2, 3), st.data())
def test_a_map_holds_the_largest_value_of_the_regions_around_each_voxel(seed, ndim, data):
    patch = data.draw(st.lists(st.integers(1, 5), min_size=ndim, max_size=ndim))
    shape = [data.draw(st.integers(p, 14)) for p in patch]
    image = np.random.default_rng(seed).integers(0, 50, shape).astype(np.uint16)
    mean_std = MeanStdPatchFilter.filter_map(image, patch)
    np.testing.assert_allclose(mean_std[0], slow_map(image, patch, np.mean))
    np.testing.assert_allclose(mean_std[1], slow_map(image, patch, np.std))
    covered = MaskPatchFilter.filter_map(image > 25, patch)
    np.testing.assert_allclose(covered, slow_map(image > 25, patch, np.mean))


@given(st.integers(0, 2**32), st.floats(0.01, 1), st.integers(0, 60))
def test_the_max_filter_and_its_value_agree(seed, coverage, threshold):
    patch = np.random.default_rng(seed).integers(0, 60, (8, 10)).astype(np.uint8)
    chosen = MaxPatchFilter(threshold, coverage)
    wide = maximum_filter(patch, (4, 5), mode="constant")
    expected = np.mean(wide > threshold) < coverage
    assert chosen.filter_out(patch) == expected
    assert (chosen.values(patch)[0] <= threshold) == expected


def test_the_max_filter_asks_for_a_quarter_in_2d_and_an_eighth_in_3d():
    flat, deep = np.zeros((16, 16)), np.zeros((16, 16, 16))
    flat[:4, :4] = deep[:6, :6, :6] = 1
    for patch, share in ((flat, 0.25), (deep, 0.125)):
        reached = MaxPatchFilter(0.5).filter_out(patch)
        assert reached == MaxPatchFilter(0.5, share).filter_out(patch)
    assert MaxPatchFilter(0.5).filter_out(np.zeros((16, 16)))


def test_entropy_is_that_of_the_grey_values():
    skimage = pytest.importorskip("skimage.measure")
    patch = np.random.default_rng(0).integers(0, 20, (8, 8, 8))
    assert ShannonPatchFilter(1).values(patch)[0] == pytest.approx(skimage.shannon_entropy(patch))
    assert ShannonPatchFilter(0.1).filter_out(np.full((4, 4), 7))
    assert not ShannonPatchFilter(0).filter_out(np.full((4, 4), 7))


def test_a_threshold_that_is_just_reached_keeps_a_region():
    patch = np.array([[0, 10], [0, 10]])
    assert not MeanStdPatchFilter(5, 5).filter_out(patch)
    assert MeanStdPatchFilter(5.01, 5).filter_out(patch)
    assert MeanStdPatchFilter(5, 5.01).filter_out(patch)
    assert not MaskPatchFilter(0.5).filter_out(patch)
    assert MaskPatchFilter(0.51).filter_out(patch)


def test_applying_a_threshold_to_a_map_keeps_what_the_filter_keeps():
    image = np.random.default_rng(0).integers(0, 90, (24, 24)).astype(np.uint8)
    image[:12] //= 9
    patch = (6, 6)
    cases = [
        (MaxPatchFilter(60), (60,)),
        (MeanStdPatchFilter(30, 15), (30, 15)),
        (ShannonPatchFilter(5), (5,)),
        (MaskPatchFilter(0.97), (0.97,)),
    ]
    for chosen, thresholds in cases:
        kept = type(chosen).apply_filter(chosen.filter_map(image, patch), *thresholds)
        expected = slow_map(image, patch, lambda region: not chosen.filter_out(region))  # noqa: B023
        if len(thresholds) == 1:  # two maps may each be reached in another region
            np.testing.assert_array_equal(kept, expected == 1)
        assert kept.any()
        assert not kept.all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_filtered_regions_give_a_tenth_of_their_patches(ndim):
    shape, patch = (40,) * ndim, (8,) * ndim
    image = np.random.default_rng(0).integers(100, 110, (2, *(1,) * (3 - ndim), *shape))
    image[1, ..., :20] = 3  # the second channel is dark in one half
    patching = StratifiedPatching([(1, 2, *shape)], patch, 0)
    before, plain = patching.n_patches, expected_coverage(patching)
    (found,) = filter_patches(patching, [Image(image)], MeanStdPatchFilter(50), ref_channel=1)
    kept = found.kept
    assert found.values.shape == (2, *kept.shape)
    np.testing.assert_array_equal(kept, found.values[0] >= 50)
    assert kept.shape == (5,) * ndim
    assert not kept[..., :1].any()
    assert kept[..., 2:].all()
    assert patching.n_patches < before
    share = expected_coverage(patching)[..., :8].sum() / plain[..., :8].sum()
    assert share < 0.3


def test_a_filter_can_look_at_a_block_of_the_volume():
    image = np.zeros((1, 20, 30, 30), np.uint8)
    image[:, 4:, 10:, 10:] = 1
    box = Box((4, 10, 10), (20, 30, 30))
    patching = StratifiedPatching([(1, 1, *box.shape)], (8, 10, 10), 0)
    seen = []
    (found,) = filter_patches(
        patching, [Image(image)], MaskPatchFilter(1), boxes=[box], progress=seen.append
    )
    assert found.kept.all()
    assert sum(seen) == found.kept.size
    values = region_values(Image(image), (8, 10, 10), MaskPatchFilter(1).values)
    assert values.shape == (1, 2, 3, 3)
    assert values[0, 0, 0, 0] == pytest.approx(12 * 10 * 10 / (16 * 20 * 20))


def test_a_stack_without_anything_to_look_at_is_kept():
    patching = StratifiedPatching([(1, 1, 20, 20, 20)], (8, 8, 8), 0)
    before = patching.n_patches
    (found,) = filter_patches(patching, [None], MaskPatchFilter(1))
    assert found.kept.all()
    assert len(found.values) == 0
    assert patching.n_patches == before


def test_regions_spread_to_the_voxels_that_are_asked_for():
    values = np.array([[1.0, 5.0, 2.0]])
    np.testing.assert_array_equal(
        spread_regions(values, [4], [[0, 3, 4, 9, 13]]), [[1, 1, 5, 5, 2]]
    )


def test_filters_are_made_by_name():
    assert create_patch_filter("max", threshold=3) == MaxPatchFilter(3)
    assert create_patch_filter("mean_std", mean_threshold=3) == MeanStdPatchFilter(3)
    with pytest.raises(ValueError, match="wanted one of max"):
        create_patch_filter("maximum", threshold=3)
    with pytest.raises(ValueError, match="unexpected keyword"):
        create_patch_filter("mask", threshold=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeanStdPatchFilter(-1),
        lambda: MeanStdPatchFilter(1, -1),
        lambda: ShannonPatchFilter(-1),
        lambda: MaskPatchFilter(1.1),
        lambda: MaxPatchFilter.filter_map(np.zeros((4, 4)), (2, 2, 2)),
    ],
)
def test_impossible_thresholds_are_refused(make):
    with pytest.raises(ValueError, match=r"must|axes"):
        make()
