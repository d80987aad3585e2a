"""Random warps of one patch against batchgeneratorsv2, elektronn3 and MONAI, CPU time per patch.

Patch 32x128x128, float32 image and int16 labels, linear and nearest; drawing the
parameters counts. One process and one thread each, in turn, means over many draws,
medians over rounds. volprep and elektronn3 read from a volume; batchgeneratorsv2 and
MONAI are handed the crop that they need, cut beforehand. elektronn3's time is that of
a patch that is delivered, the draws that it refuses on the way included.
All sides are given int16 labels and give them: MONAI and elektronn3 compute in float32, and what
it takes to get there and back is theirs (until 2026-11-26 they were handed float32 labels; the
table below is from before). "kept arrays" writes into the arrays of the patch before, as a
loader's ring does.

    python scripts/bench_warp.py

2026-11-21, two idle cores of an AMD EPYC (batchgeneratorsv2's plane varies from 2.8 to 5.1):

    case     side                  ms    ratio to kept  bar  peak MB
    -------  --------------------  ----  -------------  ---  --------
    plane    volprep               1.26  1.05                174
    plane    batchgeneratorsv2     3.37  2.79           2.5  300
    plane    elektronn3            53.8  44.6           15   922
    plane    monai                 37.3  30.9           12   358
    plane    volprep, kept arrays  1.21  1
    affine   volprep               4.52  1.01                209
    affine   batchgeneratorsv2     57.8  12.9           6    383
    affine   elektronn3            139   31.1           15   923
    affine   monai                 74.8  16.7                422
    affine   volprep, kept arrays  4.49  1
    elastic  volprep               5.1   0.984               210
    elastic  batchgeneratorsv2     105   20.4           10   416
    elastic  monai                 600   116                 1.66e+03
    elastic  volprep, kept arrays  5.18  1

elektronn3 refuses 25% (plane) and 76% (affine) of its draws; those that it accepts take
44 ms. volprep's draws all fit. Copying image and labels once would allow 4500 patches/s;
the plane case reaches 830, a fifth of that.

Two threads make 1.94 (plane), 1.90 (affine) and 1.83 (elastic) times the patches of one,
bar 1.7; two threads within each patch read it 1.19, 1.67 and 1.68 times as fast. All tiles
of a thread are one call without the interpreter's lock: with a call for each tile and
channel it was 1.75, 1.54 and 1.50.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PATCH = (32, 128, 128)
VOLUME = {"plane": (36, 260, 260), "affine": (160, 230, 230), "elastic": (160, 230, 230)}
CROP = {"plane": (32, 213, 213), "affine": (140, 200, 200), "elastic": (140, 200, 200)}
# elektronn3 refuses what comes near a face: it gets room.
ROOMY = (200, 300, 300)
CASES = tuple(VOLUME)
DRAWS = {"volprep": 200, "batchgeneratorsv2": 60, "elektronn3": 15, "monai": 15}
BARS = {
    ("plane", "batchgeneratorsv2"): 2.5,
    ("plane", "elektronn3"): 15.0,
    ("plane", "monai"): 12.0,
    ("affine", "batchgeneratorsv2"): 6.0,
    ("affine", "elektronn3"): 15.0,
    ("elastic", "batchgeneratorsv2"): 10.0,
}


def volume(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and blocks of ids."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    labels = (z // 8 * 1024 + y // 8 * 32 + x // 8).astype(np.int16)
    return rng.random(shape, dtype=np.float32), labels


def mean_cpu(once: Callable[[int], object], draws: int) -> float:
    """Milliseconds of CPU a call, after some that are not counted."""
    for number in range(3):
        once(number)
    start = time.process_time()
    for number in range(draws):
        once(number)
    return (time.process_time() - start) / draws * 1e3


def volprep_side(case: str) -> dict[str, Any]:
    """Draw and read; into new arrays, and into arrays that are kept, as a loader does."""
    from benchlib import two_threads

    from volprep.randomness import sample_generator
    from volprep.warp import draw_displacement, draw_warp, resample

    image, labels = volume(VOLUME[case])
    kept = np.empty((1, *PATCH), np.float32), [np.empty(PATCH, np.int16)]

    def draw(number: int) -> Any:
        rng = sample_generator(0, 0, number)
        grid = None
        if case == "elastic":
            grid = draw_displacement(rng, PATCH, magnitude=(1, 3, 3))
        return draw_warp(
            rng, VOLUME[case], PATCH, lock_z=case == "plane", aniso_factor=1, displacement=grid,
            grid_spacing=(16, 16, 16),
        ).map  # fmt: skip

    def once(number: int, out: Any = None, threads: int = 1) -> None:
        resample(draw(number), PATCH, image[None], [labels], out=out, threads=threads)

    draws = DRAWS["volprep"]
    found = {
        "ms": mean_cpu(once, draws),
        "kept": mean_cpu(lambda number: once(number, kept), draws),
        "draw": mean_cpu(draw, draws),
    }
    found["threads"] = two_threads(lambda numbers: [once(n) for n in numbers], draws)
    maps = [draw(number) for number in range(draws)]
    for threads in (1, 2):
        start = time.perf_counter()
        for one in maps:
            resample(one, PATCH, image[None], [labels], out=kept, threads=threads)
        found[f"wall {threads}"] = (time.perf_counter() - start) / draws * 1e3
    return found


def batchgenerators_side(case: str) -> dict[str, Any]:
    """`SpatialTransform`, for the plane in its pseudo-2D form."""
    import torch
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (the peer draws from numpy's global state)
    image, labels = volume(CROP[case])
    flat = case == "plane"
    transform = SpatialTransform(
        PATCH[1:] if flat else PATCH, patch_center_dist_from_border=0, random_crop=False,
        p_elastic_deform=float(case == "elastic"), elastic_deform_scale=(0.1, 0.2),
        elastic_deform_magnitude=(1, 4), p_rotation=1, rotation=(-np.pi, np.pi), p_scaling=1,
        scaling=(0.9, 1.1), mode_seg="nearest",
    )  # fmt: skip
    given = {
        "image": torch.from_numpy(image if flat else image[None]),
        "segmentation": torch.from_numpy(labels if flat else labels[None]),
    }
    return {"ms": mean_cpu(lambda _: transform(**given), DRAWS["batchgeneratorsv2"])}


def monai_side(case: str) -> dict[str, Any]:
    """`RandAffined`, and `Rand3DElasticd` for the elastic case."""
    import torch
    from monai.transforms import Rand3DElasticd, RandAffined

    torch.set_num_threads(1)
    image, labels = volume(CROP[case])
    turns = (np.pi, 0, 0) if case == "plane" else (np.pi,) * 3
    common = {
        "keys": ("image", "label"), "prob": 1.0, "spatial_size": PATCH, "rotate_range": turns,
        "mode": ("bilinear", "nearest"), "padding_mode": "zeros",
    }  # fmt: skip
    if case == "elastic":
        transform = Rand3DElasticd(sigma_range=(8, 12), magnitude_range=(50, 100), **common)
    else:
        scales = (0, 0.1, 0.1) if case == "plane" else (0.1,) * 3
        transform = RandAffined(scale_range=scales, cache_grid=True, **common)
    transform.set_random_state(0)
    given = {
        "image": torch.from_numpy(image[None]),
        "label": torch.from_numpy(labels[None]),
    }

    def once(_: int) -> None:
        # MONAI computes in float32 and gives float32: what the ids cost to be ids again counts.
        transform(dict(given))["label"].to(torch.int16)

    return {"ms": mean_cpu(once, DRAWS["monai"])}


def elektronn3_side(case: str) -> dict[str, Any]:
    """Matrices until one is accepted; the time of the accepted ones, and the share refused."""
    from elektronn3.data import coord_transforms

    image, labels = volume(ROOMY)
    given = {"inp_src": image[None], "patch_shape": PATCH}
    # Its targets must be float32: bringing a crop of the int16 ids there and back counts; the crop
    # is what the patch is read from (the volume is roomy, so that less is refused).
    roomy = labels[None].astype(np.float32)
    part = tuple(slice((n - c) // 2, (n + c) // 2) for n, c in zip(ROOMY, CROP[case], strict=True))
    target = {"target_src": roomy, "target_patch_shape": PATCH}
    np.random.seed(0)  # noqa: NPY002 (the peer draws from numpy's global state)
    refused, accepted = 0, []
    options = {"lock_z": case == "plane", "aniso_factor": 1}
    begin = 0.0
    while len(accepted) < DRAWS["elektronn3"] + 3:
        if len(accepted) == 3:
            begin, refused = begin or time.process_time(), refused if begin else 0
        start = time.process_time()
        matrix = coord_transforms.get_warped_coord_transform(ROOMY, PATCH, **options)
        try:
            roomy[0][part] = labels[part]
            coord_transforms.warp_slice(M=matrix, **given, **target)[1].astype(np.int16)
        except coord_transforms.WarpingOOBError:
            refused += 1
            continue
        accepted.append(time.process_time() - start)
    whole = time.process_time() - begin
    count = DRAWS["elektronn3"]
    return {
        "ms": whole / count * 1e3,
        "accepted": float(np.mean(accepted[3:])) * 1e3,
        "refused": refused / (refused + count),
    }


SIDES: dict[str, Callable[[str], dict[str, Any]]] = {
    "volprep": volprep_side,
    "batchgeneratorsv2": batchgenerators_side,
    "elektronn3": elektronn3_side,
    "monai": monai_side,
}


def main() -> None:
    """Run all sides in turn and print the tables."""
    from benchlib import alternate, copy_bandwidth, median, peer_python, table

    script = str(Path(__file__).resolve())
    commands = {}
    for case in CASES:
        for side in SIDES:
            python = (
                sys.executable
                if side == "volprep"
                else str(peer_python(side, "torch==2.13.0", side))
            )
            if (case, side) != ("elastic", "elektronn3"):
                commands[f"{side} {case}"] = [python, script, side, case]
    runs = alternate(commands, rounds=5, threads=1)
    found = {name: [json.loads(r.output) for r in results] for name, results in runs.items()}

    def value(side: str, case: str, key: str = "ms") -> float:
        return median([f[key] for f in found[f"{side} {case}"]])

    rows = []
    for case in CASES:
        for side in SIDES:
            if f"{side} {case}" not in runs:
                continue
            peak = median([r.peak_mb for r in runs[f"{side} {case}"]])
            ratio = value(side, case) / value("volprep", case, "kept")
            bar = BARS.get((case, side), "")
            rows.append([case, side, value(side, case), ratio, bar, peak])
        rows.append([case, "volprep, kept arrays", value("volprep", case, "kept"), 1.0, "", ""])
    print(table(["case", "side", "ms", "ratio to kept", "bar", "peak MB"], rows))
    for case in CASES:
        ours = {k: value("volprep", case, k) for k in ("draw", "threads", "wall 1", "wall 2")}
        print(
            f"{case}: of volprep's, drawing takes {ours['draw']:.2f} ms; two threads make "
            f"{ours['threads']:.2f}x the patches of one, bar 1.7x; two threads within each "
            f"patch {ours['wall 1'] / ours['wall 2']:.2f}x (wall)"
        )
    for case in ("plane", "affine"):
        refused, alone = (value("elektronn3", case, k) for k in ("refused", "accepted"))
        print(f"{case}: elektronn3 refuses {refused:.0%}; its accepted draws take {alone:.3g} ms")
    limit = copy_bandwidth() / (int(np.prod(PATCH)) * (4 + 2))
    reached = ", ".join(f"{case} {1e3 / value('volprep', case, 'kept'):.0f}" for case in CASES)
    print(f"limit: {limit:.0f} patches/s by copying image and labels once; reached: {reached}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(SIDES[sys.argv[1]](sys.argv[2])))
    else:
        main()
