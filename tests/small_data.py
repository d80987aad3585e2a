"""Small data as the configs and the documents want it, by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr
from PIL import Image

from volprep.pipeline import write_tiles_json

__all__ = ["MAKERS", "volume"]


def volume(seed: int, shape: tuple[int, int, int], objects: int = 14) -> tuple[Any, Any]:
    """An image of bright blocks, and their ids."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    for i in range(1, objects + 1):
        z, y, x = (int(rng.integers(0, max(1, n - 6))) for n in shape)
        label[z : z + 5, y : y + 9, x : x + 9] = i
    image = (rng.integers(20, 80, shape) + 90 * (label > 0)).astype(np.uint8)
    return image, label


def stack(path: Path, array: npt.NDArray[Any], z: float = 0.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"axes": "ZYX", "spacing": z, "unit": "um"}
    tifffile.imwrite(path, array, imagej=True, resolution=(10, 10), metadata=meta)


def pictures(folder: Path, array: npt.NDArray[Any]) -> None:
    folder.mkdir(parents=True)
    for number, section in enumerate(array):
        Image.fromarray(section).save(folder / f"{number:04d}.png")


def nuclei(data: Path) -> None:
    for number in range(4):
        image, label = volume(number, (16, 64, 64))
        stack(data / f"nuclei/images/embryo{number // 2}_{number}.tif", image, 0.3 + 0.1 * number)
        stack(data / f"nuclei/labels/embryo{number // 2}_{number}.tif", label, 0.3 + 0.1 * number)


def em(data: Path) -> None:
    image, label = volume(0, (24, 160, 160), 40)
    pictures(data / "em/images", image)
    tifffile.imwrite(data / "em/labels.tif", label, metadata={"axes": "ZYX"})
    (data / "em/labels").mkdir()
    shutil.move(data / "em/labels.tif", data / "em/labels/labels.tif")


def tiles(data: Path) -> None:
    image, label = volume(0, (24, 192, 192), 60)
    for name, array in (("em", image), ("seg", label)):
        for z, section in enumerate(array):
            folder = data / "tiles" / name / f"{z:04d}"
            folder.mkdir(parents=True)
            for row in range(2):
                for column in range(2):
                    part = section[row * 96 :, column * 96 :][:96, :96]
                    Image.fromarray(part).save(folder / f"{row}_{column}.png")
        write_tiles_json(data / "tiles" / name, data / "tiles" / f"{name}.json", missing="error")


def slides(data: Path) -> None:
    for number in range(5):
        image, label = volume(number, (1, 160, 160), 20)
        classes = np.where(label == 1, 255, label % 3).astype(np.uint8)[0]
        for kind, array in (("images", image[0]), ("labels", classes)):
            (data / "slides" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(data / f"slides/{kind}/slide_{number}.png")


def sparse(data: Path) -> None:
    image, label = volume(0, (40, 96, 96), 60)
    annotated = np.zeros_like(label, np.uint8)
    annotated[::8] = 1
    pictures(data / "sparse/images", image)
    tifffile.imwrite(data / "sparse/labels.tif", label * annotated, metadata={"axes": "ZYX"})
    tifffile.imwrite(data / "sparse/annotated.tif", annotated, metadata={"axes": "ZYX"})


def organs(data: Path) -> None:
    """As nnU-Net's raw folders have it: NIfTI (x, y, z) in mm, classes, `dataset.json`."""
    nib = pytest.importorskip("nibabel")
    root = data / "Dataset001_Organs"
    for kind in ("imagesTr", "labelsTr"):
        (root / kind).mkdir(parents=True)
    for number in range(5):
        image, label = volume(number, (24, 64, 64), 8)
        classes = np.where(label == 0, 0, 1 + label % 2).astype(np.uint8)
        grey = image.astype(np.int16) * 10 - 1000
        for kind, name, array in (
            ("imagesTr", f"organ_{number:03d}_0000", grey),
            ("labelsTr", f"organ_{number:03d}", classes),
        ):
            nifti = nib.Nifti1Image(array.T, np.diag([0.8, 0.8, 3.0, 1.0]))
            nifti.header.set_xyzt_units("mm")
            nib.save(nifti, root / kind / f"{name}.nii.gz")
    described = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "kidney": 2},
        "numTraining": 5, "file_ending": ".nii.gz",
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(described))


def chunked(folder: Path, shape: tuple[int, int, int], chunks: tuple[int, int, int]) -> None:
    """``em.zarr`` and ``seg.zarr``: a volume of cells in chunks, and their ids."""
    image, label = volume(0, shape, 200)
    for name, array in (("em", image), ("seg", label)):
        store = zarr.create_array(
            str(folder / f"{name}.zarr"), shape=shape, chunks=chunks,
            dtype=array.dtype, dimension_names=("z", "y", "x"),
        )  # fmt: skip
        store[:] = array


def huge(data: Path) -> None:
    """A volume in chunks and its ids, as it would lie in a bucket."""
    chunked(data / "huge", (32, 192, 128), (16, 64, 64))


MAKERS = {
    "nuclei": nuclei, "em": em, "tiles": tiles, "slides": slides, "sparse": sparse,
    "organs": organs, "huge": huge,
}  # fmt: skip
