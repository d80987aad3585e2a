"""Where the patches of a case come from, on three slices through it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from volprep.geometry import Box, Shape3, Spacing3, VolumeLike
from volprep.patching import PatchSpecs, count_coverage
from volprep.preview.orthogonal import View, windows_of
from volprep.preview.page import Cell, Page, Row
from volprep.sampling import spread_regions

__all__ = ["CoverageFacts", "PatchMap", "RegionMap", "coverage_facts", "render_patches"]

Colour = tuple[int, int, int]
Boxes = Sequence[Box]

_TRAIN: Colour = (0, 158, 115)
_VAL: Colour = (230, 159, 0)
_OUT: Colour = (213, 60, 40)
# Dark to bright in even steps of lightness: unseen, seldom, often.
_HEAT = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))
_OUTSIDE: Colour = (226, 229, 233)
_GAP, _BAR = 2, 24
#: Sides of the maps that are counted, and voxels of the volume that are looked at for numbers.
_MAP_SIDE, _SAMPLES = 1024, 2**20
#: More outlines would hide each other; every patch has a dot in its middle.
_OUTLINES = 24


_SCALE_NOTE = "Black: never; bright: as often as the scale says; grey: in no block"


@dataclass(frozen=True)
class RegionMap:
    """What a patch filter saw in one block.

    Parameters
    ----------
    block : Box
    patch_size : (Z, Y, X)
        Of a cell of the grid; the region of a cell is twice as large.
    kept : array of bool
        One for each cell.
    values : array of float64
        By `names`, then the grid.
    names : sequence of str
    thresholds : sequence of (float or None)
        What each value must reach.
    """

    block: Box
    patch_size: Shape3
    kept: npt.NDArray[np.bool_]
    values: npt.NDArray[np.float64]
    names: Sequence[str]
    thresholds: Sequence[float | None]

    def left_out(self) -> list[Box]:
        """The cells in which patches that start are rarer."""
        size, origin = self.patch_size, self.block.start
        return [
            Box.at([c * n + a for c, n, a in zip(cell, size, origin, strict=True)], size).common(
                self.block
            )
            for cell in np.argwhere(~self.kept).tolist()
        ]


@dataclass(frozen=True)
class PatchMap:
    """A case and the boxes that say where its patches come from.

    Parameters
    ----------
    name : str
    image : VolumeLike
        On the grid of the boxes; three slices of it are read.
    spacing : (Z, Y, X) in micrometres, or None
        None draws voxels as cubes.
    train_blocks, val_blocks : sequence of Box
        What patches may see.
    train_patches, val_patches : sequence of Box
    rejected : sequence of Box
        Patches that were drawn and thrown back.
    regions : sequence of RegionMap
        What a filter saw in the training blocks.
    notes : sequence of str
        What else is to be known.
    """

    name: str
    image: VolumeLike
    spacing: Spacing3 | None
    train_blocks: Boxes
    val_blocks: Boxes
    train_patches: Boxes
    val_patches: Boxes
    rejected: Boxes = ()
    regions: Sequence[RegionMap] = ()
    notes: Sequence[str] = field(default=())

    @property
    def shape(self) -> Shape3:
        """(Z, Y, X) in voxels."""
        return Box.whole(self.image.shape).shape


@dataclass(frozen=True)
class CoverageFacts:
    """How often the voxels of some blocks are seen by patches.

    Attributes
    ----------
    least, most : int
    median : float
    unseen : float
        Share of the voxels that no patch shows.
    """

    least: int
    median: float
    most: int
    unseen: float

    def lines(self) -> list[str]:
        """For a caption."""
        seen = f"voxels seen {self.least} to {self.most} times, median {self.median:g}"
        return [seen, f"never seen: {self.unseen:.1%}"]


def coverage_facts(shape: Shape3, blocks: Boxes, patches: Boxes) -> CoverageFacts:
    """Count how often the voxels inside the blocks are seen, on a grid of up to a million.

    Parameters
    ----------
    shape : (Z, Y, X)
    blocks, patches : sequence of Box
        Patches may reach beyond the volume.
    """
    step = max(1, math.ceil((math.prod(shape) / _SAMPLES) ** (1 / 3)))
    counts = count_coverage(_specs(patches), shape, step=step)
    inside = np.zeros(counts.shape, bool)
    for block in blocks:
        ends = zip(block.start, block.stop, strict=True)
        inside[tuple(slice(-(-a // step), -(-b // step)) for a, b in ends)] = True
    seen = counts[inside]
    if not seen.size:
        return CoverageFacts(0, 0.0, 0, 0.0)
    return CoverageFacts(
        int(seen.min()), float(np.median(seen)), int(seen.max()), float((seen == 0).mean())
    )


def render_patches(case: PatchMap, *, side: int = 420) -> Page:
    """Draw a case: its blocks, patches, how often voxels are seen, and what was left out.

    Parameters
    ----------
    case : PatchMap
    side : int
        Pixels of the longer side of a picture.

    Returns
    -------
    Page
        Each picture is of three slices through one voxel, (Y, X), to its right
        (Y, Z), below it (Z, X), in the proportions of the spacing.
    """
    slices = _Slices(case, _centre(case.train_blocks or case.val_blocks, case.shape), side)
    held = _Slices(case, _centre(case.val_blocks, case.shape), side) if case.val_blocks else slices
    shown = f"{case.shape[0]} x {case.shape[1]} x {case.shape[2]} voxels (z, y, x)"
    scale = (
        "spacing unknown, voxels drawn as cubes"
        if case.spacing is None
        else f"{case.spacing[0]:.4g} x {case.spacing[1]:.4g} x {case.spacing[2]:.4g} µm"
    )
    rows = [
        Row("Where patches come from", _place(case), list(_where(case, slices, held))),
        Row("How often voxels are seen", _SCALE_NOTE, list(_how_often(case, slices, held))),
    ]
    left_out = list(_left_out(case, slices))
    if left_out:
        rows.append(Row("What was left out", "Of training patches", left_out))
    return Page(f"Patches of {case.name}", [f"{shown}, {scale}", *case.notes], rows)


def _where(case: PatchMap, slices: _Slices, held: _Slices) -> Iterator[Cell]:
    volume = math.prod(case.shape)
    shares = [sum(b.size for b in boxes) / volume for boxes in (case.train_blocks, case.val_blocks)]
    yield Cell(
        slices.outlines([(case.train_blocks, _TRAIN, 60), (case.val_blocks, _VAL, 60)]),
        "Blocks",
        [
            f"training (green): {shares[0]:.1%} of the volume",
            f"validation (orange): {shares[1]:.1%}",
            slices.place,
        ],
    )
    for name, boxes, colour, on in (
        ("Training patches", case.train_patches, _TRAIN, slices),
        ("Validation patches", case.val_patches, _VAL, held),
    ):
        if boxes:
            size = " x ".join(map(str, boxes[0].shape))
            lines = [
                f"{len(boxes)} of {size} voxels",
                f"{on.crossing(boxes)} cross these slices",
                on.place,
            ]
            yield Cell(on.outlines([(boxes, colour, 0)], dots=boxes), name, lines)


def _how_often(case: PatchMap, slices: _Slices, held: _Slices) -> Iterator[Cell]:
    for name, blocks, boxes, colour, on in (
        ("By training patches", case.train_blocks, case.train_patches, _TRAIN, slices),
        ("By validation patches", case.val_blocks, case.val_patches, _VAL, held),
    ):
        if boxes:
            facts = coverage_facts(case.shape, blocks, boxes)
            yield Cell(on.heat(boxes, blocks, colour), name, facts.lines())


def _left_out(case: PatchMap, slices: _Slices) -> Iterator[Cell]:
    if case.rejected:
        drawn = len(case.train_patches) + len(case.rejected)
        lines = [f"{len(case.rejected)} of {drawn} that were drawn"]
        yield Cell(
            slices.heat(case.rejected, case.train_blocks, _TRAIN), "Patches thrown back", lines
        )
    if case.regions:
        boxes = [box for region in case.regions for box in region.left_out()]
        share = sum(b.size for b in boxes) / max(1, sum(r.block.size for r in case.regions))
        layers = [(case.train_blocks, _TRAIN, 0), (boxes, _OUT, 110)]
        lines = [f"{len(boxes)} cells, {share:.1%} of the blocks"]
        yield Cell(slices.outlines(layers), "Filtered: fewer patches start here", lines)
        for number, name in enumerate(case.regions[0].names):
            yield _saw(case.regions, number, name, slices)


def _saw(regions: Sequence[RegionMap], number: int, name: str, slices: _Slices) -> Cell:
    """The values by which a filter decides."""
    looked = [region for region in regions if len(region.values)]
    every = np.concatenate([region.values[number].ravel() for region in looked] or [np.zeros(1)])
    threshold = regions[0].thresholds[number]
    wanted = "no threshold" if threshold is None else f"threshold {threshold:g}"
    middle = f"of regions {every.min():.4g} to {every.max():.4g}, median {np.median(every):.4g}"
    picture = slices.values(looked, number, float(every.min()), float(every.max()))
    return Cell(picture, f"The filter's {name}", [middle, wanted])


def _centre(blocks: Boxes, shape: Shape3) -> Shape3:
    """The middle of the largest block, of the volume where there is none."""
    block = max(blocks, key=lambda box: box.size, default=Box((0, 0, 0), shape))
    z, y, x = ((a + b) // 2 for a, b in zip(block.start, block.stop, strict=True))
    return z, y, x


def _place(case: PatchMap) -> str:
    if case.shape[0] == 1:
        return "Dots are middles of patches"
    return (
        "Three slices: (y, x), beside it (y, z), below it (z, x); dots are the middles of patches"
    )


def _specs(boxes: Boxes) -> Iterator[PatchSpecs]:
    for box in boxes:
        yield {"data_idx": 0, "sample_idx": 0, "coords": box.start, "patch_size": box.shape}


@dataclass(frozen=True)
class _Panel:
    """One slice: the axis it is cut across, the axes it shows, and its place in the picture."""

    cut: int
    down: int
    across: int
    corner: tuple[int, int]
    size: tuple[int, int]
    scale: tuple[float, float]
    at: int

    def shows(self, box: Box) -> bool:
        return box.start[self.cut] <= self.at < box.stop[self.cut]

    def rectangle(self, box: Box) -> tuple[float, float, float, float]:
        (sx, sy), down, across = self.scale, self.down, self.across
        return (
            box.start[across] * sx, box.start[down] * sy,
            box.stop[across] * sx - 1, box.stop[down] * sy - 1,
        )  # fmt: skip

    @property
    def voxels(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The voxel (down, across) that each row and each column shows."""
        across, down = (
            ((np.arange(pixels) + 0.5) / scale).astype(np.int64)
            for pixels, scale in zip(self.size, self.scale, strict=True)
        )
        return down, across

    def sample(self, plane: npt.NDArray[Any], step: int = 1) -> npt.NDArray[Any]:
        """A plane (down, across), of which every `step`-th voxel is there, as pixels."""
        rows, columns = (
            np.minimum(v // step, n - 1) for v, n in zip(self.voxels, plane.shape, strict=True)
        )
        return np.asarray(plane[rows[:, None], columns])

    def fill(self, plane: npt.NDArray[np.float64], region: RegionMap, number: int) -> None:
        """Write a block's values into the pixels that show it."""
        if not self.shows(region.block):
            return
        axes, (down, across) = (self.down, self.across), self.voxels
        start, stop = region.block.start, region.block.stop
        shown = [
            np.flatnonzero((v >= start[axis]) & (v < stop[axis]))
            for v, axis in zip((down, across), axes, strict=True)
        ]
        at: list[npt.ArrayLike] = [[self.at - start[self.cut]]] * 3
        at[self.down] = down[shown[0]] - start[self.down]
        at[self.across] = across[shown[1]] - start[self.across]
        values = spread_regions(region.values[number], region.patch_size, at)
        values = np.take(values, 0, axis=self.cut)
        plane[np.ix_(*shown)] = values.T if self.down > self.across else values


class _Slices:
    """Three slices of a case, to draw on."""

    def __init__(self, case: PatchMap, at: Shape3, side: int) -> None:
        view = _view(case, side)
        self._size, self._shape = view.size, case.shape
        self.place = f"through z {at[0]}, y {at[1]}, x {at[2]}"
        z, y, x = view.pixels
        places = [(0, 1, 2, (0, 0), (x, y))]
        if case.shape[0] > 1:
            places += [(2, 1, 0, (x + _GAP, 0), (z, y)), (1, 0, 2, (0, y + _GAP), (x, z))]
        self._panels = [
            _Panel(
                cut, down, across, corner, size,
                (size[0] / case.shape[across], size[1] / case.shape[down]), at[cut],
            )
            for cut, down, across, corner, size in places
        ]  # fmt: skip
        self._grey = self._read(case)

    def crossing(self, boxes: Boxes) -> int:
        """How many boxes at least one slice goes through."""
        return sum(any(panel.shows(box) for panel in self._panels) for box in boxes)

    def outlines(
        self, layers: Sequence[tuple[Boxes, Colour, int]], *, dots: Boxes = ()
    ) -> Image.Image:
        """The slices, and on them the boxes that they go through, filled with an opacity."""
        picture = self._grey.copy()
        for panel in self._panels:
            over = Image.new("RGBA", panel.size, (0, 0, 0, 0))
            for boxes, colour, opacity in layers:
                crossing = [box for box in boxes if panel.shows(box)]
                if not opacity:
                    crossing = crossing[:: max(1, -(-len(crossing) // _OUTLINES))]
                for box in crossing:
                    layer = Image.new("RGBA", panel.size, (0, 0, 0, 0))
                    ImageDraw.Draw(layer).rectangle(
                        panel.rectangle(box), fill=(*colour, opacity), outline=(*colour, 235)
                    )
                    over = Image.alpha_composite(over, layer)
            pen = ImageDraw.Draw(over)
            for box in dots:
                if panel.shows(box):
                    x0, y0, x1, y1 = panel.rectangle(box)
                    x, y = (x0 + x1) / 2, (y0 + y1) / 2
                    pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(255, 255, 255, 255))
            _paste(picture, over, panel)
        return picture

    def heat(self, boxes: Boxes, blocks: Boxes, colour: Colour) -> Image.Image:
        """How many boxes show each voxel of the slices, with a scale, the blocks outlined."""
        width, height = self._size
        counted = [self._count(panel, boxes) for panel in self._panels]
        most = max(1, *(int(counts.max()) for counts, _ in counted))
        picture = Image.new("RGB", (width, height + _BAR), (255, 255, 255))
        for panel, (counts, step) in zip(self._panels, counted, strict=True):
            inside = panel.sample(self._count(panel, blocks)[0], step) > 0
            heat = _coloured(panel.sample(counts, step) / most)
            heat[~inside] = _OUTSIDE
            picture.paste(Image.fromarray(heat), panel.corner)
            over = Image.new("RGBA", panel.size, (0, 0, 0, 0))
            pen = ImageDraw.Draw(over)
            for block in blocks:
                if panel.shows(block):
                    pen.rectangle(panel.rectangle(block), outline=(*colour, 255))
            _paste(picture, over, panel)
        _draw_scale(picture, height, "0", f"{most} patches")
        return picture

    def values(
        self, regions: Sequence[RegionMap], number: int, low: float, high: float
    ) -> Image.Image:
        """The largest value of the regions around each voxel, with a scale."""
        width, height = self._size
        picture = Image.new("RGB", (width, height + _BAR), (255, 255, 255))
        for panel in self._panels:
            plane = np.full(panel.size[::-1], np.nan)
            for region in regions:
                panel.fill(plane, region, number)
            unit = (plane - low) / (high - low if high > low else 1)
            heat = _coloured(np.nan_to_num(unit))
            heat[np.isnan(plane)] = _OUTSIDE
            picture.paste(Image.fromarray(heat), panel.corner)
        _draw_scale(picture, height, f"{low:.4g}", f"{high:.4g}")
        return picture

    def _count(self, panel: _Panel, boxes: Boxes) -> tuple[npt.NDArray[np.int64], int]:
        shape = [self._shape[panel.down], self._shape[panel.across]]
        step = max(1, -(-max(shape) // _MAP_SIDE))
        specs: Iterator[PatchSpecs] = (
            {
                "data_idx": 0,
                "sample_idx": 0,
                "coords": (box.start[panel.down], box.start[panel.across]),
                "patch_size": (box.shape[panel.down], box.shape[panel.across]),
            }
            for box in boxes
            if panel.shows(box)
        )
        return count_coverage(specs, shape, step=step), step

    def _read(self, case: PatchMap) -> Image.Image:
        picture = Image.new("RGB", self._size, (255, 255, 255))
        windows = None
        for panel in self._panels:
            start, stop = [0, 0, 0], list(case.shape)
            start[panel.cut], stop[panel.cut] = panel.at, panel.at + 1
            box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
            plane = np.take(case.image.read(box)[0], 0, axis=panel.cut)
            plane = plane.T if panel.down > panel.across else plane
            windows = windows or windows_of(plane[None])
            low, high = windows[0]
            unit = np.nan_to_num((panel.sample(plane).astype(np.float32) - low) / (high - low))
            picture.paste(Image.fromarray((unit.clip(0, 1) * 255).astype(np.uint8)), panel.corner)
        return picture


def _view(case: PatchMap, side: int) -> View:
    """The largest view whose picture is no longer than `side`."""
    spacing = case.spacing or (1.0, 1.0, 1.0)
    z, y, x = (n * s for n, s in zip(case.shape, spacing, strict=True))
    whole = max(y, x) + (z if case.shape[0] > 1 else 0)
    return View(case.shape, spacing, [], max(48, round(side * max(y, x) / whole)))


def _paste(picture: Image.Image, over: Image.Image, panel: _Panel) -> None:
    """Lay a transparent picture over a panel."""
    (x, y), (width, height) = panel.corner, panel.size
    below = picture.crop((x, y, x + width, y + height)).convert("RGBA")
    picture.paste(Image.alpha_composite(below, over).convert("RGB"), (x, y))


def _coloured(unit: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Numbers from 0 to 1 as colours, 0 black."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(unit, stops, [colour[c] for colour in _HEAT]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _draw_scale(picture: Image.Image, top: int, low: str, high: str) -> None:
    """A bar from the lowest to the highest value."""
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    left = 8 + round(font.getlength(low))
    width = max(20, min(160, picture.width - left - 8 - round(font.getlength(high))))
    bar = np.broadcast_to(_coloured(np.linspace(0, 1, width)), (10, width, 3))
    picture.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top + 9))
    pen.text((2, top + 7), low, fill=(60, 68, 77), font=font)
    pen.text((left + width + 4, top + 7), high, fill=(60, 68, 77), font=font)
