"""Bytes read, CPU time and memory of walks through large volumes, whatever their chunks.

    python scripts/bench_scale.py [--gib 0.25] [--plane 2048] [--only FORMAT ...]

For each format a volume of one channel is made once (uint8, half noise), and then, each in a
process of its own:

    check   what `volprep check` reads of an image: extremes, blank planes, content hash
    measure `volprep fingerprint` of the same image
    floor   the file's chunks decoded once, in slabs, and the SHA-256 of its bytes

Given are bytes read for each byte of the file (`/proc/self/io`, rchar: bytes of mapped files
do not count there, and are given as 0), CPU seconds, and the peak of private memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchlib import BENCH, table

DATA = BENCH / "data" / "scale"
Array = np.ndarray

WALK = """
import hashlib, json, sys, threading, time
from pathlib import Path
import numpy as np, volprep
from volprep.checks.measure import measure_image
from volprep.fingerprint import FingerprintInput, compute_fingerprint
from volprep.sources import ArrayVolume

what, path = sys.argv[1], Path(sys.argv[2])

def fields(name):
    rows = (line.split(":") for line in open(f"/proc/self/{name}") if ":" in line)
    return {key.strip(): value.split() for key, value in rows}

def check(volume):
    measure_image(volume)

def measure_(volume):
    compute_fingerprint([FingerprintInput("a", lambda: volume)], workers=1)

def floor(volume):
    for _, block in volume.slabs():
        block.max()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                while piece := stream.read(2**20):
                    digest.update(piece)

walk = {"check": check, "measure": measure_, "floor": floor}[what]
walk(ArrayVolume(np.arange(4096, dtype=np.uint8).reshape(1, 64, 64)))  # compiled, imported
volume = volprep.open_volume(path)
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.05):
        peak[0] = max(peak[0], int(fields("status").get("RssAnon", ["0"])[0]))

watcher = threading.Thread(target=watch)
watcher.start()
read, cpu = int(fields("io")["rchar"][0]), time.process_time()
walk(volume)
cpu = time.process_time() - cpu
read = int(fields("io")["rchar"][0]) - read
done.set()
watcher.join()
print(json.dumps({"read": read, "cpu": cpu, "peak": peak[0] * 1024}))
"""


def npy(path: Path, array: Array) -> None:
    np.save(path, array)


def tiff(path: Path, array: Array, **options: object) -> None:
    import tifffile

    tifffile.imwrite(path, array, photometric="minisblack", **options)


def nifti(path: Path, array: Array) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4)), path)


def hdf5(path: Path, array: Array, chunks: tuple[int, ...]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset(
            "raw", data=array, chunks=chunks, compression="gzip", compression_opts=1
        )


def zarr(path: Path, array: Array, **options: object) -> None:
    import zarr as library

    made = library.create_array(path, shape=array.shape, dtype=array.dtype, **options)
    made[...] = array


def slices(path: Path, array: Array) -> None:
    import imagecodecs

    path.mkdir()
    for number, plane in enumerate(array):
        (path / f"{number}.png").write_bytes(imagecodecs.png_encode(plane, level=1))


def makers(shape: tuple[int, ...]) -> dict[str, tuple[str, Callable[[Path, Array], None]]]:
    """Name to suffix and writer."""
    _, height, width = shape
    cube = (64, 64, 64)
    return {
        "npy": (".npy", npy),
        "raw TIFF": (".tif", tiff),
        "deflate TIFF": (".z.tif", lambda p, a: tiff(p, a, compression="zlib")),
        "NIfTI": (".nii", nifti),
        "nii.gz": (".nii.gz", nifti),
        "Zarr v2 64^3": (".v2.zarr", lambda p, a: zarr(p, a, chunks=cube, zarr_format=2)),
        "Zarr v3 64^3": (".v3.zarr", lambda p, a: zarr(p, a, chunks=cube)),
        "Zarr sharded": (
            ".shards.zarr", lambda p, a: zarr(p, a, chunks=(32,) * 3, shards=(64, 512, 512)),
        ),
        "HDF5 64^3": (".c.h5", lambda p, a: hdf5(p, a, cube)),
        "HDF5 plane": (".p.h5", lambda p, a: hdf5(p, a, (1, height, width))),
        "HDF5 whole": (".w.h5", lambda p, a: hdf5(p, a, a.shape)),
        "HDF5 1x1xN": (".r.h5", lambda p, a: hdf5(p, a, (1, 1, min(width, 1024)))),
        "PNG slices": (".png", slices),
    }  # fmt: skip


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    """Make what is not there, walk through it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=0.25, help="size of each volume")
    parser.add_argument("--plane", type=int, default=2048, help="voxels along y and x")
    parser.add_argument("--only", nargs="*", help="formats")
    given = parser.parse_args()
    depth = max(64, round(given.gib * 2**30 / given.plane**2))
    shape = (depth, given.plane, given.plane)
    found = makers(shape)
    folder = DATA / f"{depth}x{given.plane}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for name in given.only or found:
        suffix, make = found[name]
        path = folder / f"volume{suffix}"
        if not path.exists():
            try:
                make(path, rng.integers(0, 40, shape).astype(np.uint8))
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
                raise
        row = [name, f"{size_of(path) / 2**20:.0f} MB"]
        for what in ("check", "measure", "floor"):
            command = [sys.executable, "-c", WALK, what, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout.splitlines()[-1])
            row.append(f"{told['read'] / size_of(path):.2f}")
            row += [f"{told['cpu']:.2f} s", f"{told['peak'] / 2**20:.0f} MB"]
        rows.append(row)
        print(" ".join(row), flush=True)
    heads = ["format", "file"]
    for what in ("check", "measure", "floor"):
        heads += [f"{what} read", "CPU", "memory"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
