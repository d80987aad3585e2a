"""Sets are mended to the byte, shared out among processes, and never opened damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from volprep import pipeline
from volprep.config import Config, load_config
from volprep.errors import StoreError
from volprep.files import files_below, temporary
from volprep.ledger import LEDGER, MANIFEST
from volprep.loader import PatchDataset
from volprep.store import PatchStore, verify_set

CONFIG = """
data:
  cases:
    - {image: data/a.tif, label: data/a.labels.tif, mask: data/a.valid.tif, spacing: "1, 1, 1 µm"}
    - {image: data/b.tif, label: data/b.labels.tif, mask: data/a.valid.tif, spacing: "2, 2, 2 µm"}
    - {image: data/c.tif, label: data/c.labels.tif, mask: data/a.valid.tif, spacing: "2, 2, 2 µm"}
  label_kind: instances
plan: {patch_size: [8, 16, 16], batch_size: 2, aug_patch_size: [8, 22, 22]}
preprocess: {target_spacing: [2, 2, 2]}
patching: {patches_per_case: 40}
skeletons: {enabled: true}
augment: [flip]
output: {dir: out}
"""


def write_cases(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for name in "abc":
        label = np.zeros((14, 44, 40), np.uint16)
        for number in range(1, 7):
            z, y, x = (int(rng.integers(0, n - 7)) for n in label.shape)
            label[z : z + 7, y : y + 7, x : x + 7] = number
        image = (rng.integers(0, 300, label.shape) + 1000 * (label > 0)).astype(np.uint16)
        tifffile.imwrite(folder / f"data/{name}.tif", image, metadata={"axes": "ZYX"})
        tifffile.imwrite(folder / f"data/{name}.labels.tif", label)
    tifffile.imwrite(folder / "data/a.valid.tif", np.ones((14, 44, 40), np.uint8))


def configure(folder: Path, text: str = CONFIG) -> Config:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "c.yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_cases(folder)
    pipeline.prepare(configure(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The inputs where they were, the set with its own copies of all files."""
    for path in files_below(made / "out"):
        copy = tmp_path / path.relative_to(made)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files_below(folder)}


def harm(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_set_has_all_kinds_of_files(made: Path) -> None:
    names = " ".join(tree(made / "out"))
    for part in ("train.zarr/offset/c", "train.zarr/mask/c", "val.zarr/label/c", "skeletons/a.npz",
                 "volumes/a.ome.zarr/0/c", "sites/train.npy", "train.yaml"):  # fmt: skip
        assert part in names, part
    assert list(verify_set(made / "out")) == []
    assert list(verify_set(made / "out", quick=True)) == []


def test_processes_give_the_bytes_of_threads(made: Path, tmp_path: Path) -> None:
    text = (made / "c.yaml").read_text(encoding="utf-8").replace("data/", f"{made}/data/")
    pipeline.prepare(configure(tmp_path, text + "compute: {executor: processes, workers: 2}\n"))
    assert tree(tmp_path / "out") == tree(made / "out")


def test_any_damaged_file_is_found_and_mended_to_the_byte(folder: Path, made: Path) -> None:
    """One of each kind, each alone and then all at once."""
    out, before = folder / "out", tree(folder / "out")
    kinds: dict[str, Path] = {}
    for path in files_below(out):
        kinds.setdefault(re.sub(r"\d+|\b[abc]\b|train|val", "*", str(path.relative_to(out))), path)
    chosen = list(kinds.values())
    assert len(chosen) > 15
    told = (out / "ledger.jsonl").read_bytes().splitlines()
    for path in chosen:
        if path.name != "config.resolved.yaml":
            harm(path)
    found = {fault.path for fault in verify_set(out)}
    left = (out / "ledger.jsonl").read_bytes().splitlines()
    lost = next(a for a, b in zip(told, left, strict=True) if a != b).decode()
    known = {p for p in chosen if str(p.relative_to(out)) not in lost}
    assert found >= {p for p in known if p.name not in ("config.resolved.yaml", "ledger.jsonl")}
    mended = pipeline.repair(out)
    assert {fault.path for fault in mended} == found
    assert tree(out) == before


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "ledger.jsonl", "patches/train.zarr/label/c/0/0/0/0", "skeletons/a.npz",
     "volumes/a.ome.zarr/labels/label/0/zarr.json", "sites/val.npy",
     "patches/val.zarr/index/c/0/0"],
)  # fmt: skip
def test_one_damaged_file_is_mended_to_the_byte(folder: Path, name: str) -> None:
    out, before = folder / "out", tree(folder / "out")
    harm(out / name)
    said: list[str] = []
    (fault,) = pipeline.repair(out, tell=said.append)
    assert fault.path == out / name
    assert tree(out) == before
    if name.startswith("patches/train.zarr/label"):
        assert any(re.fullmatch(r"patches/train: \d+ kept, 1 to do", line) for line in said), said


def test_missing_and_strange_files_are_seen_to(folder: Path) -> None:
    out, before = folder / "out", tree(folder / "out")
    (out / "train.yaml").unlink()
    (out / "skeletons/notes.txt").write_text("mine")
    (out / "patches/empty/folders").mkdir(parents=True)
    pipeline.repair(out)
    assert tree(out) == before
    assert not (out / "patches/empty").exists()
    assert (folder / "out.strange/skeletons/notes.txt").read_text() == "mine"


def test_a_manifest_and_lines_of_the_ledger_are_given_back(folder: Path, made: Path) -> None:
    out, before = folder / "out", tree(folder / "out")
    config = pipeline.load_target(made / "c.yaml", changes=[f"output.dir={out}"])
    lines = (out / LEDGER).read_bytes().splitlines(keepends=True)
    harms: dict[str, Callable[[], object]] = {
        "no manifest": (out / MANIFEST).unlink,
        "a line less": lambda: (out / LEDGER).write_bytes(b"".join(lines[1:])),
        "a line twice": lambda: (out / LEDGER).write_bytes(b"".join([*lines, lines[2]])),
    }
    for what, do in harms.items():
        do()
        assert list(verify_set(out)), what
        with pytest.raises(StoreError, match="repair"):
            pipeline.prepare(config)
        pipeline.repair(out)
        assert tree(out) == before, what


def test_a_whole_set_is_left_alone(folder: Path) -> None:
    state = [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in files_below(folder / "out")]
    assert pipeline.repair(folder / "out") == []
    assert state == [
        (p, p.stat().st_mtime_ns, p.stat().st_ino) for p in files_below(folder / "out")
    ]


@pytest.mark.parametrize("command", ["repair", "prepare", "export"])
def test_what_a_killed_process_had_replaced_goes_with_the_next_look(
    folder: Path, command: str
) -> None:
    out = folder / "out"
    if command == "export":
        pipeline.export(out, "monai", out := folder / "handed")
    before = tree(out)
    old = temporary(out)
    shutil.copytree(out, old)
    if command == "export":
        pipeline.export(folder / "out", "monai", out)
    elif command == "repair":
        pipeline.repair(out)
    else:
        pipeline.prepare(load_config(out / "config.resolved.yaml"))
    assert tree(out) == before
    assert not old.exists()


def test_a_damaged_config_must_be_given(folder: Path, made: Path) -> None:
    out, before = folder / "out", tree(folder / "out")
    harm(out / "config.resolved.yaml")
    with pytest.raises(StoreError, match="prepare CONFIG --repair"):
        pipeline.repair(out)
    pipeline.repair(out, load_config(made / "c.yaml"))
    assert tree(out) == before


def test_without_inputs_it_is_said_what_is_lost(tmp_path: Path) -> None:
    write_cases(tmp_path)
    store = pipeline.prepare(configure(tmp_path))
    before = tree(store.path)
    harm(store.path / "patches/train.zarr/label/c/0/0/0/0")
    changed = tree(store.path)
    (tmp_path / "data/b.tif").rename(tmp_path / "data/elsewhere.tif")
    with pytest.raises(StoreError, match=r"(?s)b\.tif.*lost: .*patch.* of train \(label\)"):
        pipeline.repair(store.path)
    image = tifffile.imread(tmp_path / "data/elsewhere.tif")
    tifffile.imwrite(tmp_path / "data/b.tif", image + 1, metadata={"axes": "ZYX"})
    with pytest.raises(StoreError, match="another content"):
        pipeline.repair(store.path)
    assert tree(store.path) == changed
    (tmp_path / "data/elsewhere.tif").replace(tmp_path / "data/b.tif")
    pipeline.repair(store.path)
    again = tree(store.path)
    assert {name for name in before if again[name] != before[name]} <= {"manifest.json"}  # mtime


def test_metadata_are_compared_when_a_set_is_opened(folder: Path) -> None:
    """By a flipped bit of each byte of them: none of them opens."""
    store = PatchStore(folder / "out")
    for entry in store.manifest["metadata"]["train"]:
        path = folder / "out" / entry[0]
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 40)):
            broken = bytearray(data)
            broken[place] ^= 1 << place % 8
            path.write_bytes(broken)
            with pytest.raises(StoreError, match="damaged"):
                PatchDataset(folder / "out", "train")
        path.write_bytes(data)
    path = folder / "out/manifest.json"
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 100)):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        with pytest.raises(StoreError):
            PatchDataset(folder / "out", "train")


def volprep(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "volprep", *map(str, arguments)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def test_verify_and_repair_as_commands(folder: Path) -> None:
    code, _, stderr = result(volprep(folder, "verify", "out", "--quick"))
    assert (code, "voxels not looked at" in stderr) == (0, True)  # it does not call them whole
    harm(folder / "out/patches/val.zarr/image/c/0/0/0/0/0")
    code, stdout, stderr = result(volprep(folder, "verify", "out", "--json"))
    assert code == 6
    (fault,) = json.loads(stdout)["faults"]
    assert fault["unit"] == ["patches/val", 0]
    assert "volprep repair out" in stderr
    code, _, stderr = result(volprep(folder, "repair", "out"))
    assert code == 0, stderr
    assert result(volprep(folder, "verify", "out"))[0] == 0


def test_jobs_share_a_run_and_the_same_range_does_no_harm(made: Path, tmp_path: Path) -> None:
    text = (made / "c.yaml").read_text(encoding="utf-8").replace("data/", f"{made}/data/")
    configure(tmp_path, text)
    code, _, stderr = result(volprep(tmp_path, "work", "c.yaml", "--units", "0:5"))
    assert code == 6
    assert "volprep units first" in stderr
    assert not (tmp_path / "out.partial").exists()
    stages: list[str] = []
    for _ in range(6):
        code, stdout, stderr = result(volprep(tmp_path, "units", "c.yaml", "--json"))
        assert code == 0, stderr
        found: dict[str, Any] = json.loads(stdout)
        if found["stage"] is None:
            break
        stages.append(found["stage"])
        middle = max(1, found["units"] // 2)
        jobs = [
            volprep(tmp_path, "work", "c.yaml", "--units", numbers)
            for numbers in (f"0:{middle}", f"0:{middle}", f"{middle}:{found['units'] + 9}")
        ]
        for code, _, stderr in map(result, jobs):
            assert code == 0, stderr
    assert stages == ["volumes", "skeletons", "patches/train", "patches/val"]
    code, _, stderr = result(volprep(tmp_path, "prepare", "c.yaml"))
    assert code == 0, stderr
    whole, shared = tree(made / "out"), tree(tmp_path / "out")
    assert whole == shared
