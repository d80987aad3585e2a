"""Cutting: where each patch of a split comes from, and its voxels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3, Spacing3, VolumeLike
from volprep.skeletons import Skeletons
from volprep.targets import LabelPatch, Target, make_targets

__all__ = ["PadMode", "PreparedCase", "Site", "cut_patches", "cut_voxels", "pad_of", "read_patch"]

PadMode = Literal["reflect", "edge", "constant"]
_VOXELS = ("image", "label", "mask")


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """A case whose voxels are ready to be cut: preprocessed, or as the files have it."""

    name: str
    image: VolumeLike
    label: VolumeLike | None
    mask: VolumeLike | None
    skeletons: Skeletons | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where one patch is cut: a case, the region it may see, and its first voxel."""

    case: int
    region: Box
    start: Shape3


def read_patch(
    volume: VolumeLike, region: Box, box: Box, mode: PadMode = "reflect"
) -> npt.NDArray[Any]:
    """The voxels of `box`, those outside `region` filled from the inside.

    Parameters
    ----------
    volume : VolumeLike
    region : Box
        Inside the volume. Nothing beyond it is read: a training patch never
        holds a voxel of the validation block beside it.
    box : Box
        Overlaps the region.
    mode : {'reflect', 'edge', 'constant'}
        As `numpy.pad`; ``constant`` is 0.

    Returns
    -------
    ndarray, shape (C, Z, Y, X)
    """
    before, after = pad_of(region, box)
    voxels = volume.read(region.common(box))
    if not any(before) and not any(after):
        return voxels
    widths = [(0, 0), *zip(before, after, strict=True)]
    return np.pad(voxels, widths, mode=mode)


def pad_of(region: Box, box: Box) -> tuple[Shape3, Shape3]:
    """Voxels of `box` that lie before and after `region`, along (Z, Y, X)."""
    before = [max(0, r - b) for r, b in zip(region.start, box.start, strict=True)]
    after = [max(0, b - r) for r, b in zip(region.stop, box.stop, strict=True)]
    return (before[0], before[1], before[2]), (after[0], after[1], after[2])


def cut_patches(
    cases: Sequence[PreparedCase],
    sites: Sequence[Site],
    patch_size: Shape3,
    dtypes: dict[str, np.dtype[Any]],
    mode: PadMode,
    targets: Sequence[Target] = (),
    spacing: Spacing3 | None = None,
) -> Iterator[tuple[dict[str, npt.NDArray[Any]], list[int]]]:
    """The arrays and the index row of each site, in order, one at a time.

    Parameters
    ----------
    cases : sequence of PreparedCase
    sites : sequence of Site
    patch_size : (Z, Y, X)
    dtypes : dict
        ``image``, and ``label`` and ``mask`` where the set has them. A case without
        a label gets zeros, one without a mask is valid everywhere.
    mode : {'reflect', 'edge', 'constant'}
    targets : sequence of Target
        Made from the label and the case's skeletons.
    spacing : (Z, Y, X) or None
        Of the voxels, which distances are measured with; None takes cubes.

    Yields
    ------
    arrays : dict of ndarray
        ``image`` (C, Z, Y, X), ``label`` and ``mask`` (Z, Y, X), and the targets.
    row : list of int
        As `volprep.store.INDEX_COLUMNS`.
    """
    for site in sites:
        case = cases[site.case]
        box = Box.at(site.start, patch_size)
        arrays = cut_voxels(case, site.region, box, [n for n in _VOXELS if n in dtypes], mode)
        if targets:
            points = (case.skeletons or Skeletons.from_points({})).crop(box, arrays["label"])
            patch = LabelPatch(arrays["label"], spacing or (1.0, 1.0, 1.0), points)
            arrays |= make_targets(targets, patch)
        foreground = int(np.count_nonzero(arrays["label"])) if "label" in arrays else 0
        before, after = pad_of(site.region, box)
        arrays |= {n: arrays[n].astype(dtype, copy=False) for n, dtype in dtypes.items()}
        yield arrays, [site.case, *site.start, *before, *after, foreground]


def cut_voxels(
    case: PreparedCase, region: Box, box: Box, names: Iterable[str], mode: PadMode
) -> dict[str, npt.NDArray[Any]]:
    """What a case holds in a box: ``image`` (C, Z, Y, X), ``label`` and ``mask`` (Z, Y, X).

    A case without a label has zeros, one without a mask is valid in the whole region; nothing
    is valid beyond it.
    """
    arrays = {}
    for name in names:
        if name == "image":
            arrays[name] = read_patch(case.image, region, box, mode)
        elif name == "label":
            arrays[name] = _plane(case.label, region, box, mode, 0)
        else:
            arrays[name] = (_plane(case.mask, region, box, mode, 1) != 0) & _inside(region, box)
    return arrays


def _plane(
    volume: VolumeLike | None, region: Box, box: Box, mode: PadMode, absent: int
) -> npt.NDArray[Any]:
    if volume is None:
        return np.full(box.shape, absent, np.uint8)
    plane: npt.NDArray[Any] = read_patch(volume, region, box, mode)[0]
    return plane


def _inside(region: Box, box: Box) -> npt.NDArray[np.bool_]:
    """Where the box lies in the region: what was filled in is no annotation."""
    inside = np.zeros(box.shape, bool)
    before, after = pad_of(region, box)
    inside[tuple(slice(b, n - a) for b, a, n in zip(before, after, box.shape, strict=True))] = True
    return inside
