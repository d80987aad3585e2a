"""Cases: the layouts people have are found, and doubtful ones are refused with the option."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from volprep.cases import LAYOUTS, Case, Cases, FileRef, cases_from_entries, find_cases, group_of
from volprep.cases.naming import bare_stem, partner_stems, role_of, runs
from volprep.errors import ConfigError, SourceError

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
    assert cases.notices == ()


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
    assert cases.notices == ("1 of 2 images have no label: b",)


def test_masks_may_be_labels_and_are_chosen_by_option(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "masks/a.npy")
    with pytest.raises(SourceError, match="labels, masks"):
        find_cases(tmp_path)
    case = find_cases(tmp_path, label_dir="labels", mask_dir="masks").named("a")
    assert case.mask.path.parent.name == "masks"
    assert find_cases(tmp_path, mask_dir="masks").named("a").label.path.parent.name == "labels"


def test_labels_that_belong_to_no_image_are_told(tmp_path):
    put(tmp_path, "images/a.npy", "labels/a.npy", "labels/z.npy")
    assert find_cases(tmp_path).notices == ("1 labels have no image and are left out: z",)
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
    assert cases.notices == (
        "images/: 4 TIF of 4x4 with running numbers read as one stack; "
        "set `slices: false` for separate images",
    )
    apart = find_cases(root, slices=False)
    assert [case.name for case in apart] == ["s.8", "s.9", "s.10", "s.11"]
    assert apart.notices == ("images/: read as `slices: false` says",)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["1.tif", "2.tif"], "two files are few"),
        (["1.tif", "2.tif", "4.tif"], "a number is missing"),
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
    assert cases.notices == ("1 of 3 images have no label: only",)


@pytest.mark.parametrize("image", ["_img", "-image", ".raw", ""])
@pytest.mark.parametrize("label", ["_masks", "-label", ".seg", "_gt"])
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
    assert find_cases(tmp_path / "c.tif").notices == ("1 of 1 images have no label: c",)


def test_images_alone_are_cases_without_labels(tmp_path):
    put(tmp_path, "a.npy", "b.npy", "notes.txt")
    cases = find_cases(tmp_path)
    assert cases.layout == "images"
    assert cases.notices == ("2 of 2 images have no label: a, b",)
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
    assert "imagesTs/: test images are left alone" in cases.notices


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
    with pytest.raises(SourceError, match="no such file or folder"):
        find_cases(tmp_path / "gone")
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
    with pytest.raises(ConfigError, match=r"'sufix' is none of .*; did you mean 'suffix'\?"):
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
    assert Cases.from_dict(json.loads(json.dumps(cases.to_dict()))) == cases
    with pytest.raises(KeyError, match="did you mean 'a'"):
        cases.named("aa")


def test_groups_are_the_first_group_of_the_match():
    assert group_of("mouse12_left", r"mouse(\d+)") == "12"
    assert group_of("mouse12_left", r"[a-z]+") == "mouse"
    assert group_of("anything", None) is None


def test_every_layout_says_what_it_is():
    assert all(recognise.__doc__ for recognise in LAYOUTS.values())


@given(st.text("ab.1é _-()", min_size=1, max_size=8), st.sampled_from(["_mask", ".labels", "-seg"]))
def test_bare_stems_pair_any_name_with_its_label(base, word):
    stem = bare_stem(base)
    assert bare_stem(stem + word) == stem
    assert partner_stems([stem], [stem + word]) == {stem: stem + word}
    assert role_of(Path(f"{stem}{word}.tif")) == (stem, "label")


@given(st.integers(0, 300), st.integers(1, 3), st.integers(3, 9), st.booleans(), st.randoms())
def test_numbers_run_in_any_order_and_padding(first, step, count, padded, random):
    numbers = [first + step * index for index in range(count)]
    files = [Path(f"s{n:05d}_x.png" if padded else f"s{n}_x.png") for n in numbers]
    random.shuffle(files)
    assert runs(files)
    assert not runs([*files, Path(f"s{numbers[-1] + step + 1}_x.png")])
    assert not runs([*files, Path("t.png")])


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
