"""What trains is the same, bit for bit, whatever is held out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from volprep import pipeline
from volprep.config import Config
from volprep.loader import PatchDataset
from volprep.pipeline.decide import decide, survey
from volprep.pipeline.inputs import chosen_cases
from volprep.pipeline.told import silent
from volprep.skeletons import read_skeletons, skeletonize, write_skeletons
from volprep.store import PatchStore

Array = npt.NDArray[Any]


def draw(seed: int, root: Path) -> tuple[Config, Array, Array]:
    """A volume with tubes that run through all of it, and a config; both drawn."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers((44, 60, 60), (64, 90, 90)))
    dtype = rng.choice([np.uint8, np.uint16, np.float32])
    image = (rng.random(shape) * 250).astype(dtype)
    label = np.zeros(shape, np.uint16)
    for axis in range(3):
        for _ in range(4):
            low = [int(rng.integers(0, n - 5)) for n in shape]
            tube = [slice(a, a + int(rng.integers(1, 5))) for a in low]
            tube[axis] = slice(None)
            label[tuple(tube)] = label.max() + 1
    spacing = rng.choice([0.1, 0.2, 0.5], 3).round(3).tolist()
    target = [None, None, (np.array(spacing) * rng.uniform(0.6, 1.8, 3)).round(3).tolist()]
    config = {
        "data": {"cases": [{"image": str(root / "image.npy"), "label": str(root / "label.npy"),
                            "spacing": spacing}]},
        "preprocess": {
            "target_spacing": target[int(rng.integers(3))] or "none",
            "order": int(rng.choice([1, 3])),
        },
        "plan": {"patch_size": [8, 12, 12], "batch_size": 2},
        "patching": {"name": str(rng.choice(["random", "stratified", "sequential"]))},
        "skeletons": {"enabled": True, "average": bool(rng.integers(2))},
        "augment": [["flip", "rotate"], ["flip", "rotate", "elastic"], []][int(rng.integers(3))],
        "split": {
            "kind": "blocks",
            "gap": [None, [0, 0, 0], [3, 3, 3]][int(rng.integers(3))],
            "folds": [None, 3][int(rng.integers(2))],
            "fold": int(rng.integers(3)) if rng.integers(2) else 0,
        },
        "output": {"dir": str(root / "out")},
        "compute": {"workers": 1},
        "seed": seed,
    }  # fmt: skip
    if config["split"]["folds"] is None:
        config["split"]["fold"] = 0
    config["output"]["store"] = str(rng.choice(["patches", "volumes"]))
    if rng.integers(2):
        config["augment"] += ["copy_paste"]
    return Config.model_validate(config), image, label


def held_out(config: Config) -> list[tuple[slice, ...]]:
    """The voxels of the file that are held out, those that are so in part included."""
    cases = chosen_cases(config)
    decision = decide(config, cases, survey(config, cases, silent))
    found = []
    for part in decision.splits.val:
        assert part.box is not None
        layout = decision.layouts[part.case]
        scale = [a / b for a, b in zip(layout.source[1:], layout.shape[1:], strict=True)]
        found.append(
            tuple(
                slice(math.floor(a * s), math.ceil(b * s))
                for a, b, s in zip(part.box.start, part.box.stop, scale, strict=True)
            )
        )
    return found


def training_half(store: PatchStore) -> dict[str, Any]:
    dataset = PatchDataset(store.path, "train", patch_size=None, normalise=False)
    shown = PatchDataset(store.path, "train", augment=True)
    skeletons = {p.name: p.read_bytes() for p in (store.path / "skeletons").glob("*.npz")}
    samples = [dataset[i] for i in range(len(dataset))]
    samples += [shown[epoch, i] for epoch in range(2) for i in range(min(20, len(shown)))]
    arrays = [
        {name: value.numpy().tobytes() for name, value in sample.items() if hasattr(value, "numpy")}
        for sample in samples
    ]
    training = store.manifest["training"]
    names = ("normalisation", "patch_size", "stored_patch_size", "n_patches", "spacing")
    return {
        "skeletons": skeletons,
        "samples": arrays,
        "places": [dataset.place(1, i) for i in range(len(dataset))],
        **{name: training[name] for name in names},
    }


def assert_apart(seed: int, root: Path) -> None:
    halves, places = [], []
    for run in ("one", "other"):
        folder = root / "data"
        folder.mkdir(exist_ok=True)
        config, image, label = draw(seed, folder)
        if run == "other":
            rng = np.random.default_rng(seed + 10_000)
            for held in places:
                image[held] = rng.random(image[held].shape) * 250
                label[held] = rng.integers(0, label.max() + 1, label[held].shape)
        np.save(folder / "image.npy", image)
        np.save(folder / "label.npy", label)
        places = held_out(config)
        output = config.output.model_copy(update={"dir": root / run})
        halves.append(training_half(pipeline.prepare(config.model_copy(update={"output": output}))))
    assert halves[0]["samples"]
    for name, value in halves[0].items():
        assert value == halves[1][name], name


@pytest.mark.parametrize("seed", range(3))
def test_no_held_out_voxel_shows_in_what_trains(tmp_path: Path, seed: int) -> None:
    assert_apart(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 50))
def test_no_held_out_voxel_shows_in_what_trains_of_many_configs(tmp_path: Path, seed: int) -> None:
    assert_apart(seed, tmp_path)


def test_skeletons_that_a_case_brings_stop_at_the_gap(tmp_path: Path) -> None:
    config, image, label = draw(3, tmp_path)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "label.npy", label)
    write_skeletons(skeletonize(label), tmp_path / "brought.npz")
    entry = config.data.cases[0].model_copy(update={"skeletons": tmp_path / "brought.npz"})
    data = config.data.model_copy(update={"cases": [entry]})
    plain = config.preprocess.model_copy(update={"target_spacing": "none"})
    store = pipeline.prepare(config.model_copy(update={"data": data, "preprocess": plain}))
    splits = json.loads((store.path / "splits.json").read_text())
    for side, folder in (("train", "."), ("val", "val")):
        (file,) = (store.path / "skeletons" / folder).glob("*.npz")
        points = read_skeletons(file).points
        boxes = [part["box"] for part in splits[side]]
        inside = [
            ((points >= np.array(start)) & (points < np.array(stop))).all(axis=1)
            for start, stop in boxes
        ]
        assert np.any(inside, axis=0).all()
