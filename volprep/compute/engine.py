"""Where units run: in this process, in others of this machine, or on others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, Self, TypeVar, get_args

from volprep.compute.local import run_finished, run_units

__all__ = ["Engine", "EngineKind"]

EngineKind = Literal["serial", "threads", "processes", "dask"]
Unit = TypeVar("Unit")
Result = TypeVar("Result")


class Engine:
    """Runs a function over units, and gives each result as soon as it is there.

    Parameters
    ----------
    kind : {'threads', 'serial', 'processes', 'dask'}
        Threads suit work that releases the GIL (decoders, numba kernels). Dask takes any
        number of machines that see the same files under the same paths.
    workers : int or None
        Threads or processes of this machine; None takes every processor. With ``dask`` and
        neither `scheduler` nor `cluster`, the processes of a cluster on this machine.
    scheduler : str or None
        Of ``dask``: the address of one that runs, such as ``tcp://10.0.0.7:8786``.
    cluster : mapping or None
        Of ``dask``: the kind of a queueing system (``slurm``, ``pbs``, ``sge``, ``lsf``), the
        number of ``jobs``, and what dask-jobqueue takes for one (``cores``, ``memory``, ...).

    Raises
    ------
    ValueError
        If there is no such kind.
    MissingDependencyError
        When ``dask`` is first used and is not installed.

    Notes
    -----
    A context manager: a connection is made when it is first needed, and closed at its end.
    """

    def __init__(
        self,
        kind: EngineKind = "threads",
        *,
        workers: int | None = None,
        scheduler: str | None = None,
        cluster: Mapping[str, Any] | None = None,
    ) -> None:
        if kind not in get_args(EngineKind):
            raise ValueError(f"executor {kind!r}; there are {', '.join(get_args(EngineKind))}")
        self.kind, self.workers = kind, workers
        self._scheduler, self._cluster = scheduler, cluster
        self._connected: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    def reach(self) -> None:
        """Connect now to the scheduler that was named, if one was, and not when it is needed.

        Raises
        ------
        VolprepError
            If none answers.
        """
        if self.kind == "dask" and self._scheduler is not None:
            self._connect()

    def _connect(self) -> Any:
        from volprep.compute import cluster

        if self._connected is None:
            self._connected = cluster.connect(self._scheduler, self._cluster, self.workers)
        return self._connected

    def run(
        self,
        function: Callable[[Unit], Result],
        units: Iterable[Unit],
        *,
        count: int | None = None,
    ) -> Iterator[Result]:
        """Apply `function` to every unit; the results come in any order.

        Parameters
        ----------
        function : callable
            Of one unit; picklable for ``processes`` and ``dask``.
        units : iterable
            Taken lazily, so that memory does not grow with their number.
        count : int or None
            How many there are, where it is known: the last ones are shared out evenly.

        Raises
        ------
        Exception
            The first error of a unit (with ``dask``: of one that failed three times), after
            the results of those that were under way with it.
        """
        if self.kind == "dask":
            yield from self._on_cluster(function, units, count=count)
        else:
            yield from run_finished(function, units, backend=self.kind, workers=self.workers)

    def in_order(
        self, function: Callable[[Unit], Result], units: Iterable[Unit]
    ) -> Iterator[Result]:
        """`run`, with the results in the order of the units, which may carry their data.

        With ``dask`` each unit is sent alone, so that no more data than two units a thread is
        under way; results that come before their turn wait here.
        """
        if self.kind != "dask":
            yield from run_units(function, units, backend=self.kind, workers=self.workers)
            return
        early: dict[int, Result] = {}
        wanted = 0
        numbered = self._on_cluster(partial(_numbered, function), enumerate(units), seconds=0.0)
        for number, result in numbered:
            early[number] = result
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1

    def _on_cluster(
        self,
        function: Callable[[Unit], Result],
        units: Iterable[Unit],
        *,
        count: int | None = None,
        seconds: float | None = None,
    ) -> Iterator[Result]:
        from volprep.compute import cluster

        yield from cluster.run_on(
            self._connect().client, function, units, count=count,
            batch_seconds=cluster.BATCH_SECONDS if seconds is None else seconds,
        )  # fmt: skip


def _numbered(function: Callable[[Unit], Result], unit: tuple[int, Unit]) -> tuple[int, Result]:
    return unit[0], function(unit[1])
