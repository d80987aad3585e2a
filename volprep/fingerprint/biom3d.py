"""The fingerprint of biom3d under its own name."""

from __future__ import annotations

from copy import copy
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from volprep.errors import SourceError
from volprep.fingerprint.measure import compute_fingerprint
from volprep.fingerprint.walk import FingerprintInput
from volprep.headers import header_of, list_volumes, median_shape, median_spacing
from volprep.sources import open_labels, open_volume, stem_of

__all__ = ["data_fingerprint"]


def data_fingerprint(
    img_path: str | Path,
    msk_path: str | Path | None = None,
    num_samples: int = 10000,
    seed: int = 42,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float, float, float, float]:
    """Median shape and spacing of a folder of images, and statistics of their intensities.

    Parameters
    ----------
    img_path : path-like
        A folder of images.
    msk_path : path-like, optional
        A folder of masks, one for each image and called as it is, but for a word such as
        ``_mask``. Statistics are then those of the voxels where the mask is above 0.
    num_samples, seed : int
        Taken for the sake of the interface: every voxel is counted, nothing is drawn.

    Returns
    -------
    median_size : ndarray of int
        As `compute_median`.
    median_spacing : ndarray of float
        (Z, Y, X) in micrometres; empty where no image states it.
    mean, std, perc_005, perc_995 : float
        Each image weighs the same. Of several channels, mean and standard deviation are
        those of all, and the percentiles the outermost, so that clipping spares each.

    Raises
    ------
    SourceError
        If a file cannot be read, or an image has no mask.
    MixedShapesError
        If 2D images lie beside 3D ones, or the numbers of channels differ.

    Notes
    -----
    After biom3d `data_fingerprint`, which estimates the same figures from `num_samples`
    voxels of each image. Differs: without masks the statistics are those of all voxels,
    not zeros; a missing spacing is an empty array, not 0; masks are paired by name, not
    by their place in the sorted folder.
    """
    del num_samples, seed
    paths = list_volumes(img_path)
    volumes = [open_volume(path) for path in paths]
    headers = [header_of(volume) for volume in volumes]
    size = median_shape(headers)
    masks = {} if msk_path is None else _masks(paths, Path(msk_path))
    found = compute_fingerprint(
        [
            FingerprintInput(
                name=path.name,
                image=partial(copy, volume),
                label=partial(open_labels, masks[path]) if path in masks else None,
            )
            for path, volume in zip(paths, volumes, strict=True)
        ],
        percentiles=(0.5, 99.5),
    )
    spacing = median_spacing(headers)
    channels = found.statistics("foreground" if masks else "all", "image")
    mean = float(np.mean([s.mean for s in channels]))
    variance = float(np.mean([s.std**2 + (s.mean - mean) ** 2 for s in channels]))
    return (
        size,
        np.array([] if spacing is None else spacing, np.float64),
        mean,
        variance**0.5,
        min(s.percentile(0.5) for s in channels),
        max(s.percentile(99.5) for s in channels),
    )


def _masks(images: list[Path], folder: Path) -> dict[Path, Path]:
    """The mask of each image: of the same name, or the same but for a word such as ``mask``."""
    found = list_volumes(folder)
    masks, stems = {stem_of(path): path for path in found}, [stem_of(path) for path in images]
    if len(masks) < len(found) or len(set(stems)) < len(stems):
        raise SourceError(
            folder, "two images or two masks have one name", "give each a name of its own"
        )
    partners = {stem: stem for stem in stems}
    if not masks.keys() >= partners.keys():
        from volprep.cases import partner_stems  # takes long to load

        partners = partner_stems(stems, masks)
    for stem, path in zip(stems, images, strict=True):
        if stem not in partners:
            raise SourceError(
                path, f"no mask for it in {folder}",
                "call each mask as its image is called, and remove images without one",
            )  # fmt: skip
    return {path: masks[partners[stem]] for stem, path in zip(stems, images, strict=True)}
