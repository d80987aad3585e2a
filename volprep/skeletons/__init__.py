"""Skeletons of instances: made, baked, painted, kept."""

from __future__ import annotations

from volprep.skeletons.bake import bake_skeleton
from volprep.skeletons.files import find_skeleton_file, read_skeletons, write_skeletons, write_swc
from volprep.skeletons.journal import TraceJournal
from volprep.skeletons.labels import present_ids
from volprep.skeletons.make import Trace, count_traces, gather, skeletonize
from volprep.skeletons.paint import skeleton_to_mask
from volprep.skeletons.points import Skeletons
from volprep.skeletons.stream import (
    bake_volume,
    field_blocks,
    mask_blocks,
    paint_volume,
    skeletonize_volume,
    trace_volume,
)

__all__ = [
    "Skeletons",
    "Trace",
    "TraceJournal",
    "bake_skeleton",
    "bake_volume",
    "count_traces",
    "field_blocks",
    "find_skeleton_file",
    "gather",
    "mask_blocks",
    "paint_volume",
    "present_ids",
    "read_skeletons",
    "skeleton_to_mask",
    "skeletonize",
    "skeletonize_volume",
    "trace_volume",
    "write_skeletons",
    "write_swc",
]
