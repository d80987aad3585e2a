"""Arrays, NumPy files, axes, names and labels."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from sources_checks import FLOATS, NUMBERS, arrays, check_block, check_volume, folder

from volprep.errors import SourceError
from volprep.geometry import Box, VolumeLike
from volprep.sources import (
    ArrayVolume,
    LabelVolume,
    is_volume_path,
    list_datasets,
    natural_key,
    open_labels,
    open_volume,
    stem_of,
)
from volprep.sources.axes import Layout
from volprep.sources.openfiles import OPEN


@given(data=st.data(), axes=st.sampled_from(["YX", "ZYX", "CZYX", "ZYXC", "XYZ", "YXS", "TZCYX"]))
def test_array_in_any_order_of_axes_is_read_as_czyx(data: st.DataObject, axes: str) -> None:
    array = data.draw(arrays(axes.replace("T", "")))
    stored = array[None] if "T" in axes else array
    letters = axes.replace("T", "").replace("S", "C")
    full = "".join(a for a in "CZYX" if a in letters)
    wanted = np.transpose(array, [letters.index(a) for a in full])
    if "C" not in full:
        wanted = wanted[None]
    if "Z" not in full:
        wanted = wanted[:, None]
    check_volume(ArrayVolume(stored, axes), np.ascontiguousarray(wanted), data)


def test_four_axes_in_memory_are_czyx() -> None:
    assert ArrayVolume(np.zeros((2, 3, 4, 5))).shape == (2, 3, 4, 5)
    assert ArrayVolume(np.zeros((2, 3, 4, 5))).axes == "CZYX"


def test_array_volume_is_volume_like() -> None:
    assert isinstance(ArrayVolume(np.zeros((3, 4, 5), np.uint8)), VolumeLike)


def test_read_of_a_box_of_an_array_is_a_view() -> None:
    array = np.zeros((3, 4, 5), np.uint8)
    assert np.shares_memory(ArrayVolume(array).read(Box((0, 1, 1), (2, 3, 3))), array)


def test_bool_is_read_as_uint8() -> None:
    volume = ArrayVolume(np.eye(3, dtype=bool))
    check_block(volume.read()[0, 0], np.eye(3, dtype=np.uint8))


@pytest.mark.parametrize("dtype", ["complex64", "U3", "datetime64[s]"])
def test_what_is_no_number_is_refused(dtype: str) -> None:
    with pytest.raises(SourceError, match="give integers"):
        ArrayVolume(np.zeros((2, 2), dtype))


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ("ZYX", (2, 3), "names 3.*`axes: YX`"),
        ("ZZX", (2, 3, 4), "each letter once"),
        ("ZCX", (2, 3, 4), "Y and X among them"),
        ("TYX", (2, 3, 4), "T has 2 entries; make a case of each time point.*`axes: ZYX`"),
        ("QZYX", (2, 3, 4, 5), "Q has 2 entries; if Q is channels, say `axes: CZYX`"),
        ("ZYX", (2, 0, 4), "it is empty"),
    ],
)
def test_axes_that_do_not_fit_are_refused_with_the_remedy(
    axes: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        Layout.of("a.tif", axes, shape)


def test_arrays_of_other_than_two_or_three_axes_need_axes() -> None:
    with folder() as place:
        np.save(place / "a.npy", np.zeros((2, 3, 4, 5)))
        with pytest.raises(SourceError, match=r"2×3×4×5 .*`axes: CZYX` or `axes: ZYXC`"):
            open_volume(place / "a.npy")
        assert open_volume(place / "a.npy", axes="ZYXC").shape == (5, 2, 3, 4)


@given(data=st.data(), fortran=st.booleans(), order=st.sampled_from("<>"))
def test_npy_reads_back(data: st.DataObject, fortran: bool, order: str) -> None:
    array = data.draw(arrays())
    stored = array.astype(array.dtype.newbyteorder(order))
    with folder() as place:
        np.save(place / "a.npy", np.asfortranarray(stored) if fortran else stored)
        check_volume(open_volume(place / "a.npy"), array[None], data)


@given(data=st.data(), fortran=st.booleans(), packed=st.booleans())
def test_npz_reads_back(data: st.DataObject, fortran: bool, packed: bool) -> None:
    array = data.draw(arrays())
    stored = np.asfortranarray(array) if fortran else array
    save = np.savez_compressed if packed else np.savez
    with folder() as place:
        save(place / "a.npz", raw=stored, label=array[:, :1], table=np.arange(5))
        check_volume(open_volume(place / "a.npz"), array[None], data)
        assert open_volume(place / "a.npz", "label").shape[2] == 1
        assert [d.key for d in list_datasets(place / "a.npz")] == ["label", "raw"]
        if array.dtype.kind == "u":
            assert open_labels(place / "a.npz").key == "label"


def test_a_pickled_array_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "a.npy", np.array([[Trap()]], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", raw=np.array([[Trap()]], object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(SourceError, match="never loaded"):
            open_volume(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_mapped_file_cannot_be_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5), np.uint8))
    block = open_volume(tmp_path / "a.npy").read()
    with pytest.raises(ValueError, match="read-only"):
        block[...] = 1


def test_a_box_may_be_empty() -> None:
    block = ArrayVolume(np.zeros((3, 4, 5), np.int16)).read(Box((1, 1, 1), (1, 3, 3)))
    assert block.shape == (1, 0, 2, 2)
    assert block.dtype == np.int16


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("1135.ome.tif", "1135"),
        ("1135.OME.TIFF", "1135"),
        ("ct.nii.gz", "ct"),
        ("a/b/brain.ome.zarr", "brain"),
        ("X.labels.tif", "X.labels"),
        ("A9 p5d (cropped 1).tif", "A9 p5d (cropped 1)"),
        ("v1.2 größe.h5", "v1.2 größe"),
        ("folder.v2", "folder.v2"),
        (".tif", ".tif"),
    ],
)
def test_the_stem_keeps_dots_spaces_and_umlauts(name: str, stem: str) -> None:
    assert stem_of(name) == stem


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_in_names_are_sorted_as_numbers(numbers: list[int]) -> None:
    names = [f"slice {n}.png" for n in numbers]
    assert sorted(names, key=natural_key) == [f"slice {n}.png" for n in sorted(numbers)]


@given(st.lists(st.text()))
def test_every_two_names_have_a_fixed_order(names: list[str]) -> None:
    keys = sorted(natural_key(name) for name in names)
    assert keys == sorted(reversed(keys))


def test_volume_paths_are_files_by_suffix_and_zarr_folders(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked" / ".zgroup").write_text('{"zarr_format": 2}')
    assert [is_volume_path(n) for n in ("a.TIF", "a.nii.gz", "b.txt", "gz")] == [1, 1, 0, 0]
    assert is_volume_path(tmp_path / "marked")
    assert not is_volume_path(tmp_path / "plain")


@given(data=st.data(), dtype=st.sampled_from(NUMBERS))
def test_whole_labels_from_zero_up_keep_every_id(data: st.DataObject, dtype: str) -> None:
    kind = np.dtype(dtype)
    most = 2 ** np.finfo(kind).nmant if kind.kind == "f" else np.iinfo(kind).max
    ids = data.draw(st.lists(st.integers(0, int(most)), min_size=6, max_size=6))
    array = np.array(ids, kind).reshape(1, 2, 3)
    volume = LabelVolume(ArrayVolume(array))
    wanted = np.array(ids, np.dtype(f"u{kind.itemsize}")).reshape(1, 1, 2, 3)
    check_volume(volume, wanted, data)


def test_ids_beyond_two_to_53_survive() -> None:
    ids = np.array([[[2**64 - 1, 2**53 + 1, 2**63 + 1]]], np.uint64)
    assert LabelVolume(ArrayVolume(ids)).read().tolist() == [ids.tolist()]


def test_bool_labels_are_zero_and_one() -> None:
    volume = LabelVolume(ArrayVolume(np.eye(3, dtype=bool)))
    check_block(volume.read()[0, 0], np.eye(3, dtype=np.uint8))


@pytest.mark.parametrize("dtype", [*FLOATS, "float16"])
@pytest.mark.parametrize(
    ("value", "what"),
    [
        (0.5, "a fraction"),
        (-1, "negative"),
        (-0.25, "negative"),
        (np.nan, "no number"),
        (np.inf, "no number"),
    ],
)
def test_what_is_no_id_is_refused_with_its_place(dtype: str, value: float, what: str) -> None:
    array = np.zeros((4, 5, 6), dtype)
    array[3, 2, 1] = value
    volume = LabelVolume(ArrayVolume(array, name="seg.tif"))
    with pytest.raises(SourceError, match=rf"seg\.tif: holds .*{what}") as caught:
        volume.read(Box((2, 1, 0), (4, 5, 6)))
    assert "z=3, y=2, x=1" in str(caught.value)
    assert volume.read(Box((0, 0, 0), (3, 5, 6))).sum() == 0
    with pytest.raises(SourceError, match="z=3, y=2, x=1"):
        list(volume.slabs(depth=2))


def test_a_negative_integer_label_is_refused() -> None:
    array = np.zeros((4, 5, 6), np.int32)
    array[1, 0, 0] = -7
    with pytest.raises(SourceError, match="a negative label: -7 at z=1, y=0, x=0"):
        LabelVolume(ArrayVolume(array)).read()


def test_a_float_beyond_its_integer_type_is_refused() -> None:
    with pytest.raises(SourceError, match="beyond uint32"):
        LabelVolume(ArrayVolume(np.full((2, 2), 2.0**32, np.float32))).read()


def test_labels_of_several_channels_are_refused() -> None:
    with pytest.raises(SourceError, match="labels have 2 channels"):
        LabelVolume(ArrayVolume(np.zeros((2, 3, 4, 5), np.uint8)))


def test_float_labels_are_noted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "volprep.sources"):
        volume = LabelVolume(ArrayVolume(np.zeros((3, 4, 5), np.float64), name="m.tif"))
    assert "stored as float64" in " ".join(volume.notes)
    assert "m.tif" in caplog.text


def test_labels_are_pickled_with_their_volume() -> None:
    volume = pickle.loads(pickle.dumps(LabelVolume(ArrayVolume(np.arange(8).reshape(2, 2, 2)))))
    assert volume.read().max() == 7


def test_thousands_of_volumes_keep_few_files_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN, "max_files", 3)
    part, volumes = Box((0, 0, 0), (2, 3, 2)), []  # of which only a map is kept open
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.full((2, 3, 4), i, np.uint8))
        volumes.append(open_volume(tmp_path / f"{i}.npy"))
    for _ in range(2):
        for i, volume in enumerate(volumes):
            assert volume.read(part).max() == i
        assert sum(volume._handle is not None for volume in volumes) == 3
    volumes[6].read(part)
    volumes[0].read(part)
    assert [i for i, v in enumerate(volumes) if v._handle is not None] == [0, 6, 7]


def test_inflated_volumes_share_a_limit_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN, "max_bytes", 2500)
    volumes = []
    for i in range(5):
        np.savez_compressed(tmp_path / f"{i}.npz", np.full((10, 10, 10), i, np.uint8))
        volumes.append(open_volume(tmp_path / f"{i}.npz"))
    for i, volume in enumerate(volumes):
        assert volume.read().max() == i
    assert [volume._in_memory for volume in volumes] == [True, True, False, False, False]
    assert all(volume._handle is not None for volume in volumes), "none is inflated twice"


def test_a_pickled_member_hinders_only_itself(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", raw=array, meta=np.array({"a": 1}, dtype=object))
    assert np.array_equal(open_volume(tmp_path / "a.npz").read()[0], array)
    assert [d.key for d in list_datasets(tmp_path / "a.npz")] == ["raw"]
    with pytest.raises(SourceError, match="pickled Python objects") as caught:
        open_volume(tmp_path / "a.npz", "meta")
    assert str(caught.value).count("pickled Python") == 1
    np.savez(tmp_path / "b.npz", meta=np.array({"a": 1}, dtype=object))
    with pytest.raises(SourceError, match="pickled Python objects"):
        open_volume(tmp_path / "b.npz")


@pytest.mark.parametrize("axes", ["ZYX", "YXZ"])
@pytest.mark.parametrize("form", ["npy", "tif"])
def test_parts_of_a_mapped_file_are_those_of_the_array(
    tmp_path: Path, form: str, axes: str
) -> None:
    """Whether they are read in pieces or through the map, of either byte order."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2**16, (6, 130, 140)).astype(">u2")
    path = tmp_path / f"a.{form}"
    if form == "npy":
        np.save(path, array)
    elif axes == "ZYX":
        tifffile.imwrite(path, array, byteorder=">", metadata={"axes": axes})
    else:
        pytest.skip("pages are planes")
    wanted = array if axes == "ZYX" else array.transpose(2, 0, 1)
    volume = open_volume(path, axes=axes)
    for _ in range(40):
        start = [int(rng.integers(0, n)) for n in wanted.shape]
        if rng.random() < 0.5:
            start[1:] = [0, 0]
        stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, wanted.shape, strict=True)]
        if rng.random() < 0.5:
            stop[1:] = wanted.shape[1:]
        box = Box(tuple(start), tuple(stop))
        found = volume.read(box)
        assert found.dtype == np.uint16
        assert np.array_equal(found[0], wanted[box.slices])


def test_a_file_that_is_written_anew_while_it_is_walked_through_ends_no_process(
    tmp_path: Path,
) -> None:
    """Each block is worked on after the file has shrunk, which a map would not outlive."""
    np.save(tmp_path / "a.npy", np.ones((40, 256, 256), np.uint8))
    program = """
import sys
from volprep.errors import SourceError
from volprep.sources import gather, open_volume, walk
from volprep.geometry import Box
volume = open_volume(sys.argv[1])
blocks = walk([volume], max_bytes=2**20)
box, (block,) = next(blocks)
(part,) = next(gather([volume], [Box((30, 10, 10), (38, 200, 60))]))
open(sys.argv[1], "r+b").truncate(1000)
assert block.sum() == box.size
assert part.sum() == part.size
try:
    list(blocks)
except SourceError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.npy")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "changed while it was being used" in done.stdout
