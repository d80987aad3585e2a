"""Targets made from labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, three
from volprep.kernels.targets import (
    deepest,
    mark_boundaries,
    mark_connected,
    point_inwards,
    spread,
    spread_times,
)
from volprep.targets.patch import LabelPatch
from volprep.targets.target import Target, TargetArray

__all__ = [
    "Affinities",
    "Binary",
    "Blobs",
    "Boundary",
    "Flow",
    "InstanceDistance",
    "OneHot",
    "SignedDistance",
    "SizeWeight",
]

Arrays = Mapping[str, npt.NDArray[Any]]
#: Voxels to a neighbour, channels of one target, voxels of a blob: more are slips of the finger.
_FARTHEST, _MOST_CHANNELS, _WIDEST = 4096, 4096, 1000
_BYTE, _FLOAT = np.dtype(np.uint8), np.dtype(np.float32)


@dataclass(frozen=True)
class Binary(Target):
    """``binary`` uint8 (Z, Y, X): 1 where there is any label (PyTorch Connectomics' target 0)."""

    name: ClassVar[str] = "binary"

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array."""
        return (TargetArray("binary", None, _BYTE),)

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        np.greater(patch.label, 0, out=out["binary"].view(bool))


@dataclass(frozen=True)
class Affinities(Target):
    """Whether a voxel and its neighbour at each offset are of one instance.

    Parameters
    ----------
    offsets : sequence of (Z, Y, X), optional
        None takes the voxel before along each axis: three channels, or two in 2D, where
        sections have no neighbours.

    Notes
    -----
    ``affinities`` uint8 (K, Z, Y, X), and ``affinities_mask`` uint8 of the same shape: 0
    where the neighbour lies beyond the patch, so that nothing is known of it and the
    affinity says 0. After malis and gunpowder's `AddAffinities`; PyTorch Connectomics
    repeats the values of the next row there instead.
    """

    name: ClassVar[str] = "affinities"
    offsets: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if self.offsets is not None:
            if not _are_offsets(self.offsets):
                raise ValueError(
                    f"affinities.offsets: found {self.offsets!r}; wanted a list of (z, y, x), "
                    "none of them zero, such as [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]"
                )
            object.__setattr__(self, "offsets", [three(offset) for offset in self.offsets])

    def _offsets(self, size: Shape3) -> list[Shape3]:
        if self.offsets is not None:
            return [three(offset) for offset in self.offsets]
        nearest: list[Shape3] = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
        return nearest[1:] if size[0] == 1 else nearest

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """The affinities and where they are known."""
        count = len(self._offsets(size))
        return (
            TargetArray("affinities", count, _BYTE),
            TargetArray("affinities_mask", count, _BYTE),
        )

    def margin(self, size: Shape3) -> Shape3:
        """The longest offset along each axis."""
        return three([max(abs(o[a]) for o in self._offsets(size)) for a in range(3)])

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        offsets = self._offsets(patch.shape)
        found, known = out["affinities"], out["affinities_mask"]
        known[:] = 0
        for n, offset in enumerate(offsets):
            mark_connected(patch.codes, offset, found[n])
            inside = [
                slice(max(0, -o), min(s, s - o)) if abs(o) < s else slice(0)
                for o, s in zip(offset, patch.shape, strict=True)
            ]
            known[(n, *inside)] = 1


def _are_offsets(offsets: Any) -> bool:
    """Whether they are one or more (Z, Y, X) of whole numbers in reach, none of them zero."""
    return (
        isinstance(offsets, Sequence)
        and len(offsets) > 0
        and all(
            isinstance(offset, Sequence)
            and len(offset) == 3
            and all(isinstance(n, int) and abs(n) <= _FARTHEST for n in offset)
            and any(offset)
            for offset in offsets
        )
    )


@dataclass(frozen=True)
class Boundary(Target):
    """``boundary`` uint8 (Z, Y, X): 1 where a voxel's face neighbour has another label.

    Parameters
    ----------
    mode : {'thick', 'inner'}
        Both sides of a border, or the instances' side alone; as
        `skimage.segmentation.find_boundaries`, to which it is equal.
    in_plane : bool
        Whether only neighbours in the section count, as suits thick sections.
    """

    name: ClassVar[str] = "boundary"
    mode: Literal["thick", "inner"] = "thick"
    in_plane: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("thick", "inner"):
            raise ValueError(f"boundary.mode: found {self.mode!r}; wanted thick or inner")

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array."""
        return (TargetArray("boundary", None, _BYTE),)

    def margin(self, size: Shape3) -> Shape3:
        """One voxel."""
        return 0 if self.in_plane or size[0] == 1 else 1, 1, 1

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        inner = self.mode == "inner"
        mark_boundaries(patch.codes, bool(self.in_plane), inner, out["boundary"])


@dataclass(frozen=True)
class SignedDistance(Target):
    """``signed_distance`` float32 (Z, Y, X) in -1 to 1: ``tanh(distance / scale)``.

    Positive within instances, negative in the background; the distance is the exact one to
    the nearest voxel of another label, in units of the finest axis.

    Parameters
    ----------
    scale : float
        In finest voxels.

    Notes
    -----
    After elektronn3's `DistanceTransformTarget` (whose scale is 50) and PyTorch Connectomics'
    semantic distance (8); there touching instances are one, here their border counts.
    """

    name: ClassVar[str] = "signed_distance"
    scale: float = 8.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"signed_distance.scale: found {self.scale}; wanted more than 0")

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array."""
        return (TargetArray("signed_distance", None, _FLOAT),)

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        made = out["signed_distance"]
        np.multiply(patch.depth, np.float32(1 / self.scale), out=made)
        np.tanh(made, out=made)
        np.negative(made, out=made, where=patch.codes == 0)


@dataclass(frozen=True)
class InstanceDistance(Target):
    """``instance_distance`` float32 (Z, Y, X): depth in the instance over its greatest depth.

    0 in the background, 1 at the middle of each instance, as PyTorch Connectomics' instance
    distance (target 5, not quantised). The greatest depth is that within the patch.
    """

    name: ClassVar[str] = "instance_distance"

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array."""
        return (TargetArray("instance_distance", None, _FLOAT),)

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        top = np.zeros(len(patch.counts), np.float32)
        deepest(patch.codes, patch.depth, top)
        top[0] = np.inf  # of which every share is 0
        top[top == 0] = 1
        spread_times(patch.codes, 1 / top, patch.depth, out["instance_distance"])


@dataclass(frozen=True)
class Flow(Target):
    """``flow`` float32 (3, Z, Y, X): unit vectors (z, y, x) towards the middle of each instance.

    Notes
    -----
    As cellpose's flows are followed to a common point, these are; they are the slope of the
    distance to the border, which Omnipose put in place of cellpose's diffusion, since it
    suits long and bent instances, too, and takes one pass. 0 in the background and where the
    slope is level. Lengths count in units of the finest axis.
    """

    name: ClassVar[str] = "flow"

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array of three channels."""
        return (TargetArray("flow", 3, _FLOAT),)

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        point_inwards(patch.codes, patch.depth, patch.size, out["flow"])


@dataclass(frozen=True)
class SizeWeight(Target):
    """``size_weight`` float32 (Z, Y, X): every instance, and the background, weighs the same.

    Parameters
    ----------
    limit : float
        The greatest weight; the least is its inverse.

    Notes
    -----
    Inverse weighting after Shirokikh et al. ("Universal loss reweighting to balance lesion
    size inequality in 3D medical image segmentation", 2020): a voxel of an instance of V
    voxels weighs N / (K V), where the patch holds N voxels and K instances with the
    background. There an instance is a connected part, here an id.
    """

    name: ClassVar[str] = "size_weight"
    limit: float = 10.0

    def __post_init__(self) -> None:
        if not self.limit >= 1:
            raise ValueError(f"size_weight.limit: found {self.limit}; wanted 1 or more")

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array."""
        return (TargetArray("size_weight", None, _FLOAT),)

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        counts = patch.counts
        weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        bounded = np.clip(weights, 1 / self.limit, self.limit).astype(np.float32)
        spread(patch.codes, bounded, out["size_weight"])


@dataclass(frozen=True)
class OneHot(Target):
    """``one_hot`` uint8 (K, Z, Y, X): 1 in the channel of each voxel's class.

    Parameters
    ----------
    classes : int
        How many; a label that is none of 0 to ``classes - 1`` (ignored voxels) has no channel.
    """

    name: ClassVar[str] = "one_hot"
    classes: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= _MOST_CHANNELS:
            raise ValueError(f"one_hot.classes: found {self.classes}; wanted 1 to {_MOST_CHANNELS}")

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array of a channel for each class."""
        return (TargetArray("one_hot", self.classes, _BYTE),)

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        for value in range(self.classes):
            np.equal(patch.label, value, out=out["one_hot"][value].view(bool))


@dataclass(frozen=True)
class Blobs(Target):
    """``blobs`` float32 (Z, Y, X): a Gaussian around the middle of each instance, 1 at its top.

    What detectors of cells and synapses learn, above all of points (`data.points`), each of
    which is a ball with the point as its middle. 0 beyond four times `sigma`; where blobs meet,
    the higher one counts.

    Parameters
    ----------
    sigma : float
        The width of the Gaussians in µm, in voxels of the finest axis where the spacing is not
        known.

    Notes
    -----
    After the "Gaussian heat maps" of Tompson et al. 2014, with a width in µm along every axis.
    Of an instance that the patch cuts the middle is that of the part in the patch.
    """

    name: ClassVar[str] = "blobs"
    sigma: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= _WIDEST:
            raise ValueError(
                f"blobs.sigma: found {self.sigma}; wanted more than 0, {_WIDEST} at most"
            )

    def arrays(self, size: Shape3) -> tuple[TargetArray, ...]:
        """One array."""
        return (TargetArray("blobs", None, _FLOAT),)

    def make(self, patch: LabelPatch, out: Arrays) -> None:
        """Fill it."""
        made = out["blobs"]
        made[...] = 0
        for middle in _middles(patch.codes):
            window, profiles = [], []
            for place, step, count in zip(middle, patch.voxel, patch.shape, strict=True):
                reach = _BLOB_REACH * self.sigma / step
                first, last = max(0, int(place - reach)), min(count, int(place + reach) + 2)
                offsets = (np.arange(first, last) - place) * (step / self.sigma)
                profile = np.exp(-0.5 * offsets**2)
                profile[np.abs(offsets) > _BLOB_REACH] = 0
                window.append(slice(first, last))
                profiles.append(profile)
            z, y, x = profiles
            blob = (z[:, None, None] * (y[:, None] * x)).astype(np.float32)
            part = made[tuple(window)]
            np.maximum(part, blob, out=part)


#: Sigmas after which a blob is 0.
_BLOB_REACH = 4.0


def _middles(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """(K, 3): the mean place of the voxels of each code from 1 on."""
    inside = np.flatnonzero(codes)
    own = codes.reshape(-1)[inside]
    counts = np.bincount(own)[1:]
    places = np.unravel_index(inside, codes.shape)
    sums = [np.bincount(own, weights=axis)[1:] for axis in places]
    means: npt.NDArray[np.float64] = np.stack(sums, 1) / counts[:, None]
    return means
