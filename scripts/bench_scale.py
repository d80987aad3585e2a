"""Bytes read, CPU time and memory of runs over large volumes, whatever their chunks.

    python scripts/bench_scale.py [--gib 0.1] [--plane 1024] [--only FORMAT ...] [--rounds 1]

For each format an image (uint8, half noise) and its labels (uint16, blocks of one id) are made
once. Then, each in a process of its own:

    walk      check, fingerprint and SHA-256 of all files, as `volprep prepare` begins
    prepare   a whole `volprep prepare` with 200 patches
    resample  the same onto twice the spacing in the plane
    floor     the chunks of both files decoded once, in slabs, and the SHA-256 of their bytes
    cut       200 boxes of 64^3 in the order of z, each chunk decoded once (`sources.gather`)
    peer      the same boxes one by one through zarr-python, h5py, tifffile, nibabel or NumPy
    read      both arrays read once through the same libraries, 64 planes at a time
    ts cut    the boxes one by one through tensorstore, without its cache of chunks
    ts read   both arrays read once through tensorstore

Given are, for each byte of the input: what was asked of the system (rchar; bytes of mapped files
do not count there) and what came from the disk (read_bytes, the files dropped from the cache
before); CPU and wall seconds; the peak of private memory (RssAnon).

Measured 2026-11-26 on two busy cores of an AMD EPYC (with SHA instructions), one worker, image and
labels of 102 x 1024 x 1024 (321 MB once decoded), in CPU s, the least of two to three runs in
turn; before is the least measured in the morning of that day's last changes:

                 walk   floor   ratio   before, quieter: walk   floor
    npy          0.52    0.33    1.6                     0.71    0.19
    raw TIFF     0.54    0.27    2.0
    deflate TIFF 0.60    0.36    1.7
    HDF5 plane   0.66    0.43    1.5                     0.90    0.43
    HDF5 64^3    0.74    0.50    1.5                     0.96    0.52
    Zarr v3 64^3 0.60    0.31    2.0

The floor of npy was 0.18 to 0.33 by how busy the machine was, its walk 0.44 to 0.61, so that its
ratio is rather 2.2. Of each walk some 0.15 s do not grow with the volume (misplaced labels, nested
ids, patterns): at 410 planes (1.3 GB) the ratio is 1.3 for deflate TIFF (1.80 over 1.36) and 1.7
for npy (1.25 over 0.73; with others at work 1.75 over 0.95). What is left of it is, in ns for a
voxel of image and labels together: SHA-256 of three bytes 1.45, counting labels 0.38, grey values
0.21, the hash of the content 0.08, minimum and maximum 0.02.

Cutting takes 0.53 from HDF5 64^3, where h5py one by one takes 1.76 (3.3 times), and 0.34 from
Zarr, where zarr-python takes 1.65 (4.8 times); all chunks decoded once are 0.33 of the former.
`volprep prepare` of 0.3 GB: told 4 to 9 s, CPU s from start to end 5.0 to 6.2; memory told and
taken in MB: npy 290 and 347, HDF5 64^3 546 and 438, deflate TIFF 546 and 417, HDF5 plane 548 and
598, Zarr 546 and 434; npy of 1.3 GB 290 and 404, told 10 s, CPU 7.2 s.
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
from benchlib import BENCH, median, table

DATA = BENCH / "data" / "scale"
Array = np.ndarray
WHAT = ("walk", "prepare", "resample", "floor", "cut", "peer", "read", "ts cut", "ts read")
PATCHES = 200

RUN = r"""
import hashlib, json, os, shutil, sys, threading, time
from pathlib import Path
import numpy as np, volprep
from volprep import pipeline
from volprep.config import Config

what, folder, patches = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
workers = int(sys.argv[4])
image = next(p for p in folder.iterdir() if p.name.startswith("image."))
label = next(p for p in folder.iterdir() if p.name.startswith("label."))

def files(path):
    return [f for f in sorted(path.rglob("*")) if f.is_file()] if path.is_dir() else [path]

def fields(name):
    rows = (line.split(":") for line in open(f"/proc/self/{name}") if ":" in line)
    return {key.strip(): value.split() for key, value in rows}

def config(where, **more):
    given = {
        "data": {"cases": [{"image": str(where[0]), "label": str(where[1])}],
                 "spacing": [1, 1, 1], "label_kind": "instances"},
        "split": {"kind": "blocks", "fraction": 0.1},
        "plan": {"patch_size": [32, 64, 64], "batch_size": 2},
        "patching": {"patches_per_case": patches},
        "augment": [],
        "output": {"dir": str(folder / "out")},
        "compute": {"workers": workers},
        **more,
    }
    return Config.model_validate(given)

def walk(where):
    from volprep.checks import Along, examine_cases
    from volprep.fingerprint import FingerprintInput, compute_fingerprint
    from volprep.pipeline.identity import Hashing, paths_of
    cases = pipeline.list_cases(config(where))
    hashing = Hashing(paths_of(cases))
    report = examine_cases(
        cases, workers=workers, along=Along({c.name: None for c in cases}, pace=hashing.pace)
    )
    hashing.finish(workers)
    known = {facts.case.name: facts.counted for facts in report.facts}
    compute_fingerprint(
        [FingerprintInput(c.name, c.open_image, c.open_label) for c in cases], known=known
    )

def prepare(where, **more):
    shutil.rmtree(folder / "out", ignore_errors=True)
    settings = config(where, **more)
    cost = pipeline.foresee_needs(settings)
    told["write"], told["memory"], told["seconds"] = cost.write, cost.memory, cost.seconds or 0
    pipeline.prepare(settings)
    told["written"] = sum(f.stat().st_size for f in files(folder / "out"))

def resample(where):
    prepare(where, preprocess={"target_spacing": [1, 2, 2]})

def floor(where):
    for path, opened in zip(where, (volprep.open_volume, volprep.open_labels)):
        for _, block in opened(path).slabs():
            block.max()
        digest = hashlib.sha256()
        for file in files(path):
            with file.open("rb") as stream:
                while piece := stream.read(2**20):
                    digest.update(piece)

def boxes(shape):
    rng = np.random.default_rng(0)
    size = [min(64, n) for n in shape]
    last = [n - s + 1 for n, s in zip(shape, size)]
    starts = [[int(rng.integers(0, n)) for n in last] for _ in range(patches)]
    return [volprep.Box.at(start, size) for start in sorted(starts)]

def cut(where):
    from volprep.compute import threads
    from volprep.sources import gather
    volumes = [volprep.open_volume(where[0]), volprep.open_labels(where[1])]
    with threads(workers) as pool:
        for arrays in gather(volumes, boxes(volumes[0].shape[1:]), pool=pool):
            for array in arrays:
                array.max()

def theirs(path):
    name = path.name
    if name.endswith(".zarr"):
        import zarr
        return zarr.open_array(str(path), mode="r")
    if name.endswith(".h5"):
        import h5py
        return h5py.File(path)["raw"]
    if name.endswith(".npy"):
        return np.load(path, mmap_mode="r")
    if ".tif" in name and ".z." not in name:
        import tifffile
        return tifffile.memmap(path, mode="r")
    if ".tif" in name:
        import tifffile, zarr
        return zarr.open_array(tifffile.imread(path, aszarr=True), mode="r")
    if ".nii" in name:
        import nibabel
        return np.asarray(nibabel.load(path).dataobj).T
    none()

def none():
    print(json.dumps({"none": True}))
    raise SystemExit

def peer(where):
    for path in where:
        array = theirs(path)
        for box in boxes(array.shape):
            np.asarray(array[box.slices]).max()

def read(where):
    for path in where:
        array = theirs(path)
        for z in range(0, array.shape[0], 64):
            np.asarray(array[z : z + 64]).max()

def in_tensorstore(path):
    if not path.name.endswith(".zarr"):
        none()
    import tensorstore
    driver = "zarr" if ".v2." in path.name else "zarr3"
    limits = {"cache_pool": {"total_bytes_limit": 0}, "data_copy_concurrency": {"limit": 1}}
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(path)}, "context": limits}
    return tensorstore.open(spec, read=True).result()

def tensorstore_cut(where):
    for path in where:
        array = in_tensorstore(path)
        for box in boxes(array.shape):
            array[box.slices].read().result().max()

def tensorstore_read(where):
    for path in where:
        array = in_tensorstore(path)
        for z in range(0, array.shape[0], 64):
            array[z : min(z + 64, array.shape[0])].read().result().max()

told = {}
tiny = folder.parent / "tiny"
if not tiny.exists():
    tiny.mkdir()
    rng = np.random.default_rng(0)
    np.save(tiny / "image.npy", rng.integers(0, 40, (96, 256, 256)).astype(np.uint8))
    label_ = np.zeros((96, 256, 256), np.uint16)
    label_[::3, 10:200, 20:220] = 3
    np.save(tiny / "label.npy", label_)
ours = {"walk": walk, "prepare": prepare, "resample": resample, "floor": floor, "cut": cut}
peers = {"peer": peer, "read": read, "ts cut": tensorstore_cut, "ts read": tensorstore_read}
if what in ours:
    kept, folder = folder, tiny
    ours[what]((tiny / "image.npy", tiny / "label.npy"))  # compiled, imported
    folder = kept
else:
    import h5py, nibabel, tifffile, zarr  # not counted either
    peers[what]((image, image)) if what.startswith("ts") else theirs(image)
work = (ours | peers)[what]
inputs = [f for path in (image, label) for f in files(path)]
for file in inputs:
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.02):
        peak[0] = max(peak[0], int(fields("status").get("RssAnon", ["0"])[0]))

watcher = threading.Thread(target=watch)
watcher.start()
before, cpu, wall = fields("io"), time.process_time(), time.perf_counter()
work((image, label))
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
after = fields("io")
done.set()
watcher.join()
size = sum(f.stat().st_size for f in inputs)
for name in ("rchar", "read_bytes"):
    told[name] = (int(after[name][0]) - int(before[name][0])) / size
print(json.dumps({**told, "cpu": cpu, "wall": wall, "peak": peak[0] * 1024, "size": size}))
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


def voxels(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """An image of noise and labels of blocks."""
    image = np.random.default_rng(0).integers(0, 40, shape).astype(np.uint8)
    z, y, x = (np.arange(n) // step for n, step in zip(shape, (16, 48, 48), strict=True))
    inside = (np.arange(shape[1]) % 48 < 32)[:, None] & (np.arange(shape[2]) % 48 < 32)
    ids = (z[:, None, None] * 7919 + y[:, None] * 101 + x) % 65000 + 1
    return image, np.where(inside, ids, 0).astype(np.uint16)


def make(folder: Path, shape: tuple[int, ...], suffix: str, write: Callable[..., None]) -> None:
    """Image and label of one format, where they are not there yet."""
    if folder.exists():
        return
    part = folder.with_name(folder.name + ".partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, array in zip(("image", "label"), voxels(shape), strict=True):
        write(part / f"{name}{suffix}", array)
    part.rename(folder)


def measured(what: str, folder: Path, workers: int, rounds: int) -> dict[str, float]:
    """Medians of some runs."""
    told = []
    for _ in range(rounds):
        command = [sys.executable, "-c", RUN, what, str(folder), str(PATCHES), str(workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        told.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        name: median([each[name] for each in told])
        for name, value in told[0].items()
        if isinstance(value, int | float)
    }


def main() -> None:
    """Make what is not there, run over it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=0.1, help="size of each image")
    parser.add_argument("--plane", type=int, default=1024, help="voxels along y and x")
    parser.add_argument("--only", nargs="*", help="formats")
    parser.add_argument("--what", nargs="*", default=WHAT, choices=WHAT)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    depth = max(80, round(given.gib * 2**30 / given.plane**2))
    shape = (depth, given.plane, given.plane)
    found = makers(shape)
    rows = []
    for name in given.only or found:
        suffix, write = found[name]
        folder = DATA / f"{depth}x{given.plane}" / suffix.strip(".")
        make(folder, shape, suffix, write)
        results: dict[str, dict[str, float]] = {}
        for what in given.what:
            told = results[what] = measured(what, folder, given.workers, given.rounds)
            if told.get("none"):
                continue
            row = [name, what, f"{told['rchar']:.2f}", f"{told['read_bytes']:.2f}"]
            row += [f"{told['cpu']:.2f}", f"{told['wall']:.2f}", f"{told['peak'] / 2**20:.0f}"]
            if "written" in told:
                row += [f"{told['write'] / told['written']:.2f}"]
                row += [f"{told['memory'] / told['peak']:.2f}"]
                row += [f"{told['seconds'] / told['wall']:.2f}"]
            rows.append([*row, *["-"] * (10 - len(row))])
            print("  ".join(row), flush=True)
        for what, over in (("walk", "floor"), ("peer", "cut"), ("ts cut", "cut"), ("walk", "read")):
            pair = [results.get(each, {}).get("cpu") for each in (what, over)]
            if None not in pair:
                ratio = pair[0] / max(pair[1], 1e-9)
                print(f"{name}  CPU of {what} / {over}: {ratio:.2f}", flush=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
    heads = ["format", "what", "rchar", "disk", "CPU s", "wall s", "MB"]
    print("the last three columns are what was told beforehand over what was measured")
    print(table([*heads, "disk", "memory", "time"], rows))


if __name__ == "__main__":
    main()
