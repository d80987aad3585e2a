"""Places: a path and a URL answer alike, and a Zarr folder is read from either."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from sources_checks import check_block

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import open_labels, open_volume
from volprep.sources.place import (
    Place,
    RemotePlace,
    entries,
    place_of,
    read,
    read_range,
    state,
)

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["path", "url"])
def place(request: Any, tmp_path: Path) -> Place:
    """A folder with a file of ten bytes and a folder in it, on disk or in memory."""
    if request.param == "path":
        (tmp_path / "below").mkdir()
        (tmp_path / "a").write_bytes(b"0123456789")
        (tmp_path / "below/b").write_bytes(b"x")
        return tmp_path
    store = fsspec.filesystem("memory")
    root = f"memory://{tmp_path.name}"
    store.pipe({f"{root}/a": b"0123456789", f"{root}/below/b": b"x"})
    return place_of(root)


def test_files_are_read_whole_or_in_part(place: Place) -> None:
    file = place / "a"
    assert read(file) == b"0123456789"
    for start, size, wanted in [
        (0, None, b"0123456789"), (3, None, b"3456789"), (3, 4, b"3456"), (8, 5, b"89"),
        (-4, None, b"6789"), (-4, 2, b"67"), (-4, 4, b"6789"), (0, 0, b""),
    ]:  # fmt: skip
        assert bytes(read_range(file, start, size) or b"") == wanted


def test_what_is_not_there_is_none(place: Place) -> None:
    missing = place / "nothing"
    assert read(missing) is None
    assert read_range(missing, 0, 3) is None
    assert state(missing) is None
    assert list(entries(missing)) == []


def test_folders_are_listed_and_files_have_a_state(place: Place) -> None:
    assert sorted(entries(place)) == [("a", False), ("below", True)]
    told = state(place / "a")
    assert told is not None
    assert told.size == 10
    assert told.version
    assert (place / "below/b").name == "b"


def test_a_url_has_folders_above_it_and_survives_a_pickle() -> None:
    place = place_of("memory://set/a.zarr/labels/x")
    assert isinstance(place, RemotePlace)
    assert [str(p) for p in place.parents] == [
        "memory://set/a.zarr/labels", "memory://set/a.zarr", "memory://set",
    ]  # fmt: skip
    assert str(place.relative_to(place.parents[1])) == "labels/x"
    assert pickle.loads(pickle.dumps(place)) == place
    assert place / "" == place


@pytest.mark.parametrize("options", [
    {"zarr_format": 2}, {"zarr_format": 3}, {"zarr_format": 3, "shards": (4, 8, 8)},
])  # fmt: skip
def test_a_zarr_array_is_read_from_a_url_as_from_a_folder(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (6, 9, 10)).astype(np.uint16)
    made = zarr.create_array(
        tmp_path / "a.zarr", shape=array.shape, chunks=(2, 4, 4), dtype="u2", **options
    )
    made[:4] = array[:4]
    wanted = array.copy()
    wanted[4:] = 0
    store = fsspec.filesystem("memory")
    url = f"memory://{tmp_path.name}/a.zarr"
    for file in (tmp_path / "a.zarr").rglob("*"):
        if file.is_file():
            name = file.relative_to(tmp_path / "a.zarr").as_posix()
            store.pipe(f"{url}/{name}", file.read_bytes())
    local = open_volume(tmp_path / "a.zarr")
    remote = open_volume(url)
    assert str(remote.name) == url
    check_block(remote.read(), wanted[None])
    check_block(remote.read(Box((1, 2, 3), (5, 6, 7))), wanted[None, 1:5, 2:6, 3:7])
    assert remote.missing_chunks() == local.missing_chunks()
    check_block(pickle.loads(pickle.dumps(remote)).read(), wanted[None])
    check_block(open_labels(url).read(), wanted[None])


def test_other_formats_behind_a_url_are_refused(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe({f"memory://{tmp_path.name}/a.tif": b"II*"})
    for name in ("a.tif", "nothing.zarr"):
        with pytest.raises(SourceError, match="is no Zarr folder"):
            open_volume(f"memory://{tmp_path.name}/{name}")
