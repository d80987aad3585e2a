"""Which files make one case: found in a folder by its layout, or listed by hand."""

from volprep.cases.case import Case, Cases, FileRef, Fold, LabelKind
from volprep.cases.channels import ChannelFiles
from volprep.cases.find import cases_from_entries, find_cases, group_of
from volprep.cases.layouts import LAYOUTS
from volprep.cases.naming import partner_stems
from volprep.cases.points import PointRules
from volprep.cases.regions import Region, regions_from
from volprep.cases.repair import LabelRules
from volprep.cases.search import SEARCH_OPTIONS, Search

__all__ = [
    "LAYOUTS",
    "SEARCH_OPTIONS",
    "Case",
    "Cases",
    "ChannelFiles",
    "FileRef",
    "Fold",
    "LabelKind",
    "LabelRules",
    "PointRules",
    "Region",
    "Search",
    "cases_from_entries",
    "find_cases",
    "group_of",
    "partner_stems",
    "regions_from",
]
