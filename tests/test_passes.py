"""A pass gives the voxels of every box, and decodes every chunk once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volprep.cache import CACHE
from volprep.cases import Case, FileRef
from volprep.checks import examine_cases
from volprep.geometry import Box, aligned_blocks
from volprep.kernels.correlation import add_products
from volprep.preprocess import CroppedVolume, ResampledVolume
from volprep.sampling import ForegroundIndex
from volprep.sources import (
    ArrayVolume,
    KeptVolume,
    Volume,
    open_labels,
    open_volume,
    passes,
)
from volprep.sources.chunked import ChunkedVolume
from volprep.sources.passes import gather, groups


@contextmanager
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[str, Any]]]:
    """How often each chunk of each file is decoded."""
    seen: Counter[tuple[str, Any]] = Counter()

    def spied(kind: type[ChunkedVolume]) -> None:
        decode = kind._decode

        def spy(self: Any, index: Any, out: Any) -> Any:
            seen[self.path.name, index] += 1
            return decode(self, index, out)

        monkeypatch.setattr(kind, "_decode", spy)

    for kind in ChunkedVolume.__subclasses__():
        if "_decode" in vars(kind):
            spied(kind)
    yield seen


def hdf5(path: Path, array: Any, chunks: tuple[int, ...]) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=array, chunks=chunks, compression="gzip")
    return path


def pair(folder: Path, shape: tuple[int, ...] = (20, 33, 47)) -> tuple[Volume, Volume, Any, Any]:
    """An image in cubes and labels in planes."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, shape).astype(np.uint8)
    label = rng.integers(0, 9, shape).astype(np.uint16)
    hdf5(folder / "image.h5", image, (8, 8, 8))
    made: Any = zarr.create_array(
        folder / "label.zarr", shape=shape, chunks=(1, *shape[1:]), dtype=label.dtype
    )
    made[...] = label
    opened = open_volume(folder / "image.h5"), open_labels(folder / "label.zarr")
    return *opened, image, label


def some_boxes(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> list[Box]:
    boxes = []
    for _ in range(count):
        size = [int(rng.integers(1, n + 1)) for n in (9, 20, 20)]
        start = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)]
        boxes.append(Box.at(start, size))
    return boxes


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("ascending", [True, False])
@given(st.integers(0, 2**32), st.sampled_from([1, 3000, 10**9]), st.booleans())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_gathered_voxels_are_those_of_the_files(
    tmp_path_factory: pytest.TempPathFactory,
    threads: int,
    ascending: bool,
    seed: int,
    held: int,
    spill: bool,
) -> None:
    image, label, voxels, ids = pair(tmp_path_factory.mktemp("pair"))
    rng = np.random.default_rng(seed)
    boxes = some_boxes(rng, voxels.shape, 12)
    if ascending:
        boxes.sort(key=lambda box: box.start)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        found = gather(
            [image, label, None], boxes, held=held, spill=spill, pool=pool if threads else None
        )
        for box, (one, other, none) in zip(boxes, found, strict=True):
            np.testing.assert_array_equal(one[0], voxels[box.slices])  # type: ignore[index]
            np.testing.assert_array_equal(other[0], ids[box.slices])  # type: ignore[index]
            assert none is None


@pytest.mark.parametrize("threads", [0, 3])
def test_each_chunk_is_decoded_once_and_only_those_that_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    image, label, voxels, _ = pair(tmp_path, (64, 64, 64))
    monkeypatch.setattr("volprep.sources.chunked.CACHE.max_bytes", 0)  # nothing else helps
    boxes = some_boxes(np.random.default_rng(1), voxels.shape, 60)
    boxes.sort(key=lambda box: box.start)
    with decoded(monkeypatch) as seen, ThreadPoolExecutor(3) as pool:
        for _ in gather([image, label], boxes, pool=pool if threads else None):
            pass
    wanted = Counter(
        ("image.h5", (z, y, x))
        for box in boxes
        for z in range(box.start[0] // 8, -(-box.stop[0] // 8))
        for y in range(box.start[1] // 8, -(-box.stop[1] // 8))
        for x in range(box.start[2] // 8, -(-box.stop[2] // 8))
    ) + Counter(
        ("label.zarr", (z, 0, 0)) for box in boxes for z in range(box.start[0], box.stop[0])
    )
    assert set(seen) == set(wanted)
    assert set(seen.values()) == {1}


def test_what_is_open_stays_below_the_limit_and_one_box_is_always_allowed(tmp_path: Path) -> None:
    image, _, voxels, _ = pair(tmp_path, (64, 64, 64))
    boxes = [Box.at((z, 0, 0), (8, 16, 16)) for z in range(56) for _ in range(2)]
    one = 8 * 16 * 16
    assert groups([image], boxes, None) == [(0, len(boxes))]
    assert len(groups([image], boxes, one)) == len(boxes)
    cuts = groups([image], boxes, 20 * one)
    assert [last for _, last in cuts[:-1]] == [first for first, _ in cuts[1:]]
    assert 1 < len(cuts) < 10
    assert voxels.shape == image.shape[1:]


def test_boxes_beyond_the_limit_are_put_together_in_scratch_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, label, voxels, _ = pair(tmp_path, (64, 64, 64))
    made = []
    scratch = passes.scratch_array
    monkeypatch.setattr(passes, "scratch_array", lambda *a: made.append(a) or scratch(*a))
    boxes = [Box.at((0, y, 0), (64, 8, 64)) for y in range(0, 64, 8)]
    with decoded(monkeypatch) as seen:
        for box, (one, _) in zip(
            boxes, gather([image, label], boxes, held=1, spill=True), strict=True
        ):
            np.testing.assert_array_equal(one[0], voxels[box.slices])  # type: ignore[index]
    assert made
    assert set(seen.values()) == {1}


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**32))
def test_rectangles_cover_a_mask_once(height: int, width: int, most: int, seed: int) -> None:
    wanted = np.random.default_rng(seed).random((height, width)) < 0.6
    covered = np.zeros(wanted.shape, int)
    for rows, columns in passes._rectangles(wanted, most):
        covered[rows, columns] += 1
        assert covered[rows, columns].size <= max(most, 1)
    np.testing.assert_array_equal(covered, wanted)


@pytest.mark.parametrize("chunks", [(8, 8, 8), (1, 96, 96), (24, 96, 96)])
def test_check_decodes_a_chunk_once_though_it_looks_at_blocks_again(
    chunks: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    label = np.kron(rng.integers(0, 9, (3, 6, 6)), np.ones((8, 16, 16), int)).astype(np.uint16)
    image = (label * 20 + rng.integers(0, 9, label.shape)).astype(np.uint8)
    case = Case(
        "a",
        (FileRef(hdf5(tmp_path / "image.h5", image, chunks)),),
        label=FileRef(hdf5(tmp_path / "label.h5", label[:, ::-1].copy(), chunks)),
    )
    monkeypatch.setattr(CACHE, "max_bytes", 0)
    case.open_image()  # whose reader is loaded then
    with decoded(monkeypatch) as seen:
        report = examine_cases([case], workers=1)
    assert set(seen.values()) == {1}
    seen.clear()
    monkeypatch.setattr("volprep.sources.kept._joined", lambda _: [])
    assert examine_cases([case], workers=1).findings == report.findings
    if chunks != (24, 96, 96):
        assert max(seen.values()) > 1  # what is spared


@given(st.integers(0, 10**6))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_kept_volume_reads_as_the_volume_does(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    voxels = rng.integers(0, 99, (1, 9, 22, 21)).astype(np.int16)
    volume = ArrayVolume(voxels)
    boxes = some_boxes(rng, (9, 22, 21), 4) if seed % 7 else []
    kept = KeptVolume(volume, boxes)
    blocks = list(aligned_blocks((9, 22, 21), rng.integers(2, 9, 3).tolist()))
    for box in blocks[: len(blocks) - seed % 2]:
        kept.keep(box, volume.read(box))
    for box in [*boxes, *some_boxes(rng, (9, 22, 21), 8)]:
        assert np.array_equal(kept.read(box), volume.read(box))


@given(st.integers(0, 10**6), st.integers(-1, 2))
@settings(max_examples=40)
def test_products_are_those_of_numpy(seed: int, axis: int) -> None:
    rng = np.random.default_rng(seed)
    shape, margin = rng.integers(1, 7, 3), rng.integers(0, 3, 3)
    shape[2] *= int(rng.choice([1, 90]))
    one = rng.integers(0, 10, shape + 2 * margin).astype(np.uint8)
    other = rng.normal(size=shape).astype(np.float32)
    start = [int(rng.integers(0, 2 * m + 1)) for m in margin]
    inner = one[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
    sums = np.zeros(5)
    add_products(one, tuple(start), other, axis, sums)
    a, b = (v.astype(float) for v in (inner, other))
    if axis >= 0:
        a, b = np.diff(a, axis=axis), np.diff(b, axis=axis)
    wanted = [a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()]
    assert np.allclose(sums, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("per", ["instance", "voxel"])
@pytest.mark.parametrize("box", [None, Box((3, 5, 0), (18, 30, 40))])
def test_a_foreground_index_decodes_a_chunk_once_and_is_that_of_the_voxels(
    box: Box | None, per: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 6, (20, 33, 47)).astype(np.uint16)
    opened = open_labels(hdf5(tmp_path / "label.h5", label, (8, 8, 8)))
    monkeypatch.setattr(CACHE, "max_bytes", 0)
    monkeypatch.setattr("volprep.sampling.foreground.SLAB_BYTES", 8 * 8 * 47 * 2)
    with decoded(monkeypatch) as seen:
        index = ForegroundIndex.build(opened, box=box, per=per)
    assert set(seen.values()) == {1}
    plain = ForegroundIndex.build(ArrayVolume(label, "ZYX"), box=box, per=per)
    assert np.array_equal(index.packed(), plain.packed())


@pytest.mark.parametrize("crop", [None, Box((5, 3, 2), (30, 31, 40))])
@pytest.mark.parametrize("depth", [4, 8, 32])
def test_resampling_decodes_a_chunk_once(
    depth: int, crop: Box | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (36, 33, 47)).astype(np.uint8)
    path = hdf5(tmp_path / "image.h5", voxels, (8, 16, 16))
    monkeypatch.setattr(CACHE, "max_bytes", 0)

    def resampled(source: Any) -> Any:
        kept = source if crop is None else CroppedVolume(source, crop)
        volume = ResampledVolume(kept, shape=(29, 20, 25), separate=None)
        return np.concatenate([block for _, block in volume.slabs(depth)], axis=1)

    opened = open_volume(path)
    with decoded(monkeypatch) as seen:
        found = resampled(opened)
    assert set(seen.values()) == {1}
    assert np.array_equal(found, resampled(ArrayVolume(voxels, "ZYX")))
