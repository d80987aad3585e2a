"""Fingerprint and planner beside biom3d 0.1.2: whole processes, medians, ratios, peak memory.

    python scripts/bench_fingerprint.py [--rounds 5] [--plans 100000] [--only PART]

Makes 20 image and mask volumes (uint16 and uint8, 1.3 GB uncompressed) once, as raw TIFF,
zlib TIFF and .nii.gz, then runs in turn, as whole processes on 2 cores: `compute_median`
of both (biom3d decodes every voxel, volprep reads headers) and `data_fingerprint` of both
with masks (biom3d draws 10000 voxels of each image, volprep counts all of them, and the
labels). numba's cache is warm, as it is from the second run on. Peak memory is also given
beyond that of a process that only imports. Then it checks the statistics against numpy
over the concatenated foreground, plans random shapes and spacings, and measures one volume
of 46 GB.

Measured 2026-11-21, two idle cores of an AMD EPYC, medians of 7 (headers) and 9 rounds:

    compute_median      wall biom3d   volprep   ratio   peak biom3d   volprep
      raw TIFF               2.78 s    0.134 s    21 x        598 MB     29 MB
      zlib TIFF              5.91 s    0.134 s    44 x        599 MB     29 MB
      .nii.gz                5.78 s    0.111 s    52 x        641 MB     29 MB

    data_fingerprint    wall biom3d   volprep   ratio   CPU ratio   peak biom3d   volprep
      raw TIFF               3.25 s     0.78 s   4.2 x       2.9 x        613 MB    186 MB
      zlib TIFF              7.11 s     1.76 s   4.0 x       2.4 x        600 MB    172 MB
      .nii.gz                6.59 s     1.70 s   3.9 x       2.3 x        673 MB    165 MB

of volprep's peak, 61 to 83 MB are beyond imports. From run to run the ratios vary by a twentieth
(raw TIFF 3.9 to 4.2 x, over 20 rounds 4.17 x; zlib 4.0 x in each of three).
Of 0.78 s for raw TIFF, 0.4 s are Python, NumPy and numba starting, and 0.33 s the counting on
two cores (0.46 ns a voxel for intensities, 0.50 ns for labels); copying the bytes takes 0.09 s.
Of 1.76 s for zlib, 1.1 s are libdeflate on two cores, at its 0.57 GB/s each. Helped: labels in
vectorised stretches and from change to change (1.2 to 0.5 ns), numba without scipy.linalg
(0.2 s), no last walk of the garbage collector (0.08 s), each file opened once, no numpy.ma
(0.01 s each), larger blocks of mapped files, small ones of streams. Did not help: NumPy alone
instead of numba (4 ns a voxel), decoding ahead while numba starts (the interpreter lock), other
decoders, two tables of counts in turn.

    statistics of 40145968 foreground voxels: equal to numpy's to the bit (the standard
    deviation is the root of the exact variance; numpy's own is off by one unit)
    100000 random shapes and spacings: no violation; CPU of a plan 0.55 ms (median), 4.1 ms
    (99.9 %), 8.1 ms (most)
    one volume of 46 GB with its mask: 30 s, 348 MB
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
from benchlib import BENCH, alternate, copy_bandwidth, median, peer_python, run, table

DATA = BENCH / "data" / "fingerprint"
FORMATS = {"raw": "tif", "zlib": "tif", "nii.gz": "nii.gz"}
SPACING = (0.3, 0.1, 0.1)
PARTS = ["headers", "masks", "exact", "plans", "huge"]

# biom3d compares the spacing of a NIfTI file with a list, which numpy has refused for
# arrays since 1.25; so that it runs at all, it is given a list.
PEER = """
import sys
import biom3d.auto_config as b
from biom3d.utils.data_handler.file_handler import ImageManager
read = ImageManager._sitk_imread
def read_with_list(*args, **options):
    image, meta = read(*args, **options)
    return image, meta | {"spacing": list(meta["spacing"])}
ImageManager._sitk_imread = staticmethod(read_with_list)
"""
OURS = """
import sys
import volprep.fingerprint as b
"""
WARM = """
import volprep.kernels.histogram, volprep.cases.naming, volprep.sources.tiff, volprep.sources.nifti
"""
HUGE = """
import sys
from functools import partial
from volprep.fingerprint import FingerprintInput, compute_fingerprint
from volprep.sources import open_labels, open_volume
image, mask = partial(open_volume, sys.argv[1]), partial(open_labels, sys.argv[2])
print(compute_fingerprint([FingerprintInput("huge", image, mask)]).statistics())
"""
HEADERS = "print(b.compute_median(sys.argv[1]))"
MASKS = "print(*b.data_fingerprint(sys.argv[1], sys.argv[2]))"


def make_volumes() -> None:
    """Twenty images of bright blobs in noise, with masks of two classes; made once."""
    if (DATA / "done").exists():
        return
    import nibabel
    import tifffile
    from isal import igzip
    from scipy import ndimage

    rng = np.random.default_rng(0)
    for name in FORMATS:
        for folder in ("images", "masks"):
            (DATA / name / folder).mkdir(parents=True, exist_ok=True)
    for number in range(20):
        shape = (
            int(rng.integers(48, 80)),
            int(rng.integers(520, 640)),
            int(rng.integers(520, 640)),
        )
        coarse = rng.normal(size=[n // k + 4 for n, k in zip(shape, (4, 16, 16), strict=True)])
        field = ndimage.zoom(coarse.astype(np.float32), (4, 16, 16), order=1)
        field = field[: shape[0], : shape[1], : shape[2]]
        mask = (field > 0.7).astype(np.uint8) + (field > 1.3)
        image = 900 + 400 * field + rng.normal(0, 40, shape).astype(np.float32)
        for folder, array in (
            ("images", image.clip(0, 65535).astype(np.uint16)),
            ("masks", mask.astype(np.uint8)),
        ):
            save(folder, f"case_{number:02}", array, tifffile, nibabel, igzip)
    (DATA / "done").touch()


def save(folder: str, name: str, array: np.ndarray, tifffile, nibabel, igzip) -> None:
    """One volume in the three formats."""
    z, y, x = SPACING
    tifffile.imwrite(
        DATA / "raw" / folder / f"{name}.tif", array, imagej=True, resolution=(1 / x, 1 / y),
        metadata={"axes": "ZYX", "spacing": z, "unit": "um"},
    )  # fmt: skip
    tifffile.imwrite(
        DATA / "zlib" / folder / f"{name}.tif", array, compression="zlib",
        compressionargs={"level": 6}, resolution=(1 / x, 1 / y), metadata={"axes": "ZYX"},
    )  # fmt: skip
    nifti = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([x, y, z, 1.0]))
    nifti.header.set_xyzt_units("micron")
    with igzip.open(DATA / "nii.gz" / folder / f"{name}.nii.gz", "wb", compresslevel=2) as file:
        file.write(nifti.to_bytes())


def compare(rounds: int, work: str, title: str) -> None:
    """One piece of work in every format, biom3d and volprep in turn."""
    make_volumes()
    peer = str(peer_python("biom3d", "torch==2.13.0", "biom3d==0.1.2", "numpy<2"))
    base = {
        "biom3d": min(run([peer, "-c", PEER]).peak_mb for _ in range(2)),
        "volprep": min(run([sys.executable, "-c", OURS + WARM]).peak_mb for _ in range(2)),
    }
    rows = []
    for name in FORMATS:
        paths = [str(DATA / name / "images"), str(DATA / name / "masks")]
        runs = alternate(
            {
                "biom3d": [peer, "-c", PEER + work, *paths],
                "volprep": [sys.executable, "-c", OURS + work, *paths],
            },
            rounds,
        )
        wall = {who: median([r.wall for r in of]) for who, of in runs.items()}
        cpu = {who: median([r.cpu for r in of]) for who, of in runs.items()}
        peak = {who: median([r.peak_mb for r in of]) for who, of in runs.items()}
        rows.append([
            name, wall["biom3d"], wall["volprep"], wall["biom3d"] / wall["volprep"],
            cpu["biom3d"], cpu["volprep"], cpu["biom3d"] / cpu["volprep"],
            peak["biom3d"], peak["volprep"], peak["volprep"] - base["volprep"],
        ])  # fmt: skip
        print(name, *(of[-1].output.strip().replace("\n", " ") for of in runs.values()), sep="\n  ")
    header = ["format", "wall biom3d s", "volprep s", "ratio", "CPU biom3d s", "volprep s", "ratio",
              "peak biom3d MB", "volprep MB", "beyond imports"]  # fmt: skip
    print(f"\n{title}\n{table(header, rows)}\n")


def check_exactness() -> None:
    """The statistics against numpy over the concatenated foreground."""
    from functools import partial

    from volprep.fingerprint import PERCENTILES, FingerprintInput, compute_fingerprint
    from volprep.sources import open_labels, open_volume

    make_volumes()
    images = sorted((DATA / "raw" / "images").glob("*.tif"))
    pairs = [(path, DATA / "raw" / "masks" / path.name) for path in images]
    cases = [
        FingerprintInput(a.stem, partial(open_volume, a), partial(open_labels, b)) for a, b in pairs
    ]
    found = compute_fingerprint(cases).statistics("foreground", "voxel")[0]
    inside = np.concatenate([
        open_volume(a).read()[0][open_labels(b).read()[0] > 0] for a, b in pairs
    ])  # fmt: skip
    total = int(inside.sum(dtype=np.int64))
    squares = int((inside.astype(np.int64) ** 2).sum())
    variance = (inside.size * squares - total * total) / inside.size**2
    wanted = [inside.size, inside.mean(), math.sqrt(variance), inside.min(), inside.max()]
    wanted += np.percentile(inside, PERCENTILES).tolist()
    got = [found.count, found.mean, found.std, found.minimum, found.maximum]
    got += list(found.percentiles.values())
    equal = all(a == b for a, b in zip(got, wanted, strict=True))
    print(f"{inside.size} foreground voxels: {'equal to numpy to the bit' if equal else 'DIFFERS'}")
    print(f"  numpy's own std is {inside.std():.17g}, from exact sums {found.std:.17g}\n")


def plan_random_shapes(count: int) -> None:
    """Random shapes and spacings through the memory planner: no violation, no crash."""
    from volprep.autoconfig import make_plan

    rng = random.Random(0)
    times, broken = [], 0
    for _ in range(count):
        shape = [int(2 ** rng.uniform(0, 13)) for _ in range(3)]
        spacing = None if rng.random() < 0.2 else [2 ** rng.uniform(-5, 5) for _ in range(3)]
        memory = int(2 ** rng.uniform(30.5, 36))
        precision = rng.choice(["mixed", "fp32"])
        start = time.thread_time()
        plan = make_plan(shape, spacing=spacing, memory=memory, precision=precision)
        times.append(time.thread_time() - start)
        broken += (
            any(n % 2**k for n, k in zip(plan.patch_size, plan.pool, strict=True))
            or any(p > 1.25 * n for p, n in zip(plan.patch_size, shape, strict=True))
            or plan.memory_bytes > memory
            or plan.batch_size < 2
        )
    times.sort()
    middle, late, last = (1e3 * times[int(q * (count - 1))] for q in (0.5, 0.999, 1))
    print(
        f"{count} random shapes: {broken} violations; CPU of a plan {middle:.2f} ms (median), "
        f"{late:.2f} ms (99.9 %), {last:.1f} ms (most)\n"
    )


def measure_huge() -> None:
    """One volume of 30 GB with labels, in a file with holes: peak memory."""
    folder = DATA / "huge"
    folder.mkdir(parents=True, exist_ok=True)
    shape, paths = (1500, 3200, 3200), [str(folder / "image.npy"), str(folder / "mask.npy")]
    for path, dtype in zip(paths, (np.uint16, np.uint8), strict=True):
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        array[::100, :, :50] = 7
        array.flush()
        del array
    found = run([sys.executable, "-c", HUGE, *paths])
    size = math.prod(shape) * 3 / 1e9
    print(f"one volume, {size:.0f} GB with its mask: {found.wall:.0f} s, {found.peak_mb:.0f} MB")
    for path in paths:
        Path(path).unlink()


def main() -> None:
    """Everything, or one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plans", type=int, default=100_000)
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    wanted = [given.only] if given.only else PARTS
    if "headers" in wanted:
        compare(given.rounds, HEADERS, "compute_median: shapes of 20 volumes")
    if "masks" in wanted:
        compare(given.rounds, MASKS, "data_fingerprint with masks: 1.3 GB")
        print(f"copying 1.3 GB in memory takes {1.3e9 / copy_bandwidth():.2f} s\n")
    if "exact" in wanted:
        check_exactness()
    if "plans" in wanted:
        plan_random_shapes(given.plans)
    if "huge" in wanted:
        measure_huge()


if __name__ == "__main__":
    main()
