"""train.yaml: what it suggests, and that a network can be trained from it alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from volprep import pipeline
from volprep.autoconfig import make_plan, training_recipe
from volprep.config import Config, load_training_config
from volprep.loader import PatchLoader, PlannedUNet, dataloader

SCRIPTS = Path(__file__).parents[1] / "scripts"
STRIDES = [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)]


def test_deep_supervision_is_nnunets() -> None:
    recipe = training_recipe("classes", STRIDES, class_names=["background", "cell"])
    assert recipe.supervised == [(1, 1, 1), (1, 2, 2), (2, 4, 4)]
    assert recipe.weights == pytest.approx([2 / 3, 1 / 3, 0])
    assert recipe.channels == ["background", "cell"]
    assert recipe.loss == {"name": "dice_ce", "batch_dice": True}
    assert recipe.optimiser["learning_rate"] == 0.01


@pytest.mark.parametrize("stages", [1, 2])
def test_a_network_of_few_stages_is_supervised_at_the_full_resolution(stages: int) -> None:
    recipe = training_recipe("classes", STRIDES[:stages])
    assert (recipe.supervised, recipe.weights) == ([(1, 1, 1)], [1])


@pytest.mark.parametrize(
    ("background", "spacing", "targets"),
    [
        (0.8, (0.3, 0.3, 0.3), ["binary", {"boundary": {"in_plane": False}}]),
        (0.8, (0.05, 0.004, 0.004), ["binary", {"boundary": {"in_plane": True}}]),
        (0.0, (0.01, 0.01, 0.01), ["affinities"]),
    ],
)
def test_targets_of_instances_follow_their_background_and_sections(
    background: float, spacing: Any, targets: list[Any]
) -> None:
    recipe = training_recipe("instances", STRIDES, background=background, spacing=spacing)
    assert recipe.targets == targets
    assert recipe.loss is not None
    assert recipe.loss["name"] == "dice_bce"


def a_set(folder: Path, kind: str, **sections: Any) -> Path:
    """A patch set of bright boxes, with classes or instances."""
    rng = np.random.default_rng(0)
    for what in ("images", "labels"):
        (folder / what).mkdir()
    for n in range(3):
        label = np.zeros((16, 32, 32), np.uint16)
        label[4:12, 4:14, 4:14], label[4:12, 18:28, 18:28] = 40, 7
        image = rng.normal(100, 5, label.shape) + 60 * (label > 0) + 60 * (label == 40)
        np.save(folder / "images" / f"c{n}.npy", image.astype(np.uint16))
        np.save(folder / "labels" / f"c{n}.npy", label)
    config = {
        "data": {"root": folder, "label_kind": kind, "spacing": (0.4, 0.2, 0.2)},
        "plan": {"patch_size": (8, 16, 16), "batch_size": 2},
        "augment": [],
        "epoch": {"steps": 9},
        "output": {"dir": folder / "out"},
        **sections,
    }
    return pipeline.prepare(Config.model_validate(config)).path


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_a_network_trains_from_train_yaml_alone(tmp_path: Path, kind: str) -> None:
    path = a_set(tmp_path, kind)
    training = load_training_config(path / "train.yaml")
    assert training.steps_per_epoch == len(dataloader(path)) == 9
    assert len(training.features) == len(training.strides)
    if kind == "classes":
        assert training.output_channels == ["background", "class 7", "class 40"]
        assert sum(training.class_frequencies or ()) == pytest.approx(1)
    else:
        assert training.output_channels == ["binary", "boundary"]
    run = subprocess.run(
        [sys.executable, SCRIPTS / "train_from_config.py", path, "--epochs", "1", "--steps", "25",
         "--features", "0.125"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("epoch 0: loss")


@pytest.mark.parametrize("epochs", [0, 3])
def test_augmentation_warms_up_as_train_yaml_says(tmp_path: Path, epochs: int) -> None:
    epoch = {"steps": 9, "augment_warm_up": epochs}
    path = a_set(tmp_path, "instances", augment=["flip"], epoch=epoch)
    assert load_training_config(path / "train.yaml").augment_warm_up == epochs
    loader = dataloader(path)
    assert isinstance(loader, PatchLoader)
    assert loader.source.warm_up == epochs * 9 * 2
    assert dataloader(path, augment=False).source.warm_up == 0
    assert dataloader(path, warm_up=5).source.warm_up == 5


def test_the_script_that_trains_is_short() -> None:
    lines = (SCRIPTS / "train_from_config.py").read_text().splitlines()
    assert len(lines) < 120


def test_the_planned_network_has_the_plans_shape() -> None:
    plan = make_plan((16, 64, 64), spacing=(3, 1, 1), memory=2**28, n_channels=2, n_classes=3)
    network = PlannedUNet(
        strides=plan.strides, kernels=plan.kernel_sizes, features=plan.features,
        n_channels=2, n_outputs=3,
    )  # fmt: skip
    with torch.no_grad():
        scores = network(torch.zeros(1, 2, *plan.patch_size))
    assert tuple(scores.shape) == (1, 3, *plan.patch_size)


def test_a_step_is_measured() -> None:
    """In a process of its own, since one that has freed memory before takes it from there."""
    code = (
        "from dataclasses import asdict\nimport json\n"
        "from volprep.loader import PlannedUNet, measure_step\n"
        "network = PlannedUNet(strides=[(1, 1, 1), (2, 2, 2)], kernels=[(3, 3, 3)] * 2, "
        "features=[8, 16], n_channels=1, n_outputs=2)\n"
        "step = measure_step(network, (32, 32, 32), 2, n_channels=1, n_classes=2, "
        "precision='fp32', device='cpu')\n"
        "print(json.dumps(asdict(step)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    step = json.loads(done.stdout)
    # One feature map is 2 MiB, and the first stage alone keeps eight of them.
    assert 10 * 2**20 < step["bytes"] < 2**30
    assert (step["device"], step["seconds"] > 0) == ("CPU", True)


@pytest.mark.parametrize("as_json", [False, True])
def test_autoconfig_measures_beside_its_estimate(as_json: bool) -> None:
    command = [sys.executable, "-m", "volprep", "autoconfig", "--median", "16,16,16",
               "--memory", "60MiB", "--measure", *(["--json"] if as_json else [])]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    if as_json:
        assert json.loads(run.stdout)["measured"]["bytes"] > 0
    else:
        assert "measured on" in run.stdout
        assert "estimated" in run.stdout


def test_train_yaml_is_plain_yaml(tmp_path: Path) -> None:
    training = yaml.safe_load((a_set(tmp_path, "instances") / "train.yaml").read_text())
    assert training["deep_supervision"]["strides"][0] == [1, 1, 1]
    assert training["optimiser"]["momentum"] == 0.99


def planned(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volprep", "autoconfig", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("option", ["--channels", "--classes"])
def test_options_of_a_median_are_refused_with_data(tmp_path: Path, option: str) -> None:
    run = planned(tmp_path, option, 2)
    assert run.returncode == 2
    assert f"{option} goes with --median" in run.stderr


def test_a_spacing_is_used_with_a_folder_and_refused_with_a_config(tmp_path: Path) -> None:
    a_set(tmp_path, "instances")
    spaced = json.loads(planned(tmp_path / "images", "--spacing", "90,4,4 nm", "--json").stdout)
    assert spaced["spacing"] == pytest.approx([0.09, 0.004, 0.004])
    config = tmp_path / "c.yaml"
    config.write_text("data: {root: .}\n")
    run = planned(config, "--spacing", "1,1,1")
    assert (run.returncode, "write it into" in run.stderr) == (2, True)
