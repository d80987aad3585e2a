"""An intensity histogram as lines of text."""

from __future__ import annotations

import math

from volprep.fingerprint.facts import Histogram

__all__ = ["draw_histogram"]

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def draw_histogram(
    histogram: Histogram, *, width: int = 60, rows: int = 16, logarithmic: bool = True
) -> list[str]:
    """Draw a histogram with one bar a line.

    Parameters
    ----------
    histogram : Histogram
        What to draw.
    width : int
        Columns of the longest bar.
    rows : int
        Lines at most; neighbouring bins are joined.
    logarithmic : bool
        Bars grow with the logarithm of the count, so that rare intensities show.

    Returns
    -------
    list of str
        The first intensity of each line, its bar, and the share of voxels.
    """
    counts = histogram.counts
    total = sum(counts)
    if not total:
        return ["no voxels"]
    joined = -(-len(counts) // rows)
    lines = [sum(counts[i : i + joined]) for i in range(0, len(counts), joined)]
    step = (histogram.stop - histogram.start) / len(counts) * joined
    tallest = _height(max(lines), logarithmic)
    labels = [f"{histogram.start + i * step:.5g}" for i in range(len(lines))]
    column = max(map(len, labels))
    return [
        f"{label:>{column}} {_bar(_height(count, logarithmic) / tallest * width):<{width}} "
        f"{count / total:7.2%}"
        for label, count in zip(labels, lines, strict=True)
    ]


def _height(count: int, logarithmic: bool) -> float:
    return math.log1p(count) if logarithmic else float(count)


def _bar(length: float) -> str:
    full, rest = divmod(round(length * 8), 8)
    return ("█" * full + _EIGHTHS[rest]).rstrip() if full or rest else ""
