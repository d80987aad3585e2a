"""Splits: complete, disjoint, stable, and never across a group or a gap."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.cases import Case, FileRef, find_cases
from volprep.errors import ConfigError, PlanError
from volprep.geometry import Box, aligned_blocks
from volprep.sources import ArrayVolume
from volprep.splits import (
    ContentHash,
    SplitPart,
    Splits,
    audit_splits,
    content_hash,
    make_splits,
    splits_blocks,
)


def a_case(name: str, group: str | None = None, *, labelled: bool = True) -> Case:
    path = Path(f"/nowhere/{name}.tif")
    return Case(name, (FileRef(path),), FileRef(path) if labelled else None, group=group)


def a_saved_case(folder: Path, name: str, voxels: np.ndarray) -> Case:
    path = folder / f"{name}.npy"
    np.save(path, voxels)
    return Case(name, (FileRef(path),))


def names(parts: tuple[SplitPart, ...]) -> set[str]:
    return {part.case for part in parts}


unique_names = st.lists(
    st.text("abcdéß0123 ", min_size=1, max_size=5), min_size=2, max_size=12, unique=True
)


@given(unique_names, st.integers(0, 2**32), st.floats(0.01, 0.99), st.randoms())
def test_order_of_the_files_does_not_matter_and_sides_are_disjoint(words, seed, fraction, random):
    cases = [a_case(word) for word in words]
    splits = make_splits(cases, fraction=fraction, seed=seed)
    random.shuffle(cases)
    assert make_splits(cases, fraction=fraction, seed=seed) == splits
    assert names(splits.train) | names(splits.val) == set(words)
    assert not names(splits.train) & names(splits.val)
    assert splits.train
    assert splits.val
    assert not audit_splits(splits, cases, content=False)


@given(unique_names, st.integers(0, 99), st.data())
def test_k_folds_validate_every_case_exactly_once(words, seed, data):
    folds = data.draw(st.integers(2, len(words)))
    cases = [a_case(word) for word in words]
    sides = [make_splits(cases, folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    validated = [part.case for splits in sides for part in splits.val]
    assert sorted(validated) == sorted(words)
    sizes = [len(splits.val) for splits in sides]
    assert max(sizes) - min(sizes) <= 1
    assert all(len(splits.train) + len(splits.val) == len(words) for splits in sides)


@given(
    st.lists(st.sampled_from("ABCDE"), min_size=2, max_size=15).filter(lambda g: len(set(g)) > 1),
    st.integers(0, 99),
    st.booleans(),
)
def test_groups_never_straddle(groups, seed, in_folds):
    cases = [a_case(f"{group}_{index}") for index, group in enumerate(groups)]
    folds = len(set(groups)) if in_folds else None
    splits = make_splits(cases, group=r"^(\w)_", folds=folds, seed=seed)
    assert not {n[0] for n in names(splits.train)} & {n[0] for n in names(splits.val)}
    assert len(splits.train) + len(splits.val) == len(cases)
    assert not audit_splits(splits, cases, content=False)


def test_a_column_of_groups_wins_over_the_expression():
    cases = [a_case("a1", "left"), a_case("a2", "right"), a_case("b1", "left"), a_case("b2")]
    splits = make_splits(cases, group=r"^.")
    assert splits.kind == "group"
    assert splits.groups == {"a1": "left", "a2": "right", "b1": "left", "b2": "b"}
    assert ("a1" in names(splits.val)) == ("b1" in names(splits.val))


def test_unlabelled_cases_are_not_validated_on():
    cases = [a_case(f"l{i}") for i in range(2)]
    cases += [a_case(f"u{i}", labelled=False) for i in range(9)]
    for seed in range(20):
        splits = make_splits(cases, seed=seed)
        assert all(name.startswith("l") for name in names(splits.val))
        assert "9 cases without a label" in splits.notices[0]
        assert splits.notices[0].name == "split-unlabelled"


def test_seeds_hold_out_different_cases():
    cases = [a_case(f"c{i}") for i in range(10)]
    assert len({make_splits(cases, seed=seed).val for seed in range(30)}) > 5


def test_a_fraction_of_zero_validates_on_nothing():
    for cases in ([a_case("a")], [a_case("a"), a_case("b")]):
        splits = make_splits(cases, fraction=0, shapes={"a": (9, 9, 9)})
        assert splits.val == ()
        assert [f.name for f in audit_splits(splits, cases, content=False)] == ["split-empty"]


sizes = st.integers(1, 200)


@given(
    st.tuples(sizes, sizes, sizes),
    st.tuples(sizes, sizes, sizes),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.floats(0.05, 0.9),
    st.integers(0, 9),
)
def test_a_block_leaves_a_patch_on_both_sides_and_a_gap_between(shape, patch, halo, share, seed):
    cases = [a_case("v")]
    try:
        splits = make_splits(
            cases, fraction=share, shapes={"v": shape}, patch=patch, halo=halo, seed=seed
        )
    except PlanError:
        assert all(n < 3 + 2 * h for n, h in zip(shape, halo, strict=True))
        return
    (train,), (val,) = splits.train, splits.val
    limit = splits.patch_limit or patch
    axis = next(a for a in range(3) if train.box.shape[a] != shape[a])
    smallest = min(limit[axis], patch[axis])
    assert train.box.shape[axis] >= smallest
    assert val.box.shape[axis] >= smallest
    assert splits.gap[axis] == smallest + 2 * halo[axis]
    assert train.box.shape[axis] + splits.gap[axis] + val.box.shape[axis] == shape[axis]
    allowed = tuple(min(p, m) for p, m in zip(patch, limit, strict=True))
    assert not audit_splits(splits, cases, patch=allowed, halo=halo, content=False)
    again = make_splits(
        cases, fraction=share, shapes={"v": shape}, patch=allowed, halo=halo, seed=seed
    )
    assert again.patch_limit is None, "a patch within the limit needs no further one"


def test_the_limit_is_the_patch_shrunk_along_the_cut():
    splits = make_splits([a_case("v")], shapes={"v": (31, 61, 57)}, patch=(32, 64, 64))
    assert splits.patch_limit == (10, 64, 64)
    assert splits.gap == (10, 0, 0)
    assert sorted(p.box.shape[0] for p in (*splits.train, *splits.val)) == [10, 11]
    assert "at most 10 voxels along z" in splits.notices[1]
    assert [notice.name for notice in splits.notices] == ["split-blocks", "split-small"]
    unknown = make_splits([a_case("v")], shapes={"v": (31, 61, 57)})
    assert unknown.patch_limit == (31, 20, 57)


def test_a_block_is_about_the_share_that_was_asked_for():
    splits = make_splits(
        [a_case("v")], shapes={"v": (100, 512, 1000)}, patch=(16, 64, 64), fraction=0.25
    )
    assert splits.gap == (0, 0, 64)
    assert splits.val[0].box.shape == (100, 512, 234)
    assert "with a gap of 64; 70% of the volume is for training" in splits.notices[0]


def test_folds_of_one_volume_validate_every_voxel_once():
    seen = np.zeros((60, 8, 8), int)
    for fold in range(5):
        splits = make_splits(
            [a_case("v")], folds=5, fold=fold, shapes={"v": (60, 8, 8)}, patch=(6, 6, 6)
        )
        assert splits.kind == "blocks"
        assert len(splits.train) == (1 if fold in (0, 4) else 2)
        seen[splits.val[0].box.slices] += 1
        assert not audit_splits(splits, [a_case("v")], patch=(6, 6, 6), content=False)
    assert (seen == 1).all()


def test_blocks_are_held_out_of_every_labelled_volume():
    cases = [a_case("a"), a_case("b"), a_case("c", labelled=False)]
    shapes = dict.fromkeys("abc", (64, 64, 64))
    splits = make_splits(cases, kind="blocks", shapes=shapes, patch=(8, 8, 8))
    assert names(splits.val) == {"a", "b"}
    assert SplitPart("c", None) in splits.train


def test_a_volume_too_small_for_any_block_is_refused_with_a_way_out():
    with pytest.raises(PlanError, match="too small to hold out a block; add another case"):
        make_splits([a_case("v")], shapes={"v": (1, 2, 2)}, patch=(1, 2, 2))


def test_impossible_options_are_named():
    two = [a_case("a"), a_case("b")]
    with pytest.raises(PlanError, match=r"set split.folds to at most 2"):
        make_splits(two, kind="kfold")
    with pytest.raises(PlanError, match="no case has a group"):
        make_splits(two, kind="group")
    with pytest.raises(PlanError, match="use `kind: blocks`"):
        make_splits(two[:1], kind="cases")
    with pytest.raises(ConfigError, match=r"split.fold: 3 is not one of 0 to 1"):
        make_splits(two, folds=2, fold=3)
    with pytest.raises(ConfigError, match=r"split.fraction: 1.5"):
        make_splits(two, fraction=1.5)
    with pytest.raises(ConfigError, match="no regular expression"):
        make_splits(two, group="(")
    with pytest.raises(ConfigError, match="does not occur in the case 'a'"):
        make_splits(two, group="x")


def test_splits_come_back_from_json():
    splits = make_splits(
        [a_case("a", "g"), a_case("b", "h")],
        kind="blocks",
        shapes={"a": (64, 9, 9), "b": (64, 9, 9)},
        patch=(40, 9, 9),
    )
    assert splits.patch_limit is not None
    stored = json.loads(json.dumps(splits.to_dict() | {"audit": []}))
    assert Splits.from_dict(stored) == splits


def test_audit_finds_a_shared_voxel_and_a_shared_halo():
    case = [a_case("v")]
    left = SplitPart("v", Box((0, 0, 0), (10, 9, 9)))
    touching = SplitPart("v", Box((10, 0, 0), (20, 9, 9)))
    apart = SplitPart("v", Box((12, 0, 0), (20, 9, 9)))
    kinds = {
        (part, halo): [f.name for f in audit_splits(s, case, halo=(halo,) * 3, content=False)]
        for part in (touching, apart, SplitPart("v"))
        for halo in (0, 1, 2)
        if (s := Splits("blocks", (left,), (part,)))
    }
    assert kinds[touching, 0] == []
    assert kinds[touching, 1] == ["split-overlap"]
    assert kinds[apart, 1] == []
    assert kinds[apart, 2] == ["split-overlap"]
    assert kinds[SplitPart("v"), 0] == ["split-overlap"]
    narrow = audit_splits(Splits("blocks", (left,), (apart,)), case, patch=(4, 4, 4), content=False)
    assert [(f.level, f.name) for f in narrow] == [("warning", "split-narrow-gap")]


def test_audit_finds_groups_on_both_sides_and_names_that_are_gone():
    splits = Splits(
        "cases", (SplitPart("a"),), (SplitPart("b"), SplitPart("z")), groups={"a": "g", "b": "g"}
    )
    found = {f.name: f for f in audit_splits(splits, [a_case("a"), a_case("b")], content=False)}
    assert set(found) == {"split-group", "split-unknown-case"}
    assert found["split-unknown-case"].case == "z"


def test_audit_finds_one_image_under_two_names(tmp_path):
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 255, (5, 6, 7), np.uint8)
    twins = [a_saved_case(tmp_path, name, voxels) for name in ("a", "b")]
    other = a_saved_case(tmp_path, "c", 255 - voxels)
    parts = [SplitPart(case.name) for case in (*twins, other)]
    apart = Splits("cases", (parts[0], parts[2]), (parts[1],))
    (found,) = audit_splits(apart, [*twins, other])
    assert (found.level, found.name, found.case) == ("error", "split-same-image", "b")
    together = Splits("cases", (parts[0], parts[1]), (parts[2],))
    assert not audit_splits(together, [*twins, other])
    same_file = Case("d", twins[0].images)
    both = Splits("cases", (parts[0],), (SplitPart("d"),))
    assert "split-same-file" in {f.name for f in audit_splits(both, [twins[0], same_file])}


def test_audit_reads_whole_images_only_where_their_middle_planes_agree(tmp_path, monkeypatch):
    voxels = np.random.default_rng(0).integers(0, 255, (4, 6, 5, 6, 7), np.uint8)
    voxels[1, 2] = voxels[0, 2] = voxels[1, 3] = voxels[0, 3]
    voxels[3] = voxels[2]
    cases = [a_saved_case(tmp_path, name, v[:, 0]) for name, v in zip("abcd", voxels, strict=True)]
    read: list[str] = []
    monkeypatch.setattr(
        "volprep.splits.audit.content_hash",
        lambda volume: (read.append(volume.path.stem), content_hash(volume))[1],
    )
    parts = [SplitPart(case.name) for case in cases]
    splits = Splits("cases", (parts[0], parts[2]), (parts[1], parts[3]))
    (found,) = audit_splits(splits, cases, workers=1)
    assert (found.name, found.case) == ("split-same-image", "d")
    assert read == ["a", "b", "c", "d"]
    other = a_saved_case(tmp_path, "e", 255 - voxels[0, :, 0])
    read.clear()
    splits = Splits("cases", (parts[0],), (SplitPart("e"),))
    assert not audit_splits(splits, [cases[0], other])
    assert read == []


def test_blocks_are_announced():
    one, two = [a_case("a")], [a_case("a"), a_case("b")]
    assert splits_blocks(one)
    assert splits_blocks(two, kind="blocks")
    assert splits_blocks(two, group="^")
    assert not splits_blocks(two)
    assert not splits_blocks(one, kind="cases")


def test_audit_reports_an_image_that_cannot_be_read(tmp_path):
    good = a_saved_case(tmp_path, "a", np.zeros((3, 4, 5), np.uint8))
    bad = tmp_path / "b.npy"
    bad.write_bytes(b"no array")
    cases = [good, Case("b", (FileRef(bad),))]
    (found,) = audit_splits(make_splits(cases), cases)
    assert (found.name, found.case) == ("unreadable", "b")


@given(st.tuples(st.integers(1, 3), *[st.integers(1, 9)] * 3), st.integers(0, 9))
def test_content_hash_sees_voxels_shape_and_dtype(shape, seed):
    voxels = np.random.default_rng(seed).integers(0, 9, shape).astype(np.uint8)
    digest = content_hash(ArrayVolume(voxels))
    assert digest == content_hash(ArrayVolume(np.asfortranarray(voxels)))
    assert digest != content_hash(ArrayVolume(voxels.astype(np.uint16)))
    changed = voxels.copy()
    changed.flat[seed % changed.size] += 1
    assert digest != content_hash(ArrayVolume(changed))


@given(data=st.data())
def test_content_hash_is_the_same_in_whatever_blocks_voxels_come(data):
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "i2", "u8", "f4", "f8"])))
    shape = tuple(data.draw(st.integers(1, n)) for n in (2, 4, 6, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    voxels = rng.integers(0, 200, shape).astype(dtype)
    volume = ArrayVolume(voxels)
    block = [data.draw(st.integers(1, n)) for n in shape[1:]]
    boxes = data.draw(st.permutations(list(aligned_blocks(shape, block))))
    digest = ContentHash(volume)
    for box in boxes:
        digest.add(box, voxels[(slice(None), *box.slices)])
    assert digest.hexdigest() == content_hash(volume)
    where = tuple(rng.integers(0, n) for n in shape)
    other = voxels.copy()
    other[where] += 1
    assert content_hash(ArrayVolume(other)) != content_hash(volume)
    if shape[2] > 1 and (voxels[:, :, 0] != voxels[:, :, 1]).any():
        swapped = voxels.copy()
        swapped[:, :, [0, 1]] = voxels[:, :, [1, 0]]
        assert content_hash(ArrayVolume(swapped)) != content_hash(volume)


def test_content_hash_equals_a_slow_sum():
    voxels = np.random.default_rng(0).integers(0, 2**63, (2, 2, 3, 5)).astype(np.uint64)

    def mix(value: int) -> int:
        mask = 2**64 - 1
        x = (value + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    sums = [0, 0]
    for row, line in enumerate(voxels.reshape(-1, 5).tolist()):
        for lane in range(2):
            own = mix(((2 * row) ^ 0x5851F42D4C957F2C) + lane) | 1
            for x, value in enumerate(line):
                sums[lane] += (value ^ (value >> 32)) * (mix(2 * x + lane) | 1) * own
    digest = ContentHash(ArrayVolume(voxels))
    digest.add(Box.whole(voxels.shape), voxels)
    assert digest._sums.tolist() == [total % 2**64 for total in sums]


def test_the_same_nuclei_in_four_formats_are_one_image(real_data: Callable[[str], Path]):
    paths = [
        real_data("02_gonuclear_nuclei3d_h5/1135_mini.h5"),
        real_data("12_ometiff/images/1135.ome.tif"),
        real_data("12_ometiff/imagej/1135_imagej.tif"),
        real_data("19_omezarr_nuclei/1135_v04.zarr"),
    ]
    cases = [
        Case(f"c{index}", find_cases(path).items[0].images) for index, path in enumerate(paths)
    ]
    splits = make_splits(cases, folds=2)
    assert {f.name for f in audit_splits(splits, cases)} == {"split-same-image"}


@pytest.mark.parametrize("gap", [None, (0, 0, 0), (3, 3, 3)])
def test_what_resampling_reaches_comes_on_top_of_any_gap(gap: Any) -> None:
    cases, shape = [a_case("v")], {"v": (100, 40, 40)}
    plain, resampled = (
        make_splits(cases, shapes=shape, patch=(10, 40, 40), gap=gap, reach={"v": reach})
        for reach in ((0, 0, 0), (7, 9, 9))
    )
    assert resampled.gap[0] == plain.gap[0] + 7
    (train,), (val,) = resampled.train, resampled.val
    between = max(val.box.start[0] - train.box.stop[0], train.box.start[0] - val.box.stop[0])
    assert between == resampled.gap[0]
    assert "since resampling reaches so far" in resampled.notices[0]
    assert "since resampling" not in plain.notices[0]
