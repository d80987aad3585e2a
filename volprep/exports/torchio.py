"""TorchIO: NIfTI files and a CSV of subjects."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from volprep.exports.exporter import changes, common_losses, facts, masks_note, template
from volprep.exports.files import ExportFile, json_file, text_file
from volprep.exports.given import ExportSet
from volprep.exports.nifti import nifti_files, nifti_form, nifti_losses, nifti_table
from volprep.findings import Finding

__all__ = ["TorchIO"]


@dataclass(frozen=True)
class TorchIO:
    """Volumes, ``subjects.csv``, and a script that makes subjects and batches of them.

    Notes
    -----
    NIfTI and not TIFF, which TorchIO reads with spacing 1, 1, 1 and its axes reversed.
    """

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """It trains nothing itself; what it reads it keeps."""
        yield from common_losses(given, needs_labels=False)
        yield from nifti_losses(given)
        if given.spacing is not None:
            yield changes("TorchIO counts lengths in mm: a micrometre is 0.001 there")

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Volumes, the table, the script and a README."""
        form = nifti_form(given)
        columns = ["image", "label", *(["mask"] if given.masked else [])]
        table = io.StringIO()
        rows = csv.DictWriter(table, ["name", "side", *columns], lineterminator="\n")
        rows.writeheader()
        for case in given.cases:
            volumes = nifti_files(case, given, form)
            yield from (*volumes.values(), *nifti_table(case, form))
            paths = {what: file.path for what, file in volumes.items()}
            rows.writerow({"name": case.name, "side": case.side, **paths})
        yield text_file("subjects.csv", table.getvalue())
        yield json_file("volprep.json", facts(given))
        yield text_file("subjects.py", template("torchio_subjects.py"))
        yield text_file("README.md", _README.format(name=given.name, masks=masks_note(given)))


_README = """# {name} for TorchIO

    python -B -c "import subjects; print(next(iter(subjects.batches()))['image']['data'].shape)"

draws a batch of the planned patches from the cases that train (`pip install torchio`); TorchIO
has no trainer, and `subjects.batches("train")` goes into a loop of your own. Intensities are as
volprep's own loader gives them.

Volumes are NIfTI: (x, y, z) with the spacing in micrometres, of which TorchIO makes mm.{masks}
"""
