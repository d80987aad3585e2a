"""volprep: from raw microscopy volumes to training data.

Names are loaded when they are first used, so that importing volprep costs nothing.
"""

from __future__ import annotations

from importlib import import_module

from volprep.version import __version__

TYPE_CHECKING = False  # which tools take for true: `typing` itself would be half of the import
if TYPE_CHECKING:
    from typing import Any

    from volprep.autoconfig import Plan, make_plan
    from volprep.cases import Case, Cases, find_cases
    from volprep.config import Config, TrainingConfig, load_config, load_training_config
    from volprep.errors import (
        ConfigError,
        DataCheckError,
        MissingDependencyError,
        OutOfMemoryError,
        PlanError,
        SourceError,
        StoreError,
        VolprepError,
    )
    from volprep.fingerprint import Fingerprint, compute_fingerprint
    from volprep.geometry import Box
    from volprep.loader import (
        MultiDataset,
        PatchDataset,
        PatchLoader,
        SkeletonDataset,
        TileDataset,
        VolumeDataset,
        dataloader,
    )
    from volprep.pipeline.prepare import prepare
    from volprep.sources import Volume, open_labels, open_volume, sliced
    from volprep.store import PatchStore

_HOMES = {
    "volprep.config": ["Config", "TrainingConfig", "load_config", "load_training_config"],
    "volprep.sources": ["Volume", "open_labels", "open_volume", "sliced"],
    "volprep.geometry": ["Box"],
    "volprep.cases": ["Case", "Cases", "find_cases"],
    "volprep.fingerprint": ["Fingerprint", "compute_fingerprint"],
    "volprep.autoconfig": ["Plan", "make_plan"],
    "volprep.store": ["PatchStore"],
    "volprep.pipeline": ["prepare"],
    "volprep.loader": [
        "MultiDataset",
        "PatchDataset",
        "PatchLoader",
        "SkeletonDataset",
        "TileDataset",
        "VolumeDataset",
        "dataloader",
    ],
    "volprep.errors": [
        "ConfigError",
        "DataCheckError",
        "MissingDependencyError",
        "OutOfMemoryError",
        "PlanError",
        "SourceError",
        "StoreError",
        "VolprepError",
    ],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Box",
    "Case",
    "Cases",
    "Config",
    "ConfigError",
    "DataCheckError",
    "Fingerprint",
    "MissingDependencyError",
    "MultiDataset",
    "OutOfMemoryError",
    "PatchDataset",
    "PatchLoader",
    "PatchStore",
    "Plan",
    "PlanError",
    "SkeletonDataset",
    "SourceError",
    "StoreError",
    "TileDataset",
    "TrainingConfig",
    "VolprepError",
    "Volume",
    "VolumeDataset",
    "__version__",
    "compute_fingerprint",
    "dataloader",
    "find_cases",
    "load_config",
    "load_training_config",
    "make_plan",
    "open_labels",
    "open_volume",
    "prepare",
    "sliced",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'volprep' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
