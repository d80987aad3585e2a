"""2D patches out of volumes, as planes across any axis: plan, patches, loader, what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import volprep
from volprep import pipeline
from volprep.augment import choose_preset
from volprep.cases import Case, FileRef
from volprep.config import load_config, make_config
from volprep.errors import ConfigError
from volprep.geometry import Box
from volprep.sources import open_volume, sliced

ORDER = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 0, 1)}
AXES = pytest.mark.parametrize("axis", ORDER)
SHAPES = ((10, 44, 60), (14, 40, 52))


def turned(array: npt.NDArray[Any], axis: str) -> npt.NDArray[Any]:
    """The slow reference: a stack of the planes, one taken after the other."""
    return np.stack(
        [array.take(n, axis="zyx".index(axis)) for n in range(array.shape["zyx".index(axis)])]
    )


def write_cases(folder: Path, *, mask: bool = False) -> dict[str, list[npt.NDArray[Any]]]:
    made: dict[str, list[npt.NDArray[Any]]] = {"images": [], "labels": []}
    for number, shape in enumerate(SHAPES):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint16)
        for instance in range(1, 30):
            z, y, x = (int(rng.integers(0, n - 4)) for n in shape)
            label[z : z + 4, y : y + 8, x : x + 6] = instance
        made["labels"].append(label)
        made["images"].append((rng.integers(0, 90, shape) + 60 * (label > 0)).astype(np.uint8))
        if mask:
            made.setdefault("masks", []).append((rng.random(shape) < 0.9).astype(np.uint8))
    for kind, arrays in made.items():
        (folder / "data" / kind).mkdir(parents=True)
        for number, array in enumerate(arrays):
            tifffile.imwrite(folder / "data" / kind / f"c{number}.tif", array)
    return made


def configure(folder: Path, axis: str, more: str = "", *, store: str = "patches") -> Any:
    path = folder / f"{axis}_{store}.yaml"
    masks = ", mask_dir: masks" if (folder / "data/masks").exists() else ""
    path.write_text(
        f"data: {{root: data, spacing: [0.4, 0.1, 0.2]{masks}}}\n"
        f"patching: {{do_2d: {axis}}}\naugment: []\n"
        f"output: {{dir: out_{axis}_{store}, store: {store}}}\nepoch: {{steps: 8}}\n{more}"
    )
    return load_config(path)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, npt.NDArray[Any]]:
    array = np.random.default_rng(0).integers(0, 99, (2, 5, 6, 7))
    path = tmp_path_factory.mktemp("stored") / "a.npy"
    np.save(path, array)
    return path, array


@settings(max_examples=25, deadline=None)
@given(data=st.data(), axis=st.sampled_from("zyx"))
def test_a_box_of_planes_holds_the_voxels_of_the_volume(stored, data, axis) -> None:
    path, array = stored
    volume = open_volume(path, axes="CZYX")
    volume.spacing = (3.0, 2.0, 1.0)
    seen = sliced(volume, axis)
    wanted = np.stack([turned(channel, axis) for channel in array])
    assert seen.shape == wanted.shape
    assert seen.spacing == tuple((3.0, 2.0, 1.0)[own] for own in ORDER[axis])
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in wanted.shape[1:]]
    box = Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    assert np.array_equal(seen.read(box), wanted[:, *box.slices])
    walked = np.zeros_like(wanted)
    for place, block in seen.slabs(max_bytes=200):
        walked[:, *place.slices] += block
    assert np.array_equal(walked, wanted)


@pytest.mark.parametrize("store", ["patches", "volumes"])
@AXES
def test_every_patch_is_a_plane_of_the_volume(tmp_path: Path, axis: str, store: str) -> None:
    made = write_cases(tmp_path, mask=True)
    config = configure(
        tmp_path, axis, "targets: [{affinities: {offsets: [[0, 1, 0], [0, 0, 1]]}}]\n", store=store
    )
    out = pipeline.prepare(config).path
    training = yaml.safe_load((out / "train.yaml").read_text())
    assert training["do_2d"] == axis
    assert (training["patch_size"][0], training["pool"][0]) == (1, 0)
    assert training["spacing"] == [(0.4, 0.1, 0.2)[own] for own in ORDER[axis]]
    for split in ("train", "val"):
        dataset = volprep.PatchDataset(out, split, normalise=False)
        assert len(dataset)
        for number in range(len(dataset)):
            sample = dataset[number]
            assert sample["affinities"].shape[:2] == (2, 1)
            start = np.asarray(sample["start"])
            box = Box.at(start.tolist(), sample["image"].shape[1:])
            for kind, name in (("images", "image"), ("labels", "label"), ("masks", "mask")):
                whole = turned(made[kind][int(sample["case"])], axis)
                inside = box.clip(whole.shape)
                own = Box(
                    *(
                        tuple(np.subtract(e, box.start).tolist())
                        for e in (inside.start, inside.stop)
                    )
                )
                found = np.asarray(sample[name]).reshape(box.shape)
                assert np.array_equal(found[own.slices], whole[inside.slices]), (
                    split,
                    number,
                    kind,
                )
    assert (out / "report.html").stat().st_size > 10_000
    prepared = pipeline.open_prepared(out)
    assert np.array_equal(prepared[0].image.read()[0], turned(made["images"][0], axis))


@AXES
def test_planes_of_one_volume_are_held_out_and_patches_stay_large(
    tmp_path: Path, axis: str
) -> None:
    """What is held out are whole planes, which takes nothing of the others; images are planes."""
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/labels").mkdir()
    array = np.random.default_rng(0).integers(0, 99, (80, 88, 120), np.uint8)
    for kind in ("images", "labels"):
        tifffile.imwrite(tmp_path / "data" / kind / "a.tif", array)
    config = configure(tmp_path, axis)
    plan = pipeline.plan_of(config)
    plane = turned(array, axis)[0].size
    assert plan.patch_size[0] == 1
    assert np.prod(plan.patch_size) > 0.75 * plane
    assert plan.n_positions >= 64
    assert f"{array.shape['zyx'.index(axis)]} images" in plan.reasons["batch_size"]


@AXES
def test_a_patch_that_is_given_must_be_a_plane(tmp_path: Path, axis: str) -> None:
    size = [16, 16, 16]
    place = "zyx".index(axis)
    with pytest.raises(ConfigError, match=rf"do_2d: {axis} patches are planes; give \[1, 16, 16\]"):
        make_config(
            {"data": {"root": "x"}, "plan": {"patch_size": size}, "patching": {"do_2d": axis}},
            "c.yaml",
        )
    size[place] = 1
    size[0 if place else 1] = 8  # the rows
    rest = [n for i, n in enumerate(size) if i != place]
    if axis != "z":
        with pytest.raises(ConfigError, match=rf"give \[1, {rest[0]}, {rest[1]}\]"):
            make_config(
                {"data": {"root": "x"}, "plan": {"patch_size": size}, "patching": {"do_2d": axis}},
                "c.yaml",
            )
    write_cases(tmp_path)
    config = configure(tmp_path, axis, f"plan: {{patch_size: [1, {rest[0]}, {rest[1]}]}}\n")
    plan = pipeline.plan_of(config)
    assert plan.patch_size == (1, *rest)


def test_planes_across_y_of_a_picture_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data/images").mkdir(parents=True)
    for number in range(2):
        tifffile.imwrite(tmp_path / f"data/images/{number}.tif", np.zeros((40, 40), np.uint8))
    with pytest.raises(ConfigError, match=r"do_2d: y takes planes out of volumes, and .* is a 2D"):
        pipeline.prepare(configure(tmp_path, "y"))


def test_resampling_keeps_planes_planes(tmp_path: Path) -> None:
    made = write_cases(tmp_path)
    config = configure(tmp_path, "y", "preprocess: {target_spacing: [0.05, 0.2, 0.2]}\n")
    plan = pipeline.plan_of(config)
    assert plan.median_shape[0] == plan.patch_size[0] == 1
    assert plan.spacing == plan.target_spacing == (0.05, 0.2, 0.2)
    out = pipeline.prepare(config).path
    shape = pipeline.open_prepared(out)[0].image.shape
    y, z, x = (made["images"][0].shape[own] for own in ORDER["y"])
    assert shape == (1, 2 * y, 2 * z, x)


def test_regions_lie_in_the_volume_as_it_is_stored(tmp_path: Path) -> None:
    made = write_cases(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_text(
        "data: {root: data, regions: [{case: c0, start: [2, 4, 8], stop: [9, 40, 30], side: train},"
        " {case: c1, start: [0, 0, 0], stop: [9, 30, 40], side: val}]}\n"
        "patching: {do_2d: x}\noutput: {dir: out}\naugment: []\n"
    )
    first, _ = pipeline.open_prepared(pipeline.prepare(load_config(path)).path)
    assert np.array_equal(first.image.read()[0], turned(made["images"][0][2:9, 4:40, 8:30], "x"))


def test_a_case_keeps_its_axis_in_json_and_says_nothing_of_none() -> None:
    case = Case("a", (FileRef(Path("a.tif")),), plane_axis="y")
    assert Case.from_dict(case.to_dict()) == case
    assert "plane_axis" not in Case("a", (FileRef(Path("a.tif")),)).to_dict()


def test_rows_that_are_farther_apart_than_columns_are_never_swapped_with_them() -> None:
    for shape, modality in (((1, 1, 64, 64), None), ((1, 20, 64, 64), "em")):
        preset = choose_preset(shape=shape, spacing=(0.1, 0.4, 0.1), modality=modality)
        (flip,) = (each["flip"] for each in preset.augment if "flip" in each)
        assert flip["transpose"] is False
        assert not any(each.get("rotate", {}).get("rot90") for each in preset.augment)
        square = choose_preset(shape=shape, spacing=(0.4, 0.1, 0.1), modality=modality)
        assert "transpose" not in next(e["flip"] for e in square.augment if "flip" in e)


@AXES
def test_an_export_holds_the_planes(tmp_path: Path, axis: str) -> None:
    made = write_cases(tmp_path)
    out = pipeline.prepare(configure(tmp_path, axis)).path
    exported = pipeline.export(out, "torchio", tmp_path / "exported")
    assert exported is not None
    import nibabel

    found = sorted((tmp_path / "exported").rglob("*c0*.nii.gz"))
    image = next(f for f in found if "label" not in str(f))
    voxels = np.asarray(nibabel.load(image).dataobj).transpose(2, 1, 0)
    assert np.array_equal(voxels, turned(made["images"][0], axis))
