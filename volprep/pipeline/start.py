"""`volprep init`: a commented YAML written from what lies in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from volprep.cases import Case, Cases
from volprep.checks import odd_names
from volprep.config import dump_yaml, parse_spacing, schema_path
from volprep.errors import SourceError
from volprep.findings import raise_on_errors
from volprep.pipeline.augmentation import starting_augment
from volprep.pipeline.inputs import list_cases, load_target
from volprep.places import is_remote, path_of
from volprep.sampling import ForegroundIndex

__all__ = ["LabelGuess", "guess_label_kind", "start", "starting_yaml"]

LabelKind = Literal["instances", "classes"]
_ONE: dict[LabelKind, str] = {"instances": "instance", "classes": "class"}
#: More values than this are taken for instances.
MANY = 16


@dataclass(frozen=True, slots=True)
class LabelGuess:
    """What the labels seem to be, and why."""

    kind: LabelKind
    reason: str


def start(
    root: Path, config_path: Path, *, options: Mapping[str, Any], output: Path
) -> tuple[str, list[str]]:
    """The text of a first config, and what was found in a few lines.

    Parameters
    ----------
    root : Path
        Where to look for cases.
    config_path : Path
        Where the text will be saved; paths in it are relative to that folder.
    options : mapping
        Keys of ``data:`` that the user decided; None leaves one out.
    output : Path
        Of the patch set.

    Raises
    ------
    SourceError
        If no case is found or a file cannot be read.
    DataCheckError
        If a name cannot be written into a YAML.
    """
    given = {name: value for name, value in options.items() if value is not None}
    cases = list_cases(load_target(root, **given))
    if not cases.items:
        raise SourceError(
            root, "no image among its files", "; ".join(map(str, cases.findings)) or None
        )
    raise_on_errors(finding for case in cases for finding in odd_names(case))
    guess = guess_label_kind(cases)
    text = starting_yaml(root, config_path, cases, guess, given=given, output=output)
    labelled = sum(case.label is not None for case in cases)
    summary = [
        f"{_cases(len(cases))}, {labelled} with labels: {cases.reason}",
        *map(str, cases.findings),
        f"labels taken as {guess.kind}: {guess.reason}",
    ]
    return text, summary


def guess_label_kind(cases: Cases, most: int = 3) -> LabelGuess:
    """Instances or classes, from the ids of the first labelled cases.

    Parameters
    ----------
    cases : Cases
    most : int
        How many cases are read.

    Raises
    ------
    SourceError
        If a label cannot be read or is none.
    """
    labelled = [case for case in cases if case.label is not None][:most]
    if not labelled:
        return LabelGuess("instances", "there are no labels yet")
    if cases.layout == "nnunet":
        return LabelGuess("classes", "nnU-Net data sets hold classes")
    ids = [_ids(case) for case in labelled]
    count = len(set().union(*ids))
    if count <= 1:
        value = next(iter(set().union(*ids)), 0)
        return LabelGuess("classes", f"the only value beside 0 is {value}")
    alike = len(ids) > 1 and all(found == ids[0] for found in ids)
    if count > MANY or not (alike or len(ids) == 1):
        return LabelGuess("instances", f"{len(ids[0])} ids in {labelled[0].name}")
    pieces = _pieces(labelled[0])
    where = f"{len(ids[0])} ids in {pieces} pieces in {labelled[0].name}"
    return LabelGuess("classes" if pieces >= 2 * len(ids[0]) else "instances", where)


def _pieces(case: Case) -> int:
    """Connected components of all ids: an instance is one piece, a class is many."""
    labels = case.open_label()
    return 0 if labels is None else len(ForegroundIndex.build(labels, connected=True))


def starting_yaml(
    root: Path,
    config_path: Path,
    cases: Cases,
    guess: LabelGuess,
    *,
    given: Mapping[str, Any],
    output: Path,
) -> str:
    """The text of a config that prepares the cases as they are.

    Parameters
    ----------
    root : Path
        Where the cases were found.
    config_path : Path
        Where the text will be saved; paths in it are relative to that folder.
    cases : Cases
    guess : LabelGuess
    given : mapping
        What the user decided, as keys of ``data:``.
    output : Path
        Of the patch set.
    """
    volumes = [case.open_image() for case in cases]
    base = config_path.resolve().parent
    lines = [
        f"# yaml-language-server: $schema={schema_path().as_uri()}",
        f"# {_cases(len(cases))}: {cases.reason}",
        *(
            f"#   {line}"
            for line in _some(_describe(c, v) for c, v in zip(cases, volumes, strict=True))
        ),
        *(f"# note: {finding}" for finding in cases.findings),
        "# All keys with meaning, values and default: volprep explain",
        "data:",
        *_entry("root", _relative(root, base), 2),
        *(line for name, value in given.items() for line in _entry(name, value, 2)),
        *_spacing_lines([v.spacing for v in volumes], given),
        f"  label_kind: {guess.kind}  # or "
        f"{'classes' if guess.kind == 'instances' else 'instances'}; {guess.reason}",
        "",
        "split:",
        *_split_lines(cases),
        "",
        "plan:",
        *_memory_lines(),
        "",
        *_preprocess_lines([v.spacing for v in volumes], given),
        "patching:",
        f"  foreground: {{p: 0.33, per: {_ONE[guess.kind]}}}"
        f"  # a third of the patches around labels, each {_ONE[guess.kind]} as often",
        "",
        *starting_augment(cases, parse_spacing(given.get("spacing"))),
        "",
        "output:",
        *_entry("dir", _relative(output, base), 2),
    ]
    return "\n".join(lines) + "\n"


def _memory_lines() -> list[str]:
    """The memory to train with: that of the device at hand, in whole or half GiB below."""
    from volprep.loader import torch_devices  # torch takes a second to load

    sizes = [(each.memory, each.name) for each in torch_devices() if each.memory is not None]
    if not sizes:
        return [
            "  memory: 8GiB  # no CUDA device here; give the memory of the one you train on: patch "
            "and batch are made to fit"
        ]
    memory, name = min(sizes)
    halves = max(1, memory // 2**29)
    which = name if len(sizes) == 1 else f"the smallest of {len(sizes)} devices, {name}"
    return [
        f"  memory: {halves / 2:g}GiB  # that of this machine's {which}; less where it is shared: "
        "patch and batch are made to fit"
    ]


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def _ids(case: Case) -> set[int]:
    labels = case.open_label()
    found: set[int] = set()
    if labels is not None:
        for _, slab in labels.slabs():
            found.update(int(i) for i in np.unique(slab))
    return found - {0}


def _describe(case: Case, volume: Any) -> str:
    shape = " x ".join(str(n) for n in volume.shape)
    label = "" if case.label else ", no label"
    return f"{case.name}: {shape} (c z y x) {volume.dtype}{label}"


def _some(lines: Iterable[str], most: int = 8) -> list[str]:
    every = list(lines)
    rest = len(every) - most
    return every if rest <= 0 else [*every[:most], f"... and {rest} more"]


def _entry(name: str, value: object, indent: int) -> list[str]:
    text = dump_yaml({name: value}).rstrip("\n")
    return [" " * indent + line for line in text.splitlines()]


def _relative(path: Path, base: Path) -> str:
    """From the config's folder, so that both can be moved together."""
    place = path_of(path)
    if is_remote(place):
        return str(place)
    return Path(os.path.relpath(path.resolve(), base)).as_posix()


def _spacing_lines(spacings: Sequence[Any], given: Mapping[str, Any]) -> list[str]:
    unknown = sum(s is None for s in spacings)
    if not unknown or "spacing" in given:
        return []
    who = "the files carry" if unknown == len(spacings) else f"{unknown} files carry"
    return [f"  # spacing: [0.3, 0.1, 0.1]  # (z, y, x) in µm, or '50, 4, 4 nm': {who} none"]


def _split_lines(cases: Cases) -> list[str]:
    if cases.folds:
        count = len(cases.folds)
        which = "the fold" if count == 1 else f"one of the {count} folds"
        return [f"  fold: 0  # {which} that the data brings; kind: cases draws anew"]
    if len(cases) == 1:
        return [
            "  kind: blocks  # one volume: a block of it is held out, with a gap of a patch",
            "  fraction: 0.2",
        ]
    return ["  fraction: 0.2  # of the cases, for validation; or kind: kfold, folds: 5, fold: 0"]


def _preprocess_lines(spacings: Sequence[Any], given: Mapping[str, Any]) -> list[str]:
    """Where the spacings differ, the one to bring all to."""
    known = sorted({tuple(round(v, 6) for v in s) for s in spacings if s is not None})
    if len(known) < 2 or "spacing" in given:
        return []
    first, last = (" x ".join(f"{v:g}" for v in spacing) for spacing in (known[0], known[-1]))
    return [
        "preprocess:",
        f"  target_spacing: median  # spacings differ: {first} to {last} µm; none leaves them",
        "",
    ]
