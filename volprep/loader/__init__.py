"""Torch datasets over patch sets and over folders. The only room that needs torch to be loaded."""

from volprep.loader.batches import PatchLoader
from volprep.loader.patches import PatchDataset, dataloader
from volprep.loader.skeletons import MultiDataset, SkeletonDataset, collate_skeletons

__all__ = [
    "MultiDataset",
    "PatchDataset",
    "PatchLoader",
    "SkeletonDataset",
    "collate_skeletons",
    "dataloader",
]
