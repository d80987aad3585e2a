"""Labels put right on request: each rule against a slow, obvious reference, however it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from volprep import pipeline
from volprep.cases import Case, FileRef, LabelRules, cases_from_entries, repair
from volprep.config import load_config
from volprep.errors import ConfigError, SourceError
from volprep.geometry import Box

STRUCTURES = {n: ndimage.generate_binary_structure(3, r) for n, r in ((6, 1), (18, 2), (26, 3))}


def a_case(folder: Path, labels: np.ndarray, ignore=(), **rules: object) -> Case:
    path = Path(folder) / "labels.npy"
    np.save(path, labels)
    ref = FileRef(path)
    return Case("x", (ref,), ref, ignore=tuple(ignore), rules=LabelRules(**rules))


def read(case: Case) -> np.ndarray:
    return case.open_label().read()[0]


def components(labels: np.ndarray, connectivity: int) -> np.ndarray:
    """Each value by itself, with scipy."""
    found = np.zeros(labels.shape, np.int64)
    for value in np.unique(labels[labels != 0]):
        pieces, _ = ndimage.label(labels == value, STRUCTURES[connectivity])
        found[pieces > 0] = pieces[pieces > 0] + found.max()
    return found


def same_objects(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two label volumes hold the same objects, whatever their numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).T.tolist()
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) and all(
        (a == 0) == (b == 0) for a, b in pairs
    )


@pytest.fixture
def slabs_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Makes slabs so thin that a few planes are several of them."""
    repair._renumbering.cache_clear()
    yield lambda planes, shape: monkeypatch.setattr(
        repair, "SLAB_BYTES", 8 * planes * math.prod(shape[1:])
    )
    repair._renumbering.cache_clear()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_components_are_those_of_the_whole_volume_however_it_is_cut(data):
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 6)))
    seed = data.draw(st.integers(0, 10**6))
    values = data.draw(st.sampled_from([2, 3, 5]))
    connectivity = data.draw(st.sampled_from([6, 18, 26]))
    planes = data.draw(st.integers(1, 7))
    labels = np.random.default_rng(seed).integers(0, values, shape).astype(np.uint16)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        repair._renumbering.cache_clear()
        patch.setattr(repair, "SLAB_BYTES", 8 * planes * shape[1] * shape[2])
        case = a_case(Path(folder), labels, connected_components=connectivity)
        found = read(case)
        wanted = components(labels, connectivity)
        assert found.dtype == np.uint32
        assert same_objects(found, wanted)
        assert set(np.unique(found)) - {0} == set(range(1, wanted.max() + 1))
        assert case.repaired()["objects"] == wanted.max()
        volume = case.open_label()
        walked = np.concatenate([block[0] for _, block in volume.slabs(1)])
        assert (walked == found).all()
        for z in range(shape[0]):
            part = volume.read(Box((z, 0, 0), (z + 1, *shape[1:])))[0, 0]
            assert (part == found[z]).all()


@pytest.mark.parametrize("connectivity", [None, 6, 26])
@pytest.mark.parametrize("relabel", [False, True])
def test_small_objects_become_background(tmp_path, slabs_of, connectivity, relabel):
    labels = np.random.default_rng(1).choice([0, 0, 7, 9, 300], (6, 9, 9)).astype(np.uint16)
    labels[2, 2, 2] = 999
    slabs_of(2, labels.shape)
    rules = {"connected_components": connectivity, "min_size": 4, "relabel": relabel}
    case = a_case(tmp_path, labels, **rules)
    whole = labels.astype(np.int64) if connectivity is None else components(labels, connectivity)
    ids, counts = np.unique(whole[whole > 0], return_counts=True)
    wanted = np.where(np.isin(whole, ids[counts >= 4]), whole, 0)
    found = read(case)
    assert same_objects(found, wanted)
    if connectivity is None and not relabel:
        assert (found == wanted).all()
    else:
        assert found.max() == (counts >= 4).sum()
    done = case.repaired()
    assert (done["objects"], done["too_small"]) == (len(ids), (counts < 4).sum())
    assert done["rules"] == {name: value for name, value in rules.items() if value}


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
@settings(deadline=None)
def test_any_ids_are_renumbered_in_their_order(values):
    labels = np.array(values, np.uint64).reshape(1, 1, -1)
    with TemporaryDirectory() as folder:
        found = read(a_case(Path(folder), labels, relabel=True))
    ids = np.unique(labels[labels > 0])
    assert found.dtype == np.uint32
    assert (found == np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)).all()


def test_a_threshold_makes_a_mask_of_any_dtype(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    assert (read(a_case(tmp_path, grey, threshold=128)) == (grey >= 128)).all()
    chances = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    found = read(a_case(tmp_path, chances, threshold=0.5))
    assert found.dtype == np.uint8
    assert (found == (chances >= 0.5)).all()
    signed = grey.astype(np.int16) - 100
    assert (read(a_case(tmp_path, signed, threshold=0)) == (signed >= 0)).all()
    with pytest.raises(SourceError, match="fraction"):
        read(a_case(tmp_path, chances))


def test_another_background_changes_places_with_zero(tmp_path):
    labels = np.random.default_rng(0).choice([0, 33, 65, 201], (3, 4, 5)).astype(np.uint8)
    found = read(a_case(tmp_path, labels, background=33))
    assert (found == np.where(labels == 33, 0, np.where(labels == 0, 33, labels))).all()
    assert found.dtype == np.uint8
    found = read(a_case(tmp_path, np.minimum(labels, 1), background=300))
    assert found.dtype == np.uint16
    assert set(np.unique(found)) == {1, 300}


def test_ignored_values_are_those_of_the_file_whatever_the_rules(tmp_path):
    labels = np.random.default_rng(0).choice([0, 33, 65, 255], (3, 4, 5)).astype(np.uint8)
    case = a_case(tmp_path, labels, ignore=[255, 0], background=33, relabel=True)
    assert (read(case) == (labels == 65)).all()
    assert (case.open_mask().read()[0] == ~np.isin(labels, [0, 255])).all()
    grey = labels.astype(np.float32)
    case = a_case(tmp_path, grey, ignore=[255], threshold=50.0)
    assert (read(case) == (labels == 65)).all()
    assert (case.open_mask().read()[0] == (labels != 255)).all()


def colours(folder: Path, name: str, seed: int) -> np.ndarray:
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [1, 2, 3]], np.uint8)
    picture = palette[np.random.default_rng(seed).integers(0, 4, (6, 7))]
    (folder / "labels").mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / "labels" / name)
    return picture.astype(np.int64)


def test_each_colour_is_an_id_and_the_same_in_every_file(tmp_path):
    for number in range(2):
        picture = colours(tmp_path, f"{number}.png", number)
        ref = FileRef(tmp_path / "labels" / f"{number}.png")
        case = Case("x", (ref,), ref, rules=LabelRules(colours=True))
        wanted = picture[..., 0] * 65536 + picture[..., 1] * 256 + picture[..., 2]
        assert (read(case)[0] == wanted).all()
        assert case.open_label().ndim_spatial == 2
    folder = FileRef(tmp_path / "labels")
    stack = Case("x", (folder,), folder, rules=LabelRules(colours=True, relabel=True))
    assert stack.open_label().shape == (1, 2, 6, 7)
    assert set(np.unique(read(stack))) == {0, 1, 2, 3}
    with pytest.raises(SourceError, match=r"1 channels of uint8, which are no colours"):
        read(a_case(tmp_path, np.zeros((2, 3, 4), np.uint8), colours=True))


def test_a_changed_file_is_looked_at_anew(tmp_path):
    labels = np.zeros((2, 3, 3), np.uint8)
    labels[0, 0, 0] = 5
    assert read(a_case(tmp_path, labels, relabel=True)).max() == 1
    labels[1, 2, 2] = 9
    case = a_case(tmp_path, np.concatenate([labels, labels]), relabel=True)
    assert read(case).max() == 2


def test_rules_of_a_case_come_back_from_json(tmp_path):
    case = a_case(tmp_path, np.zeros((2, 3, 3), np.uint8), min_size=3, connected_components=6)
    assert Case.from_dict(json.loads(json.dumps(case.to_dict()))) == case
    assert str(case.rules) == "connected components 6, min size 3"
    assert not LabelRules()


@pytest.mark.parametrize("rule", [{"relabel": True}, {"connected_components": 26}])
def test_classes_are_not_renumbered_each_case_by_itself(tmp_path, rule):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 3), np.uint8))
    cases = cases_from_entries([{"image": "a.npy", "label": "a.npy"}], tmp_path)
    with pytest.raises(ConfigError, match=r"data\.labels\.\w+: numbers the objects of each case"):
        cases.read_as(label_kind="classes", rules=LabelRules(**rule))
    assert cases.read_as(rules=LabelRules(**rule)).label_kind == "instances"


def test_a_binary_mask_becomes_objects_in_the_patch_set_and_the_set_says_so(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(3):
        mask = np.zeros((16, 32, 32), np.uint8)
        for z, y, x in rng.integers(2, 12, (4, 3)) * (1, 2, 2):
            mask[z - 1 : z + 2, y - 2 : y + 2, x - 2 : x + 2] = 255
        mask[0, 0, 0] = 255
        image = mask // 3 + rng.integers(0, 20, mask.shape, np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image, photometric="minisblack")
        tifffile.imwrite(tmp_path / "masks" / f"{number}.tif", mask, photometric="minisblack")
    (tmp_path / "v.yaml").write_text(
        "data: {root: ., spacing: [1, 1, 1],\n"
        "  labels: {threshold: 128, connected_components: 26, min_size: 10}}\n"
        "plan: {patch_size: [8, 16, 16], batch_size: 2}\noutput: {dir: out}\n"
    )
    store = pipeline.prepare(load_config(tmp_path / "v.yaml"))
    found = json.loads((store.path / "findings.json").read_text())["findings"]
    told = [f for f in found if f["name"] == "labels-repaired"]
    assert told
    assert "threshold 128" in told[0]["found"]
    assert "1 too small" in told[0]["found"]
    manifest = json.loads((store.path / "manifest.json").read_text())
    done = manifest["label_repairs"]
    assert set(done) == {"0", "1", "2"}
    for number, facts in done.items():
        mask = tifffile.imread(tmp_path / "masks" / f"{number}.tif") >= 128
        pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
        small = (np.bincount(pieces.ravel())[1:] < 10).sum()
        assert (facts["objects"], facts["too_small"]) == (count, small)


def test_the_binary_masks_of_real_embryos_have_their_sixteen_nuclei(real_data):
    path = real_data("04_qcanet_embryo_nuclei3d") / "labels_binary" / "16_cell_stage.tif"
    ref = FileRef(path, axes="ZYX")
    rules = LabelRules(threshold=128, connected_components=26)
    case = Case("x", (ref,), ref, rules=rules)
    assert case.repaired()["objects"] == 16
    assert len(np.unique(read(case))) == 17
