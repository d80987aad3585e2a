"""The whole way: a folder of volumes in, a patch set out, and never a wrong voxel."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from volprep import open_volume, pipeline
from volprep.config import Config, load_config, load_training_config, load_yaml
from volprep.errors import (
    DataCheckError,
    PlanError,
    SourceError,
    StoreError,
    VolprepError,
)
from volprep.ledger import LEDGER, MANIFEST, Records
from volprep.loader import PatchDataset, dataloader
from volprep.loader.recipe import number_classes
from volprep.store import PatchStore, load_json, verify_set

SHAPE = (12, 40, 36)


def make_volume(
    seed: int, shape: tuple[int, int, int] = SHAPE
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint32)
    for number in range(1, 9):
        z, y, x = (int(rng.integers(0, n - 4)) for n in shape)
        label[z : z + 4, y : y + 6, x : x + 6] = number + 2**24 * (number % 2)
    image = (rng.integers(0, 300, shape) + 1000 * (label > 0)).astype(np.uint16)
    return image, label


def write_pair(folder: Path, name: str, image: Any, label: Any) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    meta = {"axes": "ZYX", "spacing": 0.3, "unit": "um"}
    tifffile.imwrite(
        folder / "images" / f"{name}.tif", image, imagej=True, resolution=(10, 10), metadata=meta
    )
    tifffile.imwrite(folder / "labels" / f"{name}.tif", label)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        write_pair(tmp_path / "data", f"cell {number} µ", *make_volume(number))
    return tmp_path


def configure(folder: Path, text: str = "", name: str = "c.yaml") -> Config:
    path = folder / name
    if "data:" not in text:
        text = "data: {root: data}\n" + text
    if "plan:" not in text:
        text += "\nplan: {patch_size: [8, 16, 16], batch_size: 2, aug_patch_size: [8, 22, 22]}\n"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def digest(path: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            total.update(file.relative_to(path).as_posix().encode() + file.read_bytes())
    return total.hexdigest()


def volumes(folder: Path) -> dict[str, tuple[Any, Any]]:
    return {
        path.stem: (tifffile.imread(path), tifffile.imread(folder / "data/labels" / path.name))
        for path in (folder / "data/images").iterdir()
    }


def test_every_stored_patch_is_the_region_of_its_source(folder: Path) -> None:
    pipeline.prepare(configure(folder))
    source = volumes(folder)
    for split in ("train", "val"):
        dataset = PatchDataset(folder / "patches", split, patch_size=None, normalise=False)
        assert len(dataset) > 0
        for sample in (dataset[i] for i in range(len(dataset))):
            image, label = source[dataset.cases[sample["case"]]]
            size = sample["label"].shape
            where = tuple(slice(s, s + n) for s, n in zip(sample["start"], size, strict=True))
            assert not sample["pad"].any()
            np.testing.assert_array_equal(sample["image"][0], image[where])
            np.testing.assert_array_equal(sample["label"], label[where])
            assert sample["image"].numpy().dtype == np.uint16


def test_image_comes_normalised_as_train_yaml_says(folder: Path) -> None:
    store = pipeline.prepare(configure(folder))
    rule = load_training_config(store.path / "train.yaml").normalisation
    raw = PatchDataset(store.path, patch_size=None, normalise=False)[3]["image"].numpy()
    ready = PatchDataset(store.path, patch_size=None)[3]["image"].numpy()
    assert rule.clip is not None
    expected = (np.clip(raw.astype(float), *rule.clip[0]) - rule.offset[0]) / rule.scale[0]
    np.testing.assert_allclose(ready, expected, rtol=1e-5, atol=1e-6)


def test_statistics_come_from_training_cases_alone(folder: Path) -> None:
    store = pipeline.prepare(configure(folder, "preprocess: {clip: null, normalise: zscore}\n"))
    splits = json.loads((store.path / "splits.json").read_text())
    source = volumes(folder)
    train = np.concatenate([source[part["case"]][0].ravel() for part in splits["train"]])
    rule = load_training_config(store.path / "train.yaml").normalisation
    assert rule.offset[0] == pytest.approx(train.mean(), rel=1e-12)
    assert rule.scale[0] == pytest.approx(train.std(), rel=1e-12)
    assert not {p["case"] for p in splits["train"]} & {p["case"] for p in splits["val"]}


def test_two_runs_and_any_number_of_workers_give_the_same_bytes(folder: Path) -> None:
    hashes = set()
    for name, workers in (("a", 1), ("b", 2), ("c", 2)):
        text = f"output: {{dir: {name}}}\ncompute: {{workers: {workers}}}\n"
        pipeline.prepare(configure(folder, text))
        hashes.add(digest(folder / name / "patches"))
    assert len(hashes) == 1


def test_another_seed_gives_other_patches(folder: Path) -> None:
    for seed in (0, 1):
        pipeline.prepare(configure(folder, f"seed: {seed}\noutput: {{dir: s{seed}}}\n"))
    assert digest(folder / "s0" / "patches") != digest(folder / "s1" / "patches")


def test_train_yaml_loads_back_to_the_manifest(folder: Path) -> None:
    store = pipeline.prepare(configure(folder))
    training = load_training_config(store.path / "train.yaml")
    assert training.model_dump(mode="json") == store.manifest["training"]
    assert training.patch_size == (8, 16, 16)
    assert training.spacing == pytest.approx((0.3, 0.1, 0.1))
    for name in ("config.resolved.yaml", "fingerprint.json", "plan.yaml", "splits.json"):
        assert (store.path / name).exists()
    assert load_config(store.path / "config.resolved.yaml") == configure(folder)
    for described in store.manifest["inputs"]:
        data = Path(described["path"]).read_bytes()
        assert described["sha256"] == hashlib.sha256(data).hexdigest()
        assert described["size"] == len(data)


def test_volume_smaller_than_a_patch_is_padded_and_the_pad_recorded(tmp_path: Path) -> None:
    for number in range(3):
        image, label = make_volume(number, (5, 30, 12))
        write_pair(tmp_path / "data", f"v{number}", image, label)
    store = pipeline.prepare(configure(tmp_path))
    source = volumes(tmp_path)
    dataset = PatchDataset(store.path, "train", patch_size=None, normalise=False)
    for sample in (dataset[i] for i in range(len(dataset))):
        image, label = source[dataset.cases[sample["case"]]]
        before, after = sample["pad"][:, 0].numpy(), sample["pad"][:, 1].numpy()
        size = np.array(sample["label"].shape)
        inner = tuple(slice(b, n - a) for b, a, n in zip(before, after, size, strict=True))
        start = sample["start"].numpy() + before
        where = tuple(
            slice(s, s + n - b - a) for s, n, b, a in zip(start, size, before, after, strict=True)
        )
        np.testing.assert_array_equal(sample["image"][0][inner], image[where])
        np.testing.assert_array_equal(sample["label"][inner], label[where])
        assert before[0] + after[0] == 3
    assert dataset[0]["image"].shape == (1, 8, 22, 16)


def test_single_volume_holds_out_a_block_that_training_never_sees(tmp_path: Path) -> None:
    write_pair(tmp_path / "data", "only", *make_volume(0, (8, 160, 40)))
    store = pipeline.prepare(configure(tmp_path))
    seen = {}
    for split in ("train", "val"):
        dataset = PatchDataset(store.path, split, patch_size=None)
        seen[split] = np.zeros((8, 160, 40), bool)
        for sample in (dataset[i] for i in range(len(dataset))):
            pad = sample["pad"].numpy()
            low = sample["start"].numpy() + pad[:, 0]
            high = sample["start"].numpy() + sample["label"].shape - pad[:, 1]
            seen[split][tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    assert seen["val"].any()
    assert not (seen["train"] & seen["val"]).any()
    rows = {split: np.flatnonzero(mask.any(axis=(0, 2))) for split, mask in seen.items()}
    distance = np.abs(rows["train"][:, None] - rows["val"][None]).min()
    assert distance > 16, "the gap is at least one patch"


def test_samples_are_the_same_for_any_number_of_workers(folder: Path) -> None:
    store = pipeline.prepare(configure(folder))

    def samples(**options: Any) -> list[bytes]:
        loader = dataloader(store.path, steps=None, **options)
        return [b["image"].numpy().tobytes() for _ in range(2) for b in loader]

    plain = samples()
    half = len(plain) // 2
    assert plain[:half] != plain[half:], "the second epoch is another one"
    assert samples(num_workers=2, multiprocessing_context="fork") == plain
    assert samples(num_workers=1, multiprocessing_context="spawn") == plain


def test_dataset_is_indexed_like_a_sequence(folder: Path) -> None:
    dataset = PatchDataset(pipeline.prepare(configure(folder)).path)
    assert dataset[-1]["index"] == len(dataset) - 1
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    assert [s["index"] for s in dataset] == list(range(len(dataset)))
    with pytest.raises(ValueError, match="larger than the stored"):
        PatchDataset(folder / "patches", patch_size=(99, 8, 8))


def test_classes_are_counted_and_can_come_as_indices(tmp_path: Path) -> None:
    for number in range(3):
        image, label = make_volume(number)
        write_pair(tmp_path / "data", f"v{number}", image, ((label > 0) * 255).astype(np.uint8))
    text = "data: {root: data, label_kind: classes}\npatching: {foreground: {per: class}}\n"
    store = pipeline.prepare(configure(tmp_path, text))
    training = load_training_config(store.path / "train.yaml")
    assert training.class_values == [0, 255]
    assert training.n_classes == 2
    assert training.class_names == ["background", "class 255"]
    assert set(np.unique(PatchDataset(store.path, class_index=False)[0]["label"])) <= {0, 255}
    stored = PatchDataset(store.path, class_index=False)[0]["label"]
    assert ((PatchDataset(store.path)[0]["label"] == 1) == (stored == 255)).all()


def test_no_background_is_invented_and_the_unknown_is_ignored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.array([33, 65, 201, 231], np.uint8)
    for n in range(3):
        label = values[rng.choice(4, (16, 32, 32), p=[0.1, 0.2, 0.3, 0.4])]
        write_pair(tmp_path / "data", f"c{n}", label * 2, label)
    config = configure(tmp_path, "data: {root: data, label_kind: classes}\n")
    store = pipeline.prepare(config)
    training = load_training_config(store.path / "train.yaml")
    assert (training.n_classes, training.class_values) == (4, [33, 65, 201, 231])
    assert training.class_frequencies == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)
    dataset = PatchDataset(store.path)
    sample, stored = dataset[0], PatchDataset(store.path, class_index=False)[0]["label"].numpy()
    np.testing.assert_array_equal(values[sample["label"].numpy()], stored)
    raw = np.array([[33, 34], [0, 231]], np.uint8)
    for dtype in (np.uint8, np.int16, np.uint32, np.int64):
        numbered = np.empty(raw.shape, np.int64)
        number_classes(raw.astype(dtype), np.array([33, 65, 201, 231]), -1, numbered)
        assert numbered.tolist() == [[0, -1], [-1, 3]]


def test_classes_of_one_side_of_the_split_alone_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        label = np.zeros((6, 16, 16), np.uint8)
        label[:3], label[4:, :8] = 1, 2 + number
        image = rng.integers(0, 255, label.shape).astype(np.uint8)
        write_pair(tmp_path / "data", str(number), image, label)
    text = (
        "data: {root: data, label_kind: classes, spacing: [1, 1, 1]}\nsplit: {fraction: 0.25}\n"
        "plan: {patch_size: [4, 8, 8]}\n"
    )
    out = pipeline.prepare(configure(tmp_path, text)).path
    found = {each["name"]: each["found"] for each in load_json(out / "findings.json")["findings"]}
    (held,) = load_json(out / "splits.json")["val"]
    mine = 2 + int(held["case"])
    others = ", ".join(f"class {value}" for value in range(2, 6) if value != mine)
    assert found["class-untrained"] == f"class {mine} does not occur in the training part"
    assert found["class-unvalidated"] == f"{others} do not occur in the validation part"


def test_what_is_not_annotated_is_ignored_where_labels_are_classes(tmp_path: Path) -> None:
    label = np.zeros((16, 32, 32), np.uint8)
    label[:8] = 2
    mask = np.ones_like(label)
    mask[:, 20:] = 0
    for n in range(2):
        write_pair(tmp_path / "data", f"c{n}", label * 9 + n, label)
        (tmp_path / "data/masks").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"data/masks/c{n}.tif", mask)
    text = "data: {root: data, label_kind: classes, mask_dir: masks}\n"
    text += "plan: {patch_size: [16, 32, 32]}\n"
    store = pipeline.prepare(configure(tmp_path, text))
    sample = PatchDataset(store.path)[0]
    assert (sample["label"] == -1).eq(~sample["mask"]).all()
    assert (sample["label"] == -1).any()
    assert load_training_config(store.path / "train.yaml").ignore_index == -1


def test_resampled_patches_equal_the_resampled_case(folder: Path) -> None:
    from volprep.preprocess import Preprocessing, ResampledVolume, resample_labels
    from volprep.sources import open_volume

    store = pipeline.prepare(
        configure(folder, "preprocess: {target_spacing: [0.3, 0.15, 0.15], normalise: none}\n")
    )
    dataset = PatchDataset(store.path, "train", patch_size=None, normalise=False)
    assert (folder / "patches" / "volumes").exists(), "another patch size will not resample again"
    assert Preprocessing().target is None
    for sample in (dataset[i] for i in range(0, len(dataset), 5)):
        name = dataset.cases[sample["case"]]
        volume = open_volume(folder / f"data/images/{name}.tif")
        resampled = ResampledVolume(volume, (0.3, 0.15, 0.15)).read()[0]
        label = tifffile.imread(folder / f"data/labels/{name}.tif")
        size = sample["label"].shape
        low = sample["start"].numpy() + sample["pad"][:, 0].numpy()
        pad = sample["pad"].numpy()
        where = tuple(slice(a, a + n - p.sum()) for a, n, p in zip(low, size, pad, strict=True))
        inner = tuple(slice(p[0], n - p[1]) for p, n in zip(pad, size, strict=True))
        np.testing.assert_array_equal(sample["image"][0][inner], resampled[where])
        np.testing.assert_array_equal(
            sample["label"][inner], resample_labels(label, resampled.shape)[where]
        )


class Interrupting:
    """A reporter that is interrupted at its n-th step."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def __call__(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            if title.startswith("patches"):
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt

        yield advance


def test_interrupted_run_goes_on_and_ends_in_the_same_bytes(folder: Path) -> None:
    text = "patching: {patches_per_case: 90}\ncompute: {workers: 1}\n"
    with pytest.raises(KeyboardInterrupt):
        pipeline.prepare(configure(folder, text), reporter=Interrupting(2))
    assert not (folder / "patches").exists()
    shards = list((folder / "patches.partial").rglob("c/0/0/0/0/0"))
    assert shards
    made = [(path, path.stat().st_mtime_ns) for path in shards]
    with pytest.raises(StoreError, match="incomplete"):
        PatchStore(folder / "patches")
    pipeline.prepare(configure(folder, text))
    assert not (folder / "patches.partial").exists()
    for path, mtime in made:
        final = folder / "patches" / path.relative_to(folder / "patches.partial")
        assert final.stat().st_mtime_ns == mtime
    pipeline.prepare(configure(folder, text + "output: {dir: straight}\n"))
    assert digest(folder / "patches/patches") == digest(folder / "straight/patches")


def test_same_config_again_does_nothing_and_another_is_refused(folder: Path) -> None:
    store = pipeline.prepare(configure(folder))
    before = digest(store.path)
    pipeline.prepare(configure(folder))
    assert digest(store.path) == before
    with pytest.raises(StoreError, match="--overwrite"):
        pipeline.prepare(configure(folder, "seed: 5\n"))
    assert digest(store.path) == before
    pipeline.prepare(configure(folder, "seed: 5\n"), overwrite=True)
    assert PatchStore(store.path).manifest["training"]["seed"] == 5


def test_changed_input_makes_the_set_stale(folder: Path) -> None:
    pipeline.prepare(configure(folder))
    image, label = make_volume(9)
    write_pair(folder / "data", "cell 0 µ", image, label)
    with pytest.raises(StoreError, match="other files"):
        pipeline.prepare(configure(folder))


def test_folder_of_somebody_else_is_never_touched(folder: Path) -> None:
    (folder / "patches").mkdir()
    (folder / "patches" / "thesis.txt").write_text("dear")
    with pytest.raises(StoreError, match="no patch set"):
        pipeline.prepare(configure(folder), overwrite=True)
    assert (folder / "patches" / "thesis.txt").read_text() == "dear"


def broken_label_shape(folder: Path) -> None:
    _, label = make_volume(0)
    tifffile.imwrite(folder / "data/labels/cell 0 µ.tif", label[:-1])


def broken_fraction(folder: Path) -> None:
    _, label = make_volume(0)
    tifffile.imwrite(folder / "data/labels/cell 0 µ.tif", label.astype(np.float32) + 0.5)


def broken_negative(folder: Path) -> None:
    _, label = make_volume(0)
    tifffile.imwrite(folder / "data/labels/cell 0 µ.tif", -(label.astype(np.int32)))


def broken_truncated(folder: Path) -> None:
    path = folder / "data/images/cell 0 µ.tif"
    path.write_bytes(path.read_bytes()[:3000])


def broken_garbage(folder: Path) -> None:
    (folder / "data/images/cell 0 µ.tif").write_bytes(b"no tiff at all")


def broken_mixed(folder: Path) -> None:
    image, label = make_volume(0)
    tifffile.imwrite(folder / "data/images/cell 0 µ.tif", image[0])
    tifffile.imwrite(folder / "data/labels/cell 0 µ.tif", label[0])


def broken_missing(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder / "data")


@pytest.mark.parametrize(
    ("spoil", "family", "words"),
    [
        (broken_label_shape, (DataCheckError,), ["cell 0 µ", "11", "12"]),
        (broken_fraction, (SourceError, DataCheckError), ["cell 0 µ"]),
        (broken_negative, (SourceError, DataCheckError), ["cell 0 µ", "-"]),
        (broken_truncated, (SourceError, DataCheckError), ["cell 0 µ"]),
        (broken_garbage, (SourceError, DataCheckError), ["cell 0 µ"]),
        (broken_mixed, (DataCheckError,), ["2D", "3D"]),
        (broken_missing, (SourceError,), ["no such file"]),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    folder: Path,
    spoil: Callable[[Path], None],
    family: tuple[type[VolprepError], ...],
    words: list[str],
) -> None:
    spoil(folder)
    with pytest.raises(family) as error:
        pipeline.prepare(configure(folder))
    for word in words:
        assert word in str(error.value)
    assert not (folder / "patches").exists()
    assert not (folder / "patches.partial").exists()


def test_patch_beyond_memory_is_a_plan_error(folder: Path) -> None:
    plan = "plan: {patch_size: [180, 600, 540], batch_size: 2, memory: 1000TiB}\n"
    with pytest.raises(PlanError, match="of memory, the limit is"):
        pipeline.prepare(configure(folder, f"{plan}compute: {{memory: 200MiB}}\n"))
    assert not (folder / "patches.partial").exists()  # it is known before anything is made


def test_skeleton_offsets_lead_to_the_instances_own_points(folder: Path) -> None:
    from volprep.skeletons import Skeletons

    text = "skeletons: {enabled: true, average: false}\naugment: [flip, rotate]\n"
    store = pipeline.prepare(configure(folder, text))
    for options in ({}, {"augment": True}):
        dataset = PatchDataset(store.path, **options)
        for sample in (dataset[i] for i in range(0, len(dataset), 3)):
            label, offset = sample["label"].numpy(), sample["offset"].numpy()
            assert offset.shape == (3, *label.shape)
            assert not offset[:, label == 0].any()
            assert sample["skeleton_mask"].shape == label.shape
            if options:
                continue
            points = Skeletons.from_file(
                store.path / "skeletons" / f"{dataset.cases[sample['case']]}.npz"
            )
            weight = np.array([3.0, 1.0, 1.0])
            for voxel in np.argwhere(label)[::50]:
                own = points[int(label[tuple(voxel)])] - sample["start"].numpy()
                away = ((own - voxel) * weight) ** 2
                nearest = own[np.argmin(away.sum(axis=1))] - voxel
                np.testing.assert_allclose(offset[(slice(None), *voxel)], nearest, atol=1e-5)


def test_prepare_tells_which_skeletons_are_one_point(tmp_path: Path) -> None:
    label = np.zeros((16, 32, 32), np.uint8)
    label[6:10, 4:8, 2:30] = 1  # as thick as an even number of voxels, and long
    label[10, 24, 24] = 2
    for name in ("a", "b"):
        for kind, volume in (("images", label * 50), ("labels", label)):
            (tmp_path / kind).mkdir(exist_ok=True)
            np.save(tmp_path / kind / f"{name}.npy", volume)
        label = np.flip(label)
    text = (
        f"data: {{root: {tmp_path}, spacing: [1, 1, 1]}}\nskeletons: {{enabled: true}}\n"
        f"plan: {{patch_size: [8, 16, 16]}}\noutput: {{dir: {tmp_path / 'out'}}}\n"
    )
    (tmp_path / "v.yaml").write_text(text)
    store = pipeline.prepare(tmp_path / "v.yaml")
    counts = {"components": 2, "smallest": 1, "fell_back": 1}
    assert store.manifest["skeletons"] == {"a": counts, "b": counts}
    told = json.loads((store.path / "findings.json").read_text())["findings"]
    found = [each["found"] for each in told if each["name"] == "skeleton-point"]
    assert len(found) == 2
    assert all("1 of 2 components" in text for text in found)


def test_skeletons_of_classes_are_refused(folder: Path) -> None:
    text = "data: {root: data, label_kind: classes}\nskeletons: {enabled: true}\n"
    with pytest.raises(VolprepError, match="instances"):
        pipeline.prepare(configure(folder, text))


def test_image_of_zeros_index_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(2):
        image, _ = make_volume(number, (8, 16, 16))
        tifffile.imwrite(tmp_path / f"data/v{number}.tif", image, metadata={"axes": "ZYX"})
    plan = "plan: {patch_size: [8, 16, 16], aug_patch_size: [8, 16, 16], batch_size: 1}\n"
    text = plan + "patching: {patches_per_case: 1}\nsplit: {fraction: 0.5}\n"
    store = pipeline.prepare(configure(tmp_path, text))
    assert len(PatchDataset(store.path, "train")) == 1
    assert "label" not in PatchDataset(store.path, "train")[0]


def test_damaged_set_is_named_and_made_anew(folder: Path) -> None:
    store = pipeline.prepare(configure(folder))
    before = digest(store.path / "patches")
    shard = store.path / "patches/train.zarr/image/c/0/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[60] ^= 1
    shard.write_bytes(data)
    (store.path / "train.yaml").write_text("n_channels: 9")
    found = list(map(str, verify_set(store.path)))
    assert any("train.yaml" in line for line in found)
    assert any("image/c/0" in line and "patch 0 of train" in line for line in found)
    again = pipeline.prepare(configure(folder), overwrite=True)
    assert not list(verify_set(again.path))
    assert digest(again.path / "patches") == before


def test_two_prepares_never_share_a_folder(folder: Path) -> None:
    from volprep.ledger import Ledger

    config = configure(folder)
    with Ledger(folder / "patches.partial"), pytest.raises(StoreError, match="another"):
        pipeline.prepare(config)
    pipeline.prepare(config)
    assert sorted(p.name for p in folder.iterdir()) == ["c.yaml", "data", "patches"]


def test_not_a_number_in_an_image_is_refused(folder: Path) -> None:
    image, _ = make_volume(0)
    spoiled = image.astype(np.float32)
    spoiled[1, 2, 3] = np.nan
    tifffile.imwrite(folder / "data/images/cell 0 µ.tif", spoiled, metadata={"axes": "ZYX"})
    with pytest.raises(DataCheckError, match="NaN"):
        pipeline.prepare(configure(folder))


def test_case_without_label_is_left_out_and_said_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "data/labels/cell 1 µ.tif").unlink()
    store = pipeline.prepare(configure(folder))
    assert store.manifest["cases"] == ["cell 0 µ", "cell 2 µ", "cell 3 µ"]
    assert "1 of 4 cases have no label and are left out: cell 1 µ" in caplog.text
    found = load_json(store.path / "findings.json")["findings"]
    assert sum("cell 1 µ" in each["found"] for each in found) == 1  # told once


def test_one_image_with_two_labels_stays_on_one_side(folder: Path) -> None:
    for seed in range(4):
        image, _ = make_volume(0)
        _, other = make_volume(7)
        write_pair(folder / "data", "cell 1 µ", image, other)
        store = pipeline.prepare(configure(folder, f"seed: {seed}\noutput: {{dir: t{seed}}}\n"))
        splits = json.loads((store.path / "splits.json").read_text())
        for side in ("train", "val"):
            names = {part["case"] for part in splits[side]}
            assert len(names & {"cell 0 µ", "cell 1 µ"}) != 1
        told = load_json(store.path / "findings.json")["findings"]
        assert "same-image" in {finding["name"] for finding in told}


def test_augmented_skeleton_samples_can_be_batched(folder: Path) -> None:
    text = "skeletons: {enabled: true}\naugment: [flip, rotate, elastic]\n"
    store = pipeline.prepare(configure(folder, text))
    batch = next(iter(dataloader(store.path)))
    assert batch["offset"].shape == (2, 3, 8, 16, 16)


def test_patches_that_are_mostly_padding_are_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = "plan: {patch_size: [32, 64, 64], aug_patch_size: [32, 64, 64], batch_size: 2}\n"
    store = pipeline.prepare(configure(folder, plan))
    assert "set plan.patch_size smaller" in caplog.text
    found = load_json(store.path / "findings.json")["findings"]
    assert "patches-padded" in {finding["name"] for finding in found}


def test_one_labelled_and_one_unlabelled_volume_become_a_set(tmp_path: Path) -> None:
    for number in range(2):
        write_pair(tmp_path / "data", f"v{number}", *make_volume(number, (8, 160, 40)))
    (tmp_path / "data/labels/v1.tif").unlink()
    config = configure(tmp_path)
    plan = pipeline.plan_of(config)
    store = pipeline.prepare(config)
    assert store.manifest["cases"] == ["v0"]
    assert {p["case"] for p in json.loads((store.path / "splits.json").read_text())["val"]} == {
        "v0"
    }
    assert load_yaml(store.path / "plan.yaml") == plan.to_dict()


def test_voxels_that_validate_are_not_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import volprep.pipeline.measure as measuring

    seen: list[str] = []
    original = measuring.compute_fingerprint

    def counting(inputs: Any, **options: Any) -> Any:
        if not options.get("headers_only"):
            seen.extend(each.name for each in inputs)
        return original(inputs, **options)

    monkeypatch.setattr(measuring, "compute_fingerprint", counting)
    store = pipeline.prepare(configure(folder))
    splits = json.loads((store.path / "splits.json").read_text())
    assert seen == [part["case"] for part in splits["train"]]


def test_a_group_by_hand_and_an_equal_image_join_all_their_cases(tmp_path: Path) -> None:
    for number in range(6):
        image, _ = make_volume(number % 4)  # 4 is 0 again, 5 is 1 again
        _, label = make_volume(number)
        write_pair(tmp_path / "data", f"v{number}", image, label)
    cases = [
        {"image": f"data/images/v{n}.tif", "label": f"data/labels/v{n}.tif", "group": group}
        for n, group in enumerate(["a", "b", None, None, "b", None])
    ]
    config = configure(tmp_path, f"data: {{cases: {json.dumps(cases)}}}\n")
    groups = {case.name: case.group for case in pipeline.chosen_cases(config)}
    assert groups["v0"] == groups["v4"] == groups["v1"] == groups["v5"]
    assert groups["v2"] is None


@pytest.mark.slow
def test_processes_give_the_bytes_of_threads(folder: Path) -> None:
    text = (
        "preprocess: {{target_spacing: [0.3, 0.15, 0.15]}}\nskeletons: {{enabled: true}}\n"
        "output: {{dir: {0}}}\ncompute: {{executor: {0}, workers: 2}}\n"
    )
    for executor in ("threads", "processes"):
        pipeline.prepare(configure(folder, text.format(executor)))
    assert digest(folder / "threads") == digest(folder / "processes")


def stages(folder: Path, text: str) -> dict[str, tuple[int, int]]:
    """What would be kept and made of each stage."""
    seen = pipeline.foresee(configure(folder, text))
    return {change.stage: (change.kept, change.redone) for change in seen.changes}


RESAMPLED = "target_spacing: [0.3, 0.15, 0.15]"
PLAN = "plan: {patch_size: [8, 16, 16], batch_size: 2, aug_patch_size: [8, 22, 22]}\n"


#: Changes of a config, what a dry run says is made again, and after what it can say no more.
CHANGES: dict[str, tuple[set[str], str | None]] = {
    "preprocess.clip=[2, 98]": ({"fingerprint"}, "fingerprint"),
    "preprocess.normalise=minmax": ({"describe"}, None),
    "augment=[{elastic: {p: 0.5}}]": ({"describe"}, None),
    "plan.batch_size=1": ({"describe"}, None),
    "findings.ignore=[few-positions]": ({"describe"}, None),
    "compute.workers=1": (set(), None),
    "data.root=moved": ({"describe"}, None),
    "split.gap=[1, 1, 1]": ({"check"}, "check"),
    "seed=3": ({"check", "fingerprint", "sites"}, "sites"),
    "plan.patch_size=[8, 8, 16]": ({"sites"}, "sites"),
    "patching.overlap=[0, 4, 4]": ({"sites"}, "sites"),
    "patching.pad_mode=edge": ({"patches/train", "patches/val", "describe"}, None),
    "output.compression=none": ({"patches/train", "patches/val", "describe"}, None),
    "output.store=volumes": ({"volumes", "sites"}, "sites"),
    "skeletons.enabled=false": ({"patches/train", "patches/val", "describe"}, None),
    "skeletons.radius=3": ({"patches/train", "patches/val", "describe"}, None),
    "preprocess.order=1": ({"volumes", "patches/train", "patches/val", "describe"}, None),
    "preprocess.target_spacing=[0.3, 0.2, 0.2]": ({"volumes", "skeletons", "sites"}, "sites"),
    "data.ignore=[1]": ({"check", "fingerprint", "volumes", "skeletons", "sites"}, "sites"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    for number in range(4):
        write_pair(folder / "data", f"cell {number}", *make_volume(number))
    shutil.copytree(folder / "data", folder / "moved")
    text = "skeletons: {enabled: true, average: false}\noutput: {dir: set}\n"
    pipeline.prepare(configure(folder, f"preprocess: {{{RESAMPLED}}}\n" + PLAN + text))
    return folder


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_ino) for p in paths}


def made_again(out: Path, before: dict[str, tuple[bytes, int]]) -> dict[str, tuple[int, int]]:
    """Units kept and made again of each stage, by the files that are others now."""
    now, found = files_of(out), dict[str, tuple[int, int]]()
    for record in Records(out / LEDGER):
        if record.files and record.unit.index != "index":
            anew = any(before.get(file.path) != now[file.path] for file in record.files)
            kept, redone = found.get(record.unit.stage, (0, 0))
            found[record.unit.stage] = (kept + (not anew), redone + anew)
    return found


#: The others are of the same kinds as these.
QUICK = ("preprocess.clip", "augment", "split.gap", "patching", "skeletons.enabled", "preprocess.o",
         "preprocess.t")  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, marks=[] if change.startswith(QUICK) else pytest.mark.slow)
        for change in CHANGES
    ],
)
def test_a_change_redoes_what_is_said_and_gives_the_bytes_of_a_new_run(
    finished: Path, tmp_path: Path, change: str
) -> None:
    def changed(out: str) -> Config:
        return pipeline.load_target(
            finished / "c.yaml", changes=[change, f"output.dir={tmp_path / out}"]
        )

    shutil.copytree(finished / "set", tmp_path / "set")
    shutil.copytree(finished / "set", tmp_path / "half.partial")
    (tmp_path / "half.partial" / MANIFEST).unlink()
    before = files_of(tmp_path / "set")
    seen, again = pipeline.foresee(changed("set")), pipeline.foresee(changed("half"))
    said = {each.stage: (each.kept, each.redone) for each in seen.changes}
    assert {each.stage: (each.kept, each.redone) for each in again.changes} == said
    assert ({stage for stage, (_, todo) in said.items() if todo}, seen.open) == CHANGES[change]
    if seen.costly:
        with pytest.raises(StoreError, match="--overwrite"):
            pipeline.prepare(changed("set"))
    assert files_of(tmp_path / "set") == before
    pipeline.prepare(changed("set"), overwrite=bool(seen.costly))
    did = made_again(tmp_path / "set", before)
    assert {stage: did[stage] for stage in said if stage in did} == {
        stage: units for stage, units in said.items() if stage not in ("check", "fingerprint")
    }
    pipeline.prepare(changed("anew"))
    anew, now = files_of(tmp_path / "anew"), files_of(tmp_path / "set")
    assert {name: data for name, (data, _) in now.items()} == {
        name: data for name, (data, _) in anew.items()
    }


def test_what_is_kept_and_why_is_told(folder: Path) -> None:
    text = f"preprocess: {{{RESAMPLED}}}\n" + PLAN
    pipeline.prepare(configure(folder, text))
    lines: list[str] = []
    other = f"preprocess: {{{RESAMPLED}}}\nplan: {{patch_size: [8, 16, 8], batch_size: 2}}\n"
    pipeline.prepare(configure(folder, other), overwrite=True, tell=lines.append)
    assert "volumes: 4 kept, 0 to do" in lines
    assert any(line.startswith("sites: 0 kept, 2 to do: plan.aug_patch_size") for line in lines)
    assert any("plan.patch_size changed" in line for line in lines)


def test_another_case_is_prepared_alone(folder: Path) -> None:
    text = f"preprocess: {{{RESAMPLED}}}\n" + PLAN
    pipeline.prepare(configure(folder, text))
    write_pair(folder / "data", "cell 9 µ", *make_volume(9))
    assert stages(folder, text)["volumes"] == (4, 1)
    pipeline.prepare(configure(folder, text), overwrite=True)
    pipeline.prepare(configure(folder, text + "output: {dir: anew}\n"))
    assert digest(folder / "anew" / "patches") == digest(folder / "patches" / "patches")


def test_touched_files_are_the_same_and_other_content_of_the_same_age_is_not(folder: Path) -> None:
    store = pipeline.prepare(configure(folder))
    before, path = digest(store.path), folder / "data/images/cell 0 µ.tif"
    os.utime(path, ns=(1, 1))
    pipeline.prepare(configure(folder))
    assert digest(store.path) == before
    state = path.stat()
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(StoreError, match="other files"):
        pipeline.prepare(configure(folder))


def other_bytes(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    return bytes(data)


def replaced(path: Path) -> None:
    """By another of the same size and age, under its name."""
    state, beside = path.stat(), path.with_suffix(".new")
    beside.write_bytes(other_bytes(path))
    os.utime(beside, ns=(state.st_atime_ns, state.st_mtime_ns))
    beside.replace(path)


def written(path: Path) -> None:
    """In place, and never shorter: what is cut short under a map may end the process."""
    data = other_bytes(path)
    with path.open("r+b") as file:
        file.write(data)


MEDDLING: tuple[Callable[[Path], object], ...] = (written, replaced, Path.unlink)


@pytest.mark.parametrize("executor", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_input_that_changes_during_the_run_is_an_error_or_seen_as_a_whole(
    folder: Path, executor: str
) -> None:
    path = folder / "data/images/cell 0 µ.tif"
    config = configure(folder, f"compute: {{executor: {executor}, workers: 2}}")
    for meddle in MEDDLING:
        for stage in ("check", "patches"):
            before, left, stages = path.read_bytes(), [0], [stage]

            @contextmanager
            def meddling(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
                def advance(count: int) -> None:
                    left[0] -= count  # noqa: B023
                    if left == [0] and stages and title.startswith(stages[0]):  # noqa: B023
                        stages.clear()  # noqa: B023
                        meddle(path)  # noqa: B023

                left[0] = total  # noqa: B023
                yield advance

            try:
                pipeline.prepare(config, reporter=meddling)
                told = ""
            except SourceError as error:
                told = str(error)
            assert (path.name in told) != (folder / "patches").exists()
            if not told:  # it has seen nothing but what is there now
                assert stage == "check"
                pipeline.prepare(configure(folder, "output: {dir: anew}"))
                assert digest(folder / "anew") == digest(folder / "patches")
                shutil.rmtree(folder / "anew")
                shutil.rmtree(folder / "patches")
            assert not stages
            path.write_bytes(before[:-9] + bytes([before[-9] ^ 2]) + before[-8:])
    pipeline.prepare(config)
    dataset = PatchDataset(folder / "patches", "train", patch_size=None, normalise=False)
    source = volumes(folder)
    for sample in (dataset[i] for i in range(len(dataset))):
        image, _ = source[dataset.cases[sample["case"]]]
        size = sample["label"].shape
        where = tuple(slice(s, s + n) for s, n in zip(sample["start"], size, strict=True))
        np.testing.assert_array_equal(sample["image"][0], image[where])


def test_a_file_that_was_cut_short_is_named_before_it_is_read(folder: Path) -> None:
    path = folder / "data/images/cell 0 µ.tif"
    volume = open_volume(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SourceError, match=re.escape(path.name)):
        volume.read()


def test_an_error_keeps_what_is_done(folder: Path) -> None:
    text = f"preprocess: {{{RESAMPLED}}}\n" + PLAN
    bad = text + "patching: {reject: {size_thres: 2048, p: 1.0}}\n"  # all of a patch
    with pytest.raises(VolprepError):
        pipeline.prepare(configure(folder, bad))
    assert stages(folder, text)["volumes"] == (4, 0)


def test_repair_gives_back_the_same_bytes(folder: Path) -> None:
    text = f"preprocess: {{{RESAMPLED}}}\nskeletons: {{enabled: true}}\n" + PLAN
    store = pipeline.prepare(configure(folder, text))
    before = digest(store.path)
    files = sorted(p for p in store.path.rglob("*") if p.is_file())
    for path in files[::7]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    (store.path / "stray").write_text("x")
    assert list(verify_set(store.path))
    pipeline.prepare(configure(folder, text), repair=True)
    assert digest(store.path) == before
