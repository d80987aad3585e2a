"""Presets of augmentations: what is chosen for which data, and what it does to real voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from volprep.augment import (
    PRESETS,
    TRANSFORMS,
    choose_preset,
    compose_from_config,
    measure_scale,
    needs_histogram,
    required_shape,
    transforms_from_config,
)
from volprep.randomness import sample_generator
from volprep.sources import open_volume

#: Folder or file of images, part of a name.
REAL = {
    "02": "02_gonuclear_nuclei3d_h5/1135_mini.h5",
    "05": "05_isbi2012_em_png_stack/images",
    "11": "11_imagej_tiff_plantseg/images",
    "18": "18_multichannel_planes_points_cellfinder/ch0",
    "21": "21_2d_rgb_hela/hela-cells.tif",
}
CHANGES = [
    n for n, kind in TRANSFORMS.items() if kind.kind == "intensity" and n != "channel_dropout"
]


@pytest.fixture
def real_patch(real_data: Callable[[str], Path]) -> Callable[[str], np.ndarray]:
    def read(name: str) -> np.ndarray:
        path = real_data(REAL[name])
        if name == "11":
            path = next(p for p in sorted(path.iterdir()) if p.is_file())
        volume = open_volume(path)
        size = [min(n, m) for n, m in zip(volume.shape[1:], (24, 256, 256), strict=True)]
        start = [(n - m) // 2 for n, m in zip(volume.shape[1:], size, strict=True)]
        where = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        return np.asarray(volume.read()[(slice(None), *where)])

    return read


def pinned(image: np.ndarray) -> float:
    """The largest share of a channel's voxels that have its lowest or highest value."""
    return max(float(np.mean((c == c.min()) | (c == c.max()))) for c in image)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("augment", [*CHANGES, *PRESETS])
def test_default_strengths_pin_no_voxels_to_a_bound(
    real_patch: Callable[[str], np.ndarray], name: str, augment: str
) -> None:
    image = real_patch(name).astype(np.float32)
    every: list[Any] = [{augment: {"p": 1.0}}] if augment in TRANSFORMS else PRESETS[augment](False)
    moves = {n for n, kind in TRANSFORMS.items() if kind.kind != "intensity"}
    listed = [section for section in every if not moves & section.keys()]
    compose = compose_from_config(listed, image.shape[1:], {})
    before = pinned(image)
    shares = [
        pinned(compose({"image": image}, sample_generator(0, 0, n))["image"]) for n in range(8)
    ]
    assert max(shares) <= before + 0.02, (before, shares)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("isotropic", [False, True])
def test_every_preset_is_a_list_that_a_config_may_hold(name: str, isotropic: bool) -> None:
    listed = PRESETS[name](isotropic)
    transforms = transforms_from_config(listed)
    assert [t.name for t in transforms] == [next(iter(section)) for section in listed]
    patch = (1, 128, 128) if name == "2d" else (64, 64, 64) if isotropic else (24, 128, 128)
    read = required_shape(transforms, patch)
    assert np.prod(read) <= 3.5 * np.prod(patch), read


@pytest.mark.parametrize(
    ("shape", "spacing", "histogram", "modality", "wanted"),
    [
        ((1, 1, 512, 512), None, None, None, "2d"),
        ((3, 1, 512, 512), (0.1, 0.1, 0.1), None, "fluorescence", "2d"),
        ((1, 30, 512, 512), (0.05, 0.004, 0.004), None, None, "em"),
        ((1, 30, 512, 512), (0.008, 0.008, 0.008), None, None, "em"),
        ((1, 90, 512, 512), (3000, 700, 700), None, None, "ct"),
        ((2, 30, 512, 512), None, None, None, "fluorescence"),
        ((1, 30, 512, 512), (0.3, 0.1, 0.1), (9, 99, 180), None, "fluorescence"),
        ((1, 30, 512, 512), None, (9, 99, 180), None, "em"),
        ((1, 30, 512, 512), None, (9, 20, 180), None, "fluorescence"),
        ((1, 30, 512, 512), None, (-990, 40, 900), None, "ct"),
        ((1, 30, 512, 512), None, (9, 20, 180), "em", "em"),
        ((1, 30, 512, 512), (0.05, 0.004, 0.004), None, "ct", "ct"),
        ((1, 30, 512, 512), None, (5, 5, 5), None, "fluorescence"),
    ],
)
def test_the_preset_follows_from_shape_spacing_grey_values_and_modality(
    shape: Sequence[int], spacing: Any, histogram: Any, modality: Any, wanted: str
) -> None:
    kind = "int16" if histogram and histogram[0] < 0 else "uint8"
    chosen = choose_preset(
        shape=shape, spacing=spacing, dtype=kind, histogram=histogram, modality=modality
    )
    assert chosen.name == wanted
    assert chosen.reason
    if histogram is None:
        assert not needs_histogram(shape=shape, spacing=spacing, modality=modality)


def test_block_face_imaging_has_no_section_artefacts() -> None:
    names = {
        spacing: [next(iter(s)) for s in choose_preset(shape=(1, 9, 9, 9), spacing=spacing).augment]
        for spacing in [(0.05, 0.004, 0.004), (0.016, 0.016, 0.016)]
    }
    cut, milled = names.values()
    assert {"misalignment", "missing_section", "missing_parts", "elastic"} <= set(cut)
    assert not {"misalignment", "missing_section", "missing_parts", "motion_blur"} & set(milled)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("02", "fluorescence"), ("05", "em"), ("11", "fluorescence"), ("21", "2d")],
)
def test_real_sets_get_what_they_are(
    real_patch: Callable[[str], np.ndarray], name: str, wanted: str
) -> None:
    voxels = real_patch(name)
    histogram = np.percentile(voxels[0], [1, 50, 99]).tolist()
    chosen = choose_preset(shape=voxels.shape, dtype=voxels.dtype, histogram=histogram)
    assert chosen.name == wanted, (histogram, chosen.reason)


def test_sections_artefacts_leave_most_of_a_2d_image_as_it_was() -> None:
    image = np.random.default_rng(0).random((1, 1, 160, 200)).astype(np.float32)
    for name in ("missing_parts", "cut_blur", "cut_noise"):
        compose = compose_from_config([{name: {"p": 1.0}}], (1, 160, 200), {})
        shares = [
            np.mean(compose({"image": image}, sample_generator(0, 0, n))["image"] != image)
            for n in range(40)
        ]
        assert max(shares) < 0.25, name
        assert max(shares) > 0.02, name


@pytest.mark.parametrize("hot", [0, 1, 5])
def test_the_scale_is_that_of_the_voxels_without_outliers(hot: int) -> None:
    image = np.random.default_rng(1).normal(100, 10, (20, 60, 60)).astype(np.float32)
    image.ravel()[:hot] = 65535
    scale = measure_scale(image)
    assert scale.low == pytest.approx(100 - 23.3, abs=1.5)
    assert scale.high == pytest.approx(100 + 23.3, abs=1.5)
    spots = np.full((20, 60, 60), 7, np.float32)
    spots[3, :10, :10] = 900
    assert 0 < measure_scale(spots).span < 100
    assert measure_scale(np.full((2, 3, 4), 5, np.float32)).span == 0
    image[0] = np.nan
    assert np.isfinite(measure_scale(image).mean)
