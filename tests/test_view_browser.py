"""`volprep view` in a real browser: every layer loads, nothing fails, and Ctrl-C ends it."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from volprep import pipeline
from volprep.config import load_config

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    pytest.skip("playwright is not installed", allow_module_level=True)
pytest.importorskip("neuroglancer")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
#: Neuroglancer draws with WebGL, which without a graphics card is done by SwiftShader.
FLAGS = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--no-first-run", "--disable-sync", "--disable-background-networking",
]  # fmt: skip
READY = "() => !!window.viewer && window.viewer.isReady()"
LAYERS = """() => window.viewer.layerManager.managedLayers.map(layer => [
  layer.name, layer.layer.dataSources.map(source => String(source.loadState?.error ?? 'fine'))])"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, shape in (("deep", (14, 60, 64)), ("flat", (90, 80))):
        for number in range(3):
            label = np.zeros(shape, np.uint16)
            for instance in range(1, 14):
                corner = [int(rng.integers(0, n - 6)) for n in shape]
                label[tuple(slice(c, c + 9) for c in corner)] = instance
            image = ((label > 0) * 90 + rng.integers(0, 120, shape)).astype(np.uint8)
            if name == "flat":
                image = np.stack([image, image // 2, 255 - image], -1)
            for kind, array in (("images", image), ("labels", label)):
                (folder / name / kind).mkdir(parents=True, exist_ok=True)
                rgb = {"photometric": "rgb"} if array.ndim == 3 and array.shape[-1] == 3 else {}
                tifffile.imwrite(folder / name / kind / f"c{number}.tif", array, **rgb)
    return folder


def configure(folder: Path, name: str, store: str, *, skeletons: bool) -> Path:
    size = "[1, 32, 32]" if name == "flat" else "[8, 24, 24]"
    path = folder / f"{name}_{store}.yaml"
    path.write_text(
        f"data: {{root: {name}, slices: false, spacing: [0.3, 0.1, 0.1]}}\n"
        f"plan: {{patch_size: {size}}}\n"
        f"patching: {{patches_per_case: 4}}\nskeletons: {{enabled: {str(skeletons).lower()}}}\n"
        f"augment: []\noutput: {{dir: out_{name}_{store}, store: {store}}}\n"
    )
    return path


@contextmanager
def viewed(*arguments: object) -> Iterator[dict[str, Any]]:
    """The command at work, and what it says; in the end it is told to stop, and does."""
    command = [sys.executable, "-m", "volprep", "view", *map(str, arguments), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        text += line
    try:
        yield json.loads(text)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def seen_in_browser(url: str) -> tuple[list[Any], list[str], Image.Image]:
    """The layers, what failed, and what is to be seen."""
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 800, "height": 600})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on(
            "response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None
        )
        page.on("console", lambda m: wrong.append(m.text) if "Error" in m.text else None)
        page.goto(url)
        page.wait_for_function(READY, timeout=60_000)
        time.sleep(0.5)
        layers = page.evaluate(LAYERS)
        picture = Image.open(io.BytesIO(page.screenshot()))
        wrong = [text for text in wrong if "favicon" not in text]
        browser.close()
    return layers, wrong, picture


@pytest.mark.parametrize(
    ("name", "store", "skeletons"),
    [
        ("deep", "patches", True),
        pytest.param("deep", "volumes", True, marks=pytest.mark.slow),
        pytest.param("flat", "patches", False, marks=pytest.mark.slow),
        pytest.param("flat", "volumes", False, marks=pytest.mark.slow),
    ],
)
def test_every_layer_of_a_set_is_seen(data: Path, name: str, store: str, skeletons: bool) -> None:
    out = pipeline.prepare(load_config(configure(data, name, store, skeletons=skeletons))).path
    # What is drawn anew in every epoch has no numbers: of such a set a case is looked at.
    which = ("--patch", 2) if store == "patches" else ("--case", "c1")
    with viewed(out, *which) as told:
        layers, wrong, picture = seen_in_browser(told["url"])
    assert wrong == []
    assert [layer for layer, _ in layers] == told["layers"]
    assert {said for _, sources in layers for said in sources} == {"fine"}
    (label,) = (sources for layer, sources in layers if layer == "label")
    assert len(label) == 1 + skeletons
    assert ("patch" in told["layers"]) == (store == "patches")
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 200  # grey voxels and coloured ids
    if store == "patches":
        assert (pixels == (255, 255, 0)).all(1).sum() > 200  # the box


@pytest.mark.slow
def test_a_patch_that_a_config_would_cut_is_seen(data: Path) -> None:
    with viewed(configure(data, "deep", "patches", skeletons=False), "--patch", 1) as told:
        layers, wrong, _ = seen_in_browser(told["url"])
    assert wrong == []
    assert [layer for layer, _ in layers] == told["layers"]
    assert {said for _, sources in layers for said in sources} == {"fine"}
