"""A unit without work, in a module that imports nothing: what is left is what a run takes."""

from __future__ import annotations


def nothing(_unit: object) -> tuple[tuple[()], dict[str, object]]:
    return (), {}
