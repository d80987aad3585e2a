"""Write what follows from the code: the schema, configs/reference.yaml and docs/reference/*.md.

    python scripts/generate_reference.py [--check]

`--check` writes nothing and ends with 1 where a file is not what would be written; a test
does the same.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from volprep.augment import TRANSFORMS
from volprep.cli import app
from volprep.config import Key, every_key, json_schema, on_one_line, schema_path
from volprep.findings import TABLE
from volprep.pipeline import about, parameters_of
from volprep.targets import TARGETS

ROOT = Path(__file__).parents[1]
MADE = "Made by scripts/generate_reference.py from the code; do not edit."


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    reference = ROOT / "docs" / "reference"
    return {
        schema_path(): schema,
        ROOT / "configs" / "volprep.schema.json": schema,
        ROOT / "configs" / "reference.yaml": reference_yaml(),
        reference / "keys.md": keys_page(),
        reference / "augmentations.md": kinds_page("Augmentations", "augment", TRANSFORMS),
        reference / "targets.md": kinds_page("Targets", "targets", TARGETS),
        reference / "commands.md": commands_page(),
        reference / "findings.md": findings_page(),
    }


def reference_yaml() -> str:
    """Every key with its meaning and its default, as a YAML that loads."""
    lines = [
        "# yaml-language-server: $schema=volprep.schema.json",
        f"# Every key with its meaning and its default. {MADE}",
        "# Keys without a default are commented out, with an example.",
    ]
    for key in every_key():
        depth = key.name.count(".")
        indent, name = "  " * depth, key.name.rsplit(".", 1)[-1]
        hidden = "[]" in key.name or key.name.startswith("compute.cluster.")
        words = key.meaning if key.is_section or hidden else f"{key.meaning} Takes {key.wanted}."
        if depth == 0:
            lines.append("")
        lines += [f"{indent}# {line}" for line in textwrap.wrap(words, 96 - len(indent))]
        if key.name in ("data.root", "data"):
            lines.append("data:" if depth == 0 else "  root: ../data/em")
        elif key.is_section and key.name != "compute.cluster":
            lines.append(f"{indent}{name}:")
        elif hidden or key.required or key.default is None:
            lines.append(f"{indent}# {name}: {on_one_line(key.example)}")
        else:
            lines.append(f"{indent}{name}: {on_one_line(key.default)}")
    return "\n".join(lines) + "\n"


def keys_page() -> str:
    """Every key, section by section."""
    lines = ["# Keys of the YAML", "", *_note(), ""]
    lines += ["`volprep explain KEY` shows the same in a terminal.", ""]
    for key in every_key():
        if "." not in key.name:
            lines += ["", f"## `{key.name}`", "", _escaped(key.meaning), ""]
            if key.inner is not None:
                lines += ["| key | meaning | takes | default | example |", "|---|---|---|---|---|"]
            else:
                lines += [f"Takes {key.wanted}. Default `{_default(key)}`."]
                lines += ["", "```yaml", f"{key.name}: {on_one_line(key.example)}", "```"]
        else:
            lines.append(_key_row(key))
    return _page(lines)


def _key_row(key: Key) -> str:
    if key.is_section:
        return f"| `{key.name}` | {_escaped(key.meaning)} | | | |"
    default = "required" if key.required else f"`{_default(key)}`"
    cells = [f"`{key.name}`", _escaped(key.meaning), _escaped(key.wanted), default]
    return f"| {' | '.join(cells)} | `{_escaped(on_one_line(key.example))}` |"


def _default(key: Key) -> str:
    return on_one_line(key.default)


def kinds_page(title: str, key: str, kinds: Any) -> str:
    """Transforms or targets with their parameters."""
    lines = [f"# {title}", "", *_note(), "", f"What `{key}:` takes, by name.", ""]
    for name, kind in kinds.items():
        lines += [f"## `{name}`", "", _escaped(about(kind)), ""]
        if parameters := parameters_of(kind):
            lines += ["| parameter | meaning | default |", "|---|---|---|"]
            lines += [f"| `{p.name}` | {_escaped(p.meaning)} | `{p.default}` |" for p in parameters]
            lines.append("")
    return _page(lines)


def commands_page() -> str:
    """Every command with its arguments and options."""
    lines = ["# Commands", "", *_note(), ""]
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        every = [_option(p) for p in _parameters(app.registered_callback.callback)]
        lines += ["Options of all commands, before or behind the command's name:", ""]
        lines += ["| | |", "|---|---|", *every]
    named = {
        c.name or (c.callback.__name__.replace("_", "-") if c.callback else ""): c.callback
        for c in app.registered_commands
    }
    for name, function in sorted(named.items()):
        parameters = list(_parameters(function))
        given = [p for p in parameters if isinstance(p.info, ArgumentInfo)]
        usage = " ".join(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in given)
        lines += ["", f"## `volprep {name}`", "", inspect.getdoc(function) or "", ""]
        lines += ["```text", " ".join(f"volprep {name} {usage} [OPTIONS]".split()), "```", ""]
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{p.name.upper()}` | {_escaped(p.info.help or '')} |" for p in given]
        lines += [_option(p) for p in parameters if isinstance(p.info, OptionInfo)]
    return _page(lines)


class _Parameter(NamedTuple):
    name: str
    kind: Any
    info: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def _parameters(function: Any) -> Iterator[_Parameter]:
    kinds = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *extra = get_args(kinds[name])
        info = next(one for one in extra if isinstance(one, OptionInfo | ArgumentInfo))
        yield _Parameter(name, kind, info, parameter.default)


def _option(parameter: _Parameter) -> str:
    """One row: how it is written, what it does, its default."""
    dashed = f"--{parameter.name.replace('_', '-')}"
    first = parameter.info.default  # where Annotated has it: the first name
    named = [first] if isinstance(first, str) and first.startswith("-") else []
    names = [*named, *(parameter.info.param_decls or [])] or [dashed]
    names = [each for name in names for each in name.split("/")]
    parts = [part for part in (parameter.kind, *get_args(parameter.kind)) if part is not type(None)]
    flag = bool in parts
    if flag and names == [dashed]:
        names.append(f"--no-{parameter.name.replace('_', '-')}")
    value = parameter.info.metavar or next(
        (word for kind, word in _VALUES.items() if kind in parts), "TEXT"
    )
    written = ", ".join(
        f"`{name}`" if flag or parameter.info.count else f"`{name} {value}`" for name in names
    )
    default = "" if parameter.default in (None, False, 0) else f" Default `{parameter.default}`."
    if parameter.required:
        default = " Required."
    return f"| {written} | {_escaped(parameter.info.help or '')}{default} |"


_VALUES = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}


def findings_page() -> str:
    """Every finding with its level, why it matters and what to do."""
    lines = ["# Findings", "", *_note(), ""]
    lines += [
        "What `volprep check` and `volprep prepare` may say of data. An error ends the run; a",
        "warning says that something changes what is trained on; an info changes nothing. The YAML",
        "silences or hardens by name: `findings: {ignore: [NAME], error: [NAME]}`.",
        "",
    ]
    for name, kind in TABLE.items():
        lines += [f"## `{name}`", "", f"**{kind.level}.** {_escaped(kind.why)}", ""]
        lines += [f"- Wanted: {_escaped(kind.wanted)}", f"- To do: {_escaped(kind.todo)}"]
        lines += [f"- Example: {_escaped(kind.example)}", ""]
    return _page(lines)


def _note() -> Iterator[str]:
    yield f"<!-- {MADE} -->"


def _escaped(text: str) -> str:
    """Safe in a table's cell and from Markdown's own signs."""
    text = text.replace("|", "\\|")
    return re.sub(r"<(?=\w)", "&lt;", text)


def _page(lines: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on drift")
    check = parser.parse_args().check
    stale = []
    for path, text in files().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
