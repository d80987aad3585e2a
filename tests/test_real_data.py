"""init, prepare and one epoch on real files, as they came; skipped where they are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from volprep import pipeline
from volprep.config import load_config, load_yaml
from volprep.errors import VolprepError
from volprep.loader import PatchDataset
from volprep.sources import open_labels, open_volume

GONUCLEAR = (0.2837, 0.1268, 0.1268)
#: Folder or file, options of init, spacing in µm that the files carry, kind of labels.
SETS = [
    ("01_stardist_nuclei3d", {}, None, "instances"),
    ("02_gonuclear_nuclei3d_h5", {}, GONUCLEAR, "instances"),
    ("02_gonuclear_nuclei3d_h5/1135_mini.h5", {}, GONUCLEAR, "instances"),
    ("03_plantseg_ovule_membrane_h5/sample_ovule.h5", {}, (0.235, 0.15, 0.15), "instances"),
    ("05_isbi2012_em_png_stack", {}, None, "classes"),
    ("06_fib25_neurons_png", {}, None, "instances"),
    ("08_nifti_totalseg_ct", {}, (3000, 3000, 3000), "instances"),
    ("11_imagej_tiff_plantseg", {}, (1, 1, 1), "instances"),
    ("12_ometiff", {}, GONUCLEAR, "instances"),
    ("15_2d_stardist_pair", {}, None, "instances"),
    ("19_omezarr_nuclei", {}, GONUCLEAR, "instances"),
    ("19_omezarr_nuclei/1135_v04.zarr", {}, GONUCLEAR, "instances"),
    ("19_omezarr_nuclei/1135_v05.zarr", {}, GONUCLEAR, "instances"),
]


@pytest.mark.parametrize(("name", "options", "spacing", "kind"), SETS, ids=[s[0] for s in SETS])
def test_real_set_becomes_patches(
    real_data: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
    spacing: tuple[float, float, float] | None,
    kind: str,
) -> None:
    path = tmp_path / "volprep.yaml"
    text, _ = pipeline.start(real_data(name), path, options=options, output=tmp_path / "out")
    assert f"label_kind: {kind}" in text
    assert ("# spacing:" in text) == (spacing is None)
    path.write_text(text.replace("memory: 8GiB", "memory: 600MiB"))
    config = load_config(path)

    report = pipeline.check(config, pipeline.list_cases(config))
    said = any(f.name == "unknown-spacing" for f in report.findings)
    assert not [f for f in report.findings if f.level == "error"]
    assert said == (spacing is None), [str(f) for f in report.findings]

    plan = pipeline.plan_of(config)
    store = pipeline.prepare(config)
    assert load_yaml(store.path / "plan.yaml") == plan.to_dict(), "autoconfig shows another plan"
    assert store.manifest["training"]["spacing"] == (
        None if spacing is None else pytest.approx(spacing, rel=1e-3)
    )
    cases = {case.name: case for case in pipeline.list_cases(config)}
    for split in ("train", "val"):
        dataset = PatchDataset(
            store.path, split, patch_size=None, normalise=False, class_index=False
        )
        assert len(dataset) > 0
        for sample in (dataset[i] for i in range(0, len(dataset), 1 + len(dataset) // 12)):
            assert_is_source_region(cases[dataset.cases[sample["case"]]], sample)
    ready = PatchDataset(store.path)[0]["image"]
    assert ready.dtype.is_floating_point
    assert tuple(ready.shape[1:]) == tuple(store.manifest["training"]["patch_size"])
    assert np.isfinite(ready.numpy()).all()


def assert_is_source_region(case: Any, sample: dict[str, Any]) -> None:
    volumes = {
        "image": open_volume(case.image.path, case.image.key, case.image.axes).read(),
        "label": open_labels(case.label.path, case.label.key, case.label.axes).read(),
    }
    pad = sample["pad"].numpy()
    low = sample["start"].numpy() + pad[:, 0]
    size = np.array(sample["label"].shape)
    inner = tuple(slice(p[0], n - p[1]) for p, n in zip(pad, size, strict=True))
    where = tuple(slice(a, a + n - p.sum()) for a, n, p in zip(low, size, pad, strict=True))
    image = sample["image"].numpy()[(slice(None), *inner)]
    np.testing.assert_array_equal(image, volumes["image"][(slice(None), *where)])
    np.testing.assert_array_equal(sample["label"].numpy()[inner], volumes["label"][0][where])


OTHERS = [
    "04_qcanet_embryo_nuclei3d", "07_connectomics_neurons_labels_only", "09_nifti_urocell_mito",
    "10_nifti_nibabel_anatomical", "13_png_tiles_isbi", "14_2d_bbbc007_pairs",
    "16_2d_sparse_bbbc007", "17_2d_sparse_maize", "18_multichannel_planes_points_cellfinder",
    "20_3d_sparse_slices_fib25", "21_2d_rgb_hela",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_autoconfig_shows_the_plan_that_prepare_uses(
    real_data: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "volprep.yaml"
    try:
        text, _ = pipeline.start(real_data(name), path, options={}, output=tmp_path / "out")
        path.write_text(text.replace("memory: 8GiB", "memory: 600MiB"))
        store = pipeline.prepare(load_config(path))
    except VolprepError as error:
        pytest.skip(f"not prepared as it is: {error}")
    plan = pipeline.plan_of(load_config(path))
    assert load_yaml(store.path / "plan.yaml") == plan.to_dict()
