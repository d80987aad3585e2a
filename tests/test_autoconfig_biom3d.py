"""The documented functions of biom3d's auto-configuration, against what biom3d gives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.autoconfig import (
    UnfitShapeError,
    auto_config,
    display_info,
    find_patch_pool_batch,
    get_aug_patch,
    make_plan,
    parameters_return,
)
from volprep.errors import PlanError

GOLDEN = json.loads((Path(__file__).parent / "data" / "biom3d_autoconfig.json").read_text())["rows"]
USABLE = [row for row in GOLDEN if isinstance(row[1], list)]
REFUSED = [row for row in GOLDEN if row[1] == "refused"]
FAULTY = [row for row in GOLDEN if row[1] == "faulty there"]


def named(row: Any) -> str:
    return "-".join("x".join(map(str, v)) if isinstance(v, list) else str(v) for v in row[0])


def test_the_golden_rows_are_all_there() -> None:
    assert (len(USABLE), len(REFUSED), len(FAULTY)) == (736, 24, 22)


@pytest.mark.parametrize("row", USABLE, ids=named)
def test_golden_row_is_met_exactly(row: Any) -> None:
    (median, max_dims, max_pool, min_batch, max_batch), result = row
    wanted_patch, wanted_pool, wanted_batch, wanted_clamped, wanted_aug = result
    patch, pool, batch = find_patch_pool_batch(median, max_dims, max_pool)
    assert patch.tolist() == wanted_patch
    assert pool.tolist() == wanted_pool
    assert int(batch) == wanted_batch
    assert get_aug_patch(patch).tolist() == wanted_aug
    if max_pool == 5:
        clamped, aug, patch, pool = auto_config(
            median=median, max_dims=max_dims, max_batch=max_batch, min_batch=min_batch
        )
        assert int(clamped) == wanted_clamped
        assert (aug.tolist(), patch.tolist(), pool.tolist()) == (
            wanted_aug, wanted_patch, wanted_pool,
        )  # fmt: skip


@pytest.mark.parametrize("row", REFUSED, ids=named)
def test_refused_row_is_refused_with_reason(row: Any) -> None:
    median, max_dims, max_pool, *_ = row[0]
    with pytest.raises(UnfitShapeError, match=r"give|must be at least") as error:
        find_patch_pool_batch(median, max_dims, max_pool)
    assert isinstance(error.value, AssertionError)
    assert isinstance(error.value, PlanError)


@pytest.mark.parametrize("row", FAULTY, ids=named)
def test_row_that_biom3d_fails_on_gets_a_valid_plan(row: Any) -> None:
    median, max_dims, max_pool, *_ = row[0]
    patch, pool, batch = find_patch_pool_batch(median, max_dims, max_pool)
    assert all(n % 2**k == 0 for n, k in zip(patch.tolist(), pool.tolist(), strict=True))
    assert math.prod(patch.tolist()) <= math.prod(max_dims)
    assert batch >= 2


@given(
    st.lists(st.integers(1, 3000), min_size=3, max_size=3),
    st.sampled_from([32, 64, 96, 128, 160]),
    st.integers(1, 5),
)
def test_any_positive_shape_has_a_plan_that_pooling_divides(
    median: list[int], side: int, max_pool: int
) -> None:
    patch, pool, batch = find_patch_pool_batch(median, (side,) * 3, max_pool)
    assert all(n % 2**k == 0 for n, k in zip(patch.tolist(), pool.tolist(), strict=True))
    assert patch.min() >= 1
    assert math.prod(patch.tolist()) <= side**3
    assert pool.max() <= max_pool
    assert batch == max(2, 2 * (side**3 // math.prod(patch.tolist())))


def test_results_are_arrays_in_the_documented_order() -> None:
    batch, aug_patch, patch, pool = auto_config(median=(100, 512, 512))
    assert all(isinstance(a, np.ndarray) for a in (batch, aug_patch, patch, pool))
    assert (int(batch), aug_patch.tolist()) == (2, [40, 317, 317])
    assert (patch.tolist(), pool.tolist()) == ([40, 224, 224], [3, 5, 5])


def test_auto_config_without_anything_is_refused() -> None:
    with pytest.raises(AssertionError, match="neither img_path nor median"):
        auto_config()


def test_auto_config_reads_the_median_of_a_folder(tmp_path: Path) -> None:
    for number, depth in enumerate((90, 100, 120)):
        np.save(tmp_path / f"{number}.npy", np.zeros((depth, 5, 6), np.uint8))
    from_folder = auto_config(tmp_path)
    from_median = auto_config(median=(100, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(from_folder, from_median, strict=True))


def test_display_info_prints_lines_that_python_reads(capsys: pytest.CaptureFixture[str]) -> None:
    patch, pool, batch = find_patch_pool_batch((100, 512, 512))
    display_info(patch, pool, batch)
    names: dict[str, Any] = {}
    exec(capsys.readouterr().out, names)
    assert names["PATCH_SIZE"] == [40, 224, 224]
    assert names["AUG_PATCH_SIZE"] == [40, 317, 317]
    assert (names["BATCH_SIZE"], names["NUM_POOLS"]) == (2, [3, 5, 5])


@pytest.mark.parametrize("batch", [np.array(6), np.array([6]), np.array([[6.0]]), 6])
def test_a_batch_may_be_an_array_of_one(batch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    patch, pool = np.array([40, 224, 224]), np.array([3, 5, 5])
    display_info(patch, pool, batch)
    parameters_return(patch, pool, batch, "c.py")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "BATCH_SIZE = 6"
    assert lines[5] == "6"


def test_parameters_return_prints_one_value_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    parameters_return(np.array([40, 224, 224]), np.array([3, 5, 5]), np.array(2), "c.py", [3, 1, 1])
    assert capsys.readouterr().out.splitlines() == [
        "2", "[40, 224, 224]", "[40, 317, 317]", "[3, 5, 5]", "[3.0, 1.0, 1.0]", "c.py",
    ]  # fmt: skip


def test_biom3d_planner_gives_biom3d_plan() -> None:
    plan = make_plan((100, 512, 512), planner="biom3d")
    assert (plan.patch_size, plan.pool, plan.batch_size) == ((40, 224, 224), (3, 5, 5), 2)


def test_biom3d_planner_keeps_given_values() -> None:
    plan = make_plan((100, 512, 512), planner="biom3d", patch_size=(32, 96, 100), batch_size=3)
    assert (plan.patch_size, plan.batch_size) == ((32, 96, 100), 3)
    assert plan.pool == (3, 4, 2)
    assert set(plan.given) == {"patch_size", "batch_size"}
    plan = make_plan((100, 512, 512), planner="biom3d", pool=(4, 4, 4))
    assert plan.pool == (4, 4, 4)
    assert plan.patch_size == (32, 224, 224)


def test_biom3d_planner_says_when_memory_is_not_enough() -> None:
    plan = make_plan((100, 512, 512), planner="biom3d", memory=2**30)
    assert "does not heed" in plan.reasons["batch_size"]
