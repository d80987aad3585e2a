"""Volumes too large to be read through: only what is touched is opened, and nothing is hidden."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from volprep import pipeline
from volprep.config import load_config, make_config
from volprep.errors import ConfigError, SourceError
from volprep.files import load_json
from volprep.fingerprint import sample, sampled
from volprep.geometry import Box
from volprep.sources import files_of, open_volume, tiles
from volprep.store import PatchStore, verify_set

GRID, TILE, SECTIONS = 5, 32, 12
SIDE = GRID * TILE


def write_tiles(folder: Path, name: str = "em", *, labels: bool = False) -> Path:
    rng = np.random.default_rng(1)
    volume = rng.integers(0, 200, (SECTIONS, SIDE, SIDE)).astype(np.uint8)
    if labels:
        volume = np.kron(rng.integers(0, 4, (SECTIONS, GRID * 2, GRID * 2)), np.ones((1, 16, 16)))
        volume = volume.astype(np.uint8)
    for z in range(SECTIONS):
        (folder / name / f"{z}").mkdir(parents=True)
        for n in range(GRID * GRID):
            row, column = divmod(n, GRID)
            part = volume[z, row * TILE :, column * TILE :][:TILE, :TILE]
            Image.fromarray(part).save(folder / name / f"{z}" / f"{row}_{column}.png")
    path = folder / f"{name}.json"
    path.write_text(json.dumps({
        "image": [f"{name}/{z}/{{row}}_{{column}}.png" for z in range(SECTIONS)],
        "height": SIDE, "width": SIDE, "depth": SECTIONS, "n_rows": GRID, "n_columns": GRID,
        "tile_size": TILE, "dtype": "uint8",
    }))  # fmt: skip
    return path


def configure(folder: Path, more: str = "", *, data: str = "") -> Any:
    path = folder / "set.yaml"
    path.write_text(
        f"data: {{cases: [{{image: em.json{data}}}], read: sample, spacing: [0.04, 0.01, 0.01]}}\n"
        "plan: {patch_size: [2, 20, 20], aug_patch_size: [2, 20, 20], batch_size: 2}\n"
        "patching: {patches_per_case: 6, foreground: {p: 0}}\nsplit: {fraction: 0}\naugment: []\n"
        f"output: {{dir: out}}\n{more}"
    )
    return load_config(path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The tiles that were decoded; eight places are enough to measure."""
    seen: set[Path] = set()
    read = tiles.read_plane

    def noted(file: Path, *rest: Any, **more: Any) -> Any:
        seen.add(file)
        return read(file, *rest, **more)

    monkeypatch.setattr(tiles, "read_plane", noted)
    monkeypatch.setattr(sample, "_PLACES", 8)
    return seen


def touched(folder: Path, boxes: list[Box], name: str = "em") -> set[Path]:
    """The slow reference: the tiles of every voxel of some boxes."""
    return {
        folder / name / f"{z}" / f"{y // TILE}_{x // TILE}.png"
        for box in boxes
        for z in range(max(0, box.start[0]), min(SECTIONS, box.stop[0]))
        for y in range(max(0, box.start[1]), min(SIDE, box.stop[1]))
        for x in range(max(0, box.start[2]), min(SIDE, box.stop[2]))
    }


def test_only_tiles_that_are_touched_are_opened(
    tmp_path: Path, opened: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The report draws a few planes of each case, whatever is cut.
    monkeypatch.setattr(sys.modules["volprep.pipeline.prepare"], "add_report", lambda *_: None)
    path = write_tiles(tmp_path)
    places = sampled(open_volume(path)).places
    assert len(places) == 8
    config = configure(tmp_path)
    made = pipeline.prepare(config)
    cut = [Box.at(row[1:4].tolist(), (2, 20, 20)) for row in made.sites("train")]
    assert opened == touched(tmp_path, [*places, *cut])
    assert len(opened) < SECTIONS * GRID * GRID / 2
    opened.clear()
    pipeline.prepare(config)
    assert not opened
    found = load_json(made.path / "fingerprint.json")
    assert found["cases"][0]["shape"] == [1, SECTIONS, SIDE, SIDE]
    voxels = np.concatenate([open_volume(path).read(box).ravel() for box in places])
    (measured,) = found["cases"][0]["everywhere"]
    assert measured["mean"] == pytest.approx(voxels.mean(), abs=1e-9)
    told = [each["name"] for each in load_json(made.path / "findings.json")["findings"]]
    assert "measured-in-part" in told


def test_headers_alone_open_no_tile(tmp_path: Path, opened: set[Path]) -> None:
    write_tiles(tmp_path)
    config = configure(tmp_path)
    pipeline.fingerprint(config, headers_only=True)
    pipeline.check(config, pipeline.list_cases(config), headers_only=True)
    assert not opened


def test_files_are_known_by_size_and_time(tmp_path: Path, opened: set[Path]) -> None:
    write_tiles(tmp_path)
    config = configure(tmp_path)
    made = pipeline.prepare(config)
    (entry,) = made.manifest["inputs"]
    assert entry["known_by"] == "state"
    untouched = next(p for p in sorted((tmp_path / "em").rglob("*.png")) if p not in opened)
    os.utime(untouched, ns=(1, 1))
    seen = pipeline.foresee(config)
    assert not seen.complete
    assert any("case" in why for change in seen.changes for why in change.why)
    with pytest.raises(SourceError, match="changed since the set was made"):
        pipeline.open_prepared(made.path)
    pipeline.prepare(config, overwrite=True)
    assert len(pipeline.open_prepared(made.path)) == 1


def test_a_tile_that_changes_during_the_run_is_noticed_though_it_is_not_read(
    tmp_path: Path, opened: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiles(tmp_path)
    read = tiles.read_plane

    def changing(file: Path, *rest: Any, **more: Any) -> Any:
        for other in (tmp_path / "em").rglob("*.png"):
            if other not in opened and other != file:
                os.utime(other, ns=(len(opened), len(opened)))
                break
        return read(file, *rest, **more)

    monkeypatch.setattr(tiles, "read_plane", changing)
    with pytest.raises(SourceError, match="changed while it was being used"):
        pipeline.prepare(configure(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_damaged_set_is_mended_byte_for_byte(tmp_path: Path, opened: set[Path]) -> None:
    write_tiles(tmp_path)
    made = pipeline.prepare(configure(tmp_path))
    shard = next((made.path / "patches/train.zarr/image/c").rglob("0"))
    shard = shard if shard.is_file() else next(p for p in shard.rglob("*") if p.is_file())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-3])
    pipeline.repair(made.path)
    assert shard.read_bytes() == whole
    assert list(verify_set(made.path)) == []


def test_classes_are_those_that_are_seen_or_said(tmp_path: Path, opened: set[Path]) -> None:
    write_tiles(tmp_path)
    write_tiles(tmp_path, "seg", labels=True)
    config = configure(tmp_path, data=", label: seg.json")
    said = config.data.model_copy(update={"label_kind": "classes", "n_classes": 6})
    out = pipeline.prepare(config.model_copy(update={"data": said})).path
    assert PatchStore(out).manifest["training"]["class_values"] == [0, 1, 2, 3, 4, 5]
    seen = config.data.model_copy(update={"label_kind": "classes"})
    store = pipeline.prepare(config.model_copy(update={"data": seen}), overwrite=True)
    assert set(store.manifest["training"]["class_values"]) <= {0, 1, 2, 3}


def test_what_needs_every_voxel_is_refused() -> None:
    with pytest.raises(ConfigError, match="crop_nonzero reads every voxel"):
        make_config(
            {"data": {"root": "x", "read": "sample"}, "preprocess": {"crop_nonzero": True}},
            "c.yaml",
        )


class Grey:
    """A volume of which only the shape is looked at."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape, self.dtype, self.spacing = (1, *shape), np.dtype(np.uint8), None


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 3000)] * 3), st.tuples(*[st.integers(1, 300)] * 3), st.data())
def test_places_lie_in_the_region_on_chunks_and_apart(shape, chunks, data) -> None:
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in shape]
    if any(a == b for a, b in ends):
        return
    region = Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    places = sample._places(region, chunks)
    assert len(set(places)) == len(places) <= 256
    assert len({place.shape for place in places}) == 1
    assert sum(place.size for place in places) <= region.size
    for place in places:
        assert place.common(region) == place
        assert place == region or place.size <= 2**20


def test_boxes_of_a_sampled_volume_are_those_of_its_places(tmp_path: Path) -> None:
    path = write_tiles(tmp_path)
    volume = open_volume(path)
    places = [
        Box((0, 0, 0), (2, 8, 8)),
        Box((5, 30, 30), (7, 38, 38)),
        Box((9, 0, 99), (11, 8, 107)),
    ]
    seen = sampled(volume, places=places)
    whole = np.concatenate([volume.read(place) for place in places], axis=1)
    assert seen.shape == whole.shape == (1, 6, 8, 8)
    for first in range(6):
        for last in range(first + 1, 7):
            box = Box((first, 1, 2), (last, 7, 8))
            assert np.array_equal(seen.read(box), whole[:, *box.slices])


def test_a_tile_that_is_named_twice_is_one_file(tmp_path: Path) -> None:
    path = write_tiles(tmp_path)
    content = json.loads(path.read_text())
    content["image"][1] = content["image"][0]
    (tmp_path / "em/2/0_0.png").unlink()
    (tmp_path / "em/2/0_0.png").symlink_to(tmp_path / "em/3/0_0.png")
    path.write_text(json.dumps(content))
    files = files_of(path)
    assert len(files) == len({file.resolve() for file in files})
    assert len(files) == 1 + (SECTIONS - 1) * GRID * GRID - 1
