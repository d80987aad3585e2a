"""NIfTI-1 and NIfTI-2: `.nii` mapped, `.nii.gz` streamed."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.geometry import Spacing3
from volprep.sources.array import FileVolume
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume, reading
from volprep.sources.keys import refuse_key
from volprep.sources.placement import Placement, Vector, difference
from volprep.sources.stream import StreamVolume

__all__ = ["open_source"]

_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_RGB = {128: 3, 2304: 4}
_UNREADABLE = {
    1: "one bit for each voxel", 32: "complex64", 1536: "float128", 1792: "complex128",
    2048: "complex256",
}  # fmt: skip
_UNITS = {1: 1e6, 2: 1e3, 3: 1.0}  # metre, millimetre, micrometre to micrometres
_GZIP = b"\x1f\x8b"
_MAX_SANE = 1e5  # µm: a voxel of 10 cm
_MIN_SANE = 1e-5  # µm: a hundredth of an atom


@dataclass(frozen=True)
class _Grid:
    """What the header's qform or sform says: x, y and z of the world for each axis i, j, k."""

    said_by: str
    steps: tuple[Vector, Vector, Vector]
    origin: Vector


@dataclass(frozen=True)
class _Header:
    """What a NIfTI header says, with sizes from the slowest axis (reversed)."""

    sizes: tuple[int, ...]
    zooms: tuple[float, ...]
    dtype: np.dtype[Any]
    samples: int
    offset: int
    slope: float
    inter: float
    units: int
    grids: tuple[_Grid, ...]

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def stored(self) -> tuple[int, ...]:
        return (*self.sizes, self.samples) if self.samples > 1 else self.sizes

    @property
    def nbytes(self) -> int:
        return math.prod(self.stored) * self.dtype.itemsize


class _Nifti(Volume):
    """What the mapped and the streamed volume have in common: the scale of the intensities."""

    _slope = 1.0
    _inter = 0.0
    _scaled = False
    _whole = False

    def _scale_by(self, header: _Header, *, labels: bool) -> None:
        if header.scaled:
            self._slope, self._inter, self._scaled = header.slope, header.inter, True
            if labels and header.dtype.kind in "iu":
                # Ids of 64 bits do not fit floating point: whole numbers are kept as such.
                self._whole = float(header.slope).is_integer() and float(header.inter).is_integer()
            if self._whole:
                self.dtype = np.dtype(np.int64)
                return
            # Ids must come out exact; intensities of 16 bits lose nothing that was measured.
            narrow = header.dtype.itemsize <= 2 or header.dtype == np.float32
            self.dtype = np.dtype(np.float32 if narrow and not labels else np.float64)

    def _native(self, block: Array) -> Array:
        if not self._scaled:
            return super()._native(block)
        if self._whole:
            return self._ids(block)
        if block.dtype.kind in "iu" and block.dtype.itemsize == 8 and self._beyond(block):
            raise SourceError(
                self.name,
                f"holds values beyond 2**53 that its header scales by {self._slope:g}: floating "
                "point cannot tell them apart",
                "set its scl_slope and scl_inter to 0",
            )
        exact = block.astype(np.float64)
        exact *= self._slope
        exact += self._inter
        return exact.astype(self.dtype, copy=False)

    def _ids(self, block: Array) -> Array:
        """Scaled by whole numbers, in whole numbers: exact, or refused."""
        ends = [int(v) * int(self._slope) + int(self._inter) for v in (block.min(), block.max())]
        if not all(-(2**63) <= end < 2**63 for end in ends):
            found = f"holds labels that its header scales to {max(ends, key=abs)}, beyond 2**63 - 1"
            raise SourceError(self.name, found, "set its scl_slope and scl_inter to 0")
        wide = block.astype(np.int64)  # what wraps around comes back: the ends fit
        with np.errstate(over="ignore"):
            wide *= _wrapped(int(self._slope))
            wide += _wrapped(int(self._inter))
        return wide

    def _beyond(self, block: Array) -> bool:
        return max(abs(int(block.min())), abs(int(block.max()))) > 2**53


class NiftiVolume(_Nifti, FileVolume):
    """An uncompressed NIfTI file, mapped into memory."""

    def __init__(
        self, path: Path, layout: Layout, header: _Header, *, labels: bool, **rest: Any
    ) -> None:
        super().__init__(path, layout, header.dtype, offset=header.offset, **rest)
        self._scale_by(header, labels=labels)


class NiftiStream(_Nifti, StreamVolume):
    """A gzipped NIfTI file."""

    def __init__(
        self, path: Path, layout: Layout, header: _Header, *, labels: bool, **rest: Any
    ) -> None:
        super().__init__(path, layout, header.dtype, **rest)
        self._scale_by(header, labels=labels)
        self._header = header

    def _stream(self) -> IO[bytes]:
        stream = _gunzip(self.path)
        stream.read(self._header.offset)
        return stream


def _wrapped(number: int) -> np.int64:
    return np.int64((number + 2**63) % 2**64 - 2**63)


def open_source(path: Path, key: str | None, axes: str | None, *, labels: bool) -> Volume:
    """Open a `.nii` or `.nii.gz` file."""
    refuse_key(path, key)
    with reading(path, "NIfTI file"):
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
        with _gunzip(path) if packed else path.open("rb") as stream:
            header = _parse(path, stream)
        size = path.stat().st_size
    layout = _layout(path, header, axes)
    spacing, notes = _spacing(header, layout)
    placement, doubts = _placement(header, layout)
    if packed != path.name.lower().endswith(".gz"):
        found = "a gzipped file" if packed else "no gzipped file"
        wanted = f"rename it to end in {'.nii.gz' if packed else '.nii'}"
        doubts = (*doubts, Note("suffix-wrong", f"it is {found}, and read as such", todo=wanted))
    rest: dict[str, Any] = {
        "labels": labels, "spacing": spacing, "placement": placement, "notes": (*notes, *doubts),
    }  # fmt: skip
    if packed:
        return NiftiStream(path, layout, header, packed=size, **rest)
    if header.offset + header.nbytes > size:
        raise SourceError(
            path,
            f"is cut short: the header promises {header.nbytes} bytes of voxels,"
            f" {max(0, size - header.offset)} are there",
            "copy or save the file again",
        )
    return NiftiVolume(path, layout, header, **rest)


def _gunzip(path: Path) -> IO[bytes]:
    from isal import igzip

    stream: IO[bytes] = igzip.open(path, "rb")
    return stream


def _parse(path: Path, stream: IO[bytes]) -> _Header:
    """Read a header of either version in either byte order (nifti1.h, nifti2.h)."""
    head = stream.read(4)
    order = next((o for o in "<>" if struct.unpack(f"{o}i", head)[0] in (348, 540)), None)
    if order is None:
        raise ValueError("no NIfTI header")
    second = struct.unpack(f"{order}i", head)[0] == 540
    raw = head + stream.read(536 if second else 344)
    if len(raw) < (540 if second else 348):
        raise EOFError("the header is cut short")
    if second:
        magic, (code,) = raw[4:8], struct.unpack_from(f"{order}h", raw, 12)
        dims = struct.unpack_from(f"{order}8q", raw, 16)
        pixdim = struct.unpack_from(f"{order}8d", raw, 104)
        (offset,) = struct.unpack_from(f"{order}q", raw, 168)
        slope, inter = struct.unpack_from(f"{order}2d", raw, 176)
        (units,) = struct.unpack_from(f"{order}i", raw, 500)
        codes = struct.unpack_from(f"{order}2i", raw, 344)
        frame = struct.unpack_from(f"{order}18d", raw, 352)
    else:
        magic, (code,) = raw[344:348], struct.unpack_from(f"{order}h", raw, 70)
        dims = struct.unpack_from(f"{order}8h", raw, 40)
        pixdim = struct.unpack_from(f"{order}8f", raw, 76)
        first, slope, inter = struct.unpack_from(f"{order}3f", raw, 108)
        offset, units = int(first) if math.isfinite(first) else -1, raw[123]
        codes = struct.unpack_from(f"{order}2h", raw, 252)
        frame = struct.unpack_from(f"{order}18f", raw, 256)
    if magic[:3] in (b"ni1", b"ni2"):
        raise SourceError(path, "keeps its voxels in another file (.hdr/.img)", "save it as .nii")
    if magic[:3] not in (b"n+1", b"n+2"):
        raise ValueError(f"no NIfTI header (magic {magic[:3]!r})")
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise ValueError(f"its header gives the shape {dims}")
    if code not in _DTYPES and code not in _RGB:
        raise SourceError(
            path,
            f"has NIfTI data type {code} ({_UNREADABLE.get(code, 'unknown')})",
            "save integers or floating point up to 64 bits",
        )
    if offset < 0:
        raise SourceError(
            path, "its header does not say where its voxels begin (vox_offset)", "save it again"
        )
    if not (math.isfinite(slope) and math.isfinite(inter)) or slope == 0:
        slope, inter = 1.0, 0.0
    samples = _RGB.get(code, 1)
    dtype = np.dtype(np.uint8) if samples > 1 else np.dtype(order + _DTYPES[code])
    rank = dims[0]
    return _Header(
        tuple(dims[rank:0:-1]), tuple(pixdim[rank:0:-1]), dtype, samples,
        max(offset, 352 if not second else 544), slope, inter, units & 7,
        _grids(codes, pixdim, frame),
    )  # fmt: skip


def _grids(
    codes: Sequence[int], pixdim: Sequence[float], frame: Sequence[float]
) -> tuple[_Grid, ...]:
    """What sform and qform say, the sform first; a code of 0 says nothing (nifti1.h)."""
    b, c, d, *rest = frame
    found = []
    if codes[1] > 0:
        x, y, z = rest[3:7], rest[7:11], rest[11:15]
        i, j, k, origin = ((x[n], y[n], z[n]) for n in range(4))
        found.append(_Grid("sform", (i, j, k), origin))
    if codes[0] > 0:
        a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
        turn = (
            (a * a + b * b - c * c - d * d, 2 * (b * c + a * d), 2 * (b * d - a * c)),
            (2 * (b * c - a * d), a * a + c * c - b * b - d * d, 2 * (c * d + a * b)),
            (2 * (b * d + a * c), 2 * (c * d - a * b), a * a + d * d - b * b - c * c),
        )
        mirrored = -1.0 if pixdim[0] < 0 else 1.0
        sizes = (pixdim[1], pixdim[2], mirrored * pixdim[3])
        i, j, k = ((s * x, s * y, s * z) for s, (x, y, z) in zip(sizes, turn, strict=True))
        found.append(_Grid("qform", (i, j, k), (rest[0], rest[1], rest[2])))
    return tuple(found)


def _placement(header: _Header, layout: Layout) -> tuple[Placement | None, tuple[Note, ...]]:
    """Where the voxels lie: as the sform says, else as the qform does."""
    factor = _UNITS.get(header.units, 1e3)
    rank = len(header.sizes)

    def place(grid: _Grid) -> Placement:
        steps = []
        for letter in "ZYX":
            # The axis of this letter among i, j, k: sizes are kept from the slowest axis on.
            at = rank - 1 - layout.axes.index(letter) if letter in layout.axes else 2
            z, y, x = reversed(grid.steps[at] if at < 3 else (0.0, 0.0, 0.0))
            steps.append((z * factor, y * factor, x * factor))
        z, y, x = (factor * length for length in reversed(grid.origin))
        return Placement((steps[0], steps[1], steps[2]), (z, y, x), "µm", grid.said_by)

    places = [place(grid) for grid in header.grids]
    for found in places:
        if not found.regular:
            text = f"its {found.said_by} is singular: where its voxels lie cannot be told"
            return None, (Note("geometry-unreadable", text),)
    if len(places) == 2:
        told = difference(_Whole(layout.shape, places[0]), _Whole(layout.shape, places[1]))
        if told is not None and told.what:
            text = f"its qform lies otherwise than its sform, which is used: {told.what}"
            return places[0], (Note("geometry-ambiguous", text),)
    return places[0] if places else None, ()


class _Whole(NamedTuple):
    """A grid to compare."""

    shape: tuple[int, int, int, int]
    placement: Placement | None


def _layout(path: Path, header: _Header, axes: str | None) -> Layout:
    rank = len(header.sizes)
    own = "WVCTZYX"[-rank:] + ("S" if header.samples > 1 else "")
    if rank == 1:
        raise SourceError(path, "holds one axis only", "give an image of at least two")
    return Layout.of(path, axes or own, header.stored)


def _spacing(header: _Header, layout: Layout) -> tuple[Spacing3 | None, tuple[Note, ...]]:
    """Spacing in micrometres, and what is doubtful about it."""
    notes: list[Note] = []
    if header.scaled:
        scale = f"{header.slope:g} and {header.inter:+g}"
        notes.append(Note("intensities-scaled", f"intensities are scaled by {scale} (header)"))
    factor = _UNITS.get(header.units)
    if factor is None:
        factor = 1e3
        notes.append(Note("unit-guessed", "NIfTI unit unknown: spacing read as mm"))
    zooms = dict(zip(layout.axes, header.zooms, strict=False))
    y, x = zooms["Y"] * factor, zooms["X"] * factor
    z = zooms["Z"] * factor if "Z" in zooms else y
    spacing = (z, y, x)
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        said = ", ".join(f"{zoom:g}" for zoom in header.zooms)
        return None, (*notes, Note("spacing-unread", f"the pixdim of its header ({said}) is none"))
    if max(spacing) > _MAX_SANE or min(spacing) < _MIN_SANE:
        z, y, x = spacing
        absurd = f"the stored spacing is absurd and not used: {z:g}, {y:g}, {x:g} µm (z, y, x)"
        notes.append(Note("absurd-spacing", absurd))
        return None, tuple(notes)
    return spacing, tuple(notes)
