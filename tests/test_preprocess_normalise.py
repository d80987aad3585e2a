"""Normalisation: the numbers it decides, what it does with them, and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.preprocess import Normalisation

STATISTICS = {
    "mean": [100.0, 5.0],
    "std": [20.0, 2.0],
    "minimum": [0.0, 1.0],
    "maximum": [255.0, 9.0],
    "percentiles": [{0.5: 10.0, 99.5: 210.0}, {"0.5": 2.0, "99.5": 8.0}],
}
DTYPES = ["u1", "u2", "i2", "u4", "i4", "f4", "f8", ">u2", "f2"]


def reference(normalisation, array):
    """Channel by channel in float64."""
    out = np.empty(array.shape, np.float64)
    for channel, values in enumerate(array.astype(np.float64)):
        index = channel if len(normalisation.scale) > 1 else 0
        if normalisation.clip is not None:
            values = np.clip(values, *normalisation.clip[channel])
        out[channel] = (values - normalisation.offset[index]) / normalisation.scale[index]
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["zscore", "background", "minmax", "percentile", "given"])
@pytest.mark.parametrize("clip", [None, (0.5, 99.5)])
def test_apply_is_clip_shift_scale(dtype, kind, clip):
    array = np.random.default_rng(0).integers(0, 120, (2, 3, 11, 13)).astype(dtype)
    normalisation = Normalisation.from_statistics(kind, **STATISTICS, clip=clip)
    result = normalisation.apply(array)
    assert result.dtype == np.float32
    assert result == pytest.approx(reference(normalisation, array), rel=1e-6, abs=1e-6)


def test_zscore_gives_mean_zero_and_deviation_one():
    array = np.random.default_rng(1).integers(0, 65536, (1, 8, 40, 40)).astype(np.uint16)
    result = Normalisation.from_statistics("zscore", mean=[array.mean()], std=[array.std()]).apply(
        array
    )
    assert result.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert result.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_percentiles_become_zero_and_one_and_minmax_follows_the_clip():
    percentile = Normalisation.from_statistics("percentile", **STATISTICS)
    assert percentile.offset == (10.0, 2.0)
    assert percentile.scale == (200.0, 6.0)
    minmax = Normalisation.from_statistics("minmax", **STATISTICS, clip=(0.5, 99.5))
    assert (minmax.offset, minmax.scale) == (percentile.offset, percentile.scale)


def test_background_brings_the_lower_bound_to_zero_and_keeps_the_deviation():
    of_clip = Normalisation.from_statistics("background", **STATISTICS, clip=(0.5, 99.5))
    assert of_clip.offset == (10.0, 2.0)
    assert of_clip.scale == tuple(STATISTICS["std"])
    without = Normalisation.from_statistics("background", **STATISTICS)
    assert without.offset == tuple(STATISTICS["minimum"])


def test_none_only_converts():
    array = np.array([[[[0, 65535, 7]]]], np.uint16)
    assert Normalisation("none").apply(array).tolist() == [[[[0.0, 65535.0, 7.0]]]]


def test_a_constant_channel_becomes_zero():
    normalisation = Normalisation.from_statistics("zscore", mean=[7.0], std=[0.0])
    assert not normalisation.apply(np.full((1, 2, 2, 2), 7, np.uint8)).any()


@given(st.floats(-1e4, 1e4), st.floats(1e-2, 1e4), st.integers(0, 99))
def test_undo_brings_the_intensities_back(offset, scale, seed):
    array = np.random.default_rng(seed).integers(0, 65536, (1, 2, 5, 5)).astype(np.uint16)
    normalisation = Normalisation("given", (offset,), (scale,))
    back = normalisation.undo(normalisation.apply(array))
    assert np.abs(back - array.astype(np.float64)).max() <= 1e-5 * (65536 + abs(offset))


def test_out_is_filled_and_returned():
    array = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    out = np.empty((1, 2, 3, 4), np.float32)
    normalisation = Normalisation("given", (1.0,), (2.0,))
    assert normalisation.apply(array, out=out) is out
    assert out.ravel()[5] == 2.0
    with pytest.raises(ValueError, match="contiguous float32"):
        normalisation.apply(array, out=out[:, :, :, ::2])


def test_one_entry_serves_every_channel():
    array = np.ones((3, 1, 2, 2), np.uint8)
    assert (Normalisation("given", (0.0,), (2.0,)).apply(array) == 0.5).all()


def test_a_strided_view_is_normalised():
    array = np.arange(256, dtype=np.uint8).reshape(1, 4, 8, 8)[:, ::2, :, ::-1]
    assert (Normalisation("none").apply(array) == array).all()


def test_a_wrong_number_of_channels_is_refused():
    normalisation = Normalisation.from_statistics("zscore", mean=[1, 2], std=[1, 1])
    with pytest.raises(ValueError, match="3 channels"):
        normalisation.apply(np.zeros((3, 1, 1, 1), np.uint8))


@pytest.mark.parametrize("kind", ["zscore", "background", "minmax", "percentile", "given", "none"])
def test_it_survives_json(kind):
    normalisation = Normalisation.from_statistics(kind, **STATISTICS, clip=(0.5, 99.5))
    assert Normalisation.from_dict(json.loads(json.dumps(normalisation.to_dict()))) == normalisation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "zscores"}, "known: zscore"),
        ({"kind": "zscore"}, "needs an offset"),
        ({"kind": "given", "offset": (0.0,), "scale": (0.0,)}, "positive"),
        ({"kind": "given", "offset": (float("nan"),), "scale": (1.0,)}, "finite"),
        ({"kind": "none", "clip": ((2.0, 1.0),)}, "low, high"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normalisation(**arguments)


def test_missing_statistics_are_named():
    with pytest.raises(ValueError, match="zscore needs the std"):
        Normalisation.from_statistics("zscore", mean=[1.0])
    with pytest.raises(ValueError, match=r"percentile 1 is not among those measured: 0\.5, 99\.5"):
        Normalisation.from_statistics("percentile", **STATISTICS, bounds=(1, 99.5))
