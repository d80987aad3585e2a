"""What a look at the data brings up: a name, the file, what was found, what to do about it.

`TABLE` holds every name there is, with its level and its explanation; a reader says a `Note`,
everybody who knows the case says a `Finding`, and `Rules` are the user's word on both.
"""

from volprep.findings.finding import (
    LEVELS,
    Finding,
    Note,
    Rules,
    by_level,
    explain,
    in_short,
    raise_on_errors,
)
from volprep.findings.table import TABLE, Kind, Level

__all__ = [
    "LEVELS",
    "TABLE",
    "Finding",
    "Kind",
    "Level",
    "Note",
    "Rules",
    "by_level",
    "explain",
    "in_short",
    "raise_on_errors",
]
