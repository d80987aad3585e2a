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
from volprep.sources import list_datasets, open_labels, open_volume
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
    with pytest.raises(SourceError, match=r"a\.h5::raw: cannot be read"):
        open_volume(tmp_path / "a.h5").read(Box((0, 0, 0), (1, 1, 1)))


def test_links_to_nowhere_and_strings_are_left_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["soft"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("other.h5", "/raw")
        file["text"] = "words"
    with pytest.raises(SourceError, match="holds no array that could be an image"):
        open_volume(tmp_path / "a.h5")


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
