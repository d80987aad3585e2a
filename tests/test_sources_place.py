"""Places: files and folders of a disk answer as those of a store do."""

from __future__ import annotations

from pathlib import Path

import pytest

from volprep.sources.place import entries, read, read_range, state


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a file of ten bytes and a folder in it."""
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "below/b").write_bytes(b"x")
    return tmp_path


def test_files_are_read_whole_or_in_part(place: Path) -> None:
    file = place / "a"
    assert read(file) == b"0123456789"
    for start, size, wanted in [
        (0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (8, 5, b"89"),
        (-4, None, b"6789"), (-4, 2, b"67"), (-4, 4, b"6789"), (0, 0, b""),
    ]:  # fmt: skip
        assert bytes(read_range(file, start, size) or b"") == wanted


def test_what_is_not_there_is_none(place: Path) -> None:
    missing = place / "nothing"
    assert read(missing) is None
    assert read_range(missing, 0, 3) is None
    assert state(missing) is None
    assert list(entries(missing)) == []


def test_folders_are_listed_and_files_have_a_state(place: Path) -> None:
    assert sorted(entries(place)) == [("a", False), ("below", True)]
    told = state(place / "a")
    assert told is not None
    assert told.size == 10
    assert told.version
