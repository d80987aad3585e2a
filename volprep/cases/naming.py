"""What the names in a folder say: stems, roles, running numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path

from volprep.errors import SourceError
from volprep.places import is_remote
from volprep.sources import is_volume_folder, is_volume_path, natural_key, stem_of

__all__ = [
    "PLANE_SUFFIXES",
    "Roles",
    "by_stem",
    "channel_of",
    "entries_in",
    "gaps_in",
    "holds_datasets",
    "is_image_dir",
    "is_label_dir",
    "is_mask_dir",
    "partner_stems",
    "running_numbers",
    "skeletons_in",
    "stem",
    "step_of",
    "subfolders_of",
    "unread_in",
    "visible_in",
    "volumes_in",
]

MOST_GAPS = 1000
#: Files that may hold one plane each.
PLANE_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg"})
#: Pictures and volumes of microscopes and scanners that have a reader of their own elsewhere.
_FOREIGN = re.compile(
    r"\.(am|avi|bmp|dcm|dm3|dm4|dv|gif|hdr|ima|img|j2k|jp2|mnc|ndpi|oib|oif|pgm|pic|ppm|scn|ser"
    r"|sld|stk|svs|tga|vsi|vti|vtk|webp)",
    re.IGNORECASE,
)

_IMAGE_DIR = re.compile(r"images?(tr)?|imgs?|raws?|volumes", re.IGNORECASE)
_LABEL_DIR = re.compile(
    r"(labels?|masks?|segs?|segmentations?|annotations?|gt|ground_?truth|targets?)(tr|[-_ ].*)?",
    re.IGNORECASE,
)
_MASK_DIR = re.compile(r"(valid|annotated)([-_ ]?(masks?|regions?))?", re.IGNORECASE)
_ROLES = (
    r"(?:(?P<mask>valid|valid_?mask|annotated|annotated_?mask)"
    r"|(?P<image>img|images?|raw|im|volume)"
    r"|(?P<label>labels?|lbls?|(?:cp_)?masks?|segm?|segmentations?|gt|ground_?truth|instances?"
    r"|annotations?))"
)
_ROLE_LAST = re.compile(rf"(?P<base>.+?)[._ -]{_ROLES}", re.IGNORECASE)
_ROLE_FIRST = re.compile(rf"{_ROLES}[._ -](?P<base>.+)", re.IGNORECASE)
_SKELETONS = re.compile(r"(?P<base>.+?)(\.labels\.tiff?)?\.skeletons(\.\w+)+", re.IGNORECASE)
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_CONTAINERS = frozenset({
    ".h5", ".hdf5", ".hdf", ".zarr", ".npz", ".zip", ".ozx", ".czi", ".nd2", ".lif",
})  # fmt: skip


def is_image_dir(name: str) -> bool:
    """Whether people call a folder of images so."""
    return bool(_IMAGE_DIR.fullmatch(name))


def is_label_dir(name: str) -> bool:
    """Whether people call a folder of labels so: ``masks``, ``labels_dense``, ..."""
    return bool(_LABEL_DIR.fullmatch(name))


def is_mask_dir(name: str) -> bool:
    """Whether people call a folder of valid masks so."""
    return bool(_MASK_DIR.fullmatch(name))


def holds_datasets(path: Path) -> bool:
    """Whether a file can hold an image and its label at once."""
    return path.suffix.lower() in _CONTAINERS or is_volume_folder(path) or is_remote(path)


def stem(path: Path) -> str:
    """The name of a volume without its suffix, an accented letter always one character.

    macOS stores names decomposed (NFD), everything else as typed (NFC): the same name for
    a user, two for `==`.
    """
    name = path.name if path.is_dir() and not is_volume_folder(path) else stem_of(path)
    return unicodedata.normalize("NFC", name)


def channel_of(path: Path) -> tuple[str, int] | None:
    """(case, channel) of a file named as nnU-Net does, ``CASE_0000.tif``."""
    match = _CHANNEL.fullmatch(stem(path))
    return None if match is None else (match["case"], int(match["channel"]))


class Roles:
    """What a file is named after, and its role, by the words in its name.

    Parameters
    ----------
    image_suffix, label_suffix : str or None
        What the stems of images and labels end in, where the usual words do not tell:
        the user's own, taken literally.
    word : str or None
        Labels that are called by another of the usual words are none.
    """

    def __init__(
        self,
        image_suffix: str | None = None,
        label_suffix: str | None = None,
        word: str | None = None,
    ) -> None:
        self.image_suffix = _nfc(image_suffix)
        self.label_suffix = _nfc(label_suffix)
        self.word = word

    def of(self, name: str) -> tuple[str, str]:
        """(base, role) of a stem; the role is ``image``, ``label``, ``mask`` or ``other``."""
        for own, role in ((self.label_suffix, "label"), (self.image_suffix, "image")):
            if own and name.endswith(own) and name != own:
                return name.removesuffix(own), role
        match = _role_in(name)
        role = "image" if match is None else next(r for r in ("mask", "image", "label") if match[r])
        base = name if match is None else match["base"]
        if role == "label" and (
            self.label_suffix or self.word not in (None, match and match[role])
        ):
            role = "other"
        if role == "image" and self.image_suffix:
            role = "other"
        return base, role

    def base(self, name: str) -> str:
        """A stem without the word for its role: ``X`` of ``X_mask`` and of ``mask_X``."""
        return self.of(name)[0]

    @staticmethod
    def label_word(name: str) -> str:
        """The word that makes a stem a label's: ``mask`` of ``X_mask``."""
        match = _role_in(name)
        return "" if match is None else match["label"] or ""


def partner_stems(
    images: Iterable[str], labels: Iterable[str], roles: Roles | None = None
) -> dict[str, str]:
    """The label stem of each image stem.

    The same; else the same but for the words for roles; else the same but for case, too.
    Where several labels are as near, none is taken.
    """
    roles = roles or Roles()
    left = sorted(set(labels))
    keys: list[Callable[[str], str]] = [str, roles.base, lambda name: roles.base(name).casefold()]
    found: dict[str, str] = {}
    wanted = list(images)
    for key in keys:
        near: dict[str, list[str]] = {}
        for name in left:
            near.setdefault(key(name), []).append(name)
        for name in wanted:
            candidates = near.get(key(name), [])
            if len(candidates) == 1:
                found.setdefault(name, candidates[0])
        wanted = [name for name in wanted if name not in found]
        taken = set(found.values())  # looked up in, where a list would be gone through
        left = [name for name in left if name not in taken] if key is str else left
    return found


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Paths by their stems, which must be unique."""
    found: dict[str, Path] = {}
    for path in paths:
        name = stem(path)
        if name in found:
            raise SourceError(path, f"{found[name].name} has the same stem", "remove or rename one")
        found[name] = path
    return found


def running_numbers(names: Sequence[str]) -> list[str] | None:
    """The number of each name, as it is written, where they differ in numbers alone; else None.

    Where several numbers differ (a section and a date), the one is taken that is another in
    every name; if there are more of these, the first.
    """
    parts = [re.findall(r"[0-9]+|[^0-9]+", unicodedata.normalize("NFC", name)) for name in names]
    if not parts or len({len(part) for part in parts}) > 1:
        return None
    numbers = []
    for column in zip(*parts, strict=True):
        digits = [text[0] in "0123456789" for text in column]
        if all(digits):
            numbers.append(list(column))
        elif len(set(column)) > 1:
            return None
    if len(names) == 1:
        return numbers[-1] if numbers else None
    other = [column for column in numbers if len(set(map(int, column))) == len(names)]
    differing = [column for column in numbers if len(set(map(int, column))) > 1]
    return next(iter(other or differing), None)


def step_of(numbers: Sequence[int]) -> int:
    """By how much numbers mostly grow; 1 for a single one."""
    steps = [b - a for a, b in pairwise(sorted(set(numbers)))]
    return max(set(steps), key=lambda step: (steps.count(step), -step)) if steps else 1


def gaps_in(numbers: Sequence[int]) -> list[int]:
    """The numbers that are missing between the first and the last, in their usual step.

    None where most of them are not in that step (dates, say), and no more than the first
    `MOST_GAPS`: numbers may be billions apart.
    """
    step, ordered = step_of(numbers), sorted(set(numbers))
    jumps = [(a, b) for a, b in pairwise(ordered) if b - a != step]
    if 2 * len(jumps) >= len(ordered):
        return []
    missing = (n for a, b in jumps for n in range(a + step, b, step))
    return list(islice(missing, MOST_GAPS))


def skeletons_in(places: Iterable[Path | None]) -> Mapping[str, Path]:
    """The skeleton files of some folders by what they are named after."""
    found: dict[str, Path] = {}
    for path in (path for place in places for path in visible_in(place)):
        match = _SKELETONS.fullmatch(unicodedata.normalize("NFC", path.name))
        if match:
            found.setdefault(match["base"], path)
    return found


def volumes_in(folder: Path | None) -> list[Path]:
    """The volume files and Zarr stores of a folder in natural order; skeletons are none."""
    return [
        path
        for path in visible_in(folder)
        if is_volume_path(path) and not _SKELETONS.fullmatch(path.name) and not _holds_objects(path)
    ]


def unread_in(folder: Path | None) -> list[Path]:
    """Pictures and volumes in formats that are not read here, and folders that are called files."""
    named = bool(volumes_in(folder))  # else its folders are what is read

    def unread(path: Path) -> bool:
        called = named and path.is_dir() and stem_of(path) != path.name
        return called or bool(_FOREIGN.fullmatch(path.suffix))

    return [path for path in visible_in(folder) if unread(path) and not is_volume_path(path)]


def entries_in(folder: Path | None) -> list[Path]:
    """The volumes of a folder, or, where it has none, its subfolders of single-plane files."""
    return volumes_in(folder) or [
        path
        for path in subfolders_of(folder)
        if any(file.suffix.lower() in PLANE_SUFFIXES for file in visible_in(path))
    ]


def subfolders_of(folder: Path | None) -> list[Path]:
    """The folders in a folder that are no Zarr stores, in natural order."""
    return [path for path in visible_in(folder) if path.is_dir() and not is_volume_folder(path)]


def visible_in(folder: Path | None) -> list[Path]:
    """What lies in a folder in natural order, but for hidden files; nothing where there is none."""
    if folder is None:
        return []
    try:
        if not folder.is_dir():
            return []
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise SourceError(
            folder, f"cannot be listed ({error.strerror})", "check its permissions"
        ) from error
    return sorted(paths, key=lambda path: natural_key(path.name))


def _nfc(text: str | None) -> str | None:
    return None if text is None else unicodedata.normalize("NFC", text)


def _role_in(name: str) -> re.Match[str] | None:
    return _ROLE_LAST.fullmatch(name) or _ROLE_FIRST.fullmatch(name)


def _holds_objects(path: Path) -> bool:
    """Whether an .npy holds pickled objects, as cellpose's ``X_seg.npy`` beside ``X_cp_masks``."""
    if path.suffix.lower() != ".npy" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return b"'descr': '|O'" in file.read(256)
    except OSError:  # which is told where the case is opened
        return False
