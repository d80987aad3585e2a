"""The headers of the common kinds of TIFF file, read from its directories directly."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.sources.tiff.directories import Directories
from volprep.sources.tiff.pages import DEFLATE, NO_PREDICTOR, PLAIN, Pages
from volprep.sources.tiff.voxelsize import Resolution, imagej_fields, shaped_fields

__all__ = ["direct_pages"]

_CODINGS = (PLAIN, 5, *DEFLATE, 32773, 34925, 50000)
_KINDS = {1: "u", 2: "i", 3: "f"}

# Tags that change nothing about how pages are read, and those that must be alike on all.
_HARMLESS = frozenset(
    {269, 270, 271, 272, 274, 280, 281, 282, 283, 285, 296, 305, 306, 315, 316, 320, 700, 33432,
     34675, 50838, 50839}
)  # fmt: skip
_GEOMETRY = frozenset({254, 256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339})
_BLOCKS = frozenset({273, 279, 324, 325})

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Geometry:
    """What all pages have in common."""

    dtype: np.dtype[Any]
    page: tuple[int, ...]
    block: tuple[int, ...]
    coding: int
    predictor: int
    tiled: bool

    @property
    def blocks(self) -> int:
        """How many blocks a page has."""
        return math.prod(-(-n // b) for n, b in zip(self.page, self.block, strict=True))

    @property
    def page_bytes(self) -> int:
        """Of one decoded page."""
        return math.prod(self.page) * self.dtype.itemsize


def direct_pages(path: Path, found: Directories) -> Pages | None:
    """The pages of a file whose directories say all; None for every other file."""
    shared = _geometry(found)
    if shared is None:
        return None
    description = found.text(270)
    named = _named(description, shared.page, len(found))
    if named is None:
        return None
    axes, shape = named
    number = math.prod(shape[: len(shape) - len(shared.page)])
    table = _table(found, shared, number)
    if table is None:
        return None
    offsets, counts = table
    unit = (found.first(296) or (2,))[0]
    return Pages(
        axes=axes,
        shape=shape,
        dtype=shared.dtype,
        page=shared.page,
        block=shared.block if counts.shape[1] == shared.blocks else shared.page,
        offsets=offsets,
        counts=counts,
        files=(path,),
        file_of=None,
        keyframe=0,
        compression=shared.coding,
        predictor=shared.predictor,
        tiled=shared.tiled,
        interleaved=len(shared.page) == 3,
        regular=True,
        description=description,
        resolution=_resolution(found.first(282), found.first(283), int(unit)),
        spacing=None,
        notes=(),
    )


def _geometry(found: Directories) -> _Geometry | None:
    """Size and coding of the pages, where they are alike and of a common kind."""
    tiled = 324 in found.tags
    if found.repeats() or not found.tags <= _HARMLESS | _GEOMETRY | _BLOCKS:
        return None
    one = {tag: int(values[0]) for tag in _GEOMETRY if (values := found.first(tag))}
    dtype, samples = _dtype(found), one.get(277, 1)
    coding, predictor = one.get(259, PLAIN), one.get(317, NO_PREDICTOR)
    common = (
        coding in _CODINGS
        and predictor in (1, 2, 3)
        and one.get(262, 1) in (1, 2, 3)  # grey, colour, palette; where 0 is white it is told
        and one.get(266, 1) == 1  # bits from the highest down
        and one.get(254, 0) == 0  # no thumbnail, no mask
        and (samples == 1 or one.get(284, 1) == 1)  # samples side by side
        and not (tiled and {273, 279} & found.tags)
    )
    if dtype is None or not common or not found.same(_GEOMETRY):
        return None
    height, width = one.get(257, 0), one.get(256, 0)
    rows, columns = (one.get(323, 0), one.get(322, 0)) if tiled else (one.get(278, height), width)
    if min(height, width, rows, columns, samples) < 1:
        return None
    last = (samples,) if samples > 1 else ()
    block = (rows if tiled else min(rows, height), columns, *last)
    return _Geometry(dtype, (height, width, *last), block, coding, predictor, tiled)


def _table(found: Directories, shared: _Geometry, number: int) -> tuple[Integers, Integers] | None:
    """Offset and size of every block; of pages without directories, behind the first page."""
    offsets = found.table(324 if shared.tiled else 273)
    counts = found.table(325 if shared.tiled else 279)
    if offsets is None or counts is None or offsets.shape != counts.shape:
        return None
    if offsets.shape[1] != shared.blocks:
        return None
    if number == len(found):
        return offsets, counts
    size = shared.page_bytes
    joined = offsets[0, :-1] + counts[0, :-1] == offsets[0, 1:]
    plain = (shared.coding, shared.predictor) == (PLAIN, NO_PREDICTOR)
    if len(found) > 1 or not plain or not joined.all() or counts.sum() != size:
        return None
    starts = offsets[:, :1] + size * np.arange(number, dtype=np.int64)[:, None]
    return starts, np.full_like(starts, size)


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
