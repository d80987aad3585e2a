"""Baking is exact: every voxel, every anisotropy, points anywhere; the mean stays at home."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from volprep.geometry import Box
from volprep.skeletons import Skeletons, bake_skeleton, skeleton_to_mask, skeletonize
from volprep.skeletons.device import bake_tensor
from volprep.skeletons.table import PointTable

Field = npt.NDArray[np.float32]
Scene = tuple[npt.NDArray[np.integer], dict[int, npt.NDArray[np.float32]]]
ANISOTROPY = st.tuples(*[st.sampled_from([0.3, 1.0, 1.25, 7.0])] * 3)


@st.composite
def scenes(draw: st.DrawFn, largest: int = 20) -> Scene:
    """Labels of any width, and points on voxels, between them and far outside."""
    shape = draw(st.tuples(*[st.integers(1, largest)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = np.array(draw(st.sampled_from([[1], [2, 5, 9], [7, 2**31, 2**63, 2**64 - 1]])), np.uint64)
    noise = ndimage.gaussian_filter(rng.random((len(ids) + 1, *shape)), (0, 1.5, 1.5, 1.5))
    labels = np.concatenate((np.zeros(1, np.uint64), ids))[noise.argmax(axis=0)]
    if ids.max() < 256:
        labels = labels.astype(draw(st.sampled_from([np.uint8, np.int16, np.uint32, np.int64])))
    origin = draw(st.sampled_from([0, -40, 3000]))
    skeletons = {}
    for instance in ids:
        count = int(rng.integers(1, 40))
        points = origin + rng.random((count, 3)) * (np.array(shape) + 6) - 3
        whole = rng.random() < 0.6
        skeletons[int(instance)] = (np.round(points) if whole else points).astype(np.float32)
    return labels, skeletons


def brute_force(
    labels: npt.NDArray[Any], skeletons: Any, anisotropy: tuple[float, ...]
) -> tuple[Field, Field]:
    """Try every point on every voxel."""
    baked = np.zeros((3, *labels.shape), np.float32)
    distance = np.zeros(labels.shape, np.float32)
    for place in np.argwhere(labels):
        points = np.asarray(skeletons[int(labels[tuple(place)])])
        square = ((place - points.astype(np.float64)) * anisotropy) ** 2
        far = square[:, 0] + square[:, 1] + square[:, 2]
        baked[(slice(None), *place)] = points[far.argmin()]
        distance[tuple(place)] = np.sqrt(far.min())
    return baked, distance


def slow_mean(labels: npt.NDArray[Any], baked: Field) -> npt.NDArray[np.float64]:
    """Mean over the 27 voxels that have the same label."""
    mean = np.zeros(baked.shape)
    for place in np.argwhere(labels):
        box = tuple(slice(max(0, p - 1), p + 2) for p in place)
        same = labels[box] == labels[tuple(place)]
        mean[(slice(None), *place)] = baked[(slice(None), *box)][:, same].astype(float).mean(axis=1)
    return mean


@given(scenes(), ANISOTROPY)
def test_every_voxel_gets_its_nearest_point(
    scene: Scene, anisotropy: tuple[float, float, float]
) -> None:
    labels, skeletons = scene
    baked, distance = bake_skeleton(
        labels, skeletons, anisotropy, average=False, return_distance=True
    )
    wanted, far = brute_force(labels, skeletons, anisotropy)
    assert baked.dtype == np.float32
    np.testing.assert_array_equal(baked, wanted)
    np.testing.assert_array_equal(distance, far[None])


@given(scenes(largest=12), ANISOTROPY)
def test_the_mean_is_taken_over_the_same_instance_only(
    scene: Scene, anisotropy: tuple[float, float, float]
) -> None:
    labels, skeletons = scene
    baked = bake_skeleton(labels, skeletons, anisotropy)
    wanted = slow_mean(labels, brute_force(labels, skeletons, anisotropy)[0])
    np.testing.assert_allclose(baked, wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_blocks_leave_no_seams(average: bool, workers: int) -> None:
    rng = np.random.default_rng(8)
    labels = ndimage.gaussian_filter(rng.random((3, 20, 70, 140)), (0, 3, 3, 3)).argmax(axis=0)
    skeletons = {i: rng.random((30, 3)).astype(np.float32) * labels.shape for i in (1, 2)}
    baked = bake_skeleton(labels, skeletons, (2, 1, 1), average=average, workers=workers)
    for start in ((0, 50, 50), (5, 55, 118)):
        box = Box.at(start, (12, 14, 16))
        around = box.grow(1).clip(labels.shape)
        patch = bake_skeleton(
            labels[around.slices],
            {i: p - np.array(around.start) for i, p in skeletons.items()},
            (2, 1, 1),
            average=average,
        )
        inner = (slice(None), *box.shift([-a for a in around.start]).slices)
        place = np.array(around.start, np.float32).reshape(3, 1, 1, 1)
        own = labels[box.slices] != 0
        np.testing.assert_allclose(
            (patch[inner] + place)[:, own], baked[(slice(None), *box.slices)][:, own], atol=1e-4
        )


def test_ties_go_to_the_first_point() -> None:
    labels = np.ones((1, 1, 5), np.uint8)
    for points in ([[0, 0, 4], [0, 0, 0]], [[0, 0, 0], [0, 0, 4]]):
        baked = bake_skeleton(labels, {1: np.array(points)}, average=False)
        assert baked[2, 0, 0, 2] == points[0][2]


def test_coordinates_beyond_2048_stay_exact() -> None:
    labels = np.ones((1, 1, 3), np.uint8)
    point = np.array([[4097.0, 100_001.0, 2049.5]], np.float32)
    baked = bake_skeleton(labels, {1: point})
    assert (baked == point.reshape(3, 1, 1, 1)).all()


def test_offsets_are_positions_minus_places_and_zero_in_the_background() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:, 1:, 1:] = 3
    skeletons = {3: np.array([[2, 3.5, 4]])}
    for average in (False, True):
        position = bake_skeleton(labels, skeletons, average=average)
        offset = bake_skeleton(labels, skeletons, average=average, target="offset")
        place = np.stack(np.indices(labels.shape))
        np.testing.assert_allclose(offset, np.where(labels, position - place, 0), atol=1e-6)


def test_offsets_do_not_change_when_the_volume_is_cropped() -> None:
    labels = np.zeros((10, 12, 14), np.int32)
    labels[2:9, 2:11, 1:13] = 4
    skeletons = skeletonize(labels)
    whole = bake_skeleton(labels, skeletons, average=False, target="offset")
    box = Box((3, 4, 5), (9, 10, 14))
    part = labels[box.slices]
    cut = bake_skeleton(part, skeletons.crop(box, part), average=False, target="offset")
    np.testing.assert_array_equal(cut, whole[(slice(None), *box.slices)])


def test_the_documented_shapes_and_tensors() -> None:
    masks = torch.zeros((1, 6, 5, 4), dtype=torch.int32)
    masks[0, 1:5, 1:4, 1:3] = 2
    skeletons = {2: torch.tensor([[2, 2, 1], [3, 2, 1]])}
    baked, distance = bake_skeleton(masks, skeletons, (1.0, 1.0, 3.0), return_distance=True)
    assert isinstance(baked, torch.Tensor)
    assert baked.shape == (3, 6, 5, 4)
    assert distance.shape == (1, 6, 5, 4)
    assert baked.dtype == distance.dtype == torch.float32
    array = bake_skeleton(masks[0].numpy(), skeletons, (1.0, 1.0, 3.0))
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, baked.numpy())


def test_masks_whose_axes_were_permuted_bake_the_same() -> None:
    rng = np.random.default_rng(2)
    labels = (ndimage.gaussian_filter(rng.random((9, 11, 13)), 1) * 9).astype(np.int64)
    skeletons = skeletonize(labels)
    straight = bake_skeleton(labels, skeletons, (3, 1, 1))
    turned = bake_skeleton(
        torch.from_numpy(labels).permute(1, 2, 0),
        {i: p[:, [1, 2, 0]] for i, p in skeletons.items()},
        (1, 1, 3),
    )
    back = turned[[2, 0, 1]].permute(0, 3, 1, 2).numpy()
    np.testing.assert_allclose(back, straight, atol=1e-6)


@given(scenes(largest=10), ANISOTROPY, st.booleans(), st.sampled_from(["position", "offset"]))
def test_torch_gives_the_same_numbers(
    scene: Scene, anisotropy: tuple[float, float, float], average: bool, target: Any
) -> None:
    labels, skeletons = scene
    baked, distance = bake_skeleton(
        labels, skeletons, anisotropy, average=average, return_distance=True, target=target
    )
    weights = np.array(anisotropy, np.float64)
    others = bake_tensor(labels, PointTable.of(skeletons), weights, average, target, "cpu")
    np.testing.assert_allclose(others[0].numpy(), baked, rtol=1e-6 * average, atol=1e-5 * average)
    np.testing.assert_array_equal(others[1].numpy(), distance[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("average", [False, True])
def test_a_gpu_gives_the_same_numbers(average: bool) -> None:
    rng = np.random.default_rng(5)
    labels = ndimage.gaussian_filter(rng.random((4, 30, 40, 50)), (0, 3, 3, 3)).argmax(axis=0)
    skeletons = skeletonize(labels)
    masks = torch.from_numpy(labels).cuda()
    baked = bake_skeleton(masks, skeletons, (3, 1, 1), average=average, device="cuda")
    assert baked.is_cuda
    wanted = bake_skeleton(labels, skeletons, (3, 1, 1), average=average)
    np.testing.assert_allclose(
        baked.cpu().numpy(), wanted, rtol=1e-6 * average, atol=1e-5 * average
    )


# A warp moves labels and points; the field is baked after it.


def rotations() -> list[npt.NDArray[np.int64]]:
    """The 48 signed permutations of three axes."""
    found = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        matrix = np.zeros((3, 3), np.int64)
        matrix[range(3), order] = signs
        found.append(matrix)
    return found


@pytest.mark.parametrize("matrix", rotations(), ids=lambda m: str(m.tolist()))
def test_baking_after_a_warp_equals_warping_the_exact_geometry(
    matrix: npt.NDArray[np.int64],
) -> None:
    rng = np.random.default_rng(4)
    labels = ndimage.gaussian_filter(rng.random((3, 6, 8, 7)), (0, 1, 1, 1)).argmax(axis=0)
    skeletons = Skeletons.from_points({i: rng.random((9, 3)) * labels.shape for i in (1, 2)})
    spacing = np.array([2.5, 1.0, 0.7])
    order = np.abs(matrix).argmax(axis=1)  # output axis a comes from input axis order[a]
    flips = matrix[range(3), order] < 0
    shift = np.where(flips, np.array(labels.shape)[order] - 1, 0)

    moved = np.flip(labels.transpose(order), np.flatnonzero(flips))
    points = skeletons.transform(lambda p: p @ matrix.T + shift)
    after = bake_skeleton(moved, points, spacing[order], average=False, target="offset")
    before = bake_skeleton(labels, skeletons, spacing, average=False, target="offset")
    turned = np.einsum("ab,bzyx->azyx", matrix, before)
    turned = np.flip(turned.transpose(0, *(order + 1)), np.flatnonzero(flips) + 1)
    np.testing.assert_allclose(after, turned, atol=2e-6)


def test_baking_after_an_affine_map_gives_the_nearest_mapped_point() -> None:
    rng = np.random.default_rng(11)
    labels = np.zeros((12, 20, 20), np.int32)
    labels[2:10, 3:17, 3:9], labels[2:10, 3:17, 11:17] = 1, 2
    skeletons = skeletonize(labels)
    matrix = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
    shift = rng.uniform(-2, 2, 3)
    moved = skeletons.transform(lambda points: points @ matrix.T + shift)
    inverse = np.linalg.inv(matrix)
    warped = ndimage.affine_transform(labels, inverse, -inverse @ shift, order=0)
    baked = bake_skeleton(warped, moved, (2, 1, 1), average=False)
    np.testing.assert_array_equal(baked, brute_force(warped, moved, (2, 1, 1))[0])
    assert (np.abs(baked - np.round(baked)) > 1e-3).any()


# What is refused


@pytest.mark.parametrize(
    ("skeletons", "message"),
    [
        ({2: [[0, 0, 0]]}, "masks hold instance 6, but there is no skeleton of it"),
        ({}, "masks hold instance 6.*"),
        ({6: np.zeros((0, 3))}, "skeleton of instance 6 has no point"),
        ({6: np.zeros((3, 5))}, r"skeleton of instance 6: points are \(3, 5\).*transpose"),
        ({6: np.zeros((4, 2))}, r"skeleton of instance 6: points are \(4, 2\)"),
        ({6: [[np.nan, 0, 0]]}, "skeleton of instance 6.*not finite"),
    ],
)
def test_a_skeleton_that_cannot_serve_is_named(skeletons: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bake_skeleton(np.full((2, 2, 2), 6, np.uint8), skeletons)


def test_skeletons_that_nobody_needs_do_no_harm() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    assert not bake_skeleton(labels, {-1: torch.tensor([]), 4: np.zeros((0, 3))}).any()
    labels[0] = 5
    assert bake_skeleton(labels, {5: [[1, 1, 1]], 9: [[0, 0, 0]]}).any()


@pytest.mark.parametrize(
    ("masks", "options", "error", "message"),
    [
        (np.zeros((2, 2), np.uint8), {}, ValueError, r"masks are \(2, 2\)"),
        (np.zeros((2, 2, 2, 2), np.uint8), {}, ValueError, "wanted"),
        (np.zeros((2, 2, 2)), {}, TypeError, "wanted integers"),
        (np.full((2, 2, 2), -1), {}, ValueError, "labels hold -1"),
        (np.zeros((2, 2, 2), int), {"anisotropy": (1, 1)}, ValueError, "three positive"),
        (np.zeros((2, 2, 2), int), {"anisotropy": (1, 0, 1)}, ValueError, "three positive"),
        (np.zeros((2, 2, 2), int), {"target": "vector"}, ValueError, "wanted one of position"),
    ],
)
def test_wrong_arguments_are_refused(
    masks: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bake_skeleton(masks, {1: [[0, 0, 0]]}, **options)


# The painted mask


def slow_discs(
    points: npt.NDArray[np.float32], shape: tuple[int, ...], radius: float, flank: float
) -> npt.NDArray[np.float32]:
    mask = np.zeros(shape, np.float32)
    places = np.indices(shape)
    for point in np.floor(points + 0.5):
        dx, dy, dz = places - point.reshape(3, 1, 1, 1)
        far = dx**2 + dy**2
        mask[(dz == 0) & (far <= radius**2) | (abs(dz) == 1) & (far <= flank**2)] = 1
    return mask


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([0, 1, 2, 2.5, 7]),
    st.sampled_from([0, 1, 1.5, 3]),
    st.integers(0, 2**32),
)
def test_discs_are_centred_on_their_points(
    shape: tuple[int, int, int], radius: float, flank: float, seed: int
) -> None:
    points = (np.random.default_rng(seed).random((3, 3)) * 14 - 3).astype(np.float32)
    mask = skeleton_to_mask({4: points}, shape, radius=radius, flank_radius=flank)
    assert mask.shape == (1, *shape)
    np.testing.assert_array_equal(mask[0], slow_discs(points, shape, radius, flank))
    turned = skeleton_to_mask(
        {4: points[:, [2, 0, 1]]}, (shape[2], shape[0], shape[1]),
        radius=radius, flank_radius=flank, slice_axis=0, dtype=np.uint8,
    )  # fmt: skip
    assert turned.dtype == np.uint8
    np.testing.assert_array_equal(np.moveaxis(turned[0], 0, 2), mask[0])


def test_tensors_give_a_tensor_mask() -> None:
    mask = skeleton_to_mask({1: torch.tensor([[5.0, 5.0, 5.0]])}, (11, 11, 11))
    assert isinstance(mask, torch.Tensor)
    assert mask.shape == (1, 11, 11, 11)
    assert mask.dtype == torch.float32
    assert (mask.flip(1) == mask).all()
    assert (mask.flip(3) == mask).all()
    assert isinstance(skeleton_to_mask({}, (2, 2, 2), device="cpu"), torch.Tensor)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted 0 or more"):
        skeleton_to_mask({1: [[0, 0, 0]]}, (2, 2, 2), radius=-1)
