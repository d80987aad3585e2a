"""How long stages tell how far they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

__all__ = ["Reporter", "silent"]

#: ``reporter(title, total, unit)`` is entered for a stage and gives ``advance(n)``.
Reporter = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]


@contextlib.contextmanager
def silent(_title: str, _total: int, _unit: str) -> Iterator[Callable[[int], None]]:
    """A reporter that says nothing."""
    yield lambda _count: None
