"""Time per case of what looks at every case, with 1,000 and with 20,000 of them.

Nothing may be quadratic: a case of 20,000 takes less than twice what a case of 1,000 takes.

    python scripts/bench_cases.py            some minutes

"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def make_cases(root: Path, count: int) -> None:
    """2D images of 24x24 with labels, all different."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        image = rng.integers(0, 256, (24, 24)).astype(np.uint8)
        np.save(root / "images" / f"c{number:05}.npy", image)
        np.save(root / "labels" / f"c{number:05}.npy", (image > 200).astype(np.uint8))


def stages(root: Path) -> dict[str, float]:
    """Seconds of CPU that each stage takes, one after the other."""
    from volprep import pipeline
    from volprep.config import Config
    from volprep.cutting import PreparedCase, blocks_of, grid_sites, training_sites
    from volprep.pipeline.decide import decide, drawing, survey
    from volprep.pipeline.inputs import chosen_cases
    from volprep.pipeline.told import silent
    from volprep.splits import audit_splits

    config = Config.model_validate(
        {
            "data": {"root": root, "spacing": [1, 1, 1]},
            "plan": {"patch_size": [1, 16, 16], "batch_size": 2},
            "compute": {"workers": 1},
        }
    )
    found: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        found[name] = time.process_time() - start
        return result

    cases = timed("list", lambda: pipeline.list_cases(config))
    report = timed("check", lambda: pipeline.check(config, cases))
    chosen = timed("copies", lambda: chosen_cases(config, cases, report.hashes))
    known = timed("headers", lambda: survey(config, chosen, silent))
    decision = timed("split and plan", lambda: decide(config, chosen, known))
    timed("audit", lambda: audit_splits(decision.splits, chosen.items, hashes=report.hashes))
    prepared = [
        PreparedCase(case.name, case.open_image(), case.open_label(), case.open_mask())
        for case in chosen
    ]
    train, val = (blocks_of(p, prepared) for p in (decision.splits.train, decision.splits.val))
    how = drawing(config, chosen.label_kind, decision.plan)
    patch = decision.plan.patch_size
    timed(
        "training sites",
        lambda: training_sites(train, patch, how, prepared, weights=[1.0] * len(prepared)),
    )
    timed("validation sites", lambda: grid_sites(val, patch))
    return found


def main(counts: list[int]) -> None:
    """Print milliseconds a case."""
    tables = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            make_cases(Path(folder) / "data", count)
            tables.append({k: 1000 * s / count for k, s in stages(Path(folder) / "data").items()})
    print("stage".ljust(18), *(f"{count:>8}" for count in counts), "   ratio")
    for name in tables[0]:
        values = [table[name] for table in tables]
        print(name.ljust(18), *(f"{v:8.3f}" for v in values), f"{values[-1] / values[0]:8.2f}")


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [1000, 20000])
