"""Facts about a data set: shapes, spacings, intensities, labels.

    found = compute_fingerprint([FingerprintInput("brain", open_image, open_label), ...])
    found.median_shape, found.statistics("foreground")[0].percentile(99.5)

Volumes are walked through in blocks; importing this loads no compiler.
"""

from __future__ import annotations

from volprep.fingerprint.biom3d import data_fingerprint
from volprep.fingerprint.draw import draw_histogram
from volprep.fingerprint.facts import (
    PERCENTILES,
    CaseFacts,
    Fingerprint,
    Histogram,
    LabelFacts,
    Region,
    Statistics,
    Weighting,
)
from volprep.fingerprint.measure import compute_fingerprint
from volprep.fingerprint.walk import FingerprintInput
from volprep.headers import MixedShapesError, compute_median

__all__ = [
    "PERCENTILES",
    "CaseFacts",
    "Fingerprint",
    "FingerprintInput",
    "Histogram",
    "LabelFacts",
    "MixedShapesError",
    "Region",
    "Statistics",
    "Weighting",
    "compute_fingerprint",
    "compute_median",
    "data_fingerprint",
    "draw_histogram",
]
