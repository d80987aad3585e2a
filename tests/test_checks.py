"""The doctor: every finding names the case, the file and the way out, in one pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from volprep.cases import Case, FileRef, find_cases
from volprep.checks import check_cases, examine_cases, raise_on_errors
from volprep.checks.measure import measure_image, measure_labels
from volprep.errors import DataCheckError
from volprep.findings import Finding
from volprep.sources import ArrayVolume, LabelVolume
from volprep.splits import SplitPart, Splits, content_hash

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 200, (6, 8, 10)).astype(np.uint8)
LABEL = np.zeros((6, 8, 10), np.uint16)
LABEL[1:5, 2:6, 3:8] = 1
LABEL[1:5, 2:6, 5:8] = 2


def a_case(
    folder: Path,
    name: str = "a",
    image: np.ndarray = IMAGE,
    label: np.ndarray | None = LABEL,
    mask: np.ndarray | None = None,
    **options: object,
) -> Case:
    refs = {}
    for what, voxels in (("image", image), ("label", label), ("mask", mask)):
        if voxels is not None:
            path = folder / what / f"{name}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, voxels)
            refs[what] = FileRef(path)
    return Case(name, (refs["image"],), refs.get("label"), refs.get("mask"), **options)


def kinds(findings: list[Finding], *, of: str | None = None) -> set[str]:
    return {f.name for f in findings if of is None or f.level == of} - {"unknown-spacing", "note"}


def only(findings: list[Finding], kind: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == kind]
    return found


def test_sound_data_gives_no_finding_but_the_missing_spacing(tmp_path):
    findings = check_cases([a_case(tmp_path)])
    assert kinds(findings) == set()
    assert [f.name for f in findings if f.level == "warning"] == ["unknown-spacing"]
    assert kinds(check_cases([a_case(tmp_path, spacing=(1.0, 1.0, 1.0))])) == set()


def test_everything_is_reported_at_once_and_errors_raise_together(tmp_path):
    missing = Case("gone", (FileRef(tmp_path / "gone.tif"),))
    cut = tmp_path / "cut.npy"
    np.save(cut, IMAGE)
    cut.write_bytes(cut.read_bytes()[:-100])
    cases = [
        missing,
        Case("cut", (FileRef(cut),)),
        a_case(tmp_path, "shape", label=LABEL[1:]),
        a_case(tmp_path, "minus", label=LABEL.astype(np.int16) - 1),
        a_case(tmp_path, "half", label=LABEL + np.float32(0.5)),
        a_case(tmp_path, "flat", image=IMAGE[0], label=LABEL[0]),
        a_case(tmp_path, "fine"),
    ]
    findings = check_cases(cases)
    errors = [finding for finding in findings if finding.level == "error"]
    assert findings[: len(errors)] == errors, "errors come first"
    assert {(f.case, f.name) for f in errors} == {
        ("gone", "unreadable"),
        ("cut", "unreadable"),
        ("shape", "shape-mismatch"),
        ("minus", "unreadable"),
        ("half", "unreadable"),
        (None, "mixed-dimensions"),
    }
    with pytest.raises(DataCheckError) as caught:
        raise_on_errors(findings)
    text = str(caught.value)
    assert len(caught.value.findings) == len(errors)
    assert "a negative label: -1 at z=0, y=0, x=0" in text
    assert "a label with a fraction: 0.5" in text
    assert "`labels: {threshold: 0.5}`" in text
    assert "3D in 4 (shape, minus, half, ...), 2D in 1 (flat)" in text
    for finding in errors[:-1]:
        assert str(finding).startswith(f"{finding.case} ")
    json.dumps(examine_cases(cases).to_dict())


def test_headers_alone_still_find_what_headers_tell(tmp_path):
    cases = [
        a_case(tmp_path, "shape", label=LABEL[1:]),
        a_case(tmp_path, "minus", label=LABEL.astype(np.int16) - 1),
    ]
    report = examine_cases(cases, headers_only=True)
    assert kinds(list(report.findings), of="error") == {"shape-mismatch"}
    assert report.facts[0].voxels is None
    assert report.hashes == {}


def test_a_transposed_label_is_told_how_to_read(tmp_path):
    findings = check_cases([a_case(tmp_path, label=np.ascontiguousarray(LABEL.transpose(2, 1, 0)))])
    message = only(findings, "shape-mismatch").message
    assert "(10, 8, 6)" in message
    assert "(6, 8, 10)" in message
    assert message.endswith("`label_axes: XYZ`")


@given(st.permutations("ZYX"))
def test_the_axes_proposed_for_a_label_do_fit(tmp_path_factory, axes):
    turned = np.ascontiguousarray(LABEL.transpose(["ZYX".index(axis) for axis in axes]))
    case = a_case(tmp_path_factory.mktemp("axes"), label=turned)
    found = [f for f in check_cases([case], headers_only=True) if f.name == "shape-mismatch"]
    if "".join(axes) == "ZYX":
        assert not found
        return
    proposed = found[0].message.split("`label_axes: ")[1].rstrip("`")
    right = Case("a", case.images, FileRef(case.label.path, axes=proposed))
    assert kinds(check_cases([right])) == set()
    assert (right.open_label().read()[0] == LABEL).all()


def test_channels_taken_for_depth_are_told_so(tmp_path):
    case = a_case(tmp_path, image=IMAGE[:2], label=LABEL[2])
    assert "`axes: CYX`" in only(check_cases([case]), "shape-mismatch").message


def test_masks_must_have_the_shape_and_some_voxels(tmp_path):
    wrong = check_cases([a_case(tmp_path, mask=LABEL[:, 1:])])
    assert "the mask has shape (6, 7, 10)" in only(wrong, "shape-mismatch").message
    empty = check_cases([a_case(tmp_path, mask=np.zeros_like(LABEL))])
    assert only(empty, "empty-mask").level == "error"


def a_spaced_case(folder: Path, name: str, image: object, label: object = None) -> Case:
    path = folder / f"{name}.h5"
    with h5py.File(path, "w") as file:
        for key, voxels, spacing in (("raw", IMAGE, image), ("label", LABEL, label)):
            file[key] = voxels
            if spacing is not None:
                file[key].attrs["element_size_um"] = spacing
    return Case(name, (FileRef(path, "raw"),), FileRef(path, "label"))


def test_spacings_that_are_unknown_absurd_or_contradict_each_other(tmp_path):
    cases = [
        a_spaced_case(tmp_path, "none", None),
        a_spaced_case(tmp_path, "also", None),
        a_spaced_case(tmp_path, "absurd", (5.759e10, 1, 1), (5.759e10, 1, 1)),
        a_spaced_case(tmp_path, "differs", (0.3, 0.1, 0.1), (0.3, 0.1, 0.2)),
        a_spaced_case(tmp_path, "same", (0.3, 0.1, 0.1), (0.301, 0.1, 0.1)),
    ]
    findings = check_cases(cases)
    assert only(findings, "unknown-spacing").found.endswith("(and so in 1 more: also)")
    assert only(findings, "absurd-spacing").case == "absurd"
    mismatch = only(findings, "spacing-mismatch")
    assert mismatch.case == "differs"
    assert "0.3, 0.1, 0.2 µm" in mismatch.message
    assert "absurd" in only(findings, "mixed-spacings").message
    slipped = replace(cases[4], spacing=(300.0, 100.0, 100.0))
    told = only(check_cases([slipped], headers_only=True), "spacing-replaced")
    assert (told.level, "1000 times as much" in told.message) == ("warning", True)
    assert told.todo == "write the unit: `spacing: 300, 100, 100 nm`"
    mended = replace(cases[2], spacing=(5.759, 1, 1))
    found = check_cases([mended], headers_only=True)
    assert only(found, "spacing-replaced").level == "info"
    assert "spacing-mismatch" not in [each.name for each in found]  # the labels say the same


def test_a_spacing_that_is_given_answers_what_the_file_says_badly(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    inches = {"axes": "ZYX", "unit": "inch", "spacing": 1.0}
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(72, 72), metadata=inches)
    for spacing, level in ((None, "warning"), ((0.3, 0.1, 0.1), "info")):
        found = check_cases([Case("a", (FileRef(path),), spacing=spacing)], headers_only=True)
        assert only(found, "spacing-unread").level == level


def test_a_spacing_that_is_given_is_told_beside_the_files(tmp_path):
    case = a_spaced_case(tmp_path, "a", (0.3, 0.1, 0.1))
    given = Case(case.name, case.images, case.label, spacing=(0.05, 0.004, 0.004))
    (finding,) = check_cases([given])
    assert finding.name == "spacing-replaced"
    assert "0.05, 0.004, 0.004 µm given replaces the file's 0.3, 0.1, 0.1 µm" in finding.message


def test_images_that_do_not_go_together(tmp_path):
    cases = [
        a_case(tmp_path, "a"),
        a_case(tmp_path, "b", image=IMAGE.astype(np.uint16)),
        Case("c", a_case(tmp_path, "a").images * 2),
    ]
    findings = check_cases(cases)
    assert kinds(findings, of="error") == {"mixed-channels"}
    assert "1 channel in 2 (a, b), 2 channels in 1 (c)" in only(findings, "mixed-channels").message
    assert "uint8 in 2 (a, c), uint16 in 1 (b)" in only(findings, "mixed-dtypes").message


def test_images_that_teach_nothing_or_are_not_numbers(tmp_path):
    broken = IMAGE.astype(np.float32)
    broken[0, 0, :3] = np.nan, np.inf, -np.inf
    blank = IMAGE.copy()
    blank[[2, 4]] = 0
    findings = check_cases(
        [
            a_case(tmp_path, "black", image=np.full_like(IMAGE, 7)),
            a_case(tmp_path, "broken", image=broken),
            a_case(tmp_path, "blank", image=blank),
        ]
    )
    assert only(findings, "constant-image").message.startswith("the image is 7 everywhere")
    assert only(findings, "not-finite").message.startswith("3 voxels are NaN or infinite")
    assert only(findings, "not-finite").level == "error"
    assert "2 of 6 planes hold one value (z = 2, 4)" in only(findings, "blank-planes").message


def test_labels_that_are_not_what_they_seem(tmp_path):
    findings = check_cases(
        [
            a_case(tmp_path, "zero", label=np.zeros_like(LABEL)),
            a_case(tmp_path, "binary", label=(LABEL > 0) * np.uint8(255)),
        ]
    )
    assert only(findings, "empty-label").case == "zero"
    assert "the only value beside 0 is 255: as instances, all objects are one" in str(
        only(findings, "one-instance")
    )
    many = RNG.permutation(480).reshape(LABEL.shape).astype(np.uint16)
    classes = [
        a_case(tmp_path, "binary", IMAGE + 1, (LABEL > 0) * np.uint8(255)),
        a_case(tmp_path, "many", IMAGE + 2, many),
        a_case(tmp_path, "gaps", IMAGE + 3, LABEL * np.uint16(3)),
        a_case(tmp_path, "fine", IMAGE + 4),
    ]
    found = check_cases(classes, label_kind="classes")
    assert {(f.case, f.name) for f in found if f.name != "unknown-spacing"} == {
        ("binary", "binary-label"),
        ("many", "label-intensities"),
        ("gaps", "missing-classes"),
    }
    assert "not 1, 2, 4, 5" in only(found, "missing-classes").message


def test_labels_on_few_planes_or_few_voxels_may_be_sparse(tmp_path):
    planes = np.zeros((40, 8, 10), np.uint16)
    planes[::10] = 1
    planes[::10, 4:] = 2
    image = RNG.integers(0, 9, planes.shape).astype(np.uint8)
    on_planes = check_cases([a_case(tmp_path, "p", image, planes)])
    assert only(on_planes, "sparse-label").level == "warning"
    assert "4 of 40 planes are labelled (z = 0, 10, 20, 30)" in str(only(on_planes, "sparse-label"))
    masked = check_cases([a_case(tmp_path, "p", image, planes, (planes > 0).astype(np.uint8))])
    assert "sparse-label" not in kinds(masked)
    points = np.zeros_like(planes)
    points[3:37, 4, 4] = 1
    points[3:37, 2, 4] = 2
    few = check_cases([a_case(tmp_path, "q", image, points)])
    assert only(few, "sparse-label").level == "info"
    assert "2.12% of the voxels are labelled" in only(few, "sparse-label").message


def test_objects_that_are_small_or_cut_are_counted(tmp_path):
    label = LABEL.copy()
    label[0, 0, 0] = 9
    label[3, 7, 7:10] = 8
    findings = check_cases([a_case(tmp_path, label=label)])
    assert "2 of 4 objects have fewer than 10 voxels" in only(findings, "small-objects").message
    assert "2 of 4 objects touch the faces" in only(findings, "cut-objects").message
    dense = check_cases([a_case(tmp_path, label=LABEL + np.uint16(1))])
    assert "no-background" in kinds(dense)


def test_many_findings_of_one_kind_become_one(tmp_path):
    labels = [LABEL.copy() for _ in range(5)]
    for size, label in enumerate(labels, 1):
        label[3, 0, :size] = 7
    cases = [a_case(tmp_path, str(n), IMAGE + n, each) for n, each in enumerate(labels)]
    findings = check_cases(cases)
    assert "(and so in 4 more: 1, 2, 3, ...)" in only(findings, "cut-objects").message
    assert "1 of 3 objects" in only(findings, "cut-objects").message
    apart = check_cases([a_case(tmp_path, n, IMAGE, LABEL[:, :k]) for n, k in (("x", 3), ("y", 4))])
    assert [f.case for f in apart if f.name == "shape-mismatch"] == ["x", "y"]


def test_the_audit_of_splits_leaves_unreadable_cases_to_their_own_error(tmp_path):
    cases = [a_case(tmp_path, "a"), Case("gone", (FileRef(tmp_path / "gone.tif"),))]
    splits = Splits("cases", (SplitPart("a"),), (SplitPart("gone"),))
    for headers_only in (True, False):
        found = check_cases(cases, splits=splits, headers_only=headers_only)
        assert [(f.case, f.name) for f in found if f.level == "error"] == [("gone", "unreadable")]


def test_the_same_image_twice_is_found_and_on_both_sides_is_an_error(tmp_path):
    cases = [a_case(tmp_path, "a"), a_case(tmp_path, "b"), a_case(tmp_path, "c", IMAGE[::-1])]
    assert only(check_cases(cases), "duplicate-image").case == "b"
    apart = Splits("cases", (SplitPart("a"), SplitPart("c")), (SplitPart("b"),))
    findings = check_cases(cases, splits=apart)
    assert only(findings, "split-same-image").level == "error"
    together = Splits("cases", (SplitPart("a"), SplitPart("b")), (SplitPart("c"),))
    assert kinds(check_cases(cases, splits=together), of="error") == set()
    assert kinds(check_cases(cases, splits=apart, headers_only=True), of="error") == set()


def test_notices_of_the_layout_are_findings(tmp_path):
    a_case(tmp_path, "a")
    a_case(tmp_path, "b", label=None)
    findings = check_cases(find_cases(tmp_path))
    assert "no label for 1 of 2 images: b" in only(findings, "unlabelled-images").message


def test_workers_change_nothing_and_progress_counts_every_voxel(tmp_path):
    cases = [a_case(tmp_path, str(n), mask=LABEL, image=IMAGE + n) for n in range(4)]
    read: list[int] = []
    one = check_cases(cases, workers=1, progress=read.append)
    assert sum(read) == 4 * 3 * IMAGE.size
    assert check_cases(cases, workers=3) == one


# what is measured, beside a slow reference

shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=7)


@given(st.data(), shapes, st.sampled_from([np.uint8, np.int16, np.uint64, np.float32]))
def test_image_facts_equal_numpy(data, shape, dtype):
    elements = (
        st.floats(-9, 9, width=32) | st.sampled_from([np.nan, np.inf])
        if dtype is np.float32
        else st.integers(0, 3)
    )
    voxels = data.draw(hnp.arrays(dtype, (2, *shape), elements=elements))
    facts = measure_image(ArrayVolume(voxels))
    good = np.isfinite(voxels)
    assert facts.not_finite == (~good).sum()
    for channel in range(2):
        values = voxels[channel][good[channel]]
        if values.size:
            assert (facts.low[channel], facts.high[channel]) == (values.min(), values.max())
    if good.all() and any(np.unique(each).size > 1 for each in voxels):
        flat = [z for z in range(shape[0]) if all(np.ptp(c[z]) == 0 for c in voxels)]
        assert list(facts.blank_planes) == flat
    assert facts.content == content_hash(ArrayVolume(voxels))


@given(
    st.data(), shapes, st.sampled_from([np.uint8, np.uint32, np.uint64, np.float64]),
    st.integers(1, 3),
)  # fmt: skip
def test_label_facts_equal_numpy(data, shape, dtype, depth):
    top = 2**64 - 1 if dtype is np.uint64 else 200
    ids = st.sampled_from([0, 0, 1, 2, top])
    voxels = data.draw(hnp.arrays(dtype, shape, elements=ids))
    volume = LabelVolume(ArrayVolume(voxels))
    slabs = volume.slabs
    volume.slabs = lambda: slabs(depth)  # type: ignore[method-assign]
    facts = measure_labels(volume)
    whole = Counter(int(value) for value in voxels.flat if value)
    assert dict(zip(facts.ids.tolist(), facts.sizes.tolist(), strict=True)) == dict(whole)
    assert facts.ids.tolist() == sorted(whole)
    assert facts.planes.tolist() == np.count_nonzero(voxels, axis=(1, 2)).tolist()
    assert facts.foreground == np.count_nonzero(voxels) / voxels.size
    faces = set()
    for axis, size in enumerate(shape):
        if size > 1:
            faces |= {int(v) for v in np.take(voxels, [0, -1], axis=axis).flat if v}
    assert facts.cut == len(faces)


# real data


def test_real_traps_are_errors_that_say_what_to_do(real_data: Callable[[str], Path]):
    findings = check_cases(find_cases(real_data("03_plantseg_ovule_membrane_h5")))
    errors = [(f.case, f.name) for f in findings if f.level == "error"]
    assert errors == [
        ("train_2Dc_2D", "shape-mismatch"),
        ("train_3Dc_3D", "unreadable"),
        ("train_3Dc_3Dc", "unreadable"),
        ("train_3Dc_3Dc", "unreadable"),
        (None, "mixed-dimensions"),
    ]
    binary = find_cases(real_data("04_qcanet_embryo_nuclei3d"), label_dir="labels_centers")
    assert {"one-instance", "sparse-label"} <= {f.name for f in check_cases(binary)}
    path = real_data("10_nifti_nibabel_anatomical/functional.nii")
    (error,) = [f for f in check_cases(find_cases(path)) if f.level == "error"]
    assert "T has 20 entries" in error.message
    absurd = Case(
        "fib1", (FileRef(real_data("09_nifti_urocell_mito/mito_binary/fib1-0-0-0.nii.gz")),)
    )
    found = check_cases([absurd], headers_only=True)
    assert kinds(found) == {"absurd-spacing"}
    assert "the stored spacing is absurd and not used" in str(only(found, "absurd-spacing"))


def test_real_facts_are_those_of_the_data_sheet(real_data: Callable[[str], Path]):
    report = examine_cases(find_cases(real_data("06_fib25_neurons_png")))
    facts = report.to_dict()["cases"][0]
    assert (facts["ids"], facts["max_id"]) == (301, 135709)
    assert facts["intensity"] == {"min": [31.0], "max": [217.0]}
    assert round(facts["foreground"], 6) == 0.999984


def a_nifti_pair(folder: Path, affine: np.ndarray, label: np.ndarray = LABEL) -> Case:
    import nibabel

    for name, array, place in (("i", IMAGE, np.eye(4)), ("l", label, affine)):
        image = nibabel.Nifti1Image(array.T, place)
        image.header.set_xyzt_units("micron")
        nibabel.save(image, folder / f"{name}.nii.gz")
    refs = [FileRef(folder / f"{name}.nii.gz") for name in "il"]
    return Case("a", (refs[0],), label=refs[1])


def test_a_label_that_is_mirrored_is_an_error_and_no_voxel_is_read(tmp_path: Path) -> None:
    affine = np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = IMAGE.shape[2] - 1
    report = examine_cases([a_nifti_pair(tmp_path, affine)])
    (finding,) = [f for f in report.findings if f.name == "geometry-differs"]
    assert finding.level == "error"
    assert "mirrored in x" in finding.found
    assert "data.geometry: header" in finding.todo
    assert "data.geometry: stored" in finding.todo
    assert report.facts[0].voxels is None


def test_a_label_that_is_shifted_by_half_a_voxel_cannot_be_repaired(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[2, 3] = 1.5
    (finding,) = [
        f for f in check_cases([a_nifti_pair(tmp_path, affine)]) if f.name == "geometry-differs"
    ]
    assert "shifted by 1.5 voxels up in z" in finding.found
    assert "header" not in finding.todo.replace("headers", "")


def test_a_label_larger_than_the_image_is_told_by_where_it_lies(tmp_path: Path) -> None:
    wide = np.pad(LABEL, 2)
    affine = np.eye(4)
    affine[:3, 3] = -2
    found = {f.name: f for f in check_cases([a_nifti_pair(tmp_path, affine, wide)])}
    assert "shape-mismatch" not in found
    assert "shifted by 2 voxels down in z" in found["geometry-differs"].found
    assert "data.geometry: header" in found["geometry-differs"].todo


@pytest.mark.parametrize(
    ("what", "planes", "level"),
    [("image", 4, "warning"), ("image", 1, "error"), ("label", 1, "warning")],
)
def test_chunks_that_were_never_written_are_told(
    tmp_path: Path, what: str, planes: int, level: str
) -> None:
    import zarr

    for name, array in (("image", IMAGE), ("label", LABEL)):
        made = zarr.create_array(
            tmp_path / f"{name}.zarr", shape=array.shape, chunks=(1, 8, 10), dtype=array.dtype
        )
        some = planes if name == what else len(array)
        made[:some] = np.maximum(array[:some], 1)
    case = Case("a", (FileRef(tmp_path / "image.zarr"),), label=FileRef(tmp_path / "label.zarr"))
    (finding,) = [f for f in check_cases([case]) if f.name == "chunks-missing"]
    assert (finding.level, finding.path) == (level, tmp_path / f"{what}.zarr")
    assert f"{6 - planes} of 6 chunks" in finding.found


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_chunks_of_labels_that_were_lost_are_told_from_those_that_are_background(
    tmp_path: Path, lost: bool, dense: bool
) -> None:
    import shutil

    import zarr

    rng = np.random.default_rng(0)
    where = np.indices((48, 96, 96))
    label = np.zeros((48, 96, 96), np.uint16)
    for number in range(1, 41):
        centre = rng.uniform(0, 1, 3) * [48, 96, 40]  # nothing beyond x = 56
        inside = (
            sum((w - c) ** 2 for w, c in zip(where, centre, strict=True)) < rng.uniform(4, 9) ** 2
        )
        label[inside & (label == 0)] = number
    label = label + 1 if dense else label
    image = rng.normal(90, 9, label.shape) + 60 * (label > 1)
    zarr.create_array(tmp_path / "i.zarr", data=image.astype(np.uint8), chunks=(16, 32, 32))
    zarr.create_array(tmp_path / "l.zarr", data=label, chunks=(16, 32, 32))
    if lost:
        shutil.rmtree(tmp_path / "l.zarr" / "c" / "1")
    case = Case("a", (FileRef(tmp_path / "i.zarr"),), label=FileRef(tmp_path / "l.zarr"))
    told = [f for f in check_cases([case]) if f.name == "chunks-missing"]
    assert [f.level for f in told] == (["warning"] if lost else [] if dense else ["info"])


@pytest.mark.parametrize("name", ["new\nline", "tab\t", "sur\udcff\udcfe", "bell\a"])
def test_names_that_cannot_be_printed_are_errors_that_can(tmp_path: Path, name: str) -> None:
    case = a_case(tmp_path, name)
    found = [f for f in check_cases([case]) if f.name == "unprintable-name"]
    assert found
    assert all(str(f).isprintable() for f in found)
    assert all(f.level == "error" for f in found)
