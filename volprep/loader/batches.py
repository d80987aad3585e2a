"""Ready batches, made by threads in buffers that are used again and again.

Worker processes would have to hand every patch over, which costs more than making it;
threads write it where it is wanted. All that takes time (reading, decoding, warping)
lets go of the interpreter's lock.
"""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from volprep.compute import default_workers
from volprep.errors import within_memory
from volprep.loader.order import SampleOrder, Seeded
from volprep.randomness import sample_generator

__all__ = ["Fillable", "PatchLoader", "SampleSource"]

log = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
Arrays = Mapping[str, npt.NDArray[Any]]

#: What helps where memory runs out.
_LESS = "use a smaller batch_size, smaller patches, fewer threads or less prefetch"
#: What `transforms` draw comes from streams that no sample of the source uses.
_TRANSFORMS = 2**62


class SampleSource(Seeded, Protocol):
    """A map-style data set of which every sample is a dict of arrays or numbers."""

    def __getitem__(self, place: tuple[int, int]) -> Mapping[str, Any]:
        """The sample of (epoch, index)."""
        ...


@runtime_checkable
class Fillable(Protocol):
    """A data set that makes a sample right where it is wanted."""

    def fill(self, epoch: int, index: int, out: Arrays) -> None:
        """Write every array of a sample to `out`."""
        ...

    def where(self, epoch: int, index: int) -> str:
        """In words, where a sample comes from."""
        ...


Transforms = Callable[[dict[str, Any], np.random.Generator], Mapping[str, Any]]


class PatchLoader:
    """Batches of a data set, in the same order for any number of threads, ranks and restarts.

    Parameters
    ----------
    source : SampleSource
        Such as `PatchDataset` or `VolumeDataset`.
    batch_size : int
        Samples of a batch, on each rank.
    threads : int or None
        That make samples; None takes every processor this process may use.
    seed : int or None
        Of the order and of `transforms`; the source's for None.
    steps : int or None
        Batches of an epoch, on each rank. None makes an epoch one pass over the source, its
        last batch as small as it comes out, as torch's DataLoader does.
    shuffle : bool
        Whether each pass has an order of its own.
    transforms : callable or None
        Called as ``transforms(sample, generator)`` on every sample, in the threads; what it
        returns is batched.
    rank, world_size : int
        This process among those that train together: each gets its own part of one order.
    epoch : int
        The first one.
    prefetch : int
        Batches that are made ahead.
    pin_memory : bool
        Whether buffers are such that a GPU copies from them by itself.
    device : torch.device, str or None
        Where batches are to be; None leaves them in the buffers. Copies to a GPU are
        asynchronous, from pinned buffers, on a stream of their own.

    Raises
    ------
    ValueError
        For numbers that make no sense, or an empty source.

    Notes
    -----
    A batch is a dict of tensors with a leading batch axis. It stays valid until the one
    after the next is asked for: whoever keeps it longer copies it. `state_dict` tells how
    many samples all ranks together have been given, so a run may go on with another number
    of ranks, in the middle of an epoch.
    """

    def __init__(
        self,
        source: SampleSource,
        batch_size: int,
        *,
        threads: int | None = None,
        seed: int | None = None,
        steps: int | None = None,
        shuffle: bool = True,
        transforms: Transforms | None = None,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        _check(batch_size=batch_size, world_size=world_size, prefetch=prefetch)
        if threads is not None:
            _check(threads=threads)
        if steps is not None:
            _check(steps=steps)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: found {rank}; wanted 0 to {world_size - 1}")
        if len(source) == 0:
            raise ValueError("source: it holds no sample; wanted one at least")
        self.source, self.batch_size, self.steps = source, batch_size, steps
        self.threads = default_workers() if threads is None else threads
        self.rank, self.world_size, self.prefetch = rank, world_size, prefetch
        self.device = None if device is None else torch.device(device)
        self.pin_memory = pin_memory or (self.device is not None and self.device.type == "cuda")
        seed = source.seed if seed is None else seed
        self.transforms = transforms
        self._order = SampleOrder(len(source), seed, shuffle)
        self._given = epoch * self._samples_per_epoch()
        self._running: _Run | None = None

    def _samples_per_epoch(self) -> int:
        """Of all ranks together."""
        if self.steps is None:
            return self._order.count
        return self.steps * self.batch_size * self.world_size

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._given // self._samples_per_epoch()

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; nothing changes where that is where it stands."""
        start = epoch * self._samples_per_epoch()
        if not start <= self._given < start + self._samples_per_epoch():
            self._given = start

    def __len__(self) -> int:
        """Batches of an epoch, on this rank."""
        if self.steps is not None:
            return self.steps
        return sum(1 for _ in self._batches(0, self._order.count))

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, range]]:
        """Of the places from `start` to `stop`: where each global batch ends, and our part.

        What is left at the end of a pass goes to the ranks in equal shares, so that every
        sample is given once.
        """
        whole = self.batch_size * self.world_size
        for first in range(start, stop, whole):
            last = min(first + whole, stop)
            bounds = [
                first + (last - first) * r // self.world_size for r in (self.rank, self.rank + 1)
            ]
            if bounds[0] < bounds[1]:
                yield last, range(*bounds)

    def _endless(self, start: int) -> Iterator[tuple[int, range]]:
        """As `_batches`, epoch after epoch."""
        size = self._samples_per_epoch()
        while True:
            stop = (start // size + 1) * size
            yield from self._batches(start, stop)
            start = stop

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch that stands next; a second call ends the first one's batches."""
        size = self._samples_per_epoch()
        stop = (self._given // size + 1) * size
        count = sum(1 for _ in self._batches(self._given, stop))
        run = self._running
        if run is None or run.rests_at != self._given:
            self._stop()
            run = self._running = _Run(self, self._endless(self._given))
        # What was made ahead of the next epoch while the last one ended is there already.
        run.rests_at = None
        return _Batches(self, run, count, stop)

    def _stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: samples that all ranks have been given."""
        return {"samples": self._given, "seed": self._order.seed, "count": self._order.count}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state_dict` was taken, with any `world_size` and any `batch_size`.

        Raises
        ------
        ValueError
            If it is the state of another source.
        """
        for name, here in (("seed", self._order.seed), ("count", self._order.count)):
            if state[name] != here:
                raise ValueError(
                    f"state: {name} is {state[name]}, this loader's is {here}; "
                    "wanted the state of the same data set"
                )
        self._stop()
        self._given = state["samples"]


class _Batches(Iterator[Batch]):
    """The batches of one epoch; the loader moves on as they are handed out."""

    def __init__(self, loader: PatchLoader, run: _Run, count: int, stop: int) -> None:
        self._loader, self._run, self._left, self._stop = loader, run, count, stop
        # Whoever forgets the iterator ends its threads: they know the run, and not the loader.
        self._forgotten = weakref.finalize(self, run.stop)

    def __next__(self) -> Batch:
        if not self._left:
            if self._loader._running is self._run and self._forgotten.detach():
                self._loader._given = self._stop
                self._run.rest(self._stop)
            raise StopIteration
        try:
            batch, self._loader._given = self._run.take()
        except BaseException:
            self._run.stop()
            raise
        self._left -= 1
        return batch


@dataclass
class _Slot:
    """A buffer of the ring: tensors, and the same memory sample by sample as arrays."""

    tensors: Batch
    samples: list[Arrays]
    count: int = 0  # samples of the batch that lies in it
    last: int = 0  # where that batch ends in the order
    missing: int = 0
    error: BaseException | None = None
    copied: Any = None  # on a GPU: the event after which the buffer may be filled again


@dataclass(frozen=True, slots=True)
class _Work:
    """One sample to be made, and where it goes."""

    slot: _Slot
    place: int
    epoch: int
    index: int


class _Run:
    """The threads and buffers of a loader, epoch after epoch."""

    def __init__(self, loader: PatchLoader, parts: Iterator[tuple[int, range]]) -> None:
        self._source, self._transforms = loader.source, loader.transforms
        self._order, self._parts = loader._order, parts
        self._pin, self._device = loader.pin_memory, loader.device
        self._batch_size, self._count = loader.batch_size, loader.threads
        # The caller holds one batch while it asks for the next, and none of the two may change.
        self._ahead = loader.prefetch + 1
        self._size = self._ahead + 1
        self._slots: list[_Slot] = []
        self._threads: list[threading.Thread] = []
        self._work: deque[_Work] = deque()
        self._scheduled = self._taken = 0
        self._changed = threading.Condition()
        self._stopped = self._resting = False
        self.rests_at: int | None = None

    def take(self) -> tuple[Batch, int]:
        """The next batch, and where it ends in the order.

        Buffers that the caller cannot hold any more are filled again.
        """
        if not self._slots:
            self._make_slots()
        if not self._threads and not self._stopped:
            self._start()
        with self._changed:
            while self._scheduled < self._taken + self._ahead:
                self._schedule()
            slot = self._slots[self._taken % self._size]
            while slot.missing and slot.error is None and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise RuntimeError("another pass over this loader was begun; this one has ended")
        if slot.error is not None:
            raise slot.error
        self._taken += 1
        batch = {name: tensor[: slot.count] for name, tensor in slot.tensors.items()}
        if self._device is not None:
            batch = _moved(batch, self._device, slot)
        return batch, slot.last

    def stop(self) -> None:
        """End the threads; the samples that they are at are finished first."""
        with self._changed:
            self._stopped = True
            self._work.clear()
        self._join()

    def rest(self, place: int) -> None:
        """End the threads, and keep what was made ahead and what is still to be made."""
        self.rests_at = place
        self._resting = True
        self._join()
        self._resting = False

    def _join(self) -> None:
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads.clear()

    def sample(self, epoch: int, index: int) -> Mapping[str, Any]:
        """A sample that is not made in place."""
        with within_memory(f"making sample {index} of epoch {epoch}", _LESS):
            sample = self._source[epoch, index]
            if self._transforms is None:
                return sample
            rng = sample_generator(self._order.seed, epoch, _TRANSFORMS + index)
            return self._transforms(dict(sample), rng)

    def next(self) -> _Work | None:
        """What to make; None at the end."""
        with self._changed:
            while not (self._work or self._stopped or self._resting):
                self._changed.wait()
            return None if self._stopped or self._resting else self._work.popleft()

    def make(self, work: _Work) -> None:
        """Make one sample; what goes wrong is told to the caller, whose thread can handle it."""
        out, error = work.slot.samples[work.place], None
        try:
            with within_memory("making a sample", _LESS):
                if self._transforms is None and isinstance(self._source, Fillable):
                    self._source.fill(work.epoch, work.index, out)
                else:
                    _copy(self.sample(work.epoch, work.index), out)
        except BaseException as caught:
            caught.add_note(self._where(work))
            error = caught
        with self._changed:
            work.slot.missing -= 1
            work.slot.error = work.slot.error or error
            if work.slot.missing == 0 or work.slot.error is not None:
                self._changed.notify_all()

    def _where(self, work: _Work) -> str:
        where = f"sample {work.index} of epoch {work.epoch}"
        if isinstance(self._source, Fillable):
            where += f": {self._source.where(work.epoch, work.index)}"
        return where

    def _make_slots(self) -> None:
        """Make the buffers, as large as the first sample says."""
        last, part = next(self._parts)
        self._parts = itertools.chain([(last, part)], self._parts)
        from volprep.kernels.compiling import telling_of_compiling

        with telling_of_compiling(log.warning):  # seconds without a word look like a hang
            first = self.sample(*self._order.at(part[0]))
        with within_memory(f"making buffers of {self._size} batches", _LESS):
            self._slots += [self._slot(first) for _ in range(self._size)]

    def _slot(self, first: Mapping[str, Any]) -> _Slot:
        """Room for a batch of samples like the first one."""
        tensors = {n: _room(value, self._batch_size, self._pin) for n, value in first.items()}
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        samples: list[Arrays] = [
            {name: array[i, ...] for name, array in arrays.items()} for i in range(self._batch_size)
        ]
        return _Slot(tensors, samples)

    def _start(self) -> None:
        for number in range(self._count):
            thread = threading.Thread(
                target=_make_samples, args=(self,), name=f"volprep-loader-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _schedule(self) -> None:
        """Have the samples of the next batch made; the lock is held."""
        slot = self._slots[self._scheduled % self._size]
        slot.last, part = next(self._parts)
        if slot.copied is not None:
            slot.copied.synchronize()
        slot.count = slot.missing = len(part)
        self._work.extend(_Work(slot, i, *self._order.at(p)) for i, p in enumerate(part))
        self._scheduled += 1
        self._changed.notify_all()


def _make_samples(run: _Run) -> None:
    while (work := run.next()) is not None:
        run.make(work)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: found {value!r}; wanted a whole number of 1 or more")


def _room(value: Any, count: int, pin: bool) -> torch.Tensor:
    """A tensor for `count` of a value."""
    one = torch.as_tensor(value)
    return torch.empty((count, *one.shape), dtype=one.dtype, pin_memory=pin)


def _copy(sample: Mapping[str, Any], out: Arrays) -> None:
    if sample.keys() != out.keys():
        raise ValueError(f"a sample holds {sorted(sample)}, the first one held {sorted(out)}")
    for name, value in sample.items():
        array = np.asarray(value)
        if array.shape != out[name].shape:
            raise ValueError(f"{name}: {array.shape}, in the first sample {out[name].shape}")
        out[name][...] = array


def _moved(batch: Batch, device: torch.device, slot: _Slot) -> Batch:
    """The batch on the device, in memory of its own."""
    if device.type != "cuda":
        return {name: tensor.to(device, copy=True) for name, tensor in batch.items()}
    stream, current = _copying(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        slot.copied = stream.record_event()
    current.wait_stream(stream)
    for tensor in moved.values():
        tensor.record_stream(current)
    return moved


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    """The stream on which batches are copied, beside the one that trains."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
