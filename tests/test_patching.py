"""Every strategy: the same interface, the numbers of the reference document, clear errors."""

import itertools
import math
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.patching import (
    FixedPatching,
    FixedRandomPatching,
    Patching,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    TiledPatching,
    WholeSamplePatching,
    create_patching,
    is_tile_specs,
    pad_to_patch,
)
from volprep.randomness import sample_generator

MAKERS = {
    "random": lambda shapes, patch: RandomPatching(shapes, patch, 42),
    "fixed_random": lambda shapes, patch: FixedRandomPatching(shapes, patch, 42),
    "sequential": lambda shapes, patch: SequentialPatching(shapes, patch, [p // 3 for p in patch]),
    "stratified": lambda shapes, patch: StratifiedPatching(shapes, patch, 42),
    "uniform": lambda shapes, patch: StratifiedPatching(shapes, patch, 42, uniform=True),
    "tiled": lambda shapes, patch: TiledPatching(shapes, patch, [p // 3 for p in patch]),
    "whole": lambda shapes, patch: WholeSamplePatching(shapes),
    "fixed": lambda shapes, patch: FixedPatching(
        [dict(spec) for spec in FixedRandomPatching(shapes, patch, 7).fixed_patch_specs]
    ),
}
every_strategy = pytest.mark.parametrize("name", MAKERS)
THAT_DRAW = ("random", "stratified", "uniform")


@st.composite
def stacks(draw):
    """Shapes of some stacks and a patch that fits into all of them, 2D or 3D."""
    ndim = draw(st.integers(2, 3))
    patch = draw(st.lists(st.integers(1, 6), min_size=ndim, max_size=ndim))
    count = draw(st.integers(1, 3))
    shapes = [
        (draw(st.integers(1, 2)), 1, *[p + draw(st.integers(0, 9)) for p in patch])
        for _ in range(count)
    ]
    return shapes, tuple(patch)


def all_specs(patching, rng=None):
    return [patching.get_patch_spec(i, rng) for i in range(patching.n_patches)]


@every_strategy
@given(stack=stacks())
def test_patches_lie_inside_their_sample(name, stack):
    shapes, patch = stack
    patching = MAKERS[name](shapes, patch)
    assert isinstance(patching, Patching)
    specs = all_specs(patching)
    assert specs
    for spec in specs:
        shape = shapes[spec["data_idx"]]
        assert 0 <= spec["sample_idx"] < shape[0]
        assert all(isinstance(c, int) for c in spec["coords"])
        for c, p, n in zip(spec["coords"], spec["patch_size"], shape[2:], strict=True):
            assert 0 <= c <= n - p


@every_strategy
@given(stack=stacks())
def test_each_index_belongs_to_one_stack_and_every_sample_has_some(name, stack):
    shapes, patch = stack
    patching = MAKERS[name](shapes, patch)
    specs = all_specs(patching)
    indices = [patching.get_patch_indices(i) for i in range(len(shapes))]
    assert list(itertools.chain(*indices)) == list(range(patching.n_patches))
    for data_idx, own in enumerate(indices):
        assert {specs[i]["data_idx"] for i in own} <= {data_idx}
    samples = {(spec["data_idx"], spec["sample_idx"]) for spec in specs}
    assert len(samples) == sum(shape[0] for shape in shapes)


@every_strategy
def test_an_index_out_of_range_is_an_index_error(name):
    patching = MAKERS[name]([(2, 1, 9, 9)], (4, 4))
    for index in (patching.n_patches, -1, 10**9):
        with pytest.raises(IndexError):
            patching.get_patch_spec(index)
    if name != "fixed":
        with pytest.raises(IndexError, match="data_idx 1"):
            patching.get_patch_indices(1)


@pytest.mark.parametrize("name", THAT_DRAW)
def test_with_a_generator_a_patch_depends_on_nothing_else(name):
    shapes, patch = [(1, 1, 40, 50, 60), (2, 1, 33, 33, 33)], (8, 16, 16)
    one, other = MAKERS[name](shapes, patch), MAKERS[name](shapes, patch)
    forward = [one.get_patch_spec(i, sample_generator(3, 1, i)) for i in range(one.n_patches)]
    all_specs(other)  # its own generator has moved on
    backward = [
        other.get_patch_spec(i, sample_generator(3, 1, i)) for i in reversed(range(one.n_patches))
    ]
    assert forward == backward[::-1]
    later = [one.get_patch_spec(i, sample_generator(3, 2, i)) for i in range(one.n_patches)]
    assert forward != later


@pytest.mark.parametrize("name", THAT_DRAW)
def test_without_a_generator_two_draws_differ_and_a_seed_repeats_them(name):
    shapes, patch = [(1, 1, 64, 64)], (8, 8)
    one, other = MAKERS[name](shapes, patch), MAKERS[name](shapes, patch)
    first = all_specs(one)
    assert all_specs(one) != first
    assert all_specs(other) == first


@pytest.mark.parametrize("name", ["fixed_random", "sequential", "tiled", "whole", "fixed"])
def test_strategies_without_chance_repeat_themselves(name):
    patching = MAKERS[name]([(2, 1, 19, 23)], (8, 5))
    assert all_specs(patching) == all_specs(patching, np.random.default_rng(0))


@given(stack=stacks())
def test_random_counts_are_the_tiles_of_each_sample(stack):
    shapes, patch = stack
    tiles = [
        shape[0] * math.prod(math.ceil(n / p) for n, p in zip(shape[2:], patch, strict=True))
        for shape in shapes
    ]
    for strategy in (RandomPatching(shapes, patch), FixedRandomPatching(shapes, patch)):
        assert strategy.n_patches == sum(tiles)
        assert [len(strategy.get_patch_indices(i)) for i in range(len(shapes))] == tiles


def test_random_patches_reach_every_place_evenly():
    patching = RandomPatching([(1, 1, 6, 9)], (4, 4), 0)
    starts = [patching.get_patch_spec(0)["coords"] for _ in range(9000)]
    places, counts = np.unique(starts, axis=0, return_counts=True)
    assert len(places) == 3 * 6
    assert abs(counts - 500).max() < 120
    fixed = FixedRandomPatching([(500, 1, 6, 9)], (4, 4), 0)
    assert len({spec["coords"] for spec in fixed.fixed_patch_specs}) == 3 * 6


@given(stack=stacks(), data=st.data())
def test_a_grid_steps_by_patch_less_overlap_and_ends_with_the_sample(stack, data):
    shapes, patch = stack
    overlaps = [data.draw(st.integers(0, p - 1)) for p in patch]
    patching = SequentialPatching(shapes, patch, overlaps)
    assert list(patching.patch_specs) == all_specs(patching)
    for data_idx, shape in enumerate(shapes):
        axes = []
        for n, p, o in zip(shape[2:], patch, overlaps, strict=True):
            starts = []
            while not starts or starts[-1] + p < n:
                starts.append(min(n - p, starts[-1] + p - o) if starts else 0)
            axes.append(starts)
        found = [patching.get_patch_spec(i)["coords"] for i in patching.get_patch_indices(data_idx)]
        assert found == list(itertools.product(*axes)) * shape[0]


def test_tiles_are_those_of_the_reference():
    patching = TiledPatching([(1, 1, 30, 30)], (16, 16), (4, 4))
    last_axis = patching.tile_specs[:3]
    assert [spec["coords"][1] for spec in last_axis] == [0, 12, 14]
    assert [spec["stitch_coords"][1] for spec in last_axis] == [0, 14, 26]
    assert [spec["crop_coords"][1] for spec in last_axis] == [0, 2, 12]
    assert [spec["crop_size"][1] for spec in last_axis] == [14, 12, 4]
    assert {spec["total_tiles"] for spec in patching.tile_specs} == {9}
    assert TiledPatching([(3, 1, 30, 30)], (16, 16), (4, 4)).get_patch_spec(0)["total_tiles"] == 27


def test_a_sample_smaller_than_a_tile_is_one_tile_of_its_own_size():
    (spec,) = TiledPatching([(1, 1, 5, 7)], (16, 16), (4, 4)).tile_specs
    assert (spec["coords"], spec["crop_size"]) == ((0, 0), (5, 7))


def test_only_tiles_say_how_to_stitch():
    shapes, patch = [(1, 1, 9, 9)], (4, 4)
    specs = {name: make(shapes, patch).get_patch_spec(0) for name, make in MAKERS.items()}
    assert [name for name, spec in specs.items() if is_tile_specs(spec)] == ["tiled"]


def test_whole_samples_are_patches():
    patching = WholeSamplePatching([(2, 1, 5, 6), (1, 3, 7, 8)])
    assert patching.n_patches == 3
    assert patching.get_patch_spec(2) == {
        "data_idx": 1,
        "sample_idx": 0,
        "coords": (0, 0),
        "patch_size": (7, 8),
    }


@pytest.mark.parametrize("name", ["random", "fixed_random", "sequential", "stratified", "uniform"])
@pytest.mark.parametrize(
    ("shapes", "patch", "message"),
    [
        ([(1, 1, 8, 8), (1, 1, 8, 3)], (4, 4), r"data_shapes\[1\].*larger than the sample"),
        ([(1, 1, 8, 8, 8)], (4, 4), "needs the axes SCYX"),
        ([(1, 1, 8, 8)], (4, 4, 4), "needs the axes SCZYX"),
        ([(8, 8)], (4, 4), "needs the axes"),
        ([(1, 1, 8, 8)], (4,), "2 or 3 sizes"),
        ([(1, 1, 8, 8)], (4, 0), "1 or more"),
        ([(0, 1, 8, 8)], (4, 4), "1 or more"),
    ],
)
def test_shapes_and_patches_that_do_not_go_together_are_value_errors(name, shapes, patch, message):
    with pytest.raises(ValueError, match=message):
        MAKERS[name](shapes, patch)


@pytest.mark.parametrize("strategy", [SequentialPatching, TiledPatching])
@pytest.mark.parametrize("overlaps", [(4, 2), (-1, 2), (2,), (2, 2, 2)])
def test_overlaps_must_be_smaller_than_the_patch_and_as_many(strategy, overlaps):
    with pytest.raises(ValueError, match="overlaps"):
        strategy([(1, 1, 8, 8)], (4, 4), overlaps)


def test_whole_samples_need_a_shape_of_four_or_five_sizes():
    with pytest.raises(ValueError, match="SC"):
        WholeSamplePatching([(8, 8)])


class Name(Enum):
    TILED = "tiled"


@dataclass
class Settings:
    name: object
    patch_size: tuple[int, ...] = (4, 4)
    overlaps: tuple[int, ...] = (2, 2)
    seed: int | None = 3
    fixed_patch_specs: tuple[dict, ...] = ()
    unrelated: str = "is not looked at"


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("random", RandomPatching),
        ("fixed_random", FixedRandomPatching),
        ("sequential", SequentialPatching),
        ("stratified", StratifiedPatching),
        ("tiled", TiledPatching),
        (Name.TILED, TiledPatching),
        ("whole", WholeSamplePatching),
        ("fixed", FixedPatching),
    ],
)
def test_a_config_of_any_class_goes_by_its_name(name, strategy):
    shapes = [(1, 1, 9, 9)]
    for config in (Settings(name), SimpleNamespace(**vars(Settings(name)))):
        assert type(create_patching(shapes, config)) is strategy
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", name=(object, name), patch_size=(list[int], [4, 4]))
    if strategy not in (TiledPatching, FixedPatching):
        assert type(create_patching(shapes, model())) is strategy
        keys = {"name": name} | ({} if strategy is WholeSamplePatching else {"patch_size": [4, 4]})
        assert type(create_patching(shapes, keys)) is strategy


def test_parameters_reach_the_strategy():
    shapes = [(1, 1, 20, 20)]
    made = create_patching(shapes, {"name": "stratified", "patch_size": (4, 4), "uniform": True})
    assert made.uniform
    made = create_patching(shapes, {"name": "sequential", "patch_size": (4, 4), "overlaps": (1, 1)})
    assert made.n_patches == SequentialPatching(shapes, (4, 4), (1, 1)).n_patches


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "stratifed", "patch_size": (4, 4)}, "did you mean stratified"),
        ({"patch_size": (4, 4)}, "no name"),
        (object(), "no name"),
        ({"name": "random"}, "patch_size not given"),
        ({"name": "tiled", "patch_size": (4, 4)}, "overlaps not given"),
        ({"name": "random", "patchsize": (4, 4)}, "did you mean patch_size"),
        ({"name": "whole", "patch_size": (4, 4)}, "unknown 'patch_size'"),
    ],
)
def test_configs_that_cannot_be_used_say_why(config, message):
    with pytest.raises(ValueError, match=message):
        create_patching([(1, 1, 9, 9)], config)


@pytest.mark.parametrize(
    "change", [{"coords": (6, 0)}, {"coords": (-1, 0)}, {"sample_idx": 1}, {"data_idx": 1}]
)
def test_fixed_patches_of_a_config_must_lie_in_the_data(change):
    spec = {"data_idx": 0, "sample_idx": 0, "coords": (0, 0), "patch_size": (4, 4)}
    create_patching([(1, 1, 9, 9)], {"name": "fixed", "fixed_patch_specs": [spec]})
    with pytest.raises(ValueError, match="fixed patch"):
        create_patching([(1, 1, 9, 9)], {"name": "fixed", "fixed_patch_specs": [spec | change]})


def test_small_volumes_are_padded_on_both_sides():
    assert pad_to_patch((5, 20, 7), (8, 16, 10)) == ((8, 20, 10), (1, 0, 1))
    assert pad_to_patch((1, 5, 20, 7), (4, 16, 7)) == ((5, 20, 7), (0, 0, 0))


def test_thousands_of_samples_take_no_longer_to_name():
    patching = RandomPatching([(5000, 1, 32, 32)] * 20, (16, 16), 0)
    assert patching.n_patches == 400_000
    assert patching.get_patch_spec(399_999)["sample_idx"] == 4999
