"""Time series: each time point a case, read by itself, and a series never on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from volprep import pipeline
from volprep.cases import Case, cases_from_entries
from volprep.config import load_config
from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import open_volume
from volprep.splits import SplitPart, Splits, audit_splits, make_splits

SERIES = np.random.default_rng(0).integers(1, 200, (4, 5, 6, 7)).astype(np.uint8)  # T Z Y X


def as_tiff(path: Path) -> tuple[Path, str | None]:
    tifffile.imwrite(path / "s.tif", SERIES, imagej=True, metadata={"axes": "TZYX"})
    return path / "s.tif", None


def as_packed_tiff(path: Path) -> tuple[Path, str | None]:
    tifffile.imwrite(
        path / "s.ome.tif", SERIES, ome=True, metadata={"axes": "TZYX"}, compression="zlib"
    )
    return path / "s.ome.tif", None


def as_hdf5(path: Path) -> tuple[Path, str | None]:
    with h5py.File(path / "s.h5", "w") as file:
        file.create_dataset("raw", data=SERIES, chunks=(2, 2, 3, 4))
    return path / "s.h5", "TZYX"


def as_npy(path: Path) -> tuple[Path, str | None]:
    np.save(path / "s.npy", np.asfortranarray(SERIES))
    return path / "s.npy", "TZYX"


def as_zarr(path: Path) -> tuple[Path, str | None]:
    zarr.create_array(path / "s.zarr", data=SERIES[:, None], chunks=(2, 1, 2, 3, 4))
    return path / "s.zarr", "TCZYX"


def as_nifti(path: Path) -> tuple[Path, str | None]:
    image = nibabel.Nifti1Image(np.ascontiguousarray(SERIES.transpose(3, 2, 1, 0)), np.eye(4))
    nibabel.save(image, path / "s.nii")
    return path / "s.nii", None


@pytest.mark.parametrize(
    "save", [as_tiff, as_packed_tiff, as_hdf5, as_npy, as_zarr, as_nifti], ids=lambda f: f.__name__
)
def test_every_time_point_is_read_by_itself(tmp_path, save):
    path, axes = save(tmp_path)
    with pytest.raises(SourceError, match=r"data\.time: cases"):
        open_volume(path, axes=axes)
    entry = {"name": "s", "image": str(path)} | ({"axes": axes} if axes else {})
    cases = cases_from_entries([entry]).by_time()
    assert [case.name for case in cases] == ["s_t000", "s_t001", "s_t002", "s_t003"]
    assert {case.group for case in cases} == {"s"}
    for time, case in enumerate(cases):
        volume = case.open_image()
        assert volume.shape == (1, 5, 6, 7)
        assert (volume.read()[0] == SERIES[time]).all()
        box = Box((1, 2, 3), (4, 5, 7))
        assert (volume.read(box)[0] == SERIES[time][box.slices]).all()
        walked = np.concatenate([block for _, block in volume.slabs(2)], axis=1)
        assert (walked[0] == SERIES[time]).all()
        assert Case.from_dict(case.to_dict()) == case
    with pytest.raises(SourceError, match="has 4 time points, not one number 4"):
        open_volume(path, axes=axes, time=4)


def test_a_series_lies_on_one_side_and_its_label_has_the_same_points(tmp_path):
    entries = []
    for number in range(3):
        for role, count in (("i", 4), ("l", 4), ("short", 3)):
            np.save(tmp_path / f"{role}{number}.npy", SERIES[:count] + number)
        entries.append({"image": f"i{number}.npy", "label": f"l{number}.npy", "axes": "TZYX",
                        "label_axes": "TZYX"})  # fmt: skip
    cases = cases_from_entries(entries, tmp_path).by_time()
    assert len(cases) == 12
    assert (cases[5].open_label().read()[0] == SERIES[1] + 1).all()
    for seed in range(4):
        splits = make_splits(cases.items, seed=seed)
        sides = [{part.case[:2] for part in side} for side in (splits.train, splits.val)]
        assert not sides[0] & sides[1]
    entries[0]["label"] = "short0.npy"
    with pytest.raises(SourceError, match=r"short0\.npy: has 3 time points, and .*i0\.npy 4"):
        cases_from_entries(entries, tmp_path).by_time()
    still = cases_from_entries([{"image": "i0.npy", "axes": "CZYX"}], tmp_path)
    assert still.by_time().items == still.items


def test_a_series_becomes_patches_by_the_yaml(tmp_path):
    for number in range(2):
        tifffile.imwrite(
            tmp_path / f"s{number}.tif", SERIES + number, imagej=True, metadata={"axes": "TZYX"}
        )
    (tmp_path / "v.yaml").write_text(
        "data: {root: ., time: cases, spacing: [1, 1, 1]}\n"
        "plan: {patch_size: [4, 4, 4], batch_size: 2}\noutput: {dir: out}\n"
    )
    store = pipeline.prepare(load_config(tmp_path / "v.yaml"))
    assert len(store.manifest["cases"]) == 8


def test_a_real_series_has_its_twenty_points(real_data):
    path = real_data("10_nifti_nibabel_anatomical") / "functional.nii"
    cases = cases_from_entries([{"image": str(path)}]).by_time()
    assert len(cases) == 20
    stored = np.asarray(nibabel.load(path).dataobj)
    for time in (0, 7, 19):
        found = cases[time].open_image().read()[0]
        assert np.allclose(found, stored[..., time].transpose(2, 1, 0))


def series(folder: Path, points: int = 4) -> Path:
    """A config of one series alone, of things that stay where they are."""
    rng = np.random.default_rng(0)
    label = np.zeros((points, 20, 60, 60), np.uint16)
    for i in range(1, 30):
        z, y, x = (int(rng.integers(0, n - 8)) for n in label.shape[1:])
        label[:, z : z + 5, y : y + 8, x : x + 8] = i
    image = (rng.integers(0, 40, label.shape) + 90 * (label > 0)).astype(np.uint8)
    for kind, array in (("image", image), ("label", label)):
        tifffile.imwrite(folder / f"{kind}.tif", array, imagej=True, metadata={"axes": "TZYX"})
    path = folder / "c.yaml"
    path.write_text(
        "data: {cases: [{image: image.tif, label: label.tif}], time: cases, spacing: [1, 1, 1]}\n"
        "plan: {patch_size: [4, 16, 16]}\npatching: {patches_per_case: 3}\naugment: []\n"
        "output: {dir: out}\n"
    )
    return path


def test_one_series_alone_is_held_out_at_one_place_in_every_time_point(tmp_path):
    path = series(tmp_path)
    out = pipeline.prepare(load_config(path)).path
    parts = json.loads((out / "splits.json").read_text())
    assert {part["case"] for part in parts["val"]} == {f"image_t{t:03d}" for t in range(4)}
    assert len({str(part["box"]) for part in parts["val"]}) == 1
    for held in parts["val"]:
        for trained in parts["train"]:
            ends = zip(*held["box"], *trained["box"], strict=True)
            assert any(b <= c or d <= a for a, b, c, d in ends)
    names = [each["name"] for each in json.loads((out / "findings.json").read_text())["findings"]]
    assert not {"split-same-file", "split-near-copy", "split-group"} & set(names)


def test_time_points_that_lie_on_both_sides_at_one_place_are_found(tmp_path):
    cases = pipeline.list_cases(load_config(series(tmp_path, 2)))
    whole = [SplitPart(case.name) for case in cases]
    splits = Splits(kind="cases", train=(whole[0],), val=(whole[1],), seed=0)
    found = {f.name for f in audit_splits(splits, cases.items, content=False)}
    assert "split-same-file" in found
    low, high = Box((0, 0, 0), (20, 60, 20)), Box((0, 0, 40), (20, 60, 60))
    apart = Splits(
        kind="blocks", seed=0,
        train=tuple(SplitPart(c.name, low) for c in cases),
        val=tuple(SplitPart(c.name, high) for c in cases),
    )  # fmt: skip
    assert "split-same-file" not in {
        f.name for f in audit_splits(apart, cases.items, content=False)
    }
    mixed = Splits(
        kind="blocks", seed=0,
        train=(SplitPart(whole[0].case, low), SplitPart(whole[1].case, high)),
        val=(SplitPart(whole[0].case, high), SplitPart(whole[1].case, low)),
    )  # fmt: skip
    assert "split-same-file" in {f.name for f in audit_splits(mixed, cases.items, content=False)}
