"""Torch datasets over patch sets and over folders. The only room that needs torch to be loaded."""

from volprep.loader.patches import PatchDataset, dataloader

__all__ = ["PatchDataset", "dataloader"]
