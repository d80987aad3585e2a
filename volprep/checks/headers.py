"""What the headers of image, label, mask and channels say of each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

from volprep.cases import Case, ChannelFiles
from volprep.findings import Finding, Level
from volprep.sources import Volume, difference

__all__ = ["compare_grids", "count_chunks", "odd_names"]

_INTERPOLATED = (
    "resample it onto the image's grid; or, where the headers are wrong and the voxels fit as "
    "they are stored, say `data.geometry: stored`"
)


def odd_names(case: Case) -> Iterator[Finding]:
    """Files whose names would break what they are written into."""
    for path in case.paths():
        # What is no text in a name comes as lone surrogates, which cannot be printed either.
        if not str(path).isprintable():
            found = f"the name {path.name!a} holds signs that cannot be printed"
            name, place = (ascii(text)[1:-1] for text in (case.name, str(path)))
            yield Finding("unprintable-name", found, case=name, path=Path(place))


def compare_grids(
    case: Case, image: Volume, label: Volume | None, mask: Volume | None
) -> Iterator[Finding]:
    """Whether all volumes of a case lie on the image's grid: in the world, and in their shape."""
    if isinstance(image, ChannelFiles):
        for number, part in enumerate(image.parts[1:], 1):
            yield from _compare(case, image.parts[0], part, f"channel {number}")
    for what, volume in (("label", label), ("mask", mask)):
        if volume is None:
            continue
        told = list(_compare(case, image, volume, what))
        yield from told
        if not told and volume.shape[1:] != image.shape[1:]:
            found = (
                f"the {what} has shape {volume.shape[1:]} and the image {image.shape[1:]} (Z, Y, X)"
            )
            todo = _what_would_fit(image, volume, what)
            yield Finding(
                "shape-mismatch", found, todo=todo, case=case.name, path=Path(volume.name)
            )


def count_chunks(
    case: Case, image: Volume | None, label: Volume | None, mask: Volume | None
) -> Iterator[Finding]:
    """Chunks that were never written: what is read there is the fill value.

    Writers leave out chunks of labels that are background, so that this alone says little of
    labels (`ends_at_chunks` says more); an image that is empty for the most part is none.
    """
    for what, volume in (("image", image), ("label", label), ("mask", mask)):
        absent, total = (0, 1) if volume is None else volume.missing_chunks()
        if volume is None or not absent:
            continue
        level: Level = "info"
        if what == "image":
            level = "error" if 2 * absent > total else "warning"
        found = (
            f"{absent} of {total} chunks of the {what} ({absent / total:.0%}) were never written"
        )
        yield Finding("chunks-missing", found, case=case.name, path=Path(volume.name), level=level)


def _compare(case: Case, image: Volume, other: Volume, what: str) -> Iterator[Finding]:
    told = None if case.geometry == "stored" else difference(image, other)
    if told is None and case.geometry != "stored":
        yield from _one_sided(case, image, other, what)
    if told is not None:
        found = f"the {what} lies otherwise than the image {image.path.name}: {told.what}"
        todo = _INTERPOLATED if told.move is None else None
        yield Finding("geometry-differs", found, todo=todo, case=case.name, path=Path(other.name))


def _one_sided(case: Case, image: Volume, other: Volume, what: str) -> Iterator[Finding]:
    """Where only one of two files says where it lies, and not at the corner of the world.

    Between files of one format somebody has left it out, or cut one of the two; one format may
    not be able to say what the other does, which is nobody's slip.
    """
    placed = [v for v in (image, other) if v.placement is not None and not v.placement.plain]
    silent = [v for v in (image, other) if v.placement is None]
    if len(placed) != 1 or len(silent) != 1:
        return
    if any(getattr(note, "name", "") == "geometry-unreadable" for note in silent[0].notes):
        return
    there, where = ("image", what) if placed[0] is image else (what, "image")
    place = placed[0].placement
    assert place is not None
    start = ", ".join(f"{length:g}" for length in place.origin)
    found = (
        f"the {there} says where it lies (its {place.said_by}: {start} along z, y and x), and "
        f"the {where} does not, so that the two cannot be compared"
    )
    alike = image.path.suffix.lower() == other.path.suffix.lower()
    level: Level = "warning" if alike else "info"
    path = Path(other.name)
    yield Finding("geometry-one-sided", found, case=case.name, path=path, level=level)


def _what_would_fit(image: Volume, label: Volume, what: str) -> str | None:
    """The reading of the axes under which two shapes are one, if there is any."""
    own = label.shape[1:]
    if own[0] == 1 and image.shape[0] == 1 and own[1:] == image.shape[2:]:
        return "if the first axis of the image is channels, say so with `axes: CYX`"
    for order in permutations(range(3)):
        if tuple(own[axis] for axis in order) == image.shape[1:]:
            letters = "".join("ZYX"[order.index(axis)] for axis in range(3))
            return f"they agree if the axes of the {what} are {letters}: `label_axes: {letters}`"
    if sorted(own) == sorted(image.shape[1:]):
        return "their axes are in different orders"
    return None
