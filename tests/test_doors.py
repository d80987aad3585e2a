"""Every way in: whatever is given, what comes back is a message and an exit code of the family."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer

from volprep import pipeline
from volprep.cli import app
from volprep.config import load_config, parse_changes
from volprep.errors import ConfigError, DataCheckError, PlanError, SourceError, StoreError
from volprep.store import PatchStore


def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volprep", *map(str, arguments)]
    own = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=own)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for what in ("images", "labels"):
        (folder / what).mkdir(parents=True)
    for number in range(3):
        rng = np.random.default_rng(number)
        np.save(folder / f"images/c{number}.npy", rng.integers(0, 99, (8, 24, 24)).astype(np.uint8))
        np.save(folder / f"labels/c{number}.npy", np.tri(24, dtype=np.uint8)[None].repeat(8, 0))
    return folder


def test_what_is_no_error_of_ours_is_a_line_and_a_report(tmp_path: Path) -> None:
    code = (
        "import sys, volprep.pipeline as p\n"
        "def broken(*_, **__): raise ZeroDivisionError('of the test')\n"
        "p.load_target = broken\n"
        "from volprep.__main__ import main\n"
        "sys.argv = ['volprep', 'check', 'x']\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: internal: ZeroDivisionError: of the test" in done.stderr
    assert "Traceback" not in done.stderr
    (report,) = tmp_path.glob("volprep-report-*.txt")
    assert str(report) in done.stderr
    assert "Traceback" in report.read_text()
    assert "volprep check x" in report.read_text()


def here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str]:
    """As `run`, in this process, which is quicker: exit code and all that is told."""
    try:
        given = list(map(str, arguments))
        code = typer.main.get_command(app).main(given, standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except Exception as error:  # of Typer, which shows it where it is called from a shell
        code = getattr(error, "exit_code", 99)
        print(getattr(error, "message", error))
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize("spacing", ["16 nm", "abc", "1,2", "-1,1,1", "0,0,0", "1,1,1 pixels"])
def test_a_spacing_that_is_none_is_an_error_of_the_config(
    data: Path, spacing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("init", "autoconfig"):
        code, told = here(capsys, command, data, "--spacing", spacing)
        assert (code, "Traceback" in told) == (2, False), told
        assert "spacing" in told


def test_autoconfig_refuses_a_spacing_beside_a_config(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data / "v.yaml"
    path.write_text("data: {root: .}\n")
    code, told = here(capsys, "autoconfig", path, "--spacing", "1,1,1")
    assert code == 2
    assert "--spacing: of a folder alone; write it into" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init", "{}", "--spacing", "abc", "-o", "x.yaml"), "--spacing: found 'abc', which is no"),
        (("init", "{}", "--spacing", "4,4,0", "-o", "x.yaml"), "which is not positive"),
        (("autoconfig", "{}", "--memory", "lots"), "--memory: found 'lots', which is no amount"),
        (("autoconfig", "{}", "--planner", "x"), "--planner: found 'x'; give"),
        (("prepare", "{}/v.yaml", "--executor", "x"), "--executor: found 'x'; give"),
        (("prepare", "{}"), "a folder, where a YAML is wanted; write one with: volprep init"),
    ],
)
def test_a_wrong_option_is_called_as_it_was_given(
    data: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    (data / "v.yaml").write_text("data: {root: .}\noutput: {dir: out}\n")
    code, told = here(capsys, *(word.format(data) for word in words))
    assert code == 2
    assert said in told


def _bomb() -> str:
    """A few lines that stand for nine to the power of eight values."""
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for one, other in pairwise("abcdefgh"):
        lines.append(f"{other}: &{other} [{', '.join(['*' + one] * 9)}]")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: no\n", "seed: found false"),
        ("split: {fraction: yes}\n", "split.fraction: found true"),
        ("plan: {memory: .inf}\n", "plan.memory: found inf; nan and inf are no numbers here"),
        ("augment: [{gaussian_noise: {sigma: .inf}}]\n", "nan and inf are no numbers here"),
        ("augment: [{yes: {p: 1}}]\n", "augment.0"),
        ("plan: {batch_size: 99999999999}\n", "give a whole number from 1 to 65536"),
        ("compute: {workers: 99999999999}\n", "give a whole number from 1 to 1024"),
        ("plan: {memory: 1e300}\n", "is more memory than there is anywhere"),
        ("x: &a [1]\nseed: [*a\n", "no valid YAML"),
        ("seed: &a [*a]\n", "an alias refers to what it is part of"),
        (
            _bomb(),
            "its aliases stand for",
        ),
        ("epoch: {steps: 99999999999}\n", "give a whole number from 1 to 10000000"),
        ("plan: {pool: [31, 1, 1]}\n", "plan.pool.0: found 31; give a whole number from 0 to 30"),
        ("plan: {max_batch: 1}\n", "min_batch is 2 and max_batch 1, which is less; give both"),
        ("preprocess: {target_spacing: [1e-300, 1, 1]}\n", "between 1 pm and 1 m"),
        ("preprocess: {target_spacing: '1, 1, 1e300 um'}\n", "between 1 pm and 1 m"),
        ("plan: {memory: 1}\n", "plan.memory: found 1, which is less memory than anything takes"),
        ("plan: {max_dims: [9, 9, 5000]}\n", "plan.max_dims.2: found 5000"),
        ("skeletons: {anisotropy: [0, 1, 1]}\n", "skeletons.anisotropy.0: found 0"),
        ("skeletons: {radius: 1001}\n", "skeletons.radius: found 1001"),
        (
            "patching: {name: stratified, filter: {name: shannon, threshold: -1}}\n",
            "threshold is -1 bits; give 0 or more",
        ),
        ("preprocess: {clip: ['nan', 50]}\n", "nan and inf are no numbers here"),
        ("augment: [{gaussian_noise: {sigma: 1e308}}]\n", "numbers go up to 1000000000 here"),
        ("targets: [{blobs: {sigma: 1e308}}]\n", "numbers go up to 1000000000 here"),
        ("skeletons: {radius: nan}\n", "nan and inf are no numbers here"),
        ("split: {group: ''}\n", "split.group: found '', which is empty"),
        ("output: {dir: $VOLPREP_NOT_SET/x}\n", "the environment variable $VOLPREP_NOT_SET"),
        ("data2: {}\n", "unknown key"),
    ],
)  # fmt: skip
def test_what_a_yaml_can_hold_is_told(data: Path, text: str, words: str) -> None:
    path = data / "v.yaml"
    path.write_text(f"data: {{root: .}}\n{text}")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("one_hot: {classes: 1000000}", "found 1000000; wanted 1 to 4096"),
        ("blobs: {sigma: 100000}", "found 100000; wanted more than 0, 1000 at most"),
        ("affinities: {offsets: [[99999, 0, 0]]}", "wanted a list of (z, y, x)"),
    ],
)
def test_what_no_target_can_be_is_told(data: Path, target: str, words: str) -> None:
    path = data / "v.yaml"
    path.write_text(f"data: {{root: .}}\ntargets: [{{{target}}}]\n")
    with pytest.raises(ConfigError) as caught:
        pipeline.load_target(path)
    assert words in str(caught.value)


def test_paths_expand_variables_and_home(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOLPREP_PLACE", str(data))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "v.yaml"
    path.write_text("data: {root: $VOLPREP_PLACE}\noutput: {dir: ~/out}\n")
    config = load_config(path)
    assert config.data.root == data.resolve()
    assert config.output.dir == (tmp_path / "out").resolve()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "plan: {patch_size: [4, 8, 8]}\npatching: {overlap: [4, 0, 0]}\n",
            "patching.overlap: [4, 0, 0] is not smaller",
        ),
        (
            "patching: {name: stratified, filter: {name: max, threshold: 1, ref_channel: 3}}\n",
            "patching.filter.ref_channel: 3 of 1 channels; give 0 to 0",
        ),
        (
            "plan: {patch_size: [8, 1000, 24]}\n",
            "plan.patch_size: [8, 1000, 24] is more than 16 times as large as any volume",
        ),
        ("plan: {aug_patch_size: [1000000000, 9, 9]}\n", "plan.aug_patch_size: [1000000000, 9, 9]"),
        (
            "plan: {patch_size: [4, 8, 8]}\npatching: {reject: {size_thres: 257}}\n",
            "patching.reject.size_thres: 257 is more than the 256 voxels of a patch",
        ),
        ("plan: {pool: [30, 2, 2]}\n", "volumes have [8, 24, 24] voxels; give at most [7, 8, 8]"),
    ],
)
def test_values_that_fit_the_schema_but_not_the_data_are_told_before_a_voxel_is_read(
    data: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from volprep.sources import Volume

    path = data / "v.yaml"
    path.write_text(f"data: {{root: .}}\n{text}")
    config = load_config(path)

    def read(*_: object) -> None:
        raise AssertionError("a voxel was read")

    monkeypatch.setattr(Volume, "read", read)
    with pytest.raises(ConfigError) as caught:
        pipeline.check(config, pipeline.list_cases(config))
    assert words in str(caught.value)


def test_what_headers_show_to_be_impossible_is_told_before_a_voxel_is_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from volprep.sources import Volume

    def read(*_: object) -> None:
        raise AssertionError("a voxel was read")

    monkeypatch.setattr(Volume, "read", read)
    path = data / "v.yaml"
    for text, words in (
        ("split: {folds: 7}", "set split.folds to at most 3"),
        ("plan: {memory: 1MB}", "memory 1 MB"),
    ):
        path.write_text(f"data: {{root: .}}\noutput: {{dir: {data.parent}/out}}\n{text}\n")
        with pytest.raises(PlanError, match=words):
            pipeline.prepare(load_config(path))


def test_a_label_with_a_fraction_is_told_of_every_case(data: Path) -> None:
    for number in range(3):
        label = np.load(data / f"labels/c{number}.npy") * np.float32(0.5)
        np.save(data / f"labels/c{number}.npy", label)
    (data / "v.yaml").write_text("data: {root: .}\noutput: {dir: out}\n")
    with pytest.raises(DataCheckError, match=r"with a fraction.*\(and so in 2 more: c1, c2\)"):
        pipeline.prepare(load_config(data / "v.yaml"))


#: A key, a value that does something elsewhere, and whether there are labels.
IDLE = """
data.labels.min_size 5 no
data.ignore 255 no
data.ignore 255 yes
data.unlabelled 99 yes
data.points.radius 3 yes
data.time cases yes
data.n_classes 3 no
data.modality em yes
split.fold 1 yes
split.gap [1,2,3] yes
plan.max_dims [32,32,32] yes
preprocess.order 1 yes
preprocess.separate_z true yes
preprocess.region foreground no
patching.foreground.p 0.5 no
patching.foreground.per class no
patching.reject.size_thres 5 no
patching.reject.p 0.5 yes
patching.reject.diversity 9 yes
patching.reject.size_thres 4600 yes
patching.reject.valid_ratio 0.5 yes
skeletons.radius 3 yes
skeletons.method teasar yes
output.targets store yes
patching.filter.ref_channel 1 yes
patching.filter.filtered_patch_prob 0.5 yes
patching.foreground.p 0.5 yes patching.name=sequential
patching.filter.threshold 100 yes patching.name=stratified patching.filter.name=max
patching.filter.threshold 41 yes patching.name=stratified patching.filter.name=shannon
"""


@pytest.mark.parametrize("line", IDLE.strip().splitlines())
def test_a_key_that_does_nothing_with_this_data_is_told(data: Path, line: str) -> None:
    key, value, labelled, *beside = line.split()
    if labelled == "no":
        shutil.rmtree(data / "labels")
    path = data / "v.yaml"
    path.write_text("data: {root: .}\n")
    augment = ["augment=[]"] if key == "data.modality" else []
    config = load_config(path, parse_changes([*beside, f"{key}={value}", *augment]))
    found = pipeline.check(config, pipeline.list_cases(config)).findings
    told = [f.found for f in found if f.name == "option-idle"]
    assert len(told) == 1, told
    assert told[0].startswith(f"`{key}: ")


def test_copy_paste_without_labels_is_an_error_of_the_config(data: Path) -> None:
    for path in (data / "labels").iterdir():
        path.unlink()
    (data / "labels").rmdir()
    path = data / "v.yaml"
    path.write_text("data: {root: .}\naugment: [copy_paste]\n")
    config = load_config(path)
    with pytest.raises(ConfigError, match="copy_paste: copies labelled objects"):
        pipeline.check(config, pipeline.list_cases(config))


def test_a_folder_in_place_of_a_yaml_says_what_is_wanted(data: Path) -> None:
    done = run("preview-augment", data)
    assert done.returncode == 2
    assert "a folder, where a config is wanted; give a YAML" in done.stderr


def test_a_config_under_another_suffix_is_read(data: Path) -> None:
    path = data / "volprep.json"
    path.write_text('{"data": {"root": ".", "spacing": [1, 1, 1]}}')
    done = run("check", path, "--headers-only")
    assert done.returncode == 0, done.stderr
    assert "c2" in done.stdout


def _without_privileges() -> None:
    """Take from root what lets it pass by permissions (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    if os.geteuid() == 0:
        import ctypes

        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_without_permission_a_command_says_what_and_ends_with_the_code_of_its_family(
    data: Path,
) -> None:
    def ends(mode: int, shut: str, *arguments: object) -> tuple[int, str]:
        (data / shut).chmod(mode)
        command = [sys.executable, "-m", "volprep", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=data,
            preexec_fn=_without_privileges,
        )  # fmt: skip
        (data / shut).chmod(0o700)
        return done.returncode, done.stdout + done.stderr

    (data / "apart").mkdir()
    (data / "apart").chmod(0)  # which is nobody's business but its owner's
    code, told = ends(0, "images/c1.npy", "check", ".")
    assert code == 4
    assert "c1 " in told
    assert "images/c1.npy: may not be read; check its permissions [unreadable]" in told
    code, told = ends(0o400, "images", "autoconfig", ".")
    assert code == 3
    assert "images: may not be looked into; check its permissions" in told
    code, told = ends(0o500, ".", "init", ".", "-o", "v.yaml")
    assert code == 6
    assert "v.yaml: Permission denied; check its permissions" in told


def test_a_pipe_is_no_config_and_a_name_that_is_too_long_is_no_input(data: Path) -> None:
    os.mkfifo(data / "v.yaml")
    with pytest.raises(ConfigError, match="a device or a pipe, where a config is wanted"):
        pipeline.load_target(data / "v.yaml")
    with pytest.raises(SourceError, match="File name too long; check the path"):
        pipeline.load_target(Path("x" * 5000))


def test_a_text_that_no_name_can_have_is_told_in_the_words_of_the_yaml(data: Path) -> None:
    path = data / "v.yaml"
    for text in (r'"a\0b"', r'"\ud800"'):
        path.write_text(f"data: {{root: ., image_dir: {text}}}\n")
        with pytest.raises(ConfigError, match=r"image_dir: found .*holds a letter that no name"):
            load_config(path)


def test_a_page_without_a_name_and_too_many_threads_are_told(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "v.yaml").write_text("data: {root: .}\n")
    code, told = here(capsys, "preview-augment", data / "v.yaml", "--out", "")
    assert (code, "give the name of a page" in told) == (2, True), told
    code, told = here(capsys, "export", data, "--to", "monai", "--out", "x", "-j", 10**20)
    assert (code, "internal" in told) == (2, False), told


def test_a_set_is_looked_at_from_inside_its_folder(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    with pytest.raises(StoreError, match=r"^\.: no volprep patch set"):
        PatchStore(Path())


def test_a_set_in_which_nothing_is_labelled_is_made_and_told(data: Path) -> None:
    path = data / "v.yaml"
    path.write_text(
        "data: {root: ., spacing: [1, 1, 1], labels: {threshold: 99}}\n"
        "plan: {patch_size: [4, 8, 8], batch_size: 2}\noutput: {dir: out}\n"
    )
    store = pipeline.prepare(load_config(path))
    told = (store.path / "findings.json").read_text()
    assert '"empty-label"' in told
    assert "labelled voxels" not in (store.path / "report.html").read_text()


SILLY = (
    "",
    "-1",
    "nan",
    "1e308",
    "99999999999999999999",
    "é中",
    "..",
    "/dev/null",
    "a\nb",
    "x" * 300,
)
#: What must stand beside an option, so that it is looked at.
BESIDE = {"work": ("--units", "0:1"), "bake-skeletons": ("--labels", "none.tif")}


def test_silly_values_of_any_option_end_with_a_message_and_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = typer.main.get_command(app)
    wrong = []
    for name, command in commands.commands.items():  # type: ignore[attr-defined]
        places = [p for p in command.params if not p.opts[0].startswith("-")]
        # A folder that is not there: options alone are tried, and nothing is made.
        nowhere = [] if name == "bake-skeletons" else ["none"] * len(places)
        for option in (p for p in command.params if p not in places):
            if getattr(option, "is_flag", False) or name in ("formats", "schema"):
                continue
            for value in SILLY:
                given = [name, *nowhere, *BESIDE.get(name, ()), f"{option.opts[0]}={value}"]
                code, told = here(capsys, *given)
                words = ("internal:", "Traceback", "Input should", "Value error", "Errno")
                if code not in (0, 2, 3, 4, 5, 6, 7) or any(word in told for word in words):
                    wrong.append((given, code, told[-300:]))
    assert not wrong, wrong[:5]
    assert not list(tmp_path.iterdir())
