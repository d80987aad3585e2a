"""Blocks change nothing: skeletons, fields and masks of a volume read piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from volprep.compute import Engine
from volprep.compute.engine import EngineKind
from volprep.geometry import Box, Spacing3
from volprep.skeletons import Skeletons, bake_skeleton, skeleton_to_mask, skeletonize, stream
from volprep.skeletons.stream import (
    bake_volume,
    paint_volume,
    skeletonize_volume,
    survey_volume,
    trace_volume,
)


@dataclass
class Watched:
    """An array as a volume that notes what is read of it."""

    array: npt.NDArray[Any]
    spacing: Spacing3 | None = None
    read_boxes: list[Box] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (1, *self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def read(self, box: Box | None = None) -> npt.NDArray[Any]:
        assert box is not None
        assert Box.whole(self.shape).contains(box)
        self.read_boxes.append(box)
        return self.array[box.slices][None]


def neurites(shape: tuple[int, int, int], ids: int, seed: int) -> npt.NDArray[np.uint32]:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((ids, *shape)), (0, 2.5, 1.2, 1.2))
    labels = noise.argmax(axis=0).astype(np.uint32) * 1000
    return np.where(noise.max(axis=0) > np.quantile(noise.max(axis=0), 0.3), labels, 0)


@given(
    st.tuples(*[st.integers(1, 17)] * 3),
    st.tuples(*[st.integers(1, 17)] * 3),
    st.sampled_from([1, 40, 10**6]),
    st.integers(0, 2**32),
)
def test_a_component_that_crosses_blocks_is_one(
    shape: tuple[int, int, int], block: tuple[int, int, int], runs: int, seed: int
) -> None:
    labels = neurites(shape, 4, seed)
    spacing = (2.0, 1.0, 0.5)
    volume = Watched(labels, spacing)
    whole = skeletonize(labels, spacing=spacing)
    assert skeletonize_volume(volume, block=block) == whole
    traces = list(trace_volume(volume, block=block, runs_at_once=runs))
    assert sum(len(trace.points) for trace in traces) == len(whole.points)
    assert sum(trace.voxels for trace in traces) == np.count_nonzero(labels)


@pytest.mark.parametrize("kind", ["serial", "threads", "processes"])
def test_the_walk_is_the_same_whatever_makes_it(
    kind: EngineKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_PACK", 200)  # several packs for each worker
    volume = Watched(neurites((20, 40, 40), 6, 3))
    runs = 10**6 if kind == "processes" else 900  # each group of runs starts its own
    options = {"block": (20, 40, 40), "runs_at_once": runs}
    wanted = list(trace_volume(volume, workers=1, **options))
    found = list(trace_volume(volume, engine=Engine(kind, workers=2), **options))
    assert len(found) == len(wanted) > 10
    for one, other in zip(found, wanted, strict=True):
        assert (one.instance, one.voxels) == (other.instance, other.voxels)
        for name in ("points", "edges", "radii"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_the_survey_knows_sizes_and_boxes() -> None:
    labels = neurites((12, 20, 22), 5, seed=1)
    survey = survey_volume(Watched(labels), block=(5, 8, 22))
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    assert survey.ids.tolist() == ids.tolist()
    assert survey.voxels.tolist() == counts.tolist()
    for row, instance in enumerate(ids):
        places = np.argwhere(labels == instance)
        assert survey.low[row].tolist() == places.min(axis=0).tolist()
        assert survey.high[row].tolist() == (places.max(axis=0) + 1).tolist()


def test_no_more_than_a_block_is_read_at_once() -> None:
    volume = Watched(neurites((20, 24, 28), 4, seed=2))
    skeletons = skeletonize_volume(volume, block=(8, 8, 8), workers=2)
    assert max(box.size for box in volume.read_boxes) <= 8**3
    volume.read_boxes.clear()
    bake_volume(volume, skeletons, lambda _box, _field: None, block=(8, 8, 8), workers=2)
    assert max(box.size for box in volume.read_boxes) <= 10**3


def test_progress_adds_up_to_twice_the_volume() -> None:
    done: list[int] = []
    volume = Watched(neurites((9, 10, 11), 3, seed=3))
    skeletonize_volume(volume, block=(4, 4, 4), progress=done.append)
    assert sum(done) == 2 * 9 * 10 * 11


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("block", [(5, 7, 9), (64, 64, 64)])
@pytest.mark.parametrize("workers", [1, 2])
def test_baking_by_blocks_is_baking_the_whole(
    average: bool, block: tuple[int, int, int], workers: int
) -> None:
    volume = Watched(neurites((14, 18, 20), 4, seed=4), (3.0, 1.0, 1.0))
    skeletons = skeletonize(volume.array)
    wanted = bake_skeleton(volume.array, skeletons, (3, 1, 1), average=average, target="offset")
    out = np.full(wanted.shape, np.nan, np.float32)
    boxes: list[Box] = []

    def write(box: Box, block_field: npt.NDArray[Any]) -> None:
        boxes.append(box)
        out[(slice(None), *box.slices)] = block_field

    bake_volume(
        volume, skeletons, write, average=average, target="offset", block=block, workers=workers
    )
    np.testing.assert_array_equal(out, wanted)
    assert boxes == sorted(boxes, key=lambda box: box.start)


def test_a_missing_skeleton_is_named_from_any_block() -> None:
    volume = Watched(neurites((8, 8, 8), 3, seed=6))
    some = skeletonize(volume.array).only([1000])
    with pytest.raises(ValueError, match="masks hold instance 2000"):
        bake_volume(volume, some, lambda _box, _field: None, block=(4, 4, 4), workers=2)


@given(st.tuples(*[st.integers(2, 9)] * 3), st.integers(0, 2**32))
def test_painting_by_blocks_is_painting_the_whole(block: tuple[int, int, int], seed: int) -> None:
    shape = (9, 16, 18)
    points = np.random.default_rng(seed).random((6, 3)) * 24 - 4
    skeletons = Skeletons.from_points({3: points})
    out = np.full((1, *shape), 9, np.uint8)

    def write(box: Box, part: npt.NDArray[Any]) -> None:
        out[(slice(None), *box.slices)] = part

    paint_volume(shape, skeletons, write, radius=4, flank_radius=2, block=block)
    wanted = skeleton_to_mask(
        skeletons, shape, radius=4, flank_radius=2, slice_axis=0, dtype=np.uint8
    )
    np.testing.assert_array_equal(out, wanted)


def test_labels_of_two_channels_are_refused() -> None:
    class Two(Watched):
        @property
        def shape(self) -> tuple[int, int, int, int]:
            return (2, *self.array.shape)

    with pytest.raises(ValueError, match="labels have 2 channels"):
        skeletonize_volume(Two(np.zeros((2, 2, 2), np.uint8)))
