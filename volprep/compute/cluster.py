"""Units on the workers of a Dask cluster: in batches, few of them in flight, lost ones again."""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from volprep.compute.local import default_workers
from volprep.errors import MissingDependencyError, VolprepError

__all__ = ["Connection", "connect", "run_on"]

log = logging.getLogger(__name__)

Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: What a batch of units should take, in seconds: long beside the 10 ms that sending it
#: takes, short beside what is lost with a worker.
BATCH_SECONDS = 120.0
#: How long a scheduler may take to answer.
ANSWER_SECONDS = 10.0
_MOST_UNITS = 10_000
_TRIES = 3
_TELL_AFTER = 60.0
_KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}


@dataclass(frozen=True, slots=True)
class Connection:
    """A client of a scheduler, and the cluster that was started for it, if one was."""

    client: Any
    cluster: Any = None

    def close(self) -> None:
        """Let go of the scheduler; a cluster that was started here ends."""
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()


def connect(
    scheduler: str | None, cluster: Mapping[str, Any] | None, workers: int | None
) -> Connection:
    """Connect to a running scheduler, or start a cluster: of a queueing system, or here.

    Raises
    ------
    MissingDependencyError
        If Dask, or dask-jobqueue for a queueing system, is not installed.
    VolprepError
        If no scheduler answers, or the queueing system does not take the options.
    """
    try:
        import distributed
    except ImportError:
        raise MissingDependencyError("distributed", "cluster") from None
    if scheduler is not None:
        try:
            return Connection(
                distributed.Client(scheduler, timeout=ANSWER_SECONDS, set_as_default=False)
            )
        except (OSError, ValueError) as error:
            raise VolprepError(
                f"{scheduler}: no Dask scheduler answers ({error}); start one with: dask scheduler"
            ) from error
    if cluster is not None:
        started = _queue(cluster)
    else:
        started = distributed.LocalCluster(
            n_workers=workers or default_workers(),
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        )
    return Connection(distributed.Client(started, set_as_default=False), started)


def _queue(options: Mapping[str, Any]) -> Any:
    try:
        import dask_jobqueue
    except ImportError:
        raise MissingDependencyError("dask-jobqueue", "cluster") from None
    rest = {name: value for name, value in options.items() if value is not None}
    kind, jobs = rest.pop("kind"), rest.pop("jobs", 1)
    try:
        cluster = getattr(dask_jobqueue, _KINDS[kind])(**rest)
        cluster.scale(jobs=jobs)
    except (TypeError, ValueError, OSError) as error:
        raise VolprepError(f"compute.cluster: {kind} does not take it ({error})") from error
    return cluster


@dataclass(slots=True)
class _Batch(Generic[Unit]):
    """Units that are sent together, each with how often it has failed."""

    units: list[tuple[Unit, int]]


def run_on(
    client: Any,
    function: Callable[[Unit], Result],
    units: Iterable[Unit],
    *,
    count: int | None = None,
    batch_seconds: float = BATCH_SECONDS,
) -> Iterator[Result]:
    """Apply `function` to every unit on the workers of a client's scheduler.

    Parameters
    ----------
    client : distributed.Client
    function : callable
        Sent once to each worker, not with each unit.
    units : iterable
        Taken lazily; two batches a thread of the cluster are in flight at most.
    count : int or None
        How many units there are, where it is known.
    batch_seconds : float
        What a batch should take; the first ones are single units, later ones follow the
        measured time of a unit.

    Yields
    ------
    object
        The result of each unit, in any order.

    Raises
    ------
    VolprepError
        If a unit failed three times, which names it, its workers ended with it, or the scheduler
        is lost.
    """
    with _unless_lost(client):
        flight = _Flight(client, function, iter(units), count, batch_seconds)
        try:
            while flight.launch():
                for batch, future in flight.landed():
                    yield from flight.results(batch, future)
        finally:
            flight.cancel()


@contextlib.contextmanager
def _unless_lost(client: Any) -> Iterator[None]:
    """Say so where the scheduler does not answer any more, whatever Dask makes of it."""
    try:
        yield
    except VolprepError:
        raise
    except Exception as error:
        lost = isinstance(error, CancelledError | OSError) or client.status != "running"
        if not lost:
            raise
        raise VolprepError(
            f"{client.scheduler.addr}: the Dask scheduler was lost; what is done is kept: start "
            "one, then run the same command again"
        ) from error


class _Flight(Generic[Unit, Result]):
    """The batches under way, what is waiting, and how large the next one is."""

    def __init__(
        self,
        client: Any,
        function: Callable[[Unit], Result],
        units: Iterator[Unit],
        count: int | None,
        batch_seconds: float,
    ) -> None:
        self._client, self._units, self._left = client, units, count
        self._batch_seconds = batch_seconds
        # A task and no scattered data: the scheduler makes it again where its workers are lost.
        self._payload = client.submit(_same, pickle.dumps(function), pure=False)
        self._again: deque[tuple[Unit, int]] = deque()
        self._alone: deque[tuple[Unit, int]] = deque()
        self._flying: dict[Any, _Batch[Unit]] = {}
        self._size, self._done, self._seconds = 1, 0, 0.0
        self._threads, self._asked = 1, -math.inf

    def launch(self) -> bool:
        """Send batches until enough are in flight; False where all is done."""
        if time.monotonic() - self._asked > 1:
            self._threads = max(1, sum(self._client.nthreads().values()))
            self._asked = time.monotonic()
        while len(self._flying) < 2 * self._threads and (batch := self._next()).units:
            sent = [unit for unit, _ in batch.units]
            future = self._client.submit(_run_batch, self._payload, sent, pure=False)
            self._flying[future] = batch
        return bool(self._flying)

    def landed(self) -> list[tuple[_Batch[Unit], Any]]:
        """The batches that are done, at least one."""
        from distributed import wait

        told = False
        while True:
            try:
                with self._client.as_current():
                    done = wait(list(self._flying), _TELL_AFTER, "FIRST_COMPLETED").done
            except TimeoutError:
                if not told and not self._client.nthreads():
                    log.warning("the scheduler has no workers; waiting for one")
                    told = True
                continue
            return [(self._flying.pop(future), future) for future in done]

    def results(self, batch: _Batch[Unit], future: Any) -> Iterator[Result]:
        """The results of a batch; what failed in it waits for its next turn."""
        from distributed import KilledWorker

        try:
            outcomes, seconds = future.result()
        except KilledWorker as killed:
            self._split(batch, killed)
            return
        self._measure(len(outcomes), seconds)
        for (unit, failures), (result, error) in zip(batch.units, outcomes, strict=False):
            if error is None:
                yield result
            elif failures + 1 < _TRIES:
                log.warning("%s failed, and is tried again: %s", unit, error)
                self._again.append((unit, failures + 1))
            else:
                raise _failed(unit, error) from error
        self._again.extend(batch.units[len(outcomes) :])

    def cancel(self) -> None:
        """Drop what is under way."""
        with contextlib.suppress(Exception):  # the scheduler may be what was lost
            self._client.cancel(list(self._flying), force=True)
            self._payload.release()
        self._flying.clear()

    def _next(self) -> _Batch[Unit]:
        if self._alone:
            return _Batch([self._alone.popleft()])
        size = self._size
        if self._left is not None:  # the last ones are shared by all threads
            size = max(1, min(size, -(-self._left // (2 * self._threads))))
        chosen = [self._again.popleft() for _ in range(min(size, len(self._again)))]
        fresh = [(unit, 0) for unit in islice(self._units, size - len(chosen))]
        if self._left is not None:
            self._left -= len(fresh)
        return _Batch(chosen + fresh)

    def _measure(self, count: int, seconds: float) -> None:
        self._done, self._seconds = self._done + count, self._seconds + seconds
        if self._done:
            wanted = self._batch_seconds * self._done / max(self._seconds, 1e-9)
            self._size = int(max(1, min(wanted, 4 * self._size, _MOST_UNITS)))

    def _split(self, batch: _Batch[Unit], error: Exception) -> None:
        """Find the unit of a batch that ends its workers: each goes alone."""
        if len(batch.units) == 1:
            raise VolprepError(
                f"{batch.units[0][0]}: every worker that took it ended ({error}); "
                "give the workers more memory, or look into their logs"
            ) from error
        self._alone.extend(batch.units)


def _failed(unit: object, error: Exception) -> Exception:
    if isinstance(error, VolprepError):
        log.error("%s failed three times", unit)
        return error
    return VolprepError(
        f"{unit}: failed three times ({type(error).__name__}: {error}); what is done is kept: "
        "mend the cause, then run the same command again"
    )


def _same(data: bytes) -> bytes:
    return data


_last: tuple[bytes, Callable[[Any], Any]] | None = None


def _run_batch(
    payload: bytes, units: list[Any]
) -> tuple[list[tuple[Any, Exception | None]], float]:
    """On a worker: the result or the error of each unit, up to the first error, and the seconds."""
    global _last
    kept = _last
    if kept is None or kept[0] != payload:
        kept = _last = (payload, pickle.loads(payload))
    start = time.perf_counter()
    outcomes: list[tuple[Any, Exception | None]] = []
    for unit in units:
        try:
            outcomes.append((kept[1](unit), None))
        except Exception as error:
            outcomes.append((None, _crosses(error)))
            break
    return outcomes, time.perf_counter() - start


def _crosses(error: Exception) -> Exception:
    """The error, or its words where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
