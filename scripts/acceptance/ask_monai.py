"""MONAI loads an export by its lists and trains a step on it; see accept_exports.py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from asking import Asking
from monai.apps.auto3dseg import DataAnalyzer
from monai.auto3dseg import datafold_read
from monai.data import DataLoader, Dataset, load_decathlon_datalist
from monai.losses import DiceCELoss
from monai.transforms import LoadImage


def main() -> None:
    ask = Asking("monai")
    transforms, train = ask.script("transforms"), ask.script("train")

    def name_of(path: str) -> str:
        return os.path.basename(path).removesuffix(".nii.gz")

    load, rule = (
        LoadImage(image_only=True, ensure_channel_first=True),
        ask.training["normalisation"],
    )
    for side, key in (("train", "training"), ("val", "validation")):
        items = load_decathlon_datalist(str(ask.export / "dataset.json"), True, key)
        what = f"{'training' if side == 'train' else 'validation'} cases"
        ask.same(what, sorted(name_of(item["image"]) for item in items), ask.names(side))
        for item in items:
            name = name_of(item["image"])
            image, label = load(item["image"]), load(item["label"])
            ask.voxels(name, np.asarray(image).transpose(0, 3, 2, 1))
            ask.near("spacing", np.asarray(image.pixdim)[::-1], ask.cases[name]["spacing"])
            check = ask.labels if ask.training["label_kind"] == "instances" else ask.classes
            more = {"table": ask.export / f"labels/{name}.ids.csv"} if check == ask.labels else {}
            check(name, np.asarray(label)[0].T, ignore=0, **more)
            if "mask" in item:
                where = tuple(np.transpose(ask.cases[name]["points"]))
                mask = np.asarray(load(item["mask"]))[0].T
                ask.same("valid masks", mask[where] != 0, ask.cases[name]["valid"])
            values = np.asarray(ask.cases[name]["image"], float)
            clipped = np.clip(values, *np.transpose(rule["clip"])) if rule["clip"] else values
            whole = transforms.transforms(False)(item)["image"]
            points = tuple(np.transpose(ask.cases[name]["points"])[::-1])
            theirs = np.asarray(whole)[(slice(None), *points)].T
            ask.near("normalised voxels", theirs, (clipped - rule["offset"]) / rule["scale"], 1e-3)
    held = datafold_read(str(ask.export / "datalist.json"), str(ask.export), fold=0)
    for side, items in zip(("train", "val"), held, strict=True):
        names = sorted(name_of(item["image"]) for item in items)
        ask.same(f"Auto3DSeg's {side} cases", names, ask.names(side))
    analyse(ask)

    items = transforms.cases("training") * 4
    dataset = Dataset(items, transforms.transforms(True))
    loader = DataLoader(dataset, batch_size=transforms.BATCH, shuffle=True)
    batch = next(iter(loader))
    size = (ask.training["batch_size"], ask.training["n_channels"], *ask.training["patch_size"])
    ask.same("patch and batch", batch["image"].permute(0, 1, 4, 3, 2).shape, size)
    torch.manual_seed(0)
    net, loss = train.network(), DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.SGD(net.parameters(), 1e-2)
    value = train.loss_of(net, loss, batch, torch.device("cpu"))
    value.backward()
    optimiser.step()
    ask.step(float(value))
    ask.done()


def analyse(ask: Asking) -> None:
    """Auto3DSeg's analyzer reads every case, and finds our shapes, spacing and labels."""
    analyzer = DataAnalyzer(
        str(ask.export / "datalist.json"), str(ask.export), device="cpu", worker=0,
        output_path=str(ask.export.with_name(f"{ask.export.name}-analyzed.yaml")),
    )  # fmt: skip
    found = analyzer.get_all_case_stats()["stats_by_cases"]
    ask.same("the cases of Auto3DSeg's analyzer", len(found), len(ask.cases))
    for case in found:
        name = Path(case["image_filepath"]).name.removesuffix(".nii.gz")
        wanted, image = ask.cases[name], case["image_stats"]
        ask.same("its shapes", np.reshape(image["shape"], (-1, 3))[0][::-1], wanted["shape"])
        ask.near("its spacing", np.reshape(image["spacing"], (-1, 3))[0][::-1], wanted["spacing"])


if __name__ == "__main__":
    main()
