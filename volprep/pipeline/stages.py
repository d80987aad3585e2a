"""One function for each arrow: the config's words turned into calls of the rooms below."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from volprep.augment import required_shape, transforms_from_config
from volprep.autoconfig import Plan, choose_target_spacing, make_plan
from volprep.cases import Case, Cases, cases_from_entries, find_cases
from volprep.checks import Report, examine_cases
from volprep.config import (
    Config,
    PlanConfig,
    SkeletonConfig,
    load_config,
    parse_spacing,
    with_values,
)
from volprep.errors import ConfigError, PlanError, SourceError
from volprep.findings import Finding
from volprep.fingerprint import (
    PERCENTILES,
    Fingerprint,
    FingerprintInput,
    LabelFacts,
    Statistics,
    compute_fingerprint,
)
from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.headers import list_volumes
from volprep.patching import Patching, StratifiedPatching
from volprep.patching.compose import StartSource
from volprep.pipeline.cut import PreparedCase, Site, read_patch
from volprep.preprocess import Normalisation, Preprocessing, case_layout
from volprep.sampling import (
    FilteredRegions,
    ForegroundIndex,
    PatchFilter,
    Rejection,
    create_patch_filter,
    filter_patches,
)
from volprep.skeletons import Skeletons, SkeletonTargets, read_skeletons
from volprep.skeletons.stream import skeletonize_volume
from volprep.sources import stem_of
from volprep.splits import SplitPart, Splits, find_duplicates, make_splits, splits_blocks

__all__ = [
    "Reporter",
    "acceptance",
    "check",
    "decide",
    "fingerprint",
    "foreground",
    "list_cases",
    "load_target",
    "measure",
    "normalisations",
    "plan_of",
    "plan_of_shape",
    "preprocessing",
]

log = logging.getLogger(__name__)

#: ``reporter(title, total, unit)`` is entered for a stage and gives ``advance(n)``.
Reporter = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]


@contextlib.contextmanager
def silent(_title: str, _total: int, _unit: str) -> Iterator[Callable[[int], None]]:
    """A reporter that says nothing."""
    yield lambda _count: None


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
        return cases_from_entries(entries, group=config.split.group, spacing=data.spacing)
    if data.root is None:
        raise ConfigError("data.root: missing; give a folder, or a list of cases")
    return find_cases(
        data.root,
        layout=data.layout,
        image_dir=data.image_dir,
        label_dir=data.label_dir,
        mask_dir=data.mask_dir,
        image_key=data.image_key,
        label_key=data.label_key,
        mask_key=data.mask_key,
        axes=data.axes,
        label_axes=data.label_axes,
        slices=data.slices,
        group=config.split.group,
        spacing=data.spacing,
    )


def check(
    config: Config,
    cases: Cases,
    *,
    headers_only: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Everything that is wrong or doubtful about the cases, and about their split."""
    splits: Splits | None = None
    impossible: tuple[Finding, ...] = ()
    distinct = cases
    if not headers_only:
        with contextlib.suppress(SourceError):  # which the report names
            distinct = without_duplicates(config, cases)
    if not splits_blocks(distinct.items, kind=config.split.kind):
        try:
            splits = _split(config, distinct, None, None)
        except PlanError as error:
            impossible = (Finding("error", "split-impossible", str(error)),)
    report = examine_cases(
        cases,
        headers_only=headers_only,
        label_kind=config.data.label_kind,
        splits=splits,
        workers=config.compute.workers,
        progress=progress,
    )
    return dataclasses.replace(report, findings=(*impossible, *report.findings))


def without_duplicates(config: Config, cases: Cases) -> Cases:
    """The cases but for exact copies of others, each of which is logged and becomes a notice.

    A copy adds nothing to training, and would leak if it were validated on.
    """
    twins = find_duplicates(cases.items, config.compute.workers) if len(cases) > 1 else {}
    notices = [
        f"{name} is left out: image and label are those of {original}, voxel for voxel"
        for name, original in twins.items()
    ]
    for notice in notices:
        log.warning(notice)
    return dataclasses.replace(
        cases,
        items=tuple(case for case in cases if case.name not in twins),
        notices=(*cases.notices, *notices),
    )


def voxel_count(cases: Cases) -> int:
    """Voxels of all images and labels that can be opened, for a progress bar."""
    total = 0
    for case in cases:
        for opened in (case.open_image, case.open_label, case.open_mask):
            with contextlib.suppress(SourceError):
                volume = opened()
                total += 0 if volume is None else math.prod(volume.shape)
    return total


def preprocessing(config: Config, plan: Plan) -> Preprocessing:
    """What is done to the voxels before they are cut."""
    section = config.preprocess
    return Preprocessing(
        target=plan.target_spacing,
        order=section.order,
        separate="auto" if section.separate_z == "auto" else 0 if section.separate_z else None,
        crop=section.crop_nonzero,
    )


def measure(
    config: Config, cases: Cases, parts: Sequence[SplitPart], reporter: Reporter, title: str
) -> Fingerprint:
    """The fingerprint of some cases, or blocks of them."""
    named = [(cases.named(part.case), part.box) for part in parts]
    inputs = [
        FingerprintInput(case.name, case.open_image, _label_opener(case), box=box)
        for case, box in named
    ]
    voxels = sum((box or Box.whole(case.open_image().shape)).size for case, box in named)
    with reporter(title, voxels, "voxels") as advance:
        return compute_fingerprint(
            inputs,
            workers=config.compute.workers,
            progress=advance,
            percentiles=sorted({*PERCENTILES, *(config.preprocess.clip or ())}),
        )


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
    if splits_blocks(cases.items, kind=config.split.kind):
        whole = measure(config, cases, [SplitPart(c.name) for c in cases], reporter, "fingerprint")
        classes = _classes(config, [whole])
        plan, splits = _plan_blocks(config, cases, whole, classes)
        settings = preprocessing(config, plan)
        parts = [_source_part(part, cases.named(part.case), settings) for part in splits.train]
        train = measure(config, cases, parts, reporter, "fingerprint (training blocks)")
        return plan, splits, train, classes
    splits = _split(config, cases, None, None)
    train = measure(config, cases, splits.train, reporter, "fingerprint")
    every = [train]
    if splits.val:
        every.append(measure(config, cases, splits.val, reporter, "fingerprint (validation)"))
    classes = _classes(config, every)
    return _plan(config, train, cases, classes), splits, train, classes


def plan_of(config: Config, reporter: Reporter = silent) -> Plan:
    """The plan of a config's cases; voxels are read only where classes must be counted."""
    cases = list_cases(config)
    parts = [SplitPart(case.name) for case in cases]
    count = config.data.label_kind == "classes" and config.data.n_classes is None
    if count and any(case.label for case in cases):
        fingerprint = measure(config, cases, parts, reporter, "fingerprint")
        return _plan(config, fingerprint, cases, _classes(config, [fingerprint]))
    return _plan(config, headers_of(cases), cases, None)


def fingerprint(
    config: Config, *, headers_only: bool = False, reporter: Reporter = silent
) -> Fingerprint:
    """The fingerprint of every case of a config."""
    cases = list_cases(config)
    if headers_only:
        return headers_of(cases)
    return measure(config, cases, [SplitPart(case.name) for case in cases], reporter, "fingerprint")


def headers_of(cases: Cases) -> Fingerprint:
    """Shapes, dtypes and spacings, without reading a voxel."""
    inputs = [FingerprintInput(case.name, case.open_image) for case in cases]
    return compute_fingerprint(inputs, headers_only=True)


def normalisations(
    config: Config, cases: Cases, fingerprint: Fingerprint, reporter: Reporter
) -> tuple[Normalisation, dict[str, Normalisation]]:
    """The rule of the data set, and those of single cases where each has its own.

    `fingerprint` is that of the training cases; where each case has its own rule, those
    of the others are measured here.
    """
    section = config.preprocess
    if section.mean is not None and len(section.mean) not in (1, fingerprint.n_channels):
        raise ConfigError(
            f"preprocess.mean: {len(section.mean)} values for {fingerprint.n_channels} channels; "
            "give one for each, or one for all"
        )

    def rule(statistics: Sequence[Statistics]) -> Normalisation:
        return Normalisation.from_statistics(
            section.normalise,
            mean=section.mean or [s.mean for s in statistics],
            std=section.std or [s.std for s in statistics],
            minimum=[s.minimum for s in statistics],
            maximum=[s.maximum for s in statistics],
            percentiles=[s.percentiles for s in statistics],
            clip=section.clip,
        )

    common = rule(fingerprint.statistics(section.region))
    if section.scope == "dataset":
        return common, {}
    own = {}
    measured = {case.name for case in fingerprint.cases}
    others = [SplitPart(case.name) for case in cases if case.name not in measured]
    facts = list(fingerprint.cases)
    if others:
        facts += measure(config, cases, others, reporter, "fingerprint (validation)").cases
    for case in facts:
        found = case.foreground if section.region == "foreground" else case.everywhere
        own[case.name] = rule(found or case.everywhere or ())
    return common, own


class _ForegroundLater:
    """A foreground index that is built when it is first asked, and let go when others are."""

    def __init__(self, number: int, box: Box, built: Callable[[int], ForegroundIndex]) -> None:
        self.number, self.box, self._built = number, box, built

    def __len__(self) -> int:
        return len(self._built(self.number))

    def patch_start(self, rng: np.random.Generator, patch_size: Sequence[int]) -> Shape3:
        return self._built(self.number).patch_start(rng, patch_size)


def foreground(
    config: Config,
    prepared: Sequence[PreparedCase],
    blocks: Sequence[tuple[int, Box]],
    progress: Callable[[int], None],
) -> list[StartSource | None]:
    """Where patches around foreground may be drawn, for each block; None without labels.

    Sites are drawn block by block, so that the indices of two blocks at a time suffice.
    """
    section = config.patching.foreground
    if section.p == 0 or config.patching.name == "sequential":
        return [None] * len(blocks)

    @functools.lru_cache(maxsize=2)
    def built(place: int) -> ForegroundIndex:
        number, box = blocks[place]
        label = prepared[number].label
        if label is None:
            raise ValueError(f"case {number} has no label")
        index = _foreground_of(label, box, section.per, config.data.label_kind)
        progress(1)
        return index

    return [
        None if prepared[number].label is None else _ForegroundLater(place, box, built)
        for place, (number, box) in enumerate(blocks)
    ]


def _foreground_of(
    label: VolumeLike, box: Box, per: Literal["class", "instance", "voxel"], kind: str
) -> ForegroundIndex:
    """The index of a block. Instances of a class map are its connected components."""
    if kind == "classes" and per == "instance":
        try:
            return ForegroundIndex.build(label, box=box, per=per, connected=True)
        except PlanError as error:
            log.warning("%s", error)
            per = "class"
    return ForegroundIndex.build(label, box=box, per=per)


def filtering(
    config: Config, prepared: Sequence[PreparedCase], blocks: Sequence[tuple[int, Box]]
) -> Callable[[Patching], list[FilteredRegions]] | None:
    """Makes patches rarer where the config's filter leaves regions out, and gives what it saw.

    None where nothing is filtered. Cases without a mask are kept as a whole by a mask filter.
    """
    section = config.patching.filter
    chosen = patch_filter(config)
    if chosen is None:
        return None
    volumes = [
        prepared[case].mask if section.name == "mask" else prepared[case].image
        for case, _ in blocks
    ]

    def adapt(patching: Patching) -> list[FilteredRegions]:
        if not isinstance(patching, StratifiedPatching):
            raise TypeError(f"{type(patching).__name__} has no regions to filter")
        return filter_patches(
            patching,
            volumes,
            chosen,
            boxes=[box for _, box in blocks],
            ref_channel=0 if section.name == "mask" else section.ref_channel,
            filtered_patch_prob=section.filtered_patch_prob,
        )

    return adapt


def patch_filter(config: Config) -> PatchFilter | None:
    """The filter of a config, None where it asks for none."""
    section = config.patching.filter
    if section.name == "none":
        return None
    return create_patch_filter(section.name, **section.parameters)


def skeleton_targets(config: Config, cases: Cases, plan: Plan) -> SkeletonTargets | None:
    """What is baked into the patches; None where the config asks for no skeletons."""
    section = config.skeletons
    if not section.enabled:
        return None
    if config.data.label_kind != "instances" or not any(case.label for case in cases):
        raise ConfigError("skeletons.enabled: needs labels, with data.label_kind: instances")
    z, y, x = plan.spacing or (1.0, 1.0, 1.0)
    finest = min(z, y, x)
    ratios = (z / finest, y / finest, x / finest)
    return SkeletonTargets(
        section.anisotropy or ratios, section.average, section.radius, section.flank_radius
    )


def make_skeletons(
    prepared: PreparedCase,
    case: Case,
    settings: Preprocessing,
    section: SkeletonConfig,
    *,
    workers: int | None,
    progress: Callable[[int], None],
) -> Skeletons:
    """The skeletons of a case, in voxels of the prepared case: those it brings, or new ones."""
    if prepared.label is None:
        raise ValueError(f"{case.name} has no label")
    if case.skeletons is None:
        return skeletonize_volume(
            prepared.label, method=section.method, workers=workers, progress=progress
        )
    labels = case.open_label()
    whole = labels.read()[0] if labels and case.skeletons.suffix != ".npz" else None
    found = read_skeletons(case.skeletons, labels=whole)
    progress(2 * math.prod(prepared.label.shape))
    if settings.target is None and not settings.crop:
        return found
    image = case.open_image()
    layout = case_layout(image, None, settings)
    kept = layout.crop or Box.whole(image.shape)
    scale = np.array(layout.shape[1:]) / np.array(kept.shape)
    return found.transform(lambda points: (points - kept.start + 0.5) * scale - 0.5)


def skeleton_voxels(prepared: Sequence[PreparedCase]) -> int:
    """What `make_skeletons` counts up to over all cases."""
    return sum(2 * math.prod(case.label.shape) for case in prepared if case.label is not None)


def acceptance(
    config: Config, prepared: Sequence[PreparedCase], size: Shape3
) -> Callable[[Site, np.random.Generator], bool] | None:
    """Which drawn sites are kept; None where every one is."""
    section = config.patching.reject
    rejection = Rejection(section.size_thres, section.diversity, section.p, section.valid_ratio)
    masked = any(case.mask is not None for case in prepared)
    if not rejection.reads_labels and not masked:
        return None

    def accept(site: Site, rng: np.random.Generator) -> bool:
        case, box = prepared[site.case], Box.at(site.start, size)
        label = valid = None
        if case.label is not None and rejection.reads_labels:
            label = read_patch(case.label, site.region, box)
        if case.mask is not None:
            valid = case.mask.read(site.region.common(box))
        return rejection.accepts(label, rng, valid)

    return accept


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


def _plan_arguments(section: PlanConfig) -> dict[str, Any]:
    return dict(section.model_dump())


def _label_opener(case: Case) -> Callable[[], VolumeLike] | None:
    label = case.label
    return None if label is None else lambda: label.open_labels()


def _classes(config: Config, measured: Sequence[Fingerprint]) -> tuple[int, ...] | None:
    """The label value of each class, background first; None for instances."""
    if config.data.label_kind != "classes":
        return None
    found = {0}
    for fingerprint in measured:
        values = fingerprint.class_voxels
        if values is None:
            raise PlanError(
                f"the labels hold more than {LabelFacts.MOST_LISTED} values in one case; "
                "set data.label_kind to instances, or relabel the classes"
            )
        found |= set(values)
    if config.data.n_classes is None:
        return tuple(sorted(found))
    if max(found) >= config.data.n_classes:
        raise PlanError(
            f"data.n_classes is {config.data.n_classes}, but the labels hold {max(found)}; "
            "leave it out to have the classes counted"
        )
    return tuple(range(config.data.n_classes))


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
    transforms = transforms_from_config(config.augment)
    if not transforms or config.plan.aug_patch_size is not None:
        return plan
    names = ", ".join(transform.name for transform in transforms)
    return dataclasses.replace(
        plan,
        aug_patch_size=required_shape(transforms, plan.patch_size, plan.spacing),
        reasons={
            **plan.reasons,
            "aug_patch_size": f"holds all that these may read: {names}",
        },
    )


def _plan_blocks(
    config: Config, cases: Cases, whole: Fingerprint, classes: Sequence[int] | None
) -> tuple[Plan, Splits]:
    """Plan and blocks together: the patch is made smaller where both sides cannot hold it."""
    plan = _plan(config, whole, cases, classes)
    settings = preprocessing(config, plan)
    shapes = {
        case.name: three(case_layout(case.open_image(), None, settings).shape[1:]) for case in cases
    }
    splits = _split(config, cases, shapes, plan.patch_size)
    if splits.patch_limit is not None and config.plan.patch_size is None:
        smaller = _plan(config, whole, cases, classes, _divisible(splits.patch_limit, plan.pool))
        plan = dataclasses.replace(
            smaller,
            given=tuple(name for name in smaller.given if name != "patch_size"),
            reasons={
                **smaller.reasons,
                "patch_size": "the largest that both sides of the one volume hold, "
                "with a gap of a patch between them",
            },
        )
        splits = _split(config, cases, shapes, plan.patch_size)
    return plan, splits


def _split(
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


def _divisible(limit: Shape3, pool: Shape3) -> Shape3:
    """The largest patch within `limit` that can be pooled, up to `pool` times, down to 4 voxels."""
    steps = [
        2 ** max(k for k in range(p + 1) if k == 0 or n >= 4 * 2**k)
        for n, p in zip(limit, pool, strict=True)
    ]
    return three(n // step * step for n, step in zip(limit, steps, strict=True))
