"""The patch set on disk: any Zarr reader opens it, damage is found, shards resume."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from volprep.errors import StoreError
from volprep.geometry import Box
from volprep.store import (
    INDEX_COLUMNS,
    PATCHES_PER_SHARD,
    ArraySpec,
    PatchReader,
    PatchStore,
    PatchWriter,
    create_case_array,
    describe_file,
    publish,
)

N = PATCHES_PER_SHARD + 7


def patches(seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60000, (N, 2, 3, 5, 4)).astype(np.uint16)
    labels = rng.integers(0, 3, (N, 3, 5, 4)).astype(np.uint64) * np.uint64(2**63)
    return images, labels


def write_split(path: Path, compression: str = "lz4") -> PatchWriter:
    images, labels = patches()
    specs = [
        ArraySpec("image", images.shape[1:], images.dtype, compression),
        ArraySpec("label", labels.shape[1:], labels.dtype, compression),
    ]
    writer = PatchWriter(path, specs, N, {"note": "µ"})
    for shard in range(writer.n_shards):
        writer.write(
            shard,
            (
                ({"image": images[i], "label": labels[i]}, [i] * len(INDEX_COLUMNS))
                for i in writer.patches_of(shard)
            ),
        )
    return writer


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_patches_read_back_alike_here_and_by_zarr(tmp_path: Path, compression: str) -> None:
    write_split(tmp_path / "a.zarr", compression).finish()
    images, labels = patches()
    reader = PatchReader(tmp_path / "a.zarr")
    group: Any = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    assert len(reader) == N
    assert reader.names == ("image", "label")
    for i in (0, 1, PATCHES_PER_SHARD - 1, PATCHES_PER_SHARD, N - 1):
        np.testing.assert_array_equal(reader.read("image", i), images[i])
        np.testing.assert_array_equal(reader.read("label", i), labels[i])
    np.testing.assert_array_equal(group["image"][:], images)
    np.testing.assert_array_equal(group["label"][:], labels)
    np.testing.assert_array_equal(group["index"][:], reader.index)
    assert reader.index[:, 0].tolist() == list(range(N))


def test_reader_crosses_processes_by_pickle(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr").finish()
    reader = PatchReader(tmp_path / "a.zarr")
    reader.read("image", 0)
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.read("image", 3), reader.read("image", 3))


def test_every_flipped_byte_of_a_shard_is_noticed(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr").finish()
    shard = tmp_path / "a.zarr/label/c/1/0/0/0"
    whole = shard.read_bytes()
    for place in (0, 10, len(whole) // 2, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        shard.write_bytes(broken)
        reader = PatchReader(tmp_path / "a.zarr")
        assert list(reader.damaged()), place
    shard.write_bytes(whole[:100])
    with pytest.raises(StoreError, match="damaged"):
        PatchReader(tmp_path / "a.zarr").read("label", N - 1)


def test_number_out_of_range_is_an_index_error(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr").finish()
    reader = PatchReader(tmp_path / "a.zarr")
    for number in (-1, N):
        with pytest.raises(IndexError):
            reader.read("image", number)


def test_split_without_patches_is_a_split(tmp_path: Path) -> None:
    spec = ArraySpec("image", (1, 2, 2, 2), np.dtype(np.uint8))
    PatchWriter(tmp_path / "v.zarr", [spec], 0).finish()
    assert len(PatchReader(tmp_path / "v.zarr")) == 0


def test_broken_write_leaves_no_shard(tmp_path: Path) -> None:
    spec = ArraySpec("image", (1, 2, 2, 2), np.dtype(np.uint8))
    writer = PatchWriter(tmp_path / "a.zarr", [spec], 3)
    with pytest.raises(ValueError, match="announced"):
        writer.write(0, [({"image": np.zeros((1, 2, 2, 3), np.uint8)}, [0] * 11)])
    assert not writer.has(0)
    assert not [p for p in (tmp_path / "a.zarr/image").rglob("*") if p.name.startswith(".")]


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    hashes = []
    for name in ("a", "b"):
        write_split(tmp_path / name / "a.zarr").finish()
        hashes.append(describe_file(tmp_path / name)["sha256"])
    assert hashes[0] == hashes[1]


def test_set_appears_only_when_published(tmp_path: Path) -> None:
    final, partial = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(StoreError, match="no such folder"):
        PatchStore(final)
    write_split(partial / "patches/train.zarr").finish()
    with pytest.raises(StoreError, match="incomplete"):
        PatchStore(final)
    publish(partial, final, {"seed": 1})
    assert PatchStore(final).manifest["seed"] == 1
    assert len(PatchStore(final).split("train")) == N
    with pytest.raises(StoreError, match="no split"):
        PatchStore(final).split("test")


def test_case_array_is_written_and_read_by_boxes(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (2, 9, 8, 7)).astype(np.uint8)
    volume = create_case_array(
        tmp_path / "v.zarr", data.shape, data.dtype, chunks=(4, 4, 4), spacing=(3, 1, 1)
    )
    for z in (0, 4, 8):
        box = Box((z, 0, 0), (min(z + 4, 9), 8, 7))
        volume.write(box, data[(slice(None), *box.slices)])
    np.testing.assert_array_equal(volume.read(Box((3, 1, 2), (8, 8, 6))), data[:, 3:8, 1:8, 2:6])
    assert volume.spacing == (3, 1, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int64])
def test_any_zarr_reader_opens_a_case_array(tmp_path: Path, dtype: type) -> None:
    import zarr

    data = (np.random.default_rng(0).random((2, 9, 21, 7)) * 100).astype(dtype)
    volume = create_case_array(tmp_path / "v.zarr", data.shape, dtype, chunks=(4, 8, 8))
    for start, stop in (((0, 0, 0), (8, 21, 7)), ((8, 0, 0), (9, 8, 7)), ((8, 8, 0), (9, 21, 7))):
        box = Box(start, stop)
        volume.write(box, data[(slice(None), *box.slices)])
    data[:, 2:6, 3:9, 1:5] += 1
    volume.write(Box((2, 3, 1), (6, 9, 5)), data[:, 2:6, 3:9, 1:5])
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "v.zarr", mode="r")[:], data)
