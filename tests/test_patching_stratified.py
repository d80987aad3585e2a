"""Stratified patches: even, as often as computed, never where it is excluded."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.patching import (
    RandomPatching,
    StratifiedPatching,
    count_coverage,
    expected_coverage,
)


@st.composite
def samples(draw):
    """(shape, patch) of one sample, 2D or 3D."""
    ndim = draw(st.integers(2, 3))
    patch = draw(st.lists(st.integers(1, 5), min_size=ndim, max_size=ndim))
    return [p + draw(st.integers(0, 11)) for p in patch], patch


def slow_coverage(shape, patch, *, uniform=False, probs=None, excluded=(), n_patches=1):
    """Weigh every start one by one, then let each patch count for its voxels."""
    coverage, total = np.zeros(shape), 0.0
    for position in itertools.product(
        *[range(1 - p, n) for n, p in zip(shape, patch, strict=True)]
    ):
        start = [min(max(s, 0), n - p) for s, n, p in zip(position, shape, patch, strict=True)]
        if not uniform and tuple(start) != position:
            continue
        cell = tuple(s // p for s, p in zip(start, patch, strict=True))
        touched = itertools.product(
            *[range(s // p, (s + p - 1) // p + 1) for s, p in zip(start, patch, strict=True)]
        )
        weight = (probs or {}).get(cell, 1.0) * set(touched).isdisjoint(excluded)
        box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
        coverage[box] += weight
        total += weight
    return coverage * n_patches / total if total else coverage


def cells_of(shape, patch):
    return list(
        itertools.product(*[range((n + 1) // p) for n, p in zip(shape, patch, strict=True)])
    )


@given(samples(), st.booleans(), st.integers(0, 2**32))
def test_coverage_is_computed_as_start_by_start(sample, uniform, seed):
    shape, patch = sample
    rng = np.random.default_rng(seed)
    cells = cells_of(shape, patch)
    patching = StratifiedPatching([(1, 1, *shape)], patch, 0, uniform=uniform)
    np.testing.assert_allclose(
        expected_coverage(patching),
        slow_coverage(shape, patch, uniform=uniform, n_patches=patching.n_patches),
        atol=1e-9,
    )
    probs = {cell: float(rng.random()) for cell in cells if rng.random() < 0.5}
    excluded = [cell for cell in cells if rng.random() < 0.2]
    patching.set_region_probs(0, 0, probs)
    patching.exclude_patches(0, 0, excluded)
    expected = slow_coverage(
        shape, patch, uniform=uniform, probs=probs, excluded=excluded, n_patches=patching.n_patches
    )
    np.testing.assert_allclose(expected_coverage(patching), expected, atol=1e-9)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("shape", [(40, 40), (37, 23), (16, 40), (14, 20, 11)])
@pytest.mark.parametrize("changed", [False, True])
def test_drawn_coverage_is_the_computed_one_within_chance(uniform, shape, changed):
    patch = (8,) * len(shape)
    patching = StratifiedPatching([(1, 1, *shape)], patch, 1, uniform=uniform)
    if changed:
        cells = patching.get_all_grid_coords()[0, 0]
        patching.set_region_probs(0, 0, {cell: 0.3 for cell in cells[::2]})
        patching.exclude_patches(0, 0, [cells[1]])
    epochs, expected = 300, expected_coverage(patching)
    draws = (patching.get_patch_spec(i) for _ in range(epochs) for i in range(patching.n_patches))
    drawn = count_coverage(draws, shape) / epochs
    # No index can show a voxel more than once, so a count varies less than its mean.
    error = np.sqrt(np.maximum(expected, 1e-12) / epochs)
    assert (abs(drawn - expected) <= 5.5 * error).all()
    assert drawn.sum() == pytest.approx(expected.sum())


@given(samples())
def test_uniform_shows_every_inner_voxel_as_often(sample):
    shape, patch = sample
    patching = StratifiedPatching([(1, 1, *shape)], patch, 0, uniform=True)
    coverage = expected_coverage(patching)
    volume = math.prod(patch)
    positions = math.prod(n + p - 1 for n, p in zip(shape, patch, strict=True))
    c = patching.n_patches * volume / positions
    assert 1 <= c < 1 + volume / positions
    bound = np.ones(shape)  # a factor of 1 and the near faces on each axis
    for axis, (n, p) in enumerate(zip(shape, patch, strict=True)):
        v = np.arange(n)
        faces = 1 + (v < p) + (v >= n - p)
        bound = bound * faces.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    np.testing.assert_allclose(coverage[bound == 1], c)
    assert (coverage >= c * (1 - 1e-12)).all()
    assert (coverage <= c * bound * (1 + 1e-12)).all()


def test_uniform_holds_at_a_patch_from_an_excluded_cell_too():
    patching = StratifiedPatching([(1, 1, 60, 60)], (6, 6), 0, uniform=True)
    patching.exclude_patches(0, 0, [(5, 5)])
    coverage = expected_coverage(patching)
    inner = np.zeros((60, 60), bool)
    inner[6:54, 6:54] = True
    inner[30 - 6 : 36 + 6, 30 - 6 : 36 + 6] = False
    assert np.ptp(coverage[inner]) < 1e-9
    assert coverage[inner].min() >= 1
    assert not coverage[30:36, 30:36].any()


def test_each_epoch_draws_nearly_the_same_number_from_every_cell():
    shapes, patch, epochs = [(1, 1, 128, 128, 128)], (32, 32, 32), 50
    spread = {}
    for strategy in (StratifiedPatching, RandomPatching):
        patching, counts = strategy(shapes, patch, 0), np.zeros((epochs, 4, 4, 4))
        for epoch in range(epochs):
            for i in range(patching.n_patches):
                start = patching.get_patch_spec(i)["coords"]
                counts[(epoch, *(s // 32 for s in start))] += 1
        spread[strategy] = counts[:, :3, :3, :3].var(axis=0).mean()
    assert spread[StratifiedPatching] < 0.5  # of 2.3 patches a cell
    assert spread[RandomPatching] > 1.8


def test_an_index_draws_from_the_same_neighbourhood():
    patching = StratifiedPatching([(1, 1, 512, 512)], (64, 64), 0)
    for index in (0, 11, 37, 62):
        starts = np.array([patching.get_patch_spec(index)["coords"] for _ in range(200)])
        cells, counts = np.unique(starts // 64, axis=0, return_counts=True)
        assert len(cells) <= 3
        assert counts.max() > 0.4 * counts.sum()


@pytest.mark.parametrize("uniform", [False, True])
@given(sample=samples(), seed=st.integers(0, 2**32))
def test_excluded_cells_are_never_touched(uniform, sample, seed):
    shape, patch = sample
    rng = np.random.default_rng(seed)
    shapes = [(2, 1, *shape), (1, 1, *[n + 3 for n in shape])]
    patching = StratifiedPatching(shapes, patch, 0, uniform=uniform)
    keys = list(patching.get_all_grid_coords())
    excluded = {}
    for key in keys:
        cells = patching.get_all_grid_coords()[key]
        excluded[key] = [cell for cell in cells if rng.random() < 0.25]
        patching.exclude_patches(*key, excluded[key][:2])
        patching.exclude_patches(*key, excluded[key][2:])
        included = patching.get_included_grid_coords()[key]
        assert sorted([*included, *excluded[key]]) == sorted(cells)
    for _ in range(3):
        for i in range(patching.n_patches):
            spec = patching.get_patch_spec(i)
            for cell in excluded[spec["data_idx"], spec["sample_idx"]]:
                apart = [
                    s + p <= c * p or (c + 1) * p <= s
                    for s, p, c in zip(spec["coords"], patch, cell, strict=True)
                ]
                assert any(apart)


def test_region_probabilities_are_honoured():
    patching = StratifiedPatching([(1, 1, 64, 64)], (8, 8), 0)
    probs = {(y, x): [0.0, 0.1, 0.5, 1.0][x % 4] for y in range(8) for x in range(8)}
    patching.set_region_probs(0, 0, probs)
    assert patching.n_patches == math.ceil(64 - sum(1 - p for p in probs.values()) - 1e-9)
    cells = np.zeros((8, 8))
    for _ in range(1000):
        for i in range(patching.n_patches):
            y, x = patching.get_patch_spec(i)["coords"]
            cells[y // 8, x // 8] += 1
    whole = cells[:7, :7]  # cells in the last row and column have fewer starts
    assert not whole[:, [0, 4]].any()
    ratio = whole[:, [1, 5]].mean() / whole[:, [3]].mean()
    assert ratio == pytest.approx(0.1, rel=0.05)
    assert whole[:, [2, 6]].mean() / whole[:, [3]].mean() == pytest.approx(0.5, rel=0.03)


def test_counts_are_those_of_the_reference():
    def count(*shape, patch=16, **options):
        return StratifiedPatching([(1, 1, *shape)], (patch,) * len(shape), **options).n_patches

    assert [count(64, 64), count(30, 30), count(512, 512, 512, patch=64)] == [16, 4, 512]
    patching = StratifiedPatching([(2, 1, 64, 64), (1, 1, 43, 71)], (8, 8))
    assert patching.n_patches == 2 * 64 + 48
    assert patching.image_patching[1][0].grid_shape == (5, 9)
    patching.exclude_patches(0, 1, [(0, 0), (0, 1), (0, 0)])
    assert patching.n_patches == 2 * 64 + 48 - 2
    patching.set_region_probs(0, 0, {(1, 1): 0.5, (1, 2): 0.5})
    assert patching.n_patches == 2 * 64 + 48 - 3


def test_nothing_is_drawn_where_nothing_is_left():
    patching = StratifiedPatching([(1, 1, 16, 16), (1, 1, 16, 16)], (8, 8), 0)
    patching.exclude_patches(0, 0, [(0, 0), (1, 1)])  # diagonal: no other cell is left whole
    assert patching.get_patch_indices(0) == [0, 1]
    patching.exclude_patches(0, 0, [(0, 1), (1, 0)])
    assert patching.get_patch_indices(0) == []
    patching.set_region_probs(1, 0, dict.fromkeys(patching.get_all_grid_coords()[1, 0], 0.0))
    assert patching.n_patches == 0
    assert not expected_coverage(patching, 1).any()
    with pytest.raises(IndexError):
        patching.get_patch_spec(0)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.exclude_patches(0, 0, [(4, 0)]),
        lambda p: p.exclude_patches(0, 0, [(0, -1)]),
        lambda p: p.exclude_patches(0, 0, [(0,)]),
        lambda p: p.set_region_probs(0, 0, {(0, 4): 0.5}),
        lambda p: p.set_region_probs(0, 0, {(0, 0): 1.5}),
        lambda p: p.set_region_probs(0, 0, {(0, 0): float("nan")}),
    ],
)
def test_unknown_cells_and_probabilities_are_value_errors(change):
    with pytest.raises(ValueError, match=r"not on the grid|from 0 to 1"):
        change(StratifiedPatching([(1, 1, 32, 32)], (8, 8)))


def test_coverage_can_be_looked_at_in_places():
    patching = StratifiedPatching([(1, 1, 40, 50)], (8, 8), 0, uniform=True)
    patching.set_region_probs(0, 0, {(2, 2): 0.1})
    whole = expected_coverage(patching)
    rows, columns = np.arange(0, 40, 7), np.arange(3, 50, 11)
    some = expected_coverage(patching, at=[rows, columns])
    np.testing.assert_allclose(some, whole[np.ix_(rows, columns)])


def test_random_patching_has_a_coverage_map_too():
    patching = RandomPatching([(2, 1, 20, 30)], (8, 8), 0)
    expected = slow_coverage((20, 30), (8, 8), n_patches=patching.n_patches / 2)
    np.testing.assert_allclose(expected_coverage(patching, 0, 1), expected)


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_counting_looks_at_every_nth_voxel(seed, step):
    rng = np.random.default_rng(seed)
    shape, patch = (13, 10), (4, 5)
    specs = [
        {"data_idx": 0, "sample_idx": int(i % 2), "coords": tuple(start), "patch_size": patch}
        for i, start in enumerate(rng.integers(-3, 12, (20, 2)).tolist())
    ]
    expected = np.zeros(shape, int)
    for spec in specs[1::2]:
        ends = [(max(c, 0), max(c + p, 0)) for c, p in zip(spec["coords"], patch, strict=True)]
        expected[tuple(slice(*pair) for pair in ends)] += 1
    counted = count_coverage(specs, shape, sample_idx=1, step=step)
    np.testing.assert_array_equal(counted, expected[::step, ::step])


def test_a_volume_of_any_size_is_named_at_once():
    patching = StratifiedPatching([(1, 1, 10**5, 10**6, 10**6)], (64, 64, 64), 0)
    last = patching.get_patch_spec(patching.n_patches - 1)["coords"]
    assert all(0 <= c <= n - 64 for c, n in zip(last, (10**5, 10**6, 10**6), strict=True))
