"""The kinds: a name, what makes the folder, and what must be said.

To add one, write a function that fills a folder, and give it a line:

    @kind("tiff-cut", "unreadable")            # the findings that must be among those told
    def _(folder): ...

A name that begins with ``-`` must not be told; ``!SourceError`` is an error that ends the
check, with words that it must hold after a colon. `options` are keys of ``data:``.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import nibabel
import numpy as np
import numpy.typing as npt
import tifffile
import zarr
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
        picture(path, voxels)


def picture(path: Path, voxels: Array) -> None:
    """A PNG."""
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(voxels)))


def three(folder: Path, change: Callable[[Array, Array, int], tuple[Array, Array | None]]) -> None:
    """Three cases, each changed in the same way."""
    for seed in range(3):
        image, label = change(*phantom(seed), seed)
        put(folder, image, label, f"c{seed}")


WRONG = (
    "unreadable", "labels-misplaced", "label-antialiased", "label-intensities", "mixed-binary",
    "images-labels-swapped", "image-equals-label", "ids-scattered", "label-offset",
    "label-without-image", "labels-exchanged", "same-label", "sparse-label", "chunks-missing",
    "label-noise", "label-outlines", "geometry-one-sided", "option-idle",
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

    @kind(f"sound-label-{_dtype}", *SOUND, *(("labels-from-float",) if "float" in _dtype else ()))
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


for _sigma in ((0, 0.6, 0.6), (0, 1.0, 1.0), (1.0, 1.0, 1.0)):

    @kind(f"soft-mask-{sum(_sigma)}", "label-antialiased", "-label-intensities")
    def _(folder: Path, sigma: tuple[float, ...] = _sigma) -> None:
        three(
            folder,
            lambda i, m, _: (i, ndimage.gaussian_filter(255.0 * (m > 0), sigma).astype(np.uint8)),
        )


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


@kind("jpeg-images", "image-lossy", "-label-lossy")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 12)
        put(folder, image, None, f"c{seed}", ".png")
        (folder / "images" / f"c{seed}.png").unlink()
        jpeg = imagecodecs.jpeg_encode(np.ascontiguousarray(image), level=90)
        (folder / "images" / f"c{seed}.jpg").write_bytes(jpeg)
        (folder / "labels").mkdir(exist_ok=True)
        picture(folder / "labels" / f"c{seed}.png", label.astype(np.uint8))


@kind("transparency", "alpha-channel")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 12)
        clear = np.full_like(image, 255)
        put(folder, np.stack([image, image, image, clear], -1), None, f"c{seed}", ".png")
        (folder / "labels").mkdir(exist_ok=True)
        picture(folder / "labels" / f"c{seed}.png", label.astype(np.uint8))


@kind("scaled-nifti", "intensities-scaled")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image, label, f"c{seed}", ".nii")
        path = folder / "images" / f"c{seed}.nii"
        data = bytearray(path.read_bytes())
        data[112:120] = struct.pack("<ff", 0.25, 3.0)  # scl_slope, scl_inter
        path.write_bytes(data)


@kind("ids-as-classes", "many-classes", label_kind="classes")
def _(folder: Path) -> None:
    def cells(label: Array) -> Array:
        z, y, x = np.indices(label.shape) // 6
        return (1 + x + 10 * y + 100 * z).astype(np.uint16)

    three(folder, lambda i, m, _: (i, cells(m)))


@kind("jpeg-masks", "label-lossy")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 12)
        for what in ("images", "labels"):
            (folder / what).mkdir(exist_ok=True)
        picture(folder / "images" / f"c{seed}.png", image)
        mask = np.ascontiguousarray((255 * (label > 0)).astype(np.uint8))
        (folder / "labels" / f"c{seed}.jpg").write_bytes(imagecodecs.jpeg_encode(mask, level=40))


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


for _share in (0.03, 0.1, 0.5, 0.9):
    for _kind in ("instances", "classes"):

        @kind(f"noise-of-{_share}-{_kind}", "label-noise", "-label-outlines", label_kind=_kind)
        def _(folder: Path, share: float = _share) -> None:
            def noise(label: Array, seed: int) -> Array:
                return (np.random.default_rng(seed).random(label.shape) < share).astype(np.uint8)

            three(folder, lambda i, m, s: (i, noise(m, s)))


def outlines(label: Array) -> Array:
    """The border of each object in its plane."""
    inner = np.stack([ndimage.grey_erosion(plane, 3) for plane in label])
    outer = np.stack([ndimage.grey_dilation(plane, 3) for plane in label])
    return np.where((inner != label) | (outer != label), label, 0)


@kind("outlines-of-objects", "label-outlines", "-label-noise")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, outlines(m)))


@kind("outlines-as-a-mask", "label-outlines", "-label-noise", label_kind="classes")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, ((outlines(m) > 0) * 255).astype(np.uint8)))


@kind("sound-membranes", *SOUND, "-ids-scattered")
def _(folder: Path) -> None:
    def walls(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        points = rng.uniform(0, 1, (30, 3)) * (24, 56, 56)
        where = np.stack(np.indices((24, 56, 56)), -1)[..., None, :]
        cells = np.argmin(((where - points) ** 2).sum(-1), -1)
        return (ndimage.morphological_gradient(cells, (1, 2, 2)) > 0).astype(np.uint8)

    def seen(wall: Array, seed: int) -> Array:
        noise = np.random.default_rng(seed).normal(0, 8, wall.shape)
        soft = ndimage.gaussian_filter(wall.astype(float), 0.7)
        return (150 - 90 * soft + noise).clip(0, 255).astype(np.uint8)

    three(folder, lambda _i, _m, s: (seen(walls(s), s), walls(s)))


@kind("sound-few-photons", *SOUND)
def _(folder: Path) -> None:
    def counted(label: Array, seed: int) -> Array:
        light = ndimage.gaussian_filter((label > 0) * 3.0, 1) + 0.3
        return np.random.default_rng(seed).poisson(light).astype(np.uint8)

    for seed in range(3):
        _, label = phantom(seed, (24, 56, 56), 40)
        put(folder, counted(label, seed), label, f"c{seed}")


for _name, _levels in (("warning", ".h5"), ("info", ".npy")):

    @kind(f"hdf5-offset-on-one-side-{_name}", "geometry-one-sided", image_key="raw")
    def _(folder: Path, suffix: str = _levels) -> None:
        put(folder, *phantom(), suffix=".h5")
        with h5py.File(folder / "images/c0.h5", "a") as file:
            file["raw"].attrs["offset"] = (10.0, 0.0, 0.0)
        if suffix != ".h5":
            (folder / "labels/c0.h5").unlink()
            write(folder / f"labels/c0{suffix}", phantom()[1])


@kind("imagej-origin-on-one-side", "geometry-one-sided", "-geometry-differs")
def _(folder: Path) -> None:
    put(folder, *phantom())
    image = tifffile.imread(folder / "images/c0.tif")
    meta = {"axes": "ZYX", "spacing": 1.0, "unit": "um", "xorigin": 20.0}
    tifffile.imwrite(folder / "images/c0.tif", image, imagej=True, metadata=meta)


_IDLE: dict[str, dict[str, Any]] = {
    "image-suffix": {"image_suffix": "_em"}, "label-suffix": {"label_suffix": "_truth"},
    "mask-key": {"mask_key": "valid"}, "label-key-of-tiff": {"label_key": "x"},
    "slices": {"slices_by": "order"},
}  # fmt: skip
for _name, _options in _IDLE.items():

    @kind(f"option-that-finds-nothing-{_name}", "option-idle", **_options)
    def _(folder: Path) -> None:
        put(folder, *phantom())


@kind("options-of-the-root-with-listed-cases", "!ConfigError: axes belongs to root")
def _(folder: Path) -> Path:
    put(folder, *phantom())
    path = folder / "v.yaml"
    path.write_text("data: {axes: ZYX, cases: [{image: images/c0.tif, label: labels/c0.tif}]}\n")
    return path


for _given in (None, True, False):
    _said = "sections-unrelated" if _given is None else "-sections-unrelated"

    @kind(f"pictures-of-places-slices-{_given}", _said, slices=_given)
    def _(folder: Path) -> None:
        for seed in range(6):
            image, label = phantom(seed, (96, 96), 20)
            put(folder, image, None, f"slide_{seed}", ".png")
            (folder / "masks").mkdir(exist_ok=True)
            picture(folder / f"masks/slide_{seed}.png", (255 * (label > 0)).astype(np.uint8))


def nnunet(folder: Path, **stated: Any) -> None:
    """A sound data set of nnU-Net with three cases, but for what is stated."""
    for seed in range(3):
        image, label = phantom(seed)
        for what, name, voxels in (
            ("imagesTr", f"k{seed}_0000", image),
            ("labelsTr", f"k{seed}", (label > 0).astype(np.uint8)),
        ):
            (folder / what).mkdir(exist_ok=True)
            write(folder / what / f"{name}.nii.gz", voxels)
    content = {
        "channel_names": {"0": "DAPI"}, "labels": {"background": 0, "cell": 1}, "numTraining": 3,
        "file_ending": ".nii.gz", **stated,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))


_STATED: dict[str, tuple[str, dict[str, Any]]] = {
    "sound": ("-dataset-json", {}),
    "another-ending": ("!SourceError: says that files end in .tif", {"file_ending": ".tif"}),
    "value-without-a-name": ("dataset-json", {"labels": {"background": 0, "cell": 2}}),
    "no-background": ("dataset-json", {"labels": {"cell": 1}}),
    "one-value-twice": (
        "!SourceError: are both 1", {"labels": {"background": 0, "cell": 1, "core": 1}},
    ),
    "negative-value": ("!SourceError: is no label value", {"labels": {"cell": -1}}),
    "fraction": ("!SourceError: is no label value", {"labels": {"cell": 1.5}}),
    "too-few-cases": ("dataset-json", {"numTraining": 4}),
}  # fmt: skip
for _name, (_said, _given) in _STATED.items():

    @kind(f"nnunet-{_name}", _said)
    def _(folder: Path, given: dict[str, Any] = _given) -> None:
        nnunet(folder, **given)


_SPLITS: dict[str, tuple[str, Any]] = {
    "unknown-case": ("!SourceError: not there: k9", [{"train": ["k0", "k9"], "val": ["k1"]}]),
    "on-both-sides": ("!SourceError: both train", [{"train": ["k0", "k1"], "val": ["k1"]}]),
    "text-for-a-list": ("!SourceError: no list of folds", [{"train": "k0", "val": "k1"}]),
    "no-fold": ("dataset-json", []),
    "nothing-trains": ("split-impossible", [{"train": [], "val": ["k0", "k1", "k2"]}]),
}
for _name, (_said, _folds) in _SPLITS.items():

    @kind(f"nnunet-splits-{_name}", _said)
    def _(folder: Path, folds: Any = _folds) -> None:
        nnunet(folder)
        (folder / "splits_final.json").write_text(json.dumps(folds))


@kind("nnunet-case-without-channel", "!SourceError: call it k1_0000.nii.gz")
def _(folder: Path) -> None:
    nnunet(folder)
    (folder / "imagesTr/k1_0000.nii.gz").rename(folder / "imagesTr/k1.nii.gz")


@kind("nnunet-more-channels-than-names", "dataset-json")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (64, 64), 8)
        for what in ("imagesTr", "labelsTr"):
            (folder / what).mkdir(exist_ok=True)
        picture(folder / f"imagesTr/k{seed}_0000.png", np.stack([image] * 3, -1))
        picture(folder / f"labelsTr/k{seed}.png", (label > 0).astype(np.uint8))
    names = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "cell": 1}}
    stated = {**names, "numTraining": 3, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(stated))


for _axis, _step in (("y", 4), ("x", -3)):

    @kind(f"one-shifted-of-three-{_axis}", "labels-misplaced")
    def _(folder: Path, axis: str = _axis, step: int = _step) -> None:
        for seed in range(3):
            image, label = phantom(seed, (24, 80, 80), 30)
            moved = np.roll(label, step, "zyx".index(axis)) if seed == 1 else label
            put(folder, image, moved, f"c{seed}")


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
        picture(folder / "labels" / f"c{seed}.png", colours[label].astype(np.uint8))


@kind("one-hot", "label-one-hot", label_axes="CZYX")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        hot = np.stack([(label % 3 == k) & (label > 0) for k in range(3)]).astype(np.uint8)
        put(folder, image, hot, f"c{seed}", ".npy")


@kind("labels-alone", "label-without-image")
def _(folder: Path) -> None:
    for seed in range(3):
        np.save(folder / f"nuclei_{seed}.npy", phantom(seed)[1])


@kind("masks-alone", "label-without-image")
def _(folder: Path) -> None:
    for seed in range(3):
        write(folder / f"nuclei_{seed}.tif", (255 * (phantom(seed)[1] > 0)).astype(np.uint8))


@kind("label-beside-its-image-unknown-by-name", "label-without-image")
def _(folder: Path) -> None:
    image, label = phantom(0)
    np.save(folder / "a.npy", image)
    np.save(folder / "a_nuclei.npy", label)


@kind("few-of-many-annotated", "sparse-label")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, np.where(m <= 2, m, 0).astype(np.uint8)))


@kind("dark-image", "-label-without-image")
def _(folder: Path) -> None:
    rng = np.random.default_rng(0)
    three(folder, lambda i, _m, _s: (rng.poisson(i / 60.0).astype(np.uint8), None))


@kind("label-chunks-lost", "chunks-missing")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image, None, f"c{seed}", ".npy")
        (folder / "labels").mkdir(exist_ok=True)
        zarr.create_array(folder / "labels" / f"c{seed}.zarr", data=label, chunks=(8, 56, 56))
        shutil.rmtree(folder / "labels" / f"c{seed}.zarr" / "c" / "1")


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


@kind("labels-exchanged", "labels-exchanged", "-labels-misplaced")
def _(folder: Path) -> None:
    for seed, other in ((0, 1), (1, 0), (2, 2)):
        put(folder, phantom(seed)[0], phantom(other)[1], f"c{seed}")


@kind("labels-off-by-one", "labels-exchanged")
def _(folder: Path) -> None:
    for seed in range(5):
        image, label = phantom(seed, (96, 96), 20)[0], phantom((seed + 1) % 5, (96, 96), 20)[1]
        put(folder, image, label, "abcde"[seed])


@kind("label-of-another-saved-twice", "same-label")
def _(folder: Path) -> None:
    for seed in range(4):
        put(folder, phantom(seed)[0], phantom(min(seed, 2))[1], f"c{seed}")


# ---- files that are not what their names say -------------------------------------------


def spoil(folder: Path, suffix: str, change: Callable[[Path], object], count: int = 3) -> None:
    """Sound cases, the image of the second of which is changed."""
    for seed in range(count):
        put(folder, *phantom(seed), f"c{seed}", suffix)
    change(folder / "images" / f"c1{suffix}")


_CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123456\n",
    "text": b"z,y,x\n1,2,3\n" * 20,
    "noise": np.random.default_rng(0).bytes(4000),
    "zeros": bytes(4000),
}
for _suffix in (".tif", ".npy", ".nii", ".nii.gz"):
    for _content, _bytes in _CONTENTS.items():

        @kind(f"{_content}{_suffix}", "unreadable")
        def _(folder: Path, suffix: str = _suffix, content: bytes = _bytes) -> None:
            spoil(folder, suffix, lambda path: path.write_bytes(content))

    @kind(f"cut{_suffix}", "unreadable")
    def _(folder: Path, suffix: str = _suffix) -> None:
        spoil(folder, suffix, lambda path: path.write_bytes(path.read_bytes()[:-2000]))

    @kind(f"folder-named{_suffix}")
    def _(folder: Path, suffix: str = _suffix) -> None:
        def to_folder(path: Path) -> None:
            path.unlink()
            path.mkdir()

        spoil(folder, suffix, to_folder)

    @kind(f"fifo{_suffix}")
    def _(folder: Path, suffix: str = _suffix) -> None:
        def to_fifo(path: Path) -> None:
            path.unlink()
            os.mkfifo(path)

        spoil(folder, suffix, to_fifo)

    @kind(f"link-to-itself{_suffix}")
    def _(folder: Path, suffix: str = _suffix) -> None:
        def to_loop(path: Path) -> None:
            path.unlink()
            path.symlink_to(path.name)

        spoil(folder, suffix, to_loop)

    @kind(f"newline-in-name{_suffix}")
    def _(folder: Path, suffix: str = _suffix) -> None:
        spoil(folder, suffix, lambda path: path.rename(path.with_name(f"c\n1{suffix}")))

    @kind(f"surrogate-in-name{_suffix}")
    def _(folder: Path, suffix: str = _suffix) -> None:
        def rename(path: Path) -> None:
            os.rename(path, os.fsencode(path.parent) + b"/c\xff1" + suffix.encode())

        spoil(folder, suffix, rename)

    @kind(f"label-missing{_suffix}", "unlabelled-images")
    def _(folder: Path, suffix: str = _suffix) -> None:
        spoil(folder, suffix, lambda path: (folder / "labels" / path.name).unlink())

    @kind(f"image-missing{_suffix}", "orphan-labels")
    def _(folder: Path, suffix: str = _suffix) -> None:
        spoil(folder, suffix, lambda path: path.unlink())

    @kind(
        f"shape-differs{_suffix}",
        "geometry-differs" if _suffix.startswith(".nii") else "shape-mismatch",
    )
    def _(folder: Path, suffix: str = _suffix) -> None:
        spoil(folder, suffix, lambda path: write(path, phantom(1)[0][1:]))

    @kind(f"copy{_suffix}", "copy-left-out")
    def _(folder: Path, suffix: str = _suffix) -> None:
        for seed, name in ((0, "a"), (1, "b"), (0, "c"), (2, "d")):
            put(folder, *phantom(seed), name, suffix)


# ---- which value is the background, and what lies in what ---------------------------------


def inverted(label: Array, value: int = 1) -> Array:
    """0 where the objects are."""
    return np.where(label > 0, 0, value).astype(np.uint8)


def nested(label: Array, classes: int = 3) -> Array:
    """Each class within the one before, from the border of the objects to their middle."""
    depth = ndimage.distance_transform_edt(label > 0)
    return sum(((depth > 1.5 * k) for k in range(classes)), np.zeros(label.shape, np.uint8))


for _value in (1, 255):

    @kind(f"inverted-{_value}", "label-inverted")
    def _(folder: Path, value: int = _value) -> None:
        three(folder, lambda i, m, _: (i, inverted(m, value)))

    @kind(f"inverted-{_value}-classes", "label-inverted", label_kind="classes")
    def _(folder: Path, value: int = _value) -> None:
        three(folder, lambda i, m, _: (i, inverted(m, value)))


@kind("inverted-pictures", "label-inverted", slices=False)
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed, (96, 96), 20)
        put(folder, image, inverted(label, 255), f"c{seed}", ".png")


@kind("one-of-three-inverted", "label-inverted")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i, inverted(m) if s == 1 else (m > 0).astype(np.uint8)))


@kind("background-is-1", "label-inverted", "-ids-nested")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, m + 1))


@kind("background-is-999", "label-inverted", "-ids-nested")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, np.where(m == 0, 999, m).astype(np.uint16)))


def _cells(shape: tuple[int, ...], seed: int, count: int) -> Array:
    points = np.random.default_rng(seed).uniform(0, 1, (count, 3)) * shape
    where = np.stack(np.indices(shape), -1)[..., None, :]
    return np.argmin(((where - points) ** 2).sum(-1), -1) + 1


for _count in (8, 30):

    @kind(f"membranes-of-{_count}", "-label-inverted", *SOUND)
    def _(folder: Path, count: int = _count) -> None:
        def mask(label: Array, seed: int) -> tuple[Array, Array]:
            edges = ndimage.morphological_gradient(_cells(label.shape, seed, count), 3) > 0
            image = 150 - 90 * ndimage.gaussian_filter(edges.astype(float), 0.7)
            noise = np.random.default_rng(seed).normal(0, 8, image.shape)
            return (image + noise).astype(np.uint8), edges.astype(np.uint8)

        three(folder, lambda _, m, s: mask(m, s))


@kind("cells-so-close-that-they-are-one", "-label-inverted", slices=False)
def _(folder: Path) -> None:
    y, x = np.indices((120, 120))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mask = np.zeros((120, 120), np.uint8)
        for cy in range(8, 120, 15):
            for cx in range(8, 120, 15):
                dy, dx = rng.normal(0, 0.4, 2)
                mask[(y - cy - dy) ** 2 + (x - cx - dx) ** 2 < 8.3**2] = 1
        image = 60 + 80 * ndimage.gaussian_filter(mask.astype(float), 0.7)
        noisy = image + rng.normal(0, 6, mask.shape)
        put(folder, noisy.clip(0, 255).astype(np.uint8), mask, f"c{seed}", ".png")


@kind("nested-classes-as-instances", "ids-nested", "-label-antialiased")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, nested(m)))


@kind("nested-classes", "-ids-nested", *SOUND, label_kind="classes")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, nested(m)))


@kind("thin-border-class", "-ids-nested", *SOUND, label_kind="classes")
def _(folder: Path) -> None:
    def mark(label: Array) -> Array:
        inner = ndimage.binary_erosion(label > 0)
        return ((label > 0) + inner.astype(np.uint8)).astype(np.uint8)

    three(folder, lambda i, m, _: (i, mark(m)))


@kind("cells-and-nuclei-in-one-file", "ids-nested")
def _(folder: Path) -> None:
    def both(label: Array) -> Array:
        inner = ndimage.distance_transform_edt(label > 0) > 2
        return np.where(inner, label + 100, label).astype(np.uint16)

    three(folder, lambda i, m, _: (i, both(m)))


def stacked(folder: Path, change: Callable[[Array], Array]) -> None:
    """Three cases whose labels have channels."""
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image, None, f"c{seed}", ".npy")
        (folder / "labels").mkdir(exist_ok=True)
        np.save(folder / "labels" / f"c{seed}.npy", change(label))


for _name, _change in {
    "nested": lambda m: np.stack([nested(m) > k for k in range(3)]).astype(np.uint8),
    "valued": lambda m: np.stack([(k + 1) * (nested(m) > k) for k in range(3)]).astype(np.uint8),
    "floating": lambda m: np.stack([nested(m) > k for k in range(3)]).astype(np.float32),
    "overlapping": lambda m: np.stack([m > 0, np.roll(m, 4, 2) > 0]).astype(np.uint8),
}.items():

    @kind(f"regions-{_name}", "label-regions", label_axes="CZYX")
    def _(folder: Path, change: Callable[[Array], Array] = _change) -> None:
        stacked(folder, change)


@kind("one-hot-with-values", "label-one-hot", label_axes="CZYX")
def _(folder: Path) -> None:
    stacked(folder, lambda m: np.stack([(k + 1) * (nested(m) == k) for k in range(4)]))


# ---- images -----------------------------------------------------------------------------


@kind("nan", "not-finite")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (np.where(i > 150, np.nan, i).astype(np.float32), m))


@kind("infinite", "not-finite")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (np.where(i > 150, np.inf, i).astype(np.float32), m))


@kind("constant", "constant-image")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i * (s != 1), m))


@kind("blank-sections", "blank-planes")
def _(folder: Path) -> None:
    def blank(image: Array) -> Array:
        image = image.copy()
        image[[5, 9]] = 0
        return image

    three(folder, lambda i, m, s: (blank(i), m))


@kind("dtypes-differ", "mixed-dtypes")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i.astype(np.uint16 if s else np.uint8), m))


@kind("dimensions-differ", "mixed-dimensions")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i, m) if s else (i[12], m[12]))


@kind("no-labels", "no-labels")
def _(folder: Path) -> None:
    three(folder, lambda i, m, s: (i, None))


@kind("no-spacing", "unknown-spacing")
def _(folder: Path) -> None:
    for seed in range(3):
        put(folder, *phantom(seed), f"c{seed}", ".npy")


@kind("sparse-sections", "sparse-label")
def _(folder: Path) -> None:
    def sparse(label: Array) -> Array:
        kept = np.zeros_like(label)
        kept[::8] = label[::8]
        return kept

    three(folder, lambda i, m, s: (i, sparse(m)))


@kind("huge-floats", "values-too-large")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image * 1e300, label, f"c{seed}", ".npy")


# ---- files that claim more than they hold -------------------------------------------------


def beside(folder: Path, name: str, content: bytes) -> None:
    """Two sound cases and an image of the given bytes."""
    for seed in range(2):
        put(folder, *phantom(seed), f"c{seed}")
    (folder / "images" / name).write_bytes(content)
    np.save(folder / "labels" / f"{name.partition('.')[0]}.npy", phantom(2)[1])


def _npy_of(shape: tuple[int, ...]) -> bytes:
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


@kind("npy-of-10-18", "unreadable")
def _(folder: Path) -> None:
    beside(folder, "x.npy", _npy_of((10**6, 10**6, 10**6)) + bytes(100))


@kind("nifti-of-10-13", "unreadable")
def _(folder: Path) -> None:
    head = nibabel.Nifti1Header()
    head.set_data_shape((30000, 30000, 30000))
    head.set_data_dtype(np.uint8)
    beside(folder, "x.nii", head.binaryblock + bytes(4))


@kind("gzip-bomb", "shape-mismatch")
def _(folder: Path) -> None:
    head = nibabel.Nifti1Header()
    head.set_data_shape((10, 10, 10))
    head.set_data_dtype(np.uint8)
    body = gzip.compress(head.binaryblock + bytes(4) + bytes(900), 9) + gzip.compress(
        bytes(1 << 28), 9
    )
    beside(folder, "x.nii.gz", body[:-4000])


@kind("npz-bomb", "shape-mismatch")
def _(folder: Path) -> None:
    beside(folder, "x.npz", b"")
    with zipfile.ZipFile(folder / "images" / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("raw.npy", _npy_of((1 << 10, 1 << 9, 1 << 9)) + bytes(1 << 28))


@kind("png-bomb", "unreadable")
def _(folder: Path) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    pixels = zlib.compressobj(9)
    data = b"".join(pixels.compress(bytes(20001) * 100) for _ in range(200)) + pixels.flush()
    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    for seed in range(2):
        put(folder, *phantom(seed, (96, 96), 12), f"c{seed}")
    (folder / "images" / "x.png").write_bytes(content)
    np.save(folder / "labels" / "x.npy", phantom(2, (96, 96), 12)[1])


@kind("hdf5-of-10-18")
def _(folder: Path) -> None:
    for seed in range(2):
        put(folder, *phantom(seed), f"c{seed}")
    with h5py.File(folder / "images" / "x.h5", "w") as file:
        file.create_dataset("raw", (10**6,) * 3, "u1", chunks=(64,) * 3)
    np.save(folder / "labels" / "x.npy", phantom(2)[1])


@kind("zarr-of-10-18")
def _(folder: Path) -> None:
    for seed in range(2):
        put(folder, *phantom(seed), f"c{seed}")
    path = folder / "images" / "x.zarr"
    zarr.create_array(path, shape=(10**6,) * 3, chunks=(64,) * 3, dtype="u1")
    np.save(folder / "labels" / "x.npy", phantom(2)[1])


@kind("deflate-tiff-bomb", "shape-mismatch")
def _(folder: Path) -> None:
    for seed in range(2):
        put(folder, *phantom(seed), f"c{seed}")
    planes = (np.zeros((4096, 4096), np.uint8) for _ in range(16))
    tifffile.imwrite(
        folder / "images" / "x.tif", planes, shape=(16, 4096, 4096), dtype=np.uint8,
        compression="zlib", metadata={"axes": "ZYX"},
    )  # fmt: skip
    np.save(folder / "labels" / "x.npy", phantom(2)[1])


# ---- where things lie ---------------------------------------------------------------------


@kind("nifti-mirrored", "geometry-differs")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image, None, f"c{seed}", ".nii.gz")
        (folder / "labels").mkdir(exist_ok=True)
        turned = np.diag([-1, 1, 1, 1.0])
        turned[0, 3] = label.shape[2] - 1
        nii = nibabel.Nifti1Image(np.ascontiguousarray(label.T[::-1]), turned)
        nii.header.set_xyzt_units("micron")
        nibabel.save(nii, folder / "labels" / f"c{seed}.nii.gz")


@kind("nifti-shifted", "geometry-differs")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        put(folder, image, label, f"c{seed}", ".nii")
        moved = np.diag([1, 1, 1, 1.0])
        moved[1, 3] = 20
        nii = nibabel.Nifti1Image(np.ascontiguousarray(label.T), moved)
        nii.header.set_xyzt_units("micron")
        nibabel.save(nii, folder / "labels" / f"c{seed}.nii")


def _slices(folder: Path, images: list[int], labels: list[int]) -> None:
    image, label = phantom(0)
    for what, numbers, voxels in (("images", images, image), ("labels", labels, label)):
        (folder / what).mkdir()
        for z in numbers:
            picture(folder / what / f"s_{z:03d}.png", voxels[z].astype(np.uint8))


@kind("slices-sound", "-slices-differ", "-slices-missing")
def _(folder: Path) -> None:
    _slices(folder, list(range(24)), list(range(24)))


@kind("slices-gap-in-both", "slices-missing")
def _(folder: Path) -> None:
    _slices(folder, [z for z in range(24) if z != 7], [z for z in range(24) if z != 7])


@kind("slices-gap-elsewhere", "slices-differ", "-shape-mismatch", "-cut-objects")
def _(folder: Path) -> None:
    _slices(folder, [z for z in range(24) if z != 7], [z for z in range(24) if z != 11])


@kind("slices-other-first", "slices-differ", "-shape-mismatch", "-cut-objects")
def _(folder: Path) -> None:
    _slices(folder, list(range(20)), list(range(2, 22)))


@kind("slice-of-another-size", "stack-broken")
def _(folder: Path) -> None:
    _slices(folder, list(range(24)), list(range(24)))
    for what in ("images", "labels"):
        picture(folder / what / "s_007.png", np.ones((50, 56), np.uint8))


@kind("slice-number-twice", "stack-broken")
def _(folder: Path) -> None:
    _slices(folder, list(range(24)), list(range(24)))
    (folder / "images" / "s_07.png").write_bytes((folder / "images" / "s_007.png").read_bytes())


@kind("pictures-of-many-sizes", "-stack-broken", "-read-as-stack")
def _(folder: Path) -> None:
    for what in ("images", "labels"):
        (folder / what).mkdir()
        for number in range(12):
            side = 40 + 4 * (number % 5)
            rng = np.random.default_rng(number)
            picture(folder / what / f"p{number}.png", rng.integers(0, 9, (side, 60), np.uint8))


@kind("image-of-complex-numbers", "unreadable")
def _(folder: Path) -> None:
    spoil(folder, ".npy", lambda path: np.save(path, phantom(1)[0].astype(np.complex64)))


@kind("image-without-voxels", "unreadable")
def _(folder: Path) -> None:
    spoil(folder, ".npy", lambda path: np.save(path, np.zeros((0, 56, 56), np.uint8)))


@kind("image-of-one-axis", "unreadable")
def _(folder: Path) -> None:
    spoil(folder, ".npy", lambda path: np.save(path, np.zeros(100, np.uint8)))


@kind("image-of-records", "unreadable")
def _(folder: Path) -> None:
    kinds = [("a", "u1"), ("b", "u2")]
    spoil(folder, ".npy", lambda path: np.save(path, np.zeros((24, 56, 56), kinds)))


@kind("link-to-nowhere", "unreadable")
def _(folder: Path) -> None:
    def lead_astray(path: Path) -> None:
        path.unlink()
        path.symlink_to("/nowhere/there.tif")

    spoil(folder, ".tif", lead_astray)


@kind("labels-linked-to-images", "image-equals-label")
def _(folder: Path) -> None:
    for seed in range(3):
        put(folder, *phantom(seed), f"c{seed}")
        (folder / "labels" / f"c{seed}.tif").unlink()
        (folder / "labels" / f"c{seed}.tif").symlink_to(folder / "images" / f"c{seed}.tif")


@kind("name-that-runs-backwards", "unprintable-name")
def _(folder: Path) -> None:
    for seed in range(2):
        put(folder, *phantom(seed), "\u202eevil" if seed else "a")


@kind("one-name-in-two-normal-forms", "!SourceError: has the same stem")
def _(folder: Path) -> None:
    put(folder, *phantom(0), "e\u0301")
    put(folder, *phantom(1), "\u00e9")


@kind("names-that-are-options", *SOUND)
def _(folder: Path) -> None:
    for seed, name in enumerate(("--help", "-rf", "{x}", "%s", "null", "1e5: #x")):
        put(folder, *phantom(seed), name)


@kind("names-differ-in-case", "names-alike")
def _(folder: Path) -> None:
    put(folder, *phantom(0), "Cell")
    put(folder, *phantom(1), "cell")


@kind("tiff-pages-in-a-circle", "unreadable")
def _(folder: Path) -> None:
    def circle(path: Path) -> None:
        data = bytearray(path.read_bytes())
        order = "<" if data[:2] == b"II" else ">"
        (first,) = struct.unpack(f"{order}I", data[4:8])
        (tags,) = struct.unpack(f"{order}H", data[first : first + 2])
        end = first + 2 + 12 * tags
        path.write_bytes(data[:end] + struct.pack(f"{order}I", first) + data[end + 4 :])

    spoil(folder, ".tif", circle)


@kind("gzip-with-garbage-behind", "unreadable")
def _(folder: Path) -> None:
    spoil(folder, ".nii.gz", lambda path: path.write_bytes(path.read_bytes() + b"garbage" * 9))


@kind("nifti-rotated", "geometry-differs")
def _(folder: Path) -> None:
    for seed in range(2):
        image, label = phantom(seed)
        put(folder, image, None, f"c{seed}", ".nii")
        (folder / "labels").mkdir(exist_ok=True)
        turned = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        nii = nibabel.Nifti1Image(np.ascontiguousarray(label.T.swapaxes(0, 1)), turned)
        nii.header.set_xyzt_units("micron")
        nibabel.save(nii, folder / "labels" / f"c{seed}.nii")


for _name, _change in {
    "cut": lambda text: text[: len(text) // 2],
    "shape": lambda text: text.replace("24,", '"big",').replace("24", '"big"', 1),
    "codec": lambda text: text.replace('"zstd"', '"nobody-knows"'),
}.items():

    @kind(f"zarr-metadata-{_name}", "unreadable")
    def _(folder: Path, change: Callable[[str], str] = _change) -> None:
        zarr.create_array(folder / "a.zarr", data=phantom(0)[0])
        path = folder / "a.zarr" / "zarr.json"
        path.write_text(change(path.read_text()))


@kind("hdf5-cut", "unreadable")
def _(folder: Path) -> None:
    for seed in range(2):
        image, label = phantom(seed)
        with h5py.File(folder / f"c{seed}.h5", "w") as file:
            file["raw"], file["label"] = image, label
    data = (folder / "c1.h5").read_bytes()
    (folder / "c1.h5").write_bytes(data[: len(data) // 2])


@kind("hdf5-without-voxels", "file-left-out")
def _(folder: Path) -> None:
    for seed in range(3):
        image, label = phantom(seed)
        with h5py.File(folder / f"c{seed}.h5", "w") as file:
            file["raw"] = h5py.Empty("f4") if seed == 2 else image
            file["label"] = label


# ---- headers of newer formats that cannot be, and files that hold less than they say -------


def _mrc(path: Path, *, at: int, value: bytes, voxels: Array | None = None) -> None:
    """An MRC file with some bytes of its header changed."""
    import mrcfile

    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(phantom(2)[0].astype(np.int16) if voxels is None else voxels)
        file.voxel_size = 10
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)


def _nrrd(folder: Path, fields: str, body: bytes = b"") -> None:
    head = f"NRRD0004\ntype: uint8\ndimension: 3\n{fields}\n\n"
    beside(folder, "x.nrrd", head.encode() + body)


def _mha(folder: Path, fields: str, body: bytes) -> None:
    head = f"ObjectType = Image\nNDims = 3\nBinaryData = True\n{fields}\n"
    tail = "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    beside(folder, "x.mha", (head + tail).encode() + body)


for _name, _at, _value in (
    ("claims-10-18", 0, struct.pack("<3i", 10**6, 10**6, 10**6)),
    ("of-negative-size", 0, struct.pack("<i", -4)),
    ("of-unknown-mode", 12, struct.pack("<i", 101)),
    ("with-negative-extension", 92, struct.pack("<i", -500)),
):

    @kind(f"mrc-{_name}", "unreadable")
    def _(folder: Path, at: int = _at, value: bytes = _value) -> None:
        beside(folder, "x.mrc", b"")
        _mrc(folder / "images" / "x.mrc", at=at, value=value)


@kind("mrc-elsewhere", "geometry-differs")
def _(folder: Path) -> None:
    beside(folder, "x.mrc", b"")
    (folder / "labels" / "x.npy").unlink()
    for what, start in (("images", 1), ("labels", 8)):
        voxels = phantom(2)[what == "labels"].astype(np.int16)
        place = struct.pack("<3i", start, 1, 1)
        _mrc(folder / what / "x.mrc", at=16, value=place, voxels=voxels)


@kind("nrrd-claims-10-18", "unreadable")
def _(folder: Path) -> None:
    _nrrd(folder, "sizes: 1000000 1000000 1000000\nencoding: gzip", gzip.compress(bytes(999)))


@kind("nrrd-skips-10-11-lines", "unreadable")
def _(folder: Path) -> None:
    fields = "sizes: 56 56 24\nencoding: raw\nline skip: 99999999999"
    _nrrd(folder, fields, phantom(2)[0].tobytes())


@kind("nrrd-of-negative-spacing", "spacing-unread")
def _(folder: Path) -> None:
    fields = 'sizes: 56 56 24\nencoding: raw\nspacings: -1 1 1\nunits: "um" "um" "um"'
    _nrrd(folder, fields, phantom(2)[0].tobytes())


@kind("nrrd-bomb", "shape-mismatch")
def _(folder: Path) -> None:
    fields = "sizes: 1024 512 512\nencoding: gzip"
    _nrrd(folder, fields, gzip.compress(bytes(1 << 28), 9))


@kind("metaimage-claims-10-18", "unreadable")
def _(folder: Path) -> None:
    fields = "CompressedData = True\nDimSize = 1000000 1000000 1000000"
    _mha(folder, fields, zlib.compress(bytes(99)))


@kind("metaimage-cut", "unreadable")
def _(folder: Path) -> None:
    _mha(folder, "DimSize = 56 56 24", phantom(2)[0].tobytes()[:-9])


for _length in ("0 0 0", "nan 1 1", "a b c"):

    @kind(f"metaimage-spacing-{_length}", "unreadable")
    def _(folder: Path, length: str = _length) -> None:
        fields = f"DimSize = 56 56 24\nElementSpacing = {length}"
        _mha(folder, fields, phantom(2)[0].tobytes())


@kind("imaris-claims-10-18", "unreadable")
def _(folder: Path) -> None:
    beside(folder, "x.ims", b"")
    with h5py.File(folder / "images" / "x.ims", "w") as file:
        channel = file.create_group("DataSet/ResolutionLevel 0/TimePoint 0/Channel 0")
        channel.create_dataset("Data", (10**6,) * 3, "u1", chunks=(64,) * 3)
        file.create_group("DataSetInfo/Image")
        for axis in "XYZ":
            channel.attrs[f"ImageSize{axis}"] = np.frombuffer(b"1000000", "S1")


def _store(path: Path, voxels: Array, driver: str, offset: int = 0, lost: int = 0) -> None:
    """An N5 or precomputed volume of which some chunks are lost."""
    import tensorstore as ts

    spec: dict[str, Any] = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
    sizes = list(voxels.shape[::-1])
    if driver == "n5":
        spec["metadata"] = {
            "dimensions": sizes, "blockSize": [28, 28, 12], "dataType": str(voxels.dtype),
            "compression": {"type": "gzip"},
        }  # fmt: skip
        ts.open(spec, create=True).result()[...] = voxels.T
        chunks = [file for file in sorted(path.rglob("*")) if file.name.isdecimal()]
        chunks = [file for file in chunks if file.is_file()]
    else:
        spec["multiscale_metadata"] = {
            "type": "image", "data_type": str(voxels.dtype), "num_channels": 1,
        }  # fmt: skip
        spec["scale_metadata"] = {
            "size": sizes, "encoding": "raw", "chunk_size": [28, 28, 12], "resolution": [8, 8, 8],
            "voxel_offset": [0, 0, offset],
        }  # fmt: skip
        ts.open(spec, create=True).result()[..., 0] = voxels.T
        chunks = sorted((path / "8_8_8").iterdir())
    for file in chunks[:lost]:
        file.unlink()


for _driver, _suffix in (("n5", ".n5"), ("neuroglancer_precomputed", ".precomputed")):

    @kind(f"chunks-lost-{_suffix[1:]}", "chunks-missing")
    def _(folder: Path, driver: str = _driver, suffix: str = _suffix) -> None:
        for seed in range(2):
            for what, voxels in zip(("images", "labels"), phantom(seed), strict=True):
                lost = 3 if (what, seed) == ("images", 1) else 0
                _store(folder / what / f"c{seed}{suffix}", voxels, driver, lost=lost)

    @kind(f"sound-{_suffix[1:]}", *SOUND)
    def _(folder: Path, driver: str = _driver, suffix: str = _suffix) -> None:
        for seed in range(2):
            for what, voxels in zip(("images", "labels"), phantom(seed), strict=True):
                _store(folder / what / f"c{seed}{suffix}", voxels, driver)


@kind("precomputed-elsewhere", "geometry-differs")
def _(folder: Path) -> None:
    for what, voxels in zip(("images", "labels"), phantom(0), strict=True):
        place = folder / what / "c0.precomputed"
        _store(place, voxels, "neuroglancer_precomputed", offset=5 * (what == "labels"))


@kind("folder-called-a-picture", "file-left-out")
def _(folder: Path) -> None:
    three(folder, lambda i, m, _: (i, m))
    (folder / "images" / "x.tif").mkdir()


# ---- configs ------------------------------------------------------------------------------


def yaml_for(folder: Path, text: str, labels: bool = True) -> Path:
    """Sound cases and a config with the given lines added."""
    three(folder, lambda i, m, s: (i, m if labels else None))
    path = folder / "v.yaml"
    path.write_text(f"data:\n  root: .\n{text}")
    return path


_CONFIGS = {
    "truth-for-a-seed": ("seed: no\n", "seed"),
    "unknown-key": ("pach: 3\n", "unknown key"),
    "negative-patch": ("plan: {patch_size: [-1, 16, 16]}\n", "patch_size"),
    "overlap-of-a-patch": (
        "plan: {patch_size: [8, 16, 16]}\npatching: {name: sequential, overlap: [8, 4, 4]}\n",
        "overlap",
    ),
    "reference-channel": (
        "patching: {name: stratified, filter: {name: max, threshold: 3, ref_channel: 4}}\n",
        "ref_channel",
    ),
    "aliases": (
        "augment: &a [&b [1,1,1,1,1,1,1,1,1], *b, *b, *b, *b, *b, *b, *b]\nseed: [*a, *a]\n",
        "v.yaml",
    ),
    "unset-variable": ("output: {dir: $VOLPREP_UNSET_PLACE/x}\n", "environment variable"),
    "finding-misspelled": (
        "findings: {ignore: [unknown-spacin]}\n",
        "mean unknown-spacing",
    ),
}
for _name, (_text, _words) in _CONFIGS.items():

    @kind(f"yaml-{_name}", f"!ConfigError: {_words}")
    def _(folder: Path, text: str = _text) -> Path:
        return yaml_for(folder, text)


@kind("yaml-copy-paste-without-labels", "!ConfigError: copy_paste")
def _(folder: Path) -> Path:
    return yaml_for(folder, "augment: [copy_paste]\n", labels=False)


@kind("yaml-filter-mask-without-masks", "option-idle")
def _(folder: Path) -> Path:
    return yaml_for(folder, "patching: {name: stratified, filter: {name: mask, coverage: 0.5}}\n")


@kind("yaml-foreground-without-labels", "option-idle")
def _(folder: Path) -> Path:
    return yaml_for(folder, "preprocess: {region: foreground}\n", labels=False)


@kind("yaml-in-json", *SOUND)
def _(folder: Path) -> Path:
    three(folder, lambda i, m, s: (i, m))
    path = folder / "v.json"
    path.write_text(json.dumps({"data": {"root": "."}}))
    return path


@kind("yaml-is-a-folder", "!SourceError")
def _(folder: Path) -> None:
    (folder / "nothing").mkdir()


@kind("two-channels-one-turned", "-labels-misplaced", axes="CZYX")
def _(folder: Path) -> None:
    image, label = phantom()
    put(folder, np.stack([image, image[::-1]]), label, suffix=".npy")


@kind("sections-labelled-by-themselves", "ids-by-section")
def _(folder: Path) -> None:
    def anew(label: Array) -> Array:
        numbers = np.arange(len(label), dtype=np.uint16)[:, None, None]
        return np.where(label > 0, (7 * label + 31 * numbers) % 997 + 1, 0).astype(np.uint16)

    three(folder, lambda i, m, _: (i, anew(m)))


for _name, _turned in (
    ("half-turn", lambda m: m[:, ::-1, ::-1]),
    ("quarter-turn", lambda m: np.rot90(m, 1, (1, 2))),
    ("point-mirror", lambda m: m[::-1, ::-1, ::-1]),
):

    @kind(f"label-in-a-{_name}", "labels-misplaced", "-sparse-label")
    def _(folder: Path, turned: Callable[[Array], Array] = _turned) -> None:
        three(folder, lambda i, m, _: (i, np.ascontiguousarray(turned(m))))


@kind("pipe-in-a-zarr", "unreadable")
def _(folder: Path) -> None:
    for what in ("images", "labels"):
        (folder / what).mkdir()
        zarr.save_array(str(folder / what / "c0.zarr"), phantom()[what == "labels"], zarr_format=2)
    chunk = folder / "images/c0.zarr/0.0.0"
    chunk.unlink()
    os.mkfifo(chunk)


for _name, _bytes in (("empty", b""), ("a-page", b"<html>"), ("cut", b"PK\x03\x04" + bytes(40))):

    @kind(f"zip-archive-that-is-{_name}", "unreadable")
    def _(folder: Path, data: bytes = _bytes) -> None:
        put(folder, *phantom())
        (folder / "images/c1.zarr.zip").write_bytes(data)


@kind("hdf5-label-linked-to-nowhere", "unreadable")
def _(folder: Path) -> None:
    with h5py.File(folder / "c0.h5", "w") as file:
        file["raw"], file["label"] = phantom()[0], h5py.SoftLink("/nope")


@kind("hdf5-image-of-texts", "unreadable", "-label-without-image")
def _(folder: Path) -> None:
    with h5py.File(folder / "c0.h5", "w") as file:
        file["raw"], file["label"] = np.array([b"a", b"b"]), phantom()[1]


@kind("pipe-beside-the-cases", "-unreadable")
def _(folder: Path) -> None:
    put(folder, *phantom())
    os.mkfifo(folder / "dataset.json")
