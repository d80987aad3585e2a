"""Train and validation sides that share nothing, and the audit that says so.

Cases are divided by name, by group or into folds. A single volume is divided
into blocks with a gap between them.
"""

from volprep.splits.audit import audit_splits, canonical_boxes, content_hash, find_duplicates
from volprep.splits.split import Kind, SplitPart, Splits, make_splits, splits_blocks

__all__ = [
    "Kind",
    "SplitPart",
    "Splits",
    "audit_splits",
    "canonical_boxes",
    "content_hash",
    "find_duplicates",
    "make_splits",
    "splits_blocks",
]
