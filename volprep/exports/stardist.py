"""StarDist: images and masks in folders, and a script that trains its 3D (or 2D) model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from volprep.exports.exporter import (
    changes,
    common_losses,
    facts,
    loses,
    needs_validation,
    only_instances,
    renumbered,
    shorter,
    template,
)
from volprep.exports.files import (
    ExportFile,
    id_table,
    json_file,
    text_file,
    tiff_image,
    tiff_labels,
)
from volprep.exports.given import ExportSet
from volprep.exports.labels import Ids
from volprep.findings import Finding

__all__ = ["StarDist"]

#: int32 is what StarDist makes of labels; those below 0 count as not annotated.
_IDS = Ids(("int32",), ignore=-1)


@dataclass(frozen=True)
class StarDist:
    """``train/images``, ``train/masks``, ``val/images``, ``val/masks``, and ``train.py``."""

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """Instances alone; what is not annotated is -1."""
        yield from common_losses(given)
        yield from renumbered(given, _IDS)
        yield from only_instances(given, "stardist")
        yield from needs_validation(given, "stardist")
        yield from shorter(
            given,
            "train.py continues the image with its mirror image up to the patch, with label -1 "
            "there, which StarDist leaves out of its loss; the files stay as they are",
        )
        if given.masked:
            yield changes(
                "what is not annotated has label -1, which StarDist leaves out of its loss"
            )
        if given.unspaced and not given.flat:
            yield loses("no spacing is known, and StarDist wants its ratios: voxels count as cubes")
        yield changes("the network is StarDist's own; patch and batch are those of the plan")

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Volumes, tables, what the script needs, the script and a README."""
        for case in given.cases:
            folder = case.side
            yield tiff_image(f"{folder}/images/{case.name}.tif", case, squeeze=given.flat)
            yield tiff_labels(f"{folder}/masks/{case.name}.tif", case, _IDS, squeeze=given.flat)
            yield from id_table(f"{folder}/{case.name}.ids.csv", case, _IDS)
        yield json_file("volprep.json", {**facts(given), "flat": given.flat})
        yield text_file("train.py", template("stardist_train.py"))
        yield text_file("README.md", _README.format(name=given.name))


_README = """# {name} for StarDist

    python train.py

trains on patches of the planned size, from intensities as volprep's own loader gives them
(`pip install stardist tensorflow`; the model is written beside this folder). Volumes are
(z, y, x), with channels (z, c, y, x); 2D images (y, x), or (c, y, x). Where one is shorter than the
patch, `train.py` continues it with its mirror image; labels are -1 there, as wherever nothing is
annotated, which StarDist leaves out of its loss.
"""
