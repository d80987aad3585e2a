"""From YAML to models and back, with errors that name file, line, dotted key and remedy."""

from __future__ import annotations

import copy
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from volprep.config.connectomics import is_block_form, translated
from volprep.config.keys import on_one_line
from volprep.config.mistakes import mistakes
from volprep.config.sections import Config
from volprep.config.training import TrainingConfig
from volprep.errors import ConfigError
from volprep.places import path_of, what_is_there

__all__ = [
    "dump_yaml",
    "json_schema",
    "load_config",
    "load_training_config",
    "load_yaml",
    "make_config",
    "option_of",
    "parse_changes",
    "schema_path",
    "with_values",
]

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)
Where = tuple[str | int, ...]


def load_config(path: str | Path, changes: Mapping[str, Any] | None = None) -> Config:
    """Read and check a config; paths in it become absolute.

    Parameters
    ----------
    path : path-like
        The YAML file.
    changes : mapping or None
        Values by dotted key, such as ``{"plan.memory": "4GiB"}``, over those of the file and
        as if they stood there.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, or has wrong keys or values; the
        message lists every mistake with its line.
    """
    config = _load_model(Path(path), Config, changes)
    return _with_absolute_paths(config, Path(path).resolve().parent)


def load_training_config(path: str | Path) -> TrainingConfig:
    """Read a generated `train.yaml`.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    return _load_model(Path(path), TrainingConfig)


def make_config(
    content: Mapping[str, Any],
    where: str,
    changes: Mapping[str, Any] | None = None,
    *,
    options: Mapping[str, str] | None = None,
) -> Config:
    """A config of values that a command was given, checked as if they stood in a YAML.

    Parameters
    ----------
    content : mapping
    where : str
        Begins the message about a value that does not fit.
    changes : mapping or None
        As for `load_config`.
    options : mapping or None
        By the dotted key of what an option gave, that option: ``{"data.spacing": "--spacing"}``.

    Raises
    ------
    ConfigError
        If a value does not fit.
    """
    whole, changed = _changed(content, changes)

    def place(key: Where) -> str:
        option = (options or {}).get(".".join(map(str, key[:2])))
        return _from_command(key, changed, "") or option or (f"{where}: " if where else "")

    try:
        return Config.model_validate(whole)
    except ValidationError as error:
        raise ConfigError(mistakes(error, whole, Config, place)) from None


def with_values(section: Model, given: Mapping[str, Any], where: str | None = None) -> Model:
    """A section with some values replaced by those of options, checked as those of a YAML are.

    Parameters
    ----------
    section : BaseModel
    given : mapping
        Values by key.
    where : str or None
        The option that gave them; by default each is called as its key is: ``--patch-size``.

    Raises
    ------
    ConfigError
        If a value does not fit.
    """
    content = {**section.model_dump(), **given}

    def place(key: Where) -> str:
        return where or ", ".join(map(option_of, key[:1] or given))

    try:
        return type(section).model_validate(content)
    except ValidationError as error:
        raise ConfigError(mistakes(error, content, type(section), place)) from None


def option_of(key: object) -> str:
    """How a command calls the option that gives a key of the YAML."""
    return "--" + str(key).replace("_", "-")


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """What ``--set a.b=c`` says, by dotted key: the value is read as YAML is.

    Raises
    ------
    ConfigError
        If a text is no ``key=value``, or the value no YAML.
    """
    changes = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise ConfigError(
                f"--set {text}: no key=value; write it like plan.patch_size=32,128,128"
            )
        try:
            changes[name.strip()] = yaml.load(_listed(value), Loader=_Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            said = getattr(error, "problem", None) or error
            raise ConfigError(f"--set {text}: {value} is no valid YAML: {said}") from None
    return changes


def _listed(value: str) -> str:
    """Numbers with commas between are a list: brackets would have to be quoted in many shells."""
    return f"[{value}]" if re.fullmatch(r"\s*-?[\d.]+(\s*,\s*-?[\d.]+)+\s*", value) else value


def _changed(
    content: Mapping[str, Any], changes: Mapping[str, Any] | None
) -> tuple[dict[str, Any], set[Where]]:
    """The content with some values put in, and their places."""
    whole: dict[str, Any] = copy.deepcopy(dict(content))
    places: set[Where] = set()
    for name, value in (changes or {}).items():
        where = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
        _put(whole, where, value, name)
        places.add(where)
    return whole, places


def _put(content: Any, where: Where, value: Any, name: str) -> None:
    for number, part in enumerate(where):
        done = ".".join(map(str, where[:number]))
        if isinstance(content, list):
            if not isinstance(part, int) or part >= len(content):
                raise ConfigError(
                    f"--set {name}: {done} has {len(content)} entries, counted from 0; "
                    "give the number of one, or the whole list"
                )
        elif isinstance(content, dict):
            part = str(part)
        else:
            raise ConfigError(f"--set {name}: {done} is {on_one_line(content)}; give all of {done}")
        if number == len(where) - 1:
            content[part] = value
        elif isinstance(content, dict) and content.get(part) is None:
            content[part] = {}
        if number < len(where) - 1:
            content = content[part]


def _from_command(place: Where, changed: set[Where], where: str) -> str:
    """The beginning of a message about what ``--set`` or another option gave."""
    if any(place[: len(one)] == one or one[: len(place)] == place for one in changed if place):
        return "--set: "
    return f"{where}: " if where else ""


def dump_yaml(model: BaseModel | Mapping[str, Any]) -> str:
    """A model or a plain mapping as YAML text that loads back to the same object."""
    plain = model.model_dump(mode="json") if isinstance(model, BaseModel) else dict(model)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of plain values, such as a saved plan.

    Raises
    ------
    ConfigError
        If it is missing or no YAML mapping.
    """
    return _parse(Path(path))[0]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the YAML, for editors that complete and check it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def schema_path() -> Path:
    """The JSON Schema that comes with the package, for the first line of a YAML."""
    return Path(__file__).with_name("volprep.schema.json").resolve()


class _Dumper(yaml.SafeDumper):
    """Writes short lists of numbers on one line."""


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flow = all(isinstance(v, int | float | str) for v in data) and len(data) <= 16
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _represent_list)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does."""


_Loader.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _load_model(path: Path, model: type[Model], changes: Mapping[str, Any] | None = None) -> Model:
    content, lines = _parse(path)
    if model is Config and is_block_form(content):
        content, left = translated(content, str(path))
        for key in left:
            log.warning("%s: %s", path, key)
    content, changed = _changed(content, changes)

    def line(where: Where) -> int:
        while where and where not in lines:
            where = where[:-1]
        return lines.get(where, 1)

    def place(where: Where) -> str:
        return _from_command(where, changed, "") or f"{path}:{line(where)}: "

    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(mistakes(error, content, model, place, line=line)) from None


def _parse(path: Path) -> tuple[dict[str, Any], dict[Where, int]]:
    """The values of a YAML file, and the line of each key."""
    text = _read_text(path)
    _check_aliases(path, text)
    lines: dict[Where, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _note_lines(path, node, (), lines)
            content = loader.construct_document(node) if node is not None else {}
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: no valid YAML: {_syntax(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}:1: found {on_one_line(content)[:60]}; "
            "give sections such as data: {root: raw}"
        )
    return content, lines


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """What the parser says, and what is mostly meant by it."""
    said = str(error.problem)
    if "'\\t'" in said:
        return "a tab; indent with spaces"
    if "mapping values" in said:
        return "a `key:` where a value goes on; indent it like its neighbours, or quote the text"
    if "expected <block end>" in said or "did not find expected" in said:
        return f"{said}; indent all keys of a section alike"
    if "expected ',' or" in said or "found unexpected end of stream" in said:
        return f"{said}; close what was opened: a bracket, a brace or a quote"
    return said


#: More nodes than this, aliases followed, are no config: a few lines can stand for billions.
_MOST_NODES = 1_000_000


def _check_aliases(path: Path, text: str) -> None:
    """Refuse a YAML whose aliases stand for more than a config can hold, or for themselves."""
    if "*" not in text:
        return
    try:
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return  # which is told where it is read
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node | None) -> int:
        if node is None:
            return 0
        known = sizes.setdefault(id(node), None) if id(node) in sizes else -1
        if known is None:
            line = node.start_mark.line + 1
            raise ConfigError(f"{path}:{line}: an alias refers to what it is part of; write it out")
        if known >= 0:
            return known
        sizes[id(node)] = None
        parts = [
            part
            for each in (node.value if not isinstance(node, yaml.ScalarNode) else ())
            for part in (each if isinstance(each, tuple) else (each,))
        ]
        count = 1 + sum(size(part) for part in parts)
        if count > _MOST_NODES:
            line = node.start_mark.line + 1
            raise ConfigError(
                f"{path}:{line}: its aliases stand for {count} values; write them out"
            )
        sizes[id(node)] = count
        return count

    size(root)


def _read_text(path: Path) -> str:
    if path.is_dir():
        inside = path / "config.resolved.yaml"
        what = f"the YAML of this patch set is {inside}" if inside.is_file() else "give a YAML"
        raise ConfigError(f"{path}: a folder, where a config is wanted; {what}")
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise ConfigError(f"{path}: a device or a pipe, where a config is wanted; give a YAML file")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; write one with: volprep init DATA -o {path.name}, or "
            f"{what_is_there(path)}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _note_lines(
    path: Path,
    node: yaml.Node,
    where: Where,
    lines: dict[Where, int],
    seen: set[int] | None = None,
) -> None:
    """Remember the line of every key; a key given twice is an error, not a silent choice."""
    seen = set() if seen is None else seen
    if id(node) in seen:  # an alias: walked already, and perhaps a ring
        return
    seen.add(id(node))
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*where, str(key.value))
            if place in lines:
                dotted = ".".join(map(str, place))
                raise ConfigError(
                    f"{path}:{key.start_mark.line + 1}: {dotted}: given twice "
                    f"(first on line {lines[place]}); keep one"
                )
            lines[place] = key.start_mark.line + 1
            _note_lines(path, value, place, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note_lines(path, value, (*where, number), lines, seen)


def _with_absolute_paths(config: Config, base: Path) -> Config:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else _absolute(base, path)

    cases = [
        case.model_copy(
            update={
                "image": [absolute(p) for p in case.image]
                if isinstance(case.image, list)
                else absolute(case.image),
                "label": absolute(case.label),
                "mask": absolute(case.mask),
                "skeletons": absolute(case.skeletons),
            }
        )
        for case in config.data.cases
    ]
    regions = config.data.regions
    if isinstance(regions, Path):
        regions = _absolute(base, regions)
    data = config.data.model_copy(
        update={"root": absolute(config.data.root), "cases": cases, "regions": regions}
    )
    output = config.output.model_copy(update={"dir": absolute(config.output.dir)})
    exports = [e.model_copy(update={"dir": _absolute(base, e.dir)}) for e in config.exports]
    return config.model_copy(update={"data": data, "output": output, "exports": exports})


def _absolute(base: Path, path: Path) -> Path:
    """A path of the YAML with ``~`` and ``$VARIABLE`` filled in, from the YAML's folder on."""
    text = os.path.expandvars(str(path))
    if match := re.search(r"\$(\w+|\{[^}]*\})", text):
        raise ConfigError(
            f"{path}: the environment variable {match[0]} is not set; set it or write the path out"
        )
    try:
        return (base / path_of(text).expanduser()).resolve()
    except RuntimeError as error:  # a link that leads to itself, or no home
        raise ConfigError(f"{path}: {error}; correct the path") from None
