"""Cellpose loads the sections of an export by its own reader; see accept_exports.py."""

from __future__ import annotations

import novision  # noqa: F401  before cellpose, which imports torchvision

# isort: split
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from asking import Asking
from cellpose import io, train, vit


def main() -> None:
    ask = Asking("cellpose")
    folders = [str(ask.export / side) for side in ("train", "val")]
    found = io.load_train_test_data(*folders, image_filter="_img", mask_filter="_masks")
    for side, (images, labels, files) in zip(("train", "val"), (found[:3], found[3:]), strict=True):
        stacks: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
        for image, label, file in zip(images, labels, files, strict=True):
            match = re.fullmatch(r"(.*?)(?:_z(\d{4,}))?_img\.tif", Path(file).name)
            assert match is not None, file
            stacks.setdefault(match[1], {})[int(match[2] or 0)] = (image, label)
        what = "training cases" if side == "train" else "validation cases"
        ask.same(what, sorted(stacks), ask.names(side))
        for name, sections in stacks.items():
            volume = np.stack([sections[z][0] for z in sorted(sections)])
            volume = volume[None] if volume.ndim == 3 else volume.transpose(1, 0, 2, 3)
            ask.voxels(name, volume)
            table = ask.export / side / f"{name}.ids.csv"
            ask.labels(name, np.stack([sections[z][1] for z in sorted(sections)]), table=table)
    ask.not_asserted("spacing, patch and batch, which it does not take")
    step(ask, found)
    ask.done()


def step(ask: Asking, found: tuple[Any, ...]) -> None:
    """An epoch of one image by Cellpose's own training, from random weights."""
    images, labels, files, *held = found
    net = vit.CPSAM()
    # Two of its 24 layers: all of them, with what AdamW keeps, want some 5 GB.
    net.encoder.blocks = net.encoder.blocks[:2]
    with tempfile.TemporaryDirectory() as folder:
        _, losses, _ = train.train_seg(
            net, images, labels, train_files=files, test_data=held[0], test_labels=held[1],
            test_files=held[2], n_epochs=1, nimg_per_epoch=1, nimg_test_per_epoch=1,
            min_train_masks=1, save_path=folder,
        )  # fmt: skip
    ask.step(float(losses[0]))
    ask.not_asserted("its own weights, which are downloaded: the step began at random ones")


if __name__ == "__main__":
    main()
