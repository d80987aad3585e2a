"""Patching beside CAREamics 0.3.5 (PyPI), and the foreground index: times, memory, draws.

    python scripts/bench_patching.py [--rounds 5] [--only strategies|size|foreground]

`strategies`: 64 volumes of 512^3, patch 64^3. Whole processes in turn; inside each, CPU time
of building and of naming patches (imports are not counted), and the growth of the resident
set by building. Both sides name patches by their own generator, as documented; volprep's
figure with a generator keyed on (seed, epoch, index) made for each patch is given besides.
`size`: the same strategies on volumes of 64 to 64000 voxels a side, memory by tracemalloc.
`foreground`: label volumes of 1024^3 in Zarr, sparse (0.1% foreground in balls) and dense
(uint32 cells that fill the volume), indexed by streaming; then draws of foreground against
drawing places until one is foreground.

Measured 2026-11-21, 2 shared cores of a busy machine, medians of 5:

    strategy    what        careamics  volprep  ratio    bar
    stratified  build (ms)  4090       13.7     299      10
    stratified  spec (us)   49.8       4.37     11.4     5
    random      build (ms)  0.485      0.482    1.0
    random      spec (us)   24.6       2.19     11.2
    changed     build (ms)  8.47       1.08     7.8      (probabilities and exclusions of 2 samples)
    changed     spec (us)   49.1       6.70     7.3
    building takes          43 MB      4.4 MB   (32768 patches on either side)
    with a generator made for each patch: 14.0 us, of which the generator is 10

    memory of volprep's strategies at volumes of 64^3, 640^3, 6400^3 and 64000^3 voxels:
    stratified 5, 7, 26, 222 kB; random 3 kB; sequential 2, 3, 13, 119 kB (by the side, / 64)

    labels 1024^3   ids    exact  build CPU s  of it reading  peak MB  index MB
    sparse uint16   756    yes    1.45         0.70           183      1.8     (bar 1 GB)
    dense uint32    84966  no     4.46         0.69           749      131     (45 M runs, 8 M kept)
    97 MB of the peak are imports; copying the voxels once takes 0.47 and 0.93 s.
    At 0.1% foreground: 997 draws a hit by rejection, 18 ms; 1 draw from the index, 36 us.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc

import numpy as np
from benchlib import BENCH, alternate, copy_bandwidth, median, peer_python, run, table

DATA = BENCH / "data" / "patching"
SIDE = 1024

STRATEGIES = """
import json, resource, sys, time
from {module} import RandomPatching, StratifiedPatching
shapes, patch = [(1, 1, 512, 512, 512)] * 64, (64, 64, 64)
def measure(make, count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    patching = make()
    build = time.process_time() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    step = max(1, patching.n_patches // count)
    indices = list(range(0, patching.n_patches, step))
    start = time.process_time()
    for index in indices:
        patching.get_patch_spec(index)
    return patching, build, (time.process_time() - start) / len(indices), grown / 1024
def report(patching, build, spec, grown):
    return dict(n=int(patching.n_patches), build=build, spec=spec, grown=grown)
result = {{}}
stratified = measure(lambda: StratifiedPatching(shapes, patch, 0), {count})
result["stratified"] = report(*stratified)
result["random"] = report(*measure(lambda: RandomPatching(shapes, patch, 0), {count}))
def rarer():
    start = time.process_time()
    stratified[0].set_region_probs(0, 0, {{(z, y, x): 0.1 for z in range(8) for y in range(8)
                                          for x in range(4)}})
    stratified[0].exclude_patches(1, 0, [(4, 4, 4), (0, 0, 0)])
    changed = time.process_time() - start
    start = time.process_time()
    for index in list(range(600)) * ({count} // 600 or 1):
        stratified[0].get_patch_spec(index)
    return changed, (time.process_time() - start) / (600 * ({count} // 600 or 1))
result["changed"] = dict(zip(("build", "spec"), rarer()))
print(json.dumps(result))
"""
KEYED = """
import sys, time
from volprep.patching import StratifiedPatching
from volprep.randomness import sample_generator
patching = StratifiedPatching([(1, 1, 512, 512, 512)] * 64, (64, 64, 64))
start = time.process_time()
for index in range(patching.n_patches):
    patching.get_patch_spec(index, sample_generator(0, 0, index))
print((time.process_time() - start) / patching.n_patches)
"""
INDEX = """
import json, sys, time
import numpy as np
from volprep.sampling import ForegroundIndex
from volprep.sources import open_volume
volume = open_volume(sys.argv[1])
if sys.argv[2] == "import":
    sys.exit()
start = time.process_time()
if sys.argv[2] == "read":
    for box in volume.slab_boxes():
        volume.read(box)
    print(json.dumps(dict(build=time.process_time() - start)))
    sys.exit()
index = ForegroundIndex.build(volume, boxes=volume.slab_boxes())
build = time.process_time() - start
rng = np.random.default_rng(0)
start = time.perf_counter()
for _ in range(20000):
    index.patch_start(rng, (64, 64, 64))
draw = (time.perf_counter() - start) / 20000
print(json.dumps(dict(build=build, draw=draw, ids=len(index), voxels=index.n_voxels,
                      nbytes=index.nbytes, exact=index.exact)))
"""


def bench_strategies(rounds: int) -> None:
    """CAREamics and volprep on 64 volumes of 512^3."""
    peer = peer_python("careamics", "torch==2.13.0", "careamics==0.3.5")
    commands = {
        "careamics": [
            str(peer),
            "-c",
            STRATEGIES.format(module="careamics.dataset.patching", count=3000),
        ],
        "volprep": [
            sys.executable,
            "-c",
            STRATEGIES.format(module="volprep.patching", count=30000),
        ],
    }
    runs = alternate(commands, rounds, threads=1)
    results = {name: [json.loads(r.output) for r in found] for name, found in runs.items()}
    rows = []
    for case in ("stratified", "random", "changed"):
        for what, unit, scale in (("build", "ms", 1e3), ("spec", "us", 1e6)):
            theirs, ours = (
                median([r[case][what] for r in results[name]]) * scale
                for name in ("careamics", "volprep")
            )
            rows.append([case, f"{what} ({unit})", theirs, ours, theirs / ours])
    print(table(["strategy", "what", "careamics", "volprep", "ratio"], rows))
    for name, found in results.items():
        grown = median([r["stratified"]["grown"] for r in found])
        print(f"{name}: {found[0]['stratified']['n']} patches, building takes {grown:.1f} MB")
    keyed = [float(run([sys.executable, "-c", KEYED], threads=1).output) for _ in range(rounds)]
    print(f"volprep with a generator made for each patch: {median(keyed) * 1e6:.1f} us")


def bench_size() -> None:
    """Memory of volprep's strategies by the size of the volume."""
    from volprep.patching import RandomPatching, SequentialPatching, StratifiedPatching

    rows = []
    for strategy in (StratifiedPatching, RandomPatching, SequentialPatching):
        row: list[object] = [strategy.__name__]
        strategy([(1, 1, 64, 64, 64)], (64, 64, 64))  # what is made once is not counted
        for side in (64, 640, 6400, 64000):
            tracemalloc.start()
            patching = strategy([(1, 1, side, side, side)], (64, 64, 64))
            row.append(f"{tracemalloc.get_traced_memory()[1] / 1024:.0f} kB")
            tracemalloc.stop()
            patching.get_patch_spec(patching.n_patches - 1)
        rows.append(row)
    print(table(["strategy", "64^3", "640^3", "6400^3", "64000^3"], rows))


def make_labels() -> None:
    """Sparse balls and dense cells as Zarr of 1024^3, made once."""
    if (DATA / "done").exists():
        return
    import zarr

    DATA.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    grid = np.indices((15, 15, 15)).reshape(3, -1).T - 7
    ball = grid[(grid**2).sum(axis=1) <= 49]
    options = {"shape": (SIDE,) * 3, "chunks": (64, 256, 256), "overwrite": True}
    sparse = zarr.create_array(DATA / "sparse.zarr", dtype="uint16", **options)
    dense = zarr.create_array(DATA / "dense.zarr", dtype="uint32", **options)
    balls = rng.integers(8, SIDE - 8, (SIDE**3 // 1000 // len(ball), 3))
    for z in range(0, SIDE, 64):
        slab = np.zeros((64, SIDE, SIDE), np.uint16)
        for number, centre in enumerate(balls, start=1):
            voxels = ball + centre - [z, 0, 0]
            voxels = voxels[(voxels[:, 0] >= 0) & (voxels[:, 0] < 64)]
            slab[tuple(voxels.T)] = number
        sparse[z : z + 64] = slab
        # Cells of about 24 voxels a side whose walls wander, as in tissue.
        axes = [np.arange(z, z + 64), np.arange(SIDE), np.arange(SIDE)]
        wander = 6 * np.sin(axes[0] / 9)[:, None, None] + 4 * np.sin(axes[1] / 7)[:, None]
        iz = (axes[0] // 24)[:, None, None]
        iy = ((axes[1][:, None] + wander) // 24 + 1).astype(np.uint32)
        ix = ((axes[2] + wander) // 24 + 1).astype(np.uint32)
        dense[z : z + 64] = ((iz * 64 + iy) * 64 + ix + 1).astype(np.uint32)
    (DATA / "done").touch()


def bench_foreground(rounds: int) -> None:
    """Index two volumes of 1024^3, and draw from the sparse one."""
    # A child's peak is never below what its parent held, so nothing large is made here first.
    run([sys.executable, __file__, "--only", "labels"])
    rows: list[list[object]] = []
    for name in ("sparse", "dense"):
        path = str(DATA / f"{name}.zarr")
        commands = {
            what: [sys.executable, "-c", INDEX, path, what] for what in ("index", "read", "import")
        }
        runs = alternate(commands, rounds)
        results = [json.loads(r.output) for r in runs["index"]]
        read = median([json.loads(r.output)["build"] for r in runs["read"]])
        peak, base = (median([r.peak_mb for r in runs[w]]) for w in ("index", "import"))
        first = results[0]
        build, draw = (median([r[what] for r in results]) for what in ("build", "draw"))
        counts = [f"{first['voxels'] / SIDE**3:.1%}", first["ids"], str(first["exact"])]
        memory = [peak, base, first["nbytes"] / 2**20]
        rows.append([name, *counts, build, read, *memory, draw * 1e6])
    header = ["labels", "foreground", "ids", "exact", "build CPU s", "of it reading"]
    print(table([*header, "peak MB", "importing MB", "index MB", "draw us"], rows))
    copy = copy_bandwidth()
    print(
        f"copying the voxels: {2 * SIDE**3 / copy:.2f} s sparse, {4 * SIDE**3 / copy:.2f} s dense"
    )
    compare_draws()


def compare_draws() -> None:
    """Places drawn until one is foreground, against one draw from the index."""
    from volprep.sampling import ForegroundIndex
    from volprep.sources import open_volume

    volume = open_volume(DATA / "sparse.zarr")
    index = ForegroundIndex.build(volume, boxes=volume.slab_boxes())
    voxels = volume.read()[0]
    # Another seed than that of the balls' places, or the draws find their centres again.
    rng, tries, wanted = np.random.default_rng(1), 0, 1000
    start = time.perf_counter()
    for _ in range(wanted):
        tries += 1
        while not voxels[tuple(rng.integers(0, SIDE, 3))]:
            tries += 1
    rejecting = (time.perf_counter() - start) / wanted
    start = time.perf_counter()
    for _ in range(20000):
        label, voxel = index.draw(rng, "voxel")
        assert voxels[voxel] == label
    drawing = (time.perf_counter() - start) / 20000
    print(
        f"by rejection {tries / wanted:.0f} draws a hit, {rejecting * 1e6:.0f} us with labels in "
        f"memory; from the index 1 draw, {drawing * 1e6:.0f} us"
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["strategies", "size", "labels", "foreground"])
    options = parser.parse_args()
    if options.only in (None, "strategies"):
        bench_strategies(options.rounds)
    if options.only in (None, "size"):
        bench_size()
    if options.only == "labels":
        make_labels()
    if options.only in (None, "foreground"):
        bench_foreground(options.rounds)


if __name__ == "__main__":
    main()
