"""From what the user points at to a config and its cases."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from volprep.augment import transforms_from_config
from volprep.cases import (
    SEARCH_OPTIONS,
    Case,
    Cases,
    LabelRules,
    cases_from_entries,
    find_cases,
)
from volprep.config import (
    Config,
    load_config,
    with_values,
)
from volprep.errors import ConfigError, SourceError
from volprep.findings import Finding
from volprep.headers import list_volumes
from volprep.sources import stem_of
from volprep.splits import Twins, find_twins

__all__ = ["labelled_only", "list_cases", "load_target", "voxel_count", "without_duplicates"]


def load_target(
    path: Path,
    *,
    plan: Mapping[str, Any] | None = None,
    masks: Path | None = None,
    **data: Any,
) -> Config:
    """A config file, or the config that a plain folder or volume stands for.

    Parameters
    ----------
    path : Path
        ``.yaml`` and ``.yml`` are configs, anything else is data.
    plan : mapping or None
        Keys of ``plan:`` that win over the file's.
    masks : Path or None
        For a folder of images: the folder of their labels, by the same stems.
    **data
        Keys of ``data:`` for a folder; None leaves one out.
    """
    given = {name: value for name, value in data.items() if value is not None}
    if path.suffix.lower() in (".yaml", ".yml"):
        config = load_config(path)
        transforms_from_config(config.augment, where=f"{path}: augment")
        if given or masks:
            words = ", ".join([*given, *(["masks"] if masks else [])])
            raise ConfigError(f"{path}: {words}: goes with a folder; put it in the YAML")
    elif masks is not None:
        config = Config.model_validate({"data": {"cases": _pairs(path, masks), **given}})
    else:
        config = Config.model_validate({"data": {"root": path.resolve(), **given}})
    return config.model_copy(update={"plan": with_values(config.plan, plan or {}, "plan")})


def _pairs(images: Path, masks: Path) -> list[dict[str, Path]]:
    """Each image of a folder with the mask of the same stem."""
    labels = {stem_of(path): path for path in list_volumes(masks)}
    pairs = []
    for path in list_volumes(images):
        if stem_of(path) not in labels:
            raise SourceError(path, f"{masks} holds no mask of this name", "add it, or rename it")
        pairs.append({"image": path.resolve(), "label": labels[stem_of(path)].resolve()})
    return pairs


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
    return found.read_as(
        label_kind=None if data.label_kind == "auto" else data.label_kind,
        ignore=[*data.ignore, *([] if data.unlabelled is None else [data.unlabelled])],
        rules=LabelRules(colours=data.label_colours == "unique", **data.labels.model_dump()),
    )


def without_duplicates(config: Config, cases: Cases) -> Cases:
    """The cases but for exact copies of others; one image with two labels becomes one group.

    A copy adds nothing to training, and would leak if it were validated on; so would
    the same image with the labels of somebody else. Both become notices.
    """
    twins = find_twins(cases.items, config.compute.workers) if len(cases) > 1 else Twins({}, {})
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
    groups = {**twins.same_image, **{first: first for first in twins.same_image.values()}}
    return _kept(
        cases,
        [
            dataclasses.replace(case, group=case.group or groups.get(case.name))
            for case in cases
            if case.name not in twins.copies
        ],
        told,
    )


def labelled_only(cases: Cases) -> Cases:
    """The cases with labels, where some have none: those would teach that all is background."""
    labelled = [case for case in cases if case.label is not None]
    if not labelled or len(labelled) == len(cases):
        return cases
    left = [case.name for case in cases if case.label is None]
    names = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
    found = f"{len(left)} of {len(cases)} cases have no label and are left out: {names}"
    return _kept(cases, labelled, [Finding("unlabelled-images", found)])


def _kept(cases: Cases, items: Sequence[Case], told: Sequence[Finding]) -> Cases:
    return dataclasses.replace(cases, items=tuple(items), findings=(*cases.findings, *told))


def voxel_count(cases: Cases) -> int:
    """Voxels of all images and labels that can be opened, for a progress bar."""
    total = 0
    for case in cases:
        for opened in (case.open_image, case.open_label, case.open_mask):
            with contextlib.suppress(SourceError):
                volume = opened()
                total += 0 if volume is None else math.prod(volume.shape)
    return total
