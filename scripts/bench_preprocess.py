"""Preprocessing beside biom3d 0.1.2, and the resampling kernels beside scipy and scikit-image.

    python scripts/bench_preprocess.py [--rounds 3] [--kernels]

Makes 20 volumes of 1.3 GB (uint16 images, uint8 masks of two classes, .nii.gz; sizes
and spacings differ, the median spacing is 0.3 x 0.1 x 0.1 µm), then runs whole
processes in turn: biom3d's fingerprint, clip, z-score and resampling to the median
spacing, and volprep's fingerprint and resampling into Zarr arrays. biom3d normalises
before it stores and so stores float32; volprep stores the volume's own type and
normalises when read. Both also note where the foreground is.

The two sides compress otherwise (biom3d .nii.gz, volprep blosc-lz4), which is part of what each
writes; what that costs on disk is in the table.

Measured 2026-11-21, two idle cores of an AMD EPYC, one run of biom3d in its one thread and three
of volprep in two threads (unlike in rounds and threads; the script now runs both alike, and the
table has not been measured again since):

             wall s  CPU s  peak MB  on disk MB
    biom3d      161    161     1739         592   float32 .nii.gz
    volprep     8.0   13.5      416         824   uint16 Zarr, blosc-lz4
    ratio        20   11.9      4.2

Of the 13.5 s of CPU about 5 go into inflating the files twice, 3 into compressing, 3 into
resampling and labels, the rest into the foreground index. On disk the images take 0.55 of the
same chunks as normalised float32 in zstd (the smaller of shuffled and not); biom3d's
files are smaller still, as gzip and clipping are at work there.

    one thread, 64 x 384 x 384 to  volprep CPU ms  peer CPU ms  ratio  over copy limit
    image   64 x 512 x 512                   78.6         4180     53              3.0
    image   96 x 384 x 384                   31.1         3470    112              1.3
    image   96 x 512 x 512                    107         5760     54              3.1
    image   64 x 256 x 256                   23.3         1230     53              1.7
    labels  64 x 512 x 512                   48.0        26100    544              1.8
    labels  96 x 512 x 512                    134        36200    270              3.8
    labels  64 x 256 x 256                   11.7         6870    587              0.8

The peer of images is scipy's zoom of order 3; that of the 40 labels is scikit-image's
linear resize of each, which is what nnU-Net and biom3d do (four timed, times ten). The
limit, reading and writing once at the measured copy bandwidth, was itself measured on
the busy machine and is low by about five; on a quiet one the kernels stand 7 to 28 above.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from benchlib import BENCH, alternate, copy_bandwidth, median, peer_python, table

DATA = BENCH / "data" / "preprocess"
OUT = BENCH / "out" / "preprocess"
SPACINGS = [
    (0.3, 0.1, 0.1),
    (0.3, 0.1, 0.1),
    (0.24, 0.1, 0.1),
    (0.3, 0.12, 0.12),
    (0.36, 0.08, 0.08),
]
CHUNKS = (32, 128, 128)
DEPTH = 32


def make_volumes() -> None:
    """Twenty images with masks of two classes; made once."""
    if (DATA / "done").exists():
        return
    import nibabel
    from isal import igzip

    from volprep.preprocess import resample_image

    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (DATA / folder).mkdir(parents=True, exist_ok=True)
    for number in range(20):
        shape = (
            int(rng.integers(40, 72)),
            int(rng.integers(512, 720)),
            int(rng.integers(512, 720)),
        )
        coarse = rng.normal(
            size=(1, *(max(2, n // k) for n, k in zip(shape, (3, 12, 12), strict=True)))
        )
        field = resample_image(coarse.astype(np.float32), shape)[0]
        mask = (field > 0.7).astype(np.uint8) + (field > 1.4)
        image = np.clip(900 + 400 * field + rng.normal(0, 60, shape).astype(np.float32), 0, 65535)
        for folder, array in (
            ("images", image.astype(np.uint16)),
            ("masks", mask.astype(np.uint8)),
        ):
            spacing = SPACINGS[number % len(SPACINGS)]
            nifti = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([*spacing[::-1], 1.0]))
            nifti.header.set_xyzt_units("micron")
            with igzip.open(
                DATA / folder / f"case_{number:02}.nii.gz", "wb", compresslevel=2
            ) as file:
                file.write(nifti.to_bytes())
    (DATA / "done").touch()


def run_volprep(workers: int | None) -> None:
    """Fingerprint, target spacing, and every case resampled into Zarr arrays."""
    from volprep.autoconfig import choose_target_spacing
    from volprep.compute import default_workers, run_units
    from volprep.fingerprint import FingerprintInput, compute_fingerprint
    from volprep.preprocess import Preprocessing
    from volprep.sources import open_volume

    start = time.perf_counter()
    # The largest first, so that no worker is left alone with one at the end.
    images = sorted((DATA / "images").glob("*.nii.gz"), key=lambda path: -path.stat().st_size)
    pairs = [(path, DATA / "masks" / path.name) for path in images]
    fingerprint = compute_fingerprint(
        [
            FingerprintInput(image.name, partial(open_volume, image), partial(open_volume, label))
            for image, label in pairs
        ],
        workers=workers,
    )
    measured = time.perf_counter() - start
    spacings = [case.spacing for case in fingerprint.cases]
    settings = Preprocessing(target=choose_target_spacing(spacings, "median"))
    shutil.rmtree(OUT / "volprep", ignore_errors=True)
    for _ in run_units(partial(prepare, settings), pairs, workers=workers or default_workers()):
        pass
    print(f"fingerprint {measured:.2f} s of {time.perf_counter() - start:.2f} s")


def prepare(settings: object, pair: tuple[Path, Path]) -> None:
    """One case into two arrays."""
    from volprep.preprocess import case_layout, preprocess_case, volume_ids
    from volprep.sampling import ForegroundIndex
    from volprep.sources import open_volume
    from volprep.store import CaseWriter, StoredCase, narrowest

    image, labels = open_volume(pair[0]), open_volume(pair[1])
    layout = case_layout(image, labels, settings)
    home = OUT / "volprep" / pair[0].name.split(".")[0]
    home.mkdir(parents=True)
    writer = CaseWriter(home / "case.ome.zarr", "00" * 32, chunks=CHUNKS, spacing=layout.spacing)
    ids = volume_ids(labels)
    x = writer.image(layout.shape, layout.dtype)
    y = writer.label((1, *layout.shape[1:]), *narrowest(ids))
    preprocess_case(
        image, labels, layout, ids=ids, depth=DEPTH, memory=64 * 2**20,
        write_image=x.write, write_labels=y.write_plane,
    )  # fmt: skip
    writer.finish()
    stored = StoredCase.open(home / "case.ome.zarr").label
    ForegroundIndex.build(stored, per="class").save(home / "index.npz")


# biom3d writes beside its input, so it is given links to the same files.
PEER = f"""
import os, shutil
home = {str(OUT / "biom3d")!r}
shutil.rmtree(home, ignore_errors=True)
os.makedirs(home)
for folder in ("images", "masks"):
    os.symlink(os.path.join({str(DATA)!r}, folder), os.path.join(home, folder))
from biom3d.preprocess import auto_config_preprocess
from biom3d.utils.data_handler.file_handler import ImageManager
# It compares the spacing with a list, which numpy has refused for arrays since 1.25.
read = ImageManager._sitk_imread
def read_with_list(*args, **options):
    image, meta = read(*args, **options)
    return image, meta | {{"spacing": list(meta["spacing"])}}
ImageManager._sitk_imread = staticmethod(read_with_list)
auto_config_preprocess(
    img_path=home + "/images", msk_path=home + "/masks", num_classes=2,
    config_dir=home + "/configs/", base_config=None, ct_norm=True, no_auto_config=True, debug=True,
)
"""


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def float32_zstd_size() -> int:
    """What the same images take as float32 in zstd chunks, normalised before they are stored.

    Each chunk is taken with or without a byte shuffle, whichever is smaller.
    """
    from numcodecs import Blosc

    from volprep.geometry import aligned_blocks
    from volprep.preprocess import ResampledVolume
    from volprep.sources import open_volume
    from volprep.store import StoredCase

    codecs, total = [Blosc("zstd", 3, shuffle) for shuffle in (Blosc.SHUFFLE, Blosc.NOSHUFFLE)], 0
    for path in (DATA / "images").glob("*.nii.gz"):
        source = open_volume(path)
        home = OUT / "volprep" / path.name.split(".")[0]
        shape = StoredCase.open(home / "case.ome.zarr").image.shape
        volume = ResampledVolume(source, shape=shape[1:], dtype=np.float32)
        for band in aligned_blocks(shape, (CHUNKS[0], *shape[2:])):
            voxels = (volume.read(band) - np.float32(1364.6)) / np.float32(169.8)
            for box in aligned_blocks(band.shape, CHUNKS):
                chunk = np.ascontiguousarray(voxels[(slice(None), *box.slices)])
                total += min(len(codec.encode(chunk)) for codec in codecs)
    return total


def compare(rounds: int) -> None:
    """biom3d and volprep in turn, whole processes on the same files, as many rounds of each.

    biom3d works in one thread, and so does one side of volprep; the other takes all processors.
    Files are in the page cache on all sides, from the round that is not counted.
    """
    make_volumes()
    python = peer_python("biom3d", "torch==2.13.0", "biom3d==0.1.2", "numpy<2")
    runs = alternate(
        {
            "biom3d": [str(python), "-c", PEER],
            "volprep, one thread": [sys.executable, __file__, "--volprep", "1"],
            "volprep": [sys.executable, __file__, "--volprep", "0"],
        },
        rounds,
    )
    print(runs["volprep"][-1].output)
    rows, figures = [], {}
    for name, results in runs.items():
        figures[name] = [
            median([getattr(r, f) for r in results]) for f in ("wall", "cpu", "peak_mb")
        ]
        rows.append([name, *figures[name], size_of(OUT / name.split(",")[0]) / 1e6])
    for name in list(figures)[1:]:
        pairs = zip(figures["biom3d"], figures[name], strict=True)
        rows.append([f"biom3d / {name}", *(theirs / ours for theirs, ours in pairs), ""])
    print(table(["", "wall s", "CPU s", "peak MB", "on disk MB"], rows))
    images = sum(size_of(p) for p in (OUT / "volprep").glob("*/case.ome.zarr/0"))
    print(f"images on disk over the same as float32 zstd: {images / float32_zstd_size():.2f}")


def compare_kernels() -> None:
    """One thread: images beside scipy's zoom, labels beside scikit-image an id at a time."""
    from scipy import ndimage
    from skimage.transform import resize

    from volprep.preprocess import resample_image, resample_labels

    rng = np.random.default_rng(0)
    bandwidth = copy_bandwidth()
    rows = []
    image = rng.integers(0, 65535, (1, 64, 384, 384)).astype(np.uint16)
    for new in ((64, 512, 512), (96, 384, 384), (96, 512, 512), (64, 256, 256)):
        zoom = [m / n for m, n in zip(new, image.shape[1:], strict=True)]
        ours = best(partial(resample_image, image, new))
        theirs = best(partial(ndimage.zoom, image[0], zoom, order=3, mode="nearest", grid_mode=True,
                              output=np.float32), 2)  # fmt: skip
        limit = (image.nbytes + 2 * np.prod(new)) / bandwidth
        rows.append(["image", f"{new}", ours * 1e3, theirs * 1e3, theirs / ours, ours / limit])
    coarse = rng.integers(0, 40, (1, 8, 24, 24)).astype(np.uint16)
    labels = resample_image(coarse, (64, 384, 384), order=0)[0]
    for new in ((64, 512, 512), (96, 512, 512), (64, 256, 256)):
        ours = best(partial(resample_labels, labels, new))
        start = time.process_time()
        for label in range(4):
            resize((labels == label).astype(float), new, order=1, mode="edge", anti_aliasing=False)
        theirs = (time.process_time() - start) * 10
        limit = (labels.nbytes + 2 * np.prod(new)) / bandwidth
        rows.append(["40 labels", f"{new}", ours * 1e3, theirs * 1e3, theirs / ours, ours / limit])
    header = ["64 x 384 x 384", "to", "volprep CPU ms", "peer CPU ms", "ratio", "over copy limit"]
    print(table(header, rows))


def best(function: Callable[[], object], times: int = 5) -> float:
    """CPU seconds of the fastest call after one that compiles."""
    function()
    found = []
    for _ in range(times):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Compare, or be one of the compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kernels", action="store_true", help="only the kernels")
    parser.add_argument("--volprep", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.volprep is not None:
        run_volprep(arguments.volprep or None)
        return
    # Whole processes first: a child's peak memory counts from that of its parent.
    if not arguments.kernels:
        compare(arguments.rounds)
    compare_kernels()


if __name__ == "__main__":
    main()
