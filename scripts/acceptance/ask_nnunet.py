"""nnU-Net reads, plans, preprocesses and trains a step on an export; see accept_exports.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

EXPORT = Path(sys.argv[1])
PRE, RESULTS = (EXPORT.parents[1] / name for name in ("preprocessed", "results"))
os.environ |= {
    "nnUNet_raw": str(EXPORT.parent),
    "nnUNet_preprocessed": str(PRE),
    "nnUNet_results": str(RESULTS),
    "nnUNet_n_proc_DA": "0",  # augmentation in this process; planning wants at least 1
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def follow_the_readme() -> None:
    """Every command of the README but the last, which would train for days."""
    lines = [line[4:] for line in (EXPORT / "README.md").read_text().splitlines()]
    lines = [line for line in lines if re.match(r"nnUNetv2_|cp ", line)]
    for line in lines[:-1]:
        done = subprocess.run(
            ["bash", "-c", line], env={**os.environ, "nnUNet_n_proc_DA": "1"},
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main() -> None:
    from asking import Asking

    ask = Asking("nnunetv2")
    for folder in (PRE, RESULTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    follow_the_readme()
    ask.asserted("its own integrity check")

    import numpy as np
    import torch
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    reader = NaturalImage2DIO() if ask.flat else Tiff3DIO()
    described = json.loads((EXPORT / "dataset.json").read_text())
    names = {v: k for k, v in described["labels"].items()}
    ignore = described["labels"].get("ignore", 0)
    wanted = ask.training["class_names"] or ["background", "object"]
    ask.same("names of classes", [names[n] for n in range(len(wanted))], wanted)
    for name, case in ask.cases.items():
        files = [
            str(EXPORT / f"imagesTr/{name}_{c:04}.tif") for c in range(ask.training["n_channels"])
        ]
        image, properties = reader.read_images(files)
        ask.voxels(name, image)
        if not ask.flat:
            ask.near("spacing", properties["spacing"], case["spacing"])
        label, _ = reader.read_seg(str(EXPORT / f"labelsTr/{name}.tif"))
        ask.classes(name, label[0], ignore=ignore)

    plans = json.loads((PRE / EXPORT.name / "volprepPlans.json").read_text())
    plans["continue_training"] = False
    # Planes of volumes are nnU-Net's configuration 2d, too.
    dims = 2 if ask.training["patch_size"][0] == 1 else 3
    configuration = "2d" if dims == 2 else "3d_fullres"
    trainer = nnUNetTrainer(plans, configuration, 0, described, device=torch.device("cpu"))
    trainer.initialize()
    train, val = trainer.do_split()
    ask.same("training cases", sorted(train), ask.names("train"))
    ask.same("validation cases", sorted(val), ask.names("val"))
    patch = ask.training["patch_size"][-dims:]
    ask.same("patch", trainer.configuration_manager.patch_size, patch)
    ask.same("batch", trainer.batch_size, ask.training["batch_size"])

    rule = ask.training["normalisation"]
    for dataset in trainer.get_tr_and_val_datasets():
        for name in dataset.identifiers:
            data, _, _, properties = dataset.load_case(name)
            first = [low for low, _ in properties["bbox_used_for_cropping"]]
            points = np.asarray(ask.cases[name]["points"]) - first
            inside = ((points >= 0) & (points < data.shape[1:])).all(axis=1)
            values = np.asarray(ask.cases[name]["image"], float)[inside]
            clipped = np.clip(values, *np.transpose(rule["clip"])) if rule["clip"] else values
            ours = (clipped - rule["offset"]) / rule["scale"]
            theirs = np.asarray(data)[(slice(None), *points[inside].T)].T
            ask.near("normalised voxels", theirs, ours, 2e-3)

    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    shape = (ask.training["batch_size"], ask.training["n_channels"], *patch)
    ask.same("batch as it is trained on", tuple(batch["data"].shape), shape)
    ask.step(float(trainer.train_step(batch)["loss"]))
    ask.done()


if __name__ == "__main__":
    main()
