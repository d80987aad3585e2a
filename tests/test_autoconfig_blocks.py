"""The patch of a single volume, a block of which is held out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volprep import pipeline
from volprep.autoconfig import DEFORMATION, Plan, fit_patch
from volprep.config import Config
from volprep.geometry import Shape3

SIDES = st.integers(1, 300)


def halved_along(shape: Shape3, patch: Shape3) -> tuple[float, list[Shape3]] | None:
    """A block of one patch held out at the end of the longest axis, with a gap of a patch."""
    axis = max(range(3), key=lambda a: shape[a] - 2 * patch[a])
    left = shape[axis] - 2 * patch[axis]
    if left < patch[axis]:
        return None
    z, y, x = (left if a == axis else n for a, n in enumerate(shape))
    return left / shape[axis], [(z, y, x)]


def deformation(patch: Shape3, planned: Shape3) -> float:
    ratios = [a / b for a, b in zip(patch, planned, strict=True)]
    return max(ratios) / min(ratios)


@pytest.mark.parametrize("side", [64, 100, 125, 250, 500])
def test_a_cube_stays_near_to_a_cube_and_half_is_trained_on(side: int) -> None:
    planned = (min(side, 160) // 16 * 16,) * 3
    fit = fit_patch([(planned, (4, 4, 4))], lambda patch: halved_along((side,) * 3, patch))
    assert fit is not None
    assert deformation(fit.patch, planned) <= DEFORMATION
    assert fit.trained >= 0.35
    assert fit.positions >= 64


def test_a_patch_that_leaves_enough_is_kept() -> None:
    fit = fit_patch([((32, 64, 64), (3, 4, 4))], lambda patch: halved_along((200, 90, 90), patch))
    assert fit is not None
    assert fit.patch == (32, 64, 64)


def test_a_thin_stack_is_cut_across() -> None:
    fit = fit_patch(
        [((16, 256, 256), (2, 5, 5))], lambda patch: halved_along((20, 512, 512), patch)
    )
    assert fit is not None
    assert fit.patch[0] == 16
    assert min(fit.patch[1:]) >= 128
    assert fit.positions >= 64


def test_where_nothing_can_be_divided_there_is_no_patch() -> None:
    assert fit_patch([((32, 32, 32), (3, 3, 3))], lambda _patch: None) is None


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(SIDES, SIDES, SIDES), pool=st.tuples(*[st.integers(0, 4)] * 3))
def test_what_is_found_fits_and_can_be_pooled(shape: Shape3, pool: Shape3) -> None:
    planned = tuple(max(1, min(n, 128) >> k << k) for n, k in zip(shape, pool, strict=True))
    z, y, x = planned
    fit = fit_patch([((z, y, x), pool)], lambda patch: halved_along(shape, patch))
    possible = max(shape) >= 3
    assert (fit is not None) == possible
    if fit is not None:
        division = halved_along(shape, fit.patch)
        assert division is not None
        assert fit.trained == division[0]
        (block,) = division[1]
        places = [b - p + 1 for b, p in zip(block, fit.patch, strict=True)]
        assert min(places) < 1 or fit.positions == math.prod(places)
        assert all(a <= b for a, b in zip(fit.patch, planned, strict=True))


REAL = {
    "02_gonuclear_nuclei3d_h5": lambda root: {"root": root},
    "06_fib25_neurons_png": lambda root: {
        "cases": [{"image": root / "images", "label": root / "labels" / "fib25_bodies.tif",
                   "spacing": (0.01, 0.01, 0.01)}]
    },
    "08_nifti_totalseg_ct": lambda root: {"root": root},
    "12_ometiff": lambda root: {
        "cases": [{"image": next((root / "images").glob("1135.ome.tif")),
                   "label": next((root / "labels").glob("1135.ome.tif"))}]
    },
}  # fmt: skip


def anisotropy(plan: Plan) -> float:
    """The longest side of the patch over the shortest, in micrometres."""
    sides = [n * s for n, s in zip(plan.patch_size, plan.spacing or (1, 1, 1), strict=True)]
    return max(sides) / min(sides)


def assert_keeps_its_form(data: dict[str, Any], memory: str) -> None:
    config = Config.model_validate({"data": data, "plan": {"memory": memory}})
    whole = config.model_copy(update={"split": config.split.model_copy(update={"fraction": 0.0})})
    with_split, without = pipeline.plan_of(config), pipeline.plan_of(whole)
    assert with_split.n_positions is not None
    assert with_split.n_positions >= 64
    ratio = anisotropy(with_split) / anisotropy(without)
    assert max(ratio, 1 / ratio) <= 1.5 + 1e-9
    assert min(with_split.patch_size) >= 16


@pytest.mark.parametrize("memory", ["8GiB", "2GiB"])
@pytest.mark.parametrize("name", REAL)
def test_a_real_single_volume_does_not_deform_the_patch(
    name: str, memory: str, real_data: Callable[[str], Path]
) -> None:
    assert_keeps_its_form(REAL[name](real_data(name)), memory)


@pytest.mark.parametrize("memory", ["8GiB", "2GiB"])
def test_a_cube_of_250_does_not_deform_the_patch(tmp_path: Path, memory: str) -> None:
    for what in ("images", "labels"):
        (tmp_path / what).mkdir()
        np.save(tmp_path / what / "a.npy", np.zeros((250, 250, 250), np.uint8))
    data = {"root": tmp_path, "spacing": (0.01, 0.01, 0.01), "label_kind": "instances"}
    assert_keeps_its_form(data, memory)


@pytest.mark.parametrize("shape", [(64, 160, 160), (100, 100, 100), (24, 540, 640), (6, 512, 512)])
@pytest.mark.parametrize("memory", ["4GiB", "8GiB", "32GiB"])
def test_much_memory_does_not_make_a_patch_a_strip_or_a_crumb(
    tmp_path: Path, shape: Shape3, memory: str
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", np.ones(shape, np.uint8))
    plans = [
        pipeline.plan_of(
            Config.model_validate(
                {"data": {"root": tmp_path, "spacing": (1, 1, 1)}, "plan": {"memory": given}}
            )
        )
        for given in ("1GiB", memory)
    ]
    sides = sorted(plans[1].patch_size)
    assert sides[2] <= 3 * sides[1]
    assert math.prod(plans[1].patch_size) >= math.prod(plans[0].patch_size) / 3
