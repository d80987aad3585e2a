"""Torch datasets over patch sets and over folders. The only room that needs torch to be loaded."""

from volprep.loader.batches import PatchLoader
from volprep.loader.devices import torch_devices
from volprep.loader.network import MeasuredStep, PlannedUNet, measure_step
from volprep.loader.patches import PatchDataset, dataloader
from volprep.loader.skeletons import MultiDataset, SkeletonDataset, collate_skeletons
from volprep.loader.tiles import TileDataset
from volprep.loader.timing import LoaderSpeed, measure_loader, measure_stages
from volprep.loader.volumes import VolumeDataset

__all__ = [
    "LoaderSpeed",
    "MeasuredStep",
    "MultiDataset",
    "PatchDataset",
    "PatchLoader",
    "PlannedUNet",
    "SkeletonDataset",
    "TileDataset",
    "VolumeDataset",
    "collate_skeletons",
    "dataloader",
    "measure_loader",
    "measure_stages",
    "measure_step",
    "torch_devices",
]
