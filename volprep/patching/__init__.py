"""Strategies that name patches by index, and the way from tiles back to a volume."""

from volprep.patching.compose import (
    BlockPatching,
    EpochPatching,
    ForegroundPatching,
    StartSource,
    block_shapes,
)
from volprep.patching.coverage import count_coverage, expected_coverage
from volprep.patching.create import create_patching
from volprep.patching.fixed import FixedPatching, WholeSamplePatching
from volprep.patching.grid import SequentialPatching, TiledPatching
from volprep.patching.random import FixedRandomPatching, RandomPatching
from volprep.patching.samples import pad_to_patch
from volprep.patching.specs import Patching, PatchSpecs, TileSpecs, is_tile_specs
from volprep.patching.stitch import blend, stitch
from volprep.patching.stratified import StratifiedPatching

__all__ = [
    "BlockPatching",
    "EpochPatching",
    "FixedPatching",
    "FixedRandomPatching",
    "ForegroundPatching",
    "PatchSpecs",
    "Patching",
    "RandomPatching",
    "SequentialPatching",
    "StartSource",
    "StratifiedPatching",
    "TileSpecs",
    "TiledPatching",
    "WholeSamplePatching",
    "blend",
    "block_shapes",
    "count_coverage",
    "create_patching",
    "expected_coverage",
    "is_tile_specs",
    "pad_to_patch",
    "stitch",
]
