"""Every name of the table is raised by a test; here stand those that no other file raises."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from volprep import find_cases, open_labels, open_volume, pipeline
from volprep.cases import cases_from_entries
from volprep.checks import check_cases
from volprep.config import load_config
from volprep.errors import PlanError
from volprep.findings import TABLE
from volprep.pipeline.volumes import vanished

HERE = Path(__file__)


def test_each_name_stands_in_a_test() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in HERE.parent.rglob("*.py"))
    missing = [name for name in TABLE if f'"{name}"' not in texts]
    assert not missing


def names(notes: Any) -> set[str]:
    return {note.name for note in notes}


def checked(folder: Path, text: str) -> set[str]:
    (folder / "c.yaml").write_text(f"data: {{root: data, spacing: '1, 1, 1 um'}}\n{text}")
    config = load_config(folder / "c.yaml")
    return names(pipeline.check(config, pipeline.list_cases(config)).findings)


def volume(folder: Path, image: Any, label: Any) -> None:
    for what, voxels in (("images", image), ("labels", label)):
        (folder / "data" / what).mkdir(parents=True, exist_ok=True)
        np.save(folder / "data" / what / "a.npy", voxels)


def test_channels_of_nnunet_are_counted_where_it_names_none(tmp_path: Path) -> None:
    for name in ("imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.ones((6, 6, 6), np.uint8), np.eye(4)), path)
    stated = {"labels": {"background": 0, "a": 1}, "numTraining": 1, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    assert "channels-counted" in names(find_cases(tmp_path).findings)


def test_bounds_that_leave_one_value_are_told(tmp_path: Path) -> None:
    image = np.zeros((16, 24, 24), np.uint16)
    image[4, :6, :6] = 900
    volume(tmp_path, image, (image > 0).astype(np.uint8))
    assert "clip-collapses" in checked(tmp_path, "preprocess: {clip: [10, 90]}\n")


def test_one_case_that_is_to_be_divided_by_cases_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume(tmp_path, rng.integers(0, 99, (8, 8, 8), np.uint8), np.ones((8, 8, 8), np.uint8))
    assert "split-impossible" in checked(tmp_path, "split: {kind: cases}\n")


def test_metadata_that_do_not_fit_the_pages_are_told(tmp_path: Path) -> None:
    wrong = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="99" '
        'SizeY="99" SizeZ="50" SizeC="1" SizeT="1"><TiffData/></Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=False) as file:
        for number in range(3):
            text = wrong if number == 0 else None
            file.write(np.full((8, 9), number, np.uint8), description=text, metadata=None)
    assert "ome-unfit" in names(open_volume(tmp_path / "a.ome.tif").notes)


def test_smaller_copies_in_a_tiff_are_told(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((5, 64, 64), np.uint8), metadata={"axes": "ZYX"})
        file.write(np.zeros((16, 16), np.uint8), subfiletype=1)
    assert "pages-left-out" in names(open_volume(tmp_path / "a.tif").notes)


def test_a_tiff_whose_header_says_that_0_is_white_is_told(tmp_path: Path) -> None:
    array = np.arange(5 * 64 * 64, dtype=np.uint16).reshape(5, 64, 64)
    for photometric, told in (("minisblack", False), ("miniswhite", True)):
        tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric)
        volume = open_volume(tmp_path / "a.tif", axes="ZYX")
        assert ("white-is-zero" in names(volume.notes)) == told
        assert np.array_equal(volume.read()[0], array)


def test_a_version_of_ome_zarr_that_is_not_known_is_told(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3)
    group.create_array("0", data=np.zeros((4, 5, 6), np.uint8))
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    group.attrs["ome"] = {"version": "7.1", "multiscales": [{"axes": axes, "datasets": levels}]}
    assert "ome-version-unknown" in names(open_volume(tmp_path / "a.zarr").notes)


@pytest.mark.parametrize("opened", [open_volume, open_labels])
def test_how_a_palette_is_read_is_told(tmp_path: Path, opened: Any) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 4, 3, 8, 3, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes([0, 1, 2, 1]) for _ in range(3)))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0, 0, 0, 255])) + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )  # fmt: skip
    assert "palette-read" in names(opened(tmp_path / "a.png").notes)


def test_ids_that_a_coarser_grid_loses_are_told() -> None:
    told = list(vanished({"a": [5, 7]}))
    assert names(told) == {"vanished-ids"}
    assert told[0].case == "a"


def test_how_an_axis_without_a_name_and_a_length_without_a_unit_are_read_is_told(
    tmp_path: Path,
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 20, 30), np.uint8), metadata=None)
    assert "axis-guessed" in names(open_volume(tmp_path / "a.tif").notes)
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 6, 6), np.uint8), np.eye(4)), tmp_path / "a.nii")
    assert "unit-guessed" in names(open_volume(tmp_path / "a.nii").notes)


def phantom() -> tuple[Any, Any]:
    """Bright discs of grey noise, and their ids."""
    rng = np.random.default_rng(0)
    y, x = np.indices((160, 160))
    label = np.zeros((160, 160), np.uint8)
    for number in range(16):
        cy, cx = 20 + 40 * (number // 4), 20 + 40 * (number % 4)
        label[(y - cy) ** 2 + (x - cx) ** 2 < 12**2] = number + 1
    image = rng.normal(60, 8, label.shape) + 90 * (label > 0)
    return image.astype(np.uint8)[None], label[None]


def levels(findings: Any, name: str) -> list[str]:
    return [finding.level for finding in findings if finding.name == name]


def test_a_label_that_lies_alone_is_not_taken_for_an_image(tmp_path: Path) -> None:
    image, label = phantom()
    for name, voxels in (("a", image), ("a_nuclei", label), ("b_nuclei", 255 * (label > 0))):
        np.save(tmp_path / f"{name}.npy", voxels.astype(np.uint8))
    found = [f for f in check_cases(find_cases(tmp_path)) if f.name == "label-without-image"]
    assert [(f.case, f.level) for f in found] == [("a_nuclei", "error"), ("b_nuclei", "error")]
    listed = cases_from_entries([{"image": tmp_path / "a_nuclei.npy"}])
    assert levels(check_cases(listed), "label-without-image") == ["warning"]


def test_a_label_that_stands_for_the_image_of_another_is_told(tmp_path: Path) -> None:
    image, label = phantom()
    volume(tmp_path, label, (label > 0).astype(np.uint8))
    found = check_cases(find_cases(tmp_path / "data"))
    assert levels(found, "label-without-image") == ["warning"]
    assert levels(found, "one-instance") == ["warning"], "and what is wrong beside it"
    volume(tmp_path, image, label)
    assert not levels(check_cases(find_cases(tmp_path / "data")), "label-without-image")


@pytest.mark.parametrize(("kept", "told"), [(16, []), (12, []), (3, ["warning"])])
def test_objects_that_look_like_the_labelled_ones_and_are_0_are_told(
    tmp_path: Path, kept: int, told: list[str]
) -> None:
    image, label = phantom()
    volume(tmp_path, image, np.where(label <= kept, label, 0))
    found = check_cases(find_cases(tmp_path / "data"))
    assert levels(found, "sparse-label") == told


def test_classes_of_strokes_that_are_read_as_instances_are_told(tmp_path: Path) -> None:
    image, label = phantom()
    strokes = np.where(label > 0, 1 + label % 2, 0).astype(np.uint8)
    volume(tmp_path, image, strokes)
    (finding,) = [f for f in check_cases(find_cases(tmp_path / "data")) if f.name == "one-instance"]
    assert "2 ids lie in 16 pieces" in finding.found
    assert "data.unlabelled: 0" in finding.todo


@pytest.mark.parametrize("cases", [1, 3])
def test_a_memory_that_nothing_fits_in_is_told_by_check_as_by_prepare(
    tmp_path: Path, cases: int
) -> None:
    rng = np.random.default_rng(0)
    for number in range(cases):
        for what, top in (("images", 200), ("labels", 5)):
            (tmp_path / what).mkdir(exist_ok=True)
            voxels = rng.integers(0, top, (24, 40, 40), np.uint8)
            np.save(tmp_path / what / f"c{number}.npy", voxels)
    (tmp_path / "c.yaml").write_text(
        "data: {root: ., spacing: '1, 1, 1 um'}\nplan: {memory: 1MB}\noutput: {dir: out}\n"
    )
    config = load_config(tmp_path / "c.yaml")
    found = pipeline.check(config, pipeline.list_cases(config)).findings
    (told,) = [f for f in found if f.name == "plan-impossible"]
    assert not [f for f in found if f.name == "split-impossible"], "the cause alone"
    with pytest.raises(PlanError) as raised:
        pipeline.prepare(config)
    assert f"{told.found}; {told.todo}" == str(raised.value)


def balls(shape: tuple[int, ...] = (40, 64, 64)) -> Any:
    """Four balls, and how deep each voxel lies in them."""
    where = np.indices(shape)
    depth = np.zeros(shape)
    for centre in ((20, 16, 16), (20, 46, 18), (18, 18, 46), (22, 46, 46)):
        far = np.sqrt(sum((w - c) ** 2 for w, c in zip(where, centre, strict=True)))
        depth = np.maximum(depth, 11 - far)
    return depth


def one_ball(inside: Any) -> Any:
    inside = inside.astype(int)
    inside[:, 32:], inside[:, :, 32:] = 0, 0
    return inside


@pytest.mark.parametrize(
    ("kind", "told", "label"),
    [
        ("classes", {"label-inverted"}, lambda depth: depth <= 0),
        ("classes", set(), lambda depth: depth > 0),
        ("classes", set(), lambda depth: (depth > 0).astype(int) + (depth > 5)),
        ("instances", {"one-instance"}, lambda depth: (depth > 0).astype(int) + (depth > 5)),
        ("instances", {"ids-nested"}, lambda depth: one_ball(depth > 0) + one_ball(depth > 5)),
        ("instances", {"label-inverted"}, lambda depth: np.where(depth > 0, 3, 9)),
    ],
)
def test_a_background_that_is_not_0_and_objects_within_objects_are_told(
    tmp_path: Path, kind: str, told: set[str], label: Any
) -> None:
    depth = balls()
    noise = np.random.default_rng(0).normal(0, 4, depth.shape)
    volume(
        tmp_path, (90 + 40 * (depth > 0) + noise).astype(np.uint8), label(depth).astype(np.uint8)
    )
    text = f"data: {{root: data, spacing: '1, 1, 1 um', label_kind: {kind}}}\n"
    (tmp_path / "c.yaml").write_text(text)
    config = load_config(tmp_path / "c.yaml")
    found = names(pipeline.check(config, pipeline.list_cases(config)).findings)
    assert found & {"label-inverted", "ids-nested", "one-instance", "label-antialiased"} == told


@pytest.mark.parametrize(
    ("limits", "name"), [((0, 3, 7), "label-regions"), ((5, 5), "label-colours")]
)
def test_channels_that_are_masks_within_one_another_are_told(
    tmp_path: Path, limits: tuple[int, ...], name: str
) -> None:
    depth = balls()
    noise = np.random.default_rng(0).normal(0, 4, depth.shape)
    masks = np.stack([depth > limit for limit in limits]).astype(np.uint8)
    volume(tmp_path, (90 + 40 * (depth > 0) + noise).astype(np.uint8), masks)
    (tmp_path / "c.yaml").write_text(
        "data: {root: data, spacing: '1, 1, 1 um', label_axes: CZYX}\n"
    )
    config = load_config(tmp_path / "c.yaml")
    assert name in names(pipeline.check(config, pipeline.list_cases(config)).findings)
