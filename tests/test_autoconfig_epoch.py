"""What an epoch is, how many patches are worth storing, and what resampling makes of cases."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volprep import pipeline
from volprep.autoconfig import (
    ResampledCase,
    distinct_positions,
    few_positions,
    plan_epoch,
    resampled_cases,
)
from volprep.config import Config
from volprep.errors import PlanError
from volprep.geometry import Shape3

SIDES = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=60, deadline=None)
@given(regions=st.lists(SIDES, min_size=1, max_size=3), patch=SIDES)
def test_positions_are_the_places_that_a_patch_can_take(
    regions: list[Shape3], patch: Shape3
) -> None:
    count = 0
    for region in regions:
        padded = [max(n, p) for n, p in zip(region, patch, strict=True)]
        starts = [range(n - p + 1) for n, p in zip(padded, patch, strict=True)]
        count += sum(1 for _ in itertools.product(*starts))
    assert distinct_positions(regions, patch) == count


def test_a_small_set_is_stored_as_often_as_helps() -> None:
    epoch = plan_epoch([(36, 100, 100)], (32, 48, 48), (32, 48, 48), batch_size=2, steps=250)
    tiles = 2 * 3 * 3
    assert (epoch.cover, epoch.patches) == (16, 16 * tiles)
    assert epoch.positions == 5 * 53 * 53


def test_a_large_set_is_covered_twice_whatever_the_epoch() -> None:
    epoch = plan_epoch(
        [(1000, 2000, 2000)] * 3, (64, 128, 128), (64, 128, 128), batch_size=2, steps=250
    )
    assert (epoch.cover, epoch.patches) == (2, 2 * 3 * 16 * 16 * 16)


def test_an_epoch_is_covered_without_a_second_look_where_there_is_room() -> None:
    epoch = plan_epoch([(128, 512, 512)], (32, 64, 64), (32, 64, 64), batch_size=2, steps=250)
    assert epoch.patches >= 500
    assert epoch.patches < 1000


def test_one_case_more_seldom_changes_how_often_the_others_are_covered() -> None:
    covers = [
        plan_epoch([(64, 256, 256)] * n, (32, 64, 64), (32, 64, 64), batch_size=2, steps=250).cover
        for n in range(1, 40)
    ]
    assert covers == sorted(covers, reverse=True)
    assert len(set(covers)) <= 4


def test_a_volume_that_is_one_patch_is_stored_once() -> None:
    epoch = plan_epoch([(8, 16, 16)], (8, 16, 16), (8, 16, 16), batch_size=2, steps=250)
    assert (epoch.positions, epoch.patches) == (1, 1)
    assert "1 distinct place " in (few_positions(epoch.positions) or "")
    assert few_positions(50) is None


CASE = ResampledCase("a", (2, 100, 200, 300), (0.5, 0.1, 0.1), 2, 4)


def test_shape_and_bytes_are_known_before() -> None:
    ((name, shape, size),) = resampled_cases([CASE], (0.25, 0.2, 0.1))
    assert (name, shape) == ("a", (200, 100, 300))
    assert size == math.prod(shape) * (2 * 2 + 4)


@pytest.mark.parametrize(
    ("target", "room", "said"),
    [
        ((500.0, 100.0, 100.0), None, "a single voxel"),
        ((0.0005, 0.0001, 0.0001), None, "times as many"),
        ((0.1, 0.1, 0.1), 10**6, "free"),
    ],
)
def test_absurd_targets_ask_for_the_unit(target: Shape3, room: int | None, said: str) -> None:
    with pytest.raises(PlanError, match=said) as error:
        resampled_cases([CASE], target, room=room)
    assert "nm or µm?" in str(error.value)


def test_flat_images_stay_flat_without_complaint() -> None:
    flat = ResampledCase("b", (1, 1, 200, 200), (0.1, 0.1, 0.1), 1)
    assert resampled_cases([flat], (5.0, 0.2, 0.2))[0][1] == (1, 100, 100)


def config_of(folder: Path, **sections: object) -> Config:
    for what in ("images", "labels"):
        (folder / what).mkdir(exist_ok=True)
        for n in range(3):
            np.save(folder / what / f"c{n}.npy", np.ones((20, 40, 40), np.uint8) * n)
    data = {"root": str(folder), "spacing": (0.4, 0.2, 0.2)}
    return Config.model_validate({"data": data, **sections})


def test_explain_shows_what_resampling_makes_of_each_case(tmp_path: Path) -> None:
    config = config_of(tmp_path, preprocess={"target_spacing": (0.2, 0.2, 0.2)})
    plan = pipeline.plan_of(config)
    assert plan.resampled[0] == ("c0", (40, 40, 40), 2 * 40**3)
    text = "\n".join(plan.explain())
    assert "resampled c0 = 40 x 40 x 40, 125 KiB" in text
    assert "375 KiB together" in text


def test_nanometres_for_micrometres_are_refused_before_any_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where an output that is not given goes
    config = config_of(tmp_path, preprocess={"target_spacing": (200, 200, 200)})
    with pytest.raises(PlanError, match="nm or µm"):
        pipeline.prepare(config)
    assert list(tmp_path.glob("*patches*")) == []


def test_the_plan_says_how_many_patches_and_places_there_are(tmp_path: Path) -> None:
    # Without augmentation nothing is stored around a patch, so that tiles are patches.
    plan = pipeline.plan_of(config_of(tmp_path, plan={"patch_size": (8, 16, 16)}, augment=[]))
    assert plan.steps == 250
    assert plan.n_positions == 2 * 13 * 25 * 25
    assert plan.n_patches == 16 * 2 * 3 * 3 * 3
    given = config_of(tmp_path, patching={"patches_per_case": 7}, epoch={"steps": 5})
    assert pipeline.plan_of(given).n_patches == 14
    assert pipeline.plan_of(given).steps == 5
    assert "n_positions" in "\n".join(plan.explain())


def test_nothing_to_augment_needs_no_margin(tmp_path: Path) -> None:
    plan = pipeline.plan_of(config_of(tmp_path, augment=[], plan={"patch_size": (8, 16, 16)}))
    assert plan.aug_patch_size == plan.patch_size == (8, 16, 16)


def test_a_set_of_few_places_is_warned_of(tmp_path: Path) -> None:
    config = config_of(tmp_path, plan={"patch_size": (20, 40, 40)})
    out = config.output.model_copy(update={"dir": tmp_path / "out"})
    store = pipeline.prepare(config.model_copy(update={"output": out}))
    told = json.loads((store.path / "findings.json").read_text())["findings"]
    (few,) = (f for f in told if f["name"] == "few-positions")
    assert "2 distinct places" in few["found"]
