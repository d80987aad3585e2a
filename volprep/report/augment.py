"""The preview of an augmentation pipeline: every transform alone, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.augment import Compose, Drawn, Transform
from volprep.geometry import Shape3, Spacing3, steps, three
from volprep.randomness import sample_generator
from volprep.report.charts import draw_histogram, number_text
from volprep.report.page import Cell, Gallery, Page, Section
from volprep.report.pictures import Picture, View, draw_sample, windows_of

__all__ = ["render_preview"]

Array = npt.NDArray[Any]
Sample = Mapping[str, Any]

# Draws from which it is told how many fit.
_DRAWS = 100
#: One place will do for all draws where each shows there this share of its largest change.
_WILL_DO = 0.5
#: Slices that show nearly as much as the best one are as good.
_CLOSE = 0.9
#: Grey values are drawn as before as long as so many lie within the window, widened by a part.
_STILL_INSIDE, _WIDENED = 0.85, 0.25


def render_preview(
    sample: Sample,
    compose: Compose,
    *,
    n: int = 8,
    seed: int = 0,
    spacing: Sequence[float] | None = None,
    only: Sequence[str] | None = None,
    title: str = "Augmentation preview",
    notes: Sequence[str] = (),
    label: str = "label",
    points: str = "skeleton",
    side: int = 208,
) -> Page:
    """Draw a sample beside n augmentations of it: the whole pipeline, then each transform alone.

    Parameters
    ----------
    sample : dict
        As `compose` takes it, of ``compose.required_shape`` or more.
    compose : Compose
    n : int
        Draws in each row.
    seed : int
        Draw k of a row comes from ``sample_generator(seed, 0, k)``.
    spacing : sequence of three floats, optional
        (Z, Y, X) in micrometres, for true proportions. None draws cubes and says so.
    only : sequence of str, optional
        Names of transforms; only their rows are drawn.
    title : str
    notes : sequence of str
        Lines below the title.
    label, points : str
        The targets that are drawn over the image, if the sample has them: the
        mask as outlines, the points as dots with a few of the vectors that a
        baked skeleton gives.
    side : int
        Pixels of the longer side of a (Y, X) slice.

    Returns
    -------
    Page
        ``html()``, ``sheet()`` and ``write(html, sheet)``.

    Raises
    ------
    ValueError
        If `only` names a transform that is not in `compose`.
    """
    chosen = _chosen(compose, only)
    plain = Compose(
        [], compose.input_size, compose.targets, border=compose.border, spacing=compose.spacing
    )
    original = plain(sample, replay=Drawn(plain.input_size, ()))
    size = steps(spacing)
    view = View(compose.input_size, size, windows_of(np.asarray(original["image"])), side)
    studio = _Studio(view, original, label, points, size, n, seed)
    rows = [] if only else [studio.row("Whole pipeline", _together(compose), sample, compose)]
    for transform in chosen:
        alone = _alone(transform, compose)
        rows.append(studio.row(_title(transform), _parameters(transform), sample, alone))
    size_line, shown = _about(compose, spacing, seed, original, label, points)
    return Page(title, [size_line, *_fit(compose, sample), *notes, shown], rows)


def _fit(compose: Compose, sample: Sample) -> list[str]:
    """How many draws of the whole pipeline fit into the sample, where not all do."""
    shape = np.asarray(sample["image"]).shape[-3:]
    drawn = [compose.draw(sample_generator(0, 1, k)) for k in range(_DRAWS)]
    fitted = sum(not any(compose.reaches_beyond(one, shape)) for one in drawn)
    if fitted == _DRAWS:
        return []
    return [
        f"The sample of {_times(shape)} holds {fitted / _DRAWS:.0%} of the draws whole; the others "
        f"are mirrored at its border, and not valid there; {_times(compose.required_shape)} would "
        "hold all."
    ]


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


@dataclass(frozen=True)
class _Studio:
    """What all pictures of a page have in common."""

    view: View
    original: Sample
    label: str
    points: str
    spacing: Spacing3
    n: int
    seed: int

    def row(self, title: str, note: str, sample: Sample, compose: Compose) -> Section:
        """The original, the draws, and their intensities.

        Each draw is shown where it changed most, and what was there before at the same place.
        """
        drawn = [compose.draw(sample_generator(self.seed, 0, k)) for k in range(self.n)]
        results = [compose(sample, replay=one) for one in drawn]
        places = self._places(results)
        middle = places[0] if len(set(places)) == 1 else self._middle()
        cells = [self._cell(self.original, middle, "original", [])]
        shape = np.asarray(sample["image"]).shape[-3:]
        for k, (one, result, at) in enumerate(zip(drawn, results, places, strict=True), 1):
            words = compose.describe(one) or ["left as it is"]
            beyond = max(compose.reaches_beyond(one, shape))
            words += [f"up to {beyond} px mirrored at the border"] * (beyond > 0)
            before = None if at == middle else self._picture(self.original, at)
            cells.append(self._cell(result, at, f"draw {k}", words, before))
        cells.append(self._intensities(results))
        return Section(title, note, [Gallery(cells)])

    def _cell(
        self, sample: Sample, at: Shape3, heading: str, words: list[str],
        before: Picture | None = None,
    ) -> Cell:  # fmt: skip
        windows = self._windows(np.asarray(sample["image"]))
        lines = [*words, self.view.says(at)]
        lines += ["left: before, at the same place"] * (before is not None)
        if windows != self.view.windows:
            ends = ", ".join(f"{number_text(a)} to {number_text(b)}" for a, b in windows)
            lines.append(f"drawn from {ends}, where its values now lie")
        picture = self._picture(sample, at, windows)
        return Cell(picture, heading, [line for line in lines if line], before)

    def _windows(self, image: Array) -> Sequence[tuple[float, float]]:
        """The window of all pictures, or where the values have left it their own."""
        channels = image if image.ndim == 4 else image[None]
        for channel, (low, high) in zip(channels, self.view.windows, strict=True):
            room = _WIDENED * (high - low)
            inside = (channel >= low - room) & (channel <= high + room)
            if inside.mean() < _STILL_INSIDE:
                return windows_of(image)
        return self.view.windows

    def _intensities(self, results: Sequence[Sample]) -> Cell:
        after = [np.asarray(result["image"]) for result in results]
        chart = draw_histogram(np.asarray(self.original["image"]), after)
        return Cell(chart, "intensities", ["filled: before", "lines: after, one for each draw"])

    def _middle(self) -> Shape3:
        """The middle, or the slice with most labels where there is none in the middle one."""
        z, y, x = self.view.shape
        middle = z // 2, y // 2, x // 2
        label = self.original.get(self.label)
        if label is None or np.asarray(label)[middle[0]].any() or not np.any(label):
            return middle
        return int((np.asarray(label) != 0).sum((1, 2)).argmax()), *middle[1:]

    def _places(self, results: Sequence[Sample]) -> list[Shape3]:
        """Where each draw is shown: at one place if there each shows much of what it changed."""
        changes = [self._change(result) for result in results]
        common = [_strongest([c[axis] for c in changes], self._middle()[axis]) for axis in range(3)]
        shown = [c[axis][common[axis]] for c in changes for axis in range(3)]
        if min(shown, default=1.0) >= _WILL_DO:
            return [three(common)] * len(results)
        return [
            three(_strongest([c[axis]], self._middle()[axis]) for axis in range(3)) for c in changes
        ]

    def _change(self, result: Sample) -> list[npt.NDArray[np.float64]]:
        """How much each slice along each axis changed, as a share of the most."""
        before = np.asarray(self.original["image"], np.float32)
        change = np.abs(np.asarray(result["image"]) - before).reshape(-1, *self.view.shape)
        sums = [change.sum(tuple(n for n in range(4) if n != axis + 1)) for axis in range(3)]
        return [s / s.max() if s.max() > 0 else np.ones(s.shape) for s in sums]

    def _picture(
        self, sample: Sample, at: Shape3, windows: Sequence[tuple[float, float]] | None = None
    ) -> Picture:
        label = sample.get(self.label)
        points = sample.get(self.points)
        return draw_sample(
            self.view,
            np.asarray(sample["image"]),
            at=at,
            label=label,
            points=points,
            vectors=baked(label, points, self.spacing),
            windows=windows,
        )


def baked(
    label: Array | None, points: Mapping[int, Any] | None, spacing: Spacing3
) -> npt.NDArray[np.float32] | None:
    """For each voxel of an object that has points, the nearest of them."""
    from volprep.skeletons import bake_skeleton

    if label is None or not points:
        return None
    known = {i: p for i, p in points.items() if len(p)}
    ids = np.array(sorted(known), label.dtype)
    masks = np.where(np.isin(label, ids), label, 0)
    baked = bake_skeleton(masks, known, anisotropy=spacing, average=False)
    grid = np.stack(np.meshgrid(*map(np.arange, label.shape), indexing="ij")).astype(np.float32)
    return np.where(masks[None] != 0, np.asarray(baked), grid)


def _chosen(compose: Compose, only: Sequence[str] | None) -> list[Transform]:
    enabled = [t for t in compose.transforms if t.enabled and t.p > 0]
    if not only:
        return enabled
    known = [t.name for t in enabled]
    for name in only:
        if name not in known:
            raise ValueError(f"only: {name!r} is not in the pipeline, which has {', '.join(known)}")
    return [t for t in enabled if t.name in only]


def _alone(transform: Transform, compose: Compose) -> Compose:
    """One transform that always acts, on the same targets."""
    return Compose(
        [replace(transform, p=1.0)],
        compose.input_size,
        compose.targets,
        border=compose.border,
        value_range=compose.value_range,
        spacing=compose.spacing,
    )


def _strongest(shares: Sequence[npt.NDArray[np.float64]], middle: int) -> int:
    """The slice at which the least of some changes is largest; of equal ones the most central."""
    least = np.min(shares, axis=0) if len(shares) else np.ones(middle + 1)
    good = np.flatnonzero(least >= min(_CLOSE * float(least.max()), 1.0))
    return int(good[np.abs(good - middle).argmin()])


def _title(transform: Transform) -> str:
    return f"{type(transform).__name__} alone"


def _parameters(transform: Transform) -> str:
    own = {k: v for k, v in transform.parameters().items() if k not in ("p", "enabled")}
    words = ", ".join(f"{name} {_value(value)}" for name, value in own.items())
    return f"in the pipeline p = {transform.p:g}, here always" + (f"; {words}" if words else "")


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _together(compose: Compose) -> str:
    named = ", ".join(f"{t.name} {t.p:g}" for t in compose.transforms if t.enabled and t.p > 0)
    return f"drawn as the loader draws; probabilities: {named or 'none'}"


def _about(
    compose: Compose,
    spacing: Sequence[float] | None,
    seed: int,
    original: Sample,
    label: str,
    points: str,
) -> tuple[str, str]:
    """What is to be known about all pictures: sizes, and what is shown."""
    size, read = _times(compose.input_size), _times(compose.required_shape)
    step = (
        "spacing unknown, pixels drawn as squares"
        if spacing is None and compose.input_size[0] == 1
        else "spacing unknown, voxels drawn as cubes"
        if spacing is None
        else "voxels of " + " x ".join(f"{s:.4g}" for s in spacing) + " µm"
    )
    line = f"Patches of {size} voxels (z, y, x), cut from {read}; {step}; seed {seed}."
    shown = "Each picture: the (y, x) slice, to its right (y, z), below it (z, x)."
    if compose.input_size[0] == 1:
        shown = "Each picture: the image, y downwards, x to the right."
    if label in original:
        shown += " Outlines: labels, a colour for each id."
    if points in original:
        shown += " Dots: skeleton points in the slice; lines: where voxels point to."
    return line, shown
