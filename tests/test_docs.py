"""The documents are built without network, their links lead somewhere, their examples run."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_data import MAKERS

from volprep.augment import TRANSFORMS
from volprep.config import every_key
from volprep.pipeline import load_target

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WRITTEN = [page for page in PAGES if "reference" not in page.parts or page.stem == "python"]
TEXTS = [*WRITTEN, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, title, text) of each code block."""
    return [(m[1], m[2] or "", m[3]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


RUN = [page for page in WRITTEN if any(title == "run" for _, title, _ in blocks(page))]
CONFIGS = [
    (page, number)
    for page in WRITTEN
    for number, (language, title, _) in enumerate(blocks(page))
    if language == "yaml" and title == "volprep.yaml"
]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """One after the other, in a folder with the page's data and the configs."""
    needed = re.search(r"<!-- data: (\w+) -->", page.read_text(encoding="utf-8"))
    if needed:
        MAKERS[needed[1]](tmp_path / "data")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "volprep"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m volprep "$@"\n')
    script.chmod(0o755)
    for language, title, text in blocks(page):
        if (language, title) == ("yaml", "volprep.yaml"):
            (tmp_path / title).write_text(text, encoding="utf-8")
        if title != "run":
            continue
        command = {"bash": ["bash", "-e", "-c", text], "python": [sys.executable, "-c", text]}
        done = subprocess.run(
            command[language], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("page", "number"), CONFIGS, ids=lambda x: name_of(x) if x != x else str(x)
)
def test_a_config_of_a_page_is_read(page: Path, number: int, tmp_path: Path) -> None:
    (tmp_path / "volprep.yaml").write_text(blocks(page)[number][2], encoding="utf-8")
    load_target(tmp_path / "volprep.yaml")


def test_every_page_of_a_task_has_examples_that_run() -> None:
    assert {page for page in PAGES if page.parent.name == "tasks"} <= set(RUN)


def test_every_page_of_another_trainer_shows_a_config() -> None:
    shown = {page.stem for page, _ in CONFIGS}
    assert {page.stem for page in (ROOT / "docs" / "coming_from").glob("*.md")} <= shown


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:|#", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve()
        assert linked.exists(), f"{name_of(page)}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in heads}


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_keys_and_files_that_are_named_exist(page: Path) -> None:
    """Dotted keys, --set values and files of ours, wherever they are mentioned."""
    known = {key.name.replace("[]", "") for key in every_key()}
    sections = {key.name for key in every_key() if "." not in key.name}
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`(?:--set )?([a-z_]+\.[a-z_.]+)(?:[:=][^`]*)?`", text):
        first = name.split(".")[0]
        if first in sections and not re.search(r"\.(yaml|json|jsonl|md|py|tif|nml)$", name):
            short = re.sub(r"\.\d+", "", name)
            assert short in known or short.split(".")[1] in TRANSFORMS, f"{name_of(page)}: {name}"
    for name in re.findall(r"`((?:scripts|configs|tests|docs)/[\w./-]+)`", text):
        gone = page.stem == "CHANGELOG" or "myformat" in name or "mytrainer" in name
        assert gone or (ROOT / name).exists(), f"{name_of(page)}: {name}"


def test_the_pages_are_built_without_network(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(site)]
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **nowhere}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        relative = page.relative_to(ROOT / "docs").with_suffix("")
        built = site / ("" if relative.name == "index" else relative) / "index.html"
        html = built.read_text(encoding="utf-8")
        for source in re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?([^\" >]+)", html):
            assert not re.match(r"https?://(?!localhost)", source), f"{built}: {source}"
    assert "plan.patch_size" in (site / "reference/keys/index.html").read_text(encoding="utf-8")
    assert "PatchLoader" in (site / "reference/python/index.html").read_text(encoding="utf-8")


def test_the_worked_example_says_what_is_printed(tmp_path: Path) -> None:
    """README's, on the very files, on a terminal as wide as that of README."""
    real = ROOT.parent / "shared" / "data" / "01_stardist_nuclei3d"
    if not real.is_dir():
        pytest.skip("the real data is not beside this checkout")
    for kind in ("images", "labels"):
        (tmp_path / "nuclei" / kind).mkdir(parents=True)
        shutil.copy(real / kind / "img3d.tif", tmp_path / "nuclei" / kind / "nuclei.tif")
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- transcript: nuclei -->")[1]
    shown = list(
        itertools.takewhile(lambda line: line.startswith("    ") or not line, text.splitlines()[1:])
    )
    printed, tried = "", 0
    for line in (each[4:].rstrip() for each in shown if each.strip()):
        if line.startswith("$ volprep "):
            printed = on_a_terminal(line.removeprefix("$ volprep ").split(), tmp_path)
        elif line != "...":
            line = re.sub(r"[\d.]+ MiB, [\d.]+ s$", "...", line)  # machines differ
            pattern = re.sub(r"(\\ )+", r"\\s+", re.escape(line).replace(r"\.\.\.", ".*"))
            assert re.search(pattern, printed, re.S), f"{line}\n{printed}"
            tried += 1
    assert tried > 15


def on_a_terminal(arguments: list[str], folder: Path, columns: int = 100) -> str:
    """What volprep shows on a terminal, both streams, without its colours."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ |= {"COLUMNS": str(columns), "TERM": "xterm"}
        os.execv(sys.executable, [sys.executable, "-m", "volprep", *arguments])
    shown = b""
    with contextlib.suppress(OSError):  # what Linux says at the end
        while part := os.read(terminal, 65536):
            shown += part
    _, status = os.waitpid(child, 0)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode("utf-8", "replace"))
    assert os.waitstatus_to_exitcode(status) == 0, text
    return text.replace("\r", "")
