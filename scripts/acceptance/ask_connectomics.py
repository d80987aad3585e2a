"""PyTorch Connectomics takes an export's YAML and trains a step; see accept_exports.py.

Its checkout is on the path; it is not on PyPI.
"""

from __future__ import annotations

import novision  # noqa: F401  before what imports torchvision

# isort: split
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import connectomics
import numpy as np
import torch
from asking import Asking
from connectomics.data.io import read_volume
from connectomics.runtime.cli import setup_config
from connectomics.training.lightning.data_factory import create_datamodule
from connectomics.training.lightning.model import ConnectomicsModule


class Arguments(SimpleNamespace):
    """What its command line would have given: nothing but the config."""

    def __getattr__(self, _: str) -> None:
        return None


def main() -> None:
    command = ["git", "-C", str(Path(connectomics.__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    ask = Asking("", given=f"commit {commit or 'unknown'}")
    os.chdir(ask.export)
    config = setup_config(Arguments(config="connectomics.yaml", mode="train"))
    ask.asserted("its own config takes the YAML")
    ask.same("patch", list(config.data.dataloader.patch_size), ask.training["patch_size"])
    ask.same("batch", config.data.dataloader.batch_size, ask.training["batch_size"])
    instances = ask.training["label_kind"] == "instances"
    for side, what in (("train", "training cases"), ("val", "validation cases")):
        part = getattr(config.data, side)
        names = [Path(path).stem for path in part.image]
        ask.same(what, sorted(names), ask.names(side))
        for name, image, label in zip(names, part.image, part.label, strict=True):
            volume = read_volume(str(image))
            ask.voxels(name, volume[None] if volume.ndim == 3 else volume)
            if instances:
                table = ask.export / f"labels/{name}.ids.csv"
                ask.labels(name, read_volume(str(label)), table=table)
            else:
                ask.classes(name, read_volume(str(label)), ignore=0)
        for name, mask in zip(names, part.mask or [], strict=False):
            where = tuple(np.transpose(ask.cases[name]["points"]))
            valid = read_volume(str(mask))[where] != 0
            ask.same("valid masks", valid, ask.cases[name]["valid"])
        nanometres = 1000 * np.asarray(ask.training["spacing"])
        ask.near("spacing", list(part.resolution), nanometres)
    data = create_datamodule(config, mode="train")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    size = (ask.training["batch_size"], ask.training["n_channels"], *ask.training["patch_size"])
    ask.same("batch as it is trained on", tuple(batch["image"].shape), size)
    module = ConnectomicsModule(config)
    module.log = module.log_dict = lambda *_, **__: None
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4)
    loss = module.training_step(batch, 0)
    loss = loss["loss"] if isinstance(loss, dict) else loss
    loss.backward()
    optimiser.step()
    ask.step(float(loss))
    ask.not_asserted("version 1 and its YAML, which were not asked")
    ask.done()


if __name__ == "__main__":
    main()
