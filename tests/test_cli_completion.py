"""What a shell is told when it asks for completions, by the protocols of bash, zsh and fish."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from volprep.augment import TRANSFORMS
from volprep.cli.completion import join_words, settings, topics
from volprep.config import every_key, load_config, parse_changes
from volprep.errors import ConfigError
from volprep.exports import TABLE as EXPORTS
from volprep.findings import TABLE as FINDINGS
from volprep.targets import TARGETS

SHELLS = ["bash", "zsh", "fish"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where `volprep` is a command, and nothing of a person's own shell is read or written."""
    folder = tmp_path_factory.mktemp("shell")
    script = folder / "volprep"
    code = "import sys; from volprep.__main__ import main; sys.argv[0] = 'volprep'; main()"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    script.chmod(0o755)
    found = {k: v for k, v in os.environ.items() if not k.startswith(("_VOLPREP", "COMP_"))}
    return {**found, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}


def ask(shell: str, words: Sequence[str], environment: dict[str, str]) -> str:
    """What volprep answers a shell whose line has these words; the last one is completed."""
    line = " ".join(words)
    said = {
        "bash": {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        ["volprep"], env={**environment, "_VOLPREP_COMPLETE": f"complete_{shell}", **said},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["prep"], ["prepare"]),
        (["explain", "plan.pat"], ["plan.patch_size"]),
        (["explain", "label-l"], ["label-lossy"]),
        (["check", "--explain", "slices-m"], ["slices-missing"]),
        (["export", "out", "--to", "st"], ["stardist"]),
        (["preview-augment", "c.yaml", "--only", "elas"], ["elastic"]),
        (["prepare", "c.yaml", "--set", "plan.prec"], ["plan.precision=", "plan.precision=mixed"]),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)
def test_shells_are_offered_commands_keys_and_names(
    shell: str, words: list[str], offered: list[str], environment: dict[str, str]
) -> None:
    if shell != "bash" and words[0] in ("check", "preview-augment", "export"):
        pytest.skip("the same function, asked by one shell")
    told = ask(shell, ["volprep", *words], environment)
    for each in offered:
        assert each in told
    if shell == "bash":
        assert told.split() == offered


def test_bash_is_told_the_value_alone_behind_the_sign(environment: dict[str, str]) -> None:
    """It takes words apart there, and replaces the last part."""
    start = ["volprep", "prepare", "c.yaml"]
    for words, offered in (
        (["--set", "plan.planner", "=", "bio"], ["biom3d"]),
        (["--set", "plan.planner", "="], ["memory", "biom3d"]),
        (["--set", "=", "plan.planner", "=", "bio"], ["biom3d"]),
        (["--set", "=", "plan.precis"], ["plan.precision=", "plan.precision=mixed"]),
    ):
        assert ask("bash", [*start, *words], environment).split() == offered, words


def test_words_are_put_together_at_the_sign() -> None:
    words = ["volprep", "prepare", "--set", "a", "=", "1", "--set", "=", "b", "=", "c.ya"]
    assert join_words(words, 10) == (["volprep", "prepare", "--set", "a=1", "--set=b=c.ya"], 4)
    assert join_words(words, 3)[1] == 3
    assert join_words(["volprep", "check", "d"], 2) == (["volprep", "check", "d"], 2)


def test_all_that_can_be_explained_is_offered() -> None:
    offered = {name for name, _ in topics("")}
    assert {key.name.replace("[]", "") for key in every_key()} <= offered
    assert {*TRANSFORMS, *TARGETS, *FINDINGS} <= offered
    assert "nnunet" in EXPORTS


def test_every_value_that_is_offered_may_stand_there(tmp_path: Path) -> None:
    """Those of each key, tried in a config."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "c.yaml").write_text("data: {root: raw}\n")
    tried = 0
    for key in every_key():
        if key.is_section or "[]" in key.name:
            continue
        offers = [text for text, _ in settings(f"{key.name}=") if not text.endswith("=")]
        for text in offers:
            tried += 1
            told = ""
            try:
                load_config(tmp_path / "c.yaml", parse_changes([text]))
            except ConfigError as error:
                told = str(error)
            # Or it goes with another key, which the message names.
            assert not told or re.search("belong to|needs|does not take|give either", told), text
    assert tried > 100
    assert [text for text, _ in settings("output.store=")] == [
        "output.store=patches", "output.store=volumes", "output.store=auto",
    ]  # fmt: skip
    assert {"skeletons.enabled=true", "skeletons.enabled=false"} <= {
        text for text, _ in settings("skeletons.enabled=")
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_is_shown_and_names_the_command(
    shell: str, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        ["volprep"], env={**environment, "_VOLPREP_COMPLETE": f"source_{shell}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"_VOLPREP_COMPLETE=complete_{shell}" in done.stdout


# Each prints what its own completion offers behind `volprep explain plan.patch`.
IN_SHELLS = {
    "bash": (
        'eval "$(volprep --show-completion)"; COMP_WORDS=(volprep explain plan.patch); '
        "COMP_CWORD=2; _volprep_completion volprep; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    ),
    "zsh": (
        'autoload -U compinit; compinit -D -u; eval "$(volprep --show-completion)"; '
        "_arguments() { print -r -- $* }; words=(volprep explain plan.patch); CURRENT=3; "
        "_volprep_completion"
    ),
    "fish": "volprep --show-completion | source; complete -C 'volprep explain plan.patch'",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(shell: str, environment: dict[str, str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    done = subprocess.run(
        [shell, "-c", IN_SHELLS[shell]], env=environment, capture_output=True, text=True
    )
    assert "plan.patch_size" in done.stdout, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_gets_its_completion_installed(
    shell: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    done = subprocess.run(
        [shell, "-c", "volprep --install-completion; true"],
        env={**environment, "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert f"{shell} completion installed in" in done.stdout, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("complete_" in path.read_text() for path in written)
