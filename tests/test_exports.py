"""What is handed over to other trainers: voxels, labels, splits, and what is said before."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from volprep import pipeline
from volprep.config import load_config
from volprep.errors import ConfigError, DataCheckError, SourceError, StoreError
from volprep.exports import TABLE, ExportCase
from volprep.exports.files import tiff_bytes, tiff_image
from volprep.exports.labels import BorderCore, Classes, Ids
from volprep.files import files_below
from volprep.geometry import Box
from volprep.ledger import verify

MASKED = """
data:
  label_kind: {kind}
  spacing: "2, 0.5, 0.5 µm"
  cases:
    - {{image: data/a.tif, label: data/a.labels.tif}}
    - {{image: data/b.tif, label: data/b.labels.tif, mask: data/b.valid.tif}}
    - {{image: data/c.d.tif, label: data/c.d.labels.tif, name: "c d"}}
plan: {{patch_size: [8, 16, 16], batch_size: 3}}
patching: {{patches_per_case: 4}}
augment: [flip]
output: {{dir: out}}
"""
ONE = """
data: {cases: [{image: data/a.tif, label: data/a.labels.tif}], spacing: "1, 1, 1 µm"}
plan: {patch_size: [8, 16, 16], batch_size: 2}
split: {kind: blocks, gap: [3, 4, 5]}
patching: {patches_per_case: 4}
augment: [flip]
output: {dir: out}
"""
SHAPE = (14, 64, 40)


def write_cases(folder: Path, kind: str = "instances") -> None:
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for name in ("a", "b", "c.d"):
        label = np.zeros(SHAPE, np.uint32)
        for number in range(1, 9):
            z, y, x = (int(rng.integers(0, n - 7)) for n in SHAPE)
            ids = {"instances": 70000 + 3 * number, "classes": 2 + number % 2 * 2}
            label[z : z + 7, y : y + 7, x : x + 7] = ids[kind]
        image = (rng.integers(0, 300, SHAPE) + 1000 * (label > 0)).astype(np.uint16)
        tifffile.imwrite(folder / f"data/{name}.tif", image, metadata={"axes": "ZYX"})
        tifffile.imwrite(folder / f"data/{name}.labels.tif", label)
    valid = np.ones(SHAPE, np.uint8)
    valid[:, :20] = 0
    tifffile.imwrite(folder / "data/b.valid.tif", valid)


def made(folder: Path, text: str, kind: str = "instances") -> Path:
    write_cases(folder, kind)
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    pipeline.prepare(load_config(folder / "c.yaml"))
    return folder


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("instances"), MASKED.format(kind="instances"))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("classes"), MASKED.format(kind="classes"), "classes")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("blocks"), ONE)


def source(folder: Path, name: str, what: str = "") -> Any:
    return tifffile.imread(folder / f"data/{name.replace('_', '.')}{what}.tif")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files_below(folder)}


def content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def told(made: pipeline.Exported) -> str:
    return "\n".join(map(str, made.findings))


def volprep(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "volprep", *map(str, arguments)], capture_output=True, text=True
    )


# nnU-Net


def test_nnunet_has_our_voxels_spacing_classes_and_split(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset007_abc"
    made = pipeline.export(classes / "out", "nnunet", out, plans=True)
    assert content(out / "dataset.json")["labels"] == {
        "background": 0, "class 2": 1, "class 4": 2, "ignore": 3,
    }  # fmt: skip
    for name in ("a", "b", "c_d"):
        image = tifffile.imread(out / f"imagesTr/{name}_0000.tif")
        original = "c.d" if name == "c_d" else name
        assert (image == source(classes, original)).all()
        label = source(classes, original, ".labels") // 2
        if name == "b":
            label[source(classes, "b", ".valid") == 0] = 3
        assert (tifffile.imread(out / f"labelsTr/{name}.tif") == label).all()
        for where in ("imagesTr", "labelsTr"):
            assert content(out / f"{where}/{name}.json") == {"spacing": [2.0, 0.5, 0.5]}
    (fold,) = content(out / "splits_final.json")
    splits = content(classes / "out/splits.json")
    for side in ("train", "val"):
        assert fold[side] == [part["case"].replace(" ", "_") for part in splits[side]]
    assert "c d is called c_d" in told(made)
    assert "ignore" in told(made)
    plan = content(out / "volprepPlans.json")["configurations"]["3d_fullres"]
    assert (plan["patch_size"], plan["batch_size"]) == ([8, 16, 16], 3)


def test_nnunet_normalises_with_our_plan_as_the_loader_does(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset007_abc"
    pipeline.export(classes / "out", "nnunet", out, plans=True)
    plans = content(out / "volprepPlans.json")
    assert plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"]
    said = plans["foreground_intensity_properties_per_channel"]["0"]
    rule = content(classes / "out/manifest.json")["training"]["normalisation"]
    assert [said["mean"], said["std"]] == [*rule["offset"], *rule["scale"]]
    assert [said["percentile_00_5"], said["percentile_99_5"]] == rule["clip"][0]


def test_nnunet_takes_instances_as_one_class_or_as_core_and_border(
    instances: Path, tmp_path: Path
) -> None:
    one = pipeline.export(instances / "out", "nnunet", tmp_path / "Dataset001_a")
    assert "every id becomes class 1" in told(one)
    ids = source(instances, "a", ".labels")
    assert (tifffile.imread(tmp_path / "Dataset001_a/labelsTr/a.tif") == (ids > 0)).all()
    two = pipeline.export(
        instances / "out", "nnunet", tmp_path / "Dataset002_a", instances="border-core"
    )
    assert "core (class 1)" in told(two)
    found = tifffile.imread(tmp_path / "Dataset002_a/labelsTr/a.tif")
    assert ((found > 0) == (ids > 0)).all()
    assert set(np.unique(found)) == {0, 1, 2}


# Blocks


def test_blocks_are_volumes_of_their_own_without_the_gap(blocks: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset001_a"
    made = pipeline.export(blocks / "out", "nnunet", out)
    assert "each is a volume of its own" in told(made)
    boxes = {case["name"]: (case["side"], Box(*map(tuple, case["box"]))) for case in made.cases}
    splits = content(blocks / "out/splits.json")
    wanted = {
        (side, *map(tuple, part["box"])) for side in ("train", "val") for part in splits[side]
    }
    assert {(side, box.start, box.stop) for side, box in boxes.values()} == wanted
    image = source(blocks, "a")
    for name, (_, box) in boxes.items():
        assert (tifffile.imread(out / f"imagesTr/{name}_0000.tif") == image[box.slices]).all()
    # No voxel of the gap is handed over: grown by it, train and validation do not meet.
    gap = [max(0, n - 1) for n in splits["gap"]]
    assert any(gap)
    for side, box in boxes.values():
        for other, beside in boxes.values():
            assert side == other or not box.grow(gap).overlaps(beside)


# The run


def test_interrupted_export_goes_on_and_ends_in_the_same_bytes(
    instances: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "1/Dataset001_a", tmp_path / "2/Dataset001_a"
    pipeline.export(instances / "out", "nnunet", whole)
    from volprep.exports.labels import Classes as Form

    read = Form.read

    def full(form: Form, case: ExportCase, box: Box) -> Any:
        if case.name == "c_d":
            raise OSError(28, "No space left on device")
        return read(form, case, box)

    monkeypatch.setattr(Form, "read", full)
    with pytest.raises(StoreError, match="free some space"):
        pipeline.export(instances / "out", "nnunet", cut, workers=1)
    assert not cut.exists()
    monkeypatch.undo()
    heard: list[str] = []
    made = pipeline.export(instances / "out", "nnunet", cut, tell=heard.append)
    assert any("files are there" in line for line in heard)
    assert 0 < made.made < len(made.files)
    assert tree(cut) == tree(whole)


def test_killed_export_leaves_nothing_under_its_name_and_is_finished_by_the_next(
    instances: Path, tmp_path: Path
) -> None:
    out = tmp_path / "Dataset001_a"
    command = [sys.executable, "-m", "volprep", "export", instances / "out", "--to", "nnunet"]
    running = subprocess.Popen([*command, "--out", out], stderr=subprocess.DEVNULL)
    partial = tmp_path / "Dataset001_a.partial"
    while running.poll() is None and not (partial / "imagesTr").exists():
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    done = volprep(*command[3:], "--out", out)
    assert done.returncode == 0, done.stderr
    assert not partial.exists()
    assert not list(verify(out))


def test_damage_is_found_and_mended_by_the_same_command(instances: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset001_a"
    pipeline.export(instances / "out", "nnunet", out)
    before = tree(out)
    label = out / "labelsTr/a.tif"
    label.write_bytes(label.read_bytes()[:-1] + b"!")
    done = volprep("verify", out)
    assert done.returncode == 6
    assert "labelsTr/a.tif" in done.stderr
    assert "volprep export" in done.stderr
    made = pipeline.export(instances / "out", "nnunet", out)
    assert made.made == 1
    assert tree(out) == before
    assert volprep("verify", out).returncode == 0


def test_finished_export_is_left_alone_and_another_one_needs_overwrite(
    instances: Path, tmp_path: Path
) -> None:
    out = tmp_path / "Dataset001_a"
    pipeline.export(instances / "out", "nnunet", out)
    before = tree(out)
    assert pipeline.export(instances / "out", "nnunet", out).made == 0
    with pytest.raises(StoreError, match="--overwrite"):
        pipeline.export(instances / "out", "nnunet", out, instances="border-core")
    assert tree(out) == before
    made = pipeline.export(
        instances / "out", "nnunet", out, instances="border-core", overwrite=True
    )
    assert 0 < made.made < len(made.files)
    (out / "model.pth").write_bytes(b"of the user")
    with pytest.raises(StoreError, match=r"model\.pth: is not of the export"):
        pipeline.export(instances / "out", "nnunet", out, overwrite=True)
    assert (out / "model.pth").exists()


def test_what_a_trainer_or_a_user_left_in_an_export_is_neither_damage_nor_lost(
    instances: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    pipeline.export(instances / "out", "torchio", out)
    (out / "model.pt").write_bytes(b"trained")
    done = volprep("verify", out)
    assert done.returncode == 0, done.stderr
    assert "model.pt: is not of the export" in done.stderr
    (out / "model.pt").unlink()
    mine = (out / "subjects.py").read_text("utf-8") + "# mine\n"
    (out / "subjects.py").write_text(mine, encoding="utf-8")
    assert volprep("verify", out).returncode == 6
    with pytest.raises(StoreError, match=r"subjects\.py: was changed since it was exported"):
        pipeline.export(instances / "out", "torchio", out)
    assert (out / "subjects.py").read_text("utf-8") == mine
    assert pipeline.export(instances / "out", "torchio", out, overwrite=True).made == 1
    assert not list(verify(out))
    with pytest.raises(StoreError, match="is an export; give the set"):
        pipeline.export(out, "torchio", tmp_path / "y")
    with pytest.raises(StoreError, match="is an export, which is mended by"):
        pipeline.repair(out)


def test_dry_run_says_what_is_lost_and_writes_nothing(instances: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset001_a"
    done = volprep("export", instances / "out", "--to", "nnunet", "--out", out, "--dry-run")
    assert done.returncode == 0
    assert "every id becomes class 1" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_lost_is_told_before_anything_is_written(instances: Path, tmp_path: Path) -> None:
    out, heard = tmp_path / "Dataset001_a", []

    def hear(line: str) -> None:
        heard.append((line, out.with_name("Dataset001_a.partial").exists()))

    made = pipeline.export(instances / "out", "nnunet", out, tell=hear)
    assert {(f"nnunet: {finding}", False) for finding in made.findings} <= set(heard)


def test_exports_of_the_yaml_are_made_by_export_and_by_prepare(tmp_path: Path) -> None:
    write_cases(tmp_path)
    text = MASKED.format(kind="instances")
    listed = "exports:\n  - {to: nnunet, dir: x/Dataset001_a, instances: border-core}\n"
    (tmp_path / "c.yaml").write_text(text + listed, encoding="utf-8")
    done = volprep("prepare", tmp_path / "c.yaml")
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "x/Dataset001_a/dataset.json")["labels"]["core"] == 1
    assert "Dataset001_a is complete already" in volprep("export", tmp_path / "c.yaml").stderr
    # They are no part of the set, which stays as it is.
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    again = volprep("prepare", tmp_path / "c.yaml").stderr
    assert ("complete already" in again, "there are " in again, "made " in again) == (
        True, True, False,
    )  # fmt: skip


# Refusals


def test_refusals_say_what_to_do(instances: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset001_a"
    with pytest.raises(ConfigError, match="did you mean nnunet"):
        pipeline.export(instances / "out", "nnunett", out)
    with pytest.raises(ConfigError, match="Dataset001_nuclei"):
        pipeline.export(instances / "out", "nnunet", tmp_path / "mine")
    with pytest.raises(StoreError, match="lies in the set itself"):
        pipeline.export(instances / "out", "monai", instances / "out/x")
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is no export of volprep"):
        pipeline.export(instances / "out", "nnunet", out)
    with pytest.raises(StoreError, match="volprep prepare"):
        pipeline.export(tmp_path / "nothing", "nnunet", tmp_path / "Dataset002_a")
    done = volprep("export", instances / "out", "--to", "nnunet")
    assert done.returncode == 2
    assert "--to and --out go together" in done.stderr
    done = volprep("export", instances / "c.yaml")
    assert done.returncode == 2
    assert "lists no exports" in done.stderr


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("{to: nnunett, dir: x}", r"exports\.0.* did you mean nnunet"),
        ("{to: nnunet, dir: mine}", r"exports\.0.*Dataset001_nuclei"),
        ("{to: monai, dir: x, plans: true}", r"exports\.0: monai takes no plans; nnunet does"),
        ("{to: monai, dir: x}, {to: torchio, dir: x}", r"exports\.1: dir: .* exports\.0"),
        ("{to: monai, dir: out}", r"exports\.0: dir: .* output\.dir"),
        ("{to: monai, dir: out/x}", r"exports\.0: dir: .* output\.dir"),
        ("{to: monai}", r"exports\.0\.dir: missing"),
        ("{to: nnunet, dir: Dataset001_a, instances: cores}", r"exports\.0\.instances: found"),
        ("monai", r"exports\.0: found 'monai'"),
    ],
)
def test_config_with_a_wrong_export_is_refused_before_anything_is_prepared(
    tmp_path: Path, listed: str, said: str
) -> None:
    write_cases(tmp_path)
    text = MASKED.format(kind="instances") + f"exports: [{listed}]\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        pipeline.load_target(tmp_path / "c.yaml")


def test_files_that_changed_since_are_not_handed_over(tmp_path: Path) -> None:
    made(tmp_path, MASKED.format(kind="instances"))
    path = tmp_path / "data/a.tif"
    image = tifffile.imread(path)
    image[0, 0, 0] += 1
    tifffile.imwrite(path, image, metadata={"axes": "ZYX"})
    with pytest.raises(SourceError, match=r"a\.tif: changed since the set was made"):
        pipeline.export(tmp_path / "out", "nnunet", tmp_path / "Dataset001_a")
    with pytest.raises(StoreError, match="bring it up to date with: volprep prepare"):
        pipeline.export(tmp_path / "c.yaml", "nnunet", tmp_path / "Dataset001_a")


@pytest.mark.parametrize(
    "how", ["output: {dir: out, store: volumes}", "preprocess: {target_spacing: [2.5, 0.6, 0.6]}"]
)
def test_set_that_keeps_its_volumes_is_handed_over_without_its_inputs(
    tmp_path: Path, how: str
) -> None:
    text = MASKED.format(kind="instances")
    text = text.replace("output: {dir: out}", how) if "output" in how else f"{text}{how}\n"
    made(tmp_path, text)
    pipeline.export(tmp_path / "c.yaml", "nnunet", tmp_path / "1/Dataset001_a")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "out").rename(tmp_path / "moved")
    pipeline.export(tmp_path / "moved", "nnunet", tmp_path / "2/Dataset001_a")
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_set_of_patches_says_that_it_needs_its_inputs(tmp_path: Path) -> None:
    made(tmp_path, MASKED.format(kind="instances"))
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(StoreError, match=r"keeps patches .*store: volumes"):
        pipeline.export(tmp_path / "out", "nnunet", tmp_path / "Dataset001_a")
    with pytest.raises(StoreError, match="cannot be told without the inputs"):
        pipeline.export(tmp_path / "c.yaml", "nnunet", tmp_path / "Dataset001_a")
    assert not list(tmp_path.glob("Dataset*"))


def test_damaged_set_is_not_handed_over(tmp_path: Path) -> None:
    text = MASKED.format(kind="instances").replace("dir: out", "dir: out, store: volumes")
    made(tmp_path, text)
    splits = tmp_path / "out/splits.json"
    splits.write_text(splits.read_text().replace("train", "trein"))
    with pytest.raises(StoreError, match="volprep repair"):
        pipeline.export(tmp_path / "out", "nnunet", tmp_path / "Dataset001_a")


def test_every_finding_of_exports_has_its_name(
    instances: Path, classes: Path, tmp_path: Path
) -> None:
    made = pipeline.export(instances / "out", "nnunet", tmp_path / "Dataset001_a", dry_run=True)
    names = {finding.name for finding in made.findings}
    assert names == {"export-loses", "export-changes"}
    with pytest.raises(DataCheckError, match="export-impossible"):
        pipeline.export(classes / "out", "skoots", tmp_path / "mine")


def test_every_target_has_a_row_and_is_asked() -> None:
    scripts = Path(__file__).parents[1] / "scripts" / "acceptance"
    for name, row in TABLE.items():
        assert row.peer
        assert row.expresses
        assert (scripts / f"ask_{name}.py").exists()


# Labels


class Memory:
    """An array as a volume of one channel."""

    spacing = None

    def __init__(self, array: Any) -> None:
        self.array = array[None]
        self.shape, self.dtype = self.array.shape, self.array.dtype

    def read(self, box: Box | None = None) -> Any:
        return self.array[(slice(None), *(box or Box.whole(self.shape)).slices)]


def case_of(label: Any, box: Box | None = None, mask: Any = None) -> ExportCase:
    volume = Memory(label)
    valid = None if mask is None else Memory(mask)
    whole = Box.whole(label.shape)
    return ExportCase("a", "a", box or whole, "train", None, "key", volume, volume, valid)


SMALL = arrays(np.uint64, (4, 5, 6), elements=st.integers(0, 3))


@given(SMALL, st.booleans(), st.integers(0, 3), st.integers(1, 4))
def test_border_is_where_a_neighbour_is_another(
    label: Any, in_plane: bool, first: int, depth: int
) -> None:
    box = Box((first, 0, 0), (min(4, first + depth), 5, 6))
    found = BorderCore(in_plane).read(case_of(label), box)
    for z, y, x in np.argwhere(np.ones(box.shape)):
        place, wanted = (z + first, y, x), 0
        if label[place]:
            near = []
            for axis in range(1 if in_plane else 0, 3):
                for step in (-1, 1):
                    other = list(place)
                    other[axis] += step
                    if 0 <= other[axis] < label.shape[axis]:
                        near.append(label[tuple(other)])
            wanted = 2 if any(value != label[place] for value in near) else 1
        assert found[z, y, x] == wanted


def test_a_block_knows_nothing_of_what_lies_beyond_it() -> None:
    label = np.ones((6, 4, 4), np.uint8)
    label[3:] = 2
    found = BorderCore(False).read(
        case_of(label, Box((0, 0, 0), (3, 4, 4))), Box.at((0, 0, 0), (3, 4, 4))
    )
    assert (found == 1).all()


@given(arrays(np.uint64, (3, 4, 5), elements=st.sampled_from([0, 1, 7, 2**40, 2**63 + 1])))
def test_ids_beyond_the_type_are_numbered_and_come_back_by_the_table(label: Any) -> None:
    case, form = case_of(label), Ids(("uint8", "uint16"))
    found = form.read(case, case.box)
    if label.max() > 65535:
        table = np.array([0, *np.unique(label[label > 0])], np.uint64)
        assert form.renumbers(case)
        assert (table[found] == label).all()
        assert found.dtype == np.uint8
    else:
        assert not form.renumbers(case)
        assert (found == label).all()


@given(SMALL, SMALL)
def test_classes_count_from_0_and_what_is_none_is_ignored(label: Any, mask: Any) -> None:
    form = Classes((0, 1, 3), ignore=9)
    found = form.read(case_of(label, mask=mask), Box.whole(label.shape))
    wanted = np.select([mask == 0, label == 0, label == 1, label == 3], [9, 0, 1, 2], 9)
    assert (found == wanted).all()


# The others: their files as their own readers take them; scripts/acceptance asks those


def exported(folder: Path, to: str, out: Path) -> pipeline.Exported:
    made = pipeline.export(folder / "out", to, out)
    assert not list(verify(out))
    assert (out / "README.md").exists()
    return made


def side_of(made: pipeline.Exported) -> dict[str, str]:
    return {case["name"]: case["side"] for case in made.cases}


def original(folder: Path, name: str, what: str = "") -> Any:
    return source(folder, {"c_d": "c.d"}.get(name, name), what)


def ids_back(found: Any, table: Path) -> Any:
    rows = np.loadtxt(table, delimiter=",", skiprows=1, dtype=np.int64, ndmin=2)
    back = np.zeros(rows[:, 0].max() + 1, np.int64)
    back[rows[:, 0]] = rows[:, 1]
    return back[found]


@pytest.mark.parametrize("to", ["monai", "torchio"])
def test_nifti_has_our_voxels_and_a_true_affine(instances: Path, tmp_path: Path, to: str) -> None:
    import nibabel

    made = exported(instances, to, tmp_path / "x")
    for name in side_of(made):
        image = nibabel.load(tmp_path / f"x/images/{name}.nii.gz")
        assert (original(instances, name) == np.asarray(image.dataobj).T).all()
        assert np.allclose(image.affine, np.diag([0.5, 0.5, 2.0, 1.0]))
        assert image.header.get_xyzt_units()[0] == "micron"
        label = np.asarray(nibabel.load(tmp_path / f"x/labels/{name}.nii.gz").dataobj).T
        mask = np.asarray(nibabel.load(tmp_path / f"x/masks/{name}.nii.gz").dataobj).T
        valid = original(instances, name, ".valid") if name == "b" else np.ones(SHAPE)
        assert (mask == valid).all()
        assert (label == original(instances, name, ".labels") * (valid > 0)).all()


def test_monai_lists_hold_out_what_we_hold_out(instances: Path, tmp_path: Path) -> None:
    made = exported(instances, "monai", tmp_path / "x")
    sides = side_of(made)
    lists = content(tmp_path / "x/dataset.json")
    for key, side in (("training", "train"), ("validation", "val")):
        names = {Path(entry["image"]).name.removesuffix(".nii.gz") for entry in lists[key]}
        assert names == {name for name, its in sides.items() if its == side}
    folds = content(tmp_path / "x/datalist.json")["training"]
    for entry in folds:
        name = Path(entry["image"]).name.removesuffix(".nii.gz")
        assert (entry["fold"] == 0) == (sides[name] == "val")


def test_torchio_table_has_a_row_for_each_case(instances: Path, tmp_path: Path) -> None:
    import csv

    made = exported(instances, "torchio", tmp_path / "x")
    with (tmp_path / "x/subjects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"]: row["side"] for row in rows} == side_of(made)
    assert all((tmp_path / "x" / row[what]).exists() for row in rows for what in ("image", "mask"))


def test_cellpose_has_a_picture_for_each_section(instances: Path, tmp_path: Path) -> None:
    made = exported(instances, "cellpose", tmp_path / "x")
    assert "numbered from 1 on" in told(made)
    assert "background there" in told(made)
    for name, side in side_of(made).items():
        for z in (0, 5, SHAPE[0] - 1):
            start = tmp_path / f"x/{side}/{name}_z{z:04}"
            assert (tifffile.imread(f"{start}_img.tif") == original(instances, name)[z]).all()
            found = tifffile.imread(f"{start}_masks.tif")
            label = original(instances, name, ".labels")[z].copy()
            if name == "b":
                label[original(instances, name, ".valid")[z] == 0] = 0
            assert found.dtype == np.uint16
            assert (ids_back(found, tmp_path / f"x/{side}/{name}.ids.csv") == label).all()


def test_stardist_leaves_out_what_is_not_annotated(instances: Path, tmp_path: Path) -> None:
    made = exported(instances, "stardist", tmp_path / "x")
    for name, side in side_of(made).items():
        image = tifffile.imread(tmp_path / f"x/{side}/images/{name}.tif")
        assert (image == original(instances, name)).all()
        label = original(instances, name, ".labels").astype(np.int64)
        if name == "b":
            label[original(instances, name, ".valid") == 0] = -1
        assert (tifffile.imread(tmp_path / f"x/{side}/masks/{name}.tif") == label).all()


def test_stardist_continues_what_is_shorter_than_the_patch_and_learns_nothing_there(
    instances: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MASKED.format(kind="instances").replace("[8, 16, 16]", "[16, 16, 16]")
    made(tmp_path, text)
    out = tmp_path / "x"
    said = told(exported(tmp_path, "stardist", out))
    assert "shorter than the patch (16 x 16 x 16)" in said
    models = types.ModuleType("stardist.models")
    for name in ("Config2D", "Config3D", "StarDist2D", "StarDist3D"):
        setattr(models, name, object)
    monkeypatch.setitem(sys.modules, "stardist", types.ModuleType("stardist"))
    monkeypatch.setitem(sys.modules, "stardist.models", models)
    spec = importlib.util.spec_from_file_location("train", out / "train.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    for side in ("train", "val"):
        for image, label in zip(*train.load(side), strict=True):
            assert image.shape == (16, *SHAPE[1:], 1)
            assert (label[SHAPE[0] :] == -1).all()
            assert (
                image[SHAPE[0] :, ..., 0] == image[SHAPE[0] - 2 : SHAPE[0] - 4 : -1, ..., 0]
            ).all()
            assert (label[: SHAPE[0]] > 0).any()


def test_skoots_has_bytes_skeletons_and_its_axes(instances: Path, tmp_path: Path) -> None:
    import torch
    import yaml

    made = exported(instances, "skoots", tmp_path / "x")
    assert "8 bits" in told(made)
    for name, side in side_of(made).items():
        start = tmp_path / f"x/{side}/{name}"
        image = tifffile.imread(f"{start}.tif")
        assert image.dtype == np.uint8
        assert np.corrcoef(image.ravel(), original(instances, name).ravel())[0, 1] > 0.99
        labels = tifffile.imread(f"{start}.labels.tif")
        points = torch.load(f"{start}.skeletons.trch", weights_only=True)
        assert set(points) == set(np.unique(labels).tolist()) - {0}
        for number, places in points.items():  # (row, column, section), as SKOOTS stores masks
            rows, columns, sections = places.round().long().numpy().T
            assert (labels.transpose(1, 2, 0)[rows, columns, sections] == number).all()
    config = yaml.safe_load((tmp_path / "x/skoots.yaml").read_text())
    crop = [config["AUGMENTATION"][f"CROP_{n}"] for n in ("DEPTH", "WIDTH", "HEIGHT")]
    assert crop == [8, 16, 16]


def test_bytes_stay_bytes_for_skoots(tmp_path: Path) -> None:
    write_cases(tmp_path)
    for name in ("a", "b", "c.d"):
        path = tmp_path / f"data/{name}.tif"
        tifffile.imwrite(path, (tifffile.imread(path) // 8).astype(np.uint8))
    (tmp_path / "c.yaml").write_text(MASKED.format(kind="instances"), encoding="utf-8")
    pipeline.prepare(load_config(tmp_path / "c.yaml"))
    made = exported(tmp_path, "skoots", tmp_path / "x")
    assert "8 bits" not in told(made)
    image = tifffile.imread(tmp_path / f"x/{side_of(made)['a']}/a.tif")
    assert (image == source(tmp_path, "a")).all()


def test_biom3d_has_normalised_arrays_and_our_folds(classes: Path, tmp_path: Path) -> None:
    from volprep.preprocess import Normalisation

    made = exported(classes, "biom3d", tmp_path / "x")
    training = content(classes / "out/manifest.json")["training"]
    rule = Normalisation.from_dict(training["normalisation"])
    for name in side_of(made):
        image = np.load(tmp_path / f"x/images/{name}.npy")
        assert (image == rule.apply(original(classes, name)[None])).all()
        label = original(classes, name, ".labels") // 2
        if name == "b":
            label[original(classes, name, ".valid") == 0] = 0
        assert (np.load(tmp_path / f"x/masks/{name}.npy") == label[None]).all()
    rows = (tmp_path / "x/folds.csv").read_text().splitlines()[1:]
    folds = {row.split(",")[0].removesuffix(".npy"): row.split(",")[2] for row in rows}
    assert folds == {name: "0" if s == "val" else "1" for name, s in side_of(made).items()}
    scope: dict[str, Any] = {"__file__": str(tmp_path / "x/config.py")}
    exec((tmp_path / "x/config.py").read_text(), scope)
    assert (scope["CONFIG"].PATCH_SIZE, scope["CONFIG"].BATCH_SIZE) == ([8, 16, 16], 3)
    assert scope["CONFIG"].NUM_CLASSES == 2


def test_careamics_has_images_alone(classes: Path, tmp_path: Path) -> None:
    import yaml

    made = exported(classes, "careamics", tmp_path / "x")
    assert "labels are not handed over" in told(made)
    for name, side in side_of(made).items():
        image = tifffile.imread(tmp_path / f"x/{side}/{name}.tif")
        assert (image == original(classes, name)).all()
    config = yaml.safe_load((tmp_path / "x/careamics.yaml").read_text())["data_config"]
    assert (config["axes"], config["patching"]["patch_size"]) == ("ZYX", [8, 16, 16])


def test_connectomics_has_one_dataset_a_file_and_both_configs(
    instances: Path, tmp_path: Path
) -> None:
    import h5py
    import yaml

    made = exported(instances, "connectomics", tmp_path / "x")
    for name in side_of(made):
        with h5py.File(tmp_path / f"x/images/{name}.h5") as file:
            assert list(file) == ["main"]
            assert (file["main"][:] == original(instances, name)).all()
        with h5py.File(tmp_path / f"x/labels/{name}.h5") as file:
            label = original(instances, name, ".labels").copy()
            if name == "b":
                label[original(instances, name, ".valid") == 0] = 0
            assert (file["main"][:] == label).all()
    present = yaml.safe_load((tmp_path / "x/connectomics.yaml").read_text())["default"]
    first = yaml.safe_load((tmp_path / "x/v1.yaml").read_text())
    for side, key in (("train", "IMAGE_NAME"), ("val", "VAL_IMAGE_NAME")):
        names = [f"images/{name}.h5" for name, its in side_of(made).items() if its == side]
        assert present["data"][side]["image"] == names
        assert first["DATASET"][key].split("@") == names
    assert present["data"]["dataloader"] == {"batch_size": 3, "patch_size": [8, 16, 16]}
    # Version 1 drops what is smaller than it draws: 10 x 70 x 70 for this patch.
    pads = first["DATASET"]["PAD_SIZE"]
    assert all(n + 2 * p >= w for n, p, w in zip(SHAPE, pads, (10, 70, 70), strict=True))
    assert first["DATASET"]["VAL_PAD_SIZE"] == [0, 0, 0]


# 2D


def flat(folder: Path, *, colour: bool, kind: str) -> Path:
    rng = np.random.default_rng(1)
    for what in ("images", "labels"):
        (folder / "data" / what).mkdir(parents=True)
    for n in range(4):
        label = np.zeros((60, 70), np.uint16)
        for number in range(1, 9):
            y, x = rng.integers(0, 50, 2)
            label[y : y + 9, x : x + 9] = number if kind == "instances" else 1 + number % 2
        grey = (rng.integers(0, 99, label.shape) + 100 * (label > 0)).astype(np.uint8)
        path = folder / f"data/images/p{n}.tif"
        if colour:
            colours = np.stack([grey, 255 - grey, grey // 2], axis=-1)
            tifffile.imwrite(path, colours, photometric="rgb")
        else:
            tifffile.imwrite(path, grey)
        tifffile.imwrite(folder / f"data/labels/p{n}.tif", label)
    (folder / "c.yaml").write_text(
        f"data: {{root: data, slices: false, label_kind: {kind}}}\n"
        "plan: {patch_size: [1, 32, 32]}\n"
        "patching: {patches_per_case: 2}\naugment: [flip]\noutput: {dir: out}\n"
    )
    pipeline.prepare(load_config(folder / "c.yaml"))
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat(tmp_path_factory.mktemp("colours"), colour=True, kind="instances")


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat(tmp_path_factory.mktemp("grey"), colour=False, kind="classes")


def picture(folder: Path, name: str) -> tuple[Any, Any]:
    """(C, Y, X) and (Y, X)."""
    image = tifffile.imread(folder / f"data/images/{name}.tif")
    image = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    return image, tifffile.imread(folder / f"data/labels/{name}.tif")


def test_2d_pictures_in_colour_keep_their_channels(colours: Path, tmp_path: Path) -> None:
    import nibabel

    nnunet = exported(colours, "nnunet", tmp_path / "Dataset001_a")
    for to in ("cellpose", "stardist", "careamics", "monai", "torchio"):
        exported(colours, to, tmp_path / to)
    for name, side in side_of(nnunet).items():
        image, label = picture(colours, name)
        for c in range(3):
            path = tmp_path / f"Dataset001_a/imagesTr/{name}_{c:04}.tif"
            assert (tifffile.imread(path) == image[c]).all()
        found = tifffile.imread(tmp_path / f"Dataset001_a/labelsTr/{name}.tif")
        assert (found == (label > 0)).all()
        assert (tifffile.imread(tmp_path / f"cellpose/{side}/{name}_img.tif") == image).all()
        assert (tifffile.imread(tmp_path / f"cellpose/{side}/{name}_masks.tif") == label).all()
        assert (tifffile.imread(tmp_path / f"stardist/{side}/images/{name}.tif") == image).all()
        assert (tifffile.imread(tmp_path / f"stardist/{side}/masks/{name}.tif") == label).all()
        assert (tifffile.imread(tmp_path / f"careamics/{side}/{name}.tif") == image).all()
        for to in ("monai", "torchio"):
            nifti = nibabel.load(tmp_path / f"{to}/images/{name}.nii.gz")
            assert (image[:, None] == np.asarray(nifti.dataobj).T).all()
    described = content(tmp_path / "Dataset001_a/dataset.json")
    assert described["overwrite_image_reader_writer"] == "NaturalImage2DIO"
    assert list(described["channel_names"]) == ["0", "1", "2"]


@pytest.mark.parametrize("to", ["nnunet", "careamics", "monai", "torchio"])
def test_2d_classes_are_handed_over(grey: Path, tmp_path: Path, to: str) -> None:
    exported(grey, to, tmp_path / "Dataset001_a")


@pytest.mark.parametrize("to", ["skoots", "connectomics"])
def test_2d_images_are_refused_by_those_that_train_on_volumes(
    colours: Path, tmp_path: Path, to: str
) -> None:
    with pytest.raises(DataCheckError, match="2D"):
        pipeline.export(colours / "out", to, tmp_path / "x")
    assert not list(tmp_path.iterdir())


PLANES = """
data:
  label_kind: instances
  cases:
    - {image: data/a.tif, label: data/a.labels.tif, spacing: "2, 0.5, 0.25 µm"}
    - {image: data/b.tif, label: data/b.labels.tif, name: nul}
    - {image: data/c.d.tif, label: data/c.d.labels.tif, name: "日 本"}
plan: {patch_size: [1, 8, 16], batch_size: 3}
preprocess: {scope: case}
patching: {patches_per_case: 4, do_2d: y}
augment: [flip]
output: {dir: out}
"""


def test_planes_of_volumes_are_nnunets_2d_and_what_was_turned_is_said(tmp_path: Path) -> None:
    made(tmp_path, PLANES)
    out = tmp_path / "Dataset001_a"
    done = pipeline.export(tmp_path / "out", "nnunet", out, plans=True)
    assert "y of the volumes is z here, and rows and columns are their z and x" in told(done)
    assert "no spacing is known" in told(done)  # of two of them
    seen = pipeline.export(tmp_path / "out", "stardist", tmp_path / "s", dry_run=True)
    assert "voxels count as cubes" in told(seen)
    assert set(side_of(done)) == {"a", "case_nul", "case"}
    assert content(out / "labelsTr/a.json") == {"spacing": [0.5, 2.0, 0.25]}
    for name, original in {"a": "a", "case_nul": "b", "case": "c.d"}.items():
        image = tifffile.imread(out / f"imagesTr/{name}_0000.tif")
        assert (image == source(tmp_path, original).transpose(1, 0, 2)).all()
    plans = content(out / "volprepPlans.json")["configurations"]
    assert list(plans) == ["2d"]
    assert plans["2d"]["patch_size"] == [8, 16]
    assert plans["2d"]["architecture"]["arch_kwargs"]["conv_op"].endswith("Conv2d")
    assert {len(size) for size in plans["2d"]["architecture"]["arch_kwargs"]["strides"]} == {2}
    assert "nnUNetv2_train 1 2d 0 -p volprepPlans" in (out / "README.md").read_text("utf-8")
    assert "case by case, which is not handed over" in told(done)
    for to, said in {"connectomics": "patches are 2D", "skoots": "the patch is 1 x 8 x 16"}.items():
        with pytest.raises(DataCheckError, match=said):
            pipeline.export(tmp_path / "out", to, tmp_path / "y")
    # biom3d is given normalised arrays, each by its own rule.
    arrays = pipeline.export(tmp_path / "out", "biom3d", tmp_path / "x")
    assert "case by case" not in told(arrays)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_one_voxel_wide_are_written_as_they_are(tmp_path: Path, channels: int) -> None:
    voxels = np.arange(channels * 30, dtype=np.uint8).reshape(channels, 6, 5, 1)
    case = replace(case_of(voxels[0]), image=Memory(voxels[0]))
    case.image.array, case.image.shape = voxels, voxels.shape
    whole, flat = replace(case, name="whole"), replace(case, box=Box((2, 0, 0), (3, 5, 1)))
    for file in (tiff_image("a", whole), tiff_bytes("b", whole, channels, None)):
        file.write(tmp_path / file.path)
    tiff_image("c", flat, squeeze=True).write(tmp_path / "c")
    with_channels = voxels[0] if channels == 1 else voxels.transpose(1, 0, 2, 3)
    assert (tifffile.imread(tmp_path / "a") == with_channels).all()
    last = voxels[0] if channels == 1 else voxels.transpose(1, 2, 3, 0)
    assert (tifffile.imread(tmp_path / "b") == last).all()
    section = voxels[0, 2] if channels == 1 else voxels[:, 2]
    assert (tifffile.imread(tmp_path / "c") == section).all()


def test_a_tiff_of_more_than_four_gigabytes_is_a_bigtiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)
    for classic, big in ((240, False), (239, True)):
        monkeypatch.setattr("volprep.exports.files._CLASSIC", classic)
        tiff_image("a", case_of(voxels)).write(tmp_path / "a")
        with tifffile.TiffFile(tmp_path / "a") as file:
            assert file.is_bigtiff == big
        assert (tifffile.imread(tmp_path / "a") == voxels).all()


def test_what_is_longer_than_nifti_counts_is_refused(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volprep.exports.nifti._LONGEST", 69)
    for to in ("monai", "torchio"):
        with pytest.raises(DataCheckError, match="NIfTI holds 69 voxels along an axis at most"):
            pipeline.export(grey / "out", to, tmp_path / to)
    assert not list(tmp_path.iterdir())


def two_channels(folder: Path) -> Path:
    write_cases(folder)
    for path in (folder / "data").glob("[abc]*.tif"):
        image = tifffile.imread(path)
        if image.dtype == np.uint16:
            both = np.stack([image, image // 2 + 7], axis=1)
            tifffile.imwrite(path, both, metadata={"axes": "ZCYX"})
    text = MASKED.format(kind="instances").replace('"2, 0.5, 0.5 µm"', '"2000, 500, 500 nm"')
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    pipeline.prepare(load_config(folder / "c.yaml"))
    return folder


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_channels(tmp_path_factory.mktemp("channels"))


REGIONS = """
data:
  label_kind: classes
  spacing: "2, 0.5, 0.5 µm"
  cases:
    - {image: data/a.tif, label: data/a.labels.tif}
    - {image: data/b.tif, label: data/b.labels.tif, mask: data/b.valid.tif}
  regions:
    - {case: a, start: [2, 3, 4], stop: [14, 40, 36]}
    - {case: b, start: [0, 10, 0], stop: [14, 50, 40]}
plan: {patch_size: [8, 16, 16], batch_size: 3}
patching: {patches_per_case: 4}
augment: [flip]
output: {dir: out}
"""


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("regions"), REGIONS, "classes")


@pytest.mark.parametrize("which", ["classes", "regions", "blocks", "channels", "grey", "colours"])
def test_the_whole_way_to_nnunet_and_back_by_init(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, out = request.getfixturevalue(which), tmp_path / "Dataset001_a"
    made = exported(folder, "nnunet", out)
    done = volprep("init", out, "-o", tmp_path / "again.yaml")
    assert done.returncode == 0, done.stderr
    config = load_config(tmp_path / "again.yaml")
    cases = pipeline.list_cases(config)
    prepared = {case.name: case for case in pipeline.open_prepared(folder / "out")}
    assert [case.name for case in cases] == sorted(case["name"] for case in made.cases)
    (fold,) = cases.folds
    for side, names in (("train", fold.train), ("val", fold.val)):
        assert set(names) == {name for name, its in side_of(made).items() if its == side}
    named = content(out / "dataset.json")["labels"]
    named.pop("ignore", None)
    assert dict(cases.class_names) == {value: name for name, value in named.items()}
    values = content(folder / "out/manifest.json")["training"]["class_values"]
    for was in made.cases:
        case, first = cases.named(was["name"]), prepared[was["case"]]
        box = Box(*map(tuple, was["box"]))
        assert (case.open_image().read() == first.image.read(box)).all()
        if which not in ("grey", "colours"):  # pictures carry none there, which is said
            assert case.open_image().spacing == first.image.spacing
        valid = np.ones(box.shape, bool) if first.mask is None else first.mask.read(box)[0] != 0
        mask = case.open_mask()
        assert ((mask is None and valid.all()) or (mask.read()[0] != 0) == valid).all()
        label = first.label.read(box)[0]
        wanted = label > 0 if values is None else np.searchsorted(values, label)
        assert (case.open_label().read()[0] == wanted)[valid].all()


def test_a_split_that_came_from_nnunet_is_the_one_that_is_prepared(
    classes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "Dataset001_a"
    made = exported(classes, "nnunet", out)
    assert volprep("init", out, "-o", tmp_path / "again.yaml").returncode == 0
    assert "fold: 0  # the fold that the data brings" in (tmp_path / "again.yaml").read_text()
    pipeline.prepare(load_config(tmp_path / "again.yaml"))
    splits = content(load_config(tmp_path / "again.yaml").output.dir / "splits.json")
    again = {part["case"]: side for side in ("train", "val") for part in splits[side]}
    assert again == side_of(made)
