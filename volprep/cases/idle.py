"""Options that choose among names, and what was found by them: a slip there must not be silent."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

from volprep.cases.case import Cases, FileRef
from volprep.cases.naming import Roles, holds_datasets, stem
from volprep.cases.search import Search
from volprep.findings import Finding
from volprep.sources import is_volume_folder

__all__ = ["idle_options"]

#: The layouts in which files are told apart by their names.
_BY_NAME = ("folders", "suffix", "images", "file")


def idle_options(search: Search, found: Cases) -> Iterator[Finding]:
    """Options of a search that matched nothing, although cases were found without them."""
    images = [ref for case in found for ref in case.images]
    labels = [case.label for case in found if case.label is not None]
    masks = [case.mask for case in found if case.mask is not None]
    word = search.roles.word
    by_name, folders = found.layout in _BY_NAME, found.layout == "folders"
    matched: dict[str, Callable[[], bool]] = {
        "image_dir": lambda: folders,
        "label_dir": lambda: folders or any(_word(ref) == word for ref in labels),
        "mask_dir": lambda: folders,
        "image_suffix": lambda: by_name and _some_end(images, search.image_suffix),
        "label_suffix": lambda: by_name and _some_end(labels, search.label_suffix),
        "image_key": lambda: _some_hold_datasets(images),
        "label_key": lambda: _some_hold_datasets(labels),
        "mask_key": lambda: _some_hold_datasets(masks),
        "label_axes": lambda: bool(labels or masks),
    }
    idle = {
        name: f"finds nothing among {found.reason}"
        for name, matches in matched.items()
        if getattr(search, name) is not None and not matches()
    }
    stacks = any(ref.path.is_dir() and not is_volume_folder(ref.path) for ref in images)
    if search.slices and not stacks:
        idle["slices"] = "without a folder of slices"
    if search.slices_by == "order" and not stacks:
        idle["slices_by"] = "without a folder of slices"
    for name, why in idle.items():
        value = getattr(search, name)
        shown = str(value).lower() if isinstance(value, bool) else value
        yield Finding(
            "option-idle", f"`{name}: {shown}` {why}",
            todo="correct the option or leave it out", path=search.root,
        )  # fmt: skip


def _word(ref: FileRef) -> str:
    return Roles.label_word(stem(ref.path))


def _some_end(refs: Sequence[FileRef], suffix: str | None) -> bool:
    """Whether a name ends in it, and is more than that."""
    end = unicodedata.normalize("NFC", suffix or "")
    names = [stem(ref.path) for ref in refs]
    return any(name.endswith(end) and name != end for name in names)


def _some_hold_datasets(refs: Sequence[FileRef]) -> bool:
    return any(holds_datasets(ref.path) for ref in refs)
