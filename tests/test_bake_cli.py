"""`volprep bake-skeletons` as a person runs it: files, summary, resumption."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from volprep import pipeline
from volprep.errors import SourceError, StoreError
from volprep.geometry import Box
from volprep.ledger import Ledger
from volprep.outputs import BLOCK, BlockOutput
from volprep.skeletons import Skeletons, bake_skeleton, skeleton_to_mask, trace_volume
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


def test_options_of_the_field_and_the_mask_hold_for_a_label_volume(
    labels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bake(
        "--labels", labels, "--out", out, "--field", "--mask", "--anisotropy", "5, 1, 2",
        "--no-average", "--radius", "2", "--flank-radius", "1",
    )  # fmt: skip
    array = np.load(labels)
    skeletons = Skeletons.from_file(out / "cells.skeletons.npz")
    field = open_volume(out / "cells.offset.ome.zarr").read()
    expected = bake_skeleton(array, skeletons, (5, 1, 2), average=False, target="offset")
    np.testing.assert_array_equal(field, expected)
    painted = skeleton_to_mask(skeletons, array.shape, None, 2, 1, dtype=np.uint8, slice_axis=0)
    mask = open_volume(out / "cells.skeleton_mask.ome.zarr").read()
    np.testing.assert_array_equal(mask, painted)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.tif"])
def test_interrupted_output_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    shape = (1, BLOCK[0] * 3, 30, 40)
    data = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8)
    made: list[Box] = []

    def fill(folder: Path, key: str, last: int) -> None:
        def make(box: Box) -> Any:
            if len(made) == last:
                raise KeyboardInterrupt
            made.append(box)
            return data[(slice(None), *box.slices)]

        with Ledger(folder, own=False) as ledger:
            output = BlockOutput(ledger, name, shape, "uint8", spacing=(2, 1, 1), key=key)
            output.fill(make)
            ledger.settle()

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fill(whole, "ab", 9)
    made.clear()
    for last in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            fill(broken, "ab", last)
        assert not (broken / name).exists()
        assert len(made) == last
    with pytest.raises(KeyboardInterrupt):
        fill(broken, "cd", 3)
    assert len(made) == 3
    made.clear()
    fill(broken, "ab", 9)
    assert len(made) == 3
    np.testing.assert_array_equal(open_volume(broken / name).read(), data)
    assert tree(broken) == tree(whole)


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.tif"])
def test_a_block_that_was_changed_is_made_again(tmp_path: Path, name: str) -> None:
    shape = (1, BLOCK[0] * 2, 130, 40)
    data = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    with Ledger(tmp_path, own=False) as ledger:
        output = BlockOutput(ledger, name, shape, "uint8", spacing=None, key="ab")

        def make(box: Box) -> Any:
            if box.start == (BLOCK[0], BLOCK[1], 0):
                raise KeyboardInterrupt
            return data[(slice(None), *box.slices)]

        with pytest.raises(KeyboardInterrupt):
            output.fill(make)
        partial = tmp_path / f"{name}.partial"
        file = partial if partial.is_file() else partial / "0/c/0/0/1/0"
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1  # in the voxels of the first block
        file.write_bytes(content)
        output.fill(lambda box: data[(slice(None), *box.slices)])
    np.testing.assert_array_equal(open_volume(tmp_path / name).read(), data)


def test_a_tiff_that_does_not_fit_the_disk_is_an_error_with_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with Ledger(tmp_path, own=False) as ledger:
        output = BlockOutput(ledger, "a.ome.tif", (3, 9, 9, 9), "float32", spacing=None, key="ab")
        with pytest.raises(StoreError, match=r"a\.ome\.tif.*8748 bytes are needed, \d+ are free"):
            output.fill(lambda box: np.zeros((3, *box.shape), np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"]


def test_two_at_once_in_one_folder_are_one_too_many(labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "volprep", "bake-skeletons", "--labels", str(labels), "-o"]
    with Ledger(out, own=False):
        second = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    assert second.returncode == 6
    assert "another process is writing there" in second.stderr
    assert [path.name for path in out.iterdir()] == ["ledger.jsonl"]
    bake("--labels", labels, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["cells.skeletons.npz", "ledger.jsonl"]


def test_a_label_file_that_changes_meanwhile_is_an_error(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from volprep.pipeline import baked

    def trace(*args: Any, **options: Any) -> Any:
        yield from trace_volume(*args, **options)
        labels.write_bytes(labels.read_bytes()[:-1] + b"\x07")

    monkeypatch.setattr(baked, "trace_volume", trace)
    with pytest.raises(SourceError, match="changed while it was being used"):
        pipeline.run_bake(None, labels=labels, out=tmp_path / "out")
    monkeypatch.undo()
    [summary] = pipeline.run_bake(None, labels=labels, out=tmp_path / "out")
    assert summary.components == 4, "of the file as it is now"


def test_touching_the_labels_makes_nothing_again_and_new_content_of_old_age_does(
    labels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bake("--labels", labels, "--out", out)
    before = tree(out)
    state = labels.stat()
    os.utime(labels, ns=(1, 1))
    assert bake("--labels", labels, "--out", out)[0]["resumed"]
    assert tree(out) == before
    array = np.load(labels)
    array[array == 9] = 8
    np.save(labels, array)
    os.utime(labels, ns=(state.st_atime_ns, state.st_mtime_ns))
    [changed] = bake("--labels", labels, "--out", out)
    assert not changed["resumed"]
    assert 8 in Skeletons.from_file(out / "cells.skeletons.npz")


def test_config_or_labels_and_known_words(labels: Path, tmp_path: Path) -> None:
    for args in ([], ["--labels", labels, "--method", "magic"], ["--labels", tmp_path / "no.tif"]):
        command = [sys.executable, "-m", "volprep", "bake-skeletons", *map(str, args)]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "o")], capture_output=True, text=True, check=False
        )
        assert done.returncode in (2, 3)
        assert done.stderr.startswith("error: ")


def test_a_scheduler_that_does_not_answer_leaves_no_folder(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    np.save(tmp_path / "cells.npy", np.ones((4, 5, 6), np.uint8))
    command = [sys.executable, "-m", "volprep", "bake-skeletons", "--labels", "cells.npy"]
    done = subprocess.run(
        [*command, "--executor", "dask", "--scheduler", "tcp://127.0.0.1:1"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Dask scheduler answers" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cells.npy"]
