"""Augmentations of images, masks and points: drawn once, applied by kind.

Transforms only draw parameters; `Compose` moves every array of a sample through
one coordinate map, once, and then changes intensities in place.
"""

from volprep.augment.artefacts import CutBlur, CutNoise, MissingParts, MotionBlur
from volprep.augment.catalogue import TRANSFORMS, compose_from_config, transforms_from_config
from volprep.augment.compose import Compose
from volprep.augment.intensity import (
    BrightnessContrast,
    ChannelDropout,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Invert,
    LowResolution,
    PoissonNoise,
)
from volprep.augment.margins import required_shape, spatial_ranges
from volprep.augment.objects import CopyPaste, Mixup
from volprep.augment.presets import (
    MODALITIES,
    PRESETS,
    Preset,
    choose_preset,
    needs_histogram,
)
from volprep.augment.scale import Scale, measure_scale
from volprep.augment.smoothing import smooth_labels
from volprep.augment.spatial import (
    Elastic,
    Flip,
    MisAlignment,
    MissingSection,
    Rescale,
    Rotate,
)
from volprep.augment.transform import Drawn, Transform

__all__ = [
    "MODALITIES",
    "PRESETS",
    "TRANSFORMS",
    "BrightnessContrast",
    "ChannelDropout",
    "Compose",
    "CopyPaste",
    "CutBlur",
    "CutNoise",
    "Drawn",
    "Elastic",
    "Flip",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "Invert",
    "LowResolution",
    "MisAlignment",
    "MissingParts",
    "MissingSection",
    "Mixup",
    "MotionBlur",
    "PoissonNoise",
    "Preset",
    "Rescale",
    "Rotate",
    "Scale",
    "Transform",
    "choose_preset",
    "compose_from_config",
    "measure_scale",
    "needs_histogram",
    "required_shape",
    "smooth_labels",
    "spatial_ranges",
    "transforms_from_config",
]
