"""Skeletons of instances: made, baked, painted, kept."""

from __future__ import annotations

from volprep.skeletons.bake import bake_skeleton
from volprep.skeletons.files import find_skeleton_file, read_skeletons, write_skeletons, write_swc
from volprep.skeletons.labels import present_ids
from volprep.skeletons.make import skeletonize
from volprep.skeletons.paint import skeleton_to_mask
from volprep.skeletons.points import Skeletons
from volprep.skeletons.targets import SkeletonTargets

__all__ = [
    "SkeletonTargets",
    "Skeletons",
    "bake_skeleton",
    "find_skeleton_file",
    "present_ids",
    "read_skeletons",
    "skeleton_to_mask",
    "skeletonize",
    "write_skeletons",
    "write_swc",
]
