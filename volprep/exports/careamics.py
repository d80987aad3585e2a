"""CAREamics: the images of both sides, and its YAML for Noise2Void."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from volprep.exports.exporter import changes, common_losses, impossible, loses, some, template
from volprep.exports.files import ExportFile, text_file, tiff_image, yaml_file
from volprep.exports.given import ExportSet
from volprep.findings import Finding

__all__ = ["Careamics"]

#: Along each axis of a patch.
_SMALLEST = 8


@dataclass(frozen=True)
class Careamics:
    """``train/NAME.tif``, ``val/NAME.tif``, ``careamics.yaml`` and a script.

    Notes
    -----
    CAREamics restores images and knows no labels. Its patches are square in (y, x) and powers of
    two.
    """

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """No labels, no spacing, another patch, another normalisation."""
        yield from common_losses(given, needs_labels=False)
        if any(case.label is not None for case in given.cases):
            yield loses("CAREamics restores images: labels are not handed over")
        if given.spacing is not None:
            yield loses("CAREamics knows no spacing")
        first = int(given.flat)
        thin = [case.name for case in given.cases if min(case.shape[first:]) < _SMALLEST]
        if thin:
            yield impossible(
                f"{some(thin)}: thinner than {_SMALLEST}, CAREamics' smallest patch",
                "choose another target, or leave the case out",
            )
        if _patch(given) != list(given.patch_size[int(given.flat) :]):
            yield loses(
                f"CAREamics' patches are square in (y, x) and powers of 2: {_patch(given)} it is"
            )
        if given.training["normalisation"]["clip"]:
            yield loses("CAREamics does not clip: what it subtracts and divides by is ours")
        if not given.training["normalisation"]["offset"]:
            yield loses("CAREamics subtracts means and divides by deviations that it measures")
        yield changes("the algorithm is Noise2Void, which learns from the images alone")

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Images, the YAML, the script and a README."""
        for case in given.cases:
            yield tiff_image(f"{case.side}/{case.name}.tif", case, squeeze=given.flat)
        yield yaml_file("careamics.yaml", _config(given), "CAREamics' configuration, of volprep")
        yield text_file("train.py", template("careamics_train.py"))
        yield text_file("README.md", _README.format(name=given.name))


def _patch(given: ExportSet) -> list[int]:
    """The largest patch of its kind within ours and within every volume."""
    shapes = [given.patch_size, *(case.shape for case in given.cases)]
    z, y, x = (1 << (min(sizes).bit_length() - 1) for sizes in zip(*shapes, strict=True))
    side = max(_SMALLEST, min(y, x))
    return [side, side] if given.flat else [max(_SMALLEST, z), side, side]


def _config(given: ExportSet) -> dict[str, Any]:
    training, rule = given.training, given.training["normalisation"]
    dims = 2 if given.flat else 3
    axes = ("YX" if given.flat else "ZYX") if given.channels == 1 else (
        "CYX" if given.flat else "ZCYX"
    )  # fmt: skip
    # Whatever ours are made from: it subtracts the ones, and divides by the others.
    each = given.channels if len(rule["offset"]) == 1 else 1
    moments = {"input_means": list(rule["offset"]) * each, "input_stds": list(rule["scale"]) * each}
    if not rule["offset"]:
        moments = {}
    return {
        "version": "0.3.0",
        "experiment_name": given.name.replace(".", "_"),
        "algorithm_config": {
            "algorithm": "n2v",
            "loss": "n2v",
            "model": {
                "architecture": "UNet",
                "conv_dims": dims,
                "in_channels": given.channels,
                "num_classes": given.channels,
                "independent_channels": True,
            },
        },
        "data_config": {
            "mode": "training",
            "data_type": "tiff",
            "axes": axes,
            "patching": {"name": "stratified", "patch_size": _patch(given)},
            "batch_size": training["batch_size"],
            "normalization": {"name": "mean_std", "per_channel": True, **moments},
            "train_dataloader_params": {"shuffle": True},
            "seed": training["seed"] or 1,
        },
    }


_README = """# {name} for CAREamics

    python train.py

trains Noise2Void on the images of `train/` and validates on those of `val/`
(`pip install careamics`). `careamics.yaml` is the configuration, with the statistics that volprep
measured on what trains.
"""
