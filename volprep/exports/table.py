"""Every target, one row each."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

from volprep.errors import ConfigError, did_you_mean
from volprep.exports.biom3d import Biom3d
from volprep.exports.careamics import Careamics
from volprep.exports.cellpose import Cellpose
from volprep.exports.connectomics import Connectomics
from volprep.exports.exporter import Exporter
from volprep.exports.monai import Monai
from volprep.exports.nnunet import FOLDER, NnUNet
from volprep.exports.skoots import Skoots
from volprep.exports.stardist import StarDist
from volprep.exports.torchio import TorchIO

__all__ = ["TABLE", "Target", "create_exporter"]


class Target(NamedTuple):
    """What is known of a target.

    Attributes
    ----------
    exporter : type
        Its class; the fields are its options.
    peer : str
        What it is called where it is installed from.
    accepted : str or None
        The version (or commit) whose own code read our files in `scripts/accept_exports.py` and
        had the same cases, axes and labels; the README says what was compared. None where that
        was not tried, or not passed yet.
    expresses : str
        What of a set it can express.
    folder : Pattern or None
        What the folder of an export must be called; None takes any name.
    """

    exporter: type[Exporter]
    peer: str
    accepted: str | None
    expresses: str
    folder: re.Pattern[str] | None = None


TABLE: dict[str, Target] = {
    "nnunet": Target(NnUNet, "nnunetv2", "2.8.1", "classes, ignore, spacing, split, plan", FOLDER),
    "biom3d": Target(Biom3d, "biom3d", "0.1.2", "classes, split, plan"),
    "careamics": Target(Careamics, "careamics", "0.3.5", "images, split, batch"),
    "connectomics": Target(
        Connectomics, "pytorch_connectomics", "4335a8be, v1.0.0",
        "instances or classes, valid masks, spacing, split, patch, batch",
    ),
    "skoots": Target(Skoots, "skoots", "0.0.5", "instances, skeletons, split, patch, batch"),
    "monai": Target(Monai, "monai", "1.6.1", "classes or ids, valid masks, spacing, split, plan"),
    "torchio": Target(TorchIO, "torchio", "1.2.1", "classes or ids, valid masks, spacing, split"),
    "cellpose": Target(Cellpose, "cellpose", "4.2.1.1", "2D sections of instances, split"),
    "stardist": Target(
        StarDist, "stardist", "0.9.2", "instances, valid masks, split, patch, batch"
    ),
}  # fmt: skip


def create_exporter(
    name: str, where: str = "export", folder: str | None = None, **options: Any
) -> Exporter:
    """The exporter of a target.

    Parameters
    ----------
    name : str
        Of `TABLE`.
    where : str
        What an error begins with.
    folder : str or None
        What the folder of the export will be called.
    **options
        Fields of its class; None leaves one out.

    Raises
    ------
    ConfigError
        If there is no such target, it has no such option, or wants another name of its folder.
    """
    if name not in TABLE:
        raise ConfigError(f"{where}: to: found {name!r}{did_you_mean(name, TABLE)}")
    row = TABLE[name]
    if folder is not None and row.folder is not None and not row.folder.fullmatch(folder):
        raise ConfigError(
            f"{where}: {row.peer} knows a data set by its folder's name, and found {folder!r}; "
            "give one such as nnUNet_raw/Dataset001_nuclei"
        )
    kind: Any = row.exporter
    known = {field.name for field in dataclasses.fields(kind)}
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - known:
        others = [n for n, other in TABLE.items() if option in _options(other)]
        value = "" if given[option] is True else f": {given[option]}"
        raise ConfigError(f"{where}: {name} takes no {option}{value}; {', '.join(others)} does")
    exporter: Exporter = kind(**given)
    return exporter


def _options(row: Target) -> set[str]:
    kind: Any = row.exporter
    return {field.name for field in dataclasses.fields(kind)}
