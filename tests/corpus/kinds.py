"""The kinds: a name, what makes the folder, and what must be said.

To add one, write a function that fills a folder, and give it a line:

    @kind("tiff-cut", "unreadable")            # the findings that must be among those told
    def _(folder): ...

A name that begins with ``-`` must not be told; ``!SourceError`` is an error that ends the
check, with words that it must hold after a colon. `options` are keys of ``data:``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import imageio.v3 as iio
import nibabel
import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """One input and what must be said of it."""

    name: str
    make: Callable[[Path], object]
    said: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


KINDS: dict[str, Kind] = {}


def kind(name: str, *said: str, **options: Any) -> Callable[[Callable[[Path], object]], None]:
    """Put a kind into the table."""

    def put(make: Callable[[Path], object]) -> None:
        assert name not in KINDS, name
        KINDS[name] = Kind(name, make, said, options)

    return put


# ---- phantoms -------------------------------------------------------------------------


def phantom(
    seed: int = 0, shape: tuple[int, ...] = (24, 56, 56), objects: int = 14
) -> tuple[Array, Array]:
    """Bright balls of several sizes on noise, and their ids; not symmetric in any axis."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    where = np.indices(shape)
    for number in range(1, objects + 1):
        centre = [rng.uniform(3, n - 3) * (0.6 + 0.4 * rng.random()) for n in shape]
        radius = rng.uniform(3, 7)
        inside = sum((w - c) ** 2 for w, c in zip(where, centre, strict=True)) < radius**2
        label[inside & (label == 0)] = number
    image = rng.normal(60, 6, shape) + 80 * (label > 0) + 3 * label
    image = ndimage.gaussian_filter(image, 0.7) + rng.normal(0, 3, shape)
    return image.clip(0, 255).astype(np.uint8), label


def put(
    folder: Path, image: Array, label: Array | None, name: str = "c0", suffix: str = ".tif"
) -> None:
    """An image and its label in images/ and labels/."""
    for what, voxels in (("images", image), ("labels", label)):
        if voxels is not None:
            (folder / what).mkdir(exist_ok=True)
            write(folder / what / f"{name}{suffix}", voxels)


def write(path: Path, voxels: Array) -> None:
    """A file by its suffix; TIFF as ImageJ writes it, with 1 µm voxels."""
    if path.suffix == ".tif":
        axes = {3: "ZYX", 2: "YX"}[voxels.ndim]
        imagej = voxels.dtype in (np.uint8, np.uint16, np.float32)
        meta = {"axes": axes, "spacing": 1.0, "unit": "um"} if imagej else {"axes": axes}
        tifffile.imwrite(path, voxels, imagej=imagej, resolution=(1, 1), metadata=meta)
    elif path.suffix == ".npy":
        np.save(path, voxels)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["raw"] = voxels
    elif path.name.endswith((".nii", ".nii.gz")):
        nii = nibabel.Nifti1Image(np.ascontiguousarray(voxels.T), np.diag([1, 1, 1, 1.0]))
        nii.header.set_xyzt_units("micron")
        nibabel.save(nii, path)
    else:
        iio.imwrite(path, voxels)


def three(folder: Path, change: Callable[[Array, Array, int], tuple[Array, Array | None]]) -> None:
    """Three cases, each changed in the same way."""
    for seed in range(3):
        image, label = change(*phantom(seed), seed)
        put(folder, image, label, f"c{seed}")


WRONG = (
    "unreadable", "labels-misplaced", "label-antialiased", "label-intensities", "mixed-binary",
    "images-labels-swapped", "image-equals-label", "ids-scattered", "label-offset",
)  # fmt: skip
SOUND = tuple(f"-{name}" for name in WRONG)


# ---- sound ones: nothing may be said --------------------------------------------------


for _suffix in (".tif", ".npy", ".nii", ".nii.gz"):

    @kind(f"sound{_suffix}", *SOUND)
    def _(folder: Path, suffix: str = _suffix) -> None:
        for seed in range(3):
            put(folder, *phantom(seed), f"c{seed}", suffix)


for _dtype in ("uint8", "uint16", "int16", "float32", "float64", "uint32", "int32"):

    @kind(f"sound-image-{_dtype}", *SOUND)
    def _(folder: Path, dtype: str = _dtype) -> None:
        three(folder, lambda i, m, _: (i.astype(dtype), m))

    @kind(f"sound-label-{_dtype}", *SOUND)
    def _(folder: Path, dtype: str = _dtype) -> None:
        three(folder, lambda i, m, _: (i, m.astype(dtype)))


@kind("sound-binary", "one-instance", *SOUND)
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, (m > 0).astype(np.uint8)))


@kind("sound-2d", *SOUND)
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 20)
        put(folder, image, label, f"c{seed}")


@kind("sound-dense", *SOUND, "no-background")
def _(folder: Path) -> None:
    def dense(label: Array, seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        points = rng.uniform(0, 1, (30, 3)) * label.shape
        where = np.stack(np.indices(label.shape), -1)[..., None, :]
        cells = np.argmin(((where - points) ** 2).sum(-1), -1)
        edges = ndimage.morphological_gradient(cells, 3) > 0
        image = 150 - 90 * ndimage.gaussian_filter(edges.astype(float), 0.7)
        return (image + rng.normal(0, 8, image.shape)).astype(np.uint8), cells + 1

    three(folder, lambda _, m, s: dense(m, s))


# ---- labels that are none -------------------------------------------------------------


@kind("swapped-folders", "images-labels-swapped")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (m, i))


@kind("swapped-float", "images-labels-swapped")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (m, i.astype(np.float32) + np.float32(0.25)))


@kind("label-is-the-image", "image-equals-label")
def _(folder: Path) -> None:
    three(folder, lambda i, _l, _s: (i, i))


@kind("label-is-another-image", "label-intensities")
def _(folder: Path) -> None:
    three(folder, lambda i, _l, _s: (i, i.astype(np.uint16) + np.roll(i, 9, 1)))


for _sigma in (0.6, 1.0, 2.0):

    @kind(f"soft-mask-{_sigma}", "label-antialiased")
    def _(folder: Path, sigma: float = _sigma) -> None:
        three(
            folder,
            lambda i, m, _: (
                i, ndimage.gaussian_filter(255.0 * (m > 0), [0, sigma, sigma]).astype(np.uint8)
            ),
        )  # fmt: skip


@kind("resized-mask", "label-antialiased")
def _(folder: Path) -> None:
    def resized(label: Array) -> Array:
        small = 255.0 * (label > 0)[:, ::2, ::2]
        return ndimage.zoom(small, (1, 2, 2), order=1).clip(0, 255).astype(np.uint8)

    three(folder, lambda i, m, _: (i, resized(m)))


@kind("resized-instances", "label-antialiased")
def _(folder: Path) -> None:
    def resized(label: Array) -> Array:
        return ndimage.zoom(40.0 * label[:, ::2, ::2], (1, 2, 2), order=1).astype(np.uint16)

    three(folder, lambda i, m, _: (i, resized(m)))


@kind("jpeg-masks", "label-lossy")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 12)
        for what in ("images", "labels"):
            (folder / what).mkdir(exist_ok=True)
        iio.imwrite(folder / "images" / f"c{seed}.png", image)
        iio.imwrite(
            folder / "labels" / f"c{seed}.jpg", (255 * (label > 0)).astype(np.uint8), quality=40
        )


@kind("mixed-sections", "mixed-binary")
def _(folder: Path) -> None:
    def mixed(label: Array) -> Array:
        mask = (label > 0).astype(np.uint8)
        mask[12:] *= 255
        return mask

    three(folder, lambda i, m, _: (i, mixed(m)))


@kind("mixed-cases", "mixed-binary")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i, ((m > 0) * (255 if s == 1 else 1)).astype(np.uint8)))


@kind("mask-255", "one-instance", "-mixed-binary")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, (255 * (m > 0)).astype(np.uint8)))


@kind("mask-255-classes", "binary-label", "-mixed-binary", label_kind="classes")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, (255 * (m > 0)).astype(np.uint8)))


@kind("scattered", "ids-scattered")
def _(folder: Path) -> None:
    def specks(label: Array, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        return (rng.random(label.shape) < 0.04) * rng.integers(1, 9, label.shape)

    three(folder, lambda i, m, s: (i, specks(m, s).astype(np.uint8)))


@kind("ids-beyond-int63", "ids-too-large")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image, np.where(label > 0, label + np.uint64(2**63), 0), f"c{seed}", ".npy")


@kind("ids-of-53-bits", "-ids-too-large", *SOUND)
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image, np.where(label > 0, label + np.uint64(2**53), 0), f"c{seed}", ".npy")


@kind("offset-labels", "label-offset")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, (m + 32768).astype(np.uint16)))


@kind("negative-label", "unreadable")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, m.astype(np.int16) - 1))


@kind("fractions", "unreadable")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, (m + 0.5).astype(np.float32)))


@kind("nan-in-label", "unreadable")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, np.where(m == 1, np.nan, m).astype(np.float32)))


@kind("empty-label", "empty-label")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i, m * (s != 1)))


@kind("rgb-label", "label-colours")
def _(folder: Path) -> None:
    _coloured(folder, np.random.default_rng(0).integers(0, 255, (64, 3)))


@kind("grey-as-rgb-label", "label-colours")
def _(folder: Path) -> None:
    _coloured(folder, np.repeat(np.arange(64)[:, None], 3, 1))


def _coloured(folder: Path, colours: Array) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 12)
        put(folder, image, None, f"c{seed}", ".png")
        (folder / "labels").mkdir(exist_ok=True)
        iio.imwrite(folder / "labels" / f"c{seed}.png", colours[label].astype(np.uint8))


@kind("one-hot", "label-one-hot", label_axes="CZYX")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        hot = np.stack([(label % 3 == k) & (label > 0) for k in range(3)]).astype(np.uint8)
        put(folder, image, hot, f"c{seed}", ".npy")


# ---- labels that lie elsewhere --------------------------------------------------------


for _axis, _letter in enumerate("zyx"):

    @kind(f"mirrored-{_letter}", "labels-misplaced")
    def _(folder: Path, axis: int = _axis) -> None:
        three(folder, lambda i, m, _: (i, np.flip(m, axis)))


@kind("transposed-yx", "labels-misplaced")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, m.transpose(0, 2, 1)))


@kind("one-mirrored-of-three", "labels-misplaced")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i, m[:, :, ::-1] if s == 2 else m))


for _step in (-4, 4):

    @kind(f"shifted-{_step}", "labels-misplaced")
    def _(folder: Path, step: int = _step) -> None:
        three(folder, lambda i, m, _: (i, np.roll(m, step, 2)))


@kind("mirrored-2d", "labels-misplaced")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 20)
        put(folder, image, label[:, ::-1], f"c{seed}")
