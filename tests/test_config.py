"""Every mistake in the YAML is named with its line, its dotted key, and the nearest right key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volprep.config import (
    Config,
    dump_yaml,
    json_schema,
    load_config,
    parse_memory,
    parse_spacing,
)
from volprep.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "volprep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistake(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(write(folder, text))
    assert error.value.exit_code == 2
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("data:\n  root: x\nplan:\n  memry: 8GiB\n", 4, ["plan.memry", "did you mean memory?"]),
        ("data: {root: x}\npatchsize: 3\n", 2, ["patchsize", "plan.patch_size"]),
        ("data: {root: x}\nplan:\n  patch_size: [1, 2]\n", 3, ["plan.patch_size", "(z, y, x)"]),
        ("data: {root: x}\nplan:\n  patch_size: [1, 2, 0]\n", 3, ["plan.patch_size.2", "found 0"]),
        ("data: {root: x}\nseed: -1\n", 2, ["seed", "found -1"]),
        ("data:\n  root: x\n  spacing: 4 px\n", 3, ["data.spacing"]),
        ("data:\n  root: x\n  spacing: [4, 4, 0]\n", 3, ["data.spacing", "positive"]),
        ("data: {root: x}\npreprocess:\n  clip: [99, 1]\n", 3, ["preprocess.clip", "ascend"]),
        ("data: {root: x}\npreprocess:\n  mean: [1]\n", 2, ["preprocess", "normalise: given"]),
        ("data:\n  root: x\ndata:\n  root: y\n", 3, ["data", "given twice", "line 1"]),
        ("data: {root: x\n", 2, ["no valid YAML", "close what was opened"]),
        ("data:\n\troot: x\n", 2, ["no valid YAML: a tab; indent with spaces"]),
        ("data:\n  root: x\n   axes: ZYX\n", 3, ["indent it like its neighbours"]),
        ("seed: 1\n", 1, ["data", "missing"]),
        ("data: {}\n", 1, ["data", "give either root"]),
        ("- 1\n", 1, ["found [1]", "sections"]),
        ("data: {root: x}\nplan:\n  memory: lots\n", 3, ["plan.memory", "8GiB"]),
        ("data:\n  cases:\n    - image: a\n      lable: b\n", 4, ["data.cases.0.lable", "label?"]),
    ],
)
def test_mistake_names_line_key_and_remedy(
    tmp_path: Path, text: str, line: int, parts: list[str]
) -> None:
    message = mistake(tmp_path, text)
    assert f"volprep.yaml:{line}:" in message
    for part in parts:
        assert part in message


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    message = mistake(tmp_path, "data: {root: x}\nseed: -1\npln: {}\n")
    assert len(message.splitlines()) == 2


def test_missing_and_unreadable_files_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="volprep init"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"data: {root: \xff}\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(path)


def test_python_objects_are_never_made(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    text = f"data: !!python/object/apply:os.system ['touch {marker}']\n"
    mistake(tmp_path, text)
    assert not marker.exists()


def test_rings_and_bombs_of_aliases_end(tmp_path: Path) -> None:
    mistake(tmp_path, "data: &a\n  root: x\n  cases: *a\n")
    bomb = "".join(f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]\n" for i in range(1, 26))
    mistake(tmp_path, f"x0: &x0 [1]\n{bomb}data: {{root: x}}\n")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {root: raw}\noutput: {dir: ../out}\n"))
    assert config.data.root == tmp_path.resolve() / "raw"
    assert config.output.dir == tmp_path.resolve().parent / "out"


def test_dumped_config_loads_back_to_the_same_object(tmp_path: Path) -> None:
    text = "data: {root: raw, spacing: '50, 4, 4 nm'}\nplan: {memory: 2GiB}\naugment: [flip]\n"
    config = load_config(write(tmp_path, text))
    assert load_config(write(tmp_path, dump_yaml(config))) == config


def test_scientific_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {root: x}\nsplit: {fraction: 1e-1}\n"))
    assert config.split.fraction == 0.1


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("500 MB", 500_000_000), ("1.5g", 1_500_000_000), (2000000, 2000000)],
)
def test_memory_is_read_in_the_usual_spellings(text: object, size: int) -> None:
    assert parse_memory(text) == size


@given(st.tuples(*[st.floats(1e-3, 1e3)] * 3))
def test_spacing_in_nm_is_a_thousandth(spacing: tuple[float, float, float]) -> None:
    text = "{} {} {} nm".format(*spacing)
    parsed = parse_spacing(text)
    assert parsed == pytest.approx([s / 1000 for s in spacing])


def test_every_key_is_described_in_the_schema() -> None:
    schema = json_schema()
    json.dumps(schema)
    for name, section in schema["$defs"].items():
        for key, field in section["properties"].items():
            assert field.get("description") or "$ref" in field, f"{name}.{key} has no description"
    assert set(schema["properties"]) == set(Config.model_fields)


def test_a_cluster_belongs_to_dask(tmp_path: Path) -> None:
    data = "data: {root: x}\n"
    found = mistake(tmp_path, data + "compute: {scheduler: 'tcp://h:1'}\n")
    assert "executor: dask" in found
    found = mistake(
        tmp_path, data + "compute: {executor: dask, scheduler: 'tcp://h:1', cluster: {jobs: 2}}\n"
    )
    assert "not both" in found
    assert "did you mean walltime?" in mistake(
        tmp_path, data + "compute: {executor: dask, cluster: {waltime: '01:00:00'}}\n"
    )
    text = "compute: {executor: dask, cluster: {kind: slurm, jobs: 4, cores: 8, memory: 32GB}}\n"
    compute = load_config(write(tmp_path, data + text)).compute
    assert compute.cluster is not None
    assert (compute.executor, compute.cluster.jobs) == ("dask", 4)


def test_the_command_line_wins_over_the_section(tmp_path: Path) -> None:
    from volprep.pipeline.inputs import compute_with

    text = "data: {root: x}\ncompute: {executor: dask, workers: 3, cluster: {jobs: 2}}\n"
    section = load_config(write(tmp_path, text)).compute
    given = compute_with(section, scheduler="tcp://h:1")
    assert (given.executor, given.scheduler, given.cluster) == ("dask", "tcp://h:1", None)
    assert given.workers == 3
    assert compute_with(None, scheduler="tcp://h:1").executor == "dask"
    assert compute_with(None, executor="processes", workers=2).executor == "processes"
    with pytest.raises(ConfigError, match="--executor: found"):
        compute_with(None, executor="cloud")
    with pytest.raises(ConfigError, match="executor: dask"):
        compute_with(None, executor="threads", scheduler="tcp://h:1")
