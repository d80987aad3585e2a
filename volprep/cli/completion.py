"""What a shell may complete beside commands and options: keys of the YAML, names, values.

Each function is asked by Typer while a person types, so that each loads what it needs, and no more.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "answer_shell",
    "export_targets",
    "finding_names",
    "one_of",
    "settings",
    "topics",
    "transforms",
]

#: Values that no shell takes for anything else.
_PLAIN = re.compile(r"[\w./+-]+")
Offer = list[tuple[str, str]]


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Completes one of some words."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def finding_names(incomplete: str) -> Offer:
    """Completes the name of a finding, or ``all``."""
    from volprep.findings import TABLE

    offers = {"all": "all of them", **{name: kind.wanted for name, kind in TABLE.items()}}
    return _among(offers, incomplete)


def export_targets(incomplete: str) -> Offer:
    """Completes a target of `volprep export`."""
    from volprep.exports import TABLE

    return _among({name: target.expresses for name, target in TABLE.items()}, incomplete)


def transforms(incomplete: str) -> Offer:
    """Completes the name of an augmentation."""
    return _among(dict.fromkeys(_transforms(), "a transform"), incomplete)


def topics(incomplete: str) -> Offer:
    """Completes what `volprep explain` knows: keys, transforms, targets and findings."""
    from volprep.config import every_key
    from volprep.findings import TABLE
    from volprep.targets import TARGETS

    offers = {key.name.replace("[]", ""): key.meaning for key in every_key()}
    offers |= dict.fromkeys(_transforms(), "a transform") | dict.fromkeys(TARGETS, "a target")
    offers |= {name: kind.wanted for name, kind in TABLE.items()}
    return _among(offers, incomplete)


def settings(incomplete: str) -> Offer:
    """Completes ``key=value`` of ``--set``: first the key, then its values where they are few.

    A value is offered with each key, so that a shell completes up to the sign between them, and
    puts no space behind it.
    """
    key, sign, _ = incomplete.partition("=")
    offers = {
        f"{name}={value}": meaning
        for name, meaning, values in _keys()
        if name == key or (not sign and name.startswith(incomplete))
        for value in (values if sign or name == key else ["", *values[:1]])
    }
    return _among(offers, incomplete)


def answer_shell(run: Callable[[], None]) -> None:
    """Run the command line; where bash asks what to complete, in the words that bash means.

    Bash takes words apart at ``=`` and replaces what stands behind it alone, of which Typer does
    not know: words are put together before, and answers cut after.
    """
    if os.environ.get("_VOLPREP_COMPLETE") != "complete_bash":
        run()
        return
    words = os.environ.get("COMP_WORDS", "").split("\n")
    joined, asked = join_words(words, int(os.environ.get("COMP_CWORD") or 0))
    if joined == words:
        run()
        return
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(joined), str(asked)
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        run()
    word = joined[asked] if asked < len(joined) else ""
    typed = word.partition("=")[2] if word.startswith("-") else word
    head = typed[: typed.rfind("=") + 1]
    print("\n".join(line.removeprefix(head) for line in told.getvalue().splitlines()))


def join_words(words: Sequence[str], asked: int) -> tuple[list[str], int]:
    """Words that were taken apart at ``=``, and the number of the one that is completed."""
    joined: list[str] = []
    at = asked
    for number, word in enumerate(words):
        if joined and (word == "=" or (number and words[number - 1] == "=")):
            joined[-1] += word
        else:
            joined.append(word)
        if number == asked:
            at = len(joined) - 1
    return joined, at if asked < len(words) else len(joined)


def _transforms() -> list[str]:
    from volprep.augment import TRANSFORMS

    return list(TRANSFORMS)


def _keys() -> Iterator[tuple[str, str, list[str]]]:
    """Keys that `--set` can set, with some values that they take."""
    from volprep.config import every_key, on_one_line

    for key in every_key():
        if key.is_section or "[]" in key.name:
            continue
        values = list(key.choices) or [key.example, key.default]
        spelled = dict.fromkeys(on_one_line(value) for value in values)
        yield key.name, key.meaning, [text for text in spelled if _PLAIN.fullmatch(text)]


def _among(offers: dict[str, str], incomplete: str) -> Offer:
    return [(name, meaning) for name, meaning in offers.items() if name.startswith(incomplete)]
