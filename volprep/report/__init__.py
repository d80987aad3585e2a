"""Pages to be looked at: the report of a patch set, and previews of what a trainer will see."""

from volprep.report.augment import render_preview
from volprep.report.maps import (
    PatchMap,
    RegionMap,
    coverage_cells,
    coverage_facts,
    labelled_place,
    render_patches,
)
from volprep.report.overview import (
    CaseView,
    Choice,
    Overview,
    Seen,
    render_refused,
    render_report,
    with_costs,
)
from volprep.report.page import Cell, Gallery, Page, Section, with_names
from volprep.report.pictures import Picture, around
from volprep.report.samples import SampleView, draw_case

__all__ = [
    "CaseView",
    "Cell",
    "Choice",
    "Gallery",
    "Overview",
    "Page",
    "PatchMap",
    "Picture",
    "RegionMap",
    "SampleView",
    "Section",
    "Seen",
    "around",
    "coverage_cells",
    "coverage_facts",
    "draw_case",
    "labelled_place",
    "render_patches",
    "render_preview",
    "render_refused",
    "render_report",
    "with_costs",
    "with_names",
]
