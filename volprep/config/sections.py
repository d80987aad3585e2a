"""The sections of the YAML, each key with its meaning."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
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

from volprep.config.values import parse_memory, parse_spacing
from volprep.findings import TABLE

Memory = Annotated[int, BeforeValidator(parse_memory), Field(gt=0)]
Spacing = Annotated[tuple[float, float, float] | None, BeforeValidator(parse_spacing)]
Size3 = tuple[PositiveInt, PositiveInt, PositiveInt]
Count3 = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
Probability = Annotated[float, Field(ge=0, le=1)]
Values = Annotated[
    tuple[NonNegativeInt, ...], BeforeValidator(lambda v: (v,) if isinstance(v, int) else v)
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads no, off and yes as truth values, which would pass for 0 and 1."""
        field = cls.model_fields.get(info.field_name or "")
        if isinstance(value, bool) and field is not None and "bool" not in repr(field.annotation):
            raise ValueError("yes, no, on and off are truth values in YAML; another is wanted")
        return value


class CaseConfig(Section):
    """One case given by hand."""

    name: str | None = Field(None, description="Its name; the image's stem if not given.")
    image: Path | list[Path] = Field(description="The image file, or one file per channel.")
    label: Path | None = Field(None, description="The label file.")
    mask: Path | None = Field(None, description="Valid mask: non-zero where labels are to be used.")
    skeletons: Path | None = Field(None, description="Ready skeletons (.skeletons.npz or .trch).")
    image_key: str | None = Field(None, description="Dataset inside the image's HDF5 or Zarr.")
    label_key: str | None = Field(None, description="Dataset inside the label's HDF5 or Zarr.")
    mask_key: str | None = Field(None, description="Dataset inside the mask's HDF5 or Zarr.")
    axes: str | None = Field(None, description="Axes of the image file, such as CZYX.")
    label_axes: str | None = Field(None, description="Axes of the label file, such as ZYX.")
    spacing: Spacing = Field(None, description="(z, y, x) in µm, or a text such as '50, 4, 4 nm'.")
    group: str | None = Field(None, description="Cases of one group stay in one split.")
    weight: float = Field(
        1.0, gt=0, le=1e6, description="How often it is drawn, against the others."
    )


class LabelsConfig(Section):
    """What is put right about the labels while they are read; in this order."""

    threshold: float | None = Field(
        None, description="1 at and above it, else 0: for probabilities and smoothed masks."
    )
    background: PositiveInt | None = Field(
        None, description="The value of the background: it becomes 0, and 0 becomes this value."
    )
    connected_components: Literal[6, 18, 26] | None = Field(
        None,
        description="Each connected piece becomes an object; neighbours by 6, 18 or 26.",
    )
    min_size: PositiveInt | None = Field(
        None, description="Objects of fewer voxels become background."
    )
    relabel: bool = Field(False, description="Ids become 1, 2, 3, ... in their order.")


class PointsConfig(Section):
    """How labels that are points (.csv, or .xml of the Cell Counter) become voxels."""

    radius: float | None = Field(None, ge=0, description="Of the ball around each point.")
    unit: Literal["um", "voxels"] = Field("um", description="Of the radius.")
    offset: tuple[float, float, float] = Field(
        (0.0, 0.0, 0.0), description="Voxels (z, y, x) added to every point."
    )
    ids: Literal["points", "types"] = Field(
        "points", description="Each point is an object, or each type a class."
    )


class RegionConfig(Section):
    """A box of a volume that alone is used, as a case of its own."""

    start: tuple[float, float, float] = Field(description="First voxel (z, y, x).")
    stop: tuple[float, float, float] | None = Field(None, description="The voxel after the last.")
    size: tuple[float, float, float] | None = Field(None, description="Instead of stop.")
    case: str | None = Field(None, description="The case it lies in; every case if not given.")
    name: str | None = Field(None, description="Its name, after that of the case.")
    unit: Literal["voxels", "um"] = Field("voxels", description="Of start, stop and size.")
    side: Literal["train", "val"] | None = Field(
        None, description="Its side of the split; drawn if not given."
    )


class DataConfig(Section):
    """Where the volumes and labels are, and how to read them."""

    root: Path | None = Field(None, description="Folder (or file) to look for cases in.")
    layout: str | None = Field(None, description="Force a layout instead of recognising it.")
    slices: bool | None = Field(
        None, description="A folder of images is one stack (true) or many 2D images (false)."
    )
    image_dir: str | None = Field(None, description="Name of the image folder under root.")
    label_dir: str | None = Field(None, description="Name of the label folder under root.")
    slices_by: Literal["number", "order"] = Field(
        "number",
        description="Slices of image, label, mask and channels belong together by the numbers in "
        "their names, or by their order.",
    )
    mask_dir: str | None = Field(None, description="Name of the valid-mask folder under root.")
    image_suffix: str | None = Field(
        None, description="What names of images end in, where the usual words do not tell: _em."
    )
    label_suffix: str | None = Field(
        None, description="What names of labels end in, where the usual words do not tell: _truth."
    )
    image_key: str | None = Field(None, description="Image dataset inside HDF5 or Zarr files.")
    label_key: str | None = Field(None, description="Label dataset inside HDF5 or Zarr files.")
    mask_key: str | None = Field(None, description="Valid mask inside HDF5 or Zarr files.")
    axes: str | None = Field(None, description="Axes of the image files, such as CZYX or YXC.")
    label_axes: str | None = Field(None, description="Axes of the label files.")
    spacing: Spacing = Field(
        None, description="(z, y, x) in µm, over what files say; '50, 4, 4 nm' works too."
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
        default_factory=list, description="Cases by hand, instead of root."
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
        (), description="Label values that are no class and not annotated, such as 255."
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
    regions: list[RegionConfig] | Path = Field(
        default_factory=list,
        description="Boxes that alone are used, each a case of its own: a list, or a .json, .csv "
        "or webKnossos .nml file.",
    )
    unlabelled: NonNegativeInt | None = Field(
        None, description="The label value of what is not annotated: 0, where 0 is no background."
    )
    n_classes: PositiveInt | None = Field(
        None, description="Number of classes with background; counted in the labels if not given."
    )

    @model_validator(mode="after")
    def _somewhere_to_look(self) -> DataConfig:
        if (self.root is None) == (not self.cases):
            raise ValueError("give either root (a folder or file) or a list of cases")
        return self


class SplitConfig(Section):
    """Which cases, or which block of a single volume, are kept for validation."""

    kind: Literal["auto", "cases", "group", "kfold", "blocks"] = Field(
        "auto", description="auto: by case, or a block of the volume where there is only one."
    )
    fraction: float = Field(0.2, ge=0, lt=1, description="Share of the cases for validation.")
    folds: PositiveInt | None = Field(None, description="Number of folds for kfold.")
    fold: NonNegativeInt = Field(0, description="The fold that is validated on.")
    group: str | None = Field(
        None, description="Regex on case names; cases with equal match (group 1) stay together."
    )
    gap: Count3 | None = Field(
        None, description="Voxels (z, y, x) between blocks; one patch if not given."
    )


class PlanConfig(Section):
    """Patch, pooling and batch size; what is given here is kept, the rest decided around it."""

    planner: Literal["memory", "biom3d"] = Field(
        "memory", description="memory: fits a budget and the spacing; biom3d: its algorithm."
    )
    memory: Memory = Field(8 * 2**30, description="Memory for training, such as 8GiB.")
    precision: Literal["mixed", "fp32"] = Field("mixed", description="Of the training step.")
    max_dims: Size3 = Field((128, 128, 128), description="biom3d: bound of the patch's volume.")
    max_pool: NonNegativeInt = Field(5, description="Most poolings on an axis.")
    min_batch: PositiveInt = Field(2, description="Smallest batch size.")
    max_batch: PositiveInt = Field(16, description="Largest batch size.")
    patch_size: Size3 | None = Field(None, description="(z, y, x) in voxels.")
    batch_size: PositiveInt | None = Field(None, description="Patches in a batch.")
    pool: Count3 | None = Field(None, description="Poolings along (z, y, x).")
    aug_patch_size: Size3 | None = Field(
        None, description="What is stored, so that rotations have something to turn."
    )


class EpochConfig(Section):
    """What a trainer calls an epoch, however many patches are stored."""

    steps: PositiveInt = Field(250, description="Batches of an epoch; each draws anew.")


class PreprocessConfig(Section):
    """Spacing and intensities."""

    target_spacing: Literal["none", "median", "finest"] | Spacing = Field(
        "none", description="none, median, finest, or (z, y, x) in µm."
    )
    order: Literal[1, 3] = Field(3, description="Interpolation of images: 3 cubic, 1 linear.")
    separate_z: Literal["auto"] | bool = Field(
        "auto",
        description="Interpolate in-plane only, taking the nearest section along z; auto does so "
        "along any axis whose spacing is 3 times that of the finest.",
    )
    normalise: Literal["zscore", "minmax", "percentile", "given", "none"] = Field(
        "zscore", description="How intensities are brought to one scale, when read."
    )
    mean: list[float] | None = Field(None, description="Per channel, for normalise: given.")
    std: list[PositiveFloat] | None = Field(None, description="Likewise.")
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
    )
    crop_nonzero: bool = Field(False, description="Cut away the empty border of each case.")

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

    p: Probability = Field(0.33, description="Share of the patches drawn around foreground.")
    per: Literal["class", "instance", "voxel"] = Field(
        "instance", description="What is drawn evenly: classes, instances or voxels."
    )


class RejectConfig(Section):
    """Patches that are thrown back."""

    size_thres: int = Field(-1, description="Fewest foreground voxels; -1 is off.")
    diversity: int = Field(-1, description="Fewest distinct ids, background counted; -1 is off.")
    p: Probability = Field(0.95, description="Probability of rejecting such a patch.")
    valid_ratio: Probability | Literal["auto"] = Field(
        "auto",
        description="With a valid mask: the share of valid voxels must be above this; auto: 0.5, "
        "but 0 where such patches would leave out most of what is annotated.",
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
    threshold: float | None = Field(None, description="max: a grey value; shannon: bits.")
    coverage: Probability | None = Field(
        None, description="max and mask: the least share of the region."
    )
    mean_threshold: float | None = Field(None, ge=0, description="mean_std: the least mean.")
    std_threshold: float | None = Field(
        None, ge=0, description="mean_std: the least standard deviation."
    )
    ref_channel: NonNegativeInt = Field(0, description="The channel that is looked at.")
    filtered_patch_prob: Probability = Field(
        0.1, description="Share of the patches that stays where regions are left out."
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
    )
    overlap: Count3 = Field((0, 0, 0), description="Voxels shared by neighbours of a grid.")
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
    anisotropy: tuple[float, float, float] | None = Field(
        None, description="Weights of (z, y, x) distances; the spacing's ratios if not given."
    )
    average: bool = Field(True, description="Smooth the baked field within each instance.")
    radius: PositiveInt = Field(7, description="Of the discs of the skeleton mask, in voxels.")
    flank_radius: NonNegativeInt = Field(3, description="Of the discs on neighbouring slices.")


class OutputConfig(Section):
    """Where the patch set is written."""

    dir: Path = Field(Path("patches"), description="Folder of the patch set.")
    compression: Literal["lz4", "zstd", "none"] = Field("lz4", description="Of the patches.")
    targets: Literal["load", "store"] = Field(
        "load", description="When targets are made: as samples are loaded, or kept in the set, too."
    )


class FindingsConfig(Section):
    """Findings by name: `volprep check --explain all` lists them."""

    ignore: list[str] = Field(
        default_factory=list, description="Warnings and infos that are not told; errors stay."
    )
    error: list[str] = Field(default_factory=list, description="Findings that end the run.")

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
    jobs: PositiveInt = Field(1, description="How many are asked for.")
    cores: PositiveInt = Field(1, description="Of a job: units that run in it at once.")
    processes: PositiveInt | None = Field(
        None, description="Of a job: workers that share its cores; Dask's choice if not given."
    )
    memory: str = Field("4GB", description="Of a job, such as 32GB.")
    queue: str | None = Field(None, description="Queue or partition.")
    account: str | None = Field(None, description="Account or project.")
    walltime: str | None = Field(None, description="Of a job, such as 04:00:00.")
    interface: str | None = Field(None, description="Network interface, such as ib0.")
    local_directory: str | None = Field(None, description="Scratch folder on the nodes.")
    log_directory: str | None = Field(None, description="Where the jobs write their logs.")
    job_extra_directives: list[str] | None = Field(
        None, description="More lines for the head of the job script, such as --gres=tmp:10G."
    )


class ComputeConfig(Section):
    """How much of the machine is used, and of which machines."""

    workers: PositiveInt | None = Field(
        None, description="Threads or processes; all processors if not given."
    )
    executor: Literal["serial", "threads", "processes", "dask"] = Field(
        "threads",
        description="Where units of work run: here, or on a Dask cluster of machines that see the "
        'same files; dask needs pip install "volprep[cluster]".',
    )
    scheduler: str | None = Field(
        None, description="dask: a scheduler that runs, such as tcp://10.0.0.7:8786."
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

    to: str = Field(description="The trainer, such as nnunet or monai.")
    dir: Path = Field(description="Folder of the export.")
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

    data: DataConfig
    seed: NonNegativeInt = Field(0, description="Of everything that is drawn.")
    split: SplitConfig = Field(default_factory=lambda: SplitConfig.model_validate({}))
    plan: PlanConfig = Field(default_factory=lambda: PlanConfig.model_validate({}))
    epoch: EpochConfig = Field(default_factory=lambda: EpochConfig.model_validate({}))
    preprocess: PreprocessConfig = Field(
        default_factory=lambda: PreprocessConfig.model_validate({})
    )
    patching: PatchingConfig = Field(default_factory=lambda: PatchingConfig.model_validate({}))
    skeletons: SkeletonConfig = Field(default_factory=lambda: SkeletonConfig.model_validate({}))
    targets: list[dict[str, Any] | str] = Field(
        default_factory=list,
        description="What the network learns, made from labels after augmentation: binary, "
        "affinities, boundary, signed_distance, instance_distance, flow, size_weight, one_hot.",
    )
    augment: Literal["auto"] | list[dict[str, Any] | str] | dict[str, Any] = Field(
        "auto",
        description="Augmentations: a list of named sections, in order; auto: the preset that "
        "fits (em, fluorescence, ct or 2d), which the plan names; [] for none.",
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
