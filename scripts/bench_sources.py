"""How fast volumes are opened, walked through and cut, beside the libraries that read each format.

    python scripts/bench_sources.py [--rounds 5] [--megabytes 600]

Makes one smoothed random uint16 volume in every format, then lets volprep and the
format's own library (at the versions of `constraints.txt`) do the same work in processes
of their own, in turn:

- open: shape, type and spacing of a file that was not open yet;
- walk: the maximum of every voxel once (the library reads the whole array);
- cut: a random patch of 32x128x128 copied out of one open file, mean of 64 (where the
  library has no partial reading of its own, it reads the pages or the array that it must).

The volume is larger than what volprep and tensorstore keep of decoded chunks (256 MiB each), the
other libraries keep nothing; one thread each; files are in the page cache on all sides.

CPU time in ms, median over the rounds; peak: MB that the walk took beyond the imports.

Measured on 2026-11-21, before tensorstore was added and with a volume of 210 MB, which is smaller
than the cache: the cuts of chunked files are hits (one thread, a shared and noisy machine;
ratio = library / volprep):

    format       open  ratio  walk  ratio  cut    ratio  peak  library
    raw.tif      1.63  0.40   11    3.9    0.271  8.6    18    200
    zlib.tif     2.98  3.5    449   1.6    8.21   4.3    33    202
    tiles.tif    3.02  3.5    610   1.2    8.10   5.5    33    202
    vol.nii      0.14  2.7    16.6  0.84   0.322  20     16    200
    vol.nii.gz   0.78  0.67   581   3.0    10.4   64     48    400
    vol.h5       1.54  0.34   612   2.0    7.83   2.6    34    219
    lz4.zarr     0.25  5.8    232   3.1    3.72   2.6    39    255
    shards.zarr  0.25  4.0    433   2.1    5.36   2.3    38    354
    vol.npy      0.17  0.98   9.4   1.0    0.282  0.94   18    200
    png          3.91  0.03   523   1.2    8.70   21     33    101
    limit of the walk: 37 ms to copy 210 MB once (mapped files are read without a copy)

Short of the libraries: opening an uncompressed stack (every page header is checked, so that
a file cut short is found at once), an HDF5 file (the image is searched among all datasets)
and a folder (every slice's header is compared); all stay under 4 ms for 400 pages.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchlib import BENCH, alternate, copy_bandwidth, median, table

FORMATS = ("raw.tif", "zlib.tif", "tiles.tif", "vol.nii", "vol.nii.gz", "vol.h5", "lz4.zarr",
           "shards.zarr", "vol.npy", "png")  # fmt: skip
DATA = BENCH / "data" / "sources"
PATCH = (32, 128, 128)


def make(megabytes: int) -> None:
    """Write the volume in every format that is not there yet."""
    import h5py
    import imagecodecs
    import nibabel as nib
    import tifffile
    import zarr
    from scipy.ndimage import gaussian_filter

    DATA.mkdir(parents=True, exist_ok=True)
    if (DATA / f"made-{megabytes}").exists():
        return
    block = gaussian_filter(np.random.default_rng(0).normal(size=(40, 512, 512)), 2)
    block = (block * 2000 + 1000).clip(0, 65535).astype(np.uint16)
    repeats = max(1, round(megabytes * 1e6 / block.nbytes))
    voxels = np.concatenate([np.roll(block, 7 * i, axis=1) for i in range(repeats)])
    for name, options in {
        "raw.tif": {},
        "zlib.tif": {"compression": "zlib"},
        "tiles.tif": {"compression": "zlib", "tile": (128, 128)},
    }.items():
        tifffile.imwrite(DATA / name, voxels, photometric="minisblack", **options)
    for name in ("vol.nii", "vol.nii.gz"):
        nib.save(nib.Nifti1Image(voxels.T, np.eye(4)), DATA / name)
    with h5py.File(DATA / "vol.h5", "w") as file:
        file.create_dataset("raw", data=voxels, chunks=(32, 64, 64), compression="gzip")
    blosc = zarr.codecs.BloscCodec(cname="lz4")
    for name, options in {
        "lz4.zarr": {"chunks": (32, 128, 128), "compressors": blosc},
        "shards.zarr": {"chunks": (16, 64, 64), "shards": (64, 256, 256)},
    }.items():
        made = zarr.create_array(
            DATA / name, shape=voxels.shape, dtype=voxels.dtype, overwrite=True, **options
        )
        made[...] = voxels
    np.save(DATA / "vol.npy", voxels)
    (DATA / "png").mkdir(exist_ok=True)
    for z, plane in enumerate(voxels[:100]):
        (DATA / "png" / f"{z}.png").write_bytes(imagecodecs.png_encode(plane))
    (DATA / f"made-{megabytes}").touch()


def library(name: str) -> tuple[Callable[[], Any], Callable[[Any], Any], Callable[..., Any]]:
    """How the format's own library opens, reads all, and reads a patch."""
    path = DATA / name
    if name.endswith(".tif"):
        import tifffile

        def opened() -> Any:
            file = tifffile.TiffFile(path)
            _ = file.series[0].shape, file.pages[0].resolution
            return file

        def cut(file: Any, z: slice, y: slice, x: slice) -> Any:
            return file.asarray(key=range(z.start, z.stop))[:, y, x]

        return opened, lambda file: file.asarray(), cut
    if ".nii" in name:
        import nibabel as nib

        return (
            lambda: nib.load(path),
            lambda image: np.asarray(image.dataobj),
            lambda image, z, y, x: np.array(image.dataobj[x, y, z]),
        )
    if name.endswith(".h5"):
        import h5py

        return (
            lambda: h5py.File(path)["raw"],
            lambda dataset: dataset[...],
            lambda dataset, z, y, x: dataset[z, y, x],
        )
    if name.endswith(".zarr"):
        import zarr

        return (
            lambda: zarr.open_array(path, mode="r"),
            lambda array: array[...],
            lambda array, z, y, x: array[z, y, x],
        )
    if name.endswith(".npy"):
        return (
            lambda: np.load(path, mmap_mode="r"),
            lambda array: array,
            lambda array, z, y, x: np.array(array[z, y, x]),
        )
    import imagecodecs

    def planes(z: range) -> Any:
        return np.stack([imagecodecs.imread(path / f"{i}.png") for i in z])

    return (
        lambda: sorted(path.iterdir(), key=lambda p: int(p.stem)),
        lambda files: planes(range(len(files))),
        lambda files, z, y, x: planes(range(z.start, z.stop))[:, y, x],
    )


def tensorstore(
    name: str,
) -> tuple[Callable[[], Any], Callable[[Any], Any], Callable[..., Any]]:
    """Zarr by tensorstore, one thread, with a cache as large as ours."""
    import tensorstore as ts

    limits = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
    context = ts.Context({"cache_pool": {"total_bytes_limit": 256 * 2**20}, **limits})
    kind = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(DATA / name)}}
    return (
        lambda: ts.open(kind, context=context).result(),
        lambda array: array.read().result(),
        lambda array, z, y, x: array[z, y, x].read().result(),
    )


def ours(name: str) -> tuple[Callable[[], Any], Callable[[Any], Any], Callable[..., Any]]:
    """The same with volprep."""
    from volprep.geometry import Box
    from volprep.sources import open_volume

    def cut(volume: Any, z: slice, y: slice, x: slice) -> Any:
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        return np.array(volume.read(box))

    return lambda: open_volume(DATA / name), lambda volume: volume.slabs(), cut


def peak_mb() -> float:
    """The most memory that this process had resident so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def work(who: str, name: str) -> dict[str, float]:
    """Open, walk and cut once each, after one opening that pays for the imports."""
    sides = {"volprep": ours, "library": library, "tensorstore": tensorstore}
    opening, whole, cut = sides[who](name)
    opening()
    start = time.process_time()
    opened = opening()
    times = {"open": time.process_time() - start}
    before, start = peak_mb(), time.process_time()
    found = whole(opened)
    most = max(int(part.max()) for part in ((b for _, b in found) if who == "volprep" else [found]))
    times["walk"] = time.process_time() - start
    if most < 1000:
        raise SystemExit(f"{name}: read wrongly, the maximum is {most}")
    peak = peak_mb() - before
    del found
    shape = (100 if name == "png" else np.load(DATA / "vol.npy", mmap_mode="r").shape[0], 512, 512)
    slow = name == "vol.nii.gz" and who != "volprep"  # inflates from the beginning every time
    count = 4 if slow else 64
    rng = np.random.default_rng(0)
    opened = opening()
    start = time.process_time()
    for _ in range(count):
        at = [int(rng.integers(0, n - p + 1)) for n, p in zip(shape, PATCH, strict=True)]
        cut(opened, *(slice(a, a + p) for a, p in zip(at, PATCH, strict=True)))
    times["cut"] = (time.process_time() - start) / count
    return {k: 1e3 * v for k, v in times.items()} | {"peak": peak}


def main() -> None:
    """Make the data, run both in turn, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=600)
    parser.add_argument("--work", nargs=2)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(*arguments.work)))
        return
    make(arguments.megabytes)
    limit = copy_bandwidth()
    rows = []
    for name in FORMATS:
        peers = ["library", "tensorstore"] if name.endswith(".zarr") else ["library"]
        commands = {
            who: [sys.executable, str(Path(__file__)), "--work", who, name]
            for who in ("volprep", *peers)
        }
        found = alternate(commands, arguments.rounds, threads=1)
        sides = {
            who: {k: median([json.loads(r.output)[k] for r in runs]) for k in
                  ("open", "walk", "cut", "peak")} for who, runs in found.items()
        }  # fmt: skip
        mine = sides["volprep"]
        for who in peers:
            theirs = sides[who]
            row: list[object] = [name if who == "library" else f"{name}, {who}"]
            for what in ("open", "walk", "cut"):
                row += [mine[what], theirs[what], theirs[what] / mine[what]]
            rows.append([*row, mine["peak"], theirs["peak"]])
    header = ["format", "open", "library", "ratio", "walk", "library", "ratio", "cut", "library",
              "ratio", "peak", "library"]  # fmt: skip
    print(table(header, rows))
    size = (DATA / "vol.npy").stat().st_size
    print(f"limit of the walk: {1e3 * size / limit:.3g} ms to copy {size / 1e6:.0f} MB once")


if __name__ == "__main__":
    main()
