"""Ready training patches from one set, beside the loaders that people use and the limit.

    python scripts/bench_loader.py [SIDE ...] [--rounds 3] [--seconds 4]

Four volumes of 128x512x512 (uint8 EM and uint32 instances: FlyEM's fib25 from ../shared/data,
mirrored side by side, or where that is absent a synthetic stack, which is said), patch
32x128x128. Every side makes float32 images and integer labels of the same data, in a process of
its own, one thread unless it says more; sides take turns, medians over the rounds. Files are in
the page cache on all sides, and what a side keeps in memory is in its figure:

- CPU: ms of user and system time of a patch, all threads and processes together;
- rate: patches/s; faults: minor page faults of a patch; PSS: MB at the end, torch included.

limit     crop of a mapped .npy into a reused float32 array, normalised, and a reused int64 one
patches   PatchLoader over a set of patches stored at the patch size (Zarr shards, blosc-lz4)
volumes   the same of a set of volumes, a new place for every sample
-int32    both with labels of int32, as nnU-Net, MONAI and TorchIO give them below
workers   torch's DataLoader with two processes over the same PatchDataset
em-...    the same with the eleven EM augmentations (patches stored as large as these need)
zarr      VolumeDataset over chunked Zarr (blosc-lz4, chunks 32x128x128), and the same crops by
          tensorstore with a cache of 256 MiB and by zarr-python; hdf5 likewise (gzip) and h5py
nii       VolumeDataset over six .nii.gz that are larger than the cache together
nnunet    nnU-Net's nnUNetDatasetBlosc2 and crop_and_pad_nd, float32 and int32 (its own store;
          -ram: the arrays in memory)
monai     CacheDataset and RandSpatialCropd, cached as float32 and int32 tensors, no copy
torchio   Queue of UniformSampler (a volume in memory at a time)

Measured on 2026-11-26 on two cores of an AMD EPYC on which five to nine other jobs ran, which makes
every side slower and two threads hardly faster; two runs of 2 s each, in turn:

    side          CPU ms  of limit  patches/s  faults  PSS MB  first s
    limit         1.08    1         343        7.67    21      0.0255
    patches       0.829   0.768     432        0.0485  291     0.303
    patches-2     0.836   0.775     538        0.039   295     0.352
    volumes       2.44    2.26      119        198     623     0.571
    volumes-2     2.41    2.23      160        142     646     0.55
    workers       7.39    6.85      95.4       1.91    456     0.818
    em-patches    3.82    3.54      97.8       0.222   307     0.479
    em-patches-2  3.93    3.64      120        2.72    312     0.362
    em-volumes    6.05    5.61      86.8       230     649     0.489

one after the other, 1.5 s each, once (limit and patches before and after the peers):

    limit         1.16 and 1.20       patches 0.78, 0.82 and 0.96
    nnunet        3.53, 3.87          PSS 545      nnunet-ram  0.42   PSS 529
    monai         2.19                PSS 254      torchio     11.8   PSS 601
    zarr          4.40                PSS 562      tensorstore 4.21 (326), zarr-python 14.4 (93)
    hdf5          6.67, 7.55          PSS 575      hdf5-h5py   17.6 (249)
    nii           0.28, images alone  PSS 1786, most of it the mapped scratch files

measured again, after blocks are read as drawn, with eight others' jobs on the two cores, CPU ms,
once or twice, 1.5 to 2.5 s each (the second run of zarr had so little of the machine that it made
21 patches/s):

    limit     0.97       patches 0.98 to 1.77       patches-int32 1.09      volumes 2.32
    zarr      3.73, 5.10 tensorstore 4.65, 4.66     zarr-python 13.7
    hdf5      5.67       hdf5-h5py   15.1

measured once more, with as many jobs beside it, after ids of volumes are packed by LZ4HC, epoch by
epoch of 144 patches: limit 0.92 to 0.97, patches 0.77 to 0.91; volumes 2.45, 2.18 and from the
third epoch on, when the cache holds nearly all of the 300 MB, 0.94 to 1.11 (1.25 times patches);
without any cache, as of a set far larger than it, 1.48 to 1.58 (1.9 times). The data set alone,
least of 12 times 24 patches: patches 0.60, volumes 0.69 to 0.72 from the cache, 1.33 to 1.41
without (2.0 before). So what is 2.44 in the table is the first two epochs, which begin with an
empty cache, and which are all that two seconds see on a busy machine.

    limit     1.13       zarr 4.14   tensorstore 4.81   zarr-python 14.5   hdf5 6.28   h5py 12.2

So the dataset of patches costs less than cropping mapped arrays of uint32 labels (a fifth as many
bytes move); places drawn from volumes cost 1.25 times that where the cache holds them and 1.9
times where it does not, of which decoding is most. nnU-Net from memory is cheaper than any store:
it copies float32 and int32 that lie there ready.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchlib import BENCH, ROOT, alternate, median, peer_python, table

DATA = BENCH / "data" / "loader"
FIB25 = ROOT.parent / "shared" / "data" / "06_fib25_neurons_png"
PATCH = (32, 128, 128)
SHAPE = (128, 512, 512)
MEAN, STD = 128.0, 40.0
EM = [
    "rotate", "rescale", "flip", "elastic", "grayscale", "missing_parts", "missing_section",
    "misalignment", "motion_blur", "cut_blur", "cut_noise",
]  # fmt: skip
Make = Callable[[], Iterator[int]]  # yields how many patches are ready now


def make_data() -> str:
    """Write what is not there yet; where the data comes from."""
    import tifffile

    origin = "fib25" if FIB25.exists() else "synthetic"
    if not (DATA / origin).exists():
        (DATA / "images").mkdir(parents=True, exist_ok=True)
        (DATA / "labels").mkdir(exist_ok=True)
        image, label = _fib25() if origin == "fib25" else _synthetic()
        for number in range(4):  # noise of its own makes each a volume of its own
            noise = np.random.default_rng(number).integers(-12, 13, SHAPE)
            own = ((image + noise).clip(0, 255).astype(np.uint8), label)
            for name, array in zip(("images", "labels"), own, strict=True):
                tifffile.imwrite(DATA / name / f"c{number}.tif", array)
                np.save(DATA / f"{name}{number}.npy", array)
        (DATA / origin).touch()
    return origin


def _fib25() -> tuple[np.ndarray, np.ndarray]:
    import imagecodecs
    import tifffile

    pages = sorted((FIB25 / "images").glob("*.png"))
    image = np.stack([imagecodecs.imread(page) for page in pages])
    label = tifffile.imread(FIB25 / "labels" / "fib25_bodies.tif").astype(np.uint32)
    widths = [(0, n - m) for n, m in zip(SHAPE, (len(image), 256, 256), strict=True)]
    grown = []
    for array in (image, label):
        square = np.pad(array, [(0, 0), (0, 6), (0, 6)], mode="symmetric")
        grown.append(np.pad(square, widths, mode="symmetric"))
    return grown[0], grown[1]


def _synthetic() -> tuple[np.ndarray, np.ndarray]:
    """Cells around drifting centres, and noise."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(0)
    points = rng.random((600, 3)) * SHAPE
    label = np.empty(SHAPE, np.uint32)
    image = np.empty(SHAPE, np.uint8)
    grid = np.stack(np.mgrid[: SHAPE[1], : SHAPE[2]], -1).reshape(-1, 2)
    tree = cKDTree(points * (2, 1, 1))
    for z in range(SHAPE[0]):
        where = np.column_stack([np.full(len(grid), 2 * z), grid])
        (near, second), ids = tree.query(where, k=2)[0].T, tree.query(where)[1]
        label[z] = (ids + 1).reshape(SHAPE[1:])
        grey = 140 + rng.normal(0, 18, len(grid)) - 70 * (second - near < 2.5)
        image[z] = grey.clip(0, 255).reshape(SHAPE[1:])
    return image, label


def make_sets() -> None:
    """The sets that volprep's sides read, by its own command."""
    for name, augment, more in (
        ("plain", [], "patching: {patches_per_case: 48}"),
        ("em", EM, "patching: {patches_per_case: 24}"),
    ):
        for store in ("patches", "volumes"):
            out = DATA / f"{name}-{store}"
            if out.exists():
                continue
            config = DATA / f"{name}-{store}.yaml"
            config.write_text(
                f"data: {{root: {DATA}, image_dir: images, label_dir: labels,\n"
                "  spacing: [0.03, 0.008, 0.008], label_kind: instances}\n"
                f"split: {{fraction: 0.25}}\nplan: {{patch_size: {list(PATCH)}, batch_size: 2}}\n"
                f"augment: {json.dumps(augment)}\n{more}\n"
                f"preprocess: {{normalise: given, mean: [{MEAN}], std: [{STD}], clip: null}}\n"
                f"output: {{dir: {out}, store: {store}}}\n"
            )
            command = [sys.executable, "-m", "volprep", "prepare", str(config)]
            subprocess.run(command, check=True, stdout=sys.stderr)


def make_chunked() -> None:
    """The volumes as chunked Zarr and HDF5, and as .nii.gz."""
    import h5py
    import nibabel
    import zarr
    from zarr.codecs import BloscCodec

    if (DATA / "chunked").exists():
        return
    for number in range(4):
        for name in ("images", "labels"):
            array = np.load(DATA / f"{name}{number}.npy")
            codec = BloscCodec(cname="lz4", clevel=5, typesize=array.itemsize)
            path = DATA / f"{name}{number}.zarr"
            kept = zarr.create_array(
                path, shape=array.shape, chunks=PATCH, dtype=array.dtype, compressors=[codec],
                overwrite=True,
            )  # fmt: skip
            kept[:] = array
            with h5py.File(DATA / f"{name}{number}.h5", "w") as file:
                file.create_dataset("main", data=array, chunks=PATCH, compression=1)
    big = np.tile(np.load(DATA / "images0.npy"), (2, 2, 2))  # 268 MB each
    for number in range(6):
        image = nibabel.Nifti1Image(np.roll(big, number).T, np.eye(4))
        nibabel.save(image, DATA / f"big{number}.nii.gz")
    (DATA / "chunked").touch()


def places(seed: int = 0) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Where a side without places of its own crops: a volume and a box, at random."""
    rng = np.random.default_rng(seed)
    while True:
        start = [int(rng.integers(n - p + 1)) for n, p in zip(SHAPE, PATCH, strict=True)]
        where = tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))
        yield int(rng.integers(4)), where


def cropping(read: Callable[[int, tuple[slice, ...]], tuple[np.ndarray, np.ndarray]]) -> Make:
    """Crops by a library, converted as ours are, into arrays that are used again."""

    def make() -> Iterator[int]:
        image, label = np.empty(PATCH, np.float32), np.empty(PATCH, np.int64)
        for number, where in places():
            found, ids = read(number, where)
            np.subtract(found, np.float32(MEAN), out=image)
            np.multiply(image, np.float32(1 / STD), out=image)
            label[...] = ids
            yield 1

    return make


def limit() -> Make:
    """Mapped arrays."""
    images = [np.load(DATA / f"images{n}.npy", mmap_mode="r") for n in range(4)]
    labels = [np.load(DATA / f"labels{n}.npy", mmap_mode="r") for n in range(4)]
    return cropping(lambda n, where: (images[n][where], labels[n][where]))


def volprep(name: str, threads: int = 1, label_dtype: str = "int64") -> Make:
    """A set, by PatchLoader."""
    from volprep import PatchDataset
    from volprep.loader import PatchLoader

    dataset = PatchDataset(
        DATA / name, "train", augment=name.startswith("em"), label_dtype=label_dtype
    )
    return _batches(PatchLoader(dataset, 2, threads=threads, steps=10**6))


def _batches(loader: Any) -> Make:
    return lambda: (2 for _ in loader)


def workers(name: str) -> Make:
    """The same data set under torch's DataLoader, with the pairs of our sampler."""
    from volprep import dataloader

    return _batches(dataloader(DATA / name, "train", num_workers=2, steps=10**6))


def own_volumes(ending: str) -> Make:
    """VolumeDataset over files that other programs wrote."""
    from volprep import open_labels, open_volume
    from volprep.cutting import Drawing
    from volprep.loader import PatchLoader, VolumeDataset
    from volprep.preprocess import Normalisation

    if ending == "nii.gz":
        volumes = [{"image": open_volume(DATA / f"big{n}.nii.gz")} for n in range(6)]
    else:
        volumes = [
            {
                "image": open_volume(DATA / f"images{n}.{ending}"),
                "label": open_labels(DATA / f"labels{n}.{ending}"),
            }
            for n in range(4)
        ]
    rule = Normalisation("given", (MEAN,), (STD,))
    dataset = VolumeDataset(
        volumes, PATCH, drawing=Drawing(foreground=0), normalisation=rule, length=10**6
    )
    return _batches(PatchLoader(dataset, 2, threads=1, shuffle=False))


def tensorstore() -> Make:
    """tensorstore with a cache as large as ours, one thread."""
    import tensorstore as ts

    context = ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 256 * 2**20},
            "data_copy_concurrency": {"limit": 1},
            "file_io_concurrency": {"limit": 1},
        }
    )

    def opened(name: str) -> list[Any]:
        kinds = (
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(DATA / f"{name}{n}.zarr")},
            }
            for n in range(4)
        )
        return [ts.open(kind, context=context).result() for kind in kinds]

    images, labels = opened("images"), opened("labels")
    return cropping(lambda n, w: (images[n][w].read().result(), labels[n][w].read().result()))


def zarr_python() -> Make:
    """zarr-python."""
    import zarr

    images, labels = (
        [zarr.open_array(DATA / f"{name}{n}.zarr", mode="r") for n in range(4)]
        for name in ("images", "labels")
    )
    return cropping(lambda n, where: (images[n][where], labels[n][where]))


def h5py_side() -> Make:
    """h5py, with caches of 256 MiB in all (32 MiB for each of the eight data sets)."""
    import h5py

    images, labels = (
        [
            h5py.File(DATA / f"{name}{n}.h5", rdcc_nbytes=2**25, rdcc_nslots=10007)["main"]
            for n in range(4)
        ]
        for name in ("images", "labels")
    )
    return cropping(lambda n, where: (images[n][where], labels[n][where]))


def nnunet(ram: bool) -> Make:
    """nnU-Net's store of preprocessed cases, and its cropping as its data loader calls it."""
    os.environ.setdefault("nnUNet_n_proc_DA", "0")
    import blosc2
    import torch
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    blosc2.set_nthreads(1)
    torch.set_num_threads(1)
    folder = DATA / "nnunet"
    if not (folder / "done").exists():
        folder.mkdir(exist_ok=True)
        for n in range(4):
            image = (np.load(DATA / f"images{n}.npy")[None].astype(np.float32) - MEAN) / STD
            label = np.load(DATA / f"labels{n}.npy")[None].astype(np.int32)
            blocks, chunks = comp_blosc2_params(image.shape, PATCH, 4)
            nnUNetDatasetBlosc2.save_case(
                image, label, {}, str(folder / f"c{n}"), chunks=chunks, blocks=blocks,
                chunks_seg=chunks, blocks_seg=blocks,
            )  # fmt: skip
        (folder / "done").touch()
    dataset = nnUNetDatasetBlosc2(str(folder))
    held = [dataset.load_case(f"c{n}")[:2] for n in range(4)]
    if ram:
        held = [(data[:], seg[:]) for data, seg in held]

    def make() -> Iterator[int]:
        images = torch.empty((2, 1, *PATCH))
        labels = torch.empty((2, 1, *PATCH), dtype=torch.int32)
        every = places()
        while True:
            for j in range(2):
                n, where = next(every)
                # As nnUNetDataLoader.generate_train_batch: the case is opened for every patch.
                data, seg = held[n] if ram else dataset.load_case(f"c{n}")[:2]
                box = [[s.start, s.stop] for s in where]
                images[j] = torch.from_numpy(crop_and_pad_nd(data, box, 0)).float()
                labels[j] = torch.from_numpy(crop_and_pad_nd(seg, box, -1))
            yield 2

    return make


def monai() -> Make:
    """Cached volumes, cropped."""
    import torch
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose, Lambdad, RandSpatialCropd

    torch.set_num_threads(1)

    def load(number: int) -> dict[str, Any]:
        image = (np.load(DATA / f"images{number}.npy")[None].astype(np.float32) - MEAN) / STD
        label = np.load(DATA / f"labels{number}.npy")[None].astype(np.int32)
        return {"image": torch.from_numpy(image), "label": torch.from_numpy(label)}

    keys = ["image", "label"]
    crop = RandSpatialCropd(keys, roi_size=PATCH, random_size=False)
    dataset = CacheDataset(
        [load(n) for n in range(4)], Compose([Lambdad(keys, lambda x: x), crop]),
        copy_cache=False, progress=False,
    )  # fmt: skip
    loader = DataLoader(dataset, batch_size=2, num_workers=0)

    def make() -> Iterator[int]:
        while True:
            for _ in loader:
                yield 2

    return make


def torchio() -> Make:
    """A queue of patches of volumes that are held in memory."""
    import torch
    import torchio as tio

    torch.set_num_threads(1)
    subjects = []
    for n in range(4):
        image = (np.load(DATA / f"images{n}.npy")[None].astype(np.float32) - MEAN) / STD
        label = np.load(DATA / f"labels{n}.npy")[None].astype(np.int32)
        subjects.append(
            tio.Subject(
                image=tio.ScalarImage(tensor=torch.from_numpy(image)),
                label=tio.LabelMap(tensor=torch.from_numpy(label)),
            )
        )
    dataset = tio.SubjectsDataset(subjects)
    queue = tio.Queue(dataset, 64, 16, tio.data.UniformSampler(PATCH), num_workers=0)
    loader = tio.SubjectsLoader(queue, batch_size=2, num_workers=0)

    def make() -> Iterator[int]:
        while True:
            for _ in loader:
                yield 2

    return make


TORCH = "torch==2.13.0"
SIDES: dict[str, tuple[Callable[[], Make], tuple[str, ...]]] = {
    "limit": (limit, ()),
    "patches": (lambda: volprep("plain-patches"), ()),
    "patches-2": (lambda: volprep("plain-patches", 2), ()),
    "patches-int32": (lambda: volprep("plain-patches", label_dtype="int32"), ()),
    "volumes": (lambda: volprep("plain-volumes"), ()),
    "volumes-int32": (lambda: volprep("plain-volumes", label_dtype="int32"), ()),
    "volumes-2": (lambda: volprep("plain-volumes", 2), ()),
    "workers": (lambda: workers("plain-patches"), ()),
    "em-patches": (lambda: volprep("em-patches"), ()),
    "em-patches-2": (lambda: volprep("em-patches", 2), ()),
    "em-volumes": (lambda: volprep("em-volumes"), ()),
    "zarr": (lambda: own_volumes("zarr"), ()),
    "zarr-tensorstore": (tensorstore, ("tensorstore",)),
    "zarr-python": (zarr_python, ()),
    "hdf5": (lambda: own_volumes("h5"), ()),
    "hdf5-h5py": (h5py_side, ()),
    "nii": (lambda: own_volumes("nii.gz"), ()),
    "nnunet": (lambda: nnunet(False), (TORCH, "nnunetv2==2.8.1")),
    "nnunet-ram": (lambda: nnunet(True), (TORCH, "nnunetv2==2.8.1")),
    "monai": (monai, (TORCH, "monai==1.6.1")),
    "torchio": (torchio, (TORCH, "torchio==1.2.1")),
}


def measure(name: str, seconds: float) -> dict[str, float]:
    """One side, in this process."""
    ready = SIDES[name][0]()()
    first = time.perf_counter()
    made = next(ready)
    first = time.perf_counter() - first
    while made < 20:
        made += next(ready)
    usage, wall, made = _usage(), time.perf_counter(), 0
    while time.perf_counter() - wall < seconds:
        made += next(ready)
    wall = time.perf_counter() - wall
    children = _pss_of_children()
    ready.close()
    now = _usage()
    return {
        "cpu": 1e3 * (now[0] - usage[0]) / made,
        "rate": made / wall,
        "faults": (now[1] - usage[1]) / made,
        "pss": _pss(os.getpid()) + children,
        "first": first,
    }


def _usage() -> tuple[float, int]:
    """CPU seconds and minor faults of this process and, once they have ended, its children."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ticks = os.sysconf("SC_CLK_TCK")
    running = 0.0
    for child in _children():
        parts = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
        running += (int(parts[11]) + int(parts[12])) / ticks
    return sum(f.ru_utime + f.ru_stime for f in found) + running, found[0].ru_minflt


def _children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def _pss_of_children() -> float:
    return sum(map(_pss, _children()))


def _pss(process: int) -> float:
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    """Run the sides in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="*", help=", ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--measure", action="store_true", help="one side, in this process")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.sides[0], options.seconds)))
        return
    origin = make_data()
    make_sets()
    make_chunked()
    print(f"data: {origin}" + ("" if origin == "fib25" else " (../shared/data is not there)"))
    commands = {}
    for name in options.sides or SIDES:
        packages = SIDES[name][1]
        own = packages[-1].split("==")[0] if packages else ""
        python = str(peer_python(own, *packages)) if packages else sys.executable
        script = str(Path(__file__).resolve())
        commands[name] = [python, script, name, "--measure", "--seconds", str(options.seconds)]
    runs = alternate(commands, options.rounds, threads=1)
    found = {n: [json.loads(r.output.splitlines()[-1]) for r in rs] for n, rs in runs.items()}
    middle = {n: {k: median([f[k] for f in fs]) for k in fs[0]} for n, fs in found.items()}
    base = middle.get("limit", {"cpu": float("nan")})["cpu"]
    rows = [
        [name, m["cpu"], m["cpu"] / base, m["rate"], m["faults"], round(m["pss"]), m["first"]]
        for name, m in middle.items()
    ]
    heads = ["side", "CPU ms", "of limit", "patches/s", "faults", "PSS MB", "first s"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
