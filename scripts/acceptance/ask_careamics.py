"""CAREamics validates an export's YAML, loads it and trains a step; see accept_exports.py."""

from __future__ import annotations

import novision  # noqa: F401  before CAREamics, which imports torchvision

# isort: split
import os
from pathlib import Path

from asking import Asking
from careamics import CAREamist
from careamics.lightning.data import CareamicsDataModule
from careamics.models import get_model_constraints


def main() -> None:
    ask = Asking("careamics")
    os.chdir(ask.export.parent)
    trainer = CAREamist(ask.export / "careamics.yaml", work_dir=ask.export.with_suffix(".work"))
    config = trainer.config
    ask.asserted("its own model validates the YAML")
    ask.same("batch", config.data_config.batch_size, ask.training["batch_size"])
    data = CareamicsDataModule(
        data_config=config.data_config,
        train_data=ask.export / "train",
        val_data=ask.export / "val",
        model_constraints=get_model_constraints(config.algorithm_config.model),
    )
    data.setup("fit")
    for side, dataset in (("train", data.train_dataset), ("val", data.val_dataset)):
        stacks = dataset.patch_constructor.input_extractor.image_stacks
        names = sorted(Path(stack.source).stem for stack in stacks)
        what = "training cases" if side == "train" else "validation cases"
        ask.same(what, names, ask.names(side))
        for stack in stacks:
            name = Path(stack.source).stem
            shape = ask.cases[name]["shape"]
            cut = shape[1:] if ask.flat else shape
            image = stack.extract_patch(0, None, coords=[0] * len(cut), patch_size=cut)
            ask.voxels(name, image.reshape(-1, *shape))
    rule = ask.training["normalisation"]
    ask.near("mean", config.data_config.normalization.input_means, rule["offset"])
    ask.near("deviation", config.data_config.normalization.input_stds, rule["scale"])
    batch = next(iter(data.train_dataloader()))
    patch = [size for size in config.data_config.patching.patch_size]
    ours = ask.training["patch_size"][-len(patch) :]
    # Of planes, or of what is thinner, its smallest patch is 8.
    within = all(a <= max(b, 8) for a, b in zip(patch, ours, strict=True))
    ask.same("patch within ours", within, True)
    first = batch[0] if isinstance(batch, (list, tuple)) else batch
    size = (ask.training["batch_size"], ask.training["n_channels"], *patch)
    ask.same("batch as it is trained on", tuple(getattr(first, "data", first).shape), size)
    short = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
    config.training_config.trainer_params = {**config.training_config.trainer_params, **short}
    trainer = CAREamist(config, work_dir=ask.export.with_suffix(".work"))
    trainer.trainer.fit(trainer.model, datamodule=data)
    metrics = trainer.trainer.callback_metrics
    ask.step(float(next(value for key, value in metrics.items() if "train_loss" in key)))
    ask.not_asserted("labels and spacing, of which it knows nothing")
    ask.not_asserted("our patch itself: its patches are square powers of 2")
    ask.done()


if __name__ == "__main__":
    main()
