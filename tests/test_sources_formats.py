"""Formats of microscopes and scanners, each over its library: what is written is read exactly."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import nrrd
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from sources_checks import check_block

from volprep import find_cases
from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import FORMATS, SUFFIXES, list_datasets, open_labels, open_volume
from volprep.sources.named import files_of

SHAPE = (6, 20, 31)
IMAGE = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)


def check_boxes(path: Path, wanted: npt.NDArray[Any], **options: Any) -> Any:
    """All of it, a box, slabs and a pickle read as `wanted`, (C, Z, Y, X)."""
    with open_volume(path, **options) as volume:
        check_block(volume.read(), wanted)
        check_block(volume.read(Box((1, 2, 3), (3, 7, 30))), wanted[:, 1:3, 2:7, 3:30])
        again = np.zeros_like(wanted)
        for box, block in volume.slabs(4):
            again[:, *box.slices] = block
        np.testing.assert_array_equal(again, wanted)
        check_block(pickle.loads(pickle.dumps(volume)).read(), wanted)
    return volume


# MRC


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f4", "f2"])
def test_mrc_files_are_mapped_with_their_spacing(tmp_path: Path, dtype: str) -> None:
    array = (IMAGE % 100).astype(dtype)
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(array)
        file.voxel_size = (12.5, 12.5, 30.0)  # x, y, z in Å
    volume = check_boxes(tmp_path / "a.mrc", array[None])
    assert volume.mapped
    assert volume.spacing == pytest.approx((0.003, 0.00125, 0.00125))


def test_an_extended_header_another_order_of_axes_and_no_spacing(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.rec") as file:
        file.set_data(IMAGE.astype(np.int16))
        file.set_extended_header(np.zeros(100, "V1"))
        file.header.mapc, file.header.mapr, file.header.maps = 3, 2, 1
        file.header.cella = (0, 0, 0)
    volume = open_volume(tmp_path / "a.rec")
    check_block(volume.read(), IMAGE.astype(np.int16).transpose(2, 1, 0)[None])
    assert volume.axes == "XYZ"
    assert volume.spacing is None


def test_bytes_that_imod_stores_without_a_sign_are_read_so(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data((IMAGE % 251).astype(np.uint8).view(np.int8))
        extra = bytearray(bytes(file.header.extra2))
        extra[40:48] = struct.pack("<ii", 1146047817, 0)
        file.header.extra2 = bytes(extra)
    check_boxes(tmp_path / "a.mrc", (IMAGE % 251).astype(np.uint8)[None])


def test_a_cut_mrc_file_is_an_error(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(IMAGE)
    data = (tmp_path / "a.mrc").read_bytes()
    (tmp_path / "a.mrc").write_bytes(data[:-10])
    with pytest.raises(SourceError, match="cut short: the header promises"):
        open_volume(tmp_path / "a.mrc")
    (tmp_path / "a.mrc").write_bytes(data[:100])
    with pytest.raises(SourceError, match=r"a\.mrc"):
        open_volume(tmp_path / "a.mrc")


# NRRD


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("detached", [False, True])
def test_nrrd_files_read_with_spacing_and_place(
    tmp_path: Path, encoding: str, detached: bool
) -> None:
    path = tmp_path / ("a.nhdr" if detached else "a.nrrd")
    header = {
        "encoding": encoding, "space": "left-posterior-superior",
        "space directions": np.diag([0.5, 0.5, 2.0]), "space origin": np.array([1.0, 2.0, 3.0]),
        "space units": ["mm", "mm", "mm"], "kinds": ["domain"] * 3,
    }  # fmt: skip
    nrrd.write(str(path), IMAGE.T, header, detached_header=detached)
    volume = check_boxes(path, IMAGE[None])
    assert volume.spacing == pytest.approx((2000, 500, 500))
    assert volume.placement is not None
    assert volume.placement.origin == pytest.approx((3000, 2000, 1000))
    assert len(files_of(path)) == 1 + detached
    assert volume.path == path


def test_nrrd_channels_bytes_big_ends_and_units(tmp_path: Path) -> None:
    colours = np.stack([IMAGE, IMAGE + 1], -1).astype(">u2")
    header = {"kinds": ["list", "domain", "domain", "domain"], "encoding": "raw", "endian": "big",
              "spacings": [np.nan, 0.1, 0.1, 0.4], "units": ["", "um", "um", "um"]}  # fmt: skip
    nrrd.write(str(tmp_path / "a.nrrd"), colours.transpose(3, 2, 1, 0), header)
    volume = check_boxes(tmp_path / "a.nrrd", np.stack([IMAGE, IMAGE + 1]))
    assert volume.spacing == pytest.approx((0.4, 0.1, 0.1))
    nrrd.write(str(tmp_path / "b.nrrd"), IMAGE.T, {"spacings": [0.1, 0.1, 0.4]})
    bare = open_volume(tmp_path / "b.nrrd")
    assert bare.spacing is None
    assert [n.name for n in bare.notes] == ["spacing-unread"]
    itk = SimpleITK.GetImageFromArray(IMAGE)
    itk.SetSpacing((0.5, 0.5, 2.0))
    SimpleITK.WriteImage(itk, str(tmp_path / "c.nrrd"))
    meant = open_volume(tmp_path / "c.nrrd")
    assert (meant.spacing, [n.name for n in meant.notes]) == ((2000, 500, 500), ["unit-guessed"])
    check_block(meant.read(), IMAGE[None])


def test_cut_nrrd_files_and_foreign_ones_are_errors(tmp_path: Path) -> None:
    for encoding in ("raw", "gzip"):
        path = tmp_path / f"{encoding}.nrrd"
        nrrd.write(str(path), IMAGE.T, {"encoding": encoding})
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(SourceError, match=encoding):
            open_volume(path).read()
    (tmp_path / "in").mkdir()
    nrrd.write(str(tmp_path / "in/a.nhdr"), IMAGE.T, {"encoding": "raw"}, detached_header=True)
    (tmp_path / "in/a.raw").rename(tmp_path / "b.raw")
    text = (tmp_path / "in/a.nhdr").read_text().replace("a.raw", "../b.raw")
    (tmp_path / "in/a.nhdr").write_text(text)
    with pytest.raises(SourceError, match="another file"):
        open_volume(tmp_path / "in/a.nhdr")
    check_block(open_volume(tmp_path / "in/a.nhdr", allow_external=True).read(), IMAGE[None])
    (tmp_path / "b.raw").unlink()
    with pytest.raises(SourceError, match="which is not there"):
        open_volume(tmp_path / "in/a.nhdr", allow_external=True)


# MetaImage


@pytest.mark.parametrize("suffix", ["mha", "mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_metaimages_read_with_spacing_and_place(tmp_path: Path, suffix: str, packed: bool) -> None:
    image = SimpleITK.GetImageFromArray(IMAGE)
    image.SetSpacing((0.5, 0.25, 2.0))
    image.SetOrigin((1.0, 2.0, 3.0))
    image.SetDirection((-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    path = tmp_path / f"a.{suffix}"
    SimpleITK.WriteImage(image, str(path), useCompression=packed)
    volume = check_boxes(path, IMAGE[None])
    assert volume.spacing == (2000, 250, 500)
    assert volume.placement is not None
    assert volume.placement.origin == (3000, 2000, 1000)
    np.testing.assert_allclose(np.diag(volume.placement.matrix), (2000, -250, -500))
    assert len(files_of(path)) == (2 if suffix == "mhd" else 1)
    check_block(open_labels(path).read(), IMAGE[None])


def test_metaimages_of_several_channels_and_of_two_dimensions(tmp_path: Path) -> None:
    both = np.stack([IMAGE, IMAGE + 1], -1)
    image = SimpleITK.GetImageFromArray(both, isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    check_boxes(tmp_path / "a.mha", both.transpose(3, 0, 1, 2))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(IMAGE[0]), str(tmp_path / "b.mha"))
    check_block(open_volume(tmp_path / "b.mha").read(), IMAGE[None, :1])


def test_a_cut_metaimage_is_an_error(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(IMAGE), str(tmp_path / "a.mha"))
    data = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(data[:-100])
    with pytest.raises(SourceError, match=r"a\.mha"):
        open_volume(tmp_path / "a.mha").read()


# Imaris


def write_imaris(path: Path, channels: int = 2, times: int = 1) -> npt.NDArray[np.uint16]:
    """A file of two levels, laid out as Bitplane describes it, its arrays filled up to chunks."""

    def said(attributes: Any, **values: Any) -> None:
        for name, value in values.items():
            attributes[name] = np.array(list(str(value)), "S1")

    wanted = np.stack([IMAGE + c for c in range(channels)])
    with h5py.File(path, "w") as file:
        info = file.create_group("DataSetInfo/Image")
        said(info.attrs, X=SHAPE[2], Y=SHAPE[1], Z=SHAPE[0], Unit="um", ExtMin0=10, ExtMax0=13.1,
             ExtMin1=20, ExtMax1=22, ExtMin2=-3, ExtMax2=0)  # fmt: skip
        for level, step in ((0, 1), (1, 2)):
            for time in range(times):
                for channel in range(channels):
                    voxels = wanted[channel][:, ::step, ::step] + 10 * time
                    place = f"DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {channel}"
                    group = file.create_group(place)
                    said(group.attrs, ImageSizeX=voxels.shape[2], ImageSizeY=voxels.shape[1],
                         ImageSizeZ=voxels.shape[0])  # fmt: skip
                    padded = np.pad(voxels, [(0, -n % 8) for n in voxels.shape])
                    group.create_dataset("Data", data=padded, chunks=(4, 8, 8), compression="gzip")
    return wanted


def test_imaris_levels_channels_spacing_and_place(tmp_path: Path) -> None:
    wanted = write_imaris(tmp_path / "a.ims")
    volume = check_boxes(tmp_path / "a.ims", wanted)
    assert volume.spacing == pytest.approx((0.5, 0.1, 0.1))
    assert volume.placement is not None
    assert volume.placement.origin == pytest.approx((-2.75, 20.05, 10.05))
    assert volume.chunks == (4, 8, 8)
    coarse = open_volume(tmp_path / "a.ims", key="1")
    check_block(coarse.read(), wanted[:, :, ::2, ::2])
    assert coarse.spacing == pytest.approx((0.5, 0.2, 3.1 / 16))
    with pytest.raises(SourceError, match="no resolution level '7'"):
        open_volume(tmp_path / "a.ims", key="7")
    write_imaris(tmp_path / "b.ims", times=2)
    with pytest.raises(SourceError, match="time: cases"):
        open_volume(tmp_path / "b.ims")
    check_block(open_volume(tmp_path / "b.ims", time=1).read(), wanted + 10)


# CZI


def write_czi(path: Path, tiles: int = 1) -> npt.NDArray[np.uint16]:
    from pylibCZIrw import czi

    wanted = np.stack([IMAGE, IMAGE + 1])
    with czi.create_czi(str(path)) as file:
        for channel, z in np.ndindex(2, SHAPE[0]):
            for tile in range(tiles):
                file.write(
                    data=wanted[channel, z][..., None], plane={"C": channel, "Z": z, "T": 0},
                    location=(tile * SHAPE[2], 0),
                )  # fmt: skip
        file.write_metadata(document_name="a", scale_x=1e-7, scale_y=1e-7, scale_z=4e-7)
    return wanted


def test_czi_channels_planes_and_spacing(tmp_path: Path) -> None:
    wanted = write_czi(tmp_path / "a.czi")
    volume = check_boxes(tmp_path / "a.czi", wanted)
    assert volume.spacing == pytest.approx((0.4, 0.1, 0.1))
    assert volume.chunks == (1, *SHAPE[1:])
    (held,) = list_datasets(tmp_path / "a.czi")
    check_block(open_volume(tmp_path / "a.czi", key=held.key).read(), wanted)
    with pytest.raises(SourceError, match="no scene 'b'"):
        open_volume(tmp_path / "a.czi", key="b")
    (case,) = find_cases(tmp_path / "a.czi")
    check_block(case.open_image().read(), wanted)


def test_the_tiles_of_a_czi_are_put_together(tmp_path: Path) -> None:
    wanted = write_czi(tmp_path / "a.czi", tiles=2)
    check_block(open_volume(tmp_path / "a.czi").read(), np.concatenate([wanted, wanted], -1))


# LIF


def write_lif(path: Path, names: tuple[str, ...]) -> None:
    """After Leica's description: a header with XML, then a block of voxels for each image."""
    nz, ny, nx = SHAPE
    dims = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0"'
        f' Length="{length}" Unit="m" BitInc="0" BytesInc="{step}"/>'
        for number, count, length, step in (
            (1, nx, 1e-7 * (nx - 1), 2), (2, ny, 1e-7 * (ny - 1), 2 * nx),
            (3, nz, 4e-7 * (nz - 1), 2 * nx * ny),
        )
    )  # fmt: skip
    elements = "".join(
        f'<Element Name="{name}" Visibility="1" CopyOption="1" UniqueID="{name}">'
        f'<Data><Image TextDescription=""><ImageDescription><Channels><ChannelDescription'
        f' DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" Max="1"'
        f' Unit="" LUTName="Gray" IsLUTInverted="0" BytesInc="0" BitInc="0"/></Channels>'
        f"<Dimensions>{dims}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{IMAGE.nbytes}" MemoryBlockID="MemBlock_{number}"/><Children/></Element>'
        for number, name in enumerate(names)
    )
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="a" Visibility="1" CopyOption="1"'
        ' UniqueID="a"><Data><Experiment/></Data><Memory Size="0" MemoryBlockID="MemBlock_x"/>'
        f"<Children>{elements}</Children></Element></LMSDataContainerHeader>"
    )
    with path.open("wb") as file:
        text = xml.encode("utf-16-le")
        file.write(struct.pack("<IIBI", 0x70, 5 + len(text), 0x2A, len(xml)) + text)
        for number, _ in enumerate(names):
            block = f"MemBlock_{number}"
            head = struct.pack("<BQBI", 0x2A, IMAGE.nbytes, 0x2A, len(block))
            head += block.encode("utf-16-le")
            file.write(struct.pack("<II", 0x70, len(head)) + head)
            file.write((IMAGE + number).tobytes())


def test_lif_images_by_name_with_spacing(tmp_path: Path) -> None:
    write_lif(tmp_path / "a.lif", ("one",))
    volume = check_boxes(tmp_path / "a.lif", IMAGE[None])
    assert volume.spacing == pytest.approx((0.4, 0.1, 0.1))
    write_lif(tmp_path / "b.lif", ("one", "two"))
    with pytest.raises(SourceError, match=r"2 scenes; give the key of one: .*one.*two"):
        open_volume(tmp_path / "b.lif")
    second = list_datasets(tmp_path / "b.lif")[1].key
    check_block(open_volume(tmp_path / "b.lif", key=second).read(), IMAGE[None] + 1)
    check_block(open_volume(tmp_path / "b.lif", key="1").read(), IMAGE[None] + 1)


# All of them


@pytest.mark.parametrize("suffix", sorted({s for f in FORMATS if f.extra == "bio"
                                           for s in f.suffixes} | {".ims"}))  # fmt: skip
@pytest.mark.parametrize(
    "content",
    [b"", b"no such file", gzip.compress(bytes(9999), mtime=0), bytes(4096)],
    ids=["empty", "text", "gzip", "zeros"],
)
def test_what_is_no_such_file_is_an_error_that_names_it(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"a\{suffix}"):
        open_volume(path).read()


def test_formats_are_listed_with_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n: None if n == 'bioio_lif' else find(n)\n"
        "from volprep.__main__ import main; main()\n"
    )
    table = subprocess.run(
        [sys.executable, "-c", code, "formats"], capture_output=True, text=True, check=True
    ).stdout
    lif = next(line for line in table.splitlines() if line.startswith("Leica LIF"))
    assert lif.endswith('pip install "volprep[bio]"')
    assert next(line for line in table.splitlines() if "NIfTI" in line).endswith("read here")
    told = json.loads(
        subprocess.run(
            [sys.executable, "-m", "volprep", "formats", "--json"],
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    assert {s for row in told for s in row["suffixes"]} == set(SUFFIXES)


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path) -> None:
    for suffix, module in ((".mrc", "mrcfile"), (".nrrd", "nrrd"), (".mha", "SimpleITK"),
                           (".czi", "bioio_czi"), (".lif", "bioio_lif")):  # fmt: skip
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"x" * 2000)
        code = (
            f"import sys; sys.modules[{module!r}] = None\n"
            f"from volprep.sources import open_volume; open_volume({str(path)!r})\n"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert 'pip install "volprep[bio]"' in run.stderr, run.stderr


def test_a_real_nd2_is_read_as_the_makers_library_reads_it():
    """Nothing writes ND2, and no free file is small enough to lie here."""
    named = os.environ.get("VOLPREP_ND2")
    if not named:
        pytest.skip("VOLPREP_ND2 names no file; the sdist of pims_nd2 1.1 holds one (cluster.nd2)")
    nd2 = pytest.importorskip("nd2")
    with nd2.ND2File(named) as file:
        order = [axis for axis in "TCZYX" if axis in file.sizes]
        array = file.asarray().transpose([list(file.sizes).index(axis) for axis in order])
        sizes, step = file.sizes, file.voxel_size()
    whole = array.reshape([sizes.get(axis, 1) for axis in "TCZYX"])
    for time in range(len(whole)):
        volume = open_volume(named, time=time) if "T" in sizes else open_volume(named)
        assert volume.shape == whole.shape[1:]
        assert volume.spacing == pytest.approx((step.z, step.y, step.x))
        assert (volume.read() == whole[time]).all()
        z, y, x = (n // 2 for n in volume.shape[1:])
        assert (
            volume.read(Box((z, y, 0), (z + 1, y + 5, x)))
            == whole[time][:, z : z + 1, y : y + 5, :x]
        ).all()
