"""An interrupted walk through a volume goes on where it was, and gives the same skeletons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from volprep.ledger import Ledger
from volprep.skeletons import journal as journals
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
    volume: ArrayVolume,
    tmp_path: Path,
    every: float,
    runs_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journals, "EVERY", every)

    def walk(skip: int = 0) -> Iterator[Trace]:
        return trace_volume(volume, block=(5, 16, 16), runs_at_once=runs_at_once, skip=skip)

    whole = list(walk())
    assert len(whole) == 5
    for count in (0, 2, 3):
        with Ledger(tmp_path / "out", own=False) as ledger, pytest.raises(KeyboardInterrupt):
            list(TraceJournal(ledger, "cells", "ab").keep(broken_after(count, walk())))
        with Ledger(tmp_path / "out", own=False) as ledger:
            again = TraceJournal(ledger, "cells", "ab")
            known = again.read()
            assert len(known) == count
            rest = list(again.keep(walk(skip=count)))
            assert len(rest) == len(whole) - count
            assert same(known + rest, whole)
            again.remove()
            assert len(ledger.records) == 0
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["ledger.jsonl"]


def test_progress_counts_what_is_skipped(volume: ArrayVolume) -> None:
    for skip in (0, 3, 5):
        counts: list[int] = []
        list(trace_volume(volume, progress=counts.append, skip=skip))
        assert sum(counts) == 2 * 12 * 30 * 40


def test_another_key_and_damaged_parts_are_left_out(
    volume: ArrayVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "EVERY", 0.0)
    with Ledger(tmp_path / "out", own=False) as ledger:
        journal = TraceJournal(ledger, "cells", "ab")
        traces = list(journal.keep(trace_volume(volume)))
        parts = sorted(journal.path.iterdir())
        assert len(parts) == len(traces)
        content = bytearray(parts[3].read_bytes())
        content[-400] ^= 1
        parts[3].write_bytes(content)
        assert len(TraceJournal(ledger, "cells", "ab").read()) == 3
        assert TraceJournal(ledger, "other", "cd").read() == []
        assert journal.path.exists()
        assert TraceJournal(ledger, "cells", "cd").read() == []
        assert not journal.path.exists()
