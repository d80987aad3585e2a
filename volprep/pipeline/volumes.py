"""The preprocessing stage: cases cropped and resampled, each kept as a volume of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from volprep.cases import Case, Cases
from volprep.compute import default_workers
from volprep.config import load_config
from volprep.cutting import PreparedCase
from volprep.errors import ConfigError, SourceError, StoreError
from volprep.files import File, remove, replace_folder, temporary
from volprep.findings import Finding
from volprep.geometry import Shape3
from volprep.ledger import Made, Unit, key_of
from volprep.pipeline.decide import Decision
from volprep.pipeline.identity import Inputs, Trust, paths_of, read_inputs
from volprep.pipeline.inputs import list_cases
from volprep.pipeline.run import Run
from volprep.pipeline.told import Reporter, silent
from volprep.preprocess import CaseLayout, preprocess_case, volume_ids
from volprep.skeletons import Skeletons
from volprep.store import (
    CaseWriter,
    PatchStore,
    StoredCase,
    close_shards,
    fitted_chunks,
    narrowest,
    packed_often,
    volume_path,
)

__all__ = [
    "Prepared",
    "PreparedRef",
    "keyed_cases",
    "make_volume",
    "open_prepared",
    "prepare_volumes",
    "prepared_case",
    "vanished",
]

#: Chunks of volumes from which patches are cut once, whatever their size.
_CHUNKS: Shape3 = (32, 128, 128)
#: Sections that are made at once.
_DEPTH = 32


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRef:
    """Where the voxels of a prepared case are, so that any process can open them.

    Attributes
    ----------
    case : Case
    layout : CaseLayout
    key : str
        Of what its voxels are.
    labels : str
        Of what its labels are, however its image is interpolated and kept.
    arrays : Path or None
        The OME-Zarr that its voxels are kept in; None reads the files themselves.
    chunks : (Z, Y, X)
        Of that.
    compression : {'lz4', 'zstd', 'none'}
        Of that.
    ids : {'lz4', 'lz4hc', 'zstd', 'none'}
        The compression of its labels.
    skeletons : Path or None
    skeletons_key : str or None
    """

    case: Case
    layout: CaseLayout
    key: str
    labels: str
    arrays: Path | None = None
    chunks: Shape3 = _CHUNKS
    compression: str = "lz4"
    ids: str = "lz4"
    skeletons: Path | None = None
    skeletons_key: str | None = None

    def __hash__(self) -> int:
        return hash(self._identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PreparedRef) and self._identity == other._identity

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.case.name, self.key, self.arrays, self.skeletons, self.skeletons_key

    def open(self) -> PreparedCase:
        """The case, ready to be cut; nothing of it read yet. Some stay open till `close_all`."""
        return _opened(self)

    @staticmethod
    def close_all() -> None:
        """Let go of the cases that are open."""
        _opened.cache_clear()
        close_shards()


class Prepared(Sequence[PreparedCase]):
    """The prepared cases, each opened when it is asked for."""

    def __init__(self, refs: Sequence[PreparedRef]) -> None:
        self.refs = tuple(refs)

    def __len__(self) -> int:
        return len(self.refs)

    @overload
    def __getitem__(self, index: int) -> PreparedCase: ...
    @overload
    def __getitem__(self, index: slice) -> Prepared: ...
    def __getitem__(self, index: int | slice) -> PreparedCase | Prepared:
        return Prepared(self.refs[index]) if isinstance(index, slice) else self.refs[index].open()

    def __iter__(self) -> Iterator[PreparedCase]:
        return (ref.open() for ref in self.refs)


@functools.lru_cache(maxsize=64)
def _opened(ref: PreparedRef) -> PreparedCase:
    case = ref.case
    skeletons = None if ref.skeletons is None else Skeletons.from_file(ref.skeletons)
    if ref.arrays is None:
        image, label, mask = case.open_image(), case.open_label(), case.open_mask()
        return PreparedCase(case.name, image, label, mask, skeletons)
    kept = StoredCase.open(ref.arrays)
    return PreparedCase(case.name, kept.image, kept.label, kept.mask, skeletons)


def prepared_case(case: Case, layout: CaseLayout) -> PreparedCase:
    """A case on the grid of the patch set, preprocessed anew wherever it is read."""
    label, mask = case.open_label(), case.open_mask()
    return PreparedCase(
        case.name,
        layout.open(case.open_image()),
        None if label is None else layout.open(label, labels=True),
        None if mask is None else layout.open(mask, labels=True),
    )


def prepare_volumes(
    run: Run,
    cases: Cases,
    decision: Decision,
    inputs: Inputs,
    ids: Mapping[str, npt.NDArray[np.uint64]],
) -> tuple[list[PreparedRef], dict[str, list[int]]]:
    """The cases ready to be cut, and the label ids that each of them lost.

    All are kept where samples are to be drawn from volumes; else those that are resampled, and
    the others are read from their files. Threads take a case each, or share one where there
    are more of them. `ids` are those of the labels, 0 included, of the cases in which they were
    counted already; others are counted in a pass of their own.
    """
    section, drawn = run.config.preprocess, decision.plan.store == "volumes"
    chunks = fitted_chunks(decision.plan.patch_size) if drawn else _CHUNKS
    compression = run.config.output.compression if drawn else "lz4"
    packed = packed_often(compression) if drawn else compression
    refs, units = [], []
    for case in cases:
        layout = decision.layouts[case.name]
        key, plain = inputs.key(case), _plain(layout)
        grid = {k: v for k, v in plain["settings"].items() if not k.startswith("order")}
        labels = key_of("labels", 1, key, {**plain, "settings": grid})
        if layout.unchanged and not drawn:
            refs.append(PreparedRef(case, layout, key, labels))
            continue
        key = key_of("volumes", 3, key, plain, chunks, compression, *([packed] if drawn else []))
        units.append(Unit("volumes", case.name, key))
        path = volume_path(run.folder, case.name)
        refs.append(PreparedRef(case, layout, key, labels, path, chunks, compression, packed))
    if not units:
        return refs, {}
    run.made_from(
        "volumes",
        {
            "preprocess.target_spacing": decision.plan.target_spacing,
            "preprocess.order": section.order,
            "preprocess.separate_z": section.separate_z,
            "preprocess.crop_nonzero": section.crop_nonzero,
            "output.store": decision.plan.store,
            "chunks": chunks,
            **({"output.compression": compression} if drawn else {}),
            **{f"case {case.name}": inputs.key(case) for case in cases},
        },
    )
    workers = run.config.compute.workers or default_workers()
    beside = max(1, min(workers, len(units)))
    by_name = {ref.case.name: ref for ref in refs}
    make = partial(
        _make,
        refs=by_name,
        inputs=inputs,
        folder=run.folder,
        ids=ids,
        workers=max(1, workers // beside),
    )
    run.all("volumes", units, make, title="preprocess", what="cases", workers=beside)
    lost = {str(u.index): list(run.facts(u)["lost_ids"]) for u in units if run.has(u)}
    return refs, {name: ids for name, ids in lost.items() if ids}


def open_prepared(out: Path) -> list[PreparedCase]:
    """The prepared cases of a finished set, whether it keeps patches or volumes.

    Parameters
    ----------
    out : Path

    Returns
    -------
    list of PreparedCase
        In the order of the manifest, nothing of them read yet: the volumes that the set keeps,
        and the files themselves of cases to which nothing was done.

    Raises
    ------
    StoreError
        If there is no set, or files that it still needs cannot be read.
    SourceError
        If a file that is still needed is another one than when the set was made.
    """
    return [case for _, case in keyed_cases(PatchStore(out))]


def keyed_cases(
    store: PatchStore, *, trust: Trust = "mtime", reporter: Reporter = silent
) -> list[tuple[str, PreparedCase]]:
    """The prepared cases of a set, each with the key of what its voxels are.

    The inputs are touched for those cases alone whose voxels the set does not keep.

    Parameters
    ----------
    store : PatchStore
    trust, reporter
        As for `prepare`.

    Raises
    ------
    StoreError, SourceError
        As `open_prepared` does.
    """
    names, kept = store.manifest["cases"], store.manifest["volumes"]
    needed = [name for name in names if name not in kept]
    cases, inputs = _listed(store, needed, trust, reporter) if needed else ({}, Inputs({}))
    found = []
    for name in names:
        path = store.path / "skeletons" / f"{name}.npz"
        skeletons = Skeletons.from_file(path) if path.exists() else None
        if name in kept:
            of, key = store.case(name), kept[name]
            prepared = PreparedCase(name, of.image, of.label, of.mask, skeletons)
        else:
            own, key = cases[name], inputs.key(cases[name])
            arrays = own.open_image(), own.open_label(), own.open_mask()
            prepared = PreparedCase(name, *arrays, skeletons)
        found.append((key, prepared))
    return found


def _listed(
    store: PatchStore, names: Sequence[str], trust: Trust, reporter: Reporter
) -> tuple[dict[str, Case], Inputs]:
    """Cases whose voxels are in their own files, and those files, which must be what they were."""
    noted = {entry["path"]: entry for entry in store.manifest["inputs"]}
    try:
        listed = {
            case.name: case for case in list_cases(load_config(store.path / "config.resolved.yaml"))
        }
        cases = {name: listed[name] for name in names if name in listed}
        paths = paths_of(cases.values())
        inputs = read_inputs(paths, noted.get, trust=trust, workers=None, reporter=reporter)
    except (SourceError, ConfigError) as error:
        raise StoreError(_needs(store, str(error))) from error
    for name in names:
        if name not in cases:
            raise StoreError(_needs(store, f"{name} is not found where it was"))
    for path, found in inputs.by_path.items():
        if str(path) not in noted or found.sha256 != noted[str(path)]["sha256"]:
            raise SourceError(path, "changed since the set was made", "run volprep prepare again")
    return cases, inputs


def _needs(store: PatchStore, found: str) -> str:
    return (
        f"{store.path}: keeps patches and not all whole volumes, which are read from the inputs "
        f"({found}); bring those back, or prepare with output.store: volumes, which needs them "
        "no more"
    )


def vanished(lost: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    """What is said of label ids that are gone."""
    for case, ids in lost.items():
        some = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
        found = f"{len(ids)} label ids vanished in preprocessing: {some}"
        yield Finding("vanished-ids", found, case=case)


def _plain(layout: CaseLayout) -> dict[str, Any]:
    """All that the voxels of a case depend on beside its files."""
    crop = layout.crop
    return {
        "shape": layout.shape,
        "crop": None if crop is None else [crop.start, crop.stop],
        "separate": layout.separate,
        "spacing": layout.spacing,
        "settings": asdict(layout.settings),
    }


def _make(
    unit: Unit,
    *,
    refs: Mapping[str, PreparedRef],
    inputs: Inputs,
    folder: Path,
    ids: Mapping[str, npt.NDArray[np.uint64]],
    workers: int,
) -> Made:
    ref = refs[str(unit.index)]
    path = volume_path(folder, ref.case.name)
    # Aside until it is whole: a process that makes the same beside this one is not disturbed.
    aside = temporary(path)
    try:
        own = replace(ref, arrays=aside)
        lost, files = make_volume(own, ids=ids.get(ref.case.name), workers=workers)
        label = StoredCase.open(aside).label
        inputs.check([ref.case])
        replace_folder(aside, path)
    finally:
        remove(aside)
    below = path.relative_to(folder).as_posix()
    named = [file._replace(path=f"{below}/{file.path}") for file in files]
    return named, {
        "lost_ids": [int(i) for i in lost],
        "label": None if label is None else label.dtype.name,
    }


def make_volume(
    ref: PreparedRef, *, ids: npt.NDArray[np.uint64] | None = None, workers: int
) -> tuple[tuple[int, ...], list[File]]:
    """Fill the arrays of one case: the ids that its labels lost, and the files below its folder.

    The labels are read once more where their `ids` are not known.
    """
    if ref.arrays is None:
        raise ValueError(f"{ref.case.name} is read from its files")
    layout, case = ref.layout, ref.case
    image, label, mask = case.open_image(), case.open_label(), case.open_mask()
    writer = CaseWriter(
        ref.arrays, ref.key,
        chunks=ref.chunks, compression=ref.compression, ids=ref.ids, spacing=layout.spacing,
    )  # fmt: skip
    images = writer.image(layout.shape, layout.dtype)
    plane = (1, *layout.shape[1:])
    if label is not None:
        ids = volume_ids(label) if ids is None else ids.astype(label.dtype)
    labels = None if ids is None else writer.label(plane, *narrowest(ids))
    masks = None if mask is None else writer.mask(plane)
    lost = preprocess_case(
        image,
        label,
        layout,
        write_image=images.write,
        write_labels=None if labels is None else labels.write_plane,
        mask=mask,
        write_mask=None if masks is None else masks.write_plane,
        ids=ids,
        depth=ref.chunks[0] * max(1, _DEPTH // ref.chunks[0]),
        workers=workers,
    )
    return lost, writer.finish()
