"""What the defaults are worth: a small U-Net trained with them, with naive choices, with nnU-Net's.

    python scripts/bench_training.py [--sets 02,05,06,11,spots] [--seeds 3] [--steps 400]

Every run has the same network (three stages of 8, 16 and 32 features), patches, batches of two,
loss, optimiser and number of steps, is trained on the same part of the data and scored on the
same held-out part, whole, by the Dice of the foreground (02, 11: nuclei; 05: membranes; 06:
borders of neurons; spots: synthetic, 0.1% of the voxels, with broken pixels of the camera). Only
these differ:

volprep   what `prepare` and `dataloader` do with an empty config: intensities, places of the
          patches, augmentation
naive     intensities to 0 to 1 by minimum and maximum, patches from anywhere, no augmentation
nnU-Net   z-scores of each image, one of two patches around foreground, the augmentation of
          nnU-Net 2's default trainer, by batchgeneratorsv2 itself

The data are those of ../shared/data (see its README); sets that are not there are left out. They
are single small volumes and the training takes seconds, so that this tells faults of defaults
from defaults, not networks that anyone would use.

Measured (three seeds: mean Dice ± standard deviation):

set     steps            volprep             naive           nnU-Net
02        400      0.786 ± 0.010     0.758 ± 0.002     0.767 ± 0.009
05        400      0.770 ± 0.002     0.772 ± 0.009     0.759 ± 0.004
06        400      0.650 ± 0.021     0.637 ± 0.010     0.628 ± 0.016
11        400      0.628 ± 0.024     0.608 ± 0.015     0.623 ± 0.013
spots     120      0.625 ± 0.039     0.422 ± 0.059     0.362 ± 0.198

The column of volprep is of one state of the code. nnU-Net's, which uses nothing of it but the
splits, is of an earlier one, and so are naive choices on the spots; on the other sets these were
measured again beside volprep and had not changed.

volprep is above naive choices on 02, 06 and 11, far above them on sparse spots, level with them on
05 (0.002 below, within the spread of either), and nowhere below nnU-Net. On 06 and 11 the spread of
three seeds is larger than the lead.

What the figures changed: with z-scores instead of a background at zero 11 had 0.588; 02 had 0.730
while the middle of a stored patch was shown, so that the borders of a volume were never trained
on. With augmentation in full from the first batch on 02 had 0.759, 05 0.755, 06 0.628, 11 0.662 and
the spots 0.608: the held-out part lies in the volume that is trained on, and in a training of
seconds augmentation costs more than it gives (11 is the exception). So augmentation comes in over
the first 20 epochs, 5000 batches of 250,000, and of these trainings it reaches 3 samples in 100.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from volprep import pipeline
from volprep.config import Config
from volprep.geometry import Box
from volprep.loader import PlannedUNet, dataloader
from volprep.splits import Splits
from volprep.store import load_json
from volprep.targets import LabelPatch, make_targets, targets_from_config

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FEATURES = (8, 16, 32)
Shape = tuple[int, int, int]


def labelled(label: np.ndarray) -> np.ndarray:
    """Any object."""
    return label > 0


def membranes(label: np.ndarray) -> np.ndarray:
    """What is not the inside of a cell."""
    return label == 0


def borders(label: np.ndarray) -> np.ndarray:
    """Between neurons."""
    made = make_targets(targets_from_config(["boundary"]), LabelPatch(label))
    return made["boundary"] > 0


@dataclass
class Task:
    """A set: its config, the patch, the strides of the network, and what is to be found."""

    data: dict[str, Any]
    patch: Shape
    strides: tuple[Shape, ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    truth: Callable[[np.ndarray], np.ndarray] = labelled


FLAT = ((1, 1, 1), (1, 2, 2), (1, 2, 2))
TASKS = {
    "02": Task({"root": DATA / "02_gonuclear_nuclei3d_h5"}, (16, 40, 40)),
    "05": Task(
        {"root": DATA / "05_isbi2012_em_png_stack", "spacing": (0.05, 0.004, 0.004),
         "label_kind": "classes"},
        (4, 96, 96), FLAT, membranes,
    ),
    "06": Task(
        {"cases": [{
            "image": DATA / "06_fib25_neurons_png" / "images",
            "label": DATA / "06_fib25_neurons_png" / "labels" / "fib25_bodies.tif",
            "spacing": (0.01, 0.01, 0.01),
        }]},
        (32, 32, 32), truth=borders,
    ),
    "11": Task({"root": DATA / "11_imagej_tiff_plantseg"}, (32, 32, 32)),
    "spots": Task({}, (16, 40, 40)),
}  # fmt: skip


def make_spots(folder: Path) -> None:
    """Four volumes of noise with a few spots 4 to 40 deviations bright, and broken pixels."""
    rng = np.random.default_rng(0)
    for what in ("images", "labels"):
        (folder / what).mkdir()
    for number in range(4):
        image, label = rng.normal(100, 5, (48, 96, 96)), np.zeros((48, 96, 96), np.uint16)
        for spot in range(12):
            z, y, x = (int(rng.integers(3, n - 3)) for n in image.shape)
            where = np.s_[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]
            image[where] += rng.uniform(20, 200)
            label[where] = spot + 1
        image.reshape(-1)[rng.integers(0, image.size, 12)] = 60_000
        np.save(folder / "images" / f"c{number}.npy", image.clip(0).astype(np.uint16))
        np.save(folder / "labels" / f"c{number}.npy", label)


@dataclass
class Prepared:
    """A set as all three see it: the parts to train on, and those to score."""

    path: Path
    task: Task
    train: list[tuple[np.ndarray, np.ndarray]]
    held: list[tuple[np.ndarray, np.ndarray]]


def prepare(task: Task, folder: Path) -> Prepared:
    """Make the patch set, and read the same parts as arrays."""
    data = dict(task.data)
    if not data:
        make_spots(folder)
        data = {"root": folder, "spacing": (0.3, 0.1, 0.1)}
    config = Config.model_validate(
        {"data": data, "plan": {"patch_size": task.patch, "batch_size": 2},
         "output": {"dir": folder / "set"}}
    )  # fmt: skip
    store = pipeline.prepare(config)
    splits = Splits.from_dict(load_json(store.path / "splits.json"))
    cases = {case.name: case for case in pipeline.list_cases(config)}

    def read(parts: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for part in parts:
            image, label = cases[part.case].open_image(), cases[part.case].open_label()
            box = part.box or Box.whole(image.shape)
            found.append((image.read(box).astype(np.float32), task.truth(label.read(box)[0])))
        return found

    return Prepared(store.path, task, read(splits.train), read(splits.val))


Batches = Iterator[tuple[Tensor, Tensor]]
Rule = Callable[[np.ndarray], np.ndarray]


def volprep_batches(prepared: Prepared, steps: int, seed: int) -> Batches:
    """As the loader gives them."""
    loader = dataloader(
        prepared.path, "train", seed=seed, steps=steps, class_index=False, threads=1
    )
    for batch in loader:
        truth = np.stack([prepared.task.truth(label) for label in batch["label"].numpy()])
        yield batch["image"], torch.from_numpy(truth[:, None].astype(np.float32))


def volprep_rule(prepared: Prepared) -> Rule:
    """The normalisation of the set."""
    from volprep.loader import PatchDataset
    from volprep.preprocess import Normalisation

    training = PatchDataset(prepared.path).training
    return Normalisation.from_dict(training["normalisation"]).apply


def naive_rule(prepared: Prepared) -> Rule:
    """Minimum and maximum of what is trained on."""
    low = min(image.min() for image, _ in prepared.train)
    high = max(image.max() for image, _ in prepared.train)
    return lambda image: (image - low) / (high - low)


def naive_batches(prepared: Prepared, steps: int, seed: int) -> Batches:
    """Patches from anywhere, as they are."""
    rng, rule = np.random.default_rng(seed), naive_rule(prepared)
    parts = [(rule(image), truth) for image, truth in prepared.train]
    sizes = np.array([truth.size for _, truth in parts], float)
    for _ in range(steps):
        images, truths = [], []
        for _ in range(2):
            image, truth = parts[rng.choice(len(parts), p=sizes / sizes.sum())]
            start = [rng.integers(0, n - p + 1) for n, p in zip(truth.shape, prepared.task.patch)]  # noqa: B905
            where = tuple(slice(a, a + p) for a, p in zip(start, prepared.task.patch, strict=True))
            images.append(image[(slice(None), *where)])
            truths.append(truth[None, *where])
        yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(truths)).float()


def zscore(image: np.ndarray) -> np.ndarray:
    """nnU-Net's normalisation of anything but CT, image by image."""
    return (image - image.mean()) / max(float(image.std()), 1e-8)


def nnunet_transforms(patch: Shape) -> Any:
    """The transforms of nnU-Net 2's default trainer, with its parameters."""
    from batchgeneratorsv2.transforms.intensity.brightness import (
        MultiplicativeBrightnessTransform,
    )
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.pseudo2d import (
        Convert2DTo3DTransform,
        Convert3DTo2DTransform,
    )
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    def maybe(transform: Any, p: float) -> Any:
        return RandomTransform(transform, apply_probability=p)

    flat = max(patch) / patch[0] > 3
    angle = np.pi if flat else np.pi / 6
    spatial = SpatialTransform(
        patch[1:] if flat else patch, patch_center_dist_from_border=0, random_crop=False,
        p_elastic_deform=0, p_rotation=0.2, rotation=(-angle, angle), p_scaling=0.2,
        scaling=(0.7, 1.4), p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
    )  # fmt: skip
    moving = [Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform()] if flat else [spatial]
    gamma = {"p_invert_image": 1, "synchronize_channels": False, "p_per_channel": 1,
             "p_retain_stats": 1}  # fmt: skip
    return ComposeTransforms([
        *moving,
        maybe(GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1),
        maybe(
            GaussianBlurTransform(
                (0.5, 1.0), synchronize_channels=False, synchronize_axes=False,
                p_per_channel=0.5, benchmark=False,
            ), 0.2,
        ),
        maybe(
            MultiplicativeBrightnessTransform(
                BGContrast((0.75, 1.25)), synchronize_channels=False, p_per_channel=1
            ), 0.15,
        ),
        maybe(
            ContrastTransform(
                BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False,
                p_per_channel=1,
            ), 0.15,
        ),
        maybe(
            SimulateLowResolutionTransform(
                scale=(0.5, 1), synchronize_channels=False, synchronize_axes=True,
                ignore_axes=(0,) if flat else (), allowed_channels=None, p_per_channel=0.5,
            ), 0.25,
        ),
        maybe(GammaTransform(BGContrast((0.7, 1.5)), **gamma), 0.1),
        maybe(GammaTransform(BGContrast((0.7, 1.5)), **{**gamma, "p_invert_image": 0}), 0.3),
        MirrorTransform(allowed_axes=(0, 1, 2)),
    ])  # fmt: skip


def nnunet_batches(prepared: Prepared, steps: int, seed: int) -> Batches:
    """The second patch of each batch around a voxel of the foreground; both augmented."""
    rng, patch = np.random.default_rng(seed), prepared.task.patch
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (batchgeneratorsv2 draws from it)
    transforms = nnunet_transforms(patch)
    flat = max(patch) / patch[0] > 3
    larger = [n if flat and i == 0 else round(n * 1.6) for i, n in enumerate(patch)]
    parts = [(zscore(image), truth) for image, truth in prepared.train]
    found = [np.argwhere(truth) for _, truth in parts]
    for _ in range(steps):
        images, truths = [], []
        for around in (False, True):
            number = int(rng.integers(len(parts)))
            image, truth = parts[number]
            if around and len(found[number]):
                middle = found[number][rng.integers(len(found[number]))]
            else:
                middle = [rng.integers(0, n) for n in truth.shape]
            # nnU-Net keeps the patch within the image where it fits.
            middle = [
                int(np.clip(m, min(p // 2, n // 2), max(n - (p - p // 2), n // 2)))
                for m, p, n in zip(middle, patch, truth.shape, strict=True)
            ]
            wanted = [(m - s // 2, m - s // 2 + s) for m, s in zip(middle, larger, strict=True)]
            inside = tuple(
                slice(max(0, a), min(n, b)) for (a, b), n in zip(wanted, truth.shape, strict=True)
            )
            pad = [
                (max(0, -a), max(0, b - n)) for (a, b), n in zip(wanted, truth.shape, strict=True)
            ]
            cut = np.pad(image[(slice(None), *inside)], [(0, 0), *pad])
            seg = np.pad(truth[inside], pad)[None].astype(np.int16)
            made = transforms(image=torch.from_numpy(cut), segmentation=torch.from_numpy(seg))
            images.append(made["image"])
            truths.append(made["segmentation"])
        yield torch.stack(images).float(), torch.stack(truths).float()


METHODS: dict[str, tuple[Callable[..., Batches], Callable[[Prepared], Rule]]] = {
    "volprep": (volprep_batches, volprep_rule),
    "naive": (naive_batches, naive_rule),
    "nnU-Net": (nnunet_batches, lambda _prepared: zscore),
}


def loss_of(scores: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy and the soft Dice of the batch."""
    share = torch.sigmoid(scores)
    dice = (2 * (share * truth).sum() + 1) / (share.sum() + truth.sum() + 1)
    return functional.binary_cross_entropy_with_logits(scores, truth) - dice


def train(prepared: Prepared, batches: Batches, steps: int, seed: int) -> PlannedUNet:
    """A few steps of Adam, the rate falling to nothing."""
    torch.manual_seed(seed)
    channels = prepared.train[0][0].shape[0]
    kernels = [(1, 3, 3) if s[0] == 1 and prepared.task.strides == FLAT else (3, 3, 3)
               for s in prepared.task.strides]  # fmt: skip
    network = PlannedUNet(
        strides=prepared.task.strides, kernels=kernels, features=FEATURES,
        n_channels=channels, n_outputs=1,
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    rate = torch.optim.lr_scheduler.PolynomialLR(optimiser, steps, 0.9)
    for image, truth in batches:
        loss = loss_of(network(image), truth)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()
        rate.step()
    return network


@torch.no_grad()
def score(network: PlannedUNet, prepared: Prepared, rule: Rule) -> float:
    """Dice of the foreground over all that is held out, tile by tile."""
    hit = found = wanted = 0
    for image, truth in prepared.held:
        ready = rule(image)
        guess = np.zeros(truth.shape, bool)
        starts = [
            sorted({*range(0, max(1, n - p), p), max(0, n - p)})
            for n, p in zip(truth.shape, prepared.task.patch, strict=True)
        ]
        for z in starts[0]:
            for y in starts[1]:
                for x in starts[2]:
                    where = tuple(
                        slice(a, a + p) for a, p in zip((z, y, x), prepared.task.patch, strict=True)
                    )
                    tile = torch.from_numpy(np.ascontiguousarray(ready[(slice(None), *where)]))
                    guess[where] = network(tile[None].float())[0, 0].numpy() > 0
        hit += int((guess & truth).sum())
        found += int(guess.sum())
        wanted += int(truth.sum())
    return 2 * hit / max(1, found + wanted)


def main() -> None:
    """Print a row for each set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--methods", default=",".join(METHODS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = args.methods.split(",")
    if "nnU-Net" in methods and find_spec("batchgeneratorsv2") is None:
        print("nnU-Net is left out: pip install batchgeneratorsv2", file=sys.stderr)
        methods.remove("nnU-Net")
    print(f"{'set':<6}" + "".join(f"{name:>18}" for name in methods) + "   CPU s a run")
    for name in args.sets.split(","):
        root = TASKS[name].data.get("root", DATA)
        if not Path(root).exists():
            print(f"{name:<6} not here: {root}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(TASKS[name], Path(folder))
            row, spent = f"{name:<6}", []
            for method in methods:
                draw, rule = METHODS[method]
                scores = []
                for seed in range(args.seeds):
                    start = time.process_time()
                    network = train(prepared, draw(prepared, args.steps, seed), args.steps, seed)
                    scores.append(score(network, prepared, rule(prepared)))
                    spent.append(time.process_time() - start)
                spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
                row += f"{statistics.mean(scores):>10.3f} ± {spread:.3f}"
            print(f"{row}   {statistics.mean(spent):.0f}", flush=True)


if __name__ == "__main__":
    main()
