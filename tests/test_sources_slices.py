"""PNG, JPEG and TIFF pictures, alone and as the slices of a stack."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sources_checks import arrays, check_block, check_volume, folder

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import open_labels, open_volume, slice_files


def put(file: Path, plane: Any) -> None:
    """Write one picture."""
    if file.suffix == ".png":
        file.write_bytes(imagecodecs.png_encode(plane))
    else:
        colour = "rgb" if plane.ndim == 3 else "minisblack"
        tifffile.imwrite(file, plane, photometric=colour, compression="zlib")


@given(
    data=st.data(), suffix=st.sampled_from([".png", ".tif"]), axes=st.sampled_from(["ZYX", "ZYXS"])
)
def test_stacks_read_back_in_the_order_of_their_numbers(
    data: st.DataObject, suffix: str, axes: str
) -> None:
    array = data.draw(arrays(axes, ["uint8", "uint16"]))
    wanted = array[None] if axes == "ZYX" else np.moveaxis(array, -1, 0)
    with folder() as place:
        for z, plane in enumerate(array):
            put(place / f"a {z}{suffix}", plane)
        volume = open_volume(place)
        assert volume.axes == axes
        check_volume(volume, wanted, data)


@given(data=st.data(), axes=st.sampled_from(["YX", "YXS"]))
def test_a_png_is_a_volume_of_one_plane(data: st.DataObject, axes: str) -> None:
    array = data.draw(arrays(axes, ["uint8", "uint16"]))
    wanted = array[None, None] if axes == "YX" else np.moveaxis(array, -1, 0)[:, None]
    with folder() as place:
        put(place / "a.png", array)
        check_volume(open_volume(place / "a.png"), wanted, data)


def test_only_the_slices_that_a_box_touches_are_read(tmp_path: Path) -> None:
    for z in range(12):
        put(tmp_path / f"{z}.png", np.full((6, 7), z, np.uint8))
    volume = open_volume(tmp_path)
    for z in range(12):
        if z != 10:
            (tmp_path / f"{z}.png").unlink()
    assert volume.read(Box((10, 1, 1), (11, 3, 3))).max() == 10
    with pytest.raises(SourceError, match=r"9\.png"):
        volume.read(Box((9, 1, 1), (11, 3, 3)))


def test_files_that_are_no_pictures_are_left_out(tmp_path: Path) -> None:
    for name in ("10.png", "9.png", "notes.txt", ".hidden.png"):
        put(tmp_path / name, np.zeros((6, 7), np.uint8)) if name.endswith("png") else (
            tmp_path / name
        ).write_text("x")
    (tmp_path / "deeper.png").mkdir()
    assert [file.name for file in slice_files(tmp_path)] == ["9.png", "10.png"]
    assert open_volume(tmp_path).shape == (1, 2, 6, 7)


def test_a_slice_of_another_size_or_type_is_an_error_that_names_it(tmp_path: Path) -> None:
    put(tmp_path / "1.png", np.zeros((6, 7), np.uint8))
    for other in (np.zeros((6, 8), np.uint8), np.zeros((6, 7), np.uint16)):
        put(tmp_path / "2.png", other)
        with pytest.raises(SourceError, match=r"2\.png: is 6×.*1\.png is 6×7 uint8"):
            open_volume(tmp_path)


def test_a_slice_that_changes_after_opening_is_an_error(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        place = tmp_path / suffix
        place.mkdir()
        for z in range(2):
            put(place / f"{z}{suffix}", np.zeros((6, 7), np.uint8))
        volume = open_volume(place)
        put(place / f"1{suffix}", np.zeros((5, 7), np.uint8))
        with pytest.raises(SourceError, match=rf"1\{suffix}"):
            volume.read()


def test_slices_of_several_kinds_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "1.png", np.zeros((6, 7), np.uint8))
    put(tmp_path / "2.tif", np.zeros((6, 7), np.uint8))
    with pytest.raises(SourceError, match=r"several kinds \(\.png, \.tif\)"):
        open_volume(tmp_path)


def test_a_folder_of_stacks_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "1.tif", np.zeros((3, 6, 7), np.uint8)[:, :, :7])
    tifffile.imwrite(tmp_path / "1.tif", np.zeros((3, 6, 7), np.uint8), photometric="minisblack")
    with pytest.raises(SourceError, match=r"1\.tif: holds more than one plane \(3×6×7\)"):
        open_volume(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no PNG, JPEG or TIFF slices"):
        open_volume(tmp_path)


def test_the_first_axis_of_a_folder_may_be_channels(tmp_path: Path) -> None:
    for z in range(3):
        put(tmp_path / f"{z}.png", np.full((6, 7), z, np.uint8))
    assert open_volume(tmp_path, axes="CYX").shape == (3, 1, 6, 7)
    assert open_volume(tmp_path, axes="ZYX").shape == (1, 3, 6, 7)


def test_spacing_of_tiff_slices_lacks_z(tmp_path: Path) -> None:
    for z in range(2):
        tifffile.imwrite(
            tmp_path / f"{z}.tif", np.zeros((6, 7), np.uint8), imagej=True, resolution=(2, 4),
            metadata={"unit": "um"},
        )  # fmt: skip
    volume = open_volume(tmp_path)
    assert volume.spacing is None
    assert "y 0.25 µm, x 0.5 µm" in volume.notes[-1]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_labels_are_their_indices(tmp_path: Path, bits: int) -> None:
    ids = np.random.default_rng(0).integers(0, 2**bits, (9, 11)).astype(np.uint8)
    picture = Image.fromarray(ids, "P")
    picture.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
    picture.info["transparency"] = 0
    picture.save(tmp_path / "a.png", bits=bits, transparency=0)
    labels = open_labels(tmp_path / "a.png")
    check_block(labels.read()[0, 0], ids)
    assert "palette" in labels.notes[0]
    image = open_volume(tmp_path / "a.png")
    assert image.shape == (3, 1, 9, 11)
    check_block(image.read()[:, 0], np.stack([255 - ids, ids, np.full_like(ids, 7)]))


def test_one_bit_pictures_are_zero_and_one(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((9, 11)) < 0.5
    Image.fromarray(mask).save(tmp_path / "a.png")
    check_block(open_labels(tmp_path / "a.png").read()[0, 0], mask.astype(np.uint8))


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_transparency_is_a_channel_and_noted(tmp_path: Path, mode: str, channels: int) -> None:
    Image.new(mode, (7, 6)).save(tmp_path / "a.png")
    volume = open_volume(tmp_path / "a.png")
    assert volume.read().shape == (channels, 1, 6, 7)
    assert "transparency" in volume.notes[0]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_read_and_noted_as_lossy(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (17, 16), 99 if mode == "L" else (99, 99, 99)).save(tmp_path / "a.jpg")
    volume = open_volume(tmp_path / "a.jpg")
    assert volume.shape == (len(mode), 1, 16, 17)
    assert np.abs(volume.read().astype(int) - 99).max() < 4
    assert "lossy" in volume.notes[0]


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("keep", [0, 4, 30, 0.5, 0.9])
def test_a_picture_cut_short_is_an_error(tmp_path: Path, name: str, keep: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png" if name == "a.png" else "jpeg")
    data = stream.getvalue()
    (tmp_path / name).write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        open_volume(tmp_path / name).read()
    (tmp_path / ("0" + name)).write_bytes(data)
    with pytest.raises(SourceError, match=rf"/{name}".replace(".", r"\.")):
        open_volume(tmp_path).read()


def test_a_png_with_a_damaged_checksum_is_an_error(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    data = bytearray(imagecodecs.png_encode(pixels))
    data[len(data) // 2] ^= 255
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.png"):
        open_volume(tmp_path / "a.png").read()


def test_a_picture_larger_than_its_bytes_is_refused_at_once(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.png_encode(np.zeros((8, 8), np.uint8)))
    data[16:24] = bytes([0x7F, 0xFF, 0xFF, 0xFF] * 2)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SourceError, match="cannot hold 2147483647×2147483647"):
        open_volume(tmp_path / "a.png")


@given(data=st.data())
def test_damage_is_an_error_never_a_crash(data: st.DataObject) -> None:
    pixels = np.random.default_rng(0).integers(0, 4, (20, 20)).astype(np.uint8)
    name = data.draw(st.sampled_from(["a.png", "a.jpg"]))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png" if name == "a.png" else "jpeg")
    raw = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with folder() as place:
        (place / name).write_bytes(raw)
        try:
            block = open_volume(place / name).read()
        except SourceError:
            return
        assert block.ndim == 4
