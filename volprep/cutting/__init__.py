"""From sites to samples: which places of the cases are worth a patch, and how it is cut.

`volprep prepare` stores what is cut here; a loader over volumes cuts while it trains. Nothing
in here knows a config or a file: cases are volumes that are ready to be cut.
"""

from volprep.cutting.blocks import Room, read_block
from volprep.cutting.draw import Acceptance, Drawing, filtering, foreground
from volprep.cutting.patches import (
    PadMode,
    PreparedCase,
    Site,
    cut_patches,
    cut_voxels,
    pad_of,
    read_patch,
)
from volprep.cutting.places import Block, TrainingPlaces
from volprep.cutting.sites import (
    annotated_sites,
    blocks_of,
    grid_sites,
    stored_patch_size,
    training_sites,
)

__all__ = [
    "Acceptance",
    "Block",
    "Drawing",
    "PadMode",
    "PreparedCase",
    "Room",
    "Site",
    "TrainingPlaces",
    "annotated_sites",
    "blocks_of",
    "cut_patches",
    "cut_voxels",
    "filtering",
    "foreground",
    "grid_sites",
    "pad_of",
    "read_block",
    "read_patch",
    "stored_patch_size",
    "training_sites",
]
