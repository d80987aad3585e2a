"""What to learn, with which loss and optimiser: the field's defaults for a kind of labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from volprep.autoconfig.augmentation import ANISOTROPIC
from volprep.geometry import Shape3, Spacing3

__all__ = ["Recipe", "training_recipe"]

#: With less background than this, instances fill space and there is no foreground to find.
LITTLE_BACKGROUND = 0.02

#: nnU-Net's: 1000 epochs, and the rate falls to 0 in a straight line but for the power.
OPTIMISER: dict[str, Any] = {
    "name": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.99,
    "nesterov": True,
    "weight_decay": 3e-5,
    "schedule": "poly",
    "power": 0.9,
    "epochs": 1000,
    "clip_gradient_norm": 12.0,
}


@dataclass(frozen=True)
class Recipe:
    """A suggestion for a trainer.

    Attributes
    ----------
    targets : list
        What to make of the labels of instances, as `volprep.targets.targets_from_config`
        reads it; empty for classes, which are learnt as they are.
    channels : list of str
        Of the network's output.
    loss : dict or None
        ``name``: ``dice_ce`` (softmax over the channels) or ``dice_bce`` (each for itself);
        None without labels.
    supervised : list of (Z, Y, X)
        Downsampling of each output under deep supervision, the full resolution first.
    weights : list of float
        Of the loss at each; their sum is 1.
    optimiser : dict
    """

    targets: list[Any]
    channels: list[str]
    loss: dict[str, Any] | None
    supervised: list[Shape3]
    weights: list[float]
    optimiser: dict[str, Any] = field(default_factory=lambda: dict(OPTIMISER))


def training_recipe(
    kind: Literal["instances", "classes"] | None,
    strides: Sequence[Shape3],
    *,
    class_names: Sequence[str] | None = None,
    background: float = 1.0,
    spacing: Spacing3 | None = None,
    targets: Sequence[Any] = (),
) -> Recipe:
    """The defaults of the field for a kind of labels.

    Parameters
    ----------
    kind : {'instances', 'classes'} or None
        None without labels: nothing is suggested.
    strides : sequence of (Z, Y, X)
        Of the network's stages, the outermost first.
    class_names : sequence of str or None
        For classes.
    background : float
        Share of the labelled training voxels that are 0.
    spacing : (Z, Y, X) or None
        Of the voxels.
    targets : sequence
        The user's own; they are kept.

    Returns
    -------
    Recipe

    Notes
    -----
    Classes: nnU-Net's soft Dice and cross-entropy, and its deep supervision, whose weights
    halve from output to output, the coarsest having none. Instances: binary and boundary
    maps, as in PyTorch Connectomics' configs for mitochondria and nuclei, boundaries in the
    plane alone where sections are thick; affinities to the three neighbours where instances
    fill space, as for neurons.
    """
    scales = list(_cumulative(strides))[: max(1, len(strides) - 1)]
    halves = [0.5**i for i in range(len(scales))]
    if len(scales) > 1:
        halves[-1] = 0.0
    weights = [w / sum(halves) for w in halves]
    if kind == "classes":
        names = list(class_names or ())
        return Recipe([], names, {"name": "dice_ce", "batch_dice": True}, scales, weights)
    if kind is None:
        return Recipe([], [], None, scales, weights)
    thick = spacing is not None and spacing[0] >= ANISOTROPIC * min(spacing)
    chosen: list[Any] = list(targets) or (
        ["affinities"]
        if background < LITTLE_BACKGROUND
        else ["binary", {"boundary": {"in_plane": thick}}]
    )
    return Recipe(chosen, [], {"name": "dice_bce", "batch_dice": True}, scales, weights)


def _cumulative(strides: Sequence[Shape3]) -> list[Shape3]:
    return list(itertools.accumulate(strides, _times))


def _times(a: Shape3, b: Shape3) -> Shape3:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]
