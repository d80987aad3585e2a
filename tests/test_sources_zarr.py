"""Zarr arrays of both versions and OME-Zarr, against zarr-python and the array written."""

from __future__ import annotations

import json
import re
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
    with pytest.raises(SourceError, match=r"a\.zarr: chunk c/0/0 cannot be read"):
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
    shape = (2**20, 2**20, 4)
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="u2", chunks=(2**10, 2**20, 4))
    made = zarr.open_array(tmp_path / "a.zarr")
    with pytest.raises(SourceError, match="claims 4398046511104 voxels, and 0 of the 1024 chunks"):
        open_volume(tmp_path / "a.zarr")
    chunk = tmp_path / "a.zarr/c/3/0/0"
    chunk.parent.mkdir(parents=True)
    chunk.touch()
    chunk.with_name("1").touch()  # beyond the grid
    with pytest.raises(SourceError, match="and 1 of the 1024 chunks"):
        open_volume(tmp_path / "a.zarr")
    chunk.parent.parent.with_name("5").mkdir()
    (chunk.parent.parent.with_name("5") / "0").mkdir()
    (chunk.parent.parent.with_name("5") / "0" / "0").touch()
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.shape == (1, *made.shape)
    assert volume.missing_chunks() == (1022, 1024)
    with pytest.raises(SourceError, match="does not fit into memory"):
        volume.read()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["v2", "default"])
@pytest.mark.parametrize("separator", [".", "/"])
def test_chunks_that_were_never_written_are_counted(
    tmp_path: Path, zarr_format: Any, name: Any, separator: Any
) -> None:
    if zarr_format == 2 and name == "default":
        pytest.skip("version 2 has one way to name chunks")
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(5, 8, 9),
        chunks=(2, 4, 4),
        dtype="u2",
        zarr_format=zarr_format,
        chunk_key_encoding={"name": name, "separator": separator},
    )
    array[:2, :4, :] = 7
    array[4:, 4:, 8:] = 7
    assert open_volume(tmp_path / "a.zarr").missing_chunks() == (18 - 4, 18)


def test_chunks_that_are_not_in_a_shard_are_counted(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(5, 8, 9), chunks=(2, 2, 2), shards=(4, 4, 4), dtype="u2"
    )
    array[:2, :2, :] = 7
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.missing_chunks() == (60 - 5, 60)
    array[:] = 7
    assert volume.missing_chunks() == (0, 60)


@pytest.mark.parametrize("told", [None, "."])
@pytest.mark.parametrize("shape", [(8, 9), (5, 8, 9)])
def test_nested_chunks_are_recognised_whatever_the_metadata_say(
    tmp_path: Path, told: str | None, shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(1, 200, shape).astype(np.uint8)
    made = zarr.create_array(
        tmp_path / "a.zarr",
        shape=shape,
        chunks=(4,) * len(shape),
        dtype="u1",
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    made[...] = array
    _edit(tmp_path / "a.zarr/.zarray", lambda meta: meta.update(dimension_separator=told))
    volume = open_volume(tmp_path / "a.zarr")
    check_block(volume.read(), array.reshape(1, *((1,) * (3 - len(shape))), *shape))
    assert "chunks-nested" in [note.name for note in volume.notes]
    assert volume.missing_chunks()[0] == 0


def _edit(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _image(folder: Path, version: str, image: dict[str, Any], shape: Any = (2, 3, 4)) -> Path:
    """An OME-Zarr image of one level, with these metadata."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.create_array("0", data=np.ones(shape, np.uint8))
    group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return folder


AXES = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]


def _level(*transformations: Any, path: str = "0") -> dict[str, Any]:
    return {"path": path, "coordinateTransformations": list(transformations)}


def _scale(*numbers: Any) -> dict[str, Any]:
    return {"type": "scale", "scale": list(numbers)}


def _move(*numbers: Any) -> dict[str, Any]:
    return {"type": "translation", "translation": list(numbers)}


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"axes": AXES, "datasets": [_level(_scale(1, 1))]}, "datasets[0].coordinateTransform"),
        ({"axes": AXES, "datasets": [_level(_move(1, 1))]}, "a translation of 2 numbers for 3"),
        (
            {"axes": AXES, "datasets": [_level()], "coordinateTransformations": [_scale(1, 1)]},
            "multiscales[0].coordinateTransformations has a scale of 2 numbers for 3 axes",
        ),
        ({"axes": AXES, "datasets": [_level(_scale("a", 1, 1))]}, "no list of numbers"),
        ({"axes": AXES, "datasets": [_level(path="1")]}, "multiscales[0].datasets[0].path"),
        ({"axes": AXES, "datasets": [{"path": 5}]}, "multiscales[0].datasets[0].path is missing"),
        ({"axes": AXES}, "multiscales[0].datasets is no list"),
        ({"axes": AXES[1:], "datasets": [_level()]}, "name 2 axes (YX), and the array has 3"),
        ({"axes": [{"type": "space"}] * 3, "datasets": [_level()]}, "multiscales[0].axes names no"),
    ],
)
def test_metadata_that_do_not_fit_are_errors_that_name_the_key(
    tmp_path: Path, image: dict[str, Any], words: str
) -> None:
    with pytest.raises(SourceError, match=re.escape(words)):
        open_volume(_image(tmp_path / "a.zarr", "0.5", image))


def test_an_unknown_version_is_named(tmp_path: Path) -> None:
    image = {"axes": AXES, "datasets": [_level(_scale(3, 2, 1))]}
    volume = open_volume(_image(tmp_path / "a.zarr", "7.1", image))
    assert volume.spacing == (3, 2, 1)
    assert any("'7.1' is not known" in note for note in volume.notes)
    _edit(tmp_path / "a.zarr/0/zarr.json", lambda meta: meta.update(zarr_format=9))
    with pytest.raises(SourceError, match="zarr_format 9, which is not known"):
        open_volume(tmp_path / "a.zarr")


def test_coordinate_systems_are_read_as_far_as_axes_and_scale_go(tmp_path: Path) -> None:
    systems = [
        {"name": "pixels", "axes": [{"name": a, "type": "array"} for a in "zyx"]},
        {"name": "physical", "axes": AXES},
    ]
    steps = {"type": "sequence", "output": "physical", "transformations": [_scale(3, 2, 1)]}
    image = {"coordinateSystems": systems, "datasets": [_level(steps)]}
    volume = open_volume(_image(tmp_path / "a.zarr", "0.6.dev2", image))
    assert (volume.axes, volume.spacing, volume.notes) == ("ZYX", (3, 2, 1), ())
    turned = {"type": "rotation", "rotation": [[0, 1], [1, 0]], "output": "physical"}
    image = {"coordinateSystems": systems, "datasets": [_level(turned)]}
    volume = open_volume(_image(tmp_path / "b.zarr", "0.6.dev2", image))
    assert volume.spacing is None
    assert any("'rotation' is not read" in note for note in volume.notes)


def test_where_an_image_lies_joins_its_levels_transformations_and_its_own(tmp_path: Path) -> None:
    image = {
        "axes": AXES,
        "datasets": [_level(_scale(3, 2, 1), _move(30, 20, 10))],
        "coordinateTransformations": [_scale(2, 2, 2), _move(1, 1, 1)],
    }
    placement = open_volume(_image(tmp_path / "a.zarr", "0.5", image)).placement
    assert placement is not None
    assert placement.origin == (61, 41, 21)
    assert placement.steps == ((6, 0, 0), (0, 4, 0), (0, 0, 2))
    assert placement.unit == "µm"


def test_a_folder_that_leads_into_itself_is_walked_once(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("raw", data=np.ones((2, 3, 4)))
    (tmp_path / "a.zarr/again").symlink_to(tmp_path / "a.zarr")
    assert [d.key for d in list_datasets(tmp_path / "a.zarr")] == ["raw"]


@pytest.mark.parametrize("cut", [0, 10, 20, -100, -1])
@pytest.mark.parametrize("compressor", ["lz4", "zstd"])
def test_a_chunk_that_zarr_python_decodes_is_not_cut_short_unnoticed(
    tmp_path: Path, cut: int, compressor: str
) -> None:
    import numcodecs

    array = np.random.default_rng(0).integers(1, 60, (8, 32, 32)).astype(np.uint16)
    made = zarr.create_array(
        tmp_path / "a.zarr", shape=array.shape, chunks=array.shape, dtype="u2", zarr_format=2,
        filters=[numcodecs.Delta("u2")], compressors=numcodecs.Blosc(compressor),
    )  # fmt: skip
    made[:] = array
    volume = open_volume(tmp_path / "a.zarr")
    check_block(volume.read(), array[None])
    chunk = tmp_path / "a.zarr/0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:cut])
    with pytest.raises(SourceError, match=r"a\.zarr"):
        open_volume(tmp_path / "a.zarr").read()


# ---- metadata that name what is not known here -----------------------------------------

PLAIN = {"name": "bytes", "configuration": {"endian": "little"}}
SHARDED = {
    "chunk_shape": [2, 4, 4],
    "codecs": [PLAIN, {"name": "weird"}],
    "index_codecs": [PLAIN, {"name": "crc32c"}],
}
NOT_KNOWN_2 = [
    ({"compressor": {"id": "openjpeg9"}}, "compressor 'openjpeg9' is not known here"),
    ({"filters": [{"id": "wavelet"}]}, "filter 'wavelet' is not known here"),
    ({"compressor": {"id": "wavpack"}}, "pip install wavpack-numcodecs"),
    ({"compressor": {"id": "pickle"}}, "one of objects or texts"),
    ({"compressor": "zstd"}, "compressor = 'zstd'"),
    ({"filters": "delta"}, "filters = 'delta'"),
    ({"dtype": "bfloat16"}, "holds bfloat16"),
    ({"dtype": "<q9"}, "holds <q9"),
    ({"order": "Q"}, "order = 'Q'"),
    ({"fill_value": "banana"}, "fill_value = 'banana'"),
    ({"fill_value": 300}, "fill_value = 300"),
    ({"dimension_separator": "-"}, "dimension_separator = '-'"),
    ({"shape": [4, "x", 4]}, "shape = "),
    ({"chunks": [0, 4, 4]}, "chunks = "),
    ({"chunks": [4, 4]}, "give 3 numbers"),
]
NOT_KNOWN_3 = [
    ({"codecs": [PLAIN, {"name": "nobody-knows"}]}, "codec 'nobody-knows' is not known here"),
    ({"codecs": [PLAIN, {"name": "zstd"}, {"name": "crc64"}]}, "codec 'crc64'"),
    ({"codecs": [{"name": "zfpy"}]}, "pip install zfpy"),
    ({"codecs": [{"name": "vlen-utf8"}]}, "one of objects or texts"),
    ({"codecs": [{"name": "sharding_indexed", "configuration": SHARDED}]}, "codec 'weird'"),
    ({"codecs": "zstd"}, "codecs = 'zstd'"),
    ({"data_type": "float8_e4m3"}, "holds float8_e4m3"),
    ({"data_type": {"name": "fixed_length_utf32", "configuration": {"n": 1}}}, "no plain numbers"),
    ({"fill_value": {"a": 1}}, "fill_value = "),
    ({"chunk_grid": {"name": "rectilinear"}}, "rectilinear chunk grid"),
    ({"chunk_key_encoding": {"name": "suffix"}}, "chunk_key_encoding = 'suffix'"),
    ({"storage_transformers": [{"name": "encrypt"}]}, "storage_transformers = "),
    ({"superfield": {"must_understand": True}}, "superfield = "),
]


@pytest.mark.parametrize(
    ("version", "change", "words"),
    [(2, *row) for row in NOT_KNOWN_2] + [(3, *row) for row in NOT_KNOWN_3],
    ids=lambda value: str(value)[:40],
)
def test_what_metadata_name_and_nobody_here_knows_is_named_and_never_called_damage(
    tmp_path: Path, version: int, change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.ones((4, 4, 4), np.uint8), zarr_format=version)
    file = path / (".zarray" if version == 2 else "zarr.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(SourceError) as caught:
        open_volume(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_names_alone_stand_for_extensions_without_a_configuration(tmp_path: Path) -> None:
    voxels = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    zarr.create_array(tmp_path / "a.zarr", data=voxels, compressors=None)
    file = tmp_path / "a.zarr" / "zarr.json"
    meta = json.loads(file.read_text())
    meta |= {"codecs": ["bytes"], "chunk_key_encoding": "default"}
    meta["hint"] = {"must_understand": False, "x": 1}
    file.write_text(json.dumps(meta))
    assert np.array_equal(open_volume(tmp_path / "a.zarr").read()[0], voxels)


def test_a_table_of_texts_beside_an_image_does_not_hide_it(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("raw", data=np.ones((4, 4, 4), np.uint8))
    group.create_array("names", shape=(4, 4), dtype="U8", chunks=(4, 4))
    assert [each.key for each in list_datasets(tmp_path / "a.zarr")] == ["raw"]
    assert open_volume(tmp_path / "a.zarr").key == "raw"
