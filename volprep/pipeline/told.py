"""What a run tells: its findings, each once under the user's rules, and how far it is."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from volprep.config import Config
from volprep.errors import DataCheckError, within_memory
from volprep.findings import Finding, Rules, by_level, in_short, raise_on_errors

__all__ = ["Reporter", "Told", "refuse_warnings", "rules_of", "silent"]

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Entered for a stage of so many units, it gives ``advance(n)``."""

    def __call__(
        self, title: str, total: int, unit: str, /
    ) -> AbstractContextManager[Callable[[int], None]]: ...


@contextlib.contextmanager
def silent(title: str, _total: int, _unit: str) -> Iterator[Callable[[int], None]]:
    """A reporter that says nothing, but for which stage it was where memory runs out."""
    with within_memory(title):
        yield lambda _count: None


def rules_of(config: Config) -> Rules:
    """What the user wants silenced or hardened."""
    return Rules(frozenset(config.findings.ignore), frozenset(config.findings.error))


class Told:
    """Collects what every stage has to say; warnings are told at once, errors end the run.

    Parameters
    ----------
    rules : Rules
    strict : bool
        Whether a warning ends the run, too.
    quiet : bool
        Whether warnings are not told now, since the run will tell them.
    """

    def __init__(self, rules: Rules, *, strict: bool = False, quiet: bool = False) -> None:
        self._rules, self._strict, self._quiet = rules, strict, quiet
        self._kept: dict[Finding, None] = {}

    @property
    def findings(self) -> list[Finding]:
        """Everything that was told, warnings before infos."""
        return by_level(self._kept)

    def tell(self, findings: Iterable[Finding]) -> None:
        """Log the warnings that are new, and keep all.

        Raises
        ------
        DataCheckError
            If there are errors, or, where the run is strict, warnings; all at once.
        """
        new = [f for f in self._rules.apply(findings) if f not in self._kept]
        self._kept.update(dict.fromkeys(new))
        for finding in () if self._quiet else in_short(f for f in new if f.level == "warning"):
            log.warning("%s", finding)
        raise_on_errors(new)
        if self._strict:
            refuse_warnings(new)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for `findings.json`, with the names that were not to be told."""
        return {
            "findings": [finding.to_dict() for finding in self.findings],
            "ignored": sorted(self._rules.ignore),
        }


def refuse_warnings(findings: Sequence[Finding] | Sequence[Mapping[str, Any]]) -> None:
    """End a strict run that has warnings.

    Raises
    ------
    DataCheckError
        With how many there are of each name; they were told already.
    """
    names = [
        finding.name if isinstance(finding, Finding) else finding["name"]
        for finding in findings
        if (finding.level if isinstance(finding, Finding) else finding["level"]) == "warning"
    ]
    if names:
        counted = ", ".join(f"{name} ({names.count(name)})" for name in dict.fromkeys(names))
        what = "mend them, or add them to findings.ignore"
        raise DataCheckError([f"--strict: warnings end the run: {counted}; {what}"])
