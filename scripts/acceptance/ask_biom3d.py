"""biom3d builds its training of an export's config and trains a step; see accept_exports.py."""

from __future__ import annotations

import os

import numpy as np
import torch
from asking import Asking
from biom3d.builder import Builder
from biom3d.utils import load_python_config


def main() -> None:
    ask, training = Asking("biom3d"), None
    training = ask.training
    os.chdir(ask.export.parent)
    config = load_python_config(str(ask.export / "config.py"))
    ask.same("patch", config.PATCH_SIZE, training["patch_size"])
    ask.same("batch", config.BATCH_SIZE, training["batch_size"])
    for part in (config.TRAIN_DATALOADER_KWARGS, config.VAL_DATALOADER_KWARGS):
        part["num_workers"], part["pin_memory"] = 0, False
    builder = Builder(config=config)
    sides = {"train": builder.train_dataset, "val": builder.val_dataset}
    rule = training["normalisation"]
    values = training["class_values"]
    first = int(values is not None and 0 not in values)
    for side, dataset in sides.items():
        what = "training cases" if side == "train" else "validation cases"
        ask.same(
            what, sorted(name.removesuffix(".npy") for name in dataset.fnames), ask.names(side)
        )
        paths = zip(dataset.fnames, dataset.handler.images, dataset.handler.masks, strict=True)
        for file, image_path, mask_path in paths:
            name = file.removesuffix(".npy")
            case = ask.cases[name]
            image, _ = dataset.handler.load(image_path)
            ask.same("axes", image.shape, (training["n_channels"], *case["shape"]))
            points = tuple(np.transpose(case["points"]))
            found = np.asarray(case["image"], float)
            clipped = np.clip(found, *np.transpose(rule["clip"])) if rule["clip"] else found
            ours = (clipped - rule["offset"]) / rule["scale"]
            ask.near("normalised voxels", image[(slice(None), *points)].T, ours, 1e-4)
            ask.classes(name, dataset.handler.load(mask_path)[0][0], ignore=0, first=first)
    ask.not_asserted("spacing, which it reads for prediction alone")
    image, label = next(iter(builder.train_dataloader))
    size = (training["batch_size"], training["n_channels"], *training["patch_size"])
    ask.same("batch as it is trained on", image.shape, size)
    loss = builder.loss_fn(builder.model(image.float()), label)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(builder.model.parameters(), 12)
    builder.optim.step()
    ask.step(float(loss))
    ask.done()


if __name__ == "__main__":
    main()
