"""From YAML to models and back, with errors that name file, line, dotted key and remedy."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from volprep.config.connectomics import is_block_form, translated
from volprep.config.sections import Config
from volprep.config.training import TrainingConfig
from volprep.errors import ConfigError

__all__ = [
    "canonical_json",
    "dump_yaml",
    "json_schema",
    "load_config",
    "load_training_config",
    "load_yaml",
    "make_config",
    "with_values",
]

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | Path) -> Config:
    """Read and check a config; paths in it become absolute.

    Parameters
    ----------
    path : path-like
        The YAML file.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, or has wrong keys or values; the
        message lists every mistake with its line.
    """
    config = _load_model(Path(path), Config)
    return _with_absolute_paths(config, Path(path).resolve().parent)


def load_training_config(path: str | Path) -> TrainingConfig:
    """Read a generated `train.yaml`.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    return _load_model(Path(path), TrainingConfig)


def make_config(content: Mapping[str, Any], where: str) -> Config:
    """A config of values that a command was given, checked as if they stood in a YAML.

    Raises
    ------
    ConfigError
        If a value does not fit; `where` begins the message.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                f"{where}: {'.'.join(map(str, e['loc']))}: found {_shorten(e['input'])}; "
                f"{str(e['msg']).removeprefix('Value error, ')}"
                for e in error.errors()
            )
        ) from None


def with_values(section: Model, given: Mapping[str, Any], where: str) -> Model:
    """A section with some values replaced, checked as if they stood in the YAML.

    Raises
    ------
    ConfigError
        If a value does not fit; `where` begins the dotted key.
    """
    try:
        return type(section).model_validate({**section.model_dump(), **given})
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                f"{where}.{'.'.join(map(str, e['loc']))}: found {_shorten(e['input'])}; {e['msg']}"
                for e in error.errors()
            )
        ) from None


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


def _load_model(path: Path, model: type[Model]) -> Model:
    content, lines = _parse(path)
    if model is Config and is_block_form(content):
        content, left = translated(content, str(path))
        for key in left:
            log.warning("%s: %s", path, key)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_describe(path, mistake, lines, model) for mistake in error.errors())
        ) from None


def _parse(path: Path) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    """The values of a YAML file, and the line of each key."""
    text = _read_text(path)
    _check_aliases(path, text)
    lines: dict[tuple[str | int, ...], int] = {}
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
        raise ConfigError(f"{path}:{line}: no valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}:1: a {type(content).__name__}; expected sections such as data:")
    return content, lines


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
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; write one with: volprep init DATA -o {path.name}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _note_lines(
    path: Path,
    node: yaml.Node,
    where: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
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


#: What to give where a value is of another kind, in the words of a YAML instead of Python's.
_WANTED = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "a list of values in brackets: [...]"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"), "keys with values: {key: value}"
    ),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a text",
    "path_type": "a path",
}


def _describe(
    path: Path,
    mistake: Any,
    lines: Mapping[tuple[str | int, ...], int],
    model: type[BaseModel],
) -> str:
    where: tuple[str | int, ...] = tuple(mistake["loc"])
    while where and where not in lines and mistake["type"] != "missing":
        where = where[:-1]  # drop the branches of a union, which are no keys
    known = where if where in lines else where[:-1]
    line = lines.get(known, 1)
    dotted = ".".join(map(str, where)) or "config"
    if mistake["type"] == "extra_forbidden":
        return f"{path}:{line}: {dotted}: unknown key; {_suggest(where, model)}"
    if mistake["type"] == "missing" and isinstance(where[-1], int):
        return f"{path}:{line}: {'.'.join(map(str, where[:-1]))}: too short; give (z, y, x)"
    if mistake["type"] == "missing":
        return f"{path}:{line}: {dotted}: missing; it is required"
    found = _shorten(mistake.get("input"))
    if wanted := _WANTED.get(mistake["type"]):
        return f"{path}:{line}: {dotted}: found {found}; give {wanted}"
    if mistake["type"] == "too_long":
        most = mistake["ctx"]["max_length"]
        return f"{path}:{line}: {dotted}: found {found}; give {most} values at most"
    message = str(mistake["msg"]).removeprefix("Value error, ")
    return f"{path}:{line}: {dotted}: found {found}; {message[0].lower()}{message[1:]}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _suggest(where: Sequence[str | int], model: type[BaseModel]) -> str:
    """The nearest right key in the section of `where`, then anywhere."""
    section: type[BaseModel] | None = model
    for part in where[:-1]:
        if section is None or isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        section = _model_of(field.annotation) if field is not None else None
    here = list(section.model_fields) if section is not None else []
    key = str(where[-1]).lower()
    likeness = {name: difflib.SequenceMatcher(None, key, name).ratio() + 0.1 for name in here}
    for dotted, name in _all_keys(model):
        likeness.setdefault(dotted, difflib.SequenceMatcher(None, key, name).ratio())
    nearest = max(likeness, key=likeness.__getitem__)
    if likeness[nearest] >= 0.7:
        return f"did you mean {nearest}?"
    return f"known keys here: {', '.join(here)}" if here else "remove it"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `list[CaseConfig]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_of(inner)
        if found is not None:
            return found
    return None


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    keys: list[tuple[str, str]] = []
    for name, field in model.model_fields.items():
        keys.append((prefix + name, name))
        section = _model_of(field.annotation)
        if section is not None:
            keys.extend(_all_keys(section, f"{prefix}{name}."))
    return keys


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
        return (base / Path(text).expanduser()).resolve()
    except RuntimeError as error:  # a link that leads to itself, or no home
        raise ConfigError(f"{path}: {error}; correct the path") from None


def canonical_json(model: BaseModel) -> str:
    """One spelling of a config, whatever the order of its keys: what its hash is taken of."""
    return json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
