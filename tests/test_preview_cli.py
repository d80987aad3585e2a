"""`volprep preview-augment` on data of its own."""

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
from volprep.errors import ConfigError
from volprep.pipeline.preview import preview_augment


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preview data µ")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for name in ("first", "second"):
        rng = np.random.default_rng(len(name))
        label = np.zeros((24, 90, 90), np.uint16)
        for n, (z, y, x) in enumerate(rng.integers(5, (19, 80, 80), (30, 3)), 1):
            label[z - 4 : z + 5, y - 5 : y + 6, x - 5 : x + 6] = n
        image = ((label > 0) * 120 + rng.integers(0, 60, label.shape)).astype(np.uint8)
        tifffile.imwrite(folder / "images" / f"{name}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{name}.tif", label)
    return folder


def write_config(data: Path, folder: Path, **sections: object) -> Path:
    path = folder / "volprep.yaml"
    document = {
        "data": {"root": str(data), "spacing": [0.3, 0.1, 0.1]},
        "plan": {"patch_size": [8, 32, 32]},
        "augment": ["rotate", "flip", {"misalignment": {"displacement": 6}}, "grayscale"],
        **sections,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_command_writes_a_page_and_a_sheet(data: Path, tmp_path: Path) -> None:
    config = write_config(data, tmp_path)
    out = tmp_path / "look.html"
    options = ["--n", "2", "--only", "misalignment", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, ["preview-augment", str(config), *options])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["rows"] == ["MisAlignment alone"]
    html = out.read_text(encoding="utf-8")
    assert "Augmentation preview: first" in html
    assert "voxels of 0.3 x 0.1 x 0.1 µm" in html
    assert np.asarray(Image.open(told["png"])).std() > 10


@pytest.mark.parametrize("corner", [(20, 84, 84), (0, 2, 60)])
def test_the_patch_that_is_shown_holds_labels_where_there_are_any(
    tmp_path: Path, corner: tuple[int, int, int]
) -> None:
    z, y, x = corner
    for kind in ("images", "labels"):
        (tmp_path / "rare" / kind).mkdir(parents=True)
    for seed in range(2):
        image = np.random.default_rng(seed).integers(0, 60, (24, 90, 90)).astype(np.uint8)
        label = np.zeros(image.shape, np.uint16)
        label[z : z + 3, y : y + 4, x : x + 4] = 7
        tifffile.imwrite(tmp_path / f"rare/images/{seed}.tif", image)
        tifffile.imwrite(tmp_path / f"rare/labels/{seed}.tif", label)
    config = load_config(write_config(tmp_path / "rare", tmp_path))
    for index in range(3):
        page = preview_augment(config, n=1, only=["flip"], index=index)
        assert page.sections[0].cells[0].picture.over is not None, "outlines of a label"


def test_case_place_and_seed_can_be_chosen(data: Path, tmp_path: Path) -> None:
    config = load_config(write_config(data, tmp_path))
    pages = [
        preview_augment(config, n=1, only=["flip"]),
        preview_augment(config, n=1, only=["flip"], case="second"),
        preview_augment(config, n=1, only=["flip"], index=1),
        preview_augment(config, n=1, only=["flip"], seed=1),
    ]
    assert len({page.html() for page in pages}) == len(pages)
    assert pages[1].title.endswith("second")
    assert preview_augment(config, n=1, only=["flip"]).html() == pages[0].html()


def test_skeletons_are_drawn_where_the_config_makes_them(data: Path, tmp_path: Path) -> None:
    plain = load_config(write_config(data, tmp_path))
    config = load_config(write_config(data, tmp_path, skeletons={"enabled": True}))
    page = preview_augment(config, n=1, only=["flip"])
    assert "skeleton points" in page.lines[-1]
    assert page.html() != preview_augment(plain, n=1, only=["flip"]).html()


def test_volumes_on_another_grid_and_connectomics_block_are_shown(
    data: Path, tmp_path: Path
) -> None:
    config = write_config(
        data,
        tmp_path,
        preprocess={"target_spacing": [0.3, 0.2, 0.2]},
        augment={"AUGMENTOR": {"MISALIGNMENT": {"ENABLED": False}}},
    )
    page = preview_augment(load_config(config), n=1)
    titles = [row.title for row in page.sections]
    assert "MisAlignment alone" not in titles
    assert len(titles) == 11
    assert "0.3 x 0.2 x 0.2" in page.lines[0]


def test_mistakes_end_with_a_word_about_them(data: Path, tmp_path: Path) -> None:
    config = load_config(write_config(data, tmp_path))
    with pytest.raises(ConfigError, match="--only: 'gamma' is not in the pipeline"):
        preview_augment(config, only=["gamma"])
    with pytest.raises(ConfigError, match=r"--case: no case is called 'secon'.*second"):
        preview_augment(config, case="secon")


def test_without_a_list_the_preset_is_shown(data: Path, tmp_path: Path) -> None:
    auto = preview_augment(load_config(write_config(data, tmp_path, augment="auto")), n=1)
    assert any("preset fluorescence: voxels of 0.1" in line for line in auto.lines)
    assert "Gamma alone" in [row.title for row in auto.sections]
    empty = preview_augment(load_config(write_config(data, tmp_path, augment=[])), n=1)
    assert any("lists no augmentation, and none trains" in line for line in empty.lines)
    assert [row.title for row in empty.sections] == [row.title for row in auto.sections]


def test_draws_that_do_not_fit_are_told(data: Path, tmp_path: Path) -> None:
    turned = [{"rotate": {"rot90": False, "p": 1.0}}]
    small = {"patch_size": [8, 32, 32], "aug_patch_size": [8, 32, 32]}
    page = preview_augment(load_config(write_config(data, tmp_path, augment=turned, plan=small)))
    assert any("of the draws whole" in line for line in page.lines)
    assert any("mirrored at the border" in line for c in page.sections[0].cells for line in c.lines)
    page = preview_augment(load_config(write_config(data, tmp_path, augment=turned)))
    assert not any("of the draws whole" in line for line in page.lines)
