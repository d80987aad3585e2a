"""What every augmentation has in common: its parameters, its draw, its words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from volprep.augment.program import Program
from volprep.geometry import Shape3, Spacing3
from volprep.warp import CoordinateMap

__all__ = [
    "Drawn",
    "IntensityTransform",
    "LinearTransform",
    "Reach",
    "SpatialTransform",
    "TargetType",
    "Transform",
    "Values",
    "between",
    "interval",
    "noise_seed",
    "snake_case",
]

TargetType = Literal["img", "mask", "points"]
Values = dict[str, Any]
Generator = np.random.Generator


@dataclass(frozen=True)
class Drawn:
    """The parameters of one augmentation, drawn and not yet applied.

    Parameters
    ----------
    shape : tuple of three ints
        (Z, Y, X) of the result.
    steps : tuple of (str, dict or None)
        One for each transform of the `Compose`, in its order: the name, and
        the values that were drawn, None where the transform stays out. Values
        are numbers, strings, booleans and lists of them.
    """

    shape: Shape3
    steps: tuple[tuple[str, Values | None], ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers, ready for JSON or YAML."""
        return {"shape": list(self.shape), "steps": [[name, v] for name, v in self.steps]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Drawn:
        """From what `to_dict` gave."""
        z, y, x = (int(n) for n in document["shape"])
        return cls((z, y, x), tuple((str(name), values) for name, values in document["steps"]))


def snake_case(name: str) -> str:
    """`CutBlur` as ``cut_blur``; `MisAlignment` stays one word, ``misalignment``."""
    if name == "MisAlignment":
        return "misalignment"
    return "".join("_" + c.lower() if c.isupper() and n else c.lower() for n, c in enumerate(name))


@dataclass(frozen=True)
class Transform:
    """One augmentation.

    Parameters
    ----------
    p : float
        Probability, 0 to 1, that the transform acts on a sample.
    additional_targets : dict of str to {'img', 'mask', 'points'}, optional
        Targets beside ``image``, by name. Declared here or on `Compose`, they
        hold for the whole `Compose`.
    skip_targets : sequence of str
        Targets that this transform leaves alone.
    enabled : bool
        False takes the transform out.

    Notes
    -----
    After PyTorch Connectomics' `DataAugment`. Differs: every transform acts on
    all targets of the `Compose` unless `skip_targets` names them, so that an
    image can never move without its labels by an omission.
    """

    p: float = 0.5
    additional_targets: Mapping[str, TargetType] | None = field(default=None, kw_only=True)
    skip_targets: Sequence[str] = field(default=(), kw_only=True)
    enabled: bool = field(default=True, kw_only=True)

    kind: ClassVar[Literal["spatial", "intensity", "objects"]]
    #: In a config, such as ``cut_blur``.
    name: ClassVar[str] = "transform"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = snake_case(cls.__name__)

    def __post_init__(self) -> None:
        for own in dataclasses.fields(self):
            self._check_kind(own.name, own.default)
        self.require(0 <= self.p <= 1, "p", "a probability, 0 to 1")
        skipped, others = self.skip_targets, self.additional_targets
        listed = isinstance(skipped, (list, tuple, set, frozenset))
        words = listed and all(isinstance(name, str) for name in skipped)
        self.require(words, "skip_targets", "a list of names")
        object.__setattr__(self, "skip_targets", tuple(skipped))
        named = others is None or isinstance(others, Mapping)
        self.require(named, "additional_targets", "a type for each name, such as {label: mask}")
        for name, kind in (self.additional_targets or {}).items():
            if kind not in ("img", "mask", "points"):
                raise ValueError(
                    f"additional_targets: {name!r} has type {kind!r}; "
                    "wanted 'img', 'mask' or 'points'"
                )

    def _check_kind(self, parameter: str, default: object) -> None:
        """A value must be of the kind of its default."""
        found = getattr(self, parameter)
        number = isinstance(found, (int, float)) and not isinstance(found, bool)
        if isinstance(default, bool):
            self.require(isinstance(found, bool), parameter, "true or false")
        elif isinstance(default, int):
            whole = number and math.isfinite(found) and found == int(found)
            self.require(whole, parameter, "a whole number")
        elif isinstance(default, float):
            self.require(number and math.isfinite(found), parameter, "a number")
        elif isinstance(default, str):
            self.require(isinstance(found, str), parameter, "a word")

    def require(self, holds: bool, parameter: str, wanted: str) -> None:
        """Refuse a parameter that makes no sense."""
        if not holds:
            found = getattr(self, parameter)
            raise ValueError(f"{self.name}.{parameter}: found {found!r}; wanted {wanted}")

    def set_interval(self, parameter: str, lowest: float, highest: float = np.inf) -> None:
        """Turn a number or a pair into an interval (low, high) and check it."""
        low, high = interval(getattr(self, parameter), f"{self.name}.{parameter}")
        wanted = f"{lowest:g} or more" if highest == np.inf else f"{lowest:g} to {highest:g}"
        self.require(lowest <= low <= high <= highest, parameter, f"{wanted}, the lower first")
        object.__setattr__(self, parameter, (low, high))

    def parameters(self) -> dict[str, Any]:
        """The parameters by name, without the targets."""
        left_out = {"additional_targets", "skip_targets"}
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in left_out
        }

    def draw(self, rng: Generator, shape: Shape3) -> Values | None:
        """Draw the parameters of one application to a patch of `shape`.

        None where the transform has nothing to act on, as a section artefact
        in a 2D image.
        """
        raise NotImplementedError

    def describe(self, values: Values) -> str:
        """The drawn values in words."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reach:
    """How far from the patch's centre a map may read, in voxels (Z, Y, X), each way."""

    z: float
    y: float
    x: float

    def as_tuple(self) -> tuple[float, float, float]:
        """(z, y, x)."""
        return self.z, self.y, self.x


@dataclass(frozen=True)
class SpatialTransform(Transform):
    """An augmentation that moves voxels: it adds to the one coordinate map of the sample.

    `stage` says when, seen from the output: sections are placed first, then
    the tissue is displaced, then the whole is turned, scaled and flipped.
    """

    kind: ClassVar[Literal["spatial", "intensity", "objects"]] = "spatial"
    stage: ClassVar[Literal["sections", "displacement", "linear"]]

    def coordinate_map(self, values: Values, shape: Shape3, spacing: Spacing3) -> CoordinateMap:
        """From output voxels towards the source."""
        raise NotImplementedError

    def reach(self, reach: Reach, shape: Shape3, spacing: Spacing3) -> Reach:
        """The farthest that the map reads, for any draw, for outputs within `reach`."""
        raise NotImplementedError


@dataclass(frozen=True)
class LinearTransform(SpatialTransform):
    """A spatial augmentation that turns, scales or mirrors the whole patch about its middle."""

    stage: ClassVar[Literal["sections", "displacement", "linear"]] = "linear"

    def linear(self, values: Values, spacing: Spacing3) -> npt.NDArray[np.float64]:
        """What takes a step in the output to a step in the source, (3, 3)."""
        raise NotImplementedError

    def coordinate_map(self, values: Values, shape: Shape3, spacing: Spacing3) -> CoordinateMap:
        """The linear map about the origin."""
        return CoordinateMap.linear(self.linear(values, spacing))


@dataclass(frozen=True)
class IntensityTransform(Transform):
    """An augmentation that changes values of images and leaves masks and points alone."""

    kind: ClassVar[Literal["spatial", "intensity", "objects"]] = "intensity"

    def add_steps(self, values: Values, program: Program) -> None:
        """Write what was drawn as steps of a program for one channel."""
        raise NotImplementedError


def interval(value: Any, where: str) -> tuple[float, float]:
    """A number or a pair of numbers as (low, high)."""
    pair = value if isinstance(value, Sequence) and not isinstance(value, str) else [value, value]
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in pair)
    if numbers and len(pair) == 2:
        return float(pair[0]), float(pair[1])
    raise ValueError(f"{where}: found {value!r}; wanted a number, or two: [low, high]")


def between(rng: Generator, bounds: tuple[float, float] | float) -> float:
    """A number drawn evenly between two bounds."""
    low, high = bounds if isinstance(bounds, tuple) else (bounds, bounds)
    return float(low + (high - low) * rng.random())


def below(rng: Generator, stop: int) -> int:
    """A whole number from 0 to `stop` - 1.

    Single numbers are drawn without letting go of the interpreter's lock, which
    `Generator.integers` does: another thread would take it in the middle of the draw.
    """
    return int(rng.random() * stop)


def distinct(rng: Generator, stop: int, count: int) -> list[int]:
    """Up to `count` different numbers from 0 to `stop` - 1, in ascending order."""
    numbers = list(range(stop))
    for place in range(min(count, stop)):
        other = place + below(rng, stop - place)
        numbers[place], numbers[other] = numbers[other], numbers[place]
    return sorted(numbers[:count])


def noise_seed(rng: Generator) -> list[int]:
    """Two 32-bit numbers that stand for a whole field of noise."""
    word = int(rng.bit_generator.random_raw())
    return [word & 0xFFFFFFFF, word >> 32]
