"""PyTorch Connectomics 1 takes an export's v1.yaml and trains a step; see accept_exports.py.

Its checkout (v1.0.0) is on the path; it is not on PyPI.
"""

from __future__ import annotations

import novision  # noqa: F401  before what imports torchvision

# isort: split
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import connectomics
import h5py
import numpy as np
import torch
from asking import Asking
from connectomics.config import load_cfg
from connectomics.data.augmentation import build_train_augmentor
from connectomics.data.dataset import build_dataloader, get_dataset
from connectomics.data.utils import readvol
from connectomics.engine.solver import build_optimizer
from connectomics.model import Criterion, build_model

ARGUMENTS = {
    "config_base": None, "config_file": "v1.yaml", "opts": [], "inference": False,
    "distributed": False,
}  # fmt: skip


def main() -> None:
    command = ["git", "-C", str(Path(connectomics.__file__).parent), "describe", "--tags"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    ask = Asking("", given=f"version 1 ({commit or 'commit unknown'})")
    os.chdir(ask.export)
    if ask.training["n_channels"] > 1:
        ask.same("no v1.yaml for more than one channel", Path("v1.yaml").exists(), False)
        ask.done()
        return
    config = load_cfg(SimpleNamespace(**ARGUMENTS), freeze=False)
    ask.asserted("its own config takes the YAML")
    config.SYSTEM.NUM_CPUS = 0
    ask.same("patch", list(config.MODEL.INPUT_SIZE), ask.training["patch_size"])
    ask.same("batch", config.SOLVER.SAMPLES_PER_BATCH, ask.training["batch_size"])
    volumes(ask, config)
    augment = build_train_augmentor(config)
    for side, mode in (("train", "train"), ("val", "val")):
        drawn = get_dataset(config, augment if mode == "train" else None, mode=mode)
        ask.same("no volume left out as too small", len(drawn.volume), len(ask.names(side)))
        cut = (ask.cases[name]["shape"] for name in names_of(config, side, "IMAGE_NAME"))
        for volume, label, shape in zip(drawn.volume, drawn.label, cut, strict=True):
            pads = config.DATASET.PAD_SIZE if mode == "train" else config.DATASET.VAL_PAD_SIZE
            ask.same("padding", volume.shape, [n + 2 * p for n, p in zip(shape, pads, strict=True)])
            ask.same("labels as long as images", label.shape, volume.shape)
    torch.manual_seed(0)
    batch = next(iter(build_dataloader(config, augment, "train")))
    size = (ask.training["batch_size"], 1, *ask.training["patch_size"])
    ask.same("batch as it is trained on", tuple(batch.out_input.shape), size)
    device = torch.device("cpu")
    model = build_model(config, device)
    optimiser = build_optimizer(config, model)
    criterion = Criterion(
        device, config.MODEL.TARGET_OPT, config.MODEL.LOSS_OPTION, config.MODEL.OUTPUT_ACT,
        config.MODEL.LOSS_WEIGHT,
    )  # fmt: skip
    loss, _ = criterion.evaluate(model(batch.out_input), batch.out_target_l, batch.out_weight_l)
    loss.backward()
    optimiser.step()
    ask.step(float(loss))
    ask.not_asserted("spacing, which version 1 does not ask for")
    ask.done()


def names_of(config: object, side: str, key: str) -> list[str]:
    joined = getattr(config.DATASET, key if side == "train" else f"VAL_{key}")
    return [Path(path).stem for path in joined.split("@")]


def volumes(ask: Asking, config: object) -> None:
    """What its own reader makes of the files."""
    for side, what in (("train", "training cases"), ("val", "validation cases")):
        names = names_of(config, side, "IMAGE_NAME")
        ask.same(what, sorted(names), ask.names(side))
        for name in names:
            ask.voxels(name, readvol(f"images/{name}.h5")[None])
            label = readvol(f"labels/{name}.h5")
            if ask.training["label_kind"] == "instances":
                ask.labels(name, label, table=ask.export / f"labels/{name}.ids.csv")
                ask.same("ids are exact in float32", label.astype(np.float32), label)
            else:
                ask.classes(name, label, ignore=0)
            if (ask.export / "masks").exists():
                where = tuple(np.transpose(ask.cases[name]["points"]))
                valid = readvol(f"masks/{name}.h5")[where] != 0
                ask.same("valid masks", valid, ask.cases[name]["valid"])
            with h5py.File(f"images/{name}.h5") as file:
                ask.same("the dataset main", list(file), ["main"])


if __name__ == "__main__":
    main()
