"""Units in the threads and processes of this machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from itertools import islice
from typing import Any, Literal, TypeVar

from volprep.errors import VolprepError

__all__ = ["Backend", "default_workers", "run_finished", "run_shares", "run_units", "threads"]

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Backend = Literal["serial", "threads", "processes"]


def default_workers() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_units(
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    *,
    backend: Backend = "threads",
    workers: int | None = None,
) -> Iterator[Result]:
    """Apply `function` to every unit and yield the results in the order of the units.

    Parameters
    ----------
    function : callable
        Of one unit; picklable for ``processes``.
    units : iterable
        Taken lazily: at most four units a worker are under way or waiting to be
        yielded, so memory does not grow with their number.
    backend : {'serial', 'threads', 'processes'}
        Threads suit work that releases the GIL (decoders, numba kernels).
    workers : int or None
        None takes every processor; 1 is ``serial``.

    Raises
    ------
    Exception
        The first error of a unit; units that have not started are dropped.
    """
    count = default_workers() if workers is None else max(1, workers)
    if backend == "serial" or count == 1:
        yield from map(function, units)
        return
    pool, queue = _pool(backend, count), iter(units)
    waiting: deque[Future[Result]] = deque(
        pool.submit(function, unit) for unit in islice(queue, 4 * count)
    )
    with _ended(pool):
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, unit) for unit in islice(queue, 1))
            yield result


def run_finished(
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    *,
    backend: Backend = "threads",
    workers: int | None = None,
) -> Iterator[Result]:
    """`run_units`, but each result as soon as it is there, in any order.

    Raises
    ------
    Exception
        The first error of a unit, after the results of those that were under way with it.
    """
    count = default_workers() if workers is None else max(1, workers)
    if backend == "serial" or count == 1:
        yield from map(function, units)
        return
    pool, queue = _pool(backend, count, function), iter(units)
    call = _call if backend == "processes" else function
    waiting = {pool.submit(call, unit) for unit in islice(queue, 2 * count)}
    failed: BaseException | None = None
    with _ended(pool):
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                error = None if future.cancelled() else future.exception()
                failed = failed or error
                if not future.cancelled() and error is None:
                    yield future.result()
            if failed is None:
                waiting |= {pool.submit(call, unit) for unit in islice(queue, len(finished))}
            else:
                waiting = {future for future in waiting if not future.cancel()}
        if failed is not None:
            raise failed


@contextlib.contextmanager
def _ended(pool: Executor) -> Iterator[None]:
    """Let go of a pool; an interrupted caller does not wait for the units under way."""
    try:
        yield
    except BrokenExecutor as error:
        raise VolprepError(
            "a worker process ended without a word, as the system does where memory is short; what "
            "is done is kept: run it again, with fewer compute.workers"
        ) from error
    except (Exception, GeneratorExit):
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


def run_shares(function: Callable[[Unit], object], shares: Sequence[Unit]) -> None:
    """Run a few equal shares of milliseconds at once, the first in the calling thread.

    Raises
    ------
    Exception
        The first error of a share, once all have ended.
    """
    if len(shares) == 1:
        function(shares[0])
        return
    with ThreadPoolExecutor(len(shares) - 1) as pool:
        others = [pool.submit(function, share) for share in shares[1:]]
        function(shares[0])
    for other in others:
        other.result()


@contextlib.contextmanager
def threads(count: int) -> Iterator[Executor | None]:
    """Threads for as long as they are needed; None where the calling one does alone."""
    if count < 2:
        yield None
        return
    pool = ThreadPoolExecutor(count)
    with _ended(pool):
        yield pool


def _pool(
    backend: Backend, workers: int, function: Callable[..., object] | None = None
) -> Executor:
    if backend == "threads":
        return ThreadPoolExecutor(workers)
    from concurrent.futures import ProcessPoolExecutor  # takes as long to load as all the rest
    from multiprocessing import get_context

    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_keep, initargs=(function,)
    )


_kept: dict[str, Any] = {}


def _keep(function: Callable[..., object] | None) -> None:
    """In a process of a pool: remember what it runs, which then does not travel with each unit.

    It ends with the process that started it. The pool's own would wait for ever for another
    unit if that one were killed, and before that make those which it had been given, while
    the next run is at work in the same folder.
    """
    _kept["function"] = function
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(unit: Any) -> Any:
    return _kept["function"](unit)
