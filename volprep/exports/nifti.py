"""NIfTI files, for the targets that read them: (X, Y, Z) with a true affine."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from volprep.errors import MissingDependencyError
from volprep.exports.exporter import changes, impossible, loses, renumbered, some
from volprep.exports.files import ExportFile, Read, id_table
from volprep.exports.given import ExportCase, ExportSet, slabs
from volprep.exports.labels import Classes, Ids, LabelForm, Valid
from volprep.findings import Finding
from volprep.geometry import Shape3, Spacing3

__all__ = ["nifti_files", "nifti_form", "nifti_losses", "nifti_table"]

#: MONAI makes float32 of labels on their way, in which ids up to 2^24 stay exact.
_IDS = Ids(("uint8", "uint16", "int32"), highest=2**24)
#: Its head counts the voxels of an axis in 16 bits with a sign.
_LONGEST = 2**15 - 1


def nifti_form(given: ExportSet) -> LabelForm:
    """Classes from 0, or ids."""
    return _IDS if given.classes is None else Classes(tuple(given.classes))


def nifti_losses(given: ExportSet) -> Iterator[Finding]:
    """What holds for every target that reads NIfTI."""
    yield from renumbered(given, _IDS) if given.classes is None else ()
    long = [case.name for case in given.cases if max(case.shape) > _LONGEST]
    if long:
        yield impossible(
            f"{some(long)}: NIfTI holds {_LONGEST} voxels along an axis at most",
            "choose another target, or cut the volume into data.regions",
        )
    if any(np.dtype(case.image.dtype) == np.float16 for case in given.cases):
        yield changes("NIfTI has no numbers of 16 bits with fractions: images are float32, exactly")
    if given.unspaced:
        yield loses("no spacing is known, and NIfTI states one: 1, 1, 1 is written")
    if given.classes is not None and 0 not in given.classes:
        yield changes(f"classes count from 0, which is {given.class_names[0]}")


def nifti_files(case: ExportCase, given: ExportSet, form: LabelForm) -> dict[str, ExportFile]:
    """The volumes of a case by what they are."""
    found = {"image": _image(f"images/{case.name}.nii.gz", case)}
    if case.label is not None:
        found["label"] = _labels(f"labels/{case.name}.nii.gz", case, form)
    if given.masked:
        found["mask"] = _labels(f"masks/{case.name}.nii.gz", case, Valid())
    return found


def nifti_table(case: ExportCase, form: LabelForm) -> Iterator[ExportFile]:
    """The table of ids where they are renumbered."""
    if isinstance(form, Ids) and case.label is not None:
        yield from id_table(f"labels/{case.name}.ids.csv", case, form)


def _image(path: str, case: ExportCase) -> ExportFile:
    """A NIfTI of the image: (X, Y, Z), with the channels as a fourth axis where there are some."""
    c = case.image.shape[0]
    parts = [lambda box, n=n: case.image.read(box)[n] for n in range(c)]
    dtype = np.dtype(case.image.dtype)
    kind = np.dtype(np.float32) if dtype == np.float16 else dtype  # which NIfTI does not have
    return _nifti(path, case, lambda: kind, parts, case.made_of)


def _labels(path: str, case: ExportCase, form: LabelForm) -> ExportFile:
    """A NIfTI of the labels: (X, Y, Z)."""
    parts = [lambda box: form.read(case, box)]
    return _nifti(path, case, lambda: form.dtype(case), parts, [*case.made_of, *form.made_of])


def _nifti(
    path: str,
    case: ExportCase,
    dtype: Callable[[], np.dtype[Any]],
    parts: Sequence[Read],
    made_of: Sequence[Any],
) -> ExportFile:
    def write(to: Path) -> None:
        kind = dtype()
        header = _header(case.shape, len(parts), kind, case.spacing)
        # No time of writing in the head: the same voxels are the same bytes.
        with to.open("wb") as raw, gzip.GzipFile("", "wb", 4, raw, mtime=0) as file:
            file.write(header)
            for read in parts:
                for box in slabs(case.box):
                    file.write(np.ascontiguousarray(read(box), kind).data)

    return ExportFile(path, ["nifti", case.spacing, *made_of], write, case.box.size * len(parts))


def _header(shape: Shape3, channels: int, dtype: np.dtype[Any], spacing: Spacing3 | None) -> bytes:
    """The head of a NIfTI-1 file whose x, y and z are the last three axes of (C, Z, Y, X).

    Voxels follow in C order, which is what NIfTI calls x fastest. The lengths are in
    micrometres, as the header's unit says.
    """
    try:
        import nibabel
    except ImportError:
        raise MissingDependencyError("nibabel", "exports") from None
    z, y, x = shape
    steps = np.diag([*reversed(spacing or (1.0, 1.0, 1.0)), 1.0])
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape((x, y, z) if channels == 1 else (x, y, z, channels))
    header.set_qform(steps, code="scanner")
    header.set_sform(steps, code="scanner")
    header.set_xyzt_units("micron")
    header["vox_offset"] = 352
    binary: bytes = header.binaryblock
    return binary + bytes(4)
