"""Leica LIF files, over bioio-lif."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import MissingDependencyError
from volprep.sources.base import Volume
from volprep.sources.scenes import datasets_of, open_scene

__all__ = ["datasets", "open_source"]


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open an image of a LIF file."""
    return open_scene(path, key, axes, opener=_opened, what="LIF file")


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The images."""
    return datasets_of(path, _opened)


def _opened(path: Path) -> Any:
    try:
        from bioio_lif import Reader
    except ImportError as error:
        raise MissingDependencyError("bioio-lif", "bio") from error
    return Reader(path, chunk_dims=["Y", "X"])
