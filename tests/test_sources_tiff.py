"""TIFF files of every kind that people have, against the array they were written from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from sources_checks import NUMBERS, Array, arrays, boxes, check_block, check_volume, folder

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import difference, open_labels, open_volume
from volprep.sources.array import FileVolume
from volprep.sources.tiff import TiffBlocks, TiffMappedPages
from volprep.sources.tiff.bytifffile import pages_by_tifffile
from volprep.sources.tiff.direct import direct_pages
from volprep.sources.tiff.directories import Directories

WITH_PREDICTOR = ["uint8", "uint16", "uint32", "int16"]
CODINGS: list[dict[str, Any]] = [
    {},
    {"bigtiff": True},
    {"byteorder": ">"},
    {"contiguous": False},
    {"rowsperstrip": 2},
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": True},
    {"compression": "zlib", "rowsperstrip": 3},
    {"compression": "zlib", "byteorder": ">"},
    {"compression": "zlib", "byteorder": ">", "predictor": True},
    {"compression": "zlib", "tile": (16, 16)},
    {"compression": "zlib", "tile": (16, 16), "predictor": True},
    {"compression": "lzw"},
    {"compression": "zstd", "bigtiff": True},
    {"compression": "packbits"},
    {"tile": (16, 32)},
]


def write(path: Path, array: Array, coding: dict[str, Any], **more: Any) -> None:
    """Write a TIFF file page by page where it should not lie in one piece."""
    options = {"photometric": "minisblack", **coding, **more}
    if not options.pop("contiguous", True):
        opening = {k: options.pop(k) for k in ("byteorder", "bigtiff") if k in options}
        options.pop("metadata", None)
        with tifffile.TiffWriter(path, **opening) as file:
            for plane in array:
                file.write(plane, contiguous=False, metadata=None, **options)
        return
    tifffile.imwrite(path, array, **options)


@given(data=st.data(), coding=st.sampled_from(CODINGS))
def test_stacks_read_back(data: st.DataObject, coding: dict[str, Any]) -> None:
    array = data.draw(arrays(dtypes=WITH_PREDICTOR if "predictor" in coding else NUMBERS))
    with folder() as place:
        write(place / "a.tif", array, coding, metadata={"axes": "ZYX"})
        check_headers(place / "a.tif")
        check_volume(open_volume(place / "a.tif"), array[None], data)


@given(data=st.data(), coding=st.sampled_from(CODINGS))
def test_plain_stacks_of_unnamed_pages_are_read_as_z(
    data: st.DataObject, coding: dict[str, Any]
) -> None:
    array = data.draw(arrays(dtypes=WITH_PREDICTOR if "predictor" in coding else NUMBERS))
    with folder() as place:
        write(place / "a.tif", array, coding, metadata=None)
        check_headers(place / "a.tif")
        volume = open_volume(place / "a.tif")
        check_volume(volume, array[None], data)
        if len(array) > 1:
            assert any("read as Z" in note for note in volume.notes)


@given(
    data=st.data(),
    coding=st.sampled_from(CODINGS),
    axes=st.sampled_from(["YX", "CYX", "CZYX", "ZCYX", "YXS", "ZYXS"]),
)
def test_ome_files_read_back_in_the_axes_they_name(
    data: st.DataObject, coding: dict[str, Any], axes: str
) -> None:
    if "contiguous" in coding:
        return
    array = data.draw(arrays(axes, ["uint8", "uint16", "int32"]))
    more = {"photometric": "rgb"} if "S" in axes else {}
    with folder() as place:
        write(place / "a.ome.tif", array, coding, ome=True, metadata={"axes": axes}, **more)
        check_headers(place / "a.ome.tif")
        check_volume(open_volume(place / "a.ome.tif"), as_czyx(array, axes), data)


@given(
    data=st.data(),
    packed=st.booleans(),
    axes=st.sampled_from(["YX", "ZYX", "CYX", "ZCYX", "YXS"]),
)
def test_imagej_files_read_back(data: st.DataObject, packed: bool, axes: str) -> None:
    kinds = ["uint8"] if "S" in axes else ["uint8", "uint16", "float32"]
    array = data.draw(arrays(axes, kinds))
    coding = {"compression": "zlib"} if packed else {}
    with folder() as place:
        tifffile.imwrite(place / "a.tif", array, imagej=True, metadata={"axes": axes}, **coding)
        check_headers(place / "a.tif")
        check_volume(open_volume(place / "a.tif"), as_czyx(array, axes), data)


@given(data=st.data(), planar=st.sampled_from(["contig", "separate"]), axes=st.just("ZYXS"))
def test_colour_is_channels_however_it_is_stored(
    data: st.DataObject, planar: str, axes: str
) -> None:
    array = data.draw(arrays(axes, ["uint8", "uint16"]))
    stored = array if planar == "contig" else np.moveaxis(array, -1, 1)
    with folder() as place:
        tifffile.imwrite(
            place / "a.tif", stored, photometric="rgb", planarconfig=planar, compression="zlib"
        )
        check_volume(open_volume(place / "a.tif"), np.moveaxis(array, -1, 0), data)


@given(data=st.data())
def test_volumetric_tiles_read_back(data: st.DataObject) -> None:
    array = np.random.default_rng(0).integers(0, 999, (20, 33, 48)).astype(np.uint16)
    with folder() as place:
        tifffile.imwrite(
            place / "a.tif", array, volumetric=True, tile=(16, 16, 16), compression="zlib"
        )
        check_volume(open_volume(place / "a.tif"), array[None], data)


@pytest.mark.parametrize(
    ("coding", "kind"),
    [
        ({}, FileVolume),
        ({"byteorder": ">"}, FileVolume),
        ({"contiguous": False}, TiffMappedPages),
        ({"compression": "zlib"}, TiffBlocks),
        ({"tile": (16, 16)}, TiffBlocks),
    ],
)
def test_what_can_be_mapped_is_mapped(tmp_path: Path, coding: dict[str, Any], kind: type) -> None:
    write(tmp_path / "a.tif", np.zeros((5, 48, 32), np.uint16), coding)
    assert type(open_volume(tmp_path / "a.tif")) is kind


def test_a_box_of_a_mapped_stack_is_a_view(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 48, 32), np.uint16))
    block = open_volume(tmp_path / "a.tif").read(Box((1, 0, 0), (3, 8, 8)))
    assert block.base is not None
    assert not block.flags.writeable


def test_only_the_strips_that_a_box_touches_are_decoded(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4, 64, 64), np.uint8)
    write(tmp_path / "a.tif", array, {"compression": "zlib", "rowsperstrip": 16})
    volume = open_volume(tmp_path / "a.tif")
    assert isinstance(volume, TiffBlocks)
    seen = []
    decode = volume._decode
    volume._decode = lambda index, out: (seen.append(index), decode(index, out))[1]  # type: ignore[method-assign, func-returns-value]
    box = Box((1, 20, 5), (3, 30, 9))
    check_block(volume.read(box), array[None][(slice(None), *box.slices)])
    assert seen == [(1, 1, 0), (2, 1, 0)]
    volume.read(box.shift((0, 1, 0)))
    assert len(seen) == 2
    volume.close()
    volume.read(box)
    assert len(seen) == 4


def test_pages_of_several_files_make_one_ome_stack(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4, 16, 24), np.uint8)
    xml = two_files_xml(array.shape)
    for i in range(2):
        tifffile.imwrite(
            tmp_path / f"part{i}.ome.tif", array[2 * i : 2 * i + 2], description=xml,
            metadata=None, compression="zlib", photometric="minisblack",
        )  # fmt: skip
    volume = open_volume(tmp_path / "part0.ome.tif")
    check_block(volume.read(), array[None])
    check_block(volume.read(Box((1, 3, 4), (3, 9, 9))), array[None, 1:3, 3:9, 4:9])
    (tmp_path / "part1.ome.tif").unlink()
    with pytest.raises(SourceError, match="2 of 4 pages are missing"):
        open_volume(tmp_path / "part0.ome.tif")


@pytest.mark.parametrize(
    ("options", "spacing", "note"),
    [
        ({}, None, "no spacing stored"),
        (
            {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2,
             "PhysicalSizeZ": 300.0, "PhysicalSizeZUnit": "nm"}},
            (0.3, 0.2, 0.1), None,
        ),
        (
            {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2}},
            None, "only part of the spacing is stored: y 0.2 µm, x 0.1 µm",
        ),
        (
            {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeY": 1,
             "PhysicalSizeZ": 1, "PhysicalSizeZUnit": "pixel"}},
            None, "PhysicalSizeZ is 1 in 'pixel'",
        ),
        (
            {"imagej": True, "resolution": (4.0, 5.0),
             "metadata": {"axes": "ZYX", "spacing": 0.5, "unit": "um"}},
            (0.5, 0.2, 0.25), None,
        ),
        (
            {"imagej": True, "resolution": (0.25, 0.25),
             "metadata": {"axes": "ZYX", "spacing": 50.0, "unit": "nm"}},
            (0.05, 0.004, 0.004), None,
        ),
        (
            {"imagej": True, "resolution": (0.25, 0.25),
             "metadata": {"axes": "ZYX", "spacing": -2, "unit": "micron"}},
            None, "ImageJ spacing is -2: no length",
        ),
        (
            {"imagej": True, "resolution": (0.25, 0.25),
             "metadata": {"axes": "ZYX", "spacing": 0, "unit": "\\u00B5m"}},
            None, "ImageJ spacing is 0: no length",
        ),
        (
            {"imagej": True, "resolution": (0.25, 0.25),
             "metadata": {"axes": "ZYX", "spacing": 2, "unit": "\\u00B5m"}},
            (2.0, 4.0, 4.0), None,
        ),
        (
            {"imagej": True, "resolution": (4.0, 4.0), "metadata": {"axes": "ZYX", "unit": "um"}},
            None, "only part of the spacing",
        ),
        (
            {"imagej": True, "resolution": (1.0, 1.0),
             "metadata": {"axes": "ZYX", "spacing": 1, "unit": "pixel"}},
            None, "'pixel' is no length",
        ),
        (
            {"imagej": True, "resolution": (26.0, 26.0),
             "metadata": {"axes": "ZYX", "spacing": 1, "unit": "inch"}},
            None, "print size",
        ),
        (
            {"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER", "metadata": {"axes": "ZYX"}},
            None, "only part of the spacing is stored: y 1 µm, x 1 µm",
        ),
        (
            {"resolution": (28.35, 28.35), "resolutionunit": "CENTIMETER"},
            None, "print size",
        ),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None, "no spacing stored"),
        (
            {"resolution": (4, 4), "metadata": {"axes": "ZYX", "spacing": 0.5, "unit": "um"}},
            (0.5, 0.25, 0.25), None,
        ),
        (
            {"metadata": {"axes": "ZYX", "spacing": 0.5}},
            None, "stored without a unit",
        ),
        (
            {"metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1,
             "PhysicalSizeZ": 0.4}},
            (0.4, 0.1, 0.1), None,
        ),
    ],
)  # fmt: skip
def test_spacing_is_read_as_it_is_stored(
    tmp_path: Path, options: dict[str, Any], spacing: Any, note: str | None
) -> None:
    write(tmp_path / "a.tif", np.zeros((3, 4, 5), np.uint8), options)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.spacing == (None if spacing is None else pytest.approx(spacing))
    assert (note is None) or any(note in text for text in volume.notes), volume.notes


def test_a_single_plane_has_its_y_step_along_z(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 5), np.uint8), imagej=True, resolution=(4.0, 5.0),
        metadata={"unit": "um"},
    )  # fmt: skip
    assert open_volume(tmp_path / "a.tif").spacing == pytest.approx((0.2, 0.2, 0.25))


def test_the_users_axes_win_over_the_files(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 4, 5), np.uint8), metadata={"axes": "ZYX"})
    assert open_volume(tmp_path / "a.tif", axes="cyx").shape == (2, 1, 4, 5)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((2, 4, 5), np.uint8), metadata={"axes": "TYX"})
    with pytest.raises(SourceError, match=r"T has 2 entries.*`axes: ZYX`"):
        open_volume(tmp_path / "b.tif")
    assert open_volume(tmp_path / "b.tif", axes="ZYX").shape == (1, 2, 4, 5)


def test_axes_of_length_one_that_a_file_leaves_out_may_be_said(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", np.zeros((1, 3, 4, 5), np.uint8), metadata={"axes": "CZYX"}
    )
    assert open_volume(tmp_path / "a.ome.tif", axes="CZYX").shape == (1, 3, 4, 5)


def test_two_unnamed_axes_are_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.zeros((2, 3, 4, 5), np.uint8), {})
    with pytest.raises(SourceError, match=r"2×3×4×5 .*`axes: CZYX`"):
        open_volume(tmp_path / "a.tif")
    assert open_volume(tmp_path / "a.tif", axes="ZCYX").shape == (3, 2, 4, 5)


def test_a_one_bit_mask_is_zero_and_one(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((3, 9, 13)) < 0.5
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="minisblack")
    check_block(open_labels(tmp_path / "a.tif").read(), mask[None].astype(np.uint8))


def test_jpeg_pages_are_read(tmp_path: Path) -> None:
    plane = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    array = np.stack([plane, plane[::-1]])
    tifffile.imwrite(tmp_path / "a.tif", array, compression="jpeg", photometric="minisblack")
    block = open_volume(tmp_path / "a.tif").read()
    assert np.abs(block[0].astype(int) - array).max() < 8


def test_a_block_never_written_is_zeros(tmp_path: Path) -> None:
    array = np.full((32, 32), 7, np.uint8)
    write(tmp_path / "a.tif", array, {"tile": (16, 16), "compression": "zlib"}, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        counts = file.pages[0].databytecounts
        file.pages[0].tags["TileByteCounts"].overwrite((0, *counts[1:]))
    array[:16, :16] = 0
    check_block(open_volume(tmp_path / "a.tif").read()[0, 0], array)


@given(data=st.data())
def test_boxes_read_alike_from_every_thread(data: st.DataObject) -> None:
    from concurrent.futures import ThreadPoolExecutor

    array = np.random.default_rng(1).integers(0, 50, (6, 40, 40)).astype(np.uint16)
    wanted = [data.draw(boxes(array.shape)) for _ in range(8)]
    with folder() as place, ThreadPoolExecutor(4) as pool:
        write(place / "a.tif", array, {"compression": "lzw", "tile": (16, 16)})
        volume = open_volume(place / "a.tif")
        for box, block in zip(wanted, pool.map(volume.read, wanted), strict=True):
            check_block(block, array[None][(slice(None), *box.slices)])
        volume.close()


@pytest.mark.parametrize(
    "coding", [{}, {"compression": "zlib"}, {"imagej": True}, {"ome": True}, {"contiguous": False}]
)
@pytest.mark.parametrize("keep", [0, 3, 8, 200, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_an_error_that_names_it(
    tmp_path: Path, coding: dict[str, Any], keep: float
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (20, 64, 64)).astype(np.uint8)
    write(tmp_path / "whole.tif", array, coding)
    data = (tmp_path / "whole.tif").read_bytes()
    cut = data[: int(keep if keep > 1 else keep * len(data))]
    (tmp_path / "cut.tif").write_bytes(cut)
    if coding == {"contiguous": False} and keep == 0.999:
        return
    with pytest.raises(SourceError, match=r"cut\.tif"):
        open_volume(tmp_path / "cut.tif").read()


@given(data=st.data(), coding=st.sampled_from(CODINGS))
def test_damage_is_an_error_or_other_voxels_never_a_crash(
    data: st.DataObject, coding: dict[str, Any]
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (5, 20, 24)).astype(np.uint8)
    with folder() as place:
        write(place / "a.tif", array, coding)
        raw = bytearray((place / "a.tif").read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            raw[data.draw(st.integers(0, min(len(raw), 600) - 1))] = data.draw(st.integers(0, 255))
        (place / "a.tif").write_bytes(raw)
        try:
            volume = open_volume(place / "a.tif", axes=None)
            block = volume.read() if volume.nbytes < 2**24 else None
        except SourceError:
            return
        assert block is None or block.shape == volume.shape


def test_a_header_larger_than_its_file_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    for coding in ({}, {"compression": "zlib"}):
        write(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), coding, metadata=None)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            file.pages[0].tags["ImageWidth"].overwrite(2**31 - 1)
            file.pages[0].tags["ImageLength"].overwrite(2**31 - 1)
        with pytest.raises(SourceError, match=r"a\.tif"):
            open_volume(tmp_path / "a.tif").read()


def test_imagej_stack_with_planes_missing_is_refused(tmp_path: Path) -> None:
    told = "ImageJ=1.53t\nimages=20\nslices=20\n"
    coding = {"compression": "zlib", "description": told}
    write(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), coding, metadata=None)
    with pytest.raises(SourceError, match="1 of 20 planes are there"):
        open_volume(tmp_path / "a.tif")


@pytest.mark.parametrize(("dtype", "size"), [("uint8", 9), ("uint16", 8)])
def test_pages_of_several_sizes_or_types_are_refused_by_number(
    tmp_path: Path, dtype: str, size: int
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in (np.zeros((8, 8), np.uint8),) * 2 + (np.zeros((size, 8), dtype),) * 2:
            file.write(page, metadata=None, contiguous=False)
    with pytest.raises(SourceError, match=f"page 2 is {size}×8 {dtype}, and page 0 is 8×8 uint8"):
        open_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_stack_that_was_appended_page_by_page_is_one_stack(
    tmp_path: Path, compression: str | None
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (5, 8, 9)).astype(np.uint8)
    for plane in array:
        tifffile.imwrite(tmp_path / "a.tif", plane, append=True, compression=compression)
    for volume in (open_volume(tmp_path / "a.tif"), open_labels(tmp_path / "a.tif")):
        check_block(volume.read(), array[None])
        assert "series-joined" in [note.name for note in volume.notes]
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 10), np.uint8), append=True)
    with pytest.raises(SourceError, match="page 5 is 8×10 uint8, and page 0 is 8×9 uint8"):
        open_volume(tmp_path / "a.tif")


def test_several_stacks_in_a_file_are_not_joined(tmp_path: Path) -> None:
    for _ in range(2):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 8, 9), np.uint8), append=True)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.shape == (1, 5, 8, 9)
    assert "images-left-out" in [note.name for note in volume.notes]


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
@pytest.mark.parametrize("between", [True, False])
def test_smaller_copies_of_the_image_are_passed_over(
    tmp_path: Path, flagged: bool, shape: tuple[int, ...], between: bool
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (5, 16, 20)).astype(np.uint8)
    small = np.zeros(shape, np.uint8)
    kind = 1 if flagged else 0
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, plane in enumerate(array):
            file.write(plane, metadata=None, contiguous=False)
            if between or number == len(array) - 1:
                file.write(small, metadata=None, subfiletype=kind, contiguous=False)
    check_block(open_volume(tmp_path / "a.tif").read(), array[None])


@pytest.mark.parametrize("shape", [(6, 8, 1), (6, 1, 8), (1, 8, 9)])
@pytest.mark.parametrize("axes", ["ZYX", None])
def test_an_axis_of_one_voxel_is_no_reason_to_refuse(
    tmp_path: Path, shape: tuple[int, ...], axes: str | None
) -> None:
    array = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": axes} if axes else {})
    assert open_volume(tmp_path / "a.tif").read().size == array.size
    if axes:
        check_block(open_volume(tmp_path / "a.tif").read(), array[None])


def test_a_missing_companion_is_named(tmp_path: Path) -> None:
    told = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:1"/></OME>'
    )
    array = np.zeros((5, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, description=told, metadata=None)
    with pytest.raises(SourceError, match=r"keeps its OME metadata in set\.companion\.ome"):
        open_volume(tmp_path / "a.ome.tif")
    (tmp_path / "set.companion.ome").write_text(
        '<OME><Image ID="0"><Pixels PhysicalSizeX="1" PhysicalSizeY="2" PhysicalSizeZ="3"/>'
        "</Image></OME>"
    )
    assert open_volume(tmp_path / "a.ome.tif").spacing == (3, 2, 1)


def test_a_missing_part_of_a_stack_is_named(tmp_path: Path) -> None:
    array = np.zeros((4, 8, 9), np.uint8)
    for i in range(2):
        tifffile.imwrite(
            tmp_path / f"part{i}.ome.tif", array[2 * i : 2 * i + 2], metadata=None,
            description=two_files_xml(array.shape),
        )  # fmt: skip
    (tmp_path / "part1.ome.tif").unlink()
    with pytest.raises(SourceError, match=r"2 of 4 pages are missing.*not there: part1\.ome\.tif"):
        open_volume(tmp_path / "part0.ome.tif")


def test_parts_outside_the_folder_are_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4, 8, 9)).astype(np.uint8)
    (tmp_path / "set").mkdir()
    xml = two_files_xml(array.shape).replace("part1", "../part1")
    for i, name in enumerate(("set/part0", "part1")):
        own = xml.replace('UUID="urn:uuid:0"', f'UUID="urn:uuid:{i}"')  # tifffile compares it
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif", array[2 * i : 2 * i + 2], metadata=None, description=own,
        )  # fmt: skip
    for allow in (None, False):
        with pytest.raises(SourceError, match=r"part1\.ome\.tif.*allow_external"):
            open_volume(tmp_path / "set/part0.ome.tif", allow_external=allow)
    volume = open_volume(tmp_path / "set/part0.ome.tif", allow_external=True)
    check_block(volume.read(), array[None])


@pytest.mark.parametrize("cut", [0.5, 0.98])
def test_broken_xml_gives_no_spacing_and_is_told(tmp_path: Path, cut: float) -> None:
    array = np.zeros((5, 8, 9), np.uint8)
    sizes = {"axes": "ZYX", "PhysicalSizeX": 1, "PhysicalSizeY": 1, "PhysicalSizeZ": 1}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata=sizes)
    xml = tifffile.TiffFile(tmp_path / "a.ome.tif").ome_metadata
    broken = xml[: int(cut * len(xml))]
    tifffile.imwrite(tmp_path / "b.tif", array, description=broken, metadata=None)
    volume = open_volume(tmp_path / "b.tif")
    assert volume.shape == (1, 5, 8, 9)
    assert volume.spacing is None
    assert "spacing-unread" in [note.name for note in volume.notes]


def test_slices_that_are_called_channels_are_told(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 8, 9), np.uint8), imagej=True)
    (note,) = [n for n in open_volume(tmp_path / "a.tif").notes if n.name == "channels-or-slices"]
    assert "12 planes" in note
    assert "axes: ZYX" in note.about().todo
    assert open_volume(tmp_path / "a.tif", axes="ZYX").shape == (1, 12, 8, 9)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((3, 8, 9), np.uint8), imagej=True)
    assert "channels-or-slices" not in [n.name for n in open_volume(tmp_path / "b.tif").notes]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("packed", [True, False])
def test_signed_values_of_imagej_are_read_as_they_were(
    tmp_path: Path, dtype: Any, packed: bool
) -> None:
    half = 2 ** (8 * np.dtype(dtype).itemsize - 1)
    wanted = np.random.default_rng(0).integers(-half, half, (5, 8, 9))
    wanted = wanted.astype(np.int8 if dtype is np.uint8 else np.int16)
    stored = (wanted.astype(np.int64) + half).astype(dtype)
    told = f"ImageJ=1.53\nimages=5\nslices=5\ncf=0\nc0=-{half}.0\nc1=1.0\nvunit=Gray Value\n"
    options = {"compression": "zlib"} if packed else {}
    tifffile.imwrite(tmp_path / "a.tif", stored, description=told, metadata=None, **options)
    volume = open_volume(tmp_path / "a.tif")
    check_block(volume.read(), wanted[None])
    for box, block in volume.slabs(1):
        check_block(block, wanted[None][:, box.slices[0]])
    assert "value-offset" in [note.name for note in volume.notes]
    labels = np.array([0, 1, 2, 2], dtype).reshape(1, 2, 2) + dtype(half)
    told = told.replace("=5", "=1")
    tifffile.imwrite(tmp_path / "b.tif", labels, description=told, metadata=None)
    assert open_labels(tmp_path / "b.tif").read().ravel().tolist() == [0, 1, 2, 2]


def test_other_calibrations_change_nothing(tmp_path: Path) -> None:
    stored = np.arange(72, dtype=np.uint16).reshape(1, 8, 9)
    for cal in ("cf=0\nc0=1\nc1=2", "cf=20\nc0=-32768\nc1=1", "c0=x\nc1=1", "c1=1"):
        told = f"ImageJ=1.53\nimages=1\n{cal}\n"
        tifffile.imwrite(tmp_path / "a.tif", stored, description=told, metadata=None)
        check_block(open_volume(tmp_path / "a.tif").read(), stored[None])


def test_where_imagej_and_ome_say_that_a_stack_lies_is_read(tmp_path: Path) -> None:
    told = "ImageJ=1.53\nimages=5\nslices=5\nxorigin=20\nyorigin=0\n"
    array = np.zeros((5, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, description=told, metadata=None)
    tifffile.imwrite(tmp_path / "b.tif", array, description=told.replace("20", "17"), metadata=None)
    found = difference(open_volume(tmp_path / "a.tif"), open_volume(tmp_path / "b.tif"))
    assert found is not None
    assert found.what == "shifted by 3 voxels up in x, it does not cover the image"
    for name, x in (("c", 0.0), ("d", 6.0)):
        sizes = {
            "axes": "ZYX", "PhysicalSizeX": 2, "PhysicalSizeY": 1, "PhysicalSizeZ": 1,
            "Plane": {
                "PositionX": [x] * 5, "PositionY": [0.0] * 5, "PositionZ": [0.0, 1, 2, 3, 4],
                "PositionXUnit": ["µm"] * 5, "PositionYUnit": ["µm"] * 5,
                "PositionZUnit": ["µm"] * 5,
            },
        }  # fmt: skip
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", array, metadata=sizes)
    found = difference(open_volume(tmp_path / "c.ome.tif"), open_volume(tmp_path / "d.ome.tif"))
    assert found is not None
    assert found.what == "shifted by 3 voxels up in x, it does not cover the image"


def test_tiles_that_were_never_written_are_counted(tmp_path: Path) -> None:
    tiles = iter([b"\x01" * 256, b"", b"\x01" * 256, b""])
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(
            tiles, shape=(32, 32), dtype=np.uint8, tile=(16, 16), metadata=None, compression=None,
        )  # fmt: skip
    assert open_volume(tmp_path / "a.tif").missing_chunks() == (2, 4)


def test_text_with_a_tiff_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("not a picture")
    with pytest.raises(SourceError, match=r"a\.tif: is text \('not a picture'"):
        open_volume(tmp_path / "a.tif")


def test_a_moved_file_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.zeros((3, 64, 64), np.uint8), {"compression": "zlib"})
    volume = open_volume(tmp_path / "a.tif")
    shutil.move(tmp_path / "a.tif", tmp_path / "b.tif")
    with pytest.raises(SourceError, match="does not exist"):
        volume.read()


def check_headers(path: Path) -> None:
    """The quick reading of headers says what tifffile says, or leaves it to tifffile."""
    with path.open("rb") as file:
        quick = direct_pages(path, Directories(path, file.fileno()))
    slow = pages_by_tifffile(path)
    if quick is None:
        return
    names = {field.name for field in dataclasses.fields(slow)}
    if slow.mappable and slow.consecutive:
        assert quick.offsets[0, 0] == slow.offsets[0, 0]
        names -= {"offsets", "counts", "block"}
    for name in sorted(names):
        np.testing.assert_equal(getattr(quick, name), getattr(slow, name), name)


def as_czyx(array: Array, axes: str) -> Array:
    """Any array with the axes of a test, as (C, Z, Y, X)."""
    letters = axes.replace("S", "C")
    order = "".join(a for a in "CZYX" if a in letters)
    turned = np.transpose(array, [letters.index(a) for a in order])
    if "Z" not in order:
        turned = np.expand_dims(turned, -3)
    return turned if "C" in order else turned[None]


def two_files_xml(shape: tuple[int, ...]) -> str:
    """OME-XML of a stack whose halves lie in two files."""
    parts = "".join(
        f'<TiffData IFD="0" FirstZ="{2 * i}" PlaneCount="2"><UUID FileName="part{i}.ome.tif">'
        f"urn:uuid:{i}</UUID></TiffData>"
        for i in range(2)
    )
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        f'SizeX="{shape[2]}" SizeY="{shape[1]}" SizeZ="{shape[0]}" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{parts}</Pixels></Image></OME>'
    )


@given(data=st.data(), order=st.permutations("ZCT"), shuffled=st.booleans())
def test_planes_lie_where_the_ome_metadata_say(
    data: st.DataObject, order: list[str], shuffled: bool
) -> None:
    sizes = {"Z": data.draw(st.integers(1, 4)), "C": data.draw(st.integers(1, 3)), "T": 1}
    count = sizes["Z"] * sizes["C"]
    array = np.random.default_rng(0).integers(0, 255, (sizes["C"], sizes["Z"], 5, 6), np.uint8)
    pages = list(range(count))
    if shuffled:
        pages = data.draw(st.permutations(pages))
    planes, blocks = {}, []
    slow_to_fast = order[::-1]
    for number, index in enumerate(np.ndindex(*(sizes[a] for a in slow_to_fast))):
        at = dict(zip(slow_to_fast, index, strict=True))
        planes[pages[number]] = array[at["C"], at["Z"]]
        first = " ".join(f'First{a}="{i}"' for a, i in at.items())
        blocks.append(f'<TiffData {first} IFD="{pages[number]}" PlaneCount="1"/>')
    told = " ".join(f'Size{a}="{n}"' for a, n in {**sizes, "Y": 5, "X": 6}.items())
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XY{"".join(order)}" '
        f'Type="uint8" {told} PhysicalSizeX="2" PhysicalSizeY="3" PhysicalSizeZ="4">'
        + '<Channel ID="C" SamplesPerPixel="1"/>' * sizes["C"]
        + "".join(blocks)
        + "</Pixels></Image></OME>"
    )
    with folder() as place:
        with tifffile.TiffWriter(place / "a.ome.tif") as file:
            for number in range(count):
                description = xml if number == 0 else None
                file.write(
                    planes[number], description=description, metadata=None, contiguous=False,
                    photometric="minisblack", compression="zlib",
                )  # fmt: skip
        check_headers(place / "a.ome.tif")
        volume = open_volume(place / "a.ome.tif")
        check_block(volume.read(), array)
        assert volume.spacing == (4, 3, 2)
