"""What the stages of a run took. It stands in no patch set, whose bytes would then differ.

It is kept in the user's cache, by the checksum of the set's manifest, so that `volprep report`
finds it wherever the set is moved to on the same machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from volprep.errors import StoreError, within_memory
from volprep.files import cache_folder
from volprep.ledger import MANIFEST
from volprep.pipeline.told import Reporter
from volprep.store import write_text

__all__ = ["Cost", "Timed", "costs_of", "keep_costs"]

log = logging.getLogger(__name__)


class Cost(NamedTuple):
    """What a stage took; `peak` is the most that the process had held when it ended."""

    stage: str
    seconds: float
    peak: int | None


class Timed:
    """A reporter that notes how long each stage took, and passes everything on."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.costs: list[Cost] = []

    @contextlib.contextmanager
    def __call__(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """As the reporter."""
        start = time.perf_counter()
        with within_memory(title), self._reporter(title, total, unit) as advance:
            yield advance
        self.costs.append(Cost(title, time.perf_counter() - start, _peak()))


def keep_costs(out: Path, costs: list[Cost]) -> None:
    """Note what the run took that finished a set; where there is no room for it, it is not."""
    try:
        path = _path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps([[*cost] for cost in costs]))
    except (OSError, StoreError, RuntimeError) as error:  # no home, or one that is read-only
        log.debug("costs of %s are not kept: %s", out, error)


def costs_of(out: Path) -> list[Cost]:
    """What the run took that finished a set; nothing where this machine does not know."""
    try:
        return [Cost(*each) for each in json.loads(_path(out).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _path(out: Path) -> Path:
    name = hashlib.sha256((out / MANIFEST).read_bytes()).hexdigest()
    return cache_folder() / "costs" / f"{name}.json"


def _peak() -> int | None:
    """The most bytes that this process has held; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
