"""Prepared data in the forms that other trainers read: each target is a file and a row of `TABLE`.

Nothing in here knows a config or a run: an exporter says what a target cannot express, and
which files it wants, each with what it is made from and how it is written.
"""

from volprep.exports.exporter import Exporter
from volprep.exports.files import ExportFile
from volprep.exports.given import ExportCase, ExportSet, PreparedVolumes, Side, cut_cases
from volprep.exports.table import TABLE, Target, create_exporter

__all__ = [
    "TABLE",
    "ExportCase",
    "ExportFile",
    "ExportSet",
    "Exporter",
    "PreparedVolumes",
    "Side",
    "Target",
    "create_exporter",
    "cut_cases",
]
