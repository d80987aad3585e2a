"""The foreground index: what it draws, how evenly, and within which memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from volprep.errors import PlanError
from volprep.geometry import Box
from volprep.sampling import ForegroundIndex


class Labels:
    """Labels in memory that remember the largest box that was read at once."""

    spacing = None

    def __init__(self, array):
        self.array = np.asarray(array)
        self.shape = (1, *self.array.shape)
        self.dtype = self.array.dtype
        self.largest = 0

    def read(self, box=None):
        box = box or Box.whole(self.shape)
        self.largest = max(self.largest, box.size)
        return self.array[box.slices][None]


def random_labels(seed, shape=(9, 12, 14), ids=(0, 0, 3, 7, 2**33 + 5)):
    coarse = np.random.default_rng(seed).choice(
        np.array(ids, np.uint64), [-(-n // 3) for n in shape]
    )
    for axis in range(3):
        coarse = coarse.repeat(3, axis=axis)
    return coarse[tuple(slice(0, n) for n in shape)]


def draws(index, count, per=None, seed=0):
    rng = np.random.default_rng(seed)
    return [index.draw(rng, per) for _ in range(count)]


@given(
    st.integers(0, 2**32),
    st.sampled_from([np.uint8, np.int16, np.uint32, np.int64, np.uint64]),
    st.booleans(),
)
def test_counts_and_ids_are_those_of_the_labels(seed, dtype, boxed):
    labels = random_labels(seed)
    if np.dtype(dtype).itemsize < 8:
        labels %= 120
    labels = labels.astype(dtype)
    box = Box((1, 2, 3), (8, 9, 14)) if boxed else Box.whole(labels.shape)
    index = ForegroundIndex.build(Labels(labels), box=box)
    ids, counts = np.unique(labels[box.slices], return_counts=True)
    np.testing.assert_array_equal(index.ids, ids[ids > 0].astype(np.uint64))
    np.testing.assert_array_equal(index.counts, counts[ids > 0])
    assert index.exact
    if len(index):
        for label, voxel in draws(index, 30, seed=seed % 97):
            assert labels[voxel] == label
            assert all(a <= v < b for a, v, b in zip(box.start, voxel, box.stop, strict=True))


def test_every_voxel_of_an_id_is_as_likely():
    labels = random_labels(1)
    index = ForegroundIndex.build(Labels(labels))
    drawn = draws(index, 40_000)
    for label in index.ids:
        places = np.flatnonzero(labels == label)
        seen = [np.ravel_multi_index(voxel, labels.shape) for i, voxel in drawn if i == label]
        counts = np.bincount(np.searchsorted(places, seen), minlength=len(places))
        assert stats.chisquare(counts).pvalue > 1e-4


def test_ids_are_drawn_evenly_whatever_their_size_and_voxels_by_number():
    labels = np.zeros((20, 20, 20), np.uint16)
    labels[2:18, 2:18, 2:18] = 5
    labels[0, 0, 0] = 9  # a single voxel against 4096
    index = ForegroundIndex.build(Labels(labels))
    by_id = [label for label, _ in draws(index, 4000)]
    assert 0.45 < np.mean(np.array(by_id) == 9) < 0.55
    by_voxel = [label for label, _ in draws(index, 4000, per="voxel")]
    assert np.mean(np.array(by_voxel) == 9) < 0.005


def test_slabs_and_given_boxes_give_the_same_index(monkeypatch):
    labels = random_labels(2, (20, 18, 16))
    whole = ForegroundIndex.build(Labels(labels))
    monkeypatch.setattr("volprep.sampling.foreground.SLAB_BYTES", 3 * 18 * 16 * 8)
    volume, seen = Labels(labels), []
    slabs = ForegroundIndex.build(volume, progress=seen.append)
    assert volume.largest == 3 * 18 * 16
    assert sum(seen) == labels.size
    blocks = [Box((0, 0, 0), (20, 18, 7)), Box((0, 0, 7), (20, 18, 16))]
    cut = ForegroundIndex.build(Labels(labels), boxes=blocks)
    for other in (slabs, cut):
        np.testing.assert_array_equal(other.ids, whole.ids)
        np.testing.assert_array_equal(other.counts, whole.counts)
    assert draws(slabs, 50) == draws(whole, 50)


def test_labels_to_ignore_are_never_drawn():
    labels = random_labels(3)
    index = ForegroundIndex.build(Labels(labels), ignore=[7, 2**33 + 5])
    assert index.ids.tolist() == [3]


def test_too_many_runs_are_thinned_and_every_id_stays():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((40, 40, 40)) < 0.3, 1, 0).astype(np.uint8)
    labels[0, 0, :3] = [0, 2, 0]
    labels[39, 39, -3:] = [0, 3, 0]
    full = ForegroundIndex.build(Labels(labels))
    thin = ForegroundIndex.build(Labels(labels), max_runs=1000)
    assert full.exact
    assert not thin.exact
    np.testing.assert_array_equal(thin.counts, full.counts)
    assert thin.nbytes < 1500 * 16
    drawn = draws(thin, 3000)
    assert {label for label, _ in drawn} == {1, 2, 3}
    assert all(labels[voxel] == label for label, voxel in drawn)
    halves = np.mean([voxel[0] < 20 for label, voxel in drawn if label == 1])
    assert 0.4 < halves < 0.6


def test_thinning_is_the_same_each_time():
    labels = (np.random.default_rng(0).random((30, 30, 30)) < 0.3).astype(np.uint8)
    once, again = (ForegroundIndex.build(Labels(labels), max_runs=4000) for _ in range(2))
    assert not once.exact
    assert draws(once, 100) == draws(again, 100)


def test_components_of_more_runs_than_fit_are_a_plan_error():
    labels = (np.random.default_rng(0).random((20, 20, 20)) < 0.3).astype(np.uint8)
    with pytest.raises(PlanError, match=r"foreground\.per to class"):
        ForegroundIndex.build(Labels(labels), connected=True, max_runs=500)


def test_thousands_of_ids_are_told_apart():
    ids = np.random.default_rng(0).permutation(8000).astype(np.uint64) * 2**50 + 1
    index = ForegroundIndex.build(Labels(ids.reshape(20, 20, 20)))
    np.testing.assert_array_equal(index.ids, np.sort(ids))
    assert (index.counts == 1).all()
    assert all(ids.reshape(20, 20, 20)[voxel] == label for label, voxel in draws(index, 100))


def test_more_ids_than_runs_allowed_is_an_error():
    labels = np.arange(1, 1001, dtype=np.uint32).reshape(10, 10, 10)
    with pytest.raises(ValueError, match="over 100 ids"):
        ForegroundIndex.build(Labels(labels), max_runs=100)


@given(st.integers(0, 2**32))
def test_connected_components_are_things_of_their_own(seed):
    labels = random_labels(seed, ids=(0, 0, 0, 1, 2))
    index = ForegroundIndex.build(Labels(labels), connected=True)
    expected = []
    for label in (1, 2):
        components, count = ndimage.label(labels == label, np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        expected += [(label, int(size)) for size in sizes]
    found = zip(index.ids.tolist(), index.counts.tolist(), strict=True)
    assert sorted(found) == sorted(expected)
    if len(index):
        assert all(labels[voxel] == label for label, voxel in draws(index, 20))


def test_small_components_of_a_class_map_are_seen_as_often_as_large_ones():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4:18, 4:18, 4:18] = 255
    labels[0, 0, 0] = 255
    index = ForegroundIndex.build(Labels(labels), connected=True, boxes=None)
    assert len(index) == 2
    share = np.mean([voxel == (0, 0, 0) for _, voxel in draws(index, 2000)])
    assert 0.45 < share < 0.55


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 16)] * 3))
def test_a_patch_holds_foreground_and_stays_in_the_box(seed, patch):
    labels = random_labels(seed, ids=(0, 0, 0, 0, 0, 1))
    box = Box((1, 2, 0), (9, 12, 13))
    index = ForegroundIndex.build(Labels(labels), box=box)
    if not len(index):
        return
    rng = np.random.default_rng(seed)
    for _ in range(10):
        start = index.patch_start(rng, patch)
        for s, p, a, b in zip(start, patch, box.start, box.stop, strict=True):
            if b - a >= p:
                assert a <= s <= b - p
            else:
                assert s == a - (p - (b - a)) // 2
        seen = Box.at(start, patch).clip(labels.shape)
        assert labels[seen.slices].any()


def test_a_patch_around_one_voxel_is_placed_evenly():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[4, 4, 1] = 1
    index = ForegroundIndex.build(Labels(labels))
    rng = np.random.default_rng(0)
    starts = [index.patch_start(rng, (3, 3, 3)) for _ in range(3000)]
    places, counts = np.unique(starts, axis=0, return_counts=True)
    assert places.min(axis=0).tolist() == [2, 2, 0]
    assert places.max(axis=0).tolist() == [4, 4, 1]
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_saved_index_draws_the_same(tmp_path):
    index = ForegroundIndex.build(
        Labels(random_labels(5)), per="voxel", box=Box((0, 1, 2), (9, 9, 9))
    )
    index.save(tmp_path / "foreground.npz")
    loaded = ForegroundIndex.load(tmp_path / "foreground.npz")
    assert (loaded.box, loaded.per, loaded.exact) == (index.box, index.per, index.exact)
    assert draws(loaded, 100) == draws(index, 100)


def test_an_empty_volume_has_nothing_to_draw():
    index = ForegroundIndex.build(Labels(np.zeros((4, 5, 6), np.uint8)))
    assert (len(index), index.n_voxels, index.exact) == (0, 0, True)
    with pytest.raises(ValueError, match="no foreground"):
        index.draw(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros((4, 4, 4), np.float32), {}, "integers"),
        (np.zeros((4, 4, 4), np.uint8), {"box": Box((0, 0, 0), (5, 4, 4))}, "beyond"),
        (np.zeros((4, 4, 4), np.uint8), {"per": "instances"}, "wanted class"),
    ],
)
def test_what_cannot_be_indexed_is_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        ForegroundIndex.build(Labels(labels), **options)


def test_booleans_are_labels_too():
    index = ForegroundIndex.build(Labels(np.eye(5, dtype=bool)[None]))
    assert (index.ids.tolist(), index.n_voxels) == ([1], 5)


def test_real_sparse_slices_are_indexed(real_data):
    import tifffile

    path = real_data("20_3d_sparse_slices_fib25/labels_sparse/fib25.tif")
    labels = tifffile.imread(path)
    index = ForegroundIndex.build(Labels(labels))
    ids, counts = np.unique(labels, return_counts=True)
    np.testing.assert_array_equal(index.ids, ids[ids > 0])
    np.testing.assert_array_equal(index.counts, counts[ids > 0])
