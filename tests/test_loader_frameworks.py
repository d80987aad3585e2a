"""The loader under the real Lightning and the real MONAI; skipped where these are not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from volprep import pipeline
from volprep.config import load_config
from volprep.loader import PatchDataset, PatchLoader, dataloader

pytestmark = pytest.mark.slow

STEPS, EPOCHS = 4, 3


@pytest.fixture(scope="module", params=["patches", "volumes"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for number in range(3):
        rng = np.random.default_rng(number)
        label = (rng.random((12, 48, 40)) > 0.7).astype(np.uint8)
        for name, array in (("images", label * 90 + 5), ("labels", label)):
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / "data" / name / f"c{number}.tif", array.astype(np.uint8))
    (folder / "c.yaml").write_text(
        "data: {root: data, spacing: [1, 1, 1], label_kind: classes}\naugment: [flip]\n"
        "plan: {patch_size: [4, 16, 16], batch_size: 2}\nepoch: {steps: 4}\n"
        f"output: {{dir: out, store: {request.param}}}\n"
    )
    pipeline.prepare(load_config(folder / "c.yaml"))
    return folder / "out"


class Model(torch.nn.Module):
    """One convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(image)
        return found


def places(batch: Any) -> list[tuple[int, ...]]:
    return [(int(c), *s) for c, s in zip(batch["case"], batch["start"].tolist(), strict=True)]


def expected(out: Path) -> list[list[tuple[int, ...]]]:
    loader = dataloader(out, "train", threads=1)
    return [[place for batch in loader for place in places(batch)] for _ in range(EPOCHS)]


def test_lightning_trains_from_the_loader_and_validates(made: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    seen: list[list[tuple[int, ...]]] = [[] for _ in range(EPOCHS)]
    validated = []

    class Training(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def training_step(self, batch: Any, index: int) -> Any:
            seen[self.current_epoch] += places(batch)
            return torch.nn.functional.cross_entropy(self.model(batch["image"]), batch["label"])

        def validation_step(self, batch: Any, index: int) -> None:
            validated.append(places(batch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=made.parent,
        num_sanity_val_steps=0,
    )  # fmt: skip
    training = Training()
    before = training.model.layer.weight.detach().clone()
    trainer.fit(training, dataloader(made, "train", threads=2), dataloader(made, "val", threads=2))
    assert seen == expected(made)
    assert len({tuple(epoch) for epoch in seen}) == EPOCHS
    assert sum(map(len, validated)) == EPOCHS * len(PatchDataset(made, "val"))
    assert not torch.equal(before, training.model.layer.weight)


def test_lightning_shuffles_the_data_set_itself_anew_in_every_epoch(made: Path) -> None:
    """With its own DataLoader and persistent workers: `set_epoch` reaches them."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    dataset = PatchDataset(made, "train", augment=True)
    images: list[dict[int, torch.Tensor]] = [{} for _ in range(EPOCHS)]

    class Training(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def on_train_epoch_start(self) -> None:
            dataset.set_epoch(self.current_epoch)

        def training_step(self, batch: Any, index: int) -> Any:
            for image, number in zip(batch["image"], batch["index"].tolist(), strict=True):
                images[self.current_epoch][number] = image.clone()
            return torch.nn.functional.cross_entropy(self.model(batch["image"]), batch["label"])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, shuffle=True, num_workers=1, persistent_workers=True,
        prefetch_factor=1,
    )  # fmt: skip
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=made.parent,
    )  # fmt: skip
    trainer.fit(Training(), loader)
    assert images[0].keys() == images[1].keys() == set(range(len(dataset)))
    same = sum(torch.equal(images[0][n], images[1][n]) for n in images[0])
    assert same < len(dataset) / 2


def test_monais_trainer_takes_the_loader_as_its_iterable(made: Path) -> None:
    pytest.importorskip("ignite", reason="pytorch-ignite is not installed")
    engines = pytest.importorskip("monai.engines", reason="monai is not installed")
    losses = pytest.importorskip("monai.losses", reason="monai is not installed")
    seen: list[tuple[int, ...]] = []

    def prepare(batch: Any, device: Any, non_blocking: bool, **_: Any) -> Any:
        seen.extend(places(batch))
        return batch["image"].to(device), batch["label"][:, None].to(device)

    model = Model()
    trainer = engines.SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=EPOCHS, epoch_length=STEPS,
        train_data_loader=dataloader(made, "train", threads=2), network=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
        loss_function=losses.DiceCELoss(to_onehot_y=True, softmax=True), prepare_batch=prepare,
    )  # fmt: skip
    trainer.run()
    assert seen == [place for epoch in expected(made) for place in epoch]


def test_monais_transforms_act_on_samples(made: Path) -> None:
    transforms = pytest.importorskip("monai.transforms", reason="monai is not installed")
    shift = transforms.Compose([transforms.ScaleIntensityRanged("image", -1, 1, 0, 2)])

    def act(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        found = shift({"image": torch.as_tensor(sample["image"])})
        return {**sample, "image": torch.as_tensor(found["image"])}

    dataset = PatchDataset(made, "train")
    plain = next(iter(PatchLoader(dataset, 2, threads=1)))["image"].clone()
    moved = next(iter(PatchLoader(dataset, 2, threads=2, transforms=act)))["image"]
    torch.testing.assert_close(moved, plain + 1)
