"""What happens to a case between its files and its patches: crop, resample, normalise.

Images and labels are resampled once, in their own data type, and stored so; clipping
and normalising are decided here as plain numbers and applied when a patch is read.
"""

from volprep.preprocess.case import (
    CaseLayout,
    Header,
    NonzeroBox,
    Preprocessing,
    case_layout,
    nonzero_box,
    preprocess_case,
    volume_ids,
)
from volprep.preprocess.grid import resampled_shape, separate_axis
from volprep.preprocess.normalise import Normalisation, NormalisationKind
from volprep.preprocess.resample import label_ids, lost_ids, resample_image, resample_labels
from volprep.preprocess.volume import CroppedVolume, ResampledVolume

__all__ = [
    "CaseLayout",
    "CroppedVolume",
    "Header",
    "NonzeroBox",
    "Normalisation",
    "NormalisationKind",
    "Preprocessing",
    "ResampledVolume",
    "case_layout",
    "label_ids",
    "lost_ids",
    "nonzero_box",
    "preprocess_case",
    "resample_image",
    "resample_labels",
    "resampled_shape",
    "separate_axis",
    "volume_ids",
]
