"""The network that plans are made for, and what one training step of it takes."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from volprep.geometry import Shape3, three

__all__ = ["MeasuredStep", "PlannedUNet", "measure_step"]


class PlannedUNet(nn.Module):
    """The plain 3D U-Net of a plan, as `volprep.autoconfig.UNet` describes it.

    Parameters
    ----------
    strides, kernels : sequence of (Z, Y, X)
        Of each stage, the outermost first.
    features : sequence of int
        Feature maps of each stage.
    n_channels, n_outputs : int
    convolutions : int
        Of each stage.
    """

    def __init__(
        self,
        *,
        strides: Sequence[Shape3],
        kernels: Sequence[Shape3],
        features: Sequence[int],
        n_channels: int,
        n_outputs: int,
        convolutions: int = 2,
    ) -> None:
        super().__init__()
        self.down, self.across, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = n_channels
        for width, stride, kernel in zip(features, strides, kernels, strict=True):
            self.down.append(_stage(before, width, kernel, stride, convolutions))
            before = width
        for level in range(len(features) - 2, -1, -1):
            stride, width = strides[level + 1], features[level]
            self.across.append(
                nn.ConvTranspose3d(features[level + 1], width, stride, stride, bias=False)
            )
            self.up.append(_stage(2 * width, width, kernels[level], (1, 1, 1), convolutions))
        self.head = nn.Conv3d(features[0], n_outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (batch, outputs, Z, Y, X) of images (batch, C, Z, Y, X)."""
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        skips.pop()
        for across, level in zip(self.across, self.up, strict=True):
            x = level(torch.cat([across(x), skips.pop()], dim=1))
        scores: Tensor = self.head(x)
        return scores


@dataclass(frozen=True)
class MeasuredStep:
    """What one training step took.

    Attributes
    ----------
    device : str
        Its name.
    bytes : int
        The peak: on CUDA of what torch's allocator handed out, on a CPU of the process's
        memory beyond what it had before.
    seconds : float
        Of the second step; the first one also chooses algorithms.
    """

    device: str
    bytes: int
    seconds: float


def measure_step(
    network: PlannedUNet,
    patch_size: Shape3,
    batch_size: int,
    *,
    n_channels: int,
    n_classes: int,
    precision: Literal["mixed", "fp32"],
    device: str | None = None,
) -> MeasuredStep:
    """Train for two steps on noise, and look at the memory.

    Parameters
    ----------
    network : PlannedUNet
    patch_size : (Z, Y, X)
    batch_size, n_channels, n_classes : int
    precision : {'mixed', 'fp32'}
        ``mixed`` is float16 on CUDA, bfloat16 on a CPU.
    device : str or None
        None takes CUDA where it is, else the CPU.

    Raises
    ------
    torch.OutOfMemoryError
        If the device is too small.

    Notes
    -----
    The loss and the optimiser (Adam) are those that `volprep.autoconfig.training_bytes`
    counts. On a CPU the workspaces of its convolutions come on top, which are no part of
    the estimate.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    # The libraries that a first step loads are no part of what a network needs.
    cube: Shape3 = (4, 4, 4)
    small = PlannedUNet(
        strides=[(1, 1, 1)], kernels=[(3, 3, 3)], features=[4], n_channels=1, n_outputs=2
    )
    _two_steps(small.to(place), (1, 1, *cube), 2, precision, place)
    before = _reset_peak(place)
    shape = (batch_size, n_channels, *patch_size)
    seconds = _two_steps(network.to(place), shape, n_classes, precision, place)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    return MeasuredStep(name, _peak(place) - before, seconds)


def _two_steps(
    network: PlannedUNet,
    shape: tuple[int, ...],
    n_classes: int,
    precision: Literal["mixed", "fp32"],
    place: torch.device,
) -> float:
    """Train on noise; the seconds of the second step."""
    optimiser = torch.optim.Adam(network.parameters())
    image = torch.randn(shape, device=place)
    target = torch.randint(0, n_classes, (shape[0], *shape[2:]), device=place)
    kind = torch.float16 if place.type == "cuda" else torch.bfloat16
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(place.type, kind, enabled=precision == "mixed"):
            scores = network(image)
        optimiser.zero_grad()
        _loss(scores, target).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        seconds = time.perf_counter() - start
    return seconds


def _loss(scores: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy and soft Dice."""
    scores = scores.float()
    share = torch.softmax(scores, dim=1)
    truth = functional.one_hot(target, scores.shape[1]).movedim(-1, 1).float()
    both = (share * truth).sum((0, 2, 3, 4))
    either = share.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
    return functional.cross_entropy(scores, target) - (2 * both / (either + 1)).mean()


def _reset_peak(place: torch.device) -> int:
    """Forget the peak so far; say what is held now."""
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
        return torch.cuda.memory_allocated(place)
    # Linux sets the peak of a process to what it holds now; elsewhere the old peak stays.
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return _peak(place)


def _peak(place: torch.device) -> int:
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _stage(
    n_in: int, n_out: int, kernel: Shape3, stride: Shape3, convolutions: int
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(convolutions):
        layers += [
            nn.Conv3d(
                n_out if number else n_in, n_out, three(kernel),
                (1, 1, 1) if number else three(stride),
                padding=three([k // 2 for k in kernel]), bias=False,
            ),
            nn.InstanceNorm3d(n_out, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]  # fmt: skip
    return nn.Sequential(*layers)
