"""The patch set on disk: any Zarr reader opens it, damage is found, shards resume."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from volprep.errors import StoreError
from volprep.files import describe, files_below
from volprep.ledger import Ledger, Unit
from volprep.store import (
    FORMAT,
    INDEX_COLUMNS,
    PATCHES_PER_SHARD,
    ArraySpec,
    PatchReader,
    PatchStore,
    PatchWriter,
)
from volprep.store.reader import OpenShards

N = PATCHES_PER_SHARD + 7


def patches(seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60000, (N, 2, 3, 5, 4)).astype(np.uint16)
    labels = rng.integers(0, 3, (N, 3, 5, 4)).astype(np.uint64) * np.uint64(2**63)
    return images, labels


KEYS = [hashlib.sha256(bytes([shard])).hexdigest() for shard in range(2)]


def write_split(path: Path, compression: str = "lz4", keys: Sequence[str] = KEYS) -> PatchWriter:
    images, labels = patches()
    specs = [
        ArraySpec("image", images.shape[1:], images.dtype, compression),
        ArraySpec("label", labels.shape[1:], labels.dtype, compression),
    ]
    writer = PatchWriter(path, specs, N, {"note": "µ"})
    rows: list[list[int]] = []
    for shard in range(writer.n_shards):
        each = (
            (writer.encode({"image": images[i], "label": labels[i]}), [i] * len(INDEX_COLUMNS))
            for i in writer.patches_of(shard)
        )
        rows += writer.write(shard, keys[shard], each)[1]["rows"]
    writer.finish(rows, keys)
    return writer


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_patches_read_back_alike_here_and_by_zarr(tmp_path: Path, compression: str) -> None:
    write_split(tmp_path / "a.zarr", compression)
    images, labels = patches()
    reader = PatchReader(tmp_path / "a.zarr")
    group: Any = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    assert len(reader) == N
    assert reader.names == ("image", "label")
    for i in (0, 1, PATCHES_PER_SHARD - 1, PATCHES_PER_SHARD, N - 1):
        np.testing.assert_array_equal(reader.read("image", i), images[i])
        np.testing.assert_array_equal(reader.read("label", i), labels[i])
    np.testing.assert_array_equal(group["image"][:], images)
    np.testing.assert_array_equal(group["label"][:], labels)
    np.testing.assert_array_equal(group["index"][:], reader.index)
    assert reader.index[:, 0].tolist() == list(range(N))


def test_reader_crosses_processes_by_pickle(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr")
    reader = PatchReader(tmp_path / "a.zarr")
    reader.read("image", 0)
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.read("image", 3), reader.read("image", 3))


def test_out_is_filled_and_another_shape_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr")
    reader, images = PatchReader(tmp_path / "a.zarr"), patches()[0]
    out = np.empty(images.shape[1:], images.dtype)
    assert reader.read("image", 5, out) is out
    np.testing.assert_array_equal(out, images[5])
    for wrong in (out.astype(np.int32), out[:, :-1], np.asfortranarray(out)):
        with pytest.raises(ValueError, match="out must be"):
            reader.read("image", 5, wrong)


def read_all(path: Path) -> None:
    reader = PatchReader(path)
    for name in reader.names:
        for number in range(len(reader)):
            reader.read(name, number)


def test_every_flipped_byte_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    """All of a shard but the bytes that nothing is stored in: there are none."""
    write_split(tmp_path / "a.zarr")
    for name in ("label/c/1/0/0/0", "index/c/0/0", "units/c/0/0"):
        file = tmp_path / "a.zarr" / name
        whole = file.read_bytes()
        for place in range(len(whole)):
            broken = bytearray(whole)
            broken[place] ^= 1 << place % 8
            file.write_bytes(broken)
            with pytest.raises(StoreError, match="repair"):
                read_all(tmp_path / "a.zarr")
        for size in (0, 3, 60, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:size])
            with pytest.raises(StoreError, match="repair"):
                read_all(tmp_path / "a.zarr")
        file.write_bytes(whole)
    read_all(tmp_path / "a.zarr")


def test_renamed_keys_of_metadata_are_damage_and_no_traceback(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr")
    for name in ("zarr.json", "image/zarr.json", "index/zarr.json", "units/zarr.json"):
        file = tmp_path / "a.zarr" / name
        text = file.read_text()
        for key in re.findall(r'"([a-z_0-9]+)"', text):
            file.write_text(text.replace(f'"{key}"', f'"X{key[1:]}"', 1))
            with contextlib.suppress(StoreError):
                read_all(tmp_path / "a.zarr")
        file.write_text(text)


def test_a_shard_in_anothers_place_is_noticed(tmp_path: Path) -> None:
    """Shards of the same size swapped, of another array or set: each whole in itself."""
    other = [key[::-1] for key in KEYS]
    write_split(tmp_path / "a.zarr")
    write_split(tmp_path / "b.zarr", keys=other)
    shards = {
        (name, array, shard): (tmp_path / name / array / f"c/{shard}").rglob("*")
        for name in ("a.zarr", "b.zarr")
        for array in ("image", "label")
        for shard in (0, 1)
    }
    files = {key: next(p for p in found if p.is_file()) for key, found in shards.items()}
    contents = {key: file.read_bytes() for key, file in files.items()}
    for key in [key for key in files if key[0] == "a.zarr"]:
        for strange in contents.keys() - {key}:
            files[key].write_bytes(contents[strange])
            with pytest.raises(StoreError, match="another"):
                read_all(tmp_path / "a.zarr")
        files[key].write_bytes(contents[key])


def test_a_set_made_anew_under_an_open_reader_is_an_error(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr")
    reader = PatchReader(tmp_path / "a.zarr")
    first = reader.read("image", 0)
    write_split(tmp_path / "a.zarr", keys=[key[::-1] for key in KEYS])
    np.testing.assert_array_equal(reader.read("image", 1), patches()[0][1])  # still held open
    with pytest.raises(StoreError, match="another set"):
        reader.read("image", N - 1)
    np.testing.assert_array_equal(PatchReader(tmp_path / "a.zarr").read("image", 0), first)


def many_shards(path: Path, count: int) -> PatchReader:
    spec = ArraySpec("image", (1, 1, 2, 2), np.dtype(np.uint8), "none")
    writer = PatchWriter(path, [spec], count, per_shard=1)
    for shard in range(count):
        patch = np.full(spec.patch_shape, shard % 251, np.uint8)
        writer.write(shard, KEYS[0], [(writer.encode({"image": patch}), [0] * len(INDEX_COLUMNS))])
    writer.finish([[0] * len(INDEX_COLUMNS)] * count, [KEYS[0]] * count)
    return PatchReader(path)


def test_open_files_are_bounded(tmp_path: Path) -> None:
    reader = many_shards(tmp_path / "a.zarr", 60)
    kept = OpenShards(limit=7)
    with mock.patch("volprep.store.reader.OPEN", kept):
        before = len(os.listdir("/proc/self/fd"))
        for number in [*range(60), *range(60)]:
            assert int(reader.read("image", number)[0, 0, 0, 0]) == number
            assert len(os.listdir("/proc/self/fd")) <= before + 8
        assert len(kept) == 7
        with ThreadPoolExecutor(4) as pool:
            numbers = np.random.default_rng(0).integers(0, 60, 2000).tolist()
            read = pool.map(lambda n: int(reader.read("image", n)[0, 0, 0, 0]), numbers)
            assert list(read) == numbers
        kept.forget()
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
def test_fifty_thousand_patches_are_read_with_1024_open_files(tmp_path: Path) -> None:
    count = 50_000
    spec = ArraySpec("image", (1, 1, 2, 2), np.dtype(np.uint16), "none")
    writer = PatchWriter(tmp_path / "a.zarr", [spec], count)
    for shard in range(writer.n_shards):
        each = (
            (writer.encode({"image": np.full(spec.patch_shape, i, np.uint16)}), [0] * 11)
            for i in writer.patches_of(shard)
        )
        writer.write(shard, KEYS[0], each)
    writer.finish([[0] * len(INDEX_COLUMNS)] * count, [KEYS[0]] * writer.n_shards)
    code = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from volprep.store import PatchReader\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))\n"
        "readers = [PatchReader(Path(sys.argv[1])) for _ in range(3)]\n"  # 2346 shards
        "for n in np.random.default_rng(0).permutation(50_000).tolist():\n"
        "    assert readers[n % 3].read('image', n)[0, 0, 0, 0] == n % 2**16\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.zarr")], check=True)


def test_a_limit_of_the_machine_is_not_called_damage(tmp_path: Path) -> None:
    """Where the rest of the program holds all files, fewer are held here before it is an error."""
    many_shards(tmp_path / "a.zarr", 60)
    code = (
        "import os, resource, sys\n"
        "from pathlib import Path\n"
        "from volprep.store import PatchReader\n"
        "reader = PatchReader(Path(sys.argv[1]))\n"
        "reader.read('image', 0)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "for n in range(60): reader.read('image', n)\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "for n in range(60): reader.read('image', n)\n"
        "from volprep.store import reader as room\n"
        "room.OPEN.forget()\n"
        "try:\n"
        "    while True: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "reader.read('image', 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.zarr")], capture_output=True, text=True
    )
    assert "StoreError" in done.stderr.splitlines()[-1]
    assert "ulimit -n" in done.stderr.splitlines()[-1]
    assert "damaged" not in done.stderr
    assert "repair" not in done.stderr


def test_number_out_of_range_is_an_index_error(tmp_path: Path) -> None:
    write_split(tmp_path / "a.zarr")
    reader = PatchReader(tmp_path / "a.zarr")
    for number in (-1, N):
        with pytest.raises(IndexError):
            reader.read("image", number)


def test_split_without_patches_is_a_split(tmp_path: Path) -> None:
    spec = ArraySpec("image", (1, 2, 2, 2), np.dtype(np.uint8))
    writer = PatchWriter(tmp_path / "v.zarr", [spec], 0)
    writer.finish([], [])
    assert len(PatchReader(tmp_path / "v.zarr")) == 0


def test_broken_write_leaves_no_shard(tmp_path: Path) -> None:
    spec = ArraySpec("image", (1, 2, 2, 2), np.dtype(np.uint8))
    writer = PatchWriter(tmp_path / "a.zarr", [spec], 3)
    with pytest.raises(ValueError, match="announced"):
        writer.write(
            0, KEYS[0], [(writer.encode({"image": np.zeros((1, 2, 2, 3), np.uint8)}), [0] * 11)]
        )
    assert not [p for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()]


def test_what_is_said_of_written_files_is_true(tmp_path: Path) -> None:
    images, _ = patches()
    spec = ArraySpec("image", images.shape[1:], images.dtype)
    writer = PatchWriter(tmp_path / "a/a.zarr", [spec], N, root=tmp_path / "a")
    files = []
    for shard in range(2):
        rows = [
            (writer.encode({"image": images[i]}), [i] * len(INDEX_COLUMNS))
            for i in writer.patches_of(shard)
        ]
        written, facts = writer.write(shard, KEYS[shard], rows)
        files += written
        assert len(facts["crc32c"]["image"]) == len(rows) == len(facts["rows"])
    files += writer.finish([[i] * len(INDEX_COLUMNS) for i in range(N)], KEYS)[0]
    assert files
    assert set(files) == {describe(path, writer.root) for path in files_below(writer.root)}


def test_what_is_replaced_is_not_written_into(tmp_path: Path) -> None:
    """Another set may share the files by hard links."""
    write_split(tmp_path / "a.zarr")
    files = list(files_below(tmp_path / "a.zarr"))
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in files}
    for path in files:
        os.link(path, path.with_name(path.name + ".link"))
    write_split(tmp_path / "a.zarr", keys=[key[::-1] for key in KEYS])
    for path, (inode, data) in before.items():
        link = path.with_name(path.name + ".link")
        assert (link.stat().st_ino, link.read_bytes()) == (inode, data)


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    hashes = []
    for name in ("a", "b"):
        write_split(tmp_path / name / "a.zarr")
        folder = tmp_path / name
        hashes.append([describe(path, folder) for path in files_below(folder)])
    assert hashes[0] == hashes[1]


def test_set_appears_only_when_published(tmp_path: Path) -> None:
    final, partial = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(StoreError, match="no such folder"):
        PatchStore(final)
    with Ledger(partial) as ledger:
        write_split(partial / "patches/train.zarr")
        with pytest.raises(StoreError, match="incomplete"):
            PatchStore(final)
        files = [describe(path, partial) for path in files_below(partial / "patches")]
        unit = Unit("patches/train", 0, KEYS[0])
        ledger.done(unit, files)
        metadata = {"train": [list(file) for file in files if "/c/" not in file.path]}
        ledger.publish(final, [unit], {"format": FORMAT, "seed": 1, "metadata": metadata})
    assert PatchStore(final).manifest["seed"] == 1
    assert len(PatchStore(final).split("train")) == N
    with pytest.raises(StoreError, match="no split"):
        PatchStore(final).split("test")
