"""The commands as a person runs them: real processes, exit codes, streams."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile


def run(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volprep", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def succeed(*args: object, cwd: Path | None = None) -> str:
    done = run(*args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_json(*args: object, cwd: Path | None = None) -> Any:
    return json.loads(succeed(*args, "--json", cwd=cwd))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw data µ")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(3):
        rng = np.random.default_rng(number)
        label = np.zeros((16, 48, 48), np.uint16)
        for i in range(1, 12 + number):
            z, y, x = (int(rng.integers(0, n - 4)) for n in label.shape)
            label[z : z + 4, y : y + 7, x : x + 7] = i
        image = (rng.integers(0, 99, label.shape) + 100 * (label > 0)).astype(np.uint8)
        tifffile.imwrite(folder / f"images/n {number}.tif", image, metadata={"axes": "ZYX"})
        tifffile.imwrite(folder / f"labels/n {number}.tif", label, metadata={"axes": "ZYX"})
    return folder


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    succeed("init", data, "-o", "c.yaml", cwd=work)
    text = (work / "c.yaml").read_text()
    (work / "c.yaml").write_text(re.sub(r"memory: \S+", "memory: 700MiB", text))
    done = run("prepare", "c.yaml", cwd=work)
    assert done.returncode == 0, done.stderr
    return work


def test_version_and_help() -> None:
    assert succeed("--version").startswith("volprep 0.")
    text = succeed("--help")
    for command in (
        "init",
        "check",
        "fingerprint",
        "autoconfig",
        "prepare",
        "inspect",
        "verify",
        "repair",
        "units",
        "work",
        "schema",
    ):
        assert command in text
        assert succeed(command, "--help")


def test_init_writes_a_yaml_that_says_what_it_found(prepared: Path) -> None:
    text = (prepared / "c.yaml").read_text()
    assert "3 cases" in text
    assert "spacing" in text
    assert "label_kind: instances" in text
    done = run("init", prepared, "-o", prepared / "c.yaml")
    assert done.returncode == 2
    assert "--force" in done.stderr


def test_prepare_twice_is_done_already(prepared: Path) -> None:
    done = run("prepare", "c.yaml", cwd=prepared)
    assert done.returncode == 0
    assert "patch size" in done.stdout


def test_stdout_holds_results_and_stderr_the_rest(prepared: Path) -> None:
    shown = as_json("inspect", prepared / "c_patches", "--verify")
    assert shown["training"]["n_patches"]["train"] > 0
    assert shown["damaged"] == []
    assert {row["split"] for row in shown["cases"]} == {"train", "val"}


def test_inspect_finds_damage(prepared: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(prepared / "c_patches", copy)
    shard = next((copy / "patches/train.zarr/image/c").rglob("0/0/0/0/0"), None) or next(
        p for p in (copy / "patches/train.zarr/image/c").rglob("*") if p.is_file()
    )
    data = bytearray(shard.read_bytes())
    data[20] ^= 255
    shard.write_bytes(data)
    done = run("inspect", copy, "--verify")
    assert done.returncode == 6
    assert "changed: patches 0 to" in done.stderr
    assert "volprep repair" in done.stderr
    assert run("inspect", tmp_path / "none").returncode == 6


def test_check_says_that_no_spacing_is_stored(data: Path) -> None:
    report = as_json("check", data)
    assert len(report["cases"]) == 3
    assert any("spacing" in finding["message"] for finding in report["findings"])
    assert "unknown" in succeed("check", data)


def test_autoconfig_needs_no_data() -> None:
    plan = as_json(
        "autoconfig", "--median", "96,512,512", "--spacing", "0.3,0.1,0.1", "--memory", "8GiB"
    )
    assert all(p % 2**n == 0 for p, n in zip(plan["patch_size"], plan["pool"], strict=True))
    golden = as_json("autoconfig", "--median", "96,512,512", "--planner", "biom3d")
    assert golden["patch_size"] == [40, 224, 224]


def test_autoconfig_and_fingerprint_take_folders_and_configs(data: Path, prepared: Path) -> None:
    assert as_json("autoconfig", data)["median_shape"] == [16, 48, 48]
    assert as_json("autoconfig", prepared / "c.yaml")["memory_budget"] == 700 * 2**20
    for source in (data, prepared / "c.yaml"):
        assert as_json("fingerprint", source)["median_shape"] == [16, 48, 48]


def test_schema_is_json_schema() -> None:
    assert "properties" in json.loads(succeed("schema"))


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("data: {root: nowhere}\n", 3, ["nowhere"]),
        ("data: {root: .}\nplan: {memry: 1}\n", 2, ["bad.yaml:2", "plan.memry", "memory?"]),
        ("data: {root: .}\naugment: [fliip]\n", 2, ["fliip"]),
    ],
)
def test_mistakes_exit_with_the_code_of_their_family(
    tmp_path: Path, text: str, code: int, words: list[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = run("prepare", "bad.yaml", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert run("--debug", "prepare", "bad.yaml", cwd=tmp_path).stderr.count("Traceback") >= 1


def test_ctrl_c_exits_with_130_and_leaves_no_final_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"data: {{root: '{data}'}}\npatching: {{patches_per_case: 100000}}\n"
        "plan: {patch_size: [16, 48, 48], aug_patch_size: [16, 48, 48], batch_size: 2}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "volprep", "prepare", "c.yaml"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background has SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    partial = tmp_path / "patches.partial"
    deadline = time.monotonic() + 120
    while not list(partial.glob("patches/train.zarr/image/c/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (tmp_path / "patches").exists()
    assert partial.exists()


def test_one_of_something_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    from volprep.cli.console import stage

    for total, unit in ((1, "cases"), (1, "patches"), (2, "files")):
        with stage("work", total, unit):
            pass
    assert capsys.readouterr().err.split("\n")[:3] == [
        "work: 1 case",
        "work: 1 patch",
        "work: 2 files",
    ]
