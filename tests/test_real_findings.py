"""The exact findings of every real set, each judged by eye: none is false, none is missing.

Skipped where the data are not there. A change here is a change of what users are told: look at
the data before you change a line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from volprep import open_labels, open_volume, pipeline
from volprep.cases import Case, FileRef
from volprep.checks.content import judge_image
from volprep.errors import SourceError
from volprep.sources import ArrayVolume

#: A set and its options; below it what is told, by level (``*2``: twice), or words of a refusal.
TOLD = """
01_stardist_nuclei3d
    warning unknown-spacing
    info axis-guessed cut-objects
02_gonuclear_nuclei3d_h5
    info cut-objects small-objects
03_plantseg_ovule_membrane_h5
    error mixed-dimensions shape-mismatch unreadable*3
    warning mixed-dtypes unknown-spacing
    info axis-guessed cut-objects*3 no-background small-objects unit-guessed
03_plantseg_ovule_membrane_h5/sample_ovule.h5
    info cut-objects small-objects
03_plantseg_ovule_membrane_h5/train_2D_2D.h5
    info cut-objects no-background unit-guessed
03_plantseg_ovule_membrane_h5/train_2Dc_2D.h5 axes=CYX
    info cut-objects no-background unit-guessed
03_plantseg_ovule_membrane_h5/train_3D_3D.h5
    warning unknown-spacing
    info cut-objects
03_plantseg_ovule_membrane_h5/train_3Dc_3D.h5 axes=CZYX
    warning unknown-spacing
    info cut-objects
03_plantseg_ovule_membrane_h5/train_3Dc_3Dc.h5 axes=CZYX label_axes=CZYX
    error label-colours
    warning unknown-spacing
04_qcanet_embryo_nuclei3d label_dir=labels_binary
    warning one-instance unknown-spacing
    info siblings-unused sparse-label
04_qcanet_embryo_nuclei3d label_dir=labels_centers
    warning one-instance sparse-label unknown-spacing
    info axis-guessed siblings-unused
04_qcanet_embryo_nuclei3d label_dir=labels_instances
    warning unknown-spacing
    info axis-guessed cut-objects siblings-unused sparse-label
05_isbi2012_em_png_stack
    warning one-instance unknown-spacing
    info read-as-stack
05_isbi2012_em_png_stack label_kind=classes
    warning unknown-spacing
    info binary-label read-as-stack
06_fib25_neurons_png
    warning unknown-spacing
    info cut-objects read-as-stack siblings-unused small-objects
06_fib25_neurons_png/groundtruth_z000-124.h5
    error label-without-image
    warning no-labels unknown-spacing
    info siblings-unused
07_connectomics_neurons_labels_only image_dir=labels
    error label-without-image
    warning no-labels unknown-spacing
07_connectomics_neurons_labels_only/labels/pinky40_crop.tif
    error label-without-image
    warning no-labels unknown-spacing
08_nifti_totalseg_ct
    info cut-objects small-objects unit-guessed
08_nifti_totalseg_ct label_kind=classes
    info missing-classes unit-guessed
09_nifti_urocell_mito/mito_instance
    error label-without-image
    warning no-labels
09_nifti_urocell_mito/mito_binary
    error label-without-image
    warning absurd-spacing no-labels unknown-spacing
09_nifti_urocell_mito/lyso_binary
    error label-without-image
    warning absurd-spacing no-labels unknown-spacing
09_nifti_urocell_mito image_dir=mito_instance label_dir=mito_binary
    warning absurd-spacing label-without-image one-instance
    info labels-from-float siblings-unused sparse-label
10_nifti_nibabel_anatomical
    error unreadable
    warning no-labels
10_nifti_nibabel_anatomical time=cases
    warning mixed-dtypes mixed-spacings no-labels
    info intensities-scaled
11_imagej_tiff_plantseg
    info cut-objects*2
12_ometiff
    info cut-objects siblings-unused small-objects
12_ometiff/imagej
    warning no-labels
13_png_tiles_isbi
    warning one-instance unknown-spacing
13_png_tiles_isbi label_kind=classes
    warning unknown-spacing
    info binary-label
14_2d_bbbc007_pairs
    warning one-instance sparse-label*3 unknown-spacing
    info cut-objects labels-from-float
14_2d_bbbc007_pairs label_kind=classes
    warning sparse-label*3 unknown-spacing
    info labels-from-float
14_2d_bbbc007_pairs label_kind=classes unlabelled=0
    warning unknown-spacing
    info labels-from-float
15_2d_stardist_pair
    warning unknown-spacing
    info cut-objects
16_2d_sparse_bbbc007
    warning spacing-unread sparse-label unknown-spacing
16_2d_sparse_bbbc007 unlabelled=0
    warning spacing-unread unknown-spacing
17_2d_sparse_maize label_dir=labels_dense
    warning unknown-spacing
    info cut-objects no-background siblings-unused small-objects
17_2d_sparse_maize label_dir=annotation_sparse
    warning sparse-label unknown-spacing
    info siblings-unused
18_multichannel_planes_points_cellfinder image_dir=ch0
    warning no-labels unknown-spacing
    info read-as-stack siblings-unused
19_omezarr_nuclei
    warning copy-left-out
    info cut-objects small-objects
19_omezarr_nuclei/1135_v04.zarr
    info cut-objects small-objects
20_3d_sparse_slices_fib25 image_dir=../06_fib25_neurons_png/images label_dir=labels_sparse
    warning unknown-spacing
    info cut-objects read-as-stack small-objects
21_2d_rgb_hela
    warning no-labels unknown-spacing
04_qcanet_embryo_nuclei3d
    refused 3 folders may hold the labels
07_connectomics_neurons_labels_only
    refused labels may hold labels, but no folder is called images
07_connectomics_neurons_labels_only/labels
    refused labels/ is called as labels are, and there is no image
09_nifti_urocell_mito
    refused no known layout of images and labels
12_ometiff/aics_real
    refused are called as labels are, and there is no image
17_2d_sparse_maize
    refused 2 folders may hold the labels
18_multichannel_planes_points_cellfinder
    refused no known layout of images and labels
20_3d_sparse_slices_fib25
    refused labels_sparse may hold labels, but no folder is called images
"""


def told() -> list[tuple[str, dict[str, str], str, Counter[str]]]:
    """(set, options, words of the refusal, ``level name`` with its count) of each."""
    sets: list[tuple[str, dict[str, str], str, Counter[str]]] = []
    for line in TOLD.strip().splitlines():
        first, *rest = line.split()
        if not line.startswith(" "):
            options = dict(word.split("=", 1) for word in rest)
            sets.append((first, options, "", Counter()))
        elif first == "refused":
            sets[-1] = (*sets[-1][:2], " ".join(rest), Counter())
        else:
            for word in rest:
                name, _, count = word.partition("*")
                sets[-1][3][f"{first} {name}"] += int(count or 1)
    return sets


@pytest.mark.parametrize(
    ("name", "given", "refused", "wanted"),
    told(),
    ids=[" ".join([name, *given.values()]) for name, given, _, _ in told()],
)
def test_real_data_gets_exactly_the_findings_it_deserves(
    real_data: Callable[[str], Path],
    name: str,
    given: dict[str, str],
    refused: str,
    wanted: Counter[str],
) -> None:
    options: dict[str, Any] = {k: int(v) if v.isdigit() else v for k, v in given.items()}
    config = pipeline.load_target(real_data(name), **options)
    if refused:
        with pytest.raises(SourceError, match=re.escape(refused)):
            pipeline.list_cases(config)
        return
    found = pipeline.check(config, pipeline.list_cases(config)).findings
    assert Counter(f"{f.level} {f.name}" for f in found) == wanted


def looks_like_a_label(voxels: np.ndarray) -> bool:
    case = Case("a", (FileRef(Path("a.npy")),))
    return bool(list(judge_image(case, ArrayVolume(voxels[None]))))


IMAGES = [
    ("01_stardist_nuclei3d/images/img3d.tif", None),
    ("02_gonuclear_nuclei3d_h5/1135_mini.h5", "raw"),
    ("03_plantseg_ovule_membrane_h5/sample_ovule.h5", "raw"),
    ("05_isbi2012_em_png_stack/images", None),
    ("08_nifti_totalseg_ct/images/example_ct_sm.nii.gz", None),
    ("11_imagej_tiff_plantseg/images/rgb_3D_0.tiff", None),
    ("14_2d_bbbc007_pairs/images/A9 p5d (cropped 1).tif", None),
    ("15_2d_stardist_pair/images/img2d.tif", None),
    ("16_2d_sparse_bbbc007/images/A9 p7d.tif", None),
    ("17_2d_sparse_maize/images/maize_clsm.tif", None),
]


@pytest.mark.parametrize(("name", "key"), IMAGES)
def test_dark_coarse_and_smooth_images_are_not_taken_for_labels(
    real_data: Callable[[str], Path], name: str, key: str | None
) -> None:
    volume = open_volume(real_data(name), key)
    middle = volume.shape[1] // 2
    grey = volume.read()[0, max(0, middle - 4) : middle + 4].astype(float)
    low, high = np.percentile(grey, [0.5, 99.8])
    grey = np.clip((grey - low) / (high - low), 0, 1)
    rng = np.random.default_rng(0)
    for photons in (0.2, 1, 5):
        assert not looks_like_a_label(rng.poisson(photons * grey).astype(np.uint8))
    for sigma in (0, 1, 2):
        smooth = ndimage.gaussian_filter(grey, (0, sigma, sigma))
        for values in (4, 8, 32) if sigma else (3, 4, 8, 32):
            assert not looks_like_a_label(np.round(smooth * (values - 1)).astype(np.uint8))


LABELS = [
    "01_stardist_nuclei3d/labels/img3d.tif",
    "04_qcanet_embryo_nuclei3d/labels_binary/16_cell_stage.tif",
    "05_isbi2012_em_png_stack/labels",
    "06_fib25_neurons_png/labels/fib25_bodies.tif",
    "08_nifti_totalseg_ct/labels/example_ct_sm.nii.gz",
    "12_ometiff/aics_real/TOMM20_cell_segmentation.tiff",
    "13_png_tiles_isbi/label_tiles.json",
    "14_2d_bbbc007_pairs/masks/A9 p5d (cropped 2).tif",
    "16_2d_sparse_bbbc007/labels_sparse/A9 p7d.tif",
    "17_2d_sparse_maize/labels_dense/maize_clsm.tif",
    "20_3d_sparse_slices_fib25/labels_sparse/fib25.tif",
]


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_never_taken_for_images(real_data: Callable[[str], Path], name: str) -> None:
    assert looks_like_a_label(open_labels(real_data(name)).read()[0])
