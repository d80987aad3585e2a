"""A sample moves as one: images, masks and points, drawn once, the same in every worker."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from volprep.augment import (
    Compose,
    CutBlur,
    CutNoise,
    Drawn,
    Elastic,
    Flip,
    GaussianNoise,
    Grayscale,
    MisAlignment,
    MissingParts,
    MissingSection,
    Mixup,
    MotionBlur,
    Rescale,
    Rotate,
    Transform,
    required_shape,
    smooth_labels,
    spatial_ranges,
    transforms_from_config,
)
from volprep.geometry import Box
from volprep.randomness import sample_generator
from volprep.warp import CoordinateMap, WarpingOOBError

SIZE = (6, 20, 24)
BIG = (14, 60, 64)
TARGETS = {"label": "mask"}


def spatial() -> list[Transform]:
    return [
        Rotate(p=1, rot90=False), Rescale(p=1), Flip(p=1), Elastic(p=1, alpha=40),
        MisAlignment(p=1, displacement=6, rotate_ratio=0.5), MissingSection(p=1),
    ]  # fmt: skip


def everything() -> list[Transform]:
    return [
        *transforms_from_config({"AUGMENTOR": {}}),
        *transforms_from_config(["gaussian_noise", "gamma", "low_resolution", "gaussian_blur"]),
    ]


def sample(shape: tuple[int, ...] = BIG, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = ndimage.zoom(rng.integers(0, 50, [max(1, n // 4) for n in shape[-3:]]), 4, order=0)
    wide = np.zeros(shape[-3:], np.int64)
    z, y, x = (min(a, b) for a, b in zip(shape[-3:], label.shape, strict=True))
    wide[:z, :y, :x] = label[:z, :y, :x]
    image = ndimage.gaussian_filter(rng.random(shape, np.float32), 1)
    return {"image": image, "label": wide}


def test_the_documented_example_runs() -> None:
    targets = {"label": "mask", "valid_mask": "mask"}
    transforms = [
        Rescale(p=0.8, additional_targets=targets),
        MisAlignment(displacement=16, rotate_ratio=0.5, p=0.5, additional_targets=targets),
        CutBlur(
            length_ratio=0.6, down_ratio_min=4.0, down_ratio_max=8.0, p=0.7,
            additional_targets=targets,
        ),
    ]  # fmt: skip
    augmentor = Compose(transforms, input_size=(8, 64, 64), additional_targets=targets)
    data = sample((8, 100, 100))
    augmented = augmentor({**data, "valid_mask": np.ones((8, 100, 100), bool)})
    assert {k: (v.shape, v.dtype.name) for k, v in augmented.items()} == {
        "image": ((8, 64, 64), "float32"),
        "label": ((8, 64, 64), "int64"),
        "valid_mask": ((8, 64, 64), "bool"),
    }
    only = Compose([Rescale(p=0.8)], input_size=(8, 64, 64))({"image": data["image"]})
    assert only["image"].shape == (8, 64, 64)


def test_image_and_labels_agree_with_the_map_voxel_by_voxel() -> None:
    compose = Compose(spatial(), SIZE, TARGETS, border="raise")
    data = sample(compose.required_shape)
    grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1).reshape(-1, 3)
    for n in range(8):
        drawn = compose.draw(sample_generator(0, 0, n))
        result = compose(data, replay=drawn)
        centre = [(s - 1) / 2 for s in compose.required_shape]
        at = compose.coordinate_map(drawn, centre).source_points(grid)
        expected = ndimage.map_coordinates(data["image"].astype(np.float64), at.T, order=1)
        np.testing.assert_allclose(result["image"].ravel(), expected, atol=1e-3)
        clear = np.all(np.abs(at - np.floor(at) - 0.5) > 1e-3, axis=1)
        nearest = data["label"][tuple(np.round(at).astype(int).T)]
        np.testing.assert_array_equal(result["label"].ravel()[clear], nearest[clear])


@settings(max_examples=15)
@given(
    dtype=st.sampled_from([np.uint8, np.int16, np.uint32, np.int64, np.uint64, np.bool_]),
    number=st.integers(0, 1000),
)
def test_ids_come_back_exact_in_their_own_dtype(dtype: type, number: int) -> None:
    compose = Compose(everything(), SIZE, TARGETS)
    data = sample()
    top = 1 if dtype is np.bool_ else np.iinfo(dtype).max
    data["label"] = np.where(
        data["label"] % 2 == 1, np.array(top, dtype), (data["label"] % 5).astype(dtype)
    )
    result = compose(data, sample_generator(0, 0, number))
    assert result["label"].dtype == dtype
    assert set(np.unique(result["label"])) <= set(np.unique(data["label"]))


@pytest.mark.parametrize("large", [2**24 + 1, 2**32 + 1, 2**63 + 1])
def test_ids_beyond_float_precision_survive(large: int) -> None:
    data = {"image": sample()["image"], "label": np.full(BIG, large, np.uint64)}
    result = Compose(everything(), SIZE, TARGETS)(data, sample_generator(7))
    assert np.unique(result["label"]).tolist() == [large]


@settings(max_examples=25)
@given(number=st.integers(0, 10_000))
def test_points_move_with_their_objects(number: int) -> None:
    # Without rotation between sections an object stays in one piece.
    transforms = [
        Rotate(p=1, rot90=False), Rescale(p=1), Flip(p=1), Elastic(p=1), MisAlignment(p=1),
    ]  # fmt: skip
    compose = Compose(transforms, SIZE, {"label": "mask", "skeleton": "points"})
    shape = (12, *compose.required_shape[1:])
    rng = np.random.default_rng(number)
    data = sample(shape, number)
    centres = rng.integers(3, np.array(shape) - 3, (12, 3))
    data["label"] = np.zeros(shape, np.int64)
    points = {}
    for n, centre in enumerate(centres, 1):
        points[n] = centre[None].astype(np.float32)
        data["label"][tuple(slice(c - 2, c + 3) for c in centre)] = n
    result = compose({**data, "skeleton": points}, sample_generator(number))
    for n in points:
        (where,) = np.round(result["skeleton"][n]).astype(int)
        own = data["label"][tuple(points[n][0].astype(int))]
        if np.all(where >= 0) and np.all(where < SIZE):
            assert result["label"][tuple(where)] == own


def test_objects_that_transform_themselves_are_points_too() -> None:
    class Skeleton:
        def __init__(self, points: np.ndarray) -> None:
            self.points = points

        def transform(self, move: Callable[[np.ndarray], np.ndarray]) -> Skeleton:
            return Skeleton(move(self.points))

    points = np.array([[3.0, 30, 31], [2, 28, 33]])
    compose = Compose(spatial(), SIZE, {"a": "points", "b": "points", "c": "points"})
    given_ = {"image": sample()["image"], "a": {5: points}, "b": Skeleton(points), "c": {}}
    result = compose(given_, sample_generator(1))
    np.testing.assert_array_equal(result["a"][5], result["b"].points)
    assert result["a"][5].dtype == np.float32
    assert result["c"] == {}


def test_skeletons_stay_skeletons() -> None:
    from volprep.skeletons import Skeletons

    points = {7: np.array([[3.0, 30, 31], [2, 28, 33]]), 2**63: np.array([[1.0, 2, 3]])}
    skeletons = Skeletons.from_points(points, {7: np.array([[0, 1]])})
    compose = Compose(spatial(), SIZE, {"skeleton": "points", "plain": "points"})
    data = {"image": sample()["image"], "skeleton": skeletons, "plain": points}
    result = compose(data, sample_generator(1))
    assert isinstance(result["skeleton"], Skeletons)
    np.testing.assert_array_equal(result["skeleton"].edges, skeletons.edges)
    for instance in points:
        np.testing.assert_array_equal(result["skeleton"][instance], result["plain"][instance])


def test_a_replay_repeats_a_draw_even_through_json() -> None:
    compose = Compose(everything(), SIZE, TARGETS)
    data = sample()
    for n in range(5):
        drawn = compose.draw(sample_generator(3, 0, n))
        first = compose(data, sample_generator(3, 0, n))
        again = Drawn.from_dict(json.loads(json.dumps(drawn.to_dict())))
        for result in (compose(data, replay=drawn), compose(data, replay=again)):
            for name in data:
                np.testing.assert_array_equal(result[name], first[name])


def test_a_replay_of_other_transforms_is_refused() -> None:
    drawn = Compose([Flip()], SIZE).draw(sample_generator(0))
    with pytest.raises(ValueError, match="replay: drawn for"):
        Compose([Rotate()], SIZE)(sample(), replay=drawn)
    with pytest.raises(ValueError, match="replay: drawn for"):
        Compose([Flip()], (1, 2, 3)).describe(drawn)


def test_a_sample_is_left_as_it_was() -> None:
    data = sample()
    before = {name: array.copy() for name, array in data.items()}
    result = Compose([GaussianNoise(p=1)], BIG, TARGETS)(data, sample_generator(0))
    for name in data:
        np.testing.assert_array_equal(data[name], before[name])
        assert not np.shares_memory(result[name], data[name])


def test_other_entries_of_a_sample_go_through() -> None:
    data = {**sample(), "case": "A", "start": np.arange(3), "pad": np.zeros((3, 2), int)}
    result = Compose([Flip()], SIZE, TARGETS)(data, sample_generator(0))
    assert result["case"] == "A"
    assert result["start"] is data["start"]


def test_forgotten_targets_are_an_error() -> None:
    with pytest.raises(ValueError, match="label: an array as large as the image"):
        Compose([Flip()], SIZE)(sample(), sample_generator(0))
    with pytest.raises(ValueError, match=r"no \['label'\]"):
        Compose([Flip()], SIZE, TARGETS)({"image": sample()["image"]}, sample_generator(0))
    data = {**sample(), "label": np.zeros((3, 3, 3), int)}
    with pytest.raises(ValueError, match=r"wanted .* as the image"):
        Compose([Flip()], SIZE, TARGETS)(data, sample_generator(0))
    with pytest.raises(ValueError, match="both 'img' and 'mask'"):
        Compose([Flip(additional_targets=TARGETS)], SIZE, {"label": "img"})
    with pytest.raises(ValueError, match="has type 'label'"):
        Compose([Flip()], SIZE, {"label": "label"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="Mixup acts on a batch"):
        Compose([Mixup()], SIZE)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="input_size"):
        Compose([], (0, 2, 3))
    with pytest.raises(ValueError, match="spacing"):
        Compose([], SIZE, spacing=(0, 1, 1))
    with pytest.raises(ValueError, match=r"\(Z, Y, X\) or \(C, Z, Y, X\)"):
        Compose([], SIZE)({"image": np.zeros((4, 4))}, sample_generator(0))


def test_skipped_targets_are_only_cropped() -> None:
    targets = {"label": "mask", "second": "img"}
    transforms = [Flip(p=1, skip_targets=["label"]), Grayscale(p=1, skip_targets=["second"])]
    compose = Compose(transforms, SIZE, targets)
    data = {**sample(SIZE), "second": sample(SIZE)["image"]}
    for n in range(5):
        drawn = compose.draw(sample_generator(0, 0, n))
        result = compose(data, replay=drawn)
        np.testing.assert_array_equal(result["label"], data["label"])
        plain = Compose([Flip(p=1)], SIZE, targets)
        flips = Drawn(SIZE, drawn.steps[:1])
        np.testing.assert_array_equal(result["second"], plain(data, replay=flips)["second"])


def test_a_second_image_changes_as_the_first_does() -> None:
    compose = Compose(everything(), SIZE, {"other": "img"})
    image = sample()["image"]
    result = compose({"image": image, "other": image.copy()}, sample_generator(11))
    geometry = Compose(spatial(), SIZE, {"other": "img"})
    moved = geometry({"image": image, "other": image * 2}, sample_generator(11))
    np.testing.assert_allclose(moved["other"], moved["image"] * 2, rtol=1e-6)
    np.testing.assert_array_equal(result["other"], result["image"])


def test_channels_move_together() -> None:
    compose = Compose(spatial(), SIZE, TARGETS)
    data = sample()
    single = compose(data, sample_generator(5))
    stacked = {**data, "image": np.stack([data["image"], 1 - data["image"]])}
    double = compose(stacked, sample_generator(5))
    assert double["image"].shape == (2, *SIZE)
    np.testing.assert_allclose(double["image"][0], single["image"], atol=1e-6)
    np.testing.assert_allclose(double["image"].sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_amounts_are_fractions_of_the_images_own_range(dtype: type) -> None:
    compose = Compose([Grayscale(p=1), CutNoise(p=1), GaussianNoise(p=1)], SIZE)
    unit = np.round(sample()["image"] * 200) / 200
    wide = np.round(unit * 200).astype(dtype)
    scaled = compose({"image": wide}, sample_generator(2))["image"]
    plain = compose({"image": unit.astype(np.float32)}, sample_generator(2))["image"]
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled / 200, plain, atol=1e-4)


def test_a_given_range_holds_for_every_sample() -> None:
    dark = np.full(SIZE, 10, np.uint8)
    dark[0, 0, 0] = 11
    compose = Compose([GaussianNoise(p=1, sigma=0.1)], SIZE, value_range=(0, 255))
    noisy = compose({"image": dark}, sample_generator(0))["image"]
    assert noisy.std() > 5
    assert noisy.std() < 60
    pairs = Compose([GaussianNoise(p=1)], SIZE, value_range=[(0, 1), (0, 1), (0, 1)])
    with pytest.raises(ValueError, match="3 pairs for 2 channels"):
        pairs({"image": np.zeros((2, *SIZE))}, sample_generator(0))


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 33), st.integers(1, 33)),
    rot90=st.booleans(),
    angle=st.floats(0, 180),
    tilt=st.sampled_from([0.0, 15.0, 90.0]),
    low=st.floats(0.5, 1.5),
    do_ztrans=st.integers(0, 1),
    axes=st.sampled_from(["yx", "zyx"]),
    displacement=st.integers(0, 15),
    ratio=st.sampled_from([0.0, 0.5, 1.0]),
    sections=st.integers(1, 5),
    spacing=st.sampled_from([None, (3.0, 1.0, 1.0), (1.0, 0.5, 0.7)]),
    number=st.integers(0, 1000),
)
def test_no_draw_reaches_beyond_the_required_shape(
    size: tuple[int, int, int], rot90: bool, angle: float, tilt: float, low: float,
    do_ztrans: int, axes: str, displacement: int, ratio: float, sections: int,
    spacing: tuple[float, float, float] | None, number: int,
) -> None:  # fmt: skip
    transforms = [
        Rotate(p=0.8, rot90=rot90, max_angle=angle, tilt=tilt),
        Rescale(p=0.8, low=low, high=low + 0.5, axes=axes),  # type: ignore[arg-type]
        Flip(p=0.8, do_ztrans=do_ztrans),
        Elastic(p=0.8, alpha=60, sigma=2, axes=axes),  # type: ignore[arg-type]
        MisAlignment(p=0.8, displacement=displacement, rotate_ratio=ratio),
        MissingSection(p=0.8, num_sections=sections),
    ]
    compose = Compose(transforms, size, spacing=spacing)
    shape = compose.required_shape
    assert all((a - b) % 2 == 0 and a >= b for a, b in zip(shape, size, strict=True))
    whole = Box.whole(shape)
    centre = [(n - 1) / 2 for n in shape]
    for n in range(20):
        drawn = compose.draw(sample_generator(number, 0, n))
        box = compose.coordinate_map(drawn, centre).source_box(size)
        assert whole.contains(box), (shape, box, compose.describe(drawn))


@settings(max_examples=30, deadline=None)
@given(
    grown=st.tuples(st.integers(0, 6), st.integers(0, 24), st.integers(0, 24)),
    filled=st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8)),
    before=st.booleans(),
    number=st.integers(0, 1000),
)
def test_a_patch_moves_as_far_as_what_is_drawn_stays_in_the_data(
    grown: tuple[int, int, int], filled: tuple[int, int, int], before: bool, number: int
) -> None:
    shape = [a + b for a, b in zip(SIZE, grown, strict=True)]
    data = [
        (min(f, n - 1), n) if before else (0, max(1, n - f))
        for f, n in zip(filled, shape, strict=True)
    ]
    box = Box(*map(tuple, zip(*data, strict=True)))  # type: ignore[arg-type]
    compose = Compose(spatial(), SIZE)
    drawn = compose.draw(sample_generator(number))
    ends = compose.freedom(drawn, shape, box)

    def read(move: tuple[int, int, int]) -> list[tuple[int, int]]:
        centre = [(n - 1) / 2 + m for n, m in zip(shape, move, strict=True)]
        found = compose.coordinate_map(drawn, centre).source_box(SIZE)
        return list(zip(found.start, found.stop, strict=True))

    for axis, (low, high) in enumerate(data):
        (a, b), (c, d) = read(ends[0])[axis], read(ends[1])[axis]
        if b - a <= high - low:
            assert (a, d) == (low, high), "from one end of the data to the other"
        elif b - a <= shape[axis]:
            assert a == c, "one place"
            assert a >= 0
            assert b <= shape[axis]
            assert a <= low
            assert b >= high
        else:
            assert ends[0][axis] == ends[1][axis] == 0


def test_what_the_middle_shows_can_be_chosen() -> None:
    rng = np.random.default_rng(0)
    compose, move = Compose(spatial(), SIZE, TARGETS), (1, -3, 2)
    shape = [n + 6 for n in compose.required_shape]
    data = {
        "image": rng.random(shape, np.float32),
        "label": rng.integers(0, 9, shape, np.uint8),
    }
    drawn = compose.draw(rng)
    centre = [(n - 1) / 2 + m for n, m in zip(shape, move, strict=True)]
    moved = compose(data, replay=drawn, centre=centre)
    back = [-m for m in move]
    rolled = compose({n: np.roll(a, back, (0, 1, 2)) for n, a in data.items()}, replay=drawn)
    assert (moved["label"] == rolled["label"]).all()
    np.testing.assert_allclose(moved["image"], rolled["image"], atol=1e-5)


@pytest.mark.parametrize("shape", [BIG, (7, 26, 30)])
@pytest.mark.parametrize("border", ["reflect", "fill"])
def test_the_part_that_a_draw_reads_gives_the_sample_of_the_whole(shape, border) -> None:
    rng = np.random.default_rng(0)
    sample = {
        "image": rng.normal(size=shape).astype(np.float32),
        "label": rng.integers(0, 9, shape, np.uint16),
        "mask": rng.random(shape) < 0.9,
    }
    skipping = [*spatial(), Rotate(p=1, skip_targets=["mask"])]
    augment = Compose(skipping, SIZE, {"label": "mask", "mask": "mask"}, border=border, ignore=77)
    smaller = 0
    for number in range(12):
        drawn = augment.draw(sample_generator(1, 0, number))
        centre = [(n - 1) / 2 + m for n, m in zip(shape, (0, number - 6, 6 - number), strict=True)]
        part = augment.source_block(drawn, centre, shape)
        smaller += part != Box((0, 0, 0), shape)
        whole = augment(sample, replay=drawn, centre=centre)
        alone = augment(
            {name: array[part.slices] for name, array in sample.items()},
            replay=drawn,
            centre=[c - a for c, a in zip(centre, part.start, strict=True)],
        )
        np.testing.assert_allclose(alone["image"], whole["image"], atol=1e-4)
        for name in ("label", "mask"):  # a place between two voxels may fall to either
            assert np.mean(alone[name] != whole[name]) < 1e-3
    assert smaller


def test_the_required_shape_counts_what_can_happen_only() -> None:
    assert required_shape([], SIZE) == SIZE
    assert required_shape([Rotate(), Flip()], (8, 64, 64)) == (8, 64, 64)
    assert required_shape([Rescale(p=0), Elastic(enabled=False)], SIZE) == SIZE
    em = transforms_from_config({"AUGMENTOR": {}})
    assert required_shape(em, (8, 256, 256)) <= (10, 370, 370)


@pytest.mark.parametrize("patch", [(8, 64, 64), (32, 48, 40), (1, 50, 70)])
@pytest.mark.parametrize("spacing", [None, (4.0, 1.0, 1.0), (2.0, 0.5, 0.7)])
def test_the_plan_stores_what_rotations_and_scales_need(
    patch: tuple[int, int, int], spacing: tuple[float, float, float] | None
) -> None:
    from volprep.autoconfig.augmentation import augmentation_patch

    for transforms in (
        [Rotate(rot90=False, p=0.1)],
        [Rotate(rot90=False, max_angle=20)],
        [Rescale(low=0.7, high=1.4)],
        [Rotate(rot90=False, max_angle=35), Rescale(low=0.8), Flip(p=0)],
    ):
        ranges = spatial_ranges(transforms)
        planned = augmentation_patch(patch, spacing, **ranges)
        needed = required_shape(transforms, patch, spacing)
        # The plan scales every axis, these transforms the plane alone.
        assert needed[1:] == planned[1:]
        assert needed[0] <= planned[0]
    tilted = [Rotate(rot90=False, max_angle=30, tilt=20), Rescale(low=0.8, high=1.5)]
    assert spatial_ranges(tilted) == {"rotation": (30.0, 20.0, 20.0), "scale": (0.8, 1.5)}


class Reader:
    """A volume that remembers which boxes were read."""

    spacing = None

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.boxes: list[Box] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self, box: Box | None = None) -> np.ndarray:
        box = Box.whole(self.shape) if box is None else box
        assert Box.whole(self.shape).contains(box)
        self.boxes.append(box)
        return self.array[(slice(None), *box.slices)]


def test_reading_from_volumes_equals_augmenting_what_was_read() -> None:
    compose = Compose(everything(), SIZE, {"label": "mask", "skeleton": "points"})
    data = sample((30, 150, 160))
    volumes = {"image": Reader(data["image"][None]), "label": Reader(data["label"][None])}
    centre = np.array([15.0, 70.0, 90.0])
    points = {4: np.array([[15.0, 71, 91]])}
    for n in range(8):
        drawn = compose.draw(sample_generator(1, 0, n))
        read = compose.read(volumes, centre, replay=drawn, points={"skeleton": points})  # type: ignore[arg-type]
        assert volumes["image"].boxes[-1].shape <= compose.required_shape
        assert np.prod(volumes["image"].boxes[-1].shape) <= np.prod(compose.required_shape)
        # The same block cut out beforehand, with the centre in its middle.
        start = [int(c) - 14 if a == 0 else int(c) - 50 for a, c in enumerate(centre)]
        block = Box.at(start, (29, 101, 101))
        cut = {name: array[block.slices] for name, array in data.items()}
        cut["skeleton"] = {4: points[4] - np.array(block.start)}
        whole = compose(cut, replay=drawn)
        np.testing.assert_allclose(read["image"][0], whole["image"], atol=2e-4)
        np.testing.assert_array_equal(read["label"], whole["label"])
        np.testing.assert_allclose(read["skeleton"][4], whole["skeleton"][4], atol=1e-3)


def test_reading_at_the_border_mirrors_or_refuses() -> None:
    data = sample((30, 80, 80))
    volumes = {"image": Reader(data["image"][None]), "label": Reader(data["label"][None])}
    corner = (1, 2, 3)
    read = Compose(spatial(), SIZE, TARGETS).read(volumes, corner, sample_generator(0))  # type: ignore[arg-type]
    assert read["image"].shape == (1, *SIZE)
    strict = Compose(spatial(), SIZE, TARGETS, border="raise")
    before = len(volumes["image"].boxes)
    with pytest.raises(WarpingOOBError):
        strict.read(volumes, corner, sample_generator(0))  # type: ignore[arg-type]
    assert len(volumes["image"].boxes) == before


def test_without_a_generator_calls_are_counted_from_a_seed() -> None:
    first, again = (Compose(everything(), SIZE, TARGETS, seed=4) for _ in range(2))
    data = sample()
    results = [first(data)["image"] for _ in range(3)]
    for result in results:
        np.testing.assert_array_equal(again(data)["image"], result)
    assert not np.array_equal(results[0], results[1])


def test_a_copy_in_another_process_wants_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = pickle.loads(pickle.dumps(Compose([Flip()], SIZE, TARGETS)))
    assert compose(sample())["image"].shape == SIZE
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(TypeError, match="no generator in a worker process"):
        compose(sample())
    assert compose(sample(), sample_generator(0))["image"].shape == SIZE
    with pytest.raises(TypeError, match=r"rng: found RandomState; wanted a numpy.random.Generator"):
        compose(sample(), np.random.RandomState(0))  # type: ignore[arg-type]


def test_smoothing_keeps_every_id_and_rounds_corners() -> None:
    label = np.zeros((2, 40, 40), np.uint64)
    label[0, 5:20, 5:20] = 2**63
    label[0, 5:20, 20:35] = 7
    label[:, 30, 30] = 9
    smoothed = smooth_labels(label)
    assert smoothed.dtype == np.uint64
    assert set(np.unique(smoothed)) == {0, 7, 9, 2**63}
    assert smoothed[0, 5, 5] == 0
    assert smoothed[0, 12, 10] == 2**63
    assert smoothed[0, 12, 19] == 2**63
    assert smoothed[0, 12, 20] == 7
    compose = Compose([], label.shape, TARGETS, smooth=True)
    result = compose({"image": np.zeros(label.shape), "label": label}, sample_generator(0))
    np.testing.assert_array_equal(result["label"], smoothed)


@given(number=st.integers(0, 100))
def test_smoothing_is_the_heaviest_id_of_a_gaussian_window(number: int) -> None:
    rng = np.random.default_rng(number)
    label = ndimage.zoom(rng.integers(0, 4, (1, 4, 5)), (1, 5, 5), order=0)
    smoothed = smooth_labels(label, sigma=1.0, rounds=1)
    ids = np.unique(label)
    radius = 3
    weight = np.stack(
        [
            ndimage.gaussian_filter(
                (label == i).astype(float), (0, 1, 1), mode="constant", radius=(0, radius, radius)
            )
            for i in ids
        ]
    )
    kept = set(np.unique(smoothed)) == set(ids)
    assert kept
    ordered = np.sort(weight, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-9 if len(ids) > 1 else np.ones(label.shape, bool)
    lost = [i for i in ids if not np.any(ids[weight.argmax(0)] == i)]
    if not lost:
        np.testing.assert_array_equal(smoothed[clear], ids[weight.argmax(0)][clear])


class Patches(torch.utils.data.Dataset):
    """The smallest dataset that augments as volprep's own does."""

    def __init__(self, epoch: int = 0) -> None:
        self.data = sample()
        self.epoch = epoch
        self.compose = Compose(everything(), SIZE, TARGETS)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        result = self.compose(self.data, sample_generator(9, self.epoch, index))
        return torch.from_numpy(result["image"]), torch.from_numpy(result["label"])


def loaded(workers: int, context: str | None, epoch: int = 0) -> list[bytes]:
    loader = torch.utils.data.DataLoader(
        Patches(epoch), batch_size=None, num_workers=workers, multiprocessing_context=context
    )
    return [image.numpy().tobytes() + label.numpy().tobytes() for image, label in loader]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("workers", "context"),
    [
        (1, "fork"), (2, "fork"), (4, "fork"), (2, "spawn"),
        pytest.param(1, "spawn", marks=pytest.mark.slow),
        pytest.param(4, "spawn", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_samples_are_bit_identical_for_any_number_of_workers(workers: int, context: str) -> None:
    alone = loaded(0, None)
    assert loaded(workers, context) == alone


def test_no_two_samples_of_any_worker_or_epoch_repeat() -> None:
    compose = Compose(everything(), SIZE, TARGETS)
    draws = {
        json.dumps(compose.draw(sample_generator(9, epoch, index)).to_dict())
        for epoch in range(4)
        for index in range(500)
    }
    assert len(draws) == 2000
    samples = loaded(2, "fork") + loaded(2, "fork", epoch=1)
    assert len(set(samples)) == len(samples)


def test_flat_images_are_augmented_too() -> None:
    size = (1, 40, 50)
    compose = Compose(everything(), size, TARGETS)
    assert compose.required_shape[0] == 1
    data = sample((1, 70, 70))
    for n in range(10):
        result = compose(data, sample_generator(0, 0, n))
        assert result["image"].shape == size
        assert set(np.unique(result["label"])) <= set(np.unique(data["label"]))


def test_real_neurons_keep_their_ids(real_data: Callable[[str], Path]) -> None:
    import tifffile

    label = tifffile.imread(
        real_data("07_connectomics_neurons_labels_only/labels/pinky40_crop.tif")
    )
    compose = Compose(everything(), (16, 96, 96), TARGETS)
    z, y, x = compose.required_shape
    data = {"image": (label % 251).astype(np.uint8), "label": label}
    data = {name: array[:z, :y, :x] for name, array in data.items()}
    result = compose(data, sample_generator(0))
    assert result["label"].dtype == label.dtype
    assert set(np.unique(result["label"])) <= set(np.unique(label))


def test_motion_blur_missing_parts_and_all_else_have_words() -> None:
    compose = Compose([MotionBlur(p=1), MissingParts(p=1)], SIZE)
    words = compose.describe(compose.draw(sample_generator(0)))
    assert words[0].startswith("motion blur, 11 px along ")
    assert words[1].startswith("missing parts, ")


def test_a_skipped_target_that_does_not_exist_is_an_error() -> None:
    for name, nearest in (("lable", "label"), ("masks", "mask"), ("imgae", "image")):
        with pytest.raises(ValueError, match=rf"flip.skip_targets: '{name}'.*{nearest}\?"):
            Compose([Flip(skip_targets=[name])], SIZE, {"label": "mask"})
    Compose([Flip(skip_targets=["mask"])], SIZE, {"label": "mask"})  # others may have one
    Compose([Flip(skip_targets=["second"])], SIZE, {"second": "img"})


@pytest.mark.parametrize("ignore", [None, 255])
@pytest.mark.parametrize("grown", [0, 8])
def test_what_the_border_invents_is_neither_valid_nor_a_label(
    ignore: int | None, grown: int
) -> None:
    size = (6, 20, 24)
    shape = (6, 20 + grown, 24 + grown)
    rng = np.random.default_rng(0)
    data = {
        "image": rng.random(shape, np.float32),
        "label": rng.integers(1, 9, shape, dtype=np.uint8),
        "mask": np.ones(shape, bool),
    }
    targets = {"label": "mask", "mask": "mask"}
    compose = Compose([Rotate(p=1, rot90=False)], size, targets, ignore=ignore)
    invented = 0
    for n in range(10):
        drawn = compose.draw(sample_generator(0, 0, n))
        moved = compose(data, replay=drawn)
        centre = [(k - 1) / 2 for k in shape]
        grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 3)
        at = compose.coordinate_map(drawn, centre).source_points(grid)
        inside = ((at >= -0.499) & (at <= np.array(shape) - 0.501)).all(1).reshape(size)
        beyond = ((at <= -0.501) | (at >= np.array(shape) - 0.499)).any(1).reshape(size)
        assert moved["mask"][inside].all()
        assert not moved["mask"][beyond].any()
        assert (moved["label"][inside] != 255).all()
        assert (moved["label"][beyond] == 255).all() == (ignore == 255 or not beyond.any())
        assert any(compose.reaches_beyond(drawn, shape)) or not beyond.any()
        invented += int(beyond.sum())
    assert invented > 0


def test_draws_that_do_not_fit_are_told_once_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    size = (1, 16, 16)
    data = {"image": np.zeros(size, np.float32)}
    compose = Compose([Rotate(p=1, rot90=False)], size)
    for n in range(1000):
        compose(data, sample_generator(0, 0, n))
    assert len([r for r in caplog.records if "plan.aug_patch_size" in r.message]) == 2
    caplog.clear()
    roomy = {"image": np.zeros(compose.required_shape, np.float32)}
    for n in range(500):
        compose(roomy, sample_generator(0, 0, n))
    assert not caplog.records


@pytest.mark.parametrize("axes", ["yx", "zyx"])
@pytest.mark.parametrize("alpha", [16.0, 64.0])  # the second one folds the tissue
def test_points_stay_in_their_object_when_it_is_bent(axes: str, alpha: float) -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((14, 48, 48), np.uint16)
    for n, (z, y, x) in enumerate(rng.integers(0, (12, 42, 42), (40, 3)), 1):
        label[z : z + 2, y : y + 3, x : x + 5] = n
    points = {
        int(n): np.argwhere(label == n) + rng.uniform(-0.49, 0.49, (np.sum(label == n), 3))
        for n in np.unique(label[label > 0])
    }
    data = {"image": np.zeros(label.shape, np.float32), "label": label, "points": points}
    targets = {"label": "mask", "points": "points"}
    compose = Compose([Elastic(p=1, alpha=alpha, axes=axes), Flip(p=1)], label.shape, targets)
    outside = shown = 0
    for n in range(5):
        drawn = compose.draw(sample_generator(0, 0, n))
        moved = compose(data, replay=drawn)
        back = compose.coordinate_map(drawn, [(k - 1) / 2 for k in label.shape])
        for number, own in moved["points"].items():
            voxels = np.rint(own).astype(int)
            inside = ((voxels >= 0) & (voxels < label.shape)).all(1)
            there = moved["label"][tuple(voxels[inside].T)]
            if (moved["label"] == number).any():  # some vanish between voxels
                outside += int((there != number).sum())
                shown += len(there)
            assert np.abs(back.source_points(own) - points[number]).max() < (1.5 + alpha / 16)
    assert outside <= (0 if alpha == 16 else 0.001 * shown)


def test_a_folded_map_finds_a_place_for_every_point() -> None:
    rng = np.random.default_rng(0)
    grid = rng.uniform(-7, 7, (3, 4, 6, 6)).astype(np.float32)
    coordinates = CoordinateMap.elastic(grid, (5, 8, 8))
    points = rng.uniform(0, (15, 40, 40), (300, 3))
    found = coordinates.inverse_points(points)
    off = np.abs(coordinates.source_points(found) - points).max(1)
    assert np.mean(off > 1e-3) < 0.01
