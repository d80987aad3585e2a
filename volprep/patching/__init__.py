"""Strategies that name patches by index, and the way from tiles back to a volume."""

from volprep.patching.compose import BlockPatching, EpochPatching, ForegroundPatching, block_shapes
from volprep.patching.create import create_patching
from volprep.patching.fixed import FixedPatching, WholeSamplePatching
from volprep.patching.grid import SequentialPatching, TiledPatching
from volprep.patching.random import FixedRandomPatching, RandomPatching
from volprep.patching.samples import pad_to_patch
from volprep.patching.specs import Patching, PatchSpecs, TileSpecs, is_tile_specs
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
    "StratifiedPatching",
    "TileSpecs",
    "TiledPatching",
    "WholeSamplePatching",
    "block_shapes",
    "create_patching",
    "is_tile_specs",
    "pad_to_patch",
]
