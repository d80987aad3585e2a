"""Which patches are worth having: foreground, rejection, valid masks and filters."""

from volprep.sampling.eligible import Places, find_places
from volprep.sampling.filters import (
    FilteredRegions,
    MaskPatchFilter,
    MaxPatchFilter,
    MeanStdPatchFilter,
    PatchFilter,
    ShannonPatchFilter,
    create_patch_filter,
    filter_patches,
)
from volprep.sampling.foreground import ForegroundIndex, Per
from volprep.sampling.regions import region_values, spread_regions
from volprep.sampling.rejection import Rejection

__all__ = [
    "FilteredRegions",
    "ForegroundIndex",
    "MaskPatchFilter",
    "MaxPatchFilter",
    "MeanStdPatchFilter",
    "PatchFilter",
    "Per",
    "Places",
    "Rejection",
    "ShannonPatchFilter",
    "create_patch_filter",
    "filter_patches",
    "find_places",
    "region_values",
    "spread_regions",
]
