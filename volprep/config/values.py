"""Amounts of memory and spacings as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from volprep.geometry import to_micrometres
from volprep.places import is_in_bucket, is_remote, path_of

__all__ = ["bucket", "local_folder", "parse_memory", "parse_spacing"]

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4,
          "ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}  # fmt: skip

_MOST_BYTES = 2**63

_NO_SPACING = "is no spacing; write three lengths (z, y, x), such as '50, 4, 4 nm'"


#: What is less is a number without its unit.
_FEWEST_BYTES = 10**6


def parse_memory(value: object) -> int:
    """Bytes from a number or a text such as ``8GiB``, ``500 MB``, ``2e9``.

    Raises
    ------
    ValueError
        If the text is no amount of memory.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("is no amount of memory; write it like 8GiB or 500MB")
    match = re.fullmatch(r"\s*([\d.]+(?:e\+?\d+)?)\s*([kmgt]?i?)b?\s*", value, re.IGNORECASE)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("is no amount of memory; write it like 8GiB or 500MB")
    amount = float(match[1]) * _UNITS[match[2].lower()]
    if amount > _MOST_BYTES:
        raise ValueError("is more memory than there is anywhere; write it like 8GiB or 500MB")
    if amount < _FEWEST_BYTES:
        raise ValueError("is less memory than anything takes; write it like 8GiB or 500MB")
    return int(amount)


def parse_spacing(value: object) -> tuple[float, float, float] | None:
    """Spacing (Z, Y, X) in µm from three numbers, or a text such as ``50, 4, 4 nm``.

    Raises
    ------
    ValueError
        If there are not three positive lengths.
    """
    if value is None:
        return None
    unit = "um"
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(.*?[\d.])\s*([^\d\s,;]*)\s*", value)
        if match is None:
            raise ValueError(_NO_SPACING)
        value, unit = re.split(r"[\s,;x×]+", match[1]), match[2] or "um"
    if not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(_NO_SPACING)
    try:
        numbers = [to_micrometres(float(v), unit) for v in value]
    except (TypeError, ValueError):
        raise ValueError(_NO_SPACING) from None
    if any(n is None for n in numbers):
        raise ValueError(f"has {unit!r}, which is no unit of length; use um, nm or mm")
    z, y, x = (float(n) for n in numbers if n is not None)
    if not all(0 < n < float("inf") for n in (z, y, x)):
        raise ValueError(
            "is not positive; write three lengths (z, y, x) above 0, such as 0.3, 0.1, 0.1"
        )
    if not all(1e-6 <= n <= 1e6 for n in (z, y, x)):
        raise ValueError("is no size of voxels, which lie between 1 pm and 1 m; write the unit")
    return z, y, x


def bucket(path: Path) -> Path:
    """A place in a store that can be written to."""
    place = path_of(path)
    if not is_in_bucket(place):
        raise ValueError(
            "is no place to write to; give one such as s3://BUCKET/NAME or gs://BUCKET/NAME"
        )
    return place


def local_folder(path: Path) -> Path:
    """A folder on a disk of this machine; a URL is refused."""
    if is_remote(path_of(path)):
        raise ValueError(
            "it is written to a disk of this machine; give a folder, and copy it to the store when "
            "it is done"
        )
    return path
