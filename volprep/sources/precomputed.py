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
from volprep.sources.metadata import member, number_type, read_json, sizes_of, unusable
from volprep.sources.multiscales import clean_key
from volprep.sources.placement import Placement

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
        clean_key(path, str(member(path, scale, "key")))
        channels, size = _shape(path, info, scale)
        layout = Layout.of(path, axes or "CZYX", (channels, *size))
        chunks = member(path, scale, "chunk_sizes")
        if not isinstance(chunks, list) or not chunks:
            raise unusable(path, "chunk_sizes", chunks, "give a list of sizes")
        block = (channels, *sizes_of(path, "chunk_sizes", chunks[0], least=1)[::-1])
        told = _lengths(path, scale, "resolution", "give the size of a voxel in nm")
        z, y, x = (n / 1000 for n in told[::-1])
        offset = _lengths(path, {"voxel_offset": [0, 0, 0], **scale}, "voxel_offset", "give voxels")
        origin = (offset[2] * z, offset[1] * y, offset[0] * x)
        fits = layout.axes == "CZYX"
        notes = () if fits else (Note("spacing-unread", "the axes are not the file's own"),)
        if min(z, y, x) <= 0:
            listed = ", ".join(f"{n:g}" for n in told)
            fits, notes = False, (Note("spacing-unread", f"resolution ({listed} nm) is no length"),)
        volume = StoreVolume(
            path,
            layout,
            number_type(path, member(path, info, "data_type")),
            place=path,
            driver="neuroglancer_precomputed",
            reversed_axes=True,
            options={"scale_index": number},
            key=None if key is None else str(member(path, scale, "key")),
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
        channels, size = _shape(path, info, scale)
        shape = (channels, *size)
        return [
            (
                str(member(path, scale, "key")),
                shape,
                number_type(path, member(path, info, "data_type")),
            )
        ]


def _info(path: Path) -> Mapping[str, Any]:
    info = read_json(path / "info")
    if info is None:
        raise SourceError(path, "has no info", "give the folder of a precomputed volume")
    scales = info.get("scales")
    if not isinstance(scales, list) or not scales or not all(isinstance(s, dict) for s in scales):
        raise SourceError(
            path,
            "is a precomputed source without scales"
            + (f" ({info['@type']})" if "@type" in info else ""),
            "give one of an image or a segmentation",
        )
    return info


def _shape(
    path: Path, info: Mapping[str, Any], scale: Mapping[str, Any]
) -> tuple[int, tuple[int, ...]]:
    """Channels, and sizes along z, y and x."""
    (channels,) = sizes_of(path, "num_channels", [member(path, info, "num_channels")], least=1)
    size = sizes_of(path, "size", member(path, scale, "size"))
    if len(size) != 3:
        raise unusable(path, "size", scale["size"], "give sizes along x, y and z")
    return channels, size[::-1]


def _lengths(path: Path, scale: Mapping[str, Any], key: str, wanted: str) -> list[float]:
    values = member(path, scale, key)
    if not isinstance(values, list) or len(values) != 3:
        raise unusable(path, key, values, wanted)
    numbers = [float(n) if isinstance(n, int | float) else math.nan for n in values]
    if not all(map(math.isfinite, numbers)):
        raise unusable(path, key, values, wanted)
    return numbers


def _number(path: Path, scales: Sequence[Mapping[str, Any]], key: str | None) -> int:
    """The scale that a key means."""
    if key is None:
        sizes = [_lengths(path, each, "resolution", "give the size of a voxel") for each in scales]
        return min(range(len(scales)), key=lambda n: math.prod(sizes[n]))
    names = [str(member(path, scale, "key")) for scale in scales]
    name = key.strip("/")
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(scales):
        return int(name)
    raise SourceError(path, f"has no scale {key!r}", f"give one of {', '.join(names)}")
