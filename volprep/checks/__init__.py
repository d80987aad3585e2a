"""The doctor: everything that is wrong or doubtful about the data, in one pass."""

from volprep.checks.case import Along, CheckedCase
from volprep.checks.doctor import Report, check_cases, examine_cases
from volprep.checks.headers import odd_names
from volprep.checks.measure import CheckedLabel, ImageFacts
from volprep.findings import Finding, raise_on_errors

__all__ = [
    "Along",
    "CheckedCase",
    "CheckedLabel",
    "Finding",
    "ImageFacts",
    "Report",
    "check_cases",
    "examine_cases",
    "odd_names",
    "raise_on_errors",
]
