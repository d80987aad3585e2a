"""PyTorch Connectomics' block form and path lists: the same meaning, or named as not translated."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tifffile
import yaml

from volprep import pipeline
from volprep.cases import cases_from_entries, find_cases
from volprep.config import load_config
from volprep.config.connectomics import is_block_form, translated
from volprep.errors import ConfigError, SourceError

BLOCKS = """
DATASET:
  INPUT_PATH: data
  IMAGE_NAME: a.tif@b.tif
  LABEL_NAME: [la.tif, lb.tif]
  VALID_MASK_NAME: ma.tif@mb.tif
  DO_CHUNK_TITLE: 1
  DATA_CHUNK_NUM: [2, 4, 4]
  DATA_CHUNK_ITER: 5000
  REJECT_SAMPLING: {SIZE_THRES: 1000, P: 0.95, DIVERSITY: -1}
  DO_2D: true
  LOAD_2D: true
MODEL: {INPUT_SIZE: [8, 64, 64], ARCHITECTURE: unet_3d}
SOLVER: {SAMPLES_PER_BATCH: 4}
AUGMENTOR: {ENABLED: true, MISALIGNMENT: {ENABLED: false}}
INFERENCE: {DO_SINGLY: true}
"""


def test_each_key_of_the_document_is_translated_or_named():
    config, left = translated(yaml.safe_load(BLOCKS), "x.yaml")
    assert config["data"] == {
        "cases": [
            {"image": "data/a.tif", "label": "data/la.tif", "mask": "data/ma.tif"},
            {"image": "data/b.tif", "label": "data/lb.tif", "mask": "data/mb.tif"},
        ],
    }
    assert config["plan"] == {"patch_size": [1, 64, 64], "batch_size": 4}
    assert config["patching"]["reject"] == {
        "size_thres": 1000, "p": 0.95, "diversity": -1, "valid_ratio": 0.5,
    }  # fmt: skip
    assert config["augment"]["MISALIGNMENT"] == {"ENABLED": False}
    assert left == [
        "DATASET.DATA_CHUNK_NUM: not translated; volprep.TileDataset takes it",
        "DATASET.DATA_CHUNK_ITER: not translated; volprep.TileDataset takes it",
        "MODEL.ARCHITECTURE: not translated; no part of preparing data",
    ]
    assert not is_block_form({"data": {}, "DATASET": {}})


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"DATASET": {}}, r"x: DATASET\.IMAGE_NAME: missing"),
        ({"DATASET": {"IMAGE_NAME": "a@b", "LABEL_NAME": "c"}}, "LABEL_NAME: names 1 files, and"),
        (
            {"DATASET": {"IMAGE_NAME": "a", "DO_2D": True}, "MODEL": {"INPUT_SIZE": 64}},
            r"MODEL\.INPUT_SIZE: found 64; with DATASET\.DO_2D",
        ),
    ],
)
def test_what_does_not_fit_is_named(blocks, message):
    with pytest.raises(ConfigError, match=message):
        translated(blocks, "x")


def test_a_set_in_block_form_becomes_patches(tmp_path, caplog):
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for name in "ab":
        image = rng.integers(0, 255, (12, 70, 70)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "data" / f"{name}.tif", image, photometric="minisblack")
        label = (image > 100).astype(np.uint8)
        for role, array in (("l", label), ("m", np.ones_like(label))):
            path = tmp_path / "data" / f"{role}{name}.tif"
            tifffile.imwrite(path, array, photometric="minisblack")
    path = tmp_path / "pytc.yaml"
    path.write_text(BLOCKS.replace("AUGMENTOR", "MONITOR"))
    with caplog.at_level(logging.WARNING):
        config = load_config(path)
    assert "MODEL.ARCHITECTURE: not translated" in caplog.text
    store = pipeline.prepare(config.model_copy(update={"augment": []}))
    assert store.manifest["training"]["patch_size"] == [1, 64, 64]
    assert store.manifest["cases"] == ["a", "b"]


def test_a_list_of_paths_is_a_case_a_line(tmp_path):
    for number in range(3):
        for role in ("img", "lab"):
            array = np.full((5, 6), number + 1, np.uint8)
            np.save(tmp_path / f"{role}_{number}.npy", array)
    (tmp_path / "lists").mkdir()
    for role in ("img", "lab"):
        lines = [f"../{role}_0.npy", "", str(tmp_path / f"{role}_1.npy"), f"../{role}_2.npy"]
        (tmp_path / "lists" / f"{role}.txt").write_text("\n".join(lines))
    cases = cases_from_entries([{"image": "lists/img.txt", "label": "lists/lab.txt"}], tmp_path)
    assert [case.name for case in cases] == ["img_0", "img_1", "img_2"]
    assert [int(case.open_label().read().max()) for case in cases] == [1, 2, 3]
    alone = find_cases(tmp_path / "lists" / "img.txt")
    assert [case.open_image().shape for case in alone] == [(1, 1, 5, 6)] * 3
    (tmp_path / "lists" / "lab.txt").write_text("../lab_0.npy\n")
    with pytest.raises(SourceError, match=r"lists 1 files, and lists/img\.txt 3"):
        cases_from_entries([{"image": "lists/img.txt", "label": "lists/lab.txt"}], tmp_path)
    (tmp_path / "lists" / "img.txt").write_text("../gone.npy\n")
    with pytest.raises(SourceError, match=r"gone\.npy: no such file"):
        find_cases(tmp_path / "lists" / "img.txt")
    (tmp_path / "lists" / "img.txt").write_text("\n")
    with pytest.raises(SourceError, match="lists no file"):
        find_cases(tmp_path / "lists" / "img.txt")
