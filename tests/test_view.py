"""`volprep view`: what a browser fetches is what the volume holds, at the patch asked for."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import types
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from volprep import pipeline
from volprep.config import load_config
from volprep.errors import ConfigError
from volprep.geometry import Box
from volprep.skeletons import Skeletons
from volprep.sources import ArrayVolume
from volprep.store import PatchStore
from volprep.viewer import Scene, open_napari, serve

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 4000, (1, 12, 30, 41)).astype(np.uint16)
LABEL = (IMAGE // 500).astype(np.uint64) * 2**40
BOX = Box((2, 5, 7), (8, 21, 30))


@pytest.fixture(autouse=True, scope="module")
def no_threads_stay() -> Iterator[None]:
    yield
    served = serve(scene())
    served.close()
    with pytest.raises(urllib.error.URLError):
        get(served.url)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return bytes(answer.read())


def scene(**changes: Any) -> Scene:
    points = {int(i): np.array([[1.0, 2, 3], [4, 5, 6]]) for i in np.unique(LABEL)[1:]}
    parts: dict[str, Any] = {
        "image": ArrayVolume(IMAGE), "label": ArrayVolume(LABEL),
        "mask": ArrayVolume(np.ones(IMAGE.shape, np.uint8)),
        "skeletons": Skeletons.from_points(points), "boxes": {"patch": [BOX]}, "patch": BOX,
        "spacing": (0.2, 0.1, 0.1),
    }  # fmt: skip
    return Scene("nuclei", **{**parts, **changes})


def state_of(served: Any) -> dict[str, Any]:
    state: dict[str, Any] = served.viewer.state.to_json()
    return state


def fetched(served: Any, layer: str, box: Box, channels: int = 1) -> np.ndarray[Any, Any]:
    """The voxels of a box as a browser fetches them, through the source that the state names."""
    (entry,) = (e for e in state_of(served)["layers"] if e["name"] == layer)
    source = entry["source"]
    source = source[0] if isinstance(source, list) else source
    url = source["url"] if isinstance(source, dict) else source
    token = url.rpartition("/")[2]
    server = served.url.partition("/v/")[0]
    info = json.loads(get(f"{server}/neuroglancer/info/{token}"))
    rank = len(info["shape"])
    start, stop = [list(map(str, p)) for p in (box.start, box.stop)]
    if rank == 4:
        start, stop = ["0", *start], [str(channels), *stop]
    place = f"{','.join(['1'] * rank)}/{','.join(start)}/{','.join(stop)}"
    packed = get(f"{server}/neuroglancer/npz/{token}/{place}")
    return np.asarray(np.load(io.BytesIO(zlib.decompress(packed))))


def test_the_page_the_state_and_the_voxels_are_served_on_loopback() -> None:
    served = serve(scene())
    assert served.url.startswith("http://127.0.0.1:")
    assert b"<html" in get(served.url).lower() or b"<!doctype" in get(served.url).lower()
    state = state_of(served)
    assert served.layers == ("nuclei", "label", "valid", "patch")
    assert state["position"] == [5, 13, 18.5] == list(served.position)
    assert state["dimensions"]["z"] == [pytest.approx(2e-7), "m"]
    assert state["dimensions"]["x"] == [pytest.approx(1e-7), "m"]
    for layer, volume in (("nuclei", IMAGE), ("label", LABEL)):
        found = fetched(served, layer, BOX)
        np.testing.assert_array_equal(found, volume[0][BOX.slices])
        assert found.dtype == volume.dtype
    (box,) = next(e for e in state["layers"] if e["name"] == "patch")["annotations"]
    assert (box["pointA"], box["pointB"]) == ([2, 5, 7], [8, 21, 30])
    label = next(e for e in state["layers"] if e["name"] == "label")
    inside = {str(i) for i in np.unique(LABEL[0][BOX.slices]) if i}
    assert set(label["segments"]) == inside


def test_skeletons_are_served_by_the_ids_of_their_labels() -> None:
    served = serve(scene())
    label = next(e for e in state_of(served)["layers"] if e["name"] == "label")
    urls = [s["url"] if isinstance(s, dict) else s for s in label["source"]]
    (token,) = (u.rpartition("/")[2] for u in urls if "skeleton" in u)
    server = served.url.partition("/v/")[0]
    data = get(f"{server}/neuroglancer/skeleton/{token}/{2 * 2**40}")
    assert np.frombuffer(data[:8], "<u4")[0] == 2
    points = np.frombuffer(data[8:32], "<f4").reshape(2, 3)
    np.testing.assert_array_equal(points, [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]])
    with pytest.raises(urllib.error.HTTPError):
        get(f"{server}/neuroglancer/skeleton/{token}/12345")


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f8", "f2", "i4"])
def test_voxels_of_every_kind_and_several_channels_are_served(dtype: str) -> None:
    both = np.concatenate([IMAGE, IMAGE[:, ::-1]]).astype(dtype)
    served = serve(scene(image=ArrayVolume(both), label=None, mask=None, spacing=None))
    assert served.layers == ("nuclei", "skeletons", "patch")
    found = fetched(served, "nuclei", BOX, channels=2)
    np.testing.assert_allclose(found, both[:, *BOX.slices])


def test_only_what_is_looked_at_is_read() -> None:
    class Counting(ArrayVolume):
        boxes: list[Box] = []  # noqa: RUF012

        def read(self, box: Box | None = None) -> Any:
            assert box is not None
            self.boxes.append(box)
            return super().read(box)

    large = np.zeros((1, 100, 300, 300), np.uint8)
    served = serve(scene(image=Counting(large), label=None, mask=None, skeletons=None))
    fetched(served, "nuclei", BOX)
    assert all(np.prod(box.shape) <= 64**3 for box in Counting.boxes)
    assert Counting.boxes[-1] == BOX


# The command


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for name in ("images", "labels"):
        (folder / "data" / name).mkdir(parents=True)
    label = np.zeros((24, 48, 48), np.uint16)
    for i in range(1, 20):
        z, y, x = (int(RNG.integers(0, n - 5)) for n in label.shape)
        label[z : z + 5, y : y + 8, x : x + 8] = i
    image = (RNG.integers(0, 99, label.shape) + 99 * (label > 0)).astype(np.uint16)
    for number in range(2):
        for name, array in (("images", image + number), ("labels", label)):
            path = folder / "data" / name / f"n{number}.tif"
            tifffile.imwrite(path, array, metadata={"axes": "ZYX"})
    (folder / "a.yaml").write_text(
        "data: {root: data, spacing: '0.2, 0.1, 0.1'}\n"
        "plan: {patch_size: [8, 16, 16]}\npatching: {patches_per_case: 5}\noutput: {dir: out}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "volprep", "prepare", "a.yaml"], cwd=folder, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_patch_of_a_set_is_looked_at_where_it_was_cut(work: Path, split: Any) -> None:
    store = PatchStore(work / "out")
    reader = store.split(split)
    for number in (0, len(reader) - 1):
        found = pipeline.scene_of(work / "out", patch=number, split=split)
        assert found.patch is not None
        assert found.label is not None
        inside = found.patch.clip(found.shape)
        cut = tuple(
            slice(a - s, b - s)
            for a, b, s in zip(inside.start, inside.stop, found.patch.start, strict=True)
        )
        patch = np.asarray(reader.read("image", number))
        np.testing.assert_array_equal(patch[:, *cut], found.image.read(inside))


def test_a_config_shows_its_patches_as_prepare_chooses_them(work: Path) -> None:
    cut = pipeline.scene_of(work / "out", case="n1", patch=0)
    chosen = {pipeline.scene_of(work / "a.yaml", case="n1", patch=n).patch for n in range(5)}
    assert cut.patch in chosen
    whole = pipeline.scene_of(work / "a.yaml")
    assert (whole.name, whole.patch, whole.spacing) == ("n0", None, (0.2, 0.1, 0.1))
    assert pipeline.scene_of(work / "data", case="n1").name == "n1"
    assert load_config(work / "a.yaml").data.root == work / "data"


def test_cases_and_patches_that_are_not_there_are_named(work: Path) -> None:
    for target in (work / "a.yaml", work / "out"):
        with pytest.raises(ConfigError, match="no case 'n7'"):
            pipeline.scene_of(target, case="n7")
        with pytest.raises(ConfigError, match=r"--patch: found 99; there are \d+ train patches"):
            pipeline.scene_of(target, patch=99)


def test_the_command_serves_until_it_is_interrupted(work: Path) -> None:
    command = [sys.executable, "-m", "volprep", "view", "out", "--patch", "1", "--json"]
    process = subprocess.Popen(
        command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        text = ""
        while not text.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            text += line
        told = json.loads(text)
        assert told["layers"] == ["n0", "label", "patch"] or told["layers"][1:3] == [
            "label",
            "patch",
        ]
        assert get(told["url"])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert process.returncode == 0


def test_without_neuroglancer_the_extra_is_named(work: Path) -> None:
    code = (
        "import sys; sys.modules['neuroglancer'] = None; sys.modules['napari'] = None\n"
        "from volprep.__main__ import main; main()\n"
    )
    for tool, extra in (("neuroglancer", '"volprep[view]"'), ("napari", "napari")):
        done = subprocess.run(
            [sys.executable, "-c", code, "view", "a.yaml", "--with", tool], cwd=work,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 7
        assert f"{tool}: not installed; install it with: pip install {extra}" in done.stderr


@pytest.fixture
def napari(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, dict[str, Any]]]:
    """A stand-in that notes what is shown: napari itself wants a screen."""
    shown: list[tuple[str, Any, dict[str, Any]]] = []

    class Viewer:
        def __init__(self, title: str) -> None:
            self.dims = types.SimpleNamespace(
                set_point=lambda axes, at: shown.append(("at", at, {}))
            )

        def __getattr__(self, name: str) -> Any:
            return lambda data, **how: shown.append((name, data, how))

    module: Any = types.ModuleType("napari")
    module.Viewer, module.run = Viewer, lambda: shown.append(("run", None, {}))
    monkeypatch.setitem(sys.modules, "napari", module)
    return shown


def test_napari_is_handed_lazy_layers_points_and_the_box(napari: Any) -> None:
    open_napari(scene())
    kinds = [kind for kind, _, _ in napari]
    assert kinds == [
        "add_image", "add_labels", "add_labels", "add_points", "add_shapes", "at", "run",
    ]  # fmt: skip
    image, label = napari[0][1], napari[1][1]
    np.testing.assert_array_equal(image[3], IMAGE[0, 3])
    np.testing.assert_array_equal(image[2:8:2, 5:9, ::3], IMAGE[0, 2:8:2, 5:9, ::3])
    np.testing.assert_array_equal(np.asarray(label[5, :4]), LABEL[0, 5, :4])
    assert len(napari[4][1]) == 12
    assert napari[5][1] == pytest.approx([1.0, 1.3, 1.85])
