"""The preprocessing stage: every case cropped and resampled into arrays of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from volprep.cases import Case
from volprep.compute import default_workers, run_units
from volprep.cutting import PreparedCase
from volprep.geometry import Box, Shape3, VolumeLike
from volprep.ledger import key_of
from volprep.pipeline.reporting import Reporter
from volprep.preprocess import CaseLayout, preprocess_case
from volprep.sources import open_volume
from volprep.store import StoredVolume, create_case_array, load_json, write_json
from volprep.version import __version__

__all__ = ["CHUNKS", "file_states", "lost_ids_of", "prepare_volumes"]


#: Chunks of a resampled volume on disk.
CHUNKS: Shape3 = (32, 128, 128)


def prepare_volumes(
    cases: Sequence[Case],
    layouts: Mapping[str, CaseLayout],
    folder: Path,
    *,
    workers: int | None,
    reporter: Reporter,
) -> list[PreparedCase]:
    """The cases ready to be cut: the files themselves where nothing is to be done to voxels.

    Parameters
    ----------
    cases : sequence of Case
    layouts : mapping of str to CaseLayout
        Of each case, by name.
    folder : Path
        Where the arrays go. A case that an earlier run completed there is kept; its mark,
        ``CASE.json``, is written last and holds the hash of all that it was made from.
    workers : int or None
        Threads. They take a case each, or share one where there are more of them.
    reporter : callable

    Returns
    -------
    list of PreparedCase
    """
    if all(layouts[case.name].unchanged for case in cases):
        return [
            PreparedCase(case.name, case.open_image(), case.open_label(), case.open_mask())
            for case in cases
        ]
    folder.mkdir(parents=True, exist_ok=True)
    threads = default_workers() if workers is None else workers
    beside = max(1, min(threads, len(cases)))
    prepare = partial(_prepared, layouts=layouts, folder=folder, workers=threads // beside)
    done = []
    with reporter("preprocess", len(cases), "cases") as advance:
        for case in run_units(prepare, cases, workers=beside):
            done.append(case)
            advance(1)
    return done


def lost_ids_of(cases: Sequence[Case], folder: Path) -> dict[str, list[int]]:
    """The label ids that each case lost to a coarser grid or a crop; none that lost nothing."""
    marks = {case.name: folder / f"{case.name}.json" for case in cases}
    lost = {name: load_json(path)["lost_ids"] for name, path in marks.items() if path.exists()}
    return {name: ids for name, ids in lost.items() if ids}


def file_states(case: Case) -> list[list[Any]]:
    """Path, size and time of change of every file of a case."""
    states = []
    for path in case.paths():
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            state = file.stat()
            states.append([str(file), state.st_size, state.st_mtime_ns])
    return states


def _prepared(
    case: Case, *, layouts: Mapping[str, CaseLayout], folder: Path, workers: int
) -> PreparedCase:
    image, label, mask = case.open_image(), case.open_label(), case.open_mask()
    layout = layouts[case.name]
    key = key_of(asdict(layout.settings), case.to_dict(), file_states(case), CHUNKS, __version__)
    mark = folder / f"{case.name}.json"
    if not mark.exists() or load_json(mark).get("key") != key:
        mark.unlink(missing_ok=True)
        lost = _write(case.name, image, label, layout, folder, workers)
        write_json(mark, {"key": key, "lost_ids": list(lost)})
    return PreparedCase(
        case.name,
        open_volume(folder / f"{case.name}.image.zarr"),
        None if label is None else open_volume(folder / f"{case.name}.label.zarr"),
        None if mask is None else layout.open(mask, labels=True),
    )


def _write(
    name: str,
    image: VolumeLike,
    label: VolumeLike | None,
    layout: CaseLayout,
    folder: Path,
    workers: int,
) -> Sequence[int]:
    """Fill the arrays of one case; the ids that its labels lost."""
    images = _fresh_array(folder / f"{name}.image.zarr", layout.shape, layout.dtype, layout)
    write_labels = None
    if label is not None:
        shape = (1, *layout.shape[1:])
        labels = _fresh_array(folder / f"{name}.label.zarr", shape, label.dtype, layout)

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


def _fresh_array(path: Path, shape: Sequence[int], dtype: Any, layout: CaseLayout) -> StoredVolume:
    if path.exists():
        shutil.rmtree(path)
    return create_case_array(path, shape, dtype, chunks=CHUNKS, spacing=layout.spacing)
