"""Where the voxels of a TIFF file lie, and what its headers call them.

The common kinds (plain, tifffile's own, ImageJ, OME in one file; pages alike, no
pyramid) are read from the directories directly; everything else as tifffile sees it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.geometry import Spacing3
from volprep.sources.tiffifd import Directories
from volprep.sources.tiffmeta import Resolution, imagej_fields, read_spacing, shaped_fields

__all__ = ["DEFLATE", "NO_PREDICTOR", "PLAIN", "Pages", "read_pages", "spacing_of"]

PLAIN, DEFLATE = 1, (8, 32946)
NO_PREDICTOR = 1
_BOUNDED = (PLAIN, 5, *DEFLATE, 32773)  # none, LZW, deflate, PackBits
_MOST = 1500  # times that these can shrink a block
_QUICK_CODINGS = (PLAIN, 5, *DEFLATE, 32773, 34925, 50000)
_KINDS = {1: "u", 2: "i", 3: "f"}

# Tags that change nothing about how pages are read, and those that must be alike on all.
_HARMLESS = frozenset(
    {269, 270, 271, 272, 274, 280, 281, 282, 283, 285, 296, 305, 306, 315, 316, 320, 700, 33432,
     34675, 50838, 50839}
)  # fmt: skip
_GEOMETRY = frozenset({254, 256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339})
_BLOCKS = frozenset({273, 279, 324, 325})


@dataclass(frozen=True)
class Pages:
    """Pages of one shape and coding, in the order of the leading axes of a stored array.

    Attributes
    ----------
    axes, shape, dtype
        Of the stored array, in the byte order of the file.
    page : tuple of int
        Shape of one page: the last axes of `shape`.
    block : tuple of int
        Shape of one strip or tile, with the axes of a page.
    offsets, counts : ndarray, int64, shape (pages, blocks)
        Where each strip or tile lies in its file; a count of 0 is a block of zeros.
    files : tuple of Path
        All files of the series; most have one.
    file_of : ndarray or None
        For each page the index of its file; None where there is one.
    keyframe : int
        Index of a page that all others are coded like.
    compression, predictor : int
        As in the TIFF tags.
    tiled, interleaved : bool
        Whether blocks are tiles, and samples the last axis of a page.
    regular : bool
        Whether a decompressed block is its voxels, in the byte order of the file.
    description, resolution, spacing, notes
        What is said of the voxel size, and what was doubtful.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    page: tuple[int, ...]
    block: tuple[int, ...]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    files: tuple[Path, ...]
    file_of: npt.NDArray[np.int64] | None
    keyframe: int
    compression: int
    predictor: int
    tiled: bool
    interleaved: bool
    regular: bool
    description: str
    resolution: Resolution | None
    spacing: Spacing3 | None
    notes: tuple[str, ...]

    @property
    def page_bytes(self) -> int:
        """Of one decoded page."""
        return math.prod(self.page) * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks a page has along each of its axes."""
        return tuple(-(-n // b) for n, b in zip(self.page, self.block, strict=True))

    @property
    def mappable(self) -> bool:
        """Whether each page lies in its file as it is, in one piece."""
        if not self.regular or (self.compression, self.predictor) != (PLAIN, NO_PREDICTOR):
            return False
        if self.tiled and self.block[-1 - self.interleaved] != self.page[-1 - self.interleaved]:
            return False
        joined = self.offsets[:, :-1] + self.counts[:, :-1] == self.offsets[:, 1:]
        return bool(joined.all() and (self.counts.sum(axis=1) == self.page_bytes).all())

    @property
    def consecutive(self) -> bool:
        """Whether all pages lie in one file, one right after the other."""
        steps = np.diff(self.offsets[:, 0])
        return len(self.files) == 1 and bool((steps == self.page_bytes).all())


def read_pages(path: Path) -> Pages:
    """Read and check the headers of a TIFF file: the first image series in it.

    Raises
    ------
    SourceError
        If pages are missing, differ, or lie beyond the end of the file.
    """
    with path.open("rb") as file:
        pages = _read(path, Directories(path, file.fileno()))
    _check_bytes(path, pages)
    return pages


def _read(path: Path, directories: Directories) -> Pages:
    if len(directories) > 1 or directories.first(259) not in ((), (PLAIN,)):
        samples = max(directories.first(277), default=1)
        _check_planes(path, directories.text(270), len(directories) * samples)
    return _quick(path, directories) or _by_tifffile(path)


def spacing_of(pages: Pages, *, flat: bool) -> tuple[Spacing3 | None, tuple[str, ...]]:
    """What the headers say of the voxel size, and what is doubtful about it."""
    if pages.spacing is not None:
        return pages.spacing, ()
    return read_spacing(pages.description, pages.resolution, flat=flat)


def _check_bytes(path: Path, pages: Pages) -> None:
    """Refuse blocks that lie beyond their file, or could not hold what the header promises."""
    sizes = np.array([file.stat().st_size for file in pages.files], np.int64)
    size = sizes[0] if pages.file_of is None else sizes[pages.file_of][:, None]
    beyond = (pages.offsets + pages.counts > size) & (pages.counts > 0)
    if beyond.any() or (pages.offsets < 0).any() or (pages.counts < 0).any():
        page = int(np.argmax(beyond.any(axis=1)))
        raise SourceError(
            path,
            f"is cut short: page {page} of {len(pages.offsets)} lies beyond its end",
            "copy or save it again",
        )
    held = pages.counts.sum(axis=1)
    wanted = pages.page_bytes if pages.regular else 0
    if pages.compression in _BOUNDED and ((held > 0) & (held < wanted // _MOST)).any():
        raise SourceError(
            path,
            f"a page of {wanted} bytes cannot come from the {int(held.min())} bytes stored",
            "its header or its data are damaged; save it again",
        )


def _quick(path: Path, found: Directories) -> Pages | None:
    """Headers of the common kinds; None for all others."""
    if found.repeats() or not found.tags <= _HARMLESS | _GEOMETRY | _BLOCKS:
        return None
    tiled = 324 in found.tags
    if {273, 279} & found.tags and tiled:
        return None
    one = {tag: values[0] for tag in _GEOMETRY if (values := found.first(tag))}
    dtype = _dtype(found)
    samples = int(one.get(277, 1))
    coding, predictor = int(one.get(259, PLAIN)), int(one.get(317, NO_PREDICTOR))
    if (
        dtype is None
        or coding not in _QUICK_CODINGS
        or predictor not in (1, 2, 3)
        or one.get(262, 1) not in (0, 1, 2, 3)
        or one.get(266, 1) != 1
        or one.get(254, 0) != 0
        or (samples > 1 and one.get(284, 1) != 1)
        or not found.same(_GEOMETRY)
    ):
        return None
    height, width = int(one.get(257, 0)), int(one.get(256, 0))
    rows, columns = (one.get(323, 0), one.get(322, 0)) if tiled else (one.get(278, height), width)
    if min(height, width, rows, columns) < 1:
        return None
    last = (samples,) if samples > 1 else ()
    page = (height, width, *last)
    block = (int(rows if tiled else min(rows, height)), int(columns), *last)
    offsets, counts = found.table(324 if tiled else 273), found.table(325 if tiled else 279)
    blocks = math.prod(-(-n // b) for n, b in zip(page, block, strict=True))
    if offsets is None or counts is None or offsets.shape != counts.shape:
        return None
    if offsets.shape[1] != blocks:
        return None
    description = found.text(270)
    named = _named(description, page, len(found))
    if named is None:
        return None
    axes, shape = named
    number = math.prod(shape[: len(shape) - len(page)])
    if number > len(found):
        size = math.prod(page) * dtype.itemsize
        whole = counts.sum() == size and (offsets[0, :-1] + counts[0, :-1] == offsets[0, 1:]).all()
        if len(found) > 1 or (coding, predictor) != (PLAIN, NO_PREDICTOR) or not whole:
            return None
        offsets = offsets[:, :1] + size * np.arange(number, dtype=np.int64)[:, None]
        counts, block = np.full_like(offsets, size), page
    return Pages(
        axes=axes,
        shape=shape,
        dtype=dtype,
        page=page,
        block=block,
        offsets=offsets,
        counts=counts,
        files=(path,),
        file_of=None,
        keyframe=0,
        compression=coding,
        predictor=predictor,
        tiled=tiled,
        interleaved=samples > 1,
        regular=True,
        description=description,
        resolution=_resolution(
            found.first(282), found.first(283), int((found.first(296) or (2,))[0])
        ),
        spacing=None,
        notes=(),
    )


def _dtype(found: Directories) -> np.dtype[Any] | None:
    """The type of a voxel; None where samples differ or are no whole bytes."""
    bits, kinds = set(found.first(258)), set(found.first(339) or (1,))
    if len(bits) != 1 or len(kinds) != 1 or not bits <= {8, 16, 32, 64}:
        return None
    kind, size = _KINDS.get(kinds.pop()), bits.pop() // 8
    if kind is None or (kind, size) == ("f", 1):
        return None
    return np.dtype(f"{found.order}{kind}{size}")


def _named(
    description: str, page: tuple[int, ...], count: int
) -> tuple[str, tuple[int, ...]] | None:
    """Axes and shape of the stored array as the description tells; None where it is unclear."""
    own = "YXS"[: len(page)]
    if not description:
        return ("I" + own, (count, *page)) if count > 1 else (own, page)
    if (shaped := shaped_fields(description)) is not None:
        leading = _shaped_axes(shaped, page, own, count)
    elif (fields := imagej_fields(description)) is not None:
        leading = _imagej_axes(fields, page, count)
    elif "<OME" in description:
        leading = _ome_axes(description, page, count)
    else:
        return None
    if leading is None:
        return None
    kept = [(a, n) for a, n in leading if n > 1 or (a == "Z" and shaped is not None)]
    return "".join(a for a, _ in kept) + own, (*(n for _, n in kept), *page)


Leading = list[tuple[str, int]]


def _shaped_axes(
    fields: dict[str, Any], page: tuple[int, ...], own: str, count: int
) -> Leading | None:
    shape = fields.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        return None
    lead = len(shape) - len(page)
    axes = fields.get("axes", "Q" * lead + own)
    if lead < 0 or tuple(shape[lead:]) != page or not isinstance(axes, str):
        return None
    number = math.prod(shape[:lead])
    if len(axes) != len(shape) or axes[lead:] != own or count not in (1, number):
        return None
    return list(zip(axes[:lead], shape[:lead], strict=True))


def _imagej_axes(fields: dict[str, str], page: tuple[int, ...], count: int) -> Leading | None:
    try:
        sizes = [int(fields.get(name, 1)) for name in ("frames", "slices", "channels")]
    except ValueError:
        return None
    number = math.prod(sizes)
    plain = fields.get("order", "czt").lower() in ("czt", "default") and len(page) == 2
    if not plain or min(sizes) < 1 or count not in (1, number) or (number == 1 and count > 1):
        return None
    if number == 1 and int(fields.get("images", "1") or 1) > 1:
        return None
    return list(zip("TZC", sizes, strict=True))


_OME_IMAGE = re.compile(r"<(?:\w+:)?(Image|Pixels|TiffData|UUID|Channel|ModuloAlong\w)\b([^>]*)>")
_UUID = re.compile(r"<(?:\w+:)?UUID\b[^>]*>\s*([^<\s]*)")
_ATTRIBUTE = re.compile(r"""(\w+)\s*=\s*["']([^"']*)["']""")


def _ome_axes(description: str, page: tuple[int, ...], count: int) -> Leading | None:
    """One image in one file, its planes in the order of its dimensions."""
    elements = [(m[1], dict(_ATTRIBUTE.findall(m[2]))) for m in _OME_IMAGE.finditer(description)]
    names = [name for name, _ in elements]
    if names.count("Image") != 1 or names.count("Pixels") != 1 or len(page) != 2:
        return None
    own = re.search(r"""<(?:\w+:)?OME\b[^>]*\bUUID\s*=\s*["']([^"']*)""", description)
    if any(uuid != (own and own[1]) for uuid in _UUID.findall(description)):
        return None
    pixels = next(found for name, found in elements if name == "Pixels")
    samples = {f.get("SamplesPerPixel", "1") for name, f in elements if name == "Channel"}
    if any(name.startswith("Modulo") for name in names) or not samples <= {"1"}:
        return None
    try:
        order = pixels["DimensionOrder"][:1:-1]
        leading = [(axis, int(pixels[f"Size{axis}"])) for axis in order]
        planes = [f for name, f in elements if name == "TiffData"]
        fits = (int(pixels["SizeY"]), int(pixels["SizeX"])) == page
    except (KeyError, ValueError):
        return None
    if not fits or math.prod(n for _, n in leading) != count or sorted(order) != ["C", "T", "Z"]:
        return None
    return leading if _in_order(planes, leading, count) else None


def _in_order(planes: Sequence[dict[str, str]], leading: Leading, count: int) -> bool:
    """Whether every page is the plane of its own number."""
    covered = 0
    for plane in planes:
        try:
            page = int(plane.get("IFD", 0))
            told = int(plane.get("PlaneCount", 1 if "IFD" in plane else count))
            first = [int(plane.get(f"First{axis}", 0)) for axis, _ in leading]
        except ValueError:
            return False
        number = 0
        for i, (_, size) in zip(first, leading, strict=True):
            number = number * size + i
        if number != page or page != covered:
            return False
        covered += told
    return covered == count


def _resolution(x: Sequence[int], y: Sequence[int], unit: int) -> Resolution | None:
    if len(x) != 2 or len(y) != 2:
        return None
    return Resolution(x[0] / (x[1] or 1), y[0] / (y[1] or 1), unit)


def _by_tifffile(path: Path) -> Pages:
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
        _check_planes(path, file.pages[0].description, there)
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


def _check_planes(path: Path, description: str, there: int) -> None:
    """Refuse an ImageJ file that holds fewer planes than it says (tifffile reads what is left)."""
    fields = imagej_fields(description) or {}
    told = math.prod(
        int(fields[name])
        for name in ("channels", "slices", "frames")
        if fields.get(name, "").isdecimal()
    )
    if told > there:
        raise SourceError(
            path, f"is cut short: {there} of {told} planes are there", "copy or save it again"
        )


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


def _doubts(file: Any, series: Any) -> tuple[str, ...]:
    notes = []
    if len(file.series) > 1:
        notes.append(f"holds {len(file.series)} images: the first is read")
    if file.is_ome and series.kind != "ome":
        notes.append("its OME metadata do not fit its pages: pages are read in their order")
    return tuple(notes)
