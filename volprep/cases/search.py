"""What a user may decide before cases are looked for, and what is said of those that are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from volprep.cases.case import Case, FileRef
from volprep.cases.naming import Roles, entries_in, subfolders_of, unread_in, volumes_in
from volprep.errors import SourceError
from volprep.findings import Finding
from volprep.geometry import Spacing3
from volprep.sources import tile_files

__all__ = ["SEARCH_OPTIONS", "Search", "count", "left_alone", "orphans", "some", "unlabelled"]


@dataclass(frozen=True, slots=True)
class Search:
    """Where to look, and what the user has decided already.

    Attributes
    ----------
    root : Path
        A folder in one of `LAYOUTS`, or one file (or Zarr store).
    image_dir, label_dir, mask_dir : str or None
        The folder under `root` that holds the images, the labels, the valid
        masks; in the ``suffix`` layout `label_dir` is the word in the file
        names (``labels`` for X.labels.tif). Needed where several could.
    image_suffix, label_suffix : str or None
        What the stems of images and of labels end in, where the usual words
        (``_masks``, ``.labels``, ...) do not tell them apart.
    image_key, label_key, mask_key : str or None
        The dataset inside HDF5 and Zarr files.
    axes, label_axes : str or None
        What the axes of image and label files mean, where the files do not say.
    slices : bool or None
        Whether a folder of single-plane files is one stack (True) or one 2D
        image a file (False). None reads it as a stack when it holds three
        files or more of one type and one shape whose names differ only in a
        number that runs in equal steps but for a few gaps, or when one label
        volume stands beside them; the choice is among the findings.
    slices_by : {'number', 'order'}
        Whether the slices of an image, its label, its mask and its channels
        belong together by the numbers in their names, or by their order.
    spacing : tuple of float or None
        (Z, Y, X) in µm, over what files say.
    allow_external : bool
        Whether other files may be read that a file links to.
    """

    root: Path
    image_dir: str | None = None
    label_dir: str | None = None
    mask_dir: str | None = None
    image_suffix: str | None = None
    label_suffix: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    mask_key: str | None = None
    axes: str | None = None
    label_axes: str | None = None
    slices: bool | None = None
    slices_by: Literal["number", "order"] = "number"
    spacing: Spacing3 | None = None
    allow_external: bool = False

    def image(self, path: Path, key: str | None = None) -> FileRef:
        """An image file with the options that go with it."""
        return FileRef(path, key or self.image_key, self.axes, self.allow_external)

    def label(self, path: Path | None, key: str | None = None) -> FileRef | None:
        """A label file with the options that go with it."""
        return self._labels(path, key or self.label_key)

    def mask(self, path: Path | None, key: str | None = None) -> FileRef | None:
        """A valid mask with the options that go with it."""
        return self._labels(path, key or self.mask_key)

    def _labels(self, path: Path | None, key: str | None) -> FileRef | None:
        return None if path is None else FileRef(path, key, self.label_axes, self.allow_external)

    @property
    def roles(self) -> Roles:
        """How the names of files tell images from labels."""
        word = self.label_dir.lstrip("._ -") if self.label_dir else None
        return Roles(self.image_suffix, self.label_suffix, word)


#: The keys of ``data:`` that choose where to look and how; all but the root itself.
SEARCH_OPTIONS = tuple(field.name for field in fields(Search) if field.name != "root")


def orphans(labels: dict[str, Path], root: Path) -> list[Finding]:
    """Labels that belong to no image."""
    if not labels:
        return []
    return [
        Finding(
            "orphan-labels",
            f"{count(labels, 'label')} without an image: {some(labels)}",
            todo="left out; name each like its image, or give both in a list of cases",
            path=root,
        )
    ]


def unlabelled(items: Sequence[Case], root: Path) -> list[Finding]:
    """Images that have no label."""
    names = [case.name for case in items if case.label is None]
    if not names:
        return []
    ending = _ending([case.name for case in items])
    todo = "name each label like its image, or give both in a list of cases"
    if ending is not None:
        todo = f"if the names of labels end in {ending}, set `label_suffix: {ending}`; else {todo}"
    return [
        Finding(
            "unlabelled-images" if len(names) < len(items) else "no-labels",
            f"no label for {len(names)} of {count(items, 'image')}: {some(names)}",
            todo=todo,
            path=root,
        )
    ]


def _ending(names: Sequence[str]) -> str | None:
    """What makes of the names of one half those of the other: they may be labels."""
    whole = set(names)
    # By what each begins with, not by pairs, of which 20,000 names have 400 million.
    ends = Counter(b[n:] for b in whole for n in range(1, len(b)) if b[:n] in whole)
    ending, count = max(ends.items(), key=lambda item: item[1], default=("", 0))
    pairs = 2 * count == len(whole) and not ending.strip("_-. ").isdecimal()
    return ending if pairs else None


def left_alone(root: Path, used: Iterable[Path | None], *, files: bool = True) -> list[Finding]:
    """What lies beside the folders that are used and holds volumes, too."""
    folders = {path.resolve() for path in used if path is not None}
    tiles = {parent for folder in folders for path in volumes_in(folder) for parent in _tiled(path)}
    beside = [
        f"{f.name}/"
        for f in subfolders_of(root)
        if f.resolve() not in folders | tiles and _holds(f)
    ]
    if files and root.resolve() not in folders:
        beside += [path.name for path in volumes_in(root)]
    found = []
    if beside:
        found.append(
            Finding(
                "siblings-unused",
                f"not used: {some(beside)}",
                todo="choose what is used with `image_dir`, `label_dir` and `mask_dir`",
                path=root,
            )
        )
    unread = [
        f"{path.name}{'/' * path.is_dir()}"
        for folder in sorted(folders)
        for path in unread_in(folder)
    ]
    if unread:
        found.append(
            Finding(
                "file-left-out",
                f"{count(unread, 'file')} left out, of formats that are not read: {some(unread)}",
                todo="save them as TIFF, or install the reader that `volprep formats` names",
                path=root,
            )
        )
    return found


def some(names: Iterable[object]) -> str:
    """The first few of some names."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:5]) + (f", ... ({len(listed)})" if len(listed) > 5 else "")


def count(things: Iterable[object], noun: str) -> str:
    """How many there are: ``1 label``, ``2 labels``."""
    number = len(list(things))
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _tiled(path: Path) -> set[Path]:
    """The folders that hold tiles of a volume, and those above them."""
    return {
        parent.resolve()
        for file in {f.parent for f in tile_files(path)}
        for parent in (file, *file.parents)
    }


def _holds(folder: Path) -> bool:
    """Whether volumes may lie in a folder; nobody knows of one that may not be looked into."""
    try:
        return bool(entries_in(folder)) or bool(unread_in(folder))
    except (SourceError, PermissionError):
        return True
