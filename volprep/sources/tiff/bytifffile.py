"""The headers of any TIFF file that tifffile makes sense of."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources.external import may_follow, refuse_foreign
from volprep.sources.tiff.pages import Pages, check_planes
from volprep.sources.tiff.voxelsize import Resolution

__all__ = ["named_files", "pages_by_tifffile"]

_JPEGS = (6, 7, 34892, 33007)  # which decode such colours themselves
_MASK = 4  # of tag 254: the page is a mask for another
_BINARY_ONLY = re.compile(r"""<(?:\w+:)?BinaryOnly\b[^>]*\bMetadataFile\s*=\s*["']([^"']*)""")
_FILE_NAME = re.compile(r"""\bFileName\s*=\s*["']([^"']*)""")


#: Kinds of series that tifffile finds by the pages' likeness, not by a vendor's metadata.
_BY_LIKENESS = ("generic", "uniform", "shaped", "imagej")


def pages_by_tifffile(path: Path, allow_external: bool | None = None) -> Pages:
    """Headers of any TIFF file that tifffile makes sense of."""
    from tifffile import TiffFile

    with TiffFile(path) as file:
        series, notes = _main_series(path, file)
        first = series[0]
        keyframe = first.keyframe
        if first.dtype is None:
            raise SourceError(path, "holds voxels of an unknown type", "save integers or floats")
        _check_coding(path, keyframe)
        dtype = np.dtype(file.byteorder + first.dtype.char)
        page = tuple(keyframe.shape)
        shape, axes = _without_ones(first.shape, first.axes, keep=len(page))
        start = first.dataoffset
        if len(series) > 1:
            shape, axes, start = (len(series), *page), "I" + axes[len(axes) - len(page) :], None
        if shape[len(shape) - len(page) :] != page:
            page = _narrow(path, page, shape, contiguous=start is not None)
        there = math.prod(shape) // math.prod(file.pages[0].shape[:2])
        check_planes(path, file.pages[0].description, there)
        files: tuple[Path, ...] = (path,)
        file_of = None
        if start is not None:
            size = math.prod(page) * dtype.itemsize
            count = math.prod(shape[: len(shape) - len(page)])
            offsets = (start + size * np.arange(count, dtype=np.int64))[:, None]
            counts, block = np.full_like(offsets, size), page
        else:
            frames = _frames(path, [frame for one in series for frame in one], file, keyframe)
            offsets = np.array([frame.dataoffsets for frame in frames], np.int64)
            counts = np.array([frame.databytecounts for frame in frames], np.int64)
            files, file_of = _files(path, frames, allow_external)
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
            description=_description(path, file, keyframe),
            resolution=_tags_resolution(keyframe),
            spacing=_lsm_spacing(file),
            notes=(*notes, *_inverted(keyframe)),
        )


def _inverted(keyframe: Any) -> list[Note]:
    """What is to be said where the header wants 0 to be shown as white."""
    said = keyframe.tags.get(262)
    wanted = said is not None and said.value == 0
    return [Note("white-is-zero", "its header says that 0 is white: read as stored")] * wanted


def _check_coding(path: Path, keyframe: Any) -> None:
    """Refuse what tifffile cannot decode here by its name, before anything is decoded."""
    from tifffile import TIFF

    advice = "save it uncompressed, or with deflate, LZW or Zstandard"
    for what, number, known in (
        ("compression", keyframe.compression, TIFF.DECOMPRESSORS),
        ("predictor", keyframe.predictor, TIFF.UNPREDICTORS),
    ):
        try:
            known[number]
        except (KeyError, ImportError) as error:
            called = f" ({number.name})" if hasattr(number, "name") else ""
            raise SourceError(
                path, f"has TIFF {what} {int(number)}{called}, which is not known here", advice
            ) from error
    if keyframe.is_subsampled and int(keyframe.compression) not in _JPEGS:
        raise SourceError(path, "holds YCbCr colours of a lower resolution", advice)


def _main_series(path: Path, file: Any) -> tuple[list[Any], tuple[Note, ...]]:
    """The series that make the image, and what is left out of the file.

    Several where each page calls itself an image of its own, as a writer leaves it that
    appends page by page.
    """
    first, *others = file.series
    notes = []
    if file.is_ome and first.kind != "ome" and "BinaryOnly" not in (file.ome_metadata or ""):
        unfit = "its OME metadata do not fit its pages: pages are read in their order"
        notes.append(Note("ome-unfit", unfit))
    small = [one for one in others if _is_reduced(one.keyframe, first.keyframe)]
    if small:
        text = f"{len(small)} thumbnails or smaller copies of the image are passed over"
        notes.append(Note("pages-left-out", text))
    rest = [one for one in others if one not in small]
    if not rest:
        return [first], tuple(notes)
    if first.kind in _BY_LIKENESS:
        for one in rest:
            _check_alike(path, first, one)
        if all(len(one.pages) == 1 for one in (first, *rest)):
            text = f"holds {1 + len(rest)} images of one page each: read as one stack"
            return [first, *rest], (*notes, Note("series-joined", text))
    notes.append(Note("images-left-out", f"holds {len(file.series)} images: the first is read"))
    return [first], tuple(notes)


def _is_reduced(page: Any, main: Any) -> bool:
    """Whether a page is a smaller picture of another: it says so, or has its proportions."""
    if page.is_reduced or page.subfiletype & _MASK:
        return True
    (height, width), (tall, wide) = page.shape[:2], main.shape[:2]
    if 2 * height > tall or 2 * width > wide:
        return False
    return bool(abs(height * wide / (width * tall) - 1) <= 0.05 + 1 / min(height, width))


def _check_alike(path: Path, first: Any, other: Any) -> None:
    """Refuse pages of another size or type: one file is one image."""
    one, two = first.keyframe, other.keyframe
    if (one.shape, one.dtype) != (two.shape, two.dtype):
        sizes = [f"{'×'.join(map(str, page.shape))} {page.dtype}" for page in (two, one)]
        raise SourceError(
            path,
            f"page {two.index} is {sizes[0]}, and page {one.index} is {sizes[1]}",
            "save pages of one size and type in each file",
        )


def _description(path: Path, file: Any, keyframe: Any) -> str:
    """What is said of the image: in its first page, or in the file that this one names."""
    description: str = file.ome_metadata or keyframe.description or file.pages[0].description
    named = _BINARY_ONLY.search(description)
    if named is None:
        return description
    companion = path.parent / Path(named[1]).name
    if not companion.is_file():
        raise SourceError(
            path,
            f"keeps its OME metadata in {named[1]}, which is not beside it",
            "bring that file to the same folder, or save the image with its metadata",
        )
    return companion.read_text(encoding="utf-8", errors="replace")


def named_files(path: Path) -> list[Path]:
    """The files beside a TIFF that its OME metadata name: parts of the image, and metadata."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        description = file.pages[0].description
    found = []
    metadata = _BINARY_ONLY.search(description)
    if metadata is not None:
        companion = path.parent / Path(metadata[1]).name
        found.append(companion)
        if companion.is_file():
            description = companion.read_text(encoding="utf-8", errors="replace")
    if "<OME" in description or ":OME" in description:
        found += [path.parent / name for name in _FILE_NAME.findall(description)]
    return found


def _without_ones(shape: Sequence[int], axes: str, keep: int) -> tuple[tuple[int, ...], str]:
    """Shape and axes without axes of length 1 that a page does not have, but for Z."""
    last = len(shape)
    while last > keep and shape[last - 1] == 1 and axes[last - 1] not in "ZYX":
        last -= 1
    first = last - keep
    kept = [i for i, a in enumerate(axes[:last]) if i >= first or shape[i] > 1 or a == "Z"]
    return tuple(int(shape[i]) for i in kept), "".join(axes[i] for i in kept)


def _narrow(
    path: Path, page: tuple[int, ...], shape: tuple[int, ...], *, contiguous: bool
) -> tuple[int, ...]:
    """The page of a stack that is one voxel wide: tifffile writes all of it as one page."""
    if contiguous and shape[-1] == 1 and shape[:-1] == page:
        return shape[-2:]
    raise SourceError(path, f"pages of {page} do not make {shape}", "save it again")


def _frames(path: Path, frames: list[Any], file: Any, keyframe: Any) -> list[Any]:
    """The pages of a series; refused where some are missing or coded otherwise."""
    missing = [i for i, frame in enumerate(frames) if frame is None]
    if missing:
        named = dict.fromkeys(_FILE_NAME.findall(file.ome_metadata or ""))
        absent = [name for name in named if not (path.parent / name).exists()]
        where = f" (not there: {', '.join(absent[:5])})" if absent else ""
        raise SourceError(
            path,
            f"{len(missing)} of {len(frames)} pages are missing, the first is page {missing[0]}"
            + where,
            "give the file whole, with the files beside it that it names",
        )
    for number, frame in enumerate(frames):
        if frame.keyframe.hash != keyframe.hash:
            raise SourceError(
                path,
                f"its pages differ in size or coding: page {number} and the first",
                "save them as one stack",
            )
    return frames


def _files(
    path: Path, frames: Sequence[Any], allow_external: bool | None
) -> tuple[tuple[Path, ...], Any]:
    """The files that the pages lie in, and for each page which one."""
    names = [frame.parent.filehandle.path for frame in frames]
    if len(set(names)) == 1 and Path(names[0]) == path.absolute():
        return (path,), None
    unique = {name: i for i, name in enumerate(dict.fromkeys(names))}
    for name in unique:
        if not may_follow(path, Path(name), allow_external or None):
            refuse_foreign(path, "its OME metadata name", Path(name))
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
