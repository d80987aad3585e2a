"""The headers of any TIFF file that tifffile makes sense of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources.tiff.pages import Pages, check_planes
from volprep.sources.tiff.voxelsize import Resolution

__all__ = ["pages_by_tifffile"]


def pages_by_tifffile(path: Path) -> Pages:
    """Headers of any TIFF file that tifffile makes sense of."""
    from tifffile import TiffFile

    with TiffFile(path) as file:
        series = file.series[0]
        keyframe = series.keyframe
        if series.dtype is None:
            raise SourceError(path, "holds voxels of an unknown type", "save integers or floats")
        dtype = np.dtype(file.byteorder + series.dtype.char)
        page = tuple(keyframe.shape)
        shape, axes = _without_ones(series.shape, series.axes, keep=len(page))
        if shape[len(shape) - len(page) :] != page:
            raise SourceError(path, f"pages of {page} do not make {shape}", "save it again")
        there = math.prod(shape) // math.prod(file.pages[0].shape[:2])
        check_planes(path, file.pages[0].description, there)
        files: tuple[Path, ...] = (path,)
        file_of = None
        start = series.dataoffset
        if start is not None:
            size = math.prod(page) * dtype.itemsize
            count = math.prod(shape[: len(shape) - len(page)])
            offsets = (start + size * np.arange(count, dtype=np.int64))[:, None]
            counts, block = np.full_like(offsets, size), page
        else:
            frames = _frames(path, series, keyframe)
            offsets = np.array([frame.dataoffsets for frame in frames], np.int64)
            counts = np.array([frame.databytecounts for frame in frames], np.int64)
            files, file_of = _files(path, frames)
            block = (*(1,) * (len(keyframe.chunked) - len(keyframe.chunks)), *keyframe.chunks)
        return Pages(
            axes=axes,
            shape=shape,
            dtype=dtype,
            page=page,
            block=block,
            offsets=offsets,
            counts=counts,
            files=files,
            file_of=file_of,
            keyframe=keyframe.index,
            compression=int(keyframe.compression),
            predictor=int(keyframe.predictor),
            tiled=keyframe.is_tiled,
            interleaved=keyframe.planarconfig == 1 and keyframe.samplesperpixel > 1,
            regular=_regular(keyframe),
            description=file.ome_metadata or keyframe.description or file.pages[0].description,
            resolution=_tags_resolution(keyframe),
            spacing=_lsm_spacing(file),
            notes=_doubts(file, series),
        )


def _without_ones(shape: Sequence[int], axes: str, keep: int) -> tuple[tuple[int, ...], str]:
    """Shape and axes without leading axes of length 1, but for Z and those of a page."""
    first = len(shape) - keep
    kept = [i for i, a in enumerate(axes) if i >= first or shape[i] > 1 or a == "Z"]
    return tuple(int(shape[i]) for i in kept), "".join(axes[i] for i in kept)


def _frames(path: Path, series: Any, keyframe: Any) -> list[Any]:
    """The pages of a series; refused where some are missing or coded otherwise."""
    frames = list(series)
    missing = [i for i, frame in enumerate(frames) if frame is None]
    if missing:
        raise SourceError(
            path,
            f"{len(missing)} of {len(frames)} pages are missing, the first is page {missing[0]}",
            "give the file whole, with the files beside it that it names",
        )
    if any(frame.keyframe.hash != keyframe.hash for frame in frames):
        raise SourceError(path, "its pages differ in size or coding", "save them as one stack")
    return frames


def _files(path: Path, frames: Sequence[Any]) -> tuple[tuple[Path, ...], Any]:
    """The files that the pages lie in, and for each page which one."""
    names = [frame.parent.filehandle.path for frame in frames]
    if len(set(names)) == 1 and Path(names[0]) == path.absolute():
        return (path,), None
    unique = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return tuple(map(Path, unique)), np.array([unique[name] for name in names], np.int64)


def _regular(keyframe: Any) -> bool:
    """Whether a decompressed block is its voxels, in the byte order of the file."""
    return (
        keyframe.bitspersample in (8, 16, 32, 64)
        and keyframe.sampleformat in (1, 2, 3)
        and keyframe.fillorder == 1
        and not keyframe.is_subsampled
    )


def _tags_resolution(keyframe: Any) -> Resolution | None:
    if 282 not in keyframe.tags or 283 not in keyframe.tags:
        return None
    x, y = keyframe.resolution
    return Resolution(float(x), float(y), int(keyframe.resolutionunit))


def _lsm_spacing(file: Any) -> Spacing3 | None:
    """Zeiss LSM files give metres."""
    if not file.is_lsm:
        return None
    fields = file.lsm_metadata or {}
    z, y, x = (1e6 * float(fields.get(f"VoxelSize{a}", 0)) for a in "ZYX")
    return (z, y, x) if min(z, y, x) > 0 else None


def _doubts(file: Any, series: Any) -> tuple[Note, ...]:
    notes = []
    if len(file.series) > 1:
        notes.append(Note("images-left-out", f"holds {len(file.series)} images: the first is read"))
    if file.is_ome and series.kind != "ome":
        unfit = "its OME metadata do not fit its pages: pages are read in their order"
        notes.append(Note("ome-unfit", unfit))
    return tuple(notes)
