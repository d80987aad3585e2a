"""What the machine has, and how much of it this process may use."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "free_disk", "memory_limit", "read_machine"]

_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes; None is what the system does not tell.

    Attributes
    ----------
    cores, usable_cores : int
        Of the machine, and those that this process may run on.
    core_share : float or None
        Cores' worth of time that the control group grants.
    memory, free_memory : int or None
        Of the machine.
    memory_limit : int or None
        What this process may use: the machine's memory, or its control group's if that is less.
    disk, free_disk : int or None
        Of the file system of `folder`.
    open_files : int or None
        That a process may have.
    folder : Path
        Whose disk was looked at.
    """

    cores: int
    usable_cores: int
    core_share: float | None
    memory: int | None
    free_memory: int | None
    memory_limit: int | None
    disk: int | None
    free_disk: int | None
    open_files: int | None
    folder: Path


def free_disk(path: Path) -> int:
    """Bytes that are free where `path` is, or is to be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def read_machine(folder: Path = Path()) -> Machine:
    """Look at the machine, and at the disk of a folder."""
    memory, free = _memory()
    disk: int | None = None
    free_there: int | None = None
    with contextlib.suppress(OSError):
        disk, _, free_there = shutil.disk_usage(folder)
    return Machine(
        cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        core_share=_core_share(),
        memory=memory,
        free_memory=free,
        memory_limit=memory_limit(),
        disk=disk,
        free_disk=free_there,
        open_files=_open_files(),
        folder=folder.resolve(),
    )


def memory_limit() -> int | None:
    """Bytes that this process may use: the machine's, or its control group's if they are fewer."""
    limits = [] if (memory := _memory()[0]) is None else [memory]
    for group in _own_groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((group / name).read_text()))
            except (OSError, ValueError):  # absent, or "max"
                continue
    return min(limits, default=None)


def _memory() -> tuple[int | None, int | None]:
    """All and free memory of the machine."""
    if not hasattr(os, "sysconf"):  # Windows
        return None, None
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    try:  # what may be had, caches given back, which is more than the pages that lie idle
        lines = Path("/proc/meminfo").read_text().splitlines()
        (free,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        return total, free * 1024
    except (OSError, ValueError):
        return total, None


def _own_groups() -> Iterator[Path]:
    """The folders of this process's control groups and of those above them, of either version."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = set()
    for line in lines:
        _, names, place = line.split(":", 2)
        root = _GROUPS / names if names else _GROUPS
        inside = root / place.lstrip("/")
        found |= {inside, *(parent for parent in inside.parents if parent.is_relative_to(root))}
    yield from found or {_GROUPS, _GROUPS / "memory"}


def _core_share() -> float | None:
    """Of the narrowest control group, by its quota."""
    shares = []
    for group in _own_groups():
        try:
            quota, period = map(int, (group / "cpu.max").read_text().split())
            shares.append(quota / period)
        except (OSError, ValueError):  # absent, or "max"
            pass
        try:
            quota, period = (
                int((group / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period")
            )
            if quota > 0:
                shares.append(quota / period)
        except (OSError, ValueError):
            continue
    return min(shares, default=None)


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
