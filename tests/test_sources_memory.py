"""Walking through a volume holds a slab, whatever the size and the format of its file."""

from __future__ import annotations

import errno
import gc
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import imagecodecs
import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import chunked, open_labels, open_volume, stream
from volprep.sources.chunked import CACHE, BlockCache
from volprep.sources.scratch import SCRATCH, Scratch

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


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import volprep, imagecodecs, h5py, tifffile, isal.igzip
from volprep.geometry import Box
limit = 500 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
volume = volprep.open_volume(sys.argv[2])
_, nz, ny, nx = volume.shape
total = 0
for z in range(0, nz, 64):
    total += int(volume.read(Box((z, 0, 0), (min(z + 64, nz), ny // 2, nx))).max())
for box, block in volume.slabs():
    total += int(block.max())
print(total)
"""


def _gzip_bomb(path: Path) -> None:
    import isal.igzip

    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4))
    image.header.set_data_shape((1024, 1024, 640))
    with isal.igzip.open(path, "wb", compresslevel=1) as file:
        file.write(image.header.binaryblock + bytes(4))
        for _ in range(640):
            file.write(bytes(2**20))


def _npz_bomb(path: Path) -> None:
    import zipfile

    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("raw.npy", "w", force_zip64=True) as file,
    ):
        shape = (640, 1024, 1024)
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        for _ in range(640):
            file.write(bytes(2**20))


def _strip_bomb(path: Path) -> None:
    plane = np.zeros((1, 20480, 32768), np.uint8)
    tifffile.imwrite(path, plane, compression="zlib", rowsperstrip=plane.shape[1])


def _chunk_bomb(path: Path) -> None:
    with h5py.File(path, "w") as file:
        made = file.create_dataset("raw", (640, 1024, 1024), "u1", chunks=(640, 1024, 1024),
                                   compression="gzip", compression_opts=1)  # fmt: skip
        made[...] = np.broadcast_to(np.uint8(0), made.shape)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux limits data so")
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.nii.gz", _gzip_bomb),
        ("a.npz", _npz_bomb),
        ("a.tif", _strip_bomb),
        ("a.h5", _chunk_bomb),
    ],
)
def test_what_inflates_a_thousandfold_takes_no_memory_of_its_own(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    """640 MiB of voxels in a few hundred kilobytes, read with 500 MB of private memory."""
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 8 * 2**20
    here = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, here, str(tmp_path / name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "0"


def test_a_picture_that_fills_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    rows = zlib.compress(bytes(2**20 * 40), 9)
    head = struct.pack(">IIBBBBB", 2**15, 2**15, 8, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, body in ((b"IHDR", head), (b"IDAT", rows * 26), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(name + body))
        parts += [struct.pack(">I", len(body)), name, body, crc]
    (tmp_path / "a.png").write_bytes(b"".join(parts))
    with pytest.raises(SourceError, match=r"32768×32768 pixels.*takes 1024 MiB of memory"):
        open_volume(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.h5", "b.tif", "a.zarr", "png"])
def test_a_block_too_large_for_memory_is_decoded_once(
    tmp_path: Path, voxels: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path / name, voxels[:8])
    monkeypatch.setattr(chunked, "LARGE_BYTES", 100)
    volume = open_volume(tmp_path / name)
    decoded = []
    decode = volume._decode
    monkeypatch.setattr(volume, "_decode", lambda i, out: decoded.append(i) or decode(i, out))
    for y in range(0, 250, 50):
        block = volume.read(Box((0, y, 3), (7, y + 50, 250)))
        assert np.array_equal(block[0], voxels[:7, y : y + 50, 3:250])
    assert len(decoded) == len(set(decoded))
    block = volume.read()
    assert np.array_equal(block[0], voxels[:8])
    assert SCRATCH.nbytes > 0
    volume.close()
    assert SCRATCH.nbytes == 0


def test_scratch_space_goes_back_with_its_volume(tmp_path: Path, voxels: np.ndarray) -> None:
    SCRATCH.clear()
    put_h5(tmp_path / "a.h5", voxels[:4])
    volume = open_volume(tmp_path / "a.h5")
    volume._on_disk((0, 0, 0))
    assert SCRATCH.nbytes > 0
    del volume
    gc.collect()
    assert SCRATCH.nbytes == 0


def test_scratch_space_keeps_to_its_limit(tmp_path: Path, voxels: np.ndarray) -> None:
    put_h5(tmp_path / "a.h5", voxels[:4])
    volume, store = open_volume(tmp_path / "a.h5"), Scratch(max_bytes=1000)
    for number in range(5):
        store.put(volume, (number,), store.make(volume, (number,), (300,), np.uint8))
    assert [n for n in range(5) if store.get(volume.serial, (n,)) is not None] == [2, 3, 4]


@pytest.mark.parametrize("name", ["a.nii.gz", "a.npz", "a.h5"])
def test_a_full_temporary_folder_is_an_error_with_the_bytes(
    tmp_path: Path, voxels: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path / name, voxels[:4])

    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(stream, "HELD_BYTES", 0)
    monkeypatch.setattr(chunked, "LARGE_BYTES", 0)
    with pytest.raises(SourceError, match=r"needs \d+ bytes of scratch space in .*, where \d+ are"):
        open_volume(tmp_path / name).read(Box((0, 0, 0), (3, 9, 9)))
