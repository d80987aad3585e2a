"""The sections of the YAML, each key with its meaning."""

from __future__ import annotations

import difflib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from volprep.config.values import bucket, local_folder, parse_memory, parse_spacing
from volprep.findings import TABLE
from volprep.places import is_remote, path_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a type takes, in the words of a YAML, where its parts do not say it well."""

    words: str


Memory = Annotated[
    int, BeforeValidator(parse_memory), Field(gt=0), Wanted("an amount of memory with its unit")
]
Spacing = Annotated[
    tuple[float, float, float] | None,
    BeforeValidator(parse_spacing),
    Wanted("three lengths (z, y, x), in µm if no unit is given,"),
]
Size3 = Annotated[
    tuple[PositiveInt, PositiveInt, PositiveInt],
    Wanted("a size of three whole numbers above 0 (z, y, x)"),
]
Count3 = Annotated[
    tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt],
    Wanted("three whole numbers (z, y, x), 0 or above"),
]
Edge = Annotated[int, Field(ge=1, le=4096)]
Dims3 = Annotated[
    tuple[Edge, Edge, Edge], Wanted("a size of three whole numbers (z, y, x) from 1 to 4096")
]
Weight = Annotated[float, Field(gt=0, le=1e6)]
Halvings = Annotated[int, Field(ge=0, le=30)]
Batch = Annotated[int, Field(ge=1, le=65536)]
Pool3 = Annotated[
    tuple[Halvings, Halvings, Halvings], Wanted("three whole numbers (z, y, x) from 0 to 30")
]
Place = Annotated[Path, AfterValidator(path_of)]
LocalFolder = Annotated[Path, AfterValidator(local_folder)]
Bucket = Annotated[Path, AfterValidator(bucket), Wanted("s3://BUCKET/NAME or gs://BUCKET/NAME")]
Length = Annotated[float, Field(ge=-1e9, le=1e9)]
Weights3 = Annotated[tuple[Length, Length, Length], Wanted("three numbers (z, y, x)")]
Probability = Annotated[float, Field(ge=0, le=1)]
Values = Annotated[
    tuple[NonNegativeInt, ...],
    BeforeValidator(lambda v: (v,) if isinstance(v, int) else v),
    Wanted("a whole number, 0 or above, or a list of them"),
]
Named = Annotated[dict[str, Any] | str, Wanted("a name, or a name with parameters,")]


class Section(BaseModel):
    """A part of the YAML that takes no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads no, off and yes as truth values, which would pass for 0 and 1."""
        field = cls.model_fields.get(info.field_name or "")
        if field is not None and _holds_truth(value) and "bool" not in repr(field.annotation):
            raise ValueError("yes, no, on, off, true and false are truth values in YAML")
        inside = field is not None and "Any" in repr(field.annotation)
        texts = field is not None and "str" not in repr(field.annotation)
        if _is_boundless(value, inside=inside, texts=texts):
            raise ValueError("nan and inf are no numbers here")
        if inside and _is_beyond(value):
            raise ValueError(f"numbers go up to {_BEYOND} here")
        if _holds_odd_letters(value):
            raise ValueError("holds a letter that no name can have; write it without")
        if isinstance(value, str) and not value.strip():
            raise ValueError("is empty; give a value, or leave the key out")
        return value


def _holds_truth(value: Any) -> bool:
    """Whether it is a truth value, or a list with one among its entries."""
    return isinstance(value, bool) or (isinstance(value, list) and any(map(_holds_truth, value)))


def _holds_odd_letters(value: Any) -> bool:
    """Whether it is a text with a NUL or half a letter, or a list with one among its entries."""
    if isinstance(value, list):
        return any(map(_holds_odd_letters, value))
    if not isinstance(value, str):
        return False
    try:
        return b"\0" in os.fsencode(value)
    except UnicodeEncodeError:
        return True


def _is_boundless(value: Any, *, inside: bool, texts: bool = False) -> bool:
    """Whether it is nan or inf, or a list with one; `inside` looks into mappings, too.

    Those that are sections have keys of their own, at which it is told. `texts` that read as
    such a number are taken for it.
    """
    if isinstance(value, dict):
        return inside and any(_is_boundless(each, inside=inside) for each in value.values())
    if isinstance(value, list):
        return any(_is_boundless(each, inside=inside, texts=texts) for each in value)
    if texts and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return False
    return isinstance(value, float) and not math.isfinite(value)


#: No grey value and no length of a transform or a target is larger.
_BEYOND = 10**9


def _is_beyond(value: Any) -> bool:
    """Whether it is a number without use, or a list or a mapping with one among its entries."""
    if isinstance(value, dict):
        return any(map(_is_beyond, value.values()))
    if isinstance(value, list):
        return any(map(_is_beyond, value))
    return isinstance(value, int | float) and abs(value) > _BEYOND


class CaseConfig(Section):
    """One case given by hand."""

    name: str | None = Field(
        None, description="Its name; the image's stem if not given.", examples=["ovule_3"]
    )
    image: Place | list[Place] = Field(
        description="The image file, or one file per channel.", examples=["raw/ovule_3.tif"]
    )
    label: Place | None = Field(
        None, description="The label file.", examples=["labels/ovule_3.tif"]
    )
    mask: Place | None = Field(
        None,
        description="Valid mask: non-zero where labels are to be used.",
        examples=["labels/ovule_3_annotated.tif"],
    )
    skeletons: Path | None = Field(
        None,
        description="Ready skeletons (.skeletons.npz or .trch).",
        examples=["labels/ovule_3.skeletons.npz"],
    )
    image_key: str | None = Field(
        None, description="Dataset inside the image's HDF5 or Zarr.", examples=["volumes/raw"]
    )
    label_key: str | None = Field(
        None, description="Dataset inside the label's HDF5 or Zarr.", examples=["volumes/labels"]
    )
    mask_key: str | None = Field(
        None, description="Dataset inside the mask's HDF5 or Zarr.", examples=["volumes/mask"]
    )
    axes: str | None = Field(
        None, description="Axes of the image file, such as CZYX.", examples=["CZYX"]
    )
    label_axes: str | None = Field(
        None, description="Axes of the label file, such as ZYX.", examples=["ZYX"]
    )
    spacing: Spacing = Field(
        None,
        description="(z, y, x) in µm, or a text such as '50, 4, 4 nm'.",
        examples=["50, 4, 4 nm"],
    )
    group: str | None = Field(
        None, description="Cases of one group stay in one split.", examples=["embryo_2"]
    )
    weight: float = Field(
        1.0, gt=0, le=1e6, description="How often it is drawn, against the others.", examples=[2.0]
    )


class LabelsConfig(Section):
    """What is put right about the labels while they are read; in this order."""

    threshold: float | None = Field(
        None,
        description="1 at and above it, else 0: for probabilities and smoothed masks.",
        examples=[128],
    )
    background: int | None = Field(
        None,
        ge=1,
        le=2**63 - 1,
        description="The value of the background: it becomes 0, and 0 becomes this value.",
        examples=[255],
    )
    connected_components: Literal[6, 18, 26] | None = Field(
        None,
        description="Each connected piece becomes an object; neighbours by 6, 18 or 26.",
    )
    min_size: PositiveInt | None = Field(
        None, description="Objects of fewer voxels become background.", examples=[10]
    )
    relabel: bool = Field(False, description="Ids become 1, 2, 3, ... in their order.")


class PointsConfig(Section):
    """How labels that are points (.csv, or .xml of the Cell Counter) become voxels."""

    radius: float | None = Field(
        None, ge=0, description="Of the ball around each point.", examples=[4.5]
    )
    unit: Literal["um", "voxels"] = Field("um", description="Of the radius.")
    offset: Weights3 = Field(
        (0.0, 0.0, 0.0), description="Voxels (z, y, x) added to every point.", examples=[[9, 0, 0]]
    )
    ids: Literal["points", "types"] = Field(
        "points", description="Each point is an object, or each type a class."
    )


class RegionConfig(Section):
    """A box of a volume that alone is used, as a case of its own."""

    start: Weights3 = Field(description="First voxel (z, y, x).", examples=[[0, 512, 512]])
    stop: Weights3 | None = Field(
        None, description="The voxel after the last.", examples=[[64, 1024, 1024]]
    )
    size: Weights3 | None = Field(None, description="Instead of stop.", examples=[[64, 512, 512]])
    case: str | None = Field(
        None, description="The case it lies in; every case if not given.", examples=["ovule_3"]
    )
    name: str | None = Field(
        None, description="Its name, after that of the case.", examples=["corner"]
    )
    unit: Literal["voxels", "um"] = Field("voxels", description="Of start, stop and size.")
    side: Literal["train", "val"] | None = Field(
        None, description="Its side of the split; drawn if not given."
    )


#: What says how cases are looked for under `data.root`.
_OF_ROOT = (
    "layout", "slices", "image_dir", "label_dir", "mask_dir", "image_suffix", "label_suffix",
    "image_key", "label_key", "mask_key", "axes", "label_axes",
)  # fmt: skip


class DataConfig(Section):
    """Where the volumes and labels are, and how to read them."""

    root: Place | None = Field(
        None, description="Folder, file or URL to look for cases in.", examples=["raw"]
    )
    layout: str | None = Field(
        None, description="Force a layout instead of recognising it.", examples=["nnunet"]
    )
    slices: bool | None = Field(
        None,
        description="A folder of images is one stack (true) or many 2D images (false).",
        examples=[True],
    )
    image_dir: str | None = Field(
        None, description="Name of the image folder under root.", examples=["images"]
    )
    label_dir: str | None = Field(
        None, description="Name of the label folder under root.", examples=["masks"]
    )
    slices_by: Literal["number", "order"] = Field(
        "number",
        description="Slices of image, label, mask and channels belong together by the numbers in "
        "their names, or by their order.",
    )
    mask_dir: str | None = Field(
        None, description="Name of the valid-mask folder under root.", examples=["annotated"]
    )
    image_suffix: str | None = Field(
        None,
        description="What names of images end in, where the usual words do not tell: _em.",
        examples=["_em"],
    )
    label_suffix: str | None = Field(
        None,
        description="What names of labels end in, where the usual words do not tell: _truth.",
        examples=["_truth"],
    )
    image_key: str | None = Field(
        None, description="Image dataset inside HDF5 or Zarr files.", examples=["volumes/raw"]
    )
    label_key: str | None = Field(
        None, description="Label dataset inside HDF5 or Zarr files.", examples=["volumes/labels"]
    )
    mask_key: str | None = Field(
        None, description="Valid mask inside HDF5 or Zarr files.", examples=["volumes/mask"]
    )
    axes: str | None = Field(
        None, description="Axes of the image files, such as CZYX or YXC.", examples=["CZYX"]
    )
    label_axes: str | None = Field(None, description="Axes of the label files.", examples=["ZYX"])
    spacing: Spacing = Field(
        None,
        description="(z, y, x) in µm, over what files say; '50, 4, 4 nm' works too.",
        examples=["50, 4, 4 nm"],
    )
    read: Literal["all", "sample"] = Field(
        "all",
        description="all: every voxel is checked and measured before patches are cut; sample: only "
        "some, evenly spread, of volumes too large to be read through. Then checks look at headers "
        "and files are known by size and time; labels are read as far as foreground is asked for.",
    )
    geometry: Literal["header", "stored"] | None = Field(
        None,
        description="Where headers say that image and label lie otherwise: header brings the label "
        "to the image's grid without interpolating, stored pairs voxels as they are stored.",
    )
    allow_external: bool = Field(
        False, description="Read other files that a file links to (HDF5, OME-TIFF)."
    )
    cases: list[CaseConfig] = Field(
        default_factory=list,
        description="Cases by hand, instead of root.",
        examples=[[{"image": "raw/a.tif", "label": "labels/a.tif"}]],
    )
    label_kind: Literal["auto", "instances", "classes"] = Field(
        "auto",
        description="instances: each object has its own id; classes: ids are classes; auto: "
        "classes in nnU-Net's layout, else instances.",
    )
    modality: Literal["em", "fluorescence", "ct"] | None = Field(
        None, description="What took the images, for augment: auto; told by the data if not given."
    )
    ignore: Values = Field(
        (),
        description="Label values that are no class and not annotated, such as 255.",
        examples=[255],
    )
    labels: LabelsConfig = Field(
        default_factory=lambda: LabelsConfig.model_validate({}),
        description="What is put right about the labels while they are read.",
    )
    label_colours: Literal["unique"] | None = Field(
        None, description="unique: labels are pictures in which each colour is an id of its own."
    )
    time: Literal["cases"] | None = Field(
        None, description="cases: each time point is a case; those of one series stay together."
    )
    points: PointsConfig = Field(
        default_factory=lambda: PointsConfig.model_validate({}),
        description="How labels that are points become voxels.",
    )
    regions: Annotated[
        list[RegionConfig] | Path, Wanted("a list of boxes, or the path of a file of them,")
    ] = Field(
        default_factory=list,
        description="Boxes that alone are used, each a case of its own: a list, or a .json, .csv "
        "or webKnossos .nml file.",
        examples=[[{"start": [0, 512, 512], "size": [64, 512, 512]}]],
    )
    unlabelled: NonNegativeInt | None = Field(
        None,
        description="The label value of what is not annotated: 0, where 0 is no background.",
        examples=[0],
    )
    n_classes: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Number of classes with background; counted in the labels if not given.",
        examples=[3],
    )

    @model_validator(mode="after")
    def _somewhere_to_look(self) -> DataConfig:
        if (self.root is None) == (not self.cases):
            raise ValueError("give either root (a folder or file) or a list of cases")
        idle = [n for n in _OF_ROOT if self.cases and getattr(self, n) is not None]
        if idle:
            each = [n for n in idle if n in CaseConfig.model_fields]
            todo = f"; give {each[0]} with each case" if each else "; leave it out"
            raise ValueError(f"{', '.join(idle)} belongs to root, and cases are listed{todo}")
        return self


class SplitConfig(Section):
    """Which cases, or which block of a single volume, are kept for validation."""

    kind: Literal["auto", "cases", "group", "kfold", "blocks"] = Field(
        "auto", description="auto: by case, or a block of the volume where there is only one."
    )
    fraction: float = Field(
        0.2, ge=0, lt=1, description="Share of the cases for validation.", examples=[0.25]
    )
    folds: int | None = Field(
        None, ge=1, le=1000, description="Number of folds for kfold.", examples=[5]
    )
    fold: NonNegativeInt = Field(0, description="The fold that is validated on.", examples=[1])
    group: str | None = Field(
        None,
        description="Regex on case names; cases with equal match (group 1) stay together.",
        examples=["^(embryo\\d+)"],
    )
    gap: Count3 | None = Field(
        None,
        description="Voxels (z, y, x) between blocks; one patch if not given.",
        examples=[[16, 64, 64]],
    )


class PlanConfig(Section):
    """Patch, pooling and batch size; what is given here is kept, the rest decided around it."""

    planner: Literal["memory", "biom3d"] = Field(
        "memory", description="memory: fits a budget and the spacing; biom3d: its algorithm."
    )
    memory: Memory = Field(
        "8GiB",
        validate_default=True,
        description="Memory for training, such as 8GiB.",
        examples=["8GiB"],
    )
    precision: Literal["mixed", "fp32"] = Field("mixed", description="Of the training step.")
    max_dims: Dims3 = Field(
        (128, 128, 128),
        description="biom3d: bound of the patch's volume.",
        examples=[[128, 128, 128]],
    )
    max_pool: Halvings = Field(5, description="Most poolings on an axis.", examples=[4])
    min_batch: Batch = Field(2, description="Smallest batch size.", examples=[2])
    max_batch: Batch = Field(16, description="Largest batch size.", examples=[8])
    patch_size: Size3 | None = Field(
        None,
        description="Voxels of a patch, (z, y, x); null: the largest that fits memory and data.",
        examples=[[32, 128, 128]],
    )
    batch_size: Batch | None = Field(
        None,
        description="Patches in a batch; null: as many as fit.",
        examples=[2],
    )
    pool: Pool3 | None = Field(
        None,
        description="Poolings along (z, y, x); null: by patch and spacing.",
        examples=[[3, 5, 5]],
    )
    aug_patch_size: Size3 | None = Field(
        None,
        description="What is stored, so that rotations have something to turn; null: all of it.",
        examples=[[40, 184, 184]],
    )

    @model_validator(mode="after")
    def _batches_ascend(self) -> PlanConfig:
        if self.min_batch > self.max_batch:
            raise ValueError(
                f"min_batch is {self.min_batch} and max_batch {self.max_batch}, which is less; "
                "give both"
            )
        return self


class EpochConfig(Section):
    """What a trainer calls an epoch, however many patches are stored."""

    steps: int = Field(
        250, ge=1, le=10**7, description="Batches of an epoch; each draws anew.", examples=[100]
    )
    augment_warm_up: int = Field(
        20,
        ge=0,
        le=10**7,
        description="Epochs in which augmentation comes in, from no sample to all: at first, every "
        "patch is new to a network. 0 augments all samples from the beginning.",
        examples=[0],
    )


class PreprocessConfig(Section):
    """Spacing and intensities."""

    target_spacing: Literal["none", "median", "finest"] | Spacing = Field(
        "none", description="none, median, finest, or (z, y, x) in µm.", examples=["median"]
    )
    order: Literal[1, 3] = Field(3, description="Interpolation of images: 3 cubic, 1 linear.")
    separate_z: Annotated[Literal["auto"] | bool, Wanted("auto, true or false")] = Field(
        "auto",
        description="Interpolate in-plane only, taking the nearest section along z; auto does so "
        "along any axis whose spacing is 3 times that of the finest.",
        examples=[True],
    )
    normalise: Literal["auto", "zscore", "background", "minmax", "percentile", "given", "none"] = (
        Field(
            "auto",
            description="How intensities are brought to one scale, when read. zscore: mean 0, "
            "deviation 1; background: the lower bound of clip 0, deviation 1; auto: background "
            "where most voxels are dark, as in fluorescence, else zscore.",
        )
    )
    mean: list[float] | None = Field(
        None, description="Per channel, for normalise: given.", examples=[[0.5]]
    )
    std: list[PositiveFloat] | None = Field(None, description="Likewise.", examples=[[0.25]])
    scope: Literal["dataset", "case"] = Field(
        "dataset", description="Statistics of the whole training set, or of each case."
    )
    region: Literal["all", "foreground"] = Field(
        "all", description="Statistics over all voxels, or inside the labels."
    )
    clip: Literal["auto"] | tuple[float, float] | None = Field(
        "auto",
        description="auto: bounds that spare labelled voxels and bright signal; or two percentiles "
        "of all voxels; null for none.",
        examples=[[0.5, 99.5]],
    )
    crop_nonzero: bool = Field(False, description="Cut away the empty border of each case.")

    @property
    def resamples(self) -> bool:
        """Whether all cases are brought to one spacing."""
        return self.target_spacing not in (None, "none")

    @field_validator("clip")
    @classmethod
    def _ascending(
        cls, clip: Literal["auto"] | tuple[float, float] | None
    ) -> Literal["auto"] | tuple[float, float] | None:
        if clip is not None and clip != "auto" and not 0 <= clip[0] < clip[1] <= 100:
            raise ValueError(f"percentiles must ascend within 0 to 100, got {list(clip)}")
        return clip

    @model_validator(mode="after")
    def _given(self) -> PreprocessConfig:
        given = (self.mean is not None, self.std is not None)
        if given != (self.normalise == "given",) * 2:
            raise ValueError("mean and std belong to normalise: given, which needs both")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means but {len(self.std)} deviations")
        return self


class ForegroundConfig(Section):
    """Patches that are drawn around labelled voxels."""

    p: Probability = Field(
        0.33, description="Share of the patches drawn around foreground.", examples=[0.5]
    )
    per: Literal["class", "instance", "voxel"] = Field(
        "instance", description="What is drawn evenly: classes, instances or voxels."
    )


class RejectConfig(Section):
    """Patches that are thrown back."""

    size_thres: int = Field(-1, description="Fewest foreground voxels; -1 is off.", examples=[1000])
    diversity: int = Field(
        -1, description="Fewest distinct ids, background counted; -1 is off.", examples=[3]
    )
    p: Probability = Field(
        0.95, description="Probability of rejecting such a patch.", examples=[0.8]
    )
    valid_ratio: Probability | Literal["auto"] = Field(
        "auto",
        description="With a valid mask: the share of valid voxels must be above this; auto: 0.5, "
        "but 0 where such patches would leave out most of what is annotated.",
        examples=[0.5],
    )


#: What each patch filter must be given.
_FILTER_NEEDS = {
    "none": set[str](),
    "max": {"threshold"},
    "mean_std": {"mean_threshold"},
    "shannon": {"threshold"},
    "mask": {"coverage"},
}
_FILTER_TAKES = {**_FILTER_NEEDS, "max": {"threshold", "coverage"}} | {
    "mean_std": {"mean_threshold", "std_threshold"}
}


class FilterConfig(Section):
    """Regions that give fewer patches because of what they look like; for stratified patches."""

    name: Literal["none", "max", "mean_std", "shannon", "mask"] = Field(
        "none",
        description="max: too little near bright voxels; mean_std: too dark or too flat; shannon: "
        "grey values of too little entropy; mask: too little of the valid mask.",
    )
    threshold: float | None = Field(
        None, description="max: a grey value; shannon: bits.", examples=[20]
    )
    coverage: Probability | None = Field(
        None, description="max and mask: the least share of the region.", examples=[0.3]
    )
    mean_threshold: float | None = Field(
        None, ge=0, description="mean_std: the least mean.", examples=[10]
    )
    std_threshold: float | None = Field(
        None, ge=0, description="mean_std: the least standard deviation.", examples=[2]
    )
    ref_channel: NonNegativeInt = Field(
        0, description="The channel that is looked at.", examples=[1]
    )
    filtered_patch_prob: Probability = Field(
        0.1,
        description="Share of the patches that stays where regions are left out.",
        examples=[0.2],
    )

    @property
    def parameters(self) -> dict[str, float]:
        """What the filter is made of, by name."""
        every = ("threshold", "coverage", "mean_threshold", "std_threshold")
        given = {key: getattr(self, key) for key in every}
        return {key: value for key, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _goes_with_the_name(self) -> FilterConfig:
        missing = _FILTER_NEEDS[self.name] - self.parameters.keys()
        strange = self.parameters.keys() - _FILTER_TAKES[self.name]
        if missing:
            raise ValueError(f"{self.name} needs {', '.join(sorted(missing))}")
        if strange:
            raise ValueError(f"{self.name} does not take {', '.join(sorted(strange))}")
        if self.name == "shannon" and self.threshold is not None and self.threshold < 0:
            raise ValueError(f"threshold is {self.threshold:g} bits; give 0 or more")
        return self


class PatchingConfig(Section):
    """Where patches come from."""

    name: Literal["random", "sequential", "stratified"] = Field(
        "random", description="random, sequential (a grid with overlap), or stratified."
    )
    uniform: bool = Field(
        False, description="stratified: see voxels at the border no less than others."
    )
    patches_per_case: PositiveInt | None = Field(
        None,
        description="For training; if not given, as many as an epoch draws, but enough to cover "
        "the voxels twice and no more than cover them 16 times.",
        examples=[200],
    )
    do_2d: Literal["z", "y", "x"] | None = Field(
        None,
        description="Patches are planes across this axis of volumes, which then counts as z: "
        "sizes are [1, rows, columns], rows and columns being y and x, z and x, or z and y.",
        examples=["z"],
    )
    overlap: Count3 = Field(
        (0, 0, 0), description="Voxels shared by neighbours of a grid.", examples=[[8, 32, 32]]
    )
    foreground: ForegroundConfig = Field(
        default_factory=lambda: ForegroundConfig.model_validate({}),
        description="Patches around labelled voxels.",
    )
    reject: RejectConfig = Field(
        default_factory=lambda: RejectConfig.model_validate({}),
        description="Patches that are thrown back.",
    )
    filter: FilterConfig = Field(
        default_factory=lambda: FilterConfig.model_validate({}),
        description="Regions that give fewer patches.",
    )
    pad_mode: Literal["reflect", "edge", "constant"] = Field(
        "reflect", description="How volumes smaller than a patch are filled; labels likewise."
    )

    @model_validator(mode="after")
    def _only_stratified(self) -> PatchingConfig:
        if self.name != "stratified" and (self.uniform or self.filter.name != "none"):
            raise ValueError("uniform and filter belong to name: stratified")
        return self


class SkeletonConfig(Section):
    """Skeletons of the instances, for SKOOTS-like training."""

    enabled: bool = Field(False, description="Make skeletons and bake them into the patch set.")
    method: Literal["lee", "teasar"] = Field("lee", description="How they are made.")
    anisotropy: Annotated[
        tuple[Weight, Weight, Weight] | None,
        Wanted("three numbers above 0 (z, y, x), 1000000 at most,"),
    ] = Field(
        None,
        description="Weights of (z, y, x) distances; the spacing's ratios if not given.",
        examples=[[10, 1, 1]],
    )
    average: bool = Field(True, description="Smooth the baked field within each instance.")
    radius: int = Field(
        7, ge=1, le=1000, description="Of the discs of the skeleton mask, in voxels.", examples=[5]
    )
    flank_radius: int = Field(
        3, ge=0, le=1000, description="Of the discs on neighbouring slices.", examples=[2]
    )


class OutputConfig(Section):
    """Where the patch set is written."""

    dir: LocalFolder = Field(
        Path("patches"),
        description="Folder of the patch set; a URL stands for url, with a folder of its name.",
        examples=["patches"],
    )
    url: Bucket | None = Field(
        None,
        description="Where the finished set is copied to, once it is made in dir.",
        examples=["s3://lab/sets/nuclei"],
    )
    store: Literal["patches", "volumes", "auto"] = Field(
        "patches",
        description="What is kept: patches that are cut once, or volumes, from which every epoch "
        "draws new places; auto: what needs less room.",
    )
    compression: Literal["lz4", "zstd", "none"] = Field("lz4", description="Of what is kept.")
    targets: Literal["load", "store"] = Field(
        "load", description="When targets are made: as samples are loaded, or kept in the set, too."
    )

    @model_validator(mode="before")
    @classmethod
    def _made_here_first(cls, values: Any) -> Any:
        """A set whose folder is a URL is made in a folder of its name, and copied there."""
        place = values.get("dir") if isinstance(values, dict) else None
        if not isinstance(place, str | Path) or not is_remote(path_of(place)):
            return values
        if values.get("url") is not None:
            raise ValueError("dir and url are both URLs; give a folder of this machine as dir")
        return {**values, "dir": path_of(place).name or "patches", "url": place}

    @model_validator(mode="after")
    def _targets_lie_beside_patches(self) -> OutputConfig:
        if self.store == "volumes" and self.targets == "store":
            raise ValueError("targets: store belongs to store: patches; volumes have targets made")
        return self


class FindingsConfig(Section):
    """Findings by name: `volprep check --explain all` lists them."""

    ignore: list[str] = Field(
        default_factory=list,
        description="Warnings and infos that are not told; errors stay.",
        examples=[["unknown-spacing"]],
    )
    error: list[str] = Field(
        default_factory=list,
        description="Findings that end the run.",
        examples=[["slices-missing"]],
    )

    @field_validator("ignore", "error")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in TABLE:
                near = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.4)
                what = f"did you mean {near[0]}?" if near else "volprep check --explain all"
                raise ValueError(f"no finding is called {name}; {what}")
        return names

    @field_validator("ignore")
    @classmethod
    def _no_error(cls, names: list[str]) -> list[str]:
        for name in names:
            if TABLE[name].level == "error":
                todo = TABLE[name].todo
                raise ValueError(f"{name} is an error, which cannot be ignored; {todo}")
        return names


class ClusterConfig(Section):
    """Jobs of a queueing system that a Dask cluster is made of, by dask-jobqueue."""

    kind: Literal["slurm", "pbs", "sge", "lsf"] = Field("slurm", description="The system.")
    jobs: PositiveInt = Field(1, description="How many are asked for.", examples=[8])
    cores: PositiveInt = Field(
        1, description="Of a job: units that run in it at once.", examples=[16]
    )
    processes: PositiveInt | None = Field(
        None,
        description="Of a job: workers that share its cores; Dask's choice if not given.",
        examples=[4],
    )
    memory: str = Field("4GB", description="Of a job, such as 32GB.", examples=["32GB"])
    queue: str | None = Field(None, description="Queue or partition.", examples=["short"])
    account: str | None = Field(None, description="Account or project.", examples=["lab42"])
    walltime: str | None = Field(
        None, description="Of a job, such as 04:00:00.", examples=["04:00:00"]
    )
    interface: str | None = Field(
        None, description="Network interface, such as ib0.", examples=["ib0"]
    )
    local_directory: str | None = Field(
        None, description="Scratch folder on the nodes.", examples=["/scratch"]
    )
    log_directory: str | None = Field(
        None, description="Where the jobs write their logs.", examples=["logs"]
    )
    job_extra_directives: list[str] | None = Field(
        None,
        description="More lines for the head of the job script, such as --gres=tmp:10G.",
        examples=[["--gres=tmp:10G"]],
    )


class ComputeConfig(Section):
    """How much of the machine is used, and of which machines."""

    workers: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Threads or processes; all processors if not given.",
        examples=[8],
    )
    memory: Memory | None = Field(
        None,
        description="Most memory that a run may use; if not given, what the machine or the "
        "control group of the process allows.",
        examples=["16GiB"],
    )
    disk: Memory | None = Field(
        None,
        description="Most disk space that a set may take; if not given, what is free.",
        examples=["500GiB"],
    )
    executor: Literal["serial", "threads", "processes", "dask"] = Field(
        "threads",
        description="Where units of work run: here, or on a Dask cluster of machines that see the "
        'same files; dask needs pip install "volprep[cluster]".',
    )
    scheduler: str | None = Field(
        None,
        description="dask: a scheduler that runs, such as tcp://10.0.0.7:8786.",
        examples=["tcp://10.0.0.7:8786"],
    )
    cluster: ClusterConfig | None = Field(
        None, description="dask: start workers as jobs of a queueing system."
    )

    @model_validator(mode="after")
    def _one_cluster(self) -> ComputeConfig:
        if self.executor != "dask" and (self.scheduler or self.cluster):
            raise ValueError("scheduler and cluster belong to executor: dask")
        if self.scheduler and self.cluster:
            raise ValueError("give a scheduler that runs, or a cluster to start, not both")
        return self


class ExportConfig(Section):
    """The set in the form that another trainer reads, made by `volprep export`."""

    to: str = Field(description="The trainer, such as nnunet or monai.", examples=["nnunet"])
    dir: LocalFolder = Field(
        description="Folder of the export.", examples=["nnUNet_raw/Dataset001_nuclei"]
    )
    plans: bool | None = Field(None, description="nnunet: hand over the plan, too.")
    instances: Literal["class", "border-core"] | None = Field(
        None, description="nnunet: what instances become; one class if not given."
    )

    @property
    def options(self) -> dict[str, Any]:
        """What the target is to be given beside its folder."""
        return {"plans": self.plans, "instances": self.instances}


class Config(Section):
    """Everything `volprep prepare` needs to know. Paths are relative to the YAML file."""

    data: DataConfig = Field(
        description="Where the volumes and labels are.", examples=[{"root": "raw"}]
    )
    seed: NonNegativeInt = Field(0, description="Of everything that is drawn.", examples=[1])
    split: SplitConfig = Field(default_factory=lambda: SplitConfig.model_validate({}))
    plan: PlanConfig = Field(default_factory=lambda: PlanConfig.model_validate({}))
    epoch: EpochConfig = Field(default_factory=lambda: EpochConfig.model_validate({}))
    preprocess: PreprocessConfig = Field(
        default_factory=lambda: PreprocessConfig.model_validate({})
    )
    patching: PatchingConfig = Field(default_factory=lambda: PatchingConfig.model_validate({}))
    skeletons: SkeletonConfig = Field(default_factory=lambda: SkeletonConfig.model_validate({}))
    targets: Annotated[list[Named], Wanted("a list of names, or of names with parameters,")] = (
        Field(
            default_factory=list,
            description="What the network learns, made from labels after augmentation: binary, "
            "affinities, boundary, signed_distance, instance_distance, flow, size_weight, one_hot, "
            "blobs.",
            examples=[
                ["boundary", {"affinities": {"offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}}]
            ],
        )
    )
    augment: Annotated[
        Literal["auto"] | list[Named] | dict[str, Any],
        Wanted("auto, or a list of names, or of names with parameters,"),
    ] = Field(
        "auto",
        description="Augmentations: a list of named sections, in order; auto: the preset that "
        "fits (em, fluorescence, ct or 2d), which the plan names; [] for none.",
        examples=[["flip", {"rotate": {"max_angle": 30}}, "gamma"]],
    )
    findings: FindingsConfig = Field(
        default_factory=lambda: FindingsConfig.model_validate({}),
        description="Findings that are silenced, or end the run.",
    )
    output: OutputConfig = Field(default_factory=lambda: OutputConfig.model_validate({}))
    exports: list[ExportConfig] = Field(
        default_factory=list,
        description="The set in the forms of other trainers, as volprep export CONFIG makes them.",
    )
    compute: ComputeConfig = Field(default_factory=lambda: ComputeConfig.model_validate({}))

    @model_validator(mode="after")
    def _nothing_asks_for_every_voxel(self) -> Config:
        if self.data.read == "sample" and self.preprocess.crop_nonzero:
            raise ValueError(
                "preprocess.crop_nonzero reads every voxel, and data.read is sample; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _planes_are_flat(self) -> Config:
        axis = self.patching.do_2d
        for name in ("patch_size", "aug_patch_size"):
            size = getattr(self.plan, name)
            if axis is not None and size is not None and size[0] != 1:
                place = {"z": 0, "y": 1, "x": 2}[axis]
                rest = [n for i, n in enumerate(size) if i != place]
                raise ValueError(
                    f"plan.{name} is {list(size)}, and with patching.do_2d: {axis} patches are "
                    f"planes; give {[1, *rest]}, which is [1, rows, columns]"
                )
        return self
