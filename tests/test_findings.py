"""Findings: one table, the user's rules, and every way in which they reach the reader."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from volprep import pipeline
from volprep.config import Config, load_config
from volprep.errors import ConfigError, DataCheckError
from volprep.findings import (
    TABLE,
    Finding,
    Note,
    Rules,
    by_level,
    explain,
    in_short,
    raise_on_errors,
)

RNG = np.random.default_rng(0)


def volprep(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volprep", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def a_set(folder: Path, count: int = 3, *, findings: dict[str, list[str]] | None = None) -> Path:
    """A sound data set but for its spacing, and a config for it."""
    for what in ("images", "labels"):
        (folder / what).mkdir(parents=True)
    for number in range(count):
        image = RNG.integers(1, 200, (16, 40, 40)).astype(np.uint8)
        label = np.zeros(image.shape, np.uint16)
        label[4:12, 4:16, 4:16], label[4:12, 20:36, 20 : 36 - number] = 1, 2
        image[label > 0] += 50
        np.save(folder / "images" / f"c{number}.npy", image)
        np.save(folder / "labels" / f"c{number}.npy", label)
    config = {
        "data": {"root": "."},
        "plan": {"patch_size": [8, 16, 16], "batch_size": 2},
        "findings": findings or {},
        "output": {"dir": "out"},
    }
    path = folder / "volprep.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_table_is_in_the_order_of_the_alphabet_and_says_everything() -> None:
    assert list(TABLE) == sorted(TABLE)
    for name, kind in TABLE.items():
        assert re.fullmatch("[a-z0-9-]+", name)
        assert all(text.strip() for text in kind), name
        assert kind.why.endswith("."), name
        assert explain(name).startswith(f"{name} ({kind.level})\n")


def test_a_finding_has_name_level_file_found_wanted_and_what_to_do() -> None:
    finding = Finding("one-instance", "the only value is 1", case="a", path=Path("a.tif"))
    assert finding.to_dict() == {
        "name": "one-instance",
        "level": "warning",
        "case": "a",
        "path": "a.tif",
        "found": "the only value is 1",
        "wanted": TABLE["one-instance"].wanted,
        "todo": TABLE["one-instance"].todo,
        "message": f"the only value is 1; {TABLE['one-instance'].todo}",
    }
    assert str(finding) == f"a a.tif: {finding.message} [one-instance]"
    assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding
    with pytest.raises(KeyError):
        Finding("no-such-name", "x")


def test_a_note_is_a_text_that_knows_its_name() -> None:
    note = Note("spacing-unread", "the unit is 'pixel'", todo="give one", level="info")
    assert note == "the unit is 'pixel'; give one"
    for other in (note, copy.deepcopy(note), pickle.loads(pickle.dumps(note))):
        assert other.about("a", Path("a.tif")) == Finding(
            "spacing-unread",
            "the unit is 'pixel'",
            todo="give one",
            level="info",
            case="a",
            path=Path("a.tif"),
        )
    assert Note.from_dict(json.loads(json.dumps(note.to_dict()))).about() == note.about()
    with pytest.raises(KeyError):
        Note("no-such-name", "x")


def test_rules_silence_and_harden_by_name_but_an_error_stays() -> None:
    found = [
        Finding("cut-objects", "x"),
        Finding("unknown-spacing", "x"),
        Finding("unreadable", "x"),
        Finding("sparse-label", "x", level="error"),
    ]
    rules = Rules(frozenset({"cut-objects", "sparse-label"}), frozenset({"unknown-spacing"}))
    left = by_level(rules.apply(found))
    assert [(f.name, f.level) for f in left] == [
        ("unknown-spacing", "error"),
        ("unreadable", "error"),
        ("sparse-label", "error"),
    ]


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ({"ignore": ["one-instanc"]}, "did you mean one-instance?"),
        ({"error": ["zzz"]}, "no finding is called zzz"),
        ({"ignore": ["unreadable"]}, "is an error, which cannot be ignored"),
        ({"ignored": []}, "did you mean"),
    ],
)
def test_wrong_names_in_the_yaml_are_named_with_their_line(
    tmp_path: Path, findings: dict[str, list[str]], words: str
) -> None:
    path = a_set(tmp_path, 1, findings=findings)
    with pytest.raises(ConfigError, match=r"volprep\.yaml:\d+: findings\.") as caught:
        load_config(path)
    assert words in str(caught.value)


def test_a_finding_can_be_silenced_or_made_an_error(tmp_path: Path) -> None:
    noisy = load_config(a_set(tmp_path / "noisy"))
    quiet = load_config(a_set(tmp_path / "quiet", findings={"ignore": ["unknown-spacing"]}))
    hard = load_config(a_set(tmp_path / "hard", findings={"error": ["unknown-spacing"]}))

    def told(config: object) -> set[tuple[str, str]]:
        report = pipeline.check(config, pipeline.list_cases(config))  # type: ignore[arg-type]
        return {(f.name, f.level) for f in report.findings if f.name == "unknown-spacing"}

    assert told(noisy) == {("unknown-spacing", "warning")}
    assert told(quiet) == set()
    assert told(hard) == {("unknown-spacing", "error")}
    with pytest.raises(DataCheckError, match="unknown-spacing"):
        pipeline.prepare(hard)
    assert not (tmp_path / "hard/out").exists()


def test_warnings_are_printed_by_prepare_and_kept_in_the_set(tmp_path: Path) -> None:
    path = a_set(tmp_path)
    done = volprep("prepare", path)
    assert done.returncode == 0, done.stderr
    assert "warning: " in done.stderr
    assert "[unknown-spacing]" in done.stderr
    kept = json.loads((tmp_path / "out/findings.json").read_text())
    assert "unknown-spacing" in {each["name"] for each in kept["findings"]}
    assert kept["ignored"] == []
    shown = volprep("inspect", tmp_path / "out")
    assert "[unknown-spacing]" in shown.stdout


def test_strict_ends_with_4_on_warnings_and_leaves_no_set(tmp_path: Path) -> None:
    path = a_set(tmp_path)
    assert volprep("check", path).returncode == 0
    strict = volprep("check", path, "--strict")
    assert strict.returncode == 4
    assert "1 warning: see above" in strict.stderr
    refused = volprep("prepare", path, "--strict")
    assert refused.returncode == 4
    assert "unknown-spacing (1)" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert volprep("prepare", path).returncode == 0
    again = volprep("prepare", path, "--strict")  # of a set that is there already
    assert again.returncode == 4
    assert "unknown-spacing" in again.stderr


def test_a_finding_is_explained_with_an_example() -> None:
    one = volprep("check", "--explain", "one-instance")
    assert one.returncode == 0
    assert one.stdout.startswith("one-instance (warning)")
    assert "  example  " in one.stdout
    every = volprep("check", "--explain", "all")
    assert all(f"{name} (" in every.stdout for name in TABLE)
    wrong = volprep("check", "--explain", "one-instanc")
    assert (wrong.returncode, "did you mean one-instance?" in wrong.stderr) == (2, True)
    assert volprep("check").returncode == 2


def test_the_cause_comes_first_a_missing_label_not_what_follows_from_it(tmp_path: Path) -> None:
    path = a_set(tmp_path, 2)
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "split": {"kind": "cases"}}))
    (tmp_path / "labels/c1.npy").unlink()
    done = volprep("check", path)
    assert done.returncode == 4
    errors = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "1 of 2 cases have no label and are left out (c1)" in errors[0]


def test_no_voxel_is_read_of_a_case_whose_header_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_set(tmp_path)
    wrong = tmp_path / "labels/c1.npy"
    np.save(wrong, np.load(wrong)[1:])
    from volprep.sources import Volume

    touched: set[str] = set()
    read = Volume.read

    def noted(self: Volume, *args: object, **kwargs: object) -> object:
        touched.add(self.path.stem)
        return read(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Volume, "read", noted)
    config = load_config(path)
    report = pipeline.check(config, pipeline.list_cases(config))
    assert [f.name for f in report.findings if f.level == "error"] == ["shape-mismatch"]
    assert "c1" not in touched
    assert "c0" in touched


def test_a_finding_that_asks_for_nothing_says_so_in_a_sentence() -> None:
    told = str(Finding("cut-objects", "3 of 4 objects touch the faces"))
    assert "; nothing to do, unless whole objects are needed" in told


def test_what_differs_in_case_and_figures_alone_is_read_once() -> None:
    found = [
        Finding("labels-misplaced", f"mirrored along x (0.9{n})", case=f"c{n}", level="error")
        for n in range(5)
    ]
    found.append(Finding("labels-misplaced", "moved along x (0.91)", case="c9", level="error"))
    first, other = in_short(found)
    assert first.found == "mirrored along x (0.90) (and so in 4 more: c1, c2, c3, ...)"
    assert other is found[-1]
    with pytest.raises(DataCheckError) as caught:
        raise_on_errors(found)
    assert str(caught.value).splitlines() == [str(first), str(other)]
    assert caught.value.findings == [str(finding) for finding in found]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_most_data_have_stands_behind_what_is_wrong_with_these() -> None:
    common, wrong = Finding("unknown-spacing", "x"), Finding("labels-misplaced", "x")
    assert by_level([common, wrong]) == [wrong, common]


def test_what_the_config_makes_alike_needs_no_care(tmp_path: Path) -> None:
    for name, dtype in (("a", np.uint8), ("b", np.uint16)):
        np.save(tmp_path / f"{name}.npy", np.arange(4096).reshape(16, 16, 16).astype(dtype))
    cases = [
        {"image": str(tmp_path / f"{n}.npy"), "spacing": f"{s}, {s}, {s} µm"}
        for n, s in ("a1", "b2")
    ]
    for section, wanted in (
        ({}, ("warning", "warning")),
        ({"target_spacing": "finest"}, ("info", "warning")),
        ({"scope": "case"}, ("warning", "info")),
    ):
        config = Config.model_validate({"data": {"cases": cases}, "preprocess": section})
        found = pipeline.check(config, pipeline.list_cases(config)).findings
        levels = {f.name: f.level for f in found}
        assert (levels["mixed-spacings"], levels["mixed-dtypes"]) == wanted
