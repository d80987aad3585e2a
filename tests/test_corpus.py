"""The corpus: what must be said of each kind of input, within limits of time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus_kinds import KINDS

pytestmark = pytest.mark.slow

#: Resident memory that a look at any kind may take.
PEAK = 500 * 2**20


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    root = tmp_path_factory.mktemp("corpus")
    lines = []
    for name, kind in KINDS.items():
        folder = root / name
        folder.mkdir()
        made = kind.make(folder)
        place = made if isinstance(made, Path) else folder
        lines.append(f"{name}\t{place}\t{json.dumps(kind.options)}\n")
    done = subprocess.run(
        [sys.executable, "-m", "corpus_runner"],
        input="".join(lines), capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_told_as_what_it_is(name: str, told: dict[str, dict[str, Any]]) -> None:
    result = told[name]
    names = {found for found, _ in result.get("findings", ())}
    for wanted in KINDS[name].said:
        if wanted.startswith("!"):
            family, _, words = wanted[1:].partition(": ")
            assert result.get("error") == family, result
            assert words in result["text"], result
        else:
            assert "error" not in result, result
            assert (wanted.removeprefix("-") in names) != wanted.startswith("-"), (wanted, result)
    assert result["peak"] < PEAK, result


def test_the_corpus_is_large() -> None:
    assert len(KINDS) >= 150
