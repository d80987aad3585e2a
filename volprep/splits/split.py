"""Which side a case, or a block of it, is on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from volprep.cases import Case, Fold, group_of
from volprep.errors import ConfigError, PlanError
from volprep.findings import Note
from volprep.geometry import Box, Shape3, three
from volprep.randomness import sample_generator
from volprep.splits.blocks import AXES, Cut, Draw, along, divide, slab

__all__ = ["Kind", "SplitPart", "Splits", "make_splits", "splits_blocks"]

Kind = Literal["auto", "cases", "group", "kfold", "blocks"]


class SplitPart(NamedTuple):
    """A case, or a block of it."""

    case: str
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Splits:
    """Which cases, or which blocks of them, are for training and which for validation.

    Attributes
    ----------
    kind : str
        How it was made: ``cases``, ``group``, ``kfold`` or ``blocks``.
    train, val : tuple of SplitPart
        A whole case has the box None.
    seed, fold : int
    folds : int or None
        None where a fraction was held out.
    gap : tuple of int
        Voxels (Z, Y, X) between blocks of one volume; 0 along axes that are not cut.
    patch_limit : tuple of int or None
        Where the blocks and the gap between them do not hold the patch that was
        asked for: that patch, shrunk along the axes that are cut; else None.
    groups : dict of str to str
        The group of each case that has one.
    notices : tuple of Note
        What was decided and can be overruled.
    """

    kind: str
    train: tuple[SplitPart, ...]
    val: tuple[SplitPart, ...]
    seed: int = 0
    fold: int = 0
    folds: int | None = None
    gap: Shape3 = (0, 0, 0)
    patch_limit: Shape3 | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for ``splits.json``."""
        return {
            "kind": self.kind,
            "seed": self.seed,
            "fold": self.fold,
            "folds": self.folds,
            "gap": list(self.gap),
            "patch_limit": None if self.patch_limit is None else list(self.patch_limit),
            "groups": dict(self.groups),
            "notices": [notice.to_dict() for notice in self.notices],
            "train": [_part_to_dict(part) for part in self.train],
            "val": [_part_to_dict(part) for part in self.val],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Splits:
        """The inverse of `to_dict`; unknown keys (an audit beside it) are left alone."""
        limit = values.get("patch_limit")
        return cls(
            kind=values["kind"],
            train=tuple(_part_from_dict(part) for part in values["train"]),
            val=tuple(_part_from_dict(part) for part in values["val"]),
            seed=values.get("seed", 0),
            fold=values.get("fold", 0),
            folds=values.get("folds"),
            gap=three(values.get("gap", (0, 0, 0))),
            patch_limit=None if limit is None else three(limit),
            groups=dict(values.get("groups", {})),
            notices=tuple(Note.from_dict(each) for each in values.get("notices", ())),
        )


def make_splits(
    cases: Sequence[Case],
    *,
    kind: Kind = "auto",
    fraction: float = 0.2,
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    group: str | None = None,
    shapes: Mapping[str, Shape3] | None = None,
    patch: Shape3 | None = None,
    halo: Shape3 = (0, 0, 0),
    gap: Shape3 | None = None,
    reach: Mapping[str, Shape3] | None = None,
    listed: Sequence[Fold] = (),
) -> Splits:
    """Divide cases, or blocks of volumes, into training and validation.

    Parameters
    ----------
    cases : sequence of Case
        In any order: the result depends on their names alone.
    kind : {'auto', 'cases', 'group', 'kfold', 'blocks'}
        ``auto`` takes blocks for a single case, folds where `folds` is given,
        groups where cases have some, and else cases.
    fraction : float
        Of the cases (of a volume, for blocks) that is held out, 0 <= fraction < 1;
        at least one case (one patch) unless it is 0.
    folds, fold : int
        With k folds every case is in the validation of exactly one; 5 for
        ``kfold`` if not given.
    seed : int
        Of the draw.
    group : str or None
        Regular expression searched in the names; its first group (the match, if
        it has none) is the group of cases that have none of their own.
    shapes : mapping of str to (Z, Y, X)
        Of the images, needed for blocks only; None opens the cases.
    patch, halo : tuple of int
        Of the patches to be cut: (Z, Y, X) voxels, and what is read around
        them on each side. None says that the patch is not known yet.
    gap : tuple of int or None
        Voxels (Z, Y, X) between blocks; None takes a patch and a halo on either side.
    reach : mapping of str to (Z, Y, X), or None
        How far from a voxel lie those that it was made of, by case, where volumes were
        resampled. It is added to the gap, so that nothing that trains was made of what
        is held out.
    listed : sequence of Fold
        Folds that come with the data, of which ``auto`` takes number `fold`.

    Returns
    -------
    Splits
        Cases without a label train, unless all are without one or their group
        is held out.

    Raises
    ------
    PlanError
        If there is nothing to divide, with what would make it possible.
    ConfigError
        If `group` is no regular expression or `fold` is not below `folds`.
    """
    ordered = sorted(cases, key=lambda case: case.name)
    groups = _groups(ordered, group)
    count = (folds or 5) if kind == "kfold" else folds
    if kind == "auto" and listed:
        return _split_listed(ordered, listed, fold, groups)
    draw = Draw(fraction, count, fold, seed)
    draw.check()
    if _in_blocks(kind, ordered, groups):
        sizes = shapes or {case.name: three(case.open_image().shape[1:]) for case in ordered}
        return _split_blocks(ordered, sizes, draw, Cut(patch, halo, gap), groups, reach or {})
    name = "kfold" if count else "group" if groups else "cases"
    return _split_cases(ordered, name, draw, groups)


def splits_blocks(
    cases: Sequence[Case],
    *,
    kind: Kind = "auto",
    group: str | None = None,
    listed: Sequence[Fold] = (),
) -> bool:
    """Whether `make_splits` will cut volumes into blocks, so that it needs shapes and a patch."""
    return not (kind == "auto" and listed) and _in_blocks(kind, cases, _groups(cases, group))


def _groups(cases: Iterable[Case], pattern: str | None) -> dict[str, str]:
    found = {
        case.name: group_of(case.name, pattern) if case.group is None else case.group
        for case in cases
    }
    return {name: group for name, group in found.items() if group is not None}


def _in_blocks(kind: Kind, cases: Sequence[Case], groups: Mapping[str, str]) -> bool:
    if not cases:
        raise PlanError("split: there is no case to divide; check data.root")
    if kind == "group" and not groups:
        raise PlanError("split.kind: group, but no case has a group; set split.group to a regex")
    units = len(set(groups.values())) + len(cases) - len(groups)
    return kind == "blocks" or (units == 1 and kind in ("auto", "kfold"))


def _split_cases(cases: Sequence[Case], kind: str, draw: Draw, groups: Mapping[str, str]) -> Splits:
    """Hold out whole units: groups, and cases that are in none."""
    labelled = [case for case in cases if case.label is not None] or list(cases)
    units: dict[tuple[str, str], list[str]] = {}
    for case in labelled:
        group = groups.get(case.name)
        unit = ("case", case.name) if group is None else ("group", group)
        units.setdefault(unit, []).append(case.name)
    members = [units[unit] for unit in sorted(units)]
    order = sample_generator(draw.seed).permutation(len(members))
    shuffled = [members[index] for index in order]
    held = _one_fold(shuffled, draw) if draw.folds else _one_fraction(shuffled, draw.fraction)
    held_groups = {groups[name] for name in held if name in groups}
    val = {case.name for case in cases if case.name in held or groups.get(case.name) in held_groups}
    unlabelled = len(cases) - len(labelled)
    return Splits(
        kind=kind,
        train=tuple(SplitPart(case.name) for case in cases if case.name not in val),
        val=tuple(SplitPart(case.name) for case in cases if case.name in val),
        seed=draw.seed,
        fold=draw.fold if draw.folds else 0,
        folds=draw.folds,
        groups=dict(groups),
        notices=(
            Note(
                "split-unlabelled",
                f"{unlabelled} cases without a label are not drawn for validation",
            ),
        )
        if unlabelled
        else (),
    )


def _split_listed(
    cases: Sequence[Case], listed: Sequence[Fold], fold: int, groups: Mapping[str, str]
) -> Splits:
    """One of the folds that somebody else made, and that results are compared by."""
    if not 0 <= fold < len(listed):
        raise ConfigError(f"split.fold: {fold} is not one of the {len(listed)} folds given")
    chosen = listed[fold]
    train = tuple(SplitPart(c.name) for c in cases if c.name in chosen.train)
    val = tuple(SplitPart(c.name) for c in cases if c.name in chosen.val)
    if not train:
        raise PlanError(
            "split: nothing trains: the folds given (splits_final.json, or `side` of data.regions) "
            "put no case that is there on the side of training"
        )
    left = [c.name for c in cases if c.name not in (*chosen.train, *chosen.val)]
    return Splits(
        kind="listed",
        train=train,
        val=val,
        fold=fold,
        folds=len(listed),
        groups=dict(groups),
        notices=tuple(
            Note("split-missing-case", f"{name}: on no side of the fold given") for name in left
        ),
    )


def _one_fraction(units: Sequence[Sequence[str]], fraction: float) -> set[str]:
    """The first units whose number of cases comes nearest to the fraction; never all."""
    if fraction == 0:
        return set()
    if len(units) < 2:
        raise PlanError(
            "split: one case or group cannot be divided by cases; "
            "add another, use `kind: blocks`, or set split.fraction to 0"
        )
    sizes = np.cumsum([len(unit) for unit in units])
    count = int(np.argmin(np.abs(sizes[:-1] - fraction * sizes[-1]))) + 1
    return {name for unit in units[:count] for name in unit}


def _one_fold(units: Sequence[Sequence[str]], draw: Draw) -> set[str]:
    """The validation of one fold: large units first, each into the fold with the fewest cases."""
    folds: list[list[str]] = [[] for _ in range(draw.folds or 0)]
    if len(units) < len(folds):
        raise PlanError(
            f"split.folds: {len(folds)} folds need as many cases or groups, and there are "
            f"{len(units)}; set split.folds to at most {len(units)}"
        )
    for unit in sorted(units, key=len, reverse=True):
        min(folds, key=len).extend(unit)
    return set(folds[draw.fold])


def _split_blocks(
    cases: Sequence[Case],
    shapes: Mapping[str, Shape3],
    draw: Draw,
    cut: Cut,
    groups: Mapping[str, str],
    reach: Mapping[str, Shape3],
) -> Splits:
    """Hold out a block of every volume; those without a label train, where others have one."""
    train: list[SplitPart] = []
    val: list[SplitPart] = []
    notices, gaps, limits = [], [], []
    nothing = draw.fraction == 0 and not draw.folds
    some_labels = any(case.label is not None for case in cases)
    # Time points of a series are cut alike: what is held out of one trains in none.
    first: dict[str, int] = {}
    for index, case in enumerate(cases):
        first.setdefault(groups.get(case.name, case.name), index)
        shape = shapes[case.name]
        if nothing or (some_labels and case.label is None):
            train.append(SplitPart(case.name))
            continue
        at_end = bool(
            sample_generator(draw.seed, index=first[groups.get(case.name, case.name)]).integers(2)
        )
        own = replace(cut, reach=reach.get(case.name, (0, 0, 0)))
        division = divide(case.name, shape, draw, own, at_end)
        axis = division.axis
        train += [SplitPart(case.name, slab(shape, axis, *part)) for part in division.train]
        val.append(SplitPart(case.name, slab(shape, axis, *division.val)))
        gaps.append(along((0, 0, 0), axis, division.gap))
        held = (
            f"{case.name}: {AXES[axis]} {division.val[0]} to {division.val[1]} of {shape[axis]} "
            f"is held out, with a gap of {division.gap}{_resampled(own, axis)}; "
            f"{division.trained / shape[axis]:.0%} of the volume is for training"
        )
        notices.append(Note("split-blocks", held))
        if cut.patch is None or division.patch < cut.patch[axis]:
            limits.append(along(cut.patch or shape, axis, division.patch))
            small = (
                f"{case.name}: too small for two patches and a gap; a patch may have at most "
                f"{division.patch} voxels along {AXES[axis]}"
            )
            notices.append(Note("split-small", small))
    return Splits(
        kind="blocks",
        train=tuple(train),
        val=tuple(val),
        seed=draw.seed,
        fold=draw.fold if draw.folds else 0,
        folds=draw.folds,
        gap=three(np.max(gaps, axis=0)) if gaps else (0, 0, 0),
        patch_limit=three(np.min(limits, axis=0)) if limits else None,
        groups=dict(groups),
        notices=tuple(notices),
    )


def _resampled(cut: Cut, axis: int) -> str:
    return f" ({cut.reach[axis]} of it since resampling reaches so far)" if cut.reach[axis] else ""


def _part_to_dict(part: SplitPart) -> dict[str, Any]:
    box = None if part.box is None else [list(part.box.start), list(part.box.stop)]
    return {"case": part.case, "box": box}


def _part_from_dict(values: Mapping[str, Any]) -> SplitPart:
    box = values.get("box")
    return SplitPart(values["case"], None if box is None else Box(three(box[0]), three(box[1])))
