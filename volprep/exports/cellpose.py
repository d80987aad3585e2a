"""Cellpose: ``NAME_img.tif`` beside ``NAME_masks.tif``, for training section by section in 2D."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from volprep.exports.exporter import (
    changes,
    common_losses,
    loses,
    no_mask,
    only_instances,
    renumbered,
)
from volprep.exports.files import ExportFile, id_table, section_image, section_labels, text_file
from volprep.exports.given import ExportSet
from volprep.exports.labels import Ids
from volprep.findings import Finding

__all__ = ["Cellpose"]

#: Cellpose keeps ids in 16 bits, or in float32 beside its flows.
_IDS = Ids(("uint16",))


@dataclass(frozen=True)
class Cellpose:
    """A folder of 2D pictures and their masks for each side.

    Notes
    -----
    Cellpose trains on 2D pictures; its manual advises sections of volumes for 3D. Each section
    of a case is a file of its own, ``NAME_z0007_img.tif``.
    """

    def losses(self, given: ExportSet) -> Iterator[Finding]:
        """2D, instances, no spacing, no valid mask, three channels at most."""
        yield from common_losses(given)
        yield from renumbered(given, _IDS)
        yield from no_mask(given, "background there")
        yield from only_instances(given, "cellpose")
        if given.channels > 3:
            yield loses("cellpose looks at three channels: the others are left out")
        if not given.flat:
            yield loses("cellpose trains on 2D pictures: each section is one, and its ids are kept")
        if given.spacing is not None:
            yield loses("cellpose knows no spacing", "give --anisotropy when it predicts in 3D")
        yield changes("patch, batch and normalisation are cellpose's own; the plan has no place")

    def files(self, given: ExportSet) -> Iterator[ExportFile]:
        """Pictures, masks, tables and a README."""
        for case in given.cases:
            for z in range(case.shape[0]):
                name = case.name if case.shape[0] == 1 else f"{case.name}_z{z:04}"
                channels = range(min(3, given.channels))
                yield section_image(f"{case.side}/{name}_img.tif", case, z, channels)
                yield section_labels(f"{case.side}/{name}_masks.tif", case, z, _IDS)
            yield from id_table(f"{case.side}/{case.name}.ids.csv", case, _IDS)
        test = " --test_dir val" if given.of("val") else ""
        yield text_file("README.md", _README.format(name=given.name, test=test))


_README = """# {name} for cellpose

    python -m cellpose --train --dir train{test} --img_filter _img --mask_filter _masks \\
        --min_train_masks 1

Sections are `NAME_zZZZZ_img.tif` with `NAME_zZZZZ_masks.tif`; ids are those of the volume, so that
one object has one id in all its sections. Cellpose leaves out sections with fewer than five objects
unless it is told otherwise, as it is here; those without any it cannot learn from.
"""
