"""Three orthogonal slices of a volume as one picture, voxels in their true proportions."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from volprep.geometry import Box, Shape3, Spacing3

__all__ = [
    "Colour",
    "Panel",
    "Picture",
    "Plane",
    "View",
    "around",
    "colour_of",
    "draw_sample",
    "outlines",
    "windows_of",
]

Colour = tuple[int, int, int]
Window = tuple[float, float]
Array = npt.NDArray[Any]
#: What lies in a box that is one voxel thin, as (C, Z, Y, X) or (Z, Y, X).
Plane = Callable[[Box], Array]

_GAP = 2
#: The main slice is at most so much longer than wide: a longer one would be a strip.
_LONGEST = 3.0
# Opacity of outlines and of vectors: what is below them must stay visible.
_RIM, _LINE = 225, 150
#: What is not annotated lies under it.
_SHADE = (30, 60, 150, 110)
#: Pixels of a voxel from which on outlines are two of them wide.
_THICK = 2.5
# Colours of channels, added: one is grey, three are red, green and blue, others told apart.
_CHANNELS = ((0, 1, 0), (1, 0, 1), (0, 0.6, 1), (1, 0.7, 0))
_RGB = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@dataclass(frozen=True)
class Picture:
    """Grey values, and what is drawn over them.

    Parameters
    ----------
    base : PIL.Image.Image
        Clear where nothing is shown.
    over : PIL.Image.Image or None
        RGBA, of the same size; a reader of the page can hide it.
    """

    base: Image.Image
    over: Image.Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.base.size

    def flat(self) -> Image.Image:
        """Both together, as RGB on white."""
        picture = Image.new("RGBA", self.size, (255, 255, 255, 255))
        for layer in (self.base, self.over):
            if layer is not None:
                picture = Image.alpha_composite(picture, layer.convert("RGBA"))
        return picture.convert("RGB")


@dataclass(frozen=True)
class View:
    """How volumes of one shape are drawn.

    Parameters
    ----------
    shape : (Z, Y, X)
        In voxels.
    spacing : (Z, Y, X)
        In any unit; pictures have the proportions of the volume.
    windows : sequence of (low, high)
        For each channel, the values that are black and full.
    side : int
        Pixels of the longer side of the (Y, X) slice.
    most : (Z, Y, X) or None
        Voxels that may be shown along each axis; None all of them.
    row : bool
        Whether the slices stand beside each other, or around a corner.

    Notes
    -----
    Where a side is more than three times another in the (Y, X) slice, or deeper than that
    slice is wide, the part around the place that is looked at is shown (`shown`), at the same
    scale, so that no picture is a strip and side views never outgrow the main one.
    """

    shape: Shape3
    spacing: Spacing3
    windows: Sequence[Window] = ()
    side: int = 208
    most: Shape3 | None = None
    row: bool = False
    counts: Shape3 = field(init=False)
    pixels: Shape3 = field(init=False)

    def __post_init__(self) -> None:
        most = self.most or self.shape
        z, y, x = (min(n, m) for n, m in zip(self.shape, most, strict=True))
        sz, sy, sx = self.spacing
        y = min(y, math.ceil(_LONGEST * x * sx / sy))
        x = min(x, math.ceil(_LONGEST * y * sy / sx))
        z = min(z, max(1, math.floor(min(y * sy, x * sx) / sz)))
        scale = self.side / max(y * sy, x * sx)
        lengths = [
            max(2, round(n * s * scale)) for n, s in zip((z, y, x), self.spacing, strict=True)
        ]
        object.__setattr__(self, "counts", (z, y, x))
        object.__setattr__(self, "pixels", tuple(lengths))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a picture."""
        z, y, x = self.pixels
        if self.shape[0] == 1:
            return x, y
        if self.row:
            return 2 * x + z + 2 * _GAP, max(y, z)
        return x + _GAP + z, y + _GAP + z

    def shown(self, at: Shape3) -> Box:
        """The voxels that are shown around a place."""
        return around(at, self.shape, self.counts)

    def panels(self, at: Shape3) -> list[Panel]:
        """(Y, X), to its right (Y, Z), below it or further right (Z, X)."""
        z, y, x = self.pixels
        places: list[tuple[int, int, int, tuple[int, int], tuple[int, int]]] = [
            (0, 1, 2, (0, 0), (x, y))
        ]
        if self.shape[0] > 1:
            below = (x + z + 2 * _GAP, 0) if self.row else (0, y + _GAP)
            places += [(2, 1, 0, (x + _GAP, 0), (z, y)), (1, 0, 2, below, (x, z))]
        return [Panel(*place, self.shown(at), at[place[0]]) for place in places]

    def says(self, at: Shape3) -> str:
        """Which slices are shown, and which part of them; empty for a flat image shown whole."""
        words = ["slices z {}, y {}, x {}".format(*at)] if self.shape[0] > 1 else []
        box = self.shown(at)
        words += [
            f"{axis} {a} to {b - 1} of {n}"
            for axis, a, b, n in zip("zyx", box.start, box.stop, self.shape, strict=True)
            if b - a < n
        ]
        return "; ".join(words)


@dataclass(frozen=True)
class Panel:
    """One slice: cut across one axis, two axes shown, and its place in the picture."""

    cut: int
    down: int
    across: int
    corner: tuple[int, int]
    size: tuple[int, int]
    box: Box
    at: int

    @property
    def slab(self) -> Box:
        """The voxels that it shows."""
        start, stop = list(self.box.start), list(self.box.stop)
        start[self.cut], stop[self.cut] = self.at, self.at + 1
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def voxels(self, plane: Plane) -> Array:
        """(..., down, across)."""
        return self.voxels_of(np.asarray(plane(self.slab)))

    def voxels_of(self, slab: Array) -> Array:
        """A slab of one voxel as (..., down, across)."""
        found = np.take(slab, 0, axis=slab.ndim - 3 + self.cut)
        return np.swapaxes(found, -1, -2) if self.down > self.across else found

    def nearest(self, plane: Array) -> Array:
        """For each pixel the voxel that it shows."""
        height, width = plane.shape[-2:]
        rows, columns = _nearest(self.size[1], height), _nearest(self.size[0], width)
        return np.asarray(plane[..., rows[:, None], columns[None]])

    def mean(self, plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """For each pixel the mean of the voxels that it shows."""
        if plane.shape == self.size[::-1]:
            return plane
        small = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        return np.asarray(small.resize(self.size, Image.Resampling.BOX), np.float32)

    def pixels_of(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Voxel positions (N, 3), centres at whole numbers, as (across, down) in pixels."""
        start, shape = self.box.start, self.box.shape
        return np.stack(
            [
                (points[:, axis] + 0.5 - start[axis]) * pixels / shape[axis]
                for axis, pixels in zip((self.across, self.down), self.size, strict=True)
            ],
            1,
        )

    def shows(self, box: Box) -> bool:
        """Whether a box is cut by the slice, and seen."""
        cut = box.start[self.cut] <= self.at < box.stop[self.cut]
        return cut and all(
            box.start[axis] < self.box.stop[axis] and box.stop[axis] > self.box.start[axis]
            for axis in (self.down, self.across)
        )

    def rectangle(self, box: Box) -> tuple[float, float, float, float]:
        """Left, top, right and bottom pixel of a box, inside the panel."""
        corners = np.array([box.start, box.stop], np.float64) - 0.5
        (x0, y0), (x1, y1) = self.pixels_of(corners).tolist()
        width, height = self.size
        left, top = max(0.0, x0), max(0.0, y0)
        right, bottom = min(width, x1) - 1, min(height, y1) - 1
        return left, top, max(left, right), max(top, bottom)


def around(at: Shape3, shape: Shape3, most: Shape3) -> Box:
    """The box of at most so many voxels along each axis around a place, inside a volume."""
    counts = [min(n, m) for n, m in zip(shape, most, strict=True)]
    start = [min(max(0, a - c // 2), n - c) for a, c, n in zip(at, counts, shape, strict=True)]
    return Box.at(start, counts)


def windows_of(image: Array, percentiles: tuple[float, float] = (0.5, 99.5)) -> list[Window]:
    """Two percentiles of each channel of (C, Z, Y, X), or (Z, Y, X)."""
    channels = image if image.ndim == 4 else image[None]
    found = []
    for channel in channels:
        values = channel[np.isfinite(channel)] if channel.dtype.kind == "f" else channel.ravel()
        low, high = np.percentile(values, percentiles) if values.size else (0.0, 0.0)
        found.append((float(low), float(high) if high > low else float(low) + 1.0))
    return found


def colour_of(instance: int) -> Colour:
    """A strong colour for an id, different for ids that follow each other."""
    hue = (instance * 0.61803398875) % 1.0
    # Blue and violet are dark when they are pure, and would be lost on black.
    pale = 0.3 * max(0.0, 1 - abs(hue - 0.69) / 0.12)
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.7 + 0.2 * (instance % 2) - pale, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_sample(
    view: View,
    image: Array | Plane,
    *,
    at: Shape3,
    label: Array | Plane | None = None,
    points: Mapping[int, npt.ArrayLike] | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
    windows: Sequence[Window] | None = None,
    valid: Array | Plane | None = None,
) -> Picture:
    """Draw the slices through one voxel: (Y, X), to its right (Y, Z), below it (Z, X).

    Parameters
    ----------
    view : View
    image : array, shape (Z, Y, X) or (C, Z, Y, X), or callable
        Or what gives the voxels of a thin box, so that three slices of a file are read.
    at : (Z, Y, X)
        The voxel that all three slices go through.
    label : array of integers, shape (Z, Y, X), or callable, optional
        Drawn as outlines in the colour of each id.
    points : dict of id to (N, 3), optional
        Those within half a voxel of a slice are dots in the colour of their id.
    vectors : array of float32, shape (3, Z, Y, X), optional
        For each voxel the position that it points to; a few are drawn on the
        (Y, X) slice, from voxels of `label`.
    windows : sequence of (low, high), optional
        In place of the view's.
    valid : array of bool, shape (Z, Y, X), or callable, optional
        What is not is shaded.

    Returns
    -------
    Picture
        Of ``view.size``.
    """
    image, label = _plane_of(image), None if label is None else _plane_of(label)
    windows = view.windows if windows is None else windows
    base = Image.new("RGBA", view.size, (0, 0, 0, 0))
    over = Image.new("RGBA", view.size, (0, 0, 0, 0))
    for panel in view.panels(at):
        base.paste(Image.fromarray(_grey(panel, image, windows)), panel.corner)
        drawn = Image.new("RGBA", panel.size, (0, 0, 0, 0))
        if valid is not None:
            shade = np.zeros((*panel.size[::-1], 4), np.uint8)
            shade[panel.nearest(panel.voxels(_plane_of(valid))) == 0] = _SHADE
            drawn = Image.fromarray(shade)
        if label is not None:
            drawn = Image.alpha_composite(drawn, Image.fromarray(outlines(panel, label)))
        pen = ImageDraw.Draw(drawn)
        if vectors is not None and label is not None and panel.cut == 0:
            _draw_vectors(panel, pen, label, vectors)
        if points:
            _draw_points(panel, pen, points)
        over.paste(drawn, panel.corner)
    return Picture(_plain(base), over if over.getbbox() else None)


def _plane_of(volume: Array | Plane) -> Plane:
    if callable(volume):
        return volume
    return lambda box: volume[(..., *box.slices)]


def _plain(base: Image.Image) -> Image.Image:
    """As grey with opacity where it has no colours: half the bytes."""
    red, green, blue, alpha = base.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return Image.merge("LA", (red, alpha))
    return base


def _grey(panel: Panel, image: Plane, windows: Sequence[Window]) -> npt.NDArray[np.uint8]:
    """The image in grey, or its channels in colours of their own; RGBA."""
    voxels = panel.voxels(image)
    channels = voxels if voxels.ndim == 3 else voxels[None]
    units = [
        panel.mean(
            np.clip((np.nan_to_num(c.astype(np.float32), nan=low) - low) / (high - low), 0, 1)
        )
        for c, (low, high) in zip(channels, windows, strict=True)
    ]
    colours: Sequence[Sequence[float]] = _CHANNELS
    if len(units) == 1:
        colours = ((1, 1, 1),)
    elif len(units) == 3:
        colours = _RGB
    mixed = sum(u[..., None] * np.asarray(colours[n % len(colours)]) for n, u in enumerate(units))
    drawn = np.full((*units[0].shape, 4), 255, np.uint8)
    drawn[..., :3] = np.clip(mixed, 0, 1) * 255
    return drawn


def outlines(panel: Panel, label: Plane) -> npt.NDArray[np.uint8]:
    """Each object's rim in the colour of its id, red green blue and opacity."""
    voxels = panel.voxels(label)
    height, width = voxels.shape
    shown = panel.nearest(voxels)
    rim = np.zeros(shown.shape, bool)
    for axis in (0, 1):
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(0, -1), slice(1, None)
        differs = shown[tuple(before)] != shown[tuple(after)]
        rim[tuple(before)] |= differs
        rim[tuple(after)] |= differs
    if min(panel.size[0] / width, panel.size[1] / height) >= _THICK:
        wider = rim.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                near = np.roll(shown, step, axis) == shown
                wider |= np.roll(rim, step, axis) & near
        rim = wider
    rim &= shown != 0
    ids, which = np.unique(shown[rim], return_inverse=True)
    colours = np.array([(*colour_of(int(i)), _RIM) for i in ids], np.uint8).reshape(-1, 4)
    result = np.zeros((*shown.shape, 4), np.uint8)
    result[rim] = colours[which.ravel()]
    return result


def _draw_points(
    panel: Panel, pen: ImageDraw.ImageDraw, points: Mapping[int, npt.ArrayLike]
) -> None:
    """Dots for the points that lie within half a voxel of the slice."""
    for instance, own in points.items():
        array = np.asarray(own, np.float64).reshape(-1, 3)
        near = np.abs(array[:, panel.cut] - panel.at) <= 0.5
        for x, y in panel.pixels_of(array[near]):
            pen.rectangle((x - 2, y - 2, x + 2, y + 2), fill=(0, 0, 0, 170))
            pen.rectangle((x - 1, y - 1, x + 1, y + 1), fill=(*colour_of(int(instance)), 255))


def _draw_vectors(
    panel: Panel, pen: ImageDraw.ImageDraw, label: Plane, vectors: npt.NDArray[np.float32]
) -> None:
    """Lines from some voxels of objects to where they point."""
    ids = panel.voxels(label)
    ends = panel.voxels(_plane_of(vectors))
    (_, y0, x0), (_, height, width) = panel.box.start, panel.box.shape
    step = max(2, math.ceil(max(height, width) / 16))
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            instance = int(ids[y, x])
            if instance == 0:
                continue
            line = np.array([[panel.at, y0 + y, x0 + x], ends[:, y, x]], np.float64)
            (ax, ay), (bx, by) = panel.pixels_of(line)
            pen.line((ax, ay, bx, by), fill=(*colour_of(instance), _LINE), width=1)
            pen.ellipse((bx - 1, by - 1, bx + 1, by + 1), fill=(*colour_of(instance), 255))


def _nearest(pixels: int, voxels: int) -> npt.NDArray[np.int64]:
    """The voxel that each pixel shows."""
    return ((np.arange(pixels) + 0.5) * voxels / pixels).astype(np.int64)
