"""nnU-Net's raw data sets, with all that their dataset.json says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volprep.cases.case import Case, Cases, FileRef, Fold
from volprep.cases.naming import by_stem, channel_of, volumes_in
from volprep.cases.search import Search, count, left_alone, orphans, some, unlabelled
from volprep.errors import SourceError
from volprep.findings import Finding
from volprep.geometry import Spacing3
from volprep.sources import open_volume

__all__ = ["nnunet"]

#: What nnU-Net writes as the z spacing of 2D images.
_FLAT = 999.0


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a dataset.json says.

    Attributes
    ----------
    channels : tuple of str
        Empty where they are not named.
    classes : dict of int to str
    regions : dict of str to tuple of int
        Classes that form a region, by its name.
    ignore : tuple of int
    ending : str or None
        Of the files, such as ``.nii.gz``.
    cases : int or None
        How many it says there are.
    """

    channels: tuple[str, ...] = ()
    classes: Mapping[int, str] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    ending: str | None = None
    cases: int | None = None


def nnunet(search: Search) -> Cases | None:
    """``imagesTr/CASE_0000.*`` with one file a channel, ``labelsTr/CASE.*``, ``dataset.json``."""
    root = search.root
    stated = _read_dataset(root / "dataset.json")
    files = [path for path in volumes_in(root / "imagesTr") if _ends(path, stated)]
    named = [(path, channel_of(path)) for path in files]
    channels: dict[str, dict[int, Path]] = {}
    numbered = [path for path, name in named if name is not None]
    for path, name in named:
        if name is None and numbered:
            raise SourceError(
                path,
                f"bears no channel number, as {numbered[0].name} does",
                f"if it is a case of one channel, call it {path.name.replace('.', '_0000.', 1)}",
            )
        if name is None:
            return None
        channels.setdefault(name[0], {})[name[1]] = path
    if not channels:
        _refuse_other_ending(root, stated)
        return None
    n_channels = len(stated.channels) or max(len(paths) for paths in channels.values())
    labels = by_stem(path for path in volumes_in(root / "labelsTr") if _ends(path, stated))
    spacings = _Spacings(search)
    items = tuple(
        Case(
            name,
            _channels_of(search, name, paths, n_channels),
            search.label(labels.pop(name, None)),
            spacing=spacings.of(name),
            ignore=stated.ignore,
        )
        for name, paths in channels.items()
    )
    folds = _read_folds(root / "splits_final.json", items)
    findings = [
        *unlabelled(items, root),
        *orphans(labels, root / "labelsTr"),
        *left_alone(root, [root / "imagesTr", root / "labelsTr"], files=False),
        *_of_dataset(root, stated, items, files),
        *spacings.findings,
        *_of_folds(root, folds),
        *_of_regions(root, stated),
    ]
    return Cases(
        items,
        "nnunet",
        "imagesTr/CASE_0000.* + labelsTr/",
        tuple(findings),
        label_kind="classes",
        class_names=stated.classes,
        class_regions=stated.regions,
        folds=folds,
    )


def _of_regions(root: Path, stated: _Stated) -> list[Finding]:
    """What nnU-Net trains as regions that overlap, and is one class a value here."""
    if not stated.regions:
        return []
    listed = "; ".join(f"{n}: {', '.join(map(str, v))}" for n, v in stated.regions.items())
    found = f"trains on regions of several values ({listed})"
    return [Finding("regions-as-classes", found, path=root / "dataset.json")]


def _refuse_other_ending(root: Path, stated: _Stated) -> None:
    """Where there are images, and none ends as dataset.json says."""
    there = [path for path in volumes_in(root / "imagesTr") if channel_of(path) is not None]
    if there:
        names = some(path.name for path in there)
        raise SourceError(
            root / "dataset.json",
            f"says that files end in {stated.ending}, and imagesTr/ holds {names}",
            "mend file_ending, or convert them",
        )


def _ends(path: Path, stated: _Stated) -> bool:
    return stated.ending is None or path.name.lower().endswith(stated.ending.lower())


def _read_dataset(path: Path) -> _Stated:
    if not path.is_file():
        return _Stated()
    content = _read_json(path)
    if not isinstance(content, dict):
        raise SourceError(path, "is no JSON object", "mend it, or remove it")
    names = content.get("channel_names") or content.get("modality") or {}
    labels = content.get("labels") or {}
    if not isinstance(labels, dict) or not isinstance(names, dict | list):
        raise SourceError(path, "`labels` or `channel_names` is no mapping", "mend it")
    classes, regions = _labels_of(path, labels)
    ignore = tuple(value for value, name in classes.items() if name.lower() == "ignore")
    ending, cases = content.get("file_ending"), content.get("numTraining")
    return _Stated(
        channels=tuple(str(n) for n in (names.values() if isinstance(names, dict) else names)),
        classes={value: name for value, name in classes.items() if value not in ignore},
        regions=regions,
        ignore=ignore,
        ending=ending if isinstance(ending, str) else None,
        cases=cases if isinstance(cases, int) else None,
    )


def _labels_of(
    path: Path, labels: Mapping[str, Any]
) -> tuple[dict[int, str], dict[str, tuple[int, ...]]]:
    """Names of the values, and the regions that some of them form.

    Version 2 has ``{"name": value}`` or ``{"name": [values]}``; version 1 and the Decathlon
    have ``{"value": "name"}``.
    """
    classes: dict[int, str] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for name, value in labels.items():
        try:
            if isinstance(value, str):
                classes[int(name)] = value
            elif isinstance(value, list):
                regions[name] = tuple(int(v) for v in value)
            elif isinstance(value, bool) or int(value) != value or value < 0:
                raise ValueError
            elif int(value) in classes:
                raise SourceError(
                    path,
                    f"labels: {classes[int(value)]} and {name} are both {value}",
                    "give each name a value of its own",
                )
            else:
                classes[int(value)] = name
        except (TypeError, ValueError):
            raise SourceError(
                path, f"labels: {name}: {value!r} is no label value", "give whole numbers from 0 up"
            ) from None
    for values in regions.values():
        for value in values:
            # A class that is named only as a part of regions is called after the smallest.
            inside = [n for n, some_values in regions.items() if value in some_values]
            classes.setdefault(value, min(inside, key=lambda n: len(regions[n])))
    return dict(sorted(classes.items())), regions


def _channels_of(
    search: Search, name: str, paths: dict[int, Path], n_channels: int
) -> tuple[FileRef, ...]:
    """One file for each channel, or one file that holds them all, as RGB pictures do."""
    if sorted(paths) == list(range(n_channels)):
        return tuple(search.image(paths[channel]) for channel in range(n_channels))
    if list(paths) == [0]:
        held = open_volume(paths[0], axes=search.axes).shape[0]
        if held == n_channels:
            return (search.image(paths[0]),)
        raise SourceError(
            paths[0],
            f"holds {held} channels, and dataset.json names {n_channels}",
            "give one file for each channel, or mend channel_names",
        )
    numbers = ", ".join(f"_{channel:04d}" for channel in sorted(paths))
    raise SourceError(
        search.root / "imagesTr" / name,
        f"has the channels {numbers}",
        f"each case needs all {n_channels}, from _0000 to _{n_channels - 1:04d}",
    )


class _Spacings:
    """The spacing of TIFF files, which nnU-Net keeps in CASE.json beside them."""

    def __init__(self, search: Search) -> None:
        self._folders = [search.root / "imagesTr", search.root / "labelsTr"]
        self._given = search.spacing
        self._read: list[Path] = []
        self.findings: list[Finding] = []

    def of(self, name: str) -> Spacing3 | None:
        """What CASE.json says; None where there is none, or the user says it."""
        if self._given is not None:
            return None
        found = [
            (path, _spacing_in(path))
            for path in (folder / f"{name}.json" for folder in self._folders)
            if path.is_file()
        ]
        if not found:
            return None
        path, spacing = found[0]
        if any(other != spacing for _, other in found[1:]):
            self.findings.append(
                Finding(
                    "dataset-json",
                    f"says {spacing} and labelsTr/{path.name} {found[1][1]}",
                    todo="the image's is used; make them equal",
                    case=name,
                    path=path,
                )
            )
        if not self._read:
            self.findings.append(
                Finding(
                    "spacing-from-json",
                    f"spacing {', '.join(f'{n:g}' for n in spacing)} (z, y, x) read as µm, and so "
                    "of the other cases from theirs",
                    todo="nnU-Net states no unit: give `spacing:` if it is another",
                    path=path,
                )
            )
        self._read.append(path)
        return spacing


def _spacing_in(path: Path) -> Spacing3:
    content = _read_json(path)
    values = content.get("spacing") if isinstance(content, dict) else None
    try:
        numbers = [float(value) for value in values or ()]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 2:
        numbers = [numbers[0], *numbers]
    if len(numbers) != 3 or not all(0 < n < float("inf") for n in numbers):
        raise SourceError(path, f"spacing is {values!r}", "give three lengths (z, y, x) above 0")
    z, y, x = numbers
    return (y if z == _FLAT else z), y, x


def _read_folds(path: Path, items: Sequence[Case]) -> tuple[Fold, ...]:
    if not path.is_file():
        return ()
    content = _read_json(path)
    try:
        if any(isinstance(fold[side], str) for fold in content for side in ("train", "val")):
            raise TypeError
        folds = tuple(
            Fold(tuple(map(str, fold["train"])), tuple(map(str, fold["val"]))) for fold in content
        )
    except (TypeError, KeyError):
        raise SourceError(
            path,
            "is no list of folds that list cases as `train` and `val`",
            "mend it, or remove it",
        ) from None
    for number, fold in enumerate(folds):
        both = sorted({*fold.train} & {*fold.val})
        if both:
            raise SourceError(
                path,
                f"fold {number} has cases that both train and validate: {some(both)}",
                "mend it, or remove it",
            )
    known = {case.name for case in items}
    strange = sorted({name for f in folds for name in (*f.train, *f.val)} - known)
    if strange:
        raise SourceError(
            path, f"names cases that are not there: {some(strange)}", "mend it, or remove it"
        )
    return folds


def _of_folds(root: Path, folds: Sequence[Fold]) -> list[Finding]:
    path = root / "splits_final.json"
    if not folds:
        found = Finding("dataset-json", "lists no fold", todo="mend it, or remove it", path=path)
        return [found] if path.is_file() else []
    return [
        Finding(
            "splits-from-file",
            f"{count(folds, 'fold')} given, of which `split.fold` is taken",
            todo="set `split.kind: cases` to draw anew",
            path=path,
        )
    ]


def _of_dataset(
    root: Path, stated: _Stated, items: Sequence[Case], files: Sequence[Path]
) -> list[Finding]:
    """Where dataset.json is silent, or says what is not so."""
    path, found = root / "dataset.json", []
    if not stated.channels:
        found.append(
            Finding("channels-counted", "the channels are counted from the file names", path=path)
        )
    if stated.classes and 0 not in stated.classes and not stated.regions:
        found.append(
            Finding(
                "dataset-json",
                "labels name no background",
                todo='add `"background": 0`, if 0 occurs; nnU-Net wants it',
                path=path,
            )
        )
    held = open_volume(items[0].image.path).shape[0] if len(stated.channels) == 1 else 1
    if held > 1:
        found.append(
            Finding(
                "dataset-json",
                f"names 1 channel, and {items[0].image.path.name} holds {held}",
                todo="name them all in channel_names, or save one",
                path=path,
            )
        )
    if stated.cases not in (None, len(items)):
        found.append(
            Finding(
                "dataset-json",
                f"numTraining is {stated.cases}, but imagesTr/ holds {count(items, 'case')}",
                todo="see whether files are missing",
                path=path,
            )
        )
    other = [p.name for p in volumes_in(root / "imagesTr") if p not in files]
    if other:
        found.append(
            Finding(
                "dataset-json",
                f"{count(other, 'file')} left out, not ending in {stated.ending}: {some(other)}",
                todo="mend file_ending, or convert them",
                path=path,
            )
        )
    if stated.ignore:
        found.append(
            Finding(
                "ignore-label",
                f"the label {stated.ignore[0]} is called ignore",
                todo="it is no class: its voxels are left out of the valid mask",
                path=path,
            )
        )
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(path, f"cannot be read as JSON ({error})", "mend or remove it") from error
