"""Facts: the fingerprint of cases or blocks, and the numbers of the normalisation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from volprep.cases import Case, Cases
from volprep.compute import free_disk, run_units
from volprep.config import Config
from volprep.errors import ConfigError, SourceError, StoreError
from volprep.files import neighbour
from volprep.findings import Finding
from volprep.fingerprint import (
    DARK,
    PERCENTILES,
    CaseFacts,
    Counted,
    Fingerprint,
    FingerprintInput,
    Statistics,
    bounds_of,
    clip_bounds,
    clip_findings,
    compute_fingerprint,
    dark_share,
    sampled,
)
from volprep.geometry import Box, VolumeLike
from volprep.pipeline.inputs import list_cases
from volprep.pipeline.told import Reporter, silent
from volprep.preprocess import Normalisation, NormalisationKind, label_ids, nonzero_box
from volprep.sources import Volume
from volprep.splits import SplitPart
from volprep.store import StoredCase

__all__ = [
    "clip_warnings",
    "crop_box",
    "crop_boxes",
    "fingerprint",
    "free_room",
    "headers_of",
    "label_values",
    "measure",
    "normalisations",
    "percentiles_of",
    "sample_told",
    "sampled_values",
]


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


def label_values(config: Config, cases: Cases, reporter: Reporter) -> frozenset[int]:
    """Every value of the labels; each label is read once."""
    labels = [case.open_label() for case in cases if case.label is not None]
    volumes = [label for label in labels if label is not None]
    with reporter("classes", sum(math.prod(v.shape) for v in volumes), "voxels") as advance:

        def values_of(volume: Volume) -> set[int]:
            found: set[int] = set()
            for box, slab in volume.slabs():
                found.update(label_ids(slab).tolist())
                advance(box.size)
            return found

        found = run_units(values_of, volumes, workers=config.compute.workers)
        return frozenset(set().union(*found))


def free_room(config: Config, label_bytes: int = 0) -> int:
    """Bytes of the disk that resampled volumes may take, those that are there already included.

    Those count as they are before compression, as what they are compared with does: a set that
    is complete fits, however full the disk is. `label_bytes` are those of a voxel of the labels in
    the files, which the set may keep in fewer.
    """
    out = config.output.dir.absolute()
    there: dict[str, int] = {}  # one that both folders have is one file
    for folder in (out, neighbour(out, ".partial")):
        for path in (folder / "volumes").glob("*.zarr"):
            with contextlib.suppress(SourceError, StoreError):  # damaged: it will be made again
                case = StoredCase.open(path)
                image = case.image
                there[path.name] = math.prod(image.shape) * image.dtype.itemsize
                if case.label is not None:
                    there[path.name] += math.prod(case.label.shape) * label_bytes
    return free_disk(out) + sum(there.values())


def crop_boxes(config: Config, cases: Cases, reporter: Reporter) -> dict[str, Box]:
    """The `crop_box` of each case, by its name."""
    with reporter("crop", len(cases), "cases") as advance:

        def box_of(case: Case) -> tuple[str, Box]:
            box = crop_box(case)
            advance(1)
            return case.name, box

        return dict(run_units(box_of, cases, workers=config.compute.workers))


def crop_box(case: Case) -> Box:
    """The box of the voxels of an image that are not zero; all of it where none is."""
    image = case.open_image()
    return nonzero_box(image) or Box.whole(image.shape)


def measure(
    config: Config,
    cases: Cases,
    parts: Sequence[SplitPart],
    reporter: Reporter,
    title: str,
    *,
    known: Mapping[str, Counted] | None = None,
) -> Fingerprint:
    """The fingerprint of some cases, or blocks of them; `known` as of `compute_fingerprint`."""
    if config.data.read == "sample":
        return _measure_sample(config, cases, parts, reporter, title)
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
            percentiles=percentiles_of(config),
            known=known,
        )


def _measure_sample(
    config: Config, cases: Cases, parts: Sequence[SplitPart], reporter: Reporter, title: str
) -> Fingerprint:
    """The fingerprint by the voxels of some places; shapes are those of the whole."""
    named = [(cases.named(part.case), part.box) for part in parts]
    images = [sampled(case.open_image(), box) for case, box in named]
    inputs = [
        FingerprintInput(
            case.name,
            partial(sampled, image.volume, places=image.places),
            None if case.label is None else partial(_sampled_label, case, image.places),
        )
        for (case, _), image in zip(named, images, strict=True)
    ]
    voxels = sum(math.prod(image.shape[1:]) for image in images)
    with reporter(title, voxels, "voxels") as advance:
        found = compute_fingerprint(
            inputs,
            workers=config.compute.workers,
            progress=advance,
            percentiles=percentiles_of(config),
        )
    whole = tuple(
        replace(facts, shape=image.volume.shape, box=None if box is None else (box.start, box.stop))
        for facts, image, (_, box) in zip(found.cases, images, named, strict=True)
    )
    return replace(found, cases=whole)


def _sampled_label(case: Case, places: Sequence[Box]) -> VolumeLike:
    label = case.open_label()
    if label is None:
        raise TypeError(f"{case.name} has no label")
    return sampled(label, places=places)


def sampled_values(config: Config, cases: Cases, reporter: Reporter) -> frozenset[int]:
    """Every value that the labels have at the places that are looked at."""
    labels = [case.open_label() for case in cases if case.label is not None]
    volumes = [sampled(label, None) for label in labels if label is not None]
    places = [(volume.volume, box) for volume in volumes for box in volume.places]
    with reporter("classes", len(places), "places") as advance:

        def values_at(place: tuple[VolumeLike, Box]) -> set[int]:
            found = set(label_ids(place[0].read(place[1])).tolist())
            advance(1)
            return found

        found = run_units(values_at, places, workers=config.compute.workers)
        return frozenset(set().union(*found))


def sample_told(config: Config, cases: Cases, parts: Sequence[SplitPart]) -> list[Finding]:
    """How much was looked at, where that was not all."""
    if config.data.read == "all":
        return []
    looked = whole = 0
    for part in parts:
        image = sampled(cases.named(part.case).open_image(), part.box)
        looked += math.prod(image.shape[1:])
        whole += (part.box or Box.whole(image.volume.shape)).size
    if looked == whole:
        return []
    return [Finding("measured-in-part", f"{looked:,} of {whole:,} voxels that train were measured")]


def percentiles_of(config: Config) -> list[float]:
    """The percentiles that are measured: the usual ones, and those of the config."""
    return sorted({*PERCENTILES, *(_given_clip(config) or ())})


def _given_clip(config: Config) -> tuple[float, float] | None:
    """The percentiles of the user's own bounds."""
    clip = config.preprocess.clip
    return None if clip is None or clip == "auto" else clip


def clip_warnings(config: Config, fingerprint: Fingerprint) -> list[Finding]:
    """What is wrong with the user's own bounds, if they gave any."""
    given = _given_clip(config)
    return [] if given is None else clip_findings(clip_bounds(fingerprint, given))


def _label_opener(case: Case) -> Callable[[], VolumeLike] | None:
    def open_label() -> VolumeLike:
        label = case.open_label()
        if label is None:
            raise TypeError(f"{case.name} has no label")
        return label

    return None if case.label is None else open_label


def _normalisation_kind(
    config: Config, fingerprint: Fingerprint
) -> tuple[NormalisationKind, str | None]:
    """The kind that the config gives, or that fits the data; and why, where it was chosen.

    Convolutions pad with 0: where most voxels are background, 0 is to mean background, or every
    border looks like signal. Cellpose, StarDist and CSBDeep scale from a low percentile
    likewise; here the deviation is 1, as with z-scores, so that bright spots keep their contrast.
    """
    given, modality = config.preprocess.normalise, config.data.modality
    if given != "auto":
        return given, None
    if modality in ("em", "ct"):
        return "zscore", f"data.modality is {modality}"
    share = dark_share(fingerprint)
    where = f"the median lies at {share:.0%} of the range of intensities"
    if share < DARK:
        return "background", f"{where}: mostly background, which becomes 0"
    return "zscore", f"{where}, as in tissue"


def normalisations(
    config: Config, fingerprint: Fingerprint, others: Sequence[CaseFacts] = ()
) -> tuple[Normalisation, dict[str, Normalisation], str | None]:
    """The rule of the data set, those of single cases where each has its own, and why this kind.

    `fingerprint` is that of the training cases, `others` are the rest where each case has its
    own rule.
    """
    section = config.preprocess
    if section.mean is not None and len(section.mean) not in (1, fingerprint.n_channels):
        raise ConfigError(
            f"preprocess.mean: {len(section.mean)} values for {fingerprint.n_channels} channels; "
            "give one for each, or one for all"
        )

    kind, reason = _normalisation_kind(config, fingerprint)

    def rule(
        statistics: Sequence[Statistics], bounds: Sequence[tuple[float, float]] | None
    ) -> Normalisation:
        return Normalisation.from_statistics(
            kind,
            mean=section.mean or [s.mean for s in statistics],
            std=section.std or [s.std for s in statistics],
            minimum=[s.minimum for s in statistics],
            maximum=[s.maximum for s in statistics],
            percentiles=[s.percentiles for s in statistics],
            cut=bounds,
        )

    clip = section.clip
    shared = None if clip is None else [(b.low, b.high) for b in clip_bounds(fingerprint, clip)]
    common = rule(fingerprint.statistics(section.region), shared)
    if section.scope == "dataset":
        return common, {}, reason
    own = {}
    for case in (*fingerprint.cases, *others):
        found = case.foreground if section.region == "foreground" else case.everywhere
        everywhere = case.everywhere or ()
        # A new image has no labels: the bounds of a case must come from its voxels alone.
        bounds = None if clip is None else [bounds_of(s, None, clip)[:2] for s in everywhere]
        own[case.name] = rule(found or everywhere, bounds)
    return common, own, reason
