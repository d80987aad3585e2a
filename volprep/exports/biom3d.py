"""biom3d: arrays as its own preprocessing leaves them, its folds, and its Python config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from volprep.exports.exporter import (
    changes,
    common_losses,
    loses,
    needs_validation,
    no_mask,
    template,
)
from volprep.exports.files import ExportFile, npy_image, npy_labels, text_file
from volprep.exports.given import ExportSet
from volprep.exports.labels import Classes
from volprep.findings import Finding

__all__ = ["Biom3d"]


@dataclass(frozen=True)
class Biom3d:
    """``images/NAME.npy`` and ``masks/NAME.npy``, ``folds.csv`` and ``config.py``.

    Notes
    -----
    biom3d's own preprocessing would draw folds of its own over ours, and train on what is held
    out. What is written is what it would have made (normalised float32, (C, Z, Y, X)), so that
    it is not needed.
    """

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """Classes alone; intensities are normalised here."""
        yield from common_losses(given, normalised=True)
        yield from no_mask(given, "background there")
        # Without a fold 0 it would take fold 1, which is what trains.
        yield from needs_validation(given, "biom3d")
        if given.classes is None:
            yield loses(
                "biom3d knows no instances: every id becomes class 1, and those that touch one"
            )
        elif 0 not in given.classes:
            yield changes("there is no background, which biom3d wants: class 0 has no voxel")
        yield changes(
            "images are normalised as volprep's own loader does, in float32: biom3d's "
            "preprocessing, which would make folds of its own, is not to be run"
        )
        if given.channels > 1:
            yield loses("biom3d's config holds the normalisation of one channel, for prediction")

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Arrays, folds, the config and a README."""
        values = None if given.classes is None else tuple(given.classes)
        form = Classes(values, int(values is not None and 0 not in values))
        rows = ["filename,hold_out,fold"]
        for case in given.cases:
            yield npy_image(f"images/{case.name}.npy", case, given.normalisation(case))
            yield npy_labels(f"masks/{case.name}.npy", case, form)
            rows.append(f"{case.name}.npy,0,{0 if case.side == 'val' else 1}")
        yield text_file("folds.csv", "\n".join(rows) + "\n")
        yield text_file("config.py", _config(given, len(values or (0, 1)) - 1 + form.first))
        yield text_file("README.md", _README.format(name=given.name))


def _config(given: ExportSet, classes: int) -> str:
    """The template with the values of the plan."""
    training, rule = given.training, given.training["normalisation"]
    one = given.channels == 1
    spacing = list(reversed(given.spacing)) if given.spacing else []
    values = {
        "NUM_CLASSES": classes,
        "NUM_CHANNELS": given.channels,
        "IS_2D": given.flat,
        "BATCH_SIZE": training["batch_size"],
        "PATCH_SIZE": list(training["patch_size"]),
        "AUG_PATCH_SIZE": list(training["stored_patch_size"]),
        "NUM_POOLS": list(training["pool"]),
        "MEDIAN_SPACING": spacing,
        "CLIPPING_BOUNDS": list(rule["clip"][0]) if one and rule["clip"] else [],
        "INTENSITY_MOMENTS": [rule["offset"][0], rule["scale"][0]]
        if one and rule["offset"]
        else [],
        "STEPS": training["steps_per_epoch"],
        "DESC": given.name,
    }
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    return template("biom3d_config.py").replace("# VALUES\n", lines + "\n")


_README = """# {name} for biom3d

    python -B -m biom3d.train --config config.py

in this folder. Do not run biom3d's preprocessing over it: the arrays are preprocessed, and it would
draw folds of its own. `folds.csv` holds volprep's split: fold 0 validates.
"""
