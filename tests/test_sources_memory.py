"""Walking through a volume holds a slab, whatever the size and the format of its file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr

from volprep.geometry import Box
from volprep.sources import open_labels, open_volume
from volprep.sources.chunked import CACHE, BlockCache

SLAB = 2**18


def put_h5(path: Path, array: np.ndarray) -> None:
    """Chunks of four sections."""
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=array, chunks=(4, 64, 64), compression="gzip")


def put_zarr(path: Path, array: np.ndarray) -> None:
    """Chunks of four sections."""
    zarr.create_array(path, shape=array.shape, chunks=(4, 64, 64), dtype=array.dtype)[...] = array


def put_png(path: Path, array: np.ndarray) -> None:
    """One file for each section."""
    path.mkdir()
    for z, plane in enumerate(array):
        (path / f"{z}.png").write_bytes(imagecodecs.png_encode(plane))


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "a.tif": lambda path, array: tifffile.imwrite(path, array),
    "b.tif": lambda path, array: tifffile.imwrite(path, array, compression="zlib"),
    "a.nii": lambda path, array: nib.save(nib.Nifti1Image(array.T, np.eye(4)), path),
    "a.nii.gz": lambda path, array: nib.save(nib.Nifti1Image(array.T, np.eye(4)), path),
    "a.npy": lambda path, array: np.save(path, array),
    "a.npz": lambda path, array: np.savez_compressed(path, array),
    "a.h5": put_h5,
    "a.zarr": put_zarr,
    "png": put_png,
}


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    """16 MiB."""
    ramp = np.arange(128 * 256 * 256, dtype=np.uint32).reshape(128, 256, 256)
    return (ramp // 7 % 999).astype(np.uint16)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_walk_holds_a_few_slabs(tmp_path: Path, voxels: np.ndarray, name: str) -> None:
    WRITERS[name](tmp_path / name, voxels)
    for opened in (open_volume, open_volume, open_labels):  # the first pays for imports
        total = 0
        with opened(tmp_path / name) as volume:
            tracemalloc.start()
            for _, block in volume.slabs(max_bytes=SLAB):
                total += int(block.sum())
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert total == voxels.sum(dtype=np.int64)
    assert peak < 2**22


def test_the_cache_of_blocks_keeps_to_its_size() -> None:
    cache = BlockCache(1000)
    for i in range(10):
        cache.put(0, (i,), np.zeros(300, np.uint8))
    assert [i for i in range(10) if cache.get(0, (i,)) is not None] == [7, 8, 9]
    cache.put(1, (0,), np.zeros(2000, np.uint8))
    assert cache.get(1, (0,)) is None
    cache.get(0, (7,))
    cache.put(0, (10,), np.zeros(300, np.uint8))
    assert cache.get(0, (7,)) is not None
    assert cache.get(0, (8,)) is None
    cache.drop(0)
    assert cache.get(0, (7,)) is None


def test_a_closed_volume_leaves_nothing_in_the_cache(tmp_path: Path, voxels: np.ndarray) -> None:
    CACHE.clear()
    tifffile.imwrite(tmp_path / "a.tif", voxels[:4], compression="zlib", photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        block = volume.read(Box((0, 0, 0), (4, 9, 9)))
        assert len(CACHE._blocks) == 4
    assert len(CACHE._blocks) == 0
    assert block.shape == (1, 4, 9, 9)


def test_a_cached_block_cannot_be_written_to(tmp_path: Path, voxels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", voxels[0], compression="zlib")
    block = open_volume(tmp_path / "a.tif").read(Box((0, 0, 0), (1, 9, 9)))
    with pytest.raises(ValueError, match="read-only"):
        block[...] = 0
