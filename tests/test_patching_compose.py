"""Strategies around a strategy: blocks of volumes, foreground, epochs of any length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.geometry import Box
from volprep.patching import (
    BlockPatching,
    EpochPatching,
    ForegroundPatching,
    Patching,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    block_shapes,
)
from volprep.randomness import sample_generator
from volprep.sampling import ForegroundIndex

PATCH = (4, 6, 6)
BLOCKS = [
    (0, Box((0, 0, 0), (8, 20, 20))),
    (2, Box((3, 5, 7), (5, 25, 27))),  # thinner than a patch
    (0, Box((12, 0, 0), (20, 20, 20))),
]


class Labels:
    spacing = None

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, (1, *array.shape), array.dtype

    def read(self, box=None):
        return self.array[None] if box is None else self.array[box.slices][None]


def placed(strategy=RandomPatching):
    return BlockPatching(strategy(block_shapes(BLOCKS, PATCH), PATCH), BLOCKS, PATCH)


@pytest.mark.parametrize("strategy", [RandomPatching, SequentialPatching, StratifiedPatching])
def test_patches_stay_in_their_blocks(strategy):
    patching = placed(strategy)
    assert isinstance(patching, Patching)
    for i in range(patching.n_patches):
        spec = patching.get_patch_spec(i, sample_generator(0, 0, i))
        box = Box.at(spec["coords"], PATCH)
        if spec["data_idx"] == 2:
            assert box.start[0] == 2  # 2 planes in a patch of 4: one before, one after
            assert 5 <= box.start[1] <= 19
            assert 7 <= box.start[2] <= 21
        else:
            blocks = [b for v, b in BLOCKS if v == 0]
            assert any(block.contains(box) for block in blocks)


def test_a_volume_has_the_patches_of_all_its_blocks():
    patching = placed()
    for volume in (0, 1, 2):
        for i in patching.get_patch_indices(volume):
            assert patching.get_patch_spec(i)["data_idx"] == volume
    counts = [len(patching.get_patch_indices(volume)) for volume in (0, 1, 2)]
    assert counts[1] == 0
    assert sum(counts) == patching.n_patches


def foreground_sources():
    labels = np.zeros((30, 30, 30), np.uint16)
    labels[1, 2, 3] = 4
    labels[4, 6, 8] = 5
    return labels, [ForegroundIndex.build(Labels(labels), box=box) for _, box in BLOCKS]


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_the_share_of_patches_around_foreground_is_p(p):
    labels, sources = foreground_sources()
    base = RandomPatching(block_shapes(BLOCKS, PATCH), PATCH, 0)
    patching = BlockPatching(ForegroundPatching(base, sources, p), BLOCKS, PATCH)
    assert patching.n_patches == base.n_patches
    hits = np.zeros(3)
    rng = np.random.default_rng(0)
    draws = 300
    for block in range(3):
        index = base.get_patch_indices(block)[0]
        for _ in range(draws):
            spec = patching.get_patch_spec(index, rng)
            seen = Box.at(spec["coords"], PATCH).clip(labels.shape)
            hits[block] += labels[seen.slices].any()
    assert hits[0] / draws >= p - 0.1
    assert (hits[0] / draws > 0.99) == (p == 1)
    assert hits[1] / draws >= p - 0.1
    assert hits[2] == 0  # nothing is labelled there: left to the base


def test_patches_around_foreground_stay_in_their_blocks():
    _, sources = foreground_sources()
    base = RandomPatching(block_shapes(BLOCKS, PATCH), PATCH, 0)
    patching = BlockPatching(ForegroundPatching(base, sources, 1.0), BLOCKS, PATCH)
    for i in base.get_patch_indices(1):
        z, y, x = patching.get_patch_spec(i)["coords"]
        assert (z, 5 <= y <= 19, 7 <= x <= 21) == (2, True, True)
    for i in base.get_patch_indices(0):
        assert BLOCKS[0][1].contains(Box.at(patching.get_patch_spec(i)["coords"], PATCH))


def test_stacks_without_a_source_are_left_to_the_base():
    shapes = [(1, 1, 8, 8, 8)]
    patching = ForegroundPatching(RandomPatching(shapes, (4, 4, 4), 0), [None], 1.0)
    assert len({patching.get_patch_spec(0)["coords"] for _ in range(50)}) > 20
    with pytest.raises(ValueError, match="0 to 1"):
        ForegroundPatching(RandomPatching(shapes, (4, 4, 4)), [None], 1.2)


@given(
    st.integers(0, 200),
    st.lists(st.floats(0, 5), min_size=3, max_size=3).filter(lambda w: sum(w[::2]) > 0.01),
)
def test_an_epoch_is_as_long_as_wanted_and_shared_by_weight(count, weights):
    patching = EpochPatching(placed(), 3, n_patches=count, weights=weights)
    assert patching.n_patches == count
    got = [len(patching.get_patch_indices(i)) for i in range(3)]
    possible = [weights[0], 0, weights[2]]  # volume 1 has no patches
    for n, w in zip(got, possible, strict=True):
        assert abs(n - count * w / sum(possible)) < 1
    for i in range(count):
        assert i in patching.get_patch_indices(patching.get_patch_spec(i)["data_idx"])


def test_without_weights_stacks_have_the_share_of_their_patches():
    base = placed()
    patching = EpochPatching(base, 3, n_patches=10 * base.n_patches)
    for volume in range(3):
        expected = 10 * len(base.get_patch_indices(volume))
        assert len(patching.get_patch_indices(volume)) == expected


def test_a_number_of_patches_per_stack():
    patching = EpochPatching(placed(), 3, per_stack=7)
    assert [len(patching.get_patch_indices(i)) for i in range(3)] == [7, 0, 7]


@pytest.mark.parametrize("count", [3, 30, 100])
def test_an_epoch_goes_evenly_through_the_base(count):
    base = SequentialPatching([(1, 1, 60, 40)], (10, 8))
    patching = EpochPatching(base, 1, n_patches=count)
    found = [patching.get_patch_spec(i)["coords"] for i in range(count)]
    uses = [found.count(spec["coords"]) for spec in base.patch_specs]
    assert max(uses) - min(uses) <= 2
    if count == base.n_patches:
        assert found == [spec["coords"] for spec in base.patch_specs]


def test_a_patch_of_the_whole_stack_depends_on_the_generator_only():
    _, sources = foreground_sources()
    specs = []
    for _ in range(2):
        base = StratifiedPatching(block_shapes(BLOCKS, PATCH), PATCH)
        blocks = BlockPatching(ForegroundPatching(base, sources, 0.5), BLOCKS, PATCH)
        epoch = EpochPatching(blocks, 3, n_patches=40)
        specs.append([epoch.get_patch_spec(i, sample_generator(1, 2, i)) for i in range(40)])
    assert specs[0] == specs[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_patches": 3, "per_stack": 2},
        {"n_patches": 3, "weights": [1, 1]},
        {"n_patches": 3, "weights": [1, -1, 1]},
        {"n_patches": 3, "weights": [0, 1, 0]},
        {"n_patches": 3, "weights": [1, float("nan"), 1]},
    ],
)
def test_an_epoch_that_cannot_be_is_a_value_error(options):
    with pytest.raises(ValueError, match=r"weights|either"):
        EpochPatching(placed(), 3, **options)
