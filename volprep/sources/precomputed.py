"""Neuroglancer precomputed volumes, raw and compressed, on a disk and in stores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.sources.axes import Layout
from volprep.sources.base import Volume, reading
from volprep.sources.cloud import StoreVolume
from volprep.sources.placement import Placement
from volprep.sources.zarrarray import read_json

__all__ = ["datasets", "open_source"]


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open a scale of a precomputed volume, the finest where no key is given.

    The key is a scale's own (``8_8_40``), or its number (``0`` is the finest). Spacing is the
    scale's resolution; its voxel offset is where the volume lies.
    """
    with reading(path, "precomputed volume"):
        info = _info(path)
        number = _number(path, info["scales"], key)
        scale = info["scales"][number]
        channels = int(info["num_channels"])
        size = [int(n) for n in scale["size"][::-1]]
        layout = Layout.of(path, axes or "CZYX", (channels, *size))
        z, y, x = (float(n) / 1000 for n in scale["resolution"][::-1])
        offset = [int(n) for n in scale.get("voxel_offset", (0, 0, 0))[::-1]]
        origin = (offset[0] * z, offset[1] * y, offset[2] * x)
        block = (channels, *(int(n) for n in scale["chunk_sizes"][0][::-1]))
        fits = layout.axes == "CZYX"
        notes = () if fits else (Note("spacing-unread", "the axes are not the file's own"),)
        volume = StoreVolume(
            path,
            layout,
            np.dtype(info["data_type"]),
            place=path,
            driver="neuroglancer_precomputed",
            reversed_axes=True,
            options={"scale_index": number},
            key=None if key is None else str(scale["key"]),
            spacing=(z, y, x) if fits else None,
            placement=Placement.upright((z, y, x), origin, said_by="voxel_offset")
            if fits
            else None,
            chunks=layout.spatial(block),
            notes=notes,
        )
        volume.check_claim()
        return volume


def datasets(path: Path) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """The finest scale."""
    with reading(path, "precomputed volume"):
        info = _info(path)
        scale = info["scales"][0]
        size = [int(n) for n in scale["size"][::-1]]
        shape = (int(info["num_channels"]), *size)
        return [(str(scale["key"]), shape, np.dtype(info["data_type"]))]


def _info(path: Path) -> Mapping[str, Any]:
    info = read_json(path / "info")
    if info is None:
        raise SourceError(path, "has no info", "give the folder of a precomputed volume")
    scales = info.get("scales")
    if not isinstance(scales, list) or not scales:
        raise SourceError(
            path,
            "is a precomputed source without scales"
            + (f" ({info['@type']})" if "@type" in info else ""),
            "give one of an image or a segmentation",
        )
    return info


def _number(path: Path, scales: Sequence[Mapping[str, Any]], key: str | None) -> int:
    """The scale that a key means."""
    if key is None:
        return min(range(len(scales)), key=lambda n: math.prod(scales[n]["resolution"]))
    names = [str(scale["key"]) for scale in scales]
    name = key.strip("/")
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(scales):
        return int(name)
    raise SourceError(path, f"has no scale {key!r}", f"give one of {', '.join(names)}")
