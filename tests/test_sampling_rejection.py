"""What is thrown back, and how often."""

import numpy as np
import pytest

from volprep.sampling import Rejection


def share_kept(rejection, label, valid=None, count=4000):
    rng = np.random.default_rng(0)
    return np.mean([rejection.accepts(label, rng, valid) for _ in range(count)])


def labels(foreground, ids=1):
    flat = np.zeros(1000, np.uint64)
    flat[:foreground] = 2**40 + np.arange(foreground) % ids
    return flat.reshape(10, 10, 10)


def test_nothing_is_thrown_back_unless_asked_for():
    assert share_kept(Rejection(), labels(0), count=50) == 1
    assert not Rejection().reads_labels
    assert Rejection(diversity=2).reads_labels
    assert not Rejection(diversity=2, p=0).reads_labels


def test_patches_below_the_size_are_thrown_back_with_probability_p():
    rejection = Rejection(size_thres=100, p=0.75)
    assert share_kept(rejection, labels(99)) == pytest.approx(0.25, abs=0.03)
    assert share_kept(rejection, labels(100), count=50) == 1


def test_the_background_counts_as_an_id():
    rejection = Rejection(diversity=3, p=1)
    assert share_kept(rejection, labels(500, ids=2), count=20) == 1
    assert share_kept(rejection, labels(1000, ids=2), count=20) == 0


def test_both_reasons_are_drawn_for_separately():
    rejection = Rejection(size_thres=100, diversity=3, p=0.5)
    assert share_kept(rejection, labels(10)) == pytest.approx(0.25, abs=0.03)


def test_exactly_the_valid_ratio_is_not_enough():
    valid = np.zeros(1000, np.uint8)
    valid[:500] = 255
    assert share_kept(Rejection(), labels(0), valid, count=20) == 0
    valid[500] = 1
    assert share_kept(Rejection(), labels(0), valid, count=20) == 1
    assert share_kept(Rejection(), None, valid, count=20) == 1


def test_probabilities_outside_0_to_1_are_refused():
    with pytest.raises(ValueError, match="0 to 1"):
        Rejection(p=1.5)
