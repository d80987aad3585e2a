"""TorchIO makes subjects and batches of an export; see accept_exports.py."""

from __future__ import annotations

import numpy as np
import torchio as tio
from asking import Asking


def main() -> None:
    ask = Asking("torchio")
    subjects = ask.script("subjects")

    rule = ask.training["normalisation"]
    for side, what in (("train", "training cases"), ("val", "validation cases")):
        found = subjects.subjects(side, transform=None)
        ask.same(what, sorted(subject["name"] for subject in found), ask.names(side))
        for subject in found:
            name = subject["name"]
            ask.voxels(name, subject.image.numpy().transpose(0, 3, 2, 1))
            micrometres = 1000 * np.asarray(subject.image.spacing)[::-1]
            ask.near("spacing (in mm)", micrometres, ask.cases[name]["spacing"])
            ask.same("orientation", "".join(subject.image.orientation), "RAS")
            check = ask.labels if ask.training["label_kind"] == "instances" else ask.classes
            more = {"table": ask.export / f"labels/{name}.ids.csv"} if check == ask.labels else {}
            check(name, subject.label.numpy()[0].T, ignore=0, **more)
            if "mask" in subject:
                where = tuple(np.transpose(ask.cases[name]["points"]))
                mask = subject.mask.numpy()[0].T
                ask.same("valid masks", mask[where] != 0, ask.cases[name]["valid"])
            values = np.asarray(ask.cases[name]["image"], float)
            clipped = np.clip(values, *np.transpose(rule["clip"])) if rule["clip"] else values
            points = tuple(np.transpose(ask.cases[name]["points"])[::-1])
            theirs = subjects.normalised(subject.image.data).numpy()[(slice(None), *points)].T
            ask.near("normalised voxels", theirs, (clipped - rule["offset"]) / rule["scale"], 1e-3)
    batch = next(iter(subjects.batches("train")))
    size = (ask.training["batch_size"], ask.training["n_channels"], *ask.training["patch_size"])
    ask.same("patch and batch", batch["image"][tio.DATA].permute(0, 1, 4, 3, 2).shape, size)
    ask.not_asserted("no training step: TorchIO has no trainer")
    ask.done()


if __name__ == "__main__":
    main()
