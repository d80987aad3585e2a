"""What volprep runs on: versions, the machine, extras that are missing."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from volprep.compute import Machine, read_machine
from volprep.version import __version__

__all__ = ["Environment", "Extra", "environment"]


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part: the packages it brings, by version, None where one is missing."""

    name: str
    packages: dict[str, str | None]

    @property
    def complete(self) -> bool:
        """Whether all of it is installed."""
        return None not in self.packages.values()

    @property
    def install(self) -> str:
        """The command that brings it."""
        return f'pip install "volprep[{self.name}]"'


@dataclass(frozen=True, slots=True)
class Environment:
    """All that a report of a fault should hold.

    Attributes
    ----------
    packages : dict of str to str or None
        What volprep needs, by version; None where it is missing.
    extras : tuple of Extra
    machine : Machine
    devices : tuple of str
        Graphics processors that torch can use.
    """

    packages: dict[str, str | None]
    extras: tuple[Extra, ...]
    machine: Machine
    devices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        sizes = {name: getattr(self.machine, name) for name in Machine.__slots__}
        return {
            "volprep": __version__,
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "packages": self.packages,
            "extras": {
                extra.name: {
                    "complete": extra.complete,
                    "packages": extra.packages,
                    "install": extra.install,
                }
                for extra in self.extras
            },
            "machine": {**sizes, "folder": str(self.machine.folder)},
            "devices": list(self.devices),
        }


def environment(folder: Path = Path()) -> Environment:
    """Look at the installation, at the machine, and at the disk of a folder."""
    from volprep.loader import torch_devices

    needed, extras = _requirements()
    return Environment(
        {name: _version(name) for name in needed},
        tuple(
            Extra(name, {each: _version(each) for each in some}) for name, some in extras.items()
        ),
        read_machine(folder),
        tuple(map(str, torch_devices())),
    )


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """What the installed volprep says that it needs, and what each of its extras brings."""
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    try:
        said = metadata.requires("volprep") or []
    except metadata.PackageNotFoundError:
        return needed, extras
    for text in said:
        name = re.split(r"[^\w.-]", text, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)", text)
        if extra is None:
            needed.append(name)
        elif extra[1] not in ("dev", "docs"):
            extras.setdefault(extra[1], []).append(name)
    return needed, extras


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
