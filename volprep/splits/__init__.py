"""Train and validation sides that share nothing, and the audit that says so.

Cases are divided by name, by group or into folds. A single volume is divided
into blocks with a gap between them.
"""

from volprep.splits.audit import ContentHash, Twins, audit_splits, content_hash, find_twins
from volprep.splits.sketch import SketchMaker, near_copies
from volprep.splits.split import Kind, SplitPart, Splits, make_splits, splits_blocks

__all__ = [
    "ContentHash",
    "Kind",
    "SketchMaker",
    "SplitPart",
    "Splits",
    "Twins",
    "audit_splits",
    "content_hash",
    "find_twins",
    "make_splits",
    "near_copies",
    "splits_blocks",
]
