"""What a run will take, told before it starts: bytes to read and write, memory and time."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from volprep.autoconfig import stored_size
from volprep.cases import Case, Cases
from volprep.compute import default_workers, free_disk, memory_limit
from volprep.config import Config
from volprep.cutting import grid_sites
from volprep.errors import PlanError
from volprep.files import files_below, format_bytes
from volprep.geometry import Box, Shape3, VolumeLike, three
from volprep.pipeline.decide import Decision
from volprep.pipeline.identity import paths_of, size_of
from volprep.pipeline.targets import stored_targets, targets_of
from volprep.preprocess import CaseLayout, ResampledVolume
from volprep.sources import HELD_BYTES, ArrayVolume, Volume
from volprep.store import encoded_size, packed_often

__all__ = ["Needs", "needs_of"]

#: Places of all cases together at which is tried how far voxels can be compressed.
_PLACES = 12
_CASES = 4
#: The largest block of a place, and the largest chunk that is decoded for one.
_BLOCK: Shape3 = (16, 256, 256)
#: The same of a volume that is resampled while it is read.
_RESAMPLED: Shape3 = (8, 64, 64)
#: Blocks that are read of what can only be read from its beginning.
_FIRST = 3
#: More of its planes, on which those of a resampled block depend.
_BESIDE_PLANES = 8
_CHUNK_BYTES = 16 * 2**20
#: Private memory of the process itself, with all that is imported and compiled on the way, and of
#: the runs of labels that foreground is drawn from: mapped volumes of 0.3 and 1.3 GB, which hold
#: nothing else, were at 347 and 404 MB.
_BASE = 250 * 2**20
#: What a walk holds for each thread, and blocks that were decoded in part.
_WALK, _CACHE = 40 * 2**20, 256 * 2**20
#: Patches that are being made at once, for each of which there are some copies.
_MAKING = 12
#: What describes a set: above all its report, a page with pictures.
_BESIDE = 600_000
#: Beyond this a run is long enough to be told beforehand.
_LONG = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run takes; bytes and seconds.

    Attributes
    ----------
    inputs : int
        Of all files of the cases.
    read : int
        What is asked of the files: once for check, fingerprint and hashes, and then what the
        patches or the resampled volumes need. Of compressed files this is a bound.
    write : int
        The finished set.
    needed : int
        Of the disk beside what is there already.
    free : int
        Of the disk, or what `compute.disk` leaves of it.
    memory : int
        The peak, of private memory.
    memory_limit : int or None
        The machine's, its control group's, or `compute.memory`.
    seconds : float or None
        By the rates of the places that were tried; None where there were none.
    places : int
        How many were tried.
    """

    inputs: int
    read: int
    write: int
    needed: int
    free: int
    memory: int
    memory_limit: int | None
    seconds: float | None
    places: int

    @property
    def long(self) -> bool:
        """Whether somebody will wait for it."""
        return self.inputs + self.write > _LONG

    def lines(self) -> Iterator[str]:
        """In words."""
        yield (
            f"reads about {format_bytes(self.read)} of {format_bytes(self.inputs)} of input, "
            f"writes about {format_bytes(self.write)}"
        )
        yield f"disk: {format_bytes(self.needed)} needed, {format_bytes(self.free)} free"
        limit = "no limit known" if self.memory_limit is None else format_bytes(self.memory_limit)
        yield f"memory: about {format_bytes(self.memory)} at most, limit {limit}"
        if self.seconds is None:
            yield "time: unknown, nothing could be tried cheaply"
        else:
            tried = f"{self.places} places that were tried"
            yield f"time: about {_time(self.seconds)}, by the rates of {tried}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "inputs": self.inputs, "read": self.read, "write": self.write,
            "disk": {"needed": self.needed, "free": self.free},
            "memory": {"peak": self.memory, "limit": self.memory_limit},
            "seconds": self.seconds, "places": self.places,
        }  # fmt: skip

    def refuse(self, out: Path) -> None:
        """End a run that cannot fit before it starts.

        Raises
        ------
        PlanError
            Which says what is needed, what there is, and what helps.
        """
        # A tenth more or less is what an estimate is worth: what may fit is let go on.
        if self.needed * 0.9 > self.free:
            raise PlanError(
                f"{out}: needs about {format_bytes(self.needed)} of disk, "
                f"{format_bytes(self.free)} are free; "
                "choose another output.dir, free some space, or set patching.patches_per_case to "
                "fewer"
            )
        if self.memory_limit is not None and self.memory > 1.5 * self.memory_limit:
            raise PlanError(
                f"needs about {format_bytes(self.memory)} of memory, the limit is "
                f"{format_bytes(self.memory_limit)}; set compute.workers to fewer or "
                "plan.patch_size smaller"
            )


def needs_of(
    config: Config, cases: Cases, decision: Decision, *, there: Path | None = None
) -> Needs:
    """What it takes to make a set, by headers and by a few places that are read.

    Parameters
    ----------
    config : Config
    cases : Cases
    decision : Decision
    there : Path or None
        A folder of which what it holds is kept.
    """
    sample = _Sample()
    layouts = [(case, decision.layouts[case.name]) for case in cases]
    for case, layout in layouts[:: max(1, len(layouts) // _CASES)][:_CASES]:
        sample.look(case, layout, config.output.compression, decision.plan.store == "volumes")
    voxels = {kind: _voxels(cases, decision, kind) for kind in ("image", "label", "mask")}
    patches, patch_bytes, count = _patches(config, cases, decision, sample)
    volumes = _volumes(cases, decision, sample)
    inputs = sum(size_of(path) for path in paths_of(cases))
    drawn = decision.plan.store == "volumes"
    write = _BESIDE + (volumes if drawn else patches + volumes)
    changed = any(not layout.unchanged for _, layout in layouts)
    read = inputs * 2 + (volumes if changed else 0)
    out = config.output.dir.absolute()
    kept = 0
    if there is not None and there.exists():
        kept = sum(path.stat().st_size for path in files_below(there))
    workers = config.compute.workers or default_workers()
    return Needs(
        inputs=inputs,
        read=read,
        write=write,
        needed=max(0, write - kept),
        free=_free(out, config.compute.disk),
        memory=_memory(cases, decision, patch_bytes, count, workers),
        memory_limit=min(filter(None, (memory_limit(), config.compute.memory)), default=None),
        seconds=sample.seconds(inputs, sum(voxels.values()), write, workers),
        places=sample.places,
    )


@dataclass(slots=True)
class _Sample:
    """A few blocks of some cases, read and encoded as a run does it."""

    raw: dict[str, int] = field(default_factory=dict)
    encoded: dict[str, int] = field(default_factory=dict)
    reading: list[float] = field(default_factory=list)
    making: list[float] = field(default_factory=list)

    @property
    def places(self) -> int:
        """How many were tried."""
        return len(self.reading)

    def look(self, case: Case, layout: CaseLayout, compression: str, drawn: bool) -> None:
        """Try some places of a case; those that are dear to read are left out."""
        for kind, volume in _opened(case):
            how = packed_often(compression) if drawn and kind == "label" else compression
            for read in _reads(volume, layout, kind):
                start = time.perf_counter()
                block = np.ascontiguousarray(read())
                middle = time.perf_counter()
                size = encoded_size(block, how)
                end = time.perf_counter()
                self.reading.append((middle - start) / block.nbytes)
                self.making.append((end - middle) / block.nbytes)
                self.raw[kind] = self.raw.get(kind, 0) + block.nbytes
                self.encoded[kind] = self.encoded.get(kind, 0) + size
            if volume.mapped and layout.unchanged:
                # Small blocks of a file that is not in the system's cache wait for the disk line
                # by line, where a run reads it from end to end.
                start = time.perf_counter()
                lines = np.ascontiguousarray(volume.read(_lines(volume)))
                self.reading.append((time.perf_counter() - start) / lines.nbytes)

    def ratio(self, kind: str) -> float:
        """Bytes written for each byte of an array; 1 where nothing is known."""
        return self.encoded[kind] / self.raw[kind] if self.raw.get(kind) else 1.0

    def seconds(self, inputs: int, voxel_bytes: int, write: int, workers: int) -> float | None:
        """What the run takes by the rates of the places: two passes over the voxels, one of
        which measures, the hash of the files, and what is written."""
        tried = sum(self.raw.values())
        if not tried:
            return None
        piece = bytes(2**22)
        start = time.perf_counter()
        hashlib.sha256(piece)
        hashing = (time.perf_counter() - start) / len(piece)
        # The fastest place: others wait for what is compiled or loaded when it is first used.
        reading, making = min(self.reading), min(self.making)
        total = voxel_bytes * (2 * reading + _MEASURING) + inputs * hashing
        total += write * making / max(0.05, sum(self.encoded.values()) / tried)
        return _FIXED + total / workers


#: Seconds that checks, fingerprint and plan take for each byte of the voxels.
_MEASURING = 3e-9
#: Seconds of what does not grow with the voxels, most of them for the report.
_FIXED = 3.0


def _opened(case: Case) -> Iterator[tuple[str, Volume]]:
    opened = (("image", case.open_image), ("label", case.open_label), ("mask", case.open_mask))
    for kind, opener in opened:
        volume = opener()
        if volume is not None:
            yield kind, volume


def _reads(volume: Volume, layout: CaseLayout, kind: str) -> Iterator[Callable[[], Any]]:
    """Reads of small blocks that cost little more than themselves; none where there are none."""
    size = math.prod(volume.chunks) * volume.shape[0] * volume.dtype.itemsize
    if volume.sequential and size > _CHUNK_BYTES:
        first = cache(partial(_first_planes, volume, layout, kind))
        for number in range(_FIRST):
            yield partial(_read_first, first, number, _BLOCK if layout.unchanged else _RESAMPLED)
    elif volume.mapped or size <= _CHUNK_BYTES:
        whole = layout.open(volume, labels=kind != "image")
        most = _BLOCK if layout.unchanged else _RESAMPLED
        for box in _places(whole, volume.chunks[0], most):
            yield partial(whole.read, box)


def _lines(volume: Volume) -> Box:
    """Whole lines in the middle of a volume, one behind the other."""
    _, depth, height, width = volume.shape
    voxel = volume.shape[0] * volume.dtype.itemsize
    rows = max(1, min(height, _CHUNK_BYTES // (width * voxel)))
    return Box((depth // 2, 0, 0), (depth // 2 + 1, rows, width))


def _first_planes(volume: Volume, layout: CaseLayout, kind: str) -> VolumeLike:
    """The first planes of what can only be read from its beginning, on the grid of the result."""
    depth = (_BLOCK if layout.unchanged else _RESAMPLED)[0] + _BESIDE_PLANES
    plane = volume.shape[0] * volume.shape[2] * volume.shape[3] * volume.dtype.itemsize
    slabs = volume.slabs(max(1, min(volume.shape[1], depth, _CHUNK_BYTES // max(1, plane))))
    first = ArrayVolume(next(slabs)[1], "CZYX", spacing=volume.spacing)
    if layout.unchanged:
        return first
    shape = [
        max(1, n * b // a)
        for n, a, b in zip(first.shape[1:], layout.kept.shape, layout.shape[1:], strict=True)
    ]
    return ResampledVolume(
        first, shape=shape, labels=kind != "image", order=layout.settings.order,
        separate=layout.separate, order_separate=layout.settings.order_separate,
    )  # fmt: skip


def _read_first(first: Callable[[], VolumeLike], number: int, most: Shape3) -> Any:
    """One of some blocks that are spread over planes; the first pays for all of them."""
    planes = first()
    size = three([min(n, b) for n, b in zip(planes.shape[1:], most, strict=True)])
    share = (number + 0.5) / _FIRST
    start = [int(share * (n - s)) for n, s in zip(planes.shape[1:], size, strict=True)]
    return planes.read(Box.at(start, size))


def _places(volume: VolumeLike, depth: int, most: Shape3) -> Iterator[Box]:
    """Blocks that are spread over a volume, each inside one chunk along z where it can be."""
    shape = volume.shape[1:]
    size = three([min(n, b) for n, b in zip(shape, most, strict=True)])
    size = (min(size[0], depth), size[1], size[2])
    for number in range(_PLACES // _CASES):
        share = (number + 0.5) / (_PLACES // _CASES)
        start = [int(share * (n - s)) for n, s in zip(shape, size, strict=True)]
        start[0] = min(start[0] // size[0] * size[0], shape[0] - size[0])
        yield Box.at(start, size)


def _voxels(cases: Cases, decision: Decision, kind: str) -> int:
    """Bytes of all images, labels or masks once decoded."""
    total = 0
    for case in cases:
        volume = {"image": case.open_image, "label": case.open_label, "mask": case.open_mask}[
            kind
        ]()
        total += 0 if volume is None else volume.nbytes
    return total


def _patches(
    config: Config, cases: Cases, decision: Decision, sample: _Sample
) -> tuple[int, int, int]:
    """Bytes of all patches on the disk, those of one in memory, and how many there are."""
    plan, splits = decision.plan, decision.splits
    shapes = {name: three(layout.shape[1:]) for name, layout in decision.layouts.items()}
    numbers = {name: number for number, name in enumerate(shapes)}

    def blocks(parts: Sequence[Any]) -> list[tuple[int, Box]]:
        return [(numbers[p.case], p.box or Box.whole(shapes[p.case])) for p in parts]

    train = blocks(splits.train)
    regions = [box.shape for _, box in train]
    stored = stored_size(plan.patch_size, plan.aug_patch_size, regions)
    held_out = len(grid_sites(blocks(splits.val), plan.patch_size, config.patching.overlap))
    each = _voxel_bytes(cases)
    on_disk = sum(size * sample.ratio(kind) for kind, size in each.items())
    count = plan.n_patches or 0
    written = on_disk * (count * math.prod(stored) + held_out * math.prod(plan.patch_size))
    for target in stored_targets(config, targets_of(config, cases, plan)):
        for size, many in ((stored, count), (plan.patch_size, held_out)):
            arrays = target.arrays(size)
            written += many * sum(math.prod(a.shape(size)) * a.dtype.itemsize for a in arrays)
    return int(written), sum(each.values()) * math.prod(stored), count + held_out


def _voxel_bytes(cases: Cases) -> dict[str, int]:
    """Bytes of a voxel of each array of a patch."""
    found: dict[str, list[npt.DTypeLike]] = {}
    channels = 1
    for case in cases:
        for kind, volume in _opened(case):
            found.setdefault(kind, []).append(volume.dtype)
            channels = volume.shape[0] if kind == "image" else channels
    sizes = {
        kind: np.dtype(np.result_type(*set(dtypes))).itemsize for kind, dtypes in found.items()
    }
    return {kind: size * (channels if kind == "image" else 1) for kind, size in sizes.items()}


def _volumes(cases: Cases, decision: Decision, sample: _Sample) -> int:
    """Bytes of the volumes that are kept in the set."""
    total = 0.0
    for case in cases:
        layout = decision.layouts[case.name]
        if layout.unchanged and decision.plan.store != "volumes":
            continue
        for kind, volume in _opened(case):
            channels = layout.shape[0] if kind == "image" else 1
            size = channels * math.prod(layout.shape[1:]) * volume.dtype.itemsize
            total += size * sample.ratio(kind)
    return int(total)


def _memory(cases: Cases, decision: Decision, patch_bytes: int, count: int, workers: int) -> int:
    """The peak of what is held at once."""
    volumes = [volume for case in cases for _, volume in _opened(case)]
    chunked = [volume for volume in volumes if not volume.mapped]
    decoded = sum(volume.nbytes for volume in chunked)
    chunk = max((math.prod(v.chunks) * v.shape[0] * v.dtype.itemsize for v in chunked), default=0)
    making = (_MAKING + workers) * 2 * patch_bytes
    swept = min(HELD_BYTES, count * patch_bytes) if chunked else 0
    walking = workers * (_WALK + min(chunk, _CHUNK_BYTES)) + min(_CACHE, decoded)
    return _BASE + max(walking, swept + making)


def _free(out: Path, limit: int | None) -> int:
    free = free_disk(out)
    return free if limit is None else min(free, limit)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
