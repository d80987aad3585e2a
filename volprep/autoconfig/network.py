"""The U-Net that a plan is made for: how it pools, and with which kernels, for a given spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from volprep.geometry import Shape3, Spacing3

__all__ = ["UNet", "design_network", "strides_for"]

#: No axis is pooled to fewer voxels than this.
SMALLEST_FEATURE_MAP = 4
#: An axis this much coarser than the finest is neither pooled nor convolved along.
COARSE = 2.0


@dataclass(frozen=True, slots=True)
class UNet:
    """A plain 3D U-Net, the one that the byte model describes.

    Each stage is `convolutions` times (convolution without bias, affine instance
    normalisation, leaky ReLU in place). The first convolution of a stage has the
    stage's stride. The way up is a transposed convolution with the same stride
    and no bias, the concatenation with the skip, and a stage again. A 1x1x1
    convolution with bias gives the class scores. Features double from `features`
    at every stage up to `most_features`.

    Attributes
    ----------
    strides : tuple of (int, int, int)
        One for each stage; the first is (1, 1, 1).
    kernels : tuple of (int, int, int)
        Of the convolutions of each stage, 1 or 3 along (Z, Y, X).
    n_channels, n_classes : int
        Of the input and the output.
    """

    strides: tuple[Shape3, ...]
    kernels: tuple[Shape3, ...]
    n_channels: int = 1
    n_classes: int = 2
    features: int = 32
    most_features: int = 320
    convolutions: int = 2

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each stage."""
        return tuple(min(self.most_features, self.features << i) for i in range(len(self.strides)))

    @property
    def pool(self) -> Shape3:
        """Poolings along (Z, Y, X)."""
        z, y, x = (sum(s > 1 for s in axis) for axis in zip(*self.strides, strict=True))
        return z, y, x


def design_network(
    patch_size: Sequence[int],
    spacing: Sequence[float] | None = None,
    *,
    max_pool: int = 5,
    n_channels: int = 1,
    n_classes: int = 2,
    divide: bool = False,
) -> UNet:
    """Choose strides and kernels for a patch.

    An axis is pooled while it has at least 8 voxels and its spacing is less than
    twice the finest of the axes that can still be pooled, so that anisotropic
    voxels become cubes on the way down. Kernels are 1 along an axis until its
    spacing is less than twice the finest, and 3 from there on.

    Parameters
    ----------
    patch_size : sequence of int
        (Z, Y, X) in voxels.
    spacing : sequence of float or None
        (Z, Y, X), in any unit; None takes cubes.
    max_pool : int, default 5
        Most poolings along an axis.
    n_channels, n_classes : int
        Of the input and the output.
    divide : bool, default False
        Pool an axis only while its voxels are even, so that 2**pool divides
        `patch_size`. Without it the caller cuts the patch to multiples of
        2**pool, which leaves the design as it is.

    Returns
    -------
    UNet
    """
    size = [int(n) for n in patch_size]
    step = [1.0, 1.0, 1.0] if spacing is None else [float(s) for s in spacing]
    pooled = [0, 0, 0]
    thick = [n > 1 for n in size]
    strides: list[Shape3] = [(1, 1, 1)]
    kernels = [_kernel((1, 1, 1), step, thick)]
    while True:
        able = [
            size[i] >= 2 * SMALLEST_FEATURE_MAP
            and pooled[i] < max_pool
            and not (divide and size[i] % 2)
            for i in range(3)
        ]
        if not any(able):
            break
        finest = min(s for s, a in zip(step, able, strict=True) if a)
        halved = [a and s < COARSE * finest for s, a in zip(step, able, strict=True)]
        for i in range(3):
            if halved[i]:
                size[i], step[i], pooled[i] = size[i] // 2, step[i] * 2, pooled[i] + 1
        strides.append((1 + halved[0], 1 + halved[1], 1 + halved[2]))
        kernels.append(_kernel(kernels[-1], step, thick))
    return UNet(tuple(strides), tuple(kernels), n_channels, n_classes)


def strides_for(pool: Sequence[int]) -> tuple[Shape3, ...]:
    """Strides of each stage for given poolings; an axis that is pooled less begins later."""
    depth = max(pool)
    z, y, x = ([1 + (level >= depth - n) for level in range(depth)] for n in pool)
    return ((1, 1, 1), *zip(z, y, x, strict=True))


def network_for(
    pool: Sequence[int],
    patch_size: Sequence[int],
    spacing: Spacing3 | None,
    *,
    n_channels: int,
    n_classes: int,
) -> UNet:
    """The network with given poolings."""
    strides = strides_for(pool)
    step = [1.0, 1.0, 1.0] if spacing is None else list(spacing)
    thick = [n > 1 for n in patch_size]
    kernels: list[Shape3] = []
    for stride in strides:
        step = [s * k for s, k in zip(step, stride, strict=True)]
        kernels.append(_kernel(kernels[-1] if kernels else (1, 1, 1), step, thick))
    return UNet(strides, tuple(kernels), n_channels, n_classes)


def _kernel(before: Shape3, spacing: Sequence[float], thick: Sequence[bool]) -> Shape3:
    """3 along each axis that is fine enough, or was so on the stage before."""
    finest = min((s for s, t in zip(spacing, thick, strict=True) if t), default=math.inf)
    z, y, x = (
        3 if t and (k == 3 or s < COARSE * finest) else 1
        for k, s, t in zip(before, spacing, thick, strict=True)
    )
    return z, y, x
