"""What a run takes is told beforehand, and a run that cannot fit does not start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest

from volprep import pipeline
from volprep.config import Config
from volprep.errors import PlanError
from volprep.files import files_below
from volprep.pipeline import needs
from volprep.sources import open_volume
from volprep.sources.stream import StreamVolume


def write(path: Path, array: Any, chunks: tuple[int, ...] | None) -> Path:
    if chunks is None:
        np.save(path.with_suffix(".npy"), array)
        return path.with_suffix(".npy")
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.create_dataset("raw", data=array, chunks=chunks, compression="gzip")
    return path.with_suffix(".h5")


def settings(folder: Path, chunks: tuple[int, ...] | None = (16, 32, 32), **more: Any) -> Config:
    shape = (48, 160, 160)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, shape).astype(np.uint8)
    label = np.repeat(np.arange(1, 49, dtype=np.uint16), 160 * 160).reshape(shape) // 9
    given = {
        "data": {
            "cases": [
                {
                    "image": str(write(folder / "image", image, chunks)),
                    "label": str(write(folder / "label", label, chunks)),
                }
            ],
            "spacing": [1, 1, 1],
            "label_kind": "instances",
        },
        "split": {"kind": "blocks", "fraction": 0.1},
        "plan": {"patch_size": [16, 32, 32], "batch_size": 2},
        "patching": {"patches_per_case": 100},
        "augment": [],
        "output": {"dir": str(folder / "out")},
        **more,
    }
    return Config.model_validate(given)


@pytest.mark.parametrize("chunks", [None, (16, 32, 32), (1, 160, 160), (48, 160, 160)])
@pytest.mark.parametrize("target", ["none", [1, 2, 2]])
def test_the_disk_that_is_foreseen_is_what_is_written(
    tmp_path: Path, chunks: tuple[int, ...] | None, target: Any
) -> None:
    config = settings(tmp_path, chunks, preprocess={"target_spacing": target})
    foreseen = pipeline.foresee_needs(config)
    assert foreseen is not None
    pipeline.prepare(config)
    written = sum(path.stat().st_size for path in files_below(tmp_path / "out"))
    # What describes a set weighs some 100 KB, which nobody counts in a large one.
    assert abs(foreseen.write - written) < 0.1 * written + 150_000
    assert foreseen.inputs == sum(
        path.stat().st_size for path in tmp_path.iterdir() if path.is_file()
    )


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        ({"disk": "1MB"}, "needs about .* of disk"),
        ({"memory": "10MB"}, "needs about .* of memory"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_a_voxel_is_walked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compute: Any, said: str
) -> None:
    config = settings(tmp_path, compute=compute)
    monkeypatch.setattr("volprep.checks.case.measure_case", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(PlanError, match=said):
        pipeline.prepare(config)
    assert not any(tmp_path.glob("out*"))


@pytest.mark.parametrize("target", ["none", [1, 2, 2]])
def test_of_a_stream_only_the_first_planes_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Any
) -> None:
    config = settings(tmp_path, (48, 160, 160), preprocess={"target_spacing": target})
    for name in ("image", "label"):
        voxels = open_volume(tmp_path / f"{name}.h5").read()[0]
        nibabel.save(nibabel.Nifti1Image(voxels.T, np.eye(4)), tmp_path / f"{name}.nii.gz")
    cases = [{k: str(tmp_path / f"{k}.nii.gz") for k in ("image", "label")}]
    given = config.model_dump(mode="json")
    config = Config.model_validate({**given, "data": {**given["data"], "cases": cases}})
    monkeypatch.setattr(needs, "_CHUNK_BYTES", 2**19)
    walked = []
    walk = StreamVolume._next
    monkeypatch.setattr(
        StreamVolume, "_next", lambda self, *given: (walked.append(given[1]), walk(self, *given))[1]
    )
    foreseen = pipeline.foresee_needs(config)
    assert foreseen is not None
    assert foreseen.seconds is not None
    assert max(box.stop[0] for box in walked) <= 24
    pipeline.prepare(config)
    written = sum(path.stat().st_size for path in files_below(tmp_path / "out"))
    assert abs(foreseen.write - written) < 0.1 * written + 150_000


def test_a_long_run_says_at_its_head_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(needs, "_LONG", 0)
    pipeline.prepare(settings(tmp_path), tell=told.append)
    assert [line.split(":")[0].split()[0] for line in told[:4]] == [
        "reads", "disk", "memory", "time",
    ]  # fmt: skip


def test_what_is_there_already_is_not_needed_again(tmp_path: Path) -> None:
    config = settings(tmp_path)
    before = pipeline.foresee_needs(config)
    part = tmp_path / "out.partial"
    part.mkdir()
    (part / "x").write_bytes(os.urandom(300_000))
    after = pipeline.foresee_needs(config)
    assert before is not None
    assert after is not None
    assert before.needed - after.needed == 300_000
