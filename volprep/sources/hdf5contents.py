"""What an HDF5 file holds, through which links, and which of them leave the file.

The library's own visitor sees hard links only, each object under one name; here soft links
count as well, and a link that leads to another file is followed only where that is allowed:
whoever sends a file must not choose which other files of the reader's are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import SourceError
from volprep.sources.external import External, may_follow, refuse_foreign
from volprep.sources.keys import choose_key, is_image_key, is_label_key

__all__ = ["Contents", "contents_of", "named_files", "virtual_files"]


@dataclass
class Contents:
    """The arrays of a file, and what else stands in it.

    Attributes
    ----------
    arrays : dict of str to (shape, dtype)
        Every array of numbers by the name that is nearest to the root.
    aliases : dict of str to str
        Every other name of these arrays.
    unusable : dict of str to str
        What is no array of numbers, and what it is.
    foreign : dict of str to Path
        Links to other files that were not followed.
    """

    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, Path] = field(default_factory=dict)

    def choose(self, path: Path, key: str | None, *, labels: bool) -> str:
        """The array that is meant, as `choose_key`; a link that was not followed is refused."""
        shapes = {name: shape for name, (shape, _) in self.arrays.items()}
        if key is not None:
            name = key.strip("/")
            if name in self.aliases:
                return name
            self._refuse(path, name)
            return choose_key(path, shapes, key, labels=labels)
        # A link stands in for what it would lead to: a volume of unknown size.
        linked = dict.fromkeys(self.foreign, (0, 0))
        if not any(len(shape) > 1 for shape in shapes.values()):
            self._refuse(path, *self.foreign)
            if self.unusable:
                told = "; ".join(f"{k!r} is {what}" for k, what in list(self.unusable.items())[:5])
                wanted = "labels" if labels else "an image"
                raise SourceError(
                    path,
                    f"holds no array that could be {wanted}: {told}",
                    "give a file with an array of integers or floating point numbers",
                )
        called = is_label_key if labels else is_image_key
        if not any(map(called, [*shapes, *self.aliases, *linked])):
            self._refuse(path, *filter(called, self.unusable))
        name = choose_key(path, {**linked, **shapes}, None, labels=labels)
        self._refuse(path, name)
        return name

    def _refuse(self, path: Path, *names: str) -> None:
        for name in names:
            for link, target in self.foreign.items():
                if name == link or name.startswith(f"{link}/"):
                    refuse_foreign(path, f"{link!r} is a link to", target)
            if name in self.unusable:
                raise SourceError(
                    f"{path}::{name}",
                    f"is {self.unusable[name]}",
                    "give the key of an array of integers or floating point numbers",
                )


def contents_of(path: Path, file: Any, allow: External) -> Contents:
    """Walk through a file: groups in the order of depth, each once, whatever links lead to it."""
    found = Contents()
    first: dict[tuple[int, int], str] = {}
    groups = [("", file)]
    seen = {_identity(file)}
    while groups:
        below: list[tuple[str, Any]] = []
        for prefix, group in groups:
            for name, item in _members(path, prefix, group, allow, found):
                identity = _identity(item)
                if hasattr(item, "keys"):
                    if identity not in seen:
                        seen.add(identity)
                        below.append((f"{name}/", item))
                elif identity in first:
                    found.aliases[name] = first[identity]
                elif (what := _no_numbers(item)) is not None:
                    found.unusable[name] = what
                elif item.shape:
                    first[identity] = name
                    found.arrays[name] = tuple(item.shape), item.dtype
        groups = below
    return found


def _members(
    path: Path, prefix: str, group: Any, allow: External, found: Contents
) -> Iterator[tuple[str, Any]]:
    """What a group holds; links that lead nowhere, or out of the file, go to `found`."""
    import h5py

    for short in group:
        name, link = f"{prefix}{short}", group.get(short, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            target = Path(group.file.filename).parent / link.filename
            if not may_follow(path, target, allow):
                found.foreign[name] = target
                continue
            if not target.exists():
                found.unusable[name] = f"a link to {target}, which is not there"
                continue
        try:
            yield name, group[short]
        except (KeyError, RuntimeError, OSError) as error:
            found.unusable[name] = _broken(link, error)


def _broken(link: Any, error: Exception) -> str:
    """What a link is that cannot be followed."""
    target = getattr(link, "path", None)
    if target is None:
        return f"damaged ({error})"
    if "too many" in str(error):
        return f"a link that leads back to itself (by way of {target})"
    return f"a link to {target}, which is not there"


def _no_numbers(dataset: Any) -> str | None:
    """What a dataset holds, where that is no plain numbers."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        return "a named type"
    dtype = dataset.dtype
    if dtype.kind in "biuf":
        return None
    if dtype.names:
        return f"a table with the columns {', '.join(map(str, dtype.names))} (compound)"
    if dtype.kind in "SUO" and h5py.check_string_dtype(dtype) is not None:
        return "text (strings)"
    return f"of type {dtype}"


def _identity(item: Any) -> tuple[int, int]:
    """An object, whatever names lead to it."""
    import h5py

    info = h5py.h5o.get_info(item.id)
    return int(info.fileno), int(info.addr)


def virtual_files(dataset: Any) -> Mapping[Path, str]:
    """The other files that a virtual dataset or external storage is put together from."""
    if dataset.is_virtual:
        names = {s.file_name: "is put together from" for s in dataset.virtual_sources()}
        names.pop(".", None)
    else:
        names = {name: "keeps its voxels in" for name, _, _ in dataset.external or ()}
    folder = Path(dataset.file.filename).parent  # a link may have led to it
    return {folder / name: what for name, what in names.items()}


def named_files(path: Path) -> list[Path]:
    """The other files that links and datasets of an HDF5 file name; no link is followed."""
    import h5py

    found: list[Path] = []
    with h5py.File(path, "r", locking="best-effort") as file:

        def visit(name: str, link: Any) -> None:
            if isinstance(link, h5py.ExternalLink):
                found.append(path.parent / link.filename)
            elif isinstance(link, h5py.HardLink) and isinstance(file[name], h5py.Dataset):
                found.extend(virtual_files(file[name]))

        file.visititems_links(visit)
    return found
