"""`TileDataset`: chunks as documented, each voxel once in inference."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from volprep.geometry import Box
from volprep.loader import PatchLoader, TileDataset
from volprep.loader.tiles import chunk_boxes


class Numbered:
    """A volume of which each voxel is its own number; it notes what is read, and by whom."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape, self.spacing = (1, *shape), None
        self.array = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
        self.dtype = self.array.dtype
        self.read_boxes: list[Box] = []
        self.threads: set[str] = set()

    def read(self, box: Box | None = None) -> Any:
        box = box or Box.whole(self.shape)
        self.read_boxes.append(box)
        self.threads.add(threading.current_thread().name)
        return self.array[(slice(None), *box.slices)]


SHAPES = st.tuples(*[st.integers(5, 23)] * 3)
COUNTS = st.tuples(*[st.integers(1, 5)] * 3)


@given(SHAPES, COUNTS)
def test_without_overlap_every_voxel_is_in_one_chunk(shape, counts):
    seen = np.zeros(shape, int)
    boxes = chunk_boxes(Box.whole((1, *shape)), counts)
    for box in boxes:
        seen[box.slices] += 1
    assert len(boxes) == np.prod(counts)
    assert (seen == 1).all()


@given(SHAPES, COUNTS)
def test_with_overlap_chunks_are_the_documented_ranges(shape, counts):
    for box in chunk_boxes(Box.whole((1, *shape)), counts, overlap=True):
        for a, b, n, size in zip(box.start, box.stop, counts, shape, strict=True):
            wanted = [
                tuple(int(np.floor(v / (n + 1) * size + 1e-9)) for v in (i, i + 2))
                for i in range(n)
            ]
            assert (a, b) in wanted


def test_the_documents_example_has_chunks_of_a_thousand_sections():
    region = Box.whole((1, 2000, 6400, 6400))
    assert {box.shape for box in chunk_boxes(region, (2, 4, 4))} == {(1000, 1600, 1600)}
    overlapping = chunk_boxes(region, (2, 4, 4), overlap=True)
    assert overlapping[0].shape == (1333, 2560, 2560)
    padded = chunk_boxes(region, (2, 4, 4), pad=(4, 64, 64))[0]
    assert (padded.start, padded.stop) == ((-4, -64, -64), (1004, 1664, 1664))


def test_chunks_of_inference_keep_their_padding_beyond_the_volume():
    volume = Numbered((7, 9, 11))
    tiles = TileDataset({"image": volume}, (2, 2, 2), mode="test", chunk_num=(2, 2, 3),
                        pad_size=(2, 3, 1))  # fmt: skip
    whole = np.pad(volume.array, [(0, 0), (2, 2), (3, 3), (1, 1)], mode="reflect")
    covered = np.zeros((7, 9, 11), int)
    pad = (2, 3, 1)
    for box, voxels in tiles.chunks():
        ends = list(zip(box.start, box.stop, pad, strict=True))
        shifted = tuple(slice(a + p, b + p) for a, b, p in ends)
        np.testing.assert_array_equal(voxels["image"], whole[(slice(None), *shifted)])
        covered[tuple(slice(a + p, b - p) for a, b, p in ends)] += 1
    assert (covered == 1).all()


def test_samples_are_the_volumes_own_voxels_chunk_after_chunk():
    volume = Numbered((12, 14, 16))
    tiles = TileDataset({"image": volume}, (4, 4, 4), chunk_num=(2, 1, 2), chunk_iter=6, seed=2)
    assert len(tiles) == 24
    for number in range(24):
        sample = tiles[1, number]
        box = Box.at(tuple(sample["start"].tolist()), (4, 4, 4))
        np.testing.assert_array_equal(sample["image"].numpy(), volume.read(box))
        chunk = tiles.boxes[sample["case"]]
        assert sample["case"] == tiles.order(1)[number // 6]
        assert chunk.common(box) == box
    assert sorted(tiles.order(0)) == [0, 1, 2, 3]
    assert any(tiles.order(e) != tiles.order(0) for e in range(1, 5))


def test_each_chunk_is_read_once_an_epoch_and_in_the_background():
    volume = Numbered((12, 14, 16))
    tiles = TileDataset({"image": volume}, (4, 4, 4), chunk_num=(3, 1, 2), chunk_iter=4,
                        chunk_stride=False)  # fmt: skip
    alone = [tiles[0, n]["start"].clone() for n in range(len(tiles))]
    volume.read_boxes.clear()
    volume.threads.clear()
    tiles = pickle.loads(pickle.dumps(tiles))
    tiles._volume["image"] = volume
    found = [s.clone() for b in PatchLoader(tiles, 2, threads=2, shuffle=False) for s in b["start"]]
    assert all(torch.equal(a, b) for a, b in zip(alone, found, strict=True))
    assert len(volume.read_boxes) == len(tiles.boxes) == 6
    assert all(name.startswith("volprep-chunks") for name in volume.threads)


def test_ranks_share_the_chunks_and_the_last_takes_what_remains():
    parts = [
        TileDataset({"image": Numbered((8, 8, 8))}, (2, 2, 2), chunk_num=(1, 1, 7), mode="test",
                    chunk_ind_split=split).boxes
        for split in ("0-3", "1-3", (2, 3))
    ]  # fmt: skip
    assert [len(part) for part in parts] == [2, 2, 3]
    assert len({box for part in parts for box in part}) == 7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chunk_num": (9, 1, 1)}, "more than the voxels"),
        ({"chunk_num": (0, 1, 1)}, "wanted 1 or more"),
        ({"chunk_iter": 0}, "chunk_iter: found 0"),
        ({"chunk_ind": [8]}, "there are 8 chunks"),
        ({"chunk_ind_split": "4-4"}, "wanted rank-world"),
        ({"chunk_ind_split": "x"}, "wanted rank-world"),
        ({"coord_range": (0, 9, 0, 8, 0, 8)}, "wanted a part"),
        ({"coord_range": (0, 8)}, "wanted .z0"),
        ({"mode": "both"}, "wanted train or test"),
    ],
)
def test_chunks_that_cannot_be_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        TileDataset({"image": Numbered((8, 8, 8))}, (2, 2, 2), **options)
