"""Warped patches straight from a source of any kind, with the values of elektronn3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import zarr

from volprep.geometry import Box, Spacing3
from volprep.sources import open_labels, open_volume
from volprep.warp import WarpingOOBError, get_warped_coord_transform, map_of_transform, warp_slice

Array = npt.NDArray[Any]

GOLDEN = Path(__file__).parent / "data" / "elektronn3_warps.npz"
PATCH, TARGET_PATCH = (5, 14, 16), (3, 10, 12)


def volumes() -> tuple[Array, Array]:
    """The image and label that `scripts/make_warp_goldens.py` let elektronn3 warp."""
    z, y, x = np.ogrid[:26, :50, :52]
    plain = (57 * z + 13 * y * y + 17 * x + x * y * z) % 251
    image = np.stack([plain, plain[::-1]]).astype(np.float32) / np.float32(251)
    return image, (plain[2:24, 2:48, 2:50] % 60)[None].astype(np.uint8)


def goldens() -> list[Any]:
    stored = np.load(GOLDEN)
    cases = zip(*(stored[k] for k in ("names", "matrices", "images", "labels")), strict=True)
    return [pytest.param(*case[1:], id=f"{case[0]}{n}") for n, case in enumerate(cases)]


@pytest.mark.parametrize(("matrix", "image", "label"), goldens())
def test_one_matrix_gives_the_values_of_elektronn3(
    matrix: Array, image: Array, label: Array
) -> None:
    source, target = volumes()
    found, ids = warp_slice(source, PATCH, matrix, target, TARGET_PATCH, debug=True)
    np.testing.assert_allclose(found, image, atol=1e-4)
    at = map_of_transform(matrix).source_points(np.array(list(np.ndindex(PATCH)), float))
    tie = np.any(np.abs(at % 1 - 0.5) < 1e-4, 1).reshape(PATCH)[1:-1, 2:-2, 2:-2]
    assert ids is not None
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids[0][~tie], label[0][~tie])


class Counted:
    """A volume that remembers which boxes were read."""

    def __init__(self, array: Array) -> None:
        self.array, self.boxes = array, list[Box]()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        c, z, y, x = self.array.shape
        return c, z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def spacing(self) -> Spacing3 | None:
        return None

    def read(self, box: Box | None = None) -> Array:
        box = box or Box.whole(self.array.shape)
        self.boxes.append(box)
        return self.array[:, *box.slices]


def test_arrays_volumes_hdf5_and_zarr_give_the_same(tmp_path: Path) -> None:
    image, label = volumes()
    matrix = np.load(GOLDEN)["matrices"][3]
    wanted, ids = warp_slice(image, PATCH, matrix, label, TARGET_PATCH)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", data=image, chunks=(1, 8, 16, 16))
        file.create_dataset("label", data=label[0], chunks=(8, 16, 16))
        group = zarr.create_group(tmp_path / "a.zarr")
        group.create_array("image", data=image, chunks=(1, 8, 16, 16))
        group.create_array("label", data=label[0], chunks=(8, 16, 16))
        for store in (file, group):
            found, same = warp_slice(store["image"], PATCH, matrix, store["label"], TARGET_PATCH)
            np.testing.assert_array_equal(found, wanted)
            np.testing.assert_array_equal(same, ids)
    found, same = warp_slice(Counted(image), PATCH, matrix, Counted(label), TARGET_PATCH)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(same, ids)


def test_only_the_block_that_is_needed_is_read() -> None:
    image, label = (Counted(array) for array in volumes())
    matrix = np.load(GOLDEN)["matrices"][0]
    warp_slice(image, PATCH, matrix, label, TARGET_PATCH)
    box = map_of_transform(matrix).source_box(PATCH)
    assert image.boxes == [box]
    (part,) = label.boxes
    assert box.contains(part.shift((2, 2, 2)))


def test_a_warp_out_of_bounds_is_refused_before_anything_is_read() -> None:
    image, label = (Counted(array) for array in volumes())
    matrix = np.eye(4)
    matrix[0, 3] = 1
    with pytest.raises(WarpingOOBError, match="reads"):
        warp_slice(image, PATCH, matrix, label, TARGET_PATCH)
    matrix[0, 3] = -20
    with pytest.raises(WarpingOOBError, match="reads"):
        warp_slice(image, PATCH, matrix, label, PATCH)
    assert not image.boxes
    assert not label.boxes
    assert issubclass(WarpingOOBError, ValueError)


def test_the_outermost_voxels_can_be_read() -> None:
    image, _ = volumes()
    found, _ = warp_slice(image, image.shape[-3:], np.eye(4))
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64", ">u4", "bool"])
def test_ids_keep_their_dtype_and_every_bit(dtype: str) -> None:
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    label = np.frombuffer(rng.bytes(26 * 50 * 52 * kind.itemsize), kind).reshape(26, 50, 52)
    label = rng.random((26, 50, 52)) < 0.5 if dtype == "bool" else label
    matrix = np.load(GOLDEN)["matrices"][8]
    _, ids = warp_slice(volumes()[0], PATCH, matrix, label)
    assert ids is not None
    assert ids.dtype == kind
    at = map_of_transform(matrix).source_points(np.array(list(np.ndindex(PATCH)), float))
    wanted = label[tuple(np.rint(at).astype(int).T)].reshape(1, *PATCH)
    np.testing.assert_array_equal(ids, wanted)


def test_a_discrete_image_channel_is_not_interpolated() -> None:
    image = np.stack([volumes()[0][0], np.full((26, 50, 52), 16777216, np.float32)])
    image[1, ::2] = 3
    matrix = np.load(GOLDEN)["matrices"][3]
    found, _ = warp_slice(image, PATCH, matrix, input_discrete_ix=[1], debug=True)
    assert found.dtype == np.float32
    assert set(np.unique(found[1])) == {3, 16777216}
    assert len(np.unique(found[0])) > 100


def test_mixed_channels_refuse_ids_that_float32_cannot_hold() -> None:
    source = np.full((2, 26, 50, 52), 2**24 + 1, np.int64)
    matrix = np.load(GOLDEN)["matrices"][3]
    with pytest.raises(ValueError, match=r"inp_src: discrete channels \[1\]"):
        warp_slice(source, PATCH, matrix, input_discrete_ix=[1])
    ids, _ = warp_slice(source, PATCH, matrix, input_discrete_ix=[0, 1])
    assert np.all(ids == 2**24 + 1)


def test_a_target_may_say_where_it_begins() -> None:
    image, _ = volumes()
    target = np.arange(25 * 50 * 52).reshape(25, 50, 52)
    with pytest.raises(ValueError, match="target_src"):
        warp_slice(image, PATCH, np.eye(4), target)
    shift = np.eye(4)
    shift[0, 3] = -1
    _, ids = warp_slice(image, PATCH, shift, target, target_src_start=(1, 0, 0))
    np.testing.assert_array_equal(ids, target[None, :5, :14, :16])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((9, 9)), (2, 2, 2), np.eye(4)), "inp_src: shape"),
        ((np.zeros((9, 9, 9)), (2, 2), np.eye(4)), "patch_shape"),
        ((np.zeros((9, 9, 9)), (2, 2, 2), np.zeros((4, 4))), "inverted"),
        ((np.zeros((9, 9, 9)), (2, 2, 2), np.eye(3)), "wanted a finite"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp_slice(*arguments)


def test_a_locked_perspective_leaves_z_alone() -> None:
    rng = np.random.default_rng(2)
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], (40, 80, 80))
    for _ in range(20):
        matrix = get_warped_coord_transform(
            ramp.shape, (8, 32, 32), aniso_factor=3, perspective=True, rng=rng
        )
        assert matrix[3, 1:3].any()
        found, _ = warp_slice(ramp, (8, 32, 32), matrix.astype(np.float32))
        sections = found[0].reshape(8, -1)
        np.testing.assert_allclose(sections, sections[:, :1].repeat(32 * 32, 1), atol=1e-3)
        assert abs(sections[1, 0] - sections[0, 0]) == pytest.approx(1, abs=1e-3)


def test_real_neurons_are_warped_straight_from_their_files(
    real_data: Callable[[str], Path],
) -> None:
    image = open_volume(real_data("06_fib25_neurons_png/images"))
    labels = open_labels(real_data("06_fib25_neurons_png/labels/fib25_bodies.tif"))
    bodies = labels.read()
    rng = np.random.default_rng(0)
    for lock_z in (True, False):
        matrix = get_warped_coord_transform(
            image.shape, (16, 48, 48), aniso_factor=1, lock_z=lock_z, rng=rng
        )
        found, ids = warp_slice(image, (16, 48, 48), matrix, labels, debug=True)
        same, _ = warp_slice(image.read(), (16, 48, 48), matrix)
        np.testing.assert_array_equal(found, same)
        assert 20 < found.std() < 80
        assert ids is not None
        assert ids.dtype == bodies.dtype
        assert len(np.unique(ids)) > 3
        at = map_of_transform(matrix).source_points(np.array(list(np.ndindex(16, 48, 48)), float))
        clear = np.all(np.abs(at % 1 - 0.5) > 1e-4, 1)
        wanted = bodies[0][tuple(np.rint(at).astype(int).T)]
        np.testing.assert_array_equal(ids.ravel()[clear], wanted[clear])
