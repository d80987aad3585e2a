"""From a folder, a file or a list to cases: choose the layout, finish what it found."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from volprep.cases.case import Case, Cases, FileRef
from volprep.cases.idle import idle_options
from volprep.cases.layouts import LAYOUTS, advice, one_file
from volprep.cases.naming import stem
from volprep.cases.search import Search
from volprep.cases.stacks import slice_findings
from volprep.errors import ConfigError, SourceError, did_you_mean
from volprep.findings import Finding
from volprep.geometry import Spacing3
from volprep.places import path_of, what_is_there
from volprep.sources import natural_key

__all__ = ["cases_from_entries", "find_cases", "group_of"]

_ENTRY_KEYS = (
    "name", "image", "image_key", "axes", "label", "label_key", "label_axes",
    "mask", "mask_key", "skeletons", "group", "spacing", "weight",
)  # fmt: skip


def find_cases(
    root: str | Path,
    *,
    layout: str | None = None,
    group: str | None = None,
    spacing: Sequence[float] | None = None,
    **options: Any,
) -> Cases:
    """Find the cases under `root` by the names of its files; no voxel is read.

    Parameters
    ----------
    root : path-like
        A folder in one of `LAYOUTS`, one file (or Zarr store, or URL), or a ``.txt`` that
        lists images, one a line.
    layout : str or None
        One of `LAYOUTS`; None tries them in their order.
    group : str or None
        Regular expression searched in each case's name; its first group (the
        match, if it has none) is the case's group.
    spacing : sequence of three floats or None
        (Z, Y, X) in µm for every case, in place of what the files say.
    **options
        As the attributes of `volprep.cases.Search`: ``image_dir``, ``label_dir``,
        ``mask_dir``, ``image_suffix``, ``label_suffix``, ``image_key``,
        ``label_key``, ``mask_key``, ``axes``, ``label_axes``, ``slices``,
        ``slices_by``.

    Returns
    -------
    Cases

    Raises
    ------
    SourceError
        If nothing is there, no layout fits, or more than one reading does.
    ConfigError
        If an option cannot be understood.
    """
    path = path_of(root)
    if not path.exists():
        raise SourceError(path, "no such file or folder", what_is_there(path))
    given = _spacing(spacing, "spacing")
    search = Search(path, spacing=given, **options)
    if path.suffix.lower() == ".txt":
        entry = {"image": path, **({"axes": options["axes"]} if options.get("axes") else {})}
        found = cases_from_entries([entry], group=group, spacing=spacing)
    else:
        found = _finish(_recognise(search, layout), group, given, search.slices_by)
    if not any(case.label for case in found):
        _refuse_idle_options(search)
    return dataclasses.replace(found, findings=(*found.findings, *idle_options(search, found)))


def cases_from_entries(
    entries: Sequence[Mapping[str, Any]],
    root: str | Path = ".",
    *,
    group: str | None = None,
    spacing: Sequence[float] | None = None,
    slices_by: Literal["number", "order"] = "number",
) -> Cases:
    """Make cases of an explicit list, as a YAML holds it.

    Parameters
    ----------
    entries : sequence of mapping
        Each with ``image`` (a path, or a list of paths that are its channels)
        and any of ``name``, ``image_key``, ``axes``, ``label``, ``label_key``,
        ``label_axes``, ``mask``, ``mask_key``, ``skeletons``, ``group``,
        ``spacing``, ``weight``. A `label_key` (`mask_key`) without a ``label``
        (``mask``) is looked for in the image's file. An image that ends in
        ``.txt`` is a list of images, one a line and each a case; its ``label`` and
        ``mask`` are such lists, too, paired with it line by line.
    root : path-like
        What relative paths are relative to.
    group, spacing
        As in `find_cases`, for entries that have none of their own.
    slices_by : {'number', 'order'}
        As in `Search`.

    Raises
    ------
    ConfigError
        If an entry has an unknown key or no image.
    SourceError
        If a file is missing.
    """
    every = [one for entry in entries for one in _listed(entry, Path(root))]
    items = tuple(_entry(entry, index, Path(root)) for index, entry in enumerate(every))
    if not items:
        raise ConfigError("cases: the list is empty; give at least one image")
    found = Cases(items, "list", f"{len(items)} listed by hand")
    return _finish(found, group, _spacing(spacing, "spacing"), slices_by)


def _refuse_idle_options(search: Search) -> None:
    """An option that chooses the labels must not be without effect."""
    for option in ("label_dir", "label_key", "label_suffix"):
        value = getattr(search, option)
        if value is not None:
            raise SourceError(
                search.root,
                f"`{option}: {value}` finds no label",
                "correct the option or leave it out",
            )


def _recognise(search: Search, layout: str | None) -> Cases:
    if layout is None:
        found = one_file(search)
        for recognise in LAYOUTS.values():
            found = found or recognise(search)
        if found is None:
            raise SourceError(search.root, "no known layout of images and labels", advice(search))
        return found
    if layout not in LAYOUTS:
        raise ConfigError(f"layout: {layout!r} is no layout{did_you_mean(layout, LAYOUTS)}")
    found = LAYOUTS[layout](search)
    if found is None:
        raise SourceError(
            search.root, f"not in the layout {layout!r}", "leave `layout` out to try them all"
        )
    return found


def _finish(found: Cases, group: str | None, given: Spacing3 | None, slices_by: str) -> Cases:
    """Sort by name, refuse names that are not unique, fill in groups and spacing."""
    ordered = sorted(found.items, key=lambda case: natural_key(case.name))
    for before, case in pairwise(ordered):
        if before.name == case.name:
            raise SourceError(
                case.image.path,
                f"{before.image.path} is a case called {case.name!r} too",
                "rename one, or give both a `name` in a list of cases",
            )
    for case in ordered:
        if set(case.name) & set("/\\\0") or case.name.startswith("."):
            raise ConfigError(f"cases: the name {case.name!r} is no file name; give a plain one")
    items = tuple(
        dataclasses.replace(
            case,
            group=group_of(case.name, group) if case.group is None else case.group,
            spacing=case.spacing or given,
        )
        for case in ordered
    )
    told = [text for case in items for text in slice_findings(case, slices_by)]
    findings = (*found.findings, *_alike(items), *told)
    return dataclasses.replace(found, items=items, findings=findings)


def _alike(items: Sequence[Case]) -> list[Finding]:
    """Names that are one name on disks that do not tell capitals from small letters."""
    same: dict[str, list[str]] = {}
    for case in items:
        same.setdefault(case.name.casefold(), []).append(case.name)
    return [
        Finding(
            "names-alike",
            f"the cases {' and '.join(names)} differ in capital letters only",
            todo="see whether one is a copy, and rename it: on macOS and Windows their files would "
            "overwrite each other",
        )
        for names in same.values()
        if len(names) > 1
    ]


def group_of(name: str, pattern: str | None) -> str | None:
    """The group that a regular expression finds in a case's name: its first group, or the match."""
    if pattern is None:
        return None
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise ConfigError(f"split.group: {pattern!r} is no regular expression: {error}") from error
    if match is None:
        raise ConfigError(
            f"split.group: {pattern!r} does not occur in the case {name!r}; "
            "write an expression that every case's name matches"
        )
    return match.group(1) if match.re.groups and match.group(1) is not None else match.group()


def _listed(entry: Mapping[str, Any], root: Path) -> list[Mapping[str, Any]]:
    """The entries that an entry of path lists stands for; the entry itself where it has none."""
    image = entry.get("image")
    if not isinstance(image, str | Path) or Path(image).suffix.lower() != ".txt":
        return [entry]
    lists = {key: _lines(_existing(root, entry[key])) for key in ("image", "label", "mask")
             if entry.get(key) is not None}  # fmt: skip
    for key, lines in lists.items():
        if len(lines) != len(lists["image"]):
            raise SourceError(
                _existing(root, entry[key]),
                f"lists {len(lines)} files, and {image} {len(lists['image'])}",
                "list one for each image, in the same order",
            )
    rest = {key: value for key, value in entry.items() if key not in (*lists, "name")}
    return [
        {**rest, **{key: lines[i] for key, lines in lists.items()}}
        for i in range(len(lists["image"]))
    ]


def _lines(path: Path) -> list[Path]:
    """The paths in a text file, one a line, relative to its folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            path, f"cannot be read as a list ({error})", "write a path a line"
        ) from error
    found = [path.parent / path_of(line.strip()) for line in text.splitlines() if line.strip()]
    if not found:
        raise SourceError(path, "lists no file", "write a path a line")
    return found


def _entry(entry: Mapping[str, Any], index: int, root: Path) -> Case:
    where = f"cases[{index}]"
    for key in entry:
        if key not in _ENTRY_KEYS:
            raise ConfigError(f"{where}.{key}: unknown key{did_you_mean(key, _ENTRY_KEYS)}")
    image = entry.get("image")
    paths = [image] if isinstance(image, (str, Path)) else list(image or [])
    if not paths:
        raise ConfigError(f"{where}.image: missing; give a path, or a list of channel files")
    files = [_existing(root, path) for path in paths]
    images = tuple(FileRef(path, entry.get("image_key"), entry.get("axes")) for path in files)
    skeletons = entry.get("skeletons")
    return Case(
        name=str(entry.get("name") or stem(files[0])),
        images=images,
        label=_entry_ref(entry, "label", files[0], root),
        mask=_entry_ref(entry, "mask", files[0], root),
        skeletons=_file(root, skeletons) if skeletons else None,
        group=None if entry.get("group") is None else str(entry["group"]),
        spacing=_spacing(entry.get("spacing"), f"{where}.spacing"),
        weight=_weight(entry.get("weight"), where),
    )


def _entry_ref(entry: Mapping[str, Any], what: str, image: Path, root: Path) -> FileRef | None:
    path, key = entry.get(what), entry.get(f"{what}_key")
    if path is None and key is None:
        return None
    return FileRef(image if path is None else _existing(root, path), key, entry.get("label_axes"))


def _existing(root: Path, path: str | Path) -> Path:
    found = root / path_of(path).expanduser()
    if not found.exists():
        raise SourceError(found, "no such file or folder", what_is_there(found))
    return found


def _file(root: Path, path: str | Path) -> Path:
    found = _existing(root, path)
    if not found.is_file():  # a pipe would be waited for without end
        raise SourceError(found, "is no file", "give a .skeletons.npz or .trch file")
    return found


def _weight(value: Any, where: str) -> float:
    weight = 1.0 if value is None else float(value)
    if not weight > 0:
        raise ConfigError(f"{where}.weight: {value} is not above 0; leave the case out instead")
    return weight


def _spacing(values: Sequence[float] | None, where: str) -> Spacing3 | None:
    if values is None:
        return None
    if len(values) != 3 or not all(float(value) > 0 for value in values):
        raise ConfigError(f"{where}: {list(values)} is not three lengths (z, y, x) above 0 in µm")
    z, y, x = (float(value) for value in values)
    return z, y, x
