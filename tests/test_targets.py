"""Targets: each beside a slow, obvious reference, over random labels, dtypes and spacings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.segmentation import find_boundaries

from volprep.errors import ConfigError
from volprep.kernels.distance import along_runs, by_envelopes, by_rows
from volprep.targets import (
    TARGETS,
    LabelPatch,
    empty_targets,
    make_targets,
    targets_from_config,
    targets_margin,
)
from volprep.targets.labels import (
    Affinities,
    Binary,
    Blobs,
    Boundary,
    Flow,
    InstanceDistance,
    OneHot,
    SignedDistance,
    SizeWeight,
)

SIZES = st.sampled_from([(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (10.0, 1.0, 1.5), (0.5, 2.0, 1.0)])
DTYPES = st.sampled_from([np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])


@st.composite
def labels(draw, most=4):
    """Blocks of few ids, which make runs and borders, with ids that no narrow dtype holds."""
    small = draw(
        hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
                   elements=st.integers(0, most))
    )  # fmt: skip
    repeats = draw(st.tuples(*[st.integers(1, 4)] * 3))
    for axis, count in enumerate(repeats):
        small = np.repeat(small, count, axis)
    dtype = draw(DTYPES)
    ids = np.array([0, 7, 9, 200, 255])
    if np.dtype(dtype).itemsize > 2:
        ids = np.array([0, 7, 70_000, 2**31 - 2, 3])
    if np.dtype(dtype) == np.uint64:
        ids = np.array([0, 7, 2**63 + 5, 2**40, 3], np.uint64)
    return ids.astype(dtype)[small]


def distance_by_trying(label, size):
    """To the nearest voxel of another label, over all pairs of voxels."""
    places = np.argwhere(np.ones(label.shape, bool)) * np.asarray(size) / min(size)
    flat = label.reshape(-1)
    out = np.full(flat.shape, np.inf)
    for i, value in enumerate(flat):
        other = places[flat != value]
        if len(other):
            out[i] = np.sqrt(((other - places[i]) ** 2).sum(1).min())
    return out.reshape(label.shape)


def made(target, label, size=(1.0, 1.0, 1.0)):
    return make_targets([target], LabelPatch(label, size))


@settings(max_examples=60)
@given(labels(), SIZES)
def test_depth_is_the_distance_to_the_nearest_voxel_of_another_label(label, size):
    found = LabelPatch(label, size).depth
    wanted = distance_by_trying(label, size)
    assert (found > 1e10).tolist() == np.isinf(wanted).tolist()
    near = np.isfinite(wanted)
    np.testing.assert_allclose(found[near], wanted[near], rtol=1e-5)


@settings(max_examples=40)
@given(labels(), SIZES)
def test_rows_and_envelopes_give_the_same_distances(label, size):
    patch = LabelPatch(label, size)
    nz, ny, nx = label.shape
    squares = np.empty(label.shape, np.float32)
    along_runs(patch.codes, np.float32(1), squares)
    found = []
    for through in (by_rows, by_envelopes):
        out = np.empty((nz, ny * nx), np.float32)
        through(patch.codes.reshape(nz, -1), squares.reshape(nz, -1), patch.size[0], out)
        found.append(out)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@given(labels())
def test_codes_number_the_ids_and_count_their_voxels(label):
    patch = LabelPatch(label)
    pairs = set(zip(label.reshape(-1).tolist(), patch.codes.reshape(-1).tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert all((a == 0) == (b == 0) for a, b in pairs)
    assert patch.counts.tolist() == [
        int((patch.codes == c).sum()) for c in range(len(patch.counts))
    ]


def test_more_ids_than_there_is_room_for_at_first_are_all_numbered():
    label = np.arange(1, 16 * 16 * 16 + 1).reshape(16, 16, 16)
    assert len(LabelPatch(label).counts) == 16**3 + 1


def test_negative_labels_are_background():
    patch = LabelPatch(np.array([[[-1, -1, 3, 3]]]))
    assert patch.codes.tolist() == [[[0, 0, 1, 1]]]
    assert made(Binary(), np.array([[[-1, 0, 3]]]))["binary"].tolist() == [[[0, 0, 1]]]


@given(labels(), st.lists(st.tuples(*[st.integers(-6, 6)] * 3).filter(any), min_size=1, max_size=4))
def test_affinities_say_whether_both_ends_of_an_offset_are_one_instance(label, offsets):
    found = made(Affinities(offsets), label)
    for k, offset in enumerate(offsets):
        for place in np.ndindex(label.shape):
            other = tuple(np.add(place, offset))
            inside = all(0 <= o < n for o, n in zip(other, label.shape, strict=True))
            same = inside and label[place] == label[other] and label[place] != 0
            assert found["affinities"][(k, *place)] == same
            assert found["affinities_mask"][(k, *place)] == inside


def test_affinities_have_three_channels_in_3d_and_two_in_2d():
    assert made(Affinities(), np.ones((2, 4, 5), int))["affinities"].shape == (3, 2, 4, 5)
    flat = made(Affinities(), np.ones((1, 4, 5), int))
    assert flat["affinities"].shape == (2, 1, 4, 5)
    assert flat["affinities"].sum() == 3 * 5 + 4 * 4


@given(labels(), st.sampled_from(["thick", "inner"]))
def test_boundaries_are_those_of_scikit_image(label, mode):
    wanted = find_boundaries(label.astype(np.int64), connectivity=1, mode=mode)
    np.testing.assert_array_equal(made(Boundary(mode=mode), label)["boundary"], wanted)


@given(labels())
def test_boundaries_in_plane_are_those_of_each_section(label):
    found = made(Boundary(in_plane=True), label)["boundary"]
    for z, section in enumerate(label):
        wanted = find_boundaries(section.astype(np.int64), connectivity=1, mode="thick")
        np.testing.assert_array_equal(found[z], wanted)


@settings(max_examples=30)
@given(labels(), SIZES)
def test_signed_distance_is_positive_in_instances_and_negative_outside(label, size):
    found = made(SignedDistance(scale=5), label, size)["signed_distance"]
    wanted = np.tanh(distance_by_trying(label, size) / 5) * np.where(label == 0, -1, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@settings(max_examples=30)
@given(labels(), SIZES)
def test_instance_distance_is_one_at_the_middle_of_each_instance(label, size):
    found = made(InstanceDistance(), label, size)["instance_distance"]
    depth = distance_by_trying(label, size)
    wanted = np.zeros(label.shape)
    for value in set(label.reshape(-1).tolist()) - {0}:
        own = label == value
        wanted[own] = 1.0 if np.isinf(depth).any() else depth[own] / depth[own].max()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def slopes_by_hand(label, depth, size):
    out = np.zeros((3, *label.shape))
    for place in np.argwhere(label != 0):
        for axis in range(3):
            ends = []
            for step in (-1, 1):
                beside = place.copy()
                beside[axis] += step
                inside = 0 <= beside[axis] < label.shape[axis]
                same = inside and label[tuple(beside)] == label[tuple(place)]
                ends.append(beside if same else place)
            apart = ends[1][axis] - ends[0][axis]
            if apart:
                rise = depth[tuple(ends[1])] - depth[tuple(ends[0])]
                out[(axis, *place)] = rise / (apart * size[axis] / min(size))
        length = np.linalg.norm(out[(slice(None), *place)])
        if length:
            out[(slice(None), *place)] /= length
    return out


@settings(max_examples=30)
@given(labels(), SIZES)
def test_flows_climb_the_distance_within_each_instance(label, size):
    patch = LabelPatch(label, size)
    out = empty_targets([Flow()], patch.shape)
    Flow().make(patch, out)
    steep = slopes_by_hand(label, patch.depth.astype(float), size)
    # Where slopes nearly cancel, rounding decides: those directions are not compared.
    np.testing.assert_allclose(out["flow"], steep, atol=2e-3)


def test_flows_lead_to_the_middle_of_a_ball():
    grid = np.indices((21, 21, 21)) - 10
    label = (np.sqrt((grid**2).sum(0)) <= 8).astype(int)
    flow = make_targets([Flow()], LabelPatch(label))["flow"]
    away = np.linalg.norm(grid, axis=0)
    rim = (label == 1) & (away > 3)
    towards = -(flow * grid).sum(0)[rim] / away[rim]
    assert towards.min() > 0.6
    assert towards.mean() > 0.95


@given(labels())
def test_every_instance_weighs_the_same(label):
    found = made(SizeWeight(limit=1e9), label)["size_weight"]
    present = np.unique(label)
    sums = [found[label == value].sum() for value in present]
    np.testing.assert_allclose(sums, label.size / len(present), rtol=1e-4)


def test_weights_stay_within_their_limit():
    label = np.zeros((8, 16, 16), int)
    label[4, 4, 4] = 1
    found = made(SizeWeight(limit=4), label)["size_weight"]
    assert found.max() == 4
    assert found.min() >= 0.25


def test_a_class_that_is_ignored_has_no_channel():
    found = made(OneHot(classes=3), np.array([[[0, 1, 2, -1, 255]]]))["one_hot"]
    assert found[:, 0, 0].tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


@pytest.mark.parametrize("kind", [k for n, k in TARGETS.items() if n != "skeleton"])
def test_every_target_fills_arrays_that_held_something_else(kind):
    label = np.kron(np.arange(8).reshape(2, 2, 2), np.ones((3, 5, 4), int))
    fresh = make_targets([kind()], LabelPatch(label))
    used = {name: np.full_like(array, 77) for name, array in fresh.items()}
    make_targets([kind()], LabelPatch(label), used)
    for name, array in fresh.items():
        np.testing.assert_array_equal(array, used[name])


@pytest.mark.parametrize("kind", [Affinities, Boundary])
def test_within_its_margin_a_target_does_not_know_where_the_patch_ends(kind):
    label = np.repeat(np.random.default_rng(1).integers(0, 4, (9, 12, 6)), 2, axis=2)
    target = kind()
    margin = target.margin((5, 8, 8))
    whole = make_targets([target], LabelPatch(label))
    inner = tuple(slice(2, 2 + n) for n in (5, 8, 8))
    wide = tuple(slice(2 - m, 2 + n + m) for m, n in zip(margin, (5, 8, 8), strict=True))
    part = make_targets([target], LabelPatch(label[wide]))
    core = tuple(slice(m, m + n) for m, n in zip(margin, (5, 8, 8), strict=True))
    for name in whole:
        np.testing.assert_array_equal(whole[name][(..., *inner)], part[name][(..., *core)])


def test_a_config_gives_the_targets_it_lists_and_they_give_it_back():
    spec = ["boundary", {"affinities": {"offsets": [[-1, 0, 0], [0, -9, 0]]}}, {"flow": None}]
    targets = targets_from_config(spec)
    assert [t.name for t in targets] == ["boundary", "affinities", "flow"]
    assert targets_from_config([t.to_dict() for t in targets]) == targets
    assert targets_margin(targets, (8, 8, 8)) == (1, 9, 1)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (["boundry"], "did you mean boundary"),
        ([{"boundary": {"mod": "inner"}}], "did you mean mode"),
        ([{"boundary": {"mode": "outer"}}], "found 'outer'; wanted thick or inner"),
        ([{"affinities": {"offsets": [[0, 0, 0]]}}], "none of them zero"),
        ([{"affinities": {"offsets": 3}}], "wanted a list of (z, y, x)"),
        ([{"signed_distance": {"scale": -1}}], "more than 0"),
        ([{"signed_distance": {"scale": "wide"}}], "scale: found 'wide'; wanted a number"),
        ([{"one_hot": {"classes": 2.5}}], "classes: found 2.5; wanted a whole number"),
        ([{"boundary": {"in_plane": "no"}}], "in_plane: found 'no'; wanted true or false"),
        (["flow", "flow"], "listed twice"),
        ([3], "wanted a name"),
        ([{"flow": 3}], "wanted parameters"),
    ],
)  # fmt: skip
def test_a_wrong_target_is_named_with_what_was_wanted(spec, says):
    with pytest.raises(ConfigError, match="targets") as error:
        targets_from_config(spec)
    assert says in str(error.value)


def test_exact_distances_reach_as_far_as_scipys():
    label = np.zeros((6, 90, 110), int)
    label[3, 80, 7] = 1
    wanted = ndimage.distance_transform_edt(label == 0, sampling=(3, 1, 1))
    np.testing.assert_allclose(
        LabelPatch(label, (3, 1, 1)).depth[label == 0], wanted[label == 0], rtol=1e-5
    )


@given(labels(), SIZES, st.floats(0.4, 5))
def test_blobs_are_gaussians_in_lengths_around_the_middle_of_each_instance(label, size, sigma):
    found = made(Blobs(sigma), label, size)["blobs"]
    places = np.indices(label.shape).reshape(3, -1).T
    wanted = np.zeros(label.size)
    for value in np.unique(label[label > 0]):
        middle = places[label.reshape(-1) == value].mean(0)
        offsets = (places - middle) * np.asarray(size)
        blob = np.exp(-(offsets**2).sum(1) / (2 * sigma**2))
        blob[(np.abs(offsets) > 4 * sigma).any(1)] = 0
        wanted = np.maximum(wanted, blob)
    np.testing.assert_allclose(found.reshape(-1), wanted, rtol=1e-5, atol=1e-6)


def test_a_blob_of_a_point_has_its_top_there_and_its_width_in_micrometres():
    label = np.zeros((9, 21, 21), np.uint16)
    label[4, 10, 10] = 7
    found = made(Blobs(sigma=0.5), label, (0.5, 0.25, 0.25))["blobs"]
    assert found[4, 10, 10] == 1
    np.testing.assert_allclose(
        [found[5, 10, 10], found[4, 12, 10], found[4, 10, 8]], np.exp(-0.5), rtol=1e-6
    )
    with pytest.raises(ConfigError, match=r"blobs\.sigma: found 0"):
        targets_from_config([{"blobs": {"sigma": 0}}])
