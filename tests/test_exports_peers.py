"""Other trainers read our exports by their own code, each in the environment that it lives in.

`scripts/accept_exports.py TARGET --keep` makes those environments; where there is none, and the
trainer is not installed beside volprep either, the test is skipped and says so.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from volprep.exports import TABLE

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "scripts" / "accept_exports.py"
#: Where the script keeps environments, and for trainers that are not on PyPI source/TARGET.
WORK = Path(os.environ.get("VOLPREP_ACCEPT", Path(tempfile.gettempdir()) / "volprep-accept"))
#: What a trainer must have agreed with, in some words of its report.
WANTED = {"training cases", "validation cases", "axes"}


@pytest.fixture(scope="module")
def acceptance() -> Any:
    spec = importlib.util.spec_from_file_location("accept_exports", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_with(target: str, to: str) -> Path:
    """The Python that has the trainer, or a skipped test."""
    own = WORK / "env" / to / "bin" / "python"
    if own.exists():
        return own
    try:
        version(TABLE[to].peer)
    except PackageNotFoundError:
        pytest.skip(
            f"{TABLE[to].peer} is not installed; python scripts/accept_exports.py {target} --keep "
            f"makes an environment for it in {WORK}"
        )
    return Path(sys.executable)


@pytest.mark.parametrize("name", ["instances", "classes", "blocks", "pictures"])
@pytest.mark.parametrize("target", [*TABLE, "connectomics-v1"])
def test_the_trainer_reads_what_we_wrote(
    target: str, name: str, acceptance: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    to = acceptance.VERSIONS.get(target, target)
    python = python_with(target, to)
    checkout = WORK / "source" / target if target in acceptance.SOURCES else None
    if checkout is not None and not checkout.exists():
        pytest.skip(f"{checkout} is not there: {acceptance.SOURCES[target]}")
    work = tmp_path_factory.getbasetemp() / "accept"
    acceptance.prepare_set(name, work / "sets" / name)
    found = acceptance.ask(target, python, work / "sets" / name, work / "exports", checkout)
    if "refused" in found:
        pytest.skip(f"not exported, and said so: {found['refused']}")
    assert "failed" not in found, found["failed"]
    assert set(found["asserted"]) >= WANTED
