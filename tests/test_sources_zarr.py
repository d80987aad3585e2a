"""Zarr arrays of both versions and OME-Zarr, against zarr-python and the array written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from sources_checks import arrays, check_block, check_volume, folder
from zarr import codecs

from volprep.errors import SourceError
from volprep.geometry import Box
from volprep.sources import list_datasets, open_labels, open_volume
from volprep.sources.zarrarray import read_array

BLOCKS: list[tuple[bool, dict[str, Any]]] = [
    (True, {"compressors": None}),
    (True, {"compressors": codecs.BloscCodec(cname="lz4")}),
    (True, {"compressors": codecs.ZstdCodec()}),
    (True, {"compressors": codecs.GzipCodec()}),
    (True, {"compressors": codecs.ZstdCodec(), "serializer": codecs.BytesCodec(endian="big")}),
    (True, {"compressors": [codecs.ZstdCodec(), codecs.Crc32cCodec()]}),
    (True, {"shards": (4, 8, 8)}),
    (True, {"shards": (4, 8, 8), "compressors": None}),
    (True, {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}}),
    (True, {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}}),
    (False, {"filters": [codecs.TransposeCodec(order=(2, 1, 0))]}),
    (False, {"compressors": [codecs.ZstdCodec(), codecs.GzipCodec()]}),
]
OLD: list[tuple[bool, dict[str, Any]]] = [
    (True, {"compressors": None}),
    (True, {}),
    (True, {"compressors": "blosc"}),
    (True, {"compressors": "zlib"}),
    (True, {"compressors": "lz4"}),
    (False, {"compressors": "lzma"}),
    (True, {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}}}),
    (False, {"order": "F"}),
]


def old_options(options: dict[str, Any]) -> dict[str, Any]:
    """Codecs of version 2 by their name."""
    import numcodecs

    made = {
        "blosc": numcodecs.Blosc("lz4", shuffle=2),
        "zlib": numcodecs.Zlib(),
        "lz4": numcodecs.LZ4(),
        "lzma": numcodecs.LZMA(),
    }
    name = options.get("compressors")
    return options | ({"compressors": made[name]} if isinstance(name, str) else {})


@given(data=st.data(), how=st.sampled_from(BLOCKS))
def test_version_three_reads_back(data: st.DataObject, how: tuple[bool, dict[str, Any]]) -> None:
    array = data.draw(arrays())
    direct, options = how
    with folder() as place:
        made = zarr.create_array(
            place / "a.zarr", shape=array.shape, dtype=array.dtype, chunks=(2, 4, 4), **options
        )
        made[...] = array
        meta = read_array(place / "a.zarr")
        assert meta is not None
        assert (meta.codecs is not None) == direct
        volume = open_volume(place / "a.zarr")
        assert volume.key is None
        check_volume(volume, array[None], data)


@given(data=st.data(), how=st.sampled_from(OLD), order=st.sampled_from("<>"))
def test_version_two_reads_back(
    data: st.DataObject, how: tuple[bool, dict[str, Any]], order: str
) -> None:
    array = data.draw(arrays())
    direct, options = how
    with folder() as place:
        made = zarr.create_array(
            place / "a.zarr", shape=array.shape, dtype=array.dtype.newbyteorder(order),
            chunks=(2, 4, 4), zarr_format=2, **old_options(options),
        )  # fmt: skip
        made[...] = array
        meta = read_array(place / "a.zarr")
        assert meta is not None
        assert (meta.codecs is not None) == direct
        check_volume(open_volume(place / "a.zarr"), array[None], data)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shards", [None, (4, 8, 8)])
@pytest.mark.parametrize(
    ("dtype", "fill"), [("uint8", 7), ("float32", np.nan), ("float32", -np.inf), ("int16", -3)]
)
def test_chunks_never_written_hold_the_fill_value(
    tmp_path: Path, version: Any, shards: Any, dtype: str, fill: Any
) -> None:
    if version == 2 and shards:
        return
    more = {"shards": shards} if shards else {}
    made = zarr.create_array(
        tmp_path / "a.zarr", shape=(6, 12, 12), dtype=dtype, chunks=(2, 4, 4), fill_value=fill,
        zarr_format=version, **more,
    )  # fmt: skip
    made[2:4, 4:8, :4] = 1
    check_block(open_volume(tmp_path / "a.zarr").read()[0], made[...])


def image(
    place: Path, array: Any, version: int, axes: Any, scales: Any, overall: Any = None
) -> zarr.Group:
    """Write a multiscale image of two levels."""
    group = zarr.create_group(place, zarr_format=2 if version == 4 else 3)
    multiscale: dict[str, Any] = {"axes": axes, "datasets": []}
    for level, scale in enumerate(scales):
        step = 2**level
        small = array[..., ::step, ::step]
        made = group.create_array(f"s{level}", shape=small.shape, dtype=small.dtype)
        made[...] = small
        transforms = [{"type": "scale", "scale": scale}, {"type": "translation",
                      "translation": [0] * len(scale)}]  # fmt: skip
        multiscale["datasets"].append(
            {"path": f"s{level}", "coordinateTransformations": transforms}
        )
    if overall is not None:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": overall}]
    if version == 4:
        group.attrs["multiscales"] = [multiscale | {"version": "0.4"}]
        group.attrs["omero"] = {"channels": []}
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return group


def space(unit: str | None = "micrometer") -> list[dict[str, str]]:
    """The axes z, y and x."""
    return [{"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in "zyx"]


@pytest.mark.parametrize("version", [4, 5])
def test_an_image_is_read_at_its_first_level(tmp_path: Path, version: int) -> None:
    array = np.random.default_rng(0).integers(0, 255, (1, 2, 4, 8, 8)).astype(np.uint8)
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space("nanometer")]
    scales = [[1, 1, 40, 4, 4], [1, 1, 40, 8, 8]]
    image(tmp_path / "a.ome.zarr", array, version, axes, scales)
    volume = open_volume(tmp_path / "a.ome.zarr")
    assert (volume.key, volume.axes) == ("s0", "TCZYX")
    assert volume.spacing == pytest.approx((0.04, 0.004, 0.004))
    check_block(volume.read(), array[0])
    coarse = open_volume(tmp_path / "a.ome.zarr", "s1")
    assert coarse.spacing == pytest.approx((0.04, 0.008, 0.008))
    assert coarse.shape == (2, 4, 4, 4)
    inside = open_volume(tmp_path / "a.ome.zarr" / "s1")
    assert inside.spacing == coarse.spacing
    assert [d.key for d in list_datasets(tmp_path / "a.ome.zarr")] == ["s0"]


def test_levels_may_lie_deeper(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    levels = []
    for i in range(2):
        group.create_array(f"scale{i}/image", shape=(4, 4, 4), dtype="u1")
        scale = [{"type": "scale", "scale": [2.0 + i] * 3}]
        levels.append({"path": f"scale{i}/image", "coordinateTransformations": scale})
    group.attrs["ome"] = {"multiscales": [{"axes": space(), "datasets": levels}]}
    assert open_volume(tmp_path / "a.zarr").spacing == (2, 2, 2)
    assert open_volume(tmp_path / "a.zarr", "scale1/image").spacing == (3, 3, 3)
    assert [d.key for d in list_datasets(tmp_path / "a.zarr")] == ["scale0/image"]


@pytest.mark.parametrize("version", [4, 5])
def test_a_scale_of_the_whole_image_multiplies_its_levels(tmp_path: Path, version: int) -> None:
    array = np.zeros((2, 4, 4), np.uint8)
    image(tmp_path / "a.zarr", array, version, space("micrometer"), [[2, 1, 1]], [0.5, 0.1, 0.1])
    assert open_volume(tmp_path / "a.zarr").spacing == pytest.approx((1, 0.1, 0.1))


@pytest.mark.parametrize(("unit", "note"), [(None, "has no unit"), ("second", "is no length")])
def test_a_scale_that_is_no_length_is_a_note(tmp_path: Path, unit: Any, note: str) -> None:
    image(tmp_path / "a.zarr", np.zeros((2, 4, 4), np.uint8), 5, space(unit), [[1, 1, 1]])
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.spacing is None
    assert note in volume.notes[0]


def test_time_points_are_refused(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time"}, *space()]
    image(tmp_path / "a.zarr", np.zeros((3, 2, 4, 4), np.uint8), 5, axes, [[1, 1, 1, 1]])
    with pytest.raises(SourceError, match="T has 3 entries"):
        open_volume(tmp_path / "a.zarr")


def test_old_images_without_named_axes_are_tczyx(tmp_path: Path) -> None:
    group = image(tmp_path / "a.zarr", np.ones((1, 2, 3, 4, 4), np.uint8), 4, None, [[1] * 5])
    meta = group.attrs["multiscales"][0]
    del meta["axes"], meta["datasets"][0]["coordinateTransformations"]
    group.attrs["multiscales"] = [meta]
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.shape == (2, 3, 4, 4)
    assert volume.spacing is None


@pytest.mark.parametrize("version", [4, 5])
def test_the_labels_of_an_image_are_found(tmp_path: Path, version: int) -> None:
    array = np.ones((2, 4, 4), np.uint16)
    image(tmp_path / "a.zarr", array, version, space(), [[1, 1, 1]])
    labels = zarr.create_group(tmp_path / "a.zarr" / "labels", zarr_format=2 if version == 4 else 3)
    image(tmp_path / "a.zarr" / "labels" / "cells", 2 * array, version, space(), [[1, 1, 1]])
    names = {"labels": ["cells"]}
    labels.attrs.update(names if version == 4 else {"ome": names})
    assert open_volume(tmp_path / "a.zarr").key == "s0"
    found = open_labels(tmp_path / "a.zarr")
    assert found.key == "labels/cells/s0"
    assert found.spacing == (1, 1, 1)
    check_block(found.read(), 2 * array[None])
    check_block(open_labels(tmp_path / "a.zarr", "labels/cells").read(), 2 * array[None])
    names = {"labels": ["cells", "nuclei"]}
    labels.attrs.update(names if version == 4 else {"ome": names})
    with pytest.raises(SourceError, match="give the key of one: labels/cells, labels/nuclei"):
        open_labels(tmp_path / "a.zarr")


def test_an_image_that_is_itself_labels_is_opened_as_such(tmp_path: Path) -> None:
    image(tmp_path / "a.zarr", np.ones((2, 4, 4), np.int32), 5, space(), [[1, 1, 1]])
    assert open_labels(tmp_path / "a.zarr").dtype == np.uint32


def test_a_plain_group_is_searched_by_name(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    for name in ("volumes/raw", "volumes/labels"):
        group.create_array(name, shape=(2, 3, 4), dtype="u1")[...] = 1
    assert open_volume(tmp_path / "a.zarr").key == "volumes/raw"
    assert open_labels(tmp_path / "a.zarr").key == "volumes/labels"
    with pytest.raises(SourceError, match=r"no dataset 'volumes/row'; did you mean 'volumes/raw'"):
        open_volume(tmp_path / "a.zarr", "volumes/row")
    with pytest.raises(SourceError, match=r"it holds volumes/labels \(2×3×4\)"):
        open_volume(tmp_path / "a.zarr", "volumes")


def test_one_image_converted_by_bioformats2raw_is_found(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    image(tmp_path / "a.zarr" / "0", np.ones((2, 4, 4), np.uint8), 4, space(), [[1, 1, 1]])
    assert open_volume(tmp_path / "a.zarr").key == "0/s0"


def test_axes_named_by_the_array_are_read(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "a.zarr", shape=(3, 4, 5, 2), dtype="u1", dimension_names=["z", "y", "x", "c"]
    )
    assert open_volume(tmp_path / "a.zarr").shape == (2, 3, 4, 5)
    zarr.create_array(tmp_path / "b.zarr", shape=(3, 4, 5, 2), dtype="u1")
    with pytest.raises(SourceError, match="axes: CZYX"):
        open_volume(tmp_path / "b.zarr")
    zarr.create_array(tmp_path / "c.zarr", shape=(3, 4, 5), dtype="u1")
    assert "first axis (3) read as Z" in open_volume(tmp_path / "c.zarr").notes[0]


@pytest.mark.parametrize("shards", [None, (4, 8, 8)])
@pytest.mark.parametrize("keep", [0, 0.5, 0.95])
def test_a_chunk_cut_short_is_an_error(tmp_path: Path, shards: Any, keep: float) -> None:
    more = {"shards": shards} if shards else {}
    made = zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 8, 8), dtype="u2", chunks=(2, 4, 4), **more
    )
    made[...] = np.random.default_rng(0).integers(0, 9999, (4, 8, 8))
    file = next(p for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file())
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(SourceError, match=r"a\.zarr"):
        open_volume(tmp_path / "a.zarr").read()


def test_a_checksum_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    made = zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 8), dtype="u2", chunks=(4, 8),
        compressors=[codecs.Crc32cCodec()],
    )  # fmt: skip
    made[...] = 1
    file = tmp_path / "a.zarr" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.zarr: cannot be read"):
        open_volume(tmp_path / "a.zarr").read()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1, 8]}, {"shape": "x"}, {"shape": [4]}, {"codecs": []}, {"codecs": [{}]},
        {"data_type": "complex64"}, {"data_type": {"name": "wild"}}, {"chunk_grid": {}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 8]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**40, 2**40]}}},
        {"fill_value": "what"}, {"chunk_key_encoding": None},
    ],
)  # fmt: skip
def test_damaged_metadata_are_errors(tmp_path: Path, change: dict[str, Any]) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 8), dtype="u2", chunks=(4, 8))
    meta = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(meta | change))
    with pytest.raises(SourceError, match=r"a\.zarr"):
        open_volume(tmp_path / "a.zarr").read()


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00"])
def test_unreadable_metadata_are_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    for name in ("zarr.json", ".zarray"):
        (tmp_path / "a.zarr" / name).write_text(text)
        with pytest.raises(SourceError, match=r"a\.zarr"):
            open_volume(tmp_path / "a.zarr")
        (tmp_path / "a.zarr" / name).unlink()


def test_an_empty_folder_called_zarr_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(SourceError, match="holds no array"):
        open_volume(tmp_path / "a.zarr")


def test_a_key_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "b.zarr", shape=(4, 8), dtype="u2")
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(SourceError, match="leads out of the folder"):
        open_volume(tmp_path / "a.zarr", "../b.zarr")


def test_an_array_larger_than_memory_is_opened_and_read_in_boxes(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(2**20,) * 3, dtype="u2", chunks=(64, 64, 64))
    volume = open_volume(tmp_path / "a.zarr")
    box = Box.at((2**20 - 9,) * 3, (9, 9, 9))
    check_block(volume.read(box), np.zeros((1, 9, 9, 9), np.uint16))
    with pytest.raises(SourceError, match="does not fit into memory"):
        volume.read()
