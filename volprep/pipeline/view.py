"""`volprep view`: a case of a config or of a finished set, at one of its patches, as a scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from volprep.cases import Case
from volprep.cutting import PreparedCase
from volprep.errors import ConfigError
from volprep.geometry import Box, Spacing3, three
from volprep.pipeline.inputs import chosen_cases, load_target
from volprep.pipeline.preview_patches import patch_maps
from volprep.pipeline.told import Reporter, silent
from volprep.pipeline.volumes import open_prepared
from volprep.places import path_of
from volprep.skeletons import Skeletons
from volprep.store import PatchStore, is_set
from volprep.viewer import Scene

__all__ = ["scene_of"]

_Named = TypeVar("_Named", Case, PreparedCase)
_Item = TypeVar("_Item")


def scene_of(
    target: Path,
    *,
    case: str | None = None,
    patch: int | None = None,
    split: Literal["train", "val"] = "train",
    changes: Sequence[str] = (),
    reporter: Reporter = silent,
) -> Scene:
    """What there is to look at.

    Parameters
    ----------
    target : Path
        A config, data (a folder, a file, a URL), or the folder of a finished set.
    case : str or None
        Its name; the first, or that of the patch, if not given.
    patch : int or None
        Its number: in a finished set, of the split; of a config, of the case. Of a config the
        patches are chosen as `prepare` would choose them.
    split : {'train', 'val'}
    changes : sequence of str
        To the config.
    reporter : callable

    Returns
    -------
    Scene
        With a patch, the case on the grid that patches are cut on; else as the files have it.

    Raises
    ------
    ConfigError
        If there is no such case or patch.
    VolprepError
        As the commands that make what is looked at.
    """
    if is_set(target):
        return _of_set(target, case, patch, split)
    config = load_target(path_of(target), changes=changes)
    if patch is None:
        return _of_case(_named(list(chosen_cases(config)), case))
    maps = list(patch_maps(config, cases=[case] if case else (), reporter=reporter))
    drawn = maps[0]
    boxes = drawn.train_patches if split == "train" else drawn.val_patches
    box = _numbered(list(boxes), patch, f"{split} patches of {drawn.name}")
    return Scene(
        drawn.name,
        drawn.image,
        drawn.label,
        boxes={"patch": [box]},
        patch=box,
        spacing=drawn.spacing,
    )


def _of_case(case: Case) -> Scene:
    image = case.open_image()
    skeletons = None if case.skeletons is None else Skeletons.from_file(case.skeletons)
    return Scene(
        case.name, image, case.open_label(), case.open_mask(), skeletons, spacing=image.spacing
    )


def _of_set(out: Path, case: str | None, patch: int | None, split: str) -> Scene:
    store = PatchStore(out)
    cases = open_prepared(out)
    spacing: Spacing3 | None = store.manifest["training"]["spacing"]
    boxes: dict[str, list[Box]] = {}
    chosen = None
    if patch is not None:
        training = store.manifest["training"]
        size = training["stored_patch_size" if split == "train" else "patch_size"]
        rows = store.sites(split)
        if case is not None:
            numbers = [n for n, one in enumerate(cases) if one.name == case]
            rows = rows if not numbers else rows[rows[:, 0] == numbers[0]]
        row = _numbered(list(rows), patch, f"{split} patches")
        chosen = Box.at(three(int(n) for n in row[1:4]), three(size))
        boxes["patch"] = [chosen]
        case = cases[int(row[0])].name
    found = _named(cases, case)
    return Scene(
        found.name,
        found.image,
        found.label,
        found.mask,
        found.skeletons,
        boxes,
        chosen,
        None if spacing is None else (spacing[0], spacing[1], spacing[2]),
    )


def _named(cases: Sequence[_Named], name: str | None) -> _Named:
    """The case of a name, or the first."""
    if name is None:
        return cases[0]
    for case in cases:
        if case.name == name:
            return case
    raise ConfigError(
        f"--case: there is no case {name!r}; known are {', '.join(c.name for c in cases)}"
    )


def _numbered(items: Sequence[_Item], number: int, what: str) -> _Item:
    if not 0 <= number < len(items):
        raise ConfigError(f"--patch: found {number}; there are {len(items)} {what}, from 0 on")
    return items[number]
