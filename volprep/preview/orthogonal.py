"""Three orthogonal slices of a sample as one picture, voxels in their true proportions."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from volprep.geometry import Shape3, Spacing3

__all__ = ["View", "colour_of", "draw_sample", "windows_of"]

Colour = tuple[int, int, int]
Window = tuple[float, float]

_GAP = 2
# Opacity of outlines and of vectors: what is below them must stay visible.
_RIM, _LINE = 170, 130
_BACKGROUND: Colour = (255, 255, 255)
# Additive colours of channels: one is grey, more are told apart by most eyes.
_CHANNELS = ((0, 1, 0), (1, 0, 1), (0, 0.6, 1), (1, 0.7, 0))


@dataclass(frozen=True)
class View:
    """How samples are drawn, the same for every picture of a page.

    Parameters
    ----------
    shape : (Z, Y, X)
        Of the samples, in voxels.
    spacing : (Z, Y, X)
        In any unit; pictures have the proportions of the sample.
    windows : sequence of (low, high)
        For each channel, the values that are black and full.
    side : int
        Pixels of the longer side of the (Y, X) slice.
    """

    shape: Shape3
    spacing: Spacing3
    windows: Sequence[Window]
    side: int = 208

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Length of (Z, Y, X) in the picture, at least two pixels each."""
        lengths = [n * s for n, s in zip(self.shape, self.spacing, strict=True)]
        scale = self.side / max(lengths[1:])
        # A stack much deeper than wide would push everything else off the page.
        scale = min(scale, 3 * self.side / lengths[0]) if self.shape[0] > 1 else scale
        z, y, x = (max(2, round(n * scale)) for n in lengths)
        return z, y, x

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a picture."""
        z, y, x = self.pixels
        return (x, y) if self.shape[0] == 1 else (x + _GAP + z, y + _GAP + z)


def windows_of(image: npt.NDArray[Any]) -> list[Window]:
    """Percentiles 0.5 and 99.5 of each channel of (C, Z, Y, X), or (Z, Y, X)."""
    channels = image if image.ndim == 4 else image[None]
    return [
        (float(low), float(high) if high > low else float(low) + 1.0)
        for low, high in (np.nanpercentile(channel, (0.5, 99.5)) for channel in channels)
    ]


def colour_of(instance: int) -> Colour:
    """A strong colour for an id, different for ids that follow each other."""
    hue = (instance * 0.61803398875) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 + 0.2 * (instance % 2), 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_sample(
    view: View,
    image: npt.NDArray[Any],
    *,
    at: Shape3,
    label: npt.NDArray[Any] | None = None,
    points: Mapping[int, npt.ArrayLike] | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
) -> Image.Image:
    """Draw the slices through one voxel: (Y, X), to its right (Y, Z), below it (Z, X).

    Parameters
    ----------
    view : View
    image : array, shape (Z, Y, X) or (C, Z, Y, X)
    at : (Z, Y, X)
        The voxel that all three slices go through.
    label : array of integers, shape (Z, Y, X), optional
        Drawn as outlines in the colour of each id.
    points : dict of id to (N, 3), optional
        Those within half a voxel of a slice are dots in the colour of their id.
    vectors : array of float32, shape (3, Z, Y, X), optional
        For each voxel the position that it points to; a few are drawn on the
        (Y, X) slice, from voxels of `label`.

    Returns
    -------
    PIL.Image.Image
        RGB, of ``view.size``.
    """
    picture = Image.new("RGB", view.size, _BACKGROUND)
    z, y, x = view.pixels
    places = [(0, (1, 2), (0, 0), (y, x))]
    if view.shape[0] > 1:
        places += [(2, (1, 0), (x + _GAP, 0), (y, z)), (1, (0, 2), (0, y + _GAP), (z, x))]
    for cut, (down, across), corner, (height, width) in places:
        panel = _Panel(view, cut, down, across, at[cut], height, width)
        grey = Image.fromarray(panel.grey(image)).convert("RGBA")
        over = Image.new("RGBA", grey.size, (0, 0, 0, 0))
        if label is not None:
            over = Image.fromarray(panel.outlines(label))
        pen = ImageDraw.Draw(over)
        if vectors is not None and label is not None and cut == 0:
            panel.draw_vectors(pen, label, vectors)
        if points:
            panel.draw_points(pen, points)
        picture.paste(Image.alpha_composite(grey, over).convert("RGB"), corner)
    return picture


@dataclass(frozen=True)
class _Panel:
    """One slice: cut along one axis, two axes shown downwards and across."""

    view: View
    cut: int
    down: int
    across: int
    number: int
    height: int
    width: int

    def _slice(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Downwards, across; sampled to the pixels of the panel."""
        plane = np.take(volume, self.number, axis=volume.ndim - 3 + self.cut)
        if self.down > self.across:
            plane = np.swapaxes(plane, -1, -2)
        rows = _nearest(self.height, self.view.shape[self.down])
        columns = _nearest(self.width, self.view.shape[self.across])
        return np.asarray(plane[..., rows[:, None], columns[None]])

    def grey(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """The image in grey, or its channels in colours of their own."""
        channels = self._slice(image if image.ndim == 4 else image[None]).astype(np.float32)
        units = [
            np.clip((np.nan_to_num(c, nan=low) - low) / (high - low), 0, 1)
            for c, (low, high) in zip(channels, self.view.windows, strict=True)
        ]
        if len(units) == 1:
            colours: Sequence[Sequence[float]] = ((1, 1, 1),)
        else:
            colours = [_CHANNELS[n % len(_CHANNELS)] for n in range(len(units))]
        mixed = sum(u[..., None] * np.asarray(c) for u, c in zip(units, colours, strict=True))
        return np.asarray(np.clip(mixed, 0, 1) * 255, np.uint8)

    def outlines(self, label: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Each object's rim in the colour of its id, red green blue and opacity."""
        shown = self._slice(label)
        rim = np.zeros(shown.shape, bool)
        for axis in (0, 1):
            before, after = [slice(None)] * 2, [slice(None)] * 2
            before[axis], after[axis] = slice(0, -1), slice(1, None)
            differs = shown[tuple(before)] != shown[tuple(after)]
            rim[tuple(before)] |= differs
            rim[tuple(after)] |= differs
        rim &= shown != 0
        ids, which = np.unique(shown[rim], return_inverse=True)
        colours = np.array([(*colour_of(int(i)), _RIM) for i in ids], np.uint8).reshape(-1, 4)
        result = np.zeros((*shown.shape, 4), np.uint8)
        result[rim] = colours[which.ravel()]
        return result

    def _pixels(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Voxel positions (N, 3) as (across, down) in pixels."""
        across = (points[:, self.across] + 0.5) * self.width / self.view.shape[self.across]
        down = (points[:, self.down] + 0.5) * self.height / self.view.shape[self.down]
        return np.stack([across, down], 1)

    def draw_points(self, pen: ImageDraw.ImageDraw, points: Mapping[int, npt.ArrayLike]) -> None:
        """Dots for the points that lie within half a voxel of the slice."""
        for instance, own in points.items():
            array = np.asarray(own, np.float64).reshape(-1, 3)
            near = np.abs(array[:, self.cut] - self.number) <= 0.5
            for x, y in self._pixels(array[near]):
                pen.rectangle((x - 2, y - 2, x + 2, y + 2), fill=(0, 0, 0, 150))
                pen.rectangle((x - 1, y - 1, x + 1, y + 1), fill=(*colour_of(int(instance)), 255))

    def draw_vectors(
        self, pen: ImageDraw.ImageDraw, label: npt.NDArray[Any], vectors: npt.NDArray[np.float32]
    ) -> None:
        """Lines from some voxels of objects to where they point."""
        step = max(2, math.ceil(max(self.view.shape[1:]) / 11))
        _, height, width = label.shape
        for y in range(step // 2, height, step):
            for x in range(step // 2, width, step):
                instance = int(label[self.number, y, x])
                if instance == 0:
                    continue
                ends = np.array([[self.number, y, x], vectors[:, self.number, y, x]], np.float64)
                (x0, y0), (x1, y1) = self._pixels(ends)
                pen.line((x0, y0, x1, y1), fill=(*colour_of(instance), _LINE), width=1)


def _nearest(pixels: int, voxels: int) -> npt.NDArray[np.int64]:
    """The voxel that each pixel shows."""
    return ((np.arange(pixels) + 0.5) * voxels / pixels).astype(np.int64)
