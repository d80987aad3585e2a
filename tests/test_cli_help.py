"""`explain`, `doctor-env` and `--set`: what helps before anything is run."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from volprep.augment import TRANSFORMS
from volprep.cli import app
from volprep.compute import machine
from volprep.config import every_key, load_config
from volprep.exports import TABLE as EXPORTS
from volprep.findings import TABLE
from volprep.loader.devices import Device
from volprep.pipeline import about, explain, parameters_of
from volprep.targets import TARGETS


def invoke(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_explain_tells_meaning_values_default_and_example() -> None:
    told = invoke("explain", "plan.patch_size").stdout
    meaning = "Voxels of a patch, (z, y, x)"
    for part in ("plan.patch_size", meaning, "null", "[32, 128, 128]", "--set"):
        assert part in told
    listed = invoke("explain").stdout
    for key in every_key():
        assert key.name in listed
    facts = json.loads(invoke("explain", "clip", "--json").stdout)
    assert facts[0]["key"] == "preprocess.clip"
    assert facts[0]["default"] == "auto"


def test_explain_knows_what_keys_take() -> None:
    for name in (*TRANSFORMS, *TARGETS, *TABLE):
        assert name in explain(name)
    assert "label-lossy" in explain("findings")
    assert "missing_section" in explain("augment")
    assert "p " in explain("augment.elastic")
    for name, row in EXPORTS.items():
        assert f"{name} " in explain("exports")
        assert row.expresses.split(",")[0] in explain("exports")


@pytest.mark.parametrize("kind", [*TRANSFORMS.values(), *TARGETS.values()], ids=lambda k: k.name)
def test_every_parameter_of_a_transform_or_target_is_explained(kind: type) -> None:
    assert about(kind)
    for parameter in parameters_of(kind):
        assert parameter.meaning, f"{kind.__name__}.{parameter.name}"


def test_a_name_that_is_nearly_right_is_helped() -> None:
    for wrong, right in (("patchsize", "plan.patch_size"), ("elastik", "elastic")):
        done = invoke("explain", wrong)
        assert done.exit_code == 2
        assert f"did you mean {right}?" in done.stderr


def test_doctor_env_tells_versions_sizes_and_missing_extras() -> None:
    told = invoke("doctor-env")
    assert told.exit_code == 0
    for part in ("volprep", "Python", "cores", "memory", "disk", "GPU", "numpy", "extra"):
        assert part in told.stdout
    facts = json.loads(invoke("doctor-env", "--json").stdout)
    assert facts["machine"]["usable_cores"] >= 1
    for extra in facts["extras"].values():
        assert extra["complete"] == (None not in extra["packages"].values())
        assert "pip install" in extra["install"]


def test_limits_of_control_groups_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "job.slice"
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    (tmp_path / "memory.max").write_text(f"{3 * 2**20}\n")
    (group / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(machine, "_own_groups", lambda: iter([group, tmp_path]))
    found = machine.read_machine(tmp_path)
    assert found.memory_limit == 3 * 2**20
    assert found.core_share == 1.5
    (group / "memory.limit_in_bytes").write_text("5000\n")
    assert machine.memory_limit() == 5000


@pytest.mark.parametrize(
    ("devices", "memory", "reason"),
    [
        ([], "8GiB", "no CUDA device here"),
        ([("Apple GPU (mps)", None)], "8GiB", "no CUDA device here"),
        ([("RTX", 11_811_160_064)], "11GiB", "this machine's RTX"),
        ([("big", 85_017_624_576), ("small", 25_300_000_000)], "23.5GiB", "2 devices, small"),
    ],
    ids=["none", "mps", "one", "two"],
)
def test_init_plans_for_the_device_at_hand(
    devices: list[Any], memory: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuple(Device(*each) for each in devices)
    monkeypatch.setattr("volprep.loader.torch_devices", lambda: found)
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw/a.tif", np.zeros((8, 32, 32), np.uint8))
    assert invoke("init", tmp_path / "raw", "-o", tmp_path / "c.yaml").exit_code == 0
    (line,) = [x for x in (tmp_path / "c.yaml").read_text().splitlines() if "  memory:" in x]
    assert line.startswith(f"  memory: {memory}  # ")
    assert reason in line
    assert load_config(tmp_path / "c.yaml").plan.memory == float(memory[:-3]) * 2**30


def takes_a_config(command: Any) -> bool:
    names = inspect.signature(command.callback).parameters
    return "config" in names or ("source" in names and command.callback.__name__ != "tiles_json")


@pytest.mark.parametrize(
    "command", [c for c in app.registered_commands if takes_a_config(c)],
    ids=lambda c: c.callback.__name__,
)  # fmt: skip
def test_every_command_that_takes_a_config_takes_set(command: Any) -> None:
    assert "changes" in inspect.signature(command.callback).parameters


def test_set_wins_over_the_file_and_its_mistakes_are_told(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw/a.tif", np.zeros((8, 32, 32), np.uint8))
    (tmp_path / "c.yaml").write_text("data: {root: raw}\nplan: {memory: 2GiB}\n")
    shown = json.loads(
        invoke("autoconfig", tmp_path / "c.yaml", "--set", "plan.memory=1GiB", "--json").stdout
    )
    assert shown["memory_budget"] == 2**30
    shown = json.loads(
        invoke("autoconfig", tmp_path / "raw", "--set", "plan.max_batch=3", "--json").stdout
    )
    assert shown["batch_size"] <= 3
    done = invoke("check", tmp_path / "c.yaml", "--set", "plan.memry=1")
    assert done.exit_code == 2
    assert "--set: plan.memry: unknown key; did you mean memory?" in done.stderr


def test_explain_of_a_key_loads_no_arrays() -> None:
    code = (
        "import sys; from volprep.config import every_key, explain_key\n"
        "[explain_key(key) for key in every_key()]\n"
        "print([m for m in ('numpy', 'torch', 'numba') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
