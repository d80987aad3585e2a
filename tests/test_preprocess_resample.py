"""Resampling against scipy, against an exact vote, and region against whole."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import KDTree

from volprep.errors import PlanError
from volprep.geometry import Box, Spacing3
from volprep.preprocess import (
    ResampledVolume,
    label_ids,
    lost_ids,
    resample_image,
    resample_labels,
    resampled_shape,
    separate_axis,
)
from volprep.preprocess.grid import AxisMap

SIZES = st.integers(1, 17)
SHAPES = st.tuples(SIZES, SIZES, SIZES)


class Held:
    """A volume in memory that counts the voxels it hands out."""

    def __init__(self, array: np.ndarray[Any, Any], spacing: Spacing3 | None = None) -> None:
        self.array, self.spacing, self.voxels_read = array, spacing, 0
        self.shape, self.dtype = array.shape, array.dtype

    def read(self, box: Box | None = None) -> np.ndarray[Any, Any]:
        """The voxels of `box`."""
        box = Box.whole(self.shape) if box is None else box
        assert box.clip(self.shape) == box
        self.voxels_read += box.size
        return self.array[(slice(None), *box.slices)]


def drawn(shape: tuple[int, ...], seed: int, dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    """Random integers over the whole range of the type."""
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(
        limits.min, limits.max, shape, dtype=dtype, endpoint=True
    )


def blobs(shape: tuple[int, int, int], seed: int, dtype: Any = np.uint16) -> np.ndarray[Any, Any]:
    """Touching objects with some background, ids with gaps."""
    rng = np.random.default_rng(seed)
    count = max(2, int(np.prod(shape)) // 60)
    centres = rng.uniform(0, 1, (count, 3)) * shape
    nearest = KDTree(centres).query(np.stack(np.indices(shape), -1))[1]
    ids = rng.integers(0, np.iinfo(dtype).max, count, dtype=dtype, endpoint=True)
    ids[0] = 0
    return ids[nearest]


def zoomed(channel: Any, new_shape: tuple[int, ...], order: int) -> Any:
    """What scipy gives on the same grid."""
    zoom = [m / n for m, n in zip(new_shape, channel.shape, strict=True)]
    return ndimage.zoom(
        channel.astype(np.float64), zoom, order=order, mode="nearest", grid_mode=True
    )


def voted(labels: Any, new_shape: tuple[int, ...]) -> Any:
    """The majority of the linear weights voxel by voxel, in exact fractions."""
    out = np.empty(new_shape, labels.dtype)
    for index in np.ndindex(*new_shape):
        sides: list[list[tuple[int, Fraction]]] = []
        nearest = []
        for i, n, m in zip(index, labels.shape, new_shape, strict=True):
            x = Fraction((2 * i + 1) * n - m, 2 * m)
            low = x.numerator // x.denominator
            rest = x - low
            ends = [min(max(low + k, 0), n - 1) for k in (0, 1)]
            sides.append([(ends[0], 1 - rest), (ends[1], rest)])
            nearest.append(ends[1] if rest >= Fraction(1, 2) else ends[0])
        weight: dict[int, Fraction] = {}
        for (z, wz), (y, wy), (x_, wx) in product(*sides):
            key = int(labels[z, y, x_])
            weight[key] = weight.get(key, Fraction(0)) + wz * wy * wx
        best = max(weight.values())
        winners = [key for key, w in weight.items() if w == best]
        own = int(labels[tuple(nearest)])
        if own in winners:
            out[index] = own
        else:
            out[index] = winners[0] if len(winners) == 1 else 0  # 0: any of several is right
    return out


@settings(max_examples=60)
@given(SHAPES, SHAPES, st.sampled_from([3, 1]), st.integers(0, 99))
def test_images_agree_with_scipy_to_a_ten_thousandth_of_the_range(shape, new_shape, order, seed):
    image = drawn((1, *shape), seed).astype(np.float32)
    ours = resample_image(image, new_shape, order=order)
    theirs = zoomed(image[0], new_shape, order)
    assert ours.shape == (1, *new_shape)
    assert np.abs(ours[0] - theirs).max() <= 1e-4 * 255


def test_images_agree_with_scipy_on_longer_axes():
    image = drawn((2, 31, 70, 90), 3, np.uint16).astype(np.float32)
    ours = resample_image(image, (40, 53, 133))
    for channel, result in zip(image, ours, strict=True):
        assert np.abs(result - zoomed(channel, (40, 53, 133), 3)).max() <= 1e-4 * 65535


@given(SHAPES, SHAPES, st.integers(0, 99))
def test_order_zero_takes_the_nearest_sample(shape, new_shape, seed):
    image = drawn((1, *shape), seed)
    assert (resample_image(image, new_shape, order=0)[0] == zoomed(image[0], new_shape, 0)).all()


def test_same_shape_gives_the_same_voxels():
    for dtype in (np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64):
        image = drawn((2, 5, 6, 7), 1, np.int8).astype(dtype)
        result = resample_image(image, (5, 6, 7))
        assert result.dtype == dtype
        assert (result == image).all()


def test_integers_are_rounded_and_cut_to_their_range():
    image = np.zeros((1, 1, 8, 8), np.uint8)
    image[..., 4:] = 255
    exact = resample_image(image, (1, 8, 19), dtype=np.float64)
    assert exact.min() < -5
    assert exact.max() > 260
    result = resample_image(image, (1, 8, 19))
    assert result.dtype == np.uint8
    assert (result == np.clip(np.rint(exact), 0, 255)).all()


def test_wide_integers_are_resampled_in_double_precision():
    image = drawn((1, 6, 7, 8), 4, np.uint32)
    result = resample_image(image, (6, 9, 11))
    theirs = np.clip(zoomed(image[0], (6, 9, 11), 3), 0, 2**32 - 1)
    assert np.abs(result[0].astype(np.float64) - theirs).max() <= 1e-4 * 2**32


def test_big_endian_images_are_resampled():
    image = drawn((1, 4, 9, 9), 5, np.uint16)
    swapped = image.astype(">u2")
    assert (resample_image(swapped, (4, 12, 7)) == resample_image(image, (4, 12, 7))).all()


def test_the_axis_apart_takes_its_own_order():
    image = drawn((1, 6, 20, 20), 6).astype(np.float32)
    result = resample_image(image, (9, 30, 30), separate=0)
    sections = np.stack([zoomed(plane[None], (1, 30, 30), 3)[0] for plane in image[0]])
    nearest = np.floor((np.arange(9) + 0.5) * 6 / 9).astype(int)
    assert np.abs(result[0] - sections[nearest]).max() < 1e-2


@given(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 99))
def test_labels_are_the_majority_of_the_linear_weights(shape, new_shape, seed):
    labels = drawn(shape, seed, np.uint8) % 3 + 1
    ours, reference = resample_labels(labels, new_shape), voted(labels, new_shape)
    certain = reference > 0
    assert (ours[certain] == reference[certain]).all()
    assert set(np.unique(ours)) <= set(np.unique(labels))


def test_a_tie_goes_to_the_nearest_sample():
    labels = np.array([[[1, 2]]], np.uint8)
    # Output centres lie at -1/6 .. of three voxels on two: the middle one is halfway.
    assert resample_labels(labels, (1, 1, 3)).tolist() == [[[1, 2, 2]]]
    # A plane of four: the corner voxel of its own id beats three thirds by nothing but place.
    assert resample_labels(np.array([[[1, 1], [2, 2]]], np.uint8), (1, 1, 1)).item() == 2


def test_no_background_is_invented_where_three_labels_touch():
    labels = np.full((1, 30, 30), 1, np.uint16)
    labels[:, :, 15:] = 2
    labels[:, 15:, 10:20] = 3
    assert 0 not in resample_labels(labels, (1, 47, 41))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">u4"])
def test_ids_keep_their_width_and_value(dtype):
    top = np.iinfo(np.dtype(dtype)).max
    labels = np.zeros((4, 6, 6), dtype)
    labels[:, :3] = top
    labels[:, 3:] = top - 1
    result = resample_labels(labels, (4, 9, 9))
    assert result.dtype == np.dtype(dtype).newbyteorder("=")
    assert set(result.ravel().tolist()) == {top, top - 1}


def test_labels_that_are_not_integers_are_refused():
    with pytest.raises(TypeError, match="float64"):
        resample_labels(np.zeros((2, 2, 2)), (3, 3, 3))


def test_boolean_masks_are_resampled():
    mask = np.zeros((1, 8, 8), bool)
    mask[:, 2:6, 2:6] = True
    result = resample_labels(mask, (1, 16, 16))
    assert result.dtype == np.bool_
    assert result.sum() == 4 * mask.sum()


def test_lost_ids_are_named():
    labels = np.zeros((8, 8, 8), np.uint64)
    labels[0, 0, 0] = 2**64 - 1
    labels[4:, 4:, 4:] = 7
    assert lost_ids(labels, resample_labels(labels, (3, 3, 3))).tolist() == [2**64 - 1]


@given(st.integers(0, 99), st.sampled_from([np.uint8, np.uint16, np.int32, np.uint64, np.int64]))
def test_label_ids_are_those_of_unique(seed, dtype):
    labels = blobs((7, 8, 9), seed, dtype)
    assert (label_ids(labels) == np.unique(labels)).all()
    assert label_ids(labels).dtype == labels.dtype


def test_label_ids_hold_where_hashes_collide():
    labels = (np.arange(60_000, dtype=np.uint32) * 4096).repeat(7).reshape(3, 1400, 100)
    assert (label_ids(labels) == np.unique(labels)).all()


@given(st.data(), st.booleans(), st.sampled_from([3, 1, 0]))
def test_a_region_is_bit_for_bit_that_of_the_whole(data, labels, order):
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 3))
    new_shape = data.draw(st.tuples(*[st.integers(1, 50)] * 3))
    array = blobs(shape, 1)[None] if labels else drawn((2, *shape), 1, np.uint16)
    dtype = None if labels else data.draw(st.sampled_from([None, np.float32]))
    volume = ResampledVolume(Held(array), shape=new_shape, labels=labels, order=order, dtype=dtype)
    corners = [
        sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in new_shape
    ]
    start, stop = zip(*corners, strict=True)
    box = Box(start, stop)
    whole = volume.read()
    assert whole.dtype == volume.dtype
    assert np.array_equal(volume.read(box), whole[(slice(None), *box.slices)])
    if labels:
        assert np.array_equal(whole[0], resample_labels(array[0], new_shape))


@given(st.data(), st.booleans())
def test_slabs_are_the_volume_and_read_each_voxel_once(data, labels):
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 3))
    new_shape = data.draw(st.tuples(*[st.integers(1, 50)] * 3))
    depth = data.draw(st.integers(1, 20))
    array = blobs(shape, 2)[None] if labels else drawn((2, *shape), 2, np.uint8)
    source = Held(array)
    volume = ResampledVolume(source, shape=new_shape, labels=labels)
    whole = volume.read()
    source.voxels_read = 0
    covered = 0
    for box, slab in volume.slabs(depth):
        assert np.array_equal(slab, whole[(slice(None), *box.slices)])
        covered += box.size
    assert covered == whole[0].size
    assert source.voxels_read <= array[0].size


def test_slabs_walk_a_part_of_the_volume():
    volume = ResampledVolume(Held(drawn((1, 30, 40, 40), 3)), shape=(45, 60, 50))
    whole, part = volume.read(), Box((10, 20, 5), (40, 55, 50))
    for box, slab in volume.slabs(8, within=part):
        assert part.contains(box)
        assert np.array_equal(slab, whole[(slice(None), *box.slices)])


def test_a_box_reads_only_its_neighbourhood():
    source = Held(drawn((1, 200, 200, 200), 4))
    volume = ResampledVolume(source, shape=(300, 300, 300))
    volume.read(Box.at((140, 140, 140), (6, 6, 6)))
    assert source.voxels_read <= 26**3


def test_a_box_beyond_the_volume_is_refused():
    volume = ResampledVolume(Held(drawn((1, 4, 4, 4), 4)), shape=(8, 8, 8))
    with pytest.raises(ValueError, match="beyond"):
        volume.read(Box((0, 0, 0), (9, 8, 8)))


def test_the_spacing_is_the_extent_over_the_voxels():
    volume = ResampledVolume(Held(drawn((1, 10, 20, 30), 5), (0.3, 0.1, 0.1)), (0.2, 0.15, 0.15))
    assert volume.shape == (1, 15, 13, 20)
    assert volume.spacing == pytest.approx((0.2, 2 / 13, 0.15))


def test_a_target_without_a_spacing_is_refused():
    with pytest.raises(PlanError, match="spacing is unknown"):
        ResampledVolume(Held(drawn((1, 4, 4, 4), 4)), (1.0, 1.0, 1.0))


def test_the_coarse_axis_is_apart_by_spacing_and_not_by_voxels():
    thin = Held(drawn((1, 8, 64, 64), 6), (0.1, 0.1, 0.1))
    fine = ResampledVolume(thin, (0.05, 0.1, 0.1))
    assert np.array_equal(fine.read(), resample_image(thin.array, (16, 64, 64)))
    thick = Held(thin.array, (0.4, 0.1, 0.1))
    apart = ResampledVolume(thick, (0.2, 0.1, 0.1))
    assert np.array_equal(apart.read(), np.repeat(thin.array, 2, axis=1))


def test_a_flat_axis_stays_flat():
    assert resampled_shape((1, 1, 100, 100), (1.0, 0.2, 0.2), (0.1, 0.1, 0.4)) == (1, 200, 50)


def test_separate_axis_asks_the_volume_then_the_result():
    assert separate_axis((0.3, 0.1, 0.1)) == 0
    assert separate_axis((0.1, 0.1, 0.5)) == 2
    assert separate_axis((0.1, 0.1, 0.1)) is None
    assert separate_axis((0.1, 0.1, 0.1), (0.5, 0.1, 0.1)) == 0
    assert separate_axis((0.5, 0.5, 0.1), (0.5, 0.1, 0.1)) is None
    assert separate_axis((0.3, 0.1, 0.1), ratio=4) is None


@given(st.integers(2, 90), st.integers(2, 90), st.sampled_from([0, 1, 3]))
def test_what_lies_beyond_the_reach_is_made_of_other_samples(n: int, m: int, order: Any) -> None:
    axis = AxisMap(n, m, order)
    for stop in range(1, m - axis.reach):
        start = stop + axis.reach
        assert axis.source_range(0, stop)[1] <= start * n // m
        assert axis.source_range(start, m)[0] >= -(-stop * n // m)
