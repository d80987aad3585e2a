"""The files that are read because another file names them: of a set's inputs they are a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from volprep.sources.names import kind_of

__all__ = ["files_of"]

#: Of each kind, the module that knows which files such a file names.
_NAMING = {
    "tiles": "volprep.sources.tiles",
    "hdf5": "volprep.sources.hdf5contents",
    "tiff": "volprep.sources.tiff.bytifffile",
    "nrrd": "volprep.sources.nrrd",
    "metaimage": "volprep.sources.metaimage",
}


def files_of(path: Path) -> list[Path]:
    """Every file that reading a volume may touch, the named one first.

    Parameters
    ----------
    path : Path
        A file or a folder.

    Returns
    -------
    list of Path
        Of a folder, all files in it, by way of links as well, in the order of their names. Of
        a file, itself and those that it names and that are there, with those that they
        name: the tiles of a JSON, what links and virtual or external datasets of an HDF5
        lead to, the parts and the metadata of an OME-TIFF.
    """
    if path.is_dir():
        return sorted(_below(path))
    found, todo, folders = [path], [path], dict[str, str]()
    known = {_real(path, folders)}
    while todo:
        for name in _named(todo.pop()):
            real = _real(name, folders)
            if real not in known and os.path.isfile(real):
                known.add(real)
                found.append(name)
                todo.append(name)
    return found


def _real(path: Path, folders: dict[str, str]) -> str:
    """As `os.path.realpath`; each folder is asked once, of the 100,000 tiles that lie in some."""
    text = os.fspath(path)
    if os.path.islink(text):
        return os.path.realpath(text)
    folder, name = os.path.split(text)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def _below(folder: Path) -> Iterator[Path]:
    """All files of a folder; a folder that links lead to twice is entered once."""
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        inner = Path(place)
        yield from (inner / name for name in files if (inner / name).is_file())
        entered.add(inner.resolve())
        folders[:] = [name for name in folders if (inner / name).resolve() not in entered]


def _named(path: Path) -> tuple[Path, ...]:
    if kind_of(path) not in _NAMING:
        return ()
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _read(path: Path, changed: int, size: int) -> tuple[Path, ...]:
    """What a file names; what cannot be read is told by whoever opens it."""
    try:
        return tuple(import_module(_NAMING[str(kind_of(path))]).named_files(path))
    except Exception:
        return ()
