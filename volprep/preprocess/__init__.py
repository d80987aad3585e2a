"""What happens to a case between its files and its patches: crop, resample, normalise.

Images and labels are resampled once, in their own data type, and stored so; clipping
and normalising are decided here as plain numbers and applied when a patch is read.
"""

from volprep.preprocess.case import (
    CaseLayout,
    CroppedVolume,
    PreparedCase,
    Preprocessing,
    case_key,
    case_layout,
    nonzero_box,
    preprocess_case,
)
from volprep.preprocess.normalise import Normalisation
from volprep.preprocess.resample import (
    ResampledVolume,
    label_ids,
    lost_ids,
    resample_image,
    resample_labels,
    resampled_shape,
    separate_axis,
    target_spacing,
)

__all__ = [
    "CaseLayout",
    "CroppedVolume",
    "Normalisation",
    "PreparedCase",
    "Preprocessing",
    "ResampledVolume",
    "case_key",
    "case_layout",
    "label_ids",
    "lost_ids",
    "nonzero_box",
    "preprocess_case",
    "resample_image",
    "resample_labels",
    "resampled_shape",
    "separate_axis",
    "target_spacing",
]
