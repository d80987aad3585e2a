"""Plans: what always holds of them, what they follow, and what torch says of their bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from volprep.autoconfig import (
    Plan,
    UNet,
    augmentation_patch,
    choose_target_spacing,
    design_network,
    make_plan,
    resampled_shape,
    training_bytes,
)
from volprep.autoconfig.memory import parameter_count
from volprep.config import parse_memory
from volprep.errors import PlanError
from volprep.files import format_memory
from volprep.loader import PlannedUNet

GIB = 2**30


# What always holds


def assert_sound(plan: Plan, shape: Sequence[int], memory: int, min_batch: int) -> None:
    assert all(n % 2**k == 0 for n, k in zip(plan.patch_size, plan.pool, strict=True))
    assert all(1 <= p <= 1.25 * n for p, n in zip(plan.patch_size, shape, strict=True))
    assert plan.memory_bytes <= memory
    assert plan.batch_size >= min_batch
    assert all(a >= p for a, p in zip(plan.aug_patch_size, plan.patch_size, strict=True))
    assert math.prod(s for stride in plan.strides for s in stride) == 2 ** sum(plan.pool)


lengths = st.floats(1e-3, 1e3, allow_nan=False)


@settings(max_examples=300)
@given(
    st.tuples(*[st.integers(1, 12).flatmap(lambda e: st.integers(1, 2**e))] * 3),
    st.none() | st.tuples(lengths, lengths, lengths),
    st.sampled_from([1, 2, 8, 24, 80]),
    st.sampled_from([(1, 1), (2, 16), (4, 4)]),
    st.sampled_from(["mixed", "fp32"]),
    st.tuples(st.integers(1, 4), st.integers(2, 40)),
)
def test_any_shape_and_spacing_has_a_sound_plan(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] | None,
    gib: int,
    batches: tuple[int, int],
    precision: Any,
    channels_classes: tuple[int, int],
) -> None:
    plan = make_plan(
        shape, spacing=spacing, memory=gib * GIB, precision=precision,
        min_batch=batches[0], max_batch=batches[1],
        n_channels=channels_classes[0], n_classes=channels_classes[1],
    )  # fmt: skip
    assert_sound(plan, shape, gib * GIB, batches[0])
    assert plan.batch_size <= batches[1]


@given(
    st.tuples(*[st.integers(1, 400)] * 3),
    st.none() | st.tuples(*[st.integers(0, 5)] * 3),
    st.none() | st.integers(1, 8),
)
def test_given_values_are_kept_or_refused(
    shape: tuple[int, int, int], pool: tuple[int, int, int] | None, batch: int | None
) -> None:
    try:
        plan = make_plan(shape, pool=pool, batch_size=batch)
    except PlanError:
        return
    assert pool is None or plan.pool == pool
    assert batch is None or plan.batch_size == batch
    assert_sound(plan, shape, 8 * GIB, batch or 2)


# What plans follow


def test_patch_comes_near_to_a_cube_in_micrometres() -> None:
    plan = make_plan((400, 2000, 2000), spacing=(0.3, 0.1, 0.1))
    sides = [n * s for n, s in zip(plan.patch_size, (0.3, 0.1, 0.1), strict=True)]
    assert max(sides) / min(sides) < 1.3


def test_thin_volume_gives_its_depth_to_the_plane() -> None:
    thick, thin = make_plan((512, 512, 512)), make_plan((16, 512, 512))
    assert thin.patch_size[0] == 16
    assert thin.patch_size[1] > thick.patch_size[1]


def test_coarse_axis_is_pooled_and_convolved_later() -> None:
    network = design_network((32, 256, 256), (0.4, 0.1, 0.1))
    assert network.strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert network.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_no_axis_is_pooled_while_twice_as_coarse() -> None:
    network = design_network((64, 64, 64), (2.0, 1.0, 1.0))
    assert network.strides[1] == (1, 2, 2)
    assert network.strides[2] == (2, 2, 2)


def test_small_axis_does_not_hold_the_others_back() -> None:
    assert design_network((8, 512, 512), (1, 1, 1)).pool == (1, 5, 5)


def test_flat_images_are_planned_in_the_plane() -> None:
    plan = make_plan((1, 1024, 1024))
    assert plan.patch_size[0] == plan.aug_patch_size[0] == 1
    assert plan.pool[0] == 0
    assert all(k[0] == 1 for k in plan.kernel_sizes)


def test_more_memory_never_gives_a_smaller_patch() -> None:
    sizes = [
        math.prod(make_plan((300, 900, 900), spacing=(3, 1, 1), memory=g * GIB).patch_size)
        for g in (2, 4, 8, 16, 32, 64)
    ]
    assert sizes == sorted(sizes)


def test_whole_image_is_taken_where_it_fits_and_the_batch_grows() -> None:
    plan = make_plan((64, 64, 64))
    assert plan.patch_size == (64, 64, 64)
    assert plan.batch_size == 16


def test_few_images_keep_the_batch_small() -> None:
    assert make_plan((64, 64, 64), n_images=4).batch_size == 2


def test_target_spacing_changes_the_median_shape() -> None:
    plan = make_plan((100, 200, 200), spacing=(2, 1, 1), target_spacing=(1, 1, 1))
    assert plan.median_shape == (200, 200, 200)
    assert plan.spacing == plan.target_spacing == (1, 1, 1)
    assert "target_spacing" in plan.given
    assert "target_spacing" in plan.reasons


def test_every_value_has_a_reason() -> None:
    plan = make_plan((96, 512, 512), spacing=(0.3, 0.1, 0.1))
    for name in ("patch_size", "pool", "batch_size", "aug_patch_size", "kernel_sizes"):
        assert plan.reasons[name]
    text = "\n".join(plan.explain())
    for part in plan.memory:
        assert part in text


def test_a_plan_survives_json() -> None:
    plan = make_plan((96, 512, 512), spacing=(0.3, 0.1, 0.1), patch_size=(32, 128, 128))
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_plan_from_other_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size"):
        Plan.from_dict({"planner": "memory"})


# What cannot be, and the smallest change that helps


@pytest.mark.parametrize(
    ("shape", "memory"), [((96, 512, 512), 2**20), ((3, 900, 900), 2**24), ((512,) * 3, 2**26)]
)
def test_too_little_memory_names_what_is_enough(shape: Any, memory: int) -> None:
    with pytest.raises(PlanError, match=r"give memory [\d.]+[GM]iB") as error:
        make_plan(shape, memory=memory, patch_size=[min(n, 64) for n in shape], precision="fp32")
    enough = parse_memory(re.findall(r"give memory ([\d.]+[GM]iB)", str(error.value))[0])
    make_plan(shape, memory=enough, patch_size=[min(n, 64) for n in shape], precision="fp32")


def test_too_large_a_batch_names_the_batch_that_fits() -> None:
    with pytest.raises(PlanError, match=r"or batch_size (\d+)") as error:
        make_plan((96, 512, 512), patch_size=(64, 256, 256), batch_size=12)
    fitting = int(str(error.value).split("batch_size ")[1])
    plan = make_plan((96, 512, 512), patch_size=(64, 256, 256), batch_size=fitting)
    assert plan.batch_size == fitting


def test_given_patch_that_pooling_does_not_divide_names_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"give patch_size \[32, 96, 96\] or pool \[5, 2, 2\]"):
        make_plan((96, 512, 512), patch_size=(32, 100, 100), pool=(5, 5, 5))


def test_given_pool_beyond_the_image_names_the_most_possible() -> None:
    with pytest.raises(PlanError, match="give at most 4"):
        make_plan((20, 512, 512), pool=(5, 5, 5))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"median_shape": (0, 5, 5)}, "median_shape"),
        ({"median_shape": (5, 5)}, "median_shape"),
        ({"spacing": (0, 1, 1)}, "spacing"),
        ({"target_spacing": (1, 1, 1)}, "target_spacing"),
        ({"memory": 0}, "memory"),
        ({"min_batch": 5, "max_batch": 4}, "min_batch"),
        ({"planner": "other"}, "planner"),
        ({"aug_patch_size": (2, 2, 2)}, "aug_patch_size"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(PlanError, match=word):
        make_plan(**{"median_shape": (96, 512, 512), **arguments})


# The augmentation patch


def test_right_angle_in_the_plane_needs_the_diagonal() -> None:
    assert augmentation_patch((16, 30, 40), rotation=(180, 0, 0)) == (16, 50, 50)


def test_small_angle_needs_less_than_the_diagonal() -> None:
    wanted = 100 * (math.cos(math.radians(10)) + math.sin(math.radians(10)))
    side = 100 + 2 * math.ceil((wanted - 100) / 2)
    assert augmentation_patch((16, 100, 100), rotation=(10, 0, 0)) == (16, side, side)


def test_rotation_goes_by_micrometres() -> None:
    z, y, x = augmentation_patch((10, 40, 40), (4, 1, 1), rotation=(0, 180, 0))
    assert (z, y) == (math.ceil(math.hypot(40, 40) / 4 / 2) * 2, 40)
    assert x >= math.hypot(40, 40)


def test_scaling_down_shows_more() -> None:
    assert augmentation_patch((8, 64, 64), rotation=(0, 0, 0), scale=(0.8, 1.25)) == (10, 80, 80)


@settings(max_examples=60)
@given(
    st.tuples(*[st.integers(2, 60)] * 3),
    st.tuples(*[st.floats(0.2, 5)] * 3),
    st.tuples(*[st.sampled_from([0.0, 15.0, 30.0, 75.0, 90.0, 180.0])] * 3),
    st.integers(0, 2**32 - 1),
)
def test_every_rotation_in_range_stays_inside(
    patch: tuple[int, int, int],
    spacing: tuple[float, float, float],
    rotation: tuple[float, float, float],
    seed: int,
) -> None:
    larger = augmentation_patch(patch, spacing, rotation=rotation)
    half = np.array(patch) * spacing / 2
    corners = np.array(np.meshgrid(*[(-h, h) for h in half])).reshape(3, -1)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        turned = corners
        for axis in rng.permutation(3):
            angle = math.radians(rng.uniform(-rotation[axis], rotation[axis]))
            a, b = (i for i in range(3) if i != axis)
            matrix = np.eye(3)
            matrix[a, a] = matrix[b, b] = math.cos(angle)
            matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
            turned = matrix @ turned
        slack = 0.01 * math.hypot(*half)
        assert (turned.max(axis=1) <= np.array(larger) * spacing / 2 + slack).all()


# Target spacing


def test_target_spacing_rules() -> None:
    spacings = [(3.0, 1.0, 1.0), (2.0, 0.5, 1.0), (4.0, 1.0, 1.0)]
    assert choose_target_spacing(spacings, "none") is None
    assert choose_target_spacing(spacings, "median") == (3.0, 1.0, 1.0)
    assert choose_target_spacing(spacings, "finest") == (2.0, 0.5, 1.0)
    assert choose_target_spacing(spacings, (1, 1, 1)) == (1.0, 1.0, 1.0)


def test_target_spacing_needs_every_spacing() -> None:
    with pytest.raises(PlanError, match="1 of 2 volumes carry no spacing"):
        choose_target_spacing([(1.0, 1.0, 1.0), None], "median")


def test_resampled_shape_keeps_the_extent() -> None:
    assert resampled_shape((10, 100, 7), (3, 0.5, 1), (1, 1, 100)) == (30, 50, 1)


# The bytes, against torch


def written_out(plan: UNet) -> PlannedUNet:
    """The network of `UNet` in torch."""
    return PlannedUNet(
        strides=plan.strides, kernels=plan.kernels, features=plan.widths,
        n_channels=plan.n_channels, n_outputs=plan.n_classes, convolutions=plan.convolutions,
    )  # fmt: skip


def training_loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    scores = scores.float()
    share = torch.softmax(scores, dim=1)
    truth = functional.one_hot(target, scores.shape[1]).movedim(-1, 1).float()
    both = (share * truth).sum((0, 2, 3, 4))
    either = share.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
    return functional.cross_entropy(scores, target) - (2 * both / (either + 1)).mean()


def bytes_that_torch_saves(design: UNet, patch: Sequence[int], batch: int, mixed: bool) -> int:
    network = written_out(design)
    image = torch.randn(batch, design.n_channels, *patch)
    target = torch.randint(0, design.n_classes, (batch, *patch))
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            scores = network(image)
        training_loss(scores, target)
    return sum(storage.nbytes() for storage in saved.values())


CUBES = ((1, 1, 1), (2, 2, 2), (2, 2, 2))


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
@pytest.mark.parametrize(
    ("design", "patch", "batch"),
    [
        (UNet(CUBES, ((3, 3, 3),) * 3), (16, 16, 16), 2),
        (design_network((8, 32, 32), (4, 1, 1)), (8, 32, 32), 1),
        (design_network((1, 64, 64), None, n_classes=4), (1, 64, 64), 3),
        (design_network((24, 16, 40), (1, 1, 1), n_channels=3), (24, 16, 40), 1),
        (design_network((16, 16, 16), None, n_channels=2, n_classes=9), (16, 16, 16), 2),
        (UNet(((1, 1, 1), (1, 2, 2)), ((1, 3, 3), (3, 3, 3))), (6, 20, 12), 2),
        (UNet(CUBES, ((3, 3, 3),) * 3, features=8, most_features=16, convolutions=3),
         (16, 24, 16), 2),
        (design_network((64, 8, 8), (1, 6, 6), n_classes=1), (64, 8, 8), 1),
    ],
)  # fmt: skip
def test_bytes_agree_with_what_torch_saves(
    design: UNet, patch: tuple[int, int, int], batch: int, precision: Any
) -> None:
    parts = training_bytes(design, patch, batch, precision)
    trained = 4 * parameter_count(design)
    model = parts["activations"] + parts["loss"] + parts["weights"] - trained
    measured = bytes_that_torch_saves(design, patch, batch, precision == "mixed")
    assert model == pytest.approx(measured, rel=1e-4)


def test_parameters_are_counted_exactly() -> None:
    design = design_network((32, 64, 64), (3, 1, 1), n_channels=2, n_classes=5)
    counted = sum(p.numel() for p in written_out(design).parameters())
    assert parameter_count(design) == counted


@pytest.mark.parametrize("planner", ["memory", "biom3d"])
def test_a_given_batch_beyond_the_bounds_is_kept_and_said(planner: Any) -> None:
    plan = make_plan((16, 32, 32), planner=planner, batch_size=40, max_batch=4)
    assert plan.batch_size == 40
    assert "over max_batch 4" in plan.reasons["batch_size"]
    least = make_plan((16, 32, 32), planner=planner, batch_size=1, min_batch=2)
    assert "under min_batch 2" in least.reasons["batch_size"]


def test_a_budget_of_exactly_the_bytes_suffices_and_one_less_does_not() -> None:
    """At equality a patch fits, whether it is given or found."""
    shape = (40, 64, 64)
    plan = make_plan(shape, memory=GIB // 4, min_batch=2)
    needed = plan.memory_bytes - plan.memory["reserve"]
    exact = next(m for m in range(int(needed / 0.9) - 2, 2 * needed) if int(m * 0.9) >= needed)
    again = make_plan(shape, memory=exact, min_batch=2, patch_size=plan.patch_size,
                      batch_size=plan.batch_size)  # fmt: skip
    assert again.batch_size == plan.batch_size
    assert int(exact * 0.9) == needed
    with pytest.raises(PlanError, match="give memory"):
        make_plan(shape, memory=exact - 2, min_batch=2, patch_size=plan.patch_size,
                  batch_size=plan.batch_size)  # fmt: skip
    found = make_plan(shape, memory=exact, min_batch=plan.batch_size, max_batch=plan.batch_size)
    assert found.patch_size == plan.patch_size


def test_memory_is_told_in_the_unit_in_which_it_was_given() -> None:
    given = (24 * 2**30, 24 * 10**9, 10**6, 1_500_000_000, 1_000_001, 2**30 + 1)
    told = ["24 GiB", "24 GB", "1 MB", "1,500 MB", "977 KiB", "1 GiB"]
    assert [format_memory(count) for count in given] == told
