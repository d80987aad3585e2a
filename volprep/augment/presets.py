"""Augmentation lists that fit a kind of data, and which kind some data is.

A list is what a config may hold: `augment: auto` becomes one of these, and stands
in the plan and in train.yaml as if it had been written there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from volprep.geometry import Spacing3

__all__ = ["MODALITIES", "PRESETS", "Preset", "choose_preset", "needs_histogram"]

Modality = Literal["em", "fluorescence", "ct"]
Name = Literal["em", "fluorescence", "ct", "2d"]
Sections = list[dict[str, dict[str, Any]]]

#: What `data.modality` may say.
MODALITIES: tuple[Modality, ...] = ("em", "fluorescence", "ct")

#: Light does not resolve voxels finer than this, in µm, and a microscope shows nothing as coarse.
FINEST_OF_LIGHT, COARSEST_OF_MICROSCOPES = 0.03, 100.0
#: From here on in µm voxels are those of light.
SURELY_LIGHT = 0.1
#: Grey tissue has its median about the middle of the range, bright signal on dark below this part.
GREY = 0.4
#: Above this ratio of spacings sections are cut or scanned one by one; below the other all
#: axes are alike.
SECTIONED, ISOTROPIC = 3.0, 1.2


@dataclass(frozen=True)
class Preset:
    """A list of augmentations and why it was chosen.

    Attributes
    ----------
    name : {'em', 'fluorescence', 'ct', '2d'}
    augment : list of dict
        Sections as a config has them, such as ``{"flip": {"p": 1.0}}``.
    reason : str
        What spoke for it.
    """

    name: Name
    augment: Sections
    reason: str


def choose_preset(
    *,
    shape: Sequence[int],
    spacing: Spacing3 | None = None,
    dtype: npt.DTypeLike = "uint8",
    histogram: Sequence[float] | None = None,
    modality: Modality | None = None,
) -> Preset:
    """The augmentations that fit some data.

    Parameters
    ----------
    shape : sequence of int
        (C, Z, Y, X) of a typical image.
    spacing : tuple of float or None
        (Z, Y, X) in micrometres.
    dtype : dtype
        Of the images.
    histogram : sequence of three floats, optional
        The 1st, 50th and 99th percentile of some voxels of the first channel. Looked
        at where nothing else decides; see `needs_histogram`.
    modality : {'em', 'fluorescence', 'ct'}, optional
        What the user says; 2D images have the preset ``2d`` all the same.

    Returns
    -------
    Preset
    """
    name, reason = _kind(shape, spacing, dtype, histogram, modality)
    ratio = 1.0 if spacing is None else max(spacing) / min(spacing)
    isotropic = spacing is not None and ratio <= ISOTROPIC
    if name == "em" and spacing is not None and ratio < SECTIONED:
        reason += "; no section artefacts, since the axes are sampled alike"
        chosen = _volume_em(isotropic)
    else:
        chosen = PRESETS[name](isotropic)
    # Planes across y or x of sections: rows are farther apart than columns.
    if spacing is not None and max(spacing[1:]) > ISOTROPIC * min(spacing[1:]):
        chosen = _without_swaps(chosen)
        reason += "; y and x are never swapped, since they are sampled otherwise"
    return Preset(name, chosen, reason)


def needs_histogram(
    *, shape: Sequence[int], spacing: Spacing3 | None = None, modality: Modality | None = None
) -> bool:
    """Whether `choose_preset` would look at a histogram; else no voxel need be read."""
    without = _kind(shape, spacing, "uint8", None, modality)[1]
    return without == _UNTOLD


_UNTOLD = "neither spacing nor grey values tell"


def _kind(
    shape: Sequence[int],
    spacing: Spacing3 | None,
    dtype: npt.DTypeLike,
    histogram: Sequence[float] | None,
    modality: Modality | None,
) -> tuple[Name, str]:
    if shape[1] == 1:
        return "2d", "the images are 2D"
    if modality is not None:
        return modality, f"data.modality is {modality}"
    finest = None if spacing is None else min(spacing[1:])
    if finest is not None and finest <= FINEST_OF_LIGHT:
        return "em", f"voxels of {1000 * finest:g} nm are finer than light resolves"
    if finest is not None and finest >= COARSEST_OF_MICROSCOPES:
        return "ct", f"voxels of {finest / 1000:g} mm are those of a scanner"
    if shape[0] > 1:
        return "fluorescence", f"the images have {shape[0]} channels"
    if finest is not None and finest >= SURELY_LIGHT:
        return "fluorescence", f"voxels of {finest:g} µm are those of a light microscope"
    if histogram is None:
        return "fluorescence", _UNTOLD
    low, middle, high = histogram
    if np.dtype(dtype).kind in "if" and low < -100 and high > 100:
        return "ct", f"values from {low:g} to {high:g} in {np.dtype(dtype)} look like Hounsfield's"
    share = (middle - low) / (high - low) if high > low else 0.0
    where = f"the median lies at {share:.0%} of the range of grey values"
    return ("em", f"{where}, as in tissue") if share >= GREY else ("fluorescence", f"{where}: dark")


def _without_swaps(sections: Sections) -> Sections:
    """The list without what makes rows of columns: quarter turns and transposition."""
    kept: Sections = []
    for section in sections:
        if "flip" in section:
            kept.append({"flip": {**section["flip"], "transpose": False}})
        elif not section.get("rotate", {}).get("rot90"):
            kept.append(section)
    return kept


def _em(isotropic: bool) -> Sections:
    """PyTorch Connectomics' defaults, each at about a third of its probability.

    There nearly every sample is bent, and half of them lose sections; nnU-Net's default trainer
    has 0.1 to 0.3 for everything but flips, and that trains better here (scripts/bench_training.py,
    set 05). Other deviations: one section of a stack is missing or blurred at a time; no cut-blur,
    cut-noise and rescaling, which are for one kind of damage each; flips and quarter turns are
    separate there too.
    """
    return [
        {"flip": {"p": 1.0}},
        {"rotate": {"p": 1.0, "rot90": True}},
        {"elastic": {"p": 0.3, "alpha": 16.0, "sigma": 4.0}},
        {"misalignment": {"p": 0.15, "displacement": 16, "rotate_ratio": 0.5}},
        {"missing_section": {"p": 0.15, "num_sections": 1}},
        {"missing_parts": {"p": 0.1, "iterations": 64}},
        {"motion_blur": {"p": 0.15, "sections": 1, "kernel_size": 11}},
        {"grayscale": {"p": 0.3}},
    ]


def _volume_em(isotropic: bool) -> Sections:
    """The same without what single sections suffer, for block-face imaging."""
    return [
        {"flip": {"p": 1.0, "do_ztrans": int(isotropic)}},
        {"rotate": {"p": 1.0, "rot90": True}},
        {"elastic": {"p": 0.3, "alpha": 16.0, "sigma": 4.0, "axes": "zyx"}},
        {"gaussian_blur": {"p": 0.2, "sigma": [0.5, 1.0]}},
        {"grayscale": {"p": 0.3, "mode": "3D"}},
    ]


def _nnunet(axes: str, angle: float, flip: dict[str, Any]) -> Sections:
    """nnU-Net's defaults, whose flips come last, so that they swap axes of the patch alone.

    Deviations: magnification from 0.85 to 1.25 (there 0.7 to 1.4), since stored patches grow
    by its inverse on every axis; brightness and contrast in one transform; brightness turns about
    the dark end, noise is measured by the patch without its outliers; gamma without the inverted
    form, and beyond the ends of the range straight.
    """
    return [
        {"rotate": {"p": 0.2, "rot90": False, "max_angle": angle}},
        {"rescale": {"p": 0.2, "low": 0.85, "high": 1.25, "axes": axes}},
        {"flip": flip},
        {"gaussian_noise": {"p": 0.1, "sigma": [0.0, 0.07]}},
        {"gaussian_blur": {"p": 0.2, "sigma": [0.5, 1.0]}},
        {"brightness_contrast": {"p": 0.28, "brightness": 0.25, "contrast": 0.25}},
        {"low_resolution": {"p": 0.25, "scale": [0.5, 1.0]}},
        {"gamma": {"p": 0.3, "gamma": [0.7, 1.5]}},
    ]


def _fluorescence(isotropic: bool) -> Sections:
    """nnU-Net's, turned by any angle in the plane, since cells have no up and down."""
    flip = {"p": 1.0, "do_ztrans": int(isotropic)}
    return _nnunet("zyx" if isotropic else "yx", 180.0, flip)


def _ct(isotropic: bool) -> Sections:
    """nnU-Net's: mirrored but never transposed, turned by 30 degrees in the plane.

    Deviation: no tilt, which multiplies what is stored.
    """
    return _nnunet("zyx" if isotropic else "yx", 30.0, {"p": 1.0, "transpose": False})


def _flat(isotropic: bool) -> Sections:
    """nnU-Net's for 2D: any angle; nothing of sections."""
    return _nnunet("yx", 180.0, {"p": 1.0, "axes": "yx"})


#: The presets by name, given whether voxels are about as long on every axis.
PRESETS = {"em": _em, "fluorescence": _fluorescence, "ct": _ct, "2d": _flat}
