"""Whole commands on a cluster, one worker of it lost in the middle: the bytes of a serial run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dask_cluster import Cluster, cluster

from volprep.compute import Engine
from volprep.files import files_below
from volprep.pipeline.bake import bake_skeletons, case_of_labels
from volprep.pipeline.baked import BakeOptions

__all__ = ["cluster"]  # a fixture


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files_below(folder)}


def killing(
    cluster: Cluster, title: str
) -> Callable[..., contextlib.AbstractContextManager[object]]:
    """A reporter that kills a worker when the first units of a stage are done."""

    @contextlib.contextmanager
    def reporter(name: str, total: int, what: str = "") -> Iterator[Callable[[int], object]]:
        def advance(count: int) -> None:
            if name.startswith(title) and cluster.workers[0].poll() is None:
                cluster.workers[0].kill()
                cluster.workers[0].wait()

        yield advance

    return reporter


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    volume = np.zeros((70, 140, 150), np.uint16)
    for number in range(6):
        z, y = 11 * number, 22 * number
        volume[z : z + 5, y : y + 5, 5 : 140 - 9 * number] = number + 1
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, volume)
    return path


def test_bake_survives_a_lost_worker(cluster: Cluster, labels: Path, tmp_path: Path) -> None:
    case = case_of_labels(labels, None, (1.0, 1.0, 1.0))
    options = BakeOptions(field=True, mask=True)
    bake_skeletons([case], tmp_path / "serial", options, workers=1)
    with Engine("dask", scheduler=cluster.address) as engine:
        bake_skeletons(
            [case], tmp_path / "dask", options, engine=engine, reporter=killing(cluster, "offset")
        )
    assert cluster.workers[0].poll() is not None
    assert cluster.workers[1].poll() is None
    assert tree(tmp_path / "dask") == tree(tmp_path / "serial")
