"""From a folder of tiles to the JSON that describes it, by the numbers in the names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from volprep.errors import SourceError
from volprep.sources.names import SUFFIXES, natural_key
from volprep.sources.slices import plane_header
from volprep.sources.tiles import COLUMN, ROW

__all__ = ["describe_tiles"]

_HINTS = {
    "z": "z", "s": "z", "sec": "z", "sect": "z", "section": "z", "slice": "z", "im": "z",
    "r": "row", "row": "row", "y": "row", "c": "column", "col": "column", "column": "column",
    "x": "column",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of tiles: what is the same in all of them, and the numbers, one column each."""

    root: Path
    files: tuple[str, ...]
    texts: tuple[str, ...]  # parts of a name, a number as the empty text
    numbers: tuple[tuple[str, ...], ...]  # of each file, the numbers as they are written


def describe_tiles(root: Path, *, missing: str = "error") -> tuple[dict[str, Any], list[str]]:
    """The JSON of a tiled volume, from where its tiles lie.

    Parameters
    ----------
    root : Path
        Searched with its subfolders. Understood are names in which only section, row and
        column differ: ``0001/0_0.png``, ``0001/0/0.png``, ``z0001_r0_c1.png``, ``im0001.png``,
        and CATMAID's ``z/row_column_zoom``, ``z/zoom/row_column`` and ``zoom/z/row/column``, of
        which the finest zoom is taken.
    missing : {'error', 'fill'}
        What reading does where a tile is missing.

    Returns
    -------
    description : dict
        Paths are relative to `root`. With what PyTorch Connectomics documents, and
        ``row_digits`` and ``column_digits`` where numbers are filled up with zeros.
    notes : list of str
        What is not regular: missing tiles and sections, sections with other rows or columns.

    Raises
    ------
    SourceError
        If the names do not tell which number is what, or tiles differ in size.
    """
    names = _finest_zoom(_read_names(root))
    places, roles = _places(names)
    sections = sorted({place[0] for place in places})
    rows, columns = ([place[i] for place in places] for i in (1, 2))
    first, last = (min(rows), min(columns)), (max(rows), max(columns))
    grid = (last[0] - first[0] + 1, last[1] - first[1] + 1)
    step = _step(sections)
    every = list(range(sections[0], sections[-1] + 1, step))
    tile, (height, width), dtype, samples = _sizes(names, places, first, last)
    digits = _digits(names, roles)
    description = {
        "ndim": samples,
        "dtype": dtype,
        "image": _patterns(names, roles, every, grid),
        "height": height,
        "width": width,
        "depth": len(every),
        "n_columns": grid[1],
        "n_rows": grid[0],
        "tile_size": tile[0] if tile[0] == tile[1] else list(tile),
        "tile_ratio": 1,
        "tile_st": list(first),
        **({"missing": missing} if missing != "error" else {}),
        **{key: n for key, n in zip(("row_digits", "column_digits"), digits, strict=True) if n},
    }
    return description, list(_irregular(places, every, first, grid))


def _read_names(root: Path) -> _Names:
    kinds = ("pictures", "tiff")
    files = [
        os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
        for folder, _, inside in os.walk(root)
        for name in inside
        if SUFFIXES.get(os.path.splitext(name)[1].lower()) in kinds and not name.startswith(".")
    ]
    if not files:
        raise SourceError(root, "holds no PNG, JPEG or TIFF tiles", "give the folder of the tiles")
    files.sort(key=natural_key)
    split = [re.split(r"([0-9]+)", file) for file in files]
    texts = {tuple(parts[::2]) for parts in split}
    if len(texts) > 1:
        one, other, *_ = sorted(texts)
        raise SourceError(
            root,
            f"its names differ in more than numbers: {'#'.join(one)} and {'#'.join(other)}",
            "keep the tiles of one volume alone in a folder",
        )
    return _Names(root, tuple(files), texts.pop(), tuple(tuple(parts[1::2]) for parts in split))


def _varying(names: _Names) -> list[int]:
    """The columns of numbers that are not the same in every name."""
    return [i for i, column in enumerate(zip(*names.numbers, strict=True)) if len({*column}) > 1]


def _finest_zoom(names: _Names) -> _Names:
    """The names of zoom level 0, where there are several: each has a quarter of the one before."""
    for column in _varying(names):
        levels = Counter(int(numbers[column]) for numbers in names.numbers)
        counts = [levels[level] for level in sorted(levels)]
        pyramid = all(2 * b <= a for a, b in pairwise(counts))
        if len(_varying(names)) > 3 and min(levels) == 0 and pyramid:
            kept = [i for i, numbers in enumerate(names.numbers) if int(numbers[column]) == 0]
            return _Names(
                names.root,
                tuple(names.files[i] for i in kept),
                names.texts,
                tuple(names.numbers[i] for i in kept),
            )
    return names


def _roles(names: _Names) -> dict[int, str]:
    """Which column of numbers is the section, the row and the column."""
    varying = _varying(names)
    hinted: dict[int, str] = {}
    for i in range(len(names.texts) - 1):
        word = re.search(r"([a-zA-Z]+)[-_ =]?$", names.texts[i])
        role = _HINTS.get(word[1].lower()) if word else None
        if role is not None and role not in hinted.values():
            hinted[i] = role
    if {"row", "column"} <= set(hinted.values()):
        rest = [i for i in varying if i not in hinted]
        if "z" not in hinted.values() and len(rest) == 1:
            hinted[rest[0]] = "z"
        return hinted
    last = names.texts[-2]
    beside = len(names.texts) > 2 and last in ("_", "-", "/", "x", ",")
    if len(varying) == 3:
        return dict(zip(varying, ("z", "row", "column"), strict=True))
    if len(varying) <= 1 and not (beside and len(names.files) == 1):
        return {i: "z" for i in varying or [len(names.texts) - 2]}
    if len(varying) == 2 and beside and len(names.texts) > 3:
        # One of the three is the same everywhere: a single section, row or column.
        return dict(zip(range(len(names.texts) - 4, len(names.texts) - 1),
                        ("z", "row", "column"), strict=True))  # fmt: skip
    raise SourceError(
        names.root,
        f"{len(varying)} numbers differ in its names ({names.files[0]}, ...), and which is the "
        "section, the row and the column cannot be told",
        "name them as 0001/0_0.png or z0001_r0_c0.png",
    )


def _places(names: _Names) -> tuple[dict[tuple[int, int, int], str], dict[int, str]]:
    """The file at each (section, row, column)."""
    roles = _roles(names)
    column_of = {role: i for i, role in roles.items()}
    places: dict[tuple[int, int, int], str] = {}
    for file, numbers in zip(names.files, names.numbers, strict=True):
        z, row, column = (
            int(numbers[column_of[role]]) if role in column_of else 0
            for role in ("z", "row", "column")
        )
        if (z, row, column) in places:
            raise SourceError(
                names.root / file, f"is the same tile as {places[z, row, column]}", "remove one"
            )
        places[z, row, column] = file
    return places, roles


def _step(sections: Sequence[int]) -> int:
    steps = Counter(b - a for a, b in pairwise(sections))
    return steps.most_common(1)[0][0] if steps else 1


def _digits(names: _Names, roles: Mapping[int, str]) -> tuple[int, int]:
    """To how many digits rows and columns are filled up; 0 where they are not."""
    widths = {"row": 0, "column": 0}
    for i, role in roles.items():
        texts = {numbers[i] for numbers in names.numbers}
        if role in widths and _padded(texts):
            widths[role] = max(map(len, texts))
    return widths["row"], widths["column"]


def _patterns(
    names: _Names, roles: Mapping[int, str], every: Sequence[int], grid: tuple[int, int]
) -> list[str]:
    """The path of each section, with placeholders where it has several tiles."""
    at = next((i for i, role in roles.items() if role == "z"), None)
    spelled = {} if at is None else {int(n[at]): n[at] for n in names.numbers}
    width = len(names.numbers[0][at]) if at is not None and _padded(spelled.values()) else 0
    own, patterns = names.numbers[0], []
    for z in every:
        parts = [names.texts[0]]
        for i, number in enumerate(own):
            role = roles.get(i)
            if role == "z":
                number = spelled.get(z, str(z).zfill(width))
            elif role in ("row", "column") and grid != (1, 1):
                number = ROW if role == "row" else COLUMN
            parts += [number, names.texts[i + 1]]
        patterns.append("".join(parts))
    return patterns


def _padded(texts: Iterable[str]) -> bool:
    return any(text != str(int(text)) for text in texts)


def _sizes(
    names: _Names,
    places: Mapping[tuple[int, int, int], str],
    first: tuple[int, int],
    last: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int], str, int]:
    """Size of a tile and of a section, dtype and samples, from the tiles of one section's ends."""
    whole = (last[0] - first[0] + 1) * (last[1] - first[1] + 1)
    held = Counter(z for z, _, _ in places)
    z = next((z for z in sorted(held) if held[z] == whole), None)
    if z is None:
        raise SourceError(
            names.root, "no section has all of its tiles", "see whether tiles are missing"
        )
    begin = plane_header(names.root / places[(z, *first)], labels=True)[0]
    end = plane_header(names.root / places[(z, *last)], labels=True)[0]
    tile = begin.height, begin.width
    if end.height > tile[0] or end.width > tile[1]:
        raise SourceError(
            names.root / places[(z, *last)],
            f"is {end.height}×{end.width}, larger than the first tile, {tile[0]}×{tile[1]}",
            "tiles have one size, but for smaller ones at the end",
        )
    height = (last[0] - first[0]) * tile[0] + end.height
    width = (last[1] - first[1]) * tile[1] + end.width
    return tile, (height, width), str(begin.dtype), begin.samples


def _irregular(
    places: Mapping[tuple[int, int, int], str],
    every: Sequence[int],
    first: tuple[int, int],
    grid: tuple[int, int],
) -> Iterator[str]:
    held: dict[int, list[tuple[int, int]]] = {}
    for z, row, column in places:
        held.setdefault(z, []).append((row, column))
    gone = [z for z in every if z not in held]
    if gone:
        yield f"{len(gone)} sections are missing: {', '.join(map(str, gone[:5]))}"
    for z, tiles in sorted(held.items()):
        rows, columns = ({tile[i] for tile in tiles} for i in (0, 1))
        if (len(rows), len(columns)) != grid:
            yield (
                f"section {z} has {len(rows)}×{len(columns)} tiles from row {min(rows)} and column "
                f"{min(columns)}, the whole {grid[0]}×{grid[1]} from {first[0]} and {first[1]}"
            )
        elif len(tiles) < grid[0] * grid[1]:
            yield f"section {z} lacks {grid[0] * grid[1] - len(tiles)} tiles"
