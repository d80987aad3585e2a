"""Artefacts of electron microscopy: parts that are missing, blurred or noisy.

Amounts are fractions of the patch's own range without outliers (`volprep.augment.scale`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from volprep.augment.program import Program, cell_means, moving_mean
from volprep.augment.transform import (
    Generator,
    IntensityTransform,
    Values,
    below,
    between,
    distinct,
    noise_seed,
)
from volprep.geometry import Box, Shape3

__all__ = ["CutBlur", "CutNoise", "MissingParts", "MotionBlur"]


@dataclass(frozen=True)
class MissingParts(IntensityTransform):
    """Blank a broad band across some sections, as where a section folds or tears.

    Parameters
    ----------
    iterations : int
        Half the width of a band in voxels, along the axis that it crosses;
        never more than a quarter of the shorter side of the section, and of a 2D
        image, which has no other sections to tell it from, a twentieth.
    p : float
        Probability. Every third to fifth section then has a band.

    Notes
    -----
    After PyTorch Connectomics' `MissingParts`: a straight line from side to
    side, dilated `iterations` times, filled with the mean of the section.
    Differs: `p` is applied once (there once for the sample and again for each
    section, from a generator of its own); the band never covers a whole
    section, as it does there in patches of 128 voxels; sections need not be
    squares.
    """

    iterations: int = 64
    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.iterations >= 0, "iterations", "0 or more")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """For each band its section, the axis it crosses, and where it begins and ends."""
        depth, height, width = shape
        bands = []
        section = below(rng, min(3, depth))
        while section < depth:
            axis = "yx"[below(rng, 2)]
            length = width if axis == "y" else height
            ends = [between(rng, (0.0, length - 1.0)) for _ in range(2)]
            bands.append([section, axis, *ends])
            section += 3 + below(rng, 3)
        widest = min(height, width) // (4 if depth > 1 else 20)
        return {"half_width": min(self.iterations, widest), "bands": bands}

    def add_steps(self, values: Values, program: Program) -> None:
        """A band for each section that was drawn."""
        _, height, width = program.shape
        for section, axis, begin, end in values["bands"]:
            # The line crosses the patch along `axis`, from `begin` to `end` on the other one.
            length = height if axis == "y" else width
            slope = (end - begin) / max(length - 1, 1)
            normal = (-slope, 1.0) if axis == "y" else (1.0, -slope)
            # A dilated line holds every voxel within that many steps along y and x together.
            reach = (values["half_width"] + 0.5) * max(1.0, abs(slope))
            program.band(section, normal, begin, reach)

    def describe(self, values: Values) -> str:
        """The sections and the width of the bands."""
        sections = ", ".join(str(band[0]) for band in values["bands"])
        return f"missing parts, {2 * values['half_width'] + 1} px wide, in sections {sections}"


@dataclass(frozen=True)
class MotionBlur(IntensityTransform):
    """Blur some sections along y or along x.

    Parameters
    ----------
    sections : int
        How many sections.
    kernel_size : int
        Voxels that are averaged; of a 2D image, all of which is blurred, no more than
        a 32nd of its shorter side, or 3.
    p : float
        Probability.

    Notes
    -----
    After PyTorch Connectomics' `MotionBlur`. Differs: it draws from the
    generator handed in, and no section is drawn twice.
    """

    sections: int = 2
    kernel_size: int = 11
    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.sections >= 1, "sections", "1 or more")
        self.require(self.kernel_size >= 1, "kernel_size", "1 or more")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """The axis and the sections."""
        axis = "yx"[below(rng, 2)]
        return {"axis": axis, "sections": distinct(rng, shape[0], self.sections)}

    def add_steps(self, values: Values, program: Program) -> None:
        """A moving mean in each section."""
        axis = "zyx".index(values["axis"])
        depth, *sides = program.shape
        most = self.kernel_size if depth > 1 else max(3, min(sides) // 32)
        band = moving_mean(program.shape[axis], min(self.kernel_size, most))
        for section in values["sections"]:
            box = Box((section, 0, 0), (section + 1, *program.shape[1:]))
            program.filter(box, axis, band)

    def describe(self, values: Values) -> str:
        """The sections, the axis and the size."""
        sections = ", ".join(str(n) for n in values["sections"])
        return f"motion blur, {self.kernel_size} px along {values['axis']}, in sections {sections}"


@dataclass(frozen=True)
class CutBlur(IntensityTransform):
    """Lower the resolution inside a random cuboid.

    Parameters
    ----------
    length_ratio : float
        Side of the cuboid relative to the patch, 0 to 1.
    down_ratio_min, down_ratio_max : float
        The cuboid is averaged over cells of this many voxels a side, drawn evenly.
    downsample_z : bool
        Whether cells extend along z.
    p : float
        Probability.

    Notes
    -----
    After PyTorch Connectomics' `CutBlur` (Yoo et al. 2020): averaged down,
    copied back up. Differs: thin stacks of one section work.
    """

    length_ratio: float = 0.25
    down_ratio_min: float = 2.0
    down_ratio_max: float = 8.0
    downsample_z: bool = False
    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 < self.length_ratio <= 1, "length_ratio", "above 0, at most 1")
        self.require(
            1 <= self.down_ratio_min <= self.down_ratio_max,
            "down_ratio_min",
            f"1 to down_ratio_max ({self.down_ratio_max:g})",
        )

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """A cuboid and a ratio."""
        box = _cuboid(rng, shape, self.length_ratio)
        return {"box": box, "ratio": between(rng, (self.down_ratio_min, self.down_ratio_max))}

    def add_steps(self, values: Values, program: Program) -> None:
        """Means of cells along each axis."""
        box = _box(values["box"])
        for axis in (0, 1, 2) if self.downsample_z else (1, 2):
            program.filter(box, axis, cell_means(box.shape[axis], values["ratio"]))

    def describe(self, values: Values) -> str:
        """The cuboid and the ratio."""
        return f"cut-blur ×{values['ratio']:.2g}: {_box_words(values['box'])}"


@dataclass(frozen=True)
class CutNoise(IntensityTransform):
    """Add noise inside a random cuboid.

    Parameters
    ----------
    length_ratio : float
        Side of the cuboid relative to the patch, 0 to 1.
    mode : {'uniform', 'normal'}
        Distribution of the noise.
    scale : float
        Largest change (or standard deviation) as a fraction of the range.
    p : float
        Probability.

    Notes
    -----
    After PyTorch Connectomics' `CutNoise`.
    """

    length_ratio: float = 0.25
    mode: Literal["uniform", "normal"] = "uniform"
    scale: float = 0.2
    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 < self.length_ratio <= 1, "length_ratio", "above 0, at most 1")
        self.require(self.mode in ("uniform", "normal"), "mode", "'uniform' or 'normal'")
        self.require(self.scale >= 0, "scale", "0 or more")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """A cuboid and the seed of the noise."""
        return {"box": _cuboid(rng, shape, self.length_ratio), "seed": noise_seed(rng)}

    def add_steps(self, values: Values, program: Program) -> None:
        """Noise in the cuboid; the same in every channel, as a detector's glitch is."""
        program.noise(_box(values["box"]), self.mode, self.scale, values["seed"])

    def describe(self, values: Values) -> str:
        """The cuboid and the strength."""
        return f"cut-noise ±{self.scale:.0%} of the range: {_box_words(values['box'])}"


def _cuboid(rng: Generator, shape: Shape3, ratio: float) -> list[list[int]]:
    """Start and stop of a cuboid of `ratio` of the patch along each axis, one voxel at least."""
    lengths = [max(1, int(ratio * n)) for n in shape]
    starts = [below(rng, n - m + 1) for n, m in zip(shape, lengths, strict=True)]
    return [starts, [a + m for a, m in zip(starts, lengths, strict=True)]]


def _box(corners: Sequence[Sequence[int]]) -> Box:
    (z0, y0, x0), (z1, y1, x1) = corners
    return Box((z0, y0, x0), (z1, y1, x1))


def _box_words(corners: Sequence[Sequence[int]]) -> str:
    pairs = zip("zyx", *corners, strict=True)
    return ", ".join(f"{axis} {a}–{b - 1}" for axis, a, b in pairs)
