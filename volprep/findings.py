"""What a look at the data brings up: found, wanted, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from volprep.errors import DataCheckError

__all__ = ["Finding", "Level", "raise_on_errors"]

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a user should know about the data.

    Attributes
    ----------
    level : {'error', 'warning', 'info'}
        Whether it forbids going on, probably spoils the result, or is a choice
        that was made and can be overruled.
    kind : str
        A short fixed name, such as ``shape-mismatch``.
    message : str
        What was found, what was wanted, what to do.
    case : str or None
        The case that it is about; None for the data set as a whole.
    path : pathlib.Path or None
        The file that it is about.
    """

    level: Level
    kind: str
    message: str
    case: str | None = None
    path: Path | None = None

    def __str__(self) -> str:
        where = " ".join(str(part) for part in (self.case, self.path) if part is not None)
        return f"{where}: {self.message}" if where else self.message

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "level": self.level,
            "kind": self.kind,
            "case": self.case,
            "path": None if self.path is None else str(self.path),
            "message": self.message,
        }


def raise_on_errors(findings: Iterable[Finding]) -> None:
    """Refuse to go on where the data has errors.

    Raises
    ------
    DataCheckError
        With every finding of level ``error``.
    """
    errors = [str(finding) for finding in findings if finding.level == "error"]
    if errors:
        raise DataCheckError(errors)
