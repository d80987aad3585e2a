"""What there is to say about one case: its headers, then its voxels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from volprep.cases import Case
from volprep.checks.content import (
    Looked,
    colours_of,
    ends_at_chunks,
    exchanged_background,
    judge_content,
    judge_image,
    left_unlabelled,
    nested_ids,
    pieces_of,
    swapped_by_dtype,
)
from volprep.checks.headers import compare_grids, count_chunks, odd_names
from volprep.checks.measure import (
    CheckedLabel,
    ImageFacts,
    Progress,
    Walked,
    measure_case,
    measure_image,
    measure_labels,
)
from volprep.checks.placement import boxes_looked_at
from volprep.errors import SourceError
from volprep.findings import Finding, Level, Note
from volprep.fingerprint import Counted
from volprep.geometry import Box, Spacing3, three
from volprep.sources import KeptVolume, Volume

__all__ = ["Along", "CheckedCase", "LabelKind", "examine_case", "said"]

LabelKind = Literal["instances", "classes"]
Found = TypeVar("Found")
Array = npt.NDArray[Any]

#: Spacings beyond these (µm) are no microscope's, nor a scanner's.
_SPACING_RANGE = (1e-4, 1e4)
#: What lies between one unit of length and another.
_UNIT_OF = {1e3: "nm", 1e6: "pm", 1e-3: "mm", 1e-6: "m"}
_SLIPS = tuple(_UNIT_OF)
_FEW_LABELLED = 0.05
#: Sums of squares of these fit float64, and the values float32, which networks take.
_MOST_FLOAT32 = 3e38
_SMALL = 10
_MANY_CLASSES = 255
_FEW_IDS = 4


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """One case as it was found; what could not be read is None.

    Attributes
    ----------
    case : Case
    image, label, mask : Volume or None
        Opened, not read.
    voxels : ImageFacts or None
    labels : CheckedLabel or None
        None where only the headers were looked at.
    counted : Counted or None
        For the fingerprint, where `Along` asked for it.
    filled : Box or None
        Of the voxels of the image that are not zero, where `Along` asked for it.
    all_valid : bool
        Whether the valid mask, where there is one, leaves nothing out.
    kept : tuple of KeptVolume or None
        Image and label, with what is known beforehand to be read again of them.
    """

    case: Case
    image: Volume | None = None
    label: Volume | None = None
    mask: Volume | None = None
    voxels: ImageFacts | None = None
    labels: CheckedLabel | None = None
    counted: Counted | None = None
    filled: Box | None = None
    all_valid: bool = False
    kept: tuple[KeptVolume | None, KeptVolume | None] = (None, None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "case": self.case.name,
            "image": _volume_dict(self.image),
            "label": _volume_dict(self.label),
            "mask": _volume_dict(self.mask),
            "intensity": None
            if self.voxels is None
            else {"min": list(self.voxels.low), "max": list(self.voxels.high)},
            "ids": None if self.labels is None else len(self.labels.ids),
            "max_id": None
            if self.labels is None
            else int(self.labels.ids.max(initial=np.uint64(0))),
            "foreground": None if self.labels is None else self.labels.foreground,
            "content": None if self.voxels is None else self.voxels.content,
        }


@dataclass(frozen=True, slots=True)
class Along:
    """What the one walk over the voxels serves beside the checks.

    Attributes
    ----------
    counted : mapping of str to Box or None
        The cases that are counted for the fingerprint, and the box of each; None is all of it.
    crop : bool
        Whether the box of the voxels that are not zero is wanted.
    pace : callable
        Told of a case and the share of it that was walked through, from any thread: its files
        are in the system's cache up to there.
    """

    counted: Mapping[str, Box | None] = field(default_factory=dict)
    crop: bool = False
    pace: Callable[[Case, float], object] = lambda _case, _share: None


def examine_case(
    case: Case,
    kind: LabelKind,
    headers_only: bool,
    progress: Progress = None,
    *,
    by_hand: bool = False,
    along: Along | None = None,
    workers: int = 1,
    number: int = 0,
    count: int = 1,
) -> tuple[CheckedCase, list[Finding]]:
    """Open a case, read its voxels unless only headers are wanted, and say what stands out.

    Of a case that is listed `by_hand` the user has said which file is the image. `number` and
    `count` say which of how many cases it is, since blocks of some are compared afterwards.
    """
    findings: list[Finding] = []

    def attempt(work: Callable[[], Found]) -> Found | None:
        try:
            return work()
        except SourceError as error:
            findings.append(_unreadable(case, error))
            return None

    image, label = attempt(case.open_image), attempt(case.open_label)
    if label is None and (coloured := colours_of(case, image)) is not None:
        findings = [f for f in findings if f.path != coloured.path] + [coloured]
    mask = attempt(case.open_mask)
    findings += odd_names(case)
    findings += _headers(case, image, label, mask)
    findings += attempt(lambda: list(count_chunks(case, image, label, mask))) or []
    if headers_only or any(finding.level == "error" for finding in findings):
        return CheckedCase(case, image, label, mask), findings
    volumes = (image, label, mask)
    kept = _kept(image, label, number, count)
    try:
        walked = _walked(case, volumes, kept, along or Along(), workers, progress)
    except SourceError:  # whose of the three it is shows where each is read on its own
        walked = None
    if walked is not None:
        voxels = None if walked.image is None else walked.image.facts()
        labels = None if walked.label is None else walked.label.facts()
        valid = None if walked.mask is None else walked.mask.facts()
    else:
        voxels = None if image is None else attempt(partial(measure_image, image))
        before = len(findings)
        labels = None if label is None else attempt(partial(measure_labels, label))
        if label is not None and labels is None and (swapped := swapped_by_dtype(case, image)):
            findings[before:] = [swapped]
        valid = None if mask is None else attempt(partial(measure_labels, mask))
    if image is not None and voxels is not None:
        level: Level | None = "warning" if by_hand else None
        alone = list(judge_image(case, image, level=level)) if label is None else []
        findings += alone or _voxels(case, image, voxels)
    if labels is not None and case.rules:
        findings.append(_repaired(case, label))
    if label is not None and labels is not None:
        seen = None if voxels is None else image  # what could not be read is told already
        looked = Looked.at(None if seen is None else kept[0], kept[1] or label)
        told = list(judge_content(case, seen, label, labels, looked, instances=kind == "instances"))
        findings += told
        if all(finding.name == "label-without-image" for finding in told):
            findings += _labels(case, label, labels, kind, looked, masked=mask is not None)
    for volume, facts in ((label, labels), (mask, valid)):
        if volume is not None and facts is not None:
            findings = list(_lost_chunks(volume, facts, findings))
    if mask is not None and valid is not None and not len(valid.ids):
        found = "the valid mask is 0 everywhere: no voxel of the label would be used"
        findings.append(_finding("empty-mask", case, mask, found))
    counting = None if walked is None else walked.counting
    return CheckedCase(
        case, image, label, mask, voxels, labels,
        counted=None if counting is None else counting.counted(),
        filled=None if walked is None or walked.image is None else walked.image.filled,
        all_valid=valid is not None and valid.foreground == 1,
        kept=kept,
    ), findings  # fmt: skip


def _kept(
    image: Volume | None, label: Volume | None, number: int, count: int
) -> tuple[KeptVolume | None, KeptVolume | None]:
    """Image and label, which keep what is looked at again when they were walked through."""
    if image is None or label is None:
        alone = (None if volume is None else KeptVolume(volume, ()) for volume in (image, label))
        return next(alone), next(alone)
    of_image, of_label = boxes_looked_at(three(image.shape[1:]), number, count)
    middle = Looked.box(label)
    deep = Looked.around(middle, label)
    return KeptVolume(image, [middle, *of_image]), KeptVolume(label, [deep, *of_label])


def _walked(
    case: Case,
    volumes: Sequence[Volume | None],
    kept: Sequence[KeptVolume | None],
    along: Along,
    workers: int,
    progress: Progress,
) -> Walked | None:
    """One walk over all that a case has; None where it has nothing."""
    there = [volume for volume in volumes if volume is not None]
    if not there:
        return None
    whole = Box.whole(there[0].shape)
    total, done, lock = whole.size * len(there), 0, Lock()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            share = done / total
        along.pace(case, share)
        if progress is not None:
            progress(count)

    counted = along.counted[case.name] or whole if case.name in along.counted else None
    return measure_case(
        volumes, counted=counted, crop=along.crop, kept=kept, workers=workers, progress=advance
    )


def _lost_chunks(
    volume: Volume, facts: CheckedLabel, findings: Sequence[Finding]
) -> Iterator[Finding]:
    """The findings; that chunks are absent is a warning where objects end in front of them."""
    for each in findings:
        absent = each.name == "chunks-missing" and each.path == Path(volume.name)
        if absent and each.level == "info" and ends_at_chunks(volume, facts.foreground):
            yield replace(
                each, found=f"{each.found}, and what is labelled ends where they begin",
                todo="copy or convert the file again; if it is meant to be so, ignore this",
                level="warning",
            )  # fmt: skip
        else:
            yield each


def _unreadable(case: Case, error: SourceError) -> Finding:
    path = Path(error.path)
    return Finding("unreadable", error.found, todo=error.wanted, case=case.name, path=path)


def _repaired(case: Case, label: Volume | None) -> Finding:
    done = case.repaired() or {}
    numbers = f": {done['objects']} objects, {done['too_small']} too small" if len(done) > 1 else ""
    return _finding("labels-repaired", case, label, f"{case.rules}{numbers}")


def _headers(
    case: Case, image: Volume | None, label: Volume | None, mask: Volume | None
) -> Iterator[Finding]:
    for volume in (image, label, mask):
        for note in () if volume is None else volume.notes:
            found = said(note, case.name, None if volume is None else Path(volume.name))
            if found.name == "image-lossy" and volume is not image:
                yield Finding("label-lossy", found.found, case=found.case, path=found.path)
            elif found.name == "white-is-zero" and volume is not image:
                yield replace(found, level="info")
            elif found.name == "spacing-unread" and case.spacing is not None:
                yield replace(found, todo="nothing: the one that is given counts", level="info")
            elif "no spacing" not in note:  # which is told of the case
                yield found
    if image is None:
        return
    yield from _spacing(case, image, label, mask)
    yield from compare_grids(case, image, label, mask)


def _spacing(
    case: Case, image: Volume, label: Volume | None, mask: Volume | None
) -> Iterator[Finding]:
    own = image.spacing
    if case.spacing is not None:
        stored = case.image.open().spacing
        if stored is not None and not _alike(stored, case.spacing):
            message = f"the spacing {_um(case.spacing)} given replaces the file's {_um(stored)}"
            slip = next((n for n in _SLIPS if _alike([n * s for s in stored], case.spacing)), None)
            if slip is None or 1e-3 <= min(case.spacing) <= max(case.spacing) <= 10:
                yield _finding("spacing-replaced", case, image, message)
            else:
                message += f", {slip:g} times as much: that is the step from one unit to another"
                figures = ", ".join(f"{length:g}" for length in case.spacing)
                todo = f"write the unit: `spacing: {figures} {_UNIT_OF[slip]}`"
                yield _finding("spacing-replaced", case, image, message, todo, level="warning")
    if own is None:
        yield _finding("unknown-spacing", case, image, "the file holds no spacing (z, y, x)")
    elif not all(_SPACING_RANGE[0] <= length <= _SPACING_RANGE[1] for length in own):
        message = f"the spacing {_um(own)} is no microscope's"
        yield _finding("absurd-spacing", case, image, message)
    for what, volume in (("label", label), ("mask", mask)):
        theirs = None if volume is None else volume.spacing
        if own is not None and theirs is not None and not _alike(own, theirs):
            message = f"the {what} says a spacing of {_um(theirs)} and the image {_um(own)}"
            yield _finding("spacing-mismatch", case, volume, message)


def _voxels(case: Case, image: Volume, facts: ImageFacts) -> Iterator[Finding]:
    if facts.not_finite:
        message = f"{facts.not_finite} voxels are NaN or infinite"
        yield _finding("not-finite", case, image, message)
    largest = max(map(abs, (*facts.low, *facts.high)))
    if _MOST_FLOAT32 < largest < math.inf:
        yield _finding("values-too-large", case, image, f"values up to {largest:g}")
    for channel, (low, high) in enumerate(zip(facts.low, facts.high, strict=True)):
        if low >= high:
            which = f"channel {channel}" if image.shape[0] > 1 else "the image"
            message = f"{which} is {low:g} everywhere"
            yield _finding("constant-image", case, image, message)
    if facts.blank_planes:
        message = (
            f"{len(facts.blank_planes)} of {image.shape[1]} planes hold one value "
            f"(z = {_some(facts.blank_planes)}): sections may be missing"
        )
        yield _finding("blank-planes", case, image, message)


def _labels(
    case: Case,
    label: Volume,
    facts: CheckedLabel,
    kind: LabelKind,
    looked: Looked,
    *,
    masked: bool,
) -> Iterator[Finding]:
    count = len(facts.ids)
    if not count:
        yield _finding("empty-label", case, label, "the label is 0 everywhere")
        return
    inverted = list(_background(case, label, facts, kind, looked))
    yield from inverted
    if count == 1:
        yield from _one_value(case, label, int(facts.ids[0]), kind)
    elif kind == "classes":
        yield from _classes(case, label, facts)
    else:
        yield from _instances(case, label, facts, looked, grounded=not inverted)
    if facts.foreground == 1:
        yield _finding("no-background", case, label, "no voxel is background (0)")
    if not masked:
        yield from _sparse(case, label, facts, looked)


def _background(
    case: Case, label: Volume, facts: CheckedLabel, kind: LabelKind, looked: Looked
) -> Iterator[Finding]:
    """A background that is not 0."""
    binary, dense = len(facts.ids) == 1, facts.foreground == 1 and kind == "instances"
    found = exchanged_background(looked, facts.foreground) if binary or dense else None
    if found is None:
        return
    value, pieces = found
    share = int(facts.sizes[facts.ids == np.uint64(value)].sum()) / facts.size
    others = "0 lies" if binary else "everything else lies"
    message = (
        f"{value} holds {share:.0%} of the voxels and hangs together, and {others} in "
        f"{pieces} compact pieces within it: it looks like the background"
    )
    todo = (
        f"if it is, say `labels: {{background: {value}}}`; if not, say "
        "`findings: {ignore: [label-inverted]}`"
    )
    yield _finding("label-inverted", case, label, message, todo)


def _one_value(case: Case, label: Volume, value: int, kind: LabelKind) -> Iterator[Finding]:
    if kind == "instances":
        message = f"the only value beside 0 is {value}: as instances, all objects are one"
        yield _finding("one-instance", case, label, message)
    elif value != 1:
        message = (
            f"the only value beside 0 is {value}, so that the classes between would be empty; "
            f"{value} is taken for class 1"
        )
        yield _finding("binary-label", case, label, message)


def _classes(case: Case, label: Volume, facts: CheckedLabel) -> Iterator[Finding]:
    top = int(facts.ids[-1])
    if len(facts.ids) > _MANY_CLASSES:
        message = f"{len(facts.ids)} values up to {top} are many for classes"
        yield _finding("many-classes", case, label, message)
    elif top > len(facts.ids):
        missing = sorted(set(range(1, min(top, 4096))) - {int(value) for value in facts.ids})
        message = f"{len(facts.ids)} of the classes 1 to {top} occur; not {_some(missing)}"
        yield _finding("missing-classes", case, label, message)


def _instances(
    case: Case, label: Volume, facts: CheckedLabel, looked: Looked, *, grounded: bool
) -> Iterator[Finding]:
    """Of ids; what lies within others is said where the background is no object itself."""
    count, block = len(facts.ids), looked.deep()
    if count <= _FEW_IDS and (pieces := pieces_of(block)) > 3 * count:
        message = (
            f"{count} ids lie in {pieces} pieces of a block: as instances, those of one id are one"
        )
        todo = (
            "set `label_kind: classes` if they are classes (and `data.unlabelled: 0` where 0 means "
            "`not annotated`, as for scribbles), or give each object its own id"
        )
        yield _finding("one-instance", case, label, message, todo)
    elif grounded and (nested := nested_ids(block)) is not None:
        inside, one = nested
        how_many = "1 piece lies" if inside == 1 else f"{inside} pieces lie"
        message = f"in a block, {how_many} wholly within another, such as one of id {one}"
        yield _finding("ids-nested", case, label, message)
    small = int(np.count_nonzero(facts.sizes < _SMALL))
    if small:
        message = f"{small} of {count} objects have fewer than {_SMALL} voxels"
        yield _finding("small-objects", case, label, message)
    if facts.cut:
        message = f"{facts.cut} of {count} objects touch the faces of the volume and may be cut"
        yield _finding("cut-objects", case, label, message)


def _sparse(case: Case, label: Volume, facts: CheckedLabel, looked: Looked) -> Iterator[Finding]:
    """Where 0 may stand for `not annotated` instead of background."""
    labelled = np.flatnonzero(facts.planes)
    span = int(labelled[-1] - labelled[0]) + 1
    told = (
        "sparse" in label.path.parent.name.lower() or "scribble" in label.path.parent.name.lower()
    )
    alike = left_unlabelled(looked)
    if 2 * len(labelled) < span:
        where = _some(labelled)
        what = f"{len(labelled)} of {len(facts.planes)} planes are labelled (z = {where})"
    elif alike is not None:
        what = (
            f"{alike[1]:.0f} times as many voxels as are labelled look like those of "
            f"{alike[0]}, and are 0"
        )
    elif facts.foreground < _FEW_LABELLED or told:
        what = f"{facts.foreground:.2%} of the voxels are labelled"
    else:
        return
    sure = told or alike is not None or 2 * len(labelled) < span
    level: Level = "warning" if sure else "info"
    yield _finding("sparse-label", case, label, what, level=level)


def said(note: str, case: str | None = None, path: Path | None = None) -> Finding:
    """The finding that a reader's or a layout's note is."""
    if isinstance(note, Note):
        return note.about(case, path)
    return Finding("note", note, case=case, path=path)


def _finding(
    name: str,
    case: Case,
    volume: Volume | None,
    found: str,
    todo: str | None = None,
    *,
    level: Level | None = None,
) -> Finding:
    path = None if volume is None else Path(volume.name)
    return Finding(name, found, todo=todo, case=case.name, path=path, level=level)


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(one, other, strict=True))


def _um(spacing: Spacing3) -> str:
    return ", ".join(f"{length:.4g}" for length in spacing) + " µm"


def _some(values: Sequence[int] | Array) -> str:
    listed = [str(value) for value in values]
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")


def _volume_dict(volume: Volume | None) -> dict[str, Any] | None:
    if volume is None:
        return None
    return {
        "path": volume.name,
        "axes": volume.axes,
        "shape": list(volume.shape),
        "dtype": str(volume.dtype),
        "spacing": None if volume.spacing is None else list(volume.spacing),
    }
