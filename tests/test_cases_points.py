"""Points as labels: balls of a radius in micrometres, however they are read."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volprep.cases import PointRules, cases_from_entries
from volprep.cases.points import read_points
from volprep.errors import ConfigError, SourceError
from volprep.geometry import Box


def a_case(root: Path, shape, text: str, *, spacing=(2.0, 1.0, 0.5), name="p.csv", **rules):
    np.save(root / "i.npy", np.zeros(shape, np.uint8))
    (root / name).write_text(text)
    entry = {"image": "i.npy", "label": name} | ({"spacing": spacing} if spacing else {})
    return cases_from_entries([entry], root).read_as(points=PointRules(**rules))[0]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_voxel_belongs_to_the_nearest_point_within_the_radius(data):
    shape = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    places = rng.uniform(-0.4, np.array(shape) - 0.6, (data.draw(st.integers(1, 5)), 3))
    radius = data.draw(st.sampled_from([0.0, 0.7, 1.5, 4.0]))
    step = np.array([2.0, 1.0, 0.5])
    text = "x,y,z\n" + "\n".join(f"{x!r},{y!r},{z!r}" for z, y, x in places.tolist())
    wanted = np.zeros(shape, int)
    for voxel in np.ndindex(*shape):
        distances = np.sqrt((((np.array(voxel) - places) * step) ** 2).sum(axis=1))
        own = [tuple(np.floor(p + 0.5).astype(int)) == voxel for p in places]
        inside = [i for i in range(len(places)) if distances[i] <= radius or own[i]]
        if inside:
            wanted[voxel] = min(inside, key=lambda i: distances[i]) + 1
    with TemporaryDirectory() as folder:
        label = a_case(Path(folder), shape, text, radius=radius).open_label()
        assert (label.read()[0] == wanted).all()
        for z in range(shape[0]):
            part = label.read(Box((z, 0, 0), (z + 1, *shape[1:])))[0, 0]
            assert (part == wanted[z]).all()


def test_types_are_classes_and_the_offset_moves_every_point(tmp_path):
    text = "axis-0,axis-1,axis-2,type\n9,1,1,2\n10,2,2,1\n30,0,0,1\n"
    case = a_case(tmp_path, (4, 4, 4), text, radius=0, offset=(-9, 0, 0), ids="types")
    label = case.open_label()
    found = label.read()[0]
    assert (found[0, 1, 1], found[1, 2, 2], np.count_nonzero(found)) == (2, 1, 2)
    assert [note.name for note in label.notes] == ["points-outside"]
    assert "1 of 3 points lie outside" in label.notes[0]
    assert type(case).from_dict(case.to_dict()) == case


def test_what_is_missing_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.points\.radius: missing; p\.csv holds points"):
        a_case(tmp_path, (2, 2, 2), "z,y,x\n0,0,0\n").open_label()
    case = a_case(tmp_path, (2, 2, 2), "z,y,x\n0,0,0\n", spacing=None, radius=1)
    with pytest.raises(ConfigError, match="the spacing is unknown"):
        case.open_label()
    case = a_case(tmp_path, (2, 2, 2), "z,y,x\n0,0,0\n", spacing=None, radius=1, unit="voxels")
    assert case.open_label().read().sum() == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "a,b\n1,2\n", "cannot be read as points"),
        ("p.csv", "z,y,x\n", "holds no points"),
        ("p.csv", "z,y,x\n1,2,nan\n", "places that are no numbers"),
        ("p.csv", "z,y,x,type\n1,2,3,0\n", "types count from 1"),
        ("p.xml", "<a/>", "holds no points"),
        ("p.xml", "<a", "cannot be read as points"),
        ("p.xml", "<!DOCTYPE a><a/>", "declares a document type"),
    ],
)
def test_files_without_points_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        read_points(tmp_path / name)


def test_the_cells_of_a_real_brain_become_balls(real_data):
    root = real_data("18_multichannel_planes_points_cellfinder")
    entry = {
        "name": "brain", "image": ["ch0", "ch1"], "label": "cell_classification.xml",
        "spacing": (5, 2, 2),
    }  # fmt: skip
    rules = PointRules(radius=8, offset=(-9, 0, 0))
    (case,) = cases_from_entries([entry], root).read_as(points=rules)
    points = read_points(root / "cell_classification.xml")
    planes = points.places[:, 0] - 9
    inside = int(((planes > -0.5) & (planes < 5.5)).sum())
    found = case.open_label().read()
    assert found.shape == (1, 6, 510, 667)
    assert len(np.unique(found)) - 1 == inside > 0
