"""Pictures of what a trainer will see: contact sheets and self-contained HTML pages."""

from volprep.preview.augment import render_preview
from volprep.preview.page import Cell, Page, Row
from volprep.preview.patches import PatchMap, RegionMap, coverage_facts, render_patches

__all__ = [
    "Cell",
    "Page",
    "PatchMap",
    "RegionMap",
    "Row",
    "coverage_facts",
    "render_patches",
    "render_preview",
]
