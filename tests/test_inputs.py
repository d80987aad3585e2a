"""What identifies the inputs of a run: every file that is read, also those that another names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from volprep.errors import SourceError
from volprep.pipeline.identity import Inputs, read_inputs
from volprep.pipeline.told import silent
from volprep.sources import files_of, open_volume

VOXELS = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)


def external_link(folder: Path) -> tuple[Path, Path]:
    with h5py.File(folder / "there.h5", "w") as file:
        file["x/raw"] = VOXELS
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_group("deep")["raw"] = h5py.ExternalLink("there.h5", "x/raw")
    return folder / "a.h5", folder / "there.h5"


def linked_group(folder: Path) -> tuple[Path, Path]:
    with h5py.File(folder / "there.h5", "w") as file:
        file["x/raw"] = VOXELS
    with h5py.File(folder / "between.h5", "w") as file:
        file["y"] = h5py.ExternalLink("there.h5", "x")
    with h5py.File(folder / "a.h5", "w") as file:
        file["z"] = h5py.ExternalLink("between.h5", "y")
    return folder / "a.h5", folder / "there.h5"


def virtual(folder: Path) -> tuple[Path, Path]:
    layout = h5py.VirtualLayout(VOXELS.shape, np.uint8)
    for z, plane in enumerate(VOXELS):
        with h5py.File(folder / f"plane_{z}.h5", "w") as file:
            file["raw"] = plane
        layout[z] = h5py.VirtualSource(folder / f"plane_{z}.h5", "raw", plane.shape)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    return folder / "a.h5", folder / "plane_2.h5"


def external_storage(folder: Path) -> tuple[Path, Path]:
    (folder / "voxels.raw").write_bytes(VOXELS.tobytes())
    with h5py.File(folder / "a.h5", "w") as file:
        stored = [("voxels.raw", 0, VOXELS.nbytes)]
        file.create_dataset("raw", VOXELS.shape, np.uint8, external=stored)
    return folder / "a.h5", folder / "voxels.raw"


def ome_parts(folder: Path) -> tuple[Path, Path]:
    parts = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="p{z}.ome.tif">urn:uuid:{z}'
        "</UUID></TiffData>"
        for z in range(4)
    )
    for z, plane in enumerate(VOXELS):
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            'Type="uint8" SizeX="8" SizeY="8" SizeZ="4" SizeC="1" SizeT="1">'
            f"{parts}</Pixels></Image></OME>"
        )
        tifffile.imwrite(folder / f"p{z}.ome.tif", plane, description=text, metadata=None)
    return folder / "p0.ome.tif", folder / "p3.ome.tif"


def ome_companion(folder: Path) -> tuple[Path, Path]:
    (folder / "set.companion.ome").write_text(
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" '
        'SizeY="8" SizeZ="4" SizeC="1" SizeT="1" PhysicalSizeX="2.0" PhysicalSizeY="2.0" '
        'PhysicalSizeZ="5.0"><TiffData/></Pixels></Image></OME>'
    )
    named = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:1"/></OME>'
    )
    tifffile.imwrite(
        folder / "a.ome.tif", VOXELS, description=named, metadata=None, photometric="minisblack"
    )
    return folder / "a.ome.tif", folder / "set.companion.ome"


def linked_folder(folder: Path) -> tuple[Path, Path]:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    zarr.create_array(elsewhere / "a.zarr", data=VOXELS, chunks=(4, 8, 8))
    os.rename(elsewhere / "a.zarr" / "c", elsewhere / "chunks")
    (elsewhere / "a.zarr").rename(folder / "a.zarr")
    (folder / "a.zarr" / "c").symlink_to(elsewhere / "chunks")
    return folder / "a.zarr", elsewhere / "chunks" / "0" / "0" / "0"


MADE = [
    external_link, linked_group, virtual, external_storage, ome_parts, ome_companion, linked_folder
]  # fmt: skip


@pytest.mark.parametrize("make", MADE)
def test_a_change_in_any_file_that_is_read_is_noticed(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]]
) -> None:
    path, part = make(tmp_path)
    with open_volume(path, allow_external=True) as volume:
        np.testing.assert_array_equal(volume.read()[0], VOXELS)
    before = Inputs.of([path])
    before.check()
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(SourceError, match="changed while it was being used"):
        before.check()
    assert Inputs.of([path]).content != before.content


def test_links_that_lead_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    for here, there in (("a", "b"), ("b", "a")):
        with h5py.File(tmp_path / f"{here}.h5", "w") as file:
            file["raw"] = h5py.ExternalLink(f"{there}.h5", "raw")
    assert files_of(tmp_path / "a.h5") == [tmp_path / "a.h5", tmp_path / "b.h5"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "again").symlink_to(tmp_path / "folder")
    (tmp_path / "folder" / "x.png").write_bytes(b"x")
    assert files_of(tmp_path / "folder") == [tmp_path / "folder" / "x.png"]


def test_what_cannot_be_read_names_nothing(tmp_path: Path) -> None:
    for name in ("a.h5", "a.tif", "a.json"):
        (tmp_path / name).write_bytes(b"no such format")
        assert files_of(tmp_path / name) == [tmp_path / name]


def test_trust_in_times_spares_the_reading_and_only_that(tmp_path: Path) -> None:
    """mtime: a file of the size and time that were noted has the hash that was noted."""
    path = tmp_path / "a.npy"
    np.save(path, VOXELS)
    first = Inputs.of([path]).by_path[path]
    noted = {**first.facts, "sha256": "as noted"}

    def read(trust: str) -> str:
        found = read_inputs(
            [path],
            lambda _: noted,
            trust=trust,
            workers=1,
            reporter=silent,  # type: ignore[arg-type]
        )
        return found.by_path[path].sha256

    assert read("mtime") == "as noted", "not read again"
    assert read("hash") == first.sha256, "read whatever the times say"
    times = path.stat()
    np.save(path, VOXELS + 1)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read("mtime") == "as noted", "the price: same size and time, and other content"
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert read("mtime") not in ("as noted", first.sha256), "another time is looked at"
