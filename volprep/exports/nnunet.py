"""nnU-Net 2: raw data with one file a channel, classes in order, the split, and our plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from volprep.exports.exporter import changes, common_losses, loses
from volprep.exports.files import ExportFile, json_file, text_file, tiff_image, tiff_labels
from volprep.exports.given import ExportCase, ExportSet
from volprep.exports.labels import BorderCore, Classes, LabelForm
from volprep.findings import Finding

__all__ = ["FOLDER", "NnUNet"]

#: What nnU-Net calls the folder of a data set, by which it knows it.
FOLDER = re.compile(r"Dataset(\d{3})_[A-Za-z0-9_-]+")
PLANS = "volprepPlans"
#: What is written where none is known.
_NO_SPACING = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class NnUNet:
    """The folder of a data set in ``nnUNet_raw``.

    Parameters
    ----------
    plans : bool
        Whether our plan is written in nnU-Net's form, too.
    instances : {'class', 'border-core'}
        What becomes of instances: one class, or their cores and borders as two.

    Notes
    -----
    nnU-Net reads the spacing of a TIFF from ``CASE.json`` beside it (`Tiff3DIO`), and 2D
    pictures without any (`NaturalImage2DIO`). It takes `splits_final.json` from the raw folder.
    """

    plans: bool = False
    instances: Literal["class", "border-core"] = "class"

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """Instances, spacing of pictures, classes without a background."""
        yield from common_losses(given)
        if given.classes is None and self.instances == "class":
            yield loses(
                "nnU-Net knows no instances: every id becomes class 1, and those that touch one",
                "add --border-core for cores and borders as two classes",
            )
        elif given.classes is None:
            yield loses(
                "nnU-Net knows no instances: they become their core (class 1) and its border of "
                "one voxel (class 2)",
                "number the cores to have instances back",
            )
        elif 0 not in given.classes:
            yield changes("there is no background, which nnU-Net wants: class 0 has no voxel")
        if given.masked:
            yield changes("what is not annotated becomes nnU-Net's label ignore")
        if given.flat and given.spacing is not None:
            yield loses("nnU-Net reads no spacing of 2D pictures, and takes 1 for it")
        elif given.unspaced and not given.flat:
            yield loses("no spacing is known, and nnU-Net wants one: 1, 1, 1 is written")
        if not self.plans:
            yield loses(
                "nnU-Net plans for itself: spacing, patch, batch and normalisation will be its own",
                "add --plans to hand over ours",
            )

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Images, labels, spacings, the descriptions and a README."""
        form = self._form(given)
        for case in given.cases:
            yield from _case(case, given, form)
        yield json_file("dataset.json", self._dataset(given))
        if given.of("val"):
            fold = {side: [case.name for case in given.of(side)] for side in ("train", "val")}
            yield json_file("splits_final.json", [fold])
        if self.plans:
            yield json_file(f"{PLANS}.json", _plans(given))
        yield text_file("README.md", _readme(given, plans=self.plans))

    def _form(self, given: ExportSet) -> LabelForm:
        ignore = self._labels(given).get("ignore")
        if given.classes is not None:
            return Classes(tuple(given.classes), int(0 not in given.classes), ignore)
        if self.instances == "border-core":
            return BorderCore(given.anisotropic, ignore)
        return Classes(None, 0, ignore)

    def _labels(self, given: ExportSet) -> dict[str, int]:
        """Numbers of the classes by name: background is 0, and ``ignore`` the last."""
        if given.classes is None:
            objects = ["core", "border"] if self.instances == "border-core" else ["object"]
        else:
            objects = given.class_names[1 if 0 in given.classes else 0 :]
        labels = {"background": 0}
        for number, name in enumerate(objects, start=1):
            labels[name if name not in (*labels, "ignore") else f"{name} {number}"] = number
        if given.masked:
            labels["ignore"] = len(labels)
        return labels

    def _dataset(self, given: ExportSet) -> dict[str, Any]:
        return {
            # A name that nnU-Net does not know takes its z-score; ours stand in the plans.
            "channel_names": {str(c): f"channel {c}" for c in range(given.channels)},
            "labels": self._labels(given),
            "numTraining": len(given.cases),
            "file_ending": ".tif",
            "overwrite_image_reader_writer": _reader(given),
        }


def _reader(given: ExportSet) -> str:
    return "NaturalImage2DIO" if given.flat else "Tiff3DIO"


def _case(case: ExportCase, given: ExportSet, form: LabelForm) -> Iterator[ExportFile]:
    spacing = {"spacing": list(case.spacing or _NO_SPACING)}
    for c in range(case.image.shape[0]):
        yield tiff_image(f"imagesTr/{case.name}_{c:04}.tif", case, [c], squeeze=given.flat)
    yield tiff_labels(f"labelsTr/{case.name}.tif", case, form, squeeze=given.flat)
    if not given.flat:
        yield json_file(f"imagesTr/{case.name}.json", spacing)
        yield json_file(f"labelsTr/{case.name}.json", spacing)


def _plans(given: ExportSet) -> dict[str, Any]:
    """Our plan as nnU-Net's planner would have written it."""
    spacing = [999.0, 1.0, 1.0] if given.flat else list(given.spacing or _NO_SPACING)
    return {
        "dataset_name": given.name,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(given.median_shape),
        "image_reader_writer": _reader(given),
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {_configuration(given): _configured(given, spacing)},
        "experiment_planner_used": "volprep",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): _intensities(given, c) for c in range(given.channels)
        },
    }


def _configuration(given: ExportSet) -> str:
    return "2d" if given.planar else "3d_fullres"


def _configured(given: ExportSet, spacing: list[float]) -> dict[str, Any]:
    training, first = given.training, int(given.planar)
    none = training["normalisation"]["kind"] == "none" and not training["normalisation"]["clip"]
    each = bool(training["case_normalisation"])
    scheme = "NoNormalization" if none else "ZScoreNormalization" if each else "CTNormalization"
    resampling = {
        "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
    }  # fmt: skip
    return {
        "data_identifier": f"{PLANS}_{_configuration(given)}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": training["batch_size"],
        "patch_size": list(given.patch_size[first:]),
        "median_image_size_in_voxels": [float(n) for n in given.median_shape[first:]],
        "spacing": spacing[first:],
        "normalization_schemes": [scheme] * given.channels,
        "use_mask_for_norm": [False] * given.channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": _architecture(given, 3 - first),
        "batch_dice": bool((training["loss"] or {}).get("batch_dice", given.planar)),
    }


def _architecture(given: ExportSet, dims: int) -> dict[str, Any]:
    training, first = given.training, 3 - dims
    stages = len(training["strides"])
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(training["features"]),
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [list(k[first:]) for k in training["kernel_sizes"]],
            "strides": [list(s[first:]) for s in training["strides"]],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _intensities(given: ExportSet, channel: int) -> dict[str, float]:
    """Such that nnU-Net's CTNormalization (clip, subtract mean, divide by std) is our rule."""
    rule = given.training["normalisation"]

    def of(values: Any, default: Any) -> Any:
        return default if not values else values[channel if len(values) > 1 else 0]

    mean, std = of(rule["offset"], 0.0), of(rule["scale"], 1.0)
    low, high = of(rule["clip"], (-3.0e38, 3.0e38))
    return {
        "mean": mean, "median": mean, "std": std, "min": low, "max": high,
        "percentile_00_5": low, "percentile_99_5": high,
    }  # fmt: skip


def _readme(given: ExportSet, *, plans: bool) -> str:
    match = FOLDER.fullmatch(given.name)
    number = int(match[1]) if match else 1
    fold = "0" if given.of("val") else "all"
    name = _configuration(given)
    if plans:
        # nnU-Net copies these two itself only where it plans itself.
        files = f"{PLANS},dataset" + (",splits_final" if given.of("val") else "")
        steps = f"""nnUNetv2_extract_fingerprint -d {number} --verify_dataset_integrity
    cp "$nnUNet_raw/{given.name}"/{{{files}}}.json "$nnUNet_preprocessed/{given.name}/"
    nnUNetv2_preprocess -d {number} -plans_name {PLANS} -c {name}
    nnUNetv2_train {number} {name} {fold} -p {PLANS}"""
    else:
        steps = f"""nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity
    nnUNetv2_train {number} {name} {fold}"""
    return f"""# {given.name} for nnU-Net

With the environment variables that nnU-Net wants, of which `nnUNet_raw` is the folder that this one
lies in:

    {steps}

Without a GPU the last one wants `-device cpu`, too.

Images are `imagesTr/CASE_CHANNEL.tif` (z, y, x), their spacing stands in `CASE.json` (z, y, x, in
µm). `splits_final.json` is volprep's split, which nnU-Net takes as fold 0.
"""
