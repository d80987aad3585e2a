"""From what the user points at to a config and its cases."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from volprep.cases import (
    SEARCH_OPTIONS,
    Case,
    Cases,
    LabelRules,
    PointRules,
    Region,
    cases_from_entries,
    find_cases,
    regions_from,
)
from volprep.compute import Engine
from volprep.config import (
    ComputeConfig,
    Config,
    load_config,
    load_yaml,
    make_config,
    option_of,
    parse_changes,
    with_values,
)
from volprep.errors import ConfigError, SourceError
from volprep.exports import create_exporter
from volprep.findings import Finding
from volprep.headers import list_volumes
from volprep.pipeline.augmentation import check_augment
from volprep.places import path_of
from volprep.sources import stem_of
from volprep.splits import Twins, find_twins
from volprep.targets import targets_from_config

__all__ = [
    "chosen_cases",
    "compute_with",
    "engine_of",
    "is_config",
    "list_cases",
    "load_target",
    "voxel_count",
]


@contextlib.contextmanager
def looking() -> Iterator[None]:
    """What the system says of an input while cases are looked for is a fault of that input.

    Raises
    ------
    SourceError
        In place of an OSError, with the file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        if isinstance(error, PermissionError):
            place = Path(error.filename).absolute()
            shut = [p for p in reversed(place.parents) if not os.access(p, os.X_OK)]
            found = "may not be looked into" if shut else "may not be read"
            raise SourceError(shut[0] if shut else place, found, "check its permissions") from error
        raise SourceError(error.filename, error.strerror or str(error), "check the path") from error


@looking()
def load_target(
    path: Path,
    *,
    plan: Mapping[str, Any] | None = None,
    masks: Path | None = None,
    changes: Sequence[str] = (),
    **data: Any,
) -> Config:
    """A config file, or the config that a plain folder or volume stands for.

    Parameters
    ----------
    path : Path
        ``.yaml`` and ``.yml`` are configs, anything else is data: a folder, a file, a URL.
    plan : mapping or None
        Keys of ``plan:`` that win over the file's.
    masks : Path or None
        For a folder of images: the folder of their labels, by the same stems.
    changes : sequence of str
        ``key=value`` as ``--set`` gives them, over the file's.
    **data
        Keys of ``data:`` for a folder; None leaves one out.
    """
    path = path_of(path)
    given = {name: value for name, value in data.items() if value is not None}
    options = {f"data.{name}": option_of(name) for name in given}
    changed = parse_changes(changes)
    if is_config(path):
        config = load_config(path, changed)
        check_augment(config, f"{path}: augment")
        targets_from_config(config.targets, where=f"{path}: targets")
        _check_exports(config, path)
        if given or masks:
            words = [option_of(name) for name in [*given, *(["masks"] if masks else [])]]
            raise ConfigError(
                f"{', '.join(words)}: of a folder alone; write it into {path}, or use --set"
            )
    elif masks is not None:
        content: dict[str, Any] = {"data": {"cases": _pairs(path, masks), **given}}
        config = make_config(content, str(path), changed, options=options)
    else:
        content = {"data": {"root": _resolved(path), **given}}
        config = make_config(content, str(path), changed, options=options)
    return config.model_copy(update={"plan": with_values(config.plan, plan or {})})


def _check_exports(config: Config, path: Path) -> None:
    """What of `exports` can be told before anything is prepared."""
    taken: dict[Path, str] = {config.output.dir: "output.dir"}
    for number, entry in enumerate(config.exports):
        where = f"{path}: exports.{number}"
        create_exporter(entry.to, where=where, folder=entry.dir.name, **entry.options)
        for other, name in taken.items():
            if entry.dir == other or other in entry.dir.parents or entry.dir in other.parents:
                raise ConfigError(
                    f"{where}: dir: {entry.dir} lies in {name}, or that in it; each is a folder of "
                    "its own: give another"
                )
        taken[entry.dir] = f"the folder of exports.{number}"


def is_config(path: Path) -> bool:
    """Whether a file is a config: by its suffix, or a text with ``data:`` under any other."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return True
    if path.suffix.lower() not in ("", ".json", ".txt", ".conf", ".cfg") or not path.is_file():
        return False
    if path.stat().st_size > 1 << 20:
        return False
    try:
        return "data" in load_yaml(path)
    except ConfigError:
        return False


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:
        raise SourceError(path, "is a link that leads to itself", "remove the link") from None


def _pairs(images: Path, masks: Path) -> list[dict[str, Path]]:
    """Each image of a folder with the mask of the same stem."""
    labels = {stem_of(path): path for path in list_volumes(masks)}
    pairs = []
    for path in list_volumes(images):
        if stem_of(path) not in labels:
            raise SourceError(path, f"{masks} holds no mask of this name", "add it, or rename it")
        pairs.append({"image": path.resolve(), "label": labels[stem_of(path)].resolve()})
    return pairs


@looking()
def list_cases(config: Config) -> Cases:
    """The cases of a config, found or listed."""
    data = config.data
    if data.cases:
        entries = [
            {name: value for name, value in case.model_dump().items() if value is not None}
            for case in data.cases
        ]
        found = cases_from_entries(
            entries, group=config.split.group, spacing=data.spacing, slices_by=data.slices_by
        )
    elif data.root is None:
        raise ConfigError("data.root: missing; give a folder, or a list of cases")
    else:
        options = {name: getattr(data, name) for name in SEARCH_OPTIONS}
        found = find_cases(data.root, layout=data.layout, group=config.split.group, **options)
    read = found.read_as(
        label_kind=None if data.label_kind == "auto" else data.label_kind,
        ignore=[*data.ignore, *([] if data.unlabelled is None else [data.unlabelled])],
        rules=LabelRules(colours=data.label_colours == "unique", **data.labels.model_dump()),
        geometry=data.geometry,
        allow_external=data.allow_external,
        points=PointRules(**data.points.model_dump()),
    )
    parts = (read.by_time() if data.time == "cases" else read).cut(_regions(config))
    return parts.sliced(config.patching.do_2d or "z")


def _regions(config: Config) -> Sequence[Region]:
    given = config.data.regions
    if isinstance(given, Path):
        return regions_from(given)
    return regions_from([region.model_dump(exclude_none=True) for region in given])


def chosen_cases(
    config: Config, listed: Cases | None = None, hashes: Mapping[str, str] | None = None
) -> Cases:
    """The cases that a config trains and validates on, for every command the same.

    Parameters
    ----------
    config : Config
    listed : Cases or None
        As `list_cases` gives them, where they are known.
    hashes : mapping of str to str, or None
        Content hashes of the images that are known; cases without one are no copies. None
        reads what could be one.

    Returns
    -------
    Cases
        Without exact copies of others and, where some have labels, those that have none.
        What is left out stands in their notices.
    """
    cases = list_cases(config) if listed is None else listed
    return _labelled_only(_without_copies(config, cases, hashes))


def _without_copies(config: Config, cases: Cases, hashes: Mapping[str, str] | None) -> Cases:
    """The cases but for exact copies of others; one image with two labels becomes one group.

    A copy adds nothing to training, and would leak if it were validated on; so would
    the same image with the labels of somebody else. Both become notices.
    """
    twins = Twins({}, {})
    if len(cases) > 1:
        twins = find_twins(cases.items, config.compute.workers, hashes=hashes)
    told = [
        Finding(
            "copy-left-out", f"image and label are those of {original}, voxel for voxel", case=name
        )
        for name, original in twins.copies.items()
    ]
    told += [
        Finding(
            "same-image", f"stays on one side with {original}: the image is the same", case=name
        )
        for name, original in twins.same_image.items()
    ]
    kept = tuple(case for case in cases if case.name not in twins.copies)
    return _kept(cases, _joined(kept, twins.same_image), told)


def _joined(cases: Sequence[Case], same_image: Mapping[str, str]) -> tuple[Case, ...]:
    """The cases, those of one image in one group with all that are grouped with one of them."""
    alike = {*same_image, *same_image.values()}
    groups = {c.name: c.group or (c.name if c.name in alike else None) for c in cases}
    joined_to: dict[str, str] = {}

    def whole(group: str) -> str:
        while group in joined_to:
            group = joined_to[group]
        return group

    for name, first in same_image.items():
        one, other = (whole(group) for group in (groups[name], groups[first]) if group)
        if one != other:
            joined_to[one] = other
    named = ((case, groups[case.name]) for case in cases)
    return tuple(replace(case, group=group and whole(group)) for case, group in named)


def _labelled_only(cases: Cases) -> Cases:
    """The cases with labels, where some have none: those would teach that all is background."""
    labelled = [case for case in cases if case.label is not None]
    if not labelled or len(labelled) == len(cases):
        return cases
    left = [case.name for case in cases if case.label is None]
    names = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
    found = f"{len(left)} of {len(cases)} cases have no label and are left out: {names}"
    return _kept(cases, labelled, [Finding("unlabelled-images", found)])


def _kept(cases: Cases, items: Sequence[Case], told: Sequence[Finding]) -> Cases:
    return replace(cases, items=tuple(items), findings=(*cases.findings, *told))


def voxel_count(cases: Cases) -> int:
    """Voxels of all images and labels that can be opened, for a progress bar."""
    total = 0
    for case in cases:
        for opened in (case.open_image, case.open_label, case.open_mask):
            with contextlib.suppress(SourceError):
                volume = opened()
                total += 0 if volume is None else math.prod(volume.shape)
    return total


def compute_with(
    compute: ComputeConfig | None,
    *,
    workers: int | None = None,
    executor: str | None = None,
    scheduler: str | None = None,
) -> ComputeConfig:
    """The ``compute`` section with what was given on the command line; None leaves a value.

    Raises
    ------
    ConfigError
        If a value is none that the section takes.
    """
    given: dict[str, Any] = {"workers": workers, "executor": executor, "scheduler": scheduler}
    if scheduler is not None and executor is None:
        given["executor"] = "dask"
    wanted = {name: value for name, value in given.items() if value is not None}
    if "scheduler" in wanted:
        wanted["cluster"] = None
    return with_values(compute or ComputeConfig.model_validate({}), wanted)


def engine_of(compute: ComputeConfig) -> Engine:
    """What runs the units of a run."""
    cluster = None if compute.cluster is None else compute.cluster.model_dump()
    return Engine(
        compute.executor, workers=compute.workers, scheduler=compute.scheduler, cluster=cluster
    )
