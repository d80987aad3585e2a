"""How many places a set offers, and how many patches of it are worth storing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from volprep.files import format_bytes
from volprep.geometry import Shape3, three

__all__ = [
    "FEW_POSITIONS",
    "EpochPlan",
    "Store",
    "choose_store",
    "distinct_positions",
    "few_positions",
    "plan_epoch",
    "stored_size",
]

Store = Literal["patches", "volumes"]

#: Fewer distinct places than this repeat themselves within minutes of training.
FEW_POSITIONS = 50
#: How often patches may cover the training voxels. Powers of two, so that one case more
#: seldom changes it; beyond the last one, another patch shows hardly anything new.
COVERS = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The numbers of an epoch.

    Attributes
    ----------
    steps : int
        Batches.
    positions : int
        Distinct places of a patch in the training regions.
    cover : int
        How often the patches that are worth storing cover the training voxels.
    patches : int
        Worth storing.
    reason : str
        Why so many.
    """

    steps: int
    positions: int
    cover: int
    patches: int
    reason: str


def few_positions(positions: int | None) -> str | None:
    """What to say of a set with few places; None where there are enough, or none is known."""
    if positions is None or positions >= FEW_POSITIONS:
        return None
    places = "place" if positions == 1 else "places"
    return f"the training data offers {positions} distinct {places} for a patch"


def distinct_positions(regions: Sequence[Shape3], patch_size: Shape3) -> int:
    """In how many places a patch can lie.

    Parameters
    ----------
    regions : sequence of (Z, Y, X)
        Shapes of the training regions, in voxels. Along an axis that is shorter than the
        patch there is one place.
    patch_size : (Z, Y, X)
        In voxels.
    """
    return sum(
        math.prod(max(1, n - p + 1) for n, p in zip(region, patch_size, strict=True))
        for region in regions
    )


def plan_epoch(
    regions: Sequence[Shape3],
    patch_size: Shape3,
    stored_size: Shape3,
    *,
    batch_size: int,
    steps: int,
) -> EpochPlan:
    """Decide how many patches to store.

    Parameters
    ----------
    regions : sequence of (Z, Y, X)
        Shapes of the training regions, in voxels.
    patch_size, stored_size : (Z, Y, X)
        Of the network's input, and of what is stored for it.
    batch_size, steps : int
        Patches of a batch, and batches of an epoch.

    Returns
    -------
    EpochPlan

    Notes
    -----
    As many as one epoch draws, so that none need come twice in it, in whole covers of the
    training voxels: two at least, which for large data is more, and 16 at most, which for
    small data is less. One cover is enough where a region holds no second place. Each draw is
    cut and augmented anew. nnU-Net stores volumes and draws places anew in each of its 250
    steps an epoch.
    """
    tiles = sum(
        math.prod(-(-n // p) for n, p in zip(region, stored_size, strict=True))
        for region in regions
    )
    drawn = steps * batch_size
    cover = next((c for c in COVERS if c * tiles >= drawn), COVERS[-1])
    reason = f"as many as an epoch of {steps} batches draws, in whole covers of the training voxels"
    if cover == COVERS[0]:
        reason = "they cover the training voxels twice"
    elif cover * tiles < drawn:
        reason = f"they cover the training voxels {cover} times; more would show hardly more"
    if distinct_positions(regions, stored_size) <= tiles:
        cover, reason = 1, "a stored patch has one place only"
    return EpochPlan(steps, distinct_positions(regions, patch_size), cover, cover * tiles, reason)


def choose_store(asked: Store | Literal["auto"], patches: int, volumes: int) -> tuple[Store, str]:
    """Whether patches are cut once, or volumes kept to draw from; and why.

    Parameters
    ----------
    asked : {'patches', 'volumes', 'auto'}
        ``auto`` takes what needs less room: volumes for nearly every set that fits a disk,
        patches for sparse samples of huge data.
    patches, volumes : int
        Bytes that each would take before they are compressed.
    """
    room = f"the patches are {format_bytes(patches)}, the volumes {format_bytes(volumes)}"
    if asked != "auto":
        return asked, f"output.store is {asked}; uncompressed, {room}"
    if volumes < patches:
        return "volumes", f"they need less room, and every epoch draws new places; {room}"
    return "patches", f"they need less room than the volumes that they are cut from; {room}"


def stored_size(patch_size: Shape3, augmented: Shape3, regions: Sequence[Shape3]) -> Shape3:
    """The augmentation patch, but nowhere beyond the largest region and the patch itself."""
    widest = [max(axis) for axis in zip(*regions, strict=True)]
    return three([max(p, min(a, w)) for p, a, w in zip(patch_size, augmented, widest, strict=True)])
