"""StarDist trains a step on an export by the script in it; see accept_exports.py."""

from __future__ import annotations

import os

import numpy as np

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import stardist  # noqa: F401
import tifffile
from asking import Asking


def main() -> None:
    ask = Asking("stardist")
    train = ask.script("train")

    sides = {side: train.load(side) for side in ("train", "val")}
    rule = ask.training["normalisation"]
    for side, (images, labels) in sides.items():
        names = sorted(path.stem for path in (ask.export / side / "images").glob("*.tif"))
        ask.same(
            "training cases" if side == "train" else "validation cases", names, ask.names(side)
        )
        for name, image, label in zip(names, images, labels, strict=True):
            raw = tifffile.imread(ask.export / side / "images" / f"{name}.tif")
            raw = raw.reshape(*ask.cases[name]["shape"][:1], -1, *raw.shape[-2:])
            ask.voxels(name, raw.transpose(1, 0, 2, 3))
            table = ask.export / side / f"{name}.ids.csv"
            stored = tifffile.imread(ask.export / side / "masks" / f"{name}.tif")
            ask.labels(name, stored.reshape(ask.cases[name]["shape"]), table=table, ignore=-1)
            inside = tuple(slice(0, n) for n in stored.shape)
            ask.same("labels as it trains on them", label[inside], stored)
            beyond = label.copy()
            beyond[inside] = -1
            ask.same("nothing to learn beyond the image", (beyond == -1).all(), True)
            values = np.asarray(ask.cases[name]["image"], float)
            clipped = np.clip(values, *np.transpose(rule["clip"])) if rule["clip"] else values
            theirs = image[tuple(np.transpose(ask.cases[name]["points"])[-stored.ndim :])]
            ask.near("normalised voxels", theirs, (clipped - rule["offset"]) / rule["scale"], 1e-3)
    train.FACTS["steps_per_epoch"] = 1
    model = train.model()
    axes = 2 if ask.flat else 3
    ask.same("patch", model.config.train_patch_size, ask.training["patch_size"][-axes:])
    ask.same("batch", model.config.train_batch_size, ask.training["batch_size"])
    if not ask.flat:  # StarDist knows the spacing as ratios.
        spacing = np.asarray(ask.training["spacing"])
        ask.near("spacing (ratios)", model.config.anisotropy, spacing / spacing.min())
    history = model.train(*sides["train"], validation_data=sides["val"], epochs=1)
    ask.step(float(history.history["loss"][0]))
    ask.done()


if __name__ == "__main__":
    main()
