"""The nouns: a finding, a reader's note, and the user's rules."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from volprep.errors import DataCheckError
from volprep.findings.table import TABLE, Level
from volprep.places import path_of

__all__ = [
    "LEVELS",
    "Finding",
    "Note",
    "Rules",
    "by_level",
    "explain",
    "in_short",
    "raise_on_errors",
]

#: From what forbids going on to what changes nothing.
LEVELS: tuple[Level, ...] = ("error", "warning", "info")
#: What most data have.
_COMMON = {"unknown-spacing"}


@dataclass(frozen=True, slots=True, init=False)
class Finding:
    """One thing that a user should know about the data.

    Parameters
    ----------
    name : str
        A name of `TABLE`, such as ``shape-mismatch``.
    found : str
        What is there.
    todo : str or None
        What to do about it here; None takes the general advice of the table.
    case : str or None
        The case that it is about; None for the data set as a whole.
    path : pathlib.Path or None
        The file that it is about.
    level : {'error', 'warning', 'info'} or None
        None takes the level of the table: an error forbids going on, a warning
        changes what is trained on, an info changes nothing.
    """

    name: str
    found: str
    todo: str
    case: str | None
    path: Path | None
    level: Level

    def __init__(
        self,
        name: str,
        found: str,
        *,
        todo: str | None = None,
        case: str | None = None,
        path: Path | None = None,
        level: Level | None = None,
    ) -> None:
        kind = TABLE[name]
        place = None if path is None else path_of(path)
        values = (name, found, todo or kind.todo, case, place, level or kind.level)
        for field, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, field, value)

    @property
    def wanted(self) -> str:
        """What should be there instead."""
        return TABLE[self.name].wanted

    @property
    def message(self) -> str:
        """What was found and what to do."""
        todo = self.todo
        if todo.startswith("nothing"):  # in the table it stands behind "to do:"
            todo = f"nothing to do{todo.removeprefix('nothing')}"
        return f"{self.found}; {todo}"

    def __str__(self) -> str:
        where = " ".join(str(part) for part in (self.case, self.path) if part is not None)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} [{self.name}]"

    def shared_by(self, cases: Iterable[str | None]) -> Finding:
        """The finding that says the same of further cases, the first three by name."""
        names = [name for name in dict.fromkeys(cases) if name not in (None, self.case)]
        if not names:
            return self
        more = ", ".join(str(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        return replace(self, found=f"{self.found} (and so in {len(names)} more: {more})")

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "name": self.name,
            "level": self.level,
            "case": self.case,
            "path": None if self.path is None else str(self.path),
            "found": self.found,
            "wanted": self.wanted,
            "todo": self.todo,
            "message": self.message,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """The inverse of `to_dict`."""
        return cls(
            values["name"],
            values["found"],
            todo=values["todo"],
            case=values["case"],
            path=None if values["path"] is None else Path(values["path"]),
            level=values["level"],
        )


class Note(str):
    """What is said where the case is not known yet: a text that bears the name of its finding.

    Parameters
    ----------
    name : str
        A name of `TABLE`.
    found : str
        What is there.
    todo : str or None
        What to do about it here; None takes the general advice of the table.
    level : {'error', 'warning', 'info'} or None
        None takes the level of the table.
    """

    name: str
    found: str
    todo: str | None
    level: Level | None

    def __new__(
        cls, name: str, found: str, *, todo: str | None = None, level: Level | None = None
    ) -> Note:
        if name not in TABLE:
            raise KeyError(name)
        self = super().__new__(cls, f"{found}; {todo}" if todo else found)
        self.name, self.found, self.todo, self.level = name, found, todo, level
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str, str], dict[str, Any]]:
        return (self.name, self.found), {"todo": self.todo, "level": self.level}

    def about(self, case: str | None = None, path: Path | None = None) -> Finding:
        """The finding that it is, now that the case and the file are known."""
        return Finding(
            self.name, self.found, todo=self.todo, case=case, path=path, level=self.level
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {"name": self.name, "found": self.found, "todo": self.todo, "level": self.level}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Note:
        """The inverse of `to_dict`."""
        return cls(values["name"], values["found"], todo=values["todo"], level=values["level"])


@dataclass(frozen=True, slots=True)
class Rules:
    """The user's word on findings, by name.

    Attributes
    ----------
    ignore : frozenset of str
        Silenced, unless they are errors.
    error : frozenset of str
        Errors, whatever their level.
    """

    ignore: frozenset[str] = frozenset()
    error: frozenset[str] = frozenset()

    def apply(self, findings: Iterable[Finding]) -> list[Finding]:
        """The findings that are left, at the level they have now, in their order."""
        hardened = [replace(f, level="error") if f.name in self.error else f for f in findings]
        return [f for f in hardened if f.level == "error" or f.name not in self.ignore]


def by_level(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then infos; each in the order in which they came.

    What every second data set has stands behind what is wrong with this one.
    """
    return sorted(
        findings, key=lambda f: (LEVELS.index(f.level), f.level != "error" and f.name in _COMMON)
    )


def in_short(findings: Iterable[Finding]) -> list[Finding]:
    """One finding in place of several that differ in their case and figures alone: to be read.

    Twenty flipped labels are told as one with the names of the first ones, so that what else
    there is stays on the screen.
    """
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for number, finding in enumerate(findings):
        words = re.sub(r"\d+(?:[.,:]\d+)*", "#", finding.message)
        own = number if finding.case is None else None
        alike.setdefault((own, finding.level, finding.name, words), []).append(finding)
    return [first.shared_by(f.case for f in others) for first, *others in alike.values()]


def raise_on_errors(findings: Iterable[Finding]) -> None:
    """Refuse to go on where the data has errors.

    Raises
    ------
    DataCheckError
        With every finding of level ``error``.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise DataCheckError(list(map(str, errors)), shown=list(map(str, in_short(errors))))


def explain(name: str) -> str:
    """A name's level, what it means, what is wanted, what to do, and an example.

    Raises
    ------
    KeyError
        If there is no such name; the message holds the nearest.
    """
    if name not in TABLE:
        near = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.4)
        tail = f"did you mean {near[0]}?" if near else "all of them: check --explain all"
        raise KeyError(f"no finding is called {name!r}; {tail}")
    kind = TABLE[name]
    return "\n".join(
        (
            f"{name} ({kind.level})",
            f"  {kind.why}",
            f"  wanted   {kind.wanted}",
            f"  to do    {kind.todo}",
            f"  example  {kind.example}",
        )
    )
