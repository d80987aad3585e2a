"""The names that the documents promise are where they promise them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import volprep

DOCUMENTED = {
    "volprep.autoconfig": [
        "auto_config",
        "find_patch_pool_batch",
        "get_aug_patch",
        "display_info",
        "parameters_return",
        "make_plan",
    ],
    "volprep.fingerprint": ["compute_median", "data_fingerprint", "compute_fingerprint"],
    "volprep.skeletons": ["bake_skeleton", "skeleton_to_mask", "skeletonize"],
    "volprep.patching": [
        "Patching",
        "PatchSpecs",
        "TileSpecs",
        "FixedPatching",
        "FixedRandomPatching",
        "RandomPatching",
        "SequentialPatching",
        "StratifiedPatching",
        "TiledPatching",
        "WholeSamplePatching",
        "create_patching",
        "is_tile_specs",
        "stitch",
    ],
    "volprep.warp": ["get_warped_coord_transform", "warp_slice", "WarpingOOBError"],
    "volprep.augment": [
        "Compose",
        "Rotate",
        "Rescale",
        "Flip",
        "Elastic",
        "Grayscale",
        "MissingParts",
        "MissingSection",
        "MisAlignment",
        "MotionBlur",
        "CutBlur",
        "CutNoise",
        "CopyPaste",
        "Mixup",
    ],
    "volprep.loader": ["SkeletonDataset", "MultiDataset", "PatchDataset"],
}


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room, names in DOCUMENTED.items() for name in names]
)
def test_documented_name_is_public_and_described(room: str, name: str) -> None:
    module = importlib.import_module(room)
    assert name in module.__all__
    assert getattr(module, name).__doc__


def test_every_top_level_name_can_be_had() -> None:
    for name in volprep.__all__:
        assert getattr(volprep, name) is not None
        assert name in dir(volprep)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        volprep.nothing  # noqa: B018


def test_importing_volprep_loads_none_of_its_rooms() -> None:
    code = "import sys, volprep; print([m for m in sys.modules if m.startswith('volprep.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['volprep.version']"  # one line, and no room
