"""One seam for work in parallel: the caller lists units, an engine runs them.

A unit is an argument for a function; units are independent, each writes what no other
writes, and each gives the same result wherever it runs, and however often.

    run_units(function, units, workers=4)        results in order, here
    Engine("processes", workers=4).run(function, units)     results as they come, here or elsewhere
"""

from volprep.compute.engine import Engine, EngineKind
from volprep.compute.local import Backend, default_workers, run_shares, run_units, threads
from volprep.compute.machine import Machine, free_disk, memory_limit, read_machine

__all__ = [
    "Backend",
    "Engine",
    "EngineKind",
    "Machine",
    "default_workers",
    "free_disk",
    "memory_limit",
    "read_machine",
    "run_shares",
    "run_units",
    "threads",
]
