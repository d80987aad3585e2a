"""Every key of the YAML as people ask for it: its meaning, what it takes, its default, an example.

All of it is read from the sections themselves, so that the messages about mistakes, `volprep
explain`, the reference and the schema say the same.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from volprep.config.sections import Config, Wanted
from volprep.errors import ConfigError

__all__ = [
    "Key",
    "every_key",
    "explain_key",
    "given_value",
    "key_at",
    "known_key",
    "nearest",
    "on_one_line",
    "plain",
]

Where = Sequence[str | int]
_NUMBERS = {2: "two", 3: "three"}


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one key.

    Attributes
    ----------
    name : str
        Dotted, with ``[]`` after a list whose entries have keys: ``data.cases[].image``.
    meaning : str
        What it is for.
    wanted : str
        What may stand there, in words.
    default : object
        What holds where it is not given; None also where it must be.
    required : bool
        Whether it must be given.
    example : object
        A value that may stand there.
    inner : type or None
        The section that it holds, by itself or in a list.
    choices : tuple
        The values that it takes, where they are few; empty where they are many.
    """

    name: str
    meaning: str
    wanted: str
    default: Any
    required: bool
    example: Any
    inner: type[BaseModel] | None = None
    choices: tuple[Any, ...] = ()

    @property
    def is_section(self) -> bool:
        """Whether it only holds other keys."""
        return self.inner is not None and self.wanted == "keys with values"


def every_key(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Key]:
    """All keys in the order of the sections, each before those that it holds."""
    for name, field in model.model_fields.items():
        key = _key(prefix + name, field)
        yield key
        if key.inner is not None:
            many = "[]" if _is_list(field.annotation) else ""
            yield from every_key(key.inner, f"{prefix}{name}{many}.")


def key_at(where: Where, model: type[BaseModel] = Config) -> Key | None:
    """The key of a place such as ``("plan", "patch_size", 2)``; numbers are places in a list."""
    found: Key | None = None
    inside: type[BaseModel] | None = model
    kind: Any = None
    for part in where:
        if isinstance(part, int):
            if found is None:
                return None
            kind = _entry(kind, part)
            example = found.example
            if isinstance(example, list | tuple) and example:
                example = example[part % len(example)]
            found = Key(found.name, found.meaning, _words(kind), None, False, example, found.inner)
            continue
        field = None if inside is None else inside.model_fields.get(part)
        if field is None:
            return None
        found, kind = _key(part if found is None else f"{found.name}.{part}", field), None
        kind, inside = field.annotation, found.inner
    return found


def known_key(name: str) -> list[Key]:
    """The key of this name, or all whose last part it is; ``data.cases.0.image`` is understood.

    Raises
    ------
    ConfigError
        If there is none, with the nearest one.
    """
    plain = ".".join(part for part in name.replace("[]", "").split(".") if not part.isdigit())
    every = {key.name: key for key in every_key()}
    short = {full.replace("[]", ""): key for full, key in every.items()}
    if plain in short:
        return [short[plain]]
    ends = [key for full, key in short.items() if full.rsplit(".", 1)[-1] == plain]
    if not ends:
        raise ConfigError(f"{name}: no key of the YAML; {nearest(plain.split('.'), Config)}")
    return ends


def nearest(where: Where, model: type[BaseModel]) -> str:
    """The nearest right key in the section of `where`, then anywhere, as advice."""
    section: type[BaseModel] | None = model
    for part in where[:-1]:
        if section is None or isinstance(part, int):
            continue
        field = section.model_fields.get(part)
        section = _section_of(field.annotation) if field is not None else None
    here = list(section.model_fields) if section is not None else []
    key = str(where[-1]).lower()
    likeness = {name: SequenceMatcher(None, key, name).ratio() + 0.1 for name in here}
    for other in every_key(model):
        dotted = other.name.replace("[]", "")
        likeness.setdefault(dotted, SequenceMatcher(None, key, dotted.rsplit(".", 1)[-1]).ratio())
    best = max(likeness, key=likeness.__getitem__)
    if likeness[best] >= 0.7:
        return f"did you mean {best}?"
    return f"known keys here: {', '.join(here)}" if here else "remove it"


def explain_key(key: Key) -> str:
    """A key in a few lines: meaning, values, default, example, and what it holds."""
    lines = [key.name, f"  {key.meaning}"]
    if not key.is_section:
        default = "none: it must be given" if key.required else on_one_line(key.default)
        lines += [f"  takes    {key.wanted}", f"  default  {default}"]
    lines.append(f"  example  {_nested(key.name, key.example)}")
    if "[]" not in key.name and not key.is_section:
        lines.append(f"           --set {key.name}={_for_a_shell(key.example)}")
    if key.inner is not None:
        lines.append("  keys")
        inner = list(key.inner.model_fields.items())
        width = max(len(name) for name, _ in inner)
        lines += [f"    {name:{width}}  {field.description or ''}" for name, field in inner]
    return "\n".join(lines)


def given_value(config: Config, name: str) -> Any:
    """The value of a key where the user gave it and it is not the default; else None."""
    *outer, last = name.split(".")
    section: BaseModel = config
    for part in outer:
        section = getattr(section, part)
    value = getattr(section, last)
    default = type(section).model_fields[last].get_default(call_default_factory=True)
    return value if last in section.model_fields_set and value != default else None


def on_one_line(value: Any) -> str:
    """A value as YAML writes it on one line."""
    text = yaml.safe_dump(
        plain(value), default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.strip().removesuffix("\n...").strip()


def plain(value: Any) -> Any:
    """A value of what YAML knows alone."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _nested(name: str, example: Any) -> str:
    """``plan: {patch_size: [32, 128, 128]}``."""
    *outer, last = name.split(".")
    value: Any = {last.removesuffix("[]"): example}
    for part in reversed(outer):
        value = {part.removesuffix("[]"): [value] if part.endswith("[]") else value}
    return on_one_line(value).removeprefix("{").removesuffix("}")


def _for_a_shell(example: Any) -> str:
    import shlex

    return shlex.quote(on_one_line(example))


def _key(name: str, field: FieldInfo) -> Key:
    inner = _section_of(field.annotation)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return Key(
        name,
        field.description or (inner.__doc__ or "" if inner else ""),
        _words(field.annotation, field.metadata),
        default,
        field.is_required(),
        _example(field, default, inner),
        inner,
        () if inner else _every_choice(field.annotation),
    )


def _example(field: FieldInfo, default: Any, inner: type[BaseModel] | None) -> Any:
    if field.examples:
        return field.examples[0]
    if isinstance(default, bool):
        return not default
    if default is None and bool in get_args(field.annotation):
        return True
    choices = [value for value in _choices(field.annotation) if value != default]
    if choices:
        return choices[0]
    if inner is not None:
        fields = inner.model_fields
        names = [name for name, one in fields.items() if one.is_required()] or [next(iter(fields))]
        section = {name: _key(name, fields[name]).example for name in names}
        return [section] if _is_list(field.annotation) else section
    return default


def _choices(kind: Any) -> list[Any]:
    """The values that a key of words takes."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [value for part in get_args(kind) for value in _choices(part)]


def _every_choice(kind: Any) -> tuple[Any, ...]:
    """All values of an annotation, truth and null among them; none where it takes others, too."""
    if get_origin(kind) is Annotated:
        return _every_choice(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        each = [_every_choice(part) for part in get_args(kind)]
        return tuple(value for part in each for value in part) if all(each) else ()
    plain_kinds = {bool: (True, False), type(None): (None,)}
    return tuple(get_args(kind)) if get_origin(kind) is Literal else plain_kinds.get(kind, ())


def _section_of(kind: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `list[CaseConfig]`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next(filter(None, map(_section_of, get_args(kind))), None)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list or any(map(_is_list, get_args(kind)))


def _entry(kind: Any, number: int) -> Any:
    """What stands at a place in a list."""
    if get_origin(kind) is Annotated:
        return _entry(get_args(kind)[0], number)
    if get_origin(kind) in (Union, types.UnionType):
        return next(filter(None, (_entry(part, number) for part in get_args(kind))), None)
    if get_origin(kind) is list:
        return get_args(kind)[0]
    if get_origin(kind) is tuple:
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        return parts[min(number, len(parts) - 1)]
    return None


def _words(kind: Any, extra: Sequence[Any] = ()) -> str:
    """What an annotation takes, in the words of a YAML."""
    told = next((one.words for one in extra if isinstance(one, Wanted)), None)
    if get_origin(kind) is Annotated:
        first, *rest = get_args(kind)
        rest += [more for one in rest for more in getattr(one, "metadata", ())]
        return _words(first, [*extra, *rest])
    if get_origin(kind) in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not type(None)]
        words = [told] if told else [_words(part, extra) for part in parts]
        words += ["null"] if len(parts) < len(get_args(kind)) else []
        long = any(" " in word or "," in word for word in words)
        return (", or " if long else " or ").join(word.removesuffix(",") for word in words)
    if told:
        return told.removesuffix(",")
    if get_origin(kind) is Literal:
        choices = [str(value) for value in get_args(kind)]
        return " or ".join([", ".join(choices[:-1]), choices[-1]] if choices[1:] else choices)
    if get_origin(kind) is list:
        return f"a list of {_many(_words(get_args(kind)[0]))}"
    if get_origin(kind) is tuple:
        return f"{_NUMBERS[len(get_args(kind))]} numbers"
    if get_origin(kind) is dict or _section_of(kind) is not None:
        return "keys with values"
    return _plain_words(kind) + _bounds(extra)


def _many(words: str) -> str:
    """``whole numbers above 0`` of ``a whole number above 0``."""
    return re.sub(r"\b(number|text|path)\b", r"\1s", words.removeprefix("a "), count=1)


def _plain_words(kind: Any) -> str:
    named = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return "a path" if kind is Path else named.get(kind, "a value")


def _bounds(extra: Sequence[Any]) -> str:
    """``above 0``, ``from 0 to 1``."""
    found = {
        name: f"{getattr(one, name):.8g}"
        for one in extra
        for name in ("gt", "ge", "lt", "le")
        if getattr(one, name, None) is not None
    }
    low = f" above {found['gt']}" if "gt" in found else ""
    if "ge" in found:
        low = (
            f" from {found['ge']}"
            if "le" in found or "lt" in found
            else f", {found['ge']} or above"
        )
    high = f" to {found['le']}" if "le" in found else ""
    if "lt" in found:
        high = f" to less than {found['lt']}"
    return low + high
