"""Write a small phantom data set: confocal-like nuclei with instance labels, as ImageJ TIFF.

    python scripts/make_demo_data.py DIR [--volumes 5] [--shape 40 128 128] [--seed 0]

Each volume is a tissue of ellipsoidal nuclei, some touching, seen through an
elongated point-spread function, with uneven illumination, shot noise and read-out
noise. Spacing 0.3 x 0.1 x 0.1 µm is stored in the files. DIR/images and
DIR/labels hold files of the same names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage

SPACING = np.array([0.3, 0.1, 0.1])


def draw_nuclei(
    rng: np.random.Generator, shape: tuple[int, int, int], count: int
) -> npt.NDArray[np.uint16]:
    """Ellipsoids of random size and direction; where two meet, the later one gives way."""
    labels = np.zeros(shape, np.uint16)
    extent = np.array(shape) * SPACING
    for label in range(1, count + 1):
        centre = rng.uniform(0, extent)
        radii = rng.uniform(0.7, 1.5, 3)
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        low = np.maximum(((centre - 1.5) / SPACING).astype(int), 0)
        high = np.minimum(((centre + 1.5) / SPACING).astype(int) + 2, shape)
        grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1)
        distance = (((grid * SPACING - centre) @ turn / radii) ** 2).sum(-1)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        free = labels[box] == 0
        labels[box][(distance < 1) & free] = label
    return labels


def photograph(rng: np.random.Generator, labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """What a confocal microscope might see of the nuclei, 12-bit."""
    brightness = np.concatenate([[0], rng.uniform(0.5, 1.0, int(labels.max()))])
    texture = ndimage.gaussian_filter(rng.normal(size=labels.shape), 1.5)
    clean = brightness[labels] * (1 + 0.8 * texture)
    blurred = ndimage.gaussian_filter(clean, (1.0, 1.2, 1.2))
    z, y, x = np.ogrid[-1 : 1 : labels.shape[0] * 1j, -1 : 1 : labels.shape[1] * 1j,
                       -1 : 1 : labels.shape[2] * 1j]  # fmt: skip
    light = 1 - 0.25 * (y**2 + x**2) / 2 - 0.15 * z
    photons = rng.poisson(np.clip(blurred * light, 0, None) * 60 + 4)
    counts = photons * 28.0 + rng.normal(100, 12, labels.shape)
    return np.clip(counts, 0, 4095).astype(np.uint16)


def write(path: Path, volume: npt.NDArray[np.uint16]) -> None:
    """An ImageJ TIFF that carries its spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path,
        volume,
        imagej=True,
        resolution=(1 / SPACING[2], 1 / SPACING[1]),
        metadata={"spacing": SPACING[0], "unit": "um", "axes": "ZYX"},
    )


def main() -> None:
    """Make the volumes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--volumes", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, default=(40, 128, 128))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shape = (args.shape[0], args.shape[1], args.shape[2])
    for number in range(args.volumes):
        rng = np.random.default_rng([args.seed, number])
        count = max(3, int(np.prod(shape) / 11_000))
        labels = draw_nuclei(rng, shape, count)
        write(args.folder / "images" / f"nuclei_{number}.tif", photograph(rng, labels))
        write(args.folder / "labels" / f"nuclei_{number}.tif", labels)
    print(f"wrote {args.volumes} phantom volumes of {shape} voxels to {args.folder}")


if __name__ == "__main__":
    main()
