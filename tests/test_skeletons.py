"""Skeletons are made for every component, lie inside it, and are as long as it is."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.measure import euler_number

from volprep.errors import MissingDependencyError
from volprep.geometry import Box
from volprep.skeletons import Skeletons, bake_skeleton, skeleton_to_mask, skeletonize
from volprep.skeletons.make import Component, find_components, trace_component

Labels = npt.NDArray[np.int64]
EVERYWHERE = np.ones((3, 3, 3))
FACES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


@st.composite
def blobs(draw: st.DrawFn, ids: int = 3, top: int = 14) -> Labels:
    """Smooth or ragged objects, some of them touching, some in pieces."""
    shape = draw(st.tuples(*[st.integers(1, top)] * 3))
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


def inside_of(component: Component, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    piece = np.zeros(shape, bool)
    for z, y, x, stop in component.runs:
        piece[z, y, x:stop] = True
    return piece


def is_removable(around: npt.NDArray[np.bool_]) -> bool:
    """Whether 3x3x3 voxels stay one object and one background without the middle one."""
    near = around.copy()
    near[1, 1, 1] = False
    free = ~around & (FACES_AND_EDGES > 0)
    pieces, _ = ndimage.label(free)  # by faces
    touching = set(pieces[(ndimage.generate_binary_structure(3, 1)) & free]) - {0}
    return bool(near.sum() > 1 and is_one_piece(near) and len(touching) == 1)


def is_one_piece(near: npt.NDArray[np.bool_]) -> bool:
    return bool(ndimage.label(near, EVERYWHERE)[1] == 1)


def thin_slowly(solid: npt.NDArray[np.bool_]) -> list[list[int]]:
    """The same peeling, voxel by voxel, without any memory of what was looked at."""
    mask = np.pad(solid, 1)
    sides = [(0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0)]
    ways = sides + [
        step
        for edges in (2, 3)
        for step in itertools.product((-1, 0, 1), repeat=3)
        if np.abs(step).sum() == edges
    ]

    def around(voxel: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        return mask[tuple(slice(a - 1, a + 2) for a in voxel)]

    def at(voxel: tuple[int, ...], step: tuple[int, ...]) -> bool:
        return bool(mask[tuple(np.add(voxel, step))])

    def remove(voxel: tuple[int, ...]) -> bool:
        near = around(voxel).copy()
        near[1, 1, 1] = False
        mask[voxel] = not is_one_piece(near)
        return not mask[voxel]

    removed = True
    while removed:
        removed, late = False, []
        for side in sides[: 4 if len(solid) == 1 else 6]:
            voxels = [tuple(v) for v in np.argwhere(mask)]
            found = [v for v in voxels if not at(v, side) and is_removable(around(v))]
            firm = mask.copy()
            for voxel in found:
                firm[voxel] = False
            firm = ndimage.binary_dilation(firm, EVERYWHERE)
            late += [voxel for voxel in found if not firm[voxel]]
            for voxel in found:
                removed |= bool(firm[voxel]) and remove(voxel)
        for way in ways:
            back = tuple(-a for a in way)
            found = [
                v for v in late
                if mask[v] and not at(v, way) and at(v, back) and is_removable(around(v))
            ]  # fmt: skip
            for voxel in found:
                removed |= remove(voxel)
    return (np.argwhere(mask) - 1).tolist()


@settings(max_examples=60)
@given(blobs(top=9))
def test_lee_leaves_what_a_slow_peeling_leaves(labels: Labels) -> None:
    for component in find_components(labels):
        start = component.runs.min(axis=0)[:3]
        piece = inside_of(component, labels.shape)
        solid = ndimage.binary_fill_holes(piece[ndimage.find_objects(piece.astype(int))[0]])
        wanted = np.array(thin_slowly(solid)) + start
        trace = trace_component(component)
        if len(wanted) > 1 and all(piece[tuple(point)] for point in wanted):
            assert trace.points.tolist() == wanted.tolist()
            assert not trace.fell_back
        else:  # one voxel, or voxels in a cavity
            assert len(trace.points) >= 1
            assert all(piece[tuple(point)] for point in trace.points)


@given(blobs())
def test_thinning_keeps_every_hole_and_makes_none(labels: Labels) -> None:
    for component in find_components(labels):
        piece = np.pad(inside_of(component, labels.shape), 1)
        if (ndimage.binary_fill_holes(piece) != piece).any():
            continue  # cavities are filled
        left = np.zeros_like(piece)
        left[tuple((trace_component(component).points + 1).T)] = True
        assert euler_number(left, 3) == euler_number(piece, 3)


def turned(labels: npt.NDArray[np.uint8]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """A shape that lies along z, along each axis."""
    yield from ((axis, np.moveaxis(labels, 0, axis)) for axis in range(3))


def assert_spans(labels: npt.NDArray[np.uint8], axis: int, medial: float) -> None:
    (component,) = find_components(labels)
    trace = trace_component(component)
    assert np.ptp(trace.points[:, axis]) + 1 >= 0.8 * medial
    assert not trace.fell_back


@pytest.mark.parametrize("height", range(1, 9))
def test_rods_of_any_thickness_keep_their_length(height: int) -> None:
    for width in range(1, 9):
        rod = np.zeros((64, 11, 11), np.uint8)
        rod[2:62, 1 : 1 + height, 2 : 2 + width] = 1
        for axis, labels in turned(rod):
            assert_spans(labels, axis, 60)


@pytest.mark.parametrize("thickness", range(1, 7))
def test_slabs_keep_what_their_length_has_over_their_width(thickness: int) -> None:
    for width in (4, 7, 10, 11):
        slab = np.zeros((64, 13, 13), np.uint8)
        slab[2:62, 1 : 1 + thickness, 1 : 1 + width] = 1
        for axis, labels in turned(slab):
            assert_spans(labels, axis, 60 - width)


@pytest.mark.parametrize("radius", [1, 1.5, 2, 2.5, 3, 3.5, 4])
def test_tubes_on_and_between_voxels_keep_their_length(radius: float) -> None:
    z, y, x = np.mgrid[:64, :12, :12]
    for centre_y, centre_x in itertools.product((5, 5.25, 5.5), repeat=2):
        round_ = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2 + 1e-9
        tube = (round_ & (z >= 2) & (z < 62)).astype(np.uint8)
        for axis, labels in turned(tube):
            assert_spans(labels, axis, 60 - 2 * radius)


@given(
    st.integers(0, 2**32),
    st.tuples(*[st.floats(0.9, 4.5)] * 2),
    st.floats(0, 8),
)
def test_curved_and_tapering_tubes_are_followed_from_end_to_end(
    seed: int, radii: tuple[float, float], bend: float
) -> None:
    rng = np.random.default_rng(seed)
    along, side = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
    t = np.linspace(0, 1, 300)
    line = 40 * t[:, None] * along + bend * np.sin(3 * t)[:, None] * side
    line += 7 - line.min(axis=0) + rng.random(3)
    radius = radii[0] + (radii[1] - radii[0]) * t
    shape = np.ceil(line.max(axis=0) + 7).astype(int)
    away, nearest = cKDTree(line).query(np.indices(shape).reshape(3, -1).T)
    labels = (away <= radius[nearest]).reshape(shape).astype(np.uint8)
    trace = trace_component(max(find_components(labels), key=lambda found: found.voxels))
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    length = np.concatenate(([0], np.cumsum(steps)))
    medial = (length >= radii[0]) & (length <= length[-1] - radii[1])
    distance, _ = cKDTree(trace.points).query(line[medial])
    assert (distance <= np.maximum(1.8, radius[medial] / 2)).mean() >= 0.8


@pytest.mark.parametrize("size", [3, 4, 7, 8, 12, 15])
def test_what_has_no_length_has_its_point_in_the_middle(size: int) -> None:
    z, y, x = np.mgrid[:16, :16, :16]
    middle = (size - 1) / 2
    ball = (z - middle) ** 2 + (y - middle) ** 2 + (x - middle) ** 2 <= (size / 2) ** 2
    box = (z < size) & (y < size) & (x < size)
    shapes = [ball, box, *(box & (z < n) for n in range(1, size))]
    for shape in shapes:
        for _, labels in turned(shape.astype(np.uint8)):
            away = skeletonize(labels)[1] - np.argwhere(labels).mean(axis=0)
            assert np.abs(away).max() <= 1.5
            assert np.abs(away.mean(axis=0)).max() <= 1


@given(blobs(), st.tuples(*[st.floats(0.1, 4)] * 3))
def test_radii_are_the_distances_to_the_border(
    labels: Labels, spacing: tuple[float, float, float]
) -> None:
    for component in find_components(labels):
        trace = trace_component(component, spacing=spacing)
        piece = np.pad(inside_of(component, labels.shape), 1)
        depth = ndimage.distance_transform_edt(piece, sampling=spacing)[1:-1, 1:-1, 1:-1]
        np.testing.assert_allclose(trace.radii, depth[tuple(trace.points.T)], rtol=1e-5)


@given(blobs())
def test_every_edge_links_voxels_of_the_object_that_touch(labels: Labels) -> None:
    for component in find_components(labels):
        trace = trace_component(component)
        assert all(inside_of(component, labels.shape)[tuple(trace.points.T)])
        ends = trace.points[trace.edges]
        assert (np.abs(ends[:, 0] - ends[:, 1]).max(axis=1, initial=0) == 1).all()


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


def test_one_voxel_that_is_left_is_the_deepest_in_the_middle() -> None:
    labels = np.ones((1, 9, 9), np.uint8)
    (component,) = find_components(np.pad(labels, 1))
    trace = trace_component(component)
    if trace.fell_back:
        assert trace.points.tolist() == [[1, 5, 5]]
    assert trace.radii.tolist() == [1] * len(trace.points)
    (speck,) = find_components(np.ones((1, 1, 1), np.uint8))
    assert trace_component(speck).fell_back


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
    skeletons = skeletonize(labels)
    assert_covers(labels, skeletons)
    assert skeletons.radii is not None
    assert skeletons.radii.max() <= 2


@pytest.mark.parametrize("wall", [1, 2, 3])
def test_a_closed_tube_is_followed_along_its_wall(wall: int) -> None:
    z, y, x = np.mgrid[:64, :17, :17]
    far = (y - 8) ** 2 + (x - 8) ** 2
    solid = (far <= 49) & (z > 1) & (z < 62)
    hollow = (far <= (7 - wall) ** 2) & (z > 1 + wall) & (z < 62 - wall)
    labels = (solid & ~hollow).astype(np.uint8)
    (component,) = find_components(labels)
    trace = trace_component(component)
    assert np.ptp(trace.points[:, 0]) >= 40
    assert len(trace.points) < 80
    assert trace.radii.max() <= wall


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


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e3, 1e6])
def test_teasar_is_the_same_in_any_unit(unit: float) -> None:
    pytest.importorskip("kimimaro")
    labels = np.zeros((30, 30, 60), np.uint8)
    labels[3:27, 3:27, 3:27] = labels[13:17, 13:17, 20:58] = 1
    spacing = (2 * unit, unit, unit)
    found = skeletonize(labels, method="teasar", spacing=spacing)
    wanted = skeletonize(labels, method="teasar", spacing=(2.0, 1.0, 1.0))
    assert found[1].tolist() == wanted[1].tolist()
    assert found.edges.tolist() == wanted.edges.tolist()
    np.testing.assert_allclose(found.radii, wanted.radii * unit, rtol=1e-5)


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


def test_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    labels = np.zeros((4, 5, 20), np.int32)
    labels[1:3, 1:4, 1:18] = 3
    assert skeletonize(torch.from_numpy(labels)) == skeletonize(labels)


def test_what_is_no_whole_number_is_refused() -> None:
    for refused in (
        lambda: Skeletons.from_points({3.0: [[0, 0, 0]]}),  # type: ignore[dict-item]
        lambda: Skeletons.from_points({3: [[0, 0, 0]] * 2}, edges={3: [[0.0, 1.0]]}),
        lambda: Skeletons.from_points({3: [[0, 0, 0]]}).only(np.array([3.0])),
        lambda: bake_skeleton(np.ones((2, 2, 2), int), {1.5: np.zeros((1, 3))}),  # type: ignore[dict-item]
        lambda: skeleton_to_mask({1.5: np.zeros((1, 3))}, (2, 2, 2)),  # type: ignore[dict-item]
        lambda: skeleton_to_mask({1: np.zeros((1, 3))}, (4.7, 4, 4)),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            refused()


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
