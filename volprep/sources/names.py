"""Names of files: which are volumes, what their stem is, and the order people mean."""

from __future__ import annotations

import re
from pathlib import Path

from volprep.places import ARCHIVES, is_remote
from volprep.sources.base import reading
from volprep.sources.formats import FORMATS

__all__ = [
    "MARKS",
    "SUFFIXES",
    "Kind",
    "is_volume_folder",
    "is_volume_path",
    "kind_of",
    "natural_key",
    "slice_files",
    "stem_of",
]

Kind = str

#: Suffix to the module of this family that reads it; compound suffixes come first.
SUFFIXES: dict[str, Kind] = {
    suffix: row.kind for row in FORMATS for suffix in sorted(row.suffixes, key=len, reverse=True)
}
SUFFIXES = dict(sorted(SUFFIXES.items(), key=lambda item: -item[0].count(".")))

#: Kinds of folders by the files in them, and what one of a common name must hold.
MARKS: dict[Kind, dict[str, bytes]] = {
    "zarr": {"zarr.json": b"", ".zarray": b"", ".zgroup": b""},
    "precomputed": {"info": b'"scales"'},
    "n5": {"attributes.json": b'"n5"'},
}
_FOLDERS = tuple(MARKS)


def natural_key(name: str | Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key that reads the digits in a name as numbers: ``2.png`` before ``10.png``.

    Parameters
    ----------
    name : str or path
        Any text; names that differ only in case or in leading zeros keep a fixed order.

    Returns
    -------
    tuple
        Comparable with every other such key.
    """
    text = str(name)
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    key = [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p.casefold()) for p in parts]
    return (*key, (2, 0, text))


def stem_of(path: str | Path) -> str:
    """The name of a volume without its suffix: ``1135`` of ``1135.ome.tif``.

    Parameters
    ----------
    path : str or path
        Only the suffixes in `SUFFIXES` are cut off, so a dot in a name stays.

    Returns
    -------
    str
        The whole name where no suffix is known.
    """
    name = Path(path).name
    suffix = _suffix(name)
    return name[: len(name) - len(suffix)] if suffix else name


def is_volume_folder(path: str | Path) -> bool:
    """Whether a folder is one volume or container: Zarr, N5 or precomputed, by name or metadata."""
    return _folder_kind(Path(path)) is not None


def is_volume_path(path: str | Path) -> bool:
    """Whether a path looks like one volume: a file with a known suffix, a Zarr folder, a URL.

    A folder of slices is not: whether its pictures are one stack or many images is
    for the caller to decide.
    """
    if is_remote(path):
        return True
    place = Path(path)
    if place.is_dir():
        return is_volume_folder(place)
    suffix = _suffix(place.name)
    if suffix == ".json":
        return _lists_tiles(place)
    return suffix is not None and (SUFFIXES[suffix] not in _FOLDERS or suffix.endswith(ARCHIVES))


def kind_of(path: str | Path) -> Kind | None:
    """The module of this family that reads `path`; None where there is none."""
    place = Path(path)
    if place.is_dir():
        return _folder_kind(place) or "slices"
    suffix = _suffix(place.name)
    return None if suffix is None else SUFFIXES[suffix]


def _folder_kind(folder: Path) -> Kind | None:
    """The module that reads a folder as one volume; None where it is none."""
    if not folder.is_dir():
        return None
    suffix = _suffix(folder.name)
    if suffix is not None and SUFFIXES[suffix] in _FOLDERS:
        return SUFFIXES[suffix]
    for kind, marks in MARKS.items():
        for name, word in marks.items():
            if _is_file(folder / name) and (not word or word in _head(folder / name)):
                return kind
    return None


def _is_file(path: Path) -> bool:
    """Whether a file is there; not in a folder that nobody may look into."""
    try:
        return path.is_file()
    except PermissionError:
        return False


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(1 << 16)
    except OSError:
        return b""


def slice_files(folder: str | Path) -> list[Path]:
    """The pictures in a folder in natural order; hidden files and folders are left out.

    Parameters
    ----------
    folder : path-like
        Not searched below its first level.

    Returns
    -------
    list of Path
        PNG, JPEG and TIFF files.

    Raises
    ------
    SourceError
        If the folder cannot be read.
    """
    place = Path(folder)
    kinds = ("pictures", "tiff")
    with reading(place, "folder of slices"):
        found = [
            file
            for file in place.iterdir()
            if SUFFIXES.get(file.suffix.lower()) in kinds
            and not file.name.startswith(".")
            and file.is_file()
        ]
    return sorted(found, key=lambda file: natural_key(file.name))


#: How the JSON of a tiled volume begins: a list of paths, which the format's own documentation
#: calls ``image`` and, once, ``dtype``.
_TILES = re.compile(rb'"(image|dtype)"\s*:\s*\[\s*"')


def _lists_tiles(path: Path) -> bool:
    if not _is_file(path):  # a pipe would be waited for without end
        return False
    try:
        with path.open("rb") as file:
            return bool(_TILES.search(file.read(4096)))
    except OSError:
        return False


def _suffix(name: str) -> str | None:
    lower = name.lower()
    return next((s for s in SUFFIXES if lower.endswith(s) and len(name) > len(s)), None)
