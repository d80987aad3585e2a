"""PyTorch Connectomics: HDF5 files, the YAML of version 1 and that of the present one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from volprep.exports.exporter import (
    changes,
    common_losses,
    impossible,
    loses,
    masks_note,
    renumbered,
)
from volprep.exports.files import (
    ExportFile,
    hdf5_image,
    hdf5_labels,
    id_table,
    text_file,
    yaml_file,
)
from volprep.exports.given import ExportCase, ExportSet
from volprep.exports.labels import Classes, Ids, LabelForm, Valid
from volprep.findings import Finding

__all__ = ["Connectomics"]

#: Version 1 makes float32 of labels, in which ids up to 2^24 stay exact.
_IDS = Ids(("uint8", "uint16", "uint32"), highest=2**24)


@dataclass(frozen=True)
class Connectomics:
    """``images/NAME.h5``, ``labels/NAME.h5``, ``masks/NAME.h5`` (``main``), two YAML files."""

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """What the two versions do to intensities and spacing."""
        yield from common_losses(given)
        if given.classes is None:
            yield from renumbered(given, _IDS)
        elif 0 not in given.classes:
            yield changes(f"classes count from 0, which is {given.class_names[0]}")
        if 1 in given.patch_size:
            yield impossible(
                "PyTorch Connectomics is set up for volumes here, and patches are 2D",
                "choose nnunet, monai or cellpose",
            )
        yield loses(
            "PyTorch Connectomics normalises each volume for itself",
            "have it normalised before, or see whether that will do",
        )
        if given.channels > 1:
            yield loses("version 1 takes one channel, so that no v1.yaml is written")
        elif any(np.dtype(case.image.dtype) != np.uint8 for case in given.cases):
            yield loses(
                "version 1 reads 8 bits: it scales each volume from its own minimum and maximum"
            )

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Volumes, tables, the two configs and a README."""
        form: LabelForm = _IDS if given.classes is None else Classes(tuple(given.classes))
        for case in given.cases:
            yield hdf5_image(f"images/{case.name}.h5", case)
            yield hdf5_labels(f"labels/{case.name}.h5", case, form)
            if given.masked:
                yield hdf5_labels(f"masks/{case.name}.h5", case, Valid())
            if isinstance(form, Ids):
                yield from id_table(f"labels/{case.name}.ids.csv", case, form)
        yield yaml_file("connectomics.yaml", _present(given), "PyTorch Connectomics 2 and later")
        first = given.channels == 1
        if first:
            yield yaml_file("v1.yaml", _first(given), "PyTorch Connectomics 1")
        more = _README_FIRST if first else ""
        if first and given.masked and given.classes is not None:
            more += _README_MASKS
        yield text_file(
            "README.md", _README.format(name=given.name, first=more, masks=masks_note(given))
        )


def _paths(given: ExportSet, folder: str, cases: list[ExportCase]) -> list[str]:
    return [f"{folder}/{case.name}.h5" for case in cases]


def _present(given: ExportSet) -> dict[str, Any]:
    training, size = given.training, list(given.patch_size)
    nanometres = None if given.spacing is None else [1000 * s for s in given.spacing]

    def side(cases: list[ExportCase]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "image": _paths(given, "images", cases),
            "label": _paths(given, "labels", cases),
        }
        if given.masked:
            found["mask"] = _paths(given, "masks", cases)
        return {**found, "resolution": nanometres}

    outputs = 1 if given.classes is None else len(given.classes)
    held = {"val": side(given.of("val"))} if given.of("val") else {}
    return {
        "experiment_name": given.name,
        "save_path": "outputs",
        "default": {
            "model": {
                "arch": {"type": "monai_unet"},
                "in_channels": given.channels,
                "out_channels": outputs,
                "input_size": size,
                "output_size": size,
                "monai": {
                    "filters": list(training["features"])[: _stages(given)],
                    "num_res_units": 1,
                    "kernel_size": 3,
                    "dropout": 0.0,
                },
                "loss": {"losses": [_loss(given, outputs)]},
            },
            "data": {
                "train": side(given.of("train")),
                **held,
                "dataloader": {"batch_size": training["batch_size"], "patch_size": size},
                "label_transform": {
                    "targets": [{"name": "binary"}] if given.classes is None else [],
                    "normalize": False,
                },
            },
        },
        "train": {
            "optimization": {
                "max_epochs": 100,
                "n_steps_per_epoch": training["steps_per_epoch"],
                "precision": "16-mixed" if training["precision"] == "mixed" else "32",
                "optimizer": {"name": "AdamW", "lr": 1e-3},
            },
            "system": {"num_gpus": 1, "num_workers": 2, "seed": training["seed"]},
        },
    }


def _loss(given: ExportSet, outputs: int) -> dict[str, Any]:
    """Soft Dice of one class, or cross-entropy of several."""
    slices = {"weight": 1.0, "pred_slice": f"0:{outputs}", "target_slice": "0:1"}
    if given.classes is None:
        return {"function": "DiceLoss", **slices, "kwargs": {"sigmoid": True}}
    return {"function": "CrossEntropyLoss", **slices}


def _stages(given: ExportSet) -> int:
    """Of its U-Net, which halves every axis alike: as many as the patch can be halved."""
    stages = 1
    while stages < 5 and all(n % 2**stages == 0 for n in given.patch_size):
        stages += 1
    return min(stages, len(given.training["features"]))


def _first(given: ExportSet) -> dict[str, Any]:
    training, size = given.training, list(given.patch_size)
    train, val = given.of("train"), given.of("val")
    outputs = 1 if given.classes is None else len(given.classes)

    def joined(folder: str, cases: list[ExportCase]) -> str:
        return "@".join(_paths(given, folder, cases))

    names = {"IMAGE_NAME": joined("images", train), "LABEL_NAME": joined("labels", train)}
    if given.masked:
        names["VALID_MASK_NAME"] = joined("masks", train)
    if val:
        names["VAL_IMAGE_NAME"] = joined("images", val)
        names["VAL_LABEL_NAME"] = joined("labels", val)
        if given.masked:
            names["VAL_VALID_MASK_NAME"] = joined("masks", val)
    if given.classes is None:
        losses, weights = ["WeightedBCEWithLogitsLoss", "DiceLoss"], ["1", "0"]
        active = ["none", "sigmoid"]
    else:
        losses, weights, active = ["WeightedCE"], ["0"], ["none"]
    # All of these turn sections, which patches that are not square do not survive.
    off: dict[str, Any] = {name: {"ENABLED": False} for name in ("ROTATE", "FLIP")}
    off["MISALIGNMENT"] = {"ROTATE_RATIO": 0.0}
    turned = {} if size[1] == size[2] else {"AUGMENTOR": off}
    return {
        "SYSTEM": {"NUM_GPUS": 1, "NUM_CPUS": 4},
        **turned,
        "MODEL": {
            "ARCHITECTURE": "unet_3d",
            "INPUT_SIZE": size,
            "OUTPUT_SIZE": size,
            "IN_PLANES": 1,
            "OUT_PLANES": outputs,
            "ISOTROPY": [not given.anisotropic] * 5,
            "TARGET_OPT": ["0"] if given.classes is None else [f"9-{outputs}"],
            "LOSS_OPTION": [losses],
            "LOSS_WEIGHT": [[1.0] * len(losses)],
            "WEIGHT_OPT": [weights],
            "OUTPUT_ACT": [active],
        },
        "DATASET": {
            "INPUT_PATH": "./",
            "OUTPUT_PATH": "outputs/",
            **names,
            "IS_ISOTROPIC": not given.anisotropic,
            # Small numbers for ids, which it makes float32 of; classes would be shifted by it.
            "REDUCE_LABEL": given.classes is None,
            # It drops volumes that are smaller than what it draws, without an error.
            "PAD_SIZE": _padding(train, _drawn(size)),
            "VAL_PAD_SIZE": _padding(val, size),
            "PAD_MODE": "reflect",
        },
        "SOLVER": {
            "SAMPLES_PER_BATCH": training["batch_size"],
            "ITERATION_TOTAL": 100 * training["steps_per_epoch"],
        },
    }


def _drawn(size: list[int]) -> list[int]:
    """What version 1 draws for a patch, as its own augmentations are on."""
    z, y, x = size
    return [z + 2, math.ceil(1.25 * y) + 50, math.ceil(1.25 * x) + 50]


def _padding(cases: list[ExportCase], wanted: list[int]) -> list[int]:
    """What is added on both sides so that every volume is as long as wanted."""
    shapes = [case.shape for case in cases] or [(1, 1, 1)]
    return [
        max(0, math.ceil((n - min(sizes)) / 2))
        for n, sizes in zip(wanted, zip(*shapes, strict=True), strict=True)
    ]


_README = """# {name} for PyTorch Connectomics

    python PATH_TO_PYTORCH_CONNECTOMICS/scripts/main.py --config connectomics.yaml

in this folder, for version 2 and later, installed from its repository.{first}

Volumes are the dataset `main` of HDF5 files: (z, y, x), images with channels (c, z, y, x).{masks}
"""
_README_FIRST = """ For version 1 (v1.0.0)

    python PATH_TO_PYTORCH_CONNECTOMICS/scripts/main.py --config-file v1.yaml

whose augmentations draw more than the patch: volumes are continued with their mirror images as
`v1.yaml` says, since it leaves smaller ones out without a word."""

_README_MASKS = """

Its cross-entropy multiplies the losses of a batch with the masks of all its patches: where `masks/`
has zeros, train with `SOLVER.SAMPLES_PER_BATCH 1`, or with version 2."""
