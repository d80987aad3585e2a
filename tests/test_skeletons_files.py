"""Skeletons on disk come back as they were; what is damaged or dangerous is refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from volprep.errors import SourceError
from volprep.skeletons import (
    Skeletons,
    find_skeleton_file,
    read_skeletons,
    skeletonize,
    write_skeletons,
    write_swc,
)


@pytest.fixture
def made() -> Skeletons:
    labels = np.zeros((6, 9, 30), np.uint64)
    labels[1:5, 1:4, 1:29], labels[1:5, 5:8, 1:12] = 7, 2**64 - 1
    return skeletonize(labels, spacing=(0.3, 0.1, 0.1))


def test_npz_keeps_everything(made: Skeletons, tmp_path: Path) -> None:
    made.to_file(tmp_path / "a.skeletons.npz")
    assert Skeletons.from_file(tmp_path / "a.skeletons.npz") == made
    assert [path.name for path in tmp_path.iterdir()] == ["a.skeletons.npz"]


def test_npz_without_radii_or_instances(tmp_path: Path) -> None:
    for points in ({}, {3: [[1, 2, 3]]}):
        skeletons = Skeletons.from_points(points)
        assert read_skeletons(write_skeletons(skeletons, tmp_path / "a.npz")) == skeletons


def test_npz_holds_the_documented_arrays(made: Skeletons, tmp_path: Path) -> None:
    with np.load(made_file(made, tmp_path), allow_pickle=False) as file:
        assert sorted(file.files) == ["edges", "ids", "offsets", "points", "radii"]
        assert file["ids"].dtype == np.uint64
        assert file["points"].dtype == np.float32


def made_file(made: Skeletons, folder: Path) -> Path:
    return write_skeletons(made, folder / "a.skeletons.npz")


def test_a_write_that_fails_leaves_nothing(
    made: Skeletons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        made_file(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [10, 200, -30])
def test_a_cut_npz_is_refused(made: Skeletons, tmp_path: Path, cut: int) -> None:
    path = made_file(made, tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match=r"a\.skeletons\.npz"):
        read_skeletons(path)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(
    made: Skeletons, tmp_path: Path
) -> None:
    path = made_file(made, tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = parts["points.npy"]
    rows = len(made.points)
    parts["points.npy"] = header.replace(
        f"({rows}, 3), }}".encode() + b" " * 12, f"({10**12 + rows}, 3), }}".encode()[:99]
    )
    assert parts["points.npy"] != header
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(SourceError, match="points"):
        read_skeletons(path)


def test_objects_in_an_npz_are_refused(made: Skeletons, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(
        path,
        ids=np.array([print], object),
        offsets=made.offsets,
        points=made.points,
        edges=made.edges,
    )
    with pytest.raises(SourceError, match="ids"):
        read_skeletons(path)


def test_arrays_that_do_not_fit_together_are_refused(made: Skeletons, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, ids=made.ids, offsets=made.offsets, points=made.points[1:], edges=made.edges)
    with pytest.raises(SourceError, match="offsets run from 0"):
        read_skeletons(path)
    np.savez(path, ids=made.ids, offsets=made.offsets, points=made.points)
    with pytest.raises(SourceError, match="has no edges"):
        read_skeletons(path)


def test_trch_is_what_skoots_reads(made: Skeletons, tmp_path: Path) -> None:
    path = write_skeletons(made, tmp_path / "a.skeletons.trch")
    content = torch.load(path, weights_only=True)
    assert sorted(content) == [7, 2**64 - 1]
    assert content[7].dtype == torch.float32
    assert content[7].tolist() == made[7][:, [1, 2, 0]].tolist()
    back = read_skeletons(path)
    assert back.ids.tolist() == made.ids.tolist()
    assert back.points.tolist() == made.points.tolist()


@pytest.mark.parametrize("ending", ["npz", "trch"])
def test_the_same_skeletons_are_the_same_bytes(
    made: Skeletons, tmp_path: Path, ending: str
) -> None:
    written = [write_skeletons(made, tmp_path / f"{name}.{ending}") for name in "ab"]
    assert written[0].read_bytes() == written[1].read_bytes()
    written[0].unlink()
    assert write_skeletons(made, written[0]).read_bytes() == written[1].read_bytes()


def test_integer_points_and_the_background_key_of_skoots_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.skeletons.trch"
    torch.save({-1: torch.tensor([]), 3: torch.tensor([[1, 2, 3]])}, path)
    assert read_skeletons(path)[3].tolist() == [[3, 1, 2]]


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


def test_a_trch_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({3: Harmful()}, "a.trch")
    Path("b.trch").write_bytes(pickle.dumps(Harmful()))
    for name in ("a.trch", "b.trch"):
        with pytest.raises(SourceError, match="cannot be loaded as tensors"):
            read_skeletons(name)
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2, 3)], "not a dict of id to tensor"),
        ({"a": torch.zeros(2, 3)}, "not a dict of id to tensor"),
        ({5: torch.zeros(3, 4)}, "instance 5: points are"),
        ({5: torch.zeros(0, 3)}, "instance 5 has no point"),
    ],
)
def test_a_trch_of_something_else_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "a.trch")
    with pytest.raises(SourceError, match=message):
        read_skeletons(tmp_path / "a.trch")


def test_a_tif_of_ids_and_a_tif_of_marks(tmp_path: Path) -> None:
    labels = np.zeros((3, 5, 6), np.uint16)
    labels[:, 1:4, :3], labels[:, 1:4, 4:] = 300, 20
    marks = np.zeros_like(labels)
    marks[1, 2, 1], marks[1, 2, 5], marks[2, 2, 5] = 300, 20, 20
    tifffile.imwrite(tmp_path / "a.skeletons.tif", marks, photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "b.skeletons.tif", (marks > 0).astype(np.uint8) * 255, photometric="minisblack"
    )
    for skeletons in (
        read_skeletons(tmp_path / "a.skeletons.tif"),
        read_skeletons(tmp_path / "b.skeletons.tif", labels=labels),
    ):
        assert {i: p.tolist() for i, p in skeletons.items()} == {
            20: [[1, 2, 5], [2, 2, 5]],
            300: [[1, 2, 1]],
        }


def test_marks_outside_every_instance_and_other_shapes_are_refused(tmp_path: Path) -> None:
    labels = np.zeros((2, 3, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", np.ones_like(labels), photometric="minisblack")
    with pytest.raises(SourceError, match=r"voxel \(0, 0, 0\) lies in no instance"):
        read_skeletons(tmp_path / "a.tif", labels=labels)
    with pytest.raises(SourceError, match="the labels are"):
        read_skeletons(tmp_path / "a.tif", labels=labels[:1])
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((2, 3, 4), np.float32), photometric="minisblack")
    with pytest.raises(SourceError, match="float32"):
        read_skeletons(tmp_path / "b.tif")
    (tmp_path / "c.tif").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="not a TIFF"):
        read_skeletons(tmp_path / "c.tif")


def test_a_missing_file_and_an_unknown_ending(made: Skeletons, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        read_skeletons(tmp_path / "a.npz")
    (tmp_path / "a.obj").touch()
    with pytest.raises(SourceError, match=r"\.npz, \.trch or \.tif"):
        read_skeletons(tmp_path / "a.obj")
    with pytest.raises(ValueError, match=r"\.npz or \.trch"):
        made.to_file(tmp_path / "a.tif")


def test_swc_is_a_forest_in_micrometres(tmp_path: Path) -> None:
    # A square with a tail, and a point of its own.
    points = [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [0, 2, 0], [5, 5, 5]]
    edges = [[0, 1], [1, 2], [2, 3], [0, 3], [3, 4]]
    skeletons = Skeletons.from_points({8: points}, edges={8: edges})
    (path,) = write_swc(skeletons, tmp_path / "swc", spacing=(2.0, 1.0, 0.5))
    assert path.name == "8.swc"
    rows = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    parents = {int(row[0]): int(row[6]) for row in rows}
    assert sorted(parents) == [1, 2, 3, 4, 5, 6]
    assert all(parent == -1 or parent < number for number, parent in parents.items())
    assert list(parents.values()).count(-1) == 2
    places = {tuple(map(float, row[2:5])) for row in rows}
    assert (2.5, 5.0, 10.0) in places
    linked = {frozenset((n, p)) for n, p in parents.items() if p != -1}
    assert len(linked) == 4


def test_skeletons_are_found_beside_their_labels(tmp_path: Path) -> None:
    labels = tmp_path / "x.labels.tif"
    assert find_skeleton_file(labels) is None
    for name in (
        "x.skeletons.tif",
        "x.labels.tif.skeletons.trch",
        "x.skeletons.trch",
        "x.skeletons.npz",
    ):
        (tmp_path / name).touch()
        found = find_skeleton_file(labels)
        assert found is not None
        assert found.name == name
