"""Data that lie elsewhere: each command works on a URL as on a folder, and says what fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from stores import KEYS, WebServer, put, s3_served, served

import volprep


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volprep", *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, check=False, env={**os.environ, **KEYS}
    )


def succeed(*args: object, cwd: Path) -> str:
    done = run(*args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an OME-Zarr of an image and its labels."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    label = np.zeros((24, 64, 64), np.uint16)
    for i in range(1, 30):
        z, y, x = (int(rng.integers(0, n - 5)) for n in label.shape)
        label[z : z + 5, y : y + 8, x : x + 8] = i
    group = zarr.open_group(folder / "cells.zarr", mode="w", zarr_format=2)
    labels = group.create_group("labels")
    cells = labels.create_group("cells")
    labels.attrs["labels"] = ["cells"]
    for where, array in ((group, rng.integers(0, 99, label.shape) + 99 * (label > 0)),
                         (cells, label)):  # fmt: skip
        where.create_array("0", shape=label.shape, chunks=(8, 32, 32), dtype="u2")[...] = array
        where.attrs["multiscales"] = [{
            "version": "0.4",
            "axes": [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"],
            "datasets": [{
                "path": "0",
                "coordinateTransformations": [{"type": "scale", "scale": [0.2, 0.1, 0.1]}],
            }],
        }]  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def s3(data: Path) -> Iterator[Any]:
    with s3_served() as (endpoint, client):
        put(client, data / "cells.zarr", "em/cells.zarr")
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        yield client
        del os.environ["AWS_ENDPOINT_URL"]


def config(root: object, out: str) -> str:
    return (
        f"data: {{root: {root}}}\nplan: {{patch_size: [8, 16, 16], memory: 500MiB}}\n"
        f"patching: {{name: random, patches_per_case: 12}}\noutput: {{dir: {out}}}\n"
    )


def voxels(out: Path, split: str) -> dict[str, bytes]:
    """What is trained on; the files themselves bear the number of their run."""
    group = zarr.open_group(out / "patches" / f"{split}.zarr", mode="r")
    return {
        name: np.asarray(array[...]).tobytes() for name, array in group.arrays() if name != "units"
    }


def test_every_command_takes_a_url_as_it_takes_a_folder(
    data: Path, s3: Any, tmp_path: Path
) -> None:
    url = "s3://cells/em/cells.zarr"
    succeed("init", url, "-o", "a.yaml", cwd=tmp_path)
    assert f"root: {url}" in (tmp_path / "a.yaml").read_text()
    (tmp_path / "remote.yaml").write_text(config(url, "remote"))
    (tmp_path / "local.yaml").write_text(config(data / "cells.zarr", "local"))
    assert "1 x 24 x 64 x 64" in succeed("check", "a.yaml", cwd=tmp_path)
    assert "1 x 24 x 64 x 64" in succeed("check", url, cwd=tmp_path)
    facts = [
        json.loads(succeed("fingerprint", f"{name}.yaml", "--json", cwd=tmp_path))
        for name in ("remote", "local")
    ]
    assert facts[0] == facts[1]
    for name in ("remote", "local"):
        succeed("prepare", f"{name}.yaml", cwd=tmp_path)
    for split in ("train", "val"):
        there = voxels(tmp_path / "remote", split)
        assert there == voxels(tmp_path / "local", split)
        assert any(there["label"])
    again = run("prepare", "remote.yaml", cwd=tmp_path)
    assert (again.returncode, "is complete already" in again.stderr) == (0, True), again.stderr
    batch = next(iter(volprep.dataloader(tmp_path / "remote")))
    assert batch["image"].shape[2:] == (8, 16, 16)


def test_what_is_exchanged_in_the_store_is_made_anew(data: Path, s3: Any, tmp_path: Path) -> None:
    put(s3, data / "cells.zarr", "other/cells.zarr")
    (tmp_path / "a.yaml").write_text(config("s3://cells/other/cells.zarr", "out"))
    succeed("prepare", "a.yaml", cwd=tmp_path)
    old = (data / "cells.zarr/0/0.0.0").read_bytes()
    s3.put_object(Bucket="cells", Key="other/cells.zarr/0/0.0.1", Body=old)
    for flags in ((), ("--trust", "mtime")):
        done = run("prepare", "a.yaml", *flags, cwd=tmp_path)
        assert done.returncode == 6
        assert "inputs" in done.stderr or "changed" in done.stderr
    succeed("prepare", "a.yaml", "--overwrite", cwd=tmp_path)


@pytest.mark.slow
def test_a_run_over_a_failing_line_ends_with_the_place_and_goes_on_later(
    data: Path, tmp_path: Path
) -> None:
    failing = {"on": True}

    def fault(path: str) -> str | None:
        return "503" if failing["on"] and path.endswith("/0/2.1.1") else None

    with served(WebServer(data, fault)) as server:
        (tmp_path / "a.yaml").write_text(config(f"{server.url}/cells.zarr", "out"))
        done = run("prepare", "a.yaml", cwd=tmp_path)
        assert done.returncode == 4
        assert f"{server.url}/cells.zarr" in done.stderr
        assert "cannot be fetched" in done.stderr
        assert not (tmp_path / "out").exists()
        failing["on"] = False
        succeed("prepare", "a.yaml", cwd=tmp_path)


def test_labels_may_lie_elsewhere_than_their_image(data: Path, s3: Any, tmp_path: Path) -> None:
    key = f"{{image: {data / 'cells.zarr'}, image_key: '0', label: 's3://cells/em/cells.zarr'}}"
    (tmp_path / "a.yaml").write_text(f"data:\n  cases:\n    - {key}\n")
    assert "uint16" in succeed("check", "a.yaml", cwd=tmp_path)
    (tmp_path / "images.txt").write_text("s3://cells/em/cells.zarr/0\n")
    assert "24 x 64 x 64" in succeed("check", "images.txt", cwd=tmp_path)


def test_only_sets_are_written_to_a_url(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config(data / "cells.zarr", "https://host/out"))
    done = run("prepare", "a.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "a.yaml:4: output" in done.stderr
    assert "such as s3://BUCKET/NAME or gs://BUCKET/NAME" in done.stderr
    (tmp_path / "a.yaml").write_text(config(data / "cells.zarr", "out"))
    for command in (
        ("prepare", "a.yaml", "--out", "http://host/out"),
        ("init", data / "cells.zarr", "--out", "https://host/a.yaml"),
        ("bake-skeletons", "a.yaml", "--out", "s3://cells/out"),
    ):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 2, command
        assert "URL" in done.stderr or "s3://BUCKET/NAME" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml"]
