"""Charts as SVG: how often values occur, and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Chart", "Curve", "draw_bars", "draw_curves", "draw_histogram", "number_text"]

Floats = npt.NDArray[np.float64]

_WIDTH, _HEIGHT = 360, 196
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 22, 34
#: Bins of a histogram that is counted here, and decades below the peak that are drawn.
_BINS, _DECADES = 64, 6


@dataclass(frozen=True)
class Chart:
    """A drawing, and what its colours mean: (CSS colour, words)."""

    svg: str
    legend: Sequence[tuple[str, str]] = ()

    def html(self) -> str:
        """The drawing, with its legend below."""
        each = "".join(
            f'<li><i style="background:{colour}"></i>{escape(words)}</li>'
            for colour, words in self.legend
        )
        return self.svg + (f'<ul class="legend">{each}</ul>' if each else "")


@dataclass(frozen=True)
class Curve:
    """Shares of some voxels (0 to 1) in bins.

    Parameters
    ----------
    edges : array, shape (n + 1,)
        Ascending.
    shares : array, shape (n,)
    kind : {'bar', 'bar2'}
        Filled, or a line.
    """

    edges: Floats
    shares: Floats
    kind: Literal["bar", "bar2"] = "bar"


def number_text(value: float) -> str:
    """A number for people: three or four figures, thousands apart."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def draw_curves(
    title: str,
    curves: Sequence[Curve],
    *,
    across: str,
    up: str,
    marks: Sequence[tuple[float, str]] = (),
    clip: tuple[float, float] | None = None,
    log_x: bool = False,
    log_y: bool = True,
) -> str:
    """Draw how often values occur.

    Parameters
    ----------
    title : str
        Stands above, and is read aloud.
    curves : sequence of Curve
    across, up : str
        What the axes are.
    marks : sequence of (value, text)
        Lines across the chart.
    clip : (low, high) or None
        What lies outside is shaded.
    log_x, log_y : bool
        Whether the values, and how often they occur, are drawn on a log axis. Not so, `shares`
        are drawn as the numbers they are.

    Returns
    -------
    str
        An ``<svg>``.
    """
    ends = [e for c in curves if len(c.shares) for e in (c.edges[0], c.edges[-1])]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    frame = _Frame(low, high if high > low else low + 1, _peak(curves, log_y), log_x, log_y)
    parts = [frame.grid(up), *_shade(frame, clip)]
    parts += [frame.curve(curve) for curve in curves]
    parts += _marks(frame, marks, clip)
    parts.append(frame.axis(across))
    return _svg(title, parts)


def draw_histogram(
    before: npt.NDArray[Any], after: Sequence[npt.NDArray[Any]], *, title: str = "Intensities"
) -> Chart:
    """Draw the share of voxels over the intensity: filled before, a line for each draw after.

    Parameters
    ----------
    before : array
        Of any shape.
    after : sequence of arrays
    """
    edges = _edges(before, after)
    curves = [Curve(edges, _shares(before, edges))]
    curves += [Curve(edges, _shares(values, edges), "bar2") for values in after]
    svg = draw_curves(title, curves, across="intensity", up="share of voxels")
    legend = [("var(--bar)", "before")]
    return Chart(svg, legend + [("var(--line2)", "after, a line for each draw")] * bool(after))


def draw_bars(title: str, bars: Sequence[tuple[str, float, str]], *, kind: str = "bar") -> str:
    """Draw bars from the left, one below the other.

    Parameters
    ----------
    title : str
    bars : sequence of (name, value, text)
    """
    most = max([value for _, value, _ in bars], default=0) or 1
    rows, step, left = [], 22, 118
    for n, (name, value, text) in enumerate(bars):
        y, width = _TOP + 6 + n * step, (_WIDTH - left - 92) * value / most
        short = name if len(name) <= 16 else f"{name[:7]}…{name[-7:]}"  # ends tell them apart
        rows.append(
            f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{escape(short)}</text>'
            f'<rect class="{kind}" x="{left}" y="{y}" rx="2" width="{max(1, width):.1f}" '
            'height="15"/>'
            f'<text x="{left + width + 6:.1f}" y="{y + 12}">{escape(text)}</text>'
        )
    return _svg(title, rows, _TOP + 10 + step * len(bars))


def _svg(title: str, parts: Sequence[str], height: float = _HEIGHT) -> str:
    name = escape(title, quote=True)
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {_WIDTH} {height:g}" '
        f'width="{_WIDTH}" height="{height:g}">'
        f'<text class="strong" x="0" y="13">{escape(title)}</text>{"".join(parts)}</svg>'
    )


class _Frame:
    """Where values and shares lie in the drawing."""

    def __init__(self, low: float, high: float, peak: float, log_x: bool, log_y: bool) -> None:
        self.log_x, self.log_y, self.peak = log_x and low > 0, log_y, peak
        self.low, self.high = (math.log10(low), math.log10(high)) if self.log_x else (low, high)
        self.top = math.log10(peak)
        self.decades = _DECADES

    def x(self, value: float) -> float:
        """Of a value."""
        place = math.log10(max(value, 1e-300)) if self.log_x else value
        share = (place - self.low) / (self.high - self.low)
        return _LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, share: float) -> float:
        """Of a share; nothing lies on the floor."""
        floor = _HEIGHT - _BOTTOM
        if not self.log_y:
            return floor - share / self.peak * (floor - _TOP)
        if share <= 0:
            return floor
        height = 1 - (self.top - math.log10(share)) / self.decades
        return floor - max(0.0, height) * (floor - _TOP)

    def grid(self, up: str) -> str:
        """Lines at powers of ten, or at round numbers, and what they are."""
        lines = []
        if not self.log_y:
            for value in [n for n in _round_numbers(0, self.peak, 4) if n.is_integer()]:
                y = self.y(value)
                lines.append(
                    f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
                    f'y2="{y:.1f}"/><text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">'
                    f"{number_text(value)}</text>"
                )
            return "".join(lines) + _above(up)
        for power in range(math.ceil(self.top - self.decades), math.floor(self.top) + 1):
            y = self.y(10.0**power)
            lines.append(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/>'
            )
            if power % 2 == 0:
                text = f"{100 * 10.0**power:g}%"
                lines.append(
                    f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
                )
        return "".join(lines) + _above(f"{up}, log")

    def curve(self, curve: Curve) -> str:
        """Steps over the bins."""
        if not len(curve.shares):
            return ""
        points = []
        for n, share in enumerate(curve.shares.tolist()):
            y = self.y(share)
            points += [
                f"{self.x(float(curve.edges[n])):.1f},{y:.1f}",
                f"{self.x(float(curve.edges[n + 1])):.1f},{y:.1f}",
            ]
        floor = _HEIGHT - _BOTTOM
        if curve.kind == "bar":
            first, last = self.x(float(curve.edges[0])), self.x(float(curve.edges[-1]))
            points = [f"{first:.1f},{floor}", *points, f"{last:.1f},{floor}"]
            return f'<polygon class="bar" points="{" ".join(points)}"/>'
        return f'<polyline class="bar2" points="{" ".join(points)}"/>'

    def axis(self, across: str) -> str:
        """The floor, with numbers."""
        floor = _HEIGHT - _BOTTOM
        parts = [
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
        ]
        for value in self._ticks():
            x = self.x(value)
            anchor = "end" if x > _WIDTH - 30 else "middle"
            parts.append(
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
                f'<text x="{x:.1f}" y="{floor + 15}" text-anchor="{anchor}">'
                f"{number_text(value)}</text>"
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            f'<text x="{middle:.1f}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(across)}</text>'
        )
        return "".join(parts)

    def _ticks(self) -> list[float]:
        if self.log_x:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            step = max(1, len(powers) // 5)
            if len(powers) > 2:
                return [10.0**p for p in powers[::step]]
            low, high = 10**self.low, 10**self.high
            every = range(math.floor(self.low), math.floor(self.high) + 1)
            ticks = [n * 10.0**p for p in every for n in (1, 2, 5) if low <= n * 10.0**p <= high]
            return ticks or [low]
        return _round_numbers(self.low, self.high, 6)


def _above(text: str) -> str:
    """What the axis that points up is."""
    return f'<text x="{_WIDTH - _RIGHT}" y="13" text-anchor="end">{escape(text)}</text>'


def _round_numbers(low: float, high: float, about: int) -> list[float]:
    """Some 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    apart = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first, last = math.ceil(low / apart), math.floor(high / apart)
    return [n * apart for n in range(first, last + 1)]


def _shade(frame: _Frame, clip: tuple[float, float] | None) -> list[str]:
    """What lies outside of the bounds."""
    if clip is None:
        return []
    left, right, floor = frame.x(clip[0]), frame.x(clip[1]), _HEIGHT - _BOTTOM
    return [
        f'<rect class="clipped" x="{a:.1f}" y="{_TOP}" width="{max(0.0, b - a):.1f}" '
        f'height="{floor - _TOP}"/>'
        for a, b in ((_LEFT, left), (right, _WIDTH - _RIGHT))
    ]


def _marks(
    frame: _Frame, marks: Sequence[tuple[float, str]], clip: tuple[float, float] | None
) -> list[str]:
    """Lines at values, their names in two rows so that they do not lie on each other."""
    parts, floor, taken = [], _HEIGHT - _BOTTOM, [-99.0, -99.0]
    for value, text in sorted(marks):
        x = frame.x(value)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}"/>')
        width = 6.0 * len(text)
        begins = x + 3 if x < _LEFT + 12 else x - width / 2  # not over the axis
        row = next((n for n, right in enumerate(taken) if begins > right), None)
        if row is not None:
            taken[row] = begins + width + 2
            where = f'x="{begins:.1f}" y="{_TOP + 9 + 11 * row}"'
            parts.append(f'<text class="name" {where}>{escape(text)}</text>')
    for value in clip or ():
        x = frame.x(value)
        parts.append(f'<line class="clip" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}"/>')
    return parts


def _peak(curves: Sequence[Curve], log_y: bool) -> float:
    """The largest share, a little above it, so that it does not touch the top."""
    largest = max([float(c.shares.max()) for c in curves if len(c.shares)], default=0.0)
    return (1.6 if log_y else 1.2) * largest if largest > 0 else 1.0


def _edges(before: npt.NDArray[Any], after: Sequence[npt.NDArray[Any]]) -> Floats:
    """Up to some 64 bins over all values; whole numbers wide where values were whole numbers."""
    first = before[np.isfinite(before)].astype(np.float64)
    ends = [first, *(a[np.isfinite(a)] for a in after)]
    bounds = [float(f(e)) for e in ends if e.size for f in (np.min, np.max)]
    if not bounds:
        return np.linspace(0, 1, _BINS + 1)
    low, high = min(bounds), max(bounds)
    if np.array_equal(first, np.round(first)) and high - low >= 2:
        low = math.floor(low) - 0.5
        width = max(1.0, math.ceil((high - low) / _BINS))
        return np.asarray(low + width * np.arange(math.ceil((high - low) / width) + 1))
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _shares(values: npt.NDArray[Any], edges: Floats) -> Floats:
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    return np.asarray(counts / max(1, counts.sum()), np.float64)
