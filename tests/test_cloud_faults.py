"""Every form of volume over a line with faults: the voxels that were stored, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import zarr
from stores import WebServer, served

from volprep import objects
from volprep.errors import SourceError
from volprep.sources import open_volume

IMAGE = (np.arange(16 * 32 * 32).reshape(16, 32, 32) % 251).astype(np.uint8)
METADATA = (".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "info")


def write_zarr(**how: Any) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        zarr.create_array(place, data=IMAGE, **how)

    return write


def write_n5(place: Path) -> None:
    metadata = {
        "dimensions": [32, 32, 16], "blockSize": [16, 16, 8], "dataType": "uint8",
        "compression": {"type": "gzip"},
    }  # fmt: skip
    store = {"driver": "file", "path": f"{place}/"}
    made = ts.open({"driver": "n5", "kvstore": store, "metadata": metadata}, create=True).result()
    made.write(IMAGE.T).result()


def write_precomputed(
    encoding: str, dtype: str = "uint8", *, sharded: bool = False
) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        scale: dict[str, Any] = {
            "resolution": [4, 4, 40], "encoding": encoding, "chunk_size": [16, 16, 8],
            "size": [32, 32, 16], "voxel_offset": [3, 4, 5],
        }  # fmt: skip
        if encoding == "compressed_segmentation":
            scale["compressed_segmentation_block_size"] = [8, 8, 8]
        if sharded:
            scale["sharding"] = {
                "@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 1, "hash": "identity",
                "minishard_bits": 1, "shard_bits": 1, "minishard_index_encoding": "gzip",
                "data_encoding": "gzip",
            }  # fmt: skip
        kind = "image" if dtype == "uint8" else "segmentation"
        whole = {"data_type": dtype, "num_channels": 1, "type": kind}
        made = ts.open({
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{place}/"},
            "multiscale_metadata": whole, "scale_metadata": scale,
        }, create=True).result()  # fmt: skip
        made[..., 0].write(IMAGE.T.astype(dtype)).result()

    return write


FORMS: dict[str, Callable[[Path], None]] = {
    "v2": write_zarr(chunks=(8, 16, 16), zarr_format=2),
    "v3": write_zarr(chunks=(8, 16, 16), zarr_format=3),
    "shards": write_zarr(chunks=(4, 8, 8), shards=(8, 16, 16), zarr_format=3),
    "n5": write_n5,
    "raw": write_precomputed("raw"),
    "png": write_precomputed("png"),
    "cseg": write_precomputed("compressed_segmentation", "uint64"),
    "sharded_raw": write_precomputed("raw", sharded=True),
    "sharded_cseg": write_precomputed("compressed_segmentation", "uint32", sharded=True),
}
ALL = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    for name, write in FORMS.items():
        write(folder / name)
    write_precomputed("jpeg")(folder / "jpeg")
    return folder


@pytest.fixture
def web(stored: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    retries = {"max_retries": 4, "initial_delay": "0.01s", "max_delay": "0.05s"}
    monkeypatch.setattr(objects, "_RETRIES", retries)
    objects._context.cache_clear()
    objects._opened_store.cache_clear()
    with served(WebServer(stored)) as server:
        yield server
    objects._context.cache_clear()
    objects._opened_store.cache_clear()


def voxels(path: str) -> bool:
    """Whether a request is for voxels."""
    return not path.endswith(METADATA)


@ALL
@pytest.mark.parametrize("fault", ["503", "cut", "403"])
def test_what_cannot_be_had_is_an_error_and_never_zeros(web, form, fault) -> None:
    web.fault = lambda path: fault if voxels(path) else None
    volume = open_volume(f"{web.url}/{form}")
    with pytest.raises(SourceError, match=r"cannot be fetched|refuses to give it"):
        volume.read()


@ALL
def test_faults_that_pass_change_no_voxel(web, form) -> None:
    count: dict[str, int] = {}

    def thrice(path: str) -> str | None:
        count[path] = count.get(path, 0) + 1
        return {1: "503", 2: "cut", 3: "503"}.get(count[path]) if voxels(path) else None

    web.fault = thrice
    assert (open_volume(f"{web.url}/{form}").read()[0] == IMAGE).all()
    assert max(count.values()) > 3


@ALL
def test_marks_that_change_with_every_answer_change_no_voxel(web, form) -> None:
    web.fault = lambda path: "etag"
    assert (open_volume(f"{web.url}/{form}").read()[0] == IMAGE).all()


def test_jpeg_is_read_through_faults_with_what_it_loses(web) -> None:
    count: dict[str, int] = {}

    def once(path: str) -> str | None:
        count[path] = count.get(path, 0) + 1
        return "cut" if count[path] == 1 else None

    web.fault = once
    found = open_volume(f"{web.url}/jpeg").read()[0].astype(int)
    assert np.abs(found - IMAGE).mean() < 5


def test_a_server_that_sends_elsewhere_says_so(web) -> None:
    web.fault = lambda path: f"302 {web.url}/x{path}"
    with pytest.raises(SourceError, match=r"sends to another address .*curl -sIL"):
        open_volume(f"{web.url}/v2")


@pytest.mark.parametrize("form", ["v2", "v3", "n5", "raw"])
def test_a_chunk_that_is_absent_is_the_fill_value_and_counted(web, form, stored) -> None:
    volume = open_volume(f"{web.url}/{form}")
    web.fault = lambda path: None
    content = web.content
    chunk = {"v2": "1.1.1", "v3": "c/1/1/1", "n5": "1/1/1", "raw": "19-35_20-36_13-21"}[form]
    web.content = lambda path: None if path.endswith(chunk) else content(path)  # type: ignore[method-assign]
    found = volume.read()[0]
    assert (found[8:, 16:, 16:] == 0).all()
    assert (found[:8] == IMAGE[:8]).all()
    assert volume.missing_chunks()[0] == 1


@pytest.mark.parametrize("url", ["s3://b/x.zarr", "gs://a/x.zarr"])
def test_a_name_that_no_bucket_can_have_is_told(url) -> None:
    with pytest.raises(SourceError, match="can be no bucket or host"):
        open_volume(url)
