"""Volumes stored as tiles: a JSON that lists the sections, each a picture or a grid of pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from volprep.errors import SourceError
from volprep.findings import Note
from volprep.sources.axes import Layout
from volprep.sources.base import Array, Volume
from volprep.sources.chunked import ChunkedVolume, Index
from volprep.sources.keys import refuse_key
from volprep.sources.slices import plane_header, read_plane

__all__ = [
    "TileList",
    "TilePresence",
    "TileVolume",
    "named_files",
    "open_source",
    "read_tile_list",
]

ROW, COLUMN = "{row}", "{column}"


@dataclass(frozen=True, slots=True)
class TileList:
    """What the JSON of a tiled volume says.

    Attributes
    ----------
    path : Path
        The JSON; tiles are relative to its folder, or absolute.
    sections : tuple of str
        One path for each section, with ``{row}`` and ``{column}`` where it has several tiles.
    shape : tuple of int
        (Z, Y, X).
    tile : tuple of int
        (Y, X) of one tile, once it is scaled.
    grid : tuple of int
        Rows and columns of tiles.
    first : tuple of int
        The numbers of the first row and column.
    digits : tuple of int
        To how many digits row and column are filled up with zeros.
    ratio : float
        By which tiles are scaled when they are read.
    dtype : dtype or None
        None where it is not stated.
    missing : {'error', 'fill'}
        What is done where a tile is not there.
    fill_value : int
        Of images there.
    """

    path: Path
    sections: tuple[str, ...]
    shape: tuple[int, int, int]
    tile: tuple[int, int]
    grid: tuple[int, int]
    first: tuple[int, int] = (0, 0)
    digits: tuple[int, int] = (0, 0)
    ratio: float = 1.0
    dtype: np.dtype[Any] | None = None
    missing: Literal["error", "fill"] = "error"
    fill_value: int = 0

    @property
    def count(self) -> int:
        """Tiles of all sections."""
        return len(self.sections) * math.prod(self.grid)

    def file(self, z: int, row: int, column: int) -> Path:
        """The file of one tile; placeholders are replaced literally, nothing else is read as one.

        Notes
        -----
        Differs from PyTorch Connectomics, where the path is a format string, which reads
        attributes of objects if a JSON asks it to.
        """
        numbers = [
            str(i + start).zfill(width)
            for i, start, width in zip((row, column), self.first, self.digits, strict=True)
        ]
        name = self.sections[z].replace(ROW, numbers[0]).replace(COLUMN, numbers[1])
        return self.path.parent / name

    def tiles(self) -> Iterator[tuple[int, int, int]]:
        """(section, row, column) of every tile."""
        rows, columns = self.grid
        for z in range(len(self.sections)):
            for row in range(rows):
                for column in range(columns):
                    yield z, row, column


class TileVolume(ChunkedVolume):
    """A tiled volume; a tile is decoded when a box touches it."""

    def __init__(
        self,
        tiles: TileList,
        layout: Layout,
        dtype: np.dtype[Any],
        *,
        absent: frozenset[Index],
        anywhere: bool,
        labels: bool,
        **rest: Any,
    ) -> None:
        block = (1, *tiles.tile, *layout.stored[3:])
        super().__init__(tiles.path, layout, dtype, block=block, **rest)
        self.tiles = tiles
        self._absent, self._anywhere, self._labels = absent, anywhere, labels

    def holes(self) -> Volume | None:
        """1 where there are tiles; None where there are all of them."""
        return TilePresence(self) if self._absent else None

    def is_absent(self, index: Index) -> bool:
        """Whether a block of the grid has no tile."""
        return index[:3] in self._absent

    def _decode(self, index: Index, out: Array | None) -> Array:
        tiles, (z, row, column) = self.tiles, index[:3]
        if self.is_absent(index):
            fill = 0 if self._labels else tiles.fill_value
            return np.full((1, *tiles.tile, *self._layout.stored[3:]), fill, self.dtype)
        file = _allowed(tiles, tiles.file(z, row, column), self._anywhere)
        plane = _scaled(self._plane(file), tiles.ratio, labels=self._labels)
        needed = [
            min(size, whole - i * size)
            for size, whole, i in zip(tiles.tile, tiles.shape[1:], (row, column), strict=True)
        ]
        if plane.shape[0] < needed[0] or plane.shape[1] < needed[1]:
            raise SourceError(
                file,
                f"is {plane.shape[0]}×{plane.shape[1]}, and {needed[0]}×{needed[1]} lie there",
                f"mend tile_size, height and width in {tiles.path.name}",
            )
        return plane[None, : tiles.tile[0], : tiles.tile[1]]

    def _plane(self, file: Path) -> Array:
        header, _, _ = plane_header(file, labels=self._labels)
        samples = math.prod(self._layout.stored[3:])
        if header.samples != samples or not np.can_cast(header.dtype, self.dtype):
            raise SourceError(
                file,
                f"holds {header.samples} samples of {header.dtype}",
                f"the volume has {samples} of {self.dtype}: mend `dtype` in the JSON",
            )
        return read_plane(file, header, labels=self._labels).astype(self.dtype, copy=False)


class TilePresence(ChunkedVolume):
    """1 where a tiled volume has tiles, else 0."""

    def __init__(self, volume: TileVolume) -> None:
        shape = (1, *volume.tiles.shape)
        block = (1, 1, *volume.tiles.tile)
        super().__init__(volume.path, Layout("CZYX", shape), np.uint8, block=block)
        self._volume = volume
        self.spacing = volume.spacing

    def _decode(self, index: Index, out: Array | None) -> Array:
        there = not self._volume.is_absent(index[1:])
        return np.full((1, 1, *self._volume.tiles.tile), there, np.uint8)


def open_source(
    path: Path,
    key: str | None,
    axes: str | None,
    *,
    labels: bool,
    allow_external: bool | None = None,
) -> Volume:
    """Open a tiled volume; the folders of tiles are listed, and the header of one tile is read.

    Raises
    ------
    SourceError
        If the JSON does not describe tiles, tiles are missing and are not to be filled, or a
        path leaves the JSON's folder without leave.
    """
    refuse_key(path, key, "one volume")
    tiles = read_tile_list(path)
    anywhere = bool(allow_external)
    state = path.stat()
    absent = _absent(tiles, state.st_mtime_ns, anywhere)
    notes = [Note("unknown-spacing", "no spacing stored")]
    if absent:
        told = f"{len(absent)} of {tiles.count} tiles are missing: {_some(tiles, absent)}"
        if tiles.missing == "error" or len(absent) == tiles.count:
            raise SourceError(
                path,
                told,
                'add them, or write "missing": "fill" into it: images get `fill_value` there, and '
                "labels are no part of the valid mask",
            )
        notes.append(Note("tiles-missing", told))
    present = next(index for index in tiles.tiles() if index not in absent)
    header, _, _ = plane_header(_allowed(tiles, tiles.file(*present), anywhere), labels=labels)
    stored = (*tiles.shape, *header.shape[2:])
    layout = Layout.of(path, axes or "Z" + header.axes, stored)
    return TileVolume(
        tiles, layout, tiles.dtype or header.dtype,
        absent=absent, anywhere=anywhere, labels=labels, notes=[*notes, *header.notes],
    )  # fmt: skip


def named_files(path: Path) -> list[Path]:
    """The tiles that a JSON names and that are there; none of a JSON that describes no tiles."""
    try:
        tiles = read_tile_list(path)
    except (OSError, SourceError):  # told by whoever opens it
        return []
    named = dict.fromkeys(tiles.file(*index) for index in tiles.tiles())
    return [file for file in named if file.is_file()]


def read_tile_list(path: Path) -> TileList:
    """Read the JSON of a tiled volume, as PyTorch Connectomics documents it.

    Notes
    -----
    Its documentation says once that the paths are the value of ``dtype``: a list there is
    read as ``image``, and the dtype is then that of the tiles. ``{row}_{column}`` may be
    left out where each section is one picture. Of volprep's own are ``missing``,
    ``fill_value``, ``row_digits`` and ``column_digits``.

    Raises
    ------
    SourceError
        If it is no such JSON, with the key that is wrong.
    """
    state = path.stat()
    return _read_tile_list(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read_tile_list(path: Path, changed: int, size: int) -> TileList:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(path, f"cannot be read as JSON ({error})", "mend or remove it") from error
    if not isinstance(content, dict):
        raise SourceError(path, "is no JSON object", "give the JSON of a tiled volume")
    dtype, sections = content.get("dtype"), content.get("image")
    if isinstance(dtype, list):
        dtype, sections = None, dtype if sections is None else sections
    if not sections or not all(isinstance(name, str) for name in sections):
        raise SourceError(path, "`image` is no list of paths", "give one path for each section")
    values = _Values(path, content)
    rows, columns = values.whole("n_rows", 1), values.whole("n_columns", 1)
    height, width = (
        values.whole(key, None) if key in content else 0 for key in ("height", "width")
    )
    if not (height and width):
        # The document's second example states neither: they are those of the grid of tiles.
        found = values.pair("tile_size", (0, 0), least=0)
        found = found if all(found) else _first_size(path, sections, values)
        height, width = height or rows * found[0], width or columns * found[1]
    tile = values.pair("tile_size", (-(-height // rows), -(-width // columns)))
    depth = values.whole("depth", len(sections))
    if depth != len(sections):
        raise SourceError(
            path, f"depth is {depth}, but `image` lists {len(sections)} sections", "mend either"
        )
    if rows * tile[0] < height or columns * tile[1] < width:
        raise SourceError(
            path,
            f"{rows}×{columns} tiles of {tile[0]}×{tile[1]} do not cover {height}×{width}",
            "mend n_rows, n_columns, tile_size, height or width",
        )
    if rows * columns > 1 and not all(ROW in name and COLUMN in name for name in sections):
        raise SourceError(
            path, f"{rows}×{columns} tiles a section, but not every path holds {ROW} and {COLUMN}",
            f"write it as 0000/{ROW}_{COLUMN}.png",
        )  # fmt: skip
    return TileList(
        path,
        tuple(sections),
        (depth, height, width),
        tile,
        (-(-height // tile[0]), -(-width // tile[1])),
        values.pair("tile_st", (0, 0), least=0),
        (values.whole("row_digits", 0, least=0), values.whole("column_digits", 0, least=0)),
        values.number("tile_ratio", 1.0),
        None if dtype is None else values.dtype(dtype),
        values.missing(),
        values.whole("fill_value", 0, least=0),
    )


def _first_size(path: Path, sections: Sequence[str], values: _Values) -> tuple[int, int]:
    """(Y, X) of the first tile that is there, once it is scaled."""
    start = values.pair("tile_st", (0, 0), least=0)
    ratio = values.number("tile_ratio", 1.0)
    for name in sections:
        file = path.parent / name.replace(ROW, str(start[0])).replace(COLUMN, str(start[1]))
        # What lies elsewhere is not asked for before it is known whether that is allowed.
        if file.is_file() and file.resolve().is_relative_to(path.parent.resolve()):
            header, _, _ = plane_header(file, labels=False)
            return round(header.shape[0] * ratio), round(header.shape[1] * ratio)
    raise SourceError(
        path, "`height` and `width` are missing, and no first tile of a section is there",
        "give height and width",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Values:
    """The keys of the JSON, checked."""

    path: Path
    content: Mapping[str, Any]

    def whole(self, key: str, default: int | None, least: int = 1) -> int:
        """A whole number."""
        value = self.content.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(key, value, f"a whole number from {least}")
        return value

    def pair(self, key: str, default: tuple[int, int], least: int = 1) -> tuple[int, int]:
        """Two whole numbers along y and x, or one for both."""
        value = self.content.get(key, default)
        both = [value, value] if isinstance(value, int) else value
        if not isinstance(both, list | tuple) or len(both) != 2:
            raise self._wrong(key, value, "a whole number, or two of them [y, x]")
        if any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in both):
            raise self._wrong(key, value, f"whole numbers from {least}")
        return both[0], both[1]

    def number(self, key: str, default: float) -> float:
        """A number above 0."""
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._wrong(key, value, "a number above 0")
        return float(value)

    def dtype(self, value: object) -> np.dtype[Any]:
        """The name of a dtype of numbers."""
        try:
            found = np.dtype(str(value))
        except TypeError:
            found = np.dtype(object)
        if found.kind not in "biuf":
            raise self._wrong("dtype", value, "a dtype such as uint8")
        return found

    def missing(self) -> Literal["error", "fill"]:
        """What is done where a tile is missing."""
        value = self.content.get("missing", "error")
        if value == "fill":
            return "fill"
        if value != "error":
            raise self._wrong("missing", value, "error or fill")
        return "error"

    def _wrong(self, key: str, value: object, wanted: str) -> SourceError:
        found = "is missing" if value is None else f"is {value!r}"
        return SourceError(self.path, f"`{key}` {found}", f"give {wanted}")


@lru_cache(maxsize=64)
def _absent(tiles: TileList, changed: int, anywhere: bool) -> frozenset[Index]:
    """The tiles that are not there; each folder is listed once."""
    held: dict[Path, set[str]] = {}
    found = []
    for index in tiles.tiles():
        file = tiles.file(*index)
        if file.parent not in held:
            # Told before the disk is asked, or a JSON could try out what lies elsewhere.
            _allowed(tiles, file, anywhere)
            try:
                with os.scandir(file.parent) as entries:
                    held[file.parent] = {entry.name for entry in entries}
            except FileNotFoundError:
                held[file.parent] = set()
            except OSError as error:
                raise SourceError(
                    file.parent, f"cannot be listed ({error.strerror})", "check its permissions"
                ) from error
        if file.name not in held[file.parent]:
            found.append(index)
    return frozenset(found)


def _allowed(tiles: TileList, file: Path, anywhere: bool) -> Path:
    """The file, if it lies in the JSON's folder or below it, links followed."""
    if not anywhere:
        root = tiles.path.parent.resolve()
        if not file.resolve().is_relative_to(root):
            raise SourceError(
                tiles.path,
                f"names {file}, which lies outside {root}",
                "move the JSON above its tiles, or set `data.allow_external: true`",
            )
    return file


def _scaled(plane: Array, ratio: float, *, labels: bool) -> Array:
    if ratio == 1:
        return plane
    from scipy.ndimage import zoom

    factors = (ratio, ratio, *[1.0] * (plane.ndim - 2))
    scaled: Array = zoom(plane, factors, order=0 if labels else 1)
    return scaled


def _some(tiles: TileList, absent: frozenset[Index]) -> str:
    first: Sequence[Index] = sorted(absent)[:5]
    names = ", ".join(str(tiles.file(*index).relative_to(tiles.path.parent)) for index in first)
    return names + (", ..." if len(absent) > len(first) else "")
