"""SKOOTS: 8-bit volumes, instances, their skeletons, and its YAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.exports.exporter import (
    changes,
    common_losses,
    impossible,
    loses,
    no_mask,
    only_instances,
    renumbered,
    some,
)
from volprep.exports.files import (
    ExportFile,
    id_table,
    text_file,
    tiff_bytes,
    tiff_labels,
    yaml_file,
)
from volprep.exports.given import ExportCase, ExportSet
from volprep.exports.labels import Ids, ids_of
from volprep.findings import Finding
from volprep.geometry import Box, Spacing3
from volprep.skeletons import skeletonize_volume

__all__ = ["Skoots"]

Array = npt.NDArray[Any]
_IDS = Ids(("uint8", "uint16", "int32"))
#: Along each axis of what its network is given.
_SMALLEST = 8


@dataclass(frozen=True)
class Skoots:
    """``train/X.tif``, ``X.labels.tif`` and ``X.skeletons.trch``, the same in ``val``, a YAML.

    Notes
    -----
    SKOOTS calls the rows of a page X, so that pages need no transposition; points go out as
    [1, 2, 0] of (z, y, x). Its documents speak of ``.skeletons.tif``; its loader wants ``.trch``.
    """

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """8 bits, 3 channels, instances alone."""
        yield from common_losses(given)
        yield from renumbered(given, _IDS)
        yield from no_mask(given, "background there")
        yield from only_instances(given, "SKOOTS")
        if given.classes is not None:
            return
        if given.flat:
            yield impossible("SKOOTS trains on volumes, and these are 2D", "choose cellpose")
        elif min(given.patch_size) < _SMALLEST:
            yield impossible(
                "SKOOTS' network halves every axis three times, and the patch is "
                f"{' x '.join(map(str, given.patch_size))}",
                f"set plan.patch_size to {_SMALLEST} or more along each axis",
            )
        else:
            thin = [case.name for case in given.cases if min(case.shape) < _SMALLEST]
            if thin:
                yield impossible(
                    f"{some(thin)}: thinner than {_SMALLEST}, and SKOOTS' network halves every "
                    "axis three times",
                    "choose another target, or leave the case out",
                )
        if _scaled(given):
            yield loses(
                "SKOOTS reads 8 bits: intensities within the clipping bounds become 0 to 255",
                "give the same bounds to what is predicted on; they stand in the README",
            )
        if given.channels > 3:
            yield loses("SKOOTS takes three channels at most: the others are left out")
        elif given.channels == 2:
            yield changes("SKOOTS takes one channel or three: a third one is written, of zeros")
        empty = [c.name for c in given.cases if c.label is not None and not len(ids_of(c))]
        if empty:
            yield loses(f"{some(empty)}: no object, which SKOOTS refuses: left out")
        if given.unspaced:
            yield loses("no spacing is known, and SKOOTS wants its ratios: voxels count as cubes")
        yield changes("skeletons are made of each volume's own voxels")

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Volumes, skeletons, the YAML and a README."""
        bounds = _bounds(given) if _scaled(given) else None
        channels = 1 if given.channels == 1 else 3
        for case in given.cases:
            if not len(ids_of(case)):
                continue
            start = f"{case.side}/{case.name}"
            yield tiff_bytes(f"{start}.tif", case, channels, bounds)
            yield tiff_labels(f"{start}.labels.tif", case, _IDS)
            yield _skeletons(f"{start}.skeletons.trch", case)
            yield from id_table(f"{start}.ids.csv", case, _IDS)
        yield yaml_file("skoots.yaml", _config(given, channels), _COMMENT)
        low_high = "; ".join(f"{low:g} to {high:g}" for low, high in bounds or ())
        scale = f"Intensities are scaled: {low_high} became 0 to 255.\n" if bounds else ""
        yield text_file("README.md", _README.format(name=given.name, scale=scale))


def _scaled(given: ExportSet) -> bool:
    return any(np.dtype(case.image.dtype) != np.uint8 for case in given.cases)


def _bounds(given: ExportSet) -> list[tuple[float, float]]:
    """What becomes 0 and 255, for each channel: the clipping bounds, or 4 deviations around."""
    rule = given.training["normalisation"]
    if rule["clip"]:
        pairs = [(float(low), float(high)) for low, high in rule["clip"]]
    elif rule["kind"] in ("minmax", "percentile"):
        pairs = [(o, o + s) for o, s in zip(rule["offset"], rule["scale"], strict=True)]
    elif rule["offset"]:
        pairs = [(o - 4 * s, o + 4 * s) for o, s in zip(rule["offset"], rule["scale"], strict=True)]
    else:
        pairs = [_range(np.dtype(given.cases[0].image.dtype))]
    return pairs if len(pairs) > 1 else pairs * given.channels


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "f":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


class _Labels:
    """The labels of a case as they are written, as a volume of its own."""

    def __init__(self, case: ExportCase) -> None:
        self._case = case
        self.shape = (1, *case.shape)
        self.dtype = _IDS.dtype(case)
        self.spacing: Spacing3 | None = case.spacing

    def read(self, box: Box | None = None) -> Array:
        """(1, Z, Y, X) of a box."""
        where = (box or Box.whole(self.shape)).shift(self._case.box.start)
        return _IDS.read(self._case, where)[None]


def _skeletons(path: str, case: ExportCase) -> ExportFile:
    def write(to: Path) -> None:
        made = to.with_name(f"{to.name}.trch")
        skeletonize_volume(_Labels(case)).to_file(made)
        made.replace(to)

    return ExportFile(path, ["skeletons", *case.made_of, *_IDS.made_of, case.spacing], write)


def _config(given: ExportSet, channels: int) -> dict[str, Any]:
    """SKOOTS' YAML; its axes are (rows, columns, sections)."""
    z, y, x = given.patch_size
    spacing = given.spacing or (1.0, 1.0, 1.0)
    anisotropy = [s / min(spacing) for s in (spacing[1], spacing[2], spacing[0])]
    batch, steps = int(given.training["batch_size"]), int(given.training["steps_per_epoch"])
    held = ["val"] if given.of("val") else []

    def each(side: str) -> int:
        """How often a volume is drawn, so that an epoch has the planned steps."""
        count = sum(case.side == side and len(ids_of(case)) > 0 for case in given.cases)
        return max(1, steps * batch // max(1, count))

    return {
        "SYSTEM": {"NUM_GPUS": 1},
        "MODEL": {"IN_CHANNELS": channels},
        "TRAIN": {
            "DISTRIBUTED": False,
            "PRETRAINED_MODEL_PATH": [""],
            "TRAIN_DATA_DIR": ["train"],
            "TRAIN_SAMPLE_PER_IMAGE": [each("train")],
            "TRAIN_BATCH_SIZE": batch,
            "TRAIN_STORE_DATA_ON_GPU": [False],
            "VALIDATION_DATA_DIR": held,
            "VALIDATION_SAMPLE_PER_IMAGE": [max(1, each("val") // 5)] * len(held),
            "VALIDATION_BATCH_SIZE": batch if held else 0,
            "VALIDATION_STORE_DATA_ON_GPU": [False] * len(held),
            "SAVE_PATH": "models",
        },
        "AUGMENTATION": {
            "CROP_WIDTH": y,
            "CROP_HEIGHT": x,
            "CROP_DEPTH": z,
            "BAKE_SKELETON_ANISOTROPY": anisotropy,
        },
        "SKOOTS": {
            "ANISOTROPY": anisotropy,
            "VECTOR_SCALING": [max(1, round(60 / a)) for a in anisotropy],
        },
    }


_COMMENT = (
    "SKOOTS' configuration of a set that volprep prepared; folders are relative to this file."
)
_README = """# {name} for SKOOTS

    skoots-train --config-file skoots.yaml

in this folder, on an NVIDIA GPU (it starts by NCCL). {scale}Objects have the ids of the volume, and
skeletons those of `X.labels.tif`.
"""
