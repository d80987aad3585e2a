"""How many bytes a training step of the plain U-Net takes, part by part, without running it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from volprep.autoconfig.network import UNet

__all__ = ["PARTS", "Precision", "parameter_count", "training_bytes"]

Precision = Literal["mixed", "fp32"]

#: The parts of `training_bytes`, and what each is.
PARTS = {
    "activations": "kept by the network for its backward pass",
    "loss": "kept by cross-entropy and soft Dice, targets as int64 included",
    "gradients": "of activations, where two of them are largest at once",
    "inputs": "the images of one batch as float32",
    "weights": "parameters in float32, and in half precision where mixed",
    "weight_gradients": "one float32 for each parameter",
    "optimiser": "two float32 for each parameter (Adam)",
}


def training_bytes(
    network: UNet,
    patch_size: Sequence[int],
    batch_size: int,
    precision: Precision = "mixed",
) -> dict[str, int]:
    """Bytes of a training step by part.

    Parameters
    ----------
    network : UNet
        2**pool of it divides the patch.
    patch_size : sequence of int
        (Z, Y, X) in voxels.
    batch_size : int
        Patches in the batch.
    precision : {'mixed', 'fp32'}
        ``mixed`` keeps activations in 16 bits and parameters in 32, as autocast does.

    Returns
    -------
    dict of str to int
        The parts of `PARTS`.

    Notes
    -----
    The activations are those that autograd saves: for each convolution its input,
    for each normalisation its input (the convolution's output) and three numbers
    a feature, for each leaky ReLU in place its output, which is also the next
    input; the concatenation; under autocast the 16-bit copies of the convolutions'
    weights as well. torch's saved-tensor hooks count the same bytes.
    "gradients" is a bound: at the first convolution of the last stage the gradient
    of its output and that of the concatenation live together.
    """
    item = 2 if precision == "mixed" else 4
    voxels = _stage_voxels(network, patch_size)
    outermost = batch_size * voxels[0]
    scores = outermost * network.n_classes
    convolved, normalised = _weights(network)
    trained = convolved + normalised + network.n_classes
    halves = 2 * convolved if precision == "mixed" else 0
    kept = batch_size * (item * _kept_elements(network, voxels) + 6 * normalised)
    return {
        "activations": kept,
        "loss": 12 * scores + 8 * outermost,
        "gradients": max(3 * item * network.features * outermost, 8 * scores),
        "inputs": 4 * outermost * network.n_channels,
        "weights": 4 * trained + halves,
        "weight_gradients": 4 * trained,
        "optimiser": 8 * trained,
    }


def parameter_count(network: UNet) -> int:
    """Trained numbers of the network."""
    return sum(_weights(network)) + network.n_classes


def _stage_voxels(network: UNet, patch_size: Sequence[int]) -> list[int]:
    size = list(patch_size)
    voxels = []
    for stride in network.strides:
        size = [n // s for n, s in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    return voxels


def _kept_elements(network: UNet, voxels: Sequence[int]) -> int:
    """Numbers in the saved activations of one patch."""
    stage = 2 * network.convolutions
    down = sum(stage * f * v for f, v in zip(network.widths, voxels, strict=True))
    up = sum((stage + 2) * f * v for f, v in zip(network.widths[:-1], voxels[:-1], strict=True))
    return network.n_channels * voxels[0] + down + up


def _weights(network: UNet) -> tuple[int, int]:
    """Weights of all convolutions, and the scales and shifts of all normalisations."""
    f, n = network.widths, network.convolutions
    taps = [math.prod(k) for k in network.kernels]
    before = (network.n_channels, *f[:-1])
    down = sum(t * (a * b + (n - 1) * b * b) for t, a, b in zip(taps, before, f, strict=True))
    up = sum(t * (2 * b * b + (n - 1) * b * b) for t, b in zip(taps[:-1], f[:-1], strict=True))
    across = sum(
        math.prod(s) * a * b for s, a, b in zip(network.strides[1:], f[1:], f[:-1], strict=True)
    )
    return down + up + across + f[0] * network.n_classes, 2 * n * (sum(f) + sum(f[:-1]))
