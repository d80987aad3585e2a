"""Real files, unchanged: shape, type, spacing and label ids as their README gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from volprep.errors import SourceError
from volprep.sources import Volume, open_labels, open_volume

Find = Callable[[str], Path]

NUCLEI = (0.28371836501901143, 0.12678642066720086, 0.12678642066720086)
OVULE = (0.235, 0.15, 0.15)

# file, key, axes, (C, Z, Y, X), dtype, lowest, highest, spacing, a note
IMAGES: list[tuple[Any, ...]] = [
    ("01_stardist_nuclei3d/images/img3d.tif", None, None,
     (1, 31, 61, 57), "uint16", 104, 375, None, "page axis Q read as Z"),
    ("02_gonuclear_nuclei3d_h5/1135_mini.h5", None, None,
     (1, 100, 100, 100), "uint8", 2, 255, NUCLEI, None),
    ("03_plantseg_ovule_membrane_h5/sample_ovule.h5", None, None,
     (1, 32, 128, 128), "uint8", 13, 254, OVULE, None),
    ("03_plantseg_ovule_membrane_h5/train_3Dc_3D.h5", "raw", "CZYX",
     (2, 75, 75, 75), "uint16", 0, 65535, None, "no spacing stored"),
    ("03_plantseg_ovule_membrane_h5/train_2Dc_2D.h5", "raw", "CYX",
     (2, 1, 128, 128), "uint16", 0, 65535, OVULE, "3 entries for a 2D array"),
    ("03_plantseg_ovule_membrane_h5/train_2Dc_2D.h5", "raw", None,
     (1, 2, 128, 128), "uint16", 0, 65535, OVULE, "first axis (2) read as Z"),
    ("04_qcanet_embryo_nuclei3d/images/16_cell_stage.tif", None, None,
     (1, 51, 120, 122), "uint16", 92, 1249, None, "no spacing stored"),
    ("05_isbi2012_em_png_stack/images", None, None,
     (1, 30, 512, 512), "uint8", 0, 255, None, "no spacing stored"),
    ("06_fib25_neurons_png/images", None, None,
     (1, 125, 250, 250), "uint8", 31, 217, None, "no spacing stored"),
    ("08_nifti_totalseg_ct/images/example_ct_sm.nii.gz", None, None,
     (1, 30, 101, 122), "int16", -1100, 1207, (3000, 3000, 3000), "unit unknown"),
    ("10_nifti_nibabel_anatomical/anatomical.nii", None, None,
     (1, 25, 41, 33), "int16", -610, 30393, (2000, 2000, 2000), None),
    ("11_imagej_tiff_plantseg/images/rgb_3D_0.tiff", None, None,
     (1, 75, 75, 75), "uint16", 0, 65535, (1, 1, 1), None),
    ("11_imagej_tiff_plantseg/images/rgb_3D_1.tiff", None, None,
     (1, 75, 75, 75), "uint16", 0, 65535, (1, 1, 1), None),
    ("12_ometiff/images/1135.ome.tif", None, None,
     (1, 100, 100, 100), "uint8", 2, 255, NUCLEI, None),
    ("12_ometiff/imagej/1135_imagej.tif", None, None,
     (1, 100, 100, 100), "uint8", 2, 255, NUCLEI, None),
    ("13_png_tiles_isbi/image_tiles/00/0_0.png", None, None,
     (1, 1, 256, 256), "uint8", 3, 247, None, "no spacing stored"),
    ("14_2d_bbbc007_pairs/images/A9 p5d (cropped 1).tif", None, None,
     (1, 1, 104, 102), "uint8", 1, 160, None, "no spacing stored"),
    ("15_2d_stardist_pair/images/img2d.tif", None, None,
     (1, 1, 512, 512), "uint16", 0, 235, None, "no spacing stored"),
    ("16_2d_sparse_bbbc007/images/AS_09125_040701150004_A02f00d0.tif", None, None,
     (1, 1, 340, 340), "uint16", 1, 255, None, "print size"),
    ("17_2d_sparse_maize/images/maize_clsm.tif", None, None,
     (1, 1, 640, 639), "uint8", 0, 255, None, "no spacing stored"),
    ("18_multichannel_planes_points_cellfinder/ch0", None, None,
     (1, 6, 510, 667), "uint16", 0, 16075, None, "no spacing stored"),
    ("19_omezarr_nuclei/1135_v04.zarr", None, None,
     (1, 100, 100, 100), "uint8", 2, 255, NUCLEI, None),
    ("19_omezarr_nuclei/1135_v05.zarr", None, None,
     (1, 100, 100, 100), "uint8", 2, 255, NUCLEI, None),
    ("21_2d_rgb_hela/hela-cells.tif", None, None,
     (3, 1, 512, 672), "uint16", 0, 4095, (0.0514931, 0.0514931, 0.0514931), None),
    ("21_2d_rgb_hela/IXMtest_A02_s9.tif", None, None,
     (3, 1, 395, 695), "uint16", 135, 4095, None, "no spacing stored"),
]  # fmt: skip

# file, key, (Z, Y, X), dtype, ids without 0, highest
LABELS: list[tuple[Any, ...]] = [
    ("01_stardist_nuclei3d/labels/img3d.tif", None, (31, 61, 57), "uint16", 51, 162),
    ("02_gonuclear_nuclei3d_h5/1135_mini.h5", None, (100, 100, 100), "uint8", 54, 54),
    ("03_plantseg_ovule_membrane_h5/sample_ovule.h5", None, (32, 128, 128), "uint16", 50, 918),
    ("03_plantseg_ovule_membrane_h5/train_3Dc_3D.h5", None, (75, 75, 75), "uint16", 11, 498),
    ("03_plantseg_ovule_membrane_h5/train_2Dc_2D.h5", None, (1, 128, 128), "uint16", 16, 32),
    ("04_qcanet_embryo_nuclei3d/labels_instances/16_cell_stage.tif", None,
     (51, 120, 122), "uint8", 16, 16),
    ("05_isbi2012_em_png_stack/labels", None, (30, 512, 512), "uint8", 1, 255),
    ("06_fib25_neurons_png/groundtruth_z000-124.h5", None, (125, 250, 250), "uint32",
     10133, 10150),
    ("06_fib25_neurons_png/labels/fib25_bodies.tif", None, (125, 250, 250), "uint32",
     301, 135709),
    ("07_connectomics_neurons_labels_only/labels/pinky40_crop.tif", None,
     (128, 256, 256), "uint32", 121, 93576945),
    ("08_nifti_totalseg_ct/labels/example_ct_sm.nii.gz", None, (30, 101, 122), "uint8", 41, 117),
    ("09_nifti_urocell_mito/mito_instance/fib1-0-0-0.nii.gz", None,
     (256, 256, 256), "uint16", 39, 39),
    ("09_nifti_urocell_mito/mito_binary/fib1-0-0-0.nii.gz", None,
     (256, 256, 256), "uint32", 1, 1),
    ("11_imagej_tiff_plantseg/labels/rgb_3D_1.tiff", None, (75, 75, 75), "uint16", 7, 954),
    ("12_ometiff/labels/1135.ome.tif", None, (100, 100, 100), "uint16", 54, 54),
    ("12_ometiff/aics_real/TOMM20_cell_segmentation.tiff", None, (65, 624, 924), "uint8", 13, 13),
    ("14_2d_bbbc007_pairs/masks/A9 p5d (cropped 1).tif", None, (1, 104, 102), "uint64", 2, 2),
    ("15_2d_stardist_pair/labels/img2d.tif", None, (1, 512, 512), "uint16", 125, 183),
    ("16_2d_sparse_bbbc007/labels_sparse/A9 p7d.tif", None, (1, 340, 340), "uint32", 8, 9),
    ("17_2d_sparse_maize/labels_dense/maize_clsm.tif", None, (1, 640, 639), "uint32", 460, 460),
    ("19_omezarr_nuclei/1135_v04.zarr", "labels/instances", (100, 100, 100), "uint16", 54, 54),
    ("19_omezarr_nuclei/1135_v05.zarr", None, (100, 100, 100), "uint16", 54, 54),
    ("20_3d_sparse_slices_fib25/labels_sparse/fib25.tif", None, (125, 250, 250), "uint32",
     127, 135709),
]  # fmt: skip


@pytest.mark.parametrize("row", IMAGES, ids=lambda row: f"{row[0]}-{row[2]}")
def test_images_are_what_their_readme_says(real_data: Find, row: tuple[Any, ...]) -> None:
    name, key, axes, shape, dtype, low, high, spacing, note = row
    with open_volume(real_data(name), key, axes) as volume:
        assert (volume.shape, volume.dtype) == (shape, np.dtype(dtype))
        assert volume.spacing == (None if spacing is None else pytest.approx(spacing, rel=1e-5))
        assert note is None or any(note in text for text in volume.notes), volume.notes
        voxels = volume.read()
        assert (voxels.min(), voxels.max()) == (low, high)
        check_walk(volume, voxels)


@pytest.mark.parametrize("row", LABELS, ids=lambda row: row[0])
def test_labels_keep_every_id(real_data: Find, row: tuple[Any, ...]) -> None:
    name, key, shape, dtype, count, highest = row
    with open_labels(real_data(name), key) as volume:
        assert (volume.shape, volume.dtype) == ((1, *shape), np.dtype(dtype))
        voxels = volume.read()
        ids = np.unique(voxels)
        assert (len(ids[ids > 0]), ids[-1]) == (count, highest)
        check_walk(volume, voxels)


def check_walk(volume: Volume, voxels: Any) -> None:
    """The slabs, read afresh, are the voxels."""
    volume.close()
    for box, block in volume.slabs(max_bytes=2**19):
        np.testing.assert_array_equal(block, voxels[(slice(None), *box.slices)])


def test_time_series_are_refused(real_data: Find) -> None:
    with pytest.raises(SourceError, match="T has 20 entries"):
        open_volume(real_data("10_nifti_nibabel_anatomical/functional.nii"))


def test_channels_that_the_file_does_not_name_are_refused(real_data: Find) -> None:
    with pytest.raises(SourceError, match=r"2×75×75×75 .*axes: CZYX"):
        open_volume(real_data("03_plantseg_ovule_membrane_h5/train_3Dc_3D.h5"))


def test_labels_of_two_channels_are_refused(real_data: Find) -> None:
    path = real_data("03_plantseg_ovule_membrane_h5/train_3Dc_3Dc.h5")
    with pytest.raises(SourceError, match="labels have 2 channels"):
        open_labels(path, "label", "CZYX")


def test_the_absurd_header_of_a_mask_is_a_note(real_data: Find) -> None:
    volume = open_volume(real_data("09_nifti_urocell_mito/mito_binary/fib1-0-0-0.nii.gz"))
    assert volume.spacing is None
    assert "absurd" in volume.notes[0]
