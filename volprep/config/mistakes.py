"""What pydantic finds wrong, in the words of a YAML: where, what was found, what to give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from volprep.config.keys import Key, key_at, nearest, on_one_line

__all__ = ["mistakes"]

Where = tuple[str | int, ...]
#: A found value is told up to this length.
_LONGEST = 60


def mistakes(
    error: ValidationError,
    content: Any,
    model: type[BaseModel],
    place: Callable[[Where], str],
    *,
    section: str = "",
    line: Callable[[Where], int] = lambda _: 0,
) -> str:
    """Each mistake on a line of its own, in the order of the file.

    Parameters
    ----------
    error : ValidationError
        What pydantic says of it.
    content : object
        What was given.
    model : type
        What it was checked against.
    place : callable
        Where a key stands, for the beginning of the line: ``volprep.yaml:3: ``. What ends in no
        space is the name of an option, which takes the place of the key: ``--spacing``.
    section : str
        What begins the dotted key, where `model` is a section alone: ``plan.``.
    line : callable
        The line of a key in the file.
    """
    found: dict[Where, Any] = {}
    branches: set[Where] = set()
    for one in error.errors():
        where = _walked(one["loc"], content)
        missing = one["type"] == "missing"
        if missing and isinstance(one["loc"][-1], str):
            where = (*where, one["loc"][-1])
        elif len(where) < len(one["loc"]) and not missing:
            branches.add(where)  # one of the kinds that would do: its name is no key
        told = found.get(where)
        if told is None or (one["type"] == "value_error" and told["type"] != "value_error"):
            found[where] = one
    lines = []
    for where, one in sorted(found.items(), key=lambda item: line(item[0])):
        deeper = any(other[: len(where)] == where and other != where for other in found)
        if deeper and where in branches:
            continue  # the kind that came nearest says more
        begin = place(where)
        if not begin or begin.endswith(" "):
            begin += section + ".".join(map(str, where)) or "config"
        lines.append(f"{begin}: {_words(one, where, content, model)}")
    return "\n".join(lines)


def _walked(loc: Sequence[Any], content: Any) -> Where:
    """The part of pydantic's place that is keys and numbers of the YAML."""
    where: list[str | int] = []
    for part in loc:
        names = {str(name): name for name in content} if isinstance(content, dict) else {}
        if part in names:
            content = content[names[part]]
        elif isinstance(content, list | tuple) and isinstance(part, int) and part < len(content):
            content = content[part]
        elif isinstance(content, dict) and part in content:  # a key that is no text
            where.append(str(part))
            break
        else:
            continue
        where.append(part)
    return tuple(where)


def _words(one: Any, where: Where, content: Any, model: type[BaseModel]) -> str:
    if one["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key; {nearest(where, model)}"
    key = key_at(where, model)
    advice = _advice(key)
    if one["type"] == "missing" and not isinstance(one["loc"][-1], int):
        return f"missing; {advice}"
    found = _found(_at(where, content))
    if one["type"] != "value_error":
        return f"found {found}; {advice}"
    said = str(one["msg"]).removeprefix("Value error, ")
    if said.startswith(("is ", "has ")):
        return f"found {found}, which {said}"
    # What says what to do by itself, or is about keys that go together, needs no advice.
    if "; " in said or key is None or key.is_section:
        return f"found {found}; {said}"
    return f"found {found}; {said}; {advice}"


def _advice(key: Key | None) -> str:
    if key is None:
        return "give keys with values"
    return f"give {key.wanted}, such as {on_one_line(key.example)}"


def _at(where: Where, content: Any) -> Any:
    for part in where:
        if isinstance(content, dict):
            content = {str(name): value for name, value in content.items()}
            if str(part) not in content:  # a key that is no text: yes is told as 1
                return content
            part = str(part)
        content = content[part]
    return content


def _found(value: Any) -> str:
    text = _spelled(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _spelled(value: Any) -> str:
    """A value as a YAML has it, with texts in quotes."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        names = {name: _spelled(name) if isinstance(name, bool) else name for name in value}
        return "{" + ", ".join(f"{names[n]}: {_spelled(each)}" for n, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return repr(value) if isinstance(value, str | int | float) else repr(str(value))
