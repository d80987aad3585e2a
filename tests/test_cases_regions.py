"""Regions: each box is a case of its own, and nothing outside of them is ever seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from volprep import pipeline
from volprep.cases import Region, cases_from_entries, regions_from
from volprep.config import load_config
from volprep.errors import ConfigError, SourceError
from volprep.geometry import Box
from volprep.splits import audit_splits, make_splits

IMAGE = np.random.default_rng(0).integers(1, 200, (12, 24, 30)).astype(np.uint8)
LABEL = (IMAGE % 7).astype(np.uint16)


def a_set(root: Path, **more: object):
    np.save(root / "i.npy", IMAGE)
    np.save(root / "l.npy", LABEL)
    entry = {"name": "v", "image": "i.npy", "label": "l.npy", "spacing": [0.5, 0.1, 0.1], **more}
    return cases_from_entries([entry], root)


def test_each_region_is_a_case_that_holds_its_box_alone(tmp_path):
    regions = [
        Region((0, 2, 3), (6, 12, 20)),
        Region((3.0, 1.2, 0.5), (6.0, 2.2, 2.5), case="v", name="b", unit="um"),
    ]
    one, two = a_set(tmp_path).read_as(ignore=[3]).cut(regions)
    assert (one.name, two.name) == ("v.region0", "v.b")
    assert two.region == Box((6, 12, 5), (12, 22, 25))
    for case in (one, two):
        cut = case.region.slices
        assert (case.open_image().read()[0] == IMAGE[cut]).all()
        assert (case.open_label().read()[0] == np.where(LABEL == 3, 0, LABEL)[cut]).all()
        assert (case.open_mask().read()[0] == (LABEL != 3)[cut]).all()
        walked = np.concatenate([block for _, block in case.open_image().slabs(2)], axis=1)
        assert (walked[0] == IMAGE[cut]).all()
        assert case.open_image().spacing == (0.5, 0.1, 0.1)
        assert type(case).from_dict(json.loads(json.dumps(case.to_dict()))) == case


def test_regions_are_split_and_those_that_share_voxels_stay_together(tmp_path):
    regions = [Region((0, 0, x), (12, 24, x + 8)) for x in (0, 10, 20, 4)]
    cases = a_set(tmp_path).cut(regions)
    groups = [case.group for case in cases]
    assert groups[0] == groups[1] == groups[3] is not None
    assert groups[2] is None
    for seed in range(5):
        splits = make_splits(cases.items, seed=seed, fraction=0.3)
        assert not [f for f in audit_splits(splits, cases.items) if f.level == "error"]
    sided = [
        Region((0, 0, 0), (5, 24, 30), side="train"),
        Region((6, 0, 0), (12, 24, 30), side="val"),
    ]
    cases = a_set(tmp_path).cut(sided)
    splits = make_splits(cases.items, listed=cases.folds)
    assert [p.case for p in splits.val] == ["v.region1"]
    assert "split-same-file" not in {f.name for f in audit_splits(splits, cases.items)}
    overlap = [Region((0, 0, 0), (7, 24, 30), side="train"), sided[1]]
    cases = a_set(tmp_path).cut(overlap)
    found = audit_splits(make_splits(cases.items, listed=cases.folds), cases.items)
    assert "split-same-file" in {f.name for f in found}


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region((0, 0, 0), (13, 5, 5)), r"v: \[0, 0, 0\] to \[13, 5, 5\] is no box inside"),
        (Region((3, 0, 0), (3, 5, 5)), r"is no box inside"),
        (Region((-1, 0, 0), (3, 5, 5)), r"is no box inside"),
        (Region((0, 0, 0), (3, 5, 5), case="w"), r"no case is called 'w'"),
    ],
)
def test_a_region_that_is_not_there_is_named(tmp_path, region, message):
    with pytest.raises(ConfigError, match=message):
        a_set(tmp_path).cut([region])
    cases = a_set(tmp_path, spacing=None)
    with pytest.raises(ConfigError, match="in µm, but the spacing is unknown"):
        cases.cut([Region((0, 0, 0), (1, 1, 1), unit="um")])


def test_regions_come_from_files(tmp_path):
    wanted = (
        Region((1, 2, 3), (4, 6, 8), name="a"),
        Region((0, 0, 0), (5, 5, 5), case="v", unit="um", side="val"),
    )
    listed = [
        {"start": [1, 2, 3], "size": [3, 4, 5], "name": "a"},
        {"start": [0, 0, 0], "stop": [5, 5, 5], "case": "v", "unit": "µm", "side": "val"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(listed))
    (tmp_path / "b.json").write_text(json.dumps({"regions": listed}))
    (tmp_path / "c.csv").write_text(
        "z0, y0, x0, z1, y1, x1, name, case, unit, side\n1,2,3,4,6,8,a,,,\n0,0,0,5,5,5,,v,um,val\n"
    )
    for name in ("a.json", "b.json", "c.csv"):
        assert regions_from(tmp_path / name) == wanted
    (tmp_path / "d.nml").write_text(
        '<things><parameters><scale x="4" y="4" z="50" unit="nanometer"/>'
        '<userBoundingBox topLeftX="3" topLeftY="2" topLeftZ="1" width="5" height="4" depth="3" '
        'id="1" name="a" isVisible="true"/></parameters></things>'
    )
    assert regions_from(tmp_path / "d.nml") == wanted[:1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[{}]", "needs start and stop, or start and size"),
        ("a.json", '[{"start": [1, 2], "stop": [1, 2, 3]}]', "is not three numbers"),
        ("a.json", '[{"start": [1, 2, 3], "end": 4, "stop": [4, 5, 6]}]', "unknown key 'end'"),
        ("a.json", "[]", "holds no region"),
        ("a.json", "{}", "holds no list of regions"),
        ("a.json", "{", "cannot be read as regions"),
        ("a.csv", "z0,y0\n1,2\n", "cannot be read as regions"),
        ("a.nml", "<things", "cannot be read as regions"),
        ("a.nml", '<!DOCTYPE x [<!ENTITY a "b">]><things/>', "declares a document type"),
        ("a.txt", "", "give a .json, .csv or .nml file"),
    ],
)
def test_files_that_hold_no_regions_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        regions_from(tmp_path / name)


def test_patches_come_from_regions_alone(tmp_path):
    image = np.full((16, 48, 96), 7, np.uint8)
    label = np.zeros(image.shape, np.uint8)
    boxes = [np.s_[:, 4:40, 8:40], np.s_[:, 4:40, 56:88]]
    rng = np.random.default_rng(1)
    for box in boxes:
        image[box] = rng.integers(100, 200, image[box].shape)
        label[box] = 1
    for name, array in (("images", image), ("labels", label)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "v.npy", array)
    config = {
        "data": {
            "root": ".", "spacing": [1, 1, 1],
            "regions": [{"start": [0, 4, 8], "stop": [16, 40, 40], "side": "train"},
                        {"start": [0, 4, 56], "stop": [16, 40, 88], "side": "val"}],
        },
        "plan": {"patch_size": [8, 16, 16], "batch_size": 2},
        "output": {"dir": "out"},
    }  # fmt: skip
    (tmp_path / "v.yaml").write_text(yaml.safe_dump(config))
    store = pipeline.prepare(load_config(tmp_path / "v.yaml"))
    assert store.manifest["cases"] == ["v.region0", "v.region1"]
    for split in ("train", "val"):
        patches = store.split(split)
        assert len(patches)
        for number in range(len(patches)):
            assert patches.read("image", number).min() >= 100
            assert patches.read("label", number).all()
