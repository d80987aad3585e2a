"""Fingerprints against numpy over everything at once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volprep.errors import DataCheckError, SourceError
from volprep.fingerprint import (
    PERCENTILES,
    Fingerprint,
    FingerprintInput,
    Histogram,
    MixedShapesError,
    compute_fingerprint,
    compute_median,
    data_fingerprint,
    draw_histogram,
    narrow,
    walk,
    wide,
)
from volprep.fingerprint.labels import LabelCount
from volprep.geometry import Box, aligned_blocks
from volprep.sources import open_labels, open_volume

Array = npt.NDArray[Any]


class InMemory:
    """The least that is a volume."""

    def __init__(self, voxels: Array, spacing: Any = None) -> None:
        self.voxels = voxels if voxels.ndim == 4 else voxels[np.newaxis]
        self.shape: Any = self.voxels.shape
        self.dtype = self.voxels.dtype
        self.spacing = spacing

    def read(self, box: Box | None = None) -> Array:
        return self.voxels if box is None else self.voxels[:, *box.slices]


def of_arrays(
    images: Sequence[Array], labels: Sequence[Array] | None = None, **options: Any
) -> Fingerprint:
    return compute_fingerprint(
        [
            FingerprintInput(
                str(i), partial(InMemory, image), labels and partial(InMemory, labels[i])
            )
            for i, image in enumerate(images)
        ],
        **options,
    )


def assert_is_numpy(found: Any, values: Array) -> None:
    """Every figure is that of numpy over the values, to the bit where numpy is exact."""
    exact = values.astype(np.float64)
    assert found.count == values.size
    assert found.minimum == values.min()
    assert found.maximum == values.max()
    assert list(found.percentiles.values()) == np.percentile(exact, PERCENTILES).tolist()
    if values.dtype.kind in "iu":
        numbers = [int(v) for v in values]
        n, total = len(numbers), sum(numbers)
        assert found.mean == float(Fraction(total, n))
        variance = Fraction(sum(v * v for v in numbers), n) - Fraction(total, n) ** 2
        assert found.std == math.sqrt(float(variance))
    else:
        near = 1e-13 * np.abs(exact).max()
        assert found.mean == pytest.approx(math.fsum(exact) / values.size, rel=0, abs=near)
        assert found.std == pytest.approx(exact.std(), rel=1e-9, abs=1e-300)


INTEGERS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64]
FLOATS = [np.float32, np.float64]


def some_values(rng: np.random.Generator, dtype: Any, count: int) -> Array:
    if np.dtype(dtype).kind == "f":
        return (rng.normal(0, 1, count) * 10.0 ** rng.integers(-30, 30)).astype(dtype)
    info = np.iinfo(dtype)
    low, high = max(info.min, -(2**31)), min(info.max, 2**32 - 1)
    first, last = np.sort(rng.integers(low, high, 2, endpoint=True))
    return rng.integers(first, last, count, dtype=dtype, endpoint=True)


@settings(max_examples=60)
@given(
    st.sampled_from(INTEGERS + FLOATS),
    st.lists(st.tuples(st.integers(1, 2), *[st.integers(1, 7)] * 3), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_every_figure_is_that_of_numpy(
    dtype: Any, shapes: list[tuple[int, int, int, int]], labelled: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(shapes[0][0], *shape[1:]) for shape in shapes]
    images = [some_values(rng, dtype, math.prod(shape)).reshape(shape) for shape in shapes]
    labels = [rng.integers(0, 3, shape[1:], dtype=np.uint8) for shape in shapes]
    found = of_arrays(images, labels if labelled else None, workers=1)
    for c in range(shapes[0][0]):
        everything = np.concatenate([image[c].ravel() for image in images])
        assert_is_numpy(found.pooled["voxel"]["all"][c], everything)
        for case, image in zip(found.cases, images, strict=True):
            assert case.everywhere is not None
            assert_is_numpy(case.everywhere[c], image[c].ravel())
        inside = [image[c][label > 0] for image, label in zip(images, labels, strict=True)]
        if labelled and sum(map(len, inside)):
            assert_is_numpy(found.statistics("foreground")[c], np.concatenate(inside))
        by_image = found.statistics("foreground", "image")[c]
        compared = [v for v in (inside if labelled else [i[c].ravel() for i in images]) if v.size]
        if compared:
            assert_is_mixture(by_image, compared)


def assert_is_mixture(found: Any, parts: Sequence[Array]) -> None:
    """Every image has the same weight, however many voxels it has."""
    values = np.concatenate(parts).astype(np.float64)
    weights = np.concatenate([np.full(p.size, 1 / p.size / len(parts)) for p in parts])
    mean = np.average(values, weights=weights)
    assert found.mean == pytest.approx(mean, rel=1e-9, abs=1e-9 * np.abs(values).max())
    std = math.sqrt(np.average((values - mean) ** 2, weights=weights))
    assert found.std == pytest.approx(std, rel=1e-6, abs=1e-9 * np.abs(values).max())
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    for q, value in zip(PERCENTILES, found.percentiles.values(), strict=True):
        wanted = values[order][min(np.searchsorted(reached, q / 100 - 1e-9), values.size - 1)]
        also = values[order][min(np.searchsorted(reached, q / 100 + 1e-9), values.size - 1)]
        assert wanted <= value <= also


def test_images_of_any_size_weigh_the_same_only_when_asked() -> None:
    small, large = np.full((1, 1, 10), 100, np.uint8), np.zeros((10, 10, 10), np.uint8)
    found = of_arrays([small, large])
    assert found.statistics("all", "image")[0].mean == 50
    assert found.statistics("all", "voxel")[0].mean == pytest.approx(1000 / 1010)


def test_small_and_wide_dtypes_may_be_mixed() -> None:
    a = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    b = np.linspace(-5, 5, 60, dtype=np.float32).reshape(3, 4, 5)
    found = of_arrays([a, b]).statistics("all")[0]
    both = np.concatenate([a.ravel(), b.ravel()]).astype(np.float64)
    assert list(found.percentiles.values()) == np.percentile(both, PERCENTILES).tolist()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_of_64_bits_are_summed_exactly(dtype: type) -> None:
    values = np.arange(1000, dtype=dtype).reshape(10, 10, 10) + dtype(2**60)
    labels = (np.arange(1000).reshape(values.shape) % 3).astype(np.uint8)
    found = of_arrays([values], [labels])
    everything, inside = found.statistics("all")[0], found.statistics("foreground")[0]
    assert everything.std == math.sqrt(float(Fraction(1000**2 - 1, 12)))
    assert everything.mean == float(Fraction(2 * 2**60 + 999, 2))
    numbers = [int(v) for v in values[labels > 0]]
    mean = Fraction(sum(numbers), len(numbers))
    variance = Fraction(sum(v * v for v in numbers), len(numbers)) - mean**2
    assert (inside.mean, inside.std) == (float(mean), math.sqrt(float(variance)))


def test_the_whole_range_of_64_bits_is_summed_exactly() -> None:
    values = np.array([-(2**63), 2**63 - 1, 0, -1], np.int64).reshape(1, 2, 2)
    found = of_arrays([values]).statistics("all")[0]
    numbers = [int(v) for v in values.ravel()]
    mean = Fraction(sum(numbers), 4)
    assert found.mean == float(mean)
    assert found.std == math.sqrt(float(Fraction(sum(v * v for v in numbers), 4) - mean**2))


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.7e-9, 123456.789])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_channel_has_no_deviation(value: float, dtype: type) -> None:
    found = of_arrays([np.full((20, 30, 40), value, dtype)]).statistics("all")[0]
    assert (found.std, found.mean) == (0, dtype(value))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    dtype=st.sampled_from([np.uint8, np.float32]),
    data=st.data(),
)
def test_a_share_that_images_reach_exactly_is_not_missed(
    sizes: list[int], dtype: type, data: st.DataObject
) -> None:
    parts = [
        np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), dtype)
        for n in sizes
    ]
    asked = (5.0, 10.0, 25.0, 50.0, 75.0, 90.0)
    found = of_arrays([p.reshape(1, 1, -1) for p in parts], percentiles=asked)
    for q, value in found.statistics("all", "image")[0].percentiles.items():
        shares = ((v, sum(Fraction(int((p <= v).sum()), p.size) for p in parts)) for v in range(4))
        assert value == next(v for v, s in shares if s >= Fraction(q) / 100 * len(parts))


def test_numbers_that_are_not_finite_are_left_out() -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    image[0, 0, :3] = np.nan, np.inf, -np.inf
    found = of_arrays([image]).statistics("all")[0]
    assert (found.count, found.minimum, found.mean) == (21, 3, 13)


def test_negative_zero_is_zero() -> None:
    found = of_arrays([np.array([[[-0.0, 0.0, -0.0]]], np.float32)]).statistics("all")[0]
    assert found.percentile(50) == 0
    assert math.copysign(1, found.percentile(50)) == 1


def test_means_are_exact_where_float64_sums_are_not() -> None:
    values = np.full((64, 64, 64), 2**32 - 1, np.uint32)
    values[0, 0, 0] = 0
    found = of_arrays([values]).statistics("all")[0]
    assert found.mean == float(Fraction((2**32 - 1) * (values.size - 1), values.size))


def test_any_percentile_may_be_asked_for() -> None:
    found = of_arrays(
        [np.arange(101, dtype=np.uint8).reshape(1, 1, 101)], percentiles=(0, 12.5, 100)
    )
    assert dict(found.statistics("all")[0].percentiles) == {"0": 0, "12.5": 12.5, "100": 100}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_workers_do_not_change_a_figure(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 255, (n, 9, 11)).astype(dtype) for n in (3, 8, 5, 2, 7)]
    labels = [rng.integers(0, 4, image.shape).astype(np.uint16) for image in images]
    assert of_arrays(images, labels, workers=1) == of_arrays(images, labels, workers=3)


def test_a_box_hides_the_rest() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2**16, (9, 10, 11), dtype=np.uint16)
    label = rng.integers(0, 3, image.shape, dtype=np.uint8)
    box = Box((2, 0, 3), (7, 6, 11))
    found = compute_fingerprint(
        [FingerprintInput("a", partial(InMemory, image), partial(InMemory, label), box)]
    )
    inside = image[box.slices][label[box.slices] > 0]
    assert_is_numpy(found.statistics()[0], inside)
    assert found.cases[0].shape == (1, 9, 10, 11)
    assert found.cases[0].box == (box.start, box.stop)
    labels = found.cases[0].labels
    assert labels is not None
    assert labels.foreground == np.mean(label[box.slices] > 0)


def test_without_labels_foreground_statistics_are_those_of_all_voxels() -> None:
    found = of_arrays([np.arange(8, dtype=np.uint8).reshape(2, 2, 2)])
    assert found.statistics("foreground") == found.statistics("all")
    assert not found.has_labels


def test_cases_with_and_without_labels_may_be_mixed() -> None:
    image = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    label = np.zeros((2, 2, 2), np.uint8)
    label[0] = 1
    found = compute_fingerprint([
        FingerprintInput("a", partial(InMemory, image), partial(InMemory, label)),
        FingerprintInput("b", partial(InMemory, image)),
    ])  # fmt: skip
    assert found.cases[1].foreground is None
    assert found.statistics("foreground")[0].count == 4
    assert found.statistics("all")[0].count == 16


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_progress_counts_the_voxels(dtype: Any) -> None:
    seen: list[int] = []
    of_arrays([np.zeros((2, n, 3, 4), dtype) for n in (1, 5, 3)], progress=seen.append)
    assert sum(seen) == 9 * 3 * 4


@settings(max_examples=25)
@given(
    st.sampled_from([np.uint8, np.int16, np.float32]),
    st.tuples(st.integers(1, 2), st.integers(1, 30), st.integers(1, 6), st.integers(1, 6)),
    st.integers(40, 400),
    st.integers(16, 400),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_the_parts_of_a_volume_make_the_whole(
    dtype: Any,
    shape: tuple[int, int, int, int],
    part_voxels: int,
    block_bytes: int,
    boxed: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    image = some_values(rng, dtype, math.prod(shape)).reshape(shape)
    label = rng.integers(0, 4, shape[1:], dtype=np.uint16)
    box = None
    if boxed:
        start = [int(rng.integers(0, n)) for n in shape[1:]]
        box = Box.at(
            start, [int(rng.integers(1, n - a + 1)) for a, n in zip(start, shape[1:], strict=True)]
        )
    case = FingerprintInput("a", partial(InMemory, image), partial(InMemory, label), box)
    whole = compute_fingerprint([case], workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "PART_VOXELS", part_voxels)
        patch.setattr(narrow, "BLOCK_BYTES", block_bytes)
        patch.setattr(wide, "BLOCK_BYTES", block_bytes)
        cut = compute_fingerprint([case], workers=2)
    assert cut.cases[0].labels == whole.cases[0].labels
    for region in ("all", "foreground"):
        for one, other in zip(whole.statistics(region), cut.statistics(region), strict=True):
            assert one.percentiles == other.percentiles
            assert (one.count, one.minimum, one.maximum) == (
                other.count,
                other.minimum,
                other.maximum,
            )
            near = 1e-13 * max(abs(one.minimum), abs(one.maximum))
            assert one.mean == pytest.approx(other.mean, rel=0, abs=near)


def test_a_chunked_volume_is_measured_in_layers_of_its_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2**16, (40, 50, 60), dtype=np.uint16)
    label = np.kron(rng.integers(0, 9, (8, 10, 12)), np.ones((5, 5, 5), int)).astype(np.uint32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=image, chunks=(8, 16, 16), compression="gzip")
        file.create_dataset("label", data=label, chunks=(7, 20, 20), compression="gzip")
    reading = partial(open_volume, tmp_path / "a.h5"), partial(open_labels, tmp_path / "a.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "PART_VOXELS", 10 * 50 * 60)
        patch.setattr(narrow, "BLOCK_BYTES", 8 * 20 * 60 * 6)
        found = compute_fingerprint([FingerprintInput("a", *reading)], workers=2)
    assert found.cases[0].labels == of_arrays([image], [label]).cases[0].labels
    assert_is_numpy(found.statistics("all")[0], image.ravel())


def test_a_stream_is_walked_through_once(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 900, (20, 30, 40), dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(image.transpose(2, 1, 0), np.eye(4)), tmp_path / "a.nii.gz")
    reading = partial(open_volume, tmp_path / "a.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "PART_VOXELS", 5 * 30 * 40)
        patch.setattr(narrow, "BLOCK_BYTES", 3 * 30 * 40 * 2)
        patch.setattr(type(reading()), "read", None)
        found = compute_fingerprint(
            [FingerprintInput("a", partial(open_volume, tmp_path / "a.nii.gz"))]
        )
    assert_is_numpy(found.statistics("all")[0], image.ravel())


# Labels


def neighbours(labels: Array) -> set[int]:
    """The ids with a face to another id, seen from every pair of voxels."""
    found = set()
    for axis in range(3):
        a, b = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        met = (a != b) & (a != 0) & (b != 0)
        found |= set(a[met].tolist()) | set(b[met].tolist())
    return found


@settings(max_examples=150)
@given(
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64]),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(1, 2000),
    st.integers(0, 2**32 - 1),
)
def test_labels_are_counted_whatever_the_blocks(
    dtype: Any, shape: tuple[int, int, int], block: tuple[int, int, int], ids: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    names = rng.integers(1, np.iinfo(dtype).max, ids, dtype=dtype, endpoint=True)
    coarse = rng.integers(0, ids, [-(-n // 2) for n in shape])
    picked = np.kron(coarse, np.ones((2, 2, 2), int))[: shape[0], : shape[1], : shape[2]]
    labels = np.where(rng.random(shape) < 0.4, 0, names[picked]).astype(dtype)
    count = LabelCount(Box.whole(shape).shift((5, 6, 7)))
    for box in aligned_blocks(shape, block):
        count.add(box.shift((5, 6, 7)), labels[box.slices])
    facts = count.facts(labels.dtype)
    wanted, sizes = np.unique(labels[labels > 0], return_counts=True)
    assert facts.n_ids == wanted.size
    assert count.sizes().tolist() == sizes.tolist()
    assert facts.foreground == np.mean(labels > 0)
    assert facts.touching == len(neighbours(labels))
    if wanted.size:
        assert (facts.smallest_id, facts.largest_id) == (wanted[0], wanted[-1])
        assert facts.sizes["50"] == np.median(sizes)
    if wanted.size <= facts.MOST_LISTED:
        assert facts.voxels == dict(zip(wanted.tolist(), sizes.tolist(), strict=True))
    _check_planes_and_faces(labels, block)


def _check_planes_and_faces(labels: np.ndarray, block: tuple[int, int, int]) -> None:
    """Against what NumPy says, of the two halves along z added up."""
    shape, half = labels.shape, len(labels) // 2
    halves = []
    for first, last in ((0, half), (half, len(labels))):
        region = Box((first, 0, 0), (last, *shape[1:]))
        halves.append(LabelCount(region, shape))
        for box in aligned_blocks(region.shape, block):
            halves[-1].add(box.shift(region.start), labels[box.shift(region.start).slices])
    whole = halves[1]
    if half:
        whole = halves[0]
        whole.merge(halves[1])
    labelled, tops, apart = whole.planes
    assert labelled.tolist() == [np.count_nonzero(plane) for plane in labels]
    assert tops.tolist() == [plane.max() for plane in labels]
    assert apart.tolist() == [all(len(np.unique(p[p > 0])) < 2 for p in labels)]
    faces = [
        labels.take(edge, axis).ravel() for axis in range(3) for edge in (0, -1) if shape[axis] > 1
    ]
    on_faces = np.unique(np.concatenate([np.zeros(1, labels.dtype), *faces]))
    assert whole.cut == np.count_nonzero(on_faces)


def test_many_ids_make_the_table_grow() -> None:
    labels = np.arange(1, 40 * 50 * 60 + 1, dtype=np.uint32).reshape(40, 50, 60)
    count = LabelCount(Box.whole(labels.shape))
    count.add(Box.whole(labels.shape), labels)
    facts = count.facts(labels.dtype)
    assert facts.n_ids == facts.touching == labels.size
    assert facts.voxels is None


def test_ids_beyond_every_float_keep_apart() -> None:
    label = np.full((1, 1, 4), 2**64 - 1, np.uint64)
    label[0, 0, 2:] -= np.uint64(1)
    found = of_arrays([np.zeros((1, 1, 4), np.uint8)], [label])
    facts = found.cases[0].labels
    assert facts is not None
    assert facts.n_ids == facts.touching == 2
    assert facts.largest_id == 2**64 - 1
    again = Fingerprint.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    text = json.dumps(found.to_dict()["cases"][0]["labels"])
    assert f'"{2**64 - 1}"' in text


def test_classes_are_added_up_over_cases() -> None:
    image, label = np.zeros((1, 2, 3), np.uint8), np.array([[[0, 1, 1], [2, 0, 1]]], np.uint8)
    found = of_arrays([image, image], [label, label * 2])
    assert found.class_voxels == {1: 3, 2: 4, 4: 1}
    assert found.n_objects == 4


def test_signed_labels_pass_and_negative_ones_are_refused() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    found = of_arrays([image], [np.array([[[0, 5, 5]]], np.int32)])
    assert found.class_voxels == {5: 2}
    with pytest.raises(ValueError, match="-1"):
        of_arrays([image], [np.array([[[0, -1, 5]]], np.int32)])


def test_labels_of_another_shape_are_named() -> None:
    with pytest.raises(DataCheckError, match="0: the labels are 1x1x1x3, the image is 1x1x1x4"):
        of_arrays([np.zeros((1, 1, 4), np.uint8)], [np.zeros((1, 1, 3), np.uint8)])


def test_cases_with_other_channels_are_named() -> None:
    with pytest.raises(DataCheckError, match="1: 3 channels, where 0 has 2"):
        of_arrays([np.zeros((2, 1, 4, 4), np.uint8), np.zeros((3, 1, 4, 4), np.uint8)])


def test_no_case_is_refused() -> None:
    with pytest.raises(DataCheckError, match="no case"):
        compute_fingerprint([])


# Shapes and spacings


def test_shapes_and_spacings_are_medians_by_axis() -> None:
    shapes = [(1, 10, 4), (2, 20, 4), (5, 30, 9), (6, 40, 9)]
    spacings: list[Any] = [(3.0, 1.0, 1.0), None, (2.0, 0.5, 1.0), (4.0, 1.0, 1.0)]
    found = compute_fingerprint(
        [
            FingerprintInput(str(i), partial(InMemory, np.zeros(shape, np.uint8), spacing))
            for i, (shape, spacing) in enumerate(zip(shapes, spacings, strict=True))
        ],
        headers_only=True,
    )
    assert found.median_shape == (3, 25, 6)
    assert found.median_spacing == (3.0, 1.0, 1.0)
    assert found.anisotropy == 3
    assert not found.is_2d
    with pytest.raises(ValueError, match="headers only"):
        found.statistics()
    assert Fingerprint.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_headers_only_reads_no_voxel() -> None:
    class Closed(InMemory):
        def read(self, box: Box | None = None) -> Array:
            raise AssertionError("a voxel was read")

    compute_fingerprint(
        [FingerprintInput("a", lambda: Closed(np.zeros((2, 3, 4), np.uint8)))], headers_only=True
    )


def save(folder: Path, **arrays: Array) -> Path:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_compute_median_of_a_folder(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", x=np.zeros((4, 5, 6)), y=np.zeros((7, 9, 6)))
    assert compute_median(folder).tolist() == [5, 7, 6]
    median, spacing = compute_median(folder, return_spacing=True)
    assert (median.tolist(), spacing.tolist()) == ([5, 7, 6], [])


def test_compute_median_of_2d_images_has_one_plane(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", x=np.zeros((5, 6)), y=np.zeros((9, 6)))
    assert compute_median(folder).tolist() == [1, 7, 6]


def test_compute_median_refuses_what_has_no_median(tmp_path: Path) -> None:
    mixed = save(tmp_path / "mixed", x=np.zeros((5, 6)), y=np.zeros((3, 9, 6)))
    with pytest.raises(MixedShapesError, match="3D image") as error:
        compute_median(mixed)
    assert isinstance(error.value, AssertionError)
    assert isinstance(error.value, ValueError)
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.tif").write_bytes(b"II*\0 no image")
    for folder, said in ((tmp_path / "empty", "no image"), (tmp_path / "missing", "not exist"),
                         (broken, "a.tif")):  # fmt: skip
        with pytest.raises(SourceError, match=said) as refused:
            compute_median(folder)
        assert isinstance(refused.value, AssertionError)
        assert refused.value.exit_code == 3


def test_data_fingerprint_gives_the_documented_six(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (4, 8, 8), dtype=np.uint8) for _ in range(3)]
    masks = [(image > 100).astype(np.uint8) for image in images]
    img = save(tmp_path / "img", **{f"c{i}": a for i, a in enumerate(images)})
    msk = save(tmp_path / "msk", **{f"c{i}_mask": a for i, a in enumerate(masks)})
    size, spacing, mean, std, low, high = data_fingerprint(str(img), str(msk))
    assert size.tolist() == [4, 8, 8]
    assert spacing.size == 0
    inside = [image[mask > 0] for image, mask in zip(images, masks, strict=True)]
    assert mean == pytest.approx(np.mean([v.mean() for v in inside]))
    assert std > 0
    assert 100 < low < mean < high < 255
    assert all(isinstance(v, float) for v in (mean, std, low, high))


def test_data_fingerprint_without_masks_takes_all_voxels(tmp_path: Path) -> None:
    image = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    *_, mean, std, low, high = data_fingerprint(save(tmp_path / "img", a=image))
    assert (mean, std) == (31.5, pytest.approx(image.std()))
    assert (low, high) == (0, 63)


def test_data_fingerprint_names_the_image_without_a_mask(tmp_path: Path) -> None:
    image = np.zeros((2, 2, 2), np.uint8)
    img, msk = save(tmp_path / "img", a=image, b=image), save(tmp_path / "msk", a=image)
    with pytest.raises(SourceError, match=r"b\.npy: no mask"):
        data_fingerprint(img, msk)


# Files


@pytest.mark.parametrize(
    ("image", "label", "spacing"),
    [
        ("01_stardist_nuclei3d/images/img3d.tif", "01_stardist_nuclei3d/labels/img3d.tif", None),
        ("08_nifti_totalseg_ct/images/example_ct_sm.nii.gz",
         "08_nifti_totalseg_ct/labels/example_ct_sm.nii.gz", (3000.0, 3000.0, 3000.0)),
        ("11_imagej_tiff_plantseg/images/rgb_3D_0.tiff",
         "11_imagej_tiff_plantseg/labels/rgb_3D_0.tiff", (1.0, 1.0, 1.0)),
    ],
)  # fmt: skip
def test_real_files_are_measured_as_numpy_measures_them(
    real_data: Callable[[str], Path], image: str, label: str, spacing: Any
) -> None:
    paths = real_data(image), real_data(label)
    found = compute_fingerprint(
        [FingerprintInput("x", partial(open_volume, paths[0]), partial(open_labels, paths[1]))]
    )
    voxels, ids = open_volume(paths[0]).read(), open_labels(paths[1]).read()
    assert_is_numpy(found.statistics("all")[0], voxels[0].ravel())
    assert_is_numpy(found.statistics("foreground")[0], voxels[0][ids[0] > 0])
    assert found.n_objects == len(np.unique(ids[ids > 0]))
    assert found.median_spacing == (None if spacing is None else pytest.approx(spacing))


def test_headers_and_plans_load_no_heavy_guest() -> None:
    code = (
        "import sys; from volprep.fingerprint import compute_median; import volprep.autoconfig;"
        "print([m for m in ('numba', 'scipy', 'torch', 'skimage', 'zarr') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# Drawing


def test_histograms_count_every_voxel() -> None:
    rng = np.random.default_rng(0)
    for image in (
        rng.integers(0, 2**16, (3, 20, 20), dtype=np.uint16),
        rng.normal(0, 1, (3, 20, 20)).astype(np.float32),
        np.full((1, 2, 2), 7, np.uint8),
        np.full((1, 2, 2), 7.5, np.float32),
    ):
        (drawn,) = of_arrays([image]).histograms
        assert sum(drawn.counts) == image.size
        assert drawn.start <= float(image.min())


def test_histogram_of_few_integers_has_a_bin_for_each() -> None:
    (drawn,) = of_arrays([np.array([[[3, 3, 5, 6]]], np.uint8)]).histograms
    assert drawn == Histogram(3.0, 7.0, (2, 0, 1, 1))


def test_drawing_shows_a_bar_for_what_occurs() -> None:
    lines = draw_histogram(Histogram(0.0, 4.0, (100, 0, 1, 10)), width=20)
    assert [("█" in line) or (max(line) >= "▏") for line in lines] == [True, False, True, True]
    assert lines[0].startswith("0 ████████████████████ ")
    assert draw_histogram(Histogram(0.0, 0.0, ())) == ["no voxels"]
    assert len(draw_histogram(Histogram(0.0, 1.0, tuple(range(64))), rows=10)) <= 10
