"""Each augmentation does what its name says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from volprep.augment import (
    TRANSFORMS,
    BrightnessContrast,
    ChannelDropout,
    Compose,
    CopyPaste,
    CutBlur,
    CutNoise,
    Drawn,
    Elastic,
    Flip,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Invert,
    LowResolution,
    MisAlignment,
    MissingParts,
    MissingSection,
    Mixup,
    MotionBlur,
    PoissonNoise,
    Rescale,
    Rotate,
    Transform,
)
from volprep.randomness import sample_generator

SIZE = (6, 20, 24)
TARGETS = {"label": "mask"}


def sample(shape: tuple[int, ...] = SIZE, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.random(shape, np.float32)
    return {"image": image, "label": rng.integers(0, 9, shape[-3:], dtype=np.uint16)}


def drawn(compose: Compose, *values: dict | None) -> Drawn:
    names = [transform.name for transform in compose.transforms]
    return Drawn(compose.input_size, tuple(zip(names, values, strict=True)))


def apply(
    transform: Transform, values: dict, data: dict, size: tuple[int, int, int] = SIZE
) -> dict:
    compose = Compose([transform], size, TARGETS, value_range=(0, 1))
    return compose(data, replay=drawn(compose, values))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_move_voxels_exactly(turns: int) -> None:
    data = sample((6, 24, 24))
    turned = apply(Rotate(), {"angle": 90.0 * turns, "tilts": [0.0, 0.0]}, data, (6, 24, 24))
    for name in data:
        either = [np.rot90(data[name], k, axes=(1, 2)) for k in (turns, -turns)]
        assert any(np.array_equal(turned[name], e) for e in either)
        np.testing.assert_array_equal(turned["label"].dtype, np.uint16)


def test_quarter_turns_of_a_patch_that_is_not_square_read_from_a_larger_one() -> None:
    compose = Compose([Rotate()], (3, 9, 14), TARGETS, border="raise")
    data = sample(compose.required_shape)
    turned = compose(data, replay=drawn(compose, {"angle": 90.0, "tilts": [0.0, 0.0]}))
    _, y, x = compose.required_shape
    y0, x0 = (y - 14) // 2, (x - 9) // 2
    region = data["image"][:3, y0 : y0 + 14, x0 : x0 + 9]
    either = [np.rot90(region, k, axes=(1, 2)) for k in (1, -1)]
    assert any(np.array_equal(turned["image"], e) for e in either)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_mirror_an_axis(axis: int) -> None:
    data = sample()
    values = {"mirrored": ["zyx"[axis]], "swap_yx": False, "swap_zx": False}
    flipped = apply(Flip(), values, data)
    for name in data:
        np.testing.assert_array_equal(flipped[name], np.flip(data[name], axis))


def test_flips_swap_axes() -> None:
    data = sample((8, 8, 8))
    values = {"mirrored": [], "swap_yx": True, "swap_zx": False}
    swapped = apply(Flip(), values, data, (8, 8, 8))
    np.testing.assert_array_equal(swapped["label"], data["label"].transpose(0, 2, 1))
    values = {"mirrored": [], "swap_yx": False, "swap_zx": True}
    swapped = apply(Flip(do_ztrans=1), values, data, (8, 8, 8))
    np.testing.assert_array_equal(swapped["label"], data["label"].transpose(2, 1, 0))


def test_flips_swap_z_and_x_only_when_asked() -> None:
    drawn_ = [Flip().draw(sample_generator(0, 0, n), SIZE) for n in range(50)]
    assert not any(values["swap_zx"] for values in drawn_)
    drawn_ = [Flip(do_ztrans=1).draw(sample_generator(0, 0, n), SIZE) for n in range(50)]
    assert any(values["swap_zx"] for values in drawn_)


def test_rescale_above_one_magnifies() -> None:
    image = np.zeros((1, 41, 41), np.float32)
    image[0, 15:26, 15:26] = 1
    data = {"image": image, "label": image.astype(np.uint8)}
    larger = apply(Rescale(), {"factors": [1.0, 2.0, 2.0]}, data, (1, 41, 41))
    # The square's outline of 11 voxels becomes 22 voxels long, to within its own voxel.
    side = np.sqrt(larger["label"].sum())
    assert 21 <= side <= 23
    smaller = apply(Rescale(), {"factors": [1.0, 0.5, 1.0]}, data, (1, 41, 41))
    assert smaller["label"][:, 10:31].any(axis=(0, 2)).sum() in (5, 6)  # beyond are reflections
    assert smaller["label"].any(axis=(0, 1)).sum() == 11


def test_a_fixed_aspect_has_one_factor() -> None:
    values = Rescale(fix_aspect=True, axes="zyx").draw(sample_generator(1), SIZE)
    assert len(set(values["factors"])) == 1
    values = Rescale().draw(sample_generator(1), SIZE)
    assert values["factors"][0] == 1
    assert values["factors"][1] != values["factors"][2]


def test_free_rotation_is_physical_where_the_spacing_is_known() -> None:
    values = {"angle": 90.0 - 1e-9, "tilts": [0.0, 0.0]}
    spacing = (1.0, 2.0, 1.0)
    turn = Rotate(rot90=False)
    matrix = turn.coordinate_map(values, SIZE, spacing).matrix
    # A step of one voxel along x is one micrometre, half a voxel along y.
    assert abs(matrix[1, 2]) == pytest.approx(0.5)
    assert abs(matrix[2, 1]) == pytest.approx(2.0)


def test_tilts_leave_flat_images_alone() -> None:
    values = Rotate(rot90=False, tilt=30).draw(sample_generator(0), (1, 20, 20))
    assert values["tilts"] == [0.0, 0.0]


def test_elastic_keeps_within_its_bound_and_moves_about_as_much_as_simard_says() -> None:
    elastic = Elastic(alpha=40, sigma=4)
    shape = (4, 128, 128)
    moved = []
    grid = np.stack(np.meshgrid([0], np.arange(128), np.arange(128), indexing="ij"), -1)
    points = grid.reshape(-1, 3).astype(float)
    for n in range(20):
        values = elastic.draw(sample_generator(0, 0, n), shape)
        found = elastic.coordinate_map(values, shape, (1, 1, 1)).source_points(points) - points
        assert np.abs(found).max() <= elastic.bound(shape) + 1e-5
        assert not found[:, 0].any()
        moved.append(found[:, 1:])
    rng = np.random.default_rng(0)
    from scipy.ndimage import gaussian_filter

    simard = [gaussian_filter(rng.uniform(-1, 1, (128, 128)), 4) * 40 for _ in range(20)]
    assert np.std(moved) == pytest.approx(np.std(simard), rel=0.1)


def test_elastic_bends_in_3d_when_asked() -> None:
    elastic = Elastic(axes="zyx")
    values = elastic.draw(sample_generator(0), (16, 32, 32))
    found = elastic.coordinate_map(values, (16, 32, 32), (1, 1, 1))
    assert found.displacement is not None
    assert found.displacement[0].any()


def test_missing_sections_are_gone_and_the_rest_is_whole() -> None:
    compose = Compose([MissingSection(num_sections=2, p=1)], SIZE, TARGETS, border="raise")
    depth = compose.required_shape[0]
    ramp = np.broadcast_to(
        np.arange(depth, dtype=np.float32)[:, None, None], compose.required_shape
    )
    data = {"image": ramp, "label": ramp.astype(np.int32)}
    for n in range(20):
        rng = sample_generator(0, 0, n)
        one = compose.draw(rng)
        result = compose(data, replay=one)
        kept = result["image"][:, 0, 0]
        assert np.all(result["image"] == kept[:, None, None])
        np.testing.assert_array_equal(result["label"][:, 0, 0], kept)
        deleted = one.steps[0][1]["deleted"]  # type: ignore[index]
        assert sorted({*kept.astype(int), *deleted}) == list(range(depth))
        assert min(deleted) > 0
        assert max(deleted) < depth - 1


def test_section_artefacts_leave_flat_images_alone() -> None:
    for transform in (MissingSection(p=1), MisAlignment(p=1)):
        assert transform.draw(sample_generator(0), (1, 20, 20)) is None


@pytest.mark.parametrize("mode", ["slip", "shift"])
def test_misalignment_moves_one_section_or_all_that_follow(mode: str) -> None:
    compose = Compose([MisAlignment(displacement=6)], SIZE, TARGETS, border="raise")
    data = sample(compose.required_shape)
    values = {"mode": mode, "section": 3, "shifts": [[1, -2], [-3, 2]]}
    result = compose(data, replay=drawn(compose, values))
    margin = 3
    for z in range(SIZE[0]):
        moved = z == 3 if mode == "slip" else z >= 3
        dy, dx = (-3, 2) if moved else (1, -2)
        region = data["label"][z, margin + dy :, margin + dx :][: SIZE[1], : SIZE[2]]
        np.testing.assert_array_equal(result["label"][z], region)


def test_misalignment_by_rotation_moves_corners_by_the_displacement() -> None:
    transform = MisAlignment(displacement=8, rotate_ratio=1)
    shape = (4, 64, 64)
    angles = [transform.draw(sample_generator(0, 0, n), shape)["angle"] for n in range(200)]  # type: ignore[index]
    corner = 2 * np.hypot(32, 32) * np.sin(np.radians(np.abs(angles)) / 2)
    assert corner.max() <= 8
    assert corner.max() > 7
    assert min(angles) < 0 < max(angles)


def test_grayscale_mix_changes_single_sections_half_of_the_time() -> None:
    compose = Compose([Grayscale(p=1)], SIZE, TARGETS, value_range=(0, 1))
    modes = [compose.draw(sample_generator(0, 0, n)).steps[0][1]["mode"] for n in range(200)]  # type: ignore[index]
    assert 70 < modes.count("2D") < 130
    flat = {**sample(), "image": np.full(SIZE, 0.5, np.float32)}
    per_section = next(n for n, mode in enumerate(modes) if mode == "2D")
    changed = compose(flat, sample_generator(0, 0, per_section))["image"]
    assert len(np.unique(changed[:, 0, 0])) == SIZE[0]
    whole = next(n for n, mode in enumerate(modes) if mode == "3D")
    assert len(np.unique(compose(flat, sample_generator(0, 0, whole))["image"])) == 1


def test_grayscale_follows_its_formula() -> None:
    data = sample()
    values = {
        "mode": "3D", "contrast": [1.1], "brightness": [0.95], "gamma": [1.5], "inverted": True
    }  # fmt: skip
    changed = apply(Grayscale(invert=True, clip=True), values, data)
    mean = data["image"].mean()
    expected = 1 - np.clip(((data["image"] - mean) * 1.1 + mean) * 0.95, 0, 1) ** 1.5
    np.testing.assert_allclose(changed["image"], expected, atol=1e-4)
    np.testing.assert_array_equal(changed["label"], data["label"])


def test_invert_is_its_own_inverse() -> None:
    data = sample()
    compose = Compose([Invert(p=1), Invert(p=1)], SIZE, TARGETS)
    np.testing.assert_allclose(
        compose(data, sample_generator(0))["image"], data["image"], atol=1e-6
    )


def test_contrast_turns_about_the_mean_and_brightness_about_the_low_end() -> None:
    data = sample()
    data["image"] = data["image"] ** 3 * 1000 + 100
    image, at = data["image"], np.sort(data["image"].ravel())
    low = at[round(0.01 * (at.size - 1))]
    compose = Compose([BrightnessContrast()], SIZE, TARGETS)
    changed = compose(data, replay=drawn(compose, {"contrast": 0.5, "brightness": 1.0}))["image"]
    np.testing.assert_allclose(changed, (image - image.mean()) * 0.5 + image.mean(), rtol=1e-5)
    changed = compose(data, replay=drawn(compose, {"contrast": 1.0, "brightness": 1.2}))["image"]
    np.testing.assert_allclose(changed, (image - low) * 1.2 + low, rtol=1e-5)
    clipped = Compose([BrightnessContrast(clip=True)], SIZE, TARGETS)
    changed = clipped(data, replay=drawn(clipped, {"contrast": 1.0, "brightness": 1.2}))["image"]
    assert changed.max() == pytest.approx(at[round(0.99 * (at.size - 1))])


@pytest.mark.parametrize(
    "transform",
    [GaussianNoise(p=1), CutNoise(p=1), Gamma(p=1), Grayscale(p=1), PoissonNoise(p=1)],
    ids=lambda t: t.name,
)
def test_a_hot_voxel_changes_nothing_for_the_others(transform: Transform) -> None:
    plain = sample((8, 32, 32))
    hot = {**plain, "image": plain["image"].copy()}
    hot["image"][4, 16, 16] = 500
    compose = Compose([transform], (8, 32, 32), TARGETS)
    change = [
        compose(data, sample_generator(0, 0, 5))["image"] - data["image"] for data in (plain, hot)
    ]
    change[1][4, 16, 16] = change[0][4, 16, 16] = 0
    assert change[1].std() == pytest.approx(change[0].std(), rel=0.2)


@pytest.mark.parametrize("kind", [k for k in TRANSFORMS.values() if k.kind == "intensity"])
def test_normalising_before_or_after_gives_the_same_picture(kind: type[Transform]) -> None:
    data = sample((4, 40, 40))
    compose = Compose([kind(p=1)], (4, 40, 40), TARGETS)
    for n in range(3):
        raw = compose({**data, "image": data["image"] * 700 + 90}, sample_generator(0, 0, n))
        unit = compose({**data, "image": data["image"] * 3 - 2}, sample_generator(0, 0, n))
        np.testing.assert_allclose((raw["image"] - 90) / 700, (unit["image"] + 2) / 3, atol=2e-3)


def test_missing_parts_act_as_often_as_p_says() -> None:
    compose = Compose([MissingParts(p=0.5)], (1, 32, 32), value_range=(0, 1))
    image = {"image": sample((1, 32, 32))["image"]}
    hit = [
        not np.array_equal(compose(image, sample_generator(0, 0, n))["image"], image["image"])
        for n in range(300)
    ]
    assert 0.42 < np.mean(hit) < 0.58


def test_missing_parts_hide_a_band_and_leave_the_neighbours() -> None:
    compose = Compose([MissingParts(p=1)], (12, 64, 64), value_range=(0, 1))
    image = sample((12, 64, 64))["image"]
    for n in range(20):
        changed = compose({"image": image}, sample_generator(0, 0, n))["image"]
        sections = np.flatnonzero((changed != image).any(axis=(1, 2)))
        assert len(sections)
        assert np.all(np.diff(sections) >= 3)
        for z in sections:
            hidden = changed[z] != image[z]
            assert np.ptp(changed[z][hidden]) == 0
            assert changed[z][hidden][0] == pytest.approx(image[z].mean(), abs=1e-5)
            assert 0.02 < hidden.mean() < 0.9


def test_motion_blur_averages_along_one_axis_of_some_sections() -> None:
    data = sample()
    changed = apply(MotionBlur(kernel_size=5), {"axis": "x", "sections": [1, 4]}, data)
    np.testing.assert_array_equal(changed["image"][[0, 2, 3, 5]], data["image"][[0, 2, 3, 5]])
    middle = np.stack([data["image"][1, :, i : i + 5].mean(1) for i in range(20)], 1)
    np.testing.assert_allclose(changed["image"][1, :, 2:22], middle, atol=1e-5)


def test_cut_blur_averages_cells_of_a_cuboid() -> None:
    data = sample()
    values = {"box": [[1, 4, 8], [4, 12, 16]], "ratio": 4.0}
    changed = apply(CutBlur(), values, data)["image"]
    cells = data["image"][1:4, 4:12, 8:16].reshape(3, 2, 4, 2, 4).mean((2, 4))
    np.testing.assert_allclose(changed[1:4, 4:12:4, 8:16:4], cells, atol=1e-5)
    outside = np.ones(SIZE, bool)
    outside[1:4, 4:12, 8:16] = False
    np.testing.assert_array_equal(changed[outside], data["image"][outside])
    deep = apply(CutBlur(downsample_z=True), values, data)["image"]
    np.testing.assert_allclose(
        deep[1:4, 4:12:4, 8:16:4], cells.mean(0)[None].repeat(3, 0), atol=1e-5
    )


def test_cut_noise_stays_inside_its_cuboid_and_scale() -> None:
    data = {**sample(), "image": np.full(SIZE, 0.5, np.float32)}
    values = {"box": [[0, 2, 3], [2, 10, 12]], "seed": [1, 2]}
    changed = apply(CutNoise(scale=0.1), values, data)["image"] - 0.5
    assert 0.09 < np.abs(changed).max() <= 0.1
    assert np.all(changed[2:] == 0)
    assert np.all(changed[:2, 2:10, 3:12] != 0)


def test_noises_and_blurs_change_images_and_no_labels() -> None:
    data = sample()
    transforms = [
        GaussianNoise(p=1, sigma=0.05), PoissonNoise(p=1), GaussianBlur(p=1, axes="zyx"),
        Gamma(p=1), LowResolution(p=1, scale=(0.3, 0.5), axes="zyx"),
    ]  # fmt: skip
    for transform in transforms:
        changed = Compose([transform], SIZE, TARGETS)(data, sample_generator(3))
        assert not np.array_equal(changed["image"], data["image"])
        np.testing.assert_array_equal(changed["label"], data["label"])


def test_channels_have_noise_of_their_own() -> None:
    image = np.full((3, *SIZE), 0.5, np.float32)
    compose = Compose([GaussianNoise(p=1)], SIZE, value_range=(0, 1))
    changed = compose({"image": image}, sample_generator(0))["image"]
    assert len(np.unique(changed[:, 2, 3, 4])) == 3


def test_channel_dropout_blanks_one_of_several_channels() -> None:
    image = np.random.default_rng(0).random((3, *SIZE), np.float32) + 1
    compose = Compose([ChannelDropout(p=1)], SIZE)
    blank = set()
    for n in range(30):
        changed = compose({"image": image}, sample_generator(0, 0, n))["image"]
        flat = [c for c in range(3) if np.ptp(changed[c]) == 0]
        assert len(flat) == 1
        assert image[flat[0]].min() <= changed[flat[0]].max() <= np.percentile(image[flat[0]], 2)
        blank.update(flat)
    assert blank == {0, 1, 2}
    single = compose({"image": image[:1]}, sample_generator(0))["image"]
    np.testing.assert_array_equal(single, image[:1])


def test_copy_paste_copies_an_object_with_its_image_and_points() -> None:
    label = np.zeros((8, 40, 40), np.uint64)
    label[2:5, 5:12, 6:10] = 2**63
    image = np.random.default_rng(0).random(label.shape, np.float32)
    points = {2**63: np.array([[3, 8, 7], [2, 5, 6]], np.float32)}
    targets = {"label": "mask", "skeleton": "points"}
    compose = Compose([CopyPaste(p=1)], label.shape, targets)
    data = {"image": image, "label": label, "skeleton": points}
    for n in range(12):
        result = compose(data, sample_generator(0, 0, n))
        np.testing.assert_array_equal(result["label"][label != 0], label[label != 0])
        ids = np.unique(result["label"])
        assert ids.tolist() == [0, 2**63, 2**63 + 1]
        copy = result["label"] == 2**63 + 1
        assert 0 < copy.sum() <= (label != 0).sum()
        assert np.isin(result["image"][copy], image[label != 0]).all()
        np.testing.assert_array_equal(result["image"][~copy], image[~copy])
        first = np.round(result["skeleton"][2**63 + 1][0]).astype(int)
        assert result["image"][tuple(first)] == image[3, 8, 7] or not copy[tuple(first)]
    assert label.max() == 2**63  # the sample itself is left alone


def test_copies_of_classes_keep_their_class() -> None:
    label = np.zeros((4, 30, 30), np.uint8)
    label[1:3, 3:9, 3:9] = 255
    compose = Compose([CopyPaste(p=1, instances=False)], label.shape, TARGETS)
    data = {"image": np.ones(label.shape, np.float32), "label": label}
    result = compose(data, sample_generator(0))
    assert set(np.unique(result["label"])) == {0, 255}
    assert (result["label"] > 0).sum() > (label > 0).sum()


def test_a_copy_gets_a_free_id_where_the_dtype_ends() -> None:
    label = np.zeros((4, 30, 30), np.uint8)
    label[1:3, 3:9, 3:9] = 255
    compose = Compose([CopyPaste(p=1)], label.shape, TARGETS)
    data = {"image": np.ones(label.shape, np.float32), "label": label}
    assert set(np.unique(compose(data, sample_generator(0))["label"])) == {0, 1, 255}


def test_copy_paste_leaves_full_and_empty_patches_alone() -> None:
    compose = Compose([CopyPaste(p=1)], SIZE, TARGETS)
    for value in (0, 1):
        data = {"image": sample()["image"], "label": np.full(SIZE, value, np.int32)}
        result = compose(data, sample_generator(0))
        np.testing.assert_array_equal(result["label"], data["label"])
        np.testing.assert_array_equal(result["image"], data["image"])


def test_copy_paste_needs_labels() -> None:
    with pytest.raises(ValueError, match="needs a mask 'label'"):
        Compose([CopyPaste(p=1)], SIZE)  # where it is made, not in the middle of an epoch


@pytest.mark.parametrize("make", [np.asarray, lambda a: __import__("torch").from_numpy(a)])
def test_mixup_blends_samples_with_what_the_batch_held(make: Callable) -> None:
    batch = np.random.default_rng(0).random((4, 1, 2, 3, 3), np.float32)
    mixup = Mixup(num_aug=3)
    plan = mixup.draw(sample_generator(0), 4)
    assert len({n for n, _, _ in plan}) == 3
    given = make(batch.copy())
    mixed = mixup(given, sample_generator(0))
    assert type(mixed) is type(given)
    expected = batch.copy()
    for n, m, ratio in plan:
        assert n != m
        assert 0.7 <= ratio <= 0.9
        expected[n] = batch[n] * ratio + batch[m] * (1 - ratio)
    np.testing.assert_allclose(np.asarray(mixed), expected, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(given), batch)
    np.testing.assert_array_equal(np.asarray(mixup(given, replay=plan)), np.asarray(mixed))


def test_mixup_wants_a_generator_and_floats() -> None:
    with pytest.raises(TypeError, match="rng="):
        Mixup()(np.zeros((2, 1, 1, 1, 1)))
    with pytest.raises(TypeError, match="wanted floats"):
        Mixup()(np.zeros((2, 1, 1, 1, 1), int), sample_generator(0))
    batch = np.random.default_rng(0).random((4, 1, 2, 2, 2))
    for mixup in (Mixup(enabled=False), Mixup(p=0)):
        np.testing.assert_array_equal(mixup(batch, sample_generator(0)), batch)
    one = np.ones((1, 1, 2, 2, 2))
    np.testing.assert_array_equal(Mixup()(one, sample_generator(0)), one)


@pytest.mark.parametrize("kind", TRANSFORMS.values(), ids=list(TRANSFORMS))
def test_every_transform_can_be_off_or_never_or_always(kind: type[Transform]) -> None:
    data = sample()
    for transform in (kind(p=0), kind(p=1, enabled=False)):
        compose = Compose([transform], SIZE, TARGETS)
        result = compose(data, sample_generator(0))
        for name in data:
            np.testing.assert_array_equal(result[name], data[name])
        assert compose.describe(compose.draw(sample_generator(0))) == []
    compose = Compose([kind(p=1)], SIZE, TARGETS)
    (words,) = compose.describe(compose.draw(sample_generator(0)))
    assert words
    assert "{" not in words


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotate(p=1.5), "rotate.p: found 1.5; wanted a probability"),
        (lambda: Rotate(p="often"), "rotate.p: found 'often'; wanted a number"),
        (lambda: Rescale(low=0), "rescale.low: found 0; wanted above 0"),
        (lambda: MotionBlur(sections=1.5), "motion_blur.sections: found 1.5; wanted a whole"),
        (lambda: Flip(enabled=1), "flip.enabled: found 1; wanted true or false"),
        (lambda: Gamma(gamma=(2, 1)), "the lower first"),
        (lambda: Gamma(gamma="x"), "gamma.gamma: found 'x'; wanted a number, or two"),
        (lambda: Flip(additional_targets={"a": "image"}), "'a' has type 'image'"),
        (lambda: Flip(skip_targets="label"), "flip.skip_targets: found 'label'"),
        (lambda: Mixup(min_ratio=2), "mixup: min_ratio 2"),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
