"""Memory that runs out is an error that names the step, and what takes less."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

import volprep.loader.batches as batches_module
from volprep import pipeline
from volprep.cli.app import app
from volprep.compute import run_units
from volprep.config import Config
from volprep.errors import DataCheckError, OutOfMemoryError, VolprepError, within_memory
from volprep.loader import PatchDataset, PatchLoader

ASKED = "Unable to allocate 9.00 GiB"


def fail(*_: Any, **__: Any) -> NoReturn:
    raise MemoryError(ASKED)


def config(root: Path, **more: Any) -> Config:
    for kind, dtype in (("image", more.pop("dtype", np.uint8)), ("label", np.uint16)):
        voxels = np.kron(np.arange(48).reshape(3, 4, 4), np.ones((8, 16, 16))).astype(dtype)
        noise = np.random.default_rng(0).integers(0, 5, voxels.shape) if kind == "image" else 0
        tifffile.imwrite(root / f"{kind}.tif", (voxels + noise).astype(dtype), compression="zlib")
    given = {
        "data": {
            "cases": [{"image": str(root / "image.tif"), "label": str(root / "label.tif")}],
            "spacing": [1, 1, 1],
            "label_kind": "instances",
        },
        "split": {"fraction": 0.0},
        "plan": {"patch_size": [8, 16, 16], "batch_size": 2},
        "patching": {"patches_per_case": 6},
        "augment": [],
        "output": {"dir": str(root / "set")},
        "compute": {"workers": 2},
        **more,
    }
    return Config.model_validate(given)


@pytest.mark.parametrize(
    ("where", "more", "step"),
    [
        ("volprep.sources.chunked.ChunkedVolume._read", {}, "while it is read"),
        ("volprep.checks.measure.ImageMeasure.add", {}, "check: "),
        ("volprep.fingerprint.narrow.Counting.add", {}, "check: "),
        ("volprep.fingerprint.wide._first_pass", {"dtype": np.float32}, "fingerprint: "),
        ("volprep.pipeline.decide.make_plan", {}, "prepare: "),
        ("volprep.preprocess.volume.resample_in_plane", {"zoomed": True}, "estimate: "),
        ("volprep.preprocess.volume.ResampledVolume._windows", {"zoomed": True}, "preprocess: "),
        ("volprep.pipeline.volumes.CaseWriter.image", {"zoomed": True}, "preprocess: "),
        ("volprep.sampling.foreground.find_runs", {}, "choose patches: "),
        ("volprep.pipeline.patches.cut_patches", {}, "patches (train): "),
        ("volprep.store.shards.PatchWriter.write", {}, "patches (train): "),
        ("volprep.skeletons.stream.trace_component", {"skeletons": True}, "skeletons: "),
    ],
)
def test_prepare_names_the_step(
    where: str,
    more: dict[str, Any],
    step: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = dict(more)
    if given.pop("zoomed", False):
        given["preprocess"] = {"target_spacing": [1, 2, 2]}
    if given.pop("skeletons", False):
        given["skeletons"] = {"enabled": True}
    settings = config(tmp_path, **given)
    monkeypatch.setattr(where, fail)
    with pytest.raises(VolprepError) as caught:
        pipeline.prepare(settings)
    assert isinstance(caught.value, OutOfMemoryError | DataCheckError)
    assert step in str(caught.value)
    assert "workers" in str(caught.value)
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    made = PatchDataset(pipeline.prepare(settings).path, "train")
    assert len(made) == 6  # what was done is kept, the rest made


def test_the_loader_names_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = PatchDataset(pipeline.prepare(config(tmp_path)).path, "train")
    fill, calls = PatchDataset.fill, []

    def fail_later(self: PatchDataset, *given: Any) -> None:
        calls.append(given)
        return fill(self, *given) if len(calls) == 1 else fail()  # the first tells the shapes

    with monkeypatch.context() as patched:
        patched.setattr(PatchDataset, "fill", fail_later)
        with pytest.raises(OutOfMemoryError, match=r"making a sample: .*batch_size") as caught:
            list(PatchLoader(patches, 1, threads=1))
        assert any("of epoch 0" in note for note in caught.value.__notes__)
    with monkeypatch.context() as patched:
        patched.setattr(PatchDataset, "__getitem__", fail)
        with pytest.raises(OutOfMemoryError, match=r"sample \d+ of epoch 0: .*batch_size"):
            next(iter(PatchLoader(patches, 2, threads=1)))
    with monkeypatch.context() as patched:
        patched.setattr(batches_module, "_room", fail)
        with pytest.raises(OutOfMemoryError, match=r"buffers of \d+ batches: .*prefetch"):
            next(iter(PatchLoader(patches, 2, threads=1)))
    assert len(next(iter(PatchLoader(patches, 2, threads=1)))["image"]) == 2


def named(_: int) -> NoReturn:
    with within_memory("a unit"):
        raise MemoryError(ASKED)


def test_it_crosses_processes_whole() -> None:
    with pytest.raises(OutOfMemoryError, match=r"a unit: memory ran out \(Unable"):
        list(run_units(named, range(2), backend="processes", workers=2))


def test_an_export_names_the_step_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = pipeline.prepare(config(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr("volprep.exports.files.slabs", fail)
        with pytest.raises(OutOfMemoryError, match=r"export nnunet: .*workers"):
            pipeline.export(store.path, "nnunet", tmp_path / "Dataset001_a", workers=1)
    assert not (tmp_path / "Dataset001_a").exists()
    pipeline.export(store.path, "nnunet", tmp_path / "Dataset001_a", workers=1)


def test_the_command_names_itself_where_no_stage_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(config(tmp_path).model_dump(mode="json")))
    monkeypatch.setattr("volprep.cli.data.list_cases", fail, raising=False)
    monkeypatch.setattr("volprep.pipeline.list_cases", fail)
    monkeypatch.setattr("volprep.pipeline.inputs.find_cases", fail)
    result = CliRunner().invoke(app, ["check", str(tmp_path / "set.yaml")])
    assert result.exit_code == 1
    assert f"error: check: memory ran out ({ASKED}); use fewer --workers" in result.stderr


def test_torch_says_it_in_its_own_way() -> None:
    with pytest.raises(OutOfMemoryError, match=r"a step: memory ran out \(.*can't allocate"):  # noqa: SIM117
        with within_memory("a step"):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    with pytest.raises(RuntimeError, match="another"), within_memory("a step"):
        raise RuntimeError("another fault")
