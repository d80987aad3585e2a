"""Augmentations of intensity: what detectors, light and staining change from image to image.

Amounts are fractions of the patch's own range without outliers (`volprep.augment.scale`), so
that one setting means the same for uint8, uint16 and normalised images. No value is pinned to
an end of that range unless `clip` asks for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from volprep.augment.program import Program, gaussian, low_resolution
from volprep.augment.transform import (
    Generator,
    IntensityTransform,
    Values,
    between,
    noise_seed,
)
from volprep.geometry import Shape3

__all__ = [
    "BrightnessContrast",
    "ChannelDropout",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "Invert",
    "LowResolution",
    "PoissonNoise",
]

Pair = tuple[float, float] | float


@dataclass(frozen=True)
class Grayscale(IntensityTransform):
    """Change contrast, brightness and gamma, of the whole stack or of each section.

    Parameters
    ----------
    contrast_factor : float
        Contrast is multiplied by 1 plus or minus up to half of this.
    brightness_factor : float
        Brightness is multiplied by 1 plus or minus up to half of this, from the
        dark end of the range on.
    mode : {'mix', '2D', '3D'}
        ``2D`` draws for each section, ``3D`` once; ``mix`` tosses a coin.
    invert : bool
        Whether images may be inverted.
    invert_p : float
        How often they are.
    clip : bool
        Keep values within the range, as where a detector saturates.
    p : float
        Probability.

    Notes
    -----
    After PyTorch Connectomics' `Grayscale`, gamma from 1/2 to 2. Differs:
    ``mix`` does draw per section every second time (there it never does); values
    are in the image's own range, not in 0 to 1; contrast turns about the mean,
    brightness is a factor (there both act from 0, brightness is added), and values
    are not clipped unless asked, so that dark backgrounds do not turn black.
    """

    contrast_factor: float = 0.3
    brightness_factor: float = 0.3
    mode: Literal["mix", "2D", "3D"] = "mix"
    invert: bool = False
    invert_p: float = 0.0
    clip: bool = False
    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.contrast_factor >= 0, "contrast_factor", "0 or more")
        self.require(self.brightness_factor >= 0, "brightness_factor", "0 or more")
        self.require(self.mode in ("mix", "2D", "3D"), "mode", "'mix', '2D' or '3D'")
        self.require(0 <= self.invert_p <= 1, "invert_p", "a probability, 0 to 1")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """Three lists, with one number for the stack or one for each section."""
        mode = self.mode
        if mode == "mix":
            mode = "3D" if rng.random() < 0.5 else "2D"
        drawn = rng.random((3, shape[0] if mode == "2D" else 1)) - 0.5
        return {
            "mode": mode,
            "contrast": (1 + drawn[0] * self.contrast_factor).tolist(),
            "brightness": (1 + drawn[1] * self.brightness_factor).tolist(),
            "gamma": (2.0 ** (2 * drawn[2])).tolist(),
            "inverted": bool(self.invert and rng.random() < self.invert_p),
        }

    def add_steps(self, values: Values, program: Program) -> None:
        """Levels for the stack, or for each section."""
        rows = zip(values["contrast"], values["brightness"], values["gamma"], strict=True)
        inverted = values["inverted"]
        for z, (contrast, brightness, gamma) in enumerate(rows):
            program.levels(
                (z, z + 1) if values["mode"] == "2D" else None,
                contrast=contrast, brightness=brightness, gamma=gamma,
                inverted=inverted, clip=self.clip,
            )  # fmt: skip

    def describe(self, values: Values) -> str:
        """The values, or their ranges over the sections."""
        words = [f"{k} {_range_words(values[k])}" for k in ("contrast", "brightness", "gamma")]
        each = " per section" if values["mode"] == "2D" else ""
        inverted = ", inverted" if values["inverted"] else ""
        return f"grayscale{each}: {', '.join(words)}{inverted}"


@dataclass(frozen=True)
class BrightnessContrast(IntensityTransform):
    """Change brightness, from the dark end of the range on, and contrast, about the mean.

    Parameters
    ----------
    brightness, contrast : float
        Each is multiplied by 1 plus or minus up to this.
    clip : bool
        Keep values within the range, as where a detector saturates.
    p : float
        Probability.

    Notes
    -----
    nnU-Net's brightness and contrast transforms in one: there a factor from 0.75
    to 1.25 each, with a probability of 0.15 each. Differs: brightness is a factor
    from the dark end on, not from the mean of the data set, so that a background
    stays where it is; contrast does not clip to the patch's extremes.
    """

    brightness: float = 0.25
    contrast: float = 0.25
    clip: bool = False
    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.brightness <= 1, "brightness", "0 to 1")
        self.require(0 <= self.contrast <= 1, "contrast", "0 to 1")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """One of each."""
        return {
            "contrast": 1 + between(rng, (-self.contrast, self.contrast)),
            "brightness": 1 + between(rng, (-self.brightness, self.brightness)),
        }

    def add_steps(self, values: Values, program: Program) -> None:
        """``((u - mean) * contrast + mean) * brightness``."""
        program.levels(contrast=values["contrast"], brightness=values["brightness"], clip=self.clip)

    def describe(self, values: Values) -> str:
        """Both."""
        return f"contrast ×{values['contrast']:.3g}, brightness ×{values['brightness']:.3g}"


@dataclass(frozen=True)
class Gamma(IntensityTransform):
    """Bend the grey values: ``u ** gamma`` between the ends of the range, straight beyond.

    Parameters
    ----------
    gamma : float or pair of floats
        Drawn evenly on a logarithmic scale; below 1 brightens.
    p : float
        Probability.
    """

    gamma: Pair = (0.7, 1.5)
    p: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_interval("gamma", 0.05, 20)

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """One exponent."""
        low, high = self.gamma  # type: ignore[misc]
        return {"gamma": math.exp(between(rng, (math.log(low), math.log(high))))}

    def add_steps(self, values: Values, program: Program) -> None:
        """Levels."""
        program.levels(gamma=values["gamma"])

    def describe(self, values: Values) -> str:
        """The exponent."""
        return f"gamma {values['gamma']:.3g}"


@dataclass(frozen=True)
class Invert(IntensityTransform):
    """Turn bright into dark: ``low + high - value``, low and high the ends of the range.

    Parameters
    ----------
    p : float
        Probability.
    """

    p: float = 0.1

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """Nothing to draw."""
        return {}

    def add_steps(self, values: Values, program: Program) -> None:
        """Levels."""
        program.levels(inverted=True)

    def describe(self, values: Values) -> str:
        """That it is inverted."""
        return "inverted"


@dataclass(frozen=True)
class GaussianNoise(IntensityTransform):
    """Add normal noise, independent in every voxel.

    Parameters
    ----------
    sigma : float or pair of floats
        Standard deviation as a fraction of the range, drawn evenly.
    p : float
        Probability.

    Notes
    -----
    nnU-Net's noise has up to 0.32 standard deviations of the image, which is some
    0.07 of the range of a patch that is spread like a normal distribution.
    """

    sigma: Pair = (0.0, 0.07)
    p: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_interval("sigma", 0)

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """A standard deviation and the seed of the field."""
        return {"sigma": between(rng, self.sigma), "seed": noise_seed(rng)}

    def add_steps(self, values: Values, program: Program) -> None:
        """Noise over the whole patch, another field for each channel."""
        program.noise(program.whole, "normal", values["sigma"], _seed(values, program))

    def describe(self, values: Values) -> str:
        """The standard deviation."""
        return f"noise of {values['sigma']:.1%} of the range"


@dataclass(frozen=True)
class PoissonNoise(IntensityTransform):
    """Count photons: the noise of few photons, stronger in bright places.

    Parameters
    ----------
    photons : float or pair of floats
        Photons that the high end of the range stands for, drawn evenly
        on a logarithmic scale; fewer is noisier.
    p : float
        Probability.
    """

    photons: Pair = (100.0, 1000.0)
    p: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_interval("photons", 1)

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """A number of photons and the seed of the field."""
        low, high = self.photons  # type: ignore[misc]
        photons = math.exp(between(rng, (math.log(low), math.log(high))))
        return {"photons": photons, "seed": noise_seed(rng)}

    def add_steps(self, values: Values, program: Program) -> None:
        """Noise over the whole patch, another field for each channel."""
        program.noise(program.whole, "poisson", values["photons"], _seed(values, program))

    def describe(self, values: Values) -> str:
        """The number of photons."""
        return f"{values['photons']:.0f} photons at the top of the range"


@dataclass(frozen=True)
class GaussianBlur(IntensityTransform):
    """Blur, as out of focus.

    Parameters
    ----------
    sigma : float or pair of floats
        Voxels along y and x, drawn evenly.
    p : float
        Probability.
    axes : str
        ``yx``, or ``zyx`` for near isotropic volumes.
    """

    sigma: Pair = (0.5, 1.5)
    p: float = 0.2
    axes: Literal["yx", "zyx"] = "yx"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_interval("sigma", 0.1, 50)
        self.require(self.axes in ("yx", "zyx"), "axes", "'yx' or 'zyx'")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """One sigma."""
        return {"sigma": between(rng, self.sigma)}

    def add_steps(self, values: Values, program: Program) -> None:
        """A filter along each axis."""
        for axis in _axis_numbers(self.axes):
            program.filter(program.whole, axis, gaussian(program.shape[axis], values["sigma"]))

    def describe(self, values: Values) -> str:
        """The sigma."""
        return f"blur of {values['sigma']:.2g} px" + (" in 3D" if self.axes == "zyx" else "")


@dataclass(frozen=True)
class LowResolution(IntensityTransform):
    """Lose resolution: average to a coarser grid and interpolate back.

    Parameters
    ----------
    scale : float or pair of floats
        Size of the coarser grid, from above 0 to 1, drawn evenly.
    p : float
        Probability.
    axes : str
        ``yx``, or ``zyx`` for near isotropic volumes.
    """

    scale: Pair = (0.5, 1.0)
    p: float = 0.25
    axes: Literal["yx", "zyx"] = "yx"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_interval("scale", 0.02, 1)
        self.require(self.axes in ("yx", "zyx"), "axes", "'yx' or 'zyx'")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """One scale."""
        return {"scale": between(rng, self.scale)}

    def add_steps(self, values: Values, program: Program) -> None:
        """A filter along each axis."""
        for axis in _axis_numbers(self.axes):
            band = low_resolution(program.shape[axis], 1 / values["scale"])
            program.filter(program.whole, axis, band)

    def describe(self, values: Values) -> str:
        """The scale."""
        return f"resolution ×{values['scale']:.2g}" + (" in 3D" if self.axes == "zyx" else "")


@dataclass(frozen=True)
class ChannelDropout(IntensityTransform):
    """Blank one channel, as when a stain fails; images of one channel stay as they are.

    Parameters
    ----------
    p : float
        Probability.
    fill : float
        What replaces the channel, as a fraction of its range.
    """

    p: float = 0.1
    fill: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.fill <= 1, "fill", "0 to 1")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """Which channel, as a fraction of their number."""
        return {"channel": float(rng.random())}

    def add_steps(self, values: Values, program: Program) -> None:
        """Fill the channel that was drawn."""
        chosen = int(values["channel"] * program.n_channels)
        if program.n_channels > 1 and chosen == program.channel:
            program.fill(program.whole, self.fill)

    def describe(self, values: Values) -> str:
        """Where the channel lies."""
        return f"one channel blank (at {values['channel']:.0%} of the channels)"


def _axis_numbers(axes: str) -> list[int]:
    return ["zyx".index(a) for a in axes]


def _seed(values: Values, program: Program) -> tuple[int, int]:
    first, second = values["seed"]
    return first, (second + 0x9E3779B9 * program.channel) & 0xFFFFFFFF


def _range_words(numbers: list[float]) -> str:
    low, high = (round(float(n), 2) + 0.0 for n in (np.min(numbers), np.max(numbers)))
    return f"{low:.2f}" if len(numbers) == 1 else f"{low:.2f} to {high:.2f}"
