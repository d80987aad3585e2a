"""What a name of the YAML means: a key, a transform, a target or a finding."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from volprep.augment import TRANSFORMS
from volprep.config import explain_key, known_key, on_one_line
from volprep.errors import ConfigError, did_you_mean
from volprep.exports import TABLE as EXPORTS
from volprep.findings import TABLE
from volprep.findings import explain as explain_finding
from volprep.targets import TARGETS

__all__ = ["Parameter", "about", "explain", "parameters_of"]

#: What every transform has, for other trainers' configs; no user needs it explained each time.
_COMMON = ("additional_targets", "skip_targets")


class Parameter(NamedTuple):
    """One parameter of a transform or a target."""

    name: str
    default: str
    meaning: str


def explain(name: str) -> str:
    """A key with its meaning, values, default and example; a transform, target or finding likewise.

    Parameters
    ----------
    name : str
        A dotted key, its last part alone, or the name of something that a key takes:
        ``plan.patch_size``, ``patch_size``, ``elastic``, ``augment.elastic``, ``label-lossy``.

    Raises
    ------
    ConfigError
        If nothing is called so, with what comes near.
    """
    last = name.rsplit(".", 1)[-1]
    texts = [_explain_kind(last, kinds[last]) for kinds in _kinds(name) if last in kinds]
    if name in TABLE:
        texts.append(explain_finding(name))
    try:
        texts += [explain_key(key) for key in known_key(name)]
    except ConfigError:
        known = [*TABLE, *TRANSFORMS, *TARGETS]
        near = did_you_mean(last, known)
        if not texts and "did you mean" in near:
            raise ConfigError(f"{name}: no key of the YAML{near}") from None
        if not texts:
            raise
    if name in ("augment", "targets", "findings", "exports"):
        texts.append(_names(name))
    return "\n\n".join(texts)


def about(kind: type) -> str:
    """The first sentence of what a transform or a target says of itself."""
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split()).replace("`", "")


def parameters_of(kind: type) -> list[Parameter]:
    """The parameters of a transform or a target, from its fields and its docstring."""
    said = dict(_documented(kind.__doc__ or ""))
    return [
        Parameter(
            field.name, _default(field), said.get(field.name, _EVERYWHERE.get(field.name, ""))
        )
        for field in dataclasses.fields(kind)
        if field.name not in _COMMON
    ]


_EVERYWHERE = {"p": "Probability.", "enabled": "Whether it is applied at all."}


def _kinds(name: str) -> list[Mapping[str, type]]:
    """Where a name may be looked for, by what it begins with."""
    first = name.split(".")[0] if "." in name else ""
    tables: dict[str, Mapping[str, type]] = {"augment": TRANSFORMS, "targets": TARGETS}
    return [table for key, table in tables.items() if first in ("", key)]


def _explain_kind(name: str, kind: type) -> str:
    parameters = parameters_of(kind)
    where = "augment" if name in TRANSFORMS else "targets"
    first = next((p for p in parameters if p.name not in _EVERYWHERE), None)
    example = name if first is None else f"{{{name}: {{{first.name}: {first.default}}}}}"
    lines = [f"{where}: {name}", f"  {about(kind)}", f"  example  {where}: [{example}]"]
    width = max((len(p.name) for p in parameters), default=0)
    lines += [
        f"    {p.name:{width}}  {p.meaning} Default {p.default}.".replace("  Default", " Default")
        for p in parameters
    ]
    return "\n".join(lines)


def _names(key: str) -> str:
    """What a key takes, by name, a line each."""
    if key == "findings":
        said = {name: f"{kind.level}: {kind.why}" for name, kind in TABLE.items()}
    elif key == "exports":
        said = {
            name: f"{row.peer} {row.accepted or '(not tried)'}: {row.expresses}"
            for name, row in EXPORTS.items()
        }
    else:
        kinds: Mapping[str, type] = TRANSFORMS if key == "augment" else TARGETS
        said = {name: about(kind) for name, kind in kinds.items()}
    width = max(map(len, said))
    return "\n".join(
        [f"names of {key}", *(f"  {name:{width}}  {words}" for name, words in said.items())]
    )


def _documented(text: str) -> Iterator[tuple[str, str]]:
    """Each parameter of a numpydoc docstring with its words."""
    text = textwrap.dedent("    " + text)
    part = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}|\Z)", text, re.M | re.S)
    for names, words in re.findall(
        r"^(\w[\w, ]*?)(?: : [^\n]*)?\n((?:[ ]{2,}[^\n]*\n?|\n)*)", part[1] if part else "", re.M
    ):
        for name in names.split(","):
            yield name.strip(), " ".join(words.split()).replace("``", "").replace("`", "")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return on_one_line(field.default_factory())
    return "none" if field.default is dataclasses.MISSING else on_one_line(field.default)
