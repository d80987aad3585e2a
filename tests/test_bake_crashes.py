"""`bake-skeletons` is killed at its steps on the disk; the same again gives the same tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CRASHES = Path(__file__).with_name("crashes.py")
COMMAND = (
    "from volprep import pipeline; from volprep.skeletons import journal; journal.EVERY = 0; "
    "pipeline.run_bake(None, labels=pathlib.Path({labels!r}), out=out, workers={workers}, "
    "field=True, mask=True, trch=True, swc=True, form={form!r})"
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    array = np.zeros((70, 40, 140), np.uint32)
    array[2:60, 5:12, 3:140] = 7
    array[4:9, 20:35, 10:20] = 3
    array[15, 38, 139] = 9
    np.save(tmp_path / "cells.npy", array)
    return tmp_path / "cells.npy"


def crash(folder: Path, points: str, labels: Path, form: str, workers: int) -> None:
    command = "import pathlib; " + COMMAND.format(labels=str(labels), form=form, workers=workers)
    # All that is compiled or loaded late is loaded before the forks.
    setup = "import volprep.pipeline, volprep.outputs, zarr, tifffile, torch, numba"
    done = subprocess.run(
        [sys.executable, "-c", f"{setup}; import sys; sys.path.insert(0, {str(CRASHES.parent)!r}); "
         "import crashes, pathlib; crashes.main(pathlib.Path(sys.argv[1]), *sys.argv[2:])",
         str(folder), points, command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] >= 4
    assert found["wrong"] == []


@pytest.mark.parametrize("form", ["zarr", "tiff"])
def test_a_kill_at_some_steps_changes_nothing(tmp_path: Path, labels: Path, form: str) -> None:
    crash(tmp_path, "4", labels, form, 1)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zarr", "tiff"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_at_any_step_changes_nothing(
    tmp_path: Path, labels: Path, form: str, workers: int
) -> None:
    crash(tmp_path, "all", labels, form, workers)
