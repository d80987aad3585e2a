"""The first 100 patches of a large tiled volume: time and memory, against loading whole chunks.

    python scripts/bench_tiles.py [--sections 100] [--grid 20] [--prepare]

Makes a volume of tiles of 1024x1024 (a few hundred PNG of EM texture, each hard-linked to many
places; 42 GB once decoded with the defaults), and lets processes of their own do the same work:

- patches: 100 random patches of 8x256x256 by `VolumeDataset`, which reads the tiles that they
  touch;
- chunks: the same number by `TileDataset` from chunks of a tenth of each axis, as PyTorch
  Connectomics takes them (it loads a whole chunk before the first patch);
- naive: such a chunk put together by Pillow and NumPy, and patches cut out of it.

With `--prepare` also whole commands on it: `check` and `fingerprint` of headers, and `prepare` of
200 patches with `data.read: sample`, to its end, with the number of tiles that it opened.
Prints seconds of CPU and wall time to the first 100 patches and the peak of memory.

Measured on 2026-11-26 (two shared cores): `prepare` of 42 GB with 200 patches took 34 s of CPU and
577 MB, and opened 2,671 of 40,000 tiles; `check` and `fingerprint` of headers 2 s and 164 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from benchlib import BENCH, run, table
from PIL import Image

DATA = BENCH / "data" / "tiles"
TILE, PATCH, COUNT = 1024, (8, 256, 256), 100
KINDS = 240


def make(sections: int, grid: int) -> Path:
    """The volume; tiles are links to a few hundred files of blurred noise that look like tissue."""
    from scipy.ndimage import gaussian_filter

    path = DATA / f"{sections}x{grid}.json"
    if path.exists():
        return path
    kinds = DATA / "kinds"
    kinds.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(KINDS):
        file = kinds / f"{number}.png"
        if not file.exists():
            noise = rng.standard_normal((TILE, TILE)).astype(np.float32)
            smooth = 60 * gaussian_filter(noise, 3) * 6 + 8 * gaussian_filter(noise, 0.7) + 128
            Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)).save(file, compress_level=1)
    root = DATA / path.stem
    for z in range(sections):
        (root / f"{z:04d}").mkdir(parents=True, exist_ok=True)
        for tile in range(grid * grid):
            name = root / f"{z:04d}" / f"{tile // grid}_{tile % grid}.png"
            if not name.exists():
                os.link(kinds / f"{(7 * z + tile) % KINDS}.png", name)
    path.write_text(json.dumps({
        "image": [f"{path.stem}/{z:04d}/{{row}}_{{column}}.png" for z in range(sections)],
        "height": TILE * grid, "width": TILE * grid, "depth": sections, "n_rows": grid,
        "n_columns": grid, "tile_size": TILE, "dtype": "uint8", "ndim": 1, "tile_ratio": 1,
        "tile_st": [0, 0],
    }))  # fmt: skip
    return path


def first_patches(way: str, path: Path) -> None:
    """Seconds until 100 patches are there."""
    import volprep

    begin = time.perf_counter()
    volume = {"image": volprep.open_volume(path)}
    shape = volume["image"].shape[1:]
    chunks = (max(1, shape[0] // 10 // PATCH[0]), 10, 10)
    if way == "patches":
        dataset = volprep.VolumeDataset([volume], PATCH, length=COUNT)
        for number in range(COUNT):
            dataset[0, number]
    elif way == "chunks":
        tiles = volprep.TileDataset(volume, PATCH, chunk_num=chunks, chunk_iter=COUNT)
        for number in range(COUNT):
            tiles[0, number]
    else:
        content = json.loads(path.read_text())
        size = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
        chunk = np.zeros(size, np.uint8)
        for z in range(size[0]):
            for row in range(-(-size[1] // TILE)):
                for column in range(-(-size[2] // TILE)):
                    name = content["image"][z].format(row=row, column=column)
                    tile = np.asarray(Image.open(path.parent / name))
                    part = chunk[z, row * TILE : (row + 1) * TILE, column * TILE :][:, :TILE]
                    part[...] = tile[: part.shape[0], : part.shape[1]]
        rng = np.random.default_rng(0)
        for _ in range(COUNT):
            start = [int(rng.integers(0, n - p + 1)) for n, p in zip(size, PATCH, strict=True)]
            chunk[tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))].copy()
    print(json.dumps({"first": time.perf_counter() - begin}))


CONFIG = """\
data: {{cases: [{{image: {path}}}], spacing: [0.04, 0.008, 0.008], read: sample}}
plan: {{patch_size: [8, 256, 256], aug_patch_size: [8, 256, 256]}}
patching: {{patches_per_case: 200}}
split: {{fraction: 0}}
augment: []
output: {{dir: {out}}}
"""


def whole_commands(path: Path) -> None:
    """`check`, `fingerprint` and `prepare`, and what of the tiles the last one opened."""
    out = DATA / "set"
    subprocess.run(["rm", "-rf", str(out), f"{out}.partial"], check=True)
    config = DATA / "set.yaml"
    config.write_text(CONFIG.format(path=path, out=out))
    counted = DATA / "opened.txt"
    counting = (
        "import sys; from volprep.sources import tiles; read, seen = tiles.read_plane, set()\n"
        "def noted(file, *rest, **more):\n"
        "    seen.add(str(file))\n    return read(file, *rest, **more)\n"
        "tiles.read_plane = noted\nfrom volprep.cli import main\n"
        "sys.argv = ['volprep', *sys.argv[2:]]\n"
        f"try:\n    main()\nfinally:\n    open({str(counted)!r}, 'w').write(str(len(seen)))\n"
    )
    rows = []
    for name, *arguments in (
        ("check", "check", "--headers-only", str(config)),
        ("fingerprint", "fingerprint", "--headers-only", str(config)),
        ("prepare", "prepare", str(config)),
    ):
        found = run([sys.executable, "-c", counting, "x", *arguments])
        rows.append([name, f"{found.cpu:.1f}", f"{found.wall:.1f}", f"{found.peak_mb:.0f}",
                     counted.read_text()])  # fmt: skip
    print(table(["command", "CPU s", "s", "peak MB", "tiles opened"], rows))


def main() -> None:
    """Run the benchmark, or one way of it."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sections", type=int, default=100)
    options.add_argument("--grid", type=int, default=20)
    options.add_argument("--prepare", action="store_true")
    options.add_argument("--way", choices=("patches", "chunks", "naive"))
    given = options.parse_args()
    path = make(given.sections, given.grid)
    if given.way:
        first_patches(given.way, path)
        return
    rows = []
    for way in ("patches", "chunks", "naive"):
        found = run([sys.executable, __file__, "--way", way, "--sections", str(given.sections),
                     "--grid", str(given.grid)])  # fmt: skip
        first = json.loads(found.output.splitlines()[-1])["first"]
        rows.append([way, f"{first:.1f}", f"{found.cpu:.1f}", f"{found.peak_mb:.0f}"])
    print(table(["way", "first 100, s", "CPU s", "peak MB"], rows))
    if given.prepare:
        whole_commands(path)


if __name__ == "__main__":
    main()
