"""An interrupted walk through a volume goes on where it was, and gives the same skeletons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from volprep.skeletons.journal import TraceJournal
from volprep.skeletons.make import Trace, gather
from volprep.skeletons.stream import trace_volume
from volprep.sources import ArrayVolume


@pytest.fixture
def volume() -> ArrayVolume:
    labels = np.zeros((12, 30, 40), np.uint64)
    for number, (z, y, x) in enumerate([(1, 2, 3), (2, 12, 3), (5, 22, 20), (8, 4, 20)], 1):
        labels[z : z + 3, y : y + 6, x : x + 15] = 2**63 + number
    labels[11, 29, 39] = 2**63 + 1
    return ArrayVolume(labels)


def broken_after(count: int, traces: Iterator[Trace]) -> Iterator[Trace]:
    for number, trace in enumerate(traces):
        if number == count:
            raise KeyboardInterrupt
        yield trace


def same(found: list[Trace], wanted: list[Trace]) -> bool:
    ours, theirs = gather(found), gather(wanted)
    names = ("ids", "offsets", "points", "edges", "radii")
    arrays = ((getattr(ours, name), getattr(theirs, name)) for name in names)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)


@pytest.mark.parametrize("every", [0.0, 1000.0])
@pytest.mark.parametrize("runs_at_once", [1, 1 << 20])
def test_a_walk_goes_on_where_it_broke_off(
    volume: ArrayVolume, tmp_path: Path, every: float, runs_at_once: int
) -> None:
    def walk(skip: int = 0) -> Iterator[Trace]:
        return trace_volume(volume, block=(5, 16, 16), runs_at_once=runs_at_once, skip=skip)

    whole = list(walk())
    assert len(whole) == 5
    for count in (0, 2, 3):
        journal = TraceJournal(tmp_path, "cells", "key", every=every)
        with pytest.raises(KeyboardInterrupt):
            list(journal.keep(broken_after(count, walk())))
        again = TraceJournal(tmp_path, "cells", "key", every=every)
        known = again.read()
        assert len(known) == count
        rest = list(again.keep(walk(skip=count)))
        assert len(rest) == len(whole) - count
        assert same(known + rest, whole)
        again.remove()
        assert not list(tmp_path.iterdir())


def test_progress_counts_what_is_skipped(volume: ArrayVolume) -> None:
    for skip in (0, 3, 5):
        counts: list[int] = []
        list(trace_volume(volume, progress=counts.append, skip=skip))
        assert sum(counts) == 2 * 12 * 30 * 40


def test_another_key_and_damaged_parts_are_left_out(volume: ArrayVolume, tmp_path: Path) -> None:
    journal = TraceJournal(tmp_path, "cells", "key", every=0)
    traces = list(journal.keep(trace_volume(volume)))
    parts = sorted(journal.path.iterdir())
    assert len(parts) == len(traces)
    parts[3].write_bytes(parts[3].read_bytes()[:-40])
    again = TraceJournal(tmp_path, "cells", "key")
    assert len(again.read()) == 3
    TraceJournal(tmp_path, "other", "another")
    assert journal.path.exists()
    assert TraceJournal(tmp_path, "cells", "another").read() == []
    assert not journal.path.exists()
