"""Load one batch of a patch set, then train a tiny 3D U-Net on it and show the loss falling.

    python scripts/train_tiny.py PATCHES [--steps 40]

It finds nuclei against background (label > 0), which is enough to see that
images and labels belong together. Exits with 1 if the loss does not fall.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import chain, islice, repeat

import torch
from torch import Tensor, nn

from volprep.loader import dataloader


def block(inputs: int, outputs: int, stride: Sequence[int]) -> nn.Sequential:
    """Two convolutions; the first one may pool."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride=tuple(stride), padding=1),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.LeakyReLU(),
        nn.Conv3d(outputs, outputs, 3, padding=1),
        nn.InstanceNorm3d(outputs, affine=True),
        nn.LeakyReLU(),
    )


class TinyUNet(nn.Module):
    """A U-Net with the strides of the generated training config, and few features."""

    def __init__(self, channels: int, strides: Sequence[Sequence[int]], base: int = 4) -> None:
        super().__init__()
        width = [min(base * 2**i, 16) for i in range(len(strides))]
        self.down = nn.ModuleList(
            block(i, o, s) for i, o, s in zip([channels, *width], width, strides, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(width[i], width[i - 1], tuple(strides[i]), tuple(strides[i]))
            for i in range(len(strides) - 1, 0, -1)
        )
        self.merge = nn.ModuleList(
            block(2 * width[i - 1], width[i - 1], (1, 1, 1)) for i in range(len(strides) - 1, 0, -1)
        )
        self.head = nn.Conv3d(width[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the foreground, in the shape of the input."""
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.head(x)


def main() -> int:
    """Train, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patches")
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.manual_seed(0)
    loader = dataloader(args.patches, "train")
    batch = next(iter(loader))
    shapes = {k: tuple(v.shape) for k, v in batch.items() if isinstance(v, Tensor)}
    print("one batch:", ", ".join(f"{k} {s}" for k, s in shapes.items()))
    training = loader.dataset.training
    model = TinyUNet(training["n_channels"], training["strides"])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses: list[float] = []
    start = time.perf_counter()
    for batch in islice(chain.from_iterable(repeat(loader)), args.steps):
        target = (batch["label"] > 0).float()[:, None]
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch["image"]), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if len(losses) % 10 == 0:
            print(f"step {len(losses):3d}  loss {sum(losses[-10:]) / 10:.3f}")
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    seconds = time.perf_counter() - start
    verdict = "falls" if last < 0.8 * first else "DOES NOT FALL"
    print(f"loss {first:.3f} -> {last:.3f} in {args.steps} steps, {seconds:.0f} s: it {verdict}")
    return 0 if last < 0.8 * first else 1


if __name__ == "__main__":
    sys.exit(main())
