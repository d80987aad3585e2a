"""What is handed over: prepared cases, or the parts of them on each side of the split; the plan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy.typing as npt

from volprep.geometry import Box, Shape3, Spacing3, VolumeLike
from volprep.preprocess import Normalisation

__all__ = ["ExportCase", "ExportSet", "PreparedVolumes", "Side", "cut_cases", "slabs"]

Side = Literal["train", "val"]
Array = npt.NDArray[Any]
#: Names that Windows keeps for devices, whatever their suffix.
_DEVICES = re.compile("con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
#: Voxels that are held at a time.
_AT_ONCE = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class ExportCase:
    """A case, or the part of one that lies on one side of the split.

    Attributes
    ----------
    name : str
        Of the files: letters, digits, ``-`` and ``_``; no two are equal, whatever the case of
        their letters.
    case : str
        The case that it is, or is cut from.
    box : Box
        Where in the case, in its prepared voxels.
    side : {'train', 'val'}
    spacing : (Z, Y, X) in µm, or None
    key : str
        The hash of what the voxels are.
    image, label, mask : VolumeLike
        Of the whole case, as it was prepared; the mask is non-zero where the label is valid.
    """

    name: str
    case: str
    box: Box
    side: Side
    spacing: Spacing3 | None
    key: str
    image: VolumeLike
    label: VolumeLike | None
    mask: VolumeLike | None

    @property
    def shape(self) -> Shape3:
        """(Z, Y, X) of what is handed over."""
        return self.box.shape

    @property
    def made_of(self) -> list[Any]:
        """All that its voxels depend on, in plain values."""
        return [self.key, self.box.start, self.box.stop]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "name": self.name,
            "case": self.case,
            "box": [list(self.box.start), list(self.box.stop)],
            "side": self.side,
            "spacing": None if self.spacing is None else list(self.spacing),
        }


class PreparedVolumes(NamedTuple):
    """The key, the spacing and the volumes of a whole case, as in `ExportCase`."""

    key: str
    spacing: Spacing3 | None
    image: VolumeLike
    label: VolumeLike | None
    mask: VolumeLike | None


@dataclass(frozen=True, slots=True)
class ExportSet:
    """All that a target may want to know.

    Attributes
    ----------
    name : str
        Of the set.
    cases : tuple of ExportCase
    training : mapping
        What ``train.yaml`` holds.
    median_shape : (Z, Y, X)
        That the plan was made for.
    renamed : dict of str to str
        What cases are called here whose names would not do for files.
    """

    name: str
    cases: tuple[ExportCase, ...]
    training: Mapping[str, Any]
    median_shape: Shape3
    renamed: Mapping[str, str] = field(default_factory=dict)

    def of(self, side: Side) -> list[ExportCase]:
        """The cases of one side."""
        return [case for case in self.cases if case.side == side]

    @property
    def labelled(self) -> bool:
        """Whether every case has a label."""
        return all(case.label is not None for case in self.cases)

    @property
    def masked(self) -> bool:
        """Whether the label of some case is valid in a part of it only."""
        return any(case.mask is not None for case in self.cases)

    @property
    def flat(self) -> bool:
        """Whether all are 2D images."""
        return all(case.shape[0] == 1 for case in self.cases)

    @property
    def planar(self) -> bool:
        """Whether patches are planes: of 2D images, or taken out of volumes."""
        return self.flat or self.training["do_2d"] is not None

    @property
    def unspaced(self) -> bool:
        """Whether the spacing of some case is not known."""
        return any(case.spacing is None for case in self.cases)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return int(self.training["n_channels"])

    @property
    def classes(self) -> list[int] | None:
        """The label value of each class; None for instances and without labels."""
        values: list[int] | None = self.training["class_values"]
        return values

    @property
    def class_names(self) -> list[str]:
        """What each class is called."""
        names: list[str] | None = self.training["class_names"]
        return names or []

    @property
    def patch_size(self) -> Shape3:
        """(Z, Y, X) of the plan."""
        z, y, x = self.training["patch_size"]
        return int(z), int(y), int(x)

    @property
    def spacing(self) -> Spacing3 | None:
        """(Z, Y, X) in µm that the plan is for."""
        spacing: Sequence[float] | None = self.training["spacing"]
        return None if spacing is None else (spacing[0], spacing[1], spacing[2])

    def normalisation(self, case: ExportCase) -> Normalisation:
        """How intensities of a case are brought to one scale."""
        own: Mapping[str, Any] = self.training["case_normalisation"]
        return Normalisation.from_dict(own.get(case.case) or self.training["normalisation"])

    @property
    def anisotropic(self) -> bool:
        """Whether sections are so far apart that their neighbours tell nothing of borders."""
        return self.flat or (self.spacing is not None and self.spacing[0] >= 3 * self.spacing[2])


def cut_cases(
    cases: Mapping[str, PreparedVolumes],
    sides: Mapping[Side, Iterable[tuple[str, Box | None]]],
) -> tuple[tuple[ExportCase, ...], dict[str, str]]:
    """What stands on each side of the split, each block a volume of its own.

    Parameters
    ----------
    cases : mapping of str to PreparedVolumes
    sides : mapping
        Cases with a box, or None for all of it. What lies between the boxes, such as the gap
        between blocks, is in none of the volumes.

    Returns
    -------
    cases : tuple of ExportCase
    renamed : dict of str to str
        The cases whose names would not do for files.
    """
    found, taken, renamed = [], set[str](), dict[str, str]()
    for side, parts in sides.items():
        for case, box in parts:
            volumes = cases[case]
            whole = Box.whole(volumes.image.shape)
            wanted = case if box is None or box == whole else f"{case}_{side}"
            plain = re.sub(r"[^A-Za-z0-9_-]", "_", wanted)
            usable = re.search("[A-Za-z0-9]", plain) and not _DEVICES.fullmatch(plain)
            name = _free(plain if usable else f"case_{plain.strip('_')}".strip("_"), taken)
            taken.add(name.lower())
            if name != wanted:
                renamed[wanted] = name
            found.append(
                ExportCase(
                    name, case, box or whole, side, volumes.spacing, volumes.key,
                    volumes.image, volumes.label, volumes.mask,
                )
            )  # fmt: skip
    return tuple(found), renamed


def _free(name: str, taken: set[str]) -> str:
    """A name that no other file has, on systems that know no capitals either."""
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def slabs(box: Box) -> Iterator[Box]:
    """A box in slabs of whole sections, of some million voxels each."""
    depth = max(1, _AT_ONCE // (box.shape[1] * box.shape[2]))
    for first in range(box.start[0], box.stop[0], depth):
        last = min(first + depth, box.stop[0])
        yield Box((first, *box.start[1:]), (last, *box.stop[1:]))
