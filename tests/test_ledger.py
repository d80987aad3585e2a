"""A ledger says what is done, from what, and whether it is whole, whatever ended the run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.errors import StoreError
from volprep.files import NewFile, describe, sweep, temporary, temporary_of, write_text
from volprep.ledger import (
    LEDGER,
    MANIFEST,
    Ledger,
    Made,
    Record,
    Records,
    Unit,
    key_of,
    load_manifest,
    run,
    size_differs,
    verify,
)


def units(count: int, word: str = "a", stage: str = "s") -> list[Unit]:
    return [Unit(stage, number, key_of(word, number)) for number in range(count)]


def maker(folder: Path, word: str = "a", made: list[int | str] | None = None) -> Any:
    def make(unit: Unit) -> Made:
        if made is not None:
            made.append(unit.index)
        with NewFile(folder / unit.stage / f"{unit.index}.txt") as new:
            new.write(f"{word} {unit.index}\n".encode() * 50)
        return [new.described(folder)], {"word": word}

    return make


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text(), st.integers() | st.text(), st.dictionaries(st.text(), plain))
def test_record_is_one_line_that_reads_back(stage: str, index: Any, facts: dict[str, Any]) -> None:
    record = Record(Unit(stage, index, key_of(1)), (), facts)
    line = record.line().encode()
    assert line.count(b"\n") == 1
    assert Record.parse(line) == record
    assert json.loads(line)["unit"] == [stage, index]


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_any_flipped_bit_of_a_record_spoils_it_alone(place: int, bit: int) -> None:
    lines = [Record(u, (), {"n": 1.5}).line().encode() for u in units(3)]
    data = bytearray(lines[1])
    data[place % len(data)] ^= 1 << bit
    assert Record.parse(bytes(data)) is None
    spoiled = [Record.parse(line) for line in (lines[0] + bytes(data) + lines[2]).splitlines(True)]
    found = {record.unit.index for record in spoiled if record is not None}
    assert 0 in found
    assert 1 not in found


def test_done_units_are_not_made_again_and_others_are(tmp_path: Path) -> None:
    made: list[int | str] = []
    with Ledger(tmp_path) as ledger:
        run(ledger, maker(tmp_path, made=made), units(5), workers=2)
    assert sorted(made) == list(range(5))
    with Ledger(tmp_path) as ledger:
        run(ledger, maker(tmp_path, made=made), units(7), workers=1)
        assert ledger.facts(units(7)[3]) == {"word": "a"}
        with pytest.raises(KeyError):
            ledger.facts(units(7, "b")[3])
    assert sorted(made) == list(range(7))


def test_unit_of_another_key_is_forgotten_before_its_file_is_replaced(tmp_path: Path) -> None:
    def fails(unit: Unit) -> Made:
        maker(tmp_path, "new")(unit)
        raise RuntimeError("killed between the file and its record")

    with Ledger(tmp_path) as ledger:
        run(ledger, maker(tmp_path, "old"), units(2, "old"), workers=1)
        with pytest.raises(RuntimeError):
            run(ledger, fails, units(2, "new"), workers=1)
    with Ledger(tmp_path) as ledger:
        assert ledger.todo(units(2, "old")) == units(2, "old")


@pytest.mark.parametrize("spoil", ["delete", "truncate", "lengthen"])
def test_unit_whose_file_is_gone_or_of_another_size_is_to_do(tmp_path: Path, spoil: str) -> None:
    with Ledger(tmp_path) as ledger:
        run(ledger, maker(tmp_path), units(3), workers=1)
        path = tmp_path / "s" / "1.txt"
        data = path.read_bytes()
        path.unlink() if spoil == "delete" else path.write_bytes(
            data[:-1] if spoil == "truncate" else data + b"x"
        )
        assert [unit.index for unit in ledger.todo(units(3))] == [1]


@given(st.integers(0, 400))
def test_ledger_torn_anywhere_keeps_the_lines_before_it(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Ledger(folder) as ledger:
            for unit in units(3):
                ledger.done(unit)
        path = folder / LEDGER
        data = path.read_bytes()
        path.write_bytes(data[: min(cut, len(data))])
        whole = data[:cut].count(b"\n")
        with Ledger(folder) as ledger:
            assert [ledger.has(unit) for unit in units(3)] == [n < whole for n in range(3)]
            ledger.done(units(3)[2])
        with Ledger(folder) as ledger:
            assert ledger.has(units(3)[2])
            assert ledger.records.damaged == 0


def test_error_of_one_unit_keeps_those_that_were_made_with_it(tmp_path: Path) -> None:
    def make(unit: Unit, folder: Path) -> Made:
        if unit.index == 2:
            raise ValueError("two")
        time.sleep(0.05)
        return maker(folder)(unit)

    for workers in (1, 2):
        folder = tmp_path / str(workers)
        with Ledger(folder) as ledger:
            with pytest.raises(ValueError, match="two"):
                run(ledger, partial(make, folder=folder), units(50), workers=workers)
            assert ledger.has(units(50)[0])
            assert ledger.has(units(50)[1])
            assert len(ledger.records) < 50


def test_one_process_holds_a_folder_and_nothing_stays_behind(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x"), pytest.raises(StoreError, match="another process"):
        Ledger(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with Ledger(tmp_path / "x") as ledger:
        ledger.done(units(1)[0])
    assert [p.name for p in (tmp_path / "x").iterdir()] == [LEDGER]


def test_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from volprep.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    args = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreError, match="another process"):
            Ledger(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Ledger(tmp_path) as ledger:
        ledger.done(units(1)[0])


def test_temporary_files_are_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = [".bashrc", "volprep", ".x.volprep", ".a.0123456.volprep", "a.01234567.volprep"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / "deep").mkdir()
    temporary(tmp_path / "a").write_text("torn")
    temporary(tmp_path / "deep" / "b\n").write_text("torn")
    temporary(tmp_path / "folder").mkdir()
    with Ledger(tmp_path, own=False):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "deep", LEDGER])
    assert len(list((tmp_path / "deep").iterdir())) == 1
    sweep(tmp_path)
    assert not list((tmp_path / "deep").iterdir())
    assert temporary_of(temporary(Path("µ.tif")).name) == "µ.tif"
    assert temporary_of("µ.tif") is None


def test_file_of_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(TypeError), NewFile(tmp_path / "a") as new:
        new.write("no bytes")  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_replacing_a_file_leaves_its_other_link_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    os.link(tmp_path / "a", tmp_path / "b")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "b").read_text() == "old"


def published(folder: Path, count: int = 4, word: str = "a", workers: int = 2) -> Path:
    final = folder / "set"
    every = units(count, word)
    with Ledger(folder / "set.partial") as ledger:
        if final.exists():
            ledger.take_over(final)
        run(ledger, maker(ledger.folder, word), every, workers=workers)
        ledger.publish(final, every, {"format": "test", "what": word})
    return final


def test_no_file_takes_the_place_of_a_folder_a_pipe_or_a_device(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    before = sorted(os.listdir(tmp_path))
    for name, words in (("folder", "a folder"), ("pipe", "a pipe"), ("null", "a device")):
        with pytest.raises(StoreError, match=f"{name}: {words}.*; give "):
            write_text(tmp_path / name, "x")
    assert sorted(os.listdir(tmp_path)) == before


def test_an_error_of_writing_names_the_file_and_no_temporary_one(tmp_path):
    with pytest.raises(OSError, match="a/b") as caught:
        write_text(tmp_path / "a" / ("b" * 250), "x")
    assert caught.value.filename == str(tmp_path / "a" / ("b" * 250))


def test_published_folder_does_not_tell_how_it_was_made(tmp_path: Path) -> None:
    straight = tree(published(tmp_path / "a", workers=1))
    folder = tmp_path / "b" / "set.partial"
    with Ledger(folder) as ledger:
        run(ledger, maker(folder), units(4)[2:], workers=1)
        run(ledger, maker(folder), units(6, stage="gone"), workers=1)
        (folder / "stray" / "deep").mkdir(parents=True)
        (folder / "stray" / "file").write_text("x")
    assert tree(published(tmp_path / "b")) == straight
    assert not (tmp_path / "b" / "set.partial").exists()
    assert load_manifest(tmp_path / "b" / "set")["what"] == "a"


def test_published_folder_is_replaced_and_what_is_the_same_is_kept(tmp_path: Path) -> None:
    final = published(tmp_path, 4, "a")
    nodes = {p.name: p.stat().st_ino for p in (final / "s").iterdir()}
    again = published(tmp_path, 6, "a")
    assert {n: (again / "s" / n).stat().st_ino for n in nodes} == nodes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]
    published(tmp_path, 2, "b")
    assert not list(verify(final))
    assert len(list((final / "s").iterdir())) == 2


def test_unit_that_is_damaged_where_it_is_taken_from_is_made_again(tmp_path: Path) -> None:
    final = published(tmp_path)
    before = tree(final)
    path = final / "s" / "2.txt"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    made: list[int | str] = []
    with Ledger(tmp_path / "set.partial") as ledger:
        ledger.take_over(final)
        run(ledger, maker(ledger.folder, made=made), units(4), workers=1)
        ledger.publish(final, units(4), {"format": "test", "what": "a"})
    assert made == [2]
    assert tree(final) == before


def damages(folder: Path) -> list[Any]:
    """Ways to spoil a folder, each a name and a function."""
    other = folder.parent / "other"
    ways: list[Any] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()

        def write(content: bytes, path: Path = path) -> Any:
            return lambda: path.write_bytes(content)

        for place in range(0, len(data), max(1, len(data) // 40)):
            flipped = bytearray(data)
            flipped[place] ^= 1 << (place % 8)
            ways.append((path, write(bytes(flipped))))
        ways += [(path, write(c)) for c in (b"", data[:-1], data + b"\n", data[::-1])]
        ways.append((path, path.unlink))
        if (other / path.relative_to(folder)).exists():
            ways.append((path, write((other / path.relative_to(folder)).read_bytes())))
    added = folder / "s" / "added"
    return [*ways, (added, lambda: added.write_text("x"))]


def test_every_damage_of_every_file_is_found_and_named(tmp_path: Path) -> None:
    final = published(tmp_path)
    shutil.copytree(published(tmp_path / "b", word="b"), tmp_path / "other")
    sound = tmp_path / "sound"
    shutil.copytree(final, sound)
    assert not list(verify(final))
    for path, spoil in damages(final):
        spoil()
        assert path in [found.path for found in verify(final)], path
        shutil.rmtree(final)
        shutil.copytree(sound, final)
    files = [final / "s" / f"{n}.txt" for n in (0, 1)]
    first, second = (f.read_bytes() for f in files)
    files[0].write_bytes(second)
    files[1].write_bytes(first)
    assert {found.path for found in verify(final)} == set(files)
    assert not list(verify(final, lambda path, file, _: size_differs(path, file))), (
        "the sizes are the same"
    )


def test_files_from_another_run_as_a_whole_are_not_taken_for_this_one(tmp_path: Path) -> None:
    final = published(tmp_path)
    other = published(tmp_path / "b", word="b")
    shutil.copy(other / LEDGER, final / LEDGER)
    assert any(found.path == final / LEDGER for found in verify(final))
    shutil.copy(other / MANIFEST, final / MANIFEST)
    assert len(list(verify(final))) == 4


def test_records_left_aside_are_collected(tmp_path: Path) -> None:
    every = units(9)
    with Ledger(tmp_path) as ledger:
        ledger.done(every[0])
    with Ledger(tmp_path, aside=True) as one, Ledger(tmp_path, aside=True) as two:
        with pytest.raises(StoreError, match="another process"):
            Ledger(tmp_path)
        run(one, maker(tmp_path), every[:5], workers=1)
        run(two, maker(tmp_path), every[3:7], workers=1)  # the same range twice does no harm
    torn = next(tmp_path.glob("ledger.*.jsonl"))
    with torn.open("ab") as file:
        file.write(b'{"unit":["s",8],"key"')
    with Ledger(tmp_path) as ledger:
        assert [u.index for u in ledger.todo(every)] == [7, 8]
    assert sorted(p.name for p in tmp_path.iterdir()) == [LEDGER, "s"]


def test_work_aside_never_replaces_what_another_config_made(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        run(ledger, maker(tmp_path), units(2), workers=1)
    with Ledger(tmp_path, aside=True) as aside, pytest.raises(StoreError, match="volprep units"):
        run(aside, maker(tmp_path, "b"), units(2, "b"), workers=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no file size limits here")
def test_full_disk_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from tests.test_ledger import maker, units
from volprep.errors import StoreError
from volprep.ledger import Ledger, run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
folder = Path(sys.argv[1])
try:
    with Ledger(folder) as ledger:
        run(ledger, maker(folder), units(30), workers=int(sys.argv[2]))
except StoreError as error:
    sys.exit(str(error))
"""
    root = Path(__file__).parents[1]
    for workers in ("1", "2"):
        folder = tmp_path / workers
        args = [sys.executable, "-c", code, str(folder), workers]
        ended = subprocess.run(args, cwd=root, capture_output=True, text=True, check=False)
        assert "free some space, then run the same command again" in ended.stderr
        assert os.strerror(errno.EFBIG) in ended.stderr or "space" in ended.stderr
        made: list[int | str] = []
        with Ledger(folder) as ledger:
            assert 1 <= len(ledger.records) < 30
            assert ledger.records.damaged == 0
            kept = len(ledger.records)
            run(ledger, maker(folder, made=made), units(30), workers=1)
        assert len(made) == 30 - kept


def test_describe_is_what_newfile_says(tmp_path: Path) -> None:
    with NewFile(tmp_path / "d" / "a") as new:
        new.write(b"abc")
        new.write(memoryview(b"defg"))
    assert new.described(tmp_path) == describe(tmp_path / "d" / "a", tmp_path)


def test_a_unit_that_is_done_weighs_little(tmp_path: Path) -> None:
    many = 20_000
    stages = [[Unit("s", n, key_of("x", n)) for n in range(many)]]
    stages.append([Unit("named", f"case {n}", key_of("x", n)) for n in range(3)])
    with Ledger(tmp_path) as ledger:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for units in stages:
            run(ledger, lambda _unit: ((), {}), units, workers=1)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 60 * many, "bytes: a million units take 60 MB"
        assert [ledger.records.key(u.stage, u.index) for units in stages for u in units] == [
            u.key for units in stages for u in units
        ]
        assert [r.unit for r in ledger.records] == [u for units in stages for u in units]


def test_a_file_that_finds_no_room_says_which(tmp_path: Path) -> None:
    def full(_data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with NewFile(tmp_path / "a") as new:
            new.file.write = full  # type: ignore[method-assign]
            new.write(b"abc")

    with pytest.raises(OSError, match="No space left on device") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_units_of_a_folder_that_was_published_are_not_made(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.partial") as ledger:
        (tmp_path / "a.partial").rename(tmp_path / "a")
        with pytest.raises(StoreError, match="is gone; another run has finished it"):
            run(ledger, maker(ledger.folder), units(3), workers=1)
    assert not (tmp_path / "a.partial").exists()


def test_records_of_nothing_are_none(tmp_path: Path) -> None:
    records = Records(tmp_path / LEDGER)
    assert len(records) == 0
    assert list(records) == []
    assert records.find("s", 1) is None


def test_a_folder_whose_first_file_has_no_record_is_known_again(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a") as ledger:
        (ledger.folder / "part").mkdir()
    assert (tmp_path / "a" / LEDGER).exists()
    (tmp_path / "a/part").rmdir()
    with Ledger(tmp_path / "a"):
        pass
    assert not (tmp_path / "a").exists()
