"""How fast batches come, and which stage takes the time."""

from __future__ import annotations

import cProfile
import gc
import pstats
import time
from dataclasses import dataclass

from volprep.loader.batches import PatchLoader
from volprep.loader.patches import PatchDataset

__all__ = ["LoaderSpeed", "measure_loader", "measure_stages"]

#: Seconds that each number of threads is measured for, once everything is compiled.
SECONDS = 3.0
_ENDLESS = 10**6


@dataclass(frozen=True, slots=True)
class LoaderSpeed:
    """What was measured with one number of threads.

    Attributes
    ----------
    threads : int
    patches_per_second, megabytes_per_second : float
        Of ready batches, in the dtypes that they come in.
    cpu_ms : float
        CPU time of a patch, all threads together.
    first_batch_s : float
        Wall seconds to the first batch, kernels that had to be compiled included.
    """

    threads: int
    patches_per_second: float
    megabytes_per_second: float
    cpu_ms: float
    first_batch_s: float

    def keeps_busy(self, step_ms: float, batch_size: int) -> bool:
        """Whether batches come as fast as a device takes them that needs `step_ms` a batch."""
        return self.patches_per_second * step_ms / 1000 >= batch_size


def measure_loader(
    dataset: PatchDataset, batch_size: int, threads: int, *, seconds: float = SECONDS
) -> LoaderSpeed:
    """Draw batches for some seconds.

    Parameters
    ----------
    dataset : PatchDataset
    batch_size, threads : int
        Of the loader.
    seconds : float
        Wall time, after a first batch that compiles what is not compiled yet.
    """
    began = time.perf_counter()
    batches = iter(PatchLoader(dataset, batch_size, threads=threads, steps=_ENDLESS))
    first = next(batches)
    size = sum(tensor.numel() * tensor.element_size() for tensor in first.values())
    first_batch = time.perf_counter() - began
    for _ in range(4):  # what was made ahead is not counted
        next(batches)
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - wall) < seconds:
        next(batches)
        count += 1
    cpu = time.process_time() - cpu
    del batches, first
    gc.collect()
    patches = count * batch_size
    return LoaderSpeed(
        threads, patches / passed, count * size / 2**20 / passed, 1000 * cpu / patches, first_batch
    )


def measure_stages(dataset: PatchDataset, count: int = 20) -> dict[str, float]:
    """CPU ms of a patch by stage, in one thread; what belongs to none is ``other``.

    Seen from outside by Python's profiler, so that samples made without it pay nothing.
    """
    room = dataset.room()
    dataset.fill(0, 0, room)
    profile = cProfile.Profile(time.thread_time)
    began = time.thread_time()
    for number in range(count):
        profile.runcall(dataset.fill, 1, number % len(dataset), room)
    whole = time.thread_time() - began
    spent = dict.fromkeys(_STAGES, 0.0)
    for (path, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        for stage, (file, name) in _STAGES.items():
            if function == name and path.endswith(file):
                spent[stage] += cumulative
    spent["other"] = max(0.0, whole - sum(spent.values()))
    return {stage: 1000 * seconds / count for stage, seconds in spent.items() if seconds}


# The function that is a stage. None is called from within another.
_STAGES = {
    "read": ("store/reader.py", "read_into"),
    "decode": ("volprep/codecs.py", "decode"),
    "normalise": ("loader/recipe.py", "_normalised"),
    "warp": ("warp/resample.py", "resample"),
    "intensity": ("augment/compose.py", "_changed"),
    "labels": ("loader/recipe.py", "_integers"),
    "targets": ("targets/table.py", "make_targets"),
}
