"""The floors and the guests' rooms of the house are kept by reading the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "volprep"

# Imports point down only. Rooms on one floor do not import each other, and a package's own
# files are one room.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["pipeline"],
    ["checks", "report", "exports", "loader", "viewer"],
    ["cutting"],
    ["autoconfig", "fingerprint", "splits"],
    ["cases", "headers", "targets"],
    ["sources", "preprocess", "patching", "sampling", "skeletons", "augment", "store", "outputs"],
    ["warp", "ledger", "objects"],
    ["randomness", "compute", "kernels", "config"],
    ["findings"],
    ["geometry", "codecs", "files", "places", "cache"],
    ["errors", "version"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
GUESTS = {
    "typer": {"cli"},
    "rich": {"cli"},
    "pydantic": {"config"},
    "yaml": {"config", "exports"},  # exports: the configs of other trainers
    "numba": {"kernels"},
    "torch": {"loader", "skeletons"},  # skeletons: lazily, for the documented tensors and .trch
    "zarr": {"sources", "store", "outputs"},
    "tensorstore": {"objects"},
    "neuroglancer": {"viewer"},
    "mrcfile": {"sources"},
    "nrrd": {"sources"},
    "SimpleITK": {"sources"},
    "bioio_czi": {"sources"},
    "bioio_nd2": {"sources"},
    "bioio_lif": {"sources"},
    "dask": {"compute"},
    "distributed": {"compute"},
}
# What is being mended elsewhere; nothing may be added here.
LEFT = {
    ("__init__", "pipeline.prepare"),  # mypy takes the function of this name for the file
}  # fmt: skip
LIGHT = [
    "numpy", "torch", "numba", "zarr", "dask", "scipy", "skimage", "tifffile", "h5py",
    "tensorstore",
]  # fmt: skip


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, whether it stands at the top level of the file)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "volprep":
                names = [f"volprep.{alias.name}" for alias in node.names]
        found.extend((name, node in tree.body) for name in names)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms <= set(FLOOR), f"no floor for {sorted(rooms - set(FLOOR))}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for module, _ in imports_of(path):
        parts = module.split(".")
        if parts[0] != "volprep" or len(parts) == 1 or parts[1] == room:
            continue
        assert FLOOR[parts[1]] > FLOOR[room], f"{room} may not import {parts[1]}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_guests_stay_in_their_rooms(path: Path) -> None:
    for module, _ in imports_of(path):
        guest = module.split(".")[0]
        if guest in GUESTS:
            assert room_of(path) in GUESTS[guest], f"{guest} is not at home in {room_of(path)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_pipeline_and_the_cli_know_the_config(path: Path) -> None:
    if room_of(path) in ("pipeline", "cli", "config", "__init__"):  # __init__ hands names on
        return
    for module, _ in imports_of(path):
        assert module.split(".")[:2] != ["volprep", "config"], f"{room_of(path)} knows the config"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nobody_reaches_past_a_rooms_face(path: Path) -> None:
    for module, _ in imports_of(path):
        room = ".".join(module.split(".")[1:2])
        # The files of kernels are its face: each loads numba, so nothing may gather them.
        if not module.startswith("volprep.") or room in (room_of(path), "kernels"):
            continue
        past = (room_of(path), module.removeprefix("volprep."))
        assert module.count(".") == 1 or past in LEFT, f"take it from volprep.{room}, not {module}"


def test_no_files_import_each_other() -> None:
    files = {_module(path): path for path in FILES}
    imported = {name: _imported_files(path, set(files)) for name, path in files.items()}
    for name in imported:
        reached, todo = set[str](), set(imported[name])
        while todo:
            reached |= (now := todo - reached)
            todo = set().union(*(imported[other] for other in now))
        assert name not in reached, f"{name} imports itself by a detour"


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported_files(path: Path, files: set[str]) -> set[str]:
    """The files that a file imports, in functions and for type checkers as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            dotted = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (dotted & files) or {node.module}
    return (found & files) - {_module(path)}


@pytest.mark.parametrize("module", ["volprep", "volprep.cli"])
def test_help_and_import_load_no_heavy_guest(module: str) -> None:
    code = (
        f"import sys, runpy; import {module}\n"
        "if 'cli' in " + repr(module) + ":\n"
        "    from typer.testing import CliRunner\n"
        "    from volprep.cli import app\n"
        "    assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print([m for m in {LIGHT} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
