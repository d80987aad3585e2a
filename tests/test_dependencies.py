"""What is imported is declared, what is declared is used, and what is pinned is within bounds."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: [Requirement(text) for text in texts]
    for name, texts in PROJECT["optional-dependencies"].items()
}
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
# Imported by their commands or plugins, not by a line of ours.
TOOLS = {"pytest-xdist", "ruff", "mypy", "types-pyyaml", "scipy-stubs"}
# The benchmarks and scripts/acceptance install the systems that they compare with themselves;
# "asking" and "novision" lie beside the latter, and "subjects", "train" and "transforms" in what
# is exported.
PEERS = {
    "acvl_utils",
    "asking",
    "batchgeneratorsv2",
    "biom3d",
    "blosc2",
    "careamics",
    "cellpose",
    "connectomics",
    "elektronn3",
    "monai",
    "nnunetv2",
    "novision",
    "skoots",
    "stardist",
    "subjects",
    "torchio",
    "torchvision",
    "train",
    "transforms",
    "yacs",
}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder: str) -> dict[str, Path]:
    """Each outer module that some file of a folder imports, anywhere in it, and one such file."""
    found = {}
    beside = [path for path in (ROOT / folder).iterdir() if path.suffix == ".py" or path.is_dir()]
    own = {path.stem for path in beside} | {"volprep"}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in own:
                    found[name] = path
    return found


def distributions(module: str) -> set[str]:
    return {plain(name) for name in packages_distributions().get(module, [module])}


def names(requirements: list[Requirement]) -> set[str]:
    return {plain(one.name) for one in requirements}


IMPORTED = imported("volprep")
ALLOWED = names(NEEDED).union(*(names(extra) for name, extra in EXTRAS.items() if name != "dev"))


@pytest.mark.parametrize("module", sorted(IMPORTED))
def test_what_the_package_imports_is_declared(module: str) -> None:
    assert distributions(module) & ALLOWED, f"{IMPORTED[module]} imports {module}: not declared"


@pytest.mark.parametrize("folder", ["tests", "scripts"])
def test_what_tests_and_scripts_import_is_declared(folder: str) -> None:
    everything = ALLOWED | names(EXTRAS["dev"])
    for module, path in imported(folder).items():
        known = distributions(module) & everything or module in PEERS
        assert known, f"{path} imports {module}: not declared"


def test_what_is_declared_is_imported() -> None:
    used = set().union(*map(distributions, IMPORTED))
    assert names(NEEDED) <= used, f"unused: {sorted(names(NEEDED) - used)}"
    for name in EXTRAS.keys() - {"dev", "docs"}:
        assert names(EXTRAS[name]) & used, f"nothing uses the extra {name!r}"
    used |= set().union(*map(distributions, imported("tests") | imported("scripts")))
    assert names(EXTRAS["dev"]) - TOOLS <= used


def test_every_declared_package_has_a_lower_bound() -> None:
    for one in [*NEEDED, *chain.from_iterable(EXTRAS.values())]:
        assert {clause.operator for clause in one.specifier} >= {">="}, (
            f"{one}: from which version?"
        )


def test_the_pinned_versions_lie_within_the_bounds() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = {plain(one.name): one for one in map(Requirement, text.split("\n")[:-1])}
    for one in [*NEEDED, *chain.from_iterable(EXTRAS.values())]:
        assert plain(one.name) in pins, f"constraints.txt does not pin {one.name}"
        (pin,) = pins[plain(one.name)].specifier
        assert one.specifier.contains(pin.version), f"{pin} is not within {one}"


def test_every_extra_that_an_error_names_exists() -> None:
    raised = re.compile(r"MissingDependencyError\(\s*[^,()]+,\s*\"(\w+)\"")
    for path in sorted((ROOT / "volprep").rglob("*.py")):
        for extra in raised.findall(path.read_text(encoding="utf-8")):
            assert extra in EXTRAS, f"{path} names the extra {extra!r}"
