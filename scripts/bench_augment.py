"""The whole EM augmentation pipeline against nnU-Net's default one, CPU time per patch.

Patch 32x128x128, float32 image and int16 labels, cut from one synthetic stack; both sides end in
the int64 that losses take (until 2026-11-26 volprep had int32 and neither was widened; the table
below is from before);
one process and one thread each, in turn, means over 200 draws (60 for nnU-Net with
instances), medians over three rounds.
volprep runs PyTorch Connectomics' eleven EM augmentations at that system's default
probabilities; batchgeneratorsv2 (PyPI, an environment of its own) runs nnU-Net's
default training transforms for an anisotropic patch (pseudo-2D), without the deep
supervision targets. PyTorch Connectomics v1 is not on PyPI: its 76 ms is an earlier
measurement, not repeated here.

    python scripts/bench_augment.py

Measured on 2026-11-21, two idle cores of an AMD EPYC:

    labels     volprep ms  nnU-Net ms  ratio  bar  MB   MB
    binary     2.12        9.47        4.47   2.5  307  467
    instances  2.07        200         96.5   2.5  307  467

    of which drawing 0.07 ms and composing the map 0.11 ms
    two threads 1.75x one, bar 1.7x
    0 of 2000 draws repeat another (4 epochs of 500 samples)
    PyTorch Connectomics v1, 76 ms (not measured again): 36.7x, bar 15x
    limit: 1663 patches/s by copying image and labels once; volprep 483

Two threads made 1.5 times the patches while every tile was a call of its own, and 1.65 while
numpy let go of the interpreter's lock nineteen times a patch (random integers, arange, interp,
indexing with lists); two processes make 1.97 times as many.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

PATCH = (32, 128, 128)
# What nnU-Net reads for a patch of this size that turns freely in the plane.
READ = (34, 213, 213)
DRAWS = 200


def stack(instances: bool) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image, and labels of tubes through it: one id, or one each."""
    rng = np.random.default_rng(0)
    depth, height, width = READ
    y, x = np.mgrid[:height, :width]
    centres = rng.random((140, 2)) * (height, width)
    drift = rng.normal(0, 0.7, (depth, 140, 2)).cumsum(0)
    labels = np.empty(READ, np.int16)  # what nnU-Net stores
    for z in range(depth):
        at = centres + drift[z]
        distance = np.hypot(y[..., None] - at[:, 0], x[..., None] - at[:, 1])
        nearest = distance.argmin(-1)
        labels[z] = np.where(distance.min(-1) < 9, nearest + 1, 0)
    image = (labels > 0) * 0.4 + rng.random(READ) * 0.3
    return image.astype(np.float32), labels if instances else (labels > 0).astype(np.int32)


def volprep_side(instances: bool) -> dict[str, Any]:
    """One round of volprep's pipeline, and how its time is spent."""
    from benchlib import two_threads

    from volprep.augment import compose_from_config
    from volprep.randomness import sample_generator

    image, labels = stack(instances)
    compose = compose_from_config({"AUGMENTOR": {}}, PATCH, value_range=(0, 1))
    sample = {"image": image, "label": labels}
    for index in range(5):
        compose(sample, sample_generator(0, 0, index))
    start = time.process_time()
    for index in range(DRAWS):
        compose(sample, sample_generator(0, 1, index))["label"].astype(np.int64)
    whole = (time.process_time() - start) / DRAWS
    start = time.process_time()
    drawn = [compose.draw(sample_generator(0, 1, index)) for index in range(DRAWS)]
    draw = (time.process_time() - start) / DRAWS
    centre = [(n - 1) / 2 for n in READ]
    start = time.process_time()
    for one in drawn:
        compose.coordinate_map(one, centre)
    place = (time.process_time() - start) / DRAWS

    def augment(numbers: range) -> None:
        for index in numbers:
            compose(sample, sample_generator(0, 2, index))

    every = {json.dumps(compose.draw(sample_generator(0, e, n)).to_dict())
             for e in range(4) for n in range(500)}  # fmt: skip
    return {
        "ms": whole * 1e3, "draw": draw * 1e3, "map": place * 1e3,
        "threads": two_threads(augment, DRAWS), "duplicates": 2000 - len(every),
    }  # fmt: skip


def nnunet_side(instances: bool) -> dict[str, Any]:
    """One round of nnU-Net's default training transforms, as its trainer lists them."""
    import torch
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
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (the peer draws from numpy's global state)

    def gamma(inverted: int, probability: float) -> RandomTransform:
        bend = GammaTransform(
            gamma=BGContrast((0.7, 1.5)), p_invert_image=inverted, synchronize_channels=False,
            p_per_channel=1, p_retain_stats=1,
        )  # fmt: skip
        return RandomTransform(bend, apply_probability=probability)

    transforms = [
        Convert3DTo2DTransform(),
        SpatialTransform(
            PATCH[1:], patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0,
            p_rotation=0.2, rotation=(-np.pi, np.pi), p_scaling=0.2, scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
        ),
        Convert2DTo3DTransform(),
        RandomTransform(
            GaussianNoiseTransform(
                noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True
            ),
            apply_probability=0.1,
        ),
        RandomTransform(
            GaussianBlurTransform(
                blur_sigma=(0.5, 1.0), synchronize_channels=False, synchronize_axes=False,
                p_per_channel=0.5, benchmark=True,
            ),
            apply_probability=0.2,
        ),
        RandomTransform(
            MultiplicativeBrightnessTransform(
                multiplier_range=BGContrast((0.75, 1.25)), synchronize_channels=False,
                p_per_channel=1,
            ),
            apply_probability=0.15,
        ),
        RandomTransform(
            ContrastTransform(
                contrast_range=BGContrast((0.75, 1.25)), preserve_range=True,
                synchronize_channels=False, p_per_channel=1,
            ),
            apply_probability=0.15,
        ),
        RandomTransform(
            SimulateLowResolutionTransform(
                scale=(0.5, 1), synchronize_channels=False, synchronize_axes=True,
                ignore_axes=(0,), allowed_channels=None, p_per_channel=0.5,
            ),
            apply_probability=0.25,
        ),
        gamma(1, 0.1),
        gamma(0, 0.3),
        MirrorTransform(allowed_axes=(0, 1, 2)),
        RemoveLabelTansform(-1, 0),
    ]  # fmt: skip
    pipeline = ComposeTransforms(transforms)
    image, labels = stack(instances)
    # nnU-Net stores labels as int16, and 32 sections of what is read.
    given = (
        torch.from_numpy(image[None, 1:33].copy()),
        torch.from_numpy(labels[None, 1:33].astype(np.int16)),
    )

    def once() -> None:
        made = pipeline(image=given[0].clone(), segmentation=given[1].clone())
        made["segmentation"].to(torch.int64)

    for _ in range(5):
        once()
    draws = 60 if instances else DRAWS
    start = time.process_time()
    for _ in range(draws):
        once()
    return {"ms": (time.process_time() - start) / draws * 1e3}


def main() -> None:
    """Run both sides in turn and print the table."""
    from benchlib import alternate, copy_bandwidth, median, peer_python, table

    peer = peer_python("batchgeneratorsv2", "torch==2.13.0", "batchgeneratorsv2")
    script = str(Path(__file__).resolve())
    sides = {
        f"{side} {labels}": [str(python), script, side, labels]
        for labels in ("binary", "instances")
        for side, python in (("volprep", sys.executable), ("nnunet", peer))
    }
    runs = alternate(sides, rounds=3, threads=1)
    found = {name: [json.loads(r.output) for r in results] for name, results in runs.items()}
    ms = {name: median([f["ms"] for f in results]) for name, results in found.items()}
    rows = []
    for labels, bar in (("binary", 2.5), ("instances", 2.5)):
        ours, theirs = f"volprep {labels}", f"nnunet {labels}"
        peaks = [median([r.peak_mb for r in runs[name]]) for name in (ours, theirs)]
        rows.append([labels, ms[ours], ms[theirs], ms[theirs] / ms[ours], bar, *peaks])
    print(table(["labels", "volprep ms", "nnU-Net ms", "ratio", "bar", "MB", "MB"], rows))
    ours = found["volprep instances"]
    parts = {k: median([f[k] for f in ours]) for k in ("draw", "map", "threads", "duplicates")}
    print(f"\nof which drawing {parts['draw']:.2f} ms and composing the map {parts['map']:.2f} ms")
    print(f"two threads {parts['threads']:.2f}x one, bar 1.7x")
    print(f"{parts['duplicates']:.0f} of 2000 draws repeat another (4 epochs of 500 samples)")
    quoted = 76 / ms["volprep instances"]
    print(f"PyTorch Connectomics v1, 76 ms (not measured again): {quoted:.1f}x, bar 15x")
    moved = 2 * int(np.prod(PATCH)) * (4 + 4)
    limit = copy_bandwidth() / moved
    print(
        f"limit: {limit:.0f} patches/s by copying image and labels once; "
        f"volprep {1e3 / ms['volprep instances']:.0f}"
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run = {"volprep": volprep_side, "nnunet": nnunet_side}[sys.argv[1]]
        print(json.dumps(run(sys.argv[2] == "instances")))
    else:
        main()
