"""Estimated against measured memory of one training step, for ten plans.

    python scripts/measure_memory.py [--plans 10]

Each plan runs in a process of its own, so that none sees what another left behind. On a GPU the
estimate without the reserve should be within 10% of the peak of torch's allocator; there is no
GPU where this was written, so that this is NOT MEASURED. On a CPU the workspaces of its
convolutions come on top, which no estimate of ours has; the figures are printed all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

#: Median shape, spacing, memory, precision, channels, classes.
PLANS = [
    ("64,64,64", "1,1,1", "300MiB", "fp32", 1, 2),
    ("16,128,128", "0.3,0.1,0.1", "300MiB", "mixed", 1, 2),
    ("1,512,512", "1,1,1", "400MiB", "fp32", 3, 2),
    ("40,200,200", "50,4,4 nm", "500MiB", "mixed", 1, 3),
    ("100,100,100", "0.28,0.13,0.13", "1GiB", "mixed", 1, 2),
    ("128,128,128", "1,1,1", "1GiB", "fp32", 2, 4),
    ("128,512,512", "0.5,0.1,0.1", "4GiB", "mixed", 1, 2),
    ("250,250,250", "1,1,1", "8GiB", "mixed", 1, 2),
    ("300,300,300", "1,1,1", "8GiB", "fp32", 1, 40),
    ("1,2048,2048", "1,1,1", "8GiB", "mixed", 3, 5),
]


def main() -> int:
    """Print a row for each plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plans", type=int, default=len(PLANS), help="the first so many")
    args = parser.parse_args()
    print(f"{'patch':>16} {'batch':>5} {'kind':>6} {'estimated':>10} {'measured':>10} {'':>6}")
    for shape, spacing, memory, precision, channels, classes in PLANS[: args.plans]:
        run = subprocess.run(
            [
                sys.executable, "-m", "volprep", "autoconfig", "--median", shape,
                "--spacing", spacing, "--memory", memory, "--precision", precision,
                "--channels", str(channels), "--classes", str(classes), "--measure", "--json",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if run.returncode:
            print(f"{shape:>16} {run.stderr.strip().splitlines()[-1]}")
            continue
        plan = json.loads(run.stdout)
        estimated = sum(plan["memory"].values()) - plan["memory"]["reserve"]
        measured = plan["measured"]["bytes"]
        patch = "x".join(map(str, plan["patch_size"]))
        print(
            f"{patch:>16} {plan['batch_size']:>5} {precision:>6} {estimated / 2**20:>6.0f} MiB "
            f"{measured / 2**20:>6.0f} MiB {measured / estimated - 1:>+6.0%} "
            f"{plan['measured']['device']}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
