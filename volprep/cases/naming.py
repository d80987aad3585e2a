"""What the names in a folder say: stems, roles, running numbers, dataset keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from volprep.errors import SourceError
from volprep.sources import is_volume_path, natural_key, stem_of
from volprep.sources.names import is_zarr

__all__ = [
    "PLANE_SUFFIXES",
    "bare_stem",
    "by_stem",
    "channel_of",
    "entries_in",
    "holds_datasets",
    "is_image_dir",
    "is_image_key",
    "is_label_dir",
    "is_label_key",
    "is_mask_dir",
    "label_word",
    "partner_stems",
    "role_of",
    "runs",
    "skeletons_in",
    "subfolders_of",
    "volumes_in",
]

#: Files that may hold one plane each.
PLANE_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg"})

_IMAGE_DIR = re.compile(r"images?(tr)?|imgs?|raws?|volumes", re.IGNORECASE)
_LABEL_DIR = re.compile(
    r"(labels?|masks?|segs?|segmentations?|annotations?|gt|ground_?truth|targets?)(tr|[-_ ].*)?",
    re.IGNORECASE,
)
_MASK_DIR = re.compile(r"(valid|annotated)([-_ ]?(masks?|regions?))?", re.IGNORECASE)
_ROLES = (
    r"(?:(?P<mask>valid|valid_?mask|annotated|annotated_?mask)"
    r"|(?P<image>img|images?|raw|im|volume)"
    r"|(?P<label>labels?|masks?|segm?|segmentation|gt|groundtruth|instances?|annotations?))"
)
_ROLE_LAST = re.compile(rf"(?P<base>.+?)[._ -]{_ROLES}", re.IGNORECASE)
_ROLE_FIRST = re.compile(rf"{_ROLES}[._ -](?P<base>.+)", re.IGNORECASE)
_SKELETONS = re.compile(r"(?P<base>.+?)(\.labels\.tiff?)?\.skeletons(\.\w+)+", re.IGNORECASE)
_IMAGE_KEY = re.compile(r"raw|images?|img|main|data|volume|em", re.IGNORECASE)
_LABEL_KEY = re.compile(
    r"labels?|masks?|seg|segmentation|gt|ground_?truth|instances?|annotations?|neuron_ids",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_NUMBER = re.compile(r"(?P<head>.*?)(?P<number>\d+)(?P<tail>\D*)")
_CONTAINERS = frozenset({".h5", ".hdf5", ".hdf", ".zarr", ".npz"})


def is_image_dir(name: str) -> bool:
    """Whether people call a folder of images so."""
    return bool(_IMAGE_DIR.fullmatch(name))


def is_label_dir(name: str) -> bool:
    """Whether people call a folder of labels so: ``masks``, ``labels_dense``, ..."""
    return bool(_LABEL_DIR.fullmatch(name))


def is_mask_dir(name: str) -> bool:
    """Whether people call a folder of valid masks so."""
    return bool(_MASK_DIR.fullmatch(name))


def is_label_key(key: str) -> bool:
    """Whether a dataset is called as labels are, itself or a group that it lies in."""
    return any(_LABEL_KEY.fullmatch(part) for part in key.split("/"))


def is_image_key(key: str) -> bool:
    """Whether a dataset is called as images are."""
    return not is_label_key(key) and bool(_IMAGE_KEY.fullmatch(key.split("/")[-1]))


def holds_datasets(path: Path) -> bool:
    """Whether a file can hold an image and its label at once."""
    return path.suffix.lower() in _CONTAINERS or is_zarr(path)


def channel_of(path: Path) -> tuple[str, int] | None:
    """(case, channel) of a file named as nnU-Net does, ``CASE_0000.tif``."""
    match = _CHANNEL.fullmatch(stem_of(path))
    return None if match is None else (match["case"], int(match["channel"]))


def role_of(path: Path, word: str | None = None) -> tuple[str, str]:
    """What a file is named after, and its role: ``image``, ``label``, ``mask`` or ``other``.

    With `word`, labels that are called by another word are ``other``.
    """
    stem = stem_of(path)
    match = _role_in(stem)
    if match is None:
        return stem, "image"
    role = next(name for name in ("mask", "image", "label") if match[name])
    if role == "label" and word not in (None, match["label"]):
        role = "other"
    return match["base"], role


def bare_stem(stem: str) -> str:
    """A stem without the word for its role: ``X`` of ``X_mask`` and of ``mask_X``."""
    match = _role_in(stem)
    return match["base"] if match else stem


def label_word(stem: str) -> str:
    """The word that makes a stem a label's: ``mask`` of ``X_mask``."""
    match = _role_in(stem)
    return "" if match is None else match["label"] or ""


def partner_stems(images: Iterable[str], labels: Iterable[str]) -> dict[str, str]:
    """The label stem of each image stem: the same, or the same but for the words for roles."""
    exact = set(labels)
    bare: dict[str, list[str]] = {}
    for stem in sorted(exact):
        bare.setdefault(bare_stem(stem), []).append(stem)
    near = {stem: [stem] if stem in exact else bare.get(bare_stem(stem), []) for stem in images}
    return {stem: found[0] for stem, found in near.items() if len(found) == 1}


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Paths by their stems, which must be unique."""
    found: dict[str, Path] = {}
    for path in paths:
        stem = path.name if path.is_dir() and not is_zarr(path) else stem_of(path)
        if stem in found:
            raise SourceError(path, f"{found[stem].name} has the same stem", "remove or rename one")
        found[stem] = path
    return found


def runs(files: Sequence[Path]) -> bool:
    """Whether the names differ only in their last number, and it grows in equal steps."""
    parts = [match for match in (_NUMBER.fullmatch(stem_of(path)) for path in files) if match]
    numbers = sorted(int(part["number"]) for part in parts)
    steps = {b - a for a, b in pairwise(numbers)}
    around = {(part["head"], part["tail"]) for part in parts}
    suffixes = {path.suffix.lower() for path in files}
    return len(parts) == len(files) and len(steps) == len(around) == len(suffixes) == 1


def skeletons_in(places: Iterable[Path | None]) -> Mapping[str, Path]:
    """The skeleton files of some folders by what they are named after."""
    found: dict[str, Path] = {}
    for path in (path for place in places for path in _visible(place)):
        match = _SKELETONS.fullmatch(path.name)
        if match:
            found.setdefault(match["base"], path)
    return found


def volumes_in(folder: Path | None) -> list[Path]:
    """The volume files and Zarr stores of a folder in natural order; skeletons are none."""
    return [
        path
        for path in _visible(folder)
        if is_volume_path(path) and not _SKELETONS.fullmatch(path.name)
    ]


def entries_in(folder: Path | None) -> list[Path]:
    """The volumes of a folder, or, where it has none, its subfolders of single-plane files."""
    return volumes_in(folder) or [
        path
        for path in subfolders_of(folder)
        if any(file.suffix.lower() in PLANE_SUFFIXES for file in _visible(path))
    ]


def subfolders_of(folder: Path | None) -> list[Path]:
    """The folders in a folder that are no Zarr stores, in natural order."""
    return [path for path in _visible(folder) if path.is_dir() and not is_zarr(path)]


def _role_in(stem: str) -> re.Match[str] | None:
    return _ROLE_LAST.fullmatch(stem) or _ROLE_FIRST.fullmatch(stem)


def _visible(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise SourceError(folder, f"cannot be listed ({error})", "check its permissions") from error
    return sorted(paths, key=lambda path: natural_key(path.name))
