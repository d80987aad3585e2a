"""Decisions: splits and plan, each from the other where one volume is divided."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from volprep.augment import required_shape, transforms_from_config
from volprep.autoconfig import (
    DEFORMATION,
    BlockFit,
    Plan,
    ResampledCase,
    choose_target_spacing,
    fit_patch,
    make_plan,
    plan_epoch,
    resampled_cases,
    stored_size,
)
from volprep.cases import Case, Cases
from volprep.config import (
    Config,
    PlanConfig,
    parse_spacing,
    with_values,
)
from volprep.cutting import Drawing
from volprep.errors import ConfigError, PlanError
from volprep.fingerprint import (
    Fingerprint,
    LabelFacts,
)
from volprep.geometry import Box, Shape3, Spacing3, three
from volprep.pipeline.inputs import list_cases
from volprep.pipeline.measure import headers_of, measure
from volprep.pipeline.reporting import Reporter, silent
from volprep.preprocess import Preprocessing, case_layout
from volprep.sampling import Rejection, create_patch_filter
from volprep.splits import SplitPart, Splits, make_splits, splits_blocks

__all__ = [
    "decide",
    "drawing",
    "plan_blocks",
    "plan_of",
    "plan_of_shape",
    "preprocessing",
    "split_cases",
]


def decide(
    config: Config, cases: Cases, reporter: Reporter
) -> tuple[Plan, Splits, Fingerprint, tuple[int, ...] | None]:
    """Splits, the fingerprint of what is trained on, and the plan.

    Notes
    -----
    Intensities are measured on training voxels alone. A single volume is measured
    twice: as a whole for its plan, since the blocks that are held out follow from
    the patch, then in its training blocks. Classes are those of all labels.
    """
    if splits_blocks(cases.items, kind=config.split.kind, listed=cases.folds):
        whole = measure(config, cases, [SplitPart(c.name) for c in cases], reporter, "fingerprint")
        classes = _classes(config, cases, [whole])
        plan, splits = plan_blocks(config, cases, whole, classes)
        settings = preprocessing(config, plan)
        parts = [_source_part(part, cases.named(part.case), settings) for part in splits.train]
        train = measure(config, cases, parts, reporter, "fingerprint (training blocks)")
        return plan, splits, train, classes
    splits = split_cases(config, cases, None, None)
    train = measure(config, cases, splits.train, reporter, "fingerprint")
    every = [train]
    if splits.val:
        every.append(measure(config, cases, splits.val, reporter, "fingerprint (validation)"))
    classes = _classes(config, cases, every)
    plan = _with_epoch(config, _plan(config, train, cases, classes), splits, _shapes(cases))
    return plan, splits, train, classes


def plan_of(config: Config, reporter: Reporter = silent) -> Plan:
    """The plan of a config's cases; voxels are read only where classes must be counted."""
    cases = list_cases(config)
    parts = [SplitPart(case.name) for case in cases]
    count = cases.label_kind == "classes" and config.data.n_classes is None
    if count and any(case.label for case in cases):
        fingerprint = measure(config, cases, parts, reporter, "fingerprint")
    else:
        fingerprint, count = headers_of(cases), False
    classes = _classes(config, cases, [fingerprint]) if count else None
    if splits_blocks(cases.items, kind=config.split.kind, listed=cases.folds):
        return plan_blocks(config, cases, fingerprint, classes)[0]
    plan = _plan(config, fingerprint, cases, classes)
    return _with_epoch(config, plan, split_cases(config, cases, None, None), _shapes(cases))


def plan_of_shape(
    median: Sequence[int],
    *,
    spacing: str | None = None,
    n_channels: int = 1,
    n_classes: int = 2,
    plan: Mapping[str, Any] | None = None,
) -> Plan:
    """A plan from a median shape alone."""
    section = with_values(PlanConfig.model_validate({}), plan or {}, "plan")
    try:
        micrometres = parse_spacing(spacing)
    except ValueError as error:
        raise ConfigError(f"--spacing: {error}") from None
    return make_plan(
        median, spacing=micrometres, n_channels=n_channels, n_classes=n_classes,
        **_plan_arguments(section),
    )  # fmt: skip


def preprocessing(config: Config, plan: Plan) -> Preprocessing:
    """What is done to the voxels before they are cut."""
    section = config.preprocess
    return Preprocessing(
        target=plan.target_spacing,
        order=section.order,
        separate="auto" if section.separate_z == "auto" else 0 if section.separate_z else None,
        crop=section.crop_nonzero,
    )


def drawing(config: Config, kind: str) -> Drawing:
    """How the places of training patches are drawn from labels of a kind."""
    section = config.patching
    reject, chosen = section.reject, section.filter
    return Drawing(
        name=section.name,
        seed=config.seed,
        uniform=section.uniform,
        overlap=section.overlap,
        patches_per_case=section.patches_per_case,
        foreground=section.foreground.p,
        per=section.foreground.per,
        connected=kind == "classes",
        rejection=Rejection(reject.size_thres, reject.diversity, reject.p, reject.valid_ratio),
        filter=None
        if chosen.name == "none"
        else create_patch_filter(chosen.name, **chosen.parameters),
        filters_mask=chosen.name == "mask",
        ref_channel=chosen.ref_channel,
        filtered_patch_prob=chosen.filtered_patch_prob,
    )


def split_cases(
    config: Config, cases: Cases, shapes: Mapping[str, Shape3] | None, patch: Shape3 | None
) -> Splits:
    section = config.split
    return make_splits(
        cases.items,
        kind=section.kind,
        fraction=section.fraction,
        folds=section.folds,
        fold=section.fold,
        seed=config.seed,
        shapes=shapes,
        patch=patch,
        gap=section.gap,
        listed=cases.folds,
    )


def _plan_arguments(section: PlanConfig) -> dict[str, Any]:
    return dict(section.model_dump())


def _classes(
    config: Config, cases: Cases, measured: Sequence[Fingerprint]
) -> tuple[int, ...] | None:
    """The label value of each class, ascending; None for instances.

    0 is a class where it occurs and is annotated: labels without a background get none.
    """
    if cases.label_kind != "classes":
        return None
    found = set(cases.class_names)
    for fingerprint in measured:
        values = fingerprint.class_voxels
        if values is None:
            raise PlanError(
                f"the labels hold more than {LabelFacts.MOST_LISTED} values in one case; "
                "set data.label_kind to instances, or relabel the classes"
            )
        found |= set(values) | ({0} if fingerprint.background_voxels else set())
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
    """The plan of a fingerprint; `limit` is the largest patch that fits, where one is known."""
    rule = config.preprocess.target_spacing
    target = choose_target_spacing([c.spacing for c in fingerprint.cases], rule or "none")
    resampled = () if target is None else _resampled(config, cases, target)
    arguments = _plan_arguments(config.plan)
    if limit is not None and arguments["patch_size"] is None:
        arguments["patch_size"] = limit
    plan = make_plan(
        fingerprint.median_shape,
        spacing=fingerprint.median_spacing,
        target_spacing=target,
        n_channels=fingerprint.n_channels,
        n_classes=config.data.n_classes or (len(classes) if classes else 2),
        n_images=len(cases),
        **arguments,
    )
    plan = dataclasses.replace(plan, resampled=resampled)
    if config.plan.aug_patch_size is not None:
        return plan
    transforms = transforms_from_config(config.augment)
    names = ", ".join(transform.name for transform in transforms)
    return dataclasses.replace(
        plan,
        aug_patch_size=required_shape(transforms, plan.patch_size, plan.spacing),
        reasons={
            **plan.reasons,
            "aug_patch_size": f"holds all that these may read: {names}"
            if names
            else "the patch: nothing is augmented",
        },
    )


def _resampled(
    config: Config, cases: Cases, target: Spacing3
) -> tuple[tuple[str, Shape3, int], ...]:
    """What every case becomes; refused where that is absurd, or where the disk is too small."""
    found = []
    for case in cases:
        image, label = case.open_image(), case.open_label()
        if image.spacing is not None:
            size = 0 if label is None else label.dtype.itemsize
            found.append(
                ResampledCase(case.name, image.shape, image.spacing, image.dtype.itemsize, size)
            )
    folder = config.output.dir.absolute()
    while not folder.exists():
        folder = folder.parent
    return resampled_cases(found, target, room=shutil.disk_usage(folder).free)


def plan_blocks(
    config: Config, cases: Cases, whole: Fingerprint, classes: Sequence[int] | None
) -> tuple[Plan, Splits]:
    """Plan and blocks together, since the gap between the blocks is a patch.

    A patch that is not the user's becomes the largest one of its form for which both
    sides hold it and enough is left for training.
    """
    plan = _plan(config, whole, cases, classes)
    settings = preprocessing(config, plan)
    shapes = {
        case.name: three(case_layout(case.open_image(), None, settings).shape[1:]) for case in cases
    }
    if config.plan.patch_size is None and config.split.fraction > 0:
        fit = fit_patch(
            plan.patch_size, plan.pool, lambda patch: _divided(config, cases, shapes, patch)
        )
        if fit is not None and fit.patch != plan.patch_size:
            plan = _with_reason(_plan(config, whole, cases, classes, fit.patch), fit)
    splits = split_cases(config, cases, shapes, plan.patch_size)
    return _with_epoch(config, plan, splits, _shapes(cases)), splits


def _shapes(cases: Cases) -> dict[str, Shape3]:
    """(Z, Y, X) of each case's file."""
    return {case.name: three(case.open_image().shape[1:]) for case in cases}


def _with_epoch(config: Config, plan: Plan, splits: Splits, shapes: Mapping[str, Shape3]) -> Plan:
    """The plan with what the training regions offer, before empty borders are cut away."""
    grown = {name: shape for name, shape, _ in plan.resampled}
    regions = [
        grown.get(part.case, shapes[part.case]) if part.box is None else part.box.shape
        for part in splits.train
    ]
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


def _divided(
    config: Config, cases: Cases, shapes: Mapping[str, Shape3], patch: Shape3
) -> tuple[float, list[Shape3]] | None:
    """The share that blocks for a patch leave for training, and their shapes; None if none fit."""
    try:
        splits = split_cases(config, cases, shapes, patch)
    except PlanError:
        return None
    if splits.patch_limit is not None:
        return None
    blocks = [shapes[part.case] if part.box is None else part.box.shape for part in splits.train]
    whole = sum(math.prod(shapes[name]) for name in {part.case for part in splits.train})
    return sum(map(math.prod, blocks)) / whole, blocks


def _with_reason(plan: Plan, fit: BlockFit) -> Plan:
    """The plan of a patch that was made smaller here, which is no user's choice."""
    reason = (
        "the largest of the planner's form for which a block of the one volume can be held out "
        f"with a gap of a patch; {fit.trained:.0%} is left for training, in which the patch has "
        f"{fit.positions} places"
    )
    if fit.deformation > DEFORMATION:
        reason += f"; one side had to be shortened {fit.deformation:.1f} times more than another"
    return dataclasses.replace(
        plan,
        given=tuple(name for name in plan.given if name != "patch_size"),
        reasons={**plan.reasons, "patch_size": reason},
    )


def _source_part(part: SplitPart, case: Case, settings: Preprocessing) -> SplitPart:
    """A block of a prepared case in the voxels of its source, rounded inwards."""
    if part.box is None or (settings.target is None and not settings.crop):
        return part
    image = case.open_image()
    layout = case_layout(image, None, settings)
    kept = layout.crop or Box.whole(image.shape)
    scale = [a / b for a, b in zip(kept.shape, layout.shape[1:], strict=True)]
    start = [
        a + math.ceil(n * s) for a, n, s in zip(kept.start, part.box.start, scale, strict=True)
    ]
    stop = [a + math.floor(n * s) for a, n, s in zip(kept.start, part.box.stop, scale, strict=True)]
    stop = [max(a + 1, b) for a, b in zip(start, stop, strict=True)]
    return SplitPart(part.case, Box(three(start), three(stop)))
