"""A set that keeps volumes: places drawn anew in every epoch, and only where the plan says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from volprep import pipeline
from volprep.config import load_config
from volprep.cutting import Drawing, PreparedCase, TrainingPlaces, read_block, read_patch
from volprep.errors import ConfigError, StoreError
from volprep.files import files_below
from volprep.geometry import Box, three
from volprep.loader import PatchDataset, PatchLoader, dataloader
from volprep.randomness import sample_generator
from volprep.sampling import Rejection, create_patch_filter
from volprep.store import PatchStore, verify_set

SHAPE = (14, 60, 44)


def write_cases(folder: Path, count: int = 3, *, mask: bool = False, wide: bool = False) -> None:
    for number in range(count):
        rng = np.random.default_rng(number)
        label = np.zeros(SHAPE, np.uint32)
        for instance in range(1, 6):
            z, y, x = (int(rng.integers(0, n - 4)) for n in SHAPE)
            label[z : z + 5, y : y + 9, x : x + 7] = instance * (70_000 if wide else 1)
        image = (rng.integers(0, 90, SHAPE) + 60 * (label > 0)).astype(np.uint8)
        arrays = {"images": image, "labels": label}
        if mask:
            valid = np.zeros(SHAPE, np.uint8)
            valid[3:11, 8:50, 5:30] = 1
            arrays["masks"] = valid
        for name, array in arrays.items():
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / "data" / name / f"c{number}.tif", array)


def configure(folder: Path, more: str = "", *, out: str = "out", store: str = "volumes") -> Any:
    masks = ", mask_dir: masks" if (folder / "data/masks").exists() else ""
    path = folder / f"{out}.yaml"
    path.write_text(
        f"data: {{root: data, spacing: [0.3, 0.1, 0.12], label_kind: instances{masks}}}\n"
        "plan: {patch_size: [4, 16, 16], aug_patch_size: [6, 22, 22], batch_size: 2}\n"
        f"output: {{dir: {out}, store: {store}}}\nepoch: {{steps: 8}}\n{more}"
    )
    return load_config(path)


def sources(folder: Path, kind: str) -> list[npt.NDArray[Any]]:
    return [tifffile.imread(path) for path in sorted((folder / "data" / kind).iterdir())]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_cases(folder, wide=True)
    for store in ("volumes", "patches"):
        pipeline.prepare(configure(folder, "skeletons: {enabled: true}\n", out=store, store=store))
    return folder


def test_validation_is_the_same_in_both_stores(made: Path) -> None:
    drawn, cut = (PatchDataset(made / store, "val") for store in ("volumes", "patches"))
    assert len(drawn) == len(cut) > 0
    for index in range(len(cut)):
        one, other = drawn[index], cut[index]
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(value), err_msg=name)


def test_training_samples_are_cut_where_they_say(made: Path) -> None:
    dataset = PatchDataset(made / "volumes", "train", normalise=False)
    images, labels = sources(made, "images"), sources(made, "labels")
    numbers = [int(name[1:]) for name in dataset.cases]
    for epoch, index in ((0, 0), (0, 7), (3, len(dataset) - 1), (5, 2)):
        sample = dataset[epoch, index]
        start, pad = sample["start"].tolist(), np.asarray(sample["pad"])
        assert not pad.any()
        where = Box.at(three(start), (4, 16, 16)).slices
        np.testing.assert_array_equal(sample["image"][0], images[numbers[sample["case"]]][where])
        np.testing.assert_array_equal(sample["label"], labels[numbers[sample["case"]]][where])


def test_every_epoch_draws_new_places_that_depend_on_seed_epoch_and_index_alone(made: Path) -> None:
    one, again = (PatchDataset(made / "volumes", "train") for _ in range(2))
    other = PatchDataset(made / "volumes", "train", seed=1)

    def places(dataset: PatchDataset, epoch: int) -> list[tuple[int, ...]]:
        samples = (dataset[epoch, i] for i in range(len(dataset)))
        return [(s["case"], *s["start"].tolist()) for s in samples]

    first = places(one, 0)
    assert first == places(again, 0)
    assert len(set(first)) > len(first) / 2
    for others in (places(one, 1), places(other, 0)):
        assert sum(a == b for a, b in zip(first, others, strict=True)) < len(first) / 4
    # Each case keeps its share of an epoch.
    assert [c for c, *_ in first] == [c for c, *_ in places(one, 1)]


def test_the_share_around_foreground_is_the_plans(tmp_path: Path) -> None:
    write_cases(tmp_path, 2)
    config = configure(tmp_path, "patching: {foreground: {p: 1.0}}\naugment: []\n")
    pipeline.prepare(config)
    dataset = PatchDataset(tmp_path / "out", "train", patch_size=None)
    assert all(dataset[epoch, i]["label"].any() for epoch in range(3) for i in range(len(dataset)))


@pytest.mark.parametrize("name", ["random", "stratified"])
def test_nothing_is_drawn_within_what_is_held_out_or_the_gap(tmp_path: Path, name: str) -> None:
    write_cases(tmp_path, 1)
    image = tmp_path / "data/images/c0.tif"
    tifffile.imwrite(image, np.tile(tifffile.imread(image), (4, 1, 1)))
    label = tmp_path / "data/labels/c0.tif"
    tifffile.imwrite(label, np.tile(tifffile.imread(label), (4, 1, 1)))
    pipeline.prepare(configure(tmp_path, f"patching: {{name: {name}}}\naugment: []\n"))
    splits = json.loads((tmp_path / "out/splits.json").read_text())
    blocks = [part["box"] for part in splits["train"]]
    assert all(blocks)
    dataset = PatchDataset(tmp_path / "out", "train", patch_size=None, augment=False)
    for epoch in range(4):
        for index in range(len(dataset)):
            sample = dataset[epoch, index]
            pad = np.asarray(sample["pad"])
            low = np.asarray(sample["start"]) + pad[:, 0]
            high = np.asarray(sample["start"]) + dataset.patch_size - pad[:, 1]
            assert any((low >= block[0]).all() and (high <= block[1]).all() for block in blocks), (
                low,
                high,
                blocks,
            )


def test_sparse_masks_are_respected_and_beyond_the_region_nothing_is_valid(tmp_path: Path) -> None:
    write_cases(tmp_path, 2, mask=True)
    pipeline.prepare(configure(tmp_path, "patching: {reject: {valid_ratio: 0.3}}\naugment: []\n"))
    dataset = PatchDataset(tmp_path / "out", "train", patch_size=None, normalise=False)
    shown = PatchDataset(tmp_path / "out", "train", normalise=False)
    masks = sources(tmp_path, "masks")
    numbers = [int(name[1:]) for name in dataset.cases]
    for epoch in range(3):
        for index in range(len(dataset)):
            assert shown[epoch, index]["mask"].double().mean() > 0.25, "of what lies in the region"
            sample = dataset[epoch, index]
            mask = np.asarray(sample["mask"])
            part = Box.at(three(sample["start"].tolist()), dataset.patch_size)
            inner = Box.whole(masks[0][None].shape).common(part)
            found = masks[numbers[sample["case"]]][inner.slices]
            assert mask.sum() == np.count_nonzero(found)


def test_a_grid_is_the_same_in_every_epoch(tmp_path: Path) -> None:
    write_cases(tmp_path, 2)
    grid = "patching: {name: sequential}\naugment: []\n"
    for store in ("volumes", "patches"):
        pipeline.prepare(configure(tmp_path, grid, out=store, store=store))
    drawn, cut = (
        PatchDataset(tmp_path / store, "train", patch_size=None) for store in ("volumes", "patches")
    )
    assert len(drawn) == len(cut) > 0
    for index in range(len(cut)):
        for epoch in (0, 3):
            np.testing.assert_array_equal(drawn[epoch, index]["label"], cut[index]["label"])
            np.testing.assert_array_equal(drawn[epoch, index]["start"], cut[index]["start"])


@pytest.mark.parametrize(
    ("more", "store"),
    [("", "volumes"), ("patching: {patches_per_case: 1}\n", "patches"),
     ("targets: [boundary]\n", "patches")],
)  # fmt: skip
def test_auto_takes_what_needs_less_room_and_says_why(
    tmp_path: Path, more: str, store: str
) -> None:
    write_cases(tmp_path, 3)
    given = "auto, targets: store" if "targets" in more else "auto"
    plan = pipeline.plan_of(configure(tmp_path, more, store=given))
    assert plan.store == store
    assert ("room" in plan.reasons["store"]) == ("targets" not in more)


def test_targets_cannot_be_stored_beside_volumes(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {root: .}\noutput: {store: volumes, targets: store}\n")
    with pytest.raises(ConfigError, match="belongs to store: patches"):
        load_config(path)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files_below(folder)}


@pytest.mark.parametrize("how", ["{workers: 3}", "{executor: processes, workers: 2}"])
def test_any_workers_give_the_same_bytes(made: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "data").symlink_to(made / "data")
    more = f"skeletons: {{enabled: true}}\ncompute: {how}\n"
    pipeline.prepare(configure(tmp_path, more, out="volumes"))
    one, other = tree(made / "volumes"), tree(tmp_path / "volumes")
    assert one.keys() == other.keys()
    # What says where the inputs lie is another, as it should be.
    apart = {"config.resolved.yaml", "manifest.json", "ledger.jsonl"}
    assert [n for n in one if n not in apart and one[n] != other[n]] == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills need fork")
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    write_cases(tmp_path, 2, mask=True, wide=True)
    config = (
        f"data: {{root: {tmp_path}/data, mask_dir: masks, spacing: [0.3, 0.1, 0.12], "
        "label_kind: instances}\nplan: {patch_size: [4, 16, 16], batch_size: 2}\naugment: []\n"
        "epoch: {steps: 2}\ncompute: {workers: 1}\n"
    )
    (tmp_path / "sets").mkdir()
    body = (
        "from pathlib import Path; from volprep.config import load_config; "
        "from volprep import pipeline; path = out.parent / (out.name + '.yaml'); "
        f"path.write_text({config!r} + f'output: {{{{dir: {{out}}, store: volumes}}}}\\n'); "
        "pipeline.prepare(load_config(path))"
    )
    script = Path(__file__).with_name("crashes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "sets"), "12", body],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] == 12
    assert found["wrong"] == []


def test_damage_is_found_and_mended_to_the_byte(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "volumes"
    for path in files_below(made / "volumes"):
        copy = out / path.relative_to(made / "volumes")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    before = tree(out)
    harmed = [
        out / "volumes/c0.ome.zarr/0/c/0/0/0/0",
        out / "volumes/c1.ome.zarr/labels/label/ids/c/0/0",
        out / "volumes/c2.ome.zarr/labels/zarr.json",
        out / "sites/train.npz",
        out / "sites/val.npy",
    ]
    for path in harmed:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert {fault.path for fault in verify_set(out)} == set(harmed)
    with pytest.raises(StoreError, match="damaged"):
        PatchDataset(out, "val")
    dataset = PatchDataset(out, "train")
    with pytest.raises(StoreError, match="damaged"):
        [dataset[e, i] for e in range(3) for i in range(len(dataset))]
    pipeline.repair(out)
    assert tree(out) == before


def test_a_set_made_anew_under_a_running_loader_is_an_error(tmp_path: Path) -> None:
    write_cases(tmp_path, 2)
    pipeline.prepare(configure(tmp_path))
    dataset = PatchDataset(tmp_path / "out", "train")
    write_cases(tmp_path, 2, wide=True)
    pipeline.prepare(configure(tmp_path), overwrite=True)
    with pytest.raises(StoreError, match="of another set"):
        [dataset[0, i] for i in range(len(dataset))]


def batches(loader: Any, count: int) -> list[dict[str, Any]]:
    found = []
    for batch in loader:
        found.append({name: np.asarray(value).copy() for name, value in batch.items()})
        if len(found) == count:
            break
    return found


def test_threads_ranks_and_processes_give_the_same_samples(made: Path) -> None:
    out = made / "volumes"
    whole = batches(dataloader(out, "train", threads=1, steps=6), 6)
    for found in (
        batches(dataloader(out, "train", threads=3, steps=6), 6),
        batches(dataloader(out, "train", num_workers=2, steps=6), 6),
    ):
        for one, other in zip(whole, found, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    dataset = PatchDataset(out, "train")
    ranks = [
        batches(PatchLoader(dataset, 1, threads=2, steps=6, rank=r, world_size=2), 6)
        for r in range(2)
    ]
    alone = batches(PatchLoader(dataset, 2, threads=1, steps=6), 6)
    for step, both in enumerate(alone):
        given = [ranks[r][step]["start"][0].tolist() for r in range(2)]
        assert given == both["start"].tolist()


def test_inspect_and_bench_loader_know_volumes(made: Path) -> None:
    def volprep(*arguments: str) -> Any:
        command = [sys.executable, "-m", "volprep", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    shown = volprep("inspect", str(made / "volumes"))
    assert shown["training"]["store"] == "volumes"
    of_train = [case["patches"] for case in shown["cases"] if case["split"] == "train"]
    assert sum(of_train) == shown["training"]["n_patches"]["train"]
    bench = volprep("bench-loader", str(made / "volumes"), "--threads", "1", "--seconds", "0.2")
    assert bench["speeds"][0]["patches_per_second"] > 0


def test_prepared_cases_are_opened_the_same_way_in_both_stores(made: Path) -> None:
    for one, other in zip(
        *(pipeline.open_prepared(made / store) for store in ("volumes", "patches")), strict=True
    ):
        assert one.name == other.name
        np.testing.assert_array_equal(one.image.read(), other.image.read())
        assert one.label is not None
        assert other.label is not None
        np.testing.assert_array_equal(one.label.read(), other.label.read())
        assert one.skeletons is not None
    with pytest.raises(StoreError, match=r"output\.store: volumes"):
        PatchStore(made / "patches").case("c0")
    with pytest.raises(StoreError, match="keeps volumes"):
        PatchStore(made / "volumes").split("train")


class Held:
    """An array as a volume."""

    spacing = None

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array, self.shape, self.dtype = array, three_and(array.shape), array.dtype

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        return self.array if box is None else self.array[(slice(None), *box.slices)]


def three_and(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    c, z, y, x = shape
    return c, z, y, x


@pytest.mark.parametrize(
    "drawing",
    [
        Drawing(foreground=0.5, per="voxel"),
        Drawing(foreground=1.0, connected=True),
        Drawing(
            "stratified",
            foreground=0.3,
            filter=create_patch_filter("mean_std", mean_threshold=40.0),
        ),
        Drawing("stratified", uniform=True, patches_per_case=7),
        Drawing(rejection=Rejection(30, 2, 0.9, None)),
    ],
    ids=str,
)
def test_places_that_were_saved_draw_the_same(tmp_path: Path, drawing: Drawing) -> None:
    rng = np.random.default_rng(3)
    cases = []
    for number in range(3):
        label = np.zeros((1, 20, 50, 40), np.uint16)
        label[0, 4:9, 10:30, 5:12], label[0, 12:15, 2:9, 20:33] = 1, 2
        mask = np.zeros((1, 20, 50, 40), bool)
        mask[0, 2:18, 4:40, 3:38] = True
        image = rng.integers(0, 90, (1, 20, 50, 40)).astype(np.uint8)
        image[0, :10] = 0
        cases.append(PreparedCase(str(number), Held(image), Held(label), Held(mask)))
    blocks = [(0, Box((0, 0, 0), (20, 25, 40))), (1, Box((0, 0, 0), (20, 50, 40))),
              (2, Box((3, 4, 5), (18, 50, 36)))]  # fmt: skip
    built = TrainingPlaces(blocks, (6, 12, 10), drawing, cases, weights=[1, 2, 1], held=1)
    for name in ("a", "b"):
        built.save(tmp_path / name, "key")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = TrainingPlaces.load(tmp_path / "a", cases, key="key")
    assert len(loaded) == len(built) > 0
    assert loaded.cases == built.cases
    for number in range(len(built)):
        for epoch in range(5):
            ones = (p.draw(number, sample_generator(0, epoch, number)) for p in (built, loaded))
            assert next(ones) == next(ones)
    with pytest.raises(StoreError, match="of another set"):
        TrainingPlaces.load(tmp_path / "a", cases, key="other")


@settings(max_examples=100)
@given(
    data=st.data(),
    mode=st.sampled_from(["reflect", "edge", "constant"]),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
)
def test_blocks_read_into_memory_are_those_that_are_padded(
    data: st.DataObject, mode: Any, shape: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 99, (2, *shape)).astype(np.uint8)
    label, mask = image[:1] % 7, (image[:1] % 3).astype(np.uint8)
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
    region = Box(three(low), three(high))
    start = [data.draw(st.integers(a - 7, b - 1)) for a, b in zip(low, high, strict=True)]
    stop = [
        data.draw(st.integers(max(a, s) + 1, b + 7))
        for s, a, b in zip(start, low, high, strict=True)
    ]
    box = Box(three(start), three(stop))
    case = PreparedCase("a", Held(image), Held(label), Held(mask))
    memory: dict[str, npt.NDArray[Any]] = {}

    def room(name: str, size: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return memory.setdefault(name, np.full(size, 3, dtype))

    found = read_block(case, region, box, ["image", "label", "mask"], mode, room)
    np.testing.assert_array_equal(found["image"], read_patch(Held(image), region, box, mode))
    np.testing.assert_array_equal(found["label"], read_patch(Held(label), region, box, mode)[0])
    valid = np.zeros(box.shape, bool)
    inner = region.common(box)
    valid[inner.shift([-n for n in box.start]).slices] = mask[0][inner.slices] != 0
    np.testing.assert_array_equal(found["mask"], valid)
