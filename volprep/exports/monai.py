"""MONAI: NIfTI files, data lists of the Decathlon and of Auto3DSeg, transforms equal to ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from volprep.exports.exporter import common_losses, facts, loses, masks_note, template
from volprep.exports.files import ExportFile, json_file, text_file
from volprep.exports.given import ExportSet
from volprep.exports.nifti import nifti_files, nifti_form, nifti_losses, nifti_table
from volprep.findings import Finding

__all__ = ["Monai"]


@dataclass(frozen=True)
class Monai:
    """Images, labels and valid masks, with a script that loads them and one that trains.

    Notes
    -----
    NIfTI and not TIFF: MONAI's readers drop the spacing of TIFF files, and cannot read lists
    of them.
    """

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """Instances are ids in the files, and one class for its networks."""
        yield from common_losses(given)
        yield from nifti_losses(given)
        if given.classes is None and given.labelled:
            yield loses(
                "MONAI's networks learn classes: the files hold the ids, and transforms.py makes "
                "one class of them",
                "make targets of your own from the ids",
            )

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Volumes, lists, scripts and a README."""
        form = nifti_form(given)
        lists: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
        for case in given.cases:
            volumes = nifti_files(case, given, form)
            lists[case.side].append({what: file.path for what, file in volumes.items()})
            yield from (*volumes.values(), *nifti_table(case, form))
        names = given.class_names or ["background", "object"]
        head = {
            "name": given.name,
            "description": "prepared by volprep; lengths are in micrometres",
            "tensorImageSize": "3D" if given.channels == 1 else "4D",
            "modality": {str(c): f"channel {c}" for c in range(given.channels)},
            "labels": {str(n): name for n, name in enumerate(names)},
        }
        yield json_file(
            "dataset.json",
            {
                **head,
                "numTraining": len(lists["train"]),
                "training": lists["train"],
                "validation": lists["val"],
            },
        )
        # Auto3DSeg takes one list, and holds out the entries of the fold that it is asked for.
        folds = [
            {**e, "fold": fold} for side, fold in (("train", 1), ("val", 0)) for e in lists[side]
        ]
        yield json_file("datalist.json", {**head, "training": folds, "testing": []})
        keys = ["image", "label", *(["mask"] if given.masked else [])]
        yield json_file("volprep.json", {**facts(given), "keys": keys})
        yield text_file("transforms.py", template("monai_transforms.py"))
        yield text_file("train.py", template("monai_train.py"))
        yield text_file("README.md", _README.format(name=given.name, masks=masks_note(given)))


_README = """# {name} for MONAI

    python -B train.py

trains the planned U-Net on the planned patches (`pip install monai nibabel`; the model is written
beside this folder). `transforms.py` loads the cases with intensities as volprep's own loader gives
them. `dataset.json` is a list as of the Decathlon (`load_decathlon_datalist`), `datalist.json` one
for Auto3DSeg, whose fold 0 holds out what volprep holds out.

Volumes are NIfTI: (x, y, z), with the spacing in micrometres in a true affine.{masks}
"""
