"""HDF5 files against h5py and against the array they were written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_checks import arrays, check_block, check_volume, folder

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import (
    aligned,
    difference,
    hdf5,
    list_datasets,
    open_labels,
    open_volume,
)
from volprep.sources.array import FileVolume

STORAGE: list[dict[str, Any]] = [
    {},
    {"chunks": (2, 3, 4)},
    {"chunks": (2, 3, 4), "compression": "gzip"},
    {"chunks": (5, 2, 7), "compression": "gzip", "shuffle": True},
    {"chunks": (5, 2, 7), "shuffle": True},
    {"chunks": (2, 3, 4), "compression": "lzf"},
    {"chunks": (2, 3, 4), "fletcher32": True, "compression": "gzip"},
]


@given(data=st.data(), storage=st.sampled_from(STORAGE), order=st.sampled_from("<>"))
def test_datasets_read_back(data: st.DataObject, storage: dict[str, Any], order: str) -> None:
    array = data.draw(arrays())
    chunks = tuple(min(c, n) for c, n in zip(storage.get("chunks", ()), array.shape, strict=False))
    with folder() as place:
        with h5py.File(place / "a.h5", "w") as file:
            stored = array.astype(array.dtype.newbyteorder(order))
            file.create_dataset("raw", data=stored, **storage | {"chunks": chunks or None})
        volume = open_volume(place / "a.h5")
        assert isinstance(volume, FileVolume) == (not storage)
        check_volume(volume, array[None], data)


@given(data=st.data())
def test_channels_read_back_when_they_are_said(data: st.DataObject) -> None:
    array = data.draw(arrays("CZYX"))
    with folder() as place:
        with h5py.File(place / "a.h5", "w") as file:
            file.create_dataset("raw", data=array, chunks=True, compression="gzip")
        with pytest.raises(SourceError, match=r"a\.h5::raw.*`axes: CZYX` or `axes: ZYXC`"):
            open_volume(place / "a.h5")
        check_volume(open_volume(place / "a.h5", axes="CZYX"), array, data)


def test_chunks_never_written_hold_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset(
            "raw", (4, 8, 8), "u2", chunks=(2, 4, 4), compression="gzip", fillvalue=9
        )
        made[2:, 4:, :4] = 3
    wanted = np.full((1, 4, 8, 8), 9, np.uint16)
    wanted[:, 2:, 4:, :4] = 3
    check_block(open_volume(tmp_path / "a.h5").read(), wanted)


def test_the_image_and_the_labels_are_found_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/Raw"] = np.zeros((2, 3, 4), np.uint8)
        file["volumes/labels/neuron_ids"] = np.ones((2, 3, 4), np.uint64)
        file["volumes/table"] = np.arange(5)
        file["volumes/names"] = np.array([b"a", b"b"])
    assert open_volume(tmp_path / "a.h5").key == "volumes/Raw"
    assert open_labels(tmp_path / "a.h5").key == "volumes/labels/neuron_ids"
    assert open_labels(tmp_path / "a.h5", "/volumes/labels/neuron_ids").dtype == np.uint64
    assert [d.key for d in list_datasets(tmp_path / "a.h5")] == [
        "volumes/labels/neuron_ids",
        "volumes/Raw",
    ]


def test_the_only_dataset_is_taken_whatever_its_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["wibble"] = np.zeros((2, 3, 4), np.uint8)
    assert open_volume(tmp_path / "a.h5").key == "wibble"


def test_several_candidates_are_listed_with_their_shapes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"] = np.zeros((2, 3, 4), np.uint8)
        file["two"] = np.zeros((5, 3, 4), np.uint8)
    with pytest.raises(SourceError, match=r"one \(2×3×4\), two \(5×3×4\)"):
        open_volume(tmp_path / "a.h5")


def test_a_wrong_key_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["label"] = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(SourceError, match=r"no dataset 'labels'; did you mean 'label'\?"):
        open_volume(tmp_path / "a.h5", "labels")


@pytest.mark.parametrize(
    ("shape", "attributes", "spacing", "note"),
    [
        ((2, 3, 4), {"element_size_um": [0.3, 0.2, 0.1]}, (0.3, 0.2, 0.1), None),
        ((3, 4), {"element_size_um": [0.3, 0.2, 0.1]}, (0.3, 0.2, 0.1), "3 entries for a 2D"),
        ((3, 4), {"element_size_um": [0.2, 0.1]}, (0.2, 0.2, 0.1), None),
        ((9, 3, 4), {"element_size_um": [0.2, 0.1]}, None, "cannot be read as"),
        ((9, 3, 4), {"element_size_um": [0.2, 0.1, 0.0]}, None, "cannot be read as"),
        ((9, 3, 4), {"element_size_um": "x"}, None, "cannot be read as"),
        ((9, 3, 4), {"resolution": [40, 4, 4]}, None, "'resolution' ([40, 4, 4]) names no unit"),
        ((9, 3, 4), {}, None, "no spacing stored"),
        ((2, 3, 4), {}, None, "first axis (2) read as Z; if it is channels, say `axes: CYX`"),
    ],
)
def test_spacing_is_read_from_element_size_um(
    tmp_path: Path, shape: tuple[int, ...], attributes: Any, spacing: Any, note: str | None
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.zeros(shape, np.uint8)
        file["raw"].attrs.update(attributes)
    volume = open_volume(tmp_path / "a.h5")
    assert volume.spacing == spacing
    assert note is None or any(note in text for text in volume.notes), volume.notes


def test_axes_stored_in_the_file_are_read(tmp_path: Path) -> None:
    tags = {"axes": [{"key": k} for k in "zyxc"]}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.zeros((2, 3, 4, 5), np.uint8)
        file["raw"].attrs["axistags"] = json.dumps(tags)
        file["label"] = np.zeros((2, 3, 4, 5), np.uint8)
        for dimension, name in zip(file["label"].dims, "cxyz", strict=True):
            dimension.label = name
    assert open_volume(tmp_path / "a.h5").shape == (5, 2, 3, 4)
    assert open_volume(tmp_path / "a.h5", "label").shape == (2, 5, 4, 3)


@pytest.mark.parametrize("keep", [0, 10, 100, 0.5, 0.9])
@pytest.mark.parametrize("storage", [{}, {"chunks": True, "compression": "gzip"}])
def test_a_file_cut_short_is_an_error(tmp_path: Path, keep: float, storage: Any) -> None:
    array = np.random.default_rng(0).integers(0, 255, (20, 30, 40)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=array, **storage)
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(SourceError, match=r"a\.h5"):
        open_volume(tmp_path / "a.h5").read()
    with pytest.raises(SourceError, match=r"a\.h5"):
        list_datasets(tmp_path / "a.h5")


def test_a_damaged_chunk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (8, 8, 8)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=array, chunks=(8, 8, 8), compression="gzip")
        place = file["raw"].id.get_chunk_info(0).byte_offset
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[place : place + 50] = bytes(50)
    (tmp_path / "a.h5").write_bytes(raw)
    with pytest.raises(SourceError, match=r"a\.h5::raw: chunk 0, 0, 0 cannot be read"):
        open_volume(tmp_path / "a.h5").read(Box((0, 0, 0), (1, 1, 1)))


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A file that holds one array under many names, and much that is none."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/x"] = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        file["raw"] = h5py.SoftLink("/deep/x")
        file["hard"] = file["deep/x"]
        file["deep/up"] = h5py.SoftLink("/")
        file["ring"] = h5py.SoftLink("/ring")
        file["nowhere"] = h5py.SoftLink("/nothing")
        file["text"] = "words"
        file["table"] = np.zeros((4, 5), [("id", "i4"), ("size", "f4")])
        file["kind"] = np.dtype("i4")
    return tmp_path / "a.h5"


@pytest.mark.parametrize("key", [None, "raw", "/raw", "hard", "deep/x"])
def test_links_inside_a_file_are_followed(linked: Path, key: str | None) -> None:
    wanted = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    check_block(open_volume(linked, key).read(), wanted)


def test_an_array_under_several_names_is_one_array(linked: Path) -> None:
    assert len(list_datasets(linked)) == 1


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("ring", "a link that leads back to itself"),
        ("nowhere", "a link to /nothing, which is not there"),
        ("text", "text"),
        ("table", "a table with the columns id, size"),
        ("kind", "a named type"),
    ],
)
def test_what_is_no_array_is_named(linked: Path, key: str, words: str) -> None:
    with pytest.raises(SourceError, match=rf"a\.h5::{key}: is .*{words}"):
        open_volume(linked, key)


def test_a_file_without_an_array_says_what_it_holds_instead(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = h5py.SoftLink("/nowhere")
        file["text"] = "words"
    with pytest.raises(SourceError, match=r"'raw' is a link to /nowhere.*'text' is text"):
        open_volume(tmp_path / "a.h5")


def _foreign(way: str, file: h5py.File, name: str) -> None:
    """Bring the array of another file into this one."""
    if way == "link":
        file["raw"] = h5py.ExternalLink(name, "/p/raw")
    elif way == "group":
        file["p"] = h5py.ExternalLink(name, "/p")
    elif way == "virtual":
        layout = h5py.VirtualLayout((2, 3, 4), np.uint8)
        layout[...] = h5py.VirtualSource(name, "p/raw", (2, 3, 4))
        file.create_virtual_dataset("raw", layout)
    else:
        file.create_dataset("raw", (2, 3, 4), np.uint8, external=[(name, 0, 24)])


@pytest.mark.parametrize("way", ["link", "group", "virtual", "storage"])
def test_the_files_of_others_are_read_only_where_that_is_allowed(tmp_path: Path, way: str) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "secret").mkdir()
    (tmp_path / "open").mkdir()
    other = tmp_path / "secret/other.h5"
    if way == "storage":
        other.write_bytes(array.tobytes())
    else:
        with h5py.File(other, "w") as file:
            file["p/raw"] = array
    master = tmp_path / "open/master.h5"
    with h5py.File(master, "w") as file:
        _foreign(way, file, str(other))
    for allow in (None, False):
        for use in (open_volume, open_labels):
            with pytest.raises(SourceError, match=r"master\.h5.*secret/other\.h5.*allow_external"):
                use(master, allow_external=allow)
    if way in ("link", "group"):
        with pytest.raises(SourceError, match=r"secret/other\.h5.*allow_external"):
            list_datasets(master)
    check_block(open_volume(master, allow_external=True).read(), array[None])
    other.unlink()
    with pytest.raises(SourceError, match=r"other\.h5, which is not there"):
        open_volume(master, allow_external=True)


@pytest.mark.parametrize("way", ["link", "group", "virtual"])
def test_a_file_beside_it_may_be_read_unless_that_is_refused(tmp_path: Path, way: str) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["p/raw"] = array
    with h5py.File(tmp_path / "master.h5", "w") as file:
        _foreign(way, file, "other.h5")
    check_block(open_volume(tmp_path / "master.h5").read(), array[None])
    with pytest.raises(SourceError, match=r"other\.h5"):
        open_volume(tmp_path / "master.h5", allow_external=False)


def test_a_link_to_another_file_does_not_hinder_what_lies_in_this_one(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.zeros((2, 3, 4), np.uint8)
        file["extra"] = h5py.ExternalLink("/elsewhere/b.h5", "/x")
    assert open_volume(tmp_path / "a.h5").key == "raw"
    with pytest.raises(SourceError, match=r"/elsewhere/b\.h5"):
        open_volume(tmp_path / "a.h5", "extra")


def test_a_filter_that_is_not_there_is_named_with_its_package(tmp_path: Path) -> None:
    space = h5py.h5s.create_simple((4, 4))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((2, 2))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, properties)
    with pytest.raises(SourceError, match=r"a\.h5::raw.*Zstandard.*pip install hdf5plugin"):
        open_volume(tmp_path / "a.h5")


@pytest.mark.parametrize("chunks", [(64, 64, 64), None])
def test_a_size_that_nothing_stands_behind_is_refused(tmp_path: Path, chunks: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("raw", (10**6,) * 3, "u1", chunks=chunks)
        if chunks:
            made[0, 0, 0] = 1
    with pytest.raises(SourceError, match=r"claims 1000000000000000000 voxels"):
        open_volume(tmp_path / "a.h5")


@pytest.mark.parametrize("storage", [{}, {"compression": "gzip"}, {"compression": "lzf"}])
def test_chunks_that_were_never_written_are_counted(tmp_path: Path, storage: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("raw", (4, 8, 8), "u2", chunks=(2, 4, 4), **storage)
        made[2:, 4:, :4] = 3
        file["whole"] = np.zeros((2, 3, 4), np.uint8)
        file.create_dataset("none", (2, 3, 4), "u1")
    assert open_volume(tmp_path / "a.h5", "raw").missing_chunks() == (7, 8)
    assert open_volume(tmp_path / "a.h5", "whole").missing_chunks() == (0, 1)
    assert open_volume(tmp_path / "a.h5", "none").missing_chunks() == (1, 1)


def test_the_place_of_every_chunk_is_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (8, 8, 8)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=array, chunks=(1, 1, 4), compression="gzip")
    made = []
    build = hdf5._Stored.__init__
    monkeypatch.setattr(
        hdf5._Stored, "__init__", lambda self, dataset: made.append(1) or build(self, dataset)
    )
    volume = open_volume(tmp_path / "a.h5")
    for z in range(8):
        check_block(volume.read(Box((z, 0, 0), (z + 1, 8, 8))), array[None, z : z + 1])
    assert made == [1]


def test_a_volume_survives_a_fork_and_a_spawn(tmp_path: Path) -> None:
    import multiprocessing

    array = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=array, chunks=(2, 4, 4), compression="gzip")
    volume = open_volume(tmp_path / "a.h5")
    volume.read(Box((0, 0, 0), (1, 1, 1)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        boxes = [Box((z, 1, 1), (z + 1, 7, 7)) for z in range(4)]
        for z, block in enumerate(pool.map(volume.read, boxes)):
            check_block(block, array[None, z : z + 1, 1:7, 1:7])


@pytest.mark.parametrize("name", ["offset", "origin"])
def test_offsets_say_where_a_dataset_lies(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(0).integers(0, 255, (6, 8, 9)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = array[1:5, 2:7, 3:8]
        file["raw"].attrs.update({"resolution": [40, 4, 4], name: [40, 8, 12]})
        file["labels"] = array
        file["labels"].attrs.update({"resolution": [40, 4, 4], name: [0, 0, 0]})
    image, label = open_volume(tmp_path / "a.h5"), open_labels(tmp_path / "a.h5")
    found = difference(image, label)
    assert found is not None
    assert found.what == "shifted by 1 voxel down in z, 2 voxels down in y, 3 voxels down in x"
    check_block(aligned(label, image).read(), image.read())


def test_offsets_of_an_unknown_unit_are_compared_and_move_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, place in (("raw", [0, 0, 20]), ("labels", [0, 0, 0]), ("same", [0, 0, 20])):
            file[key] = np.zeros((6, 8, 9), np.uint8)
            file[key].attrs["offset"] = place
        file["odd"] = np.zeros((6, 8, 9), np.uint8)
        file["odd"].attrs["offset"] = "here"
    image = open_volume(tmp_path / "a.h5", "raw")
    found = difference(image, open_labels(tmp_path / "a.h5", "labels"))
    assert found is not None
    assert found.move is None
    assert "its offset is (0.0, 0.0, 0.0), the image's (0.0, 0.0, 20.0)" in found.what
    assert difference(image, open_labels(tmp_path / "a.h5", "same")) is None
    assert difference(image, open_labels(tmp_path / "a.h5", "odd")) is None
