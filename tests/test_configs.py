"""The configs that come with volprep are read, and their augmentations are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from volprep.augment import transforms_from_config
from volprep.config import load_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_is_valid(path: Path) -> None:
    config = load_config(path)
    transforms = transforms_from_config(config.augment)
    assert len(transforms) == len(config.augment)


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 5
