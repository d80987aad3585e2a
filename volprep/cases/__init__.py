"""Which files make one case: found in a folder by its layout, or listed by hand."""

from volprep.cases.case import Case, Cases, FileRef
from volprep.cases.find import cases_from_entries, find_cases, group_of
from volprep.cases.layouts import LAYOUTS

__all__ = ["LAYOUTS", "Case", "Cases", "FileRef", "cases_from_entries", "find_cases", "group_of"]
