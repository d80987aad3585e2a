"""Compiled loops: arrays in, arrays out, no I/O, no randomness. The only room with numba."""

from __future__ import annotations

import atexit
import contextlib
import gc


def _spare_scipy() -> None:
    """Let numba start without SciPy's linear algebra, which no kernel here uses.

    numba imports scipy.linalg as a whole, only to see that it is there: 0.2 s of the
    0.35 s that a first kernel call costs in every process, and 12 MB. It still does so
    when something that needs it is compiled.
    """
    from numba.np import linalg

    ask = linalg.ensure_blas
    linalg.ensure_blas = lambda: None
    try:
        from numba.np import arraymath
    finally:
        linalg.ensure_blas = ask
    arraymath.ensure_blas = ask


# All that numba makes while it loads stays: there is nothing to collect in it (0.02 s).
_collects = gc.isenabled()
gc.disable()
try:
    with contextlib.suppress(ImportError, AttributeError):  # numba's own names, which may move
        _spare_scipy()
finally:
    if _collects:
        gc.enable()

# At its exit the interpreter would search all that numba loaded for cycles, twice: 0.08 s.
atexit.register(gc.freeze)
