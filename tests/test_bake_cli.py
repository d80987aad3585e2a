"""`volprep bake-skeletons` as a person runs it: files, summary, resumption."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from volprep.geometry import Box
from volprep.outputs import BLOCK, BlockOutput
from volprep.skeletons import Skeletons, bake_skeleton, skeleton_to_mask
from volprep.sources import open_volume


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    array = np.zeros((20, 40, 150), np.uint32)
    array[2:18, 5:12, 3:140] = 70_000_000
    array[4:9, 20:35, 10:20] = 3
    array[15, 38, 149] = 9
    np.save(tmp_path / "cells.npy", array)
    return tmp_path / "cells.npy"


def bake(*args: object) -> Any:
    command = [sys.executable, "-m", "volprep", "bake-skeletons", *map(str, args), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["zarr", "tiff"])
def test_files_hold_what_the_library_gives(labels: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    options = ["--labels", labels, "--spacing", "0.3,0.1,0.1", "--out", out, "--format", form]
    [summary] = bake(*options, "--field", "--mask", "--trch", "--swc")
    assert (summary["instances"], summary["components"]) == (3, 3)
    assert summary["smallest"] == 1
    assert 1 <= summary["fell_back"] <= 3
    array = np.load(labels)
    skeletons = Skeletons.from_file(out / "cells.skeletons.npz")
    assert sorted(skeletons) == [3, 9, 70_000_000]
    suffix = "ome.zarr" if form == "zarr" else "ome.tif"
    field = open_volume(out / f"cells.offset.{suffix}")
    assert field.spacing == pytest.approx((0.3, 0.1, 0.1))
    expected = bake_skeleton(array, skeletons, (0.3, 0.1, 0.1), target="offset")
    np.testing.assert_array_equal(field.read(), expected)
    mask = open_volume(out / f"cells.skeleton_mask.{suffix}").read()
    painted = skeleton_to_mask(skeletons, array.shape, dtype=np.uint8, slice_axis=0)
    np.testing.assert_array_equal(mask, painted)
    assert (out / "cells.skeletons.trch").exists()
    assert len(list((out / "cells.swc").iterdir())) == 3
    assert not list(out.glob("*.partial"))


def test_second_run_keeps_what_is_there_and_a_changed_file_does_not(
    labels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bake("--labels", labels, "--out", out)
    stamp = (out / "cells.skeletons.npz").stat().st_mtime_ns
    [again] = bake("--labels", labels, "--out", out)
    assert again["resumed"]
    assert again["components"] == 3
    assert (out / "cells.skeletons.npz").stat().st_mtime_ns == stamp
    array = np.load(labels)
    array[array == 9] = 0
    np.save(labels, array)
    [changed] = bake("--labels", labels, "--out", out)
    assert not changed["resumed"]
    assert changed["instances"] == 2


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.tif"])
def test_interrupted_output_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    shape = (1, BLOCK[0] * 2, 30, 40)
    data = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8)
    boxes = [Box((z, 0, 0), (z + BLOCK[0], 30, 40)) for z in (0, BLOCK[0])]

    def output(key: str = "k") -> BlockOutput:
        return BlockOutput(tmp_path / name, shape, "uint8", spacing=(2, 1, 1), key=key)

    output().write(boxes[0], data[(slice(None), *boxes[0].slices)])
    assert not (tmp_path / name).exists()
    assert not output("another").has(boxes[0])
    output().write(boxes[0], data[(slice(None), *boxes[0].slices)])
    second = output()
    assert second.has(boxes[0])
    assert not second.has(boxes[1])
    second.write(boxes[1], data[(slice(None), *boxes[1].slices)])
    second.finish()
    np.testing.assert_array_equal(open_volume(tmp_path / name).read(), data)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_config_or_labels_and_known_words(labels: Path, tmp_path: Path) -> None:
    for args in ([], ["--labels", labels, "--method", "magic"], ["--labels", tmp_path / "no.tif"]):
        command = [sys.executable, "-m", "volprep", "bake-skeletons", *map(str, args)]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "o")], capture_output=True, text=True, check=False
        )
        assert done.returncode in (2, 3)
        assert done.stderr.startswith("error: ")
