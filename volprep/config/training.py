"""The generated training config: what a trainer needs to know about a patch set."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from volprep.config.sections import Count3, Section, Size3

__all__ = ["TrainingConfig"]


class NormalisationConfig(Section):
    """How stored intensities become the network's input: clip, subtract offset, divide by scale."""

    kind: Literal["zscore", "background", "minmax", "percentile", "given", "none"]
    offset: list[float] = Field(default_factory=list, description="Per channel.")
    scale: list[float] = Field(default_factory=list, description="Per channel.")
    clip: list[tuple[float, float]] | None = Field(None, description="Per channel: low, high.")
    reason: str | None = Field(None, description="What spoke for the kind, where it was chosen.")


class LossConfig(Section):
    """What to minimise."""

    name: Literal["dice_ce", "dice_bce"] = Field(
        description="Soft Dice and cross-entropy: softmax over classes, or each channel for itself."
    )
    batch_dice: bool = Field(description="Dice over the batch instead of each patch.")


class OptimiserConfig(Section):
    """How to minimise it."""

    name: Literal["sgd"]
    learning_rate: float = Field(description="In the first epoch.")
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: Literal["poly"] = Field(
        description="learning_rate * (1 - epoch / epochs) ** power, epoch by epoch."
    )
    power: float
    epochs: PositiveInt = Field(description="For a full training; fewer show whether it works.")
    clip_gradient_norm: float


class DeepSupervisionConfig(Section):
    """Outputs of the network's way up, each compared with the downsampled labels."""

    strides: list[Size3] = Field(description="Downsampling of each, the full resolution first.")
    weights: list[float] = Field(description="Of the loss at each.")


class TrainingConfig(Section):
    """What a trainer needs to know about a patch set: `train.yaml`."""

    volprep_version: str
    store: Literal["patches", "volumes"] = Field(
        description="Whether patches were cut once, or places are drawn from volumes."
    )
    patches: dict[Literal["train", "val"], str] = Field(description="Zarr stores, relative.")
    volumes: dict[str, str] = Field(description="OME-Zarr of each case that is kept, relative.")
    n_patches: dict[Literal["train", "val"], NonNegativeInt] = Field(
        description="Patches; of volumes, the samples of an epoch."
    )
    patch_size: Size3 = Field(description="The network's input (z, y, x) in voxels.")
    stored_patch_size: Size3 = Field(
        description="Size of the stored training patches, or of what is read for a sample."
    )
    batch_size: PositiveInt
    pool: Count3 = Field(description="Poolings along (z, y, x).")
    strides: list[Size3] = Field(description="Of each stage of the network, from the top.")
    kernel_sizes: list[Size3] = Field(description="Of each stage of the network, from the top.")
    features: list[PositiveInt] = Field(description="Feature maps of each stage.")
    steps_per_epoch: PositiveInt = Field(description="Batches of an epoch, however many patches.")
    augment_warm_up: NonNegativeInt = Field(
        0, description="Epochs in which augmentation comes in, from no sample to all."
    )
    n_positions: NonNegativeInt | None = Field(
        description="Places that a patch can take in the training data."
    )
    spacing: tuple[float, float, float] | None = Field(description="(z, y, x) in µm.")
    do_2d: Literal["z", "y", "x"] | None = Field(
        None, description="The axis of the files that is z here, where patches are its planes."
    )
    n_channels: PositiveInt
    label_kind: Literal["instances", "classes"] | None
    n_classes: PositiveInt | None = Field(
        description="Background is one where the labels have some; None for instances."
    )
    class_values: list[int] | None = Field(
        description="Label value in the files of each class; labels are loaded as 0 to n - 1."
    )
    class_names: list[str] | None = Field(description="Name of each class.")
    class_frequencies: list[float] | None = Field(
        description="Share of the training voxels of each class."
    )
    suggested_targets: list[str | dict[str, Any]] = Field(
        description="Of instances: what to make of the labels, by volprep.targets."
    )
    output_channels: list[str] = Field(description="Of the network, one name each.")
    loss: LossConfig | None = Field(description="None without labels.")
    optimiser: OptimiserConfig
    deep_supervision: DeepSupervisionConfig
    ignore_index: int = Field(-1, description="Loaded label of voxels that are no class.")
    normalisation: NormalisationConfig
    case_normalisation: dict[str, NormalisationConfig] = Field(default_factory=dict)
    augment: list[dict[str, Any] | str] | dict[str, Any] = Field(default_factory=list)
    targets: list[dict[str, Any]] = Field(
        default_factory=list, description="Made from labels last, in every sample."
    )
    stored_targets: list[str] = Field(
        default_factory=list, description="Of those, what the patches hold, too."
    )
    splits: str = Field(description="The file that lists the cases of each split, relative.")
    seed: NonNegativeInt
    precision: Literal["mixed", "fp32"]
    memory_bytes: NonNegativeInt | None = Field(description="What the plan expects to use.")
