"""What training and validation share, where they should share nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from volprep.cases import Case
from volprep.compute import run_units
from volprep.errors import SourceError
from volprep.findings import Finding
from volprep.geometry import Box, Shape3
from volprep.sources import Volume
from volprep.splits.blocks import AXES
from volprep.splits.sketch import Sketch, near_copies
from volprep.splits.split import SplitPart, Splits

__all__ = ["ContentHash", "Twins", "audit_splits", "content_hash", "find_twins"]


def audit_splits(
    splits: Splits,
    cases: Sequence[Case],
    *,
    patch: Shape3 | None = None,
    halo: Shape3 = (0, 0, 0),
    content: bool = True,
    hashes: Mapping[str, str] | None = None,
    sketches: Mapping[str, Sketch] | None = None,
    workers: int | None = None,
) -> list[Finding]:
    """Look for anything that training and validation share.

    Parameters
    ----------
    splits : Splits
    cases : sequence of Case
    patch, halo : tuple of int
        What is cut: the gap between blocks should hold a patch; no voxel may
        lie in both sides, the halo around each included.
    content : bool
        Compare the images voxel by voxel (through `content_hash`), not only by path.
    hashes : mapping of str to str
        Content hashes that are known already; cases without one are not compared.
        None reads images of one shape and dtype: the middle plane first, all of
        it where that is the same.
    sketches : mapping of str to array, or None
        Of the images (`SketchMaker`), by case: copies that were cut, moved, turned, rescaled
        or changed in places are looked for. None looks for none.
    workers : int or None
        Threads that read; None takes every processor.

    Returns
    -------
    list of Finding
        Empty where nothing is shared.
    """
    return [
        *_audit_names(splits, cases),
        *_audit_boxes(splits, patch, halo),
        *_audit_groups(splits),
        *_audit_files(splits, cases),
        *(_audit_content(splits, cases, hashes, workers) if content else []),
        *_audit_sketches(splits, cases, hashes or {}, sketches or {}),
    ]


class ContentHash:
    """A hash of voxels, shape and dtype, the same whatever file and chunks hold them.

    Blocks may come in any order; together they must be every voxel once. Made for telling
    copies apart, not against forgery: two images that differ have one hash by a chance of
    about 2**-128.
    """

    def __init__(self, volume: Volume) -> None:
        from volprep.kernels import content

        self._add = content.add_block
        self._shape = volume.shape[1:]
        self._head = f"{volume.shape} {volume.dtype.str}"
        self._bits = np.dtype(f"u{volume.dtype.itemsize}")
        self._along = np.empty((2, volume.shape[3]), np.uint64)
        content.weights(volume.shape[3], self._along)
        self._sums = np.zeros(2, np.uint64)

    def add(self, box: Box, voxels: npt.NDArray[Any]) -> None:
        """Voxels of a box, as (C, Z, Y, X)."""
        bits = np.ascontiguousarray(voxels).view(self._bits)
        self._add(bits, box.start, self._shape, self._along, self._sums)

    def merge(self, other: ContentHash) -> None:
        """Add the voxels that another one of the same volume has seen."""
        self._sums += other._sums

    def hexdigest(self) -> str:
        """128 bits in hexadecimal."""
        return blake2b(self._head.encode() + self._sums.tobytes(), digest_size=16).hexdigest()


def content_hash(volume: Volume) -> str:
    """A hash of the voxels, shape and dtype, the same whatever file holds them.

    Parameters
    ----------
    volume : Volume
        Read once, in the order of its chunks.

    Returns
    -------
    str
        128 bits in hexadecimal.
    """
    digest = ContentHash(volume)
    for box, voxels in volume.slabs():
        digest.add(box, voxels)
    return digest.hexdigest()


def _audit_names(splits: Splits, cases: Sequence[Case]) -> list[Finding]:
    known = {case.name for case in cases}
    named = {part.case for part in (*splits.train, *splits.val)}
    gone = [
        Finding("split-unknown-case", "in the splits but not in the data", case=name)
        for name in sorted(named - known)
    ]
    missing = [
        Finding("split-missing-case", "in neither train nor val", case=name)
        for name in sorted(known - named)
    ]
    empty = [
        Finding("split-empty", f"nothing is for {side}")
        for side, parts in (("training", splits.train), ("validation", splits.val))
        if not parts
    ]
    return gone + missing + empty


def _audit_boxes(splits: Splits, patch: Shape3 | None, halo: Shape3) -> list[Finding]:
    """No voxel in both sides, with what is read around it; and room for a patch between them."""
    findings = []
    held: dict[str, list[SplitPart]] = {}
    for part in splits.val:
        held.setdefault(part.case, []).append(part)
    for train in splits.train:
        for val in held.get(train.case, []):
            if train.box is None or val.box is None:
                message = "the whole volume is on one side and some of it on the other"
                findings.append(Finding("split-overlap", message, case=train.case))
            elif train.box.grow(halo).overlaps(val.box.grow(halo)):
                message = (
                    f"train {_span(train.box)} and val {_span(val.box)} share voxels with a halo "
                    f"of {halo}"
                )
                findings.append(Finding("split-overlap", message, case=train.case))
            elif patch is not None and train.box.grow(patch).overlaps(val.box):
                message = f"the gap between train and val is narrower than the patch {patch}"
                findings.append(Finding("split-narrow-gap", message, case=train.case))
    return findings


def _audit_groups(splits: Splits) -> list[Finding]:
    if splits.kind == "blocks":
        return []
    train, val = (
        {splits.groups[part.case] for part in parts if part.case in splits.groups}
        for parts in (splits.train, splits.val)
    )
    return [
        Finding("split-group", f"the group {group!r} is in both train and val")
        for group in sorted(train & val)
    ]


def _audit_files(splits: Splits, cases: Sequence[Case]) -> list[Finding]:
    """One file under two names on both sides."""
    sides = _sides(splits)
    seen: dict[tuple[Path, str | None], list[Case]] = {}
    findings = []
    for case in cases:
        for ref in case.images:
            others = seen.setdefault((ref.path.resolve(), ref.key), [])
            shared = (o for o in others if _shares(o, case) and _leaks(splits, sides, o, case))
            other = next((each.name for each in shared), None)
            others.append(case)
            if other is not None:
                message = f"the file of {other} too, on the other side of the split"
                finding = Finding("split-same-file", message, case=case.name, path=ref.path)
                findings.append(finding)
    return findings


def _shares(one: Case, other: Case) -> bool:
    """Whether two cases of one file show a voxel of it both."""
    if one.region is None or other.region is None:
        return one.name != other.name
    return one.name != other.name and one.region.overlaps(other.region)


def _leaks(splits: Splits, sides: Mapping[str, set[str]], one: Case, other: Case) -> bool:
    """Whether two cases of one file lie on both sides.

    Of two time points the same place must: they show the same things, moved a little.
    """
    if one.image.time == other.image.time:
        return _crosses(sides, one.name, other.name)
    names = {one.name, other.name}
    train, val = ([p for p in parts if p.case in names] for parts in (splits.train, splits.val))
    return any(
        a.case != b.case and (a.box is None or b.box is None or a.box.overlaps(b.box))
        for a in train
        for b in val
    )


def _audit_content(
    splits: Splits, cases: Sequence[Case], hashes: Mapping[str, str] | None, workers: int | None
) -> list[Finding]:
    sides = _sides(splits)
    used = [case for case in cases if case.name in sides]
    if len(used) < 2 or not splits.val:
        return []
    found, findings = _hash_all(used, workers) if hashes is None else (hashes, [])
    seen: dict[str, list[str]] = {}
    for case in (case for case in used if case.name in found):
        alike = seen.setdefault(found[case.name], [])
        twins = [other for other in alike if _crosses(sides, other, case.name)]
        if twins:
            message = (
                f"the same image, voxel for voxel, as {', '.join(twins)} on the other side of the "
                "split"
            )
            path = case.image.path
            findings.append(Finding("split-same-image", message, case=case.name, path=path))
        alike.append(case.name)
    return findings


def _audit_sketches(
    splits: Splits,
    cases: Sequence[Case],
    hashes: Mapping[str, str],
    sketches: Mapping[str, Sketch],
) -> Iterator[Finding]:
    """Images that show the same in part; the same in whole is told already."""
    sides = _sides(splits)
    files = {case.name: [(ref.path, ref.key) for ref in case.images] for case in cases}
    used = {name: sketch for name, sketch in sketches.items() if name in sides}
    for (one, other), share in near_copies(used).items():
        alike = one in hashes and hashes[one] == hashes.get(other)
        if not alike and files[one] != files[other] and _crosses(sides, one, other):
            found = (
                f"about {share:.0%} of it shows the same as {one} on the other side of the split, "
                "cut, moved, mirrored, rescaled or changed in places"
            )
            yield Finding("split-near-copy", found, case=other, path=files[other][0][0])


class Twins(NamedTuple):
    """Cases that share an image with an earlier one, by name, and that one's name.

    Attributes
    ----------
    copies : dict of str to str
        Image, label and mask are the same, voxel for voxel: the case adds nothing.
    same_image : dict of str to str
        The label or the mask is another.
    """

    copies: dict[str, str]
    same_image: dict[str, str]


def find_twins(
    cases: Sequence[Case],
    workers: int | None = None,
    *,
    hashes: Mapping[str, str] | None = None,
) -> Twins:
    """Cases with one and the same image.

    Parameters
    ----------
    cases : sequence of Case
    workers : int or None
        Threads that read; None takes every processor.
    hashes : mapping of str to str
        Content hashes of the images; those without one have no twin. None reads them.

    Raises
    ------
    SourceError
        If a label that must be compared cannot be read.

    Notes
    -----
    Without `hashes`, one middle plane of each image is read, and whole images only where
    those agree.
    """
    digests = _hash_all(cases, workers)[0] if hashes is None else hashes
    counts = Counter(digests.values())
    images: dict[str, str] = {}
    wholes: dict[tuple[str | None, ...], str] = {}
    twins = Twins({}, {})
    for case in cases:
        image = digests.get(case.name)
        if image is None or counts[image] < 2:
            continue
        first = images.setdefault(image, case.name)
        beside = (case.open_label(), case.open_mask())
        labels = (None if volume is None else content_hash(volume) for volume in beside)
        original = wholes.setdefault((image, *labels), case.name)
        if original != case.name:
            twins.copies[case.name] = original
        elif first != case.name:
            twins.same_image[case.name] = first
    return twins


def _hash_all(
    cases: Sequence[Case], workers: int | None
) -> tuple[Mapping[str, str], list[Finding]]:
    """Content hashes of the images that could be alike: of one shape, dtype and middle plane."""
    volumes: dict[str, Volume] = {}
    findings = []
    for case in cases:
        try:
            volumes[case.name] = case.open_image()
        except SourceError as error:
            findings.append(_unreadable(case.name, error))
    kinds = Counter((volume.shape, volume.dtype) for volume in volumes.values())
    similar = {n: v for n, v in volumes.items() if kinds[v.shape, v.dtype] > 1}
    # To look into the middle of a stream is to inflate half of it: then the first plane must do.
    first = any(volume.sequential for volume in similar.values())
    glances, unread = _hash_each(_first_hash if first else _middle_hash, similar, workers)
    seen = Counter(glances.values())
    alike = {name: volumes[name] for name, glance in glances.items() if seen[glance] > 1}
    digests, broken = _hash_each(content_hash, alike, workers)
    return digests, [*findings, *unread, *broken]


def _hash_each(
    function: Callable[[Volume], str], volumes: Mapping[str, Volume], workers: int | None
) -> tuple[dict[str, str], list[Finding]]:
    def attempt(name: str) -> tuple[str, str | SourceError]:
        try:
            return name, function(volumes[name])
        except SourceError as error:
            return name, error

    results = dict(run_units(attempt, volumes, workers=workers))
    digests = {name: each for name, each in results.items() if isinstance(each, str)}
    broken = [_unreadable(n, each) for n, each in results.items() if isinstance(each, SourceError)]
    return digests, broken


def _middle_hash(volume: Volume) -> str:
    """A hash of the middle plane: different for most different images of one shape and dtype."""
    box = Box.whole(volume.shape)
    middle = volume.shape[1] // 2
    plane = Box((middle, 0, 0), (middle + 1, *box.stop[1:]))
    return blake2b(np.ascontiguousarray(volume.read(plane)).data, digest_size=16).hexdigest()


def _first_hash(volume: Volume) -> str:
    """A hash of the first plane, which is read without the rest wherever it lies."""
    for _, voxels in volume.slabs(1):
        return blake2b(np.ascontiguousarray(voxels).data, digest_size=16).hexdigest()
    raise AssertionError("a volume has a plane")


def _unreadable(name: str, error: SourceError) -> Finding:
    path = Path(error.path)
    return Finding("unreadable", error.found, todo=error.wanted, case=name, path=path)


def _sides(splits: Splits) -> dict[str, set[str]]:
    sides: dict[str, set[str]] = {}
    for side, parts in (("train", splits.train), ("val", splits.val)):
        for part in parts:
            sides.setdefault(part.case, set()).add(side)
    return sides


def _crosses(sides: Mapping[str, set[str]], one: str, other: str) -> bool:
    """Whether two cases are both used, and not only on one and the same side."""
    return one in sides and other in sides and len(sides[one] | sides[other]) > 1


def _span(box: Box) -> str:
    return ", ".join(
        f"{axis} {a} to {b}" for axis, a, b in zip(AXES, box.start, box.stop, strict=True)
    )
