"""The preview of an augmentation pipeline: every transform alone, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.augment import Compose, Drawn, Transform
from volprep.geometry import Shape3, Spacing3
from volprep.preview.histogram import draw_histogram
from volprep.preview.orthogonal import View, draw_sample, windows_of
from volprep.preview.page import Cell, Page, Row
from volprep.randomness import sample_generator

__all__ = ["render_preview"]

Array = npt.NDArray[Any]
Sample = Mapping[str, Any]

# Draws from which it is told how many fit.
_DRAWS = 100


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
    size = _three(spacing)
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

    def row(self, title: str, note: str, sample: Sample, compose: Compose) -> Row:
        """The original, the draws, and their intensities."""
        drawn = [compose.draw(sample_generator(self.seed, 0, k)) for k in range(self.n)]
        results = [compose(sample, replay=one) for one in drawn]
        middle = self._middle()
        cells = [Cell(self._picture(self.original, middle), "original", self._place(middle))]
        shape = np.asarray(sample["image"]).shape[-3:]
        for k, (one, result) in enumerate(zip(drawn, results, strict=True), 1):
            at = self._where(one, result, compose)
            words = compose.describe(one) or ["left as it is"]
            beyond = max(compose.reaches_beyond(one, shape))
            words += [f"up to {beyond} px mirrored at the border"] * (beyond > 0)
            cells.append(Cell(self._picture(result, at), f"draw {k}", [*words, *self._place(at)]))
        cells.append(self._intensities(results))
        return Row(title, note, cells)

    def _intensities(self, results: Sequence[Sample]) -> Cell:
        after = [np.asarray(result["image"]) for result in results]
        picture = draw_histogram(np.asarray(self.original["image"]), after)
        return Cell(picture, "intensities", ["grey: before", "red: after, all draws"])

    def _middle(self) -> Shape3:
        z, y, x = self.view.shape
        return z // 2, y // 2, x // 2

    def _where(self, drawn: Drawn, result: Sample, compose: Compose) -> Shape3:
        """The voxel to show: where one section was moved, or where intensities changed most."""
        middle = self._middle()
        acting = [(t, v) for t, (_, v) in zip(compose.transforms, drawn.steps, strict=True) if v]
        if len(compose.transforms) > 1 or not acting:
            return middle
        transform, values = acting[0]
        if transform.name == "misalignment":
            return (values["section"], *middle[1:])
        if transform.name == "missing_section":  # the first section after the gap
            return (min(values["deleted"][0], self.view.shape[0] - 1), *middle[1:])
        if transform.kind == "spatial":
            return middle
        before = np.asarray(self.original["image"], np.float32)
        change = np.abs(np.asarray(result["image"]) - before)
        change = change if change.ndim == 3 else change.sum(0)
        if not change.any():
            return middle
        z, y, x = (_strongest(change, axis, middle[axis]) for axis in range(3))
        return z, y, x

    def _place(self, at: Shape3) -> list[str]:
        """Which slices are shown; flat images have one."""
        return [] if self.view.shape[0] == 1 else ["slices z {}, y {}, x {}".format(*at)]

    def _picture(self, sample: Sample, at: Shape3) -> Any:
        label = sample.get(self.label)
        points = sample.get(self.points)
        return draw_sample(
            self.view,
            np.asarray(sample["image"]),
            at=at,
            label=label,
            points=points,
            vectors=_baked(label, points, self.spacing),
        )


def _baked(
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


def _strongest(change: Array, axis: int, middle: int) -> int:
    """The middle slice along an axis, as of the original, or the one that changed most.

    The other only where the middle one shows next to nothing of the change.
    """
    others = tuple(n for n in range(3) if n != axis)
    strength = change.mean(others)
    return middle if strength[middle] >= 0.1 * strength.max() else int(strength.argmax())


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
    return f"as training sees it; probabilities: {named or 'none'}"


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
        "spacing unknown, voxels drawn as cubes"
        if spacing is None
        else "voxels of " + " x ".join(f"{s:g}" for s in spacing) + " µm"
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


def _three(spacing: Sequence[float] | None) -> Spacing3:
    z, y, x = (1.0, 1.0, 1.0) if spacing is None else (float(s) for s in spacing)
    return z, y, x
