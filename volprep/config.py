"""The YAML: described sections, errors that name the line, and the generated training config.

The only room with pydantic and yaml. A config is read with `load_config`, which
turns every mistake into a ConfigError with file, line, dotted key and the
nearest right key.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from volprep.errors import ConfigError
from volprep.geometry import to_micrometres

__all__ = [
    "CaseConfig",
    "Config",
    "TrainingConfig",
    "canonical_json",
    "dump_yaml",
    "json_schema",
    "load_config",
    "load_training_config",
    "load_yaml",
    "parse_memory",
    "parse_spacing",
    "with_values",
]

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4,
          "ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}  # fmt: skip


def parse_memory(value: object) -> int:
    """Bytes from a number or a text such as ``8GiB``, ``500 MB``, ``2e9``.

    Raises
    ------
    ValueError
        If the text is no amount of memory.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value)
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([kmgt]?i?)b?\s*", str(value), re.IGNORECASE)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{value!r} is no amount of memory; write it like 8GiB or 500MB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_spacing(value: object) -> tuple[float, float, float] | None:
    """Spacing (Z, Y, X) in µm from three numbers, or a text such as ``50, 4, 4 nm``.

    Raises
    ------
    ValueError
        If there are not three positive lengths.
    """
    if value is None:
        return None
    unit = "um"
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(.*?[\d.])\s*([^\d\s,;]*)\s*", value)
        if match is None:
            raise ValueError(f"{value!r} is no spacing; write three numbers, e.g. [0.3, 0.1, 0.1]")
        value, unit = re.split(r"[\s,;x×]+", match[1]), match[2] or "um"
    if not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"{value!r} is no spacing; write three numbers (z, y, x)")
    try:
        numbers = [to_micrometres(float(v), unit) for v in value]
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no spacing; write three numbers (z, y, x)") from None
    if any(n is None for n in numbers):
        raise ValueError(f"{unit!r} is no unit of length; use um, nm or mm")
    z, y, x = (float(n) for n in numbers if n is not None)
    if not all(0 < n < float("inf") for n in (z, y, x)):
        raise ValueError(f"spacing must be positive, got {value!r}")
    return z, y, x


Memory = Annotated[int, BeforeValidator(parse_memory), Field(gt=0)]
Spacing = Annotated[tuple[float, float, float] | None, BeforeValidator(parse_spacing)]
Size3 = tuple[PositiveInt, PositiveInt, PositiveInt]
Count3 = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CaseConfig(_Section):
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
    weight: float = Field(1.0, gt=0, description="How often it is drawn, against the others.")


class DataConfig(_Section):
    """Where the volumes and labels are, and how to read them."""

    root: Path | None = Field(None, description="Folder (or file) to look for cases in.")
    layout: str | None = Field(None, description="Force a layout instead of recognising it.")
    slices: bool | None = Field(
        None, description="A folder of images is one stack (true) or many 2D images (false)."
    )
    image_dir: str | None = Field(None, description="Name of the image folder under root.")
    label_dir: str | None = Field(None, description="Name of the label folder under root.")
    mask_dir: str | None = Field(None, description="Name of the valid-mask folder under root.")
    image_key: str | None = Field(None, description="Image dataset inside HDF5 or Zarr files.")
    label_key: str | None = Field(None, description="Label dataset inside HDF5 or Zarr files.")
    mask_key: str | None = Field(None, description="Valid mask inside HDF5 or Zarr files.")
    axes: str | None = Field(None, description="Axes of the image files, such as CZYX or YXC.")
    label_axes: str | None = Field(None, description="Axes of the label files.")
    spacing: Spacing = Field(
        None, description="(z, y, x) in µm, over what files say; '50, 4, 4 nm' works too."
    )
    cases: list[CaseConfig] = Field(
        default_factory=list, description="Cases by hand, instead of root."
    )
    label_kind: Literal["instances", "classes"] = Field(
        "instances", description="instances: each object has its own id; classes: ids are classes."
    )
    n_classes: PositiveInt | None = Field(
        None, description="Number of classes with background; counted in the labels if not given."
    )

    @model_validator(mode="after")
    def _somewhere_to_look(self) -> DataConfig:
        if (self.root is None) == (not self.cases):
            raise ValueError("give either root (a folder or file) or a list of cases")
        return self


class SplitConfig(_Section):
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


class PlanConfig(_Section):
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


class PreprocessConfig(_Section):
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
    clip: tuple[float, float] | None = Field(
        (0.5, 99.5), description="Percentiles to clip at first; null for none."
    )
    crop_nonzero: bool = Field(False, description="Cut away the empty border of each case.")

    @field_validator("clip")
    @classmethod
    def _ascending(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and not 0 <= clip[0] < clip[1] <= 100:
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


class ForegroundConfig(_Section):
    """Patches that are drawn around labelled voxels."""

    p: Probability = Field(0.33, description="Share of the patches drawn around foreground.")
    per: Literal["class", "instance", "voxel"] = Field(
        "instance", description="What is drawn evenly: classes, instances or voxels."
    )


class RejectConfig(_Section):
    """Patches that are thrown back."""

    size_thres: int = Field(-1, description="Fewest foreground voxels; -1 is off.")
    diversity: int = Field(-1, description="Fewest distinct ids, background counted; -1 is off.")
    p: Probability = Field(0.95, description="Probability of rejecting such a patch.")
    valid_ratio: Probability = Field(
        0.5, description="With a valid mask: the share of valid voxels must be above this."
    )


class PatchingConfig(_Section):
    """Where patches come from."""

    name: Literal["random", "sequential", "stratified"] = Field(
        "random", description="random, sequential (a grid with overlap), or stratified."
    )
    patches_per_case: PositiveInt | None = Field(
        None, description="For training; as many as tile the case, twice, if not given."
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
    pad_mode: Literal["reflect", "edge", "constant"] = Field(
        "reflect", description="How volumes smaller than a patch are filled; labels likewise."
    )


class SkeletonConfig(_Section):
    """Skeletons of the instances, for SKOOTS-like training."""

    enabled: bool = Field(False, description="Make skeletons and bake them into the patch set.")
    method: Literal["lee", "teasar"] = Field("lee", description="How they are made.")
    anisotropy: tuple[float, float, float] | None = Field(
        None, description="Weights of (z, y, x) distances; the spacing's ratios if not given."
    )
    average: bool = Field(True, description="Smooth the baked field within each instance.")
    radius: PositiveInt = Field(7, description="Of the discs of the skeleton mask, in voxels.")
    flank_radius: NonNegativeInt = Field(3, description="Of the discs on neighbouring slices.")


class OutputConfig(_Section):
    """Where the patch set is written."""

    dir: Path = Field(Path("patches"), description="Folder of the patch set.")
    compression: Literal["lz4", "zstd", "none"] = Field("lz4", description="Of the patches.")


class ComputeConfig(_Section):
    """How much of the machine is used."""

    workers: PositiveInt | None = Field(None, description="Threads; all processors if not given.")


class Config(_Section):
    """Everything `volprep prepare` needs to know. Paths are relative to the YAML file."""

    data: DataConfig
    seed: NonNegativeInt = Field(0, description="Of everything that is drawn.")
    split: SplitConfig = Field(default_factory=lambda: SplitConfig.model_validate({}))
    plan: PlanConfig = Field(default_factory=lambda: PlanConfig.model_validate({}))
    preprocess: PreprocessConfig = Field(
        default_factory=lambda: PreprocessConfig.model_validate({})
    )
    patching: PatchingConfig = Field(default_factory=lambda: PatchingConfig.model_validate({}))
    skeletons: SkeletonConfig = Field(default_factory=lambda: SkeletonConfig.model_validate({}))
    augment: list[dict[str, Any] | str] | dict[str, Any] = Field(
        default_factory=list, description="Augmentations: a list of named sections, in order."
    )
    output: OutputConfig = Field(default_factory=lambda: OutputConfig.model_validate({}))
    compute: ComputeConfig = Field(default_factory=lambda: ComputeConfig.model_validate({}))


class NormalisationConfig(_Section):
    """How stored intensities become the network's input: clip, subtract offset, divide by scale."""

    kind: Literal["zscore", "minmax", "percentile", "given", "none"]
    offset: list[float] = Field(default_factory=list, description="Per channel.")
    scale: list[float] = Field(default_factory=list, description="Per channel.")
    clip: list[tuple[float, float]] | None = Field(None, description="Per channel: low, high.")


class SkeletonTargetsConfig(_Section):
    """How the stored offsets and skeleton masks were baked, and are baked after augmentation."""

    anisotropy: tuple[float, float, float]
    average: bool
    radius: float
    flank_radius: float


class TrainingConfig(_Section):
    """What a trainer needs to know about a patch set: `train.yaml`."""

    volprep_version: str
    patches: dict[Literal["train", "val"], str] = Field(description="Zarr stores, relative.")
    n_patches: dict[Literal["train", "val"], NonNegativeInt]
    patch_size: Size3 = Field(description="The network's input (z, y, x) in voxels.")
    stored_patch_size: Size3 = Field(description="Size of the stored training patches.")
    batch_size: PositiveInt
    pool: Count3 = Field(description="Poolings along (z, y, x).")
    strides: list[Size3] = Field(description="Of each stage of the network, from the top.")
    kernel_sizes: list[Size3] = Field(description="Of each stage of the network, from the top.")
    spacing: tuple[float, float, float] | None = Field(description="(z, y, x) in µm.")
    n_channels: PositiveInt
    label_kind: Literal["instances", "classes"] | None
    n_classes: PositiveInt | None = Field(description="With background; None for instances.")
    class_values: list[int] | None = Field(description="Label value of each class.")
    normalisation: NormalisationConfig
    case_normalisation: dict[str, NormalisationConfig] = Field(default_factory=dict)
    augment: list[dict[str, Any] | str] | dict[str, Any] = Field(default_factory=list)
    skeletons: SkeletonTargetsConfig | None = Field(None, description="Of the skeleton targets.")
    splits: str = Field(description="The file that lists the cases of each split, relative.")
    seed: NonNegativeInt
    precision: Literal["mixed", "fp32"]
    memory_bytes: NonNegativeInt | None = Field(description="What the plan expects to use.")


Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | Path) -> Config:
    """Read and check a config; paths in it become absolute.

    Parameters
    ----------
    path : path-like
        The YAML file.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, or has wrong keys or values; the
        message lists every mistake with its line.
    """
    config = _load_model(Path(path), Config)
    return _with_absolute_paths(config, Path(path).resolve().parent)


def load_training_config(path: str | Path) -> TrainingConfig:
    """Read a generated `train.yaml`.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    return _load_model(Path(path), TrainingConfig)


def with_values(section: Model, given: Mapping[str, Any], where: str) -> Model:
    """A section with some values replaced, checked as if they stood in the YAML.

    Raises
    ------
    ConfigError
        If a value does not fit; `where` begins the dotted key.
    """
    try:
        return type(section).model_validate({**section.model_dump(), **given})
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                f"{where}.{'.'.join(map(str, e['loc']))}: found {_shorten(e['input'])}; {e['msg']}"
                for e in error.errors()
            )
        ) from None


def dump_yaml(model: BaseModel | Mapping[str, Any]) -> str:
    """A model or a plain mapping as YAML text that loads back to the same object."""
    plain = model.model_dump(mode="json") if isinstance(model, BaseModel) else dict(model)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of plain values, such as a saved plan.

    Raises
    ------
    ConfigError
        If it is missing or no YAML mapping.
    """
    return _parse(Path(path))[0]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the YAML, for editors that complete and check it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


class _Dumper(yaml.SafeDumper):
    """Writes short lists of numbers on one line."""


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flow = all(isinstance(v, int | float | str) for v in data) and len(data) <= 16
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does."""


_Loader.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _load_model(path: Path, model: type[Model]) -> Model:
    content, lines = _parse(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_describe(path, mistake, lines, model) for mistake in error.errors())
        ) from None


def _parse(path: Path) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    """The values of a YAML file, and the line of each key."""
    text = _read_text(path)
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _note_lines(path, node, (), lines)
            content = loader.construct_document(node) if node is not None else {}
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: no valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}:1: a {type(content).__name__}; expected sections such as data:")
    return content, lines


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; write one with: volprep init DATA -o {path.name}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _note_lines(
    path: Path,
    node: yaml.Node,
    where: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    seen: set[int] | None = None,
) -> None:
    """Remember the line of every key; a key given twice is an error, not a silent choice."""
    seen = set() if seen is None else seen
    if id(node) in seen:  # an alias: walked already, and perhaps a ring
        return
    seen.add(id(node))
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*where, str(key.value))
            if place in lines:
                dotted = ".".join(map(str, place))
                raise ConfigError(
                    f"{path}:{key.start_mark.line + 1}: {dotted}: given twice "
                    f"(first on line {lines[place]}); keep one"
                )
            lines[place] = key.start_mark.line + 1
            _note_lines(path, value, place, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note_lines(path, value, (*where, number), lines, seen)


def _describe(
    path: Path,
    mistake: Any,
    lines: Mapping[tuple[str | int, ...], int],
    model: type[BaseModel],
) -> str:
    where: tuple[str | int, ...] = tuple(mistake["loc"])
    while where and where not in lines and mistake["type"] != "missing":
        where = where[:-1]  # drop the branches of a union, which are no keys
    known = where if where in lines else where[:-1]
    line = lines.get(known, 1)
    dotted = ".".join(map(str, where)) or "config"
    if mistake["type"] == "extra_forbidden":
        return f"{path}:{line}: {dotted}: unknown key; {_suggest(where, model)}"
    if mistake["type"] == "missing" and isinstance(where[-1], int):
        return f"{path}:{line}: {'.'.join(map(str, where[:-1]))}: too short; give (z, y, x)"
    if mistake["type"] == "missing":
        return f"{path}:{line}: {dotted}: missing; it is required"
    found = _shorten(mistake.get("input"))
    message = str(mistake["msg"]).removeprefix("Value error, ")
    return f"{path}:{line}: {dotted}: found {found}; {message[0].lower()}{message[1:]}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _suggest(where: Sequence[str | int], model: type[BaseModel]) -> str:
    """The nearest right key in the section of `where`, then anywhere."""
    section: type[BaseModel] | None = model
    for part in where[:-1]:
        if section is None or isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        section = _model_of(field.annotation) if field is not None else None
    here = list(section.model_fields) if section is not None else []
    key = str(where[-1]).lower()
    likeness = {name: difflib.SequenceMatcher(None, key, name).ratio() + 0.1 for name in here}
    for dotted, name in _all_keys(model):
        likeness.setdefault(dotted, difflib.SequenceMatcher(None, key, name).ratio())
    nearest = max(likeness, key=likeness.__getitem__)
    if likeness[nearest] >= 0.7:
        return f"did you mean {nearest}?"
    return f"known keys here: {', '.join(here)}" if here else "remove it"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `list[CaseConfig]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_of(inner)
        if found is not None:
            return found
    return None


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    keys: list[tuple[str, str]] = []
    for name, field in model.model_fields.items():
        keys.append((prefix + name, name))
        section = _model_of(field.annotation)
        if section is not None:
            keys.extend(_all_keys(section, f"{prefix}{name}."))
    return keys


def _with_absolute_paths(config: Config, base: Path) -> Config:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else (base / path.expanduser()).resolve()

    cases = [
        case.model_copy(
            update={
                "image": [absolute(p) for p in case.image]
                if isinstance(case.image, list)
                else absolute(case.image),
                "label": absolute(case.label),
                "mask": absolute(case.mask),
                "skeletons": absolute(case.skeletons),
            }
        )
        for case in config.data.cases
    ]
    data = config.data.model_copy(update={"root": absolute(config.data.root), "cases": cases})
    output = config.output.model_copy(update={"dir": absolute(config.output.dir)})
    return config.model_copy(update={"data": data, "output": output})


def canonical_json(model: BaseModel) -> str:
    """One spelling of a config, whatever the order of its keys: what its hash is taken of."""
    return json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
