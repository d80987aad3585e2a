"""How much must be read for a patch, from the ranges of the transforms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from volprep.augment.spatial import Rescale, Rotate
from volprep.augment.transform import Reach, SpatialTransform, Transform
from volprep.geometry import Shape3, steps

__all__ = ["required_shape", "spatial_ranges"]


def required_shape(
    transforms: Sequence[Transform],
    patch_size: Sequence[int],
    spacing: Sequence[float] | None = None,
) -> Shape3:
    """The patch to read, so that no draw of the transforms reaches beyond it.

    Parameters
    ----------
    transforms : sequence of Transform
        Those that are not enabled, or never happen, do not count.
    patch_size : sequence of three ints
        (Z, Y, X) of the augmented patch.
    spacing : sequence of three floats, optional
        (Z, Y, X) of a voxel; None takes cubes.

    Returns
    -------
    tuple of three ints
        (Z, Y, X), larger than the patch by an even number on each axis, so
        that the patch has a centred place in it.

    Notes
    -----
    The largest draw of each transform is assumed at once. For rotations and
    scales alone this is the augmentation patch of `volprep.autoconfig`. PyTorch
    Connectomics adds fixed margins: 10 x 370 x 370 for its own defaults and a
    patch of 8 x 256 x 256, where this gives 10 x 344 x 344.
    """
    z, y, x = (int(n) for n in patch_size)
    shape = (z, y, x)
    step = steps(spacing)
    # A voxel reaches half its side from its middle; an axis of one voxel is no extent at all.
    reach = Reach(*(n / 2 if n > 1 else 0.0 for n in shape))
    acting = [t for t in transforms if isinstance(t, SpatialTransform) and t.enabled and t.p > 0]
    for stage in ("sections", "displacement", "linear"):
        for transform in reversed(acting):
            if transform.stage == stage:
                farther = transform.reach(reach, shape, step)
                # It may also stay out, and then a magnifying one does not help.
                pairs = zip(reach.as_tuple(), farther.as_tuple(), strict=True)
                reach = Reach(*(max(a, b) for a, b in pairs))
    wanted = [_evenly_larger(n, 2 * r) for n, r in zip(shape, reach.as_tuple(), strict=True)]
    return wanted[0], wanted[1], wanted[2]


def spatial_ranges(transforms: Sequence[Transform]) -> dict[str, Any]:
    """The rotations and scales of the transforms, as `volprep.autoconfig.make_plan` takes them.

    Returns
    -------
    dict
        ``rotation``: largest angle in degrees about (Z, Y, X); ``scale``:
        smallest and largest magnification. Quarter turns are no rotation here:
        a square patch does not grow by them. `required_shape` counts everything.
    """
    angles, low, high = [0.0, 0.0, 0.0], 1.0, 1.0
    for transform in transforms:
        if not transform.enabled or transform.p == 0:
            continue
        if isinstance(transform, Rotate):
            own = (0.0 if transform.rot90 else transform.max_angle, transform.tilt, transform.tilt)
            angles = [min(180.0, a + b) for a, b in zip(angles, own, strict=True)]
        elif isinstance(transform, Rescale):
            low, high = low * min(1.0, transform.low), high * max(1.0, transform.high)
    return {"rotation": tuple(angles), "scale": (low, high)}


def _evenly_larger(side: int, wanted: float) -> int:
    return side + 2 * max(0, math.ceil((wanted - side) / 2 - 1e-9))
