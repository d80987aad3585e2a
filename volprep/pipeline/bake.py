"""`volprep bake-skeletons`: skeletons of whole volumes, and what is baked from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from volprep.cases import Case, FileRef
from volprep.config import SkeletonConfig, parse_spacing
from volprep.errors import ConfigError, DataCheckError
from volprep.geometry import Spacing3
from volprep.outputs import BLOCK, BlockOutput, Format
from volprep.pipeline.inputs import list_cases, load_target
from volprep.pipeline.reporting import Reporter, silent
from volprep.skeletons import Skeletons, SkeletonTargets, write_skeletons, write_swc
from volprep.skeletons.journal import TraceJournal
from volprep.skeletons.make import gather
from volprep.skeletons.stream import bake_volume, paint_volume, trace_volume
from volprep.sources import Volume, stem_of
from volprep.store import content_hash, load_json, write_json
from volprep.version import __version__

__all__ = ["BakeOptions", "BakeSummary", "bake_skeletons", "case_of_labels", "run_bake"]


@dataclass(frozen=True, slots=True)
class BakeOptions:
    """What is made beside the skeletons, and how."""

    method: Literal["lee", "teasar"] = "lee"
    field: bool = False
    mask: bool = False
    target: Literal["position", "offset"] = "offset"
    form: Format = "zarr"
    trch: bool = False
    swc: bool = False
    anisotropy: Spacing3 | None = None
    average: bool = True
    radius: float = 7
    flank_radius: float = 3


@dataclass(frozen=True, slots=True)
class BakeSummary:
    """What was made of one label volume.

    Attributes
    ----------
    case : str
    instances, components, points : int
        Each component of an instance has a skeleton of its own.
    smallest : int
        Voxels of the smallest component; 0 where there is none.
    fell_back : int
        Components whose only point is their deepest voxel.
    resumed : bool
        Whether skeletons were there already, all or some, made from the same file.
    files : tuple of str
    """

    case: str
    instances: int
    components: int
    points: int
    smallest: int
    fell_back: int
    resumed: bool
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "files": list(self.files)}


def case_of_labels(path: Path, key: str | None, spacing: Spacing3 | None) -> Case:
    """A case that is a label volume alone."""
    ref = FileRef(path, key)
    return Case(stem_of(path), (ref,), label=ref, spacing=spacing)


def run_bake(
    config: Path | None,
    *,
    labels: Path | None = None,
    key: str | None = None,
    spacing: str | None = None,
    out: Path,
    workers: int | None = None,
    reporter: Reporter = silent,
    method: str | None = None,
    **asked: Any,
) -> list[BakeSummary]:
    """`bake_skeletons` for a config (whose ``skeletons:`` it follows) or one label volume.

    Raises
    ------
    ConfigError
        If a word is none of those that an option takes.
    """
    section = SkeletonConfig.model_validate({})
    if labels is not None:
        cases: Sequence[Case] = [case_of_labels(labels, key, _spacing(spacing))]
    elif config is not None:
        settings = load_target(config)
        section, cases = settings.skeletons, list_cases(settings).items
        workers = workers or settings.compute.workers
    options = BakeOptions(
        **{
            "method": method or section.method,
            "anisotropy": section.anisotropy,
            "average": section.average,
            "radius": section.radius,
            "flank_radius": section.flank_radius,
            **asked,
        }
    )
    for name, value, known in (
        ("method", options.method, ("lee", "teasar")),
        ("target", options.target, ("offset", "position")),
        ("format", options.form, ("zarr", "tiff")),
    ):
        if value not in known:
            raise ConfigError(f"--{name}: found {value!r}; give {' or '.join(known)}")
    return bake_skeletons(cases, out, options, workers=workers, reporter=reporter)


def _spacing(text: str | None) -> Spacing3 | None:
    try:
        return parse_spacing(text)
    except ValueError as error:
        raise ConfigError(f"--spacing: {error}") from None


def bake_skeletons(
    cases: Sequence[Case],
    out: Path,
    options: BakeOptions,
    *,
    workers: int | None = None,
    reporter: Reporter = silent,
) -> list[BakeSummary]:
    """Make the skeletons of every labelled case, and the fields and masks asked for.

    Parameters
    ----------
    cases : sequence of Case
    out : Path
        Folder of ``NAME.skeletons.npz``, ``NAME.offset.ome.zarr``, ...
    options : BakeOptions
    workers : int or None
        Threads; None takes every processor.

    Raises
    ------
    DataCheckError
        If no case has labels.

    Notes
    -----
    Larger than memory: labels are read block by block. What an earlier run has
    finished of the same file and options is not made again.
    """
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        raise DataCheckError(["no case has labels; skeletons are made from instance labels"])
    out.mkdir(parents=True, exist_ok=True)
    return [_bake_case(case, out, options, workers, reporter) for case in labelled]


def _bake_case(
    case: Case, out: Path, options: BakeOptions, workers: int | None, reporter: Reporter
) -> BakeSummary:
    labels = case.open_label()
    if labels is None:
        raise ValueError(f"{case.name} has no label")
    key = _key(case, labels, options.method)
    path, marks = out / f"{case.name}.skeletons.npz", _Marks(out)
    resumed = marks.holds(path, key)
    if not resumed:
        journal = TraceJournal(out, case.name, key)
        traces = journal.read()
        resumed = bool(traces)
        voxels = 2 * math.prod(labels.shape)
        with reporter(f"skeletons {case.name}", voxels, "voxels") as advance:
            found = trace_volume(
                labels, method=options.method, workers=workers, progress=advance, skip=len(traces)
            )
            traces += journal.keep(found)
        write_skeletons(gather(traces), path)
        marks.note(
            path,
            key,
            components=len(traces),
            smallest=min((trace.voxels for trace in traces), default=0),
            fell_back=sum(trace.fell_back for trace in traces),
        )
        journal.remove()
    skeletons = Skeletons.from_file(path)
    files = [path, *_other_forms(case, skeletons, labels, out, options)]
    files += _volumes(case, skeletons, labels, out, options, key, workers, reporter)
    return BakeSummary(
        case=case.name,
        instances=len(skeletons),
        points=len(skeletons.points),
        resumed=resumed,
        files=tuple(str(file) for file in files),
        **marks.facts(path),
    )


def _other_forms(
    case: Case, skeletons: Skeletons, labels: Volume, out: Path, options: BakeOptions
) -> list[Path]:
    files = []
    if options.trch:
        files.append(write_skeletons(skeletons, out / f"{case.name}.skeletons.trch"))
    if options.swc:
        folder = out / f"{case.name}.swc"
        write_swc(skeletons, folder, spacing=labels.spacing)
        files.append(folder)
    return files


def _volumes(
    case: Case,
    skeletons: Skeletons,
    labels: Volume,
    out: Path,
    options: BakeOptions,
    key: str,
    workers: int | None,
    reporter: Reporter,
) -> list[Path]:
    """The baked field and the mask, where they are asked for."""
    suffix = "ome.zarr" if options.form == "zarr" else "ome.tif"
    shape, marks = labels.shape[1:], _Marks(out)

    def made(
        name: str, channels: int, dtype: str, settings: list[Any], run: Callable[..., None]
    ) -> Path:
        path = out / f"{case.name}.{name}.{suffix}"
        own = content_hash(key, settings)
        if not marks.holds(path, own):
            output = BlockOutput(path, (channels, *shape), dtype, spacing=labels.spacing, key=own)
            with reporter(f"{name} {case.name}", math.prod(shape), "voxels") as advance:
                run(output.write, block=BLOCK, skip=output.has, workers=workers, progress=advance)
            output.finish()
            marks.note(path, own)
        return path

    files = []
    if options.field:
        asked = {name: getattr(options, name) for name in ("anisotropy", "average", "target")}
        run = partial(bake_volume, labels, skeletons, **asked)
        files.append(made(options.target, 3, "float32", list(asked.values()), run))
    if options.mask:
        asked = {name: getattr(options, name) for name in ("radius", "flank_radius")}
        run = partial(paint_volume, shape, skeletons, **asked)
        files.append(made(SkeletonTargets.NAMES[1], 1, "uint8", list(asked.values()), run))
    return files


class _Marks:
    """``bake.json``: what each finished file of the folder was made from, and facts about it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bake.json"
        self.entries: dict[str, Any] = load_json(self.path) if self.path.exists() else {}

    def holds(self, file: Path, key: str) -> bool:
        """Whether a file is there, made from the same."""
        entry = self.entries.get(file.name)
        return file.exists() and isinstance(entry, dict) and entry.get("key") == key

    def note(self, file: Path, key: str, **facts: int) -> None:
        """Remember a finished file."""
        self.entries[file.name] = {"key": key, **facts}
        write_json(self.path, self.entries)

    def facts(self, file: Path) -> dict[str, int]:
        """What was noted about a file."""
        return {name: value for name, value in self.entries[file.name].items() if name != "key"}


def _key(case: Case, labels: Volume, method: str) -> str:
    """What skeletons are made from: the file as it is, its spacing, the method."""
    files = sorted(labels.path.rglob("*")) if labels.path.is_dir() else [labels.path]
    states = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    ref = None if case.label is None else case.label.to_dict()
    return content_hash(ref, states, labels.spacing, method, __version__)
