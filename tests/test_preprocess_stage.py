"""The preprocessing stage of `prepare`: arrays beside each other, kept across runs."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from volprep.cases import find_cases
from volprep.config import load_config
from volprep.errors import ConfigError
from volprep.pipeline.check import check
from volprep.pipeline.inputs import list_cases
from volprep.pipeline.prepare import prepare
from volprep.pipeline.volumes import PreparedRef, make_volume
from volprep.preprocess import Preprocessing, case_layout, resample_image, resample_labels
from volprep.store import volume_path

SETTINGS = Preprocessing(target=(0.2, 0.1, 0.1))


@pytest.fixture
def cases(tmp_path):
    """Two images with labels and masks, 0.3 x 0.12 x 0.15 µm."""
    rng = np.random.default_rng(0)
    for number in range(2):
        label = rng.integers(0, 5, (10, 12, 14)).astype(np.uint16).repeat(3, 1).repeat(3, 2)
        label[0, 0, 0] = 60_000
        arrays = {
            "images": rng.integers(0, 4000, label.shape).astype(np.uint16),
            "labels": label,
            "masks": (label > 1).astype(np.uint8),
        }
        for folder, array in arrays.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"c{number}.tif", array)
    return find_cases(
        tmp_path,
        image_dir="images",
        label_dir="labels",
        mask_dir="masks",
        spacing=(0.3, 0.12, 0.15),
    ).items


def refs_of(cases, settings, folder):
    """The cases as they will be prepared in a folder."""
    layouts = [case_layout(c.open_image(), c.open_label(), settings) for c in cases]
    return [
        PreparedRef(case, layout, "", "", volume_path(folder, case.name))
        for case, layout in zip(cases, layouts, strict=True)
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_cases_are_resampled(cases, tmp_path, workers):
    for ref in refs_of(cases, SETTINGS, tmp_path):
        assert make_volume(ref, workers=workers)[0] == ()
        shape, source, case = (15, 43, 63), ref.case, ref.open()
        assert source.name == case.name
        assert (case.image.read() == resample_image(source.open_image().read(), shape)).all()
        for opened, got in ((source.open_label(), case.label), (source.open_mask(), case.mask)):
            assert (got.read()[0] == resample_labels(opened.read()[0], shape)).all()
        assert case.label.dtype == np.uint16  # as wide as the largest id wants
        assert case.label.form.dtype == np.uint8  # and stored as narrow as six ids allow


def test_volume_is_unlinked_and_not_written_into_when_it_is_made_again(cases, tmp_path):
    (ref, _) = refs_of(cases, SETTINGS, tmp_path)
    make_volume(ref, workers=1)
    before = {p: p.read_bytes() for p in (tmp_path / "volumes").rglob("*") if p.is_file()}
    for number, path in enumerate(before):
        (tmp_path / f"link{number}").hardlink_to(path)
    tifffile.imwrite(tmp_path / "images" / "c0.tif", np.ones((10, 36, 42), np.uint16))
    make_volume(ref, workers=1)
    for number, data in enumerate(before.values()):
        assert (tmp_path / f"link{number}").read_bytes() == data


def written(folder):
    """When each file was written."""
    files = (f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in files}


def test_a_case_is_made_again_when_its_file_or_the_settings_change(cases, tmp_path):
    volumes = tmp_path / "out" / "volumes"
    prepare(config_of(tmp_path, "{target_spacing: [0.2, 0.1, 0.1]}"))
    before = written(volumes)
    assert before
    tifffile.imwrite(tmp_path / "images" / "c0.tif", np.ones((10, 36, 42), np.uint16))
    prepare(config_of(tmp_path, "{target_spacing: [0.2, 0.1, 0.1]}"), overwrite=True)
    changed = {name for name, time in written(volumes).items() if before.get(name) != time}
    assert changed
    assert all(name.startswith("c0.") for name in changed)
    prepare(config_of(tmp_path, "{target_spacing: [0.2, 0.1, 0.1], order: 1}"), overwrite=True)
    assert all(before[name] != time for name, time in written(volumes).items())


def test_untouched_cases_are_read_from_their_files(cases, tmp_path):
    prepare(config_of(tmp_path, "{}"))
    assert not (tmp_path / "out" / "volumes").exists()


def config_of(tmp_path, preprocess):
    """A config of the two cases."""
    path = tmp_path / "volprep.yaml"
    path.write_text(
        "data: {root: ., image_dir: images, label_dir: labels, spacing: [0.3, 0.12, 0.15]}\n"
        "plan: {patch_size: [8, 16, 16]}\n"
        f"preprocess: {preprocess}\n"
        "patching: {patches_per_case: 2}\n"
        "output: {dir: out}\n"
    )
    return load_config(path)


def test_each_case_has_its_own_rule_and_validation_too(cases, tmp_path):
    settings = "{target_spacing: [0.6, 0.24, 0.3], scope: case, clip: [2, 98], separate_z: true}"
    store = prepare(config_of(tmp_path, settings))
    training = store.manifest["training"]
    assert set(training["case_normalisation"]) == {"c0", "c1"}
    image = tifffile.imread(tmp_path / "images" / "c0.tif")
    low, high = training["case_normalisation"]["c0"]["clip"][0]
    assert (low, high) == pytest.approx(tuple(np.percentile(image, (2, 98))))
    assert store.manifest["lost_ids"] == {"c0": [60_000], "c1": [60_000]}


def test_a_given_mean_and_deviation_are_used(cases, tmp_path):
    store = prepare(config_of(tmp_path, "{normalise: given, mean: [7], std: [2], clip: null}"))
    rule = store.manifest["training"]["normalisation"]
    assert (rule["offset"], rule["scale"], rule["clip"]) == ([7.0], [2.0], None)


def test_as_many_means_as_channels_are_wanted(cases, tmp_path):
    config = config_of(tmp_path, "{normalise: given, mean: [7, 1, 1], std: [2, 1, 1]}")
    with pytest.raises(ConfigError, match="3 values for 1 channels"):
        prepare(config)


def test_check_and_prepare_warn_of_bounds_that_cut_labelled_signal(cases, tmp_path, caplog):
    narrow = config_of(tmp_path, "{clip: [45, 55]}")
    report = check(narrow, list_cases(narrow))
    assert "clip-cuts-labels" in {finding.name for finding in report.findings}
    prepare(narrow)
    assert "of the labelled voxels" in caplog.text
    config = config_of(tmp_path, "{}")
    assert not any("clip" in f.name for f in check(config, list_cases(config)).findings)


@pytest.mark.parametrize(
    ("images", "modality", "kind"),
    [("dark", "", "background"), ("grey", "", "zscore"), ("dark", "em", "zscore")],
)
def test_a_dark_background_becomes_zero(tmp_path, images, modality, kind):
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("c0", "c1"):
        image = rng.normal(100, 5, (12, 40, 40))
        label = np.zeros(image.shape, np.uint16)
        label[3:9, 10:20, 10:20] = 1
        if images == "dark":
            image[label > 0] += 800
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", image.astype(np.uint16))
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", label)
    config = config_of(tmp_path, "{clip: null}")
    if modality:
        config = load_config(tmp_path / "volprep.yaml", {"data.modality": modality})
    store = prepare(config)
    rule = store.manifest["training"]["normalisation"]
    assert rule["kind"] == kind
    assert modality in rule["reason"] if modality else "median lies at" in rule["reason"]
    image = tifffile.imread(tmp_path / "images" / f"{store.manifest['cases'][0]}.tif")
    if kind == "background":
        assert image.min() <= rule["offset"][0] + 5 < 100
    else:
        assert abs(rule["offset"][0] - image.mean()) < 5
