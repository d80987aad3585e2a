"""Random numbers that depend on (seed, epoch, index) alone, and the draws made from them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.augment.transform import below, distinct
from volprep.randomness import sample_generator

words = st.integers(0, 2**64 - 1)


@given(words, words, words)
def test_a_sample_has_philox_with_its_own_key_and_counter(
    seed: int, epoch: int, index: int
) -> None:
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, 0, 0, index], np.uint64)
    wanted = np.random.Generator(np.random.Philox(key=key, counter=counter))
    found = sample_generator(seed, epoch, index)
    np.testing.assert_array_equal(found.random(8), wanted.random(8))
    again = pickle.loads(pickle.dumps(found))
    assert again.random() == found.random()


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 70))
def test_distinct_numbers_lie_in_order_and_below_the_end(seed: int, stop: int, count: int) -> None:
    numbers = distinct(sample_generator(seed), stop, count)
    assert len(numbers) == min(stop, count)
    assert numbers == sorted(set(numbers))
    assert all(0 <= n < stop for n in numbers)


@pytest.mark.parametrize(("stop", "count"), [(5, 2), (4, 3), (7, 1)])
def test_every_number_is_equally_likely(stop: int, count: int) -> None:
    rng, draws = sample_generator(1), 6000
    drawn = np.bincount([n for _ in range(draws) for n in distinct(rng, stop, count)])
    expected = draws * count / stop
    assert np.abs(drawn - expected).max() < 6 * expected**0.5
    single = np.bincount([below(rng, stop) for _ in range(draws)], minlength=stop)
    assert np.abs(single - draws / stop).max() < 6 * (draws / stop) ** 0.5
