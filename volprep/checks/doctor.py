"""Every case examined in parallel, and then compared with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.cases import Case, Cases
from volprep.checks.case import Along, CheckedCase, LabelKind, examine_case
from volprep.checks.content import Looked, likeness_of_sections
from volprep.checks.measure import Progress
from volprep.checks.placement import Placed, find_exchanged, find_misplaced
from volprep.compute import default_workers, run_units
from volprep.findings import Finding, by_level
from volprep.geometry import Shape3
from volprep.sources import Volume
from volprep.splits import Splits, audit_splits

__all__ = ["Report", "check_cases", "examine_cases"]

#: Whose labels are no labels, so that their place says nothing.
_NO_LABELS = {
    "image-equals-label", "images-labels-swapped", "label-antialiased", "label-intensities",
}  # fmt: skip
#: What leads to which finding: slices that are missing to another shape, say.
_CAUSES = {
    "blank-planes": ("images-labels-swapped",),
    "constant-image": ("images-labels-swapped",),
    "ids-by-section": ("sections-unrelated",),
    "shape-mismatch": ("slices-differ",),
    "sparse-label": ("labels-misplaced",),
    "unreadable": ("slices-differ",),  # a channel of more sections than the first one
}
#: From one section to the next, smoothed, real stacks correlate by 0.41 (05, 50 nm apart) and more,
#: pictures of different places by 0.02 at most.
_UNRELATED = 0.2
#: So many findings of one kind are told apart; more become one.
_APART = 3


@dataclass(frozen=True, slots=True)
class Report:
    """What was found: the facts of each case, and the findings, errors first."""

    facts: tuple[CheckedCase, ...]
    findings: tuple[Finding, ...]

    @property
    def hashes(self) -> dict[str, str]:
        """Content hash of each image that was read, by case."""
        return {
            facts.case.name: facts.voxels.content
            for facts in self.facts
            if facts.voxels is not None
        }

    @property
    def sketches(self) -> dict[str, npt.NDArray[np.uint64]]:
        """Sketch of each image that was read, by case."""
        return {f.case.name: f.voxels.sketch for f in self.facts if f.voxels is not None}

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "cases": [facts.to_dict() for facts in self.facts],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def check_cases(
    cases: Cases | Sequence[Case],
    *,
    headers_only: bool = False,
    label_kind: LabelKind = "instances",
    splits: Splits | None = None,
    patch: Shape3 | None = None,
    halo: Shape3 = (0, 0, 0),
    workers: int | None = None,
    progress: Progress = None,
) -> list[Finding]:
    """Say everything that is wrong or doubtful about the data, in one pass over it.

    Parameters
    ----------
    cases : Cases or sequence of Case
        The findings of `Cases` are among them.
    headers_only : bool
        Look at shapes, dtypes and spacings, and read no voxel.
    label_kind : {'instances', 'classes'}
        What the ids of labels stand for.
    splits : Splits or None
        Audited as well, with the images' hashes from this pass.
    patch, halo : tuple of int
        As for `audit_splits`.
    workers : int or None
        Threads, a case each; None takes every processor.
    progress : callable or None
        Told how many voxels were read, of images, labels and masks alike.

    Returns
    -------
    list of Finding
        Errors first. `raise_on_errors` turns them into a DataCheckError.
    """
    report = examine_cases(
        cases,
        headers_only=headers_only,
        label_kind=label_kind,
        splits=splits,
        patch=patch,
        halo=halo,
        workers=workers,
        progress=progress,
    )
    return list(report.findings)


def examine_cases(
    cases: Cases | Sequence[Case],
    *,
    headers_only: bool = False,
    label_kind: LabelKind = "instances",
    splits: Splits | None = None,
    patch: Shape3 | None = None,
    halo: Shape3 = (0, 0, 0),
    workers: int | None = None,
    progress: Progress = None,
    along: Along | None = None,
) -> Report:
    """As `check_cases`, with the facts that the findings follow from.

    `along` is what the walk over the voxels serves beside the checks.
    """
    findings = list(cases.findings) if isinstance(cases, Cases) else []
    wrong = {finding.case for finding in findings if finding.level == "error"}

    def look(case: Case, **how: Any) -> tuple[CheckedCase, list[Finding]]:
        return examine_case(
            case, label_kind, headers_only or case.name in wrong, progress,
            by_hand=not isinstance(cases, Cases) or cases.layout == "list", along=along, **how,
        )  # fmt: skip

    looked = list(_each(look, list(cases), default_workers() if workers is None else workers))
    facts = tuple(each for each, _ in looked)
    findings += [finding for _, found in looked for finding in found]
    findings += _between(facts)
    if not headers_only:
        doubtful = {f.case for f in findings if f.level == "error" or f.name in _NO_LABELS}
        findings += list(_misplaced(facts, doubtful))
        findings += list(_unrelated(facts, {f.path for f in findings if f.name == "read-as-stack"}))
    report = Report(facts, ())
    if splits is not None:
        audit = audit_splits(
            splits, tuple(cases), patch=patch, halo=halo, hashes=report.hashes,
            sketches=report.sketches,
            content=not headers_only, workers=workers,
        )  # fmt: skip
        findings += audit
    return Report(facts, tuple(by_level(_merged(list(_causes(findings))))))


def _each(
    look: Callable[..., tuple[CheckedCase, list[Finding]]], cases: Sequence[Case], workers: int
) -> Iterator[tuple[CheckedCase, list[Finding]]]:
    """Each case looked at, in order: several at once, or all threads at one where it is alone."""
    count = len(cases)
    if count < workers:
        for number, case in enumerate(cases):
            yield look(case, workers=workers, number=number, count=count)
    else:
        yield from run_units(
            lambda number: look(cases[number], number=number, count=count),
            range(count),
            workers=workers,
        )


def _misplaced(facts: Sequence[CheckedCase], doubtful: Set[str | None]) -> Iterator[Finding]:
    """Labels that lie elsewhere than stored, of the cases whose labels are labels."""
    sound = {
        each.case.name: each
        for each in facts
        if each.labels is not None and len(each.labels.ids) and each.case.name not in doubtful
        if each.voxels is not None and not each.voxels.not_finite
    }
    placed = [
        Placed(name, each.kept[0], each.kept[1])
        for name, each in sound.items()
        if each.kept[0] is not None and each.kept[1] is not None
    ]
    for swapped in find_exchanged(placed):
        found = (
            f"the label of {swapped.label_of} fits its image better than its own (correlation "
            f"{swapped.fit:.2f}; both as stored {swapped.stored:.2f} at most)"
        )
        image = sound[swapped.case].case.image.path
        yield Finding("labels-exchanged", found, case=swapped.case, path=image)
        placed = [each for each in placed if each.case not in (swapped.case, swapped.label_of)]
    for wrong in find_misplaced(placed):
        case = placed[0].case if len(placed) == 1 else wrong.case
        who = "the label fits the image better if it is"
        if case is None:
            who = f"the labels of all {len(placed)} cases fit the images better if they are"
        found = (
            f"{who} taken as {wrong.how} (correlation {wrong.fit:.2f}, as stored "
            f"{wrong.stored:.2f})"
        )
        label = None if case is None else sound[case].label
        path = None if label is None else Path(label.name)
        yield Finding("labels-misplaced", found, case=case, path=path)


def _unrelated(facts: Sequence[CheckedCase], guessed: Set[Path | None]) -> Iterator[Finding]:
    """Stacks, as which folders of pictures were read, whose sections do not follow each other."""
    for each in facts:
        image = each.kept[0]
        if image is None or each.voxels is None or each.case.image.path not in guessed:
            continue
        alike = likeness_of_sections(image.read(Looked.box(image))[0])
        if alike is not None and alike < _UNRELATED:
            found = (
                f"its {image.shape[1]} pictures are read as the sections of one stack, and have "
                f"nothing to do with each other (correlation {alike:.2f} from one to the next)"
            )
            path = each.case.image.path
            yield Finding("sections-unrelated", found, case=each.case.name, path=path)


def _causes(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings but for those that follow from another one of the same case."""
    seen = {(finding.name, finding.case): finding.path for finding in findings}
    for finding in findings:
        causes = [(c, n) for c in _CAUSES.get(finding.name, ()) for n in (finding.case, None)]
        known = [seen[cause] for cause in causes if cause in seen]
        if not known or (finding.name == "unreadable" and finding.path not in known):
            yield finding


def _merged(findings: Sequence[Finding]) -> Iterator[Finding]:
    """One finding in place of several that say the same of different cases; errors stay apart."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    several: dict[tuple[object, ...], set[str]] = {}
    findings = list(dict.fromkeys(findings))  # of image and label in one file both tell of it
    for finding in findings:
        several.setdefault((finding.level, finding.name), set()).add(finding.message)
    for index, finding in enumerate(findings):
        apart = index if finding.level == "error" or finding.case is None else None
        many = len(several[finding.level, finding.name]) > _APART and finding.name != "note"
        words = None if many else finding.message
        alike.setdefault((apart, finding.level, finding.name, words), []).append(finding)
    for first, *others in alike.values():
        yield first.shared_by(f.case for f in others)


def _between(facts: Sequence[CheckedCase]) -> Iterator[Finding]:
    """What does not go together among the cases."""
    images = {each.case.name: each.image for each in facts if each.image is not None}
    flat = {name: "2D" if image.shape[1] == 1 else "3D" for name, image in images.items()}
    channels = {
        name: f"{(n := image.shape[0])} channel{'s' * (n > 1)}" for name, image in images.items()
    }
    dtypes = {name: str(image.dtype) for name, image in images.items()}
    spacings = {
        name: "(" + ", ".join(f"{length:.4g}" for length in image.spacing) + ") µm"
        for name, image in images.items()
        if image.spacing is not None
    }
    if len(set(flat.values())) > 1:
        message = f"2D and 3D images are mixed: {_shares(flat)}"
        yield Finding("mixed-dimensions", message)
    if len(set(channels.values())) > 1:
        message = f"images differ in channels: {_shares(channels)}"
        yield Finding("mixed-channels", message)
    if len(set(dtypes.values())) > 1:
        message = f"images differ in dtype: {_shares(dtypes)}"
        yield Finding("mixed-dtypes", message)
    if len(set(spacings.values())) > 1:
        message = f"spacings differ: {_shares(spacings)}"
        yield Finding("mixed-spacings", message)
    yield from _binaries(facts)
    yield from _duplicates(facts)
    yield from _shared_labels(facts)


def _binaries(facts: Sequence[CheckedCase]) -> Iterator[Finding]:
    """Masks of 0 and 1 beside masks of 0 and 255."""
    only = {
        each.case.name: int(each.labels.ids[0])
        for each in facts
        if each.labels is not None and len(each.labels.ids) == 1
    }
    if set(only.values()) == {1, 255}:
        ones = [name for name, value in only.items() if value == 1]
        found = (
            f"{len(ones)} masks hold 0 and 1 ({', '.join(ones[:3])}), "
            f"{len(only) - len(ones)} hold 0 and 255"
        )
        yield Finding("mixed-binary", found)


def _duplicates(facts: Sequence[CheckedCase]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for each in facts:
        if each.voxels is None:
            continue
        first = seen.setdefault(each.voxels.content, each.case.name)
        if first != each.case.name:
            message = f"the same image, voxel for voxel, as {first}"
            path = each.case.image.path
            yield Finding("duplicate-image", message, case=each.case.name, path=path)


def _shared_labels(facts: Sequence[CheckedCase]) -> Iterator[Finding]:
    """Different images with one label, voxel for voxel."""
    seen: dict[tuple[object, ...], CheckedCase] = {}
    for each in facts:
        held, voxels = each.labels, each.voxels
        if held is None or voxels is None or not len(held.ids) or each.label is None:
            continue
        key = (each.label.shape, *(part.tobytes() for part in (held.ids, held.sizes, held.planes)))
        first = seen.setdefault(key, each)
        if first is each or first.voxels is None or first.voxels.content == voxels.content:
            continue
        if first.label is not None and _equal(first.label, each.label):
            message = (
                f"the label is that of {first.case.name}, voxel for voxel, and the image is not"
            )
            path = Path(each.label.name)
            yield Finding("same-label", message, case=each.case.name, path=path)


def _equal(one: Volume, other: Volume) -> bool:
    """Whether two volumes of one shape hold the same, up to where they do not."""
    return all(
        np.array_equal(voxels, other.read(box)) for box, voxels in one.slabs() if voxels.any()
    )


def _shares(values: dict[str, str]) -> str:
    """How many cases have which value, the rare ones by name."""
    counts = Counter(values.values()).most_common()
    parts = []
    for value, count in counts:
        names = [name for name, own in values.items() if own == value]
        parts.append(f"{value} in {count} ({', '.join(names[:3])}{', ...' if count > 3 else ''})")
    return ", ".join(parts)
