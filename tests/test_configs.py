"""The configs that come with volprep are run, and what is generated from the code is up to date."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pydantic
import pytest
from small_data import MAKERS, chunked

from volprep.config import Config, load_config, load_yaml
from volprep.pipeline import load_target

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SMALL = ["plan.memory=400MiB", "plan.max_batch=2", "epoch.steps=4"]


DATA = {
    "minimal": "nuclei", "instances": "nuclei", "skeletons": "em", "em_tiles": "tiles",
    "semantic_2d": "slides", "sparse": "sparse", "cluster": "nuclei",
}  # fmt: skip
#: What the test's machine has not.
INSTEAD = {
    "cluster": ["compute.executor=threads", "compute.cluster=null", "compute.workers=1"],
    "sparse": ["split.fraction=0.3"],
}


def prepared(config: Path, *changes: str) -> dict[str, Any]:
    """The training config of the set that a config makes, small, in a process of its own."""
    sets = [part for change in (*SMALL, *changes) for part in ("--set", change)]
    done = subprocess.run(
        [sys.executable, "-m", "volprep", "prepare", config, "--json", *sets],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["training"])


@pytest.mark.parametrize("name", DATA)
def test_a_shipped_config_makes_a_set(name: str, tmp_path: Path) -> None:
    MAKERS[DATA[name]](tmp_path / "data")
    (tmp_path / "configs").mkdir()
    config = Path(shutil.copy(ROOT / "configs" / f"{name}.yaml", tmp_path / "configs"))
    training = prepared(config, *INSTEAD.get(name, []))
    assert training["n_patches"]["train"] > 0
    assert training["n_patches"]["val"] > 0
    assert training["label_kind"] == ("classes" if name == "semantic_2d" else "instances")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The folder of the test behind a URL."""
    handler = partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{service.server_address[1]}"
        service.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_config_of_the_cloud_makes_a_set(tmp_path: Path, server: str) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    chunked(tmp_path, (64, 128, 128), (32, 64, 64))
    config = Path(shutil.copy(ROOT / "configs" / "cloud.yaml", tmp_path))
    training = prepared(
        config,
        f"data.cases.0.image={server}/em.zarr",
        f"data.cases.0.label={server}/seg.zarr",
        "data.regions.0.size=[64, 64, 128]",
        "data.regions.1.start=[0, 80, 0]",
        "data.regions.1.size=[64, 48, 128]",
        f"output.dir={tmp_path / 'out'}",
    )
    assert training["n_patches"]["train"] > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_read_and_says_what_it_is(path: Path) -> None:
    load_target(path)
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert first == "# yaml-language-server: $schema=volprep.schema.json"
    assert second.startswith("# ")


def test_every_config_is_tried() -> None:
    assert {path.stem for path in CONFIGS} == {*DATA, "cloud", "demo", "reference"}


def test_the_reference_holds_the_defaults() -> None:
    reference = load_config(ROOT / "configs" / "reference.yaml")
    plain = Config.model_validate({"data": {"root": reference.data.root}})
    relative = {"dir": reference.output.dir}
    expected = plain.model_copy(update={"output": plain.output.model_copy(update=relative)})
    assert reference == expected
    assert "plan" in load_yaml(ROOT / "configs" / "reference.yaml")


def test_what_is_generated_is_up_to_date() -> None:
    """Mend it with: python scripts/generate_reference.py."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    if f"pydantic=={version('pydantic')}\n" not in pins:
        pytest.skip(f"pydantic {pydantic.VERSION} words the schema in its own way")
    script = ROOT / "scripts" / "generate_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
