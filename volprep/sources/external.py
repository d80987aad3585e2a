"""Files that a file names: whether they may be read."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from volprep.errors import SourceError

__all__ = ["External", "may_follow", "refuse_foreign"]

#: Whether other files may be read: all, none, or (None) those beside or below the file itself.
External = bool | None


def refuse_foreign(path: Path, what: str, target: Path) -> NoReturn:
    """A file of somebody else's choosing is read only on the user's word."""
    raise SourceError(
        path,
        f"{what} another file, {target}",
        "allow it with `data.allow_external: true`, or copy the data into this file",
    )


def may_follow(path: Path, target: Path, allow: External) -> bool:
    """Whether a file that `path` names may be read."""
    if allow is not None:
        return allow
    return target.resolve().is_relative_to(path.parent.resolve())
