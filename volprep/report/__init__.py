"""Pages to be looked at: the report of a patch set, and previews of what a trainer will see."""

from volprep.report.augment import render_preview
from volprep.report.maps import (
    PatchMap,
    RegionMap,
    coverage_cells,
    coverage_facts,
    render_patches,
)
from volprep.report.page import Cell, Gallery, Page, Section

__all__ = [
    "Cell",
    "Gallery",
    "Page",
    "PatchMap",
    "RegionMap",
    "Section",
    "coverage_cells",
    "coverage_facts",
    "render_patches",
    "render_preview",
]
