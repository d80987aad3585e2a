"""Prepared cases on disk: written shard by shard, read by boxes, known again, and refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from volprep.errors import StoreError
from volprep.geometry import Box, three
from volprep.sources import open_labels, open_volume
from volprep.store import CaseWriter, StoredCase, fitted_chunks, narrowest, packed_often

KEY = "5e" * 32


def write(
    path: Path,
    image: npt.NDArray[Any],
    label: npt.NDArray[Any] | None = None,
    mask: npt.NDArray[Any] | None = None,
    *,
    chunks: tuple[int, int, int] = (4, 8, 16),
    compression: str = "lz4",
    key: str = KEY,
    spacing: tuple[float, float, float] | None = (0.3, 0.1, 0.2),
) -> StoredCase:
    writer = CaseWriter(
        path, key,
        chunks=chunks, compression=compression, ids=packed_often(compression), spacing=spacing,
    )  # fmt: skip
    plane = (1, *image.shape[1:])
    arrays = [(writer.image(image.shape, image.dtype), image)]
    if label is not None:
        arrays.append((writer.label(plane, *narrowest(np.unique(label))), label))
    if mask is not None:
        arrays.append((writer.mask(plane), mask))
    depth = 2 * chunks[0]
    for to, array in arrays:
        for z in range(0, image.shape[1], depth):
            part = array[:, z : z + depth]
            to.write(Box((z, 0, 0), (z + part.shape[1], *three(image.shape[1:])[1:])), part)
    writer.finish()
    return StoredCase.open(path)


def some(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    return (rng.random(shape) * 200).astype(dtype)


@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 11), st.integers(1, 300), st.integers(1, 50)),
    channels=st.integers(1, 3),
    chunks=st.sampled_from([(1, 8, 16), (4, 32, 8), (8, 128, 64)]),
    dtype=st.sampled_from(["uint8", "uint16", "float32", "int16"]),
    compression=st.sampled_from(["lz4", "zstd", "none"]),
    widest=st.sampled_from([1, 200, 2**20, 2**63]),
)
def test_any_box_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int, shape: tuple[int, int, int], channels: int, chunks: tuple[int, int, int],
    dtype: str, compression: str, widest: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    image = some(rng, (channels, *shape), dtype)
    label = rng.integers(0, 5, (1, *shape)).astype(np.uint64) * np.uint64(widest // 5 or 1)
    mask = rng.integers(0, 3, (1, *shape)).astype(np.uint8)
    mask[:, : shape[0] // 2] = 0  # whole chunks of nothing
    path = tmp_path_factory.mktemp("case") / "a.ome.zarr"
    case = write(path, image, label, mask, chunks=chunks, compression=compression)
    assert case.label is not None
    assert case.mask is not None
    low = [int(rng.integers(0, n)) for n in shape]
    high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, shape, strict=True)]
    for box in (Box.whole(image.shape), Box(three(low), three(high))):
        part = (slice(None), *box.slices)
        np.testing.assert_array_equal(case.image.read(box), image[part])
        np.testing.assert_array_equal(case.label.read(box), label[part])
        np.testing.assert_array_equal(case.mask.read(box), mask[part] != 0)
        out = np.full((1, *[2 * n for n in box.shape]), 7, case.label.dtype)
        inner = out[:, ::2, ::2, 1::2]
        case.label.read_into(box, inner)
        np.testing.assert_array_equal(inner, label[part])
    assert case.image.dtype == image.dtype
    assert case.label.form.dtype == np.uint8  # five ids


def test_any_reader_of_ome_zarr_opens_a_case(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, label = some(rng, (2, 9, 130, 21), np.uint16), some(rng, (1, 9, 130, 21), np.uint8)
    write(tmp_path / "a.ome.zarr", image, label)
    group: Any = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], image)
    np.testing.assert_array_equal(group["labels/label/0"][:], label[0])
    volume = open_volume(tmp_path / "a.ome.zarr")
    assert (volume.spacing, volume.notes) == ((0.3, 0.1, 0.2), ())
    np.testing.assert_array_equal(volume.read(), image)
    np.testing.assert_array_equal(open_labels(tmp_path / "a.ome.zarr").read(), label)


def test_ids_that_are_too_wide_are_kept_in_a_table(tmp_path: Path) -> None:
    label = np.zeros((1, 4, 8, 16), np.uint64)
    label[0, 1], label[0, 2] = 2**60 + 1, 300
    case = write(tmp_path / "a.ome.zarr", label.astype(np.uint8), label)
    assert case.label is not None
    np.testing.assert_array_equal(case.label.read(), label)
    assert (case.label.dtype, case.label.form.dtype) == (np.uint64, np.uint8)
    ids: Any = zarr.open_array(tmp_path / "a.ome.zarr/labels/label/ids", mode="r")
    assert ids[:, 0].tolist() == [0, 300, 2**60 + 1]


@pytest.mark.parametrize(
    ("ids", "dtype", "renumbered"),
    [([0, 255], np.uint8, False), ([0, 256], np.uint8, True), ([5], np.uint8, False),
     (range(300), np.uint16, False), (range(2, 301), np.uint16, False), ([], np.uint8, False)],
)  # fmt: skip
def test_labels_are_stored_as_narrow_as_their_ids_allow(
    ids: Any, dtype: Any, renumbered: bool
) -> None:
    found, table = narrowest(np.array(ids, np.uint32))
    assert (found, table is not None) == (dtype, renumbered)


@given(st.tuples(st.integers(1, 600), st.integers(8, 600), st.integers(8, 600)))
def test_fitted_chunks_are_half_a_patch_at_most(patch: tuple[int, int, int]) -> None:
    chunks = fitted_chunks(patch)
    assert all(c == 1 or 2 * c <= n for c, n in zip(chunks, patch, strict=True))
    assert np.prod(chunks) <= 2**16
    assert 128 % chunks[1] == 0


def test_a_shard_of_another_set_or_in_anothers_place_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = some(rng, (1, 8, 200, 16), np.uint8)
    case = write(tmp_path / "a.ome.zarr", image)
    other = write(tmp_path / "b.ome.zarr", image, key="aa" * 32)
    shards = [tmp_path / "a.ome.zarr/0/c/0/0" / str(y) / "0" for y in (0, 1)]
    shards[0].write_bytes((other.path / "0/c/0/0/0/0").read_bytes())
    with pytest.raises(StoreError, match="of another set, or in another's place"):
        case.image.read(Box((0, 0, 0), (4, 8, 8)))
    shards[1].write_bytes((tmp_path / "a.ome.zarr/0/c/0/1/1/0").read_bytes())
    with pytest.raises(StoreError, match="another's place"):
        case.image.read(Box((0, 130, 0), (4, 140, 8)))


def test_damage_is_told_with_the_file(tmp_path: Path) -> None:
    case = write(tmp_path / "a.ome.zarr", some(np.random.default_rng(0), (1, 4, 8, 16), np.uint8))
    shard = tmp_path / "a.ome.zarr/0/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[60] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"0/c/0/0/0/0: damaged: a checksum differs"):
        case.image.read()
    meta = tmp_path / "a.ome.zarr/0/zarr.json"
    meta.write_text(meta.read_text().replace('"uint8"', '"uint16"'))
    with pytest.raises(StoreError, match=r"0/zarr.json: damaged"):
        StoredCase.open(tmp_path / "a.ome.zarr")


def test_a_box_that_cuts_through_shards_is_not_written(tmp_path: Path) -> None:
    writer = CaseWriter(tmp_path / "a.ome.zarr", KEY, chunks=(4, 8, 16))
    image = writer.image((1, 9, 200, 16), np.uint8)
    for box in (Box((0, 0, 0), (4, 100, 16)), Box((2, 0, 0), (4, 200, 16))):
        with pytest.raises(ValueError, match="cuts through"):
            image.write(box, np.zeros((1, *box.shape), np.uint8))


def test_a_volume_is_pickled_without_its_open_files(tmp_path: Path) -> None:
    image = some(np.random.default_rng(0), (1, 4, 8, 16), np.uint8)
    volume = write(tmp_path / "a.ome.zarr", image).image
    volume.read()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), image)
