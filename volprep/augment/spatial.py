"""Augmentations that move voxels: each adds to one coordinate map, nothing is read twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from volprep.augment.transform import (
    Generator,
    LinearTransform,
    Reach,
    SpatialTransform,
    Values,
    below,
    between,
    distinct,
    noise_seed,
)
from volprep.geometry import Shape3, Spacing3
from volprep.randomness import sample_generator
from volprep.warp import CoordinateMap

__all__ = ["Elastic", "Flip", "MisAlignment", "MissingSection", "Rescale", "Rotate"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rotate(LinearTransform):
    """Turn the volume: in the plane by quarter turns or any angle, and tilt it if asked.

    Parameters
    ----------
    rot90 : bool
        Quarter turns only, which interpolate nothing. False draws an angle
        evenly from -`max_angle` to `max_angle`.
    p : float
        Probability.
    max_angle : float
        Degrees about the z axis, up to 180.
    tilt : float
        Largest angle about the y and the x axis, in degrees, drawn evenly each;
        0 keeps every section a section. For near isotropic volumes.

    Notes
    -----
    After PyTorch Connectomics' `Rotate`. Differs: the corners are read from
    the volume, not filled with zeros; angles are physical where `Compose`
    knows the spacing; `max_angle` and `tilt` are volprep's own.
    """

    rot90: bool = True
    p: float = 0.5
    max_angle: float = 180.0
    tilt: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.max_angle <= 180, "max_angle", "0 to 180 degrees")
        self.require(0 <= self.tilt <= 90, "tilt", "0 to 90 degrees")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """A number of quarter turns or an angle, and two tilts."""
        if self.rot90:
            angle = 90.0 * below(rng, 4)
        else:
            angle = between(rng, (-self.max_angle, self.max_angle))
        tilt = self.tilt if shape[0] > 1 else 0.0
        tilts = [between(rng, (-tilt, tilt)) if tilt else 0.0 for _ in "yx"]
        return {"angle": angle, "tilts": tilts}

    def linear(self, values: Values, spacing: Spacing3) -> Floats:
        """A rotation in micrometres, seen in voxels."""
        turn = _turn(0, values["angle"])
        for axis, angle in zip((1, 2), values["tilts"], strict=True):
            if angle:
                turn = turn @ _turn(axis, angle)
        if self.rot90 and not any(values["tilts"]):
            return turn
        scale = np.asarray(spacing)
        return np.asarray(turn * scale[None] / scale[:, None])

    def reach(self, reach: Reach, shape: Shape3, spacing: Spacing3) -> Reach:
        """The corners of the turned box, for the worst angles."""
        z, y, x = (r * s for r, s in zip(reach.as_tuple(), spacing, strict=True))
        if shape[0] > 1:
            z, y = _sweep(z, y, self.tilt)
            z, x = _sweep(z, x, self.tilt)
        y, x = (max(y, x),) * 2 if self.rot90 else _sweep(y, x, self.max_angle)
        turned = Reach(z / spacing[0], y / spacing[1], x / spacing[2])
        if not self.rot90:
            return turned
        side = max(reach.y, reach.x)
        return Reach(turned.z, max(side, turned.y), max(side, turned.x))

    def describe(self, values: Values) -> str:
        """Angles in degrees."""
        text = f"rotate {values['angle']:.3g}°"
        if any(values["tilts"]):
            text += " (tilt y {:.3g}°, x {:.3g}°)".format(*values["tilts"])
        return text


@dataclass(frozen=True)
class Rescale(LinearTransform):
    """Magnify or shrink the volume.

    Parameters
    ----------
    low, high : float
        The factor is drawn evenly between them; above 1 objects become larger.
    fix_aspect : bool
        One factor for all axes; else one for each.
    p : float
        Probability.
    axes : str
        Which axes are scaled: ``yx`` or ``zyx``.

    Notes
    -----
    After PyTorch Connectomics' `Rescale`. Differs: `low` may be any positive
    number; shrinking reads more of the volume instead of padding with zeros;
    labels are not converted; magnifying keeps the centre of the patch.
    """

    low: float = 0.8
    high: float = 1.25
    fix_aspect: bool = False
    p: float = 0.5
    axes: Literal["yx", "zyx"] = "yx"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 < self.low <= self.high, "low", f"above 0 and at most high ({self.high:g})")
        self.require(self.axes in ("yx", "zyx"), "axes", "'yx' or 'zyx'")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """A factor for each axis."""
        factors = [1.0, 1.0, 1.0]
        common = between(rng, (self.low, self.high)) if self.fix_aspect else None
        for axis in ("zyx".index(a) for a in self.axes):
            factors[axis] = between(rng, (self.low, self.high)) if common is None else common
        return {"factors": factors}

    def linear(self, values: Values, spacing: Spacing3) -> Floats:
        """Steps of one over the factor."""
        return np.diag(1.0 / np.asarray(values["factors"]))

    def reach(self, reach: Reach, shape: Shape3, spacing: Spacing3) -> Reach:
        """Farther by one over `low`."""
        grow = 1.0 / self.low
        return Reach(reach.z * (grow if "z" in self.axes else 1.0), reach.y * grow, reach.x * grow)

    def describe(self, values: Values) -> str:
        """The factors."""
        named = zip("zyx", values["factors"], strict=True)
        return "rescale " + " ".join(f"{a} ×{f:.3g}" for a, f in named if a in self.axes)


@dataclass(frozen=True)
class Flip(LinearTransform):
    """Mirror along z, y and x, and swap axes.

    Parameters
    ----------
    do_ztrans : int
        1 also swaps z and x, for isotropic volumes.
    p : float
        Probability; each mirror and each swap then happens every second time.
    axes : str
        The axes that may be mirrored, from ``zyx``.
    transpose : bool
        Whether y and x are swapped every second time; not for bodies, which have a pose.

    Notes
    -----
    After PyTorch Connectomics' `Flip`. Differs: skeleton points are mirrored
    about the same voxel centres as the image; patches need not be cubes for
    `do_ztrans`, the volume only has to be large enough.
    """

    do_ztrans: int = 0
    p: float = 0.5
    axes: str = "zyx"
    transpose: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.do_ztrans in (0, 1), "do_ztrans", "0 or 1")
        self.require(set(self.axes) <= set("zyx"), "axes", "letters of 'zyx'")

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """Which axes are mirrored, whether y and x are swapped, whether z and x are."""
        coins = [below(rng, 2) for _ in range(5)]
        mirrored = [
            axis
            for axis, coin, length in zip("zyx", coins, shape, strict=False)
            if coin and axis in self.axes and length > 1
        ]
        return {
            "mirrored": mirrored,
            "swap_yx": bool(coins[3] and self.transpose),
            "swap_zx": bool(coins[4] and self.do_ztrans),
        }

    def linear(self, values: Values, spacing: Spacing3) -> Floats:
        """A signed permutation."""
        linear = np.diag([-1.0 if a in values["mirrored"] else 1.0 for a in "zyx"])
        if values["swap_yx"]:
            linear = linear[:, [0, 2, 1]]
        if values["swap_zx"]:
            linear = linear[:, [2, 1, 0]]
        return linear

    def reach(self, reach: Reach, shape: Shape3, spacing: Spacing3) -> Reach:
        """The larger of the axes that change places."""
        if self.do_ztrans:
            side = max(reach.as_tuple())
            return Reach(side, side, side)
        if not self.transpose:
            return reach
        side = max(reach.y, reach.x)
        return Reach(reach.z, side, side)

    def describe(self, values: Values) -> str:
        """Mirrors and swaps."""
        parts = [f"mirror {a}" for a in values["mirrored"]]
        parts += ["swap y and x"] * values["swap_yx"] + ["swap z and x"] * values["swap_zx"]
        return "flip: " + (", ".join(parts) or "as it is")


@dataclass(frozen=True)
class Elastic(SpatialTransform):
    """Bend the volume smoothly.

    Parameters
    ----------
    alpha : float
        Strength in voxels, as Simard et al. (2003) have it: the displacement
        has the standard deviation of uniform noise of plus and minus `alpha`
        after a Gaussian filter of `sigma`, about ``alpha / (6 sigma)``.
    sigma : float
        Smoothness in voxels; bends are some three sigma wide.
    p : float
        Probability.
    axes : str
        ``yx`` bends every section alike; ``zyx`` bends in 3D, 2D images as ``yx``.

    Notes
    -----
    After PyTorch Connectomics' `Elastic`. Differs: displacements come from a
    control grid of three sigma, linear in between, so that they have a bound
    (`bound`, 1.7 voxels at the defaults) and no dense field is filtered; the
    patch grows by that bound instead of by alpha.
    """

    alpha: float = 16.0
    sigma: float = 4.0
    p: float = 0.5
    axes: Literal["yx", "zyx"] = "yx"
    stage: ClassVar[Literal["sections", "displacement", "linear"]] = "displacement"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.alpha >= 0, "alpha", "0 or more")
        self.require(self.sigma > 0, "sigma", "above 0")
        self.require(self.axes in ("yx", "zyx"), "axes", "'yx' or 'zyx'")

    def bound(self, shape: Shape3) -> float:
        """The largest displacement along an axis, in voxels, of a patch of `shape`."""
        # Linear interpolation between independent nodes keeps 2/3 of the variance per axis.
        spread = self.alpha / (2 * self.sigma * math.sqrt(3 * math.pi))
        return math.sqrt(3) * spread * math.pow(1.5, len(self._moved(shape)) / 2)

    def _moved(self, shape: Shape3) -> str:
        return "yx" if shape[0] == 1 else self.axes

    def draw(self, rng: Generator, shape: Shape3) -> Values:
        """The seed of the control grid, and its bound."""
        return {"seed": noise_seed(rng), "bound": self.bound(shape)}

    def coordinate_map(self, values: Values, shape: Shape3, spacing: Spacing3) -> CoordinateMap:
        """A control grid over the patch."""
        step, moved = 3.0 * self.sigma, self._moved(shape)
        nodes = [2 + int((n - 1) // step) for n in shape]
        if moved == "yx":
            nodes[0] = 1
        low, high = values["seed"]
        rng = sample_generator(low | high << 32)
        grid = np.empty((3, *nodes), np.float32)
        grid[: 3 - len(moved)] = 0
        field = rng.random((len(moved), *nodes), np.float32)
        grid[3 - len(moved) :] = (2 * field - 1) * np.float32(values["bound"])
        return CoordinateMap.elastic(grid, (step, step, step))

    def reach(self, reach: Reach, shape: Shape3, spacing: Spacing3) -> Reach:
        """Farther by the bound."""
        bound = self.bound(shape)
        deep = bound if self._moved(shape) == "zyx" else 0.0
        return Reach(reach.z + deep, reach.y + bound, reach.x + bound)

    def describe(self, values: Values) -> str:
        """Strength and smoothness."""
        bends = f"bends of {3 * self.sigma:.3g} px" + " in 3D" * (self.axes == "zyx")
        return f"elastic: up to {values['bound']:.2g} px, {bends}"


@dataclass(frozen=True)
class MissingSection(SpatialTransform):
    """Delete whole sections, as when sections are lost: their neighbours meet.

    Parameters
    ----------
    num_sections : int
        How many sections are deleted, neither the first nor the last.
    p : float
        Probability; images of one section stay as they are.

    Notes
    -----
    After PyTorch Connectomics' `MissingSection`. Differs: the section that is
    lost at the end of the patch is read from the volume, so that the size of
    the result does not depend on the draw.
    """

    num_sections: int = 2
    p: float = 0.5
    stage: ClassVar[Literal["sections", "displacement", "linear"]] = "sections"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.num_sections >= 1, "num_sections", "1 or more")

    def draw(self, rng: Generator, shape: Shape3) -> Values | None:
        """The numbers of the deleted sections, counted in the patch before they go."""
        if shape[0] == 1:
            return None
        last = shape[0] + self.num_sections - 1
        gone = distinct(rng, last - 1, self.num_sections)
        return {"deleted": [1 + section for section in gone]}

    def coordinate_map(self, values: Values, shape: Shape3, spacing: Spacing3) -> CoordinateMap:
        """The sections that stay, placed about the middle of all of them."""
        deleted = values["deleted"]
        gone = set(deleted)
        kept = np.array([n for n in range(shape[0] + len(deleted)) if n not in gone])
        return CoordinateMap.sections(index=kept - len(deleted) // 2)

    def reach(self, reach: Reach, shape: Shape3, spacing: Spacing3) -> Reach:
        """Farther by half of the deleted sections."""
        more = 0 if shape[0] == 1 else math.ceil(self.num_sections / 2)
        return Reach(reach.z + more, reach.y, reach.x)

    def describe(self, values: Values) -> str:
        """Which sections go."""
        return (
            "missing section" + "s" * (len(values["deleted"]) > 1) + " " + _words(values["deleted"])
        )


@dataclass(frozen=True)
class MisAlignment(SpatialTransform):
    """Shift or turn sections against each other, as in a badly aligned stack.

    Parameters
    ----------
    displacement : int
        Voxels: the farthest that two sections are shifted against each other
        along y and along x, and that a corner moves when a section is turned.
    rotate_ratio : float
        How often, 0 to 1, sections are turned instead of shifted.
    p : float
        Probability; images of one section stay as they are.

    Notes
    -----
    After PyTorch Connectomics' `MisAlignment`: half of the time one section
    slips, half of the time all sections from one on are moved. Differs: the
    parts that come into view are read from the volume, not filled with zeros;
    sections need not be squares, stacks of two sections work, and shifts of
    both signs are equally likely.
    """

    displacement: int = 16
    rotate_ratio: float = 0.0
    p: float = 0.5
    stage: ClassVar[Literal["sections", "displacement", "linear"]] = "sections"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.displacement >= 0, "displacement", "0 or more voxels")
        self.require(0 <= self.rotate_ratio <= 1, "rotate_ratio", "0 to 1")

    @property
    def _half(self) -> int:
        return int(self.displacement) // 2

    def _largest_angle(self, shape: Shape3) -> float:
        """Radians by which a corner moves by `displacement`."""
        radius = max(math.hypot(*shape[1:]) / 2, 1.0)
        return 2 * math.asin(min(1.0, self.displacement / 2 / radius))

    def draw(self, rng: Generator, shape: Shape3) -> Values | None:
        """Slip or shift, where it begins, and two shifts (y, x) or an angle in degrees."""
        depth = shape[0]
        if depth == 1:
            return None
        turned = bool(rng.random() < self.rotate_ratio)
        mode = "slip" if rng.random() < 0.5 else "shift"
        section = 1 + below(rng, depth - 1)
        if turned:
            bound = math.degrees(self._largest_angle(shape))
            return {"mode": mode, "section": section, "angle": between(rng, (-bound, bound))}
        y0, x0, y1, x1 = (below(rng, 2 * self._half + 1) - self._half for _ in range(4))
        shifts = [[y0, x0], [y1, x1]]
        return {"mode": mode, "section": section, "shifts": shifts}

    def coordinate_map(self, values: Values, shape: Shape3, spacing: Spacing3) -> CoordinateMap:
        """A motion for each section."""
        depth, first = shape[0], values["section"]
        moved = slice(first, first + 1 if values["mode"] == "slip" else depth)
        if "angle" in values:
            angles = np.zeros(depth)
            angles[moved] = math.radians(values["angle"])
            centre = ((shape[1] - 1) / 2, (shape[2] - 1) / 2)
            return CoordinateMap.sections(angles=angles, centre=centre)
        shifts = np.tile(np.asarray(values["shifts"][0], np.float64), (depth, 1))
        shifts[moved] = values["shifts"][1]
        return CoordinateMap.sections(shifts=shifts)

    def reach(self, reach: Reach, shape: Shape3, spacing: Spacing3) -> Reach:
        """Farther by half the displacement, or as far as a turned section reaches."""
        if shape[0] == 1:
            return reach
        y, x = reach.y, reach.x
        if self.rotate_ratio < 1:
            y, x = reach.y + self._half, reach.x + self._half
        if self.rotate_ratio > 0:
            turned = _sweep(reach.y, reach.x, math.degrees(self._largest_angle(shape)))
            y, x = max(y, turned[0]), max(x, turned[1])
        return Reach(reach.z, y, x)

    def describe(self, values: Values) -> str:
        """What is moved, where and how far."""
        first = values["section"]
        what = f"section {first} slips" if values["mode"] == "slip" else f"shifts from {first} on"
        if "angle" in values:
            return f"misalignment: {what}, turned {values['angle']:.2g}°"
        (y0, x0), (y1, x1) = values["shifts"]
        return f"misalignment: {what} by y {y1 - y0:d}, x {x1 - x0:d} px"


def _turn(axis: int, degrees: float) -> Floats:
    """Rotation about one axis; exact for quarter turns."""
    quarters, rest = divmod(degrees, 90.0)
    if rest:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    else:
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[int(quarters) % 4]
    turn = np.eye(3)
    a, b = [n for n in range(3) if n != axis]
    turn[a, a] = turn[b, b] = cos
    turn[a, b], turn[b, a] = -sin, sin
    return turn


def _sweep(first: float, second: float, degrees: float) -> tuple[float, float]:
    """The half sides of the box around a rectangle turned by up to `degrees` either way."""
    limit = math.radians(degrees)

    def worst(a: float, b: float) -> float:
        # a cos t + b sin t grows until tan t = b / a.
        t = min(limit, math.atan2(b, a))
        return a * math.cos(t) + b * math.sin(t)

    return worst(first, second), worst(second, first)


def _words(numbers: Sequence[int]) -> str:
    return ", ".join(str(n) for n in numbers)
