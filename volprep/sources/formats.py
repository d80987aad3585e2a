"""The formats that are read, one row each: what `volprep formats` lists and files are known by."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["FORMATS", "Format"]


class Format(NamedTuple):
    """A format of files or folders.

    Attributes
    ----------
    title : str
        As people call it.
    kind : str
        The module of this family that reads it.
    suffixes : tuple of str
        Of its files and folders.
    read : str
        What is read of it.
    package : str
        What reads it; a module that can be imported where it is installed.
    extra : str or None
        The extra of volprep that brings it; None where volprep always does.
    """

    title: str
    kind: str
    suffixes: tuple[str, ...]
    read: str
    package: str
    extra: str | None = None

    @property
    def installed(self) -> bool:
        """Whether it can be read here."""
        return find_spec(self.package) is not None

    @property
    def install(self) -> str | None:
        """What to do to read it here; None where it can be."""
        return None if self.installed else f'pip install "volprep[{self.extra}]"'


FORMATS = (
    Format(
        "TIFF, BigTIFF, OME-TIFF, ImageJ, LSM",
        "tiff",
        (".tif", ".tiff", ".ome.tif", ".ome.tiff", ".btf", ".ome.btf", ".tf8", ".ome.tf8", ".lsm"),
        "axes, spacing; several files of one OME-TIFF",
        "tifffile",
    ),
    Format("NIfTI", "nifti", (".nii", ".nii.gz"), "axes, spacing, place", "isal"),
    Format("HDF5", "hdf5", (".h5", ".hdf5", ".hdf"), "datasets by key, links, spacing", "h5py"),
    Format(
        "Zarr 2 and 3, OME-Zarr", "zarr", (".zarr", ".ome.zarr"), "arrays by key, levels, labels,"
        " spacing, place", "zarr",
    ),
    Format(
        "zipped Zarr, zipped OME-Zarr", "zarr", (".zarr.zip", ".ome.zarr.zip", ".ozx"), "as Zarr",
        "tensorstore", "cloud",
    ),
    Format(
        "N5", "n5", (".n5",), "arrays by key, levels, resolution", "tensorstore", "cloud",
    ),
    Format(
        "Neuroglancer precomputed", "precomputed", (".precomputed",),
        "raw, compressed_segmentation, jpeg; levels, resolution, voxel offset", "tensorstore",
        "cloud",
    ),
    Format("NumPy", "npy", (".npy", ".npz"), "arrays by key; never pickled ones", "numpy"),
    Format(
        "PNG, JPEG", "pictures", (".png", ".jpg", ".jpeg"), "alone, and folders of slices",
        "imagecodecs",
    ),
    Format("tiles of PyTorch Connectomics", "tiles", (".json",), "grids of tiles", "imagecodecs"),
    Format("MRC", "mrc", (".mrc", ".rec", ".st"), "axes, spacing", "mrcfile", "bio"),
    Format(
        "NRRD", "nrrd", (".nrrd", ".nhdr"), "raw and gzip; axes, spacing, place", "nrrd", "bio"
    ),
    Format(
        "MetaImage", "metaimage", (".mha", ".mhd"), "axes, spacing, place", "SimpleITK", "bio"
    ),
    Format("Zeiss CZI", "czi", (".czi",), "scenes by key, axes, spacing", "bioio_czi", "bio"),
    Format("Nikon ND2", "nd2", (".nd2",), "positions by key, axes, spacing", "bioio_nd2", "bio"),
    Format("Leica LIF", "lif", (".lif",), "images by key, axes, spacing", "bioio_lif", "bio"),
    Format("Imaris", "imaris", (".ims",), "levels by key, spacing, place", "h5py"),
)  # fmt: skip
