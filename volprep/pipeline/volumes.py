"""The preprocessing stage: every case that changes, cropped and resampled into its own arrays."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

from volprep.cases import Case, Cases
from volprep.compute import default_workers
from volprep.cutting import PreparedCase
from volprep.files import File, describe, files_below, remove, replace_folder, temporary
from volprep.findings import Finding
from volprep.geometry import Box, Shape3
from volprep.ledger import Made, Unit, key_of
from volprep.pipeline.decide import Decision
from volprep.pipeline.identity import Inputs
from volprep.pipeline.run import Run
from volprep.preprocess import CaseLayout, preprocess_case
from volprep.skeletons import Skeletons
from volprep.sources import open_volume
from volprep.store import StoredVolume, create_case_array

__all__ = ["CHUNKS", "Prepared", "PreparedRef", "make_volume", "prepare_volumes", "vanished"]

#: Chunks of a resampled volume on disk.
CHUNKS: Shape3 = (32, 128, 128)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRef:
    """Where the voxels of a prepared case are, so that any process can open them.

    Attributes
    ----------
    case : Case
    layout : CaseLayout
    key : str
        Of what its voxels are.
    arrays : Path or None
        ``volumes/NAME`` without its ending; None reads the files themselves.
    skeletons : Path or None
    skeletons_key : str or None
    """

    case: Case
    layout: CaseLayout
    key: str
    arrays: Path | None = None
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
    case, layout = ref.case, ref.layout
    skeletons = None if ref.skeletons is None else Skeletons.from_file(ref.skeletons)
    if ref.arrays is None:
        image, label, mask = case.open_image(), case.open_label(), case.open_mask()
        return PreparedCase(case.name, image, label, mask, skeletons)
    mask = case.open_mask()
    return PreparedCase(
        case.name,
        open_volume(ref.arrays.with_name(ref.arrays.name + ".image.zarr")),
        None
        if case.label is None
        else open_volume(ref.arrays.with_name(ref.arrays.name + ".label.zarr")),
        None if mask is None else layout.open(mask, labels=True),
        skeletons,
    )


def prepare_volumes(
    run: Run, cases: Cases, decision: Decision, inputs: Inputs
) -> tuple[list[PreparedRef], dict[str, list[int]]]:
    """The cases ready to be cut, and the label ids that each of them lost.

    A case that nothing is done to is read from its files. Threads take a case each, or
    share one where there are more of them.
    """
    section = run.config.preprocess
    refs, units = [], []
    for case in cases:
        layout = decision.layouts[case.name]
        key = inputs.key(case)
        if layout.unchanged:
            refs.append(PreparedRef(case, layout, key))
            continue
        unit = Unit("volumes", case.name, key_of("volumes", 1, key, _plain(layout), CHUNKS))
        units.append(unit)
        refs.append(PreparedRef(case, layout, unit.key, run.folder / "volumes" / case.name))
    if not units:
        return refs, {}
    run.made_from(
        "volumes",
        {
            "preprocess.target_spacing": decision.plan.target_spacing,
            "preprocess.order": section.order,
            "preprocess.separate_z": section.separate_z,
            "preprocess.crop_nonzero": section.crop_nonzero,
            **{f"case {case.name}": inputs.key(case) for case in cases},
        },
    )
    workers = run.config.compute.workers or default_workers()
    beside = max(1, min(workers, len(units)))
    by_name = {ref.case.name: ref for ref in refs}
    make = partial(
        _make, refs=by_name, inputs=inputs, folder=run.folder, workers=max(1, workers // beside)
    )
    run.all("volumes", units, make, title="preprocess", what="cases", workers=beside)
    lost = {str(u.index): list(run.facts(u)["lost_ids"]) for u in units if run.has(u)}
    return refs, {name: ids for name, ids in lost.items() if ids}


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
    unit: Unit, *, refs: Mapping[str, PreparedRef], inputs: Inputs, folder: Path, workers: int
) -> Made:
    ref = refs[str(unit.index)]
    # Aside until it is whole: a process that makes the same beside this one is not disturbed.
    aside = temporary(folder / "volumes" / ref.case.name)
    try:
        lost = make_volume(replace(ref, arrays=aside / ref.case.name), workers=workers)
        inputs.check([ref.case])
        files = []
        for array in sorted(aside.iterdir()):
            files += [_named(describe(path, aside)) for path in files_below(array)]
            replace_folder(array, folder / "volumes" / array.name)
    finally:
        remove(aside)
    return files, {"lost_ids": [int(i) for i in lost]}


def _named(file: File) -> File:
    return file._replace(path=f"volumes/{file.path}")


def make_volume(ref: PreparedRef, *, workers: int) -> tuple[int, ...]:
    """Fill the arrays of one case; the ids that its labels lost."""
    if ref.arrays is None:
        raise ValueError(f"{ref.case.name} is read from its files")
    layout, image, label = ref.layout, ref.case.open_image(), ref.case.open_label()
    images = _fresh_array(ref.arrays, "image", layout.shape, layout.dtype, layout)
    write_labels = None
    if label is not None:
        shape = (1, *layout.shape[1:])
        labels = _fresh_array(ref.arrays, "label", shape, label.dtype, layout)

        def write_labels(box: Box, array: Any) -> None:
            labels.write(box, array[None])

    return preprocess_case(
        image,
        label,
        layout,
        write_image=images.write,
        write_labels=write_labels,
        depth=CHUNKS[0],
        workers=workers,
    )


def _fresh_array(
    arrays: Path, kind: str, shape: Sequence[int], dtype: Any, layout: CaseLayout
) -> StoredVolume:
    """A new array; an old one is unlinked, since its files may be those of a finished set, too."""
    path = arrays.with_name(f"{arrays.name}.{kind}.zarr")
    remove(path)
    return create_case_array(path, shape, dtype, chunks=CHUNKS, spacing=layout.spacing)
