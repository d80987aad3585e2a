"""Tiles put together again: cut and stitched, blended, streamed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.patching import TiledPatching, blend, stitch


@st.composite
def tilings(draw):
    """(shape, patch, overlaps) in 2D or 3D, tiles larger than the sample among them."""
    ndim = draw(st.integers(2, 3))
    patch = draw(st.lists(st.integers(1, 9), min_size=ndim, max_size=ndim))
    overlaps = [draw(st.integers(0, p - 1)) for p in patch]
    shape = draw(st.lists(st.integers(1, 21), min_size=ndim, max_size=ndim))
    return shape, patch, overlaps


def cut(image, specs):
    for spec in specs:
        box = [slice(c, c + p) for c, p in zip(spec["coords"], spec["patch_size"], strict=True)]
        yield image[(..., *box)]


def tiled(shape, patch, overlaps):
    return list(TiledPatching([(1, 1, *shape)], patch, overlaps).tile_specs)


def slow_blend(image_shape, tiles, specs, profile):
    """Sum of weighted tiles over the sum of weights, voxel by voxel."""
    total, weight = np.zeros(image_shape), np.zeros(image_shape)
    for tile, spec in zip(tiles, specs, strict=True):
        sizes = [min(p, n) for p, n in zip(spec["patch_size"], image_shape, strict=True)]
        w = np.ones(())
        for n in sizes:
            w = np.multiply.outer(w, profile(n))
        box = tuple(slice(c, c + n) for c, n in zip(spec["coords"], sizes, strict=True))
        total[box] += w * tile
        weight[box] += w
    return total / weight


def linear(n):
    return np.minimum(np.arange(n) + 1, n - np.arange(n))


def gaussian(n):
    return np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2)


@given(tilings(), st.integers(0, 2**32))
def test_an_image_that_is_cut_and_stitched_is_identical(tiling, seed):
    specs = tiled(*tiling)
    image = np.random.default_rng(seed).integers(0, 2**64, tiling[0], dtype=np.uint64)
    stitched = stitch(cut(image, specs), specs)
    assert stitched.dtype == image.dtype
    np.testing.assert_array_equal(stitched, image)


@given(tilings())
def test_kept_parts_lie_inside_their_tiles_and_cover_the_image(tiling):
    shape, patch, _ = tiling
    seen = np.zeros(shape, int)
    for spec in tiled(*tiling):
        for axis, n in enumerate(shape):
            first, kept = spec["crop_coords"][axis], spec["crop_size"][axis]
            assert spec["coords"][axis] + first == spec["stitch_coords"][axis]
            assert 0 < kept <= min(patch[axis], n) - first
        box = zip(spec["stitch_coords"], spec["crop_size"], strict=True)
        seen[tuple(slice(a, a + n) for a, n in box)] += 1
    assert seen.all()


def test_channels_before_the_space_are_kept():
    image = np.random.default_rng(0).random((3, 30, 17)).astype(np.float32)
    specs = tiled((30, 17), (8, 8), (4, 2))
    np.testing.assert_array_equal(stitch(cut(image, specs), specs), image)
    np.testing.assert_allclose(blend(cut(image, specs), specs), image, atol=1e-6)


def test_tiles_padded_at_their_end_stitch_as_well():
    image = np.arange(15).reshape(3, 5)
    specs = tiled((3, 5), (4, 4), (2, 2))
    padded = [np.pad(t, [(0, 4 - n) for n in t.shape]) for t in cut(image, specs)]
    np.testing.assert_array_equal(stitch(padded, specs), image)
    np.testing.assert_allclose(blend(padded, specs), image, atol=1e-5)


@pytest.mark.parametrize(("weights", "profile"), [("linear", linear), ("gaussian", gaussian)])
@given(tiling=tilings(), seed=st.integers(0, 2**32))
def test_blend_is_the_weighted_mean_of_the_tiles(weights, profile, tiling, seed):
    specs = tiled(*tiling)
    rng = np.random.default_rng(seed)
    tiles = [rng.random(tile.shape, np.float32) for tile in cut(np.zeros(tiling[0]), specs)]
    expected = slow_blend(tiling[0], tiles, specs, profile)
    np.testing.assert_allclose(blend(iter(tiles), specs, weights), expected, atol=2e-6)


def test_a_blend_streams_into_a_zarr_array(tmp_path):
    zarr = pytest.importorskip("zarr")
    image = np.random.default_rng(0).random((2, 20, 33, 18), np.float32)
    specs = tiled((20, 33, 18), (8, 16, 16), (4, 4, 8))
    out = zarr.create_array(
        tmp_path / "blend.zarr", shape=image.shape, chunks=(2, 4, 16, 16), dtype="float32"
    )
    assert blend(cut(image, specs), specs, "gaussian", out=out) is out
    np.testing.assert_allclose(out[:], image, atol=1e-6)
    stitch(cut(image, specs), specs, out=out)
    np.testing.assert_array_equal(out[:], image)


class BandOnly:
    """An output that refuses to be written twice, or by more than a band at a time."""

    def __init__(self, shape, rows):
        self.shape, self.dtype, self.rows = shape, np.dtype(np.uint8), rows
        self.data, self.writes = np.zeros(shape, np.uint8), np.zeros(shape[0], int)

    def __setitem__(self, key, value):
        assert len(value) <= self.rows
        self.writes[key[0]] += 1
        self.data[key] = value


def test_a_blend_holds_one_row_of_tiles_and_writes_each_voxel_once():
    image = np.random.default_rng(0).integers(0, 256, (50, 20, 20)).astype(np.uint8)
    specs = tiled(image.shape, (12, 8, 8), (6, 4, 4))
    out = BandOnly(image.shape, rows=12)
    blend(cut(image, specs), specs, out=out)
    assert (out.writes == 1).all()
    np.testing.assert_array_equal(out.data, image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tiles, specs: (tiles[:-1], specs), "3 for 4 specs"),
        (lambda tiles, specs: (tiles + tiles[:1], specs), "more than the 4"),
        (lambda tiles, specs: (tiles, []), "at least one tile"),
        (
            lambda tiles, specs: (tiles, [{**s, "sample_idx": i} for i, s in enumerate(specs)]),
            "one sample",
        ),
    ],
)
def test_tiles_that_do_not_go_with_their_specs_are_refused(change, message):
    image = np.zeros((10, 10))
    specs = tiled(image.shape, (6, 6), (2, 2))
    tiles, specs = change(list(cut(image, specs)), specs)
    with pytest.raises(ValueError, match=message):
        stitch(tiles, specs)
    with pytest.raises(ValueError, match=message):
        blend(tiles, specs)


def test_an_output_of_another_shape_is_refused():
    specs = tiled((10, 10), (6, 6), (2, 2))
    for join in (stitch, blend):
        with pytest.raises(ValueError, match=r"wanted \(10, 10\)"):
            join(cut(np.zeros((10, 10)), specs), specs, out=np.zeros((10, 11)))


def test_blending_needs_the_whole_grid_in_order():
    specs = tiled((10, 10), (6, 6), (2, 2))
    shuffled = [specs[1], specs[0], *specs[2:]]
    with pytest.raises(ValueError, match="last axis fastest"):
        blend(cut(np.zeros((10, 10)), shuffled), shuffled)
    with pytest.raises(ValueError, match="weights 'cubic'"):
        blend(cut(np.zeros((10, 10)), specs), specs, "cubic")
