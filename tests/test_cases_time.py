"""Time series: each time point a case, read by itself, and a series never on both sides."""

from __future__ import annotations

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
from volprep.splits import make_splits

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
