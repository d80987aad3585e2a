"""What `volprep fingerprint` and `volprep autoconfig --explain` print for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from volprep.cli.app import app


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in ("a", "b"):
        label = np.zeros((4, 8, 8), np.uint8)
        label[:2], label[2:] = 1, 2
        np.save(tmp_path / "images" / f"{name}.npy", rng.integers(0, 200, label.shape, np.uint8))
        np.save(tmp_path / "masks" / f"{name}.npy", label)
    return tmp_path


def printed(*arguments: object) -> str:
    import volprep.cli  # noqa: F401  (registers the commands)

    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_fingerprint_shows_figures_labels_and_a_histogram(data: Path) -> None:
    text = printed("fingerprint", data / "images", "--masks", data / "masks")
    rows = [line.split("\t") for line in text.splitlines()]
    assert ["voxels", "512", "512", "512", "512"] in rows
    assert ["a", "2", "2", "100.00%", "128, 128, 128", "2"] in rows
    assert ["1", "256", "50.00%"] in rows
    assert any("█" in line for line in text.splitlines())


def test_headers_only_shows_shapes_alone(data: Path) -> None:
    text = printed("fingerprint", data / "images", "--headers-only")
    assert "median shape\t4 x 8 x 8" in text
    assert "█" not in text
    assert "mean" not in text


def test_autoconfig_explains_each_value_and_the_bytes() -> None:
    text = printed("autoconfig", "--median", "96,512,512", "--spacing", "0.3,0.1,0.1", "--explain")
    for word in ("patch_size", "pool", "batch_size", "aug_patch_size", "activations", "optimiser"):
        assert word in text
    assert "of 8 GiB" in text
