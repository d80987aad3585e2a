"""What a run was made from: its input files, by size, time of change and content."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from volprep.compute import run_units
from volprep.errors import SourceError
from volprep.files import describe, files_below

__all__ = ["Inputs"]

State = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Input files as they were when a run began.

    Attributes
    ----------
    files : tuple of (Path, (int, int), str)
        Each file, its size and time of change, and the SHA-256 of what is in it.
    """

    files: tuple[tuple[Path, State, str], ...]

    @classmethod
    def of(cls, paths: Iterable[Path], workers: int | None = None) -> Inputs:
        """Read every file once; of a folder, all that is in it.

        Raises
        ------
        SourceError
            If one cannot be read, or is changed meanwhile.
        """
        every = [file for path in paths for file in _files(path)]
        found = cls(tuple(run_units(_identify, every, workers=workers)))
        found.check()
        return found

    @property
    def content(self) -> list[list[str]]:
        """What keys are made of: names and contents, not places and times."""
        return [[path.name, checksum] for path, _, checksum in self.files]

    def check(self) -> None:
        """Compare sizes and times of change with those at the start.

        Raises
        ------
        SourceError
            If a file is another one now: what was made of it is of neither.
        """
        for path, state, _ in self.files:
            if _state(path) != state:
                raise SourceError(
                    path, "changed while it was being used", "leave it alone and run again"
                )


def _identify(path: Path) -> tuple[Path, State, str]:
    state = _state(path)
    try:
        return path, state, describe(path, path.parent).checksum
    except OSError as error:
        raise SourceError(path, error.strerror or str(error), "check the file") from None


def _state(path: Path) -> State:
    try:
        found = os.stat(path)
    except OSError as error:
        raise SourceError(path, error.strerror or str(error), "check the path") from None
    return found.st_size, found.st_mtime_ns


def _files(path: Path) -> Sequence[Path]:
    return list(files_below(path)) if path.is_dir() else [path]
