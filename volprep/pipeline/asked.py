"""What a config asks for, held against the data: what it cannot have, and what does nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from volprep.autoconfig import choose_target_spacing
from volprep.cases import Cases
from volprep.checks import Report
from volprep.config import Config, given_value, on_one_line
from volprep.errors import ConfigError
from volprep.findings import Finding

__all__ = ["idle_keys", "idle_values", "refuse_misfits"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A config, and what headers say of the cases that it is for."""

    config: Config
    cases: Cases
    heads: Report

    @property
    def labelled(self) -> bool:
        """Whether some case has a label."""
        return any(case.label is not None for case in self.cases)

    @property
    def masked(self) -> bool:
        """Whether some case has a valid mask, of its own or by what is ignored."""
        return any(facts.mask is not None for facts in self.heads.facts)

    @property
    def pointed(self) -> bool:
        """Whether some label is points."""
        labels = (case.label for case in self.cases)
        return any(label is not None and label.is_points for label in labels)

    @property
    def timed(self) -> bool:
        """Whether some image is a time point of several."""
        return any(case.image.time is not None for case in self.cases)

    @property
    def listed(self) -> bool:
        """Whether folds that come with the data are taken."""
        return self.config.split.kind == "auto" and bool(self.cases.folds)

    @property
    def folded(self) -> bool:
        """Whether one of some folds is held out."""
        split = self.config.split
        return self.listed or split.kind == "kfold" or bool(split.folds)

    @property
    def divided(self) -> bool:
        """Whether blocks of volumes are held out."""
        from volprep.splits import splits_blocks

        kind = self.config.split.kind
        return splits_blocks(self.cases.items, kind=kind, listed=self.cases.folds)


#: Patches of so many times a volume's size are no wish, but a slip.
_TIMES = 16
#: Of the grey values of a region of fewer than 2**40 voxels.
_MOST_BITS = 40
_NO_LABELS = "without a single label"
_NO_POINTS = "without labels that are points (.csv, .xml)"
_OF_A_GRID = "with `patching.name: sequential`, which takes every place of a grid"
_NO_SKELETONS = "without `skeletons.enabled: true`"
_NO_RESAMPLING = "without a `preprocess.target_spacing`"
_NO_MEASURE = "with a `preprocess.normalise` that measures nothing"


def _measured(seen: Seen) -> bool:
    return seen.config.preprocess.normalise not in ("none", "given")


def _resampled(seen: Seen) -> bool:
    return seen.config.preprocess.resamples


def _skeletons(seen: Seen) -> bool:
    return seen.config.skeletons.enabled


def _labelled(seen: Seen) -> bool:
    return seen.labelled


def _at_once(seen: Seen) -> bool:
    return seen.config.compute.executor != "serial" or seen.config.compute.workers == 1


def _drawn(seen: Seen) -> bool:
    return seen.config.patching.name != "sequential"


def _filters(seen: Seen) -> bool:
    return seen.config.patching.filter.name != "none"


def _looks_at_grey(seen: Seen) -> bool:
    return seen.config.patching.filter.name not in ("none", "mask")


def _pointed(seen: Seen) -> bool:
    return seen.pointed


def _throws_back(seen: Seen) -> bool:
    reject = seen.config.patching.reject
    return reject.size_thres > 0 or reject.diversity > 0


#: A key, what it needs to do anything, and what is said where that is not so. Of several that
#: stand for one key the first counts that is not met.
_NEEDS: tuple[tuple[str, Callable[[Seen], bool], str], ...] = (
    ("data.labels.threshold", _labelled, _NO_LABELS),
    ("data.labels.background", _labelled, _NO_LABELS),
    ("data.labels.connected_components", _labelled, _NO_LABELS),
    ("data.labels.min_size", _labelled, _NO_LABELS),
    ("data.labels.relabel", _labelled, _NO_LABELS),
    ("data.label_colours", _labelled, _NO_LABELS),
    ("data.ignore", _labelled, _NO_LABELS),
    ("data.unlabelled", _labelled, _NO_LABELS),
    ("data.n_classes", _labelled, _NO_LABELS),
    ("data.points.radius", _pointed, _NO_POINTS),
    ("data.points.unit", _pointed, _NO_POINTS),
    ("data.points.offset", _pointed, _NO_POINTS),
    ("data.points.ids", _pointed, _NO_POINTS),
    ("data.time", lambda seen: seen.timed, "without a file of several time points"),
    ("data.modality", lambda seen: seen.config.augment == "auto", "without `augment: auto`"),
    ("split.folds", lambda seen: not seen.listed, "with the folds that the data brings"),
    ("split.fold", lambda seen: seen.folded, "without folds; `split.folds` says how many"),
    ("split.fraction", lambda seen: not seen.folded, "with folds"),
    ("split.gap", lambda seen: seen.divided, "where whole cases are held out, not blocks"),
    ("plan.max_dims", lambda seen: seen.config.plan.planner == "biom3d", "without `biom3d`"),
    ("preprocess.order", _resampled, _NO_RESAMPLING),
    ("preprocess.separate_z", _resampled, _NO_RESAMPLING),
    ("preprocess.region", _labelled, _NO_LABELS),
    ("preprocess.region", _measured, _NO_MEASURE),
    ("preprocess.scope", _measured, _NO_MEASURE),
    ("patching.foreground.p", _labelled, _NO_LABELS),
    ("patching.foreground.per", _labelled, _NO_LABELS),
    ("patching.foreground.per", lambda s: s.config.patching.foreground.p > 0, "with `p: 0`"),
    ("patching.foreground.p", _drawn, _OF_A_GRID),
    ("patching.foreground.per", _drawn, _OF_A_GRID),
    ("patching.patches_per_case", _drawn, _OF_A_GRID),
    ("patching.reject.size_thres", _labelled, _NO_LABELS),
    ("patching.reject.diversity", _labelled, _NO_LABELS),
    ("patching.reject.p", _throws_back, "without `size_thres` or `diversity`"),
    ("patching.reject.valid_ratio", lambda seen: seen.masked, "without a single valid mask"),
    ("patching.filter.name: mask", lambda seen: seen.masked, "without a single valid mask"),
    ("patching.filter.ref_channel", _looks_at_grey, "without a filter of grey values"),
    ("patching.filter.filtered_patch_prob", _filters, "without a filter"),
    ("skeletons.method", _skeletons, _NO_SKELETONS),
    ("skeletons.anisotropy", _skeletons, _NO_SKELETONS),
    ("skeletons.average", _skeletons, _NO_SKELETONS),
    ("skeletons.radius", _skeletons, _NO_SKELETONS),
    ("skeletons.flank_radius", _skeletons, _NO_SKELETONS),
    ("epoch.augment_warm_up", lambda seen: bool(seen.config.augment), "without augmentation"),
    ("output.targets", lambda seen: bool(seen.config.targets), "without `targets`"),
    ("compute.workers", _at_once, "with `compute.executor: serial`"),
)


def idle_keys(config: Config, cases: Cases, heads: Report) -> Iterator[Finding]:
    """Keys that are given, are not what they would be anyway, and do nothing with this data."""
    seen, told = Seen(config, cases, heads), set[str]()
    for entry, met, why in _NEEDS:
        key, _, wanted = entry.partition(": ")
        value = given_value(config, key)
        if value is None or key in told or (wanted and value != wanted) or met(seen):
            continue
        told.add(key)
        yield Finding("option-idle", f"`{key}: {on_one_line(value)}` {why}")


def idle_values(config: Config, report: Report) -> Iterator[Finding]:
    """Values that no label holds, or that ask for more than any label holds."""
    labelled = [facts for facts in report.facts if facts.labels is not None]
    for key in ("ignore", "unlabelled"):
        value = given_value(config, f"data.{key}")
        if value not in (None, ()) and labelled and all(f.all_valid for f in labelled):
            yield Finding("option-idle", f"`data.{key}: {on_one_line(value)}`: no label holds it")
    reject, counts = config.patching.reject, [f.labels for f in labelled if f.labels is not None]
    held = {
        "size_thres": ("labelled voxels", max((int(c.sizes.sum()) for c in counts), default=0)),
        "diversity": ("ids, 0 among them,", max((len(c.values) for c in counts), default=0)),
    }
    for key, (what, most) in held.items():
        if counts and getattr(reject, key) > most:
            found = f"`patching.reject.{key}: {getattr(reject, key)}`: no label holds more than"
            yield Finding("option-idle", f"{found} {most} {what} in all")

    yield from _idle_filter(config, report)


def _idle_filter(config: Config, report: Report) -> Iterator[Finding]:
    """A filter whose bound no grey value reaches, so that every region is left out alike."""
    section = config.patching.filter
    channel = section.ref_channel
    seen = [f.voxels for f in report.facts if f.voxels is not None]
    if section.name in ("none", "mask") or not seen:
        return
    most = max(facts.high[channel] for facts in seen)
    spread = max(facts.high[channel] - facts.low[channel] for facts in seen)
    reached = {
        "max": (("threshold", most),),
        "mean_std": (("mean_threshold", most), ("std_threshold", spread)),
        "shannon": (("threshold", _MOST_BITS),),
    }
    for key, bound in reached[section.name]:
        value = section.parameters.get(key)
        if value is not None and value > bound:
            found = f"`patching.filter.{key}: {value:g}`: no region comes above {bound:g}"
            yield Finding("option-idle", f"{found}, so that all are left out alike")


def refuse_misfits(config: Config, cases: Cases, heads: Report) -> None:
    """Refuse values that fit the schema and not the data, before any voxel is read.

    Raises
    ------
    ConfigError
        With all of them.
    """
    wrong = list(_misfits(config, cases, heads))
    if wrong:
        raise ConfigError("\n".join(wrong))


def _misfits(config: Config, cases: Cases, heads: Report) -> Iterator[str]:
    patch, overlap = config.plan.patch_size, config.patching.overlap
    if patch is not None and any(o >= p for o, p in zip(overlap, patch, strict=True)):
        yield (
            f"patching.overlap: {list(overlap)} is not smaller than plan.patch_size {list(patch)}; "
            "give less along every axis"
        )
    yield from _beyond_the_volumes(config, heads)
    channels = [facts.image.shape[0] for facts in heads.facts if facts.image is not None]
    chosen = config.patching.filter
    if chosen.name not in ("none", "mask") and channels and chosen.ref_channel >= min(channels):
        yield (
            f"patching.filter.ref_channel: {chosen.ref_channel} of {min(channels)} channels; "
            f"give 0 to {min(channels) - 1}"
        )
    axis = config.patching.do_2d
    flat = [f.case.name for f in heads.facts if f.image is not None and f.image.shape[2] == 1]
    if axis in ("y", "x") and flat:
        yield (
            f"patching.do_2d: {axis} takes planes out of volumes, and {flat[0]} is a 2D image; "
            "leave it out"
        )
    if "copy_paste" in _augmentations(config) and all(case.label is None for case in cases):
        yield "augment.copy_paste: copies labelled objects, and there are no labels"


def _beyond_the_volumes(config: Config, heads: Report) -> Iterator[str]:
    """Sizes and poolings that no volume comes near to: a slip of the finger, mostly."""
    images = [facts.image for facts in heads.facts if facts.image is not None]
    if not images:
        return
    target = choose_target_spacing(
        [image.spacing for image in images], config.preprocess.target_spacing or "none"
    )
    grown = [
        (1.0, 1.0, 1.0)
        if target is None or image.spacing is None
        else tuple(own / new for own, new in zip(image.spacing, target, strict=True))
        for image in images
    ]
    room = [
        max(
            math.ceil(image.shape[1 + axis] * by[axis])
            for image, by in zip(images, grown, strict=True)
        )
        for axis in range(3)
    ]
    for name in ("patch_size", "aug_patch_size"):
        size = getattr(config.plan, name)
        if size is not None and any(n > _TIMES * most for n, most in zip(size, room, strict=True)):
            yield (
                f"plan.{name}: {list(size)} is more than {_TIMES} times as large as any volume, "
                f"{room} at most; give a smaller one, or leave it out"
            )
    size, wanted = config.plan.patch_size, config.patching.reject.size_thres
    whole = math.prod(size or room)
    if wanted > whole:
        yield (
            f"patching.reject.size_thres: {wanted} is more than the {whole} voxels of "
            f"{'a patch' if size else 'any volume'}; give fewer"
        )
    most = [(_TIMES * n).bit_length() - 1 for n in room]
    pool = config.plan.pool
    if pool is not None and any(p > m for p, m in zip(pool, most, strict=True)):
        yield (
            f"plan.pool: {list(pool)} halves a patch until nothing is left: volumes have {room} "
            f"voxels; give at most {most}, or leave it out"
        )


def _augmentations(config: Config) -> set[str]:
    """The names of the transforms that are asked for."""
    listed = config.augment
    if isinstance(listed, str):
        return set()
    return {name for each in listed for name in ([each] if isinstance(each, str) else each)}
