"""A case from source to sink: crop, resample, slabs, strips and bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_preprocess_resample import Held, blobs, drawn

from volprep.errors import PlanError
from volprep.geometry import Box, Spacing3
from volprep.preprocess import (
    CroppedVolume,
    Preprocessing,
    ResampledVolume,
    case_layout,
    nonzero_box,
    preprocess_case,
    resample_labels,
)

SPACING: Spacing3 = (0.2, 0.1, 0.1)


class Sink:
    """An array that refuses to be written twice in one place."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.array = np.zeros(shape, dtype)
        self.times = np.zeros(shape[-3:], int)
        self.boxes: list[Box] = []

    def write(self, box: Box, array: np.ndarray[Any, Any]) -> None:
        """Put `array` in its place."""
        assert array.dtype == self.array.dtype
        self.array[(..., *box.slices)] = array
        self.times[box.slices] += 1
        self.boxes.append(box)


def prepared(image, labels, settings, **options):
    """Run one case into two sinks."""
    layout = case_layout(image, labels, settings)
    sinks = Sink(layout.shape, layout.dtype), Sink(layout.shape[1:], labels.dtype)
    lost = preprocess_case(
        image, labels, layout,
        write_image=sinks[0].write, write_labels=sinks[1].write, **options,
    )  # fmt: skip
    assert (sinks[0].times == 1).all()
    assert (sinks[1].times == 1).all()
    return lost, *sinks


@pytest.fixture
def case():
    """An image of two channels and its labels, with an empty border."""
    image = drawn((2, 20, 300, 40), 1, np.uint16)
    labels = blobs((20, 300, 40), 1, np.uint32)[None]
    image[:, :3] = image[:, :, :5] = image[:, :, :, 37:] = 0
    return Held(image, SPACING), Held(labels, SPACING)


def test_nothing_to_do_copies_the_case(case):
    image, labels = case
    lost, x, y = prepared(image, labels, Preprocessing())
    assert (x.array == image.array).all()
    assert (y.array == labels.array[0]).all()
    assert lost == ()
    assert case_layout(image, labels, Preprocessing()).spacing == SPACING


@pytest.mark.parametrize("options", [{}, {"depth": 5}, {"memory": 1}, {"workers": 3, "depth": 4}])
def test_the_result_depends_on_the_source_alone(case, options):
    image, labels = case
    settings = Preprocessing(target=(0.15, 0.08, 0.12))
    lost, x, y = prepared(image, labels, settings, **options)
    whole = ResampledVolume(image, settings.target)
    assert case_layout(image, labels, settings).shape == whole.shape
    assert (x.array == whole.read()).all()
    assert (y.array == resample_labels(labels.array[0], whole.shape[1:])).all()
    assert lost == tuple(np.setdiff1d(labels.array, y.array))
    assert all(box.start[0] % options.get("depth", 32) == 0 for box in x.boxes)


def test_a_crop_comes_before_the_resampling(case):
    image, labels = case
    settings = Preprocessing(target=(0.1, 0.1, 0.1), crop=True)
    _, x, _ = prepared(image, labels, settings)
    assert case_layout(image, labels, settings).crop == Box((3, 5, 0), (20, 300, 37))
    cut = Held(image.array[:, 3:, 5:, :37], SPACING)
    assert (x.array == ResampledVolume(cut, settings.target).read()).all()


def test_ids_that_a_crop_or_a_coarse_grid_drops_are_lost(case):
    image, labels = case
    labels.array[0, 0, 0, 0] = 1_000_001
    labels.array[0, 11, 150, 20] = 1_000_002
    assert 1_000_001 in prepared(image, labels, Preprocessing(crop=True))[0]
    coarse = Preprocessing(target=(1.2, 0.6, 0.6))
    for options in ({}, {"workers": 2, "depth": 1}):
        lost = prepared(image, labels, coarse, **options)[0]
        assert {1_000_001, 1_000_002} <= set(lost)


def test_a_volume_that_can_be_walked_is_walked_once(case):
    image, labels = case

    class Stream(Held):
        walks = 0
        sequential = True

        def slabs(self, depth):
            self.walks += 1
            for z in range(0, self.shape[1], 7):
                box = Box((z, 0, 0), (min(z + 7, self.shape[1]), *self.shape[2:]))
                yield box, self.array[(slice(None), *box.slices)].copy()

        def read(self, box=None):
            raise AssertionError("a stream is not read from the middle")

    for settings in (Preprocessing((0.15, 0.08, 0.12), crop=True), Preprocessing(crop=True)):
        stream = Stream(image.array, SPACING)
        expected = prepared(image, labels, settings)
        result = prepared(stream, Stream(labels.array, SPACING), settings, depth=5, workers=2)
        assert stream.walks == 2  # the layout, which looks for the crop, and the case
        assert (result[1].array == expected[1].array).all()
        assert (result[2].array == expected[2].array).all()
        assert result[0] == expected[0]


def test_labels_follow_the_spacing_of_the_image(case):
    image, labels = case
    labels.spacing = None
    settings = Preprocessing(target=(0.05, 0.1, 0.1))
    image.spacing = (0.4, 0.1, 0.1)
    _, _, y = prepared(image, labels, settings)
    assert (y.array == np.repeat(labels.array[0], 8, axis=0)).all()


def test_progress_counts_every_voxel(case):
    done: list[int] = []
    settings = Preprocessing(target=(0.15, 0.1, 0.1))
    prepared(*case, settings, progress=done.append, depth=4)
    assert sum(done) == 2 * np.prod(case_layout(*case, settings).shape[1:])


def test_an_image_alone_is_a_case(case):
    image, _ = case
    layout = case_layout(image, None, Preprocessing())
    sink = Sink(layout.shape, layout.dtype)
    preprocess_case(image, None, layout, write_image=sink.write)
    assert (sink.array == image.array).all()


def test_an_empty_image_is_not_cropped():
    image = Held(np.zeros((1, 4, 5, 6), np.uint8))
    assert nonzero_box(image) is None
    assert case_layout(image, None, Preprocessing(crop=True)).shape == (1, 4, 5, 6)


def test_the_nonzero_box_is_the_smallest_one():
    array = np.zeros((2, 70, 9, 9), np.int16)
    array[0, 40, 3, 2] = -1
    array[1, 65, 4, 7] = 5
    box = nonzero_box(Held(array), memory=5000)
    assert box == Box((40, 3, 2), (66, 5, 8))
    assert (CroppedVolume(Held(array), box).read() == array[:, 40:66, 3:5, 2:8]).all()


def test_labels_of_another_shape_are_refused(case):
    image, _ = case
    with pytest.raises(ValueError, match="same"):
        case_layout(image, Held(np.zeros((1, 2, 2, 2), np.uint8)), Preprocessing())


def test_an_unknown_spacing_cannot_be_resampled():
    with pytest.raises(PlanError, match="unknown"):
        case_layout(Held(drawn((1, 4, 4, 4), 0)), None, Preprocessing(target=(1, 1, 1)))


@given(st.integers(0, 10**6), st.booleans())
def test_a_point_and_its_box_lie_at_the_same_place_in_both_grids(seed, crop):
    rng = np.random.default_rng(seed)
    image = np.zeros((1, *rng.integers(4, 30, 3)), np.uint8)
    low = [int(rng.integers(0, n // 2)) for n in image.shape[1:]]
    image[(0, *(slice(a, None) for a in low))] = 1
    target = tuple(float(v) for v in rng.uniform(0.04, 0.5, 3))
    layout = case_layout(Held(image, SPACING), None, Preprocessing(target=target, crop=crop))
    scale = np.array(layout.kept.shape) / layout.shape[1:]
    points = rng.uniform(0, 20, (5, 3))
    back = (layout.to_prepared(points) + 0.5) * scale - 0.5 + layout.kept.start
    np.testing.assert_allclose(back, points, atol=1e-9)
    start = [int(rng.integers(0, n)) for n in layout.shape[1:]]
    stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, layout.shape[1:], strict=True)]
    box = layout.to_source(Box(tuple(start), tuple(stop)))
    assert layout.kept.contains(box)
    ends = np.array([start, stop]) * scale + layout.kept.start
    whole = np.array(box.shape) > 1
    assert (np.array(box.start) >= ends[0] - 1e-9)[whole].all()
    assert (np.array(box.stop) <= ends[1] + 1e-9)[whole].all()
    assert (np.array(box.start) < ends[1]).all()


def test_nothing_to_do_opens_the_volume_itself(case):
    image, _ = case
    layout = case_layout(image, None, Preprocessing())
    assert layout.unchanged
    assert layout.open(image) is image
    assert layout.to_source(Box((1, 2, 3), (4, 5, 6))) == Box((1, 2, 3), (4, 5, 6))
