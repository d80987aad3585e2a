"""Skeletons are made for every component, lie inside it, and follow scikit-image's Lee."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.morphology import skeletonize as skimage_skeletonize

from volprep.errors import MissingDependencyError
from volprep.geometry import Box
from volprep.skeletons import Skeletons, skeletonize
from volprep.skeletons.make import find_components, trace_component

Labels = npt.NDArray[np.int64]
EVERYWHERE = np.ones((3, 3, 3))


@st.composite
def blobs(draw: st.DrawFn, ids: int = 3) -> Labels:
    """Smooth or ragged objects, some of them touching, some in pieces."""
    shape = draw(st.tuples(*[st.integers(1, 14)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    noise = rng.random((ids, *shape))
    sigma = draw(st.sampled_from([0, 0, 0.6, 1.2]))
    noise = np.stack([ndimage.gaussian_filter(n, sigma) for n in noise])
    free = noise.max(axis=0) < np.quantile(noise.max(axis=0), draw(st.floats(0, 0.8)))
    return np.where(free, 0, noise.argmax(axis=0) + 1)


def components_of(labels: Labels) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    found = []
    for instance in np.unique(labels[labels > 0]):
        pieces, count = ndimage.label(labels == instance, EVERYWHERE)
        found += [(int(instance), pieces == piece) for piece in range(1, count + 1)]
    return found


def test_runs_are_joined_to_the_components_that_scipy_finds() -> None:
    @given(blobs())
    def check(labels: Labels) -> None:
        wanted = {(i, piece.tobytes()) for i, piece in components_of(labels)}
        found = set()
        for component in find_components(labels):
            piece = np.zeros(labels.shape, bool)
            for z, y, x, stop in component.runs:
                piece[z, y, x:stop] = True
            found.add((component.instance, piece.tobytes()))
            assert component.voxels == piece.sum()
        assert found == wanted

    check()


@given(blobs())
def test_lee_leaves_the_voxels_that_scikit_image_leaves(labels: Labels) -> None:
    for component in find_components(labels):
        start = component.runs.min(axis=0)[:3]
        piece = np.zeros(labels.shape, bool)
        for z, y, x, stop in component.runs:
            piece[z, y, x:stop] = True
        box = ndimage.find_objects(piece.astype(int))[0]
        solid = ndimage.binary_fill_holes(piece[box])
        wanted = np.argwhere(skimage_skeletonize(solid, method="lee")) + start
        inside = all(piece[tuple(point)] for point in wanted)
        trace = trace_component(component)
        if len(wanted) > 1 and inside:
            assert trace.points.tolist() == wanted.tolist()
            assert not trace.fell_back
        else:  # nothing, one voxel, or voxels in a cavity
            assert len(trace.points) >= 1
            assert all(piece[tuple(point)] for point in trace.points)


@given(blobs(), st.tuples(*[st.floats(0.1, 4)] * 3))
def test_radii_are_the_distances_to_the_border(
    labels: Labels, spacing: tuple[float, float, float]
) -> None:
    for (_, piece), component in zip(
        sorted(components_of(labels), key=lambda c: int(np.argmax(c[1]))),
        find_components(labels),
        strict=True,
    ):
        trace = trace_component(component, spacing=spacing)
        solid = np.pad(ndimage.binary_fill_holes(piece), 1)
        depth = ndimage.distance_transform_edt(solid, sampling=spacing)[1:-1, 1:-1, 1:-1]
        np.testing.assert_allclose(trace.radii, depth[tuple(trace.points.T)], rtol=1e-5)


@given(blobs())
def test_edges_hold_each_component_together(labels: Labels) -> None:
    for component in find_components(labels):
        trace = trace_component(component)
        n = len(trace.points)
        graph = coo_array((np.ones(len(trace.edges)), trace.edges.T), shape=(n, n))
        assert connected_components(graph, directed=False)[0] == 1


def assert_covers(labels: npt.NDArray[np.integer], skeletons: Skeletons) -> None:
    assert list(skeletons) == [int(i) for i in np.unique(labels) if i != 0]
    places = tuple(skeletons.points.astype(int).T)
    owner = np.repeat(skeletons.ids, np.diff(skeletons.offsets))
    assert (labels[places].astype(np.uint64) == owner).all()
    assert skeletons.radii is not None
    assert (skeletons.radii > 0).all()


@given(blobs(), st.sampled_from([np.uint8, np.int16, np.uint32, np.int64, np.uint64]))
def test_every_component_has_a_point_inside_it(labels: Labels, dtype: type) -> None:
    labels = labels.astype(dtype)
    skeletons = skeletonize(labels)
    assert_covers(labels, skeletons)
    marks = np.zeros(labels.shape, bool)
    marks[tuple(skeletons.points.astype(int).T)] = True
    assert all((marks & piece).any() for _, piece in components_of(labels))


@pytest.mark.parametrize(
    ("name", "crop"),
    [
        ("01_stardist_nuclei3d/labels/img3d.tif", ...),
        ("06_fib25_neurons_png/labels/fib25_bodies.tif", np.s_[:40, :120, :120]),
        ("07_connectomics_neurons_labels_only/labels/pinky40_crop.tif", np.s_[:64, :96, :96]),
        ("15_2d_stardist_pair/labels/img2d.tif", ...),
    ],
)
def test_real_instances_are_all_covered(
    real_data: Callable[[str], Path], name: str, crop: object
) -> None:
    path = real_data(name)
    labels = tifffile.imread(path)
    labels = (labels[None] if labels.ndim == 2 else labels)[crop]
    assert_covers(labels, skeletonize(labels))


def test_the_last_plane_of_a_box_is_not_lost() -> None:
    labels = np.zeros((9, 5, 5), np.uint8)
    labels[:, 1:4, 1:4] = 4
    points = skeletonize(labels)[4]
    assert len(points) > 1
    assert points[:, 0].max() - points[:, 0].min() >= 5


def test_a_diagonal_pair_is_one_component_of_numbers() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert skeletonize(labels)[1].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_ids_up_to_the_largest_are_kept() -> None:
    labels = np.zeros((3, 3, 9), np.uint64)
    labels[..., :3], labels[..., 6:] = 2**64 - 1, 2**53 + 1
    assert list(skeletonize(labels)) == [2**53 + 1, 2**64 - 1]


def test_a_cube_that_scikit_image_removes_keeps_its_deepest_voxel() -> None:
    labels = np.ones((6, 6, 6), np.uint8)
    (component,) = find_components(labels)
    trace = trace_component(component)
    assert trace.fell_back
    assert trace.points.tolist() == [[2, 2, 2]]
    assert trace.radii.tolist() == [3]


def test_cavities_leave_no_sheets_and_no_point_inside_them() -> None:
    z, y, _ = np.mgrid[:21, :21, :40]
    labels = ((z - 10) ** 2 + (y - 10) ** 2 < 81).astype(np.uint8)
    labels[10, 10, 5:35:6] = 0
    labels[9:12, 9:12, 20] = 0
    skeletons = skeletonize(labels)
    assert_covers(labels, skeletons)
    assert len(skeletons.points) < 80


def test_a_hollow_ball_has_its_point_in_the_shell() -> None:
    z, y, x = np.mgrid[:15, :15, :15] - 7
    far = z**2 + y**2 + x**2
    labels = ((far < 49) & (far > 16)).astype(np.int32) * 7
    assert_covers(labels, skeletonize(labels))


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(3)
    labels = (ndimage.gaussian_filter(rng.random((20, 30, 30)), 1) * 30).astype(np.int32)
    assert skeletonize(labels, workers=3) == skeletonize(labels)


def test_teasar_traces_inside_every_component() -> None:
    pytest.importorskip("kimimaro")
    labels = np.zeros((12, 20, 60), np.uint16)
    labels[2:9, 3:9, 2:58] = 5
    labels[2:9, 12:18, 2:20] = 9
    labels[2:9, 12:18, 30:31] = 9
    labels[0, 0, 0] = 300
    skeletons = skeletonize(labels, method="teasar", spacing=(0.05, 0.03, 0.03))
    assert_covers(labels, skeletons)
    assert len(skeletons[5]) > 20
    assert len(skeletons.edges_of(5)) == len(skeletons[5]) - 1
    assert skeletons[300].tolist() == [[0, 0, 0]]


def test_teasar_without_kimimaro_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kimimaro", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"volprep\[teasar\]\""):
        skeletonize(np.ones((2, 2, 2), np.uint8), method="teasar")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros((2, 2), np.uint8), ValueError, r"wanted \(Z, Y, X\)"),
        (np.zeros((2, 2, 2), np.float32), TypeError, "wanted integers"),
        (np.full((2, 2, 2), -3, np.int16), ValueError, "labels hold -3"),
    ],
)
def test_what_is_no_label_volume_is_refused(
    labels: npt.NDArray[np.generic], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        skeletonize(labels)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted one of lee, teasar"):
        skeletonize(np.ones((2, 2, 2), np.uint8), method="zhang")  # type: ignore[arg-type]


def test_a_volume_without_instances_has_no_skeletons() -> None:
    skeletons = skeletonize(np.zeros((3, 4, 5), np.uint8))
    assert len(skeletons) == 0
    assert skeletons.points.shape == (0, 3)


# The noun


@pytest.fixture
def three() -> Skeletons:
    points = {
        3: [[0, 0, 0], [0, 0, 1]],
        5: [[4, 4, 4]],
        2**64 - 1: [[9, 9, 7], [9, 9, 8], [9, 9, 9]],
    }
    return Skeletons.from_points(points, edges={3: [[0, 1]], 2**64 - 1: [[0, 1], [1, 2]]})


def test_skeletons_are_a_mapping_by_id(three: Skeletons) -> None:
    assert list(three) == [3, 5, 2**64 - 1]
    assert three[5].tolist() == [[4, 4, 4]]
    assert 4 not in three
    assert -1 not in three
    assert three.edges_of(2**64 - 1).tolist() == [[0, 1], [1, 2]]
    assert three.edges_of(5).shape == (0, 2)
    with pytest.raises(KeyError):
        three[4]


def test_only_keeps_whole_skeletons_and_their_edges(three: Skeletons) -> None:
    some = three.only([2**64 - 1, 3, 77])
    assert list(some) == [3, 2**64 - 1]
    assert some.edges_of(2**64 - 1).tolist() == [[0, 1], [1, 2]]
    assert some[2**64 - 1].tolist() == three[2**64 - 1].tolist()


def test_a_crop_keeps_points_outside_the_patch(three: Skeletons) -> None:
    labels = np.array([[[0, 3]]])
    cut = three.crop(Box((0, 0, 1), (1, 1, 3)), labels)
    assert list(cut) == [3]
    assert cut[3].tolist() == [[0, 0, -1], [0, 0, 0]]


def test_transform_moves_points_and_nothing_else(three: Skeletons) -> None:
    moved = three.transform(lambda points: points[:, ::-1] * 2)
    assert moved[5].tolist() == [[8, 8, 8]]
    assert moved == three.transform(lambda points: points[:, ::-1] * 2)
    assert moved != three
    assert moved.edges.tolist() == three.edges.tolist()


def test_a_map_to_nowhere_names_the_instance(three: Skeletons) -> None:
    with pytest.raises(ValueError, match="instance 5 has points that are not finite"):
        three.transform(lambda points: np.where(points == 4, np.nan, points))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({7: np.zeros((3, 8))}, "skeleton of instance 7.*transpose"),
        ({7: np.zeros((0, 3))}, "skeleton of instance 7 has no point"),
        ({7: [[0, np.inf, 0]]}, "skeleton of instance 7.*not finite"),
        ({0: [[0, 0, 0]]}, "0 is no instance id"),
        ({2**64: [[0, 0, 0]]}, "is no instance id"),
    ],
)
def test_points_that_cannot_be_a_skeleton_are_refused(
    points: dict[int, npt.ArrayLike], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Skeletons.from_points(points)


def test_edges_are_put_in_order() -> None:
    skeletons = Skeletons.from_points(
        {2: np.zeros((3, 3)), 1: np.ones((2, 3))}, edges={2: [[2, 1], [1, 0]], 1: [[1, 0]]}
    )
    assert skeletons.edges.tolist() == [[0, 1], [2, 3], [3, 4]]
    assert skeletons.edges_of(2).tolist() == [[0, 1], [1, 2]]
    with pytest.raises(ValueError, match="not in ascending order"):
        Skeletons(skeletons.ids, skeletons.offsets, skeletons.points, skeletons.edges[::-1].copy())


@given(blobs(ids=6), st.sets(st.integers(0, 8)))
def test_only_agrees_with_the_whole(labels: Labels, ids: set[int]) -> None:
    whole = skeletonize(labels)
    some = whole.only(ids)
    assert list(some) == sorted(ids & set(whole))
    for instance in some:
        assert some[instance].tolist() == whole[instance].tolist()
        assert some.edges_of(instance).tolist() == whole.edges_of(instance).tolist()
        assert np.array_equal(some.radii_of(instance), whole.radii_of(instance))
