"""Whatever is done to any file of a set is found, named, and its meaning told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from volprep.errors import StoreError
from volprep.files import describe, files_below, write_text
from volprep.ledger import LEDGER, MANIFEST, Ledger, Unit, key_of
from volprep.store import INDEX_COLUMNS, ArraySpec, Fault, PatchReader, PatchWriter, verify_set

SPECS = [
    ArraySpec("image", (2, 2, 3, 4), np.dtype(np.uint16)),
    ArraySpec("label", (2, 3, 4), np.dtype(np.uint32), "zstd"),
    ArraySpec("mask", (2, 3, 4), np.dtype(bool)),
    ArraySpec("offset", (3, 2, 3, 4), np.dtype(np.float32)),
    ArraySpec("skeleton_mask", (2, 3, 4), np.dtype(np.uint8), "none"),
]
BESIDE = ("config.resolved.yaml", "plan.yaml", "train.yaml", "splits.json", "fingerprint.json")


def make_set(folder: Path, *, seed: int = 0, count: int = 11) -> Path:
    """A set of two splits, as `prepare` lays it out, through the ledger."""
    rng = np.random.default_rng(seed)
    units: list[Unit] = []
    with Ledger(folder.with_name(folder.name + ".partial")) as ledger:

        def note(unit: Unit, made: tuple[Any, Any]) -> None:
            ledger.done(unit, *made)
            units.append(unit)

        root = ledger.folder
        for case in ("a", "b"):
            path = root / "skeletons" / f"{case}.npz"
            write_text(path, f"points of {case} {seed}")
            note(Unit("skeletons", case, key_of(case, seed)), ([describe(path, root)], {}))
            path = root / "volumes" / f"{case}.ome.zarr" / "0/c/0/0/0/0"
            write_text(path, f"voxels of {case} {seed}")
            note(Unit("volumes", case, key_of(case, seed)), ([describe(path, root)], {}))
        for split, n in (("train", count), ("val", 3)):
            writer = PatchWriter(
                root / f"patches/{split}.zarr", SPECS, n, {"split": split}, root=root, per_shard=4
            )
            rows: list[list[int]] = []
            keys = [key_of(split, shard, seed) for shard in range(writer.n_shards)]
            for shard in range(writer.n_shards):
                each = [
                    (writer.encode({s.name: draw(rng, s) for s in SPECS}), [i] * len(INDEX_COLUMNS))
                    for i in writer.patches_of(shard)
                ]
                made = writer.write(shard, keys[shard], each)
                rows += made[1]["rows"]
                note(Unit(f"patches/{split}", shard, keys[shard]), made)
            note(Unit(f"patches/{split}", "index", key_of(keys)), writer.finish(rows, keys))
        for name in BESIDE:
            write_text(root / name, f"{name} of {seed}\n")
            note(Unit("describe", name, key_of(name, seed)), ([describe(root / name, root)], {}))
        ledger.publish(folder, units, {"format": "test", "seed": seed})
    return folder


def draw(rng: np.random.Generator, spec: ArraySpec) -> Any:
    return rng.integers(0, 2, spec.patch_shape).astype(spec.dtype)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sets")
    return make_set(folder / "a"), make_set(folder / "b", seed=1)


@pytest.fixture
def whole(sets: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(sets[0], tmp_path / "set"))


def names(faults: Iterator[Fault], folder: Path) -> dict[str, str]:
    return {fault.path.relative_to(folder).as_posix(): fault.found for fault in faults}


def is_bulk(path: Path) -> bool:
    """Whether it is a chunk of a patch array or of a volume."""
    return "/c/" in str(path) and not ("/index/" in str(path) or "/units/" in str(path))


def test_a_whole_set_has_no_fault(whole: Path) -> None:
    assert list(verify_set(whole)) == []
    assert list(verify_set(whole, quick=True)) == []


def flips(data: bytes, most: int) -> Iterator[bytes]:
    """The data with one bit flipped: of every byte, or of as many as `most`."""
    places = range(len(data))
    if len(data) > most:
        places = np.random.default_rng(len(data)).choice(len(data), most, replace=False)  # type: ignore[assignment]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(place) % 8
        yield bytes(flipped)


def check_flips(folder: Path, most: int) -> None:
    for path in list(files_below(folder)):
        data, name = path.read_bytes(), path.relative_to(folder).as_posix()
        for number, flipped in enumerate(flips(data, most)):
            path.write_bytes(flipped)
            assert name in names(verify_set(folder), folder), (name, number)
            if not is_bulk(path):
                assert name in names(verify_set(folder, quick=True), folder), (name, number)
        path.write_bytes(data)
    assert list(verify_set(folder)) == []


def test_flipped_bits_of_every_file_are_found(whole: Path) -> None:
    check_flips(whole, most=12)


@pytest.mark.slow
def test_a_flipped_bit_of_every_byte_is_found(whole: Path) -> None:
    check_flips(whole, most=60)


def test_one_fault_names_one_file(whole: Path) -> None:
    """But for the ledger, by which all others are known, and the metadata beside it."""
    for path in list(files_below(whole)):
        data, name = path.read_bytes(), path.relative_to(whole).as_posix()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 4]))
        assert names(verify_set(whole), whole) == {name: "changed"}
        path.write_bytes(data)


Harm = Callable[[Path, bytes], object]
HARMS: dict[str, Harm] = {
    "missing": lambda path, data: path.unlink(),
    "empty": lambda path, data: path.write_bytes(b""),
    "cut": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "one byte cut": lambda path, data: path.write_bytes(data[:-1]),
    "one byte more": lambda path, data: path.write_bytes(data + b"\0"),
    "zeros": lambda path, data: path.write_bytes(bytes(len(data))),
    "a folder": lambda path, data: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path, data: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("harm", list(HARMS))
@pytest.mark.parametrize("quick", [False, True])
def test_every_harm_to_every_file_is_found(whole: Path, harm: str, quick: bool) -> None:
    for path in list(files_below(whole)):
        data, name = path.read_bytes(), path.relative_to(whole).as_posix()
        HARMS[harm](path, data)
        if not (quick and harm == "zeros" and "volumes/" in name):
            assert name in names(verify_set(whole, quick=quick), whole)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(data)
    assert list(verify_set(whole)) == []


@pytest.mark.parametrize("quick", [False, True])
def test_files_of_another_set_are_found(whole: Path, sets: tuple[Path, Path], quick: bool) -> None:
    """Each whole in itself, many of the same size."""
    for path in list(files_below(whole)):
        data, name = path.read_bytes(), path.relative_to(whole).as_posix()
        strange = (sets[1] / name).read_bytes()
        if strange == data or (quick and "volumes/" in name):
            continue
        path.write_bytes(strange)
        assert name in names(verify_set(whole, quick=quick), whole)
        path.write_bytes(data)


def test_swapped_files_are_found(whole: Path) -> None:
    files = list(files_below(whole))
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in files for b in files if a < b]
    same = [(a, b) for a, b in pairs if a.stat().st_size == b.stat().st_size]
    chosen = same + [pairs[i] for i in rng.choice(len(pairs), 60, replace=False)]
    assert len(same) > 5
    for first, second in chosen:
        one, two = first.read_bytes(), second.read_bytes()
        if one == two:
            continue
        first.write_bytes(two)
        second.write_bytes(one)
        found = names(verify_set(whole), whole)
        named = {f.relative_to(whole).as_posix() for f in (first, second)}
        # Without the ledger, the other one cannot be compared with anything.
        assert (named & {LEDGER} or named) <= found.keys()
        first.write_bytes(one)
        second.write_bytes(two)


def test_added_files_are_found(whole: Path) -> None:
    folders = {path.parent for path in files_below(whole)}
    for folder in sorted(folders):
        extra = folder / "9"
        extra.write_bytes(b"x")
        name = extra.relative_to(whole).as_posix()
        assert names(verify_set(whole), whole) == {name: "not of the set"}
        assert names(verify_set(whole, quick=True), whole) == {name: "not of the set"}
        extra.unlink()


ADDITIONS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a link to a file": lambda path: path.symlink_to(MANIFEST),
    "a link to a folder": lambda path: path.symlink_to("."),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
    "what looks unfinished": Path.touch,
}


@pytest.mark.parametrize("kind", list(ADDITIONS))
def test_additions_of_any_kind_are_found(whole: Path, kind: str) -> None:
    for folder in (whole, whole / "patches/train.zarr/image/c"):
        extra = folder / (".plan.yaml.0123abcd.volprep" if "unfinished" in kind else "9")
        ADDITIONS[kind](extra)
        name = extra.relative_to(whole).as_posix()
        for quick in (False, True):
            assert names(verify_set(whole, quick=quick), whole) == {name: "not of the set"}
        extra.rmdir() if extra.is_dir() and not extra.is_symlink() else extra.unlink()


@pytest.mark.parametrize(
    "name",
    [MANIFEST, LEDGER, "plan.yaml", "patches/train.zarr/zarr.json",
     "patches/train.zarr/image/c/0/0/0/0/0"],
)  # fmt: skip
def test_a_pipe_in_the_place_of_a_file_is_found_and_not_waited_for(whole: Path, name: str) -> None:
    (whole / name).unlink()
    os.mkfifo(whole / name)
    assert name in names(verify_set(whole), whole)


def test_a_link_to_the_same_content_is_no_file_of_the_set(whole: Path, tmp_path: Path) -> None:
    for number, path in enumerate(list(files_below(whole))):
        path.rename(tmp_path / f"away{number}")
        path.symlink_to(tmp_path / f"away{number}")
        name = path.relative_to(whole).as_posix()
        assert names(verify_set(whole, quick=True), whole) == {name: "changed"}
        path.unlink()
        (tmp_path / f"away{number}").rename(path)


def moved(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


@pytest.mark.parametrize("how", [moved, lambda lines: [*lines, lines[2]], lambda lines: lines * 2])
def test_moved_and_doubled_lines_are_the_ledgers_fault(whole: Path, how: Any) -> None:
    """Which still says the truth of all files, as it does beside the manifest of another set."""
    path = whole / LEDGER
    path.write_bytes(b"".join(how(path.read_bytes().splitlines(keepends=True))))
    assert names(verify_set(whole), whole).keys() == {LEDGER}


def test_the_meaning_says_which_patches(whole: Path) -> None:
    path = whole / "patches/train.zarr/label/c/1/0/0/0"
    reader = PatchReader(whole / "patches/train.zarr")
    assert len(reader) == 11
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    (fault,) = verify_set(whole)
    assert fault.unit is not None
    assert (fault.unit.stage, fault.unit.index) == ("patches/train", 1)
    assert "patch 4 of train (label)" in str(fault)
    data[50] ^= 1
    data[9] ^= 1
    path.write_bytes(data)
    assert "patches 4 to 7 of train (label)" in str(next(verify_set(whole)))


def test_no_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no patch set"):
        list(verify_set(tmp_path))
