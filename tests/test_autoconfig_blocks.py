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
from volprep.autoconfig import Plan, places_in, rooms_for_patches
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


def room_of(shape: Shape3, spacing: tuple[float, float, float] | None = None) -> Shape3:
    """The largest of the rooms."""
    rooms = rooms_for_patches(shape, spacing, lambda patch: halved_along(shape, patch))
    return max(rooms, key=math.prod)


@pytest.mark.parametrize("side", [64, 100, 125, 250, 500])
def test_a_cube_stays_near_to_a_cube_and_half_is_trained_on(side: int) -> None:
    room = room_of((side,) * 3)
    assert max(room) <= 1.5 * min(room)
    trained, blocks = halved_along((side,) * 3, room) or (0.0, [])
    assert trained >= 0.35
    assert places_in(blocks, room) >= 64


def test_a_thin_stack_is_cut_across() -> None:
    room = room_of((20, 512, 512))
    assert room[0] == 20
    assert min(room[1:]) >= 128


def test_what_the_volume_is_long_along_may_the_patch_be_too() -> None:
    assert room_of((400, 100, 100)) == (96, 100, 100)
    assert room_of((100, 100, 100), (2.2, 1.0, 1.0)) == (32, 100, 64)


def test_where_nothing_can_be_divided_there_is_no_room() -> None:
    assert rooms_for_patches((32, 32, 32), None, lambda _patch: None) == []


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(SIDES, SIDES, SIDES))
def test_a_block_can_be_held_out_for_every_room(shape: Shape3) -> None:
    rooms = rooms_for_patches(shape, None, lambda patch: halved_along(shape, patch))
    assert bool(rooms) == (max(shape) >= 3)
    for room in rooms:
        assert all(1 <= a <= b for a, b in zip(room, shape, strict=True))
        division = halved_along(shape, room)
        assert division is not None
        assert places_in(division[1], room) >= 1


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


MEMORIES = (1, 2, 4, 8, 16, 32, 80)


def plans_of(data: dict[str, Any], *, fraction: float | None = None) -> list[Plan]:
    """For ever more memory."""
    split = {} if fraction is None else {"fraction": fraction}
    return [
        pipeline.plan_of(
            Config.model_validate({"data": data, "plan": {"memory": f"{gib}GiB"}, "split": split})
        )
        for gib in MEMORIES
    ]


@pytest.mark.parametrize("name", REAL)
def test_more_memory_never_makes_the_patch_of_a_real_volume_smaller(
    name: str, real_data: Callable[[str], Path]
) -> None:
    sizes = [math.prod(plan.patch_size) for plan in plans_of(REAL[name](real_data(name)))]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((64, 160, 160), (1, 1, 1)), ((250, 250, 250), (1, 1, 1)), ((24, 540, 640), (1, 1, 1)),
        ((6, 512, 512), (1, 1, 1)), ((40, 90, 700), (3, 1, 1)), ((61, 61, 233), (5, 1, 1)),
    ],
)  # fmt: skip
def test_more_memory_never_makes_a_patch_smaller_nor_a_strip(
    tmp_path: Path, shape: Shape3, spacing: tuple[float, float, float]
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", np.ones(shape, np.uint8))
    data = {"root": tmp_path, "spacing": spacing, "label_kind": "instances"}
    plans, undivided = plans_of(data), plans_of(data, fraction=0.0)
    sizes = [math.prod(plan.patch_size) for plan in plans]
    assert sizes == sorted(sizes)
    for plan, whole in zip(plans, undivided, strict=True):
        assert plan.n_positions is not None
        assert plan.n_positions >= 64
        assert anisotropy(plan) <= 1.5 * anisotropy(whole) + 1e-9
