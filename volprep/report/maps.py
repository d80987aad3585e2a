"""Where the patches of a case come from, on three slices through it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from volprep.geometry import Box, Shape3, Spacing3, VolumeLike
from volprep.patching import PatchSpecs, count_coverage
from volprep.report.page import Cell, Gallery, Page, Section
from volprep.report.pictures import Colour, Panel, Picture, View, around, outlines, windows_of
from volprep.sampling import spread_regions

__all__ = [
    "CoverageFacts",
    "PatchMap",
    "RegionMap",
    "coverage_cells",
    "coverage_facts",
    "labelled_place",
    "render_patches",
]

Boxes = Sequence[Box]

_TRAIN: Colour = (0, 158, 115)
_VAL: Colour = (230, 159, 0)
_OUT: Colour = (213, 60, 40)
# Dark to bright in even steps of lightness: unseen, seldom, often.
_HEAT = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))
_OUTSIDE = (226, 229, 233, 255)
#: Grey where nothing was read, and opacity of labels below boxes.
_UNREAD, _FAINT = 96, 0.6
_BAR = 24
#: Sides of the maps that are counted, voxels of the volume that are looked at for numbers, and
#: those of patches that are read to find a place with labels.
_MAP_SIDE, _SAMPLES, _SEARCHED = 1024, 2**23, 2**23
#: More outlines would hide each other; every patch has a dot in its middle.
_OUTLINES = 24
#: A side of a map is at most so much longer than another; a depth has at least so many pixels.
_LONGEST, _THINNEST = 3.0, 14


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
    label : VolumeLike or None
        Drawn as outlines.
    most : (Z, Y, X) or None
        Voxels along each axis that may be read around the place that is looked at; None reads
        whole slices.
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
    label: VolumeLike | None = None
    most: Shape3 | None = None

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
    sampled : bool
        Whether not every voxel was looked at.
    """

    least: int
    median: float
    most: int
    unseen: float
    sampled: bool = False

    def lines(self) -> list[str]:
        """For a caption."""
        often = f"{self.least} to {self.most} times, median {self.median:g}"
        if self.least == self.most:
            often = {0: "never", 1: "once"}.get(self.most, f"{self.most} times")
        lines = [f"each voxel seen {often}" if self.least == self.most else f"voxels seen {often}"]
        lines += [f"never seen: {self.unseen:.1%}"] * (self.most > 0)
        return lines + ["counted at some of the voxels"] * self.sampled


def coverage_facts(shape: Shape3, blocks: Boxes, patches: Boxes) -> CoverageFacts:
    """Count how often the voxels inside the blocks are seen; of large volumes on a grid.

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
        int(seen.min()), float(np.median(seen)), int(seen.max()), float((seen == 0).mean()),
        sampled=step > 1,
    )  # fmt: skip


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
    slices, held = _both(case, side)
    shown = f"{case.shape[0]} x {case.shape[1]} x {case.shape[2]} voxels (z, y, x)"
    if case.shape[0] == 1:
        shown = f"{case.shape[1]} x {case.shape[2]} pixels (y, x)"
    scale = (
        f"spacing unknown, {'pixels drawn as squares' if case.shape[0] == 1 else 'voxels as cubes'}"
        if case.spacing is None
        else f"{case.spacing[0]:.4g} x {case.spacing[1]:.4g} x {case.spacing[2]:.4g} µm"
    )
    lines = [f"{shown}, {scale}", *case.notes, *slices.proportions]
    rows = [
        Section("Where patches come from", _place(case), [Gallery([*_where(case, slices, held)])]),
        Section(
            "How often voxels are seen", _SCALE_NOTE, [Gallery([*_how_often(case, slices, held)])]
        ),
    ]
    left_out = list(_left_out(case, slices))
    if left_out:
        rows.append(Section("What was left out", "Of training patches", [Gallery(left_out)]))
    return Page(f"Patches of {case.name}", lines, rows)


def coverage_cells(case: PatchMap, *, side: int = 228) -> list[Cell]:
    """The pictures of `render_patches` that say where patches come from and how often."""
    slices, held = _both(case, side)
    cells = [*_where(case, slices, held), *_how_often(case, slices, held)]
    return [replace(cells[0], lines=[*cells[0].lines, *slices.proportions]), *cells[1:]]


def _both(case: PatchMap, side: int) -> tuple[_Slices, _Slices]:
    """Slices through what trains, and through what is held out."""
    at = _centre(case.train_blocks or case.val_blocks, case.shape)
    slices = _Slices(case, _labelled(case, at, case.train_patches or case.val_patches), side)
    if not (case.val_blocks and case.train_blocks):
        return slices, slices
    at = _centre(case.val_blocks, case.shape)
    return slices, _Slices(case, _labelled(case, at, case.val_patches), side)


def _labelled(case: PatchMap, at: Shape3, patches: Boxes) -> Shape3:
    """A place, or one in the patches about it if its slice shows no labels that others show."""
    cut = case.most is not None and any(m < n for m, n in zip(case.most, case.shape, strict=True))
    if case.label is None or cut or case.shape[0] == 1:
        return at
    if case.label.read(Box((at[0], 0, 0), (at[0] + 1, *case.shape[1:]))).any():
        return at
    near = sorted(
        (box.common(Box((0, 0, 0), case.shape)) for box in patches),
        key=lambda box: sum(
            abs((a + b) // 2 - c) for a, b, c in zip(box.start, box.stop, at, strict=True)
        ),
    )
    return labelled_place(case.label, near) or at


def labelled_place(label: VolumeLike, boxes: Boxes) -> Shape3 | None:
    """The middle of the first box that holds labels, on the plane that holds most of them.

    None where there is none among those that can be looked at for a bounded work.
    """
    room = _SEARCHED
    for box in boxes:
        room -= box.size
        if room < 0:
            return None
        counts = (np.asarray(label.read(box))[0] > 0).sum((1, 2))
        if counts.any():
            y, x = ((a + b) // 2 for a, b in zip(box.start[1:], box.stop[1:], strict=True))
            return box.start[0] + int(counts.argmax()), y, x
    return None


def _where(case: PatchMap, slices: _Slices, held: _Slices) -> Iterator[Cell]:
    volume = math.prod(case.shape)
    flat = case.shape[0] == 1
    whole = "image" if flat else "volume"
    sides = [
        (f"{name} ({colour}): {sum(b.size for b in boxes) / volume:.1%} of the {whole}", boxes)
        for name, colour, boxes in (
            ("training", "green", case.train_blocks),
            ("validation", "orange", case.val_blocks),
        )
    ]
    said = [line for line, boxes in sides if boxes] or ["no part of it is used"]
    if case.train_blocks and case.val_blocks:
        rest = 1 - sum(b.size for b in [*case.train_blocks, *case.val_blocks]) / volume
        said += [f"neither (no colour), the gap: {rest:.1%}"] * (rest > 0)
    blocks = [(case.train_blocks, _TRAIN, 46), (case.val_blocks, _VAL, 46)]
    yield Cell(slices.outlines(blocks), "Blocks", [*said, slices.place])
    for name, boxes, colour, on in (
        ("Training patches", case.train_patches, _TRAIN, slices),
        ("Validation patches", case.val_patches, _VAL, held),
    ):
        if boxes:
            size = " x ".join(map(str, boxes[0].shape[flat:]))
            crossing = on.crossing(boxes)
            lines = [f"{len(boxes):,} of {size} {'pixels' if flat else 'voxels'}", on.place]
            if crossing < len(boxes):
                lines.insert(
                    1, f"{crossing:,} {'crosses' if crossing == 1 else 'cross'} the slices"
                )
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
        cells = "1 cell" if len(boxes) == 1 else f"{len(boxes)} cells"
        lines = [f"{cells}, {share:.1%} of the blocks"]
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
    label = "" if case.label is None else "; thin outlines are labels"
    if case.shape[0] == 1:
        return f"Dots are middles of patches{label}"
    return (
        "Three slices: (y, x), beside it (y, z), below it (z, x); dots are the middles of "
        f"patches{label}"
    )


def _specs(boxes: Boxes) -> Iterator[PatchSpecs]:
    for box in boxes:
        yield {"data_idx": 0, "sample_idx": 0, "coords": box.start, "patch_size": box.shape}


class _Slices:
    """Three slices of a case, to draw on."""

    def __init__(self, case: PatchMap, at: Shape3, side: int) -> None:
        view, self.proportions = _view(case, side)
        self._size, self._shape = view.size, case.shape
        self.place = "" if case.shape[0] == 1 else f"through z {at[0]}, y {at[1]}, x {at[2]}"
        self._panels = view.panels(at)
        self._read_at = None if case.most is None else around(at, case.shape, case.most)
        self._base = self._read(case)
        self._labels = self._outlined(case)

    def crossing(self, boxes: Boxes) -> int:
        """How many boxes at least one slice goes through."""
        return sum(any(panel.shows(box) for panel in self._panels) for box in boxes)

    def outlines(self, layers: Sequence[tuple[Boxes, Colour, int]], *, dots: Boxes = ()) -> Picture:
        """The slices, and on them the boxes that they go through, filled with an opacity."""
        picture = self._labels.copy()
        for panel in self._panels:
            over = Image.new("RGBA", panel.size, (0, 0, 0, 0))
            for boxes, colour, opacity in layers:
                crossing = [box for box in boxes if panel.shows(box)]
                if not opacity:
                    crossing = crossing[:: max(1, -(-len(crossing) // _OUTLINES))]
                for box in crossing:
                    layer = Image.new("RGBA", panel.size, (0, 0, 0, 0))
                    ImageDraw.Draw(layer).rectangle(
                        panel.rectangle(box), fill=(*colour, opacity), outline=(*colour, 255)
                    )
                    over = Image.alpha_composite(over, layer)
            pen = ImageDraw.Draw(over)
            for box in dots:
                if panel.shows(box):
                    x0, y0, x1, y1 = panel.rectangle(box)
                    x, y = (x0 + x1) / 2, (y0 + y1) / 2
                    # A dark ring, so that dots are seen on bright data as well.
                    pen.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=(10, 14, 20, 255))
                    pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(255, 255, 255, 255))
            _paste(picture, over, panel)
        return Picture(self._base, picture)

    def heat(self, boxes: Boxes, blocks: Boxes, colour: Colour) -> Picture:
        """How many boxes show each voxel of the slices, with a scale, the blocks outlined."""
        counted = [self._count(panel, boxes) for panel in self._panels]
        most = max(1, *(int(counts.max()) for counts in counted))
        picture = self._blank()
        for panel, counts in zip(self._panels, counted, strict=True):
            inside = panel.nearest(self._count(panel, blocks)) > 0
            heat = _coloured(panel.nearest(counts) / most)
            heat[~inside] = _OUTSIDE
            drawn = Image.fromarray(heat)
            pen = ImageDraw.Draw(drawn)
            for block in blocks:
                if panel.shows(block):
                    pen.rectangle(panel.rectangle(block), outline=colour)
            picture.paste(drawn, panel.corner)
        return Picture(
            _with_scale(picture, self._size, "0", f"{most}  patch{'es' if most > 1 else ''}")
        )

    def values(self, regions: Sequence[RegionMap], number: int, low: float, high: float) -> Picture:
        """The largest value of the regions around each voxel, with a scale."""
        picture = self._blank()
        for panel in self._panels:
            plane = np.full(panel.size[::-1], np.nan)
            for region in regions:
                _fill(panel, plane, region, number)
            unit = (plane - low) / (high - low if high > low else 1)
            heat = _coloured(np.nan_to_num(unit))
            heat[np.isnan(plane)] = _OUTSIDE
            picture.paste(Image.fromarray(heat), panel.corner)
        return Picture(_with_scale(picture, self._size, f"{low:.4g}", f"{high:.4g}"))

    def _blank(self) -> Image.Image:
        width, height = self._size
        return Image.new("RGBA", (width, height + _BAR), (0, 0, 0, 0))

    def _count(self, panel: Panel, boxes: Boxes) -> npt.NDArray[np.int64]:
        """How many boxes lie on each voxel of a slice, or on every few of them."""
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
        return count_coverage(specs, shape, step=step)

    def _read(self, case: PatchMap) -> Image.Image:
        picture = Image.new("RGBA", self._size, (0, 0, 0, 0))
        windows = None
        for panel in self._panels:
            part = panel.slab if self._read_at is None else panel.slab.common(self._read_at)
            drawn = Image.new("L", panel.size, _UNREAD)
            if part.size:
                plane = panel.voxels_of(case.image.read(part)[0]).astype(np.float32)
                windows = windows or windows_of(plane[None])
                low, high = windows[0]
                unit = np.nan_to_num((plane - low) / (high - low), nan=0.0).clip(0, 1)
                x0, y0, x1, y1 = (round(v) for v in panel.rectangle(part))
                size = (max(1, x1 - x0 + 1), max(1, y1 - y0 + 1))
                grey = Image.fromarray((unit * 255).astype(np.uint8))
                drawn.paste(grey.resize(size, Image.Resampling.BOX), (x0, y0))
            picture.paste(drawn.convert("RGBA"), panel.corner)
        return picture

    def _outlined(self, case: PatchMap) -> Image.Image:
        """The labels, thin, on nothing."""
        picture = Image.new("RGBA", self._size, (0, 0, 0, 0))
        label, window = case.label, self._read_at
        if label is None:
            return picture
        for panel in self._panels:
            if window is None or window.contains(panel.slab):
                rims = outlines(panel, lambda box: label.read(box)[0])
                rims[..., 3] = rims[..., 3] * _FAINT
                picture.paste(Image.fromarray(rims), panel.corner)
        return picture


def _fill(panel: Panel, plane: npt.NDArray[np.float64], region: RegionMap, number: int) -> None:
    """Write a block's values into the pixels that show it."""
    if not panel.shows(region.block):
        return
    height, width = panel.size[::-1]
    lengths = panel.box.shape[panel.down], panel.box.shape[panel.across]
    down, across = (
        ((np.arange(n) + 0.5) * voxels / n).astype(np.int64)
        for n, voxels in zip((height, width), lengths, strict=True)
    )
    start, stop = region.block.start, region.block.stop
    shown = [
        np.flatnonzero((v >= start[axis]) & (v < stop[axis]))
        for v, axis in zip((down, across), (panel.down, panel.across), strict=True)
    ]
    at: list[npt.ArrayLike] = [[panel.at - start[panel.cut]]] * 3
    at[panel.down] = down[shown[0]] - start[panel.down]
    at[panel.across] = across[shown[1]] - start[panel.across]
    values = spread_regions(region.values[number], region.patch_size, at)
    values = np.take(values, 0, axis=panel.cut)
    plane[np.ix_(*shown)] = values.T if panel.down > panel.across else values


def _view(case: PatchMap, side: int) -> tuple[View, list[str]]:
    """The largest view of all of a case that is no longer than `side`, and how it is stretched.

    A map shows the whole case, so that what would be a strip is stretched instead of cut.
    """
    given = case.spacing or (1.0, 1.0, 1.0)
    z, y, x = (n * s for n, s in zip(case.shape, given, strict=True))
    tall, wide = max(y, x / _LONGEST), max(x, y / _LONGEST)
    deep = z
    if case.shape[0] > 1:
        deep = min(max(z, _THINNEST * max(tall, wide) / side), tall, wide)
    whole = max(tall, wide) + (deep if case.shape[0] > 1 else 0)
    factors = {"z": deep / z, "y": tall / y, "x": wide / x}
    spacing = [length / n for length, n in zip((deep, tall, wide), case.shape, strict=True)]
    # A hair less, so that rounding leaves no voxel out.
    spacing[0] *= 1 - 1e-9
    said = [
        f"{axis} is drawn {f if f > 1 else 1 / f:.3g} times {'longer' if f > 1 else 'shorter'} "
        "than it is"
        for axis, f in factors.items()
        if not 0.98 < f < 1.02
    ]
    pixels = max(48, round(side * max(tall, wide) / whole))
    return View(case.shape, (spacing[0], spacing[1], spacing[2]), side=pixels), said


def _paste(picture: Image.Image, over: Image.Image, panel: Panel) -> None:
    """Lay a transparent picture over a panel."""
    (x, y), (width, height) = panel.corner, panel.size
    below = picture.crop((x, y, x + width, y + height))
    picture.paste(Image.alpha_composite(below, over), (x, y))


def _coloured(unit: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Numbers from 0 to 1 as colours, 0 black; RGBA."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(unit, stops, [colour[c] for colour in _HEAT]) for c in range(3)]
    return np.stack([*channels, np.full(unit.shape, 255.0)], axis=-1).astype(np.uint8)


def _with_scale(picture: Image.Image, size: tuple[int, int], low: str, high: str) -> Image.Image:
    """With a bar from the lowest to the highest value, on a ground on which it is read."""
    width, top = size
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=11)
    pen.rectangle((0, top + 4, width, top + _BAR), fill=(255, 255, 255, 255))
    left = 8 + round(font.getlength(low))
    length = max(20, min(160, width - left - 8 - round(font.getlength(high))))
    bar = np.broadcast_to(_coloured(np.linspace(0, 1, length)), (10, length, 4))
    picture.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top + 9))
    pen.text((2, top + 7), low, fill=(60, 68, 77, 255), font=font)
    pen.text((left + length + 4, top + 7), high, fill=(60, 68, 77, 255), font=font)
    return picture
