"""The nouns: a reference to a file, a case, the cases of a data set."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from volprep.cases.channels import ChannelFiles
from volprep.errors import SourceError
from volprep.geometry import Spacing3
from volprep.sources import Volume, open_labels, open_volume

__all__ = ["Case", "Cases", "FileRef", "did_you_mean"]


@dataclass(frozen=True, slots=True)
class FileRef:
    """One array in one file.

    Attributes
    ----------
    path : pathlib.Path
        A file, a Zarr store, or a folder of slices.
    key : str or None
        The dataset inside it; None lets the reader find the one it expects.
    axes : str or None
        What its axes mean (``ZYX``, ``CZYX``, ...); None takes the file's word.
    """

    path: Path
    key: str | None = None
    axes: str | None = None

    def open(self) -> Volume:
        """Open the array as an image, without reading its voxels."""
        return open_volume(self.path, key=self.key, axes=self.axes)

    def open_labels(self) -> Volume:
        """Open the array as integer labels, without reading its voxels."""
        try:
            return open_labels(self.path, key=self.key, axes=self.axes)
        except SourceError as error:  # of a label, so the option that helps is the label's
            wanted = error.wanted and error.wanted.replace("`axes:", "`label_axes:")
            raise SourceError(error.path, error.found, wanted) from error

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON and YAML."""
        return {"path": str(self.path), "key": self.key, "axes": self.axes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FileRef:
        """The inverse of `to_dict`."""
        return cls(Path(values["path"]), values.get("key"), values.get("axes"))

    def __str__(self) -> str:
        return f"{self.path}::{self.key}" if self.key else str(self.path)


@dataclass(frozen=True, slots=True)
class Case:
    """One image with what belongs to it.

    Attributes
    ----------
    name : str
        Unique among the cases of a data set.
    images : tuple of FileRef
        One file, or several that are the channels of one image.
    label : FileRef or None
        Integer ids or classes, None where the case is not annotated.
    mask : FileRef or None
        Where the label is valid (non-zero), None where all of it is.
    skeletons : pathlib.Path or None
        Skeleton points of the label's instances.
    group : str or None
        Cases of one group (a patient, an embryo) stay on one side of a split.
    spacing : tuple of float or None
        (Z, Y, X) in µm, in place of whatever the files say.
    weight : float
        How often the case is drawn, against the others.
    """

    name: str
    images: tuple[FileRef, ...]
    label: FileRef | None = None
    mask: FileRef | None = None
    skeletons: Path | None = None
    group: str | None = None
    spacing: Spacing3 | None = None
    weight: float = 1.0

    @property
    def image(self) -> FileRef:
        """The first image file."""
        return self.images[0]

    def open_image(self) -> Volume:
        """Open the image, its files stacked along C, without reading its voxels.

        Raises
        ------
        SourceError
            If a file cannot be read, or the channels differ in shape.
        """
        volumes = [ref.open() for ref in self.images]
        return self._spaced(volumes[0] if len(volumes) == 1 else ChannelFiles(volumes))

    def open_label(self) -> Volume | None:
        """Open the label, or None where the case has none."""
        return None if self.label is None else self._spaced(self.label.open_labels())

    def open_mask(self) -> Volume | None:
        """Open the valid mask, or None where the case has none."""
        return None if self.mask is None else self._spaced(self.mask.open_labels())

    def paths(self) -> tuple[Path, ...]:
        """Every file of the case, once."""
        refs = [ref for ref in (*self.images, self.label, self.mask) if ref is not None]
        paths = [ref.path for ref in refs]
        return tuple(dict.fromkeys(paths if self.skeletons is None else [*paths, self.skeletons]))

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON and YAML."""
        return {
            "name": self.name,
            "images": [ref.to_dict() for ref in self.images],
            "label": self.label.to_dict() if self.label else None,
            "mask": self.mask.to_dict() if self.mask else None,
            "skeletons": str(self.skeletons) if self.skeletons else None,
            "group": self.group,
            "spacing": list(self.spacing) if self.spacing else None,
            "weight": self.weight,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Case:
        """The inverse of `to_dict`."""
        label, mask, skeletons = (values.get(key) for key in ("label", "mask", "skeletons"))
        spacing = values.get("spacing")
        return cls(
            name=values["name"],
            images=tuple(FileRef.from_dict(item) for item in values["images"]),
            label=FileRef.from_dict(label) if label else None,
            mask=FileRef.from_dict(mask) if mask else None,
            skeletons=Path(skeletons) if skeletons else None,
            group=values.get("group"),
            spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])) if spacing else None,
            weight=float(values.get("weight", 1.0)),
        )

    def _spaced(self, volume: Volume) -> Volume:
        if self.spacing is None:
            return volume
        spaced = copy.copy(volume)
        spaced.spacing = self.spacing
        return spaced


@dataclass(frozen=True, slots=True)
class Cases(Sequence[Case]):
    """The cases of a data set, in the natural order of their names, and how they were found.

    Attributes
    ----------
    items : tuple of Case
    layout : str
        One of `LAYOUTS`, ``file`` or ``list``.
    reason : str
        What the layout was recognised by.
    notices : tuple of str
        Every reading that a user may want to overrule, with how.
    """

    items: tuple[Case, ...]
    layout: str
    reason: str
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Case, ...]: ...
    def __getitem__(self, index: int | slice) -> Case | tuple[Case, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[Case]:
        return iter(self.items)

    def named(self, name: str) -> Case:
        """The case called `name`.

        Raises
        ------
        KeyError
            If there is none; the message names the nearest.
        """
        for case in self.items:
            if case.name == name:
                return case
        raise KeyError(
            f"no case is called {name!r}{did_you_mean(name, [case.name for case in self.items])}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON and YAML."""
        return {
            "layout": self.layout,
            "reason": self.reason,
            "notices": list(self.notices),
            "cases": [case.to_dict() for case in self.items],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cases:
        """The inverse of `to_dict`."""
        return cls(
            items=tuple(Case.from_dict(item) for item in values["cases"]),
            layout=values["layout"],
            reason=values["reason"],
            notices=tuple(values.get("notices", ())),
        )


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """The nearest of `words` as the tail of a message, or nothing."""
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
