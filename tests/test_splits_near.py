"""Copies that were cut, moved, mirrored, rescaled or changed are found; others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from volprep import pipeline
from volprep.config import Config
from volprep.kernels.patterns import USUAL, list_patterns
from volprep.sources import open_volume
from volprep.splits import SketchMaker, near_copies
from volprep.splits.sketch import SKETCH

Array = npt.NDArray[Any]


def image(seed: int, shape: tuple[int, ...] = (12, 64, 60)) -> Array:
    """Blobs with the noise of a microscope, in 8 bits."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.random(shape), 3)
    blobs = (blobs - blobs.min()) / np.ptp(blobs)
    return rng.poisson(20 + 150 * blobs).clip(0, 255).astype(np.uint8)


def sketch_of(volume: Array) -> npt.NDArray[np.uint64]:
    maker = SketchMaker((1, *volume.shape))
    for z in range(0, len(volume), 5):
        maker.add(volume[z : z + 5], z)
    return maker.sketch()


def changed_in_places(volume: Array) -> Array:
    changed = volume.copy()
    rng = np.random.default_rng(9)
    places = tuple(rng.integers(0, n, 400) for n in volume.shape)
    changed[places] = rng.integers(0, 255, 400)
    return changed


CHANGES: dict[str, Callable[[Array], Array]] = {
    "another type": lambda v: v.astype(np.uint16),
    "shares of one": lambda v: (v / 255).astype(np.float32),
    "16 bits": lambda v: v.astype(np.uint16) * 257 + 3,
    "normalised": lambda v: (v - v.mean()) / v.std(),
    "changed in places": changed_in_places,
    "cut": lambda v: v[2:8, 10:50, 20:],
    "moved": lambda v: np.roll(v, (1, 7, -9), (0, 1, 2)),
    "mirrored": lambda v: v[::-1, :, ::-1],
    "turned": lambda v: np.rot90(v, axes=(1, 2)),
    "all at once": lambda v: changed_in_places(v)[:, ::-1, 5:].astype(np.float32) * 2 - 7,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_shares_its_patterns(change: str) -> None:
    sketches = {"one": sketch_of(image(1)), "other": sketch_of(CHANGES[change](image(1)))}
    assert list(near_copies(sketches)) == [("one", "other")]


def test_rare_patterns_are_enough_where_there_are_many() -> None:
    volume = np.random.default_rng(0).integers(0, 250, (40, 128, 128)).astype(np.uint8)
    out = np.empty(volume.size, np.uint64)
    count = list_patterns(volume, False, ~np.uint64(0), out)
    assert sketch_of(volume).tolist() == np.unique(out[:count])[:SKETCH].tolist()


def test_of_a_large_image_planes_are_looked_at_that_a_moved_copy_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("volprep.splits.sketch._VOXELS", 12 * 64 * 60)
    large = image(1, (48, 64, 60))
    for moved in range(1, 8):  # a quarter of the planes is looked at, in each
        sketches = {"one": sketch_of(large), "other": sketch_of(np.roll(large, moved, 0))}
        assert list(near_copies(sketches)) == [("one", "other")], moved
    thin = SketchMaker((1, 1, 900, 900))
    thin.add(np.tile(image(1, (1, 100, 100)), (1, 9, 9)), 0)
    assert thin.sketch().size  # one plane at least


def test_others_do_not() -> None:
    smooth = {f"smooth {n}": ndimage.gaussian_filter(image(n).astype(float), 2) for n in range(6)}
    coarse = {f"coarse {n}": (image(n) // 40) * 40 for n in range(6)}
    flat = {f"flat {n}": np.full((4, 30, 30), n) for n in range(3)}
    binary = {f"binary {n}": (image(n) > 100).astype(np.uint8) for n in range(6)}
    volumes = {f"noise {n}": image(n + 50) for n in range(6)} | coarse | flat | binary
    assert near_copies({name: sketch_of(volume) for name, volume in volumes.items()}) == {}
    whole = {name: sketch_of(volume) for name, volume in (volumes | smooth).items()}
    assert near_copies(whole) == {}


def test_a_pattern_is_found_where_a_slow_search_finds_it() -> None:
    plane = image(3, (12, 128, 90))[0]
    out = np.empty(plane.size, np.uint64)
    count = list_patterns(plane[None], False, ~np.uint64(0), out)
    tops = rare = 0
    for y in range(2, plane.shape[0] - 2):
        for x in range(2, plane.shape[1] - 2):
            square = plane[y - 2 : y + 3, x - 2 : x + 3].astype(float)
            if (square >= square[2, 2]).sum() == 1:
                levels = np.floor((square[2, 2] - square) / np.ptp(square) * 64 + 0.5)
                many = len(np.unique(np.delete(levels.ravel(), 12))) >= 8
                sides, corners = square[[1, 2, 2, 3], [2, 1, 3, 2]], square[1:4:2, 1:4:2]
                tops += many
                rare += many and corners.max() < sides.min()
    assert count == tops > 5
    assert (out[:count] < USUAL).sum() == rare > 0
    alone = np.empty(plane.size, np.uint64)
    assert list_patterns(plane[None], True, ~np.uint64(0), alone) == rare
    assert sorted(alone[:rare].tolist()) == sorted(out[:count].tolist())[:rare]
    for turned in (plane[::-1], plane[:, ::-1], plane.T, np.rot90(plane)):
        again = np.empty(plane.size, np.uint64)
        other = list_patterns(np.ascontiguousarray(turned)[None], False, ~np.uint64(0), again)
        assert sorted(again[:other].tolist()) == sorted(out[:count].tolist())


def test_time_grows_with_the_images_and_not_with_their_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from volprep.splits import sketch

    asked = []

    def counted(items: Any, size: int) -> Any:
        asked.append(len(items))
        return combinations(items, size)

    combinations = sketch.combinations
    monkeypatch.setattr(sketch, "combinations", counted)
    rng = np.random.default_rng(0)
    common = rng.integers(0, 2**63, 50).astype(np.uint64)
    sketches = {
        f"c{n}": np.unique(np.concatenate((common, rng.integers(0, 2**63, 60).astype(np.uint64))))
        for n in range(2000)
    }
    assert near_copies(sketches) == {}  # what all hold says nothing of two
    assert len(asked) < 10


def test_check_tells_of_a_near_copy_across_the_split(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    volumes = {f"c{n}": image(n) for n in range(5)}
    volumes["c5"] = image(0)[:, ::-1, 4:].astype(np.uint16)
    for name, volume in volumes.items():
        np.save(tmp_path / "images" / f"{name}.npy", volume)
        np.save(tmp_path / "labels" / f"{name}.npy", (volume > 90).astype(np.uint8))
    data = {"root": tmp_path, "spacing": [1, 1, 1]}
    told = []
    for fold in range(6):
        config = Config.model_validate({"data": data, "split": {"folds": 6, "fold": fold}})
        report = pipeline.check(config, pipeline.list_cases(config))
        told += [f for f in report.findings if f.name == "split-near-copy"]
    assert len(told) == 2  # in the folds that hold out one of the two
    assert all(f.case == "c5" and "c0" in f.found for f in told)


@pytest.mark.parametrize(
    "name",
    [
        "01_stardist_nuclei3d", "04_qcanet_embryo_nuclei3d", "05_isbi2012_em_png_stack",
        "14_2d_bbbc007_pairs", "16_2d_sparse_bbbc007", "20_3d_sparse_slices_fib25",
    ],
)  # fmt: skip
def test_neighbouring_sections_time_points_and_images_of_real_sets_are_no_copies(
    real_data: Callable[[str], Path], name: str
) -> None:
    sketches = {}
    for path in sorted((real_data(name)).rglob("*")):
        if path.suffix in (".tif", ".tiff", ".png") and "label" not in str(path).lower():
            planes = open_volume(path).read()[0]
            for z in range(0, len(planes), 2):  # neighbours are images of their own
                sketches[f"{path.name} {z}"] = sketch_of(planes[z : z + 1])
    assert max(len(sketch) for sketch in sketches.values()) <= SKETCH
    assert near_copies(sketches) == {}
