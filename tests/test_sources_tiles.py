"""Tiled volumes: the documented JSON, what it may not do, and JSONs made from folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from volprep.cases import Case, FileRef, find_cases
from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.pipeline.identity import Inputs
from volprep.sources import describe_tiles, open_labels, open_volume, tiles

RNG = np.random.default_rng(0)


def save(path: Path, plane: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, plane, photometric="minisblack")
    else:
        Image.fromarray(plane).save(path)


def a_tiled(
    root: Path, volume: np.ndarray, tile: tuple[int, int], name: str, **stated: object
) -> Path:
    """Cut a volume into tiles by a name with {z}, {row} and {column}, and write its JSON."""
    depth, height, width = volume.shape
    rows, columns = -(-height // tile[0]), -(-width // tile[1])
    for z in range(depth):
        for r in range(rows):
            for c in range(columns):
                part = volume[z, r * tile[0] : (r + 1) * tile[0], c * tile[1] : (c + 1) * tile[1]]
                save(root / name.format(z=z, row=r, column=c), part)
    sections = [name.replace("{z}", str(z)).replace("{z:04d}", f"{z:04d}") for z in range(depth)]
    content = {
        "ndim": 1, "dtype": str(volume.dtype), "image": sections, "height": height,
        "width": width, "depth": depth, "n_columns": columns, "n_rows": rows,
        "tile_size": tile[0] if tile[0] == tile[1] else list(tile), "tile_ratio": 1,
        "tile_st": [0, 0],
    }  # fmt: skip
    path = root / "volume.json"
    path.write_text(json.dumps({**content, **stated}))
    return path


def a_volume(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return RNG.integers(1, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_box_of_any_tiling_is_what_was_cut(tmp_path_factory, data):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    tile = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    dtype, suffix = data.draw(st.sampled_from([("uint8", "png"), ("uint16", "tif")]))
    volume = a_volume(*shape, dtype=dtype)
    root = tmp_path_factory.mktemp("tiles")
    opened = open_volume(a_tiled(root, volume, tile, "{z:04d}/{row}_{column}." + suffix))
    assert opened.shape == (1, *shape)
    assert opened.dtype == volume.dtype
    assert opened.chunks == (1, min(tile[0], shape[1]), min(tile[1], shape[2]))
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    box = Box(tuple(start), tuple(stop))
    assert (opened.read(box)[0] == volume[box.slices]).all()


def test_the_first_example_of_the_document_one_picture_a_section(tmp_path):
    """Paths as a list, no placeholders; and the same list under `dtype`, as its text says."""
    volume = a_volume(3, 6, 8)
    for z in range(3):
        save(tmp_path / f"path/to/images/im{z:04d}.png", volume[z])
    names = [f"path/to/images/im{z:04d}.png" for z in range(3)]
    common = {
        "ndim": 1, "height": 6, "width": 8, "depth": 3, "tile_ratio": 1, "n_columns": 1,
        "n_rows": 1, "tile_st": [0, 0], "tile_size": 6400,
    }  # fmt: skip
    for number, own in enumerate([{"dtype": "uint8", "image": names}, {"dtype": names}]):
        path = tmp_path / f"tile_dataset_{number}.json"
        path.write_text(json.dumps({**common, **own}))
        assert (open_volume(path).read()[0] == volume).all()


def test_the_second_example_of_the_document_a_folder_of_tiles_a_section(tmp_path):
    volume = a_volume(2, 16, 16)
    names = [f"path/to/images/{z:04d}/{{row}}_{{column}}.png" for z in range(2)]
    a_tiled(tmp_path, volume, (4, 4), "path/to/images/{z:04d}/{row}_{column}.png")
    path = tmp_path / "short.json"
    path.write_text(
        json.dumps({"image": names, "n_columns": 4, "n_rows": 4, "height": 16, "width": 16})
    )
    assert (open_volume(path).read()[0] == volume).all()
    # As it stands in the document; and numbers as JavaScript writes them.
    for more in ({}, {"tile_size": 4}, {"height": 16.0, "depth": 2.0}):
        path = tmp_path / f"short{len(more)}.json"
        path.write_text(json.dumps({"image": names, "n_columns": 4, "n_rows": 4, **more}))
        assert (open_volume(path).read()[0] == volume).all()
    path.write_text(json.dumps({"image": ["nowhere/{row}_{column}.png"], "n_rows": 2}))
    with pytest.raises(SourceError, match="`height` and `width` are missing"):
        open_volume(path)


def test_rows_and_columns_may_begin_anywhere_and_tiles_be_scaled(tmp_path):
    volume = a_volume(2, 8, 8)
    for z in range(2):
        for r in range(2):
            for c in range(2):
                part = volume[z, r * 4 : r * 4 + 4, c * 4 : c * 4 + 4]
                save(tmp_path / f"{z}/{r + 3}_{c + 5}.png", part)
    stated = {
        "image": ["0/{row}_{column}.png", "1/{row}_{column}.png"], "n_rows": 2, "n_columns": 2,
        "height": 8, "width": 8, "tile_size": 4, "tile_st": [3, 5],
    }  # fmt: skip
    (tmp_path / "v.json").write_text(json.dumps(stated))
    assert (open_volume(tmp_path / "v.json").read()[0] == volume).all()
    twice = {**stated, "tile_ratio": 2, "tile_size": 8, "height": 16, "width": 16}
    (tmp_path / "w.json").write_text(json.dumps(twice))
    found = open_labels(tmp_path / "w.json").read()[0]
    assert found.shape == (2, 16, 16)
    assert set(np.unique(found)) <= set(np.unique(volume))


def test_colours_are_channels(tmp_path):
    picture = RNG.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    save(tmp_path / "0.png", picture)
    save(tmp_path / "1.png", picture[::-1])
    (tmp_path / "v.json").write_text(
        json.dumps({"image": ["0.png", "1.png"], "height": 6, "width": 8, "ndim": 3})
    )
    opened = open_volume(tmp_path / "v.json")
    assert opened.shape == (3, 2, 6, 8)
    assert (opened.read()[:, 0] == np.moveaxis(picture, -1, 0)).all()


def test_only_the_tiles_that_a_box_touches_are_opened(tmp_path, monkeypatch):
    path = a_tiled(tmp_path, a_volume(4, 16, 16), (4, 4), "{z}/{row}_{column}.png")
    opened: list[str] = []
    read = tiles.read_plane

    def counted(file: Path, *rest, **more):
        opened.append(file.relative_to(tmp_path).as_posix())
        return read(file, *rest, **more)

    monkeypatch.setattr(tiles, "read_plane", counted)
    volume = open_volume(path)
    assert opened == []
    volume.read(Box((1, 3, 8), (3, 5, 12)))
    assert sorted(opened) == ["1/0_2.png", "1/1_2.png", "2/0_2.png", "2/1_2.png"]
    volume.read(Box((1, 3, 8), (2, 4, 9)))
    assert len(opened) == 4  # kept


def test_missing_tiles_are_counted_and_named_and_filled_only_on_request(tmp_path):
    volume = a_volume(3, 8, 8)
    path = a_tiled(tmp_path, volume, (4, 4), "{z}/{row}_{column}.png")
    (tmp_path / "1/0_1.png").unlink()
    (tmp_path / "2/1_1.png").unlink()
    with pytest.raises(SourceError, match=r"2 of 12 tiles are missing: 1/0_1\.png, 2/1_1\.png"):
        open_volume(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "missing": "fill", "fill_value": 9}))
    image = open_volume(path)
    assert [note.name for note in image.notes] == ["unknown-spacing", "tiles-missing"]
    there = np.ones(volume.shape, bool)
    there[1, :4, 4:], there[2, 4:, 4:] = False, False
    assert (image.read()[0] == np.where(there, volume, 9)).all()
    ref = FileRef(path)
    case = Case("x", (ref,), ref)
    assert (case.open_label().read()[0] == np.where(there, volume, 0)).all()
    assert (case.open_mask().read()[0] == there).all()
    masked = Case("x", (ref,), ref, mask=ref, ignore=(int(volume[0, 0, 0]),))
    wanted = there & (volume != volume[0, 0, 0])
    assert (masked.open_mask().read()[0] == wanted).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, r"`height` is 0; give a whole number from 1"),
        ({"height": "8"}, r"`height` is '8'"),
        ({"depth": 7}, r"depth is 7, but `image` lists 3 sections"),
        ({"tile_size": 2}, r"2×2 tiles of 2×2 do not cover 8×8"),
        ({"tile_size": [4, 4, 4]}, r"`tile_size` is \[4, 4, 4\]; give a whole number, or two"),
        ({"dtype": "object"}, r"`dtype` is 'object'"),
        ({"image": []}, r"`image` is no list of paths"),
        ({"image": [{"a": 1}] * 3}, r"`image` is no list of paths"),
        ({"image": ["0.png"] * 3}, r"not every path holds \{row\} and \{column\}"),
        ({"missing": "zero"}, r"`missing` is 'zero'; give error or fill"),
        ({"tile_ratio": 0}, r"`tile_ratio` is 0; give a number above 0"),
    ],
)
def test_a_wrong_json_names_the_key(tmp_path, change, message):
    path = a_tiled(tmp_path, a_volume(3, 8, 8), (4, 4), "{z}/{row}_{column}.png")
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(SourceError, match=message):
        open_volume(path)


def test_tiles_of_another_size_or_type_than_stated_are_named(tmp_path):
    path = a_tiled(tmp_path, a_volume(2, 8, 8), (4, 4), "{z}/{row}_{column}.png")
    save(tmp_path / "1/0_0.png", a_volume(3, 4))
    with pytest.raises(SourceError, match=r"1/0_0\.png: is 3×4, and 4×4 lie there"):
        open_volume(path).read()
    save(tmp_path / "1/0_0.png", a_volume(4, 4, 3))
    with pytest.raises(SourceError, match=r"1/0_0\.png: holds 3 samples of uint8"):
        open_volume(path).read()


def test_a_path_is_no_format_string_and_does_not_leave_the_folder(tmp_path):
    volume = a_volume(1, 4, 4)
    root = tmp_path / "set"
    name = "{row.__class__}{row}_{column}.png"
    save(root / "{row.__class__}0_0.png", volume[0])
    stated = {"image": [name], "height": 4, "width": 4}
    (root / "v.json").write_text(json.dumps(stated))
    assert (open_volume(root / "v.json").read()[0] == volume).all()
    save(tmp_path / "outside.png", volume[0])
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    for foreign in ("../outside.png", str(tmp_path / "outside.png"), "link.png"):
        (root / "w.json").write_text(json.dumps({**stated, "image": [foreign]}))
        with pytest.raises(SourceError, match=r"lies outside .*allow_external: true"):
            open_volume(root / "w.json").read()
        opened = open_volume(root / "w.json", allow_external=True)
        assert (opened.read()[0] == volume).all()


# JSONs made from folders


@pytest.mark.parametrize(
    "name",
    [
        "{z}/{row}/{column}.png",
        "{z:04d}/{row}_{column}.png",
        "s{z:03d}_r{row}_c{column}.png",
        "x{column}_y{row}_z{z}.png",
        "sect_{z:04d}_tile_r{row:02d}-c{column:02d}.png",
        "{z}/{row}_{column}_0.png",
    ],
)
def test_the_json_of_a_folder_reads_the_volume(tmp_path, name):
    volume = a_volume(12, 7, 10)
    a_tiled(tmp_path / "tiles", volume, (4, 4), name)
    (tmp_path / "tiles" / "volume.json").unlink()
    description, notes = describe_tiles(tmp_path / "tiles")
    assert notes == []
    assert (description["n_rows"], description["n_columns"]) == (2, 3)
    path = tmp_path / "tiles" / "v.json"
    path.write_text(json.dumps(description))
    assert (open_volume(path).read()[0] == volume).all()


@pytest.mark.parametrize("name", ["im{z:04d}.png", "{z}.png", "scan7_{z}.tif"])
def test_a_folder_of_whole_sections_is_a_tiled_volume_of_one_tile(tmp_path, name):
    volume = a_volume(11, 5, 6)
    for z in range(11):
        save(tmp_path / name.format(z=z), volume[z])
    description, _ = describe_tiles(tmp_path)
    (tmp_path / "v.json").write_text(json.dumps(description))
    assert (open_volume(tmp_path / "v.json").read()[0] == volume).all()


@pytest.mark.parametrize(
    "name", ["{z}/{row}_{column}_{zoom}.png", "{z}/{zoom}/{row}_{column}.png",
             "{zoom}/{z}/{row}/{column}.png"],
)  # fmt: skip
def test_the_finest_zoom_of_catmaid_is_taken(tmp_path, name):
    volume = a_volume(5, 16, 16)
    for z in range(5):
        for zoom in range(3):
            plane = volume[z, :: 2**zoom, :: 2**zoom]
            for r in range(0, plane.shape[0], 4):
                for c in range(0, plane.shape[1], 4):
                    file = name.format(z=z, zoom=zoom, row=r // 4, column=c // 4)
                    save(tmp_path / file, plane[r : r + 4, c : c + 4])
    description, _ = describe_tiles(tmp_path)
    (tmp_path / "v.json").write_text(json.dumps(description))
    assert (open_volume(tmp_path / "v.json").read()[0] == volume).all()


def test_what_is_not_regular_is_told(tmp_path):
    a_tiled(tmp_path, a_volume(6, 8, 8), (4, 4), "{z}/{row}_{column}.png")
    (tmp_path / "volume.json").unlink()
    for file in ("2/0_0.png", "3/0_1.png", "3/1_1.png", *[f"4/{n}.png" for n in
                 ("0_0", "0_1", "1_0", "1_1")]):  # fmt: skip
        (tmp_path / file).unlink()
    description, notes = describe_tiles(tmp_path, missing="fill")
    assert notes == [
        "1 sections are missing: 4",
        "section 2 lacks 1 tiles",
        "section 3 has 2×1 tiles from row 0 and column 0, the whole 2×2 from 0 and 0",
    ]
    assert description["depth"] == 6
    (tmp_path / "v.json").write_text(json.dumps(description))
    assert "7 of 24 tiles are missing" in open_volume(tmp_path / "v.json").notes[1]


def test_names_that_do_not_tell_are_refused(tmp_path):
    save(tmp_path / "a/1_2.png", a_volume(4, 4))
    save(tmp_path / "b/1_2.png", a_volume(4, 4))
    with pytest.raises(SourceError, match="differ in more than numbers"):
        describe_tiles(tmp_path)
    with pytest.raises(SourceError, match="holds no PNG, JPEG or TIFF tiles"):
        describe_tiles(tmp_path / "none")


def volprep(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volprep", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_a_json_that_every_command_takes(tmp_path):
    volume = a_volume(4, 8, 8)
    a_tiled(tmp_path / "raw_tiles", volume, (4, 4), "{z}/{row}_{column}.png")
    (tmp_path / "raw_tiles" / "volume.json").unlink()
    done = volprep("tiles-json", tmp_path / "raw_tiles", "-o", tmp_path / "v.json")
    assert done.returncode == 0, done.stderr
    assert "4 x 8 x 8" in done.stderr
    assert (open_volume(tmp_path / "v.json").read()[0] == volume).all()
    checked = volprep("check", tmp_path / "v.json", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["cases"][0]["image"]["shape"] == [1, 4, 8, 8]
    again = volprep("tiles-json", tmp_path / "raw_tiles", "-o", tmp_path / "v.json")
    assert (again.returncode, "add --force" in again.stderr) == (2, True)
    (tmp_path / "other").mkdir()
    beside = volprep("tiles-json", tmp_path / "raw_tiles", "-o", tmp_path / "other" / "v.json")
    assert (beside.returncode, "does not lie above" in beside.stderr) == (3, True)


def test_inputs_are_known_by_their_tiles_too(tmp_path):
    volume = a_volume(2, 8, 8)
    path = a_tiled(tmp_path / "here", volume, (4, 4), "{z}/{row}_{column}.png", missing="fill")
    before = Inputs.of([path])
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert Inputs.of([tmp_path / "there" / "volume.json"]).content == before.content
    save(tmp_path / "here/1/0_1.png", 255 - volume[1, :4, 4:])
    assert Inputs.of([path]).content != before.content
    with pytest.raises(SourceError, match="changed while"):
        before.check()
    (tmp_path / "here/1/0_1.png").unlink()
    assert Inputs.of([path]).content != before.content


def test_folders_of_tiles_in_use_are_not_told_as_unused(tmp_path):
    for role in ("image", "label"):
        a_tiled(tmp_path, a_volume(2, 8, 8), (4, 4), role + "_tiles/{z}/{row}_{column}.png")
        (tmp_path / "volume.json").rename(tmp_path / f"{role}_tiles.json")
    save(tmp_path / "other/0.png", a_volume(4, 4))
    told = {f.name: f.message for f in find_cases(tmp_path).findings}
    assert "other/" in told["siblings-unused"]
    assert "tiles" not in told["siblings-unused"]


def test_real_tiles_are_the_sections_that_they_were_cut_from(real_data):
    root = real_data("13_png_tiles_isbi")
    (case,) = find_cases(root)
    sections = open_volume(real_data("05_isbi2012_em_png_stack") / "images")
    image = case.open_image()
    assert (image.read() == sections.read(Box((0, 0, 0), image.shape[1:]))).all()
    assert case.open_label().shape == image.shape
    description, notes = describe_tiles(root / "image_tiles")
    stated = json.loads((root / "image_tiles.json").read_text())
    assert notes == []
    assert {**description, "image": [f"image_tiles/{n}" for n in description["image"]]} == stated
