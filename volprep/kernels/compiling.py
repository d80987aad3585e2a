"""What a first use waits for: kernels that are compiled for this machine, once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import event

__all__ = ["telling_of_compiling"]


class _Teller(event.Listener):  # type: ignore[misc]
    """Hears of kernels that are compiled, and not of those that lie in the cache."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell, self.began = tell, 0.0

    def on_start(self, event: Any) -> None:
        if not self.began:
            self.began = time.perf_counter()
            self._tell(
                "compiling for this machine what samples are made with; it takes some seconds, "
                "and is kept for the next time"
            )

    def on_end(self, event: Any) -> None:
        """Nothing: kernels are compiled one within the other."""


@contextlib.contextmanager
def telling_of_compiling(tell: Callable[[str], object]) -> Iterator[None]:
    """While it lasts, say when a kernel is compiled, and at the end how long all of it took.

    Parameters
    ----------
    tell : callable
        Given a sentence; nothing is told where every kernel was compiled before.
    """
    teller = _Teller(tell)
    with event.install_listener("numba:compile", teller):
        yield
    if teller.began:
        tell(f"compiled, in {time.perf_counter() - teller.began:.1f} s")
