"""Folders of slices: whether they are a stack, and whether those of one case belong together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from volprep.cases.case import Case
from volprep.cases.naming import PLANE_SUFFIXES, gaps_in, running_numbers, stem, step_of, volumes_in
from volprep.cases.search import Search, some
from volprep.errors import SourceError
from volprep.findings import Finding
from volprep.sources import is_volume_folder, open_volume, slice_files

__all__ = ["is_stack", "slice_findings"]

#: A stack of any length may have lost sections at so many places.
_FEW_GAPS = 2
#: Of so many files, one in so many that is odd is rather a slip than an image of its own.
_MANY = 8
_FEW_ODD = 8


def is_stack(images: Path, labels: Path | None, search: Search) -> tuple[bool, list[Finding]]:
    """Whether the files of a folder are the planes of one volume, and how that was seen."""
    if search.slices is not None:
        return search.slices, []
    files = volumes_in(images)
    beside = volumes_in(labels)
    if len(files) < 2 or not all(path.suffix.lower() in PLANE_SUFFIXES for path in files):
        return False, []
    if len(files) >= 3 and _runs(files):
        why = "with running numbers"
    elif len(beside) == 1:
        why = f"beside one label volume, {beside[0].name},"
    else:
        return False, list(_numbered_twice(images, files))
    plane = _plane(files[0])
    if plane is None or any(_plane(path) != plane for path in files[1:]):
        return False, list(_odd_planes(images, files))
    size = "x".join(str(n) for n in plane)
    return True, [
        Finding(
            "read-as-stack",
            f"{images.name}/: {len(files)} {files[0].suffix[1:].upper()} of {size} {why} "
            "read as one stack",
            todo="for separate images set `slices: false` (--images)",
            path=images,
        )
    ]


def _odd_planes(folder: Path, files: Sequence[Path]) -> Iterator[Finding]:
    """A few files that keep all others from being one stack: they have another size."""
    planes = {path: _plane(path) for path in files}
    usual, count = Counter(planes.values()).most_common(1)[0]
    odd = [path.name for path, plane in planes.items() if plane != usual]
    if usual is not None and len(files) >= _MANY and _FEW_ODD * len(odd) <= count:
        size = "x".join(str(n) for n in usual)
        found = f"{count} of {len(files)} files with running numbers are {size}, not so {some(odd)}"
        yield Finding("stack-broken", found, path=folder)


def _numbered_twice(folder: Path, files: Sequence[Path]) -> Iterator[Finding]:
    """A few numbers that occur twice and keep all others from being one stack."""
    written = running_numbers([stem(path) for path in files])
    if written is None or len(files) < _MANY:
        return
    twice = [number for number, count in Counter(map(int, written)).items() if count > 1]
    once = {int(number): path for number, path in zip(written, files, strict=True)}
    if twice and _FEW_ODD * len(twice) <= len(files) and _runs(list(once.values())):
        found = f"{len(files)} files have running numbers, of which {some(twice)} occur twice"
        yield Finding("stack-broken", found, path=folder)


def slice_findings(case: Case, slices_by: str) -> Iterator[Finding]:
    """Whether the slices of an image, its label, its mask and its channels are the same sections.

    Slices are read in the order of their numbers, so that one which is missing in one folder
    alone puts every later section of it over another one.
    """
    refs = [(ref.path, "channel") for ref in case.images]
    refs += [(r.path, n) for r, n in ((case.label, "label"), (case.mask, "mask")) if r is not None]
    stacks = [(path, what, slice_files(path)) for path, what in refs if _is_folder(path)]
    if not stacks:
        return
    first, _, files = stacks[0]
    numbers = _numbers(files)
    if numbers is not None:
        yield from _gaps(case.name, first, numbers)
    if slices_by == "order":
        return
    for path, what, others in stacks[1:]:
        if path != first:
            yield from _differ(case.name, (first, files), (path, others), what)


def _differ(
    case: str, one: tuple[Path, Sequence[Path]], other: tuple[Path, Sequence[Path]], what: str
) -> Iterator[Finding]:
    (first, files), (path, others) = one, other
    own, theirs = _numbers(files), _numbers(others)
    if own is not None and own != theirs:
        texts, other_texts = _beside_folder(first, files), _beside_folder(path, others)
        if texts is not None and texts == other_texts:
            return
    if own is None or theirs is None:
        if sorted(map(stem, files)) != sorted(map(stem, others)):
            yield Finding(
                "slices-unnumbered",
                f"the slices of the {what} are taken for those of {first} in order, since their "
                "names hold no number that tells which belong together",
                todo="number them alike",
                case=case,
                path=path,
            )
        return
    missing = sorted((Counter(own) - Counter(theirs)).elements())
    extra = sorted((Counter(theirs) - Counter(own)).elements())
    if not missing and not extra:
        return
    parts = [f"it has no {_listed(missing)}"] if missing else []
    parts += [f"{first.name}/ has no {_listed(extra)}"] if extra else []
    if len(own) == len(theirs) and (own[0], own[-1]) != (theirs[0], theirs[-1]):
        parts.append(
            f"it counts from {theirs[0]} to {theirs[-1]}, {first.name}/ from {own[0]} to {own[-1]}"
        )
    yield Finding(
        "slices-differ",
        f"the slices of the {what} are not those of {first.name}/: {', and '.join(parts)}",
        todo="add or remove what is too few or too many; if they belong together in order whatever "
        "their numbers say, set `slices_by: order`",
        case=case,
        path=path,
    )


def _gaps(case: str, folder: Path, numbers: Sequence[int]) -> Iterator[Finding]:
    missing = gaps_in(numbers)
    if missing:
        yield Finding(
            "slices-missing",
            f"{folder.name}/ has no {_listed(missing)} between {numbers[0]} and {numbers[-1]}: "
            "the sections before and after a gap are read as neighbours",
            todo="add the missing ones, or make a case of each unbroken part",
            case=case,
            path=folder,
        )


def _listed(numbers: Sequence[int]) -> str:
    """``slice 4``, ``slices 4, 8``."""
    return f"{'slice' if len(numbers) == 1 else 'slices'} {some(numbers)}"


def _runs(files: Sequence[Path]) -> bool:
    """Whether the names differ only in one number, and it grows in equal steps but for few gaps.

    Images of a set that was divided at random have gaps everywhere, a stack that lost
    sections has few.
    """
    numbers = _numbers(files)
    if numbers is None or len({path.suffix.lower() for path in files}) > 1:
        return False
    if len(set(numbers)) < len(numbers):
        return False
    step = step_of(numbers)
    jumps = [(b - a) // step for a, b in pairwise(sorted(numbers)) if b - a != step]
    few = len(jumps) <= max(_FEW_GAPS, len(numbers) // 20)
    return few and sum(jumps) <= len(numbers)


def _numbers(files: Sequence[Path]) -> list[int] | None:
    """The numbers of slices in the order in which they are read."""
    texts = running_numbers([stem(path) for path in files])
    return None if texts is None else [int(text) for text in texts]


def _beside_folder(folder: Path, files: Sequence[Path]) -> list[int] | None:
    """The numbers without that of the folder, where each begins with it: ch1/ch10009, say."""
    texts = running_numbers([stem(path) for path in files])
    own = re.search(r"[0-9]+$", folder.name)
    if texts is None or own is None or not all(t.startswith(own[0]) for t in texts):
        return None
    if any(t == own[0] for t in texts):
        return None
    return [int(t.removeprefix(own[0])) for t in texts]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not is_volume_folder(path)


def _plane(path: Path) -> tuple[int, int] | None:
    """(Y, X) of a file that holds one plane, else None."""
    try:
        _, z, y, x = open_volume(path).shape
    except SourceError:
        return None
    return (y, x) if z == 1 else None
