"""SKOOTS loads an export, crops and bakes, and trains a step; see accept_exports.py."""

from __future__ import annotations

import novision  # noqa: F401  before SKOOTS, which imports torchvision

# isort: split
import os
from pathlib import Path

import numpy as np
import torch
from asking import Asking
from skoots.config import get_cfg_defaults
from skoots.lib.utils import cfg_to_bism_model
from skoots.train.dataloader import dataset, skeleton_colate


def main() -> None:
    ask = Asking("skoots")
    os.chdir(ask.export)
    config = get_cfg_defaults()
    config.merge_from_file("skoots.yaml")
    ask.asserted("its own config takes the YAML")
    crop = config.AUGMENTATION
    size = [crop.CROP_DEPTH, crop.CROP_WIDTH, crop.CROP_HEIGHT]
    ask.same("patch", size, ask.training["patch_size"])
    ask.same("batch", config.TRAIN.TRAIN_BATCH_SIZE, ask.training["batch_size"])
    for folder, what in (("train", "training cases"), ("val", "validation cases")):
        loaded = dataset(folder)
        names = [Path(file).name.removesuffix(".labels.tif") for file in loaded.files]
        ask.same(what, sorted(names), ask.names(folder))
        for name, image, mask, skeletons in zip(
            names, loaded.image, loaded.masks, loaded.skeletons, strict=True
        ):
            case = ask.cases[name]
            # SKOOTS has (C, rows, columns, sections).
            volume = image.numpy().transpose(0, 3, 1, 2)
            count = ask.training["n_channels"]
            ask.same("axes", volume.shape, (1 if count == 1 else 3, *case["shape"]))
            volume = volume[:count]
            found = volume[(slice(None), *np.transpose(case["points"]))].T
            for theirs, ours in zip(found.T, np.transpose(case["image"]), strict=True):
                order = np.argsort(ours)
                ask.same(
                    "voxels in their order", (np.diff(theirs[order].astype(int)) >= 0).all(), True
                )
            table = ask.export / folder / f"{name}.ids.csv"
            ask.labels(name, mask[0].numpy().transpose(2, 0, 1), table=table)
            for number, points in skeletons.items():
                rows, columns, sections = points.round().long().T
                inside = mask[0][rows, columns, sections] == number
                ask.same("skeletons lie in their objects", bool(inside.all()), True)
    step(ask, config)
    ask.not_asserted(
        "the step ran on a CPU, where its baking wants masks without their channel axis"
    )
    ask.not_asserted("voxels exactly, where more than 8 bits became 8")
    ask.not_asserted("spacing, of which it knows ratios alone")
    ask.done()


def step(ask: Asking, config: object) -> None:
    """A batch by SKOOTS' own transforms, and a step of its network on the CPU."""
    import skoots.train.loss
    from skoots.lib.embedding_to_prob import baked_embed_to_prob
    from skoots.lib.vector_to_embedding import vector_to_embedding
    from skoots.train import merged_transform

    # On a CPU its baking fails on the channel axis that its own transform hands over.
    bake = merged_transform.bake_skeleton
    merged_transform.bake_skeleton = lambda masks, *rest, **how: bake(masks[0], *rest, **how)
    torch.manual_seed(0)
    augment = merged_transform.TransformFromCfg(cfg=config, device="cpu")
    augment = augment.set_dataset_std(255).set_dataset_mean(0)
    loaded = dataset("train", transforms=augment)
    with torch.no_grad():
        batch = skeleton_colate([loaded[0] for _ in range(config.TRAIN.TRAIN_BATCH_SIZE)])
    images, masks, _, skeleton, baked = batch
    z, y, x = ask.training["patch_size"]
    found = tuple(images.shape[2:])
    limits = zip(found, (y, x, z), strict=True)
    ask.same("crop within the patch", all(a <= b for a, b in limits), True)
    model = cfg_to_bism_model(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    output = model(images.float())
    probability, vector, skeletons = output[:, [-1]], output[:, 0:3], output[:, [-2]]
    scale = torch.tensor(config.SKOOTS.VECTOR_SCALING)
    embedding = vector_to_embedding(scale, vector)
    out = baked_embed_to_prob(embedding, baked, torch.tensor([20.0, 20.0, 20.0]))
    tversky = skoots.train.loss.tversky(0.25, 0.75, 1e-8)
    loss = tversky(out, masks.gt(0).float()) + tversky(probability.sigmoid(), masks.gt(0).float())
    loss = loss + tversky(skeletons.sigmoid(), skeleton.gt(0).float())
    loss.backward()
    optimiser.step()
    ask.step(float(loss))


if __name__ == "__main__":
    main()
