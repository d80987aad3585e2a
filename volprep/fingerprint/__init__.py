"""Facts about a data set: shapes, spacings, intensities, labels.

    found = compute_fingerprint([FingerprintInput("brain", open_image, open_label), ...])
    found.median_shape, found.statistics("foreground")[0].percentile(99.5)

Volumes are walked through in blocks. Names are loaded when they are first used, so
that `compute_median` waits for nothing that only measuring needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volprep.fingerprint.biom3d import data_fingerprint
    from volprep.fingerprint.clip import (
        DARK,
        ClipBounds,
        bounds_of,
        clip_bounds,
        clip_findings,
        clip_table,
        dark_share,
    )
    from volprep.fingerprint.draw import draw_histogram
    from volprep.fingerprint.facts import (
        PERCENTILES,
        CaseFacts,
        Distribution,
        Fingerprint,
        Histogram,
        LabelFacts,
        Region,
        Statistics,
        Weighting,
    )
    from volprep.fingerprint.labels import LabelCount
    from volprep.fingerprint.measure import compute_fingerprint
    from volprep.fingerprint.narrow import Counted, Counting, is_narrow
    from volprep.fingerprint.sample import SampledVolume, sampled
    from volprep.fingerprint.walk import FingerprintInput
    from volprep.headers import MixedShapesError, compute_median

_HOMES = {
    "volprep.fingerprint.biom3d": ["data_fingerprint"],
    "volprep.fingerprint.clip": [
        "DARK",
        "ClipBounds",
        "bounds_of",
        "clip_bounds",
        "clip_findings",
        "clip_table",
        "dark_share",
    ],
    "volprep.fingerprint.draw": ["draw_histogram"],
    "volprep.fingerprint.facts": [
        "PERCENTILES",
        "CaseFacts",
        "Distribution",
        "Fingerprint",
        "Histogram",
        "LabelFacts",
        "Region",
        "Statistics",
        "Weighting",
    ],
    "volprep.fingerprint.measure": ["compute_fingerprint"],
    "volprep.fingerprint.labels": ["LabelCount"],
    "volprep.fingerprint.narrow": ["Counted", "Counting", "is_narrow"],
    "volprep.fingerprint.sample": ["SampledVolume", "sampled"],
    "volprep.fingerprint.walk": ["FingerprintInput"],
    "volprep.headers": ["MixedShapesError", "compute_median"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DARK",
    "PERCENTILES",
    "CaseFacts",
    "ClipBounds",
    "Counted",
    "Counting",
    "Distribution",
    "Fingerprint",
    "FingerprintInput",
    "Histogram",
    "LabelCount",
    "LabelFacts",
    "MixedShapesError",
    "Region",
    "SampledVolume",
    "Statistics",
    "Weighting",
    "bounds_of",
    "clip_bounds",
    "clip_findings",
    "clip_table",
    "compute_fingerprint",
    "compute_median",
    "dark_share",
    "data_fingerprint",
    "draw_histogram",
    "is_narrow",
    "sampled",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'volprep.fingerprint' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
