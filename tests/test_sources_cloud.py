"""Volumes in object stores, behind web servers and in archives: every kind reads as from a disk."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorstore as ts
import zarr
from sources_checks import check_block
from stores import KEYS, GoogleServer, WebServer, put, s3_served, served

from volprep import objects
from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.places import RemotePath, path_of
from volprep.sources import (
    list_datasets,
    open_labels,
    open_volume,
    stored_objects,
)

SHAPE = (20, 40, 50)
IMAGE = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Requests are made again as often, after shorter pauses; nothing is kept between tests."""
    retries = {"max_retries": 5, "initial_delay": "0.01s", "max_delay": "0.1s"}
    monkeypatch.setattr(objects, "_RETRIES", retries)
    objects._context.cache_clear()
    objects._opened_store.cache_clear()
    yield
    objects._context.cache_clear()
    objects._opened_store.cache_clear()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    with served(WebServer(tmp_path)) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[tuple[str, Any]]:
    with s3_served() as served_there:
        yield served_there


@pytest.fixture
def bucket(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    endpoint, client = s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    yield client
    for item in client.list_objects_v2(Bucket="cells").get("Contents", []):
        client.delete_object(Bucket="cells", Key=item["Key"])


def write_zarr(folder: Path, *, planes: int = SHAPE[0], **options: Any) -> npt.NDArray[np.uint16]:
    """An array of which only the first planes are written; what it reads as."""
    made = zarr.create_array(
        folder, shape=SHAPE, chunks=(4, 16, 16), dtype="u2", fill_value=7, **options
    )
    made[:planes] = IMAGE[:planes]
    wanted = IMAGE.copy()
    wanted[planes:] = 7
    return wanted


def write_ome(folder: Path) -> npt.NDArray[np.uint16]:
    """An OME-Zarr of two levels with labels; its levels are consolidated nowhere."""
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    for name, step in (("0", 1), ("1", 2)):
        level = IMAGE[:, ::step, ::step]
        group.create_array(
            name, shape=level.shape, chunks=(5, 20, 25), dtype="u2",
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )[...] = level  # fmt: skip
    group.attrs["multiscales"] = [{
        "version": "0.4",
        "axes": [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"],
        "datasets": [
            {"path": p, "coordinateTransformations": [{"type": "scale", "scale": [40, s, s]}]}
            for p, s in (("0", 4), ("1", 8))
        ],
    }]  # fmt: skip
    labels = group.create_group("labels")
    labels.attrs["labels"] = ["cells"]
    cells = labels.create_group("cells")
    cells.create_array("0", shape=SHAPE, chunks=(5, 20, 25), dtype="u4")[...] = IMAGE % 5
    cells.attrs["multiscales"] = [{
        "version": "0.4",
        "axes": [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [40, 4, 4]}]}
        ],
    }]  # fmt: skip
    return IMAGE


def write_precomputed(
    folder: Path, array: npt.NDArray[Any], encoding: str = "raw", **scale: Any
) -> None:
    """A precomputed volume of one channel, of two scales."""
    for number, step in enumerate((1, 2)):
        level = array[:, ::step, ::step]
        store = ts.open({
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": str(folder)},
            "multiscale_metadata": {
                "data_type": str(array.dtype), "num_channels": 1,
                "type": "segmentation" if encoding == "compressed_segmentation" else "image",
            },
            "scale_metadata": {
                "size": level.shape[::-1], "resolution": [4 * step, 4 * step, 40],
                "chunk_size": [16, 16, 8], "encoding": encoding,
                "voxel_offset": [100 // step, 60 // step, 9], **scale,
            },
        }, create=True).result()  # fmt: skip
        store[..., 0].write(level.T).result()
        del number


def write_n5(folder: Path, compression: str = "gzip") -> None:
    """An N5 pyramid as BigDataViewer has it."""
    root = {"n5": "2.2.0", "pixelResolution": {"unit": "nm", "dimensions": [4, 4, 40]}}
    for name, step in (("s0", 1), ("s1", 2)):
        level = IMAGE[:, ::step, ::step]
        ts.open({
            "driver": "n5", "kvstore": {"driver": "file", "path": str(folder / "em" / name)},
            "metadata": {
                "dimensions": level.shape[::-1], "blockSize": [16, 16, 8], "dataType": "uint16",
                "compression": {"type": compression},
            },
        }, create=True).result().write(level.T).result()  # fmt: skip
        file = folder / "em" / name / "attributes.json"
        told = json.loads(file.read_text())
        file.write_text(json.dumps({**told, "downsamplingFactors": [step, step, 1]}))
    (folder / "em" / "attributes.json").write_text(json.dumps(root))
    (folder / "attributes.json").write_text(json.dumps({"n5": "2.2.0"}))


def check_boxes(volume: Any, wanted: npt.NDArray[Any]) -> None:
    check_block(volume.read(), wanted[None])
    check_block(volume.read(Box((1, 2, 3), (9, 31, 47))), wanted[None, 1:9, 2:31, 3:47])
    check_block(volume.read(Box((19, 39, 49), (20, 40, 50))), wanted[None, 19:, 39:, 49:])
    again = np.zeros_like(wanted)
    for box, block in volume.slabs(7):
        again[box.slices] = block[0]
    np.testing.assert_array_equal(again, wanted)


@pytest.mark.parametrize("options", [
    {"zarr_format": 2}, {"zarr_format": 3}, {"zarr_format": 3, "shards": (8, 32, 32)},
])  # fmt: skip
def test_a_zarr_array_reads_from_s3_and_the_web_as_from_a_disk(
    tmp_path: Path, web: WebServer, bucket: Any, options: dict[str, Any]
) -> None:
    wanted = write_zarr(tmp_path / "a.zarr", planes=8, **options)
    put(bucket, tmp_path / "a.zarr", "deep/a.zarr")
    local = open_volume(tmp_path / "a.zarr")
    for url in (f"{web.url}/a.zarr", "s3://cells/deep/a.zarr"):
        with open_volume(url) as volume:
            assert volume.name == url
            assert (volume.shape, volume.dtype, volume.chunks) == (
                local.shape, local.dtype, local.chunks,
            )  # fmt: skip
            check_boxes(volume, wanted)
            absent, total = local.missing_chunks()
            assert volume.missing_chunks() == (absent, total)
            assert absent == total * 3 // 5
            check_block(pickle.loads(pickle.dumps(volume)).read(), wanted[None])
            told = {note.name for note in volume.notes}
            assert ("chunks-unlisted" in told) == url.startswith("http")


def test_an_image_of_several_levels_tells_its_levels_spacing_and_labels(
    tmp_path: Path, web: WebServer, bucket: Any
) -> None:
    write_ome(tmp_path / "a.zarr")
    put(bucket, tmp_path / "a.zarr", "a.zarr")
    for url in (f"{web.url}/a.zarr", "s3://cells/a.zarr"):
        image, labels = open_volume(url), open_labels(url)
        check_boxes(image, IMAGE)
        assert image.spacing == (0.04, 0.004, 0.004)
        np.testing.assert_array_equal(labels.read()[0], IMAGE % 5)
        coarse = open_volume(url, key="1")
        assert (coarse.shape, coarse.spacing) == ((1, 20, 20, 25), (0.04, 0.008, 0.008))
        check_block(open_volume(f"{url}/1").read(), IMAGE[None, :, ::2, ::2])
        assert open_volume(f"{url}/1").spacing == coarse.spacing
        assert [d.key for d in list_datasets(url)] == ["0", "labels/cells/0"]


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
def test_precomputed_volumes_keep_offset_resolution_and_ids(
    tmp_path: Path, web: WebServer, bucket: Any, encoding: str
) -> None:
    ids = (IMAGE.astype(np.uint64) // 50) * 10**15 if encoding != "raw" else IMAGE
    block = {} if encoding == "raw" else {"compressed_segmentation_block_size": [8, 8, 8]}
    write_precomputed(tmp_path / "p", ids, encoding, **block)
    put(bucket, tmp_path / "p", "p")
    for place in (tmp_path / "p", f"{web.url}/p", "s3://cells/p", f"precomputed://{web.url}/p"):
        volume = open_volume(place)
        assert volume.dtype == ids.dtype
        check_boxes(volume, ids)
        assert volume.spacing == (0.04, 0.004, 0.004)
        assert volume.placement is not None
        np.testing.assert_allclose(volume.placement.origin, (0.36, 0.24, 0.4))
        for key in ("1", "8_8_40"):
            coarse = open_volume(place, key=key)
            check_block(coarse.read(), ids[None, :, ::2, ::2])
            assert coarse.spacing == (0.04, 0.008, 0.008)
    with pytest.raises(SourceError, match="no scale '5'; give one of 4_4_40, 8_8_40"):
        open_volume(tmp_path / "p", key="5")


def test_compressed_segmentation_is_what_its_specification_says(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 5, (8, 16, 16)).astype(np.uint64) * 2**40
    ids[:, :8, :8] = 2**63  # a block of one value takes no bits
    write_precomputed(
        tmp_path / "p", ids, "compressed_segmentation", compressed_segmentation_block_size=[8, 8, 8]
    )
    chunk = (tmp_path / "p" / "4_4_40" / "100-116_60-76_9-17").read_bytes()
    np.testing.assert_array_equal(slow_decode(chunk, ids.shape, 8), ids)
    check_block(open_volume(tmp_path / "p").read(), ids[None])


def slow_decode(chunk: bytes, shape: tuple[int, ...], block: int) -> npt.NDArray[np.uint64]:
    """The slow reference: voxel by voxel, after Neuroglancer's description of the format."""
    words = np.frombuffer(chunk, "<u4")[1:]  # the first word is where the one channel begins
    out = np.zeros(shape, np.uint64)
    grid = [n // block for n in shape]
    for z, y, x in np.ndindex(*shape):
        number = x // block + grid[2] * (y // block + grid[1] * (z // block))
        head = words[2 * number]
        table, bits, values = int(head & 0xFFFFFF), int(head >> 24), int(words[2 * number + 1])
        place = x % block + block * (y % block + block * (z % block))
        word = int(words[values + place * bits // 32]) if bits else 0
        entry = (word >> (place * bits % 32)) & ((1 << bits) - 1)
        low, high = int(words[table + 2 * entry]), int(words[table + 2 * entry + 1])
        out[z, y, x] = low + (high << 32)
    return out


@pytest.mark.parametrize("compression", ["raw", "gzip", "bzip2", "xz"])
def test_n5_has_its_axes_turned_and_its_levels_and_resolution_read(
    tmp_path: Path, web: WebServer, bucket: Any, compression: str
) -> None:
    write_n5(tmp_path / "a.n5", compression)
    put(bucket, tmp_path / "a.n5", "a.n5")
    for place in (tmp_path / "a.n5", f"{web.url}/a.n5", "s3://cells/a.n5"):
        volume = open_volume(place, key="em")
        assert volume.key == "em/s0"
        check_boxes(volume, IMAGE)
        assert volume.spacing == (0.04, 0.004, 0.004)
        assert volume.missing_chunks() == (0, 3 * 3 * 4)
        coarse = open_volume(place, key="em/s1")
        check_block(coarse.read(), IMAGE[None, :, ::2, ::2])
        assert coarse.spacing == (0.04, 0.008, 0.008)
    check_boxes(open_volume("s3://cells/a.n5"), IMAGE)
    assert [d.key for d in list_datasets("s3://cells/a.n5")] == ["em/s0"]


def test_n5_transforms_of_openorganelle_give_spacing_and_place(tmp_path: Path) -> None:
    write_n5(tmp_path / "a.n5")
    file = tmp_path / "a.n5/em/s0/attributes.json"
    told = json.loads(file.read_text())
    told["transform"] = {
        "axes": ["z", "y", "x"], "scale": [5.24, 4.0, 4.0], "translate": [52.4, 0.0, 8.0],
        "units": ["nm", "nm", "nm"],
    }  # fmt: skip
    file.write_text(json.dumps(told))
    volume = open_volume(tmp_path / "a.n5", key="em/s0")
    assert volume.spacing == pytest.approx((0.00524, 0.004, 0.004))
    assert volume.placement is not None
    assert volume.placement.origin == pytest.approx((0.0524, 0.0, 0.008))


def test_google_cloud_storage_is_read(tmp_path: Path) -> None:
    """In a process of its own: the address of the store is read once, by the library."""
    write_zarr(tmp_path / "cells" / "a.zarr", planes=8, zarr_format=2)
    code = (
        "from volprep.sources import open_volume, stored_objects\n"
        "from volprep.places import path_of\n"
        "v = open_volume('gs://cells/a.zarr'); a = v.read()\n"
        "print(a.shape, int(a.astype('u8').sum()), v.missing_chunks())\n"
        "print(len(stored_objects(path_of('gs://cells/a.zarr'))))\n"
    )
    with served(GoogleServer(tmp_path)) as server:
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
            env={"TENSORSTORE_GCS_HTTP_URL": server.url, "PATH": "/usr/bin",
                 "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x"},
        )  # fmt: skip
    wanted = open_volume(tmp_path / "cells" / "a.zarr")
    total = int(wanted.read().astype(np.uint64).sum())
    files = sum(f.is_file() for f in (tmp_path / "cells").rglob("*"))
    assert run.stdout.split("\n")[:2] == [
        f"(1, 20, 40, 50) {total} {wanted.missing_chunks()}", str(files),
    ], run.stderr  # fmt: skip


@pytest.mark.parametrize("fault", ["503", "cut", "slow"])
def test_requests_that_fail_for_a_while_are_made_again(
    tmp_path: Path, web: WebServer, fault: str
) -> None:
    wanted = write_zarr(tmp_path / "a.zarr", planes=8, zarr_format=2, compressors=None)
    failed: set[str] = set()

    def first_time(path: str) -> str | None:
        if path in failed or (fault == "slow" and not path.endswith(".0.0")):
            return None
        failed.add(path)
        return fault

    web.fault = first_time
    check_block(open_volume(f"{web.url}/a.zarr").read(), wanted[None])
    assert any(path.endswith("/0.0.0") for path in failed)


@pytest.mark.parametrize("fault", ["503", "cut", "403"])
@pytest.mark.parametrize("what", [".zarray", "0.1.1"])
def test_what_cannot_be_fetched_is_an_error_and_never_zeros(
    tmp_path: Path, web: WebServer, fault: str, what: str
) -> None:
    write_zarr(tmp_path / "a.zarr", zarr_format=2, compressors=None)
    web.fault = lambda path: fault if path.endswith(what) else None
    with pytest.raises(SourceError, match=r"a\.zarr") as told:
        open_volume(f"{web.url}/a.zarr").read()
    text = "refuses to give it" if fault == "403" else "cannot be fetched"
    assert text in str(told.value)


def test_a_chunk_that_cannot_be_asked_for_is_not_counted_as_absent(
    tmp_path: Path, web: WebServer
) -> None:
    write_zarr(tmp_path / "a.zarr", zarr_format=2)
    volume = open_volume(f"{web.url}/a.zarr")
    assert volume.missing_chunks() == (0, 60)
    web.fault = lambda path: "503" if path.endswith("2.1.1") else None
    with pytest.raises(SourceError, match="cannot be fetched"):
        open_volume(f"{web.url}/a.zarr").missing_chunks()


def test_a_server_that_never_answers_is_given_up(
    tmp_path: Path, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(tmp_path / "a.zarr", zarr_format=2)
    monkeypatch.setattr(objects, "PATIENCE", 0.7)
    volume = open_volume(f"{web.url}/a.zarr")
    web.fault = lambda path: "hang" if path.endswith("1.0.0") else None
    began = time.monotonic()
    with pytest.raises(SourceError, match="has not answered in time"):
        volume.read()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_chunk_that_is_cut_short_in_the_store_is_an_error(
    tmp_path: Path, web: WebServer, compressed: bool, keep: float
) -> None:
    options = {} if compressed else {"compressors": None}
    write_zarr(tmp_path / "a.zarr", zarr_format=2, **options)
    chunk = tmp_path / "a.zarr/1.1.1"
    chunk.write_bytes(chunk.read_bytes()[: int(chunk.stat().st_size * keep)])
    with pytest.raises(SourceError, match=r"cannot be read .*cut short"):
        open_volume(f"{web.url}/a.zarr").read()


def test_a_store_that_is_gone_and_a_bucket_that_never_was_are_told_apart(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match=r"s3://nobody-has-this/a\.zarr: holds no Zarr, N5"):
        open_volume("s3://nobody-has-this/a.zarr")
    for place in ("s3://b", "gs://B"):
        with pytest.raises(SourceError, match=f"{place}: can be no bucket or host"):
            open_volume(f"{place}/a.zarr")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="cannot be fetched"):
        open_volume("s3://cells/a.zarr")


def test_other_formats_behind_a_url_are_refused(tmp_path: Path, web: WebServer) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*")
    for name in ("a.tif", "nothing.zarr"):
        with pytest.raises(SourceError, match="holds no Zarr, N5 or precomputed volume"):
            open_volume(f"{web.url}/{name}")


@pytest.mark.parametrize("inside", ["", "a.zarr/"])
def test_a_zipped_zarr_reads_as_the_folder(tmp_path: Path, web: WebServer, inside: str) -> None:
    write_ome(tmp_path / "a.zarr")
    with zipfile.ZipFile(tmp_path / "b.zarr.zip", "w") as archive:
        for file in (tmp_path / "a.zarr").rglob("*"):
            if file.is_file():
                archive.write(file, f"{inside}{file.relative_to(tmp_path / 'a.zarr')}")
    for place in (tmp_path / "b.zarr.zip", f"{web.url}/b.zarr.zip"):
        image = open_volume(place)
        check_boxes(image, IMAGE)
        assert image.spacing == (0.04, 0.004, 0.004)
        assert str(image.path) == str(place)
        np.testing.assert_array_equal(open_labels(place).read()[0], IMAGE % 5)
        assert image.missing_chunks() == (0, 16)
    cut = (tmp_path / "b.zarr.zip").read_bytes()
    (tmp_path / "c.zarr.zip").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(SourceError, match=r"c\.zarr\.zip"):
        open_volume(tmp_path / "c.zarr.zip")


def test_claims_that_no_chunk_stands_behind_are_refused(tmp_path: Path, web: WebServer) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(10**5,) * 3, chunks=(100,) * 3, dtype="u2")
    with pytest.raises(SourceError, match="none of 1000 of its chunks is there"):
        open_volume(f"{web.url}/a.zarr")


def test_the_marks_of_a_store_change_with_what_it_holds(
    tmp_path: Path, web: WebServer, bucket: Any
) -> None:
    write_zarr(tmp_path / "a.zarr", zarr_format=2)
    put(bucket, tmp_path / "a.zarr", "a.zarr")
    place = path_of("s3://cells/a.zarr")
    before = stored_objects(place)
    assert len(before) == 61 or len(before) == 62
    assert stored_objects(place) == before
    bucket.put_object(Bucket="cells", Key="a.zarr/0.0.0", Body=b"other")
    after = stored_objects(place)
    changed = [b[0] for b, a in zip(before, after, strict=True) if a != b]
    assert changed == ["0.0.0"]
    bucket.delete_object(Bucket="cells", Key="a.zarr/0.0.1")
    assert len(stored_objects(place)) == len(before) - 1
    # A web server lists nothing: metadata alone are known.
    assert [name for name, _ in stored_objects(path_of(f"{web.url}/a.zarr"))][:1] == [".zarray"]
    with pytest.raises(SourceError, match="does not exist"):
        stored_objects(path_of("s3://cells/nothing"))


def test_of_many_objects_some_are_asked_for(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zarr(tmp_path / "a.zarr", planes=8, zarr_format=2)
    put(bucket, tmp_path / "a.zarr", "a.zarr")
    monkeypatch.setattr(objects, "MOST_ASKED", 10)
    found = stored_objects(path_of("s3://cells/a.zarr"))
    marked = [name for name, mark in found if mark]
    assert 8 <= len(marked) <= 12
    assert ".zarray" in marked
    absent, looked = open_volume("s3://cells/a.zarr").missing_chunks()
    assert (absent, looked) == (6, 10)


def test_a_forked_process_says_what_to_do(tmp_path: Path, web: WebServer) -> None:
    write_zarr(tmp_path / "a.zarr", zarr_format=2)
    volume = open_volume(f"{web.url}/a.zarr")
    volume.read(Box((0, 0, 0), (1, 1, 1)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(volume, queue))
    child.start()
    assert 'multiprocessing_context="spawn"' in queue.get(timeout=20)
    child.join(20)


def _read_in_child(volume: Any, queue: Any) -> None:
    try:
        queue.put(str(volume.read().sum()))
    except SourceError as error:
        queue.put(str(error))


def test_without_the_library_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorstore'] = None\n"
        "from volprep.sources import open_volume\n"
        "open_volume('s3://cells/a.zarr')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "volprep[cloud]"' in run.stderr
    assert "MissingDependencyError" in run.stderr


def test_a_url_keeps_a_paths_manners() -> None:
    place = path_of("s3://cells/a/b.zarr")
    assert isinstance(place, RemotePath)
    assert (place.name, place.suffix, place.stem) == ("b.zarr", ".zarr", "b")
    assert str(place / "labels" / "x") == "s3://cells/a/b.zarr/labels/x"
    assert str(place.parent) == "s3://cells/a"
    assert str(Path("/home/me") / place) == "s3://cells/a/b.zarr"
    assert place.resolve() == place.absolute() == place.expanduser() == place
    assert (place / "0").relative_to(place).as_posix() == "0"
    assert pickle.loads(pickle.dumps(place)) == place
    assert str(path_of(Path("https://host:80/a/b"))) == "https://host:80/a/b"
    assert (place.store, place.below) == ("s3://cells", "a/b.zarr")
    assert not isinstance(path_of("/a/s3:/b"), RemotePath)


NOT_KNOWN: list[tuple[str, dict[str, Any], str]] = [
    ("n5", {"compression": {"type": "lz9"}}, 'compression.type: "lz9" is not known here'),
    ("n5", {"compression": "gzip"}, "compression: Expected object"),
    ("n5", {"dataType": "string"}, "holds string"),
    ("n5", {"blockSize": [0, 1, 1]}, "blockSize = [0, 1, 1]"),
    ("n5", {"dimensions": [-1, 5, 5]}, "dimensions = [-1, 5, 5]"),
    ("n5", {"n5": "9.0.0"}, "n5 = '9.0.0'"),
    ("info", {"encoding": "jxl9"}, 'received: "jxl9"'),
    ("info", {"sharding": {"@type": "v9"}}, "scales.sharding.@type"),
    ("info", {"size": [-3, 4, 4]}, "size = [-3, 4, 4]"),
    ("info", {"resolution": [float("nan"), 8, 8]}, "resolution = [nan, 8, 8]"),
    ("info", {"chunk_sizes": []}, "chunk_sizes = []"),
    ("info", {"key": "../../x"}, "leads out of the folder"),
]


@pytest.mark.parametrize(("kind", "change", "words"), NOT_KNOWN)
def test_what_metadata_name_and_nobody_here_knows_is_named_and_never_called_damage(
    tmp_path: Path, kind: str, change: dict[str, Any], words: str
) -> None:
    if kind == "n5":
        write_n5(tmp_path / "a.n5")
        file = (
            tmp_path / "a.n5" / ("attributes.json" if "n5" in change else "em/s0/attributes.json")
        )
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        path = tmp_path / "a.n5"
    else:
        path = tmp_path / "a.precomputed"
        write_precomputed(path, IMAGE)
        info = json.loads((path / "info").read_text())
        info["scales"][0] |= change
        (path / "info").write_text(json.dumps(info))
    with pytest.raises(SourceError) as caught:
        open_volume(path).read()
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_absent_chunks_of_precomputed_volumes_are_counted(
    tmp_path: Path, bucket: Any, place: str
) -> None:
    folder = tmp_path / "a.precomputed"
    write_precomputed(folder, IMAGE)
    files = sorted((folder / "4_4_40").iterdir())
    files[0].unlink()
    put(bucket, folder, "a.precomputed")
    volume = open_volume(folder if place == "disk" else "s3://cells/a.precomputed")
    assert volume.missing_chunks() == (1, len(files))
