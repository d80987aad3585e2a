"""The errors volprep raises on purpose, each with the exit code of its family.

    VolprepError             1
      ConfigError            2   the YAML: file, line, dotted key, nearest right key
      SourceError            3   an input file: path, what was found, what was wanted
      DataCheckError         4   the data as a whole: every finding
      PlanError              5   an impossible plan, and the smallest change that helps
      StoreError             6   a patch set: exists, incomplete, damaged, of another config
      MissingDependencyError 7   an extra that is not installed, and how to install it
      OutOfMemoryError       1   an allocation that failed: the step, and what takes less

A message reads ``<where>: <what was found>; <what to do>``. Programmers'
mistakes (a wrong shape handed to a function) stay ValueError and TypeError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

__all__ = [
    "ConfigError",
    "DataCheckError",
    "MissingDependencyError",
    "OutOfMemoryError",
    "PlanError",
    "SourceError",
    "StoreError",
    "VolprepError",
    "did_you_mean",
    "within_memory",
]

#: So many words are listed where none is near: cases may be thousands.
_MOST_KNOWN = 60


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The nearest known word as the tail of a message, or those known where none is near.

    Parameters
    ----------
    word : object
        What was found; upper and lower case do not count.
    known : iterable of str
        What would have been right.
    """
    from difflib import get_close_matches

    folded = {name.lower(): name for name in known}
    near = get_close_matches(str(word).lower(), folded, n=1)
    if near:
        return f"; did you mean {folded[near[0]]}?"
    more = ["..."] if len(folded) > _MOST_KNOWN else []
    listed = [*islice(folded.values(), _MOST_KNOWN), *more]
    return f"; known are {', '.join(listed)}" if listed else ""


class VolprepError(Exception):
    """Something a user can mend; the message says where, what and how."""

    exit_code = 1


class ConfigError(VolprepError):
    """The configuration cannot be used."""

    exit_code = 2


class SourceError(VolprepError):
    """An input file cannot be read, or is not what it was said to be.

    Parameters
    ----------
    path : path-like
        The file.
    found : str
        What is there.
    wanted : str or None
        What is needed, or what to do.
    """

    exit_code = 3

    def __init__(self, path: object, found: str, wanted: str | None = None) -> None:
        self.path, self.found, self.wanted = str(path), found, wanted
        super().__init__(f"{path}: {found}" + (f"; {wanted}" if wanted else ""))

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, str, str | None]]:
        """Rebuild from the three parts, so that the error crosses processes whole."""
        return type(self), (self.path, self.found, self.wanted)


class DataCheckError(VolprepError):
    """The data has findings that forbid going on; `findings` holds all of them as text.

    Parameters
    ----------
    findings : sequence of str
    shown : sequence of str or None
        The message, a finding a line, where it is shorter than all of them.
    """

    exit_code = 4

    def __init__(self, findings: Sequence[str], shown: Sequence[str] | None = None) -> None:
        self.findings = list(findings)
        self._shown = self.findings if shown is None else list(shown)
        super().__init__("\n".join(self._shown))

    def __reduce__(self) -> tuple[type[DataCheckError], tuple[list[str], list[str]]]:
        """Rebuild from the findings."""
        return type(self), (self.findings, self._shown)


class PlanError(VolprepError):
    """No plan satisfies the constraints; the message names the smallest change that helps."""

    exit_code = 5


class StoreError(VolprepError):
    """A patch set exists already, is incomplete, is damaged, or belongs to another config."""

    exit_code = 6


class MissingDependencyError(VolprepError):
    """An optional package is needed.

    Parameters
    ----------
    package : str
        The package that cannot be imported.
    extra : str or None
        The extra of volprep that brings it; None where none does.
    """

    exit_code = 7

    def __init__(self, package: str, extra: str | None) -> None:
        self.package, self.extra = package, extra
        wanted = package if extra is None else f'"volprep[{extra}]"'
        super().__init__(f"{package}: not installed; install it with: pip install {wanted}")

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str | None]]:
        """Rebuild from the two names."""
        return type(self), (self.package, self.extra)


class OutOfMemoryError(VolprepError):
    """Memory ran out; the message names the step in which it did, and what takes less."""


@contextmanager
def within_memory(
    step: str, todo: str = "set compute.workers to fewer, or leave this machine more memory"
) -> Iterator[None]:
    """Name the step in which an allocation fails.

    Parameters
    ----------
    step : str
        What is being done.
    todo : str
        What takes less.

    Raises
    ------
    OutOfMemoryError
        In place of a MemoryError, or of the RuntimeError that torch raises for it; one that
        names its step already is left as it is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        asked = f" ({error})" if str(error) else ""
        raise OutOfMemoryError(f"{step}: memory ran out{asked}; {todo}") from error
