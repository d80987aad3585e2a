"""Names of files: which are volumes, what their stem is, and the order people mean."""

from __future__ import annotations

import re
from pathlib import Path

from volprep.sources.base import reading

__all__ = [
    "SUFFIXES",
    "Kind",
    "is_volume_path",
    "is_zarr",
    "kind_of",
    "natural_key",
    "slice_files",
    "stem_of",
]

Kind = str

#: Suffix to the module of this family that reads it; compound suffixes come first.
SUFFIXES: dict[str, Kind] = {
    ".ome.tiff": "tiff", ".ome.tif": "tiff", ".ome.btf": "tiff", ".ome.tf8": "tiff",
    ".nii.gz": "nifti", ".ome.zarr": "zarr",
    ".tiff": "tiff", ".tif": "tiff", ".btf": "tiff", ".tf8": "tiff", ".lsm": "tiff",
    ".nii": "nifti", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".zarr": "zarr",
    ".npy": "npy", ".npz": "npy",
    ".png": "pictures", ".jpg": "pictures", ".jpeg": "pictures",
    ".json": "tiles",
}  # fmt: skip

_ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup")


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


def is_zarr(path: str | Path) -> bool:
    """Whether a folder is a Zarr array or group: by its suffix or by the metadata in it."""
    folder = Path(path)
    if not folder.is_dir():
        return False
    return _suffix(folder.name) in (".zarr", ".ome.zarr") or any(
        (folder / mark).is_file() for mark in _ZARR_MARKS
    )


def is_volume_path(path: str | Path) -> bool:
    """Whether a path looks like one volume: a file with a known suffix, or a Zarr folder.

    A folder of slices is not: whether its pictures are one stack or many images is
    for the caller to decide.
    """
    place = Path(path)
    if place.is_dir():
        return is_zarr(place)
    suffix = _suffix(place.name)
    if suffix == ".json":
        return _lists_tiles(place)
    return suffix is not None and SUFFIXES[suffix] != "zarr"


def kind_of(path: str | Path) -> Kind | None:
    """The module of this family that reads `path`; None where there is none."""
    place = Path(path)
    if place.is_dir():
        return "zarr" if is_zarr(place) else "slices"
    suffix = _suffix(place.name)
    return None if suffix is None else SUFFIXES[suffix]


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
    try:
        with path.open("rb") as file:
            return bool(_TILES.search(file.read(4096)))
    except OSError:
        return False


def _suffix(name: str) -> str | None:
    lower = name.lower()
    return next((s for s in SUFFIXES if lower.endswith(s) and len(name) > len(s)), None)
