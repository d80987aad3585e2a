"""The planner of biom3d under its own names: patch, pooling and batch from a median shape.

The shape is shrunk until its volume is that of `max_dims`, cut to multiples of
2**pool, then grown back while the volume allows. Results are those of biom3d
0.1.2 wherever it gives a usable plan; where it does not (see the Notes of
`find_patch_pool_batch`), volprep gives one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.autoconfig.task import halvings
from volprep.errors import PlanError

__all__ = [
    "UnfitShapeError",
    "auto_config",
    "display_info",
    "find_patch_pool_batch",
    "get_aug_patch",
    "parameters_return",
]

Ints = npt.NDArray[np.int64]


class UnfitShapeError(PlanError, AssertionError, ValueError):
    """A shape or a bound that no plan can be made from.

    Also an AssertionError, which is what biom3d documents, and a ValueError.
    """


def find_patch_pool_batch(
    dims: Sequence[int] | Ints,
    max_dims: Sequence[int] = (128, 128, 128),
    max_pool: int = 5,
    epsilon: float = 1e-3,
) -> tuple[Ints, Ints, Ints]:
    """Patch size, poolings and batch size for images of a median shape.

    Parameters
    ----------
    dims : sequence of int
        Median shape, (Z, Y, X) or (C, Z, Y, X) in voxels.
    max_dims : sequence of int, default (128, 128, 128)
        Its product bounds the voxels of a patch; its smallest side over
        2**max_pool is the smallest feature map.
    max_pool : int, default 5
        Most poolings along an axis.
    epsilon : float, default 1e-3
        Axes shrink by powers of 1 + epsilon; the result hardly depends on it.

    Returns
    -------
    patch : ndarray, shape (3,)
        In voxels.
    pool : ndarray, shape (3,)
        Poolings along (Z, Y, X).
    batch : ndarray, shape ()
        Even, at least 2, not bounded above.

    Raises
    ------
    UnfitShapeError
        If `dims` has not 3 or 4 axes, an axis is not positive, or `max_dims` is
        too small for `max_pool`.

    Notes
    -----
    After biom3d `find_patch_pool_batch`. Differs where that fails: two axes
    that become equal while growing (a crash there), products beyond 64 bits
    (the whole image there), and a patch that 2**pool does not divide (the
    number of poolings is lowered here). As there, a patch may reach beyond the
    image; `make_plan` with the memory planner keeps it within 1.25 times.
    """
    shape = _spatial_shape(dims)
    voxels = math.prod(int(n) for n in max_dims)
    smallest = _smallest_feature_map(max_dims, max_pool)
    fitted = _shrink(shape, max_dims, epsilon) if math.prod(shape) > voxels else shape
    step = [2**n for n in _poolings(fitted, smallest, max_pool)]
    patch = _grow([n // s * s for n, s in zip(fitted, step, strict=True)], step, shape, voxels)
    patch = [1 if n == 1 else side for n, side in zip(shape, patch, strict=True)]
    pool = [
        min(n, halvings(side))
        for n, side in zip(_poolings(patch, smallest, max_pool), patch, strict=True)
    ]
    batch = max(2, 2 * (voxels // math.prod(patch)))
    return _ints(patch), _ints(pool), np.asarray(batch, np.int64)


def get_aug_patch(patch_size: Sequence[int] | Ints) -> Ints:
    """The patch to cut so that any rotation of the wanted patch lies inside it.

    Parameters
    ----------
    patch_size : sequence of int
        In voxels.

    Returns
    -------
    ndarray, shape (3,)
        The diagonal of the patch on every axis; where the longest side is over
        three times the shortest, the diagonal of the others, the shortest kept.

    Notes
    -----
    After biom3d `get_aug_patch`, which goes by voxel counts alone;
    `augmentation_patch` goes by spacing and the rotations that are configured.
    The module run as a script there uses another rule, patch + 2**(pool + 1).
    """
    sides = [int(n) for n in patch_size]
    shortest = min(range(len(sides)), key=sides.__getitem__)
    flat = max(sides) / sides[shortest] > 3
    turning = [n for i, n in enumerate(sides) if not (flat and i == shortest)]
    diagonal = round(math.sqrt(sum(n * n for n in turning)))
    return _ints([n if flat and i == shortest else diagonal for i, n in enumerate(sides)])


def auto_config(
    img_path: str | Path | None = None,
    median: Sequence[int] | Ints | None = None,
    max_dims: Sequence[int] = (128, 128, 128),
    max_batch: int = 16,
    min_batch: int = 2,
) -> tuple[Ints, Ints, Ints, Ints]:
    """Batch size, augmentation patch, patch and poolings for a folder or a median shape.

    Parameters
    ----------
    img_path : path-like, optional
        A folder of images; only headers are read. Not looked at where `median` is given.
    median : sequence of int, optional
        Median shape, (Z, Y, X) or (C, Z, Y, X) in voxels.
    max_dims : sequence of int, default (128, 128, 128)
        Its product bounds the voxels of a patch.
    max_batch, min_batch : int
        The batch size is brought into this range; `min_batch` wins where they cross.

    Returns
    -------
    batch : ndarray, shape ()
    aug_patch, patch, pool : ndarray, shape (3,)

    Raises
    ------
    UnfitShapeError
        If neither a path nor a median is given, or no plan can be made from it.
    SourceError
        If the folder or a file in it cannot be read.

    Notes
    -----
    After biom3d `auto_config`. Its documentation gives 16 as the default of
    `min_batch`; its signature, which is followed here, gives 2.
    """
    if median is None:
        if img_path is None:
            raise UnfitShapeError("auto_config: neither img_path nor median is given; give one")
        from volprep.headers import compute_median

        found = compute_median(img_path)
        median = found if isinstance(found, np.ndarray) else found[0]
    patch, pool, batch = find_patch_pool_batch(median, max_dims)
    bounded = np.asarray(max(min_batch, min(max_batch, int(batch))), np.int64)
    return bounded, get_aug_patch(patch), patch, pool


def display_info(patch: Sequence[int] | Ints, pool: Sequence[int] | Ints, batch: Any) -> None:
    """Print patch, poolings and batch as lines that a biom3d configuration takes.

    Parameters
    ----------
    patch, pool : sequence of int
        Along (Z, Y, X).
    batch : int or array of one element
        Batch size.
    """
    lines = [
        "# for a biom3d configuration file",
        f"BATCH_SIZE = {_number(batch)}",
        f"PATCH_SIZE = {_plain(patch)}",
        f"AUG_PATCH_SIZE = {get_aug_patch(patch).tolist()}",
        f"NUM_POOLS = {_plain(pool)}",
    ]
    print("\n".join(lines))


def parameters_return(
    patch: Sequence[int] | Ints,
    pool: Sequence[int] | Ints,
    batch: Any,
    config_path: str | Path,
    median_spacing: Sequence[float] | npt.NDArray[np.float64] | None = None,
) -> None:
    """Print the parameters one a line, for a program that reads them.

    Parameters
    ----------
    patch, pool : sequence of int
        Along (Z, Y, X).
    batch : int or array of one element
        Batch size.
    config_path : path-like
        The configuration file they belong to.
    median_spacing : sequence of float, optional
        Median spacing of the data set.

    Notes
    -----
    As biom3d prints them: batch, patch, augmentation patch, poolings, spacing, path.
    Lists are written with commas, so that they can be read back; biom3d writes numpy's.
    """
    spacing = None if median_spacing is None else [float(s) for s in median_spacing]
    values = [_number(batch), _plain(patch), get_aug_patch(patch).tolist(), _plain(pool), spacing]
    print("\n".join(str(v) for v in [*values, config_path]))


def _spatial_shape(dims: Sequence[int] | Ints) -> list[int]:
    shape = [int(n) for n in dims]
    if len(shape) not in (3, 4):
        raise UnfitShapeError(
            f"median shape {shape}: {len(shape)} axes; give (Z, Y, X) or (C, Z, Y, X)"
        )
    if min(shape[-3:]) < 1:
        raise UnfitShapeError(f"median shape {shape}: every axis must be at least 1 voxel")
    return shape[-3:]


def _smallest_feature_map(max_dims: Sequence[int], max_pool: int) -> int:
    shortest = min(int(n) for n in max_dims)
    if shortest < 2**max_pool:
        raise UnfitShapeError(
            f"max_dims {_plain(max_dims)}: {shortest} voxels cannot be pooled {max_pool} times; "
            f"give at least {2**max_pool} on every axis, or max_pool {shortest.bit_length() - 1}"
        )
    smallest: int = shortest // 2**max_pool
    return smallest


def _shrink(shape: Sequence[int], max_dims: Sequence[int], epsilon: float) -> list[int]:
    """Divide all axes by one factor until the volume fits; an axis that reaches 1 stops there."""
    unit = np.log(1 + epsilon)
    possible = np.log(np.array(shape, np.float64))
    needed = (possible.sum() - np.log(np.array(max_dims, np.float64)).sum()) / unit
    possible = possible / unit
    reduction = np.full(len(shape), needed / len(shape))
    while np.any(spent := reduction > possible):
        rest = (needed - possible[spent].sum()) / np.count_nonzero(~spent)
        reduction = np.where(spent, possible, rest)
    return [max(1, int(n)) for n in np.floor(np.array(shape) / (1 + epsilon) ** reduction)]


def _poolings(shape: Sequence[int], smallest: int, max_pool: int) -> list[int]:
    """How often each axis can be halved before it is under the smallest feature map."""
    return [min(max_pool, max(0, (n // smallest).bit_length() - 1)) for n in shape]


def _grow(patch: list[int], step: list[int], shape: list[int], voxels: int) -> list[int]:
    """Lengthen sides by their step: all of them, then the long ones, the short ones last."""
    for flags in _growth_order(len(set(patch))):
        sides = sorted(set(patch), reverse=True)
        # Sides that have become equal in an earlier turn all grow; spare flags are not used.
        chosen = set(sides) if len(sides) == 1 else {n for n, f in zip(sides, flags) if f}  # noqa: B905
        growing = [side in chosen for side in patch]
        patch = _lengthen(patch, [s * g for s, g in zip(step, growing, strict=True)], shape, voxels)
    return patch


def _growth_order(sides: int) -> Iterator[tuple[bool, ...]]:
    """Every choice of sides, longest first, but the empty one."""
    return (flags for flags in product([True, False], repeat=sides) if any(flags))


def _lengthen(patch: list[int], step: list[int], shape: list[int], voxels: int) -> list[int]:
    """Add `step` as often as the volume allows and some growing side is short of the image."""
    times = max(
        (-(-(n - side) // s) for n, side, s in zip(shape, patch, step, strict=True) if s),
        default=0,
    )
    low, high = 0, max(0, times)
    while low < high:
        middle = (low + high + 1) // 2
        if math.prod(p + middle * s for p, s in zip(patch, step, strict=True)) <= voxels:
            low = middle
        else:
            high = middle - 1
    return [p + low * s for p, s in zip(patch, step, strict=True)]


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)


def _number(value: Any) -> int:
    """A whole number, or an array of one, of any shape."""
    return int(np.asarray(value).item())


def _plain(values: Sequence[int] | Ints) -> list[int]:
    return [int(v) for v in values]
