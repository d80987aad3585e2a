"""Which dataset of a container is the image, and which the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from volprep.errors import SourceError

__all__ = ["choose_key", "is_image_key", "is_label_key", "refuse_key"]

#: What datasets are called, the word that is believed first coming first.
_ROLELESS = ("main", "exported_data", "stack", "data")
_IMAGE = ("raw", "image", "images", "img", "main", "volume", "data", "exported_data", "stack", "em")
_LABEL = (
    "label", "labels", "gt", "ground_truth", "groundtruth", "instances", "instance",
    "segmentation", "seg", "mask", "masks", "neuron_ids", "annotation", "annotations",
)  # fmt: skip


def refuse_key(path: Path, key: str | None, holds: str = "one array") -> None:
    """Raise where a dataset is named in a file that has none; `holds` says what it has.

    Raises
    ------
    SourceError
        Where `key` is given.
    """
    if key is not None:
        raise SourceError(path, f"holds {holds}, not a dataset {key!r}", "leave out the key")


def is_label_key(key: str) -> bool:
    """Whether a dataset is called as labels are, itself or a group that it lies in."""
    return any(part.lower() in _LABEL for part in key.split("/"))


def is_image_key(key: str) -> bool:
    """Whether a dataset is called as images are."""
    return not is_label_key(key) and key.rsplit("/", 1)[-1].lower() in _IMAGE


def choose_key(
    path: object, found: Mapping[str, Sequence[int]], key: str | None, *, labels: bool
) -> str:
    """The dataset that is meant.

    Parameters
    ----------
    path : Path
        For messages.
    found : mapping of str to shape
        Every dataset of the container.
    key : str or None
        What the user says; it may carry a leading slash.
    labels : bool
        Whether labels are looked for, else an image.

    Raises
    ------
    SourceError
        If there is no such dataset, or none or several that it could be.
    """
    if key is not None:
        name = key.strip("/")
        if name in found:
            return name
        near = get_close_matches(name, found, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SourceError(path, f"has no dataset {key!r}", f"{hint}it holds {_listed(found)}")
    volumes = {k: shape for k, shape in found.items() if len(shape) > 1}
    if len(volumes) == 1:
        return next(iter(volumes))
    wanted = "labels" if labels else "an image"
    if not volumes:
        raise SourceError(path, f"holds no array that could be {wanted}", "check the file")
    for name in (*_LABEL, *_ROLELESS) if labels else _IMAGE:
        same = [k for k in volumes if k.rsplit("/", 1)[-1].lower() == name]
        if len(same) == 1:
            return same[0]
        if same:
            break
    raise SourceError(
        path,
        f"holds {len(volumes)} arrays, and which is {wanted} cannot be told",
        f"give its key: {_listed(volumes)}",
    )


def _listed(found: Mapping[str, Sequence[int]], limit: int = 20) -> str:
    names = [f"{k} ({'×'.join(map(str, shape))})" for k, shape in sorted(found.items())]
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return ", ".join(names[:limit] + more) or "nothing"
