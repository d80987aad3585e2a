"""NIfTI files against nibabel and against the array they were written from."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_checks import arrays, check_block, check_volume, folder

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import open_labels, open_volume, stream

DTYPES = ["uint8", "int16", "int32", "float32", "float64", "int8", "uint16", "uint32", "int64"]


def write(path: Path, array: Any, zooms: tuple[float, ...] = (), unit: str = "micron") -> Any:
    """Write an array that is (X, Y, Z, ...), as NIfTI counts its axes."""
    image = nib.Nifti1Image(array, np.eye(4), dtype=array.dtype)
    if zooms:
        image.header.set_zooms(zooms)
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, path)
    return image


@given(data=st.data(), name=st.sampled_from(["a.nii", "a.nii.gz"]), order=st.sampled_from("<>"))
def test_volumes_read_back_with_their_axes_reversed(
    data: st.DataObject, name: str, order: str
) -> None:
    array = data.draw(arrays(dtypes=DTYPES))
    with folder() as place:
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(array.dtype)
        image = nib.Nifti1Image(array.T, np.eye(4), header)
        image.header.set_data_dtype(array.dtype)
        nib.save(image, place / name)
        volume = open_volume(place / name)
        assert volume.axes == "ZYX"
        check_volume(volume, array[None], data)


@given(data=st.data(), name=st.sampled_from(["a.nii", "a.nii.gz"]))
def test_version_two_reads_back(data: st.DataObject, name: str) -> None:
    array = data.draw(arrays(dtypes=DTYPES))
    with folder() as place:
        nib.save(nib.Nifti2Image(array.T, np.eye(4), dtype=array.dtype), place / name)
        check_volume(open_volume(place / name), array[None], data)


@given(data=st.data(), name=st.sampled_from(["a.nii", "a.nii.gz"]))
def test_a_fifth_axis_is_channels(data: st.DataObject, name: str) -> None:
    array = data.draw(arrays("CZYX", ["uint8", "int16"]))
    with folder() as place:
        nib.save(nib.Nifti1Image(array.T[:, :, :, None], np.eye(4)), place / name)
        volume = open_volume(place / name)
        assert volume.axes == "CTZYX"[-5:]
        check_volume(volume, array, data)


@given(data=st.data(), name=st.sampled_from(["a.nii", "a.nii.gz"]))
def test_colour_is_channels(data: st.DataObject, name: str) -> None:
    array = data.draw(arrays("ZYXS", ["uint8"]))
    records = np.ascontiguousarray(array).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    with folder() as place:
        nib.save(nib.Nifti1Image(records.T, np.eye(4)), place / name)
        check_volume(open_volume(place / name), np.moveaxis(array, -1, 0), data)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("dtype", "read_as"), [("int16", "float32"), ("int32", "float64")])
def test_scaled_intensities_are_as_nibabel_reads_them(
    tmp_path: Path, name: str, dtype: str, read_as: str
) -> None:
    array = np.arange(-60, 60, dtype=dtype).reshape(4, 5, 6)
    image = write(tmp_path / name, array)
    image.header.set_slope_inter(0.25, -3)
    nib.save(image, tmp_path / name)
    raw = bytearray(image_bytes(tmp_path / name))
    struct.pack_into("<2f", raw, 112, 0.25, -3)
    put_bytes(tmp_path / name, bytes(raw))
    volume = open_volume(tmp_path / name)
    assert any("scaled by 0.25" in note for note in volume.notes)
    wanted = nib.load(tmp_path / name).get_fdata().T.astype(read_as)[None]
    check_block(volume.read(), wanted)
    check_block(volume.read(Box((1, 1, 0), (5, 3, 2))), wanted[:, 1:5, 1:3, 0:2])
    check_block(np.concatenate([b for _, b in volume.slabs(2)], axis=1), wanted)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_that_means_none_leaves_integers(tmp_path: Path, slope: float) -> None:
    write(tmp_path / "a.nii", np.ones((3, 4, 5), np.int16))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", raw, 112, slope, 5.0)
    (tmp_path / "a.nii").write_bytes(raw)
    assert open_volume(tmp_path / "a.nii").dtype == np.int16


@pytest.mark.parametrize(
    ("unit", "spacing", "note"),
    [
        ("micron", (0.5, 0.2, 0.1), None),
        ("mm", (500, 200, 100), None),
        ("meter", (5e5, 2e5, 1e5), "absurd"),
        ("unknown", (500, 200, 100), "unit unknown: spacing read as mm"),
    ],
)
def test_spacing_is_reversed_and_converted(
    tmp_path: Path, unit: str, spacing: tuple[float, ...], note: str | None
) -> None:
    write(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.uint8), (0.1, 0.2, 0.5), unit)
    volume = open_volume(tmp_path / "a.nii.gz")
    if note == "absurd":
        assert volume.spacing is None
    else:
        assert volume.spacing == pytest.approx(spacing)
    assert (note is None and not volume.notes) or any(note in n for n in volume.notes if note)


def test_absurd_spacing_is_a_note_and_not_used(tmp_path: Path) -> None:
    write(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8), (5.7e7, 5.7e7, 5.7e7), "mm")
    volume = open_volume(tmp_path / "a.nii")
    assert volume.spacing is None
    assert "absurd" in volume.notes[0]


def test_time_points_are_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "a.nii", np.zeros((3, 4, 5, 6), np.uint8))
    with pytest.raises(SourceError, match=r"T has 6 entries.*`axes: CZYX`"):
        open_volume(tmp_path / "a.nii")
    assert open_volume(tmp_path / "a.nii", axes="CZYX").shape == (6, 5, 4, 3)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("keep", [0, 3, 100, 348, 400, 0.5, 0.99])
def test_a_file_cut_short_is_an_error(tmp_path: Path, name: str, keep: float) -> None:
    array = np.random.default_rng(0).integers(0, 255, (20, 21, 22)).astype(np.uint8)
    write(tmp_path / name, array)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(SourceError, match=r"a\.nii"):
        open_volume(tmp_path / name).read()
    with pytest.raises(SourceError, match=r"a\.nii"):
        list(open_volume(tmp_path / name).slabs(3))


def test_a_checksum_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", np.zeros((20, 21, 22), np.uint8))
    data = bytearray((tmp_path / "a.nii.gz").read_bytes())
    data[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(data)
    for use in (lambda v: v.read(), lambda v: list(v.slabs(4))):
        with pytest.raises(SourceError, match=r"a\.nii\.gz"):
            use(open_volume(tmp_path / "a.nii.gz"))


def test_a_header_larger_than_its_file_is_refused_at_once(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        write(tmp_path / name, np.zeros((20, 21, 22), np.uint8))
        raw = bytearray(image_bytes(tmp_path / name))
        struct.pack_into("<8h", raw, 40, 3, 30000, 30000, 30000, 1, 1, 1, 1)
        put_bytes(tmp_path / name, bytes(raw))
        with pytest.raises(SourceError, match="is cut short: the header promises 27000000000000"):
            open_volume(tmp_path / name)


@given(data=st.data())
def test_damaged_headers_are_errors_never_a_crash(data: st.DataObject) -> None:
    with folder() as place:
        write(place / "a.nii", np.zeros((4, 5, 6), np.uint8))
        raw = bytearray((place / "a.nii").read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            raw[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
        (place / "a.nii").write_bytes(raw)
        try:
            block = open_volume(place / "a.nii").read()
        except SourceError:
            return
        assert block.ndim == 4


def test_a_volume_beyond_the_held_limit_goes_to_a_mapped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (20, 21, 22)).astype(np.uint8)
    write(tmp_path / "a.nii.gz", array)
    monkeypatch.setattr(stream, "HELD_BYTES", 1000)
    block = open_volume(tmp_path / "a.nii.gz").read()
    check_block(block, array.T[None])
    assert not block.flags.writeable


def test_float_labels_are_whole_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.float32))
    labels = open_labels(tmp_path / "a.nii.gz")
    check_block(labels.read(), np.ones((1, 5, 4, 3), np.uint32))


def test_a_key_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(SourceError, match="leave out the key"):
        open_volume(tmp_path / "a.nii", "raw")


def image_bytes(path: Path) -> bytes:
    """The bytes of a NIfTI file, inflated."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def put_bytes(path: Path, data: bytes) -> None:
    """Write them back."""
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("packed", [True, False])
def test_a_name_that_says_gzip_wrongly_is_told_and_the_file_is_read(
    tmp_path: Path, packed: bool
) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    right, wrong = (".nii.gz", ".nii") if packed else (".nii", ".nii.gz")
    nib.save(nib.Nifti1Image(array.T, np.eye(4)), tmp_path / f"a{right}")
    (tmp_path / f"a{right}").rename(tmp_path / f"b{wrong}")
    volume = open_volume(tmp_path / f"b{wrong}")
    assert np.array_equal(volume.read()[0], array)
    (note,) = [n for n in volume.notes if n.name == "suffix-wrong"]
    assert f"rename it to end in {right}" in note


@pytest.mark.parametrize(
    ("code", "name"),
    [(32, "complex64"), (1536, "float128"), (1792, "complex128"), (2048, "complex256")],
)
def test_types_that_are_not_read_are_named(tmp_path: Path, code: int, name: str) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[70:72] = code.to_bytes(2, "little")
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(SourceError, match=rf"data type {code} \({name}\)"):
        open_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "<i4", "<u4"])
def test_scaled_labels_come_out_exact(tmp_path: Path, dtype: str) -> None:
    stored = np.array([0, 1, 2, 3, 7001, 30001], dtype).reshape(1, 2, 3)
    image = nib.Nifti1Image(stored.T, np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([1025, 1], "<f4").tobytes()  # slope and intercept
    (tmp_path / "a.nii").write_bytes(raw)
    wanted = stored.astype(np.int64) * 1025 + 1  # beyond what float32 holds
    assert open_labels(tmp_path / "a.nii").read().astype(np.int64).tolist() == [wanted.tolist()]


def a_scaled_label(path: Path, ids: np.ndarray, slope: float, inter: float) -> Path:
    """A NIfTI-2 file, whose slope is a double, of any integers."""
    nib.save(nib.Nifti2Image(ids.T, np.eye(4), dtype=ids.dtype), path)
    data = bytearray(path.read_bytes())
    data[176:192] = struct.pack("<2d", slope, inter)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize(("slope", "inter"), [(1, 10), (2, -4), (1, -(2**53)), (1.0, 0.0)])
def test_scaled_labels_of_64_bits_come_out_exact(
    tmp_path: Path, dtype: str, slope: float, inter: float
) -> None:
    ids = np.array([2, 2**53, 2**53 + 1, 2**53 + 2, 2**61 + 7, 5] * 4, dtype).reshape(2, 3, 4)
    ids = np.maximum(ids, max(2, int(-inter))).astype(dtype)
    path = a_scaled_label(tmp_path / "a.nii", ids, slope, inter)
    wanted = [int(v) * int(slope) + int(inter) for v in ids.flat]
    read = open_labels(path).read()
    assert read.dtype.kind == "u"
    assert [int(v) for v in read.flat] == wanted


@pytest.mark.parametrize(
    ("top", "slope", "inter", "words"),
    [
        (2**62, 4, 0, "beyond 2**63 - 1"),
        (2**62, 1e30, 0, "beyond 2**63 - 1"),
        (2**53 + 1, 0.5, 0, "beyond 2**53 that its header scales by 0.5"),
        (7, 1, -9, "a negative label"),
        (7, 0.5, 0, "a label with a fraction"),
    ],
)
def test_scaled_labels_that_cannot_be_exact_are_refused(
    tmp_path: Path, top: int, slope: float, inter: float, words: str
) -> None:
    ids = np.full((2, 3, 4), top, np.int64)
    path = a_scaled_label(tmp_path / "a.nii", ids, slope, inter)
    with pytest.raises(SourceError, match=re.escape(words)):
        open_labels(path).read()
