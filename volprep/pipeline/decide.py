"""Decisions: splits and plan, each from the other where one volume is divided."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from volprep.autoconfig import (
    Plan,
    ResampledCase,
    choose_store,
    choose_target_spacing,
    make_plan,
    places_in,
    plan_epoch,
    resampled_cases,
    room_for_planes,
    rooms_for_patches,
    stored_size,
)
from volprep.cases import Cases
from volprep.checks import Report
from volprep.config import (
    Config,
    PlanConfig,
    parse_spacing,
    with_values,
)
from volprep.cutting import Drawing
from volprep.errors import ConfigError, DataCheckError, PlanError, SourceError, VolprepError
from volprep.fingerprint import (
    Fingerprint,
    LabelFacts,
)
from volprep.geometry import Box, Shape3, Spacing3, three
from volprep.pipeline.augmentation import Look, listed_augment, look_into, with_augment
from volprep.pipeline.inputs import chosen_cases
from volprep.pipeline.measure import crop_boxes, free_room, headers_of, label_values
from volprep.pipeline.targets import targets_of
from volprep.pipeline.told import Reporter, silent
from volprep.preprocess import CaseLayout, Header, Preprocessing, case_layout
from volprep.sampling import Rejection, create_patch_filter
from volprep.splits import SplitPart, Splits, make_splits, splits_blocks

if TYPE_CHECKING:
    from volprep.loader import MeasuredStep

__all__ = [
    "Decision",
    "Known",
    "decide",
    "drawing",
    "foreseen",
    "foreseen_parts",
    "measure_plan",
    "plan_blocks",
    "plan_of",
    "plan_of_shape",
    "refuse_impossible",
    "split_cases",
    "survey",
    "uncropped",
]


@dataclass(frozen=True, slots=True)
class Known:
    """What must be known of the cases before anything is decided.

    Attributes
    ----------
    heads : Fingerprint
        Shapes, dtypes and spacings of every case.
    look : callable
        Takes a glance at a part that trains, where `augment: auto` cannot tell without.
    values : frozenset of int, or None
        Every value of the labels, 0 where it occurs; None where it does not matter.
    label_bytes : mapping of str to int
        Of a voxel of each case's labels.
    room : int or None
        Bytes that resampled volumes may take; None does not ask.
    crops : mapping of str to Box
        The box of each case's voxels that are not zero, where cases are cropped to it.
    """

    heads: Fingerprint
    look: Look
    values: frozenset[int] | None = None
    label_bytes: Mapping[str, int] = field(default_factory=dict)
    room: int | None = None
    crops: Mapping[str, Box] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What `prepare` will do.

    Attributes
    ----------
    plan : Plan
    splits : Splits
    classes : tuple of int, or None
        The label value of each class, background first; None for instances.
    layouts : mapping of str to CaseLayout
        What each case will be.
    measured : tuple of SplitPart
        What intensities are measured on: what trains, in voxels of the files.
    """

    plan: Plan
    splits: Splits
    classes: tuple[int, ...] | None
    layouts: Mapping[str, CaseLayout]
    measured: tuple[SplitPart, ...]


def decide(config: Config, cases: Cases, known: Known) -> Decision:
    """Splits, plan and layouts; the same for every command, since nothing is read in here.

    Notes
    -----
    What is planned for depends on the cases that train alone. Where volumes are divided,
    the blocks that are held out follow from the patch, and it from what they leave.
    """
    classes = _classes(config, cases, known.values)
    divides = splits_blocks(cases.items, kind=config.split.kind, listed=cases.folds)
    splits = None if divides else split_cases(config, cases, None, None)
    trained = {case.name for case in cases} if splits is None else {p.case for p in splits.train}
    heads = dataclasses.replace(
        known.heads, cases=tuple(head for head in known.heads.cases if head.name in trained)
    )
    settings = _preprocessing(config, heads)
    layouts = {
        head.name: case_layout(
            Header(head.shape, np.dtype(head.dtype), head.spacing), None, settings,
            crop=known.crops.get(head.name),
        )
        for head in known.heads.cases
    }  # fmt: skip
    resampled = () if settings.target is None else _resampled(known, settings.target)
    shapes = {name: three(layout.shape[1:]) for name, layout in layouts.items()}
    if splits is None:
        plan, splits = plan_blocks(config, cases, heads, classes, layouts)
    else:
        plan = _plan(config, heads, cases, classes)
    measured = tuple(
        SplitPart(part.case, part.box and layouts[part.case].to_source(part.box))
        for part in splits.train
    )
    augment, reason = listed_augment(config, heads.cases[0], known.look, measured[0])
    given = config.plan.aug_patch_size is not None
    plan = with_augment(plan, augment, reason, size_given=given)
    plan = _with_epoch(config, dataclasses.replace(plan, resampled=resampled), splits, shapes)
    plan = _with_store(config, plan, splits, layouts, known.label_bytes)
    return Decision(plan, splits, classes, layouts, measured)


def foreseen(config: Config, cases: Cases) -> tuple[Cases, Decision] | None:
    """What will be decided, and for which cases, as far as headers tell; None if they do not.

    Nothing is decided by it, and no voxel is read for it: classes are taken for two, no image
    for a copy of another, and nothing is cropped.
    """
    with contextlib.suppress(VolprepError):
        return _by_headers(config, cases, frozenset({0, 1}))
    return None


def refuse_impossible(config: Config, cases: Cases, heads: Report) -> None:
    """Refuse what headers alone show to be impossible, before any voxel is read.

    Parameters
    ----------
    config : Config
    cases : Cases
    heads : Report
        Where they show errors, or labels are missing, those are the cause and told first.

    Raises
    ------
    PlanError
        If there is no split or no plan, whatever the voxels are.
    ConfigError
        If a value does not go with the data.
    """
    wrong = any(finding.level == "error" for finding in heads.findings)
    partly = len({case.label is None for case in cases}) > 1
    if wrong or partly or config.preprocess.crop_nonzero:
        return
    with contextlib.suppress(SourceError, DataCheckError):  # which the check tells
        chosen, decision = _by_headers(config, cases, frozenset())
        targets_of(config, chosen, decision.plan)


def _by_headers(config: Config, cases: Cases, values: frozenset[int]) -> tuple[Cases, Decision]:
    """What would be decided if all labels held these values."""
    chosen = chosen_cases(config, cases, {})
    known = survey(config, chosen, silent, values if cases.label_kind == "classes" else None, {})
    crops = {head.name: Box.whole(head.shape) for head in known.heads.cases}
    known = dataclasses.replace(
        known, look=lambda _part: (0.0, 0.5, 1.0), room=None,
        crops=crops if config.preprocess.crop_nonzero else {},
    )  # fmt: skip
    return chosen, decide(config, chosen, known)


def foreseen_parts(config: Config, cases: Cases, decision: Decision) -> dict[str, Box | None]:
    """What intensities will be measured on, by case; those of several parts are left out."""
    once = Counter(part.case for part in decision.measured)
    found = {part.case: part.box for part in decision.measured if once[part.case] == 1}
    if config.preprocess.scope == "case":
        found |= {case.name: None for case in cases if case.name not in once}
    return found


def uncropped(config: Config) -> Config:
    """The config as if nothing were cropped, for what must not depend on voxels."""
    preprocess = config.preprocess.model_copy(update={"crop_nonzero": False})
    return config.model_copy(update={"preprocess": preprocess})


def plan_of(config: Config, reporter: Reporter = silent) -> Plan:
    """The plan that `prepare` would use; voxels are read only where they decide something."""
    cases = chosen_cases(config)
    return decide(config, cases, survey(config, cases, reporter)).plan


def survey(
    config: Config,
    cases: Cases,
    reporter: Reporter,
    values: frozenset[int] | None = None,
    crops: Mapping[str, Box] | None = None,
) -> Known:
    """What `decide` needs: headers, and of voxels what the config makes matter.

    `values` are those of the labels and `crops` the boxes of what is not zero, where they
    are known already.
    """
    heads = headers_of(cases)
    labels = ((case.name, case.open_label()) for case in cases)
    label_bytes = {name: label.dtype.itemsize for name, label in labels if label is not None}
    if cases.label_kind == "classes" and label_bytes and values is None:
        values = label_values(config, cases, reporter)
    if crops is None:
        crops = crop_boxes(config, cases, reporter) if config.preprocess.crop_nonzero else {}
    most = max(label_bytes.values(), default=0)
    room = free_room(config, most) if config.preprocess.resamples else None
    return Known(heads, look_into(cases), values, label_bytes, room, crops)


def plan_of_shape(
    median: Sequence[int],
    *,
    spacing: str | None = None,
    n_channels: int = 1,
    n_classes: int = 2,
    plan: Mapping[str, Any] | None = None,
) -> Plan:
    """A plan from a median shape alone."""
    section = with_values(PlanConfig.model_validate({}), plan or {})
    try:
        micrometres = parse_spacing(spacing)
    except ValueError as error:
        raise ConfigError(f"--spacing: found {spacing!r}, which {error}") from None
    return make_plan(
        median, spacing=micrometres, n_channels=n_channels, n_classes=n_classes,
        **_plan_arguments(section),
    )  # fmt: skip


def measure_plan(plan: Plan, device: str | None = None) -> MeasuredStep:
    """Train the planned network for two steps on noise, on CUDA where it is, else on the CPU."""
    from volprep.loader import PlannedUNet, measure_step  # torch takes seconds to load

    network = PlannedUNet(
        strides=plan.strides, kernels=plan.kernel_sizes, features=plan.features,
        n_channels=plan.n_channels, n_outputs=plan.n_classes,
    )  # fmt: skip
    return measure_step(
        network, plan.patch_size, plan.batch_size, n_channels=plan.n_channels,
        n_classes=plan.n_classes, precision=plan.precision, device=device,
    )  # fmt: skip


def _preprocessing(config: Config, heads: Fingerprint) -> Preprocessing:
    """What is done to the voxels before they are cut."""
    section = config.preprocess
    return Preprocessing(
        target=_target_spacing(config, heads),
        order=section.order,
        separate="auto" if section.separate_z == "auto" else 0 if section.separate_z else None,
        crop=section.crop_nonzero,
    )


def _target_spacing(config: Config, heads: Fingerprint) -> Spacing3 | None:
    rule = config.preprocess.target_spacing
    return choose_target_spacing([c.spacing for c in heads.cases], rule or "none")


def drawing(config: Config, kind: str, plan: Plan) -> Drawing:
    """How the places of training patches are drawn from labels of a kind."""
    section = config.patching
    reject, chosen = section.reject, section.filter
    return Drawing(
        name=section.name,
        seed=config.seed,
        uniform=section.uniform,
        shown=plan.patch_size,
        overlap=section.overlap,
        patches_per_case=section.patches_per_case,
        foreground=section.foreground.p,
        per=section.foreground.per,
        cover=plan.cover or 1,
        connected=kind == "classes",
        rejection=Rejection(
            reject.size_thres,
            reject.diversity,
            reject.p,
            None if reject.valid_ratio == "auto" else reject.valid_ratio,
        ),
        filter=None
        if chosen.name == "none"
        else create_patch_filter(chosen.name, **chosen.parameters),
        filters_mask=chosen.name == "mask",
        ref_channel=chosen.ref_channel,
        filtered_patch_prob=chosen.filtered_patch_prob,
    )


def split_cases(
    config: Config, cases: Cases, layouts: Mapping[str, CaseLayout] | None, patch: Shape3 | None
) -> Splits:
    """The splits of a config; what the cases will be matters where volumes are divided."""
    section = config.split
    will_be = layouts or {}
    return make_splits(
        cases.items,
        kind=section.kind,
        fraction=section.fraction,
        folds=section.folds,
        fold=section.fold,
        seed=config.seed,
        shapes={name: three(layout.shape[1:]) for name, layout in will_be.items()} or None,
        reach={name: layout.reach for name, layout in will_be.items()},
        patch=patch,
        gap=section.gap,
        listed=cases.folds,
    )


def _plan_arguments(section: PlanConfig) -> dict[str, Any]:
    return dict(section.model_dump())


def _classes(config: Config, cases: Cases, values: frozenset[int] | None) -> tuple[int, ...] | None:
    """The label value of each class, ascending; None for instances.

    0 is a class where it occurs and is annotated: labels without a background get none.
    """
    if cases.label_kind != "classes":
        return None
    found = set(cases.class_names) | (values or set())
    if len(found) > LabelFacts.MOST_LISTED:
        raise PlanError(
            f"the labels hold more than {LabelFacts.MOST_LISTED} values; "
            "set data.label_kind to instances, or relabel the classes"
        )
    if 0 in found and not cases.class_names and not cases.has_background:
        found.discard(0)
    wanted = config.data.n_classes
    if wanted is None or found == set(range(wanted)):
        return tuple(sorted(found or {0}))
    if max(found, default=0) < wanted:
        return tuple(range(wanted))
    if len(found) == wanted:
        return tuple(sorted(found))
    raise PlanError(
        f"data.n_classes is {wanted}, but the labels hold {len(found)} values up to "
        f"{max(found)}; leave it out to have the classes counted"
    )


def _plan(
    config: Config,
    fingerprint: Fingerprint,
    cases: Cases,
    classes: Sequence[int] | None,
    limit: Shape3 | None = None,
) -> Plan:
    """The plan of a fingerprint; `limit` is the box that a patch may fill, if not all."""
    arguments = _plan_arguments(config.plan)
    shape, target = fingerprint.median_shape, _target_spacing(config, fingerprint)
    n_images = len(cases)
    if config.patching.do_2d is not None:
        # One plane, which stays one plane however volumes are resampled.
        shape, n_images = (1, *shape[1:]), sum(head.shape[1] for head in fingerprint.cases)
        if target is not None and fingerprint.median_spacing is not None:
            target = (fingerprint.median_spacing[0], *target[1:])
    plan = make_plan(
        shape,
        spacing=fingerprint.median_spacing,
        target_spacing=target,
        n_channels=fingerprint.n_channels,
        n_classes=config.data.n_classes or (len(classes) if classes else 2),
        n_images=n_images,
        limit=limit,
        **arguments,
    )
    return plan if config.patching.do_2d is None else _of_planes(config, plan, fingerprint)


def _of_planes(config: Config, plan: Plan, fingerprint: Fingerprint) -> Plan:
    """The plan with the spacing that the volumes will have, and what its planes are."""
    target = _target_spacing(config, fingerprint)
    rows = {"z": "y and x", "y": "z and x", "x": "z and y"}[config.patching.do_2d or "z"]
    reason = (
        f"{plan.reasons['median_shape']}; of it one plane across {config.patching.do_2d}, "
        f"whose rows and columns are {rows}: patching.do_2d"
    )
    return dataclasses.replace(
        plan,
        spacing=target or plan.spacing,
        target_spacing=target,
        reasons={**plan.reasons, "median_shape": reason},
    )


def _resampled(known: Known, target: Spacing3) -> tuple[tuple[str, Shape3, int], ...]:
    """What every case becomes; refused where that is absurd, or where the disk is too small."""
    found = [
        ResampledCase(
            head.name, head.shape, head.spacing, np.dtype(head.dtype).itemsize,
            known.label_bytes.get(head.name, 0),
        )
        for head in known.heads.cases
        if head.spacing is not None
    ]  # fmt: skip
    return resampled_cases(found, target, room=known.room)


def plan_blocks(
    config: Config,
    cases: Cases,
    heads: Fingerprint,
    classes: Sequence[int] | None,
    layouts: Mapping[str, CaseLayout],
) -> tuple[Plan, Splits]:
    """Plan and blocks together, since the gap between the blocks is a patch.

    `layouts` say what the cases will be. A patch that is not the user's becomes the planner's
    for the boxes that leave enough of the volume for training on both sides of a gap.
    """
    plan = _plan(config, heads, cases, classes)
    if config.plan.patch_size is None and config.split.fraction > 0:
        plan = _divisible_plan(config, cases, heads, classes, layouts, plan)
    return plan, split_cases(config, cases, layouts, plan.patch_size)


def _divisible_plan(
    config: Config,
    cases: Cases,
    heads: Fingerprint,
    classes: Sequence[int] | None,
    layouts: Mapping[str, CaseLayout],
    whole: Plan,
) -> Plan:
    """The plan of the largest patch for which a block can be held out; `whole` if none can."""
    divided = partial(_divided, config, cases, layouts)
    plane = None
    if config.patching.do_2d is not None:
        plane = room_for_planes(whole.median_shape, divided)
    rooms = [plane] if plane else rooms_for_patches(whole.median_shape, whole.spacing, divided)
    plans = [_plan(config, heads, cases, classes, room) for room in rooms]
    found = [(plan, divided(plan.patch_size)) for plan in plans]
    possible = [(plan, division) for plan, division in found if division is not None]
    if not possible:
        return whole
    plan, division = max(possible, key=lambda each: math.prod(each[0].patch_size))
    return whole if plan.patch_size == whole.patch_size else _with_reason(plan, *division)


def _with_epoch(config: Config, plan: Plan, splits: Splits, shapes: Mapping[str, Shape3]) -> Plan:
    """The plan with what the training regions offer."""
    regions = [shapes[part.case] if part.box is None else part.box.shape for part in splits.train]
    epoch = plan_epoch(
        regions, plan.patch_size, stored_size(plan.patch_size, plan.aug_patch_size, regions),
        batch_size=plan.batch_size, steps=config.epoch.steps,
    )  # fmt: skip
    given = config.patching.patches_per_case
    cases = len({part.case for part in splits.train})
    return dataclasses.replace(
        plan,
        steps=epoch.steps,
        n_positions=epoch.positions,
        cover=epoch.cover if given is None else None,
        n_patches=epoch.patches if given is None else given * cases,
        reasons={
            **plan.reasons,
            "steps": "epoch.steps: an epoch is so many batches, each drawn anew",
            "n_positions": "places that a patch can take in the training data",
            "n_patches": epoch.reason if given is None else "patching.patches_per_case, given",
        },
    )


def _with_store(
    config: Config,
    plan: Plan,
    splits: Splits,
    layouts: Mapping[str, CaseLayout],
    label_bytes: Mapping[str, int],
) -> Plan:
    """The plan with what is kept: patches that are cut once, or volumes to draw from."""
    asked = config.output.store
    if asked == "auto" and config.output.targets == "store":
        reason = "output.targets: store keeps targets with the patches that they belong to"
        return dataclasses.replace(plan, store="patches", reasons={**plan.reasons, "store": reason})
    voxel = {
        name: layout.shape[0] * layout.dtype.itemsize + label_bytes.get(name, 0)
        for name, layout in layouts.items()
    }
    shapes = {name: three(layout.shape[1:]) for name, layout in layouts.items()}
    regions = {
        side: [shapes[part.case] if part.box is None else part.box.shape for part in parts]
        for side, parts in (("train", splits.train), ("val", splits.val))
    }
    stored = stored_size(plan.patch_size, plan.aug_patch_size, regions["train"])
    tiles = sum(
        math.prod(-(-n // p) for n, p in zip(region, plan.patch_size, strict=True))
        for region in regions["val"]
    )
    cut = (plan.n_patches or 0) * math.prod(stored) + tiles * math.prod(plan.patch_size)
    store, reason = choose_store(
        asked,
        cut * max(voxel.values()),
        sum(math.prod(shapes[name]) * each for name, each in voxel.items()),
    )
    return dataclasses.replace(plan, store=store, reasons={**plan.reasons, "store": reason})


def _divided(
    config: Config, cases: Cases, layouts: Mapping[str, CaseLayout], patch: Shape3
) -> tuple[float, list[Shape3]] | None:
    """The share that blocks for a patch leave for training, and their shapes; None if none fit."""
    try:
        splits = split_cases(config, cases, layouts, patch)
    except PlanError:
        return None
    if splits.patch_limit is not None:
        return None
    shapes = {name: three(layout.shape[1:]) for name, layout in layouts.items()}
    blocks = [shapes[part.case] if part.box is None else part.box.shape for part in splits.train]
    whole = sum(math.prod(shapes[name]) for name in {part.case for part in splits.train})
    return sum(map(math.prod, blocks)) / whole, blocks


def _with_reason(plan: Plan, trained: float, blocks: Sequence[Shape3]) -> Plan:
    """The plan of a patch that was made smaller here, which is no user's choice."""
    reason = (
        "the largest that fits into the memory for which a block of the one volume can be held "
        f"out with a gap of a patch; {trained:.0%} is left for training, in which the patch has "
        f"{places_in(blocks, plan.patch_size)} places"
    )
    return dataclasses.replace(plan, reasons={**plan.reasons, "patch_size": reason})
