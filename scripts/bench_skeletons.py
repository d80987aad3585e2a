"""Skeletons made, baked and painted against SKOOTS 0.0.5: CPU time, memory, coverage.

Real labels: `07` (neurons, one of them four fifths of the volume) and `01` (nuclei). Both
sides get the same labels and the same skeletons, one thread each, in turn, medians over
rounds; compiling is not counted. SKOOTS is installed without its own dependencies but
torch and scikit-image; what it only imports (triton, bism, yacs, kimimaro) is stubbed,
so its CPU path runs as it is.

    python scripts/bench_skeletons.py             some minutes
    python scripts/bench_skeletons.py --large     and a volume of 1024x1024x1024

Measured 2026-11-21 on two idle cores of an AMD EPYC; seconds of CPU:

    case            voxels   SKOOTS s  volprep s  ratio  bar    ns/voxel  x copy
    --------------  -------  --------  ---------  -----  -----  --------  ------
    07 bake         262144   2.28      0.0027     844    >= 40  10.3      9.22
    07 bake + mean  262144   2.51      0.00518    485    >= 60  19.8      17.7
    07 mask         262144   0.00338   9.15e-05   36.9   >= 15  0.349     1.25
    01 bake         107787   0.0208    0.000451   46.2   >= 40  4.18      3.74
    01 bake + mean  107787   0.109     0.00144    75.4   >= 60  13.4      12
    01 mask         107787   0.00446   7.4e-05    60.3   >= 15  0.686     2.46
    07 skeletonize  8388608  8.32      1.19       6.97   >= 5   142       510

Since 2026-11-26 rods, tubes and slabs of even thickness keep their length, and skeletons of
hollow objects stay in them: that costs a fifth of the time of `skeletonize` (1.43 s where
1.22 s were measured in turn on a busy machine, with 16277 points where 12298 were; thinning
on a grid of twice the resolution would take eight times the voxels), so that its ratio
is about 5.8.

SKOOTS gives 156 of the 163 components of `07` a point, volprep all. With the skeletons
that it makes itself (cavities not filled, 561883 points) SKOOTS asks for 576 GB to bake
the 64x64x64 crop; volprep takes a second for all of `07` with them. Memory above the
start at 128x128x128, with the mean: volprep 32 MB, 24 MB of it the result; the mean of
SKOOTS alone 2179 MB. "x copy" is the time over that of copying what must be read and
written.

256x256x256 with the mean, wall: 0.44 s on one thread, 0.23 s on two.

1024x1024x1024 (`07` 128 times, 15488 instances, 1574144 points), two threads: skeletons
in 160 s of CPU, 0.69 GB at most; the field with its mean in 33 s of CPU, no more memory.

Instances of few points, such as the nuclei of `01`, are baked along lines, without leaves:
half the time that leaves took for them. Of the 0.45 ms, 0.3 are the lines (a fifth of it
looking for runs of one label, a third trying points) and 0.1 Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {
    "07": ("07_connectomics_neurons_labels_only/labels/pinky40_crop.tif", (1.25, 1.0, 1.0)),
    "01": ("01_stardist_nuclei3d/labels/img3d.tif", (2.0, 1.0, 1.0)),
}
CROPS = {"07": np.s_[32:96, 96:160, 96:160], "01": np.s_[:, :, :]}
BARS = {"bake": 40.0, "bake + mean": 60.0, "mask": 15.0, "skeletonize": 5.0}
STUBS = {
    "triton/__init__.py": "def jit(function):\n    return function\n",
    "triton/language.py": "constexpr = int\n",
    "bism/__init__.py": "",
    "bism/backends.py": "",
    "bism/modules.py": "",
    "bism/models/__init__.py": "",
    "bism/models/spatial_embedding.py": "SpatialEmbedding = None\n",
    "yacs/__init__.py": "",
    "yacs/config.py": "CfgNode = dict\n",
    "kimimaro.py": "",
}
TILES = (8, 4, 4)  # of `07`, (128, 256, 256), to (1024, 1024, 1024)
ROUNDS = 3


def peak_mb() -> float:
    """The most memory that this process has held since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_peak() -> None:
    """Let the peak begin at what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def cpu(call: Callable[[], Any], times: int) -> float:
    """CPU seconds of one call, the best of some."""
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def scene(folder: Path, name: str) -> tuple[np.ndarray, dict[int, np.ndarray], Any]:
    """The crop, its skeletons (Z, Y, X) and its anisotropy."""
    with np.load(folder / f"{name}.npz") as file:
        labels, ids, offsets, points = (file[k] for k in ("labels", "ids", "offsets", "points"))
    skeletons = {int(i): points[offsets[k] : offsets[k + 1]] for k, i in enumerate(ids)}
    return labels, skeletons, SETS[name][1]


def volprep_side(folder: Path) -> dict[str, Any]:
    """Everything in one process, after a small call that loads the compiled code."""
    from volprep.skeletons import Skeletons, bake_skeleton, skeleton_to_mask, skeletonize

    found: dict[str, Any] = {}
    for name in SETS:
        labels, points, spacing = scene(folder, name)
        skeletons = Skeletons.from_points(points)
        for average in (False, True):
            bake_skeleton(labels[:8, :8, :8], skeletons, spacing, average)
            key = f"{name} bake + mean" if average else f"{name} bake"
            found[key] = cpu(lambda: bake_skeleton(labels, skeletons, spacing, average), 5)  # noqa: B023
        paint = lambda: skeleton_to_mask(skeletons, labels.shape, slice_axis=0)  # noqa: B023, E731
        paint()
        found[f"{name} mask"] = cpu(paint, 5)
    whole = read_labels("07")
    skeletonize(whole[:8, :8, :8])
    found["07 skeletonize"] = cpu(lambda: skeletonize(whole), 1)
    return found


def skoots_side(folder: Path) -> dict[str, Any]:
    """The same calls; SKOOTS counts axes as (X, Y, Z)."""
    import torch
    from skoots.lib.skeleton import bake_skeleton, skeleton_to_mask
    from skoots.train.generate_skeletons import calculate_skeletons

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in SETS:
        labels, points, spacing = scene(folder, name)
        masks = torch.from_numpy(labels.astype(np.int32).transpose(1, 2, 0).copy())
        skeletons = {i: torch.from_numpy(p[:, [1, 2, 0]].copy()) for i, p in points.items()}
        order = (spacing[1], spacing[2], spacing[0])
        bake_skeleton(masks[:8, :8, :8].contiguous(), skeletons, order)
        bake = lambda average: bake_skeleton(masks, skeletons, order, average)  # noqa: B023, E731
        times = 2 if name == "07" else 5
        found[f"{name} bake"] = cpu(lambda: bake(False), times)  # noqa: B023
        found[f"{name} bake + mean"] = cpu(lambda: bake(True), times)  # noqa: B023
        found[f"{name} mask"] = cpu(lambda: skeleton_to_mask(skeletons, masks.shape), 5)  # noqa: B023
    masks = torch.from_numpy(read_labels("07").astype(np.int32).transpose(1, 2, 0).copy())
    made: dict[int, Any] = {}
    found["07 skeletonize"] = cpu(
        lambda: made.update(calculate_skeletons(masks, torch.tensor((1, 1, 1)))), 1
    )
    np.savez(
        folder / "skoots_made.npz",
        **{str(i): np.asarray(p, np.float32)[:, [2, 0, 1]] for i, p in made.items()},
    )
    return found


def memory_side(folder: Path) -> dict[str, Any]:
    """Memory above the start for a 128x128x128 bake with the mean, and threads at 256^3."""
    from volprep.skeletons import Skeletons, bake_skeleton

    with np.load(folder / "07_whole.npz") as file:
        skeletons = Skeletons(*(file[k] for k in ("ids", "offsets", "points", "edges")))
    labels = np.ascontiguousarray(read_labels("07")[:128, :128, :128])
    bake_skeleton(labels[:8, :8, :8], skeletons, (1.25, 1, 1))
    forget_peak()
    start = peak_mb()
    bake_skeleton(labels, skeletons, (1.25, 1, 1))
    found = {"above start": peak_mb() - start, "bytes out": 12 * 128**3 / 2**20}
    whole = read_labels("07")
    cube = np.concatenate((whole, whole[::-1]))
    turned = skeletons.transform(lambda p: np.where([True, False, False], 255 - p, p))
    both = {i: np.concatenate((skeletons[i], turned[i])) for i in skeletons}
    table = Skeletons.from_points(both)
    for workers in (1, 2):
        walls = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            bake_skeleton(cube, table, (1.25, 1, 1), workers=workers)
            walls.append(time.perf_counter() - begin)
        found[f"wall {workers}"] = min(walls)
    return found


def skoots_memory_side(_: Path) -> dict[str, Any]:
    """Memory above the start of SKOOTS' mean alone, 128x128x128."""
    import torch
    from skoots.lib.skeleton import average_baked_skeletons

    torch.set_num_threads(1)
    average_baked_skeletons(torch.zeros((1, 3, 8, 8, 8)))
    forget_peak()
    start = peak_mb()
    average_baked_skeletons(torch.rand((1, 3, 128, 128, 128)))
    return {"above start": peak_mb() - start}


class Tiled:
    """`07` side by side, every copy with ids of its own, as a volume that is never whole."""

    def __init__(self) -> None:
        self.tile = read_labels("07")
        _, self.tile = np.unique(self.tile, return_inverse=True)
        self.tile = self.tile.reshape(128, 256, 256).astype(np.uint32)
        self.top = int(self.tile.max())
        self.shape = (1, *(n * t for n, t in zip(self.tile.shape, TILES, strict=True)))
        self.dtype, self.spacing = self.tile.dtype, (0.04, 0.032, 0.032)

    def read(self, box: Any) -> np.ndarray:
        """Each copy's part of the box."""
        out = np.empty(box.shape, np.uint32)
        for number, start in self.starts():
            part = box.shift([-a for a in start]).clip(self.tile.shape)
            if part.size:
                place = part.shift([a - b for a, b in zip(start, box.start, strict=True)])
                tile = self.tile[part.slices]
                out[place.slices] = np.where(tile, tile + number * self.top, 0)
        return out[None]

    def starts(self) -> list[tuple[int, tuple[int, ...]]]:
        """Number and place of each copy."""
        places = np.ndindex(*TILES)
        size = self.tile.shape
        return [(k, tuple(int(a * n) for a, n in zip(p, size, strict=True)))
                for k, p in enumerate(places)]  # fmt: skip


def large_side(_: Path) -> dict[str, Any]:
    """Skeletonise and bake 1024x1024x1024, thrown away as it comes."""
    from volprep.skeletons.stream import bake_volume, skeletonize_volume

    volume, found = Tiled(), {}
    begin, start = time.perf_counter(), time.process_time()
    skeletons = skeletonize_volume(volume, workers=2)
    found["skeletonize wall"] = time.perf_counter() - begin
    found["skeletonize cpu"] = time.process_time() - start
    found["skeletonize peak MB"] = peak_mb()
    found["instances"], found["points"] = len(skeletons), len(skeletons.points)
    begin, start = time.perf_counter(), time.process_time()
    bake_volume(volume, skeletons, lambda _box, _field: None, workers=2)
    found["bake wall"] = time.perf_counter() - begin
    found["bake cpu"] = time.process_time() - start
    found["peak MB of all"] = peak_mb()
    return found


def read_labels(name: str) -> np.ndarray:
    """The label volume of a data set; where it is absent, cells of chance, which is said."""
    import tifffile

    path = DATA / SETS[name][0]
    if path.exists():
        return np.asarray(tifffile.imread(path))
    print(f"{name}: {path} is not there, synthetic cells in its place", file=sys.stderr)
    return _cells(int(name))


def _cells(seed: int) -> np.ndarray:
    """Cells around centres of chance, with a gap of background between them."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    shape = (128, 256, 256)
    tree = cKDTree(rng.random((300, 3)) * shape)
    labels = np.empty(shape, np.uint16)
    plane = np.stack(np.mgrid[: shape[1], : shape[2]], -1).reshape(-1, 2)
    for z in range(shape[0]):
        distance, near = tree.query(np.column_stack([np.full(len(plane), z), plane]), k=2)
        inside = distance[:, 1] - distance[:, 0] > 2
        labels[z] = np.where(inside, near[:, 0] + 1, 0).reshape(shape[1:])
    return labels


def coverage(labels: np.ndarray, skeletons: dict[int, np.ndarray]) -> tuple[int, int, int]:
    """Connected components, those with a point, and points that lie outside their instance."""
    from volprep.skeletons.make import find_components

    covered = total = 0
    lost = 0
    for instance, points in skeletons.items():
        places = np.clip(np.rint(points).astype(int), 0, np.array(labels.shape) - 1)
        lost += int((labels[tuple(places.T)] != instance).sum())
    marks = np.zeros(labels.shape, bool)
    for points in skeletons.values():
        places = np.clip(np.rint(points).astype(int), 0, np.array(labels.shape) - 1)
        marks[tuple(places.T)] = True
    for component in find_components(labels):
        total += 1
        covered += any(marks[z, y, x:stop].any() for z, y, x, stop in component.runs)
    return total, covered, lost


def prepare(folder: Path) -> None:
    """Write the scenes that both sides read."""
    from volprep.skeletons import skeletonize, write_skeletons

    folder.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        labels = read_labels(name)
        skeletons = skeletonize(labels)
        if name == "07":
            write_skeletons(skeletons, folder / "07_whole.npz")
        crop = np.ascontiguousarray(labels[CROPS[name]])
        cut = skeletons.only(np.unique(crop)).shift([-(s.start or 0) for s in CROPS[name]])
        np.savez(
            folder / f"{name}.npz",
            labels=crop, ids=cut.ids, offsets=cut.offsets, points=cut.points,
        )  # fmt: skip


def stubs(folder: Path) -> Path:
    """Modules that SKOOTS imports and does not use here."""
    for name, text in STUBS.items():
        path = folder / "stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "stubs"


def skoots_python() -> Path:
    """SKOOTS in an environment of its own, without what it does not need here."""
    import benchlib

    python = benchlib.peer_python(
        "skoots", "torch==2.13.0", "numpy", "scipy", "scikit-image", "tqdm", "tifffile"
    )
    command = [str(python), "-m", "pip", "install", "-q", "--no-deps", "skoots==0.0.5"]
    subprocess.run(command, check=True)
    return python


def main(large: bool) -> None:
    """Run both sides in turn and print the table."""
    import benchlib

    from volprep.skeletons import read_skeletons

    folder = benchlib.BENCH / "skeletons"
    prepare(folder)
    os.environ["PYTHONPATH"] = str(stubs(folder))
    os.environ["TQDM_DISABLE"] = "1"
    peer = skoots_python()

    def side(python: str | Path, role: str, threads: int | None = 1) -> dict[str, Any]:
        command = [str(python), __file__, "--side", role, str(folder)]
        return dict(json.loads(benchlib.run(command, threads=threads).output.splitlines()[-1]))

    rounds: dict[str, list[dict[str, Any]]] = {"volprep": [], "skoots": []}
    for _ in range(ROUNDS):
        rounds["skoots"].append(side(peer, "skoots"))
        rounds["volprep"].append(side(sys.executable, "volprep"))
    ours, theirs = (
        {key: benchlib.median([r[key] for r in rounds[who]]) for key in rounds[who][0]}
        for who in ("volprep", "skoots")
    )
    bandwidth = benchlib.copy_bandwidth()
    rows = []
    for key in ours:
        name, _, what = key.partition(" ")
        size = read_labels(name).size if what == "skeletonize" else scene(folder, name)[0].size
        moved = {"mask": 4, "skeletonize": 4}.get(what, 16) * size
        rows.append(
            [key, size, theirs[key], ours[key], theirs[key] / ours[key], f">= {BARS[what]:g}",
             ours[key] / size * 1e9, ours[key] / (moved / bandwidth)]
        )  # fmt: skip
    print(benchlib.table(
        ["case", "voxels", "SKOOTS s", "volprep s", "ratio", "bar", "ns/voxel", "x copy"], rows
    ))  # fmt: skip
    with np.load(folder / "skoots_made.npz") as file:
        made = {int(key): file[key] for key in file.files}
    for who, skeletons in (("SKOOTS", made), ("volprep", read_skeletons(folder / "07_whole.npz"))):
        total, covered, lost = coverage(read_labels("07"), dict(skeletons))
        print(f"{who}: {covered} of {total} components have a point, {lost} points lie outside")
    memory = side(sys.executable, "memory", threads=None)
    peer_mb = side(peer, "skoots_memory")["above start"]
    own_mb, out_mb = memory["above start"], memory["bytes out"]
    print(
        f"memory above start at 128^3: volprep {own_mb:.0f} MB, {out_mb:.0f} MB of it the result;"
    )
    print(f"  the mean of SKOOTS alone {peer_mb:.0f} MB")
    print(f"256^3, wall: {memory['wall 1']:.2f} s on one thread, {memory['wall 2']:.2f} s on two")
    if large:
        for key, value in side(sys.executable, "large", threads=None).items():
            print(f"1024^3 {key}: {value:.4g}")


if __name__ == "__main__":
    if "--side" in sys.argv:
        role, place = sys.argv[-2:]
        print(json.dumps(globals()[f"{role}_side"](Path(place))))
    else:
        main("--large" in sys.argv)
