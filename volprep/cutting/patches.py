"""Cutting: where each patch of a split comes from, and its voxels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import groupby, starmap
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from volprep.geometry import Box, Shape3, Spacing3, VolumeLike, three
from volprep.skeletons import Skeletons
from volprep.sources import gather
from volprep.targets import LabelPatch, Target, make_targets

__all__ = ["PadMode", "PreparedCase", "Site", "cut_patches", "cut_voxels", "pad_of", "read_patch"]

PadMode = Literal["reflect", "edge", "constant"]
_VOXELS = ("image", "label", "mask")
_Result = TypeVar("_Result")
#: Patches that are made while others are written.
_AHEAD = 8


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
    """Where one patch is cut: a case, the region it may see, and its first voxel.

    `shown` is where in it that begins which the place was drawn for.
    """

    case: int
    region: Box
    start: Shape3
    shown: Shape3 = (0, 0, 0)

    def row(self) -> list[int]:
        """Its numbers, as a table of sites keeps them."""
        return [self.case, *self.start, *self.region.start, *self.region.stop, *self.shown]

    @classmethod
    def of_row(cls, row: Sequence[int]) -> Site:
        """The site of a row of a table."""
        case, *rest = row
        start, low, high, shown = (three(rest[n : n + 3]) for n in (0, 3, 6, 9))
        return cls(case, Box(low, high), start, shown)


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
    return _padded(volume.read(region.common(box)), region, box, mode)


def _padded(voxels: npt.NDArray[Any], region: Box, box: Box, mode: PadMode) -> npt.NDArray[Any]:
    before, after = pad_of(region, box)
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
    sites: Iterable[Site],
    patch_size: Shape3,
    dtypes: Mapping[str, np.dtype[Any]],
    mode: PadMode,
    targets: Sequence[Target] = (),
    spacing: Spacing3 | None = None,
    *,
    pool: Executor | None = None,
    finish: Callable[[dict[str, npt.NDArray[Any]]], Any] = lambda arrays: arrays,
) -> Iterator[tuple[Any, list[int]]]:
    """The arrays and the index row of each site, in order, one at a time.

    Parameters
    ----------
    cases : sequence of PreparedCase
    sites : iterable of Site
        Those of one case in a row that ascend in z are cut in one pass over its files, in
        which every chunk is decoded once; see `volprep.sources.gather`.
    patch_size : (Z, Y, X)
    dtypes : mapping
        ``image``, and ``label`` and ``mask`` where the set has them. A case without
        a label gets zeros, one without a mask is valid everywhere.
    mode : {'reflect', 'edge', 'constant'}
    targets : sequence of Target
        Made from the label and the case's skeletons.
    spacing : (Z, Y, X) or None
        Of the voxels, which distances are measured with; None takes cubes.
    pool : Executor or None
        Threads that decode and finish; None does it in the calling one.
    finish : callable
        Of the arrays; what it makes of them is given in their place.

    Yields
    ------
    arrays : dict of ndarray
        ``image`` (C, Z, Y, X), ``label`` and ``mask`` (Z, Y, X), and the targets.
    row : list of int
        As `volprep.store.INDEX_COLUMNS`.
    """
    names = [name for name in _VOXELS if name in dtypes]

    def made(site: Site, parts: Sequence[npt.NDArray[Any] | None]) -> tuple[Any, list[int]]:
        box = Box.at(site.start, patch_size)
        arrays = _arranged(dict(zip(names, parts, strict=True)), site.region, box, mode)
        if targets:
            case = cases[site.case]
            points = (case.skeletons or Skeletons.from_points({})).crop(box, arrays["label"])
            patch = LabelPatch(arrays["label"], spacing or (1.0, 1.0, 1.0), points)
            arrays |= make_targets(targets, patch)
        foreground = int(np.count_nonzero(arrays["label"])) if "label" in arrays else 0
        before, after = pad_of(site.region, box)
        arrays |= {n: arrays[n].astype(dtype, copy=False) for n, dtype in dtypes.items()}
        row = [site.case, *site.start, *before, *after, foreground, *site.shown]
        return finish(arrays), row

    for number, group in groupby(sites, key=lambda site: site.case):
        own = list(group)
        volumes = [getattr(cases[number], name) for name in names]
        boxes = [site.region.common(Box.at(site.start, patch_size)) for site in own]
        found = zip(own, gather(volumes, boxes, pool=pool), strict=True)
        yield from _ahead(made, found, pool)


def _ahead(
    made: Callable[..., _Result], found: Iterable[tuple[Any, Any]], pool: Executor | None
) -> Iterator[_Result]:
    """The results in order; some are made while others are handed out."""
    if pool is None:
        yield from starmap(made, found)
        return
    waiting: deque[Future[_Result]] = deque()
    try:
        for pair in found:
            waiting.append(pool.submit(made, *pair))
            while waiting and (len(waiting) > _AHEAD or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def cut_voxels(
    case: PreparedCase, region: Box, box: Box, names: Iterable[str], mode: PadMode
) -> dict[str, npt.NDArray[Any]]:
    """What a case holds in a box: ``image`` (C, Z, Y, X), ``label`` and ``mask`` (Z, Y, X).

    A case without a label has zeros, one without a mask is valid in the whole region; nothing
    is valid beyond it.
    """
    names = list(names)
    volumes = {name: getattr(case, name) for name in names}
    inner = region.common(box)
    parts = {n: None if volume is None else volume.read(inner) for n, volume in volumes.items()}
    return _arranged(parts, region, box, mode)


def _arranged(
    parts: Mapping[str, npt.NDArray[Any] | None], region: Box, box: Box, mode: PadMode
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a box from what was read of it inside the region."""
    arrays = {}
    for name, part in parts.items():
        if part is None:
            arrays[name] = np.full(box.shape, name == "mask", np.uint8)
        else:
            whole = _padded(part, region, box, mode)
            arrays[name] = whole if name == "image" else whole[0]
        if name == "mask":
            arrays[name] = (arrays[name] != 0) & _inside(region, box)
    return arrays


def _inside(region: Box, box: Box) -> npt.NDArray[np.bool_]:
    """Where the box lies in the region: what was filled in is no annotation."""
    inside = np.zeros(box.shape, bool)
    before, after = pad_of(region, box)
    inside[tuple(slice(b, n - a) for b, a, n in zip(before, after, box.shape, strict=True))] = True
    return inside
