"""Cases: the layouts people have are found, and doubtful ones are refused with the option."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from volprep.cases import LAYOUTS, Case, Cases, FileRef, cases_from_entries, find_cases, group_of
from volprep.cases.naming import Roles, gaps_in, partner_stems, running_numbers
from volprep.errors import ConfigError, SourceError
from volprep.splits import make_splits

VOLUME = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def put(root: Path, *names: str, voxels: np.ndarray = VOLUME) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, voxels)
        elif path.suffix in (".tif", ".tiff"):
            tifffile.imwrite(path, voxels, photometric="minisblack")
        else:
            path.write_bytes(b"")
    return root


def pairs(cases: Cases, root: Path) -> dict[str, tuple[str, str | None]]:
    def short(path: Path) -> str:
        return path.relative_to(root).as_posix()

    return {
        case.name: (short(case.image.path), short(case.label.path) if case.label else None)
        for case in cases
    }


def told(cases: Cases) -> dict[str, str]:
    """What was found, by name."""
    return {finding.name: str(finding) for finding in cases.findings}


# images/ + labels/


def test_images_and_labels_are_paired_by_stem_whatever_the_suffix(tmp_path):
    put(tmp_path, "images/a b.tif", "images/é(1).npy", "images/Dot.2.tif")
    put(tmp_path, "labels/a b.npy", "labels/é(1).tif", "labels/Dot.2.tif", "labels/.hidden.tif")
    cases = find_cases(tmp_path)
    assert cases.layout == "folders"
    assert cases.reason == "images/ + labels/"
    assert pairs(cases, tmp_path) == {
        "a b": ("images/a b.tif", "labels/a b.npy"),
        "Dot.2": ("images/Dot.2.tif", "labels/Dot.2.tif"),
        "é(1)": ("images/é(1).npy", "labels/é(1).tif"),
    }
    assert cases.findings == ()


def test_double_suffixes_leave_the_right_stem(tmp_path):
    put(tmp_path, "images/1135.ome.tif", "labels/1135.tif", "images/ct.nii.gz", "labels/ct.nii")
    assert {case.name: case.label.path.name for case in find_cases(tmp_path)} == {
        "1135": "1135.tif",
        "ct": "ct.nii",
    }


def test_words_for_roles_do_not_keep_pairs_apart(tmp_path):
    put(tmp_path, "img/x_image.npy", "img/y_image.npy", "seg/x_mask.npy", "seg/y.npy")
    assert pairs(find_cases(tmp_path), tmp_path) == {
        "x_image": ("img/x_image.npy", "seg/x_mask.npy"),
        "y_image": ("img/y_image.npy", "seg/y.npy"),
    }


def test_several_label_folders_are_an_error_that_names_the_option(tmp_path):
    put(tmp_path, "images/a.npy", "labels_sparse/a.npy", "labels_dense/a.npy", "preview/a.npy")
    with pytest.raises(
        SourceError, match=r"2 folders.*labels_dense, labels_sparse; .*`label_dir: labels_dense`"
    ):
        find_cases(tmp_path)
    cases = find_cases(tmp_path, label_dir="labels_sparse")
    assert pairs(cases, tmp_path) == {"a": ("images/a.npy", "labels_sparse/a.npy")}
    with pytest.raises(SourceError, match=r"labels_spars.*no such folder; `label_dir` names one"):
        find_cases(tmp_path, label_dir="labels_spars")


def test_a_folder_of_valid_masks_is_no_folder_of_labels(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "valid_masks/a.npy", "images/b.npy")
    cases = find_cases(tmp_path, mask_key="m", label_axes="XYZ")
    assert cases.reason == "images/ + labels/ + valid_masks/"
    assert cases.named("a").mask == FileRef(tmp_path / "valid_masks/a.npy", "m", "XYZ")
    assert cases.named("b").mask is None
    assert "no label for 1 of 2 images: b" in told(cases)["unlabelled-images"]


def test_masks_may_be_labels_and_are_chosen_by_option(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "masks/a.npy")
    with pytest.raises(SourceError, match="labels, masks"):
        find_cases(tmp_path)
    case = find_cases(tmp_path, label_dir="labels", mask_dir="masks").named("a")
    assert case.mask.path.parent.name == "masks"
    assert find_cases(tmp_path, mask_dir="masks").named("a").label.path.parent.name == "labels"


def test_labels_that_belong_to_no_image_are_told(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "labels/z.npy")
    assert "1 label without an image: z; left out" in told(find_cases(tmp_path))["orphan-labels"]
    put(tmp_path / "other", "images/a.npy", "labels/z.npy")
    with pytest.raises(SourceError, match=r"no label has the name of an image \(z; images: a\)"):
        find_cases(tmp_path / "other")


def test_folders_elsewhere_are_given_by_path(tmp_path):
    put(tmp_path, "raw data/a.npy", "set/gt/a.npy")
    cases = find_cases(tmp_path / "set", image_dir="../raw data")
    assert cases.named("a").label.path == tmp_path / "set/gt/a.npy"
    with pytest.raises(SourceError, match="gt may hold labels, but no folder is called images"):
        find_cases(tmp_path / "set")


def test_two_files_of_one_stem_are_refused(tmp_path):
    put(tmp_path, "images/a.npy", "images/a.tif")
    with pytest.raises(SourceError, match=r"a\.npy has the same stem"):
        find_cases(tmp_path)


def test_a_folder_one_level_above_is_told_where_to_look(tmp_path):
    put(tmp_path, "train/images/a.npy", "train/labels/a.npy", "test/images/b.npy")
    with pytest.raises(SourceError, match=r"hold images/ and labels/: train"):
        find_cases(tmp_path)


# stacks of slices


def planes(root: Path, *names: str, side: int = 4) -> Path:
    return put(root, *names, voxels=np.zeros((side, side), np.uint8))


def test_running_numbers_of_one_shape_are_one_stack_unless_told_otherwise(tmp_path):
    root = planes(tmp_path / "brain", *[f"{d}/s.{n}.tif" for d in ("images", "labels")
                                        for n in (8, 9, 10, 11)])  # fmt: skip
    cases = find_cases(root)
    (case,) = cases
    assert case.name == "brain"
    assert (case.image.path, case.label.path) == (root / "images", root / "labels")
    assert case.open_image().shape == (1, 4, 4, 4)
    (finding,) = cases.findings
    assert (finding.level, finding.name) == ("info", "read-as-stack")
    assert finding.message == (
        "images/: 4 TIF of 4x4 with running numbers read as one stack; "
        "for separate images set `slices: false` (--images)"
    )
    apart = find_cases(root, slices=False)
    assert [case.name for case in apart] == ["s.8", "s.9", "s.10", "s.11"]
    assert apart.findings == ()


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["1.tif", "2.tif"], "two files are few"),
        (["1.tif", "2.tif", "3.tif", "90.tif"], "the numbers are far apart"),
        (
            [f"{n}.tif" for n in (1, 2, 4, 5, 8, 9, 11, 15, 16, 19)],
            "numbers are missing everywhere",
        ),
        (["a1.tif", "b2.tif", "a3.tif"], "other names"),
    ],
)
def test_planes_that_do_not_run_are_separate_images(tmp_path, names, why):
    planes(tmp_path, *[f"images/{name}" for name in names])
    assert len(find_cases(tmp_path)) == len(names), why
    assert len(find_cases(tmp_path, slices=True)) == 1


def test_planes_of_different_sizes_and_volumes_are_separate_images(tmp_path):
    planes(tmp_path, "images/1.tif", "images/2.tif")
    planes(tmp_path, "images/3.tif", side=5)
    assert len(find_cases(tmp_path)) == 3
    put(tmp_path / "volumes", *[f"images/{n}.tif" for n in range(4)])
    assert len(find_cases(tmp_path / "volumes")) == 4


def test_planes_beside_one_label_volume_are_one_stack(tmp_path):
    planes(tmp_path, "images/z7.tif", "images/z9.tif")
    put(tmp_path, "labels/all.npy", voxels=np.zeros((2, 4, 4), np.uint8))
    (case,) = find_cases(tmp_path)
    assert case.label.path.name == "all.npy"
    assert case.open_image().shape == case.open_label().shape == (1, 2, 4, 4)


def test_a_folder_of_slices_for_each_case(tmp_path):
    names = [f"{d}/{c}/{n}.tif" for d in ("images", "labels") for c in "ab" for n in range(3)]
    planes(tmp_path, *names)
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["a", "b"]
    assert cases[0].open_label().shape == (1, 3, 4, 4)


# names that tell the role


def test_labels_and_skeletons_beside_their_images(tmp_path):
    put(tmp_path, "a.tif", "a.labels.tif", "a.skeletons.npz", "b c.tif", "b c.labels.tif")
    put(tmp_path, "b c.labels.tif.skeletons.trch", "only.tif")
    cases = find_cases(tmp_path)
    assert cases.layout == "suffix"
    assert pairs(cases, tmp_path) == {
        "a": ("a.tif", "a.labels.tif"),
        "b c": ("b c.tif", "b c.labels.tif"),
        "only": ("only.tif", None),
    }
    assert cases.named("a").skeletons == tmp_path / "a.skeletons.npz"
    assert cases.named("b c").skeletons == tmp_path / "b c.labels.tif.skeletons.trch"
    assert "no label for 1 of 3 images: only" in told(cases)["unlabelled-images"]


@pytest.mark.parametrize("image", ["_img", "-image", ".raw", ""])
@pytest.mark.parametrize(
    "label",
    [
        "_cp_masks",
        "_masks",
        "_mask",
        "_seg",
        "_segm",
        "_label",
        "_labels",
        "_lbl",
        "_gt",
        "-labels",
        ".labels",
        "-label",
        ".seg",
    ],
)
def test_the_usual_words_for_images_and_labels(tmp_path, image, label):
    put(tmp_path, f"x1{image}.npy", f"x1{label}.npy", f"x2{image}.npy", f"x2{label}.npy")
    cases = find_cases(tmp_path)
    assert pairs(cases, tmp_path) == {
        name: (f"{name}{image}.npy", f"{name}{label}.npy") for name in ("x1", "x2")
    }


def test_words_for_roles_may_come_first(tmp_path):
    put(tmp_path, "img_1.npy", "mask_1.npy", "raw-2.npy", "gt-2.npy", "volume_3.npy")
    assert pairs(find_cases(tmp_path), tmp_path) == {
        "1": ("img_1.npy", "mask_1.npy"),
        "2": ("raw-2.npy", "gt-2.npy"),
        "volume_3": ("volume_3.npy", None),
    }
    put(tmp_path / "f", "images/img_1.npy", "masks/mask_1.npy")
    assert find_cases(tmp_path / "f").named("img_1").label is not None


def test_several_labels_of_one_image_are_refused_with_the_word(tmp_path):
    put(tmp_path, "a.npy", "a_mask.npy", "a_labels.npy", "a_valid_mask.npy")
    with pytest.raises(SourceError, match=r"a_labels\.npy, a_mask\.npy; .*`label_dir: labels`"):
        find_cases(tmp_path)
    case = find_cases(tmp_path, label_dir="mask").named("a")
    assert case.label.path.name == "a_mask.npy"
    assert case.mask.path.name == "a_valid_mask.npy"


def test_one_file_takes_the_label_beside_it(tmp_path):
    put(tmp_path, "a.tif", "a.labels.tif", "b.tif", "b.labels.tif", "c.tif")
    cases = find_cases(tmp_path / "a.tif")
    assert pairs(cases, tmp_path) == {"a": ("a.tif", "a.labels.tif")}
    text = told(find_cases(tmp_path / "c.tif"))["no-labels"]
    assert "no label for 1 of 1 image: c" in text


def test_images_alone_are_cases_without_labels(tmp_path):
    put(tmp_path, "a.npy", "b.npy", "notes.txt")
    cases = find_cases(tmp_path)
    assert cases.layout == "images"
    assert "no label for 2 of 2 images: a, b" in told(cases)["no-labels"]
    with pytest.raises(SourceError, match=r"`label_key: gt` finds no label"):
        find_cases(tmp_path, label_key="gt")


# nnU-Net


def test_nnunet_raw_joins_the_channels_of_a_case(tmp_path):
    put(tmp_path, "imagesTr/ä b_0001.npy", "imagesTr/ä b_0000.npy", "labelsTr/ä b.npy")
    put(tmp_path, "imagesTr/c_0000.npy", "imagesTr/c_0001.npy", "imagesTs/t_0000.npy")
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "x", "1": "y"}}))
    cases = find_cases(tmp_path)
    assert cases.layout == "nnunet"
    case = cases.named("ä b")
    assert [ref.path.name for ref in case.images] == ["ä b_0000.npy", "ä b_0001.npy"]
    image = case.open_image()
    assert image.shape == (2, 3, 4, 5)
    assert (image.read() == np.stack([VOLUME, VOLUME])).all()
    assert cases.named("c").label is None
    assert "not used: imagesTs/" in told(cases)["siblings-unused"]


def test_a_missing_nnunet_channel_is_named(tmp_path):
    put(tmp_path, "imagesTr/a_0000.npy", "imagesTr/a_0001.npy", "imagesTr/b_0001.npy")
    with pytest.raises(SourceError, match=r"b: has the channels _0001; each case needs all 2"):
        find_cases(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(SourceError, match=r"dataset\.json: cannot be read as JSON"):
        find_cases(tmp_path)


def test_decathlon_folders_without_channel_numbers_are_pairs(tmp_path):
    put(tmp_path, "imagesTr/a.npy", "labelsTr/a.npy")
    cases = find_cases(tmp_path)
    assert cases.layout == "folders"
    assert cases[0].label is not None


# files that hold both


def a_container(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key.replace("__", "/")] = array
    return path


def test_hdf5_files_hold_image_and_label(tmp_path):
    a_container(tmp_path / "a.h5", raw=VOLUME, label=VOLUME)
    a_container(tmp_path / "b.h5", raw=VOLUME, gt=VOLUME, other=VOLUME)
    cases = find_cases(tmp_path)
    assert cases.layout == "containers"
    assert [(c.image.key, c.label.key) for c in cases] == [("raw", "label"), ("raw", "gt")]
    (single,) = find_cases(tmp_path / "b.h5")
    assert single == cases[1]


def test_datasets_that_could_both_be_labels_are_refused(tmp_path):
    path = a_container(
        tmp_path / "cremi.hdf",
        volumes__raw=VOLUME,
        volumes__labels__neuron_ids=VOLUME,
        volumes__labels__clefts=VOLUME,
        volumes__labels__mask=VOLUME,
    )
    with pytest.raises(SourceError, match=r"3 datasets may be the label: .*`label_key: "):
        find_cases(path)
    (case,) = find_cases(
        path, label_key="volumes/labels/neuron_ids", mask_key="volumes/labels/mask"
    )
    assert case.image.key == "volumes/raw"
    assert case.mask == FileRef(path, "volumes/labels/mask")


def test_a_file_without_a_telling_name_asks_for_the_key(tmp_path):
    path = a_container(tmp_path / "x.h5", first=VOLUME, second=VOLUME)
    with pytest.raises(SourceError, match=r"holds first \(3, 4, 5\), .*choose with `image_key`"):
        find_cases(path)
    (case,) = find_cases(path, image_key="first", label_key="second")
    assert (case.image.key, case.label.key) == ("first", "second")


def test_containers_of_one_array_each_pair_by_name(tmp_path):
    a_container(tmp_path / "a_raw.h5", main=VOLUME)
    a_container(tmp_path / "a_seg.h5", main=VOLUME)
    cases = find_cases(tmp_path)
    assert cases.layout == "suffix"
    assert pairs(cases, tmp_path) == {"a": ("a_raw.h5", "a_seg.h5")}
    assert (cases[0].open_label().read()[0] == VOLUME).all()


def test_the_only_dataset_that_is_not_called_as_labels_is_the_image(tmp_path):
    (case,) = find_cases(a_container(tmp_path / "a.h5", t0=VOLUME, labels=VOLUME))
    assert (case.image.key, case.label.key) == ("t0", "labels")


def test_a_damaged_container_stays_a_case_for_the_doctor(tmp_path):
    a_container(tmp_path / "a.h5", raw=VOLUME, label=VOLUME)
    (tmp_path / "b.h5").write_bytes(b"\x89HDF nothing")
    assert [case.name for case in find_cases(tmp_path)] == ["a", "b"]


# lists, options, nouns


def test_an_explicit_list_takes_files_channels_and_keys(tmp_path):
    put(tmp_path, "x/c0.npy", "x/c1.npy", "l.npy", "s.skeletons.npz")
    a_container(tmp_path / "h.h5", raw=VOLUME, label=VOLUME, valid=VOLUME)
    entries = [
        {"image": ["x/c0.npy", "x/c1.npy"], "label": "l.npy", "name": "two", "group": 3,
         "spacing": [1, 0.5, 0.5], "skeletons": "s.skeletons.npz", "weight": 2},
        {"image": "h.h5", "image_key": "raw", "label_key": "label", "mask_key": "valid"},
    ]  # fmt: skip
    cases = cases_from_entries(entries, tmp_path, group=r"\w", spacing=(9, 9, 9))
    one, two = cases
    assert (one.name, one.group, one.spacing) == ("h", "h", (9.0, 9.0, 9.0))
    assert one.label == FileRef(tmp_path / "h.h5", "label")
    assert one.mask == FileRef(tmp_path / "h.h5", "valid")
    assert (two.group, two.spacing, two.weight) == ("3", (1.0, 0.5, 0.5), 2.0)
    assert two.open_image().shape == (2, 3, 4, 5)
    assert two.open_image().spacing == two.open_label().spacing == (1.0, 0.5, 0.5)
    assert two.open_mask() is None
    assert len(two.paths()) == 4
    assert len(one.paths()) == 1
    assert cases.layout == "list"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": "a.npy", "lable": "a.npy"}, r"cases\[0\]\.lable: unknown key; did you mean"),
        ({"label": "a.npy"}, r"cases\[0\]\.image: missing"),
        ({"image": "a.npy", "spacing": [1, 2]}, r"cases\[0\]\.spacing: .* three lengths"),
        ({"image": "a.npy", "spacing": [1, 0, 2]}, r"cases\[0\]\.spacing: "),
        ({"image": "a.npy", "weight": 0}, r"cases\[0\]\.weight: 0 is not above 0"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, entry, message):
    put(tmp_path, "a.npy")
    with pytest.raises(ConfigError, match=message):
        cases_from_entries([entry], tmp_path)


def test_a_missing_file_and_an_empty_list_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.npy: no such file or folder"):
        cases_from_entries([{"image": "gone.npy"}], tmp_path)
    with pytest.raises(ConfigError, match="the list is empty"):
        cases_from_entries([], tmp_path)
    put(tmp_path, "brains/x.npy")
    with pytest.raises(SourceError, match=r"brians: no such .*; did you mean brains\?"):
        find_cases(tmp_path / "brians")
    with pytest.raises(SourceError, match=r"holds no gone$"):
        find_cases(tmp_path / "gone" / "raw")
    with pytest.raises(SourceError, match="no known layout"):
        find_cases(tmp_path)
    put(tmp_path, "images/readme.txt")
    with pytest.raises(SourceError, match="no known layout"):
        find_cases(tmp_path)
    with pytest.raises(SourceError, match="images: holds no volume"):
        find_cases(tmp_path, image_dir="images")


def test_two_cases_of_one_name_are_refused(tmp_path):
    put(tmp_path, "p/a.npy", "q/a.npy")
    with pytest.raises(SourceError, match=r"p/a\.npy is a case called 'a' too"):
        cases_from_entries([{"image": "p/a.npy"}, {"image": "q/a.npy"}], tmp_path)


def test_a_layout_can_be_forced_and_a_wrong_one_is_named(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "x.npy", "x_mask.npy")
    assert find_cases(tmp_path).layout == "folders"
    assert [case.name for case in find_cases(tmp_path, layout="suffix")] == ["x"]
    with pytest.raises(ConfigError, match=r"'sufix' is no layout; did you mean suffix\?"):
        find_cases(tmp_path, layout="sufix")
    with pytest.raises(SourceError, match="not in the layout 'nnunet'"):
        find_cases(tmp_path, layout="nnunet")


def test_several_image_folders_are_refused(tmp_path):
    put(tmp_path, "images/a.npy", "raw/a.npy", "labels/a.npy")
    with pytest.raises(SourceError, match=r"images, raw; choose one with `image_dir: images`"):
        find_cases(tmp_path)


def test_spacing_that_is_given_replaces_the_files(tmp_path):
    a_container(tmp_path / "a.h5", raw=VOLUME, label=VOLUME)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["raw"].attrs["element_size_um"] = (3.0, 2.0, 1.0)
    assert find_cases(tmp_path)[0].open_image().spacing == (3.0, 2.0, 1.0)
    case = find_cases(tmp_path, spacing=(4, 5, 6))[0]
    assert case.open_image().spacing == case.open_label().spacing == (4.0, 5.0, 6.0)
    assert (case.open_image().read()[0] == VOLUME).all()


def test_channels_of_different_shapes_or_spacings_are_refused(tmp_path):
    put(tmp_path, "a.npy")
    put(tmp_path, "b.npy", voxels=VOLUME[:2])
    (case,) = cases_from_entries([{"image": ["a.npy", "b.npy"]}], tmp_path)
    with pytest.raises(SourceError, match=r"b\.npy: shape.*\(2, 4, 5\).*needs \(3, 4, 5\)"):
        case.open_image()


def test_channels_meet_in_the_dtype_that_holds_both(tmp_path):
    put(tmp_path, "a.npy")
    put(tmp_path, "b.npy", voxels=VOLUME.astype(np.uint16) * 256)
    image = cases_from_entries([{"image": ["a.npy", "b.npy"]}], tmp_path)[0].open_image()
    assert image.dtype == np.uint16
    assert (image.read()[1] == VOLUME.astype(np.uint16) * 256).all()


def test_cases_come_back_from_json(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "valid/a.npy", "skeletons/a.skeletons.npz")
    cases = find_cases(tmp_path, spacing=(1, 2, 3), group=".", axes="ZYX")
    assert cases[0].skeletons is not None
    plain = json.loads(json.dumps(cases.to_dict()))
    assert tuple(Case.from_dict(item) for item in plain["cases"]) == cases.items
    with pytest.raises(KeyError, match="did you mean a"):
        cases.named("aa")


def test_groups_are_the_first_group_of_the_match():
    assert group_of("mouse12_left", r"mouse(\d+)") == "12"
    assert group_of("mouse12_left", r"[a-z]+") == "mouse"
    assert group_of("anything", None) is None


def test_every_layout_says_what_it_is():
    assert all(recognise.__doc__ for recognise in LAYOUTS.values())


@given(st.text("ab.1é _-()", min_size=1, max_size=8), st.sampled_from(["_mask", ".labels", "-seg"]))
def test_bare_stems_pair_any_name_with_its_label(base, word):
    stem = Roles().base(base)
    assert Roles().base(stem + word) == stem
    assert partner_stems([stem], [stem + word]) == {stem: stem + word}
    assert Roles().of(stem + word) == (stem, "label")


@given(
    st.lists(st.integers(0, 300), min_size=2, max_size=9, unique=True),
    st.sampled_from(["s{:05d}_x", "s{}_x", "2024_{}", "x{}_t7", "é{:03d}"]),
)
def test_the_numbers_of_names_that_differ_in_them_alone_are_found(numbers, pattern):
    names = [pattern.format(n) for n in numbers]
    assert [int(text) for text in running_numbers(names)] == numbers
    assert running_numbers([*names, "t"]) is None


def test_the_number_that_tells_every_name_apart_is_taken():
    assert running_numbers(["s1_2024", "s2_2024", "s3_2025"]) == ["1", "2", "3"]
    assert running_numbers(["r1_s1", "r1_s2", "r2_s3"]) == ["1", "2", "3"]
    assert running_numbers(["sec_7"]) == ["7"]
    assert running_numbers(["sec"]) is None
    assert running_numbers([]) is None


# slices that belong together


def a_stack(folder: Path, numbers, name: str = "s_{:03d}.tif", first: int = 0) -> None:
    """Sections that hold their own number, from `first` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        tifffile.imwrite(folder / name.format(n + first), np.full((8, 8), n + 1, np.uint8))


ROUTES = ["found", "slices", "listed"]


def by_route(root: Path, route: str, **options: object) -> Cases:
    if route == "listed":
        entry = {"name": "x", "image": "images", "label": "labels"}
        if (root / "valid").exists():
            entry["mask"] = "valid"
        return cases_from_entries([entry], root, **options)
    return find_cases(root, slices=True if route == "slices" else None, **options)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("where", ["labels", "valid"])
def test_sections_that_one_folder_lacks_are_an_error_that_names_them(tmp_path, route, where):
    a_stack(tmp_path / "images", [n for n in range(12) if n != 4])
    a_stack(tmp_path / "labels", [n for n in range(12) if n != (8 if where == "labels" else 4)])
    if where == "valid":
        a_stack(tmp_path / "valid", [n for n in range(12) if n != 8])
    cases = by_route(tmp_path, route)
    errors = [f for f in cases.findings if f.level == "error"]
    assert [f.name for f in errors] == ["slices-differ"]
    assert f"{where}" in str(errors[0])
    assert "it has no slice 8, and images/ has no slice 4" in errors[0].message
    assert len(cases) == 1


@pytest.mark.parametrize("route", ROUTES)
def test_another_first_number_is_an_error_unless_the_order_is_what_counts(tmp_path, route):
    a_stack(tmp_path / "images", range(6), first=1)
    a_stack(tmp_path / "labels", range(6), "l{}.tif")
    (finding,) = [f for f in by_route(tmp_path, route).findings if f.level == "error"]
    assert "it counts from 0 to 5, images/ from 1 to 6" in finding.message
    assert "slices_by: order" in finding.message
    assert "slices-differ" not in told(by_route(tmp_path, route, slices_by="order"))


@pytest.mark.parametrize("route", ROUTES)
def test_a_gap_that_all_folders_share_is_a_warning_and_leaves_one_stack(tmp_path, route):
    for folder in ("images", "labels"):
        a_stack(tmp_path / folder, [n for n in range(9) if n not in (3, 4)])
    cases = by_route(tmp_path, route)
    (finding,) = [f for f in cases.findings if f.name == "slices-missing"]
    assert finding.level == "warning"
    assert "images/ has no slices 3, 4 between 0 and 8" in finding.message
    assert [case.open_image().shape for case in cases] == [(1, 7, 8, 8)]


def test_channel_folders_must_hold_the_same_sections(tmp_path):
    a_stack(tmp_path / "c0", range(5))
    a_stack(tmp_path / "c1", [0, 1, 2, 4, 5])
    cases = cases_from_entries([{"name": "x", "image": ["c0", "c1"]}], tmp_path)
    assert "the slices of the channel are not those of c0/" in told(cases)["slices-differ"]


def test_a_number_that_begins_with_that_of_its_folder_is_no_other_section(tmp_path):
    for channel in range(2):
        a_stack(tmp_path / f"ch{channel}", range(9, 15), f"ch{channel}{{:04d}}.tif")
    entry = {"name": "x", "image": ["ch0", "ch1"]}
    assert cases_from_entries([entry], tmp_path).findings == ()
    (tmp_path / "ch1" / "ch10012.tif").unlink()
    assert "slices-differ" in told(cases_from_entries([entry], tmp_path))


def test_an_ending_of_half_of_the_names_is_proposed_as_that_of_labels(tmp_path):
    put(tmp_path, "a.npy", "a_nuclei.npy", "b.npy", "b_nuclei.npy")
    (finding,) = find_cases(tmp_path).findings
    assert "set `label_suffix: _nuclei`" in finding.message
    labelled = find_cases(tmp_path, label_suffix="_nuclei")
    assert [case.label is not None for case in labelled] == [True, True]


def test_numbers_that_are_far_apart_take_no_time(tmp_path):
    assert gaps_in([1, 10**15, 2, 3, 4]) == list(range(5, 1005))
    assert gaps_in([20240101, 20240309, 20240411, 20250607]) == []
    assert gaps_in([7]) == []


def test_sections_in_equal_steps_have_no_gap_and_padding_does_not_matter(tmp_path):
    a_stack(tmp_path / "images", range(0, 100, 25), "z{}.tif")
    a_stack(tmp_path / "labels", range(0, 100, 25), "z{:04d}_mask.tif")
    assert set(told(find_cases(tmp_path))) == {"read-as-stack"}


def test_slices_without_a_common_number_are_told(tmp_path):
    a_stack(tmp_path / "images", range(3), "{}.tif")
    for name in ("eins", "drei", "zwei"):
        a_stack(tmp_path / "labels", [1], f"{name}.tif")
    cases = find_cases(tmp_path, slices=True)
    assert "in order, since their names hold no number" in told(cases)["slices-unnumbered"]


# names in all their forms


def test_stems_match_across_unicode_forms_and_capitals(tmp_path):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    put(tmp_path, f"images/{nfc}.npy", f"labels/{nfd}.npy", "images/Cell1.npy", "labels/cell1.npy")
    put(tmp_path, f"valid/{nfd}_valid.npy")
    cases = find_cases(tmp_path)
    assert all(case.label is not None for case in cases)
    assert cases.named(nfc).label.path.name == f"{nfd}.npy"
    assert cases.named(nfc).mask is not None
    root = put(tmp_path / "s", f"{nfd}.npy", f"{nfc}_masks.npy")
    assert find_cases(root).named(nfc).label is not None
    for folder in ("a", "b"):
        put(tmp_path / "n" / folder, f"imagesTr/{nfc}_0000.npy", f"labelsTr/{nfd}.npy")
        assert find_cases(tmp_path / "n" / folder)[0].label is not None


def test_two_names_that_are_one_on_other_disks_are_told(tmp_path):
    put(tmp_path, "images/a.npy", "images/A.npy", "labels/a.npy", "labels/A.npy")
    cases = find_cases(tmp_path)
    assert pairs(cases, tmp_path) == {
        "A": ("images/A.npy", "labels/A.npy"), "a": ("images/a.npy", "labels/a.npy"),
    }  # fmt: skip
    assert "differ in capital letters only" in told(cases)["names-alike"]


def test_suffixes_of_the_users_own_pair_files(tmp_path):
    put(tmp_path / "one", "x_em.npy", "x_truth.npy", "y_em.npy", "y_truth.npy", "z.npy")
    cases = find_cases(tmp_path / "one", image_suffix="_em", label_suffix="_truth")
    assert pairs(cases, tmp_path / "one") == {
        "x": ("x_em.npy", "x_truth.npy"), "y": ("y_em.npy", "y_truth.npy"),
    }  # fmt: skip
    assert "not used: z.npy" in told(cases)["siblings-unused"]
    put(tmp_path / "two", "images/x_em.npy", "labels/x_truth.npy")
    with pytest.raises(SourceError, match="`label_suffix` and `image_suffix`"):
        find_cases(tmp_path / "two")
    cases = find_cases(tmp_path / "two", image_suffix="_em", label_suffix="_truth")
    assert cases[0].label is not None
    with pytest.raises(SourceError, match=r"`label_suffix: _nope` finds no label"):
        find_cases(tmp_path / "one", label_suffix="_nope")


def test_cellpose_files_are_read_but_for_its_pickles(tmp_path):
    put(tmp_path, "a.tif", "a_cp_masks.tif", "b.tif", "b_cp_masks.tif")
    np.save(tmp_path / "a_seg.npy", {"masks": 1}, allow_pickle=True)
    assert pairs(find_cases(tmp_path), tmp_path) == {
        "a": ("a.tif", "a_cp_masks.tif"), "b": ("b.tif", "b_cp_masks.tif"),
    }  # fmt: skip


# what is left alone


def test_what_is_not_used_is_named(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "synapses/a.npy", "images4d/a.npy", "b.npy")
    put(tmp_path, "notes/readme.txt", "images/scan.dcm")
    cases = find_cases(tmp_path)
    assert "not used: images4d/, synapses/, b.npy" in told(cases)["siblings-unused"]
    assert "1 file left out, of formats that are not read: scan.dcm" in told(cases)["file-left-out"]
    levels = {finding.name: finding.level for finding in cases.findings}
    assert levels == {"siblings-unused": "info", "file-left-out": "warning"}
    path = a_container(tmp_path / "c.h5", raw=VOLUME, label=VOLUME, extra=VOLUME)
    assert "datasets that are not used: extra" in told(find_cases(path))["siblings-unused"]


def test_labels_without_an_image_are_never_taken_for_images(tmp_path):
    put(tmp_path / "set", "images/a.npy", "labels_dense/a.npy", "x/masks/a.npy", "y/a_masks.npy")
    for folder in ("labels_dense", "x/masks", "y", "y/a_masks.npy"):
        with pytest.raises(SourceError, match=r"called as labels are, and there is no image"):
            find_cases(tmp_path / "set" / folder)
    put(tmp_path, "segmentation of mitochondria/a.npy")
    assert len(find_cases(tmp_path / "segmentation of mitochondria")) == 1
    put(tmp_path, "p/a.npy", "p/a_masks.npy")
    assert find_cases(tmp_path / "p" / "a_masks.npy")[0].image.path.name == "a.npy"


def test_a_folder_that_holds_one_folder_of_slices_is_one_case(tmp_path):
    a_stack(tmp_path / "brain" / "sections", range(4))
    (case,) = find_cases(tmp_path / "brain")
    assert (case.name, case.open_image().shape) == ("brain", (1, 4, 8, 8))
    (tmp_path / "empty" / "images").mkdir(parents=True)
    put(tmp_path / "empty", "labels/a.npy")
    with pytest.raises(SourceError, match=r"images/ holds no volume that can be read"):
        find_cases(tmp_path / "empty")


def test_a_folder_that_may_not_be_listed_is_named_itself(tmp_path, monkeypatch):
    put(tmp_path, "images/a.npy", "labels/a.npy")
    listed = Path.iterdir

    def iterdir(path: Path):
        if path.name == "labels":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(SourceError, match=r"labels: cannot be listed .*check its permissions"):
        find_cases(tmp_path)


# nnU-Net, whole


def an_nnunet(root: Path, *, suffix: str = ".tif", cases: int = 3, **stated: object) -> Path:
    rng = np.random.default_rng(0)
    for i in range(cases):
        labels = rng.integers(0, 4, (4, 8, 8)).astype(np.uint8)
        put(
            root, f"imagesTr/r{i}_0000{suffix}", voxels=rng.integers(0, 255, labels.shape, np.uint8)
        )
        put(root, f"labelsTr/r{i}{suffix}", voxels=labels)
    whole = {"channel_names": {"0": "EM"}, "numTraining": cases, "file_ending": suffix}
    whole["labels"] = {"background": 0, "a": 1, "b": 2, "ignore": 3}
    (root / "dataset.json").write_text(json.dumps(whole | stated))
    return root


def test_nnunet_names_classes_and_its_ignore_label_is_a_valid_mask(tmp_path):
    cases = find_cases(an_nnunet(tmp_path))
    assert cases.label_kind == "classes"
    assert cases.class_names == {0: "background", 1: "a", 2: "b"}
    assert "the label 3 is called ignore" in told(cases)["ignore-label"]
    (case, *_) = cases
    stored = tifffile.imread(case.label.path)
    assert (case.open_label().read()[0] == np.where(stored == 3, 0, stored)).all()
    assert (case.open_mask().read()[0] == (stored != 3)).all()


def test_nnunet_regions_and_version_1_labels_are_understood(tmp_path):
    root = an_nnunet(tmp_path / "r", labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3],
                                             "enhancing": 3})  # fmt: skip
    cases = find_cases(root)
    assert cases.class_names == {0: "background", 1: "whole", 2: "core", 3: "enhancing"}
    assert cases.class_regions == {"whole": (1, 2, 3), "core": (2, 3)}
    (said,) = [f for f in cases.findings if f.name == "regions-as-classes"]
    assert said.found == "trains on regions of several values (whole: 1, 2, 3; core: 2, 3)"
    root = an_nnunet(tmp_path / "v1", labels={"0": "background", "1": "liver", "3": "ignore"})
    assert find_cases(root).class_names == {0: "background", 1: "liver"}
    with pytest.raises(SourceError, match=r"labels: a: 'x' is no label value"):
        find_cases(an_nnunet(tmp_path / "bad", labels={"a": "x"}))


def test_nnunet_takes_one_rgb_picture_for_three_channels(tmp_path):
    from PIL import Image

    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        picture, labels = np.full((8, 9, 3), i, np.uint8), np.eye(8, 9, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "imagesTr" / f"r{i}_0000.png")
        Image.fromarray(labels).save(tmp_path / "labelsTr" / f"r{i}.png")
    stated = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    assert [case.open_image().shape for case in find_cases(tmp_path)] == [(3, 1, 8, 9)] * 2
    stated["channel_names"] = {"0": "a", "1": "b"}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    with pytest.raises(SourceError, match=r"holds 3 channels, and dataset\.json names 2"):
        find_cases(tmp_path)


def test_nnunet_takes_the_files_of_its_ending_and_counts_them(tmp_path):
    root = an_nnunet(tmp_path, numTraining=4)
    put(root, "imagesTr/r0_0000.npy", "labelsTr/r0.npy")
    cases = find_cases(root)
    assert [case.image.path.suffix for case in cases] == [".tif"] * 3
    texts = [str(f) for f in cases.findings if f.name == "dataset-json"]
    assert any("numTraining is 4, but imagesTr/ holds 3 cases" in text for text in texts)
    assert any("1 file left out, not ending in .tif: r0_0000.npy" in text for text in texts)


def test_nnunet_spacing_of_tiff_comes_from_the_json_beside_it(tmp_path):
    root = an_nnunet(tmp_path)
    for folder in ("imagesTr", "labelsTr"):
        for i in range(3):
            (root / folder / f"r{i}.json").write_text(json.dumps({"spacing": [2.0, 0.5, 0.25]}))
    cases = find_cases(root)
    assert {case.open_image().spacing for case in cases} == {(2.0, 0.5, 0.25)}
    assert cases[0].open_label().spacing == (2.0, 0.5, 0.25)
    assert "read as µm" in told(cases)["spacing-from-json"]
    assert find_cases(root, spacing=(1, 1, 1))[0].open_image().spacing == (1.0, 1.0, 1.0)
    (root / "labelsTr" / "r1.json").write_text(json.dumps({"spacing": [9, 9, 9]}))
    assert "labelsTr/r1.json (9.0, 9.0, 9.0)" in told(find_cases(root))["dataset-json"]
    (root / "imagesTr" / "r0.json").write_text(json.dumps({"spacing": [999, 0.5, 0.25]}))
    assert find_cases(root)[0].spacing == (0.5, 0.5, 0.25)
    (root / "imagesTr" / "r0.json").write_text(json.dumps({"spacing": "?"}))
    with pytest.raises(SourceError, match=r"r0\.json: spacing is '\?'"):
        find_cases(root)


def test_nnunet_splits_are_taken_from_its_file(tmp_path):
    root = an_nnunet(tmp_path)
    folds = [{"train": ["r0", "r1"], "val": ["r2"]}, {"train": ["r2"], "val": ["r0"]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    cases = find_cases(root)
    assert "2 folds given" in told(cases)["splits-from-file"]
    splits = make_splits(cases.items, listed=cases.folds, fold=1)
    assert ([p.case for p in splits.train], [p.case for p in splits.val]) == (["r2"], ["r0"])
    assert "r1: on no side" in splits.notices[0]
    assert splits.notices[0].name == "split-missing-case"
    assert make_splits(cases.items, kind="cases", listed=cases.folds).kind == "cases"
    with pytest.raises(ConfigError, match=r"split\.fold: 2 is not one of the 2 folds"):
        make_splits(cases.items, listed=cases.folds, fold=2)
    (root / "splits_final.json").write_text(json.dumps([{"train": ["r9"], "val": []}]))
    with pytest.raises(SourceError, match="names cases that are not there: r9"):
        find_cases(root)
    (root / "splits_final.json").write_text("{}")
    assert find_cases(root).folds == ()


# values that are not annotated


@given(st.sets(st.sampled_from([0, 1, 2, 255, 300]), max_size=3), st.booleans())
def test_ignored_values_are_left_out_of_label_and_mask(ignore, masked):
    rng = np.random.default_rng(len(ignore))
    with TemporaryDirectory() as folder:
        root = Path(folder)
        labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (3, 4, 5))
        valid = rng.integers(0, 2, labels.shape).astype(np.uint8)
        put(root, "i.npy")
        put(root, "l.npy", voxels=labels)
        put(root, "m.npy", voxels=valid)
        entry = {"image": "i.npy", "label": "l.npy"} | ({"mask": "m.npy"} if masked else {})
        (case,) = cases_from_entries([entry], root).read_as(ignore=sorted(ignore))
        assert (case.open_mask() is not None) == bool(masked or ignore)
        assert (
            case.open_label().read()[0] == np.where(np.isin(labels, [*ignore]), 0, labels)
        ).all()
        if case.open_mask() is not None:
            wanted = ~np.isin(labels, [*ignore]) & ((valid != 0) | (not masked))
            assert (case.open_mask().read()[0] == wanted).all()
            slabs = np.concatenate([block for _, block in case.open_mask().slabs(2)], axis=1)
            assert (slabs[0] == wanted).all()


# real data

REAL: dict[str, tuple[str, dict[str, object], list[tuple[str, tuple[int, ...], bool]]]] = {
    "01_stardist_nuclei3d": ("folders", {}, [("img3d", (1, 31, 61, 57), True)]),
    "02_gonuclear_nuclei3d_h5": ("containers", {}, [("1135_mini", (1, 100, 100, 100), True)]),
    "02_gonuclear_nuclei3d_h5/1135_mini.h5": (
        "file", {}, [("1135_mini", (1, 100, 100, 100), True)],
    ),
    "03_plantseg_ovule_membrane_h5/sample_ovule.h5": (
        "file", {}, [("sample_ovule", (1, 32, 128, 128), True)],
    ),
    "03_plantseg_ovule_membrane_h5/train_2Dc_2D.h5": (
        "file", {"axes": "CYX"}, [("train_2Dc_2D", (2, 1, 128, 128), True)],
    ),
    "04_qcanet_embryo_nuclei3d": (
        "folders", {"label_dir": "labels_instances"}, [("16_cell_stage", (1, 51, 120, 122), True)],
    ),
    "05_isbi2012_em_png_stack": (
        "folders", {}, [("05_isbi2012_em_png_stack", (1, 30, 512, 512), True)],
    ),
    "06_fib25_neurons_png": ("folders", {}, [("06_fib25_neurons_png", (1, 125, 250, 250), True)]),
    "08_nifti_totalseg_ct": ("folders", {}, [("example_ct_sm", (1, 30, 101, 122), True)]),
    "11_imagej_tiff_plantseg": (
        "folders", {}, [(f"rgb_3D_{n}", (1, 75, 75, 75), True) for n in range(2)],
    ),
    "12_ometiff": ("folders", {}, [("1135", (1, 100, 100, 100), True)]),
    "14_2d_bbbc007_pairs": (
        "folders", {}, [
            ("A9 p5d (cropped 1)", (1, 1, 104, 102), True),
            ("A9 p5d (cropped 2)", (1, 1, 107, 104), True),
            ("A9 p5d (cropped 3)", (1, 1, 124, 121), True),
            ("A9 p5d (cropped 4)", (1, 1, 75, 83), True),
        ],
    ),
    "15_2d_stardist_pair": ("folders", {}, [("img2d", (1, 1, 512, 512), True)]),
    "16_2d_sparse_bbbc007": (
        "folders", {}, [(name, (1, 1, 340, 340), True) for name in (
            "17P1_POS0013_D_1UL", "20P1_POS0005_D_1UL", "20P1_POS0007_D_1UL",
            "20P1_POS0010_D_1UL", "A9 p7d", "AS_09125_040701150004_A02f00d0",
        )],
    ),
    "17_2d_sparse_maize": (
        "folders", {"label_dir": "labels_dense"}, [("maize_clsm", (1, 1, 640, 639), True)],
    ),
    "19_omezarr_nuclei": (
        "containers", {}, [(f"1135_v0{n}", (1, 100, 100, 100), True) for n in (4, 5)],
    ),
    "19_omezarr_nuclei/1135_v04.zarr": ("file", {}, [("1135_v04", (1, 100, 100, 100), True)]),
    "19_omezarr_nuclei/1135_v05.zarr": ("file", {}, [("1135_v05", (1, 100, 100, 100), True)]),
    "20_3d_sparse_slices_fib25": (
        "folders", {"image_dir": "../06_fib25_neurons_png/images"},
        [("20_3d_sparse_slices_fib25", (1, 125, 250, 250), True)],
    ),
    "21_2d_rgb_hela": (
        "images", {}, [
            ("hela-cells", (3, 1, 512, 672), False), ("IXMtest_A02_s9", (3, 1, 395, 695), False),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_data_is_found_and_opens(real_data: Callable[[str], Path], name: str):
    layout, options, wanted = REAL[name]
    cases = find_cases(real_data(name), **options)
    assert cases.layout == layout
    found = [(case.name, case.open_image().shape, case.label is not None) for case in cases]
    assert found == wanted
    for case in (case for case in cases if case.label is not None):
        assert case.open_label().shape[1:] == case.open_image().shape[1:]
    if name == "20_3d_sparse_slices_fib25":
        assert cases[0].open_mask().shape == cases[0].open_image().shape


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("04_qcanet_embryo_nuclei3d", "labels_binary, labels_centers, labels_instances"),
        ("17_2d_sparse_maize", "annotation_sparse, labels_dense"),
        ("07_connectomics_neurons_labels_only", "labels may hold labels, but no folder is called"),
        ("18_multichannel_planes_points_cellfinder", "list the cases by hand"),
    ],
)
def test_real_data_that_is_ambiguous_is_refused(real_data, name, message):
    with pytest.raises(SourceError, match=message):
        find_cases(real_data(name))


def test_real_channel_folders_are_one_image_by_list(real_data):
    root = real_data("18_multichannel_planes_points_cellfinder")
    entry = {"name": "brain", "image": ["ch0", "ch1"], "spacing": (5, 2, 2)}
    (case,) = cases_from_entries([entry], root)
    image = case.open_image()
    assert image.shape == (2, 6, 510, 667)
    assert image.spacing == (5.0, 2.0, 2.0)
    assert image.read().max(axis=(1, 2, 3)).tolist() == [16075, 15936]


def test_case_is_plain_data():
    case = Case("a", (FileRef(Path("a.tif")),))
    assert Case.from_dict(case.to_dict()) == case
    assert str(FileRef(Path("a.h5"), "raw")) == "a.h5::raw"


# where image and label lie, and links to other files


def _a_flipped_pair(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """NIfTI image and label of which the label is stored mirrored in x and with a margin."""
    import nibabel

    image = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    label = (image > 50).astype(np.uint8)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    affine = np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = [7, -1, -3]
    wide = np.pad(label, ((3, 0), (1, 2), (2, 2)))[:, :, ::-1]
    nibabel.save(nibabel.Nifti1Image(image.T, np.eye(4)), root / "images/a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(wide.T, affine), root / "labels/a.nii.gz")
    return image, label


def test_labels_come_to_the_image_by_their_header_where_that_is_asked_for(tmp_path: Path) -> None:
    image, label = _a_flipped_pair(tmp_path)
    (case,) = find_cases(tmp_path).read_as(geometry="header")
    opened = case.open_label()
    assert opened is not None
    assert np.array_equal(case.open_image().read()[0], image)
    assert np.array_equal(opened.read()[0], label)
    assert Case.from_dict(case.to_dict()) == case
    (as_stored,) = find_cases(tmp_path).read_as(geometry="stored")
    stored = as_stored.open_label()
    assert stored is not None
    assert stored.shape == (1, 7, 8, 10)


def test_a_mask_and_channels_come_to_the_image_too(tmp_path: Path) -> None:
    image, label = _a_flipped_pair(tmp_path)
    refs = FileRef(tmp_path / "images/a.nii.gz"), FileRef(tmp_path / "labels/a.nii.gz")
    case = Case("a", refs, mask=refs[1], label=refs[1], ignore=(7,), geometry="header")
    mask = case.open_mask()
    assert mask is not None
    assert np.array_equal(mask.read()[0] > 0, label > 0)
    assert np.array_equal(case.open_image().read(), [image, label])


def test_other_files_are_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones((3, 4, 5), np.uint8)
    (tmp_path / "set").mkdir()
    with h5py.File(tmp_path / "set/a.h5", "w") as file:
        file["raw"] = np.ones((3, 4, 5), np.uint8)
        file["label"] = h5py.ExternalLink("../other.h5", "x")
    (case,) = find_cases(tmp_path / "set")
    with pytest.raises(SourceError, match=r"other\.h5.*allow_external"):
        case.open_label()
    (case,) = find_cases(tmp_path / "set", allow_external=True)
    label = case.open_label()
    assert label is not None
    assert label.read().sum() == 60


def test_pairing_images_and_labels_compares_each_name_a_bounded_number_of_times() -> None:
    from volprep.cases.naming import partner_stems

    class Name(str):
        looks = 0

        def __eq__(self, other: object) -> bool:
            Name.looks += 1
            return str.__eq__(self, other)  # type: ignore[arg-type]

        __hash__ = str.__hash__

    looks = []
    for count in (100, 400):
        Name.looks = 0
        images = [Name(f"c{n}") for n in range(count)]
        assert len(partner_stems(images, [Name(f"c{n}") for n in range(count)])) == count
        looks.append(Name.looks)
    assert looks[1] <= 5 * looks[0]
