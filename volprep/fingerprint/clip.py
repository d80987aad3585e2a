"""Where intensities are clipped: outliers go, what is to be learnt stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from volprep.findings import Finding
from volprep.fingerprint.facts import Fingerprint, Statistics

__all__ = [
    "DARK",
    "MOST_CUT",
    "Clip",
    "ClipBounds",
    "bounds_of",
    "clip_bounds",
    "clip_findings",
    "clip_table",
    "dark_share",
]

#: What ``auto`` holds of all voxels and of the labelled ones, in percent.
INNER = (0.5, 99.5)
#: What it holds where a tail is heavy. Broken pixels of a camera are rarer than that.
OUTER = (0.01, 99.99)
#: Below this `dark_share` most voxels are background.
DARK = 0.4
#: Bounds that cut more than this share of the labelled voxels are warned of.
MOST_CUT = 0.01

Clip = Literal["auto"] | tuple[float, float]


@dataclass(frozen=True)
class ClipBounds:
    """Two intensities of one channel, and what they do.

    Attributes
    ----------
    low, high : float
        In the units of the volumes.
    cut : float or None
        Share of the labelled voxels outside of them; None without labels.
    collapsed : bool
        Whether both are one value, where the voxels have several.
    reason : str
    """

    low: float
    high: float
    cut: float | None
    collapsed: bool
    reason: str


def clip_bounds(fingerprint: Fingerprint, clip: Clip) -> list[ClipBounds]:
    """The bounds of each channel.

    Parameters
    ----------
    fingerprint : Fingerprint
        With statistics, of the training voxels.
    clip : 'auto' or (low, high)
        Two percentiles of all voxels that were measured, or the rule below.

    Returns
    -------
    list of ClipBounds

    Notes
    -----
    ``auto`` takes, on each side, the outermost of these:

    - the percentiles 0.5 and 99.5 of all voxels, and those of the labelled voxels, so that
      nothing of what is to be learnt is cut off;
    - 0.01 and 99.99 of either, where that tail is heavy: where it reaches farther beyond
      0.5 (99.5) than the two lie apart, as with bright spots in less than 0.5% of the
      voxels; and where more than half of all voxels have the smallest value, so that the
      signal of a channel that is mostly zero is not taken for outliers.

    Where all of these are one value, the range of the voxels is taken. nnU-Net clips CT to
    0.5 and 99.5 of the labelled voxels, and nothing else; biom3d to those of all.
    """
    channels = fingerprint.statistics("all")
    labelled: Sequence[Statistics] = fingerprint.pooled["voxel"].get("foreground", ())
    spread = fingerprint.labelled
    found = []
    for c, everywhere in enumerate(channels):
        inside = labelled[c] if labelled and labelled[c].count else None
        low, high, reason = bounds_of(everywhere, inside, clip)
        cut = spread[c].outside(low, high) if inside is not None else None
        collapsed = low == high and everywhere.minimum < everywhere.maximum
        found.append(ClipBounds(low, high, cut, collapsed, reason))
    return found


def bounds_of(
    everywhere: Statistics, labelled: Statistics | None, clip: Clip
) -> tuple[float, float, str]:
    """The bounds of one channel and how they came about, as `clip_bounds` has them."""
    if clip == "auto":
        return _auto(everywhere, labelled)
    low, high = (everywhere.percentile(q) if everywhere.count else 0.0 for q in clip)
    return low, high, f"percentiles {clip[0]:g} and {clip[1]:g} of all voxels, given"


def dark_share(fingerprint: Fingerprint) -> float:
    """Where the median lies between the inner percentiles: 0 at the lower, 1 at the upper one.

    Returns
    -------
    float
        The largest of the channels; under `DARK` most voxels of every channel are background,
        as in fluorescence. Tissue fills electron and X-ray images: there it is about a half.
    """
    shares = []
    for voxels in fingerprint.statistics("all"):
        if not voxels.count:
            return 1.0
        low, middle, high = (voxels.percentile(q) for q in (INNER[0], 50, INNER[1]))
        shares.append((middle - low) / (high - low) if high > low else 0.0)
    return max(shares)


def clip_table(fingerprint: Fingerprint) -> list[list[dict[str, object]]]:
    """What ``auto`` and pairs of the measured percentiles would cut, for each channel.

    Returns
    -------
    list of list of dict
        One list for each channel: ``clip`` (``auto``, or two percentiles), ``low``, ``high``,
        ``cut`` (share of the labelled voxels outside, None without labels) and ``reason``.
    """
    measured = sorted(float(q) for q in fingerprint.statistics("all")[0].percentiles)
    pairs = [(q, r) for q in measured if q < 50 for r in measured if abs(q + r - 100) < 1e-9]
    rules: list[Clip] = ["auto", *pairs]
    rows = [(rule, clip_bounds(fingerprint, rule)) for rule in rules]
    return [
        [
            {
                "clip": rule if isinstance(rule, str) else list(rule),
                "low": of[c].low, "high": of[c].high, "cut": of[c].cut, "reason": of[c].reason,
            }
            for rule, of in rows
        ]
        for c in range(fingerprint.n_channels)
    ]  # fmt: skip


def clip_findings(bounds: Sequence[ClipBounds]) -> list[Finding]:
    """Warnings of bounds that cut into the labelled voxels, or leave one value only."""
    findings = []
    for c, found in enumerate(bounds):
        between = f"channel {c}: clipping to {found.low:g} and {found.high:g}"
        if found.collapsed:
            findings.append(Finding("clip-collapses", f"{between} leaves one value"))
        elif found.cut is not None and found.cut > MOST_CUT:
            message = f"{between} cuts {found.cut:.1%} of the labelled voxels"
            findings.append(Finding("clip-cuts-labels", message))
    return findings


def _auto(everywhere: Statistics, labelled: Statistics | None) -> tuple[float, float, str]:
    if not everywhere.count:
        return 0.0, 0.0, "no voxel is finite"
    regions = {"all": everywhere} | ({} if labelled is None else {"labelled": labelled})
    sides: list[float] = []
    reasons: list[str] = []
    for side in (0, 1):
        ends = {}
        for name, voxels in regions.items():
            q = (OUTER if _is_heavy(voxels, side) else INNER)[side]
            ends[f"{q:g}% of {name} voxels"] = voxels.percentile(q)
        choose = (min, max)[side]
        reason = choose(ends, key=ends.__getitem__)
        sides.append(ends[reason])
        reasons.append(reason)
    low, high = sides
    if low == high:
        return everywhere.minimum, everywhere.maximum, "the range of all voxels"
    return low, high, " and ".join(reasons)


def _is_heavy(voxels: Statistics, side: int) -> bool:
    """Whether what lies beyond the inner percentile is farther away than the inner range."""
    inner = voxels.percentile(INNER[1]) - voxels.percentile(INNER[0])
    tail = abs(voxels.percentile(OUTER[side]) - voxels.percentile(INNER[side]))
    mostly_least = voxels.percentile(50) == voxels.minimum
    return tail > inner or (side == 1 and mostly_least)
