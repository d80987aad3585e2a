"""`volprep preview-patches`: what is drawn is what is cut, and the pictures say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from typer.testing import CliRunner

from volprep.cli import app
from volprep.config import load_config
from volprep.errors import ConfigError, PlanError
from volprep.geometry import Box
from volprep.pipeline import prepare
from volprep.pipeline.preview_patches import preview_patches
from volprep.report import PatchMap, RegionMap, coverage_facts, render_patches

SHAPE = (20, 60, 40)


class Volume:
    """Grey noise, which remembers how much of it was read."""

    def __init__(self, shape=SHAPE):
        self.array = np.random.default_rng(0).integers(100, 200, (1, *shape)).astype(np.uint16)
        self.shape, self.dtype, self.spacing = self.array.shape, self.array.dtype, None
        self.read_voxels = 0

    def read(self, box=None):
        box = box or Box.whole(self.shape)
        self.read_voxels += box.size
        return self.array[(slice(None), *box.slices)]


def drawn(**changes):
    boxes = {
        "train_blocks": [Box((0, 30, 0), SHAPE)],
        "val_blocks": [Box((0, 0, 0), (20, 20, 40))],
        "train_patches": [Box.at((z, y, 10), (10, 20, 20)) for z in (0, 10) for y in (30, 40)],
        "val_patches": [Box.at((0, 0, 0), (10, 20, 20)), Box.at((5, 0, 20), (10, 20, 20))],
    }
    values = {"name": "a case", "image": Volume(), "spacing": (0.2, 0.1, 0.1), **boxes, **changes}
    return PatchMap(**values)


def cells(page):
    return {cell.heading: cell for section in page.sections for cell in section.cells}


def test_coverage_is_counted_inside_the_blocks():
    case = drawn()
    counts = np.zeros(SHAPE, int)
    for box in case.train_patches:
        counts[box.slices] += 1
    facts = coverage_facts(SHAPE, case.train_blocks, case.train_patches)
    inside = counts[case.train_blocks[0].slices]
    assert (facts.least, facts.most) == (0, 2)
    assert facts.median == np.median(inside)
    assert facts.unseen == pytest.approx(np.mean(inside == 0))


def test_coverage_of_a_large_volume_is_sampled():
    shape = (2000, 3000, 3000)
    half = Box((0, 0, 0), (1000, 3000, 3000))
    facts = coverage_facts(shape, [Box.whole(shape)], [half, half])
    assert (facts.least, facts.most) == (0, 2)
    assert facts.unseen == pytest.approx(0.5, abs=0.01)
    assert facts.lines()[-1] == "counted at some of the voxels"
    thin = coverage_facts(
        (30, 500, 500), [Box.whole((30, 500, 500))], [Box.at((23, 0, 0), (1, 500, 500))]
    )
    assert thin.most == 1, "no section is jumped over"


def test_a_page_shows_blocks_patches_and_coverage_of_both_sides():
    page = render_patches(drawn())
    assert list(cells(page)) == [
        "Blocks",
        "Training patches",
        "Validation patches",
        "By training patches",
        "By validation patches",
    ]
    assert "training (green): 50.0% of the volume" in cells(page)["Blocks"].lines
    assert "4 of 10 x 20 x 20 voxels" in cells(page)["Training patches"].lines
    assert "voxels seen 0 to 2 times, median 0.5" in cells(page)["By training patches"].lines
    assert page.sheet().size[0] > 600


def filtered():
    """Half of the training block, along x, is left out by a mean of 40."""
    means = np.array([30.0, 50.0]).reshape(1, 1, 1, 2)
    return RegionMap(Box((0, 30, 0), SHAPE), (20, 30, 20), means[0] >= 40, means, ["mean"], [40.0])


def test_what_was_left_out_is_shown_where_something_was():
    case = drawn(rejected=[Box.at((0, 35, 5), (10, 20, 20))], regions=[filtered()])
    found = cells(render_patches(case))
    assert "1 of 5 that were drawn" in found["Patches thrown back"].lines
    assert "1 cell, 50.0% of the blocks" in found["Filtered: fewer patches start here"].lines
    seen = found["The filter's mean"]
    assert seen.lines == ["of regions 30 to 50, median 40", "threshold 40"]
    heat = np.asarray(render_patches(case, side=402).sections[2].cells[2].picture.flat())
    assert heat[160, 10].tolist() == [0, 0, 4]  # 30, the lowest
    assert heat[160, 150].tolist() == [252, 253, 191]
    assert heat[20, 80].tolist() == [226, 229, 233]


def test_pictures_have_the_proportions_of_the_spacing():
    picture = cells(render_patches(drawn(), side=400))["Blocks"].picture
    # y is 6.0, x and z are 4.0 micrometres; two pixels lie between the slices
    width, height = picture.size
    assert height == 400 + 2
    assert (width - 2) / (height - 2) == pytest.approx(8 / 10, abs=0.01)


def test_blocks_are_coloured_where_they_lie():
    pixels = np.asarray(cells(render_patches(drawn(), side=402))["Blocks"].picture.flat()).astype(
        int
    )
    _, height = 240, 240  # of the first slice, 40 and 60 voxels
    red, green, _ = np.moveaxis(pixels[:height, :160], -1, 0)
    train, gap, val = slice(130, 230), slice(90, 110), slice(10, 70)
    assert (green[train] - red[train]).mean() > 20
    assert abs((green[gap] - red[gap]).mean()) < 1
    assert (red[val] - green[val]).mean() > 10


def test_maps_are_black_where_nothing_is_seen_and_grey_outside_the_blocks():
    case = drawn()
    heat = np.asarray(cells(render_patches(case, side=402))["By training patches"].picture.flat())
    assert heat[160, 10].tolist() == [0, 0, 4]  # in the block, left of all patches
    assert heat[20, 80].tolist() == [226, 229, 233]
    assert heat[180, 80].sum() > 600  # twice
    assert 100 < heat[130, 80].sum() < 600  # once


def test_middles_of_patches_are_seen_on_bright_data():
    bright = Volume()
    bright.array[:] = 65535
    bright.array[..., 0] = 0
    case = drawn(image=bright)
    pixels = np.asarray(cells(render_patches(case, side=402))["Training patches"].picture.flat())
    middle = pixels[200 - 3 : 200 + 4, 80 - 3 : 80 + 4].astype(int).sum(-1)  # y 50, x 20
    assert middle.min() < 150
    assert middle.max() > 700


def test_a_place_with_labels_is_shown_where_few_sections_have_them():
    label = Volume()
    label.array[:] = 0
    label.array[..., 13, 2:40, 2:30] = 5
    page = render_patches(drawn(label=label))
    assert "through z 13, y" in cells(page)["Blocks"].lines[-1]


def test_labels_are_drawn():
    label = Volume()
    label.array[:] = 0
    label.array[0, :, 40:50, 5:15] = 7
    plain, outlined = (
        np.asarray(cells(render_patches(drawn(label=each), side=402))["Blocks"].picture.over)
        for each in (None, label)
    )
    changed = (plain != outlined).any(-1)
    assert changed[160:200, 20:60].any()
    assert not changed[:100].any()


def test_a_long_case_is_no_strip_and_that_is_told():
    volume = Volume((4, 400, 20))
    case = drawn(
        image=volume, train_blocks=[Box.whole(volume.shape)], val_blocks=[], val_patches=[]
    )
    page = render_patches(case, side=400)
    width, height = cells(page)["Blocks"].picture.size
    assert height <= 4 * width
    assert any("x is drawn 6.67 times longer than it is" in line for line in page.lines)


def test_of_a_huge_case_a_window_is_read():
    case = drawn(image=Volume((40, 200, 200)), most=(40, 100, 100))
    picture = cells(render_patches(case))["Blocks"].picture
    assert picture.base.getextrema()[0][1] > 200
    assert case.image.read_voxels <= 2 * (100 * 100 + 2 * 40 * 100)


def test_only_slices_are_read():
    case = drawn(image=Volume((40, 200, 200)))
    render_patches(case)
    assert case.image.read_voxels <= 2 * (200 * 200 + 2 * 40 * 200)


def test_a_single_plane_has_one_slice():
    volume = Volume((1, 60, 40))
    case = PatchMap(
        "flat", volume, None, [Box.whole(volume.shape)], [], [Box.at((0, 5, 5), (1, 20, 20))], []
    )
    found = cells(render_patches(case, side=300))
    assert found["Blocks"].picture.size == (200, 300)
    assert "Validation patches" not in found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("patches to look at")
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    for seed, name in enumerate(("one", "two", "three")):
        rng = np.random.default_rng(seed)
        label = np.zeros((16, 50, 60), np.uint8)
        label[4:9, 10:20, 30:44] = 3
        image = rng.integers(0, 90, label.shape).astype(np.uint8)
        image[:, :, 30:] += 60  # the left half is dark
        tifffile.imwrite(root / "images" / f"{name}.tif", image)
        tifffile.imwrite(root / "labels" / f"{name}.tif", label)
    return root


def configure(folder: Path, where: Path, **sections: object) -> Path:
    path = where / "volprep.yaml"
    document = {
        "data": {"root": str(folder), "spacing": [0.2, 0.1, 0.1]},
        "plan": {"patch_size": [8, 16, 16], "aug_patch_size": [8, 20, 20]},
        "output": {"dir": str(where / "out")},
        **sections,
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    "sections",
    [
        {"patching": {"name": "stratified", "reject": {"size_thres": 40}}},
        {"preprocess": {"target_spacing": [0.2, 0.2, 0.2]}},
        {
            "patching": {
                "name": "stratified",
                "uniform": True,
                "foreground": {"p": 0},
                "filter": {"name": "mean_std", "mean_threshold": 60, "filtered_patch_prob": 0},
            }
        },
    ],
)
def test_the_patches_drawn_are_those_that_prepare_cuts(folder, tmp_path, sections):
    config = load_config(configure(folder, tmp_path, **sections))
    found = dict(preview_patches(config))
    store = prepare(config)
    for split in ("train", "val"):
        reader = store.split(split)
        cases = sorted(found)
        index = np.asarray(reader.index)
        for number, name in enumerate(cases):
            boxes = getattr(found[name].patches, f"{split}_patches")
            cut = index[index[:, 0] == number][:, 1:4].tolist()
            assert [list(box.start) for box in boxes] == cut


def test_patches_do_not_start_where_the_filter_leaves_regions_out(folder, tmp_path):
    section = {"name": "mean_std", "mean_threshold": 60, "filtered_patch_prob": 0}
    patching = {"name": "stratified", "foreground": {"p": 0}, "filter": section}
    config = load_config(configure(folder, tmp_path, patching=patching))
    found = dict(preview_patches(config))
    left_out = {
        name: [box for region in drawn.patches.regions for box in region.left_out()]
        for name, drawn in found.items()
    }
    store = prepare(config)
    cases, index = store.manifest["cases"], np.asarray(store.split("train").index)
    assert any(left_out[cases[row[0]]] for row in index)
    for row in index:
        seen = Box.at(row[1:4] + row[-3:], (1, 1, 1))
        assert not any(box.contains(seen) for box in left_out[cases[row[0]]])


def test_instances_of_a_class_map_are_its_components(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for seed in range(2):
        rng = np.random.default_rng(seed)
        label = np.zeros((16, 60, 60), np.uint8)
        label[2:12, 30:60, 30:60] = 1
        label[2, 3, 4] = 1  # as often as the thousands of voxels above
        image = rng.integers(0, 90, label.shape).astype(np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"{seed}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"{seed}.tif", label)
    sections = {
        "data": {"root": str(tmp_path), "label_kind": "classes", "spacing": [0.2, 0.1, 0.1]},
        "patching": {"foreground": {"p": 1, "per": "instance"}, "patches_per_case": 200},
    }
    config = load_config(configure(tmp_path, tmp_path, **sections))
    patches = [box for _, found in preview_patches(config) for box in found.patches.train_patches]
    small = [box.contains(Box.at((2, 3, 4), (1, 1, 1))) for box in patches]
    assert 0.4 < np.mean(small) < 0.6


def test_a_filter_that_leaves_nothing_is_a_plan_error(folder, tmp_path):
    section = {"name": "max", "threshold": 1000, "filtered_patch_prob": 0}
    config = load_config(
        configure(folder, tmp_path, patching={"name": "stratified", "filter": section})
    )
    with pytest.raises(PlanError, match=r"patching\.filter leaves no patch"):
        next(preview_patches(config))


@pytest.mark.parametrize(
    ("patching", "message"),
    [
        ({"name": "stratified", "filter": {"name": "max"}}, "max needs threshold"),
        ({"name": "stratified", "filter": {"coverage": 0.1}}, "none does not take coverage"),
        (
            {"name": "stratified", "filter": {"name": "shannon", "threshold": 1, "coverage": 1}},
            "shannon does not take coverage",
        ),
        ({"filter": {"name": "mask", "coverage": 0.1}}, "belong to name: stratified"),
        ({"uniform": True}, "belong to name: stratified"),
    ],
)
def test_a_filter_must_go_with_its_parameters(folder, tmp_path, patching, message):
    with pytest.raises(ConfigError, match=message):
        load_config(configure(folder, tmp_path, patching=patching))


def test_the_command_writes_a_picture_for_each_case(folder, tmp_path):
    config = configure(folder, tmp_path)
    out = tmp_path / "pictures"
    done = CliRunner().invoke(app, ["preview-patches", str(config), "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert sorted(told) == ["one", "three", "two"]
    for name, facts in told.items():
        assert np.asarray(Image.open(facts["png"])).std() > 10
        assert facts["png"] == str(out / f"{name}.png")
        assert "Where patches come from" in Path(facts["html"]).read_text(encoding="utf-8")
    assert sum(facts["train"]["patches"] for facts in told.values()) > 0
    done = CliRunner().invoke(
        app, ["preview-patches", str(config), "--case", "one", "-o", str(out)]
    )
    assert done.stdout.split() == [str(out / "one.html"), str(out / "one.png")]


def test_a_case_that_is_not_there_is_a_config_error(folder, tmp_path):
    config = load_config(configure(folder, tmp_path))
    with pytest.raises(ConfigError, match="no case 'four'"):
        next(preview_patches(config, cases=["four"]))
