"""Samples as a network gets them: the image, its labels, and each target that is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.geometry import Shape3, Spacing3
from volprep.report.charts import number_text
from volprep.report.page import Block, Cell, Gallery
from volprep.report.pictures import Picture, View, draw_sample, windows_of

__all__ = ["SampleView", "draw_case", "draw_samples", "sample_strip"]

Array = npt.NDArray[Any]

#: What is drawn on the image, and not as a picture of its own.
_DRAWN = ("image", "label", "mask")
_SIDE, _FLAT_SIDE, _TARGET_SIDE, _SMALL = 200, 280, 184, 128


@dataclass(frozen=True)
class SampleView:
    """One sample, as the loader gives it.

    Parameters
    ----------
    name : str
        Where it is from.
    arrays : mapping of str to array
        ``image`` (C, Z, Y, X), ``label`` (Z, Y, X) and targets, by their names.
    lines : sequence of str
        What else is to be known.
    """

    name: str
    arrays: Mapping[str, Array]
    lines: Sequence[str] = ()

    @property
    def at(self) -> Shape3:
        """The middle, on the slice that shows most labels."""
        z, y, x = self.arrays["image"].shape[-3:]
        label = self.arrays.get("label")
        if label is None or not (label > 0).any():
            return z // 2, y // 2, x // 2
        shown = (label > 0).sum((1, 2))
        good = np.flatnonzero(shown >= 0.8 * shown.max())
        return int(good[np.abs(good - z // 2).argmin()]), y // 2, x // 2

    @property
    def digest(self) -> str:
        """SHA-256 of the image's bytes, by which it is known that the loader gives the same."""
        image = np.ascontiguousarray(self.arrays["image"])
        return hashlib.sha256(image.tobytes()).hexdigest()


def draw_samples(samples: Sequence[SampleView], spacing: Spacing3 | None) -> list[Block]:
    """A gallery of samples; of those with targets each one with its targets beside it."""
    if not samples:
        return []
    windows = _windows(samples)
    targets = any(set(s.arrays) - set(_DRAWN) for s in samples)
    if not targets:
        return [Gallery([_image(s, windows, spacing) for s in samples])]
    return [Gallery([_image(s, windows, spacing), *_targets(s, spacing)]) for s in samples]


def sample_strip(samples: Sequence[SampleView], spacing: Spacing3 | None) -> Gallery:
    """The (Y, X) slices alone, small."""
    windows = _windows(samples)
    cells, cases = [], {sample.name.rsplit(", ", 1)[0] for sample in samples}
    for sample in samples:
        image, z = sample.arrays["image"], sample.at[0]
        label = sample.arrays.get("label")
        view = _flat(image, spacing, _SMALL)
        drawn = draw_sample(
            view, image[:, z : z + 1], at=(0, *sample.at[1:]),
            label=None if label is None else label[z : z + 1], windows=windows,
        )  # fmt: skip
        # Of one case its name says nothing here.
        cells.append(Cell(drawn, sample.name.rsplit(", ", 1)[-1 if len(cases) == 1 else 0]))
    return Gallery(cells, tight=True)


def _windows(samples: Sequence[SampleView]) -> list[tuple[float, float]]:
    """One window for all, so that they can be compared."""
    found = [windows_of(sample.arrays["image"]) for sample in samples]
    return [
        (min(low for low, _ in channel), max(high for _, high in channel))
        for channel in zip(*found, strict=True)
    ]


def _image(
    sample: SampleView, windows: Sequence[tuple[float, float]], spacing: Spacing3 | None
) -> Cell:
    image, label = sample.arrays["image"], sample.arrays.get("label")
    side = _SIDE if image.shape[-3] > 1 else _FLAT_SIDE  # flat ones have no side views
    view = View(image.shape[-3:], spacing or (1.0, 1.0, 1.0), windows, side)
    offset = sample.arrays.get("offset")
    vectors = None
    if offset is not None:
        axes = [np.arange(n, dtype=np.float32) for n in offset.shape[1:]]
        vectors = offset + np.stack(np.meshgrid(*axes, indexing="ij"))
    mask = sample.arrays.get("mask")
    picture = draw_sample(view, image, at=sample.at, label=label, vectors=vectors, valid=mask)
    shown = ", ".join(f"{number_text(a)} to {number_text(b)}" for a, b in windows)
    lines = [*sample.lines, view.says(sample.at), f"grey values {shown}"]
    lines += ["lines: to where voxels point"] * (vectors is not None)
    if mask is not None and not mask.all():
        lines.append(f"blue: not annotated, {1 - (mask != 0).mean():.1%} of it")
    lines.append(f"image SHA-256 {sample.digest[:12]}")
    return Cell(picture, sample.name, [line for line in lines if line])


def _targets(sample: SampleView, spacing: Spacing3 | None) -> list[Cell]:
    """The (Y, X) slice of each other array."""
    cells, z = [], sample.at[0]
    for name, array in sample.arrays.items():
        if name in _DRAWN:
            continue
        channels = np.asarray(array if array.ndim == 4 else array[None])
        plane = channels[:3, z : z + 1].astype(np.float32)
        if len(plane) == 2:
            plane = np.concatenate([plane, np.zeros_like(plane[:1])])
        low, high = float(channels.min()), float(channels.max())
        window = (low, high if high > low else low + 1)
        view = _flat(channels, spacing, _TARGET_SIDE)
        drawn = draw_sample(view, plane, at=(0, *sample.at[1:]), windows=[window] * len(plane))
        lines = [f"{array.dtype}, {number_text(low)} to {number_text(high)}"]
        if len(channels) > 1:
            shown = min(3, len(channels))
            lines.append(f"{shown} of {len(channels)} channels as red, green, blue")
        cells.append(Cell(drawn, name.replace("_", " "), lines))
    return cells


def _flat(array: Array, spacing: Spacing3 | None, side: int) -> View:
    _, y, x = array.shape[-3:]
    return View((1, y, x), spacing or (1.0, 1.0, 1.0), [], side)


def draw_case(
    shape: Shape3, spacing: Spacing3 | None, image: Any, label: Any, *, at: Shape3,
    most: Shape3 | None, valid: Any = None, side: int = 88,
) -> tuple[Picture, list[str], bool]:  # fmt: skip
    """A case in three small slices, and what is shown of it.

    Parameters
    ----------
    shape : (Z, Y, X)
    spacing : (Z, Y, X) or None
    image, label, valid : callable
        Give the voxels of a thin box; no labels for None, and all is annotated.
    at : (Z, Y, X)
    most : (Z, Y, X) or None
        Voxels that may be read along each axis.
    side : int

    Returns
    -------
    picture : Picture
    lines : list of str
    partial : bool
        Whether something is not annotated there.
    """
    view = View(shape, spacing or (1.0, 1.0, 1.0), (), side, most, row=True)
    read = {panel.cut: image(panel.slab) for panel in view.panels(at)}
    whole = [np.concatenate([p[c].ravel() for p in read.values()]) for c in range(len(read[0]))]
    windows = windows_of(np.stack(whole)[:, None, None])
    cuts = {panel.slab: panel.cut for panel in view.panels(at)}
    known = None if valid is None else {cut: valid(slab) for slab, cut in cuts.items()}
    picture = draw_sample(
        view, lambda box: read[cuts[box]], at=at, label=label, windows=windows,
        valid=None if known is None else lambda box: known[cuts[box]],
    )  # fmt: skip
    partial = known is not None and any((part == 0).any() for part in known.values())
    shown = ", ".join(f"{number_text(a)} to {number_text(b)}" for a, b in windows)
    lines = [view.says(at), f"grey values {shown}", "blue: not annotated" if partial else ""]
    return picture, [line for line in lines if line], partial
