"""Boxes, units, generators, errors and the executor: what every room stands on."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.compute import run_units
from volprep.errors import (
    ConfigError,
    DataCheckError,
    MissingDependencyError,
    PlanError,
    SourceError,
    StoreError,
    VolprepError,
)
from volprep.geometry import Box, aligned_blocks, to_micrometres
from volprep.randomness import sample_generator

shapes = st.tuples(*[st.integers(1, 12)] * 3)
starts = st.tuples(*[st.integers(-12, 12)] * 3)


@given(shapes, shapes)
def test_blocks_cover_every_voxel_once(
    shape: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    count = np.zeros(shape, int)
    for box in aligned_blocks(shape, block):
        count[box.slices] += 1
    assert (count == 1).all()


@given(starts, shapes, shapes)
def test_clip_keeps_exactly_what_lies_inside(
    start: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    box = Box.at(start, size)
    inside = {
        (z, y, x)
        for z in range(box.start[0], box.stop[0])
        for y in range(box.start[1], box.stop[1])
        for x in range(box.start[2], box.stop[2])
        if 0 <= z < shape[0] and 0 <= y < shape[1] and 0 <= x < shape[2]
    }
    clipped = box.clip(shape)
    assert clipped.size == len(inside)
    assert Box.whole(shape).contains(clipped)
    assert box.overlaps(Box.whole(shape)) == bool(inside)


def test_box_that_stops_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="before it starts"):
        Box((1, 0, 0), (0, 1, 1))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(40, "nm", 0.04), (1, "micron", 1), (2, "mm", 2000), (3, "\\u00B5m", 3), (1, "µm", 1)],
)
def test_units_become_micrometres(value: float, unit: str, expected: float) -> None:
    assert to_micrometres(value, unit) == pytest.approx(expected)


@pytest.mark.parametrize("unit", ["", "pixel", "s"])
def test_what_is_no_length_has_no_micrometres(unit: str) -> None:
    assert to_micrometres(1, unit) is None


def test_samples_have_streams_of_their_own() -> None:
    draws = {
        tuple(sample_generator(seed, epoch, index).integers(0, 2**62, 4))
        for seed in range(4)
        for epoch in range(4)
        for index in range(16)
    }
    assert len(draws) == 256
    again = sample_generator(3, 2, 1).integers(0, 2**62, 4)
    assert tuple(again) in draws


@pytest.mark.parametrize("backend", ["serial", "threads", "processes"])
def test_results_come_in_the_order_of_the_units(backend: str) -> None:
    assert list(run_units(abs, range(-40, 0), backend=backend, workers=2)) == list(range(40, 0, -1))


def test_units_are_taken_lazily() -> None:
    taken = []

    def units() -> object:
        for number in range(1000):
            taken.append(number)
            yield number

    results = run_units(abs, units(), workers=2)
    next(results)
    assert len(taken) < 20
    results.close()


def test_first_error_ends_the_run_and_its_threads() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise SourceError("a.tif", "truncated")
        return number

    with pytest.raises(SourceError):
        list(run_units(fail, range(100), workers=2))
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VolprepError("a"), 1),
        (ConfigError("a"), 2),
        (SourceError("a.tif", "empty", "a file"), 3),
        (DataCheckError(["a", "b"]), 4),
        (PlanError("a"), 5),
        (StoreError("a"), 6),
        (MissingDependencyError("kimimaro", "teasar"), 7),
    ],
)
def test_errors_keep_code_and_message_across_processes(error: VolprepError, code: int) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert error.exit_code == code


def test_missing_dependency_says_what_to_install() -> None:
    assert 'pip install "volprep[teasar]"' in str(MissingDependencyError("kimimaro", "teasar"))
