"""Places that qualify: counted exactly, drawn at once, and told when there are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from volprep import pipeline
from volprep.config import load_config
from volprep.cutting import Drawing, PreparedCase, training_sites
from volprep.errors import PlanError
from volprep.geometry import Box, three
from volprep.sampling import Rejection, find_places
from volprep.sources import ArrayVolume


def volume(array: np.ndarray) -> ArrayVolume:
    return ArrayVolume(array, "ZYX")


def inside(block: Box, start, patch) -> Box:
    return block.common(Box.at(start, patch))


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_every_place_that_is_drawn_qualifies_and_every_one_that_does_can_be_drawn(data):
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    patch = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    label = (rng.random(shape) < data.draw(st.sampled_from([0.05, 0.3]))).astype(np.uint8)
    mask = (rng.random(shape) < data.draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(np.uint8)
    start = [int(rng.integers(n)) for n in shape]
    stop = [int(rng.integers(s + 1, n + 1)) for s, n in zip(start, shape, strict=True)]
    block = Box(three(start), three(stop))
    wanted = Rejection(
        size_thres=data.draw(st.integers(-1, 8)),
        p=data.draw(st.sampled_from([1.0, 0.5])),
        valid_ratio=data.draw(st.sampled_from([0.0, 0.3, 0.5])),
    )
    places = find_places(volume(label), volume(mask), block, patch, wanted)
    # the slow way: every place of the lattice by itself
    origin = [
        b - max(0, p - n) // 2 for b, p, n in zip(block.start, patch, block.shape, strict=True)
    ]
    lattice = [
        sorted({*range(0, max(0, n - p), max(1, p // 4)), max(0, n - p)})
        for n, p in zip(block.shape, patch, strict=True)
    ]
    expected = {}
    for offset in itertools.product(*lattice):
        at = three(o + d for o, d in zip(origin, offset, strict=True))
        seen = inside(block, at, patch).slices
        if np.count_nonzero(mask[seen]) > wanted.valid_ratio * mask[seen].size:
            full = wanted.size_thres <= 0 or np.count_nonzero(label[seen]) >= wanted.size_thres
            weight = (1.0 if full else 1 - wanted.p) * (
                np.count_nonzero(mask[seen]) / mask[seen].size if wanted.valid_ratio == 0 else 1
            )
            if weight:
                expected[at] = weight
    assert len(places) == len(expected)
    assert places.valid == pytest.approx(np.count_nonzero(mask[block.slices]) / block.size)
    if not expected:
        with pytest.raises(ValueError, match="no place qualifies"):
            places.draw(rng)
        return
    drawn = [places.draw(rng) for _ in range(60 * len(expected))]
    assert {sure for sure, _ in drawn} <= set(expected)
    total = sum(expected.values())
    for at, weight in expected.items():
        share = sum(sure == at for sure, _ in drawn) / len(drawn)
        assert share == pytest.approx(weight / total, abs=0.25)
    for _, near in drawn:
        for axis in range(3):
            first = near[axis] - origin[axis]
            assert 0 <= first <= max(0, block.shape[axis] - patch[axis])


def a_case(mask: np.ndarray, label: np.ndarray | None = None, name: str = "a") -> PreparedCase:
    label = mask if label is None else label
    return PreparedCase(name, volume(label), volume(label), volume(mask))


@pytest.mark.parametrize(
    ("annotated", "ratio"),
    [
        ("sparse slices", 0.0),
        ("a large block", 0.5),
        ("scribbles", 0.0),
        ("everything", 0.5),
    ],
)
def test_the_ratio_follows_how_much_of_what_is_annotated_dense_patches_show(annotated, ratio):
    mask = np.zeros((40, 64, 64), np.uint8)
    where = {
        "sparse slices": np.s_[::10],
        "a large block": np.s_[5:30, 10:50, 10:50],
        "scribbles": np.s_[::7, 3:40, ::9],
        "everything": np.s_[:],
    }
    mask[where[annotated]] = 1
    wanted = Rejection(valid_ratio=None)
    places = find_places(None, volume(mask), Box.whole(mask.shape), (16, 32, 32), wanted)
    assert places.rejection.valid_ratio == ratio
    assert len(places)


def test_rare_foreground_takes_one_draw_a_patch():
    """0.1% foreground, a threshold of 1000 voxels: rejection needs many draws, this none."""
    rng = np.random.default_rng(0)
    label = np.zeros((64, 256, 256), np.uint8)
    for z, y, x in rng.integers(0, 240, (3, 3)):
        label[z % 50 : z % 50 + 12, y : y + 12, x : x + 12] = 1
    assert label.mean() == pytest.approx(0.001, rel=0.5)
    rejection = Rejection(size_thres=1000, p=1)
    rejected: list = []
    drawing = Drawing(foreground=0, rejection=rejection, patches_per_case=50)
    case = PreparedCase("a", volume(label), volume(label), None)
    blocks = [(0, Box.whole(label.shape))]
    patch = (16, 32, 32)
    sites = training_sites(blocks, patch, drawing, [case], weights=[1], rejected=rejected)
    assert len(sites) == 50
    assert len({site.start for site in sites}) > 30
    assert len(rejected) <= 50  # each of them was drawn once, and then found in the index
    for site in sites:
        seen = label[inside(site.region, site.start, patch).slices]
        assert np.count_nonzero(seen) >= 1000


def test_some_patches_that_hold_too_little_are_kept_with_the_chance_that_was_asked_for():
    label = np.zeros((8, 64, 64), np.uint8)
    label[:, :8, :8] = 1
    case = PreparedCase("a", volume(label), volume(label), None)
    drawing = Drawing(foreground=0, rejection=Rejection(size_thres=1, p=0.8), patches_per_case=2000)
    sites = training_sites([(0, Box.whole(label.shape))], (8, 16, 16), drawing, [case], weights=[1])
    full = np.mean([label[inside(s.region, s.start, (8, 16, 16)).slices].any() for s in sites])
    starts = np.arange(49)
    share = np.mean([(y < 8) & (x < 8) for y in starts for x in starts])
    assert full == pytest.approx(share / (share + 0.2 * (1 - share)), abs=0.05)


def test_nothing_that_qualifies_is_an_error_that_says_how_much_there_is():
    mask = np.zeros((10, 20, 20), np.uint8)
    mask[0, :2] = 1
    drawing = Drawing(rejection=Rejection(valid_ratio=0.5))
    with pytest.raises(PlanError, match=r"1\.0% of the volume is, and at best 3\.1% of a patch"):
        training_sites(
            [(0, Box.whole(mask.shape))], (8, 8, 10), drawing, [a_case(mask)], weights=[1]
        )
    full = np.ones_like(mask)
    drawing = Drawing(rejection=Rejection(size_thres=100, p=1))
    with pytest.raises(PlanError, match=r"100 foreground voxels .*no patch holds more than 20"):
        training_sites(
            [(0, Box.whole(mask.shape))], (8, 8, 10), drawing, [a_case(full, mask)], weights=[1]
        )
    drawing = Drawing(rejection=Rejection(diversity=5, p=1))
    with pytest.raises(PlanError, match=r"a: none of 100 places holds 5 distinct ids"):
        training_sites(
            [(0, Box.whole(mask.shape))], (8, 8, 10), drawing, [a_case(full, mask)], weights=[1]
        )


def test_a_case_without_a_place_is_left_out_and_told(caplog):
    good, bad = np.ones((8, 16, 16), np.uint8), np.zeros((8, 16, 16), np.uint8)
    cases = [a_case(good, name="good"), a_case(bad, name="bad")]
    blocks = [(n, Box.whole(good.shape)) for n in range(2)]
    sites = training_sites(blocks, (4, 8, 8), Drawing(), cases, weights=[1, 1])
    assert {site.case for site in sites} == {0}
    assert "no patch is drawn where no place for one qualifies: bad" in caplog.text


REAL: dict[str, dict[str, object]] = {
    "14_2d_bbbc007_pairs": {"unlabelled": 0, "label_kind": "classes"},
    "16_2d_sparse_bbbc007": {"unlabelled": 0},
    "17_2d_sparse_maize": {
        "unlabelled": 0, "label_kind": "classes", "label_dir": "annotation_sparse",
    },
    "20_3d_sparse_slices_fib25": {"image_dir": "../06_fib25_neurons_png/images"},
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_sparse_sets_become_patches_that_all_hold_something_annotated(
    real_data: Callable[[str], Path], tmp_path: Path, name: str
):
    config = {
        "data": {"root": str(real_data(name)), **REAL[name]},
        "plan": {"patch_size": [16, 64, 64] if name.startswith("20") else [1, 64, 64]},
        "patching": {"patches_per_case": 20},
        "augment": [],  # else patches are stored with a margin, which small images have mirrored
        "output": {"dir": "out"},
    }
    (tmp_path / "v.yaml").write_text(yaml.safe_dump(config))
    store = pipeline.prepare(load_config(tmp_path / "v.yaml"))
    training = store.manifest["training"]
    if REAL[name].get("label_kind"):
        assert training["class_values"] == [1, 2]  # 0 is no class where it is not annotated
    arrays = store.split("train")
    assert len(arrays) > 0
    for number in range(len(arrays)):
        mask, label = arrays.read("mask", number), arrays.read("label", number)
        assert mask.any()
        if "unlabelled" in REAL[name]:
            assert (mask == (label != 0)).all()
