"""Batches: the same for any number of threads, ranks and restarts; nothing leaks, nothing hangs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler

from volprep import Box, open_labels, open_volume, pipeline
from volprep.augment import Compose, Flip, GaussianNoise, Rotate
from volprep.config import load_config
from volprep.cutting import Drawing
from volprep.errors import ConfigError
from volprep.loader import PatchDataset, PatchLoader, VolumeDataset, dataloader, measure_stages
from volprep.loader.order import EpochSampler
from volprep.preprocess import Normalisation
from volprep.targets import LabelPatch, make_targets, targets_from_config


class Numbers:
    """A source of which each sample says who it is."""

    def __init__(self, count: int, seed: int = 7, slow: float = 0.0) -> None:
        self.count, self.seed, self.slow = count, seed, slow

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        time.sleep(self.slow * (place[1] % 3))
        return {"place": np.array(place), "image": np.full((2, 3), place[1], np.float32)}


class Broken(Numbers):
    """Sample 5 cannot be made."""

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        if place[1] == 5:
            raise OSError("no such voxel")
        return super().__getitem__(place)


def places(batches: Any) -> list[tuple[int, int]]:
    return [tuple(p) for batch in batches for p in batch["place"].tolist()]


def threads_alive() -> int:
    return sum(t.name.startswith("volprep-loader") for t in threading.enumerate())


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    for number in range(3):
        rng = np.random.default_rng(number)
        label = np.kron(rng.integers(0, 5, (3, 8, 8)), np.ones((4, 5, 5), int)).astype(np.uint16)
        image = (rng.integers(0, 50, label.shape) + 10 * label).astype(np.uint8)
        tifffile.imwrite(folder / "data/images" / f"{number}.tif", image, metadata={"axes": "ZYX"})
        tifffile.imwrite(folder / "data/labels" / f"{number}.tif", label)
    (folder / "c.yaml").write_text(
        "data: {root: data, spacing: '1, 1, 1 um'}\n"
        "plan: {patch_size: [8, 16, 16], batch_size: 2, aug_patch_size: [8, 24, 24]}\n"
        "augment: [flip, rotate, {gaussian_noise: {p: 1.0}}]\nepoch: {augment_warm_up: 0}\n"
    )
    return pipeline.prepare(load_config(folder / "c.yaml")).path


def test_an_option_that_nobody_has_is_named_with_the_nearest(patches: Path) -> None:
    with pytest.raises(TypeError, match=r"^dataloader has no option 'patchsize'.*patch_size"):
        dataloader(patches, patchsize=(8, 8, 8))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 7),
    steps=st.none() | st.integers(1, 9),
    threads=st.integers(1, 4),
    prefetch=st.integers(1, 4),
    shuffle=st.booleans(),
)  # fmt: skip
def test_batches_come_in_one_order_whatever_makes_them(
    count, batch, steps, threads, prefetch, shuffle
):
    options: dict[str, Any] = {"steps": steps, "shuffle": shuffle}
    loader = PatchLoader(Numbers(count), batch, threads=threads, prefetch=prefetch, **options)
    alone = PatchLoader(Numbers(count), batch, threads=1, prefetch=1, **options)
    for _ in range(3):
        made = [{k: v.clone() for k, v in b.items()} for b in loader]
        assert places(made) == places(alone)
        assert len(made) == len(loader)
        for one in made:
            assert (one["image"] == one["place"][:, 1, None, None]).all()


@given(count=st.integers(1, 30), batch=st.integers(1, 4), world=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_ranks_share_a_pass_and_none_gets_a_sample_twice(count, batch, world):
    found = []
    for rank in range(world):
        loader = PatchLoader(Numbers(count), batch, rank=rank, world_size=world, threads=1)
        found += places(loader)
    assert sorted(found) == [(0, n) for n in range(count)]


def test_steps_go_on_into_the_next_pass_and_repeat_nothing():
    loader = PatchLoader(Numbers(10), 4, steps=6, threads=2)
    found = [p for _ in range(4) for p in places(loader)]
    assert len(found) == len(set(found)) == 96
    assert sorted(found[:10]) == [(0, n) for n in range(10)]


@pytest.mark.parametrize(("steps", "world"), [(None, 1), (7, 1), (7, 2), (None, 3), (4, 4)])
def test_a_run_goes_on_where_its_state_was_taken_with_any_number_of_ranks(steps, world):
    def whole_order(n_ranks: int, state: dict[str, int] | None, batches: int) -> list[Any]:
        loaders = [
            PatchLoader(Numbers(23), 2, steps=steps, rank=r, world_size=n_ranks, threads=2)
            for r in range(n_ranks)
        ]
        for loader in loaders if state else []:
            loader.load_state_dict(state or {})
        streams = [_endless(loader) for loader in loaders]
        return [p for _ in range(batches) for s in streams for p in places([next(s)])]

    first = PatchLoader(Numbers(23), 2, steps=steps, threads=2)
    stream = _endless(first)
    before = [p for _ in range(4) for p in places([next(stream)])]
    state = first.state_dict()
    after = whole_order(world, state, 3)
    assert before + after == whole_order(1, None, 40)[: 8 + len(after)]


def _endless(loader: PatchLoader) -> Iterator[Any]:
    while True:
        yield from loader


def test_the_state_of_another_source_is_refused():
    state = PatchLoader(Numbers(5), 2).state_dict()
    with pytest.raises(ValueError, match="count is 5"):
        PatchLoader(Numbers(6), 2).load_state_dict(state)


def test_a_batch_stays_as_it_is_until_the_one_after_the_next_is_asked_for():
    loader = iter(PatchLoader(Numbers(40), 2, threads=3, prefetch=2))
    last, kept = None, None
    for batch in loader:
        time.sleep(0.005)
        if last is not None and kept is not None:
            assert all(torch.equal(last[name], kept[name]) for name in kept)
        last, kept = batch, {name: value.clone() for name, value in batch.items()}


def test_what_goes_wrong_in_a_thread_reaches_the_caller_with_its_place():
    loader = PatchLoader(Broken(20), 4, threads=3, shuffle=False)
    batches = iter(loader)
    next(batches)
    with pytest.raises(OSError, match="no such voxel") as caught:
        next(batches)
    assert any("sample 5 of epoch 0" in note for note in caught.value.__notes__)
    assert threads_alive() == 0


def test_threads_end_with_their_epoch_and_with_the_iterator_that_is_forgotten():
    loader = PatchLoader(Numbers(30, slow=0.001), 2, threads=4)
    for _ in loader:
        break
    gc.collect()
    assert threads_alive() == 0
    assert len(list(loader)) == 14  # the rest of the epoch
    assert threads_alive() == 0
    batches = iter(loader)
    next(batches)
    assert threads_alive() == 4
    second = iter(loader)
    with pytest.raises(RuntimeError, match="another pass"):
        next(batches)
    next(second)
    del batches, second, loader
    gc.collect()
    assert threads_alive() == 0


def test_the_next_epochs_first_batches_are_made_while_the_last_one_ends():
    asked: list[tuple[int, int]] = []

    class Noting(Numbers):
        def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
            asked.append(place)
            return super().__getitem__(place)

    loader = PatchLoader(Noting(8), 2, threads=2, prefetch=2)
    first = []
    for batch in loader:
        first += batch["place"].tolist()
        time.sleep(0.02)  # a step
    assert threads_alive() == 0
    made = set(asked)
    ahead = {place for place in made if place[0] == 1}
    assert ahead
    second = places(loader)
    assert ahead <= set(second)
    assert sorted(second) == [(1, i) for i in range(8)]
    # The very first sample is made once more, to know how large the buffers are to be.
    assert len(asked) - len(set(asked)) == 1
    loader.set_epoch(0)  # what was made ahead is of no use then
    assert [list(place) for place in places(loader)] == first


TAKE = (
    "import sys\nfrom volprep.kernels.compiling import compiled_folder, telling_of_compiling\n"
    "from volprep.kernels.labels import take_ids\nimport numpy as np\n"
    "ids = np.array([0, 7, 2**63 + 1], np.uint64)\nout = np.empty((1, 1, 2), np.uint64)\n"
    "numbers = np.array([[[2, 1]]], np.uint8)\n"
    "with telling_of_compiling(print):\n    take_ids(ids, numbers, out)\n"
    "assert out.tolist() == [[[2**63 + 1, 7]]]\nprint(compiled_folder(), file=sys.stderr)\n"
)


def taken(**environment: str) -> tuple[list[str], str]:
    """What a process says that runs a kernel, and where it keeps it."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", TAKE], env={**kept, **environment}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.splitlines(), done.stderr.strip()


def test_what_is_compiled_is_told_once_and_what_is_kept_is_not(tmp_path):
    said, where = taken(NUMBA_CACHE_DIR=str(tmp_path))
    assert said[0].startswith("compiling for this machine")
    assert said[0].endswith(f"kept for the next time in {where}")
    assert where.startswith(str(tmp_path))
    assert said[1].startswith("compiled, in")
    assert taken(NUMBA_CACHE_DIR=str(tmp_path)) == ([], where)
    for file in Path(where).iterdir():  # a damaged file costs time and no more
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    said, _ = taken(NUMBA_CACHE_DIR=str(tmp_path))
    assert said[0].startswith("compiling")
    assert taken(NUMBA_CACHE_DIR=str(tmp_path)) == ([], where)


def test_compiled_kernels_are_the_users_and_not_the_installations(tmp_path):
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    temporary.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(temporary)}
    said, where = taken(**places)
    assert where.startswith(str(home))
    assert said
    assert taken(**places) == ([], where)
    # A home that cannot be written to: even root may not make a folder below a file.
    home.rename(tmp_path / "old")
    home.write_text("")
    said, where = taken(**places)
    assert where.startswith(str(temporary))
    assert said
    assert taken(**places) == ([], where)
    # Others may write to the folder, so that what lies there may be theirs.
    Path(where).parent.chmod(0o777)
    said, where = taken(**places)
    assert where == "None"
    assert "again in every process" in said[0]
    assert "NUMBA_CACHE_DIR" in said[0]


BESIDE = (
    "import sys\nimport numpy as np\nfrom numba import types\nfrom numba.core import event\n"
    "from volprep.kernels import compiling\nfrom volprep.kernels.labels import take_ids\n"
    "from volprep.kernels.normalise import clip_shift_scale\n"
    "class Heard(event.Listener):\n    here = []\n    on_end = lambda self, event: None\n"
    "    on_start = lambda self, event: self.here.append(str(event.data['dispatcher']))\n"
    "compiling._has_second = lambda: True\nsys.executable = sys.argv[1] or sys.executable\n"
    "numbers = (types.uint8[::1], *[types.float64] * 4, types.float32[::1])\n"
    "compiling.expect(clip_shift_scale, numbers)\n"
    "ids, out = np.array([0, 7], np.uint64), np.empty((1, 1, 2), np.uint64)\n"
    "with event.install_listener('numba:compile', Heard()):\n"
    "    take_ids(ids, np.array([[[1, 0]]], np.uint8), out)\n"
    "assert out.tolist() == [[[7, 0]]]\n"
    "print(*(name in ' '.join(Heard.here) for name in ('take_ids', 'clip_shift_scale')))\n"
)


@pytest.mark.parametrize(
    ("executable", "here"),
    [("", "False True"), ("/bin/false", "True True"), ("/nothing/there", "True False")],
)
def test_what_is_wanted_is_compiled_beside_what_is_expected_next(tmp_path, executable, here):
    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", BESIDE, executable], capture_output=True, text=True, check=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        ).stdout.strip()  # fmt: skip

    assert run() == here
    assert run() == "False False"


def test_a_process_ends_though_an_iterator_is_left_in_the_middle(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_loader import Numbers\nfrom volprep.loader import PatchLoader\n"
        "batches = iter(PatchLoader(Numbers(1000, slow=0.01), 2, threads=4)); next(batches)\n"
        "print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "done\n"


def test_transforms_act_in_the_threads_and_draw_the_same_for_any_number():
    def transform(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {**sample, "draw": rng.random(3)}

    one, four = (
        torch.cat([b["draw"].clone() for b in PatchLoader(
            Numbers(12), 3, threads=n, transforms=transform)])
        for n in (1, 4)
    )  # fmt: skip
    assert torch.equal(one, four)
    assert len(one.unique()) == 36


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"batch_size": 2.5}, "batch_size: found 2.5"),
        ({"threads": 0}, "threads: found 0"),
        ({"steps": -1}, "steps: found -1"),
        ({"rank": 2, "world_size": 2}, "rank: found 2; wanted 0 to 1"),
        ({"prefetch": True}, "prefetch: found True"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        PatchLoader(Numbers(4), **{"batch_size": 2, **options})
    with pytest.raises(ValueError, match="no sample"):
        PatchLoader(Numbers(0), 2)


def equal(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_samples_are_those_of_torchs_dataloader(patches, augment, threads):
    dataset = PatchDataset(patches, augment=augment)
    wanted = DataLoader(dataset, 2, sampler=EpochSampler(dataset, shuffle=True))
    found = dataloader(patches, steps=None, augment=augment, threads=threads)
    for _ in range(2):
        for a, b in zip(wanted, found, strict=True):
            assert equal(a, b)


@pytest.mark.parametrize("steps", [None, 5])
def test_processes_give_what_threads_give(patches, steps):
    processes = dataloader(patches, steps=steps, num_workers=2, multiprocessing_context="fork")
    threads = dataloader(patches, steps=steps)
    for _ in range(3):
        for a, b in zip(processes, threads, strict=True):
            assert equal(a, b)


def drawn(loader: Any) -> dict[int, torch.Tensor]:
    return {
        int(i): image.clone()
        for batch in loader
        for i, image in zip(batch["index"], batch["image"], strict=True)
    }


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_an_epoch_reaches_workers_that_live_on(patches, context):
    dataset = PatchDataset(patches, augment=True)
    loader = DataLoader(
        dataset, 2, sampler=RandomSampler(dataset), num_workers=1, persistent_workers=True,
        multiprocessing_context=context,
    )  # fmt: skip
    epochs = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        epochs.append(drawn(loader))
    assert all(torch.equal(epochs[0][n], epochs[2][n]) for n in epochs[0])
    assert not any(torch.equal(epochs[0][n], epochs[1][n]) for n in epochs[0])


def test_distributed_sampler_and_its_set_epoch_work_with_the_data_sets_own(patches):
    dataset = PatchDataset(patches, augment=True)
    ranks = [DistributedSampler(dataset, num_replicas=2, rank=r) for r in range(2)]
    found = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        for sampler in ranks:
            sampler.set_epoch(epoch)
        found.append(drawn(batch for s in ranks for batch in DataLoader(dataset, 2, sampler=s)))
        assert found[-1].keys() == set(range(len(dataset)))
    assert not any(torch.equal(found[0][n], found[1][n]) for n in found[0])


def test_indices_of_numpy_and_torch_are_indices(patches):
    dataset = PatchDataset(patches)
    for index in (np.int64(1), torch.tensor(1), (np.uint8(0), torch.tensor(1)), 1 - len(dataset)):
        assert equal(_tensors(dataset[index]), _tensors(dataset[0, 1]))
    for wrong in (1.0, "1", None, slice(2)):
        with pytest.raises(TypeError):
            dataset[wrong]  # type: ignore[index]


def _tensors(sample: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in sample.items()}


def test_an_augmented_sample_lies_anywhere_in_its_block_and_says_where(patches):
    whole = PatchDataset(patches, patch_size=None)
    size = PatchDataset(patches).patch_size
    still = Compose([GaussianNoise(p=1.0)], size, {"label": "mask"})
    noisy = PatchDataset(patches, augment=still)
    starts, room = [], np.array(whole.stored_size) - size
    for epoch in range(8):
        for number in range(len(whole)):
            block, sample = whole[epoch, number], noisy[epoch, number]
            first = (sample["start"] - block["start"]).numpy()
            assert (
                block["label"].numpy()[Box.at(first, size).slices] == sample["label"].numpy()
            ).all()
            around = np.stack([first, room - first], 1)
            assert (sample["pad"].numpy() == np.maximum(block["pad"].numpy() - around, 0)).all()
            assert not block["pad"].any(), "every region is larger than a block"
            starts.append(tuple(first))
    for axis in range(3):
        assert {start[axis] for start in starts} == set(range(room[axis] + 1))


def test_augmentation_comes_in_over_the_samples_of_its_warm_up(patches):
    plain, full = PatchDataset(patches), PatchDataset(patches, augment=True)
    count = len(full)

    def same(a: Any, b: Any) -> bool:
        return all(np.array_equal(a[name], b[name]) for name in ("image", "label", "start"))

    warm = PatchDataset(patches, augment=True, warm_up=4 * count)
    shares = []
    for epoch in range(6):
        as_full = [same(warm[epoch, n], full[epoch, n]) for n in range(count)]
        as_plain = [same(warm[epoch, n], plain[epoch, n]) for n in range(count)]
        assert not any(a and b for a, b in zip(as_full, as_plain, strict=True))
        shares.append(1 - sum(as_plain) / count)
        assert epoch < 4 or all(as_full)
    assert shares[0] == 0
    assert shares[4:] == [1, 1]
    for epoch in (1, 2, 3):  # 4 deviations of a binomial distribution
        assert abs(shares[epoch] - epoch / 4) <= 4 * np.sqrt(epoch / 4 * (1 - epoch / 4) / count)


@pytest.mark.parametrize("augment", [False, True])
def test_labels_come_in_the_dtype_that_was_asked_for(patches, augment):
    wide = PatchDataset(patches, augment=augment)[2]["label"]
    for name, dtype in (("int32", torch.int32), ("stored", torch.uint16)):
        narrow = PatchDataset(patches, augment=augment, label_dtype=name)[2]["label"]
        assert narrow.dtype == dtype
        assert torch.equal(narrow.to(torch.int64), wide)


def test_augmentation_of_stored_grey_values_keeps_their_dtype(patches):
    image = PatchDataset(patches, augment=True, normalise=False)[0]["image"]
    assert image.dtype == torch.uint8


def test_a_callable_gets_whole_stored_patches_and_may_be_a_compose(patches):
    def mirror(sample: dict[str, Any], _: np.random.Generator) -> dict[str, Any]:
        assert sample["image"].shape == (1, 8, 24, 24)
        return {name: np.ascontiguousarray(value[..., ::-1]) for name, value in sample.items()}

    stored = PatchDataset(patches, patch_size=None)[3]
    mirrored = PatchDataset(patches, patch_size=None, augment=mirror)[3]
    assert torch.equal(mirrored["image"], stored["image"].flip(-1))
    compose = Compose([Flip()], (8, 16, 16), {"label": "mask"})
    assert PatchDataset(patches, augment=compose)[3]["image"].shape == (1, 8, 16, 16)


def test_a_compose_that_would_leave_the_label_behind_is_refused(patches):
    with pytest.raises(ValueError, match="not among additional_targets"):
        PatchDataset(patches, augment=Compose([Flip()], (8, 16, 16)))[0]


@pytest.mark.parametrize("size", [32, (16, 16), (8, 16, 16.5), (0, 1, 1), "all"])
def test_a_patch_size_that_is_none_is_refused_in_words(patches, size):
    with pytest.raises(ValueError, match="patch_size: found"):
        PatchDataset(patches, patch_size=size)


def test_the_first_batch_of_an_epoch_is_that_epochs_whoever_sets_it(patches):
    loader = dataloader(patches, steps=3)
    first = [b["image"].clone() for b in loader]
    second = [b["image"].clone() for b in loader]
    loader.set_epoch(1)
    assert all(torch.equal(a["image"], b) for a, b in zip(loader, second, strict=True))
    loader.set_epoch(0)
    assert all(torch.equal(a["image"], b) for a, b in zip(loader, first, strict=True))


def test_every_stage_of_a_sample_is_seen_by_the_bench(patches):
    stages = measure_stages(PatchDataset(patches, augment=True), count=3)
    assert {"read", "decode", "normalise", "warp", "intensity", "labels", "other"} == stages.keys()
    assert min(stages.values()) > 0


def test_bench_loader_measures_what_it_was_asked_for(patches):
    done = subprocess.run(
        [sys.executable, "-m", "volprep", "bench-loader", str(patches), "--threads", "1,3",
         "--step-ms", "1000", "--seconds", "0.2", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [speed["threads"] for speed in found["speeds"]] == [1, 3]
    assert all(speed["keeps_busy"] for speed in found["speeds"])
    assert found["stages"]["warp"] > 0
    wrong = subprocess.run(
        [sys.executable, "-m", "volprep", "bench-loader", str(patches), "--threads", "1,x"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "such as 1,2,4" in wrong.stderr


TARGETS = "targets: [boundary, {affinities: {offsets: [[-1, 0, 0], [0, -3, 0]]}}, flow]\n"


@pytest.fixture(scope="module", params=["load", "store"])
def targeted(request: pytest.FixtureRequest, patches: Path) -> Path:
    text = (patches.parent / "c.yaml").read_text() + TARGETS
    text += f"output: {{dir: targets-{request.param}, targets: {request.param}}}\n"
    path = patches.parent / f"{request.param}.yaml"
    path.write_text(text)
    return pipeline.prepare(load_config(path)).path


@pytest.mark.parametrize("augment", [False, True])
def test_targets_are_made_last_of_what_the_sample_shows(targeted, augment):
    dataset = PatchDataset(targeted, augment=augment)
    listed = targets_from_config(dataset.training["targets"])
    for source in (dataset, PatchDataset(targeted, augment=augment, patch_size=None)):
        sample = source[2]
        patch = LabelPatch(sample["label"].numpy(), dataset.training["spacing"])
        for name, wanted in make_targets(listed, patch).items():
            assert sample[name].shape == wanted.shape
            if "load" in targeted.name or augment or source is not dataset:
                np.testing.assert_array_equal(sample[name].numpy(), wanted)


def test_stored_targets_are_made_before_the_cut_and_so_know_more(targeted):
    dataset = PatchDataset(targeted)
    stored = dataset.training["stored_targets"]
    assert stored == (["boundary", "affinities", "flow"] if "store" in targeted.name else [])
    known = torch.stack([dataset[n]["affinities_mask"][1] for n in range(len(dataset))])
    assert (known.float().mean() > 0.9) == bool(stored)


def test_batches_hold_targets_too(targeted):
    alone = PatchDataset(targeted, augment=True)
    for batch in dataloader(targeted, steps=2, threads=2):
        for n, index in enumerate(batch["index"].tolist()):
            assert torch.equal(batch["flow"][n], alone[0, index]["flow"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("targets: [boundry]", "boundry: unknown target; did you mean boundary"),
        ("targets: [skeleton]", "skeletons: {enabled: true}"),
    ],
)
def test_targets_that_cannot_be_are_named_and_leave_nothing(patches, text, says):
    path = patches.parent / "wrong.yaml"
    path.write_text((patches.parent / "c.yaml").read_text() + text + "\noutput: {dir: wrong}\n")
    with pytest.raises(ConfigError, match=says):
        pipeline.prepare(load_config(path))
    assert not (patches.parent / "wrong").exists()


def numbered(seed: int, shape: tuple[int, int, int] = (12, 30, 26)) -> dict[str, Any]:
    """A volume of which each voxel says where it is."""
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, 4, (3, 6, 13)), np.ones((4, 5, 2), int)).astype(np.uint16)
    places = np.arange(label.size, dtype=np.float32).reshape(label.shape)
    return {"name": f"v{seed}", "image": places, "label": label}


def test_a_volumes_sample_is_what_the_volume_holds_there():
    volumes = [numbered(0), numbered(1)]
    dataset = VolumeDataset(volumes, (6, 10, 8), length=60)
    seen = set()
    for sample in (dataset[n] for n in range(60)):
        where = tuple(slice(a, a + n) for a, n in zip(sample["start"], (6, 10, 8), strict=True))
        volume = volumes[sample["case"]]
        np.testing.assert_array_equal(sample["image"][0].numpy(), volume["image"][where])
        np.testing.assert_array_equal(sample["label"].numpy(), volume["label"][where])
        assert not sample["pad"].any()
        seen.add((sample["case"], *sample["start"].tolist()))
    assert len(seen) > 50
    assert {case for case, *_ in seen} == {0, 1}


def test_every_epoch_of_volumes_has_places_of_its_own_whatever_draws_them():
    dataset = VolumeDataset([numbered(0)], (6, 10, 8), length=20)
    starts = [torch.stack([dataset[e, n]["start"] for n in range(20)]) for e in (0, 1)]
    assert not torch.equal(starts[0], starts[1])
    found = {}
    for _ in range(2):
        loader = PatchLoader(dataset, 4, threads=3)
        for epoch in (0, 1):
            for batch in loader:
                for index, start in zip(batch["index"].tolist(), batch["start"], strict=True):
                    found[epoch, index] = start.clone()
    assert all(torch.equal(found[e, n], starts[e][n]) for e in (0, 1) for n in range(20))


def test_places_follow_regions_masks_and_foreground():
    volume = numbered(2) | {"mask": np.zeros((12, 30, 26), np.uint8)}
    volume["mask"][:, :15] = 1
    region = Box((0, 0, 0), (12, 20, 26))
    dataset = VolumeDataset([volume], (6, 10, 8), blocks=[(0, region)], length=40)
    for n in range(40):
        sample = dataset[n]
        assert sample["start"][1] + 10 <= 20
        assert sample["mask"].float().mean() > 0.5
    lonely = numbered(3)
    lonely["label"] = np.zeros((12, 30, 26), np.uint32)
    lonely["label"][5, 20, 20] = 70_000
    found = VolumeDataset([lonely], (6, 10, 8), drawing=Drawing(foreground=1.0), length=20)
    assert all(70_000 in found[n]["label"] for n in range(20))


def test_volumes_beyond_a_region_are_mirrored_and_not_valid():
    dataset = VolumeDataset([numbered(4)], (16, 32, 32), length=4)
    sample = dataset[1]
    assert sample["image"].shape == (1, 16, 32, 32)
    assert sample["pad"].sum(1).tolist() == [4, 2, 6]


def test_volumes_are_augmented_and_get_targets():
    compose = Compose([Flip(), Rotate()], (6, 8, 8), {"label": "mask"})
    dataset = VolumeDataset(
        [numbered(0)], (6, 8, 8), augment=compose, targets=targets_from_config(["boundary"]),
        normalisation=Normalisation("given", (100.0,), (10.0,)), length=5, seed=3,
    )  # fmt: skip
    sample = dataset[2]
    made = make_targets(targets_from_config(["boundary"]), LabelPatch(sample["label"].numpy()))
    np.testing.assert_array_equal(sample["boundary"].numpy(), made["boundary"])
    assert equal(_tensors(dataset[2]), _tensors(sample))
    assert sample["image"].dtype == torch.float32


@pytest.mark.parametrize(
    ("volumes", "says"),
    [
        ([], "none given"),
        ([{"label": np.zeros((4, 4, 4))}], "wanted image"),
        ([{"image": np.zeros((4, 4))}], "wanted .Z, Y, X."),
        ([{"image": np.zeros((4, 4, 4)), "label": np.zeros((4, 4, 5), int)}], "wanted one shape"),
        ([numbered(0), {"image": np.zeros((12, 30, 26))}], "some have a label"),
        ([{"image": np.zeros((1, 4, 4, 4))}, {"image": np.zeros((2, 4, 4, 4))}], "channels"),
        (
            [
                {"image": np.zeros((4, 4, 4)), "label": np.zeros((4, 4, 4), np.uint64)},
                {"image": np.zeros((4, 4, 4)), "label": np.zeros((4, 4, 4), np.int64)},
            ],
            "wanted integers",
        ),
    ],
)
def test_volumes_that_do_not_go_together_are_refused(volumes, says):
    with pytest.raises(ValueError, match=says):
        VolumeDataset(volumes, (2, 2, 2))


def test_a_chunked_file_is_read_where_samples_lie(tmp_path):
    image, label = numbered(5)["image"], numbered(5)["label"]
    tifffile.imwrite(tmp_path / "a.tif", image, metadata={"axes": "ZYX"}, compression="deflate")
    tifffile.imwrite(tmp_path / "l.tif", label)
    volume = {"image": open_volume(tmp_path / "a.tif"), "label": open_labels(tmp_path / "l.tif")}
    from_file = VolumeDataset([volume], (6, 10, 8), length=8)
    held = VolumeDataset([{"image": image, "label": label}], (6, 10, 8), length=8)
    for a, b in zip(PatchLoader(from_file, 2, threads=2), PatchLoader(held, 2), strict=True):
        assert equal(a, b)
